"""Vector non-standard interactions: H_matter = V (diag(1, 0, 0) + epsilon), with epsilon Hermitian.

The same Hamiltonian may hold a scalar term in the mass matrix; the two are told apart by their energy dependence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nu_physics.errors import InvalidInput, check_range

__all__ = ["VectorNSI"]


@dataclass(frozen=True)
class VectorNSI:
    """The matrix epsilon, in units of the standard potential sqrt(2) G_F N_e.

    Parameters
    ----------
    ee, mm, tt : float
        Real diagonal elements.
    em, et, mt : complex
        Off-diagonal elements of the Hermitian matrix.

    Examples
    --------
    >>> float(VectorNSI(ee=0.1).matrix()[0, 0].real)
    1.1
    """

    ee: float = 0.0
    mm: float = 0.0
    tt: float = 0.0
    em: complex = 0.0
    et: complex = 0.0
    mt: complex = 0.0

    def __post_init__(self) -> None:
        for name in ("ee", "mm", "tt"):
            value = getattr(self, name)
            if isinstance(value, complex):
                raise InvalidInput(f"epsilon_{name} = {value!r}: diagonal elements of a Hermitian matrix are real")
            check_range(f"epsilon_{name}", value, -100.0, 100.0)
        for name in ("em", "et", "mt"):
            value = complex(getattr(self, name))
            if not (math.isfinite(value.real) and math.isfinite(value.imag)) or abs(value) > 100.0:
                raise InvalidInput(f"epsilon_{name} = {value!r} is outside the allowed range |epsilon| <= 100")

    def matrix(self) -> NDArray[np.complex128]:
        """Return diag(1, 0, 0) + epsilon of shape (3, 3)."""
        em, et, mt = complex(self.em), complex(self.et), complex(self.mt)
        return np.array(
            [
                [1.0 + self.ee, em, et],
                [em.conjugate(), self.mm, mt],
                [et.conjugate(), mt.conjugate(), self.tt],
            ],
            dtype=np.complex128,
        )
