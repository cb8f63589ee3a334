"""Read what the theorems speak of: the states before a block, of many pictures or of both sides of some pairs.

Exports `SIDES`, `choose_pairs`, `read_states`, `embed_others`, `cut_side` and `cut_sides`. F(z) is the similarity as a
function of the states of one side, "picture" or "words"; the embedding of the other side is held fixed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, product

import torch

from nib.clip import HookedCLIP
from nib.evaluation import Batch
from nib.inputs import to_pixel_values
from nib.shapes import Embeds, HiddenStates
from nib.towers import Split

SIDES = ("picture", "words")


def choose_pairs(rows: Iterable[Mapping], n_pairs: int) -> list[Mapping]:
    """Return the first rows whose caption is a sentence, of 3 to 20 words."""
    return list(islice((row for row in rows if 3 <= len(row["text"].split()) <= 20), n_pairs))


def read_states(clip: HookedCLIP, data: Iterable[Sequence], layer: int, batch_size: int = 50) -> HiddenStates:
    """Return the states that enter block `layer` of the image tower, for every picture of some data sets.

    Args:
        data: data sets, as `nib.datasets.load` gives them.
        layer: blocks run before the cut.
        batch_size: pictures at once.

    Returns:
        (pictures, tokens, width), on the CPU.
    """
    states = []
    for part in data:
        for first in range(0, len(part), batch_size):
            rows = part.select(range(first, min(first + batch_size, len(part))))
            pixel_values = torch.cat([to_pixel_values(clip, row["image"]) for row in rows])
            states.append(clip.image.split(pixel_values, layer).hidden_states.cpu())
    return torch.cat(states)


def embed_others(clip: HookedCLIP, pairs: Batch) -> dict[str, Embeds]:
    """Return what each side is compared with: the captions' embeddings for "picture", the pictures' for "words"."""
    images, texts = pairs.embeds(clip)  # (batch, embed) each
    return {"picture": texts, "words": images}


def cut_side(clip: HookedCLIP, pairs: Batch, side: str, layer: int) -> Split:
    """Cut the tower of one side before block `layer`, with a batch of pairs in it.

    Raises:
        KeyError: a side that is none of `SIDES`.
    """
    if side not in SIDES:
        raise KeyError(f"side must be one of {SIDES}, got {side!r}")
    if side == "picture":
        return clip.image.split(pairs.pixel_values.to(clip.dtype), layer)
    return clip.text.split(pairs.input_ids, layer, pairs.attention_mask)


def cut_sides(
    clip: HookedCLIP, pairs: Batch, layers: Sequence[int], n_pairs: int | None = None
) -> Iterator[tuple[str, int, Split, Embeds]]:
    """Cut both towers before each of some blocks.

    Args:
        pairs: a batch, see `nib.evaluation.read_pairs`.
        layers: blocks run before the cut.
        n_pairs: how many pairs to keep, the first ones; None: all.

    Yields:
        Side, layer, the tower with the states in it, and the other side's embeddings (batch, embed).
    """
    targets = embed_others(clip, pairs)
    for side, layer in product(SIDES, layers):
        yield side, layer, cut_side(clip, pairs, side, layer)[:n_pairs], targets[side][:n_pairs]
