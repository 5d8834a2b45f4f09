"""How a disk is written back: in few and long writes, and without a trace when that fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from blake3 import blake3

from casstore import decoding
from casstore.artifact import Artifact
from casstore.directories import Located
from casstore.durable import Durability
from casstore.errors import DigestMismatch
from casstore.frame import Buffer
from casstore.progress import Meter, ProgressEvent, silent
from casstore.restore import restore_file
from casstore.spec import KIB
from casstore.store import Store
from tests.support.artifacts import DELTA, RAW, ZSTD, Disk, Frame, HandMade, frame, pack_bytes
from tests.support.disks import extents, tmpfs
from tests.support.held import held
from tests.support.stores import capture, disk_bytes

LENGTH = 20_000


def chunk(n: int) -> bytes:
    """A chunk that is no other."""
    return (b"%08d" % n) * (LENGTH // 8)


def load(disk: Disk, *frames: Frame) -> Artifact:
    """An artifact of one pack."""
    made = HandMade([pack_bytes(frames)], [disk])
    return Artifact.load(made.blobs, made.store())


def restore(artifact: Artifact, path: Path, meter: Meter | None = None) -> Path:
    restore_file(
        artifact,
        artifact.map.disks[0],
        str(path),
        force=False,
        workers=3,
        meter=meter or Meter(silent, "test", None),
        durability=Durability.NONE,
    )
    return path


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(offset, length) of each write at an offset."""
    found: list[tuple[int, int]] = []
    right = os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        found.append((offset, len(data)))
        return right(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    return found


def test_neighbours_are_written_together(tmp_path: Path, writes: list[tuple[int, int]]) -> None:
    """Chunks that lie side by side in a frame and on the disk; not across a gap, nor where a hole begins."""
    chunks = [chunk(n) for n in range(10)]
    runs = [(0, 4 * LENGTH, 0, 0, 4), (500, 3 * LENGTH, 0, 4, 3), (0, LENGTH, 0, 0, 1), (0, 3 * LENGTH, 0, 7, 3)]
    content = b"".join([*chunks[:4], bytes(500), *chunks[4:7], chunks[0], *chunks[7:10]])
    allocated = [(0, 4 * LENGTH), (500, 7 * LENGTH)]
    artifact = load(Disk(len(content), allocated, runs), frame(ZSTD, *chunks[:9]), frame(RAW, chunks[9]))
    assert restore(artifact, tmp_path / "back").read_bytes() == content
    assert sorted(writes) == [
        (0, LENGTH),  # it is there twice, and alone therefore
        (LENGTH, 3 * LENGTH),
        (4 * LENGTH + 500, 3 * LENGTH),
        (7 * LENGTH + 500, LENGTH),
        (8 * LENGTH + 500, 2 * LENGTH),
        (10 * LENGTH + 500, LENGTH),
    ]


def test_a_chunk_over_a_hole_is_written_in_parts(tmp_path: Path, writes: list[tuple[int, int]]) -> None:
    middle = b"x" * 4096 + bytes(64 * KIB) + b"y" * 4096
    content = chunk(1) + middle + chunk(2)
    hole = LENGTH + 4096
    disk = Disk(len(content), [(0, hole), (64 * KIB, 4096 + LENGTH)], [(0, len(content), 0, 0, 3)])
    back = restore(load(disk, frame(ZSTD, chunk(1), middle, chunk(2))), tmp_path / "back")
    assert sorted(writes) == [
        (0, LENGTH),
        (LENGTH, 4096),
        (hole + 64 * KIB, 4096),
        (hole + 64 * KIB + 4096, LENGTH),
    ]
    assert len(extents(back)) == 2
    assert back.read_bytes() == content


def test_a_chunk_that_is_there_often_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: list[tuple[int, int]]
) -> None:
    checked: list[bytes] = []
    right = decoding.Frames.check

    def check(frames: decoding.Frames, data: Buffer, chunk_id: bytes, located: Located, row: int) -> None:
        checked.append(chunk_id)
        right(frames, data, chunk_id, located, row)

    monkeypatch.setattr(decoding.Frames, "check", check)
    delta = b"delta" + chunk(1)[5:]
    runs = [(0, LENGTH, 0, n % 2, 1) for n in range(12)]
    artifact = load(
        Disk(12 * LENGTH, [(0, 12 * LENGTH)], runs), frame(ZSTD, chunk(1)), frame(DELTA, delta, base=chunk(1))
    )
    assert restore(artifact, tmp_path / "back").read_bytes() == (chunk(1) + delta) * 6
    assert sorted(checked) == sorted([blake3(chunk(1)).digest(), blake3(delta).digest()])
    assert len(writes) == 12


class StopError(Exception):
    """What a signal raises."""


@pytest.mark.parametrize("why", ["damage", "signal"])
def test_nothing_is_left_of_a_restore_that_fails(tmp_path: Path, why: str) -> None:
    """No file, thread or descriptor; and what was there before still is."""
    frames = [frame(RAW, *(chunk(20 * n + m) for m in range(20))) for n in range(60)]
    if why == "damage":
        frames[40] = Frame(RAW, frames[39].stored, frames[40].chunks)
    disk = Disk(1200 * LENGTH, [(0, 1200 * LENGTH)], [(0, 1200 * LENGTH, 0, 0, 1200)])
    artifact = load(disk, *frames)

    def stop(event: ProgressEvent) -> None:
        if why == "signal" and event.done > 300 * LENGTH:
            raise StopError

    before = held()
    with pytest.raises((DigestMismatch, StopError)):
        restore(artifact, tmp_path / "back", Meter(stop, "test", None))
    assert held() == before
    assert not list(tmp_path.iterdir())


@pytest.mark.needs("loop")
def test_50_a_file_system_that_knows_no_holes(store: Store, tmp_path: Path) -> None:
    """To ramfs all of a file is data."""
    pieces = (0, 1, 0, 0, 2, 0)
    capture(store, tmp_path, "holes", *pieces)
    with tmpfs(tmp_path, kind="ramfs") as root:
        store.restore("holes", root / "disk")
        assert extents(root / "disk") == [(0, len(disk_bytes(*pieces)))]
        assert (root / "disk").read_bytes() == disk_bytes(*pieces)


def test_50_a_file_system_that_fills_holes(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As FAT does: a file that is made longer takes all of its space at once."""
    pieces = (0, 1, 0, 0, 2, 0)
    capture(store, tmp_path, "holes", *pieces)
    monkeypatch.setattr(os, "ftruncate", lambda fd, size: os.posix_fallocate(fd, 0, size))
    store.restore("holes", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == disk_bytes(*pieces)
