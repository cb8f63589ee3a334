"""Tables are whole or not there, and unlike numbers have unlike hashes."""

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

import nib
from nib.evaluation.batches import to_bytes
from nib.files import save_table
from nib.hashes import hash_all


@pytest.fixture
def frame():
    values = [0.1 + 0.2, np.nan, -0.0, 1e-320, np.inf]
    return pd.DataFrame({"id": list("abcde"), "layer": [1.0, np.nan, 2, 3, 4], "value": values})


def test_what_is_written_is_read_to_the_bit(frame, tmp_path):
    path = tmp_path / "new" / "folder" / "table.parquet"
    assert nib.save_table is save_table
    save_table(frame, str(path))
    found = pd.read_parquet(path)
    assert_frame_equal(found, frame, check_exact=True)
    assert found["value"].to_numpy().tobytes() == frame["value"].to_numpy().tobytes()
    assert [entry.name for entry in path.parent.iterdir()] == ["table.parquet"]


def test_the_same_table_gives_the_same_file(frame, tmp_path):
    for name in ("first.parquet", "second.parquet"):
        save_table(frame.sample(frac=1, random_state=0).sort_values("id"), tmp_path / name)
    assert (tmp_path / "first.parquet").read_bytes() == (tmp_path / "second.parquet").read_bytes()


def test_a_table_is_replaced(frame, tmp_path):
    path = tmp_path / "table.parquet"
    save_table(frame, path)
    save_table(frame[:2], path)
    assert len(pd.read_parquet(path)) == 2
    assert len(list(tmp_path.iterdir())) == 1


def half_written(self, path, **options):
    path.write_bytes(b"PAR1")
    raise OSError("no space left on device")


def test_an_error_leaves_the_old_table_and_nothing_else(frame, tmp_path, monkeypatch):
    path = tmp_path / "table.parquet"
    save_table(frame, path)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", half_written)
    for target in (path, tmp_path / "other.parquet"):
        with pytest.raises(OSError, match="no space left"):
            save_table(frame[:1], target)
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.parquet"]
    assert len(pd.read_parquet(path)) == 5


def test_a_table_that_parquet_cannot_hold(tmp_path):
    with pytest.raises(Exception, match="value"):
        save_table(pd.DataFrame({"value": [object(), object()]}), tmp_path / "table.parquet")
    assert not list(tmp_path.iterdir())


def test_while_it_is_written_the_old_table_is_there(frame, tmp_path, monkeypatch):
    path = tmp_path / "table.parquet"
    save_table(frame, path)
    write = pd.DataFrame.to_parquet

    def look(self, target, **options):
        write(self, target, **options)
        assert target.parent == path.parent  # one file system: moving is atomic
        assert len(pd.read_parquet(path)) == 5

    monkeypatch.setattr(pd.DataFrame, "to_parquet", look)
    save_table(frame[:3], path)
    monkeypatch.undo()
    assert len(pd.read_parquet(path)) == 3


def test_hashes_tell_numbers_types_shapes_and_splits_apart():
    ones = torch.ones(2, 3)
    tensors = [
        ones,
        ones.T,
        ones.int(),
        ones.view(6),
        ones.double(),
        ones.bfloat16(),
        ones * (1 + 1e-7),
        -ones,
        ones > 0,
    ]
    hashes = {hash_all(to_bytes(tensor)) for tensor in tensors}
    assert len(hashes) == len(tensors)
    words = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("c", "ab")]
    assert len({hash_all(*each) for each in words}) == len(words)
    assert hash_all("a", b"b") == hash_all(b"a", "b")
    assert to_bytes(torch.arange(6.0).view(2, 3).T) == to_bytes(torch.tensor([[0.0, 3], [1, 4], [2, 5]]))
    assert to_bytes(ones.requires_grad_()) == to_bytes(torch.ones(2, 3))
