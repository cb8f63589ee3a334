"""Data sets are loaded and evaluated one by one, each method on the pairs that it was given."""

import pandas as pd
import pytest

import nib
from studies.pairs import evaluate_pairs, find_tables, load_pairs, read_sweep

SETTINGS = [{"method": "nib", "layer": 2, "n_steps": 2}, {"method": "gradcam", "layer": 2}, {"method": "true_mask"}]


@pytest.fixture
def values(clip):
    bare = nib.datasets.load("scenes", limit=2).remove_columns("masks")
    pairs = {"masked": nib.datasets.load("objects", limit=3), "bare": bare}
    return evaluate_pairs(clip, pairs, SETTINGS, {"gradcam": 1, "nib": 9})


def test_each_method_has_its_own_number_of_pairs(values):
    counts = values.groupby(["dataset", "method"])["id"].nunique().unstack()
    assert counts.loc["masked"].to_dict() == {"gradcam": 1, "nib": 3, "true_mask": 3}
    assert counts.loc["bare", ["gradcam", "nib"]].to_dict() == {"gradcam": 1, "nib": 2}
    assert pd.isna(counts.loc["bare", "true_mask"])


def test_the_values_are_those_of_evaluate(clip, values):
    data = nib.datasets.load("objects", limit=3)
    alone = nib.evaluate(clip, data, SETTINGS[0])
    found = values.query("dataset == 'masked' and method == 'nib'")
    merged = found.merge(alone, on=["id", "protocol", "metric"])
    assert len(merged) == len(alone) == len(found)
    assert merged["value_x"].equals(merged["value_y"])


def test_what_is_skipped_is_returned(values, clip):
    assert values.attrs["skipped"] == []
    data = nib.datasets.load("objects", limit=1)
    data.skipped = [{"id": "objects-9", "reason": "not a picture"}]
    found = evaluate_pairs(clip, {"one": data, "two": nib.datasets.load("objects", limit=1)}, SETTINGS[1:2])
    assert found.attrs["skipped"] == data.skipped


def test_pairs_are_the_first_ones_with_one_caption(clip):
    pairs = load_pairs(clip, {"scenes": 2, "objects": 3}, {})
    assert {name: len(data) for name, data in pairs.items()} == {"scenes": 2, "objects": 3}
    assert all(text in captions for text, captions in zip(pairs["scenes"]["text"], pairs["scenes"]["captions"]))


def test_paths_are_used(clip):
    with pytest.raises((OSError, ValueError)):
        load_pairs(clip, {"tiny_imagenet": 2}, {"tiny_imagenet": "/no/such/folder"})


def test_a_sweep_is_read_with_what_it_lacks(tmp_path, monkeypatch, capsys):
    table = pd.DataFrame({"value": [1.0]})
    table.attrs["missing"] = ["layer=3"]
    monkeypatch.setattr("studies.pairs.collect", lambda folder: table)
    assert read_sweep(tmp_path) is table
    assert "layer=3" in capsys.readouterr().out


def test_full_tables_are_of_the_embedded_model(tmp_path, subtests):
    cases = [("embedded", True, "kept"), ("embedded", False, "own"), ("paper", True, "own")]
    for number, (profile, kept, found) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        with subtests.test(f"{profile}, {kept}, {found}"):
            if kept:
                (folder / "kept").mkdir()
            assert find_tables(folder / "kept", folder / "own", profile) == folder / found


def test_a_table_that_is_not_kept_yet_is_the_one_written(tmp_path):
    kept, own = tmp_path / "kept", tmp_path / "own"
    kept.mkdir()
    assert find_tables(kept, own, "embedded", "12_words") == own
    (kept / "12_words.csv").write_text("n\n")
    assert find_tables(kept, own, "embedded", "12_words") == kept
