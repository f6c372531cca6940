"""Read data sets into typed tables, logs and texts. Tables need the extra ``papershelf-core[tables]``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from papershelf_core.datasets.catalogue import DatasetInfo, info
from papershelf_core.datasets.store import path

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BanditLog", "Dataset", "ShortVideoFeatures", "Text", "load"]

Split = Literal["train", "test", "all"]
TableName = Literal["adult", "bank", "credit", "flights", "higgs", "ltr", "mnist"]


@dataclass(frozen=True)
class Dataset:
    """A supervised data set.

    Attributes
    ----------
    X : DataFrame of shape (n, p), or ndarray of images
    y : ndarray of shape (n,)
        Labels: 0 or 1, a digit for images, a relevance grade for rankings.
    feature_names : tuple of str
    categorical : tuple of str
        Columns of dtype ``category``; every split has the same categories.
    info : DatasetInfo
    groups : ndarray of shape (n,), optional
        Query of each row, for rankings.
    """

    X: Any
    y: NDArray[np.int64]
    feature_names: tuple[str, ...]
    categorical: tuple[str, ...]
    info: DatasetInfo
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class BanditLog:
    """Logged impressions of one campaign and one logging policy.

    Attributes
    ----------
    item, position, click : ndarray of int64, shape (n,)
        Item shown, its slot (0 is the first), whether it was clicked.
    propensity : ndarray of shape (n,)
        Probability with which the logging policy showed that item in that slot.
    timestamp : ndarray of datetime64[us], shape (n,), UTC
    affinity : ndarray of shape (n, items)
        Past affinity of the user to each item.
    users : DataFrame of shape (n, 4)
        Hashed user features.
    items : DataFrame of shape (items, 4)
        One numeric and three hashed item features, by item number.
    info : DatasetInfo
    """

    item: NDArray[np.int64]
    position: NDArray[np.int64]
    click: NDArray[np.int64]
    propensity: NDArray[np.float64]
    timestamp: NDArray[np.datetime64]
    affinity: NDArray[np.float64]
    users: "pd.DataFrame"
    items: "pd.DataFrame"
    info: DatasetInfo


@dataclass(frozen=True)
class ShortVideoFeatures:
    """User and video features of a short-video service."""

    users: "pd.DataFrame"
    videos: "pd.DataFrame"
    info: DatasetInfo


@dataclass(frozen=True)
class Text:
    """Running text of one split."""

    text: str
    info: DatasetInfo


@overload
def load(name: TableName, *, split: Split = ...) -> Dataset: ...
@overload
def load(name: Literal["wikitext2"], *, split: Literal["valid", "test"]) -> Text: ...
@overload
def load(
    name: Literal["obd"],
    *,
    policy: Literal["random", "bts"] = ...,
    campaign: Literal["all", "men", "women"] = ...,
) -> BanditLog: ...
@overload
def load(name: Literal["kuairand"]) -> ShortVideoFeatures: ...
def load(name: str, **options: Any) -> Dataset | Text | BanditLog | ShortVideoFeatures:
    """Load a data set of the catalogue.

    Parameters
    ----------
    name : str
        ``adult``, ``bank``, ``credit``, ``flights``, ``higgs``, ``ltr``, ``mnist``, ``wikitext2``, ``obd`` or
        ``kuairand``. Tables of physics have no loader: read them through ``datasets.path``.
    split : {"train", "test", "all"}
        For sets that are published in two parts; ``all`` by default. ``wikitext2`` has ``valid`` and ``test``.
    policy : {"random", "bts"}
        Logging policy of ``obd``; ``random`` by default.
    campaign : {"all", "men", "women"}
        Campaign of ``obd``; ``all`` by default.

    Returns
    -------
    Dataset, Text, BanditLog or ShortVideoFeatures

    Raises
    ------
    ValueError
        If the name has no loader, or an option is not one of those above.
    DatasetUnavailable
        As ``datasets.path``.
    ModuleNotFoundError
        If a table is asked for without the extra ``tables``.

    Examples
    --------
    >>> load("adlut")
    Traceback (most recent call last):
    ...
    ValueError: name='adlut' is not in the catalogue; did you mean adult?
    """
    described = info(name)
    loader = _LOADERS.get(name)
    if loader is None:
        raise ValueError(f"name={name!r} has no loader; read its files through datasets.path({name!r}, file)")
    return loader(described, **_checked(name, options))


_OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "adult": {"split": ("all", "train", "test")},
    "bank": {"split": ("all",)},
    "credit": {"split": ("all",)},
    "flights": {"split": ("all",)},
    "higgs": {"split": ("all", "train", "test")},
    "kuairand": {},
    "ltr": {"split": ("all", "train", "test")},
    "mnist": {"split": ("all", "train", "test")},
    "obd": {"policy": ("random", "bts"), "campaign": ("all", "men", "women")},
    "wikitext2": {"split": ("valid", "test")},
}


def _checked(name: str, options: dict[str, Any]) -> dict[str, str]:
    allowed = _OPTIONS[name]
    for option, value in options.items():
        if option not in allowed:
            raise ValueError(f"{option} is no option of {name!r}; it takes {', '.join(allowed) or 'none'}")
        if value not in allowed[option]:
            raise ValueError(f"{option}={value!r} of {name!r} must be one of {', '.join(allowed[option])}")
    if name == "wikitext2" and "split" not in options:
        raise ValueError("split of 'wikitext2' must be given: valid or test")
    return {option: options.get(option, values[0]) for option, values in allowed.items()}


def _pandas() -> Any:
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "this data set is read as a table; install the extra: pip install 'papershelf-core[tables]'"
        ) from error
    return pandas


def _parts(split: str, train: str, test: str) -> list[str]:
    return {"train": [train], "test": [test], "all": [train, test]}[split]


def _table(described: DatasetInfo, frame: Any, y: Any) -> Dataset:
    """Turn text columns into categories and wrap the frame up."""
    categorical = tuple(column for column in frame if not _pandas().api.types.is_numeric_dtype(frame[column]))
    frame = frame.reset_index(drop=True).astype(dict.fromkeys(categorical, "category"))
    return Dataset(frame, np.asarray(y, np.int64), tuple(frame.columns), categorical, described)


_ADULT = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "native_country",
    "income",
]


def _adult(described: DatasetInfo, split: str) -> Dataset:
    pandas = _pandas()
    frames = {
        part: pandas.read_csv(path("adult", f"adult-{part}.csv"), names=_ADULT, skipinitialspace=True, na_values="?")
        for part in ("train", "test")
    }
    whole = pandas.concat(frames.values(), ignore_index=True)
    income = whole.pop("income").str.rstrip(".")
    dataset = _table(described, whole, income == ">50K")
    cut = len(frames["train"])
    rows = {"all": slice(None), "train": slice(None, cut), "test": slice(cut, None)}[split]
    return Dataset(
        dataset.X.iloc[rows].reset_index(drop=True),
        dataset.y[rows],
        dataset.feature_names,
        dataset.categorical,
        described,
    )


def _bank(described: DatasetInfo, split: str) -> Dataset:
    frame = _pandas().read_csv(path("bank", "bank-full.csv"))
    return _table(described, frame, frame.pop("y") == "yes")


def _credit(described: DatasetInfo, split: str) -> Dataset:
    frame = _pandas().read_csv(path("credit", "UCI_Credit_Card.csv")).drop(columns="ID")
    return _table(described, frame, frame.pop("default.payment.next.month"))


_FLIGHTS = ["month", "day", "hour", "minute", "sched_arr_time", "carrier", "origin", "dest", "distance"]


def _flights(described: DatasetInfo, split: str) -> Dataset:
    """Features that are known before departure; rows whose arrival was recorded."""
    frame = _pandas().read_parquet(path("flights", "nycflights13.parquet"), columns=[*_FLIGHTS, "arr_delay"])
    frame = frame[frame["arr_delay"].notna()]
    return _table(described, frame[_FLIGHTS], frame["arr_delay"] > 15)


_HIGGS = (
    "lepton_pt lepton_eta lepton_phi missing_energy missing_energy_phi "
    + " ".join(f"jet{jet}_{of}" for jet in (1, 2, 3, 4) for of in ("pt", "eta", "phi", "btag"))
    + " m_jj m_jjj m_lv m_jlv m_bb m_wbb m_wwbb"
).split()


def _higgs(described: DatasetInfo, split: str) -> Dataset:
    pandas = _pandas()
    frames = [
        pandas.read_csv(path("higgs", file), sep="\t", names=["label", *_HIGGS])
        for file in _parts(split, "binary.train", "binary.test")
    ]
    frame = pandas.concat(frames, ignore_index=True)
    return _table(described, frame, frame.pop("label"))


_LTR_FEATURES = 300


def _ltr(described: DatasetInfo, split: str) -> Dataset:
    """Sparse ``grade index:value ...`` rows; an index that is not there is 0."""
    grades: list[int] = []
    rows: list[NDArray[np.float64]] = []
    sizes: list[int] = []
    for file in _parts(split, "rank.train", "rank.test"):
        sizes += [int(line) for line in path("ltr", f"{file}.query").read_text().split()]
        for line in path("ltr", file).read_text().splitlines():
            grade, *cells = line.split()
            row = np.zeros(_LTR_FEATURES)
            for cell in cells:
                index, value = cell.split(":")
                row[int(index) - 1] = float(value)
            grades.append(int(grade))
            rows.append(row)
    names = tuple(f"feature_{index}" for index in range(1, _LTR_FEATURES + 1))
    frame = _pandas().DataFrame(np.array(rows), columns=list(names))
    query = np.repeat(np.arange(len(sizes)), sizes)
    return Dataset(frame, np.array(grades, np.int64), names, (), described, query)


def _mnist(described: DatasetInfo, split: str) -> Dataset:
    images, labels = [], []
    for file in _parts(split, "mnist-train.npz", "mnist-test.npz"):
        with np.load(path("mnist", file), allow_pickle=False) as arrays:
            images.append(arrays["images"])
            labels.append(arrays["labels"])
    return Dataset(np.concatenate(images), np.concatenate(labels).astype(np.int64), (), (), described)


def _wikitext2(described: DatasetInfo, split: str) -> Text:
    return Text(path("wikitext2", f"{split}.txt").read_text(encoding="utf-8"), described)


def _obd(described: DatasetInfo, policy: str, campaign: str) -> BanditLog:
    pandas = _pandas()
    log = pandas.read_csv(path("obd", f"{policy}-{campaign}.csv"), index_col=0)
    items = (
        pandas.read_csv(path("obd", f"{policy}-{campaign}-items.csv"), index_col=0).set_index("item_id").sort_index()
    )
    stamps = pandas.to_datetime(log["timestamp"], format="ISO8601", utc=True).dt.tz_localize(None)
    return BanditLog(
        item=log["item_id"].to_numpy(np.int64),
        position=log["position"].to_numpy(np.int64) - 1,
        click=log["click"].to_numpy(np.int64),
        propensity=log["propensity_score"].to_numpy(np.float64),
        timestamp=stamps.to_numpy("datetime64[us]"),
        affinity=log.filter(regex="^user-item_affinity_").to_numpy(np.float64),
        users=log.filter(regex="^user_feature_"),
        items=items,
        info=described,
    )


def _kuairand(described: DatasetInfo) -> ShortVideoFeatures:
    read = _pandas().read_csv
    users = read(path("kuairand", "user_features_pure.csv"))
    videos = read(path("kuairand", "video_features_basic_pure.csv"))
    return ShortVideoFeatures(users, videos, described)


_LOADERS: dict[str, Callable[..., Dataset | Text | BanditLog | ShortVideoFeatures]] = {
    "adult": _adult,
    "bank": _bank,
    "credit": _credit,
    "flights": _flights,
    "higgs": _higgs,
    "kuairand": _kuairand,
    "ltr": _ltr,
    "mnist": _mnist,
    "obd": _obd,
    "wikitext2": _wikitext2,
}
