"""`import nib` costs little, and what the README names is there after it alone."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nib

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def run(code: str) -> str:
    """Run code in a fresh interpreter; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def seconds(code: str) -> float:
    start = time.perf_counter()
    run(code)
    return time.perf_counter() - start


def test_importing_nib_takes_at_most_1_3_times_as_long_as_torch():
    pairs = [(seconds("import nib"), seconds("import torch")) for _ in range(3)]
    own, torch = map(min, zip(*pairs))
    assert own <= 1.3 * torch


def test_importing_nib_loads_no_heavy_library():
    heavy = ["torch", "transformers", "datasets", "pandas", "matplotlib", "scipy", "sklearn"]
    assert run(f"import sys, nib; print([name for name in {heavy} if name in sys.modules])") == "[]"


@pytest.mark.parametrize("name", nib.__all__)
def test_every_public_name_is_there_after_import_nib_alone(name):
    assert name in dir(nib)
    assert getattr(nib, name) is getattr(nib, name)


def test_an_unknown_name_is_an_attribute_error():
    for name in ("nothing", "_nothing", "__wrapped__"):
        with pytest.raises(AttributeError, match=f"module 'nib' has no attribute '{name}'"):
            getattr(nib, name)


def test_the_names_of_the_readme_are_there():
    own = sorted(set(re.findall(r"\bnib(?:\.\w+)+", README)))
    assert {"nib.metrics.summarise", "nib.datasets.load", "nib.sweep.collect"} <= set(own)
    run(f"import nib\nfor name in {own}: eval(name)")
    others = sorted(set(re.findall(r"`(studies(?:\.\w+)+)`", README)))
    assert len(others) > 5
    run(f"import pkgutil\nfor name in {others}: pkgutil.resolve_name(name)")


def test_the_snippets_of_the_readme_run_after_import_nib_alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first, *others = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert others
    names: dict = {}
    exec("\n".join([first, *others]).replace("limit=100", "limit=2"), names)
    assert names["result"].similarity == pytest.approx(names["results"][0].similarity, abs=1e-5)
