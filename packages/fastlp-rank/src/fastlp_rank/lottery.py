"""A lottery over rankings: what a service draws from."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Lottery"]


@dataclass(frozen=True, eq=False)
class Lottery:
    """Rankings and the probability of each, the most probable first.

    Attributes
    ----------
    rankings : array of int64, shape (R, m)
        Item index in every slot; R is at most the number of tight constraints plus one.
    weights : array of float64, shape (R,)
        Positive, sum 1.

    Examples
    --------
    >>> lottery = Lottery(np.array([[0, 1], [1, 2]]), np.array([0.75, 0.25]))
    >>> lottery.sample(request_id="user-17/page-1")
    array([0, 1])
    >>> lottery.marginals(3)
    array([[0.75, 0.  ], [0.25, 0.75], [0.  , 0.25]])
    """

    rankings: NDArray[np.int64]
    weights: NDArray[np.float64]

    def sample(
        self, rng: np.random.Generator | None = None, *, request_id: str | bytes | None = None
    ) -> NDArray[np.int64]:
        """Draw one ranking.

        Parameters
        ----------
        rng : numpy.random.Generator, optional
            Source of randomness, or
        request_id : str or bytes, optional
            The same id always draws the same ranking from the same lottery (BLAKE2b of the id as a uniform number).

        Returns
        -------
        array of int64, shape (m,)

        Raises
        ------
        ValueError
            Unless exactly one of the two is given, or ``request_id`` is neither str nor bytes.
        """
        if (rng is None) == (request_id is None):
            raise ValueError("give exactly one of rng and request_id")
        if rng is not None:
            uniform = rng.random()
        else:
            if not isinstance(request_id, (str, bytes)):
                raise ValueError(f"request_id = {request_id!r} is no text; pass a str or bytes, as in str(request_id)")
            raw = request_id.encode() if isinstance(request_id, str) else request_id
            uniform = (int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big") >> 11) * 2.0**-53
        r = int(np.searchsorted(np.cumsum(self.weights), uniform, side="right"))
        drawn: NDArray[np.int64] = self.rankings[min(r, self.weights.size - 1)]
        return drawn

    def marginals(self, n: int) -> NDArray[np.float64]:
        """X of shape (n, m): the probability x_ij that slot j shows item i."""
        R, m = self.rankings.shape
        X = np.zeros((n, m))
        for r in range(R):
            X[self.rankings[r], np.arange(m)] += self.weights[r]
        return X
