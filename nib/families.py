"""Say what differs between model families: how each names its parts, where it pools, which tokens are words.

Other files ask the towers; only last_block, pooling_head and methods/values look inside a block or head. To add a
family, write the functions that build its two towers, whose fields `nib.towers` explains, and name them in `FAMILIES`.
"""

from functools import partial
from operator import attrgetter

import torch
from torch import nn

from nib.checks import check_count
from nib.towers import ImageTower, TextTower


def build_towers(model: nn.Module, tokenizer=None) -> tuple[ImageTower, TextTower]:
    """Build the two towers of a model; SigLIP's tokenizer says which ids are padding and end, its config does not."""
    if (family := model.config.model_type) not in FAMILIES:
        raise ValueError(f"model_type must be one of {sorted(FAMILIES)}, got {family!r}")
    build_image, build_text = FAMILIES[family]
    return build_image(model), build_text(model, tokenizer)


def _build_image(model: nn.Module, size: int, **own) -> ImageTower:
    """Build a tower of pictures; positions are interpolated where these have another size than its own."""
    vision, config = model.vision_model, model.vision_model.config

    def encode(pixel_values, attention_mask=None):
        other_size = tuple(pixel_values.shape[-2:]) != (size, size)
        return model.get_image_features(pixel_values=pixel_values, interpolate_pos_encoding=other_size)

    def embed(pixel_values):  # looked up at each call, as embeddings may be replaced
        return vision.embeddings(pixel_values, interpolate_pos_encoding=True)

    parts = dict(
        encode=encode, embeddings=embed, root=vision, blocks=vision.encoder.layers, norm=vision.post_layernorm,
        patch=config.patch_size, image_size=size, channels=config.num_channels,
    )  # fmt: skip
    return ImageTower(**parts | own)


def _clip_image(model: nn.Module) -> ImageTower:
    """CLIP: the class token first, which is pooled, normed and projected."""
    vision, projection = model.vision_model, model.visual_projection
    size = vision.config.image_size
    return _build_image(model, size, projection=projection, enter=vision.pre_layrnorm, class_tokens=1)


def _siglip_image(model: nn.Module) -> ImageTower:
    """SigLIP: patches alone, normed, then pooled by an attention head whose output is the embedding."""
    vision = model.vision_model
    if not vision.use_head:
        raise ValueError("a SigLIP without its pooling head (vision_use_head=False) has no embedding of pictures")
    head = dict(projection=vision.head, head=vision.head)
    return _build_image(model, vision.config.image_size, **head, enter=nn.Identity(), class_tokens=0)


def _siglip2_image(model: nn.Module) -> ImageTower:
    """SigLIP 2 with NaFlex: as SigLIP, of pictures of any aspect ratio, which the model takes as lists of patches."""
    vision = model.vision_model
    patch = vision.config.patch_size

    def to_patches(pixel_values):
        """Cut (batch, channels, height, width) into patches, channels last in each; return their grids too."""
        rows, columns = pixel_values.shape[-2] // patch, pixel_values.shape[-1] // patch
        tiles = pixel_values[..., : rows * patch, : columns * patch].unflatten(3, (columns, patch))
        tiles = tiles.unflatten(2, (rows, patch)).permute(0, 2, 4, 3, 5, 1)  # batch, rows, columns, y, x, channels
        shapes = torch.tensor([[rows, columns]] * len(pixel_values), device=pixel_values.device)
        return tiles.flatten(3).flatten(1, 2), shapes

    def encode(pixel_values, attention_mask=None):
        patches, shapes = to_patches(pixel_values)
        every = patches.new_ones(patches.shape[:2], dtype=torch.long)  # pictures of one size: no padding
        return model.get_image_features(patches, pixel_attention_mask=every, spatial_shapes=shapes)

    return _build_image(
        model, round(vision.config.num_patches**0.5) * patch, encode=encode, projection=vision.head, head=vision.head,
        embeddings=lambda pixel_values: vision.embeddings(*to_patches(pixel_values)), enter=nn.Identity(),
        class_tokens=0, takes_patches=True,
    )  # fmt: skip


def _clip_text(model: nn.Module, tokenizer=None, strict_end: bool = False) -> TextTower:
    """CLIP: causal, pooled at the end token."""
    text, config = model.text_model, model.text_model.config
    end, padding = config.eos_token_id, config.pad_token_id
    check_count("eos_token_id of the text config", end, 0)

    def find_end(input_ids):
        # The hub's CLIP configs say 2, which no tokenizer uses: those models pool at the largest id.
        return (input_ids if end == 2 and not strict_end else (input_ids == end).int()).argmax(-1)

    return TextTower(
        encode=lambda ids, mask=None: model.get_text_features(input_ids=ids, attention_mask=mask),
        root=text, blocks=text.encoder.layers, norm=text.final_layer_norm, projection=model.text_projection,
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
        encode=lambda ids, mask=None: model.get_text_features(input_ids=ids), root=text, blocks=text.encoder.layers,
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
        return embeddings.create_position_ids_from_input_ids(ids, padding) if longest else None

    return TextTower(
        encode=lambda ids, mask=None: model.get_text_features(input_ids=ids, attention_mask=mask),
        root=model.text_model, blocks=getattr(text.encoder, "layers", None) or text.encoder.layer, norm=norm,
        projection=projection,
        attention=attrgetter("attention.self"), projections=attrgetter(
            *(f"attention.{name}" for name in ("self.query", "self.key", "self.value", "output.dense"))
        ), embeddings=embeddings.word_embeddings,
        enter=lambda states, ids: embeddings(inputs_embeds=states, position_ids=place(ids)),
        context_length=config.max_position_embeddings - longest, vocabulary=config.vocab_size, padding_id=padding,
        find_end=lambda ids: ids.shape[-1] - 1 - (ids != padding).flip(-1).int().argmax(-1),
        find_pooled=lambda ids: ids.new_zeros(len(ids)),
    )  # fmt: skip


UNUSED = ("decoder.",)  # begins the names of weights that no tower has: CLIPSeg's
FAMILIES = {
    "clip": (_clip_image, _clip_text),
    "clipseg": (_clip_image, _clip_text),
    "metaclip_2": (_clip_image, partial(_clip_text, strict_end=True)),
    "siglip": (_siglip_image, _siglip_text),
    "siglip2": (_siglip2_image, _siglip_text),
    "altclip": (_clip_image, _bert_text),
    "chinese_clip": (_clip_image, _bert_text),
}
