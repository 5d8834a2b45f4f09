"""The disk to capture: opened safely, its extents found, its bytes read, and any change while reading noticed; or, on
a file system with reflinks, kept out by reading a clone.

What a hole is, is taken from SEEK_DATA/SEEK_HOLE only on file systems that are known to tell the truth about them;
elsewhere (FUSE, network), on block devices and from pipes every byte is read, and all-zero blocks are the holes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from casstore import log
from casstore.errors import SourceError
from casstore.spec import MAX_DISK
from casstore.statfs import filesystem_name

Extent = tuple[int, int]
"""(offset, length) of allocated bytes."""

_BLKGETSIZE64: Final = 0x80081272  # linux/fs.h
_FICLONE: Final = 0x40049409  # linux/fs.h
_FIEMAP: Final = 0xC020660B  # FS_IOC_FIEMAP; the structs are those of linux/fiemap.h
_FIEMAP_HEAD: Final = struct.Struct("=QQIIII")  # start, length, flags, mapped extents, extent count, reserved
_FIEMAP_EXTENT: Final = struct.Struct("=QQQQQIIII")  # logical, physical, length, -, -, flags, -, -, -
_FIEMAP_LAST, _FIEMAP_UNWRITTEN = 0x1, 0x800
_FIEMAP_SYNC: Final = 0x1
_FIEMAP_BATCH: Final = 512
_TRUSTED_HOLES: Final = {  # file systems that implement SEEK_HOLE themselves, on local data
    *("ext4", "xfs", "btrfs", "tmpfs", "zfs", "f2fs", "bcachefs"),
    "overlay",  # has no data of its own, and passes SEEK_HOLE and FIEMAP on to the file system below
}
_REFLINKS: Final = {"xfs", "btrfs"}  # file systems whose FICLONE keeps what `clone_into` promises
_TICK: Final = 0.02  # seconds; twice the longest tick of the clock that ctimes are taken from
_SECOND: Final = 1_000_000_000  # ns
_EXT_MAGIC: Final = (1024 + 56, b"\x53\xef")
_QCOW_MAGIC: Final = b"QFI\xfb"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one state of a file from another; ctime cannot be set back by its owner. Bytes, and ns since 1970."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, fd: int) -> Self:
        """The stamp of an open file, as it is now."""
        info = os.fstat(fd)
        return cls(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


class DiskSource:
    """An open disk. `size` is in bytes, None for a pipe until it was read to its end."""

    def __init__(self, fd: int, subject: str, size: int | None, *, seekable: bool) -> None:
        self.subject: str = subject
        self.size: int | None = size
        self._fd, self._seekable = fd, seekable
        self._stamp = Stamp.of(fd) if seekable else None
        self._clone: int | None = None
        self._changed = False  # that the disk did since it was opened was seen; saves reads in vain
        self._head = b""
        self._piped = 0

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, block_device: bool = False, folder: int | None = None) -> Self:
        """Open a regular file (symlinks are followed, once) or, if asked for, a block device. With the descriptor of
        its `folder` the last part of `path` is opened in there, and must be no symlink.

        Raises:
            SourceError: missing, unreadable, or anything else: a directory, FIFO, socket or character device never
                blocks and is never read.
        """
        subject = f"disk {os.fspath(path)!r}"
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            fd = os.open(path, flags) if folder is None else _open_in(folder, path, flags)
        except (OSError, ValueError) as error:
            if folder is not None and getattr(error, "errno", None) == errno.ELOOP:
                raise SourceError(f"{subject}: expected a regular file, got a symlink") from error
            raise SourceError(f"{subject}: {getattr(error, 'strerror', None) or error}") from error
        try:
            source = cls(fd, subject, _size(fd, subject, block_device=block_device), seekable=True)
            _let_clock_tick(fd)
            return source
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def stream(cls, fd: int, *, subject: str = "disk from standard input") -> Self:
        """Read a disk from a pipe; `fd` is closed with the source."""
        return cls(fd, subject, None, seekable=False)

    @property
    def in_order(self) -> bool:
        """Whether it can be read once only, from front to back."""
        return not self._seekable

    def fileno(self) -> int:
        """The disk's descriptor."""
        return self._fd

    def close(self) -> None:
        """Close the disk, and drop its clone."""
        os.close(self._fd)
        if self._clone is not None:
            os.close(self._clone)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def clone_into(self, directory: str) -> bool:
        """Fix the disk's content as it is now, by a reflink of it; whether that could be done. From then on the disk
        may change, shrink or be removed while it is read, and `check_unchanged` has nothing to say.

        The clone is a file without a name in `directory`, which must be on the disk's own file system: it ends with its
        descriptor, however the process ends. Where there is no such clone nothing has changed.

        FICLONE is one point in time. The kernel locks the disk against write(2), truncation and new stores through
        mappings, writes its dirty pages out, and only then shares its extents. So of every write the clone has all or
        nothing, and it has all that returned before. What it does not have is what a program, or a guest's kernel,
        still keeps to itself: the clone is what a power cut would have left. Stores that several threads make through
        mappings while the call waits may be in the clone in another order than theirs.
        """
        if not self._seekable or self._clone is not None or filesystem_name(self._fd) not in _REFLINKS:
            log.debug("capture", "%s: no reflinks there; read where it is", self.subject)
            return False
        try:
            clone = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.info("capture", "%s: no reflink: %s; read where it is", self.subject, error.strerror)
            return False
        try:
            fcntl.ioctl(clone, _FICLONE, self._fd)
            self.size = _size(clone, self.subject, block_device=False)
        except OSError as error:  # another file system, swap space, a full disk ...
            log.info("capture", "%s: no reflink: %s; read where it is", self.subject, error.strerror)
            os.close(clone)
            return False
        except BaseException:
            os.close(clone)
            raise
        self._clone = clone
        return True

    def holes_are_known(self) -> bool:
        """Whether `extents` may be called; else read all bytes and look for zeros."""
        if not self._seekable or not stat.S_ISREG(os.fstat(self._fd).st_mode):
            return False
        try:
            os.lseek(self._fd, 0, os.SEEK_HOLE)
        except OSError as error:
            return error.errno == errno.ENXIO  # size 0
        return filesystem_name(self._fd) in _TRUSTED_HOLES

    def extents(self) -> Iterator[Extent]:
        """The allocated ranges, in order, never adjacent, clipped to the size."""
        fd, size, at = self._fixed(), self.size or 0, 0
        while at < size:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
                at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
            except OSError as error:
                if error.errno == errno.ENXIO:  # no more data; or truncated just now, which check_unchanged tells
                    return
                raise SourceError(f"{self.subject}: finding data: {error.strerror}") from error
            if start >= size or at <= start:
                return
            yield start, at - start

    def unwritten(self) -> list[Extent]:
        """The preallocated ranges that nothing was written to yet, as far as the file system tells (FIEMAP).

        SEEK_DATA takes them for holes until somebody reads them and for data from then on, because it looks at the page
        cache. ext4 and XFS also call a range unwritten while the kernel writes its first bytes from there to the disk.
        So where there is any the answer counts that they give once that is done: else the time of a capture would
        decide which written zeros are holes.
        """
        return self._unwritten(0) and self._unwritten(_FIEMAP_SYNC)

    def _unwritten(self, flags: int) -> list[Extent]:
        found: list[Extent] = []
        at, last = 0, False
        while not last:
            batch = bytearray(_FIEMAP_HEAD.size + _FIEMAP_BATCH * _FIEMAP_EXTENT.size)
            _FIEMAP_HEAD.pack_into(batch, 0, at, 2**64 - 1 - at, flags, 0, _FIEMAP_BATCH, 0)
            try:
                fcntl.ioctl(self._fixed(), _FIEMAP, batch)
            except OSError:
                return []  # no such call here: nothing is known
            count = _FIEMAP_HEAD.unpack_from(batch)[3]
            last = count == 0
            for n in range(count):
                fields = _FIEMAP_EXTENT.unpack_from(batch, _FIEMAP_HEAD.size + n * _FIEMAP_EXTENT.size)
                start, length, flags = fields[0], fields[2], fields[5]
                if flags & _FIEMAP_UNWRITTEN:
                    found.append((start, length))
                at, last = start + length, bool(flags & _FIEMAP_LAST)
        return found

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` with the disk's bytes from `offset`; returns how many there were (fewer at a pipe's end only).

        A pipe is read in order: `offset` must be where the last read ended. Anything else may be read by several
        threads.

        Raises:
            SourceError: an I/O error, or the disk is shorter than it was when it was opened.
        """
        filled = None if self._clone is None else self._fill_like_clone(buffer, offset)
        if filled is None:
            filled = self._fill(self._fixed(), buffer, offset)
        if self._seekable and filled < len(buffer):
            raise SourceError(
                f"{self.subject}: expected {self.size} bytes, got {offset + filled}: it was truncated while it was"
                " read; stop whatever writes to it and capture again"
            )
        return filled

    def _fill_like_clone(self, buffer: memoryview, offset: int) -> int | None:
        """Fill `buffer` from the disk itself, whose bytes may be in the page cache, as the clone's are not; None when
        it has changed since it was opened.

        The kernel moves ctime before it changes a byte (`open` saw to it that the clock has ticked), a mapped one too:
        making the clone left no dirty page behind.
        """
        if self._changed:
            return None
        filled = self._fill(self._fd, buffer, offset)
        if Stamp.of(self._fd) == self._stamp:
            return filled
        self._changed = True
        return None

    def _fill(self, fd: int, buffer: memoryview, offset: int) -> int:
        filled = 0
        while filled < len(buffer):
            try:
                if self._seekable:
                    count = os.preadv(fd, [buffer[filled:]], offset + filled)
                else:
                    count = self._read_pipe(buffer[filled:])
            except OSError as error:
                raise SourceError(f"{self.subject}: reading at byte {offset + filled}: {error.strerror}") from error
            if count == 0:
                break
            filled += count
        return filled

    def _fixed(self) -> int:
        """The descriptor of the clone, if there is one, else of the disk."""
        return self._fd if self._clone is None else self._clone

    def _read_pipe(self, buffer: memoryview) -> int:
        if self._head:
            count = min(len(self._head), len(buffer))
            buffer[:count] = self._head[:count]
            self._head = self._head[count:]
        else:
            count = os.readv(self._fd, [buffer])
        self._piped += count
        return count

    def head(self, length: int = 4096) -> bytes:
        """The first bytes, without consuming them: at most `length`, fewer when the disk is shorter.

        Raises:
            SourceError: an I/O error.
        """
        try:
            if self._seekable:
                return os.pread(self._fixed(), length, 0)
            while len(self._head) < length and self._piped == 0:
                part = os.read(self._fd, length - len(self._head))
                if not part:
                    break
                self._head += part
        except OSError as error:
            raise SourceError(f"{self.subject}: reading its first bytes: {error.strerror}") from error
        return self._head

    def check_unchanged(self) -> None:
        """Raise SourceError if the disk changed since it was opened: size, mtime or ctime, or is another file now."""
        if self._stamp is None or self._clone is not None:
            return
        now = Stamp.of(self._fd)
        if now != self._stamp:
            what = "size" if now.size != self._stamp.size else "content or attributes"
            raise SourceError(
                f"{self.subject}: its {what} changed while it was read: expected {self._stamp.size} bytes of"
                f" {self._stamp.mtime_ns} ns, got {now.size} bytes of {now.mtime_ns} ns; stop whatever writes to it"
                " and capture again"
            )


def _open_in(folder: int, path: str | os.PathLike[str], flags: int) -> int:
    return os.open(os.path.basename(path), flags | os.O_NOFOLLOW, dir_fd=folder)


def _let_clock_tick(fd: int) -> None:
    """Wait until a change of the file would get another ctime than the last one, if that was just now.

    Before Linux 6.13 the clock for ctimes ticks every 1 to 10 ms, and two changes within a tick look like one. ext3,
    ext4 with inodes of 128 bytes, and some others keep whole seconds.
    """
    changed = os.fstat(fd).st_ctime_ns
    tick = _TICK if changed % _SECOND else 1 + _TICK
    age = (time.time_ns() - changed) / _SECOND
    if abs(age) < tick:
        time.sleep(tick - max(age, 0))


def _size(fd: int, subject: str, *, block_device: bool) -> int:
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        size = os.fstat(fd).st_size
    elif stat.S_ISBLK(mode):
        if not block_device:
            raise SourceError(f"{subject}: expected a regular file, got a block device; ask for it with --block-device")
        size = struct.unpack("Q", fcntl.ioctl(fd, _BLKGETSIZE64, b"\0" * 8))[0]
    else:
        kinds = {
            stat.S_IFDIR: "directory",
            stat.S_IFIFO: "FIFO",
            stat.S_IFSOCK: "socket",
            stat.S_IFCHR: "character device",
        }
        got = kinds.get(stat.S_IFMT(mode), "special file")
        raise SourceError(
            f"{subject}: expected a regular file, got a {got}; give the disk image itself, or - for a pipe"
        )
    if size > MAX_DISK:
        raise SourceError(f"{subject}: expected at most {MAX_DISK} bytes, got {size}")
    return size


def filesystem_type(head: bytes) -> str:
    """The seed's `fstype` by superblock magic, from a disk's first 4 KiB: "ext4" (for ext2 to ext4) or "unknown"."""
    at, magic = _EXT_MAGIC
    if head[at : at + 2] == magic:
        return "ext4"
    return {b"XFSB": "xfs"}.get(head[:4], "unknown")


def is_qcow2(head: bytes) -> bool:
    """Whether a disk's first bytes are those of a QEMU copy-on-write image."""
    return head[:4] == _QCOW_MAGIC
