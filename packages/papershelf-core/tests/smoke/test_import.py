"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata

import papershelf_core


def test_import_and_version() -> None:
    assert importlib.metadata.version("papershelf-core") == "0.1.0"
    assert papershelf_core.__all__ == sorted(papershelf_core.__all__)
