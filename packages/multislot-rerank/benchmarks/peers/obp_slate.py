# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2", "pandas>=2.2", "scikit-learn>=1.5", "scipy>=1.13"]
# ///
"""obp 0.5.7's slate estimators on a saved log, in an environment of their own.

obp pins Python below 3.11 and packages of 2022; its estimators run on today's when loaded without its package's own
imports and with an empty torch (which they never call). Usage: obp_slate.py SOURCE LOG.npz
"""

import importlib.util
import json
import sys
import time
import types
from pathlib import Path

import numpy as np

REPEAT = 9


def load(source: Path) -> types.ModuleType:
    torch = types.ModuleType("torch")
    torch.tensor = torch.Tensor = object
    sys.modules["torch"] = torch
    for name in ("obp", "obp.ope"):
        module = types.ModuleType(name)
        module.__path__ = []
        sys.modules[name] = module
    found = None
    for name, path in (
        ("obp.utils", "obp/utils.py"),
        ("obp.ope.helper", "obp/ope/helper.py"),
        ("obp.ope.estimators_slate", "obp/ope/estimators_slate.py"),
    ):
        spec = importlib.util.spec_from_file_location(name, source / path)
        found = importlib.util.module_from_spec(spec)
        sys.modules[name] = found
        spec.loader.exec_module(found)
    return found


def main() -> None:
    slate = load(Path(sys.argv[1]))
    log = np.load(sys.argv[2])
    n, slots = log["slates"].shape
    flat = {
        "slate_id": np.repeat(np.arange(n), slots),
        "position": np.tile(np.arange(slots), n),
        "reward": log["rewards"].ravel(),
    }
    whole = {"pscore": np.repeat(log["mu_prefix"][:, -1], slots)}
    whole["evaluation_policy_pscore"] = np.repeat(log["pi_prefix"][:, -1], slots)
    prefix = {"pscore_cascade": log["mu_prefix"].ravel(), "evaluation_policy_pscore_cascade": log["pi_prefix"].ravel()}
    item = {"pscore_item_position": log["mu_marginal"].ravel()}
    item["evaluation_policy_pscore_item_position"] = log["pi_marginal"].ravel()
    doubly = {
        "action": log["slates"].ravel(),
        "q_hat": log["q"].ravel(),
        "evaluation_policy_action_dist": log["pi_action"].ravel(),
    }
    items = log["q"].shape[2]
    estimators = {
        "SIPS": (slate.SlateStandardIPS(len_list=slots), whole),
        "RIPS": (slate.SlateRewardInteractionIPS(len_list=slots), prefix),
        "IIPS": (slate.SlateIndependentIPS(len_list=slots), item),
        "SN-SIPS": (slate.SelfNormalizedSlateStandardIPS(len_list=slots), whole),
        "SN-RIPS": (slate.SelfNormalizedSlateRewardInteractionIPS(len_list=slots), prefix),
        "SN-IIPS": (slate.SelfNormalizedSlateIndependentIPS(len_list=slots), item),
        "CDR": (slate.SlateCascadeDoublyRobust(len_list=slots, n_unique_action=items), prefix | doubly),
    }
    rows = {}
    for name, (estimator, fields) in estimators.items():
        seconds = []
        for _ in range(REPEAT):
            began = time.process_time()
            value = estimator.estimate_policy_value(**flat, **fields)
            seconds.append(time.process_time() - began)
        rows[name] = {"value": float(value), "seconds": float(np.median(seconds))}
    print(json.dumps(rows))


main()
