"""Calls that gave a wrong number without a word, or another library's error: each is right or refused now."""

import copy
import functools
import importlib.util
import itertools
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import nib
from nib import metrics
from nib.evaluation.work import _read_own
from nib.methods import orthogonal_text
from nib.verify import verify

PICTURE = Image.new("RGB", (60, 60), "red")


@pytest.fixture
def own(model_folder):
    """A model that a test may change."""
    return nib.load(model_folder)


@pytest.fixture
def batch(pixel_values, tokens):
    return pixel_values, tokens["input_ids"], tokens["attention_mask"]


@pytest.fixture
def pairs():
    return [{"id": f"pair-{i}", "image": PICTURE, "text": text} for i, text in enumerate(["a cat", "dog"])]


def evaluate(clip, pairs, methods="saliency", **options):
    return nib.evaluate(clip, pairs, methods, progress=False, **options)


# ---- around methods


def test_texts_beside_others_leave_other_threads_alone(clip, batch):
    explain, first = orthogonal_text(nib.METHODS["saliency"], batch[1][1:]), [part[:1] for part in batch]
    plain, beside = nib.METHODS["saliency"](clip, *batch).similarity, explain(clip, *first).similarity
    assert not torch.allclose(plain[:1], beside, atol=1e-6)
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(explain, clip, *first) for _ in range(20)]
        for _ in range(10):
            assert torch.allclose(nib.METHODS["saliency"](clip, *batch).similarity, plain, atol=1e-12)
    assert all(torch.allclose(one.result().similarity, beside, atol=1e-12) for one in found)


def test_texts_beside_others_are_explained_at_rest(model_folder, batch, subtests):
    pixel_values, ids, mask = batch
    explain = orthogonal_text(nib.METHODS["saliency"], ids[1:])
    inputs = pixel_values[:1].float(), ids[:1], mask[:1]
    for change in ("autocast", "training"):
        with subtests.test(change):
            own = nib.load(model_folder)
            expected = explain(own, *inputs).text
            for block in own.text.blocks:
                block.self_attn.dropout = 0.5
            own.model.train(change == "training")
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=change == "autocast"):
                assert torch.equal(explain(own, *inputs).text, expected)


def test_distractors_are_texts(clip, batch, subtests):
    ids = batch[1]
    wrong = {
        "distractors must end with the model's end token": torch.zeros(2, 5, dtype=torch.long),
        "distractors must be in": ids + 10**6,
        "distractors must be whole numbers": ids.to(torch.uint8),
        "distractors must be 1 to 32 in a row, got 0": ids[:, :0],
    }
    for message, distractors in wrong.items():
        with subtests.test(message), pytest.raises(ValueError, match=message):
            orthogonal_text(nib.METHODS["saliency"], distractors)(clip, *batch)


def test_token_ids_of_any_whole_type(clip, tokens, subtests):
    ids = tokens["input_ids"][0][tokens["attention_mask"][0] == 1]
    expected = nib.attribute(clip, PICTURE, ids).word_scores
    for dtype in (torch.uint16, torch.uint32, torch.uint64):
        with subtests.test(str(dtype)):
            assert np.array_equal(nib.attribute(clip, PICTURE, ids.to(dtype)).word_scores, expected)


def test_arrays_of_any_order_and_precision(clip, subtests):
    array = np.random.default_rng(0).random((60, 60, 3)).astype(np.float32)
    expected = nib.attribute(clip, array, "a cat").image_scores
    masks = array[:, :, 1][None] > 0.5
    changes = {
        "turned twice": lambda a: a[::-1][::-1],
        "big endian": lambda a: a.astype(">f4"),
        "long": lambda a: a.astype(np.longdouble),
    }
    for case, change in changes.items():
        with subtests.test(case):
            assert np.allclose(nib.attribute(clip, change(array), "a cat").image_scores, expected, atol=1e-12)
            maps = array[:, :, 0][None]
            assert metrics.auc(change(maps), masks).equal(metrics.auc(maps, masks))


def test_results_have_parameters_of_their_own(clip):
    one, other = nib.attribute(clip, PICTURE, ["a cat", "a dog"])
    one.parameters["layer"] = 99
    assert other.parameters["layer"] != 99


def test_a_processor_leaves_something_of_a_picture(clip, image_processor, subtests):
    message = "rescale_factor of the image processor must be above 0, got"
    for factor in (0, -1 / 255, float("nan")):
        processor = copy.deepcopy(image_processor)
        processor.rescale_factor = factor
        with subtests.test(str(factor)), pytest.raises(ValueError, match=message):
            nib.HookedCLIP(clip.model, clip.tokenizer, processor)


# ---- verify


def test_a_model_in_training_is_verified_at_rest(own):
    for block in own.text.blocks:
        block.self_attn.dropout = 0.5
    own.model.train()
    with torch.no_grad(), torch.inference_mode():
        assert all(row["passed"] for row in verify(own, n_steps=2))
    nib.attribute(own, PICTURE, "a cat")


def test_a_model_of_two_types_comes_out_of_one(own):
    own.model.vision_model.half()
    found = {row["check"]: row["passed"] for row in verify(own, n_steps=2)}
    assert not found["weights changed"]


# ---- evaluations and their parts


def test_a_preset_that_was_changed_is_run_again(clip, pairs, tmp_path, monkeypatch):
    for steps in (2, 3):
        monkeypatch.setitem(nib.PRESETS, "mine", {"n_steps": steps})
        kept = evaluate(clip, pairs, {"method": "nib", "preset": "mine"}, output=tmp_path)
        assert kept["value"].equals(evaluate(clip, pairs, {"method": "nib", "preset": "mine"})["value"])
    assert len(list(tmp_path.glob("*.parquet"))) == 2


def negate(method):
    @functools.wraps(method)
    def negated(*arguments, **parameters):
        scores = method(*arguments, **parameters)
        return replace(scores, image=-scores.image, image_pixels=None)

    return negated


def test_a_wrapper_of_a_method_is_not_the_method(clip, pairs, tmp_path, monkeypatch):
    evaluate(clip, pairs, "saliency", output=tmp_path)
    monkeypatch.setitem(nib.METHODS, "saliency", negate(nib.METHODS["saliency"]))
    with pytest.raises(ValueError, match="output must be None with a method or metric that code at the top of a file"):
        evaluate(clip, pairs, "saliency", output=tmp_path)


def test_parts_of_every_method_are_kept(subtests):
    for method in sorted(nib.METHODS):
        with subtests.test(method):
            assert _read_own(method) == ""


CODE = """
import nib

def helper(scores):
    return {}

def mine(clip, pixel_values, input_ids, attention_mask=None, *, batch_size=64):
    return helper(nib.METHODS["random"](clip, pixel_values, input_ids, attention_mask))
"""


def test_the_file_of_a_method_counts(clip, pairs, tmp_path, monkeypatch):
    for number, result in enumerate(("scores", "nib.Scores(**{**vars(scores), 'text': -scores.text})")):
        file = tmp_path / f"own_{number}.py"
        file.write_text(CODE.format(result).replace("nib.Scores", "type(scores)"))
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setitem(nib.METHODS, "mine", module.mine)
        kept = evaluate(clip, pairs, "mine", output=tmp_path / "parts")
        assert kept["value"].equals(evaluate(clip, pairs, "mine")["value"])
    assert len(list((tmp_path / "parts").glob("*.parquet"))) == 2


def test_a_flipped_bit_in_a_part_is_seen(clip, pairs, tmp_path):
    kept = evaluate(clip, pairs, output=tmp_path)
    (part,) = tmp_path.glob("*.parquet")
    whole, numbers = part.read_bytes(), 0
    values = [re.escape(np.float64(value).tobytes()) for value in kept["value"] if value]
    places = [found.start() + 6 for value in values for found in re.finditer(value, whole)]
    for place in [*places, *range(len(whole) - 2000, len(whole), 97)]:  # also in what is kept beside the numbers
        data = bytearray(whole)
        data[place] ^= 8
        part.write_bytes(data)
        with warnings.catch_warnings(record=True, action="always") as said:
            assert evaluate(clip, pairs, output=tmp_path).equals(kept)
        numbers += any("its numbers are not those that were written" in str(each.message) for each in said)
    assert numbers > 0


def take_anything(clip, pixel_values, input_ids, attention_mask=None, **given):
    return nib.METHODS["random"](clip, pixel_values, input_ids, attention_mask)


def test_a_parameter_is_not_called_like_a_column(clip, pairs, monkeypatch, subtests):
    monkeypatch.setitem(nib.METHODS, "mine", take_anything)
    for name in ("value", "metric", "id", "protocol"):
        message = f"a parameter must not be called like a column of the results, got {name}"
        with subtests.test(name), pytest.raises(ValueError, match=message):
            evaluate(clip, pairs, {"method": "mine", name: 5.0})


# ---- metrics


def test_the_metric_of_a_table_says_what_is_a_share():
    table = pd.DataFrame({"id": range(40), "method": "nib", "metric": "image_increase", "value": 0.0})
    for by in ("method", ["method", "metric"]):
        assert metrics.summarise(table, by)["high"].item() == pytest.approx(8.762, abs=1e-3)
    table = table.assign(metric="pointing_game", value=[1.0, 0.0, 1.0, 1.0] * 10)
    one, other = (metrics.summarise(table, by)[["low", "high"]].to_numpy() for by in ("method", ["method", "metric"]))
    assert np.array_equal(one, other)


def test_a_column_may_be_the_index_too():
    table = pd.DataFrame({"id": [0, 1], "method": "nib", "metric": "auc", "value": [0.5, 0.7]})
    found = metrics.summarise(table.set_index("method", drop=False), "method")
    assert found["mean"].item() == pytest.approx(0.6)


def test_a_missing_entry_is_one_of_its_own():
    table = pd.DataFrame(
        {"id": [0, 1] * 2, "layer": [1, 1, None, None], "metric": "auc", "value": [1.0, 2.0, 4.0, 5.0]}
    )
    for missing in (None, np.nan):
        given = table.assign(layer=pd.Series([1, 1, missing, missing], dtype=object))
        found = metrics.compare(given, ["metric"], "layer", 1)
        assert found["difference"].tolist() == [3.0]


def test_rise_takes_pixels_in_single_precision(clip, batch):
    single = nib.METHODS["rise"](clip, batch[0].float(), *batch[1:], n_masks=4, text_masks=4)
    double = nib.METHODS["rise"](clip, batch[0].float().double(), *batch[1:], n_masks=4, text_masks=4)
    assert torch.equal(single.image, double.image)


def test_a_page_is_made_of_arrays(clip, subtests):
    result = nib.attribute(clip, PICTURE, "a cat", method="saliency")
    changes = [
        ("image_scores", [[1.0, 2.0], [3.0, 4.0]]),
        ("image_scores", torch.ones(5, 5)),
        ("word_scores", torch.ones(2)),
        ("picture", np.zeros((60, 60, 3))),
    ]
    for name, value in changes:
        with subtests.test(f"{name} {type(value)}"):
            with pytest.raises(TypeError, match=f"{name} must be the array that nib.attribute gives"):
                replace(result, **{name: value}).to_html()
            with pytest.raises(TypeError, match=r"must be the array that nib.attribute gives"):
                result.to_html(others=[replace(result, **{name: value})])


def test_results_of_one_picture_do_not_change_each_other(clip):
    first, second = nib.attribute(clip, PICTURE, ["a cat", "dog"], method="saliency")
    with pytest.raises(ValueError, match="read-only"):
        first.picture[0, 0] = 0
    assert first.picture is second.picture or not np.shares_memory(first.picture, second.picture)


def test_what_has_no_end_is_refused(clip, pairs, monkeypatch, subtests):
    monkeypatch.setattr(nib.limits, "pairs", 1000)
    forever = itertools.repeat("saliency")
    pictures, texts = itertools.repeat(PICTURE), itertools.repeat("a cat")
    more = "must be at most 1,000, got more: raise nib.limits.pairs"
    calls = {
        "methods": (lambda: evaluate(clip, pairs, forever), ValueError, "at most 1,000"),
        "metrics": (lambda: evaluate(clip, pairs, metrics=forever), ValueError, "must be some of"),
        "by": (lambda: metrics.summarise(pd.DataFrame({"value": [1.0]}), forever), KeyError, "no column"),
        "pairs": (lambda: evaluate(clip, itertools.cycle(pairs)), ValueError, "pairs must be at most 1,000, got more"),
        "images": (lambda: nib.attribute(clip, pictures, "a cat"), ValueError, f"images {more}"),
        "texts": (lambda: nib.attribute(clip, PICTURE, texts), ValueError, f"texts {more}"),
    }
    for name, (call, error, message) in calls.items():
        with subtests.test(name), pytest.raises(error, match=message):
            call()


def test_a_map_lies_on_what_the_model_sees(clip):
    result = nib.attribute(clip, torch.zeros(3, 70, 64, dtype=torch.float64), "a cat", method="saliency")
    assert result.image_scores.shape == (5, 5)  # patches of 12: ten rows and four columns are left over
    assert result.picture.shape[:2] == result.heatmap().shape == (60, 60)


def test_an_open_file_is_no_list_of_pictures(clip, tmp_path):
    PICTURE.save(tmp_path / "red.png")
    with (tmp_path / "red.png").open("rb") as file, pytest.raises(TypeError, match="got BufferedReader"):
        nib.attribute(clip, file, "a cat")


def test_pixels_with_a_gradient_are_pixels(clip, batch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nib.attribute(clip, batch[0][0].clone().requires_grad_(), "a cat", method="saliency")
