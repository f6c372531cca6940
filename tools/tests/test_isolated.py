import importlib.metadata
import json
import sys

import isolated
import numpy
import pytest
from shelf import packages


def toy(tmp_path, source, requirements="", extras=""):
    folder = tmp_path / "packages" / "toy"
    (folder / "src" / "toy").mkdir(parents=True)
    (folder / "src" / "toy" / "__init__.py").write_text(source)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "toy"\nversion = "0.1.0"\ndependencies = [{requirements}]\n'
        f"[project.optional-dependencies]\nfast = [{extras}]\n"
    )
    return packages(tmp_path)["toy"]


@pytest.mark.parametrize(
    ("source", "requirements", "extras"),
    [
        ("import json\nimport toy.part\nfrom . import other\n", "", ""),
        ("import numpy as np\n", '"numpy>=1.26"', ""),
        ("def f():\n    import sklearn.metrics\n", "", "\"Scikit_Learn[alldeps]>=1.6; python_version > '3'\""),
        ("from papershelf_core import claims\n", '"papershelf-core>=0.1"', ""),
    ],
)
def test_declared_imports_pass(tmp_path, source, requirements, extras):
    assert isolated.undeclared_imports(toy(tmp_path, source, requirements, extras)) == []


@pytest.mark.parametrize(
    ("source", "named"),
    [("def f():\n    import scipy.sparse\n", "2 imports scipy"), ("from hetcal import x\n", "1 imports hetcal")],
)
def test_undeclared_imports_are_named_with_their_line(tmp_path, source, named):
    (problem,) = isolated.undeclared_imports(toy(tmp_path, source, '"numpy"'))
    assert named in problem


def test_every_package_of_the_shelf_declares_what_it_imports():
    for package in packages().values():
        assert isolated.undeclared_imports(package) == []


def test_a_missing_module_is_excused_by_an_extra_alone(tmp_path, capsys):
    package = toy(tmp_path, "", '"numpy"', '"scikit-learn>=1.6"')
    isolated.check_missing(package, [], {"toy.plots": "sklearn"})
    assert "toy.plots needs the extra that brings sklearn" in capsys.readouterr().out
    for extras, name in ((["fast"], "sklearn"), ([], "scipy")):
        with pytest.raises(SystemExit, match=f"toy.plots imports {name}, which no dependency brings"):
            isolated.check_missing(package, extras, {"toy.plots": name})


def test_versions_are_read_by_their_normal_names(tmp_path):
    shown = isolated.run([sys.executable, "-c", isolated._VERSIONS, "numpy", "import-linter", "no-such"], tmp_path)
    found = json.loads(shown)
    assert found["numpy"] == numpy.__version__
    assert found["import-linter"] == importlib.metadata.version("import_linter")
    assert found["no-such"] is None
