import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from nib.methods import METHODS
from studies.table1 import cocoa


@pytest.fixture
def sets():
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(n, 16, generator=generator, dtype=torch.float64) for n in (3, 5)]


def test_similarity_is_the_difference_of_two_means(sets):
    embeds = torch.randn(2, 16, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = cocoa.similarity(embeds, *sets)
    for row, embed in enumerate(embeds):
        means = [np.mean([float(cosine_similarity(embed, other, dim=0)) for other in group]) for group in sets]
        assert float(found[row]) == pytest.approx(means[0] - means[1], abs=1e-12)


def test_pixel_scores_add_up(clip, pixel_values, sets):
    scores, difference = cocoa.of_pixels(clip.image.embed, pixel_values, *sets, n_steps=200)
    assert scores.shape == (3, 60, 60)
    torch.testing.assert_close(scores.sum((1, 2)), difference, atol=1e-6, rtol=0)
    assert difference.abs().max() > 1e-3


def test_token_scores_are_nib_on_the_mean_target(clip, pixel_values, tokens):
    """NIB's scores are linear in the target: a corpus and a foil of one text each are a difference of two maps."""
    split = clip.image.split(pixel_values, 2)
    texts = clip.text.embed(tokens["input_ids"], tokens["attention_mask"])
    scores, _ = cocoa.of_tokens(split, split.hidden_states, texts[:1], texts[1:2], n_steps=10)
    maps = []
    for text in range(2):
        rows = {name: values[[text] * 3] for name, values in tokens.items()}
        found = METHODS["nib"](clip, pixel_values, **rows, layer=2, n_steps=10)
        maps.append(torch.cat([found.image_class[:, None], found.image.flatten(1)], 1))
    torch.testing.assert_close(scores, maps[0] - maps[1])


def test_steps_must_be_positive(clip, pixel_values, sets):
    with pytest.raises(ValueError, match="n_steps must be at least 1, got 0"):
        cocoa.of_pixels(clip.image.embed, pixel_values, *sets, n_steps=0)
