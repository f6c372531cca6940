"""Compare the time of functions in one run, interleaved.

Round r = 1..R calls every function once (many inner calls when one is short), in an order that rotates with r, so that
drift of the machine falls on all alike. With t_a(r) the seconds a call in round r,

    median_a = median_r t_a(r),        ratio of a peer p to the baseline b = median_p / median_b,

and the interval of a ratio comes from resampling whole rounds, which keeps the pairing.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from papershelf_core.machine import Machine

__all__ = ["Comparison", "Machine", "Ratio", "compare", "ratio"]

Clock = Literal["process", "thread", "wall"]
_CLOCKS: dict[str, Callable[[], float]] = {
    "process": time.process_time,
    "thread": time.thread_time,
    "wall": time.perf_counter,
}
_BOOTSTRAP_ROUNDS = 2000
_LEVEL = 0.95


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians with its 95 % bootstrap interval."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3g}x [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Comparison:
    """Interleaved timings of several functions.

    Attributes
    ----------
    seconds : dict[str, ndarray of shape (repeat,)]
        Seconds a call, one entry a round; round r of every function ran side by side.
    baseline : str
        The name that ratios divide by.
    clock : str
        ``process`` (CPU seconds of the process), ``thread`` or ``wall``.
    calls : dict[str, int]
        Inner calls a round.
    machine : Machine
        Where it was measured.
    """

    seconds: dict[str, NDArray[np.float64]]
    baseline: str
    clock: Clock
    calls: dict[str, int]
    machine: Machine

    @property
    def median(self) -> dict[str, float]:
        """Median seconds a call, by name."""
        return {name: float(np.median(samples)) for name, samples in self.seconds.items()}

    def ratio(self, name: str) -> Ratio:
        """Time of ``name`` divided by the time of the baseline: above 1, the baseline is faster.

        Parameters
        ----------
        name : str
            One of the compared names.

        Returns
        -------
        Ratio
            Ratio of medians and its 95 % interval over resampled rounds.

        Raises
        ------
        KeyError
            If the name was not compared.
        """
        if name not in self.seconds:
            raise KeyError(f"name={name!r} was not compared; compared: {', '.join(self.seconds)}")
        return ratio(self.seconds[name], self.seconds[self.baseline])


def ratio(seconds: ArrayLike, baseline: ArrayLike) -> Ratio:
    """Ratio of medians of times that were taken side by side, and its interval over resampled rounds.

    Parameters
    ----------
    seconds, baseline : array-like of shape (rounds,)
        Entry r of both was measured in round r, or on instance r.

    Raises
    ------
    ValueError
        If they are empty or differ in length.

    Examples
    --------
    >>> print(ratio([2.0, 2.2, 2.1], [1.0, 1.1, 1.05]))
    2x [2, 2]
    """
    theirs, ours = np.asarray(seconds, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if theirs.ndim != 1 or theirs.shape != ours.shape or not theirs.size:
        raise ValueError(f"times of shapes {theirs.shape} and {ours.shape}; give one of each a round")
    rounds = np.random.default_rng(0).integers(len(ours), size=(_BOOTSTRAP_ROUNDS, len(ours)))
    resampled = np.median(theirs[rounds], axis=1) / np.median(ours[rounds], axis=1)
    low, high = np.quantile(resampled, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Ratio(float(np.median(theirs) / np.median(ours)), float(low), float(high))


def compare(
    functions: Mapping[str, Callable[[], object]],
    *,
    repeat: int = 15,
    clock: Clock = "process",
    baseline: str | None = None,
    min_seconds: float = 2e-3,
) -> Comparison:
    """Time functions of no argument against each other in one interleaved run.

    Parameters
    ----------
    functions : mapping of name to callable
        What to compare. Each is called at least twice before the clock starts (warm-up and calibration).
    repeat : int
        Rounds.
    clock : {"process", "thread", "wall"}
        CPU seconds of the process (all its threads), of the calling thread, or elapsed seconds.
    baseline : str, optional
        The name that ratios divide by; the first by default.
    min_seconds : float
        A function that is shorter is called often enough a round to fill this many seconds.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If nothing is given to compare, ``repeat`` is not positive, or clock or baseline is unknown.

    Examples
    --------
    >>> result = compare({"short": lambda: sum(range(100)), "long": lambda: sum(range(10_000))}, repeat=5)
    >>> result.ratio("long").estimate > 5
    True
    """
    if not functions:
        raise ValueError("functions is empty; give at least one name and callable")
    if repeat < 1:
        raise ValueError(f"repeat={repeat} must be at least 1")
    if clock not in _CLOCKS:
        raise ValueError(f"clock={clock!r} is unknown; use one of {', '.join(_CLOCKS)}")
    names = list(functions)
    baseline = names[0] if baseline is None else baseline
    if baseline not in functions:
        raise ValueError(f"baseline={baseline!r} is not compared; use one of {', '.join(names)}")

    now = _CLOCKS[clock]
    calls = {name: _inner_calls(functions[name], min_seconds) for name in names}
    seconds = {name: np.empty(repeat) for name in names}
    for round_ in range(repeat):
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            seconds[name][round_] = _seconds_a_call(functions[name], calls[name], now)
    return Comparison(seconds, baseline, clock, calls, Machine.here())


def _inner_calls(function: Callable[[], object], min_seconds: float) -> int:
    """Warm up, then find how many calls fill ``min_seconds``."""
    function()
    elapsed = _seconds_a_call(function, 1, time.perf_counter)
    return max(1, int(np.ceil(min_seconds / max(elapsed, 1e-9))))


def _seconds_a_call(function: Callable[[], object], calls: int, now: Callable[[], float]) -> float:
    start = now()
    for _ in range(calls):
        function()
    return (now() - start) / calls
