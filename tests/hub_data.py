"""Small data sets with the ids, columns, features and splits of the public ones.

The pictures are drawn at random from a seed. `write_all` gives the folders that `hub.serve` takes.
"""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from nib.datasets.public import read_classes


def draw(seed: int, side: int = 24, kind: str = "JPEG") -> bytes:
    """Draw a coarse random picture and encode it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).resize((side, side)).save(buffer, kind)
    return buffer.getvalue()


def break_picture(content: bytes) -> bytes:
    """Cut a picture off in the middle."""
    return content[: len(content) // 2]


def write_parquet(folder: Path, split: str, rows: list[dict], features: Features) -> None:
    """Write a split as `push_to_hub` names it."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    columns = {name: [row[name] for row in rows] for name in features}
    Dataset.from_dict(columns, features=features).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")


def write_card(folder: Path, splits: tuple[str, ...]) -> None:
    """Write the part of a data set's card that says which files are which split."""
    lines = [f"  - split: {split}\n    path: data/{split}-*" for split in splits]
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n" + "\n".join(lines) + "\n---\n"
    )


def write_flickr8k(folder: Path, rows: int = 12, broken: tuple[int, ...] = ()) -> Path:
    captions = [f"caption_{number}" for number in range(5)]
    features = Features({"image": Image()} | {name: Value("string") for name in captions})
    for split, seed in (("train", 100), ("validation", 200), ("test", 300)):
        table = [
            {"image": {"bytes": draw(seed + row), "path": None}}
            | {name: f"a dog number {row} seen by {name[-1]} people" for name in captions}
            for row in range(rows if split == "validation" else 2)
        ]
        for row in broken if split == "validation" else ():
            table[row]["image"]["bytes"] = break_picture(table[row]["image"]["bytes"])
        write_parquet(folder, split, table, features)
    write_card(folder, ("train", "validation", "test"))
    return folder


def write_conceptual_captions(folder: Path, shards: int = 3, rows: int = 8, broken: tuple[str, ...] = ()) -> Path:
    """Write tar shards of .jpg, .json and .txt; `broken` names keys whose picture is cut off."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, number in (("train", 1), ("validation", shards)):
        for shard in range(number):
            with tarfile.open(folder / f"cc3m-{split}-{shard:04d}.tar", "w") as tar:
                for row in range(rows):
                    key = f"{shard:04d}{row:05d}"
                    content = draw(1000 * shard + row)
                    picture = break_picture(content) if key in broken else content
                    # img2dataset's records do not all have the same fields
                    record = {"key": key, "status": "success"} | ({"width": 24, "exif": {}} if row % 2 else {})
                    text = f"a cat number {row} of shard {shard}"
                    for suffix, body in (
                        ("jpg", picture),
                        ("json", json.dumps(record).encode()),
                        ("txt", text.encode()),
                    ):
                        entry = tarfile.TarInfo(f"{key}.{suffix}")
                        entry.size = len(body)
                        tar.addfile(entry, io.BytesIO(body))
    return folder


def write_tiny_imagenet(folder: Path, per_class: int = 6, broken: tuple[int, ...] = ()) -> Path:
    """Write 200 classes; row r is of class 7 r modulo 200: they are not sorted by class."""
    wnids = list(read_classes())
    features = Features({"image": Image(), "label": ClassLabel(names=wnids)})
    contents = [draw(seed, side=8, kind="PNG") for seed in range(4)]
    for split, number in (("train", 1), ("valid", per_class)):
        rows = [
            {"image": {"bytes": contents[(row * 7) % 4], "path": None}, "label": row * 7 % 200}
            for row in range(200 * number)
        ]
        for row in broken if split == "valid" else ():
            rows[row]["image"] = {"bytes": b"no picture", "path": None}
        write_parquet(folder, split, rows, features)
    return folder


def write_imagenet(folder: Path, rows: int = 10) -> Path:
    names = ["tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark, white shark, man-eater"]
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    for split, number in (("train", 2), ("validation", rows), ("test", 2)):
        table = [
            {"image": {"bytes": draw(row), "path": f"ILSVRC2012_val_{row:08d}.JPEG"}, "label": row % 3}
            for row in range(number)
        ]
        write_parquet(folder, split, table, features)
    return folder


def write_rsicd(folder: Path, rows: int = 8) -> Path:
    features = Features({"filename": Value("string"), "captions": List(Value("string")), "image": Image()})
    for split, number in (("train", 2), ("test", rows), ("valid", 2)):
        table = [
            {"filename": f"rsicd_images/airport_{row}.jpg", "image": {"bytes": draw(row), "path": None}}
            | {"captions": [f"{count} planes are parked at airport {row} ." for count in range(1, 6)]}
            for row in range(number)
        ]
        write_parquet(folder, split, table, features)
    write_card(folder, ("train", "test", "valid"))
    return folder


def write_all(folder: Path, rows: int = 12) -> dict[str, Path]:
    """Write every public data set in small, and name the folders by their ids."""
    return {
        "jxie/flickr8k": write_flickr8k(folder / "flickr8k", rows, broken=(3,)),
        "pixparse/cc3m-wds": write_conceptual_captions(folder / "cc3m", 3, max(rows // 2, 4), broken=("000100002",)),
        "zh-plus/tiny-imagenet": write_tiny_imagenet(folder / "tiny_imagenet", broken=(0, 201)),
        "ILSVRC/imagenet-1k": write_imagenet(folder / "imagenet", rows),
        "arampacha/rsicd": write_rsicd(folder / "rsicd", rows),
    }
