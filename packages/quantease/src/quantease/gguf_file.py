"""Write a quantised model as GGUF, the file that llama.cpp runs.

A GGUF block is 32 consecutive weights of a row with a float16 scale d and, in the *_1 types, an offset m:

    *_0          d (c - 2^(b-1))      the scale may be negative: a zero of 2^(b-1) - 1 with codes mirrored
    Q4_1, Q5_1   d c + m              any m: a real zero

so ``gguf_scheme`` gives grids whose every value is one of the file. The codes are those of the run: GPTQ start,
coordinate descent, error feedback. What is not quantised (embeddings, norms, tokenizer, chat template) is taken byte
for byte from a GGUF of the same model in any type, which is checked to be that before the run (``check_source``): every
tensor of it must be that of the model, within what its type loses, in the order of rows that its architecture stores.

Source of the layouts: ggml's ``block_q4_0`` to ``block_q8_0``, as the package ``gguf`` reads them.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from papershelf_core.files import check_writable, replacing
from torch import Tensor, nn

from quantease.checkpoint import naming
from quantease.errors import ExportError, SchemeError
from quantease.layer import LayerResult
from quantease.scheme import QuantizationScheme

if TYPE_CHECKING:
    from quantease.pipeline import QuantizedModel

__all__ = ["GGUF_TYPES", "check_source", "export_gguf", "gguf_scheme", "packed_blocks"]

BLOCK = 32
GGUF_TYPES = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
# keys that a writer sets by itself
OWN_KEYS = ("general.architecture", "general.file_type", "general.quantization_version")
# How far, relative to its size, a tensor may be from the model's: what the source's type loses, and for a quantised
# layer what the run did to it. Unrelated layers, or rows in another order, are 1 to 1.4 apart.
LOST = {"F32": 1e-3, "F16": 1e-3, "BF16": 1e-2, "Q8_0": 2e-2, "F64": 1e-3}
LOST_BY_BLOCKS, QUANTISED = 0.3, 0.9


def gguf_scheme(kind: str) -> QuantizationScheme:
    """The grid of a GGUF type.

    Parameters
    ----------
    kind : {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0"}

    Examples
    --------
    >>> scheme = gguf_scheme("q5_1")
    >>> scheme.bits, scheme.group_size, scheme.real_zero
    (5, 32, True)
    """
    if kind not in GGUF_TYPES:
        raise SchemeError(f"GGUF type {kind!r} is unknown; use one of {', '.join(GGUF_TYPES)}")
    bits, offset = int(kind[1]), kind.endswith("_1")
    return QuantizationScheme(bits, BLOCK, not offset, "float16", real_zero=offset, signed_scale=not offset)


def gguf_type(scheme: QuantizationScheme) -> str:
    """The GGUF type whose grid a scheme is.

    Raises
    ------
    ExportError
        If there is none.
    """
    for kind in GGUF_TYPES:
        if gguf_scheme(kind) == scheme:
            return kind
    raise ExportError(
        f"{scheme} is no grid of GGUF; take scheme=quantease.gguf_scheme(kind), kind one of {', '.join(GGUF_TYPES)}"
    )


def packed_blocks(layer: LayerResult) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bytes of a layer as GGUF holds them, of shape (q, bytes a row)."""
    kind = gguf_type(layer.scheme)
    q, groups = layer.scale.shape
    codes = layer.codes.reshape(q, groups, BLOCK).numpy()
    scale = layer.scale
    if layer.scheme.signed_scale:
        mirrored = layer.zero.numpy() < layer.scheme.levels // 2
        codes = np.where(mirrored[:, :, None], layer.scheme.levels - 1 - codes, codes)
        scale = torch.where(torch.from_numpy(mirrored), -scale, scale)
    parts: list[np.ndarray[Any, Any]] = [_bytes(scale)]
    if layer.scheme.real_zero:
        parts.append(_bytes(layer.zero))
    if kind == "q8_0":
        parts.append((codes.astype(np.int16) - 128).astype(np.int8).view(np.uint8))
    else:
        if layer.scheme.bits == 5:
            parts.append(np.packbits(codes >> 4, axis=2, bitorder="little"))
        nibbles = codes & 15
        parts.append(nibbles[:, :, : BLOCK // 2] | (nibbles[:, :, BLOCK // 2 :] << 4))
    return np.concatenate(parts, 2).reshape(q, -1)


def _bytes(halves: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """float16 numbers (q, groups) as bytes (q, groups, 2)."""
    return halves.contiguous().numpy().view(np.uint8).reshape(*halves.shape, 2)


def export_gguf(quantized: QuantizedModel, file: str | os.PathLike[str], source: str | os.PathLike[str]) -> None:
    """Write a GGUF file and read it again before it gets its name.

    The file holds the layers in float32, as the run found them; a model that is held in 16 bits rounds them in memory.

    Parameters
    ----------
    quantized : QuantizedModel
        Of one scheme, which is ``gguf_scheme(...)``.
    file : path
        Ends in .gguf; must not exist.
    source : path
        A GGUF of the model before it was quantised, of any type: metadata, tokenizer and every other tensor come from
        it. llama.cpp's ``convert_hf_to_gguf.py`` makes one of a Hugging Face folder. ``check_source`` says before the
        run whether it can be used.

    Raises
    ------
    ExportError
        If ``file`` exists, the scheme is none of GGUF's, or ``source`` is of another model.
    ModuleNotFoundError
        Without the extra ``gguf``.
    """
    gguf = gguf_library()
    goal = check_name(file)
    for name, layer in quantized.layers.items():
        if layer.sparse is not None:
            raise ExportError(f"{name} keeps outliers, for which GGUF's types have no place; use save_native")
    kinds = {gguf_type(layer.scheme) for layer in quantized.layers.values()}
    if len(kinds) != 1:
        raise ExportError(f"a file has one type of quantised layers, not {len(kinds)}; quantise with one scheme")
    (kind,) = kinds
    reader = read_gguf(Path(source))
    ours = _matched(quantized.model, quantized.layers, reader, Path(source))
    with replacing(goal) as scratch, naming(goal):
        writer = _writer(gguf, reader, Path(source), scratch)
        writer.add_file_type(getattr(gguf.LlamaFileType, f"MOSTLY_{kind.upper()}"))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for tensor in reader.tensors:
            if tensor.name in ours:
                raw = getattr(gguf.GGMLQuantizationType, kind.upper())
                writer.add_tensor(tensor.name, packed_blocks(ours[tensor.name]), raw_dtype=raw)
            else:
                writer.add_tensor(tensor.name, np.ascontiguousarray(tensor.data), raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        try:
            _check(gguf, scratch, reader, ours)
        except (ValueError, IndexError, KeyError) as error:
            raise OSError(f"it was not written whole: {error}") from error


def check_name(file: str | os.PathLike[str]) -> Path:
    """Refuse a name that a GGUF file cannot be written under."""
    goal = Path(file)
    if goal.suffix != ".gguf":
        raise ExportError(f"{goal} must end in .gguf, by which loaders know such files")
    if goal.exists():
        raise ExportError(f"{goal} exists; choose another name or remove it")
    check_writable(goal)
    return goal


def check_source(model: nn.Module, source: str | os.PathLike[str]) -> None:
    """Say before a run whether a GGUF can give what is not quantised of a model: it must be of that model.

    Raises
    ------
    ExportError
        Names the tensor or key, and what to give.
    """
    reader = read_gguf(Path(source))
    _matched(model, {}, reader, Path(source))
    _writer(gguf_library(), reader, Path(source), Path(os.devnull))


def gguf_library() -> Any:
    """The package ``gguf``, or an error that names the extra."""
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("GGUF files need the extra: pip install 'quantease[gguf]'") from error
    return gguf


def read_gguf(file: Path) -> Any:
    """Open a GGUF file; an error names it."""
    if not file.is_file():
        raise ExportError(f"{file} is no file; give a GGUF of the model, of any type")
    try:
        return gguf_library().GGUFReader(file)
    except (ValueError, IndexError, KeyError, OSError, OverflowError, MemoryError, struct.error) as error:
        raise ExportError(f"{file} cannot be read as GGUF ({' '.join(str(error).split())})") from error


def _matched(model: nn.Module, layers: dict[str, LayerResult], reader: Any, source: Path) -> dict[str, LayerResult]:
    """The quantised layers by their names in the file, rows in the order of the file; all else must be the model's."""
    import gguf

    names, orders = _names(gguf, reader, source), _head_counts(reader)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    found = {}
    for key, parameter in model.named_parameters():
        module, _, part = key.rpartition(".")
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None or name not in tensors:
            raise ExportError(
                f"{source} has no tensor for {key} (looked for {name or 'its name'}): it is of another model, or holds "
                "fused layers or experts in a way that is not supported"
            )
        tensor = tensors[name]
        theirs = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        layer = layers.get(module) if part == "weight" else None
        weight = parameter.detach().float() if layer is None else layer.dequantize(torch.float32)
        if theirs.shape != weight.shape:
            raise ExportError(
                f"{name} in {source} has shape {tuple(theirs.shape)}, {key} {tuple(weight.shape)}: it is of another "
                "model, or holds fused layers or experts in a way that is not supported"
            )
        allowed = QUANTISED if layer is not None else LOST.get(tensor.tensor_type.name, LOST_BY_BLOCKS)
        order = _row_order(weight, theirs, orders, allowed)
        if order is None:
            what = "what it was quantised from" if layer is not None else "that of the model"
            raise ExportError(f"{name} in {source} is not {what} ({key}); give a GGUF of this very model")
        if layer is not None:
            rows = layer.codes[order], layer.scale[order], layer.zero[order]
            found[name] = LayerResult(*rows, layer.scheme, None, layer.error, layer.history, layer.certificate)
    return found


def _names(gguf: Any, reader: Any, source: Path) -> Any:
    """How the file's architecture names what a model has."""
    architecture = _value(reader, source, "general.architecture", str)
    known = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in known:
        raise ExportError(f"{source} is of the architecture {architecture!r}, which the package gguf does not know")
    return gguf.get_tensor_name_map(known[architecture], _value(reader, source, f"{architecture}.block_count", int))


def _head_counts(reader: Any) -> list[int]:
    """Numbers of heads by whose halves an architecture may have reordered the rows of q and k."""
    counts = set()
    for name, field in reader.fields.items():
        if name.endswith((".attention.head_count", ".attention.head_count_kv")):
            values = np.ravel(field.contents())
            counts |= set(values.astype(int).tolist()) if values.dtype.kind in "iu" else set()
    return sorted(count for count in counts if count > 0)


def _row_order(weight: Tensor, theirs: Tensor, heads: list[int], allowed: float) -> Tensor | None:
    """The rows of ``weight`` in the order of ``theirs``: as they are, or the two halves of each head interleaved.

    None where no order brings them within ``allowed`` of each other, relative to the larger of the two. Gemma's norms
    are stored with 1 added to them.
    """
    q = len(weight)
    plain = torch.arange(q)
    orders = [plain] + [
        plain.reshape(count, 2, q // count // 2).swapaxes(1, 2).reshape(-1) for count in heads if q % (2 * count) == 0
    ]
    size = max(float(theirs.norm()), float(weight.norm())) or 1.0
    distances = [float((weight[order] - theirs).norm()) / size for order in orders]
    if weight.ndim == 1:
        distances[0] = min(distances[0], float((weight + 1 - theirs).norm()) / size)
    best = min(range(len(orders)), key=distances.__getitem__)
    return orders[best] if distances[best] <= allowed else None


def _writer(gguf: Any, reader: Any, source: Path, goal: Path) -> Any:
    """A writer that holds every key of the source but those that it sets by itself, with their types."""
    writer = gguf.GGUFWriter(goal, _value(reader, source, "general.architecture", str))
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in OWN_KEYS:
            continue
        try:
            nested = [kind for kind in field.types if kind == gguf.GGUFValueType.ARRAY]
            if len(nested) > 1:
                raise ValueError("arrays of arrays cannot be written")
            if name == "general.alignment":
                writer.add_custom_alignment(int(field.contents()))
                continue
            kind = field.types[-1] if nested else None
            writer.add_key_value(name, field.contents(), field.types[0], kind)
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            raise ExportError(f"{source}: the key {name} cannot be copied ({error}); remove or repair it") from error
    return writer


def _value(reader: Any, source: Path, key: str, kind: type) -> Any:
    """A value of the metadata, of its type."""
    field = reader.fields.get(key)
    value = None if field is None else field.contents()
    if not isinstance(value, kind):
        raise ExportError(f"{source} has {key}={value!r} where a whole model has a {kind.__name__}; convert it again")
    return value


def _check(gguf: Any, file: Path, source: Any, ours: dict[str, LayerResult]) -> None:
    """Read the file again: quantised layers have the values of the run bit for bit, all else those of the source."""
    written = gguf.GGUFReader(file)
    if [tensor.name for tensor in written.tensors] != [tensor.name for tensor in source.tensors]:
        raise ExportError("the tensors that were written are not those of the source; please report this")
    for tensor, before in zip(written.tensors, source.tensors, strict=True):
        if tensor.name in ours:
            value = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type)))
            same = torch.equal(value, ours[tensor.name].dequantize(torch.float32))
        else:
            raw, kept = (np.ascontiguousarray(each.data).view(np.uint8) for each in (tensor, before))
            same = tensor.tensor_type == before.tensor_type and np.array_equal(raw, kept)
        if not same:
            raise ExportError(f"{tensor.name} reads back with other values; please report this")
