"""Build one package's wheel and test it in a new environment that holds nothing else.

First, every import in the source, those inside functions too, must be of the standard library, the package itself or a
distribution that the manifest declares (extras included). Then the environment gets the wheel, what the wheel declares,
and papershelf-core's wheel only if it is declared. In this order: no other package of the shelf is present; every
module imports, but for those that need an extra that was not asked for; the metadata is whole (licence, typed, readme,
version equal to the changelog's top); every console script answers --help; pytest is added and tests/smoke runs from a
copy outside the repository. Passing proves the declared dependencies complete.

    python tools/isolated.py hetcal
    python tools/isolated.py hetcal --extra forest --python 3.13
    python tools/isolated.py hetcal --lowest            all of its tests, with the oldest versions that it declares

With --lowest every requirement, those of extras included, is installed at its lower bound and the package's whole
tests/ runs against the wheel. torch is the CPU build that the shelf is tested with, papershelf-core that of the tree.
"""

import argparse
import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import install_torch
from shelf import CORE, ROOT, Package, package, packages

# Runs inside the new environment: standard library only.
_IMPORT_ALL = """
import importlib, json, pkgutil, sys
module = importlib.import_module(sys.argv[1])
names = [found.name for found in pkgutil.walk_packages(module.__path__, module.__name__ + ".")]
missing = {}
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing[name] = error.name.partition(".")[0]
print(json.dumps({"imported": len(names) + 1 - len(missing), "missing": missing}))
"""
_METADATA = """
import importlib.metadata as metadata, json, sys
found = metadata.metadata(sys.argv[1])
print(json.dumps({
    "Version": found["Version"], "License-Expression": found["License-Expression"],
    "License-File": found.get_all("License-File"), "Classifier": found.get_all("Classifier"),
    "Content-Type": found["Description-Content-Type"], "Readme": len(found.get_payload() or found["Description"] or ""),
    "Installed": sorted(d.metadata["Name"] for d in metadata.distributions()),
    "Typed": any(str(f).endswith("py.typed") for f in metadata.files(sys.argv[1]) or []),
}))
"""
_VERSIONS = """
import importlib.metadata as metadata, json, sys
there = {found.metadata["Name"].lower().replace("_", "-"): found for found in metadata.distributions()}
print(json.dumps({name: there[name].version if name in there else None for name in sys.argv[1:]}))
"""
# what the tests themselves import, at versions of today
TEST_TOOLS = ["hypothesis", "polars", "pytest", "pytest-socket", "pytest-xdist", "scikit-learn", "scipy"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="isolated.py"
    )
    parser.add_argument("package", help="distribution to test")
    parser.add_argument("--extra", action="append", default=[], help="extra to install as well; repeatable")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment: a version or a path")
    parser.add_argument("--lowest", action="store_true", help="run its tests with the oldest versions it declares")
    arguments = parser.parse_args()
    if arguments.lowest and arguments.extra:
        parser.error("--lowest installs every extra; leave --extra out")
    tested = package(arguments.package)
    unknown = set(arguments.extra) - set(tested.manifest["project"].get("optional-dependencies", {}))
    if unknown:
        sys.exit(f"{tested.name} has no extra {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="isolated-") as scratch:
        if arguments.lowest:
            check_lowest(tested, arguments.python, Path(scratch))
        else:
            check_wheel(tested, arguments.extra, arguments.python, Path(scratch))


def check_wheel(tested: Package, extras: list[str], python: str, scratch: Path) -> None:
    """Build, install and test; leave with the first thing that is wrong."""
    undeclared = undeclared_imports(tested)
    if undeclared:
        sys.exit("\n".join(f"{tested.name}: {problem}" for problem in undeclared))
    wheel = build(tested, scratch / "dist")
    interpreter = empty_environment(python, scratch)
    target = f"{wheel}[{','.join(extras)}]" if extras else str(wheel)
    install(interpreter, [target], scratch, core=tested if tested.name == CORE else package(CORE), torch=tested.torch)

    modules = json.loads(run([str(interpreter), "-I", "-c", _IMPORT_ALL, tested.module], scratch))
    check_missing(tested, extras, modules["missing"])
    check_metadata(tested, interpreter, scratch)
    for script in tested.scripts:
        began = time.perf_counter()
        run([str(interpreter.parent / script), "--help"], scratch)
        print(f"{tested.name}: {script} --help answers in {time.perf_counter() - began:.2f} s")
    install(interpreter, ["pytest"], scratch)
    smoke = scratch / "smoke"
    shutil.copytree(tested.folder / "tests" / "smoke", smoke)
    print(run([str(interpreter), "-m", "pytest", "-q", "--rootdir", str(smoke), str(smoke)], scratch).strip())
    imported = f"{modules['imported']} modules import"
    print(f"{tested.name}: {imported}, metadata whole, smoke tests pass in an environment of its own")


def check_lowest(tested: Package, python: str, scratch: Path) -> None:
    """Run the package's tests against its wheel with every requirement at its lower bound."""
    interpreter = empty_environment(python, scratch)
    direct = [line for line in tested.requirements if distribution(line) not in {tested.name, "torch"}]
    names = {distribution(line) for line in tested.requirements}
    install(
        interpreter,
        ["--resolution", "lowest-direct", str(build(tested, scratch / "dist")), *direct],
        scratch,
        core=tested if tested.name == CORE else package(CORE),
        torch="torch" in names,
    )
    install(interpreter, TEST_TOOLS, scratch)
    oldest = json.loads(run([str(interpreter), "-I", "-c", _VERSIONS, *sorted(names - {tested.name})], scratch))
    print(f"{tested.name}: {', '.join(f'{name} {version}' for name, version in oldest.items() if version)}", flush=True)
    environment = outside() | ({} if "torch" in names else {"PAPERSHELF_NO_TORCH": "1"})
    # warnings of old releases are no failures: the versions in the lock are tested without any. Old Ray asks the
    # system for its own address by naming that of a public resolver, to which nothing is sent
    options = ["-o", "filterwarnings=default", "-p", "no:cacheprovider", "--allow-hosts=127.0.0.1,::1,8.8.8.8"]
    command = [str(interpreter), "-m", "pytest", "-q", *options]
    status = subprocess.run([*command, str(tested.folder / "tests")], cwd=ROOT, env=environment).returncode
    if status:
        sys.exit(f"{tested.name}: its tests fail with the oldest versions that it declares; raise the floor or mend")


def empty_environment(python: str, scratch: Path) -> Path:
    """The interpreter of a new environment."""
    environment = scratch / "environment"
    run(["uv", "venv", "--quiet", "--python", python, str(environment)], scratch)
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def undeclared_imports(tested: Package) -> list[str]:
    """Imports of distributions that the manifest does not declare; run where the development environment is."""
    declared = {distribution(requirement) for requirement in tested.requirements}
    provided_by = importlib.metadata.packages_distributions()
    problems = []
    for path in sorted((tested.folder / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            else:
                continue
            for name in {name.partition(".")[0] for name in names} - {tested.module, *sys.stdlib_module_names}:
                distributions = {canonical(found) for found in provided_by.get(name, [name])}
                if not distributions & declared:
                    where = f"{path.relative_to(tested.folder)}:{node.lineno}"
                    problems.append(f"{where} imports {name}, which the manifest does not declare")
    return problems


def distribution(requirement: str) -> str:
    """The distribution that a requirement asks for."""
    return canonical(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])


def canonical(name: str) -> str:
    """A distribution's name in its normal form, as of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def build(tested: Package, target: Path) -> Path:
    run(["uv", "build", "--quiet", "--wheel", "--out-dir", str(target), str(tested.folder)], tested.folder)
    (wheel,) = target.glob("*.whl")
    return wheel


def install(
    interpreter: Path, targets: list[str], scratch: Path, core: Package | None = None, torch: bool = False
) -> None:
    """Install with uv; where core is required, it is the wheel built here and no other; torch is a CPU build."""
    command = ["uv", "pip", "install", "--quiet", "--python", str(interpreter), *targets]
    if torch:
        command += [f"torch=={install_torch.TESTED}", *install_torch.source()]
    if core is not None:
        overrides = scratch / "overrides.txt"
        overrides.write_text(f"{CORE} @ {build(core, scratch / 'core').as_uri()}\n", encoding="utf-8")
        command += ["--overrides", str(overrides)]
    run(command, scratch)


def check_missing(tested: Package, extras: list[str], missing: dict[str, str]) -> None:
    """A module may fail to import for want of an extra that was not asked for, and for nothing else."""
    optional = tested.manifest["project"].get("optional-dependencies", {})
    not_installed = {
        name for extra, lines in optional.items() if extra not in extras for name in map(distribution, lines)
    }
    provided_by = importlib.metadata.packages_distributions()
    for module, name in missing.items():
        needs = {canonical(found) for found in provided_by.get(name, [name])}
        if not needs & not_installed:
            sys.exit(f"{tested.name}: {module} imports {name}, which no dependency brings")
        print(f"{tested.name}: {module} needs the extra that brings {name}")


def check_metadata(tested: Package, interpreter: Path, scratch: Path) -> None:
    found = json.loads(run([str(interpreter), "-I", "-c", _METADATA, tested.name], scratch))
    allowed = {tested.name} | ({CORE} if tested.core_requirement else set())
    strangers = (set(found["Installed"]) & set(packages())) - allowed
    problems = {
        f"other packages of the shelf are installed: {', '.join(sorted(strangers))}": bool(strangers),
        f"licence is {found['License-Expression']!r}, not 'Apache-2.0'": found["License-Expression"] != "Apache-2.0",
        "the wheel holds no licence file": not found["License-File"],
        "py.typed is not in the wheel": not found["Typed"],
        "classifier 'Typing :: Typed' is missing": "Typing :: Typed" not in (found["Classifier"] or []),
        "the readme is missing or no Markdown": found["Content-Type"] != "text/markdown" or found["Readme"] < 100,
        f"version {found['Version']} is not the changelog's top, {tested.released()}": found["Version"]
        != tested.released(),
    }
    wrong = [problem for problem, there in problems.items() if there]
    if wrong:
        sys.exit("\n".join(f"{tested.name}: {problem}" for problem in wrong))


def run(command: list[str], folder: Path) -> str:
    """Run outside the repository's settings; on failure show everything it said."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=outside())
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nfailed with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def outside() -> dict[str, str]:
    """The environment's variables without those that lead into a development environment."""
    hidden = {"VIRTUAL_ENV", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT"}
    return {name: value for name, value in os.environ.items() if name not in hidden}


if __name__ == "__main__":
    main()
