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

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from hetcal import validation
from hetcal.bag import Bag
from hetcal.calibrators import CALIBRATORS, platt
from hetcal.contest import FEWEST_ROWS, Contest, Model
from hetcal.errors import DataError
from hetcal.features import FeatureEncoder
from hetcal.forest import Forest
from hetcal.leafwise import Leaves
from hetcal.links import Floats, logit, sigmoid
from hetcal.partition import GroupPartitioner
from hetcal.regions import Regions
from hetcal.rows import clusters_of, effective_rows, worth
from hetcal.scorer import LARGEST
from hetcal.selection import Judge, Selection
from hetcal.tables import column_of, is_table, keys_of, take_columns, take_rows
from hetcal.theory import roc_auc

__all__ = ["HeterogeneousCalibrator"]

FEW_LOGITS = 10  # so few may all lie in [0, 1] by chance
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
    encoder_: FeatureEncoder
    overall_: tuple[float, float]
    n_effective_: float
    model_: Model
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
        contest = Contest(
            settings=self,
            table=groups if self._needs_groups else table,
            encoded=encoded,
            z=z,
            judge=Judge(target, weight, self._clusters),
            groups=groups,
            kept=kept,
        )
        self.way_, self.model_, self.selection_ = contest.result()
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
        for name in ("clip", "prior_correction", "shrinkage"):
            value = getattr(self, name)
            if isinstance(value, int) and abs(value) > LARGEST:
                raise ValueError(f"{name} is an integer of {value.bit_length()} bits; use a number below {LARGEST:g}")
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
