import numpy as np
import pytest
from multislot_rerank import InvalidInput, SlateLog, TargetPolicy, replay

RNG = np.random.default_rng


def random_log(seed, n=4000, candidates=5, slots=3, objectives=2):
    rng = RNG(seed)
    slates = np.argsort(rng.random((n, candidates)), axis=1)[:, :slots]
    return SlateLog.uniform(slates, rng.random((n, slots, objectives)), candidates)


def mixed_log(seed=0, n=30_000):
    """Contexts with 3 or 4 candidates; the value of the target differs between them."""
    rng = RNG(seed)
    candidates = rng.choice([3, 4], size=n)
    keys = rng.random((n, 4))
    keys[candidates == 3, 3] = np.inf
    slates = np.argsort(keys, axis=1)[:, :2]
    hit = (slates == [0, 1]).all(axis=1)
    rewards = np.zeros((n, 2))
    rewards[:, 0] = np.where(hit, np.where(candidates == 3, 1.0, 0.0), 0.5)
    return SlateLog.uniform(slates, rewards, candidates), np.tile([0, 1], (n, 1))


def test_full_replay_is_the_mean_of_the_matching_records():
    log = random_log(0)
    hit = (log.slates == [2, 0, 1]).all(axis=1)
    result = replay(log, TargetPolicy.deterministic(log, np.tile([2, 0, 1], (len(log), 1))), "full")
    rewards = log.rewards[hit].sum(axis=1)
    assert result.matched.tolist() == [hit.sum()] * 3
    assert np.allclose(result.value, rewards.mean(axis=0), rtol=1e-12)
    # covariance of a mean of T vectors
    assert np.allclose(result.covariance, np.cov(rewards.T) / hit.sum(), rtol=1e-12)


def test_prefix_replay_uses_every_partial_match():
    log = random_log(1)
    result = replay(log, TargetPolicy.deterministic(log, np.tile([2, 0, 1], (len(log), 1))), "cascade")
    for slot in range(3):
        hit = (log.slates[:, : slot + 1] == [2, 0, 1][: slot + 1]).all(axis=1)
        assert result.matched[slot] == hit.sum()
        assert np.allclose(result.per_slot[slot], log.rewards[hit, slot].mean(axis=0), rtol=1e-12)


def test_set_replay_ignores_the_order_and_item_replay_the_other_slots():
    log = random_log(2)
    target = TargetPolicy.deterministic(log, np.tile([2, 0, 1], (len(log), 1)))
    same_set = (np.sort(log.slates, axis=1) == [0, 1, 2]).all(axis=1)
    assert replay(log, target, "set").matched.tolist() == [same_set.sum()] * 3
    assert replay(log, target, "independent").matched.tolist() == (log.slates == [2, 0, 1]).sum(axis=0).tolist()


def test_trade_off_interval_uses_the_joint_covariance():
    log = random_log(3)
    result = replay(log, TargetPolicy.deterministic(log, np.tile([0, 1, 2], (len(log), 1))), "full")
    hit = (log.slates == [0, 1, 2]).all(axis=1)
    totals = log.rewards[hit].sum(axis=1) @ [1.0, -2.0]
    interval = result.interval([1.0, -2.0])
    error = totals.std(ddof=1) / np.sqrt(hit.sum())
    assert interval.value == pytest.approx(totals.mean(), rel=1e-12)
    assert interval.high - interval.low == pytest.approx(2 * 1.959963984540054 * error, rel=1e-12)


def test_no_match_is_nan_with_a_reason_and_never_zero():
    log = SlateLog.uniform([[0, 1]] * 5, [[1, 1]] * 5, 4)
    result = replay(log, TargetPolicy.deterministic(log, [[0, 3]] * 5))
    assert np.isnan(result.value).all()
    assert result.per_slot[0, 0] == 1.0
    assert "slot 1" in result.warnings[0]
    assert np.isnan(result.interval().low)


def test_candidate_counts_that_vary_are_refused_then_thinned_or_weighted_to_the_truth():
    log, targets = mixed_log()
    target = TargetPolicy.deterministic(log, targets)
    with pytest.raises(InvalidInput, match="varies over contexts"):
        replay(log, target, "full")
    # half the contexts pay 1, half 0: the value is .5; plain replay would see context 3 twice as often: .667
    hit = (log.slates == [0, 1]).all(axis=1)
    assert log.rewards[hit, 0].mean() == pytest.approx(2 / 3, abs=0.02)
    for way in ("thin", "weight"):
        result = replay(log, target, "full", on_varying=way)
        assert result.per_slot[0, 0] == pytest.approx(0.5, abs=4 * result.standard_error[0])
        assert result.standard_error[0] < 0.02
    assert replay(log, target, "full", on_varying="thin").matched[0] < hit.sum()


def test_thinning_is_decided_by_the_seed():
    log, targets = mixed_log(n=2000)
    target = TargetPolicy.deterministic(log, targets)
    first, again, other = (replay(log, target, "full", on_varying="thin", seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.value, again.value)
    assert not np.array_equal(first.matched, other.matched) or not np.array_equal(first.value, other.value)


def test_a_log_that_is_not_uniform_needs_a_floor_to_be_thinned():
    slates = [[0, 1], [1, 0], [0, 1], [1, 0]]
    conditionals = [[0.75, 1], [0.25, 1], [0.6, 1], [0.4, 1]]
    log = SlateLog.from_propensities(
        slates, np.ones((4, 2)), conditionals, 2, [[0.75, 0.75], [0.25, 0.25], [0.6, 0.6], [0.4, 0.4]]
    )
    target = TargetPolicy.deterministic(log, [[0, 1]] * 4)
    with pytest.raises(InvalidInput, match="floor is needed"):
        replay(log, target, "full", on_varying="thin")
    with pytest.raises(InvalidInput, match=r"floor=0.9 must be positive and not above 0.6"):
        replay(log, target, "full", on_varying="thin", floor=0.9)
    assert replay(log, target, "full", on_varying="weight").value[0] == 2.0
    with pytest.raises(InvalidInput, match="set replay needs"):
        replay(log, target, "set")


def test_slot_weights_scale_the_slots():
    log = random_log(4)
    target = TargetPolicy.deterministic(log, np.tile([0, 1, 2], (len(log), 1)))
    plain, weighted = replay(log, target), replay(log, target, slot_weights=np.array([1.0, 0.5, 0.0]))
    assert np.allclose(weighted.value, plain.per_slot[0] + 0.5 * plain.per_slot[1], rtol=1e-12)


GOOD = {"slates": [[0, 1], [1, 2]], "rewards": [[1, 0], [0, 1]], "candidates": 3}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"slates": [[0, 0], [1, 2]]}, r"slates\[0\]=\[0, 0\] shows an item twice"),
        ({"slates": [[0, 1], [1, 3]]}, r"slates\[1\]=\[1, 3\] holds an item outside \[0, 3\)"),
        ({"slates": [[0, 1], [1]]}, "slates is ragged"),
        ({"slates": [[0, 1.5], [1, 2]]}, "not whole"),
        ({"rewards": [[1, 0], [0, np.nan]]}, r"rewards\[1, 1\]=nan is not finite"),
        ({"rewards": [[1, 0]]}, r"rewards has shape \(1, 2\) where"),
        ({"candidates": 1}, r"candidates\[0\]=1 is less than the 2 slots"),
        ({"objectives": ["a", "b"]}, "objectives has 2 names for 1 rewards"),
        ({"slates": np.empty((0, 2))}, r"slates has shape \(0, 2\)"),
    ],
)
def test_bad_logs_are_named(changed, message):
    with pytest.raises(InvalidInput, match=message):
        SlateLog.uniform(**(GOOD | changed))


@pytest.mark.parametrize(
    ("conditionals", "marginals", "message"),
    [
        ([[0.5, 0.5], [0.0, 0.5]], [[0.5, 0.5], [0.5, 0.5]], r"conditionals\[1, 0\]=0 is outside \(0, 1\]"),
        ([[0.5, 0.5], [1.2, 0.5]], [[0.5, 0.5], [0.5, 0.5]], r"conditionals\[1, 0\]=1.2 is outside"),
        (
            [[0.5, 0.5], [0.5, 0.5]],
            [[0.5, 0.5], [0.25, 0.5]],
            r"marginals\[1, 0\]=0.25 and conditionals\[1, 0\]=0.5 differ",
        ),
    ],
)
def test_bad_propensities_are_named(conditionals, marginals, message):
    with pytest.raises(InvalidInput, match=message):
        SlateLog.from_propensities(GOOD["slates"], GOOD["rewards"], conditionals, 3, marginals)


def test_replay_refuses_what_it_cannot_answer():
    log = SlateLog.uniform(**GOOD)
    stochastic = TargetPolicy.stochastic(log, [[0.5, 0.5]] * 2, [[0.5, 0.5]] * 2)
    with pytest.raises(InvalidInput, match="target is stochastic"):
        replay(log, stochastic)
    with pytest.raises(InvalidInput, match="interaction='cascde' is unknown"):
        replay(log, TargetPolicy.deterministic(log, [[0, 1]] * 2), "cascde")
    with pytest.raises(InvalidInput, match="target slates has shape"):
        TargetPolicy.deterministic(log, [[0, 1]])
    with pytest.raises(InvalidInput, match="slot_weights has 3 entries for 2 slots"):
        replay(log, TargetPolicy.deterministic(log, [[0, 1]] * 2), slot_weights=np.ones(3))
    with pytest.raises(InvalidInput, match="trade_off has 2 weights for 1"):
        replay(log, TargetPolicy.deterministic(log, [[0, 1]] * 2)).interval([1, 2])


def test_long_table_round_trip():
    import pandas as pd

    log = random_log(5, n=50)
    frame = pd.DataFrame(
        {
            "request": np.repeat(np.arange(50), 3),
            "slot": np.tile(np.arange(3), 50),
            "item": log.slates.ravel(),
            "candidates": 5,
            "click": log.rewards[:, :, 0].ravel(),
            "dwell": log.rewards[:, :, 1].ravel(),
        }
    ).sample(frac=1, random_state=0)
    read = SlateLog.from_frame(frame, ["click", "dwell"], logging="uniform")
    assert np.array_equal(read.slates, log.slates)
    assert np.array_equal(read.rewards, log.rewards)
    assert read.is_uniform
    assert read.objectives == ("click", "dwell")
    with pytest.raises(InvalidInput, match="no column dwel"):
        SlateLog.from_frame(frame, ["click", "dwel"], logging="uniform")
    with pytest.raises(InvalidInput, match=r"every request needs slots 0 .. 2"):
        SlateLog.from_frame(frame.iloc[1:], ["click"], logging="uniform")
    with pytest.raises(InvalidInput, match="each once"):  # a request twice
        SlateLog.from_frame(frame.assign(slot=0), ["click"], logging="uniform")
    with pytest.raises(InvalidInput, match="no rows"):
        SlateLog.from_frame(frame.iloc[:0], ["click"], logging="uniform")
    with pytest.raises(InvalidInput, match="item is ragged or not numeric"):
        SlateLog.from_frame(frame.assign(item="x"), ["click"], logging="uniform")
