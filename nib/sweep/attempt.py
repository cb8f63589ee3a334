"""Run one notebook in a process of its own, and leave nothing of it behind.

Exports `attempt`, which workers call, `stop` and `Outcome`.

The process is the child of a worker, the notebook's kernel the child of the process. A pipe leads from worker to
process; when it closes, the process kills its kernel and itself. So time-outs, Ctrl-C and the death of a
worker (whose pipes the system closes) all end a run in the same way. When the process itself is killed, its
kernel ends itself within a second, as all kernels do; what it writes until then lies in a folder nobody reads.
"""

import os
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import nib
from nib.sweep.runs import Run, read_edition
from nib.sweep.store import LOG, RESULT, Store, find_error

SCRIPT = Path(__file__).with_name("process.py")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Small models run twice as fast when glibc keeps memory; Dask tells its workers to hand all of it back.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": "4294967296", "MALLOC_TOP_PAD_": "268435456", "MALLOC_MMAP_MAX_": "0"}

_running: dict[str, set[subprocess.Popen]] = defaultdict(set)  # driver -> its processes on this worker
_stopped: set[str] = set()


@dataclass(frozen=True)
class Outcome:
    """What came of a run: `state` is done, cached, failed or stopped, and the rest says how it failed."""

    name: str
    state: str
    seconds: float = 0.0
    error: str = ""
    cell: str = ""
    folder: str = ""


def attempt(
    run: Run,
    folder: str,
    driver: str,
    timeout: float | None = None,
    threads: int | None = None,
    gpu: str | None = None,
) -> Outcome:
    """Run a notebook, unless its result is there, and put it into its place.

    Args:
        folder: of the grid, which drivers and workers share.
        driver: its id.
        timeout: seconds after which the run is killed, with all that it has started.
        threads: of the run; None: what OMP_NUM_THREADS says on this worker, or 1.
        gpu: the only one that the run sees; None: what the worker sees.
    """
    store, started = Store(folder), time.monotonic()
    if store.has(run.name):
        return Outcome(run.name, "cached")
    if driver in _stopped:
        return Outcome(run.name, "stopped")
    cell = kept = ""
    try:
        error = _find_change(run)
        if not error:
            place = store.begin(run, driver)
            code = _execute(place, driver, timeout, _make_environment(run, threads, gpu))
            cell, error = _judge(run, place, code, timeout)
            if driver in _stopped:
                return Outcome(run.name, "stopped")
            if not error:
                state = "done" if store.publish(place, run.name) else "cached"
                return Outcome(run.name, state, time.monotonic() - started)
            kept = str(store.keep_failed(place, run.name))
    except OSError as failure:
        error = f"{type(failure).__name__}: {failure}"
    return Outcome(run.name, "failed", time.monotonic() - started, error, cell, kept)


def stop(driver: str) -> None:
    """End all runs of a driver on this worker, and begin no more of them."""
    _stopped.add(driver)
    for process in list(_running[driver]):
        process.stdin.close()


def _find_change(run: Run) -> str:
    """Say what a result made here and now would depend on, other than the run's name says."""
    found = read_edition(run.notebook)
    changes = [f"{key} is {found[key]}, not {value}" for key, value in run.edition.items() if found[key] != value]
    return f"not what it was when the sweep began: {'; '.join(changes)}" if changes else ""


def _make_environment(run: Run, threads: int | None, gpu: str | None) -> dict[str, str]:
    environment = os.environ | MALLOC
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(nib.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    if (Path(run.notebook).parent / "matplotlibrc").exists():
        environment["MATPLOTLIBRC"] = str(Path(run.notebook).parent)
    environment |= dict.fromkeys(THREADS, str(threads or os.environ.get("OMP_NUM_THREADS", 1)))
    return environment if gpu is None else environment | {"CUDA_VISIBLE_DEVICES": gpu}


def _execute(place: Path, driver: str, timeout: float | None, environment: dict[str, str]) -> int | None:
    """Run the process and return its exit code, or None if it took too long."""
    # -P: `store` or `grid` in a notebook must not mean the files beside the script.
    command = [sys.executable, "-P", str(SCRIPT), str(place)]
    with (
        (place / LOG).open("ab") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
        ) as process,
    ):
        _running[driver].add(process)
        try:
            return None if driver in _stopped else process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _running[driver].discard(process)
            _end(process)


def _end(process: subprocess.Popen) -> None:
    process.stdin.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


def _judge(run: Run, place: Path, code: int | None, timeout: float | None) -> tuple[str, str]:
    """Say in which cell a run has failed, and why; the second is empty if it has not."""
    cell, error = find_error(place)
    if code is None:
        return cell, f"took longer than the time-out of {timeout} s"
    if code < 0:
        return cell, f"its process was ended by signal {-code}"
    if code:
        return cell, error
    if not _is_whole(place / RESULT):
        return "", "the notebook has written no table to `output`"
    return "", _find_change(run)


def _is_whole(path: Path) -> bool:
    """Tell whether a parquet file has its end, which is written last."""
    return path.exists() and path.read_bytes()[-4:] == b"PAR1"
