import changed
import pytest
from shelf import CORE, packages

SHELF = packages()


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ([], []),
        (["packages/hetcal/src/hetcal/cli.py", "packages/hetcal/README.md"], ["hetcal"]),
        (["packages/quantease/README.md", "packages/hetcal/README.md"], ["hetcal", "quantease"]),
        (["README.md"], list(SHELF)),
        (["packages/hetcal/README.md", ".github/workflows/ci.yml"], list(SHELF)),
        (["packages/not-a-package/x.py"], list(SHELF)),
    ],
)
def test_files_touch_their_package_and_root_files_touch_all(files, names):
    assert changed.touched(files, SHELF) == names


def test_core_touches_its_dependents():
    dependents = [name for name, package in SHELF.items() if package.core_requirement]
    assert changed.touched([f"packages/{CORE}/README.md"], SHELF) == [CORE, *dependents]
    assert CORE not in dependents


def test_the_shelf_is_complete():
    assert list(SHELF) == [
        CORE,
        "fastlp-rank",
        "ffn-heavyhitter",
        "hetcal",
        "msam-lawn",
        "multislot-rerank",
        "nu-physics",
        "quantease",
    ]
    for package in SHELF.values():
        assert package.released() == package.version
