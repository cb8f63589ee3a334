"""Measure how far a map keeps what the similarity rests on: Confidence Drop and Increase.

Each input is multiplied by its own map, stretched to [0, 1], and the similarity of the pair is computed again
(Chattopadhyay et al., Grad-CAM++, 2018, on probabilities; the M2IB and NIB papers, on cosines). An all-ones map drops
nothing, so smooth and bright maps do well: compare with the controls.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nib.checks import check_choice, check_count, shorten
from nib.clip import HookedCLIP, run_ready
from nib.heatmaps import to_heatmap
from nib.methods.gradients import token_embeddings
from nib.methods.pairs import batches, check_scores, embed_pairs, stretch
from nib.metrics.registry import Metric, Value
from nib.shapes import Embeds, GridScores, PairValues, PixelScores, TokenScores

PROTOCOLS = ("paper", "released")
SIDES = ("image", "text")
DIAGNOSTICS = ("dark_share", "constant_map", "text_constant_map")  # what a Drop may come from; neither good nor bad
VALUES = {
    "image_drop": Value(False, "points"),
    "image_increase": Value(True, "%"),
    "text_drop": Value(False, "points"),
    "text_increase": Value(True, "%"),
    "image_drop_relative": Value(False, "%"),
    "text_drop_relative": Value(False, "%"),
} | dict.fromkeys(DIAGNOSTICS, Value(None, "share"))
CONFIDENCE = Metric(VALUES, None)
DARK = 0.1


@run_ready
@torch.no_grad()
def confidence(
    clip, pixel_values, input_ids, attention_mask, scores, protocol="paper", batch_size=64, sides=SIDES, embeds=None
) -> dict[str, PairValues]:
    """Compare the similarity o of each pair with s, that of the input weighted by its map.

        drops = confidence(clip, pixel_values, input_ids, attention_mask, scores)["image_drop"]

    Pictures: normalised pixels times the map upsampled and min-max stretched, so that 0 is the mean colour. Captions:
    token embeddings, before positions are added, times the min-max stretched scores.

    `protocol="paper"` keeps begin and end, weighs only the words, each position once, and stretches over the words.
    `protocol="released"` does what the released code does: begin and end are part of the map that is stretched and are
    then cut off, so that the caption is encoded without them and pooled at its largest id; and a token that occurs
    twice is weighted by both scores at both places.

    A constant map cannot be stretched. Under "paper" it is all ones and masks nothing. The released code divides
    0 by 0 there, so that "released" needs a rule of its own: a map without a positive score, such as Grad-CAM's where
    its relu leaves nothing, is all zeros and masks everything; one of positive scores is all ones.

    Args:
        clip, pixel_values, input_ids, attention_mask, batch_size: see `nib.methods`.
        scores: `Scores` of these pairs, of any unit: only the order and spacing within a map matter. The map at pixels
            is taken where a method has one.
        protocol: one of `PROTOCOLS`.
        sides: which of `SIDES` to measure; pictures are measured the same under both protocols, but for constant maps.
        embeds: of the pictures and of the captions, (batch, embed) each; None where they are not known yet.

    Returns:
        (batch,) each: `image_drop` and `text_drop`, max(0, o - s) in points (hundredths of a cosine), lower is better;
        `image_increase` and `text_increase`, 100 where s > o, else 0, higher is better; `image_drop_relative` and
        `text_drop_relative`, the drop in percent of o, NaN where o is not positive. And `DIAGNOSTICS`: `dark_share`,
        the share of the picture's stretched map below 0.1, in [0, 1]; `constant_map` and `text_constant_map`, 1 where
        the map to be stretched is constant, else 0.

    Raises:
        ValueError: unknown protocol or side, batches that do not fit, or scores that are not finite.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {list(PROTOCOLS)}, got {protocol!r}")
    sides = check_choice("sides", sides, SIDES)
    check_count("batch_size", batch_size)
    check_scores(clip, pixel_values, input_ids, attention_mask, scores)
    check_protocol(clip, protocol)
    weigh = _weigh_words if protocol == "paper" else _weigh_stripped
    if embeds is None:
        embeds = embed_pairs(clip, pixel_values, input_ids, attention_mask, batch_size)
    else:
        shape = len(input_ids), clip.text.embed(input_ids[:1], None).shape[1]
        if type(embeds) not in (tuple, list) or [*map(_find_shape, embeds)] != [shape] * 2:
            raise ValueError(f"embeds must be two finite tensors ({shape[0]}, {shape[1]}), got {shorten(embeds)}")
    parts = []
    for rows, pictures, ids, mask in batches(pixel_values, input_ids, attention_mask, batch_size):
        image, text = (part[rows] for part in embeds)
        found = {}
        if "image" in sides:
            maps = scores.image_map[rows]
            heatmap, constant = to_heatmap(maps, tuple(pictures.shape[-2:])).to(pictures), is_constant(maps)
            if protocol == "released":
                masks_all = constant & (maps[:, 0, 0] <= 0)
                heatmap = torch.where(masks_all[:, None, None], 0.0, heatmap)
            found |= {"dark_share": (heatmap < DARK).to(image).mean((1, 2)), "constant_map": constant.to(image)}
            weighted = clip.image.embed(heatmap[:, None] * pictures)
            found |= _compare("image", cosine_similarity(image, text), cosine_similarity(weighted, text))
        if "text" in sides:
            split, ids, weights, constant = weigh(clip, ids, mask, scores.text[rows])
            weighted = weights.to(split.hidden_states)[..., None] * token_embeddings(clip, ids)
            before, after = split(split.hidden_states), split(clip.text.enter(weighted, ids))
            found |= _compare("text", cosine_similarity(before, image), cosine_similarity(after, image))
            found |= {"text_constant_map": constant.to(image)}
        parts.append(found)
    names = [name for name in VALUES if name in parts[0]]
    return {name: torch.cat([part[name] for part in parts]) for name in names}


def check_protocol(clip: HookedCLIP, protocol: str) -> None:
    """Raise a ValueError where a protocol has no meaning on a model: "released" strips CLIP's begin and end tokens."""
    text = clip.text
    if protocol != "paper" and (text.begin_tokens != 1 or text.sees_padding or text.find_pooled is not None):
        raise ValueError(
            "protocol 'released' is defined for text towers like CLIP's, which pool an end token and mask padding;"
            f" use 'paper' with a {clip.model.config.model_type}"
        )


def _find_shape(embeds: Embeds) -> tuple[int, ...] | None:
    """Return the shape of embeddings, or None of what is no finite tensor."""
    whole = isinstance(embeds, Tensor) and embeds.is_floating_point() and embeds.isfinite().all()
    return tuple(embeds.shape) if whole else None


def _compare(side: str, before: PairValues, after: PairValues) -> dict[str, PairValues]:
    drop = 100 * (before - after).clamp(min=0)
    return {
        f"{side}_drop": drop,
        f"{side}_increase": 100 * (after > before).to(drop),
        f"{side}_drop_relative": torch.where(before > 0, drop / before, torch.nan),
    }


def is_constant(scores: GridScores | PixelScores) -> Tensor:
    """Say which maps have one score throughout: (batch,) boolean."""
    return (scores == scores[:, :1, :1]).all(2).all(1)


def _weigh_words(clip, input_ids, attention_mask, scores: TokenScores) -> tuple:
    """Cut the text tower for "paper"; return its ids, the weights of its tokens, and which maps are constant, too."""
    words = clip.text.words(input_ids, attention_mask)
    stretched, constant = stretch(scores, words)
    return clip.text.split(input_ids, 0, attention_mask), input_ids, torch.where(words, stretched, 1.0), constant


def _weigh_stripped(clip, input_ids, attention_mask, scores: TokenScores) -> tuple:
    """Do for "released" what `_weigh_words` does."""
    real = clip.text.split(input_ids, 0, attention_mask).real
    words = clip.text.words(input_ids, attention_mask)[:, 1:]
    # Padding gets the smallest id, so that it is never the largest; a causal tower does not see it.
    ids = torch.where(words, input_ids[:, 1:], 0)
    split = replace(clip.text.split(ids, 0, words.long()), pool_index=ids.argmax(1))
    stretched, constant = stretch(scores, real)
    masks_all = constant & (scores[:, 0] <= 0)
    stretched = torch.where(words, torch.where(masks_all[:, None], 0.0, stretched)[:, 1:], 1.0)
    same = ids[:, :, None] == ids[:, None]  # (batch, tokens, tokens)
    weights = torch.where(same, stretched[:, None], 1.0).prod(-1)
    return split, ids, weights, constant
