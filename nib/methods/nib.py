"""Narrowing Information Bottleneck attribution (Zhu et al., ICLR 2025, Eq. 10)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nib.checks import check_flag, to_real
from nib.integrate import anchor, integrate, place_nodes, warn_of_zero
from nib.methods.pairs import average, check_pairs, find_patches
from nib.methods.scores import Scores, Sums
from nib.shapes import HiddenStates, TokenScores
from nib.towers import Split, TextTower

PAPER = {"n_steps": 10, "quadrature": "riemann_right", "lambda_min": 0.0}
# "truncated" is ours, not the paper's: the path leaves out the stretch next to 0, on which the layer norms
# saturate, so that few nodes add up, to F(z) - F(lambda_min z). Chosen in notebook 10, at layer 9.
PRESETS = {"truncated": {"n_steps": 5, "quadrature": "gausslegendre", "lambda_min": 0.1}}
# Kinds of tokens that a baseline tells apart; padding keeps its own state and scores 0.
OUTER, INNER, END, PADDING = range(4)  # class token or begin, patch or word


def nib(
    clip,
    pixel_values,
    input_ids,
    attention_mask=None,
    *,
    layer: int | tuple[int, int] | None = None,
    n_steps: int | tuple[int, int] | None = None,
    quadrature: str | tuple[str, str] | None = None,
    lambda_min: float | tuple[float, float] | None = None,
    preset: str | None = None,
    baseline: str | Tensor | tuple[str | Tensor, str | Tensor] = "zero",
    target: str = "cosine",
    rectified: bool = False,
    batch_size: int = 64,
    seed: int = 0,
) -> Scores:
    """Explain the similarity of pairs by narrowing one tower at a time, the other held fixed.

    Differs from the released code: the text is explained against the image of its own pair, not against the mean over
    all images of the batch; the class token's score is kept beside the map. `layer` and the next three are one value,
    or one for the picture and one for the caption.

    Args:
        n_steps: nodes of the path; None for the preset's, or the paper's 10.
        quadrature: one of `nib.integrate.RULES`; None for the preset's, or the paper's right Riemann sum.
        lambda_min: where the path starts, in [0, 1); None for the preset's, or the paper's 0.
        preset: a key of `PRESETS`, values that go together.
        baseline: where the path begins at lambda = 0. "zero" is the paper's. "mean" puts the picture's own mean patch
            at every patch, and the caption's mean word at every word; the class token, begin and end stay as they are
            and score 0. A tensor holds one state for each kind of token: (2, width) for the class token and patches,
            (3, width) for begin, words and end. Two values are for the picture and the caption. What is
            explained is F(z) - F(baseline): from the mean, what tells tokens apart, not what they share.
        target: what is divided among tokens: the "cosine", or the "logit", exp(logit_scale) times that (SigLIP's bias
            can change no score).
        rectified: set negative scores of patches and tokens to 0, after the sums are taken.

    Returns:
        Scores in cosine units, with `image_sums` and `text_sums`; the class token's score is part of the sum.
    """
    path = resolve_path(preset, n_steps=n_steps, quadrature=quadrature, lambda_min=lambda_min)
    of_image, of_text = _split_path(**path, baseline=baseline)
    image_layer, text_layer = clip.layers(layer)
    check_flag("rectified", rectified)
    if not isinstance(target, str) or target not in ("cosine", "logit"):
        raise ValueError(f"target must be 'cosine' or 'logit', got {target!r}")
    check_pairs(pixel_values, input_ids, attention_mask, batch_size)
    image, text = clip.image.split(pixel_values, image_layer), clip.text.split(input_ids, text_layer, attention_mask)
    words, ends = clip.text.words(input_ids, attention_mask), clip.text.find_end(input_ids)
    image_kinds = torch.where(find_patches(image), INNER, OUTER)
    text_kinds = torch.where(text.real, OUTER, PADDING).masked_fill(words, INNER).scatter(1, ends[:, None], END)
    of_image["baseline"] = place_baseline(image, image_kinds, of_image["baseline"])
    of_text["baseline"] = place_baseline(text, text_kinds, of_text["baseline"])
    with torch.no_grad():
        image_embeds, text_embeds = image(image.hidden_states), text(text.hidden_states)
    similarity = cosine_similarity(image_embeds, text_embeds)
    to_texts = text_embeds[None] if len(image) != len(text) else text_embeds[:, None]  # (pictures, targets, embed)
    to_images = image_embeds.expand(len(text), -1)[:, None]
    image_scores, image_sums = _add_up(image, to_texts, similarity, batch_size, **of_image)
    text_scores, text_sums = _add_up(text, to_images, similarity, batch_size, **of_text)
    patches, image_class = clip.image.to_grid(image_scores, clip.grid(pixel_values))
    explained = {"image": patches, "text": text_scores, "image_class": image_class}
    if target == "logit":
        scale = clip.model.logit_scale.exp()
        explained = {name: None if values is None else scale * values for name, values in explained.items()}
        image_sums, text_sums = (Sums(*(scale * values for values in sums)) for sums in (image_sums, text_sums))
    if rectified:
        explained |= {side: explained[side].clamp(min=0) for side in ("image", "text")}
    return Scores(similarity=similarity, image_sums=image_sums, text_sums=text_sums, **explained)


def resolve_path(preset: str | None, **path: Any) -> dict[str, Any]:
    """Fill in what is None of `n_steps`, `quadrature` and `lambda_min`: from a preset, else from the paper."""
    if preset is not None and not (isinstance(preset, str) and preset in PRESETS):
        raise ValueError(f"preset must be one of {sorted(PRESETS)} or None, got {preset!r}")
    known = PAPER | PRESETS.get(preset, {})
    return {name: known[name] if value is None else value for name, value in path.items()}


def _add_up(split, targets, similarity, batch_size, **path) -> tuple[TokenScores, Sums]:
    """Integrate one tower: scores (captions, tokens), and what they should add up to and miss."""
    scores, start = integrate(split, targets, batch_size=batch_size, **path)
    scores, total = scores.flatten(0, 1), scores.sum(-1).flatten()  # (captions, tokens), (captions,)
    zero = anchor(split, targets, path["baseline"]) if path["lambda_min"] else start
    difference, whole = similarity - start.flatten(), similarity - zero.flatten()
    return scores, Sums(difference, total - difference, total - whole)


def _split_path(**path) -> tuple[dict, dict]:
    """Return the path of the picture and that of the caption, checked; warn of a node at 0."""
    pairs = {name: tuple(value) if isinstance(value, (tuple, list)) else (value,) * 2 for name, value in path.items()}
    for name, pair in pairs.items():
        if len(pair) != 2:
            raise ValueError(f"{name} must be one value or two, of picture and caption, got {path[name]!r}")
    sides = [dict(zip(pairs, values)) for values in zip(*pairs.values())]
    for side in sides:
        baseline, nodes = side["baseline"], (side["quadrature"], side["n_steps"], side["lambda_min"])
        if not isinstance(baseline, Tensor) and not (isinstance(baseline, str) and baseline in ("zero", "mean")):
            raise ValueError(f"baseline must be 'zero', 'mean' or a tensor, got {baseline!r}")
        place_nodes(*nodes)  # checks them
        if not isinstance(baseline, Tensor) and baseline == "zero":
            warn_of_zero(*nodes, stacklevel=5)
    return tuple(sides)


def place_baseline(split: Split, kinds: Tensor, baseline: str | Tensor) -> HiddenStates | None:
    """Return the state that each token, of `kinds` (batch, tokens), has at the start of the path, or None for zero."""
    z, n_kinds = split.hidden_states, 2 + int((kinds == END).any())
    if isinstance(baseline, Tensor):
        baseline = to_real("baseline", baseline)
        if tuple(baseline.shape) != (n_kinds, z.shape[-1]) or not baseline.isfinite().all():
            side = "caption" if isinstance(split.tower, TextTower) else "picture"
            raise ValueError(
                f"baseline of the {side} must be finite and ({n_kinds}, {z.shape[-1]}), got {tuple(baseline.shape)};"
                " give two, of picture and caption, where they differ"
            )
        states = torch.cat([baseline.to(z), z.new_zeros(PADDING + 1 - n_kinds, z.shape[-1])])
        return torch.where((kinds == PADDING)[..., None], z, states[kinds])
    if baseline == "zero":
        return None
    inner = kinds == INNER
    return torch.where(inner[..., None], average(z, inner), z)
