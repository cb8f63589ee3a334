"""What stands around a call, broken model files and odd values change no number: they are kept out, or refused."""

import copy
import json
import pickle
import shutil
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CAPTIONS, make_config, randomise
from PIL import Image
from safetensors.torch import load_file, save_file
from test_open_clip import describe, to_open_clip
from tokenizers.processors import TemplateProcessing
from transformers import CLIPImageProcessorPil, CLIPModel

import nib

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8))
FEW = {
    "rise": dict(n_masks=8, text_masks=8),
    "lime": dict(n_samples=10),
    "m2ib": dict(n_steps=2, n_noise=2),
    "agi": dict(n_steps=2),
}


def explain(clip, method="nib", picture=PICTURE, text=CAPTIONS[1], **parameters):
    return nib.attribute(clip, picture, text, method=method, progress=False, **FEW.get(method, {}), **parameters)


def assert_same(one, other):
    assert np.array_equal(one.image_scores, other.image_scores)
    assert np.array_equal(one.token_scores, other.token_scores)
    assert one.similarity == other.similarity


# ------------------------------------------------------------- around a call
AROUND = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def test_what_is_around_a_call_changes_nothing(model_folder, subtests):
    clip, tensor = nib.load(model_folder), torch.randn(3, 60, 60, generator=torch.Generator().manual_seed(0))
    for method in ("nib", "gradcam", "chefer", "m2ib", "agi", "lime", "legrad", "grad_eclip", "rise"):
        expected, of_tensor = explain(clip, method), explain(clip, method, tensor)
        for name, around in AROUND.items():
            with subtests.test(f"{method} {name}"), around():
                assert_same(explain(clip, method), expected)
                assert_same(explain(clip, method, tensor.clone()), of_tensor)


def test_what_is_around_interactions_changes_nothing(model_folder, subtests):
    expected = nib.interactions(nib.load(model_folder), PICTURE, CAPTIONS[1], batch_size=np.int64(7)).scores
    for name, around in AROUND.items():
        with subtests.test(name), around():
            clip = nib.load(model_folder)
            found = nib.interactions(clip, PICTURE, CAPTIONS[1], batch_size=7, lambda_min=Fraction(0))
            assert np.array_equal(found.scores, expected)


def test_the_default_dtype_changes_nothing(clip, subtests):
    for method in ("m2ib", "rise", "lime", "random", "center", "objectness", "none"):
        expected = explain(clip, method)
        for dtype in (torch.float64, torch.bfloat16):
            with subtests.test(f"{method} {dtype}"):
                torch.set_default_dtype(dtype)
                try:
                    found = explain(clip, method)
                finally:
                    torch.set_default_dtype(torch.float32)
                assert np.allclose(found.image_scores, expected.image_scores, rtol=1e-7, atol=0)  # Adam counts in it
                assert np.allclose(found.token_scores, expected.token_scores, rtol=1e-7, atol=0)


def test_dropout_is_off_while_a_method_runs(tokenizer, image_processor):
    config = make_config(attention_dropout=0.5)
    config.text_config.attention_dropout = 0.5
    clip = nib.HookedCLIP(randomise(CLIPModel(config)), tokenizer, image_processor)
    expected, between = explain(clip), nib.interactions(clip, PICTURE, CAPTIONS[0]).scores
    clip.model.train()
    assert_same(explain(clip), expected)
    assert np.array_equal(nib.interactions(clip, PICTURE, CAPTIONS[0]).scores, between)
    assert all(module.training for module in clip.model.modules())
    with pytest.raises(ValueError, match="layer must be"), clip.ready():
        clip.layers(99)
    assert clip.model.training


def test_a_copy_has_its_own_towers(clip, subtests):
    expected = explain(clip)
    for name, copied in {"copy": copy.deepcopy, "pickle": lambda clip: pickle.loads(pickle.dumps(clip))}.items():
        with subtests.test(name):
            other = copied(clip)
            assert_same(explain(other), expected)
            other.model.visual_projection.weight.data.mul_(-1)
            assert explain(other).similarity == pytest.approx(-expected.similarity)
            assert_same(explain(clip), expected)
            assert other.lock is not clip.lock


def test_a_model_that_is_opened_twice_is_held_by_one_thread(clip, tokenizer, image_processor):
    other = nib.HookedCLIP(clip.model, tokenizer, image_processor)
    assert other.lock is clip.lock
    expected, found = explain(clip, "chefer"), []
    clips = [clip, other] * 3
    threads = [threading.Thread(target=lambda own=own: found.append(explain(own, "chefer"))) for own in clips]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(clips)
    for result in found:
        assert_same(result, expected)


def test_parameters_that_want_gradients_change_nothing(clip, subtests):
    for method, parameters in {"nib": {"target": "logit"}, "chefer": {}}.items():
        with subtests.test(method):
            expected, own = explain(clip, method, **parameters), copy.deepcopy(clip)
            own.model.requires_grad_(True)
            assert_same(explain(own, method, **parameters), expected)


# ------------------------------------------------------------- values
WRONG = [
    *(("nib", {"rectified": value}, ValueError, "rectified must be True or False") for value in ("no", np.nan, [3])),
    ("gradcam", {"pool_gradients": object()}, ValueError, "pool_gradients must be True or False"),
    ("rise", {"by_coverage": "no"}, ValueError, "by_coverage must be True or False"),
    ("rise", {"p": True}, ValueError, r"p must be in \(0, 1\], got True"),
    ("nib", {"truncate": "no"}, ValueError, "truncate must be True or False"),
    *(("rise", {"seed": value}, ValueError, "seed must be") for value in (1.5, "a", None, True, 2**64)),
    *(("nib", {"preset": value}, ValueError, "preset must be one of") for value in ([], {})),
    *(("nib", {name: np.zeros(2)}, ValueError, f"{name} must be") for name in ("baseline", "target", "rectified")),
    (["nib"], {}, KeyError, "method must be one of"),
    ("m2ib", {"lr": 1e308}, ValueError, r"lr must be more than 0 and finite, at most 1e\+30"),
    ("m2ib", {"beta": 1e308}, ValueError, "beta must be at least 0 and finite, at most"),
    ("agi", {"step_size": 1e38}, ValueError, "step_size must be more than 0 and finite, at most"),
    ("mfaba", {"step_size": 10**400}, ValueError, "step_size must be more than 0 and finite, at most"),
    ("center", {"sigma": 1e308}, ValueError, "sigma must be more than 0 and finite, at most"),
    ("m2ib", {"n_steps": 10_000, "n_noise": 100}, ValueError, r"n_steps \* n_noise must be at most 10,000"),
    ("rise", {"n_masks": 10**6, "grid": 36}, ValueError, r"n_masks \* grid \*\* 2 must be at most 100,000,000"),
    ("nib", {"quadrature": "gausslegendre", "n_steps": 1001}, ValueError, "raise nib.limits.legendre"),
    ("nib", {"batch_size": 10**30}, ValueError, "raise nib.limits.samples"),
]


def test_odd_parameters_are_refused(clip, subtests):
    for method, parameters, error, message in WRONG:
        with subtests.test(f"{method} {parameters}"), pytest.raises(error, match=message):
            nib.attribute(clip, PICTURE, "a cat", method=method, **parameters)


def test_fractions_and_large_numbers_are_numbers(clip):
    assert_same(explain(clip, "center", sigma=Fraction(1, 2)), explain(clip, "center", sigma=0.5))
    assert_same(explain(clip, "m2ib", beta=Fraction(1, 8)), explain(clip, "m2ib", beta=0.125))
    assert explain(clip, "lime", alpha=10**30).similarity
    found = explain(clip, lambda_min=(Fraction(1, 4), np.float32(0.5)), baseline=["zero", "mean"])
    assert_same(found, explain(clip, lambda_min=(0.25, 0.5), baseline=("zero", "mean")))
    json.dumps(found.to_dict())


def test_results_that_are_not_finite_are_refused(clip, model_folder):
    with pytest.raises(ValueError, match=r"center must give finite scores, got NaN or infinity in image.*1e-200"):
        explain(clip, "center", sigma=1e-200)
    with pytest.raises(ValueError, match="nib must give finite scores"):
        explain(clip, baseline=(torch.full((2, 32), 1e308, dtype=torch.float64), "zero"))
    own = copy.deepcopy(clip)
    own.model.logit_scale.data.fill_(1000)
    for method, options in (("chefer", {}), ("nib", {"target": "logit"})):
        with pytest.raises(ValueError, match=f"{method} must give finite scores"):
            explain(own, method, **options)
    huge = nib.load(model_folder)
    huge.model.vision_model.post_layernorm.weight.data.fill_(1e30)
    huge.model.visual_projection.weight.data.fill_(1e30)
    with pytest.raises(ValueError, match="the model's weights or config"):
        explain(huge)
    with pytest.raises(ValueError, match="interactions must be finite"):
        nib.interactions(huge, PICTURE, "a cat")


def test_weights_of_two_types_are_refused(clip, pixel_values, tokens):
    own = copy.deepcopy(clip)
    own.model.vision_model.half()
    for call in (nib.attribute, nib.interactions):
        with pytest.raises(ValueError, match=r"weights must be of one type, got torch\.float16, torch\.float64"):
            call(own, PICTURE, "a cat")
    with pytest.raises(ValueError, match="weights must be of one type"):
        nib.METHODS["chefer"](own, pixel_values, **tokens)


def test_a_default_device_without_numbers_is_refused(clip):
    torch.set_default_device("meta")
    try:
        with pytest.raises(ValueError, match="default device must be one that holds numbers, got meta"):
            explain(clip)
    finally:
        torch.set_default_device(None)


SEVERAL = {
    "table": pd.DataFrame({"text": ["a cat"]}),
    "set": {"a cat", "a dog"},
    "dict": {"text": "a cat"},
    "keys": {"a cat": 1}.keys(),
}


def test_several_need_an_order(clip, subtests):
    for case, several in SEVERAL.items():
        with subtests.test(case):
            for call in (nib.attribute, nib.interactions):
                with pytest.raises(TypeError, match=r"texts? must be one, or a list or a column of a table, in order"):
                    call(clip, PICTURE, several)
            with pytest.raises(TypeError, match="images must be one, or a list"):
                nib.attribute(clip, several, "a cat")


# picture or a function of a folder, error, what the message says


TEXTS = {
    "half a pair": ("a \ud83d dog", "a caption must be Unicode"),
    "a book": ("dog " * 10_000, "a caption must have at most 32,000 letters, got 40,000"),
    "complex ids": (torch.tensor([1329 + 0j, 3, 1330]), "1-d tensor"),
    "flags": (torch.tensor([True, False, True]), "1-d tensor"),
    "sparse ids": (torch.tensor([1329, 320, 1330]).to_sparse(), "must be a dense tensor"),
}


def test_odd_captions_are_refused(clip, subtests):
    for case, (text, message) in TEXTS.items():
        for truncate in (False, True):
            with subtests.test(f"{case} {truncate}"), pytest.raises(ValueError, match=message):
                explain(clip, text=text, truncate=truncate)
    for text in (None, 5, Path("a cat")):
        with subtests.test(f"interactions {text}"), pytest.raises(TypeError, match="a caption must be a str"):
            nib.interactions(clip, PICTURE, text)


def test_a_rectified_plot_says_what_its_sums_are(clip):
    assert "before negative scores were set to 0" in explain(clip, rectified=True).plot().get_suptitle()
    assert "before" not in explain(clip).plot().get_suptitle()


def test_a_heatmap_has_two_sides(clip, subtests):
    result = explain(clip, "none")
    for size in (5, (5,), (0, 5), (2.5, 3), "ab"):
        with subtests.test(str(size)), pytest.raises(ValueError, match=r"size must be|must be a whole number"):
            result.heatmap(size)
    with pytest.raises(ValueError, match="size must be at most 150,000,000 pixels, got 40000 x 40000"):
        result.heatmap((40_000, 40_000))
    result.image_scores = np.where(np.eye(5), np.nan, result.image_scores)
    with pytest.raises(ValueError, match="scores of a heat map must be finite"):
        result.heatmap()


# ------------------------------------------------------------- files of a model
def copy_folder(model_folder, tmp_path_factory):
    return Path(shutil.copytree(model_folder, tmp_path_factory.mktemp("row") / "model"))


def edit(name, **changes):
    """Return a function that changes values of a JSON file of a folder; two underscores go a level down."""

    def change(folder):
        content = json.loads((folder / name).read_text())
        for key, value in changes.items():
            *levels, last = key.split("__")
            inner = content
            for level in levels:
                inner = inner[level]
            inner[last] = value
        (folder / name).write_text(json.dumps(content))

    return change


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def cast(dtype):
    def change(folder):
        state = load_file(folder / "model.safetensors")
        state["visual_projection.weight"] = state["visual_projection.weight"].to(dtype)
        save_file(state, folder / "model.safetensors")

    return change


def lose_shard(folder):
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"logit_scale": "model-1.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def cut_weights(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
FOLDERS = {
    "config: no JSON": (write("config.json", b"{"), "are broken"),
    "config: empty": (write("config.json", b""), "are broken"),
    "config: bytes": (write("config.json", b"\xff\xfe\x00"), "are broken"),
    "config: a list": (write("config.json", b"[]"), "broken|no model that transformers knows"),
    "config: no heads": (edit("config.json", vision_config__num_attention_heads=0), "are broken"),
    "config: 5 heads": (edit("config.json", vision_config__num_attention_heads=5), "are broken"),
    "config: no patch": (edit("config.json", vision_config__patch_size=0), "are broken"),
    "config: patch a word": (edit("config.json", vision_config__patch_size="12"), "are broken"),
    "config: patch 11": (edit("config.json", vision_config__patch_size=11), "of another shape: .*patch_embedding"),
    "config: another side": (edit("config.json", vision_config__image_size=72), "of another shape"),
    "config: vocabulary": (edit("config.json", text_config__vocab_size=1400), "of another shape: .*token_embedding"),
    "config: projection": (edit("config.json", projection_dim=8), "of another shape: .*projection"),
    "config: activation": (edit("config.json", text_config__hidden_act="bogus"), "are broken"),
    "config: one word": (
        edit("config.json", vision_config__hidden_act="quickgelu"),
        "KeyError: 'quickgelu'",
    ),
    "config: eps a word": (
        edit("config.json", vision_config__layer_norm_eps="1e-5"),
        "'layer_norm_eps'.* '1e-5'",
    ),
    "config: two patches": (edit("config.json", vision_config__patch_size=[12, 12]), "TypeError: "),
    "config: no end": (edit("config.json", text_config__eos_token_id=None), "eos_token_id of the text config must be"),
    "weights: cut": (cut_weights, "are broken"),
    "weights: empty": (write("model.safetensors", b""), "are broken"),
    "weights: a pointer": (write("model.safetensors", POINTER), "are broken"),
    "weights: no file": (lambda folder: (folder / "model.safetensors").unlink(), "are broken"),
    "weights: no shard": (lose_shard, "No such file"),
    **{
        f"weights: {dtype}": (cast(dtype), "must be floating-point numbers, got visual_projection.weight")
        for dtype in (torch.int8, torch.bool, torch.complex64)
    },
    "processor: no std": (edit("preprocessor_config.json", image_std=[0.2, 0, 0.2]), "image_std of the image proc"),
    "processor: negative std": (edit("preprocessor_config.json", image_std=[-0.2] * 3), "image_std of the image proc"),
    "processor: NaN mean": (edit("preprocessor_config.json", image_mean=[np.nan] * 3), "image_mean of the image proc"),
    "processor: 2 means": (edit("preprocessor_config.json", image_mean=[0.5] * 2), "image_mean of the image proc"),
    "processor: no size": (edit("preprocessor_config.json", size={"shortest_edge": 0}), "size of the image proc"),
    "processor: -3": (edit("preprocessor_config.json", crop_size={"height": -3, "width": 9}), "size of the image proc"),
}


def test_broken_folders_are_refused(model_folder, tmp_path_factory, subtests):
    for case, (change, message) in FOLDERS.items():
        with subtests.test(case):
            folder = copy_folder(model_folder, tmp_path_factory)
            change(folder)
            with pytest.raises((ValueError, FileNotFoundError), match=message) as found:
                nib.load(folder)
            assert type(found.value) in (ValueError, FileNotFoundError)


def test_a_broken_processor_is_said(model_folder, tmp_path_factory, subtests):
    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        folder = copy_folder(model_folder, tmp_path_factory)
        (folder / name).write_text("[]")
        with subtests.test(name), pytest.warns(UserWarning, match=r"cannot read .*"):
            nib.load(folder)


def test_parts_that_do_not_belong_together_are_refused(clip, model_folder, tmp_path_factory, subtests):
    folder = copy_folder(model_folder, tmp_path_factory)
    edit("config.json", text_config__eos_token_id=7)(folder)
    with pytest.raises(ValueError, match=r"belong together: .*the end at place 3, and the model finds it at 0"):
        explain(nib.load(folder), text="a cat")
    ends = {"$A": "no token after the words", "$A <|endoftext|>": "no token before the words"}
    for template, reason in ends.items():
        other = copy.deepcopy(clip)
        special = [("<|endoftext|>", 1330)] if "end" in template else []
        other.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=special)
        message = f"the tokenizer and the model do not belong together: .*{reason}"
        with subtests.test(template), pytest.raises(ValueError, match=message):
            explain(other, text="a cat")
    small = CLIPImageProcessorPil(size={"shortest_edge": 5}, crop_size=5)
    with pytest.raises(ValueError, match=r"the image processor and the model do not belong together: .*patch size 12"):
        explain(nib.HookedCLIP(clip.model, clip.tokenizer, small))


def test_a_picture_that_is_not_normalised_is_shown_as_it_is(clip):
    plain = CLIPImageProcessorPil(size={"shortest_edge": 60}, crop_size=60, do_normalize=False)
    clip = nib.HookedCLIP(clip.model, clip.tokenizer, plain)
    grey = Image.new("RGB", (60, 60), (128, 128, 128))
    assert set(np.unique(explain(clip, "none", picture=grey).picture)) == {128}


LOADS = {
    **{f"device {device}": (dict(device=device), ValueError, "device must be") for device in ("foo", 5, "meta", [])},
    "float8": (dict(dtype="float8_e4m3fn"), ValueError, "dtype must be a floating-point torch dtype"),
    **{f"name {value}": (dict(name=value), TypeError, "must be a str or a Path") for value in (5, True, b"openai", [])},
    "long name": (dict(name="x/" + "y" * 500), FileNotFoundError, "no model at"),
    "nobody's home": (dict(name="~nosuchuser/x/y"), FileNotFoundError, "no model at"),
    "activation": (dict(quick_gelu=True), ValueError, "quick_gelu is for weights of open_clip"),
    "activation a word": (dict(quick_gelu="no"), ValueError, "quick_gelu must be True or False"),
    "strict": (dict(strict="no"), ValueError, "strict must be True or False"),
    "no processor": (dict(processor="/no/such/folder"), FileNotFoundError, "no model at '/no/such/folder'"),
}


def test_odd_calls_of_load_are_refused(model_folder, subtests):
    for case, (options, error, message) in LOADS.items():
        with subtests.test(case), pytest.raises(error, match=message):
            nib.load(**{"name": model_folder, **options})


# ------------------------------------------------------------- open_clip
@pytest.fixture(scope="module")
def open_state():
    return to_open_clip(randomise(CLIPModel(make_config(2))))


CONFIGS = {
    **{
        f"{name}={value}": (lambda name=name, value=value: describe(**{name: value}), message)
        for name, value, message in (
            ("vision_cfg__width", 64, "vision_cfg says width=64, and the weights say 32"),
            ("vision_cfg__layers", 24, "vision_cfg says layers=24, and the weights say 4"),
            ("vision_cfg__heads", 2, "vision_cfg says heads=2"),
            ("vision_cfg__head_width", 0, "head_width of vision_cfg must be"),
            ("text_cfg__width", 512, "text_cfg says width=512, and the weights say 32"),
            ("text_cfg__heads", 5, "broken"),
            ("embed_dim", 8, "embed_dim=8, and the weights say 16"),
            ("quick_gelu", "false", "quick_gelu must be True or False"),
            ("vision_cfg", None, "must hold vision_cfg as an object"),
        )
    },
    **{
        f"preprocess {changes}": (lambda changes=changes: {**describe(), "preprocess_cfg": changes}, message)
        for changes, message in (
            ({"interpolation": "random"}, "interpolation of preprocess_cfg must be one of"),
            ({"resize_mode": "longest"}, "resize_mode of preprocess_cfg must be one of"),
            ({"size": 64}, "size of preprocess_cfg must be that of the model, 60"),
            ({"std": [0, 1, 1]}, "image_std of the image processor"),
            ({"mean": "abc"}, "image_mean of the image processor|broken"),
            (None, "must hold preprocess_cfg as an object"),
        )
    },
    "list": (list, "must hold model_cfg as an object"),
    "no JSON": (lambda: "{", "must be JSON"),
}


@pytest.mark.filterwarnings("ignore:.*will be understood")
def test_configs_of_open_clip_that_do_not_fit(tmp_path, open_state, subtests):
    save_file(open_state, tmp_path / "open_clip_model.safetensors")
    for case, (make, message) in CONFIGS.items():
        with subtests.test(case):
            made = make()
            (tmp_path / "open_clip_config.json").write_text(made if isinstance(made, str) else json.dumps(made))
            with pytest.raises(ValueError, match=message) as found:
                nib.load(tmp_path)
            assert type(found.value) is ValueError


@pytest.mark.filterwarnings("ignore:.*will be understood")
def test_open_clip_resizes_as_its_config_says(tmp_path, open_state):
    content = {**describe(), "preprocess_cfg": {"interpolation": "bilinear", "size": [60, 60], "mode": "RGB"}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    save_file(open_state, tmp_path / "open_clip_model.safetensors")
    assert nib.load(tmp_path).image_processor.resample == Image.Resampling.BILINEAR


def replace(name, change):
    return lambda state: state | {name: change(state[name])}


STATES = {
    "numbers as names": (lambda state: {3: torch.zeros(2)}, "state dict of tensors by name"),
    "a block x": (lambda state: state | {"transformer.resblocks.x.ln_1.bias": torch.zeros(32)}, "does not fit"),
    "2-d conv": (replace("visual.conv1.weight", lambda value: value.flatten(1)), "must have 4 dimensions"),
    "4 channels": (replace("visual.conv1.weight", lambda value: value[:, [0, 1, 2, 0]]), "does not fit: .*patch_emb"),
    "oblong patch": (replace("visual.conv1.weight", lambda value: value[:, :, :, :6]), "does not fit: .*patch_emb"),
    "7 places": (replace("visual.positional_embedding", lambda value: value[:7]), "does not fit: .*position_emb"),
    "1-d projection": (replace("text_projection", lambda value: value[0]), "must have 2 dimensions"),
    "short bias": (replace("ln_final.bias", lambda value: value[:-1]), "does not fit: .*final_layer_norm"),
    "whole numbers": (replace("ln_final.bias", torch.Tensor.char), "dense floating-point weights, got torch.int8"),
    "complex": (replace("ln_final.bias", lambda value: value + 0j), "dense floating-point weights"),
    "sparse": (replace("ln_final.bias", torch.Tensor.to_sparse), "dense floating-point weights"),
}


def test_weights_of_open_clip_that_do_not_fit(tmp_path, open_state, subtests):
    for case, (change, message) in STATES.items():
        torch.save(change(open_state), tmp_path / "model.pt")
        with subtests.test(case), pytest.raises(ValueError, match=message):
            nib.load(tmp_path / "model.pt", quick_gelu=True)
    for name in ("model.safetensors", "model.pt"):
        (tmp_path / name).write_bytes(b"abc")
        with subtests.test(name), pytest.raises(ValueError, match=r"must hold tensors alone|are broken"):
            nib.load(tmp_path / name, quick_gelu=True)
