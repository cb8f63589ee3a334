"""One run: what it leaves when it ends well, fails, hangs or is stopped; and many: each is counted once."""

import json
import os
import shutil
import threading
import time
from collections import Counter
from dataclasses import replace as change
from functools import partial
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import psutil
import pytest
from distributed import Client
from tiny import wait_for

from runs import process, work
from runs.plan import read_grid
from runs.store import ROOT, Store
from runs.work import Failed, attempt, sweep


@pytest.fixture
def store(tmp_path):
    """A folder for results with one for the attempts of the driver `me`."""
    store = Store(tmp_path / "build" / "sweeps" / "grid")
    store.open("me", [])
    return store


@pytest.fixture
def make_run(make_grid, marks):
    return lambda **parameters: read_grid(make_grid(where=str(marks), **parameters))[0]


def kernels(marks) -> list[int]:
    return [int(path.read_text()) for path in marks.iterdir()]


def fail(run, store, **options) -> str:
    """Attempt a run that fails, and return the reason."""
    with pytest.raises((Failed, OSError)) as caught:
        attempt(run, str(store.folder), "me", **options)
    return str(caught.value) if caught.type is Failed else f"{caught.type.__name__}: {caught.value}"


def test_a_run_that_ends_well_is_whole_and_is_not_done_again(store, make_run, marks, monkeypatch):
    run = make_run(do="peek", label="x")
    monkeypatch.setenv("PYTHONPATH", "/else/where")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(work, "get_worker", lambda: type("Worker", (), {"name": 3}))
    assert attempt(run, str(store.folder), "me", gpus=["4", "5"]) == "done"
    folder = store.folder / run.name
    names = {"notebook.ipynb", "parameters.json", "log.txt", "figures", "result.parquet"}
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "figures" / "figure.txt").read_text() == "drawn"
    assert json.loads((folder / "parameters.json").read_text())["parameters"] == run.parameters
    seen = pd.read_parquet(folder / "result.parquet").iloc[0]
    assert (seen["OMP_NUM_THREADS"], seen["CUDA_VISIBLE_DEVICES"]) == ("3", "5")
    assert seen["folder"] == str(Path(run.notebook).parent)
    assert seen["PYTHONPATH"] == f"{ROOT}{os.pathsep}/else/where"
    assert seen["parts_dir"] == str(store.folder.parents[1] / "parts")
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    assert 'label = "x"' in executed.cells[1].source
    assert list((store.folder / "partial" / "me").iterdir()) == []
    assert attempt(run, str(store.folder), "me") == "cached"
    assert len(kernels(marks)) == 1


def test_a_notebook_that_raises_is_kept_with_its_cell_and_its_error(store, make_run):
    run = make_run(do="raise once")
    cell, error, kept = fail(run, store).splitlines()
    assert (cell, error) == ('Exception encountered at "In [4]":', "ValueError: no such luck")
    assert "no such luck" in Path(kept).read_text()
    assert Path(kept).is_relative_to(store.failed)
    assert not store.has(run.name)
    assert attempt(run, str(store.folder), "me") == "done"
    assert not list(store.failed.iterdir())


@pytest.mark.slow
def test_a_notebook_that_hangs_is_killed_at_its_time_out_with_its_kernel(store, make_run, marks):
    run = make_run(do="hang")
    started = time.monotonic()
    assert fail(run, store, timeout=30).startswith("took longer than 30 s\n")
    assert time.monotonic() - started < 60
    (kernel,) = kernels(marks)
    wait_for(lambda: not psutil.pid_exists(kernel), 5)


@pytest.mark.slow
def test_a_kernel_that_dies_is_a_failure(store, make_run):
    assert "DeadKernelError" in fail(make_run(do="die"), store)


@pytest.mark.slow
def test_a_notebook_without_a_table_is_a_failure(store, make_run):
    assert fail(make_run(do="nothing"), store).startswith("the notebook has written no parquet table to `output`")


def start(run, store) -> tuple[threading.Thread, list[str]]:
    """Attempt a run in a thread, which adds the reason for which it fails."""
    reasons: list[str] = []
    thread = threading.Thread(target=lambda: reasons.append(fail(run, store)))
    thread.start()
    return thread, reasons


@pytest.mark.slow
def test_a_process_that_is_killed_is_a_failure_and_its_kernel_goes_too(store, make_run, marks):
    thread, reasons = start(make_run(do="hang"), store)
    (kernel,) = wait_for(lambda: kernels(marks), 60)
    psutil.Process(kernel).parent().kill()
    thread.join(20)
    assert reasons[0].startswith("its process was ended by signal 9\n")
    wait_for(lambda: not psutil.pid_exists(kernel), 5)


@pytest.mark.slow
def test_a_run_ends_when_its_driver_takes_its_folder_away(store, make_run, marks):
    store.open("other", [])
    thread, reasons = start(make_run(do="hang"), store)
    (kernel,) = wait_for(lambda: kernels(marks), 60)
    store.close("other")
    thread.join(2)
    assert thread.is_alive()
    store.close("me")
    thread.join(20)
    assert reasons
    wait_for(lambda: not psutil.pid_exists(kernel), 5)
    assert not list(store.failed.iterdir())
    assert not list((store.folder / "partial").iterdir())


def test_a_folder_that_is_not_there_or_not_to_be_written_is_a_failure(tmp_path, store, make_run):
    run = make_run()
    nowhere = Store(tmp_path / "nowhere" / "sweeps" / "grid")
    assert "FileNotFoundError" in fail(run, nowhere)
    assert "partial/me" in fail(run, nowhere)
    assert not (tmp_path / "nowhere").exists()
    shutil.rmtree(store.folder / "partial" / "me")
    (store.folder / "partial" / "me").write_text("a file in its place")
    assert "NotADirectoryError" in fail(run, store)


def test_a_run_whose_table_is_damaged_is_done_again(store, make_run, monkeypatch, subtests):
    for rows, left in enumerate([b"", b"PAR", b"PAR1 cut off"]):
        with subtests.test(str(left)), monkeypatch.context() as patch:
            run = make_run(rows=rows)
            finish(run, store.folder)
            (store.folder / run.name / "result.parquet").write_bytes(left)
            assert not store.has(run.name)
            patch.setattr(work, "_execute", lambda place, *_: (place / "result.parquet").write_bytes(b"PAR1") and "")
            assert attempt(run, str(store.folder), "me") == "done"
            assert store.has(run.name)
            assert not list(store.failed.iterdir())


def test_braces_in_a_path_are_no_parameters(tmp_path, notebook, monkeypatch):
    """Papermill formats paths: `v{rows}` would be the notebook in `v2`."""
    (grid := tmp_path / "v{rows}" / "grid}.yaml").parent.mkdir()
    shutil.copy(notebook, grid.parent)
    grid.write_text("notebook: tiny.ipynb\nparameters: {rows: 2}")
    store = Store(tmp_path / "{do}" / "sweeps" / "{")
    store.open("me", [])
    place = store.begin(read_grid(grid)[0], "me")
    monkeypatch.setattr(papermill, "execute_notebook", partial(papermill.execute_notebook, prepare_only=True))
    process.execute(place, "parts")
    assert "rows = 2" in nbformat.read(place / "notebook.ipynb", as_version=4).cells[1].source


def test_a_run_whose_name_is_no_longer_true_is_refused(store, make_run, marks):
    run = make_run()
    assert "has changed" in fail(change(run, hashes=run.hashes | {"nib": "0"}), store)
    path = Path(run.notebook)
    path.write_text(path.read_text().replace("factor *", "2 *"))
    assert "has changed" in fail(run, store)
    assert kernels(marks) == []


def test_a_result_of_code_that_changes_meanwhile_is_not_published(store, make_run, monkeypatch):
    run, execute = make_run(), work._execute

    def edit(*arguments):
        path = Path(run.notebook)
        path.write_text(path.read_text().replace("factor *", "2 *"))
        return execute(*arguments)

    monkeypatch.setattr(work, "_execute", edit)
    assert "has changed" in fail(run, store)
    assert not store.has(run.name)


@pytest.fixture
def runs(make_grid):
    return read_grid(make_grid({"rows": list(range(1, 13))}))


STAND_IN: dict = {}


def stand_in(run, **options):
    """Call the stand-in; Dask would send a copy of a function that is not of a module."""
    return STAND_IN["attempt"](run, **options)


@pytest.fixture
def replace(monkeypatch):
    """Put a stand-in into the place of `attempt`."""
    monkeypatch.setattr(work, "attempt", stand_in)
    return lambda attempt: monkeypatch.setitem(STAND_IN, "attempt", attempt)


@pytest.fixture
def cluster():
    """Start a cluster in this process."""
    options = dict(
        processes=False, dashboard_address="127.0.0.1:0", silence_logs=50, threads_per_worker=1, set_as_default=False
    )
    with Client(n_workers=2, **options) as client:
        yield client


def finish(run, folder, **_) -> str:
    (Path(folder) / run.name / "figures").mkdir(parents=True)
    (Path(folder) / run.name / "result.parquet").write_bytes(b"PAR1")
    return "done"


def test_each_run_is_attempted_once_and_a_finished_one_never(runs, store, replace, cluster):
    calls = []
    replace(lambda run, **options: calls.append(run.name) or finish(run, **options))
    for run in runs[:3]:
        finish(run, store.folder)
    outcomes = sweep(cluster, runs, store, "me")
    assert list(outcomes.items()) == [(run.name, "cached" if run in runs[:3] else "done") for run in runs]
    assert Counter(calls) == Counter(run.name for run in runs[3:])


def test_runs_begin_in_the_order_given(runs, store, cluster, monkeypatch):
    orders = []
    monkeypatch.setattr(cluster, "map", lambda function, runs, **_: orders.append([run.name for run in runs]) or [])
    sweep(cluster, runs[::-1], store, "me")
    assert orders == [[run.name for run in runs[::-1]]]


def test_a_failed_run_is_tried_again_so_many_times(runs, store, replace, cluster, subtests):
    first = {run.name for run in runs[::4]}
    calls = Counter()

    def attempt(run, **options):
        calls[run.name] += 1
        if run.name in first and calls[run.name] < 3:
            raise Failed(f"failure {calls[run.name]}")
        return finish(run, **options)

    replace(attempt)
    for retries, (outcome, tries) in enumerate([("failure 1", 1), ("failure 2", 2), ("done", 3)]):
        with subtests.test(f"{retries} retries"):
            calls.clear()
            own = runs[4 * retries : 4 * retries + 4]
            outcomes = sweep(cluster, own, store, "me", retries=retries)
            assert outcomes == dict.fromkeys((run.name for run in own), "done") | {own[0].name: outcome}
            assert calls == Counter({own[0].name: tries}) + Counter(run.name for run in own[1:])


def test_what_a_worker_cannot_do_at_all_is_a_failed_run(runs, store, replace, cluster):
    def attempt(run, **options):
        raise ModuleNotFoundError("No module named 'nib'")

    replace(attempt)
    outcomes = sweep(cluster, runs[:1], store, "me")
    assert outcomes == {runs[0].name: "ModuleNotFoundError: No module named 'nib'"}


def test_each_worker_has_its_gpu(runs, store, cluster, monkeypatch):
    """The environment of the process shows one of them, another one to each of two workers."""
    seen, both = Counter(), threading.Barrier(2, timeout=30)

    class Process:
        stdin = None

        def __init__(self, command, env, **_):
            seen[env["CUDA_VISIBLE_DEVICES"]] += 1
            both.wait()

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda *_: None  # noqa: E731
        wait = lambda self: 1  # noqa: E731

    monkeypatch.setattr(work.subprocess, "Popen", Process)
    sweep(cluster, runs, store, "me", retries=0, gpus=["3", "7"])
    assert seen == {"3": 6, "7": 6}


def test_gpus_are_named_as_cuda_does(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert work.list_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-6")
    assert work.list_gpus() == ["4", "GPU-6"]
