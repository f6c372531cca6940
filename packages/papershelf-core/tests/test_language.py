import numpy as np
import pytest
from papershelf_core import metrics


def test_standard_error_covers_the_truth():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(500):
        result = metrics.perplexity(rng.exponential(2.0, size=800))
        inside += abs(result.value - np.exp(2.0)) < 1.96 * result.standard_error
    assert 0.92 <= inside / 500 <= 0.98


def test_clustered_error_equals_that_of_the_window_means():
    rng = np.random.default_rng(1)
    windows = rng.normal(3.0, 0.2, size=40)
    groups = np.repeat(np.arange(40), 64)
    result = metrics.perplexity(windows[groups], groups)
    assert result.value == pytest.approx(np.exp(windows.mean()), rel=1e-12)
    assert result.standard_error == pytest.approx(np.exp(windows.mean()) * windows.std(ddof=1) / np.sqrt(40), rel=1e-12)
    assert result.tokens == 2560


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0],), "has 1 token"),
        (([1.0, 2.0], [5, 5]), "has 1 group"),
        (([1.0, np.inf],), r"token_nll\[1\]=inf"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.perplexity(*arguments)
