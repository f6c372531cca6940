"""Gymnasium environments of multi-slot re-ranking (extra ``gym``): one request a slate, one action a slot.

``papershelf/MultiSlot-v0`` is registered on import. Observation: the candidates' features given what is placed, and an
action mask. Action: the candidate for the next slot. Reward: its click. A forbidden action wastes the slot.
"""

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from multislot_rerank.errors import InvalidInput
from multislot_rerank.influence_world import InfluenceWorld
from multislot_rerank.simulator import FEATURES, SlateSimulator

__all__ = ["ENVIRONMENT_ID", "MultiSlotEnv", "MultiSlotVectorEnv"]

ENVIRONMENT_ID = "papershelf/MultiSlot-v0"
_LIMIT = 1e3  # no feature comes near: scores are standard normal, counts at most the slots
Observation = dict[str, NDArray[Any]]


def observation_space(candidates: int) -> spaces.Dict:
    """Features of every candidate, and which may be placed."""
    return spaces.Dict(
        {
            "candidates": spaces.Box(-_LIMIT, _LIMIT, (candidates, len(FEATURES)), np.float32),
            "action_mask": spaces.Box(0, 1, (candidates,), np.int8),
        }
    )


class MultiSlotEnv(gym.Env[Observation, np.int64]):
    """One slate an episode.

    Parameters
    ----------
    influence : float
        How strongly items above dampen those below; 0 for a world of independent items.
    candidates, slots : int
        N and K, K <= N.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own convention

    def __init__(self, influence: float = 1.0, candidates: int = 20, slots: int = 8) -> None:
        self.world = _world(influence, candidates, slots)
        self.simulator = SlateSimulator(self.world, 1)
        self.observation_space: spaces.Space[Any] = observation_space(candidates)
        self.action_space = spaces.Discrete(candidates)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw a request."""
        super().reset(seed=seed)
        self.simulator.reset(self.np_random)
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Place a candidate; ends after the last slot."""
        result = self.simulator.place(np.array([action]), self.np_random)
        info = {"click_probability": float(result.probability[0]), "legal": bool(result.legal[0])}
        ended = self.simulator.slot == self.world.slots
        return self._observation(), float(result.clicks[0]), ended, False, info

    def _observation(self) -> Observation:
        mask = self.simulator.mask[0].astype(np.int8)
        return {"candidates": self.simulator.observation()[0], "action_mask": mask}


class MultiSlotVectorEnv(VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """B slates side by side on arrays; all end together, and the next step starts new ones (NEXT_STEP autoreset).

    Parameters
    ----------
    num_envs : int
    influence, candidates, slots
        As ``MultiSlotEnv``.
    """

    def __init__(self, num_envs: int, influence: float = 1.0, candidates: int = 20, slots: int = 8) -> None:
        if num_envs < 1:
            raise InvalidInput(f"num_envs={num_envs} must be at least 1")
        self.num_envs = num_envs
        self.world = _world(influence, candidates, slots)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.simulator = SlateSimulator(self.world, num_envs)
        self.single_observation_space = observation_space(candidates)
        self.single_action_space = spaces.Discrete(candidates)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw ``num_envs`` requests."""
        super().reset(seed=seed)
        self.simulator.reset(self.np_random)
        return self._observation(), {}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Place one candidate in each slate; the step after the last slot ignores the actions and starts anew."""
        never = np.zeros(self.num_envs, np.bool_)
        if self.simulator.slot == self.world.slots:
            self.simulator.reset(self.np_random)
            return self._observation(), np.zeros(self.num_envs), never, never, {}
        result = self.simulator.place(np.asarray(actions, np.int64), self.np_random)
        info = {"click_probability": result.probability, "legal": result.legal}
        ended = np.full(self.num_envs, self.simulator.slot == self.world.slots)
        return self._observation(), result.clicks, ended, never, info

    def _observation(self) -> Observation:
        return {"candidates": self.simulator.observation(), "action_mask": self.simulator.mask.astype(np.int8)}


def _world(influence: float, candidates: int, slots: int) -> InfluenceWorld:
    if not 1 <= slots <= candidates:
        raise InvalidInput(f"slots={slots} must be between 1 and candidates={candidates}")
    if not (np.isfinite(influence) and influence >= 0):
        raise InvalidInput(f"influence={influence} must be finite and >= 0")
    return InfluenceWorld(influence=influence, candidates=candidates, slots=slots)


gym.register(
    id=ENVIRONMENT_ID,
    entry_point="multislot_rerank.environment:MultiSlotEnv",
    vector_entry_point="multislot_rerank.environment:MultiSlotVectorEnv",
)
