"""Files and tables that gave another table without a word: each is read right or refused, by name."""

import pandas as pd
import pytest
from datasets import Dataset
from matplotlib.figure import Figure
from PIL import Image

import nib
from nib.datasets import with_article

PICTURE = Image.new("RGB", (60, 60), "red")


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


def test_captions_are_chosen_in_lists(clip, subtests):
    for captions in (["cat", "dog"], [{"a": "cat"}, {"a": "dog"}]):
        data = Dataset.from_dict({"id": ["0", "1"], "image": [PICTURE] * 2, "text": ["x", "x"], "captions": captions})
        message = "column 'captions' must hold a list of captions a row, got"
        with subtests.test(str(captions)), pytest.raises(ValueError, match=message):
            nib.datasets.best_captions(clip, data)
    data = nib.datasets.load("scenes", limit=2)
    for column in ("captions", "image", "text"):
        message = f"the data set must have a column '{column}' to choose from"
        with subtests.test(column), pytest.raises(ValueError, match=message):
            nib.datasets.best_captions(clip, data.remove_columns(column))
    expected = nib.datasets.best_captions(clip, data)["text"]
    assert nib.datasets.best_captions(clip, data.with_format("numpy"))["text"] == expected
    with pytest.raises(TypeError, match="captions are chosen in a data set"):
        nib.datasets.best_captions(clip, [])
    data = Dataset.from_dict({"image": [1, 2], "text": ["a", "b"], "captions": [["a"], []]})
    with pytest.raises(ValueError, match=r"every row must have captions to choose from, rows \[1\]"):
        nib.datasets.best_captions(clip, data, progress=False)


IDS = {
    "spaces": (b"id, text\nscenes_0000, my words\n", "must differ and have no spaces around"),
    "twins": (b"id,text,text\nscenes_0000,a,b\n", "must differ and have no spaces around"),
    "an open quote": (b'id,text\nscenes_0000,"a\nscenes_0001,b\n', "must be a CSV file in UTF-8: .* at line"),
    "latin-1": ("id,text\na,é\n".encode("latin-1"), r"ids\.csv' must be a CSV file in UTF-8"),
    "a picture": (b"\x89PNG\r\n\x1a\n\xff", r"ids\.csv' must be a CSV file in UTF-8"),
    "a long id": (f"id\n{'x' * 200_000}\n".encode(), r"ids\.csv' must be a CSV file in UTF-8"),
    "a comma": (b"id,text\nscenes_0000,cat, on grass\n", "row 'scenes_0000' of .* has more fields than the header"),
}


def test_files_of_ids(tmp_path, subtests):
    path = tmp_path / "ids.csv"
    for case, (content, message) in IDS.items():
        path.write_bytes(content)
        with subtests.test(case), pytest.raises(ValueError, match=message):
            nib.datasets.load("scenes", ids=path)
    ids = nib.datasets.load("scenes", limit=2)["id"][:]
    path.write_text("id\n" + "\n".join(ids), "utf-8-sig")
    assert nib.datasets.load("scenes", ids=path)["id"][:] == ids


def test_ids_are_text_or_numbers(subtests):
    for key in (float("nan"), b"a", ["a"], {"a": 1}):
        message = "ids must be text or whole numbers, got"
        with subtests.test(str(key)), pytest.raises(ValueError, match=message):
            nib.datasets.load("scenes", ids=["scenes_0000", key])
    for ids in (5, {"scenes_0000"}):
        message = f"ids must be a list of ids or a file of them, got {type(ids).__name__}"
        with subtests.test(str(ids)), pytest.raises(TypeError, match=message):
            nib.datasets.load("scenes", ids=ids)
    with pytest.raises(ValueError, match="twice"):  # many are compared at once
        nib.datasets.load("scenes", ids=[str(number) for number in range(200_000)] + ["0"])


def test_object_prompts_are_asked_for_by_flags_and_names(subtests):
    for given in ({"repeated": "no"}, {"with_others": "no"}, {"name": "../scenes/scenes"}, {"name": 5}):
        with subtests.test(str(given)), pytest.raises(ValueError, match=r"must be (True or False|one of)"):
            nib.datasets.object_prompts(2, **given)
    with pytest.raises(ValueError, match="take more than 1"):
        nib.datasets.object_prompts(1, with_absent=True)


def test_articles_go_by_the_first_letter(subtests):
    nouns = ("Apple", "apple", "cat", " apple ")
    assert [with_article(noun) for noun in nouns] == ["an Apple", "an apple", "a cat", "an apple"]
    for noun, got in (("", "''"), (None, "None"), (5, "5"), (" ", "' '")):
        message = f"a noun must have at least one letter, got {got}"
        with subtests.test(got), pytest.raises(ValueError, match=message):
            with_article(noun)


# ---- results


def test_nothing_is_written_beside_a_folder(tmp_path):
    (tmp_path / "v.csv").mkdir()
    with pytest.raises(ValueError, match="path must name a file, got the folder"):
        nib.save_figure(Figure(), pd.DataFrame({"a": [1]}), tmp_path / "v")
    assert [path.name for path in tmp_path.iterdir()] == ["v.csv"]
