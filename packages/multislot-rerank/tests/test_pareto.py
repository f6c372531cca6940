import moocore
import numpy as np
import pytest
from multislot_rerank import InvalidInput, SlateLog
from multislot_rerank.pareto import ParetoFront, choose_honestly, pareto_front, sweep
from multislot_rerank.value import ValueEstimate


def point(name_and_value):
    value = np.array(name_and_value, float)
    return ValueEstimate(
        "replay", value, value[None], np.eye(2) * 1e-4, np.array([100]), np.array([100.0]), 1.0, 100, ("click", "age")
    )


def front_of(values, senses=("max", "min")):
    estimates = tuple(point(value) for value in values)
    names = tuple(f"theta_{row}" for row in range(len(values)))
    return ParetoFront(names, estimates, senses, pareto_front(np.array(values), senses))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("objectives", [2, 3])
def test_front_equals_moocore_with_duplicates_and_ties(seed, objectives):
    rng = np.random.default_rng(seed)
    values = rng.integers(8, size=(120, objectives)).astype(float)
    ours = pareto_front(values, ["max"] * objectives)
    assert ours.tolist() == moocore.is_nondominated(values, maximise=True, keep_weakly=True).tolist()


def test_hypervolume_is_the_area_by_hand():
    front = front_of([(0.2, 5.0), (0.4, 8.0), (0.1, 9.0)])
    # rectangles to the reference (0, 10): .2 x 5 and (.4 - .2) x ... = .2 * 5 + .2 * 2
    assert front.hypervolume([0.0, 10.0]) == pytest.approx(0.2 * 5 + 0.2 * 2, rel=1e-12)


def test_knee_and_constrained_best():
    front = front_of([(0.50, 9.0), (0.48, 4.0), (0.20, 3.0), (0.19, 5.0)])
    assert front.optimal.tolist() == [True, True, True, False]
    assert front.knee() == "theta_1"
    assert front.best("click") == "theta_0"
    assert front.best("click", at_least={"age": 4.5}) == "theta_1"
    assert front.best("age") == "theta_2"
    with pytest.raises(InvalidInput, match="is kept by none of the 4 trade-offs"):
        front.best("click", at_least={"age": 1.0})
    with pytest.raises(InvalidInput, match="objective='clicks' is unknown; the log has click, age"):
        front.best("clicks")
    with pytest.raises(InvalidInput, match="reference has 1 entries for 2"):
        front.hypervolume([0.0])


def arms(seed, records=1500):
    """One slot, 12 arms of equal click rate: every difference on a log is noise."""
    rng = np.random.default_rng(seed)
    shown = rng.integers(12, size=(records, 1))
    clicks = (rng.random((records, 1)) < 0.3).astype(float)
    log = SlateLog.uniform(shown, clicks, 12, ["click"])
    return log, {f"arm_{arm}": np.full((records, 1), arm) for arm in range(12)}


def test_the_honest_interval_of_the_chosen_covers_and_the_naive_one_does_not():
    honest = naive = 0
    for seed in range(400):
        log, slates = arms(seed)
        choice = choose_honestly(log, slates, lambda front: front.best("click"), seed=seed)
        interval = choice.honest.interval()
        honest += interval.low <= 0.3 <= interval.high
        whole = sweep(log, slates)
        own = whole.estimates[whole.names.index(whole.best("click"))].interval()
        naive += own.low <= 0.3 <= own.high
    assert honest / 400 >= 0.93
    assert naive / 400 < 0.85


def test_sweep_marks_the_front_of_replayed_values():
    log, slates = arms(0)
    whole = sweep(log, slates)
    rates = [log.rewards[log.slates[:, 0] == arm].mean() for arm in range(12)]
    assert np.allclose(whole.values[:, 0], rates, rtol=1e-12)
    assert whole.optimal.tolist() == [rate == max(rates) for rate in rates]


def test_bad_input_is_named():
    log, slates = arms(0, records=30)
    with pytest.raises(InvalidInput, match="slates is empty"):
        sweep(log, {})
    with pytest.raises(InvalidInput, match="senses="):
        sweep(log, slates, senses=["more"])
    lonely = SlateLog.uniform([[0], [1]], [[1], [0]], 3)
    with pytest.raises(InvalidInput, match="trade-off 'two': no logged record matches"):
        sweep(lonely, {"two": [[2], [2]]})
    with pytest.raises(InvalidInput, match="choose returned 'x'"):
        choose_honestly(*arms(1), lambda front: "x")
