"""A reactor experiment: the expected spectrum, its derivatives, its uncertainties, and events drawn from it.

N_j = T eps N_p sum_r [W_r / 4 pi L_r^2] int dE phi(E) sigma(E) P_ee(E, L_r) R_j(E) + T sum_b rate_b shape_bj
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nu_physics.constants import DAY_s, ELECTRON_MASS_MeV, MATTER_eV2_per_MeV
from nu_physics.errors import InvalidInput, check_choice, check_range
from nu_physics.oscillation import kernels
from nu_physics.oscillation.parameters import OscillationParameters
from nu_physics.oscillation.probability import (
    Propagation,
    gradient_projection,
    mass_squared_derivatives,
    propagation,
)
from nu_physics.oscillation.scalar_nsi import ScalarNSI
from nu_physics.reactor.backgrounds import Background, juno_backgrounds
from nu_physics.reactor.flux import FluxModel, core_spectrum, packaged
from nu_physics.reactor.ibd import THRESHOLD_MeV, cross_section, positron_nodes
from nu_physics.reactor.response import Binning, NonLinearity, Resolution, Response
from nu_physics.reactor.sites import Site, site

__all__ = ["Experiment", "Spectrum", "Systematics", "juno"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """Expected counts per bin, signal and backgrounds apart."""

    edges_MeV: Array
    signal: Array
    backgrounds: dict[str, Array]

    @property
    def background(self) -> Array:
        """Sum of the backgrounds."""
        return np.asarray(sum(self.backgrounds.values(), np.zeros_like(self.signal)))

    @property
    def total(self) -> Array:
        """Signal and backgrounds."""
        return self.signal + self.background


@dataclass(frozen=True)
class Systematics:
    """Relative one-sigma uncertainties; zero switches one off."""

    flux: float = 0.02
    detection: float = 0.01
    core_power: float = 0.008
    spent_fuel: float = 0.30
    non_equilibrium: float = 0.30
    shape_energy_MeV: tuple[float, ...] = (0.0, 20.0)
    shape_relative: tuple[float, ...] = (0.0, 0.0)
    shape_width_MeV: float = 0.02

    def __post_init__(self) -> None:
        for name in ("flux", "detection", "core_power", "spent_fuel", "non_equilibrium"):
            check_range(f"systematics {name}", getattr(self, name), 0.0, 10.0)

    @classmethod
    def juno(cls) -> Systematics:
        """JUNO's table, with the bin-to-bin uncertainty that TAO leaves."""
        table = packaged("juno_detector")
        shape = table["shape_uncertainty"]
        return cls(
            **table["systematics"],
            shape_energy_MeV=tuple(shape["energy_MeV"]),
            shape_relative=tuple(shape["relative"]),
        )

    @classmethod
    def none(cls) -> Systematics:
        """Statistical uncertainties only."""
        return cls(0.0, 0.0, 0.0, 0.0, 0.0)

    def bin_to_bin(self, binning: Binning) -> Array:
        """Relative uncertainty of each bin, averaging down as 1/sqrt(width) from ``shape_width_MeV``."""
        base = np.interp(binning.centres_MeV, self.shape_energy_MeV, self.shape_relative)
        return np.asarray(base * np.sqrt(self.shape_width_MeV / binning.widths_MeV))


class Experiment:
    """Everything that does not depend on the oscillation parameters, prepared once.

    Parameters
    ----------
    site : Site
    binning : Binning
    resolution : Resolution
    nonlinearity : NonLinearity
    exposure_days : float
        Days of detector running.
    duty_cycle : float
        Share of that time at which the cores run at full power; applied to the signal, not to the backgrounds.
    systematics : Systematics
    with_backgrounds : bool
        JUNO's backgrounds.
    flux : FluxModel, optional
        Huber-Mueller polynomial by default.
    cross_section_order : str
        One of ``ibd.CROSS_SECTIONS``.
    step_MeV : float
        Width of the neutrino-energy cells; 5 keV resolves the fast oscillation at 50 km.

    Examples
    --------
    >>> experiment = juno(exposure_days=365.25)
    >>> spectrum = experiment.predict(OscillationParameters())
    >>> spectrum.signal.size, round(float(spectrum.signal.sum()) / 365.25, 1)
    (340, 47.5)
    """

    def __init__(
        self,
        site: Site,
        binning: Binning,
        resolution: Resolution,
        nonlinearity: NonLinearity,
        *,
        exposure_days: float,
        duty_cycle: float = 1.0,
        systematics: Systematics | None = None,
        with_backgrounds: bool = True,
        flux: FluxModel | None = None,
        cross_section_order: str = "strumia-vissani",
        step_MeV: float = 0.005,
    ) -> None:
        check_range("exposure_days", exposure_days, 0.0, open_low=True)
        check_range("duty_cycle", duty_cycle, 0.0, 1.0)
        check_range("step_MeV", step_MeV, 0.0005, 0.1)
        self.site = site
        self.binning = binning
        self.resolution = resolution
        self.nonlinearity = nonlinearity
        self.exposure_days = float(exposure_days)
        self.duty_cycle = float(duty_cycle)
        self.systematics = systematics or Systematics.juno()
        cells = round((12.0 - 1.8) / step_MeV)
        edges = np.linspace(1.8, 12.0, cells + 1)
        edges = np.concatenate([[THRESHOLD_MeV], edges[edges > THRESHOLD_MeV]])
        self.energy_MeV = 0.5 * (edges[1:] + edges[:-1])
        core = core_spectrum(self.energy_MeV, site.fission_fractions, flux)
        per_cell = cross_section(self.energy_MeV, cross_section_order) * np.diff(edges)
        solid = float((site.power_GW / (4.0 * np.pi * (site.baseline_km * 1e5) ** 2)).sum())
        self.signal_days = self.exposure_days * self.duty_cycle
        scale = DAY_s * site.target_protons * site.flux_normalisation * solid
        self._per_day = {
            "equilibrium": scale * per_cell * core.equilibrium,
            "non_equilibrium": scale * per_cell * core.non_equilibrium,
            "spent_fuel": scale * per_cell * core.spent_fuel,
        }
        self.interactions_per_day = sum(self._per_day.values(), np.zeros_like(per_cell))
        self.events = self.interactions_per_day * site.efficiency * self.signal_days
        self.response = Response(self.energy_MeV, binning, resolution, nonlinearity)
        self.backgrounds: tuple[Background, ...] = ()
        if with_backgrounds:
            self.backgrounds = juno_backgrounds(binning, self.response.apply(self.events))
        self._background = np.zeros(binning.size)
        for background in self.backgrounds:
            self._background = self._background + self.exposure_days * background.counts_per_day()
        self._baseline = site.baseline_km
        self._share = site.flux_share
        self._matter = -MATTER_eV2_per_MeV * site.electron_fraction

    # -- expectation -----------------------------------------------------------------------------------------------

    def _propagation(self, parameters: OscillationParameters, snsi: ScalarNSI | None) -> Propagation:
        """Levels and weights in the site's matter."""
        return propagation(
            parameters,
            snsi,
            density_g_cm3=self.site.density_g_cm3,
            electron_fraction=self.site.electron_fraction,
        )

    def survival(self, parameters: OscillationParameters, snsi: ScalarNSI | None = None) -> Array:
        """Flux-weighted P_ee over the cores on the experiment's energy grid."""
        setup = self._propagation(parameters, snsi)
        out = np.empty(self.energy_MeV.size)
        kernels.survival_weighted(
            setup.levels_eV2,
            setup.electron,
            setup.matter_eV2_per_MeV,
            self.energy_MeV,
            self._baseline,
            self._share,
            out,
        )
        return out

    def signal(self, parameters: OscillationParameters, snsi: ScalarNSI | None = None) -> Array:
        """Signal counts per bin at nominal systematics."""
        return self.response.apply(self.events * self.survival(parameters, snsi))

    def predict(self, parameters: OscillationParameters, snsi: ScalarNSI | None = None) -> Spectrum:
        """Return the expected spectrum at nominal systematics."""
        counts = {b.name: self.exposure_days * b.counts_per_day() for b in self.backgrounds}
        return Spectrum(self.binning.edges_MeV, self.signal(parameters, snsi), counts)

    def expected(self, parameters: OscillationParameters, snsi: ScalarNSI | None = None) -> Array:
        """Total counts per bin: what an Asimov data set holds."""
        return self.signal(parameters, snsi) + self._background

    @property
    def background(self) -> Array:
        """Background counts per bin."""
        return self._background

    def source_gradient(
        self, parameters: OscillationParameters, snsi: ScalarNSI | None, names: tuple[str, ...]
    ) -> tuple[Array, Array]:
        """Events per energy cell with oscillation, and their derivatives, shapes (n,) and (len(names), n)."""
        density = self.site.density_g_cm3
        setup = self._propagation(parameters, snsi)
        project = gradient_projection(setup, mass_squared_derivatives(parameters, snsi, names, density))
        value = np.empty(self.energy_MeV.size)
        slope = np.empty((7, self.energy_MeV.size))
        kernels.survival_weighted_gradient(
            setup.levels_eV2,
            setup.electron,
            setup.matter_eV2_per_MeV,
            self.energy_MeV,
            self._baseline,
            self._share,
            value,
            slope,
        )
        gradient = project @ slope[:6]
        if "density_g_cm3" in names:
            gradient[names.index("density_g_cm3")] += self._matter * slope[6]
        return self.events * value, self.events * gradient

    def _survival_by_core(self, parameters: OscillationParameters, snsi: ScalarNSI | None) -> Array:
        """P_ee from each core on the experiment's energy grid, shape (cores, n)."""
        setup = self._propagation(parameters, snsi)
        grid = np.empty((self._baseline.size, self.energy_MeV.size))
        kernels.survival_grid(
            setup.levels_eV2,
            setup.electron,
            setup.matter_eV2_per_MeV,
            self.energy_MeV,
            self._baseline,
            grid,
        )
        return grid

    def rate_per_core(self, parameters: OscillationParameters, snsi: ScalarNSI | None = None) -> dict[str, float]:
        """Selected events per day from each core, at full power."""
        grid = self._survival_by_core(parameters, snsi)
        rates = self._share * (grid @ self.interactions_per_day) * self.site.efficiency
        return {core.name: float(rate) for core, rate in zip(self.site.cores, rates, strict=True)}

    # -- uncertainty -----------------------------------------------------------------------------------------------

    def response_pulls(self) -> tuple[str, ...]:
        """Pulls that move events in energy; fitted explicitly because they can imitate the mass ordering."""
        return self.nonlinearity.names

    def templates(self, parameters: OscillationParameters, snsi: ScalarNSI | None = None) -> dict[str, Array]:
        """One-sigma changes of the counts for every systematic that enters the covariance, frozen at ``parameters``."""
        s = self.systematics
        survival = self.survival(parameters, snsi)
        source = self.events * survival
        signal = self.response.apply(source)
        out: dict[str, Array] = {}
        if s.flux > 0:
            out["flux"] = s.flux * signal
        if s.detection > 0:
            out["detection"] = s.detection * signal
        live = self.site.efficiency * self.signal_days
        for name, size in (("spent_fuel", s.spent_fuel), ("non_equilibrium", s.non_equilibrium)):
            if size > 0:
                out[name] = size * self.response.apply(live * self._per_day[name] * survival)
        if s.core_power > 0 and self._baseline.size > 1:
            grid = self._survival_by_core(parameters, snsi)
            for core, share, row in zip(self.site.cores, self._share, grid, strict=True):
                out[f"power {core.name}"] = s.core_power * share * self.response.apply(self.events * row)
        for k, name in enumerate(("resolution_a", "resolution_b", "resolution_c")):
            if self.resolution.uncertainty[k] > 0:
                out[name] = self.response.derivative(name, source)
        for background in self.backgrounds:
            if background.rate_uncertainty > 0:
                counts = self.exposure_days * background.counts_per_day()
                out[f"rate {background.name}"] = background.rate_uncertainty * counts
        return out

    def shape_variance(self, parameters: OscillationParameters, snsi: ScalarNSI | None = None) -> Array:
        """Variance per bin from the bin-to-bin uncertainties of the reactor spectrum and of the backgrounds.

        A background's shape uncertainty is per bin as quoted by JUNO for 36 keV wide bins and averages down with width.
        """
        variance = (self.systematics.bin_to_bin(self.binning) * self.signal(parameters, snsi)) ** 2
        average = 0.036 / self.binning.widths_MeV
        for background in self.backgrounds:
            counts = self.exposure_days * background.counts_per_day()
            variance = variance + average * (background.shape_uncertainty * counts) ** 2
        return np.asarray(variance)

    @functools.cached_property
    def _recoil(self) -> tuple[Array, Array]:
        """Positron energies and their cumulative probability for each neutrino energy."""
        positron, weight = positron_nodes(self.energy_MeV, 32)
        cumulative = np.cumsum(weight, axis=1)
        return positron, cumulative / cumulative[:, -1:]

    # -- events ----------------------------------------------------------------------------------------------------

    def sample_events(
        self,
        parameters: OscillationParameters,
        snsi: ScalarNSI | None = None,
        *,
        count: int | None = None,
        seed: int = 0,
    ) -> Array:
        """Draw visible energies of signal events, one by one: neutrino energy, recoil, non-linearity, resolution.

        Parameters
        ----------
        count : int, optional
            Number of events; None draws it from a Poisson distribution with the expected number.
        seed : int

        Returns
        -------
        numpy.ndarray of shape (count,)
            Visible energy in MeV; some lie outside the binning.
        """
        if count is not None and count < 0:
            raise InvalidInput(f"count = {count!r} is outside the allowed range [0, inf)")
        generator = np.random.default_rng(seed)
        source = self.events * self.survival(parameters, snsi)
        number = int(generator.poisson(source.sum())) if count is None else int(count)
        cell = generator.choice(source.size, size=number, p=source / source.sum())
        positron, cumulative = self._recoil
        draw = generator.random(number)
        node = (cumulative[cell] < draw[:, None]).sum(axis=1)
        # spread inside the cell: the positron follows the neutrino energy one to one
        width = self.energy_MeV[1] - self.energy_MeV[0]
        energy = positron[cell, node] + width * (generator.random(number) - 0.5)
        deposit = np.maximum(energy, ELECTRON_MASS_MeV) + ELECTRON_MASS_MeV
        visible = self.nonlinearity.visible_MeV(deposit)
        return np.asarray(visible + self.resolution.sigma_MeV(visible) * generator.standard_normal(number))


def juno(
    *,
    exposure_days: float = 6.5 * 365.25,
    duty_cycle: float = 1.0,
    layout: str = "juno-2022",
    systematics: Systematics | None = None,
    with_backgrounds: bool = True,
    nonlinearity_pulls: bool = True,
    cross_section_order: str = "strumia-vissani",
    step_MeV: float = 0.005,
) -> Experiment:
    """Return JUNO with 340 bins; the default exposure is 6.5 years at full power (26.6 GW near cores).

    Parameters
    ----------
    exposure_days : float
        Detector running time in days.
    duty_cycle : float
        Reactors' duty cycle; 11/12 for calendar time.
    layout : str
        ``"juno-2022"`` or ``"juno-2015"``.
    systematics : Systematics, optional
        JUNO's table by default; ``Systematics.none()`` for statistics only.
    with_backgrounds, nonlinearity_pulls : bool
        Backgrounds in the prediction; the four pulls of the energy scale's shape in fits.
    cross_section_order : str
        Order of inverse beta decay; ``"strumia-vissani"`` is the full one, with recoil.
    step_MeV : float
        Step of the neutrino-energy grid, in MeV.

    Raises
    ------
    InvalidInput
        A value outside its range or an unknown layout.

    Examples
    --------
    >>> from nu_physics import OscillationParameters
    >>> counts = juno(exposure_days=365.25).expected(OscillationParameters())
    >>> counts.shape, float(counts.sum()) > 1e4
    ((340,), True)
    """
    check_choice("layout", layout, [name for name in packaged("sites") if name.startswith("juno")])
    curve = NonLinearity.juno()
    if not nonlinearity_pulls:
        curve = NonLinearity(curve.parameters)
    return Experiment(
        site(layout),
        Binning.juno340(),
        Resolution.juno(),
        curve,
        exposure_days=exposure_days,
        duty_cycle=duty_cycle,
        systematics=systematics,
        with_backgrounds=with_backgrounds,
        cross_section_order=cross_section_order,
        step_MeV=step_MeV,
    )
