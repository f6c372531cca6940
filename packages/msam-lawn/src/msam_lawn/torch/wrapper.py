"""What every wrapping optimizer shares: one list of parameter groups, one state, one checkpoint."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["WrappingOptimizer"]


class WrappingOptimizer(torch.optim.Optimizer):
    """An optimizer around a base optimizer's instance.

    Groups and state are the base's own objects, so that learning-rate schedulers, gradient scalers and trainers that
    look at either see the same. ``state_dict`` is the base's, with one more key named after the wrapper. Copying and
    pickling take the base along, as they take the parameters; hooks and schedulers that hang on the wrapper stay.

    Attributes
    ----------
    base_optimizer : torch.optim.Optimizer
    """

    key: str

    def __init__(self, base_optimizer: torch.optim.Optimizer) -> None:
        super().__init__(base_optimizer.param_groups, {})
        self.base_optimizer = base_optimizer
        self._share()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base optimizer."""
        if "base_optimizer" not in self.__dict__:  # the constructor of torch.optim.Optimizer
            super().add_param_group(param_group)
            return
        self.base_optimizer.add_param_group(param_group)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: the base optimizer and the wrapper's own attributes."""
        return {"defaults": self.defaults, "base_optimizer": self.base_optimizer, **self._copied()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what ``__getstate__`` gave."""
        super().__setstate__(state)
        self._share()

    def state_dict(self) -> dict[str, Any]:
        """The base's state with the wrapper's own under ``key``."""
        return {**self.base_optimizer.state_dict(), self.key: self._own_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned, bit for bit."""
        if self.key not in state_dict:
            raise KeyError(
                f"the state has no {self.key!r}: it was saved by {type(self.base_optimizer).__name__} without "
                f"{type(self).__name__}; load it into base_optimizer instead"
            )
        own = state_dict[self.key]
        self.base_optimizer.load_state_dict({name: part for name, part in state_dict.items() if name != self.key})
        self._share()
        self._load_own_state(own)

    def _share(self) -> None:
        self.param_groups = self.base_optimizer.param_groups
        self.state = self.base_optimizer.state

    def _is_initialisation(self) -> bool:
        """Whether a step comes from a checkpointer that only wants the state's tensors to exist.

        torch.distributed.checkpoint makes them by a step with every gradient and every learning rate zero.
        """
        rates = [float(group["lr"]) for group in self.param_groups if "lr" in group]
        if not rates or any(rates) or self.state:
            return False
        gradients = [w.grad for group in self.param_groups for w in group["params"] if w.grad is not None]
        return bool(gradients) and not any(bool(g.count_nonzero()) for g in gradients if not g.is_sparse)

    def _copied(self) -> dict[str, Any]:
        raise NotImplementedError

    def _own_state(self) -> dict[str, Any]:
        raise NotImplementedError

    def _load_own_state(self, own: dict[str, Any]) -> None:
        raise NotImplementedError
