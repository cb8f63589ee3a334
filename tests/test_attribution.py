"""`attribute` takes what people have, checks all of it first, and adds up."""

import json
from operator import attrgetter

import numpy as np
import pytest
import torch
from conftest import CAPTIONS, make_config, randomise
from PIL import Image
from torch.nn.functional import cosine_similarity
from transformers import CLIPModel

import nib
from nib.inputs import to_pixel_values, to_tokens

PATH = dict(layer=2, n_steps=3)


@pytest.fixture(scope="module")
def model(tokenizer, image_processor):
    """A model for what does not depend on how it pools a caption."""
    return nib.HookedCLIP(randomise(CLIPModel(make_config())).double(), tokenizer, image_processor)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (70, 64, 3), dtype=np.uint8)) for _ in range(3)]


@pytest.fixture(scope="module")
def pairs(model, pictures):
    return nib.attribute(model, pictures, CAPTIONS, **PATH)


def assert_same(one, other):
    assert one.words == other.words
    for name in ("image_scores", "token_scores", "word_scores"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-10)
    for name in ("similarity", "image_class_score", "image.gap", "text.gap"):
        assert attrgetter(name)(one) == pytest.approx(attrgetter(name)(other), abs=1e-10)
    assert np.array_equal(one.picture, other.picture)


def test_one_picture_and_one_caption(model, pictures, pairs):
    result = nib.attribute(model, pictures[1], CAPTIONS[1], **PATH)
    assert isinstance(result, nib.Attribution)
    assert_same(result, pairs[1])
    assert result.image_scores.shape == (5, 5)
    assert result.picture.shape == (60, 60, 3)
    assert (result.caption, result.method) == (CAPTIONS[1], "nib")
    assert result.parameters == PATH | dict(
        quadrature="riemann_right",
        lambda_min=0.0,
        baseline="zero",
        target="cosine",
        rectified=False,
        batch_size=64,
        seed=0,
    )
    assert result.words == CAPTIONS[1].split()
    assert len(result.tokens) == len(result.token_scores) == len(result.words) + 2


def test_lists_are_pairs(model, pictures, pairs, subtests):
    for collect in [list, tuple]:
        with subtests.test(collect.__name__):
            results = nib.attribute(model, collect(pictures[:2]), collect(CAPTIONS[:2]), **PATH)
            assert [result.caption for result in results] == CAPTIONS[:2]
            for result, pair in zip(results, pairs):
                assert_same(result, pair)
            assert_same(*nib.attribute(model, pictures[:1], CAPTIONS[:1], **PATH), pairs[0])


def test_one_picture_with_many_captions(model, pictures, subtests):
    for batch_size in [1, 64]:
        with subtests.test(str(batch_size)):
            results = nib.attribute(model, pictures[0], CAPTIONS, batch_size=batch_size, **PATH)
            pairs = nib.attribute(model, [pictures[0]] * 3, CAPTIONS, **PATH)
            assert len(results) == 3
            for result, pair in zip(results, pairs):
                assert_same(result, pair)


def test_one_caption_with_many_pictures_or_lists_of_one(model, pictures):
    results = nib.attribute(model, pictures, CAPTIONS[1], **PATH)
    pairs = nib.attribute(model, pictures, [CAPTIONS[1]] * 3, **PATH)
    assert len(results) == 3
    for result, pair in zip(results, pairs):
        assert_same(result, pair)

    for images, texts in (([pictures[0]], "a cat"), (pictures[0], ["a cat"]), ([pictures[0]], ["a cat"])):
        results = nib.attribute(model, images, texts, **PATH)
        assert isinstance(results, list)
        assert len(results) == 1


def test_columns_of_a_data_set(model):
    data = nib.datasets.load("scenes", limit=2)
    results = nib.attribute(model, data["image"], data["text"], **PATH)
    assert [result.caption for result in results] == list(data["text"])


def test_batch_size_changes_nothing(clip, pictures, subtests):
    pairs = nib.attribute(clip, pictures, CAPTIONS, **PATH)
    for batch_size in [1, 2, 1000]:
        with subtests.test(str(batch_size)):
            for result, pair in zip(nib.attribute(clip, pictures, CAPTIONS, batch_size=batch_size, **PATH), pairs):
                assert_same(result, pair)


def test_similarity_is_the_models(clip, pictures):
    pairs = nib.attribute(clip, pictures, CAPTIONS, **PATH)
    pixel_values = torch.cat([to_pixel_values(clip, picture) for picture in pictures])
    input_ids, attention_mask, _ = to_tokens(clip, CAPTIONS)
    output = clip.model(input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask)
    cosines = output.logits_per_image / clip.model.logit_scale.exp()
    np.testing.assert_allclose([pair.similarity for pair in pairs], cosines.diagonal(), atol=1e-10)


def test_gaps_say_how_far_the_scores_miss(clip, pictures):
    pairs = nib.attribute(clip, pictures, CAPTIONS, **PATH)
    pixel_values = torch.cat([to_pixel_values(clip, picture) for picture in pictures])
    input_ids, attention_mask, _ = to_tokens(clip, CAPTIONS)
    image, text = clip.image.split(pixel_values, 2), clip.text.split(input_ids, 2, attention_mask)
    image_embeds, text_embeds = image(image.hidden_states), text(text.hidden_states)
    image_start = cosine_similarity(image(0 * image.hidden_states), text_embeds)
    text_start = cosine_similarity(image_embeds, text(0 * text.hidden_states))
    for pair, image_zero, text_zero in zip(pairs, image_start.tolist(), text_start.tolist()):
        image_sum, text_sum = pair.image_scores.sum() + pair.image_class_score, pair.token_scores.sum()
        assert pair.image.gap == pytest.approx(image_sum - (pair.similarity - image_zero), abs=1e-10)
        assert pair.text.gap == pytest.approx(text_sum - (pair.similarity - text_zero), abs=1e-10)


def test_preset_sets_what_is_not_given(model, pictures):
    preset = nib.PRESETS["truncated"]
    result = nib.attribute(model, pictures[0], CAPTIONS[0], layer=2, preset="truncated")
    assert_same(result, nib.attribute(model, pictures[0], CAPTIONS[0], layer=2, **preset))
    assert {name: result.parameters[name] for name in preset} == preset
    assert "preset" not in result.parameters
    other = nib.attribute(model, pictures[0], CAPTIONS[0], layer=2, preset="truncated", n_steps=7)
    assert other.parameters["n_steps"] == 7
    assert other.parameters["lambda_min"] == preset["lambda_min"]
    assert_same(nib.attribute(model, pictures[0], CAPTIONS[0], preset=None, **PATH), nib.attribute(
        model, pictures[0], CAPTIONS[0], **PATH
    ))  # fmt: skip
    with pytest.raises(ValueError, match=r"preset must be one of \['truncated'\] or None, got 'short'"):
        nib.attribute(model, pictures[0], CAPTIONS[0], preset="short")
    with pytest.raises(TypeError, match="gradcam has no parameter preset"):
        nib.attribute(model, pictures[0], CAPTIONS[0], method="gradcam", preset="truncated")


def test_caption_of_a_figure_says_what_adds_up(model, pictures, pairs):
    title = pairs[0].plot()._suptitle.get_text()
    total = pairs[0].image_scores.sum() + pairs[0].image_class_score
    assert f"image scores add up to {total:+.3f}; F(z) - F(0) is {pairs[0].image.difference:+.3f}" in title
    result = nib.attribute(model, pictures[0], CAPTIONS[0], **PATH, lambda_min=(0.1, 0.25))
    title = result.plot()._suptitle.get_text()
    assert f"F(z) - F(0.1 z) is {result.image.difference:+.3f}, gap {result.image.gap:+.3f}" in title
    assert f"F(z) - F(0.25 z) is {result.text.difference:+.3f}, gap {result.text.gap:+.3f}" in title
    assert f"gap {result.text.gap_from_zero:+.3f}" in title
    controls = nib.attribute(model, pictures[0], CAPTIONS[0], method="center")
    assert controls.image is None
    assert "F(" not in controls.plot()._suptitle.get_text()


def test_words_begin_and_end_add_up_to_the_tokens(pairs, model, pixel_values):
    for pair in pairs:
        assert len(pair.word_scores) == len(pair.words)
        total = pair.word_scores.sum() + pair.begin_score + pair.end_score
        assert total == pytest.approx(pair.token_scores.sum(), abs=1e-12)

    pair = nib.attribute(model, pixel_values[0], "a xylophone", layer=2)
    assert pair.tokens[2:8] == ["x", "y", "lo", "ph", "on", "e"]
    assert pair.words == ["a", "xylophone"]
    assert pair.word_scores[1] == pytest.approx(pair.token_scores[2:8].sum(), abs=1e-12)


def test_result_is_ready_for_json_and_has_a_heat_map(pairs):
    values = json.loads(json.dumps(pairs[0].to_dict()))
    assert "picture" not in values
    assert values["words"] == ["a", "cat"]
    assert values["parameters"]["layer"] == 2
    assert values["image"] == pairs[0].image._asdict()
    np.testing.assert_array_equal(values["image_scores"], pairs[0].image_scores)

    heatmap = pairs[0].heatmap()
    assert heatmap.shape == (60, 60)
    assert (heatmap.min(), heatmap.max()) == (0, 1)
    assert pairs[0].heatmap((10, 20)).shape == (10, 20)
    coarse = pairs[0].heatmap((5, 5))
    scores = pairs[0].image_scores
    np.testing.assert_allclose(coarse, (scores - scores.min()) / np.ptp(scores), atol=1e-12)


def test_lists_of_unequal_length(model, pictures, subtests):
    cases = [(2, CAPTIONS, "2 and 3"), (3, CAPTIONS[:1], "3 and 1"), (1, CAPTIONS, "1 and 3"), (0, [], "0 and 0")]
    for pictures_, captions, counts in cases:
        message = f"lists of the same length, at least 1; got {counts}"
        with subtests.test(counts), pytest.raises(ValueError, match=message):
            nib.attribute(model, pictures[:pictures_], captions, **PATH)

    for images, texts in (([], CAPTIONS), (pictures, []), ([], "a cat"), (pictures[0], [])):
        with pytest.raises(ValueError, match="at least 1; got"):
            nib.attribute(model, images, texts, **PATH)


def test_unknown_names_list_the_known_ones(model, pictures):
    with pytest.raises(KeyError, match=r"method must be one of \[.*'nib'.*\], got 'nip'"):
        nib.attribute(model, pictures[0], "a cat", method="nip")

    with pytest.raises(TypeError, match=r"nib has no parameter nsteps, steps; it has .*lambda_min, layer, n_steps"):
        nib.attribute(model, pictures[0], "a cat", steps=3, nsteps=3)


def test_an_own_method_may_differentiate_where_gradients_are_switched_off(model, pictures, monkeypatch):
    def differentiate(clip, pixel_values, input_ids, attention_mask=None, *, seed=0):
        pixel_values.requires_grad_()
        similarity = cosine_similarity(clip.image.embed(pixel_values), clip.text.embed(input_ids, attention_mask))
        (slopes,) = torch.autograd.grad(similarity.sum(), pixel_values)
        return nib.Scores(slopes.sum(1)[:, ::12, ::12], similarity.new_zeros(input_ids.shape), similarity)

    monkeypatch.setitem(nib.METHODS, "own", differentiate)
    with torch.no_grad():
        assert nib.attribute(model, pictures[0], "a cat", method="own").image_scores.any()


@pytest.fixture
def calls(monkeypatch):
    """Count the calls of a method that must not be reached."""
    calls = []

    def never(clip, pixel_values, input_ids, attention_mask=None, *, layer=9, batch_size=64):
        if len(pixel_values):  # without a pair, only its parameters are checked
            calls.append(pixel_values)

    monkeypatch.setitem(nib.METHODS, "never", never)
    return calls


def test_bad_last_item_is_found_before_any_work(model, pictures, calls, subtests):
    cases = [
        ("no_such_file.png", "a cat", FileNotFoundError),
        (np.full((60, 60, 3), np.nan), "a cat", ValueError),
        (torch.zeros(3, 3), "a cat", ValueError),
        (None, "a cat", TypeError),
        (Image.new("L", (60, 60)), " ", ValueError),
        (Image.new("L", (60, 60)), "a cat " * 20, ValueError),
        (Image.new("L", (60, 60)), 7, TypeError),
    ]
    for row, (last_picture, last_caption, error) in enumerate(cases):
        for batch_size in [1, 64]:
            with subtests.test(f"row {row}, batch size {batch_size}"):
                options = dict(method="never", layer=2, batch_size=batch_size)
                with pytest.raises(error):
                    nib.attribute(model, [*pictures[:2], last_picture], ["a cat", "a dog", last_caption], **options)
                with pytest.raises(error):
                    nib.attribute(model, last_picture, ["a cat", last_caption], **options)
                assert not calls


def test_pictures_of_two_shapes_keep_their_order_and_their_grids(model, pixel_values, subtests):
    images = [pixel_values[0], pixel_values[0, :, :48], pixel_values[1], pixel_values[2]]
    alone = [nib.attribute(model, image, "a cat", layer=2).image_scores for image in images]
    for batch_size in [1, 2, 64]:
        with subtests.test(str(batch_size)):
            results = nib.attribute(model, images, "a cat", layer=2, batch_size=batch_size)
            assert [result.image_scores.shape for result in results] == [(5, 5), (4, 5), (5, 5), (5, 5)]
            for scores, result in zip(alone, results):
                assert abs(scores - result.image_scores).max() < 1e-8


def test_each_picture_is_decoded_once(model, tmp_path, monkeypatch):
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path in paths:
        Image.new("RGB", (60, 60)).save(path)
    opened, call = [], Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(path) or call(path))
    nib.attribute(model, paths, CAPTIONS, method="none", batch_size=1)
    nib.attribute(model, paths[0], CAPTIONS, method="none", batch_size=1)
    assert opened == [*paths, paths[0]]


def test_bad_option_is_found_before_any_work(model, pictures, calls, subtests):
    cases = [dict(layer=5), dict(layer=-1), dict(layer=2, batch_size=0), dict(layer=2, batch_size=-1)]
    for options in cases:
        with subtests.test(str(options)):
            with pytest.raises(ValueError, match=r"must be a whole number .* got"):
                nib.attribute(model, pictures, CAPTIONS, method="never", **options)
            assert not calls


def test_long_caption_is_cut_when_asked_to(model, pictures):
    with pytest.warns(UserWarning, match="its end is cut off") as warned:
        result = nib.attribute(model, pictures[0], "a cat " * 20, truncate=True, **PATH)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert len(result.tokens) == 32
    assert result.words == ["a", "cat"] * 15
