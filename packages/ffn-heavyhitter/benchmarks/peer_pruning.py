# /// script
# requires-python = ">=3.11"
# dependencies = ["optipfair==0.4.2", "torch-pruning==1.6.1", "torch>=2.6", "transformers==5.23.0", "safetensors"]
# ///
"""Prune FFN widths with optipfair and torch-pruning; write each pruned model as a plain transformers folder.

python peer_pruning.py MODEL WINDOWS.safetensors OUT --width 0.75
"""

import argparse
import copy
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def optipfair(model, windows, percentage, method):
    from optipfair import prune_model

    options = {"neuron_selection_method": method, "pruning_percentage": percentage}
    if windows is not None:
        rows = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in windows]
        options |= {"neuron_selection_method": "MAW", "dataloader": torch.utils.data.DataLoader(rows, batch_size=4)}
    return prune_model(model, pruning_type="MLP_GLU", show_progress=False, **options)


def torch_pruning(model, percentage):
    """Each FFN traced as a module of its own; its input and output stay as wide as they are."""
    import torch_pruning as tp

    hidden = model.config.hidden_size
    for layer in model.model.layers:
        mlp = layer.mlp
        pruner = tp.pruner.MagnitudePruner(
            mlp,
            torch.randn(1, 4, hidden),
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=percentage / 100,
            ignored_layers=[mlp.down_proj],
        )
        pruner.step()
    model.config.intermediate_size = model.model.layers[0].mlp.up_proj.out_features
    return model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("windows", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=float, default=0.75)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    percentage = round(100 * (1 - arguments.width), 6)
    windows = load_file(arguments.windows)["calibration"]
    dense = AutoModelForCausalLM.from_pretrained(arguments.model).eval()
    ways = {
        "optipfair_default": lambda model: optipfair(model, None, percentage, "MAW"),
        "optipfair_data": lambda model: optipfair(model, windows, percentage, "MAW"),
        "torch_pruning": lambda model: torch_pruning(model, percentage),
    }
    for name, prune in ways.items():
        target = arguments.out / name
        if (target / "config.json").exists():
            continue
        prune(copy.deepcopy(dense)).save_pretrained(target)
        print(name, "written to", target, flush=True)


if __name__ == "__main__":
    main()
