"""LIME (Ribeiro, Singh and Guestrin, KDD 2016) on patches and words, by captum."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, pad

from nib.checks import check_count, check_number
from nib.methods.gradients import token_embeddings
from nib.methods.pairs import explain_in_batches, to_scores
from nib.methods.scores import Scores
from nib.shapes import PairValues


def lime(
    clip, pixel_values, input_ids, attention_mask=None, *, n_samples=200, alpha=0.01, batch_size=64, seed=0
) -> Scores:
    """Score patches and words by the weights of a linear model of the similarity in which of them are there.

    Patches are painted in the mean colour and token embeddings set to zero, each with probability 1/2; a ridge
    regression is fitted to the similarities, samples near the whole input weighing more (captum's default kernel).
    Scores are signed, in cosine units: what the similarity gains by a patch or word. Begin, end and padding score 0.

    Args:
        n_samples: samples of each picture and of each caption, at least 1, the same for all pairs of a size.
        alpha: of the ridge regression, at least 0.
    """
    from captum._utils.models.linear_model import SkLearnRidge  # takes a second, which `import nib` should not
    from captum.attr import Lime

    check_count("n_samples", n_samples, limit="samples")
    alpha = check_number("alpha", alpha, 0)

    def fit(forward: Callable[[Tensor], PairValues], inputs: Tensor, features: Tensor) -> Tensor:
        """Return a weight for each feature; features are numbered from 0."""
        explainer, default = Lime(forward, interpretable_model=SkLearnRidge(alpha=alpha)), torch.get_default_dtype()
        options = dict(n_samples=n_samples, perturbations_per_eval=batch_size, return_input_shape=False)
        with torch.random.fork_rng(devices=[inputs.device] if inputs.is_cuda else []):
            torch.manual_seed(seed)
            torch.set_default_dtype(torch.float32)  # captum draws in the default
            try:
                return explainer.attribute(inputs, feature_mask=features, **options)[0].to(inputs)
            finally:
                torch.set_default_dtype(default)

    @torch.no_grad()
    def explain(pixel_values, input_ids, attention_mask):
        text, tokens = clip.text.split(input_ids, 0, attention_mask), token_embeddings(clip, input_ids)
        words, (rows, columns) = clip.text.words(input_ids, attention_mask), clip.grid(pixel_values)
        image_embeds, text_embeds = clip.image.embed(pixel_values).expand(len(text), -1), text(text.hidden_states)
        number, patch = torch.arange(rows * columns, device=input_ids.device).view(rows, columns), clip.image.patch
        cells = number.repeat_interleave(patch, 0).repeat_interleave(patch, 1)  # (height, width)
        left = (0, pixel_values.shape[-1] - cells.shape[1], 0, pixel_values.shape[-2] - len(cells))
        cells = pad(cells[None, None].float(), left, mode="replicate").long()
        of_image, of_text = [], torch.zeros_like(words, dtype=tokens.dtype)
        for row in range(len(text)):
            own, ids, part = slice(row, row + 1), input_ids[row : row + 1], text[row : row + 1]
            inner = words[row].nonzero()[:, 0]

            def of_pictures(x, own=own):
                return cosine_similarity(clip.image.embed(x), text_embeds[own])

            def of_words(x, own=own, ids=ids, part=part, inner=inner):
                whole = tokens[own].repeat(len(x), 1, 1)
                whole[:, inner] = x
                return cosine_similarity(part(clip.text.enter(whole, ids.expand(len(x), -1))), image_embeds[own])

            picture = pixel_values[own] if len(pixel_values) > 1 else pixel_values
            of_image.append(fit(of_pictures, picture, cells).view(rows, columns))
            if len(inner):
                features = torch.arange(len(inner), device=ids.device)[None, :, None]
                of_text[row, inner] = fit(of_words, tokens[own, inner], features)
        similarity = cosine_similarity(image_embeds, text_embeds)
        return to_scores(clip, pixel_values, text.real, similarity, torch.stack(of_image), of_text)

    return explain_in_batches(explain, pixel_values, input_ids, attention_mask, batch_size)
