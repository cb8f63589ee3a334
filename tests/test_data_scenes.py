"""Scenes are a function of their generator, and the training data keeps off the evaluation splits."""

import itertools

import numpy as np
import pytest
import torch
from transformers import CLIPModel

import nib
from data.mini_clip.tokenizer import CONTEXT_LENGTH, build_tokenizer
from data.mini_clip.train import Batches, grow, make_config
from data.scenes.aerial import LANDS, LINES, OBJECTS, AerialScene, aerial_caption, draw_aerial
from data.scenes.atlas import read_objects
from data.scenes.build import read_captions
from data.scenes.grammar import caption, five_captions, short_caption
from data.scenes.scenes import Scene, draw_scene
from data.scenes.textures import BACKGROUNDS, Textures


@pytest.fixture(scope="module")
def batches():
    return Batches(seed=0, steps=10, batch_size=12)


def draw(kind, seed):
    rng = np.random.default_rng(seed)
    return draw_aerial(rng) if kind == "aerial" else draw_scene(rng, Textures(1, variants=1))


@pytest.mark.parametrize("kind", ["scene", "aerial"])
def test_scene_is_a_function_of_its_generator(kind):
    one, same, other = draw(kind, 5), draw(kind, 5), draw(kind, 6)
    assert one.image.tobytes() == same.image.tobytes() != other.image.tobytes()
    assert one.mask.tobytes() == same.mask.tobytes() != other.mask.tobytes()
    assert one.objects == same.objects


def test_wanted_objects_are_drawn():
    scene = draw_scene(np.random.default_rng(0), Textures(1, variants=1), names=["cat", "dog"])
    assert scene.objects == ["cat", "dog"]
    assert np.unique(scene.mask).tolist() == [0, 1, 2]
    left_edges = [np.nonzero((scene.mask == index).any(0))[0] for index in (1, 2)]
    centres = [(columns[0] + columns[-1]) / 2 for columns in left_edges]
    np.testing.assert_allclose(centres, scene.centres[:, 0], atol=8)


def test_evaluation_captions_are_held_out(batches):
    assert batches.held_out == read_captions()
    for name in nib.datasets.NAMES:
        assert set(nib.datasets.load(name)["text"]) <= batches.held_out


def test_held_out_captions_are_never_drawn(batches, monkeypatch):
    monkeypatch.setattr(batches, "held_out", set())
    free = set(batches[2][1])
    monkeypatch.setattr(batches, "held_out", free)
    drawn = batches[2][1]
    assert len(drawn) == 12
    assert not free & set(drawn)


def test_batch_is_a_function_of_seed_and_step(batches, monkeypatch):
    pictures, captions = batches[3]
    assert pictures.shape == (12, 3, 224, 224)
    assert pictures.dtype == torch.uint8
    same = Batches(seed=0, steps=99, batch_size=12)[3]  # without the batches before it
    assert torch.equal(pictures, same[0])
    assert captions == same[1]
    assert captions != batches[4][1]
    monkeypatch.setattr(batches, "seed", 1)
    assert captions != batches[3][1]


def longest(tokenizer, captions):
    return max(map(len, tokenizer(list(captions))["input_ids"]))


def test_longest_captions_of_scenes_fit(tokenizer):
    names = sorted((row["name"] for row in read_objects()), key=lambda name: len(tokenizer(name)["input_ids"]))[-4:]
    rng = np.random.default_rng(0)
    captions = set()
    for background in BACKGROUNDS:  # in a row, so that sides are named; small, so that sizes are
        scene = Scene(None, None, background, names, ["small"] * 4, np.array([[60.0 * i, 0] for i in range(4)]))
        captions.update(caption(rng, scene) for _ in range(60))
        captions.update(short_caption(rng, scene) for _ in range(10))
        captions.update(five_captions(rng, scene))
    assert 25 < longest(tokenizer, captions) <= CONTEXT_LENGTH


def test_longest_aerial_captions_fit(tokenizer):
    rng = np.random.default_rng(0)
    kinds = sorted(OBJECTS, key=lambda name: len(tokenizer(OBJECTS[name][0])["input_ids"]))[-3:]
    captions = set()
    for land, line in itertools.product(LANDS, LINES):
        scene = AerialScene(None, None, land, line, [line, *kinds * 4])
        captions.update(aerial_caption(rng, scene) for _ in range(30))
    assert 20 < longest(tokenizer, captions) <= CONTEXT_LENGTH


def test_begin_and_end_have_the_largest_ids(tokenizer):
    for each in (tokenizer, build_tokenizer(n_scenes=10)):
        assert (each.bos_token_id, each.eos_token_id) == (len(each) - 2, len(each) - 1)
        assert each.pad_token_id == each.eos_token_id
        assert each.model_max_length == CONTEXT_LENGTH


@pytest.mark.parametrize("text", ["猫と犬", "🐱🐶", "naïve café", "x\x00\x7f", "ÿþ€", "0123456789", "~`|\\^"])
def test_any_text_can_be_written(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.unk_token_id not in ids[1:-1]
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(decoded.split()) == "".join(text.split())


def test_names_of_objects_are_one_token_a_word(tokenizer):
    for row in read_objects():
        assert len(tokenizer(row["name"])["input_ids"]) == 2 + len(row["name"].split())


def test_growing_repeats_blocks_and_keeps_the_rest(tokenizer):
    torch.manual_seed(0)
    small = CLIPModel(make_config(tokenizer, 4))
    grown = grow(small, tokenizer)
    for tower in ("vision_model", "text_model"):
        blocks, copies = getattr(small, tower).encoder.layers, getattr(grown, tower).encoder.layers
        assert (len(blocks), len(copies)) == (4, 12)
        for index, copied in enumerate(copies):
            for name, value in copied.state_dict().items():
                original = blocks[index // 3].state_dict()[name]
                shared = name.startswith(("self_attn.out_proj", "mlp.fc2"))
                assert torch.equal(value, original / 3 if shared else original), name
    kept = {name: value for name, value in small.state_dict().items() if ".encoder.layers." not in name}
    assert len(kept) > 10
    assert all(torch.equal(grown.state_dict()[name], value) for name, value in kept.items())
