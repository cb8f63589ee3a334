"""A table is what a plain loop over pairs measures; shards and parts change nothing; what is wrong is said first."""

import functools
import warnings
from inspect import signature

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_config, randomise
from pandas.testing import assert_frame_equal
from PIL import Image
from transformers import CLIPModel

import nib
from nib.evaluation import attribute_text_to_batch, evaluate
from nib.inputs import to_pixel_values, to_tokens
from nib.metrics import (
    METRICS,
    Case,
    Metric,
    Value,
    auc,
    average_precision,
    confidence,
    energy_inside,
    iou_at_mean,
    pointing_game,
    selectivity,
)

TEXTS = ["a cat", "a dog next to a dog on the grass", "a hippopotamus", "snow", "two birds over the sea"]
NIB, M2IB = {"method": "nib", "layer": 2, "n_steps": 3}, {"method": "m2ib", "layer": 3, "n_steps": 2, "n_noise": 2}
BOTH = ["paper", "released"]
CHEAP = ["confidence", "localisation", "completeness"]
LOCALISATION = (pointing_game, auc, energy_inside, average_precision, iou_at_mean)
quiet = functools.partial(evaluate, progress=False)


def make_model(seed=0):
    return randomise(CLIPModel(make_config()), seed).double()


@pytest.fixture(scope="module")
def clip(tokenizer, image_processor):
    return nib.HookedCLIP(make_model(), tokenizer, image_processor)


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    rows = []
    for index, text in enumerate(TEXTS):
        image = Image.fromarray(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8))
        mask = np.zeros((60, 60), np.uint8)
        mask[2 * index : 2 * index + 24, 6 : 20 + 8 * index] = index + 1
        rows.append({"id": f"pair-{index}", "image": image, "text": text, "masks": mask})
    return rows


@pytest.fixture
def calls(monkeypatch):
    """Count the calls of each method."""
    counts = dict.fromkeys(nib.METHODS, 0)

    def count(name, function):
        @functools.wraps(function)
        def counting(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        return counting

    monkeypatch.setattr("nib.evaluation.work._read_own", lambda method: "")  # counters change no number
    for name, function in nib.METHODS.items():
        monkeypatch.setitem(nib.METHODS, name, count(name, function))
    return counts


def prepare(clip, rows):
    input_ids, attention_mask, _ = to_tokens(clip, [row["text"] for row in rows])
    return torch.cat([to_pixel_values(clip, row["image"]) for row in rows]), input_ids, attention_mask


def to_table(ids, values, **columns):
    frames = [pd.DataFrame({"id": ids, "metric": name, "value": number}) for name, number in values.items()]
    return pd.concat(frames).assign(**columns)


def assert_same_values(frame, expected, by=("method", "protocol", "metric", "id")):
    frame, expected = (each.sort_values(list(by)).reset_index(drop=True) for each in (frame, expected))
    for name in by:
        assert frame[name].tolist() == expected[name].tolist()
    np.testing.assert_allclose(frame["value"], expected["value"], rtol=1e-8, atol=1e-8)


def in_order(frame):
    names = [name for name in frame.columns if name != "value"]
    return frame.sort_values(names).reset_index(drop=True)


def test_equals_a_plain_loop_over_pairs(clip, pairs):
    frame = quiet(clip, pairs, [NIB, M2IB, "saliency"], batch_size=2)
    tables = []
    for setting in (NIB, M2IB, {"method": "saliency"}):
        parameters = {name: value for name, value in setting.items() if name != "method"}
        for row in pairs:
            arguments = prepare(clip, [row])
            scores = nib.METHODS[setting["method"]](clip, *arguments, **parameters)
            values = confidence(clip, *arguments, scores)
            tables.append(to_table([row["id"]], values, method=setting["method"], protocol="paper"))
    assert_same_values(frame, pd.concat(tables))
    assert frame["value"].nunique() > 10


def test_released_protocol_looks_at_the_batch(clip, pairs):
    frame = quiet(clip, pairs, [NIB], "released", batch_size=2)
    parameters = {"layer": 2, "n_steps": 3}
    tables = []
    for start in (0, 2, 4):
        rows = pairs[start : start + 2]
        arguments = prepare(clip, rows)
        scores = nib.METHODS["nib"](clip, *arguments, **parameters)
        scores.text = attribute_text_to_batch(clip, *arguments, **parameters)
        values = confidence(clip, *arguments, scores, "released")
        tables.append(to_table([row["id"] for row in rows], values, method="nib", protocol="released"))
    assert_same_values(frame, pd.concat(tables))
    whole = quiet(clip, pairs, [NIB], "released", batch_size=5)
    text = frame["metric"] == "text_drop"
    assert not np.allclose(in_order(frame[text])["value"], in_order(whole[whole["metric"] == "text_drop"])["value"])


def parameters_of(method):
    """The smallest parameters at which a method runs on the tiny model."""
    small = {"layer": 2, "n_steps": 2, "n_masks": 4, "text_masks": 3, "n_noise": 2}
    return {name: value for name, value in small.items() if name in signature(nib.METHODS[method]).parameters}


def test_all_but_nib_explain_a_text_against_its_own_picture(clip, pairs, subtests):
    protocols = ["released", "released_own"]
    arguments = prepare(clip, pairs)
    ids = [row["id"] for row in pairs]
    for method in sorted(nib.METHODS):
        with subtests.test(method):
            parameters = parameters_of(method)
            frame = quiet(clip, pairs, [{"method": method, **parameters}], protocols)
            scores = nib.METHODS[method](clip, *arguments, **parameters)
            values = confidence(clip, *arguments, scores, "released")
            own = [to_table(ids, values, method=method, protocol=protocol) for protocol in protocols]
            if method == "nib":
                assert_same_values(frame[frame["protocol"] == "released_own"], own[1])
                text = (frame["metric"] == "text_drop") & (frame["protocol"] == "released")
                assert not np.allclose(frame[text]["value"], values["text_drop"])
            else:
                assert_same_values(frame, pd.concat(own))


def test_both_protocols_share_what_they_do_not_touch(clip, pairs):
    both = quiet(clip, pairs, [NIB], BOTH, batch_size=2, metrics=CHEAP)
    for protocol in BOTH:
        single = quiet(clip, pairs, [NIB], protocol, batch_size=2, metrics=CHEAP)
        assert_same_values(both[both["protocol"] == protocol], single)
    paper, released = (in_order(both[both["protocol"] == protocol]) for protocol in BOTH)
    of_text = paper["metric"].str.startswith("text")
    assert_frame_equal(paper[~of_text].drop(columns="protocol"), released[~of_text].drop(columns="protocol"))
    assert not np.allclose(paper[of_text]["value"], released[of_text]["value"], equal_nan=True)


def test_localisation_is_what_the_metric_functions_say(clip, pairs):
    masks = torch.from_numpy(np.stack([row["masks"] for row in pairs]) > 0)
    others = masks.roll(13, 1) & ~masks
    others[0] = False
    rows = [row | {"other_masks": other.numpy()} for row, other in zip(pairs, others)]
    del rows[0]["other_masks"]  # then there are none
    frame = quiet(clip, rows, [NIB, "center"], metrics=["localisation"], batch_size=2)
    tables = []
    for method, parameters in (("nib", {"layer": 2, "n_steps": 3}), ("center", {})):
        image = nib.METHODS[method](clip, *prepare(clip, pairs), **parameters).image
        values = {function.__name__: function(image, masks) for function in LOCALISATION}
        values["selectivity"] = selectivity(image, masks, others)
        tables.append(to_table([row["id"] for row in pairs], values, method=method, protocol="paper"))
    assert_same_values(frame, pd.concat(tables))


def test_maps_at_pixels_are_what_is_measured(clip, pairs):
    parameters = {"n_masks": 8, "text_masks": 3, "p": 0.5}
    frame = quiet(clip, pairs, [{"method": "rise", **parameters}], metrics=["confidence", "localisation"])
    arguments = prepare(clip, pairs)
    scores = nib.METHODS["rise"](clip, *arguments, **parameters)
    assert scores.image_pixels.shape == (5, 60, 60)
    masks = torch.from_numpy(np.stack([row["masks"] for row in pairs]) > 0)
    for image, equal in ((scores.image_pixels, True), (scores.image, False)):
        seen = nib.Scores(image, scores.text, scores.similarity)
        values = {"auc": auc(image, masks), "image_drop": confidence(clip, *arguments, seen)["image_drop"]}
        for name, numbers in values.items():
            assert np.allclose(frame[frame["metric"] == name]["value"], numbers, rtol=1e-8, atol=1e-8) == equal


def test_parts_of_other_masks_beside_are_not_read(clip, pairs, tmp_path):
    options = dict(methods=["center"], metrics=["localisation"], output=tmp_path)
    first = quiet(clip, pairs[:2], **options)
    rows = [row | {"other_masks": row["masks"] == 0} for row in pairs[:2]]
    assert not quiet(clip, rows, **options).equals(first)


def test_completeness_is_what_the_method_says(clip, pairs):
    path = {"layer": 2, "preset": "truncated", "n_steps": (3, 2)}
    frame = quiet(clip, pairs, [{"method": "nib", **path}, "center"], metrics=["completeness"])
    assert set(frame["method"]) == {"nib"}  # a control has no sum
    assert set(frame["preset"]) == {"truncated"}
    assert set(frame["n_steps"]) == {(3, 2)}
    results = nib.attribute(clip, [row["image"] for row in pairs], [row["text"] for row in pairs], **path)
    for side in ("image", "text"):
        for name in ("difference", "gap", "gap_from_zero"):
            values = frame[frame["metric"] == f"{side}_{name}"]["value"]
            np.testing.assert_allclose(values, [getattr(getattr(one, side), name) for one in results], atol=1e-10)


def test_columns_and_order(clip, pairs):
    rise = {"method": "rise", "n_masks": 4, "text_masks": 3, "p": 0.5}
    frame = quiet(clip, pairs, ["none", NIB, rise, NIB | {"layer": 0}], BOTH, batch_size=2, metrics=CHEAP)
    parameters = ["layer", "n_steps", "n_masks", "text_masks", "p"]
    assert list(frame) == ["id", "method", *parameters, "protocol", "metric", "value"]
    assert frame["value"].dtype == np.float64
    for_all, sums = (
        {*METRICS["confidence"].values, *METRICS["localisation"].values},
        set(METRICS["completeness"].values),
    )
    assert len(sums) == 6
    assert set(frame["metric"]) == for_all | sums
    assert len(frame) == 4 * 5 * 2 * len(for_all) + 2 * 5 * 2 * len(sums)  # two settings have sums
    assert frame.index.tolist() == list(range(len(frame)))
    named = frame[["method", "layer"]].fillna(-1).drop_duplicates().to_numpy().tolist()
    assert named == [["none", -1], ["nib", 2], ["rise", -1], ["nib", 0]]  # as they were asked for
    for _, group in frame.groupby(["method", "layer", "protocol", "metric"], dropna=False):
        assert group["id"].tolist() == [row["id"] for row in pairs]
    assert frame[frame["method"] == "rise"][parameters].drop_duplicates().fillna(-1).to_numpy().tolist() == [
        [-1, -1, 4, 3, 0.5]
    ]
    assert frame.attrs["skipped"] == []


def test_a_map_that_masks_nothing_drops_nothing(clip, pairs):
    frame = quiet(clip, pairs, ["none"], BOTH)
    constant = frame["metric"].isin(["constant_map", "text_constant_map"])
    assert not frame[~constant]["value"].fillna(0).any()
    of_pictures = frame[frame["metric"] == "constant_map"]
    assert of_pictures.groupby("protocol")["value"].sum().to_dict() == {"paper": 5, "released": 5}


def test_a_map_that_relu_leaves_empty_masks_nothing_or_all(clip, pairs, monkeypatch):
    def empty(clip, *arguments):
        scores = nib.METHODS["none"](clip, *arguments)
        scores.image[1] = 0
        return scores

    monkeypatch.setitem(nib.METHODS, "gradcam", empty)
    frame = quiet(clip, pairs, ["gradcam"], ["paper", "released", "released_own"])
    values = frame.pivot(index=["protocol", "id"], columns="metric", values="value")
    assert not values.loc["paper", "dark_share"].any()
    for protocol in ("released", "released_own"):
        assert values.loc[protocol, "dark_share"].tolist() == [0, 1, 0, 0, 0]
        black = clip.image.embed(torch.zeros_like(prepare(clip, pairs)[0]))
        scores = nib.METHODS["none"](clip, *prepare(clip, pairs)).similarity
        after = torch.cosine_similarity(black, clip.text.embed(*prepare(clip, pairs)[1:]))
        expected = 100 * (scores - after).clamp(min=0)[1].item()
        assert values.loc[protocol, "image_drop"].tolist() == pytest.approx([0, expected, 0, 0, 0], abs=1e-9)


def test_true_mask_is_a_control_where_masks_are_known(clip, pairs):
    frame = quiet(clip, pairs, ["true_mask", "none"], BOTH, metrics=["confidence", "localisation"])
    masks = torch.from_numpy(np.stack([row["masks"] for row in pairs]) > 0)
    arguments = prepare(clip, pairs)
    scores = nib.METHODS["none"](clip, *arguments)
    scores.image_pixels = masks.double()
    found = frame[(frame["method"] == "true_mask") & (frame["protocol"] == "paper")]
    assert (found[found["metric"] == "auc"]["value"] == 1).all()
    expected = confidence(clip, *arguments, scores, sides=("image",))
    for name, numbers in expected.items():
        np.testing.assert_allclose(found[found["metric"] == name]["value"], numbers, atol=1e-8)
    assert not found["metric"].str.startswith("text").any()  # it says nothing of the text


def test_pairs_may_be_a_data_set_with_masks_as_pictures_and_numbers_as_ids(clip, pairs):
    rows = [row | {"masks": Image.fromarray(row["masks"])} for row in pairs]
    data = datasets.Dataset.from_list(rows)
    assert_frame_equal(quiet(clip, data, [NIB], BOTH, metrics=CHEAP), quiet(clip, pairs, [NIB], BOTH, metrics=CHEAP))

    pictures = [row | {"masks": Image.fromarray(row["masks"])} for row in pairs]
    first, second = (quiet(clip, rows, ["center"], metrics=["localisation"]) for rows in (pairs, pictures))
    assert_frame_equal(first, second)

    frame = quiet(clip, [row | {"id": index} for index, row in enumerate(pairs)], ["none"])
    assert frame["id"][:5].tolist() == ["0", "1", "2", "3", "4"]


def test_shards_make_the_whole(clip, pairs, subtests):
    options = dict(methods=[NIB, "random", {"method": "chefer", "start_layer": 2}], protocol=BOTH, batch_size=2)
    whole = quiet(clip, pairs, **options)
    for rows in ([3, 2], [2, 2, 1], [2, 2, 1, 0, 0]):
        with subtests.test(str(rows)):
            shards = [quiet(clip, pairs, **options, shard=(index, len(rows))) for index in range(len(rows))]
            assert [shard["id"].nunique() for shard in shards] == rows
            assert_frame_equal(in_order(pd.concat(shards)), in_order(whole), check_exact=True)
            # Without a batch there are no rows, but the columns and their types.
            assert_frame_equal(shards[-1].iloc[:0], whole.iloc[:0])


def test_parts_of_shards_serve_the_whole(clip, pairs, tmp_path, calls):
    options = dict(methods=[NIB], protocol=BOTH, batch_size=2)
    whole = quiet(clip, pairs, **options)
    for index in (1, 0):
        quiet(clip, pairs, **options, shard=(index, 2), output=tmp_path)
    calls["nib"] = 0
    assert_frame_equal(quiet(clip, pairs, **options, output=tmp_path), whole, check_exact=True)
    assert calls["nib"] == 0


def test_parts_are_not_computed_again(clip, pairs, tmp_path, calls, tokenizer, image_processor):
    options = dict(methods=[NIB, "none"], protocol=BOTH, metrics=CHEAP, batch_size=2, output=tmp_path / "a" / "b")
    first = quiet(clip, pairs, **options)
    assert (calls["nib"], calls["none"]) == (6, 3)  # three batches, and NIB's text once more
    assert_frame_equal(quiet(clip, pairs, **options), first, check_exact=True)
    loaded_again = nib.HookedCLIP(make_model(), tokenizer, image_processor)
    assert_frame_equal(quiet(loaded_again, pairs, **options), first, check_exact=True)
    assert (calls["nib"], calls["none"]) == (6, 3)
    assert_frame_equal(quiet(clip, pairs, **options | {"output": None}), first, check_exact=True)


def test_only_what_is_missing_is_computed(clip, pairs, tmp_path, calls):
    options = dict(batch_size=2, output=tmp_path)
    first = quiet(clip, pairs, [NIB, "none"], **options)
    assert calls["nib"] == calls["none"] == 3
    assert len(list(tmp_path.iterdir())) == 6
    next(tmp_path.glob("nib-*.parquet")).unlink()
    assert_frame_equal(quiet(clip, pairs, [NIB, "none"], **options), first, check_exact=True)
    assert (calls["nib"], calls["none"]) == (4, 3)
    more = quiet(clip, pairs, ["saliency", "none", NIB], **options)
    assert (calls["saliency"], calls["nib"], calls["none"]) == (3, 4, 3)
    assert more["method"].unique().tolist() == ["saliency", "none", "nib"]


def test_an_interrupted_run_goes_on(clip, pairs, tmp_path, calls, monkeypatch):
    options = dict(methods=["none", NIB], batch_size=2)
    whole = quiet(clip, pairs, **options)
    calls.update(nib=0, none=0)
    counted = nib.METHODS["nib"]

    @functools.wraps(counted)
    def stop(*args, **kwargs):
        if calls["nib"] == 2:
            raise KeyboardInterrupt
        return counted(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setitem(nib.METHODS, "nib", stop)
        with pytest.raises(KeyboardInterrupt):
            quiet(clip, pairs, **options, output=tmp_path)
    assert (calls["nib"], calls["none"]) == (2, 3)
    assert_frame_equal(quiet(clip, pairs, **options, output=tmp_path), whole, check_exact=True)
    assert (calls["nib"], calls["none"]) == (3, 3)


def other_picture(row):
    pixels = np.array(row["image"])
    pixels[30, 30, 0] ^= 1
    return row | {"image": Image.fromarray(pixels)}


CHANGED = {
    "parameter": dict(methods=[NIB | {"n_steps": 4}]),
    "protocol": dict(protocol="released"),
    "metric": dict(metrics=["localisation"]),
    "picture": dict(change=other_picture),
    "text": dict(change=lambda row: row | {"text": row["text"] + " today"}),
    "id": dict(change=lambda row: row | {"id": row["id"] + "x"}),
    "batch": dict(batch_size=5),
}


def test_parts_of_other_work_are_not_read(clip, pairs, tmp_path, subtests):
    for number, change in enumerate(CHANGED):
        folder = tmp_path / str(number)
        folder.mkdir()
        with subtests.test(change):
            options = dict(methods=[NIB], metrics=CHEAP, output=folder)
            first = quiet(clip, pairs[:2], **options)
            changes = dict(CHANGED[change])
            rows = [changes.pop("change", dict)(row) for row in pairs[: changes.get("batch_size", 2)]]
            options |= changes
            found = quiet(clip, rows, **options)
            assert_frame_equal(found, quiet(clip, rows, **options | {"output": None}), check_exact=True)
            assert not found.equals(first)
            assert len(list(folder.iterdir())) == 2


def test_parts_of_other_masks_are_not_read(clip, pairs, tmp_path):
    options = dict(methods=["center"], metrics=["localisation"], output=tmp_path)
    first = quiet(clip, pairs[:2], **options)
    rows = [row | {"masks": np.roll(row["masks"], 5, 0)} for row in pairs[:2]]
    assert not quiet(clip, rows, **options).equals(first)


def test_parts_of_another_model_are_not_read(clip, pairs, tmp_path, tokenizer, image_processor):
    first = quiet(clip, pairs, [NIB], output=tmp_path)
    model = make_model()
    model.visual_projection.weight.data[0, 0] += 1e-3
    other = nib.HookedCLIP(model, tokenizer, image_processor)
    found = quiet(other, pairs, [NIB], output=tmp_path)
    assert not found.equals(first)
    assert_frame_equal(found, quiet(other, pairs, [NIB]), check_exact=True)
    in_float32 = nib.HookedCLIP(make_model().float(), tokenizer, image_processor)
    assert_frame_equal(quiet(in_float32, pairs, [NIB], output=tmp_path), quiet(in_float32, pairs, [NIB]))
    assert len(list(tmp_path.iterdir())) == 3


def test_parts_of_other_code_are_not_read(clip, pairs, tmp_path, calls, monkeypatch):
    (tmp_path / "nib").mkdir()
    source = tmp_path / "nib" / "__init__.py"
    monkeypatch.setattr(nib, "__file__", str(source))
    for code, expected in (("first", 1), ("first", 1), ("second", 2)):
        source.write_text(code)
        quiet(clip, pairs, ["none"], output=tmp_path / "parts")
        assert calls["none"] == expected


def test_files_that_are_no_parts_are_not_read(clip, pairs, tmp_path):
    options = dict(methods=[NIB], batch_size=2, output=tmp_path)
    first = quiet(clip, pairs, **options)
    names = [path.name for path in tmp_path.iterdir()]
    for path in tmp_path.iterdir():
        path.unlink()
    for name in names:  # what a killed run leaves
        (tmp_path / f".{name}.0123").write_bytes(b"PAR1")
    assert_frame_equal(quiet(clip, pairs, **options), first, check_exact=True)


@pytest.fixture
def broken_files(pairs, tmp_path):
    """A file that is no picture, one that is cut off, and one that is missing."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    pairs[0]["image"].save(folder / "whole.jpg")
    whole = (folder / "whole.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("not found")
    return [folder / "text.jpg", folder / "cut.jpg", folder / "missing.jpg"]


def test_pictures_that_cannot_be_read_are_left_out_and_named(clip, pairs, tmp_path, broken_files):
    rows = [dict(row) for row in pairs]
    for index, path in zip((0, 1, 3), broken_files):  # the whole first batch, and one of the second
        rows[index]["image"] = str(path)
    for output in (None, tmp_path / "parts", tmp_path / "parts"):
        with pytest.warns(UserWarning, match=r"3 pairs were skipped, among them pair-0 \(cannot read"):
            frame = quiet(clip, rows, [NIB, "none"], BOTH, batch_size=2, output=output, metrics=CHEAP)
        assert [entry["id"] for entry in frame.attrs["skipped"]] == ["pair-0", "pair-1", "pair-3"]
        assert "missing.jpg" in frame.attrs["skipped"][2]["reason"]
        assert all(entry["reason"] for entry in frame.attrs["skipped"])
        expected = [quiet(clip, [pairs[index]], [NIB, "none"], BOTH, metrics=CHEAP) for index in (2, 4)]
        assert_same_values(frame, pd.concat(expected))  # alone in their batches, as here


def test_a_data_set_with_pictures_that_cannot_be_read(clip, pairs, broken_files):
    features = datasets.Features(id=datasets.Value("int64"), image=datasets.Image(), text=datasets.Value("string"))
    files = [broken_files[0].with_name("whole.jpg"), *broken_files[:2]]
    images = [{"bytes": path.read_bytes(), "path": None} for path in files]
    data = datasets.Dataset.from_dict(dict(id=[7, 8, 9], image=images, text=TEXTS[:3]), features)
    with pytest.warns(UserWarning, match="2 pairs were skipped, among them 8"):
        frame = quiet(clip, data, ["none"])
    assert frame["id"].unique().tolist() == ["7"]
    assert [entry["id"] for entry in frame.attrs["skipped"]] == ["8", "9"]


def test_no_picture_can_be_read(clip, pairs, broken_files, tmp_path, calls):
    rows = [row | {"image": broken_files[index % 3]} for index, row in enumerate(pairs)]
    with pytest.warns(UserWarning, match="5 pairs were skipped"):
        frame = quiet(clip, rows, [NIB, "none"], batch_size=2, output=tmp_path / "parts")
    assert len(frame) == 0
    assert list(frame) == ["id", "method", "layer", "n_steps", "protocol", "metric", "value"]
    assert frame["value"].dtype == np.float64
    assert calls["nib"] == 0
    assert len(frame.attrs["skipped"]) == 5


def test_what_the_data_set_left_out_is_named_too(clip, pairs):
    class Rows(list):
        skipped = ({"id": "gone", "reason": "cut off"},)

    with pytest.warns(UserWarning, match=r"1 pairs were skipped, among them gone \(cut off\)"):
        frame = quiet(clip, Rows(pairs), ["none"])
    assert frame.attrs["skipped"] == [{"id": "gone", "reason": "cut off"}]
    assert frame["id"].nunique() == 5


def without(name):
    return lambda pairs: [{key: value for key, value in row.items() if key != name} for row in pairs]


def last(**entries):
    return lambda pairs: [*pairs[:-1], pairs[-1] | entries]


WRONG = {
    "unknown method": (dict(methods=["grad"]), KeyError, "method must be one of"),
    "no method": (dict(methods=[]), ValueError, "methods must be at least one"),
    "no masks to take": (
        dict(pairs=without("masks"), methods=["true_mask"]),
        ValueError,
        "localisation and true_mask need masks",
    ),
    "a parameter of a mask": (
        dict(methods=[{"method": "true_mask", "layer": 2}]),
        TypeError,
        "true_mask has no parameter",
    ),
    "a setting without one": (dict(methods=[{"layer": 2}]), ValueError, "a setting must name its method"),
    "parameter": (dict(methods=[{"method": "nib", "beta": 1}]), TypeError, "nib has no parameter beta"),
    "second parameter": (dict(methods=[NIB, {"method": "none", "layer": 1}]), TypeError, "none has no parameter layer"),
    "layer": (dict(methods=[{"method": "nib", "layer": 5}]), ValueError, "layer must be a whole number from 0 to 4"),
    "protocol": (
        dict(protocol="author"),
        ValueError,
        r"protocol must be some of \['paper', 'released', 'released_own'\]",
    ),
    "no protocol": (dict(protocol=[]), ValueError, "protocol must be some of"),
    "protocol twice": (dict(protocol=["paper", "paper"]), ValueError, "protocol must be some of"),
    "metric": (
        dict(metrics=["auc"]),
        ValueError,
        r"metrics must be some of \['localisation', 'completeness', .*\]",
    ),
    "metrics as a word": (dict(metrics="confidence"), ValueError, "metrics must be some of"),
    "batch_size": (dict(batch_size=0), ValueError, "batch_size must be a whole number of at least 1, got 0"),
    "no pairs": (dict(pairs=lambda pairs: []), ValueError, "pairs must be at least one"),
    "an id twice": (dict(pairs=last(id="pair-0")), ValueError, "each with an id of its own, got 5 pairs"),
    "no id": (dict(pairs=without("id")), ValueError, "columns id, image and text, got image, masks, text"),
    "no text": (dict(pairs=without("text")), ValueError, "columns id, image and text, got id, image, masks"),
    "no image": (dict(pairs=without("image")), ValueError, "columns id, image and text, got id, masks, text"),
    "an empty caption": (dict(pairs=last(text=" ")), ValueError, "a caption must hold at least one word"),
    "a long caption": (dict(pairs=last(text="a dog " * 20)), ValueError, "the model's context is 32"),
    "no masks": (dict(pairs=without("masks"), metrics=CHEAP), ValueError, "localisation and true_mask need masks"),
    **{
        f"shard {shard}": (dict(shard=shard), ValueError, r"shard must be \(i, n\) with 0 <= i < n, got")
        for shard in [(2, 2), (-1, 2), (0, 0), (0,), (0, 1, 2), (0.0, 2), (False, 2)]
    },
}


def test_errors_come_before_any_work(clip, pairs, tmp_path, calls, subtests):
    for number, case in enumerate(WRONG):
        folder = tmp_path / str(number)
        folder.mkdir()
        with subtests.test(case):
            options, error, message = WRONG[case]
            options = dict(methods=[NIB], batch_size=2, pairs=list) | options
            rows = options.pop("pairs")(pairs)
            with pytest.raises(error, match=message):
                quiet(clip, rows, **options, output=folder)
            assert not any(calls.values())
            assert not list(folder.iterdir())


def test_a_data_set_without_the_columns(clip):
    data = datasets.Dataset.from_dict({"image": [1], "caption": ["a"]})
    with pytest.raises(ValueError, match="columns id, image and text, got caption, image"):
        quiet(clip, data, ["none"])


def test_a_model_without_an_image_processor_is_no_reason_to_skip_pictures(clip, pairs, tokenizer):
    bare = nib.HookedCLIP(clip.model, tokenizer)
    with pytest.raises(ValueError, match="this model came without an image processor"):
        quiet(bare, pairs, ["none"])
    rows = [row | {"image": to_pixel_values(clip, row["image"])[0]} for row in pairs]
    assert_frame_equal(quiet(bare, rows, [NIB]), quiet(clip, pairs, [NIB]))


def test_pictures_of_unlike_sizes_do_not_go_together(clip, pairs):
    rows = [row | {"image": torch.zeros(3, 60, 60 + 12 * index)} for index, row in enumerate(pairs)]
    with pytest.raises(ValueError, match="pixel values of one batch must have one shape"):
        quiet(clip, rows, ["none"], batch_size=2)
    assert quiet(clip, rows, ["none"], batch_size=1)["id"].nunique() == 5


def test_long_captions_may_be_cut(clip, pairs):
    rows = [*pairs[:1], pairs[1] | {"text": "a dog " * 20}]
    with pytest.warns(UserWarning, match="its end is cut off"):
        frame = quiet(clip, rows, ["none"], truncate=True)
    assert frame["id"].nunique() == 2


def test_says_nothing_where_nothing_is_wrong(clip, pairs, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(clip, pairs, [NIB, "random"], BOTH, metrics=CHEAP, output=tmp_path)
    assert capsys.readouterr() == ("", "")


def test_leaves_the_model_as_it_was(clip, pairs):
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    quiet(clip, pairs, [NIB, M2IB, "chefer"], BOTH)
    assert all(torch.equal(value, before[name]) for name, value in clip.model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in clip.model.modules())
    assert not any(p.requires_grad or p.grad is not None for p in clip.model.parameters())


def count_positive(case: Case) -> dict[str, torch.Tensor]:
    return {"positive": (case.scores.image > 0).double().mean((1, 2))}


def test_a_metric_of_ones_own(clip, pairs, tmp_path, monkeypatch):
    monkeypatch.setitem(METRICS, "positive", Metric({"positive": Value(True, "share")}, count_positive))
    first = quiet(clip, pairs, [NIB, "true_mask"], metrics=["positive", "localisation"], output=tmp_path)
    mine = first[(first["metric"] == "positive") & (first["method"] == "nib")]["value"]
    results = nib.attribute(clip, [row["image"] for row in pairs], [row["text"] for row in pairs], layer=2, n_steps=3)
    np.testing.assert_allclose(mine, [(result.image_scores > 0).mean() for result in results])
    # its code belongs to what a part depends on, so that code which cannot be read is refused
    monkeypatch.setitem(METRICS, "positive", Metric({"positive": Value(True)}, lambda case: {"positive": mine}))
    with pytest.raises(ValueError, match=r"at the top of a file does not define, .* got positive"):
        quiet(clip, pairs, [NIB], metrics=["positive"], output=tmp_path)


def test_what_a_metric_must_give_and_may_need(clip, pairs, monkeypatch, subtests):
    for found in ({"other": torch.ones(5)}, {"positive": torch.ones(1)}, {"positive": [1.0] * 5}):
        with subtests.test(str(found)), monkeypatch.context() as patch:
            patch.setitem(METRICS, "positive", Metric({"positive": Value(True)}, lambda case, found=found: found))
            with pytest.raises(ValueError, match=r"must give tensors \(5,\) named \['positive'\]"):
                quiet(clip, pairs, [NIB], metrics=["positive"])

    with pytest.raises(ValueError, match=r"needs must be one of .* got 'mask'"):
        Metric({"positive": Value(True)}, count_positive, needs="mask")
