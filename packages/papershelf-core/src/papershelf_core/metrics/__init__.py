"""Metrics that scikit-learn lacks, or has without weights, groups or standard errors."""

from papershelf_core.metrics.auc import (
    AucComparison,
    AucEstimate,
    GroupedAuc,
    auc_delong,
    delong_test,
    gauc,
    roc_auc,
)
from papershelf_core.metrics.bootstrap import Interval, paired_bootstrap
from papershelf_core.metrics.calibration import ece, ece_debiased
from papershelf_core.metrics.language import Perplexity, perplexity

__all__ = [
    "AucComparison",
    "AucEstimate",
    "GroupedAuc",
    "Interval",
    "Perplexity",
    "auc_delong",
    "delong_test",
    "ece",
    "ece_debiased",
    "gauc",
    "paired_bootstrap",
    "perplexity",
    "roc_auc",
]
