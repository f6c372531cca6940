"""A policy that scores every candidate with one shared network and never picks a forbidden one (extra ``rl``).

    logit_i = f(x_i, mean_j x_j)  where candidate i may be placed, else the least finite float;    V = g(mean_j x_j)

with x_i the candidate's features given what is placed, the means over candidates that may be placed, f and g small
networks. It does not depend on the order of the candidates and serves any number of them. As an RLModule of RLlib's new
API stack it trains under any of its algorithms; the mask makes the probability of a forbidden action exactly zero.
"""

from typing import Any

import torch
from gymnasium import spaces
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

__all__ = ["MaskedItemScorer"]


class MaskedItemScorer(TorchRLModule, ValueFunctionAPI):
    """Shared scorer of candidates with an action mask; ``model_config`` takes ``hidden``, the width (64)."""

    def setup(self) -> None:
        """Build the networks; RLlib calls this."""
        assert isinstance(self.observation_space, spaces.Dict)
        assert isinstance(self.model_config, dict)
        shape = self.observation_space["candidates"].shape
        assert shape is not None
        features, hidden = shape[1], int(self.model_config.get("hidden", 64))
        self.score = _network(2 * features, hidden)
        self.value = _network(features, hidden)

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self._logits(batch[Columns.OBS])}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Return the expected reward to come, shape (B,)."""
        observation = batch[Columns.OBS]
        value: Tensor = self.value(_mean(observation["candidates"], observation["action_mask"])).squeeze(-1)
        return value

    def _logits(self, observation: dict[str, Tensor]) -> Tensor:
        candidates, mask = observation["candidates"], observation["action_mask"]
        mean = _mean(candidates, mask)[..., None, :].expand_as(candidates)
        logits: Tensor = self.score(torch.cat([candidates, mean], dim=-1)).squeeze(-1)
        return logits.masked_fill(mask == 0, torch.finfo(logits.dtype).min)


def _mean(candidates: Tensor, mask: Tensor) -> Tensor:
    """Mean over the candidates that may be placed; zero where there is none (after the last slot)."""
    weight = mask.to(candidates.dtype)[..., None]
    return (candidates * weight).sum(-2) / weight.sum(-2).clamp(min=1.0)


def _network(inputs: int, hidden: int) -> nn.Sequential:
    layers = (nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1))
    return nn.Sequential(*layers)
