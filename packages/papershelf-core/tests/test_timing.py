import numpy as np
import pytest
from papershelf_core import timing


def test_every_function_is_called_as_often_a_round_as_reported():
    count = {"a": 0, "b": 0}

    def caller(name):
        def call():
            count[name] += 1

        return call

    result = timing.compare({name: caller(name) for name in count}, repeat=4, min_seconds=1e-5)
    for name in count:
        # one warm-up call and one to calibrate
        assert count[name] == 2 + 4 * result.calls[name]
        assert result.seconds[name].shape == (4,)


def test_rounds_rotate_the_order():
    seen = []
    functions = {name: (lambda name=name: seen.append(name)) for name in "abc"}
    timing.compare(functions, repeat=3, min_seconds=0)
    assert seen[6:] == list("abcbcacab")


def test_ratio_is_of_medians_and_its_interval_holds_it():
    seconds = {"ours": np.array([1.0, 2.0, 3.0, 100.0, 2.0]), "peer": np.array([4.0, 8.0, 12.0, 400.0, 8.0])}
    comparison = timing.Comparison(seconds, "ours", "process", {"ours": 1, "peer": 1}, timing.Machine.here())
    ratio = comparison.ratio("peer")
    assert (ratio.estimate, ratio.low, ratio.high) == (4.0, 4.0, 4.0)
    assert comparison.median == {"ours": 2.0, "peer": 8.0}


def test_machine_records_threads_and_versions(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    machine = timing.Machine.here("papershelf-core", "no-such-distribution")
    assert machine.threads["OMP_NUM_THREADS"] == "1"
    assert machine.packages["numpy"] == np.__version__
    assert "no-such-distribution" not in machine.packages
    assert "OMP_NUM_THREADS=1" in str(machine)


@pytest.mark.parametrize(
    ("functions", "keywords", "message"),
    [
        ({}, {}, "functions is empty"),
        ({"a": int}, {"repeat": 0}, "repeat=0"),
        ({"a": int}, {"clock": "sun"}, "clock='sun' is unknown"),
        ({"a": int}, {"baseline": "b"}, "baseline='b' is not compared"),
    ],
)
def test_bad_input_is_named(functions, keywords, message):
    with pytest.raises(ValueError, match=message):
        timing.compare(functions, **keywords)


def test_ratio_of_a_name_that_was_not_compared():
    with pytest.raises(KeyError, match="was not compared"):
        timing.compare({"a": int}, repeat=1, min_seconds=0).ratio("b")
