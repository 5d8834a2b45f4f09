"""Taking removals back, and what gc does with what was removed."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from casstore import Store, gc, trash
from casstore.digest import Digest
from casstore.errors import AlreadyExists, CorruptContent, InvalidName, NotFound, StorageError, UsageError
from casstore.trash import RemovedRef
from tests.support.manifests import sign
from tests.support.stores import (
    FAST,
    all_files,
    blob_path,
    blobs,
    capture,
    content,
    disk_bytes,
    flip_byte,
    index_refs,
    leftovers,
    link_refs,
    names,
    reachable,
    require_sound,
)

DAY = 86400
NS = 10**9


def root_of(store: Store) -> Path:
    return Path(store.path)


def trashed(store: Store) -> list[str]:
    """What lies in the trash, without the stamps, the last removed first."""
    paths = sorted((root_of(store) / "trash").iterdir(), key=lambda path: int(path.name.rpartition("@")[2]))
    return [path.name.rpartition("@")[0] for path in reversed(paths)]


def removed(store: Store) -> list[str]:
    return [ref.name for ref in store.removed()]


def age(store: Store, name: str, seconds: float) -> None:
    """Let the removal of a name be that much older."""
    (path,) = (root_of(store) / "trash").glob(f"{name}@*")
    path.rename(path.with_name(f"{name}@{int(path.name.rpartition('@')[2]) - int(seconds * NS)}"))


def test_undo_gives_back_all_names_of_the_last_removal(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1, 2)
    store.tag("one", "alias")
    capture(store, tmp_path, "two", 3)
    before = link_refs(root_of(store))
    store.remove(str(made.digest))
    store.remove("two")
    assert removed(store) == ["two", "alias", "one"]
    assert [back.name for back in store.undo()] == ["two"]
    assert names(store) == ["two"]
    assert [(back.name, back.removed.digest) for back in store.undo()] == [("alias", made.digest), ("one", made.digest)]
    assert link_refs(root_of(store)) == before == index_refs(root_of(store))
    assert leftovers(root_of(store)) == []
    with pytest.raises(NotFound, match="nothing removed is in the trash"):
        store.undo()
    require_sound(root_of(store), contents={"one": disk_bytes(1, 2), "two": disk_bytes(3)})


def test_undo_of_one_name(store: Store, tmp_path: Path) -> None:
    """Of several removals of a name the last; the rest stays in the trash."""
    old = capture(store, tmp_path, "name", 1)
    store.remove("name")
    new = capture(store, tmp_path, "name", 2)
    capture(store, tmp_path, "other", 3)
    store.remove_all(["name", "other"])
    assert [back.removed.digest for back in store.undo("name")] == [new.digest]
    assert removed(store) == ["other", "name"]
    store.remove("name")
    assert [back.removed.digest for back in store.undo("name")] == [new.digest]
    with pytest.raises(AlreadyExists, match="casstore undo name --as OTHER"):
        store.undo("name")
    assert [back.name for back in store.undo("name", rename="saved")] == ["saved"]
    assert store.get("saved").digest == old.digest
    with pytest.raises(NotFound, match="no such name is in the trash"):
        store.undo("name")
    require_sound(root_of(store), contents={"name": disk_bytes(2), "saved": disk_bytes(1)})


def test_a_name_that_is_in_use_stops_all_of_it(store: Store, tmp_path: Path) -> None:
    for n, name in enumerate(("a", "b", "c")):
        capture(store, tmp_path, name, n)
    store.remove_all(["a", "b", "c"])
    capture(store, tmp_path, "b", 7)
    before = all_files(root_of(store))
    with pytest.raises(AlreadyExists, match="undo b: expected b to be free"):
        store.undo()
    assert all_files(root_of(store)) == before
    with pytest.raises(UsageError, match="expected one name to take back, got 3"):
        store.undo(rename="x")
    with pytest.raises(InvalidName):
        store.undo("b", rename="-x")
    with pytest.raises(InvalidName):
        store.undo("../b")
    assert all_files(root_of(store)) == before
    store.undo("a")
    store.undo("c")
    assert names(store) == ["a", "b", "c"]
    assert removed(store) == ["b"]


def test_a_name_that_stands_for_the_same_again_is_not_offered(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    store.tag("one", "two")
    store.remove("one")
    store.tag("two", "one")
    assert removed(store) == []
    assert trashed(store) == ["one"]
    store.remove("one")
    assert [back.removed.digest for back in store.undo()] == [made.digest]
    assert removed(store) == []


def test_what_gc_has_collected_cannot_be_taken_back(store: Store, tmp_path: Path) -> None:
    """Row 38: also where only a blob is gone, as after a gc that was interrupted, or of an older version."""
    capture(store, tmp_path, "kept", 1)
    made = capture(store, tmp_path, "gone", 1, 2)
    store.remove("gone")
    for digest in sorted(made.needs, key=str):
        path = blob_path(root_of(store), digest)
        if digest in store.open_snapshot("kept").needs:
            continue
        path.rename(tmp_path / "aside")
        before = all_files(root_of(store))
        if digest == made.digest:
            with pytest.raises(NotFound, match=r"undo gone: its manifest .* is missing, so there is nothing"):
                store.undo()
            assert all_files(root_of(store)) == before
        else:
            (back,) = store.undo()
            assert "casstore restore --salvage" in back.problem
            store.remove("gone")
        (tmp_path / "aside").rename(path)
    assert [back.problem for back in store.undo()] == [""]
    store.remove("gone")
    store.gc()
    with pytest.raises(NotFound, match="nothing removed is in the trash"):
        store.undo()
    require_sound(root_of(store), contents={"kept": disk_bytes(1)})


@pytest.mark.parametrize("what", ["manifest", "size"])
def test_a_damaged_snapshot_is_taken_back_and_told(store: Store, tmp_path: Path, what: str) -> None:
    made = capture(store, tmp_path, "bad", 1)
    store.remove("bad")
    if what == "manifest":
        flip_byte(blob_path(root_of(store), made.digest))
    else:
        path = blob_path(root_of(store), made.artifact_manifest.packs[0].digest)
        path.chmod(0o644)
        with path.open("ab") as file:
            file.write(b"x")
    assert names(store) == []
    (back,) = store.undo()
    assert back.is_back
    assert "the snapshot is damaged" in back.problem
    assert "casstore check --repair" in back.problem
    assert list(link_refs(root_of(store))) == ["bad"]
    assert removed(store) == []


def test_what_has_no_manifest_does_not_keep_the_others_from_coming_back(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "before", 1)
    bad, _ = capture(store, tmp_path, "bad", 2), capture(store, tmp_path, "good", 3)
    store.remove("before")
    store.remove_all(["bad", "good"])
    blob_path(root_of(store), bad.digest).unlink()
    planned = store.undo(dry_run=True)
    assert names(store) == []
    assert [(back.name, back.is_back) for back in planned] == [("bad", False), ("good", True)]
    assert store.undo() == planned
    assert names(store) == ["good"]
    assert [back.name for back in store.undo()] == ["before"]  # what cannot come back is passed over
    with pytest.raises(NotFound, match=r"undo bad: its manifest .* is missing"):
        store.undo("bad")


def test_undo_by_digest(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    store.tag("one", "two")
    capture(store, tmp_path, "other", 2)
    store.remove_all([str(made.digest), "other"])
    assert [back.name for back in store.undo(str(made.digest)[:20])] == ["one", "two"]
    assert removed(store) == ["other"]


def test_a_name_that_was_taken_over_can_be_had_under_another(store: Store, tmp_path: Path) -> None:
    old = capture(store, tmp_path, "name", 1)
    new = capture(store, tmp_path, "new", 2)
    store.tag("new", "name", force=True)
    assert {name: ref.digest for name, ref in store.taken_over.items()} == {"name": old.digest}
    store.tag("new", "name", force=True)
    assert removed(store) == ["name"]
    with pytest.raises(AlreadyExists, match="casstore undo name --as OTHER"):
        store.undo()
    assert [back.name for back in store.undo("name", rename="old")] == ["old"]
    found = {name: store.get(name).digest for name in names(store)}
    assert found == {"name": new.digest, "new": new.digest, "old": old.digest}
    store.gc()
    require_sound(root_of(store), contents={"old": disk_bytes(1), "name": disk_bytes(2), "new": disk_bytes(2)})


def test_broken_refs_and_what_is_not_ours_are_never_offered(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    root = root_of(store)
    (root / "refs/broken").symlink_to("/etc/passwd")
    (root / "refs/file").touch()
    for name in ("broken", "file"):
        store.remove(name)
    target = f"../blobs/sha256/{made.digest.hex}"
    for name in ("notes", "two@", "two@x", "two@-1", "two@01", "@5", "-x@5", f"sha256-{'0' * 64}@5", f"{'1' * 64}"):
        (root / "trash" / name).symlink_to(target)
    (root / "trash/op-0123456789abcdef").mkdir()
    assert removed(store) == []
    with pytest.raises(NotFound):
        store.undo()
    (root / "trash/two@5").symlink_to(target)
    assert [(ref.name, ref.stamp, ref.digest) for ref in store.removed()] == [("two", 5, made.digest)]
    store.undo()
    assert names(store) == ["one", "two"]
    store.gc(keep_trash=DAY)
    assert sorted(os.listdir(root / "trash")) == ["@5", "notes", "two@", "two@-1", "two@01", "two@x"]


@pytest.mark.parametrize("left", [0, 1, 2])
def test_an_error_in_the_middle_leaves_all_as_it_was(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """Row 2."""
    for n in range(3):
        capture(store, tmp_path, f"n{n}", n)
    store.remove_all(["n0", "n1", "n2"])
    before = {path: data for path, data in all_files(root_of(store)).items() if path != "index.json"}
    real, calls = os.symlink, [0]

    def fail(*arguments: Any, **options: Any) -> None:
        calls[0] += 1
        if calls[0] > left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "symlink", fail)
        with pytest.raises(StorageError, match="No space left"):
            store.undo()
    assert {path: data for path, data in all_files(root_of(store)).items() if path != "index.json"} == before
    assert len(store.undo()) == 3
    require_sound(root_of(store), contents={f"n{n}": disk_bytes(n) for n in range(3)})


class Interrupted(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("done", [1, 2])
def test_an_undo_that_is_killed_is_finished_by_the_next(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    """Rows 12 and 38: a name is back, or in the trash, or for a moment both; here the first ones are."""
    for n in range(3):
        capture(store, tmp_path, f"n{n}", n)
    store.remove_all(["n0", "n1", "n2"])
    for path in sorted((root_of(store) / "trash").iterdir())[:done]:
        (root_of(store) / "refs" / path.name.partition("@")[0]).symlink_to(os.readlink(path))
    assert len(removed(store)) == 3 - done
    assert len(store.undo()) == 3 - done
    assert names(store) == ["n0", "n1", "n2"]
    store.gc()
    assert leftovers(root_of(store)) == []
    require_sound(root_of(store), contents={f"n{n}": disk_bytes(n) for n in range(3)})


def test_what_was_taken_back_survives_gc(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    store.remove("one")
    store.undo()
    assert store.gc().removed == ()
    assert content(store, "one") == disk_bytes(1)


# --- gc ---------------------------------------------------------------------------------------------------------------


def test_gc_keeps_what_was_removed_not_long_ago(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "kept", 1)
    old = capture(store, tmp_path, "old", 1, 2)
    capture(store, tmp_path, "young", 1, 3)
    for name in ("old", "young"):
        store.remove(name)
    age(store, "old", 2 * DAY)
    lost = {digest.hex for digest in old.needs.keys() - store.open_snapshot("kept").needs.keys()}
    foretold = store.gc(dry_run=True, keep_trash=DAY)
    assert trashed(store) == ["young", "old"]
    report = store.gc(keep_trash=DAY)
    assert {digest.hex for digest in report.removed} == lost
    for each in (foretold, report):
        assert (each.removed, each.freed, each.kept) == (report.removed, report.freed, len(blobs(root_of(store))))
        assert [ref.name for ref in each.dropped] == ["old"]
        assert [ref.name for ref in each.kept_removed] == ["young"]
    assert report.freed > 0
    assert trashed(store) == ["young"]
    assert store.gc(keep_trash=DAY).removed == ()
    assert [back.name for back in store.undo()] == ["young"]
    require_sound(root_of(store), contents={"kept": disk_bytes(1), "young": disk_bytes(1, 3)})
    store.remove("young")
    assert [ref.name for ref in store.gc().dropped] == ["young"]
    assert blobs(root_of(store)) == reachable(root_of(store))


def test_gc_of_all_trash_says_what_cannot_be_taken_back_any_more(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    store.remove("one")
    foretold, report = store.gc(dry_run=True), store.gc()
    assert [ref.name for ref in foretold.dropped] == [ref.name for ref in report.dropped] == ["one"]
    assert report.kept_removed == ()
    assert leftovers(root_of(store)) == []


@pytest.mark.parametrize(("shift", "kept"), [(-10 * DAY, True), (DAY - 60, True), (DAY + 60, False)])
def test_36_a_removal_from_the_future_is_young(store: Store, tmp_path: Path, shift: int, kept: bool) -> None:
    """Row 36."""
    capture(store, tmp_path, "one", 1)
    store.remove("one")
    age(store, "one", shift)
    store.gc(keep_trash=DAY)
    assert removed(store) == (["one"] if kept else [])
    assert (blobs(root_of(store)) != set()) == kept


def test_the_referrers_of_what_is_kept_are_kept(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    with store.transaction() as change:
        signature = sign(change, store._directory.resolve("one"))
        change.tag(store._directory.resolve("one"), "one")
    assert blob_path(root_of(store), signature.digest).exists()
    store.remove("one")
    store.gc(keep_trash=DAY)
    store.undo()
    assert [each.digest for each in store.referrers("one")] == [signature.digest]
    store.remove("one")
    store.gc()
    assert blobs(root_of(store)) == set()
    assert leftovers(root_of(store)) == []
    assert os.listdir(root_of(store) / "refs") == []


@pytest.mark.parametrize("left", ["removed", "also a name"])
def test_a_removed_snapshot_that_is_damaged_stops_no_gc_but_a_name_does(
    store: Store, tmp_path: Path, left: str
) -> None:
    made = capture(store, tmp_path, "bad", 1)
    capture(store, tmp_path, "good", 2)
    store.tag("bad", "name")
    store.remove("bad")
    if left == "removed":
        store.remove("name")
    flip_byte(blob_path(root_of(store), made.digest))
    if left == "removed":
        store.gc(keep_trash=DAY)
        assert removed(store) == ["name", "bad"]
        store.gc()
        assert blobs(root_of(store)) == reachable(root_of(store))
        require_sound(root_of(store), contents={"good": disk_bytes(2)})
    else:
        with pytest.raises(CorruptContent, match=r"snapshot name: .* gc cannot know"):
            store.gc(keep_trash=DAY)


@pytest.mark.parametrize("step", ["drop", "set_aside", "remove_garbage"])
@pytest.mark.parametrize("keep", [None, DAY])
def test_an_interrupted_gc_leaves_nothing_that_undo_would_take_for_whole(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, keep: float | None
) -> None:
    """Row 38."""
    capture(store, tmp_path, "kept", 1)
    for n, name in enumerate(("old", "young")):
        capture(store, tmp_path, name, 1, 5 + n)
        store.remove(name)
    age(store, "old", 2 * DAY)

    def interrupt(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(trash.Trash, step, interrupt)
        with pytest.raises(Interrupted):
            store.gc(keep_trash=keep)
    there = removed(store)
    assert there == (["young", "old"] if step == "drop" else ["young"] if keep else [])
    for name in there:
        store.undo(name)
    require_sound(root_of(store), contents={"kept": disk_bytes(1)})
    store.gc()
    assert leftovers(root_of(store)) == []


def test_what_is_removed_while_gc_marks_can_be_taken_back_where_that_was_asked_for(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading the refs and reading the trash: the name is seen in one of them, at least."""
    capture(store, tmp_path, "one", 1)
    real = trash.Trash.read

    def late(self: trash.Trash) -> list[RemovedRef]:
        with monkeypatch.context() as patch:
            patch.setattr(trash.Trash, "read", real)
            if "one" in names(store):
                with Store.open(store.path, options=FAST) as rival:
                    rival.remove("one")
        return real(self)

    monkeypatch.setattr(trash.Trash, "read", late)
    assert store.gc(keep_trash=DAY).removed == ()
    store.undo()
    assert content(store, "one") == disk_bytes(1)


def test_what_was_reached_at_first_stays_until_the_next_gc(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No manifest is read twice; what a name that went meanwhile had needed is a matter for the next one."""
    for n in range(3):
        capture(store, tmp_path, f"n{n}", n)
    read: list[Digest] = []
    real_read, real_exclusive = gc._Marker._read, type(store._directory).exclusive

    def count(self: Any, blob: Any) -> Sequence[Any]:
        read.append(blob.digest)
        return real_read(self, blob)

    def late(directory: Any, **options: Any) -> Any:
        with Store.open(store.path, options=FAST) as rival:
            rival.remove("n0")
            capture(rival, tmp_path, "n3", 3)
        return real_exclusive(directory, **options)

    with monkeypatch.context() as patch:
        patch.setattr(gc._Marker, "_read", count)
        patch.setattr(type(store._directory), "exclusive", late)
        assert store.gc().removed == ()
    assert len(read) == len(set(read)) == 4
    assert len(store.gc().removed) > 0
    assert blobs(root_of(store)) == reachable(root_of(store))
