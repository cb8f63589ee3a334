"""Choose captions and rows, and write down which."""

import csv
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

import torch
from datasets import Dataset
from torch.nn.functional import normalize
from tqdm import tqdm

from nib.checks import check_count, shorten
from nib.clip import HookedCLIP, run_ready
from nib.datasets.rows import find_twins, to_ids
from nib.files import choose_quoting, to_path, write_whole
from nib.inputs import to_pixel_values, to_tokens

PROTOCOLS = ("paper", "released")


@run_ready
@torch.no_grad()
def best_captions(
    clip: HookedCLIP,
    dataset: Dataset,
    protocol: str = "paper",
    batch_size: int = 32,
    truncate: bool = False,
    progress: bool = True,
) -> Dataset:
    """Set each `text` to the caption that the model finds most similar, of those in `captions`.

        pairs = nib.datasets.best_captions(clip, nib.datasets.load("scenes"))

    Args:
        protocol: `paper`: most similar to the picture itself; `released`: to the first picture of its batch, as the
            released code does.
        batch_size: pictures at once. Under `released` the choice depends on it; the released code has 32.
        truncate: cut captions longer than the model's context instead of raising.
        progress: show a bar when it takes more than a few seconds.

    Raises:
        ValueError: no column `image`, `text` or `captions`, no lists of captions, an unknown protocol or batch size.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {list(PROTOCOLS)}, got {protocol!r}")
    check_count("batch_size", batch_size)
    if not isinstance(dataset, Dataset):
        raise TypeError(f"captions are chosen in a data set of `nib.datasets.load`, got {type(dataset).__name__}")
    for column in ("captions", "image", "text"):
        if column not in dataset.column_names:
            raise ValueError(f"the data set must have a column {column!r} to choose from, got {dataset.column_names}")
    plain = dataset.with_format(None)
    if texts := [captions for captions in plain["captions"] if not isinstance(captions, list | None)]:
        raise ValueError(f"column 'captions' must hold a list of captions a row, got {shorten(texts[0])}")
    if empty := [number for number, captions in enumerate(plain["captions"]) if not captions]:
        raise ValueError(f"every row must have captions to choose from, rows {empty[:10]} (from 0) have none")
    texts = []
    starts = range(0, len(dataset), batch_size)
    for first in tqdm(starts, desc="best captions", unit="batch", delay=3, disable=not progress):
        rows = plain[first : first + batch_size]
        pictures = rows["image"][:1] if protocol == "released" else rows["image"]
        pixel_values = torch.cat([to_pixel_values(clip, picture) for picture in pictures])
        image_embeds = normalize(clip.image.embed(pixel_values), dim=-1)  # (pictures, embed)
        flat = [caption for captions in rows["captions"] for caption in captions]
        input_ids, attention_mask, _ = to_tokens(clip, flat, truncate)
        text_embeds = normalize(clip.text.embed(input_ids, attention_mask), dim=-1)  # (captions, embed)
        counts = [len(captions) for captions in rows["captions"]]
        by_row = zip(rows["captions"], text_embeds.split(counts), image_embeds.expand(len(counts), -1))
        texts += [captions[int((embeds @ picture).argmax())] for captions, embeds, picture in by_row]
    return replace_texts(dataset, texts)


def replace_texts(dataset: Dataset, texts: Sequence[str]) -> Dataset:
    """Put other captions in the column `text`, one a row and in order, or raise an error for what is no such list."""
    in_order = not isinstance(texts, (str, Mapping, Set))
    texts = list(texts) if in_order else texts
    if not in_order or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"texts must be a list of captions in the order of the rows, got {shorten(texts)}")
    if len(texts) != len(dataset):
        raise ValueError(f"texts must be {len(dataset)}, one a row, got {len(texts)}")
    columns = dataset.column_names
    replaced = dataset.remove_columns("text").add_column("text", texts).select_columns(columns)
    replaced.skipped = getattr(dataset, "skipped", [])
    return replaced


def save_ids(dataset: Dataset, path: str | Path) -> Path:
    """Write the ids and captions of the chosen rows as CSV, and return its path.

        pairs = nib.datasets.load("scenes", ids=nib.datasets.save_ids(pairs, "build/ids.csv"))

    `load` then gives these rows in this order, with these captions.
    """
    path = to_path("path", path)
    if not isinstance(dataset, Dataset):
        raise TypeError(f"ids are those of a data set of `nib.datasets.load`, got {type(dataset).__name__}")
    with write_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        columns = dataset["id"][:], dataset["text"][:]
        writer = csv.writer(file, lineterminator="\n", quoting=choose_quoting(columns))
        writer.writerow(["id", "text"])
        writer.writerows(zip(*columns))
    return path


def read_ids(ids: str | Path | Sequence[str] | None) -> tuple[list[str] | None, list[str] | None]:
    """Read what `load` takes as `ids`: the ids, and the captions where a file has them."""
    if ids is None:
        return None, None
    texts = None
    if isinstance(ids, (str, Path)):
        path = to_path("ids", ids)
        if not path.is_file():
            raise FileNotFoundError(f"no file of ids at {str(ids)!r}")
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file, strict=True)
                rows, columns = list(reader), reader.fieldnames or []
        except (UnicodeDecodeError, csv.Error) as error:
            place = f" at line {reader.reader.line_num}" if isinstance(error, csv.Error) else ""
            raise ValueError(f"{str(ids)!r} must be a CSV file in UTF-8: {error}{place}") from error
        if "id" not in columns:
            raise ValueError(f"{str(ids)!r} must have a column 'id', got {shorten(list(columns))}")
        if find_twins(name.strip() for name in columns) or any(name != name.strip() for name in columns):
            raise ValueError(f"columns of {str(ids)!r} must differ and have no spaces around, got {shorten(columns)}")
        if surplus := [row["id"] for row in rows if None in row]:
            raise ValueError(
                f"row {surplus[0]!r} of {str(ids)!r} has more fields than the header: put text with a comma in"
                " quotation marks"
            )
        texts = [row["text"] for row in rows] if "text" in columns else None
        if empty := [row["id"] for row in rows if texts and not (row["text"] or "").strip()]:
            raise ValueError(f"{len(empty)} captions in {str(ids)!r} are empty: {', '.join(empty[:5])}")
        ids = [row["id"] for row in rows]
    if not isinstance(ids, Iterable) or isinstance(ids, (Set, Mapping)):
        raise TypeError(f"ids must be a list of ids or a file of them, got {type(ids).__name__}")
    ids = to_ids("ids", ids)
    if (twice := find_twins(ids)) or not ids:
        raise ValueError(f"ids must name at least one row, and each once, got {len(ids)}, twice: {twice[:5]}")
    return ids, texts
