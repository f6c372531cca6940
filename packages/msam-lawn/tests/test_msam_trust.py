"""Steps that would silently be those of the base optimizer, and the containers, copies and wrappers users have."""

import copy
import io
import pickle
import random
import sys

import numpy as np
import pytest
import torch
from msam_lawn import GradientError, SettingsError, linear_rho
from msam_lawn.shards import shard_sizes
from msam_lawn.torch import LAWN, SAM
from msam_lawn.torch.engines import choice
from msam_lawn.torch.engines.fingerprint import call_key, model_key
from msam_lawn.torch.objective import make_objective
from msam_lawn_cases import flat, losses
from oracles.plain_msam import plain_msam
from torch import nn


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def batch(seed=0, rows=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 5, generator=generator, dtype=torch.float64), torch.arange(rows) % 3


def sgd(model, **settings):
    return SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), **{"rho": 0.3, **settings})


def closure_of(model, x, y, part=1.0):
    def closure():
        loss = part * losses(model(x), y).mean()
        loss.backward()
        return loss

    return closure


# --- no silent plain descent ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.3])
@pytest.mark.parametrize("engine", ["auto", "loop", "low-rank", "vmap"])
def test_a_model_that_the_optimizer_does_not_hold(engine, rho):
    model, other = net(0), net(1)
    optimizer = sgd(model, engine=engine, rho=rho)
    with pytest.raises((GradientError, ValueError), match=r"hold|not in the model|does not have"):
        optimizer.backward(other, *batch(), losses)
    assert all(w.grad is None for w in model.parameters())
    with pytest.raises(GradientError, match="without a SAM gradient"):
        optimizer.step()


def test_a_loss_that_needs_no_gradient():
    model = net()
    with pytest.raises(GradientError, match="does not require a gradient"):
        sgd(model).backward(model, *batch(), lambda o, t: losses(o.detach(), t))


def test_only_unmoved_groups_have_gradients():
    model, idle = net(), nn.Linear(2, 2).double()
    groups = [{"params": list(model.parameters()), "rho_scale": 0.0}, {"params": list(idle.parameters())}]
    with pytest.raises(GradientError, match="no parameter of the optimizer that moves"):
        SAM(torch.optim.SGD(groups, lr=0.1)).backward(model, *batch(), losses)


def test_gradients_cleared_behind_the_optimizer():
    model = net()
    optimizer = sgd(model)
    optimizer.backward(model, *batch(), losses)
    model.zero_grad()
    with pytest.raises(GradientError, match="is gone"):
        optimizer.step()


def test_an_optimizer_that_steps_in_the_backward_pass():
    model = net()
    for w in model.parameters():
        w.register_post_accumulate_grad_hook(lambda w: setattr(w, "grad", None))
    with pytest.raises(GradientError, match="a hook took the gradients away"):
        sgd(model, engine="loop").backward(model, *batch(), losses)


def test_accumulation_by_plain_backward_passes_is_refused():
    """What trainers do with accumulate_grad_batches=2: backward, then step(closure) with the second batch."""
    model = net()
    optimizer = sgd(model)
    before = flat(model)
    closure_of(model, *batch(0), 0.5)()
    with pytest.raises(GradientError, match=r"accumulate with optimizer.backward\(\.\.\., share=1 / steps\)"):
        optimizer.step(closure_of(model, *batch(1), 0.5))
    assert torch.equal(flat(model), before)
    optimizer.zero_grad()
    optimizer.step(closure_of(model, *batch(1)))
    optimizer.step(closure_of(model, *batch(2)))  # what is in .grad was used by the step before
    closure_of(model, *batch(3))()
    with pytest.raises(GradientError, match="no step has used"):
        optimizer.step(closure_of(model, *batch(3)))


def test_a_part_that_zero_grad_discarded():
    model = net()
    optimizer = sgd(model)
    optimizer.backward(model, *batch(0), losses, share=0.5)
    optimizer.zero_grad()
    optimizer.backward(model, *batch(1), losses, share=0.5)
    with pytest.raises(GradientError, match=r"discarded a part of 0.5 of the mini-batch, and 0.5 of it is left"):
        optimizer.step()
    optimizer.zero_grad()  # a new start: both parts
    for seed in (0, 1):
        optimizer.backward(model, *batch(seed), losses, share=0.5)
    optimizer.step()
    optimizer.backward(model, *batch(2), losses)  # a whole one dropped, as after a loss that is not finite
    optimizer.zero_grad()
    optimizer.backward(model, *batch(3), losses)
    optimizer.step()
    assert optimizer.steps_taken == 2


def test_first_and_second_step_out_of_order():
    model = net()
    optimizer = sgd(model)
    before = flat(model)
    closure_of(model, *batch())()
    optimizer.first_step()
    for wrong, message in (
        (optimizer.first_step, "first_step.. twice"),
        (optimizer.step, "between"),
        (lambda: optimizer.backward(model, *batch(), losses), "between"),
        (lambda: copy.deepcopy(optimizer), "between"),
        (optimizer.second_step, "without a gradient at the perturbed weights"),
    ):
        with pytest.raises(GradientError, match=message):
            wrong()
    assert torch.equal(flat(model), before)


def test_sharded_parameters_are_refused():
    class DTensor(nn.Parameter):
        placements = ()

    model = net()
    model[0].weight = DTensor(model[0].weight.data)
    with pytest.raises(SettingsError, match="is sharded"):
        sgd(model).backward(model, *batch(), losses)


def test_sam_around_sam_is_refused():
    with pytest.raises(SettingsError, match="is a SAM already"):
        SAM(sgd(net()))


# --- trained sets that change -----------------------------------------------------------------------------------------


def test_groups_added_and_weights_thawed_between_steps():
    model = net()
    model[0].requires_grad_(False)
    optimizer = SAM(torch.optim.SGD(model[2].parameters(), lr=0.1), rho=0.3, micro_batches=8)
    x, y = batch()
    for change in (lambda: None, lambda: optimizer.add_param_group({"params": [*model[0].parameters()]}), None):
        if change is None:
            model[0].requires_grad_(True)
        else:
            change()
        trained = [w for group in optimizer.param_groups for w in group["params"] if w.requires_grad]
        optimizer.zero_grad()
        optimizer.backward(model, x, y, losses)
        expected = plain_msam(model, lambda m, x, y: losses(m(*x), *y).mean(), (x,), (y,), [1] * 8, 0.3, trained)
        for w, g in zip(trained, expected, strict=True):
            torch.testing.assert_close(w.grad, g, rtol=1e-10, atol=1e-13)
        optimizer.step()
    assert len(trained) == 4


# --- batches, copies, checkpoints, wrappers ---------------------------------------------------------------------------


def test_a_short_last_batch_has_a_row_in_each_micro_batch():
    assert shard_sizes(3, micro_batches=8) == (1, 1, 1)
    model = net()
    optimizer = sgd(model, micro_batches=8)
    x, y = batch(rows=3)
    optimizer.backward(model, x, y, losses)
    weights = list(model.parameters())
    expected = plain_msam(model, lambda m, x, y: losses(m(*x), *y).mean(), (x,), (y,), [1, 1, 1], 0.3, weights)
    for w, g in zip(weights, expected, strict=True):
        torch.testing.assert_close(w.grad, g, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("lawn", [False, True])
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_copies_go_on_alike(way, lawn):
    model = net()
    base = torch.optim.Adam(model.parameters(), lr=0.01)
    inner = LAWN(base, [model[0].weight], free_steps=1) if lawn else base
    optimizer = SAM(inner, rho=linear_rho(0.1, 0.2, 5), micro_batches=4)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)

    def step(model, optimizer, seed):
        optimizer.zero_grad()
        optimizer.backward(model, *batch(seed), losses)
        optimizer.step()

    for seed in range(3):
        step(model, optimizer, seed)
    if way == "deepcopy":
        again, twin = copy.deepcopy((model, optimizer))
    elif way == "pickle":
        again, twin = pickle.loads(pickle.dumps((model, optimizer)))
    else:
        buffer = io.BytesIO()
        torch.save((model, optimizer), buffer)
        buffer.seek(0)
        again, twin = torch.load(buffer, weights_only=False)
    assert twin.base_optimizer.param_groups is twin.param_groups
    assert twin.state is twin.base_optimizer.state
    for seed in range(3, 6):
        step(model, optimizer, seed)
        step(again, twin, seed)
    assert torch.equal(flat(model), flat(again))
    assert twin.steps_taken == optimizer.steps_taken == 6


def test_distributed_checkpoint_before_the_first_step():
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    model = net()
    lawn = LAWN(torch.optim.Adam(model.parameters(), lr=0.1), [model[0].weight], free_steps=1)
    optimizer = SAM(lawn)
    before = flat(model)
    state = get_optimizer_state_dict(model, optimizer)
    assert set(state["state"]) == {name for name, _ in model.named_parameters()}
    assert (optimizer.steps_taken, lawn.steps_taken) == (0, 0)
    assert torch.equal(flat(model), before)


def test_a_trainers_shallow_wrapper_with_a_closure_that_does_nothing():
    """Lightning's optimizers(): a copy of the attributes whose step() hands a closure to the real one."""
    model = net()
    real = sgd(model, micro_batches=4)

    class Wrapper(SAM):
        def __init__(self, optimizer):
            self.__dict__ = dict(optimizer.__dict__)

        def step(self):
            return real.step(closure=lambda: None)

    wrapper = Wrapper(real)
    for seed in range(3):
        wrapper.zero_grad()
        wrapper.backward(model, *batch(seed), losses)
        wrapper.step()
    assert real.steps_taken == wrapper.steps_taken == 3
    wrapper.backward(model, *batch(3), losses)
    with pytest.raises(GradientError, match="made gradients of its own"):
        real.step(closure_of(model, *batch(3)))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_sparse_gradients_step():
    model = nn.Sequential(nn.EmbeddingBag(9, 4, sparse=True, mode="sum"), nn.Linear(4, 3)).double()
    optimizer = SAM(torch.optim.Adagrad(model.parameters(), lr=0.1), rho=0.1, micro_batches=3, adaptive="squared")
    ids = torch.arange(24).reshape(8, 3) % 9
    first = float(optimizer.backward(model, ids, torch.arange(8) % 3, losses))
    for _ in range(30):
        optimizer.step()
        optimizer.zero_grad()
        last = optimizer.backward(model, ids, torch.arange(8) % 3, losses)
    assert float(last) < 0.5 * first


def test_both_passes_draw_the_same_numbers_from_python_and_numpy():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.seen = nn.Linear(5, 3), []

        def forward(self, x):
            self.seen.append((random.random(), np.random.rand()))  # noqa: NPY002
            return self.inner(x)

    model = Noisy().double()
    sgd(model, engine="loop", micro_batches=2).backward(model, *batch(), losses)
    assert model.seen[0] == model.seen[1] != model.seen[2] == model.seen[3]


def test_the_check_leaves_everything_as_it_was():
    model = nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.5), nn.Linear(6, 3))
    model.register_buffer("seen", torch.ones(()))
    model[0].register_forward_hook(lambda m, x, out: (model.seen.mul_(2), None)[1])
    objective = make_objective(model, batch()[0].float(), batch()[1], losses, None, 4, None)
    optimizer = sgd(model, micro_batches=4)
    state, numbers = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    choice.choose_engine(objective, optimizer._perturbation(), model, "auto")
    assert torch.equal(torch.get_rng_state(), numbers)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), state.values(), strict=True))
    assert all(w.grad is None for w in model.parameters())


def test_a_key_costs_some_calls_a_module():
    """Read off before every step: counted, because it must stay far below a forward pass."""

    def calls(layers):
        model = nn.Sequential(*(nn.Linear(5, 5) for _ in range(layers)))
        optimizer = sgd(model)
        objective = make_objective(model, torch.ones(4, 5), torch.ones(4), losses, None, 2, None)
        perturbation, count = optimizer._perturbation(), [0]

        def counting(frame, event, argument):
            count[0] += event in ("call", "c_call")

        sys.setprofile(counting)
        try:
            model_key(objective, perturbation)
            call_key(objective, model)
        finally:
            sys.setprofile(None)
        return count[0]

    assert (calls(30) - calls(10)) / 20 <= 80


def test_one_check_serves_until_something_changes(monkeypatch):
    made = []
    kept = choice._check
    monkeypatch.setattr(choice, "_check", lambda *given: made.append(0) or kept(*given))
    model = net()
    optimizer = sgd(model, micro_batches=8)
    x, y = batch()
    for _ in range(10):
        optimizer.backward(model, x, y, lambda o, t: nn.functional.cross_entropy(o, t, reduction="none"))
    assert len(made) == 1
    model.eval()
    optimizer.backward(model, x, y, losses)
    assert len(made) == 2
    model.train()
    for _ in range(8):  # the 16th use is checked again, on other rows
        optimizer.backward(model, x, y, lambda o, t: nn.functional.cross_entropy(o, t, reduction="none"))
    assert len(made) <= 4
