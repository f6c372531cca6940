"""Real requests from the Open Bandit sample: scores from affinities and click rates, groups from item features."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["open_bandit"]


def open_bandit(
    requests: int = 2000, campaign: Literal["all", "men", "women"] = "all"
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores and item categories of logged impressions.

    The score of item i in an impression is its smoothed click rate in the log, (clicks_i + 100 r) / (shown_i + 100)
    with r the overall rate, plus the logged affinity of the user to it. Impressions with an affinity come first.

    Parameters
    ----------
    requests : int
        How many impressions, at most those logged (10 000).
    campaign : {"all", "men", "women"}
        80, 34 or 46 items.

    Returns
    -------
    scores : array of float64, shape (requests, items)
    categories : array of int64, shape (items,)
        Item feature 3 as numbers.

    Raises
    ------
    papershelf_core.datasets.DatasetUnavailable
        Without the file and a connection.
    """
    from papershelf_core import datasets

    log = datasets.load("obd", policy="random", campaign=campaign)
    items = log.affinity.shape[1]
    shown = np.bincount(log.item, minlength=items)
    clicks = np.bincount(log.item, weights=log.click, minlength=items)
    rate = float(log.click.mean())
    click_rate = (clicks + 100.0 * rate) / (shown + 100.0)
    first = np.argsort(~(log.affinity > 0).any(axis=1), kind="stable")[:requests]
    scores = click_rate[None, :] + log.affinity[first]
    _, categories = np.unique(log.items["item_feature_3"].astype(str), return_inverse=True)
    return np.ascontiguousarray(scores), categories.astype(np.int64)
