"""Without torch, the packages that are built on it are not collected, and the header says so with the remedy."""

import importlib.util

TORCH_PACKAGES = ("ffn-heavyhitter", "msam-lawn", "quantease")

HAS_TORCH = importlib.util.find_spec("torch") is not None
NEEDS_TORCH = [f"packages/{name}" for name in TORCH_PACKAGES]
NEEDS_TORCH.append("packages/multislot-rerank/src/multislot_rerank/item_scorer.py")
collect_ignore = [] if HAS_TORCH else NEEDS_TORCH


def pytest_report_header() -> str | None:
    if HAS_TORCH:
        return None
    return f"torch is not installed: {', '.join(TORCH_PACKAGES)} are NOT tested. Remedy: uv run tools/install_torch.py"
