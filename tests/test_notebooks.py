"""Every notebook has the promised form, holds fresh outputs, and runs on a tiny random model."""

import sys
from pathlib import Path

import nbformat
import papermill
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))

from run import hash_code  # noqa: E402

PATHS = sorted(ROOT.glob("notebooks/[0-9]*.ipynb"))
PHOTO = str(ROOT / "data" / "photo" / "chelsea.jpg")
SMALL = {
    "00_quickstart": {"layer": 2, "n_steps": 2},
    "02_qualitative": {"layer": 2, "n_steps": 2, "layers": [0, 4], "steps": [1, 2], "n_scenes": 3}
    | {"image": PHOTO, "mask": None, "rise_masks": 20}
    | {"method_options": {"m2ib": {"layer": 2}, "gradcam": {"layer": 2}}},
}

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
        assert len(cell.source.splitlines()) <= 20
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
    parameters = {"model": str(model_folder), "figures_dir": str(tmp_path / "figures"), **SMALL[path.stem]}
    papermill.execute_notebook(
        path, tmp_path / path.name, parameters, cwd=ROOT / "notebooks", kernel_name="python3", progress_bar=False
    )
    for suffix in ("png", "csv"):
        assert (tmp_path / "figures" / f"{path.stem}.{suffix}").stat().st_size > 0
