"""The grids in notebooks/grids fit their notebooks."""

from pathlib import Path

import pytest

import nib
from nib.sweep.grid import read_grid

GRIDS = sorted((Path(nib.__file__).parents[1] / "notebooks" / "grids").glob("*.yaml"))


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_a_grid_of_the_repository_is_read(path):
    grid = read_grid(path)
    assert grid.name == path.stem
    assert len(grid.runs) > 1


def test_there_are_grids_of_the_papers_parameters():
    assert {path.stem for path in GRIDS} >= {"num_steps", "target_layer", "layers_by_steps", "beta", "methods"}
