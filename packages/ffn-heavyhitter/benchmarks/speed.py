"""Times: whole models and encoders on one thread and two, stacks of FFNs, and the cost of statistics.

Whole models and encoders are timed by the wall clock, so the machine must be idle, or with --clock thread by the CPU
seconds of the calling thread, which fits one thread only; the rest takes CPU seconds. Without --ours the model with
int8 FFNs is made here, in the shapes of the headline but from few tokens: its speed is the same. With onnxruntime at
hand its dynamic int8 stands beside the encoders.

uv run --with onnxruntime --with onnx python packages/ffn-heavyhitter/benchmarks/speed.py --parts models encoders
"""

import argparse
import copy
from functools import partial
from types import SimpleNamespace

import torch
from encoders import batch, contenders
from ffn_heavyhitter import Int8, LowRank, Narrow, Split, choose_backend, collect, compress, compress_model
from ffn_heavyhitter.evaluation import decoder, prefill
from ffn_heavyhitter.models import load_causal_model
from ffn_heavyhitter.statistics import LayerStatistics
from ffn_heavyhitter.weights import FFNWeights
from headline import stock
from papershelf_core import timing
from papershelf_core.machine import Machine

PARTS = ("models", "encoders", "stacks", "statistics")
LAYERS, HIDDEN, WIDTH = 12, 576, 1536
CASES = {
    "decode after 128 tokens": (decoder, 128, {}),
    "prefill of 128 tokens, last logit": (prefill, 128, {}),
    "prefill of 128 tokens, all logits": (prefill, 128, {"all_logits": True}),
    "prefill of 512 tokens, last logit": (prefill, 512, {}),
}
BATCHES = ((8, 128), (4, 256), (1, 32))
CHOSEN, PLAIN = "whole model in int8", "whole model in int8, nothing compiled"


def contenders_of_decoders(dense, ours) -> dict:
    """The dense model first."""
    whole = compress_model(copy.deepcopy(dense))
    return {
        "fp32": dense,
        CHOSEN: whole,
        PLAIN: copy.deepcopy(whole),
        "whole model in int8, 8-bit activations": compress_model(copy.deepcopy(dense), activation_bits=8),
        "int8 FFNs": ours,
        "stock quantize_dynamic, FFNs": stock(dense),
    }


def whole_models(models: dict, vocabulary: int, repeat: int, threads_to_try: list[int], clock: str) -> None:
    ids = torch.randint(0, vocabulary, (1, 512), generator=torch.Generator().manual_seed(0))
    for threads in threads_to_try:
        torch.set_num_threads(threads)
        for name, model in models.items():
            if name.startswith("whole") and name != PLAIN:
                print(f"{threads} thread(s), {name}: {choose_backend(model)}", flush=True)
        for label, (make, length, options) in CASES.items():
            rounds, prompt = (3 * repeat if make is decoder else repeat), ids[:, :length].contiguous()
            runs = {name: make(model, prompt, **options) for name, model in models.items()}
            result = timing.compare(runs, repeat=rounds, clock=clock, baseline="fp32")
            show(f"{threads} thread(s), {label}", result)
    torch.set_num_threads(1)


def encoders(name: str, repeat: int, threads_to_try: list[int], clock: str) -> None:
    for threads in threads_to_try:
        torch.set_num_threads(threads)
        models = contenders(name, threads)
        for rows, length in BATCHES:
            given = batch(name, rows, length)
            runs = {label: partial(run, given) for label, run in models.items()}
            result = timing.compare(runs, repeat=repeat, clock=clock, baseline="fp32")
            show(f"{threads} thread(s), {name}, {rows} texts of {length} tokens", result)
    torch.set_num_threads(1)


def show(label: str, result: timing.Comparison) -> None:
    """Each contender as many times as fast as the baseline."""
    for name, seconds in result.median.items():
        slower = result.ratio(name)
        interval = f"{1 / slower.estimate:.2f}x [{1 / slower.high:.2f}, {1 / slower.low:.2f}]"
        print(f"{label}: {name} {1e3 * seconds:.1f} ms, {interval}", flush=True)


class DenseFFN(torch.nn.Module):
    """The gated FFN as models have it, three linear layers."""

    def __init__(self, weights: FFNWeights) -> None:
        super().__init__()
        for name, matrix in (("gate_proj", weights.gate), ("up_proj", weights.up), ("down_proj", weights.down)):
            layer = torch.nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
            layer.weight = torch.nn.Parameter(matrix.clone(), requires_grad=False)
            setattr(self, name, layer)
        self.act_fn = torch.nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


def ffn_stacks(repeat: int) -> None:
    """Stacks of distinct FFNs of SmolLM2's shape, so that weights come from memory as in a model."""
    generator = torch.Generator().manual_seed(0)
    activation = torch.nn.SiLU()
    stacks: dict[str, list] = {"dense": []}
    ways = {
        "width 50 %": Narrow(WIDTH // 2, "none"),
        "exact split": Split(heavy=384),
        "71 % heavy, low rank, 75 % of the weights": LowRank(0.75, 1088, "none"),
        "50 % heavy, low rank, 75 % of the weights": LowRank(0.75, 0.5, "none"),
        "25 % heavy, low rank, 50 % of the weights": LowRank(0.5, 0.25, "none"),
        "int8, 64 heavy": Int8(feedback=False, smoothing=0.0),
    }
    for _ in range(LAYERS):
        up, gate, down = (torch.randn(s, generator=generator) / 30 for s in [(WIDTH, HIDDEN)] * 2 + [(HIDDEN, WIDTH)])
        weights = FFNWeights(up=up, down=down, gate=gate)
        ffn = SimpleNamespace(name="ffn", weights=lambda w=weights: w, activation=activation, norm=None)
        layer = made_up(weights, generator)
        stacks["dense"].append(DenseFFN(weights))
        for name, way in ways.items():
            stacks.setdefault(name, []).append(way.apply(ffn, layer))
    for count in (1, 128):
        x = torch.randn(1, count, HIDDEN, generator=generator)
        runs = {name: partial(through, modules, x) for name, modules in stacks.items()}
        with torch.inference_mode():
            result = timing.compare(runs, repeat=repeat, clock="process", baseline="dense")
        for name in ways:
            slower = result.ratio(name)
            interval = f"[{1 / slower.high:.2f}, {1 / slower.low:.2f}]"
            print(f"FFN stack, T={count}, {name}: {1 / slower.estimate:.2f}x {interval} as fast as dense", flush=True)


def through(modules: list, x: torch.Tensor) -> torch.Tensor:
    for module in modules:
        x = x + module(x)
    return x


def made_up(weights: FFNWeights, generator: torch.Generator) -> LayerStatistics:
    m, d = weights.width, weights.hidden_size
    neurons = torch.rand(m, generator=generator, dtype=torch.float64)
    moments = [torch.eye(size, dtype=torch.float64) for size in (m, d)]
    zero = torch.zeros(d, dtype=torch.float64)
    return LayerStatistics(
        1, neurons, neurons, neurons, 0 * neurons, neurons, zero, zero + 1, weights.down_norms, None, None, *moments
    )


def cost_of_statistics(model, repeat: int) -> None:
    ids = torch.randint(0, 1000, (4, 512), generator=torch.Generator().manual_seed(0))
    batches = [{"input_ids": row[None]} for row in ids]

    def plain() -> None:
        with torch.no_grad():
            for batch in batches:
                model.model(**batch)

    runs = {
        "plain": plain,
        "scores": lambda: collect(model, batches),
        "with hits": lambda: collect(model, batches, hits=True),
        "with second moments": lambda: collect(model, batches, moments=True),
    }
    result = timing.compare(runs, repeat=repeat, clock="process", baseline="plain")
    for name in list(runs)[1:]:
        print(f"statistics, {name}: {result.ratio(name)} the CPU time of a plain forward", flush=True)


def int8(dense):
    """The headline's shapes, from the statistics of one window."""
    ids = torch.randint(0, 1000, (1, 512), generator=torch.Generator().manual_seed(0))
    statistics = collect(dense, [{"input_ids": ids}])
    return compress(copy.deepcopy(dense), Int8(feedback=False), statistics)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--ours", help="folder that `compress` wrote")
    parser.add_argument("--repeat", type=int, default=7, help="rounds; stacks take twice as many")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clock", choices=("wall", "thread"), default="wall")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(Machine.here("ffn-heavyhitter", "torch", "transformers", "onnxruntime"), flush=True)
    dense = load_causal_model(arguments.model)
    if "models" in arguments.parts:
        ours = int8(dense) if arguments.ours is None else load_causal_model(arguments.ours)
        models = contenders_of_decoders(dense, ours)
        whole_models(models, dense.config.vocab_size, arguments.repeat, arguments.threads, arguments.clock)
    if "encoders" in arguments.parts:
        encoders(arguments.encoder, arguments.repeat, arguments.threads, arguments.clock)
    if "stacks" in arguments.parts:
        ffn_stacks(2 * arguments.repeat)
    if "statistics" in arguments.parts:
        cost_of_statistics(dense, 3)


if __name__ == "__main__":
    main()
