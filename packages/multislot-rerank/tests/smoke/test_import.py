"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata

import multislot_rerank


def test_import_and_version() -> None:
    assert importlib.metadata.version("multislot-rerank") == "0.1.0"
    assert multislot_rerank.__all__ == sorted(multislot_rerank.__all__)
