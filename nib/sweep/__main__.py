"""Run a grid of notebook parameters: `python -m nib.sweep GRID`.

    python -m nib.sweep notebooks/grids/beta.yaml --dry-run        # the table of runs
    python -m nib.sweep notebooks/grids/beta.yaml --workers 2      # on this machine
    python -m nib.sweep notebooks/grids/beta.yaml --scheduler tcp://10.0.0.1:8786

The same command goes on where an earlier one has ended. The exit code is 0 if all runs have results, 1 if any
has none, 2 if nothing was begun, 130 after Ctrl-C.
"""

import argparse
import json
import shlex
import shutil
import signal
import sys
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from dask.system import CPU_COUNT

from nib.sweep.attempt import Outcome
from nib.sweep.driver import connect, count_workers, list_gpus, sweep
from nib.sweep.grid import Grid, read_grid
from nib.sweep.store import NOTEBOOK, Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say and return the exit code."""
    args = _parse(arguments)
    try:
        grid = read_grid(args.grid)
    except (FileNotFoundError, ValueError) as error:
        return _refuse(error)
    store = Store((args.output / grid.name).resolve())
    if args.dry_run:
        print(_tabulate(grid, store))
        return 0
    driver = uuid.uuid4().hex[:8]
    try:
        store.attempts(driver).mkdir(parents=True)
        store.plan([run.name for run in grid.runs])
    except OSError as error:
        return _refuse(f"the folder for the results cannot be made: {error}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # batch systems end a job so: as clean as Ctrl-C
    try:
        outcomes = _run(args, grid, store, driver)
    except KeyboardInterrupt:
        return _stop(grid, store, "stopped", 130)
    except OSError as error:
        return _stop(grid, store, f"stopped: {error}", 1)
    finally:
        shutil.rmtree(store.attempts(driver), ignore_errors=True)
    return _report(grid, store, outcomes)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m nib.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("grid", type=Path, help="a YAML file: notebook, parameters, axes")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, help="on this machine; default: its GPUs, or its cores")
    where.add_argument("--scheduler", help="address of a running Dask scheduler")
    parser.add_argument("--dry-run", action="store_true", help="print the table of runs and end")
    parser.add_argument("--retries", type=int, default=1, help="of a run that fails (default: 1)")
    parser.add_argument("--timeout", type=float, help="seconds after which a run is killed")
    parser.add_argument("--output", type=Path, default=Path("build/sweeps"), help="folder of the grids' folders")
    args = parser.parse_args(arguments)
    if args.workers is not None and args.workers < 1:
        parser.error(f"--workers must be at least 1, got {args.workers}")
    if args.retries < 0:
        parser.error(f"--retries must be at least 0, got {args.retries}")
    if args.timeout is not None and args.timeout <= 0:
        parser.error(f"--timeout must be above 0, got {args.timeout}")
    return args


def _run(args: argparse.Namespace, grid: Grid, store: Store, driver: str) -> list[Outcome]:
    if all(store.has(run.name) for run in grid.runs):
        return [Outcome(run.name, "cached") for run in grid.runs]
    gpus = [] if args.scheduler else list_gpus()
    workers = args.workers or count_workers(gpus)
    threads = None if args.scheduler else max(1, CPU_COUNT // workers)
    with connect(args.scheduler, workers) as client:
        return sweep(client, grid.runs, store, driver, args.retries, args.timeout, threads, gpus)


def _refuse(reason: Exception | str) -> int:
    print(reason, file=sys.stderr)
    return 2


def _tabulate(grid: Grid, store: Store) -> str:
    """List the runs: name, state, and the parameters that differ between them."""

    def state(name: str) -> str:
        return "done" if store.has(name) else "failed" if store.failed(name).exists() else "to do"

    rows = [
        {"run": run.name, "state": state(run.name)} | {key: json.dumps(run.parameters[key]) for key in grid.axes}
        for run in grid.runs
    ]
    counts = ", ".join(f"{count} {key}" for key, count in Counter(row["state"] for row in rows).items())
    return f"{pd.DataFrame(rows).to_string(index=False)}\n{len(rows)} runs of {grid.notebook.name}: {counts}"


def _stop(grid: Grid, store: Store, how: str, code: int) -> int:
    done = sum(store.has(run.name) for run in grid.runs)
    command = shlex.join(["python", "-m", "nib.sweep", *sys.argv[1:]])
    print(f"{how}: {done} of {len(grid.runs)} runs are done and stay so. To go on:\n  {command}", file=sys.stderr)
    return code


def _report(grid: Grid, store: Store, outcomes: Sequence[Outcome]) -> int:
    """Say what came of the runs, in full of those that have failed."""
    counts = ", ".join(f"{count} {state}" for state, count in Counter(one.state for one in outcomes).items())
    print(f"{len(outcomes)} runs: {counts}. nib.sweep.collect({str(store.folder)!r}) reads the results.")
    lacking = [(run, one) for run, one in zip(grid.runs, outcomes) if one.state not in ("done", "cached")]
    for run, one in lacking:
        axes = ", ".join(f"{key}={json.dumps(run.parameters[key])}" for key in grid.axes)
        lines = [one.cell, one.error, str(Path(one.folder) / NOTEBOOK) if one.folder else ""]
        print(f"\n{run.name} failed: {axes}", *(f"  {line}" for line in lines if line), sep="\n", file=sys.stderr)
    if lacking:
        print("\nThe other results stand. The same command tries these again.", file=sys.stderr)
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
