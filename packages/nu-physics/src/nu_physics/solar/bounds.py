"""Upper bounds of muon rates: what a telescope can see of the Sun if a direct-detection limit is saturated.

limit(m) -> capture C -> annihilation Gamma = (C / 2) tanh^2(t / tau) -> sum over channels of BR x spectrum
-> propagation to the Earth -> Phi = Gamma N / (4 pi d^2) -> events a year in the detector, muons a km2 and year,
muons that start in a km3 of water and year.

Every rate is an upper bound of the rate, for this particle model, this limit and this halo; it is not a sensitivity.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from papershelf_core.work_folder import WorkFolder, identity

from nu_physics.constants import DAY_s, YEAR_days
from nu_physics.errors import InvalidInput, check_choice, check_counts, check_range
from nu_physics.executors import check_workers, run_chunks
from nu_physics.solar.capture import CaptureResult, capture_rate
from nu_physics.solar.channels import CHANNELS, FLAVOURS, channel
from nu_physics.solar.cross_sections import cross_sections
from nu_physics.solar.equilibrium import annihilation_rate
from nu_physics.solar.limits import DirectDetectionLimit, limit
from nu_physics.solar.models import MixedChannels, ParticleModel, SingletScalar, annihilates
from nu_physics.solar.muons import contained_per_cm3, muons_per_neutrino
from nu_physics.solar.propagation import PropagationMatrix, propagation_matrix
from nu_physics.solar.spectra import source_spectrum, spectrum_table
from nu_physics.solar.sun import ASTRONOMICAL_UNIT_cm, SolarModel, solar_model
from nu_physics.solar.telescope import SELECTIONS, EffectiveArea, arca

__all__ = ["BoundsJob", "RateBound", "Rates", "plain", "rate_bound", "rates", "run_bounds"]

Array = NDArray[np.float64]

_YEAR_s = YEAR_days * DAY_s
_NU_MU, _NUBAR_MU = 1, 4


@dataclass(frozen=True)
class Rates:
    """What one flux gives.

    Parameters
    ----------
    events_per_year : float
        Selected by the telescope; NaN where the response says nothing of it, never a zero that only means "no area".
    muons_per_km2_year : float
        Through a horizontal or any other km2 that faces the Sun, above the threshold: geometric, no selection.
    contained_per_km3_year : float
        Muons above the threshold that start in a km3 of water.
    response_share : float
        Share of ``muons_per_km2_year`` whose neutrinos have an energy at which the telescope has an area: near one the
        events are all there is, near zero they are a tail. NaN where no muon comes.
    no_events : str
        Why ``events_per_year`` is NaN; empty where it is a number.
    """

    events_per_year: float
    muons_per_km2_year: float
    contained_per_km3_year: float
    response_share: float
    no_events: str


@dataclass(frozen=True)
class RateBound:
    """One row of the result: the upper bound for one mass, model and limit.

    The last five columns are those of `Rates`.
    """

    mass_GeV: float
    model: str
    limit: str
    sigma_cm2: float
    capture_per_s: float
    saturated: bool
    equilibrium: float
    annihilation_per_s: float
    events_per_year: float
    muons_per_km2_year: float
    contained_per_km3_year: float
    response_share: float
    no_events: str


def plain(row: Rates | RateBound) -> dict[str, Any]:
    """Return a row as JSON can hold it: None in place of NaN."""
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(row).items()
    }


def rates(
    annihilation_per_s: float,
    arrived: Array,
    *,
    telescope: EffectiveArea | None = None,
    matrix: PropagationMatrix | None = None,
    threshold_GeV: float = 10.0,
    selection: str = "upgoing",
) -> Rates:
    """Return the rates of a spectrum at the Earth.

    Parameters
    ----------
    annihilation_per_s : float
    arrived : array of shape (6, n)
        Neutrinos per annihilation at 1 AU, as :meth:`PropagationMatrix.apply` returns them.
    telescope : EffectiveArea, optional
        ARCA by default.
    matrix : PropagationMatrix, optional
        Whose bins ``arrived`` has.
    threshold_GeV : float
        Least muon energy of the two geometric rates; at least 1.
    selection : {"upgoing", "all"}
        Of the telescope's events.

    Raises
    ------
    InvalidInput
        A number out of range, a spectrum that is negative, no number or of another shape, a selection without area.
    """
    gamma = check_range("annihilation_per_s", annihilation_per_s, 0.0)
    bins, seen = matrix or propagation_matrix(), telescope or arca()
    if not isinstance(seen, EffectiveArea):
        raise InvalidInput(f"telescope is a {type(seen).__name__}; give an EffectiveArea (arca(), read_gadf_area(...))")
    threshold = check_range("threshold_GeV", threshold_GeV, 1.0, 1.0e6)
    shape = (len(FLAVOURS), bins.centres_GeV.size)
    spectrum = check_counts("arrived", arrived, shape, "flavours of channels.FLAVOURS by bins of the matrix")
    if spectrum.ndim != len(shape):
        raise InvalidInput(f"arrived has shape {spectrum.shape}; give one spectrum at a time, {shape}")
    muon_flavour = spectrum[[_NU_MU, _NUBAR_MU]]
    flux = muon_flavour * gamma / (4.0 * math.pi * ASTRONOMICAL_UNIT_cm**2) * _YEAR_s
    area = seen.mean_cm2(bins.centres_GeV, selection)
    through, contained = _conversion(tuple(bins.centres_GeV), threshold)
    muons = muon_flavour * through
    reason = _no_events(muon_flavour.sum(0), area, bins.centres_GeV, seen.range_GeV(selection))
    return Rates(
        math.nan if reason else float((flux @ area).sum()),
        float((flux * through).sum()) * 1.0e10,
        float((flux * contained).sum()) * 1.0e15,
        float(muons[:, area > 0].sum() / muons.sum()) if muons.any() else math.nan,
        reason,
    )


def _no_events(spectrum: Array, area_cm2: Array, energy_GeV: Array, range_GeV: tuple[float, float]) -> str:
    """Why the response says nothing of the events of this spectrum; empty where it does."""
    low, high = range_GeV
    arriving = energy_GeV[spectrum > 0]
    if not arriving.size:
        return ""
    if arriving.max() > high:
        return (
            f"muon neutrinos arrive up to {arriving.max():.4g} GeV, and the telescope's response ends at {high:.4g} GeV"
        )
    if not (area_cm2[spectrum > 0] > 0).any():
        return f"the telescope has no area below {low:.4g} GeV, and all muon neutrinos arrive below"
    return ""


@functools.lru_cache(maxsize=8)
def _conversion(energy_GeV: tuple[float, ...], threshold_GeV: float) -> tuple[Array, Array]:
    """Muons per neutrino through a plane, and per neutrino and cm2 in a cm3; rows nu_mu and nubar_mu."""
    energy = np.asarray(energy_GeV)
    both = (False, True)
    through = np.stack([muons_per_neutrino(energy, threshold_GeV, antineutrino=anti) for anti in both])
    contained = np.stack([contained_per_cm3(energy, threshold_GeV, antineutrino=anti) for anti in both])
    through.setflags(write=False)
    contained.setflags(write=False)
    return through, contained


def rate_bound(
    mass_GeV: float,
    model: str | ParticleModel,
    at_limit: str | DirectDetectionLimit,
    *,
    sun: SolarModel | None = None,
    telescope: EffectiveArea | None = None,
    equilibrium: str = "solve",
    threshold_GeV: float = 10.0,
    selection: str = "upgoing",
) -> RateBound:
    """Return the upper bound of the muon rates.

    Parameters
    ----------
    mass_GeV : float
        Inside the limit's range and the shipped spectra.
    model : str or ParticleModel
        A channel's name (branching ratio one, thermal cross section), ``"singlet-scalar"``, or a model of one's own.
    at_limit : str or DirectDetectionLimit
        Packaged name, or a limit of one's own.
    sun : SolarModel, optional
    telescope : EffectiveArea, optional
    equilibrium : {"solve", "assume"}
    threshold_GeV, selection
        As in :func:`rates`.

    Raises
    ------
    InvalidInput
        Channel closed, limit or spectra without that mass; a model whose branching ratios do not sum to one.

    Examples
    --------
    >>> bound = rate_bound(1000.0, "tautau", "xenon1t-2018")
    >>> round(bound.equilibrium, 2), bound.events_per_year < 1.0
    (0.98, True)
    """
    particle = named_model(model) if isinstance(model, str) else model
    curve = limit(at_limit) if isinstance(at_limit, str) else at_limit
    if not isinstance(curve, DirectDetectionLimit):
        raise InvalidInput(f"at_limit is a {type(curve).__name__}; give a name or a DirectDetectionLimit (read_limit)")
    sigma = curve.cross_section(mass_GeV)
    independent = curve.coupling == "spin-independent"
    unit = 1.0e-45 if independent else 1.0e-40
    thin = _unit_capture(float(mass_GeV), independent, unit, sun)
    capture = min(thin.thin_rate_per_s * sigma / unit, thin.geometric_limit_per_s)
    sigma_si = sigma if independent else 0.0
    shares, annihilation_cm3_s = annihilates(particle, mass_GeV, sigma_si)
    annihilation = annihilation_rate(
        capture,
        mass_GeV,
        annihilation_cm3_s=annihilation_cm3_s,
        equilibrium=equilibrium,
        sun=sun,
    )
    produced = np.zeros(())
    for name, share in shares.items():
        produced = produced + share * source_spectrum(name, mass_GeV).number
    found = rates(
        annihilation.rate_per_s,
        propagation_matrix().apply(produced),
        telescope=telescope,
        threshold_GeV=threshold_GeV,
        selection=selection,
    )
    return RateBound(
        float(mass_GeV),
        particle.name,
        curve.name,
        sigma,
        capture,
        thin.thin_rate_per_s * sigma / unit > thin.geometric_limit_per_s,
        annihilation.equilibrium,
        annihilation.rate_per_s,
        **asdict(found),
    )


@functools.lru_cache(maxsize=512)
def _unit_capture(mass: float, independent: bool, unit: float, sun: SolarModel | None) -> CaptureResult:
    """Capture at a unit cross section; it is proportional to the cross section until the Sun is opaque."""
    if independent:
        return capture_rate(mass, sigma_si_cm2=unit, sun=sun)
    return capture_rate(mass, sigma_sd_cm2=unit, sun=sun)


def named_model(name: str) -> ParticleModel:
    """Return the model of a name: ``"singlet-scalar"``, or one channel alone."""
    check_choice("model", name, (*CHANNELS, SingletScalar().name))
    return SingletScalar() if name == SingletScalar().name else MixedChannels({channel(name).name: 1.0})


@dataclass(frozen=True)
class BoundsJob:
    """A table of bounds: every mass with every model at every limit.

    Parameters
    ----------
    masses_GeV : sequence of floats
    models : sequence of str
        Channels or ``"singlet-scalar"``.
    limits : sequence of str
        Packaged limits.
    equilibrium, threshold_GeV, selection
        As in :func:`rate_bound`.
    """

    masses_GeV: tuple[float, ...]
    models: tuple[str, ...]
    limits: tuple[str, ...]
    equilibrium: str = "solve"
    threshold_GeV: float = 10.0
    selection: str = "upgoing"

    def __post_init__(self) -> None:
        for name in ("masses_GeV", "models", "limits"):
            given = getattr(self, name)
            if isinstance(given, str) or not isinstance(given, (Sequence, np.ndarray)):
                raise InvalidInput(f"{name} = {given!r}: give a sequence")
            if not len(given):
                raise InvalidInput(f"{name} is empty; name at least one")
            object.__setattr__(self, name, tuple(given))
        masses = tuple(check_range("masses_GeV", mass, 0.0, open_low=True) for mass in self.masses_GeV)
        object.__setattr__(self, "masses_GeV", masses)  # plain floats: a job travels as JSON
        check_choice("equilibrium", self.equilibrium, ("solve", "assume"))
        check_choice("selection", self.selection, SELECTIONS)
        object.__setattr__(self, "threshold_GeV", check_range("threshold_GeV", self.threshold_GeV, 1.0, 1.0e6))
        for model in self.models:
            named_model(model)
        for name in self.limits:
            limit(name)

    def as_json(self) -> str:
        """Return the job as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True)


def _identity(job: BoundsJob) -> dict[str, Any]:
    """The job, this package's version and every table that its rows depend on."""
    sun, area = solar_model(), arca()
    arrays = [
        *(getattr(sun, name) for name in ("radius", "mass", "temperature_K", "density_g_cm3", "mass_fraction")),
        *(getattr(area, name) for name in ("energy_edges_GeV", "zenith_edges_deg", "area_m2", "sun_share")),
        propagation_matrix().elements,
        *(
            table
            for part in (spectrum_table().masses_GeV, spectrum_table().light, spectrum_table().tau)
            for table in part.values()
        ),
        cross_sections().total_cm2,
        cross_sections().y_density,
    ]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    curves = {name: asdict(limit(name)) for name in job.limits}
    return {**identity("nu-physics", asdict(job)), "limits": curves, "tables": digest.hexdigest()}


def run_bounds(
    job: BoundsJob,
    *,
    executor: str = "serial",
    workers: int = 2,
    work_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[RateBound], list[str]]:
    """Compute the table, one chunk a mass.

    Parameters
    ----------
    job : BoundsJob
    executor : {"serial", "processes", "ray"}
    workers : int
    work_dir : path, optional
        Folder of finished masses; a later call with the same job, version and tables continues from them. Damaged ones
        are computed again.
    progress : callable, optional
        Called with (finished masses, all masses).

    Returns
    -------
    rows : list of RateBound
        In the job's order, the same for any executor and worker count.
    skipped : list of str
        What has no bound (a channel closed at that mass, a limit that does not reach it), each with its reason.
    """
    check_workers(executor, workers)
    work = None if work_dir is None else WorkFolder(work_dir, _identity(job))
    total = len(job.masses_GeV)
    done: dict[int, dict[str, Any]] = {}
    for number in range(total):
        part = work.finished(_part(number)) if work else None
        if part is not None:
            done[number] = json.loads(part.read_text(encoding="utf-8"))
    if progress is not None:
        progress(len(done), total)
    todo = [number for number in range(total) if number not in done]
    for number, result in run_chunks(_one_mass, job.as_json(), todo, executor, workers):
        done[number] = result
        if work:
            with work.writing(_part(number)) as scratch:
                scratch.write_text(json.dumps(result, allow_nan=False), encoding="utf-8")
        if progress is not None:
            progress(len(done), total)
    rows = [_row(row) for number in range(total) for row in done[number]["rows"]]
    return rows, [reason for number in range(total) for reason in done[number]["skipped"]]


def _part(number: int) -> str:
    return f"{number:06d}.json"


def _row(stored: dict[str, Any]) -> RateBound:
    """A row of `plain`."""
    values: dict[str, Any] = {key: math.nan if value is None else value for key, value in stored.items()}
    return RateBound(**values)


def _one_mass(text: str, number: int) -> dict[str, Any]:
    """Rows of one mass, as plain data."""
    table = json.loads(text)
    mass, rows, skipped = table["masses_GeV"][number], [], []
    for model in table["models"]:
        for name in table["limits"]:
            try:
                row = rate_bound(
                    mass,
                    model,
                    name,
                    equilibrium=table["equilibrium"],
                    threshold_GeV=table["threshold_GeV"],
                    selection=table["selection"],
                )
            except InvalidInput as reason:
                skipped.append(f"{mass:g} GeV, {model}, {name}: {reason}")
            else:
                rows.append(plain(row))
    return {"rows": rows, "skipped": skipped}


COLUMNS: Sequence[str] = tuple(entry.name for entry in fields(RateBound))
