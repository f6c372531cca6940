import contextlib
import math

import numpy as np
import pytest
import torch
from msam_lawn import EngineError, SettingsError
from msam_lawn.torch import SAM
from msam_lawn_cases import CASES, Encoder, case, flat, gradients, losses
from oracles.numpy_msam import msam_gradient
from torch import nn

CUTS = [{}, {"micro_batches": 4}, {"micro_batches": 5}, {"micro_batches": 10}, {"micro_batch_size": 4}]


def sam(model, **settings):
    return SAM(torch.optim.SGD(model.parameters(), lr=0.1), **{"rho": 0.3, **settings})


@contextlib.contextmanager
def repeatable_runs(wanted=True):
    """Deterministic algorithms: "auto" measures nothing."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def sizes_of(cut):
    count = cut.get("micro_batches", 1)
    if "micro_batch_size" in cut:
        return [4, 4, 2]
    return [len(part) for part in np.array_split(np.arange(10), count)]


def compare(model, net, x, y, optimizer, sizes, **oracle):
    weights = [w.detach().numpy().copy() for w in model.parameters()]
    expected_loss, expected = msam_gradient(net, weights, x.numpy(), y.numpy(), sizes, 0.3, **oracle)
    got = torch.cat([g.reshape(-1) for g in gradients(model)]).numpy()
    wanted = np.concatenate([g.ravel() for g in expected])
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted), expected_loss


@pytest.mark.parametrize("engine", ["loop", "vmap", "low-rank"])
@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_engines_equal_numpy(name, cut, engine):
    model, x, y, net = case(name)
    before = flat(model)
    optimizer = sam(model, engine=engine, **cut)
    loss = optimizer.backward(model, x, y, losses)
    error, expected_loss = compare(model, net, x, y, optimizer, sizes_of(cut))
    assert error <= 1e-10
    assert float(loss) == pytest.approx(expected_loss, rel=1e-12)
    assert torch.equal(flat(model), before)


@pytest.mark.parametrize("engine", ["loop", "low-rank"])
@pytest.mark.parametrize("name", CASES)
def test_weighted_losses(name, engine):
    model, x, y, net = case(name)
    weights = torch.tensor([1.0, 0, 2, 1, 0, 3, 1, 1, 0.5, 2], dtype=torch.float64)
    optimizer = sam(model, engine=engine, micro_batches=3)
    loss = optimizer.backward(model, x, y, losses, weights=weights)
    error, expected = compare(model, net, x, y, optimizer, [4, 3, 3], row_weights=weights.numpy())
    assert error <= 1e-10
    assert float(loss) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("engine", ["loop", "low-rank"])
def test_padding_tokens_count_by_their_mask(engine):
    """Token losses under a mask: the gradient is that of the list of real tokens."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7)).double()
    ids, targets = torch.randint(0, 7, (6, 5)), torch.randint(0, 7, (6, 5))
    mask = (torch.rand(6, 5) < 0.6).double()
    mask[2:4] = 0  # the second of three micro-batches is padding alone

    def token_losses(outputs, targets):
        return nn.functional.cross_entropy(outputs.transpose(1, 2), targets, reduction="none")

    optimizer = sam(model, engine=engine, micro_batches=3)
    optimizer.backward(model, ids, targets, token_losses, weights=mask)
    got = gradients(model)
    expected = [torch.zeros_like(w) for w in model.parameters()]
    start = [w.detach().clone() for w in model.parameters()]
    for rows in (slice(0, 2), slice(4, 6)):

        def mean(rows=rows):
            return (token_losses(model(ids[rows]), targets[rows]) * mask[rows]).sum() / mask[rows].sum()

        g = torch.autograd.grad(mean(), list(model.parameters()))
        norm = math.sqrt(sum(float(part.square().sum()) for part in g))
        with torch.no_grad():
            for w, part in zip(model.parameters(), g, strict=True):
                w += 0.3 * part / norm
        second = torch.autograd.grad(mean(), list(model.parameters()))
        with torch.no_grad():
            for w, kept in zip(model.parameters(), start, strict=True):
                w.copy_(kept)
        share = float(mask[rows].sum() / mask.sum())
        expected = [e + share * s for e, s in zip(expected, second, strict=True)]
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("adaptive", ["squared", "asam"])
def test_adaptive_conventions(adaptive):
    model, x, y, net = case("tanh_mlp")
    optimizer = sam(model, adaptive=adaptive, micro_batches=3)
    optimizer.backward(model, x, y, losses)
    error, _ = compare(model, net, x, y, optimizer, [4, 3, 3], adaptive=adaptive)
    assert error <= 1e-10
    assert optimizer.choices[0].engine == "loop"
    assert "adaptive" in optimizer.choices[0].reason


def test_scalar_mean_loss_gives_the_same_gradient():
    model, x, y, _ = case("encoder")
    results = []
    for engine in ("loop", "low-rank"):
        for loss in (losses, nn.functional.cross_entropy):
            model.zero_grad()
            sam(model, engine=engine, micro_batches=4).backward(model, x, y, loss)
            results.append(torch.cat([g.reshape(-1) for g in gradients(model)]))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-11, atol=1e-14)


class Wide(nn.Module):
    """GroupNorm, RMSNorm, a strided convolution, sequences: what the oracle nets do not have."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3, stride=2, padding=1, groups=1)
        self.group = nn.GroupNorm(2, 8)
        self.mix = nn.Linear(8, 40)
        self.rms = nn.RMSNorm(40)
        self.head = nn.Linear(40, 3, bias=False)

    def forward(self, x):
        x = torch.tanh(self.group(self.conv(x))).transpose(1, 2)
        return self.head(self.rms(torch.tanh(self.mix(x)))).mean(1)


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_low_rank_covers_other_layers_and_frozen_weights(cut):
    torch.manual_seed(3)
    model = Wide().double()
    model.mix.weight.requires_grad_(False)
    x, y = torch.randn(10, 3, 12, dtype=torch.float64), torch.randint(0, 3, (10,))
    found = {}
    for engine in ("loop", "low-rank"):
        model.zero_grad()
        sam(model, engine=engine, **cut).backward(model, x, y, losses)
        found[engine] = torch.cat([w.grad.reshape(-1) for w in model.parameters() if w.grad is not None])
    torch.testing.assert_close(found["low-rank"], found["loop"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("engine", ["loop", "vmap", "low-rank"])
def test_groups_can_stay_in_place(engine):
    """rho_scale 0: the tensors neither move nor count in the norm, but get their gradient."""
    model, x, y, _ = case("tanh_mlp")
    groups = [{"params": model[0].parameters(), "rho_scale": 0.0}, {"params": model[2].parameters()}]
    SAM(torch.optim.SGD(groups, lr=0.1), rho=0.3, engine=engine).backward(model, x, y, losses)
    got = gradients(model)
    head = list(model[2].parameters())
    g = torch.autograd.grad(losses(model(x), y).mean(), head)
    norm = math.sqrt(sum(float(part.square().sum()) for part in g))
    with torch.no_grad():
        for w, part in zip(head, g, strict=True):
            w += 0.3 * part / norm
    expected = torch.autograd.grad(losses(model(x), y).mean(), list(model.parameters()))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_auto_takes_low_rank_for_many_micro_batches_and_says_why():
    model, x, y, _ = case("tanh_mlp")
    optimizer = sam(model, micro_batches=10)
    optimizer.backward(model, x, y, losses)
    (choice,) = optimizer.choices
    assert choice.engine == "low-rank"
    assert "of the loop's cost for 10 micro-batches" in choice.reason


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_a_first_layer_is_not_multiplied_twice(cut, inplace, monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(40, 30), nn.ELU(inplace=inplace), nn.Linear(30, 3)).double()
    x, y = torch.randn(10, 4, 10, dtype=torch.float64), torch.randint(0, 3, (10,))
    sam(model, engine="loop", **cut).backward(model, x, y, losses)
    expected = gradients(model)
    optimizer = sam(model, engine="low-rank", **cut)
    optimizer.backward(model, x, y, losses)
    calls, linear = [], nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda layer, x: calls.append(layer) or linear(layer, x))
    optimizer.backward(model, x, y, losses)  # another forward is another model: checked anew
    calls.clear()
    optimizer.zero_grad()
    optimizer.backward(model, x, y, losses)
    # an activation that overwrites the layer's output leaves none to use again
    assert calls.count(model[1]) == (2 if inplace else 1)
    assert calls.count(model[3]) == 2
    for a, b in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_a_first_layers_frozen_parts_get_no_gradient():
    for frozen in ("weight", "bias"):
        model, x, y, _ = case("tanh_mlp")
        getattr(model[0], frozen).requires_grad_(False)
        found = {}
        for engine in ("loop", "low-rank"):
            model.zero_grad()
            trained = [w for w in model.parameters() if w.requires_grad]
            optimizer = SAM(torch.optim.SGD(trained, lr=0.1), rho=0.3, micro_batches=3, engine=engine)
            optimizer.backward(model, x, y, losses)
            found[engine] = [w.grad.clone() for w in trained]
            assert getattr(model[0], frozen).grad is None
        for a, b in zip(found["low-rank"], found["loop"], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.embedding(ids).mean(1))


class UsedOutside(nn.Module):
    """The embedding's weight is used again, by hand: no layer shows it."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 4)

    def forward(self, ids):
        return torch.tanh(self.embedding(ids).mean(1)) @ self.embedding.weight.T


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, x):
        return self.inner(torch.tanh(self.inner(x)))


class Coupled(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, x):
        z = self.inner(x)
        return z - z.mean(0)


@pytest.mark.parametrize(
    ("model", "ids", "reason"),
    [
        (Tied(), True, "tied to embedding.weight"),
        (UsedOutside(), True, "used outside its layer"),
        (Twice(), False, "runs more than once"),
        (Coupled(), False, "rows of different micro-batches meet"),
        (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)), False, "mixes the rows"),
        (nn.Sequential(nn.Bilinear(5, 5, 4)), False, "Bilinear"),
    ],
    ids=["tied", "used-outside", "twice", "coupled", "batch-norm", "unknown"],
)
def test_low_rank_refuses_what_it_cannot_do_exactly(model, ids, reason):
    torch.manual_seed(0)
    model = model.double()
    x = torch.randint(0, 9, (10, 3)) if ids else torch.randn(10, 5, dtype=torch.float64)
    x = (x, x) if "Bilinear" in reason else x
    y = torch.randint(0, 4, (10,))
    if "Bilinear" in reason:
        model = model[0]
    with pytest.raises(EngineError, match=reason):
        sam(model, engine="low-rank", micro_batches=5).backward(model, x, y, losses)
    assert all(w.grad is None for w in model.parameters())
    found = {}
    for repeatable in (True, False):
        model.zero_grad()
        optimizer = sam(model, micro_batches=5)
        with repeatable_runs(repeatable):
            optimizer.backward(model, x, y, losses)
        found[repeatable] = torch.cat([g.reshape(-1) for g in gradients(model)])
        assert reason in optimizer.choices[0].reason
        assert optimizer.choices[0].engine in (("loop",) if repeatable else ("loop", "stacked"))
    model.zero_grad()
    sam(model, engine="loop", micro_batches=5).backward(model, x, y, losses)
    expected = torch.cat([g.reshape(-1) for g in gradients(model)])
    assert torch.equal(found[True], expected)
    torch.testing.assert_close(found[False], expected, rtol=1e-10, atol=1e-13)


class Masked(nn.Module):
    """Dropout that remembers which units it kept."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 50), nn.Linear(50, 3)
        self.masks = []

    def forward(self, x):
        hidden = nn.functional.dropout(torch.ones(x.shape[0], 50), 0.5, self.training)
        self.masks.append(hidden.clone())
        return self.last(torch.tanh(self.first(x)) * hidden)


@pytest.mark.parametrize("engine", ["loop", "low-rank"])
def test_both_passes_see_one_dropout_mask(engine):
    torch.manual_seed(0)
    model = Masked()
    x, y = torch.randn(8, 5), torch.randint(0, 3, (8,))
    optimizer = sam(model, engine=engine, micro_batches=2)
    optimizer.backward(model, x, y, losses)
    model.masks.clear()
    optimizer.backward(model, x, y, losses)
    pairs = list(model.masks) if engine == "low-rank" else [torch.cat(model.masks[0::2]), torch.cat(model.masks[1::2])]
    assert torch.equal(pairs[0], pairs[1])
    assert 0 < int((pairs[0] == 0).sum()) < pairs[0].numel()
    model.masks.clear()
    optimizer.backward(model, x, y, losses)
    again = model.masks[0] if engine == "low-rank" else torch.cat(model.masks[0::2])
    assert not torch.equal(again, pairs[0])


def test_running_averages_move_once_towards_the_pooled_statistics():
    torch.manual_seed(0)
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.randint(0, 3, (8,))
    for momentum in (0.1, None):
        model = nn.Sequential(nn.BatchNorm1d(4, momentum=momentum), nn.Linear(4, 3)).double()
        sam(model, micro_batches=2).backward(model, x, y, losses)
        norm, parts = model[0], (x[:4], x[4:])
        assert int(norm.num_batches_tracked) == 1
        mean = x.mean(0)
        variance = sum(part.var(0) + (part.mean(0) - mean) ** 2 for part in parts) / 2
        rate = 0.1 if momentum else 1.0
        torch.testing.assert_close(norm.running_mean, rate * mean)
        torch.testing.assert_close(norm.running_var, (1 - rate) * torch.ones(4).double() + rate * variance)
        assert norm.momentum == momentum


def test_one_micro_batch_moves_running_averages_as_a_plain_step():
    torch.manual_seed(0)
    x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))
    states = []
    for wrapped in (True, False):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
        if wrapped:
            sam(model).backward(model, x, y, losses)
        else:
            losses(model(x), y).mean().backward()
        states.append([model[1].running_mean, model[1].running_var, model[1].num_batches_tracked])
    for a, b in zip(*states, strict=True):
        assert torch.equal(a, b)


def test_bad_input_is_named():
    model, x, y, _ = case("tanh_mlp")
    with pytest.raises(SettingsError, match=r"targets hold a tensor of shape \(9,\)"):
        sam(model).backward(model, x, y[:9], losses)
    with pytest.raises(SettingsError, match="weights sum to 0"):
        sam(model).backward(model, x, y, losses, weights=torch.zeros(10))
    with pytest.raises(SettingsError, match=r"loss returned shape \(3,\)"):
        sam(model, engine="loop").backward(model, x, y, lambda outputs, targets: outputs.mean(0))
    with pytest.raises(SettingsError, match="engine='fast'"):
        sam(model, engine="fast").backward(model, x, y, losses)
    for settings, message in [
        ({"rho": -0.1}, "rho=-0.1"),
        ({"micro_batches": 0}, "micro_batches=0"),
        ({"micro_batches": 2, "micro_batch_size": 2}, "pass one of them"),
        ({"adaptive": "yes"}, "adaptive='yes'"),
    ]:
        with pytest.raises(SettingsError, match=message):
            sam(model, **settings)


def test_mapping_and_tuple_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(2, 4)

        def forward(self, left, right):
            return torch.tanh(self.a(left)) + self.b(right)

    torch.manual_seed(0)
    model = Two().double()
    left, right = torch.randn(6, 3).double(), torch.randn(6, 2).double()
    y = torch.randint(0, 4, (6,))
    found = []
    for inputs in ((left, right), {"left": left, "right": right}):
        model.zero_grad()
        sam(model, micro_batches=3).backward(model, inputs, y, losses)
        found.append(gradients(model))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_encoder_is_traced_by_its_rows_not_its_tokens():
    """A position embedding is looked up once for all rows: the loop is taken, and the reason names it."""

    class Positions(Encoder):
        def __init__(self):
            super().__init__()
            self.position = nn.Embedding(5, 4)

        def forward(self, ids):
            tokens = self.embedding(ids) + self.position(torch.arange(ids.shape[1]))
            return self.head(torch.tanh(self.inner(self.norm(tokens))).mean(1))

    torch.manual_seed(0)
    model = Positions().double()
    optimizer = sam(model, micro_batches=5)
    with repeatable_runs():
        optimizer.backward(model, torch.randint(0, 9, (10, 5)), torch.randint(0, 3, (10,)), losses)
    assert optimizer.choices[0].engine == "loop"
    assert "position (Embedding) got an input of shape (5,)" in optimizer.choices[0].reason
