"""microsandbox's database, read while microsandbox may have it open: nothing is locked, made or changed.

SQLite itself cannot look at a database in WAL mode without making `-shm` and `-wal` beside it, or leaving out what only
the WAL has. So both files are read as they are, the WAL's committed pages are laid over the others, and what comes out
is opened in memory (https://sqlite.org/fileformat2.html, section 4).

Two reads of files that somebody else writes are one state where this holds: the database's file is read first, and a
checkpoint only moves into it what the WAL has then, and still has when it is read; unless the WAL was started afresh or
removed between, which its header tells, and then all is read again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import struct
import time
from typing import Final

from casstore import spec
from casstore.errors import CorruptContent, NotFound, SourceError

MAX_BYTES: Final = 512 * spec.MIB
"""Of database and WAL together, which are read into memory."""

_MAX_VALUE: Final = 4 * spec.MIB
"""Bytes of a value."""
_STEPS: Final = 1_000_000
_MOST_STEPS: Final = 100 * _STEPS
"""What SQLite may do for all that is asked, in its virtual machine's instructions: some seconds. The trees of a
malformed file may have no end.
"""

_ATTEMPTS = 50
_PAUSE = 0.02  # seconds; a checkpoint, or a last connection's closing, takes no longer
_MAGIC = b"SQLite format 3\0"
_WAL_HEADER: Final = struct.Struct(">IIIIIIII")  # magic, version, page size, checkpoints, 2 salts, 2 checksums
_FRAME_HEADER: Final = struct.Struct(">IIIIII")  # page, pages after a commit or 0, 2 salts, 2 checksums
_WAL_MAGIC: Final = {0x377F0682: "<", 0x377F0683: ">"}
"""With the byte order of the words that are summed."""
_MODES: Final = slice(18, 20)
"""Of the database's header: write and read version, 2 for WAL and 1 for a rollback journal."""


def open_file(path: str, flags: int) -> int:
    """An opener for `open` that takes regular files only, and never waits: for the writer of a FIFO, say.

    Raises:
        OSError: it is something else.
    """
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "expected a regular file", path)


def read_database(path: str) -> sqlite3.Connection:
    """The database at `path` as its last commit left it, in memory.

    Raises:
        NotFound: there is none.
        SourceError: it cannot be read, is larger than MAX_BYTES, or never holds still.
        CorruptContent: it is no SQLite database.
    """
    subject = f"microsandbox's database {path!r}"
    try:
        for _ in range(_ATTEMPTS):
            image = _consistent(path, subject)
            if image is not None:
                return _opened(image, subject)
            time.sleep(_PAUSE)
    except FileNotFoundError:
        raise NotFound(f"{subject}: there is none") from None
    except OSError as error:
        raise SourceError(f"{subject}: {error.strerror or error}") from error
    raise SourceError(f"{subject}: expected one that holds still for a moment, got writes without end; try again")


def _consistent(path: str, subject: str) -> bytearray | None:
    """The pages of the last commit; None when they changed while they were read."""
    before = _stamp(path), _wal_header(path)
    with contextlib.suppress(FileNotFoundError):
        if os.stat(f"{path}-journal").st_size:
            return None  # a transaction without WAL is under way
    image = _read(path, MAX_BYTES, subject)
    try:
        wal = _read(f"{path}-wal", MAX_BYTES - len(image), subject) if before[1] else bytearray()
    except FileNotFoundError:  # the last one to close the database removes it
        return None
    if _wal_header(path) != before[1] or (not before[1] and _stamp(path) != before[0]):
        return None
    _lay_over(image, wal)
    return image


def _stamp(path: str) -> tuple[int, int, int]:
    info = os.stat(path)
    return info.st_ino, info.st_size, info.st_mtime_ns


def _wal_header(path: str) -> bytes:
    """Nothing where there is no WAL, or none that has anything in it."""
    try:
        with open(f"{path}-wal", "rb", buffering=0, opener=open_file) as file:
            header = file.read(_WAL_HEADER.size)
    except FileNotFoundError:
        return b""
    return header if len(header) == _WAL_HEADER.size else b""


def _read(path: str, limit: int, subject: str) -> bytearray:
    with open(path, "rb", buffering=0, opener=open_file) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise SourceError(
                f"{subject}: expected at most {MAX_BYTES} bytes with its WAL, got more; run VACUUM on it, or capture"
                " the file of the disk itself"
            )
        data = bytearray(size)
        filled = 0
        while count := file.readinto(memoryview(data)[filled:]):
            filled += count
    return data[:filled]


def _lay_over(image: bytearray, wal: bytearray) -> None:
    """Put the pages of the WAL's commits into the database's image. What comes after the first frame that is of an
    older WAL, or torn, is none of them.
    """
    if len(wal) < _WAL_HEADER.size:
        return
    magic, _, page_size, _, *salts, first, second = _WAL_HEADER.unpack_from(wal)
    order = _WAL_MAGIC.get(magic)
    sums = (0, 0) if order is None else _checksum(wal[:24], (0, 0), order)
    if order is None or sums != (first, second) or not 512 <= page_size <= 65536 or page_size & (page_size - 1):
        return
    waiting: dict[int, int] = {}
    for at in range(_WAL_HEADER.size, len(wal) - _FRAME_HEADER.size - page_size + 1, _FRAME_HEADER.size + page_size):
        page, committed, *rest = _FRAME_HEADER.unpack_from(wal, at)
        start = at + _FRAME_HEADER.size
        sums = _checksum(wal[start : start + page_size], _checksum(wal[at : at + 8], sums, order), order)
        if rest != [*salts, *sums]:
            return
        waiting[page] = start
        if committed:
            size = committed * page_size
            image.extend(bytes(max(size - len(image), 0)))
            for number, place in waiting.items():
                if number <= committed:
                    image[(number - 1) * page_size : number * page_size] = wal[place : place + page_size]
            del image[size:]
            waiting = {}


def _checksum(data: bytes | bytearray, sums: tuple[int, int], order: str) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def _opened(image: bytearray, subject: str) -> sqlite3.Connection:
    if not image.startswith(_MAGIC):
        raise CorruptContent(f"{subject}: expected an SQLite database, got something else")
    image[_MODES] = b"\x01\x01"
    database = sqlite3.connect(":memory:", isolation_level=None)
    try:
        database.deserialize(image)
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE)
        steps = iter(range(_MOST_STEPS // _STEPS))
        database.set_progress_handler(lambda: next(steps, None) is None, _STEPS)
        database.execute("PRAGMA query_only = ON")
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except (sqlite3.Error, OverflowError) as error:
        with contextlib.closing(database):
            raise CorruptContent(f"{subject}: {error}") from error
    return database
