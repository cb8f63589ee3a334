"""The files around the code agree with one another and with the code."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib", "dask-core": "dask"}


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return {normalise(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}


def test_the_lock_pins_every_line_exactly():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all(line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)


def test_pyproject_agrees_with_the_lock(lock):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for name, bound in (requirement.split(">=") for group in groups for requirement in group):
        lowest, pinned = ([int(part) for part in version.split(".")] for version in (bound, lock[normalise(name)]))
        assert lowest <= pinned, name


def test_the_conda_environment_agrees_with_the_lock_and_names_all_of_pyproject(lock):
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pins = [entry.split("=") for entry in entries if isinstance(entry, str) and entry != "pip"]
    named = {normalise(CONDA_NAMES.get(name, name)): version for name, version in pins if name != "python"}
    assert named.items() <= lock.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    assert {normalise(requirement.split(">=")[0]) for group in groups for requirement in group} == set(named)


def test_the_conda_environment_installs_nib_itself():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert "pip" in entries
    assert {"pip": ["-e ."]} in entries


def test_lab_opens_jupyterlab_in_the_environment():
    shown = subprocess.run(["make", "-n", "lab", "PYTHON=/some/python"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "/some/python -m jupyterlab notebooks" in shown.stdout
    assert "`make lab`" in (ROOT / "README.md").read_text()


def test_every_package_folder_is_installed():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = [path for name in ("nib", "studies") for path in ROOT.glob(f"{name}/**/__init__.py")]
    folders = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in found}
    assert folders | {"nib.data"} == set(packages)


def imported(path: Path) -> set[str]:
    """Return the packages that a file imports anywhere, functions included."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.split(".")[0] for name in names}


def test_nib_imports_nothing_that_only_the_notebooks_need():
    files = list(ROOT.glob("nib/**/*.py"))
    assert len(files) > 30
    assert [str(path) for path in files if imported(path) & {"studies", "runs", "notebooks", "benchmarks"}] == []
    assert all("nib" in imported(ROOT / "studies" / name) for name in ("negatives.py", "speed.py"))


def test_the_readme_names_every_notebook_and_every_picture_it_shows_exists():
    readme = (ROOT / "README.md").read_text()
    for path in ROOT.glob("notebooks/[0-9]*.ipynb"):
        assert path.stem in readme
    for link in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / link).exists(), link


def test_the_model_card_states_the_measured_scores():
    card = (ROOT / "data/mini_clip/README.md").read_text()
    for line in (ROOT / "data/mini_clip/scores.csv").read_text().splitlines()[1:]:
        split, metric, _, value, low, high, _ = line.split(",")
        assert f"| {split} | {metric} | {float(value):.3f} | {float(low):.3f} to {float(high):.3f} |" in card


def test_the_repository_stays_small():
    kept = [*ROOT.glob("data/**/*"), *ROOT.glob("figures/*"), *ROOT.glob("notebooks/*")]
    sizes = [path.stat().st_size for path in kept if path.is_file() and "checkpoints" not in path.parts]
    assert sum(sizes) < 30e6
