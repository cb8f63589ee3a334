import pytest
import torch
from torch.nn.functional import normalize
from transformers import SiglipConfig, SiglipModel

from nib import HookedCLIP
from studies.table1.textspan import decompose, heat_map, text_span


def test_parts_sum_to_the_embedding(clip, pixel_values):
    parts = decompose(clip, pixel_values)
    assert parts.attention.shape == (3, 4, 4, 26, 16)
    torch.testing.assert_close(parts.total(), clip.image.embed(pixel_values), atol=1e-8, rtol=0)


def test_each_head_is_what_its_removal_takes_from_the_last_block(clip, pixel_values):
    """The last block's attention reaches the embedding through its MLP too: compare before that."""
    block, states = clip.model.vision_model.encoder.layers[3], clip.image.split(pixel_values, 3).hidden_states
    captured = {}
    handle = block.layer_norm2.register_forward_pre_hook(lambda module, args: captured.update(middle=args[0]))
    clip.image.split(pixel_values, 4)
    handle.remove()
    parts = decompose(clip, pixel_values)
    pooled = clip.image.split(pixel_values, 4).hidden_states[:, 0]
    norm, projection = clip.model.vision_model.post_layernorm, clip.model.visual_projection
    written = captured["middle"][:, 0] - states[:, 0] - block.self_attn.out_proj.bias
    scale = (pooled.var(-1, unbiased=False) + norm.eps).sqrt()[:, None]
    expected = projection((written - written.mean(-1, keepdim=True)) / scale * norm.weight)
    torch.testing.assert_close(parts.attention[:, 3].sum((1, 2)), expected)


def test_heat_map_is_in_cosine_units(clip, pixel_values, tokens):
    parts, texts = decompose(clip, pixel_values), clip.text.embed(tokens["input_ids"], tokens["attention_mask"])
    unit = parts.total().norm(dim=-1)
    one = (parts.attention[1, :, :, 1 + 7].sum((0, 1)) @ normalize(texts[1], dim=0)) / unit[1]
    found = heat_map(parts, texts)
    assert found.shape == (3, 5, 5)
    assert float(found[1, 1, 2]) == pytest.approx(float(one))


def test_text_span_finds_planted_texts_in_the_order_of_variance():
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(12, 20, generator=generator, dtype=torch.float64)
    strengths = torch.randn(200, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 3.0])
    outputs = strengths @ normalize(texts[[4, 9]], dim=-1) + 5
    # The noise keeps the span whole: within a plane every text is as good as any other once one is taken.
    outputs = outputs + 0.01 * torch.randn(200, 20, generator=generator, dtype=torch.float64)
    (first, share), (second, more) = text_span(outputs, texts, 2)
    assert (first, second) == (9, 4)
    assert share + more == pytest.approx(1, abs=1e-3)
    assert share > more


def test_text_span_takes_the_best_direction_at_each_step():
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    texts = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    chosen = text_span(outputs, texts, 3)
    centred = outputs - outputs.mean(0)
    taken = []
    for index, share in chosen:
        explained = []
        for candidate in range(9):
            basis = torch.linalg.qr(texts[[*taken, candidate]].T).Q
            explained.append(float((centred @ basis).square().sum() / centred.square().sum()))
        before = 0 if not taken else float((centred @ torch.linalg.qr(texts[taken].T).Q).square().sum())
        best = max((candidate for candidate in range(9) if candidate not in taken), key=explained.__getitem__)
        assert index == best
        assert share == pytest.approx(explained[best] - before / float(centred.square().sum()))
        taken.append(index)


def test_a_model_without_class_token_is_refused(pixel_values):
    small = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    config = SiglipConfig(text_config=small, vision_config=small | dict(image_size=60, patch_size=12))
    model = SiglipModel(config)
    stand_in = HookedCLIP.__new__(HookedCLIP)
    stand_in.model = model
    with pytest.raises(ValueError, match="class token"):
        decompose(stand_in, pixel_values.float())
