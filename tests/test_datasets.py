"""The embedded splits have one schema, and masks and captions that are true of the pictures."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import nib
from data.scenes.stamps import read_kinds
from nib.datasets import NAMES, SCENES, load, object_prompts, with_article

SEVERAL = {"scenes", "aerial"}  # have five captions a picture


@pytest.fixture(scope="module")
def splits():
    return {name: load(name) for name in NAMES}


def test_splits():
    assert set(NAMES) == {"scenes", "captions", "objects", "aerial", "unseen"}
    assert nib.datasets.load is load


def test_schema(splits, subtests):
    for name, data in splits.items():
        with subtests.test(name):
            assert len(data) == 500
            captions = ["captions"] if name in SEVERAL else []
            assert data.column_names == ["id", "image", "text", *captions, "objects", "masks"]
            assert len(set(data["id"])) == 500
            assert all(isinstance(text, str) and text.strip() for text in data["text"])
            row = data[7]
            assert row["id"] == f"{name}_0007"
            assert isinstance(row["image"], Image.Image)
            assert row["image"].size == row["masks"].size == (224, 224)
            assert row["masks"].mode == "P"
            assert row["objects"]
            assert all(isinstance(thing, str) for thing in row["objects"])
            assert data.skipped == []


def test_the_text_is_the_first_of_five_captions(splits, subtests):
    for name, data in splits.items():
        with subtests.test(name):
            for row in data.select_columns([*{"text", "captions"} & set(data.column_names)]):
                assert name not in SEVERAL or (len(row["captions"]) == 5 and row["captions"][0] == row["text"])


def test_masks_show_the_objects(splits, subtests):
    for name, data in splits.items():
        with subtests.test(name):
            for row in data.select_columns(["objects", "masks"]):
                seen = set(np.unique(row["masks"])) - {0}
                every = set(range(1, len(row["objects"]) + 1))
                assert seen <= every
                assert seen == every or name == "aerial"  # there a line may be hidden


def test_texts_of_objects_name_them(subtests):
    for name in ["objects", "unseen"]:
        with subtests.test(name):
            for row in load(name).select_columns(["text", "objects"]):
                assert row["text"] == f"a photo of {with_article(*row['objects'])}"


def test_unseen_holds_the_kinds_of_which_a_photograph_was_held_out():
    names = {objects[0] for objects in load("unseen")["objects"]}
    assert names == {row["name"] for row in read_kinds() if row["held_out"]}
    assert len(names) > 20
    assert all(row["held_out"] not in row["stamps"].split() for row in read_kinds())


def test_captions_of_scenes_mention_what_is_there_and_nothing_else():
    names = {row[form]: row["name"] for row in read_kinds() for form in ("name", "plural")}
    longest_first = sorted(names, key=len, reverse=True)  # "polar bear" is no bear
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b")
    for row in pq.read_table(SCENES / "scenes.parquet", columns=["objects", "captions"]).to_pylist():
        for caption in row["captions"]:
            assert {names[found] for found in pattern.findall(caption)} == set(row["objects"]), caption


def test_limit(subtests):
    for limit, rows in [(1, 1), (7, 7), (501, 500), (None, 500)]:
        with subtests.test(f"{limit}, {rows}"):
            data = load("captions", limit=limit)
            assert len(data) == rows
            assert data["text"][0] == load("captions")["text"][0]


def test_ids_take_these_rows_in_this_order():
    data, all_rows = load("scenes", ids=["scenes_0012", "scenes_0003"]), load("scenes", limit=13)
    assert data["id"][:] == ["scenes_0012", "scenes_0003"]
    assert data["captions"][0] == all_rows[12]["captions"]
    for row, number in zip(data, (12, 3)):
        assert row["image"].tobytes() == all_rows[number]["image"].tobytes()
        assert row["masks"].tobytes() == all_rows[number]["masks"].tobytes()
        assert row["objects"] == all_rows[number]["objects"]


def test_bad_options(subtests):
    cases = [
        ({"limit": 0}, ValueError, "limit must be .*at least 1, got 0"),
        ({"limit": -1}, ValueError, "limit must be .*at least 1, got -1"),
        ({"seed": -1}, ValueError, "seed must be .*at least 0, got -1"),
        ({"split": "train"}, ValueError, "split of scenes must be 'test', got 'train'"),
        ({"ids": ["scenes_0001", "scenes_0500"]}, ValueError, "scenes has no row scenes_0500$"),
        ({"ids": [f"row {n}" for n in range(7)]}, ValueError, "no row row 0, row 1, row 2, row 3, row 4 and 2 more"),
        ({"ids": ["scenes_0001"] * 2}, ValueError, "each once, got 2, twice: .'scenes_0001'"),
        ({"ids": []}, ValueError, "at least one row"),
        ({"ids": ["scenes_0001"], "limit": 3}, ValueError, "leave limit out, got 3"),
        ({"ids": "no.csv"}, FileNotFoundError, "no file of ids at 'no.csv'"),
        ({"path": "elsewhere"}, TypeError, "path has no meaning for embedded data, got path='elsewhere' with 'scenes'"),
        ({"text_column": "text"}, TypeError, "text_column has no meaning for embedded data"),
    ]
    for options, error, message in cases:
        with subtests.test(message), pytest.raises(error, match=message):
            load("scenes", **options)


def test_unknown_name_lists_the_known_ones():
    names = ["aerial", "captions", "conceptual_captions", "flickr8k", "imagenet", "objects", "rsicd", "scenes"]
    with pytest.raises(KeyError) as caught:
        load("flickr")
    assert re.search(
        rf"one of {re.escape(str([*names, 'tiny_imagenet', 'unseen']))} or a folder .*got 'flickr'", str(caught.value)
    )


def test_missing_file(monkeypatch, tmp_path):
    monkeypatch.setattr(nib.datasets.embedded, "SCENES", tmp_path)
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


def test_prompts_know_the_other_objects():
    _, _, masks, others = object_prompts(12, with_others=True)
    assert others.any((1, 2)).all()
    assert not (masks & others).any()
    rows = [row for row in load("scenes", limit=100) if len(set(row["objects"])) == len(row["objects"]) in (2, 3)]
    for row, mask, other in zip(rows, masks, others):
        assert np.array_equal(mask | other, np.array(row["masks"]) > 0)
    assert not object_prompts(3, "objects", with_others=True)[3].any()  # they hold one object


def test_prompts_for_any_data_set(subtests):
    for name in NAMES:
        with subtests.test(name):
            images, prompts, masks = object_prompts(10, name, repeated=True)
            assert len(images) == len(prompts) == len(masks) == 10
            rows = [
                row for row in load(name, limit=60) if name in ("objects", "unseen") or len(set(row["objects"])) > 1
            ]
            for row, image, prompt, mask in zip(rows, images, prompts, masks):
                assert image.tobytes() == row["image"].tobytes()
                asked = [place + 1 for place, kind in enumerate(row["objects"]) if with_article(kind) == prompt]
                assert asked
                assert np.array_equal(mask, np.isin(row["masks"], asked))  # all of the kind
