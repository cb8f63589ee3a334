"""RISE: randomised input sampling for explanation (Petsiuk, Das and Saenko, BMVC 2018)."""

from collections.abc import Iterator, Sequence
from numbers import Real

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cosine_similarity, interpolate
from tqdm import tqdm

from nib.checks import check_count, check_flag
from nib.methods.gradients import token_embeddings
from nib.methods.pairs import explain_in_batches, to_scores
from nib.methods.scores import Scores
from nib.shapes import Embeds, PixelScores, TokenScores
from nib.towers import Split


@torch.no_grad()
def rise(
    clip, pixel_values, input_ids, attention_mask=None, *, n_masks=6000, grid=8, p=0.1, text_masks=200, text_cells=8,
    by_coverage=False, batch_size=64, seed=0,
) -> Scores:  # fmt: skip
    """Score pixels and words by the mean similarity of the inputs in which they are kept.

    S = sum over masks of cos(input * mask) * mask / (n_masks * p) (Eq. 6 of Petsiuk et al.). Masks of the picture are
    smooth: grids of 0 and 1, upsampled bilinearly and shifted at random. They multiply normalised pixels, so 0 is the
    mean colour. Masks of the caption are the same in one dimension, along its tokens, begin and end included; they
    multiply the token embeddings, before positions are added. The other embedding is held fixed. With few cells and
    p = 0.1 about half of the masks of a caption keep nothing. Scores are in cosine units, an average of similarities,
    of any sign, not a difference.

    Differs from the released code: the masks come from a seed, not from a cache file in the working directory; beside
    the map at pixels (`image_pixels`) its mean in each patch is kept.

    Args:
        n_masks: masks of the picture, at least 1, the same for all pairs; the paper's default.
        grid: cells of a mask along each side, at least 1.
        p: probability that a cell is kept, in (0, 1].
        text_masks: masks of the caption, at least 1.
        text_cells: cells of a mask along the caption, at least 1, interpolated linearly; or None for a 0 or 1 drawn
            for each token and channel, closest to the paper's definition.
        by_coverage: divide the sum at each pixel or token by how much of it the masks kept, not by its
            expectation n_masks * p: otherwise the map shows where the masks happened to fall.
    """
    check_count("n_masks", n_masks, limit="samples")
    check_count("text_masks", text_masks, limit="samples")
    check_count("batch_size", batch_size, limit="samples")
    check_count("grid", grid)
    if grid > clip.image.image_size:
        raise ValueError(f"grid must be at most the {clip.image.image_size} pixels of a side, got {grid!r}")
    if text_cells is not None:
        check_count("text_cells", text_cells, limit="nodes")
    check_count("n_masks * grid ** 2", n_masks * grid**2, limit="cells")
    check_flag("by_coverage", by_coverage)
    if not isinstance(p, Real) or isinstance(p, bool) or not 0 < p <= 1:
        raise ValueError(f"p must be in (0, 1], got {p!r}")
    p = float(p)

    def explain(pixel_values, input_ids, attention_mask):
        pixel_values = pixel_values.to(clip.dtype)
        text = clip.text.split(input_ids, 0, attention_mask)
        text_embeds, image_embeds = text(text.hidden_states), clip.image.embed(pixel_values)
        chunk = max(1, batch_size // len(pixel_values))
        masks = draw_image_masks(n_masks, grid, p, pixel_values.shape[-2:], seed, chunk)
        pixels, kept = _score_image(clip, pixel_values, text_embeds, masks)
        pixels = pixels / kept.clamp(min=1e-12) if by_coverage else pixels / (n_masks * p)
        tokens, real = token_embeddings(clip, input_ids), text.real
        lengths = real.shape[1] - real.int().flip(1).argmax(1)  # up to the last token that is no padding
        masks = draw_text_masks(text_masks, lengths.tolist(), tokens.shape[-1], p, seed, text_cells, tokens.shape[1])
        words, kept = _score_text(clip, text, input_ids, tokens, image_embeds, masks, batch_size)
        words = words / kept.clamp(min=1e-12) if by_coverage else words / (text_masks * p)
        similarity = cosine_similarity(image_embeds, text_embeds)
        patches = avg_pool2d(pixels, clip.image.patch)
        return to_scores(clip, pixel_values, real, similarity, patches, words, image_pixels=pixels)

    pairs = len(input_ids) if len(pixel_values) == 1 else batch_size
    return explain_in_batches(explain, pixel_values, input_ids, attention_mask, pairs)


def draw_image_masks(n_masks: int, grid: int, p: float, size, seed: int, chunk: int) -> Iterator[Tensor]:
    """Draw smooth masks, `chunk` at a time: (masks, height, width) in [0, 1].

    A grid of `grid` x `grid` cells, each 1 with probability p, grows to grid + 1 cells a side and is cropped to
    the picture at a random shift of less than one cell. A cell is the smallest that covers the
    picture: ceil(side / grid) pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    cells = (torch.rand(n_masks, grid, grid, generator=generator, dtype=torch.float32) < p).float()
    cell_h, cell_w = (-(-side // grid) for side in size)
    rows = torch.randint(cell_h, (n_masks,), generator=generator).tolist()
    columns = torch.randint(cell_w, (n_masks,), generator=generator).tolist()
    larger = (grid + 1) * cell_h, (grid + 1) * cell_w
    for first in range(0, n_masks, chunk):
        grown = interpolate(cells[first : first + chunk, None], larger, mode="bilinear", align_corners=False)[:, 0]
        shifts = zip(grown, rows[first:], columns[first:])
        yield torch.stack([mask[row : row + size[0], column : column + size[1]] for mask, row, column in shifts])


def draw_text_masks(
    n_masks: int, lengths: Sequence[int], width: int, p: float, seed: int, cells: int | None, tokens: int
) -> Tensor:
    """Draw the masks of some captions: (n_masks, captions, tokens, 1 or width) in [0, 1], ones at padding.

    What is drawn does not depend on the length, so that a caption gets the same masks in any batch.

    Args:
        lengths: tokens of each caption, padding left out.
        cells: of a mask: each is 1 with probability p, grows to ceil(length / cells) tokens as in `draw_image_masks`,
            and serves all channels; None draws token after token, for each channel.
        tokens: padded length.
    """
    generator = torch.Generator().manual_seed(seed)
    if cells is None:
        drawn = [torch.rand(n_masks, width, generator=generator, dtype=torch.float32) < p for _ in range(tokens)]
        return torch.stack(drawn, 1)[:, None].float().expand(-1, len(lengths), -1, -1)
    kept = (torch.rand(n_masks, cells, generator=generator, dtype=torch.float32) < p).double()
    places = torch.rand(n_masks, generator=generator, dtype=torch.float32)  # of the crop, in [0, 1) of a cell
    masks = torch.ones(n_masks, len(lengths), tokens, 1, dtype=torch.double)
    for length in set(lengths):
        size = -(-length // cells)
        grown = interpolate(kept[:, None], (cells + 1) * size, mode="linear", align_corners=False)[:, 0]
        columns = (places * size).long()[:, None] + torch.arange(length)  # (n_masks, length)
        rows = [index for index, other in enumerate(lengths) if other == length]
        masks[:, rows, :length, 0] = grown.gather(1, columns)[:, None]
    return masks


def _score_image(clip, pixel_values, text_embeds: Embeds, masks: Iterator[Tensor]) -> tuple[PixelScores, Tensor]:
    """Sum similarity * mask at each pixel, (pairs, height, width), and the masks, (height, width)."""
    total, kept = 0.0, 0.0
    for chunk in tqdm(masks, desc="rise", unit="batch of masks", delay=3, leave=False):  # (masks, height, width)
        chunk = chunk.to(pixel_values)
        masked = (chunk[:, None, None] * pixel_values).flatten(0, 1)  # (masks * pictures, channels, height, width)
        embeds = clip.image.embed(masked).unflatten(0, (len(chunk), -1))  # (masks, 1 or pairs, embed)
        similarity = cosine_similarity(embeds, text_embeds, dim=-1)  # (masks, pairs)
        total = total + torch.einsum("mp,mhw->phw", similarity, chunk)
        kept = kept + chunk.sum(0)
    return total, kept


def _score_text(
    clip, text: Split, input_ids, tokens, image_embeds, masks, batch_size
) -> tuple[TokenScores, TokenScores]:
    """Sum similarity * mask at each token, and the masks, both averaged over the width: (pairs, tokens)."""
    image_embeds, scores = image_embeds.expand(len(text), -1), []
    for first in range(0, len(text), batch_size):
        rows = slice(first, first + batch_size)
        part, total = text[rows], 0.0
        for chunk in masks[:, rows].split(max(1, batch_size // len(part))):  # (masks, pairs, tokens, 1 or width)
            chunk = chunk.to(tokens)
            masked = (chunk * tokens[rows]).flatten(0, 1)  # (masks * pairs, tokens, width)
            states = clip.text.enter(masked, input_ids[rows].repeat(len(chunk), 1))
            embeds = part(states).unflatten(0, (len(chunk), -1))
            similarity = cosine_similarity(embeds, image_embeds[rows], dim=-1)  # (masks, pairs)
            total = total + torch.einsum("mp,mpt->pt", similarity, chunk.mean(-1))
        scores.append(total)
    return torch.cat(scores), masks.mean(-1).sum(0).to(tokens)
