"""Reinforcement learning on the simulator: RLlib's PPO with a masked per-item scorer (extra ``rl``).

The learnt policy is a :class:`~multislot_rerank.policies.Policy` like the others, and saves its weights as safetensors.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from papershelf_core.files import replacing

from multislot_rerank.admission import target_file
from multislot_rerank.arrays import Ints
from multislot_rerank.cluster import local_cluster
from multislot_rerank.environment import ENVIRONMENT_ID, MultiSlotEnv, observation_space
from multislot_rerank.errors import InvalidInput
from multislot_rerank.influence_world import InfluenceWorld
from multislot_rerank.simulator import SlateSimulator

__all__ = ["LearntPolicy", "train_ppo"]

# undiscounted: an episode is one slate
_PPO = {
    "gamma": 1.0,
    "lambda_": 0.95,
    "lr": 1e-3,
    "train_batch_size_per_learner": 4096,
    "minibatch_size": 1024,
    "num_epochs": 6,
    "entropy_coeff": 0.0,
    "grad_clip": 1.0,
    "vf_clip_param": 100.0,
}


@dataclass(frozen=True)
class LearntPolicy:
    """The scorer that PPO left; picks the candidate with the highest logit.

    Attributes
    ----------
    module : torch module
        ``item_scorer.MaskedItemScorer``.
    slates_seen : int
    seconds : float
        Of training.
    """

    module: Any
    slates_seen: int = 0
    seconds: float = 0.0

    def __call__(self, simulator: SlateSimulator) -> Ints:
        """Fill the next slot of every request."""
        import torch
        from ray.rllib.core.columns import Columns

        observation = {
            "candidates": torch.from_numpy(simulator.observation()),
            "action_mask": torch.from_numpy(simulator.mask.astype(np.int8)),
        }
        with torch.no_grad():
            logits = self.module.forward_inference({Columns.OBS: observation})[Columns.ACTION_DIST_INPUTS]
        return np.asarray(logits.argmax(dim=1).numpy(), np.int64)

    def save(self, path: str | Path) -> None:
        """Write the weights as safetensors, whole or not at all."""
        from safetensors.torch import save_file

        with replacing(target_file(path)) as scratch:
            save_file({name: value.contiguous() for name, value in self.module.state_dict().items()}, scratch)

    @classmethod
    def load(cls, path: str | Path, *, candidates: int, hidden: int = 64) -> "LearntPolicy":
        """Read weights that ``save`` wrote; ``candidates`` and ``hidden`` as in training.

        Raises
        ------
        InvalidInput
            The file's tensors do not fit the scorer.
        """
        from safetensors.torch import load_file

        module = _scorer(candidates, hidden)
        try:
            module.load_state_dict(load_file(path))
        except RuntimeError as error:
            raise InvalidInput(f"{path} does not fit a scorer with hidden={hidden}: {error}") from error
        return cls(module)


def train_ppo(
    world: InfluenceWorld,
    *,
    seconds: float = 60.0,
    env_runners: int = 0,
    hidden: int = 64,
    seed: int = 0,
    progress: Callable[[int, float, float], None] | None = None,
) -> LearntPolicy:
    """Train PPO in the environment of a world.

    Parameters
    ----------
    world : InfluenceWorld
        Its influence, candidates and slots; other fields must have their defaults, as the environment has.
    seconds : float
        Training stops at the end of the iteration that passes this time.
    env_runners : int
        Ray actors that collect slates; 0 collects in this process.
    hidden : int
        Width of the scorer's layers.
    seed : int
    progress : callable, optional
        Called with (iteration, mean reward of a slate, seconds).

    Returns
    -------
    LearntPolicy

    Raises
    ------
    InvalidInput
        A number out of range, or a world that the environment cannot be.
    """
    if not seconds > 0:
        raise InvalidInput(f"seconds={seconds} must be positive")
    if env_runners < 0 or hidden < 1:
        raise InvalidInput(f"env_runners={env_runners} must be at least 0 and hidden={hidden} at least 1")
    if world != InfluenceWorld(world.influence, world.candidates, world.slots):
        raise InvalidInput(f"{world} differs from the environment's world in more than influence, candidates and slots")
    with local_cluster(max(2, env_runners + 1)):
        algorithm = _configured(world, env_runners, hidden, seed).build_algo()
        try:
            return _trained(algorithm, seconds, progress)
        finally:
            algorithm.stop()


def _trained(algorithm: Any, seconds: float, progress: Callable[[int, float, float], None] | None) -> LearntPolicy:
    began, iteration, slates = time.perf_counter(), 0, 0
    while (elapsed := time.perf_counter() - began) < seconds:
        result = algorithm.train()["env_runners"]
        iteration += 1
        slates += int(result.get("num_episodes", 0))
        if progress is not None:
            progress(iteration, float(result.get("episode_return_mean", np.nan)), elapsed)
    module = copy.deepcopy(algorithm.get_module().unwrapped()).eval()
    return LearntPolicy(module, slates, time.perf_counter() - began)


def _configured(world: InfluenceWorld, env_runners: int, hidden: int, seed: int) -> Any:
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.tune.registry import register_env

    from multislot_rerank.item_scorer import MaskedItemScorer

    register_env(ENVIRONMENT_ID, lambda settings: MultiSlotEnv(**settings))
    settings = {"influence": world.influence, "candidates": world.candidates, "slots": world.slots}
    spec = RLModuleSpec(module_class=MaskedItemScorer, model_config={"hidden": hidden})
    config: Any = PPOConfig
    return (
        config()
        .environment(ENVIRONMENT_ID, env_config=settings, normalize_actions=False, clip_actions=False)
        .framework("torch")
        .env_runners(num_env_runners=env_runners, num_envs_per_env_runner=32, rollout_fragment_length="auto")
        .learners(num_learners=0, num_gpus_per_learner=0)
        .training(**_PPO)
        .rl_module(rl_module_spec=spec)
        .debugging(seed=seed, log_level="ERROR")
    )


def _scorer(candidates: int, hidden: int) -> Any:
    from gymnasium import spaces

    from multislot_rerank.item_scorer import MaskedItemScorer

    return MaskedItemScorer(
        observation_space=observation_space(candidates),
        action_space=spaces.Discrete(candidates),
        model_config={"hidden": hidden},
    )
