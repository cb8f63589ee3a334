"""A tiny notebook in a folder of its own, and grids of it."""

import pytest
import yaml
from tiny import write_notebook


@pytest.fixture
def notebook(tmp_path):
    (tmp_path / "notebooks").mkdir()
    return write_notebook(tmp_path / "notebooks" / "tiny.ipynb")


@pytest.fixture
def make_grid(notebook):
    """Write a grid of the notebook: axes, and fixed parameters by name."""

    def make(axes=None, name="grid", **parameters):
        path = notebook.with_name(f"{name}.yaml")
        path.write_text(yaml.safe_dump({"notebook": notebook.name, "parameters": parameters, "axes": axes or {}}))
        return path

    return make


@pytest.fixture
def marks(tmp_path):
    """A folder in which each execution of a notebook leaves a file that holds its kernel's process id."""
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder
