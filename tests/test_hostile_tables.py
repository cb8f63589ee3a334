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

NOTEBOOK = PROFILES.parent / "00_quickstart.ipynb"
PAIRED = pd.DataFrame({"id": list("abcd") * 2, "g": "x", "method": ["nib"] * 4 + ["rise"] * 4})
VALUES = [5, 5, 5, 5, 3, 2, 4, 1]


# ---- statistics


def test_a_difference_does_not_depend_on_the_type_of_the_values(subtests):
    for kind in ["u1", "u8", "i1", "f2", "float32", "Int64", "UInt8", "Float64", "int64[pyarrow]"]:
        with subtests.test(""):
            expected = metrics.compare(PAIRED.assign(value=np.array(VALUES, float)), ["g"])
            found = metrics.compare(PAIRED.assign(value=pd.array(VALUES, dtype=kind)), ["g"])
            pd.testing.assert_frame_equal(found, expected)
            assert found["difference"].item() == -2.5
            table = PAIRED.assign(value=pd.array(VALUES, dtype=kind))
            assert metrics.summarise(table, ["g", "method"])["mean"].tolist() == [5, 2.5]


def test_a_column_of_the_result_is_no_group(subtests):
    for name in ["n", "mean", "low", "high"]:
        with subtests.test(repr(name)):
            table = pd.DataFrame({"id": ["a", "b"] * 2, name: [5, 5, 9, 9], "value": [1.0, 3, 2, 8]})
            with pytest.raises(ValueError, match=f"column '{name}' is called like one of the result: rename it"):
                metrics.summarise(table, name)


def test_a_column_of_the_result_is_not_compared(subtests):
    for name in ["n", "difference", "low", "high", "p", "p_holm"]:
        with subtests.test(repr(name)):
            table = PAIRED.rename(columns={"method": name}).assign(value=VALUES)
            with pytest.raises(ValueError, match=f"column '{name}' is called like one of the result: rename it"):
                metrics.compare(table, ["g"], name)


WRONG_TABLES = {
    "complex": (PAIRED.assign(value=np.array(VALUES) + 1j), ["g"], ValueError, "must hold numbers, got complex"),
    "lists": (PAIRED.assign(value=VALUES, g=[[1]] * 8), ["g"], ValueError, "column 'g' must hold numbers or text"),
    "number": (PAIRED.assign(value=VALUES), ["g", 3], TypeError, "columns must be named by text, got 3"),
    "nested": (PAIRED.assign(value=VALUES), [["g"]], TypeError, "columns must be named by text"),
    "twice": (
        pd.concat([PAIRED.assign(value=VALUES), PAIRED[["g"]]], axis=1),
        ["g"],
        ValueError,
        "must have one column 'g', got several",
    ),
}


def test_tables_that_cannot_be_grouped(subtests):
    for case, (table, by, error, message) in WRONG_TABLES.items():
        for function in [metrics.summarise, metrics.compare]:
            with subtests.test(f"{case} {function.__name__}"), pytest.raises(error, match=message):
                function(table, by)


def test_a_reference_that_is_none():
    with pytest.raises(ValueError, match="the reference must be one of"):
        metrics.compare(PAIRED.assign(value=VALUES), ["g"], reference=["nib"])
    with pytest.raises(TypeError, match="columns must be named by text"):
        metrics.compare(PAIRED.assign(value=VALUES), ["g"], column=["method"])


def test_numbers_that_hide_something(subtests):
    for function in [metrics.bootstrap_interval, metrics.holm]:
        for values in [
            np.ma.array([0.1, 0.2, 0.9], mask=[0, 0, 1]),
            np.array([0.1, 0.2]) + 1j,
            torch.ones(3) + 1j,
            [[1], [1, 2]],
            ["a"],
        ]:
            with subtests.test(f"{function.__name__} {values}"):
                with pytest.raises((ValueError, TypeError), match=r"(values|p) must"):
                    function(values)


def test_sizes_of_an_interval():
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
    for case in WRONG_SCORES:
        for measure in LOCALISATION:
            with subtests.test(f"{case} {measure.__name__}"):
                with pytest.raises((TypeError, ValueError), match="scores must"):
                    measure(WRONG_SCORES[case], MASK)
                with pytest.raises((TypeError, ValueError), match="masks must"):
                    measure(np.arange(16.0).reshape(1, 4, 4), WRONG_SCORES[case])


def test_maps_under_an_absent_prompt_are_numbers_in_the_open(subtests):
    for case in WRONG_SCORES:
        with subtests.test(case), pytest.raises((TypeError, ValueError), match="maps must"):
            metrics.absent_prompt(WRONG_SCORES[case], torch.ones(1, 4, 4))


def test_seeds_of_metrics(clip, pixel_values, tokens, subtests):
    for seed in ["a", None, 1.5, 2**70]:
        with subtests.test(repr(seed)):
            scores = nib.METHODS["random"](clip, pixel_values, **tokens)
            with pytest.raises(ValueError, match="seed must be"):
                metrics.removal_curves(clip, pixel_values, **tokens, scores=scores, seed=seed)
            with pytest.raises(ValueError, match="seed must be"):
                metrics.randomisation(clip, lambda other: scores, seed=seed)


def test_a_removal_that_is_none_of_them(clip, pixel_values, tokens, subtests):
    for removal in ["", 0, [], ["left_out"]]:
        with subtests.test(repr(removal)):
            scores = nib.METHODS["random"](clip, pixel_values, **tokens)
            with pytest.raises(ValueError, match="removal must be one of"):
                metrics.removal_curves(clip, pixel_values, **tokens, scores=scores, removal=removal)


def test_a_heat_map_that_is_too_large(clip):
    result = nib.attribute(clip, Image.new("RGB", (60, 60)), "a cat", "random")
    with pytest.raises(ValueError, match="size must be at most 150,000,000 pixels, got 40000 x 40000"):
        result.heatmap((40_000, 40_000))


# ---- methods


def test_distractors_are_token_ids(subtests):
    for distractors in [["a dog"], "a dog", None, torch.ones(2, 3)]:
        with subtests.test(repr(distractors)), pytest.raises(TypeError, match="distractors must be token ids"):
            orthogonal_text(nib.METHODS["chefer"], distractors)


def test_a_wrapped_method_is_a_function():
    with pytest.raises(TypeError, match=r"method must be one of nib\.METHODS, got int"):
        orthogonal_text(5, torch.ones(2, 3, dtype=torch.long))


def test_a_baseline_is_real_and_dense(clip, pixel_values, tokens, subtests):
    for change in [lambda x: x + 1j, torch.Tensor.to_sparse, lambda x: x.to("meta")]:
        with subtests.test(change.__name__):
            baseline = change(torch.zeros(2, clip.image.split(pixel_values, 0).hidden_states.shape[-1]))
            with pytest.raises(ValueError, match="baseline must be"):
                nib.METHODS["nib"](clip, pixel_values, **tokens, baseline=(baseline, "zero"))


def test_a_rule_for_each_side_is_called_as_it_was_given(clip, pixel_values, tokens):
    with pytest.raises(ValueError, match="quadrature must be one value or two"):
        nib.METHODS["nib"](clip, pixel_values, **tokens, quadrature=["riemann_left"] * 3)


def test_a_parameter_without_a_name(clip):
    with pytest.raises(TypeError, match="parameters of a method must be named by text, got 5"):
        nib.evaluate(clip, [{"id": "a", "image": Image.new("RGB", (9, 9)), "text": "a"}], {5: 6, "method": "gradcam"})


# ---- files


def test_a_comma_without_quotation_marks_is_named(tmp_path):
    (tmp_path / "t.csv").write_text("text,image\na red car, parked,a.png\na dog, asleep,b.png\n")
    with pytest.raises(ValueError, match=r"line 2 has 3 fields and the header 2: put text with a comma"):
        nib.datasets.load(str(tmp_path / "t.csv"))
    (tmp_path / "t.csv").write_text("text,image\na car,a.png\na dog, asleep,b.png\n")
    with pytest.raises(ValueError, match="line 3 has 3 fields"):
        nib.datasets.load(str(tmp_path / "t.csv"))


def test_a_column_that_is_named_twice(tmp_path):
    (tmp_path / "t.csv").write_text("image,text,text\na.png,a,b\n")
    with pytest.raises(ValueError, match="the header names column text twice"):
        nib.datasets.load(str(tmp_path / "t.csv"))


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


def test_an_index_with_a_name_is_written(tmp_path_factory, subtests):
    for name in ["t.csv", "t.parquet"]:
        with subtests.test(repr(name)):
            tmp_path = tmp_path_factory.mktemp("row")
            frame = pd.DataFrame({"id": ["a", "b"], "value": [1.0, 2.0]})
            nib.save_table(frame.set_index("id"), tmp_path / name)
            read = pd.read_csv if name.endswith("csv") else pd.read_parquet
            assert read(tmp_path / name)["id"].tolist() == ["a", "b"]


def test_a_file_that_cannot_be_written_is_called_by_its_name(tmp_path):
    with pytest.raises(OSError, match=r"cannot be written: .*'/proc/t\.csv'"):
        nib.save_table(pd.DataFrame({"value": [1.0]}), "/proc/t.csv")


# ---- parameters of a run


def test_texts_of_a_run_are_taken_as_typed(subtests):
    for text in ["a red car #1", "a red car, # parked", '"quoted"', "null", "a: b", "- cat", "[a]", "1e3"]:
        for name in ["text", "image"]:
            with subtests.test(f"{text} {name}"):
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


def test_a_forward_that_was_replaced_is_used(model_folder):
    picture, clip = Image.new("RGB", (60, 60), "red"), nib.load(model_folder)
    block = clip.model.vision_model.encoder.layers[-1]
    before = nib.attribute(clip, picture, "a cat").similarity
    block.forward = lambda hidden_states, *args, **kwargs: hidden_states * 2 + 1
    assert nib.attribute(clip, picture, "a cat").similarity != before


def read_curves(found):
    return dict(vars(found)) if isinstance(found, RemovalCurves) else found


def test_metrics_run_on_the_model_at_rest(model_folder, pixel_values, tokens, subtests):
    for measure in [metrics.confidence, metrics.removal_curves, metrics.infidelity]:
        with subtests.test(measure.__name__):
            clip, pixels = nib.load(model_folder), pixel_values.float()  # autocast leaves float64 alone
            for block in (*clip.image.blocks, *clip.text.blocks):
                block.self_attn.dropout = 0.5
            scores = nib.METHODS["random"](clip, pixels, **tokens)
            expected = read_curves(measure(clip, pixels, **tokens, scores=scores))
            clip.model.train()
            found = read_curves(measure(clip, pixels, **tokens, scores=scores))
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
            clip.model.eval()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = read_curves(measure(clip, pixels, **tokens, scores=scores))
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_metrics_leave_no_graph(clip, pixel_values, tokens, subtests):
    for measure in [metrics.confidence, metrics.removal_curves]:
        with subtests.test(measure.__name__):
            scores = nib.METHODS["random"](clip, pixel_values, **tokens)
            found = read_curves(measure(clip, pixel_values.clone().requires_grad_(), **tokens, scores=scores))
            assert not any(isinstance(value, torch.Tensor) and value.requires_grad for value in found.values())


def test_token_ids_begin_with_the_begin_token(clip):
    ids = torch.tensor(clip.tokenizer("a cat")["input_ids"])
    nib.attribute(clip, Image.new("RGB", (60, 60)), ids, "random")
    with pytest.raises(ValueError, match="token ids must begin with the begin token"):
        nib.attribute(clip, Image.new("RGB", (60, 60)), ids[1:], "random")


def test_interactions_warn_of_a_node_at_zero(clip):
    with pytest.warns(UserWarning, match="riemann_left has a node at lambda = 0"):
        nib.interactions(clip, Image.new("RGB", (60, 60)), "a cat", quadrature="riemann_left", n_steps=2)


def test_numbers_of_two_kinds_stay_numbers(tmp_path):
    nib.save_table(pd.DataFrame({"a": pd.Series([1.5, np.float64(2.5)], dtype=object)}), tmp_path / "t.parquet")
    assert pd.read_parquet(tmp_path / "t.parquet")["a"].tolist() == [1.5, 2.5]


def test_a_file_of_ids_with_a_comma_too_many(tmp_path):
    (tmp_path / "ids.csv").write_text("id,text\nscenes_0000,cat, on grass\n")
    with pytest.raises(ValueError, match=r"row 'scenes_0000' of .* has more fields than the header"):
        nib.datasets.load("scenes", ids=str(tmp_path / "ids.csv"))
    with pytest.raises(TypeError, match="ids must be a list of ids or a file of them, got set"):
        nib.datasets.load("scenes", ids={"scenes_0000"})


def test_a_mask_that_hides_pixels(clip):
    mask = np.ma.array(np.ones((9, 9), np.uint8), mask=np.eye(9))
    pair = {"id": "a", "image": Image.new("RGB", (9, 9)), "text": "a cat", "masks": mask}
    with pytest.raises(ValueError, match="masks of pair 'a' must not be a masked array"):
        nib.evaluate(clip, [pair], "random", metrics=["localisation"], progress=False)
