"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata

import hetcal


def test_import_and_version() -> None:
    assert importlib.metadata.version("hetcal") == "0.1.0"
    assert hetcal.__all__ == sorted(hetcal.__all__)
