"""One run: what it leaves when it ends well, fails, hangs or is stopped."""

import json
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
from tiny import wait_for

import nib
from nib.sweep import process
from nib.sweep.attempt import attempt, stop
from nib.sweep.grid import read_grid
from nib.sweep.store import Store

ROOT = Path(nib.__file__).parents[1]


@pytest.fixture
def store(tmp_path):
    """A folder for results with one for the attempts of the driver `me`."""
    store = Store(tmp_path / "results")
    store.attempts("me").mkdir(parents=True)
    return store


@pytest.fixture
def make_run(make_grid, marks):
    return lambda **parameters: read_grid(make_grid(where=str(marks), **parameters)).runs[0]


def kernels(marks) -> list[int]:
    return [int(path.read_text()) for path in marks.iterdir()]


def test_a_run_that_ends_well_is_whole_and_is_not_done_again(store, make_run, marks, monkeypatch):
    run = make_run(do="peek", label="x")
    monkeypatch.setenv("PYTHONPATH", "/else/where")
    Path(run.notebook).with_name("matplotlibrc").touch()
    outcome = attempt(run, str(store.folder), "me", threads=3, gpu="5")
    assert (outcome.name, outcome.state, outcome.error) == (run.name, "done", "")
    folder = store.folder / run.name
    names = {"notebook.ipynb", "parameters.json", "log.txt", "figures", "result.parquet"}
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "figures" / "figure.txt").read_text() == "drawn"
    assert json.loads((folder / "parameters.json").read_text())["parameters"] == run.parameters
    seen = pd.read_parquet(folder / "result.parquet").iloc[0]
    assert (seen["OMP_NUM_THREADS"], seen["CUDA_VISIBLE_DEVICES"]) == ("3", "5")
    assert seen["MATPLOTLIBRC"] == seen["folder"] == str(Path(run.notebook).parent)
    assert seen["PYTHONPATH"] == f"{ROOT}{os.pathsep}/else/where"
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    assert 'label = "x"' in executed.cells[1].source
    assert list(store.attempts("me").iterdir()) == []
    assert attempt(run, str(store.folder), "me").state == "cached"
    assert len(kernels(marks)) == 1


def test_a_notebook_that_raises_is_kept_with_its_cell_and_its_error(store, make_run):
    run = make_run(do="raise once")
    outcome = attempt(run, str(store.folder), "me")
    assert outcome.state == "failed"
    assert outcome.error == "ValueError: no such luck"
    assert outcome.cell == "In [4]: if where:"
    assert Path(outcome.folder) == store.failed(run.name)
    assert "no such luck" in (store.failed(run.name) / "notebook.ipynb").read_text()
    assert not store.has(run.name)
    assert attempt(run, str(store.folder), "me").state == "done"
    assert not store.failed(run.name).exists()


@pytest.mark.slow
def test_a_notebook_that_hangs_is_killed_at_its_time_out_with_its_kernel(store, make_run, marks):
    run = make_run(do="hang")
    started = time.monotonic()
    outcome = attempt(run, str(store.folder), "me", timeout=30)
    assert time.monotonic() - started < 60
    assert (outcome.state, outcome.error) == ("failed", "took longer than the time-out of 30 s")
    assert outcome.cell == "In [4]: if where:"
    (kernel,) = kernels(marks)
    wait_for(lambda: not psutil.pid_exists(kernel), 5)


@pytest.mark.slow
def test_a_kernel_that_dies_is_a_failure(store, make_run):
    outcome = attempt(make_run(do="die"), str(store.folder), "me")
    assert (outcome.state, outcome.cell) == ("failed", "In [4]: if where:")
    assert "DeadKernelError" in outcome.error


@pytest.mark.slow
def test_a_notebook_without_a_table_is_a_failure(store, make_run):
    outcome = attempt(make_run(do="nothing"), str(store.folder), "me")
    assert (outcome.state, outcome.error) == ("failed", "the notebook has written no table to `output`")


@pytest.mark.slow
def test_a_process_that_is_killed_is_a_failure_and_its_kernel_goes_too(store, make_run, marks):
    run = make_run(do="hang")
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(attempt(run, str(store.folder), "me")))
    thread.start()
    wait_for(lambda: kernels(marks), 60)
    (kernel,) = kernels(marks)
    psutil.Process(kernel).parent().kill()
    thread.join(20)
    assert outcomes[0].state == "failed"
    assert outcomes[0].error == "its process was ended by signal 9"
    wait_for(lambda: not psutil.pid_exists(kernel), 5)


@pytest.mark.slow
def test_stop_ends_the_runs_of_one_driver(store, make_run, marks):
    run, store_of_other = make_run(do="hang"), Store(store.folder)
    store_of_other.attempts("other").mkdir()
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(attempt(run, str(store.folder), "other")))
    thread.start()
    wait_for(lambda: kernels(marks), 60)
    stop("somebody")
    assert thread.is_alive()
    stop("other")
    thread.join(20)
    assert outcomes[0].state == "stopped"
    assert attempt(run, str(store.folder), "other").state == "stopped"
    assert not store.failed(run.name).exists()


def test_a_folder_that_is_not_there_or_not_to_be_written_is_a_failure(tmp_path, store, make_run):
    run = make_run()
    outcome = attempt(run, str(tmp_path / "nowhere"), "me")
    assert outcome.state == "failed"
    assert "must share a file system" in outcome.error
    assert not (tmp_path / "nowhere").exists()
    shutil.rmtree(store.attempts("me"))
    store.attempts("me").write_text("a file in its place")
    assert attempt(run, str(store.folder), "me").state == "failed"


def test_a_run_whose_name_is_no_longer_true_is_refused(store, make_run, marks):
    run = make_run()
    outcome = attempt(replace(run, edition=run.edition | {"nib": "0"}), str(store.folder), "me")
    assert outcome.state == "failed"
    assert f"nib is {run.edition['nib']}, not 0" in outcome.error
    path = Path(run.notebook)
    path.write_text(path.read_text().replace("factor *", "2 *"))
    assert "notebook is" in attempt(run, str(store.folder), "me").error
    assert kernels(marks) == []


@pytest.fixture
def folder(tmp_path, make_run):
    (tmp_path / "parameters.json").write_text(json.dumps({"notebook": make_run().notebook, "parameters": {}}))
    return tmp_path


def test_a_kernel_that_does_not_start_is_started_again(folder, monkeypatch, capsys):
    starts = []

    def execute(*args, **kwargs):
        starts.append(args)
        if len(starts) < process.STARTS:
            raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr("papermill.execute_notebook", execute)
    process.execute(folder)
    assert len(starts) == process.STARTS
    assert "the kernel did not start (Kernel died before replying" in capsys.readouterr().err


@pytest.mark.parametrize(("begun", "starts"), [(True, 1), (False, process.STARTS)])
def test_starting_again_is_bounded_and_not_for_a_notebook_that_has_begun(folder, monkeypatch, begun, starts):
    calls = []

    def execute(notebook, executed, *args, **kwargs):
        calls.append(notebook)
        document = nbformat.read(notebook, as_version=4)
        document.cells[0].metadata["papermill"] = {"start_time": "now" if begun else None}
        nbformat.write(document, executed)
        raise RuntimeError("Kernel died")

    monkeypatch.setattr("papermill.execute_notebook", execute)
    with pytest.raises(RuntimeError, match="Kernel died"):
        process.execute(folder)
    assert len(calls) == starts


def test_publishing_is_for_the_first_and_repairs_a_folder_without_a_result(store):
    def prepare(name, content):
        place = store.attempts("me") / name
        place.mkdir()
        (place / "result.parquet").write_text(content)
        return place

    (store.folder / "run").mkdir()
    (store.folder / "run" / "log.txt").touch()
    assert store.publish(prepare("a", "first"), "run")
    assert not store.publish(prepare("b", "second"), "run")
    assert (store.folder / "run" / "result.parquet").read_text() == "first"
    (store.folder / "other").write_text("a file in the way")
    with pytest.raises(NotADirectoryError):
        store.publish(prepare("c", "third"), "other")
