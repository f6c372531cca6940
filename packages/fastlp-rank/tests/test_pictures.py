"""Pictures are self-contained SVG."""

import pytest
from fastlp_rank import solve
from fastlp_rank.bench import as_problem
from fastlp_rank.instances import exposure

pytest.importorskip("matplotlib", reason="optional extra plot not installed")


def test_latency_and_lottery() -> None:
    from fastlp_rank import plots

    svg = plots.latency({"ours": [1e-5, 2e-5], "peer": [1e-3, 3e-3]}, "Latency", ours=("ours",))
    assert svg.startswith("<svg")
    assert svg.rstrip().endswith("</svg>")
    solution = solve(as_problem(exposure(30, 5, 2, 0)))
    svg = plots.lottery(solution, "X", names=[f"item {i}" for i in range(30)])
    assert svg.count("<svg") == 1
