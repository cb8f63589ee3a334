"""NIB's text against all pictures of the batch, as a plain double loop has it."""

import copy
import functools

import pytest
import torch
from torch.nn.functional import normalize

import nib
from nib.evaluation import attribute_text_to_batch

SMALL = dict(layer=2, n_steps=3)


@pytest.fixture(scope="module")
def clip(clip, pixel_values):
    """A tiny model whose embeddings of the pictures are not nearly parallel: their common part is taken off."""
    model = copy.deepcopy(clip.model)
    pooled = model.vision_model(pixel_values).pooler_output
    model.vision_model.post_layernorm.bias -= 0.9 * pooled.mean(0)
    return nib.HookedCLIP(model, clip.tokenizer, clip.image_processor)


def mean_of_unit_embeddings(clip, pixel_values):
    with torch.no_grad():
        return torch.stack([normalize(clip.image.embed(picture[None])[0], dim=0) for picture in pixel_values]).mean(0)


def each_caption(tokens):
    for index, length in enumerate(tokens["attention_mask"].sum(1).tolist()):
        yield index, length, tokens["input_ids"][index : index + 1, :length]


def test_pictures_are_unlike(clip, pixel_values):
    assert mean_of_unit_embeddings(clip, pixel_values).norm() < 0.6


def test_equals_a_double_loop(clip, pixel_values, tokens):
    scores = attribute_text_to_batch(clip, pixel_values, **tokens, **SMALL)
    norm = mean_of_unit_embeddings(clip, pixel_values).norm()
    for index, length, ids in each_caption(tokens):
        maps = [nib.METHODS["nib"](clip, picture[None], ids, **SMALL).text[0] for picture in pixel_values]
        torch.testing.assert_close(scores[index, :length] * norm, sum(maps) / len(maps), rtol=1e-8, atol=1e-10)
        assert not scores[index, length:].any()
        assert (maps[index] - sum(maps) / len(maps)).abs().max() > 1e-3 * maps[index].abs().max()


def test_one_picture_or_equal_ones_are_the_pair_itself(clip, pixel_values, tokens):
    equal = pixel_values[:1].expand(3, -1, -1, -1)
    expected = nib.METHODS["nib"](clip, equal, **tokens, **SMALL).text
    tolerance = dict(rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(attribute_text_to_batch(clip, equal, **tokens, **SMALL), expected, **tolerance)
    for index, length, ids in each_caption(tokens):
        found = attribute_text_to_batch(clip, pixel_values[:1], ids, **SMALL)
        torch.testing.assert_close(found[0], expected[index, :length], **tolerance)


def test_leaves_nothing_behind(clip, pixel_values, tokens):
    before = clip.image.embed(pixel_values)
    assert not attribute_text_to_batch(clip, pixel_values, **tokens, **SMALL).requires_grad
    assert torch.equal(clip.image.embed(pixel_values), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in clip.model.modules())


def test_leaves_nothing_behind_after_an_error(clip, pixel_values, tokens, monkeypatch):
    @functools.wraps(nib.METHODS["nib"])
    def fail(clip, pixel_values, *args, **kwargs):
        assert clip.image.embed(pixel_values)[0].equal(clip.image.embed(pixel_values)[1])
        raise RuntimeError("stop")

    monkeypatch.setitem(nib.METHODS, "nib", fail)
    with pytest.raises(RuntimeError, match="stop"):
        attribute_text_to_batch(clip, pixel_values, **tokens)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in clip.model.modules())
    first, second = clip.image.embed(pixel_values[:2])
    assert not torch.equal(first, second)
