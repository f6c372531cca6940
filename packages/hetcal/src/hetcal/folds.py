"""The one out-of-fold loop: which rows a model may learn from and which it may be judged on.

Rows of one cluster (see ``rows``) are not on both sides of a fold: of folds that were given, the training side gives
them up. Rows that no fold covers have no out-of-fold
logit (NaN) and are not scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetcal.errors import DataError
from hetcal.links import Floats
from hetcal.rows import Clusters, effective_rows
from hetcal.validation import warn

__all__ = ["Folds", "make_folds", "out_of_fold"]

Rows = NDArray[np.intp]
FEWEST_COVERED = 100  # effective rows below which a comparison says nothing
MOSTLY_ALONE = 0.9  # so many clusters for each row are rows on their own, but for a few
PURGED = 0.5  # a fold may lose so much of its training rows to clusters that reach into its test rows


@dataclass(frozen=True)
class Folds:
    """Pairs of training and test rows; no row is in two test parts.

    Attributes
    ----------
    pairs : list of (train, test)
    covered : (n,) bool
        Rows that some test part holds.
    """

    pairs: list[tuple[Rows, Rows]]
    covered: NDArray[np.bool_]


def out_of_fold(
    folds: Folds,
    fit: Callable[[Rows], Callable[[Rows], Floats]],
    hopeless: Callable[[Floats], bool] | None = None,
) -> Floats:
    """Logits of each row by a model that did not see its cluster; NaN for rows that no fold covers.

    Parameters
    ----------
    folds : Folds
    fit : function
        Takes the rows to learn from and returns a function from the rows to judge to their logits.
    hopeless : function, optional
        Asked between folds with the logits so far; when it says so, the other folds are spared.
    """
    total = np.full(folds.covered.size, np.nan)
    for number, (train, test) in enumerate(folds.pairs, 1):
        total[test] = fit(train)(test)
        if hopeless is not None and number < len(folds.pairs) and hopeless(total):
            break
    return total


def make_folds(
    cv: Any,
    X: Any,
    y: Floats,
    *,
    weight: Floats | None = None,
    groups: Any = None,
    clusters: Clusters | None = None,
    kept: Rows | None = None,
    seed: int | None = 0,
) -> Folds:
    """Folds of the rows of y.

    Parameters
    ----------
    cv : int, splitter or iterable of (train, test) rows
        A number makes stratified folds of whole clusters. A splitter that wants ``groups`` gets them.
    X : object with a length
        For splitters.
    y : (n,) array
    weight, groups, clusters : (n,) arrays, optional
    kept : (n,) array, optional
        The numbers that these rows had in the caller's data, to which an iterable refers; by default the same.
    seed : int or None

    Raises
    ------
    DataError
        If folds overlap, if most training rows share a group with rows that are tested, or if too few rows are
        covered.
    """
    if isinstance(cv, int | np.integer) and not isinstance(cv, bool):
        raw = _stratified(int(cv), y, clusters, seed)
    elif hasattr(cv, "split"):
        raw = _split(cv, X, y, groups)
    elif isinstance(cv, Iterable) and not isinstance(cv, str):
        raw = _given(cv, y.size, kept)
    else:
        raise ValueError(f"cv={cv!r}; use a number of folds, a splitter or (train, test) rows")
    if not raw:
        raise DataError("cv gave no folds; an iterator that was used before is empty, give a list")
    _refuse_overlap(raw, y.size)
    pairs = [(_purged(train, test, clusters, groups is not None, fold), test) for fold, (train, test) in enumerate(raw)]
    covered = np.zeros(y.size, dtype=bool)
    covered[np.concatenate([test for _, test in pairs])] = True
    _refuse_little(covered, y, weight, clusters)
    return Folds(pairs, covered)


def _stratified(count: int, y: Floats, clusters: Clusters | None, seed: int | None) -> list[tuple[Rows, Rows]]:
    from sklearn.model_selection import KFold, StratifiedKFold

    if count < 2:
        raise ValueError(f"cv={count}; at least 2 folds are needed")
    label, member, first = y >= 0.5, None, None
    if clusters is not None:
        number, first, member = np.unique(clusters, return_index=True, return_inverse=True)
        if number.size < count:
            raise DataError(
                f"the rows form {number.size} groups of rows that belong together, fewer than cv={count} folds; use "
                "fewer folds or selection=None with a way that needs none"
            )
        if number.size >= MOSTLY_ALONE * y.size:  # the folds of the rows, and the few others follow their first
            fold = np.empty(y.size, dtype=np.intp)
            for k, (_, test) in enumerate(_stratified(count, y, None, seed)):
                fold[test] = k
            fold = fold[first][member]
            return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(count)]
        label = np.bincount(member, y) / np.bincount(member) > y.mean()  # rich and poor clusters in every fold
    if min(np.count_nonzero(label), np.count_nonzero(~label)) < count and member is not None:
        splitter = KFold(count, shuffle=True, random_state=seed)
    else:
        splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    pairs = list(splitter.split(label, label))
    if member is None:
        return pairs
    return [(np.flatnonzero(np.isin(member, train)), np.flatnonzero(np.isin(member, test))) for train, test in pairs]


def _split(cv: Any, X: Any, y: Floats, groups: Any) -> list[tuple[Rows, Rows]]:
    from sklearn.utils.metadata_routing import get_routing_for_object

    wants = get_routing_for_object(cv).consumes("split", ["groups"]) if hasattr(cv, "get_metadata_routing") else True
    if wants and hasattr(cv, "get_metadata_routing") and groups is None:
        raise DataError(f"cv={type(cv).__name__} splits by groups; pass groups= to fit")
    label = (y >= 0.5).astype(int)  # splitters that stratify take no shares
    found = cv.split(np.zeros((len(X), 1)), label, _one_column(groups)) if wants else cv.split(np.zeros(len(X)), label)
    return [(np.asarray(train), np.asarray(test)) for train, test in found]


def _one_column(groups: Any) -> Any:
    """Groups of several levels as one number a row, which is what splitters take."""
    if groups is None or np.ndim(groups) == 1:
        return groups
    from hetcal.rows import _numbered

    return _numbered(groups)


def _given(cv: Iterable[Any], rows: int, kept: Rows | None) -> list[tuple[Rows, Rows]]:
    total = rows if kept is None else int(kept[-1]) + 1
    place = np.full(max(total, rows), -1, dtype=np.intp)
    place[np.arange(rows) if kept is None else kept] = np.arange(rows)
    pairs = []
    for fold, (train, test) in enumerate(cv):
        parts = []
        for part in (np.asarray(train), np.asarray(test)):
            part = np.flatnonzero(part) if part.dtype == bool else part
            if part.dtype.kind not in "iu" or part.ndim != 1 or (part.size and part.min() < 0):
                raise DataError(f"cv: fold {fold} holds {part.dtype} of shape {part.shape}; give row numbers from 0")
            if kept is None and part.size and part.max() >= rows:
                raise DataError(f"cv: fold {fold} names row {part.max()}, but there are {rows} rows")
            part = part[part < place.size]  # rows of no weight at the end
            parts.append(place[part][place[part] >= 0])
        pairs.append((parts[0], parts[1]))
    return pairs


def _refuse_overlap(pairs: list[tuple[Rows, Rows]], rows: int) -> None:
    owner = np.full(rows, -1)
    for fold, (train, test) in enumerate(pairs):
        if train.size == 0 or test.size == 0:
            raise DataError(f"cv: fold {fold} has {train.size} training and {test.size} test rows; both need some")
        both = np.intersect1d(train, test)
        if both.size:
            raise DataError(f"cv: row {both[0]} is among both the training and the test rows of fold {fold}")
        if np.unique(test).size < test.size or (owner[test] >= 0).any():
            row = test[owner[test] >= 0][0] if (owner[test] >= 0).any() else test[0]
            raise DataError(
                f"cv: row {row} is tested more than once (fold {fold}); give folds whose test rows do not overlap, "
                "such as KFold instead of ShuffleSplit or a repeated splitter"
            )
        owner[test] = fold


def _purged(train: Rows, test: Rows, clusters: Clusters | None, grouped: bool, fold: int) -> Rows:
    """The training rows without those whose group or copy is being tested."""
    if clusters is None:
        return train
    clean = train[~np.isin(clusters[train], clusters[test])]
    if clean.size >= (1.0 - PURGED) * train.size:
        return clean
    lost = f"cv: {train.size - clean.size} of the {train.size} training rows of fold {fold}"
    remedy = "give a number of folds, or a splitter that keeps them together"
    if grouped:
        raise DataError(f"{lost} share a group with rows that it tests; {remedy}")
    warn(f"{lost} are copies of rows that it tests, so that out-of-fold figures flatter; {remedy}")
    return train


def _refuse_little(covered: NDArray[np.bool_], y: Floats, weight: Floats | None, clusters: Clusters | None) -> None:
    if covered.all():
        return
    some = None if clusters is None else np.unique(clusters[covered], return_inverse=True)[1]
    count = int(covered.sum())
    rows = effective_rows(None if weight is None else weight[covered], some, count)
    if rows < FEWEST_COVERED or y[covered].min() == y[covered].max():
        raise DataError(
            f"cv tests {count} of {y.size} rows, worth {rows:.0f} independent ones with "
            f"{int((y[covered] >= 0.5).sum())} positives; at least {FEWEST_COVERED} of both classes are needed to "
            "compare ways: give folds that cover more, or selection=None"
        )
