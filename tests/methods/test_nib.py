"""NIB scores a pair the same way alone and in a batch, and says how far its sums miss."""

from dataclasses import fields
from operator import attrgetter

import pytest
import torch
from captum.attr import IntegratedGradients
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

from nib.methods import PRESETS, Scores
from nib.methods.nib import nib

PRECISE = dict(atol=1e-10, rtol=0)
PATH = dict(layer=2, n_steps=4)
SUMS = [f"{side}_sums.{name}" for side in ("image", "text") for name in ("difference", "gap", "gap_from_zero")]
NAMES = ["image", "text", "similarity", "image_class", *SUMS]


@pytest.fixture(scope="module")
def scores(clip, pixel_values, tokens):
    return nib(clip, pixel_values, **tokens, **PATH)


def test_shapes_padding_and_repeated_words(scores, tokens):
    assert scores.image.shape == (3, 5, 5)
    assert scores.text.shape == tokens["input_ids"].shape
    for name in ("similarity", "image_class", "image_sums.gap", "text_sums.gap"):
        assert attrgetter(name)(scores).shape == (3,)
    assert scores.image_pixels is None
    assert not any(attrgetter(name)(scores).requires_grad for name in NAMES)
    padding = tokens["attention_mask"] == 0
    assert padding.any()
    assert (scores.text[padding] == 0).all()
    assert (scores.text[~padding] != 0).all()
    assert tokens["input_ids"][1, 2] == tokens["input_ids"][1, 6]
    assert abs(scores.text[1, 2] - scores.text[1, 6]) > 1e-6


def test_batch_equals_its_pairs(clip, pixel_values, tokens, scores, subtests):
    for pair, length in enumerate(tokens["attention_mask"].sum(1).tolist()):
        ids = tokens["input_ids"][[pair], :length]  # alone, a caption needs no padding
        for label, mask in (("mask", torch.ones_like(ids)), ("no mask", None)):
            with subtests.test(f"pair {pair}, {label}"):
                alone = nib(clip, pixel_values[[pair]], ids, mask, **PATH)
                assert_close(scores.text[pair, :length], alone.text[0], **PRECISE)
                for name in ("image", "similarity", "image_class", "image_sums.gap", "text_sums.gap"):
                    assert_close(attrgetter(name)(scores)[pair], attrgetter(name)(alone)[0], **PRECISE)


def test_nothing_after_the_end_token_without_a_mask(clip, pixel_values, tokens, scores):
    unmasked = nib(clip, pixel_values, tokens["input_ids"], **PATH)  # padded with end tokens
    assert (unmasked.text[tokens["attention_mask"] == 0] == 0).all()
    assert_close(unmasked.text, scores.text, **PRECISE)


def test_word_that_the_mask_hides(clip, pixel_values, tokens):
    ids, mask = tokens["input_ids"], tokens["attention_mask"].clone()
    mask[1, 2] = 0
    hidden = nib(clip, pixel_values, ids, mask, **PATH)
    expected = cosine_similarity(clip.image.embed(pixel_values), clip.text.embed(ids, mask))
    assert_close(hidden.similarity, expected, **PRECISE)
    assert hidden.text[1, 2] == 0
    assert hidden.text[1, 3] != 0


def test_shared_picture_equals_pairs(clip, pixel_values, tokens):
    shared = nib(clip, pixel_values[:1], **tokens, **PATH)
    pairs = nib(clip, pixel_values[:1].expand(3, -1, -1, -1), **tokens, **PATH)
    for field in fields(Scores):
        assert_close(getattr(shared, field.name), getattr(pairs, field.name), **PRECISE)


def test_runs_repeat_bit_for_bit(clip, pixel_values, tokens, scores):
    again = nib(clip, pixel_values, **tokens, **PATH, seed=1)
    assert all(torch.equal(attrgetter(name)(again), attrgetter(name)(scores)) for name in NAMES)


def test_gaps_and_class_token(clip, pixel_values, tokens, subtests):
    for lambda_min in (0.0, 0.2):
        with subtests.test(f"from {lambda_min}"):
            scores = nib(clip, pixel_values, **tokens, **PATH, lambda_min=lambda_min)
            image = clip.image.split(pixel_values, 2)
            text = clip.text.split(tokens["input_ids"], 2, tokens["attention_mask"])
            image_embeds, text_embeds = clip.image.embed(pixel_values), clip.text.embed(*tokens.values())
            similarity = cosine_similarity(image_embeds, text_embeds)
            image_start = cosine_similarity(image(lambda_min * image.hidden_states), text_embeds)
            text_start = cosine_similarity(image_embeds, text(lambda_min * text.hidden_states))
            image_sum = scores.image.sum((1, 2)) + scores.image_class
            assert_close(scores.similarity, similarity, **PRECISE)
            assert_close(scores.image_sums.gap, image_sum - (similarity - image_start), **PRECISE)
            assert_close(scores.text_sums.gap, scores.text.sum(1) - (similarity - text_start), **PRECISE)
            assert (scores.image_sums.gap.abs() > 1e-4).all()  # four steps are few
            image_zero = cosine_similarity(image(0 * image.hidden_states), text_embeds)
            text_zero = cosine_similarity(image_embeds, text(0 * text.hidden_states))
            assert_close(scores.image_sums.difference, similarity - image_start, **PRECISE)
            assert_close(scores.text_sums.difference, similarity - text_start, **PRECISE)
            assert_close(scores.image_sums.gap_from_zero, image_sum - (similarity - image_zero), **PRECISE)
            assert_close(scores.text_sums.gap_from_zero, scores.text.sum(1) - (similarity - text_zero), **PRECISE)


def test_picture_and_caption_may_have_paths_of_their_own(clip, pixel_values, tokens, subtests):
    first = dict(n_steps=3, quadrature="gausslegendre", lambda_min=0.1)
    second = dict(n_steps=4, quadrature="riemann_middle", lambda_min=0.3)
    paired = {name: (first[name], second[name]) for name in first}
    for label, pictures in (("pairs", pixel_values), ("shared picture", pixel_values[:1])):
        with subtests.test(label):
            both = nib(clip, pictures, **tokens, layer=2, **paired)
            of_image, of_text = (nib(clip, pictures, **tokens, layer=2, **path) for path in (first, second))
            for field in fields(Scores):
                expected = of_text if field.name.startswith("text") else of_image
                assert_close(getattr(both, field.name), getattr(expected, field.name), **PRECISE)
    path = dict(layer=2, quadrature="gausslegendre")
    listed = nib(clip, pixel_values, **tokens, n_steps=[3, 4], **path)  # as YAML has it
    assert_close(listed.image, nib(clip, pixel_values, **tokens, n_steps=3, **path).image)


def test_scores_add_up_with_many_nodes(clip, pixel_values, tokens):
    path = dict(layer=2, n_steps=64, quadrature="gausslegendre", lambda_min=0.1)
    scores = nib(clip, pixel_values[:1], tokens["input_ids"][:1, :4], **path)
    assert max(scores.image_sums.gap.abs().item(), scores.text_sums.gap.abs().item()) < 1e-6
    assert scores.image_class.abs().item() > 1e-3  # the map alone would not add up


BAD = [
    (dict(layer=5), "layer must be"),
    (dict(layer=(1, 2, 3)), r"layer must be one number or two, of image and text, got \(1, 2, 3\)"),
    (dict(n_steps=0), "n_steps must be"),
    (dict(n_steps=(1, 2, 3)), r"n_steps must be one value or two, of picture and caption, got \(1, 2, 3\)"),
    (dict(lambda_min=1.0), "lambda_min must be"),
    (dict(batch_size=0), "batch_size must be"),
    (dict(quadrature="simpson"), "quadrature must be"),
    (dict(preset="short"), r"preset must be one of \['truncated'\] or None, got 'short'"),
    (dict(baseline=("median", "zero")), r"baseline (of the picture )?must be"),
    (dict(baseline=(torch.zeros(2, 5), "zero")), r"baseline (of the picture )?must be"),
    (dict(baseline=(torch.full((2, 32), torch.nan), "zero")), r"baseline (of the picture )?must be"),
]


def test_bad_parameters_and_batches_that_do_not_pair_up(clip, pixel_values, tokens, subtests):
    for options, message in BAD:
        with subtests.test(str(options)), pytest.raises(ValueError, match=message):
            nib(clip, pixel_values, **tokens, **(PATH | options))
    for pictures in (0, 2):
        message = f"pixel_values must have 1 or 3 rows, one a caption, got {pictures}"
        with subtests.test(f"{pictures} pictures"), pytest.raises(ValueError, match=message):
            nib(clip, pixel_values[:pictures], **tokens, **PATH)


def test_mean_baseline_is_captums(clip, pixel_values, tokens, subtests):
    for lambda_min in (0.0, 0.3):
        with subtests.test(f"from {lambda_min}"):
            compare_mean_baseline_with_captum(clip, pixel_values, tokens, lambda_min)


def compare_mean_baseline_with_captum(clip, pixel_values, tokens, lambda_min):
    scores = nib(clip, pixel_values, **tokens, **PATH, baseline="mean", lambda_min=lambda_min)
    for pair, length in enumerate(tokens["attention_mask"].sum(1).tolist()):
        ids = tokens["input_ids"][[pair], :length]
        image, text = clip.image.split(pixel_values[[pair]], 2), clip.text.split(ids, 2)
        embeds = clip.image.embed(pixel_values[[pair]]), clip.text.embed(ids)
        for split, target, inner, found in (
            (image, embeds[1], slice(1, None), torch.cat([scores.image_class[[pair]], scores.image[pair].flatten()])),
            (text, embeds[0], slice(1, length - 1), scores.text[pair, :length]),
        ):
            z = split.hidden_states
            base = z.clone()
            base[:, inner] = z[:, inner].mean(1, keepdim=True)
            start = base + lambda_min * (z - base)

            def similarity(states, split=split, target=target):
                return cosine_similarity(split(states), target)

            expected = IntegratedGradients(similarity).attribute(
                z, baselines=start, method="riemann_right", n_steps=4, internal_batch_size=1
            )
            assert_close(found, expected.sum(-1)[0], atol=1e-8, rtol=1e-7)
            assert found[0] == 0  # the class token and begin stay as they are
        gap = scores.text[pair].sum() - scores.text_sums.difference[pair]
        assert_close(scores.text_sums.gap[pair], gap, **PRECISE)
    assert (scores.text[tokens["attention_mask"] == 0] == 0).all()


def test_tensor_baselines(clip, pixel_values, tokens):
    zeros = torch.zeros(2, 32), torch.zeros(3, 32)
    by_tensor, by_name = (
        nib(clip, pixel_values, **tokens, **PATH, baseline=zeros),
        nib(clip, pixel_values, **tokens, **PATH),
    )
    assert_close(by_tensor.image, by_name.image, **PRECISE)
    assert_close(by_tensor.text[:, :4], by_name.text[:, :4], **PRECISE)
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(2, 32, generator=generator, dtype=torch.float64), "zero"
    scores = nib(clip, pixel_values[:1], **tokens, layer=2, n_steps=48, quadrature="gausslegendre", baseline=states)
    image, text_embeds = clip.image.split(pixel_values[:1], 2), clip.text.embed(*tokens.values())
    base = states[0][[0] + [1] * 25][None]
    difference = scores.similarity - cosine_similarity(image(base), text_embeds)
    assert_close(scores.image_sums.difference, difference, **PRECISE)
    assert_close(scores.image.sum((1, 2)) + scores.image_class, difference, atol=1e-4, rtol=0)


def test_a_preset_sets_what_is_not_given(clip, pixel_values, tokens):
    found = nib(clip, pixel_values, **tokens, layer=2, preset="truncated")
    expected = nib(clip, pixel_values, **tokens, layer=2, **PRESETS["truncated"])
    assert torch.equal(found.image, expected.image)
    assert torch.equal(found.text, expected.text)
    found = nib(clip, pixel_values, **tokens, layer=2, preset="truncated", n_steps=10)
    expected = nib(clip, pixel_values, **tokens, layer=2, **(PRESETS["truncated"] | {"n_steps": 10}))
    assert torch.equal(found.text, expected.text)


def test_the_defaults_are_the_papers(clip, pixel_values, tokens):
    path = dict(n_steps=10, quadrature="riemann_right", lambda_min=0.0, baseline="zero")
    found, expected = nib(clip, pixel_values, **tokens), nib(clip, pixel_values, **tokens, layer=3, **path)
    assert torch.equal(found.image, expected.image)
    assert torch.equal(found.text, expected.text)


def test_layers_of_picture_and_caption(clip, pixel_values, tokens):
    both = nib(clip, pixel_values, **tokens, layer=(1, 3), n_steps=2)
    assert torch.equal(both.image, nib(clip, pixel_values, **tokens, layer=1, n_steps=2).image)
    assert torch.equal(both.text, nib(clip, pixel_values, **tokens, layer=3, n_steps=2).text)
