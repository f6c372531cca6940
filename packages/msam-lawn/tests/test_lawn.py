import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from msam_lawn import HomogeneityError, SettingsError
from msam_lawn.jax import lawn
from msam_lawn.torch import LAWN, SAM, homogeneous_tail
from msam_lawn_cases import flat, losses
from torch import nn


class Lamb(torch.optim.Optimizer):
    """LAMB (You et al. 2020) without decay: Adam's direction times ||w|| / ||direction||."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for w in group["params"]:
                state = self.state[w]
                if not state:
                    state.update(step=0, m=torch.zeros_like(w), v=torch.zeros_like(w))
                state["step"] += 1
                t = state["step"]
                state["m"].lerp_(w.grad, 0.1)
                state["v"].lerp_(w.grad.square(), 0.001)
                direction = state["m"] / (1 - 0.9**t) / ((state["v"] / (1 - 0.999**t)).sqrt() + 1e-6)
                w.sub_(direction, alpha=float(group["lr"] * w.norm() / direction.norm()))


BASES = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.0),
    "lamb": lambda p: Lamb(p, lr=0.01),
}


def relu_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 5, generator=generator)
    return x, (x.sum(1) > 0).long()


@pytest.mark.parametrize("with_sam", [False, True])
@pytest.mark.parametrize("base", BASES)
def test_phases_norms_and_training(base, with_sam):
    model = relu_net()
    weights = homogeneous_tail(model, torch.randn(2, 5)).weights
    inner = LAWN(BASES[base](model.parameters()), weights, free_steps=5, warmup_steps=5)
    optimizer = SAM(inner, rho=0.05, micro_batches=4) if with_sam else inner
    history = []
    for seed in range(60):
        assert inner.phase == ("free" if seed < 5 else "warm-up" if seed < 10 else "constrained")
        if seed == 5:
            held = [float(w.detach().double().norm()) for w in weights]
        optimizer.zero_grad()
        if with_sam:
            history.append(float(optimizer.backward(model, *batch(seed), losses)))
        else:
            loss = losses(model(batch(seed)[0]), batch(seed)[1]).mean()
            loss.backward()
            history.append(float(loss.detach()))
        before = [w.detach().clone() for w in weights]
        lengths = [float(w.grad.norm()) for w in weights]  # rounding is relative to the gradient before projection
        optimizer.step()
        if seed >= 5:
            for w, start, length, norm, own in zip(weights, before, lengths, held, inner.norms, strict=True):
                assert abs(float(w.detach().double().norm()) / norm - 1) <= 1e-6
                assert own == pytest.approx(norm, rel=1e-7)
                assert abs(float((w.grad * start).sum())) <= 1e-6 * length * float(start.norm())
    assert sum(history[-10:]) < 0.7 * sum(history[:10])


def test_free_phase_is_the_base_optimizer_bitwise():
    ours, theirs = relu_net(), relu_net()
    optimizer, base = (
        LAWN(BASES["adam"](ours.parameters()), [ours[0].weight], free_steps=10),
        BASES["adam"](theirs.parameters()),
    )
    for seed in range(10):
        for model, step in ((ours, optimizer), (theirs, base)):
            step.zero_grad()
            losses(model(batch(seed)[0]), batch(seed)[1]).mean().backward()
            step.step()
    assert torch.equal(flat(ours), flat(theirs))


def test_norms_do_not_drift_in_ten_thousand_steps():
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(20, 30))
    optimizer = LAWN(torch.optim.SGD([w], lr=0.01), [w], free_steps=0)
    start = float(w.detach().double().norm())
    noise = torch.randn(16, 20, 30)
    for step in range(10_000):
        w.grad = noise[step % 16].clone()
        optimizer.step()
    assert abs(float(w.detach().double().norm()) / start - 1) <= 1e-6


def test_a_large_tensors_norm_is_held_as_well():
    # summed in float32 in one go, a million squares are wrong by 1e-5
    torch.manual_seed(0)
    w = nn.Parameter(0.03 * torch.randn(1000, 1000))
    optimizer = LAWN(torch.optim.Adam([w], lr=1e-3), [w], free_steps=0)
    start = float(w.detach().double().norm())
    for _ in range(3):
        w.grad = torch.randn(1000, 1000) + w.detach()
        before, length = w.detach().double(), float(w.grad.double().norm())
        optimizer.step()
        assert abs(float((w.grad.double() * before).sum())) <= 1e-6 * length * start
        assert abs(float(w.detach().double().norm()) / start - 1) <= 1e-6


def test_one_constrained_sgd_step_by_hand():
    w = nn.Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    optimizer = LAWN(torch.optim.SGD([w], lr=0.5), [w], free_steps=0)
    w.grad = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    optimizer.step()
    # tangent gradient (1, 0) - 3/25 (3, 4) = (.64, -.48); w - .5 g = (2.68, 4.24); back to length 5
    moved = np.array([2.68, 4.24])
    np.testing.assert_allclose(w.detach().numpy()[0], 5 * moved / np.linalg.norm(moved), rtol=1e-12)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_torch_and_optax_trajectories_agree(kind):
    model = relu_net()
    start = [w.detach().numpy().copy() for w in model.parameters()]
    base = (
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if kind == "sgd"
        else torch.optim.Adam(model.parameters(), lr=0.01)
    )
    optimizer = LAWN(base, [model[0].weight, model[2].weight], free_steps=10, warmup_steps=10)
    inner = optax.sgd(0.1, momentum=0.9) if kind == "sgd" else optax.adam(0.01)
    theirs = lawn(inner, [True, False, True, False], free_steps=10, warmup_steps=10)
    params = [jnp.asarray(w) for w in start]
    state = theirs.init(params)
    traces = []

    @jax.jit
    def step(params, state, x, y):
        traces.append(0)

        def loss(p):
            logits = jax.nn.relu(x @ p[0].T + p[1]) @ p[2].T + p[3]
            return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(16), y])

        updates, state = theirs.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for seed in range(50):
        x, y = batch(seed)
        optimizer.zero_grad()
        losses(model(x), y).mean().backward()
        optimizer.step()
        params, state = step(params, state, x.numpy(), y.numpy())
    for w, p in zip(model.parameters(), params, strict=True):
        np.testing.assert_allclose(w.detach().numpy(), np.asarray(p), rtol=0, atol=1e-5)
    for norm, held in zip(optimizer.norms, (state.norms[0], state.norms[2]), strict=True):
        assert norm == pytest.approx(float(held), rel=1e-5)
    assert len(traces) == 1  # one compilation serves all phases


def test_bad_settings_are_named():
    model = relu_net()
    with pytest.raises(SettingsError, match=r"weight_decay=0.01 in group 0"):
        LAWN(torch.optim.AdamW(model.parameters()), [model[0].weight], free_steps=1)
    with pytest.raises(SettingsError, match=r"shape \(2, 2\) is not a parameter"):
        LAWN(BASES["sgd"](model.parameters()), [nn.Parameter(torch.ones(2, 2))], free_steps=1)
    with pytest.raises(SettingsError, match="constrained is empty"):
        LAWN(BASES["sgd"](model.parameters()), [], free_steps=1)
    with pytest.raises(SettingsError, match="free_steps=-1"):
        LAWN(BASES["sgd"](model.parameters()), [model[0].weight], free_steps=-1)


def test_a_zero_weight_stays_free_and_is_warned_of():
    w, v = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = LAWN(torch.optim.SGD([w, v], lr=0.1), [w, v], free_steps=0)
    w.grad, v.grad = torch.ones(2, 2), torch.randn(2, 2)
    with pytest.warns(UserWarning, match="is zero at the switch"):
        optimizer.step()
    torch.testing.assert_close(w.detach(), torch.full((2, 2), -0.1))
    assert float(v.detach().norm()) == pytest.approx(2.0)


def test_a_group_added_after_the_switch_is_held_from_then_on():
    w, late = nn.Parameter(torch.ones(2, 2)), nn.Parameter(3 * torch.ones(2, 2))
    optimizer = LAWN(torch.optim.SGD([w], lr=0.1), [w], free_steps=0)
    w.grad = torch.randn(2, 2)
    optimizer.step()
    optimizer.add_param_group({"params": [late], "lawn_constrained": True})
    late.grad = torch.randn(2, 2)
    optimizer.step()
    assert float(late.detach().norm()) == pytest.approx(6.0)
    average = [torch.rand(2, 2), torch.rand(2, 2)]
    optimizer.retract_average(average)
    assert [float(part.norm()) for part in average] == pytest.approx([2.0, 6.0])


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.head(torch.relu(self.norm(self.inner(x)) + x).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(6, 8)
        self.qkv = nn.Linear(8, 24)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.embedding(x)
        q, k, v = self.qkv(x).chunk(3, -1)
        x = x + torch.softmax(q @ k.transpose(1, 2), -1) @ v
        return self.head(self.norm(x).mean(1))


def vgg():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(8, 5),
    )


@pytest.mark.parametrize(
    ("model", "x", "degree", "ends_at"),
    [
        (relu_net(), torch.randn(4, 5), 2, "the inputs"),
        (vgg(), torch.randn(4, 3, 8, 8), 4, "the inputs"),
        (Residual(), torch.randn(4, 3, 8, 8), 1, "relu"),
        (Attention(), torch.randn(4, 3, 6), 1, "norm (LayerNorm)"),
        (nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), torch.randn(4, 5), 1, "1 (Tanh)"),
    ],
    ids=["mlp", "vgg", "resnet", "transformer-head", "tanh"],
)
def test_homogeneous_tail_scales_the_output_by_its_degree(model, x, degree, ends_at):
    tail = homogeneous_tail(model, x)
    assert tail.degree == degree
    assert ends_at in tail.ends_at or tail.ends_at.startswith("add")
    model = model.double().eval()
    with torch.no_grad():
        for name, layer in model.named_modules():
            if f"{name}.weight" in tail.names and layer.bias is not None:
                layer.bias.zero_()
        plain = model(x.double())
        for w in tail.weights:
            w.mul_(3.0)
        torch.testing.assert_close(model(x.double()), 3.0**degree * plain, rtol=1e-12, atol=1e-12)


def test_untraceable_and_tailless_models_are_refused():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(HomogeneityError, match="cannot trace Branching"):
        homogeneous_tail(Branching(), torch.randn(2, 3))
    with pytest.raises(HomogeneityError, match="no weights follow 1 \\(LogSoftmax\\)"):
        homogeneous_tail(nn.Sequential(nn.Linear(3, 3), nn.LogSoftmax(1)), torch.randn(2, 3))
