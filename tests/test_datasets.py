"""The embedded splits have one schema, and masks and captions that are true of the pictures."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import nib
from data.scenes.atlas import read_objects
from nib.datasets import NAMES, SCENES, load, object_prompts, with_article


@pytest.fixture(scope="module", params=NAMES)
def split(request):
    return request.param, load(request.param)


def test_splits():
    assert set(NAMES) == {"scenes", "captions", "objects", "aerial"}
    assert nib.datasets.load is load


def test_schema(split):
    name, data = split
    assert len(data) == 500
    assert data.column_names == ["id", "image", "text", "objects", "masks"]
    assert len(set(data["id"])) == 500
    assert all(isinstance(text, str) and text.strip() for text in data["text"])
    row = data[7]
    assert row["id"] == f"{name}-0007"
    assert isinstance(row["image"], Image.Image)
    assert row["image"].size == row["masks"].size == (224, 224)
    assert row["masks"].mode == "P"
    assert row["objects"]
    assert all(isinstance(thing, str) for thing in row["objects"])


def test_masks_show_the_objects(split):
    name, data = split
    for row in data.select_columns(["objects", "masks"]):
        seen = set(np.unique(row["masks"])) - {0}
        every = set(range(1, len(row["objects"]) + 1))
        assert seen <= every
        assert seen == every or name == "aerial"  # there a line may be hidden


def test_texts_of_objects_name_them():
    for row in load("objects").select_columns(["text", "objects"]):
        assert row["text"] == f"a photo of {with_article(*row['objects'])}"


def test_captions_of_scenes_mention_what_is_there_and_nothing_else():
    names = {row[form]: row["name"] for row in read_objects() for form in ("name", "plural")}
    longest_first = sorted(names, key=len, reverse=True)  # "teddy bear" is no bear
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b")
    columns = ["objects", *(f"caption_{number}" for number in range(5))]
    for row in pq.read_table(SCENES / "scenes.parquet", columns=columns).to_pylist():
        objects = set(row.pop("objects"))
        for caption in row.values():
            assert {names[found] for found in pattern.findall(caption)} == objects, caption


@pytest.mark.parametrize(("limit", "rows"), [(1, 1), (7, 7), (501, 500), (None, 500)])
def test_limit(limit, rows):
    data = load("captions", limit=limit)
    assert len(data) == rows
    assert data["text"][0] == load("captions")["text"][0]


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_below_one(limit):
    with pytest.raises(ValueError, match=f"limit must be .*at least 1, got {limit}"):
        load("scenes", limit=limit)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match=r"one of \['aerial', 'captions', 'objects', 'scenes'\], got 'flickr'"):
        load("flickr")


def test_unknown_split():
    with pytest.raises(ValueError, match="split of scenes must be 'test', got 'train'"):
        load("scenes", split="train")


def test_missing_file(monkeypatch, tmp_path):
    monkeypatch.setattr(nib.datasets, "SCENES", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"scenes\.parquet is missing"):
        load("scenes")


def test_prompts_ask_for_one_object_among_others():
    images, prompts, masks = object_prompts(limit=12)
    assert len(images) == len(prompts) == len(masks) == 12
    assert masks.shape == (12, 224, 224)
    assert masks.dtype == bool
    assert masks.any((1, 2)).all()
    rows = [row for row in load("scenes", limit=100) if len(set(row["objects"])) == len(row["objects"]) in (2, 3)]
    for row, image, prompt, mask in zip(rows, images, prompts, masks):
        asked = [with_article(name) for name in row["objects"]].index(prompt)
        assert np.array_equal(mask, np.array(row["masks"]) == asked + 1)
        assert image.tobytes() == row["image"].tobytes()
    places = [[with_article(name) for name in row["objects"]].index(prompt) for row, prompt in zip(rows, prompts)]
    assert set(places) == {0, 1, 2}  # not always the one in front
