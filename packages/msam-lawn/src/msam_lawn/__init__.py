"""Micro-batch sharpness-aware minimisation (mSAM) and LAWN for torch and JAX.

Papers: arXiv:2302.09693, arXiv:2212.04343, arXiv:2108.05839.

Not built yet: this version holds the place of the package and exports nothing.
"""

__all__: list[str] = []
