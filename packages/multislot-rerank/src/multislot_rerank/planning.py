"""How many requests to log before a replay says something.

Uniform logging of K of N candidates matches a given slate with probability c (see ``replay``), so that n requests bring
T ~ Binomial(n, c) matches. A standard error e of a reward of standard deviation d needs T = (d / e)^2 matches; to have
them in the deepest slot with 95 % certainty, n is the smallest with P(Binomial(n, c) >= T) >= .95.
"""

import math
from dataclasses import dataclass

import numpy as np

from multislot_rerank.admission import number, whole
from multislot_rerank.errors import InvalidInput
from multislot_rerank.slate_replay import Interaction, acceptance

__all__ = ["LoggingPlan", "plan_logging"]


@dataclass(frozen=True)
class LoggingPlan:
    """What to log for one interaction: probability of a match, matches needed, requests to log."""

    interaction: Interaction
    acceptance: float
    matches: int
    requests: int


def plan_logging(
    candidates: int, slots: int, *, standard_error: float, reward_deviation: float
) -> tuple[LoggingPlan, ...]:
    """Plan a uniform log for each interaction, most demanding first.

    Parameters
    ----------
    candidates : int
        Candidate items of a request, N.
    slots : int
        Slots of a slate, K <= N.
    standard_error : float
        Wanted standard error of a slot's mean reward, in the reward's unit.
    reward_deviation : float
        Standard deviation of a slot's reward; sqrt(p(1-p)) for clicks at rate p.

    Returns
    -------
    tuple of LoggingPlan

    Raises
    ------
    InvalidInput
        If ``slots > candidates`` or a number is not positive.

    Examples
    --------
    >>> [plan.requests for plan in plan_logging(10, 3, standard_error=0.02, reward_deviation=0.2)]
    [84848, 84848, 14134, 1169]
    """
    if whole("slots", slots, 0) < 1 or whole("candidates", candidates, 0) < slots:
        raise InvalidInput(f"slots={slots} must be between 1 and candidates={candidates}")
    for name, value in (("standard_error", standard_error), ("reward_deviation", reward_deviation)):
        if number(name, value) <= 0:
            raise InvalidInput(f"{name}={value} must be positive")
    ratio = reward_deviation / standard_error
    if ratio > 1e8:
        raise InvalidInput(f"standard_error={standard_error} is too small for reward_deviation={reward_deviation}")
    needed = math.ceil(ratio**2)
    kinds = (Interaction.FULL, Interaction.CASCADE, Interaction.SET, Interaction.INDEPENDENT)
    plans = []
    for kind in kinds:
        probability = float(acceptance(np.array([candidates]), slots, kind)[0, -1])
        if probability < 1e-280:
            raise InvalidInput(f"slots={slots} of candidates={candidates} never match; plan for fewer slots")
        plans.append(LoggingPlan(kind, probability, needed, _requests(needed, probability)))
    return tuple(plans)


def _requests(matches: int, probability: float) -> int:
    """Smallest n, by the normal approximation of the binomial, with P(T >= matches) >= .95."""
    z = 1.6448536269514722  # 95 % quantile of the normal distribution
    spread = z * math.sqrt(1 - probability)
    root = (spread + math.sqrt(spread**2 + 4 * matches)) / 2
    return math.ceil(root**2 / probability)
