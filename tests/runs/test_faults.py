"""Whatever dies, no run is lost, none counts twice and no half result is read: with real processes on loopback."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from tiny import wait_for

from runs import collect
from runs.store import ROOT

pytestmark = pytest.mark.slow
PATIENCE = 300  # seconds for what takes 10 where nothing else runs


class System:
    """A scheduler, workers and drivers: each a process of its own that can be killed."""

    def __init__(self, folder: Path, marks: Path):
        self.folder, self.marks = folder, marks
        self.processes: list[subprocess.Popen] = []
        self.scheduler = folder / "scheduler.json"

    def start(self, *arguments: str, log: str) -> subprocess.Popen:
        with (self.folder / log).open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=file,
                stderr=file,
                start_new_session=True,  # so that an interrupt reaches it and its children, as from a terminal
            )
        self.processes.append(process)
        return process

    def start_scheduler(self) -> subprocess.Popen:
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(self.scheduler)]
        process = self.start("dask", "scheduler", *options, log="scheduler.log")
        wait_for(self.scheduler.exists, PATIENCE)
        return process

    def start_worker(self) -> None:
        options = ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--local-directory", str(self.folder)]
        self.start("dask", "worker", "--scheduler-file", str(self.scheduler), *options, log="worker.log")

    def start_driver(self, grid: Path, *options: str) -> subprocess.Popen:
        if self.scheduler.exists():
            options += ("--scheduler", json.loads(self.scheduler.read_text())["address"])
        return self.start("runs", "--grid", str(grid), "--output", str(self.folder), *options, log="driver.log")

    @property
    def results(self) -> Path:
        return self.folder / "sweeps" / "grid"

    def read_log(self) -> str:
        return (self.folder / "driver.log").read_text()

    def executions(self) -> int:
        return len(list(self.marks.iterdir()))

    def kernels(self) -> list[psutil.Process]:
        """Find the kernels that execute a notebook, by the process ids that they have left."""
        found = []
        for mark in self.marks.iterdir():
            try:
                process = psutil.Process(int(mark.read_text() or 0))
                if any("ipykernel" in word for word in process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def close(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def system(tmp_path, marks):
    system = System(tmp_path, marks)
    yield system
    system.close()
    wait_for(lambda: not system.kernels(), 10)  # none outlives its worker


@pytest.fixture
def cluster(system):
    system.start_scheduler()
    system.start_worker()
    return system


@pytest.fixture
def make(make_grid, marks):
    return lambda axes, **fixed: make_grid(axes, where=str(marks), **fixed)


def check(system, n_runs, factors):
    """Every run is there, once and whole: four rows, of the right values."""
    frame = collect(system.results)
    assert frame.attrs["missing"] == []
    assert frame["run"].nunique() == n_runs
    assert sorted(frame["factor"].unique()) == sorted(factors)
    assert frame.groupby("run")["id"].apply(list).tolist() == [[0, 1, 2, 3]] * n_runs
    assert (frame["value"] == frame["factor"] * (frame["id"] + 0.1)).all()


def test_a_run_whose_worker_is_killed_is_run_again(cluster, make):
    driver = cluster.start_driver(make({"factor": [1.0]}, seconds=5.0), "--retries", "0")
    (kernel,) = wait_for(cluster.kernels, PATIENCE)
    worker = kernel.parent().parent()
    worker.kill()
    wait_for(lambda: not kernel.is_running(), 10)
    assert driver.wait(PATIENCE) == 0
    assert cluster.executions() == 2
    check(cluster, 1, [1.0])


def test_a_sweep_whose_driver_is_killed_goes_on(cluster, make):
    grid = make({"factor": [1.0, 2.0, 3.0]}, seconds=5.0)
    driver = cluster.start_driver(grid)
    wait_for(lambda: cluster.executions() == 2, PATIENCE)
    driver.kill()
    driver.wait()
    assert cluster.start_driver(grid).wait(PATIENCE) == 0
    check(cluster, 3, [1.0, 2.0, 3.0])
    assert re.search(r"3 runs: .*[12] cached", cluster.read_log())
    assert cluster.executions() <= 4


def test_a_sweep_whose_scheduler_is_killed_goes_on_with_another(system, make):
    grid = make({"factor": [1.0, 2.0]}, seconds=5.0)
    scheduler = system.start_scheduler()
    system.start_worker()
    driver = system.start_driver(grid)
    wait_for(lambda: system.executions() == 2, PATIENCE)
    scheduler.kill()
    assert driver.wait(60) == 1
    assert "stopped: the scheduler has gone\n1 of 2 runs are done. To go on:" in system.read_log()
    system.scheduler.unlink()
    system.start_scheduler()
    system.start_worker()
    assert system.start_driver(grid).wait(PATIENCE) == 0
    check(system, 2, [1.0, 2.0])


def test_local_workers_end_with_their_driver(system, make):
    grid = make({"factor": [1.0]}, seconds=5.0)
    driver = system.start_driver(grid, "--workers", "1")
    (kernel,) = wait_for(system.kernels, PATIENCE)
    family = psutil.Process(driver.pid).children(recursive=True)
    assert kernel in family
    driver.kill()
    driver.wait()
    wait_for(lambda: not any(process.is_running() for process in family), 30)
    assert system.start_driver(grid, "--workers", "1").wait(PATIENCE) == 0
    check(system, 1, [1.0])


def test_an_interrupt_is_clean_and_says_how_to_go_on(system, make):
    grid = make({"factor": [1.0]}, seconds=20.0)
    driver = system.start_driver(grid, "--workers", "1")
    wait_for(system.kernels, PATIENCE)
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(60) == 130
    assert not system.kernels()
    assert f"0 of 1 runs are done. To go on:\n  python -m runs --grid {grid}" in system.read_log()
    assert "Traceback" not in system.read_log()
    assert [path.name for path in system.results.glob("*/*")] == []


def test_an_interrupt_frees_the_cluster(cluster, make):
    driver = cluster.start_driver(make({"factor": [1.0, 2.0]}, do="hang"))
    wait_for(cluster.kernels, PATIENCE)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(60) == 130
    wait_for(lambda: not cluster.kernels(), 10)
    time.sleep(5)
    assert cluster.executions() == 1


def test_what_fails_is_reported_and_the_rest_stands(system, make):
    """One raises, one hangs, one has a file where its folder should be; two are well."""
    grid = make({"zip": {"do": ["work", "raise", "hang", "work", "work"], "factor": [1.0, 2.0, 3.0, 4.0, 5.0]}})
    dry = subprocess.run(
        [sys.executable, "-m", "runs", "--grid", grid, "--dry-run"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    in_the_way = dry.stdout.splitlines()[4].split()[0]
    system.results.mkdir(parents=True)
    (system.results / in_the_way).write_text("a file in the way")
    assert system.start_driver(grid, "--workers", "2", "--timeout", "60").wait(2 * PATIENCE) == 1
    log = system.read_log()
    assert "2 done" in log
    assert "3 failed" in log
    assert "ValueError: no such luck" in log
    assert "took longer than 60.0 s" in log
    assert re.search(rf"{in_the_way}  .*  NotADirectoryError", log)
    assert system.executions() == 2 + 3 * 2  # each failure is tried again
    assert len(list(system.results.glob("failed/*/notebook.ipynb"))) == 2 * 2
    frame = collect(system.results)
    assert sorted(frame["factor"].unique()) == [1.0, 4.0]
    assert len(frame.attrs["missing"]) == 3


def test_two_drivers_of_one_grid_count_each_run_once(cluster, make):
    cluster.start_worker()
    factors = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    grid = make({"factor": factors}, seconds=1.0)
    drivers = [cluster.start_driver(grid) for _ in range(2)]
    assert [driver.wait(PATIENCE) for driver in drivers] == [0, 0]
    check(cluster, 6, factors)
    states = Counter()
    for counts in re.findall(r"6 runs: (.*)", cluster.read_log()):
        states += Counter({state: int(n) for n, state in (part.split() for part in counts.split(", "))})
    assert states["done"] == 6
    assert states["cached"] == 6


def test_the_union_of_shards_is_the_whole_to_the_bit(system, make):
    for axes, folder in (({}, "whole"), ({"shard": {"of": 3}}, "shards")):
        grid = make(axes, factor=1 / 3, rows=7)
        system.start_driver(grid.rename(grid.with_name(f"{folder}.yaml")), "--workers", "2").wait(PATIENCE)
    whole, parts = (collect(system.folder / "sweeps" / folder) for folder in ("whole", "shards"))
    parts = parts.sort_values("id")
    assert parts["run"].nunique() == 3
    assert parts["value"].to_numpy().tobytes() == whole["value"].to_numpy().tobytes()
    assert parts["id"].tolist() == whole["id"].tolist() == list(range(7))


def test_twenty_random_kills(cluster, make, capsys):
    """Drivers, workers, processes and kernels die at random; the results come out as if none had."""
    cluster.start_worker()
    factors = [float(factor) for factor in range(1, 31)]
    grid = make({"factor": factors}, seconds=2.0)
    random_numbers, kills = random.Random(0), []
    driver = cluster.start_driver(grid, "--retries", "20")
    while len(kills) < 20:
        wait_for(cluster.kernels, PATIENCE)
        time.sleep(random_numbers.uniform(0, 3))
        kind = random_numbers.choice(["driver", "worker", "process", "kernel"])
        if kind == "driver":
            driver.kill()
            driver.wait()
            driver = cluster.start_driver(grid, "--retries", "20")
        elif not kill(kind, cluster.kernels(), random_numbers):
            continue  # it has ended by itself
        kills.append(kind)
        if any(cluster.results.glob("*/result.parquet")):
            assert set(collect(cluster.results).groupby("run").size()) == {4}
    assert driver.wait(2 * PATIENCE) == 0, cluster.read_log()
    check(cluster, len(factors), factors)
    with capsys.disabled():
        print(f"\n20 kills: {dict(Counter(kills))}; {len(factors)} runs took {cluster.executions()} executions")


def kill(kind: str, kernels: list[psutil.Process], random_numbers: random.Random) -> bool:
    """Kill one of the kernels, or its process, or that one's worker, and tell whether it was still there."""
    try:
        chain = [random_numbers.choice(kernels)]  # kernel, process, worker
        chain += chain[0].parents()[:2]
        chain[["kernel", "process", "worker"].index(kind)].kill()
    except (IndexError, psutil.Error):
        return False
    return True
