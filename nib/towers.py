"""Say what differs between model families, and cut a tower at any block.

Exports `Tower`, `ImageTower`, `TextTower`, `Split`, `FAMILIES` and `build_towers`. No other file knows how a family
names its parts, where it pools, or which tokens are patches, words and padding. To add a family, write one function
that builds its two towers, and name it in `FAMILIES`.

The blocks before a cut run without gradients, the rest is a function of the hidden states. Nothing of transformers'
forwards is written again: the blocks get the very arguments of a real forward pass, which a hook captures and which
stops there. Only the last block is run in a shorter form of our own, where that gives the same: `nib.last_block`.
"""

import inspect
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from nib import last_block, pooling_head
from nib.shapes import AttentionMask, Embeds, GridScores, HiddenStates, InputIds, PairValues, PixelValues, TokenScores


@dataclass
class Split:
    """A tower cut before block `layer`, for one batch of inputs.

    Call it with hidden states to get embeddings. Their rows may be any multiple of the batch,
    step-major: row s * batch + b belongs to input b.

    Attributes:
        hidden_states: (batch, tokens, width), what enters block `layer`, without gradient.
        real: (batch, tokens) boolean, what is not padding.
        pool_index: (batch,), the token that the tower pools; None where it pools all of them.
        tower, layer: what was cut, and how many blocks ran before the cut.
        arguments: what a block receives beside hidden states, by name, masks among it.
    """

    hidden_states: HiddenStates
    real: Tensor
    pool_index: Tensor | None
    tower: "Tower"
    layer: int
    arguments: dict[str, Any]

    def __len__(self) -> int:
        return len(self.hidden_states)

    def __getitem__(self, rows: slice | Tensor) -> "Split":
        """Cut some inputs out of the batch."""
        pool_index = None if self.pool_index is None else self.pool_index[rows]
        arguments = self._map_batched(lambda value: value[rows])
        return Split(self.hidden_states[rows], self.real[rows], pool_index, self.tower, self.layer, arguments)

    def __call__(self, hidden_states: HiddenStates) -> Embeds:
        """Run the rest of the tower: (steps * batch, tokens, width) -> (steps * batch, embed)."""
        steps, remainder = divmod(len(hidden_states), len(self))
        if remainder or not steps or hidden_states.shape[1:] != self.hidden_states.shape[1:]:
            shape = ", ".join(map(str, self.hidden_states.shape[1:]))
            found = tuple(hidden_states.shape)
            raise ValueError(f"hidden_states must have shape (k * {len(self)}, {shape}), got {found}")
        arguments = self._map_batched(lambda value: value.repeat(steps, *[1] * (value.ndim - 1)))
        pool_index = None if self.pool_index is None else self.pool_index.repeat(steps)
        blocks = list(self.tower.blocks[self.layer :])
        shorter = blocks and self.tower.head is None and last_block.fits(blocks[-1])
        for block in blocks[:-1] if shorter else blocks:
            hidden_states = block(hidden_states, **arguments)  # (steps * batch, tokens, width)
        if shorter:
            return self.tower.project(last_block.run_pooled(blocks[-1], hidden_states, pool_index, **arguments))
        return self.tower.pool(hidden_states, pool_index)

    def open_head(self, hidden_states: HiddenStates) -> tuple[Embeds, Tensor, tuple[Tensor, ...]]:
        """Run the rest of a tower with a pooling head in the open: see `nib.pooling_head.run_open`."""
        for block in self.tower.blocks[self.layer :]:
            hidden_states = block(hidden_states, **self.arguments)
        return pooling_head.run_open(self.tower.head, self.tower.norm(hidden_states))

    def _map_batched(self, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Change the arguments that have a row for each input; one row that serves all of them stays."""
        batched = self.tower.batched
        return {
            name: change(value) if name in batched and isinstance(value, Tensor) and len(value) > 1 else value
            for name, value in self.arguments.items()
        }


class _Stop(Exception):
    """Ends a forward pass at the block whose arguments are wanted."""


@dataclass(kw_only=True)
class Tower:
    """One encoder of the model.

    Attributes:
        encode: the model's own function from inputs and attention mask to its output object.
        blocks: the transformer blocks.
        norm: the layer norm between the last block and the projection.
        projection: the last module: its output is the embedding; the head itself where there is one.
        embeddings: from inputs to the embeddings of their tokens, (batch, tokens, width): of a picture with positions
            and before any norm, of a caption before positions are added.
        head: the attention head that pools all tokens; None where one token is pooled, normed and projected.
        attention: from a block to its self-attention, whose output is a pair of states and probabilities.
        projections: from a block to the linear layers of its queries, keys and values, and of its output.
        batched: names of the arguments of a block that have a row for each input, or one row for all of them.
    """

    encode: Callable[[Tensor, AttentionMask | None], Any]
    blocks: nn.ModuleList
    norm: nn.Module
    projection: nn.Module
    embeddings: Callable[[Tensor], HiddenStates]
    head: nn.Module | None = None
    attention: Callable[[nn.Module], nn.Module] = attrgetter("self_attn")
    projections: Callable[[nn.Module], tuple[nn.Module, ...]] = attrgetter(
        *(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj"))
    )
    batched: tuple[str, ...] = ("attention_mask",)

    @property
    def default_layer(self) -> int:
        """Return three quarters of the blocks: 9 of 12, as in the NIB paper."""
        return 3 * len(self.blocks) // 4

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
        """Run the first `layer` blocks and return the rest as a function.

            split = clip.image.split(pixel_values, layer=9)
            embeds = split(0.5 * split.hidden_states)

        Args:
            inputs: pixel values or token ids.
            layer: blocks run before the cut, from 0 to the number of blocks; None for `default_layer`. (What the
                released code calls layer 9 is 9 here for NIB, and 10 for M2IB and Grad-CAM.)
            attention_mask: for text, 1 at tokens and 0 at padding.

        Raises:
            ValueError: `layer` is out of range.
        """
        last = min(layer := self.check_layer(layer), len(self.blocks) - 1)
        with self._capture(self.blocks[last]) as captured:
            self.encode(inputs, attention_mask)
        hidden_states, arguments = captured
        if layer == len(self.blocks):
            hidden_states = self.blocks[last](hidden_states, **arguments)
        return Split(hidden_states, *self.locate(inputs, attention_mask), self, layer, arguments)

    def check_layer(self, layer: int | None) -> int:
        """Return the layer, or the default for None; raise a ValueError unless it can be cut there."""
        layer = self.default_layer if layer is None else layer
        if isinstance(layer, bool) or not isinstance(layer, Integral) or not 0 <= layer <= len(self.blocks):
            raise ValueError(f"layer must be a whole number from 0 to {len(self.blocks)}, got {layer!r}")
        return int(layer)

    @staticmethod
    @contextmanager
    def _capture(block: nn.Module):
        """Catch what this thread's next call of `block` gets, states first, and stop the forward pass there."""
        names = list(inspect.signature(type(block).forward).parameters)[1:]
        captured: list = []
        thread = threading.get_ident()

        def hook(module, args, kwargs):
            if threading.get_ident() != thread:  # another thread runs the same model: its pass goes on
                return
            arguments = dict(zip(names, args)) | kwargs
            captured.extend((arguments.pop(names[0]), arguments))
            raise _Stop

        handle = block.register_forward_pre_hook(hook, with_kwargs=True)
        try:
            yield captured
        except _Stop:
            pass
        finally:
            handle.remove()


@dataclass(kw_only=True)
class ImageTower(Tower):
    """The encoder of pictures; its tokens are patches in reading order, after the class token where there is one.

    Attributes:
        patch: side of a patch in pixels.
        image_size, channels: of the pictures that it was trained on, the side in pixels.
        takes_patches: the model's processor makes lists of patches, of pictures of any aspect ratio.
        class_tokens: how many tokens come before the patches, 1 or 0. The class token is what is pooled.
        enter: from the embeddings of the tokens to what enters the first block.
    """

    patch: int
    image_size: int
    channels: int
    class_tokens: int
    enter: Callable[[HiddenStates], HiddenStates]
    takes_patches: bool = False

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
    """The encoder of captions: a begin token where there is one, words, an end token, padding.

    Attributes:
        enter: from the embeddings of the tokens, (batch, tokens, width), and the token ids to what enters the first
            block: positions are added there, and in some families a norm follows.
        context_length: the most tokens it takes.
        vocabulary: how many token ids there are.
        padding_id: token id of padding.
        sees_padding: padding is part of the input, is never masked and has scores.
        find_end: from token ids to the index of the end token, (batch,).
        find_pooled: likewise of the pooled token; None where that is the end token.
        begin_tokens: how many tokens come before the words, 1 or 0.
    """

    enter: Callable[[HiddenStates, InputIds], HiddenStates]
    context_length: int
    vocabulary: int
    padding_id: int
    find_end: Callable[[InputIds], Tensor]
    find_pooled: Callable[[InputIds], Tensor] | None = None
    sees_padding: bool = False
    begin_tokens: int = 1

    def words(self, input_ids: InputIds, attention_mask: AttentionMask | None = None) -> Tensor:
        """Return which tokens are words, not begin, end or padding: (batch, tokens) boolean."""
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


def build_towers(model: nn.Module, tokenizer=None) -> tuple[ImageTower, TextTower]:
    """Build the two towers of a model, or raise a ValueError where its family is not in `FAMILIES`.

    Args:
        tokenizer: where the model came with one; SigLIP's configs do not say which ids are padding and end.
    """
    if (family := model.config.model_type) not in FAMILIES:
        raise ValueError(f"model_type must be one of {sorted(FAMILIES)}, got {family!r}")
    build_image, build_text = FAMILIES[family]
    return build_image(model), build_text(model, tokenizer)


def _encode_images(model: nn.Module, size: int) -> Callable:
    """Return the model's own function of pictures; positions are interpolated where they have another size."""

    def encode(pixel_values, attention_mask=None):
        other_size = tuple(pixel_values.shape[-2:]) != (size, size)
        return model.get_image_features(pixel_values=pixel_values, interpolate_pos_encoding=other_size)

    return encode


def _clip_image(model: nn.Module) -> ImageTower:
    """CLIP: the class token first, which is pooled, normed and projected."""
    vision, config = model.vision_model, model.vision_model.config
    return ImageTower(
        encode=_encode_images(model, config.image_size), blocks=vision.encoder.layers, norm=vision.post_layernorm,
        projection=model.visual_projection, embeddings=partial(vision.embeddings, interpolate_pos_encoding=True),
        enter=vision.pre_layrnorm, patch=config.patch_size, image_size=config.image_size, channels=config.num_channels,
        class_tokens=1,
    )  # fmt: skip


def _siglip_image(model: nn.Module) -> ImageTower:
    """SigLIP: patches alone, normed, then pooled by an attention head whose output is the embedding."""
    vision, config = model.vision_model, model.vision_model.config
    if not vision.use_head:
        raise ValueError("a SigLIP without its pooling head (vision_use_head=False) has no embedding of pictures")
    return ImageTower(
        encode=_encode_images(model, config.image_size), blocks=vision.encoder.layers, norm=vision.post_layernorm,
        projection=vision.head, head=vision.head, embeddings=partial(vision.embeddings, interpolate_pos_encoding=True),
        enter=nn.Identity(), patch=config.patch_size, image_size=config.image_size, channels=config.num_channels,
        class_tokens=0,
    )  # fmt: skip


def _siglip2_image(model: nn.Module) -> ImageTower:
    """SigLIP 2 with NaFlex: as SigLIP, of pictures of any aspect ratio, which the model takes as lists of patches."""
    vision, config = model.vision_model, model.vision_model.config
    patch, channels = config.patch_size, config.num_channels

    def to_patches(pixel_values):
        """Cut (batch, channels, height, width) into patches, channels last in each; return their grids too."""
        rows, columns = pixel_values.shape[-2] // patch, pixel_values.shape[-1] // patch
        tiles = pixel_values[..., : rows * patch, : columns * patch].unflatten(3, (columns, patch))
        tiles = tiles.unflatten(2, (rows, patch)).permute(0, 2, 4, 3, 5, 1)  # batch, rows, columns, y, x, channels
        shapes = torch.tensor([[rows, columns]] * len(pixel_values), device=pixel_values.device)
        return tiles.flatten(3).flatten(1, 2), shapes

    def encode(pixel_values, attention_mask=None):
        patches, shapes = to_patches(pixel_values)
        every = torch.ones(
            patches.shape[:2], dtype=torch.long, device=patches.device
        )  # pictures of one size: no padding
        return model.get_image_features(patches, pixel_attention_mask=every, spatial_shapes=shapes)

    return ImageTower(
        encode=encode, blocks=vision.encoder.layers, norm=vision.post_layernorm, projection=vision.head,
        head=vision.head, embeddings=lambda pixel_values: vision.embeddings(*to_patches(pixel_values)),
        enter=nn.Identity(), patch=patch, image_size=round(config.num_patches**0.5) * patch, channels=channels,
        class_tokens=0, takes_patches=True,
    )  # fmt: skip


def _clip_text(model: nn.Module, tokenizer=None, strict_end: bool = False) -> TextTower:
    """CLIP: causal, pooled at the end token."""
    text, config = model.text_model, model.text_model.config
    end, padding = config.eos_token_id, config.pad_token_id

    def find_end(input_ids):
        # The hub's CLIP configs say 2, which no tokenizer uses: those models pool at the largest id.
        return (input_ids if end == 2 and not strict_end else (input_ids == end).int()).argmax(-1)

    return TextTower(
        encode=lambda ids, mask=None: model.get_text_features(input_ids=ids, attention_mask=mask),
        blocks=text.encoder.layers, norm=text.final_layer_norm, projection=model.text_projection,
        embeddings=text.embeddings.token_embedding, enter=lambda states, ids: text.embeddings(inputs_embeds=states),
        context_length=config.max_position_embeddings, vocabulary=config.vocab_size,
        padding_id=0 if padding is None else padding, find_end=find_end,
    )  # fmt: skip


def _siglip_text(model: nn.Module, tokenizer=None) -> TextTower:
    """SigLIP: bidirectional and without a mask, padded to its length, pooled at the last place, no begin token."""
    text, config = model.text_model, model.text_model.config
    padding = config.pad_token_id if tokenizer is None else tokenizer.pad_token_id
    end = padding if tokenizer is None else tokenizer.eos_token_id  # the published configs name no such ids
    if padding is None:
        raise ValueError("a SigLIP sees its padding, so its tokenizer must have a padding token, and this one has none")

    def find_end(input_ids):
        """Find the last token that is no padding, or the first padding where that is what ends a caption."""
        words = (input_ids != padding).flip(-1).int()
        last = input_ids.shape[-1] - 1 - words.argmax(-1)
        return last if end != padding else (last + 1).clamp(max=input_ids.shape[-1] - 1)

    return TextTower(
        encode=lambda ids, mask=None: model.get_text_features(input_ids=ids), blocks=text.encoder.layers,
        norm=text.final_layer_norm, projection=text.head, embeddings=text.embeddings.token_embedding,
        enter=lambda states, ids: text.embeddings(inputs_embeds=states), context_length=config.max_position_embeddings,
        vocabulary=config.vocab_size, padding_id=padding, find_end=find_end, sees_padding=True, begin_tokens=0,
        find_pooled=lambda ids: torch.full((len(ids),), ids.shape[1] - 1, device=ids.device),
    )  # fmt: skip


def _bert_text(model: nn.Module, tokenizer=None) -> TextTower:
    """AltCLIP and ChineseCLIP: bidirectional and masked, pooled at the first token; padding follows the end token."""
    text, config = model.text_model, model.text_model.config
    padding, projection, norm, longest = config.pad_token_id, model.text_projection, nn.Identity(), 0
    if hasattr(text, "roberta"):  # AltCLIP: two linear layers after a norm; places are counted from the padding id on
        norm, projection = text.pre_LN, nn.Sequential(text.transformation, projection)
        text, longest = text.roberta, padding + 1
    embeddings = text.embeddings

    def place(ids):
        if not longest:
            return None
        return embeddings.create_position_ids_from_input_ids(ids, padding)

    return TextTower(
        encode=lambda ids, mask=None: model.get_text_features(input_ids=ids, attention_mask=mask),
        blocks=getattr(text.encoder, "layers", None) or text.encoder.layer, norm=norm, projection=projection,
        attention=attrgetter("attention.self"), projections=attrgetter(
            *(f"attention.{name}" for name in ("self.query", "self.key", "self.value", "output.dense"))
        ), embeddings=embeddings.word_embeddings,
        enter=lambda states, ids: embeddings(inputs_embeds=states, position_ids=place(ids)),
        context_length=config.max_position_embeddings - longest, vocabulary=config.vocab_size, padding_id=padding,
        find_end=lambda ids: ids.shape[-1] - 1 - (ids != padding).flip(-1).int().argmax(-1),
        find_pooled=lambda ids: ids.new_zeros(len(ids)),
    )  # fmt: skip


FAMILIES = {
    "clip": (_clip_image, _clip_text),
    "clipseg": (_clip_image, _clip_text),
    "metaclip_2": (_clip_image, partial(_clip_text, strict_end=True)),
    "siglip": (_siglip_image, _siglip_text),
    "siglip2": (_siglip2_image, _siglip_text),
    "altclip": (_clip_image, _bert_text),
    "chinese_clip": (_clip_image, _bert_text),
}
