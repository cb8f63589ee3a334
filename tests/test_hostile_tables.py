"""What goes into tables, statistics and metrics is refused where it would lose or change a number."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import nib
from nib import metrics
from nib.methods import orthogonal_text
from nib.metrics.removal import RemovalCurves
from runs.plan import PROFILES, read_profile

NAN, INF = float("nan"), float("inf")
NOTEBOOK = PROFILES.parent / "00_quickstart.ipynb"
PAIRED = pd.DataFrame({"id": list("abcd") * 2, "g": "x", "method": ["nib"] * 4 + ["rise"] * 4})
VALUES = [5, 5, 5, 5, 3, 2, 4, 1]


# ---- statistics


def test_a_difference_does_not_depend_on_the_type_of_the_values(subtests):
    expected = metrics.compare(PAIRED.assign(value=np.array(VALUES, float)), ["g"])
    for kind in ("u1", "u8", "i1", "f2", "float32", "Int64", "UInt8", "Float64", "int64[pyarrow]"):
        with subtests.test(kind):
            table = PAIRED.assign(value=pd.array(VALUES, dtype=kind))
            found = metrics.compare(table, ["g"])
            pd.testing.assert_frame_equal(found, expected)
            assert found["difference"].item() == -2.5
            assert metrics.summarise(table, ["g", "method"])["mean"].tolist() == [5, 2.5]


def test_a_column_of_the_result_is_no_group(subtests):
    for name in ("n", "mean", "low", "high"):
        table = pd.DataFrame({"id": ["a", "b"] * 2, name: [5, 5, 9, 9], "value": [1.0, 3, 2, 8]})
        message = f"column '{name}' is called like one of the result: rename it"
        with subtests.test(f"summarise {name}"), pytest.raises(ValueError, match=message):
            metrics.summarise(table, name)
    for name in ("n", "difference", "low", "high", "p", "p_holm"):
        table = PAIRED.rename(columns={"method": name}).assign(value=VALUES)
        message = f"column '{name}' is called like one of the result: rename it"
        with subtests.test(f"compare {name}"), pytest.raises(ValueError, match=message):
            metrics.compare(table, ["g"], name)


GOOD = PAIRED.assign(value=VALUES)
ORDER = "by must name at least one column, in order, got"
WRONG_TABLES = {
    "complex": (PAIRED.assign(value=np.array(VALUES) + 1j), ["g"], ValueError, "must hold numbers, got complex"),
    "lists": (GOOD.assign(g=[[1]] * 8), ["g"], ValueError, "column 'g' must hold numbers or text"),
    "number": (GOOD, ["g", 3], TypeError, "columns must be named by text, got 3"),
    "nested": (GOOD, [["g"]], TypeError, "columns must be named by text"),
    "twice": (pd.concat([GOOD, PAIRED[["g"]]], axis=1), ["g"], ValueError, "must have one column 'g', got several"),
    "no such column": (GOOD, "m", KeyError, "the table has no column m; it has id, g, method"),
    "no table": (GOOD.to_dict(), "g", TypeError, "must be a table .DataFrame., got dict"),
    "text": (GOOD.astype({"value": str}), "g", ValueError, "column 'value' must hold numbers"),
    "no value": (PAIRED, "g", KeyError, "no column value"),
    "infinite": (GOOD.assign(value=[*VALUES[1:], INF]), ["g"], ValueError, "finite or NaN, got inf in .*'g': 'x'"),
    "-infinite": (GOOD.assign(value=[*VALUES[1:], -INF]), ["g"], ValueError, "finite or NaN, got -inf in .*'g': 'x'"),
    **{f"by {type(by).__name__}": (GOOD, by, ValueError, ORDER) for by in ([], 5, {"g"}, {"g": 1}, iter([]), None)},
}


def test_tables_that_cannot_be_grouped(subtests):
    for case, (table, by, error, message) in WRONG_TABLES.items():
        for function in (metrics.summarise, metrics.compare):
            with subtests.test(f"{case} {function.__name__}"), pytest.raises(error, match=message):
                function(table, by)


def test_what_cannot_be_compared(subtests):
    calls = [
        (GOOD, {"reference": ["nib"]}, ValueError, "the reference must be one of"),
        (GOOD, {"column": ["method"]}, TypeError, "columns must be named by text"),
        (GOOD, {"column": None}, TypeError, "column must be the name of a column, got None"),
        (GOOD.drop(columns="id"), {}, KeyError, "the table has no column id; it has"),
        (GOOD.drop(columns="method"), {}, KeyError, "the table has no column method; it has"),
    ]
    for table, options, error, message in calls:
        with subtests.test(message), pytest.raises(error, match=message):
            metrics.compare(table, ["g"], **options)


HIDING = {
    "masked": np.ma.array([0.1, 0.2, 0.9], mask=[0, 0, 1]),
    "complex": np.array([0.1, 0.2]) + 1j,
    "complex tensor": torch.ones(3) + 1j,
    "ragged": [[1], [1, 2]],
    "text": ["a"],
}


def test_numbers_that_hide_something(subtests):
    for case, values in HIDING.items():
        for function in (metrics.bootstrap_interval, metrics.holm):
            error = pytest.raises((ValueError, TypeError), match=r"(values|p) must")
            with subtests.test(f"{case} {function.__name__}"), error:
                function(values)


def test_p_values_are_probabilities(subtests):
    for p in ([0.1, NAN], [-0.1, 0.5], [0.1, 1.5], [[0.1, 0.2]], 0.5):
        with subtests.test(str(p)), pytest.raises(ValueError, match=r"p must be a list of numbers in \[0, 1\]"):
            metrics.holm(p)
    expected = metrics.holm(np.array([0.01, 0.04, 0.03]))
    assert np.array_equal(metrics.holm([0.01, 0.04, 0.03]), expected)
    assert np.array_equal(metrics.holm(pd.Series([0.01, 0.04, 0.03], index=[5, 1, 9])), expected)


def test_sizes_of_an_interval(subtests):
    for options in ({"n_resamples": 0}, {"n_resamples": -1}, {"n_resamples": 2.5}, {"seed": -1}, {"seed": "x"}):
        with subtests.test(str(options)), pytest.raises(ValueError, match="must be a whole number"):
            metrics.bootstrap_interval([1.0, 2, 3], **options)
    with pytest.raises(ValueError, match=r"n_resamples must be at most 1,000,000.*nib\.limits\.samples"):
        metrics.bootstrap_interval([1.0, 2, 3], n_resamples=10**9)
    with pytest.raises(ValueError, match=r"values must be at most 1e\+300, got 1.7e\+308"):
        metrics.bootstrap_interval([1e308, 1.7e308, 1e308])
    assert metrics.bootstrap_interval(torch.ones(3, requires_grad=True)) == (1, 1)


# ---- metrics

LOCALISATION = [metrics.pointing_game, metrics.auc, metrics.energy_inside, metrics.average_precision]
LOCALISATION += [metrics.iou_at_mean]
MASK = np.eye(4)[None]
WRONG_SCORES = {
    "masked": np.ma.array(np.ones((1, 4, 4)), mask=MASK),
    "complex": torch.ones(1, 4, 4) + 1j,
    "none": None,
    "text": "a",
    "sparse": torch.ones(1, 4, 4).to_sparse(),
    "meta": torch.ones(1, 4, 4, device="meta"),
}


def test_scores_and_masks_are_numbers_in_the_open(subtests):
    for case, wrong in WRONG_SCORES.items():
        for measure in LOCALISATION:
            with subtests.test(f"{case} {measure.__name__}"):
                with pytest.raises((TypeError, ValueError), match="scores must"):
                    measure(wrong, MASK)
                with pytest.raises((TypeError, ValueError), match="masks must"):
                    measure(np.arange(16.0).reshape(1, 4, 4), wrong)


def test_maps_under_an_absent_prompt(subtests):
    for case, wrong in WRONG_SCORES.items():
        with subtests.test(case), pytest.raises((TypeError, ValueError), match="maps must"):
            metrics.absent_prompt(wrong, torch.ones(1, 4, 4))
    maps = torch.tensor([[[4.0, 3], [2, -1]]])
    assert metrics.absent_prompt(maps.numpy(), maps.tolist())["absent_agreement"] == 1
    for broken in (maps / 0, maps * NAN):
        for given in ((maps, broken), (broken, maps)):
            with pytest.raises(ValueError, match="must be finite"):
                metrics.absent_prompt(*given)
    right, wrong = np.random.default_rng(0).standard_normal((2, 3, 5, 5))
    expected = metrics.absent_prompt(right, wrong)["absent_agreement"]
    small = metrics.absent_prompt(1e-165 * right, 1e-165 * wrong)
    assert small["absent_agreement"].equal(expected)


# ---- methods


def test_what_no_text_stands_beside(subtests):
    for distractors in (["a dog"], "a dog", None, torch.ones(2, 3)):
        with subtests.test(repr(distractors)), pytest.raises(TypeError, match="distractors must be token ids"):
            orthogonal_text(nib.METHODS["chefer"], distractors)
    with pytest.raises(TypeError, match=r"method must be one of nib\.METHODS, got int"):
        orthogonal_text(5, torch.ones(2, 3, dtype=torch.long))


def test_a_baseline_is_real_and_dense(clip, pixel_values, tokens, subtests):
    zeros = torch.zeros(2, clip.image.split(pixel_values, 0).hidden_states.shape[-1])
    for case, wrong in {"complex": zeros + 1j, "sparse": zeros.to_sparse(), "meta": zeros.to("meta")}.items():
        with subtests.test(case), pytest.raises(ValueError, match="baseline must be"):
            nib.METHODS["nib"](clip, pixel_values, **tokens, baseline=(wrong, "zero"))
    with pytest.raises(ValueError, match="quadrature must be one value or two"):
        nib.METHODS["nib"](clip, pixel_values, **tokens, quadrature=["riemann_left"] * 3)


def test_a_parameter_without_a_name(clip):
    with pytest.raises(TypeError, match="parameters of a method must be named by text, got 5"):
        nib.evaluate(clip, [{"id": "a", "image": Image.new("RGB", (9, 9)), "text": "a"}], {5: 6, "method": "gradcam"})


# ---- files


def test_ids_of_lines_stay_as_they_are(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    rows = [{"id": key, "image": "a.png", "text": "a cat"} for key in (1, 2.5, 9007199254740993, "x")]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert nib.datasets.load(str(tmp_path / "t.jsonl"))["id"][:] == ["1", "2.5", "9007199254740993", "x"]


def test_a_return_in_a_text_stays_in_its_row(tmp_path):
    frame = pd.DataFrame({"id": ["a\rb", "z"], "value": [1.0, 2.0]})
    nib.save_table(frame, tmp_path / "t.csv")
    assert pd.read_csv(tmp_path / "t.csv").equals(frame)
    nib.save_table(frame.tail(1), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "id,value\nz,2.0\n"
    data = nib.datasets.load("scenes", limit=2)
    data = data.remove_columns("text").add_column("text", ["a\rcat", "a dog"])
    nib.datasets.save_ids(data, tmp_path / "ids.csv")
    assert nib.datasets.load("scenes", ids=str(tmp_path / "ids.csv"))["id"][:] == data["id"][:]


def test_a_file_that_cannot_be_written_is_called_by_its_name(tmp_path):
    with pytest.raises(OSError, match=r"cannot be written: .*'/proc/t\.csv'"):
        nib.save_table(pd.DataFrame({"value": [1.0]}), "/proc/t.csv")


# ---- parameters of a run


def test_texts_of_a_run_are_taken_as_typed(subtests):
    for text in ("a red car #1", "a red car, # parked", '"quoted"', "null", "a: b", "- cat", "[a]", "1e3"):
        for name in ("text", "image"):
            with subtests.test(f"{name} {text}"):
                (run,) = read_profile("embedded", [NOTEBOOK], [(name, text)])
                assert run.parameters[name] == text


# ---- the model as it stands


def test_a_module_that_was_replaced_is_used(model_folder):
    picture = Image.new("RGB", (60, 60), "red")
    clip, other = nib.load(model_folder), nib.load(model_folder)
    before = nib.attribute(clip, picture, "a cat").similarity
    for each in (clip, other):
        weights = torch.randn(each.model.visual_projection.weight.shape, generator=torch.Generator().manual_seed(0))
        layer = torch.nn.Linear(weights.shape[1], weights.shape[0], bias=False)
        layer.weight.data = weights
        each.model.visual_projection = layer.requires_grad_(False)
        found = nib.attribute(each, picture, "a cat").similarity
        assert found != before
    fresh = nib.HookedCLIP(other.model, other.tokenizer, other.image_processor)
    assert nib.attribute(fresh, picture, "a cat").similarity == found


def read_curves(found):
    return dict(vars(found)) if isinstance(found, RemovalCurves) else found


def test_metrics_run_on_the_model_at_rest(model_folder, pixel_values, tokens, subtests):
    clip, pixels = nib.load(model_folder), pixel_values.float()  # autocast leaves float64 alone
    for block in (*clip.image.blocks, *clip.text.blocks):
        block.self_attn.dropout = 0.5
    scores = nib.METHODS["random"](clip, pixels, **tokens)
    for measure in (metrics.confidence, metrics.removal_curves, metrics.infidelity):
        with subtests.test(measure.__name__):
            clip.model.eval()
            expected = read_curves(measure(clip, pixels, **tokens, scores=scores))
            clip.model.train()
            found = read_curves(measure(clip, pixels, **tokens, scores=scores))
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
            clip.model.eval()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = read_curves(measure(clip, pixels, **tokens, scores=scores))
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_metrics_leave_no_graph(clip, pixel_values, tokens, subtests):
    scores = nib.METHODS["random"](clip, pixel_values, **tokens)
    for measure in (metrics.confidence, metrics.removal_curves):
        with subtests.test(measure.__name__):
            found = read_curves(measure(clip, pixel_values.clone().requires_grad_(), **tokens, scores=scores))
            assert not any(isinstance(value, torch.Tensor) and value.requires_grad for value in found.values())


def test_token_ids_begin_with_the_begin_token(clip):
    ids = torch.tensor(clip.tokenizer("a cat")["input_ids"])
    nib.attribute(clip, Image.new("RGB", (60, 60)), ids, "random")
    with pytest.raises(ValueError, match="token ids must begin with the begin token"):
        nib.attribute(clip, Image.new("RGB", (60, 60)), ids[1:], "random")
