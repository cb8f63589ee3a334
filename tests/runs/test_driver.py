"""The driver counts every run once, tries failures again, and says what to do next; the runs are stand-ins."""

import threading
from collections import Counter
from contextlib import contextmanager
from queue import SimpleQueue

import dask
import pytest
from distributed import Client, LocalCluster
from nib.sweep import __main__ as command
from nib.sweep import attempt as workers
from nib.sweep import driver
from nib.sweep.attempt import Outcome
from nib.sweep.grid import read_grid
from nib.sweep.store import Store
from tiny import wait_for


@contextmanager
def start(n_workers):
    """Start a cluster in this process."""
    options = dict(processes=False, dashboard_address=None, threads_per_worker=1)
    with LocalCluster(n_workers=n_workers, **options) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture
def runs(make_grid):
    return read_grid(make_grid({"rows": list(range(1, 13))})).runs


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "sweeps" / "grid")


@pytest.fixture
def replace(monkeypatch):
    """Put a stand-in into the place of `attempt`."""
    return lambda attempt: monkeypatch.setattr(driver, "attempt", attempt)


def finish(run, folder, **_):
    (Store(folder).folder / run.name).mkdir(parents=True)
    (Store(folder).folder / run.name / "result.parquet").touch()
    return Outcome(run.name, "done")


def test_each_run_is_attempted_once_and_a_finished_one_never(runs, store, replace):
    calls = []
    replace(lambda run, **options: calls.append(run.name) or finish(run, **options))
    for run in runs[:3]:
        finish(run, store.folder)
    with start(2) as client:
        outcomes = driver.sweep(client, runs, store, "me")
    assert [outcome.name for outcome in outcomes] == [run.name for run in runs]
    assert [outcome.state for outcome in outcomes] == ["cached"] * 3 + ["done"] * 9
    assert Counter(calls) == Counter(run.name for run in runs[3:])


def test_each_driver_has_an_order_of_its_own(runs, tmp_path, replace):
    calls = []
    replace(lambda run, **options: calls.append(run.name) or Outcome(run.name, "done"))
    with start(1) as client:
        for index, name in enumerate(["a", "b", "a"]):
            driver.sweep(client, runs, Store(tmp_path / str(index)), name)
    first, other, again = calls[:12], calls[12:24], calls[24:]
    assert sorted(first) == sorted(other) == sorted(run.name for run in runs)
    assert first == again != other


@pytest.mark.parametrize(("retries", "state", "tries"), [(0, "failed", 1), (1, "failed", 2), (2, "done", 3)])
def test_a_failed_run_is_tried_again_so_many_times(runs, store, replace, retries, state, tries):
    calls = Counter()

    def attempt(run, **options):
        calls[run.name] += 1
        failed = run.name == runs[0].name and calls[run.name] < 3
        return Outcome(run.name, "failed", error=f"failure {calls[run.name]}") if failed else finish(run, **options)

    replace(attempt)
    with start(2) as client:
        outcomes = driver.sweep(client, runs, store, "me", retries=retries)
    assert [outcome.state for outcome in outcomes] == [state] + ["done"] * 11
    assert outcomes[0].error == ("" if state == "done" else f"failure {tries}")
    assert calls == Counter({runs[0].name: tries}) + Counter(run.name for run in runs[1:])


def test_what_a_worker_cannot_do_at_all_is_a_failed_run(runs, store, replace):
    def attempt(run, **options):
        raise ModuleNotFoundError("No module named 'nib'")

    replace(attempt)
    with start(1) as client:
        outcomes = driver.sweep(client, runs[:1], store, "me")
    assert outcomes == [Outcome(runs[0].name, "failed", error="ModuleNotFoundError: No module named 'nib'")]


def test_each_worker_has_its_gpu(runs, store, replace):
    seen, both = Counter(), threading.Barrier(2, timeout=30)

    def attempt(run, gpu, threads, **options):
        seen[gpu, threads] += 1
        both.wait()
        return Outcome(run.name, "done")

    replace(attempt)
    with start(2) as client:
        driver.sweep(client, runs, store, "me", threads=4, gpus=["3", "7"])
    assert seen == {("3", 4): 6, ("7", 4): 6}


def test_gpus_and_workers_are_counted(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert driver.list_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-6")
    assert driver.list_gpus() == ["4", "GPU-6"]
    assert driver.count_workers(["4", "GPU-6"]) == 2
    monkeypatch.setattr(driver, "CPU_COUNT", 64)
    monkeypatch.setattr(driver, "MEMORY_LIMIT", 16 * 2**30)
    assert driver.count_workers([]) == 8
    monkeypatch.setattr(driver, "MEMORY_LIMIT", 2**30)
    assert driver.count_workers([]) == 1


def wait_until_stopped(run, driver, **_):
    wait_for(lambda: driver in workers._stopped, 30)
    return Outcome(run.name, "stopped")


def test_an_interrupt_stops_what_is_under_way(runs, store, replace, monkeypatch):
    replace(wait_until_stopped)

    def interrupt(*_):
        raise KeyboardInterrupt

    with start(2) as client:
        monkeypatch.setattr(driver.Progress, "show", lambda *_: None)
        monkeypatch.setattr(driver, "_count_running", interrupt)
        with pytest.raises(KeyboardInterrupt):
            driver.sweep(client, runs, store, "interrupted")
        assert "interrupted" in workers._stopped


def test_a_scheduler_that_goes_is_an_error(monkeypatch):
    """A real one is killed in test_faults.py."""
    monkeypatch.setattr(driver, "REFRESH", 0.1)
    with start(1) as client, driver.Progress(1, 0) as progress:
        assert driver._wait(SimpleQueue(), client, progress, "me") is None
    with pytest.raises(ConnectionError, match="the scheduler has gone"):
        driver._wait(SimpleQueue(), client, progress, "me")


@pytest.fixture
def call(make_grid, tmp_path, monkeypatch):
    """Call the command in a folder of its own with a cluster in this process, and give its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "connect", lambda scheduler, n: start(n))
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def call(*arguments, axes=None):
        monkeypatch.setattr("sys.argv", ["nib.sweep", *arguments])
        return command.main([str(make_grid(axes or {"rows": [1, 2, 3]}, label="x")), *arguments])

    return call


def test_a_dry_run_is_a_table_and_touches_nothing(call, tmp_path, capsys):
    assert call("--dry-run", axes={"rows": [1, 2], "names": [["a"], ["b"]]}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "state", "names", "rows"]
    assert [line.split()[1:] for line in lines[1:3]] == [["to", "do", '["a"]', "1"], ["to", "do", '["a"]', "2"]]
    assert lines[-1] == "4 runs of tiny.ipynb: 4 to do"
    assert not (tmp_path / "build").exists()


def test_the_command_says_what_came_of_the_runs(call, replace, tmp_path, capsys):
    def attempt(run, folder, **options):
        if run.parameters["rows"] == 2:
            place = Store(folder).failed(run.name)
            place.mkdir(parents=True, exist_ok=True)
            return Outcome(run.name, "failed", 1.0, "ValueError: no such luck", "In [4]: work()", str(place))
        return finish(run, folder)

    replace(attempt)
    assert call("--workers", "2", "--retries", "0") == 1
    out, err = capsys.readouterr()
    folder = tmp_path / "build" / "sweeps" / "grid"
    assert f"3 runs: 2 done, 1 failed. nib.sweep.collect('{folder}')" in out
    assert "failed: rows=2\n  In [4]: work()\n  ValueError: no such luck\n" in err
    (failed,) = (folder / "failed").iterdir()
    assert f"  {failed}/notebook.ipynb" in err
    assert "3/3 [" in err
    assert "2 done, 0 cached, 1 failed, 0 running" in err
    assert not any((folder / "partial").iterdir())
    replace(finish)
    assert call() == 0
    assert "3 runs: 2 cached, 1 done." in capsys.readouterr().out


def test_nothing_is_started_where_all_is_done(call, replace, monkeypatch, capsys):
    replace(finish)
    assert call() == 0
    monkeypatch.setattr(command, "connect", None)
    assert call() == 0
    assert "3 runs: 3 cached." in capsys.readouterr().out
    assert call("--dry-run") == 0
    assert "3 runs of tiny.ipynb: 3 done" in capsys.readouterr().out


def test_a_wrong_grid_and_a_folder_that_cannot_be_made_end_it_before_it_begins(call, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "connect", None)
    assert call(axes={"rows": ["x"]}) == 2
    assert "declares rows = 4 (int), got 'x' (str)" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert call("--output", "file/sweeps") == 2
    assert "the folder for the results cannot be made: [Errno 20] Not a directory" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(call, replace, monkeypatch, tmp_path, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "sweep", interrupt)
    assert call("--retries", "3") == 130
    err = capsys.readouterr().err
    assert "stopped: 0 of 3 runs are done and stay so. To go on:\n  python -m nib.sweep --retries 3" in err
    assert not any((tmp_path / "build" / "sweeps" / "grid" / "partial").iterdir())


def test_a_scheduler_that_is_not_there_is_named(call, monkeypatch, capsys):
    monkeypatch.setattr(command, "connect", driver.connect)
    with dask.config.set({"distributed.comm.timeouts.connect": "500ms"}):
        assert call("--scheduler", "tcp://127.0.0.1:9") == 1
    assert "tcp://127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["--workers 0", "--retries -1", "--timeout 0", "--workers 1 --scheduler x"])
def test_wrong_arguments_are_refused(call, wrong, capsys):
    with pytest.raises(SystemExit, match="2"):
        call(*wrong.split())
    assert "error: " in capsys.readouterr().err
