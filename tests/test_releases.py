"""Stores that earlier releases made: today's code must open, verify, restore and check them, and go on with them."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from casstore import Snapshot, Store
from casstore.checking.findings import Severity
from casstore.directories import load_directory
from casstore.frame import FrameKind
from tests.support import frozen
from tests.support.stores import FAST, content, link_refs, names, rebuilt, write_disk

RELEASES = sorted(path for path in (Path(__file__).parents[1] / "fixtures/releases").iterdir() if path.is_dir())
HISTORY = next(path for path in RELEASES if path.name == "0.1.0-history")


def thaw(release: Path, tmp_path: Path) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A copy to work with, and what is expected of it."""
    shutil.copytree(release, tmp_path / "store", symlinks=True)
    expected = tmp_path / "store/expected.json"
    found: dict[str, dict[str, Any]] = json.loads(expected.read_bytes())
    expected.unlink()
    return tmp_path / "store", found


def require(store: Store, expected: dict[str, dict[str, Any]]) -> None:
    for name, each in expected.items():
        handle = store.get(name)
        assert (str(handle.digest), str(handle.id)) == (each["digest"], each["id"])
        assert handle.size_bytes == each["size_bytes"]
        assert store.verify(name).upper.kind == "verified"
        assert hashlib.sha256(content(store, name)).hexdigest() == each["disk_sha256"]


def test_there_are_frozen_stores() -> None:
    assert [path.name for path in RELEASES] == ["0.1.0", "0.1.0-history"]
    size = sum(path.stat().st_size for path in HISTORY.rglob("*") if path.is_file() and not path.is_symlink())
    assert size < 300_000


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_frozen_store_still_opens(release: Path, tmp_path: Path) -> None:
    root, expected = thaw(release, tmp_path)
    with Store.open(root, options=FAST) as store:
        assert sorted(names(store)) == sorted(expected)
        assert store.problems() == []
        require(store, expected)
        for name, each in expected.items():
            store.restore(name, tmp_path / name)
            assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == each["disk_sha256"]
        assert store._catalog.dump() == rebuilt(store)
    assert [each for each in Store.check(root).findings if each.severity is Severity.DAMAGE] == []


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_frozen_store_can_be_gone_on_with(release: Path, tmp_path: Path) -> None:
    root, expected = thaw(release, tmp_path)
    before = link_refs(root)
    parent = max(expected)
    with Store.open(root, options=FAST) as store:
        disk = tmp_path / "disk"
        disk.write_bytes(content(store, parent) + write_disk(tmp_path / "more", 7).read_bytes())
        made = Snapshot.builder(disk).name("new").parent(parent).create(store)
        old = store.open_snapshot(parent).artifact_manifest.packs
        assert {pack.digest for pack in old} & made.needs.keys(), "nothing of the frozen store was found again"
        store.gc()
        require(store, expected)
        assert content(store, "new") == disk.read_bytes()
        store.remove(parent, force=True)
        store.gc()
        assert content(store, "new") == disk.read_bytes()
        require(store, {name: each for name, each in expected.items() if name != parent})
    assert link_refs(root).keys() == (before.keys() | {"new"}) - {parent}


def test_the_history_holds_what_a_history_leaves(tmp_path: Path) -> None:
    root, expected = thaw(HISTORY, tmp_path)
    with Store.open(root, options=FAST) as store:
        kinds: set[int] = set()
        for name, each in expected.items():
            artifact = store.open_snapshot(name).artifact()
            assert len(artifact.packs) == each["packs"]
            for pack in artifact.packs:
                kinds |= set(load_directory(store._directory.blobs, pack.descriptor, pack.directory).kinds.tolist())
        assert kinds >= {FrameKind.ZSTD, FrameKind.DELTA}
        packs = [each["packs"] for _, each in sorted(expected.items())]
        assert max(packs) > 2
        assert any(later < earlier for earlier, later in itertools.pairwise(packs)), "none were merged"
        assert [each.artifact_type for each in store.referrers("step-2")] == ["application/vnd.example.note.v1"]
        assert [each.name for each in store.removed()] == ["removed"]
        store.undo()
        assert store.get("removed").digest == store.get("step-1").digest


def test_what_makes_a_frozen_store_still_runs(tmp_path: Path) -> None:
    frozen.make(tmp_path / "frozen")
    root, expected = thaw(tmp_path / "frozen", tmp_path)
    assert {path.name for path in root.iterdir()} == {path.name for path in HISTORY.iterdir()} - {"expected.json"}
    with Store.open(root, options=FAST) as store:
        require(store, expected)
