"""The public data sets are read by the real clients from a hub on this machine, and from folders."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Features, Image, Value
from hub import client_environment, serve
from hub_data import draw, write_all, write_imagenet, write_parquet, write_tiny_imagenet

import nib
from nib.datasets import SOURCES, load, save_ids
from nib.datasets.public import CLASSES, PER_CLASS, _spread, read_classes

ROOT = Path(__file__).parents[1]
MODEL = "openai/clip-vit-base-patch32"


def ask(url, home, requests):
    """Have a new process do the requests."""
    command = [sys.executable, ROOT / "tests" / "hub_client.py"]
    environment = os.environ | client_environment(url, home) | {"PYTHONPATH": str(ROOT)}
    lines = "\n".join(json.dumps(request) for request in requests)
    done = subprocess.run(command, input=lines, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


ONLINE = {
    "model": {"model": MODEL},
    "flickr8k": {"name": "flickr8k"},
    "flickr8k sample": {"name": "flickr8k", "limit": 4},
    "flickr8k again": {"name": "flickr8k", "limit": 4},
    "flickr8k other seed": {"name": "flickr8k", "limit": 4, "seed": 1},
    "flickr8k test": {"name": "flickr8k", "split": "test"},
    "stream": {"name": "conceptual_captions"},
    "stream sample": {"name": "conceptual_captions", "limit": 5},
    "stream again": {"name": "conceptual_captions", "limit": 5},
    "stream other seed": {"name": "conceptual_captions", "limit": 5, "seed": 1},
    "stream ids": {"name": "conceptual_captions", "ids": ["000200003", "000000001"]},
    "stream no ids": {"name": "conceptual_captions", "ids": ["000200003", "none"]},
    "tiny_imagenet": {"name": "tiny_imagenet"},
    "imagenet": {"name": "imagenet", "path": "mirror/imagenet", "limit": 3},
    "gated": {"name": "imagenet"},
    "gated, not logged in": {"name": "imagenet", "path": "mirror/gated"},
    "rsicd": {"name": "rsicd"},
    "mirror": {"name": "flickr8k", "path": "mirror/flickr8k", "limit": 4},
    "columns": {"name": "rsicd", "path": "jxie/flickr8k"},
    "split": {"name": "flickr8k", "split": "valid"},
    "nowhere": {"name": "flickr8k", "path": "no/such"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    sets = write_all(folder)
    mirrors = {"mirror/flickr8k": sets["jxie/flickr8k"], "mirror/gated": sets["ILSVRC/imagenet-1k"]}
    return sets | mirrors | {"mirror/imagenet": write_imagenet(folder / "mirror")}


@pytest.fixture(scope="module")
def answers(folders, model_folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    gated, log = {"ILSVRC/imagenet-1k": 403, "mirror/gated": 401}, []
    with serve({MODEL: model_folder}, folders, gated, log) as url:
        answers = dict(zip(ONLINE, ask(url, home, ONLINE.values())))
    return answers | {"log": log, "home": home}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


# A sample is the same everywhere: these change only when numpy's or datasets' way to shuffle does.
SAMPLES = {
    "flickr8k": [f"flickr8k-validation-{number:05d}" for number in (9, 2, 7, 4)],
    "stream": ["000100000", "000000003", "000200001", "000200004", "000200000"],
}


def ids_of(answer):
    return [row["id"] for row in answer["rows"]]


def test_flickr8k(answers):
    answer = answers["flickr8k"]
    assert answer["columns"] == ["id", "image", "text", "captions"]
    assert set(ids_of(answer)) == {f"flickr8k-validation-{number:05d}" for number in range(12) if number != 3}
    for row in answer["rows"]:
        captions = [f"a dog number {int(row['id'][-5:])} seen by {seen} people" for seen in range(5)]
        assert row["captions"] == captions
        assert row["text"] == captions[0]
    assert set(map(tuple, answer["sizes"])) == {(24, 24)}
    assert [entry["id"] for entry in answer["skipped"]] == ["flickr8k-validation-00003"]
    assert "decoded" in answer["skipped"][0]["reason"]
    assert len(answer["warnings"]) == 1
    assert "1 of the rows of 'flickr8k' cannot be used: flickr8k-validation-00003" in answer["warnings"][0]
    assert ids_of(answers["flickr8k test"]) == ["flickr8k-test-00000", "flickr8k-test-00001"]


def test_samples_are_seeded_and_a_mirror_gives_the_same(answers, subtests):
    for name in ["flickr8k", "stream"]:
        with subtests.test(name):
            sample = ids_of(answers[f"{name} sample"])
            assert sample == ids_of(answers[f"{name} again"])
            assert sample != ids_of(answers[f"{name} other seed"])
            assert sample == ids_of(answers[name])[: len(sample)]  # a larger sample goes on where it ends
            assert sample == SAMPLES[name]

    assert answers["mirror"]["rows"] == answers["flickr8k sample"]["rows"]


def test_stream(answers):
    answer = answers["stream"]
    assert answer["columns"] == ["id", "image", "text"]
    assert set(ids_of(answer)) == {f"{shard:04d}{row:05d}" for shard in range(3) for row in range(6)} - {"000100002"}
    for row in answer["rows"]:
        assert row["text"] == f"a cat number {int(row['id'][4:])} of shard {int(row['id'][:4])}"
    assert [entry["id"] for entry in answer["skipped"]] == ["000100002"]
    assert "000100002" in answer["warnings"][0]
    assert ids_of(answers["stream ids"]) == ["000200003", "000000001"]
    assert answers["stream no ids"] == {"error": "ValueError", "message": "conceptual_captions has no row none"}


def test_imagenet_and_rsicd(answers):
    answer = answers["tiny_imagenet"]
    words = list(read_classes().values())
    assert [row["text"] for row in answer["rows"]] == [f"a photo of a {words[number // 5]}" for number in range(1000)]
    rows = [[row for row in range(1200) if row * 7 % 200 == label and row not in (0, 201)] for label in range(200)]
    expected = [row for of_class in rows for row in of_class[:5]]
    assert [int(row["id"][-5:]) for row in answer["rows"]] == expected
    assert [entry["id"][-5:] for entry in answer["skipped"]] == ["00000", "00201"]

    answer = answers["imagenet"]
    names = ["tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark, white shark, man-eater"]
    for row in answer["rows"]:
        assert row["text"] == f"a photo of a {names[int(row['id'][-5:]) % 3]}"
    assert len(answer["rows"]) == 3

    answer = answers["rsicd"]
    assert ids_of(answer) == [f"rsicd_images/airport_{number}.jpg" for number in range(12)]  # all, in their order
    assert answer["rows"][2]["captions"][4] == "5 planes are parked at airport 2 ."


def test_model(answers, model_folder):
    clip = nib.load(model_folder)
    pixel_values = torch.full((1, 3, clip.image.image_size, clip.image.image_size), 0.5)
    assert torch.allclose(torch.tensor(answers["model"]["image"]), clip.image.embed(pixel_values)[0], atol=1e-5)
    input_ids = clip.tokenizer("a dog", return_tensors="pt")["input_ids"]
    assert torch.allclose(torch.tensor(answers["model"]["text"]), clip.text.embed(input_ids)[0], atol=1e-5)
    assert answers["model"]["processor"]


def test_a_model_without_a_hub(answers):
    """Nobody listens at this address: what is in the cache is loaded, what is not is refused, and neither waits."""
    cached, missing = ask("http://127.0.0.1:9", answers["home"], [{"model": MODEL}, {"model": "no/such"}])
    assert cached["image"] == pytest.approx(answers["model"]["image"], abs=1e-6)
    assert cached["processor"]
    assert re.search("no model at 'no/such': .* hub cannot be reached .* run `hf download no/such`", missing["message"])
    assert max(cached["seconds"], missing["seconds"]) < 10


def test_what_cannot_be_had(answers, folders, subtests):
    cases = [
        ("gated", "FileNotFoundError", ["'ILSVRC/imagenet-1k' is gated", "accept its terms", "`hf auth login`"]),
        ("gated, not logged in", "FileNotFoundError", ["'mirror/gated' is gated", "accept its terms", "auth login`"]),
        ("columns", "ValueError", ["'jxie/flickr8k'", "['image', 'captions', 'filename'], got", "no ['captions',"]),
        ("split", "ValueError", ["'jxie/flickr8k'", "['test', 'train', 'validation']", "got 'valid'"]),
        ("nowhere", "FileNotFoundError", ["no data set at 'no/such'"]),
    ]
    for name, error, words in cases:
        with subtests.test(name):
            assert answers[name]["error"] == error
            for word in words:
                assert word in answers[name]["message"]

    with pytest.raises(ValueError, match="row flickr8k-validation-00003 of flickr8k cannot be used: its picture"):
        load("flickr8k", path=folders["jxie/flickr8k"], ids=["flickr8k-validation-00003"])


def test_only_what_is_asked_for_is_downloaded(answers):
    whole = {path.rpartition("/")[2] for method, path, status in answers["log"] if (method, status) == ("GET", 200)}
    assert {"validation-00000-of-00001.parquet", "test-00000-of-00001.parquet"} <= whole
    assert "cc3m-validation-0002.tar" in whole
    assert not any("train" in name for name in whole)


def test_offline(answers, monkeypatch):
    """The tests themselves run offline; the cache is the one that the client has filled."""
    monkeypatch.setattr("nib.datasets.hub.HF_HUB_CACHE", answers["home"] / "hub")
    assert load("flickr8k", limit=4)["id"][:] == ids_of(answers["flickr8k sample"])
    with pytest.raises(
        ValueError, match=r"split of 'jxie/flickr8k' must be one of \['test', 'validation'\], got 'train'"
    ):
        load("flickr8k", split="train")  # was not downloaded
    for name in ("conceptual_captions", "imagenet"):  # a stream leaves nothing behind
        path = SOURCES[name].path
        message = (
            f"data set '{path}' cannot be reached and .* `hf download --repo-type dataset {path} --local-dir FOLDER`"
        )
        with pytest.raises(FileNotFoundError, match=message):
            load(name)


@pytest.mark.filterwarnings("ignore:.*cannot be used")
def test_folders_do_as_well(folders, answers, subtests):
    for name in ("flickr8k", "stream", "rsicd", "tiny_imagenet"):
        with subtests.test(name):
            source = "conceptual_captions" if name == "stream" else name
            data = load(source, path=folders[SOURCES[source].path])
            assert data["id"][:] == ids_of(answers[name])
            assert data["text"][:] == [row["text"] for row in answers[name]["rows"]]
            assert data.skipped == answers[name]["skipped"]


@pytest.mark.filterwarnings("ignore:.*cannot be used")
def test_ids_of_a_sample_find_it_again(folders, tmp_path):
    for name in ("flickr8k", "rsicd", "imagenet", "conceptual_captions"):
        folder = folders[SOURCES[name].path]
        sample = load(name, path=folder, limit=5, seed=4)
        again = load(name, path=folder, ids=save_ids(sample, tmp_path / f"{name}.csv"))
        assert again.to_list() == sample.to_list()


def test_labels_must_be_known_in_any_order(tmp_path):
    features = Features({"image": Image(), "label": Value("int64")})
    rows = [{"image": {"bytes": draw(0), "path": None}, "label": 3}]
    write_parquet(tmp_path / "plain", "valid", rows, features)
    with pytest.raises(ValueError, match=r"column 'label' of .* must name its classes, got Value\('int64'\)"):
        load("imagenet", split="valid", path=tmp_path / "plain")
    assert load("tiny_imagenet", path=tmp_path / "plain")["text"][:] == [
        f"a photo of a {list(read_classes().values())[3]}"
    ]
    rows[0]["label"] = 200
    write_parquet(tmp_path / "many", "valid", rows, features)
    with pytest.raises(ValueError, match=r"must be in \[0, 200\), got 200 in 1 rows"):
        load("tiny_imagenet", path=tmp_path / "many")
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog", "cow", "pig"])})
    rows[0]["label"] = 3
    write_parquet(tmp_path / "others", "valid", rows, features)
    with pytest.raises(ValueError, match="must have the 200 classes of tiny-imagenet, got 4"):
        load("tiny_imagenet", path=tmp_path / "others")

    write_tiny_imagenet(tmp_path, per_class=1)
    wnids = list(read_classes())[::-1]
    features = Features({"image": Image(), "label": ClassLabel(names=wnids)})
    rows = [{"image": {"bytes": draw(0), "path": None}, "label": 0}]
    write_parquet(tmp_path / "reversed", "valid", rows, features)
    assert load("tiny_imagenet", path=tmp_path / "reversed")["text"][:] == ["a photo of a acorn"]


def test_the_list_of_classes_and_what_is_drawn_of_them(folders):
    with CLASSES.open(newline="") as file:
        rows = list(csv.DictReader(file))
    wnids = [row["wnid"] for row in rows]
    assert len(rows) == 200
    assert wnids == sorted(set(wnids))
    assert all(wnid.startswith("n") and len(wnid) == 9 and wnid[1:].isdigit() for wnid in wnids)
    assert rows[0]["words"] == "goldfish, Carassius auratus"
    assert read_classes()["n02106662"] == "German shepherd, German shepherd dog, German police dog, alsatian"
    assert all(row["words"] == row["words"].strip() and "_" not in row["words"] for row in rows)

    labels = [number % 200 for number in range(1200)]
    full = {number for rows, quota in _spread(labels, 1000, 0) for number in rows[:quota]}
    assert len(full) == 200 * PER_CLASS
    fewer = {number for rows, quota in _spread(labels, 150, 0) for number in rows[:quota]}
    more = {number for rows, quota in _spread(labels, 300, 0) for number in rows[:quota]}
    assert len(fewer) == 150
    assert fewer < more < full
    other = {number for rows, quota in _spread(labels, 150, 1) for number in rows[:quota]}
    assert other != fewer
