"""``HeterogeneousCalibrator``: a post-hoc transformation of a fitted model's scores that may use the features.

Four ways to turn a base logit z and a row x into a calibrated logit, in the order of their cost:

    identity  z
    global    a + b z                                  Platt on logits
    tree      a_k + b_k z, k = leaf of x               shrunk by empirical Bayes
    forest    c0 + sum_k c_k g_k(x, z) + c (a + b z)   see ``forest``

With ``selection="cv"`` out-of-fold log-loss on the calibration rows decides: how far a forest is trusted beside the
global map (``combination``), or which of the other ways is taken (``selection``).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from hetcal import validation
from hetcal.bag import Bag, fit_bag
from hetcal.calibrators import CALIBRATORS, platt
from hetcal.errors import DataError
from hetcal.features import FeatureEncoder
from hetcal.folds import Folds, make_folds, out_of_fold
from hetcal.forest import Forest, fit_forest
from hetcal.leafwise import Leaves
from hetcal.links import Floats, logistic_loss, logit, sigmoid
from hetcal.partition import CallablePartitioner, GroupPartitioner, TreePartitioner
from hetcal.regions import Regions, fit_regions
from hetcal.rows import clusters_of, effective_rows, worth
from hetcal.selection import Choice, Judge, Selection, behind, choose
from hetcal.tables import column_of, is_table, keys_of, take_columns, take_rows
from hetcal.theory import roc_auc

__all__ = ["HeterogeneousCalibrator"]

FEWEST_ROWS = 200  # effective ones; below it nothing but the global map is tried
FEW_LOGITS = 10  # so few may all lie in [0, 1] by chance
FEW_FOR_FOLDS, SHUFFLES = 5000, 3  # with fewer effective rows the forest's folds are shuffled so often
NAMED_PARTITIONERS = ("auto", "tree", "bag", "forest", "groups", "global", "identity")


class HeterogeneousCalibrator(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Calibrate a fitted binary classifier per region of feature space, and raise its AUC with it.

    p(x, z) = sigmoid(a_k + b_k z), k the region of x; or a boosted forest of regions beside the score.

    Parameters
    ----------
    partitioner : str, partitioner or callable, default="auto"
        "auto" combines boosted forests of several capacities with the global map, as far as they are trusted; without
        the ``forest`` extra it compares the global map, a tree and bagged trees. "tree" is the light mode, "bag" the
        middle way, "forest" the boosted forests of "auto" (all the way with ``selection=None``),
        "groups" the ``groups=`` given to fit; "global" is Platt scaling, "identity" nothing. A ``TreePartitioner``,
        ``GroupPartitioner`` or ``CallablePartitioner``, or a function X -> integers, works as well.
    calibrator : str, default="platt"
        The map inside a leaf: platt, temperature, shift, beta, isotonic, histogram, identity.
    shrinkage : {"eb", "hierarchy", "none"} or float, default="eb"
        See ``calibrators.fit_leaf_map``.
    selection : {"cv", None}, default="cv"
        Compare by out-of-fold log-loss and fall back on simpler maps, or take ``partitioner`` as it is.
    cv : int, splitter or iterable of (train, test) rows, default=5
        Test parts must not overlap; rows that none holds are not scored.
    quality : {"standard", "high"}, default="standard"
        Of forests: "standard" fits one model of each kept candidate on all rows; "high" keeps all candidates and
        predicts from their fold models, many times slower.
    score_column : str or int, optional
        Column of X that holds the base model's score, for pipelines and searches; instead of ``scores``/``logits``.
    score_kind : {"logit", "probability"}, default="logit"
        What ``score_column`` holds.
    categorical : sequence of names or positions, optional
        Numeric columns to treat as categories.
    monotone : bool, default=True
        Keep the base model's order inside every leaf.
    soft_labels : bool, default=False
        Take y in [0, 1] as shares of positives.
    clip : float, default=15
        Logits beyond this are moved to it; infinite ones too.
    prior_correction : float, optional
        Share of positives in the population where calibration rows were down-sampled: adds
        logit(prior) - logit(mean y) to every calibrated logit.
    threads : int, default=0
        LightGBM's threads; 0 leaves the choice to OpenMP.
    random_state : int, default=0

    Attributes
    ----------
    classes_ : array of shape (2,)
    selection_ : Selection
        What was compared and chosen, with out-of-fold figures.
    n_features_in_ : int
    n_clipped_ : int
        Calibration rows whose logit was clipped.
    n_effective_ : float
        Independent rows of equal weight that the calibration rows amount to; see ``rows``.
    set_aside_ : tuple of str
        Category columns that are not used, as they have nearly as many values as there are rows.
    fitted_on_ : {"probability", "logit"}
        What the scores were; a saved calibrator takes the same only.

    References
    ----------
    Durfee, Gupta, Basu. Heterogeneous Calibration. arXiv:2202.04837 (regions by trees, a calibrator in each).

    Examples
    --------
    >>> import numpy as np
    >>> from hetcal import HeterogeneousCalibrator
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(4000, 2))
    >>> z = X[:, 0]                                 # a model that has not seen the second feature's step
    >>> y = rng.random(4000) < 1 / (1 + np.exp(-z - 2 * np.sign(X[:, 1])))
    >>> model = HeterogeneousCalibrator("tree").fit(X, y, logits=z)
    >>> model.selection_.chosen, bool(model.selection_.lift > 0.1)
    ('tree', True)
    >>> model.predict_proba(X[:2], logits=z[:2]).shape
    (2, 2)
    """

    classes_: NDArray[Any]
    selection_: Selection

    def __init__(
        self,
        partitioner: Any = "auto",
        calibrator: str = "platt",
        shrinkage: str | float = "eb",
        selection: str | None = "cv",
        cv: Any = 5,
        quality: str = "standard",
        score_column: Any = None,
        score_kind: str = "logit",
        categorical: Sequence[Any] | None = None,
        monotone: bool = True,
        soft_labels: bool = False,
        clip: float = 15.0,
        prior_correction: float | None = None,
        threads: int = 0,
        random_state: int | None = 0,
    ) -> None:
        self.partitioner = partitioner
        self.calibrator = calibrator
        self.shrinkage = shrinkage
        self.selection = selection
        self.cv = cv
        self.quality = quality
        self.score_column = score_column
        self.score_kind = score_kind
        self.categorical = categorical
        self.monotone = monotone
        self.soft_labels = soft_labels
        self.clip = clip
        self.prior_correction = prior_correction
        self.threads = threads
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.allow_nan = self.score_column is None  # a base score is never missing
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags

    # -- fitting ---------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        scores: Any = None,
        logits: Any = None,
        sample_weight: Any = None,
        groups: Any = None,
    ) -> HeterogeneousCalibrator:
        """Fit on calibration rows, which the base model must not have been trained on.

        Parameters
        ----------
        X : table or array of shape (n, d)
            Features, in a table of pandas, polars, pyarrow or another library that narwhals reads, or an array; text
            and categoricals are taken as categories, dates as days since 1970; missing cells are allowed.
        y : array of shape (n,)
            Two classes, or shares with ``soft_labels``.
        scores, logits : array of shape (n,)
            Exactly one: the base model's probabilities or log-odds.
        sample_weight : array of shape (n,), optional
            Only their ratios matter; uneven weights count for fewer rows.
        groups : array of shape (n,) or (n, levels), optional
            Rows of one group, such as the visits of a user, depend on each other: they stay in one fold and count as
            one. With ``partitioner="groups"`` they are the regions instead.

        Returns
        -------
        self

        Raises
        ------
        DataError
            For anything that cannot be used, with field, rows and remedy.
        """
        self._check_parameters()
        if y is None:
            raise DataError("fit requires y to be passed, but the target y is None")
        X = self._table(X, reset=True)
        rows = len(X)
        target, classes = validation.labels(y, rows, self.soft_labels)
        weight = validation.weights(sample_weight, rows)
        groups = validation.row_groups(groups, rows)
        table, z = self._split_score(X, scores, logits)
        kept = None
        if weight is not None and not (weight > 0).all():
            kept = np.flatnonzero(weight > 0)
            table, z, target, weight = take_rows(table, kept), z[kept], target[kept], weight[kept]
            groups = None if groups is None else groups[kept]
            if target.min() == target.max():
                raise DataError("y holds one class only once rows of zero sample_weight are dropped")
        self.fitted_on_ = self._given(scores)
        self.n_clipped_ = int(np.count_nonzero(np.abs(z) > self.clip))
        z = validation.winsorise(z, self.clip)
        self.classes_ = classes
        self._needs_groups = self._reads_groups()
        if self._needs_groups and groups is None:
            raise DataError("partitioner='groups' needs groups= at fit; or use GroupPartitioner(columns=[...])")
        encoded = self._encode(table, z, target, None if self._needs_groups else groups)
        weight = worth(weight, self._clusters, target.size)
        self.n_effective_ = effective_rows(weight, self._clusters, target.size)
        self.overall_ = platt(z, target, weight)
        base_auc = float("nan") if self.soft_labels else roc_auc(target, z, weight)
        if self.n_effective_ >= FEWEST_ROWS:
            _warn_if_seen(base_auc)
        self.prior_shift_ = 0.0
        if self.prior_correction is not None:
            mean = float(np.average(target, weights=weight))
            self.prior_shift_ = float(logit(np.array(self.prior_correction)) - logit(np.array(mean)))
        source = groups if self._needs_groups else table
        self._fit_chosen(source, encoded, z, Judge(target, weight, self._clusters), groups, kept)
        del self._clusters
        return self

    def _reads_groups(self) -> bool:
        """Whether ``groups=`` are the regions."""
        if isinstance(self.partitioner, GroupPartitioner):
            return self.partitioner.columns is None
        return isinstance(self.partitioner, str) and self.partitioner == "groups"

    def _given(self, scores: Any) -> str:
        if self.score_column is not None:
            return self.score_kind
        return "logit" if scores is None else "probability"

    def _encode(self, table: Any, z: Floats, y: Floats, groups: Any) -> Floats:
        """The features as a matrix, with identifiers set aside; finds which rows belong together."""
        self.encoder_ = FeatureEncoder(self.categorical)
        encoded = self.encoder_.fit_transform(table)
        aside = self.encoder_.set_aside(encoded, y.size)
        self._clusters = clusters_of(groups, encoded, z, y)
        if self._clusters is not None:
            aside += self.encoder_.set_aside(encoded, int(np.unique(self._clusters).size))
        self.set_aside_ = tuple(aside)
        if aside:
            validation.warn(
                f"the columns {aside} have nearly as many values as there are independent rows and are taken for "
                "identifiers: they are not used and their values not kept; drop them, or bin them into fewer values"
            )
        return encoded

    def _check_parameters(self) -> None:
        if isinstance(self.partitioner, str) and self.partitioner not in NAMED_PARTITIONERS:
            raise ValueError(f"partitioner={self.partitioner!r}; use one of {NAMED_PARTITIONERS} or an object")
        if self.calibrator not in CALIBRATORS:
            raise ValueError(f"calibrator={self.calibrator!r}; use one of {CALIBRATORS}")
        if isinstance(self.shrinkage, str) and self.shrinkage not in ("eb", "hierarchy", "none"):
            raise ValueError(f"shrinkage={self.shrinkage!r}; use 'eb', 'hierarchy', 'none' or a number of rows")
        if not isinstance(self.shrinkage, str) and not self.shrinkage >= 0:
            raise ValueError(f"shrinkage={self.shrinkage!r} must not be negative")
        if self.selection not in ("cv", None):
            raise ValueError(f"selection={self.selection!r}; use 'cv' or None")
        if self.quality not in ("standard", "high"):
            raise ValueError(f"quality={self.quality!r}; use 'standard' or 'high'")
        if self.score_kind not in ("logit", "probability"):
            raise ValueError(f"score_kind={self.score_kind!r}; use 'logit' or 'probability'")
        if not self.clip > 0:
            raise ValueError(f"clip={self.clip!r} must be positive")
        if self.prior_correction is not None and not 0 < self.prior_correction < 1:
            raise ValueError(f"prior_correction={self.prior_correction!r} must be inside (0, 1)")

    def _table(self, X: Any, *, reset: bool) -> Any:
        """X as a table or a 2-d array, with scikit-learn's bookkeeping of names and widths."""
        from sklearn.utils.validation import validate_data

        if is_table(X):
            names = [str(c) for c in keys_of(X)]
            if len(set(names)) != len(names):
                raise DataError(f"X has duplicate column names: {sorted({n for n in names if names.count(n) > 1})}")
            if reset and not hasattr(X, "iloc"):  # scikit-learn reads the names of some kinds of tables only
                self.n_features_in_, self.feature_names_in_ = len(names), np.array(names, dtype=object)
            elif hasattr(X, "iloc") and (reset or not self.encoder_.named):
                validate_data(self, X, reset=reset, skip_check_array=True)
            if len(X) == 0:
                raise DataError("X has 0 rows; at least one is needed")
            return X
        kinds = (
            np.asarray(X, dtype=object).dtype.kind if isinstance(X, list) else getattr(X, "dtype", np.dtype("O")).kind
        )
        checked = validate_data(
            self,
            X,
            reset=reset,
            dtype=None if kinds in "OUSMm" else np.float64,
            ensure_all_finite="allow-nan",
        )
        return checked

    def _split_score(self, X: Any, scores: Any, logits: Any) -> tuple[Any, Floats]:
        """The features without the score column, and the base logit."""
        if self.score_column is None:
            return X, validation.base_logits(scores, logits, len(X))
        if scores is not None or logits is not None:
            raise DataError("score_column is set; do not pass scores= or logits= as well")
        if is_table(X):
            names = [str(c) for c in keys_of(X)]
            if str(self.score_column) in names:
                position = names.index(str(self.score_column))
            elif isinstance(self.score_column, int) and 0 <= self.score_column < len(names):
                position = self.score_column
            else:
                raise DataError(f"score_column={self.score_column!r} is not a column of X")
            keys = keys_of(X)
            column, rest = column_of(X, keys[position]), take_columns(X, [*keys[:position], *keys[position + 1 :]])
        else:
            if not isinstance(self.score_column, int) or not 0 <= self.score_column < X.shape[1]:
                raise DataError(f"score_column={self.score_column!r}; X is an array of {X.shape[1]} columns")
            column, rest = X[:, self.score_column], np.delete(X, self.score_column, axis=1)
        given = {"logits": column} if self.score_kind == "logit" else {"scores": column}
        return rest, validation.base_logits(given.get("scores"), given.get("logits"), len(X))

    def _ways(self, encoded: Floats, judge: Judge) -> list[str]:
        """The ways to compare, simple to costly; the last is the one asked for."""
        name = self.partitioner if isinstance(self.partitioner, str) else "regions"
        one = np.ones_like(judge.y) if judge.weight is None else judge.weight
        scarce = min(one[judge.y >= 0.5].sum(), one[judge.y < 0.5].sum()) < 10
        enough = self.n_effective_ >= FEWEST_ROWS
        if name in ("identity", "global"):
            return [name]
        if name != "auto" and self.selection is None:
            return [name]
        poor = not enough or scarce
        usable = sum(not column.aside for column in self.encoder_.columns)
        if name in ("auto", "tree", "bag", "forest") and (poor or usable == 0):
            return ["identity", "global"] if enough else ["global"]
        if name == "auto":
            return ["identity", "global", *(["forest"] if importlib.util.find_spec("lightgbm") else ["tree", "bag"])]
        return ["identity", "global", name] if not poor else ["global", name]

    def _fit_chosen(self, X: Any, encoded: Floats, z: Floats, judge: Judge, groups: Any, kept: Any) -> None:
        ways = self._ways(encoded, judge)
        shuffles: list[Folds] = []
        if len(ways) > 1 or ways == ["forest"]:
            seed = 0 if self.random_state is None else self.random_state
            again = self.n_effective_ < FEW_FOR_FOLDS and ways[-1] == "forest" and isinstance(self.cv, int | np.integer)
            common = {"weight": judge.weight, "groups": groups, "clusters": judge.clusters, "kept": kept}
            shuffles = [
                make_folds(self.cv, encoded, judge.y, seed=seed + number, **common)
                for number in range(SHUFFLES if again else 1)
            ]
        if ways[-1] == "forest":
            self._combine(ways, X, encoded, z, judge, shuffles)
        else:
            self._compare(ways, X, encoded, z, judge, shuffles[0] if shuffles else None)

    def _combine(
        self, ways: list[str], X: Any, encoded: Floats, z: Floats, judge: Judge, shuffles: list[Folds]
    ) -> None:
        """The boosted candidates with the global map, as far as they are trusted; else the global map or nothing."""
        forest = self._fit_forest(encoded, z, judge, shuffles, shrunk=len(ways) > 1)
        oof = {"forest": forest.out_of_fold}
        chosen, reason = "forest", "asked for; nothing was compared"
        if len(ways) > 1:
            oof = {
                "identity": z,
                "global": out_of_fold(shuffles[0], self._learner("global", X, encoded, z, judge)),
                **oof,
            }
        rows = ~np.isnan(np.sum(list(oof.values()), axis=0))
        oof, seen = {way: logits[rows] for way, logits in oof.items()}, judge.on(rows)
        if len(ways) > 1:
            shares = ", ".join(f"{name} {share:.2f}" for name, share in forest.weights)
            gain = f"{abs(forest.gain):.5f} (s.e. {forest.standard_error:.5f}) on global"
            reason = f"boosted candidates ({shares}) {'gain' if forest.gain >= 0 else 'lose'} {gain}"
            if forest.parts and seen.gain(oof["identity"], oof["forest"])[0] > 0:
                reason += f" and are trusted by {forest.trust:.2f}: forest it is"
            else:
                chosen, simple = choose(["identity", "global"], oof, seen)
                reason += f", which is not enough; {simple}"
        self.way_ = chosen
        self.model_: Regions | Forest | Bag | None = forest if chosen == "forest" else None
        self.selection_ = self._summary(chosen, reason, oof, z[rows], seen, rows, forest)

    def _compare(self, ways: list[str], X: Any, encoded: Floats, z: Floats, judge: Judge, folds: Folds | None) -> None:
        """One way among several by two standard errors; or the only one."""
        whole = judge
        fitted: dict[str, Any] = {}
        oof: dict[str, Floats] = {}
        dropped = ""
        # where several regional ways compete the tree comes last, and only as long as it keeps up
        for way in sorted(ways, key=lambda way: way == "tree"):
            if way == "identity":
                oof[way] = z
            elif way == "bag":
                fitted[way] = self._fit_bag(encoded, z, judge)
                oof[way] = self._scaled(fitted[way], judge, folds)
            elif folds is not None:
                rival = oof.get(ways[-1]) if way == "tree" and ways[-1] == "bag" else None
                lost: list[str] = []

                def hopeless(so_far: Floats, rival: Any = rival, lost: list[str] = lost) -> bool:
                    loss = "" if rival is None else behind(so_far, rival, judge)
                    lost += [loss] if loss else []
                    return bool(loss)

                total = out_of_fold(folds, self._learner(way, X, encoded, z, judge), hopeless)
                if lost:
                    count = sum(not np.isnan(total[test]).all() for _, test in folds.pairs)
                    dropped = f"{way} loses {lost[0]} to {ways[-1]} on the first {count} of {len(folds.pairs)} folds"
                    ways.remove(way)
                else:
                    oof[way] = total
        if len(ways) == 1:
            oof.setdefault(ways[0], z)
        rows = ~np.isnan(np.sum([oof[way] for way in ways], axis=0))
        oof, judge = {way: oof[way][rows] for way in oof if way in ways}, judge.on(rows)
        if len(ways) == 1:
            chosen, reason = ways[0], "asked for; nothing was compared"
            if ways == ["global"] and self.partitioner != "global":
                reason = (
                    f"too few calibration rows or no features ({judge.y.size} rows, worth {self.n_effective_:.0f} "
                    f"independent ones, {encoded.shape[1]} features)"
                )
        else:
            chosen, reason = choose(ways, oof, judge)
            reason = f"{dropped}; {reason}" if dropped else reason
        if chosen in ("tree", "regions", "groups"):
            everything = np.arange(z.size)
            fitted[chosen] = self._fit_regions(chosen, X, encoded, z, whole, everything, self.overall_)
        self.way_ = chosen
        self.model_ = fitted.get(chosen)
        self.selection_ = self._summary(chosen, reason, oof, z[rows], judge, rows, None)

    def _fit_bag(self, encoded: Floats, z: Floats, judge: Judge) -> Bag:
        return fit_bag(
            encoded,
            z,
            judge.y,
            judge.weight,
            self.encoder_,
            self.overall_,
            clusters=judge.clusters,
            seed=0 if self.random_state is None else self.random_state,
        )

    def _scaled(self, bag: Bag, judge: Judge, folds: Folds | None) -> Floats:
        """The bag's out-of-bag logits on the right scale, which other folds give where there are folds."""
        mean = bag.out_of_bag
        if folds is None:
            return bag.intercept + bag.slope * mean

        def fit(train: Any) -> Any:
            rows = train[~np.isnan(mean[train])]
            a, b = platt(mean[rows], judge.y[rows], None if judge.weight is None else judge.weight[rows])
            return lambda test: a + b * mean[test]

        return out_of_fold(folds, fit)

    def _learner(self, way: str, X: Any, encoded: Floats, z: Floats, judge: Judge) -> Any:
        """What ``out_of_fold`` calls: rows to learn from -> (rows to judge -> their logits)."""

        def fit(train: Any) -> Any:
            a, b = platt(z[train], judge.y[train], None if judge.weight is None else judge.weight[train])
            if way == "global":
                return lambda test: a + b * z[test]
            regions = self._fit_regions(way, X, encoded, z, judge, train, (a, b))
            return lambda test: regions.logits(take_rows(X, test), encoded[test].T, z[test])

        return fit

    def _fit_forest(self, encoded: Floats, z: Floats, judge: Judge, shuffles: list[Folds], shrunk: bool) -> Forest:
        columns = self.encoder_.columns
        return fit_forest(
            encoded,
            z,
            self.overall_[0] + self.overall_[1] * z,
            judge,
            sizes={i: len(columns[i].values or ()) for i in self.encoder_.category_positions},
            shuffles=shuffles,
            thorough=self.quality == "high",
            shrunk=shrunk,
            seed=0 if self.random_state is None else self.random_state,
            threads=self.threads,
        )

    def _new_partitioner(self, way: str) -> Any:
        from sklearn.base import clone

        if way == "tree":
            return TreePartitioner(random_state=0 if self.random_state is None else self.random_state)
        if way == "groups":
            return GroupPartitioner()
        if hasattr(self.partitioner, "fit"):
            return clone(self.partitioner)
        return CallablePartitioner(self.partitioner)

    def _fit_regions(
        self, way: str, X: Any, encoded: Floats, z: Floats, judge: Judge, rows: Any, overall: tuple[float, float]
    ) -> Regions:
        """Regions learnt from some rows; ``overall`` is the global Platt fit on the same."""
        every = rows.size == z.size
        return fit_regions(
            self._new_partitioner(way),
            X if every else take_rows(X, rows),
            encoded if every else encoded[rows],
            z[rows],
            judge.y[rows],
            None if judge.weight is None else judge.weight[rows],
            self.encoder_,
            overall,
            calibrator=self.calibrator,
            shrinkage=self.shrinkage,
            monotone=self.monotone,
        )

    def _summary(
        self,
        chosen: str,
        reason: str,
        oof: dict[str, Floats],
        z: Floats,
        judge: Judge,
        rows: NDArray[np.bool_],
        forest: Forest | None,
    ) -> Selection:
        """Figures of every way on the rows that all of them have an out-of-fold logit for."""
        y, weight = judge.y, judge.weight
        ranked = not self.soft_labels and y.size > 0 and y.min() < y.max()  # there is no AUC of soft labels
        base_auc = roc_auc(y, z, weight) if ranked else float("nan")
        reference = oof.get("global", self.overall_[0] + self.overall_[1] * z)
        choices = []
        for way, logits in oof.items() if y.size else ():
            gain, error = judge.gain(reference, logits)
            loss = float(np.average(logistic_loss(y, logits), weights=weight))
            same_ranks = way in ("identity", "global") or not ranked  # one increasing map serves all rows
            choices.append(Choice(way, loss, base_auc if same_ranks else roc_auc(y, logits, weight), gain, error))
        lift = next((c.auc for c in choices if c.name == chosen), float("nan")) - base_auc
        if forest is None:
            return Selection(chosen, reason, tuple(choices), lift, None)
        alone = roc_auc(y, forest.features_only[rows], weight) - base_auc if ranked else None
        used = chosen == "forest"
        weights, trust = forest.weights if used else (), forest.trust if used else 0.0
        return Selection(chosen, reason, tuple(choices), lift, alone, forest.race, weights, trust)

    # -- prediction ------------------------------------------------------------------------------------------

    def decision_function(self, X: Any, *, scores: Any = None, logits: Any = None, groups: Any = None) -> Floats:
        """Calibrated log-odds of the second class, shape (n,)."""
        self._check_fitted()
        X = self._table(X, reset=False)
        if scores is not None or logits is not None:
            self._refuse_other_kind(scores, logits)
        table, z = self._split_score(X, scores, logits)
        z = validation.winsorise(z, self.clip)
        if self.way_ == "identity":
            return z + self.prior_shift_
        if self.way_ == "global":
            return self.overall_[0] + self.overall_[1] * z + self.prior_shift_
        if isinstance(self.model_, Forest):
            encoded = np.column_stack(self._read(table, None))
            total = self.model_.logits(encoded, z, self.overall_[0] + self.overall_[1] * z)
        elif isinstance(self.model_, Bag):
            total = self.model_.logits(self._read(table, self.model_.used), z)
        else:
            assert self.model_ is not None
            columns = self._read(table, self.model_.used)
            total = self.model_.logits(self._source(table, groups), columns, z)
        return total + self.prior_shift_

    def base_logits(self, X: Any, *, scores: Any = None, logits: Any = None) -> Floats:
        """The base model's logits as they are calibrated: from the scores, clipped."""
        self._check_fitted()
        if scores is not None or logits is not None:
            self._refuse_other_kind(scores, logits)
        return validation.winsorise(self._split_score(self._table(X, reset=False), scores, logits)[1], self.clip)

    def predict_proba(self, X: Any, *, scores: Any = None, logits: Any = None, groups: Any = None) -> Floats:
        """Calibrated probabilities, shape (n, 2), in the order of ``classes_``."""
        p = sigmoid(self.decision_function(X, scores=scores, logits=logits, groups=groups))
        both = np.empty((p.size, 2))
        both[:, 1] = p
        np.subtract(1.0, p, out=both[:, 0])
        return both

    def predict(self, X: Any, *, scores: Any = None, logits: Any = None, groups: Any = None) -> NDArray[Any]:
        """The likelier class of each row."""
        positive = self.decision_function(X, scores=scores, logits=logits, groups=groups) > 0
        return np.asarray(self.classes_[positive.astype(int)])

    def apply(self, X: Any, *, groups: Any = None) -> Leaves:
        """Region of each row, shape (n,): the leaf, -1 for an unseen group, 0 where one map serves all rows."""
        self._check_fitted()
        X = self._table(X, reset=False)
        if not isinstance(self.model_, Regions):
            if self.model_ is not None:
                raise DataError(
                    f"the chosen way is {self.way_!r}, which has no single partition; fit with partitioner='tree'"
                )
            return np.zeros(len(X), dtype=np.intp)
        table = X if self.score_column is None else self._without_score(X)
        columns = self._read(table, self.model_.used)
        return np.asarray(self.model_.partitioner.leaves(self._source(table, groups), columns))

    def unseen(self, X: Any) -> dict[str, int]:
        """Cells of each column used that fit never met: an unseen category, or nothing where nothing was missing.

        Such cells take the neutral branch of every split; ``decision_function`` warns of them.
        """
        self._check_fitted()
        X = self._table(X, reset=False)
        if self.model_ is None:
            return {}
        table = X if self.score_column is None else self._without_score(X)
        return self.encoder_.read(table, None if isinstance(self.model_, Forest) else self.model_.used)[1]

    def _read(self, table: Any, used: frozenset[int] | None) -> list[Any]:
        columns, unseen = self.encoder_.read(table, used)
        if unseen:
            cells = ", ".join(f"{name!r} {count}" for name, count in unseen.items())
            validation.warn(
                f"cells that were never met at fit, which take the neutral branch: {cells} of {len(table)} rows"
            )
        return columns

    def calibrate(self, logits: Any, leaf: Any) -> Floats:
        """Calibrated probability of the second class from base logits and region numbers, without the features."""
        self._check_fitted()
        z = validation.winsorise(validation.base_logits(None, logits, np.size(logits)), self.clip)
        if isinstance(self.model_, Regions):
            numbers = np.asarray(leaf)
            if (
                numbers.shape != z.shape
                or numbers.dtype.kind not in "iu"
                or numbers.max(initial=-1) >= self.model_.leaf_map.n_leaves
            ):
                raise DataError(f"leaf must hold one integer a row below {self.model_.leaf_map.n_leaves}, or -1")
            return sigmoid(self.model_.calibrate(z, numbers.astype(np.intp)) + self.prior_shift_)
        if self.model_ is not None:
            raise DataError(f"the chosen way is {self.way_!r}, which needs the features; use predict_proba")
        if self.way_ == "identity":
            return sigmoid(z + self.prior_shift_)
        return sigmoid(self.overall_[0] + self.overall_[1] * z + self.prior_shift_)

    def _without_score(self, X: Any) -> Any:
        return self._split_score(X, None, None)[0]

    def _refuse_other_kind(self, scores: Any, logits: Any) -> None:
        """Probabilities given as logits of a calibrator that was fitted on probabilities are a mistake."""
        if self.fitted_on_ == "probability" and scores is None and np.size(logits) >= FEW_LOGITS:
            values = validation.base_logits(None, logits, np.size(logits))
            if values.min() >= 0 and values.max() <= 1:
                raise DataError(
                    "the calibrator was fitted on scores=, and all logits given lie in [0, 1] as probabilities do; "
                    "pass them as scores="
                )

    def _check_fitted(self) -> None:
        if not hasattr(self, "selection_"):  # scikit-learn's own check gathers all tags, a tenth of a tree's prediction
            check_is_fitted(self, "selection_")

    def _source(self, table: Any, groups: Any) -> Any:
        if not self._needs_groups:
            return table
        if groups is None:
            raise DataError("the calibrator was fitted with groups=; pass groups= here too")
        return validation.row_groups(groups, len(table))


def _warn_if_seen(auc: float) -> None:
    """Rows the base model was trained on separate too well, and Platt then steepens instead of flattening."""
    if auc > 0.9995:
        validation.warn(
            f"the base scores rank the calibration rows almost perfectly (AUC {auc:.4f}); were these rows used to "
            "train the base model? Calibrate on rows it has not seen, or use HeterogeneousCalibratedClassifier"
        )
    elif auc < 0.45:
        validation.warn(f"the base scores rank worse than chance (AUC {auc:.3f}); is their sign right?")
