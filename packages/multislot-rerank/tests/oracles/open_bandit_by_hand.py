"""Open Bandit estimates straight from the CSV file with pandas: independent of the package's log and estimators."""

import pandas as pd
from papershelf_core import datasets


def thompson_to_uniform(campaign):
    """IPS, SNIPS, standard error of IPS, effective sample size, largest weight; and the uniform log's click rate."""
    frame = pd.read_csv(datasets.path("obd", f"bts-{campaign}.csv"), index_col=0)
    items = len(pd.read_csv(datasets.path("obd", f"bts-{campaign}-items.csv")))
    weight = (1.0 / items) / frame["propensity_score"]
    terms = weight * frame["click"]
    uniform = pd.read_csv(datasets.path("obd", f"random-{campaign}.csv"), index_col=0)
    return {
        "ips": terms.mean(),
        "snips": terms.sum() / weight.sum(),
        "error": terms.std(ddof=1) / len(frame) ** 0.5,
        "ess": weight.sum() ** 2 / (weight**2).sum(),
        "largest": weight.max(),
        "truth": uniform["click"].mean(),
    }


def modal_item_replay(campaign):
    """Matches and clicks on the uniform log of the item that Thompson sampling showed most."""
    bandit = pd.read_csv(datasets.path("obd", f"bts-{campaign}.csv"), index_col=0)
    uniform = pd.read_csv(datasets.path("obd", f"random-{campaign}.csv"), index_col=0)
    item = bandit["item_id"].value_counts().index[0]
    kept = uniform[uniform["item_id"] == item]
    return int(item), len(kept), int(kept["click"].sum())
