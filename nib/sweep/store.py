"""The folder of a grid, in which a finished run is whole or not there.

    <run>/             notebook.ipynb, parameters.json, log.txt, figures/, result.parquet
    failed/<run>/      the last attempt of one that failed
    partial/<driver>/  attempts under way, and those that were killed
    runs.json          the names of all runs, in the order of the grid

An attempt works in a folder of its own, which is renamed when all is there: nothing reads half a result,
and where two drivers, or a worker taken for dead and its successor, do the same run, the first to end counts.
"""

import json
import os
import shutil
import socket
import uuid
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import nbformat

from nib.sweep.runs import Run

RESULT = "result.parquet"
NOTEBOOK = "notebook.ipynb"
PARAMETERS = "parameters.json"
LOG = "log.txt"
PLAN = "runs.json"


class Store:
    """What is where in the folder of a grid."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def has(self, name: str) -> bool:
        """Tell whether a run is finished."""
        return (self.folder / name / RESULT).exists()

    def plan(self, names: list[str]) -> None:
        """Write down which runs there are to be, so that what is missing can be told."""
        partial = self.folder / f".{PLAN}.{uuid.uuid4().hex}"
        partial.write_text(json.dumps(names))
        partial.replace(self.folder / PLAN)

    def attempts(self, driver: str) -> Path:
        """Give the folder of a driver's attempts."""
        return self.folder / "partial" / driver

    def failed(self, name: str) -> Path:
        """Give the folder of the last attempt of a failed run."""
        return self.folder / "failed" / name

    def begin(self, run: Run, driver: str) -> Path:
        """Make the folder of one attempt.

        Raises:
            FileNotFoundError: the folder of the driver's attempts is not there.
        """
        if not self.attempts(driver).is_dir():
            raise FileNotFoundError(
                f"{socket.gethostname()} does not see {self.attempts(driver)}, which the driver has made: drivers and"
                " workers must share a file system"
            )
        attempt = self.attempts(driver) / f"{run.name}-{uuid.uuid4().hex[:8]}"
        (attempt / "figures").mkdir(parents=True)
        (attempt / PARAMETERS).write_text(json.dumps(asdict(run), indent=1))
        return attempt

    def publish(self, attempt: Path, name: str) -> bool:
        """Put an attempt into its place and tell whether it was the first to get there."""
        result, place = attempt / RESULT, self.folder / name
        with result.open("rb") as file:
            os.fsync(file.fileno())  # a crash of the machine must not leave the name without the content
        if place.is_dir() and not self.has(name):  # its result was deleted by hand
            place.rename(attempt.with_suffix(".old"))
        try:
            attempt.rename(place)
        except OSError:
            if not self.has(name):
                raise
            return False
        shutil.rmtree(self.failed(name), ignore_errors=True)
        return True

    def keep_failed(self, attempt: Path, name: str) -> Path:
        """Put a failed attempt where it can be looked at, in the place of an earlier one."""
        place = self.failed(name)
        place.parent.mkdir(exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):  # another driver has just put the same failure there
            attempt.rename(place)
        return place


def find_error(attempt: Path) -> tuple[str, str]:
    """Say in which cell a notebook has failed, and the error: of the cell, or the last line of the log."""
    lines = [line for line in (attempt / LOG).read_text(errors="replace").splitlines() if line.strip()]
    error, place = lines[-1] if lines else "no error was written", ""
    try:
        notebook = nbformat.read(attempt / NOTEBOOK, as_version=4)
    except (OSError, ValueError):  # none, or cut off in the middle
        return place, error
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells, 1):
        if not cell.metadata.get("papermill", {}).get("start_time"):
            break
        place = f"In [{number}]: {next(iter(cell.source.strip().splitlines()), '')}"
        for output in cell.outputs:
            if output.output_type == "error":
                return place, f"{output.ename}: {output.evalue}"
    return place, error
