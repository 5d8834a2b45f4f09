"""The chunker: its cuts depend on content alone, and are the same for ever (a change would lose all older dedup)."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore import chunker, scan
from casstore.disk import DiskSource
from casstore.progress import Meter, silent
from casstore.spec import BLOCK, CHUNK_MAX, CHUNK_MIN, KIB, MIB
from tests.support.disks import Segment, segments, write_segments

MIN, MAX = CHUNK_MIN // BLOCK, CHUNK_MAX // BLOCK
LOOKAHEAD = MIN + MAX
MULTIPLIERS = "ee826b57cac46dd01c540b327e73a8514a899a994f0fe7115add4e122e14e695"
GOLDEN_CUTS = """
0-7 7-13 13-17 17-22 22-37 37-43 43-57 57-62 62-66 66-73 73-79 79-83 83-98 98-100 103-107 107-112 112-117
117-120 120-127 127-130 130-142 142-152 152-162 162-165 165-169 169-175 175-182 182-191 191-207 207-214
214-219 219-222 222-227 227-242 242-249 249-259 259-267 267-270 270-276 276-282 282-287 287-290 290-298
298-300 303-306 306-309 309-321 321-327 327-333 333-340 340-344 344-350 350-355 355-358 358-363 363-368
368-374 374-385 385-389 389-397 397-400 420-429 429-436 436-439 439-449 449-454 454-458 458-461 461-464
464-467 467-470 470-474 474-486 486-489 489-492 492-496 496-499 499-502 509-533 533-539 539-542 542-551
551-564 564-567 567-572 572-577 577-580 580-585 585-593 593-600 600-604 604-618 618-622 622-630 630-637
637-641 641-645 645-649 649-653 653-667 667-670 670-673 673-677 677-683 683-690
"""
INVERSE = pow(int(chunker._MULTIPLIERS[1]), -1, 2**64)

Cuts = list[tuple[int, int]]


def to_blocks(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data + bytes(-len(data) % BLOCK), np.uint8)


def cuts(data: bytes) -> Cuts:
    """The chunks of a whole buffer, in blocks."""
    blocks = to_blocks(data)
    hashes = chunker.block_hashes(blocks)
    cut = chunker.cut(hashes, chunker.zero_blocks(blocks, hashes), last=True)
    assert cut.done == len(hashes)
    return cut.chunks


def windowed_cuts(data: bytes, sizes: Iterator[int]) -> Cuts:
    """The chunks of a buffer that is shown in windows of so many new blocks."""
    blocks = to_blocks(data).reshape(-1, BLOCK)
    start = end = 0
    found: Cuts = []
    while True:
        end = min(end + next(sizes), len(blocks))
        window = blocks[start:end].reshape(-1)
        hashes = chunker.block_hashes(window)
        last = end == len(blocks)
        cut = chunker.cut(hashes, chunker.zero_blocks(window, hashes), last=last)
        found += [(start + a, start + b) for a, b in cut.chunks]
        start += cut.done
        if last:
            assert start == end
            return found


def random_blocks(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count * BLOCK)


def block_of_hash_0() -> bytes:
    """A block that is not zero, whose hash is: word 1 undoes word 0."""
    words = [0] * (BLOCK // 8)
    words[0] = 1
    words[1] = -int(chunker._MULTIPLIERS[0]) * INVERSE % 2**64
    return np.array(words, "<u8").tobytes()


# --- the hash --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [random_blocks(1, 1), random_blocks(1, 2), b"\xff" * BLOCK, bytes(BLOCK - 1) + b"x"])
def test_hash_is_the_documented_one(block: bytes) -> None:
    state = 0
    expected = 0
    for n in range(BLOCK // 8):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        word = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
        expected += ((word ^ word >> 31) | 1) * int.from_bytes(block[8 * n : 8 * n + 8], "little")
    assert chunker.block_hashes(to_blocks(block)).tolist() == [expected % 2**64]


def test_multipliers_are_pinned() -> None:
    """Another multiplier would move every boundary: no chunk of an older snapshot would ever be found again."""
    assert hashlib.sha256(chunker._MULTIPLIERS.astype("<u8").tobytes()).hexdigest() == MULTIPLIERS


def test_constant_blocks_have_different_hashes() -> None:
    """A plain XOR of the words would give 0 for each."""
    data = b"".join(bytes([byte]) * BLOCK for byte in range(256))
    hashes = chunker.block_hashes(to_blocks(data))
    assert len(set(hashes.tolist())) == 256
    assert np.flatnonzero(hashes == 0).tolist() == [0]


def test_zero_blocks_are_looked_at() -> None:
    """A block of hash 0 that is not zero must not be dropped."""
    odd = block_of_hash_0()
    data = (odd + bytes(BLOCK) + random_blocks(1)) * 50
    blocks = to_blocks(data)
    hashes = chunker.block_hashes(blocks)
    assert hashes.tolist().count(0) == 100
    assert chunker.zero_blocks(blocks, hashes).tolist() == [False, True, False] * 50


# --- the cuts --------------------------------------------------------------------------------------------------------


def layout(seed: int) -> bytes:
    """Pseudo-random bytes that do not depend on Python's generator, with zero runs short and long."""
    stream = hashlib.shake_256(b"casstore chunker %d" % seed).digest(700 * BLOCK)
    data = bytearray(stream)
    for start, length in ((100, 3), (200, MIN - 1), (300, MIN), (400, 20), (500, 1), (502, 7), (690, 10)):
        data[start * BLOCK : (start + length) * BLOCK] = bytes(length * BLOCK)
    return bytes(data)


def test_golden_cuts() -> None:
    """The cuts of a fixed input. If this fails, dedup against all older snapshots is lost: undo the change."""
    found = cuts(layout(0))
    assert " ".join(f"{a}-{b}" for a, b in found) == " ".join(GOLDEN_CUTS.split())


def test_empty_and_tiny() -> None:
    assert cuts(b"") == []
    assert cuts(b"x") == [(0, 1)]
    assert cuts(bytes(BLOCK)) == []
    assert cuts(bytes(100 * BLOCK)) == []
    assert cuts(bytes(BLOCK) + b"x") == [(1, 2)]
    assert cuts(bytes(BLOCK) + b"x" + bytes(2 * BLOCK)) == [(1, 2)]
    nothing = chunker.cut(np.empty(0, np.uint64), np.empty(0, np.bool_), last=False)
    assert (nothing.chunks, nothing.done) == ([], 0)


def zero_runs(data: bytes) -> list[tuple[int, int]]:
    """(first block, blocks) of each run of zero blocks, found the slow way."""
    zeros, runs = bytes(BLOCK), []
    padded = data + bytes(-len(data) % BLOCK)
    n = 0
    while n < len(padded) // BLOCK:
        start = n
        while n < len(padded) // BLOCK and padded[n * BLOCK : (n + 1) * BLOCK] == zeros:
            n += 1
        if n > start:
            runs.append((start, n - start))
        n += 1
    return runs


def content(parts: Sequence[Segment]) -> bytes:
    return b"".join(part.content() for part in parts)


def check_cuts(data: bytes, found: Cuts) -> None:
    """Everything that the documentation says of cuts."""
    padded = data + bytes(-len(data) % BLOCK)
    hashes = chunker.block_hashes(to_blocks(data))
    zeros = bytes(BLOCK)
    rebuilt = bytearray(len(padded))
    before = 0
    for start, end in found:
        assert before <= start < end
        assert end - start <= MAX
        assert padded[start * BLOCK :][:BLOCK] != zeros
        assert padded[(end - 1) * BLOCK : end * BLOCK] != zeros
        rebuilt[start * BLOCK : end * BLOCK] = padded[start * BLOCK : end * BLOCK]
        before = end
    assert rebuilt == padded
    runs = zero_runs(data)
    for start, end in found:
        # A long run ends a chunk, so none is inside; a shorter run stays inside.
        assert not any(start < at and at + length <= end and length >= MIN for at, length in runs)
        if end - start < MIN:
            follows = next((length for at, length in runs if at == end), 0)
            assert follows or end == len(padded) // BLOCK
        inner = hashes[start + MIN - 1 : end - 1]
        assert not (inner >> np.uint64(60) == 15).any()
    for (_, end), (start, _) in pairwise(found):
        if end == start:  # a cut without a reason would be a loss of size
            begin = next(a for a, b in found if b == end)
            assert end - begin == MAX or int(hashes[end - 1]) >> 62 == 3


@given(segments())
def test_cuts_are_as_documented(parts: list[Segment]) -> None:
    data = content(parts)
    check_cuts(data, cuts(data))


@given(st.lists(st.integers(1, 12), max_size=60), st.integers(0, 9))
def test_cuts_of_many_short_zero_runs(lengths: list[int], seed: int) -> None:
    data, rng = b"", random.Random(seed)
    for n, length in enumerate(lengths):
        data += bytes(length * BLOCK) if n % 2 else rng.randbytes(length * BLOCK)
    check_cuts(data, cuts(data))


@given(segments(blocks=200), st.lists(st.integers(1, 400), min_size=1, max_size=8))
def test_windows_do_not_matter(parts: list[Segment], sizes: list[int]) -> None:
    data = content(parts)
    assert windowed_cuts(data, (size for _ in iter(int, 1) for size in sizes)) == cuts(data)


def test_window_edge_at_every_place_of_a_zero_run() -> None:
    """A window may end inside a zero run of any length, at any distance from where a chunk must end."""
    for length in (MIN - 1, MIN, MIN + 1):
        for before in (MAX - 2, MAX - 1, MAX, MAX + 1):
            data = b"\1" * BLOCK * before + bytes(length * BLOCK) + b"\1" * BLOCK * 3
            whole = cuts(data)
            for first in range(before - 2, before + length + 3):
                assert windowed_cuts(data, iter([first, 1000])) == whole


def test_undecided_end_is_left() -> None:
    hashes = chunker.block_hashes(to_blocks(b"\1" * BLOCK * LOOKAHEAD))
    zero = np.zeros(LOOKAHEAD, np.bool_)
    assert chunker.cut(hashes[:-1], zero[:-1], last=False) == chunker.Cut([], 0)
    assert chunker.cut(hashes, zero, last=False) == chunker.Cut([(0, MAX)], MAX)


def test_constant_content_is_cut_at_the_maximum() -> None:
    for byte in range(1, 256):
        found = cuts(bytes([byte]) * BLOCK * 2 * MAX)
        assert {b - a for a, b in found} <= {MIN, MAX}


def test_mean_chunk() -> None:
    """Measured when the constants were chosen: about 24 KiB on disks and on random bytes."""
    found = cuts(random_blocks(16 * 256, seed=3))
    mean = sum(b - a for a, b in found) * BLOCK / len(found)
    assert 22 * KIB < mean < 27 * KIB


def chunk_bytes(data: bytes) -> set[bytes]:
    return {hashlib.sha256(data[a * BLOCK : b * BLOCK]).digest() for a, b in cuts(data)}


@given(st.integers(0, 600), st.integers(1, 100), st.integers(0, 5))
def test_insertion_moves_only_boundaries_near_it(at: int, count: int, seed: int) -> None:
    data = random_blocks(600, seed)
    edited = data[: at * BLOCK] + random_blocks(count, 77) + data[at * BLOCK :]
    old, new = chunk_bytes(data), chunk_bytes(edited)
    lost = len(old - new)
    assert lost <= 8
    assert len(new - old) <= lost + count // MIN + 2


@given(st.integers(0, 600 * BLOCK - 1), st.integers(1, 3 * BLOCK), st.integers(0, 5))
def test_edit_in_place_changes_few_chunks(at: int, count: int, seed: int) -> None:
    data = random_blocks(600, seed)
    edited = (data[:at] + random.Random(seed + 1).randbytes(count) + data[at + count :])[: len(data)]
    assert len(chunk_bytes(data) - chunk_bytes(edited)) <= 8


# --- the scan --------------------------------------------------------------------------------------------------------


def scanned(path: Path, *, holes: bool = True) -> tuple[list[tuple[int, bytes]], list[tuple[int, int]], int]:
    """(offset, bytes) of the chunks of a file, its extents and its size; without `holes`, as from a pipe."""
    with DiskSource.open(path) as source:
        if not holes:
            source.holes_are_known = lambda: False  # type: ignore[method-assign]
        with ThreadPoolExecutor(2) as pool:
            scanning: scan.Scan[object] = scan.Scan(source, Meter(silent, "test", None), pool, ahead=3)
            chunks = [(chunk.offset, bytes(chunk.data)) for window in scanning.windows() for chunk in window.chunks]
    return chunks, scanning.extents, scanning.size


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disk")


@given(parts=segments(blocks=100), window=st.sampled_from([1, 2, 17, 72, 256]))
def test_scan_does_not_depend_on_its_window(
    tmp_path_factory: pytest.TempPathFactory, parts: list[Segment], window: int
) -> None:
    path = tmp_path_factory.mktemp("disk") / "disk"
    write_segments(path, parts)
    whole = scanned(path), scanned(path, holes=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "WINDOW", window * BLOCK)
        assert (scanned(path), scanned(path, holes=False)) == whole


@given(parts=segments(blocks=100))
def test_scan_gives_every_byte_that_is_not_zero(tmp_path_factory: pytest.TempPathFactory, parts: list[Segment]) -> None:
    path = tmp_path_factory.mktemp("disk") / "disk"
    write_segments(path, parts)
    data = path.read_bytes()
    for holes in (True, False):
        chunks, extents, size = scanned(path, holes=holes)
        assert size == len(data)
        rebuilt = bytearray(size)
        for offset, chunk in chunks:
            rebuilt[offset : offset + len(chunk)] = chunk
        assert rebuilt == data
        outside = bytearray(data)
        end = -1
        for offset, length in extents:
            assert offset > end
            assert length > 0
            end = offset + length
            outside[offset:end] = bytes(length)
        assert not any(outside)
        assert end <= size


def test_extents_found_by_looking_are_the_blocks_that_are_not_zero(folder: Path) -> None:
    path = folder / "disk"
    data = b"\1" * BLOCK + bytes(BLOCK) + b"\1" * (2 * BLOCK) + bytes(9 * MIB) + b"\1" * 10
    path.write_bytes(data)
    _, extents, size = scanned(path, holes=False)
    assert extents == [(0, BLOCK), (2 * BLOCK, 2 * BLOCK), (9 * MIB + 4 * BLOCK, 10)]
    assert size == len(data)


def test_extent_goes_on_over_windows(folder: Path) -> None:
    path = folder / "disk"
    path.write_bytes(b"\1" * (2 * scan.WINDOW + 5))
    assert scanned(path, holes=False)[1] == [(0, 2 * scan.WINDOW + 5)]


def test_holes_between_regions_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "disk"
    near, far = CHUNK_MIN - BLOCK, CHUNK_MIN
    with path.open("wb") as out:
        for offset in (0, BLOCK + near, 2 * BLOCK + near + far, 1 << 40):
            out.seek(offset)
            out.write(b"\1" * BLOCK)
    read: list[tuple[int, int]] = []
    real = DiskSource.read_into

    def read_into(self: DiskSource, buffer: memoryview, offset: int) -> int:
        read.append((offset, len(buffer)))
        return real(self, buffer, offset)

    monkeypatch.setattr(DiskSource, "read_into", read_into)
    chunks, extents, _ = scanned(path)
    third = 2 * BLOCK + near + far
    assert sorted(read) == [(0, 2 * BLOCK + near), (third, BLOCK), (1 << 40, BLOCK)]
    assert [offset for offset, _ in chunks] == [0, third, 1 << 40]
    assert extents == [(0, BLOCK), (BLOCK + near, BLOCK), (third, BLOCK), (1 << 40, BLOCK)]
