"""Every kind of picture and caption is understood, or refused with the reason."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CAPTIONS, make_config, randomise
from PIL import Image
from transformers import CLIPModel

import nib
from nib.inputs import to_picture, to_pixel_values, to_tokens

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tokenizer, image_processor):
    """A model for what does not depend on how it pools a caption."""
    return nib.HookedCLIP(randomise(CLIPModel(make_config())).double(), tokenizer, image_processor)


@pytest.fixture
def picture():
    """Blocks of random colours, as large as the model takes."""
    return Image.fromarray(COLOURS.repeat(12, 0).repeat(12, 1))


@pytest.fixture
def no_processors(model):
    return nib.HookedCLIP(model.model)


def words_of(model, *captions, **options):
    return [words for *_, words in to_tokens(model, list(captions), **options)[2]]


def test_path(model, picture, tmp_path, subtests):
    for number, kind in enumerate([str, Path]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with subtests.test(kind.__name__):
            picture.save(folder / "blocks.png")
            pixel_values = to_pixel_values(model, kind(folder / "blocks.png"))
            assert pixel_values.shape == (1, 3, 60, 60)
            assert pixel_values.dtype == model.dtype
            assert torch.equal(pixel_values, to_pixel_values(model, picture))

    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the top of the scene is at the right of the file
    picture.rotate(90).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(to_pixel_values(model, tmp_path / "turned.png"), to_pixel_values(model, picture))


def test_any_mode_counts_as_its_rgb(model, picture, subtests):
    for mode in ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"]:
        with subtests.test(mode):
            other = picture.convert(mode)
            assert torch.equal(to_pixel_values(model, other), to_pixel_values(model, other.convert("RGB")))


def test_any_size_is_brought_to_the_models(model, subtests):
    for size in [(1, 1), (3, 3), (1, 40), (200, 4), (90, 61)]:
        with subtests.test(str(size)):
            plain = to_pixel_values(model, Image.new("RGB", (60, 60), (200, 20, 90)))
            pixel_values = to_pixel_values(model, Image.new("RGB", size, (200, 20, 90)))
            torch.testing.assert_close(pixel_values, plain, atol=1e-6, rtol=0)


def test_arrays(model, picture):
    array = np.array(picture)
    expected = to_pixel_values(model, picture)
    assert torch.equal(to_pixel_values(model, array), expected)
    assert torch.equal(to_pixel_values(model, array / 255), expected)
    assert torch.equal(to_pixel_values(model, (array / 255).astype(np.float32)), expected)
    assert torch.equal(to_pixel_values(model, np.full((60, 60), 0.999)), to_pixel_values(model, np.ones((60, 60))))
    opaque = np.dstack([array, np.full_like(array[..., 0], 255)])
    assert torch.equal(to_pixel_values(model, opaque), expected)
    assert torch.equal(to_pixel_values(model, array[..., 0]), to_pixel_values(model, picture.getchannel("R")))


def test_array_of_the_wrong_rank_or_values(model, subtests):
    for shape in [(60,), (60, 60, 1), (60, 60, 2), (3, 60, 60), (1, 60, 60, 3), (0, 60, 3)]:
        message = r"an array must be \(height, width\) or .* got shape"
        with subtests.test(str(shape)), pytest.raises(ValueError, match=message):
            to_pixel_values(model, np.zeros(shape, np.uint8))

    cases = [
        (np.full((60, 60, 3), np.nan), "must be finite"),
        (np.full((60, 60), np.inf), "must be finite"),
        (np.full((60, 60), 1.5), r"must lie in \[0, 1\], got \[1.5, 1.5\]"),
        (np.full((60, 60), -0.5), r"must lie in \[0, 1\]"),
        (np.zeros((60, 60), int), "uint8 or floats .* got int64"),
        (np.zeros((60, 60), bool), "uint8 or floats .* got bool"),
    ]
    for array, message in cases:
        with subtests.test(f"{array.dtype}, {message}"), pytest.raises(ValueError, match=message):
            to_pixel_values(model, array)


def test_tensor_is_taken_as_it_is(model, pixel_values):
    assert torch.equal(to_pixel_values(model, pixel_values[0]), pixel_values[:1])
    assert to_pixel_values(model, pixel_values[0].float()).dtype == model.dtype
    assert to_pixel_values(model, pixel_values[0, :, :24, :36]).shape == (1, 3, 24, 36)


def test_tensor_of_the_wrong_shape_or_values(model, subtests):
    for shape in [(60, 60), (1, 60, 60), (60, 60, 3), (1, 3, 60, 60), (3, 11, 60)]:
        with (
            subtests.test(str(shape)),
            pytest.raises(
                ValueError, match=r"floats of shape \(3, height, width\), each side at least the patch size 12"
            ),
        ):
            to_pixel_values(model, torch.zeros(shape))

    with pytest.raises(ValueError, match=r"must be floats .* got torch.uint8"):
        to_pixel_values(model, torch.zeros(3, 60, 60, dtype=torch.uint8))
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="pixel values must be finite"):
            to_pixel_values(model, torch.zeros(3, 60, 60).index_fill(1, torch.tensor([7]), value))


def test_something_that_is_no_picture(model, tmp_path, picture, subtests):
    for other in [None, 3, b"bytes", [1, 2]]:
        message = f"a picture must be .* got {type(other).__name__}"
        with subtests.test(str(other)), pytest.raises(TypeError, match=message):
            to_pixel_values(model, other)

    with pytest.raises(FileNotFoundError, match=r"no picture at .*nothing\.png"):
        to_pixel_values(model, tmp_path / "nothing.png")

    picture.save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    for content in (b"no picture at all", b"", whole[: len(whole) // 2]):
        (tmp_path / "broken.png").write_bytes(content)
        with pytest.raises(ValueError, match="cannot read the picture"):
            to_pixel_values(model, tmp_path / "broken.png")
    with pytest.raises(ValueError, match="cannot read the picture"):
        to_pixel_values(model, tmp_path)

    for dtype in [np.uint16, np.int32, np.float32]:
        with subtests.test(str(dtype)), pytest.raises(ValueError, match="8 bits a channel, got mode"):
            to_pixel_values(model, Image.fromarray(np.full((8, 8), 1, dtype)))


def test_normalisation_is_undone_for_plots(model, no_processors, picture, pixel_values):
    assert np.array_equal(to_picture(model, to_pixel_values(model, picture)), np.array(picture))
    unknown = to_picture(no_processors, pixel_values[:1])
    assert (unknown.shape, unknown.dtype, unknown.min(), unknown.max()) == ((60, 60, 3), np.uint8, 0, 255)
    assert not to_picture(no_processors, torch.ones(1, 3, 60, 60)).any()


def test_captions_are_padded_to_the_longest(clip, tokens):
    input_ids, attention_mask, _ = to_tokens(clip, CAPTIONS)
    assert torch.equal(input_ids, tokens["input_ids"])
    assert torch.equal(attention_mask, tokens["attention_mask"])


def test_sub_words_are_merged(model):
    tokens, word_ids, words = to_tokens(model, ["A hippopotamus, naïve  42🐱"])[2][0]
    assert words == ["A", "hippopotamus", ",", "naïve", "4", "2", "🐱"]  # CLIP takes digits one by one
    assert len(tokens) == len(word_ids) > len(words) + 2
    assert (word_ids[0], word_ids[-1]) == (None, None)
    assert word_ids[1:-1] == sorted(word_ids[1:-1])
    assert set(word_ids[1:-1]) == set(range(len(words)))
    merged = ["".join(token for token, word in zip(tokens, word_ids) if word == index) for index in (0, 1, 4)]
    assert merged == ["a", "hippopotamus", "4"]


def test_words_are_slices_of_the_caption_in_order(model, subtests):
    cases = ["a dog next to a dog", "It's a DOG's tail.", "  two\tspaces \n", "(un)real"]
    for caption in cases:
        with subtests.test(str(caption)):
            (words,) = words_of(model, caption)
            assert "".join(words) == "".join(caption.split())


def test_something_that_is_no_caption(model, subtests):
    for caption in ["", " ", "\t\n"]:
        with subtests.test(str(caption)), pytest.raises(ValueError, match="at least one word, got"):
            to_tokens(model, ["a cat", caption])

    for caption in [None, 7, b"a cat", ["a cat"]]:
        message = f"a caption must be a str .* got {type(caption).__name__}"
        with subtests.test(str(caption)), pytest.raises(TypeError, match=message):
            to_tokens(model, [caption])

    cases = [
        (torch.tensor([[1329, 320, 1330]]), "1-d tensor"),
        (torch.tensor([1329.0, 320.0, 1330.0]), "1-d tensor"),
        (torch.tensor([1329, 1330]), "at least one token"),
        (torch.full((33,), 320), "at most 32 in all"),
        (torch.tensor([1329, 1331, 1330]), r"in \[0, 1331\), got \[1329, 1331\]"),
        (torch.tensor([1329, -1, 1330]), r"in \[0, 1331\), got \[-1, 1330\]"),
    ]
    for ids, message in cases:
        with subtests.test(f"{ids}, {message}"), pytest.raises(ValueError, match=message):
            to_tokens(model, [ids])


def test_too_long_caption_and_one_that_just_fits(clip, model):
    caption = "a cat " * 20
    with pytest.raises(ValueError, match=r"the caption has 42 tokens, the model's context is 32.*truncate=True"):
        to_tokens(clip, [caption])
    with pytest.warns(UserWarning, match="42 tokens, the model's context is 32: its end is cut off"):
        input_ids, attention_mask, words = to_tokens(clip, [caption], truncate=True)
    assert input_ids.shape == (1, 32)
    assert attention_mask.all()
    assert input_ids[0, [0, -1]].tolist() == [1329, 1330]
    assert words[0][2] == ["a", "cat"] * 15

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_tokens(model, ["cat " * 30])[0].shape == (1, 32)


def test_token_ids(clip, tokens):
    ids = tokens["input_ids"][0, :4]
    for each in (clip, nib.HookedCLIP(clip.model)):
        input_ids, attention_mask, words = to_tokens(each, [ids, tokens["input_ids"][1, :11]])
        assert input_ids.shape == attention_mask.shape == (2, 11)
        assert input_ids[0].tolist() == [*ids.tolist(), *[1330] * 7]
        assert attention_mask.sum(1).tolist() == [4, 11]
        assert words[0] == (["1329", "320", "1103", "1330"], [None, 0, 1, None], ["320", "1103"])


def test_inputs_that_need_a_processor(no_processors, picture):
    with pytest.raises(ValueError, match="without an image processor"):
        to_pixel_values(no_processors, picture)
    with pytest.raises(ValueError, match="without a tokenizer"):
        to_tokens(no_processors, ["a cat"])
