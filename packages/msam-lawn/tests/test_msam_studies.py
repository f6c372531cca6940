from dataclasses import replace

import pytest
import torch
from msam_lawn import studies
from msam_lawn.studies import Cell, Outcome, Study


def learning_rates(cell):
    """What the optimizer underneath steps with, step by step: LAWN scales the groups' rate while it steps."""
    torch.manual_seed(0)
    model = studies._network(cell)
    optimizer, schedule = studies._optimizer(cell, model, torch.randn(4, 784))
    base = getattr(optimizer, "base_optimizer", optimizer)
    seen = []
    base.register_step_pre_hook(lambda stepped, args, kwargs: seen.append(stepped.param_groups[0]["lr"]))
    for step in range(cell.epochs * cell.rows // cell.batch):
        for group in optimizer.param_groups:
            group["lr"] = cell.learning_rate * schedule(step)
        for w in model.parameters():
            w.grad = torch.zeros_like(w)
        optimizer.step()
    return seen


def test_lawn_warms_up_as_adam_and_again_at_its_switch():
    plain = Cell(optimizer="adam", learning_rate=0.1, rows=40, batch=20, epochs=50, width=4)
    adam = learning_rates(plain)
    lawn = learning_rates(replace(plain, method="lawn", free_epochs=3))
    assert adam[:10] == pytest.approx([0.01 * step for step in range(1, 11)])
    assert lawn[:6] == pytest.approx(adam[:6])
    assert lawn[6:16] == pytest.approx(adam[:10])
    assert adam[55] == pytest.approx(0.05)  # half of the 90 steps of the cosine
    assert lawn[58] == pytest.approx(0.05)  # half of its 84
    for rates in (adam, lawn):
        assert rates[-1] < 1e-4
        assert len(rates) == 100


@pytest.mark.parametrize(("init", "spread"), [("torch", (3 * 784) ** -0.5), ("he", (2 / 784) ** 0.5), ("small", 0.02)])
def test_initial_weights(init, spread):
    torch.manual_seed(0)
    first = studies._network(Cell(init=init, width=128))[0]
    assert float(first.weight.detach().std()) == pytest.approx(spread, rel=0.02)
    assert bool(first.bias.detach().any()) == (init == "torch")


def test_an_interrupted_study_goes_on_where_it_stopped(tmp_path, monkeypatch):
    made = []

    def train(cell):
        made.append(cell.seed)
        return Outcome(80.0 + cell.seed, 70.0, 0.5, 1.0, None)

    monkeypatch.setattr(studies, "train", train)
    cache = tmp_path / "runs.jsonl"
    cells = [Cell(seed=seed) for seed in range(3)]
    first = studies.run_cells(cells[:2], cache)
    cache.write_text(cache.read_text() + '{"cell": {"method": "ba')  # a run that was cut short
    with cache.open("a") as lines:
        lines.write("\n")
    assert studies.run_cells(cells, cache)[:2] == first
    assert made == [0, 1, 2]


def test_differences_are_paired():
    study = Study(
        {
            "a": [Outcome(v, 0, 0, 0, None) for v in (90, 80, 85)],
            "b": [Outcome(v, 0, 0, 0, None) for v in (88, 79, 83)],
        },
        {},
    )
    mean, error = study.difference("a", "b")
    assert (mean, error) == (pytest.approx(5 / 3), pytest.approx(1 / 3))
