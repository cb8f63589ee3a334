"""Cut a tower at any block: those before the cut run without gradients, the rest is a function of the hidden states.

Nothing of transformers' forwards is written again: the blocks get the very arguments of a real forward pass, which a
hook captures and which stops there. Two parts have a form of our own: the last block (`nib.last_block`), which is
shorter, and a pooling head whose attention is wanted (`nib.pooling_head`).
"""

import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from nib import last_block, pooling_head
from nib.shapes import AttentionMask, Embeds, GridScores, HiddenStates, InputIds, PairValues, PixelValues, TokenScores


def of_this_thread(hook: Callable) -> Callable:
    """Let a hook act on passes of this thread alone: others may run the same modules, and theirs go on."""
    thread = threading.get_ident()
    return lambda *args: hook(*args) if threading.get_ident() == thread else None


@dataclass
class Split:
    """A tower cut before block `layer`, for one batch of inputs.

    Call it with hidden states to get embeddings. Their rows may be any multiple of the batch, step-major: row
    s * batch + b belongs to input b.
    """

    hidden_states: HiddenStates  # what enters block `layer`, without gradient
    real: Tensor  # (batch, tokens) boolean, what is not padding
    pool_index: Tensor | None  # (batch,), the token that the tower pools; None where it pools all of them
    tower: "Tower"
    layer: int
    arguments: dict[str, Any]  # what a block receives beside hidden states, by name, masks among it

    def __len__(self) -> int:
        return len(self.hidden_states)

    def __getitem__(self, rows: slice | Tensor) -> "Split":
        pool_index, arguments = self._map_rows(lambda value: value[rows])
        return Split(self.hidden_states[rows], self.real[rows], pool_index, self.tower, self.layer, arguments)

    def __call__(self, hidden_states: HiddenStates) -> Embeds:
        """Run the rest of the tower: (steps * batch, tokens, width) -> (steps * batch, embed)."""
        steps, remainder = divmod(len(hidden_states), len(self))
        if remainder or not steps or hidden_states.shape[1:] != self.hidden_states.shape[1:]:
            shape = ", ".join(map(str, self.hidden_states.shape[1:]))
            found = tuple(hidden_states.shape)
            raise ValueError(f"hidden_states must have shape (k * {len(self)}, {shape}), got {found}")
        pool_index, arguments = self._map_rows(lambda value: value.repeat(steps, *[1] * (value.ndim - 1)))
        blocks = list(self.tower.blocks[self.layer :])
        shorter = blocks and self.tower.head is None and last_block.fits(blocks[-1])
        for block in blocks[:-1] if shorter else blocks:
            hidden_states = block(hidden_states, **arguments)  # (steps * batch, tokens, width)
        if shorter:
            return self.tower.project(last_block.run_pooled(blocks[-1], hidden_states, pool_index, **arguments))
        return self.tower.pool(hidden_states, pool_index)

    def open_head(self, hidden_states: HiddenStates) -> tuple[Embeds, Tensor, tuple[Tensor, ...]]:
        """Run the rest of a tower with a pooling head, one row an input; return what `pooling_head.run_open` does."""
        for block in self.tower.blocks[self.layer :]:
            hidden_states = block(hidden_states, **self.arguments)
        return pooling_head.run_open(self.tower.head, self.tower.norm(hidden_states))

    def _map_rows(self, change: Callable[[Tensor], Tensor]) -> tuple[Tensor | None, dict[str, Any]]:
        """Change what has a row for each input, `pool_index` and some arguments; one row that serves all stays."""
        arguments = dict(self.arguments)
        for name in arguments.keys() & set(self.tower.batched):
            if isinstance(arguments[name], Tensor) and len(arguments[name]) > 1:
                arguments[name] = change(arguments[name])
        return None if self.pool_index is None else change(self.pool_index), arguments


class _Stop(Exception):
    """Ends a forward pass at the block whose arguments are wanted."""


@dataclass(kw_only=True)
class Tower:
    """One encoder of the model."""

    encode: Callable[[Tensor, AttentionMask | None], Any]  # the model's own function, from inputs and attention mask
    root: nn.Module  # the part of the model that holds the blocks
    blocks: nn.ModuleList
    norm: nn.Module  # between the last block and the projection
    projection: nn.Module  # its output is the embedding; the head itself where there is one
    # From inputs to the embeddings of their tokens: of a picture with positions and before any norm, of a caption
    # before positions are added. `enter` takes them into the first block.
    embeddings: Callable[[Tensor], HiddenStates]
    head: nn.Module | None = None  # of attention, pools all tokens; None where one is pooled, normed and projected
    # From a block to its self-attention, whose output is a pair of states and probabilities; and to the linear layers
    # of its queries, keys and values, and of its output.
    attention: Callable[[nn.Module], nn.Module] = attrgetter("self_attn")
    projections: Callable[[nn.Module], tuple[nn.Module, ...]] = attrgetter(
        *(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj"))
    )
    batched: tuple[str, ...] = ("attention_mask",)  # arguments of a block with a row for each input, or one for all

    @property
    def default_layer(self) -> int:
        return 3 * len(self.blocks) // 4  # 9 of 12, as in the NIB paper

    def embed(self, inputs: Tensor, attention_mask: AttentionMask | None = None) -> Embeds:
        """Run the whole tower as transformers does: (batch, embed), not normalised."""
        return self.encode(inputs, attention_mask).pooler_output

    def pool(self, states: HiddenStates, pool_index: Tensor | None) -> Embeds:
        """Turn final hidden states, (rows, tokens, width), into embeddings, (rows, embed)."""
        if self.head is not None:
            return self.head(self.norm(states))
        return self.project(states[torch.arange(len(states), device=states.device), pool_index])

    def project(self, pooled: Tensor) -> Embeds:
        """Norm and project the states of pooled tokens: (rows, width) -> (rows, embed)."""
        return self.projection(self.norm(pooled))

    def locate(self, inputs: Tensor, attention_mask: AttentionMask | None) -> tuple[Tensor, Tensor | None]:
        """Return which tokens are real, (batch, tokens) boolean, and the pooled token of each input, (batch,)."""
        raise NotImplementedError

    @torch.no_grad()
    def split(
        self, inputs: PixelValues | InputIds, layer: int | None = None, attention_mask: AttentionMask | None = None
    ) -> Split:
        """Run the first `layer` blocks, None for `default_layer`, and return the rest as a function.

        split = clip.image.split(pixel_values, layer=9)
        embeds = split(0.5 * split.hidden_states)
        """
        layer = self.check_layer(layer)
        block = self.blocks[min(layer, len(self.blocks) - 1)]
        names = list(inspect.signature(type(block).forward).parameters)[1:]
        arguments = {}

        def stop(module, args, kwargs):
            arguments.update(zip(names, args), **kwargs)
            raise _Stop

        handle = block.register_forward_pre_hook(of_this_thread(stop), with_kwargs=True)
        try:
            self.encode(inputs, attention_mask)
        except _Stop:
            hidden_states = arguments.pop(names[0])
        finally:
            handle.remove()
        if layer == len(self.blocks):
            hidden_states = block(hidden_states, **arguments)
        return Split(hidden_states, *self.locate(inputs, attention_mask), self, layer, arguments)

    def check_layer(self, layer: int | None) -> int:
        """Return the layer, the default for None, or raise a ValueError unless the tower can be cut there."""
        layer = self.default_layer if layer is None else layer
        if isinstance(layer, bool) or not isinstance(layer, Integral) or not 0 <= layer <= len(self.blocks):
            raise ValueError(f"layer must be a whole number from 0 to {len(self.blocks)}, got {layer!r}")
        return int(layer)


@dataclass(kw_only=True)
class ImageTower(Tower):
    """The encoder of pictures; its tokens are patches in reading order, after the class token where there is one."""

    enter: Callable[[HiddenStates], HiddenStates]
    patch: int  # side in pixels
    image_size: int  # side in pixels, of the pictures that it was trained on
    channels: int
    class_tokens: int  # 1 or 0; a class token is what is pooled
    takes_patches: bool = False  # the processor makes lists of patches, of pictures of any aspect ratio

    def grid(self, pixel_values: PixelValues) -> tuple[int, int]:
        """Count the patches of pictures of this size: (rows, columns)."""
        return pixel_values.shape[-2] // self.patch, pixel_values.shape[-1] // self.patch

    def to_grid(self, scores: TokenScores, grid: tuple[int, int]) -> tuple[GridScores, PairValues | None]:
        """Put the scores of tokens on the patch grid; return the map and the class token's score, if there is one."""
        return scores[:, self.class_tokens :].unflatten(1, grid), scores[:, 0] if self.class_tokens else None

    def from_grid(self, values: Tensor, class_value: Any) -> Tensor:
        """Put values of patches, (batch, grid_h, grid_w), in the order of tokens; the class token gets its own."""
        patches = values.flatten(1)
        return torch.cat([patches.new_full((len(patches), self.class_tokens), class_value), patches], 1)

    def locate(self, inputs: PixelValues, attention_mask: AttentionMask | None = None) -> tuple[Tensor, Tensor | None]:
        real = self.from_grid(inputs.new_ones(len(inputs), *self.grid(inputs), dtype=torch.bool), True)
        return real, real.new_zeros(len(inputs), dtype=torch.long) if self.class_tokens else None


@dataclass(kw_only=True)
class TextTower(Tower):
    """The encoder of captions: a begin token where there is one, words, an end token, padding."""

    enter: Callable[[HiddenStates, InputIds], HiddenStates]
    context_length: int  # the most tokens that it takes
    vocabulary: int  # how many token ids there are
    padding_id: int
    find_end: Callable[[InputIds], Tensor]  # from token ids to the index of the end token, (batch,)
    find_pooled: Callable[[InputIds], Tensor] | None = None  # likewise of the pooled token, where that is another
    sees_padding: bool = False  # padding is part of the input, is never masked and has scores
    begin_tokens: int = 1  # 1 or 0

    def words(self, input_ids: InputIds, attention_mask: AttentionMask | None = None) -> Tensor:
        """Return which tokens are not begin, end or padding: (batch, tokens) boolean."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        # The end is found by its id, and so also where the mask is all ones, as a processor of SigLIP makes it.
        inside = (positions >= self.begin_tokens) & (positions < self.find_end(input_ids)[:, None])
        return inside if attention_mask is None else inside & attention_mask.bool()

    def locate(self, inputs: InputIds, attention_mask: AttentionMask | None = None) -> tuple[Tensor, Tensor]:
        # What follows the end is padding even without a mask.
        real = torch.arange(inputs.shape[1], device=inputs.device) <= self.find_end(inputs)[:, None]
        if attention_mask is not None:
            real = real & attention_mask.bool()
        return real | self.sees_padding, (self.find_pooled or self.find_end)(inputs)
