"""LSTM, with the states of every micro-batch, position by position.

    [i f g o] = X_t W_i' + b_i + h_{t-1} U_i' + c_i,    c_t = f c_{t-1} + i g,    h_t = o tanh(c_t).

The input's part of all positions is one linear layer. The recurrence has a backward pass of its own, whose
gradient of U is one product over all positions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import _VF
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from msam_lawn.errors import EngineError
from msam_lawn.torch.layers.registry import rule
from msam_lawn.torch.layers.stand_in import Pass, StandIn, weights_alone

__all__ = ["lstm"]


class _Recurrence(Function):
    """States of all positions, (M, T, b, .) throughout; U is (1, 4 d, d) in pass 1 and a stack in pass 2."""

    @staticmethod
    def forward(
        ctx: Any, parts: torch.Tensor, on_hidden: torch.Tensor, hidden: Any, weight: Any, h: Any, c: Any
    ) -> Any:
        count, length, each, width = parts.shape
        size = width // 4
        transposed = weight.transpose(1, 2)
        hs, cs = parts.new_empty(2, length + 1, count, each, size)
        gates, bent = parts.new_empty(length, count, each, width), parts.new_empty(length, count, each, size)
        hs[0], cs[0] = h, c
        for t in range(length):
            gate, before = gates[t], hs[t]
            if len(weight) == count:
                torch.baddbmm(parts[:, t], before, transposed, out=gate)
            else:
                flat = before.reshape(-1, size)
                torch.addmm(parts[:, t].reshape(-1, width), flat, transposed[0], out=gate.view(-1, width))
            gate[..., : 2 * size].sigmoid_()
            gate[..., 2 * size : 3 * size].tanh_()
            gate[..., 3 * size :].sigmoid_()
            i, f, g, o = gate.chunk(4, -1)
            torch.mul(f, cs[t], out=cs[t + 1]).addcmul_(i, g)
            torch.tanh(cs[t + 1], out=bent[t])
            torch.mul(o, bent[t], out=hs[t + 1])
        ctx.save_for_backward(weight, hs, cs, gates, bent)
        return hs[1:].permute(1, 0, 2, 3), hs[-1].clone(), cs[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        on_outputs, on_h, on_c = gradients
        weight, hs, cs, gates, bent = ctx.saved_tensors
        length, count, each, width = gates.shape
        size = width // 4
        deltas = torch.empty_like(gates)
        dh, dc = on_h.clone(), on_c.clone()
        # derivatives that need no recurrence, for all positions at once
        i, f, g, o = gates.chunk(4, -1)
        by_c = o * (1 - bent.square())
        inner = torch.empty_like(gates)
        torch.mul(g * i, 1 - i, out=inner[..., :size])
        torch.mul(cs[:-1] * f, 1 - f, out=inner[..., size : 2 * size])
        torch.mul(i, 1 - g.square(), out=inner[..., 2 * size : 3 * size])
        torch.mul(bent * o, 1 - o, out=inner[..., 3 * size :])
        for t in reversed(range(length)):
            dh = dh + on_outputs[:, t]
            dc = torch.addcmul(dc, dh, by_c[t])
            delta = deltas[t]
            three = delta[..., : 3 * size].unflatten(-1, (3, size))
            torch.mul(inner[t][..., : 3 * size].unflatten(-1, (3, size)), dc.unsqueeze(-2), out=three)
            torch.mul(inner[t][..., 3 * size :], dh, out=delta[..., 3 * size :])
            if len(weight) == count:
                dh = torch.bmm(delta, weight)
            else:
                dh = (delta.reshape(-1, width) @ weight[0]).view(count, each, size)
            dc = dc * f[t]
        on_parts = deltas.permute(1, 0, 2, 3)
        before = hs[:-1]
        on_stack = on_weight = None
        if ctx.needs_input_grad[1]:
            D = on_parts.reshape(count, -1, width)
            on_stack = torch.bmm(D.transpose(1, 2), before.permute(1, 0, 2, 3).reshape(count, -1, size))
        if ctx.needs_input_grad[2]:
            on_weight = deltas.reshape(-1, width).t() @ before.reshape(-1, size)
        return on_parts, on_stack, on_weight, None, dh, dc


@rule(_VF.lstm)
def lstm(
    input: Any,  # noqa: A002 - torch's name
    states: Any,
    weights: Any,
    has_biases: Any,
    layers: Any = None,
    dropout: float = 0.0,
    training: bool = False,
    bidirectional: bool = False,
    batch_first: bool = False,
) -> Any:
    """``torch.lstm`` of padded sequences: outputs, last hidden and cell states."""
    if not isinstance(has_biases, bool) or not isinstance(input, torch.Tensor) or isinstance(input, StandIn):
        raise EngineError("an LSTM of packed sequences")
    ways = 2 if bidirectional else 1
    each = len(weights) // (layers * ways)
    if each != (4 if has_biases else 2) or not weights_alone(*weights):
        raise EngineError("an LSTM with projections, with frozen weights or under autocast")
    x = input if batch_first else input.transpose(0, 1)
    run: Pass = weights[0].run
    if not run.rows_lead("lstm", x, *weights) or x.shape[0] != run.rows.total:
        raise EngineError("an LSTM over something else than the rows of the mini-batch")
    last_h, last_c = [], []
    for layer in range(layers):
        outputs = []
        for way in range(ways):
            place = layer * ways + way
            own = list(weights[place * each : (place + 1) * each])
            out, h, c = _direction(x.flip(1) if way else x, states[0][place], states[1][place], own, run)
            outputs.append(out.flip(1) if way else out)
            last_h.append(h)
            last_c.append(c)
        x = outputs[0] if ways == 1 else torch.cat(outputs, -1)
        if dropout and training and layer < layers - 1:
            x = F.dropout(x, dropout)
    return x if batch_first else x.transpose(0, 1), torch.stack(last_h), torch.stack(last_c)


def _direction(x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, weights: list[Any], run: Pass) -> Any:
    rows, (on_input, on_hidden, *biases) = run.rows, weights
    size = on_hidden.of.weight.shape[1]

    def folded(y: torch.Tensor) -> torch.Tensor:  # (B, ...) as (M, b, ...)
        parts, axis = rows.split(y)
        return parts.movedim(axis, 0)

    def unfolded(y: torch.Tensor) -> torch.Tensor:
        return rows.joined(y.movedim(0, int(rows.interleaved)))

    parts = F.linear(x, on_input, biases[0] if biases else None)
    parts = folded(parts).transpose(1, 2)
    if biases:
        parts = parts + biases[1].stacked()[:, None, None, :]
    of = on_hidden.of
    whole = of.weight.detach()[None] if run.first else of.stack
    stack, plain = (of.stack, None) if run.first else (None, of.weight)
    outputs, h, c = _Recurrence.apply(parts, stack, plain, whole, folded(h), folded(c))  # type: ignore[no-untyped-call]
    return unfolded(outputs.transpose(1, 2)), unfolded(h).reshape(-1, size), unfolded(c).reshape(-1, size)
