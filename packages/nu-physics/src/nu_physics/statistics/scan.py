"""Grids of fits on one core, many processes or Ray: chunked, resumable, and the same numbers for any worker count.

A job is plain data (it travels to workers and into the file's header as JSON); a chunk is a run of grid points in
row-major order. A work folder keeps finished chunks by job, version and tables, each with its checksum; a finished scan
is one Parquet or npz table. Every point is fitted for itself, by :meth:`nu_physics.statistics.fit.Fit.best` over both
signs of dm31, so that its numbers depend neither on chunks, nor on workers, nor on order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from papershelf_core.files import replacing
from papershelf_core.work_folder import WorkFolder, identity

from nu_physics.errors import InvalidInput, MissingExtra, check_choice, check_range, real_array
from nu_physics.executors import EXECUTORS, check_workers, run_chunks
from nu_physics.oscillation.parameters import Ordering, OscillationParameters
from nu_physics.oscillation.probability import SURVIVAL_PARAMETERS
from nu_physics.oscillation.scalar_nsi import ScalarNSI
from nu_physics.reactor.experiment import Systematics, juno
from nu_physics.statistics.analysis import ETA_NAMES, GLOBAL_FIT_WIDTHS
from nu_physics.statistics.fit import OSCILLATION, Fit, Prior, with_values
from nu_physics.statistics.likelihood import STATISTICS

__all__ = ["EXECUTORS", "ScanJob", "ScanTable", "load_table", "run_scan"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ScanJob:
    """Everything that defines a scan of JUNO.

    Parameters
    ----------
    grid : dict of parameter name to list of values
        Scanned parameters; the table runs over their product, last name fastest.
    free : tuple of str
        Parameters fitted at every point; scanned ones are left out by themselves.
    truth : dict of field to value
        Changes to ``OscillationParameters()`` for the Asimov data.
    true_eta : dict of eta name to value
        Scalar term in nature.
    fixed_eta : dict of eta name to value
        Scalar term in the fit, where not scanned.
    regime : {"fixed", "prior", "free"}
        Treatment of the oscillation parameters that are not scanned.
    exposure_days, duty_cycle, layout
        As in :func:`nu_physics.reactor.experiment.juno`.
    statistic : {"gaussian", "cnp", "poisson"}
    statistics_only : bool
        No systematic uncertainties.
    orderings : tuple of {"normal", "inverted"}
        Signs of dm31 that the fit may take; both by default; where dm31 is fixed or scanned, its
        own must be among them.
    chunk : int
        Points per chunk.

    Examples
    --------
    >>> job = ScanJob(grid={"eta_ee": [0.0, 0.01]}, regime="fixed")
    >>> [round(float(v), 1) for v in run_scan(job).column("chi2")][0]
    0.0
    """

    grid: Mapping[str, list[float]]
    regime: str = "free"
    truth: Mapping[str, float] = field(default_factory=dict)
    true_eta: Mapping[str, float] = field(default_factory=dict)
    fixed_eta: Mapping[str, float] = field(default_factory=dict)
    exposure_days: float = 6.5 * 365.25
    duty_cycle: float = 1.0
    layout: str = "juno-2022"
    statistic: str = "gaussian"
    statistics_only: bool = False
    orderings: tuple[Ordering, ...] = ("normal", "inverted")
    chunk: int = 200

    def __post_init__(self) -> None:
        for name in ("grid", "truth", "true_eta", "fixed_eta"):
            if not isinstance(getattr(self, name), Mapping):
                raise InvalidInput(f"{name} = {getattr(self, name)!r}: give a dict by name")
        if not self.grid:
            raise InvalidInput("grid is empty; name at least one parameter with its values")
        for name, values in self.grid.items():
            check_choice("scanned parameter", name, SURVIVAL_PARAMETERS)
            if name == "density_g_cm3":
                raise InvalidInput("density_g_cm3 cannot be scanned; it belongs to the site")
            array = real_array(f"grid of {name}", values)
            if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
                raise InvalidInput(f"grid of {name} must be a non-empty list of finite numbers, got {values!r}")
        # plain floats: a job travels as JSON, and a name that its model would ignore is refused
        known = {
            "truth": list(OscillationParameters.__dataclass_fields__),
            "true_eta": ETA_NAMES,
            "fixed_eta": ETA_NAMES,
        }
        for field_name, names in known.items():
            given = getattr(self, field_name)
            plain = {check_choice(field_name, k, names): check_range(f"{field_name} {k}", v) for k, v in given.items()}
            object.__setattr__(self, field_name, plain)
        for field_name in ("exposure_days", "duty_cycle"):
            object.__setattr__(self, field_name, check_range(field_name, getattr(self, field_name), 0.0))
        if not isinstance(self.statistics_only, bool):
            raise InvalidInput(f"statistics_only = {self.statistics_only!r}: give True or False")
        check_choice("regime", self.regime, ("fixed", "prior", "free"))
        check_choice("statistic", self.statistic, STATISTICS)
        if not self.orderings:
            raise InvalidInput("orderings is empty; name normal, inverted or both")
        for ordering in self.orderings:
            check_choice("ordering", ordering, ("normal", "inverted"))
        object.__setattr__(self, "orderings", tuple(self.orderings))
        if isinstance(self.chunk, bool) or not isinstance(self.chunk, int) or self.chunk < 1:
            raise InvalidInput(f"chunk = {self.chunk!r}: give a whole number of at least 1")

    @property
    def free(self) -> tuple[str, ...]:
        """Fitted parameters."""
        return () if self.regime == "fixed" else tuple(n for n in OSCILLATION if n not in self.grid)

    @property
    def shape(self) -> tuple[int, ...]:
        """Points along each axis."""
        return tuple(len(values) for values in self.grid.values())

    @property
    def points(self) -> int:
        """Number of grid points."""
        return int(np.prod(self.shape))

    def as_json(self) -> str:
        """Return the job as canonical JSON: its identity on disk."""
        table = dataclasses.asdict(self)
        table["grid"] = {name: [float(v) for v in values] for name, values in self.grid.items()}
        return json.dumps(table, sort_keys=True)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the table."""
        return (*self.grid, *(n for n in self.free), "chi2", "converged")


@dataclass(frozen=True)
class ScanTable:
    """The finished scan: one row per grid point."""

    job: ScanJob
    rows: Array

    def column(self, name: str) -> Array:
        """Return one column; raises with the nearest names if it does not exist."""
        check_choice("column", name, self.job.columns)
        return np.asarray(self.rows[:, self.job.columns.index(name)])

    def image(self, name: str = "chi2") -> Array:
        """Return one column in the shape of the grid."""
        return self.column(name).reshape(self.job.shape)

    def save(self, path: str | Path) -> Path:
        """Write ``.parquet`` (extra ``parquet``) or ``.npz``; the job is in the file's metadata."""
        target = Path(path)
        if target.suffix == ".npz":
            _write_npz(target, self.rows, self.job)
            return target
        if target.suffix != ".parquet":
            raise InvalidInput(f"path = {str(target)!r}: the suffix must be .parquet or .npz")
        pa, pq = _pyarrow()
        table = pa.table({name: self.rows[:, k] for k, name in enumerate(self.job.columns)})
        table = table.replace_schema_metadata({"nu_physics_scan": self.job.as_json()})
        with replacing(target) as scratch:
            pq.write_table(table, scratch)
        return target


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("parquet", "writing Parquet") from None
    return pyarrow, pyarrow.parquet


def _job(text: str) -> ScanJob:
    return ScanJob(**json.loads(text))


def load_table(path: str | Path) -> ScanTable:
    """Read a table that :meth:`ScanTable.save` wrote."""
    target = Path(path)
    if target.suffix == ".npz":
        try:
            with np.load(target, allow_pickle=False) as archive:
                job, rows = _job(str(archive["job"])), np.array(archive["rows"])
        except FileNotFoundError:
            raise InvalidInput(f"{target} is not there") from None
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
            raise InvalidInput(f"{target} is no whole npz table that a scan wrote; scan again") from None
    else:
        pa, pq = _pyarrow()
        try:
            table = pq.read_table(target)
            job = _job(table.schema.metadata[b"nu_physics_scan"].decode())
            rows = np.column_stack([table[name].to_numpy() for name in job.columns])
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise InvalidInput(f"{target} is no table that a scan wrote ({error}); scan again") from None
    if rows.shape != (job.points, len(job.columns)) and target.suffix != ".npz":
        raise InvalidInput(f"{target} has shape {rows.shape}, its job {(job.points, len(job.columns))}; scan again")
    return ScanTable(job, rows)


def _write_npz(target: Path, rows: Array, job: ScanJob) -> None:
    with replacing(target) as scratch, scratch.open("wb") as stream:
        np.savez(stream, rows=rows, job=np.array(job.as_json()))


@functools.lru_cache(maxsize=4)
def _prepared(text: str) -> tuple[Fit, OscillationParameters, ScalarNSI | None]:
    """Build experiment and fit once per worker."""
    job = _job(text)
    truth = OscillationParameters().replace(**job.truth)
    experiment = juno(
        exposure_days=job.exposure_days,
        duty_cycle=job.duty_cycle,
        layout=job.layout,
        systematics=Systematics.none() if job.statistics_only else None,
        nonlinearity_pulls=not job.statistics_only,
    )
    mass_scale = float(np.sqrt(abs(truth.dm31_eV2)))
    _, nature = with_values(truth, None, job.true_eta)
    _, assumed = with_values(truth, ScalarNSI(scale=mass_scale), job.fixed_eta)
    priors = {}
    if job.regime == "prior":
        priors = {name: Prior(float(getattr(truth, name)), width) for name, width in GLOBAL_FIT_WIDTHS.items()}
    fit = Fit(experiment, experiment.expected(truth, nature), truth, nature, statistic=job.statistic, priors=priors)
    return fit, truth, assumed


def _chunk(text: str, number: int) -> Array:
    """Fit the points of one chunk."""
    job = _job(text)
    fit, truth, assumed = _prepared(text)
    axes = [np.asarray(values, dtype=np.float64) for values in job.grid.values()]
    first = number * job.chunk
    rows = np.empty((min(job.chunk, job.points - first), len(job.columns)))
    for i in range(len(rows)):
        index = np.unravel_index(first + i, job.shape)
        values = {name: float(axis[k]) for name, axis, k in zip(job.grid, axes, index, strict=True)}
        start, snsi = with_values(truth, assumed, values)
        best = fit.best(start, snsi, free=job.free, orderings=job.orderings, tolerance=1e-5)
        found = best.values
        rows[i] = [*values.values(), *(found[n] for n in job.free), best.chi2, float(best.converged)]
    return rows


def run_scan(
    job: ScanJob,
    *,
    executor: str = "serial",
    workers: int = 2,
    work_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ScanTable:
    """Run a scan and return its table.

    Parameters
    ----------
    job : ScanJob
    executor : {"serial", "processes", "ray"}
        ``"ray"`` needs the extra ``ray`` and uses a running cluster if there is one.
    workers : int
        Worker processes.
    work_dir : path, optional
        Folder for finished chunks; a later call with the same job, version and tables continues from them. Damaged
        chunks are computed again.
    progress : callable, optional
        Called with (finished chunks, all chunks).

    Returns
    -------
    ScanTable
        The same rows for any executor and worker count.
    """
    check_workers(executor, workers)
    work = None if work_dir is None else WorkFolder(work_dir, _identity(job))
    total = -(-job.points // job.chunk)
    done: dict[int, Array] = {}
    for number in range(total):
        path = work.finished(_part(number)) if work else None
        if path is not None:
            done[number] = load_table(path).rows
    if progress is not None:
        progress(len(done), total)
    todo = [number for number in range(total) if number not in done]
    for number, rows in run_chunks(_chunk, job.as_json(), todo, executor, workers):
        done[number] = rows
        if work:
            with work.writing(_part(number)) as scratch:
                _write_npz(scratch, rows, job)
        if progress is not None:
            progress(len(done), total)
    return ScanTable(job, np.concatenate([done[number] for number in range(total)]))


def _part(number: int) -> str:
    return f"{number:06d}.npz"


def _identity(job: ScanJob) -> dict[str, Any]:
    """The job, this package's version and the tables that an experiment is made of."""
    data = resources.files("nu_physics.data")
    with contextlib.ExitStack() as stack:
        names = ("juno_detector.toml", "sites.toml", "flux.toml")
        files = {name: stack.enter_context(resources.as_file(data / name)) for name in names}
        return identity("nu-physics", json.loads(job.as_json()), files)
