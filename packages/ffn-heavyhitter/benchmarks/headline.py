"""The headline: eight-bit FFNs through the stock kernel, whole model, against dense and against stock settings."""

import copy
import shutil
import warnings

import torch
from ffn_heavyhitter import Int8
from ffn_heavyhitter.evaluation import bytes_on_disk
from study import Study

OTHER_DOMAIN = "calibrated on sentences of STS-B"
WAYS = {
    "ours": Int8(),
    "without error feedback": Int8(feedback=False),
    "random heavy set": Int8(score="random"),
    OTHER_DOMAIN: Int8(),
}


def stock(model):
    """torch's own dynamic quantisation: weights per output channel, one activation scale for all tokens."""
    layers = {name for name, _ in model.named_modules() if ".mlp." in name and name.endswith("_proj")}
    config = dict.fromkeys(layers, torch.ao.quantization.per_channel_dynamic_qconfig)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), config, dtype=torch.qint8)


def measure(study: Study, name: str) -> dict:
    statistics = study.other_domain if name == OTHER_DOMAIN else None
    model = stock(study.dense) if name == "stock" else study.compressed(WAYS[name], statistics)
    found = study.perplexity(model)
    if name != "stock":
        folder = study.cache / "headline-model"
        model.save_pretrained(folder)
        found["bytes"] = bytes_on_disk(folder)
        shutil.rmtree(folder)
    return found


def rows(study: Study) -> list[tuple[str, ...]]:
    dense = bytes_on_disk(study.folder)
    table = [("int8 FFN", "bytes, against fp32", "perplexity", "x dense +- s.e.")]
    for name in [*WAYS, "stock"]:
        cell = study.cell(f"headline-{name.replace(' ', '-')}", lambda name=name: measure(study, name))
        size = f"{cell['bytes'] / dense - 1:+.2%}" if "bytes" in cell else "not stored as safetensors"
        label = "torch quantize_dynamic, per tensor" if name == "stock" else name
        table.append((label, size, f"{cell['perplexity']:.3f}", f"{cell['ratio']:.4f} +- {cell['standard_error']:.4f}"))
    return table
