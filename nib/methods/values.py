"""Read token embeddings off the values of the last attention: Grad-ECLIP, MaskCLIP and CLIP Surgery.

In the last block the pooled token is a weighted sum of the values of all tokens, so a value, sent through the rest of
the tower, says what its token alone would contribute. `mask_clip` and `clip_surgery` send it there, and refuse towers
whose blocks norm after the attention (AltCLIP's and ChineseCLIP's text) with a ValueError.
"""

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, linear, normalize, scaled_dot_product_attention

from nib import pooling_head
from nib.checks import check_count
from nib.clip import HookedCLIP
from nib.methods.pairs import explain_in_batches, find_patches, split_towers, stretch, to_scores
from nib.methods.scores import Scores
from nib.shapes import AttentionMask, Embeds, InputIds, TokenScores
from nib.towers import Split, of_this_thread


@dataclass
class Opened:
    """One attention, with all heads joined."""

    query: Tensor  # (batch, width), of the pooled token, or of the probe of a pooling head
    keys: Tensor  # (batch, tokens, width), as are the values
    values: Tensor
    outputs: Tensor  # (batch, queries, width), before the out-projection, in the graph of the embeddings
    rows: Tensor  # (batch,), which of the queries is the pooled token's
    out: nn.Module  # the out-projection


def grad_eclip(clip, pixel_values, input_ids, attention_mask=None, *, text_blocks=8, batch_size=64, seed=0) -> Scores:
    """Score tokens by gradient times value of the last attention, loosely weighted by query and key.

    M_i = relu(sum over channels c of (ds/do)_c v_ic w_i): o is what the attention gives the pooled token, before the
    out-projection, v_i the value of token i, w the cosine of the pooled token's query with key i, both after the
    out-projection, stretched to [0, 1] over the tokens (Zhao et al., Grad-ECLIP, ICML 2024). For text the products of
    the last `text_blocks` blocks are added up before the relu, and the scores divided by their sum. Where a head pools
    all tokens, its attention is the last one.

    Differs from its authors' code: that joins the heads into one for the forward pass, so that it explains another
    similarity; here the model's own heads stay. Scores are at least 0: of patches in cosine units to first order, of
    words as shares of their sum. Begin and end score 0.

    Args:
        text_blocks: blocks of the text tower that are added up, at least 1; all where there are fewer.
    """
    check_count("text_blocks", text_blocks)
    layers = len(clip.image.blocks) - 1, max(0, len(clip.text.blocks) - text_blocks)

    def explain(pixel_values, input_ids, attention_mask):
        image, text = split_towers(clip, pixel_values, input_ids, attention_mask, *layers)
        patches, words = find_patches(image), clip.text.words(input_ids, attention_mask)
        with torch.enable_grad():
            (image_embeds, of_image), (text_embeds, of_text) = _open(image), _open(text)
            similarity = cosine_similarity(image_embeds, text_embeds)
        outputs = [opened.outputs for opened in (*of_image, *of_text)]
        gradients = iter(torch.autograd.grad(similarity.sum(), outputs))
        image_scores = sum(_weigh(opened, next(gradients), patches) for opened in of_image).clamp(min=0)
        text_scores = sum(_weigh(opened, next(gradients), words) for opened in of_text).clamp(min=0)
        text_scores = text_scores / text_scores.sum(1, keepdim=True).clamp(min=torch.finfo(text_scores.dtype).tiny)
        image_scores = clip.image.to_grid(image_scores, clip.grid(pixel_values))[0]
        return to_scores(clip, pixel_values, text.real, similarity, image_scores, text_scores)

    return explain_in_batches(explain, pixel_values, input_ids, attention_mask, batch_size)


def _weigh(opened: Opened, gradients: Tensor, among: Tensor) -> TokenScores:
    """Return gradient . value of each token, times its weight; 0 for tokens not in `among`."""
    with torch.no_grad():
        gradient = gradients[torch.arange(len(gradients), device=gradients.device), opened.rows]  # (batch, width)
        cosines = cosine_similarity(opened.out(opened.query)[:, None], opened.out(opened.keys), dim=-1)
        weights, _ = stretch(cosines, among)
        return torch.where(among, weights * (opened.values @ gradient[..., None])[..., 0], 0.0)


def mask_clip(clip, pixel_values, input_ids, attention_mask=None, *, batch_size=64, seed=0) -> Scores:
    """Score tokens by the cosine of their own embedding with the other side, times that of their key with the query.

    A token's embedding is its value sent alone through the rest of the tower: out-projection, residual, MLP, norm and
    projection (Zhou et al., MaskCLIP, ECCV 2022; the weights by keys as in Grad-ECLIP's comparison). Words are embedded
    alike, with the query of the caption's pooled token, which is ours. Where a head pools all tokens, it embeds them.
    Scores are signed products of two cosines, in [-1, 1]. Begin and end score 0; the class token has no score.
    """
    last = _find_last(clip)

    @torch.no_grad()
    def explain(pixel_values, input_ids, attention_mask):
        image, text = split_towers(clip, pixel_values, input_ids, attention_mask, *last)
        (image_embeds, (of_image,)), (text_embeds, (of_text,)) = _open(image), _open(text)
        maps = []
        for split, opened, targets in ((image, of_image, text_embeds), (text, of_text, image_embeds)):
            tokens = cosine_similarity(_embed_values(split, opened.values), targets[:, None], dim=-1)
            maps.append(tokens * cosine_similarity(opened.query[:, None], opened.keys, dim=-1))
        similarity = cosine_similarity(image_embeds, text_embeds)
        return _finish(clip, pixel_values, input_ids, attention_mask, text, similarity, *maps)

    return explain_in_batches(explain, pixel_values, input_ids, attention_mask, batch_size)


def clip_surgery(clip, pixel_values, input_ids, attention_mask=None, *, blocks=6, batch_size=64, seed=0) -> Scores:
    """Score patches by their embeddings on a second path, on which values attend to values.

    In the last `blocks` blocks softmax(v v' / sqrt(size)) takes the place of the attention, and the MLPs are left out;
    the path starts from the model's own states and adds up the outputs of those blocks' attentions (Li et al., CLIP
    Surgery, 2023). A patch scores the product of its embedding with the text's less that with the empty caption's,
    which removes what every text shares. Words are scored as by `mask_clip`, without its keys: the method has no form
    for text. Scores are signed differences of cosines; of words, cosines. Begin and end score 0; the class token has no
    score.

    Args:
        blocks: of the second path, at least 1; all where there are fewer.
    """
    check_count("blocks", blocks)
    last, first = _find_last(clip), max(0, len(clip.image.blocks) - blocks)

    @torch.no_grad()
    def explain(pixel_values, input_ids, attention_mask):
        image, text = split_towers(clip, pixel_values, input_ids, attention_mask, *last)
        tokens = _embed_second_path(clip.image.split(pixel_values, first))
        (image_embeds, _), (text_embeds, (of_text,)) = _open(image), _open(text)
        empty = clip.text.embed(*_empty_caption(clip, input_ids))
        contrast = normalize(text_embeds, dim=-1) - normalize(empty, dim=-1)  # (batch, embed)
        image_scores = (normalize(tokens, dim=-1) @ contrast[..., None])[..., 0]
        text_scores = cosine_similarity(_embed_values(text, of_text.values), image_embeds[:, None], dim=-1)
        similarity = cosine_similarity(image_embeds, text_embeds)
        return _finish(clip, pixel_values, input_ids, attention_mask, text, similarity, image_scores, text_scores)

    return explain_in_batches(explain, pixel_values, input_ids, attention_mask, batch_size)


def _finish(clip, pixel_values, input_ids, attention_mask, text: Split, similarity, of_image, of_text) -> Scores:
    """Keep the scores of patches and words alone."""
    words = clip.text.words(input_ids, attention_mask)
    patches = clip.image.to_grid(of_image, clip.grid(pixel_values))[0].expand(len(text), -1, -1)
    return to_scores(clip, pixel_values, text.real, similarity, patches, torch.where(words, of_text, 0.0))


def _find_last(clip: HookedCLIP) -> tuple[int, int]:
    """Return the layers before the last block of each tower, or raise a ValueError where values have no way on."""
    for side, tower in (("image", clip.image), ("text", clip.text)):
        if not hasattr(tower.blocks[-1], "layer_norm1"):
            raise ValueError(
                f"the {side} tower of a {clip.model.config.model_type} norms after its attention: a value alone has no"
                " way through its last block, which this method needs"
            )
    return len(clip.image.blocks) - 1, len(clip.text.blocks) - 1


def _open(split: Split) -> tuple[Embeds, list[Opened]]:
    """Run the rest of a tower and keep its attentions, the last one last; a pooling head has the only one."""
    tower, states = split.tower, split.hidden_states.detach().requires_grad_(torch.is_grad_enabled())
    if tower.head is not None:
        embeds, _, (query, keys, values, outputs) = split.open_head(states)
        rows = torch.zeros(len(split), dtype=torch.long, device=states.device)
        return embeds, [Opened(query[:, 0], keys, values, outputs, rows, tower.head.attention.out_proj)]
    every, rows = torch.arange(len(split), device=states.device), split.pool_index
    layers = [tower.projections(block) for block in tower.blocks[split.layer :]]
    given, joined = {}, {}  # what the layers of queries, keys and values give, and what the out-projections get
    keep_output = of_this_thread(lambda layer, args, output: given.update({layer: output}))
    keep_input = of_this_thread(lambda layer, args: joined.update({layer: args[0]}))
    with ExitStack() as hooks:
        for *inner, out in layers:
            for layer in inner:
                hooks.enter_context(layer.register_forward_hook(keep_output))
            hooks.enter_context(out.register_forward_pre_hook(keep_input))
        embeds = split(states)
    return embeds, [
        Opened(given[query][every, rows], given[key], given[value], joined[out], rows, out)
        for query, key, value, out in layers
    ]


def _embed_values(split: Split, values: Tensor) -> Tensor:
    """Send each value alone through the rest of a tower that is cut before its last block: (batch, tokens, embed)."""
    tower = split.tower
    if tower.head is not None:
        return pooling_head.finish(tower.head, values)
    block = tower.blocks[-1]
    *_, out = tower.projections(block)
    states = split.hidden_states + out(values)
    return tower.project(states + block.mlp(block.layer_norm2(states)))


def _embed_second_path(split: Split) -> Tensor:
    """Add up what values that attend to values give, beside the model's own path: (batch, tokens, embed)."""
    tower, own, second = split.tower, split.hidden_states, split.hidden_states
    for block in tower.blocks[split.layer :]:
        normed = block.layer_norm1(own)
        _, _, to_value, out = tower.projections(block)
        value = to_value(normed).unflatten(-1, (block.self_attn.num_heads, -1)).transpose(1, 2)
        second = second + out(scaled_dot_product_attention(value, value, value).transpose(1, 2).flatten(2))
        own = block(own, **split.arguments)
    if tower.head is None:
        return tower.project(second)
    attention = tower.head.attention
    weight, bias = attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2]
    return pooling_head.finish(tower.head, linear(tower.norm(second), weight, bias))


def _empty_caption(clip: HookedCLIP, input_ids: InputIds) -> tuple[InputIds, AttentionMask]:
    """Return the ids and mask of a caption without words, made of the begin and end of another."""
    first, text = input_ids[:1], clip.text
    begin, end = first[:, : text.begin_tokens], first[:, text.find_end(first)]
    ids = torch.cat([begin, end], 1)
    length = ids.shape[1]
    if text.sees_padding:
        ids = torch.cat([ids, ids.new_full((1, clip.context_length - length), text.padding_id)], 1)
    return ids, (torch.arange(ids.shape[1], device=ids.device) < length).long()[None]
