"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata

import fastlp_rank


def test_import_and_version() -> None:
    assert importlib.metadata.version("fastlp-rank") == "0.1.0"
    assert fastlp_rank.__all__ == sorted(fastlp_rank.__all__)
