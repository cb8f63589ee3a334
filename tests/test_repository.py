"""The files around the code agree with one another and with the code."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib", "seaborn-base": "seaborn", "dask-core": "dask"}


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
    bounds = [requirement.split(">=") for group in groups for requirement in group]
    for name, lowest in bounds:
        pinned, lowest = (tuple(map(int, version.split("."))) for version in (lock[normalise(name)], lowest))
        assert lowest <= pinned, name


def test_the_conda_environment_agrees_with_the_lock_and_names_all_of_pyproject(lock):
    entries = YAML(typ="safe").load((ROOT / "environment.yml").read_text())["dependencies"]
    pins = [entry.split("=") for entry in entries if isinstance(entry, str) and entry != "pip"]
    named = {normalise(CONDA_NAMES.get(name, name)): version for name, version in pins if name != "python"}
    assert named.items() <= lock.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    assert {normalise(requirement.split(">=")[0]) for group in groups for requirement in group} == set(named)


def test_the_conda_environment_installs_nib_itself():
    entries = YAML(typ="safe").load((ROOT / "environment.yml").read_text())["dependencies"]
    assert "pip" in entries
    assert {"pip": ["-e ."]} in entries


def test_every_package_folder_is_installed():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    paths = [path for name in ("nib", "studies", "runs") for path in ROOT.glob(f"{name}/**/__init__.py")]
    folders = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in paths}
    assert folders | {"nib.data"} == set(packages)


INSTALLED = """
import nib, numpy
assert nib.__file__.startswith({folder!r}), nib.__file__
assert len(nib.datasets.load("scenes", limit=2)) == 2
assert len(nib.datasets.public.read_classes()) == 200
picture = numpy.random.default_rng(0).random((224, 224, 3))
result = nib.attribute(nib.load(), picture, "a cat", n_steps=2)
assert "</html>" in result.to_html()
print(result.similarity)
"""


def test_a_wheel_works_from_any_folder(tmp_path):
    """Built from the files of the repository alone, and unpacked where nothing else is."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(
        re.compile(r"(nib|data|runs|studies)/|pyproject.toml|README.md|LICENSE").match, listed.splitlines()
    ):
        if (ROOT / name).exists():
            (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "source" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    subprocess.run([*pip, "-w", tmp_path, tmp_path / "source"], check=True)
    (wheel,) = tmp_path.glob("nib-*.whl")
    assert wheel.stat().st_size < 35e6
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    shutil.rmtree(tmp_path / "source")
    (tmp_path / "elsewhere").mkdir()
    found, here = (
        run_python(INSTALLED.format(folder=str(path)), path, tmp_path / "elsewhere")
        for path in (tmp_path / "installed", ROOT)
    )
    assert found == here != ""


def run_python(code: str, path: Path, folder: Path) -> str:
    """Run code in a fresh interpreter that finds nib at `path`; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_the_readme_names_every_notebook():
    readme = (ROOT / "README.md").read_text()
    for path in ROOT.glob("notebooks/[0-9]*.ipynb"):
        assert path.stem in readme


def test_every_link_of_the_pages_leads_somewhere(subtests):
    cases = ["README.md", "CONTRIBUTING.md", "data/README.md", "data/mini_clip/README.md", "docs"]
    for page in cases:
        with subtests.test(page):
            for path in (ROOT / page).glob("*.md") if page == "docs" else [ROOT / page]:
                for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
                    assert (path.parent / link).exists(), (path.name, link)


def test_the_module_and_the_runner_do_not_grow(subtests):
    """Who adds lines takes others away: the module is to become thinner still."""
    for folder, most in {"nib": 7_710, "runs": 600}.items():
        with subtests.test(folder):
            assert sum(len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")) <= most


def test_the_model_card_states_the_measured_scores():
    card = (ROOT / "data/mini_clip/README.md").read_text()
    for line in (ROOT / "data/mini_clip/scores.csv").read_text().splitlines()[1:]:
        split, metric, _, value, low, high, _ = line.split(",")
        assert f"| {split} | {metric} | {float(value):.3f} | {float(low):.3f} to {float(high):.3f} |" in card


def test_the_repository_stays_small():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    sizes = {name: (ROOT / name).stat().st_size for name in listed.splitlines() if (ROOT / name).exists()}
    assert sum(sizes.values()) < 45e6
    assert sum(size for name, size in sizes.items() if name.startswith("data/")) < 30e6
