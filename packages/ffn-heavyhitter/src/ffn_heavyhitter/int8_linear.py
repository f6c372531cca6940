"""Linear layers and the embedding with int8 rows, in place of the model's own.

Each keeps the name of the layer that it replaces and its parameter ``weight``, which is EMPTY: it carries the dtype,
and a model with the dense layer in that place finds a tensor of the wrong shape and refuses the file.

Layers that read the same input (q, k and v; gate and up) form one ``SharedInput``: the first one that is called
quantises the input and runs the product for all.

A weight that is so large that the others of its row would round to nothing is an outlier: it leaves the codes and is
kept, with its place, in floating point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn

from ffn_heavyhitter import native
from ffn_heavyhitter.adapters import Original
from ffn_heavyhitter.errors import CompressionError
from ffn_heavyhitter.frozen import Frozen, is_offloaded, spec_dtype
from ffn_heavyhitter.int8_rows import LARGEST_CODE, PackedRows, codes_and_scale, kernel_is_exact, rounded
from ffn_heavyhitter.native import FEW_TOKENS

__all__ = [
    "Int8Embedding",
    "Int8Linear",
    "Int8Rows",
    "SharedInput",
    "int8_embedding",
    "int8_linear",
    "int8_modules",
    "outlying",
]

OUTLYING = 16  # times the largest weight of its row that is not among the largest few
_MANY = 1 << 12
_version = attrgetter("_version")
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # torch 2.6 lacks it
_FEW = 64  # one weight in so many may be an outlier


class Int8Rows(Frozen):
    """A matrix in codes -127 .. 127 with one scale a row.

    Attributes
    ----------
    weight : nn.Parameter of shape (rows, 0)
        Empty, of the layer's dtype.
    """

    kept = ("scale",)
    weight: Tensor
    codes: Tensor
    scale: Tensor

    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__(spec)
        self.original: Original | None = None
        self.hold(weight=((spec["rows"], 0), spec_dtype(spec)))
        if not spec.get("tied"):
            self.hold(
                codes=((spec["rows"], spec["columns"]), torch.int8),
                scale=((spec["rows"],), torch.float32),
            )

    def displace(self, layer: nn.Module) -> None:
        """Remember the layer that this one replaces, without its weights."""
        if isinstance(self, Int8Linear):
            layer.bias = None  # type: ignore[assignment]  # ours now
        self.original = Original({"": layer.to("meta")})

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The matrix that the codes stand for."""
        return (self.codes.data * self.scale.data[:, None]).to(dtype)

    def require_finite(self, name: str) -> None:
        """Also refuse a dtype in which the dequantised weights are not finite."""
        super().require_finite(name)
        largest = torch.finfo(self.dtype).max
        if self.spec.get("tied") or self.scale.is_meta or not self.scale.numel():
            return
        if (self.scale < 0).any():
            raise CompressionError(
                f"{name}.scale is negative somewhere; the folder is damaged: compress the model again"
            )
        if float(self.scale.detach().abs().max()) * LARGEST_CODE > largest:
            raise CompressionError(
                f"{name}.codes hold weights beyond {self.spec['dtype']} (largest value {largest:.4g}); load the model "
                "with dtype=torch.float32 or torch.bfloat16"
            )


class Int8Embedding(Int8Rows):
    """Looks rows up and dequantises them."""

    def __init__(self, spec: dict[str, Any], padding_idx: int | None = None) -> None:
        super().__init__(spec)
        self.num_embeddings, self.embedding_dim = spec["rows"], spec["columns"]
        self.padding_idx = padding_idx

    def forward(self, ids: Tensor) -> Tensor:
        """Rows of the matrix, shape (*ids.shape, columns)."""
        codes, scale = (nn.functional.embedding(ids, table) for table in (self.codes, self.scale.unsqueeze(-1)))
        return (codes * scale).to(self.dtype)


class Int8Linear(Int8Rows):
    """y = W x + b with W in int8 and x in 16 or 8 bits.

    Parameters
    ----------
    spec : dict
        ``rows``, ``columns``, ``dtype``, ``activation_bits``, ``outliers`` (how many), ``tied``.
    bias : nn.Parameter or None
        The replaced layer's own.
    source : Int8Embedding, optional
        Whose rows these are, where the head is tied to the embedding.
    """

    bias: Tensor | None

    def __init__(self, spec: dict[str, Any], bias: nn.Parameter | None, source: Int8Embedding | None = None) -> None:
        super().__init__({**spec, "tied": source is not None})
        self.in_features, self.out_features = spec["columns"], spec["rows"]
        self.register_parameter("bias", bias)
        self._source = None if source is None else [source]  # in a list, so that its tensors are not counted twice
        count = spec["outliers"]
        if count:
            self.hold(
                outlier_row=((count,), torch.int32),
                outlier_column=((count,), torch.int32),
                outlier_value=((count,), torch.float32),
            )
        self.shared = SharedInput([self])

    @property
    def kept(self) -> tuple[str, ...]:  # type: ignore[override]
        """What no cast narrows."""
        own = () if self.spec["tied"] else ("scale",)
        return (*own, "outlier_value") if self.spec["outliers"] else own

    @property
    def source(self) -> Int8Embedding | None:
        """The embedding whose rows these are."""
        return None if self._source is None else self._source[0]

    def rows(self) -> tuple[Tensor, Tensor]:
        """Codes and scale, from the embedding where they are tied."""
        owner: Any = self.source or self
        return owner.codes.detach(), owner.scale.detach()

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The matrix that codes and outliers stand for."""
        matrix = self.from_codes()
        if self.spec["outliers"]:
            rows, columns, values = self.outliers()
            matrix[rows, columns] = values
        return matrix.to(dtype)

    def outliers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row, column and value of each weight that the codes leave out."""
        row, column, value = (self.get_parameter(f"outlier_{part}").data for part in ("row", "column", "value"))
        return row.long(), column.long(), value

    def require_finite(self, name: str) -> None:
        """Also refuse outliers outside the matrix."""
        super().require_finite(name)
        if not self.spec["outliers"] or self.get_parameter("outlier_row").is_meta:
            return
        for part, size in zip(("row", "column"), (self.out_features, self.in_features), strict=True):
            place = self.get_parameter(f"outlier_{part}")
            if bool(((place < 0) | (place >= size)).any()):
                raise CompressionError(
                    f"{name}.outlier_{part} is outside 0 .. {size - 1}; the folder is damaged: compress the model again"
                )

    def from_codes(self) -> Tensor:
        """The matrix without its outliers, in single precision."""
        codes, scale = self.rows()
        return codes * scale[:, None]

    def reset(self) -> None:
        """Make the kernel's copy anew on next use."""
        self.shared.reset()

    def forward(self, x: Tensor) -> Tensor:
        """Output, shape (..., rows), in x's dtype."""
        if (torch.is_grad_enabled() and self._learns(x)) or _is_recorded():  # kernels have no gradient
            bias = None if self.bias is None else self.bias.to(x.dtype)
            return nn.functional.linear(x, self.dense(x.dtype), bias)
        return self.shared.take(self, x)

    def _learns(self, x: Tensor) -> bool:
        return x.requires_grad or (self.bias is not None and self.bias.requires_grad)


class SharedInput:
    """Layers that read one input: quantised once, multiplied once.

    Parameters
    ----------
    members : sequence of Int8Linear
        In the order of their calls, all of one ``activation_bits``.
    """

    def __init__(self, members: Sequence[Int8Linear]) -> None:
        self.members = list(members)
        self.backend: str | None = None  # int8 or dense; None until it is asked
        self.few: str | None = None  # the same for few tokens, or native
        self.reset()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made again on first use."""
        return {**self.__dict__, "_ready": {}, "_held": None}

    def reset(self) -> None:
        """Let go of what was derived from the tensors."""
        self._ready: dict[str | None, _Ready] = {}
        self._held: tuple[Tensor, Tensor, dict[Int8Linear, Tensor]] | None = None

    def use(self, backend: str, few: str | None = None) -> None:
        """Run through the kernel (``int8``) or dequantised weights (``dense``), few tokens also through ``native``."""
        self.backend, self.few = backend, few or backend

    def take(self, member: Int8Linear, x: Tensor) -> Tensor:
        """The output of one member; those of the others are held until they ask with the same tensor.

        A copy of the input tells whether it still holds the same numbers: writes through ``data``, NumPy or in
        inference mode leave no other trace.
        """
        if len(self.members) == 1:
            return self.run(x)
        if not self._ready and is_offloaded(member):  # the weights of one member are here, those of the others not
            alone = SharedInput([member])
            alone.backend, alone.few = self.backend, self.few
            return alone.run(x)
        held = self._held
        if held is not None and held[0] is x and _are_equal(held[1], x):
            waiting = held[2].pop(member, None)
            if not held[2]:
                self._held = None
            if waiting is not None:
                return waiting
        sizes = [one.out_features for one in self.members]
        copy = x.detach().clone()
        outputs = dict(zip(self.members, self.run(x).split(sizes, -1), strict=True))
        found: Tensor = outputs.pop(member)
        self._held = (x, copy, outputs)
        return found

    def run(self, x: Tensor) -> Tensor:
        """Outputs of all members side by side, in the dtype that a linear layer would give."""
        _require_input(x, self.members[0].in_features)
        if self.backend is None:
            self.use("int8" if kernel_is_exact() else "dense")
        flat = x.reshape(-1, x.shape[-1]).contiguous()
        way = self.few if len(flat) < FEW_TOKENS else self.backend
        if way == "native" and not native.available():  # chosen on another machine
            way = self.backend
        if x.device.type != "cpu" or (way == "int8" and not kernel_is_exact()):
            way = "dense"
        dtype = x.dtype if way == "dense" else torch.float32
        ready = self._ready.get(way)
        if ready is None or ready.dtype != dtype or ready.device != x.device or not ready.is_fresh():
            ready = _Ready(self.members, str(way), dtype)
            if not any(is_offloaded(one) for one in self.members):
                self._ready[way] = ready
        y: Tensor = ready(flat if flat.dtype == dtype else flat.to(dtype))
        wanted = x.dtype
        if wanted != torch.float64 and torch.is_autocast_enabled(x.device.type):
            wanted = torch.get_autocast_dtype(x.device.type)
        return (y if y.dtype == wanted else y.to(wanted)).view(*x.shape[:-1], y.shape[-1])


class _Ready:
    """Weights of all members side by side, as one way of running them wants them; all ways give the same numbers."""

    def __init__(self, members: Sequence[Int8Linear], way: str, dtype: torch.dtype) -> None:
        bits, self.dtype, self.members = members[0].spec["activation_bits"], dtype, members
        self.places = _frozen(members)
        self.made_of = [parameters[name] for parameters, name in self.places]
        self.tracked = [one for one in self.made_of if not one.is_inference()]
        self.versions = sum(map(_version, self.tracked))
        found = [one.rows() for one in members]
        self.device = found[0][0].device
        codes, scale = _side_by_side([codes for codes, _ in found]), _side_by_side([scale for _, scale in found])
        _require_rows(codes, scale, way)
        scale = scale.float()
        if way == "int8":
            packed = PackedRows(codes, scale)
            self.product: Callable[[Tensor], Tensor] = lambda x: packed.product(x, bits)
        elif way == "native":
            self.product = lambda x: native.product(x, codes, scale, bits)
        else:
            dense = (codes * scale[:, None]).to(dtype)
            self.product = lambda x: nn.functional.linear(rounded(x, bits).to(dtype), dense)
        self.outliers = _outliers(members)

    def is_fresh(self) -> bool:
        """Whether the members' codes, scales and outliers are those that this was made of."""
        now = [parameters[name] for parameters, name in self.places]
        return all(map(is_, now, self.made_of)) and sum(map(_version, self.tracked)) == self.versions

    def __call__(self, x: Tensor) -> Tensor:
        y = self.product(x)
        if self.outliers is not None:
            rows, columns, values = self.outliers
            y.index_add_(1, rows, (x[:, columns] * values).to(y.dtype))
        bias = _biases(self.members, self.dtype)  # read anew, as it may be learning
        return y if bias is None else y.add_(bias)


def _require_input(x: Tensor, columns: int) -> None:
    """Refuse what a linear layer refuses: other widths, and numbers that are not real and floating."""
    if not x.ndim or x.shape[-1] != columns or not x.is_floating_point():
        raise CompressionError(
            f"x of shape {tuple(x.shape)} and {x.dtype} must end in {columns} features and be real floating point"
        )


def _require_rows(codes: Tensor, scale: Tensor, way: str) -> None:
    """Refuse tensors that a state of other dtypes put in place, and, where C reads them, those of other devices."""
    if codes.dtype != torch.int8 or not scale.is_floating_point():
        raise CompressionError(
            f"codes are {codes.dtype} and scale {scale.dtype}, not int8 and floating; load the state without a cast"
        )
    if way != "dense" and codes.device.type != "cpu":
        raise CompressionError(f"codes are on {codes.device} and the input on cpu; move the model or the input")


def _is_recorded() -> bool:
    """Whether calls are being written down for later, which C's and those of derived tensors cannot be."""
    return torch._C._get_tracing_state() is not None or _is_exporting()


def _frozen(members: Sequence[Int8Linear]) -> list[tuple[dict[str, Any], str]]:
    """Where the parameters of the members are, but for their biases."""
    owners = [owner for one in members for owner in (one, one.source) if owner is not None]
    return [(owner._parameters, name) for owner in owners for name in owner._parameters if name != "bias"]


def _are_equal(copy: Tensor, x: Tensor) -> bool:
    """Whether all numbers are equal; large ones are compared eight bytes at a time, which is faster."""
    if x.numel() > _MANY and x.shape[-1] * x.element_size() % 8 == 0 and x.is_contiguous():
        return torch.equal(copy.view(torch.int64), x.view(torch.int64))
    return torch.equal(copy, x)


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """One tensor of all; without a copy where there is one."""
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(list(parts))


def _biases(members: Sequence[Int8Linear], dtype: torch.dtype) -> Tensor | None:
    """Biases of all members in one vector, zero where one has none; None where none has any."""
    found = [one._parameters["bias"] for one in members]
    first = next((bias for bias in found if bias is not None), None)
    if first is None:
        return None
    if len(found) == 1:
        return first.detach().to(dtype)
    sizes = [one.out_features for one in members]
    parts = [first.new_zeros(size) if bias is None else bias for bias, size in zip(found, sizes, strict=True)]
    return torch.cat([part.detach().to(dtype) for part in parts])


def _outliers(members: Sequence[Int8Linear]) -> tuple[Tensor, Tensor, Tensor] | None:
    rows, columns, values, first = [], [], [], 0
    for one in members:
        if one.spec["outliers"]:
            row, column, value = one.outliers()
            rows.append(row + first)
            columns.append(column)
            values.append(value)
        first += one.out_features
    return (torch.cat(rows), torch.cat(columns), torch.cat(values)) if rows else None


def int8_linear(weight: Tensor, bias: nn.Parameter | None, activation_bits: int) -> Int8Linear:
    """Quantise a matrix, shape (rows, columns), to nearest.

    Raises
    ------
    CompressionError
        If a weight is not finite.
    """
    if not torch.isfinite(weight).all():
        raise CompressionError("a weight is not finite")
    far = outlying(weight)
    place = far.nonzero(as_tuple=True)
    codes, scale = codes_and_scale(weight.masked_fill(far, 0))
    module = Int8Linear(_spec(weight, activation_bits=activation_bits, outliers=len(place[0])), bias)
    module.fill({"codes": codes, "scale": scale})
    if len(place[0]):
        module.fill({"outlier_row": place[0], "outlier_column": place[1], "outlier_value": weight[place]})
    return module


def int8_embedding(weight: Tensor, padding_idx: int | None) -> Int8Embedding:
    """Quantise an embedding, shape (rows, columns), to nearest."""
    if not torch.isfinite(weight).all():
        raise CompressionError("a weight is not finite")
    codes, scale = codes_and_scale(weight)
    module = Int8Embedding(_spec(weight), padding_idx)
    module.fill({"codes": codes, "scale": scale})
    return module


def _spec(weight: Tensor, **more: Any) -> dict[str, Any]:
    rows, columns = weight.shape
    return {"rows": rows, "columns": columns, "dtype": str(weight.dtype).removeprefix("torch."), **more}


def outlying(weight: Tensor) -> Tensor:
    """Where a weight is far beyond all but the largest few of its row."""
    sizes = weight.float().abs()
    few = max(1, sizes.shape[1] // _FEW)
    typical = sizes.topk(min(few + 1, sizes.shape[1]), 1).values[:, -1:]
    return (sizes > OUTLYING * typical) & (typical > 0)


def int8_modules(model: nn.Module) -> dict[str, Int8Rows]:
    """The int8 layers of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Int8Rows)}
