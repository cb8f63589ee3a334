"""Captions are chosen as each protocol says, and chosen rows are written down and found again."""

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cosine_similarity

from nib.datasets import best_captions, load, save_ids
from nib.inputs import to_pixel_values, to_tokens


@pytest.fixture(scope="module")
def scenes():
    return load("scenes", limit=7)


def choose(clip, image, captions):
    """Compare one picture with one caption after the other."""
    embed = clip.image.embed(to_pixel_values(clip, image))
    similarities = []
    for caption in captions:
        input_ids, attention_mask, _ = to_tokens(clip, [caption])
        similarities.append(cosine_similarity(embed, clip.text.embed(input_ids, attention_mask)).item())
    return captions[max(range(len(captions)), key=similarities.__getitem__)]


def test_best_captions(clip, scenes, subtests):
    for protocol, batch_size in [("paper", 3), ("paper", 32), ("released", 3), ("released", 32)]:
        with subtests.test(f"{protocol}, {batch_size}"):
            chosen = best_captions(clip, scenes, protocol, batch_size=batch_size)
            for number, row in enumerate(scenes):
                first = number - number % batch_size
                image = scenes[first if protocol == "released" else number]["image"]
                assert chosen["text"][number] == choose(clip, image, row["captions"])
            assert chosen.column_names == scenes.column_names
            assert chosen["id"][:] == scenes["id"][:]
            assert chosen.skipped == []


def test_the_protocols_differ(clip, scenes):
    texts = {protocol: best_captions(clip, scenes, protocol)["text"][:] for protocol in ("paper", "released")}
    assert texts["paper"] != texts["released"]
    assert texts["paper"] != scenes["text"][:]  # so that the test above can fail


def test_pictures_may_have_unequal_numbers_of_captions(clip, scenes):
    rows = [{"image": row["image"], "captions": row["captions"][: 1 + number]} for number, row in enumerate(scenes)]
    texts = [row["captions"][0] for row in rows]
    columns = {"image": [row["image"] for row in rows], "text": texts, "captions": [row["captions"] for row in rows]}
    chosen = best_captions(clip, Dataset.from_dict(columns))["text"][:]
    assert chosen == [choose(clip, row["image"], row["captions"]) for row in rows]


def test_bad_options(clip, subtests):
    cases = [
        ("captions", {}, r"must have a column 'captions' .*got \['id', 'image', 'text', 'objects', 'masks'\]"),
        ("scenes", {"protocol": "best"}, r"one of \['paper', 'released'\], got 'best'"),
        ("scenes", {"batch_size": 0}, "batch_size must be .*at least 1, got 0"),
    ]
    for name, options, message in cases:
        with subtests.test(message), pytest.raises(ValueError, match=message):
            best_captions(clip, load(name, limit=2), **options)


def test_ids_round_trip(clip, scenes, tmp_path):
    chosen = best_captions(clip, scenes).select([5, 1, 3])
    path = save_ids(chosen, tmp_path / "new" / "ids.csv")
    assert path.read_text().splitlines()[0] == "id,text"
    again = load("scenes", ids=path)
    assert again["id"][:] == ["scenes_0005", "scenes_0001", "scenes_0003"]
    assert again["text"][:] == chosen["text"][:]  # the captions that were chosen, not the first ones
    assert load("scenes", ids=again["id"][:])["text"][:] == [scenes["text"][n] for n in (5, 1, 3)]
    assert save_ids(again, tmp_path / "second.csv").read_bytes() == path.read_bytes()


def test_ids_are_written_whole_or_not_at_all(scenes, tmp_path, monkeypatch):
    path = save_ids(scenes, tmp_path / "ids.csv")
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        save_ids(scenes.select([0]), path)
    assert path.read_bytes() == before


def test_captions_with_commas_and_quotes_survive(tmp_path):
    texts = ['a "big" dog, running', "two\nlines", "ein Käfer"]
    data = load("captions", limit=3)
    data = data.remove_columns("text").add_column("text", texts)
    assert load("captions", ids=save_ids(data, tmp_path / "ids.csv"))["text"][:] == texts


def test_bad_files_of_ids(tmp_path, subtests):
    cases = [
        ("name\nscenes_0001\n", r"must have a column 'id', got \['name'\]"),
        ("id\n", "at least one row"),
        ("id,text\nscenes_0001,\n", "captions in .* are empty: scenes_0001"),
    ]
    for number, (content, message) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        with subtests.test(f"{content}, {message}"):
            (folder / "ids.csv").write_text(content)
            with pytest.raises(ValueError, match=message):
                load("scenes", ids=folder / "ids.csv")


def test_no_gradients_are_kept(clip, scenes):
    assert not torch.is_inference_mode_enabled()
    best_captions(clip, scenes.select([0]))
    assert not torch.is_inference_mode_enabled()
