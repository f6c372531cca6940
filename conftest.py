"""Without torch, the packages that are built on it are not collected, and the header says so with the remedy."""

import importlib.util
import os

# Ray reads it when it is imported: its workers are to be this interpreter, not an environment that `uv run` builds anew
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

TORCH_PACKAGES = ("ffn-heavyhitter", "msam-lawn", "quantease")

HAS_TORCH = importlib.util.find_spec("torch") is not None
NEEDS_TORCH = [f"packages/{name}" for name in TORCH_PACKAGES]
NEEDS_TORCH.append("packages/multislot-rerank/src/multislot_rerank/item_scorer.py")
collect_ignore = [] if HAS_TORCH else NEEDS_TORCH


def pytest_report_header() -> str | None:
    if HAS_TORCH:
        return None
    return f"torch is not installed: {', '.join(TORCH_PACKAGES)} are NOT tested. Remedy: uv run tools/install_torch.py"
