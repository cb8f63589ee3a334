"""Files and tables that gave another table without a word: each is read right or refused, by name."""

import csv
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from matplotlib.figure import Figure
from PIL import Image

import nib
from nib.datasets import with_article
from nib.plotting import draw_map

PICTURE = Image.new("RGB", (60, 60), "red")
MAP = np.arange(4.0).reshape(2, 2)


@pytest.fixture
def folder(tmp_path):
    """A folder with two splits, whose ids and captions look like numbers and like nothing."""
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        PICTURE.save(tmp_path / split / "0.png")
        (tmp_path / split / "metadata.csv").write_text("file_name,text,id\n0.png,null,001\n")
    return tmp_path


def write(path, text):
    path.write_text(text)
    return path


# ---- data sets


def test_a_split_is_named_where_there_are_several(folder):
    for split in ("train", "test"):
        found = nib.datasets.load(folder, split=split)
        assert (found["id"], found["text"]) == (["001"], ["null"])
    with pytest.raises(ValueError, match=r"split of .* must be one of .*'test', 'train'.*, got None"):
        nib.datasets.load(folder)
    with pytest.raises(TypeError, match="split must be text, got int: 5"):
        nib.datasets.load(folder, split=5)


def test_one_table_describes_a_folder(folder):
    (folder / "train" / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a cat"}\n')
    with pytest.raises(ValueError, match=r"must have one metadata file, got metadata\.csv, metadata\.jsonl"):
        nib.datasets.load(folder / "train")


def test_captions_are_lists(clip, subtests):
    for captions in [["cat", "dog"], [{"a": "cat"}, {"a": "dog"}]]:
        with subtests.test(repr(captions)):
            data = Dataset.from_dict(
                {"id": ["0", "1"], "image": [PICTURE] * 2, "text": ["x", "x"], "captions": captions}
            )
            with pytest.raises(ValueError, match="column 'captions' must hold a list of captions a row, got"):
                nib.datasets.best_captions(clip, data)


def test_captions_are_chosen_where_all_columns_are(clip, subtests):
    for column in ["captions", "image", "text"]:
        with subtests.test(repr(column)):
            data = nib.datasets.load("scenes", limit=2)
            with pytest.raises(ValueError, match=f"the data set must have a column '{column}' to choose from"):
                nib.datasets.best_captions(clip, data.remove_columns(column))


def test_captions_are_chosen_whatever_the_format(clip):
    data = nib.datasets.load("scenes", limit=2)
    expected = nib.datasets.best_captions(clip, data)["text"]
    assert nib.datasets.best_captions(clip, data.with_format("numpy"))["text"] == expected


IDS = {
    "spaces": ("id, text\nscenes_0000, my words\n", "must differ and have no spaces around"),
    "twins": ("id,text,text\nscenes_0000,a,b\n", "must differ and have no spaces around"),
    "an open quote": ('id,text\nscenes_0000,"a\nscenes_0001,b\n', "must be a CSV file in UTF-8: .* at line"),
}


def test_files_of_ids(tmp_path_factory, subtests):
    for case, (text, message) in IDS.items():
        with subtests.test(case):
            tmp_path = tmp_path_factory.mktemp("row")
            with pytest.raises(ValueError, match=message):
                nib.datasets.load("scenes", ids=write(tmp_path / "ids.csv", text))


def test_ids_are_text_or_numbers(subtests):
    for key in [float("nan"), b"a", ["a"], {"a": 1}]:
        with subtests.test(repr(key)):
            with pytest.raises(ValueError, match="ids must be text or whole numbers, got"):
                nib.datasets.load("scenes", ids=["scenes_0000", key])


def test_many_ids_are_compared_at_once():
    with pytest.raises(ValueError, match="twice"):
        nib.datasets.load("scenes", ids=[str(number) for number in range(200_000)] + ["0"])


def test_a_field_that_is_too_long_has_its_line(folder):
    path = write(folder / "train" / "m.csv", f"file_name,text\n0.png,{'a' * (csv.field_size_limit() + 1)}\n")
    with pytest.raises(ValueError, match="line 2: field larger than field limit"):
        nib.datasets.load(path)


def test_object_prompts_are_asked_for_by_flags_and_names(subtests):
    for given in [{"repeated": "no"}, {"with_others": "no"}, {"name": "../scenes/scenes"}, {"name": 5}]:
        with subtests.test(repr(given)), pytest.raises(ValueError, match=r"must be (True or False|one of)"):
            nib.datasets.object_prompts(2, **given)


def test_articles_go_by_the_first_letter():
    assert [with_article(noun) for noun in ("Apple", "apple", "cat")] == ["an Apple", "an apple", "a cat"]


# ---- results


def test_a_heat_map_is_of_finite_scores(clip):
    result = nib.attribute(clip, PICTURE, "a cat", "random")
    scores = result.image_scores.copy()
    scores[0, 0] = np.nan
    with pytest.raises(ValueError, match="scores of a heat map must be finite"):
        replace(result, image_scores=scores).heatmap()


BROKEN = {
    "alpha": np.zeros((9, 9, 4), np.uint8),
    "floats": np.zeros((9, 9, 3)),
    "16 bits": np.zeros((9, 9, 3), np.uint16),
}


def test_pictures_are_drawn_from_bytes(subtests):
    for case in BROKEN:
        with subtests.test(case), pytest.raises(ValueError, match=r"a picture \(height, width, 3\) in uint8"):
            draw_map(Figure().subplots(), BROKEN[case], MAP)


def test_a_limit_is_a_number_that_can_be_drawn(subtests):
    for given in [{"limit": False}, {"limit": ""}, {"limit": 1e-320}]:
        with subtests.test(repr(given)), pytest.raises((ValueError, TypeError), match="limit"):
            draw_map(Figure().subplots(), np.zeros((9, 9, 3), np.uint8), MAP, **given)


def test_an_index_with_a_name_is_a_column(tmp_path):
    table = pd.DataFrame({"b": ["x", "y"], "value": [1.0, 2.0]}).groupby("b").mean()
    nib.save_figure(Figure(), table, tmp_path / "v")
    nib.save_table(table, tmp_path / "t.csv")
    assert list(pd.read_csv(tmp_path / "v.csv")) == list(pd.read_csv(tmp_path / "t.csv")) == ["b", "value"]


def test_nothing_is_written_beside_a_folder(tmp_path):
    (tmp_path / "v.csv").mkdir()
    with pytest.raises(ValueError, match="path must name a file, got the folder"):
        nib.save_figure(Figure(), pd.DataFrame({"a": [1]}), tmp_path / "v")
    assert [path.name for path in tmp_path.iterdir()] == ["v.csv"]


def test_a_return_in_a_name_is_quoted(tmp_path):
    nib.save_table(pd.DataFrame({"a\rb": [1], "c": ["x"]}), tmp_path / "t.csv")
    assert pd.read_csv(tmp_path / "t.csv").shape == (1, 2)


TABLES = {
    "levels": (pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])), "t.csv", "one name each"),
    "mappings": (pd.DataFrame({"x": [{"a": 1}, {"b": 2}]}), "t.parquet", "have unlike keys"),
    "large": (pd.DataFrame({"x": [2**70, 1]}), "t.parquet", "parquet cannot hold"),
    "a long name": (pd.DataFrame({"x": [1]}), "n" * 300 + ".csv", "path cannot name a file"),
}


def test_tables_that_a_file_would_not_give_back(tmp_path_factory, subtests):
    for case, (table, name, message) in TABLES.items():
        with subtests.test(case):
            tmp_path = tmp_path_factory.mktemp("row")
            with pytest.raises(ValueError, match=message):
                nib.save_table(table, tmp_path / name)
            assert not list(tmp_path.iterdir())
