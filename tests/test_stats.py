"""What snapshots take: the figures of stats, and how they are shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from casstore import Store
from casstore.errors import NotFound
from tests.support.command import Casstore
from tests.support.stores import FAST, PIECE, blobs, capture


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three snapshots: of two the second has all of the first, and one has nothing in common with them."""
    store = Store.init(tmp_path / "store", options=FAST)
    capture(store, tmp_path, "one", 1, 2, 0, 3)
    capture(store, tmp_path, "two", 1, 2, 0, 3, 0, 4)
    capture(store, tmp_path, "three", 5, 0)
    store.tag("one", "again")
    return store


def bytes_of(root: Path) -> int:
    return sum(os.stat(root / "blobs/sha256" / name).st_size for name in blobs(root))


def test_the_total_is_what_lies_in_the_store(store: Store) -> None:
    with store:
        found = store.stats()
        assert sorted(each.names for each in found.snapshots) == [("again", "one"), ("three",), ("two",)]
        total = found.total
        assert total.stored == bytes_of(Path(store.path))
        assert total.logical == (4 + 6 + 2) * PIECE
        assert total.allocated == (3 + 4 + 1) * PIECE
        assert total.plain == 5 * PIECE
        assert total.dedup == 8 / 5
        assert total.compression == total.plain / total.packed
        assert total.reduction == total.allocated / total.stored
        assert total.unique == sum(each.usage.unique for each in found.snapshots)
        assert total.unique + total.shared == total.stored


def test_unique_is_what_removing_would_free(store: Store) -> None:
    with store:
        for name in ("two", "three", "one"):
            [one] = store.stats([name]).snapshots
            assert one.usage.stored == store.open_snapshot(name).stored_bytes
            assert one.usage == store.stats([name]).total
            before = bytes_of(Path(store.path))
            store.remove(str(one.digest))
            assert store.gc().freed == one.usage.unique
            assert bytes_of(Path(store.path)) == before - one.usage.unique
        assert store.stats().total.stored == 0
        assert store.stats().total.dedup is None


def test_what_is_selected_counts_once(store: Store) -> None:
    with store:
        both = store.stats(["one", "two", "again"])
        assert len(both.snapshots) == 2
        needs = {**store.open_snapshot("one").needs, **store.open_snapshot("two").needs}
        assert both.total.stored == sum(needs.values())
        assert both.total.plain == 4 * PIECE
        with pytest.raises(NotFound):
            store.stats(["one", "nothing"])
        assert store.stats([]).snapshots == ()


def test_the_command_shows_a_table_and_a_document(store: Store, tmp_path: Path) -> None:
    with store:
        expected = store.stats()
    casstore = Casstore(tmp_path)
    head, *rows, total = casstore("stats").lines
    assert " ".join(head.split()) == "NAME LOGICAL ALLOCATED STORED UNIQUE SHARED DEDUP COMPRESSION IN ALL"
    assert [row.split("    ")[0].strip() for row in rows] == ["three", "two", "again, one"]
    assert total.startswith("(3 snapshots)    768.0 KiB    512.0 KiB ")
    assert "1.60x" in total
    assert casstore("df", "two").lines[-1].startswith("(1 snapshot)")
    document = casstore.json("stats", "one", "two")
    assert [each["names"] for each in document["snapshots"]] == [["two"], ["again", "one"]]
    assert document["total"]["snapshots"] == 2
    assert casstore.json("stats")["total"]["stored_bytes"] == expected.total.stored
    casstore("stats", "nothing", code=10)


def test_an_empty_store_has_no_factors(tmp_path: Path) -> None:
    Store.init(tmp_path / "store", options=FAST).close()
    casstore = Casstore(tmp_path)
    assert casstore("stats").stderr == "No snapshots.\n"
    total = casstore.json("stats")["total"]
    assert (total["stored_bytes"], total["dedup_factor"]) == (0, None)
