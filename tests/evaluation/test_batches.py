"""Pairs read at once are what the towers take."""

import numpy as np
import pytest
import torch
from conftest import CAPTIONS
from PIL import Image

from nib.evaluation import read_pairs
from nib.inputs import to_pixel_values
from nib.pictures import to_mask


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)) for _ in CAPTIONS]
    return [{"id": index, "image": image, "text": text} for index, (image, text) in enumerate(zip(pictures, CAPTIONS))]


def test_one_batch(clip, pairs, tokens):
    batch = read_pairs(clip, pairs)
    pixel_values, input_ids, attention_mask = batch.arguments()
    assert batch.ids == ["0", "1", "2"]
    assert torch.equal(pixel_values, torch.cat([to_pixel_values(clip, row["image"]) for row in pairs]))
    assert torch.equal(input_ids, tokens["input_ids"])
    assert torch.equal(attention_mask, tokens["attention_mask"])
    assert batch.masks is None


def test_what_cannot_be_read_is_left_out(clip, pairs, tmp_path):
    pairs[1]["image"] = tmp_path / "missing.jpg"
    batch = read_pairs(clip, pairs)
    assert batch.ids == ["0", "2"]
    assert [len(values) for values in batch.arguments()] == [2, 2, 2]


def test_captions_are_padded_to_the_longest_that_is_left(clip, pairs, tmp_path):
    pairs[2]["image"] = tmp_path / "missing.jpg"
    assert read_pairs(clip, pairs).input_ids.shape == (2, 11)


def test_bad_pairs(clip, pairs):
    for rows, message in (
        ([], "at least one picture that can be read, got 0 pairs"),
        ([pairs[0] | {"image": "missing.jpg"}], "at least one picture that can be read, got 1 pairs"),
        ([{"id": 0, "text": "a cat"}], "columns id, image and text, got id, text"),
        ([pairs[0] | {"text": "a dog " * 20}], "the model's context is 32"),
    ):
        with pytest.raises(ValueError, match=message):
            read_pairs(clip, rows)
    with pytest.warns(UserWarning, match="its end is cut off"):
        assert read_pairs(clip, [pairs[0] | {"text": "a dog " * 20}], truncate=True).input_ids.shape == (1, 32)
    with pytest.raises(TypeError, match="a picture must be"):
        read_pairs(clip, [pairs[0] | {"image": 7}])


def test_a_mask_of_a_tensor_is_where_it_is_above_0(clip):
    values = torch.tensor([[0.0, 0.5], [1.0, 255.0]]).repeat_interleave(30, 0).repeat_interleave(30, 1)
    assert torch.equal(to_mask(clip, values, torch.zeros(3, 60, 60), "masks"), values > 0)
