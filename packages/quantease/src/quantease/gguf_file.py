"""Write a quantised model as GGUF, the file that llama.cpp runs.

A GGUF block is 32 consecutive weights of a row with a float16 scale d and, in the *_1 types, an offset m:

    Q4_0, Q5_0   d (c - 2^(b-1))      the scale may be negative: a zero of 2^(b-1) - 1 with codes mirrored
    Q8_0         d (c - 128)
    Q4_1, Q5_1   d c + m              any m: a real zero

so ``gguf_scheme`` gives grids whose every value is one of the file. The codes are those of the run: GPTQ start,
coordinate descent, error feedback. What is not quantised (embeddings, norms, tokenizer, chat template) is taken byte
for byte from a GGUF of the same model in any type, which is checked to be that: each of its layers must be near the
quantised one, in the order of rows that its architecture stores.

Source of the layouts: ggml's ``block_q4_0`` to ``block_q8_0``, as the package ``gguf`` reads them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from papershelf_core.files import check_writable, replacing
from torch import Tensor

from quantease.checkpoint import naming
from quantease.errors import ExportError, SchemeError
from quantease.layer import LayerResult
from quantease.scheme import QuantizationScheme

if TYPE_CHECKING:
    from quantease.pipeline import QuantizedModel

__all__ = ["GGUF_TYPES", "export_gguf", "gguf_scheme", "packed_blocks"]

BLOCK = 32
GGUF_TYPES = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
# keys that a writer sets by itself
OWN_KEYS = ("general.architecture", "general.file_type", "general.quantization_version")
# relative distance of a layer to its source: 4 bits are off by a tenth, other rows or another model by more than 1
NEAR = 0.5


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
    return QuantizationScheme(
        bits, BLOCK, not offset, "float16", real_zero=offset, signed_scale=kind in ("q4_0", "q5_0")
    )


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

    Parameters
    ----------
    quantized : QuantizedModel
        Of one scheme, which is ``gguf_scheme(...)``.
    file : path
        Must not exist.
    source : path
        A GGUF of the model before it was quantised, of any type: metadata, tokenizer and every other tensor come from
        it. llama.cpp's ``convert_hf_to_gguf.py`` makes one of a Hugging Face folder.

    Raises
    ------
    ExportError
        If ``file`` exists, the scheme is none of GGUF's, or ``source`` is of another model.
    ModuleNotFoundError
        Without the extra ``gguf``.
    """
    gguf = gguf_library()
    goal = Path(file)
    if goal.exists():
        raise ExportError(f"{goal} exists; choose another name or remove it")
    check_writable(goal)
    kinds = {gguf_type(layer.scheme) for layer in quantized.layers.values()}
    if len(kinds) != 1:
        raise ExportError(f"a file has one type of quantised layers, not {len(kinds)}; quantise with one scheme")
    (kind,) = kinds
    reader = read_gguf(Path(source))
    ours = dict(_matched(quantized, reader, Path(source)))
    with replacing(goal) as scratch, naming(goal):
        writer = gguf.GGUFWriter(scratch, _text(reader, "general.architecture"))
        _copy_metadata(reader, writer)
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
        _check(gguf, scratch, reader, ours)


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
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise ExportError(f"{file} cannot be read as GGUF ({' '.join(str(error).split())})") from error


def _matched(quantized: QuantizedModel, reader: Any, source: Path) -> Iterator[tuple[str, LayerResult]]:
    """Each quantised layer by its name in the file, its rows in the order of the file."""
    import gguf

    architecture = _text(reader, "general.architecture")
    known = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in known:
        raise ExportError(f"{source} is of the architecture {architecture!r}, which the package gguf does not know")
    blocks = int(reader.fields[f"{architecture}.block_count"].contents())
    names = gguf.get_tensor_name_map(known[architecture], blocks)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    orders = _head_counts(reader, architecture)
    for module, layer in quantized.layers.items():
        name = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if name is None or name not in tensors:
            raise ExportError(
                f"{source} has no tensor for {module} (looked for {name or 'its name'}); it is of another model"
            )
        theirs = torch.from_numpy(np.array(gguf.dequantize(tensors[name].data, tensors[name].tensor_type)))
        weight = layer.dequantize(torch.float32)
        if theirs.shape != weight.shape:
            raise ExportError(
                f"{name} in {source} has shape {tuple(theirs.shape)}, {module} {tuple(weight.shape)}; it is of "
                "another model, or holds its experts or fused layers in a way that is not supported"
            )
        order = _row_order(weight, theirs, orders)
        if order is None:
            raise ExportError(f"{name} in {source} is not what {module} was quantised from; give a GGUF of this model")
        rows = layer.codes[order], layer.scale[order], layer.zero[order]
        yield name, LayerResult(*rows, layer.scheme, None, layer.error, layer.history, layer.certificate)


def _head_counts(reader: Any, architecture: str) -> list[int]:
    """Numbers of heads by whose halves an architecture may have reordered the rows of q and k."""
    counts = set()
    for key in ("head_count", "head_count_kv"):
        field = reader.fields.get(f"{architecture}.attention.{key}")
        if field is not None:
            counts |= set(np.ravel(field.contents()).astype(int).tolist())
    return sorted(count for count in counts if count > 0)


def _row_order(weight: Tensor, theirs: Tensor, heads: list[int]) -> Tensor | None:
    """The rows of ``weight`` in the order of ``theirs``: as they are, or the two halves of each head interleaved."""
    q = len(weight)
    plain = torch.arange(q)
    orders = [plain] + [
        plain.reshape(count, 2, q // count // 2).swapaxes(1, 2).reshape(-1) for count in heads if q % (2 * count) == 0
    ]
    size = float(theirs.norm()) or 1.0
    distances = [float((weight[order] - theirs).norm()) / size for order in orders]
    best = min(range(len(orders)), key=distances.__getitem__)
    return orders[best] if distances[best] < NEAR else None


def _copy_metadata(reader: Any, writer: Any) -> None:
    """Every key of the source but those that a writer sets, with its type."""
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in OWN_KEYS:
            continue
        writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)


def _text(reader: Any, key: str) -> str:
    if key not in reader.fields:
        raise ExportError(f"the GGUF has no key {key!r}; give a whole model")
    return str(reader.fields[key].contents())


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
            same = tensor.tensor_type == before.tensor_type and np.array_equal(tensor.data, before.data)
        if not same:
            raise ExportError(f"{tensor.name} reads back with other values; please report this")
