"""The loss of a mini-batch and of its micro-batches.

    L_i = sum_{r in S_i} a_r l_r / A_i,    A_i = sum_{r in S_i} a_r,    L = sum_i (A_i / A) L_i,

with a_r = 1 for examples and, say, the padding mask for tokens: the shares A_i / A are then token counts.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from msam_lawn.errors import GradientError, SettingsError
from msam_lawn.shards import shard_sizes, shard_slices
from msam_lawn.torch.containers import leaves, mapped
from msam_lawn.torch.engines.structure import Structure, kinds_of

__all__ = ["LossFunction", "Objective", "make_objective"]

LossFunction = Callable[[Any, Any], torch.Tensor]


@dataclass(frozen=True)
class Objective:
    """A model, one mini-batch and a loss; ``sizes`` says how the rows are cut.

    Attributes
    ----------
    model : torch.nn.Module
    inputs, targets : nested containers of tensors
        Every tensor has the rows of the mini-batch as its leading axis. A tuple of inputs is passed as positional
        arguments, a mapping as keyword arguments.
    loss : callable
        ``loss(outputs, targets)``: one loss a row (leading axis the rows), or a scalar mean over the rows it gets.
    sizes : tuple of int
        Rows of each micro-batch.
    weights : tensor or None
        Weight of each loss, of the shape of the losses (or one a row).
    probed : tuple of torch.Size, or None
        Shapes of the outputs' tensors on ``probed_rows`` rows: they tell which of them have the rows leading.
    probed_rows : int
    structure : Structure
        Kinds of operations that a check saw; a new one records.
    cuts : list of slice, or None
        Rows of the micro-batches where they are not one after the other.
    """

    model: torch.nn.Module
    inputs: Any
    targets: Any
    loss: LossFunction
    sizes: tuple[int, ...]
    weights: torch.Tensor | None = None
    probed: tuple[torch.Size, ...] | None = None
    probed_rows: int = 0
    structure: Structure = field(default_factory=Structure)
    cuts: list[slice] | None = None

    @property
    def rows(self) -> int:
        """Rows of the mini-batch."""
        return sum(self.sizes)

    @property
    def slices(self) -> list[slice]:
        """Row ranges of the micro-batches."""
        return shard_slices(self.sizes) if self.cuts is None else self.cuts

    def shares(self) -> list[float]:
        """Weight A_i / A of each micro-batch in the mini-batch's loss."""
        if self.weights is None:
            return [size / self.rows for size in self.sizes]
        totals = [float(self.weights[rows].sum()) for rows in self.slices]
        return [total / sum(totals) for total in totals]

    def outputs(self, rows: slice | None = None, through: torch.nn.Module | None = None) -> Any:
        """Outputs of the model (or of its wrapper ``through``) on some rows."""
        inputs = self.inputs if rows is None else self.cut(self.inputs, rows)
        model = self.model if through is None else through
        if isinstance(inputs, Mapping):
            return model(**inputs)
        return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)

    def mean_loss(self, rows: slice, through: torch.nn.Module | None = None) -> torch.Tensor:
        """L_i of the micro-batch with these rows."""
        values = self.loss(self.outputs(rows, through), self.cut(self.targets, rows))
        return self.mean(values, rows)

    def mean(self, values: torch.Tensor, rows: slice) -> torch.Tensor:
        """Weighted mean of the losses of some rows; a scalar is taken to be that mean already."""
        if values.ndim == 0:
            return values
        self.check_rows(values, rows.stop - rows.start)
        if self.weights is None:
            return values.mean()
        weights = self.weights_like(values, rows)
        # a micro-batch of padding alone has share 0 and loss 0
        return (weights * values).sum() / weights.sum().clamp_min(torch.finfo(values.dtype).tiny)

    def check_rows(self, values: torch.Tensor, rows: int) -> None:
        """Refuse losses that are not one a row."""
        if values.shape[0] != rows:
            raise SettingsError(
                f"loss returned shape {tuple(values.shape)} for {rows} rows; return one loss a row "
                "(reduction='none') or their scalar mean"
            )

    def weights_like(self, values: torch.Tensor, rows: slice) -> torch.Tensor:
        """Weights of some rows, in the shape of their losses."""
        assert self.weights is not None
        weights = self.weights[rows].to(values.dtype)
        if weights.ndim > values.ndim:
            raise SettingsError(f"weights of shape {tuple(weights.shape)} for losses of shape {tuple(values.shape)}")
        return weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim)).expand_as(values)

    def micro_batch_means(
        self, outputs: Any, own: Callable[[torch.Tensor, int], torch.Tensor] = lambda loss, _: loss
    ) -> torch.Tensor:
        """L_i of every micro-batch from the outputs of all rows, of shape (M,).

        ``own(loss, i)`` is called on a loss of micro-batch i that is a scalar.
        """
        values = self.loss(outputs, self.targets)
        if values.ndim == 0:
            if len(self.sizes) == 1:
                return own(values, 0)[None]
            each = [self.loss(self.cut_outputs(outputs, p), self.cut(self.targets, p)) for p in self.slices]
            return torch.stack([own(loss, i) for i, loss in enumerate(each)])
        self.check_rows(values, self.rows)
        sizes = torch.tensor(self.sizes, device=values.device)
        numbers = torch.arange(len(self.sizes), device=values.device)
        owner = numbers.repeat_interleave(sizes) if self.cuts is None else numbers.repeat(self.sizes[0])
        if self.weights is None:
            means = values.reshape(self.rows, -1).mean(1) / sizes.to(values.dtype)[owner]
            return means.new_zeros(len(sizes)).index_add(0, owner, means)
        weights = self.weights_like(values, slice(0, self.rows)).reshape(self.rows, -1)
        totals = values.new_zeros(len(sizes)).index_add(0, owner, weights.sum(1))
        sums = values.new_zeros(len(sizes)).index_add(0, owner, (weights * values.reshape(weights.shape)).sum(1))
        return sums / totals.clamp_min(torch.finfo(values.dtype).tiny)

    def check_structure(self, outputs: Any, means: torch.Tensor, axes: Mapping[Any, Any] | None = None) -> None:
        """Refuse operations that the check did not see; a loss that is called for each micro-batch is left out."""
        kinds = kinds_of([leaf.grad_fn for leaf in leaves(outputs) if isinstance(leaf, torch.Tensor)])
        if type(means.grad_fn).__name__ not in ("StackBackward0", "UnsqueezeBackward0"):
            kinds |= kinds_of([means.grad_fn])
        self.structure.meet(kinds, axes or {})

    def cut(self, tree: Any, rows: slice) -> Any:
        """The rows of every tensor in a nested container."""
        return mapped(lambda leaf: leaf[rows] if isinstance(leaf, torch.Tensor) else leaf, tree)

    def cut_outputs(self, outputs: Any, rows: slice) -> Any:
        """The rows of those tensors in the outputs that have them; others (a temperature, a table) stay whole."""
        probed = None if self.probed is None else iter(self.probed)

        def part(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            at_probe = next(probed, leaf.shape) if probed is not None else None
            if leaf.ndim == 0 or leaf.shape[0] != self.rows:
                return leaf
            return leaf if at_probe is not None and at_probe[0] != self.probed_rows else leaf[rows]

        return mapped(part, outputs)

    def versions(self) -> list[int]:
        """Counts of the writes into each tensor of the mini-batch; weights among them, which passes move, left out."""
        tensors = [leaf for tree in (self.inputs, self.targets) for leaf in leaves(tree)]
        return [
            x._version for x in tensors if isinstance(x, torch.Tensor) and not (x.requires_grad or x.is_inference())
        ]

    def check_unwritten(self, versions: list[int]) -> None:
        """Refuse a first pass that wrote into the mini-batch: the second would see other rows."""
        if self.versions() != versions:
            raise GradientError(
                f"{type(self.model).__name__} or the loss writes into the mini-batch in place: the second pass would "
                "see other rows than the first; let it work on a copy (x = x.clone())"
            )


def make_objective(
    model: torch.nn.Module,
    inputs: Any,
    targets: Any,
    loss: LossFunction,
    weights: torch.Tensor | None,
    micro_batches: int | None,
    micro_batch_size: int | None,
) -> Objective:
    """Check the mini-batch and cut it."""
    tensors = [leaf for leaf in leaves(inputs) if isinstance(leaf, torch.Tensor)]
    if not tensors or tensors[0].ndim == 0:
        raise SettingsError("inputs hold no tensor with a row axis; give a tensor, or a tuple or dict of tensors")
    rows = tensors[0].shape[0]
    for name, tree in (("inputs", inputs), ("targets", targets), ("weights", weights)):
        _check_rows(name, tree, rows)
    if weights is not None:
        if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
            raise SettingsError("weights must be finite and not negative")
        if float(weights.sum()) == 0:
            raise SettingsError("weights sum to 0; at least one loss must count")
    return Objective(model, inputs, targets, loss, shard_sizes(rows, micro_batches, micro_batch_size), weights)


_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, enum.Enum)


def _check_rows(name: str, tree: Any, rows: int) -> None:
    """Refuse what cannot be cut into micro-batches by its leading axis."""
    if isinstance(tree, torch.nn.utils.rnn.PackedSequence):
        raise SettingsError(f"{name} are a PackedSequence, whose leading axis is not the rows; pack them in forward")
    if isinstance(tree, (list, tuple)) and rows > 1 and len(tree) == rows and all(isinstance(x, str) for x in tree):
        raise SettingsError(f"{name} hold a list of {rows} strings, one a row perhaps; encode them as a tensor")
    for leaf in leaves(tree):
        if not isinstance(leaf, torch.Tensor):
            if not isinstance(leaf, _PLAIN) and not callable(leaf):
                raise SettingsError(
                    f"{name} hold a {type(leaf).__name__}, which is not cut into micro-batches; give tensors in "
                    "tuples, lists, mappings or dataclasses"
                )
            continue
        if leaf.ndim == 0 or leaf.shape[0] != rows:
            raise SettingsError(
                f"{name} hold a tensor of shape {tuple(leaf.shape)}, the first input has {rows} rows; every tensor "
                "needs the rows of the mini-batch as its leading axis"
            )
        if leaf.grad_fn is not None:
            raise SettingsError(
                f"{name} hold a tensor that was computed with gradients ({leaf.grad_fn.name()}): the second pass would "
                "not compute it again at the perturbed weights; compute it in the model's forward, or detach it"
            )
