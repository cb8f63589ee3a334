"""Run notebooks: `python -m runs NOTEBOOK...`, or `python -m runs --grid GRID`.

The same command goes on after a stop. Exit code: 0 all runs have results, 1 some have none, 2 none begun, 130 Ctrl-C.
"""

import argparse
import json
import random
import re
import shlex
import shutil
import signal
import sys
import uuid
from collections import Counter
from itertools import count
from pathlib import Path

import nbformat
from dask.system import CPU_COUNT
from distributed.system import MEMORY_LIMIT

from nib.files import make_folder
from runs.plan import read_grid, read_profile
from runs.store import Run, Store, hash_cells
from runs.work import connect, list_gpus, sweep


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments say and return the exit code."""
    args, command_id = _parse(arguments), uuid.uuid4().hex[:8]
    store = Store(args.output.resolve() / (f"sweeps/{args.grid.stem}" if args.grid else f"profiles/{args.profile}"))
    try:
        runs = read_grid(args.grid) if args.grid else read_profile(args.profile, args.notebooks, args.parameter)
        if args.dry_run:
            return _report(store, runs, {run.name: "done" if store.has(run.name) else "to do" for run in runs})
        if args.figures:
            make_folder(args.figures)
            done = (store.folder / run.name for run in runs if store.has(run.name))
            if bare := [str(folder) for folder in done if not (folder / "figures").is_dir()]:
                raise ValueError(f"a run must have its folder of figures, {bare[0]} has none: remove that to run again")
        store.open(command_id, runs)
    except (ValueError, OSError) as error:
        print(f"nothing was begun: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # batch systems end a job so: as clean as Ctrl-C
    outcomes, code, drawn = dict.fromkeys((run.name for run in runs), "cached"), 0, set()
    try:
        if not all(store.has(run.name) for run in runs):
            gpus = [] if args.scheduler else list_gpus()
            workers = args.workers or len(gpus) or max(1, min(CPU_COUNT, MEMORY_LIMIT >> 31))  # 2 GiB a run
            with connect(args.scheduler, min(workers, len(runs))) as client:
                order = random.Random(command_id).sample(runs, len(runs)) if args.grid else runs  # two may share a grid
                outcomes = sweep(client, order, store, command_id, args.retries, timeout=args.timeout, gpus=gpus)
    except (KeyboardInterrupt, OSError) as error:
        done, code = sum(store.has(run.name) for run in runs), 130 if isinstance(error, KeyboardInterrupt) else 1
        again = shlex.join(["python", "-m", "runs", *sys.argv[1:]])
        print(f"stopped: {error}\n{done} of {len(runs)} runs are done. To go on:\n  {again}", file=sys.stderr)
    finally:
        store.close(command_id)
    for run in (run for run in runs if store.has(run.name)):
        if args.figures:
            figures = store.folder / run.name / "figures"
            names = {path.relative_to(figures) for path in figures.rglob("*") if path.is_file()}
            place = args.figures / run.name if args.grid or names & drawn else args.figures  # none over another run's
            shutil.copytree(figures, place, dirs_exist_ok=True)
            drawn |= names
        if args.in_place:
            _refresh(Path(run.notebook), store.folder / run.name / "notebook.ipynb")
    return code or _report(store, runs, outcomes, every=False)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m runs", description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--grid", type=Path, help="a YAML file: notebook, parameters, axes")
    parser.add_argument("--profile", default="embedded", help="of notebooks/profiles (default: embedded)")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--in-place", action="store_true", help="put the outputs into the notebooks themselves")
    parser.add_argument("--figures", type=Path, help="copy the figures into this folder, or below it by run")
    parser.add_argument("--output", type=Path, default=Path("build"), help="folder of all results (default: build)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, help="on this machine; default: its GPUs, or its cores")
    where.add_argument("--scheduler", help="address of a running Dask scheduler")
    parser.add_argument("--dry-run", action="store_true", help="print the table of runs and end")
    parser.add_argument("--retries", type=int, default=1, help="of a run that fails (default: 1)")
    parser.add_argument("--timeout", type=float, help="seconds after which a run is killed")
    args = parser.parse_args(arguments)
    given = args.profile != "embedded" or bool(args.parameter)
    if bool(args.grid) == bool(args.notebooks) or [bool(args.grid), args.in_place, given].count(True) > 1:
        parser.error("give notebooks, or a grid, which has its own parameters; --in-place takes those of the notebooks")
    for name, least in {"workers": 1, "retries": 0, "timeout": 1}.items():
        if (value := getattr(args, name)) is not None and not value >= least:
            parser.error(f"--{name} must be at least {least}, got {value}")
    if args.scheduler is not None and not re.fullmatch(r"(\w+://)?[^/]+:[0-9]{1,5}", args.scheduler):
        parser.error(f"--scheduler must be host:port, got {args.scheduler!r}")
    return args


def _refresh(path: Path, executed: Path) -> None:
    """Put outputs into their notebook, without times and progress, and the hash of the code that they are of."""
    notebook, done = (nbformat.read(file, as_version=4) for file in (path, executed))
    done, number = [cell for cell in done.cells if "injected-parameters" not in cell.metadata.get("tags", [])], count(1)
    for cell, like in zip(notebook.cells, done, strict=True):
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            shown = [out for out in like.outputs if not any("widget" in kind for kind in out.get("data", ()))]
            cell.outputs, cell.execution_count = [out for out in shown if out.get("name") != "stderr"], next(number)
            for output in (output for output in cell.outputs if "execution_count" in output):
                output.execution_count = cell.execution_count
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}, "code_hash": hash_cells(notebook)}
    nbformat.write(notebook, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _report(store: Store, runs: list[Run], outcomes: dict[str, str], every: bool = True) -> int:
    """Print every run or the failed ones with their parameters, how many have each state, and where a single one is."""
    states = {name: text if text in ("done", "cached", "to do") else "failed" for name, text in outcomes.items()}
    for run in (run for run in runs if every or states[run.name] == "failed"):
        print(run.name, json.dumps(run.parameters), outcomes[run.name].replace("\n", "\n    "), sep="  ")
    place = f" in {store.folder / runs[0].name}" if list(states.values()) in (["done"], ["cached"]) else ""
    print(f"{len(runs)} runs:", ", ".join(f"{n} {state}" for state, n in Counter(states.values()).items()) + place)
    return 1 if "failed" in states.values() else 0


if __name__ == "__main__":
    sys.exit(main())
