"""Frames decoded into chunks, each checked against its digest: in the order that costs least, or in the disk's order.

A delta needs the full frame that its base lies in. `jobs` orders chunks by the full frame that they come from, directly
or as deltas, so that each of these frames is decoded once for all of them. `in_order` keeps the given order, and the
full frames that were decoded lately.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import pairwise
from typing import Any, NamedTuple

import blake3
import numpy as np
import numpy.typing as npt

from casstore.content import RangeReader
from casstore.directories import Directories, Located
from casstore.errors import DigestMismatch
from casstore.frame import Buffer, FrameKind, decode
from casstore.oci import Descriptor
from casstore.pack import PackDirectory
from casstore.spec import MIB

_JOB = 4 * MIB
"""Plain bytes that are decoded in one go."""
_TASK = MIB
"""Plain bytes that are given out in one go where the order matters: all of them are in memory at once."""
_GAP = 8192
"""Stored bytes that are rather read in vain than skipped."""
_READ = 4 * MIB
"""Stored bytes that are read in one go, but for longer frames."""
_DECODED = 16 * MIB
"""Plain bytes of full frames that are kept."""


class Piece(NamedTuple):
    """Plain bytes that were checked."""

    offset: int
    data: memoryview
    apart: bool
    """It is a chunk that was not to be joined with its neighbours."""


class Frames:
    """The frames of some packs. Threads may share it."""

    def __init__(self, blobs: RangeReader, packs: Sequence[Descriptor], directories: Directories) -> None:
        self._blobs, self._packs, self._directories = blobs, packs, directories
        self._kept = _Kept(_DECODED)

    def read(self, pack: int, offset: int, length: int) -> bytes:
        """A part of a pack as it is stored.

        Raises:
            NotFound, SizeMismatch, StorageError: the pack cannot be read.
        """
        return self._blobs.read_range(self._packs[pack], offset, length)

    def decode(self, located: Located, row: int, stored: Buffer, base: Buffer | None = None) -> Buffer:
        """The plain bytes of a chunk's frame.

        Raises:
            CorruptContent: it does not decode. The chunks' digests are not checked.
        """
        subject = self.where(int(located.pack[row]), int(located.frame[row]))
        return decode(FrameKind(int(located.kind[row])), stored, int(located.plain[row]), base=base, subject=subject)

    def chunks(self, own: Located, full: Located | None = None) -> list[memoryview]:
        """The plain bytes of some chunks, checked. Full frames that were decoded lately are not decoded again.

        `full`: what `with_bases` gives for them, if that is known.

        Raises:
            CorruptContent: a frame does not decode or holds other bytes than its directory says, or a delta's base is
                missing.
            NotFound, SizeMismatch, StorageError: a pack cannot be read.
        """
        full = self.with_bases(own) if full is None else full
        fresh, deltas, ids = self._read_fresh(full), self.read_deltas(own), own.ids.tobytes()
        start, end = full.start.tolist(), (full.start + full.length).tolist()
        found = []
        for n, key in enumerate(zip(full.pack.tolist(), full.frame.tolist(), strict=True)):
            data = memoryview(self._full(full, n, key, fresh))[start[n] : end[n]]
            if n in deltas:
                data = memoryview(self.decode(own, n, deltas.pop(n), data))
            self.check(data, ids[32 * n : 32 * n + 32], own, n)
            found.append(data)
        return found

    def _read_fresh(self, full: Located) -> dict[tuple[int, int], memoryview]:
        """The stored bytes of the full frames, by pack and frame, that are not in memory; neighbours read together."""
        rows = {key: n for n, key in enumerate(zip(full.pack.tolist(), full.frame.tolist(), strict=True))}
        fresh = sorted(key for key in rows if key not in self._kept)
        located = full.take(np.array([rows[key] for key in fresh], np.int64))
        return dict(zip(fresh, self.read_many(located), strict=True))

    def _full(self, full: Located, row: int, key: tuple[int, int], fresh: dict[tuple[int, int], memoryview]) -> Buffer:
        """The plain bytes of a chunk's full frame, from memory if it was decoded lately. `key`: its pack and frame;
        `fresh`: stored bytes that were read.
        """

        def load() -> Buffer:
            stored: Buffer | None = fresh.pop(key, None)
            if stored is None:  # it was in memory, but is no more
                stored = self.read(key[0], int(full.at[row]), int(full.stored[row]))
            return self.decode(full, row, stored)

        return self._kept.get(key, load)

    def with_bases(self, own: Located, near: Sequence[int] = ()) -> Located:
        """The same chunks, but for each that lies in a delta frame its base: all of them lie in full frames. `near` are
        packs where the bases may well be.

        Raises:
            CorruptContent: a base lies in no full frame of these packs.
        """
        deltas = np.flatnonzero(own.kind == FrameKind.DELTA)
        if not len(deltas):
            return own
        pack, chunk = self._directories.base_places(own.pack[deltas], own.chunk[deltas], near)
        full = own.take(np.arange(len(own)))
        full.put(deltas, self._directories.locate(pack, chunk))
        return full

    def check(self, data: Buffer, chunk_id: bytes, located: Located, row: int) -> None:
        """Raise DigestMismatch unless `data` are the plain bytes of the chunk with this digest."""
        got = blake3.blake3(data).digest()
        if got != chunk_id:
            raise _wrong_chunk(self.where(int(located.pack[row]), int(located.frame[row])), chunk_id, got)

    def where(self, pack: int, frame: int) -> str:
        """What errors call a frame."""
        return _where(self._packs[pack], frame)

    def read_many(self, located: Located) -> Iterator[memoryview]:
        """The stored frames of these chunks, which are best ordered as they are stored; neighbours are read together.

        What is given out is kept in memory for as long as it is referred to, with what was read together with it.
        """
        packs, starts = located.pack.tolist(), located.at.tolist()
        ends = (located.at + located.stored).tolist()
        n = 0
        while n < len(packs):
            first, low, high = n, starts[n], ends[n]
            while (
                n < len(packs)
                and packs[n] == packs[first]
                and low <= starts[n] <= high + _GAP
                and (ends[n] - low <= _READ or n == first)
            ):
                high = max(high, ends[n])
                n += 1
            data = memoryview(self.read(packs[first], low, high - low))
            for k in range(first, n):
                yield data[starts[k] - low : ends[k] - low]

    def read_deltas(self, located: Located) -> dict[int, memoryview]:
        """Row -> stored bytes of each of the chunks that lies in a delta frame."""
        rows = np.flatnonzero(located.kind == FrameKind.DELTA)
        rows = rows[np.lexsort((located.at[rows], located.pack[rows]))]
        return dict(zip(rows.tolist(), self.read_many(located.take(rows)), strict=True))


class _Kept:
    """Decoded frames, the latest ones, up to `limit` bytes. Of threads that want the same one, one decodes it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._frames: OrderedDict[tuple[int, int], Future[Buffer]] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: tuple[int, int]) -> bool:
        """Whether a frame is there, or is being decoded."""
        with self._lock:
            return key in self._frames

    def get(self, key: tuple[int, int], load: Callable[[], Buffer]) -> Buffer:
        with self._lock:
            future = self._frames.get(key)
            if future is not None:
                self._frames.move_to_end(key)
            else:
                mine = self._frames[key] = Future()
        if future is not None:
            return future.result()
        try:
            plain = load()
        except BaseException as error:
            with self._lock:
                del self._frames[key]
            mine.set_exception(error)
            raise
        with self._lock:
            mine.set_result(plain)
            self._bytes += len(plain)
            for old in [*self._frames] if self._bytes > self._limit else ():
                if self._bytes > self._limit and old != key and self._frames[old].done():
                    self._bytes -= len(self._frames.pop(old).result())
        return plain


class Job:
    """Some full frames, and what is wanted of each of them: chunks of its own, and deltas whose bases are.

    The rows are ordered by `full`: the chunks in the full frames, bases in the place of deltas.
    """

    def __init__(
        self, frames: Frames, own: Located, full: Located, offset: npt.NDArray[np.int64], apart: npt.NDArray[np.bool_]
    ) -> None:
        self.frames: Frames = frames
        self.own: Located = own
        self.full: Located = full
        self.offset: npt.NDArray[np.int64] = offset
        self.apart: npt.NDArray[np.bool_] = apart

    def __len__(self) -> int:
        return len(self.own)

    def run(self) -> Iterator[Piece]:
        """Decode; what lies side by side both in a frame and on the disk comes as one piece.

        Raises:
            CorruptContent: a frame does not decode or holds other bytes than its directory says.
            NotFound, StorageError: a pack cannot be read.
        """
        frames, own, full = self.frames, self.own, self.full
        is_delta, new_frame = own.kind == FrameKind.DELTA, ~_repeats(full.pack, full.frame)
        alone = is_delta | self.apart
        joined = ~new_frame & ~alone
        joined[1:] &= ~alone[:-1] & (np.diff(own.start) == own.length[:-1])
        joined[1:] &= np.diff(self.offset) == own.length[:-1]
        again = (_repeats(own.pack, own.chunk) & ~new_frame).tolist()
        ids, start, end = own.ids.tobytes(), own.start.tolist(), (own.start + own.length).tolist()
        stored = frames.read_many(full.take(new_frame))
        deltas, at = frames.read_deltas(own), self.offset.tolist()
        plain = data = memoryview(b"")
        for a, b in pairwise([*np.flatnonzero(~joined).tolist(), len(own)]):
            if new_frame[a]:
                plain = memoryview(frames.decode(full, a, next(stored)))
            if not is_delta[a]:
                for n in range(a, b):
                    if not again[n]:
                        frames.check(plain[start[n] : end[n]], ids[32 * n : 32 * n + 32], own, n)
                data = plain[start[a] : end[b - 1]]
            elif not again[a]:
                base = plain[full.start[a] : full.start[a] + full.length[a]]
                data = memoryview(frames.decode(own, a, deltas.pop(a), base))
                frames.check(data, ids[32 * a : 32 * a + 32], own, a)
            yield Piece(at[a], data, bool(self.apart[a]))


def jobs(
    frames: Frames,
    own: Located,
    offset: npt.NDArray[np.int64] | None = None,
    apart: npt.NDArray[np.bool_] | None = None,
) -> Iterator[Job]:
    """Split these chunks into jobs that decode each full frame once. A chunk may be there several times, with several
    `offset`s, which its piece has then; chunks that are `apart` are not joined with others into pieces.

    Raises:
        CorruptContent: the base of a delta is missing.
    """
    full = frames.with_bases(own)
    offset = np.zeros(len(own), np.int64) if offset is None else offset
    apart = np.zeros(len(own), np.bool_) if apart is None else apart
    order = np.lexsort((offset, own.chunk, own.pack, full.frame, full.pack))
    own, full, offset, apart = own.take(order), full.take(order), offset[order], apart[order]
    cost = np.where(_repeats(full.pack, full.frame), 0, full.plain)
    cost += np.where((own.kind == FrameKind.DELTA) | _repeats(own.pack, own.chunk), own.length, 0)
    for part in _split(cost, _JOB):
        yield Job(frames, own.take(part), full.take(part), offset[part], apart[part])


class Part(NamedTuple):
    """Some chunks in a given order, `full` with bases in the place of deltas."""

    own: Located
    full: Located
    offset: npt.NDArray[np.int64]


def in_order(
    frames: Frames, own: Located, offset: npt.NDArray[np.int64], *, near: Sequence[int] = (), most: int = _TASK
) -> Iterator[Part]:
    """Split these chunks, in their order, into parts to read at once with `Frames.chunks`: about `most` plain bytes are
    decoded for each. `near`: see `Frames.with_bases`.

    Raises:
        CorruptContent: the base of a delta is missing.
    """
    full = frames.with_bases(own, near)
    cost = np.where(_repeats(full.pack, full.frame), 0, full.plain)
    cost += np.where(own.kind == FrameKind.DELTA, own.length, 0)
    for part in _split(cost, most):
        yield Part(own.take(part), full.take(part), offset[part])


def check_full_frames(blobs: RangeReader, pack: Descriptor, directory: PackDirectory) -> None:
    """Decode the full frames of one pack in the order in which they are stored, and check all their chunks.

    Raises:
        CorruptContent: a frame does not decode or holds other bytes than the directory says.
        NotFound, SizeMismatch, StorageError: the pack cannot be read.
    """
    at, stored, first = directory.frame_offsets(), directory.stored, directory.first_chunk.tolist()
    kinds, plain = directory.kinds.tolist(), directory.plain_lengths().tolist()
    ids, lengths = directory.ids, directory.lengths.tolist()
    for part in _split(stored.astype(np.int64), _READ):
        low, high = int(at[part.start]), int(at[part.stop - 1] + stored[part.stop - 1])
        data = memoryview(blobs.read_range(pack, low, high - low))
        for frame in range(part.start, part.stop):
            kind, data, rest = FrameKind(kinds[frame]), data[: stored[frame]], data[stored[frame] :]
            if kind is not FrameKind.DELTA:
                whole = memoryview(decode(kind, data, plain[frame], base=None, subject=_where(pack, frame)))
                for chunk in range(first[frame], first[frame + 1]):
                    got, expected = blake3.blake3(whole[: lengths[chunk]]).digest(), ids[32 * chunk : 32 * chunk + 32]
                    if got != expected:
                        raise _wrong_chunk(_where(pack, frame), expected, got)
                    whole = whole[lengths[chunk] :]
            data = rest


def _where(pack: Descriptor, frame: int) -> str:
    return f"pack {pack.digest} frame {frame}"


def _wrong_chunk(where: str, expected: bytes, got: bytes) -> DigestMismatch:
    return DigestMismatch(f"{where}: chunk", expected=f"blake3:{expected.hex()}", got=f"blake3:{got.hex()}")


def _split(cost: npt.NDArray[np.int64], most: int) -> Iterator[slice]:
    """Slices of rows that cost about `most` each."""
    part = np.cumsum(cost) // most
    for a, b in pairwise([0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(cost)]):
        if b > a:
            yield slice(a, b)


def _repeats(*columns: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which rows are equal to the row before."""
    equal = np.zeros(len(columns[0]), np.bool_)
    equal[1:] = True
    for column in columns:
        equal[1:] &= column[1:] == column[:-1]
    return equal
