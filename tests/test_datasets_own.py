"""Own folders and tables are read in every form that is documented, and what is wrong is said."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, Features, Image, Value
from hub_data import break_picture, draw
from PIL import Image as PILImage

from nib.datasets import load

CAPTIONS = [f"a cat on mat {number}" for number in range(6)]
CONTENTS = [draw(number, kind="PNG") for number in range(6)]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path):
    """Six pictures and no captions yet."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, content in enumerate(CONTENTS):
        (folder / f"{number}.png").write_bytes(content)
    return folder


def write_metadata(folder, captions=CAPTIONS, **columns):
    names = [f"{number}.png" for number in range(len(captions))]
    frame = pd.DataFrame({"file_name": names, "caption": captions, **columns})
    frame.to_csv(folder / "metadata.csv", index=False)
    return folder


def write_parquet(path, **columns):
    pd.DataFrame({"image": [{"bytes": content, "path": None} for content in CONTENTS], **columns}).to_parquet(path)
    return path


def assert_all_six(data):
    assert data.column_names[:3] == ["id", "image", "text"]
    assert data["text"][:] == CAPTIONS
    for row, content in zip(data, CONTENTS):
        assert np.array_equal(row["image"], PILImage.open(io.BytesIO(content)))
    assert data.skipped == []


def test_folder_with_csv(folder):
    data = load(write_metadata(folder))
    assert_all_six(data)
    assert data["id"][:] == [f"{number}.png" for number in range(6)]


def test_folder_with_json_lines(folder):
    rows = [{"file_name": f"{number}.png", "text": caption} for number, caption in enumerate(CAPTIONS)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert_all_six(load(str(folder)))


def test_splits_are_folders(folder, tmp_path):
    for split in ("train", "test"):
        (tmp_path / "both" / split).mkdir(parents=True)
    write_metadata(folder).rename(tmp_path / "both" / "test" / "x")
    for file in (tmp_path / "both" / "test" / "x").iterdir():
        file.rename(tmp_path / "both" / "test" / file.name)
    assert_all_six(load(tmp_path / "both", split="test"))


def test_parquet_in_each_form(folder, tmp_path):
    assert_all_six(load(write_parquet(tmp_path / "struct.parquet", caption=CAPTIONS)))
    pd.DataFrame({"jpg": CONTENTS, "txt": CAPTIONS}).to_parquet(tmp_path / "bytes.parquet")
    assert_all_six(load(tmp_path / "bytes.parquet"))
    features = Features({"image": Image(), "text": Value("string")})
    pictures = [{"bytes": content, "path": None} for content in CONTENTS]
    Dataset.from_dict({"image": pictures, "text": CAPTIONS}, features=features).to_parquet(tmp_path / "hf.parquet")
    assert_all_six(load(tmp_path / "hf.parquet"))
    paths = [f"pictures/{number}.png" for number in range(6)]
    pd.DataFrame({"image": paths, "text": CAPTIONS}).to_parquet(tmp_path / "paths.parquet")
    assert_all_six(load(tmp_path / "paths.parquet"))

    (tmp_path / "set" / "data").mkdir(parents=True)
    write_parquet(tmp_path / "set" / "data" / "test-00000-of-00001.parquet", text=CAPTIONS)
    assert_all_six(load(tmp_path / "set"))  # the only split
    write_parquet(tmp_path / "set" / "data" / "train-00000-of-00001.parquet", text=CAPTIONS[::-1])
    assert load(tmp_path / "set", split="train")["text"][:] == CAPTIONS[::-1]
    with pytest.raises(ValueError, match=r"split of .* must be one of \['test', 'train'\], got None"):
        load(tmp_path / "set")


def test_columns_are_named_and_may_hold_several_captions(folder, tmp_path):
    frame = pd.DataFrame({"where": [f"pictures/{n}.png" for n in range(6)], "what": CAPTIONS, "id": range(10, 16)})
    frame.to_csv(tmp_path / "table.csv", index=False)
    data = load(tmp_path / "table.csv", image_column="where", text_column="what")
    assert_all_six(data)
    assert data["id"][:] == [str(number) for number in range(10, 16)]

    lists = [[caption, "something else", ""] for caption in CAPTIONS]
    data = load(write_parquet(tmp_path / "lists.parquet", captions=lists))
    assert data["captions"][:] == [[caption, "something else"] for caption in CAPTIONS]  # without the empty one
    data = load(write_parquet(tmp_path / "columns.parquet", caption_0=CAPTIONS, caption_1=CAPTIONS[::-1]))
    assert data["captions"][:] == [list(pair) for pair in zip(CAPTIONS, CAPTIONS[::-1])]
    assert data["text"][:] == CAPTIONS


def test_a_row_for_each_caption_of_a_picture(folder):
    frame = pd.DataFrame({"file_name": ["0.png"] * 3, "text": CAPTIONS[:3]})
    frame.to_csv(folder / "metadata.csv", index=False)
    assert load(folder)["id"][:] == [f"pictures-{number:05d}" for number in range(3)]


def test_sample(folder):
    write_metadata(folder)
    three, five = load(folder, limit=3), load(folder, limit=5)
    assert three["id"][:] == five["id"][:3]  # so that a run can grow
    assert three["id"][:] == load(folder, limit=3)["id"][:] != load(folder, limit=3, seed=1)["id"][:]
    assert load(folder, ids=["4.png", "1.png"])["text"][:] == [CAPTIONS[4], CAPTIONS[1]]
    with pytest.raises(ValueError, match=r"has no row 9\.png"):
        load(folder, ids=["1.png", "9.png"])


def test_unusable_pictures_are_left_out_and_replaced(folder):
    (folder / "0.png").write_bytes(break_picture(draw(0, 100, "PNG")))
    (folder / "1.png").write_text("no picture")
    (folder / "2.png").unlink()
    PILImage.fromarray(np.full((8, 8), 60000, dtype=np.uint16)).save(folder / "3.png")
    write_metadata(folder)
    with pytest.warns(
        UserWarning, match=r"4 of the rows of .* cannot be used: 0\.png, 1\.png, 2\.png, 3\.png"
    ) as caught:
        data = load(folder)
    assert caught[0].filename == __file__
    assert data["id"][:] == ["4.png", "5.png"]
    reasons = {entry["id"]: entry["reason"] for entry in data.skipped}
    for key, word in {"0.png": "decoded", "1.png": "format", "2.png": "no picture at", "3.png": "8 bits"}.items():
        assert word in reasons[key]
    with pytest.warns(UserWarning, match="cannot be used"):
        assert set(load(folder, limit=2)["id"]) == {"4.png", "5.png"}
    with pytest.raises(ValueError, match=r"row 1\.png of pictures cannot be used: its picture is in no known format"):
        load(folder, ids=["4.png", "1.png"])


def test_bad_folders_and_columns(folder, tmp_path):
    with pytest.raises(ValueError, match=r"has the columns \['image'.*not any of \['text', 'caption'"):
        load(folder)

    with pytest.raises(ValueError, match=r"2 of 6 captions in .*are empty or no text: rows \[1, 3\]"):
        load(write_metadata(folder, ["a", " ", "c", "", "e", "f"]))

    write_metadata(folder)
    with pytest.raises(
        ValueError, match=r"columns \['file_name', 'caption'\], not text_column 'words': .*text_column="
    ):
        load(folder, text_column="words")
    pd.DataFrame({"file_name": ["0.png"], "label": [3]}).to_csv(folder / "metadata.csv", index=False)
    with pytest.raises(ValueError, match=r"columns \['file_name', 'label'\], not any of \['text', "):
        load(folder)
    pd.DataFrame({"image": [3], "text": ["a"]}).to_parquet(tmp_path / "numbers.parquet")
    with pytest.raises(ValueError, match=r"column 'image' of .* must hold encoded pictures or paths, got int"):
        load(tmp_path / "numbers.parquet")
    with pytest.raises(ValueError, match=r"column 'id' of .* must be unique, got twice 7"):
        load(write_metadata(folder, id=[7, 7, 1, 2, 3, 4]))

    frame = pd.DataFrame({"image": ["not/0.png", "not/1.png"], "text": CAPTIONS[:2]})
    frame.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(
        ValueError, match=r"no row of table\.csv can be used, 2 were tried; not/0\.png: .*no picture at"
    ):
        load(tmp_path / "table.csv")


def test_bad_files(folder, tmp_path):
    with pytest.raises(ValueError, match=r"a table must be one of \['.csv', '.jsonl', '.parquet'\], got .*0\.png"):
        load(folder / "0.png")
    with pytest.raises(ValueError, match="has no splits, got split='test'"):
        load(write_parquet(tmp_path / "x.parquet", text=CAPTIONS), split="test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no data set at .*empty"):
        load(tmp_path / "empty")
    with pytest.raises(TypeError, match="path has no meaning for own data"):
        load(folder, path="elsewhere")
