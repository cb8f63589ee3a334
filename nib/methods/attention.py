"""Score tokens by the attention of both towers, its probabilities and their gradients.

The logit that is differentiated is exp(logit_scale) times the cosine, the other embedding held fixed; scores are read
at the row of the token that the tower pools. The released code reads the last row of the text, which without padding
is the same.

The attention that transformers runs by default never forms its probabilities, and its eager form rounds them to
float32. So the model is switched, inside a `with`, to a form that keeps them in its own precision.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from nib.clip import HookedCLIP
from nib.methods.pairs import explain_in_batches, split_towers, to_scores
from nib.methods.scores import Scores
from nib.towers import of_this_thread

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
    with ExitStack() as hooks:
        for block in blocks:
            hooks.enter_context(attention(block).register_forward_hook(keep))
        yield attentions
    found = sum(each is not None for each in attentions)
    if not found == len(attentions) == len(blocks):
        raise RuntimeError(f"{len(blocks)} blocks must give as many attention maps, got {found}")


def explain_attention(clip, pixel_values, input_ids, attention_mask, relevance, batch_size, start_layer=None) -> Scores:
    """Score tokens by the pooled token's row of a relevance made of attentions and their gradients.

    Args:
        relevance: from attentions and gradients, lists of (batch, heads, queries, keys), to (batch, queries, keys).
            Where a head pools all tokens, the attention of its one query comes last.
        start_layer: the first block it needs; None for the last block of each tower.
    """
    layers = []
    for tower in (clip.image, clip.text):
        last = len(tower.blocks) - 1
        layer = last if start_layer is None else start_layer
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer <= last:
            raise ValueError(f"start_layer must be None or a whole number from 0 to {last}, got {layer!r}")
        layers.append(layer)

    def explain(pixel_values, input_ids, attention_mask):
        image, text = split_towers(clip, pixel_values, input_ids, attention_mask, *layers)
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
        gradients = torch.autograd.grad(logits.sum(), [*attentions[0], *attentions[1]])  # one pass for both
        scores, n_image = [], len(attentions[0])
        for split, of_tower, own in zip((image, text), attentions, (gradients[:n_image], gradients[n_image:])):
            of_pairs = relevance([each.detach() for each in of_tower], own)
            row = 0 if split.tower.head is not None else split.pool_index  # a pooling head has one
            scores.append(of_pairs[torch.arange(len(split), device=of_pairs.device), row])
        return to_scores(clip, pixel_values, text.real, similarity, *scores)

    with open_attention(clip):
        return explain_in_batches(explain, pixel_values, input_ids, attention_mask, batch_size)


def chefer(clip, pixel_values, input_ids, attention_mask=None, *, start_layer=None, batch_size=64, seed=0) -> Scores:
    """Score tokens by attention times its positive gradient, A_bar = mean over heads of (A * d logit / d A)+.

    With a `start_layer` these are rolled out as Chefer, Gur and Wolf (ICCV 2021, Eq. 5 and 6) define it: R = I, and
    R <- R + A_bar R for each block from `start_layer` on. The score of token j is R[pooled, j], the pooled token's own
    1 from the identity included. The released code of the NIB paper takes the last block alone, without the identity,
    which is the default here: its tables measure that, not the rollout. Scores are at least 0, in logit units.

    Args:
        start_layer: first block of the rollout, in both towers, from 0 to the number of blocks less 1; None for A_bar
            of the last block alone.
    """

    def relevance(attentions, gradients):
        positive = [(a * g).clamp(min=0).mean(1) for a, g in zip(attentions, gradients)]
        if start_layer is None:
            return positive[-1]
        total = torch.eye(positive[0].shape[-1], dtype=positive[0].dtype, device=positive[0].device)
        for each in positive:
            passed = each @ total
            total = total + passed if each.shape[1] == each.shape[2] else passed  # a pooling head has one query
        return total

    return explain_attention(clip, pixel_values, input_ids, attention_mask, relevance, batch_size, start_layer)


def saliency(clip, pixel_values, input_ids, attention_mask=None, *, batch_size=64, seed=0) -> Scores:
    """Score tokens by how strongly the logit depends on the last attention that they get.

    The score of token j is the mean over heads of abs(d logit / d A[pooled, j]), A the attention probabilities of the
    last block. The paper's tables call this "Saliency Map"; what they cite, the gradient of the pixels, is
    `pixel_gradient`. Scores are at least 0, in logit units per unit of attention.
    """

    def relevance(attentions, gradients):
        return gradients[-1].abs().mean(1)

    return explain_attention(clip, pixel_values, input_ids, attention_mask, relevance, batch_size)


def fast_ig(clip, pixel_values, input_ids, attention_mask=None, *, batch_size=64, seed=0) -> Scores:
    """Score tokens by the last attention that they get, times the gradient of the logit there.

    The score of token j is the mean over heads of A[pooled, j] * d logit / d A[pooled, j], A the attention
    probabilities of the last block. The paper's tables call this "FastIG"; what they cite is input times gradient:
    `input_x_gradient`. Scores are signed, in logit units.
    """

    def relevance(attentions, gradients):
        return (attentions[-1] * gradients[-1]).mean(1)

    return explain_attention(clip, pixel_values, input_ids, attention_mask, relevance, batch_size)
