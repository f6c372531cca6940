"""Importance-weighted estimators of a slate policy's value, one per assumption on how slots interact.

    SIPS   w_ik = pi(s_i | x) / mu(s_i | x)                 any interaction
    RIPS   w_ik = pi(s_i,1:k | x) / mu(s_i,1:k | x)         cascade: only items above matter
    IIPS   w_ik = pi_k(s_ik | x) / mu_k(s_ik | x)           independent: only the slot's own item matters
    CDR    w_ik (r_ik - Q_ik) + w_i,k-1 E_{a~pi} Q_k(a)     cascade, with any model Q of the reward
    PI     w_i = 1_pi' G^+ 1_s, G = E_mu[1_s 1_s']          the slate's total reward is a sum over (slot, item)

For uniform logging of K of N items we found the closed form of the pseudo-inverse weight, with h the slots in which
target and log agree and o the items that they share:

    w = 1 + (N-1)(h - o/K) + [K < N] N(N-1) / ((N-K)K) (o - K^2/N).

References
----------
IIPS: Li et al., KDD 2018, arXiv:1804.10488. RIPS: McInerney et al., KDD 2020, arXiv:2007.12986. CDR: Kiyohara et al.,
WSDM 2022, arXiv:2202.01562. PI: Swaminathan et al., NeurIPS 2017, arXiv:1605.04812.
"""

import numpy as np
from numpy.typing import ArrayLike

from multislot_rerank.arrays import Floats, finite, plain_array
from multislot_rerank.errors import InvalidInput
from multislot_rerank.log import SlateLog, TargetPolicy, check_pair
from multislot_rerank.value import ValueEstimate, weighted_value

__all__ = ["cascade_dr", "iips", "pseudo_inverse", "pseudo_inverse_weights", "rips", "sips"]


def sips(log: SlateLog, target: TargetPolicy, *, self_normalized: bool = False) -> ValueEstimate:
    """Slate IPS: unbiased whatever the interaction; its variance grows with the number of slates.

    Parameters
    ----------
    log : SlateLog
    target : TargetPolicy
    self_normalized : bool
        Divide by the mean weight: a little bias, less variance.

    Returns
    -------
    ValueEstimate
    """
    check_pair(log, target)
    whole = target.prefixes[:, -1:] / log.prefixes[:, -1:]
    return _weighted("SIPS", np.broadcast_to(whole, log.slates.shape), log, self_normalized)


def rips(log: SlateLog, target: TargetPolicy, *, self_normalized: bool = False) -> ValueEstimate:
    """Reward-interaction IPS: weights of prefixes; unbiased under a cascade. Parameters as ``sips``."""
    check_pair(log, target)
    return _weighted("RIPS", target.prefixes / log.prefixes, log, self_normalized)


def iips(log: SlateLog, target: TargetPolicy, *, self_normalized: bool = False) -> ValueEstimate:
    """Independent IPS: weights of single slots; unbiased where slots do not interact. Parameters as ``sips``."""
    check_pair(log, target)
    return _weighted("IIPS", target.marginals / log.marginals, log, self_normalized)


def cascade_dr(log: SlateLog, target: TargetPolicy, q_logged: ArrayLike, q_target: ArrayLike) -> ValueEstimate:
    """Cascade doubly robust: RIPS with a reward model as control variate.

    Parameters
    ----------
    log : SlateLog
    target : TargetPolicy
    q_logged : array-like, shape (n, K) or (n, K, M)
        Model of the reward-to-go of each slot at the logged item.
    q_target : array-like, shape (n, K) or (n, K, M)
        The same model averaged over the target's choice for that slot, given the logged prefix above it.

    Returns
    -------
    ValueEstimate
        Unbiased under a cascade for any model, of low variance for a good one.
    """
    check_pair(log, target)
    logged = _model("q_logged", q_logged, log)
    expected = _model("q_target", q_target, log)
    weights = target.prefixes / log.prefixes
    before = np.concatenate([np.ones((len(log), 1)), weights[:, :-1]], axis=1)
    offset = before[:, :, None] * expected - weights[:, :, None] * logged
    return weighted_value("CDR", weights, log.rewards, log.objectives, normalize=False, offset=offset)


def pseudo_inverse(log: SlateLog, target: TargetPolicy, *, self_normalized: bool = False) -> ValueEstimate:
    """Pseudo-inverse estimator of a deterministic policy on a uniform log; parameters as ``sips``.

    Raises
    ------
    InvalidInput
        If the log is not uniform or the target not deterministic: the closed form holds there alone.
    """
    check_pair(log, target)
    if not log.is_uniform or target.slates is None:
        raise InvalidInput("the closed pseudo-inverse form needs a uniform log and a deterministic target; use rips")
    weights = pseudo_inverse_weights(log, target)
    return _weighted("PI", np.broadcast_to(weights[:, None], log.slates.shape), log, self_normalized)


def pseudo_inverse_weights(log: SlateLog, target: TargetPolicy) -> Floats:
    """1_pi' G^+ 1_s for uniform logging, shape (n,), in O(K) a record."""
    assert target.slates is not None
    slots = log.slots
    n = log.candidates.astype(np.float64)
    agree = (log.slates == target.slates).sum(axis=1)
    shared = (log.slates[:, :, None] == target.slates[:, None, :]).sum(axis=(1, 2))
    spare = np.where(n > slots, n - slots, np.inf)
    weights: Floats = 1 + (n - 1) * (agree - shared / slots) + n * (n - 1) / (spare * slots) * (shared - slots**2 / n)
    return weights


def _weighted(name: str, weights: Floats, log: SlateLog, self_normalized: bool) -> ValueEstimate:
    title = f"SN-{name}" if self_normalized else name
    return weighted_value(title, weights, log.rewards, log.objectives, normalize=self_normalized)


def _model(name: str, values: ArrayLike, log: SlateLog) -> Floats:
    given = plain_array(name, values)
    array = finite(name, given, given.ndim if given.ndim in (2, 3) else 3)
    array = array.reshape(*array.shape[:2], -1)
    if array.shape != log.rewards.shape:
        raise InvalidInput(f"{name} has shape {array.shape} where the rewards have {log.rewards.shape}")
    return array
