"""What a bound may not do silently: count no area as nothing seen, read units wrongly, resume what is not its own."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nu_physics.cli import main
from nu_physics.errors import InvalidInput
from nu_physics.solar import bounds, limits
from nu_physics.solar.bounds import BoundsJob, plain, rate_bound, rates, run_bounds
from nu_physics.solar.capture import capture_rate
from nu_physics.solar.channels import CHANNELS, HADRONIC, MONOCHROMATIC
from nu_physics.solar.cross_sections import cross_sections
from nu_physics.solar.limits import DirectDetectionLimit, limit, limit_names, read_limit
from nu_physics.solar.models import MixedChannels, annihilates
from nu_physics.solar.muons import contained_per_cm3, muon_range_g_cm2, muons_per_neutrino
from nu_physics.solar.propagation import propagation_matrix
from nu_physics.solar.spectra import source_spectrum, spectrum_table
from nu_physics.solar.sun import solar_model
from nu_physics.solar.telescope import EffectiveArea, arca, read_gadf_area, sun_zenith_shares

JUNK = [None, "1", b"1", 1j, math.nan, math.inf, -1.0, [1.0], "lz-2024", object()]


def telescope(low, high, bins=6, area=1.0):
    """An area of one kind in every direction between two energies."""
    return EffectiveArea(np.geomspace(low, high, bins + 1), np.array([0, 90, 180]), np.full((2, bins), area),
                         np.array([0.5, 0.5]), "made here")  # fmt: skip


# -- no area is no bound -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(CHANNELS)),
    st.floats(math.log(20.0), math.log(9000.0)),
    st.sampled_from(limit_names()),
    st.sampled_from(["upgoing", "all"]),
)
def test_no_bound_is_zero_and_each_missing_one_has_its_reason(channel, log_mass, name, selection):
    mass = math.exp(log_mass)
    low, high = limit(name).range_GeV
    masses = spectrum_table().masses_GeV.get(channel, (CHANNELS[channel].threshold_GeV, 1e4))
    if not max(low, CHANNELS[channel].threshold_GeV, masses[0]) <= mass <= min(high, masses[-1]):
        with pytest.raises(InvalidInput, match=r"closed|covers|shipped spectra"):
            rate_bound(mass, channel, name, selection=selection)
        return
    bound = rate_bound(mass, channel, name, selection=selection)
    arrived = propagation_matrix().apply(source_spectrum(channel, mass).number)[[1, 4]].sum(0)
    centres, (low, high) = propagation_matrix().centres_GeV, arca().range_GeV(selection)
    seen = arrived[(centres >= low) & (centres <= high)].sum()
    assert bound.muons_per_km2_year > 0.0
    assert 0.0 <= bound.response_share <= 1.0 + 1e-12
    if seen > 0:
        assert bound.events_per_year > 0.0
        assert bound.no_events == ""
    else:
        assert math.isnan(bound.events_per_year)
        assert "no area below 100 GeV" in bound.no_events
        assert bound.response_share == 0.0


def test_the_paper_s_job_has_no_zero_among_its_855_bounds():
    masses = tuple(float(m) for m in np.logspace(np.log10(60.0), np.log10(9000.0), 20))
    rows, _ = run_bounds(BoundsJob(masses, ("bb", "cc", "tt", "WW", "ZZ", "tautau"), limit_names()))
    assert len(rows) > 855
    missing = [row for row in rows if math.isnan(row.events_per_year)]
    assert 72 <= len(missing) < 0.15 * len(rows)
    assert all(row.no_events and row.mass_GeV < 141.0 for row in missing)
    assert all(row.events_per_year > 0 and not row.no_events for row in rows if row not in missing)


def test_a_response_that_ends_below_the_spectrum_gives_no_upper_bound():
    short = telescope(100.0, 700.0)
    below, above = (rate_bound(mass, "tautau", "lz-2024", telescope=short) for mass in (600.0, 2000.0))
    assert below.events_per_year > 0
    assert math.isnan(above.events_per_year)
    assert "response ends at 700 GeV" in above.no_events
    assert 0 < above.response_share < 1
    assert above.muons_per_km2_year == rate_bound(2000.0, "tautau", "lz-2024").muons_per_km2_year


def test_nothing_captured_is_a_true_zero():
    arrived = propagation_matrix().apply(source_spectrum("bb", 1000.0).number)
    assert rates(0.0, arrived).events_per_year == 0.0
    assert rates(1e20, np.zeros((6, 99))).events_per_year == 0.0
    assert math.isnan(rates(1e20, np.zeros((6, 99))).response_share)


def test_tables_and_commands_show_what_is_missing(tmp_path, capsys):
    options = ["--mass", "60", "1000", "--model", "tautau", "--csv", str(tmp_path / "b.csv")]
    assert main(["solar", "bounds", *options]) == 0
    printed = capsys.readouterr()
    assert "no area" in printed.out
    assert "no area below 100 GeV" in printed.err
    heading, first, second = (tmp_path / "b.csv").read_text().splitlines()
    column = heading.split(",").index("events_per_year")
    assert first.split(",")[column] == ""
    assert float(second.split(",")[column]) > 0
    arguments = ["solar", "rate", "tautau", "60", "--sigma-si", "1e-45", "--json", str(tmp_path / "r.json")]
    assert main(arguments) == 0
    assert "no area below" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["events_per_year"] is None


# -- a mass scan is smooth ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", [*MONOCHROMATIC, "bb", "tautau", "WW"])
def test_no_jump_along_a_mass_scan(channel):
    """What changes by a jump changes as much over a step of one part in 1e5 as over 1e-3; here it shrinks with it."""
    columns = ("events_per_year", "muons_per_km2_year", "contained_per_km3_year")

    def largest(masses):
        found = [rate_bound(float(mass), channel, "xenon1t-2018") for mass in masses]
        table = np.log([[getattr(row, name) for name in columns] for row in found])
        return np.abs(np.diff(table, axis=0)).max()

    edges = propagation_matrix().edges_GeV
    for at in (edges[55], edges[69], np.sqrt(edges[69] * edges[70]), 4000.0):
        assert largest(at * (1.0 + 1e-5 * np.arange(-4, 5))) < 1e-3
    if channel == "numunumu":
        assert largest(np.arange(900.0, 1101.0, 2.0)) < 0.01


# -- responses in the units of their files -----------------------------------------------------------------------------


def write_response(path, energy="TeV", angle="deg", area="m2", energies=(0.1, 1.0, 10.0), angles=(0.0, 90.0, 180.0)):
    """A GADF table whose numbers are given in TeV, degrees and m2 and written in the units asked for."""
    fits = pytest.importorskip("astropy.io.fits")
    from astropy import units

    def written(values, stated, kind):
        convertible = stated and units.Unit(stated).is_equivalent(kind)
        return (values * kind).to_value(stated) if convertible else values

    e, t = written(np.array(energies), energy, units.TeV), written(np.array(angles), angle, units.deg)
    a = np.arange(1.0, (e.size - 1) * (t.size - 1) + 1).reshape(t.size - 1, e.size - 1)
    a = written(a, area, units.m**2)
    columns = [
        fits.Column(
            name, f"{v.size}D", unit=u, array=v[None], dim=f"({v.shape[1]},{v.shape[0]})" if v.ndim == 2 else None
        )
        for name, v, u in (
            ("ENERG_LO", e[:-1], energy),
            ("ENERG_HI", e[1:], energy),
            ("THETA_LO", t[:-1], angle),
            ("THETA_HI", t[1:], angle),
            ("EFFAREA", a, area),
        )
    ]
    table = fits.BinTableHDU.from_columns(columns)
    table.header["HDUCLAS4"] = "AEFF_2D"
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize("energy", ["TeV", "GeV", "MeV", "erg"])
@pytest.mark.parametrize(("angle", "area"), [("deg", "m2"), ("rad", "cm2"), ("arcmin", "km2")])
def test_a_response_is_the_same_in_any_units(tmp_path, energy, angle, area):
    found = read_gadf_area(write_response(tmp_path / "r.fits", energy, angle, area), 36.0, 16.0)
    assert found.energy_edges_GeV == pytest.approx([100.0, 1000.0, 10000.0], rel=1e-9)
    assert found.zenith_edges_deg == pytest.approx([0.0, 90.0, 180.0], abs=1e-9)
    assert found.area_m2 == pytest.approx(np.array([[1.0, 2.0], [3.0, 4.0]]), rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"energy": "m"}, "ENERG_LO is in 'm'"),
        ({"angle": "s"}, "THETA_LO is in 's'"),
        ({"area": "TeV"}, "EFFAREA is in 'TeV'"),
        ({"energy": ""}, "ENERG_LO states no unit"),
        ({"angle": None}, "THETA_LO states no unit"),
        ({"energies": (0.1, 0.1, 10.0)}, "does not exceed"),
    ],
)
def test_a_response_without_meaning_is_refused(tmp_path, options, message):
    with pytest.raises(InvalidInput, match=message):
        read_gadf_area(write_response(tmp_path / "r.fits", **options), 36.0, 16.0)


def test_one_band_and_one_bin_are_a_response(tmp_path):
    one = read_gadf_area(write_response(tmp_path / "r.fits", energies=(0.1, 10.0), angles=(90.0, 180.0)), 36.0, 16.0)
    assert one.zenith_edges_deg.tolist() == [0.0, 90.0, 180.0]  # what the file leaves out has no area
    assert one.mean_cm2(np.array([99.0, 500.0, 9999.0])) == pytest.approx([0.0, 0.5e4, 0.5e4], rel=0.02)
    assert rate_bound(1000.0, "bb", "lz-2024", telescope=one).events_per_year > 0
    whole = read_gadf_area(write_response(tmp_path / "w.fits", energies=(0.1, 10.0), angles=(0.0, 180.0)), 36.0, 16.0)
    with pytest.raises(InvalidInput, match="take selection='all'"):
        rate_bound(1000.0, "bb", "lz-2024", telescope=whole)
    assert rate_bound(1000.0, "bb", "lz-2024", telescope=whole, selection="all").events_per_year > 0
    (tmp_path / "no.fits").write_text("nothing")
    with pytest.raises(InvalidInput, match="no FITS file"):
        read_gadf_area(tmp_path / "no.fits", 36.0, 16.0)


# -- what is resumed is the job's own ----------------------------------------------------------------------------------


def test_other_limits_spectra_or_versions_are_computed_anew(tmp_path, monkeypatch):
    job = BoundsJob((1000.0,), ("bb",), ("lz-2024",))
    (first,), _ = run_bounds(job, work_dir=tmp_path)
    packaged = limits._packaged()
    doubled = {**packaged["lz-2024"], "cross_section_cm2": [2 * s for s in packaged["lz-2024"]["cross_section_cm2"]]}
    with monkeypatch.context() as patch:
        patch.setattr(limits, "_packaged", lambda: {**packaged, "lz-2024": doubled})
        (other,), _ = run_bounds(job, work_dir=tmp_path)
        assert other.sigma_cm2 == pytest.approx(2 * first.sigma_cm2)
    table = spectrum_table()
    more = dataclasses.replace(table, light={**table.light, "bb": 3.0 * table.light["bb"]})
    with monkeypatch.context() as patch:
        for module in ("spectra", "bounds"):
            patch.setattr(f"nu_physics.solar.{module}.spectrum_table", lambda: more)
        (other,), _ = run_bounds(job, work_dir=tmp_path)
        assert other.events_per_year > 1.2 * first.events_per_year
    with monkeypatch.context() as patch:
        patch.setattr("importlib.metadata.version", lambda name: "99.0")
        assert run_bounds(job, work_dir=tmp_path)[0] == [first]
    assert len(list(tmp_path.iterdir())) == 4
    assert run_bounds(job, work_dir=tmp_path)[0] == [first]
    assert len(list(tmp_path.iterdir())) == 4


def test_rows_without_a_bound_survive_the_folder(tmp_path):
    job = BoundsJob((60.0, 1000.0), ("tautau",), ("xenon1t-2018",))
    written, resumed = (run_bounds(job, work_dir=tmp_path)[0] for _ in range(2))
    assert [plain(row) for row in resumed] == [plain(row) for row in written]
    assert math.isnan(resumed[0].events_per_year)


# -- models, spectra, limits of one's own ------------------------------------------------------------------------------


class Model:
    """A particle model of somebody."""

    name = "mine"

    def __init__(self, shares, sigma_v=3e-26):
        self.shares, self.sigma_v = shares, sigma_v

    def branching(self, mass_GeV, sigma_si_cm2):
        return self.shares

    def annihilation_cm3_s(self, mass_GeV, sigma_si_cm2):
        return self.sigma_v


@given(st.dictionaries(st.sampled_from(HADRONIC), st.floats(0.0, 1.0), min_size=1, max_size=5))
def test_shares_sum_to_one_or_are_refused(shares):
    total = math.fsum(shares.values())
    good = {key: value / total for key, value in shares.items()} if total > 1e-3 else {"bb": 1.0}
    assert annihilates(Model(good), 1000.0, 1e-46)[0] == good
    if abs(total - 1.0) > 1e-5:
        for make in (Model, MixedChannels):
            with pytest.raises(InvalidInput, match=r"sum to .*, not 1"):
                annihilates(make(shares), 1000.0, 1e-46)


@pytest.mark.parametrize(
    "model",
    [
        *(Model({"bb": junk}) for junk in (None, "1", math.nan, -0.5, 1.5, 1j, True)),
        Model({"bottom": 1.0}),
        Model({}),
        Model([("bb", 1.0)]),
        Model({"bb": 1.0}, sigma_v=math.nan),
        Model({"bb": 1.0}, sigma_v=-3e-26),
        Model,
        object(),
        None,
        3,
    ],
)
def test_junk_models_are_named(model):
    with pytest.raises(InvalidInput):
        rate_bound(1000.0, model, "lz-2024")


@pytest.mark.parametrize("junk", [j for j in JUNK if j != "lz-2024"])
def test_junk_values_are_named_everywhere(junk):
    arrived = propagation_matrix().apply(source_spectrum("bb", 1000.0).number)
    calls = [
        lambda: rate_bound(junk, "bb", "lz-2024"),
        lambda: rate_bound(1000.0, "bb", "lz-2024", threshold_GeV=junk),
        lambda: rate_bound(1000.0, "bb", "lz-2024", equilibrium=junk),
        lambda: rate_bound(1000.0, "bb", "lz-2024", selection=junk),
        lambda: rate_bound(1000.0, "bb", "lz-2024", telescope=junk) if junk else rate_bound(-1.0, "bb", "lz-2024"),
        lambda: rates(junk, arrived),
        lambda: rates(1e20, junk),
        lambda: rates(1e20, np.full((6, 99), junk)) if junk != [1.0] else rates(1e20, junk),
        lambda: rates(1e20, arrived * -1.0),
        lambda: rates(1e20, np.zeros((6, 50))),
        lambda: rates(1e20, np.zeros((2, 6, 99))),
        lambda: capture_rate(junk, sigma_si_cm2=1e-45),
        lambda: capture_rate(100.0, sigma_si_cm2=junk),
        lambda: source_spectrum("bb", junk),
        lambda: source_spectrum(junk, 100.0),
        lambda: source_spectrum("numunumu", 100.0, edges_GeV=[junk, 200.0]),
        lambda: limit("lz-2024").cross_section(junk),
        lambda: BoundsJob((junk,), ("bb",), ("lz-2024",)),
        lambda: BoundsJob((100.0,), (junk,), ("lz-2024",)),
        lambda: BoundsJob((100.0,), ("bb",), (junk,)),
        lambda: DirectDetectionLimit("m", "", "", "spin-independent", (1.0, junk), (1e-40, 1e-41)),
        lambda: DirectDetectionLimit("m", "", "", "spin-independent", (1.0, 2.0), (1e-40, junk)),
        lambda: sun_zenith_shares(np.array([0.0, 180.0]), 91.0, 0.0),
        lambda: sun_zenith_shares(np.array([0.0, 80.0]), 36.0, 0.0),
    ]
    for number, call in enumerate(calls):
        try:
            found = call()
        except InvalidInput:
            continue
        raise AssertionError(f"call {number} with {junk!r} returned {found!r}")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "mass,sigma\n10,1e-45\n100,x\n", "line 3: '100,x'"),
        ("a.csv", "mass,sigma\nGeV,cm2\n10,1e-45\n", "line 2: 'GeV,cm2'"),
        ("a.csv", "", "holds no line"),
        ("a.csv", "10,1e-45\n", "at least two points"),
        ("a.txt", "10 1e-45\n5 1e-44\n", "must rise"),
        ("a.dat", "10 1e-45\n50 nan\n", r"cross_section_cm2 of limit 'a'\[1\] = nan"),
        ("a.toml", "mass_GeV = [1,\n", "no TOML file"),
        (
            "a.toml",
            'coupling = "spin-independent"\nmass_GeV = ["1"]\ncross_section_cm2 = [1]',
            "real numbers are needed",
        ),
        ("a.toml", "coupling = 3\nmass_GeV = [1, 2]\ncross_section_cm2 = [1, 2]", "states coupling 3"),
        (
            "a.toml",
            'coupling = "spin-dependent"\nmass_GeV = [1, 2]\ncross_section_cm2 = [1, 2]',
            "not 'spin-independent'",
        ),
        ("b.csv", None, "cannot be read"),
        ("a.bin", b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_limit_files_without_meaning_are_named(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidInput, match=message):
        read_limit(tmp_path / name, coupling="spin-independent")


POINT = st.tuples(st.floats(1.0, 1e4), st.floats(1e-48, 1e-38))


@given(st.lists(POINT, min_size=2, max_size=9, unique_by=lambda p: p[0]), st.sampled_from([",", " ", "\t", ";", " , "]))
def test_limits_as_text_are_read_as_written(tmp_path_factory, points, separator):
    path = tmp_path_factory.mktemp("limit") / "mine.csv"
    points = sorted(points)
    lines = ["# somebody's limit", "mass sigma", *(f"{m!r}{separator}{s!r}  # point" for m, s in points)]
    path.write_text("\n".join(lines))
    found = read_limit(path, coupling="spin-dependent")
    assert (found.mass_GeV, found.cross_section_cm2) == tuple(zip(*points, strict=True))
    with pytest.raises(InvalidInput, match="states no coupling"):
        read_limit(path)


# -- shared tables refuse writes ---------------------------------------------------------------------------------------


def arrays(thing):
    """Every array inside."""
    if isinstance(thing, np.ndarray):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from arrays(value)
    elif isinstance(thing, (tuple, list)):
        for value in thing:
            yield from arrays(value)
    elif dataclasses.is_dataclass(thing):
        for entry in dataclasses.fields(thing):
            yield from arrays(getattr(thing, entry.name))


def test_no_cached_table_can_be_written():
    shared = [
        *(solar_model(name) for name in ("b16-agss09", "b16-gs98")),
        solar_model().escape_speed_km_s,
        arca(),
        propagation_matrix(),
        spectrum_table(),
        cross_sections(),
        bounds._conversion(tuple(propagation_matrix().centres_GeV), 10.0),
    ]
    found = [array for thing in shared for array in arrays(thing)]
    assert len(found) > 60
    for array in found:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = array
    before = muon_range_g_cm2(1000.0), muons_per_neutrino(np.array([1e3]), 10.0, antineutrino=False)
    contained_per_cm3(np.array([1e3]), 10.0, antineutrino=True)[:] *= 2
    assert (muon_range_g_cm2(1000.0), muons_per_neutrino(np.array([1e3]), 10.0, antineutrino=False)) == before


def test_a_table_of_one_s_own_is_copied():
    area = np.full((2, 6), 1.0)
    mine = EffectiveArea(np.geomspace(100.0, 1e5, 7), np.array([0, 90, 180]), area, np.array([0.5, 0.5]), "mine")
    before = rate_bound(1000.0, "bb", "lz-2024", telescope=mine).events_per_year
    area *= 2.0
    assert rate_bound(1000.0, "bb", "lz-2024", telescope=mine).events_per_year == before
    other = rate_bound(1000.0, "bb", "lz-2024", sun=solar_model("b16-gs98"))
    assert other.capture_per_s == pytest.approx(
        capture_rate(1000.0, sigma_si_cm2=other.sigma_cm2, sun=solar_model("b16-gs98")).rate_per_s
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"area_m2": np.full((2, 6), -1.0)}, r"area_m2\[0\] = -1.0"),
        ({"area_m2": np.full((2, 6), math.nan)}, r"area_m2\[0\] = nan"),
        ({"area_m2": np.zeros((2, 6))}, "zero in every bin"),
        ({"area_m2": np.ones((3, 6))}, "zenith bands by bins of energy"),
        ({"sun_share": np.array([0.5, 0.4])}, "sums to 0.9"),
        ({"zenith_edges_deg": np.array([0.0, 90.0, 190.0])}, "inside"),
        ({"zenith_edges_deg": np.array([0.0, 90.0, 80.0])}, "must rise"),
        ({"energy_edges_GeV": np.geomspace(100.0, 1.0, 7)}, "does not exceed"),
    ],
)
def test_areas_without_meaning_are_refused(change, message):
    with pytest.raises(InvalidInput, match=message):
        dataclasses.replace(telescope(100.0, 1000.0), **change)
