"""Search for trade-offs on a log: NSGA-II of pymoo over a policy's parameters, valued by replay (extra ``pareto``).

Every candidate theta gives a policy; its slates on the log's contexts are replayed, and the front of all that were
evaluated is returned. A theta without a match in the log has no value and is infeasible, never zero. The front of a
search is optimistic as the best of many estimates is: confirm a choice with ``pareto.choose_honestly``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from multislot_rerank.admission import instance, whole
from multislot_rerank.arrays import Floats, finite, integers
from multislot_rerank.errors import InvalidInput
from multislot_rerank.log import SlateLog, TargetPolicy
from multislot_rerank.pareto import ParetoFront, Sense, chosen_senses, pareto_front
from multislot_rerank.slate_replay import Interaction, replay
from multislot_rerank.value import ValueEstimate

__all__ = ["search"]


def search(
    log: SlateLog,
    policy: Callable[[Floats], ArrayLike],
    bounds: Mapping[str, tuple[float, float]],
    interaction: Interaction | str = Interaction.CASCADE,
    *,
    senses: Sequence[Sense] | None = None,
    population: int = 24,
    generations: int = 12,
    seed: int = 0,
) -> ParetoFront:
    """Search a box of parameters for the front of policies.

    Parameters
    ----------
    log : SlateLog
    policy : callable
        Takes parameters, shape (D,), and returns the slates that it would show in every context, shape (n, K).
    bounds : mapping of parameter to (low, high)
        The box; its order is the order of the parameters.
    interaction : Interaction or str
        As ``replay``.
    senses : sequence of {"max", "min"}, optional
        Whether more or less of each objective is better; ``max`` by default.
    population, generations : int
        Of NSGA-II; population times generations policies are replayed.
    seed : int

    Returns
    -------
    ParetoFront
        Every distinct policy with a value, by its parameters (``"0.31, 0.70"``), the front marked.

    Raises
    ------
    InvalidInput
        Empty or inverted bounds, senses that do not fit, or not one policy with a match.
    ModuleNotFoundError
        pymoo is not installed.
    """
    instance("log", log, SlateLog)
    if not callable(policy):
        raise InvalidInput(f"policy={policy!r} cannot be called; give a function of parameters that returns slates")
    if not isinstance(bounds, Mapping) or any(np.shape(pair) != (2,) for pair in bounds.values()):
        raise InvalidInput(f"bounds={bounds!r} must be {{parameter: (low, high)}}")
    if not bounds:
        raise InvalidInput("bounds is empty; name at least one parameter")
    low, high = (finite("bounds", [pair[side] for pair in bounds.values()], 1) for side in (0, 1))
    if (low >= high).any():
        wrong = list(bounds)[int(np.argmax(low >= high))]
        raise InvalidInput(f"bounds[{wrong!r}]={bounds[wrong]} must be (low, high) with low < high")
    if whole("population", population, 1) < 4 or whole("generations", generations, 0) < 1:
        raise InvalidInput(f"population={population} must be at least 4 and generations={generations} at least 1")
    chosen = chosen_senses(log, senses)
    signs = np.array([-1.0 if sense == "max" else 1.0 for sense in chosen])
    valued: dict[bytes, tuple[str, ValueEstimate]] = {}

    def losses(parameters: Floats) -> tuple[Floats, float]:
        shown = integers("what policy returned", policy(parameters), 2)
        key = shown.tobytes()
        if key not in valued:
            target = TargetPolicy.deterministic(log, shown)
            name = ", ".join(f"{value:.4g}" for value in parameters)
            valued[key] = name, replay(log, target, interaction, on_varying="weight")
        value = valued[key][1].value
        return (np.zeros(len(signs)), 1.0) if np.isnan(value).any() else (signs * value, -1.0)

    _evolve(losses, low, high, len(signs), population, generations, seed)
    known = [entry for entry in valued.values() if not np.isnan(entry[1].value).any()]
    if not known:
        raise InvalidInput(
            f"none of the {len(valued)} policies matches a record in every slot; log more, or assume less interaction"
        )
    optimal = pareto_front(np.array([estimate.value for _, estimate in known]), chosen)
    return ParetoFront(tuple(name for name, _ in known), tuple(e for _, e in known), chosen, optimal)


def _evolve(
    losses: Callable[[Floats], tuple[Floats, float]],
    low: Floats,
    high: Floats,
    objectives: int,
    population: int,
    generations: int,
    seed: int,
) -> None:
    """Run NSGA-II; what it evaluates is kept by ``losses``."""
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import ElementwiseProblem
        from pymoo.optimize import minimize
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("searching needs the extra: pip install 'multislot-rerank[pareto]'") from error

    class Replayed(ElementwiseProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=len(low), n_obj=objectives, n_ieq_constr=1, xl=low, xu=high)

        def _evaluate(self, x: Floats, out: dict[str, Any], *_: Any, **__: Any) -> None:
            out["F"], out["G"] = losses(x)

    minimize(Replayed(), NSGA2(pop_size=population), ("n_gen", generations), seed=seed, verbose=False)
