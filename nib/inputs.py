"""What comes in: pictures (`nib.pictures`) and captions (`nib.captions`), one or several."""

from collections.abc import Iterable, Mapping, Set
from io import IOBase
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nib.captions import Caption, to_tokens
from nib.checks import read_limit
from nib.pictures import Picture, read_pictures, to_picture, to_pixel_values

__all__ = ["Caption", "Picture", "read_pictures", "to_list", "to_picture", "to_pixel_values", "to_tokens"]


def to_list(name: str, values):
    """Return a list of what is several: a tuple, an iterator, an array of objects or strings, a column of a table."""
    if isinstance(values, np.ndarray):
        return values.tolist() if values.dtype.kind in "UO" and values.ndim == 1 else values
    kinds = (str, Path, Image.Image, torch.Tensor, bytes, bytearray, memoryview, IOBase)
    if isinstance(values, kinds) or not isinstance(values, Iterable):
        return values
    if isinstance(values, (Mapping, Set)) or len(getattr(values, "shape", (0,))) != 1:
        raise TypeError(f"{name} must be one, or a list or a column of a table, in order, got {type(values).__name__}")
    most = int(min(read_limit("pairs"), 2**62))
    found = list(islice(values, most + 1))
    if len(found) > most:
        raise ValueError(f"{name} must be at most {most:,}, got more: raise nib.limits.pairs if it is meant")
    return found
