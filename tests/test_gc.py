"""Garbage collection: what is needed stays, whatever happens meanwhile; the rest goes (rows 22, 31, 32, 36, 38, 39)."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from casstore import Snapshot, Store, durable, gc, operation, spec
from casstore.digest import ChunkId, Digest
from casstore.errors import CorruptContent, NotFound, StorageError, StoreLocked
from casstore.pack import Place
from casstore.storedir import StoreOptions
from casstore.transaction import Transaction
from casstore.trash import Trash
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
    names,
    python,
    reachable,
    require_sound,
    start_python,
    write_disk,
)


def root_of(store: Store) -> Path:
    return Path(store.path)


def hexes(snapshot: Snapshot) -> set[str]:
    return {digest.hex for digest in snapshot.needs}


def test_what_only_a_removed_name_needed_goes(store: Store, tmp_path: Path) -> None:
    root = root_of(store)
    capture(store, tmp_path, "kept", 1, 2)
    gone = capture(store, tmp_path, "gone", 2, 3)
    store.tag("gone", "alias")
    store.remove("gone")
    assert store.gc().removed == ()
    store.remove("alias")
    lost = hexes(gone) - reachable(root)
    sizes = sum(blob_path(root, hex_).stat().st_size for hex_ in lost)
    report = store.gc()
    assert {digest.hex for digest in report.removed} == lost
    assert (report.dry_run, report.freed, report.kept) == (False, sizes, len(blobs(root)))
    assert (report.foreign, report.unknown, report.dead_operations) == (0, (), 0)
    assert blobs(root) == reachable(root)
    assert leftovers(root) == []
    assert store.gc().removed == ()
    require_sound(root, contents={"kept": disk_bytes(1, 2)})


def test_a_dry_run_foretells_and_changes_nothing(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "kept", 1)
    capture(store, tmp_path, "gone", 2)
    store.remove("gone")
    (root_of(store) / "tmp/op-000000000000000d").mkdir()
    (root_of(store) / "refs/.gone.0123456789ab.tmp").symlink_to("x")
    before = all_files(root_of(store))
    foretold = store.gc(dry_run=True)
    assert all_files(root_of(store)) == before
    assert (root_of(store) / "tmp/op-000000000000000d").exists()
    report = store.gc()
    assert foretold.dry_run
    assert (foretold.removed, foretold.freed, foretold.dead_operations) == (report.removed, report.freed, 1)
    assert leftovers(root_of(store)) == []


def test_files_that_are_no_blobs_are_reported_and_never_touched(store: Store, tmp_path: Path) -> None:
    """Row 21."""
    root = root_of(store)
    made = capture(store, tmp_path, "one", 1)
    odd = ["README", made.digest.hex.upper() + "X", made.digest.hex + ".bak", made.digest.hex[:-1], ".hidden"]
    for name in odd:
        (root / "blobs/sha256" / name).write_text("keep me")
    (root / "blobs/sha512").mkdir()
    (root / "blobs/sha512/file").touch()
    (root / "notes").mkdir()
    report = store.gc()
    assert report.unknown == tuple(sorted(odd))
    assert all((root / "blobs/sha256" / name).read_text() == "keep me" for name in odd)
    assert (root / "blobs/sha512/file").exists()
    assert (root / "notes").exists()


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo"])
def test_something_odd_of_a_blobs_name_is_garbage_like_others(store: Store, tmp_path: Path, kind: str) -> None:
    """Row 20: and what a symlink leads to is not touched."""
    path = blob_path(root_of(store), "0" * 64)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/file").touch()
    match kind:
        case "directory":
            shutil.copytree(tmp_path / "victim", path)
        case "symlink":
            path.symlink_to(tmp_path / "victim")
        case _:
            os.mkfifo(path)
    assert store.gc().removed == (Digest("0" * 64),)
    assert leftovers(root_of(store)) == []
    assert (tmp_path / "victim/file").exists()


@pytest.mark.parametrize("at", [0, 100, -1])
def test_a_damaged_manifest_stops_gc_for_what_it_needs_cannot_be_known(store: Store, tmp_path: Path, at: int) -> None:
    root = root_of(store)
    made = capture(store, tmp_path, "bad", 1)
    capture(store, tmp_path, "gone", 2)
    store.remove("gone")
    flip_byte(blob_path(root, made.digest), at)
    before = all_files(root)
    for dry_run in (True, False):
        with pytest.raises(CorruptContent, match=r"snapshot bad: .*gc cannot know"):
            store.gc(dry_run=dry_run)
    assert all_files(root) == before
    store.remove("bad")
    store.gc()
    assert blobs(root) == set()


def test_a_dangling_ref_stops_gc_until_it_is_removed(store: Store, tmp_path: Path) -> None:
    """Row 22: what it needs cannot be known. A strange file in refs/ stops nobody."""
    root = root_of(store)
    made = capture(store, tmp_path, "bad", 1, 2)
    capture(store, tmp_path, "good", 2, 3)
    blob_path(root, made.digest).unlink()
    (root / "refs/no snapshot's name").touch()
    before = blobs(root)
    for dry_run in (True, False):
        with pytest.raises(CorruptContent, match=r"snapshot bad: .* is not in the store; gc cannot know what it needs"):
            store.gc(dry_run=dry_run)
    assert blobs(root) == before
    store.remove("bad")
    report = store.gc()
    assert {digest.hex for digest in report.removed} == hexes(made) - {made.digest.hex} - reachable(root)
    (root / "refs/no snapshot's name").unlink()
    require_sound(root, contents={"good": disk_bytes(2, 3)})


def test_a_snapshot_with_a_missing_pack_keeps_the_rest(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "bad", 1)
    blob_path(root_of(store), made.artifact_manifest.packs[0].digest).unlink()
    assert store.gc().removed == ()


@pytest.mark.parametrize("age", [-(10**9), 0, 10**9])
def test_gc_does_not_ask_what_time_it_is(store: Store, tmp_path: Path, age: int) -> None:
    """Row 36."""
    capture(store, tmp_path, "kept", 1)
    capture(store, tmp_path, "gone", 2)
    store.remove("gone")
    with store.transaction() as change:
        staged = change.add(b"staged", "x")
        for path in [*root_of(store).rglob("*")]:
            os.utime(path, (time.time() + age,) * 2, follow_symlinks=False)
        store.gc()
        assert blobs(root_of(store)) == reachable(root_of(store))
        assert change.exists(staged)


# --- what others have put there ---------------------------------------------------------------------------------------


def put_blob(root: Path, data: bytes) -> Digest:
    digest = Digest.of(data)
    blob_path(root, digest).write_bytes(data)
    return digest


def add_entry(root: Path, digest: Digest, **more: object) -> None:
    document = json.loads((root / "index.json").read_bytes())
    document["manifests"].append({"mediaType": spec.MEDIA_MANIFEST, "digest": str(digest), "size": 1, **more})
    (root / "index.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "form",
    [
        '{"ratio":1.5,"layers":[{"digest":"%s"}]}',
        '\ufeff{"layers":[{"digest":"%s"}]}',
        '{"layers":[],"layers":[{"digest":"%s"}],"layers":[]}',
        '{"elsewhere":{"deep":["%s"]}}',
        '{"layers":[{"digest":"%s"}],"n":' + "9" * 5000 + "}",
    ],
)
def test_foreign_manifests_need_not_follow_our_rules(store: Store, form: str) -> None:
    root = root_of(store)
    inner = put_blob(root, (form % put_blob(root, b"layer")).encode())
    outer = put_blob(root, (form % inner).encode())
    add_entry(root, outer)
    put_blob(root, b"garbage")
    assert store.gc().removed == (Digest.of(b"garbage"),)


def test_a_large_or_odd_blob_that_a_foreign_manifest_names_is_just_kept(store: Store) -> None:
    root = root_of(store)
    inner = [put_blob(root, b"{" + bytes(spec.MAX_MANIFEST)), put_blob(root, b"{no json")]
    document = {"manifests": [{"mediaType": spec.MEDIA_MANIFEST, "digest": str(digest)} for digest in inner]}
    add_entry(root, put_blob(root, json.dumps(document).encode()))
    assert store.gc().removed == ()
    assert blobs(root) > {digest.hex for digest in inner}


def test_no_layer_of_a_snapshot_is_taken_for_a_manifest(store: Store, tmp_path: Path) -> None:
    """Whoever made a snapshot that was pulled may else stop gc for good: with a layer that is said to be one."""
    root = root_of(store)
    damaged, named = put_blob(root, b"{ damaged"), put_blob(root, b"named by the layer")
    blob_path(root, damaged).write_bytes(b"{ DAMAGED")
    layer = put_blob(root, json.dumps({"layers": [{"digest": str(named)}]}).encode())
    document = {
        "artifactType": spec.ARTIFACT_TYPE,
        "config": {"mediaType": spec.MEDIA_MANIFEST, "digest": str(damaged)},
        "layers": [{"mediaType": spec.MEDIA_MANIFEST, "digest": str(layer)}],
    }
    manifest = put_blob(root, json.dumps(document).encode())
    (root / "refs/pulled").symlink_to(f"../blobs/sha256/{manifest.hex}")
    assert store.gc().removed == (named,)
    assert blobs(root) == {damaged.hex, layer.hex, manifest.hex}


@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE])
def test_gc_does_not_go_on_without_an_index_that_is_there(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    root = root_of(store)
    add_entry(root, foreign := put_blob(root, b"{}"))
    before = all_files(root)
    real = os.open

    def fail(path: str, *rest: Any, **more: Any) -> int:
        if str(path).endswith("index.json"):
            raise OSError(error, os.strerror(error))
        return real(path, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(StorageError, match=r"index\.json"):
            store.gc()
    assert all_files(root) == before
    assert store.foreign() == [str(foreign)]


@pytest.mark.parametrize("part", ["trash", "tmp", "refs", "blobs", "blobs/sha256"])
def test_a_part_that_was_swapped_for_a_symlink_stops_gc(store: Store, tmp_path: Path, part: str) -> None:
    """After the store was opened."""
    root = root_of(store)
    capture(store, tmp_path, "gone", 1)
    store.remove("gone")
    (root / part).rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / ("0" * 64)).touch()
    (root / part).symlink_to(tmp_path / "elsewhere")
    before = all_files(tmp_path / "elsewhere")
    with pytest.raises(CorruptContent, match=part):
        store.gc()
    assert all_files(tmp_path / "elsewhere") == before


def test_a_trash_that_is_swapped_while_gc_runs_is_not_emptied(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = root_of(store)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / ("0" * 64)).touch()
    capture(store, tmp_path, "gone", 1)
    store.remove("gone")
    real = Trash.set_aside

    def swap(trash: Trash, folder: int, names: Iterable[str]) -> None:
        real(trash, folder, names)
        (root / "trash").rename(tmp_path / "trash")
        (root / "trash").symlink_to(victim)

    monkeypatch.setattr(Trash, "set_aside", swap)
    with pytest.raises(CorruptContent, match="trash"):
        store.gc()
    assert os.listdir(victim) == ["0" * 64]


def test_only_what_gc_puts_into_the_trash_is_removed_from_it(store: Store, tmp_path: Path) -> None:
    trash = root_of(store) / "trash"
    (trash / "op-0123456789abcdef").mkdir(parents=True)
    (trash / "op-0123456789abcdef/lease").touch()
    (trash / "op-mine").mkdir()
    for name in ("0" * 64, "name@1", "odd \n name@12", "notes", "0" * 63, "name@", "a@b"):
        (trash / name).touch()
    (trash / ("1" * 64)).symlink_to(tmp_path)
    store.gc()
    assert sorted(os.listdir(trash)) == sorted(["op-mine", "notes", "0" * 63, "name@", "a@b"])


def test_only_the_stores_own_temporaries_are_cleared(store: Store) -> None:
    root = root_of(store)
    own = [".index.json.0123456789ab.tmp", ".oci-layout.0123456789ab.tmp", ".casstore.json.0123456789ab.tmp"]
    for name in [*own, "refs/.x.0123456789ab.tmp", ".disk.raw.0123456789ab.tmp"]:
        (root / name).touch()
    directories = [".index.json.ba9876543210.tmp", "refs/.y.0123456789ab.tmp"]
    for name in directories:
        (root / name).mkdir()
    store.gc()
    assert leftovers(root) == sorted([".disk.raw.0123456789ab.tmp", *directories])


# --- leases -----------------------------------------------------------------------------------------------------------


def test_what_a_running_operation_relies_on_stays(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 31: a look-up found it, so it must be there at the commit."""
    root = root_of(store)
    gone = capture(store, tmp_path, "gone", 1, 2)
    packs = {pack.digest.hex for pack in gone.artifact_manifest.packs}
    with Store.open(root, options=FAST) as rival:
        real = Transaction.lookup

        def collect(change: Transaction, ids: Sequence[ChunkId], **how: Any) -> Mapping[ChunkId, Place]:
            found = real(change, ids, **how)
            if "gone" in names(rival):
                rival.remove("gone")
            rival.gc()
            return found

        monkeypatch.setattr(Transaction, "lookup", collect)
        made = capture(store, tmp_path, "new", 1, 2, 3)
    assert packs <= hexes(made)
    assert made.cost is not None
    assert made.cost.stats.new_plain < 3 * 65536
    store.gc()
    assert blobs(root) == reachable(root) == hexes(made)
    require_sound(root, contents={"new": disk_bytes(1, 2, 3)})


def test_what_was_asked_for_in_a_transaction_stays(store: Store, tmp_path: Path) -> None:
    gone = capture(store, tmp_path, "gone", 1)
    pack, other = gone.artifact_manifest.packs[0], gone.artifact_manifest.map
    with store.transaction() as change:
        assert change.exists(pack)
        store.remove("gone")
        store.gc()
        assert blobs(root_of(store)) == {pack.digest.hex}
        assert change.exists(pack)
        assert not change.exists(other)
    store.gc()
    assert blobs(root_of(store)) == set()


def test_a_chunk_of_a_pack_that_is_gone_is_no_hit(store: Store, tmp_path: Path) -> None:
    """The catalog of this process has not seen yet that another one collected the pack."""
    gone = capture(store, tmp_path, "gone", 1, 2)
    directory = gone.artifact().directories[0]
    chunk = directory.chunk_id(0)
    with store.transaction() as change:
        assert set(change.lookup([chunk])) == {chunk}
    with Store.open(store.path, options=FAST) as rival:
        rival.remove("gone")
        rival.gc()
    with store.transaction() as change:
        assert change.lookup([chunk]) == {}


def test_readers_finish_while_their_snapshot_is_removed(store: Store, tmp_path: Path) -> None:
    """Row 32."""
    root = root_of(store)
    pieces = range(1, 160)
    capture(store, tmp_path, "one", *pieces)
    snapshot = store.open_snapshot("one")
    parts: list[bytes] = []
    with Store.open(root, options=FAST) as rival:

        def write(data: bytes | bytearray | memoryview) -> None:
            if not parts:
                rival.remove("one")
                rival.gc()
                assert names(rival) == []
            parts.append(bytes(data))

        snapshot.restore_to(write, workers=1)
        assert b"".join(parts) == disk_bytes(*pieces)
        rival.gc()
    assert blobs(root) == set()
    with pytest.raises(NotFound):
        snapshot.restore_to(lambda _: None)
    with pytest.raises(NotFound):
        snapshot.restore(tmp_path / "out")
    assert not (tmp_path / "out").exists()


KILLED = """
import os, signal, sys
from casstore import Snapshot, Store
store = Store.open(sys.argv[1])
store.create(Snapshot.builder(sys.argv[2]).name("new").build(), progress=lambda _: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_what_a_killed_process_left_goes(store: Store, tmp_path: Path) -> None:
    """Row 33: its lease was released by its death."""
    root = root_of(store)
    capture(store, tmp_path, "gone", 1)
    done = python(KILLED, root, write_disk(tmp_path / "disk", 1, *range(10, 60)), check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(root / "tmp")) == 1
    store.remove("gone")
    report = store.gc()
    assert report.dead_operations == 1
    assert leftovers(root) == []
    assert blobs(root) == set()


@pytest.mark.parametrize("dead", ["no lease", "unlocked", "file", "locked lease without a process"])
def test_operations_without_a_process_are_dead(store: Store, dead: str) -> None:
    place = root_of(store) / "tmp"
    place.mkdir(exist_ok=True)
    if dead == "file":
        (place / "op-0000000000000001").touch()
    else:
        (place / "op-0000000000000001").mkdir()
        (place / "op-0000000000000001/new-1").write_bytes(b"x")
        if dead != "no lease":
            (place / "op-0000000000000001/lease").write_text(f"sha256:{'0' * 64}\nsha256:1")
    (place / "something else").touch()
    blob_path(root_of(store), "0" * 64).touch()
    report = store.gc()
    assert report.dead_operations == 1
    assert os.listdir(place) == ["something else"]
    assert report.removed == (Digest("0" * 64),)


def test_an_operation_that_ends_while_gc_runs_is_no_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (root_of(store) / "tmp/op-0000000000000001").mkdir(parents=True)
    real = operation.live_leases

    def ends(parent: str) -> tuple[set[Digest], list[str]]:
        found = real(parent)
        shutil.rmtree(root_of(store) / "tmp/op-0000000000000001")
        return found

    monkeypatch.setattr(gc, "live_leases", ends)
    assert store.gc().dead_operations == 1


# --- while others work ------------------------------------------------------------------------------------------------

WORKER = """
import random, sys, time
from pathlib import Path
from casstore import Snapshot, Store
from casstore.durable import Durability
from casstore.storedir import StoreOptions
from tests.support.stores import write_disk
root, folder, who, end = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
rng = random.Random(who)
made = 0
with Store.open(root, options=StoreOptions(Durability.NONE, wait=60)) as store:
    while time.time() < end or made < 2:
        pieces = [rng.randrange(12) for _ in range(4)]
        name = f"w{who}-{rng.randrange(3)}"
        Snapshot.builder(write_disk(folder / f"{who}.disk", *pieces)).name(name).force().create(store)
        store.verify(name)
        if rng.random() < 0.6:
            store.remove(name)
        made += 1
print(made)
"""

COLLECTOR = """
import sys, time
from casstore import Store
runs = 0
with Store.open(sys.argv[1]) as store:
    while time.time() < float(sys.argv[2]) or runs < 2:
        store.gc()
        runs += 1
print(runs)
"""


def test_gc_while_others_create_and_remove(store: Store, tmp_path: Path) -> None:
    """Row 31: chunks are shared by all of them, so gc takes away what the others are about to find, again and again."""
    root = root_of(store)
    end = str(time.time() + 5)
    processes = [start_python(WORKER, root, tmp_path, str(who), end) for who in range(3)]
    processes += [start_python(COLLECTOR, root, end) for _ in range(2)]
    for process in processes:
        out, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert int(out) >= 2
    require_sound(root)
    store.gc()
    assert blobs(root) == reachable(root)
    assert leftovers(root) == []


def test_gc_is_not_starved_by_those_who_share(store: Store) -> None:
    """Three overlapping holders of the shared lock kept a plain flock away for 11 s."""
    code = """
import sys, time
from casstore.storedir import StoreDirectory, StoreOptions
directory = StoreDirectory.open(sys.argv[1], StoreOptions(), create=False)
end = time.time() + 60
time.sleep(float(sys.argv[2]))
while time.time() < end:
    with directory.shared():
        time.sleep(0.3)
"""
    processes = [start_python(code, store.path, str(0.1 * n)) for n in range(3)]
    time.sleep(0.7)
    start = time.monotonic()
    store.gc()
    took = time.monotonic() - start
    running = [process.poll() for process in processes]
    for process in processes:
        process.kill()
        process.communicate()
    assert running == [None] * 3
    assert took < 9


def test_gc_does_not_wait_for_long_operations(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    with store.transaction() as change, Store.open(store.path, options=StoreOptions(wait=0.5)) as rival:
        change.add(b"x", "x")
        rival.gc()
    with store.open_snapshot("one").rely({}), Store.open(store.path, options=StoreOptions(wait=0.5)) as rival:
        rival.gc()


def test_gc_gives_up_when_the_store_stays_held(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "gone", 1)
    store.remove("gone")
    before = all_files(root_of(store))
    with store._directory.shared(), Store.open(store.path, options=StoreOptions(wait=0.2)) as rival:
        with pytest.raises(StoreLocked, match="another process"):
            rival.gc()
        rival.list()
    assert all_files(root_of(store)) == before


# --- interrupted ------------------------------------------------------------------------------------------------------


class Interrupted(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("after", range(5))
def test_gc_interrupted_between_renames_is_finished_by_the_next(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Row 38."""
    root = root_of(store)
    capture(store, tmp_path, "kept", 1, 2)
    gone = capture(store, tmp_path, "gone", 2, 3)
    store.remove("gone")
    left = after
    real = durable.move_between

    def some(here: int, name: str, there: int, new_name: str) -> None:
        nonlocal left
        if left == 0:
            raise Interrupted
        left -= 1
        real(here, name, there, new_name)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "move_between", some)
        garbage = len(hexes(gone) - reachable(root))
        if after < garbage:
            with pytest.raises(Interrupted):
                store.gc()
    require_sound(root, contents={"kept": disk_bytes(1, 2)})
    if 0 < after < garbage:  # what is half collected is not taken for complete
        with pytest.raises(NotFound):
            store.tag(str(gone.digest), "back")
    else:
        store.tag(str(gone.digest), "back")
        store.verify("back")
        store.remove("back")
    made = capture(store, tmp_path, "again", 2, 3)
    store.verify("again")
    assert made.size_bytes == 2 * 65536
    store.gc()
    assert blobs(root) == reachable(root)
    assert leftovers(root) == []
    require_sound(root, contents={"kept": disk_bytes(1, 2), "again": disk_bytes(2, 3)})


def test_gc_interrupted_before_it_empties_the_trash(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 38."""
    root = root_of(store)
    capture(store, tmp_path, "gone", 1)
    (root / "tmp/op-000000000000000d").mkdir()
    store.remove("gone")

    def interrupt(_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Trash, "remove_garbage", interrupt)
        with pytest.raises(Interrupted):
            store.gc()
    assert blobs(root) == set()
    assert len(leftovers(root)) == 4 + 1
    capture(store, tmp_path, "gone", 1)
    store.gc()
    assert leftovers(root) == []
    require_sound(root, contents={"gone": disk_bytes(1)})


def test_gc_killed_at_random_again_and_again(store: Store, tmp_path: Path) -> None:
    """Row 38."""
    root = root_of(store)
    rng = random.Random(38)
    capture(store, tmp_path, "kept", 1, 2, 3)
    for turn in range(6):
        for n in range(8):
            capture(store, tmp_path, f"gone{n}", 3, 10 * turn + n)
            store.remove(f"gone{n}")
        process = start_python("import sys\nfrom casstore import Store\nprint(1)\nStore.open(sys.argv[1]).gc()", root)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.random() * 0.06)
        process.kill()
        process.communicate()
        require_sound(root, contents={"kept": disk_bytes(1, 2, 3)})
    store.gc()
    assert blobs(root) == reachable(root)
    assert leftovers(root) == []


def test_a_blob_that_comes_back_while_gc_marks_is_kept_with_its_children(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not there at the first marking must not be remembered as having no children."""
    root = root_of(store)
    made = capture(store, tmp_path, "one", 1)
    manifest = blob_path(root, made.digest)
    index = blob_path(root, Digest.of(data := f'{{"manifests":[{{"digest":"{made.digest}"}}]}}'.encode()))
    index.write_bytes(data)
    entry = f'{{"mediaType":"x","digest":"sha256:{index.name}","size":{len(data)}}}'
    (root / "index.json").write_text(f'{{"schemaVersion":2,"manifests":[{entry}]}}')
    (root / "refs/one").unlink()
    manifest.rename(tmp_path / "manifest")
    real = store._directory.exclusive

    def late() -> object:
        (tmp_path / "manifest").rename(manifest)
        return real()

    monkeypatch.setattr(type(store._directory), "exclusive", lambda _: late())
    assert store.gc().removed == ()
    assert hexes(made) <= blobs(root)


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def fill(place: Path) -> None:
    with (place / "filler").open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


@pytest.mark.needs("root", "mount")
def test_a_full_disk_can_be_emptied(small_disk: Path, tmp_path: Path) -> None:
    """Rows 1 and 39: a capture that does not fit leaves nothing; gc needs no space, though the catalog has none."""
    root = small_disk / "store"
    with Store.init(root, options=StoreOptions()) as store:
        capture(store, tmp_path, "kept", 1, 2)
        capture(store, tmp_path, "gone", 3, 4)
        store.tag("kept", "alias")
        fill(small_disk)
        with pytest.raises(StorageError, match="No space left"):
            capture(store, tmp_path, "new", *range(5, 60))
        assert os.listdir(root / "tmp") == []
        assert names(store) == ["alias", "gone", "kept"]
        assert content(store, "kept") == disk_bytes(1, 2)
        fill(small_disk)
        store.tag("kept", "another")  # a symlink takes no block here; that index.json cannot follow is no failure
        assert "another" not in index_refs(root)
        before = blobs(root)
        (root / "refs/gone").unlink()  # by hand: index.json and catalog do not know it yet
        fill(small_disk)
    with Store.open(root, options=StoreOptions()) as store:
        assert "gone" not in names(store)
        report = store.gc()
        assert report.freed > 2 * 65536
        assert blobs(root) == reachable(root) < before
        capture(store, tmp_path, "fits", 5)
    require_sound(root)
    assert sorted(index_refs(root)) == ["alias", "another", "fits", "kept"]


@pytest.mark.needs("root", "mount")
def test_a_removal_on_a_full_disk_is_done(small_disk: Path, tmp_path: Path) -> None:
    """Rows 2 and 39: the removal needs no space; deriving index.json does, and is made good by the next opening."""
    root = small_disk / "store"
    with Store.init(root, options=StoreOptions()) as store:
        capture(store, tmp_path, "kept", 1)
        capture(store, tmp_path, "gone", *range(2, 12))
        fill(small_disk)
        store.remove("gone")
        assert "gone" not in os.listdir(root / "refs")
        assert store.gc().freed > 10 * 65536
    require_sound(root, contents={"kept": disk_bytes(1)})


@pytest.mark.needs("root", "mount")
def test_no_inodes_left(tmp_path: Path) -> None:
    """Row 4."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=40", "tmpfs", place], check=True)
    try:
        with Store.init(place / "store", options=FAST) as store:
            numbers = iter(range(1, 30))
            with pytest.raises(StorageError, match="No space left"):
                deque((capture(store, tmp_path, f"n{n}", n) for n in numbers), maxlen=0)
            made = next(numbers) - 2
            assert made > 2
            for n in range(1, made + 1):
                assert content(store, f"n{n}") == disk_bytes(n)
            (place / "store/refs/n1").unlink()
            assert len(store.gc().removed) >= 4
            capture(store, tmp_path, "again", 1)
        require_sound(place / "store")
    finally:
        subprocess.run(["umount", place], check=True)


def test_much_garbage_goes_in_parts_and_what_others_begin_to_need_meanwhile_stays(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture(store, tmp_path, "kept", 1, 2)
    last = [f"{n:x}" * 64 for n in range(8)]  # what they hold does not count
    folder = root_of(store) / "blobs/sha256"
    for hex_ in last:
        (folder / hex_).write_bytes(b"x")
    monkeypatch.setattr(gc, "_PART", 3)
    monkeypatch.setattr(type(store._directory.blobs), "names", lambda _: sorted(os.listdir(folder)))
    real, parts = Trash.remove_garbage, list[int]()
    leased, again = Digest(last[-1]), Digest(last[-2])
    with store._directory.operation() as operation:

        def meanwhile(trash: Trash) -> None:
            real(trash)
            parts.append(sum(path.name in last for path in folder.iterdir()))
            with store._directory.shared():  # nobody is kept out between two parts
                operation.rely_on([leased])
            if len(parts) == 1:  # a name that comes and is removed again: `undo` may be asked for it
                with store._directory.changing_refs() as refs:
                    ref = root_of(store) / "refs/late"
                    ref.symlink_to(f"../blobs/sha256/{again.hex}")
                    refs.remove(["late"], store._directory.trash.next_stamp())

        monkeypatch.setattr(Trash, "remove_garbage", meanwhile)
        report = store.gc()
    assert parts == [5, 2, 2]
    assert blobs(root_of(store)) == reachable(root_of(store)) | set(last[6:])
    assert (len(report.removed), report.freed) == (6, 6)
    assert report.kept == len(reachable(root_of(store))) + 2
    store.verify("kept")
