"""Heterogeneous calibration: calibrate per region of feature space and raise AUC without retraining.

Papers: arXiv:2202.04837.

Not built yet: this version holds the place of the package and exports nothing.
"""

__all__: list[str] = []
