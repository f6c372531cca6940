"""What a caller states is honoured or refused: orderings, mappings of a job, whole numbers, files of options, areas."""

import json

import numpy as np
import pytest
from nu_physics import BoundsJob, OscillationParameters, ScalarNSI, ScanJob, juno, rate_bound, run_scan
from nu_physics.cli import main
from nu_physics.errors import InvalidInput
from nu_physics.solar.telescope import EffectiveArea
from nu_physics.statistics.analysis import mass_ordering, toys
from nu_physics.statistics.fit import OSCILLATION, Fit

TRUTH = OscillationParameters()


@pytest.fixture(scope="module")
def fit():
    experiment = juno()
    return Fit(experiment, experiment.expected(TRUTH), TRUTH)


@pytest.mark.parametrize("seed", range(6))
def test_an_ordering_that_a_fixed_dm31_does_not_have_is_refused(fit, seed):
    draw = np.random.default_rng(seed)
    others = [name for name in (*OSCILLATION, "eta_ee", "delta_cp") if name != "dm31_eV2"]
    free = tuple(str(name) for name in draw.choice(others, draw.integers(0, 3), replace=False))
    start = TRUTH.with_ordering(str(draw.choice(["normal", "inverted"])))
    wrong = "inverted" if start.ordering == "normal" else "normal"
    with pytest.raises(InvalidInput, match="ordering"):
        fit.best(start, free=free, orderings=(wrong,))
    with pytest.raises(InvalidInput, match="ordering"):
        mass_ordering(fit.experiment, start, free=free)
    with pytest.raises(InvalidInput, match="ordering"):
        run_scan(ScanJob(grid={"dm31_eV2": [start.dm31_eV2]}, orderings=(wrong,)))
    assert fit.best(start, free=(), orderings=(start.ordering,)).vacuum_ordering == start.ordering


@pytest.mark.parametrize(("name", "value"), [("dm31_eV2", 0.03), ("dm31_eV2", -0.05), ("m_lightest_eV", 5.0)])
def test_a_start_beyond_the_limits_of_a_fit_is_refused(fit, name, value):
    with pytest.raises(InvalidInput, match=name):
        fit.best(TRUTH.replace(**{name: value}), free=(name,))
    with pytest.raises(InvalidInput, match="eta_ee"):
        fit.minimise(TRUTH, ScalarNSI(ee=20.0), free=("eta_ee",))


def test_pulls_and_priors_are_known_and_finite(fit):
    for pulls in ({"foo": 1.0}, {fit.pull_names[0]: float("nan")}):
        with pytest.raises(InvalidInput, match="pull"):
            fit.chi2(TRUTH, pulls=pulls)
        with pytest.raises(InvalidInput, match="pull"):
            fit.minimise(TRUTH, pulls=pulls)
    for priors in ([1], {"dm21_eV2": (7e-5, 1e-6)}, {"density_g_cm3": (2.0, 0.1)}):
        with pytest.raises(InvalidInput, match="prior"):
            Fit(fit.experiment, fit.experiment.expected(TRUTH), TRUTH, priors=priors)


@pytest.mark.parametrize(
    "change",
    [
        {"true_eta": {"sin2_theta12": 0.4}},
        {"fixed_eta": {"m_lightest_eV": 0.1}},
        {"true_eta": {"eta_em": 0.01j}},
        {"truth": {"eta_ee": 0.01}},
        {"truth": {"dm21_eV2": float("nan")}},
        {"statistics_only": "no"},
        {"exposure_days": "6"},
        {"grid": [("eta_ee", [0.0])]},
    ],
)
def test_a_scan_refuses_what_it_would_ignore(change):
    with pytest.raises(InvalidInput):
        ScanJob(**{"grid": {"eta_ee": [0.0]}, **change})


def test_jobs_take_numpy_numbers():
    job = ScanJob(grid={"eta_ee": np.array([0.0])}, truth={"dm21_eV2": np.float32(7.5e-5)}, exposure_days=np.int64(10))
    assert json.loads(job.as_json())["exposure_days"] == 10.0
    bounds = BoundsJob(np.array([100.0, 200.0], dtype=np.float32), ["bb"], ["lz-2024"])
    assert json.loads(bounds.as_json())["masses_GeV"] == [100.0, 200.0]


@pytest.mark.parametrize(
    "change",
    [{"equilibrium": "bogus"}, {"threshold_GeV": float("nan")}, {"selection": "x"}, {"masses_GeV": 5.0}, {"models": 3}],
)
def test_a_table_of_bounds_refuses_junk(change):
    with pytest.raises(InvalidInput):
        BoundsJob(**{"masses_GeV": (100.0,), "models": ("bb",), "limits": ("lz-2024",), **change})


@pytest.mark.parametrize("change", [{"count": 2.5}, {"count": "2"}, {"count": True}, {"first": -1}, {"seed": 0.5}])
def test_toys_are_whole_numbers(fit, change):
    with pytest.raises(InvalidInput):
        toys(fit.experiment, TRUTH, **{"count": 1, **change})


def test_workers_are_a_whole_number():
    for workers in ("2", 1.5, True, 0):
        with pytest.raises(InvalidInput, match="workers"):
            run_scan(ScanJob(grid={"eta_ee": [0.0]}), workers=workers)


@pytest.mark.parametrize("seed", range(5))
def test_no_area_is_made_up_in_bins_that_state_none(seed):
    draw = np.random.default_rng(seed)
    edges = np.unique(10 ** draw.uniform(0, 6, draw.integers(4, 60)))
    area = draw.uniform(0.1, 5, (2, edges.size - 1)) * (draw.random(edges.size - 1) > 0.4)
    area[:, draw.integers(edges.size - 1)] = 1.0
    telescope = EffectiveArea(edges, [0, 90, 180], area, [0.5, 0.5], "drawn")
    inside = np.sqrt(edges[1:] * edges[:-1])
    assert ((telescope.mean_cm2(inside) > 0) == (area[1] > 0)).all()
    np.testing.assert_allclose(telescope.mean_cm2(inside), 0.5e4 * area[1], rtol=1e-9)


def test_sun_and_model_of_one_s_own_are_checked():
    class Nameless:
        def branching(self, mass_GeV, sigma_si_cm2):
            return {"bb": 1.0}

        def annihilation_cm3_s(self, mass_GeV, sigma_si_cm2):
            return 3e-26

    with pytest.raises(InvalidInput, match="name"):
        rate_bound(100.0, Nameless(), "lz-2024")
    with pytest.raises(InvalidInput, match="sun"):
        rate_bound(100.0, "bb", "lz-2024", sun="b16-gs98")


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("fit", 'statistics-only = "no"'),
        ("fit", "statistics-only = 1"),
        ("fit", 'regime = "fre"'),
        ("fit", "years = true"),
        ("fit", 'free = "eta_ee"'),
        ("prob", 'channels = "All"'),
        ("prob", 'energy = ["a"]'),
        ("prob", "energy = [true]"),
        ("prob", "json = 5"),
        ("toys", "count = 2.5"),
    ],
)
def test_a_file_of_options_is_held_to_their_types_and_choices(tmp_path, capsys, command, text):
    file = tmp_path / "options.toml"
    file.write_text(text)
    assert main([command, "--config", str(file)]) == 3
    assert text.partition(" ")[0] in capsys.readouterr().err


def test_a_file_may_give_what_the_command_needs_and_the_command_line_wins(tmp_path, capsys):
    file, out = tmp_path / "options.toml", tmp_path / "scan.npz"
    file.write_text(f'grid = ["eta_ee=0:0.01:2"]\nout = "{out}"\nregime = "fixed"\n')
    assert main(["scan", "--config", str(file)]) == 0
    assert capsys.readouterr().out.startswith("2 points")
    assert main(["scan", "--config", str(file), "--grid", "eta_ee=0:0.01:3"]) == 0
    assert capsys.readouterr().out.startswith("3 points")
    assert main(["scan", "--config", str(file), "--grid", "eta_ee=0:1:2", "--grid", "eta_ee=0:0.01:3"]) == 3
    file.write_text('free = ["eta_ee"]')
    assert main(["fit", "--config", str(file)]) == 0
    assert "eta_ee" in capsys.readouterr().out


def test_options_that_a_method_would_ignore_are_refused(capsys):
    command = ["solar", "capture", "100", "--sigma-si", "1e-45", "--method", "jkg", "--form-factor", "helm"]
    assert main(command) == 3
    assert main(["solar", "spectrum", "bb", "100", "--seed", "5"]) == 3
    assert "--seed" in capsys.readouterr().err
