"""Divide the similarity among pairs of a word and a patch: which word goes with which patch.

Theorem 3 holds for each coordinate of an embedding: I_i, the integral of J_image(lambda z) z_i, adds up over the
patches to e_image(z) - e_image(0), and T_j likewise over the words. So A_ij = I_i . T_j / (|e_image| |e_text|) and
three terms with an embedding at 0 add up to the cosine. T_j is a Jacobian-vector product of the text tower, and A_ij
for one word a gradient of the image tower: words times nodes of each, and no loop over coordinates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.func import jvp, vmap

from nib.checks import check_count
from nib.clip import HookedCLIP, check_clip
from nib.inputs import Caption, Picture, to_list, to_picture, to_pixel_values, to_tokens
from nib.integrate import dot, integrate, place_nodes, warn_of_zero
from nib.methods.attention import open_attention
from nib.pictures import warn_of_raw
from nib.towers import Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(eq=False)
class Interactions:
    """Signed scores of each pair of a word and a patch, in cosine units: positive ones raise the similarity together.

    Attributes:
        words: of the caption.
        scores: (words, grid_h, grid_w).
        class_scores: (words,), of each word with the class token; zeros without one.
        other_scores: (grid_h, grid_w), of the patches with what is no word: begin, end, and padding that is seen.
        other_class_score: of those with the class token.
        anchors: the three terms with an embedding at the start of the path: "image" (that of the picture with what the
            text adds), "text" and "both".
        gap: all scores and anchors less the similarity: what the quadrature misses.
        similarity: cosine of the two embeddings.
        picture, caption: what was explained.
    """

    words: list[str]
    scores: np.ndarray
    class_scores: np.ndarray
    other_scores: np.ndarray
    other_class_score: float
    anchors: dict[str, float]
    gap: float
    similarity: float
    picture: np.ndarray = field(repr=False)
    caption: str

    @property
    def image_scores(self) -> np.ndarray:
        """Sum over all words, (grid_h, grid_w)."""
        return self.scores.sum(0)

    @property
    def word_scores(self) -> np.ndarray:
        """Sum over all patches, (words,)."""
        return self.scores.sum((1, 2))

    def plot(self) -> "Figure":
        """Show one map a word, all on one scale."""
        from nib.plotting import plot_maps  # here, so that numbers alone do not wait for matplotlib

        maps = {}
        for place, (word, scores) in enumerate(zip(self.words, self.scores)):
            again = self.words[:place].count(word)  # such a word gets its number, so that titles differ
            title = f"{word} ({again + 1})" if again else word
            maps[f"{title}\n{scores.sum():+.3f}"] = scores
        figure = plot_maps(self.picture, maps, columns=min(6, len(maps)), share_limits=True)
        total = f"similarity {self.similarity:.3f}, of which words and patches {self.scores.sum():+.3f}"
        figure.suptitle(total, fontsize=8)
        return figure


def interactions(
    clip: HookedCLIP,
    image: Picture,
    text: Caption | Sequence[Caption],
    layer: int | tuple[int, int] | None = None,
    n_steps: int = 10,
    quadrature: str = "riemann_right",
    lambda_min: float = 0.0,
    batch_size: int = 64,
    truncate: bool = False,
) -> Interactions | list[Interactions]:
    """Explain which word of a caption goes with which patch of a picture.

        between = nib.interactions(clip, picture, "a dog on grass")
        between.scores[1]  # the map of "dog"

    Args:
        image, truncate: as of `nib.attribute`, and so are the errors.
        text: a caption, or several, which share the passes of the picture and give a list.
        layer: blocks run before the bottleneck; None for 3/4 of each tower's, or one each.
        n_steps, quadrature, lambda_min: the path, of both towers; see `nib.integrate.place_nodes`. Coordinates of the
            embeddings, unlike cosines, change most near 0: few nodes leave a large `gap`.
        batch_size: rows of hidden states at once, and twice as many of the captions', which are shorter.
    """
    check_clip(clip)
    check_count("batch_size", batch_size, limit="samples")
    text = to_list("text", text)
    single = not isinstance(text, list)
    captions = [text] if single else text
    if not captions:
        raise ValueError("text must be at least one caption, got none")
    layers = clip.layers(layer)
    warn_of_zero(quadrature, n_steps, lambda_min)
    path = dict(n_steps=n_steps, quadrature=quadrature, lambda_min=float(lambda_min))
    with clip.ready():
        tokens = to_tokens(clip, captions, truncate)
        pixel_values = to_pixel_values(clip, image)
        warn_of_raw(clip, pixel_values, stacklevel=3)
        found = _take_apart(clip, pixel_values, captions, tokens, layers, path, int(batch_size))
    if not all(np.isfinite([result.similarity, result.gap, result.scores.sum()]).all() for result in found):
        raise ValueError(
            "interactions must be finite, got NaN or infinity: the model's weights or config, or the picture, hold"
            f" numbers that are too large or too small for {clip.dtype}"
        )
    return found[0] if single else found


def _take_apart(clip: HookedCLIP, pixel_values, captions, tokens, layers, path: dict, batch_size: int) -> list:
    """Return the interactions of one picture with each caption."""
    (input_ids, attention_mask, described), found = tokens, []
    with open_attention(clip):  # a form of attention that forward mode can differentiate
        of_texts = clip.text.split(input_ids, layers[1], attention_mask)
        groups = [_group(ids, len(words), real) for (_, ids, words), real in zip(described, of_texts.real)]
        vectors = [_integrate_words(of_texts[row : row + 1], own, path, batch_size) for row, own in enumerate(groups)]
        text_ends = _embed_ends(of_texts, path["lambda_min"])
    of_image = clip.image.split(pixel_values, layers[0])
    image_start, image_end = _embed_ends(of_image, path["lambda_min"])[:, 0]
    targets = torch.cat(vectors)[None]  # (1, all words, embed)
    every, _ = integrate(of_image, targets, batch_size=batch_size, compare=dot, **path)  # (1, all words, tokens)
    picture, grid = to_picture(clip, pixel_values), clip.grid(pixel_values)
    for row, scores in enumerate(every.split([len(part) for part in vectors], 1)):
        text_start, text_end = text_ends[:, row]
        norms = image_end.norm() * text_end.norm()
        patches, of_class = clip.image.to_grid(scores[0] / norms, grid)
        of_class = patches.new_zeros(len(patches)) if of_class is None else of_class
        anchors = {
            "image": float(image_start @ (text_end - text_start) / norms),
            "text": float((image_end - image_start) @ text_start / norms),
            "both": float(image_start @ text_start / norms),
        }
        similarity = float(image_end @ text_end / norms)
        gap = float(scores.sum() / norms) + sum(anchors.values()) - similarity
        patches, of_class = patches.double().cpu().numpy(), of_class.double().cpu().numpy()
        words, caption = described[row][2], captions[row]
        text = caption if isinstance(caption, str) else " ".join(words)
        of_words, others = (patches[:-1], of_class[:-1]), (patches[-1], float(of_class[-1]))
        found.append(Interactions(words, *of_words, *others, anchors, gap, similarity, picture, text))
    return found


def _group(word_ids: list[int | None], n_words: int, real: Tensor) -> Tensor:
    """Say which tokens belong to each word, and in the last row which to none: (words + 1, tokens) boolean."""
    rows = torch.full((len(real),), n_words, device=real.device)
    for token, word in enumerate(word_ids):
        rows[token] = n_words if word is None else word
    return (rows == torch.arange(n_words + 1, device=real.device)[:, None]) & real


@torch.no_grad()
def _integrate_words(split: Split, groups: Tensor, path: dict, batch_size: int) -> Tensor:
    """Return T_j of each group of tokens of one caption, in the shared space: (groups, embed)."""
    z, total = split.hidden_states, 0.0
    nodes, weights = (values.to(z) for values in place_nodes(**path))
    parts = groups[:, :, None] * z  # (groups, tokens, width)
    step = max(1, 2 * batch_size // len(groups))
    for some, weight in zip(nodes.split(step), weights.split(step)):
        states = some[:, None, None] * z  # (nodes, tokens, width)
        # under vmap all directions share the states' own pass
        change = vmap(lambda part, at=states: jvp(split, (at,), (part.expand_as(at),))[1])(parts)
        total = total + torch.einsum("s,gse->ge", weight, change)
    return total


@torch.no_grad()
def _embed_ends(split: Split, lambda_min: float) -> Tensor:
    """Embed where the path starts and where it ends: (2, batch, embed)."""
    z = split.hidden_states
    return split(torch.cat([lambda_min * z, z])).unflatten(0, (2, -1))
