"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata

import msam_lawn


def test_import_and_version() -> None:
    assert importlib.metadata.version("msam-lawn") == "0.1.0"
    assert msam_lawn.__all__ == sorted(msam_lawn.__all__)
