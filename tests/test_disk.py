"""The disk to capture: what is opened, what is read, and that a change meanwhile is noticed. Rows 40 to 48."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import random
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore import disk, scan
from casstore.artifact import Artifact
from casstore.binding import Created
from casstore.capture import CaptureOptions
from casstore.create import Description, build
from casstore.disk import DiskSource, filesystem_type, is_qcow2
from casstore.errors import SourceError
from casstore.progress import Meter, silent
from casstore.restore import restore_stream
from casstore.scan import Scan
from casstore.spec import BLOCK, KIB, MIB
from tests.support.artifacts import MemoryBlobs
from tests.support.disks import extents, file_system, loop_mounted, make_ext4, overlay, random_sparse_file, tmpfs
from tests.support.effort import at_most
from tests.support.held import held

METER = Meter(silent, "test", None)


def capture(source: DiskSource, blobs: MemoryBlobs) -> Created:
    return build(source, blobs, Description(), options=CaptureOptions(workers=2), clock=lambda: 0)


def content(blobs: MemoryBlobs, made: Created) -> bytes:
    artifact, out = Artifact.load(blobs, made.root), bytearray()
    restore_stream(artifact, artifact.map.disks[0], out.extend, workers=2, meter=METER)
    return bytes(out)


def scanned(source: DiskSource) -> tuple[list[tuple[int, int]], int]:
    """Read a whole disk; its extents and size."""
    with ThreadPoolExecutor(2) as pool:
        it: Scan[object] = Scan(source, METER, pool, ahead=3)
        for _ in it.windows():
            pass
    return it.extents, it.size


@pytest.fixture
def path(tmp_path: Path) -> Path:
    random_sparse_file(tmp_path / "disk", seed=1, size=6 * MIB)
    return tmp_path / "disk"


# --- changed while it is read ----------------------------------------------------------------------------------------


def overwrite(path: Path, offset: int = 5000) -> None:
    with path.open("r+b") as out:
        out.seek(offset)
        out.write(b"changed")


def overwrite_and_forge(path: Path) -> None:
    """Ctime is what gives this away."""
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def grow_and_shrink(path: Path) -> None:
    size = path.stat().st_size
    os.truncate(path, size + BLOCK)
    os.truncate(path, size)


def write_through_mapping(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[extents(path)[0][0]] ^= 1


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "row 40, content": (overwrite, "content or attributes changed while it was read"),
    "row 40, content, mtime set back": (overwrite_and_forge, "content or attributes changed while it was read"),
    "row 40, through a mapping": (write_through_mapping, "content or attributes changed while it was read"),
    "row 40, same size at the end": (grow_and_shrink, "changed while it was read"),
    "row 40, hole punched": (
        lambda path: subprocess.run(["fallocate", "-p", "-o", "0", "-l", "4096", path], check=True),
        "content or attributes changed while it was read",
    ),
    "row 42, grows": (lambda path: os.truncate(path, path.stat().st_size + 1), "size changed while it was read"),
    "row 41, shrinks by a byte": (lambda path: os.truncate(path, path.stat().st_size - 1), "while it was"),
    "row 41, shrinks to nothing": (lambda path: os.truncate(path, 0), "while it was"),
}


@pytest.mark.parametrize("when", ["after opening", "while reading", "after reading"])
@pytest.mark.parametrize("case", CHANGES)
def test_change_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch, case: str, when: str) -> None:
    change, match = CHANGES[case]
    real = DiskSource.read_into
    once = threading.Lock()  # several threads read

    def read_into(self: DiskSource, buffer: memoryview, offset: int) -> int:
        if when == "while reading" and once.acquire(blocking=False):
            change(path)
        return real(self, buffer, offset)

    monkeypatch.setattr(DiskSource, "read_into", read_into)
    with DiskSource.open(path) as source:
        if when == "after opening":
            change(path)
        if when == "after reading":
            scanned(source)
            change(path)
            with pytest.raises(SourceError, match=match):
                source.check_unchanged()
            return
        with pytest.raises(SourceError, match=match):
            capture(source, MemoryBlobs())


def test_unchanged_disk_is_unchanged(path: Path) -> None:
    with DiskSource.open(path) as source:
        path.read_bytes()
        os.stat(path)
        scanned(source)
        source.check_unchanged()


def test_file_replaced_by_another_name_is_none_of_ours(path: Path) -> None:
    """The descriptor is what is read: another file under the name changes nothing."""
    whole, blobs = path.read_bytes(), MemoryBlobs()
    with DiskSource.open(path) as source:
        other = path.with_name("other")
        other.write_bytes(b"other")
        os.link(path, path.with_name("kept"))
        time.sleep(0.001)
        os.rename(other, path)
        with pytest.raises(SourceError, match="content or attributes"):
            source.check_unchanged()  # the link count is an attribute: a change too many is better than one too few
    with DiskSource.open(path.with_name("kept")) as source:
        assert content(blobs, capture(source, blobs)) == whole


def test_reading_starts_when_the_clock_has_ticked(path: Path) -> None:
    """Two changes within a tick of the kernel's clock get the same ctime."""
    path.write_bytes(b"just now")
    with DiskSource.open(path):
        assert time.time() - path.stat().st_ctime >= disk._TICK


@pytest.mark.needs("loop", "mkfs.ext4")
def test_change_within_the_second_is_noticed(tmp_path: Path) -> None:
    """Small inodes have no room for a part of a second."""
    with file_system(tmp_path, "ext4", "-I", "128") as root:
        path = root / "disk"
        path.write_bytes(b"just now")
        assert path.stat().st_ctime_ns % 10**9 == 0
        with DiskSource.open(path) as source:
            overwrite(path, 0)
            with pytest.raises(SourceError, match="content or attributes"):
                source.check_unchanged()


def test_old_file_is_opened_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time.sleep(disk._TICK)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    DiskSource.open(path).close()
    assert waits == []
    monkeypatch.setattr(time, "time_ns", lambda: path.stat().st_ctime_ns)
    DiskSource.open(path).close()
    assert waits != []


def test_truncated_while_extents_are_looked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.lseek

    def lseek(fd: int, offset: int, whence: int) -> int:
        if whence == os.SEEK_HOLE and offset:
            os.truncate(path, 0)
        return real(fd, offset, whence)

    with DiskSource.open(path) as source:
        monkeypatch.setattr(os, "lseek", lseek)
        with pytest.raises(SourceError, match="truncated while"):
            scanned(source)


def test_error_while_extents_are_looked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lseek(fd: int, offset: int, whence: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with DiskSource.open(path) as source:
        monkeypatch.setattr(os, "lseek", lseek)
        with pytest.raises(SourceError, match="finding data: Input/output error"):
            list(source.extents())


def test_error_while_reading(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(fd: int, buffers: object, offset: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with DiskSource.open(path) as source:
        monkeypatch.setattr(os, "preadv", preadv)
        with pytest.raises(SourceError, match="reading at byte 4096: Input/output error"):
            source.read_into(memoryview(bytearray(10)), 4096)


def test_short_reads_are_completed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, blobs, whole = os.preadv, MemoryBlobs(), path.read_bytes()
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: real(fd, [buffers[0][:70_001]], offset))
    with DiskSource.open(path) as source:
        assert content(blobs, capture(source, blobs)) == whole


# --- what is no disk -------------------------------------------------------------------------------------------------


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def make_link_to_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("fifo"))
    path.symlink_to("fifo")


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "directory": (lambda path: path.mkdir(), "got a directory"),
    "FIFO without a writer": (os.mkfifo, "got a FIFO"),
    "socket": (make_socket, "disk '.*'"),
    "symlink to /dev/zero": (lambda path: path.symlink_to("/dev/zero"), "got a character device"),
    "symlink to a FIFO": (make_link_to_fifo, "got a FIFO"),
    "dangling symlink": (lambda path: path.symlink_to("nowhere"), "No such file"),
    "symlink to itself": (lambda path: path.symlink_to(path), "Too many levels"),
    "nothing": (lambda path: None, "No such file"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_row_43_refused_at_once(tmp_path: Path, case: str) -> None:
    make, match = OTHERS[case]
    make(tmp_path / "disk")
    for block_device in (False, True):
        with pytest.raises(SourceError, match=match):
            DiskSource.open(tmp_path / "disk", block_device=block_device)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/urandom", "/dev/tty"])
def test_row_43_character_devices(device: str) -> None:
    with pytest.raises(SourceError, match=r"character device|No such"):
        DiskSource.open(device)


def test_row_43_name_with_a_nul() -> None:
    with pytest.raises(SourceError, match="null byte"):
        DiskSource.open("disk\0")


def test_row_43_nothing_stays_open(tmp_path: Path) -> None:
    before = held()
    for _ in range(5):
        with pytest.raises(SourceError):
            DiskSource.open(tmp_path)
    assert held() == before


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SourceError, match="Permission denied"):
        DiskSource.open(tmp_path / "disk")


def test_row_44_symlink_is_followed_once(path: Path) -> None:
    link, whole, blobs = path.with_name("link"), path.read_bytes(), MemoryBlobs()
    link.symlink_to(path)
    with DiskSource.open(link) as source:
        link.unlink()
        link.symlink_to("/dev/zero")
        assert content(blobs, capture(source, blobs)) == whole


@pytest.mark.parametrize("name", [b"new\nline", b"\xff\xfe", b"\x1b[31m", "ä\u202e".encode()])
def test_row_48_odd_names(tmp_path: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as out:
        out.write(b"content")
    with DiskSource.open(os.fsdecode(path)) as source:
        assert source.size == 7
        assert source.subject.isprintable()


@pytest.mark.needs("loop", "losetup")
def test_row_45_block_device(tmp_path: Path) -> None:
    """Its st_size is 0; its holes are not known, and blocks of zeros become holes."""
    path = tmp_path / "disk"
    random_sparse_file(path, seed=2, size=4 * MIB)
    os.truncate(path, 4 * MIB + 3 * 512)
    done = subprocess.run(["losetup", "--show", "-f", str(path)], capture_output=True, text=True, check=True)
    device = done.stdout.strip()
    try:
        with pytest.raises(SourceError, match=r"got a block device; ask for it"):
            DiskSource.open(device)
        blobs = MemoryBlobs()
        with DiskSource.open(device, block_device=True) as source:
            assert source.size == 4 * MIB + 3 * 512
            assert not source.holes_are_known()
            made = capture(source, blobs)
        assert content(blobs, made) == path.read_bytes()
        disk_map = Artifact.load(blobs, made.root).map.disks[0]
        assert disk_map.allocated < 4 * MIB
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


# --- holes -----------------------------------------------------------------------------------------------------------


def capture_twice(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Artifact, Artifact, bytes]:
    """Capture a file with its holes known, and without; both give the same bytes."""
    artifacts = []
    for known in (True, False):
        blobs = MemoryBlobs()
        if not known:
            monkeypatch.setattr(disk, "filesystem_name", lambda fd: "fuse")
        with DiskSource.open(path) as source:
            assert source.holes_are_known() is known
            made = capture(source, blobs)
            assert content(blobs, made) == path.read_bytes()
        artifacts.append(Artifact.load(blobs, made.root))
    return artifacts[0], artifacts[1], path.read_bytes()


def test_row_46_holes_of_a_file_system_that_is_not_known(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte is read then. Allocated zeros count as holes: that is the only difference."""
    known, unknown, whole = capture_twice(path, monkeypatch)
    zeros = bytes(BLOCK)
    blocks = [n for n in range(len(whole) // BLOCK) if whole[n * BLOCK : (n + 1) * BLOCK] != zeros]
    assert unknown.map.disks[0].allocated == len(blocks) * BLOCK
    assert known.map.disks[0].allocated >= unknown.map.disks[0].allocated
    assert [tuple(extent) for extent in known.map.disks[0].extents.tolist()] == extents(path)


@pytest.mark.parametrize("lie", ["all is a hole", "all is data", "not supported"])
def test_row_46_lies_about_holes_do_not_matter(path: Path, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    real, whole, blobs = os.lseek, path.read_bytes(), MemoryBlobs()

    def lseek(fd: int, offset: int, whence: int) -> int:
        if whence in {os.SEEK_DATA, os.SEEK_HOLE}:
            if lie == "not supported":
                raise OSError(errno.EINVAL, "Invalid argument")
            if lie == "all is a hole" and whence == os.SEEK_DATA:
                raise OSError(errno.ENXIO, "No such device or address")
            return offset if (whence == os.SEEK_DATA) is (lie == "all is data") else len(whole)
        return real(fd, offset, whence)

    monkeypatch.setattr(os, "lseek", lseek)
    monkeypatch.setattr(disk, "filesystem_name", lambda fd: "nfs")
    with DiskSource.open(path) as source:
        assert content(blobs, capture(source, blobs)) == whole


def test_row_46_no_seek_hole_on_a_known_file_system(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, whole, blobs = os.lseek, path.read_bytes(), MemoryBlobs()

    def lseek(fd: int, offset: int, whence: int) -> int:
        if whence in {os.SEEK_DATA, os.SEEK_HOLE}:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, offset, whence)

    monkeypatch.setattr(os, "lseek", lseek)
    with DiskSource.open(path) as source:
        assert not source.holes_are_known()
        assert content(blobs, capture(source, blobs)) == whole


def test_file_system_that_cannot_be_found_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        @staticmethod
        def fstatfs(fd: int, buffer: object) -> int:
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    with DiskSource.open(path) as source:
        assert not source.holes_are_known()


@pytest.mark.needs("loop")
def test_file_systems_by_their_magic(tmp_path: Path) -> None:
    """Proc is none whose holes are believed; tmpfs is."""
    with DiskSource.open("/proc/version") as source:
        assert not source.holes_are_known()
    with tmpfs(tmp_path) as root:
        (root / "disk").write_bytes(b"x")
        with DiskSource.open(root / "disk") as source:
            assert source.holes_are_known()


@pytest.mark.needs("loop")
def test_row_47_sparse_disk_of_8_eib(tmp_path: Path) -> None:
    """Holes cost nothing: only the data is read, whatever the size."""
    with tmpfs(tmp_path) as root:
        path, blobs = root / "disk", MemoryBlobs()
        size = 2**63 - BLOCK  # of the page after it, tmpfs tells its holes with a negative number
        noise = random.Random(3).randbytes(10_000)
        with path.open("wb") as out:
            os.truncate(out.fileno(), size)
            for offset in (0, 2**62 + 4096, size - 10_000):
                os.pwrite(out.fileno(), noise, offset)
        with DiskSource.open(path) as source, at_most(100):
            made = capture(source, blobs)
        disk_map = Artifact.load(blobs, made.root).map.disks[0]
        assert disk_map.size == size
        assert [tuple(extent) for extent in disk_map.extents.tolist()] == extents(path)
        assert made.stats.chunks == 3


@pytest.mark.needs("fallocate")
@pytest.mark.parametrize("read_before", [True, False])
def test_preallocated_space_is_a_hole(tmp_path: Path, *, read_before: bool) -> None:
    """SEEK_DATA takes what was never written for data as soon as somebody has read it."""
    path, blobs = tmp_path / "disk", MemoryBlobs()
    path.write_bytes(b"x" * BLOCK)
    subprocess.run(["fallocate", "-l", str(4 * MIB), str(path)], check=True)
    with path.open("r+b") as out:
        out.seek(2 * MIB)
        out.write(b"y" * BLOCK)
    if read_before:
        path.read_bytes()
    with DiskSource.open(path) as source:
        made = capture(source, blobs)
    assert content(blobs, made) == path.read_bytes()
    extents_found = Artifact.load(blobs, made.root).map.disks[0].extents.tolist()
    assert extents_found == [[0, BLOCK], [2 * MIB, BLOCK]]


def test_written_zeros_are_no_holes_while_they_go_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ext4 and XFS call new bytes preallocated until they are there, to everyone who does not ask them to wait."""
    path, blobs, roots = tmp_path / "disk", MemoryBlobs(), []
    path.write_bytes(b"x" * BLOCK + bytes(MIB) + b"y" * BLOCK)
    size = path.stat().st_size
    real = fcntl.ioctl

    def ioctl(fd: int, request: int, argument: bytearray) -> int:
        _, _, flags, _, _, _ = struct.unpack_from("=QQIIII", argument)
        if request != disk._FIEMAP or flags & 1:  # FIEMAP_FLAG_SYNC
            return int(real(fd, request, argument))
        struct.pack_into("=I", argument, 20, 1)
        struct.pack_into("=QQQQQI", argument, 32, 0, 0, size, 0, 0, 0x801)  # FIEMAP_EXTENT_UNWRITTEN and _LAST
        return 0

    for goes_on in (False, True):
        if goes_on:
            monkeypatch.setattr(fcntl, "ioctl", ioctl)
        with DiskSource.open(path) as source:
            made = capture(source, blobs)
        assert Artifact.load(blobs, made.root).map.disks[0].extents.tolist() == [[0, size]]
        roots.append(made.root)
    assert roots[0] == roots[1]


@pytest.mark.needs("loop", "mke2fs", "fallocate")
@pytest.mark.parametrize("layer", ["lower", "upper"])
def test_holes_of_an_overlay_are_those_below(tmp_path: Path, layer: str) -> None:
    """Containers keep their files in one: without its word on holes every byte of a sparse disk would be read."""
    (tmp_path / "empty").mkdir()
    make_ext4(tmp_path / "image", 32 * MIB, tmp_path / "empty")
    with loop_mounted(tmp_path / "image") as root:
        below, captured = root / layer / "disk", []
        below.parent.mkdir()
        random_sparse_file(below, seed=9, size=4 * MIB)
        subprocess.run(["fallocate", "-o", str(5 * MIB), "-l", str(MIB), str(below)], check=True)
        os.sync()
        with overlay(root) as merged:
            path = merged / "disk"
            path.read_bytes()  # from now on SEEK_DATA takes the preallocated space for data
            for each in (below, path):
                blobs = MemoryBlobs()
                with DiskSource.open(each) as source:
                    assert source.holes_are_known()
                    assert [start for start, _ in source.unwritten()] == [5 * MIB]
                    made = capture(source, blobs)
                assert content(blobs, made) == path.read_bytes()
                captured.append(made.root)
            disk_map = Artifact.load(blobs, made.root).map.disks[0]
            assert disk_map.extents.tolist() == [list(extent) for extent in extents(below) if extent[0] < 5 * MIB]
            assert disk_map.allocated < 4 * MIB
    assert captured[0] == captured[1]


@pytest.mark.needs("loop")
@pytest.mark.parametrize("layer", ["lower", "upper"])
def test_row_40_change_of_a_file_on_an_overlay_is_noticed(tmp_path: Path, layer: str) -> None:
    """The first write to a file of the lower layer makes it another file below, in the upper one."""
    with tmpfs(tmp_path) as root:
        (root / layer).mkdir()
        random_sparse_file(root / layer / "disk", seed=9, size=MIB)
        with overlay(root) as merged, DiskSource.open(merged / "disk") as source:
            scanned(source)
            overwrite(merged / "disk")
            with pytest.raises(SourceError, match="content or attributes changed"):
                source.check_unchanged()


class Fragmented(DiskSource):
    """A disk in memory, of which is told what is data and what was preallocated."""

    def __init__(self, content: bytes, data: list[disk.Extent], preallocated: list[disk.Extent]) -> None:
        fd = os.memfd_create("disk")
        os.truncate(fd, len(content))
        os.pwrite(fd, content, 0)
        super().__init__(fd, "disk", len(content), seekable=True)
        self._data, self._preallocated = data, preallocated

    def holes_are_known(self) -> bool:
        return True

    def extents(self) -> Iterator[disk.Extent]:
        return iter(self._data)

    def unwritten(self) -> list[disk.Extent]:
        return self._preallocated


@pytest.mark.parametrize("step", [8 * KIB, 64 * KIB])
def test_many_preallocated_ranges_do_not_cost_their_square(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A window is compared with the ranges in it, not with all of the disk. In the second case each has a window."""
    count, steps = 2000, 0
    ranges = [(n * step, BLOCK) for n in range(count)]
    written = [(n * step, BLOCK) for n in range(0, count, 3)]
    content = bytearray(count * step)
    for offset, length in written:
        content[offset : offset + length] = b"x" * length
    real = scan.intersect

    def intersect(some: list[disk.Extent], others: list[disk.Extent]) -> list[disk.Extent]:
        nonlocal steps
        steps += len(some) + len(others)
        return real(some, others)

    monkeypatch.setattr(scan, "intersect", intersect)
    with Fragmented(bytes(content), ranges, ranges) as source:
        assert scanned(source) == (written, count * step)
    assert 5 * count < steps < 10 * count


@given(
    data=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 60)), max_size=6),
    preallocated=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 40)), max_size=12),
    zeros=st.sets(st.integers(0, 80)),
)
def test_preallocated_ranges_anywhere(
    data: list[tuple[int, int]], preallocated: list[tuple[int, int]], zeros: set[int]
) -> None:
    """Against a slow and plain way to say it, sector by sector, with windows that cut every range."""
    sector = 512

    def placed(gaps: list[tuple[int, int]]) -> list[disk.Extent]:
        ends = list(accumulate(gap + length for gap, length in gaps))
        return [(end - length, length) for end, (_, length) in zip(ends, gaps, strict=True)]

    found, doubtful = placed(data), placed(preallocated)
    size = sum(found[-1]) if found else 0
    content = bytearray(b"x" * (size * sector))
    for n in zeros:
        content[n * BLOCK : (n + 1) * BLOCK] = bytes(len(content[n * BLOCK : (n + 1) * BLOCK]))
    in_data = {n for start, length in found for n in range(start, start + length)}
    for n in range(size):
        if n not in in_data:
            content[n * sector : (n + 1) * sector] = bytes(sector)
    in_doubt = {n for start, length in doubtful for n in range(start, start + length)}
    blocks = {n for n in range(size) if any(content[n * sector // BLOCK * BLOCK : (n * sector // BLOCK + 1) * BLOCK])}
    wanted = in_data - (in_doubt - blocks)
    extents = [[(start * sector, length * sector) for start, length in each] for each in (found, doubtful)]
    with mock.patch.object(scan, "WINDOW", 3 * BLOCK), Fragmented(bytes(content), *extents) as source:
        got, _ = scanned(source)
    assert [n for start, length in got for n in range(start // sector, (start + length) // sector)] == sorted(wanted)
    assert got == scan.merge(got)


@pytest.mark.needs("loop", "mke2fs")
def test_extents_of_1_kib_blocks(tmp_path: Path) -> None:
    """On ext4 with small blocks extents begin and end inside of ours."""
    image, blobs = tmp_path / "image", MemoryBlobs()
    with image.open("wb") as out:
        out.truncate(16 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", str(image)], check=True, env=_tools())
    with loop_mounted(image) as root:
        path = root / "disk"
        with path.open("wb") as out:
            for offset in (1024, 3 * 1024, 9 * 1024, 300 * 1024):
                out.seek(offset)
                out.write(b"z" * 1024)
            out.truncate(400 * 1024 + 100)
        os.sync()
        found = extents(path)
        assert found == [(n * KIB, KIB) for n in (1, 3, 9, 300)]
        with DiskSource.open(path) as source:
            made = capture(source, blobs)
        assert Artifact.load(blobs, made.root).map.disks[0].extents.tolist() == [list(extent) for extent in found]
        assert content(blobs, made) == path.read_bytes()


def _tools() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


# --- pipes -----------------------------------------------------------------------------------------------------------


@contextmanager
def piped(pieces: Iterator[bytes]) -> Iterator[DiskSource]:
    """A pipe into which another thread writes."""
    read_end, write_end = os.pipe()

    def write() -> None:
        with open(write_end, "wb", buffering=0) as out:
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[out.write(view) :]

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with DiskSource.stream(read_end) as source:
            yield source
    finally:
        writer.join()


def slowly(data: bytes, size: int, pause: float) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        time.sleep(pause)
        yield data[start : start + size]


def sliced(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def check_pipe(pieces: Iterator[bytes], whole: bytes) -> Artifact:
    blobs = MemoryBlobs()
    with piped(pieces) as source:
        assert source.size is None
        assert not source.holes_are_known()
        made = capture(source, blobs)
    assert content(blobs, made) == whole
    return Artifact.load(blobs, made.root)


def test_pipe_gives_the_same_chunks_as_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, unknown, whole = capture_twice(path, monkeypatch)
    assert check_pipe(iter([whole]), whole).digest == unknown.digest


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 65_536, 1_000_003])
def test_pipe_of_writes_of_any_size(path: Path, size: int) -> None:
    whole = path.read_bytes()[: 60_000 if size == 1 else None]
    check_pipe(sliced(whole, size), whole)


def test_pipe_of_a_slow_writer() -> None:
    whole = random.Random(5).randbytes(30_000)
    check_pipe(slowly(whole, 1000, 0.005), whole)


def test_a_pipe_without_a_byte_is_refused() -> None:
    """What stands before the pipe has most likely failed."""
    with pytest.raises(SourceError, match="got nothing"):
        check_pipe(iter([b""]), b"")


@pytest.mark.parametrize("size", [1, 4095, 4096, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 8 * MIB])
def test_pipe_of_any_length(size: int) -> None:
    """Four MiB is what is read at a time: a pipe may end just there."""
    whole = random.Random(size).randbytes(size)
    artifact = check_pipe(iter([whole]), whole)
    assert artifact.map.disks[0].size == size
    assert artifact.map.disks[0].extents.tolist() == [[0, size]]


def test_pipe_that_ends_in_zeros() -> None:
    whole = b"x" * 100 + bytes(9 * MIB + 5)
    artifact = check_pipe(iter([whole]), whole)
    assert artifact.map.disks[0].extents.tolist() == [[0, BLOCK]]


@pytest.mark.parametrize("size", [0, 1, 100, 4095, 4096, 4097, 10_000])
def test_head_of_a_pipe_is_not_lost(size: int) -> None:
    whole = random.Random(size).randbytes(size)
    with piped(slowly(whole, 777, 0.001)) as source:
        assert source.head() == whole[:4096]
        assert source.head(10) in {whole[:10], whole[:4096]}
        got = bytearray(size + 5)
        first = source.read_into(memoryview(got)[:100], 0)
        assert first == min(size, 100)
        assert source.read_into(memoryview(got)[first:], first) == size - first
        assert got == whole + bytes(5)
        assert source.read_into(memoryview(bytearray(1)), size) == 0


def test_head_of_a_file(path: Path) -> None:
    with DiskSource.open(path) as source:
        assert source.head() == path.read_bytes()[:4096]
        assert source.head(10) == path.read_bytes()[:10]


def test_pipe_that_does_not_block_has_no_data_yet() -> None:
    """Whoever gave us its descriptor may have set O_NONBLOCK: an error of ours, not a BlockingIOError."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    with DiskSource.stream(read_end) as source:
        with pytest.raises(SourceError, match="reading its first bytes"):
            source.head()
        with pytest.raises(SourceError, match="reading at byte 0"):
            source.read_into(memoryview(bytearray(10)), 0)
    os.close(write_end)


def test_directory_as_standard_input(tmp_path: Path) -> None:
    with DiskSource.stream(os.open(tmp_path, os.O_RDONLY)) as source, pytest.raises(SourceError, match="directory"):
        source.head()


def test_file_as_standard_input(path: Path) -> None:
    blobs = MemoryBlobs()
    with DiskSource.stream(os.open(path, os.O_RDONLY)) as source:
        assert content(blobs, capture(source, blobs)) == path.read_bytes()


# --- what it is ------------------------------------------------------------------------------------------------------


def test_types_by_magic() -> None:
    ext4 = bytearray(4096)
    ext4[1080:1082] = b"\x53\xef"
    assert filesystem_type(bytes(ext4)) == "ext4"
    assert filesystem_type(bytes(ext4[:1082])) == "ext4"
    assert filesystem_type(bytes(ext4[:1081])) == "unknown"
    assert filesystem_type(b"XFSB") == "xfs"
    assert filesystem_type(b"") == filesystem_type(bytes(4096)) == "unknown"
    assert is_qcow2(b"QFI\xfb\0")
    assert not is_qcow2(b"QFI")


def test_descriptor_is_not_inherited(path: Path) -> None:
    with DiskSource.open(path) as source:
        assert fcntl.fcntl(source._fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
