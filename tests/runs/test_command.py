"""`python -m runs` says what came of the runs and what to do next, and delivers; the runs are stand-ins."""

import json
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import dask
import nbformat
import pytest
from distributed import Client
from test_work import finish

from runs import __main__ as command
from runs import work
from runs.store import ROOT, hash_cells
from runs.work import Failed


@pytest.fixture
def call(make_grid, tmp_path, monkeypatch):
    """Call the command with a grid, in a folder of its own, with a cluster in this process; give its exit code."""
    monkeypatch.chdir(tmp_path)
    options = dict(processes=False, dashboard_address="127.0.0.1:0", threads_per_worker=1, set_as_default=False)
    monkeypatch.setattr(command, "connect", lambda scheduler, n: Client(n_workers=n, silence_logs=50, **options))
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def call(*arguments, axes=None):
        grid = str(make_grid(axes or {"rows": [1, 2, 3]}, label="x"))
        monkeypatch.setattr("sys.argv", ["runs", "--grid", grid, *arguments])
        return command.main(sys.argv[1:])

    return call


def fail_two(run, folder, **options):
    if run.parameters["rows"] == 2:
        raise Failed("ValueError: no such luck\n/failed/notebook.ipynb")
    return finish(run, folder)


def test_a_dry_run_is_a_list_and_touches_nothing(call, tmp_path, capsys):
    assert call("--dry-run", axes={"rows": [1, 2], "names": [["a"], ["b"]]}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in lines[:-1]] == ["to do"] * 4
    assert '"names": ["a"], "rows": 2' in lines[1] or '"rows": 1, "names": ["b"]' in lines[1]
    assert lines[-1] == "4 runs: 4 to do"
    assert not (tmp_path / "build").exists()


def test_the_command_says_what_came_of_the_runs(call, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(work, "attempt", fail_two)
    assert call("--workers", "2", "--retries", "0") == 1
    out, err = capsys.readouterr()
    (line,) = [line for line in out.splitlines() if '"rows": 2' in line]
    assert line.endswith("  ValueError: no such luck")
    assert "\n    /failed/notebook.ipynb\n3 runs: " in out
    assert {"2 done", "1 failed"} == set(out.splitlines()[-1].split(": ")[1].split(", "))
    assert "3/3 [" in err
    folder = tmp_path / "build" / "sweeps" / "grid"
    assert not any((folder / "partial").iterdir())
    assert len(json.loads((folder / "runs.json").read_text())) == 3
    monkeypatch.setattr(work, "attempt", finish)
    assert call() == 0
    assert set(capsys.readouterr().out.split(": ")[1].strip().split(", ")) == {"2 cached", "1 done"}


def test_each_driver_of_a_grid_has_an_order_of_its_own(call, monkeypatch):
    orders = []

    def note(client, runs, *_, **__):
        orders.append([run.parameters["rows"] for run in runs])
        return dict.fromkeys((run.name for run in runs), "done")

    monkeypatch.setattr(command, "sweep", note)
    for _ in range(2):
        call(axes={"rows": list(range(12))})
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert orders[0] != orders[1]


def test_nothing_is_started_where_all_is_done(call, monkeypatch, capsys):
    monkeypatch.setattr(work, "attempt", finish)
    assert call() == 0
    monkeypatch.setattr(command, "connect", None)
    assert call() == 0
    assert "3 runs: 3 cached" in capsys.readouterr().out
    assert call("--dry-run") == 0
    assert "3 runs: 3 done" in capsys.readouterr().out


def test_a_single_run_says_where_it_is(call, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(work, "attempt", fail_two)
    assert call("--retries", "0", axes={"rows": [2]}) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 runs: 1 failed"
    for state in ("done", "cached"):
        assert call(axes={"rows": [1]}) == 0
        (folder,) = (path.parent for path in tmp_path.glob("build/sweeps/grid/tiny-*/result.parquet"))
        assert capsys.readouterr().out == f"1 runs: 1 {state} in {folder}\n"


def test_a_wrong_grid_and_a_folder_that_cannot_be_made_end_it_before_it_begins(call, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "connect", None)
    assert call(axes={"rows": ["x"]}) == 2
    assert "nothing was begun: " in (err := capsys.readouterr().err)
    assert "must be int, as rows = 4 in tiny.ipynb, got 'x' (str)" in err
    (tmp_path / "file").touch()
    assert call("--output", "file/build") == 2
    assert "nothing was begun: [Errno 20] Not a directory" in capsys.readouterr().err


def draw(run, folder, **options):
    outcome = finish(run, folder)
    (Path(folder) / run.name / "figures" / "figure.txt").write_text(run.name)
    return outcome


def test_figures_of_one_name_are_kept_apart(call, notebook, monkeypatch, tmp_path):
    monkeypatch.setattr(work, "attempt", draw)
    assert call("--figures", "swept") == 0
    assert all(path.parent.name == path.read_text() for path in tmp_path.glob("swept/*/figure.txt"))
    assert len(list(tmp_path.glob("swept/*/figure.txt"))) == 3
    (tmp_path / "embedded.yaml").write_text("common: {flag: false}")
    monkeypatch.setattr("runs.plan.PROFILES", tmp_path)
    copy = shutil.copy(notebook, notebook.with_name("copy.ipynb"))
    assert command.main([str(notebook), str(copy), "--figures", "drawn"]) == 0
    assert (tmp_path / "drawn" / "figure.txt").read_text().startswith("tiny-")
    assert [path.read_text()[:5] for path in tmp_path.glob("drawn/copy-*/figure.txt")] == ["copy-"]


def test_figures_that_cannot_be_copied_begin_nothing(call, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(work, "attempt", draw)
    assert call(axes={"rows": [1]}) == 0
    monkeypatch.setattr(command, "connect", None)
    (tmp_path / "file").touch()
    assert call("--figures", "file") == 2
    assert "nothing was begun: 'file' must be a folder, and a file" in capsys.readouterr().err
    (figures,) = tmp_path.glob("build/sweeps/grid/*/figures")
    shutil.rmtree(figures)
    assert call("--figures", "figures") == 2
    assert f"must have its folder of figures, {figures.parent} has none" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(call, monkeypatch, tmp_path, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "sweep", interrupt)
    assert call("--retries", "3") == 130
    err = capsys.readouterr().err
    assert "0 of 3 runs are done. To go on:\n  python -m runs --grid" in err
    assert "--retries 3" in err
    assert not any((tmp_path / "build" / "sweeps" / "grid" / "partial").iterdir())


def test_a_scheduler_that_is_not_there_is_named(call, monkeypatch, capsys):
    monkeypatch.setattr(command, "connect", work.connect)
    with dask.config.set({"distributed.comm.timeouts.connect": "500ms"}):
        assert call("--scheduler", "tcp://127.0.0.1:9") == 1
    assert "tcp://127.0.0.1:9" in capsys.readouterr().err


def test_wrong_arguments_are_refused(call, capsys, subtests):
    cases = [
        *("--workers 0", "--retries -1", "--timeout 0", "--timeout nan", "--workers 1 --scheduler x"),
        *("--scheduler localhost", "--scheduler tcp://127.0.0.1:notaport", "--scheduler :8786"),
        *("--in-place --grid x", "notebooks/x.ipynb", "--profile paper", "-p rows 3", "-p rows"),
    ]
    for wrong in cases:
        with subtests.test(wrong):
            with pytest.raises(SystemExit, match="2"):
                call(*wrong.split())
            assert "error: " in capsys.readouterr().err


def started(call, patch, given, gpus, cores, memory):
    """Start five runs on a machine, and return with how many workers and which GPUs."""
    seen = {}

    @contextmanager
    def connect(scheduler, workers):
        yield seen.update(workers=workers)

    def sweep(client, runs, *rest, gpus, **options):
        seen.update(gpus=gpus)
        return {run.name: "done" for run in runs}

    patch.setattr(command, "connect", connect)
    patch.setattr(command, "sweep", sweep)
    patch.setattr(command, "list_gpus", lambda: gpus)
    patch.setattr(command, "CPU_COUNT", cores)
    patch.setattr(command, "MEMORY_LIMIT", memory)
    call(*given, axes={"rows": [1, 2, 3, 4, 5]})
    return seen


def test_as_many_workers_are_started_as_there_are_gpus_or_cores(call, monkeypatch, subtests):
    cases = [
        ([], ["0", "1"], 64, 2**40, 2),  # one GPU a worker
        ([], [], 2, 2**40, 2),
        ([], [], 64, 8 * 2**30, 4),  # 2 GiB a run
        ([], [], 64, 2**30, 1),
        (["--workers", "3"], ["0"], 64, 2**40, 3),
        (["--workers", "30"], [], 64, 2**40, 5),  # no more than runs
    ]
    for *machine, workers in cases:
        with subtests.test(str(machine)), monkeypatch.context() as patch:
            assert started(call, patch, *machine) == {"workers": workers, "gpus": machine[1]}


def test_a_run_delivers_its_figures_and_its_outputs(notebook, tmp_path, monkeypatch):
    """For real: outputs in place are without times, the cell of given parameters and what goes to stderr."""
    (tmp_path / "embedded.yaml").write_text("common: {flag: false}")
    monkeypatch.setattr("runs.plan.PROFILES", tmp_path)
    document = nbformat.read(notebook, as_version=4)
    document.cells += [nbformat.v4.new_markdown_cell("words"), nbformat.v4.new_code_cell("1 + 1")]
    document.cells += [nbformat.v4.new_code_cell("import sys\nprint('out'), print('err', file=sys.stderr);")]
    nbformat.write(document, notebook)
    output = ["--output", str(tmp_path / "build"), "--workers", "1"]
    assert command.main([str(notebook), *output, "--figures", str(tmp_path / "figures")]) == 0
    assert (tmp_path / "figures" / "figure.txt").read_text() == "drawn"
    assert not any(cell.get("outputs") for cell in nbformat.read(notebook, as_version=4).cells)
    document.cells[4].source = "other words"  # prose may change meanwhile
    nbformat.write(document, notebook)
    monkeypatch.setattr(command, "connect", None)  # the run is there
    assert command.main([str(notebook), *output, "--in-place"]) == 0
    fresh = nbformat.read(notebook, as_version=4)
    assert [cell.source for cell in fresh.cells] == [cell.source for cell in document.cells]
    assert fresh.cells[5].outputs[0].data["text/plain"] == "2"
    assert fresh.cells[5].execution_count == fresh.cells[5].outputs[0].execution_count == 5
    assert [output.name for output in fresh.cells[6].outputs] == ["stdout"]
    assert [cell.metadata for cell in fresh.cells] == [{"tags": ["parameters"]}, *[{}] * 6]
    assert fresh.metadata.code_hash == hash_cells(document)


def test_the_runner_is_small_and_nib_does_not_know_it():
    lines = [len(path.read_text().splitlines()) for path in ROOT.glob("runs/*.py")]
    assert sum(lines) <= 600
    for path in ROOT.glob("nib/**/*.py"):
        assert "import runs" not in path.read_text()
        assert "from runs" not in path.read_text()
