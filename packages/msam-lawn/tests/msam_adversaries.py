"""Models and loops that break a wrong shortcut. Each draws its sizes from a generator and returns a ``Case``."""

import collections
import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

ADVERSARIES: dict[str, Callable[["Draw"], "Case"]] = {}


@dataclasses.dataclass
class Case:
    model: nn.Module
    inputs: Any
    targets: Any
    loss: Callable
    changes: tuple[Callable[[], Any], ...] = ()  # what happens to the model between steps
    weights: list | None = None  # what the optimizer holds; the model's parameters by default
    random: bool = False  # draws random numbers
    least_rows: int = 1  # of a micro-batch: one row has no variance
    undo: Callable[[], Any] = lambda: None
    refused: str | None = None  # message of the named refusal that is right here


def cross_entropy(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


class Draw:
    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        self.rows = self.integer(2, 13)
        self.width = self.integer(4, 7)

    def integer(self, low, high):
        return int(torch.randint(low, high, (), generator=self.generator))

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def ids(self, high, *shape):
        return torch.randint(0, high, shape, generator=self.generator)

    def mlp(self, middle=None, d_in=None):
        d_in = d_in or self.width
        return nn.Sequential(nn.Linear(d_in, 6), *(middle or [nn.Tanh()]), nn.Linear(6, 3)).double()

    def case(self, model, *shape, loss=cross_entropy, **settings):
        inputs = self.normal(self.rows, *(shape or (self.width,)))
        if any(isinstance(w, nn.parameter.UninitializedParameter) for w in model.parameters()):
            model.double()(inputs)
        return Case(model.double(), inputs, self.ids(3, self.rows), loss, **settings)

    def tokens(self, model, vocabulary=9, length=4, **settings):
        ids = self.ids(vocabulary, self.rows, length)
        return Case(model.double(), ids, self.ids(3, self.rows), cross_entropy, **settings)


def adversary(make):
    ADVERSARIES[make.__name__] = make
    return make


class Net(nn.Module):
    """Modules by name and a forward given as a function of the module."""

    def __init__(self, run, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.run = run

    def forward(self, *args, **kwargs):
        return self.run(self, *args, **kwargs)


def head(width=6):
    return nn.Linear(width, 3)


# --- patched, hooked, changed between steps ---------------------------------------------------------------------------


@adversary
def forward_patched_on_an_instance(draw):
    model = draw.mlp()
    lin = model[0]
    lin.forward = lambda x: 3 * nn.functional.linear(x, lin.weight, lin.bias)
    return draw.case(model)


@adversary
def forward_patched_later(draw):
    model = draw.mlp()
    lin = model[2]
    return draw.case(
        model, changes=(lambda: setattr(lin, "forward", lambda x: nn.functional.linear(x, lin.weight**2, lin.bias)),)
    )


@adversary
def patched_and_taken_away(draw):
    model = draw.mlp()
    lin = model[0]
    lin.forward = lambda x: nn.functional.linear(x, lin.weight).sin()
    return draw.case(model, changes=(lambda: lin.__dict__.pop("forward"),))


@adversary
def subclass_with_another_forward(draw):
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x) + self.weight.sum()

    return draw.case(nn.Sequential(Doubled(draw.width, 6), nn.Tanh(), head()))


@adversary
def class_changed_later(draw):
    class Squared(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(x, self.weight.square(), self.bias)

    model = draw.mlp()
    return draw.case(model, changes=(lambda: setattr(model[0], "__class__", Squared),))


@adversary
def forward_hook_scales(draw):
    model = draw.mlp()
    model[0].register_forward_hook(lambda module, x, out: out * 2.5 + x[0].sum(1, keepdim=True))
    return draw.case(model)


@adversary
def forward_hook_uses_the_weight(draw):
    model = draw.mlp()
    model[0].register_forward_hook(lambda module, x, out: out * module.weight.norm())
    return draw.case(model)


@adversary
def forward_hook_uses_the_weights_value(draw):
    model = draw.mlp()
    model[0].register_forward_hook(lambda module, x, out: out * module.weight.detach().norm())
    return draw.case(model)


@adversary
def hook_registered_later(draw):
    model = draw.mlp()
    return draw.case(
        model, least_rows=2, changes=(lambda: model[2].register_forward_hook(lambda module, x, out: out - out.mean(0)),)
    )


@adversary
def pre_hook_changes_the_input(draw):
    model = draw.mlp()
    model[2].register_forward_pre_hook(lambda module, x: (x[0].sin() + 0.1,))
    return draw.case(model)


@adversary
def pre_hook_mixes_rows(draw):
    model = draw.mlp()
    model[2].register_forward_pre_hook(lambda module, x: (x[0] - x[0].mean(0).detach(),))
    return draw.case(model)


@adversary
def full_backward_hook(draw):
    model = draw.mlp()
    model[2].register_full_backward_hook(lambda module, g_in, g_out: (g_in[0] * 2,))
    return draw.case(model)


@adversary
def weight_gradient_hook(draw):
    model = draw.mlp()
    model[0].weight.register_hook(lambda g: g * 0.25)
    return draw.case(model)


@adversary
def global_hook_later(draw):
    model = draw.mlp()
    handles = []

    def hook(module, x, out):
        return out - out.mean(0) if module is model[0] else None

    return draw.case(
        model,
        changes=(
            lambda: handles.append(nn.modules.module.register_module_forward_hook(hook)),
            lambda: handles[0].remove(),
        ),
        undo=lambda: [handle.remove() for handle in handles],
    )


@adversary
def attribute_switched_later(draw):
    def run(self, x):
        z = torch.tanh(self.a(x))
        return self.b(z - z.mean(0) if self.centred else z)

    model = Net(run, a=nn.Linear(draw.width, 6), b=head())
    model.centred = False
    return draw.case(model, changes=(lambda: setattr(model, "centred", True),))


@adversary
def attribute_function_swapped_later(draw):
    model = Net(lambda self, x: self.b(self.act(self.a(x))), a=nn.Linear(draw.width, 6), b=head())
    model.act = torch.tanh
    return draw.case(model, changes=(lambda: setattr(model, "act", lambda z: z / z.square().mean().sqrt()),))


@adversary
def counter_in_forward(draw):
    def run(self, x):
        self.calls += 1
        return self.b(torch.tanh(self.a(x)))

    model = Net(run, a=nn.Linear(draw.width, 6), b=head())
    model.calls = 0
    return draw.case(model, changes=(lambda: None,) * 2)


@adversary
def submodule_replaced_later(draw):
    model = draw.mlp()
    norm = nn.BatchNorm1d(6, affine=False).double()
    return draw.case(model, changes=(lambda: model.__setitem__(1, norm),), least_rows=2)


# --- trained sets -----------------------------------------------------------------------------------------------------


@adversary
def frozen_then_thawed(draw):
    model = draw.mlp()
    model[0].requires_grad_(False)
    return draw.case(model, changes=(lambda: model[0].requires_grad_(True),))


@adversary
def frozen_later(draw):
    model = draw.mlp()
    return draw.case(model, changes=(lambda: model[2].requires_grad_(False), lambda: model[2].requires_grad_(True)))


@adversary
def bare_parameter_thawed(draw):
    model = Net(lambda self, x: self.b(torch.tanh(self.a(x) * self.scale)), a=nn.Linear(draw.width, 6), b=head())
    model.scale = nn.Parameter(torch.ones(6), requires_grad=False)
    return draw.case(model, changes=(lambda: model.scale.requires_grad_(True),))


@adversary
def optimizer_holds_the_head_only(draw):
    model = draw.mlp()
    return draw.case(model, weights=list(model[2].parameters()))


@adversary
def optimizer_holds_another_model_too(draw):
    model = draw.mlp()
    return draw.case(model, weights=[*model.parameters(), *nn.Linear(3, 3).double().parameters()])


@adversary
def optimizer_holds_none_of_it(draw):
    return draw.case(draw.mlp(), weights=list(draw.mlp().parameters()), refused="no parameter of the optimizer")


@adversary
def loss_with_weights_of_its_own(draw):
    model, scale = draw.mlp(), nn.Parameter(draw.normal(3))
    return draw.case(model, loss=lambda o, t: cross_entropy(o * scale, t), weights=[*model.parameters(), scale])


@adversary
def unused_layer(draw):
    return draw.case(Net(lambda self, x: self.b(x), a=nn.Linear(draw.width, 6), b=head(draw.width)))


@adversary
def tied(draw):
    def run(self, x):
        return self.head(self.b(torch.tanh(self.a(x))))

    model = Net(run, a=nn.Linear(5, 5), b=nn.Linear(5, 5), head=head(5))
    model.b.weight = model.a.weight
    return draw.case(model, 5)


@adversary
def tied_by_storage(draw):
    model = Net(
        lambda self, x: self.head(self.b(torch.tanh(self.a(x)))), a=nn.Linear(5, 5), b=nn.Linear(5, 5), head=head(5)
    ).double()
    model.b.weight = nn.Parameter(model.a.weight.data)
    return draw.case(model, 5)


@adversary
def tied_later(draw):
    model = Net(lambda self, x: self.head(self.b(torch.tanh(self.a(x)))), a=nn.Linear(5, 5), b=nn.Linear(5, 5))
    model.head = head(5)
    return draw.case(model, 5, changes=(lambda: setattr(model.b, "weight", model.a.weight),))


@adversary
def tied_embedding(draw):
    model = Net(lambda self, ids: self.head(torch.tanh(self.table(ids).mean(1))), table=nn.Embedding(9, 5))
    model.head = nn.Linear(5, 9, bias=False)
    model.head.weight = model.table.weight
    return draw.tokens(model)


@adversary
def shared_layer_norm(draw):
    def run(self, x):
        return self.b(self.norm(torch.tanh(self.a(self.norm(x)))))

    return draw.case(Net(run, a=nn.Linear(6, 6), b=head(), norm=nn.LayerNorm(6)), 6)


@adversary
def layer_run_twice(draw):
    return draw.case(Net(lambda self, x: self.b(self.a(self.a(x).tanh())), a=nn.Linear(5, 5), b=head(5)), 5)


@adversary
def layer_run_twice_later(draw):
    def run(self, x):
        z = self.a(x)
        return self.b(self.a(z.tanh()) if self.deep else z)

    model = Net(run, a=nn.Linear(5, 5), b=head(5))
    model.deep = False
    return draw.case(model, 5, changes=(lambda: setattr(model, "deep", True),))


# --- weights used in other ways ---------------------------------------------------------------------------------------


@adversary
def reused_functionally(draw):
    def run(self, x):
        return self.b(torch.tanh(self.a(x)) + nn.functional.linear(x.sin(), self.a.weight))

    return draw.case(Net(run, a=nn.Linear(draw.width, 6), b=head()))


@adversary
def reused_without_gradient(draw):
    def run(self, x):
        return self.b(torch.tanh(self.a(x)) + nn.functional.linear(x.sin(), self.a.weight.detach()))

    return draw.case(Net(run, a=nn.Linear(draw.width, 6), b=head()))


@adversary
def weight_as_an_input(draw):
    def run(self, x):
        return x @ self.b(self.a.weight).T + self.a(x).sum(1, keepdim=True)

    rows = draw.rows
    return draw.case(Net(run, a=nn.Linear(5, rows), b=nn.Linear(5, 5)), 5, loss=lambda o, t: o.tanh().sum(1))


@adversary
def penalty_in_the_loss(draw):
    model = draw.mlp()
    return draw.case(model, loss=lambda o, t: cross_entropy(o, t) + 0.1 * model[0].weight.square().sum())


@adversary
def gradient_penalty(draw):
    def run(self, x):
        x = x.detach().requires_grad_(True)
        out = self.b(torch.tanh(self.a(x)))
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        return out + slope.square().sum(1, keepdim=True)

    return draw.case(Net(run, a=nn.Linear(draw.width, 6), b=head()))


@adversary
def weight_norm_legacy(draw):
    with_norm = nn.utils.weight_norm
    model = draw.mlp()
    with_norm(model[0])
    return draw.case(model)


@adversary
def weight_norm_parametrised(draw):
    model = draw.mlp()
    nn.utils.parametrizations.weight_norm(model[0])
    return draw.case(model)


@adversary
def parametrised_later(draw):
    class Symmetric(nn.Module):
        def forward(self, w):
            return w.triu() + w.triu(1).T

    model = Net(lambda self, x: self.b(torch.tanh(self.a(x))), a=nn.Linear(5, 5), b=head(5))

    def parametrise():
        nn.utils.parametrize.register_parametrization(model.a, "weight", Symmetric())

    return draw.case(model, 5, changes=(parametrise,))


@adversary
def orthogonal(draw):
    model = draw.mlp()
    nn.utils.parametrizations.orthogonal(model[0])
    return draw.case(model)


@adversary
def spectral_norm(draw):
    model = draw.mlp()
    nn.utils.parametrizations.spectral_norm(model[0])
    return draw.case(model)


@adversary
def lora_wrapped(draw):
    def run(self, x):
        return self.b(torch.tanh(self.base(x) + self.up(self.down(x)) * 0.5))

    model = Net(run, base=nn.Linear(draw.width, 6), down=nn.Linear(draw.width, 2, bias=False), b=head())
    model.up = nn.Linear(2, 6, bias=False)
    model.base.requires_grad_(False)
    return draw.case(model, changes=(lambda: model.base.requires_grad_(True),))


@adversary
def lora_as_a_subclass(draw):
    class Adapted(nn.Linear):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.down = nn.Parameter(torch.randn(2, sizes[0]) / 3)
            self.up = nn.Parameter(torch.randn(sizes[1], 2) / 3)

        def forward(self, x):
            return nn.functional.linear(x, self.weight + self.up @ self.down, self.bias)

    return draw.case(nn.Sequential(Adapted(draw.width, 6), nn.Tanh(), head()))


@adversary
def functional_call_inside(draw):
    def run(self, x):
        moved = {"weight": self.a.weight * 2, "bias": self.a.bias}
        return self.b(torch.tanh(torch.func.functional_call(self.a, moved, (x,))))

    return draw.case(Net(run, a=nn.Linear(draw.width, 6), b=head()))


@adversary
def weights_in_a_plain_list(draw):
    model = draw.mlp()
    outer = Net(lambda self, x: torch.tanh(x @ self.kept[0].T) @ self.kept[1].T, inner=model)
    outer.kept = [model[0].weight, model[2].weight]
    return draw.case(outer)


# --- rows that meet, batch statistics ---------------------------------------------------------------------------------


@adversary
def rows_centred(draw):
    return draw.case(Net(lambda self, x: self.b(self.a(x) - self.a.bias - x.mean()), a=head(5), b=head(3)), 5)


@adversary
def rows_centred_without_gradient(draw):
    def run(self, x):
        z = self.a(x)
        return self.b((z - z.mean(0).detach()).tanh())

    return draw.case(Net(run, a=nn.Linear(draw.width, 6), b=head()))


@adversary
def attention_over_rows(draw):
    def run(self, x):
        z = self.a(x)
        return self.b((z @ z.T).softmax(1) @ z)

    return draw.case(Net(run, a=nn.Linear(draw.width, 6), b=head()))


@adversary
def pairwise_loss_a_row(draw):
    def loss(outputs, targets):
        return (outputs[:, None] - outputs[None]).square().sum(2).mul(targets[:, None] == targets[None]).mean(1)

    return draw.case(draw.mlp(), loss=loss, least_rows=2)


@adversary
def contrastive_scalar_loss(draw):
    def loss(outputs, targets):
        z = nn.functional.normalize(outputs, dim=1)
        return nn.functional.cross_entropy(z @ z.T * 3, torch.arange(len(z)))

    return draw.case(draw.mlp(), loss=loss, least_rows=2)


@adversary
def loss_switched_later(draw):
    case = draw.case(draw.mlp(), least_rows=2)
    switch = {"pairs": False}

    def loss(outputs, targets):
        base = cross_entropy(outputs, targets)
        return base + (outputs - outputs.mean(0)).square().sum(1) if switch["pairs"] else base

    def to_pairs():
        case.loss = lambda o, t: cross_entropy(o - o.mean(0), t)

    case.loss, case.changes = loss, (to_pairs,)
    return case


@adversary
def batch_norm(draw):
    return draw.case(draw.mlp([nn.BatchNorm1d(6), nn.Tanh()]), changes=(lambda: None,), least_rows=2)


@adversary
def batch_norm_eval_then_train(draw):
    model = draw.mlp([nn.BatchNorm1d(6, affine=False), nn.Tanh()])
    model.eval()
    return draw.case(model, changes=(model.train, model.eval), least_rows=2)


@adversary
def batch_norm_one_module_switched(draw):
    model = draw.mlp([nn.BatchNorm1d(6, affine=False), nn.Tanh()])
    model[1].eval()
    return draw.case(model, changes=(lambda: model[1].train(),), least_rows=2)


@adversary
def batch_norm_without_running_statistics(draw):
    model = draw.mlp([nn.BatchNorm1d(6, track_running_stats=False), nn.Tanh()])
    return draw.case(model, changes=(model.eval,), least_rows=2)


@adversary
def batch_norm_by_hand(draw):
    def run(self, x):
        z = self.a(x)
        if self.training:
            z = (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-3).sqrt()
        return self.b(z)

    model = Net(run, a=nn.Linear(draw.width, 6), b=head())
    model.eval()
    return draw.case(model, changes=(model.train,))


@adversary
def instance_norm(draw):
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.InstanceNorm1d(4, affine=True, track_running_stats=True))
    return draw.case(nn.Sequential(model, nn.Flatten(), nn.LazyLinear(3)), 2, 8)


# --- layers with unusual settings -------------------------------------------------------------------------------------


@adversary
def embedding_padding(draw):
    run = lambda self, ids: self.b(self.table(ids).tanh().mean(1))  # noqa: E731
    return draw.tokens(Net(run, table=nn.Embedding(9, 6, padding_idx=draw.integer(0, 9)), b=head()))


@adversary
def embedding_max_norm(draw):
    run = lambda self, ids: self.b(self.table(ids).tanh().mean(1))  # noqa: E731
    model = Net(run, table=nn.Embedding(9, 6, max_norm=1.0), b=head())
    with torch.no_grad():  # every row at its norm: the renorming is then no part of what is compared
        model.table.weight.div_(model.table.weight.norm(dim=1, keepdim=True) * 1.2)
    return draw.tokens(model)


@adversary
def embedding_scaled_by_frequency(draw):
    run = lambda self, ids: self.b(self.table(ids).tanh().mean(1))  # noqa: E731
    return draw.tokens(Net(run, table=nn.Embedding(9, 6, scale_grad_by_freq=True), b=head()))


@adversary
def embedding_sparse(draw):
    run = lambda self, ids: self.b(self.table(ids).tanh().mean(1))  # noqa: E731
    return draw.tokens(Net(run, table=nn.Embedding(9, 6, sparse=True), b=head()))


@adversary
def embedding_bag(draw):
    return draw.tokens(nn.Sequential(nn.EmbeddingBag(9, 6, mode="mean"), nn.Tanh(), head()))


@adversary
def convolution_padding(draw):
    mode = ["zeros", "reflect", "circular", "replicate"][draw.integer(0, 4)]
    padding = ["same", "valid", 1][draw.integer(0, 3)] if mode == "zeros" else 1
    conv = nn.Conv1d(2, 4, 3, padding=padding, padding_mode=mode, groups=draw.integer(1, 3))
    return draw.case(nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)), 2, 7)


@adversary
def convolution_transposed(draw):
    conv = nn.ConvTranspose1d(2, 4, 3, stride=2)
    return draw.case(nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)), 2, 5)


@adversary
def convolution_dilated(draw):
    conv = nn.Conv2d(2, 4, (2, 3), stride=(1, 2), padding=(1, 0), dilation=(2, 1))
    return draw.case(nn.Sequential(conv, nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)), 2, 6, 6)


@adversary
def recurrent(draw):
    kind = [nn.LSTM, nn.GRU, nn.RNN][draw.integer(0, 3)]
    return draw.case(Net(lambda self, x: self.b(self.a(x)[0][:, -1]), a=kind(3, 6, batch_first=True), b=head()), 4, 3)


@adversary
def attention(draw):
    def run(self, x):
        return self.b(self.a(x, x, x, need_weights=False)[0].mean(1))

    return draw.case(Net(run, a=nn.MultiheadAttention(6, 2, batch_first=True), b=head()), 4, 6)


@adversary
def transformer_layer(draw):
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, dropout=0.2)
    return draw.case(Net(lambda self, x: self.b(self.a(x).mean(1)), a=layer, b=head()), 4, 6, random=True)


@adversary
def sequence_first(draw):
    def run(self, x):
        return self.b(torch.tanh(self.a(x.transpose(0, 1))).mean(0))

    return draw.case(Net(run, a=nn.Linear(3, 6), b=head()), draw.rows, 3)


@adversary
def two_views_stacked(draw):
    def run(self, x):
        left, right = self.a(torch.cat([x, x.sin()])).chunk(2)
        return self.b(left * right)

    return draw.case(Net(run, a=nn.Linear(draw.width, 6), b=head()))


@adversary
def rows_sorted_inside(draw):
    def run(self, x):
        order = x[:, 0].argsort()
        return self.b(torch.tanh(self.a(x[order])))[order.argsort()]

    return draw.case(Net(run, a=nn.Linear(draw.width, 6), b=head()))


@adversary
def experts(draw):
    def run(self, x):
        chosen = self.gate(x).argmax(1)
        parts = torch.stack([self.a(x), self.c(x).sin()], 1)
        return self.b(parts[torch.arange(len(x)), chosen])

    model = Net(run, gate=nn.Linear(draw.width, 2), a=nn.Linear(draw.width, 6), c=nn.Linear(draw.width, 6), b=head())
    return draw.case(model)


@adversary
def experts_by_rows(draw):
    def run(self, x):
        first = x[:, 0] > 0
        out = x.new_zeros(len(x), 6)
        out[first], out[~first] = self.a(x[first]), self.c(x[~first]).sin()
        return self.b(out)

    return draw.case(Net(run, a=nn.Linear(draw.width, 6), c=nn.Linear(draw.width, 6), b=head()))


# --- switches that no attribute of a module shows ---------------------------------------------------------------------


def switched(draw, is_on, **attributes):
    def run(self, x):
        z = torch.tanh(self.a(x))
        return self.b(z - z.mean(0) if is_on(self) else z)

    model = Net(run, a=nn.Linear(draw.width, 6), b=head())
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


@adversary
def switch_in_a_buffer(draw):
    model = switched(draw, lambda self: bool(self.on))
    model.register_buffer("on", torch.tensor(False))
    return draw.case(model, changes=(lambda: model.on.fill_(True),))


@adversary
def switch_in_a_tensor(draw):
    model = switched(draw, lambda self: self.on > 1, on=torch.ones(()))
    return draw.case(model, changes=(lambda: model.on.add_(1), lambda: model.on.sub_(1)))


@adversary
def switch_in_a_configuration(draw):
    model = switched(draw, lambda self: self.config.centred, config=types.SimpleNamespace(centred=False))
    return draw.case(model, changes=(lambda: setattr(model.config, "centred", True),))


@adversary
def switch_in_a_list(draw):
    model = switched(draw, lambda self: self.on[-1], on=[False])
    return draw.case(model, changes=(lambda: model.on.append(True), lambda: model.on.append(False)))


@adversary
def switch_outside(draw):
    switch = {"on": False}
    model = switched(draw, lambda self: switch["on"])
    return draw.case(model, changes=(lambda: switch.update(on=True),))


@adversary
def method_of_the_class_replaced(draw):
    class Mixed(Net):
        def mixed(self, z):
            return z

    model = Mixed(lambda self, x: self.b(self.mixed(torch.tanh(self.a(x)))), a=nn.Linear(draw.width, 6), b=head())
    return draw.case(model, changes=(lambda: setattr(Mixed, "mixed", lambda self, z: z - z.mean(0)),))


@adversary
def axis_in_a_configuration(draw):
    model = Net(lambda self, x: self.b(self.a(x).softmax(self.config["axis"])), a=nn.Linear(draw.width, 6), b=head())
    model.config = {"axis": 1}
    return draw.case(model, changes=(lambda: model.config.update(axis=0),))


def paired(outputs, targets, pairs=False):
    return cross_entropy(outputs, targets) + ((outputs - outputs.mean(0)).square().sum(1) if pairs else 0)


@adversary
def partial_loss_switched_later(draw):
    case = draw.case(draw.mlp(), loss=functools.partial(paired, pairs=False))
    case.changes = (lambda: setattr(case, "loss", functools.partial(paired, pairs=True)),)
    return case


@adversary
def loss_object_switched_later(draw):
    class Loss:
        pairs = False

        def __call__(self, outputs, targets):
            return paired(outputs, targets, self.pairs)

    loss = Loss()
    return draw.case(draw.mlp(), loss=loss, changes=(lambda: setattr(loss, "pairs", True),))


@adversary
def loss_switched_by_a_number(draw):
    step = [0]
    loss = lambda outputs, targets: paired(outputs, targets, step[0] >= 1)  # noqa: E731
    return draw.case(draw.mlp(), loss=loss, changes=(lambda: step.append(step.pop() + 1),))


@adversary
def branch_on_the_number_of_rows(draw):
    def run(self, x):
        z = torch.tanh(self.a(x))
        return self.b(z - z.mean(0) if len(x) > 6 else z)

    return draw.case(Net(run, a=nn.Linear(draw.width, 6), b=head()))


@adversary
def activations_of_the_call_before(draw):
    def run(self, x):
        z = torch.tanh(self.a(x))
        before, self.before = self.before, z.detach()
        return self.b(z + 0.1 * before if before is not None and before.shape == z.shape else z)

    model = Net(run, a=nn.Linear(draw.width, 6), b=head())
    model.before = None
    return draw.case(model)


@adversary
def activations_kept_once_switched_on(draw):
    def run(self, x):
        z = torch.tanh(self.a(x))
        before, self.before = self.before, z.detach()
        return self.b(z + 0.1 * before if self.on and before is not None and before.shape == z.shape else z)

    model = Net(run, a=nn.Linear(draw.width, 6), b=head())
    model.before = None
    model.register_buffer("on", torch.tensor(False))
    return draw.case(model, changes=(lambda: model.on.fill_(True),))


@adversary
def one_layer_by_several_names(draw):
    layer = nn.Linear(6, 6)
    names = [nn.Linear(draw.width, 6), layer, nn.Tanh(), layer, nn.Tanh(), layer, head()]
    return draw.case(nn.Sequential(*names))


# --- layers of the stacked engine -------------------------------------------------------------------------------------


@adversary
def positions_as_many_as_rows(draw):
    def run(self, ids):
        z = self.table(ids) + self.place(torch.arange(ids.shape[1]))
        return self.b(self.norm(torch.tanh(self.a(z))).mean(1))

    model = Net(run, table=nn.Embedding(9, 5), place=nn.Embedding(26, 5), a=nn.Linear(5, 6), norm=nn.LayerNorm(6))
    model.b = head()
    return draw.tokens(model, length=draw.rows * draw.integer(1, 3))


@adversary
def table_read_without_gradient(draw):
    run = lambda self, ids: self.b(self.a(self.table(ids).mean(1)) + self.table.weight.detach().sum(0))  # noqa: E731
    return draw.tokens(Net(run, table=nn.Embedding(9, 5), a=nn.Linear(5, 5), b=head(5)))


@adversary
def weight_by_its_data(draw):
    run = lambda self, x: self.b(torch.tanh(self.a(x)) * self.a.weight.data.norm())  # noqa: E731
    return draw.case(Net(run, a=nn.Linear(draw.width, 6), b=head()))


@adversary
def weight_transposed_by_hand(draw):
    run = lambda self, x: self.b(torch.tanh(x @ self.a.weight.T + self.a.bias)) @ self.mix.mT  # noqa: E731
    model = Net(run, a=nn.Linear(draw.width, 6), b=head())
    model.mix = nn.Parameter(draw.normal(3, 3))
    return draw.case(model)


@adversary
def classes_token_and_positions(draw):
    def run(self, x):
        z = torch.cat([self.token.expand(len(x), -1, -1), self.a(x)], 1) + self.place[:, : x.shape[1] + 1]
        return self.b(self.norm(z)[:, 0] + z.mean(1))

    model = Net(run, a=nn.Linear(3, 6), norm=nn.RMSNorm(6), b=head())
    model.token, model.place = nn.Parameter(draw.normal(1, 1, 6)), nn.Parameter(draw.normal(1, 9, 6))
    return draw.case(model, 4, 3)


@adversary
def attention_with_masks(draw):
    kind = draw.integer(0, 2)

    def run(self, x, memory, padded):
        allowed = torch.ones(4, 5, dtype=torch.bool).triu(2)
        mask = allowed if kind else allowed.double().mul(-3)
        z, weights = self.a(x, memory, memory, key_padding_mask=padded, attn_mask=mask, need_weights=bool(kind))
        return self.b(z.mean(1)) + (weights.sum((1, 2))[:, None] if kind else 0)

    model = Net(run, a=nn.MultiheadAttention(6, 2, batch_first=True, kdim=3 + 3 * kind, vdim=3 + 3 * kind), b=head())
    case = draw.case(model, 4, 6)
    padded = torch.zeros(draw.rows, 5, dtype=torch.bool)
    padded[:, -1] = draw.normal(draw.rows) > 0
    case.inputs = (case.inputs, draw.normal(draw.rows, 5, 3 + 3 * kind), padded if kind else padded.double().mul(-2))
    return case


@adversary
def weight_through_a_function_of_its_own(draw):
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(x, weight)
            return x @ weight.T

        @staticmethod
        def backward(ctx, delta):
            x, weight = ctx.saved_tensors
            return delta @ weight, delta.T @ x

    run = lambda self, x: self.b(torch.tanh(Product.apply(x, self.a.weight) + self.a.bias))  # noqa: E731
    return draw.case(Net(run, a=nn.Linear(draw.width, 6), b=head()))


@adversary
def adversarial_inputs(draw):
    def run(self, x):
        x = x.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(self.b(torch.tanh(self.a(x))).square().sum(), x)
        return self.b(torch.tanh(self.a(x + 0.1 * slope.detach())))

    return draw.case(Net(run, a=nn.Linear(draw.width, 6), b=head()))


@adversary
def batch_norm_in_a_network(draw):
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Conv2d(4, 6, 2, stride=2),
        nn.Flatten(),
    )
    return draw.case(nn.Sequential(model, nn.LazyLinear(3)), 2, 4, 4, changes=(model.eval, model.train), least_rows=2)


# --- random numbers, memory, in place ---------------------------------------------------------------------------------


@adversary
def dropout(draw):
    return draw.case(draw.mlp([nn.Tanh(), nn.Dropout(0.4)]), random=True)


@adversary
def dropout_switched_off_later(draw):
    model = draw.mlp([nn.Tanh(), nn.Dropout(0.4)])
    return draw.case(model, changes=(model.eval, model.train), random=True)


@adversary
def drop_connect(draw):
    def run(self, x):
        return self.b(
            nn.functional.linear(x, nn.functional.dropout(self.a.weight, 0.3, self.training), self.a.bias).tanh()
        )

    return draw.case(Net(run, a=nn.Linear(draw.width, 6), b=head()), random=True)


@adversary
def stochastic_depth(draw):
    def run(self, x):
        keep = torch.rand(len(x), 1) < 0.5
        return self.b(x + keep * torch.tanh(self.a(x)))

    return draw.case(Net(run, a=nn.Linear(6, 6), b=head()), 6, random=True)


@adversary
def checkpointed(draw):
    def run(self, x):
        return self.b(checkpoint(lambda z: torch.tanh(self.a(z)), x, use_reentrant=False))

    return draw.case(Net(run, a=nn.Linear(draw.width, 6), b=head()))


@adversary
def checkpointed_reentrant(draw):
    def run(self, x):
        z = torch.tanh(self.a(x))
        return self.b(checkpoint(self.c, z, use_reentrant=True))

    return draw.case(Net(run, a=nn.Linear(draw.width, 6), c=nn.Linear(6, 6), b=head()))


@adversary
def activations_in_place(draw):
    return draw.case(draw.mlp([nn.ELU(inplace=True), nn.Dropout(0.2)]), random=True)


@adversary
def inputs_written_in_place(draw):
    case = draw.case(Net(lambda self, x: self.b(self.a(x.mul_(1.5)).tanh()), a=nn.Linear(draw.width, 6), b=head()))
    case.refused = "writes into the mini-batch"
    return case


@adversary
def targets_written_in_place(draw):
    def loss(outputs, targets):
        targets.add_(1).remainder_(3)
        return cross_entropy(outputs, targets)

    return draw.case(draw.mlp(), loss=loss, refused="writes into the mini-batch")


@adversary
def buffers_written(draw):
    def run(self, x):
        self.seen.mul_(0.5).add_(x.mean().detach())
        return self.b(torch.tanh(self.a(x)) * self.seen)

    model = Net(run, a=nn.Linear(draw.width, 6), b=head())
    model.register_buffer("seen", torch.ones(()))
    return draw.case(model)


@adversary
def inputs_that_need_gradients(draw):
    case = draw.case(draw.mlp())
    case.inputs.requires_grad_(True)
    return case


@adversary
def inputs_from_a_graph(draw):
    case = draw.case(draw.mlp())
    case.inputs = case.inputs + nn.Parameter(draw.normal(draw.width))
    case.refused = "computed with gradients"
    return case


@adversary
def inputs_expanded(draw):
    case = draw.case(draw.mlp())
    case.inputs = draw.normal(1, draw.width).expand(draw.rows, -1)
    return case


@adversary
def compiled(draw):
    return draw.case(torch.compile(draw.mlp(), backend="eager"))


@adversary
def compiled_part(draw):
    model = draw.mlp()
    model[0].compile(backend="eager")
    return draw.case(model)


# --- inputs and outputs of other shapes -------------------------------------------------------------------------------


@adversary
def scalar_loss_beside_a_temperature(draw):
    model = Net(lambda self, x: (self.b(torch.tanh(self.a(x))), self.a.weight.new_tensor(0.7)), a=nn.Linear(5, 6))
    model.b = head()
    return draw.case(model, 5, loss=lambda o, t: nn.functional.cross_entropy(o[0] * o[1], t))


@adversary
def scalar_loss_beside_a_learnt_temperature(draw):
    model = Net(lambda self, x: (self.b(torch.tanh(self.a(x))), self.heat.exp()), a=nn.Linear(5, 6), b=head())
    model.heat = nn.Parameter(torch.zeros(()))
    return draw.case(model, 5, loss=lambda o, t: nn.functional.cross_entropy(o[0] * o[1], t))


@adversary
def mean_among_the_outputs(draw):
    def run(self, x):
        z = self.b(torch.tanh(self.a(x)))
        return {"logits": z, "spread": z.square().mean()}

    model = Net(run, a=nn.Linear(5, 6), b=head())
    return draw.case(model, 5, loss=lambda o, t: nn.functional.cross_entropy(o["logits"], t) + o["spread"])


@adversary
def table_as_long_as_the_batch(draw):
    table = draw.normal(draw.rows, 3)
    model = Net(lambda self, x: (self.b(torch.tanh(self.a(x))), table), a=nn.Linear(5, 6), b=head())
    return draw.case(model, 5, loss=lambda o, t: nn.functional.cross_entropy(o[0] @ o[1].T, t))


@adversary
def auxiliary_output_in_training(draw):
    def run(self, x):
        z = torch.tanh(self.a(x))
        return (self.b(z), self.c(z)) if self.training else self.b(z)

    model = Net(run, a=nn.Linear(5, 6), b=head(), c=head())
    return draw.case(model, 5, loss=lambda o, t: cross_entropy(o[0], t) + 0.3 * cross_entropy(o[1], t))


@adversary
def outputs_in_a_dataclass(draw):
    @dataclasses.dataclass(frozen=True)
    class Output:
        logits: torch.Tensor
        heat: float = 1.0

    model = Net(lambda self, x: Output(self.b(torch.tanh(self.a(x)))), a=nn.Linear(5, 6), b=head())
    return draw.case(model, 5, loss=lambda o, t: nn.functional.cross_entropy(o.logits, t))


@adversary
def outputs_in_a_namespace(draw):
    model = Net(lambda self, x: types.SimpleNamespace(z=self.b(torch.tanh(self.a(x)))), a=nn.Linear(5, 6), b=head())
    return draw.case(model, 5, loss=lambda o, t: nn.functional.cross_entropy(o.z, t))


@adversary
def inputs_in_a_user_dict(draw):
    case = draw.case(Net(lambda self, left, right: self.b(torch.tanh(self.a(left)) + right), a=nn.Linear(5, 6)), 5)
    case.model.b = head().double()
    case.inputs = collections.UserDict(left=case.inputs, right=draw.normal(draw.rows, 6))
    return case


@adversary
def inputs_in_a_namedtuple_with_a_flag(draw):
    pair = collections.namedtuple("pair", "x scaled")
    case = draw.case(Net(lambda self, x, scaled: self.b(torch.tanh(self.a(x))), a=nn.Linear(5, 6), b=head()), 5)
    case.inputs = pair(case.inputs, True)
    return case


@adversary
def inputs_with_an_array(draw):
    case = draw.case(Net(lambda self, x, m: self.b(torch.tanh(self.a(x))), a=nn.Linear(5, 6), b=head()), 5)
    case.inputs = (case.inputs, draw.normal(draw.rows).numpy())
    case.refused = "hold a ndarray"
    return case


@adversary
def partial_loss(draw):
    return draw.case(
        draw.mlp(), loss=functools.partial(nn.functional.cross_entropy, reduction="none", label_smoothing=0.1)
    )


@adversary
def losses_of_tokens(draw):
    case = draw.tokens(nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 3)))
    case.targets = draw.ids(3, draw.rows, 4)
    case.loss = lambda o, t: nn.functional.cross_entropy(o.transpose(1, 2), t, reduction="none")
    return case


@adversary
def flattened_tokens(draw):
    case = draw.tokens(
        Net(lambda self, ids: self.b(self.table(ids)).reshape(-1, 3), table=nn.Embedding(9, 6), b=head())
    )
    case.targets = draw.ids(3, draw.rows, 4)
    case.loss = lambda o, t: nn.functional.cross_entropy(o, t.reshape(-1))
    return case
