"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata

import nu_physics


def test_import_and_version() -> None:
    assert importlib.metadata.version("nu-physics") == "0.1.0"
    assert nu_physics.__all__ == sorted(nu_physics.__all__)
