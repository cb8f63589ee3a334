"""Rows that were lost, changed or garbled without a word: each is read as it stands or refused, with its place."""

import base64
import csv

import pytest
from datasets import ClassLabel, Features, Image, Value
from hub_data import draw, write_parquet

import nib
from nib.datasets.public import _spread, read_classes

PICTURE = draw(0, kind="PNG")
CSV = "image,text,id\n0.png,007,2020-01-01\n1.png,None,2020-01-02\n"
LINES = (
    '{"image": "0.png", "text": "007", "id": "2020-01-01"}\n{"image": "1.png", "text": "None", "id": "2020-01-02"}\n'
)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def draw_two(folder):
    for number in range(2):
        (folder / f"{number}.png").write_bytes(PICTURE)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Two pictures."""
    folder = tmp_path / "data"
    folder.mkdir()
    return draw_two(folder)


def write(path, text):
    path.write_text(text, newline="")
    return path


# ---- tables in a folder


def test_tables_that_are_splits_are_read_like_one(tmp_path_factory, subtests):
    for suffix, text in (("csv", CSV), ("jsonl", LINES)):
        with subtests.test(suffix):
            folder = draw_two(tmp_path_factory.mktemp("row"))
            for split in ("train", "test"):
                write(folder / f"{split}.{suffix}", text)
            for found in (nib.datasets.load(folder, split="test"), nib.datasets.load(folder / f"test.{suffix}")):
                assert (found["id"][:], found["text"][:]) == (["2020-01-01", "2020-01-02"], ["007", "None"])
            with pytest.raises(ValueError, match=r"split of .* must be one of \['test', 'train'\], got None"):
                nib.datasets.load(folder)


LOST = {
    "another table": ({"train.csv": CSV, "captions.jsonl": LINES}, r"\['captions\.jsonl'\] in .* would not be read"),
    "beside pictures": ({"labels.csv": CSV}, r"\['labels\.csv'\] in .*call the one table .* metadata\.csv .*or pass"),
    "of one split": ({"a.csv": CSV, "b.csv": CSV, "c.csv": CSV}, r"must be one table, got \[.*a\.csv', .*b\.csv'"),
}


def test_no_table_is_lost(tmp_path_factory, subtests):
    for case, (tables, message) in LOST.items():
        folder = draw_two(tmp_path_factory.mktemp("row"))
        for name, text in tables.items():
            write(folder / name, text)
        with subtests.test(case), pytest.raises(ValueError, match=message):
            nib.datasets.load(folder)


# ---- lines of a table

LONG = f"image,text\n0.png,{'a' * (csv.field_size_limit() + 1)}\n"
COMMAS = "must be divided by commas, got the header"
GARBLED = {
    "a key twice": ("t.jsonl", LINES + '{"image": "0.png", "text": "a", "text": "b"}', "line 3: .* got twice 'text'"),
    "a broken line": ("t.jsonl", LINES + '{"image": "0.png", "text" "a"}', r"line 3, column 27: Expecting ':'"),
    "backslashes": ("t.csv", 'image,text\n0.png,a\n1.png,"a \\"big\\" cat"\n', "line 3: ',' expected after '\"'"),
    "backslashes in the header": ("t.csv", 'image,"te\\"xt"\n0.png,a\n', "line 1: ',' expected after '\"'"),
    "a header without an end": ("t.csv", 'image,"text\n0.png,a\n', "EOF inside string"),
    "a comma": (
        "t.csv",
        "text,image\na red car, parked,0.png\na dog, asleep,1.png\n",
        "line 2 has 3 fields and the header 2: put text with a comma",
    ),
    "a comma further down": ("t.csv", "text,image\na car,0.png\na dog, asleep,1.png\n", "line 3 has 3 fields"),
    "a column twice": ("t.csv", "image,text,text\n0.png,a,b\n", "the header names column text twice"),
    "a long field": ("t.csv", LONG, "line 2: field larger than field limit"),
    "tabs": ("t.csv", "file_name\ttext\n0.png\ta cat, a dog\n", COMMAS),
    "semicolons": ("t.csv", "file_name;caption\n0.png;a dog\n1.png;a cat, asleep\n", f"{COMMAS} 'file_name;caption'"),
}


def test_a_garbled_line_is_named(folder, subtests):
    for case, (name, text, message) in GARBLED.items():
        error = pytest.raises(ValueError, match=rf"{name}' cannot be read as .*: .*{message}")
        with subtests.test(case), error:
            nib.datasets.load(write(folder / name, text))


def test_encoded_text_is_no_path(folder):
    text = base64.b64encode(PICTURE * 40).decode()
    table = write(folder / "t.csv", f"image,text\n{text},a\n")
    for ids, message in ((None, "no row of .* can be used, 1 were tried"), ([text], "row .* cannot be used")):
        with pytest.raises(ValueError, match=rf"{message}.*: there is no picture at") as caught:
            nib.datasets.load(table, ids=ids)
        assert len(str(caught.value)) < 1000
    with pytest.warns(UserWarning, match=r"1 of the rows .* cannot be used") as warned:
        assert nib.datasets.load(write(table, f"image,text\n{text},a\n0.png,b\n"))["id"][:] == ["0.png"]
    assert len(str(warned[0].message)) < 1000


# ---- names and classes


def write_classes(folder, labels, feature):
    rows = [{"image": {"bytes": PICTURE, "path": None}, "label": label} for label in labels]
    write_parquet(folder, "valid", rows, Features({"image": Image(), "label": feature}))
    return folder


OTHERS = {
    "others": [f"{number:03d}.Bird_{number}" for number in range(1, 201)],
    "one other": ["001.Bird_1", *list(read_classes())[1:]],
}


def test_other_classes_are_not_those_of_tiny_imagenet(tmp_path, subtests):
    for case, names in OTHERS.items():
        path = write_classes(tmp_path / case, [0], ClassLabel(names=names))
        message = r"must have the 200 classes of tiny-imagenet, got 200, \['001\.Bird_1'"
        with subtests.test(case), pytest.raises(ValueError, match=message):
            nib.datasets.load("tiny_imagenet", path=path)


def test_labels_are_whole_numbers(tmp_path, subtests):
    cases = [
        ([0, None], Value("int64"), "None", 1),
        (["0", "cat"], Value("string"), "'0'", 0),
        ([0.0], Value("float64"), "0.0", 0),
    ]
    for labels, feature, got, row in cases:
        path = write_classes(tmp_path / f"labels {got}", labels, feature)
        message = rf"column 'label' of .* got {got} in \d rows, first in row {row} \(from 0"
        with subtests.test(got), pytest.raises(ValueError, match=message):
            nib.datasets.load("tiny_imagenet", path=path)


def test_a_limit_is_reached_or_refused(tmp_path):
    path = write_classes(tmp_path / "two", [0, 1] * 8, Value("int64"))
    assert [len(nib.datasets.load("tiny_imagenet", path=path, limit=limit)) for limit in (7, 10, None)] == [7, 10, 10]
    with pytest.raises(ValueError, match="limit must be at most 10, 5 rows a class of 2, got 14"):
        nib.datasets.load("tiny_imagenet", path=path, limit=14)
    for seed in range(9):  # of a class with one row, no more is taken
        assert sum(min(len(rows), quota) for rows, quota in _spread([0] + [1] * 9, 4, seed)) == 4
