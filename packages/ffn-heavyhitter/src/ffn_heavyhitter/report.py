"""The heavy-hitter report: is the norm of an FFN's output owned by few neurons, the same for every token.

For each layer, with n_ti = |a_ti| |V_i| and s_i = E_t n_ti:

    share(p)      what the top p of neurons by s_i own of sum_i s_i
    gini          1 - 2 * area under the Lorenz curve of s: 0 all alike, 1 one neuron owns all
    hit rate      P(a neuron of the token's own top 10 % is in the layer's top 10 %); chance is 10 %
    always on     share of neurons that are in the top 10 % of more than half of the tokens
    stability     overlap of the top 10 % between the two halves of the text
    massive       what the first token of each sequence owns of the summed squared norm
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import torch
from papershelf_core import files
from torch import Tensor

from ffn_heavyhitter.statistics import TOP_SHARE, LayerStatistics, Statistics

__all__ = ["HeavyHitterReport", "LayerReport", "analyse", "top_overlap"]

SHARES = (0.01, 0.05, 0.10, 0.25)


@dataclass(frozen=True)
class LayerReport:
    """One layer's concentration.

    Attributes
    ----------
    name : str
    width : int
    share_of_norm : dict[str, float]
        Share of the summed mean norm that the top 1, 5, 10 and 25 % of neurons own.
    gini : float
    hit_rate, always_on, stability, massive : float
        See the module's formulas.
    massive_neuron : int
        The neuron with the largest activation, and
    peak : float
        that activation.
    """

    name: str
    width: int
    share_of_norm: dict[str, float]
    gini: float
    hit_rate: float
    always_on: float
    stability: float
    massive: float
    massive_neuron: int
    peak: float


@dataclass(frozen=True)
class HeavyHitterReport:
    """Reports of all layers, and the overlap of heavy sets between domains.

    Attributes
    ----------
    tokens : int
    layers : tuple of LayerReport
    domain_overlap : dict[str, float]
        Mean overlap of the layers' top 10 % between two texts, by ``"a / b"``; empty for one text.
    """

    tokens: int
    layers: tuple[LayerReport, ...]
    domain_overlap: dict[str, float]

    @property
    def verdict(self) -> str:
        """What the numbers say about the paper's observation, in a sentence."""
        hit = sum(layer.hit_rate for layer in self.layers) / len(self.layers)
        always = sum(layer.always_on for layer in self.layers) / len(self.layers)
        strong = hit > 0.5 and always > 0.02
        strength = "holds" if strong else "holds weakly" if hit > 2 * TOP_SHARE else "does not hold"
        return (
            f"'the same few neurons are heavy for any token' {strength} here: a neuron of a token's top 10 % is in "
            f"the layer's top 10 % {hit:.0%} of the time (chance 10 %), and {always:.1%} of neurons are heavy for "
            "most tokens"
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Heading and one row a layer, as text."""
        heading = ("layer", "top 1 %", "top 10 %", "top 25 %", "gini", "hit rate", "always on", "stability", "massive")
        found: list[tuple[str, ...]] = [heading]
        for layer in self.layers:
            share = layer.share_of_norm
            values = (share["0.01"], share["0.1"], share["0.25"], layer.gini, layer.hit_rate, layer.always_on)
            found.append((layer.name, *(f"{v:.3f}" for v in (*values, layer.stability, layer.massive))))
        return found

    def document(self) -> dict[str, Any]:
        """The report as plain data, with its schema's number."""
        return {"schema": 1, **asdict(self)}

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the report, whole or not at all."""
        files.write_text(path, json.dumps(self.document(), indent=1))


def analyse(
    first: Statistics, second: Statistics, domains: Mapping[str, Statistics] | None = None
) -> HeavyHitterReport:
    """Report how concentrated the FFNs of a model are.

    Parameters
    ----------
    first, second : Statistics
        Of two disjoint parts of the text, collected with ``hits=True``.
    domains : mapping of name to Statistics, optional
        Of other texts, to compare their heavy sets.

    Returns
    -------
    HeavyHitterReport
    """
    whole = first + second
    layers = tuple(_layer(name, layer, first.layers[name], second.layers[name]) for name, layer in whole.layers.items())
    overlap = {}
    for (a, one), (b, other) in combinations((domains or {}).items(), 2):
        overlaps = [top_overlap(layer, other.layers[name]) for name, layer in one.layers.items()]
        overlap[f"{a} / {b}"] = sum(overlaps) / len(overlaps)
    return HeavyHitterReport(whole.tokens, layers, overlap)


def top_overlap(first: LayerStatistics, second: LayerStatistics) -> float:
    """Share of the top 10 % by mean norm that two statistics agree on."""
    one, other = (set(_top(layer).tolist()) for layer in (first, second))
    return len(one & other) / len(one)


def lorenz_curve(layer: LayerStatistics) -> Tensor:
    """Cumulative share of the summed mean norm, lightest neuron first, shape (m + 1,)."""
    ascending = _mean_norm(layer).sort().values
    return torch.cat([torch.zeros(1, dtype=torch.float64), ascending.cumsum(0) / ascending.sum()])


def _layer(name: str, layer: LayerStatistics, first: LayerStatistics, second: LayerStatistics) -> LayerReport:
    lorenz = lorenz_curve(layer)
    m = layer.width
    owned = {str(p): float(1 - lorenz[m - max(1, round(p * m))]) for p in SHARES}
    hits = layer.need("hits", "hits=True") / layer.tokens
    square = layer.square * layer.down_norms.square()
    top = _top(layer)
    massive_neuron = int(layer.peak.argmax())
    return LayerReport(
        name=name,
        width=m,
        share_of_norm=owned,
        gini=float(1 - 2 * torch.trapezoid(lorenz, dx=1 / m)),
        hit_rate=float(hits[top].sum() / hits.sum()),
        always_on=float((hits > 0.5).double().mean()),
        stability=top_overlap(first, second),
        massive=float((layer.first_square * layer.down_norms.square()).sum() / square.sum()),
        massive_neuron=massive_neuron,
        peak=float(layer.peak[massive_neuron]),
    )


def _mean_norm(layer: LayerStatistics) -> Tensor:
    return layer.magnitude / layer.tokens * layer.down_norms


def _top(layer: LayerStatistics) -> Tensor:
    return _mean_norm(layer).topk(max(1, round(TOP_SHARE * layer.width))).indices
