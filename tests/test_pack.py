"""Packs: their bytes are pinned by hand-assembled vectors, and a directory that does not add up is refused."""

from __future__ import annotations

import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from casstore.digest import ChunkId
from casstore.errors import CorruptContent, DocumentError, UnsupportedVersion
from casstore.frame import FrameKind, decode, encode, encode_delta
from casstore.pack import FOOTER_SIZE, PackDirectory, PackWriter
from casstore.spec import MIB, READ_DIRECTORY, READ_FRAME_PLAIN
from tests.support.artifacts import DELTA, RAW, ZSTD, Frame, directory_bytes, frame, pack_bytes, read_directory
from tests.support.effort import at_most

A, B, C, D = b"first chunk", b"second" * 50, b"third" * 60, b"second" * 49 + b"SECOND"
HELLO = blake3(b"hello").digest()


class Sink:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data


def parse(encoded: bytes, stored: int) -> PackDirectory:
    """Parse the directory of a pack with `stored` bytes in frames."""
    return PackDirectory.parse(encoded, 8 + stored + len(encoded), subject="pack x")


def parse_frames(*frames: Frame) -> PackDirectory:
    return parse(directory_bytes(frames), sum(len(each.stored) for each in frames))


# --- right ones ------------------------------------------------------------------------------------------------------


def test_golden_pack_of_raw_frame() -> None:
    """Every byte of the smallest pack, from docs/reference/format.md."""
    sink = Sink()
    writer = PackWriter(sink)
    assert writer.add(FrameKind.RAW, b"hello", [(ChunkId(HELLO), 5)]) == 0
    directory = writer.finish()
    expected = (
        b"CASPACK1"
        b"hello"
        b"\x00\x00\x00\x00" b"\x01\x00\x00\x00" b"\x05\x00\x00\x00"  # RAW, 1 chunk, 5 bytes stored
        + bytes.fromhex("ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f")
        + b"\x05\x00\x00\x00"
        b"\x01\x00\x00\x00" b"\x01\x00\x00\x00" b"\x00\x00\x00\x00" b"\x00\x00\x00\x00" b"CASPACK1"
    )  # fmt: skip
    assert bytes(sink.data) == expected
    assert directory.stamp == blake3(expected[13:]).digest() + b"\x48\x00\x00\x00"
    assert directory.size == len(expected) == 85


def test_golden_pack_of_every_kind() -> None:
    """The writer's bytes are those that `struct` gives; compressed bytes are taken as they are, never pinned."""
    kind, stored = encode([B, C], 3)
    delta = encode_delta(D, B, 3)
    chunks = [(ChunkId(blake3(chunk).digest()), len(chunk)) for chunk in (A, B, C, D)]
    sink = Sink()
    writer = PackWriter(sink)
    assert writer.add(FrameKind.RAW, A, chunks[:1]) == 0
    assert writer.add(kind, stored, chunks[1:3]) == 1
    assert writer.add(FrameKind.DELTA, delta, chunks[3:], base=chunks[1][0]) == 3
    directory = writer.finish()
    expected = b"CASPACK1" + A + stored + delta
    expected += struct.pack("<B3xII", 0, 1, len(A))
    expected += struct.pack("<B3xII", 1, 2, len(stored))
    expected += struct.pack("<B3xII", 2, 1, len(delta))
    expected += b"".join(chunk_id for chunk_id, _ in chunks)
    expected += struct.pack("<4I", *(length for _, length in chunks))
    expected += blake3(B).digest()
    expected += struct.pack("<4I8s", 3, 4, 1, 0, b"CASPACK1")
    assert bytes(sink.data) == expected
    assert directory.size == len(expected)
    read = read_directory(expected)
    encoded = expected[8 + len(A + stored + delta) :]
    assert read.stamp == directory.stamp == blake3(encoded).digest() + struct.pack("<I", 3 * 12 + 4 * 36 + 32 + 24)
    assert read.kinds.tolist() == [0, 1, 2]
    assert read.frame_offsets().tolist() == [8, 8 + len(A), 8 + len(A) + len(stored)]
    assert read.stored.tolist() == [len(A), len(stored), len(delta)]
    assert read.plain_lengths().tolist() == [len(A), len(B) + len(C), len(D)]
    assert read.chunk_frames().tolist() == [read.frame_of(n) for n in range(4)] == [0, 1, 1, 2]
    assert read.first_chunk.tolist() == [0, 1, 3, 4]
    assert [read.chunk_id(n) for n in range(len(read))] == [chunk_id for chunk_id, _ in chunks]
    assert [read.base_of(n) for n in range(3)] == [None, None, chunks[1][0]]


def test_empty_pack() -> None:
    sink = Sink()
    PackWriter(sink).finish()
    assert bytes(sink.data) == b"CASPACK1" + struct.pack("<IIII8s", 0, 0, 0, 0, b"CASPACK1")
    read = read_directory(bytes(sink.data))
    assert len(read) == 0
    assert read.stamp == blake3(sink.data[8:]).digest() + b"\x18\x00\x00\x00"
    assert read.plain_lengths().tolist() == read.frame_offsets().tolist() == read.chunk_frames().tolist() == []


def test_size_counts_the_directory_to_come() -> None:
    """So a pack of frames that compress to nearly nothing is closed before its directory is too large to read."""
    sink = Sink()
    writer = PackWriter(sink)
    writer.add(FrameKind.RAW, b"hello", [(ChunkId(HELLO), 5)])
    writer.add(FrameKind.DELTA, b"x" * 5, [(ChunkId(HELLO), 5)], base=ChunkId(HELLO))
    size = writer.size
    writer.finish()
    assert size == len(sink.data)


chunk = st.binary(min_size=1, max_size=60).map(lambda data: data * 30)
frames_of_chunks = st.lists(
    st.one_of(
        st.builds(lambda chunks: frame(RAW, *chunks), st.lists(chunk, min_size=1, max_size=3)),
        st.builds(lambda chunks: frame(ZSTD, *chunks), st.lists(chunk, min_size=1, max_size=3)),
        st.builds(lambda one, base: frame(DELTA, one, base=base), chunk, chunk),
    ),
    max_size=6,
)


@given(frames_of_chunks)
def test_round_trip(frames: list[Frame]) -> None:
    sink = Sink()
    writer = PackWriter(sink)
    for each in frames:
        chunks = [(ChunkId(chunk_id), length) for chunk_id, length in each.chunks]
        writer.add(FrameKind(each.kind), each.stored, chunks, ChunkId(each.base) if each.base else None)
    writer.finish()
    pack = bytes(sink.data)
    assert pack == pack_bytes(frames)
    read = read_directory(pack)
    assert read.size == len(pack)
    assert read.kinds.tolist() == [each.kind for each in frames]
    assert [read.base_of(n) or b"" for n in range(len(frames))] == [each.base for each in frames]
    ids = [(read.chunk_id(n), int(read.lengths[n])) for n in range(len(read))]
    assert ids == [chunk for each in frames for chunk in each.chunks]
    for offset, length, each in zip(read.frame_offsets().tolist(), read.stored.tolist(), frames, strict=True):
        assert pack[offset : offset + length] == each.stored
        if each.kind != DELTA:
            plain = sum(length for _, length in each.chunks)
            kind = FrameKind(each.kind)
            assert len(decode(kind, pack[offset : offset + length], plain, base=None, subject="x")) == plain


# --- wrong ones ------------------------------------------------------------------------------------------------------

FRAMES = (frame(RAW, A), frame(ZSTD, B, C), frame(DELTA, D, base=B))
PACK = pack_bytes(FRAMES)
DIRECTORY = directory_bytes(FRAMES)
STORED = len(PACK) - len(DIRECTORY) - 8


def read_whole(pack: bytes) -> PackDirectory:
    """As a reader does that knows the pack's size from the manifest."""
    if len(pack) < FOOTER_SIZE:
        raise DocumentError("pack", "too short")
    return read_directory(pack)


def test_every_truncation_is_refused() -> None:
    for cut in range(len(PACK)):
        with pytest.raises(CorruptContent):
            read_whole(PACK[:cut])


def test_every_truncation_at_the_front_is_refused() -> None:
    """The directory alone tells the size that the pack must have."""
    for cut in range(1, len(PACK)):
        with pytest.raises(CorruptContent):
            read_whole(PACK[cut:])


def test_anything_more_is_refused() -> None:
    for more in (b"\0", b"\0" * 12, b"\0" * 36, PACK):
        with pytest.raises(CorruptContent):
            read_whole(PACK + more if more != PACK else PACK[:8] + PACK[8 : -len(DIRECTORY)] + PACK[8:])
        with pytest.raises(CorruptContent):
            read_whole(PACK[:8] + more + PACK[8:])


def test_every_flipped_bit_of_the_directory_changes_its_stamp_or_is_refused() -> None:
    """The map states the directory's stamp, so a flip that still parses is noticed as well."""
    good = read_directory(PACK).stamp
    parsed = 0
    for bit in range(8 * len(DIRECTORY)):
        flipped = bytearray(PACK)
        flipped[len(PACK) - len(DIRECTORY) + bit // 8] ^= 1 << bit % 8
        try:
            read = read_whole(bytes(flipped))
        except CorruptContent:
            continue
        parsed += 1
        assert read.stamp[:32] != good[:32]
        assert read.stamp[32:] == good[32:]
    ids = 32 * 8 * 5  # every bit of the four chunks' digests and the base's
    assert ids <= parsed < ids + 8 * 4 * 4 + 8 * 12 * 3


def test_row_56_counts_that_do_not_fit() -> None:
    for counts in [(2**32 - 1,) * 3, (2**32 - 1, 0, 0), (0, 2**32 - 1, 0), (0, 0, 2**32 - 1), (10**9, 4, 1)]:
        with pytest.raises(DocumentError, match="fits its pack"):
            parse(directory_bytes(FRAMES, counts=counts), STORED)
        with pytest.raises(DocumentError, match="fits its pack"):
            PackDirectory.parse(directory_bytes([], counts=counts), 2**31, subject="pack x")
    for counts in [(4, 4, 1), (3, 4, 0), (3, 3, 1), (2, 4, 1), (0, 0, 0), (0, 4, 1), (2, 3, 1), (0, 0, 1)]:
        with pytest.raises(DocumentError):
            parse(directory_bytes(FRAMES, counts=counts), STORED)


def test_hostile_counts_fail_fast() -> None:
    """A claim of a 4 GiB pack whose directory fills it costs nothing."""
    footer = struct.pack("<IIII8s", 2**28, 2**20, 0, 0, b"CASPACK1")
    tracemalloc.start()
    with at_most(10), pytest.raises(DocumentError, match="fits its pack"):
        PackDirectory.parse(footer, 2**32, subject="pack x")
    footer = struct.pack("<IIII8s", 2**20, 2**20, 0, 0, b"CASPACK1")
    with at_most(10), pytest.raises(DocumentError, match="expected a directory of 50331672 bytes, got 24"):
        PackDirectory.parse(footer, 2**32, subject="pack x")
    assert tracemalloc.get_traced_memory()[1] < MIB
    tracemalloc.stop()


def test_directory_past_the_limit() -> None:
    entries = (READ_DIRECTORY - FOOTER_SIZE) // 12
    good = struct.pack("<IIII8s", entries, 0, 0, 0, b"CASPACK1")
    assert 12 * entries + FOOTER_SIZE <= READ_DIRECTORY < 12 * (entries + 1) + FOOTER_SIZE
    with pytest.raises(DocumentError, match=f"expected a directory of {12 * entries + FOOTER_SIZE} bytes, got 24"):
        PackDirectory.parse(good, 2**32, subject="pack x")  # the limit lets it through to the next check
    with pytest.raises(DocumentError, match="fits its pack"):
        PackDirectory.parse(struct.pack("<IIII8s", entries + 1, 0, 0, 0, b"CASPACK1"), 2**32, subject="pack x")


@pytest.mark.parametrize("size", [0, 7, FOOTER_SIZE, 31])
def test_pack_shorter_than_the_shortest(size: int) -> None:
    with pytest.raises(DocumentError, match="at least 32 bytes"):
        PackDirectory.parse(directory_bytes([]), size, subject="pack x")


@pytest.mark.parametrize("more", [-24, -1, 1, 12])
def test_directory_of_another_length(more: int) -> None:
    """What is handed over must be the directory and nothing else, however right its footer is."""
    encoded = (b"\0" * 12 + directory_bytes([]))[12 - more :] if more > 0 else directory_bytes([])[-more:]
    with pytest.raises(DocumentError):
        PackDirectory.parse(encoded, 100, subject="pack x")


@pytest.mark.parametrize("cut", [1, 12, 36, 32 * 4])
def test_directory_cut_off_at_its_front(cut: int) -> None:
    with pytest.raises(DocumentError, match=f"expected a directory of {len(DIRECTORY)} bytes"):
        PackDirectory.parse(DIRECTORY[cut:], len(PACK), subject="pack x")
    with pytest.raises(DocumentError, match=f"expected a directory of {len(DIRECTORY)} bytes"):
        PackDirectory.parse(PACK[-len(DIRECTORY) - cut :], len(PACK), subject="pack x")


def test_newer_versions_are_named_as_such() -> None:
    with pytest.raises(UnsupportedVersion, match="CASPACK1"):
        parse(directory_bytes(FRAMES, magic=b"CASPACK2"), STORED)
    with pytest.raises(UnsupportedVersion, match="CASPACK1"):
        parse(directory_bytes(FRAMES, zero=1), STORED)
    with pytest.raises(UnsupportedVersion, match="kind 3"):
        parse_frames(replace(FRAMES[0], kind=3))
    with pytest.raises(UnsupportedVersion, match="kind 255"):
        parse_frames(replace(FRAMES[0], kind=255), FRAMES[1])
    for reserved in (b"\1\0\0", b"\0\0\1", b"\0\x80\0"):
        with pytest.raises(UnsupportedVersion, match="reserved"):
            parse_frames(FRAMES[1], replace(FRAMES[0], reserved=reserved))


ID = b"i" * 32
LIES = {
    "no chunks": Frame(ZSTD, b"xxxx", []),
    "chunk of no bytes": Frame(ZSTD, b"xxxx", [(ID, 0)]),
    "chunk of no bytes beside others": Frame(ZSTD, b"xxxx", [(ID, 5), (ID, 0)]),
    "chunk of 2^32-1 bytes": Frame(ZSTD, b"xxxx", [(ID, 2**32 - 1)]),
    "chunks that add up to 2^32": Frame(ZSTD, b"xxxx", [(ID, 2**31), (ID, 2**31)]),
    "chunks that add up to 2^32 and 1": Frame(ZSTD, b"xxxx", [(ID, 2**32 - 1), (ID, 2)]),
    "frame past the limit by one": Frame(ZSTD, b"xxxx", [(ID, READ_FRAME_PLAIN), (ID, 1)]),
    "raw frame shorter than its chunks": Frame(RAW, b"xxxx", [(ID, 5)]),
    "raw frame longer than its chunks": Frame(RAW, b"xxxx", [(ID, 3)]),
    "nothing stored": Frame(ZSTD, b"", [(ID, 5)]),
    "much more stored than plain": Frame(ZSTD, bytes(1000), [(ID, 5)]),
    "delta of two chunks": Frame(DELTA, b"xxxx", [(ID, 5), (ID, 5)], base=ID),
    "delta without a base": Frame(DELTA, b"xxxx", [(ID, 5)]),
    "delta of two bases": Frame(DELTA, b"xxxx", [(ID, 5)], base=ID + ID),
    "raw frame with a base": Frame(RAW, b"xxxxx", [(ID, 5)], base=ID),
    "full frame with a base": Frame(ZSTD, b"xxxx", [(ID, 5)], base=ID),
}


@pytest.mark.parametrize("lie", LIES)
def test_row_55_frames_that_do_not_add_up(lie: str) -> None:
    for frames in [(LIES[lie],), (FRAMES[1], LIES[lie]), (LIES[lie], FRAMES[2])]:
        with pytest.raises(DocumentError):
            parse_frames(*frames)


def test_limits_are_reached() -> None:
    """What is just inside is taken, so the refusals above are about what they name."""
    assert len(parse_frames(Frame(ZSTD, b"xxxx", [(ID, READ_FRAME_PLAIN)]))) == 1
    assert len(parse_frames(Frame(ZSTD, bytes(5 + 64), [(ID, 5)]))) == 1
    assert len(parse_frames(Frame(DELTA, b"xxxx", [(ID, 5)], base=ID))) == 1


@pytest.mark.parametrize("wrong", [-1, 1, 2**32, 2**33 - 1, -STORED])
def test_pack_of_another_size(wrong: int) -> None:
    with pytest.raises(DocumentError):
        PackDirectory.parse(DIRECTORY, len(PACK) + wrong, subject="pack x")


def test_counts_of_frames_that_cancel_out() -> None:
    """Frame counts are 32 bits: sums must not wrap."""
    encoded = bytearray(directory_bytes([frame(RAW, A), frame(RAW, A)]))
    encoded[4:8] = struct.pack("<I", 2**32 - 1)
    encoded[16:20] = struct.pack("<I", 3)
    with pytest.raises(DocumentError, match="2 in all"):
        parse(bytes(encoded), 2 * len(A))


def test_stored_lengths_that_cancel_out() -> None:
    frames = [Frame(ZSTD, b"x" * 10, [(ID, READ_FRAME_PLAIN)]) for _ in range(2)]
    encoded = bytearray(directory_bytes(frames))
    encoded[8:12] = struct.pack("<I", 2**32 - 10)
    encoded[20:24] = struct.pack("<I", 30)
    with pytest.raises(DocumentError):
        parse(bytes(encoded), 20)


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptContent):
        PackDirectory.parse(data, len(data) + 8, subject="pack x")


@given(st.binary(min_size=12 * 3 + 36 * 4 + 32, max_size=12 * 3 + 36 * 4 + 32))
def test_garbage_before_a_right_footer_is_consistent_or_refused(data: bytes) -> None:
    encoded = data + struct.pack("<IIII8s", 3, 4, 1, 0, b"CASPACK1")
    stored = int(np.frombuffer(data[: 12 * 3], "<u4")[2::3].sum(dtype=np.int64))
    try:
        read = parse(encoded, stored)
    except CorruptContent:
        return
    assert read.plain_lengths().sum() == read.lengths.sum()
    assert read.frame_offsets()[-1] + read.stored[-1] == 8 + stored
