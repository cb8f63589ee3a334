"""Every notebook has the promised form, holds fresh outputs, and runs on a tiny random model."""

import sys
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))

from run import PROFILES, hash_code, read_profile  # noqa: E402

PATHS = sorted(ROOT.glob("notebooks/[0-9]*.ipynb"))
all_notebooks = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@all_notebooks
def test_structure(path):
    notebook = nbformat.read(path, as_version=4)
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


@all_notebooks
def test_outputs_are_there_and_not_older_than_the_code(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata.get("code_hash") == hash_code(notebook), f"run `make notebooks`: {path.name} has changed"
    assert any(cell.outputs for cell in code_cells(notebook))
    for output in (output for cell in code_cells(notebook) for output in cell.outputs):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
        image = output.get("data", {}).get("image/png", "")
        assert len(image) * 3 / 4 < 200e3


@all_notebooks
def test_committed_outputs_name_no_path_of_the_machine(path):
    assert str(ROOT) not in path.read_text()


@all_notebooks
def test_runs_on_a_tiny_model(path, model_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    paths = {"figures_dir": str(tmp_path / "figures"), "output": str(tmp_path / "table.parquet")}
    parameters = {"model": str(model_folder), **paths, **read_profile("smoke", path)}
    papermill.execute_notebook(
        path, tmp_path / path.name, parameters, cwd=ROOT / "notebooks", kernel_name="python3", progress_bar=False
    )
    for suffix in ("png", "csv"):
        assert (tmp_path / "figures" / f"{path.stem}.{suffix}").stat().st_size > 0
    assert len(pd.read_parquet(tmp_path / "table.parquet"))


@all_notebooks
@pytest.mark.parametrize("profile", sorted(file.stem for file in PROFILES.glob("*.yaml")))
def test_profiles_set_only_what_is_declared(path, profile):
    read_profile(profile, path)


def test_profiles_name_no_notebook_that_is_not_there():
    for file in PROFILES.glob("*.yaml"):
        assert set(yaml.safe_load(file.read_text())) <= {"extends", "common", *(path.stem for path in PATHS)}, file


def test_an_unknown_profile_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"one of .*embedded.*, got 'no such'"):
        read_profile("no such", PATHS[0])


def test_the_kept_results_are_those_of_the_full_profile():
    profile = yaml.safe_load((PROFILES / "full.yaml").read_text())
    tables = {path.stem: pd.read_csv(path) for path in ROOT.glob("data/results/*.csv")}
    for stem in ("04_quantitative", "05_num_steps", "06_target_layer", "07_beta_sensitivity"):
        table = tables[stem][~tables[stem].metric.str.endswith("relative")]  # undefined where the similarity is below 0
        assert table.groupby("dataset").n.unique().map(list).to_dict() == {
            name: [pairs] for name, pairs in profile[stem]["datasets"].items()
        }
    options, seeds = profile["07_beta_sensitivity"], tables["07_beta_sensitivity_seeds"]
    assert set(seeds.n) == {options["spread_pairs"] * len(options["datasets"])}
    assert sorted(set(seeds.beta)) == options["spread_betas"]
    assert set(tables["06_target_layer_steps"].n) == {profile["06_target_layer"]["grid_pairs"]}
