"""What every test run of the shelf needs: a CPU build of torch, no other host, and a word on what is left out."""

import importlib.util
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "tools"))
import install_torch

# Ray reads it when it is imported: its workers are to be this interpreter, not an environment that `uv run` builds anew
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
# one thread a process, in the programs that tests start as well: sums have one order on every machine
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
# pytest-socket guards this process; programs that tests start are told to stay off the hub, too
os.environ["HF_HUB_OFFLINE"] = "1"

TORCH_PACKAGES = ("ffn-heavyhitter", "msam-lawn", "quantease")
HAS_DATA = bool(os.environ.get("PAPERSHELF_DATA"))

left_out: list[str] = []  # lines of the header
collect_ignore: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():  # installing takes a while, and says so
        reason = no_torch()
    if reason:
        left_out.append(f"torch is not installed: {', '.join(TORCH_PACKAGES)} are NOT tested ({reason})")
        collect_ignore.extend(f"packages/{name}" for name in TORCH_PACKAGES)
        collect_ignore.append("packages/multislot-rerank/src/multislot_rerank/item_scorer.py")
    if not HAS_DATA:
        left_out.append("PAPERSHELF_DATA is not set: tests marked 'data' (real data sets) are skipped")


def no_torch() -> str | None:
    """Why there is no torch, after an attempt to install it; None where there is."""
    if importlib.util.find_spec("torch") is not None:
        return None
    if os.environ.get("PAPERSHELF_NO_TORCH", "0") not in ("", "0"):
        return "PAPERSHELF_NO_TORCH is set"
    try:
        install_torch.install()
    except SystemExit as failed:
        return str(failed)
    return None


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes where folders are tested, none where a file or a test is named: that should start at once."""
    named = any(os.path.isfile(argument.partition("::")[0]) for argument in config.args)
    return 0 if named else min(2, os.cpu_count() or 1)


def pytest_report_header() -> list[str]:
    return left_out


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("network"):
            item.add_marker("enable_socket")
        if not HAS_DATA and item.get_closest_marker("data"):
            item.add_marker(pytest.mark.skip(reason="needs PAPERSHELF_DATA"))
