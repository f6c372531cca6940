import copy
import io

import pytest
import torch
from msam_lawn import GradientError, PrecisionWarning, cosine_rho, linear_rho
from msam_lawn.torch import LAWN, SAM
from msam_lawn_cases import case, flat, gradients, losses
from torch import nn


def batch(seed=0, rows=16):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 5, generator=generator)
    return x, (x.sum(1) > 0).long() + (x[:, 0] > 1).long()


def net(dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)


def mean_loss(model, x, y):
    return nn.functional.cross_entropy(model(x), y)


def sgd(model, **settings):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **settings)


def train(step, steps=60):
    """Losses of ``step(x, y)`` over fresh batches."""
    return [float(step(*batch(seed))) for seed in range(steps)]


def improves(history):
    return sum(history[-10:]) < 0.6 * sum(history[:10])


def by_hand(model, base, x, y, rho):
    """One step of SAM, written out."""
    weights = list(model.parameters())
    start = [w.detach().clone() for w in weights]
    g = torch.autograd.grad(mean_loss(model, x, y), weights)
    norm = torch.sqrt(sum(part.square().sum() for part in g))
    with torch.no_grad():
        for w, part in zip(weights, g, strict=True):
            w.add_(part * (rho / (norm + 1e-12)))
    base.zero_grad()
    mean_loss(model, x, y).backward()
    with torch.no_grad():
        for w, kept in zip(weights, start, strict=True):
            w.copy_(kept)
    base.step()


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("way", ["backward", "closure", "first-second", "class"])
def test_fifty_steps_equal_sam_by_hand(kind, way):
    ours, theirs = net(torch.float64), net(torch.float64)

    def make(model):
        return sgd(model) if kind == "sgd" else torch.optim.Adam(model.parameters(), lr=1e-2)

    base = make(theirs)
    if way == "class":
        cls, extra = (
            (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}) if kind == "sgd" else (torch.optim.Adam, {"lr": 1e-2})
        )
        optimizer = SAM(ours.parameters(), cls, rho=0.1, **extra)
    else:
        optimizer = SAM(make(ours), rho=0.1)
    for seed in range(50):
        x, y = batch(seed)
        x = x.double()
        by_hand(theirs, base, x, y, 0.1)
        if way == "backward":
            optimizer.zero_grad()
            optimizer.backward(ours, x, y, losses)
            optimizer.step()
        elif way == "first-second":
            mean_loss(ours, x, y).backward()
            optimizer.first_step(zero_grad=True)
            mean_loss(ours, x, y).backward()
            optimizer.second_step(zero_grad=True)
        else:

            def closure(x=x, y=y):
                loss = mean_loss(ours, x, y)
                loss.backward()
                return loss

            before = float(mean_loss(ours, x, y).detach())
            assert float(optimizer.step(closure).detach()) == pytest.approx(before, rel=1e-12)
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=0, atol=1e-12)
    assert optimizer.steps_taken == 50


def test_closure_with_micro_batches_equals_backward():
    results = []
    for closed in (True, False):
        model = net(torch.float64)
        optimizer = SAM(sgd(model), rho=0.1, micro_batches=3)
        for seed in range(5):
            x, y = batch(seed)
            x = x.double()
            if closed:

                def closure(rows, model=model, x=x, y=y):
                    loss = mean_loss(model, x[rows], y[rows])
                    loss.backward()
                    return loss

                loss = optimizer.step(closure, rows=16)
            else:
                optimizer.zero_grad()
                loss = optimizer.backward(model, x, y, losses)
                optimizer.step()
        results.append((flat(model), float(loss)))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-10, atol=1e-12)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-10)


@pytest.mark.parametrize("closed", [True, False])
def test_radius_zero_is_bitwise_the_base_optimizer(closed):
    ours, theirs = net(), net()
    optimizer, base = SAM(sgd(ours), rho=0.0, micro_batches=1), sgd(theirs)
    for seed in range(10):
        x, y = batch(seed)
        base.zero_grad()
        losses(theirs(x), y).mean().backward()
        base.step()
        if closed:

            def closure(x=x, y=y):
                loss = losses(ours(x), y).mean()
                loss.backward()
                return loss

            optimizer.step(closure)
        else:
            optimizer.zero_grad()
            optimizer.backward(ours, x, y, losses)
            optimizer.step()
    assert torch.equal(flat(ours), flat(theirs))


def test_step_without_a_sam_gradient_is_refused():
    model = net()
    optimizer = SAM(sgd(model))
    x, y = batch()
    mean_loss(model, x, y).backward()
    before = flat(model)
    with pytest.raises(GradientError, match="would be a step of the base optimizer"):
        optimizer.step()
    with pytest.raises(GradientError, match="that no step has used"):
        optimizer.step(lambda: mean_loss(model, x, y))
    optimizer.zero_grad()
    with pytest.raises(GradientError, match="found no gradient"):
        optimizer.step(lambda: mean_loss(model, x, y))
    with pytest.raises(GradientError, match=r"second_step\(\) without first_step"):
        optimizer.second_step()
    assert torch.equal(flat(model), before)


@pytest.mark.parametrize("failing", [1, 2])
def test_weights_survive_a_closure_that_raises(failing):
    model = net()
    optimizer = SAM(sgd(model), rho=0.5)
    x, y = batch()
    before, calls = flat(model), []

    def closure():
        calls.append(0)
        loss = mean_loss(model, x, y)
        loss.backward()
        if len(calls) == failing:
            raise RuntimeError("out of memory")
        return loss

    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(closure)
    assert torch.equal(flat(model), before)
    assert len(calls) == failing


@pytest.mark.parametrize("engine", ["loop", "low-rank"])
@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_non_finite_gradients_skip_the_step(engine, bad):
    model = net()
    optimizer = SAM(sgd(model), engine=engine, micro_batches=4)
    x, y = batch()
    optimizer.backward(model, x, y, losses)
    optimizer.step()
    before = flat(model)
    x = x.clone()
    x[3, 0] = bad
    optimizer.zero_grad()
    optimizer.backward(model, x, y, losses)
    optimizer.step()
    assert torch.equal(flat(model), before)
    assert (optimizer.steps_taken, optimizer.skipped_steps) == (1, 1)


def test_finite_gradients_whose_squares_overflow_are_used():
    w = nn.Parameter(torch.zeros(2))
    optimizer = SAM(torch.optim.SGD([w], lr=1e-30), rho=0.05)
    optimizer.step(lambda: ((1e30 * w).sum().backward(), w.detach().sum())[1])
    assert (optimizer.steps_taken, optimizer.skipped_steps) == (1, 0)
    torch.testing.assert_close(w.detach(), torch.full((2,), -1.0))


@pytest.mark.parametrize("engine", ["loop", "low-rank", "vmap"])
def test_a_stationary_point_stays_put(engine):
    model = nn.Linear(4, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), engine=engine)
    optimizer.backward(model, torch.randn(8, 4), torch.zeros(8, 1), lambda o, t: (o - t).square().mean(1))
    optimizer.step()
    assert torch.equal(model.weight, torch.zeros(1, 4))
    assert optimizer.steps_taken == 1


def test_batch_norm_counts_one_batch_a_closure_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    optimizer = SAM(sgd(model))
    x, y = batch()

    def closure():
        loss = mean_loss(model, x, y)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert int(model[1].num_batches_tracked) == 1


def test_accumulation_equals_one_mini_batch_of_more_micro_batches():
    x, y = batch(rows=16)
    x = x.double()
    models = [net(torch.float64), net(torch.float64)]
    whole = SAM(sgd(models[0]), rho=0.1, micro_batches=4)
    whole.backward(models[0], x, y, losses)
    whole.step()
    parts = SAM(sgd(models[1]), rho=0.1, micro_batches=2)
    for rows in (slice(0, 8), slice(8, 16)):
        parts.backward(models[1], x[rows], y[rows], losses, share=0.5)
    parts.step()
    torch.testing.assert_close(flat(models[0]), flat(models[1]), rtol=1e-12, atol=1e-14)


def test_trains_with_accumulation_clipping_and_a_scheduler():
    model = net()
    optimizer = SAM(torch.optim.AdamW(model.parameters(), lr=3e-2), rho=0.05, micro_batches=4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)

    def step(x, y):
        optimizer.zero_grad()
        for rows in (slice(0, 8), slice(8, 16)):
            loss = optimizer.backward(model, x[rows], y[rows], losses, share=0.5)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        assert float(torch.sqrt(sum(g.square().sum() for g in gradients(model)))) <= min(float(norm), 0.5) + 1e-5
        optimizer.step()
        scheduler.step()
        return loss

    assert improves(train(step))
    assert optimizer.base_optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("engine", ["loop", "low-rank"])
def test_trains_with_a_gradient_scaler_and_bfloat16_over_float32_weights(engine):
    model = net()
    optimizer = SAM(sgd(model), rho=0.05, micro_batches=4, engine=engine)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def step(x, y):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = optimizer.backward(model, x, y, losses, scaler=scaler)
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss

    assert improves(train(step))
    assert all(w.dtype == torch.float32 for w in model.parameters())
    assert optimizer.steps_taken == 60


def test_autocast_copies_of_the_weights_do_not_hide_the_perturbation():
    """torch.autocast keeps 16-bit copies of weights; a stale copy would make the second pass the first one again."""
    x, y = batch()
    found = []
    for rho in (0.0, 2.0):
        model = net()
        optimizer = SAM(sgd(model), rho=rho, engine="loop")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            optimizer.backward(model, x, y, losses)
        found.append(torch.cat([g.reshape(-1) for g in gradients(model)]))
    assert float((found[0] - found[1]).norm() / found[0].norm()) > 0.1


def test_a_gradient_scaler_skips_and_nothing_advances():
    model = net()
    lawn = LAWN(sgd(model), [model[2].weight], free_steps=1)
    optimizer = SAM(lawn, rho=0.05)
    scaler = torch.amp.GradScaler("cpu")
    x, y = batch()
    before = flat(model)
    optimizer.backward(model, x * torch.inf, y, losses, scaler=scaler)
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(flat(model), before)
    assert optimizer.steps_taken == lawn.steps_taken == 0
    assert lawn.phase == "free"


def test_sixteen_bit_weights_are_warned_of_once():
    model = net(torch.bfloat16)
    optimizer = SAM(sgd(model), engine="loop")
    x, y = batch()
    with pytest.warns(PrecisionWarning, match="16 bits"):
        optimizer.backward(model, x.bfloat16(), y, losses)
    optimizer.backward(model, x.bfloat16(), y, losses)


def test_trains_under_accelerate():
    Accelerator = pytest.importorskip("accelerate").Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    sam = SAM(sgd(net()), rho=0.05, micro_batches=4)
    model = net()
    sam = SAM(sgd(model), rho=0.05, micro_batches=4)
    model, optimizer = accelerator.prepare(model, sam)

    def step(x, y):
        for rows in (slice(0, 8), slice(8, 16)):
            with accelerator.accumulate(model):
                loss = sam.backward(model, x[rows], y[rows], losses, share=0.5)
                optimizer.step()
                optimizer.zero_grad()
        return loss

    assert improves(train(step))
    assert sam.steps_taken == 60


def saved(state):
    """Through a file, as a checkpoint that holds no pickled code."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("stop", [3, 8, 15], ids=["free", "warm-up", "constrained"])
@pytest.mark.parametrize("mid_accumulation", [False, True])
def test_resume_is_bitwise_in_every_phase(stop, mid_accumulation):
    def build(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
        lawn = LAWN(
            torch.optim.Adam(model.parameters(), lr=1e-2),
            [model[0].weight, model[3].weight],
            free_steps=5,
            warmup_steps=5,
        )
        return model, SAM(lawn, rho=linear_rho(0.0, 0.1, 20), micro_batches=4)

    def half(model, optimizer, seed, rows):
        x, y = batch(seed)
        optimizer.backward(model, x[rows], y[rows], losses, share=0.5)

    def finish(model, optimizer, start, resumed_half):
        for seed in range(start, 20):
            if not (resumed_half and seed == start):
                optimizer.zero_grad()
                half(model, optimizer, seed, slice(0, 8))
            half(model, optimizer, seed, slice(8, 16))
            optimizer.step()

    model, optimizer = build(0)
    for seed in range(stop):
        optimizer.zero_grad()
        half(model, optimizer, seed, slice(0, 8))
        half(model, optimizer, seed, slice(8, 16))
        optimizer.step()
    if mid_accumulation:
        optimizer.zero_grad()
        half(model, optimizer, stop, slice(0, 8))
    checkpoint = saved(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
    )
    finish(model, optimizer, stop, mid_accumulation)

    resumed, again = build(99)
    resumed.load_state_dict(checkpoint["model"])
    again.load_state_dict(checkpoint["optimizer"])
    torch.set_rng_state(checkpoint["random"])
    finish(resumed, again, stop, mid_accumulation)
    assert torch.equal(flat(resumed), flat(model))
    assert again.steps_taken == optimizer.steps_taken == 20
    assert again.base_optimizer.norms == optimizer.base_optimizer.norms


def test_state_of_another_optimizer_is_refused():
    model = net()
    base = sgd(model)
    with pytest.raises(KeyError, match="has no 'sam'"):
        SAM(sgd(model)).load_state_dict(base.state_dict())


def test_groups_and_state_are_the_base_optimizers():
    model = net()
    base = sgd(model)
    optimizer = SAM(base)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))], "lr": 0.5})
    assert optimizer.param_groups is base.param_groups
    assert len(base.param_groups) == 2
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert optimizer.state is base.state
    assert optimizer.param_groups is base.param_groups


def test_rho_schedules():
    model = net()
    optimizer = SAM(sgd(model), rho=cosine_rho(0.2, 0.0, steps=2))
    seen = []
    for seed in range(3):
        seen.append(optimizer.rho)
        optimizer.zero_grad()
        optimizer.backward(model, *batch(seed), losses)
        optimizer.step()
    assert seen == pytest.approx([0.2, 0.1, 0.0])
    optimizer.rho = 0.7
    assert optimizer.rho == 0.7


def test_quadratic_in_closed_form():
    """L_i = (w - a_i)' H_i (w - a_i) / 2: grad L_i(w + eps_i) = g_i + rho H_i g_i / ||g_i||, exactly."""
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(4).double())
    roots = torch.randn(6, 4, 4).double()
    H, a = roots @ roots.transpose(1, 2), torch.randn(6, 4).double()

    class Quadratic(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = w

        def forward(self, H, a):
            return ((self.w - a)[:, None, :] @ H @ (self.w - a)[:, :, None]).reshape(-1) / 2

    SAM(torch.optim.SGD([w], lr=0.1), rho=0.3, micro_batches=6).backward(Quadratic(), (H, a), None, lambda o, _: o)
    g = (H @ (w.detach() - a)[:, :, None])[:, :, 0]
    unit = g / g.norm(dim=1, keepdim=True)
    expected = (g + 0.3 * (H @ unit[:, :, None])[:, :, 0]).mean(0)
    torch.testing.assert_close(w.grad, expected, rtol=1e-12, atol=1e-12)


def test_matches_the_shared_cases_under_both_calls():
    model, x, y, _ = case("encoder")
    optimizer = SAM(sgd(model), rho=0.1, micro_batches=5)
    before = mean_loss(model, x, y).detach()
    for _ in range(30):
        optimizer.zero_grad()
        optimizer.backward(model, x, y, losses)
        optimizer.step()
    assert float(mean_loss(model, x, y).detach()) < 0.5 * float(before)
