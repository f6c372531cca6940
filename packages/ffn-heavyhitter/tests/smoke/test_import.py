"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata

import ffn_heavyhitter


def test_import_and_version() -> None:
    assert importlib.metadata.version("ffn-heavyhitter") == "0.1.0"
    assert ffn_heavyhitter.__all__ == sorted(ffn_heavyhitter.__all__)
