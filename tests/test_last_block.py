"""The last block of one token alone is the last block."""

import copy

import pytest
import torch
from torch import nn

from nib import last_block
from nib.methods.attention import NAME

KINDS = pytest.mark.parametrize("kind", ["sdpa", "eager", NAME])


@pytest.fixture(params=["image", "text", "padded"])
def split(request, clip, pixel_values, tokens):
    """Both towers before their last block; the text without a mask and with padding."""
    if request.param == "image":
        return clip.image.split(pixel_values, 3)
    mask = tokens["attention_mask"] if request.param == "padded" else None
    return clip.text.split(tokens["input_ids"], 3, mask)


def whole(split, states):
    """Run transformers' own block and take the pooled token."""
    rows = torch.arange(len(states))
    return split.tower.blocks[-1](states, **split.arguments)[rows, split.pool_index]


def short(split, states):
    return last_block.run_pooled(split.tower.blocks[-1], states, split.pool_index, **split.arguments)


@KINDS
def test_values_and_gradients_are_those_of_the_block(clip, pixel_values, tokens, kind):
    model = clip.model
    before = model.config._attn_implementation
    # transformers' eager attention rounds its softmax to float32
    close = dict(rtol=1e-10, atol=1e-10) if kind != "eager" else dict(rtol=1e-4, atol=1e-5)
    try:
        model.set_attn_implementation(kind)
        for split in (
            clip.image.split(pixel_values, 3),
            clip.text.split(tokens["input_ids"], 3),
            clip.text.split(tokens["input_ids"], 3, tokens["attention_mask"]),
        ):
            assert last_block.fits(split.tower.blocks[-1])
            states = split.hidden_states.clone().requires_grad_()
            expected, found = whole(split, states), short(split, states)
            torch.testing.assert_close(found, expected, **close)
            weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0), dtype=states.dtype)
            (right,) = torch.autograd.grad((expected * weights).sum(), states)
            (ours,) = torch.autograd.grad((found * weights).sum(), states)
            torch.testing.assert_close(ours, right, **close)
    finally:
        model.set_attn_implementation(before)


def test_a_split_takes_it_and_a_hooked_block_runs_whole(clip, split):
    block = split.tower.blocks[-1]
    embeds = split(split.hidden_states)
    calls = []
    handle = block.register_forward_hook(lambda *args: calls.append(1))
    try:
        assert not last_block.fits(block)
        torch.testing.assert_close(split(split.hidden_states), embeds, rtol=1e-10, atol=1e-10)
    finally:
        handle.remove()
    assert calls == [1]
    assert last_block.fits(block)


def test_does_not_fit_what_is_not_clips_own_block(clip):
    block = copy.deepcopy(clip.image.blocks[-1])
    assert last_block.fits(block)

    class Other(type(block)):
        pass

    block.self_attn.v_proj = nn.Sequential(block.self_attn.v_proj)
    assert not last_block.fits(block)
    block = copy.deepcopy(clip.image.blocks[-1])
    block.__class__ = Other
    assert not last_block.fits(block)


def test_float32_is_close_to_float64(clip, split):
    block = split.tower.blocks[-1]
    exact = short(split, split.hidden_states)
    single = copy.deepcopy(block).float()
    found = last_block.run_pooled(single, split.hidden_states.float(), split.pool_index, **split.arguments)
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)
