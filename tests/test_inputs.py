"""Every kind of picture and caption is understood, or refused with the reason."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CAPTIONS
from PIL import Image

import nib
from nib.inputs import to_picture, to_pixel_values, to_tokens

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)


@pytest.fixture
def picture():
    """Blocks of random colours, as large as the model takes."""
    return Image.fromarray(COLOURS.repeat(12, 0).repeat(12, 1))


@pytest.fixture
def no_processors(clip):
    return nib.HookedCLIP(clip.model)


def words_of(clip, *captions, **options):
    return [words for *_, words in to_tokens(clip, list(captions), **options)[2]]


@pytest.mark.parametrize("kind", [str, Path])
def test_path(clip, picture, tmp_path, kind):
    picture.save(tmp_path / "blocks.png")
    pixel_values = to_pixel_values(clip, kind(tmp_path / "blocks.png"))
    assert pixel_values.shape == (1, 3, 60, 60)
    assert pixel_values.dtype == clip.dtype
    assert torch.equal(pixel_values, to_pixel_values(clip, picture))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_any_mode_counts_as_its_rgb(clip, picture, mode):
    other = picture.convert(mode)
    assert torch.equal(to_pixel_values(clip, other), to_pixel_values(clip, other.convert("RGB")))


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (1, 40), (200, 4), (90, 61)])
def test_any_size_is_brought_to_the_models(clip, size):
    plain = to_pixel_values(clip, Image.new("RGB", (60, 60), (200, 20, 90)))
    pixel_values = to_pixel_values(clip, Image.new("RGB", size, (200, 20, 90)))
    torch.testing.assert_close(pixel_values, plain, atol=1e-6, rtol=0)


def test_turned_camera_is_turned_back(clip, picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the top of the scene is at the right of the file
    picture.rotate(90).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(to_pixel_values(clip, tmp_path / "turned.png"), to_pixel_values(clip, picture))


def test_arrays(clip, picture):
    array = np.array(picture)
    expected = to_pixel_values(clip, picture)
    assert torch.equal(to_pixel_values(clip, array), expected)
    assert torch.equal(to_pixel_values(clip, array / 255), expected)
    assert torch.equal(to_pixel_values(clip, (array / 255).astype(np.float32)), expected)
    assert torch.equal(to_pixel_values(clip, np.full((60, 60), 0.999)), to_pixel_values(clip, np.ones((60, 60))))
    opaque = np.dstack([array, np.full_like(array[..., 0], 255)])
    assert torch.equal(to_pixel_values(clip, opaque), expected)
    assert torch.equal(to_pixel_values(clip, array[..., 0]), to_pixel_values(clip, picture.getchannel("R")))


@pytest.mark.parametrize("shape", [(60,), (60, 60, 1), (60, 60, 2), (3, 60, 60), (1, 60, 60, 3), (0, 60, 3)])
def test_array_of_the_wrong_rank(clip, shape):
    with pytest.raises(ValueError, match=r"an array must be \(height, width\) or .* got shape"):
        to_pixel_values(clip, np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((60, 60, 3), np.nan), "must be finite"),
        (np.full((60, 60), np.inf), "must be finite"),
        (np.full((60, 60), 1.5), r"must lie in \[0, 1\], got \[1.5, 1.5\]"),
        (np.full((60, 60), -0.5), r"must lie in \[0, 1\]"),
        (np.zeros((60, 60), int), "uint8 or floats .* got int64"),
        (np.zeros((60, 60), bool), "uint8 or floats .* got bool"),
    ],
)
def test_array_of_wrong_values(clip, array, message):
    with pytest.raises(ValueError, match=message):
        to_pixel_values(clip, array)


def test_tensor_is_taken_as_it_is(clip, pixel_values):
    assert torch.equal(to_pixel_values(clip, pixel_values[0]), pixel_values[:1])
    assert to_pixel_values(clip, pixel_values[0].float()).dtype == clip.dtype
    assert to_pixel_values(clip, pixel_values[0, :, :24, :36]).shape == (1, 3, 24, 36)


@pytest.mark.parametrize("shape", [(60, 60), (1, 60, 60), (60, 60, 3), (1, 3, 60, 60), (3, 11, 60)])
def test_tensor_of_the_wrong_shape(clip, shape):
    with pytest.raises(ValueError, match=r"floats of shape \(3, height, width\), each side at least the patch size 12"):
        to_pixel_values(clip, torch.zeros(shape))


def test_tensor_of_wrong_values(clip):
    with pytest.raises(ValueError, match=r"must be floats .* got torch.uint8"):
        to_pixel_values(clip, torch.zeros(3, 60, 60, dtype=torch.uint8))
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="pixel values must be finite"):
            to_pixel_values(clip, torch.zeros(3, 60, 60).index_fill(1, torch.tensor([7]), value))


@pytest.mark.parametrize("other", [None, 3, b"bytes", [1, 2]])
def test_something_that_is_no_picture(clip, other):
    with pytest.raises(TypeError, match=f"a picture must be .* got {type(other).__name__}"):
        to_pixel_values(clip, other)


def test_missing_file(clip, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no picture at .*nothing\.png"):
        to_pixel_values(clip, tmp_path / "nothing.png")


def test_unreadable_file(clip, picture, tmp_path):
    picture.save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    for content in (b"no picture at all", b"", whole[: len(whole) // 2]):
        (tmp_path / "broken.png").write_bytes(content)
        with pytest.raises(ValueError, match="cannot read the picture"):
            to_pixel_values(clip, tmp_path / "broken.png")
    with pytest.raises(ValueError, match="cannot read the picture"):
        to_pixel_values(clip, tmp_path)


def test_normalisation_is_undone_for_plots(clip, no_processors, picture, pixel_values):
    assert np.array_equal(to_picture(clip, to_pixel_values(clip, picture)), np.array(picture))
    unknown = to_picture(no_processors, pixel_values[:1])
    assert (unknown.shape, unknown.dtype, unknown.min(), unknown.max()) == ((60, 60, 3), np.uint8, 0, 255)
    assert not to_picture(no_processors, torch.ones(1, 3, 60, 60)).any()


def test_captions_are_padded_to_the_longest(clip, tokens):
    input_ids, attention_mask, _ = to_tokens(clip, CAPTIONS)
    assert torch.equal(input_ids, tokens["input_ids"])
    assert torch.equal(attention_mask, tokens["attention_mask"])


def test_sub_words_are_merged(clip):
    tokens, word_ids, words = to_tokens(clip, ["A hippopotamus, naïve  42🐱"])[2][0]
    assert words == ["A", "hippopotamus", ",", "naïve", "4", "2", "🐱"]  # CLIP takes digits one by one
    assert len(tokens) == len(word_ids) > len(words) + 2
    assert (word_ids[0], word_ids[-1]) == (None, None)
    assert word_ids[1:-1] == sorted(word_ids[1:-1])
    assert set(word_ids[1:-1]) == set(range(len(words)))
    merged = ["".join(token for token, word in zip(tokens, word_ids) if word == index) for index in (0, 1, 4)]
    assert merged == ["a", "hippopotamus", "4"]


@pytest.mark.parametrize("caption", ["a dog next to a dog", "It's a DOG's tail.", "  two\tspaces \n", "(un)real"])
def test_words_are_slices_of_the_caption_in_order(clip, caption):
    (words,) = words_of(clip, caption)
    assert "".join(words) == "".join(caption.split())


@pytest.mark.parametrize("caption", ["", " ", "\t\n"])
def test_empty_caption(clip, caption):
    with pytest.raises(ValueError, match="at least one word, got"):
        to_tokens(clip, ["a cat", caption])


@pytest.mark.parametrize("caption", [None, 7, b"a cat", ["a cat"]])
def test_something_that_is_no_caption(clip, caption):
    with pytest.raises(TypeError, match=f"a caption must be a str .* got {type(caption).__name__}"):
        to_tokens(clip, [caption])


def test_too_long_caption(clip):
    caption = "a cat " * 20
    with pytest.raises(ValueError, match=r"the caption has 42 tokens, the model's context is 32.*truncate=True"):
        to_tokens(clip, [caption])
    with pytest.warns(UserWarning, match="42 tokens, the model's context is 32: its end is cut off"):
        input_ids, attention_mask, words = to_tokens(clip, [caption], truncate=True)
    assert input_ids.shape == (1, 32)
    assert attention_mask.all()
    assert input_ids[0, [0, -1]].tolist() == [1329, 1330]
    assert words[0][2] == ["a", "cat"] * 15


def test_caption_that_just_fits(clip):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_tokens(clip, ["cat " * 30])[0].shape == (1, 32)


def test_token_ids(clip, no_processors, tokens):
    ids = tokens["input_ids"][0, :4]
    for model in (clip, no_processors):
        input_ids, attention_mask, words = to_tokens(model, [ids, tokens["input_ids"][1, :11]])
        assert input_ids.shape == attention_mask.shape == (2, 11)
        assert input_ids[0].tolist() == [*ids.tolist(), *[1330] * 7]
        assert attention_mask.sum(1).tolist() == [4, 11]
        assert words[0] == (["1329", "320", "1103", "1330"], [None, 0, 1, None], ["320", "1103"])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([[1329, 320, 1330]]), "1-d tensor"),
        (torch.tensor([1329.0, 320.0, 1330.0]), "1-d tensor"),
        (torch.tensor([1329, 1330]), "at least one token"),
        (torch.full((33,), 320), "at most 32 in all"),
        (torch.tensor([1329, 1331, 1330]), r"in \[0, 1331\), got \[1329, 1331\]"),
        (torch.tensor([1329, -1, 1330]), r"in \[0, 1331\), got \[-1, 1330\]"),
    ],
)
def test_wrong_token_ids(clip, ids, message):
    with pytest.raises(ValueError, match=message):
        to_tokens(clip, [ids])


def test_inputs_that_need_a_processor(no_processors, picture):
    with pytest.raises(ValueError, match="without an image processor"):
        to_pixel_values(no_processors, picture)
    with pytest.raises(ValueError, match="without a tokenizer"):
        to_tokens(no_processors, ["a cat"])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_picture_of_more_than_8_bits_is_refused_and_not_clipped(clip, dtype):
    with pytest.raises(ValueError, match="8 bits a channel, got mode"):
        to_pixel_values(clip, Image.fromarray(np.full((8, 8), 1, dtype)))
