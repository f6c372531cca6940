"""Solve a ranking problem: the public boundary of the kernels.

`solve` takes a checked `RankingProblem`; `solve_arrays` takes plain arrays and a workspace and costs one compiled call;
`solve_batch` solves stacked requests without returning to Python in between.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fastlp_rank import kernels, proof
from fastlp_rank.certificate import Certificate, verify_arrays
from fastlp_rank.errors import InvalidProblemError
from fastlp_rank.lottery import Lottery
from fastlp_rank.problem import RankingProblem, real_array
from fastlp_rank.status import Status
from fastlp_rank.untidy import Answer, Arrays, Limits, answer_untidy

__all__ = ["BatchSolution", "RankingSolution", "Workspace", "solve", "solve_arrays", "solve_batch", "warmup"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HEAD = kernels.HEAD
_STATUS = tuple(Status)
_kernel: Any = kernels.solve_kernel

# Tuned on the exposure grid of benchmarks/: weight of the best prices in the smoothed point, first multiplier box
# (in scaled units, a multiplier of 1 is of the size of the scores), and zero-length steps before perturbing.
_SMOOTHING = 0.7
_BOX = 0.25
_STALL_LIMIT = 50

_AS_STATED = np.empty(0)
"""Row units for the kernel where rows and scores are the user's own."""


class Workspace:
    """Memory for problems of one size, reused from call to call; holds the last results of `solve_arrays`.

    Not to be shared between threads. The results are views: the next call overwrites them.

    Parameters
    ----------
    n, m, K : int
        Candidates, slots, constraints.
    """

    __slots__ = ("K", "_floats", "_ints", "_pool", "m", "n")

    def __init__(self, n: int, m: int, K: int) -> None:
        if not 1 <= m <= n or K < 0:
            raise InvalidProblemError(f"a workspace of n={n}, m={m}, K={K}; needs 1 <= m <= n and K >= 0")
        self.n, self.m, self.K = n, m, K
        self._pool = 64 + 16 * (K + 1)
        floats, ints = kernels.workspace_sizes(n, m, K, self._pool)
        self._floats = np.zeros(floats)
        self._ints = np.zeros(ints, dtype=np.int64)

    @property
    def objective(self) -> float:
        """Value of the lottery."""
        return float(self._floats[0])

    @property
    def bound(self) -> float:
        """Upper bound of the optimum; -inf when infeasible."""
        return float(self._floats[1])

    @property
    def violation(self) -> float:
        """Largest violation of a row, in its own units."""
        return float(self._floats[2])

    @property
    def pricings(self) -> int:
        """How often all candidates were priced."""
        return int(self._ints[1])

    @property
    def weights(self) -> Floats:
        """Probabilities of the rankings, shape (R,)."""
        return self._floats[_HEAD : _HEAD + self._ints[0]]

    @property
    def rankings(self) -> Ints:
        """Rankings of the lottery, shape (R, m)."""
        return self._ints[_HEAD : _HEAD + self._ints[0] * self.m].reshape(-1, self.m)

    @property
    def prices(self) -> Floats:
        """Shadow prices λ, shape (K,); NaN when infeasible."""
        start = _HEAD + self.K + 1
        return self._floats[start : start + self.K]

    @property
    def ray(self) -> Floats:
        """Farkas ray, shape (K,); NaN unless infeasible."""
        start = _HEAD + 2 * self.K + 1
        return self._floats[start : start + self.K]

    @property
    def rest(self) -> Floats:
        """What rounding left out of prices or ray, shape (K,); see `Certificate`."""
        start = _HEAD + 3 * self.K + 1
        return self._floats[start : start + self.K]

    def _answer(self, stopped: bool = False) -> Answer:
        """Copy of the last results."""
        return Answer(
            self.rankings.copy(),
            self.weights.copy(),
            self.prices.copy(),
            self.ray.copy(),
            self.rest.copy(),
            self.pricings,
            stopped,
        )

    def _hold(self, answer: Answer) -> None:
        """Hold an answer that was found elsewhere."""
        R = answer.weights.size
        self._ints[0], self._ints[1] = R, answer.pricings
        self._floats[_HEAD : _HEAD + R] = answer.weights
        self._ints[_HEAD : _HEAD + R * self.m] = answer.rankings.ravel()
        self.prices[:] = answer.prices
        self.ray[:] = answer.ray
        self.rest[:] = answer.rest

    def certificate(self, status: Status) -> Certificate:
        """Copy of the last results as a certificate."""
        return Certificate(
            status,
            self.rankings.copy(),
            self.weights.copy(),
            self.prices.copy(),
            self.ray.copy(),
            self.rest.copy(),
        )


_local = threading.local()


def _workspace(n: int, m: int, K: int) -> Workspace:
    """Return the calling thread's workspace of that size; the last one is kept."""
    try:
        workspace: Workspace = _local.workspace
    except AttributeError:
        pass
    else:
        if workspace.n == n and workspace.m == m and workspace.K == K:
            return workspace
    workspace = Workspace(n, m, K)
    _local.workspace = workspace
    return workspace


@dataclass(frozen=True, eq=False)
class RankingSolution:
    """What `solve` found; everything but the scalars is computed when asked for.

    Attributes
    ----------
    problem : RankingProblem
    status : Status
    objective : float
        Expected utility of the lottery, Σ u_i v_j x_ij.
    bound : float
        No feasible lottery is better than this; -inf when infeasible.
    pricings : int
        How often all candidates were priced.
    """

    problem: RankingProblem
    status: Status
    objective: float
    bound: float
    pricings: int
    _floats: Floats
    _ints: Ints

    @property
    def gap(self) -> float:
        """Bound - objective, in units of the objective; NaN when infeasible."""
        return float("nan") if self.status is Status.INFEASIBLE else self.bound - self.objective

    @cached_property
    def lottery(self) -> Lottery:
        """Rankings and their probabilities; the least-violation lottery when infeasible."""
        R, m = int(self._ints[0]), self.problem.m
        weights = self._floats[_HEAD : _HEAD + R]
        rankings = self._ints[_HEAD : _HEAD + R * m].reshape(R, m)
        order = np.argsort(-weights, kind="stable")
        return Lottery(rankings[order], weights[order])

    @cached_property
    def prices(self) -> dict[str, float]:
        """Shadow price λ_k of every constraint: the objective gained a unit that its binding bound is moved up.

        Positive at an upper bound, negative at a lower one, 0 where neither binds, NaN when infeasible.
        """
        start = _HEAD + len(self.problem.names) + 1
        return dict(zip(self.problem.names, self._floats[start:].tolist(), strict=False))

    @cached_property
    def farkas_ray(self) -> dict[str, float] | None:
        """How much each constraint contributes to the contradiction, in [-1, 1]; None unless infeasible."""
        if self.status is not Status.INFEASIBLE:
            return None
        start = _HEAD + 2 * len(self.problem.names) + 1
        return dict(zip(self.problem.names, self._floats[start:].tolist(), strict=False))

    @cached_property
    def activities(self) -> dict[str, float]:
        """Value of every constraint's row under the lottery, Σ a_ki v_j x_ij."""
        problem = self.problem
        exposure = self.marginals() @ problem.slots.values
        return dict(zip(problem.names, (problem.rows @ exposure).tolist(), strict=True))

    @cached_property
    def violations(self) -> dict[str, float]:
        """How far every constraint's row is outside its bounds, 0 where it is inside (rounding may leave 1e-15)."""
        problem = self.problem
        activity = np.array(list(self.activities.values()))
        over = np.maximum(np.maximum(problem.lower - activity, activity - problem.upper), 0.0)
        return dict(zip(problem.names, over.tolist(), strict=True))

    def marginals(self) -> Floats:
        """X of shape (n, m): the probability that slot j shows item i."""
        return self.lottery.marginals(self.problem.n)

    def sample(self, rng: np.random.Generator | None = None, *, request_id: str | bytes | None = None) -> Ints:
        """Draw one ranking; see `Lottery.sample`."""
        return self.lottery.sample(rng, request_id=request_id)

    def certificate(self) -> Certificate:
        """Everything a sceptic needs to check this solution; ``certificate().verify(problem)`` does it."""
        K = len(self.problem.names)
        start = _HEAD + K + 1
        return Certificate(
            self.status,
            self.lottery.rankings,
            self.lottery.weights,
            self._floats[start : start + K],
            self._floats[start + K : start + 2 * K],
            self._floats[start + 2 * K : start + 3 * K],
        )


def _untidy(arrays: Arrays, workspace: Workspace, max_pricings: int, tol: float, feasibility_tol: float) -> Status:
    """Answer what the kernel left without a proof; the workspace holds its attempt, and then the answer."""
    gap_tol = max(tol, proof.PROVEN_GAP)

    def kernel(scaled: Arrays, units: Floats, left: int) -> Answer:
        space = Workspace(scaled.u.size, workspace.m, workspace.K)
        code = _kernel(
            scaled.u,
            scaled.A,
            scaled.lower,
            scaled.upper,
            scaled.v,
            space._floats,
            space._ints,
            space._pool,
            left,
            tol,
            feasibility_tol,
            _SMOOTHING,
            _BOX,
            _STALL_LIMIT,
            0,
            units,
        )
        return space._answer(code == kernels.LIMIT)

    def judge(answer: Answer) -> int:
        workspace._hold(answer)
        verdict: int = kernels.prove_kernel(
            arrays.u,
            arrays.A,
            arrays.lower,
            arrays.upper,
            arrays.v,
            workspace._floats,
            workspace._ints,
            answer.infeasible,
            gap_tol,
            feasibility_tol,
        )
        return verdict if verdict == proof.NEARLY_FEASIBLE else last_word(answer)

    def last_word(answer: Answer) -> int:
        """Ask the verifier, which turns to fractions where prices or entries are too steep for floats."""
        certificate = workspace.certificate(Status.INFEASIBLE if answer.infeasible else Status.OPTIMAL)
        found = verify_arrays(
            certificate,
            arrays.u,
            arrays.A,
            arrays.lower,
            arrays.upper,
            arrays.v,
            tol=gap_tol,
            feasibility_tol=feasibility_tol,
        )
        workspace._floats[1] = -np.inf if answer.infeasible else found.bound
        if not found.holds:
            return proof.UNPROVEN
        nearly = answer.infeasible and found.violation <= feasibility_tol * max(1, workspace.K)
        return proof.NEARLY_FEASIBLE if nearly else proof.PROVEN

    tried = workspace._answer() if workspace.pricings > 0 else None
    return answer_untidy(arrays, Limits(max_pricings, feasibility_tol), kernel, judge, tried)


def solve(
    problem: RankingProblem,
    *,
    tol: float = 1e-10,
    max_pricings: int = 5000,
    warm: RankingSolution | None = None,
) -> RankingSolution:
    r"""Find the best lottery over rankings under the problem's constraints, exactly.

    .. math:: \max \sum_{ij} u_i v_j x_{ij} \;\; \text{s.t.} \;\; \sum_i x_{ij} = 1,\; \sum_j x_{ij} \le 1,\;
              L_k \le \sum_{ij} a_{ki} v_j x_{ij} \le U_k,\; x \ge 0

    Parameters
    ----------
    problem : RankingProblem
    tol : float
        Stop when the bound is within this fraction of the objective. The method is finite: a smaller one costs little.
    max_pricings : int
        Stop with ``Status.LIMIT`` after pricing all candidates this often (typically 20 to 100 times suffice).
    warm : RankingSolution, optional
        Solution of a problem with the same candidates, in the same order, and slots (new scores or bounds):
        its rankings are known from the start.

    Returns
    -------
    RankingSolution
        Its ``status`` says whether the bounds were found contradictory; that is no exception.

    Raises
    ------
    InvalidProblemError
        If ``tol`` or ``max_pricings`` is out of range, or ``warm`` is of another size.

    References
    ----------
    Dantzig-Wolfe column generation on K + 1 rows with smoothed prices, see `fastlp_rank.kernels`; with equal slot
    weights a dual simplex, see `fastlp_rank.selection`. Our formulation of the method family of Wang et al.,
    arXiv:2211.12409.

    Examples
    --------
    >>> from fastlp_rank import GroupExposure, SlotWeights
    >>> genre = ["drama", "drama", "comedy", "drama", "news"]
    >>> problem = RankingProblem(
    ...     scores=[0.9, 0.8, 0.3, 0.7, 0.2],
    ...     slots=SlotWeights.dcg(3),
    ...     constraints=[GroupExposure(genre, "drama", max_share=0.6)],
    ... )
    >>> solution = solve(problem)
    >>> solution.status.name, round(solution.objective, 4), solution.lottery.rankings.tolist()
    ('OPTIMAL', 1.3564, [[0, 2, 1], [2, 0, 4]])
    >>> solution.certificate().verify(problem).holds
    True
    """
    scores, rows = problem._candidate_scores, problem._candidate_rows
    K, n = rows.shape
    m = problem.slots.values.size
    workspace = _workspace(n, m, K)
    floats, ints = workspace._floats, workspace._ints
    known = 0 if warm is None else _load_warm(warm, problem, workspace)
    _check_options(tol, max_pricings, problem.feasibility_tol)
    code: int = _kernel(
        scores,
        rows,
        problem.lower,
        problem.upper,
        problem.slots.values,
        floats,
        ints,
        workspace._pool,
        max_pricings,
        tol,
        problem.feasibility_tol,
        _SMOOTHING,
        _BOX,
        _STALL_LIMIT,
        known,
        _AS_STATED,
    )
    if code < 0:
        _refuse(code, scores, rows, problem.lower, problem.upper, problem.slots.values, workspace)
    if code == kernels.NUMERICAL:
        arrays = Arrays(scores, rows, problem.lower, problem.upper, problem.slots.values)
        code = _untidy(arrays, workspace, max_pricings, tol, problem.feasibility_tol)
    found = ints[: _HEAD + (K + 1) * m].copy()
    if problem._candidates is not None:
        end = _HEAD + int(found[0]) * m
        found[_HEAD:end] = problem._candidates[found[_HEAD:end]]
    return RankingSolution(
        problem,
        _STATUS[code],
        floats.item(0),
        floats.item(1),
        ints.item(1),
        floats[: _HEAD + 4 * K + 1].copy(),
        found,
    )


def _check_options(tol: float, max_pricings: int, feasibility_tol: float) -> None:
    if not 0.0 <= tol < 1.0 or max_pricings < 1:
        raise InvalidProblemError(f"tol={tol}, max_pricings={max_pricings}; need 0 <= tol < 1 and max_pricings >= 1")
    if not 0.0 <= feasibility_tol < 1.0:
        raise InvalidProblemError(f"feasibility_tol={feasibility_tol}; need 0 <= feasibility_tol < 1")


def _load_warm(warm: RankingSolution, problem: RankingProblem, workspace: Workspace) -> int:
    """Put the rankings of an earlier solution where the kernel looks for known ones; those with blocked items go."""
    rankings = warm.lottery.rankings
    if warm.problem.n != problem.n or rankings.shape[1] != workspace.m:
        raise InvalidProblemError(
            f"warm solves n={warm.problem.n}, m={rankings.shape[1]}; this is n={problem.n}, m={workspace.m}: "
            "warm starts need the same candidates in the same order"
        )
    if problem.blocked is not None and problem._candidates is not None:
        rankings = rankings[~problem.blocked[rankings].any(axis=1)]
        rankings = np.searchsorted(problem._candidates, rankings)
    known: int = min(rankings.shape[0], workspace.K + 1)
    workspace._ints[_HEAD : _HEAD + known * workspace.m] = rankings[:known].ravel()
    return known


def solve_arrays(
    scores: Floats,
    rows: Floats,
    lower: Floats,
    upper: Floats,
    slot_weights: Floats,
    workspace: Workspace,
    *,
    tol: float = 1e-10,
    max_pricings: int = 5000,
    feasibility_tol: float = 1e-9,
) -> Status:
    """Solve from plain arrays into a workspace: one compiled call that allocates nothing.

    Parameters
    ----------
    scores : array of float64, shape (n,), C-contiguous, writeable (as all arrays here)
    rows : array of float64, shape (K, n)
        a_k; the row is Σ_ij a_ki v_j x_ij.
    lower, upper : array of float64, shape (K,)
        Bounds; infinite where there is none.
    slot_weights : array of float64, shape (m,)
        Not negative, not increasing.
    workspace : Workspace
        Of this n, m, K; holds the results afterwards.
    tol, max_pricings
        As in `solve`.
    feasibility_tol : float
        As in `RankingProblem`.

    Returns
    -------
    Status

    Raises
    ------
    InvalidProblemError
        If an array has the wrong type, shape or content.

    Examples
    --------
    >>> workspace = Workspace(n=3, m=2, K=1)
    >>> a = np.array([[0.0, 0.0, 1.0]])
    >>> lower, upper = np.array([0.5]), np.array([np.inf])
    >>> solve_arrays(np.array([3.0, 2.0, 1.0]), a, lower, upper, np.ones(2), workspace).name
    'OPTIMAL'
    >>> workspace.objective, workspace.weights
    (4.5, array([0.5, 0.5]))
    """
    try:
        code: int = _kernel(
            scores,
            rows,
            lower,
            upper,
            slot_weights,
            workspace._floats,
            workspace._ints,
            workspace._pool,
            max_pricings,
            tol,
            feasibility_tol,
            _SMOOTHING,
            _BOX,
            _STALL_LIMIT,
            0,
            _AS_STATED,
        )
    except TypeError:
        _refuse_types(scores=(scores, 1), rows=(rows, 2), lower=(lower, 1), upper=(upper, 1), v=(slot_weights, 1))
        raise
    if code < 0:
        _refuse(code, scores, rows, lower, upper, slot_weights, workspace)
    if code == kernels.NUMERICAL:
        arrays = Arrays(scores, rows, lower, upper, slot_weights)
        return _untidy(arrays, workspace, max_pricings, tol, feasibility_tol)
    return _STATUS[code]


def _refuse_types(**arrays: tuple[object, int]) -> None:
    """Say which array the kernel cannot take."""
    for name, (array, ndim) in arrays.items():
        name = "slot_weights" if name == "v" else name
        if not isinstance(array, np.ndarray) or array.dtype != np.float64 or array.ndim != ndim:
            kind = f"{array.dtype} array of {array.ndim} dimensions" if isinstance(array, np.ndarray) else type(array)
            raise InvalidProblemError(f"{name} is a {kind}; pass a float64 array of {ndim} dimension(s)")
        if not (array.flags.c_contiguous and array.flags.writeable):
            raise InvalidProblemError(f"{name} is not C-contiguous and writeable; pass np.array({name}, order='C')")


def _refuse(
    code: int, scores: Floats, rows: Floats, lower: Floats, upper: Floats, v: Floats, workspace: Workspace
) -> NoReturn:
    """Turn the kernel's refusal into a message with field, value and remedy."""
    if code == kernels.BAD_SCORES:
        i = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise InvalidProblemError(f"scores[{i}] = {scores[i]} is not finite; leave the item out of the candidates")
    if code == kernels.BAD_ROWS:
        k, i = (int(x[0]) for x in np.nonzero(~np.isfinite(rows)))
        raise InvalidProblemError(f"rows[{k}, {i}] = {rows[k, i]} is not finite; give a finite coefficient")
    if code == kernels.BAD_SLOTS:
        raise InvalidProblemError(
            f"slot_weights = {v} must be finite, at least 0, not increasing, not all 0; number slots by falling weight"
        )
    if code == kernels.BAD_BOUNDS:
        k = int(np.flatnonzero(~((lower <= upper) & (lower < np.inf) & (upper > -np.inf)))[0])
        raise InvalidProblemError(f"lower[{k}] = {lower[k]}, upper[{k}] = {upper[k]}: give lower <= upper, no NaN")
    if code in (kernels.TOO_LARGE_SCORES, kernels.TOO_LARGE_ROWS):
        name, array = ("scores", scores) if code == kernels.TOO_LARGE_SCORES else ("rows", rows)
        where = np.unravel_index(int(np.argmax(np.abs(array))), array.shape)
        raise InvalidProblemError(
            f"{name}[{', '.join(str(int(i)) for i in where)}] = {array[where]} times the slot weights overflows; "
            f"divide the {name} by a common factor"
        )
    raise InvalidProblemError(
        f"shapes scores {scores.shape}, rows {rows.shape}, lower {lower.shape}, upper {upper.shape}, slot_weights "
        f"{v.shape} with a workspace of n={workspace.n}, m={workspace.m}, K={workspace.K}; they must be (n,), (K, n), "
        "(K,), (K,), (m,) with m <= n"
    )


@dataclass(frozen=True, eq=False)
class BatchSolution:
    """Results of `solve_batch`, stacked.

    Attributes
    ----------
    status : array of int64, shape (B,)
        Values of `Status`.
    objective, bound : array of float64, shape (B,)
    support : array of int64, shape (B,)
        Number R of rankings in each lottery.
    weights : array of float64, shape (B, K + 1)
        Only the first R of a row count.
    rankings : array of int64, shape (B, K + 1, m)
        Only the first R of a request count.
    prices, ray, rest : array of float64, shape (B, K)
        As in `Certificate`.
    pricings : array of int64, shape (B,)
    """

    status: Ints
    objective: Floats
    bound: Floats
    support: Ints
    weights: Floats
    rankings: Ints
    prices: Floats
    ray: Floats
    rest: Floats
    pricings: Ints

    def certificate(self, b: int) -> Certificate:
        """Certificate of request b."""
        R = int(self.support[b])
        return Certificate(
            Status(self.status[b]),
            self.rankings[b, :R],
            self.weights[b, :R],
            self.prices[b],
            self.ray[b],
            self.rest[b],
        )


def solve_batch(
    scores: Floats,
    rows: Floats,
    lower: Floats,
    upper: Floats,
    slot_weights: Floats,
    *,
    threads: int = 1,
    tol: float = 1e-10,
    max_pricings: int = 5000,
    feasibility_tol: float = 1e-9,
) -> BatchSolution:
    """Solve B requests of one size; equal to B calls of `solve_arrays`, bit by bit, whatever the number of threads.

    Parameters
    ----------
    scores : array of float64, shape (B, n)
    rows : array of float64, shape (B, K, n), or (K, n) for all
    lower, upper : array of float64, shape (B, K), or (K,) for all
    slot_weights : array of float64, shape (m,)
    threads : int
        Threads to share the requests among; the kernel releases the GIL.
    tol, max_pricings, feasibility_tol
        As in `solve_arrays`.

    Returns
    -------
    BatchSolution

    Raises
    ------
    InvalidProblemError
        As `solve_arrays`; the message names the request.

    Examples
    --------
    Two requests of three items and two slots; the last item gets at least 0.3 of exposure.

    >>> scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    >>> rows, lower, upper = np.array([[0.0, 0.0, 1.0]]), np.array([0.3]), np.array([np.inf])
    >>> solve_batch(scores, rows, lower, upper, np.array([1.0, 0.5])).objective.round(3)
    array([3.7, 4. ])
    """
    u, A, v = real_array(scores, "scores"), real_array(rows, "rows"), real_array(slot_weights, "slot_weights")
    A = A[None] if A.ndim == 2 else A
    low, high = np.atleast_2d(real_array(lower, "lower")), np.atleast_2d(real_array(upper, "upper"))
    if u.ndim != 2 or A.ndim != 3 or A.shape[2] != u.shape[1] or v.ndim != 1:
        raise InvalidProblemError(
            f"shapes scores {u.shape}, rows {A.shape}, slot_weights {v.shape}; they must be (B, n), (B, K, n) or "
            "(K, n), and (m,)"
        )
    if threads < 1:
        raise InvalidProblemError(f"threads={threads}; give at least 1")
    _check_options(tol, max_pricings, feasibility_tol)
    B, n = u.shape
    K, m = A.shape[1], v.size
    for name, array, width in (("rows", A, K), ("lower", low, K), ("upper", high, K)):
        if array.shape[0] not in (1, B) or array.shape[1] != width:
            raise InvalidProblemError(
                f"{name} has shape {array.shape} for B={B}, K={K}; give one a request or one for all"
            )
    floats = np.empty((B, _HEAD + 4 * K + 1))
    ints = np.empty((B, _HEAD + (K + 1) * m), dtype=np.int64)
    status = np.empty(B, dtype=np.int64)

    def part(chunk: slice) -> None:
        space = Workspace(n, m, K)
        kernels.batch_kernel(
            _own(u, chunk),
            _own(A, chunk),
            _own(low, chunk),
            _own(high, chunk),
            v.copy(),
            space._floats,
            space._ints,
            space._pool,
            max_pricings,
            tol,
            feasibility_tol,
            _SMOOTHING,
            _BOX,
            _STALL_LIMIT,
            _AS_STATED,
            status[chunk],
            floats[chunk],
            ints[chunk],
        )
        for b in (np.flatnonzero(status[chunk] == kernels.NUMERICAL) + chunk.start).tolist():
            space._floats[: floats.shape[1]], space._ints[: ints.shape[1]] = floats[b], ints[b]
            arrays = Arrays(u[b], A[b % len(A)], low[b % len(low)], high[b % len(high)], v)
            status[b] = _untidy(arrays, space, max_pricings, tol, feasibility_tol)
            floats[b], ints[b] = space._floats[: floats.shape[1]], space._ints[: ints.shape[1]]

    _run(part, B, threads)
    bad = np.flatnonzero(status < 0)
    if bad.size:
        b = int(bad[0])
        try:
            _refuse(int(status[b]), u[b], A[b % len(A)], low[b % len(low)], high[b % len(high)], v, Workspace(n, m, K))
        except InvalidProblemError as error:
            raise InvalidProblemError(f"request {b}: {error}") from None
    prices = floats[:, _HEAD + K + 1 : _HEAD + 2 * K + 1]
    return BatchSolution(
        status,
        floats[:, 0],
        floats[:, 1],
        ints[:, 0],
        floats[:, _HEAD : _HEAD + K + 1],
        ints[:, _HEAD:].reshape(B, K + 1, m),
        prices,
        floats[:, _HEAD + 2 * K + 1 : _HEAD + 3 * K + 1],
        floats[:, _HEAD + 3 * K + 1 :],
        ints[:, 1],
    )


def _own(array: NDArray[np.float64], chunk: slice) -> NDArray[np.float64]:
    """Return the requests of one chunk, writeable as the kernel's signature wants them."""
    part = array if array.shape[0] == 1 else array[chunk]
    return part if part.flags.writeable else part.copy()


def _run(part: Any, B: int, threads: int) -> None:
    edges = np.linspace(0, B, threads + 1).astype(int).tolist()
    chunks = [slice(a, b) for a, b in pairwise(edges) if b > a]
    if len(chunks) <= 1:
        for chunk in chunks:
            part(chunk)
        return
    with ThreadPoolExecutor(len(chunks)) as executor:
        list(executor.map(part, chunks))


def warmup() -> None:
    """Load the compiled kernels (compile them on the first call after an installation) before the first request."""
    one, row = np.ones(1), np.ones((1, 1))
    space = Workspace(1, 1, 1)
    solve_arrays(one, row, np.zeros(1), one, one, space)
    kernels.prove_kernel(one, row, np.zeros(1), one, one, space._floats, space._ints, False, 1e-9, 1e-9)
    solve_batch(row, row, np.zeros(1), one, one)
