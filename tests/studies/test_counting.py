import pytest
import torch

import nib
from studies.counting import TowerCount, count


def passes(clip, method, pixel_values, tokens, **parameters):
    with count(clip) as counts:
        nib.METHODS[method](clip, pixel_values, **tokens, **parameters)
    return counts, {name: (tower.forward_passes(3), tower.backward_passes(3)) for name, tower in vars(counts).items()}


def test_a_full_tower_is_one_pass(clip, pixel_values, tokens):
    with count(clip) as counts:
        clip.image.embed(pixel_values)
    assert counts.image == TowerCount(4, [1, 1, 1, 1], forward_rows=12, backward_rows=0)
    assert counts.text == TowerCount(4, [0, 0, 0, 0])
    assert (counts.image.forward_passes(pairs=3), counts.image.calls, counts.text.calls) == (1, 1, 0)


def test_nib_pays_for_its_suffix_only(clip, pixel_values, tokens):
    # 1 block of the prefix; 3 blocks each for the embedding and 5 steps, and for F(0) of one pair of the three.
    counts, found = passes(clip, "nib", pixel_values, tokens, layer=1, n_steps=5, batch_size=6)
    assert found == {"image": ((1 + 3 + 15 + 1) / 4, 15 / 4), "text": ((1 + 3 + 15 + 1) / 4, 15 / 4)}
    assert counts.image.block_calls == [1, 5, 5, 5]  # the embedding, 2 + 2 + 1 steps, and F(0)
    assert counts.image.calls == 5


def test_m2ib_pays_for_each_copy(clip, pixel_values, tokens):
    # 2 blocks of the prefix; 2 each for the embedding and 3 updates of 3 copies: the last capacity needs no pass.
    _, found = passes(clip, "m2ib", pixel_values, tokens, layer=2, n_steps=4, n_noise=3)
    assert found == {"image": ((2 + 2 + 18) / 4, 18 / 4), "text": ((2 + 2 + 18) / 4, 18 / 4)}


def test_the_others(clip, pixel_values, tokens):
    def both(*value):
        return {"image": value, "text": value}

    assert passes(clip, "gradcam", pixel_values, tokens, layer=3)[1] == both(1, 1 / 4)
    assert passes(clip, "chefer", pixel_values, tokens)[1] == both(1, 1 / 4)
    assert passes(clip, "chefer", pixel_values, tokens, start_layer=1)[1] == both(1, 3 / 4)
    assert passes(clip, "pixel_gradient", pixel_values, tokens)[1] == both(1, 1)
    assert passes(clip, "mfaba", pixel_values, tokens, n_steps=6)[1] == both(7, 6)
    rise = passes(clip, "rise", pixel_values, tokens, n_masks=10, text_masks=6)[1]
    assert rise == {"image": (11, 0), "text": (7, 0)}
    assert passes(clip, "none", pixel_values, tokens)[1] == both(1, 0)


def test_one_picture_with_many_captions_costs_less(clip, pixel_values, tokens):
    own = passes(clip, "rise", pixel_values, tokens, n_masks=10, text_masks=6)[1]["image"]
    shared = passes(clip, "rise", pixel_values[:1], tokens, n_masks=10, text_masks=6)[1]["image"]
    assert shared[0] == own[0] / 3


def test_changes_nothing_and_leaves_no_hook(clip, pixel_values, tokens):
    with count(clip) as counts:
        inside = nib.METHODS["nib"](clip, pixel_values, **tokens, layer=2)
    rows = counts.image.forward_rows
    outside = nib.METHODS["nib"](clip, pixel_values, **tokens, layer=2)
    torch.testing.assert_close(
        inside.image, outside.image, rtol=1e-10, atol=1e-12
    )  # counted, the last block runs whole
    assert counts.image.forward_rows == rows


def test_leaves_no_hook_after_an_error(clip, pixel_values, tokens):
    blocks = [block for tower in (clip.image, clip.text) for block in tower.blocks]
    before = [dict(block._forward_hooks) for block in blocks]  # transformers keeps hooks of its own
    with pytest.raises(ValueError, match="layer"), count(clip):
        nib.METHODS["nib"](clip, pixel_values, **tokens, layer=99)
    assert [dict(block._forward_hooks) for block in blocks] == before


def test_needs_a_pair():
    with pytest.raises(ValueError, match="pairs must be at least 1, got 0"):
        TowerCount(4).forward_passes(0)
