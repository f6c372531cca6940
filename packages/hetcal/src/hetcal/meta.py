"""``HeterogeneousCalibratedClassifier``: fit a model and its calibrator on the same rows by cross-fitting.

K copies of the model are fitted, each on the rows outside its fold; their logits on their own fold are honest for
every row, and the calibrator is fitted on all of them at once. Served are either the mean logit of the K copies
(``ensemble=True``) or one model fitted on all rows (``ensemble=False``), whose logits are on a slightly different
scale from those of the copies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from hetcal.errors import DataError
from hetcal.estimator import HeterogeneousCalibrator
from hetcal.folds import Folds, make_folds
from hetcal.links import Floats, logit
from hetcal.rows import clusters_of
from hetcal.tables import cells_of, column_of, is_table, keys_of, take_columns, take_rows
from hetcal.validation import row_groups, warn

__all__ = ["HeterogeneousCalibratedClassifier", "logits_of"]


def logits_of(model: Any, X: Any) -> Floats:
    """Log-odds of the second class: ``decision_function``, else ``predict_proba``, else the callable itself."""
    if hasattr(model, "decision_function"):
        values = np.asarray(model.decision_function(X), dtype=np.float64)
    elif hasattr(model, "predict_proba"):
        values = logit(np.asarray(model.predict_proba(X), dtype=np.float64)[:, 1])
    elif callable(model):
        values = model(X)
        values = values.detach().cpu().numpy() if hasattr(values, "detach") else values  # torch, not imported here
        values = np.asarray(values, dtype=np.float64)
    else:
        raise DataError(f"{type(model).__name__} has no decision_function, no predict_proba and is not callable")
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.shape != (_rows(X),):
        raise DataError(f"the model gave logits of shape {values.shape} for {_rows(X)} rows; one a row is needed")
    return values


def _rows(X: Any) -> int:
    return int(X.shape[0]) if hasattr(X, "shape") else len(X)


class HeterogeneousCalibratedClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """A binary classifier with heterogeneous calibration: a drop-in for ``CalibratedClassifierCV``.

    p(x) = h(x, z(x)), z the model's logit and h a ``HeterogeneousCalibrator``.

    Parameters
    ----------
    estimator : classifier or callable, optional
        Anything with ``decision_function`` or ``predict_proba``, or (with cv="prefit") a function X -> logits, torch
        modules included. Logistic regression by default.
    calibrator : HeterogeneousCalibrator, optional
    cv : int, splitter, iterable of (train, test) rows, or "prefit"; default=5
        Every row must be tested once. Rows of one group and exact copies stay in one fold.
        "prefit", or an estimator wrapped in ``FrozenEstimator``: the model is fitted, fit calibrates alone.
    ensemble : bool, default=True
        Serve the mean logit of the K copies, or one model fitted on all rows.
    partition_features : sequence of names or positions, optional
        Columns of X that the calibrator may use; all by default.
    random_state : int, default=0
        Of the folds.

    Attributes
    ----------
    classes_ : array of shape (2,)
    estimators_ : list
        The fitted copies, or the one model.
    calibrator_ : HeterogeneousCalibrator

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.linear_model import LogisticRegression
    >>> from hetcal import HeterogeneousCalibratedClassifier
    >>> X, y = make_classification(2000, n_clusters_per_class=4, n_informative=5, random_state=0)
    >>> model = HeterogeneousCalibratedClassifier(LogisticRegression()).fit(X, y)
    >>> model.predict_proba(X[:3]).shape, len(model.estimators_)
    ((3, 2), 5)
    """

    classes_: NDArray[Any]

    def __init__(
        self,
        estimator: Any = None,
        calibrator: Any = None,
        cv: Any = 5,
        ensemble: bool = True,
        partition_features: Any = None,
        random_state: int | None = 0,
    ) -> None:
        self.estimator = estimator
        self.calibrator = calibrator
        self.cv = cv
        self.ensemble = ensemble
        self.partition_features = partition_features
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import get_tags

        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        inner = self._base()
        if isinstance(inner, BaseEstimator):
            tags.input_tags.allow_nan = get_tags(inner).input_tags.allow_nan
        return tags

    def _base(self) -> Any:
        if self.estimator is not None:
            return self.estimator
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression()

    def get_metadata_routing(self) -> Any:
        """Where ``sample_weight``, ``groups`` and other metadata go: this estimator, the model and the splitter."""
        from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping

        mapping = MethodMapping().add(caller="fit", callee="fit")
        router = MetadataRouter(owner=self).add_self_request(self).add(estimator=self._base(), method_mapping=mapping)
        if hasattr(self.cv, "get_metadata_routing"):
            router.add(splitter=self.cv, method_mapping=MethodMapping().add(caller="fit", callee="split"))
        return router

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None, **fit_params: Any
    ) -> HeterogeneousCalibratedClassifier:
        """Cross-fit the model, then fit the calibrator on the out-of-fold logits.

        Parameters
        ----------
        X : table or array of shape (n, d)
        y : array of shape (n,)
        sample_weight : array of shape (n,), optional
            Passed to the model where its fit takes weights, in a pipeline to the last step, and to the calibrator.
        groups : array of shape (n,), optional
            Rows of one group stay in one fold, here and in the calibrator.
        **fit_params
            Passed to the model's fit.

        Returns
        -------
        self

        Raises
        ------
        DataError
        """
        from sklearn.frozen import FrozenEstimator
        from sklearn.utils.multiclass import check_classification_targets
        from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data

        base = self._base()
        prefit = (isinstance(self.cv, str) and self.cv == "prefit") or isinstance(base, FrozenEstimator)
        if isinstance(self.cv, str) and self.cv != "prefit":
            raise ValueError(f"cv={self.cv!r}; use a number of folds, a splitter, rows, or 'prefit'")
        if is_table(X):
            self._read_names(X, reset=True)
        else:
            X = validate_data(self, X, accept_sparse=False, dtype=None, ensure_all_finite=False)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if self.classes_.size != 2:
            count = self.classes_.size
            raise DataError(
                "Classifier can't train when only one class is present: y has one class only"
                if count == 1
                else f"Only binary classification is supported. The type of the target is multiclass ({count} classes)"
            )
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, np.zeros((len(y), 1)))
        groups = row_groups(groups, len(y))
        params = dict(fit_params)
        if prefit:
            self.estimators_ = [base]
            z = logits_of(base, X)
        else:
            if weight is not None:
                name = _weight_parameter(base)
                if name is None:
                    warn(
                        f"{type(base).__name__} takes no sample_weight; only the calibrator is fitted with the weights"
                    )
                else:
                    params[name] = weight
            z = self._cross_fit(base, X, y, params, groups)
        calibrator = HeterogeneousCalibrator() if self.calibrator is None else clone(self.calibrator)
        self.calibrator_ = calibrator.fit(self._features(X), y, logits=z, sample_weight=weight, groups=groups)
        return self

    def _cross_fit(self, base: Any, X: Any, y: NDArray[Any], params: dict[str, Any], groups: Any) -> Floats:
        folds = self._folds(X, y, groups)
        total = np.zeros(len(y))
        copies = []
        for train, test in folds.pairs:
            if np.unique(y[train]).size < 2:
                raise DataError(
                    f"a training fold holds one class only; y has {np.bincount(np.unique(y, return_inverse=True)[1])} "
                    "rows per class: use fewer folds or more rows"
                )
            parts = {name: _part(value, train, len(y)) for name, value in params.items()}
            copy = clone(base).fit(take_rows(X, train), y[train], **parts)
            total[test] = logits_of(copy, take_rows(X, test))
            copies.append(copy)
        self.estimators_ = copies if self.ensemble else [clone(base).fit(X, y, **params)]
        return total

    def _folds(self, X: Any, y: NDArray[Any], groups: Any) -> Folds:
        label = (y == self.classes_[1]).astype(np.float64)
        cv = self.cv
        clusters = clusters_of(groups, _comparable(X), np.zeros(len(y)), label)
        if isinstance(cv, int | np.integer):
            smallest = int(min(label.sum(), (1 - label).sum()))
            if smallest < 2:
                raise DataError(
                    f"the rarer class has {smallest} row; cross-fitting needs at least 2 (y has {len(y)} rows)"
                )
            if smallest < cv:
                warn(f"cv={cv} folds, but the rarer class has {smallest} rows; using {smallest} folds")
            cv = min(int(cv), smallest)
            if clusters is not None and groups is None and np.unique(clusters).size < cv:
                clusters = None  # so few distinct rows are no copies but all there is
        folds = make_folds(cv, X, label, groups=groups, clusters=clusters, seed=self.random_state)
        if not folds.covered.all():
            missing = int((~folds.covered).sum())
            raise DataError(f"cv leaves {missing} rows in no test fold; every row needs an honest logit")
        return folds

    def _features(self, X: Any) -> Any:
        if self.partition_features is None:
            return X
        chosen = list(self.partition_features)
        if is_table(X):
            missing = [c for c in chosen if c not in keys_of(X)]
            if missing:
                raise DataError(f"X lacks the partition_features {missing}")
        return take_columns(X, chosen)

    def _read_names(self, X: Any, *, reset: bool) -> None:
        """scikit-learn's bookkeeping of columns, for the kinds of tables that it does not read itself too."""
        from sklearn.utils.validation import validate_data

        if hasattr(X, "iloc"):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return
        names = np.array([str(key) for key in keys_of(X)], dtype=object)
        if reset:
            self.n_features_in_, self.feature_names_in_ = names.size, names
        elif list(names) != list(getattr(self, "feature_names_in_", names)):
            raise DataError(f"X has the columns {list(names)}, but fit saw {list(self.feature_names_in_)}")

    def _checked(self, X: Any) -> Any:
        from sklearn.utils.validation import validate_data

        check_is_fitted(self, "calibrator_")
        if is_table(X):
            self._read_names(X, reset=False)
            return X
        return validate_data(self, X, reset=False, dtype=None, ensure_all_finite=False)

    def base_logits(self, X: Any) -> Floats:
        """Logits of the model before calibration: the mean of the copies."""
        X = self._checked(X)
        return np.asarray(np.mean([logits_of(model, X) for model in self.estimators_], axis=0))

    def decision_function(self, X: Any) -> Floats:
        """Calibrated log-odds of the second class."""
        z = self.base_logits(X)
        return self.calibrator_.decision_function(self._features(self._checked(X)), logits=z)

    def predict_proba(self, X: Any) -> Floats:
        """Calibrated probabilities, shape (n, 2), in the order of ``classes_``."""
        z = self.base_logits(X)
        return self.calibrator_.predict_proba(self._features(self._checked(X)), logits=z)

    def predict(self, X: Any) -> NDArray[Any]:
        """The likelier class of each row."""
        positive = self.decision_function(X) > 0
        return np.asarray(self.classes_[positive.astype(int)])


def _weight_parameter(model: Any) -> str | None:
    """The name under which a model's fit takes the weights of rows; for a pipeline that of its last step."""
    from sklearn import get_config

    if has_fit_parameter(model, "sample_weight"):
        return "sample_weight"
    if hasattr(model, "steps"):
        if get_config()["enable_metadata_routing"]:
            return "sample_weight"  # which the pipeline passes on as its steps ask for it
        name, last = model.steps[-1]
        inner = None if isinstance(last, str) or last is None else _weight_parameter(last)
        return None if inner is None else f"{name}__{inner}"
    if hasattr(model, "param_distributions") or hasattr(model, "param_grid"):  # a search passes all on to its model
        return _weight_parameter(model.estimator)
    return None


def _comparable(X: Any) -> Floats:
    """X as numbers in which equal rows are equal; text as codes."""
    keys = keys_of(X) if is_table(X) else range(np.shape(X)[1])
    columns = []
    for key in keys:
        column = column_of(X, key)
        try:
            cells = cells_of(str(key), column)
        except DataError:  # a model may read what a calibrator does not
            cells = cells_of(str(key), np.array([str(value) for value in column], dtype=object), category=True)
        columns.append(np.asarray(cells.codes if cells.numbers is None else cells.numbers, dtype=np.float64))
    return np.stack(columns, axis=1) if columns else np.empty((_rows(X), 0))


def _part(value: Any, rows: Any, total: int) -> Any:
    """A fit parameter of one entry a row is cut to the fold; anything else is passed on whole."""
    if callable(value) or np.ndim(value) == 0 or len(value) != total:
        return value
    return value.iloc[rows] if hasattr(value, "iloc") else np.asarray(value)[rows]
