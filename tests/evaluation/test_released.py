"""The text against all pictures of the batch, as a plain double loop has it."""

import copy
import functools

import pytest
import torch
from torch.nn.functional import normalize

import nib
from nib.evaluation import attribute_text_to_batch
from nib.methods.m2ib import draw_noise

SMALL = {
    "nib": dict(layer=2, n_steps=3),
    "m2ib": dict(layer=2, n_steps=3, n_noise=2),
    "rise": dict(n_masks=40, text_masks=6, p=0.5),
    "gradcam": dict(layer=2),
    "mfaba": dict(n_steps=3),
}
LINEAR = ["nib", "fast_ig", "rise", "input_x_gradient"]  # linear in the unit vector they compare with


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


@pytest.mark.parametrize("method", LINEAR)
def test_equals_a_double_loop(clip, pixel_values, tokens, method):
    parameters = SMALL.get(method, {})
    scores = attribute_text_to_batch(clip, method, parameters, pixel_values, **tokens)
    norm = mean_of_unit_embeddings(clip, pixel_values).norm()
    for index, length, ids in each_caption(tokens):
        maps = [nib.METHODS[method](clip, picture[None], ids, **parameters).text[0] for picture in pixel_values]
        torch.testing.assert_close(scores[index, :length] * norm, sum(maps) / len(maps), rtol=1e-8, atol=1e-10)
        assert not scores[index, length:].any()
        assert (maps[index] - sum(maps) / len(maps)).abs().max() > 1e-3 * maps[index].abs().max()


def plain_m2ib(clip, ids, targets, layer, n_steps, n_noise, beta):
    """Fit alpha of one caption to beta * KL less the mean cosine to all targets."""
    split = clip.text.split(ids, layer)
    z = split.hidden_states  # (1, tokens, width)
    alpha = torch.full_like(z, 5.0, requires_grad=True)
    optimiser = torch.optim.Adam([alpha], lr=1.0)

    def divergence():
        passed = torch.sigmoid(alpha)
        return -torch.log(1 - passed) + ((1 - passed) ** 2 + (passed * z) ** 2 - 1) / 2

    for copies in draw_noise(z, n_steps, n_noise, seed=0):
        passed = torch.sigmoid(alpha)
        embeds = normalize(split(passed * z + (1 - passed) * copies), dim=-1)  # (n_noise, embed)
        similarity = sum((embeds @ target).mean() for target in targets) / len(targets)
        optimiser.zero_grad()
        (beta * divergence().mean() - similarity).backward()
        optimiser.step()
    return divergence().detach().sum(-1)[0]


@pytest.mark.parametrize("beta", [None, 0.5])
def test_m2ib_weighs_the_mean_similarity_against_its_divergence(clip, pixel_values, tokens, beta):
    parameters = SMALL["m2ib"] | ({} if beta is None else {"beta": beta})
    scores = attribute_text_to_batch(clip, "m2ib", parameters, pixel_values, **tokens)
    with torch.no_grad():
        targets = normalize(clip.image.embed(pixel_values), dim=-1)
    for index, length, ids in each_caption(tokens):
        expected = plain_m2ib(clip, ids, targets, **{"beta": 0.1, **parameters})
        torch.testing.assert_close(scores[index, :length], expected, rtol=1e-3, atol=1e-6)  # Adam's eps is no factor


@pytest.mark.parametrize("method", sorted(set(nib.METHODS) - {"random"}))  # that looks at its own pixels
def test_one_picture_or_equal_ones_are_the_pair_itself(clip, pixel_values, tokens, method):
    parameters = SMALL.get(method, {})
    equal = pixel_values[:1].expand(3, -1, -1, -1)
    expected = nib.METHODS[method](clip, equal, **tokens, **parameters).text
    tolerance = dict(rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        attribute_text_to_batch(clip, method, parameters, equal, **tokens), expected, **tolerance
    )
    for index, length, ids in each_caption(tokens):
        found = attribute_text_to_batch(clip, method, parameters, pixel_values[:1], ids)
        torch.testing.assert_close(found[0], expected[index, :length], **tolerance)


def test_controls_do_not_look_at_the_batch(clip, pixel_values, tokens):
    for method in ("random", "center", "none"):
        found = attribute_text_to_batch(clip, method, {}, pixel_values, **tokens)
        assert torch.equal(found, nib.METHODS[method](clip, pixel_values, **tokens).text)


@pytest.mark.parametrize("method", sorted(nib.METHODS))
def test_leaves_nothing_behind(clip, pixel_values, tokens, method):
    parameters = dict(SMALL.get(method, {}))
    before = clip.image.embed(pixel_values)
    assert not attribute_text_to_batch(clip, method, parameters, pixel_values, **tokens).requires_grad
    assert parameters == SMALL.get(method, {})
    assert torch.equal(clip.image.embed(pixel_values), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in clip.model.modules())


def test_leaves_nothing_behind_after_an_error(clip, pixel_values, tokens, monkeypatch):
    @functools.wraps(nib.METHODS["none"])
    def fail(clip, pixel_values, *args, **kwargs):
        assert clip.image.embed(pixel_values)[0].equal(clip.image.embed(pixel_values)[1])
        raise RuntimeError("stop")

    monkeypatch.setitem(nib.METHODS, "none", fail)
    with pytest.raises(RuntimeError, match="stop"):
        attribute_text_to_batch(clip, "none", {}, pixel_values, **tokens)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in clip.model.modules())
    first, second = clip.image.embed(pixel_values[:2])
    assert not torch.equal(first, second)
