import pytest
import torch
from plain import Side, assert_scores, pairs, similarity
from test_pixel_gradient import each_patch

import nib
from nib.methods.rise import draw_image_masks, draw_text_masks

SETTINGS = dict(n_masks=12, grid=4, p=0.3, text_masks=9)


def image_masks(n_masks=12, grid=4, p=0.3, size=(60, 60), seed=5, chunk=100):
    return torch.cat(list(draw_image_masks(n_masks, grid, p, size, seed, chunk)))


def test_equals_a_plain_sum_with_the_same_masks(clip, pixel_values, tokens):
    scores = nib.METHODS["rise"](clip, pixel_values, **tokens, seed=5, **SETTINGS)
    for index, pixels, ids, image, text in pairs(clip, pixel_values, tokens):
        saliency = torch.zeros(60, 60, dtype=torch.float64)
        for mask in image_masks().double():
            masked = Side(clip, pixels * mask)
            saliency += similarity(masked.target(), text.target()) * mask / (12 * 0.3)
        words = torch.zeros(ids.shape[1], 32, dtype=torch.float64)
        for mask in draw_text_masks(9, ids.shape[1], 32, 0.3, seed=5).double():
            embeds = text.embed(text.start(text.embeddings * mask))
            words += similarity(embeds, image.target()) * mask / (9 * 0.3)
        expected = each_patch(saliency, lambda patch: patch.mean())
        assert_scores(scores, index, expected, words.mean(-1), with_class=False)


def test_masks_that_keep_everything_give_the_similarity(clip, pixel_values, tokens):
    scores = nib.METHODS["rise"](clip, pixel_values, **tokens, n_masks=3, p=1.0, text_masks=2)
    torch.testing.assert_close(scores.image, scores.similarity[:, None, None].expand(-1, 5, 5))
    real = tokens["attention_mask"].bool()
    torch.testing.assert_close(scores.text[real], scores.similarity[:, None].expand_as(real)[real])


def test_image_masks_are_smooth_seeded_and_cover_any_size():
    masks = image_masks(n_masks=3000, grid=8, p=0.1, size=(48, 75))
    assert masks.shape == (3000, 48, 75)
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert abs(masks.mean() - 0.1) < 0.01
    assert masks.mean(0).min() > 0.05  # no place is seldom seen, at the border neither
    assert masks.mean(0).max() < 0.15
    assert ((masks > 0) & (masks < 1)).any()
    torch.testing.assert_close(masks, image_masks(3000, 8, 0.1, (48, 75), chunk=7), rtol=0, atol=0)
    assert not torch.equal(masks, image_masks(3000, 8, 0.1, (48, 75), seed=6))


def test_image_masks_are_shifted_by_less_than_a_cell():
    full = torch.nn.functional.interpolate
    masks = image_masks(n_masks=40, grid=4, p=0.5)
    generator = torch.Generator().manual_seed(5)
    cells = (torch.rand(40, 4, 4, generator=generator) < 0.5).float()
    shifts = set()
    for mask, cell in zip(masks, cells):
        grown = full(cell[None, None], (75, 75), mode="bilinear")[0, 0]
        found = [(r, c) for r in range(15) for c in range(15) if torch.equal(mask, grown[r : r + 60, c : c + 60])]
        assert found
        shifts.add(found[0])
    assert len(shifts) > 20


def test_text_masks_are_blind_to_padding():
    masks = draw_text_masks(200, 9, 32, 0.1, seed=1)
    assert masks.shape == (200, 9, 32)
    assert abs(masks.float().mean() - 0.1) < 0.01
    assert torch.equal(masks[:, :4], draw_text_masks(200, 4, 32, 0.1, seed=1))


@pytest.mark.parametrize("parameters", [{"n_masks": 0}, {"grid": 0}, {"text_masks": 0}, {"p": 0.0}, {"p": 1.5}])
def test_rejects_bad_parameters(clip, pixel_values, tokens, parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        nib.METHODS["rise"](clip, pixel_values, **tokens, **parameters)
