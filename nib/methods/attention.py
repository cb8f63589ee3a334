"""Open the attention of both towers: its probabilities, and their gradients.

Exports `open_attention`, `record`, `attention_gradients` and `explain_attention`. The attention
that transformers runs by default never forms its probabilities, and its eager form rounds them to
float32. So the model is switched, inside a `with`, to a form that keeps them in its own precision.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from nib.clip import HookedCLIP
from nib.methods.pairs import cut, over_pairs, to_scores
from nib.methods.scores import Scores
from nib.shapes import AttentionMask, InputIds, PairValues, PixelValues
from nib.towers import Split, Tower, of_this_thread

NAME = "nib_open"


def _attend(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Return softmax(q k' scaling + mask) v and the probabilities, as transformers' blocks expect them."""
    logits = query @ key.transpose(-1, -2) * scaling  # (batch, heads, queries, keys)
    if attention_mask is not None:
        logits = logits + attention_mask
    precision = torch.promote_types(query.dtype, torch.float32)
    probabilities = logits.softmax(-1, dtype=precision).to(query.dtype)
    return (probabilities @ value).transpose(1, 2).contiguous(), probabilities


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, eager_mask)


@contextmanager
def open_attention(clip: HookedCLIP) -> Iterator[None]:
    """Make every block form its attention probabilities; the model is restored afterwards, also after an error.

    A tower must be cut inside: the kind of its masks depends on the kind of attention.
    """
    model = clip.model
    before = {"": model.config._attn_implementation}
    before |= {name: getattr(model.config, name)._attn_implementation for name in model.config.sub_configs}
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def record(blocks: nn.ModuleList, attention: Callable[[nn.Module], nn.Module]) -> Iterator[list[Tensor]]:
    """Collect the attention probabilities of blocks, (batch, heads, queries, keys) each, in order.

    Args:
        attention: from a block to its self-attention: `Tower.attention`.

    Raises:
        RuntimeError: on leaving, unless each block gave exactly one tensor: the model was not
            switched by `open_attention`, or the blocks did not run once.
    """
    attentions: list[Tensor] = []
    keep = of_this_thread(lambda module, args, outputs: attentions.append(outputs[1]))
    handles = [attention(block).register_forward_hook(keep) for block in blocks]
    try:
        yield attentions
    finally:
        for handle in handles:
            handle.remove()
    found = sum(attention is not None for attention in attentions)
    if not found == len(attentions) == len(blocks):
        raise RuntimeError(f"{len(blocks)} blocks must give as many attention maps, got {found}")


def attention_gradients(clip: HookedCLIP, image: Split, text: Split) -> tuple[PairValues, tuple, tuple]:
    """Differentiate the logit of each pair with respect to the attention of all blocks after the cut.

    The logit is exp(logit_scale) times the cosine. One backward pass serves both towers. Where a head pools all tokens,
    the attention of its one query comes last.

    Returns:
        The cosines (batch,); then for the image and for the text the attentions and their
        gradients, one (batch, heads, queries, keys) a block.
    """
    embeds, attentions = [], []
    with torch.enable_grad():
        for split in (image, text):
            tower, states = split.tower, split.hidden_states.detach().requires_grad_()
            with record(tower.blocks[split.layer :], tower.attention) as recorded:
                pooled, *of_head = split.open_head(states)[:2] if tower.head is not None else (split(states),)
            embeds.append(pooled)
            attentions.append([*recorded, *of_head])
        similarity = cosine_similarity(*embeds)
        logits = clip.model.logit_scale.exp() * similarity
    gradients = torch.autograd.grad(logits.sum(), [*attentions[0], *attentions[1]])
    blocks = len(attentions[0])
    detached = [[attention.detach() for attention in tower] for tower in attentions]
    return similarity.detach(), (detached[0], gradients[:blocks]), (detached[1], gradients[blocks:])


def explain_attention(
    clip: HookedCLIP,
    pixel_values: PixelValues,
    input_ids: InputIds,
    attention_mask: AttentionMask | None,
    relevance: Callable[[list[Tensor], list[Tensor]], Tensor],
    batch_size: int,
    start_layer: int | None = None,
) -> Scores:
    """Score tokens by one row of a relevance made of attentions and their gradients.

    The row is that of the token which each tower pools: the class token, and the end token of the
    caption. In a caption without padding the end token is the last row; with padding it is not. Where a head pools all
    tokens, its attention has the one row of its query.

    Args:
        relevance: from attentions and gradients, lists of (batch, heads, queries, keys), to
            (batch, queries, keys).
        batch_size: pairs at once.
        start_layer: the first block it needs; None for the last block of each tower.

    Raises:
        ValueError: `start_layer` or `batch_size` is out of range.
    """
    layers = [_first_block(tower, start_layer) for tower in (clip.image, clip.text)]

    def explain(pixel_values, input_ids, attention_mask):
        """Explain some pairs: see `over_pairs`."""
        image, text = cut(clip, pixel_values, input_ids, attention_mask, *layers)
        similarity, of_image, of_text = attention_gradients(clip, image, text)
        image_scores, text_scores = _row(relevance(*of_image), image), _row(relevance(*of_text), text)
        real = text.real
        return to_scores(clip, pixel_values, real, similarity, image_scores, text_scores)

    with open_attention(clip):
        return over_pairs(explain, pixel_values, input_ids, attention_mask, batch_size)


def _row(relevance: Tensor, split: Split) -> Tensor:
    """Read the row of what the tower pools: (batch, queries, keys) -> (batch, keys)."""
    rows = torch.arange(len(relevance), device=relevance.device)
    return relevance[rows, 0 if split.tower.head is not None else split.pool_index]


def _first_block(tower: Tower, start_layer: int | None) -> int:
    last = len(tower.blocks) - 1
    if start_layer is None:
        return last
    if isinstance(start_layer, bool) or not isinstance(start_layer, int) or not 0 <= start_layer <= last:
        raise ValueError(f"start_layer must be None or a whole number from 0 to {last}, got {start_layer!r}")
    return start_layer
