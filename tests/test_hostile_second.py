"""What a picture, a model or a table may be that is not what it seems: the right number, or a word."""

import copy
import functools
import json
import pickle
import threading

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn
from transformers import CLIPModel, CLIPProcessor

import nib
from benchmarks.families import FAMILIES, build, draw_pictures
from nib import metrics
from nib.evaluation import save_table
from nib.inputs import to_picture, to_pixel_values, to_tokens
from nib.open_clip import read_open_clip
from nib.plotting import draw_map, draw_words, plot_maps, plot_methods, save_figure
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
    for mode in ["RGBA", "LA"]:
        with subtests.test(repr(mode)):
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
    for factor in [1 / 255, 1 / 127.5, 1.0, None]:
        with subtests.test(repr(factor)):
            own = nib.load(model_folder)
            processor, expected = own.image_processor, np.array(picture)
            scale = 255 * (1.0 if factor is None else factor)
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


def test_ids_begin_with_the_begin_token(clip, pixel_values):
    with pytest.raises(ValueError, match=r"begin with the begin token, 1329, got \[320, 5, 1330\]"):
        nib.METHODS["nib"](clip, pixel_values[:1], torch.tensor([[320, 5, 1330]]))


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
    for parameters, unit in [({}, "cosine"), ({"target": "logit"}, "logit")]:
        with subtests.test(unit):
            result = nib.attribute(clip, pixel_values[0], TEXT, n_steps=2, **parameters)
            labels = [text for axes in result.plot().axes for text in (axes.get_ylabel(), axes.get_xlabel()) if text]
            assert sorted(labels) == [f"patch score ({unit})", f"score ({unit})"]
            assert f'"unit":"{unit}"' in result.to_html()


def test_a_figure_of_another_method_names_no_unit(clip, pixel_values):
    figure = nib.attribute(clip, pixel_values[0], TEXT, method="saliency").plot()
    assert {text for axes in figure.axes for text in (axes.get_ylabel(), axes.get_xlabel())} == {
        "", "patch score", "score"
    }  # fmt: skip


def test_results_are_told_apart_by_what_they_are(clip, pixel_values):
    first, second = nib.attribute(clip, list(pixel_values[:2]), "a cat", n_steps=1)
    assert first != second
    assert first in [second, first]


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
DRAWN = {
    "NaN": (lambda: draw_map(plt.figure().gca(), GREY, MAP * np.nan), ValueError, "must be a finite map or list"),
    "which map": (lambda: plot_maps(GREY, {"good": MAP, "bad": MAP * np.nan}), ValueError, "map 'bad': "),
    "no pairs": (lambda: plot_methods(GREY, ["a"], {"nib": MAP[0, 0]}), TypeError, "scores must be a mapping of"),
    "no mapping": (lambda: plot_methods(GREY, ["a"], [(MAP, [1.0])]), TypeError, "scores must be a mapping of"),
    "no axes": (lambda: draw_map(plt, GREY, MAP), TypeError, "axes must be matplotlib's Axes, got module"),
}


def test_what_cannot_be_drawn(subtests):
    for case, (call, kind, message) in DRAWN.items():
        with subtests.test(f"{call.__name__} {case}"), pytest.raises(kind, match=message):
            call()


def test_what_can_be_drawn():
    axes = plt.figure().add_subplot()
    draw_words(axes, (word for word in "ab"), torch.tensor([1.0, 2.0], requires_grad=True))
    draw_map(axes, GREY, torch.tensor(MAP, requires_grad=True))
    plot_methods(GREY, ["a"], {"nib": (MAP, [1.0])}, columns=100).draw_without_rendering()
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


def test_a_module_replaced_after_opening_is_used(model_folder, picture, subtests):
    for method in ["mfaba", "input_x_gradient"]:
        for change in [flip_tokens, scale_norm, scale_patches]:
            with subtests.test(f"{method} {change.__name__}"):
                own = nib.load(model_folder)
                change(own.model)
                late = nib.attribute(own, picture, TEXT, method=method)
                now = nib.attribute(
                    nib.HookedCLIP(own.model, own.tokenizer, own.image_processor), picture, TEXT, method=method
                )
                assert late.similarity == now.similarity
                np.testing.assert_array_equal(late.image_scores, now.image_scores)
                np.testing.assert_array_equal(late.token_scores, now.token_scores)


def test_a_pass_of_another_thread_leaves_a_method_alone(model_folder, picture, subtests):
    """The other thread's pass comes in the middle of the method's own, inside its hooks."""
    for method in ["mask_clip", "grad_eclip", "chefer"]:
        with subtests.test(repr(method)):
            own = nib.load(model_folder)
            alone = nib.attribute(own, picture, "a cat", method=method)
            other = torch.zeros(2, 3, 60, 60)

            def run_another(module, args, output):
                handle.remove()
                thread = threading.Thread(target=lambda: own.model.get_image_features(pixel_values=other))
                thread.start()
                thread.join()

            handle = own.model.vision_model.encoder.layers[-1].mlp.register_forward_hook(run_another)
            beside = nib.attribute(own, picture, "a cat", method=method)
            np.testing.assert_allclose(beside.image_scores, alone.image_scores, atol=1e-6)


def test_the_heads_of_a_bare_state_dict(tmp_path_factory, subtests):
    """open_clip's ViT-H-14, ViT-g-14 and ViT-bigG-14 have wider heads than 64, which no shape tells."""
    for width, heads in [(1280, 16), (1408, 16), (1664, 16), (128, 2)]:
        with subtests.test(f"{width} / {heads}"):
            tmp_path = tmp_path_factory.mktemp("row")
            config = make_config(2, hidden_size=width, num_attention_heads=heads, num_hidden_layers=1)
            torch.save(to_open_clip(CLIPModel(config)), tmp_path / "weights.pt")
            with pytest.warns(
                UserWarning, match=f"Nor does it say its heads: {{'vision': {heads}, 'text': 1}} are taken"
            ):
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


def test_a_config_of_wrong_values(model_folder, tmp_path_factory, subtests):
    for change, message in [
        ({"hidden_act": "quickgelu"}, "KeyError: 'quickgelu'"),
        ({"layer_norm_eps": "1e-5"}, "'layer_norm_eps'.* '1e-5'"),
        ({"patch_size": [12, 12]}, "TypeError: "),
    ]:
        with subtests.test(str(change)):
            tmp_path = tmp_path_factory.mktemp("row")
            for file in model_folder.iterdir():
                (tmp_path / file.name).write_bytes(file.read_bytes())
            config = json.loads((tmp_path / "config.json").read_text())
            config["vision_config"] |= change
            (tmp_path / "config.json").write_text(json.dumps(config))
            with pytest.raises(ValueError, match=message):
                nib.load(tmp_path)


def test_a_processor_folder_without_a_tokenizer(model_folder, tmp_path):
    bare, empty = tmp_path / "bare", tmp_path / "empty"
    bare.mkdir(), empty.mkdir()
    for file in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (bare / file).write_bytes((model_folder / file).read_bytes())
    with pytest.raises(ValueError, match=r"processor '.*empty' holds no tokenizer that can be read"):
        nib.load(bare, processor=empty)


def test_verify_says_what_it_does_not_use(own, capsys):
    with pytest.raises(ValueError, match="text needs a tokenizer"):
        verify(nib.HookedCLIP(own.model), text="a cat")
    main(["--json"])
    rows = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert rows[-1]["limit"] is None


# ---- tables


FRAMES = {
    "index of text": (pd.DataFrame({"drop": [1.0, 2.0]}, index=["nib", "gradcam"]), "must have a name, got 'nib'"),
    "index called like a column": (pd.DataFrame({"id": [1]}, index=pd.Index([2], name="id")), "got 'id' twice"),
    "tensors": (pd.DataFrame({"v": [torch.tensor(0.123456789)]}), "column 'v' holds"),
}


def test_a_table_that_would_lose_numbers(tmp_path_factory, subtests):
    for ending in ["csv", "parquet"]:
        for case, (frame, message) in FRAMES.items():
            with subtests.test(f"{ending} {frame} {case}"):
                tmp_path = tmp_path_factory.mktemp("row")
                with pytest.raises(ValueError, match=message):
                    save_table(frame, tmp_path / f"t.{ending}")
                assert not list(tmp_path.iterdir())


def test_a_csv_that_would_lose_numbers(tmp_path_factory, subtests):
    for frame, message in [
        (pd.DataFrame({"map": [np.arange(5000.0)]}), "column 'map' holds arrays: they would be cut"),
        (pd.DataFrame([[1, 2]], columns=["v", "v"]), "columns must have one name each"),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "columns must have one name each"),
    ]:
        with subtests.test(message):
            tmp_path = tmp_path_factory.mktemp("row")
            with pytest.raises(ValueError, match=message):
                save_table(frame, tmp_path / "t.csv")


def test_a_filtered_table_is_written(tmp_path):
    save_table(pd.DataFrame({"v": [1.0, 2.0, 3.0]})[1:], tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "v\n2.0\n3.0\n"


def test_compare_names_what_it_leaves_out():
    table = pd.DataFrame({"id": [1, 2, 3, "1", "2", "3"], "method": ["nib"] * 3 + ["cam"] * 3, "metric": "x"})
    with pytest.warns(UserWarning, match="not compared, for want of .*: x: cam"):
        assert not len(metrics.compare(table.assign(value=[1.0, 2, 3, 4, 5, 7]), ["metric"]))
    table = pd.DataFrame({"id": list("abc"), "method": "cam", "metric": "y", "value": 1.0})
    both = pd.concat([table, table.assign(metric="x"), table.assign(metric="x", method="nib")])
    with pytest.warns(UserWarning, match="not compared, .*: y: nib"):
        assert metrics.compare(both, ["metric"])["metric"].tolist() == ["x"]


def test_summarise_does_not_mix_metrics():
    table = pd.DataFrame({"method": "nib", "metric": ["image_drop", "image_increase"], "value": [1.0, 100.0]})
    with pytest.raises(ValueError, match=r"mixes the metrics \['image_drop', 'image_increase'\]"):
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


def test_pairs_that_have_no_numbers(clip):
    pairs = nib.datasets.load("scenes", limit=2).to_iterable_dataset()
    with pytest.raises(TypeError, match="pairs must be read by number, got IterableDataset"):
        nib.evaluate(clip, pairs, "random")


def test_a_part_under_the_name_of_another(clip, picture, tmp_path):
    pairs = [dict(id="x", text="a dog", image=picture)]
    first = nib.evaluate(clip, pairs, ["gradcam", "random"], output=tmp_path, progress=False)
    of_gradcam, of_random = sorted(tmp_path.iterdir())
    of_random.write_bytes(of_gradcam.read_bytes())
    with pytest.warns(UserWarning, match="is no part of this evaluation and is computed again"):
        again = nib.evaluate(clip, pairs, ["gradcam", "random"], output=tmp_path, progress=False)
    pd.testing.assert_frame_equal(first, again)


def test_a_path_of_nobody(clip, pixel_values):
    result = nib.attribute(clip, pixel_values[0], "a cat", method="random")
    with pytest.raises(ValueError, match=r"path must be a path, got '~nobody_x/p\.html'"):
        result.to_html("~nobody_x/p.html")


def test_a_result_survives_a_pickle(clip, pixel_values):
    result = nib.attribute(clip, pixel_values[0], "a cat", method="random")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(result)).image_scores, result.image_scores)


# ---- other families


def test_orthogonal_text_leaves_what_the_distractors_do_not_say(subtests):
    for family in FAMILIES:
        with subtests.test(repr(family)):
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
    for padded in [False, True]:
        for family in [name for name in FAMILIES if "siglip" in name]:
            with subtests.test(f"{padded} {family}"):
                clip = build(family)
                picture, text = draw_pictures(clip, "small", 1)[0], "a dog on the grass"
                options = dict(padding="max_length", max_length=clip.context_length) if padded else {}
                ids = clip.tokenizer(text, return_tensors="pt", **options)["input_ids"][0]
                by_text, by_ids = (nib.attribute(clip, picture, caption, n_steps=2) for caption in (text, ids))
                np.testing.assert_array_equal(by_ids.word_scores, by_text.word_scores)
                assert (by_ids.end_score, by_ids.padding_score) == (by_text.end_score, by_text.padding_score)
                between = [nib.interactions(clip, picture, caption, n_steps=2).scores for caption in (text, ids)]
                np.testing.assert_array_equal(*between)
                bare = nib.HookedCLIP(clip.model)
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


def test_a_config_is_no_model(model_folder):
    with pytest.raises(ValueError, match=r"config\.json holds no weights: pass the folder that it lies in"):
        nib.load(model_folder / "config.json")


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
    for case, (metric, kind, message) in WRONG.items():
        with subtests.test(f"{metric} {case}"), monkeypatch.context() as patch:
            patch.setitem(metrics.METRICS, "mine", metric)
            with pytest.raises(kind, match=message):
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


def test_no_part_is_kept_of_what_may_hold_anything(clip, pairs, monkeypatch, tmp_path_factory, subtests):
    for measure in [measure_by_class, measure_by_net, measure_by_partial]:
        with subtests.test(measure.__name__), monkeypatch.context() as patch:
            tmp_path = tmp_path_factory.mktemp("row")
            patch.setitem(metrics.METRICS, "z", metrics.Metric({"z": metrics.Value(None)}, measure))
            assert len(evaluate(clip, pairs, metrics=["z"]))
            with pytest.raises(ValueError, match="uses what is neither code nor numbers nor text, got z"):
                evaluate(clip, pairs, metrics=["z"], output=tmp_path)


def test_which_pair_has_no_absent_prompt(clip, pairs, subtests):
    for absent, message in [("", "absent of pair 'a dog': a caption must hold"), (None, "in row 1")]:
        with subtests.test(message):
            pairs[1] = (
                pairs[1] | {"absent": absent}
                if absent is not None
                else {k: pairs[1][k] for k in ("id", "image", "text")}
            )
            with pytest.raises(ValueError, match=message):
                evaluate(clip, pairs, metrics=["absent_prompt"])


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
    for hit in [1, 100]:
        for by in [["method"], ["method", "metric"]]:
            with subtests.test(f"{hit} {by}"):
                table = pd.DataFrame(
                    {"id": [*range(40)] * 2, "method": ["a"] * 40 + ["b"] * 40, "metric": "image_increase"}
                )
                table["value"] = [float(hit)] * 12 + [0.0] * 68
                found = metrics.summarise(table if "metric" in by else table.drop(columns="metric"), by).set_index(
                    "method"
                )
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
    for texts in ["ab", {"a", "b"}, {"a": "x", "b": "y"}, ["a", 3]]:
        with subtests.test(repr(texts)):
            two = nib.datasets.load("scenes", limit=2)
            assert nib.datasets.replace_texts(two, ("a", "b"))["text"][:] == ["a", "b"]
            with pytest.raises(TypeError, match="texts must be a list of captions in the order of the rows, got"):
                nib.datasets.replace_texts(two, texts)
            with pytest.raises(ValueError, match="texts must be 2, one a row, got 3"):
                nib.datasets.replace_texts(two, ["a", "b", "c"])


def test_rows_that_repeat():
    table = pd.DataFrame({"id": ["x", "x"], "method": "nib", "value": [1.0, 2.0]})
    with pytest.raises(ValueError, match="a column must tell its rows apart, or they repeat"):
        metrics.summarise(table, "method")


def test_tabs_are_no_commas(tmp_path):
    (tmp_path / "t.csv").write_text("file_name\ttext\n0.png\ta cat, a dog\n")
    with pytest.raises(ValueError, match="must be divided by commas, got the header"):
        nib.datasets.load(tmp_path / "t.csv")


def test_semicolons_and_brackets(picture, tmp_path):
    (tmp_path / "t.csv").write_text("file_name;caption\n0.png;a dog\n1.png;a cat, asleep\n")
    with pytest.raises(ValueError, match="must be divided by commas, got the header 'file_name;caption'"):
        nib.datasets.load(tmp_path / "t.csv")
    (folder := tmp_path / "photos [2023]").mkdir()
    pd.DataFrame({"image": [b"a"], "text": ["a"]}).to_parquet(folder / "test-00000-of-00001.parquet")
    with pytest.raises(FileNotFoundError, match="takes for a pattern: rename it"):
        nib.datasets.load(folder)
