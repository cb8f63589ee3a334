"""Bad pairs, masks, tables, files and figures are refused by name, and what is kept of another model is not read."""

import os
import warnings
from pathlib import Path

import datasets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CAPTIONS, make_config
from PIL import Image
from transformers import CLIPModel

import nib
from benchmarks.families import randomise
from nib import metrics
from runs.__main__ import main
from runs.plan import read_grid, read_profile

PICTURE = Image.new("RGB", (60, 60), "red")
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def pairs():
    """Two pairs with masks of the pictures' own sizes, which are not square."""
    rng = np.random.default_rng(0)
    rows = []
    for number, (height, width) in enumerate([(60, 120), (120, 60)]):
        mask = np.zeros((height, width), np.uint8)
        mask[height // 3 : height // 2, width // 4 : width // 2] = 1
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        rows.append({"id": str(number), "image": image, "text": CAPTIONS[number], "masks": mask})
    return rows


def evaluate(clip, pairs, methods="random", **options):
    return nib.evaluate(clip, pairs, methods, progress=False, **options)


# ---- masks


def test_masks_are_cropped_as_their_pictures_are(clip, pairs, subtests):
    cropped = []
    for pair in pairs:
        width, height = pair["image"].size
        left, top = (width - 60) // 2, (height - 60) // 2
        image = pair["image"].crop((left, top, left + 60, top + 60))
        cropped.append(pair | {"image": image, "masks": pair["masks"][top : top + 60, left : left + 60]})
    for method in ("gradcam", "true_mask"):
        with subtests.test(method):
            options = dict(methods=method, metrics=["localisation", "confidence"])
            assert evaluate(clip, pairs, **options).equals(evaluate(clip, cropped, **options))


def test_masks_are_resized_as_their_pictures_are(clip, pairs):
    big = [
        pair | {"image": pair["image"].resize((3 * pair["image"].width, 3 * pair["image"].height), 0)}
        | {"masks": np.kron(pair["masks"], np.ones((3, 3), np.uint8))} for pair in pairs
    ]  # fmt: skip
    options = dict(methods="center", metrics=["localisation"])
    assert evaluate(clip, big, **options).equals(evaluate(clip, pairs, **options))


def test_masks_of_pixel_values_are_taken_as_they_are(clip, pairs):
    for pair in pairs:
        pair |= {"image": torch.zeros(3, 60, 72), "masks": torch.arange(60 * 72).view(60, 72) % 5 == 0}
    assert evaluate(clip, pairs, "center", metrics=["localisation"])["value"].notna().sum() == 10


SIZE = r"masks of pair '1' must be numbers of the size of its picture, \(120, 60\), got"
SEEN = "masks of pair '1' must have at least one pixel in what the model sees"
HIDDEN = np.ma.array(np.ones((120, 60), np.uint8), mask=np.eye(120, 60))
MASKS = {
    "turned": (np.ones((60, 120)), SIZE),
    "of another size": (np.ones((60, 60)), SIZE),
    "text": ("mask.png", SIZE),
    "texts": (np.full((120, 60), "1"), SIZE),
    "scalar": (1, SIZE),
    "ragged": ([[1, 0], [1]], f"{SIZE} list"),
    "colour": (np.ones((120, 60, 3)), SIZE),
    "complex": (np.ones((120, 60), complex), SIZE),
    "NaN": (np.full((120, 60), NAN), "masks of pair '1' must be finite"),
    "empty": (np.zeros((120, 60)), "masks of pair '1' must have at least one pixel"),
    "cut away": (np.arange(120)[:, None].repeat(60, 1) < 20, SEEN),
    "full": (np.ones((120, 60)), "masks of pair '1' must leave some background in what the model sees"),
    "hidden": (HIDDEN, "masks of pair '1' must not be a masked array"),
    "none": (None, "pair '1' has none"),
}


def test_masks_of_pairs_are_refused(clip, pairs, subtests):
    for case, (mask, message) in MASKS.items():
        with subtests.test(case), pytest.raises(ValueError, match=message):
            evaluate(clip, [pairs[0], pairs[1] | {"masks": mask}], metrics=["localisation"])
    with pytest.raises(ValueError, match="masks of pair '1' must not overlap other_masks"):
        evaluate(clip, [pairs[0], pairs[1] | {"other_masks": np.ones((120, 60))}], metrics=["localisation"])


# ---- what is kept


def test_parts_of_a_model_of_equal_weights_and_other_heads_are_not_read(pairs, tmp_path, tokenizer, image_processor):
    models = [randomise(CLIPModel(make_config())).double()]
    for change in ({"hidden_act": "gelu"}, {"num_attention_heads": 8}):
        other = CLIPModel(make_config(**change)).double()
        other.load_state_dict(models[0].state_dict())
        models.append(other)
    clips = [nib.HookedCLIP(model, tokenizer, image_processor) for model in models]
    kept = [evaluate(clip, pairs, "gradcam", output=tmp_path) for clip in clips]
    assert all(table.equals(evaluate(clip, pairs, "gradcam")) for clip, table in zip(clips, kept))
    assert len(list(tmp_path.glob("*.parquet"))) == 3


def test_sensitivity_does_not_depend_on_the_batch(clip, pairs):
    tables = [evaluate(clip, pairs, "saliency", metrics=["max_sensitivity"], batch_size=size) for size in (1, 2)]
    tables = [table.sort_values("id")["value"].to_numpy() for table in tables]
    np.testing.assert_allclose(*tables, rtol=1e-8)


# ---- metrics

MAPS, ON = torch.tensor([[[4.0, 3], [2, -1]]]), torch.tensor([[[True, False], [False, False]]])
LOCALISATION = [metrics.pointing_game, metrics.auc, metrics.energy_inside, metrics.average_precision]
LOCALISATION += [metrics.iou_at_mean, lambda maps, masks: metrics.selectivity(maps, masks, torch.tensor(masks) == 0)]


@pytest.mark.filterwarnings("ignore:To copy construct")
def test_masks_and_maps_of_other_kinds(subtests):
    for number, measure in enumerate(LOCALISATION):
        with subtests.test(f"{number} {measure.__name__}"):
            expected = measure(MAPS, ON)
            for masks in (ON.byte() * 255, ON.float(), ON.numpy(), ON.tolist(), ON.int()):
                assert torch.equal(measure(MAPS, masks), expected)
            for maps in (MAPS.numpy(), MAPS.tolist(), MAPS.clone().requires_grad_()):
                assert torch.equal(measure(maps, ON), expected)
            for masks in (ON / 0, -ON.float()):
                with pytest.raises(ValueError, match="masks must be boolean or numbers"):
                    measure(MAPS, masks)
            for maps, message in ((MAPS / 0, "scores must be finite"), (MAPS[:, :0], r"must be \(batch, \., \.\)")):
                with pytest.raises(ValueError, match=message):
                    measure(maps, ON)


# ---- tables


@pytest.fixture
def table():
    value = np.r_[np.linspace(0, 1, 6), np.linspace(1, 2, 6) ** 2]
    return pd.DataFrame({"id": [*"abcdef"] * 2, "method": ["x"] * 6 + ["y"] * 6, "metric": "m", "value": value})


def test_what_is_called_a_share_and_is_none_has_an_interval_round_its_mean(table, subtests):
    for values in ([50.0] * 6, [0.0, 50, 100] * 2, [0.0, 1, 1] * 2):
        with subtests.test(str(values)):
            shares = table.assign(metric="image_increase", value=values * 2)
            row = metrics.summarise(shares, ["method", "metric"]).iloc[0]
            assert row["low"] <= np.mean(values) <= row["high"]
            assert metrics.compare(shares, ["metric"], reference="x")["difference"].tolist() == [0]


def test_columns_are_named_alone_or_by_anything_in_order(table, subtests):
    by, alone = ["metric", "method"], ["metric"]
    means, differences = metrics.summarise(table, by), metrics.compare(table, alone, reference="x")
    assert metrics.compare(table, "metric", reference="x").equals(differences)
    assert metrics.summarise(table, "method").equals(metrics.summarise(table, ["method"]))
    for change in (np.array, pd.Index, pd.Series, tuple, iter):
        with subtests.test(change.__name__):
            assert metrics.summarise(table, change(by)).equals(means)
            assert metrics.compare(table, change(alone), reference="x").equals(differences)


# ---- pairs and settings


def as_generator(pairs):
    yield from pairs


def turn(pairs):
    return {name: [pair[name] for pair in pairs] for name in pairs[0]}


class Endless(torch.utils.data.Dataset):
    """As many write it: it knows its length, and never raises an IndexError."""

    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, number):
        return self.pairs[number % len(self.pairs)]


KINDS = {
    "table": pd.DataFrame,
    "columns": turn,
    "generator": as_generator,
    "tuple": tuple,
    "endless": Endless,
    "series": lambda pairs: pd.Series(pairs, index=[5, 1]),
}


def test_what_is_plainly_pairs_is_taken(clip, pairs, subtests):
    expected = evaluate(clip, pairs)
    for kind, make in KINDS.items():
        with subtests.test(kind):
            assert evaluate(clip, make(pairs)).equals(expected)


A_LIST = "pairs must be a data set, a table or a list of mappings"
NO_ID = r"every pair must have an id, got .* in row 1"
LISTS = "the columns of pairs must be lists of one length"
COLUMNS = "must have the columns id, image and text, got"
PAIRS = {
    "None": (lambda pairs: None, TypeError, f"{A_LIST}, got NoneType"),
    "a number": (lambda pairs: 5, TypeError, f"{A_LIST}, got int"),
    "text": (lambda pairs: "abc", TypeError, f"{A_LIST}, got a row 'a'"),
    "tuples": (lambda pairs: [tuple(pair.values()) for pair in pairs], TypeError, f"{A_LIST}, got a row"),
    "lists": (lambda pairs: [list(pair.values()) for pair in pairs], TypeError, f"{A_LIST}, got a row"),
    "no generator": (lambda pairs: as_generator([]), ValueError, "got 0 pairs"),
    "by number": (lambda pairs: dict(enumerate(pairs)), ValueError, COLUMNS),
    "other columns": (lambda pairs: pd.DataFrame({"a": [1]}), ValueError, COLUMNS),
    "columns of two lengths": (lambda pairs: {"id": [1], "text": ["a", "b"]}, ValueError, LISTS),
    "columns that are none": (lambda pairs: {"id": 1, "text": "a"}, ValueError, LISTS),
    "a text as a column": (lambda pairs: turn(pairs) | {"text": "ab"}, ValueError, LISTS),
    "a set as a column": (lambda pairs: turn(pairs) | {"text": {"a dog", "a cat"}}, ValueError, LISTS),
    "a mapping as a column": (
        lambda pairs: turn(pairs) | {"text": {"x": 1, "y": 2}},
        ValueError,
        LISTS,
    ),
    "no numbers": (
        lambda pairs: nib.datasets.load("scenes", limit=2).to_iterable_dataset(),
        TypeError,
        "pairs must be read by number, got IterableDataset",
    ),
    "id None": (lambda pairs: [pairs[0], pairs[1] | {"id": None}], ValueError, NO_ID),
    "id NaN": (lambda pairs: [pairs[0], pairs[1] | {"id": NAN}], ValueError, NO_ID),
    "id NA": (lambda pairs: [pairs[0], pairs[1] | {"id": pd.NA}], ValueError, NO_ID),
    "a surrogate": (lambda pairs: [pairs[0] | {"id": "\udc80"}], ValueError, "must be text that UTF-8 can hold"),
}


def test_pairs_are_refused(clip, pairs, subtests):
    for case, (make, error, message) in PAIRS.items():
        with subtests.test(case), pytest.raises(error, match=message):
            evaluate(clip, make(pairs))


OPTIONS = [
    *(("protocol", value, ValueError, "protocol must be some of") for value in (None, 5, [["paper"]], [])),
    *(("metrics", value, ValueError, "metrics must be some of") for value in (None, 5, [["confidence"]], "confidence")),
    *(("methods", value, TypeError, "methods must be names, or mappings") for value in (None, 5, [5], [["nib"]])),
    *(("shard", value, ValueError, "shard must be") for value in (None, 5, [[0], [1]], "01", iter((0, 1)))),
    *(("output", value, TypeError, "output must be a path, got") for value in (5, ["x"])),
    *(("output", value, ValueError, "output must be a path, got") for value in ("", "a\0b")),
]


def test_options_are_refused(clip, pairs, subtests):
    for name, value, error, message in OPTIONS:
        with subtests.test(f"{name}={value!r}"), pytest.raises(error, match=message):
            evaluate(clip, pairs, **{name: value})


def test_choices_may_be_generators(clip, pairs):
    found = evaluate(clip, pairs, metrics=(name for name in ["confidence"]), protocol=iter(["paper"]))
    assert found.equals(evaluate(clip, pairs))


def test_settings_of_numpy_and_torch_are_kept_by_their_numbers(clip, pairs, tmp_path):
    settings = [
        {"method": "nib", "layer": 2, "n_steps": np.int64(2), "lambda_min": np.float32(0.5)},
        {"method": "nib", "layer": 2, "n_steps": 2, "baseline": torch.zeros(1, 32)},
        {"method": "nib", "layer": 2, "n_steps": 2, "baseline": torch.ones(1, 32)},
    ]
    with pytest.raises(ValueError, match="methods must differ, got twice"):
        evaluate(clip, pairs, [settings[1], {**settings[1], "baseline": torch.zeros(1, 32)}])
    text = {**settings[0], "n_steps": 2, "lambda_min": 0.5}
    kept = evaluate(clip, pairs, settings[0], output=tmp_path)
    assert kept["value"].equals(evaluate(clip, pairs, text, output=tmp_path)["value"])
    assert len(list(tmp_path.glob("*.parquet"))) == 1


# ---- parts and files


CHANGES = {
    "half its rows": lambda part: part[: len(part) // 2],
    "no rows": lambda part: part[:0],
    "one metric less": lambda part: part[part["metric"] != "image_drop"],
    "text": lambda part: part.assign(value=part["value"].map(str)),
    "another order": lambda part: part[::-1],
    "another table": lambda part: pd.DataFrame({"a": [1]}),
    "no bytes": lambda part: b"",
    "half a file": lambda part: b"PAR1 half",
}


def test_a_part_that_was_changed_is_computed_again(clip, pairs, tmp_path, subtests):
    whole = evaluate(clip, pairs, output=tmp_path)
    (path,) = tmp_path.glob("*.parquet")
    content = path.read_bytes()
    for case, change in CHANGES.items():
        path.write_bytes(content)
        with subtests.test(case):
            changed = change(pd.read_parquet(path))
            if isinstance(changed, bytes):
                path.write_bytes(changed)
            else:
                changed.to_parquet(path, index=False)
            with pytest.warns(UserWarning, match="is no part of this evaluation and is computed again"):
                assert evaluate(clip, pairs, output=tmp_path).equals(whole)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert evaluate(clip, pairs, output=tmp_path).equals(whole)


@pytest.mark.filterwarnings("ignore:.*is no part of this evaluation")
def test_what_is_in_the_way_is_named(clip, pairs, tmp_path):
    evaluate(clip, pairs, output=tmp_path / "parts")
    (path,) = (tmp_path / "parts").glob("*.parquet")
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="path must name a file, got the folder"):
        evaluate(clip, pairs, output=tmp_path / "parts")
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="a file of that name is in the way"):
            evaluate(clip, pairs, output=output)


FRAME = pd.DataFrame({"a": [1, 2]})


def draw():
    return plt.figure()  # imported above: its first import writes a cache into the folder that is home at that time


WRITERS = {
    "table": (lambda path: nib.save_table(FRAME, path), ".csv"),
    "figure": (lambda path: nib.save_figure(draw(), FRAME, str(path).removesuffix(".png")), ".png"),
    "ids": (lambda path: nib.datasets.save_ids(nib.datasets.load("scenes", limit=2), path), ".csv"),
}


def test_files_are_whole_or_not_there(tmp_path_factory, monkeypatch, subtests):
    for kind, (write, ending) in WRITERS.items():
        folder = tmp_path_factory.mktemp("row")
        with subtests.test(kind), monkeypatch.context() as patch:
            patch.setenv("HOME", str(folder))
            write(f"~/in/a{ending}")
            assert (folder / "in" / f"a{ending}").is_file()
            write(folder / f"{'x' * 245}{ending}")
            (folder / f"folder{ending}").mkdir()
            with pytest.raises(ValueError, match="path must name a file, got the folder"):
                write(folder / f"folder{ending}")
            (folder / "file").write_text("")
            with pytest.raises(ValueError, match="a file of that name is in the way"):
                write(folder / "file" / f"a{ending}")
            assert not [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]


def test_what_cannot_be_written_is_named(tmp_path):
    for frame in (None, {"a": [1]}):
        with pytest.raises(TypeError, match=r"a table .DataFrame. is written, got"):
            nib.save_table(frame, tmp_path / "a.csv")
        with pytest.raises(TypeError, match="a Figure and a DataFrame are saved, got Figure"):
            nib.save_figure(draw(), frame, tmp_path / "a")
    with pytest.raises(TypeError, match="got NoneType, DataFrame"):
        nib.save_figure(None, FRAME, tmp_path / "a")
    with pytest.raises(TypeError, match="ids are those of a data set"):
        nib.datasets.save_ids(None, tmp_path / "a.csv")
    for save in (nib.save_table, lambda frame, path: nib.save_figure(draw(), frame, path)):
        with pytest.raises(TypeError, match="must be a path, got NoneType"):
            save(FRAME, None)


def test_a_failed_figure_leaves_nothing(tmp_path):
    class Broken(pd.DataFrame):
        def to_csv(self, *_, **__):
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        nib.save_figure(draw(), Broken({"a": [1]}), tmp_path / "a")
    assert {path.name for path in tmp_path.iterdir()} == {"a.pdf", "a.png"}


def test_layers_that_are_numbers_and_pairs_are_written_as_text(clip, pairs, tmp_path):
    table = evaluate(clip, pairs, [{"method": "gradcam", "layer": 1}, {"method": "gradcam", "layer": (1, 2)}])
    nib.save_table(table, tmp_path / "table.parquet")
    assert pd.read_parquet(tmp_path / "table.parquet")["layer"].unique().tolist() == ["1", "(1, 2)"]


# ---- statistics of many values


def test_draws_in_parts_are_the_same_draws(monkeypatch, subtests):
    for n in (2, 3, 50, 501):
        with subtests.test(str(n)), monkeypatch.context() as patch:
            values = np.random.default_rng(1).normal(size=n)
            whole = metrics.bootstrap_interval(values, seed=3)
            for shared in (1, 7 * n, 999 * n + 1):
                patch.setattr(metrics.statistics, "DRAWN", shared)
                assert metrics.bootstrap_interval(values, seed=3) == whole


# ---- data of one's own


@pytest.fixture
def write(tmp_path):
    """Write a table beside two pictures, and give its path."""
    for name in "ab":
        PICTURE.save(tmp_path / f"{name}.png")

    def write(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


CSV = "image,text\na.png,é cat\nb.png,a dog\n"
LINES = '{"image": "a.png", "text": %s}\n{"image": "b.png", "text": %s}\n'
FILES = {
    "utf-16": (CSV.encode("utf-16"), "table.csv", r"table\.csv' cannot be read as \.csv: .*utf-8"),
    "latin-1": (CSV.encode("latin-1"), "table.csv", r"cannot be read as \.csv: .*utf-8"),
    "nothing": ("", "table.csv", r"cannot be read as \.csv: No columns"),
    "ragged": ("image,text\na.png,a\nb.png,b,c\n", "table.csv", r"cannot be read as \.csv: .*line 3"),
    "open quote": ('image,text\na.png,"a\n', "table.csv", r"cannot be read as \.csv: .*EOF inside string"),
    "null": ("image,text\na\0.png,a\nb.png,b\n", "table.csv", "column 'image' of .* must hold|can be used"),
    "broken lines": ('{"image": "a.png",\n', "table.jsonl", r"cannot be read as \.jsonl"),
    "latin-1 lines": ((LINES % ('"é"', '"b"')).encode("latin-1"), "table.jsonl", r"cannot be read as \.jsonl: .*utf-8"),
    "numbers": (LINES % ("[1, 2]", '["a"]'), "table.jsonl", r"1 of 2 captions .* no text: rows \[0\]"),
    "a null path": (LINES.replace("a.png", "a\\u0000.png") % ('"a"', '"b"'), "table.jsonl", "column 'image' of"),
    "bytes that are text": (
        LINES.replace('"a.png"', '{"bytes": "x"}').replace('"b.png"', '{"bytes": "x"}') % ('"a"', '"b"'),
        "table.jsonl", "must hold encoded pictures or paths, got {'bytes': 'x'}",
    ),
    "a path that is a number": (
        LINES.replace('"a.png"', '{"path": 1}').replace('"b.png"', '{"path": 1}') % ('"a"', '"b"'),
        "table.jsonl", "must hold encoded pictures or paths, got {'path': 1}",
    ),
    "an id lacks": ('{"id": 1, "image": "a.png", "text": "a"}\n{"image": "b.png", "text": "b"}\n', "table.jsonl",
                    r"column 'id' of .* is empty in rows \[1\]"),
    "an empty id": ("id,image,text\n1,a.png,a\n,b.png,b\n", "table.csv", r"column 'id' of .* is empty in rows \[1\]"),
    "garbage": (b"PAR1", "table.parquet", r"cannot be read as \.parquet"),
    "no parquet": (b"", "table.parquet", r"cannot be read as \.parquet"),
}  # fmt: skip


def test_tables_of_pictures_are_refused(write, subtests):
    for case, (content, name, message) in FILES.items():
        with subtests.test(case), pytest.raises(ValueError, match=message):
            nib.datasets.load(write(content, name), progress=False)


def test_captions_are_read_as_they_stand(write):
    for name, content in {"a.jsonl": LINES % ('"a"', '"b"'), "a.csv": CSV.replace("é", "a")}.items():
        with_mark = write(b"\xef\xbb\xbf" + content.encode(), name)
        assert nib.datasets.load(with_mark)["text"][1] in ("b", "a dog")
    for texts, captions in ((('"a"', '["b", "c"]'), [["a"], ["b", "c"]]), (('["a"]', '"b"'), [["a"], ["b"]])):
        data = nib.datasets.load(write(LINES % texts, "table.jsonl"))
        assert data["text"][:] == ["a", "b"]
        assert data["captions"][:] == captions
    names = [f"caption_{number}" for number in range(12)]
    data = nib.datasets.load(write(",".join(["image", *names]) + "\n" + ",".join(["a.png", *names]) + "\n"))
    assert data["captions"][0] == names


def test_a_pipe_is_no_picture(write, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.warns(UserWarning, match=r"1 of the rows .* cannot be used: pipe\.png"):
        data = nib.datasets.load(write("image,text\na.png,a\npipe.png,b\n"))
    assert "there is no picture at" in data.skipped[0]["reason"]


def test_a_folder_that_was_saved_to_disk(tmp_path):
    datasets.Dataset.from_dict({"image": ["a"], "text": ["b"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="was written by `save_to_disk`: write a file with `to_parquet`"):
        nib.datasets.load(tmp_path / "saved")


def test_names_of_data_are_refused(tmp_path, monkeypatch, subtests):
    (tmp_path / "home" / "me").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    names = [
        *((name, TypeError, "name must be a path, got") for name in (None, 5, ["scenes"])),
        *((name, ValueError, "name must be a path, got") for name in ("", " ", "a\0")),
        *((name, ValueError, "name must be a folder of data or a file") for name in ("~", tmp_path / "home")),
        (Path("scenes"), KeyError, "got 'scenes', a path at which nothing lies .*names are given as text"),
        ("x" * 5000, KeyError, "data set must be one of"),
    ]
    for name, error, message in names:
        with subtests.test(repr(name)), pytest.raises(error, match=message):
            nib.datasets.load(name)


def test_a_name_may_begin_at_home(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(CSV)
    assert len(nib.datasets.load("~/table.csv")) == 2


# ---- plots


# ---- grids and parameters


THOUSAND = list(range(1000))
TAG = r"grid\.yaml cannot be read: line 2: no &, \*, !, << or %"
GRIDS = {
    "a bomb": ("a: &a [1, 1, 1]\nb: &b [*a, *a, *a]\naxes: {rows: [*b, *b]}", TAG),
    "an object": ("parameters: {factor: !!python/object/apply:os.system ['true']}", TAG),
    "a tag": ("parameters: {factor: !foo 2.0}", TAG),
    "a set": ("axes: {factor: !!set {1.0, 2.0}}", TAG),
    "a million runs": (f"axes: {{rows: {THOUSAND}, anything: {THOUSAND}}}", "at most 100,000 runs, got 1,000,000"),
    "a gigantic shard": ("axes: {shard: {of: 1000000000000}}", "axes.shard: must be {of: n}.*at most 100,000"),
    "not text": (b"\xff\xfe\x00", "cannot be read"),
    "not YAML": ("axes: [", "cannot be read"),
    "axes that are text": ("axes: x", "axes: must be a mapping, got 'x'"),
    "parameters that are text": ("parameters: x", "parameters: must be a mapping, got 'x'"),
    "too deep": (f"axes: {'[' * 400}{']' * 400}", "cannot be read: maximum recursion depth"),
    "infinite": ("parameters: {factor: 1.0e+400}", "must be numbers, text, lists and mappings from text, got inf"),
    "keys of two kinds": ("5: 6\nfoo: 7", "must be one of notebook, parameters, axes|must be a mapping"),
    "a number as key": ("5: {}\nfoo: {}", "line 2, 5: must be one of notebook, parameters, axes"),
}


def test_grids_are_refused(notebook, subtests):
    path = notebook.with_name("grid.yaml")
    for case, (content, message) in GRIDS.items():
        path.write_bytes(content if isinstance(content, bytes) else f"notebook: {notebook.name}\n{content}\n".encode())
        with subtests.test(case), pytest.raises(ValueError, match=message):
            read_grid(path)


def test_what_is_no_notebook_is_refused(tmp_path, subtests):
    path = tmp_path / "a.ipynb"
    broken = ["{}", "{", "", '{"cells": []}', "[]", "5", "null", '{"cells": 5, "metadata": {}, "nbformat": 4}']
    for number, content in enumerate(broken):
        message = r"a\.ipynb (is no notebook|must declare)" if number < 4 else r"a\.ipynb is no notebook"
        path.write_text(content)
        with subtests.test(content), pytest.raises(ValueError, match=message):
            read_profile("smoke", [path])


def test_parameters_that_are_no_yaml_begin_nothing(notebook, tmp_path, capsys, subtests):
    for name, text in (("rows", "[1"), ("anything", "*a"), ("factor", "1e400"), ("factor", "1.0e+400")):
        with subtests.test(f"{name} {text}"):
            assert main([str(notebook), "-p", name, text, "--output", str(tmp_path / "out")]) == 2
            assert name in capsys.readouterr().err
