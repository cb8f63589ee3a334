import pytest
import torch
from plain import Side, assert_scores, pairs, similarity
from test_gradients import each_patch

import nib
from nib.methods.rise import draw_image_masks, draw_text_masks

SETTINGS = dict(n_masks=12, grid=4, p=0.3, text_masks=9)


def image_masks(n_masks=12, grid=4, p=0.3, size=(60, 60), seed=5, chunk=100):
    return torch.cat(list(draw_image_masks(n_masks, grid, p, size, seed, chunk)))


def test_equals_a_plain_sum_with_the_same_masks(clip, pixel_values, tokens, subtests):
    for cells, by_coverage in ((8, False), (3, True), (None, False), (None, True)):
        with subtests.test(f"{cells} cells{', by coverage' if by_coverage else ''}"):
            compare_with_a_plain_sum(clip, pixel_values, tokens, cells, by_coverage)


def compare_with_a_plain_sum(clip, pixel_values, tokens, cells, by_coverage):
    form = dict(text_cells=cells, by_coverage=by_coverage)
    scores = nib.METHODS["rise"](clip, pixel_values, **tokens, seed=5, **form, **SETTINGS)

    def divisor(kept, n_masks):
        return kept.clamp(min=1e-12) if by_coverage else n_masks * 0.3

    for index, pixels, ids, image, text in pairs(clip, pixel_values, tokens):
        saliency = torch.zeros(60, 60, dtype=torch.float64)
        for mask in image_masks().double():
            masked = Side(clip, pixels * mask)
            saliency += similarity(masked.target(), text.target()) * mask / divisor(image_masks().double().sum(0), 12)
        words = torch.zeros(ids.shape[1], 1, dtype=torch.float64)
        masks = plain_text_masks(ids.shape[1], cells)
        for mask in masks:  # (tokens, 1 or width)
            embeds = text.embed(text.start(text.embeddings * mask))
            words = words + similarity(embeds, image.target()) * mask
        words = words.mean(-1) / divisor(masks.mean(-1).sum(0), 9)
        expected = each_patch(saliency, lambda patch: patch.mean())
        assert_scores(scores, index, expected, words, with_class=False)
        torch.testing.assert_close(scores.image_pixels[index], saliency, rtol=1e-8, atol=1e-8)


def plain_text_masks(length, cells, n_masks=9, p=0.3, seed=5):
    """Masks written out: (n_masks, length, 1 or width)."""
    if cells is None:
        return draw_text_masks(n_masks, [length], 32, p, seed, None, length)[:, 0].double()
    generator = torch.Generator().manual_seed(seed)
    kept = (torch.rand(n_masks, cells, generator=generator) < p).double()
    places = torch.rand(n_masks, generator=generator)
    size = -(-length // cells)
    masks = torch.zeros(n_masks, length, 1, dtype=torch.float64)
    for mask, row, place in zip(masks, kept, places):
        for token in range(length):
            x = (int(place * size) + token + 0.5) * cells / ((cells + 1) * size) - 0.5
            x = min(max(x, 0), cells - 1)
            low = min(int(x), cells - 2) if cells > 1 else 0
            high = min(low + 1, cells - 1)
            mask[token] = row[low] * (1 - (x - low)) + row[high] * (x - low)
    return masks


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


def test_text_masks_are_blind_to_padding_and_to_other_captions():
    for cells in (8, None):
        masks = draw_text_masks(2000, [9, 4], 32, 0.1, 1, cells, 9)
        assert masks.shape == (2000, 2, 9, 1 if cells else 32)
        assert abs(masks[:, 0].mean() - 0.1) < 0.01
        alone = draw_text_masks(2000, [4], 32, 0.1, 1, cells, 4)
        assert torch.equal(masks[:, 1, :4], alone[:, 0])


def test_half_of_the_text_masks_of_the_default_keep_nothing():
    masks = draw_text_masks(4000, [12], 1, 0.1, 0, 8, 12)
    assert abs((masks == 0).all(2).float().mean() - 0.51) < 0.03


def test_coverage_steadies_the_map_between_seeds(clip, pixel_values, tokens):
    def correlation(by_coverage):
        maps = [nib.METHODS["rise"](clip, pixel_values, **tokens, seed=s, by_coverage=by_coverage, **SETTINGS).image
                for s in (0, 1)]  # fmt: skip
        return torch.corrcoef(torch.stack([m.flatten() for m in maps]))[0, 1]

    assert correlation(True) > correlation(False)


BAD = [("n_masks", 0), ("grid", 0), ("text_masks", 0), ("text_cells", 0), ("p", 0.0), ("p", 1.5)]


def test_rejects_bad_parameters(clip, pixel_values, tokens, subtests):
    for name, value in BAD:
        with subtests.test(f"{name}={value}"), pytest.raises(ValueError, match=f"{name} must be"):
            nib.METHODS["rise"](clip, pixel_values, **tokens, **{name: value})
