"""Streaming statistics of neurons over calibration tokens.

With a_ti the activation of neuron i on token t, V_i its output vector and n_ti = |a_ti| |V_i| its output norm, the sums

    sum_t a_ti,   sum_t |a_ti|,   sum_t a_ti^2,   max_t |a_ti|,   #{t : n_ti among the k largest of token t}

are kept per neuron in float64. Padding never enters: the attention mask of the model's own call selects the tokens.
Sums over tokens do not depend on how tokens are batched, and two halves add up. The first token of each sequence is
counted apart, because a few neurons answer it with activations hundreds of times larger than any other.

Whatever the model's dtype, products are taken in single precision at the least, and in double where single overflows: a
neuron of 9e3 squares beyond half precision, and a sum that is not finite is an error, never a statistic.

On request also second moments E[a a^T] (for compensation), E[x x^T] of the FFN's input (for low rank and error
feedback), E[(a_i dL/da_i)^2], the empirical Fisher information of switching neuron i off, and the inputs x themselves,
for what no moment tells: how neurons answer once their own weights have changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from papershelf_core import files
from torch import Tensor, nn

from ffn_heavyhitter.adapters import FFN, find_ffns, require_dense
from ffn_heavyhitter.errors import CalibrationError, StatisticsError

__all__ = ["LayerStatistics", "Statistics", "collect"]

Batch = Mapping[str, Tensor]
TOP_SHARE = 0.1  # n_ti counts as a hit when it is among this share of the largest of its token
_SCHEMA = "1"


@dataclass(frozen=True)
class LayerStatistics:
    """Sums over the tokens that one FFN saw.

    Attributes
    ----------
    tokens : int
    activation, magnitude, square, first_square, hits, fisher : Tensor of shape (m,), float64
        Sums over tokens of a, |a|, a^2, a^2 of first tokens, hits, and (a dL/da)^2; None where not collected.
    peak : Tensor of shape (m,)
        Largest |a|.
    input_sum, input_peak : Tensor of shape (d,)
        Sum of the FFN's input and its largest absolute value.
    down_norms : Tensor of shape (m,)
        |V_i|.
    hidden_moment : Tensor of shape (m, m), optional
        Sum of a a^T.
    input_moment : Tensor of shape (d, d), optional
        Sum of x x^T.
    gradient_moment : Tensor of shape (d, d), optional
        Sum of g g^T, g the loss gradient at the FFN's output.
    inputs : Tensor of shape (tokens, d), optional
        x of every token in the model's dtype, in the order in which they were seen.
    """

    tokens: int
    activation: Tensor
    magnitude: Tensor
    square: Tensor
    first_square: Tensor
    peak: Tensor
    input_sum: Tensor
    input_peak: Tensor
    down_norms: Tensor
    hits: Tensor | None = None
    fisher: Tensor | None = None
    hidden_moment: Tensor | None = None
    input_moment: Tensor | None = None
    gradient_moment: Tensor | None = None
    inputs: Tensor | None = None

    @property
    def width(self) -> int:
        """Number of neurons."""
        return self.square.numel()

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that were collected, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}

    def need(self, name: str, how: str) -> Tensor:
        """A tensor that may not have been collected.

        Raises
        ------
        StatisticsError
            If it was not; says which option of ``collect`` brings it.
        """
        value = getattr(self, name)
        if value is None:
            raise StatisticsError(f"the statistics hold no {name}; collect them with {how}")
        return value  # type: ignore[no-any-return]

    def __add__(self, other: LayerStatistics) -> LayerStatistics:
        mine, theirs = self.tensors(), other.tensors()
        if mine.keys() != theirs.keys():
            raise StatisticsError(f"cannot add: one side lacks {sorted(mine.keys() ^ theirs.keys())}")
        merged = {name: tensor + theirs[name] for name, tensor in mine.items() if name != "inputs"}
        for name in ("peak", "input_peak"):
            merged[name] = torch.maximum(mine[name], theirs[name])
        merged["down_norms"] = self.down_norms
        if "inputs" in mine:
            merged["inputs"] = torch.cat([mine["inputs"], theirs["inputs"]])
        return LayerStatistics(tokens=self.tokens + other.tokens, **merged)


@dataclass(frozen=True)
class Statistics:
    """Statistics of every FFN of one model.

    Attributes
    ----------
    layers : dict[str, LayerStatistics]
        By the FFN's name.
    fingerprint : str
        Of the weights they were collected on.
    """

    layers: dict[str, LayerStatistics]
    fingerprint: str

    @property
    def tokens(self) -> int:
        """Number of calibration tokens."""
        return next(iter(self.layers.values())).tokens

    def __add__(self, other: Statistics) -> Statistics:
        if self.fingerprint != other.fingerprint:
            raise StatisticsError("cannot add statistics of two different models")
        return Statistics({k: v + other.layers[k] for k, v in self.layers.items()}, self.fingerprint)

    def check(self, model: nn.Module) -> None:
        """Refuse a model other than the one these statistics were collected on.

        Raises
        ------
        StatisticsError
        """
        if fingerprint(find_ffns(model)) != self.fingerprint:
            raise StatisticsError(
                "these statistics were collected on a model with other FFN weights; collect them on this model"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as safetensors, whole or not at all."""
        from safetensors.torch import save_file

        tensors = {f"{name}:{key}": t for name, layer in self.layers.items() for key, t in layer.tensors().items()}
        tokens = {name: layer.tokens for name, layer in self.layers.items()}
        metadata = {"schema": _SCHEMA, "fingerprint": self.fingerprint, "tokens": json.dumps(tokens)}
        with files.replacing(path) as scratch:
            save_file({key: t.contiguous() for key, t in tensors.items()}, scratch, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Read what ``save`` wrote.

        Raises
        ------
        StatisticsError
            If the file holds no statistics or a schema that this version does not know.
        """
        from safetensors import SafetensorError, safe_open

        try:
            opened = safe_open(path, "pt")
        except SafetensorError as error:
            raise StatisticsError(f"{path} is no safetensors file ({error}); write one with Statistics.save") from error
        with opened as file:
            metadata = file.metadata() or {}
            if metadata.get("schema") != _SCHEMA:
                raise StatisticsError(f"{path} has schema={metadata.get('schema')!r}; this version reads {_SCHEMA}")
            layers: dict[str, dict[str, Tensor]] = {}
            for key in file.keys():  # noqa: SIM118  safe_open is no mapping
                name, _, part = key.rpartition(":")
                layers.setdefault(name, {})[part] = file.get_tensor(key)
        tokens = json.loads(metadata["tokens"])
        found = {name: LayerStatistics(tokens=count, **layers[name]) for name, count in tokens.items()}
        return cls(found, metadata["fingerprint"])


def collect(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    hits: bool = False,
    moments: bool = False,
    gradients: bool = False,
    inputs: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Statistics:
    """Run calibration batches through a model and gather statistics of its neurons.

    Parameters
    ----------
    model : nn.Module
        A dense transformers model in eval mode.
    batches : iterable of mappings
        Keyword arguments of the model's call: ``input_ids`` of shape (B, T) and, where rows are padded,
        ``attention_mask`` of the same shape, 0 on padding.
    hits : bool
        Also count how often each neuron is among the top 10 % of its token.
    moments : bool
        Also gather second moments of activations and inputs: memory 8 (m^2 + d^2) bytes a layer.
    gradients : bool
        Also gather the Fisher information and the gradient's second moment, by backward passes through the
        language-model loss.
    inputs : bool
        Also keep what the FFNs read: memory d values a token and layer.
    progress : callable, optional
        Called with the number of tokens seen after each batch.

    Returns
    -------
    Statistics

    Raises
    ------
    CalibrationError
        If there is no token, or an activation is not finite.
    CompressionError, UnsupportedArchitectureError
        If the model has no dense FFNs.
    """
    ffns = find_ffns(model)
    require_dense(ffns)
    watchers = {ffn.name: _Watcher(ffn, hits, moments, gradients, inputs) for ffn in ffns}
    was_training, seen = model.training, 0
    model.eval()
    try:
        with ExitStack() as stack:
            for watcher in watchers.values():
                stack.enter_context(watcher.watching())
            if gradients:
                stack.enter_context(_differentiable(model))
            for batch in batches:
                mask = _mask(batch)
                padded = mask is not None and not bool(mask.all())
                before = next(iter(watchers.values())).tokens
                for watcher in watchers.values():
                    watcher.mask, watcher.padded = mask, padded
                _run(model, batch, mask, gradients)
                seen += next(iter(watchers.values())).tokens - before if mask is None else int(mask.sum())
                if progress is not None:
                    progress(seen)
    finally:
        model.train(was_training)
    if seen == 0:
        raise CalibrationError("batches held no token; give at least one sequence with attention_mask 1 somewhere")
    return Statistics({name: watcher.result() for name, watcher in watchers.items()}, fingerprint(ffns))


def fingerprint(ffns: list[FFN]) -> str:
    """Digest of names, shapes and sampled values of the FFN weights."""
    digest = hashlib.sha256()
    for ffn in ffns:
        for name, tensor in ffn.weights().tensors().items():
            digest.update(f"{ffn.name}.{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.flatten()[:: max(1, tensor.numel() // 1024)].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _mask(batch: Batch) -> Tensor | None:
    """Which tokens count, shape (B, T); None for images, all of whose patches do."""
    ids = batch.get("input_ids")
    if ids is None and "pixel_values" in batch:
        return None
    if ids is None or ids.ndim != 2:
        shape = None if ids is None else tuple(ids.shape)
        raise CalibrationError(f"a batch needs input_ids of shape (B, T), got {shape}")
    mask = batch.get("attention_mask")
    if mask is None:
        return torch.ones_like(ids, dtype=torch.bool)
    if mask.shape != ids.shape:
        raise CalibrationError(f"attention_mask has shape {tuple(mask.shape)} but input_ids {tuple(ids.shape)}")
    return mask.bool()


def _run(model: nn.Module, batch: Batch, mask: Tensor | None, gradients: bool) -> None:
    if not gradients:
        with torch.no_grad():
            _body(model)(**batch)
        return
    if mask is None:
        raise CalibrationError("gradients=True needs a language model's loss, which images have none of")
    labels = batch["input_ids"].masked_fill(~mask, -100)
    scored = int((labels[:, 1:] != -100).sum())
    try:
        loss = model(**batch, labels=labels).loss
    except TypeError as error:
        raise CalibrationError(
            f"gradients=True needs a language model's loss; {type(model).__name__} has none"
        ) from error
    (loss * scored).backward()


def _body(model: nn.Module) -> nn.Module:
    """The model without its head, whose logits no statistic needs."""
    body = getattr(model, "base_model", model)
    return body if isinstance(body, nn.Module) else model


@contextmanager
def _differentiable(model: nn.Module) -> Iterator[None]:
    """Let gradients flow from the embeddings while no weight asks for one."""
    asked = [p for p in model.parameters() if p.requires_grad]
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    handle = embeddings.register_forward_hook(lambda module, inputs, output: output.requires_grad_())
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        handle.remove()
        for parameter in asked:
            parameter.requires_grad_(True)


@dataclass
class _Watcher:
    """Hooks on one FFN and the sums they fill."""

    ffn: FFN
    hits: bool
    moments: bool
    gradients: bool
    inputs: bool
    mask: Tensor | None = None
    padded: bool = True
    tokens: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    read: list[Tensor] = field(default_factory=list)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hook the layers for the time of the block."""
        self.down_norms = self._finite("weight", self.ffn.weights().down_norms)
        self._relative_norms = self.down_norms / self.down_norms.max().clamp(min=torch.finfo(torch.float64).tiny)
        handles = [
            self.ffn.up.register_forward_pre_hook(self._input),
            self.ffn.down.register_forward_pre_hook(self._hidden),
            self.ffn.down.register_forward_hook(self._output),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _input(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = self._tokens_of(inputs[0].detach())
        self._add("input_sum", self._finite("input", _column_sums(x.double())))
        self._peak("input_peak", x.abs())
        if self.moments:
            self._add_moment("input_moment", x)
        if self.inputs:
            self.read.append(x.clone())

    def _hidden(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        hidden: Any = inputs[0]
        a = self._tokens_of(hidden.detach())
        wide = a.double()
        magnitude, squares = wide.abs(), wide.square()
        total = self._finite("activation", _column_sums(squares))
        self.tokens += a.shape[0]
        self._add("activation", _column_sums(wide))
        self._add("magnitude", _column_sums(magnitude))
        self._peak("peak", magnitude)
        self._add("square", total)
        self._add("first_square", squares[self._first(hidden.shape)].sum(0))
        if self.hits:
            k = max(1, round(TOP_SHARE * a.shape[1]))
            rows = a if a.dtype in (torch.float32, torch.float64) else wide
            top = (rows.abs() * self._relative_norms.to(rows.dtype)).topk(k, dim=1, sorted=False).indices
            self._add("hits", torch.bincount(top.flatten(), minlength=a.shape[1]).double())
        if self.moments:
            self._add_moment("hidden_moment", a)
        if self.gradients:
            hidden.register_hook(lambda gradient: self._add("fisher", self._information(a, gradient)))

    def _output(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if self.gradients:
            output.register_hook(lambda gradient: self._add_moment("gradient_moment", self._tokens_of(gradient)))

    def _information(self, a: Tensor, gradient: Tensor) -> Tensor:
        single = torch.promote_types(a.dtype, torch.float32)
        change = a.to(single) * self._tokens_of(gradient).to(single)
        found = change.square().sum(0, dtype=torch.float64)
        if not torch.isfinite(found).all():
            found = (a.double() * self._tokens_of(gradient).double()).square().sum(0)
        return self._finite("gradient", found)

    def _add_moment(self, name: str, rows: Tensor) -> None:
        single = rows.to(torch.promote_types(rows.dtype, torch.float32))
        moment = (single.T @ single).double()
        if not torch.isfinite(moment).all():
            wide = rows.double()
            moment = self._finite(name.removesuffix("_moment"), wide.T @ wide)
        self._add(name, moment)

    def _finite(self, what: str, values: Tensor) -> Tensor:
        if not torch.isfinite(values).all():
            dtype = str(self.ffn.weights().up.dtype).removeprefix("torch.")
            article = "an" if what[0] in "aeiou" else "a"
            raise CalibrationError(
                f"{self.ffn.name}: {article} {what} is not finite in {dtype}; check the model's dtype and the input, "
                "float32 or bfloat16 hold more than float16"
            )
        return values

    def _tokens_of(self, tensor: Tensor) -> Tensor:
        """Rows of real tokens, shape (tokens, features); OPT hands over flattened batches already."""
        rows = tensor.reshape(-1, tensor.shape[-1])
        if self.mask is None:
            return rows
        if len(rows) != self.mask.numel():
            raise CalibrationError(
                f"{self.ffn.name} reads {len(rows)} tokens where the batch has {self.mask.numel()}: the attention mask "
                "does not say which of them count. Give a model whose FFNs all read the batch's own tokens"
            )
        return rows[self.mask.reshape(-1)] if self.padded else rows

    def _first(self, shape: torch.Size) -> Tensor:
        """Which of the real tokens are the first of their sequence."""
        if self.mask is None:
            return torch.arange(shape[:-1].numel()) % shape[-2] == 0
        return (self.mask & (self.mask.cumsum(1) == 1))[self.mask]

    def _add(self, name: str, value: Tensor) -> None:
        if name in self.sums:
            self.sums[name] += value
        else:
            self.sums[name] = value

    def _peak(self, name: str, magnitudes: Tensor) -> None:
        if magnitudes.shape[0] == 0:
            return
        peak = magnitudes.amax(0).double()
        self.sums[name] = torch.maximum(self.sums[name], peak) if name in self.sums else peak

    def result(self) -> LayerStatistics:
        """The sums as a value."""
        read = {"inputs": torch.cat(self.read)} if self.read else {}
        if self.gradients and not float(self.sums["fisher"].sum()):
            raise CalibrationError(
                f"{self.ffn.name}: every gradient is zero, as where half precision rounds them away; load the model "
                "with dtype=torch.float32"
            )
        return LayerStatistics(tokens=self.tokens, down_norms=self.down_norms, **self.sums, **read)


def _column_sums(rows: Tensor) -> Tensor:
    """Sums over rows, as a product with ones: several times faster than a reduction over the first dimension."""
    return rows.new_ones(rows.shape[0]) @ rows
