"""A wheel, installed where no checkout is, finds the embedded model and scenes."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
import nib
from nib.folders import find_data
scene = nib.datasets.load("scenes", limit=1)[0]
result = nib.attribute(nib.load(), scene["image"], "a cat", n_steps=2)
from nib.datasets.public import CLASSES
assert CLASSES.is_file() and (find_data() / "scenes" / "cat_and_dog_mask.png").is_file()
print(find_data(), result.similarity, sep="\\n")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build from what git keeps, in a copy: setuptools writes into the folder that it builds from."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if re.match(r"nib/|studies/|data/|pyproject\.toml|README\.md|LICENSE", name) and (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "."]
    subprocess.run([*build, "-w", folder], cwd=folder / "source", check=True)
    (found,) = folder.glob("nib-*.whl")
    shutil.rmtree(folder / "source")
    return found


def run_script(package: Path, folder: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(package)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size < 35e6


def test_the_wheel_explains_a_picture_from_another_folder_as_the_checkout_does(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    place, similarity = run_script(tmp_path / "site", tmp_path / "elsewhere")
    assert Path(place) == tmp_path / "site" / "nib" / "data"
    assert run_script(ROOT, tmp_path / "elsewhere") == [str(ROOT / "data"), similarity]


def test_missing_data_are_named(monkeypatch, tmp_path):
    from nib import folders

    monkeypatch.setattr(folders, "__file__", str(tmp_path / "nib" / "folders.py"))
    with pytest.raises(FileNotFoundError, match="the data of nib are in none of"):
        folders.find_data()
