"""The results of a sweep become one table, in which nothing is mixed or counted twice in silence."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import nib.sweep
from nib.sweep import collect
from nib.sweep.grid import read_grid
from nib.sweep.store import Store


@pytest.fixture
def publish(tmp_path):
    """Put tables into the folder of a grid, as runs do, in an order other than the grid's."""

    def publish(runs, make_table, folder="results"):
        store = Store(tmp_path / folder)
        store.attempts("me").mkdir(parents=True, exist_ok=True)
        store.plan([run.name for run in runs])
        for run in reversed(runs):
            place = store.begin(run, "me")
            table = make_table(**run.settings)
            if table is not None:
                table.to_parquet(place / "result.parquet")
                assert store.publish(place, run.name)
        return store.folder

    return publish


def tabulate(rows, factor, shard=(0, 1), **_):
    ids = list(range(shard[0], rows, shard[1]))
    return pd.DataFrame({"id": ids, "value": [factor * (i + 0.1) for i in ids]})


def test_a_sweep_is_one_tidy_table_in_the_order_of_the_grid(make_grid, publish):
    runs = read_grid(make_grid({"factor": [2, 1], "names": [["a"], ["a", "b"]]}, rows=3)).runs
    frame = collect(publish(runs, tabulate))
    assert list(frame.columns) == ["run", "rows", "factor", "names", "id", "value"]
    assert frame["run"].drop_duplicates().tolist() == [run.name for run in runs]
    assert frame["factor"].tolist() == [2.0] * 6 + [1.0] * 6
    assert frame["names"].unique().tolist() == ['["a"]', '["a", "b"]']
    assert (frame["value"] == frame["factor"] * (frame["id"] + 0.1)).all()
    assert frame.attrs["missing"] == frame.attrs["duplicates"] == []
    assert nib.sweep.collect is collect


def test_half_a_sweep_gives_half_the_rows_and_names_what_is_missing(make_grid, publish):
    runs = read_grid(make_grid({"factor": [1, 2, 3]})).runs
    folder = publish(runs, lambda factor, **settings: None if factor == 2 else tabulate(factor=factor, **settings))
    Store(folder).keep_failed(Store(folder).begin(runs[1], "me"), runs[1].name)
    frame = collect(folder)
    assert frame["factor"].unique().tolist() == [1.0, 3.0]
    assert frame.attrs["missing"] == [runs[1].name]


def test_the_union_of_shards_is_the_whole(make_grid, publish):
    whole = collect(publish(read_grid(make_grid(rows=10)).runs, tabulate))
    parts = collect(publish(read_grid(make_grid({"shard": {"of": 3}}, rows=10)).runs, tabulate, "shards"))
    assert parts["shard"].unique().tolist() == ["[0, 3]", "[1, 3]", "[2, 3]"]
    found = parts.sort_values("id", ignore_index=True)
    assert_frame_equal(found[["rows", "id", "value"]], whole[["rows", "id", "value"]], check_exact=True)


def test_a_parameter_by_the_name_of_a_column_has_another(make_grid, publish):
    runs = read_grid(make_grid({"factor": [1, 2]}, anything=None)).runs
    table = pd.DataFrame({"factor": [10, 20], "run": ["x", "y"]})
    frame = collect(publish(runs, lambda **_: table))
    assert list(frame.columns) == ["parameter_run", "anything", "parameter_factor", "factor", "run"]
    assert frame["parameter_factor"].tolist() == [1, 1, 2, 2]
    assert frame["factor"].tolist() == [10, 20, 10, 20]
    assert frame["anything"].isna().all()


def test_a_parameter_that_an_earlier_grid_did_not_give_has_its_default(make_grid, publish):
    publish(read_grid(make_grid({"factor": [1]})).runs, tabulate)
    frame = collect(publish(read_grid(make_grid({"label": ["x"]}, factor=3)).runs, tabulate))
    assert frame.groupby("factor")["label"].unique().map(list).to_dict() == {1.0: [""], 3.0: ["x"]}


def test_results_of_two_versions_are_named_and_not_mixed(make_grid, publish):
    runs = read_grid(make_grid({"factor": [1, 2]})).runs
    older = [replace(run, name=f"old{run.name}", edition=run.edition | {"nib": "0.0.1+abc"}) for run in runs[:1]]
    publish(older, tabulate)
    folder = publish(runs, tabulate)
    with pytest.raises(ValueError, match="edition must be one of them, got None") as caught:
        collect(folder)
    old = f"tiny.ipynb {runs[0].edition['notebook']}, nib 0.0.1+abc, data {runs[0].edition['data']}"
    assert f"1 runs of edition={old!r}" in str(caught.value)
    assert "2 runs of edition=" in str(caught.value)
    frame = collect(folder, edition=old)
    assert frame["factor"].unique().tolist() == [1.0]
    assert frame.attrs["edition"] == old
    with pytest.raises(ValueError, match="got 'none'"):
        collect(folder, edition="none")


@pytest.mark.parametrize("n", [1, 2])
def test_shards_of_two_divisions_are_refused_where_they_overlap(make_grid, publish, n):
    publish(read_grid(make_grid({"shard": {"of": n}})).runs, tabulate)
    thirds = read_grid(make_grid({"shard": {"of": 3}})).runs
    with pytest.raises(ValueError, match=rf"shard \[0, 3\] and run .* of shard \[\d, {n}\] have batches in common"):
        collect(publish(thirds[:1], tabulate))


def test_shards_that_do_not_overlap_may_be_of_two_divisions(make_grid, publish):
    publish(read_grid(make_grid({"shard": {"of": 2}})).runs[:1], tabulate)
    quarters = read_grid(make_grid({"shard": {"of": 4}})).runs
    frame = collect(publish([quarters[1], quarters[3]], tabulate))
    assert sorted(frame["id"]) == [0, 1, 2, 3]


@pytest.mark.parametrize("extra", [{}, {"list": [[1], [2], [3], [4]]}])
def test_rows_that_two_shards_share_are_named(make_grid, publish, extra):
    runs = read_grid(make_grid({"shard": {"of": 2}, "factor": [1, 2]})).runs
    folder = publish(runs, lambda shard, **settings: tabulate(**settings).assign(**extra))
    with pytest.warns(UserWarning, match="rows of these runs are the same"):
        frame = collect(folder)
    assert sorted(frame.attrs["duplicates"]) == sorted(run.name for run in runs)


def test_a_row_twice_in_one_run_is_its_own_affair(make_grid, publish):
    runs = read_grid(make_grid({"factor": [1, 2]})).runs
    frame = collect(publish(runs, lambda **_: pd.DataFrame({"value": [1, 1]})))
    assert frame.attrs["duplicates"] == []


def test_an_empty_folder_is_named(tmp_path, make_grid, publish):
    with pytest.raises(FileNotFoundError, match=r"no folder of a sweep at .*none"):
        collect(tmp_path / "none")
    folder = publish(read_grid(make_grid()).runs, lambda **_: None)
    with pytest.raises(FileNotFoundError, match=r"no run in .* is finished"):
        collect(str(folder))
    assert len(json.loads((folder / "runs.json").read_text())) == 1
