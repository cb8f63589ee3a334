"""Maps that know nothing of the pair: what a method must beat."""

import zlib

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nib.checks import check_number
from nib.methods.pairs import average, explain_in_batches, find_patches, split_towers, to_scores
from nib.methods.scores import Scores
from nib.shapes import HiddenStates, TokenScores


def random(clip, pixel_values, input_ids, attention_mask=None, *, batch_size=64, seed=0) -> Scores:
    """Score patches and tokens uniformly in [0, 1).

    Each pair draws from a generator of its own, seeded by `seed` and a check sum of its pixels and tokens: unlike pairs
    get unlike maps, and a pair gets the same map in any batch.
    """

    def draw(pixel_values, input_ids, real, words, size):
        patches = torch.empty(size, dtype=torch.float32)
        scores = torch.zeros(real.shape, dtype=torch.float32)
        for row, tokens in enumerate(real.cpu()):
            ids = input_ids[row].cpu()[tokens]
            pixels = pixel_values[row if len(pixel_values) > 1 else 0]
            check_sum = zlib.crc32(ids.long().numpy().tobytes(), zlib.crc32(str(seed).encode()))
            check_sum = zlib.crc32(pixels.detach().float().cpu().numpy().tobytes(), check_sum)
            generator = torch.Generator().manual_seed(check_sum)
            patches[row] = torch.rand(size[1:], generator=generator, dtype=torch.float32)
            scores[row, tokens] = torch.rand(len(ids), generator=generator, dtype=torch.float32)
        return patches, scores

    return _explain_blindly(clip, pixel_values, input_ids, attention_mask, draw, batch_size)


def center(clip, pixel_values, input_ids, attention_mask=None, *, sigma=0.5, batch_size=64, seed=0) -> Scores:
    """Score patches by a Gaussian at the middle of the picture, words by a triangle over the caption, in [0, 1].

    Photographers put things in the middle, so this beats chance. Begin and end score 0, the middle word highest, and
    the first and last word more than 0. `sigma` is the standard deviation in half sides of the picture, more than 0.
    """
    sigma = check_number("sigma", sigma, 0, open_end=True)

    def draw(pixel_values, input_ids, real, words, size):
        places = [(2 * torch.arange(n, dtype=torch.float32) + 1) / n - 1 for n in size[1:]]
        rows, columns = (torch.exp(-(place**2) / (2 * sigma**2)) for place in places)
        count = words.sum(1, keepdim=True).clamp(min=1)
        triangle = 1 - ((2 * words.cumsum(1).float() - 1) / count - 1).abs()
        return (rows[:, None] * columns).expand(size), torch.where(words, triangle, 0.0)

    return _explain_blindly(clip, pixel_values, input_ids, attention_mask, draw, batch_size)


def objectness(clip, pixel_values, input_ids, attention_mask=None, *, layer=None, batch_size=64, seed=0) -> Scores:
    """Score patches by how far their states lie from the picture's mean patch; words likewise, by the mean word.

    The map of a picture is the same whatever the text says: it shows where there is something, and on scenes of one
    object that is enough to lie on it. A method that explains the text must beat it against the *other* objects.
    Scores are Euclidean distances; begin and end score 0.
    """
    layers = clip.layers(layer, later=1)

    @torch.no_grad()
    def explain(pixel_values, input_ids, attention_mask):
        image, text = split_towers(clip, pixel_values, input_ids, attention_mask, *layers)
        similarity = cosine_similarity(image(image.hidden_states), text(text.hidden_states))
        patches = _distance_from_mean(image.hidden_states, find_patches(image))
        words = _distance_from_mean(text.hidden_states, clip.text.words(input_ids, attention_mask))
        grid = clip.image.to_grid(patches, clip.grid(pixel_values))[0]  # the class token is left out
        return to_scores(clip, pixel_values, text.real, similarity, grid, words)

    return explain_in_batches(explain, pixel_values, input_ids, attention_mask, batch_size)


def _distance_from_mean(z: HiddenStates, inner: Tensor) -> TokenScores:
    """Return |z - mean z| over the inner tokens, 0 elsewhere: (batch, tokens)."""
    return torch.where(inner, (z - average(z, inner)).norm(dim=-1), 0.0)


def none(clip, pixel_values, input_ids, attention_mask=None, *, batch_size=64, seed=0) -> Scores:
    """Score every patch and every token 1, padding 0: the map that masks nothing, the reference of all metrics."""

    def draw(pixel_values, input_ids, real, words, size):
        return torch.ones(size), torch.ones(real.shape)

    return _explain_blindly(clip, pixel_values, input_ids, attention_mask, draw, batch_size)


def _explain_blindly(clip, pixel_values, input_ids, attention_mask, draw, batch_size) -> Scores:
    """Put drawn maps beside the similarity; `draw` gives patches (batch, grid_h, grid_w) and tokens."""
    layers = len(clip.image.blocks), len(clip.text.blocks)

    @torch.no_grad()
    def explain(pixel_values, input_ids, attention_mask):
        image, text = split_towers(clip, pixel_values, input_ids, attention_mask, *layers)
        similarity = cosine_similarity(image(image.hidden_states), text(text.hidden_states))
        words, size = clip.text.words(input_ids, attention_mask), (len(text), *clip.grid(pixel_values))
        patches, scores = draw(pixel_values, input_ids, text.real, words, size)
        return to_scores(clip, pixel_values, text.real, similarity, patches.to(similarity), scores.to(similarity))

    return explain_in_batches(explain, pixel_values, input_ids, attention_mask, batch_size)
