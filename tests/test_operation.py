"""A running operation: what it stages, that nothing of it is left, and the lease by which gc knows that it lives."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import random
import signal
import stat
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from casstore import durable
from casstore.blobs import BlobDirectory
from casstore.content import Reader
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import CorruptContent, DigestMismatch, NotFound, SizeMismatch, StorageError, StoreLocked
from casstore.oci import Descriptor
from casstore.operation import Operation, live_leases
from casstore.spec import KIB, MIB
from casstore.streams import BytesSource, VerifiedReader
from tests.support.disks import tmpfs

TYPE = "application/octet-stream"
ONE, TWO = Digest.of(b"one"), Digest.of(b"two")


def start(folder: Path) -> Operation:
    return Operation(str(folder / "tmp"), Durability.FULL)


def store(folder: Path) -> BlobDirectory:
    (folder / "blobs").mkdir(exist_ok=True)
    return BlobDirectory(str(folder / "blobs"))


# --- staging ---------------------------------------------------------------------------------------------------------


def test_blob_is_staged_under_its_digest(tmp_path: Path) -> None:
    with start(tmp_path) as operation:
        blob = operation.new_blob()
        parts: list[bytes | bytearray | memoryview] = [
            b"part one, ",
            bytearray(b"part two, "),
            memoryview(b"part three"),
        ]
        for part in parts:
            blob.write(part)
        assert operation.digests() == []
        descriptor = blob.finish(TYPE)
        content = b"".join(parts)
        assert descriptor == Descriptor.of(content, TYPE)
        assert operation.digests() == [descriptor.digest]
        path = Path(operation.staged.path_of(descriptor.digest))
        assert path.read_bytes() == content
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
        assert operation.staged.read_range(descriptor, 5, 10) == content[5:15]
    assert os.listdir(tmp_path / "tmp") == []


@pytest.mark.parametrize("mask", [0, 0o077, 0o777])
def test_row_37_modes(tmp_path: Path, mask: int) -> None:
    (tmp_path / "tmp").mkdir()
    before = os.umask(mask)
    try:
        with start(tmp_path) as operation:
            descriptor = operation.add(b"x", TYPE)
            assert stat.S_IMODE(os.stat(operation.staged.path_of(descriptor.digest)).st_mode) == 0o444
            assert not stat.S_IMODE(os.stat(operation.path).st_mode) & 0o022
    finally:
        os.umask(before)


def test_blob_is_synced_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with start(tmp_path) as operation:
        synced: list[tuple[int, bool]] = []
        real = os.fsync

        def fsync(fd: int) -> None:
            info = os.fstat(fd)
            synced.append((info.st_size, stat.S_ISDIR(info.st_mode)))
            assert operation.digests() == [] or stat.S_ISDIR(info.st_mode)
            real(fd)

        monkeypatch.setattr(os, "fsync", fsync)
        operation.add(b"12345", TYPE)
        assert synced == [(5, False)]
        operation.move_to(store(tmp_path))
        assert synced[-1][1]


def test_no_durability_no_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: pytest.fail("synced"))
    with Operation(str(tmp_path / "tmp"), Durability.NONE) as operation:
        operation.add(b"x", TYPE)
        operation.move_to(store(tmp_path))


def test_moved_blobs_are_in_the_store_and_no_longer_staged(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    with start(tmp_path) as operation:
        descriptors = [operation.add(b"%d" % n, TYPE) for n in range(5)]
        unfinished = operation.new_blob()
        unfinished.write(b"half")
        assert operation.move_to(blobs) == sorted(descriptor.digest for descriptor in descriptors)
        assert operation.digests() == []
        unfinished.close()
    assert sorted(os.listdir(blobs.path)) == sorted(descriptor.digest.hex for descriptor in descriptors)
    assert all(blobs.exists(descriptor) for descriptor in descriptors)


def test_move_replaces_a_damaged_blob(tmp_path: Path) -> None:
    """Row 16: a file of that name that a crash left empty is no blob."""
    blobs = store(tmp_path)
    path = Path(blobs.path_of(Digest.of(b"content")))
    path.touch()
    with start(tmp_path) as operation:
        descriptor = operation.add(b"content", TYPE)
        operation.move_to(blobs)
    assert path.read_bytes() == b"content"
    assert blobs.exists(descriptor)


def test_same_content_twice(tmp_path: Path) -> None:
    with start(tmp_path) as operation:
        assert operation.add(b"x", TYPE) == operation.add(b"x", TYPE)
        assert len(operation.digests()) == 1


def test_row_29_many_threads(tmp_path: Path) -> None:
    contents = [random.Random(n % 20).randbytes(50 * KIB) for n in range(100)]
    with start(tmp_path) as operation, ThreadPoolExecutor(8) as pool:
        descriptors = list(pool.map(lambda data: operation.add(data, TYPE), contents))
        assert descriptors == [Descriptor.of(data, TYPE) for data in contents]
        assert len(operation.digests()) == 20
        for descriptor in descriptors:
            with operation.staged.fetch(descriptor) as reader:
                while reader.read(MIB):
                    pass


def test_row_10_short_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with start(tmp_path) as operation:
        monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:100]))
        content = random.Random(1).randbytes(5000)
        descriptor = operation.add(content, TYPE)
        assert Path(operation.staged.path_of(descriptor.digest)).read_bytes() == content


def test_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound), start(tmp_path) as operation:  # noqa: PT012  (the block is what is left early)
        operation.add(b"x", TYPE)
        operation.new_blob().write(b"y")
        operation.receive(Descriptor.of(b"z", TYPE), BytesSource())
    assert os.listdir(tmp_path / "tmp") == []


@pytest.mark.parametrize("call", ["write", "fsync", "fchmod", "rename"])
def test_rows_1_to_6_failing_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """A typed error, and the blob is not there, not even when its data was written: fsync is not tried again."""
    failed: list[object] = []

    def fail(*args: object) -> None:
        failed.append(args)
        raise OSError(errno.ENOSPC, "No space left on device")

    with start(tmp_path) as operation:
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(StorageError, match="No space left"):
                operation.add(b"content", TYPE)
        assert len(failed) == 1
        assert operation.digests() == []
    assert os.listdir(tmp_path / "tmp") == []


@pytest.mark.needs("loop")
def test_row_1_full_file_system(tmp_path: Path) -> None:
    with tmpfs(tmp_path, "size=1m") as root:
        with start(root) as operation:
            blob = operation.new_blob()
            with pytest.raises(StorageError, match="staging a blob: No space left"):
                blob.write(bytes(2 * MIB))
            blob.close()
            assert operation.digests() == []
        assert os.listdir(root / "tmp") == []
        with start(root) as operation:
            operation.add(bytes(500 * KIB), TYPE)


@pytest.mark.needs("loop")
def test_row_7_read_only_file_system(tmp_path: Path) -> None:
    with tmpfs(tmp_path) as root:
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        with pytest.raises(StorageError, match="Read-only file system"):
            start(root)


def test_move_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with start(tmp_path) as operation:
        operation.add(b"x", TYPE)
        with pytest.raises(StorageError, match="storing blobs"):
            operation.move_to(BlobDirectory(str(tmp_path / "missing")))


# --- receiving -------------------------------------------------------------------------------------------------------


class Source:
    """Gives out these bytes for whatever is asked for."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def fetch(self, descriptor: Descriptor) -> Reader:
        return VerifiedReader(io.BytesIO(self.body), descriptor, subject="body")


def test_receive(tmp_path: Path) -> None:
    content = random.Random(2).randbytes(3 * MIB + 5)
    with start(tmp_path) as operation:
        operation.receive(Descriptor.of(content, TYPE), BytesSource(content))
        assert operation.digests() == [Digest.of(content)]


@pytest.mark.parametrize(
    ("body", "error"),
    [(b"contenT", DigestMismatch), (b"conten", SizeMismatch), (b"content!", SizeMismatch), (b"", SizeMismatch)],
)
def test_row_80_what_is_wrong_is_not_staged(tmp_path: Path, body: bytes, error: type[CorruptContent]) -> None:
    with start(tmp_path) as operation:
        with pytest.raises(error):
            operation.receive(Descriptor.of(b"content", TYPE), Source(body))
        assert operation.digests() == []
        with pytest.raises(NotFound):
            operation.receive(Descriptor.of(b"content", TYPE), BytesSource())
        assert operation.digests() == []
        operation.receive(Descriptor.of(b"content", TYPE), Source(b"content"))
        assert operation.digests() == [Digest.of(b"content")]
    assert os.listdir(tmp_path / "tmp") == []


# --- the lease -------------------------------------------------------------------------------------------------------


def test_lease_lists_what_is_relied_on(tmp_path: Path) -> None:
    with start(tmp_path) as operation:
        operation.rely_on([ONE, TWO, ONE])
        operation.rely_on([TWO])
        operation.rely_on([])
        assert Path(operation.path, "lease").read_text() == f"{ONE}\n{TWO}\n"
        assert operation.leased == {ONE, TWO}
        assert live_leases(str(tmp_path / "tmp")) == ({ONE, TWO}, [])
    assert live_leases(str(tmp_path / "tmp")) == (set(), [])
    assert live_leases(str(tmp_path / "missing")) == (set(), [])


def test_leases_of_several_operations(tmp_path: Path) -> None:
    with start(tmp_path) as first, start(tmp_path) as second:
        first.rely_on([ONE])
        second.rely_on([TWO])
        assert live_leases(str(tmp_path / "tmp")) == ({ONE, TWO}, [])
        second.close()
        assert live_leases(str(tmp_path / "tmp")) == ({ONE}, [])


def test_lease_from_many_threads(tmp_path: Path) -> None:
    digests = [Digest.of(b"%d" % n) for n in range(300)]
    with start(tmp_path) as operation, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: operation.rely_on(digests[n : n + 10]), range(291)))
        assert live_leases(str(tmp_path / "tmp"))[0] == set(digests)
        assert len(Path(operation.path, "lease").read_text().splitlines()) == 300


def test_row_33_operation_of_a_killed_process_is_dead(tmp_path: Path) -> None:
    script = f"""
import sys, time
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.operation import Operation
operation = Operation(sys.argv[1], Durability.FULL)
operation.rely_on([Digest("{ONE.hex}")])
operation.add(b"staged", "{TYPE}")
print(operation.path, flush=True)
time.sleep(60)
"""
    parent = str(tmp_path / "tmp")
    with subprocess.Popen([sys.executable, "-c", script, parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        path = process.stdout.readline().strip()
        assert live_leases(parent) == ({ONE}, [])
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert live_leases(parent) == (set(), [path])
    assert os.path.exists(os.path.join(path, hashlib.sha256(b"staged").hexdigest()))


def test_odd_things_beside_operations(tmp_path: Path) -> None:
    """What has no lease is dead; what is not called op-<16 hex> is none of ours."""
    parent = tmp_path / "tmp"
    dead_names = ["op-0000000000000001", "op-0000000000000002"]
    for name in (dead_names[0], "other", "op-dead", "op-00000000000000011", "op-000000000000000A"):
        (parent / name).mkdir(parents=True)
    (parent / dead_names[1]).touch()
    with start(tmp_path) as operation:
        Path(operation.path, "lease").write_text(f"{ONE}\ngarbage\nsha256:short\n\nsha512:{'0' * 128}\n{TWO}\n")
        held, dead = live_leases(str(parent))
    assert held == {ONE, TWO}
    assert dead == [str(parent / name) for name in dead_names]


def test_row_34_no_locks_no_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of it is left behind."""

    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreLocked, match="cannot lock files"):
        start(tmp_path)
    assert os.listdir(tmp_path / "tmp") == []


def test_names_of_operations_differ(tmp_path: Path) -> None:
    with start(tmp_path) as first, start(tmp_path) as second:
        assert first.path != second.path
        assert durable.try_lock(os.path.join(first.path, "lease")) is None


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
def test_an_operation_with_something_else_for_a_lease_is_dead(tmp_path: Path, kind: str) -> None:
    lease = tmp_path / "tmp/op-0123456789abcdef/lease"
    lease.parent.mkdir(parents=True)
    (tmp_path / "victim").write_text(str(ONE))
    if kind == "symlink":
        lease.symlink_to(tmp_path / "victim")
    elif kind == "directory":
        lease.mkdir()
    else:
        os.mkfifo(lease)
    assert live_leases(str(tmp_path / "tmp")) == (set(), [str(lease.parent)])


def test_a_lease_with_anything_in_it_is_read_in_little_memory(tmp_path: Path) -> None:
    with start(tmp_path) as operation:
        operation.rely_on([ONE])
        lease = Path(operation.path, "lease")
        with lease.open("ab") as out:
            out.truncate(8 << 20)
            out.write(f"\n{TWO}\n".encode())
        tracemalloc.start()
        held, _ = live_leases(str(tmp_path / "tmp"))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
        assert held == {ONE, TWO}
