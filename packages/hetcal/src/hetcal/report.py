"""What a calibrator did, as data and as one HTML page without scripts or outside files."""

from __future__ import annotations

import html
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hetcal.errors import CalibrationWarning, DataError
from hetcal.estimator import HeterogeneousCalibrator
from hetcal.links import Floats, logistic_loss, sigmoid
from hetcal.metrics import multicalibration_error
from hetcal.partition import TreePartitioner
from hetcal.regions import Regions
from hetcal.tables import values_of
from hetcal.theory import AucLift, auc_decomposition, auc_lift

__all__ = ["LeafRow", "Reliability", "Report", "report", "to_html", "to_json"]

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Mean prediction, share of positives and rows of each bin of equal mass."""

    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class LeafRow:
    """One region on the evaluation rows."""

    leaf: int
    rule: str
    rows: int
    positives: float
    base_mean: float
    calibrated_mean: float
    intercept: float | None
    slope: float | None
    reliability: Reliability


@dataclass(frozen=True)
class Report:
    """Figures on rows that neither the model nor the calibrator has seen."""

    rows: int
    chosen: str
    reason: str
    lift: AucLift
    log_loss_base: float
    log_loss_calibrated: float
    ece_base: float
    ece_calibrated: float
    features_only: float | None
    between_lift: float | None
    within_change: float | None
    multicalibration_base: float | None
    multicalibration_calibrated: float | None
    reliability_base: Reliability
    reliability_calibrated: Reliability
    leaves: tuple[LeafRow, ...]
    tree: tuple[str, ...]
    unseen: dict[str, int]


def report(
    calibrator: HeterogeneousCalibrator, X: Any, y: Any, *, scores: Any = None, logits: Any = None, groups: Any = None
) -> Report:
    """Evaluate a fitted calibrator on fresh rows.

    Parameters
    ----------
    calibrator : HeterogeneousCalibrator
    X, y : table and labels of the fresh rows
    scores, logits : array
        What the calibrator was fitted on: base probabilities or logits; neither with ``score_column``.
    groups : array, optional

    Returns
    -------
    Report

    Raises
    ------
    DataError
    """
    from papershelf_core import metrics

    label = _labels(calibrator, y)
    z = calibrator.base_logits(X, scores=scores, logits=logits)
    if label.size != z.size:
        raise DataError(f"y has {label.size} labels for {z.size} rows; give one a row")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)  # the report says what was not met at fit
        after = calibrator.decision_function(X, scores=scores, logits=logits, groups=groups)
    p, q = sigmoid(z), sigmoid(after)
    leaves, tree, between, within, worst = _leaves(calibrator, X, groups, label, z, after)
    return Report(
        rows=label.size,
        chosen=calibrator.selection_.chosen,
        reason=calibrator.selection_.reason,
        lift=auc_lift(label, z, after),
        log_loss_base=float(logistic_loss(label, z).mean()),
        log_loss_calibrated=float(logistic_loss(label, after).mean()),
        ece_base=metrics.ece(label, p),
        ece_calibrated=metrics.ece(label, q),
        features_only=calibrator.selection_.features_only,
        between_lift=between,
        within_change=within,
        multicalibration_base=worst[0],
        multicalibration_calibrated=worst[1],
        reliability_base=_reliability(label, p),
        reliability_calibrated=_reliability(label, q),
        leaves=leaves,
        tree=tree,
        unseen=calibrator.unseen(X),
    )


def _labels(calibrator: HeterogeneousCalibrator, y: Any) -> Floats:
    values = np.asarray(values_of("y", y))
    unknown = sorted({str(v) for v in np.unique(values.astype(str))} - {str(c) for c in calibrator.classes_})
    if unknown:
        raise DataError(f"y holds {unknown[:3]}, but the calibrator was fitted on {calibrator.classes_.tolist()}")
    return np.asarray(values == calibrator.classes_[1], dtype=np.float64)


def _leaves(
    calibrator: HeterogeneousCalibrator, X: Any, groups: Any, y: Floats, z: Floats, after: Floats
) -> tuple[tuple[LeafRow, ...], tuple[str, ...], float | None, float | None, tuple[float | None, float | None]]:
    model = calibrator.model_
    if not isinstance(model, Regions):
        return (), (), None, None, (None, None)
    leaf = calibrator.apply(X, groups=groups)
    known = leaf >= 0
    before_parts = auc_decomposition(y[known], z[known], leaf[known])
    after_parts = auc_decomposition(y[known], after[known], leaf[known])
    p, q = sigmoid(z), sigmoid(after)
    rules = model.partitioner.describe()
    rows = []
    for k in np.unique(leaf[known]):
        mine = leaf == k
        rows.append(
            LeafRow(
                int(k),
                rules[k],
                int(mine.sum()),
                float(y[mine].mean()),
                float(p[mine].mean()),
                float(q[mine].mean()),
                *_line(model, int(k)),
                _reliability(y[mine], q[mine], 5),
            )
        )
    worst = tuple(multicalibration_error(y[known], v[known], leaf[known]).value for v in (p, q))
    tree = tuple(_draw(model.partitioner)) if isinstance(model.partitioner, TreePartitioner) else ()
    between = after_parts.between - before_parts.between
    return tuple(rows), tree, between, after_parts.within - before_parts.within, (worst[0], worst[1])


def _line(model: Regions, k: int) -> tuple[float | None, float | None]:
    leaf_map = model.leaf_map
    if leaf_map.family != "platt":
        return None, None
    zero, one = leaf_map.logits(np.array([0.0, 1.0]), np.array([k, k]))
    return float(zero), float(one - zero)


def _draw(partitioner: TreePartitioner) -> list[str]:
    """The tree as indented lines."""
    tree, lines = partitioner.tree_, []
    stack = [(0, 0, "all rows")]
    while stack:
        node, depth, text = stack.pop()
        if tree.feature[node] < 0:
            lines.append("  " * depth + f"{text}  ->  leaf {tree.leaf[node]}")
            continue
        lines.append("  " * depth + text)
        low, high = tree.sides(node, partitioner.names_, partitioner.vocabularies_)
        stack.append((int(tree.right[node]), depth + 1, high))
        stack.append((int(tree.left[node]), depth + 1, low))
    return lines


def _reliability(y: Floats, p: Floats, bins: int = BINS) -> Reliability:
    parts = np.array_split(np.argsort(p, kind="stable"), min(bins, p.size))
    return Reliability(
        tuple(float(p[part].mean()) for part in parts),
        tuple(float(y[part].mean()) for part in parts),
        tuple(int(part.size) for part in parts),
    )


def to_json(result: Report) -> str:
    """The report as JSON."""
    return json.dumps(asdict(result), indent=1)


def to_html(result: Report, title: str = "Heterogeneous calibration") -> str:
    """The report as one self-contained HTML page."""
    lift = result.lift
    figures = [
        ("AUC", f"{lift.base:.4f}", f"{lift.calibrated:.4f}", f"{lift.lift:+.4f} [{lift.low:+.4f}, {lift.high:+.4f}]"),
        _row("log-loss", result.log_loss_base, result.log_loss_calibrated),
        _row("ECE, 15 equal-mass bins", result.ece_base, result.ece_calibrated),
    ]
    if result.multicalibration_base is not None and result.multicalibration_calibrated is not None:
        figures.append(
            _row("multicalibration error, s.d.", result.multicalibration_base, result.multicalibration_calibrated)
        )
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>Chosen: <b>{html.escape(result.chosen)}</b>. {html.escape(result.reason)}.</p>",
        f"<p>{result.rows} rows; lift in AUC with its 95 % interval (DeLong), p = {lift.p_value:.2g}.</p>",
        _table(("", "base", "calibrated", "change"), figures),
    ]
    if result.features_only is not None:
        body.append(
            f"<p>Features alone, without the score, change the out-of-fold AUC by {result.features_only:+.4f}: "
            "where that is near the lift, the calibrator is mostly a second model, and refitting the base model on "
            "more rows or features would gain more.</p>"
        )
    if result.between_lift is not None and result.within_change is not None:
        body.append(
            f"<p>Of the change in AUC {result.between_lift:+.4f} arises between regions and "
            f"{result.within_change:+.4f} within.</p>"
        )
    if result.unseen:
        cells = ", ".join(f"{html.escape(name)} {count}" for name, count in result.unseen.items())
        body.append(f"<p>Cells that were never met at fit, which take the neutral branch: {cells}.</p>")
    body += [
        "<h2>Reliability</h2><div class=row>",
        _plot(result.reliability_base, "base"),
        _plot(result.reliability_calibrated, "calibrated"),
        "</div>",
    ]
    if result.leaves:
        body += ["<h2>Regions</h2>", _leaf_table(result), "<div class=row>"]
        body += [_plot(row.reliability, f"leaf {row.leaf}, n = {row.rows}", 120) for row in result.leaves]
        body.append("</div>")
    if result.tree:
        body.append("<h2>Tree</h2><pre>" + html.escape("\n".join(result.tree)) + "</pre>")
    style = (
        "body{font:15px/1.45 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
        "table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ccc;text-align:left}"
        ".row{display:flex;flex-wrap:wrap;gap:1em}pre{overflow-x:auto}"
    )
    head = f"<meta charset=utf-8><title>{html.escape(title)}</title><style>{style}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(body)}</body></html>\n"


def _row(name: str, before: float, after: float) -> tuple[str, str, str, str]:
    return name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    top = "".join(f"<th>{html.escape(c)}</th>" for c in head)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{lines}</table>"


def _leaf_table(result: Report) -> str:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    rows = [
        (
            str(row.leaf),
            row.rule,
            str(row.rows),
            number(row.positives),
            number(row.base_mean),
            number(row.calibrated_mean),
            number(row.intercept),
            number(row.slope),
        )
        for row in result.leaves
    ]
    return _table(("leaf", "rule", "rows", "positives", "base mean", "calibrated mean", "a", "b"), rows)


def _plot(curve: Reliability, title: str, size: int = 220) -> str:
    """Observed against predicted with 95 % bars, axes 0 to 1."""
    marks = []
    for p, o, n in zip(curve.predicted, curve.observed, curve.rows, strict=True):
        half = 1.96 * float(np.sqrt(max(o * (1 - o), 0.25 / (n + 1)) / n))
        x, low, high = p * size, (1 - max(o - half, 0)) * size, (1 - min(o + half, 1)) * size
        marks.append(f"<line x1={x:.1f} x2={x:.1f} y1={low:.1f} y2={high:.1f} stroke=#888 />")
        marks.append(f"<circle cx={x:.1f} cy={(1 - o) * size:.1f} r=3 fill=#06c />")
    frame = f"<rect width={size} height={size} fill=none stroke=#ccc />"
    diagonal = f"<line x1=0 y1={size} x2={size} y2=0 stroke=#ccc />"
    drawing = f"<svg width={size} height={size} role=img>{frame}{diagonal}{''.join(marks)}</svg>"
    return f"<figure style='margin:0'>{drawing}<figcaption>{html.escape(title)}</figcaption></figure>"
