"""Outlier-aware 2-8 bit weight quantisation of language models by coordinate descent.

Papers: arXiv:2309.01885.

Not built yet: this version holds the place of the package and exports nothing.
"""

__all__: list[str] = []
