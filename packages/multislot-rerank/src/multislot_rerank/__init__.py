"""Sequential greedy re-ranking of whole slates, with multi-slot replay evaluation and a simulator.

Papers: arXiv:2401.06293.

Not built yet: this version holds the place of the package and exports nothing.
"""

__all__: list[str] = []
