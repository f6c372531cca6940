"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata

import quantease


def test_import_and_version() -> None:
    assert importlib.metadata.version("quantease") == "0.1.0"
    assert quantease.__all__ == sorted(quantease.__all__)
