"""What a crash left behind in the journal: blocks that were written there and committed, and not yet in their place.

A disk that was not unmounted, as that of a sandbox that was killed, has its newest metadata there. The kernel puts it
in place at the next mount. Here nothing is written: it is only remembered which block is to be read from where.

A transaction counts when its commit block is there, which the kernel writes after everything else of it has reached
the disk. Where that order was given up (journal_async_commit), or what was done is told in another form (fast commits),
the journal is not read, and so the file system is not.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from casstore.errors import UnreadableFilesystem

MAGIC: Final = struct.pack(">I", 0xC03B3998)
"""The first bytes of every block that the journal itself is made of; in data they are replaced by zeros."""

_DESCRIPTOR, _COMMIT, _SUPERBLOCKS, _REVOKED = 1, 2, (3, 4), 5
_WIDE, _CHECKSUMS_2, _CHECKSUMS_3 = 0x2, 0x8, 0x10
_UNDERSTOOD: Final = 0x1 | _WIDE | _CHECKSUMS_2 | _CHECKSUMS_3
_ESCAPED, _SAME_UUID, _LAST = 1, 2, 8
_HEAD: Final = 12  # magic, kind, sequence
_MOST_BLOCKS: Final = 1 << 20
_MOST_MOVED: Final = 1 << 19
_SEQUENCES: Final = 1 << 32


class Moved(NamedTuple):
    """Where the newest content of a block is."""

    at: int
    """A block of the journal."""
    escaped: bool
    """It begins with MAGIC, which the journal has as zeros."""


@dataclass(frozen=True, slots=True)
class _Form:
    block_size: int
    first: int
    end: int
    wide: bool
    tag_size: int
    checksums: bool

    @property
    def usable(self) -> int:
        """Bytes of a block before its checksum."""
        return self.block_size - (4 if self.checksums else 0)

    def after(self, block: int) -> int:
        """The block that follows in the log, which is a ring."""
        return self.first if block + 1 >= self.end else block + 1


def replay(read: Callable[[int], bytes], *, blocks: int, block_size: int, subject: str) -> dict[int, Moved]:
    """Which blocks of the file system are newer in the journal, by their number. `read` gives one of the journal's
    `blocks` blocks.

    Raises:
        UnreadableFilesystem: the journal is damaged, or of an unknown form.
    """
    head = read(0)
    if head[:4] != MAGIC or struct.unpack_from(">I", head, 4)[0] not in _SUPERBLOCKS:
        raise _unusable(subject, "a journal", "something else")
    size, end, first, sequence, at = struct.unpack_from(">5I", head, 12)
    (incompatible,) = struct.unpack_from(">I", head, 40)
    if struct.unpack_from(">I", head, 4)[0] == _SUPERBLOCKS[0]:
        incompatible = 0  # the first version has no features
    if at == 0:
        return {}
    if incompatible & ~_UNDERSTOOD:
        raise _unusable(subject, "a journal of a form that is understood here", f"features {incompatible:#x}")
    if size != block_size or not 1 <= first <= at < end <= min(blocks, _MOST_BLOCKS):
        raise _unusable(subject, f"a log within {blocks} blocks", f"{first} to {end}, beginning at {at}")
    wide, tagged = bool(incompatible & _WIDE), bool(incompatible & _CHECKSUMS_3)
    tag_size = 16 if tagged else 8 + 4 * wide + (2 if incompatible & _CHECKSUMS_2 else 0)
    form = _Form(block_size, first, end, wide, tag_size, bool(incompatible & (_CHECKSUMS_2 | _CHECKSUMS_3)))
    return _Log(read, form, at, sequence, subject).replayed()


class _Log:
    """The part of the log that was not yet put in place."""

    def __init__(self, read: Callable[[int], bytes], form: _Form, at: int, sequence: int, subject: str) -> None:
        self._read, self._form, self._at, self._sequence, self._subject = read, form, at, sequence, subject
        self._left = form.end - form.first
        self._written: dict[int, tuple[int, Moved]] = {}  # per block: in which transaction last, and where
        self._revoked: dict[int, int] = {}  # per block: the last transaction that took back what was written before
        self._count = 0

    def replayed(self) -> dict[int, Moved]:
        number = 0  # transactions are counted from here: their own numbers wrap
        while self._transaction(number):
            number += 1
        return {
            block: place
            for block, (transaction, place) in self._written.items()
            if transaction > self._revoked.get(block, -1)
        }

    def _transaction(self, number: int) -> bool:
        """Read one transaction; whether it was complete."""
        written: dict[int, Moved] = {}
        revoked: list[int] = []
        sequence = (self._sequence + number) % _SEQUENCES
        while self._left > 0:
            raw = self._next()
            kind, found = struct.unpack_from(">II", raw, 4)
            if raw[:4] != MAGIC or found != sequence:
                return False
            if kind == _DESCRIPTOR:
                for block, escaped in self._tags(raw):
                    if self._left <= 0:
                        return False
                    written[block] = Moved(self._at, escaped)
                    self._skip()
            elif kind == _REVOKED:
                revoked += self._revocations(raw)
            elif kind == _COMMIT:
                for block, place in written.items():
                    self._written[block] = (number, place)
                self._revoked.update(dict.fromkeys(revoked, number))
                return True
            else:
                return False
        return False

    def _next(self) -> bytes:
        raw = self._read(self._at)
        self._skip()
        return raw

    def _skip(self) -> None:
        self._at, self._left = self._form.after(self._at), self._left - 1

    def _tags(self, raw: bytes) -> list[tuple[int, bool]]:
        """The blocks whose content follows a descriptor."""
        form, at, tags = self._form, _HEAD, []
        while at + form.tag_size <= form.usable:
            if form.tag_size == 16:
                block, flags, high = struct.unpack_from(">III", raw, at)
            else:
                block, _, flags = struct.unpack_from(">IHH", raw, at)
                high = struct.unpack_from(">I", raw, at + 8)[0] if form.wide else 0
            tags.append((block | (high << 32 if form.wide else 0), bool(flags & _ESCAPED)))
            at += form.tag_size + (0 if flags & _SAME_UUID else 16)
            if flags & _LAST:
                break
        self._require_few(len(tags))
        return tags

    def _revocations(self, raw: bytes) -> list[int]:
        """The blocks whose earlier content in the log is not to be used."""
        form = self._form
        (length,) = struct.unpack_from(">I", raw, _HEAD)
        if not _HEAD + 4 <= length <= form.usable:
            raise _unusable(self._subject, f"{form.usable} bytes of revocations", str(length))
        size, letter = (8, "Q") if form.wide else (4, "I")
        count = (length - _HEAD - 4) // size
        self._require_few(count)
        return list(struct.unpack_from(f">{count}{letter}", raw, _HEAD + 4))

    def _require_few(self, more: int) -> None:
        self._count += more
        if self._count > _MOST_MOVED:
            raise _unusable(self._subject, f"at most {_MOST_MOVED} blocks to put in place", "more")


def _unusable(subject: str, expected: str, got: str) -> UnreadableFilesystem:
    return UnreadableFilesystem(
        f"{subject}: journal: expected {expected}, got {got}; mount and unmount the disk, or run e2fsck on it"
    )
