"""RISE: randomised input sampling for explanation (Petsiuk, Das and Saenko, BMVC 2018)."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cosine_similarity, interpolate

from nib.checks import check_count
from nib.clip import HookedCLIP
from nib.methods.gradients import token_embeddings
from nib.methods.pairs import over_pairs, real_tokens, to_scores
from nib.methods.scores import Scores
from nib.shapes import AttentionMask, Embeds, GridScores, InputIds, PixelValues, TokenScores
from nib.towers import Split


@torch.no_grad()
def rise(
    clip: HookedCLIP,
    pixel_values: PixelValues,
    input_ids: InputIds,
    attention_mask: AttentionMask | None = None,
    *,
    n_masks: int = 6000,
    grid: int = 8,
    p: float = 0.1,
    text_masks: int = 200,
    batch_size: int = 64,
    seed: int = 0,
) -> Scores:
    """Score pixels and words by the mean similarity of the inputs in which they are kept.

    S = sum over masks of cos(input * mask) * mask / (n_masks * p) (Eq. 6 of Petsiuk et al.). Masks
    of the picture are smooth: grids of 0 and 1, upsampled bilinearly and shifted at random. They
    multiply normalised pixels, so 0 is the mean colour. Masks of the caption are 0 or 1 for each
    token and channel, and multiply the token embeddings, before positions are added; the score of
    a token is the mean over its channels. The other embedding is held fixed.

    Differs from the released code: the masks come from a seed, not from a cache file in the working
    directory, and the map is averaged in each patch, so that it has the shape of all other maps.

    Args:
        pixel_values: (batch, channels, height, width); one picture serves all captions, and its
            masked forward passes are then shared.
        input_ids: (batch, tokens), with begin and end.
        attention_mask: (batch, tokens), 1 at tokens; None where nothing is padded.
        n_masks: masks of the picture, at least 1; the paper's default.
        grid: cells of a mask along each side, at least 1.
        p: probability that a cell, or a channel of a token, is kept, in (0, 1].
        text_masks: masks of the caption, at least 1.
        batch_size: masked inputs at once; bounds memory.
        seed: of the masks. All pairs see the same: a pair scores the same in any batch.

    Returns:
        Scores in cosine units: an average of similarities, of any sign, not a difference. A class
        token has no pixels and no score.

    Raises:
        ValueError: a parameter out of its range, or batches that do not pair up.
    """
    for name, value in (("n_masks", n_masks), ("grid", grid), ("text_masks", text_masks), ("batch_size", batch_size)):
        check_count(name, value)
    if not 0 < p <= 1:
        raise ValueError(f"p must be in (0, 1], got {p}")
    patch = clip.image.patch

    def explain(pixel_values, input_ids, attention_mask):
        text = clip.text.split(input_ids, 0, attention_mask)
        text_embeds = text(text.hidden_states)
        image_embeds = clip.image.embed(pixel_values)
        chunk = max(1, batch_size // len(pixel_values))
        masks = draw_image_masks(n_masks, grid, p, pixel_values.shape[-2:], seed, chunk)
        image_scores = _score_image(clip, pixel_values, text_embeds, masks, patch) / (n_masks * p)
        tokens = token_embeddings(clip, input_ids)
        masks = draw_text_masks(text_masks, *tokens.shape[1:], p, seed)
        text_scores = _score_text(text, tokens, image_embeds, masks, batch_size) / (text_masks * p)
        similarity = cosine_similarity(image_embeds, text_embeds)
        return to_scores(clip, pixel_values, real_tokens(text, attention_mask), similarity, image_scores, text_scores)

    pairs = len(input_ids) if len(pixel_values) == 1 else batch_size
    return over_pairs(explain, pixel_values, input_ids, attention_mask, pairs)


def draw_image_masks(n_masks: int, grid: int, p: float, size, seed: int, chunk: int) -> Iterator[Tensor]:
    """Draw smooth masks, `chunk` at a time: (masks, height, width) in [0, 1].

    A grid of `grid` x `grid` cells, each 1 with probability p, grows to grid + 1 cells a side and is cropped to
    the picture at a random shift of less than one cell. A cell is the smallest that covers the
    picture: ceil(side / grid) pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    cells = (torch.rand(n_masks, grid, grid, generator=generator) < p).float()
    cell_h, cell_w = (-(-side // grid) for side in size)
    rows = torch.randint(cell_h, (n_masks,), generator=generator).tolist()
    columns = torch.randint(cell_w, (n_masks,), generator=generator).tolist()
    larger = (grid + 1) * cell_h, (grid + 1) * cell_w
    for first in range(0, n_masks, chunk):
        grown = interpolate(cells[first : first + chunk, None], larger, mode="bilinear", align_corners=False)[:, 0]
        shifts = zip(grown, rows[first:], columns[first:])
        yield torch.stack([mask[row : row + size[0], column : column + size[1]] for mask, row, column in shifts])


def draw_text_masks(n_masks: int, tokens: int, width: int, p: float, seed: int) -> Tensor:
    """Draw a 0 or 1 for each token and channel: (n_masks, tokens, width) boolean.

    Token after token from one generator, so that padding leaves the masks of a caption as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.rand(n_masks, width, generator=generator) < p for _ in range(tokens)], 1)


def _score_image(clip, pixel_values: PixelValues, text_embeds: Embeds, masks: Iterator[Tensor], patch) -> GridScores:
    """Sum similarity * mask, averaged in each patch: (pairs, grid_h, grid_w)."""
    total = 0.0
    for chunk in masks:  # (masks, height, width)
        chunk = chunk.to(pixel_values)
        masked = (chunk[:, None, None] * pixel_values).flatten(0, 1)  # (masks * pictures, channels, height, width)
        embeds = clip.image.embed(masked).unflatten(0, (len(chunk), -1))  # (masks, 1 or pairs, embed)
        similarity = cosine_similarity(embeds, text_embeds, dim=-1)  # (masks, pairs)
        total = total + torch.einsum("mp,mhw->phw", similarity, avg_pool2d(chunk, patch))
    return total


def _score_text(text: Split, tokens: Tensor, image_embeds: Embeds, masks: Tensor, batch_size: int) -> TokenScores:
    """Sum similarity * mask, averaged over the width: (pairs, tokens)."""
    image_embeds = image_embeds.expand(len(text), -1)
    scores = []
    for first in range(0, len(text), batch_size):
        rows = slice(first, first + batch_size)
        part, kept = text[rows], 0.0
        for chunk in masks.split(max(1, batch_size // len(part))):  # (masks, tokens, width)
            removed = ~chunk[:, None].to(tokens.device) * tokens[rows]  # (masks, pairs, tokens, width)
            embeds = part((part.hidden_states - removed).flatten(0, 1)).unflatten(0, (len(chunk), -1))
            similarity = cosine_similarity(embeds, image_embeds[rows], dim=-1)  # (masks, pairs)
            kept = kept + torch.einsum("mp,mt->pt", similarity, chunk.to(tokens).mean(-1))
        scores.append(kept)
    return torch.cat(scores)
