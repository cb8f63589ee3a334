"""`import nib` costs little, and everything that the README names is there after it alone."""

import ast
import doctest
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import nib

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.name: page.read_text() for page in PAGES}


def run(code: str, folder: Path = ROOT, **environment: str) -> str:
    """Run code in a fresh interpreter; return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_WAIT", "GOMP"))}
    environment = {**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-W", "ignore", "-c", code]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_import_costs_at_most_what_torch_costs():
    times = {"torch": [], "nib": []}
    for _ in range(3):
        for name, measured in times.items():
            start = time.perf_counter()
            run(f"import {name}")
            measured.append(time.perf_counter() - start)
    assert min(times["nib"]) < 1.3 * min(times["torch"])


def test_names_load_when_they_are_first_used():
    found = run(
        "import sys, nib; heavy = {'torch', 'transformers', 'datasets', 'matplotlib', 'pandas', 'scipy'};"
        "print(heavy & set(sys.modules)); nib.METHODS; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    assert found.split() == ["set()", "True", "False"]


def test_measuring_does_not_wait_for_matplotlib():
    assert (
        run("import sys, nib; nib.metrics, nib.attribute, nib.evaluate; print('matplotlib' in sys.modules)")
        == "False\n"
    )


def test_every_public_name_is_there_and_listed(subtests):
    for name in nib.__all__:
        with subtests.test(name):
            assert getattr(nib, name) is getattr(nib, name)
            assert name in dir(nib)


def test_a_name_that_does_not_exist():
    for name in ("nothing", "_nothing", "__wrapped__"):
        with pytest.raises(AttributeError, match=f"module 'nib' has no attribute '{name}'"):
            getattr(nib, name)
        assert not hasattr(nib, name)


def test_waiting_threads_spin_shortly_unless_the_user_says_otherwise():
    code = "import os, nib; print(os.environ.get('GOMP_SPINCOUNT'))"
    assert run(code).split() == ["1000"]
    assert run(code, GOMP_SPINCOUNT="5").split() == ["5"]
    assert run(code, OMP_WAIT_POLICY="passive").split() == ["None"]


def test_the_snippets_of_the_readme_run_after_import_nib_alone(tmp_path):
    snippets = re.findall(r"```python\n(.*?)```", TEXTS["README.md"], flags=re.DOTALL)
    assert len(snippets) > 1
    code = "\n".join(snippets).replace("limit=100", "limit=2")
    code += "\nassert abs(result.similarity - results[0].similarity) < 1e-5"
    run(code, tmp_path)


@pytest.mark.parametrize("page", [name for name in TEXTS if name != "README.md" and "```python" in TEXTS[name]])
def test_the_snippets_of_every_page_run(page, tmp_path):
    snippets = re.findall(r"```python\n(.*?)```", TEXTS[page], flags=re.DOTALL)
    run("\n".join(snippets).replace("limit=100", "limit=2"), tmp_path)


def test_what_the_pages_name_is_there_after_import_nib_alone():
    names = {name for text in TEXTS.values() for name in re.findall(r"\bnib(?:\.[A-Za-z_]+)+", text)}
    names = sorted(names - {"nib.verify"})  # a command
    assert len(names) > 5
    code = f"import functools, nib\nfor name in {names!r}: functools.reduce(getattr, name.split('.')[1:], nib)"
    run(code)


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].split()) <= 1500


def test_every_public_function_shows_a_call(subtests):
    for module in (nib, nib.metrics, nib.datasets):
        functions = [name for name in module.__all__ if callable(getattr(module, name)) and name.islower()]
        assert functions
        for name in functions:
            with subtests.test(f"{module.__name__}.{name}"):
                blocks = re.findall(r"(?m)(?:^        .+\n?)+", getattr(module, name).__doc__)
                code = [textwrap.dedent(block).replace(">>> ", "") for block in blocks if f"{name}(" in block]
                assert code, "no example"
                ast.parse(code[0])


def test_examples_give_what_they_say():
    for module in (nib.metrics.statistics, nib.datasets.embedded):
        assert doctest.testmod(module).attempted
        assert not doctest.testmod(module).failed
