"""Where the chunks of a capture are in the end: the packs that were written, and the runs that name them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from casstore import packer, spec
from casstore.digest import ChunkId
from casstore.errors import StorageError
from casstore.frame import FrameKind
from casstore.oci import Descriptor
from casstore.pack import StoredPack
from casstore.packer import EncodedFrame, Packer, Stream
from casstore.runs import Part, Row, RunRecorder, settle
from tests.support.artifacts import MemoryBlob, MemoryBlobs, read_directory
from tests.support.edits import frames

# --- the packer -------------------------------------------------------------------------------------------------------

Sizes = list[tuple[bool, list[int]]]
"""Per frame: whether it is a delta, and the plain lengths of its chunks."""

a_frame = st.one_of(
    st.tuples(st.just(True), st.lists(st.integers(30, 400), min_size=1, max_size=1)),
    st.tuples(st.just(False), st.lists(st.integers(1, 400), min_size=1, max_size=5)),
)


def encoded(number: int, size: tuple[bool, list[int]]) -> EncodedFrame:
    """A frame that is its own: nothing of it is decoded here."""
    delta, lengths = size
    chunks = [(ChunkId(blake3(b"%d %d" % (number, n)).digest()), length) for n, length in enumerate(lengths)]
    stored = random.Random(number).randbytes(lengths[0] // 10 + 1 if delta else sum(lengths))
    if delta:
        return EncodedFrame(FrameKind.DELTA, stored, chunks, ChunkId(bytes(32)))
    return EncodedFrame(FrameKind.RAW, stored, chunks)


@given(
    added=st.lists(a_frame, max_size=40),
    copied=st.lists(a_frame, max_size=10),
    target=st.integers(100, 3000),
    gathered=st.integers(1, 200),
    data=st.data(),
)
def test_every_chunk_is_where_the_packer_says(
    added: Sizes, copied: Sizes, target: int, gathered: int, data: st.DataObject
) -> None:
    blobs = MemoryBlobs()
    given_frames = [encoded(n, size) for n, size in enumerate([*added, *copied])]
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as syncing:
        patch.setattr(spec, "PACK_TARGET", target)
        patch.setattr(packer, "_GATHERED", gathered)
        patch.setattr(packer, "PACKS_OF_A_SIZE", 3)
        writing = Packer(blobs.new_blob, syncing)
        for frame in given_frames[: len(added)]:
            writing.add(frame)
        copies = [writing.copy(frame) for frame in given_frames[len(added) :]]
        packs = writing.finish()
    directories = [read_directory(blobs.contents[pack.descriptor.digest]) for pack in packs]
    assert [pack.directory for pack in packs] == [directory.stamp for directory in directories]
    assert writing.counts == [len(directory) for directory in directories]
    assert writing.stored == sum(len(frame.stored) for frame in given_frames[: len(added)])
    written = [frame for pack in packs for frame in frames(blobs.contents[pack.descriptor.digest])]
    expected = [(frame.kind, list(frame.chunks), frame.stored, frame.base or b"") for frame in given_frames]
    assert sorted(written) == sorted(expected)
    for n, pack in enumerate(packs[:-1]):
        assert pack.descriptor.size >= target * (1 + n // 3)

    def chunks_at(part: Part) -> list[tuple[bytes, int]]:
        directory = directories[part.pack]
        return [(directory.chunk_id(n), int(directory.lengths[n])) for n in range(part.first, part.first + part.chunks)]

    for frame, (n, first) in zip(given_frames[len(added) :], copies, strict=True):
        assert chunks_at(Part(0, n, first, len(frame.chunks))) == frame.chunks
    for stream in Stream:
        kind = FrameKind.DELTA if stream is Stream.DELTA else FrameKind.RAW
        chunks = [chunk for frame in given_frames[: len(added)] if frame.kind is kind for chunk in frame.chunks]
        positions = list(accumulate((length for _, length in chunks), initial=0))
        ends = range(1, len(chunks) + 1)
        ranges = [(end - 1, end) for end in ends]
        if chunks:
            place = st.integers(0, len(chunks))
            pairs = st.tuples(place, place).filter(lambda pair: pair[0] < pair[1])
            ranges += data.draw(st.lists(pairs, max_size=5))
        for start, end in ranges:
            length = positions[end] - positions[start]
            parts = list(writing.find(stream, start, positions[start], length, end - start))
            assert [chunk for part in parts for chunk in chunks_at(part)] == chunks[start:end]
            assert [part.length for part in parts] == [sum(length for _, length in chunks_at(part)) for part in parts]
            assert all(part.chunks > 0 for part in parts)


class FailingBlob(MemoryBlob):
    """A blob whose syncing fails."""

    def finish(self, media_type: str) -> Descriptor:
        raise StorageError("the device is on fire")


@pytest.mark.parametrize("failing", range(8))
def test_an_error_while_syncing_surfaces_as_it_is(failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some packs later, or at the end; whatever is added then."""
    monkeypatch.setattr(spec, "PACK_TARGET", 100)
    blobs, count = MemoryBlobs(), 0

    def new_blob() -> MemoryBlob:
        nonlocal count
        count += 1
        return FailingBlob(blobs) if count == failing + 1 else MemoryBlob(blobs)

    with ThreadPoolExecutor(1) as syncing:
        writing = Packer(new_blob, syncing)

        def write() -> list[StoredPack]:
            for n in range(8):
                writing.add(encoded(n, (False, [200])))
            return writing.finish()

        with pytest.raises(StorageError, match="the device is on fire"):
            write()
    assert count <= failing + 1 + packer._UNSYNCED + 1, "it is noticed soon"


# --- runs -------------------------------------------------------------------------------------------------------------

Placed = tuple[int, int, int, int]
"""Offset, length, pack, number in the pack."""


def naive_runs(chunks: Sequence[Placed]) -> list[tuple[int, int, int, int, int]]:
    """(gap, length, pack, first chunk, chunks) of the runs, as long as possible."""
    runs: list[tuple[int, int, int, int, int]] = []
    end = 0
    for offset, length, pack, number in chunks:
        gap, end = offset - end, offset + length
        if runs and gap == 0 and runs[-1][2] == pack and runs[-1][3] + runs[-1][4] == number:
            before = runs[-1]
            runs[-1] = (before[0], before[1] + length, pack, before[3], before[4] + 1)
        else:
            runs.append((gap, length, pack, number, 1))
    return runs


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([0, 0, 0, 1, 5000]),  # gap
            st.integers(0, 2),  # pack
            st.none() | st.integers(0, 6),  # number; None: the next one
        ),
        max_size=40,
    ),
    moves=st.dictionaries(st.integers(0, 2), st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(1, 4))),
    grouped=st.booleans(),
)
def test_runs_are_as_long_as_possible_wherever_chunks_end_up(
    steps: list[tuple[int, int, int | None]], moves: dict[int, tuple[int, int, int]], *, grouped: bool
) -> None:
    """Of some packs, groups of `moves[pack][2]` chunks are elsewhere in the end, one after another or apart."""

    def length_of(pack: int, number: int) -> int:
        return 1 + (7 * pack + 3 * number) % 11

    def final(pack: int, number: int) -> tuple[int, int]:
        if pack not in moves:
            return pack, number
        to, first, group = moves[pack]
        return to, first + number + 5 * (number // group)

    chunks, end, last = [], 0, (0, -1)
    for gap, pack, wanted in steps:
        number = (last[1] + 1 if last[0] == pack else 0) if wanted is None else wanted
        last = pack, number
        chunks.append((end + gap, length_of(pack, number), pack, number))
        end += gap + length_of(pack, number)
    recorder = RunRecorder()
    for offset, length, pack, number in chunks:
        recorder.add(offset, length, pack, number, 100 * number)
    assert [row[:5] for row in recorder] == naive_runs(chunks)
    assert all(row.position == 100 * row.first for row in recorder)

    def place(row: Row) -> Iterator[Part]:
        parts = [Part(length_of(row.pack, n), *final(row.pack, n), 1) for n in range(row.first, row.first + row.chunks)]
        while parts:
            count = 1
            while grouped and count < len(parts) and parts[count][1:3] == (parts[0].pack, parts[0].first + count):
                count += 1
            yield Part(sum(part.length for part in parts[:count]), parts[0].pack, parts[0].first, count)
            del parts[:count]

    runs = settle(recorder, place)
    columns = (runs.gap, runs.length, runs.pack, runs.first, runs.count)
    expected = naive_runs([(offset, length, *final(pack, number)) for offset, length, pack, number in chunks])
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected
    found = {pack: (first.tolist(), count.tolist()) for pack, first, count in recorder.by_pack()}
    rows = naive_runs(chunks)
    assert found == {
        pack: ([row[3] for row in rows if row[2] == pack], [row[4] for row in rows if row[2] == pack])
        for pack in sorted({row[2] for row in rows})
    }


def test_streams_are_no_known_packs() -> None:
    recorder = RunRecorder()
    recorder.add(0, 5, Stream.FULL, 0)
    recorder.add(5, 5, 3, 7)
    recorder.add(10, 5, Stream.DELTA, 0)
    assert [pack for pack, _, _ in recorder.by_pack()] == [3]
    assert [pack for pack, _, _ in RunRecorder().by_pack()] == []
