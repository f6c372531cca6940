"""Claims that a clock decides, each with the interval of what it saw.

Against a peer, round r having timed both side by side, the claim "k times as fast" holds where

    median_r(theirs) / median_r(ours) >= k;

against a bar of seconds it holds where median_r(ours) <= bar. The interval comes from resampling rounds: a miss whose
interval holds the bar is within noise, not a failure (:attr:`papershelf_core.claims.Claim.verdict`).
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from papershelf_core.claims import Claim
from papershelf_core.timing import ratio

__all__ = ["faster", "within"]

Unit = Literal["s", "ms", "µs"]
_A_SECOND = {"s": 1.0, "ms": 1e3, "µs": 1e6}


def faster(
    paper: str,
    statement: str,
    peer: str,
    ours: ArrayLike,
    theirs: ArrayLike,
    *,
    times: float = 1.0,
    unit: Unit = "ms",
    note: str = "",
) -> Claim:
    """Claim to be ``times`` times as fast as a peer.

    Parameters
    ----------
    paper, statement, peer, note : str
        As of a `Claim`.
    ours, theirs : array-like of shape (rounds,)
        Seconds, entry r of both from one round or one instance.
    times : float
        What theirs is to be at least, in ours; below 1, ours may be slower.
    unit : {"s", "ms", "µs"}
        Of the printed figures.

    Examples
    --------
    >>> faster("-", "twice as fast", "peer 1.0", [1.0, 1.1, 1.0], [1.9, 2.3, 1.9], times=2.0).verdict
    'within noise'
    """
    found, scale = ratio(theirs, ours), _A_SECOND[unit]
    slow = float(np.median(np.asarray(theirs))) * scale
    return Claim(
        paper,
        statement,
        peer,
        float(np.median(np.asarray(ours))) * scale,
        slow,
        unit,
        "lower",
        found.estimate >= times,
        note,
        interval=(slow / found.high, slow / found.low),
        timed=True,
        bar=slow / times,
    )


def within(paper: str, statement: str, seconds: ArrayLike, limit: float, *, unit: Unit = "s", note: str = "") -> Claim:
    """Claim to take at most ``limit`` (in ``unit``); one run alone has no interval.

    Examples
    --------
    >>> within("-", "a fit within 10 s", [9.0, 9.4, 8.9], 10.0).holds
    True
    """
    samples = np.atleast_1d(np.asarray(seconds, dtype=np.float64))
    spread = ratio(samples, np.ones_like(samples)) if samples.size > 1 else None
    value, scale = float(np.median(samples)) * _A_SECOND[unit], _A_SECOND[unit]
    return Claim(
        paper,
        statement,
        "bar",
        value,
        limit,
        unit,
        "lower",
        value <= limit,
        note,
        interval=None if spread is None else (spread.low * scale, spread.high * scale),
        timed=True,
        bar=limit,
    )
