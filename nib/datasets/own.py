"""Read your own pictures and captions from a folder or a table."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from datasets import Dataset, Image
from datasets.table import InMemoryTable

from nib.checks import shorten
from nib.datasets.hub import find_split, open_split
from nib.datasets.rows import Choice, find_twins, name_captions, pick, to_ids

IMAGES = ("image", "jpg", "png", "file_name", "filename", "image_path", "file", "path")
TEXTS = ("text", "caption", "captions", "txt", "caption_0", "title", "description")
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
LIST = re.compile(r"""\s*\[\s*['"].*['"]\s*\]\s*$""", re.DOTALL)  # as pandas writes one into a CSV
READERS = {
    ".csv": lambda file: _read_csv(file),
    ".jsonl": lambda file: _read_jsonl(file),
    ".parquet": lambda file: Dataset(InMemoryTable(pq.read_table(file))),
}


def load_own(
    path: Path, split: str | None, choice: Choice, image_column: str | None, text_column: str | None
) -> Dataset:
    """Load your own data; see `nib.datasets.load`."""
    rows, columns, folder = _open(path, split)
    image_column = _find_column("image", image_column, IMAGES, columns, path)
    texts = [_find_column("text", text_column, TEXTS, columns, path)]
    if isinstance(rows, Dataset) and isinstance(rows.features[image_column], Image):
        rows = rows.cast_column(image_column, Image(decode=False))
    if texts == ["caption_0"] and text_column is None:
        numbered = [name for name in columns if re.fullmatch(r"caption_\d+", name)]
        texts = sorted(numbered, key=lambda name: int(name.removeprefix("caption_")))
    _check_captions(rows, texts, path)

    def read(number: int) -> dict:
        row = rows[number]
        picture = _to_picture(row[image_column], folder, f"column {image_column!r} of {str(path)!r}")
        return {"id": keys[number], "image": picture, **_to_text([row[name] for name in texts])}

    keys = _name_rows(rows, columns, image_column, path)
    return pick(path.name, keys, read, choice)


def _open(path: Path, split: str | None) -> tuple[Dataset | list[dict], list[str], Path]:
    """Return rows, the names of their columns, and the folder that paths are relative to."""
    folder = path / split if path.is_dir() and split and (path / split).is_dir() else path
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(tables) > 1:
        raise ValueError(f"{str(folder)!r} must have one metadata file, got {', '.join(t.name for t in tables)}")
    if (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file():
        raise ValueError(
            f"{str(folder)!r} was written by `save_to_disk`: write a file with `to_parquet`, and load that"
        )
    if path.is_dir() and not tables:
        if path.resolve() in (home := Path.home().resolve(), *home.parents):  # it would be walked
            raise ValueError(f"name must be a folder of data or a file, got {str(path)!r}, in which all of home lies")
        inner = sorted({str(table.parent.relative_to(path)) for name in TABLES for table in path.glob(f"*/**/{name}")})
        if len(inner) == 1 and split is None:
            return _open(path, inner[0])
        if inner:  # `datasets` would read '001' in them as 1, and "null" as nothing
            raise ValueError(f"split of {str(path)!r} must be one of {shorten(inner)}, got {split!r}")
        builder, split, _ = find_split(path, split)
        chosen = builder.config.data_files[split]
        read = {Path(file) for files in builder.config.data_files.values() for file in files}
        beside = {other for folder in {file.parent for file in read} for other in folder.glob("[!.]*.*")} - read
        if lost := sorted(other.name for other in beside if other.suffix in READERS):
            raise ValueError(
                f"{shorten(lost)} in {str(path)!r} would not be read: call the one table of a folder metadata.csv (or"
                " .jsonl or .parquet), or pass the file itself"
            )
        if builder.name == "csv" or Path(chosen[0]).suffix == ".jsonl":  # `datasets` would read '001' in them as 1
            if len(chosen) > 1:
                raise ValueError(f"a split of {str(path)!r} must be one table, got {shorten([*map(str, chosen)])}")
            return *_open(Path(chosen[0]), None)[:2], path
        rows = open_split(path, split)
        return rows, rows.column_names, path
    table = tables[0] if tables else path
    if split is not None and folder == path:
        raise ValueError(f"{str(path)!r} has no splits, got split={split!r}")
    if table.suffix not in READERS:
        raise ValueError(f"a table must be one of {sorted(READERS)}, got {str(table)!r}")
    try:
        rows = READERS[table.suffix](table)
    except (ValueError, OSError, RecursionError) as error:  # also those of pandas, Arrow and UTF-8
        raise ValueError(f"{str(table)!r} cannot be read as {table.suffix}: {str(error).strip()}") from error
    if isinstance(rows, Dataset):
        return rows, rows.column_names, table.parent
    return rows.to_dict("records"), list(rows.columns), table.parent


def _read_csv(path: Path) -> pd.DataFrame:
    # Of a row with more fields than the header pandas would take the first for names of rows, and move all others.
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader, header = csv.reader(file, strict=True), []
        try:
            header = next(reader, [])
            for row in reader:
                if len(row) > len(header) == 1 and re.search(r"[;\t|]", header[0]):
                    raise ValueError(f"fields must be divided by commas, got the header {shorten(header[0])}")
                if len(row) > len(header):
                    raise ValueError(
                        f"line {reader.line_num} has {len(row)} fields and the header {len(header)}: put text with a"
                        f" comma in quotation marks; it starts with {shorten(row[0])}"
                    )
        except csv.Error as error:
            if str(error) != "unexpected end of data":  # pandas says where the quotation begins that has no end
                raise ValueError(f"line {reader.line_num}: {error}") from error
    if twice := find_twins(header):
        raise ValueError(f"the header names column {', '.join(twice)} twice")
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _read_jsonl(path: Path) -> pd.DataFrame:
    """Read a mapping a line as it stands, None where one lacks a column: pandas would make all numbers of one kind."""
    rows = []
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
        try:
            rows += [json.loads(line, object_pairs_hook=_to_mapping)] if line.strip() else []
        except (ValueError, RecursionError) as error:  # json's own words count lines from this one
            column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            raise ValueError(f"line {number}{column}: {getattr(error, 'msg', error)}") from error
    json.dumps(rows, ensure_ascii=False).encode()  # refuses half of a surrogate pair
    if wrong := [row for row in rows if not isinstance(row, dict)]:
        raise ValueError(f"every line must be a mapping, got {shorten(wrong[0])}")
    frame = pd.DataFrame(rows, dtype=object)
    return frame.where(frame.notna(), None)


def _to_mapping(pairs: list[tuple[str, Any]]) -> dict:
    """Make a mapping, in which json would keep the last of the values of a key."""
    if twice := find_twins(key for key, _ in pairs):
        raise ValueError(f"a mapping must have each key once, got twice {shorten(twice[0])}")
    return dict(pairs)


def _find_column(kind: str, name: str | None, known: Sequence[str], columns: list[str], path: Path) -> str:
    obvious = [column for column in known if column in columns]
    if name in columns or (name is None and obvious):
        return name or obvious[0]
    looked_for = f"{kind}_column {name!r}" if name else f"any of {list(known)}"
    raise ValueError(f"{str(path)!r} has the columns {columns}, not {looked_for}: name it with {kind}_column=")


def _name_rows(rows: Dataset | list[dict], columns: list[str], image_column: str, path: Path) -> list[str]:
    """Call a row by its column `id`, else by the path of its picture, else by its number."""
    if "id" in columns:
        keys = _read_column(rows, "id")
        if empty := [number for number, key in enumerate(keys) if key is None or not str(key).strip()]:
            raise ValueError(f"column 'id' of {str(path)!r} is empty in rows {empty[:10]} (from 0)")
        keys = to_ids(f"column 'id' of {str(path)!r}", keys)
        if twice := find_twins(keys):
            raise ValueError(f"column 'id' of {str(path)!r} must be unique, got twice {', '.join(twice[:5])}")
        return keys
    first = rows[0][image_column] if len(rows) else None
    if isinstance(first, str):
        keys = [str(key) for key in _read_column(rows, image_column)]
        if len(set(keys)) == len(keys):  # not where a picture has a row for each of its captions
            return keys
    return [f"{path.stem}-{number:05d}" for number in range(len(rows))]


def _check_captions(rows: Dataset | list[dict], texts: list[str], path: Path) -> None:
    columns = [_read_column(rows, name) for name in texts]
    if written := [number for number, text in enumerate(columns[0]) if isinstance(text, str) and LIST.match(text)]:
        raise ValueError(
            f"captions in {texts} of {str(path)!r} must be text, got lists written as text in rows {written[:10]} (from"
            f" 0), {shorten(columns[0][written[0]])}: .jsonl and .parquet hold lists, a CSV has columns caption_0, ..."
        )
    if empty := [number for number, values in enumerate(zip(*columns)) if not _to_text(values)["text"]]:
        raise ValueError(
            f"{len(empty)} of {len(rows)} captions in {texts} of {str(path)!r} are empty or no text:"
            f" rows {empty[:10]} (from 0)"
        )


def _read_column(rows: Dataset | list[dict], name: str) -> Sequence[Any]:
    return rows[name][:] if isinstance(rows, Dataset) else [row[name] for row in rows]


def _to_text(values: Sequence[Any]) -> dict:
    """Make `text`, and `captions` of a list or of several columns."""
    (value, *more) = values
    if not more and not isinstance(value, (list, tuple)):
        return {"text": value if isinstance(value, str) and value.strip() else ""}
    captions = values if more else value
    if not all(caption is None or isinstance(caption, str) for caption in captions):
        return {"text": ""}
    return name_captions(captions)


def _to_picture(value: Any, folder: Path, what: str) -> dict:
    got = shorten(value) if isinstance(value, dict) else type(value).__name__
    if not isinstance(value, dict):
        value = {"bytes": value} if isinstance(value, bytes) else {"path": value}
    content, path = value.get("bytes"), value.get("path")
    if not isinstance(content, bytes | None) or not isinstance(path, str | None) or not {"bytes", "path"} & set(value):
        raise ValueError(f"{what} must hold encoded pictures or paths, got {got}")
    if "\0" in (path or ""):
        raise ValueError(f"{what} must hold encoded pictures or paths, got {path!r}")
    return {"bytes": content, "path": path if content or not path else str((folder / path).resolve())}
