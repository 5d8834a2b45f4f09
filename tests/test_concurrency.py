"""Many processes in one store: what each was told is what is there (rows 29, 30, 33, 34)."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from casstore import Store, durable
from casstore.errors import StorageError, StoreLocked
from casstore.storedir import StoreOptions
from tests.support.command import Casstore
from tests.support.stores import (
    FAST,
    all_files,
    blobs,
    capture,
    content,
    disk_bytes,
    index_refs,
    leftovers,
    link_refs,
    names,
    reachable,
    require_sound,
    start_python,
    write_disk,
)

WORKER = """
import json, random, sys, time
from pathlib import Path
from casstore import Snapshot, Store
from casstore.durable import Durability
from casstore.errors import AlreadyExists, NotFound
from casstore.storedir import StoreOptions
from tests.support.stores import write_disk
root, folder, who = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
start, seconds = float(sys.argv[4]), float(sys.argv[5])
rng = random.Random(who)
log = []
while time.time() < start:
    time.sleep(0.001)
with Store.open(root, options=StoreOptions(Durability.NONE, wait=60)) as store:
    mine = {}
    turn = 0
    while time.time() < start + seconds or turn < 3:
        turn += 1
        name = f"p{who}-{rng.randrange(3)}"
        act = rng.choice(["create", "create", "force", "tag", "remove", "race", "fight", "steal", "look"])
        pieces = [rng.randrange(1, 9) for _ in range(3)]
        builder = Snapshot.builder(write_disk(folder / f"{who}.disk", *pieces))
        if act == "create" and name not in mine:
            mine[name] = str(builder.name(name).create(store).digest)
        elif act == "force":
            mine[name] = str(builder.name(name).force().create(store).digest)
        elif act == "tag" and mine:
            source = rng.choice(sorted(mine))
            store.tag(source, name, force=True)
            mine[name] = mine[source]
        elif act == "remove" and name in mine:
            removed = store.remove(name, force=True)
            assert str(removed.digest) == mine.pop(name)
        elif act == "race" and mine:  # each of these names can be won once, by one process
            raced = f"raced-{turn // 4}"
            source = rng.choice(sorted(mine))
            try:
                store.tag(source, raced)
            except AlreadyExists:
                log.append(["lost", raced, mine[source]])
            else:
                log.append(["won", raced, mine[source]])
        elif act == "fight" and mine:  # the last writer wins; which that is, is not known here
            source = rng.choice(sorted(mine))
            store.tag(source, "fought-for", force=True)
            log.append(["fought", "fought-for", mine[source]])
        elif act == "steal":  # each removal succeeds for one process only
            victim = f"victim-{rng.randrange(40)}"
            try:
                store.remove(victim)
            except NotFound:
                log.append(["missed", victim, ""])
            else:
                log.append(["stolen", victim, ""])
        else:
            handles = {handle.name: str(handle.digest) for handle in store.list()}
            assert {name: handles.get(name) for name in mine} == mine, (mine, handles)
            if mine:
                store.verify(rng.choice(sorted(mine)), workers=1)
print(json.dumps({"mine": mine, "log": log, "turns": turn}))
"""


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.long)])
def test_every_process_was_told_the_truth(tmp_path: Path, seconds: int) -> None:
    root = tmp_path / "store"
    with Store.init(root, options=FAST) as store:
        capture(store, tmp_path, "first", 1)
        for n in range(40):
            store.tag("first", f"victim-{n}")
    start = time.time() + 1.5
    processes = [start_python(WORKER, root, tmp_path, str(n), str(start), str(seconds)) for n in range(8)]
    told: list[dict[str, Any]] = []
    for process in processes:
        out, errors = process.communicate(timeout=seconds + 100)
        assert (process.returncode, errors) == (0, "")
        told.append(json.loads(out))
    assert all(each["turns"] > 2 for each in told)
    refs = link_refs(root)

    # Names that one process owns are as it saw them last, and it made no others.
    for who, each in enumerate(told):
        assert {name: digest for name, digest in refs.items() if name.startswith(f"p{who}-")} == each["mine"]

    log = [entry for each in told for entry in each["log"]]
    # Of those who raced for a name exactly one won, and it stands for what that one said.
    raced = {name for kind, name, _ in log if kind in {"won", "lost"}}
    won = {(name, digest) for kind, name, digest in log if kind == "won"}  # saying the same again is no error
    assert sorted(name for name, _ in won) == sorted(raced)
    assert {name: digest for name, digest in refs.items() if name.startswith("raced-")} == dict(won)
    # A name that was forced by many stands for what one of them said.
    fought = {digest for kind, _, digest in log if kind == "fought"}
    assert ("fought-for" in refs) == bool(fought)
    assert refs.get("fought-for") in fought | {None}
    # What was removed was removed once.
    stolen = [name for kind, name, _ in log if kind == "stolen"]
    assert len(stolen) == len(set(stolen))
    assert {name for name in refs if name.startswith("victim-")} == {f"victim-{n}" for n in range(40)} - set(stolen)

    assert index_refs(root) == refs  # as the last of them left it: opening the store would mend it
    require_sound(root)
    with Store.open(root, options=FAST) as store:
        store.gc()
    assert blobs(root) == reachable(root)
    assert leftovers(root) == []


LOAD = """
import random, sys, time
from pathlib import Path
from casstore import Snapshot, Store
from casstore.durable import Durability
from casstore.storedir import StoreOptions
from tests.support.stores import write_disk
root, folder, who, end = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
rng = random.Random(who)
turns = 0
with Store.open(root, options=StoreOptions(wait=60)) as store:
    while time.time() < end or turns < 2:  # whatever else the machine does
        turns += 1
        name = f"p{who}-{turns % 5}"
        if who % 2:
            disk = write_disk(folder / f"{who}.disk", *(rng.randrange(1, 99) for _ in range(3)))
            Snapshot.builder(disk).name(name).force().create(store)
        else:
            store.pull(f"oci:{folder}/layout:{rng.choice('abc')}", name=name, force=True)
print(turns)
"""
COLLECTOR = """
import json, sys, time
from casstore import Store
from casstore.storedir import StoreOptions
took = []
with Store.open(sys.argv[1], options=StoreOptions(wait=60)) as store:
    while time.time() < float(sys.argv[2]) or len(took) < 3:
        start = time.monotonic()
        store.gc()
        took.append(time.monotonic() - start)
print(json.dumps(took))
"""


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.long)])
def test_31_gc_returns_while_others_create_and_pull_without_a_pause(tmp_path: Path, seconds: int) -> None:
    """Those who are in the store are waited for, and nobody else: each gc returns within 10 s, and nobody starves."""
    root = tmp_path / "store"
    with Store.init(root, options=FAST) as store, Store.init(tmp_path / "other", options=FAST) as other:
        capture(store, tmp_path, "kept", 1, 2)
        for name in "abc":
            capture(other, tmp_path, name, *name.encode(), 5)
            other.push(name, f"oci:{tmp_path}/layout:{name}")
    end = str(time.time() + 1 + seconds)
    load = [start_python(LOAD, root, tmp_path, str(who), end) for who in range(6)]
    collector = start_python(COLLECTOR, root, end)
    for process in load:
        out, errors = process.communicate(timeout=seconds + 100)
        assert (process.returncode, errors) == (0, "")
        assert int(out) >= 2
    out, errors = collector.communicate(timeout=seconds + 100)
    assert (collector.returncode, errors) == (0, "")
    took = json.loads(out)
    assert max(took) < 10
    require_sound(root, contents={"kept": disk_bytes(1, 2)})
    with Store.open(root, options=FAST) as store:
        store.gc()
    assert blobs(root) == reachable(root)
    assert leftovers(root) == []


CREATOR = """
import sys, time
from casstore import Snapshot, Store
from casstore.errors import AlreadyExists
root, disk, start = sys.argv[1], sys.argv[2], float(sys.argv[3])
force = sys.argv[4] == "force"
with Store.open(root) as store:
    while time.time() < start:
        pass
    for n in range(8):
        builder = Snapshot.builder(disk).name(f"n{n}").label("by", disk)
        try:
            made = (builder.force() if force else builder).create(store)
        except AlreadyExists as error:
            assert error.exit_code == 15
            print(n, "lost")
        else:
            print(n, made.digest)
"""


@pytest.mark.parametrize("force", ["", "force"])
def test_30_of_two_creators_of_a_name_one_wins_unless_forced(tmp_path: Path, force: str) -> None:
    """Row 29, too: their disks have the same bytes, so most blobs are the same."""
    root = tmp_path / "store"
    Store.init(root).close()
    disks = [write_disk(tmp_path / f"{who}.disk", 1, 2, 3) for who in range(4)]
    start = str(time.time() + 1.5)
    creators = [start_python(CREATOR, root, disk, start, force) for disk in disks]
    told: list[list[str]] = []
    for creator in creators:
        out, errors = creator.communicate(timeout=60)
        assert (creator.returncode, errors) == (0, "")
        told.append([line.split()[1] for line in out.splitlines()])
    refs = link_refs(root)
    for n in range(8):
        won = [each[n] for each in told if each[n] != "lost"]
        assert len(won) == (len(disks) if force else 1)
        assert refs[f"n{n}"] in won
    require_sound(root, contents={f"n{n}": disk_bytes(1, 2, 3) for n in range(8)})


# --- locks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.init(tmp_path / "store", options=StoreOptions(wait=0.2)) as store:
        capture(store, tmp_path, "one", 1)
        yield store


HOLDER = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("lock", ["lock", "gate.lock", "refs.lock"])
def test_a_lock_that_is_held_is_waited_for_and_then_named(store: Store, tmp_path: Path, lock: str) -> None:
    before = link_refs(Path(store.path))
    holder = start_python(HOLDER, Path(store.path, lock))
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for change in (lambda: store.tag("one", "two"), lambda: capture(store, tmp_path, "two", 2)):
            start = time.monotonic()
            with pytest.raises(StoreLocked, match=rf"{lock}.*held by another process .* 0\.2 s; try again") as caught:
                change()
            assert 0.2 <= time.monotonic() - start < 60
            assert caught.value.exit_code == 11
        assert names(store) == ["one"]
        with Store.open(store.path, options=StoreOptions(wait=0.2)) as another:
            assert names(another) == ["one"]
            if lock == "refs.lock":
                assert content(another, "one") == disk_bytes(1)
    finally:
        holder.send_signal(signal.SIGKILL)  # row 33: a dead holder blocks nobody
        holder.communicate()
    assert link_refs(Path(store.path)) == before
    assert os.listdir(Path(store.path, "tmp")) == []
    store.tag("one", "two")
    store.gc()
    assert names(store) == ["one", "two"]
    assert blobs(Path(store.path)) == reachable(Path(store.path))


def test_a_stopped_process_that_changes_refs_does_not_keep_others_from_reading(store: Store) -> None:
    """It is index.json that is not up to date then, and who has the lock will derive it."""
    root = Path(store.path)
    (root / "refs/by-hand").symlink_to(os.readlink(root / "refs/one"))
    with durable.lock(str(root / "refs.lock"), wait=1), Store.open(root, options=StoreOptions(wait=30)) as another:
        assert names(another) == ["by-hand", "one"]
    require_sound(root)


def test_a_lock_is_waited_for_no_longer_than_needed(store: Store) -> None:
    code = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(1)
"""
    holder = start_python(code, Path(store.path, "refs.lock"))
    assert holder.stdout is not None
    holder.stdout.readline()
    with Store.open(store.path, options=StoreOptions(wait=30)) as another:
        start = time.monotonic()
        another.tag("one", "two")
        assert time.monotonic() - start < 20
    holder.communicate()


@pytest.mark.parametrize("lock", ["lock", "gate.lock", "refs.lock"])
def test_33_a_lock_file_that_somebody_removed_locks_nobody_in_or_out(store: Store, lock: str) -> None:
    """People remove lock files that they take for stale; who waited for that file locks the new one."""
    path = Path(store.path, lock)
    path.touch()
    with durable.lock(str(path), wait=0) as held:
        path.unlink()
        with durable.lock(str(path), wait=0) as other:  # the damage is done: two holders
            assert os.fstat(other.fd).st_ino != os.fstat(held.fd).st_ino
            assert durable.try_lock(str(path)) is None  # but no third one
    store.tag("one", "two")


def test_33_a_lock_that_is_got_on_a_removed_file_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    real = fcntl.flock
    removed: list[int] = []

    def remove_first(fd: int, operation: int) -> None:
        if not removed:
            path.unlink()
            removed.append(fd)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with durable.lock(str(path), wait=0) as held:
        assert os.path.samestat(os.fstat(held.fd), path.stat())


@pytest.mark.needs("strace")
@pytest.mark.parametrize("number", ["ENOLCK", "EOPNOTSUPP"])
def test_34_every_verb_that_changes_something_is_refused_without_flock(
    casstore: Casstore, tmp_path: Path, number: str
) -> None:
    """With the kernel's own answer, as NFS and some FUSE file systems give it."""
    disk = write_disk(tmp_path / "disk", 1)
    casstore("create", "one", "--disk", disk)
    casstore("push", "one", f"oci:{tmp_path}/layout:one")
    before = all_files(casstore.store)
    inject = ["-f", "-qq", "-o", os.devnull, "-e", "trace=flock", "-e", f"inject=flock:error={number}"]
    verbs: list[tuple[tuple[object, ...], int]] = [
        (("create", "two", "--disk", disk), 11),
        (("pull", f"oci:{tmp_path}/layout:one", "--name", "two"), 11),
        (("rm", "one"), 11),
        (("gc",), 11),
        (("list", "-q"), 0),
    ]
    for verb, code in verbs if number == "ENOLCK" else verbs[2:]:
        words = map(str, ("--store", casstore.store, *verb))
        command = ["strace", *inject, sys.executable, "-m", "casstore", *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == code, (verb, done.stderr)
        if code:
            assert "this file system cannot lock files" in done.stderr
            assert done.stdout == ""
    assert all_files(casstore.store) == before


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_that_cannot_lock_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Row 34: never an unlocked run; what needs no lock still works."""
    before = all_files(Path(store.path))

    def refuse(_: object, __: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for change in (lambda: store.tag("one", "two"), lambda: capture(store, tmp_path, "two", 2), store.gc):
        with pytest.raises(StoreLocked, match="cannot lock files"):
            change()
    assert names(store) == ["one"]
    assert all_files(Path(store.path)) == before
    with pytest.raises(StoreLocked, match="cannot lock files"):
        Store.init(tmp_path / "new")


def test_an_error_of_flock_that_says_nothing_about_locks_is_a_storage_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object, __: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError, match="Input/output error"):
        store.tag("one", "two")


def test_two_stores_in_one_process_see_each_others_changes(tmp_path: Path, store: Store) -> None:
    with Store.open(store.path, options=FAST) as other:
        for n in range(10):
            capture(other if n % 2 else store, tmp_path, f"n{n}", n, n + 1)
            assert names(store) == names(other)
        other.remove("n3")
        with pytest.raises(Exception, match="n3"):
            store.get("n3")
        store.gc()
        assert content(other, "n4") == disk_bytes(4, 5)
    require_sound(Path(store.path))
