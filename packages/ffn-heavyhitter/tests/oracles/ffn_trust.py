"""One cell of the matrix architecture x treatment x dtype, saved and loaded: what is wrong with it, in words.

The dense model in single precision is the reference. A cell is right when

- saved and loaded as it is, it gives the same bits, by every class that may load it;
- loaded in another dtype, cast after loading, or run under autocast, it is off by no more than that dtype costs the
  dense model, times four, and 2 %;
- compressed in half precision, it is as near to the dense model as the one compressed in single precision is, with
  the same allowance;
- a process without the plug-in cannot load it by any way that there is, and is told why.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from ffn_heavyhitter import Int8, LowRank, MixedBits, Narrow, Split, collect, compress, compress_model
from ffn_heavyhitter.adapters import find_ffns
from ffn_heavyhitter.errors import CalibrationError, CompressionError
from ffn_heavyhitter.feedforward import compressed_ffns
from ffn_heavyhitter.int8_linear import int8_modules
from ffn_heavyhitter.statistics import Statistics
from oracles.ffn_tiny_architectures import SUPPORTED, answers, batch, build
from safetensors.torch import save_file

WAYS: dict[str, Any] = {
    "split": Split(heavy=16),
    "int8": Int8(heavy=16),
    "mixed_bits": MixedBits(heavy=16, heavy_bits=8, light_bits=6, group_size=32),
    "low_rank": LowRank(share=0.8, heavy=48),
    "narrow": Narrow(88),
    "narrow by layer": None,
    "whole": None,
    "whole, 8 bits": None,
    "whole, mixed_bits": None,
}
# the largest change of the outputs that a treatment of these sizes may make on its own calibration tokens
LARGEST_CHANGE = {
    "split": 1e-5,
    "int8": 0.06,
    "mixed_bits": 0.08,
    "low_rank": 0.6,
    "narrow": 0.4,
    "narrow by layer": 0.4,
    "whole": 0.06,
    "whole, 8 bits": 0.12,
    "whole, mixed_bits": 0.1,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def cells() -> list[tuple[str, str]]:
    """Architecture and treatment of every cell; all dtypes are tried in each."""
    return list(itertools.product(SUPPORTED, WAYS))


def rewritten(model: Any, inputs: dict[str, torch.Tensor], way: str) -> Any:
    """A compressed copy."""
    if way.startswith("whole"):
        return _whole(copy.deepcopy(model), inputs, way)
    statistics = collect(model, [inputs], moments=True, inputs=way == "low_rank")
    return compress(copy.deepcopy(model), _treatment(way, statistics), statistics)


def _whole(model: Any, inputs: dict[str, torch.Tensor], way: str) -> Any:
    if way != "whole, mixed_bits":
        return compress_model(model, activation_bits=8 if way == "whole, 8 bits" else 16)
    return compress_model(model, ffn=WAYS["mixed_bits"], statistics=collect(model, [inputs], moments=True))


def _use_dense(model: Any) -> None:
    """Run everything from floating-point weights."""
    for module in model.modules():
        for one in (module, getattr(module, "shared", None)):
            if hasattr(one, "use"):
                one.use("dense")


def _treatment(way: str, statistics: Statistics) -> Any:
    if way != "narrow by layer":
        return WAYS[way]
    return {name: Narrow(88 if i else 80) for i, name in enumerate(statistics.layers)}


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative distance; infinite where anything is not finite."""
    if not torch.isfinite(found).all():
        return float("inf")
    return float((found - wanted).norm() / wanted.norm())


def faults(name: str, way: str, folder: Path) -> list[str]:
    """What is wrong with one cell in this process, which has the plug-in; leaves its folder for one that has not."""
    dense = build(name)
    inputs, found = batch(dense), []
    reference = answers(dense, inputs)
    model = rewritten(dense, inputs, way)
    wanted = answers(model, inputs)
    change = off(wanted, reference)
    if not change <= LARGEST_CHANGE[way]:
        found.append(f"changes the outputs by {change:.3g}")
    model.save_pretrained(folder / "model")
    save_file({**inputs, "wanted": wanted}, folder / "io.safetensors")
    cost = {key: off(_in(dense, dtype, inputs), reference) for key, dtype in DTYPES.items()}
    for key, dtype in DTYPES.items():
        again = type(model).from_pretrained(folder / "model", dtype=dtype)
        try:
            given = answers(again, _cast(inputs, dtype))
        except RuntimeError:
            if _dense_fails_too(dense, folder, dtype, inputs):
                continue
            raise
        if dtype == torch.float32 and not torch.equal(given, wanted):
            found.append(f"loaded differs by {off(given, wanted):.3g}")
        slack = 0.06 if way == "whole, 8 bits" else 0.02  # other roundings of the activations weigh as much as these
        if not off(given, wanted) <= 4 * cost[key] + slack:
            found.append(f"loaded in {key} is off by {off(given, wanted):.3g}, dense by {cost[key]:.3g}")
        for module in (*compressed_ffns(again).values(), *int8_modules(again).values()):
            module.require_finite(key)
        _use_dense(again)
        if not off(answers(again, _cast(inputs, dtype)), wanted) <= 4 * cost[key] + 0.08:
            found.append(f"dense path in {key} is off by {off(answers(again, _cast(inputs, dtype)), wanted):.3g}")
        if dtype == torch.float32:
            found += _cast_later(again, dense, inputs, wanted, cost)
            continue
        try:
            half = rewritten(copy.deepcopy(dense).to(dtype), _cast(inputs, dtype), way)
        except (CompressionError, CalibrationError) as error:
            found.append(f"refused in {key}: {error}")
            continue
        if not off(answers(half, _cast(inputs, dtype)), reference) <= change + 4 * cost[key] + 0.05:
            found.append(f"compressed in {key} is off by {off(answers(half, _cast(inputs, dtype)), reference):.3g}")
    return found + _other_classes(model, folder, inputs, wanted)


def _dense_fails_too(dense: Any, folder: Path, dtype: torch.dtype, inputs: dict[str, torch.Tensor]) -> bool:
    """Whether the architecture itself does not run when it is loaded in a dtype."""
    dense.save_pretrained(folder / "dense")
    try:
        answers(type(dense).from_pretrained(folder / "dense", dtype=dtype), _cast(inputs, dtype))
    except RuntimeError:
        return True
    return False


def _cast_later(
    model: Any, dense: Any, inputs: dict[str, torch.Tensor], wanted: torch.Tensor, cost: dict[str, float]
) -> list[str]:
    found = []
    if model.main_input_name == "input_ids":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            try:
                answers(dense, inputs)
            except RuntimeError:  # DeBERTa's mask does not fit: there is nothing to compare with
                given = wanted
            else:
                given = answers(model, inputs)
        if not off(given, wanted) <= 4 * cost["bfloat16"] + 0.08:
            found.append(f"under autocast is off by {off(given, wanted):.3g}")
    model.to(torch.bfloat16)
    given = answers(model, _cast(inputs, torch.bfloat16))
    if not off(given, wanted) <= 4 * cost["bfloat16"] + 0.08:
        found.append(f"cast after loading is off by {off(given, wanted):.3g}")
    return found


def _other_classes(model: Any, folder: Path, inputs: dict[str, torch.Tensor], wanted: torch.Tensor) -> list[str]:
    found = []
    body = transformers.AutoModel.from_pretrained(folder / "model")
    ours = compressed_ffns(model)
    if int8_modules(model) and not int8_modules(body):
        found.append("AutoModel has no int8 layer")
    if ours and len(compressed_ffns(body)) != len(ours):
        found.append(f"AutoModel has {len(compressed_ffns(body))} compressed FFNs of {len(ours)}")
    own = model.base_model if model.base_model_prefix and hasattr(model, model.base_model_prefix) else model
    if type(own) is type(body) and not torch.equal(answers(body, inputs), answers(own, inputs)):
        found.append("AutoModel's body differs")
    if model.can_generate():
        again = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
        if not torch.equal(answers(again, inputs), wanted):
            found.append("AutoModelForCausalLM differs")
    return found


def _cast(inputs: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}


def _in(model: Any, dtype: torch.dtype, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return answers(copy.deepcopy(model).to(dtype), _cast(inputs, dtype))


_STRANGER = """
import copy, json, sys, tempfile, warnings
import torch, transformers
from safetensors.torch import load_file
warnings.simplefilter("ignore")
transformers.utils.logging.set_verbosity(60)
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)

def bare(folder, cls):
    config = transformers.AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return cls.from_pretrained(folder, config=config)

def by_state(folder, cls):
    config = transformers.AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = cls(config).eval()
    with tempfile.TemporaryDirectory() as plain:
        model.save_pretrained(plain)
        if not set(load_file(plain + "/model.safetensors")) <= set(model.state_dict()):
            raise KeyError("transformers writes other names than the model's: no plain folder is read like this")
    model.load_state_dict(load_file(folder + "/model.safetensors"), strict=False)
    model.tie_weights()
    return model

def piped(folder, cls):
    task = "text-generation" if cls.__name__.endswith(("ForCausalLM", "LMHeadModel")) else "feature-extraction"
    return transformers.pipeline(task, model=folder, tokenizer=copy, feature_extractor=copy, image_processor=copy).model

report = {}
for place in json.load(sys.stdin):
    folder = place + "/model"
    name = json.load(open(folder + "/config.json"))["architectures"][0]
    cls = getattr(transformers, name)
    io = load_file(place + "/io.safetensors")
    wanted = io.pop("wanted")
    routes = {
        "AutoModel": transformers.AutoModel.from_pretrained,
        name: cls.from_pretrained,
        "config without the entry": lambda f: bare(f, cls),
        "load_state_dict": lambda f: by_state(f, cls),
        "pipeline": lambda f: piped(f, cls),
    }
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        routes["AutoModelForCausalLM"] = transformers.AutoModelForCausalLM.from_pretrained
    found = report[place] = {}
    for route, load in routes.items():
        try:
            model = load(folder).eval()
        except Exception as error:
            found[route] = "refused: " + str(error)
            continue
        if type(model) is not cls:
            found[route] = "another class"
            continue
        with torch.no_grad():
            given = model(**io)[0].double()
        found[route] = "right" if torch.allclose(given, wanted, rtol=1e-5, atol=1e-5) else "WRONG"
assert "ffn_heavyhitter" not in sys.modules
json.dump(report, sys.stdout)
"""


def without_the_plug_in(places: list[Path]) -> dict[str, list[str]]:
    """What a fresh process that never imports the package makes of the folders: faults by folder."""
    done = subprocess.run(
        [sys.executable, "-c", _STRANGER],
        input=json.dumps([str(place) for place in places]),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    found = {}
    for place, routes in json.loads(done.stdout).items():
        plain = "quantization_config" not in json.loads((Path(place) / "model" / "config.json").read_text())
        found[place] = [f"{route}: {what}" for route, what in routes.items() if not _acceptable(route, what, plain)]
    return found


def _acceptable(route: str, what: str, plain: bool) -> bool:
    if plain:  # raw states need not be named as the model's tensors are; pipelines want a tokenizer as well
        return what in ("right", "another class") or route in ("load_state_dict", "pipeline")
    by_config = route not in ("config without the entry", "load_state_dict")
    return what.startswith("refused") and ("import ffn_heavyhitter" in what or not by_config)


def outlier_draws(draws: int, seed: int = 0) -> Iterator[tuple[str, Callable[[], str]]]:
    """Draws of a model with outlier weights, each with a call that says right, refused, warned, or what is wrong."""
    names = ("llama", "phi3", "gemma3", "gpt2", "opt", "bert", "t5-gated-encoder", "cohere")
    generator = torch.Generator().manual_seed(seed)

    def pick(options: Any) -> Any:
        return list(options)[int(torch.randint(len(options), (1,), generator=generator))]

    for draw in range(draws):
        name, way, dtype = pick(names), pick(WAYS), pick(DTYPES)
        spots = []
        for _ in range(1 + draw % 3):
            power = float(torch.empty(1).uniform_(-6, 4, generator=generator))
            spots.append((pick(("up", "gate", "down", "row", "column", "all up")), 10**power))
        label = f"{draw}: {name}, {way}, {dtype}, " + ", ".join(f"{part} {size:.1e}" for part, size in spots)
        yield label, lambda arguments=(name, way, DTYPES[dtype], spots, draw): _outlier(*arguments)


def _outlier(name: str, way: str, dtype: torch.dtype, spots: list[tuple[str, float]], seed: int) -> str:
    model = build(name)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part, size in spots:
            ffn = find_ffns(model)[int(torch.randint(len(find_ffns(model)), (1,), generator=generator))]
            weights = ffn.weights()
            i = int(torch.randint(weights.width, (1,), generator=generator))
            j = int(torch.randint(weights.hidden_size, (1,), generator=generator))
            gate = weights.up if weights.gate is None else weights.gate
            target = {
                "up": weights.up[i, j : j + 1],
                "gate": gate[i, j : j + 1],
                "down": weights.down[j, i : i + 1],
                "row": weights.up[i],
                "column": weights.down[:, i],
                "all up": weights.up,
            }[part]
            target.mul_(size / target.abs().max())
    model = model.to(dtype)
    inputs = batch(model)
    reference = answers(model, inputs)
    if not torch.isfinite(reference).all():
        return "right"  # the dense model overflows: nothing to compare with
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            ours = rewritten(model, inputs, way)
    except (CompressionError, CalibrationError) as error:
        return "refused" if "float32" in str(error) or "tokens" in str(error) else f"unclear: {error}"
    distance = off(answers(ours, inputs), reference)
    allowed = {"split": 0.05, "narrow": 1.5, "narrow by layer": 1.5, "low_rank": 1.5}.get(way, 0.3)
    if distance <= allowed:
        return "right"
    warned = torch.isfinite(answers(ours, inputs)).all() and any("round most others" in str(w.message) for w in said)
    return "warned" if warned else f"off by {distance:.3g}"
