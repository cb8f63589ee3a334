"""Every family is cut exactly where its own forward says, and every method runs on it or says why not."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

import nib
from benchmarks.families import CAPTIONS, FAMILIES, SIZES, build, draw_pictures
from nib.inputs import to_tokens
from nib.methods import TOGETHER
from nib.verify import integrate_plainly

PRECISE = dict(atol=1e-8, rtol=0)
OPTIONS = {"rise": {"n_masks": 8, "text_masks": 6}, "m2ib": {"n_steps": 3, "n_noise": 2}, "lime": {"n_samples": 6}}
OPTIONS |= {"mfaba": {"n_steps": 3}}
NEED_PRE_NORM = ("mask_clip", "clip_surgery")  # refused where the text tower norms after its attention
ON_PIXELS = ("rise", "lime", "pixel_gradient", "center", "random")  # these meet the sides that no patch divides
SEE_THE_PAIR = ("nib", "fast_ig", "saliency", "pixel_gradient")

each_family = pytest.mark.parametrize("family", FAMILIES)


@cache
def open_case(family, size="small"):
    clip = build(family, size)
    input_ids, attention_mask, _ = to_tokens(clip, CAPTIONS)
    return clip, draw_pictures(clip, size), input_ids, attention_mask


@each_family
def test_cut_and_joined_it_is_the_models_own(family, subtests):
    for size in SIZES:
        with subtests.test(size):
            clip, pictures, ids, mask = open_case(family, size)
            for tower, inputs, own_mask in ((clip.image, pictures, None), (clip.text, ids, mask)):
                expected = tower.encode(inputs, own_mask).pooler_output
                for layer in range(len(tower.blocks) + 1):
                    split = tower.split(inputs, layer, own_mask)
                    assert_close(split(split.hidden_states), expected, **PRECISE)
            text = clip.text.split(ids, 0, mask)
            assert_close(clip.text.enter(clip.text.embeddings(ids), ids), text.hidden_states, **PRECISE)
            image = clip.image.split(pictures, 0)
            assert_close(clip.image.enter(clip.image.embeddings(pictures)), image.hidden_states, atol=1e-6, rtol=0)


@each_family
def test_nib_is_the_integral_in_the_models_own_forward(family, subtests):
    for size in SIZES:
        with subtests.test(size):
            clip, pictures, ids, mask = open_case(family, size)
            layers = [len(tower.blocks) // 2 for tower in (clip.image, clip.text)]
            found = nib.METHODS["nib"](clip, pictures, ids, mask, layer=tuple(layers), n_steps=4)
            images, texts = clip.image.embed(pictures), clip.text.embed(ids, mask)
            of_image = integrate_plainly(clip.image, pictures, None, texts, layers[0], 4)
            of_text = integrate_plainly(clip.text, ids, mask, images, layers[1], 4)
            real, _ = clip.text.locate(ids, mask)
            patches, class_score = clip.image.to_grid(of_image, clip.grid(pictures))
            assert_close(found.image, patches, **PRECISE)
            assert (found.image_class is None) == (class_score is None)
            if class_score is not None:
                assert_close(found.image_class, class_score, **PRECISE)
            assert_close(found.text, torch.where(real, of_text, 0.0), **PRECISE)
            assert_close(found.similarity, cosine_similarity(images, texts), **PRECISE)


def compare_with_single_pairs(family, method):
    """Run a method on three pairs and on those with padding alone: the same scores, and a model left as it was."""
    clip, pictures, ids, mask = open_case(family, "large" if method in ON_PIXELS else "small")
    options = OPTIONS.get(method, {})
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    expected = clip.text.embed(ids, mask)
    both = nib.METHODS[method](clip, pictures, ids, mask, **options)
    assert both.image.isfinite().all()
    assert both.text.isfinite().all()
    if method in SEE_THE_PAIR:
        assert (both.image.flatten(1).std(1) > 0).all()
        assert (both.text.std(1) > 0).all()
    assert torch.equal(clip.text.embed(ids, mask), expected)
    assert all(torch.equal(value, before[name]) for name, value in clip.model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in clip.model.modules())
    for row in (1, 2):
        length = ids.shape[1] if clip.text.sees_padding else int(mask[row].sum())
        one = slice(row, row + 1)
        single = nib.METHODS[method](clip, pictures[one], ids[one, :length], mask[one, :length], **options)
        assert_close(single.image, both.image[one], **PRECISE)
        assert_close(single.text, both.text[one, :length], **PRECISE)


@each_family
def test_a_batch_gives_what_single_pairs_give(family, subtests):
    for method in nib.METHODS:
        if method in TOGETHER:
            continue
        with subtests.test(method):
            if method in NEED_PRE_NORM and family in ("altclip", "chinese_clip"):
                with pytest.raises(ValueError, match="norms after its attention"):
                    compare_with_single_pairs(family, method)
            else:
                compare_with_single_pairs(family, method)


def test_confidence_is_measured_and_the_released_protocol_only_where_it_was_run(subtests):
    for family in FAMILIES:
        with subtests.test(family):
            clip, pictures, ids, mask = open_case(family)
            scores = nib.METHODS["none"](clip, pictures, ids, mask)
            found = nib.metrics.confidence(clip, pictures, ids, mask, scores)
            assert_close(found["image_drop"], torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
            assert_close(found["text_drop"], torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
            if family in ("clip", "clipseg", "metaclip_2"):
                nib.metrics.confidence(clip, pictures, ids, mask, scores, protocol="released")
            else:
                with pytest.raises(ValueError, match=r"released.*CLIP"):
                    nib.metrics.confidence(clip, pictures, ids, mask, scores, protocol="released")


def test_the_tower_knows_words_by_their_ids_as_the_tokenizer_does(subtests):
    for family in FAMILIES:
        with subtests.test(family):
            clip, _, ids, mask = open_case(family)
            expected = torch.zeros_like(ids, dtype=torch.bool)
            for row, (_, word_ids, _) in enumerate(to_tokens(clip, CAPTIONS)[2]):
                expected[row, : len(word_ids)] = torch.tensor([word is not None for word in word_ids])
            assert torch.equal(clip.text.words(ids, mask), expected)
            assert torch.equal(clip.text.words(ids), expected)
            assert torch.equal(clip.text.find_end(ids), mask.sum(1) - 1)


def test_words_and_the_rest_add_up(subtests):
    picture = Image.fromarray((np.arange(60 * 80 * 3) % 251).astype(np.uint8).reshape(60, 80, 3))
    for family in FAMILIES:
        with subtests.test(family):
            clip, *_ = open_case(family)
            for result, caption in zip(nib.attribute(clip, picture, CAPTIONS, n_steps=3), CAPTIONS, strict=True):
                assert result.words == caption.split()
                parts = [result.begin_score, result.end_score, result.padding_score]
                total = result.word_scores.sum() + sum(part for part in parts if part is not None)
                assert abs(total - result.text.gap - result.text.difference) < 1e-8
                assert (result.begin_score is None) == (clip.text.begin_tokens == 0)
                assert (result.padding_score is None) == (not clip.text.sees_padding)
                alone = nib.attribute(clip, picture, caption, n_steps=3)
                assert abs(alone.similarity - result.similarity) < 1e-8


def test_naflex_takes_pictures_of_any_shape_and_gives_their_own_grid():
    clip = build("siglip2")
    shades = Image.linear_gradient("L").convert("RGB")  # rows differ, columns do not
    pictures = [shades.resize(size) for size in ((96, 24), (24, 96), (60, 60))]
    results = nib.attribute(clip, pictures, ["a red dog"] * 3, n_steps=2)
    grids = [result.image_scores.shape for result in results]
    assert grids[0][1] > grids[0][0]
    assert grids[1][0] > grids[1][1]
    assert grids[2][0] == grids[2][1]
    for picture, result in zip(pictures, results):
        made = clip.image_processor(images=picture, return_tensors="pt")
        names = ("pixel_values", "pixel_attention_mask", "spatial_shapes")
        patches, padding, shapes = (made[name] for name in names)
        own = clip.model.get_image_features(patches.double(), pixel_attention_mask=padding, spatial_shapes=shapes)
        text = clip.text.embed(*to_tokens(clip, ["a red dog"])[:2])
        similarity = cosine_similarity(own.pooler_output, text).item()
        assert abs(similarity - result.similarity) < 1e-6
        assert tuple(shapes[0].tolist()) == result.image_scores.shape
        assert result.picture.shape[:2] == tuple(12 * side for side in result.image_scores.shape)


@pytest.mark.parametrize("family", ["siglip", "siglip2"])
def test_the_heads_attention_in_the_open_is_the_heads_own(family):
    clip = build(family)
    pictures = draw_pictures(clip, "small")
    split = clip.image.split(pictures, 1)
    embeds, attention, _ = split.open_head(split.hidden_states)
    assert_close(embeds, split(split.hidden_states), **PRECISE)
    head, grid = copy.deepcopy(clip.model.vision_model.head), clip.grid(pictures)
    states = clip.image.norm(clip.image.split(pictures, len(clip.image.blocks)).hidden_states)
    probe = head.probe.repeat(len(states), 1, 1)
    expected = head.attention(probe, states, states, average_attn_weights=False)[1]
    assert_close(attention, expected, **PRECISE)
    assert attention.shape[-1] == grid[0] * grid[1]


def test_default_layers_follow_each_tower():
    clip = build("siglip", "large")  # 4 and 3 blocks
    assert clip.layers(None) == (3, 2)
    assert clip.layers(None, later=1) == (3, 2)  # there is none after it that could be cut
    picture = Image.new("RGB", (53, 53), "red")
    assert nib.attribute(clip, picture, "a dog", n_steps=1).parameters["layer"] == (3, 2)


def test_a_siglip_without_a_padding_token_is_refused():
    clip = build("siglip, end apart")
    clip.tokenizer.pad_token = None
    with pytest.raises(ValueError, match="must have a padding token, and this one has none"):
        nib.HookedCLIP(clip.model, clip.tokenizer)
