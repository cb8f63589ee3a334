"""Name the runs of a sweep after all that their results depend on.

Exports `Run`, `read_edition`, `name_run`, and `RESERVED`, the parameters that the sweep sets.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import nbformat

import nib
from nib.clip import EMBEDDED
from nib.datasets import SCENES
from nib.evaluation.parts import hash_all

RESERVED = ("figures_dir", "output")


@dataclass(frozen=True)
class Run:
    """One combination of a grid's parameters.

    `parameters` are those that the grid gives, `settings` all of the notebook's, and `edition` is what else
    the result depends on.
    """

    name: str
    grid: str
    notebook: str
    parameters: dict
    settings: dict
    edition: dict


def read_edition(notebook: str | Path) -> dict[str, str]:
    """Say which notebook, which `nib` and which embedded data a result comes from.

    The notebook counts by its code, `nib` by its version, its source and that of `studies`: the version stays the
    same while one works on the code, and a result of yesterday's code must not pass for one of today's. The data
    are the embedded scenes and model; what a parameter names (a folder, a hub id) counts by that name alone.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    package = Path(nib.__file__).parent
    code = [path for folder in (package, package.with_name("studies")) for path in sorted(folder.rglob("*.py"))]
    data = [*sorted(SCENES.glob("*.parquet")), *sorted(EMBEDDED.glob("*.json")), EMBEDDED / "model.safetensors"]
    return {
        "notebook": hash_all(*(cell.source for cell in cells if cell.cell_type == "code"))[:12],
        "nib": f"{nib.__version__}+{hash_all(*(path.read_bytes() for path in code))[:12]}",
        "data": hash_all(*(path.read_bytes() for path in data))[:12],
    }


def name_run(settings: dict, edition: dict) -> str:
    """Hash the content of all that a result depends on."""
    return hash_all(json.dumps([settings, edition], sort_keys=True))[:16]
