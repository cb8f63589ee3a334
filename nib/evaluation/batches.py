"""Read pairs and settings, and say what is wrong with them before any work."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, cosine_similarity

from nib.attribution import check_method
from nib.checks import shorten
from nib.clip import HookedCLIP
from nib.datasets.rows import BROKEN
from nib.hashes import hash_all
from nib.inputs import to_list, to_pixel_values, to_tokens
from nib.methods.pairs import embed_pairs
from nib.methods.scores import Scores
from nib.pictures import to_mask
from nib.shapes import AttentionMask, Embeds, InputIds, PixelValues

Pairs = Sequence[Mapping[str, Any]]  # rows with id, image and text: a `datasets.Dataset` or a list of dicts
TRUE_MASK = "true_mask"  # a control of the evaluation alone: the map is the mask
Setting = str | Mapping[str, Any]  # a method, or {"method": ..., parameter: value, ...}


class Resolved(NamedTuple):
    """A setting as it was given, its function, None for `TRUE_MASK`, and all parameters of that."""

    given: dict[str, Any]
    function: Callable[..., Scores] | None
    parameters: dict[str, Any]


@dataclass
class Batch:
    """Some pairs, ready for the towers.

    `masks` (pairs, height, width) is where what the text names is seen, `other_masks` where other objects are. `absent`
    is the ids and mask of captions that name what is not there.
    """

    ids: list[str]
    pixel_values: PixelValues
    input_ids: InputIds
    attention_mask: AttentionMask
    masks: Tensor | None
    other_masks: Tensor | None = None
    absent: tuple[InputIds, AttentionMask] | None = None
    embedded: tuple[Embeds, Embeds] | None = None

    def arguments(self) -> tuple[PixelValues, InputIds, AttentionMask]:
        """Return what every method takes."""
        return self.pixel_values, self.input_ids, self.attention_mask

    def embeds(self, clip: HookedCLIP) -> tuple[Embeds, Embeds]:
        """Embed pictures and captions, once for all methods."""
        if self.embedded is None:
            self.embedded = embed_pairs(clip, *self.arguments())
        return self.embedded

    def true_masks(self, clip: HookedCLIP) -> Scores:
        """Return the masks as maps, at pixels; every token scores 1."""
        pixels = self.masks.to(self.pixel_values)
        return Scores(
            image=adaptive_avg_pool2d(pixels, clip.grid(self.pixel_values)),
            text=torch.ones_like(self.input_ids).to(pixels),
            similarity=cosine_similarity(*self.embeds(clip)),
            image_pixels=pixels,
        )

    def check_masks(self) -> None:
        """Raise a ValueError that names a pair whose masks cannot be told from the rest of the picture."""
        full, both = self.masks.flatten(1).all(1), (self.masks & self.other_masks).flatten(1).any(1)
        for wrong, what in ((full, "leave some background in what the model sees"), (both, "not overlap other_masks")):
            if wrong.any():
                raise ValueError(f"masks of pair {self.ids[int(wrong.int().argmax())]!r} must {what}")

    def hash(self) -> str:
        """Hash the numbers that the results depend on."""
        tensors = [*self.arguments(), self.masks, self.other_masks, *(self.absent or ())]
        return hash_all(*self.ids, *(to_bytes(tensor) for tensor in tensors if tensor is not None))


def read_batch(
    clip: HookedCLIP, pairs: Pairs, columns: dict[str, list[str]], rows: range, truncate: bool, with_masks: bool
) -> tuple[Batch | None, list[dict]]:
    """Read and prepare some rows; return also what cannot be read, and why."""
    pictures, masks, others, kept, skipped = [], [], [], [], []
    for row in rows:
        key = columns["id"][row]
        try:
            pair = pairs[row]
            pictures.append(to_pixel_values(clip, pair["image"]))
        except BROKEN as error:
            if clip.image_processor is None:  # then no file was at fault
                raise ValueError(f"image of pair {key!r}: {error}") from error
            skipped.append({"id": key, "reason": str(error)})
            continue
        except TypeError as error:
            raise TypeError(f"image of pair {key!r}: {error}") from error
        kept.append(row)
        if with_masks:
            if pair.get("masks") is None:
                raise ValueError(f"localisation and {TRUE_MASK} need masks, and pair {key!r} has none")
            masks.append(to_mask(clip, pair["masks"], pair["image"], f"masks of pair {key!r}"))
            if not masks[-1].any():
                raise ValueError(f"masks of pair {key!r} must have at least one pixel in what the model sees")
            other = torch.zeros_like(masks[-1])
            if pair.get("other_masks") is not None:
                other = to_mask(clip, pair["other_masks"], pair["image"], f"other_masks of pair {key!r}")
            others.append(other)
    if not kept:
        return None, skipped
    shapes = sorted({tuple(picture.shape[1:]) for picture in pictures})
    if len(shapes) > 1:
        raise ValueError(f"pixel values of one batch must have one shape, got {shapes}")
    chosen = {name: [values[row] for row in kept] for name, values in columns.items()}
    caption = to_tokens(clip, chosen["text"], truncate)[:2]
    absent = to_tokens(clip, chosen["absent"], truncate)[:2] if "absent" in chosen else None
    both = (torch.stack(masks), torch.stack(others)) if with_masks else (None, None)
    return Batch(chosen["id"], torch.cat(pictures), *caption, *both, absent), skipped


def read_pairs(clip: HookedCLIP, pairs: Pairs, truncate: bool = False) -> Batch:
    """Read all pairs into one batch; a ValueError where not one of the pictures can be read, or of a bad caption."""
    pairs = to_rows(pairs)
    columns = {"text": column(pairs, "text"), "id": [str(value) for value in column(pairs, "id")]}
    batch, _ = read_batch(clip, pairs, columns, range(len(columns["id"])), truncate, False)
    if batch is None:
        raise ValueError(f"pairs must hold at least one picture that can be read, got {len(columns['id'])} pairs")
    return batch


def to_rows(pairs: Pairs) -> Pairs:
    """Return pairs as rows that can be read by number: a table or generator is made a list of them."""
    if hasattr(pairs, "column_names"):
        if not hasattr(pairs, "__len__"):
            raise TypeError(f"pairs must be read by number, got {type(pairs).__name__}: take a Dataset, or list(pairs)")
        return pairs
    if isinstance(pairs, pd.DataFrame):
        return pairs.to_dict("records")
    if isinstance(pairs, Mapping):
        no_list = (str, bytes, Set, Mapping) if "id" in pairs else (str, bytes, Set)  # else `column` says what lacks
        sized = {name: hasattr(values, "__len__") and not isinstance(values, no_list) for name, values in pairs.items()}
        lengths = {name: len(pairs[name]) if listed else None for name, listed in sized.items()}
        if len(set(lengths.values())) > 1 or None in lengths.values():
            raise ValueError(f"the columns of pairs must be lists of one length, got the lengths {lengths}")
        return [dict(zip(pairs, row)) for row in zip(*pairs.values())]
    by_number = hasattr(pairs, "__getitem__") and hasattr(pairs, "__len__") and not isinstance(pairs, pd.Series)
    if not by_number and not isinstance(pairs, Iterable):
        raise TypeError(f"pairs must be a data set, a table or a list of mappings, got {type(pairs).__name__}")
    return pairs if by_number else to_list("pairs", pairs)


def column(pairs: Pairs, name: str, needed: Sequence[str] = ("id", "image", "text")) -> list:
    """Read one column without decoding the pictures."""
    is_table = hasattr(pairs, "column_names")
    rows = [] if is_table else [pairs[number] for number in range(len(pairs))]
    if wrong := [row for row in rows if not isinstance(row, Mapping)]:
        raise TypeError(f"pairs must be a data set, a table or a list of mappings, got a row {shorten(wrong[0])}")
    names = [pairs.column_names] if is_table else rows
    if lacking := [each for each in names if not set(needed) <= set(each)]:
        named, found = " and ".join(", ".join(needed).rsplit(", ", 1)), ", ".join(sorted(map(str, lacking[0])))
        where = f" in row {names.index(lacking[0])}" if 0 < len(lacking) < len(names) else ""
        raise ValueError(f"pairs must have the columns {named}, got {found}{where}")
    return list(pairs[name]) if is_table else [row[name] for row in rows]


def read_settings(clip: HookedCLIP, methods: Setting | Sequence[Setting], may_be_masks: bool = False) -> list[Resolved]:
    """Check methods, or a single one, with their parameters."""
    if not isinstance(methods, Iterable):
        raise TypeError(f"methods must be names, or mappings of a method and its parameters, got {methods!r}")
    settings = [methods] if isinstance(methods, (str, Mapping)) else to_list("methods", methods)
    if not settings:
        raise ValueError("methods must be at least one, got none")
    return [_read_setting(clip, setting, may_be_masks) for setting in settings]


def _read_setting(clip: HookedCLIP, setting: Setting, may_be_masks: bool) -> Resolved:
    if not isinstance(setting, str | Mapping):
        raise TypeError(f"methods must be names, or mappings of a method and its parameters, got {shorten(setting)}")
    setting = {"method": setting} if isinstance(setting, str) else dict(setting)
    if wrong := [name for name in setting if not isinstance(name, str)]:
        raise TypeError(f"parameters of a method must be named by text, got {shorten(wrong[0])}")
    if "method" not in setting:
        raise ValueError(f"a setting must name its method, got {setting}")
    if may_be_masks and setting["method"] == TRUE_MASK:
        if len(setting) > 1:
            raise TypeError(f"{TRUE_MASK} has no parameter, got {', '.join(sorted(set(setting) - {'method'}))}")
        return Resolved(setting, None, {})
    given = {name: value for name, value in setting.items() if name != "method"}
    return Resolved(setting, *check_method(clip, setting["method"], given))


def to_bytes(values: Tensor) -> bytes:
    shape = f"{values.dtype}{tuple(values.shape)}".encode()
    return shape + values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
