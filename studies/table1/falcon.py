"""Say in words what a coordinate of the embedding stands for (FALCON).

Exports `choose`, `score_words` and `explain`. Source: Kalibhat et al., *Identifying Interpretable Subspaces in Image
Representations*, ICML 2023. Of a data set with captions, take the pictures that
activate a coordinate, or a whole group of them, most; contrast each with a look-alike that does not; and score the
words of the captions by how much better they fit the first than the second.

Left out: cutting out what activates the coordinate by Grad-CAM, so whole pictures count, and the captions of a web
corpus, in place of which the pictures' own are read.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nib.shapes import Embeds

STOP_WORDS = frozenset(
    {"a", "an", "the", "and", "or", "of", "in", "on", "at", "to", "with", "by", "next", "photo", "is"}
)


def choose(embeds: Embeds, coordinates: Sequence[int], k: int) -> tuple[Tensor, Tensor]:
    """Choose the pictures that a group of coordinates is judged by.

    Args:
        embeds: (pictures, embed), the data set.
        coordinates: the group; a picture activates it as much as its least active coordinate, in standard deviations.
        k: how many of each.

    Returns:
        Indices (k,) of the most activating, the highest first, and (k,) of the look-alike of each: the most similar
        picture that is below the median in activation.

    Raises:
        ValueError: no coordinate, or `k` above half of the pictures.

    Example:
        high, low = choose(image_embeds, [3], k=8)
    """
    if not len(coordinates) or not 1 <= k <= len(embeds) // 2:
        raise ValueError(f"needs a coordinate and k from 1 to {len(embeds) // 2}, got {list(coordinates)} and {k}")
    points = normalize(embeds, dim=-1)
    activation = ((points - points.mean(0)) / points.std(0))[:, list(coordinates)].amin(1)  # (pictures,)
    high = activation.topk(k).indices
    similarity = points[high] @ points.T  # (k, pictures)
    low = similarity.masked_fill(activation[None] >= activation.median(), -torch.inf).argmax(1)
    return high, low


def score_words(words: Embeds, high: Embeds, low: Embeds) -> Tensor:
    """Return how much better each word fits the activating pictures than their look-alikes, (words,), in [-2, 2]."""
    words, high, low = (normalize(values, dim=-1) for values in (words, high, low))
    return (words @ high.T).mean(1) - (words @ low.T).mean(1)


def explain(
    embeds: Embeds, captions: Sequence[str], coordinates: Sequence[int], embed_texts: Callable, k: int = 8
) -> dict[str, float]:
    """Say in words what a group of coordinates stands for.

    Args:
        embeds: (pictures, embed), the data set.
        captions: one of each picture.
        coordinates: the group.
        embed_texts: from a list of words to embeddings (words, embed).
        k: how many pictures are contrasted.

    Returns:
        The words that stand in captions of activating pictures, and in more of them than of look-alikes, with
        their scores, the highest first. It is the same for all pictures: no sample enters.
    """
    high, low = choose(embeds, coordinates, k)
    above, below = (_count([captions[row] for row in rows.tolist()]) for rows in (high, low))
    words = [word for word, count in above.items() if count > below.get(word, 0)]
    if not words:
        return {}
    scores = score_words(embed_texts(words), embeds[high], embeds[low]).tolist()
    return dict(sorted(zip(words, scores), key=lambda item: -item[1]))


def _count(captions: Sequence[str]) -> dict[str, int]:
    """Count in how many captions each word stands."""
    counts: dict[str, int] = {}
    for caption in captions:
        for word in dict.fromkeys(caption.lower().replace(",", " ").replace(".", " ").split()):
            if word not in STOP_WORDS:
                counts[word] = counts.get(word, 0) + 1
    return counts
