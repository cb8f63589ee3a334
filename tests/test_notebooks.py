"""Every notebook has the promised form, holds fresh outputs, and runs on a tiny random model."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest
from nbclient import NotebookClient
from ruamel.yaml import YAML

import nib
from runs.plan import PROFILES, Notebook, find_parameters
from runs.store import hash_cells
from studies.truncated import name_path

ROOT = Path(__file__).parents[1]
PATHS = sorted(ROOT.glob("notebooks/[0-9]*.ipynb"))
all_notebooks = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


TYPED = re.compile(r"(?<![\w.])(?:\d+\.\d+|\d+(?= ?(?:%|of \d|times\b|points?\b|percent\b)))")
STANDING = {"95", "0.05", "0.5"}  # the levels of intervals and tests, and chance


@all_notebooks
def test_form_and_outputs(path, subtests):
    notebook = nbformat.read(path, as_version=4)
    with subtests.test("structure"):
        check_structure(notebook, path)
    with subtests.test("outputs are there and not older than the code"):
        check_outputs(notebook, path)
    with subtests.test("text holds no measured number"):
        check_numbers(notebook)
    with subtests.test("no path of this machine, nor one that is right from one folder alone"):
        assert str(ROOT) not in path.read_text()
        assert "../" not in "".join(cell.source for cell in code_cells(notebook))


def check_structure(notebook, path):
    nbformat.validate(notebook)
    title, parameters, imports = notebook.cells[:3]
    assert title.cell_type == "markdown"
    assert title.source.startswith(f"# {int(path.stem[:2])} · ")
    assert "Runs in about" in title.source
    assert parameters.metadata.tags == ["parameters"]
    assert all("#" in line for line in parameters.source.splitlines())
    assert "import nib" in imports.source
    assert notebook.cells[-1].cell_type == "markdown"
    assert "limits" in notebook.cells[-1].source
    assert len(notebook.cells) <= 25
    for cell in code_cells(notebook):
        assert not any(line.startswith(("!", "%")) for line in cell.source.splitlines())


def check_outputs(notebook, path):
    assert notebook.metadata.get("code_hash") == hash_cells(notebook), f"run `make notebooks`: {path.name} has changed"
    assert any(cell.outputs for cell in code_cells(notebook))
    for output in (output for cell in code_cells(notebook) for output in cell.outputs):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
        assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
        image = output.get("data", {}).get("image/png", "")
        assert len(image) * 3 / 4 < 300e3


def check_numbers(notebook):
    """Numbers that were measured are computed in outputs; the text may only name those that the code was given."""
    given = set(re.findall(r"\d+(?:\.\d+)?", "\n".join(cell.source for cell in code_cells(notebook))))
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|\$[^$]*\$", "", text)  # names, links and formulas
    assert not set(TYPED.findall(text)) - given - STANDING


def test_the_index_holds_no_measured_number_and_a_typed_one_is_found():
    check_numbers(nbformat.read(ROOT / "notebooks/index.ipynb", as_version=4))
    for text in ("AUC 0.83", "38 % of", "in 7 of 9", "12 times as much", "by 3 points"):
        assert len(TYPED.findall(text)) == 1, text


@all_notebooks
def test_runs_on_a_tiny_model(path, model_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    paths = {"figures_dir": str(tmp_path / "figures"), "output": str(tmp_path / "table.parquet")}
    parameters = {"model": str(model_folder), **paths, **find_parameters("smoke", Notebook(path))}
    papermill.execute_notebook(
        path, tmp_path / path.name, parameters, cwd=ROOT / "notebooks", kernel_name="python3", progress_bar=False
    )
    for suffix in ("png", "csv"):
        assert (tmp_path / "figures" / f"{path.stem}.{suffix}").stat().st_size > 0
    assert len(pd.read_parquet(tmp_path / "table.parquet"))


def test_profiles_name_no_notebook_that_is_not_there():
    for file in PROFILES.glob("*.yaml"):
        assert set(YAML(typ="safe").load(file.read_text())) <= {"extends", "common", *(path.stem for path in PATHS)}, (
            file
        )


def test_the_kept_results_are_those_of_the_full_profile():
    profile = YAML(typ="safe").load((PROFILES / "full.yaml").read_text())
    tables = {path.stem: pd.read_csv(path) for path in ROOT.glob("data/results/*.csv")}
    for stem in ("04_quantitative", "05_num_steps", "06_target_layer", "07_beta_sensitivity"):
        table = tables[stem][~tables[stem].metric.str.endswith("relative")]  # undefined where the similarity is below 0
        few = profile[stem].get("few", {})
        for name, pairs in profile[stem]["datasets"].items():
            rows = table[table.dataset == name]
            assert set(rows[~rows.method.isin(list(few))].n if few else rows.n) == {pairs}
            for method, count in few.items():
                assert set(rows[rows.method == method].n) == {count}
    options, seeds = profile["07_beta_sensitivity"], tables["07_beta_sensitivity_seeds"]
    assert set(seeds.n) == {options["spread_pairs"] * len(options["datasets"])}
    assert sorted(set(seeds.beta)) == options["spread_betas"]
    assert set(tables["06_target_layer_steps"].n) == {profile["06_target_layer"]["grid_pairs"]}
    options, table = profile["11_faithfulness"], tables["11_faithfulness"].query("metric == 'image_srg'")
    most = sum(options["datasets"].values())
    assert set(table[~table.method.isin(list(options["few"]))].n) == {most}
    for method, count in options["few"].items():
        assert set(table[table.method == method].n) == {count * len(options["datasets"])}
    preset, prompts = tables["10_truncated_path_preset"], sum(profile["10_truncated_path"]["datasets"].values())
    assert set(preset.n) == {prompts // 2}  # those that it was not chosen on
    path = {"quadrature": "gausslegendre", "n_steps": 5, "lambda_min": 0.1}
    assert nib.PRESETS["truncated"] == path
    assert set(preset.path) == {name_path(*path.values())}
    assert tables["02_qualitative_figure1"].n.max() == profile["02_qualitative"]["n_scenes"]
    assert tables["12_interactions_words"].n.min() >= 2 * profile["12_interactions"]["n_scenes"]  # nouns


@pytest.fixture
def project(tmp_path, model_folder):
    """A copy of what a reader has, under git, with a tiny model for `nib.load()`."""
    folder = tmp_path / "project"
    for name in ("notebooks", "runs", "figures", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("nib", "data"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("Makefile", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=reader", "-c", "user.email=reader@example", "commit", "--quiet", "-m", "start")
    return folder


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def clean_environment(folder: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("where", ["notebooks", "build/lab"])
def test_run_all_writes_to_build_and_leaves_git_clean(project, where, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(project))
    (project / where).mkdir(exist_ok=True, parents=True)
    notebook = nbformat.read(project / "notebooks" / "00_quickstart.ipynb", as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": str(project / where)}}).execute()
    assert (project / "build" / "figures" / "00_quickstart.png").stat().st_size > 0
    assert git(project, "status", "--porcelain") == ""


def test_the_papermill_command_of_the_readme_runs_from_the_root(project):
    (command,) = re.findall(r"`mkdir -p build && (papermill notebooks/00[^`]*)`", (ROOT / "README.md").read_text())
    (project / "build").mkdir()
    shutil.copy(ROOT / "data" / "photo" / "chelsea.jpg", project / "photo.jpg")
    command = [sys.executable, "-m", *shlex.split(command)]
    subprocess.run(command, cwd=project, env=clean_environment(project), check=True, capture_output=True, timeout=300)
    executed = nbformat.read(project / "build" / "out.ipynb", as_version=4)
    assert any("a red car" in str(cell.get("outputs")) for cell in executed.cells)
    assert (project / "build" / "figures" / "00_quickstart.png").exists()
    assert git(project, "status", "--porcelain") == "?? photo.jpg\n"
    assert not (project.parent / "figures").exists()


def test_lab_opens_copies_in_an_environment_that_has_nib(project):
    """A stand-in for Python notes how JupyterLab is called; a kernel in that environment imports what notebooks do."""
    stub = project.parent / "python"
    stub.write_text(f'#!/bin/sh\nenv > {project.parent}/env\necho "$@" > {project.parent}/command\n')
    stub.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for _ in range(2):
        subprocess.run(["make", "lab", f"PYTHON={stub}"], cwd=project, env=environment, check=True, capture_output=True)
    assert (project.parent / "command").read_text() == "-m jupyterlab build/lab\n"
    copies = project / "build" / "lab"
    assert {path.name for path in copies.iterdir()} == {path.name for path in ROOT.glob("notebooks/*.ipynb")}
    seen = dict(line.split("=", 1) for line in (project.parent / "env").read_text().splitlines() if "=" in line)
    assert git(project, "status", "--porcelain") == ""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import nib, runs\nprint(runs.__file__)")])
    environment |= {"PYTHONPATH": seen["PYTHONPATH"]}
    NotebookClient(notebook, resources={"metadata": {"path": str(copies)}}).execute(env=environment)
    (said,) = [output.text for output in notebook.cells[0].outputs if output.name == "stdout"]
    assert said.strip() == str(project / "runs" / "__init__.py")


def test_lab_keeps_a_readers_copy_of_a_notebook_that_has_changed(project):
    own, new = project / "build" / "lab" / "00_quickstart.ipynb", project / "notebooks" / "00_quickstart.ipynb"
    make = ["make", "lab", "PYTHON=true"]
    subprocess.run(make, cwd=project, check=True, capture_output=True)
    own.write_text("mine")
    subprocess.run(make, cwd=project, check=True, capture_output=True)
    assert own.read_text() == "mine"
    later = own.stat().st_mtime + 10
    os.utime(new, (later, later))
    subprocess.run(make, cwd=project, check=True, capture_output=True)
    assert own.read_text() == new.read_text()
    assert own.with_name("00_quickstart.old.ipynb").read_text() == "mine"
