import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from papershelf_core import timed


@given(st.integers(0, 10_000), st.floats(0.5, 20.0), st.sampled_from(["s", "ms", "µs"]))
def test_faster_holds_where_the_ratio_of_medians_reaches_the_bar(seed, times, unit):
    rng = np.random.default_rng(seed)
    ours, theirs = rng.lognormal(-6, 0.1, 15), rng.lognormal(-4, 0.1, 15)
    row = timed.faster("-", "s", "peer", ours, theirs, times=times, unit=unit)
    ratio = np.median(theirs) / np.median(ours)
    assert row.holds == (ratio >= times)
    assert row.ratio == pytest.approx(1 / ratio)
    # one statement whether read as a ratio or in units: the bar is met on the right side, the estimate is inside
    assert row.holds == (row.ours <= row.bar) or ratio == pytest.approx(times)
    assert row.interval[0] <= row.ours * (1 + 1e-12)
    assert row.ours <= row.interval[1] * (1 + 1e-12)
    assert row.verdict == ("holds" if row.holds else "within noise" if row.interval[0] <= row.bar else "FAILS")


def test_noise_excuses_no_miss_that_is_larger():
    ours, theirs = np.full(9, 1.0) + np.linspace(-0.01, 0.01, 9), np.full(9, 1.5)
    assert timed.faster("-", "s", "peer", ours, theirs, times=2.0).verdict == "FAILS"
    assert timed.faster("-", "s", "peer", ours, theirs, times=1.5).verdict == "holds"


def test_one_run_against_a_limit_has_no_interval_and_no_excuse():
    once = timed.within("-", "s", 0.4, 300.0, unit="ms")
    assert (once.ours, once.interval, once.verdict, once.timed) == (400.0, None, "FAILS", True)
    often = timed.within("-", "s", [0.29, 0.31, 0.305], 300.0, unit="ms")
    assert often.interval == pytest.approx((290.0, 310.0))
    assert often.verdict == "within noise"


@pytest.mark.parametrize("theirs", [[], [1.0, 2.0], [[1.0]]])
def test_rounds_that_do_not_pair_are_refused(theirs):
    with pytest.raises(ValueError, match="one of each a round"):
        timed.faster("-", "s", "peer", [1.0], theirs)
