"""Optimal approximations by brute force in float64, from the data instead of from moments."""

import torch
from torch import Tensor


def eckart_young_error(matrix: Tensor, inputs: Tensor, rank: int) -> float:
    """Least possible sum over rows x of |(W - W') x|^2 over all W' of the rank: the singular values that are left."""
    values = torch.linalg.svdvals(inputs @ matrix.T)
    return float(values[rank:].square().sum())


def least_squares_removal(
    hidden: Tensor, down: Tensor, kept: Tensor, ridge: float, bias: bool
) -> tuple[Tensor, Tensor]:
    """Output weights (d, k) and bias (d,) of kept neurons, by lstsq on the stacked tokens.

    The ridge pulls towards the neurons' own output weights: rows sqrt(T ridge) (V' - V_H) = 0 are stacked below.
    """
    tokens, k = hidden.shape[0], len(kept)
    regressors = hidden[:, kept]
    target = hidden @ down.T - regressors @ down[:, kept].T
    if bias:
        means = regressors.mean(0), target.mean(0)
        regressors, target = regressors - means[0], target - means[1]
    stacked = torch.cat([regressors, (tokens * ridge) ** 0.5 * torch.eye(k, dtype=torch.float64)])
    wanted = torch.cat([target, torch.zeros(k, target.shape[1], dtype=torch.float64)])
    change = torch.linalg.lstsq(stacked, wanted, driver="gelsd").solution.T
    shift = means[1] - change @ means[0] if bias else torch.zeros(target.shape[1], dtype=torch.float64)
    return down[:, kept] + change, shift
