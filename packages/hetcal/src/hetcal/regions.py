"""Regions: a partition of feature space with one map a leaf, and the global map for rows outside every leaf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hetcal.calibrators import LeafMap, fit_leaf_map
from hetcal.features import Columns, FeatureEncoder
from hetcal.leafwise import Leaves
from hetcal.links import Floats

__all__ = ["Regions", "fit_regions"]


@dataclass(frozen=True)
class Regions:
    """A fitted partitioner with one map a leaf, and the global map for rows outside every leaf."""

    partitioner: Any
    leaf_map: LeafMap
    intercept: float
    slope: float

    @property
    def used(self) -> frozenset[int]:
        """Positions of the features that the partitioner reads."""
        return getattr(self.partitioner, "used", frozenset())

    def logits(self, X: Any, columns: Columns, z: Floats) -> Floats:
        """Calibrated logits."""
        return self.calibrate(z, self.partitioner.leaves(X, columns))

    def calibrate(self, z: Floats, leaf: Leaves) -> Floats:
        """Calibrated logits of rows whose leaf is known; -1 takes the global map."""
        known = leaf >= 0
        if known.all():
            return self.leaf_map.logits(z, leaf)
        total = self.intercept + self.slope * z
        total[known] = self.leaf_map.logits(z[known], leaf[known])
        return total


def fit_regions(
    partitioner: Any,
    X: Any,
    encoded: Floats,
    z: Floats,
    y: Floats,
    weight: Floats | None,
    encoder: FeatureEncoder,
    overall: tuple[float, float],
    *,
    calibrator: str,
    shrinkage: str | float,
    monotone: bool,
) -> Regions:
    """Fit the partitioner and a map in each leaf; ``overall`` is the global Platt fit on the same rows."""
    partitioner.fit(X, y, weight, encoder=encoder, encoded=encoded)
    leaf = partitioner.leaves(X, encoded.T)
    known = leaf >= 0
    leaf_map = fit_leaf_map(
        calibrator,
        z[known],
        y[known],
        None if weight is None else weight[known],
        leaf[known],
        partitioner.n_leaves,
        shrinkage=shrinkage,
        monotone=monotone,
        ancestors=partitioner.ancestors,
        overall=overall,
    )
    return Regions(partitioner, leaf_map, *overall)
