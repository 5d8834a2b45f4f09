"""The frames of a damaged pack as they must have been: the sound ones as they are, the others compressed again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

import numpy as np
from blake3 import blake3

from casstore import frame
from casstore.artifact import Artifact
from casstore.blobs import BlobDirectory
from casstore.content import RangeReader
from casstore.digest import ChunkId
from casstore.errors import CasstoreError, NotFound
from casstore.frame import Buffer, FrameKind
from casstore.oci import Descriptor
from casstore.pack import PackDirectory
from casstore.rebuilding.ondisk import OnDisk

_STEP = 65536
"""Bytes that are read in one go where the next ones may not be readable."""
_ALIKE = 64
"""Bytes that may differ of what is there in a frame that was compressed at the same level."""
_SAMPLE = 3
"""Frames that tell a pack's level."""


class Torn:
    """A directory of blobs that may be damaged: what cannot be read of one reads as zeros."""

    def __init__(self, blobs: BlobDirectory) -> None:
        self._blobs = blobs

    def read_range(self, descriptor: Descriptor, offset: int, length: int) -> bytes:
        """Exactly `length` bytes; see RangeReader."""
        try:
            fd = self._blobs.open(descriptor.digest)
        except CasstoreError:
            return bytes(length)
        end = offset + length
        try:
            parts = [_read(fd, at, min(_STEP, end - at)) for at in range(offset, end, _STEP)]
        finally:
            os.close(fd)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _read(fd: int, offset: int, length: int) -> bytes:
    data = b""
    with contextlib.suppress(OSError):
        data = os.pread(fd, length, offset)  # of a regular file, short only at its end
    return data.ljust(length, b"\0")


class MendedFrames:
    """The frames of one pack. `artifacts` have it, and `chunks` may have what is damaged of it."""

    def __init__(
        self,
        pack: Descriptor,
        directory: PackDirectory,
        blobs: RangeReader,
        artifacts: Sequence[Artifact],
        chunks: OnDisk,
    ) -> None:
        self._pack, self._directory, self._blobs = pack, directory, blobs
        self._artifacts, self._on_disk = artifacts, chunks
        self._offsets, self._plain = directory.frame_offsets().tolist(), directory.plain_lengths().tolist()
        self._level = frame.DEFAULT_LEVEL

    def stored(self, n: int, *, again: bool) -> Buffer:
        """The stored bytes of a frame. With `again` it is compressed anew even if it decodes to the right chunks:
        there are bits that do not matter for that.

        Raises:
            NotFound: the frame is damaged and the disk has not all of its chunks, or they cannot be compressed to what
                it was.
            SourceError: the disk cannot be read.
        """
        kind = FrameKind(int(self._directory.kinds[n]))
        stored = self._blobs.read_range(self._pack, self._offsets[n], int(self._directory.stored[n]))
        base_id = self._directory.base_of(n)
        base = None if base_id is None else self._base(base_id)
        if base_id is not None and base is None:
            return stored  # nothing can be said of it; whether it is right shows in the pack's sha256
        plain = self._decoded(n, kind, stored, base)
        if plain is not None and not again:
            return stored
        parts = [self._chunk(chunk, n) for chunk in self._chunks_of(n)] if plain is None else [plain]
        return self._compressed(n, kind, stored, parts, base, choose=again)

    def _chunks_of(self, n: int) -> range:
        return range(int(self._directory.first_chunk[n]), int(self._directory.first_chunk[n + 1]))

    def _decoded(self, n: int, kind: FrameKind, stored: Buffer, base: Buffer | None) -> memoryview | None:
        """The frame's plain bytes, if all of its chunks are right."""
        try:
            plain = memoryview(frame.decode(kind, stored, self._plain[n], base=base, subject="frame"))
        except CasstoreError:
            return None
        at = 0
        for chunk in self._chunks_of(n):
            end = at + int(self._directory.lengths[chunk])
            if blake3(plain[at:end]).digest() != self._directory.chunk_id(chunk):
                return None
            at = end
        return plain

    def _base(self, base: ChunkId) -> memoryview | None:
        """A base's plain bytes: from a sound frame of the snapshots' packs, or from the disk."""
        wanted = np.frombuffer(base, "V32")
        for artifact in self._artifacts:
            bases = artifact.directories.bases()
            row = bases.rows(wanted)
            if row[0] < len(bases.ids) and bases.ids[row[0]] == wanted[0] and bases.pack[row[0]] >= 0:
                pack, chunk = bases.pack[row].astype(np.int64), bases.chunk[row].astype(np.int64)
                with contextlib.suppress(CasstoreError):
                    return artifact.frames.chunks(artifact.directories.locate(pack, chunk))[0]
        return self._on_disk.chunk(base)

    def _chunk(self, chunk: int, n: int) -> memoryview:
        chunk_id = self._directory.chunk_id(chunk)
        data = self._on_disk.chunk(chunk_id)
        if data is None:
            raise NotFound(
                f"pack {self._pack.digest}: frame {n} is damaged, and its chunk {chunk_id.hex()} is not on the disk: it"
                " is not the disk that the pack was made of, or has changed since"
            )
        return data

    def _compressed(
        self,
        n: int,
        kind: FrameKind,
        stored: Buffer,
        parts: Sequence[memoryview],
        base: Buffer | None,
        *,
        choose: bool,
    ) -> Buffer:
        """What has the right length, at the level of other frames if possible; to `choose`, of all levels that which is
        most like the bytes that are there.
        """
        best: tuple[int, int, Buffer] | None = None
        for level in _levels_from(self._level) if kind is not FrameKind.RAW else [self._level]:
            made = _encode(kind, parts, base, level)
            if len(made) == len(stored):
                wrong = int(np.count_nonzero(np.frombuffer(made, np.uint8) != np.frombuffer(stored, np.uint8)))
                if best is None or wrong < best[0]:
                    best = wrong, level, made
                if wrong <= _ALIKE or not choose:
                    break
        if best is None:
            raise NotFound(
                f"pack {self._pack.digest}: frame {n} cannot be compressed to the {len(stored)} bytes that it had:"
                " another version of zstd has made it"
            )
        self._level = best[1]
        return best[2]


def likely_level(pack: Descriptor, directory: PackDirectory, blobs: RangeReader) -> int:
    """The level at which a sound pack was compressed, by some of its frames; the default where they do not tell."""
    offsets, plain_lengths = directory.frame_offsets().tolist(), directory.plain_lengths().tolist()
    samples = []
    for n in np.flatnonzero(directory.kinds == FrameKind.ZSTD)[:_SAMPLE].tolist():
        stored = blobs.read_range(pack, offsets[n], int(directory.stored[n]))
        with contextlib.suppress(CasstoreError):
            plain = frame.decode(FrameKind.ZSTD, stored, plain_lengths[n], base=None, subject="frame")
            samples.append((stored, [memoryview(plain)]))
    for level in _levels_from(frame.DEFAULT_LEVEL):
        if all(_encode(FrameKind.ZSTD, parts, None, level) == stored for stored, parts in samples):
            return level
    return frame.DEFAULT_LEVEL


def _levels_from(first: int) -> list[int]:
    """All levels: `first`, the default, then the rest in order."""
    return list(dict.fromkeys([first, frame.DEFAULT_LEVEL, *frame.LEVELS]))


def _encode(kind: FrameKind, parts: Sequence[memoryview], base: Buffer | None, level: int) -> Buffer:
    if kind is FrameKind.RAW:
        return b"".join(parts)
    if base is not None:
        return frame.encode_delta(parts[0], base, level)
    return frame.encode(parts, level)[1]
