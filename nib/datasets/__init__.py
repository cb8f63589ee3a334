"""Read image-text pairs from every source in one schema."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset

from nib.checks import check_count, shorten
from nib.datasets.captions import best_captions, read_ids, replace_texts, save_ids
from nib.datasets.embedded import NAMES, SCENES, load_embedded, object_prompts, with_article
from nib.datasets.own import load_own
from nib.datasets.public import SOURCES, load_public
from nib.datasets.rows import Choice
from nib.files import to_path

__all__ = ["NAMES", "SCENES", "SOURCES", "best_captions", "load", "object_prompts", "save_ids", "with_article"]
OPTIONS = {"embedded": [], "public": ["path"], "own": ["image_column", "text_column"]}


def load(
    name: str | Path,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    *,
    ids: str | Path | Sequence[str] | None = None,
    path: str | Path | None = None,
    image_column: str | None = None,
    text_column: str | None = None,
    progress: bool = True,
) -> Dataset:
    """Load pairs of a picture and a caption.

        pairs = nib.datasets.load("scenes", split="test", limit=100)

    Args:
        name: an embedded data set, `scenes` (like Flickr8k), `captions` (like Conceptual Captions), `objects` or
            `unseen` (like ImageNet), or `aerial` (like RSICD); a public one, `flickr8k`, `conceptual_captions`,
            `tiny_imagenet` (which the paper calls ImageNet), `imagenet` or `rsicd`; or your own: a folder of pictures
            with a metadata file, or a parquet, CSV or JSON-lines file with a column of pictures (or of paths relative
            to the file) and one of captions.
        split: by default the one that the paper's numbers are taken to be on; `data/README.md` lists them.
        limit: how many rows. Of an embedded data set the first, of the others a random sample by `seed`, of which a
            smaller one is the beginning of a larger one. By default all, but 1000 of `flickr8k` and `imagenet`, 2000 of
            `conceptual_captions`, and of `tiny_imagenet` the first 5 pictures of each class, of which a smaller `limit`
            draws; a larger one is refused.
        ids: exactly these rows, in this order: a list of ids, or a file of `save_ids`, whose captions are used too.
        path: where a public data set lies instead: another id on the hub, or a folder, with the same columns.
        image_column, text_column: of your own data, where their names do not tell; a column of captions may hold lists.
        progress: show a bar when it takes more than a few seconds.

    Returns:
        A `datasets.Dataset` with the columns `id` (unique), `image` (PIL) and `text`; `captions` (all, the first is
        `text`) where a picture has several; `objects` (names) and `masks` in the embedded ones (a PIL palette picture
        of the same size; pixel value i is where `objects[i - 1]` is seen, 0 is background). Pictures are held in memory
        as they were stored; one given by a path is read from there whenever its row is. Its attribute `skipped` lists
        as {"id", "reason"} the rows left out because the picture cannot be decoded or has no caption.

    Raises:
        KeyError: unknown name.
        TypeError: a parameter that the source does not have, or a name, split or ids of another type.
        ValueError: unknown split or ids, missing columns, a file that cannot be read, or a limit below 1.
        FileNotFoundError: the data cannot be had; the message says how they can.
    """
    where = to_path("name", name)
    if not isinstance(split, str | None):
        raise TypeError(f"split must be text, got {type(split).__name__}: {shorten(split)}")
    if limit is not None:
        check_count("limit", limit)
    check_count("seed", seed, 0)
    if limit is not None and ids is not None:
        raise ValueError(f"ids say which rows to take: leave limit out, got {limit}")
    kind = "embedded" if name in NAMES else "public" if name in SOURCES else "own"
    if kind == "own" and not os.path.exists(where):  # also of a name that is too long for one
        known = sorted([*NAMES, *SOURCES])
        why = "" if isinstance(name, str) else ", a path at which nothing lies (names are given as text)"
        raise KeyError(
            f"data set must be one of {known} or a folder or file of your own, got {shorten(str(name))}{why}"
        )
    for option, value in dict(path=path, image_column=image_column, text_column=text_column).items():
        if value is not None and option not in OPTIONS[kind]:
            raise TypeError(f"{option} has no meaning for {kind} data, got {option}={str(value)!r} with {str(name)!r}")
    ids, texts = read_ids(ids)
    choice = Choice(limit, seed, ids, progress)
    if kind == "embedded":
        dataset = load_embedded(name, split, limit, ids)
    elif kind == "public":
        dataset = load_public(name, split, choice, path)
    else:
        dataset = load_own(where, split, choice, image_column, text_column)
    if skipped := dataset.skipped:
        named = ", ".join(f"{entry['id']:.300}" for entry in skipped[:10])
        more = f" and {len(skipped) - 10} more" if len(skipped) > 10 else ""
        warnings.warn(
            f"{len(skipped)} of the rows of {str(name)!r} cannot be used: {named}{more} (the reasons are in `skipped`)",
            stacklevel=2,
        )
    return replace_texts(dataset, texts) if texts else dataset
