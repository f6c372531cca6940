"""Three quarters of the FFN width after one pass of recovery over the calibration tokens: 32 steps, no label."""

from ffn_heavyhitter.recovery import recover
from structure import UNIFORM, described, per_layer, table_of
from study import Study


def recovered(study: Study, treatment) -> dict:
    model = study.compressed(treatment)
    batches = [{"input_ids": window[None]} for window in study.calibration]
    recover(model, study.dense, batches, epochs=1, progress=lambda step, loss: print(step, round(loss, 4), flush=True))
    return described(study, model)


def rows(study: Study) -> list[tuple[str, ...]]:
    ways = {
        "ours, width of each layer, one pass of recovery": lambda: per_layer(study),
        "ours, uniform, one pass of recovery": lambda: UNIFORM,
    }
    cells = {
        label: study.cell("recovery-" + label.replace(",", "").replace(" ", "-"), lambda w=way: recovered(study, w()))
        for label, way in ways.items()
    }
    return table_of(study, cells)
