"""What was captured from where: a record per source path, in the store's cache/sources/.

    cache/sources/<sha256 of the real path>     a JSON object: the path, what the source looked like, and the artifact

A record is a hint, and may be deleted at any time. It names the newest snapshot of a source, which is the likeliest to
share chunks with the next one; and it lets a capture that was told to trust a file's times do without reading it.
Whatever is odd about a record or its place counts as no record, and one that cannot be written is done without.

When a file's times can be trusted. The kernel moves ctime with every write(2), and no program can set it back; but not
with every change of a file that is mapped: a store into a page that is dirty already leaves it alone, on tmpfs any
store does. So both captures must see the file *at rest*: a lease says that nobody has it open, or mapped, for writing.
Who comes later has to open it, and the first change moves ctime. A ctime shortly before the capture may cover a change
after it (clocks tick slowly, and old file systems count in seconds): it must be `SETTLED_NS` older. A power cut may
take back what was read from the page cache but was not on the disk: a record holds until the machine starts again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import stat
import time
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple, Self

from casstore import durable
from casstore.blobs import is_plain_directory
from casstore.digest import Digest
from casstore.disk import DiskSource, Stamp
from casstore.durable import Durability
from casstore.errors import CasstoreError
from casstore.jsondoc import dump, load_object
from casstore.stamps import boot_id
from casstore.statfs import filesystem_name

SETTLED_NS: Final = 2_000_000_000
MOST_RECORDS: Final = 10_000
_MAX_RECORD: Final = 64 * 1024  # PATH_MAX is 4 KiB, each byte of which JSON may spell with six
_VERSION: Final = 1
_BLOCK_DEVICES: Final = "/sys/block"
_TIMES_OF_MAPPINGS: Final = {"ext4", "xfs", "btrfs"}
"""File systems on which a mapping's first store moves ctime."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a source looked like when a capture was about to read it."""

    path: str
    """Absolute, without symlinks."""
    stamp: Stamp
    started_ns: int
    """CLOCK_REALTIME."""
    at_rest: bool
    """Nobody could write to it, on a file system whose times tell of every change from then on."""
    boot: str
    """Which run of the machine it was; empty where that is not known."""

    @classmethod
    def of(cls, source: DiskSource, path: str | os.PathLike[str]) -> Self | None:
        """Look at an open disk, before its first byte is read; None where its path cannot be found out."""
        started = time.time_ns()
        fd = source.fileno()
        at_rest = _is_at_rest(fd)
        # The stamp last: what was written before the file came to rest is in it.
        try:
            return cls(os.path.realpath(path), Stamp.of(fd), started, at_rest, boot_id() or "")
        except (OSError, ValueError):
            return None

    def same_content_as(self, before: Sighting) -> bool:
        """Whether the file has the bytes that a capture read which began with the sighting `before`."""
        return (
            self.at_rest
            and before.at_rest
            and self.boot == before.boot != ""
            and self.stamp == before.stamp
            and before.stamp.ctime_ns + SETTLED_NS <= before.started_ns
        )


class SourceRecord(NamedTuple):
    """A source, and the newest snapshot that was captured from it."""

    seen: Sighting
    artifact: Digest


class Sources:
    """The records in a store's directory `cache`."""

    def __init__(self, cache: str) -> None:
        self._cache = cache
        self._folder = os.path.join(cache, "sources")

    def last(self, path: str | os.PathLike[str]) -> SourceRecord | None:
        """The record of the source at `path`, if there is one that can be used. Never raises for what it finds there.

        What it says of the artifact is not checked: the store may not have it any more.
        """
        with contextlib.suppress(OSError, ValueError, CasstoreError):
            real = os.path.realpath(path)
            if self._is_plain():
                record = _parse(_read(self._file(real)))
                if record.seen.path == real:
                    return record
        return None

    def remember(self, record: SourceRecord) -> None:
        """Write a record in place of the source's last one. Where that cannot be done nothing happens."""
        with contextlib.suppress(OSError, ValueError, CasstoreError):
            data = _to_bytes(record)
            durable.make_part(self._cache)
            if is_plain_directory(self._cache):
                durable.make_part(self._folder, mode=0o700)  # where disks lie is not for all readers of a store
            if self._is_plain():
                durable.replace_file(self._file(record.seen.path), data, mode=0o600, durability=Durability.NONE)
                self._prune()

    def _is_plain(self) -> bool:
        """Whether both directories are; raises CorruptContent for a symlink, which may lead anywhere."""
        return is_plain_directory(self._cache) and is_plain_directory(self._folder)

    def _file(self, real_path: str) -> str:
        return os.path.join(self._folder, hashlib.sha256(os.fsencode(real_path)).hexdigest())

    def _prune(self) -> None:
        """Keep the newest records, once there are too many; what a crash left beside them goes with the oldest."""
        paths = [os.path.join(self._folder, name) for name in os.listdir(self._folder)]
        if len(paths) <= MOST_RECORDS:
            return
        paths.sort(key=lambda path: os.lstat(path).st_mtime_ns)
        for path in paths[: len(paths) - MOST_RECORDS * 9 // 10]:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _to_bytes(record: SourceRecord) -> bytes:
    seen = record.seen
    return dump(
        {
            "version": _VERSION,
            "artifact": str(record.artifact),
            "path": seen.path,
            "started_ns": seen.started_ns,
            "at_rest": seen.at_rest,
            "boot": seen.boot,
            **asdict(seen.stamp),
        }
    )


_FIELDS: Final = {
    **dict.fromkeys(("version", "started_ns", *Stamp.__dataclass_fields__), int),
    **dict.fromkeys(("artifact", "path", "boot"), str),
    "at_rest": bool,
}


def _parse(data: bytes) -> SourceRecord:
    """Raises ValueError, DocumentError, InvalidDigest: it is not what `_to_bytes` makes."""
    fields = load_object(data, subject="source record", limit=_MAX_RECORD)
    if {name: type(value) for name, value in fields.items()} != _FIELDS or fields["version"] != _VERSION:
        raise ValueError("expected the fields of a source record")
    stamp = Stamp(**{name: fields[name] for name in Stamp.__dataclass_fields__})
    seen = Sighting(fields["path"], stamp, fields["started_ns"], fields["at_rest"], fields["boot"])
    return SourceRecord(seen, Digest.parse(fields["artifact"]))


def _read(path: str) -> bytes:
    """Raises OSError, or ValueError: somebody else's file, or no regular file."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
            raise ValueError("expected a regular file of this user")
        return os.read(fd, _MAX_RECORD + 1)
    finally:
        os.close(fd)


def _is_at_rest(fd: int) -> bool:
    """Whether nobody can write to the file now, and a later change of it would move its ctime. In doubt, no."""
    if not stat.S_ISREG(os.fstat(fd).st_mode) or filesystem_name(fd) not in _TIMES_OF_MAPPINGS:
        return False
    return _has_no_writer(fd) and not _is_behind_loop_device(fd)


def _has_no_writer(fd: int) -> bool:
    """Whether nobody has the file open or mapped for writing, by whatever name, in whatever container: the kernel gives
    a read lease only then. Who opens it in the moment that the lease is held waits, and SIGURG is sent to this process:
    of the signals that do nothing by default the one that programs are least likely to count.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # SIGIO, the default, would kill
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:  # a writer, another user's file, or a file system without leases
        return False
    return True


def _is_behind_loop_device(fd: int) -> bool:
    """Whether a loop device is attached to the file: what is mounted from it may be written back into it at any time.

    A device that is being detached, or whose path leads nowhere from here (deleted, of another mount namespace), is
    passed over: one that can write has the file open for writing, so the lease was refused already.
    """
    me = os.fstat(fd)
    try:
        devices = [name for name in os.listdir(_BLOCK_DEVICES) if name.startswith("loop")]
    except OSError:
        return True
    for device in devices:
        with contextlib.suppress(OSError):
            with open(f"{_BLOCK_DEVICES}/{device}/loop/backing_file", "rb") as file:
                path = file.read().removesuffix(b"\n")
            if os.path.samestat(me, os.stat(path)):
                return True
    return False
