import pytest
import torch

import nib
from nib.heatmaps import to_heatmap


def test_random_is_seeded_uniform_and_differs_between_pairs_and_pictures(clip, pixel_values, tokens):
    first, same, other = (nib.METHODS["random"](clip, pixel_values, **tokens, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.image, same.image)
    assert torch.equal(first.text, same.text)
    assert not torch.equal(first.image, other.image)
    assert first.image.unique().numel() == first.image.numel()
    assert first.image.min() >= 0
    assert first.image.max() < 1
    assert abs(first.image.mean() - 0.5) < 0.15
    same_caption = {name: values[:1].expand(3, -1) for name, values in tokens.items()}
    scores = nib.METHODS["random"](clip, pixel_values, **same_caption)
    assert not torch.equal(scores.image[0], scores.image[1])
    assert not torch.equal(scores.text[0], scores.text[1])


def test_center_is_a_gaussian_and_a_triangle(clip, pixel_values, tokens):
    scores = nib.METHODS["center"](clip, pixel_values, **tokens, sigma=0.4)
    steps = torch.tensor([-0.8, -0.4, 0.0, 0.4, 0.8], dtype=torch.float64)
    expected = torch.exp(-(steps[:, None] ** 2 + steps**2) / (2 * 0.4**2))
    torch.testing.assert_close(scores.image, expected.expand(3, -1, -1), rtol=1e-6, atol=1e-6)
    for text, mask in zip(scores.text, tokens["attention_mask"].bool()):
        words = text[mask][1:-1]
        assert text[0] == 0
        assert text[mask][-1] == 0
        assert (words > 0).all()
        torch.testing.assert_close(words, words.flip(0))
        assert (words.diff()[: (len(words) - 1) // 2] > 0).all()
    torch.testing.assert_close(scores.text[0][:4], torch.tensor([0, 0.5, 0.5, 0], dtype=torch.float64))
    with pytest.raises(ValueError, match="sigma must be more than 0 and finite, got 0"):
        nib.METHODS["center"](clip, pixel_values, **tokens, sigma=0)


def test_none_masks_nothing(clip, pixel_values, tokens):
    scores = nib.METHODS["none"](clip, pixel_values, **tokens)
    assert (to_heatmap(scores.image, (60, 60)) == 1).all()
    assert torch.equal(scores.text, tokens["attention_mask"].double())


def test_objectness_is_the_distance_from_the_mean_and_blind_to_the_text(clip, pixel_values, tokens):
    scores = nib.METHODS["objectness"](clip, pixel_values, **tokens, layer=2)
    for pair, length in enumerate(tokens["attention_mask"].sum(1).tolist()):
        patches = clip.image.split(pixel_values[[pair]], 2).hidden_states[0, 1:]
        expected = ((patches - patches.mean(0)) ** 2).sum(-1).sqrt()
        torch.testing.assert_close(scores.image[pair].flatten(), expected)
        words = clip.text.split(tokens["input_ids"][[pair], :length], 2).hidden_states[0, 1:-1]
        expected = ((words - words.mean(0)) ** 2).sum(-1).sqrt()
        torch.testing.assert_close(scores.text[pair, 1 : length - 1], expected)
        assert scores.text[pair, 0] == scores.text[pair, length - 1] == 0
    other = {name: values.flip(0) for name, values in tokens.items()}
    torch.testing.assert_close(nib.METHODS["objectness"](clip, pixel_values, **other, layer=2).image, scores.image)
