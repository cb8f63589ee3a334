import pytest
import torch
from plain import Side, assert_plain, assert_scores, pairs, similarity

import nib


def plain_map(side, target, layer, pool):
    z = side.states(layer).requires_grad_()
    (gradient,) = torch.autograd.grad(similarity(side.embed(z, layer), target).sum(), z)
    gradient, z = gradient[0], z.detach()[0]  # (tokens, width)
    if pool:
        gradient = gradient[0 if side.is_text else 1 :].mean(0, keepdim=True).expand_as(z)
    return torch.stack([torch.dot(g, a).relu() for g, a in zip(gradient, z)])


def test_gradcam_equals_the_formula(clip, pixel_values, tokens, subtests):
    for layer, pool in ((1, False), (1, True), (3, False), (3, True)):
        with subtests.test(f"layer {layer}{', pooled' if pool else ''}"):
            scores = nib.METHODS["gradcam"](clip, pixel_values, **tokens, layer=layer, pool_gradients=pool)
            assert_plain(clip, pixel_values, tokens, scores, plain_map, layer, pool)


def test_gradcam_after_the_last_block_only_the_pooled_token_counts(clip, pixel_values, tokens):
    scores = nib.METHODS["gradcam"](clip, pixel_values, **tokens, layer=4)
    assert not scores.image.any()
    assert scores.image.isfinite().all()
    with pytest.raises(ValueError, match="layer must be a whole number from 0 to 4"):
        nib.METHODS["gradcam"](clip, pixel_values, **tokens, layer=5)


def input_gradients(clip, pixels, image, text):
    """Gradients of the cosine at the pixels (channels, height, width) and the token embeddings."""
    pixels = pixels.clone().requires_grad_()
    side = Side(clip, pixels)
    value = similarity(side.embed(side.start(side.embeddings)), text.target())
    (of_pixels,) = torch.autograd.grad(value.sum(), pixels)
    x = text.embeddings.clone().requires_grad_()
    (of_words,) = torch.autograd.grad(similarity(text.embed(text.start(x)), image.target()).sum(), x)
    return of_pixels[0], of_words[0]


def each_patch(pixels, function, size=12):
    """Apply `function` to each patch of (..., height, width): (grid_h, grid_w)."""
    rows, columns = pixels.shape[-2] // size, pixels.shape[-1] // size
    cut = [
        [pixels[..., size * i : size * (i + 1), size * j : size * (j + 1)] for j in range(columns)] for i in range(rows)
    ]
    return torch.stack([torch.stack([function(patch) for patch in row]) for row in cut])


def test_pixel_gradient_equals_the_formula(clip, pixel_values, tokens):
    scores = nib.METHODS["pixel_gradient"](clip, pixel_values, **tokens)
    for index, pixels, _, image, text in pairs(clip, pixel_values, tokens):
        of_pixels, of_words = input_gradients(clip, pixels, image, text)
        expected = each_patch(of_pixels, lambda patch: patch.abs().max(0).values.mean())
        assert_scores(scores, index, expected, of_words.abs().sum(-1), with_class=False)


def test_input_x_gradient_equals_the_formula(clip, pixel_values, tokens):
    scores = nib.METHODS["input_x_gradient"](clip, pixel_values, **tokens)
    for index, pixels, _, image, text in pairs(clip, pixel_values, tokens):
        of_pixels, of_words = input_gradients(clip, pixels, image, text)
        expected = each_patch(pixels[0] * of_pixels, lambda patch: patch.sum())
        assert_scores(scores, index, expected, (text.embeddings[0] * of_words).sum(-1), with_class=False)


def plain_steps(side, target, n_steps, step_size):
    path, gradients = [side.embeddings.detach()], []
    for _ in range(n_steps):
        x = path[-1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(similarity(side.embed(side.start(x)), target).sum(), x)
        gradients.append(gradient)
        path.append(path[-1] - step_size * torch.sign(gradient))
    return -sum(((new - old) * g).sum(-1)[0] for old, new, g in zip(path, path[1:], gradients))


def test_mfaba_equals_the_formula(clip, pixel_values, tokens, subtests):
    for n_steps, step_size in ((10, 0.01), (3, 0.05)):
        with subtests.test(f"{n_steps} steps of {step_size}"):
            scores = nib.METHODS["mfaba"](clip, pixel_values, **tokens, n_steps=n_steps, step_size=step_size)
            assert_plain(clip, pixel_values, tokens, scores, plain_steps, n_steps, step_size)


def test_mfaba_scores_add_up_to_what_small_steps_take_away(clip, pixel_values, tokens):
    scores = nib.METHODS["mfaba"](clip, pixel_values, **tokens, n_steps=2, step_size=1e-6)
    _, _, _, image, text = next(pairs(clip, pixel_values, tokens))
    x = image.embeddings.clone()
    before = similarity(image.embed(image.start(x)), text.target())
    for _ in range(2):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(similarity(image.embed(image.start(x)), text.target()).sum(), x)
        x = x - 1e-6 * gradient.sign()
    after = similarity(image.embed(image.start(x)), text.target())
    total = scores.image[0].sum() + scores.image_class[0]
    torch.testing.assert_close(total, (before - after)[0], rtol=1e-3, atol=0)


def test_mfaba_rejects_bad_parameters(clip, pixel_values, tokens, subtests):
    for name, value in (("n_steps", 0), ("step_size", 0.0)):
        with subtests.test(name), pytest.raises(ValueError, match=f"{name} must be"):
            nib.METHODS["mfaba"](clip, pixel_values, **tokens, **{name: value})
