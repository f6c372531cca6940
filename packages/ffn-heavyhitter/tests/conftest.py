"""Tiny models are fitted on few tokens on purpose; the tests that are about the warning ask for it."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:.*calibration tokens:ffn_heavyhitter.FFNWarning"))
