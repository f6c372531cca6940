"""Three quarters of the FFN width after one pass of recovery over the calibration tokens: 64 steps of 256, no label.

The peer's pruned model gets the same recovery by the same code, so that what pruning and what recovery brings can be
told apart.
"""

from ffn_heavyhitter.models import load_causal_model
from ffn_heavyhitter.recovery import recover
from structure import UNIFORM, described, peer_folder, per_layer, table_of
from study import Study

LENGTH = 256
LEARNING_RATE = 3e-4


def recovered(study: Study, model) -> dict:
    batches = [{"input_ids": window[None]} for window in study.calibration.reshape(-1, LENGTH)]
    losses: list[float] = []
    recover(
        model,
        study.dense,
        batches,
        epochs=1,
        learning_rate=LEARNING_RATE,
        progress=lambda step, loss: losses.append(loss) or print(step, round(loss, 4), flush=True),
    )
    return {**described(study, model), "losses": losses}


def rows(study: Study) -> list[tuple[str, ...]]:
    ways = {
        "ours, width of each layer, recovery": lambda: study.compressed(per_layer(study)),
        "ours, uniform, recovery": lambda: study.compressed(UNIFORM),
        "optipfair data-driven, our recovery": lambda: load_causal_model(peer_folder(study, "optipfair_data")),
    }
    cells = {
        label: study.cell("recovery-" + label.replace(",", "").replace(" ", "-"), lambda w=way: recovered(study, w()))
        for label, way in ways.items()
    }
    return table_of(study, cells)
