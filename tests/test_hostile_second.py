"""What a picture, a model or a table may be that is not what it seems: the right number, or a word."""

import copy
import functools
import json
import pickle
import threading
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from torch import nn
from transformers import CLIPModel, CLIPProcessor

import nib
from benchmarks.families import FAMILIES, build, draw_pictures
from nib import metrics
from nib.files import save_table
from nib.heatmaps import to_heatmap
from nib.inputs import to_picture, to_pixel_values, to_tokens
from nib.open_clip import read_open_clip
from nib.plotting import draw_map, draw_words, plot_attribution, plot_maps, plot_methods, save_figure
from nib.verify import main, verify
from tests.conftest import make_config
from tests.test_open_clip import to_open_clip

TEXT = "a dog next to a dog on the grass"


@pytest.fixture(scope="module")
def picture():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def own(model_folder):
    """A model that a test may change."""
    return nib.load(model_folder)


# ---- pictures


def cut_out(picture, mode):
    half = Image.new("L", picture.size)
    half.paste(255, (0, 0, 30, 60))
    picture = picture.convert({"LA": "L"}.get(mode, "RGB"))
    picture.putalpha(half)
    return picture


def test_transparent_parts_are_white_as_the_processor_has_them(clip, picture, subtests):
    for mode in ("RGBA", "LA"):
        with subtests.test(mode):
            cut = cut_out(picture, mode)
            on_white = np.array(picture.convert("L").convert("RGB") if mode == "LA" else picture)
            on_white[:, 30:] = 255
            assert torch.equal(to_pixel_values(clip, cut), to_pixel_values(clip, on_white))
            own = clip.image_processor(images=cut.convert("RGBA"), return_tensors="pt")["pixel_values"]
            assert torch.equal(to_pixel_values(clip, cut), own.to(clip.dtype))
            if mode == "RGBA":
                assert torch.equal(to_pixel_values(clip, np.array(cut)), to_pixel_values(clip, on_white))


def test_a_transparent_colour_of_a_palette_is_told_by_its_number(clip, tmp_path):
    picture = Image.new("P", (60, 60), 1)
    picture.putpalette([200, 10, 10, 200, 10, 10])  # two entries of one colour, of which the first is transparent
    picture.paste(0, (0, 0, 60, 30))
    picture.save(tmp_path / "p.png", transparency=0)
    expected = Image.new("RGB", (60, 60), (200, 10, 10))
    expected.paste("white", (0, 0, 60, 30))
    assert torch.equal(to_pixel_values(clip, tmp_path / "p.png"), to_pixel_values(clip, expected))


def test_the_picture_of_a_result_knows_the_rescale_factor(model_folder, picture, subtests):
    expected = np.array(picture)
    for factor in (1 / 255, 1 / 127.5, 1.0, None):
        with subtests.test(str(factor)):
            own = nib.load(model_folder)
            processor, scale = own.image_processor, 255 * (1.0 if factor is None else factor)
            processor.do_rescale, processor.rescale_factor = factor is not None, factor
            processor.image_mean, processor.image_std = [scale * 0.5] * 3, [scale * 0.25] * 3
            assert np.abs(to_picture(own, to_pixel_values(own, picture)).astype(int) - expected).max() <= 1
            processor.do_normalize = False
            if scale == 1:
                assert np.abs(to_picture(own, to_pixel_values(own, picture)).astype(int) - expected).max() <= 1


def test_pixels_that_were_not_normalised(clip, tokens, picture):
    raw = torch.from_numpy(np.array(picture)).movedim(2, 0)[None].double()
    ids = tokens["input_ids"][:1]
    with pytest.raises(ValueError, match="pixel_values must be normalised, within 20 of 0, got up to 255"):
        nib.METHODS["nib"](clip, raw, ids)
    for call in (
        lambda: nib.METHODS["gradcam"](clip, raw / 255, ids),
        lambda: nib.attribute(clip, raw[0] / 255, TEXT, method="gradcam"),
        lambda: nib.interactions(clip, raw[0] / 255, TEXT),
    ):
        with pytest.warns(UserWarning, match=r"pixel values of rows \[0\] lie in \[0, 1\]"):
            call()


# ---- methods and results


def test_agi_takes_all_pairs_of_a_call_together(clip, pixel_values):
    texts = ["a cat", "a dog", "snow"]
    found = [
        nib.attribute(clip, list(pixel_values), texts, method="agi", n_steps=2, batch_size=size) for size in (1, 64)
    ]
    for one, other in zip(*found):
        np.testing.assert_allclose(one.image_scores, other.image_scores, atol=1e-9)
    with pytest.raises(ValueError, match=r"images must have one size for agi.* got \[\(36, 60\), \(60, 60\)\]"):
        nib.attribute(clip, [pixel_values[0], pixel_values[1, :, :36]], texts[:2], method="agi")


def test_a_figure_names_the_unit_of_its_scores(clip, pixel_values, subtests):
    for parameters, unit in (({}, "cosine"), ({"target": "logit"}, "logit")):
        with subtests.test(unit):
            result = nib.attribute(clip, pixel_values[0], TEXT, n_steps=2, **parameters)
            labels = [text for axes in result.plot().axes for text in (axes.get_ylabel(), axes.get_xlabel()) if text]
            assert sorted(labels) == [f"patch score ({unit})", f"score ({unit})"]
            assert f'"unit":"{unit}"' in result.to_html()
    figure = nib.attribute(clip, pixel_values[0], TEXT, method="saliency").plot()
    labels = {text for axes in figure.axes for text in (axes.get_ylabel(), axes.get_xlabel())}
    assert labels == {"", "patch score", "score"}


def test_a_dark_style_leaves_a_figure_readable(clip, pixel_values, tmp_path):
    result = nib.attribute(clip, pixel_values[0], TEXT, n_steps=1)
    save_figure(result.plot(), result.to_frame(), tmp_path / "light")
    with plt.style.context("dark_background"):
        save_figure(result.plot(), result.to_frame(), tmp_path / "dark")
    dark, light = (np.array(Image.open(tmp_path / f"{name}.png").convert("L")) for name in ("dark", "light"))
    assert (dark[:40] < 128).sum() == (light[:40] < 128).sum() > 0  # the letters of the title


def test_interactions_can_cut_a_caption(clip, pixel_values):
    with pytest.warns(UserWarning, match="its end is cut off"):
        between = nib.interactions(clip, pixel_values[0], "dog " * 40, n_steps=1, truncate=True)
    assert set(between.words) == {"dog"}


GREY, MAP = np.full((60, 60, 3), 128, np.uint8), np.array([[1.0, -2.0], [0.5, 0.0]])
NAN, INF = float("nan"), float("inf")


def new_axes():
    return Figure().add_subplot()


FINITE = "must be a finite map or list"
TITLES = "maps must be a mapping of titles to scores, got list"
MAPS = {"NaN": {"a": MAP * NAN}, "empty": {"a": MAP[:0]}, "infinite": {"a": MAP, "b": MAP + INF}}
NO_PICTURES = {
    "none": None,
    "empty": GREY[:0],
    "NaN": GREY * NAN,
    "2 channels": np.full((60, 60, 2), 5),
    "text": "a",
    "empty grey": GREY[:0, :, 0],
    "NaN grey": GREY[:, :, 0] * NAN,
}
NO_BYTES = {
    "alpha": np.zeros((9, 9, 4), np.uint8),
    "floats": np.zeros((9, 9, 3)),
    "16 bits": np.zeros((9, 9, 3), np.uint16),
}
DRAWN = {
    "NaN": (lambda: draw_map(new_axes(), GREY, MAP * NAN), ValueError, FINITE),
    "which map": (lambda: plot_maps(GREY, {"good": MAP, "bad": MAP * NAN}), ValueError, "map 'bad': "),
    "no pairs": (lambda: plot_methods(GREY, ["a"], {"nib": MAP[0, 0]}), TypeError, "scores must be a mapping of"),
    "no mapping": (lambda: plot_methods(GREY, ["a"], [(MAP, [1.0])]), TypeError, "scores must be a mapping of"),
    "no axes": (lambda: draw_map(plt, GREY, MAP), TypeError, "axes must be matplotlib's Axes, got module"),
    "no maps": (lambda: plot_maps(GREY, {}), ValueError, "the number of maps must be"),
    "no columns": (lambda: plot_maps(GREY, {"a": MAP}, columns=0), ValueError, "columns must be"),
    "flat": (lambda: plot_maps(GREY, {"a": MAP[0]}), ValueError, r"a map \(\., \.\) are drawn, both finite"),
    "no methods": (lambda: plot_methods(GREY, ["a"], {}), ValueError, "the number of methods must be"),
    "no columns of methods": (lambda: plot_methods(GREY, ["a"], {"a": (MAP, [1])}, 0), ValueError, "columns must be"),
    "no height": (lambda: to_heatmap(torch.ones(1, 2, 2), (0, 5)), ValueError, "at least one pixel"),
    **{
        f"{name} maps": (lambda maps=maps: plot_maps(GREY, maps), ValueError, "both finite|a finite map")
        for name, maps in MAPS.items()
    },
    **{
        f"{name} maps in a list": (lambda maps=maps: plot_maps(GREY, list(maps.values())), TypeError, TITLES)
        for name, maps in MAPS.items()
    },
    **{
        f"picture: {name}": (lambda it=it: plot_attribution(it, MAP, ["a"], [1.0], "title"), ValueError, "a picture")
        for name, it in NO_PICTURES.items()
    },
    **{
        f"{name} in bytes": (
            lambda it=it: draw_map(new_axes(), it, MAP),
            ValueError,
            r"a picture \(height, width, 3\) in uint8",
        )
        for name, it in NO_BYTES.items()
    },
    **{
        f"limit {limit}": (
            lambda limit=limit: draw_map(new_axes(), GREY, MAP, limit),
            ValueError,
            "limit must be at least 0 and finite",
        )
        for limit in (-1, NAN, "a")
    },
    **{
        f"limit {limit!r}": (
            lambda limit=limit: draw_map(new_axes(), GREY, MAP, limit=limit),
            (ValueError, TypeError),
            "limit",
        )
        for limit in (False, "", 1e-320)
    },
}
WORDS = {
    "more words": (["a", "cat"], [1.0], "words and scores must be equally many, got 2 and"),
    "more scores": (["a"], [1.0, 2.0], "words and scores must be equally many, got 1 and"),
    "NaN": (["a"], [NAN], "scores that are drawn must be a finite map or list"),
    "none": ([], [], "scores that are drawn must be a finite map or list"),
    "text": (["a"], ["b"], "scores that are drawn must be numbers"),
}


def test_what_cannot_be_drawn(clip, picture, subtests):
    for case, (call, error, message) in DRAWN.items():
        with subtests.test(case), pytest.raises(error, match=message):
            call()
    for case, (words, scores, message) in WORDS.items():
        with subtests.test(f"words: {case}"):
            with pytest.raises(ValueError, match=message):
                plot_methods(GREY, words, {"nib": (MAP, scores)})
            with pytest.raises(ValueError, match=message):
                plot_attribution(GREY, MAP, words, scores, "title")
            with pytest.raises(ValueError, match=message):
                draw_words(new_axes(), words, scores)
    result = nib.attribute(clip, picture, "a cat", "random")
    result.words = ["a"]
    with pytest.raises(ValueError, match="words and scores must be equally many, got 1 and 2"):
        result.to_html()
    with pytest.raises(ValueError, match="words and scores must be equally many"):
        result.plot()


def test_what_can_be_drawn():
    axes = plt.figure().add_subplot()
    draw_words(axes, (word for word in "ab"), torch.tensor([1.0, 2.0], requires_grad=True))
    draw_map(axes, GREY, torch.tensor(MAP, requires_grad=True))
    plot_methods(GREY, ["a"], {"nib": (MAP, [1.0])}, columns=100).draw_without_rendering()
    plot_maps(GREY[:, :, 0], {"a": MAP}, share_limits=True).draw_without_rendering()
    plt.close("all")


# ---- models


def test_objects_that_are_no_parts_of_a_model(clip):
    processor = CLIPProcessor(clip.image_processor, clip.tokenizer)
    with pytest.raises(TypeError, match=r"that of the processor, processor\.image_processor, got a CLIPProcessor"):
        nib.HookedCLIP(clip.model, clip.tokenizer, processor)
    with torch.device("meta"):
        nowhere = nib.HookedCLIP(CLIPModel(make_config()), clip.tokenizer, clip.image_processor)
    with pytest.raises(ValueError, match="must hold numbers, and some are on the meta device"):
        nib.attribute(nowhere, torch.zeros(3, 60, 60), "a cat")
    small = torch.ao.quantization.quantize_dynamic(CLIPModel(make_config()), {nn.Linear})
    with pytest.raises(ValueError, match=r"can be differentiated through, .* is quantised"):
        nib.HookedCLIP(small)
    empty = make_config()
    empty.text_config.num_hidden_layers = 0
    with pytest.raises(ValueError, match=r"the text tower must have at least one block \(num_hidden_layers\)"):
        nib.HookedCLIP(CLIPModel(empty))


def test_weights_that_were_cast_in_inference_mode(own):
    with torch.inference_mode():
        own.model.double()
    with pytest.raises(ValueError, match=r"outside of torch.inference_mode"):
        nib.attribute(own, torch.zeros(3, 60, 60), "a cat")


def test_a_model_without_a_direction(own, picture):
    own.model.visual_projection.weight.data *= 0
    with pytest.raises(ValueError, match=r"embeddings that have a direction, got 0 in rows \[0\]"):
        nib.attribute(own, picture, "a cat")


def flip_tokens(model):
    part = model.text_model.embeddings
    part.token_embedding = nn.Embedding.from_pretrained(part.token_embedding.weight.flip(0).clone())


def scale_norm(model):
    part = copy.deepcopy(model.vision_model.pre_layrnorm)
    part.weight.data *= 1.5
    model.vision_model.pre_layrnorm = part


def scale_patches(model):
    part = copy.deepcopy(model.vision_model.embeddings)
    part.patch_embedding.weight.data *= 1.5
    model.vision_model.embeddings = part


def drop_norm(model):
    model.vision_model.post_layernorm = nn.Identity()


def test_a_module_replaced_after_opening_is_used(model_folder, picture, subtests):
    for change in (flip_tokens, scale_norm, scale_patches, drop_norm):
        for method in ("mfaba", "input_x_gradient"):
            with subtests.test(f"{change.__name__} {method}"):
                own = nib.load(model_folder)
                change(own.model)
                late = nib.attribute(own, picture, TEXT, method=method)
                fresh = nib.HookedCLIP(own.model, own.tokenizer, own.image_processor)
                now = nib.attribute(fresh, picture, TEXT, method=method)
                assert late.similarity == now.similarity
                np.testing.assert_array_equal(late.image_scores, now.image_scores)
                np.testing.assert_array_equal(late.token_scores, now.token_scores)


def test_a_pass_of_another_thread_leaves_a_method_alone(own, picture, subtests):
    """The other thread's pass comes in the middle of the method's own, inside its hooks."""
    other, passes = torch.zeros(2, 3, 60, 60), []

    def run_another(module, args, output):
        passes.pop().remove()
        thread = threading.Thread(target=lambda: own.model.get_image_features(pixel_values=other))
        thread.start()
        thread.join()

    for method in ("mask_clip", "grad_eclip", "chefer"):
        with subtests.test(method):
            alone = nib.attribute(own, picture, "a cat", method=method)
            passes.append(own.model.vision_model.encoder.layers[-1].mlp.register_forward_hook(run_another))
            beside = nib.attribute(own, picture, "a cat", method=method)
            assert not passes
            np.testing.assert_allclose(beside.image_scores, alone.image_scores, atol=1e-6)


def test_the_heads_of_a_bare_state_dict(tmp_path, subtests):
    """open_clip's ViT-H-14, ViT-g-14 and ViT-bigG-14 have wider heads than 64, which no shape tells."""
    for width, heads in ((1280, 16), (1408, 16), (1664, 16), (128, 2)):
        config = make_config(2, hidden_size=width, num_attention_heads=heads, num_hidden_layers=1)
        torch.save(to_open_clip(CLIPModel(config)), tmp_path / "weights.pt")
        message = f"Nor does it say its heads: {{'vision': {heads}, 'text': 1}} are taken"
        with subtests.test(str(width)):
            with pytest.warns(UserWarning, match=message):
                model, _ = read_open_clip(None, tmp_path / "weights.pt")
            assert model.config.vision_config.num_attention_heads == heads


def test_weights_that_are_no_state_dict(model_folder, own, tmp_path):
    for file in model_folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "pytorch_model.bin"
    torch.save({"epoch": 3, "state_dict": own.model.state_dict()}, path)
    with pytest.raises(ValueError, match=r"must hold tensors by name, as model.state_dict\(\) gives, got \['epoch'"):
        nib.load(tmp_path)
    torch.save(own.model, path)
    with pytest.raises(ValueError, match=r"must be a state dict of tensors, .* and are another object"):
        nib.load(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="holds weights by transformers' names: pass the folder"):
        nib.load(model_folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"config\.json holds no weights: pass the folder that it lies in"):
        nib.load(model_folder / "config.json")


def test_a_processor_folder_without_a_tokenizer(model_folder, tmp_path):
    bare, empty = tmp_path / "bare", tmp_path / "empty"
    bare.mkdir(), empty.mkdir()
    for file in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (bare / file).write_bytes((model_folder / file).read_bytes())
    with pytest.raises(ValueError, match=r"processor '.*empty' holds no tokenizer that can be read"):
        nib.load(bare, processor=empty)


def test_verify_says_what_it_does_not_use(own, monkeypatch, capsys):
    with pytest.raises(ValueError, match="text needs a tokenizer"):
        verify(nib.HookedCLIP(own.model), text="a cat")
    names = []
    monkeypatch.setattr(nib, "load", lambda name, *_, **__: names.append(name) or own)
    main(["--json"])
    assert names == [None]
    rows = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert rows[-1]["limit"] is None


# ---- tables


def with_attrs():
    frame = pd.DataFrame({"a": [1]})
    frame.attrs["clip"] = object()
    return frame


PARQUET = "parquet cannot hold the table, its names or its attrs"
TEXTS = pd.DataFrame({"drop": [1.0, 2.0]}, index=["nib", "gradcam"])
# table, name of the file, what the message says
FRAMES = [
    *((TEXTS, name, "must have a name, got 'nib'") for name in ("t.csv", "t.parquet")),
    *((pd.DataFrame({"id": [1]}, index=pd.Index([2], name="id")), name, "got 'id' twice")
      for name in ("t.csv", "t.parquet")),
    *((pd.DataFrame({"v": [torch.tensor(0.123456789)]}), name, "column 'v' holds") for name in ("t.csv", "t.parquet")),
    (pd.DataFrame({"map": [np.arange(5000.0)]}), "t.csv", "column 'map' holds arrays: they would be cut"),
    (pd.DataFrame([[1, 2]], columns=["v", "v"]), "t.csv", "columns must have one name each"),
    (pd.DataFrame([[1, 2]], columns=[1, "1"]), "t.csv", "columns must have one name each"),
    (pd.DataFrame([[1, 2]], columns=["1", 1]), "t.parquet", PARQUET),
    (pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])), "t.csv", "one name each"),
    (with_attrs(), "t.parquet", PARQUET),
    (pd.DataFrame({"a": [object()]}), "t.parquet", PARQUET),
    (pd.DataFrame({"x": [{"a": 1}, {"b": 2}]}), "t.parquet", "have unlike keys"),
    (pd.DataFrame({"x": [2**70, 1]}), "t.parquet", "parquet cannot hold"),
    (pd.DataFrame({"x": [1]}), "n" * 300 + ".csv", "path cannot name a file"),
]  # fmt: skip


def test_a_table_that_would_lose_numbers(tmp_path, subtests):
    for number, (frame, name, message) in enumerate(FRAMES):
        with subtests.test(f"{number} {name[-9:]} {message}"):
            with pytest.raises(ValueError, match=message):
                save_table(frame, tmp_path / name)
            assert not list(tmp_path.iterdir())


def test_tables_are_read_as_they_were_written(tmp_path):
    save_table(pd.DataFrame({"v": [1.0, 2.0, 3.0]})[1:], tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "v\n2.0\n3.0\n"
    frame = pd.DataFrame({"id": ["a", "b"], "value": [1.0, 2.0]}).set_index("id")
    for name, read in (("t.csv", pd.read_csv), ("t.parquet", pd.read_parquet)):
        save_table(frame, tmp_path / name)
        assert read(tmp_path / name)["id"].tolist() == ["a", "b"]
    save_figure(Figure(), frame, tmp_path / "v")
    assert list(pd.read_csv(tmp_path / "v.csv")) == list(pd.read_csv(tmp_path / "t.csv")) == ["id", "value"]
    save_table(pd.DataFrame({"a\rb": [1], "c": ["x"]}), tmp_path / "t.csv")
    assert pd.read_csv(tmp_path / "t.csv").shape == (1, 2)
    save_table(pd.DataFrame({"path": [Path("a/b.png"), None]}), tmp_path / "t.parquet")
    assert pd.read_parquet(tmp_path / "t.parquet")["path"].tolist()[0] == "a/b.png"
    save_table(pd.DataFrame({"a": pd.Series([1.5, np.float64(2.5)], dtype=object)}), tmp_path / "t.parquet")
    assert pd.read_parquet(tmp_path / "t.parquet")["a"].tolist() == [1.5, 2.5]


def test_compare_names_what_it_leaves_out():
    table = pd.DataFrame({"id": [1, 2, 3, "1", "2", "3"], "method": ["nib"] * 3 + ["cam"] * 3, "metric": "x"})
    with pytest.warns(UserWarning, match="not compared, for want of .*: x: cam"):
        assert not len(metrics.compare(table.assign(value=[1.0, 2, 3, 4, 5, 7]), ["metric"]))
    table = pd.DataFrame({"id": list("abc"), "method": "cam", "metric": "y", "value": 1.0})
    both = pd.concat([table, table.assign(metric="x"), table.assign(metric="x", method="nib")])
    with pytest.warns(UserWarning, match="not compared, .*: y: nib"):
        assert metrics.compare(both, ["metric"])["metric"].tolist() == ["x"]


def test_summarise_does_not_mix_metrics_or_rows():
    table = pd.DataFrame({"method": "nib", "metric": ["image_drop", "image_increase"], "value": [1.0, 100.0]})
    with pytest.raises(ValueError, match=r"mixes the metrics \['image_drop', 'image_increase'\]"):
        metrics.summarise(table, "method")
    table = pd.DataFrame({"id": ["x", "x"], "method": "nib", "value": [1.0, 2.0]})
    with pytest.raises(ValueError, match="a column must tell its rows apart, or they repeat"):
        metrics.summarise(table, "method")


def test_a_map_that_is_finer_than_its_mask():
    with pytest.raises(ValueError, match=r"must not be finer than its mask, got \(1, 14, 7\) and \(1, 7, 7\)"):
        metrics.auc(torch.rand(1, 14, 7), torch.eye(7)[None])


def test_a_mask_is_turned_as_its_file_says(clip, picture, tmp_path):
    mask, turned = Image.fromarray(np.triu(np.ones((60, 60), np.uint8)) * 255), Image.Exif()
    turned[0x0112] = 3
    picture.save(tmp_path / "p.png", exif=turned)
    mask.save(tmp_path / "m.png", exif=turned)

    def localise(mask):
        pair = dict(id="x", text="a dog", image=tmp_path / "p.png", masks=mask)
        return nib.evaluate(clip, [pair], ["gradcam"], metrics=["localisation"], progress=False)["value"].tolist()

    opened = Image.open(tmp_path / "m.png")
    np.testing.assert_equal(localise(opened), localise(ImageOps.exif_transpose(opened)))
    as_tensor = torch.tensor(np.array(ImageOps.exif_transpose(opened))).float().requires_grad_()
    np.testing.assert_equal(localise(as_tensor), localise(opened))


def test_a_part_under_the_name_of_another(clip, picture, tmp_path):
    pairs = [dict(id="x", text="a dog", image=picture)]
    first = nib.evaluate(clip, pairs, ["gradcam", "random"], output=tmp_path, progress=False)
    of_gradcam, of_random = sorted(tmp_path.iterdir())
    of_random.write_bytes(of_gradcam.read_bytes())
    with pytest.warns(UserWarning, match="is no part of this evaluation and is computed again"):
        again = nib.evaluate(clip, pairs, ["gradcam", "random"], output=tmp_path, progress=False)
    pd.testing.assert_frame_equal(first, again)


def test_results_are_told_apart_by_what_they_are(clip, pixel_values):
    first, second = nib.attribute(clip, list(pixel_values[:2]), "a cat", n_steps=1)
    assert first != second
    assert first in [second, first]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(first)).image_scores, first.image_scores)
    with pytest.raises(ValueError, match=r"path must be a path, got '~nobody_x/p\.html'"):
        first.to_html("~nobody_x/p.html")


# ---- other families


def test_orthogonal_text_leaves_what_the_distractors_do_not_say(subtests):
    for family in FAMILIES:
        with subtests.test(family):
            clip = build(family)
            pictures = draw_pictures(clip, "small", 1)
            ids, mask, _ = to_tokens(clip, ["a dog on the grass"])
            others = to_tokens(clip, ["red cat", "dog in snow"])
            atoms, text = clip.text.embed(*others[:2]), clip.text.embed(ids, mask)[0]
            left = text - atoms.T @ torch.linalg.lstsq(atoms.T, text[:, None]).solution[:, 0]
            expected = torch.cosine_similarity(clip.image.embed(pictures)[0], left, dim=0)
            found = nib.methods.orthogonal_text(nib.METHODS["gradcam"], others[0])(clip, pictures, ids, mask)
            torch.testing.assert_close(found.similarity[0], expected, atol=1e-8, rtol=0)


def test_ids_without_a_begin_token_are_the_words_of_the_text(subtests):
    text = "a dog on the grass"
    for family in (name for name in FAMILIES if "siglip" in name):
        clip = build(family)
        picture, bare = draw_pictures(clip, "small", 1)[0], nib.HookedCLIP(clip.model)
        by_text = nib.attribute(clip, picture, text, n_steps=2)
        between = nib.interactions(clip, picture, text, n_steps=2).scores
        for options in ({}, dict(padding="max_length", max_length=clip.context_length)):
            with subtests.test(f"{family} {options}"):
                ids = clip.tokenizer(text, return_tensors="pt", **options)["input_ids"][0]
                by_ids = nib.attribute(clip, picture, ids, n_steps=2)
                np.testing.assert_array_equal(by_ids.word_scores, by_text.word_scores)
                assert (by_ids.end_score, by_ids.padding_score) == (by_text.end_score, by_text.padding_score)
                np.testing.assert_array_equal(nib.interactions(clip, picture, ids, n_steps=2).scores, between)
                with pytest.warns(UserWarning, match="without its tokenizer, .* is taken for the model's padding id"):
                    nib.attribute(bare, picture, ids, method="random")


def test_a_map_at_pixels_lies_on_the_picture(clip):
    """The patch, 12, does not divide the side, so that the model does not see the last pixels."""
    pixels = torch.randn(3, 53, 60, generator=torch.Generator().manual_seed(0))
    result = nib.attribute(clip, pixels, "a cat", method="rise", n_masks=8, text_masks=4)
    assert result.image_pixel_scores.shape == result.picture.shape[:2] == (48, 60)
    means = result.image_pixel_scores.reshape(4, 12, 5, 12).mean((1, 3))
    np.testing.assert_allclose(means, result.image_scores, atol=1e-6)


def test_a_result_keeps_the_parameters_that_it_was_made_with(clip, pixel_values):
    baseline = torch.zeros(2, 32), torch.zeros(3, 32)
    result = nib.attribute(clip, pixel_values[0], "a cat", n_steps=1, baseline=baseline)
    baseline[0].fill_(7.0)
    assert not result.parameters["baseline"][0].any()


def test_a_wrapped_method_has_the_parameters_of_its_own(clip, pixel_values, monkeypatch):
    distractors = to_tokens(clip, ["a cow", "a cat"])[0]
    monkeypatch.setitem(nib.METHODS, "orth", nib.methods.orthogonal_text(nib.METHODS["nib"], distractors))
    monkeypatch.setitem(nib.METHODS, "mine", lambda *args, seed=0: nib.METHODS["nib"](*args, n_steps=2))
    result = nib.attribute(clip, pixel_values[0], "a dog", "orth", layer=2, n_steps=2)
    assert result.parameters["layer"] == 2
    assert result.plot()
    assert nib.attribute(clip, pixel_values[0], "a dog", "mine").plot()
    with pytest.raises(ValueError, match="text 1: a text must say something beside the distractors"):
        nib.METHODS["orth"](clip, pixel_values[:1], to_tokens(clip, ["a dog", "a cat"])[0])


# ---- methods and metrics of one's own

THRESHOLD = 0.5


def above(numbers):
    return numbers > THRESHOLD * numbers.amax(1, keepdim=True)


def count_high(case):
    return {"share_high": above(case.scores.image.flatten(1)).double().mean(1)}


def write_into_the_map(case):
    case.scores.image[case.scores.image < 0] = 0
    return {"mass": case.scores.image.sum((1, 2)).requires_grad_()}


def write_into_the_picture(clip, pixel_values, input_ids, attention_mask=None):
    scores = nib.METHODS["gradcam"](clip, pixel_values, input_ids, attention_mask)
    pixel_values.zero_()
    return scores


def embed_only(clip, pixel_values, input_ids, attention_mask=None):
    similarity = torch.cosine_similarity(clip.image.embed(pixel_values), clip.text.embed(input_ids, attention_mask))
    return nib.Scores(torch.rand(len(input_ids), 5, 5), torch.rand(input_ids.shape), similarity)


@pytest.fixture
def pairs(picture):
    return [{"id": name, "image": picture, "text": name, "absent": "a boat"} for name in ("a cat", "a dog")]


def evaluate(clip, pairs, methods="gradcam", **options):
    return nib.evaluate(clip, pairs, methods, progress=False, **options)


def test_a_metric_or_method_that_writes_into_its_input_changes_no_other(clip, pairs, monkeypatch):
    monkeypatch.setitem(nib.METHODS, "mine", write_into_the_picture)
    monkeypatch.setitem(metrics.METRICS, "mass", metrics.Metric({"mass": metrics.Value(None)}, write_into_the_map))
    alone = evaluate(clip, pairs)
    beside = evaluate(clip, pairs, ["mine", "gradcam"], metrics=["mass", "confidence"])
    beside = beside[(beside["metric"] != "mass") & (beside["method"] == "gradcam")].reset_index(drop=True)
    pd.testing.assert_frame_equal(beside, alone)


def test_a_method_need_not_take_a_call_without_pairs(clip, pairs, monkeypatch):
    monkeypatch.setitem(nib.METHODS, "mine", embed_only)
    assert len(evaluate(clip, pairs, "mine"))


def nothing(case):
    return {}


WRONG = {
    "a name twice": (metrics.Metric({"image_srg": metrics.Value(True)}, nothing), ValueError, "both give 'image_srg'"),
    "no function": (metrics.Metric({"z": metrics.Value(True)}, None), ValueError, "must have a function that measures"),
    "no Metric": (nothing, TypeError, r"METRICS\['mine'\] must be a nib.metrics.Metric, got function"),
}


def test_what_is_no_metric(clip, pairs, monkeypatch, subtests):
    for case, (metric, error, message) in WRONG.items():
        with subtests.test(case), monkeypatch.context() as patch:
            patch.setitem(metrics.METRICS, "mine", metric)
            with pytest.raises(error, match=message):
                evaluate(clip, pairs, metrics=["faithfulness", "mine"])


def test_a_part_knows_the_constants_of_its_metric(clip, pairs, monkeypatch, tmp_path):
    monkeypatch.setitem(metrics.METRICS, "high", metrics.Metric({"share_high": metrics.Value(None)}, count_high))
    first = evaluate(clip, pairs, metrics=["high"], output=tmp_path)
    monkeypatch.setitem(globals(), "THRESHOLD", 0.01)
    again = evaluate(clip, pairs, metrics=["high"], output=tmp_path)
    assert not first["value"].equals(again["value"])
    pd.testing.assert_frame_equal(again, evaluate(clip, pairs, metrics=["high"]))
    monkeypatch.setitem(globals(), "THRESHOLD", object())
    with pytest.raises(ValueError, match="neither code nor numbers nor text, got high"):
        evaluate(clip, pairs, metrics=["high"], output=tmp_path)


def make_metric(power):
    def measure(case, power=power):
        return {"sum": (case.scores.image**power).sum((1, 2))}

    return metrics.Metric({"sum": metrics.Value(None)}, measure)


def test_a_part_knows_the_defaults_of_its_metric(clip, pairs, monkeypatch, tmp_path):
    found = []
    for power in (1, 2):
        monkeypatch.setitem(metrics.METRICS, "sum", make_metric(power))
        found += [evaluate(clip, pairs, metrics=["sum"], output=folder) for folder in (tmp_path, None)]
    pd.testing.assert_frame_equal(found[2], found[3])
    assert not found[0]["value"].equals(found[2]["value"])


class Config:
    power = 1.0


NET, HALF = nn.Linear(1, 1), functools.partial(torch.mul, 0.5)


def measure_by_class(case):
    return {"z": case.scores.image.sum((1, 2)) ** Config.power}


def measure_by_net(case):
    return {"z": NET(case.scores.image.float().sum((1, 2))[:, None])[:, 0]}


def measure_by_partial(case):
    return {"z": HALF(case.scores.image).sum((1, 2))}


def test_no_part_is_kept_of_what_may_hold_anything(clip, pairs, monkeypatch, tmp_path, subtests):
    for measure in (measure_by_class, measure_by_net, measure_by_partial):
        with subtests.test(measure.__name__), monkeypatch.context() as patch:
            patch.setitem(metrics.METRICS, "z", metrics.Metric({"z": metrics.Value(None)}, measure))
            assert len(evaluate(clip, pairs, metrics=["z"]))
            with pytest.raises(ValueError, match="uses what is neither code nor numbers nor text, got z"):
                evaluate(clip, pairs, metrics=["z"], output=tmp_path)


def test_which_pair_has_no_absent_prompt(clip, pairs, subtests):
    without = {name: value for name, value in pairs[1].items() if name != "absent"}
    wrong = {"absent of pair 'a dog': a caption must hold": pairs[1] | {"absent": ""}, "in row 1": without}
    for message, pair in wrong.items():
        with subtests.test(message), pytest.raises(ValueError, match=message):
            evaluate(clip, [pairs[0], pair], metrics=["absent_prompt"])


def test_true_mask_has_no_parameters(clip, pairs):
    with pytest.raises(TypeError, match="true_mask has no parameter, got layer"):
        evaluate(clip, pairs, {"method": "true_mask", "layer": 3})


def test_metrics_take_normalised_pixels(clip, tokens, pixel_values):
    scores = nib.METHODS["random"](clip, pixel_values, **tokens)
    with pytest.raises(ValueError, match="pixel_values must be normalised"):
        metrics.confidence(clip, 100 * pixel_values, *tokens.values(), scores)
    raw = pixel_values.sigmoid()
    with pytest.warns(UserWarning, match="lie in"):
        metrics.removal_curves(clip, raw, *tokens.values(), scores, n_steps=1)


def test_no_hit_of_many_has_wilsons_interval_in_the_unit_of_the_table(subtests):
    table = pd.DataFrame({"id": [*range(40)] * 2, "method": ["a"] * 40 + ["b"] * 40})
    for hit in (1, 100):
        shares = table.assign(value=[float(hit)] * 12 + [0.0] * 68)
        for given, by in ((shares, ["method"]), (shares.assign(metric="image_increase"), ["method", "metric"])):
            with subtests.test(f"{hit} {by}"):
                found = metrics.summarise(given, by).set_index("method")
                assert found.loc["b", "low"] == 0
                assert found.loc["b", "high"] == pytest.approx(0.0876 * hit, rel=1e-2)


def test_lists_in_a_csv_are_no_captions(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    table = pd.DataFrame({"file_name": ["a.png"], "captions": [["a cat", "a dog"]]})
    table.to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(ValueError, match=r"got lists written as text in rows \[0\]"):
        nib.datasets.load(tmp_path)


def test_a_named_column_is_the_only_one(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    table = pd.DataFrame({"file_name": ["a.png"] * 2, "caption_0": ["a dog", ""], "caption_1": ["x", "y"]})
    table.to_csv(tmp_path / "metadata.csv", index=False)
    assert nib.datasets.load(tmp_path)["text"][:] == ["a dog", "y"]
    with pytest.raises(ValueError, match=r"1 of 2 captions .* are empty"):
        nib.datasets.load(tmp_path, text_column="caption_0")


def test_what_are_no_new_captions(subtests):
    two = nib.datasets.load("scenes", limit=2)
    assert nib.datasets.replace_texts(two, ("a", "b"))["text"][:] == ["a", "b"]
    for texts in ("ab", {"a", "b"}, {"a": "x", "b": "y"}, ["a", 3]):
        message = "texts must be a list of captions in the order of the rows, got"
        with subtests.test(str(type(texts))), pytest.raises(TypeError, match=message):
            nib.datasets.replace_texts(two, texts)
    with pytest.raises(ValueError, match="texts must be 2, one a row, got 3"):
        nib.datasets.replace_texts(two, ["a", "b", "c"])


def test_brackets_in_the_name_of_a_folder(tmp_path):
    (folder := tmp_path / "photos [2023]").mkdir()
    pd.DataFrame({"image": [b"a"], "text": ["a"]}).to_parquet(folder / "test-00000-of-00001.parquet")
    with pytest.raises(FileNotFoundError, match="takes for a pattern: rename it"):
        nib.datasets.load(folder)
