"""What differs between two snapshots is what differs between their disks, byte by byte."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.artifact import Artifact
from casstore.byteranges import union
from casstore.comparing.disks import ChangeKind, DiskDifference, compare_disks
from casstore.comparing.pairing import paired
from casstore.comparing.sharing import AlikeReader
from casstore.contents import plain_bytes
from casstore.errors import CorruptContent, DocumentError, UsageError
from tests.support.artifacts import RAW, Disk, HandMade, MemoryBlobs, frame, pack_bytes
from tests.support.deltas import mixed
from tests.support.disks import BLOCK, KIB, MIB, Segment, segments, write_segments
from tests.support.edits import Edit, edits
from tests.support.filesystems import BytesReader


def content(artifact: Artifact) -> bytes:
    return b"".join(plain_bytes(artifact, artifact.map.disks[-1], workers=1))


def unequal_blocks(a: bytes, b: bytes) -> set[int]:
    """The offsets of the blocks that differ; the shorter disk is filled up with zeros."""
    size = max(len(a), len(b))
    a, b = a.ljust(size, b"\0"), b.ljust(size, b"\0")
    return {at for at in range(0, size, BLOCK) if a[at : at + BLOCK] != b[at : at + BLOCK]}


def blocks_of(rows: Sequence[Sequence[int]]) -> set[int]:
    return {at for offset, length in rows for at in range(offset, offset + length, BLOCK)}


def require_right(a: Artifact, b: Artifact) -> DiskDifference:
    """The difference, which must be that of the plain disks."""
    found = compare_disks(a, b, workers=2)
    plain = content(a), content(b)
    rows = found.ranges.tolist()
    assert blocks_of(rows) == unequal_blocks(*plain)
    assert sum(length for _, length in rows) == found.changed_bytes + found.added_bytes + found.removed_bytes
    assert found.size == (len(plain[0]), len(plain[1]))
    assert found.same_bytes == (plain[0] == plain[1])
    allocated = [blocks_touched(each) for each in (a, b)]
    end = 0
    kinds: list[int] = []
    for (offset, length), kind in zip(rows, found.kinds.tolist(), strict=True):
        assert offset % BLOCK == 0
        assert (offset + length) % BLOCK == 0 or offset + length == max(found.size)
        assert offset > end or (offset == end and (not kinds or kinds[-1] != kind))  # neighbours of one kind are one
        for at in range(offset, offset + length, BLOCK):
            there = at in allocated[0], at in allocated[1]
            assert kind == {(True, True): 1, (False, True): 2, (True, False): 3}[there]
        end = offset + length
        kinds.append(kind)
    require_chunks(a, b, found)
    loose = compare_disks(a, b, exact=False)
    assert blocks_of(loose.ranges.tolist()) >= unequal_blocks(*plain)
    assert not loose.exact
    return found


def blocks_touched(artifact: Artifact) -> set[int]:
    """The offsets of the blocks that are allocated, if only in part."""
    rows = artifact.map.disks[-1].extents.tolist()
    return {at for start, length in rows for at in range(start // BLOCK * BLOCK, start + length, BLOCK)}


def require_chunks(a: Artifact, b: Artifact, found: DiskDifference) -> None:
    ids = [
        {bytes(each) for placed in artifact.chunks(artifact.map.disks[-1]) for each in placed.located.ids}
        for artifact in (a, b)
    ]
    assert found.chunks == (len(ids[0] & ids[1]), len(ids[0] - ids[1]), len(ids[1] - ids[0]))


@settings(max_examples=25)
@given(
    layout=segments(most=8, blocks=60),
    changes=st.lists(edits(most=4, blocks=300), min_size=1, max_size=2),
    base=st.booleans(),
    window=st.sampled_from([2, 7, 65536]),
    part=st.sampled_from([4 * BLOCK, 16 * MIB]),
    keys=st.sampled_from([3, 1 << 23]),
)
def test_what_differs_is_what_differs_byte_by_byte(
    tmp_path_factory: pytest.TempPathFactory,
    layout: list[Segment],
    changes: list[list[Edit]],
    base: bool,
    window: int,
    part: int,
    keys: int,
) -> None:
    path, blobs = tmp_path_factory.mktemp("disk") / "disk", MemoryBlobs()
    write_segments(path, layout)
    made = [blobs.capture(path)]
    for some in changes:
        for edit in some:
            edit.apply(path)
        made.append(blobs.capture(path, made[-1] if base else None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("casstore.artifact._WINDOW", window)
        patch.setattr("casstore.comparing.disks._PART", part)
        patch.setattr("casstore.comparing.chunks._MOST_KEYS", keys)
        for other in made[1:]:
            forth, back = require_right(made[0], other), require_right(other, made[0])
            assert forth.ranges.tolist() == back.ranges.tolist()
            assert (forth.added_bytes, forth.removed_bytes) == (back.removed_bytes, back.added_bytes)


@settings(max_examples=6)
@given(seeds=st.tuples(st.integers(0, 2**32), st.integers(0, 2**32)), part=st.sampled_from([5 * BLOCK, 16 * MIB]))
def test_chunks_may_begin_anywhere(seeds: tuple[int, int], part: int) -> None:
    """No map of ours has chunks that begin within a block; one that has them is compared all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("casstore.artifact._WINDOW", 9)
        patch.setattr("casstore.comparing.disks._PART", part)
        one, other = (mixed(seed).artifact for seed in seeds)
        require_right(one, other)
        assert require_right(one, one).same_bytes


def test_a_hole_and_allocated_zeros_are_equal(tmp_path: Path) -> None:
    blobs = MemoryBlobs()
    disks = []
    for name, middle in (("holes", "hole"), ("zeros", "zeros"), ("data", "random")):
        path = tmp_path / name
        write_segments(path, [Segment("random", 64 * KIB), Segment(middle, 64 * KIB, 1), Segment("random", 64 * KIB)])  # type: ignore[arg-type]
        disks.append(blobs.capture(path))
    holes, zeros, data = disks
    assert len(holes.map.disks[0].extents) == 2
    assert len(zeros.map.disks[0].extents) == 1
    assert require_right(holes, zeros).same_bytes
    assert require_right(holes, zeros).extents == (2, 1)
    where = [[64 * KIB, 64 * KIB]]
    for one, other, kind in (
        (holes, data, ChangeKind.ADDED),
        (data, holes, ChangeKind.REMOVED),
        (zeros, data, ChangeKind.CHANGED),
    ):
        found = require_right(one, other)
        assert (found.ranges.tolist(), found.kinds.tolist()) == (where, [kind])


def test_what_both_have_is_not_read(tmp_path: Path) -> None:
    blobs, path = MemoryBlobs(), tmp_path / "disk"
    write_segments(path, [Segment("random", 12 * MIB)])
    one = blobs.capture(path)
    with path.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"changed")
    two = blobs.capture(path, one)
    blobs.reads.clear()
    found = compare_disks(*paired(one, two))
    assert found.ranges.tolist() == [[5 * MIB, BLOCK]]
    directory_ends = {(pack.digest, pack.size) for each in (one, two) for pack in each.manifest.packs}
    content_read = sum(length for digest, at, length in blobs.reads if (digest, at + length) not in directory_ends)
    assert 0 < content_read < 2 * MIB + 100 * KIB  # the frame that the chunk is in, for both, and the delta
    new = {blob.digest for blob in two.manifest.children} - {blob.digest for blob in one.manifest.children}
    size = two.manifest.descriptor.size
    assert found.new_stored_bytes == size + sum(len(blobs.contents[digest]) for digest in new)
    blobs.reads.clear()
    assert compare_disks(one, one).same_bytes
    compare_disks(one, two, exact=False)
    assert all((digest, at + length) in directory_ends for digest, at, length in blobs.reads)


def test_a_very_large_disk_of_many_runs_is_compared_in_parts() -> None:
    """Disks of 1 TiB, of 3,000 runs each; every 10th lies somewhere else on the second."""
    chunks = [random.Random(n).randbytes(BLOCK) for n in range(40)]
    pack = pack_bytes([frame(RAW, chunk) for chunk in chunks])
    size, count = 1 << 40, 3000
    step = size // count // BLOCK * BLOCK
    rng = random.Random(1)
    firsts = [rng.randrange(38) for _ in range(count)]
    disks = []
    for shift in (0, BLOCK):
        starts = [n * step + (shift if n % 10 == 0 else 0) for n in range(count)]
        ends = [0, *(start + 2 * BLOCK for start in starts)]
        runs = [(start - end, 2 * BLOCK, 0, first, 2) for start, end, first in zip(starts, ends, firsts, strict=False)]
        disks.append(Disk(size, [(0, size)], runs))
    blobs = MemoryBlobs()
    a, b = (Artifact.load(blobs, HandMade([pack], [disk], blobs=blobs).store()) for disk in disks)
    found = compare_disks(a, b)
    assert found.ranges[:, 0].tolist() == [n * step for n in range(0, count, 10)]
    assert set(found.ranges[:, 1].tolist()) == {3 * BLOCK}


def test_what_is_far_behind_is_compared_too() -> None:
    """Where only one of the disks has anything, 4 EiB and more from their start; and no further than can be told."""
    pack = pack_bytes([frame(RAW, b"x" * BLOCK)])
    blobs = MemoryBlobs()
    for size in (2**62 + MIB, 2**63 - BLOCK, 2**63 - 1):
        at = size // BLOCK * BLOCK - BLOCK
        a, b = (
            Artifact.load(blobs, HandMade([pack], [disk], blobs=blobs).store())
            for disk in (Disk(size), Disk(size, [(at, BLOCK)], [(at, BLOCK, 0, 0, 1)]))
        )
        if size == 2**63 - 1:
            with pytest.raises(UsageError, match="expected at most 9223372036854771712 bytes to compare"):
                compare_disks(a, b)
            continue
        for found in (compare_disks(a, b), compare_disks(b, a)):
            assert found.ranges.tolist() == [[at, BLOCK]]


def test_runs_of_other_chunks_are_not_the_same() -> None:
    pack = pack_bytes([frame(RAW, bytes([n]) * BLOCK) for n in range(1, 5)])
    blobs = MemoryBlobs()
    one, other = (
        Artifact.load(blobs, HandMade([pack], [Disk(BLOCK, [(0, BLOCK)], [(0, BLOCK, 0, n, 1)])], blobs=blobs).store())
        for n in (1, 2)
    )
    assert compare_disks(one, other).ranges.tolist() == [[0, BLOCK]]


def test_a_map_that_lies_about_its_packs_is_refused() -> None:
    pack = pack_bytes([frame(RAW, b"x" * BLOCK)])
    blobs = MemoryBlobs()
    right = HandMade([pack], [Disk(2 * BLOCK, [(0, BLOCK)], [(0, BLOCK, 0, 0, 1)])], blobs=blobs).store()
    beyond = HandMade([pack], [Disk(2 * BLOCK, [(0, BLOCK)], [(0, BLOCK, 0, 5, 1)])], blobs=blobs).store()
    outside = HandMade([pack], [Disk(2 * BLOCK, [(0, BLOCK)], [(BLOCK, BLOCK, 0, 0, 1)])], blobs=blobs).store()
    good = Artifact.load(blobs, right)
    for bad, error in ((beyond, DocumentError), (outside, CorruptContent)):
        lying = Artifact.load(blobs, bad, check=False)
        with pytest.raises(error):
            compare_disks(good, lying)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 3)), max_size=5),
    st.integers(1, 40 * BLOCK),
    st.integers(1, 40 * BLOCK),
    st.lists(st.tuples(st.integers(0, 40 * BLOCK), st.integers(0, 20 * BLOCK)), min_size=1, max_size=8),
)
def test_two_disks_read_as_one(
    changes: Sequence[tuple[int, int]], size: int, other: int, reads: Sequence[tuple[int, int]]
) -> None:
    rng = random.Random(0)
    own = bytearray(rng.randbytes(size))
    there = bytearray(own[:other].ljust(other, b"\0"))
    own[other:] = bytes(max(0, size - other))
    for at, count in changes:
        end = min((at + count) * BLOCK, size)
        own[at * BLOCK : end] = bytes([1]) * max(0, end - at * BLOCK)
    unequal = sorted(unequal_blocks(bytes(own), bytes(there)))
    rows = union(np.array([[at, BLOCK] for at in unequal], np.int64).reshape(-1, 2))
    difference = DiskDifference((size, other), rows, np.ones(len(rows), np.uint8), (0, 0, 0), 0, (0, 0))
    readers = BytesReader(own), BytesReader(there)
    alike = AlikeReader(*readers, difference)
    assert alike.size == size
    for offset, length in reads:
        start, end = min(offset, size), min(offset + length, size)
        assert alike.read_at(start, end - start) == own[start:end]
    if not len(rows):
        assert readers[0].read == 0
