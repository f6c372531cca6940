"""The best allocation of bytes by dynamic programming over every total."""


def best_error(options, budget: int) -> float:
    """Least summed error of one option a layer within the budget; options are (bytes, error) pairs."""
    totals = {0: 0.0}
    for layer in options:
        step: dict[int, float] = {}
        for spent, error in totals.items():
            for size, cost in layer:
                if spent + size <= budget:
                    step[spent + size] = min(step.get(spent + size, float("inf")), error + cost)
        totals = step
    return min(totals.values())
