"""Spread runs over Dask workers; each notebook runs in a process of its own, which leaves nothing of it behind."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import dask
import torch
from distributed import Client, as_completed, get_worker
from tqdm import tqdm

from runs.process import LATE
from runs.store import ROOT, Run, Store, hash_inputs


def list_gpus() -> list[str]:
    """Name the GPUs that this process may use, as CUDA_VISIBLE_DEVICES does."""
    count, visible = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(index) for index in range(count)]


def connect(scheduler: str | None, workers: int) -> Client:
    """Connect to a running scheduler, or start local workers that end with the client."""
    if scheduler:
        return Client(scheduler, set_as_default=False)
    # Dask need not watch the memory of workers, which do nothing; what waits is for whichever of them is idle first.
    options = dict(threads_per_worker=1, memory_limit=0, host="127.0.0.1", silence_logs="CRITICAL")
    with dask.config.set({"distributed.scheduler.worker-saturation": 1.0}):
        client = Client(n_workers=0, processes=True, dashboard_address="127.0.0.1:0", set_as_default=False, **options)
    # Ctrl-C is for this process alone; from its thread the workers inherit that they do not get it.
    client.cluster.loop.add_callback(signal.pthread_sigmask, signal.SIG_BLOCK, [signal.SIGINT])
    client.cluster.scale(workers)
    return client


def sweep(client: Client, runs: list[Run], store: Store, command_id: str, retries: int = 1, **options) -> dict:
    """Run by `attempt`, in order, what is not finished; try what fails again; return of each how it ended."""
    outcomes = dict.fromkeys((run.name for run in runs), "cached")
    to_do = {f"{command_id}-{run.name}": run for run in runs if not store.has(run.name)}
    options |= dict(folder=str(store.folder), command_id=command_id, retries=retries, batch_size=500)
    futures = client.map(attempt, [*to_do.values()], key=[*to_do], pure=False, **options)
    counts = Counter(done=0, cached=len(runs) - len(to_do), failed=0)
    with tqdm(total=len(runs), initial=counts["cached"], unit="run", dynamic_ncols=True) as bar:
        for future in as_completed(futures, loop=client.loop):
            if future.cancelled():
                raise ConnectionError("the scheduler has gone")
            error = future.exception()
            outcome = future.result() if error is None else f"{type(error).__name__}: {error}".removeprefix("Failed: ")
            counts[outcome if outcome in counts else "failed"] += 1
            outcomes[to_do[future.key].name] = outcome
            bar.set_postfix(counts, refresh=False)
            bar.update()
    return outcomes


class Failed(RuntimeError):
    """A run that has failed: raised with the reason, so that Dask tries again."""


def attempt(run: Run, folder: str, command_id: str, timeout: float | None = None, gpus: list[str] | None = None) -> str:
    """Run a notebook, for at most `timeout` seconds and on one of `gpus`; return "done", or "cached" if it was."""
    if (store := Store(folder)).has(run.name):
        return "cached"
    _check(run)
    place = store.begin(run, command_id)
    if error := _execute(place, store.parts, timeout, gpus):
        raise Failed(f"{error}\n{place.rename(store.failed / place.name) / 'notebook.ipynb'}")
    _check(run)
    return store.publish(place, run.name)


def _check(run: Run) -> None:
    """Refuse a run whose result, made here and now, would depend on other things than its name says."""
    if (found := hash_inputs(run.notebook, "figures" in run.hashes)) != run.hashes:
        raise Failed(f"what it depends on has changed since the command was given: {found}, not {run.hashes}")


def _execute(place: Path, parts: Path, timeout: float | None, gpus: list[str] | None) -> str:
    """Run the process, and say why it has failed; nothing if it has not. Its pipe closes when this ends, however."""
    # Small models run twice as fast when glibc keeps memory; Dask tells its workers to hand all of it back.
    malloc = {"MALLOC_TRIM_THRESHOLD_": "4294967296", "MALLOC_TOP_PAD_": "268435456", "MALLOC_MMAP_MAX_": "0"}
    environment = os.environ | malloc | {"OMP_WAIT_POLICY": "passive"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    if gpus:  # the name of a local worker is its number
        environment["CUDA_VISIBLE_DEVICES"] = gpus[int(get_worker().name) % len(gpus)]
    threads = os.environ.get("OMP_NUM_THREADS", "1")  # with one, digits are the same on every machine
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    # -P: `store` or `plan` in a notebook must not mean the files beside the script.
    command = [sys.executable, "-P", Path(__file__).with_name("process.py"), place, parts, str(timeout or "inf")]
    options = dict(stdin=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
    with (log := place / "log.txt").open("ab") as out, subprocess.Popen(command, stdout=out, **options) as process:
        code = process.wait()
    if code == 0:
        return "" if Store(place.parent).has(place.name) else "the notebook has written no parquet table to `output`"
    if code < 0 or code == LATE:
        return f"its process was ended by signal {-code}" if code < 0 else f"took longer than {timeout} s"
    lines = [line for line in log.read_text(errors="replace").split("\n") if line.strip()]
    return "\n".join([*[line for line in lines if line.startswith("Exception encountered at")][-1:], *lines[-1:]])
