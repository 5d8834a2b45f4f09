"""Packs: a blob of frames back to back, then a directory that says what they hold. docs/reference/format.md, "Pack".

    "CASPACK1"                                   8 bytes
    frames                                       stored bytes, back to back
    directory:
      frames   kind u8, zero u8[3], chunks u32, stored length u32      12 bytes each
      chunks   BLAKE3-256 of the plain bytes                           32 bytes each
               plain length u32                                         4 bytes each
      bases    BLAKE3-256 of the base chunk of each DELTA frame        32 bytes each
    footer:    frames u32, chunks u32, bases u32, zero u32, "CASPACK1" 24 bytes

Integers are little-endian. Everything of the directory is checked before it is used, so a PackDirectory is always
consistent: its frames lie inside the pack, its chunks fill its frames.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import blake3
import numpy as np
import numpy.typing as npt

from casstore import spec
from casstore.digest import ChunkId
from casstore.errors import DocumentError, UnsupportedVersion
from casstore.frame import Buffer, FrameKind
from casstore.oci import Descriptor

MAGIC = b"CASPACK1"
_FOOTER = struct.Struct("<IIII8s")
FOOTER_SIZE = _FOOTER.size
_FRAME = np.dtype([("kind", "u1"), ("zero", "u1", 3), ("chunks", "<u4"), ("stored", "<u4")])
_ID = 32
_SMALLEST = len(MAGIC) + FOOTER_SIZE


class StoredPack(NamedTuple):
    """A pack that is stored: its descriptor and the stamp of its directory."""

    descriptor: Descriptor
    directory: bytes


class Place(NamedTuple):
    """Where a stored chunk lies."""

    pack: StoredPack
    chunk: int


class Sink(Protocol):
    """Where a pack's bytes go."""

    def write(self, data: Buffer, /) -> object:
        """Take all of `data`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PackDirectory:
    """What a pack holds, in columns: one row per frame, and one row per chunk in the order of their plain bytes."""

    size: int
    """Bytes of the whole pack."""
    stamp: bytes
    """BLAKE3-256 of directory and footer, and their length as u32: 36 bytes. The map states it, so a directory can be
    found and trusted without reading the pack."""
    kinds: npt.NDArray[np.uint8]
    stored: npt.NDArray[np.uint32]
    first_chunk: npt.NDArray[np.int64]
    """Per frame and one more: the index of its first chunk."""
    ids: bytes
    """32 bytes per chunk."""
    lengths: npt.NDArray[np.uint32]
    base_ids: bytes
    """32 bytes per DELTA frame, in the order of the frames."""
    deltas_before: npt.NDArray[np.int64]
    """Per frame, how many DELTA frames come before it."""

    @classmethod
    def build(
        cls,
        *,
        kinds: bytes,
        counts: Sequence[int],
        stored: Sequence[int],
        ids: bytes,
        lengths: Sequence[int],
        base_ids: bytes,
    ) -> tuple[Self, bytes]:
        """Make a directory from its columns; returns it with its encoded bytes."""
        frames = np.zeros(len(kinds), _FRAME)
        frames["kind"] = np.frombuffer(kinds, np.uint8)
        frames["chunks"] = counts
        frames["stored"] = stored
        footer = _FOOTER.pack(len(kinds), len(lengths), len(base_ids) // _ID, 0, MAGIC)
        encoded = frames.tobytes() + ids + np.asarray(lengths, "<u4").tobytes() + base_ids + footer
        size = len(MAGIC) + sum(stored) + len(encoded)
        return cls.parse(encoded, size, subject="new pack"), encoded

    @classmethod
    def parse(cls, encoded: bytes, size: int, *, subject: str) -> Self:
        """Parse directory and footer (`encoded`, the end of a pack of `size` bytes).

        Raises:
            UnsupportedVersion: another magic or frame kind, or a reserved byte is used.
            DocumentError: any count, length or sum that does not fit.
        """
        frame_count, chunk_count, base_count, length = _footer(encoded[-FOOTER_SIZE:], size, subject)
        if len(encoded) != length:
            raise DocumentError(subject, f"expected a directory of {length} bytes, got {len(encoded)}")
        frames = np.frombuffer(encoded, _FRAME, frame_count)
        ids_at = frame_count * _FRAME.itemsize
        lengths_at = ids_at + chunk_count * _ID
        bases_at = lengths_at + chunk_count * 4
        lengths = np.frombuffer(encoded, "<u4", chunk_count, lengths_at)
        kinds = frames["kind"]
        if (kinds > FrameKind.DELTA).any():
            raise UnsupportedVersion(subject, f"frame kind {kinds.max()} is not known to this version")
        if frames["zero"].any():
            raise UnsupportedVersion(subject, "expected zeros in the reserved bytes of frames")
        first_chunk = np.concatenate([[0], np.cumsum(frames["chunks"], dtype=np.int64)])
        deltas = kinds == FrameKind.DELTA
        if not (frames["chunks"] > 0).all() or first_chunk[-1] != chunk_count:
            raise DocumentError(subject, f"expected frames of one or more chunks, {chunk_count} in all")
        if (frames["chunks"][deltas] != 1).any() or np.count_nonzero(deltas) != base_count:
            raise DocumentError(subject, "expected one chunk and one base per delta frame")
        directory = cls(
            size=size,
            stamp=blake3.blake3(encoded).digest() + struct.pack("<I", len(encoded)),
            kinds=kinds,
            stored=frames["stored"],
            first_chunk=first_chunk,
            ids=encoded[ids_at:lengths_at],
            lengths=lengths,
            base_ids=encoded[bases_at : bases_at + base_count * _ID],
            deltas_before=np.cumsum(deltas, dtype=np.int64) - deltas,
        )
        directory._check(len(encoded), subject)
        return directory

    def _check(self, encoded_length: int, subject: str) -> None:
        plain = self.plain_lengths()
        if len(self.kinds) and (plain.max() > spec.READ_FRAME_PLAIN or not (self.lengths > 0).all()):
            raise DocumentError(
                subject, f"expected chunks of 1 or more and frames of at most {spec.READ_FRAME_PLAIN} plain bytes"
            )
        stored = self.stored.astype(np.int64)
        raw = self.kinds == FrameKind.RAW
        if (stored[raw] != plain[raw]).any() or (stored == 0).any() or (stored > plain + 64 + plain // 64).any():
            raise DocumentError(subject, "a frame's stored length cannot hold its chunks")
        expected = len(MAGIC) + int(stored.sum()) + encoded_length
        if expected != self.size:
            raise DocumentError(subject, f"expected a pack of {expected} bytes, got {self.size}")

    def plain_lengths(self) -> npt.NDArray[np.int64]:
        """Plain bytes of each frame."""
        ends = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        lengths: npt.NDArray[np.int64] = np.diff(ends[self.first_chunk])
        return lengths

    def frame_offsets(self) -> npt.NDArray[np.int64]:
        """Where each frame's stored bytes start in the pack."""
        offsets: npt.NDArray[np.int64] = len(MAGIC) + np.cumsum(self.stored, dtype=np.int64) - self.stored
        return offsets

    def chunk_frames(self) -> npt.NDArray[np.int64]:
        """The frame that each chunk lies in."""
        frames: npt.NDArray[np.int64] = np.repeat(np.arange(len(self.kinds)), np.diff(self.first_chunk))
        return frames

    def chunk_id(self, chunk: int) -> ChunkId:
        """The digest of one chunk."""
        return ChunkId(self.ids[chunk * _ID : chunk * _ID + _ID])

    def frame_of(self, chunk: int) -> int:
        """The frame that one chunk lies in."""
        return int(np.searchsorted(self.first_chunk, chunk, side="right")) - 1

    def base_of(self, frame: int) -> ChunkId | None:
        """The base of a DELTA frame; None for other frames."""
        if self.kinds[frame] != FrameKind.DELTA:
            return None
        n = int(self.deltas_before[frame])
        return ChunkId(self.base_ids[n * _ID : n * _ID + _ID])

    def __len__(self) -> int:
        return len(self.lengths)


def directory_length(footer: bytes, size: int, *, subject: str) -> int:
    """Bytes of directory and footer of a pack of `size` bytes whose last FOOTER_SIZE bytes are `footer`.

    Raises:
        UnsupportedVersion: another magic, or a reserved byte is used.
        DocumentError: the pack is too small for it.
    """
    return _footer(footer, size, subject)[3]


def _footer(footer: bytes, size: int, subject: str) -> tuple[int, int, int, int]:
    """Parse a footer: counts of frames, chunks and bases, and the bytes of directory and footer."""
    if size < _SMALLEST or len(footer) != FOOTER_SIZE:
        raise DocumentError(subject, f"expected a pack of at least {_SMALLEST} bytes, got {size}")
    frames, chunks, bases, zero, magic = _FOOTER.unpack(footer)
    if magic != MAGIC or zero != 0:
        raise UnsupportedVersion(subject, f"expected the footer of a {MAGIC.decode()} pack, got {magic!r}")
    length = frames * _FRAME.itemsize + chunks * (_ID + 4) + bases * _ID + FOOTER_SIZE
    if length > min(size - len(MAGIC), spec.READ_DIRECTORY):
        raise DocumentError(subject, f"expected a directory that fits its pack of {size} bytes, got {length} bytes")
    return frames, chunks, bases, length


class PackWriter:
    """Writes one pack into a sink, frame by frame."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._kinds = bytearray()
        self._counts: list[int] = []
        self._stored: list[int] = []
        self._ids = bytearray()
        self._lengths: list[int] = []
        self._bases = bytearray()
        self.size: int = _SMALLEST
        """Bytes of the pack if it were finished now."""
        sink.write(MAGIC)

    def add(
        self, kind: FrameKind, stored: Buffer, chunks: Sequence[tuple[ChunkId, int]], base: ChunkId | None = None
    ) -> int:
        """Append a frame with its chunks (digest, plain length); returns the index of its first chunk."""
        first = len(self._lengths)
        self._sink.write(stored)
        self.size += len(stored) + _FRAME.itemsize + len(chunks) * (_ID + 4) + len(base or b"")
        self._kinds.append(kind)
        self._counts.append(len(chunks))
        self._stored.append(len(stored))
        for chunk_id, length in chunks:
            self._ids += chunk_id
            self._lengths.append(length)
        if base is not None:
            self._bases += base
        return first

    def finish(self) -> PackDirectory:
        """Append the directory."""
        directory, encoded = PackDirectory.build(
            kinds=bytes(self._kinds),
            counts=self._counts,
            stored=self._stored,
            ids=bytes(self._ids),
            lengths=self._lengths,
            base_ids=bytes(self._bases),
        )
        self._sink.write(encoded)
        return directory
