"""Interactions are the whole product of both Jacobians, word by patch, and add up to the similarity."""

import numpy as np
import pytest
import torch
from conftest import CAPTIONS, make_config, randomise
from PIL import Image
from transformers import CLIPModel

import nib
from benchmarks.families import FAMILIES, build
from nib.inputs import to_pixel_values, to_tokens
from nib.integrate import place_nodes

PICTURE = Image.fromarray((np.arange(60 * 60 * 3) * 7 % 251).astype(np.uint8).reshape(60, 60, 3))


@pytest.fixture(scope="module")
def hooked(tokenizer, image_processor):
    """The model that pools at its end id alone: both towers are cut as everywhere."""
    return nib.HookedCLIP(randomise(CLIPModel(make_config())).double(), tokenizer, image_processor)


def whole_jacobian(split, n_steps):
    """Integrate J(lambda z) z of each token by the full Jacobian: (tokens, embed)."""
    z, total = split.hidden_states, 0.0
    for node, weight in zip(*place_nodes("riemann_right", n_steps)):
        jacobian = torch.autograd.functional.jacobian(lambda x: split(x)[0], node * z)  # (embed, 1, tokens, width)
        total = total + weight * torch.einsum("etw,tw->te", jacobian[:, 0], z[0])
    return total


def test_equals_the_whole_product(hooked, subtests):
    ids, mask, ((_, word_ids, _),) = to_tokens(hooked, [CAPTIONS[1]])
    for layer in (0, 2, (3, 1)):
        with subtests.test(f"layer {layer}"):
            found = nib.interactions(hooked, PICTURE, CAPTIONS[1], layer=layer, n_steps=3)
            layers = hooked.layers(layer)
            image = hooked.image.split(to_pixel_values(hooked, PICTURE), layers[0])
            text = hooked.text.split(ids, layers[1], mask)
            of_patches, of_tokens = whole_jacobian(image, 3), whole_jacobian(text, 3)
            norms = image(image.hidden_states).norm() * text(text.hidden_states).norm()
            product = (of_tokens @ of_patches.T / norms).numpy()  # (tokens, 1 + patches)
            for word in range(len(found.words)):
                own = [token for token, index in enumerate(word_ids) if index == word]
                assert abs(found.scores[word].ravel() - product[own, 1:].sum(0)).max() < 1e-9
                assert abs(found.class_scores[word] - product[own, 0].sum()) < 1e-9
            ends = [0, len(word_ids) - 1]
            assert abs(found.other_scores.ravel() - product[ends, 1:].sum(0)).max() < 1e-9
            assert abs(found.other_class_score - product[ends, 0].sum()) < 1e-9


def test_adds_up_to_the_similarity_on_every_family(subtests):
    picture = Image.fromarray((np.arange(36 * 36 * 3) * 7 % 251).astype(np.uint8).reshape(36, 36, 3))
    caption, path = "a dog next to a dog", dict(n_steps=40, quadrature="gausslegendre", lambda_min=0.3)
    for family in FAMILIES:
        with subtests.test(family):
            clip = build(family)
            found = nib.interactions(clip, picture, caption, **path)
            total = found.scores.sum() + found.class_scores.sum() + found.other_scores.sum() + found.other_class_score
            assert abs(total + sum(found.anchors.values()) - found.similarity - found.gap) < 1e-10
            assert abs(found.gap) < 1e-8
            assert found.words == ["a", "dog", "next", "to", "a", "dog"]
            assert abs(found.similarity - nib.attribute(clip, picture, caption, n_steps=1).similarity) < 1e-9


def test_the_gap_closes_from_zero_too(hooked):
    gaps = [
        abs(nib.interactions(hooked, PICTURE, "a cat", layer=2, n_steps=n, quadrature="gausslegendre").gap)
        for n in (10, 100, 1000)
    ]
    assert gaps[2] < 0.1 * gaps[0]


def test_captions_share_the_picture_and_do_not_see_each_other(hooked):
    together = nib.interactions(hooked, PICTURE, CAPTIONS, layer=2, batch_size=5)
    for result, caption in zip(together, CAPTIONS):
        alone = nib.interactions(hooked, PICTURE, caption, layer=2)
        assert abs(result.scores - alone.scores).max() < 1e-9
        assert result.anchors == pytest.approx(alone.anchors, abs=1e-9)
        assert result.gap == pytest.approx(alone.gap, abs=1e-9)
        assert result.caption == caption


def test_words_and_patches_are_sums_and_each_word_has_its_map(hooked):
    found = nib.interactions(hooked, PICTURE, CAPTIONS[1], layer=2)
    assert np.allclose(found.image_scores, found.scores.sum(0))
    assert np.allclose(found.word_scores, found.scores.sum((1, 2)))
    titles = [axes.get_title().split("\n")[0] for axes in found.plot().axes if axes.get_title()]
    assert titles == ["a", "dog", "next", "to", "a (2)", "dog (2)", "on", "the", "grass"]


BAD = [
    (dict(text=[]), ValueError, "text must be at least one caption, got none"),
    (dict(text=""), ValueError, "a caption must hold at least one word"),
    (dict(n_steps=0), ValueError, "n_steps must be a whole number of at least 1, got 0"),
    (dict(quadrature="simpson"), ValueError, "quadrature must be one of"),
    (dict(lambda_min=1), ValueError, r"lambda_min must be in \[0, 1\)"),
    (dict(layer=7), ValueError, "layer must be a whole number from 0 to 4"),
    (dict(image=3), TypeError, "a picture must be"),
]


def test_bad_input(hooked, subtests):
    for options, error, message in BAD:
        with subtests.test(str(options)), pytest.raises(error, match=message):
            nib.interactions(hooked, **(dict(image=PICTURE, text="a cat") | options))
