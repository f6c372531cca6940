"""Feed-forward networks split at their heavy-hitter neurons, the light part compressed.

Papers: arXiv:2401.04044.

Not built yet: this version holds the place of the package and exports nothing.
"""

__all__: list[str] = []
