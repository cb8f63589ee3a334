"""Ask whether negative scores are evidence against a pair.

Exports `signed_mass`, `lowest`, `at_random`, `patch_removal` and `word_removal`. Figure 1 of the NIB
paper shows negative scores on what a prompt does not name. `signed_mass` says how much of a map lies
there, for and against apart. If such a score is evidence, then the similarity must rise when what
bears it is taken away, and more than when anything else is: `lowest` and `at_random` choose what to
take, the removals take it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nib.checks import check_count
from nib.clip import HookedCLIP
from nib.inputs import to_tokens
from nib.metrics.localisation import put_on_masks
from nib.metrics.removal import REMOVALS
from nib.shapes import AttentionMask, Embeds, GridScores, InputIds, PairValues, PixelValues


def signed_mass(scores: GridScores, masks: Tensor) -> tuple[PairValues, PairValues]:
    """Return the shares of a map's absolute mass that lie on an object, positive and negative.

    The map is upsampled bilinearly to the size of the mask. Over masks that divide the picture, all
    shares add up to 1. A map without any mass gives 0 and 0.

    Args:
        scores: (batch, grid_h, grid_w), signed.
        masks: (batch, height, width) boolean, where the object is seen.

    Returns:
        For and against, (batch,) float64 each, in [0, 1].

    Raises:
        ValueError: shapes that do not fit, scores that are not finite, or a mask without a pixel.
    """
    large = put_on_masks(scores, masks)
    total = large.abs().sum((1, 2))
    total = torch.where(total > 0, total, 1.0)
    inside = large * masks.to(large)
    return inside.clamp(min=0).sum((1, 2)) / total, inside.clamp(max=0).abs().sum((1, 2)) / total


def lowest(scores: Tensor, k: int, seed: int = 0) -> Tensor:
    """Mark the `k` items of lowest score in each row.

    Args:
        scores: (batch, items); +inf where a row has no item. Equal scores are taken in random order, or a
            method whose map is mostly zero would be judged by the top left corner of the picture.
        k: at least 1, at most the items of every row.
        seed: of that order.

    Returns:
        (batch, items) boolean.

    Raises:
        ValueError: NaN or -inf among the scores, or `k` out of its range.
    """
    if not (scores > -torch.inf).all():  # false for NaN too
        raise ValueError("scores must be finite, or +inf where there is no item; got NaN or -inf")
    _check_room(k, scores < torch.inf)
    shuffled = torch.rand(scores.shape, generator=torch.Generator().manual_seed(seed)).argsort(1).to(scores.device)
    order = shuffled.gather(1, scores.gather(1, shuffled).argsort(dim=1, stable=True))
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, order[:, :k], True)


def at_random(among: Tensor, k: int, n_draws: int = 5, seed: int = 0) -> Tensor:
    """Draw `k` items of each row without replacement, several times over: the baseline of a removal.

    Args:
        among: (batch, items) boolean, what may be drawn.
        k: at least 1, at most the items of every row.
        n_draws: sets a row.
        seed: of the draws. A row's draws depend on no later row.

    Returns:
        (batch, n_draws, items) boolean.

    Raises:
        ValueError: `n_draws` below 1, or `k` out of its range.
    """
    check_count("n_draws", n_draws)
    _check_room(k, among)
    keys = torch.rand(len(among), n_draws, among.shape[1], generator=torch.Generator().manual_seed(seed))
    order = torch.where(among[:, None].cpu(), keys, torch.inf).argsort(-1)[..., :k]
    return torch.zeros(keys.shape, dtype=torch.bool).scatter(-1, order, True).to(among.device)


def _check_room(k: int, room: Tensor) -> None:
    check_count("k", k)
    if k > (fewest := int(room.sum(1).min())):
        raise ValueError(f"k must be at most the number of items to choose from, {fewest}, got {k}")


@torch.no_grad()
def patch_removal(
    clip: HookedCLIP,
    pixel_values: PixelValues,
    input_ids: InputIds,
    attention_mask: AttentionMask | None,
    removed: Tensor,
    removal: str = "mean_colour",
    batch_size: int = 64,
) -> Tensor:
    """Remove sets of patches and see what the similarity does.

    `mean_colour` sets the normalised pixels of a patch to 0, as the confidence metrics do: the patch is still
    there, as a grey square, and a grey square in a picture is a thing that a model may have an opinion
    of. `left_out` leaves the patch out of the sequence that enters the first block: no token of the
    tower then sees it, and nothing is put in its place.

    Args:
        pixel_values: (batch, channels, height, width).
        input_ids: (batch, tokens), with begin and end.
        attention_mask: (batch, tokens), 1 at tokens; None where nothing is padded.
        removed: (batch, sets, grid_h, grid_w) boolean; for `left_out`, the same number of patches in each set.
        removal: one of `REMOVALS`.
        batch_size: pictures at once; bounds memory.

    Returns:
        (batch, sets): similarity without the patches less similarity with them, in cosine units.
        Positive: what was removed argued against the pair.

    Raises:
        ValueError: a parameter out of its range, or shapes that do not fit.
    """
    check_count("batch_size", batch_size)
    if removal not in REMOVALS:
        raise ValueError(f"removal must be one of {sorted(REMOVALS)}, got {removal!r}")
    pairs, grid = len(input_ids), clip.grid(pixel_values)
    if len(pixel_values) != pairs or removed.ndim != 4 or (len(removed), *removed.shape[2:]) != (pairs, *grid):
        raise ValueError(
            f"{pairs} captions need as many pictures and sets of patches ({pairs}, sets, {grid[0]}, {grid[1]}),"
            f" got {len(pixel_values)} pictures and {tuple(removed.shape)}"
        )
    rows = torch.arange(pairs, device=pixel_values.device).repeat_interleave(removed.shape[1])
    masks = removed.to(rows.device).flatten(0, 1)  # (pairs * sets, grid_h, grid_w)
    if removal == "left_out" and len(set(masks.flatten(1).sum(1).tolist())) > 1:
        raise ValueError("each set must leave out the same number of patches")
    chunks = zip(rows.split(batch_size), masks.split(batch_size))
    after = [REMOVALS[removal](clip, pixel_values[part], patches) for part, patches in chunks]
    before = [clip.image.embed(part) for part in pixel_values.split(batch_size)]
    return _compare(torch.cat(before), torch.cat(after), clip.text.embed(input_ids, attention_mask))


@torch.no_grad()
def word_removal(
    clip: HookedCLIP,
    pixel_values: PixelValues,
    words: Sequence[Sequence[str]],
    removed: Tensor,
    batch_size: int = 256,
) -> Tensor:
    """Remove sets of words and see what the similarity does.

    A word is removed by dropping it: the rest is joined by spaces and encoded as a caption of its own,
    so that later words move up. Zeroing its embedding would leave a token that no caption has.

    Args:
        pixel_values: (batch, channels, height, width).
        words: of each caption, as in `Attribution`.
        removed: (batch, sets, words of the longest caption) boolean.
        batch_size: captions at once; bounds memory.

    Returns:
        (batch, sets), as `patch_removal`.

    Raises:
        ValueError: a batch size below 1, shapes that do not fit, or a set that leaves no word.
    """
    check_count("batch_size", batch_size)
    shape = len(words), max(map(len, words))
    if len(pixel_values) != shape[0] or removed.ndim != 3 or (len(removed), removed.shape[2]) != shape:
        raise ValueError(
            f"{shape[0]} captions need as many pictures and sets of words ({shape[0]}, sets, {shape[1]}),"
            f" got {len(pixel_values)} pictures and {tuple(removed.shape)}"
        )
    kept = [
        " ".join(word for word, gone in zip(caption, choice) if not gone)
        for caption, sets in zip(words, removed.tolist())
        for choice in sets
    ]
    if not all(kept):
        raise ValueError("each set must leave at least one word of its caption")
    before, after = (_embed(clip, texts, batch_size) for texts in ([" ".join(caption) for caption in words], kept))
    return _compare(before, after, torch.cat([clip.image.embed(part) for part in pixel_values.split(batch_size)]))


def _embed(clip: HookedCLIP, captions: list[str], batch_size: int) -> Embeds:
    input_ids, attention_mask, _ = to_tokens(clip, captions)
    parts = zip(input_ids.split(batch_size), attention_mask.split(batch_size))
    return torch.cat([clip.text.embed(*part) for part in parts])


def _compare(before: Embeds, after: Embeds, targets: Embeds) -> Tensor:
    """Subtract the similarity before, (batch,), from those after, whose rows are all sets of each pair in turn."""
    change = cosine_similarity(after.unflatten(0, (len(before), -1)), targets[:, None], dim=-1)
    return change - cosine_similarity(before, targets)[:, None]
