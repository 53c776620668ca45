"""Cells on disk: whole or not there."""

from __future__ import annotations

import numpy as np
import pytest

from tokred.run.evaluate import Arrays
from tokred.run.store import CellStore, cell_id, write_atomic


@pytest.fixture
def arrays() -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "logits": rng.normal(size=(4, 3)).astype(np.float32),
        "items": np.array([0, 0, 1, 2]),
        "labels.action": np.array([1, 1, 0, 2]),
    }


def test_a_cell_comes_back_as_it_was(tmp_path, arrays) -> None:
    store = CellStore(tmp_path)
    store.write("abc", {"seconds": 1.5}, arrays)
    record, found = store.read("abc")
    assert record == {"seconds": 1.5}
    assert found.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype


def test_a_failure_is_kept_until_the_cell_is_finished(tmp_path, arrays) -> None:
    store = CellStore(tmp_path)
    assert store.failure("abc") is None
    store.write_failure("abc", {"reason": "out of memory"})
    assert store.failure("abc") == {"reason": "out of memory"}
    assert store.read("abc") is None
    store.write("abc", {"seconds": 1}, arrays)
    assert store.failure("abc") is None


def test_a_forgotten_cell_is_gone(tmp_path, arrays) -> None:
    store = CellStore(tmp_path)
    store.write("abc", {"seconds": 1}, arrays)
    store.forget("abc")
    assert store.read("abc") is None
    assert list(store.folder.iterdir()) == []


def test_a_missing_or_damaged_cell_is_no_cell(tmp_path, arrays) -> None:
    store = CellStore(tmp_path)
    assert store.read("abc") is None
    store.write("abc", {"seconds": 1}, arrays)
    file = store.folder / "abc.npz"
    file.write_bytes(file.read_bytes()[:100])
    assert store.read("abc") is None
    store.write("abc", {"seconds": 1}, arrays)
    for content in ("{}", "[]", '{"seconds": null}'):
        (store.folder / "abc.json").write_text(content)
        assert store.read("abc") is None, "what it found and what went wrong is not there"
    (store.folder / "abc.json").unlink()
    assert store.read("abc") is None


def test_arrays_that_hold_pickles_are_refused(tmp_path, arrays) -> None:
    store = CellStore(tmp_path)
    store.write("abc", {"seconds": 1}, arrays)
    np.savez(store.folder / "abc.npz", logits=np.array([object()], dtype=object))
    assert store.read("abc") is None


def test_a_failing_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch) -> None:
    path = tmp_path / "results.json"
    write_atomic(path, b"old")
    monkeypatch.setattr("os.fsync", lambda fd: (_ for _ in ()).throw(OSError("no space left on device")))
    with pytest.raises(OSError, match="no space"):
        write_atomic(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_the_id_depends_on_every_part_and_not_on_their_order() -> None:
    assert cell_id({"a": 1, "b": 2}) == cell_id({"b": 2, "a": 1})
    assert cell_id({"a": 1, "b": 2}) != cell_id({"a": 1, "b": 3})
