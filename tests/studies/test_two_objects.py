"""Scenes are chosen as stated, and mass is counted where it lies."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import nib
from studies.two_objects import (
    ASKED,
    BACKGROUND,
    OTHER,
    Scenes,
    choose_scenes,
    explain_scenes,
    make_half_true,
    measure_mass,
    shuffle_patches,
    stack_maps,
    tabulate_mass,
)

LABELS = np.array([[0, 1], [2, 2]], np.uint8)  # background, the first object, the second one


def make_row(number, *objects):
    return {"id": f"s{number}", "image": f"p{number}", "text": f"t{number}", "objects": objects, "masks": LABELS}


@pytest.fixture
def scenes():
    """The two of six scenes that hold exactly two different objects, but for the last."""
    rows = [("cat",), ("cat", "owl"), ("cat", "cat", "owl"), ("cat", "owl", "dog"), ("dog", "ant"), ("dog", "owl")]
    return choose_scenes([make_row(number, *objects) for number, objects in enumerate(rows)], 2)


def test_scenes_with_two_different_objects_are_asked_for_both_in_turn(scenes):
    assert (scenes.ids, scenes.pictures, scenes.captions) == (["s1", "s4"], ["p1", "p4"], ["t1", "t4"])
    assert (scenes.asked, scenes.others) == (["cat", "ant"], ["owl", "dog"])
    assert scenes.prompts == ["a cat", "an ant"]
    assert scenes.both_named == ["a cat and an owl", "an ant and a dog"]


def test_masks_are_those_of_what_is_asked_for(scenes):
    first, second = torch.tensor(LABELS == 1), torch.tensor(LABELS == 2)
    assert torch.equal(scenes.masks[ASKED], torch.stack([first, second]))
    assert torch.equal(scenes.masks[OTHER], torch.stack([second, first]))
    assert torch.equal(scenes.masks[BACKGROUND], torch.tensor(LABELS == 0).expand(2, 2, 2))


def test_half_of_a_half_true_caption_is_there(scenes):
    asked, there = ["cat", "ant"] * 20, [{"cat", "owl"}, {"ant", "dog"}] * 20
    many = Scenes([], [], [], asked, scenes.others * 20, {})
    captions, absent = make_half_true(many, [["cat", "owl"], ["dog", "ant"]])
    assert all(name not in objects for name, objects in zip(absent, there))
    assert set(absent) == {"cat", "owl", "dog", "ant"}
    article = {"cat": "a cat", "owl": "an owl", "dog": "a dog", "ant": "an ant"}
    truth_first = [text == f"{article[one]} and {article[two]}" for text, one, two in zip(captions, asked, absent)]
    lie_first = [text == f"{article[two]} and {article[one]}" for text, one, two in zip(captions, asked, absent)]
    assert all(a != b for a, b in zip(truth_first, lie_first))
    assert 0 < sum(truth_first) < 40
    assert make_half_true(many, [["cat", "owl"], ["dog", "ant"]]) == (captions, absent)
    assert make_half_true(many, [["cat", "owl"], ["dog", "ant"]], seed=1)[1] != absent


def test_each_scene_is_explained_with_its_text(clip):
    generator = np.random.default_rng(0)
    pictures = [Image.fromarray(generator.integers(0, 255, (60, 60, 3), dtype=np.uint8)) for _ in range(2)]
    scenes, texts = Scenes(["a", "b"], pictures, [], [], [], {}), ["a cat", "a dog"]
    runs = {"early": {"layer": 1}, "late": {"layer": 3}}
    maps = {name: stack_maps(found) for name, found in explain_scenes(clip, scenes, texts, runs).items()}
    for name, options in runs.items():
        alone = nib.attribute(clip, pictures[1], texts[1], **options).image_scores
        torch.testing.assert_close(maps[name][1], torch.tensor(alone))


def test_shuffled_patches_are_the_same_scores_in_other_places():
    maps = torch.arange(50.0).view(2, 5, 5)
    shuffled = shuffle_patches(maps)
    assert torch.equal(shuffled.flatten(1).sort().values, maps.flatten(1))
    moves = shuffled - torch.tensor([0.0, 25.0])[:, None, None]
    assert not torch.equal(moves[0], maps[0])
    assert not torch.equal(moves[0], moves[1])
    assert torch.equal(shuffled, shuffle_patches(maps))
    assert not torch.equal(shuffled, shuffle_patches(maps, seed=1))


def test_mass_by_hand(scenes):
    maps = {"one": torch.tensor([[[1.0, 2.0], [-3.0, 4.0]], [[0.0, -1.0], [1.0, 2.0]]])}
    mass = measure_mass(scenes, maps)
    assert mass.columns.tolist() == ["id", "method", "region", "sign", "value"]
    found = mass.set_index(["id", "region", "sign"])["value"]
    first = {(ASKED, "for"): 0.2, (OTHER, "for"): 0.4, (OTHER, "against"): 0.3, (BACKGROUND, "for"): 0.1}
    second = {(ASKED, "for"): 0.75, (OTHER, "against"): 0.25}
    for name, expected in (("s1", first), ("s4", second)):
        for key, value in found[name].items():
            assert value == pytest.approx(expected.get(key, 0)), (name, key)


def test_the_table_of_mass_by_hand():
    rows = [("a", 0.3, 0.1), ("b", 0.1, 0.3), ("c", 0.2, 0.4)]  # for and against on the other object
    parts = []
    for method, factor in (("z", 1), ("y", 2)):
        for name, positive, negative in rows:
            parts += [(name, method, OTHER, "for", positive), (name, method, OTHER, "against", factor * negative)]
            parts += [(name, method, ASKED, "for", positive), (name, method, ASKED, "against", 0.15)]
    mass = pd.DataFrame(parts, columns=["id", "method", "region", "sign", "value"])
    shares = mass.groupby(["region", "method", "sign"], sort=False)["value"].mean().rename("mean").reset_index()
    table = tabulate_mass(mass, shares.assign(low=0, high=1))
    assert table.index.tolist() == ["z", "y"]
    assert table[f"for, on {OTHER}"].tolist() == ["0.200 [0.000, 1.000]"] * 2
    assert table[f"against, on {OTHER}"].tolist() == ["0.267 [0.000, 1.000]", "0.533 [0.000, 1.000]"]
    assert table[f"net below zero on {OTHER}"].tolist() == [2 / 3, 2 / 3]
    assert table[f"net below zero on {ASKED}"].tolist() == [1 / 3, 1 / 3]
