"""A changed model, a method of one's own and broken input of metrics give no number without a word."""

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import nib
from nib import metrics
from nib.inputs import to_tokens
from nib.methods import orthogonal_text
from nib.verify import verify
from runs.plan import Notebook, find_parameters, read_grid, read_profile
from runs.store import collect

PICTURE = Image.new("RGB", (60, 60), "red")
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def own(model_folder):
    """A model that a test may change."""
    return nib.load(model_folder)


@pytest.fixture
def pairs():
    mask = np.zeros((60, 60), np.uint8)
    mask[:20] = 1
    return [
        {"id": f"pair-{i}", "image": PICTURE, "text": text, "masks": mask} for i, text in enumerate(["a cat", "dog"])
    ]


def evaluate(clip, pairs, methods="random", **options):
    return nib.evaluate(clip, pairs, methods, progress=False, **options)


# ---- a model that was changed


def scale_attention(model):
    model.vision_model.encoder.layers[1].self_attn.scale *= 2


def widen_eps(model):
    model.text_model.final_layer_norm.eps = 0.5


def move_positions(model):
    model.text_model.embeddings.position_ids += 1


def replace_activation(model):
    model.vision_model.encoder.layers[0].mlp.activation_fn = torch.nn.Tanh()


def test_parts_of_a_changed_model_are_not_read(model_folder, pairs, tmp_path_factory, subtests):
    for change in [scale_attention, widen_eps, move_positions, replace_activation]:
        with subtests.test(change.__name__):
            tmp_path = tmp_path_factory.mktemp("row")
            own = nib.load(model_folder)
            before = evaluate(own, pairs, "gradcam", output=tmp_path)
            change(own.model)
            after = evaluate(own, pairs, "gradcam", output=tmp_path)
            assert not after.equals(before)
            assert after.equals(evaluate(own, pairs, "gradcam"))


def hook(model):
    model.vision_model.encoder.layers[1].register_forward_hook(lambda module, args, output: 2 * output)


def hook_before(model):
    model.text_model.encoder.layers[1].register_forward_pre_hook(lambda module, args: None)


def patch_forward(model):
    norm = model.vision_model.post_layernorm
    norm.forward = lambda states: 3 * states


def put_in_code(model):
    class Own(torch.nn.Module):
        def forward(self, states):
            return states

    model.vision_model.post_layernorm = Own()


def test_no_part_is_kept_of_a_model_with_hooks_or_code(model_folder, pairs, tmp_path_factory, subtests):
    for change in [hook, hook_before, patch_forward, put_in_code]:
        with subtests.test(change.__name__):
            tmp_path = tmp_path_factory.mktemp("row")
            own = nib.load(model_folder)
            change(own.model)
            assert len(evaluate(own, pairs, "gradcam"))
            with pytest.raises(
                ValueError, match=r"output must be None with hooks or code of your own on the model.*_model\."
            ):
                evaluate(own, pairs, "gradcam", output=tmp_path)


def hook_pooled(model):
    def double(module, args, output):
        output.pooler_output = 2 * output.pooler_output + 1
        return output

    model.vision_model.register_forward_hook(double)


def patch_tower(model):
    forward = model.text_model.forward
    model.text_model.forward = lambda *args, **kwargs: forward(*args, **kwargs)


def patch_features(model):
    features = model.get_image_features
    model.get_image_features = lambda *args, **kwargs: features(*args, **kwargs)


CALLS = {
    "attribute": lambda clip: nib.attribute(clip, PICTURE, "a cat", "random"),
    "interactions": lambda clip: nib.interactions(clip, PICTURE, "a cat", n_steps=1),
    "evaluate": lambda clip: evaluate(clip, [{"id": "a", "image": PICTURE, "text": "a cat"}]),
    "method": lambda clip: nib.METHODS["nib"](clip, torch.zeros(1, 3, 60, 60), to_tokens(clip, ["a cat"])[0]),
}


def test_what_a_cut_tower_would_leave_out_is_refused(model_folder, subtests):
    for call in CALLS:
        for change, where in [
            (hook_pooled, "vision_model"),
            (patch_tower, "text_model"),
            (patch_features, "the model"),
        ]:
            with subtests.test(f"{where} {call}"):
                own = nib.load(model_folder)
                change(own.model)
                with pytest.raises(
                    ValueError, match=f"hooks and code of your own around the blocks of {where} would be left out"
                ):
                    CALLS[call](own)


def test_a_forward_that_its_class_was_given_is_used(own, monkeypatch):
    block = type(own.model.vision_model.encoder.layers[-1])
    before = nib.attribute(own, PICTURE, "a cat").similarity
    monkeypatch.setattr(block, "forward", lambda self, hidden_states, *args, **kwargs: hidden_states * 2 + 1)
    assert nib.attribute(own, PICTURE, "a cat").similarity != before


def test_hooks_of_a_user_are_not_those_of_a_check(own):
    own.model.vision_model.encoder.layers[0].register_forward_hook(lambda *args: None)
    rows = {row["check"]: row for row in verify(own, n_steps=2)}
    assert rows["hooks left behind"]["value"] == 0
    with pytest.raises(ValueError, match="n_steps must be a whole number of at least 2, got 1"):
        verify(own, n_steps=1)


def test_a_tokenizer_is_no_processor(clip, subtests):
    for parts, message in [
        (
            lambda clip: (clip.image_processor, clip.tokenizer),
            "tokenizer must be the tokenizer of a model, or None, got",
        ),
        (lambda clip: (clip.tokenizer, clip.tokenizer), "image_processor must be the image_processor of a model"),
        (lambda clip: ("openai/clip", None), "tokenizer must be .*, got str"),
    ]:
        with subtests.test(message), pytest.raises(TypeError, match=message):
            nib.HookedCLIP(clip.model, *parts(clip))


# ---- a method of one's own


def change_scores(**changes):
    def mine(clip, pixel_values, input_ids, attention_mask=None, *, batch_size=64):
        scores = nib.METHODS["random"](clip, pixel_values, input_ids, attention_mask)
        return replace(scores, **{name: change(getattr(scores, name)) for name, change in changes.items()})

    return mine


OWN = {
    "NaN": (change_scores(image=lambda values: values * NAN), ValueError, "mine must give finite scores"),
    "turned": (change_scores(text=lambda values: values[:, 1:]), ValueError, "mine: scores must be of these pairs"),
    "another grid": (change_scores(image=lambda values: values[:, 1:]), ValueError, "mine: .* of the grid"),
    "a list": (change_scores(text=lambda values: values.tolist()), TypeError, "mine: scores.text must be a tensor"),
    "no scores": (lambda clip, pixel_values, input_ids, attention_mask=None: None, TypeError, "mine: .*, got NoneType"),
    "no function": (5, TypeError, r"METHODS\['mine'\] must be a function, got int"),
}


def test_a_method_of_ones_own_gives_scores(clip, pairs, monkeypatch, subtests):
    for case, (method, error, message) in OWN.items():
        with subtests.test(case), monkeypatch.context() as patch:
            patch.setitem(nib.METHODS, "mine", method)
            with pytest.raises(error, match=message):
                nib.attribute(clip, PICTURE, "a cat", "mine")
            with pytest.raises(error, match=message):
                evaluate(clip, pairs, "mine")


def mine(clip, pixel_values, input_ids, attention_mask=None, *, batch_size=64):
    return nib.METHODS["center"](clip, pixel_values, input_ids, attention_mask)


def test_parts_of_another_method_of_that_name_are_not_read(clip, pairs, tmp_path, monkeypatch):
    def other(clip, pixel_values, input_ids, attention_mask=None, *, batch_size=64):
        return nib.METHODS["random"](clip, pixel_values, input_ids, attention_mask)

    for method in (mine, other):
        monkeypatch.setitem(nib.METHODS, "mine", method)
        assert evaluate(clip, pairs, "mine", output=tmp_path).equals(evaluate(clip, pairs, "mine"))
    assert len(list(tmp_path.glob("*.parquet"))) == 2


def test_no_part_is_kept_of_a_method_whose_code_cannot_be_told(clip, pairs, tmp_path_factory, monkeypatch, subtests):
    for method in [
        functools.partial(mine, batch_size=3),
        orthogonal_text(nib.METHODS["random"], torch.tensor([[1329, 320, 1330]])),
        eval("lambda clip, pixel_values, input_ids, attention_mask=None: None"),
    ]:
        with subtests.test(repr(method)), monkeypatch.context() as patch:
            tmp_path = tmp_path_factory.mktemp("row")
            patch.setitem(nib.METHODS, "mine", method)
            with pytest.raises(ValueError, match=r"output must be None .* mine"):
                evaluate(clip, pairs, "mine", output=tmp_path)


# ---- what methods and metrics are called with


@pytest.fixture
def given(clip, pixel_values, tokens):
    scores = nib.METHODS["random"](clip, pixel_values, **tokens)
    return {"pixel_values": pixel_values, **tokens, "scores": scores}


def empty_row(mask):
    return mask * torch.tensor([[1], [0], [1]])


INPUTS = {
    "NaN pixels": (
        "pixel_values",
        lambda x: x.index_fill(0, torch.tensor([1]), NAN),
        ValueError,
        r"finite.*rows \[1\]",
    ),
    "infinite pixels": ("pixel_values", lambda x: x / 0, ValueError, "finite"),
    "no pixels": ("pixel_values", lambda x: None, TypeError, "pixel_values must be a tensor, got NoneType"),
    "an array": ("pixel_values", lambda x: x.numpy(), TypeError, "pixel_values must be a tensor, got ndarray"),
    "whole pixels": ("pixel_values", lambda x: x.byte(), ValueError, "pixel_values must be floats .* torch.uint8"),
    "one picture": ("pixel_values", lambda x: x[0], ValueError, "pixel_values must have 4 dimensions"),
    "no ids": ("input_ids", lambda x: None, TypeError, "input_ids must be a tensor, got NoneType"),
    "float ids": (
        "input_ids",
        lambda x: x.float(),
        ValueError,
        r"input_ids must be whole numbers \(int32, int64\), got .* torch\.float32",
    ),
    "short ids": (
        "input_ids",
        lambda x: x.short(),
        ValueError,
        r"input_ids must be whole numbers \(int32, int64\), got .* torch\.int16",
    ),
    "a mask of NaN": ("attention_mask", lambda x: x * NAN, ValueError, "attention_mask must be 1 at tokens and 0"),
    "a mask of 2": ("attention_mask", lambda x: x * 2, ValueError, "attention_mask must be 1 at tokens and 0"),
    "one caption": ("input_ids", lambda x: x[0], ValueError, "input_ids must have 2 dimensions"),
    "a list as mask": ("attention_mask", lambda x: x.tolist(), TypeError, "attention_mask must be a tensor, got list"),
    "a narrow mask": (
        "attention_mask",
        lambda x: x[:, 1:],
        ValueError,
        "attention_mask must have the shape of input_ids",
    ),
    "an empty mask": ("attention_mask", empty_row, ValueError, r"attention_mask must leave a token.*\[1\]"),
}
MEASURES = {
    "confidence": metrics.confidence,
    "removal_curves": metrics.removal_curves,
    "infidelity": metrics.infidelity,
    **{
        name: lambda *args, name=name, scores, **kwargs: nib.METHODS[name](*args, **kwargs)
        for name in ("nib", "random")
    },
}


def test_inputs_are_refused_by_name(clip, given, subtests):
    for case, (name, change, error, message) in INPUTS.items():
        for measure in MEASURES:
            with subtests.test(f"{case} {measure.__name__}"):
                with pytest.raises(error, match=message) as found:
                    MEASURES[measure](clip, **given | {name: change(given[name])})
                assert len(str(found.value)) < 500


def test_ids_of_a_method_are_in_the_vocabulary(clip, pixel_values, tokens, subtests):
    for change, message in [
        (lambda ids: ids + 5000, r"input_ids must be in \[0, 1331\)"),
        (lambda ids: ids - 5000, r"input_ids must be in \[0, 1331\)"),
    ]:
        with subtests.test(message):
            with pytest.raises(ValueError, match=message):
                nib.METHODS["random"](clip, pixel_values, change(tokens["input_ids"]))
            with pytest.raises(ValueError, match="pixel_values must have 3 channels and sides of at least 12, got"):
                nib.METHODS["random"](clip, pixel_values[:, :2], tokens["input_ids"])
            with pytest.raises(ValueError, match=f"input_ids must be 1 to {clip.context_length} in a row, got"):
                nib.METHODS["random"](clip, pixel_values, tokens["input_ids"].repeat(1, 9))


SCORES = {
    "none": (lambda scores: None, TypeError, "scores must be what a method gives, nib.Scores, got NoneType"),
    "a map": (lambda scores: scores.image, TypeError, "nib.Scores, got Tensor"),
    "arrays": (lambda scores: replace(scores, image=scores.image.numpy()), TypeError, "scores.image must be a tensor"),
    "no text": (lambda scores: replace(scores, text=None), TypeError, "scores.text must be a tensor, got NoneType"),
    "a flat map": (lambda scores: replace(scores, image=scores.image[0]), ValueError, "scores must be of these pairs"),
    "pixels of others": (
        lambda scores: replace(scores, image_pixels=torch.ones(1, 60, 60)),
        ValueError,
        "scores must be of these pairs",
    ),
}


def test_scores_are_those_of_a_method(clip, given, subtests):
    for case, (change, error, message) in SCORES.items():
        for measure in [metrics.confidence, metrics.removal_curves, metrics.infidelity]:
            with subtests.test(f"{case} {measure.__name__}"), pytest.raises(error, match=message):
                measure(clip, **given | {"scores": change(given["scores"])})


def test_maps_that_are_stretched_are_floats(clip, given, subtests):
    for change in [torch.Tensor.long, torch.Tensor.bool, lambda scores: scores + 0j]:
        with subtests.test(repr(change)):
            scores = replace(given["scores"], image=change(given["scores"].image))
            with pytest.raises(ValueError, match="must be floats, got torch"):
                metrics.confidence(clip, **given | {"scores": scores})


def test_sides_that_are_none(clip, given, subtests):
    for sides in [5, None, [5], [["image"]], {}, "image"]:
        for measure in [metrics.confidence, metrics.removal_curves]:
            with subtests.test(f"{sides} {measure.__name__}"):
                with pytest.raises(ValueError, match=r"sides must be some of \['image', 'text'\], got"):
                    measure(clip, **given, sides=sides)


EMBEDS = {
    "number": 5,
    "one": torch.ones(3, 16),
    "three": [torch.ones(3, 16)] * 3,
    "too few": [torch.ones(3, 16), torch.ones(2, 16)],
    "NaN": [torch.ones(3, 16), torch.ones(3, 16) * NAN],
    "arrays": [np.ones((3, 16))] * 2,
    "width": [torch.ones(3, 15)] * 2,
    "one number each": [torch.ones(3, 1)] * 2,
}


def test_embeds_are_two_tensors(clip, given, subtests):
    for case in EMBEDS:
        with subtests.test(case):
            with pytest.raises(ValueError, match=r"embeds must be two finite tensors \(3, 16\)"):
                metrics.confidence(clip, **given, embeds=EMBEDS[case])


def test_a_metric_wants_a_model(given, subtests):
    for measure in [metrics.confidence, metrics.removal_curves, metrics.infidelity]:
        with subtests.test(measure.__name__):
            with pytest.raises(TypeError, match=r"clip must be what nib\.load or nib\.HookedCLIP gives, got str"):
                measure("clip", **given)


def test_maps_of_a_function_are_finite(clip, given, pixel_values):
    broken = replace(given["scores"], image=given["scores"].image * NAN)
    with pytest.raises(ValueError, match="maps of explain must be finite"):
        metrics.randomisation(clip, lambda other: broken)
    with pytest.raises(TypeError, match="maps of explain must be numbers, got NoneType"):
        metrics.randomisation(clip, lambda other: None)
    with pytest.raises(TypeError, match="explain must be a function from a model to scores, got NoneType"):
        metrics.randomisation(clip, None)
    with pytest.raises(ValueError, match="maps of explain must be finite"):
        metrics.max_sensitivity(pixel_values, lambda pictures: pictures[:, 0] * NAN)
    with pytest.raises(ValueError, match="pixel_values must be finite"):
        metrics.max_sensitivity(pixel_values * NAN, lambda pictures: pictures[:, 0])


# ---- localisation

MASKS = torch.zeros(2, 4, 4, dtype=torch.bool)
MASKS[:, :2] = True
MAPS = torch.arange(32.0).view(2, 4, 4)


def put(masks, row, value):
    masks = masks.clone()
    masks[row] = value
    return masks


WRONG_MASKS = {
    "empty": (lambda: metrics.pointing_game(MAPS, put(MASKS, 1, False)), r"at least one pixel, rows \[1\] have none"),
    "full": (lambda: metrics.auc(MAPS, put(MASKS, 1, True)), r"one pixel of background, rows \[1\] leave none"),
    "overlapping": (
        lambda: metrics.selectivity(MAPS, MASKS, put(~MASKS, 1, True)),
        r"other_masks must be beside masks, and overlap them in rows \[1\]",
    ),
    "narrow": (
        lambda: metrics.selectivity(MAPS, MASKS, ~MASKS[:, 1:]),
        r"other_masks must be \(2, 4, 4\), as masks are",
    ),
}


def test_masks_are_refused_by_row(subtests):
    for case, (measure, message) in WRONG_MASKS.items():
        with subtests.test(case), pytest.raises(ValueError, match=message):
            measure()


def test_a_score_that_drowns_all_others_is_refused(subtests):
    for measure in [metrics.auc, metrics.average_precision, metrics.pointing_game, metrics.iou_at_mean]:
        with subtests.test(measure.__name__):
            huge = MAPS.double()
            huge[1, 0, 0] = 1e14
            with pytest.raises(
                ValueError, match=r"most scores of a map must be at least 1e-12 of its largest.* rows \[1\]"
            ):
                measure(huge, MASKS)
            huge[1, 0, 0] = 1e10
            assert len(measure(huge, MASKS)) == 2
            single = torch.zeros(2, 4, 4)
            single[:, 0, 0] = 1e14
            assert len(measure(single, MASKS)) == 2


def test_masks_that_tell_nothing_are_named(clip, pairs, subtests):
    for change, message in [
        ({"masks": np.ones((60, 60))}, "masks of pair 'pair-1' must leave some background in what the model sees"),
        ({"other_masks": np.ones((60, 60))}, "masks of pair 'pair-1' must not overlap other_masks"),
    ]:
        with subtests.test(message):
            pairs[1] |= change
            with pytest.raises(ValueError, match=message):
                evaluate(clip, pairs, metrics=["localisation"])


def test_a_picture_that_is_none_is_named_by_its_pair(clip, pairs, subtests):
    for picture in [None, 5, bytearray(b"abc"), b"abc"]:
        with subtests.test(repr(picture)):
            pairs[1]["image"] = picture
            with pytest.raises(TypeError, match="image of pair 'pair-1': a picture must be"):
                evaluate(clip, pairs)
            with pytest.raises(TypeError, match=r"a picture must be .*, got"):
                nib.attribute(clip, picture, "a cat", "random")


def test_a_pair_is_named_where_pixel_values_are_wanted(clip, pairs):
    bare = nib.HookedCLIP(clip.model, clip.tokenizer)
    with pytest.raises(ValueError, match="image of pair 'pair-0': this model came without an image processor"):
        evaluate(bare, pairs)


# ---- words, limits, data


def test_a_letter_is_in_one_word(clip, subtests):
    for text, words in [
        ("İstanbul", ["İ", "stanbul"]),
        ("a İ cat", ["a", "İ", "cat"]),
        ("İİ x", ["İ", "İ", "x"]),
        ("Straße", ["Straße"]),
    ]:
        with subtests.test(text):
            _, of_tokens, found = to_tokens(clip, [text])[2][0]
            assert found == words
            assert {word for word in of_tokens if word is not None} == set(range(len(words)))
            assert nib.attribute(clip, PICTURE, text, "random").words == words


def test_a_limit_is_a_number(clip, monkeypatch, subtests):
    for value in ["a", None, True, NAN, -1]:
        for name in ["pixels", "patches", "aspect", "pairs", "samples"]:
            with subtests.test(f"{value} {name}"), monkeypatch.context() as patch:
                patch.setattr(nib.limits, name, value)
                with pytest.raises(ValueError, match=rf"nib\.limits\.{name} must be a number above 0, got"):
                    nib.attribute(clip, [PICTURE], ["a cat"], "random")


def test_the_home_folder_is_no_data(tmp_path, monkeypatch):
    (tmp_path / "home" / "me").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    for name in ("~", tmp_path / "home"):
        with pytest.raises(ValueError, match="name must be a folder of data or a file"):
            nib.datasets.load(name)


# ---- tables and plots

TABLE = pd.DataFrame({"id": list("abab"), "metric": ["x"] * 4, "method": ["nib"] * 2 + ["rise"] * 2, "value": range(4)})


def test_columns_are_named_by_anything_in_order(subtests):
    for change in [np.array, pd.Index, pd.Series, tuple, iter]:
        with subtests.test(change.__name__):
            by = ["metric", "method"]
            assert metrics.summarise(TABLE, change(by)).equals(metrics.summarise(TABLE, by))
            assert metrics.compare(TABLE, change(by[:1])).equals(metrics.compare(TABLE, by[:1]))


def test_columns_without_an_order_are_refused(subtests):
    for by in [{"metric"}, {"metric": 1}, iter([]), None]:
        for measure in [metrics.summarise, metrics.compare]:
            with subtests.test(f"{by} {measure.__name__}"):
                with pytest.raises(ValueError, match="by must name at least one column, in order, got"):
                    measure(TABLE, by)


def test_an_infinite_value_is_named_by_its_group(subtests):
    for value in [INF, -INF]:
        for measure in [metrics.summarise, metrics.compare]:
            with subtests.test(f"{value} {measure.__name__}"):
                with pytest.raises(ValueError, match=rf"values must be finite or NaN, got {value} in .*'metric': 'x'"):
                    measure(TABLE.assign(value=[1, 2, 3, value]), ["metric"])


def test_paths_are_written_as_text(tmp_path):
    nib.save_table(pd.DataFrame({"path": [Path("a/b.png"), None]}), tmp_path / "t.parquet")
    assert pd.read_parquet(tmp_path / "t.parquet")["path"].tolist()[0] == "a/b.png"


def with_attrs():
    frame = pd.DataFrame({"a": [1]})
    frame.attrs["clip"] = object()
    return frame


def test_a_table_that_parquet_cannot_hold_is_refused(tmp_path_factory, subtests):
    for frame in [with_attrs(), pd.DataFrame([[1, 2]], columns=["1", 1]), pd.DataFrame({"a": [object()]})]:
        with subtests.test(repr(frame)):
            tmp_path = tmp_path_factory.mktemp("row")
            with pytest.raises(ValueError, match="parquet cannot hold the table, its names or its attrs"):
                nib.save_table(frame, tmp_path / "t.parquet")
            assert not list(tmp_path.iterdir())


GREY, MAP = np.full((60, 60), 128, np.uint8), np.array([[1.0, -1], [0, 2]])
PLOTS = {
    "more words": (["a", "cat"], [1.0], "words and scores must be equally many, got 2 and"),
    "more scores": (["a"], [1.0, 2.0], "words and scores must be equally many, got 1 and"),
    "NaN": (["a"], [NAN], "scores that are drawn must be a finite map or list"),
    "none": ([], [], "scores that are drawn must be a finite map or list"),
    "text": (["a"], ["b"], "scores that are drawn must be numbers"),
}


def test_words_are_drawn_with_their_scores(subtests):
    for case, (words, scores, message) in PLOTS.items():
        with subtests.test(case):
            with pytest.raises(ValueError, match=message):
                nib.plotting.plot_methods(GREY, words, {"nib": (MAP, scores)})
            with pytest.raises(ValueError, match=message):
                nib.plotting.plot_attribution(GREY, MAP, words, scores, "title")
            with pytest.raises(ValueError, match=message):
                nib.plotting.draw_words(Figure().add_subplot(), words, scores)


def test_a_picture_is_drawn_where_it_is_one(subtests):
    for picture in [None, GREY[:0], GREY * NAN, np.full((60, 60, 2), 5), "a"]:
        with subtests.test(repr(picture)), pytest.raises(ValueError, match="a picture"):
            nib.plotting.plot_attribution(picture, MAP, ["a"], [1.0], "title")


def test_a_limit_of_colours_is_a_number(subtests):
    for limit in [-1, NAN, "a"]:
        with subtests.test(repr(limit)), pytest.raises(ValueError, match="limit must be at least 0 and finite"):
            nib.plotting.draw_map(Figure().add_subplot(), GREY, MAP, limit)


def test_a_page_shows_words_with_their_scores(clip):
    result = nib.attribute(clip, PICTURE, "a cat", "random")
    result.words = ["a"]
    with pytest.raises(ValueError, match="words and scores must be equally many, got 1 and 2"):
        result.to_html()
    with pytest.raises(ValueError, match="words and scores must be equally many"):
        result.plot()


def test_maps_are_drawn_where_they_are_finite(subtests):
    for maps in [{"a": MAP * NAN}, {"a": MAP[:0]}, {"a": MAP, "b": MAP + INF}]:
        with subtests.test(repr(maps)):
            with pytest.raises(ValueError, match="a finite map"):
                nib.plotting.plot_maps(GREY, maps)
            with pytest.raises(TypeError, match="maps must be a mapping of titles to scores, got list"):
                nib.plotting.plot_maps(GREY, list(maps.values()))


# ---- profiles and grids


def test_tags_are_refused_with_their_line(notebook, subtests):
    for content in [
        "parameters: {factor: !!python/object/apply:os.system ['true']}",
        "parameters: {factor: !foo 2.0}",
        "axes: {factor: !!set {1.0, 2.0}}",
    ]:
        with subtests.test(repr(content)):
            path = notebook.with_name("grid.yaml")
            path.write_text(f"notebook: {notebook.name}\n{content}\n")
            with pytest.raises(ValueError, match=r"grid\.yaml cannot be read: line 2: no &, \*, !, << or %"):
                read_grid(path)


def test_keys_of_two_kinds_are_refused(notebook):
    path = notebook.with_name("grid.yaml")
    path.write_text(f"notebook: {notebook.name}\n5: 6\nfoo: 7\n")
    with pytest.raises(ValueError, match=r"must be one of notebook, parameters, axes|must be a mapping"):
        read_grid(path)
    path.write_text(f"notebook: {notebook.name}\n5: {{}}\nfoo: {{}}\n")
    with pytest.raises(ValueError, match="line 2, 5: must be one of notebook, parameters, axes"):
        read_grid(path)


def test_profiles_that_extend_one_another_are_refused(notebook, tmp_path_factory, monkeypatch, subtests):
    for others in [["mine"], ["other", "mine"]]:
        with subtests.test(repr(others)), monkeypatch.context() as patch:
            tmp_path = tmp_path_factory.mktemp("row")
            from runs import plan

            for name, above in zip(["mine", *others], others):
                (tmp_path / f"{name}.yaml").write_text(f"extends: {above}\n")
            patch.setattr(plan, "PROFILES", tmp_path)
            with pytest.raises(ValueError, match=r"profile must be one of \[.*\], got 'mine extended by"):
                find_parameters("mine", Notebook(notebook))


def test_json_that_is_no_notebook_is_refused(tmp_path_factory, subtests):
    for content in ["[]", "5", "null", '{"cells": 5, "metadata": {}, "nbformat": 4}']:
        with subtests.test(repr(content)):
            tmp_path = tmp_path_factory.mktemp("row")
            path = tmp_path / "a.ipynb"
            path.write_text(content)
            with pytest.raises(ValueError, match=r"a\.ipynb is no notebook"):
                read_profile("smoke", [path])


def test_a_list_of_runs_that_is_none_is_refused(tmp_path_factory, subtests):
    for content in ["{", "5", "[[1]]", "[5]"]:
        with subtests.test(repr(content)):
            tmp_path = tmp_path_factory.mktemp("row")
            (tmp_path / "runs.json").write_text(content)
            with pytest.raises(ValueError, match=r"runs\.json or a run that it names cannot be read"):
                collect(tmp_path)
            (tmp_path / "runs.json").write_text(json.dumps(["a"]))
            (tmp_path / "a").mkdir()
            (tmp_path / "a" / "result.parquet").write_bytes(b"abc")
            with pytest.raises(ValueError, match=r"runs\.json or a run that it names cannot be read"):
                collect(tmp_path)
