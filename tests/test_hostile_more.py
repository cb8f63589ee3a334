"""A changed model, a method of one's own and broken input of metrics give no number without a word."""

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import nib
from nib import metrics
from nib.inputs import to_tokens
from nib.methods import orthogonal_text
from nib.verify import verify
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
    for change in (scale_attention, widen_eps, move_positions, replace_activation):
        with subtests.test(change.__name__):
            own, folder = nib.load(model_folder), tmp_path_factory.mktemp("row")
            before = evaluate(own, pairs, "gradcam", output=folder)
            change(own.model)
            after = evaluate(own, pairs, "gradcam", output=folder)
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


def test_no_part_is_kept_of_a_model_with_hooks_or_code(model_folder, pairs, tmp_path, subtests):
    message = r"output must be None with hooks or code of your own on the model.*_model\."
    for change in (hook, hook_before, patch_forward, put_in_code):
        with subtests.test(change.__name__):
            own = nib.load(model_folder)
            change(own.model)
            assert len(evaluate(own, pairs, "gradcam"))
            with pytest.raises(ValueError, match=message):
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
    changes = {"vision_model": hook_pooled, "text_model": patch_tower, "the model": patch_features}
    for where, change in changes.items():
        own = nib.load(model_folder)
        change(own.model)
        message = f"hooks and code of your own around the blocks of {where} would be left out"
        for name, call in CALLS.items():
            with subtests.test(f"{where} {name}"), pytest.raises(ValueError, match=message):
                call(own)


def test_a_forward_that_was_replaced_is_used(own, model_folder, monkeypatch):
    def forward(hidden_states, *args, **kwargs):
        return hidden_states * 2 + 1

    before = nib.attribute(own, PICTURE, "a cat").similarity
    other = nib.load(model_folder)
    other.model.vision_model.encoder.layers[-1].forward = forward
    assert nib.attribute(other, PICTURE, "a cat").similarity != before
    block = type(own.model.vision_model.encoder.layers[-1])
    monkeypatch.setattr(block, "forward", lambda self, *args, **kwargs: forward(*args, **kwargs))
    assert nib.attribute(own, PICTURE, "a cat").similarity != before


def test_hooks_of_a_user_are_not_those_of_a_check(own):
    own.model.vision_model.encoder.layers[0].register_forward_hook(lambda *args: None)
    rows = {row["check"]: row for row in verify(own, n_steps=2)}
    assert rows["hooks left behind"]["value"] == 0
    with pytest.raises(ValueError, match="n_steps must be a whole number of at least 2, got 1"):
        verify(own, n_steps=1)


def test_a_tokenizer_is_no_processor(clip, subtests):
    tokenizer, processor = clip.tokenizer, clip.image_processor
    cases = [
        (processor, tokenizer, "tokenizer must be the tokenizer of a model, or None, got"),
        (tokenizer, tokenizer, "image_processor must be the image_processor of a model"),
        ("openai/clip", None, "tokenizer must be .*, got str"),
    ]
    for one, other, message in cases:
        with subtests.test(message), pytest.raises(TypeError, match=message):
            nib.HookedCLIP(clip.model, one, other)


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


def test_no_part_is_kept_of_a_method_whose_code_cannot_be_told(clip, pairs, tmp_path, monkeypatch, subtests):
    methods = [
        functools.partial(mine, batch_size=3),
        orthogonal_text(nib.METHODS["random"], torch.tensor([[1329, 320, 1330]])),
        eval("lambda clip, pixel_values, input_ids, attention_mask=None: None"),
    ]
    for method in methods:
        with subtests.test(repr(method)), monkeypatch.context() as patch:
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


def call_method(name):
    return lambda *args, scores, **kwargs: nib.METHODS[name](*args, **kwargs)


OF_SCORES = {
    "confidence": metrics.confidence,
    "removal_curves": metrics.removal_curves,
    "infidelity": metrics.infidelity,
}
MEASURES = OF_SCORES | {name: call_method(name) for name in ("nib", "random", "gradcam", "agi")}


def test_inputs_are_refused_by_name(clip, given, subtests):
    for case, (name, change, error, message) in INPUTS.items():
        for measured, measure in MEASURES.items():
            with subtests.test(f"{case} {measured}"):
                with pytest.raises(error, match=message) as found:
                    measure(clip, **given | {name: change(given[name])})
                assert len(str(found.value)) < 500


def hide_end(pixels, ids):
    mask = torch.ones_like(ids)
    mask[1] = ids[1] != 1330
    return pixels, ids, mask


def left_padded(pixels, ids):
    return pixels[:1], torch.tensor([[1330, 1330, 1329, 320, 1330]])


# pixel values, token ids and mask of a method made of good pixel values and ids; what the message says
WRONG_INPUTS = {
    "ids too large": (lambda pixels, ids: (pixels, ids + 5000), r"input_ids must be in \[0, 1331\)"),
    "ids too small": (lambda pixels, ids: (pixels, ids - 5000), r"input_ids must be in \[0, 1331\)"),
    "2 channels": (lambda pixels, ids: (pixels[:, :2], ids), "must have 3 channels and sides of at least 12, got"),
    "too long": (lambda pixels, ids: (pixels, ids.repeat(1, 9)), "input_ids must be 1 to 32 in a row, got"),
    "no pair": (lambda pixels, ids: (pixels, ids[:0]), "must hold at least one caption, got none"),
    "no begin": (
        lambda pixels, ids: (pixels[:1], torch.tensor([[320, 5, 1330]])),
        r"begin with the begin token, 1329, got \[320, 5, 1330\]",
    ),
    "a hidden end": (hide_end, r"attention_mask must be 1 at the token that is pooled.* rows \[1\]"),
    "padded to the left": (
        lambda pixels, ids: (*left_padded(pixels, ids), torch.tensor([[0, 0, 1, 1, 1]])),
        r"padding goes to the right\), and hides it in rows \[0\]",
    ),
    "padded to the left without a mask": (left_padded, r"padding goes to the right\), not so in rows \[0\]"),
}


def test_inputs_of_a_method_are_refused(clip, pixel_values, tokens, subtests):
    for case, (change, message) in WRONG_INPUTS.items():
        with subtests.test(case), pytest.raises(ValueError, match=message):
            nib.METHODS["random"](clip, *change(pixel_values, tokens["input_ids"]))


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
    "NaN map": (lambda scores: replace(scores, image=scores.image * NAN), ValueError, "must be finite"),
    "infinite words": (lambda scores: replace(scores, text=scores.text + INF), ValueError, "must be finite"),
    "another grid": (
        lambda scores: replace(scores, image=scores.image[:, :4]),
        ValueError,
        r"grid \(5, 5\).*do not fit",
    ),
    "too few": (lambda scores: replace(scores, image=scores.image[:2]), ValueError, "do not fit"),
    "whole": (lambda scores: replace(scores, image=scores.image.long()), ValueError, "must be floats, got torch"),
    "boolean": (lambda scores: replace(scores, image=scores.image > 0), ValueError, "must be floats, got torch"),
    "complex": (lambda scores: replace(scores, image=scores.image + 0j), ValueError, "must be floats, got torch"),
}


def test_scores_are_those_of_a_method(clip, given, subtests):
    for case, (change, error, message) in SCORES.items():
        measures = [name for name in OF_SCORES if case != "another grid" or name != "confidence"]
        for measured in measures:
            with subtests.test(f"{case} {measured}"), pytest.raises(error, match=message):
                OF_SCORES[measured](clip, **given | {"scores": change(given["scores"])})


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
OF_EMBEDS = r"embeds must be two finite tensors \(3, 16\)"
SIDES = r"sides must be some of \['image', 'text'\], got"
# metric, its option, value, what the message says
OPTIONS = [
    *(("confidence", "embeds", value, OF_EMBEDS) for value in EMBEDS.values()),
    *((name, "sides", value, SIDES)
      for name in ("confidence", "removal_curves") for value in (5, None, [5], [["image"]], {}, "image")),
    *(("infidelity", "share", value, "share must be") for value in ("0.2", None, NAN, 0, 1, True)),
    *(("removal_curves", "seed", value, "seed must be") for value in ("a", None, 1.5, 2**70)),
    *(("removal_curves", "removal", value, "removal must be one of") for value in ("", 0, [], ["left_out"])),
]  # fmt: skip


def test_options_of_metrics_are_refused(clip, given, pixel_values, subtests):
    for number, (measure, name, value, message) in enumerate(OPTIONS):
        with subtests.test(f"{number} {measure} {name}={value!s:.40}"), pytest.raises(ValueError, match=message):
            OF_SCORES[measure](clip, **given, **{name: value})
    for name, value in (("radius", "0.1"), ("radius", None), ("seed", "0")):
        with subtests.test(f"max_sensitivity {name}={value}"), pytest.raises(ValueError, match=f"{name} must be"):
            metrics.max_sensitivity(pixel_values, lambda x: x.mean(1), **{name: value})
    for value in ("a", None, 1.5, 2**70):
        with subtests.test(f"randomisation seed={value}"), pytest.raises(ValueError, match="seed must be"):
            metrics.randomisation(clip, lambda other: given["scores"], seed=value)


def test_a_name_is_no_model(given, subtests):
    calls = {name: functools.partial(measure, **given) for name, measure in OF_SCORES.items()}
    calls["attribute"] = lambda name: nib.attribute(name, PICTURE, "a cat")
    calls["interactions"] = lambda name: nib.interactions(name, PICTURE, "a cat")
    calls["verify"] = verify
    for name, call in calls.items():
        with subtests.test(name), pytest.raises(TypeError, match=r"clip must be what nib\.load or .* gives, got str"):
            call("openai/clip-vit-base-patch32")
    for model in (None, "clip", torch.nn.Linear(2, 2)):
        with subtests.test(repr(model)), pytest.raises(TypeError, match="model must be a transformers model"):
            nib.HookedCLIP(model)


def test_functions_of_maps_are_refused(clip, given, pixel_values, subtests):
    scores = given["scores"]
    broken = replace(scores, image=scores.image * NAN)
    of_model = [
        (lambda other: broken, ValueError, "maps of explain must be finite"),
        (lambda other: None, TypeError, "maps of explain must be numbers, got NoneType"),
        (None, TypeError, "explain must be a function from a model to scores, got NoneType"),
    ]
    for explain, error, message in of_model:
        with subtests.test(f"randomisation: {message}"), pytest.raises(error, match=message):
            metrics.randomisation(clip, explain)
    maps = itertools.chain([scores.image], itertools.repeat(scores.image[:2]))
    with pytest.raises(ValueError, match=r"maps of explain must keep their shape, \(3, 25\), got \(2, 25\)"):
        metrics.randomisation(clip, lambda model: replace(scores, image=next(maps)))
    shape = r"maps of explain must be \(3, grid_h, grid_w\), got"
    of_pictures = [
        (pixel_values, lambda x: x[:, 0] * NAN, ValueError, "maps of explain must be finite"),
        (pixel_values, lambda x: x.mean(1)[:2], ValueError, shape),
        (pixel_values, lambda x: x.mean((1, 2)), ValueError, shape),
        (pixel_values, lambda x: x.mean(), ValueError, shape),
        (pixel_values, None, TypeError, "explain must be a function from pictures to maps, got NoneType"),
        (pixel_values * NAN, lambda x: x[:, 0], ValueError, "pixel_values must be finite"),
        ((50 * pixel_values).long(), lambda x: x.double().mean(1), ValueError, "pixel_values must be floats"),
        (pixel_values[:0], lambda x: x.double().mean(1), ValueError, "pixel_values must be floats"),
        (pixel_values[0], lambda x: x.double().mean(1), ValueError, "pixel_values must be floats"),
    ]
    for number, (pixels, explain, error, message) in enumerate(of_pictures):
        with subtests.test(f"max_sensitivity {number}: {message}"), pytest.raises(error, match=message):
            metrics.max_sensitivity(pixels, explain)


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
    message = r"most scores of a map must be at least 1e-12 of its largest.* rows \[1\]"
    drowned, high, single = MAPS.double(), MAPS.double(), torch.zeros(2, 4, 4)
    drowned[1, 0, 0], high[1, 0, 0], single[:, 0, 0] = 1e14, 1e10, 1e14
    for measure in (metrics.auc, metrics.average_precision, metrics.pointing_game, metrics.iou_at_mean):
        with subtests.test(measure.__name__):
            with pytest.raises(ValueError, match=message):
                measure(drowned, MASKS)
            assert len(measure(high, MASKS)) == 2
            assert len(measure(single, MASKS)) == 2


def test_a_picture_that_is_none_is_named_by_its_pair(clip, pairs, subtests):
    for picture in (None, 5, bytearray(b"abc"), b"abc"):
        message = "image of pair 'pair-1': a picture must be"
        with subtests.test(repr(picture)), pytest.raises(TypeError, match=message):
            evaluate(clip, [pairs[0], pairs[1] | {"image": picture}])
    bare = nib.HookedCLIP(clip.model, clip.tokenizer)
    with pytest.raises(ValueError, match="image of pair 'pair-0': this model came without an image processor"):
        evaluate(bare, pairs)


# ---- words, limits, data


def test_a_letter_is_in_one_word(clip, subtests):
    cases = {
        "İstanbul": ["İ", "stanbul"],
        "a İ cat": ["a", "İ", "cat"],
        "İİ x": ["İ", "İ", "x"],
        "Straße": ["Straße"],
        "a cafe\u0301 dog": ["a", "cafe\u0301", "dog"],
    }
    for text, words in cases.items():
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


# ---- tables and plots


# ---- profiles and grids


def test_a_list_of_runs_that_is_none_is_refused(tmp_path, subtests):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.parquet").write_bytes(b"abc")
    for content in ("{", "5", "[[1]]", "[5]", '["a"]'):
        (tmp_path / "runs.json").write_text(content)
        message = r"runs\.json or a run that it names cannot be read"
        with subtests.test(content), pytest.raises(ValueError, match=message):
            collect(tmp_path)
