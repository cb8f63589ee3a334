"""Spread the runs of a grid over Dask workers, on this machine or on a cluster.

Exports `connect`, `sweep`, `count_workers` and `list_gpus`. Dask sends a run to a worker, and again when that
dies. Finished is what lies in the grid's folder, so that nothing is lost with the driver either.
"""

import logging
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue

import dask
import torch
from dask.system import CPU_COUNT
from distributed import Client, Future, LocalCluster, get_worker
from distributed.system import MEMORY_LIMIT

from nib.sweep.attempt import Outcome, attempt, stop
from nib.sweep.progress import Progress
from nib.sweep.runs import Run
from nib.sweep.store import Store

MEMORY_OF_A_RUN = 2 * 2**30  # bytes: worker, process and a notebook with the small model, rounded up
SENT_AT_ONCE = 500  # runs in one message to the scheduler
REFRESH = 1.0  # seconds


def list_gpus() -> list[str]:
    """Name the GPUs that this process may use, as CUDA_VISIBLE_DEVICES does."""
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(index) for index in range(count)]


def count_workers(gpus: Sequence[str]) -> int:
    """Give as many local workers as there are GPUs; without, as there are cores, or memory for."""
    return len(gpus) or max(1, min(CPU_COUNT, MEMORY_LIMIT // MEMORY_OF_A_RUN))


@contextmanager
def connect(scheduler: str | None, workers: int) -> Iterator[Client]:
    """Connect to a running scheduler, or start local workers that end with the `with`.

    Raises:
        OSError: no scheduler at this address.
    """
    if scheduler:
        with Client(scheduler, set_as_default=False) as client:
            yield client
        return
    # A waiting run stays with the scheduler, for whichever worker is idle first. Memory is not watched: Dask would
    # see that of its workers, which do nothing, and not that of the notebooks.
    with (
        dask.config.set({"distributed.scheduler.worker-saturation": 1.0}),
        LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        # Ctrl-C is for this process alone; from its thread the workers inherit that they do not get it.
        cluster.loop.add_callback(signal.pthread_sigmask, signal.SIG_BLOCK, [signal.SIGINT])
        cluster.scale(workers)
        yield client


def sweep(
    client: Client,
    runs: Sequence[Run],
    store: Store,
    driver: str,
    retries: int = 1,
    timeout: float | None = None,
    threads: int | None = None,
    gpus: Sequence[str] = (),
) -> list[Outcome]:
    """Run what is not finished, try what fails again, and say what came of each run.

    The order is random: it makes the time left an honest guess where runs differ in length, and lets two
    drivers of one grid share its runs instead of both doing each.

    Args:
        driver: an id, also the seed of the order.
        retries: how often a failed run is tried again. A run whose worker has died is not a failed one, unless it
            does so more often than the scheduler allows (`distributed.scheduler.allowed-failures`).
        timeout: seconds for one run.
        threads: for one run; None: what each worker has.
        gpus: each worker shows its runs one of them; none: what it sees itself.

    Raises:
        ConnectionError: the scheduler has gone.
    """
    to_do = [run for run in runs if not store.has(run.name)]
    random.Random(driver).shuffle(to_do)
    outcomes = {run.name: Outcome(run.name, "cached") for run in runs}
    options = dict(folder=str(store.folder), driver=driver, timeout=timeout, threads=threads, gpus=list(gpus))
    tries: Counter[str] = Counter()
    futures: dict[str, tuple[Future, Run]] = {}
    finished: SimpleQueue[Future] = SimpleQueue()

    def submit(some: Sequence[Run]) -> None:
        keys = [f"{driver}-{run.name}-{tries[run.name]}" for run in some]
        for run, future in zip(some, client.map(_attempt, some, key=keys, pure=False, **options)):
            futures[future.key] = future, run
            future.add_done_callback(finished.put)

    with Progress(len(runs), len(runs) - len(to_do)) as progress:
        try:
            for start in range(0, len(to_do), SENT_AT_ONCE):
                submit(to_do[start : start + SENT_AT_ONCE])
            while futures:
                future = _wait(finished, client, progress, driver)
                if future is None:
                    continue
                _, run = futures.pop(future.key)
                outcome = _read(future, run)
                tries[run.name] += 1
                if outcome.state == "failed" and tries[run.name] <= retries:
                    submit([run])
                else:
                    outcomes[run.name] = outcome
                    progress.count(outcome.state)
        except ConnectionError:
            raise  # nobody is left to cancel with
        except BaseException:
            if client.status == "running":
                client.cancel([future for future, _ in futures.values()])
                client.run(stop, driver, on_error="ignore")
            raise
    return list(outcomes.values())


def _attempt(run: Run, gpus: Sequence[str], **options) -> Outcome:
    """Attempt a run on the worker where this is called, whose name, when local, is its number."""
    return attempt(run, gpu=gpus[int(get_worker().name) % len(gpus)] if gpus else None, **options)


def _wait(finished: SimpleQueue, client: Client, progress: Progress, driver: str) -> Future | None:
    """Give the next future that ends, or None after a while in which none did."""
    try:
        future = finished.get(timeout=REFRESH)
    except Empty:
        future = None
    if client.status != "running" or (future is not None and future.cancelled()):
        raise ConnectionError("the scheduler has gone")
    if time.monotonic() - progress.refreshed > REFRESH:
        try:
            progress.show(_count_running(client, driver))
        except OSError as error:  # Dask's own, when the scheduler went a moment ago
            raise ConnectionError("the scheduler has gone") from error
    return future


def _count_running(client: Client, driver: str) -> int:
    """Count this driver's runs that workers have, less those that wait there for a free thread."""
    threads = client.nthreads()
    held = {worker: [key for key in keys if key.startswith(driver)] for worker, keys in client.processing().items()}
    return sum(min(len(keys), threads.get(worker, 0)) for worker, keys in held.items())


def _read(future: Future, run: Run) -> Outcome:
    """Give the outcome; an exception says that no worker could attempt the run or that each one died of it."""
    error = future.exception()
    if error is None:
        return future.result()
    return Outcome(run.name, "failed", error=f"{type(error).__name__}: {error}")
