"""Exact linear-programming ranking under diversity constraints, inside a request.

Papers: arXiv:2211.12409.

Not built yet: this version holds the place of the package and exports nothing.
"""

__all__: list[str] = []
