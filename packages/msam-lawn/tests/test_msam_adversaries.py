"""Every adversary with every engine: the gradient of the plain loop, or a refusal that has a name."""

import collections
import contextlib

import msam_adversaries
import pytest
import torch
from msam_adversaries import ADVERSARIES, Draw
from msam_lawn import EngineError, GradientError, SettingsError
from msam_lawn.shards import shard_sizes
from msam_lawn.torch import SAM
from msam_lawn.torch.containers import leaves
from msam_lawn.torch.engines.choice import ENGINES
from msam_lawn.torch.engines.row_constant import row_constant_random
from oracles.plain_msam import plain_msam

NAMED = (EngineError, GradientError, SettingsError)


def called(model, inputs):
    if isinstance(inputs, (dict, collections.UserDict)):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def plain(case, sizes, rho, weights):
    """The oracle's gradient, with the model, the data and the random numbers as they were afterwards."""
    modules = list(case.model.modules())
    buffers = {b: b.clone() for b in case.model.buffers()}
    attributes = {m: dict(m.__dict__) for m in modules}
    values = [w.detach().clone() for w in case.model.parameters()]
    rows = [t.detach().clone() for t in leaves(case.inputs) if isinstance(t, torch.Tensor)]
    state = torch.get_rng_state()

    def loss(model, x, y):
        cut = iter(x)
        if isinstance(case.inputs, (dict, collections.UserDict)):
            inputs = dict(zip(case.inputs, cut, strict=True))
        elif isinstance(case.inputs, tuple):
            inputs = tuple(next(cut) if isinstance(t, torch.Tensor) else t for t in case.inputs)
        else:
            inputs = next(cut)
        return case.loss(called(model, inputs), y[0]).mean()

    with pytest.MonkeyPatch.context() as patch:  # what is checkpointed is run
        patch.setattr(msam_adversaries, "checkpoint", lambda run, x, use_reentrant: run(x))
        gradient = plain_msam(case.model, loss, tuple(rows), (case.targets.clone(),), sizes, rho, weights)
    torch.set_rng_state(state)
    with torch.no_grad():
        for module in modules:
            module.__dict__.update(attributes[module])
        for buffer, value in buffers.items():
            buffer.copy_(value)
        for w, value in zip(case.model.parameters(), values, strict=True):
            w.copy_(value)
    return gradient


def outcome(name, engine, seed):
    """Worst relative error over the steps, and the message of the first refusal."""
    draw = Draw(seed)
    case = ADVERSARIES[name](draw)
    try:
        return errors(name, engine, draw, case)
    finally:
        case.undo()


def errors(name, engine, draw, case):
    weights = case.weights or list(case.model.parameters())
    count, rho = (
        draw.integer(1, draw.rows // case.least_rows + (3 if case.least_rows == 1 else 1)),
        0.05 * draw.integer(1, 8),
    )
    optimizer = SAM(torch.optim.SGD(weights, lr=0.1), rho=rho, micro_batches=count, engine=engine)
    worst = 0.0
    for change in (None, *case.changes, None):
        if change is not None:
            change()
        trained = [w for w in optimizer.param_groups[0]["params"] if w.requires_grad]
        # other engines run the rows together: masks must not depend on how the rows are cut
        masks = row_constant_random() if case.random and engine != "loop" else contextlib.nullcontext()
        with masks:
            expected = None if case.refused else plain(case, shard_sizes(draw.rows, count), rho, trained)
            optimizer.zero_grad()
            before = [w.detach().clone() for w in trained]
            try:
                optimizer.backward(case.model, case.inputs, case.targets, case.loss)
            except NAMED as error:
                return worst, str(error)
        if "max_norm" not in name:
            assert all(torch.equal(a, b) for a, b in zip(trained, before, strict=True))
        size = sum(float(g.square().sum()) for g in expected if g is not None) ** 0.5
        for w, right in zip(trained, expected, strict=True):
            got = torch.zeros_like(w) if w.grad is None else w.grad.to_dense()
            worst = max(worst, float((got - (0 if right is None else right)).norm()) / size)
    return worst, None


SEEDS = 1


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", ADVERSARIES)
def test_exact_or_refused_by_name(name):
    for seed in range(SEEDS):
        for engine in ENGINES:
            worst, refusal = outcome(name, engine, seed)
            assert worst <= 1e-10, (engine, seed)
            expected = ADVERSARIES[name](Draw(seed)).refused
            if expected is not None:
                assert refusal is not None, (engine, seed)
                assert expected in refusal or engine not in ("auto", "loop")
            elif engine in ("auto", "loop"):
                assert refusal is None, (engine, seed)
