"""All estimators side by side, from the weakest assumption to the strongest, with one recommended.

An estimator that assumes less is right more often and needs more data. The ladder shows them all on one log, how much
data each could use, and recommends the weakest assumption that has enough of it: at least ``MINIMUM`` effective records
in every slot, no single record with more than a tenth of all weight.
"""

from dataclasses import dataclass

from multislot_rerank.log import SlateLog, TargetPolicy, check_pair
from multislot_rerank.slate_replay import Interaction, replay
from multislot_rerank.value import ValueEstimate
from multislot_rerank.weighting import iips, pseudo_inverse, rips, sips

__all__ = ["MINIMUM", "Ladder", "Rung", "estimate_all"]

MINIMUM = 30.0


@dataclass(frozen=True)
class Rung:
    """One estimator on the ladder, and what speaks against it (empty: nothing)."""

    estimate: ValueEstimate
    assumes: str
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Ladder:
    """Estimates by rising assumption; ``recommended`` is None where the log supports none of them.

    Prints as a table with a column of values and one of standard errors for each objective.
    """

    rungs: tuple[Rung, ...]
    recommended: ValueEstimate | None
    reason: str

    def __str__(self) -> str:
        objectives = self.rungs[0].estimate.objectives
        titles = objectives if len(objectives) > 1 else ("value",)
        widths = [max(10, len(title)) for title in titles]
        columns = " ".join(f"{title:>{width}} {'s.e.':>9}" for title, width in zip(titles, widths, strict=True))
        lines = [f"{'estimator':<20} {'assumes':<12} {columns} {'effective':>10}  doubts"]
        for rung in self.rungs:
            estimate = rung.estimate
            cells = " ".join(
                f"{value:>{width}.5f} {error:>9.5f}"
                for value, error, width in zip(estimate.value, estimate.standard_error, widths, strict=True)
            )
            lines.append(
                f"{estimate.estimator:<20} {rung.assumes:<12} {cells} {estimate.effective.min():>10.0f}  "
                f"{'; '.join(rung.doubts)}"
            )
        return "\n".join([*lines, self.reason])


def estimate_all(log: SlateLog, target: TargetPolicy) -> Ladder:
    """Run every estimator that the log allows.

    Parameters
    ----------
    log : SlateLog
    target : TargetPolicy

    Returns
    -------
    Ladder
        Each assumption self-normalised and plain. For a deterministic target the self-normalised row is replay
        (weighted where matching is not equally probable everywhere); the pseudo-inverse needs a uniform log too.

    Examples
    --------
    >>> log = SlateLog.uniform([[0, 1], [1, 0]] * 200, [[1, 0], [0, 0]] * 200, candidates=2)
    >>> print(estimate_all(log, TargetPolicy.deterministic(log, [[0, 1]] * 400)).reason)
    recommended: replay (full), the weakest assumption with enough data
    """
    check_pair(log, target)
    deterministic = target.slates is not None
    estimates = [
        ("full", _normalized(log, target, Interaction.FULL)),
        ("full", sips(log, target)),
        ("cascade", _normalized(log, target, Interaction.CASCADE)),
        ("cascade", rips(log, target)),
        ("independent", _normalized(log, target, Interaction.INDEPENDENT)),
        ("independent", iips(log, target)),
    ]
    if deterministic and log.is_uniform:
        estimates.insert(4, ("additive", pseudo_inverse(log, target)))
    rungs = tuple(Rung(estimate, assumes, doubts(estimate)) for assumes, estimate in estimates)
    sound = [rung for rung in rungs if not rung.doubts]
    if not sound:
        return Ladder(rungs, None, "no estimator has enough data on this log; see the planner for how much is needed")
    best = sound[0].estimate
    return Ladder(rungs, best, f"recommended: {best.estimator}, the weakest assumption with enough data")


def _normalized(log: SlateLog, target: TargetPolicy, interaction: Interaction) -> ValueEstimate:
    """Replay of a deterministic policy; of a randomised one the self-normalised weights, which replay is a case of."""
    if target.slates is not None:
        return replay(log, target, interaction, on_varying="weight")
    weighted = {Interaction.FULL: sips, Interaction.CASCADE: rips, Interaction.INDEPENDENT: iips}[interaction]
    return weighted(log, target, self_normalized=True)


def doubts(estimate: ValueEstimate) -> tuple[str, ...]:
    """What speaks against trusting an estimate: too few effective records, or one that dominates."""
    found = list(estimate.warnings)
    smallest = float(estimate.effective.min())
    if smallest < MINIMUM:
        found.append(f"effective sample {smallest:.0f} of {estimate.records}, below {MINIMUM:.0f}")
    if estimate.max_weight > 0.1 * estimate.records:
        found.append(f"one record weighs {estimate.max_weight:.0f}, over a tenth of the log")
    return tuple(found)
