"""What the similarity loses without a token is what a plain loop says."""

import torch
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

from nib.evaluation import Batch
from nib.inputs import to_tokens
from studies.removal import drops_without_patches, drops_without_states, drops_without_words


def test_a_plain_loop_agrees(clip, tokens):
    split = clip.text.split(tokens["input_ids"], 2, tokens["attention_mask"])
    targets = torch.randn(3, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    drops = drops_without_states(split, targets)
    for pair in range(3):
        alone, z = split[pair : pair + 1], split.hidden_states[pair : pair + 1]
        for token in range(z.shape[1]):
            keep = (torch.arange(z.shape[1]) != token).to(z)[None, :, None]
            change = cosine_similarity(alone(z), targets[pair]) - cosine_similarity(alone(z * keep), targets[pair])
            assert_close(drops[pair, token], change[0], atol=1e-12, rtol=0)
    assert drops.abs().max() > 1e-3


def test_a_token_after_the_end_costs_nothing(clip, tokens):
    split = clip.text.split(tokens["input_ids"], 2, tokens["attention_mask"])
    drops = drops_without_states(split, torch.ones(3, 16, dtype=torch.float64))
    assert (drops[tokens["attention_mask"] == 0] == 0).all()


def test_only_the_class_token_counts_after_the_last_block(clip, pixel_values):
    split = clip.image.split(pixel_values, 4)
    drops = drops_without_states(split, torch.ones(3, 16, dtype=torch.float64))
    assert (drops[:, 1:] == 0).all()
    assert (drops[:, 0] != 0).all()


def test_a_patch_is_painted_in_the_mean_colour(clip, pixel_values, tokens):
    pairs = Batch(["a", "b", "c"], pixel_values, tokens["input_ids"], tokens["attention_mask"], None)
    drops = drops_without_patches(clip, pairs)
    assert drops.shape == (3, 25)
    painted = pixel_values.clone()
    painted[:, :, 12:24, 24:36] = 0  # row 1, column 2 of 5
    image, text = pairs.embeds(clip)
    expected = cosine_similarity(image, text) - cosine_similarity(clip.image.embed(painted), text)
    assert_close(drops[:, 7], expected, atol=1e-10, rtol=0)


def test_a_word_is_dropped_and_what_is_no_word_costs_nothing(clip, pixel_values):
    drops = drops_without_words(clip, pixel_values[:2], [["a", "dog"], ["a", "red", "dog"]])
    assert drops.shape == (2, 3)
    assert drops[0, 2] == 0
    image = clip.image.embed(pixel_values[1:2])
    full, without = (clip.text.embed(to_tokens(clip, [text])[0]) for text in ("a red dog", "a dog"))
    expected = cosine_similarity(image, full) - cosine_similarity(image, without)
    assert_close(drops[1, 1], expected[0], atol=1e-10, rtol=0)
