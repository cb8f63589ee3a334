"""Run notebooks with papermill.

    python notebooks/run.py notebooks/00_quickstart.ipynb                    # a copy, into build/embedded/
    python notebooks/run.py --profile paper notebooks/04_quantitative.ipynb  # with the parameters of a profile
    python notebooks/run.py --in-place notebooks/*.ipynb                     # refresh the committed ones

A copy draws into build/PROFILE/figures/<stem>/ and appears in build/PROFILE/notebooks/ once it has ended
well; finished parts of an evaluation stay in build/PROFILE/parts/, so that a killed run goes on. In
place, outputs are made stable: no times, no progress bars, and the hash of the code that they come from.
"""

import argparse
import hashlib
import os
import shutil
import sys
from pathlib import Path

import nbformat
import papermill
import yaml

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
PROFILES = ROOT / "notebooks" / "profiles"


def hash_code(notebook: nbformat.NotebookNode) -> str:
    """Hash the code cells, so that outputs can be told to be older than the code."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def read_profile(name: str, path: Path) -> dict:
    """Give the parameters that a profile has for a notebook: its own, and the common ones that it declares.

    A profile that `extends` another sets its own values over those of the other.

    Raises:
        ValueError: no such profile, or a parameter for this notebook that it does not declare.
    """
    file = PROFILES / f"{name}.yaml"
    if not file.exists():
        raise ValueError(f"profile must be one of {sorted(p.stem for p in PROFILES.glob('*.yaml'))}, got {name!r}")
    profile = yaml.safe_load(file.read_text())
    declared = papermill.inspect_notebook(str(path))
    own = profile.get(path.stem) or {}
    if unknown := sorted(set(own) - set(declared)):
        raise ValueError(f"{path.name} has no parameter {', '.join(unknown)}, which {file.name} sets")
    common = {key: value for key, value in (profile.get("common") or {}).items() if key in declared}
    below = read_profile(profile["extends"], path) if "extends" in profile else {}
    return below | common | own


def run(path: Path, parameters: dict, partial: Path) -> Path:
    """Execute a notebook in its folder and return the executed file."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    os.environ["MATPLOTLIBRC"] = str(ROOT / "notebooks")
    papermill.execute_notebook(
        path, partial, parameters, cwd=ROOT / "notebooks", kernel_name="python3", progress_bar=sys.stderr.isatty()
    )
    return partial


def run_copy(path: Path, profile: str) -> None:
    """Run a copy and move it, its figures and its table into build/PROFILE/."""
    build = BUILD / profile
    staged, figures = build / "partial" / path.stem, build / "figures" / path.stem
    shutil.rmtree(staged, ignore_errors=True)
    parameters = {
        "figures_dir": str(staged),
        "output": str(build / "tables" / f"{path.stem}.parquet"),
        **read_profile(profile, path),
    }
    if "parts_dir" in papermill.inspect_notebook(str(path)):
        parameters["parts_dir"] = str(build / "parts" / path.stem)
    executed = run(path, parameters, build / "partial" / path.name)
    shutil.rmtree(figures, ignore_errors=True)
    figures.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(figures)
    (build / "notebooks").mkdir(exist_ok=True)
    executed.replace(build / "notebooks" / path.name)


def refresh(path: Path) -> None:
    """Run a notebook with its own parameters and keep what a reader needs of the result."""
    partial = BUILD / "in_place" / path.name
    notebook = nbformat.read(run(path, {}, partial), as_version=4)
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}, "code_hash": hash_code(notebook)}
    nbformat.write(notebook, partial)
    partial.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in-place", action="store_true", help="refresh the notebooks themselves")
    parser.add_argument("--profile", default="embedded", help="of notebooks/profiles")
    parser.add_argument("notebooks", nargs="+", type=Path)
    args = parser.parse_args()
    for path in args.notebooks:
        refresh(path.resolve()) if args.in_place else run_copy(path.resolve(), args.profile)
