"""Turn pictures and sentences into what the towers take, or say what is wrong with them.

Exports `to_pixel_values`, `read_pictures`, `to_picture`, `to_tokens` and `to_list`.
"""

import os
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Set
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from nib import limits
from nib.checks import check_flag, shorten
from nib.clip import HookedCLIP
from nib.shapes import AttentionMask, InputIds, PixelValues

FURTHEST = 20.0  # of a normalised pixel from 0; black and white lie within 3
LETTERS = 1_000  # of a caption, for each token that the model takes
Picture = Image.Image | str | Path | np.ndarray | torch.Tensor
Caption = str | torch.Tensor


def to_pixel_values(clip: HookedCLIP, picture: Picture) -> PixelValues:
    """Prepare one picture.

    Args:
        picture: a PIL image or a path (any mode; turned upright and into RGB), an array
            (height, width) or (height, width, 3 or 4) of uint8 or of floats in [0, 1], or a tensor
            (channels, height, width) of pixel values that are already normalised.

    Returns:
        (1, channels, height, width), on the model's device and in its dtype.

    Raises:
        FileNotFoundError: no file at the path.
        TypeError: not a picture.
        ValueError: unreadable file, more than 8 bits a channel, wrong shape or range, NaN or
            infinite values, or a picture that needs the image processor which the model came without.
    """
    return _read(clip, picture).to(clip.device, clip.dtype)


def to_list(name: str, values):
    """Return a list of what is several: a tuple, an iterator, an array of objects or strings, a column of a table.

    Raises:
        TypeError: several without an order, or a whole table.
    """
    if isinstance(values, np.ndarray):
        return values.tolist() if values.dtype.kind in "UO" and values.ndim == 1 else values
    if isinstance(values, (str, Path, Image.Image, torch.Tensor, bytes)) or not isinstance(values, Iterable):
        return values
    if isinstance(values, (Mapping, Set)) or len(getattr(values, "shape", (0,))) != 1:
        raise TypeError(f"{name} must be one, or a list or a column of a table, in order, got {type(values).__name__}")
    return list(values)


def read_pictures(clip: HookedCLIP, pictures: Iterable[Picture]) -> list[PixelValues]:
    """Prepare pictures; they are not yet where the model is. An error names the number of the picture."""
    pictures, read = list(pictures), []
    for number, picture in enumerate(pictures):
        with _name_it(f"picture {number}", len(pictures)):
            read.append(_read(clip, picture))
    return read


@contextmanager
def _name_it(what: str, of: int):
    """Say in an error which of several things is at fault."""
    try:
        yield
    except (FileNotFoundError, TypeError, ValueError) as error:
        if of == 1:
            raise
        raise type(error)(f"{what}: {error}") from error


def _read(clip: HookedCLIP, picture: Picture) -> PixelValues:
    if isinstance(picture, torch.Tensor):
        return _check_pixel_values(clip, picture)
    image = _open(picture)
    if clip.image_processor is None:
        raise ValueError(
            "this model came without an image processor: pass normalised pixel values as a tensor"
            " (channels, height, width)"
        )
    made = clip.image_processor(images=image, return_tensors="pt")
    made = _join_patches(clip, made) if clip.image.takes_patches else made["pixel_values"]
    try:
        return _check_pixel_values(clip, made[0])
    except ValueError as error:
        raise ValueError(f"the image processor and the model do not belong together: {error}") from error


def _join_patches(clip: HookedCLIP, made) -> PixelValues:
    """Put a processor's list of patches, channels last in each, together to a picture; its padding is left out."""
    (rows, columns), patch = made["spatial_shapes"][0].tolist(), clip.image.patch
    patches = made["pixel_values"][:, : rows * columns].unflatten(1, (rows, columns)).unflatten(3, (patch, patch, -1))
    return patches.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)  # (1, channels, height, width)


def to_picture(clip: HookedCLIP, pixel_values: PixelValues) -> np.ndarray:
    """Undo the normalisation: what the model sees, as (height, width, 3) uint8 for plots."""
    picture = pixel_values[0].detach().float().cpu().movedim(0, -1).numpy()
    if clip.image_processor is not None:
        if clip.image_processor.do_normalize:
            picture = picture * np.array(clip.image_processor.image_std) + np.array(clip.image_processor.image_mean)
    else:  # the scale is unknown: show the whole range
        picture = (picture - picture.min()) / max(float(np.ptp(picture)), 1e-12)
    return np.round(255 * picture.clip(0, 1)).astype(np.uint8)


def to_tokens(
    clip: HookedCLIP, captions: list[Caption], truncate: bool = False
) -> tuple[InputIds, AttentionMask, list[tuple[list[str], list[int | None], list[str]]]]:
    """Tokenize captions and pad them to the longest.

    Args:
        captions: sentences, or 1-d tensors of token ids with begin and end.
        truncate: cut captions that are longer than the model's context, with a warning.

    Returns:
        Token ids and mask, both (captions, tokens), and for each caption its tokens, the
        index of the word that each token belongs to (None at begin and end), and its words.

    Raises:
        TypeError: a caption is neither a sentence nor a tensor of whole numbers.
        ValueError: a caption is empty or too long, or needs the tokenizer that the model came without.
    """
    check_flag("truncate", truncate)
    encoded = []
    for number, caption in enumerate(captions):
        with _name_it(f"caption {number}", len(captions)):
            encoded.append(_encode(clip, caption, truncate))
    # A tower that sees its padding was trained on captions that are all padded to its length.
    longest = clip.context_length if clip.text.sees_padding else max(len(ids) for ids, *_ in encoded)
    input_ids = torch.full((len(encoded), longest), clip.text.padding_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, (ids, *_) in enumerate(encoded):
        input_ids[row, : len(ids)] = torch.as_tensor(ids)
        attention_mask[row, : len(ids)] = 1
    words = [(tokens, word_ids, words) for _, tokens, word_ids, words in encoded]
    return input_ids.to(clip.device), attention_mask.to(clip.device), words


def _open(picture: Picture) -> Image.Image:
    name = ""
    if isinstance(picture, (str, Path)):
        path = Path(os.path.expanduser(picture))
        name = str(path)
        with _reading(name):
            if os.path.exists(name) and not os.path.isfile(name):  # a pipe would be waited for
                raise OSError("it is no file")
            picture = Image.open(path)
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(_check_array(picture))
    if not isinstance(picture, Image.Image):
        raise TypeError(f"a picture must be a PIL image, a path, an array or a tensor, got {type(picture).__name__}")
    _check_sides(*picture.size, name)
    with _reading(name):
        picture.load()
    if picture.mode[0] in "IF":  # converting would clip these to white or black
        raise ValueError(f"a picture must have 8 bits a channel, got mode {picture.mode!r}: pass an array in [0, 1]")
    return ImageOps.exif_transpose(picture).convert("RGB")


@contextmanager
def _reading(name: str):
    """Say which picture cannot be read, and why."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"no picture at {name!r}") from None
    except (OSError, ValueError, EOFError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"cannot read the picture {repr(name) if name else 'object'}: {error}") from error


def _check_sides(width: int, height: int, name: str = "") -> None:
    """Refuse a picture that a processor would make gigantic: it scales the shorter side to the model's."""
    shorter, longer = sorted((width, height))
    if not 0 < longer <= limits.aspect * shorter or width * height > limits.pixels:
        raise ValueError(
            f"a picture{name and ' '}{name} must have sides at most {limits.aspect} times as long as each other,"
            f" not 0, and at most {limits.pixels:,} pixels, got {width} x {height}: crop it, or raise nib.limits"
        )


def _check_array(array: np.ndarray) -> np.ndarray:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise ValueError(f"an array must be (height, width) or (height, width, 3 or 4), got shape {array.shape}")
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError("an array must be whole, got a masked one: fill what it hides with array.filled(value)")
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"an array must hold uint8 or floats in [0, 1], got {array.dtype}")
    _check_finite(np.isfinite(array).all(), "the array")
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"an array of floats must lie in [0, 1], got [{array.min():.4g}, {array.max():.4g}]")
    return np.round(255 * array).astype(np.uint8)


def _check_pixel_values(clip: HookedCLIP, pixel_values: torch.Tensor) -> PixelValues:
    channels, patch = clip.image.channels, clip.image.patch
    _check_plain("pixel values", pixel_values)
    fits = pixel_values.ndim == 3 and pixel_values.shape[0] == channels
    if not fits or min(pixel_values.shape[1:]) < patch or not pixel_values.is_floating_point():
        raise ValueError(
            f"pixel values must be floats of shape ({channels}, height, width), each side at least the"
            f" patch size {patch}, got {pixel_values.dtype} {tuple(pixel_values.shape)}"
        )
    rows, columns = clip.grid(pixel_values)
    if rows * columns > limits.patches:
        raise ValueError(
            f"pixel values must have at most {limits.patches:,} patches, got {rows} x {columns}: make the picture"
            " smaller, or raise nib.limits.patches"
        )
    _check_finite(bool(pixel_values.isfinite().all()), "the pixel values")
    if (furthest := float(pixel_values.abs().max())) > FURTHEST:
        raise ValueError(
            f"pixel values must be normalised, within {FURTHEST:g} of 0, got up to {furthest:.4g}: pass a picture of 0"
            " to 255 as a uint8 array (height, width, 3)"
        )
    return (pixel_values.clone() if pixel_values.is_inference() else pixel_values)[None]


def _check_plain(what: str, values: torch.Tensor) -> None:
    """Refuse a tensor that holds no numbers in rows and columns."""
    if values.layout != torch.strided or values.is_meta or values.is_quantized or values.is_nested:
        raise ValueError(f"{what} must be a dense tensor, got one that is sparse, quantised, nested or on meta")


def _check_finite(finite: bool, what: str) -> None:
    if not finite:
        raise ValueError(f"{what} must be finite, got NaN or infinity")


def _encode(clip: HookedCLIP, caption: Caption, truncate: bool):
    """Return ids, tokens, word index of each token, and words of one caption."""
    if isinstance(caption, torch.Tensor):
        return _encode_ids(clip, caption)
    if not isinstance(caption, str):
        raise TypeError(f"a caption must be a str or a 1-d tensor of token ids, got {type(caption).__name__}")
    if not caption.strip():
        raise ValueError(f"a caption must hold at least one word, got {shorten(caption)}")
    if clip.tokenizer is None:
        raise ValueError("this model came without a tokenizer: pass token ids as a 1-d tensor")
    if len(caption) > (most := LETTERS * clip.context_length):
        raise ValueError(f"a caption must have at most {most:,} letters, got {len(caption):,}: {shorten(caption[:99])}")
    if any("\ud800" <= letter <= "\udfff" for letter in caption):
        raise ValueError(f"a caption must be Unicode, got half of a surrogate pair in {shorten(caption)}")
    encoding = clip.tokenizer(caption, return_offsets_mapping=True, truncation=False, verbose=False)
    if len(encoding["input_ids"]) > clip.context_length:
        message = f"the caption has {len(encoding['input_ids'])} tokens, the model's context is {clip.context_length}"
        if not truncate:
            raise ValueError(f"{message}: shorten it, or pass truncate=True; got {shorten(caption)}")
        warnings.warn(f"{message}: its end is cut off", stacklevel=4)
        encoding = clip.tokenizer(caption, return_offsets_mapping=True, truncation=True, max_length=clip.context_length)
    kinds = ("bos", "eos", "pad", "cls", "sep", "mask")  # CLIP's end token is its unknown one, too
    specials = {getattr(clip.tokenizer, f"{kind}_token_id", None) for kind in kinds}
    found = [token for token in encoding["input_ids"] if token in specials]
    if len(found) > clip.tokenizer.num_special_tokens_to_add():  # more than the tokenizer itself puts at the ends
        named = ", ".join(dict.fromkeys(clip.tokenizer.convert_ids_to_tokens(found)))
        raise ValueError(f"a caption must not hold special tokens of the tokenizer, {named}, got {shorten(caption)}")
    spans: dict[int, tuple[int, int]] = {}
    for word, (start, end) in zip(encoding.word_ids(), encoding["offset_mapping"]):
        if word is not None:
            first, _ = spans.get(word, (start, end))
            spans[word] = (first, end)
    starts = {start for start, _ in spans.values()}
    for word, (start, end) in spans.items():  # a mark on a letter belongs to it, also where they were composed
        while end < len(caption) and end not in starts and unicodedata.combining(caption[end]):
            end += 1
        spans[word] = (start, end)
    order = {word: position for position, word in enumerate(spans)}
    word_ids = [None if word is None else order[word] for word in encoding.word_ids()]
    _check_ends(clip, encoding["input_ids"], word_ids)
    tokens = clip.tokenizer.convert_ids_to_tokens(encoding["input_ids"])
    tokens = [token.removesuffix("</w>") for token in tokens]
    return encoding["input_ids"], tokens, word_ids, [caption[start:end] for start, end in spans.values()]


def _check_ends(clip: HookedCLIP, ids: list[int], word_ids: list[int | None]) -> None:
    """Check that the tokenizer puts the model's begin and end where the model takes them to be."""
    found, last, text = "", len(ids) - 1, clip.text
    if not ids:
        found = "no token"
    elif max(ids) >= text.vocabulary:
        found = f"token id {max(ids)}, and the model knows {text.vocabulary}"
    elif (text.begin_tokens and word_ids[0] is not None) or word_ids[-1] is not None:
        found = f"no token {'after' if word_ids[-1] is not None else 'before'} the words"
    elif (end := int(text.find_end(torch.tensor([ids], device=clip.device)))) != last:
        found = f"the end at place {last}, and the model finds it at {end}"
    if found:
        raise ValueError(
            f"the tokenizer and the model do not belong together: the tokenizer gives {found}, in {shorten(ids)}"
        )


def _encode_ids(clip: HookedCLIP, ids: torch.Tensor):
    _check_plain("token ids", ids)
    whole = not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)
    if ids.ndim != 1 or not whole or not 3 <= len(ids) <= clip.context_length:
        raise ValueError(
            "token ids must be a 1-d tensor of begin, at least one token, and end, at most"
            f" {clip.context_length} in all, got {ids.dtype} {tuple(ids.shape)}"
        )
    vocabulary = clip.text.vocabulary
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise ValueError(f"token ids must be in [0, {vocabulary}), got [{int(ids.min())}, {int(ids.max())}]")
    end = int(clip.text.find_end(ids[None].to(clip.device)))
    if end != len(ids) - 1 and not clip.text.sees_padding:
        raise ValueError(
            f"token ids must end with the end token, which the model pools, and it would pool place {end} of"
            f" {len(ids)}: got {shorten(ids.tolist())}"
        )
    tokens = [str(int(token)) for token in ids]
    return ids.tolist(), tokens, [None, *range(len(ids) - 2), None], tokens[1:-1]
