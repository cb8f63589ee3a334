"""Execute the notebook of one attempt: `python process.py FOLDER PARTS TIMEOUT`; no `nib`, no torch: they take seconds.

It ends, with all that the notebook has started, when that takes too long, its input closes or its folder is taken away.
"""

import json
import os
import select
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import psutil

LATE = 124  # the exit code of what takes too long


def watch(folder: Path, timeout: float) -> None:
    """End kernel and process when worker or folder have gone, or it is time."""
    end = time.monotonic() + timeout
    while (folder / "parameters.json").exists() and time.monotonic() < end and not select.select([0], [], [], 0.5)[0]:
        continue
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(LATE if time.monotonic() >= end else 1)


def execute(folder: Path, parts: str) -> None:
    """Run the notebook with its parameters; papermill saves it as far as it came, also when a cell fails."""
    import papermill  # a second or two, in which the pipe is watched already

    run = json.loads((folder / "parameters.json").read_text())
    # Of braces in a path papermill would make the value of a parameter, and run another notebook.
    files = [str(path).replace("{", "{{").replace("}", "}}") for path in (run["notebook"], folder / "notebook.ipynb")]
    paths = dict(figures_dir=str(folder / "figures"), output=str(folder / "result.parquet"), parts_dir=parts)
    options = dict(cwd=Path(run["notebook"]).parent, kernel_name="python3", progress_bar=False)
    papermill.execute_notebook(*files, run["parameters"] | paths, **options)


if __name__ == "__main__":
    Thread(target=watch, args=[Path(sys.argv[1]), float(sys.argv[3])], daemon=True).start()
    execute(Path(sys.argv[1]), sys.argv[2])
