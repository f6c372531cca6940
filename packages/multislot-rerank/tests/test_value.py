"""The compiled sums give the plain formulas; replay's exactness (test_replay_exact) is shown on the latter."""

import numpy as np
import pytest
from multislot_rerank.value import weighted_value
from oracles.value_by_hand import slot_means, value_and_covariance


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("records", "slots", "objectives"), [(2, 1, 1), (7, 3, 2), (1000, 4, 3)])
def test_compiled_sums_equal_the_formulas(order, normalize, records, slots, objectives):
    rng = np.random.default_rng(records)
    weights = rng.exponential(size=(records, slots)) * (rng.random((records, slots)) < 0.5)
    weights[:2] = 1.0  # two records carry weight in every slot
    rewards = rng.normal(size=(records, slots, objectives))
    alpha = rng.random(slots)
    offset = None if normalize else rng.normal(size=rewards.shape)
    given = [None if a is None else np.array(a, order=order) for a in (weights, rewards, offset)]
    found = weighted_value(
        "any", given[0], given[1], ("a",) * objectives, normalize=normalize, slot_weights=alpha, offset=given[2]
    )
    means, value, covariance = value_and_covariance(weights, rewards, alpha, normalize, offset)
    np.testing.assert_allclose(found.per_slot, means, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found.value, value, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-10, atol=1e-13)
    assert found.matched.tolist() == (weights != 0).sum(axis=0).tolist()
    np.testing.assert_allclose(found.effective, weights.sum(0) ** 2 / (weights**2).sum(0), rtol=1e-12)
    assert found.max_weight == weights.max()


def test_a_slot_without_weight_is_nan_and_the_others_keep_their_means():
    rng = np.random.default_rng(0)
    weights, rewards = rng.random((9, 3)), rng.random((9, 3, 1))
    weights[:, 1] = 0.0
    found = weighted_value("any", weights, rewards, ("a",), normalize=True)
    assert np.isnan(found.value).all()
    assert np.isnan(found.per_slot[1]).all()
    np.testing.assert_allclose(found.per_slot[[0, 2]], slot_means(weights[:, [0, 2]], rewards[:, [0, 2]]), rtol=1e-12)
    assert found.effective[1] == 0.0
    assert "slot 1" in found.warnings[0]
