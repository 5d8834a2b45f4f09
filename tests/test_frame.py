"""Frames: what is encoded decodes to itself, and everything else that a store or a registry may hand over is refused.

Row 66 of the fault list: bomb, lying content size, large window, truncation, second frame, trailing bytes, skippable
frame, dictionary id, bad checksum. Row 67: bytes of another kind.
"""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from casstore.errors import CorruptContent
from casstore.frame import LEVELS, FrameKind, decode, encode, encode_delta
from casstore.spec import KIB, MIB, READ_FRAME_PLAIN

ZSTD, RAW, DELTA = FrameKind.ZSTD, FrameKind.RAW, FrameKind.DELTA
TEXT = b"".join(b"line %d of a file that compresses\n" % n for n in range(3000))
NOISE = random.Random(1).randbytes(100_000)

plain_parts = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=200),
        st.builds(lambda byte, count: bytes([byte]) * count, st.integers(0, 255), st.integers(1, 20_000)),
    ),
    min_size=1,
    max_size=5,
)


def plain(kind: FrameKind, stored: bytes, length: int, base: bytes | None = None) -> bytes:
    return bytes(decode(kind, stored, length, base=base, subject="frame 7"))


def compress(data: bytes, *, checksum: bool = False, size: bool = True, level: int = 3) -> bytes:
    return zstandard.ZstdCompressor(level=level, write_checksum=checksum, write_content_size=size).compress(data)


@given(plain_parts, st.sampled_from([1, 3, 9, 19]))
def test_round_trip(parts: list[bytes], level: int) -> None:
    whole = b"".join(parts)
    kind, stored = encode(parts, level)
    assert kind in {RAW, ZSTD}
    assert plain(kind, stored, len(whole)) == whole


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_is_readable(level: int) -> None:
    """Level 20 and up would need windows that `decode` refuses; a full frame of the lower ones does not."""
    whole = NOISE * 10 + TEXT * 20
    kind, stored = encode([whole[:MIB]], level)
    assert plain(kind, stored, MIB) == whole[:MIB]


def test_raw_where_compression_does_not_pay() -> None:
    assert encode([NOISE], 3) == (RAW, NOISE)
    assert encode([TEXT], 3)[0] is ZSTD
    assert encode([memoryview(NOISE)[:1], memoryview(NOISE)[1:2]], 3) == (RAW, NOISE[:2])


@given(st.binary(min_size=1, max_size=300), st.binary(min_size=1, max_size=300))
def test_delta_round_trip(data: bytes, base: bytes) -> None:
    """Bases of any length, also of under 8 bytes, which zstd does not use."""
    assert plain(DELTA, encode_delta(data, base, 3), len(data), base) == data


def test_delta_against_a_base_that_looks_like_a_zstd_dictionary() -> None:
    base = b"\x37\xa4\x30\xec" + NOISE[:5000]
    stored = encode_delta(base + b"!", base, 3)
    assert len(stored) < 60
    assert plain(DELTA, stored, len(base) + 1, base) == base + b"!"


def test_delta_pays() -> None:
    base = NOISE[:64_000]
    changed = base[:30_000] + b"changed" + base[30_007:]
    assert len(encode_delta(changed, base, 3)) < 200


def test_delta_with_another_base_is_not_the_same_chunk() -> None:
    base = NOISE[:64_000]
    stored = encode_delta(base, base, 3)
    other = bytearray(base)
    other[100] ^= 1
    try:
        got = plain(DELTA, stored, len(base), bytes(other))
    except CorruptContent:
        return
    assert blake3(got).digest() != blake3(base).digest()


def header(content_size: int, *, window: int | None = None, dict_id: bytes = b"") -> bytes:
    """A zstd frame header (RFC 8878, 3.1.1.1) with an 8-byte content size; `window` is the exponent over 10."""
    flag = {0: 0, 1: 1, 2: 2, 4: 3}[len(dict_id)]
    descriptor = 3 << 6 | (1 << 5 if window is None else 0) | flag
    window_byte = b"" if window is None else bytes([(window - 10) << 3])
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + window_byte + dict_id + struct.pack("<Q", content_size)


def rle_block(byte: int, count: int, *, last: bool = True) -> bytes:
    """A block that decodes to `count` times one byte."""
    return struct.pack("<I", count << 3 | 1 << 1 | last)[:3] + bytes([byte])


def raw_block(data: bytes, *, last: bool = True) -> bytes:
    return struct.pack("<I", len(data) << 3 | last)[:3] + data


def test_hand_made_frame_is_right() -> None:
    """The attacks below differ from this one in what they name."""
    assert plain(ZSTD, header(5, window=20) + rle_block(65, 5), 5) == b"AAAAA"
    assert plain(ZSTD, header(5) + raw_block(b"hello"), 5) == b"hello"
    assert plain(ZSTD, compress(TEXT, checksum=True), len(TEXT)) == TEXT


GOOD = compress(TEXT)
CHECKED = compress(TEXT, checksum=True)
SKIPPABLE = b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"skip"
LENGTH = len(TEXT)
ATTACKS = {
    "bomb: 1 GiB of zeros claimed as a small frame": (compress(bytes(1 << 30), level=1), LENGTH),
    "bomb: header lies, blocks hold more": (header(10, window=20) + rle_block(0, 100_000), 10),
    "bomb: single segment, blocks hold more": (header(10) + rle_block(0, 11), 10),
    "content size: blocks hold less": (header(10, window=20) + rle_block(0, 9), 10),
    "content size: 2^62": (header(2**62, window=20) + rle_block(0, 10), 10),
    "content size: 2^64-1": (header(2**64 - 1, window=20) + rle_block(0, 10), 10),
    "content size: 2^64-2": (header(2**64 - 2, window=20) + rle_block(0, 10), 10),
    "content size: 0": (header(0, window=20) + rle_block(0, 10), 10),
    "content size: not stated": (compress(TEXT, size=False), LENGTH),
    "content size: other than the directory's": (GOOD, LENGTH + 1),
    "window: 2 GiB": (header(10, window=31) + rle_block(0, 10), 10),
    "window: 32 MiB": (header(10, window=25) + rle_block(0, 10), 10),
    "truncated: last byte": (GOOD[:-1], LENGTH),
    "truncated: half": (GOOD[: len(GOOD) // 2], LENGTH),
    "truncated: header only": (GOOD[:9], LENGTH),
    "truncated: within the header": (GOOD[:5], LENGTH),
    "truncated: magic only": (GOOD[:4], LENGTH),
    "truncated: nothing": (b"", LENGTH),
    "truncated: checksum cut off": (CHECKED[:-4], LENGTH),
    "truncated: no last block": (header(10, window=20) + rle_block(0, 10, last=False), 10),
    "second frame": (GOOD + GOOD, LENGTH),
    "second frame, both of half the length": (compress(TEXT[:5]) + compress(TEXT[:5]), 10),
    "second frame: empty": (GOOD + compress(b""), LENGTH),
    "second frame: skippable": (GOOD + SKIPPABLE, LENGTH),
    "trailing byte": (GOOD + b"\0", LENGTH),
    "skippable frame first": (SKIPPABLE + GOOD, LENGTH),
    "skippable frame only": (SKIPPABLE, 4),
    "dictionary id: 1 byte": (header(10, window=20, dict_id=b"\7") + rle_block(0, 10), 10),
    "dictionary id: 4 bytes": (header(10, window=20, dict_id=b"\7\0\0\1") + rle_block(0, 10), 10),
    "bad checksum": (CHECKED[:-1] + bytes([CHECKED[-1] ^ 1]), LENGTH),
    "reserved bit": (b"\x28\xb5\x2f\xfd" + bytes([GOOD[4] | 1 << 3]) + GOOD[5:], LENGTH),
    "reserved block type": (header(10, window=20) + struct.pack("<I", 10 << 3 | 3 << 1 | 1)[:3] + bytes(10), 10),
    "not zstd: plain bytes": (TEXT, LENGTH),
    "not zstd: gzip": (b"\x1f\x8b\x08\0" + bytes(40), 10),
    "not zstd: old version of it": (b"\x27\xb5\x2f\xfd" + GOOD[4:], LENGTH),
    "empty frame": (compress(b""), 0),
    "empty frame and more": (compress(b"") + b"more", 0),
}


@pytest.mark.parametrize("base", [None, TEXT], ids=["zstd", "delta"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_row_66_refused(attack: str, base: bytes | None) -> None:
    stored, length = ATTACKS[attack]
    tracemalloc.start()
    try:
        with pytest.raises(CorruptContent, match=r"^frame 7: "):
            plain(ZSTD if base is None else DELTA, stored, length, base)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB


def test_what_zstd_would_refuse_as_well_is_named() -> None:
    with pytest.raises(CorruptContent, match="expected no dictionary id"):
        plain(ZSTD, *ATTACKS["dictionary id: 1 byte"])
    with pytest.raises(CorruptContent, match="expected a zstd frame, got 502a4d18"):
        plain(ZSTD, *ATTACKS["skippable frame only"])


def test_nothing_is_allocated_from_a_claim() -> None:
    """In a process that may have 256 MiB more than it has, claims of gigabytes fail as damage, not for memory."""
    script = """
import resource, struct, zstandard
from casstore.errors import CorruptContent
from casstore.frame import FrameKind, decode
from casstore.spec import MAX_MAP, READ_FRAME_PLAIN
from tests.test_frame import ATTACKS, header, rle_block
have = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (have + (256 << 20),) * 2)
for name, (stored, length) in ATTACKS.items():
    for limit in (READ_FRAME_PLAIN, MAX_MAP):
        try:
            decode(FrameKind.ZSTD, stored, length, base=None, subject=name, limit=limit)
        except CorruptContent:
            continue
        raise SystemExit(f"taken: {name}")
for size in (2**32, 2**40, 2**62):
    try:
        decode(FrameKind.ZSTD, header(size, window=20) + rle_block(0, 10), size, base=None, subject="claim")
    except CorruptContent as error:
        assert "expected 1 to" in str(error), error
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_too_long_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(CorruptContent, match="1 to 4194304 plain bytes"):
        plain(ZSTD, b"", READ_FRAME_PLAIN + 1)
    with pytest.raises(CorruptContent, match="1 to 4194304 plain bytes"):
        plain(RAW, b"", READ_FRAME_PLAIN + 1)


def test_longest_frame() -> None:
    whole = TEXT * (READ_FRAME_PLAIN // len(TEXT) + 1)
    stored = compress(whole[:READ_FRAME_PLAIN], level=19)
    assert plain(ZSTD, stored, READ_FRAME_PLAIN) == whole[:READ_FRAME_PLAIN]


@pytest.mark.parametrize("length", [0, 4, 6])
def test_raw_of_another_length(length: int) -> None:
    with pytest.raises(CorruptContent, match="frame 7"):
        plain(RAW, b"hello", length)


def test_delta_read_without_its_base() -> None:
    with pytest.raises(CorruptContent, match="frame 7"):
        plain(ZSTD, encode_delta(NOISE, NOISE, 3), len(NOISE))


@given(st.integers(0, 8 * len(GOOD) - 1))
def test_flipped_bit_never_gives_the_same_bytes_twice_over(bit: int) -> None:
    """A flip is refused, or gives `length` bytes; those are other ones unless the bit had no meaning."""
    stored = bytearray(GOOD)
    stored[bit // 8] ^= 1 << bit % 8
    try:
        got = plain(ZSTD, bytes(stored), LENGTH)
    except CorruptContent:
        return
    assert len(got) == LENGTH


def test_threads_have_contexts_of_their_own() -> None:
    """A zstd context is not thread-safe."""

    def work(seed: int) -> bool:
        data = random.Random(seed).randbytes(50) * KIB
        kind, stored = encode([data], 3)
        return plain(kind, stored, len(data)) == data

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))
