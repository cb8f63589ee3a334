"""Explain what a text says beside other texts: orthogonal to them, around any method."""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nib.checks import check_count, name_place, shorten
from nib.clip import run_ready
from nib.methods.pairs import batches, check_ids, check_inputs, check_pairs
from nib.methods.scores import Scores
from nib.shapes import Embeds, InputIds
from nib.towers import of_this_thread


def orthogonal_text(method: Callable[..., Scores], distractors: InputIds, n_atoms: int = 5) -> Callable[..., Scores]:
    """Wrap a method so that the text's embedding is what is left of it beside some distractor texts.

    Orthogonal matching pursuit takes the distractor that is most like what is left, projects the text's embedding off
    all that were taken, and goes on. What is left is explained: what sets the text apart from, say, other class names.

        explain = orthogonal_text(nib.METHODS["nib"], to_tokens(clip, ["a cat", "a horse"])[0])
        scores = explain(clip, pixel_values, input_ids, attention_mask, layer=9)

    Args:
        method: one of `nib.METHODS`.
        distractors: (texts, tokens) ids, padded as the model's tokenizer does.
        n_atoms: distractors that are taken, at least 1; all where there are fewer.

    Returns:
        A function that is called as the method is. Its similarity is that with what is left of the text.

    Raises:
        ValueError: no distractors, or one that a text is nothing beside.
    """
    check_count("n_atoms", n_atoms)
    if not callable(method):
        raise TypeError(f"method must be one of nib.METHODS, got {type(method).__name__}")
    if not isinstance(distractors, Tensor) or distractors.ndim != 2 or distractors.is_floating_point():
        raise TypeError(f"distractors must be token ids (texts, tokens) of to_tokens, got {shorten(distractors)}")
    if not len(distractors):
        raise ValueError("distractors must be at least one text, got none")

    @run_ready
    def explain(clip, pixel_values, input_ids, attention_mask=None, **parameters) -> Scores:
        """Explain pairs as the method does, each text projected off what it shares with the distractors."""
        check_inputs(pixel_values, input_ids, attention_mask)
        check_pairs(pixel_values, input_ids, attention_mask, 1)
        check_ids(clip, distractors, "distractors")
        if endless := (clip.text.find_end(distractors) < 1).nonzero()[:, 0].tolist():
            raise ValueError(f"distractors must end with the model's end token, and rows {endless[:10]} have none")
        with torch.no_grad():
            real, _ = clip.text.locate(distractors, None)
            atoms = normalize(clip.text.embed(distractors, real.long()), dim=-1)
            texts = clip.text.embed(input_ids, attention_mask)
        projection = clip.text.projection
        if isinstance(projection, nn.Sequential):  # made anew at each call: only its layers are the model's
            projection = projection[-1]
        parts = []
        pairs = batches(pixel_values, input_ids, attention_mask, 1)  # each text has a span of its own
        for row, (text, (_, *inputs)) in enumerate(zip(texts, pairs)):
            with name_place(f"text {row}", len(texts)):
                basis = pursue(text, atoms, n_atoms)
            take_out = of_this_thread(lambda _, args, embeds, basis=basis: embeds - embeds @ basis @ basis.T)
            with projection.register_forward_hook(take_out):
                parts.append(method(clip, *inputs, **parameters))
        return Scores.join(parts)

    explain.__signature__ = inspect.signature(method)  # so that `nib.attribute` knows its parameters
    return explain


def pursue(text: Tensor, atoms: Embeds, n_atoms: int) -> Tensor:
    """Return an orthonormal basis, (embed, taken), of the atoms that orthogonal matching pursuit takes for a text."""
    taken: list[int] = []
    basis, rest = text.new_zeros(len(text), 0), text
    for _ in range(min(n_atoms, len(atoms))):
        likeness = (atoms @ rest).abs()
        likeness[taken] = -1
        taken.append(int(likeness.argmax()))
        basis, triangle = torch.linalg.qr(atoms[taken].T)
        if triangle[-1, -1].abs() < 1e-6:  # the last one says nothing that the others do not
            taken.pop()
            basis = torch.linalg.qr(atoms[taken].T)[0]
            break
        rest = text - basis @ (basis.T @ text)
    if rest.norm() < 1e-6 * text.norm():
        raise ValueError("a text must say something beside the distractors, and one is the same as what they say")
    return basis
