"""Maps: where the chunks of each disk lie. docs/reference/format.md, "Map".

    "CASMAP1\\n"  8 bytes | body length u64 | the body as one zstd frame
    body:
      packs u32, disks u32
      packs    sha256 of the pack, and the stamp of its directory      68 bytes each
      disks    name length u8, name, size u64, extents u32, runs u32, then the columns
        extents  gap u64 each, length u64 each          gap: bytes since the end of the extent before
        runs     gap u64 each, length u64 each, pack u32 each, first chunk u32 each, chunks u32 each
                                                        gap: bytes since the end of the run before

Integers are little-endian. A disk reads as its runs' chunks laid over zeros. Gaps instead of offsets leave no way to
write down an overlap or a wrong order. The length of a run is that of its chunks, so the map alone says what lies
where. Extents say which bytes of the disk are allocated; all bytes outside them are zero. Packs that no run names,
listed last, hold bases of delta frames.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import zstandard

from casstore import spec
from casstore.digest import Digest
from casstore.errors import DocumentError, InvalidName, UnsupportedVersion
from casstore.frame import FrameKind, decode
from casstore.names import parse_disk_name
from casstore.spec import BLOCK, SECTOR

MAGIC = b"CASMAP1\n"
_HEADER = struct.Struct("<8sQ")
_COUNTS = struct.Struct("<II")
_DISK = struct.Struct("<QII")
_RUN_COLUMNS = ("<u8", "<u8", "<u4", "<u4", "<u4")
_PACK = 68
_LEVEL = 9  # a map is small and written once per snapshot; 20 % smaller than level 3


class PackEntry(NamedTuple):
    """A pack as the map names it."""

    digest: Digest
    directory: bytes
    """The stamp of its directory, 36 bytes; see PackDirectory.stamp."""


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Runs of consecutive chunks of one pack, in the disk's order, in columns of equal length."""

    gap: npt.NDArray[np.uint64]
    length: npt.NDArray[np.uint64]
    """Plain bytes of the run's chunks."""
    pack: npt.NDArray[np.uint32]
    first: npt.NDArray[np.uint32]
    count: npt.NDArray[np.uint32]

    @classmethod
    def build(cls, rows: Sequence[tuple[int, int, int, int, int]]) -> Self:
        """From (gap, length, pack, first, count) rows."""
        columns = zip(*rows, strict=True) if rows else [()] * 5
        return cls(*(np.array(column, kind) for column, kind in zip(columns, _RUN_COLUMNS, strict=True)))

    def __len__(self) -> int:
        return len(self.gap)


@dataclass(frozen=True, slots=True, eq=False)
class DiskMap:
    """One disk: its name, its size (bytes), its extents as rows (offset, length) of bytes, and its runs."""

    name: str
    size: int
    extents: npt.NDArray[np.int64]
    runs: Runs

    @property
    def allocated(self) -> int:
        """Bytes in extents."""
        return int(self.extents[:, 1].sum())


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotMap:
    """The map of a snapshot: its packs (those for bases only last) and its disks."""

    packs: tuple[PackEntry, ...]
    disks: tuple[DiskMap, ...]

    @property
    def newest(self) -> DiskMap:
        """The disk; of a chain of several files the newest one."""
        return self.disks[-1]

    def to_bytes(self) -> bytes:
        """The map's blob. Its bytes depend on the version of zstd; what it decodes to does not.

        Raises:
            DocumentError: more packs, or more runs and extents, than a reader accepts.
        """
        if len(self.packs) > spec.MAX_PACKS:
            raise DocumentError("map", f"expected at most {spec.MAX_PACKS} packs, got {len(self.packs)}")
        parts = [_COUNTS.pack(len(self.packs), len(self.disks))]
        parts += [entry.digest.raw + entry.directory for entry in self.packs]
        for disk in self.disks:
            name = disk.name.encode()
            ends = np.concatenate([[0], disk.extents.sum(axis=1)])
            parts += [bytes([len(name)]), name, _DISK.pack(disk.size, len(disk.extents), len(disk.runs))]
            parts += [
                (disk.extents[:, 0] - ends[:-1]).astype("<u8").tobytes(),
                disk.extents[:, 1].astype("<u8").tobytes(),
            ]
            runs = disk.runs
            parts += [column.astype("<u8").tobytes() for column in (runs.gap, runs.length)]
            parts += [column.astype("<u4").tobytes() for column in (runs.pack, runs.first, runs.count)]
        body = b"".join(parts)
        if len(body) > spec.MAX_MAP:
            pieces = sum(len(disk.runs) + len(disk.extents) for disk in self.disks)
            problem = f"expected at most {spec.MAX_MAP} bytes, got {len(body)} for {pieces} runs and extents"
            raise DocumentError("map", problem)
        return _HEADER.pack(MAGIC, len(body)) + zstandard.ZstdCompressor(level=_LEVEL).compress(body)

    @classmethod
    def parse(cls, blob: bytes, *, subject: str) -> Self:
        """Parse a map.

        Raises:
            UnsupportedVersion: another magic.
            CorruptContent: not a whole zstd frame of the stated length.
            DocumentError: any count, name, extent or run out of bounds.
        """
        if len(blob) < _HEADER.size or blob[: len(MAGIC)] != MAGIC:
            raise UnsupportedVersion(subject, f"expected a {MAGIC.decode().strip()} map, got {blob[:8]!r}")
        length = _HEADER.unpack_from(blob)[1]
        if length > spec.MAX_MAP:
            raise DocumentError(subject, f"expected a map of at most {spec.MAX_MAP} bytes, got {length}")
        body = decode(FrameKind.ZSTD, blob[_HEADER.size :], length, base=None, subject=subject, limit=spec.MAX_MAP)
        return cls._parse_body(_Cursor(bytes(body), subject))

    @classmethod
    def _parse_body(cls, cursor: _Cursor) -> Self:
        pack_count, disk_count = _COUNTS.unpack(cursor.take(_COUNTS.size, "counts"))
        if pack_count > spec.MAX_PACKS or disk_count > spec.MAX_DISKS:
            problem = f"expected at most {spec.MAX_PACKS} packs and {spec.MAX_DISKS} disks"
            raise DocumentError(cursor.subject, f"{problem}, got {pack_count} and {disk_count}", at="counts")
        raw = cursor.take(cursor.fits(pack_count, _PACK, "packs") * _PACK, "packs")
        entries = [raw[at : at + _PACK] for at in range(0, len(raw), _PACK)]
        packs = [PackEntry(Digest.from_raw(entry[:32]), entry[32:]) for entry in entries]
        if len({entry.digest for entry in packs}) != len(packs):
            raise DocumentError(cursor.subject, "a pack is listed twice", at="packs")
        disks = tuple(_parse_disk(cursor, n, len(packs)) for n in range(cursor.fits(disk_count, 18, "disks")))
        names = {disk.name for disk in disks}
        if not disks or len(names) != len(disks):
            raise DocumentError(cursor.subject, "expected one or more disks of different names", at="disks")
        cursor.end()
        return cls(tuple(packs), disks)


def _parse_disk(cursor: _Cursor, n: int, packs: int) -> DiskMap:
    at = f"disks[{n}]"
    name_length = cursor.take(1, f"{at}.name")[0]
    try:
        name = parse_disk_name(cursor.take(name_length, f"{at}.name").decode("ascii", "replace"))
    except InvalidName as error:
        raise DocumentError(cursor.subject, str(error), at=f"{at}.name") from None
    size, extent_count, run_count = _DISK.unpack(cursor.take(_DISK.size, at))
    if size > spec.MAX_DISK:
        raise DocumentError(
            cursor.subject, f"expected a disk of at most {spec.MAX_DISK} bytes, got {size}", at=f"{at}.size"
        )
    gaps = cursor.u64(extent_count, f"{at}.extents")
    lengths = cursor.u64(extent_count, f"{at}.extents")
    extents = _extents(gaps, lengths, size, cursor.subject, f"{at}.extents")
    runs = Runs(
        gap=cursor.u64(run_count, f"{at}.runs"),
        length=cursor.u64(run_count, f"{at}.runs"),
        pack=cursor.u32(run_count, f"{at}.runs"),
        first=cursor.u32(run_count, f"{at}.runs"),
        count=cursor.u32(run_count, f"{at}.runs"),
    )
    if run_count:
        if int(runs.pack.max()) >= packs:
            raise DocumentError(cursor.subject, f"pack {runs.pack.max()} of {packs}", at=f"{at}.runs")
        total = exact_sum(runs.gap) + exact_sum(runs.length)
        # Chunks are of a block at least, but for the disk's last one: without that, a small map could name billions.
        too_many = runs.count.astype(np.uint64) > runs.length // BLOCK + (runs.length % BLOCK > 0)
        if total > size or not (runs.count > 0).all() or too_many.any():
            problem = f"expected runs of one or more chunks of {BLOCK} bytes or more within {size} bytes, got {total}"
            raise DocumentError(cursor.subject, problem, at=f"{at}.runs")
    return DiskMap(name, size, extents, runs)


def _extents(
    gaps: npt.NDArray[np.uint64], lengths: npt.NDArray[np.uint64], size: int, subject: str, at: str
) -> npt.NDArray[np.int64]:
    """Rows (offset, length), checked: non-empty, and all within `size`."""
    if len(gaps) > size // SECTOR + 1:
        problem = f"expected at most one extent per {SECTOR} bytes of the disk's {size}, got {len(gaps)} extents"
        raise DocumentError(subject, problem, at=at)
    if len(gaps):
        total = exact_sum(gaps) + exact_sum(lengths)
        if total > size or not (lengths > 0).all() or not (gaps[1:] > 0).all():
            raise DocumentError(subject, f"expected separate extents within {size} bytes, got {total}", at=at)
    ends = np.cumsum(gaps.astype(np.int64) + lengths.astype(np.int64), dtype=np.int64)
    return np.stack([ends - lengths.astype(np.int64), lengths.astype(np.int64)], axis=1)


def exact_sum(column: npt.NDArray[np.uint64] | npt.NDArray[np.int64]) -> int:
    """The sum of up to 2^31 values of 0 to 2^63, which a hostile map can make overflow 64 bits."""
    low = np.bitwise_and(column, column.dtype.type(0xFFFFFFFF))
    high = np.right_shift(column, column.dtype.type(32))
    return (int(high.sum(dtype=np.uint64)) << 32) + int(low.sum(dtype=np.uint64))


class _Cursor:
    """Takes a body apart from front to back; nothing is taken that is not there."""

    def __init__(self, body: bytes, subject: str) -> None:
        self._body, self._at, self.subject = body, 0, subject

    def fits(self, count: int, smallest: int, at: str) -> int:
        """`count`, if that many items of `smallest` bytes can be left."""
        if count * smallest > len(self._body) - self._at:
            raise DocumentError(self.subject, f"expected {count} items, got {len(self._body) - self._at} bytes", at=at)
        return count

    def take(self, length: int, at: str) -> bytes:
        self.fits(length, 1, at)
        self._at += length
        return self._body[self._at - length : self._at]

    def u64(self, count: int, at: str) -> npt.NDArray[np.uint64]:
        return np.frombuffer(self.take(count * 8, at), "<u8")

    def u32(self, count: int, at: str) -> npt.NDArray[np.uint32]:
        return np.frombuffer(self.take(count * 4, at), "<u4")

    def end(self) -> None:
        if self._at != len(self._body):
            raise DocumentError(self.subject, f"expected the end, got {len(self._body) - self._at} more bytes")
