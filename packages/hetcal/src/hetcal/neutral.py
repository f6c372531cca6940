"""Give every split of a LightGBM model a branch for what it never met: that of the larger child.

LightGBM reads a missing value as 0 in a column that had none, and sends a category without rows at a split to the
right. Both are edited in the model's own text, so that LightGBM and the exported trees agree:

    number    decision_type says "missing values are NaN" and whether they go left
    category  the code n of n known categories, which stands for missing and unseen ones, joins the set or not
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

__all__ = ["with_neutral_branches"]

CATEGORY, DEFAULT_LEFT, MISSING, NAN = 1, 2, 12, 8  # bits of LightGBM's decision_type


def with_neutral_branches(text: str, sizes: dict[int, int]) -> Any:
    """A booster from a model's text; ``sizes`` are the known categories by column, where columns are sets.

    A category column that had missing values at fit keeps the branch that they were given.
    """
    import lightgbm as lgb

    head, *trees = text.split("\nTree=")
    if not trees:
        return lgb.Booster(model_str=text)
    last, end, tail = trees[-1].partition("\nend of trees")
    edited = [_edited(tree, sizes) for tree in (*trees[:-1], last)]
    sizes_line = "tree_sizes=" + " ".join(str(len(f"Tree={tree}\n")) for tree in edited)
    head = "\n".join(sizes_line if line.startswith("tree_sizes=") else line for line in head.split("\n"))
    return lgb.Booster(model_str="\nTree=".join([head, *edited]) + end + tail)


def _edited(tree: str, sizes: dict[int, int]) -> str:
    fields = dict(line.split("=", 1) for line in tree.split("\n")[1:] if "=" in line)
    if "split_feature" not in fields:
        return tree

    def numbers(name: str) -> list[int]:
        return [int(float(v)) for v in fields.get(name, "").split()]

    feature, kind = numbers("split_feature"), numbers("decision_type")
    inner, leaf = numbers("internal_count"), numbers("leaf_count")
    threshold, bounds, words = fields["threshold"].split(), numbers("cat_boundaries"), numbers("cat_threshold")
    sets = [words[first:last] for first, last in pairwise(bounds)]

    def rows(child: int) -> int:
        return inner[child] if child >= 0 else leaf[~child]

    sides = zip(numbers("left_child"), numbers("right_child"), strict=True)
    larger_left = [rows(left) > rows(right) for left, right in sides]
    for node, left in enumerate(larger_left):
        if kind[node] & CATEGORY:
            unseen = sizes.get(feature[node], -1)
            if left and unseen >= 0:
                _join(sets[int(float(threshold[node]))], unseen)
        elif not kind[node] & MISSING:
            kind[node] = NAN | (DEFAULT_LEFT if left else 0)
    fields["decision_type"] = " ".join(map(str, kind))
    if sets:
        ends = [0]
        for members in sets:
            ends.append(ends[-1] + len(members))
        fields["cat_boundaries"] = " ".join(map(str, ends))
        fields["cat_threshold"] = " ".join(str(word) for members in sets for word in members)
    first, *lines = tree.split("\n")
    named = (line.split("=", 1)[0] if "=" in line else "" for line in lines)
    return "\n".join(
        [first, *(f"{name}={fields[name]}" if name else line for name, line in zip(named, lines, strict=True))]
    )


def _join(members: list[int], code: int) -> None:
    """Set one bit of a set kept in words of 32."""
    members += [0] * (code // 32 + 1 - len(members))
    members[code // 32] |= 1 << code % 32
