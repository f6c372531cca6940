"""Reactor neutrinos with scalar non-standard interactions, and solar-WIMP neutrino rates.

Papers: arXiv:2306.07343, arXiv:2203.13697.

Not built yet: this version holds the place of the package and exports nothing.
"""

__all__: list[str] = []
