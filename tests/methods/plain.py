"""CLIP written out for one pair, as the oracle of the methods: no hook, no batch, no padding."""

import torch
from torch.nn.functional import cosine_similarity


class Side:
    """One tower of a model and one input, run block by block with its attention in the open.

    `embeddings` is what the tower adds its first layer norm or its positions to; `start` goes from
    there to the states that enter block 0.
    """

    def __init__(self, clip, pixel_values=None, input_ids=None):
        model = clip.model
        self.is_text = input_ids is not None
        part = model.text_model if self.is_text else model.vision_model
        self.blocks = part.encoder.layers
        if self.is_text:
            end = model.config.text_config.eos_token_id
            self.pooled = int((input_ids[0] == end).int().argmax())
            self.norm, self.projection = part.final_layer_norm, model.text_projection
            self.embeddings = part.embeddings.token_embedding.weight[input_ids]  # (1, tokens, width)
            positions = part.embeddings.position_embedding.weight[: input_ids.shape[1]]
            self.start = lambda x: x + positions
        else:
            self.pooled = 0
            self.norm, self.projection = part.post_layernorm, model.visual_projection
            self.embeddings = self.embed_pixels(part.embeddings, pixel_values)  # (1, 1 + patches, width)
            self.start = part.pre_layrnorm

    @staticmethod
    def embed_pixels(embeddings, pixel_values):
        kernel = embeddings.patch_embedding.weight  # (width, channels, patch, patch)
        size = kernel.shape[-1]
        patches = pixel_values.unfold(2, size, size).unfold(3, size, size)  # (1, channels, rows, columns, size, size)
        patches = torch.einsum("bcijhw,dchw->bijd", patches, kernel).flatten(1, 2)
        tokens = torch.cat([embeddings.class_embedding.expand(1, 1, -1), patches], 1)
        return tokens + embeddings.position_embedding.weight

    def states(self, layer):
        """States that enter block `layer`, without gradient."""
        with torch.no_grad():
            return self.run(self.start(self.embeddings), 0, layer)

    def run(self, x, first=0, last=None, attentions=None):
        for block in self.blocks[first:last]:
            x = self.run_block(block, x, attentions)
        return x

    def run_block(self, block, x, attentions):
        attention = block.self_attn
        h = block.layer_norm1(x)
        q, k, v = (f(h).unflatten(-1, (attention.num_heads, -1)).movedim(2, 1) for f in self.linears(attention))
        logits = torch.einsum("bhqd,bhkd->bhqk", q, k) / attention.head_dim**0.5
        if self.is_text:
            logits = logits.masked_fill(torch.ones(logits.shape[-2:]).triu(1).bool(), -torch.inf)
        probabilities = logits.softmax(-1)
        if attentions is not None:
            attentions.append(probabilities)
        x = x + attention.out_proj(torch.einsum("bhqk,bhkd->bqhd", probabilities, v).flatten(2))
        return x + block.mlp(block.layer_norm2(x))

    @staticmethod
    def linears(attention):
        return attention.q_proj, attention.k_proj, attention.v_proj

    def embed(self, x, layer=0, attentions=None):
        """Run blocks from `layer` on, pool and project: (copies, embed)."""
        x = self.run(x, layer, None, attentions)
        return self.projection(self.norm(x[:, self.pooled]))

    def target(self):
        """Embedding of the whole tower, without gradient."""
        with torch.no_grad():
            return self.embed(self.start(self.embeddings))


def similarity(embeds, target):
    return cosine_similarity(embeds, target.expand_as(embeds), dim=-1)


def pairs(clip, pixel_values, tokens):
    """Yield (index, pixel_values (1, ...), input_ids (1, its own length), image side, text side)."""
    for index in range(len(tokens["input_ids"])):
        length = int(tokens["attention_mask"][index].sum())
        pixels, ids = pixel_values[index : index + 1], tokens["input_ids"][index : index + 1, :length]
        yield index, pixels, ids, Side(clip, pixels), Side(clip, None, ids)


def assert_scores(scores, index, image, text, with_class=True):
    """Compare scores of one pair with plain ones: image (1 + patches,) or (grid_h, grid_w), text (tokens,)."""
    close = dict(rtol=1e-8, atol=1e-8)
    if with_class:
        torch.testing.assert_close(scores.image_class[index], image[0], **close)
        image = image[1:].view_as(scores.image[index])
    else:
        assert scores.image_class is None
    torch.testing.assert_close(scores.image[index], image, **close)
    torch.testing.assert_close(scores.text[index, : len(text)], text, **close)
    assert not scores.text[index, len(text) :].any()


def assert_plain(clip, pixel_values, tokens, scores, explain, *options):
    """Compare scores with `explain(side, target, *options)` of each side of each pair, as `assert_scores` does."""
    for index, _, _, image, text in pairs(clip, pixel_values, tokens):
        of_image, of_text = explain(image, text.target(), *options), explain(text, image.target(), *options)
        assert_scores(scores, index, of_image, of_text)
