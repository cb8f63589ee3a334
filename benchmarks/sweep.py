"""Time what a run of a sweep costs over the notebook's own time.

    python -m benchmarks.sweep                       # 12 runs on one local worker, then 24 on two
    python -m benchmarks.sweep --workers 1 8 64      # on a larger machine

The notebook sleeps for a second and writes a table; its own time is the sum over its cells, which papermill
notes. Around that lie the kernel (its start and end, and papermill's saving), and the process (Python, importing
papermill, the hashes before and after, the folder) with Dask. Other measurements take the processor time of a
run, and give the driver and the scheduler 10,000 runs that do nothing. Writes benchmarks/sweep.csv, prints it,
and reckons from it 10,000 runs on 1, 8 and 64 workers; that last table is arithmetic, not a measurement.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pandas as pd

from runs.plan import read_grid
from runs.store import Store
from runs.work import attempt, connect, sweep

CELLS = [
    'index = 0  # of the run\nfigures_dir = "figures"  # unused\noutput = None  # for the table',
    "import time\n\nimport pandas as pd",
    "time.sleep(1)",
    'pd.DataFrame({"value": [index]}).to_parquet(output)',
]
MANY = 10_000


def make_grid(folder: Path, name: str, indices: range) -> Path:
    """Write a grid of the notebook with a run for each index."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "sleep.ipynb")
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({"notebook": "sleep.ipynb", "axes": {"index": list(indices)}}))
    return path


def read_times(store: Store, name: str) -> tuple[float, float]:
    """Return the seconds of a run's cells, and of papermill with its kernel."""
    notebook = nbformat.read(store.folder / name / "notebook.ipynb", as_version=4)
    cells = sum(cell.metadata.papermill.duration for cell in notebook.cells)
    return cells, notebook.metadata.papermill.duration


def time_runs(folder: Path, workers: int, n_runs: int) -> dict[str, float]:
    """Run notebooks on local workers and divide a run's time; the first run of each worker is not timed."""
    runs = read_grid(make_grid(folder, f"runs_{workers}", range(n_runs + workers)))
    store = Store(folder / "sweeps" / f"runs_{workers}")
    store.open("driver", runs)
    started = time.perf_counter()
    with connect(None, workers) as client:
        sweep(client, runs[:workers], store, "driver")
        ready = time.perf_counter()
        outcomes = sweep(client, runs[workers:], store, "driver")
        wall = time.perf_counter() - ready
    if set(outcomes.values()) != {"done"}:
        raise RuntimeError(f"the runs of the benchmark must be done, got {outcomes}")
    cells, papermill = (sum(of) / n_runs for of in zip(*(read_times(store, name) for name in outcomes)))
    per_run = wall * workers / n_runs
    return {
        "start of the workers, and a run each": ready - started,
        "a run": per_run,
        "of it: the cells": cells,
        "of it: the kernel": papermill - cells,
        "of it: the process, Dask and waiting for the last": per_run - papermill,
        "over the notebook's own time": per_run - cells,
    }


def time_cpu(folder: Path, n_runs: int = 4) -> dict[str, float]:
    """Return the processor time of a run without Dask, which other work on the machine does not stretch."""
    runs, store = read_grid(make_grid(folder, "cpu", range(n_runs))), Store(folder / "sweeps" / "cpu")
    store.open("driver", runs)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for run in runs:
        attempt(run, str(store.folder), "driver")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"a run, processor time with that of its cells": seconds / n_runs}


def do_nothing(run) -> str:
    return run.name


def time_many(folder: Path, workers: int) -> dict[str, float]:
    """Time what there is to do once for each run outside the workers, for 10,000 runs."""
    started = time.perf_counter()
    runs = read_grid(make_grid(folder, "many", range(MANY)))
    read = time.perf_counter()
    store = Store(folder / "sweeps" / "many")
    missing = [run for run in runs if not store.has(run.name)]
    looked = time.perf_counter()
    with connect(None, workers) as client:
        client.gather(client.map(do_nothing, missing[:workers], pure=False))
        ready = time.perf_counter()
        client.gather(client.map(do_nothing, missing, pure=False, batch_size=500))
        sent = time.perf_counter()
    return {
        f"reading a grid of {MANY:,} runs": read - started,
        f"looking for {MANY:,} results": looked - read,
        f"{MANY:,} runs that do nothing through the scheduler": sent - ready,
    }


def reckon(run: float, scheduler: float) -> pd.DataFrame:
    """Return the hours that 10,000 runs cost over the notebooks' own time; the scheduler does one at a time."""
    rows = [{"workers": n, "hours over the notebooks' own": max(MANY * run / n, scheduler) / 3600} for n in (1, 8, 64)]
    return pd.DataFrame(rows).round(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=12, help="for each worker")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for workers in args.workers:
            found = time_runs(Path(name), workers, args.runs * workers)
            rows += [(workers, quantity, seconds) for quantity, seconds in found.items()]
        rows += [(1, quantity, seconds) for quantity, seconds in time_cpu(Path(name)).items()]
        many = time_many(Path(name), max(args.workers))
    rows += [(max(args.workers), quantity, seconds) for quantity, seconds in many.items()]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import nib"], check=True)
    rows.append((1, "import nib, in each notebook and once a worker", time.perf_counter() - started))
    frame = pd.DataFrame(rows, columns=["workers", "quantity", "seconds"])
    frame.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.3g")
    print(frame.to_string(index=False, float_format="%.2f"))
    over = frame[frame.quantity == "over the notebook's own time"].seconds.iloc[0]
    print(f"\nBy arithmetic, {MANY:,} runs:", reckon(over, many[list(many)[-1]]).to_string(index=False), sep="\n")


if __name__ == "__main__":
    main()
