"""Do folders and runs survive what happens to them? An identical result or a named error, counted.

    uv run python packages/quantease/benchmarks/trust.py [--seed 0] [--kills 20] [--flips 40] [--full-disks 12]
        [--pairs 4] [--architectures NAME ... | all]

kills: a run is killed by SIGKILL at a random moment and run again, under other numbers of threads around it; codes,
scales, weights and report must be those of a run that nobody disturbed. flips: one bit of one file, of each kind that
a run or an export leaves; resuming must give the same numbers, and loading the same logits or a named error.
full disks: no file may grow beyond a random limit (RLIMIT_FSIZE). pairs: two runs in one folder at once, equal or
different ones. architectures: random tiny models of every causal language model that transformers builds here; the
logits of every reloaded folder are those in memory, or the refusal is one of the package's own errors.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import inspect
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

NAMED = ("CalibrationWarning", "ExportError", "LayerError", "ModelError", "OSError", "SchemeError")
SPAWN = multiprocessing.get_context("forkserver")

PRELOADED = ["__main__", "accelerate", "compressed_tensors.compressors", "compressed_tensors.quantization"]
PRELOADED += ["huggingface_hub", "quantease.native", "transformers.models.llama.modeling_llama"]

# one value fits them all: what a config of any family may call its sizes
SIZES = {"vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES |= dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "lru_width", "dim_model"), 32)
SIZES |= dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "decoder_ffn_dim", "dff"), 64)
SIZES |= dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"), 2)
SIZES |= dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4)
SIZES |= dict.fromkeys(("max_position_embeddings", "n_positions"), 128)
SIZES |= dict.fromkeys(("num_key_value_heads", "linear_num_value_heads", "linear_num_key_heads"), 2)
SIZES |= dict.fromkeys(
    ("head_dim", "rotary_dim", "state_size", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim"), 8
)
SIZES |= dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "mamba_d_state"), 8)
SIZES |= dict.fromkeys(("sliding_window", "attention_window", "q_lora_rank", "kv_lora_rank", "mamba_d_head"), 16)
SIZES |= dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32)
SIZES |= {"num_local_experts": 2, "num_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1}
SIZES |= {"topk_group": 1, "mamba_n_heads": 4, "n_groups": 1, "mamba_expand": 2}
LARGEST = 3_000_000  # parameters: what ignores the sizes above is left out
SECONDS = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--flips", type=int, default=40)
    parser.add_argument("--full-disks", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--architectures", nargs="*", default=["all"], metavar="NAME")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    SPAWN.set_forkserver_preload(PRELOADED)
    failures = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        straight, seconds = undisturbed(folder)
        failures += kills(folder / "kills", arguments.kills, rng, straight, seconds)
        if arguments.flips:
            failures += flips(folder / "flips", arguments.flips, rng, straight)
        failures += full_disks(folder / "disks", arguments.full_disks, rng, straight)
        failures += pairs(folder / "pairs", arguments.pairs, straight)
        failures += architectures(folder / "architectures", arguments.architectures)
    return int(failures > 0)


# one run, in a process of its own


def job(
    work: str, result: str, threads: int = 1, bits: int = 3, out: str | None = None, largest: int | None = None
) -> None:
    """Quantise a tiny model under a foreign number of threads, export it, write a digest of all numbers."""
    if largest is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    warnings.simplefilter("ignore")
    import torch
    from quantease import OutlierConfig, QuantizationScheme, quantize_model, save_native

    torch.set_num_threads(threads)
    try:
        Path(result + ".began").touch()
        quantized = quantize_model(
            tiny(),
            windows(),
            QuantizationScheme(bits, 16),
            outliers=OutlierConfig(0.02),
            drift_windows=2,
            folder=work,
            moments=Path(work) / "moments",
            threads=1,
        )
        assert torch.get_num_threads() == threads
        if out is not None:
            save_native(quantized, out)
        said = digest(quantized)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    Path(result).write_text(said)


def tiny() -> Any:
    import torch
    import transformers as hf

    torch.manual_seed(0)
    config = hf.LlamaConfig(**{**fitting(hf.LlamaConfig), "num_hidden_layers": 4, "tie_word_embeddings": True})
    return hf.AutoModelForCausalLM.from_config(config).float().eval()


def windows() -> Any:
    import torch

    return torch.randint(3, 100, (6, 64), generator=torch.Generator().manual_seed(0))


def digest(quantized: Any) -> str:
    from dataclasses import asdict

    from quantease.checkpoint import digest_of_tensors

    rows = [{k: v for k, v in asdict(row).items() if k != "seconds"} for row in quantized.reports]
    parts = ("codes", "scale", "zero")
    layers = {f"{name}.{part}": getattr(layer, part) for name, layer in quantized.layers.items() for part in parts}
    return digest_of_tensors(layers | dict(quantized.model.state_dict()), json.dumps(rows, default=str))


def start(work: Path, **named: Any) -> tuple[Any, Path]:
    result = Path(tempfile.mkdtemp(dir=work.parent)) / "result"
    process = SPAWN.Process(target=job, args=(str(work), str(result)), kwargs=named)
    process.start()
    return process, result


def finish(work: Path, **named: Any) -> str:
    process, result = start(work, **named)
    process.join()
    return result.read_text() if result.exists() else f"died with {process.exitcode}"


def undisturbed(folder: Path) -> tuple[str, float]:
    process, result = start(folder / "straight")
    while process.is_alive() and not Path(f"{result}.began").exists():
        time.sleep(0.01)
    began = time.monotonic()
    process.join()
    seconds = time.monotonic() - began
    straight = result.read_text()
    assert len(straight) == len(hashlib.sha256().hexdigest()), straight
    return straight, seconds


def outcome(said: str, straight: str) -> str:
    if said == straight:
        return "identical"
    return "named error" if said.split(":")[0] in NAMED and "/" in said else f"WRONG: {said[:200]}"


def report(name: str, found: collections.Counter[str]) -> int:
    print(f"{name}: {', '.join(f'{count} {what}' for what, count in sorted(found.items())) or 'none'}", flush=True)
    return sum(count for what, count in found.items() if what.startswith("WRONG"))


# what happens to runs


def kills(folder: Path, count: int, rng: random.Random, straight: str, seconds: float) -> int:
    found: collections.Counter[str] = collections.Counter()
    for index in range(count):
        work = folder / str(index)
        work.mkdir(parents=True)
        process, result = start(work, threads=rng.choice([1, 2, 3]))
        wanted = rng.randrange(-1, 4)  # blocks that are finished at that moment, -1: not even the first pass
        while process.is_alive() and len(list(work.glob("*/block-*.safetensors"))) < wanted:
            time.sleep(0.002)
        while process.is_alive() and not Path(f"{result}.began").exists():
            time.sleep(0.002)
        time.sleep(rng.uniform(0, seconds / (2 if wanted <= 0 else 8)))
        process.kill()
        process.join()
        pieces = len(list(work.glob("*/block-*.safetensors")))
        found[outcome(finish(work, threads=rng.choice([1, 2, 3])), straight)] += 1
        found[f"killed after {pieces} of 4 blocks"] += 1
    return report(f"kill -9 at {count} random moments", found)


def flips(folder: Path, count: int, rng: random.Random, straight: str) -> int:
    found: collections.Counter[str] = collections.Counter()
    folder.mkdir()
    whole, exports = folder / "whole", folder / "exports"
    finish(whole, out=str(exports / "native"))
    logits = export_all(exports)
    kinds = {}
    for file in sorted(path for path in (*whole.rglob("*"), *exports.rglob("*")) if path.is_file()):
        root = "run" if whole in file.parents else file.relative_to(exports).parts[0]
        kinds.setdefault((root, file.name.split("-0")[0]), []).append(file)
    chosen = [kind for _ in range(count // len(kinds) + 1) for kind in kinds][: max(count, len(kinds))]
    for number, kind in enumerate(chosen):
        file = rng.choice(kinds[kind])
        place = folder / str(number)
        root = whole if kind[0] == "run" else exports / kind[0]
        shutil.copytree(root, place)
        damaged = place / file.relative_to(root)
        content = bytearray(damaged.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        damaged.write_bytes(content)
        said = outcome(finish(place), straight) if kind[0] == "run" else reload(place, logits[kind[0]])
        found[said if not said.startswith("WRONG") else f"{said} ({kind})"] += 1
        shutil.rmtree(place)
    return report(f"{len(chosen)} flipped bits in {len(kinds)} kinds of file", found)


def export_all(exports: Path) -> dict[str, Any]:
    """The tiny model in every format, with a tokenizer, in shards; the logits of each."""
    import torch
    from quantease import (
        QuantizationScheme,
        export_compressed_tensors,
        export_dense,
        load_model,
        quantize_model,
        save_native,
    )
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(100)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    quantized = quantize_model(tiny(), windows(), QuantizationScheme(3, 16), error_feedback=False)
    shutil.rmtree(exports / "native")
    write = {"native": save_native, "compressed-tensors": export_compressed_tensors, "dense": export_dense}
    logits = {}
    for name, written in write.items():
        written(quantized, exports / name, tokenizer, "60KB")
        with torch.no_grad():
            logits[name] = load_model(exports / name)(windows()[:1]).logits
    return logits


def reload(folder: Path, logits: Any) -> str:
    import torch
    from quantease import load_model, load_tokenizer

    try:
        tokens = load_tokenizer(folder)("w3 w99")["input_ids"]
        with torch.no_grad():
            same = torch.equal(load_model(folder)(windows()[:1]).logits, logits)
    except Exception as error:
        return outcome(f"{type(error).__name__}: {error}", "")
    return "identical" if same and tokens == [3, 99] else "WRONG: other logits or tokens"


def full_disks(folder: Path, count: int, rng: random.Random, straight: str) -> int:
    found: collections.Counter[str] = collections.Counter()
    for index in range(count):
        work = folder / str(index)
        work.mkdir(parents=True)
        out = work / "out"
        said = outcome(finish(work, out=str(out), largest=int(10 ** rng.uniform(2, 5.3))), straight)
        found[said] += 1
        if said != "identical" and out.exists():
            found["WRONG: a folder was left"] += 1
        if list(work.rglob("*.part*")):
            found["WRONG: scratch was left"] += 1
        after = outcome(finish(work), straight)
        if after != "identical":
            found[f"WRONG: run again: {after}"] += 1
    return report(f"{count} full disks", found)


def pairs(folder: Path, count: int, straight: str) -> int:
    found: collections.Counter[str] = collections.Counter()
    other = ""
    for index in range(count):
        work = folder / str(index)
        work.mkdir(parents=True)
        bits = 3 if index % 2 == 0 else 4
        both = [start(work), start(work, bits=bits, threads=2)]
        for process, _ in both:
            process.join()
        said = [result.read_text() if result.exists() else "died" for _, result in both]
        if bits == 4:
            other = other or finish(folder / "other", bits=4)
        found[outcome(said[0], straight)] += 1
        found[outcome(said[1], straight if bits == 3 else other)] += 1
    return report(f"{count} pairs of runs in one folder", found)


# architectures


def fitting(kind: Any) -> dict[str, int]:
    """Those of SIZES that a config class knows."""
    known = set(inspect.signature(kind.__init__).parameters) | set(getattr(kind, "attribute_map", {}))
    for base in kind.__mro__:
        known |= set(getattr(base, "__annotations__", {}))
    return {name: size for name, size in SIZES.items() if name in known}


def architectures(folder: Path, asked: list[str]) -> int:
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    found: collections.Counter[str] = collections.Counter()
    for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if asked == ["all"] else asked:
        folder.mkdir(parents=True, exist_ok=True)
        said = architecture(name, CONFIG_MAPPING[name], folder)
        print(f"  {name}: {said}", flush=True)
        found[said if said.startswith("WRONG") else said.split(":")[0]] += 1
        shutil.rmtree(folder)
    return report("architectures", found)


def architecture(name: str, kind: Any, folder: Path) -> str:
    import quantease as q
    import torch
    from transformers import AutoModelForCausalLM

    named = (q.ExportError, q.LayerError, q.ModelError, q.SchemeError)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        try:
            config = kind(**fitting(kind))
            with torch.device("meta"):
                size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
            if size > LARGEST:
                return f"not built: {size} parameters"
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config).float().eval()
            with torch.no_grad():
                model(windows()[:1], use_cache=False)
        except Exception as error:
            return f"not built: {type(error).__name__}"
        try:
            quantized = q.quantize_model(model, windows()[:4, :32], q.QuantizationScheme(4), drift_windows=1)
        except named as error:
            return f"refused: {error}"
        said = []
        write = {"compressed-tensors": q.export_compressed_tensors, "dense": q.export_dense, "native": q.save_native}
        for form, written in write.items():
            try:
                written(quantized, folder / form)
                with torch.no_grad():
                    ours, theirs = (
                        m(windows()[:1], use_cache=False).logits for m in (model, q.load_model(folder / form))
                    )
            except named as error:
                said.append(f"{form} refused ({error})")
                continue
            if not torch.equal(ours, theirs):
                return f"WRONG: {name}: {form} gives other logits"
        return "right" if not said else f"right or refused: {'; '.join(said)}"
    except TimeoutError:
        return f"not done: more than {SECONDS} s"
    except Exception as error:
        return f"WRONG: {name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        signal.alarm(0)


def too_long(*_: Any) -> None:
    raise TimeoutError


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sys.exit(main())
