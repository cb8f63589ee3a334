"""Bad input of every kind is refused before any work, and says what is wrong, what is expected and which it was."""

import functools
import io
import os
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CAPTIONS
from PIL import Image

import nib
from nib.inputs import to_tokens
from runs import plan

PICTURE = Image.new("RGB", (60, 60), "red")
NAN, INF = float("nan"), float("inf")
WHOLE = "must be a whole number"


@pytest.fixture
def untouched(monkeypatch):
    """Fail the test when a tower is run: what is refused must be refused before that."""

    def run(*_, **__):
        raise AssertionError("work was begun")

    monkeypatch.setattr(nib.towers.Tower, "split", run)
    monkeypatch.setattr(nib.towers.Tower, "embed", run)


# method, parameters, error, what the message says
PARAMETERS = [
    *(("nib", {"n_steps": value}, ValueError, WHOLE) for value in (0, -1, 2.5, "ten", True, NAN)),
    *(
        (method, {name: value}, ValueError, f"{name} must be at most [0-9,]+, got {value}: raise nib.limits.{limit}")
        for limit, value, names in (
            ("nodes", 10_001, (("nib", "n_steps"), ("m2ib", "n_steps"), ("m2ib", "n_noise"), ("mfaba", "n_steps"))),
            ("nodes", 10_001, (("agi", "n_steps"), ("agi", "n_others"), ("rise", "text_cells"))),
            ("samples", 1_000_001, (("rise", "n_masks"), ("rise", "text_masks"), ("lime", "n_samples"))),
        )
        for method, name in names
    ),
    ("rise", {"grid": 61}, ValueError, "grid must be at most the 60 pixels of a side, got 61"),
    *(("nib", {"lambda_min": value}, ValueError, r"in \[0, 1\)") for value in (1, -0.1, NAN, INF, "0")),
    *(("nib", {"quadrature": value}, ValueError, "must be one of") for value in ("simpson", 3, "")),
    ("nib", {"quadrature": "riemann_trapezoid", "n_steps": 1}, ValueError, "at least 2, got 1"),
    *(("nib", {"layer": value}, ValueError, "layer must be") for value in (-1, 5, 1.5, "2", (1, 2, 3), True)),
    *(("nib", {"baseline": value}, ValueError, "baseline must be") for value in ("median", 3, ("zero", "max"))),
    ("nib", {"target": "loss"}, ValueError, "target must be"),
    ("nib", {"preset": "best"}, ValueError, "preset must be one of"),
    ("nib", {"n_steps": (1, 2, 3)}, ValueError, "one value or two"),
    ("nib", {"nsteps": 3}, TypeError, "nib has no parameter nsteps; it has"),
    *(
        ("m2ib", {"beta": value}, ValueError, "beta must be at least 0 and finite")
        for value in (-1, NAN, INF, "0.1", True)
    ),
    *(("m2ib", {"lr": value}, ValueError, "lr must be more than 0 and finite") for value in (0, -1, NAN, INF)),
    *(("m2ib", {"n_noise": value}, ValueError, WHOLE) for value in (0, 1.5)),
    ("m2ib", {"alpha_init": NAN}, ValueError, "alpha_init must be"),
    *(("rise", {"p": value}, ValueError, r"p must be in \(0, 1\]") for value in (0, 1.1, NAN, "0.1")),
    *(("rise", {"n_masks": value}, ValueError, WHOLE) for value in (0, -3, 2.5)),
    ("rise", {"grid": 0}, ValueError, WHOLE),
    *(("mfaba", {"step_size": value}, ValueError, "step_size must be more than 0") for value in (0, -1, NAN, INF)),
    ("mfaba", {"n_steps": 0}, ValueError, WHOLE),
    *(("center", {"sigma": value}, ValueError, "sigma must be more than 0 and finite") for value in (0, NAN, INF)),
    ("chefer", {"start_layer": 9}, ValueError, "start_layer must be None or a whole number"),
    ("gradcam", {"layer": 9}, ValueError, "layer must be"),
    ("grad_eclip", {"text_blocks": 0}, ValueError, WHOLE),
    ("legrad", {"blocks": 0}, ValueError, WHOLE),
    ("clip_surgery", {"blocks": -1}, ValueError, WHOLE),
    ("agi", {"step_size": NAN}, ValueError, "step_size must be more than 0"),
    ("agi", {"n_others": 0}, ValueError, WHOLE),
    ("lime", {"n_samples": 0}, ValueError, WHOLE),
    ("lime", {"alpha": NAN}, ValueError, "alpha must be at least 0"),
    ("best", {}, KeyError, "method must be one of"),
]


def test_parameters_are_refused_before_any_picture_is_opened(clip, untouched, subtests):
    pairs = [{"id": "0", "image": "no_such_file.png", "text": "a cat"}]
    for method, parameters, error, message in PARAMETERS:
        with subtests.test(f"{method} {parameters}"):
            with pytest.raises(error, match=message):
                nib.attribute(clip, "no_such_file.png", "a cat", method=method, **parameters)
            with pytest.raises(error, match=message):
                nib.evaluate(clip, pairs, ["random", {"method": method, **parameters}])


def truncated_jpeg(folder):
    data = io.BytesIO()
    Image.effect_noise((200, 200), 90).convert("RGB").save(data, "JPEG")
    (folder / "cut.jpg").write_bytes(data.getvalue()[:2000])
    return folder / "cut.jpg"


def cut_object(folder):
    return Image.open(io.BytesIO(truncated_jpeg(folder).read_bytes()))


def pipe(folder):
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def text_file(folder):
    (folder / "note.png").write_text("no picture")
    return folder / "note.png"


# picture (or a function of a folder), error, what the message says
PICTURES = {
    "missing": ("no_such_file.png", FileNotFoundError, "no picture at 'no_such_file.png'"),
    "in home": ("~/no_such_file.png", FileNotFoundError, "no picture at"),
    "truncated": (truncated_jpeg, ValueError, "cannot read the picture .*cut.jpg"),
    "text": (text_file, ValueError, "cannot read the picture .*note.png"),
    "folder": (lambda folder: folder, ValueError, "cannot read the picture"),
    "50000 x 1": (Image.new("RGB", (50_000, 1)), ValueError, "at most 50 times as long"),
    "1 x 50000": (np.zeros((50_000, 1, 3), np.uint8), ValueError, "at most 50 times as long"),
    "number": (3, TypeError, "a picture must be a PIL image, a path, an array or a tensor, got int"),
    "none": (None, TypeError, "got NoneType"),
    "bytes": (b"abc", TypeError, "got bytes"),
    "dict": ({"image": PICTURE}, TypeError, "got dict"),
    "float array of 255": (np.full((60, 60, 3), 200.0), ValueError, r"must lie in \[0, 1\], got \[200"),
    "NaN array": (np.full((60, 60, 3), NAN), ValueError, "must be finite"),
    "integer array": (np.zeros((60, 60, 3), int), ValueError, "uint8 or floats"),
    "two channels": (np.zeros((60, 60, 2), np.uint8), ValueError, "3 or 4"),
    "empty array": (np.zeros((0, 60, 3), np.uint8), ValueError, "3 or 4"),
    "one dimension": (np.zeros(60), ValueError, r"\(height, width\)"),
    "16 bits": (Image.new("I;16", (60, 60)), ValueError, "8 bits a channel"),
    "NaN tensor": (torch.full((3, 60, 60), NAN), ValueError, "must be finite"),
    "tensor of 255": (torch.full((3, 60, 60), 255.0), ValueError, "must be normalised, within 20 of 0, got up to 255"),
    "tensor of 1e30": (torch.full((3, 60, 60), 1e30), ValueError, "must be normalised"),
    "integer tensor": (torch.zeros(3, 60, 60, dtype=torch.uint8), ValueError, "must be floats"),
    "small tensor": (torch.zeros(3, 4, 4), ValueError, "at least the patch size 12"),
    "batch": (torch.zeros(2, 3, 60, 60), ValueError, "must be floats of shape"),
    "byte array": (bytearray(b"abc"), TypeError, "a picture must be .*, got bytearray"),
    "address": ("https://example.com/a.png", FileNotFoundError, "no picture at 'https://example.com/a.png'"),
    "no name": ("", ValueError, "cannot read the picture .*it is no file"),
    "long name": ("x" * 5000, ValueError, "cannot read the picture 'x{200,298}…: "),
    "cut object": (cut_object, ValueError, "cannot read the picture object"),
    "no side": (Image.new("RGB", (0, 0)), ValueError, "not 0, and at most .* got 0 x 0"),
    "pipe": (pipe, ValueError, "cannot read the picture .*pipe.png.*it is no file"),
    "device": ("/dev/zero", ValueError, "it is no file"),
    "null byte": ("a\0b.png", ValueError, "cannot read the picture"),
    "nobody's home": ("~nosuchuser/x.png", FileNotFoundError, "no picture at '~nosuchuser/x.png'"),
    "masked array": (np.ma.masked_array(np.zeros((60, 60, 3), np.uint8), True), ValueError, "must be whole"),
    "sparse": (torch.zeros(3, 60, 60).to_sparse(), ValueError, "must be a dense tensor"),
    "meta": (torch.zeros(3, 60, 60, device="meta"), ValueError, "must be a dense tensor"),
    "large": (torch.zeros(1).expand(3, 8000, 8000), ValueError, "at most 10,000 patches, got 666 x 666"),
}


def test_pictures_are_refused_by_name(clip, untouched, tmp_path_factory, subtests):
    for case, (picture, error, message) in PICTURES.items():
        with subtests.test(case):
            picture = picture(tmp_path_factory.mktemp("row")) if callable(picture) else picture
            with pytest.raises(error, match=message) as caught:
                nib.attribute(clip, picture, "a cat")
            assert len(str(caught.value)) < 6000
            with pytest.raises(error, match=f"picture 1: .*({message})"):
                nib.attribute(clip, [PICTURE, picture], ["a cat", "a dog"])


# caption, error, what the message says
TEXTS = {
    "empty": ("", ValueError, "at least one word, got ''"),
    "blank": (" \n\t ", ValueError, "at least one word"),
    "none": (None, TypeError, "a caption must be a str or a 1-d tensor of token ids, got NoneType"),
    "number": (3, TypeError, "got int"),
    "NaN": (NAN, TypeError, "got float"),
    "bytes": (b"a cat", TypeError, "got bytes"),
    "end token": (
        "a cat <|endoftext|> a dog",
        ValueError,
        r"special tokens of the tokenizer, .*<\|endoftext\|>, got 'a cat",
    ),
    "begin token": ("<|startoftext|> a dog", ValueError, "special tokens"),
    "too long": ("a cat " * 40, ValueError, "shorten it, or pass truncate=True"),
    "ids without end": (torch.tensor([1329, 320, 321]), ValueError, "must end with the end token"),
    "ids with two ends": (torch.tensor([1329, 1330, 320, 1330]), ValueError, "must end with the end token"),
    "ids out of range": (torch.tensor([1329, 5000, 1330]), ValueError, r"must be in \[0, 1331\)"),
    "negative ids": (torch.tensor([1329, -1, 1330]), ValueError, r"must be in \[0, 1331\)"),
    "float ids": (torch.tensor([1329.0, 3, 1330]), ValueError, "1-d tensor"),
    "two rows of ids": (torch.ones(2, 4, dtype=torch.long), ValueError, "1-d tensor"),
    "no words in ids": (torch.tensor([1329, 1330]), ValueError, "at least one token"),
}


def test_captions_are_refused_by_name(clip, untouched, subtests):
    for case, (caption, error, message) in TEXTS.items():
        with subtests.test(case):
            with pytest.raises(error, match=message):
                nib.attribute(clip, PICTURE, [caption])
            with pytest.raises(error, match=f"caption 1: .*({message})") as found:
                nib.attribute(clip, PICTURE, ["a cat", caption])
            assert len(str(found.value)) < 700


def test_lists_must_pair_up(clip, untouched):
    for images, texts in (([], []), ([PICTURE], ["a", "b"]), ([PICTURE] * 2, ["a"]), (PICTURE, [])):
        with pytest.raises(ValueError, match="lists of the same length, at least 1"):
            nib.attribute(clip, images, texts)


TYPES = {
    "tuples": ((PICTURE, PICTURE), ("a cat", "a dog")),
    "generators": (lambda: (PICTURE for _ in range(2)), lambda: (text for text in ("a cat", "a dog"))),
    "array of strings": ([PICTURE, PICTURE], np.array(["a cat", "a dog"])),
    "array of objects": (np.array([PICTURE, PICTURE, None], object)[:2], np.array(["a cat", "a dog"], object)),
    "columns of a table": (pd.Series([PICTURE, PICTURE]), pd.Series(["a cat", "a dog"])),
    "strings of numpy": ([PICTURE, PICTURE], [np.str_("a cat"), np.str_("a dog")]),
}


def test_what_is_plainly_several_is_taken(clip, subtests):
    for case, given in TYPES.items():
        with subtests.test(case):
            images, texts = (value() if callable(value) else value for value in given)
            results = nib.attribute(clip, images, texts, layer=2, n_steps=1)
            assert [result.caption for result in results] == ["a cat", "a dog"]


def test_whole_numbers_of_numpy_are_whole_numbers(clip, pixel_values, tokens, subtests):
    found = nib.attribute(clip, PICTURE, "a cat", layer=np.int64(2), n_steps=np.int32(2), batch_size=np.int16(3))
    expected = nib.attribute(clip, PICTURE, "a cat", layer=2, n_steps=2)
    assert found.image_scores.tolist() == expected.image_scores.tolist()
    few = {"rise": dict(n_masks=8, text_masks=8), "m2ib": dict(n_steps=2, n_noise=2), "random": {}}
    for method, options in few.items():
        with subtests.test(method):
            explain = functools.partial(nib.METHODS[method], clip, pixel_values, **tokens, **options)
            assert torch.equal(explain(seed=np.int64(1)).image, explain(seed=1).image)
            assert not torch.equal(explain(seed=2).image, explain(seed=1).image)


def test_a_path_may_begin_at_home(clip, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    PICTURE.save(tmp_path / "red.png")
    assert nib.attribute(clip, "~/red.png", "a cat", layer=2, n_steps=1).similarity


def test_a_sum_that_means_nothing_is_said(clip):
    with pytest.warns(UserWarning, match="riemann_left has a node at lambda = 0"):
        nib.attribute(clip, PICTURE, "a cat", layer=2, n_steps=3, quadrature="riemann_left")
    with pytest.warns(UserWarning, match="riemann_left has a node at lambda = 0"):
        nib.interactions(clip, PICTURE, "a cat", quadrature="riemann_left", n_steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nib.attribute(clip, PICTURE, "a cat", layer=2, n_steps=3, quadrature="riemann_left", lambda_min=0.1)
        nib.attribute(clip, PICTURE, "a cat", layer=2, n_steps=3)


@pytest.fixture
def pairs():
    return [{"id": str(row), "image": PICTURE, "text": text} for row, text in enumerate(CAPTIONS)]


PAIRS = {
    "no pairs": (lambda pairs: [], {}, "at least one, each with an id of its own, got 0"),
    "duplicate id": (lambda pairs: [*pairs, pairs[1]], {}, "and twice 1"),
    "no text": (lambda pairs: [{"id": "0", "image": PICTURE}], {}, "must have the columns id, image and text, got"),
    "the same setting twice": (lambda pairs: pairs, {"methods": ["none", "none"]}, "methods must differ, got twice"),
    "empty caption": (lambda pairs: [*pairs, pairs[0] | {"id": "9", "text": ""}], {}, "caption 3: .*at least one word"),
    "protocol": (lambda pairs: pairs, {"protocol": "mine"}, "protocol must be some of"),
    "metric": (lambda pairs: pairs, {"metrics": ["f1"]}, "metrics must be some of"),
    "batch size": (lambda pairs: pairs, {"batch_size": 0}, WHOLE),
    "shard": (lambda pairs: pairs, {"shard": (2, 2)}, "shard must be"),
    "no masks": (lambda pairs: pairs, {"metrics": ["localisation"]}, "need masks, and pair '0' has none"),
}


def test_evaluations_are_refused(clip, pairs, subtests):
    for case, (make, options, message) in PAIRS.items():
        with subtests.test(case), pytest.raises(ValueError, match=message):
            nib.evaluate(clip, make(pairs), **({"methods": "none"} | options), progress=False)


def test_means_over_mixed_settings_are_refused(clip, pairs):
    table = nib.evaluate(clip, pairs, ["random", {"method": "random", "seed": 1}], progress=False)
    with pytest.raises(ValueError, match=r"more than once: its rows differ in \['seed'\]"):
        nib.metrics.summarise(table, ["method", "protocol", "metric"])
    with pytest.raises(ValueError, match="more than once"):
        nib.metrics.compare(table, ["protocol", "metric"], reference="random")
    assert nib.metrics.summarise(table, ["method", "seed", "metric"])["n"].max() == 3


def test_the_ending_says_how_a_table_is_written(tmp_path, subtests):
    frame = pd.DataFrame({"a": [1, 2]})
    for name in ("table.xlsx", "table", "table.csv.gz"):
        with subtests.test(name), pytest.raises(ValueError, match=r"written as \.parquet or \.csv"):
            nib.save_table(frame, tmp_path / name)
    nib.save_table(frame, tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == "a\n1\n2\n"
    nib.save_table(frame, tmp_path / "table.parquet")
    assert pd.read_parquet(tmp_path / "table.parquet").equals(frame)


PART = "line 3.*must be extends, common or the name of a notebook"
EXTENDED = r"profile must be one of \[.*\], got 'mine extended by"
PROFILES = {
    **{name: (f"04_quantitative:\n  fps_pairs: 2\n{name}:\n  device: cpu\n", PART)
       for name in ("comon", "04_quantitativ", "4")},
    **{name: (f"common:\n  device: cpu\n  {name}: cpu\n", f"line 3, common.{name}: no notebook has such a parameter")
       for name in ("devise", "n_pair")},
    "extends itself": ("extends: mine\n", EXTENDED),
    "extends one that extends it": ("extends: other\n", EXTENDED),
}  # fmt: skip


def test_profiles_are_refused(tmp_path_factory, monkeypatch, subtests):
    for case, (content, message) in PROFILES.items():
        folder = tmp_path_factory.mktemp("row")
        with subtests.test(case), monkeypatch.context() as patch:
            (folder / "04_quantitative.ipynb").write_bytes((plan.ROOT / "notebooks/04_quantitative.ipynb").read_bytes())
            (folder / "profiles").mkdir()
            (folder / "profiles" / "other.yaml").write_text("extends: mine\n")
            (folder / "profiles" / "mine.yaml").write_text(content)
            patch.setattr(plan, "PROFILES", folder / "profiles")
            with pytest.raises(ValueError, match=message):
                plan.find_parameters("mine", plan.Notebook(folder / "04_quantitative.ipynb"))


def test_limits_can_be_raised(clip, monkeypatch):
    wide = Image.new("RGB", (51 * 60, 60))
    with pytest.raises(ValueError, match=r"at most 50 times as long .* or raise nib.limits"):
        nib.attribute(clip, wide, "a cat", method="none")
    monkeypatch.setattr(nib.limits, "aspect", 51)
    assert nib.attribute(clip, wide, "a cat", method="none").similarity
    monkeypatch.setattr(nib.limits, "nodes", 10_001)
    assert len(nib.integrate.place_nodes(n_steps=10_001)[0]) == 10_001


def collect_scores(clip, method, found):
    try:
        found.append(nib.attribute(clip, PICTURE, CAPTIONS[1], method=method).image_scores)
    except Exception as error:
        found.append(error)


def test_threads_take_turns_on_one_model(clip, subtests):
    for method in ("chefer", "nib", "gradcam", "legrad"):
        with subtests.test(method):
            expected = nib.attribute(clip, PICTURE, CAPTIONS[1], method=method).image_scores
            found = []
            threads = [threading.Thread(target=collect_scores, args=(clip, method, found)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(found) == 8
            for scores in found:
                np.testing.assert_array_equal(scores, expected)


def test_captions_are_shown_as_they_are_written(subtests):
    clip = nib.load()
    for text in ("$5 and not $6", r"\frac{a}{b}", "a 🐈 cat", "قطة", "a cat and a dog " * 6, "<b>cat</b> & dog"):
        with subtests.test(text):
            result = nib.attribute(clip, Image.new("RGB", (224, 224), "red"), text, n_steps=1, truncate=True)
            result.plot().canvas.draw()
            page = result._repr_html_()
            assert "<b>cat</b>" not in page
            assert len(result.to_frame()) == result.image_scores.size + 1 + len(result.tokens) + len(result.words)


def test_tokens_of_a_table_are_named(clip):
    frame = nib.attribute(clip, PICTURE, "a cat", layer=2, n_steps=1).to_frame()
    assert list(frame) == ["part", "name", "row", "column", "score"]
    assert frame[frame["part"] == "word"]["name"].tolist() == ["a", "cat"]
    assert to_tokens(clip, ["a cat"])[2][0][2] == ["a", "cat"]
