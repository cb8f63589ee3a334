"""Execute the notebook of one attempt. A script: `python process.py FOLDER`.

It imports neither `nib` nor torch, which take seconds: the notebook's kernel does. It ends when the
pipe on its standard input closes, and kills all that the notebook has started.
"""

import json
import os
import sys
from pathlib import Path
from threading import Thread

import psutil

STARTS = 3  # of a kernel: when many start at once, one can lose its port to another or take too long


def end_with_worker() -> None:
    """Wait until the worker closes the pipe, or is killed and the system does, then end kernel and process."""
    os.read(sys.stdin.fileno(), 1)
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    os._exit(1)


def has_begun(notebook: Path) -> bool:
    """Tell whether any cell has been started, after which another start would hide a failure."""
    cells = json.loads(notebook.read_text())["cells"] if notebook.exists() else []
    return any(cell["metadata"].get("papermill", {}).get("start_time") for cell in cells)


def execute(folder: Path) -> None:
    """Run the notebook with its parameters; papermill saves it as far as it came, also when a cell fails."""
    import papermill  # a second or two, in which the pipe is watched already
    from zmq import ZMQError

    run = json.loads((folder / "parameters.json").read_text())
    paths = {"figures_dir": str(folder / "figures"), "output": str(folder / "result.parquet")}
    for start in range(1, STARTS + 1):
        try:
            papermill.execute_notebook(
                run["notebook"],
                folder / "notebook.ipynb",
                run["parameters"] | paths,
                cwd=Path(run["notebook"]).parent,
                kernel_name="python3",
                progress_bar=False,
            )
            return
        except (RuntimeError, OSError, ZMQError) as error:
            if start == STARTS or has_begun(folder / "notebook.ipynb"):
                raise
            print(f"the kernel did not start ({error}): start {start + 1} of {STARTS}", file=sys.stderr)


if __name__ == "__main__":
    Thread(target=end_with_worker, daemon=True).start()
    # jsonschema, which papermill imports, would read a grammar of web addresses: 1.3 s of the 1.8 s that papermill
    # takes to import. It does without where the package is not there, and notebooks are no concern of it.
    sys.modules["rfc3987_syntax"] = None
    execute(Path(sys.argv[1]))
