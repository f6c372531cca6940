"""The Open Bandit small sample as a log of one-slot slates.

The sample holds single impressions (item, position, click, propensity), not whole slates: it can judge a policy slot by
slot, nothing more. Saito et al., arXiv:2008.07146.
"""

from typing import Literal

import numpy as np

from multislot_rerank.log import SlateLog, TargetPolicy

__all__ = ["open_bandit_log", "uniform_target"]


def open_bandit_log(
    policy: Literal["random", "bts"] = "random", campaign: Literal["all", "men", "women"] = "all"
) -> SlateLog:
    """Load one campaign as logged by one policy; reward is the click.

    Parameters
    ----------
    policy : {"random", "bts"}
        Uniform logging, or Bernoulli Thompson sampling with its recorded propensities.
    campaign : {"all", "men", "women"}
        80, 34 or 46 items.

    Returns
    -------
    SlateLog
        n = 10 000 records of K = 1 slot.

    Raises
    ------
    papershelf_core.datasets.DatasetUnavailable
        If the sample is not here and cannot be downloaded.
    """
    from papershelf_core import datasets

    data = datasets.load("obd", policy=policy, campaign=campaign)
    column = np.ones((len(data.item), 1))
    propensity = column * data.propensity[:, None]
    return SlateLog.from_propensities(
        data.item[:, None], data.click[:, None], propensity, len(data.items), propensity, ["click"]
    )


def uniform_target(log: SlateLog) -> TargetPolicy:
    """The policy that shows every candidate with equal probability in every slot."""
    left = log.candidates[:, None] - np.arange(log.slots)
    marginals = np.repeat(1.0 / log.candidates[:, None], log.slots, axis=1)
    return TargetPolicy.stochastic(log, 1.0 / left, marginals)
