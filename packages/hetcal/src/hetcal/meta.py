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
from hetcal.features import is_table
from hetcal.links import Floats, logit
from hetcal.validation import warn

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
        """Where ``sample_weight`` and other metadata go: this estimator, the model and the splitter."""
        from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping

        mapping = MethodMapping().add(caller="fit", callee="fit")
        return MetadataRouter(owner=self).add_self_request(self).add(estimator=self._base(), method_mapping=mapping)

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **fit_params: Any) -> HeterogeneousCalibratedClassifier:
        """Cross-fit the model, then fit the calibrator on the out-of-fold logits.

        Parameters
        ----------
        X : table or array of shape (n, d)
        y : array of shape (n,)
        sample_weight : array of shape (n,), optional
            Passed to the model where its fit takes weights, and to the calibrator.
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
            validate_data(self, X, skip_check_array=True)
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
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        params = dict(fit_params)
        if weight is not None and has_fit_parameter(base, "sample_weight"):
            params["sample_weight"] = weight
        if prefit:
            self.estimators_ = [base]
            z = logits_of(base, X)
        else:
            z = self._cross_fit(base, X, y, params)
        calibrator = HeterogeneousCalibrator() if self.calibrator is None else clone(self.calibrator)
        self.calibrator_ = calibrator.fit(self._features(X), y, logits=z, sample_weight=weight)
        return self

    def _cross_fit(self, base: Any, X: Any, y: NDArray[Any], params: dict[str, Any]) -> Floats:
        folds = self._folds(X, y)
        total, times = np.zeros(len(y)), np.zeros(len(y))
        copies = []
        for train, test in folds:
            if np.unique(y[train]).size < 2:
                raise DataError(
                    f"a training fold holds one class only; y has {np.bincount(np.unique(y, return_inverse=True)[1])} "
                    "rows per class: use fewer folds or more rows"
                )
            copy = clone(base).fit(_take(X, train), y[train], **{k: _part(v, train, len(y)) for k, v in params.items()})
            total[test] += logits_of(copy, _take(X, test))
            times[test] += 1
            copies.append(copy)
        if not (times > 0).all():
            raise DataError(
                f"cv leaves {int((times == 0).sum())} rows in no test fold; every row needs an honest logit"
            )
        self.estimators_ = copies if self.ensemble else [clone(base).fit(X, y, **params)]
        return total / times

    def _folds(self, X: Any, y: NDArray[Any]) -> list[tuple[Any, Any]]:
        from sklearn.model_selection import StratifiedKFold, check_cv

        if isinstance(self.cv, int | np.integer):
            smallest = int(np.unique(y, return_counts=True)[1].min())
            if smallest < 2:
                raise DataError(
                    f"the rarer class has {smallest} row; cross-fitting needs at least 2 (y has {len(y)} rows)"
                )
            if smallest < self.cv:
                warn(f"cv={self.cv} folds, but the rarer class has {smallest} rows; using {smallest} folds")
            splitter = StratifiedKFold(min(int(self.cv), smallest), shuffle=True, random_state=self.random_state)
            return list(splitter.split(np.zeros(len(y)), y))
        return list(check_cv(self.cv, y, classifier=True).split(X, y))

    def _features(self, X: Any) -> Any:
        if self.partition_features is None:
            return X
        chosen = list(self.partition_features)
        if is_table(X):
            missing = [c for c in chosen if c not in list(X.columns)]
            if missing:
                raise DataError(f"X lacks the partition_features {missing}")
            return X[chosen]
        return np.asarray(X)[:, chosen]

    def _checked(self, X: Any) -> Any:
        from sklearn.utils.validation import validate_data

        check_is_fitted(self, "calibrator_")
        if is_table(X):
            validate_data(self, X, reset=False, skip_check_array=True)
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


def _take(X: Any, rows: Any) -> Any:
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def _part(value: Any, rows: Any, total: int) -> Any:
    """A fit parameter of one entry a row is cut to the fold; anything else is passed on whole."""
    if callable(value) or np.ndim(value) == 0 or len(value) != total:
        return value
    return _take(value, rows) if hasattr(value, "iloc") else np.asarray(value)[rows]
