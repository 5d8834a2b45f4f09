"""Disks on file systems with reflinks: a capture keeps the disk of one moment, whatever happens to it afterwards."""

from __future__ import annotations

import errno
import fcntl
import itertools
import mmap
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from casstore import Snapshot, Store
from casstore.artifact import Artifact
from casstore.binding import Created
from casstore.capture import CaptureOptions
from casstore.create import Description, build
from casstore.disk import DiskSource
from casstore.errors import SourceError
from casstore.progress import Meter, silent
from casstore.restore import restore_stream
from casstore.scan import WINDOW
from casstore.spec import BLOCK, KIB, MIB
from tests.support.artifacts import MemoryBlobs
from tests.support.disks import FileSystem, extents, file_system, overlay, tmpfs
from tests.support.held import held
from tests.support.stores import FAST, content

KINDS = [pytest.param(kind, marks=pytest.mark.needs(kind)) for kind in ("xfs", "btrfs")]


@pytest.fixture(scope="module", params=KINDS)
def mounted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    kind: FileSystem = request.param
    with file_system(tmp_path_factory.mktemp(kind), kind) as root:
        yield root


@pytest.fixture
def folder(mounted: Path) -> Iterator[Path]:
    """An empty folder on a file system with reflinks."""
    path = mounted / "folder"
    path.mkdir()
    yield path
    shutil.rmtree(path)


def make_disk(folder: Path) -> Path:
    """A disk of two windows and a bit, with a hole."""
    path = folder / "disk"
    with path.open("wb") as out:
        for offset in (0, WINDOW + MIB):
            out.seek(offset)
            out.write(random.Random(offset).randbytes(WINDOW - MIB // 2))
    return path


def create(folder: Path, path: Path) -> tuple[Snapshot, bytes]:
    """Keep a disk in a store beside it."""
    with Store.init(folder / "store", options=FAST) as store:
        snapshot = Snapshot.builder(path).name("one").force().create(store)
        return snapshot, content(store, "one")


def build_in_memory(source: DiskSource) -> tuple[Created, MemoryBlobs]:
    blobs = MemoryBlobs()
    return build(source, blobs, Description(), options=CaptureOptions(workers=2), clock=lambda: 0), blobs


def disk_content(made: Created, blobs: MemoryBlobs) -> bytes:
    artifact, out = Artifact.load(blobs, made.root), bytearray()
    restore_stream(artifact, artifact.map.disks[0], out.extend, workers=1, meter=Meter(silent, "test", None))
    return bytes(out)


# --- one moment ------------------------------------------------------------------------------------------------------


def overwrite(path: Path) -> None:
    with path.open("r+b") as out:
        for offset in range(0, path.stat().st_size, 64 * KIB):
            out.seek(offset)
            out.write(b"changed")


def write_through_mapping(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        for start, length in extents(path):
            mapping[start + length - 1] ^= 1


def replace_content(path: Path) -> None:
    path.write_bytes(random.Random(7).randbytes(path.stat().st_size))


CHANGES: dict[str, Callable[[Path], object]] = {
    "overwritten": overwrite,
    "through a mapping": write_through_mapping,
    "written anew": replace_content,
    "grown": lambda path: os.truncate(path, path.stat().st_size + MIB),
    "shrunk": lambda path: os.truncate(path, WINDOW // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "removed": os.unlink,
    "punched": lambda path: subprocess.run(["fallocate", "-p", "-o", "0", "-l", str(2 * WINDOW), path], check=True),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("reads", [0, 1])
def test_change_while_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch, change: str, reads: int) -> None:
    """Before the first byte is read, and when some were taken from the disk itself."""
    path = make_disk(folder)
    before = path.read_bytes()
    real, seen = DiskSource.read_into, itertools.count()

    def read_into(self: DiskSource, buffer: memoryview, offset: int) -> int:
        if next(seen) == reads:
            CHANGES[change](path)
        return real(self, buffer, offset)

    monkeypatch.setattr(DiskSource, "read_into", read_into)
    with DiskSource.open(path) as source:
        assert source.clone_into(str(folder))
        made, blobs = build_in_memory(source)
    assert disk_content(made, blobs) == before
    assert next(seen) > reads
    assert not path.exists() or path.read_bytes() != before


def test_a_writer_that_never_rests(folder: Path) -> None:
    """It writes 16 records over and over, one write(2) each. At any moment some of the first have the number of this
    turn, the others that of the turn before: so must a snapshot, and each record must be all of one turn.
    """
    record, count = 64 * KIB, 16
    path, stop, turns = folder / "disk", threading.Event(), itertools.count(1)
    path.write_bytes(bytes(record * count))

    def write() -> None:
        with path.open("r+b", buffering=0) as out:
            while not stop.is_set():
                words = next(turns).to_bytes(8, "little") * (record // 8)
                for n in range(count):
                    os.pwrite(out.fileno(), words, n * record)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        kept = [create(folder, path)[1] for _ in range(6)]
    finally:
        stop.set()
        writer.join()
    for data in kept:
        words = [data[at : at + 8] for at in range(0, len(data), 8)]
        records = [words[n : n + record // 8] for n in range(0, len(words), record // 8)]
        assert all(len(set(each)) == 1 for each in records)
        numbers = [int.from_bytes(each[0], "little") for each in records]
        assert numbers == sorted(numbers, reverse=True)
        assert numbers[0] - numbers[-1] <= 1
    assert len(set(kept)) > 1


def test_store_of_a_disk_that_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_disk(folder)
    before, real = path.read_bytes(), DiskSource.read_into

    def read_into(self: DiskSource, buffer: memoryview, offset: int) -> int:
        overwrite(path)
        return real(self, buffer, offset)

    monkeypatch.setattr(DiskSource, "read_into", read_into)
    assert create(folder, path)[1] == before


def test_disk_that_changes_before_it_is_cloned(folder: Path) -> None:
    """What counts is the moment of the clone, for its size and first bytes as well."""
    path = make_disk(folder)
    with DiskSource.open(path) as source:
        with path.open("ab") as out:
            out.write(b"more")
        before = path.read_bytes()
        assert source.clone_into(str(folder))
        os.truncate(path, 0)
        assert source.head() == before[:4096]
        assert disk_content(*build_in_memory(source)) == before


def test_snapshot_at_a_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_disk(folder)
    before, real = path.read_bytes(), DiskSource.read_into

    def read_into(self: DiskSource, buffer: memoryview, offset: int) -> int:
        overwrite(path)
        return real(self, buffer, offset)

    monkeypatch.setattr(DiskSource, "read_into", read_into)
    snapshot = Store.create_directory(Snapshot.builder(path).path(folder / "snapshot").build())
    parts: list[bytes] = []
    snapshot.restore_to(lambda data: parts.append(bytes(data)))
    assert b"".join(parts) == before
    assert {entry.name for entry in (folder / "snapshot").iterdir()} == {"blobs", "index.json", "oci-layout"}


# --- the same snapshot -----------------------------------------------------------------------------------------------


def fill(path: Path) -> None:
    """Data, holes, written zeros, and preallocated ranges of which a part was written."""
    rng = random.Random(3)
    with path.open("wb") as out:
        out.truncate(16 * MIB + 3 * 512)
        out.write(rng.randbytes(MIB + 100))
        for offset in (3 * MIB, 9 * MIB, 16 * MIB):
            out.seek(offset)
            out.write(rng.randbytes(600))
        out.seek(10 * MIB)
        out.write(bytes(64 * KIB))
    subprocess.run(["fallocate", "-o", str(5 * MIB), "-l", str(2 * MIB), path], check=True)
    subprocess.run(["fallocate", "-n", "-o", str(20 * MIB), "-l", str(MIB), path], check=True)  # past the end
    with path.open("r+b") as out:
        for offset, data in ((6 * MIB, b"x" * BLOCK), (6 * MIB + 64 * KIB, bytes(BLOCK)), (7 * MIB - 1, b"y")):
            out.seek(offset)
            out.write(data)


@pytest.mark.needs("fallocate")
@pytest.mark.parametrize("read_before", [True, False])
def test_same_map_with_and_without_a_clone(folder: Path, *, read_before: bool) -> None:
    """SEEK_DATA looks at the page cache, which a clone does not share."""
    path, made = folder / "disk", []
    fill(path)
    os.sync()
    if read_before:
        path.read_bytes()
    for cloned in (False, True):
        with DiskSource.open(path) as source:
            if cloned:
                assert source.clone_into(str(folder))
                for offset in (0, 10 * MIB):  # preallocated from now on, and 64 KiB of it were zeros before
                    subprocess.run(["fallocate", "-z", "-o", str(offset), "-l", str(MIB), path], check=True)
            assert source.holes_are_known()
            created, blobs = build_in_memory(source)
            made.append(created.root)
    assert made[0] == made[1]
    assert Artifact.load(blobs, made[0]).map.disks[0].allocated < 2 * MIB


def test_what_was_written_a_moment_ago_is_in_the_clone(folder: Path) -> None:
    """Nothing was synced: dirty pages, some of them over preallocated space, are all that there is."""
    path = folder / "disk"
    fill(path)
    assert create(folder, path)[1] == path.read_bytes()


# --- where there is none ---------------------------------------------------------------------------------------------


@contextmanager
def refusing(monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> Iterator[list[int]]:
    """FICLONE, or the making of the clone's file, fails."""
    real_ioctl, real_open, refused = fcntl.ioctl, os.open, [0]

    def ioctl(fd: int, request: int, *args: object) -> object:
        if request == 0x40049409:
            refused[0] += 1
            raise OSError(code, os.strerror(code))
        return real_ioctl(fd, request, *args)  # type: ignore[call-overload]

    def open_(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            refused[0] += 1
            raise OSError(code, os.strerror(code))
        return real_open(path, flags, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        if call == "FICLONE":
            patch.setattr(fcntl, "ioctl", ioctl)
        else:
            patch.setattr(os, "open", open_)
        yield refused


@pytest.mark.parametrize(
    ("call", "code"),
    [
        *(("FICLONE", code) for code in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ETXTBSY, errno.ENOSPC)),
        *(("O_TMPFILE", code) for code in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOSPC)),
    ],
)
def test_without_a_clone_the_disk_is_read_and_watched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    path = make_disk(folder)
    before = held()
    with refusing(monkeypatch, call, code) as refused:
        assert create(folder, path)[1] == path.read_bytes()
        assert refused == [1]
        with DiskSource.open(path) as source:
            assert not source.clone_into(str(folder))
            overwrite(path)
            with pytest.raises(SourceError, match="content or attributes changed while it was read"):
                build_in_memory(source)
    assert held() == before


def test_store_on_another_file_system(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = make_disk(folder), DiskSource.read_into

    def read_into(self: DiskSource, buffer: memoryview, offset: int) -> int:
        overwrite(path)
        return real(self, buffer, offset)

    assert create(tmp_path, path)[1] == path.read_bytes()
    monkeypatch.setattr(DiskSource, "read_into", read_into)
    with pytest.raises(SourceError, match="content or attributes changed while it was read"):
        create(tmp_path, path)


def test_overlay_of_such_a_file_system(folder: Path) -> None:
    """What a clone promises is known of XFS and btrfs themselves only."""
    with overlay(folder) as merged:
        path = make_disk(merged)
        with DiskSource.open(path) as source:
            assert not source.clone_into(str(merged))
            assert disk_content(*build_in_memory(source)) == path.read_bytes()


@pytest.mark.needs("loop", "mkfs.ext4")
@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_file_system_without_reflinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    real = DiskSource.read_into

    def read_into(self: DiskSource, buffer: memoryview, offset: int) -> int:
        overwrite(path)
        return real(self, buffer, offset)

    with tmpfs(tmp_path) if kind == "tmpfs" else file_system(tmp_path, "ext4") as root:
        path = make_disk(root)
        assert create(root, path)[1] == path.read_bytes()
        monkeypatch.setattr(DiskSource, "read_into", read_into)
        with pytest.raises(SourceError, match="content or attributes changed while it was read"):
            create(root, path)


# --- nothing is left -------------------------------------------------------------------------------------------------


def test_clone_has_no_name_and_ends_with_the_source(folder: Path) -> None:
    path = make_disk(folder)
    scratch = folder / "scratch"
    scratch.mkdir()
    before = held()
    with DiskSource.open(path) as source:
        assert source.clone_into(str(scratch))
        assert not source.clone_into(str(scratch))
        assert len(held()[0]) == len(before[0]) + 2
        assert not list(scratch.iterdir())
    assert held() == before
    with DiskSource.open(path) as source:
        assert source.clone_into(str(scratch))
        overwrite(path)
        build_in_memory(source)
        source.check_unchanged()
    assert held() == before


@pytest.mark.parametrize("fails", [True, False])
def test_create_leaves_nothing_open(folder: Path, monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> None:
    def read_into(self: DiskSource, buffer: memoryview, offset: int) -> int:
        raise SourceError("cannot be read")

    path = make_disk(folder)
    create(folder, path)
    before = held()
    if fails:
        monkeypatch.setattr(DiskSource, "read_into", read_into)
        with pytest.raises(SourceError, match="cannot be read"):
            create(folder, path)
    else:
        create(folder, path)
    assert held() == before
    assert not list((folder / "store/tmp").iterdir())


def test_a_pipe_has_no_clone(folder: Path) -> None:
    ours, theirs = os.pipe()
    os.close(theirs)
    with DiskSource.stream(ours) as source:
        assert not source.clone_into(str(folder))
