"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata

import nu_physics
from nu_physics import cli


def test_import_and_version() -> None:
    assert importlib.metadata.version("nu-physics") == "0.1.0"
    assert nu_physics.__all__ == sorted(nu_physics.__all__)
    for name in nu_physics.__all__:
        assert getattr(nu_physics, name) is not None


def test_probability_and_juno() -> None:
    nature = nu_physics.OscillationParameters()
    assert 0.2 < nu_physics.survival(4.0, 52.5, nature, nu_physics.ScalarNSI(ee=0.001)) < 0.23
    assert 8.5 < nu_physics.mass_ordering(nu_physics.juno(), nature).preference < 9.5


def test_command_line(capsys) -> None:
    assert cli.main(["prob", "--energy", "4"]) == 0
    assert "P_ee" in capsys.readouterr().out


def test_a_missing_extra_is_named(capsys) -> None:
    try:
        import dayabay_data_official  # noqa: F401
    except ImportError:
        assert cli.main(["fit", "dayabay"]) == 3
        assert "nu-physics[dayabay]" in capsys.readouterr().err
