"""All trees of a forest at once, for few rows, against one tree after another: the same bits."""

import numpy as np
import pytest
from hetcal import scorer as scoring
from hetcal.scorer import Scorer, Tree, _Grove


def drawn_tree(draw, features, most=12, single=False):
    """A random tree as LightGBM's are written: thresholds, sets of categories, both ways of missing values."""
    inner = int(draw.integers(0, most))
    size = 2 * inner + 1
    feature, left, right = (np.full(size, -1) for _ in range(3))
    leaves, used, sets = [0], 1, {}
    for _ in range(inner):
        node = leaves.pop(int(draw.integers(len(leaves))))
        feature[node], left[node], right[node] = draw.integers(features), used, used + 1
        leaves += [used, used + 1]
        used += 2
        if not single and draw.random() < 0.3:
            sets[int(node)] = (draw.random(int(draw.integers(1, 7))) < 0.5).tolist()
    return {
        "feature": feature.tolist(),
        "threshold": draw.choice([-1.0, 0.0, 0.1, 0.5, 2.0, 1e-35], size).tolist(),
        "left": left.tolist(),
        "right": right.tolist(),
        "missing_left": (draw.random(size) < 0.5).tolist(),
        "missing_zero": (not single) & (draw.random(size) < 0.3) & ~np.isin(np.arange(size), list(sets)),
        "value": draw.normal(size=size).tolist(),
        "sets": sets,
        "single": single,
    }


def by_definition(spec, cells):
    """One row through one tree, a node at a time."""
    node = 0
    while spec["feature"][node] >= 0:
        x = cells[spec["feature"][node]]
        x = float(np.float32(x)) if spec["single"] else x
        if np.isnan(x) and spec["missing_zero"][node]:
            x = 0.0
        if np.isnan(x):
            left = spec["missing_left"][node]
        elif node in spec["sets"]:
            members = spec["sets"][node]
            left = spec["missing_left"][node] if int(x) < 0 else int(x) < len(members) and members[int(x)]
        else:
            left = x <= spec["threshold"][node]
        node = spec["left"][node] if left else spec["right"][node]
    return spec["value"][node]


@pytest.mark.parametrize("seed", range(40))
def test_every_addend_is_that_of_its_tree(seed):
    draw = np.random.default_rng(seed)
    features, rows = int(draw.integers(1, 6)), int(draw.integers(1, 40))
    single, inner = bool(draw.random() < 0.3), int(draw.choice([12, 40, 200]))
    specs = [drawn_tree(draw, features, inner, single) for _ in range(int(draw.integers(1, 15)))]
    trees = [Tree(spec) for spec in specs]
    columns = [draw.choice([-2.0, -1.0, 0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 9.0, np.nan], rows) for _ in range(features)]
    together = _Grove(trees).score(columns, rows)
    for found, tree, spec in zip(together, trees, specs, strict=True):
        expected = [by_definition(spec, cells) for cells in zip(*columns, strict=True)]
        assert np.array_equal(found, expected)
        assert np.array_equal(tree.score(columns, rows), expected)


def test_the_score_does_not_depend_on_how_many_rows_come_at_once(monkeypatch):
    draw = np.random.default_rng(7)
    trees = [drawn_tree(draw, 3) for _ in range(50)]
    parts = [
        {"trees": 30, "models": 3, "centre": 0.1, "scale": 0.9},
        {"trees": 20, "models": 2, "centre": 0.0, "scale": 1.2},
    ]
    names = ("a", "b", "c")
    scorer = Scorer(
        {
            "format": "hetcal",
            "schema": 1,
            "columns": [{"name": name, "values": None} for name in names],
            "clip": 15.0,
            "shift": 0.2,
            "model": {
                "way": "forest",
                "trees": trees,
                "parts": parts,
                "coefficients": [0.1, 0.4, 0.3, 0.2],
                "intercept": 0.0,
                "slope": 1.1,
            },
        }
    )
    X = {name: draw.choice([-1.0, 0.0, 0.7, 3.0, np.nan], 300) for name in names}
    z = draw.normal(size=300)
    whole = scorer.predict_proba(X, logits=z)  # more than FEW_ROWS: tree after tree
    for step in (1, 7, scoring.FEW_ROWS):
        pieces = [
            scorer.predict_proba({name: x[i : i + step] for name, x in X.items()}, logits=z[i : i + step])
            for i in range(0, 300, step)
        ]
        assert np.array_equal(np.concatenate(pieces), whole)
    assert scorer.predict_proba({name: x[:0] for name, x in X.items()}, logits=z[:0]).shape == (0,)
