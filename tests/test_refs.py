"""Refs: what is one, what is not, and that nothing in refs/ can hurt anything else (fault rows 22-24, 30, 65)."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from casstore import Store
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import AlreadyExists, CorruptContent, InvalidName, NotFound, StorageError
from casstore.names import SnapshotName
from casstore.refs import Refs
from casstore.retention import Policy
from casstore.trash import Trash
from tests.support.stores import (
    FAST,
    all_files,
    blob_path,
    capture,
    content,
    disk_bytes,
    flip_byte,
    index_refs,
    link_refs,
    names,
)

ONE, TWO = Digest.of(b"one"), Digest.of(b"two")
NAME = SnapshotName("name")


@pytest.fixture
def refs(tmp_path: Path) -> Refs:
    (tmp_path / "refs").mkdir()
    return Refs(str(tmp_path / "refs"), Trash(str(tmp_path / "trash"), Durability.FULL), Durability.FULL)


def read(refs: Refs) -> dict[SnapshotName, Digest]:
    found, broken = refs.read_all()
    assert broken == []
    return found


def test_a_name_is_set_and_read(refs: Refs, tmp_path: Path) -> None:
    refs.set(NAME, ONE, force=False)
    assert refs.get(NAME) == ONE
    assert read(refs) == {NAME: ONE}
    assert (tmp_path / "refs/name").readlink() == Path(f"../blobs/sha256/{ONE.hex}")
    assert os.listdir(tmp_path / "refs") == ["name"]


def test_setting_it_again_is_no_error_and_setting_it_to_another_is(refs: Refs, tmp_path: Path) -> None:
    refs.set(NAME, ONE, force=False)
    inode = (tmp_path / "refs/name").lstat().st_ino
    refs.set(NAME, ONE, force=False)
    refs.set(NAME, ONE, force=True)
    assert (tmp_path / "refs/name").lstat().st_ino == inode
    with pytest.raises(AlreadyExists, match=str(ONE)):
        refs.set(NAME, TWO, force=False)
    assert read(refs) == {NAME: ONE}
    refs.set(NAME, TWO, force=True)
    assert read(refs) == {NAME: TWO}
    assert os.listdir(tmp_path / "refs") == ["name"]


def test_a_removed_name_is_free_and_lies_in_the_trash(refs: Refs, tmp_path: Path) -> None:
    refs.set(NAME, ONE, force=False)
    refs.remove([NAME], 1)
    assert read(refs) == {}
    assert [path.name.partition("@")[0] for path in (tmp_path / "trash").iterdir()] == ["name"]
    with pytest.raises(NotFound):
        refs.remove([NAME], 1)
    refs.set(NAME, TWO, force=False)
    refs.remove([NAME], 2)
    assert len(list((tmp_path / "trash").iterdir())) == 2


def test_a_broken_ref_is_not_free_but_can_be_forced_and_removed(refs: Refs, tmp_path: Path) -> None:
    (tmp_path / "refs/name").symlink_to("/etc/passwd")
    with pytest.raises(AlreadyExists, match="broken"):
        refs.require_free(NAME)
    with pytest.raises(AlreadyExists, match="broken"):
        refs.set(NAME, ONE, force=False)
    refs.set(NAME, ONE, force=True)
    assert read(refs) == {NAME: ONE}


def test_a_directory_is_never_replaced_but_can_be_removed(refs: Refs, tmp_path: Path) -> None:
    (tmp_path / "refs/name").mkdir()
    (tmp_path / "refs/name/file").touch()
    with pytest.raises(StorageError):
        refs.set(NAME, ONE, force=True)
    assert os.listdir(tmp_path / "refs") == ["name"]
    refs.remove([NAME], 1)
    refs.set(NAME, ONE, force=False)


@pytest.mark.parametrize("force", [False, True])
def test_of_many_at_once_exactly_one_gets_a_new_name(refs: Refs, tmp_path: Path, force: bool) -> None:
    """Row 30. With force each succeeds and the last one counts; link(2) decides without any lock."""
    count = 16
    for turn in range(20):
        name = SnapshotName(f"name{turn}")
        barrier = threading.Barrier(count)

        def claim(n: int, name: SnapshotName = name, barrier: threading.Barrier = barrier) -> Digest | None:
            digest = Digest.of(bytes([n]))
            barrier.wait()
            try:
                refs.set(name, digest, force=force)
            except AlreadyExists:
                return None
            return digest

        with ThreadPoolExecutor(count) as pool:
            won = [digest for digest in pool.map(claim, range(count)) if digest is not None]
        assert len(won) == (count if force else 1)
        assert refs.get(name) in won
    assert len(os.listdir(tmp_path / "refs")) == 20


# --- what else may lie in refs/ ---------------------------------------------------------------------------------------

Breaker = Callable[[Path, Path], object]
"""Puts something broken at the path; gets a good ref's path, too."""


def fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


BROKEN: dict[str, tuple[Breaker, str]] = {
    "dangling": (lambda path, _: path.symlink_to(f"../blobs/sha256/{'0' * 64}"), "not in the store"),
    "outside": (lambda path, _: path.symlink_to("../../../../../etc/passwd"), "expected a symlink to"),
    "absolute": (lambda path, good: path.symlink_to(good.resolve()), "expected a symlink to"),
    "loop": (lambda path, _: path.symlink_to(path.name), "expected a symlink to"),
    "directory": (lambda path, _: path.symlink_to("../blobs"), "expected a symlink to"),
    "ref": (lambda path, good: path.symlink_to(good.name), "expected a symlink to"),
    "detour": (lambda path, good: path.symlink_to(f"../refs/{good.readlink()}"), "expected a symlink to"),
    "newline": (lambda path, good: path.symlink_to(f"{good.readlink()}\n"), "expected a symlink to"),
    "upper": (lambda path, good: path.symlink_to(str(good.readlink()).replace("a", "A") + "A"), "expected a symlink"),
    "regular file": (lambda path, _: path.write_text("../blobs/sha256/" + "0" * 64), "expected a symlink"),
    "a directory": (lambda path, _: path.mkdir(), "expected a symlink"),
    "fifo": (fifo, "expected a symlink"),
    "no manifest": (lambda path, good: path.symlink_to(_config_of(good)), "expected"),
}


def _config_of(ref: Path) -> str:
    """The link to the smallest blob that is not the manifest: a config."""
    others = [path for path in (ref.parent.parent / "blobs/sha256").iterdir() if path.name != ref.readlink().name]
    return f"../blobs/sha256/{min(others, key=lambda path: path.stat().st_size).name}"


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_ref_is_reported_and_hurts_nothing_else(tmp_path: Path, kind: str) -> None:
    """Rows 22 to 24."""
    root = tmp_path / "store"
    breaker, problem = BROKEN[kind]
    with Store.init(root, options=FAST) as store:
        capture(store, tmp_path, "good", 1, 2)
    breaker(root / "refs/bad", root / "refs/good")
    with Store.open(root, options=FAST) as store:
        found = store.problems()
        assert [each.name for each in found] == ["bad"]
        assert problem in found[0].problem
        assert names(store) == ["good"]
        with pytest.raises(CorruptContent, match="bad"):
            store.get("bad")
        with pytest.raises(CorruptContent, match="bad"):
            store.tag("bad", "other")
        with pytest.raises(AlreadyExists):
            store.tag("good", "bad")
        with pytest.raises(AlreadyExists):
            capture(store, tmp_path, "bad", 3)
        assert not [name for name in os.listdir(root / "tmp") if name.startswith("op-")]
        capture(store, tmp_path, "other", 1, 2, 3)
        if kind == "no manifest":
            assert store.gc().removed == ()
        else:
            for dry_run in (True, False):
                with pytest.raises(
                    CorruptContent, match=r"snapshot bad: .*gc cannot know what it needs: casstore check"
                ):
                    store.gc(dry_run=dry_run)
        assert content(store, "good") == disk_bytes(1, 2)
        assert content(store, "other") == disk_bytes(1, 2, 3)
        assert "bad" not in index_refs(root) or kind == "no manifest"
        assert store.remove("bad").names == ("bad",)
        assert not os.path.lexists(root / "refs/bad")
        assert store.problems() == []
        assert store.gc().removed == ()
    assert Path("/etc/passwd").exists()


@pytest.mark.parametrize(
    "name",
    ["-x", "a b", "x.", "index.json ", "v1\n", "é", "a--", "_a", "a..b", "%2e%2e", "n" * 129, "a\u202eb"],
)
def test_a_file_with_no_snapshots_name_is_reported(tmp_path: Path, name: str) -> None:
    """Row 65."""
    root = tmp_path / "store"
    with Store.init(root, options=FAST) as store:
        made = capture(store, tmp_path, "good", 1)
        (root / "refs" / name).symlink_to(f"../blobs/sha256/{made.digest.hex}")
        assert [(each.name, each.problem) for each in store.problems()] == [(name, "this is not a snapshot's name")]
        assert names(store) == ["good"]
        with pytest.raises(InvalidName):
            store.tag("good", name)
        with pytest.raises(InvalidName):
            store.remove(name)
        assert (root / "refs" / name).is_symlink()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\0b", ".lock", ".tmp"])
def test_no_name_leaves_refs(tmp_path: Path, name: str) -> None:
    """Row 65."""
    root = tmp_path / "store"
    with Store.init(root, options=FAST) as store:
        capture(store, tmp_path, "good", 1)
        before = all_files(tmp_path)
        for act in (lambda: store.tag("good", name), lambda: store.remove(name), lambda: store.get(name)):
            with pytest.raises(InvalidName):
                act()
        assert all_files(tmp_path) == before


@pytest.mark.parametrize("name", ["CON", "nul", "index.json", "lock", "refs", "A", "v1.2_3-x", "a--b", "n" * 128])
def test_odd_but_good_names_round_trip(tmp_path: Path, name: str) -> None:
    with Store.init(tmp_path / "store", options=FAST) as store:
        capture(store, tmp_path, "good", 1)
        store.tag("good", name)
        assert names(store) == sorted(["good", name])
        assert store.get(name).digest == store.get("good").digest
        assert index_refs(tmp_path / "store")[name] == str(store.get("good").digest)


def test_a_reserved_name_is_no_snapshot_and_no_problem(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with Store.init(root, options=FAST) as store:
        made = capture(store, tmp_path, "good", 1)
        reserved = f"sha256-{made.digest.hex}.sig"
        (root / "refs" / reserved).symlink_to(f"../blobs/sha256/{made.digest.hex}")
        assert store.problems() == []
        assert names(store) == ["good"]
        with pytest.raises(InvalidName, match="reserved"):
            store.tag("good", reserved)


@pytest.mark.parametrize("part", ["refs", "blobs", "blobs/sha256", "tmp", "trash"])
@pytest.mark.parametrize("kind", ["symlink", "file"])
def test_no_part_of_a_store_may_lead_elsewhere(tmp_path: Path, part: str, kind: str) -> None:
    """Row 24: else gc would empty, or a ref be written to, a directory that is no part of the store."""
    root, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    with Store.init(root, options=FAST) as store:
        capture(store, tmp_path, "good", 1)
        store.remove("good")
    (root / part).rename(elsewhere)
    (elsewhere / "precious").touch()
    if kind == "symlink":
        (root / part).symlink_to(elsewhere)
    else:
        (root / part).touch()
    with pytest.raises(CorruptContent, match=part), Store.open(root, create=True, options=FAST) as store:
        store.gc()
    assert (elsewhere / "precious").exists()


@pytest.mark.parametrize("lock", ["lock", "gate.lock", "refs.lock"])
def test_a_lock_is_never_a_symlink(tmp_path: Path, lock: str) -> None:
    root = tmp_path / "store"
    with Store.init(root, options=FAST) as store:
        capture(store, tmp_path, "good", 1)
        (root / lock).unlink(missing_ok=True)
        (root / lock).symlink_to(tmp_path / "victim")
        with pytest.raises(StorageError, match=lock):
            capture(store, tmp_path, "other", 2)
        assert names(store) == ["good"]
    assert not (tmp_path / "victim").exists()


def test_a_blob_that_is_no_regular_file_makes_its_ref_a_broken_one(tmp_path: Path) -> None:
    """Row 20."""
    root = tmp_path / "store"
    with Store.init(root, options=FAST) as store:
        made = capture(store, tmp_path, "bad", 1)
        capture(store, tmp_path, "good", 2)
    path = blob_path(root, made.digest)
    path.rename(tmp_path / "manifest")
    path.symlink_to(tmp_path / "manifest")
    with Store.open(root, options=FAST) as store:
        assert [each.name for each in store.problems()] == ["bad"]
        assert names(store) == ["good"]
        store.verify("good")


def test_20_a_blob_with_a_second_name_elsewhere(tmp_path: Path) -> None:
    """A hard link: a change through the other name is noticed, and gc takes away our name only."""
    root, outside = tmp_path / "store", tmp_path / "outside"
    with Store.init(root, options=FAST) as store:
        made = capture(store, tmp_path, "one", 1)
        outside.hardlink_to(blob_path(root, made.artifact_manifest.packs[0].digest))
        store.verify("one")
        flip_byte(outside, 100)
        with pytest.raises(CorruptContent):
            store.verify("one")
        store.remove("one")
        store.gc()
    assert outside.stat().st_nlink == 1


def test_a_ref_that_cannot_be_read_is_not_one_that_is_not_there(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 5. Prune would take the other names of its snapshot away."""
    capture(store, tmp_path, "one", 1)
    capture(store, tmp_path, "two", 2)
    store.tag("one", "alias")
    before = link_refs(Path(store.path))
    real = os.readlink

    def readlink(path: str, **options: int | None) -> str:
        if str(path).endswith("/alias"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "readlink", readlink)
        with pytest.raises(StorageError, match="Input/output error"):
            store.restore("alias", tmp_path / "out")
        with pytest.raises(StorageError, match="Input/output error"):
            store.prune(Policy(last=1), now=datetime.now(UTC))
    assert link_refs(Path(store.path)) == before
