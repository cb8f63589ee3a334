"""Scenes are a function of their generator, and the training data keeps off the evaluation splits."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from transformers import CLIPModel

import nib
from data.mini_clip.tokenizer import CONTEXT_LENGTH, build_tokenizer
from data.mini_clip.train import PLAN, Batches, Stage, forget_class_token, grow, make_config, rate, stage_at
from data.scenes.aerial import LANDS, LINES, OBJECTS, AerialScene, aerial_caption, draw_aerial
from data.scenes.backgrounds import PLACES, Backgrounds
from data.scenes.build import SEED, compose_row, read_captions
from data.scenes.grammar import caption, five_captions, short_caption
from data.scenes.scenes import Scene, draw_scene
from data.scenes.stamps import load_stamps, read_kinds

PLANNED = [Stage(3, 5, 0.5), Stage(6, 5, 0.4)]


@pytest.fixture(scope="module")
def batches():
    return Batches(seed=0, plan=PLANNED, batch_size=12)


def draw(kind, seed):
    rng = np.random.default_rng(seed)
    return draw_aerial(rng) if kind == "aerial" else draw_scene(rng, Backgrounds(1, variants=1))


def test_scene_is_a_function_of_its_generator(subtests):
    for kind in ["scene", "aerial"]:
        with subtests.test(str(kind)):
            one, same, other = draw(kind, 5), draw(kind, 5), draw(kind, 6)
            assert one.image.tobytes() == same.image.tobytes() != other.image.tobytes()
            assert one.mask.tobytes() == same.mask.tobytes() != other.mask.tobytes()
            assert one.objects == same.objects


def test_wanted_objects_are_drawn():
    scene = draw_scene(np.random.default_rng(0), Backgrounds(1, variants=1), names=["cat", "dog"])
    assert sorted(scene.objects) == ["cat", "dog"]
    assert np.unique(scene.mask).tolist() == [0, 1, 2]
    left_edges = [np.nonzero((scene.mask == index).any(0))[0] for index in (1, 2)]
    centres = [(columns[0] + columns[-1]) / 2 for columns in left_edges]
    np.testing.assert_allclose(centres, scene.centres[:, 0], atol=8)


def test_evaluation_captions_are_held_out(batches):
    assert batches.held_out == read_captions()
    for name in ("scenes", "captions", "aerial"):
        assert set(nib.datasets.load(name)["text"]) <= batches.held_out


def test_the_splits_are_what_the_script_composes(subtests):
    for split in nib.datasets.NAMES:
        with subtests.test(str(split)):
            row, kept = compose_row(split, 3, Backgrounds(SEED)), nib.datasets.load(split, limit=4)[3]
            assert row["captions"] == kept.get("captions", [kept["text"]])
            assert row["objects"] == kept["objects"]
            assert row["id"] == kept["id"]


def test_photographs_held_out_are_not_of_training():
    seen, unseen = load_stamps(), load_stamps(held_out=True)
    assert set(unseen) < set(seen)
    pictures = {stamp.tobytes() for stamps in seen.values() for stamp in stamps}
    assert not pictures & {stamp.tobytes() for stamps in unseen.values() for stamp in stamps}


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
    same = Batches(seed=0, plan=PLANNED, batch_size=12)[3]  # without the batches before it
    assert torch.equal(pictures, same[0])
    assert captions == same[1]
    assert captions != batches[4][1]
    monkeypatch.setattr(batches, "seed", 1)
    assert captions != batches[3][1]


def longest(tokenizer, captions):
    return max(map(len, tokenizer(list(captions))["input_ids"]))


def test_longest_captions_of_scenes_fit(tokenizer):
    names = sorted((row["name"] for row in read_kinds()), key=lambda name: len(tokenizer(name)["input_ids"]))[-3:]
    rng = np.random.default_rng(0)
    captions = set()
    for place in PLACES:  # in a row, so that sides are named; small, so that sizes are
        scene = Scene(None, None, place, names, ["small"] * 3, np.array([[60.0 * i, 0] for i in range(3)]), np.zeros(3))
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


def test_any_text_can_be_written(tokenizer, subtests):
    for text in ["猫と犬", "🐱🐶", "naïve café", "x\x00\x7f", "ÿþ€", "0123456789", "~`|\\^"]:
        with subtests.test(text):
            ids = tokenizer(text)["input_ids"]
            assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
            assert tokenizer.unk_token_id not in ids[1:-1]
            decoded = tokenizer.decode(ids, skip_special_tokens=True)
            assert "".join(decoded.split()) == "".join(text.split())


def test_names_of_objects_are_one_token_a_word(tokenizer):
    for row in read_kinds():
        assert len(tokenizer(row["name"])["input_ids"]) == 2 + len(row["name"].split())


def test_growing_changes_nothing_and_copies_no_block(tokenizer):
    torch.manual_seed(0)
    small = CLIPModel(make_config(tokenizer, 3)).eval()
    grown = grow(small, tokenizer, 6).eval()
    pictures = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        one, other = (model.get_image_features(pixel_values=pictures).pooler_output for model in (small, grown))
    assert torch.allclose(one, other, atol=1e-6)
    for tower in ("vision_model", "text_model"):
        old, new = getattr(small, tower).encoder.layers, getattr(grown, tower).encoder.layers
        assert all(torch.equal(new[2 * i].mlp.fc1.weight, block.mlp.fc1.weight) for i, block in enumerate(old))
        assert not any(torch.equal(new[2 * i + 1].mlp.fc1.weight, new[2 * i].mlp.fc1.weight) for i in range(3))


def test_the_plan_grows_and_cools_twice():
    steps = [sum(stage.steps for stage in PLAN[: number + 1]) for number in range(len(PLAN))]
    assert [stage_at(PLAN, step).depth for step in (0, *steps[:-1])] == [3, 3, 6, 12, 12]
    rates = [rate(PLAN, step) for step in range(steps[-1])]
    assert min(rates) > 0
    assert max(rates) == 1
    assert rates[steps[1]] < 0.1 > rates[steps[2]]  # warmed up after each growth
    assert rates[steps[-2] - 1] < 0.01 > rates[-1]  # fallen at the end of growing, and at the end
    assert max(rates[steps[-2] :]) == 0.5


def test_pictures_that_lose_their_class_token_get_the_mean_one(tokenizer, subtests):
    for share in [0.0, 1.0]:
        with subtests.test(str(share)):
            torch.manual_seed(0)
            model, seen = CLIPModel(make_config(tokenizer, 12)), []
            keep = partial(lambda seen, _, args, kwargs: seen.append(kwargs), seen)
            for block in model.vision_model.encoder.layers:  # registered before, so that it sees what enters in the end
                block.self_attn.register_forward_pre_hook(keep, with_kwargs=True)
            with forget_class_token(model, np.random.default_rng(0), share), torch.no_grad():
                model.get_image_features(pixel_values=torch.randn(3, 3, 224, 224))
            spread = [float(states["hidden_states"][:, 0].std(0).max()) for states in seen]
            assert len(spread) == 12
            # Before block 0 all are alike.
            alike = [number for number, value in enumerate(spread) if value < 1e-5 and number]
            assert len(alike) == share
            assert not share or 7 <= alike[0] < 12
            assert not any(block._forward_pre_hooks for block in model.vision_model.encoder.layers)
