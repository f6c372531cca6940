import numpy as np
import pytest
from hetcal import DataError, ecce, multicalibration_error
from oracles.calibration_by_hand import cumulative_error


def test_ecce_equals_the_running_sum():
    rng = np.random.default_rng(0)
    p, w = rng.random(300), rng.random(300)
    y = (rng.random(300) < p**2).astype(float)
    assert ecce(y, p, w) == pytest.approx(cumulative_error(y, p, w), abs=1e-14)


def test_multicalibration_error_finds_the_worst_segment():
    rng = np.random.default_rng(1)
    p = rng.uniform(0.2, 0.8, 4000)
    leaf = rng.integers(0, 5, 4000)
    y = (rng.random(4000) < np.where(leaf == 3, p * 0.6, p)).astype(int)
    result = multicalibration_error(y, p, leaf)
    rows = leaf == 3
    scale = np.sqrt(np.sum(p[rows] * (1 - p[rows]))) / rows.sum()
    assert result.worst == 3
    assert result.value == pytest.approx(cumulative_error(y[rows], p[rows], np.ones(rows.sum())) / scale, rel=1e-12)
    masks = np.arange(5)[:, None] == leaf
    assert multicalibration_error(y, p, masks).value == result.value


def test_values_agree_with_mcgrad():
    """From mcgrad 0.1.5, MulticalibrationError(precision_dtype="float64"); see benchmarks/peer_metrics.py."""
    rng = np.random.default_rng(7)
    p = rng.random(500)
    y = (rng.random(500) < p).astype(int)
    w = rng.random(500) + 0.5
    leaf = rng.integers(0, 3, 500)
    result = multicalibration_error(y, p, leaf, w)
    np.testing.assert_allclose(result.ecce, MCGRAD_ECCE, atol=1e-9)
    np.testing.assert_allclose(result.standard_deviation, MCGRAD_SD, atol=1e-9)
    assert result.value == pytest.approx(MCGRAD_MCE_SIGMA, abs=1e-9)


MCGRAD_ECCE = [0.03567321087879026, 0.06911325672684115, 0.07535421638786048]
MCGRAD_SD = [0.03196890897045145, 0.03260692325882034, 0.03421815442252392]
MCGRAD_MCE_SIGMA = 2.202170679849962


def test_refusals():
    with pytest.raises(DataError, match="one length"):
        ecce([0, 1], [0.5])
    with pytest.raises(DataError, match="NaN"):
        ecce([0, 1], [0.5, np.nan])
    with pytest.raises(DataError, match="sample_weight"):
        ecce([0, 1], [0.5, 0.4], [0, 0])
    with pytest.raises(DataError, match="segments"):
        multicalibration_error([0, 1], [0.5, 0.4], [[0.2, 0.3]])
