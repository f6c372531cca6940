import numpy as np
import pytest
from papershelf_core import metrics


def test_standard_error_of_a_mean_is_the_textbook_one():
    values = np.random.default_rng(0).normal(size=400)
    result = metrics.paired_bootstrap(np.mean, values, replicates=4000)
    assert result.estimate == values.mean()
    # the bootstrap's own error at 4000 replicates is 1.1 %
    assert result.standard_error == pytest.approx(values.std() / 20, rel=0.04)
    assert result.low == pytest.approx(values.mean() - 1.96 * values.std() / 20, abs=0.006)


def test_pairing_removes_what_both_methods_share():
    rng = np.random.default_rng(1)
    hard = rng.normal(size=300)
    a, b = hard + 0.1, hard + 0.01 * rng.normal(size=300)
    paired = metrics.paired_bootstrap(lambda a, b: float(np.mean(a) - np.mean(b)), a, b)
    assert paired.low > 0.095
    assert paired.standard_error < 0.02 * np.std(hard)


def test_rows_of_one_group_stay_together():
    groups = np.repeat(np.arange(50), 20)
    values = np.random.default_rng(2).normal(size=50)[groups]
    clustered = metrics.paired_bootstrap(np.mean, values, groups=groups, replicates=3000)
    naive = metrics.paired_bootstrap(np.mean, values, replicates=3000)
    assert clustered.standard_error / naive.standard_error == pytest.approx(np.sqrt(20), rel=0.1)


def test_the_seed_decides():
    values = np.arange(30.0)
    first, again, other = (metrics.paired_bootstrap(np.median, values, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"replicates": 1}, "replicates=1"),
        ({"level": 1.0}, "level=1.0"),
        ({"groups": [1]}, "groups has 1 rows where 3"),
    ],
)
def test_bad_input_is_named(keywords, message):
    with pytest.raises(ValueError, match=message):
        metrics.paired_bootstrap(np.mean, [1.0, 2.0, 3.0], **keywords)


def test_a_statistic_that_is_undefined_on_a_resample_is_refused():
    def slope(x):
        return np.inf if len(set(x)) == 1 else 1.0

    with pytest.raises(ValueError, match="must be defined on every resample"):
        metrics.paired_bootstrap(slope, [1.0, 2.0], replicates=50)
