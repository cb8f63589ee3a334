"""Run notebooks with papermill.

    python notebooks/run.py notebooks/00_quickstart.ipynb              # a copy, into build/
    python notebooks/run.py --in-place notebooks/*.ipynb               # refresh the committed ones

A copy draws into build/figures/<stem>/ and appears in build/notebooks/ once it has ended well. In
place, outputs are made stable: no times, no progress bars, and the hash of the code that they
come from.
"""

import argparse
import hashlib
import os
import shutil
import sys
from pathlib import Path

import nbformat
import papermill

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"


def hash_code(notebook: nbformat.NotebookNode) -> str:
    """Hash the code cells, so that outputs can be told to be older than the code."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def run(path: Path, parameters: dict) -> Path:
    """Execute a notebook beside where it belongs and return the executed file."""
    partial = BUILD / "partial" / path.name
    partial.parent.mkdir(parents=True, exist_ok=True)
    os.environ["MATPLOTLIBRC"] = str(ROOT / "notebooks")
    papermill.execute_notebook(
        path, partial, parameters, cwd=ROOT / "notebooks", kernel_name="python3", progress_bar=sys.stderr.isatty()
    )
    return partial


def run_copy(path: Path) -> None:
    """Run a copy and move it and its figures into build/."""
    staged, figures = BUILD / "partial" / path.stem, BUILD / "figures" / path.stem
    shutil.rmtree(staged, ignore_errors=True)
    executed = run(path, {"figures_dir": str(staged)})
    shutil.rmtree(figures, ignore_errors=True)
    figures.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(figures)
    (BUILD / "notebooks").mkdir(exist_ok=True)
    executed.replace(BUILD / "notebooks" / path.name)


def refresh(path: Path) -> None:
    """Run a notebook with its own parameters and keep what a reader needs of the result."""
    notebook = nbformat.read(run(path, {}), as_version=4)
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}, "code_hash": hash_code(notebook)}
    nbformat.write(notebook, BUILD / "partial" / path.name)
    (BUILD / "partial" / path.name).replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in-place", action="store_true", help="refresh the notebooks themselves")
    parser.add_argument("notebooks", nargs="+", type=Path)
    args = parser.parse_args()
    for path in args.notebooks:
        refresh(path) if args.in_place else run_copy(path.resolve())
