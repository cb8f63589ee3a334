"""Cut sides are the towers' own, and states are those of every picture."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch.testing import assert_close

from nib.evaluation import Batch
from nib.inputs import to_pixel_values
from studies.theory import SIDES, choose_pairs, cut_side, cut_sides, embed_others, read_states


@pytest.fixture
def pairs(pixel_values, tokens):
    return Batch(["a", "b", "c"], pixel_values, tokens["input_ids"], tokens["attention_mask"], None)


def test_the_first_pairs_with_a_sentence_are_taken():
    rows = [{"text": text} for text in ("a dog", "a red dog", "two dogs run", "dog " * 21, "one more dog")]
    assert [row["text"] for row in choose_pairs(rows, 2)] == ["a red dog", "two dogs run"]
    assert [row["text"] for row in choose_pairs(iter(rows), 9)] == ["a red dog", "two dogs run", "one more dog"]


def test_states_are_those_of_every_picture_in_order(clip):
    generator = np.random.default_rng(0)
    pictures = [Image.fromarray(generator.integers(0, 255, (60, 60, 3), dtype=np.uint8)) for _ in range(5)]
    rows = Dataset.from_dict({"image": pictures})
    found = read_states(clip, [rows.select(range(3)), rows.select([3, 4])], 2, batch_size=2)
    pixels = torch.cat([to_pixel_values(clip, picture) for picture in pictures])
    assert_close(found, clip.image.split(pixels, 2).hidden_states, atol=1e-10, rtol=0)


def test_each_side_is_cut_and_compared_with_the_other(clip, pairs, pixel_values, tokens):
    found = list(cut_sides(clip, pairs, [1, 3], n_pairs=2))
    assert [(side, layer) for side, layer, _, _ in found] == [(side, layer) for side in SIDES for layer in (1, 3)]
    image, text = clip.image.embed(pixel_values), clip.text.embed(tokens["input_ids"], tokens["attention_mask"])
    for side, layer, split, targets in found:
        own, other = (image, text) if side == "picture" else (text, image)
        assert split.layer == layer
        assert_close(split(split.hidden_states), own[:2], atol=1e-10, rtol=0)
        assert_close(targets, other[:2], atol=1e-10, rtol=0)


def test_all_pairs_are_kept_by_default(clip, pairs):
    assert [len(split) for _, _, split, _ in cut_sides(clip, pairs, [2])] == [3, 3]
    assert set(embed_others(clip, pairs)) == set(SIDES)


def test_an_unknown_side_is_refused(clip, pairs):
    with pytest.raises(KeyError, match="side must be one of"):
        cut_side(clip, pairs, "text", 2)
