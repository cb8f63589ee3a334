"""LeGrad: how sensitive the attentions of the last blocks are to the similarity."""

import torch
from torch.nn.functional import cosine_similarity

from nib.checks import check_count
from nib.methods.attention import open_attention, record
from nib.methods.pairs import average, explain_in_batches, split_towers, to_scores
from nib.methods.scores import Scores
from nib.pooling_head import run_open
from nib.shapes import Embeds, TokenScores
from nib.towers import Split


def legrad(clip, pixel_values, input_ids, attention_mask=None, *, blocks=2, batch_size=64, seed=0) -> Scores:
    """Score tokens by the positive gradient of the similarity in the attention that they get, over the last blocks.

    For each of the last blocks l, s_l is the cosine of the other side with the norm and projection of the mean of the
    block's output over its tokens, and the map the mean over heads and queries of relu(ds_l / dA_l); the maps are added
    up (Bousselham et al., LeGrad, 2024). Where a head pools all tokens, s_l comes from the head applied to the block's
    output, and the gradient is that of the head's attention. For text the mean is over the tokens that are no padding,
    which is ours: the method is defined for pictures. Scores are at least 0, in cosine units per unit of attention.

    Args:
        blocks: how many of the last, at least 1; all where there are fewer.
    """
    check_count("blocks", blocks)
    layers = [max(0, len(tower.blocks) - blocks) for tower in (clip.image, clip.text)]

    def explain(pixel_values, input_ids, attention_mask):
        image, text = split_towers(clip, pixel_values, input_ids, attention_mask, *layers)
        with torch.no_grad():
            image_embeds, text_embeds = image(image.hidden_states), text(text.hidden_states)
        similarity = cosine_similarity(image_embeds, text_embeds)
        image_scores, text_scores = _add_up(image, text_embeds), _add_up(text, image_embeds)
        return to_scores(clip, pixel_values, text.real, similarity, image_scores, text_scores)

    with open_attention(clip):
        return explain_in_batches(explain, pixel_values, input_ids, attention_mask, batch_size)


def _add_up(split: Split, targets: Embeds) -> TokenScores:
    """Add up the maps of all blocks after the cut: (batch, tokens)."""
    tower, states, total = split.tower, split.hidden_states.detach(), 0.0
    for block in tower.blocks[split.layer :]:
        with torch.enable_grad(), record([block], tower.attention) as attentions:
            states = block(states.detach().requires_grad_(), **split.arguments)
            if tower.head is not None:
                embeds, attention, _ = run_open(tower.head, tower.norm(states))
            else:
                embeds, attention = tower.project(average(states, split.real)[:, 0]), attentions[0]
            similarity = cosine_similarity(embeds, targets)
        (gradient,) = torch.autograd.grad(similarity.sum(), attention)  # (batch, heads, queries, tokens)
        queries = split.real[:, None, :, None] if tower.head is None else torch.ones_like(gradient[:, :1, :, :1])
        positive = gradient.clamp(min=0).mean(1, keepdim=True) * queries  # padding asks nothing
        total = total + positive.sum((1, 2)) / queries.sum((1, 2, 3))[:, None]
    return total
