"""Quantise every linear layer in the decoder blocks of a causal language model.

Two streams run through the blocks: hidden states X of the full-precision model over all calibration windows, and Xq of
the partly quantised model over the first ``drift_windows`` of them. Layers that share an input share its moments and
are solved as one stacked problem; inside a block the groups are solved in the order in which they run, each on inputs
that already carry the error of the earlier ones (true-sequential). With n and nq tokens in the two streams,

    Sigma = sum xq xq^T + (nq / n) sum x x^T,    C = sum x xq^T + (nq / n) sum x x^T,

so that the full-precision moment of all windows is a prior of the weight of the drift tokens, and the target of every
layer is the output of the full-precision model. Without error feedback Sigma = sum x x^T and there is no C.

What can be known before the run is checked before it (``preflight``). After each block its result is on disk; a run
that was killed resumes and ends with the same codes. Sums depend on the number of threads in their last digits, so a
run sets that number itself, whatever the caller's is, and sets it back.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from quantease.blocks import (
    Blocks,
    Call,
    LinearLayer,
    capture_calls,
    find_blocks,
    linear_layers,
    record_inputs,
    run_block,
    shared_inputs,
)
from quantease.checkpoint import Checkpoint, MomentStore, digest_of_model, digest_of_tensors, run_identity
from quantease.errors import CalibrationWarning, FormatWarning, LayerError, ModelError, SchemeError
from quantease.layer import LayerResult, check_combination, solve_layer, split_rows
from quantease.moments import Moment
from quantease.preflight import (
    Format,
    check_format,
    check_skip,
    check_weights,
    restore_buffers,
    scheme_for,
    split_fusions,
    stored_type,
)
from quantease.scheme import OutlierConfig, QuantizationScheme, SolverConfig

__all__ = ["LayerReport", "Progress", "QuantizedModel", "quantize_model"]

DRIFT_WINDOWS = 8
TOKENS_A_COLUMN = 20


@dataclass(frozen=True)
class LayerReport:
    """One stacked problem.

    Attributes
    ----------
    block : int
    modules : tuple of str
        Layers solved together.
    outputs, inputs : int
        Shape of the stacked weight.
    error : float
        f / f(0) on the calibration moments, without the ridge.
    history : tuple of float
        With the ridge: after the start and after each sweep.
    improving_moves : int
        Single code changes that would still lower the objective, and scales that their type could not hold.
    bits_per_weight : float
    tokens : int
        Behind the moments.
    seconds : float
        CPU seconds of the solver.
    """

    block: int
    modules: tuple[str, ...]
    outputs: int
    inputs: int
    error: float
    history: tuple[float, ...]
    improving_moves: int
    bits_per_weight: float
    tokens: int
    seconds: float = field(compare=False)


@dataclass(frozen=True)
class Progress:
    """What a progress callback gets after every block; ``seconds_left`` is None for blocks read from a checkpoint."""

    blocks_done: int
    blocks: int
    seconds: float
    seconds_left: float | None
    mean_error: float


@dataclass(frozen=True)
class QuantizedModel:
    """A model whose block weights have been replaced by their quantised values.

    Attributes
    ----------
    model : torch.nn.Module
        The model that was given, changed in place.
    layers : dict[str, LayerResult]
        By module name; ``error`` and ``history`` of a layer are those of the stack it was solved in.
    reports : tuple of LayerReport
    """

    model: nn.Module
    layers: dict[str, LayerResult]
    reports: tuple[LayerReport, ...]

    @property
    def bits_per_weight(self) -> float:
        """Mean over all quantised weights."""
        weights = sum(layer.codes.numel() for layer in self.layers.values())
        return sum(layer.bits_per_weight * layer.codes.numel() for layer in self.layers.values()) / weights


def quantize_model(
    model: nn.Module,
    windows: Tensor,
    scheme: QuantizationScheme,
    solver: SolverConfig | None = None,
    outliers: OutlierConfig | None = None,
    *,
    error_feedback: bool = True,
    drift_windows: int = DRIFT_WINDOWS,
    skip: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    moments: str | os.PathLike[str] | None = None,
    export: Format | None = None,
    threads: int | None = None,
    device: torch.device | str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> QuantizedModel:
    """Quantise a Hugging Face causal language model in place.

    Parameters
    ----------
    model : torch.nn.Module
        Its head and embeddings stay as they are. Buffers that no file holds (rotary frequencies) and that a cast of
        the model rounded are computed from its config again.
    windows : Tensor of shape (n, length), int64
        Calibration tokens.
    scheme : QuantizationScheme
    solver : SolverConfig, optional
    outliers : OutlierConfig, optional
    error_feedback : bool
        Follow the full-precision model; otherwise every layer is solved on full-precision inputs.
    drift_windows : int
        Windows that also run through the partly quantised model.
    skip : sequence of str
        Patterns of module names to leave alone; each must match a layer.
    folder : path, optional
        Where each finished block and ``report.jsonl`` go; the same run resumes there. Runs that differ in anything
        that numbers depend on (``checkpoint``) may share it.
    moments : path, optional
        Where the full-precision moments are kept, or taken from: they depend on model and windows alone.
    export : {"compressed-tensors", "dense", "gguf", "native"}, optional
        What the result is to be written as: that it can be is checked before the run.
    threads : int, optional
        Threads of torch during the run. None is OMP_NUM_THREADS where that is set, else the CPUs at hand; results on
        the CPU depend on it in the last digits, so the number is part of what ``folder`` knows a run by.
    device : torch.device or str, optional
        Where blocks are computed, one at a time; CUDA where there is one, else the CPU.
    progress : callable, optional
        Called after every block.

    Returns
    -------
    QuantizedModel

    Raises
    ------
    ModelError
        If the model is not supported or was quantised, or a pattern matches nothing.
    LayerError
        If a layer cannot be quantised; the message names it.
    SchemeError
        If a setting cannot be used, or not with this model.
    ExportError
        If the result could not be written as ``export``.
    OSError
        If a file in ``folder`` or ``moments`` cannot be written; the message names it.

    Warns
    -----
    CalibrationWarning, ScaleWarning, FormatWarning, FolderWarning
    """
    solver = SolverConfig() if solver is None else solver
    _check_settings(scheme, solver, outliers, error_feedback, drift_windows, threads)
    check_combination(scheme, solver, outliers)
    threads = _threads_at_hand() if threads is None else threads
    blocks = find_blocks(model)
    _refuse_twice(model)
    windows = _as_windows(windows, model)
    every = [name for index in range(len(blocks.modules)) for name in linear_layers(blocks, index)]
    skip = check_skip(skip, every) if every else ()
    chosen = [_chosen_layers(blocks, index, skip) for index in range(len(blocks.modules))]
    _check_layers(chosen, skip, scheme, windows)
    quantized_layers = [layer for layers in chosen for layer in layers.values()]
    # llama.cpp computes with the values of the blocks as they are, whatever type the checkpoint had
    stored_as = torch.float32 if scheme.is_ggml else stored_type(model)
    scheme = scheme_for(scheme, stored_as)
    check_weights(model, quantized_layers, scheme)
    restore_buffers(model)
    if export is not None:
        check_format(model, quantized_layers, export, outliers, scheme)
    alone = split_fusions([layer.name for layer in quantized_layers], every)
    if alone and export in (None, "compressed-tensors"):
        warnings.warn(
            f"{alone[0]} is left out although layers that engines merge it with are quantised ({len(alone)} such): "
            "transformers loads that, vLLM does not; leave out all of them or none",
            FormatWarning,
            stacklevel=3,
        )
    target = (
        torch.device(device) if device is not None else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    )
    model.eval()
    drift = min(drift_windows, len(windows)) if error_feedback else 0
    checkpoint, store = None, None
    if folder is not None or moments is not None:
        source = {
            "model": digest_of_model(model),
            "windows": digest_of_tensors({"windows": windows}),
            "layers": [layer.name for layer in quantized_layers],
            "device": target.type,
            "threads": threads,
        }
        settings = {
            "scheme": asdict(scheme),
            "solver": asdict(solver),
            "outliers": None if outliers is None else asdict(outliers),
            "drift_windows": drift,
            "stored_as": str(stored_as),
        }
        checkpoint = None if folder is None else Checkpoint(Path(folder), run_identity(source | settings))
        store = None if moments is None else MomentStore(Path(moments), run_identity(source))
    with _pinned_threads(threads):
        stored = store is not None and store.complete(len(blocks.modules))
        # with the moments at hand, only the drift windows (one at least, to see the order of layers) have to run
        full, calls = capture_calls(model, blocks, windows[: max(drift, 1)] if stored else windows)
        partly = list(full[:drift])
        layers: dict[str, LayerResult] = {}
        reports: list[LayerReport] = []
        home = next(model.parameters()).device
        began, solved = time.perf_counter(), 0
        for index, block in enumerate(blocks.modules):
            block.to(target)
            arguments = [window[index] for window in calls]
            done = None if checkpoint is None else checkpoint.read(index)
            if done is None:
                priors, seen, groups, full = _observe(
                    block,
                    chosen[index],
                    full,
                    len(partly),
                    arguments,
                    target,
                    store.read(index) if store and stored else None,
                )
                if store is not None and not stored:
                    store.write(index, priors)
                results, rows = _solve_block(
                    block,
                    index,
                    chosen[index],
                    groups,
                    priors,
                    windows.numel(),
                    seen,
                    partly,
                    arguments,
                    scheme,
                    solver,
                    outliers,
                    target,
                    stored_as,
                )
                solved += 1
                if checkpoint is not None:
                    checkpoint.write(index, results, [asdict(row) for row in rows])
            else:
                results, rows = done[0], [LayerReport(**_as_tuples(row)) for row in done[1]]
                full = [run_block(block, state, call, target) for state, call in zip(full, arguments, strict=True)]
            for name, result in results.items():
                layer = chosen[index][name]
                layer.install(result.dequantize(torch.float32).to(stored_as).to(layer.weight.dtype))
            partly = [run_block(block, state, call, target) for state, call in zip(partly, arguments, strict=False)]
            block.to(home)
            layers.update(results)
            reports += rows
            if results and not hasattr(model, MARK):
                _mark(model, chosen)
            if checkpoint is not None:
                checkpoint.report([asdict(row) for row in reports])
            if progress is not None:
                seconds = time.perf_counter() - began
                left = seconds / solved * (len(blocks.modules) - index - 1) if solved else None
                mean = sum(row.error for row in reports) / max(len(reports), 1)
                progress(Progress(index + 1, len(blocks.modules), seconds, left, mean))
        return QuantizedModel(model, layers, tuple(reports))


def _observe(
    block: nn.Module,
    layers: dict[str, LinearLayer],
    full: list[Tensor],
    drift: int,
    calls: list[Call],
    device: torch.device,
    stored: dict[str, Tensor] | None,
) -> tuple[dict[str, Tensor], dict[str, list[Tensor]], list[tuple[str, ...]], list[Tensor]]:
    """Run the full-precision block: moments and drift inputs by group leader, the groups, the states that leave."""
    groups = shared_inputs(block, layers, full[0], calls[0], device) if layers else []
    leaders = {names[0]: layers[names[0]] for names in groups}
    sums = {name: Moment() for name in leaders}
    seen: dict[str, list[Tensor]] = {name: [] for name in leaders}
    leaving = []
    for position, (state, call) in enumerate(zip(full, calls, strict=True)):

        def see(name: str, x: Tensor, keep: bool = position < drift) -> None:
            if stored is None:
                sums[name].update(x)
            if keep:
                seen[name].append(x)

        with record_inputs(leaders, see):
            leaving.append(run_block(block, state, call, device))
    totals = {name: moment.total for name, moment in sums.items()} if stored is None else stored
    return {name: total.to(device) for name, total in totals.items()}, seen, groups, leaving


def _solve_block(
    block: nn.Module,
    index: int,
    layers: dict[str, LinearLayer],
    groups: list[tuple[str, ...]],
    priors: dict[str, Tensor],
    tokens: int,
    seen: dict[str, list[Tensor]],
    partly: list[Tensor],
    calls: list[Call],
    scheme: QuantizationScheme,
    solver: SolverConfig,
    outliers: OutlierConfig | None,
    device: torch.device,
    stored_as: torch.dtype,
) -> tuple[dict[str, LayerResult], list[LayerReport]]:
    """Results of one block, whose weights it leaves as they were."""
    working = deepcopy(block) if partly else block
    replica = _same_layers(block, working, layers)
    results: dict[str, LayerResult] = {}
    reports = []
    for names in groups:
        leader = names[0]
        sigma, cross = priors[leader], None
        if partly:
            sigma, cross = _drift_moments(
                working, replica, leader, partly, calls, seen.pop(leader), sigma, tokens, device
            )
        began = time.process_time()
        stacked = torch.cat([layers[name].weight for name in names])
        try:
            result = solve_layer(stacked, sigma, scheme, solver, cross, outliers)
        except LayerError as error:
            raise LayerError(f"{', '.join(names)}: {error}") from error
        seconds = time.process_time() - began
        outputs = [len(layers[name].weight) for name in names]
        for name, part in zip(names, split_rows(result, outputs), strict=True):
            results[name] = part
            if partly:
                replica[name].install(part.dequantize(torch.float32).to(stored_as).to(replica[name].weight.dtype))
        reports.append(
            LayerReport(
                block=index,
                modules=names,
                outputs=stacked.shape[0],
                inputs=stacked.shape[1],
                error=result.error,
                history=result.history,
                improving_moves=result.certificate.improving_moves,
                bits_per_weight=result.bits_per_weight,
                tokens=tokens,
                seconds=seconds,
            )
        )
    return results, reports


def _drift_moments(
    block: nn.Module,
    layers: dict[str, LinearLayer],
    leader: str,
    states: list[Tensor],
    calls: list[Call],
    full_inputs: list[Tensor],
    prior: Tensor,
    prior_tokens: int,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Sigma and C of one group, the prior added to both at the weight of the drift tokens."""
    sigma, cross = Moment(), Moment()
    for state, call, full_input in zip(states, calls, full_inputs, strict=False):

        def see(_name: str, x: Tensor, paired: Tensor = full_input) -> None:
            sigma.update(x)
            cross.update(paired, x)

        with record_inputs({leader: layers[leader]}, see, stop_after=leader):
            run_block(block, state, call, device)
    weighted = prior * (sigma.tokens / prior_tokens)
    return sigma.total + weighted, cross.total + weighted


def _same_layers(block: nn.Module, copy: nn.Module, layers: dict[str, LinearLayer]) -> dict[str, LinearLayer]:
    """The layers of a copy of the block under the names of the original."""
    names = {id(module): path for path, module in block.named_modules()}
    return {
        name: LinearLayer(name, copy.get_submodule(names[id(layer.module)]), layer.transposed)
        for name, layer in layers.items()
    }


def _chosen_layers(blocks: Blocks, index: int, skip: Sequence[str]) -> dict[str, LinearLayer]:
    layers = linear_layers(blocks, index)
    return {name: layer for name, layer in layers.items() if not any(fnmatch(name, pattern) for pattern in skip)}


def _threads_at_hand() -> int:
    """OMP_NUM_THREADS where it is set, else the CPUs that this process may use: the same for every run of a command."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _pinned_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_settings(
    scheme: Any, solver: Any, outliers: Any, error_feedback: Any, drift_windows: Any, threads: Any
) -> None:
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise SchemeError(f"threads={threads!r} must be a positive integer, or None")
    for name, value, kind in (
        ("scheme", scheme, QuantizationScheme),
        ("solver", solver, SolverConfig),
        ("outliers", outliers, OutlierConfig | None),
        ("error_feedback", error_feedback, bool),
    ):
        if not isinstance(value, kind):
            raise SchemeError(f"{name}={value!r} must be {getattr(kind, '__name__', kind)}")
    if not isinstance(drift_windows, int) or isinstance(drift_windows, bool) or drift_windows < 0:
        raise SchemeError(f"drift_windows={drift_windows!r} must be an integer, not negative")


def _as_windows(given: Any, model: nn.Module) -> Tensor:
    """Token numbers (n, length) that the model knows."""
    windows = torch.from_numpy(given.astype(np.int64)) if isinstance(given, np.ndarray) else given
    if not isinstance(windows, Tensor):
        raise ModelError(f"windows are a {type(given).__name__}; give token numbers as a tensor (n, length)")
    if windows.ndim != 2 or windows.numel() == 0 or windows.is_floating_point() or windows.dtype == torch.bool:
        raise ModelError(f"windows of shape {tuple(windows.shape)} must be token numbers (n, length), n at least 1")
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    known = getattr(embeddings, "num_embeddings", None)
    low, high = int(windows.min()), int(windows.max())
    if low < 0 or (known is not None and high >= known):
        raise ModelError(
            f"windows hold token {low if low < 0 else high}, but the model knows 0 to {known}: use its own tokenizer"
        )
    return windows.long()


MARK = "quantized_by_quantease"


def _mark(model: nn.Module, chosen: list[dict[str, LinearLayer]]) -> None:
    """Leave the checksum of the first quantised layer at the model, to know it by when it comes again."""
    layer = next(layer for layers in chosen for layer in layers.values())
    object.__setattr__(model, MARK, {"name": layer.name, "digest": digest_of_tensors({"weight": layer.weight})})


def _refuse_twice(model: nn.Module) -> None:
    mark = getattr(model, MARK, None)
    if mark is None:
        return
    module = model.get_submodule(mark["name"])
    weight = LinearLayer(mark["name"], module, not isinstance(module, nn.Linear)).weight
    if digest_of_tensors({"weight": weight}) == mark["digest"]:
        raise ModelError("the model was quantised by quantize_model already; load the full-precision checkpoint")
    delattr(model, MARK)


def _check_layers(
    chosen: list[dict[str, LinearLayer]], skip: Sequence[str], scheme: QuantizationScheme, windows: Tensor
) -> None:
    names = [name for layers in chosen for name in layers]
    if not names:
        raise ModelError(f"no linear layer is left to quantise; skip={list(skip)} leaves out all of them")
    widest = max(layer.weight.shape[1] for layers in chosen for layer in layers.values())
    if scheme.group_size is not None:
        for layers in chosen:
            for name, layer in layers.items():
                if layer.weight.shape[1] % scheme.group_size:
                    raise LayerError(
                        f"group_size={scheme.group_size} does not divide the {layer.weight.shape[1]} inputs of {name}"
                    )
    if windows.numel() < TOKENS_A_COLUMN * widest:
        warnings.warn(
            f"{windows.numel()} calibration tokens are fewer than {TOKENS_A_COLUMN} times the {widest} inputs of the "
            "widest layer; descent may then fit the calibration text more than it helps on other text",
            CalibrationWarning,
            stacklevel=3,
        )


def _as_tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
