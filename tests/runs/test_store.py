"""The results of a grid become one table; a folder of runs holds what is whole."""

import json
import re
import shutil
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import runs as package
from runs import collect, locate
from runs.plan import read_grid
from runs.store import ROOT, Store


@pytest.fixture
def publish(tmp_path):
    """Put tables into the folder of a grid, as runs do, in an order other than the grid's."""

    def publish(runs, make_table, folder="results"):
        store = Store(tmp_path / "build" / folder)
        store.open("me", runs)
        for run in reversed(runs):
            place = store.begin(run, "me")
            table = make_table(**run.settings)
            if table is not None:
                table.to_parquet(place / "result.parquet")
                assert store.publish(place, run.name) == "done"
        store.close("me")
        return store.folder

    return publish


def tabulate(rows, factor, shard=(0, 1), **_):
    ids = list(range(shard[0], rows, shard[1]))
    return pd.DataFrame({"id": ids, "value": [factor * (i + 0.1) for i in ids]})


def test_a_sweep_is_one_tidy_table_in_the_order_of_the_grid(make_grid, publish):
    runs = read_grid(make_grid({"factor": [2, 1], "names": [["a"], ["a", "b"]]}, rows=3))
    frame = collect(publish(runs, tabulate))
    assert list(frame.columns) == ["run", "rows", "factor", "names", "id", "value"]
    assert frame["run"].drop_duplicates().tolist() == [run.name for run in runs]
    assert frame["factor"].tolist() == [2.0] * 6 + [1.0] * 6
    assert frame["names"].unique().tolist() == ['["a"]', '["a", "b"]']
    assert (frame["value"] == frame["factor"] * (frame["id"] + 0.1)).all()
    assert frame.attrs["missing"] == []
    assert package.collect is collect


def test_half_a_sweep_gives_half_the_rows_and_names_what_is_missing(make_grid, publish):
    runs = read_grid(make_grid({"factor": [1, 2, 3]}))
    folder = publish(runs, lambda factor, **settings: None if factor == 2 else tabulate(factor=factor, **settings))
    (folder / "failed" / f"{runs[1].name}-0").mkdir()
    frame = collect(folder)
    assert frame["factor"].unique().tolist() == [1.0, 3.0]
    assert frame.attrs["missing"] == [runs[1].name]


def test_the_union_of_shards_is_the_whole(make_grid, publish):
    whole = collect(publish(read_grid(make_grid(rows=10)), tabulate))
    parts = collect(publish(read_grid(make_grid({"shard": {"of": 3}}, rows=10)), tabulate, "shards"))
    assert parts["shard"].unique().tolist() == ["[0, 3]", "[1, 3]", "[2, 3]"]
    found = parts.sort_values("id", ignore_index=True)
    assert_frame_equal(found[["rows", "id", "value"]], whole[["rows", "id", "value"]], check_exact=True)


def test_a_parameter_by_the_name_of_a_column_has_another(make_grid, publish):
    runs = read_grid(make_grid({"factor": [1, 2]}, anything=None))
    table = pd.DataFrame({"factor": [10, 20], "run": ["x", "y"]})
    frame = collect(publish(runs, lambda **_: table))
    assert list(frame.columns) == ["parameter_run", "anything", "parameter_factor", "factor", "run"]
    assert frame["parameter_factor"].tolist() == [1, 1, 2, 2]
    assert frame["factor"].tolist() == [10, 20, 10, 20]
    assert frame["anything"].isna().all()


def test_columns_that_cannot_be_told_apart_are_refused(make_grid, publish):
    runs = read_grid(make_grid({"factor": [1, 2]}))
    table = pd.DataFrame({"factor": [10], "parameter_factor": [20]})
    with pytest.raises(ValueError, match=r"columns must differ, got \['run', 'parameter_factor'\]"):
        collect(publish(runs, lambda **_: table))


def test_a_damaged_run_is_named(make_grid, publish):
    runs = read_grid(make_grid())
    folder = publish(runs, tabulate)
    path = folder / runs[0].name / "parameters.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"runs\.json or a run that it names cannot be read: TypeError") as caught:
        collect(folder)
    assert str(path) in str(caught.value)
    path.unlink()
    with pytest.raises(ValueError, match=f"cannot be read: FileNotFoundError.* in {re.escape(str(path))}"):
        collect(folder)


def test_a_run_in_the_place_of_another_is_refused(make_grid, publish):
    first, second = read_grid(make_grid({"factor": [1, 2]}))
    folder = publish([first, second], tabulate)
    shutil.rmtree(folder / second.name)
    shutil.copytree(folder / first.name, folder / second.name)
    with pytest.raises(ValueError, match=f"must be of the run {second.name}, got {first.name}"):
        collect(folder)


def test_an_index_with_a_name_is_a_column(make_grid, publish):
    frame = collect(publish(read_grid(make_grid(rows=2)), lambda **given: tabulate(**given).set_index("id")))
    assert frame.columns.tolist() == ["run", "rows", "id", "value"]
    assert frame["id"].tolist() == [0, 1]


def test_large_whole_numbers_stay_what_they_are(make_grid, publish, subtests):
    """Pandas makes floats of them beside floats, unsigned numbers and what is missing."""
    seeds, ids = [0, 2**63 - 1, 2**63], [2**53 + 1, -(2**60) - 1]
    runs = read_grid(make_grid({"anything": seeds}))
    first = {"id": ids, "time": pd.to_timedelta([2**60, 1])}
    for number, other in enumerate([{"id": [1.5]}, {"id": [2**63 + 1]}, {"value": [1]}, {"id": [None]}]):
        tables = dict(zip(seeds, [first, other, other]))
        make_table = partial(lambda tables, anything, **_: pd.DataFrame(tables[anything]), tables)
        with subtests.test(str(other)):
            frame = collect(publish(runs, make_table, folder=str(number)))
            assert frame["anything"].drop_duplicates().tolist() == seeds
            assert frame["id"].tolist()[:2] == ids
            assert frame["time"].dtype.kind == "m"


def test_a_parameter_that_a_run_of_an_earlier_grid_was_not_given_has_its_default(make_grid, publish):
    publish(read_grid(make_grid({"factor": [1]})), tabulate)
    runs = read_grid(make_grid({"label": ["", "x"]}, factor=1))
    folder = publish(runs[1:], tabulate)
    (folder / "runs.json").write_text(json.dumps([run.name for run in runs]))
    frame = collect(folder)
    assert frame["label"].unique().tolist() == ["", "x"]
    assert set(frame["factor"]) == {1.0}


def test_results_of_other_code_or_of_an_earlier_grid_are_not_mixed_in(make_grid, publish):
    runs = read_grid(make_grid({"factor": [1, 2]}))
    publish([replace(runs[0], name="tiny-old", hashes=runs[0].hashes | {"nib": "old"})], tabulate)
    publish(read_grid(make_grid({"factor": [3]})), tabulate)
    frame = collect(publish(runs, tabulate))
    assert frame["run"].unique().tolist() == [run.name for run in runs]
    assert frame["factor"].unique().tolist() == [1.0, 2.0]


def test_an_empty_folder_is_named(tmp_path, make_grid, publish):
    with pytest.raises(FileNotFoundError, match=r"no run in .*none is finished: no such folder"):
        collect(tmp_path / "none")
    folder = publish(read_grid(make_grid()), lambda **_: None)
    with pytest.raises(FileNotFoundError, match=r"no run in .* is finished"):
        collect(str(folder))
    assert len(json.loads((folder / "runs.json").read_text())) == 1


def test_publishing_is_for_the_first(tmp_path):
    store = Store(tmp_path / "build" / "results")
    store.open("me", [])

    def prepare(name, content):
        place = store.folder / "partial" / "me" / name
        place.mkdir()
        (place / "result.parquet").write_text(f"{content} PAR1")
        return place

    assert store.publish(prepare("a", "first"), "run") == "done"
    assert store.publish(prepare("b", "second"), "run") == "cached"
    assert (store.folder / "run" / "result.parquet").read_text() == "first PAR1"
    (store.folder / "other").write_text("a file in the way")
    with pytest.raises(NotADirectoryError):
        store.publish(prepare("c", "third"), "other")


def test_a_path_is_of_here_or_of_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate("data/published_results.csv") == ROOT / "data" / "published_results.csv"
    assert locate("build/figures") == ROOT / "build" / "figures"
    (tmp_path / "photo.jpg").touch()
    assert locate("photo.jpg").resolve() == tmp_path / "photo.jpg"
    assert locate(tmp_path / "photo.jpg") == tmp_path / "photo.jpg"
