"""Turn pictures into what the towers take, and back, or say what is wrong with them."""

import copy
import os
import warnings
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from nib import limits
from nib.checks import check_dense, check_finite, check_normalised, name_place, read_limit, shorten, to_real
from nib.clip import HookedCLIP
from nib.shapes import PixelValues

Picture = Image.Image | str | Path | np.ndarray | torch.Tensor


def to_pixel_values(clip: HookedCLIP, picture: Picture) -> PixelValues:
    """Prepare one picture: (1, channels, height, width), on the model's device and in its dtype.

    Args:
        picture: a PIL image or a path (any mode; turned upright and into RGB, transparent parts over white), an array
            (height, width) or (height, width, 3 or 4) of uint8 or of floats in [0, 1], or a tensor
            (channels, height, width) of pixel values that are already normalised.

    Raises:
        FileNotFoundError: no file at the path.
        TypeError: not a picture.
        ValueError: unreadable file, more than 8 bits a channel, wrong shape or range, NaN or
            infinite values, or a picture that needs the image processor which the model came without.
    """
    return _read(clip, picture).to(clip.device, clip.dtype)


def read_pictures(clip: HookedCLIP, pictures: Iterable[Picture]) -> list[PixelValues]:
    """Prepare pictures; they are not yet where the model is. An error names the number of the picture."""
    pictures, read = list(pictures), []
    for number, picture in enumerate(pictures):
        with name_place(f"picture {number}", len(pictures)):
            read.append(_read(clip, picture))
    return read


def _read(clip: HookedCLIP, picture: Picture) -> PixelValues:
    if isinstance(picture, torch.Tensor):
        return _check_pixel_values(clip, picture.detach())
    image = _open(picture)
    if clip.image_processor is None:
        how = "pass normalised pixel values as a tensor (channels, height, width)"
        raise ValueError(f"this model came without an image processor: {how}")
    made = clip.image_processor(images=image, return_tensors="pt")
    made = _join_patches(clip, made) if clip.image.takes_patches else made["pixel_values"]
    try:
        return _check_pixel_values(clip, made[0])
    except ValueError as error:
        raise ValueError(f"the image processor and the model do not belong together: {error}") from error


def warn_of_raw(clip: HookedCLIP, pixel_values: PixelValues, stacklevel: int = 5) -> None:
    """Warn of pixel values that lie in [0, 1] and fill it, as those of a picture that was not normalised do."""
    if pixel_values.numel() and getattr(getattr(clip, "image_processor", None), "do_normalize", False):
        least, most = pixel_values.flatten(1).aminmax(dim=1)
        if raw := ((least >= 0) & (most <= 1) & (most - least > 0.5)).nonzero()[:, 0].tolist():
            warnings.warn(
                f"pixel values of rows {raw[:10]} lie in [0, 1], as before they are normalised by the image processor's"
                " mean and standard deviation, which this model expects",
                stacklevel=stacklevel,
            )


def _join_patches(clip: HookedCLIP, made) -> PixelValues:
    """Put a processor's list of patches, channels last in each, together to a picture; its padding is left out."""
    (rows, columns), patch = made["spatial_shapes"][0].tolist(), clip.image.patch
    patches = made["pixel_values"][:, : rows * columns].unflatten(1, (rows, columns)).unflatten(3, (patch, patch, -1))
    return patches.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)  # (1, channels, height, width)


def to_picture(clip: HookedCLIP, pixel_values: PixelValues) -> np.ndarray:
    """Undo the normalisation: what the model sees, as (height, width, 3) uint8 for plots.

    What lies behind the last whole patch of a side it does not see, so that a map lies on its picture.
    """
    height, width = (side * clip.image.patch for side in clip.grid(pixel_values))
    picture = pixel_values[0, :, :height, :width].detach().float().cpu().movedim(0, -1).numpy()
    if (processor := clip.image_processor) is not None:
        if processor.do_normalize:
            picture = picture * np.array(processor.image_std) + np.array(processor.image_mean)
        picture = picture / (255 * (processor.rescale_factor if processor.do_rescale else 1))
    else:  # the scale is unknown: show the whole range
        picture = (picture - picture.min()) / max(float(np.ptp(picture)), 1e-12)
    picture = np.round(255 * picture.clip(0, 1)).astype(np.uint8)
    picture.setflags(write=False)  # the results of one picture share it
    return picture


def to_mask(clip: HookedCLIP, mask, image: Picture, name: str) -> torch.Tensor:
    """Return where the mask of a picture is above 0, resized and cropped as the image processor does with that.

    A ValueError names, by `name`, a mask of another size than its picture, or one that is no finite numbers.
    """
    if isinstance(mask, np.ma.MaskedArray):
        raise ValueError(f"{name} must not be a masked array: fill it")
    with suppress(ValueError):  # ragged lists
        mask = ImageOps.exif_transpose(mask) if isinstance(mask, Image.Image) else mask
        mask = mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)
    if isinstance(image, str | Path):
        image = Image.open(Path(image).expanduser())
    if isinstance(image, Image.Image):
        size = ImageOps.exif_transpose(image).size[::-1]
    else:
        size = tuple(image.shape[1:] if isinstance(image, torch.Tensor) else image.shape[:2])
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "buif" or mask.shape != size:
        got = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ValueError(f"{name} must be numbers of the size of its picture, {size}, got {got}")
    if not np.isfinite(mask).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    if isinstance(image, torch.Tensor):
        return torch.from_numpy(mask > 0)
    like = copy.copy(clip)
    like.image_processor = copy.copy(clip.image_processor)
    like.image_processor.resample, like.image_processor.do_normalize = Image.Resampling.NEAREST, False
    return to_pixel_values(like, (mask > 0).astype(np.uint8) * 255)[0, 0].cpu() > 0


def _open(picture: Picture) -> Image.Image:
    name = ""
    if isinstance(picture, (str, Path)):
        path = Path(os.path.expanduser(picture))
        name = str(picture) or "''"
        with _reading(name):
            if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
                raise OSError("it is no file")
            picture = Image.open(path)
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(_check_array(picture))
    if not isinstance(picture, Image.Image):
        raise TypeError(f"a picture must be a PIL image, a path, an array or a tensor, got {type(picture).__name__}")
    width, height = picture.size
    # A processor, which scales the shorter side to the model's, would make a narrow picture gigantic.
    if not 0 < max(picture.size) <= read_limit("aspect") * min(picture.size) or width * height > read_limit("pixels"):
        raise ValueError(
            f"a picture{name and ' '}{name} must have sides at most {limits.aspect} times as long as each other,"
            f" not 0, and at most {limits.pixels:,} pixels, got {width} x {height}: crop it, or raise nib.limits"
        )
    with _reading(name):
        picture.load()
    if picture.mode[0] in "IF":  # converting would clip these to white or black
        raise ValueError(f"a picture must have 8 bits a channel, got mode {picture.mode!r}: pass an array in [0, 1]")
    try:
        picture = ImageOps.exif_transpose(picture)
        if picture.has_transparency_data:  # white shines through, as transformers' processors have it
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return picture.convert("RGB")
    except ValueError as error:
        raise ValueError(f"a picture must have a mode that Pillow makes RGB of, got {picture.mode!r}") from error


@contextmanager
def _reading(name: str):
    """Say which picture cannot be read, and why."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"no picture at {shorten(name)}") from None
    except (OSError, ValueError, EOFError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"cannot read the picture {shorten(name) if name else 'object'}: {error}") from error


def _check_array(array: np.ndarray) -> np.ndarray:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise ValueError(f"an array must be (height, width) or (height, width, 3 or 4), got shape {array.shape}")
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError("an array must be whole, got a masked one: fill what it hides with array.filled(value)")
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"an array must hold uint8 or floats in [0, 1], got {array.dtype}")
    check_finite("the array", to_real("the array", array))
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"an array of floats must lie in [0, 1], got [{array.min():.9g}, {array.max():.9g}]")
    return np.round(255 * array).astype(np.uint8)


def _check_pixel_values(clip: HookedCLIP, pixel_values: torch.Tensor) -> PixelValues:
    channels, patch = clip.image.channels, clip.image.patch
    check_dense("pixel values", pixel_values)
    fits = pixel_values.ndim == 3 and pixel_values.shape[0] == channels
    floats = pixel_values.is_floating_point() and pixel_values.dtype.itemsize > 1  # torch cannot compute with 8 bits
    if not fits or min(pixel_values.shape[1:]) < patch or not floats:
        raise ValueError(
            f"pixel values must be floats of shape ({channels}, height, width), each side at least the"
            f" patch size {patch}, got {pixel_values.dtype} {tuple(pixel_values.shape)}"
        )
    rows, columns = clip.grid(pixel_values)
    if rows * columns > read_limit("patches"):
        raise ValueError(
            f"pixel values must have at most {limits.patches:,} patches, got {rows} x {columns}: make the picture"
            " smaller, or raise nib.limits.patches"
        )
    check_finite("the pixel values", pixel_values)
    check_normalised("pixel values", pixel_values)
    return (pixel_values.clone() if pixel_values.is_inference() else pixel_values)[None]
