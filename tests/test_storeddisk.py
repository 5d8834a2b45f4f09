"""Any read of a stored disk is the same read of the disk, and asks for no more of its packs than it needs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore import storeddisk
from casstore.artifact import Artifact
from casstore.digest import ChunkId
from casstore.directories import Table
from casstore.errors import CorruptContent, DigestMismatch, DocumentError, UsageError
from casstore.filesystem.reader import DiskReader
from casstore.spec import BLOCK, KIB, MIB
from casstore.storeddisk import StoredDisk
from tests.support.artifacts import (
    DELTA,
    RAW,
    ZSTD,
    Disk,
    HandMade,
    MemoryBlobs,
    pack_bytes,
    pack_entry,
    read_directory,
)
from tests.support.artifacts import frame as made_by_hand
from tests.support.deltas import Mixed, mixed
from tests.support.disks import Segment, segments, write_segments
from tests.support.edits import Edit, edits

Reads = list[tuple[float, int]]
"""(where, as a part of the disk; bytes)"""
READS = st.lists(st.tuples(st.floats(0, 1), st.one_of(st.integers(0, 9000), st.integers(0, 400_000))), max_size=12)


def disk_of(artifact: Artifact) -> StoredDisk:
    return StoredDisk(artifact, artifact.map.disks[0])


def require_same(disk: DiskReader, content: bytes, reads: Reads) -> None:
    assert disk.size == len(content)
    for where, most in reads:
        offset = int(where * len(content))
        length = min(most, len(content) - offset)
        assert disk.read_at(offset, length) == content[offset : offset + length]


# --- any read ---------------------------------------------------------------------------------------------------------

MIXED = [mixed(seed, packs=1 + seed % 4) for seed in range(8)]


@given(made=st.sampled_from(MIXED), reads=READS, small=st.sampled_from([0, 5000, 64 * KIB]))
@settings(max_examples=60)
def test_any_read_of_any_frames_is_that_of_the_disk(made: Mixed, reads: Reads, small: int) -> None:
    """Full frames and deltas of several packs in any order, and holes that begin and end anywhere."""
    artifact = Artifact.load(made.made.blobs, made.artifact.manifest.descriptor, check=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storeddisk, "_SMALL", small)
        patch.setattr(storeddisk, "_KEPT", 20_000)
        patch.setattr(storeddisk, "_EDGES", 5)
        disk = disk_of(artifact)
        require_same(disk, made.content, reads)
        assert disk._bytes <= 20_000 or len(disk._chunks) == 1
        assert sum(map(len, disk._edges.values())) == disk._edges_kept <= 5
    require_same(disk_of(artifact), made.content, [(0, len(made.content)), (1, 0)])


@given(parts=segments(blocks=60), changes=edits(), reads=READS)
@settings(max_examples=15)
def test_any_read_of_a_captured_disk_is_that_of_the_disk(
    tmp_path_factory: pytest.TempPathFactory, parts: list[Segment], changes: list[Edit], reads: Reads
) -> None:
    """Of a disk with holes, and of the same after edits, captured against the first."""
    path, blobs = tmp_path_factory.mktemp("disk") / "disk", MemoryBlobs()
    write_segments(path, parts)
    made, manifest = blobs.create(path)
    require_same(disk_of(Artifact.load(blobs, made.root, check=False)), path.read_bytes(), reads)
    blobs.remember(manifest.packs)
    for edit in changes:
        edit.apply(path)
    again, _ = blobs.create(path, base=made.root)
    require_same(disk_of(Artifact.load(blobs, again.root, check=False)), path.read_bytes(), reads)


def test_threads_may_share_it() -> None:
    made = MIXED[3]
    disk, rng = disk_of(made.artifact), random.Random(1)
    reads = [(rng.random(), rng.choice([10, 5000, 200_000])) for _ in range(80)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda read: require_same(disk, made.content, [read]), reads))


def test_what_is_not_on_the_disk_is_refused() -> None:
    disk = disk_of(MIXED[0].artifact)
    for offset, length in ((-1, 1), (0, disk.size + 1), (disk.size, 1), (5, -1), (2**62, 2**62)):
        with pytest.raises(UsageError, match=f"expected a range within {disk.size} bytes, got"):
            disk.read_at(offset, length)
    assert disk.read_at(disk.size, 0) == b""


# --- what is asked for ------------------------------------------------------------------------------------------------


def chunk(number: int, size: int = 5 * BLOCK) -> bytes:
    return random.Random(number).randbytes(size)


def hand_made(packs: Sequence[bytes], runs: Sequence[tuple[int, int, int, int, int]]) -> tuple[Artifact, MemoryBlobs]:
    size = sum(gap + length for gap, length, *_ in runs)
    made = HandMade(packs, [Disk(size, [(0, size)], runs)])
    artifact = Artifact.load(made.blobs, made.store(), check=False)
    made.blobs.reads.clear()
    return artifact, made.blobs


def packs_read(artifact: Artifact, blobs: MemoryBlobs) -> list[int]:
    numbers = {pack.digest: n for n, pack in enumerate(artifact.manifest.packs)}
    return [numbers[digest] for digest, *_ in blobs.reads]


def test_a_small_read_asks_for_a_directory_and_a_frame_and_the_next_one_for_nothing() -> None:
    packs = [pack_bytes([made_by_hand(RAW, chunk(10 * n + k)) for k in range(4)]) for n in range(3)]
    artifact, blobs = hand_made(packs, [(0, 20 * BLOCK, n, 0, 4) for n in range(3)])
    disk = disk_of(artifact)
    at = 27 * BLOCK + 5
    assert disk.read_at(at, 100) == chunk(11)[at - 25 * BLOCK :][:100]
    assert packs_read(artifact, blobs) == [1, 1]
    assert blobs.reads[1][2] == 5 * BLOCK, "one frame"
    for block in range(25, 30):
        disk.read_at(block * BLOCK, BLOCK)
    assert len(blobs.reads) == 2
    assert disk.read_at(0, 0) == b""
    assert len(blobs.reads) == 2


def test_holes_ask_for_nothing() -> None:
    artifact, blobs = hand_made([pack_bytes([made_by_hand(RAW, chunk(1))])], [(MIB, 5 * BLOCK, 0, 0, 1)])
    assert disk_of(artifact).read_at(0, MIB) == bytes(MIB)
    assert blobs.reads == []


def test_neighbours_in_a_pack_are_read_in_one_go() -> None:
    pack = pack_bytes([made_by_hand(RAW, chunk(k)) for k in range(40)])
    artifact, blobs = hand_made([pack], [(0, 40 * 5 * BLOCK, 0, 0, 40)])
    whole = b"".join(map(chunk, range(40)))
    assert disk_of(artifact).read_at(3, len(whole) - 3) == whole[3:]
    assert len(blobs.reads) == 2, "the directory, and all frames"


def test_of_a_base_only_the_directories_near_it_are_read() -> None:
    base = chunk(100)
    changed = base[:-10] + b"0123456789"
    packs = [pack_bytes([made_by_hand(RAW, chunk(n)), made_by_hand(RAW, chunk(50 + n))]) for n in range(12)]
    packs.append(pack_bytes([made_by_hand(DELTA, changed, base=base)]))
    packs.append(pack_bytes([made_by_hand(ZSTD, base)]))  # no run names it: it is there for bases only
    runs = [(0, 10 * BLOCK, n, 0, 2) for n in range(12)] * 4
    runs.append((0, 5 * BLOCK, 12, 0, 1))
    artifact, blobs = hand_made(packs, [*runs, *runs[:12]])
    at = 48 * 10 * BLOCK
    near = storeddisk._AROUND
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storeddisk, "_AROUND", 1)
        assert disk_of(artifact).read_at(at, 5 * BLOCK) == changed
    assert near > 1
    assert sorted(set(packs_read(artifact, blobs))) == [0, 11, 12, 13], "those of the runs beside it, and the base's"
    assert artifact.directories._bases is None


def test_many_look_ups_of_bases_end_in_one_that_knows_all() -> None:
    """Where the bases are never where they are looked for, the directories are not read for each of them."""
    bases = [chunk(100 + n) for n in range(30)]
    deltas = [made_by_hand(DELTA, base + b"x" * n, base=base) for n, base in enumerate(bases, 1)]
    packs = [pack_bytes(deltas), *(pack_bytes([made_by_hand(RAW, base)]) for base in bases)]
    runs = [(0, 5 * BLOCK + n + 1, 0, n, 1) for n in range(30)]
    artifact, blobs = hand_made(packs, runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("casstore.directories._KEPT", 1)
        disk, at = disk_of(artifact), 0
        for n, base in enumerate(bases, 1):
            assert disk.read_at(at, len(base) + n) == base + b"x" * n
            at += len(base) + n
    directories = [read for read in blobs.reads if read[1] + read[2] == len(blobs.contents[read[0]])]
    assert artifact.directories._bases is not None
    assert len(directories) < 6 * len(packs)


# --- what lies --------------------------------------------------------------------------------------------------------


def two_chunks() -> bytes:
    return pack_bytes([made_by_hand(RAW, chunk(1)), made_by_hand(RAW, chunk(2))])


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        ((0, 15 * BLOCK, 0, 0, 3), "a run goes past the end of its pack"),
        ((0, 5 * BLOCK, 0, 2, 1), "a run goes past the end of its pack"),
        ((0, 5 * BLOCK, 0, 2**32 - 1, 1), "a run goes past the end of its pack"),
        ((0, 6 * BLOCK, 0, 0, 1), "a run's length is not that of its chunks"),
        ((0, 9 * BLOCK, 0, 0, 2), "a run's length is not that of its chunks"),
        ((0, 2**62, 0, 0, 2), "a run's length is not that of its chunks"),
    ],
)
def test_a_map_that_its_packs_contradict_is_refused_where_it_is_read(
    run: tuple[int, int, int, int, int], problem: str
) -> None:
    artifact, _ = hand_made([two_chunks()], [run])
    with pytest.raises(DocumentError, match=problem):
        disk_of(artifact).read_at(BLOCK, 1)


def test_a_directory_that_lies_of_its_chunks_is_refused() -> None:
    frames = [made_by_hand(RAW, chunk(1)), made_by_hand(RAW, chunk(2))]
    lie = replace(frames[0], chunks=[(frames[1].chunks[0][0], len(chunk(1)))])
    artifact, _ = hand_made([pack_bytes([lie, frames[1]])], [(0, 10 * BLOCK, 0, 0, 2)])
    with pytest.raises(DigestMismatch, match="frame 0: chunk"):
        disk_of(artifact).read_at(0, 1)
    with pytest.raises(DigestMismatch, match="frame 0: chunk"):
        disk_of(artifact).read_at(0, 10 * BLOCK)
    assert disk_of(artifact).read_at(5 * BLOCK, 1) == chunk(2)[:1]


def test_a_directory_that_is_not_the_one_of_the_map_is_refused() -> None:
    sha, stamp = pack_entry(two_chunks())
    made = HandMade([two_chunks()], [Disk(5 * BLOCK, [], [(0, 5 * BLOCK, 0, 0, 1)])])
    made.listed = [(sha, bytes([stamp[0] ^ 1]) + stamp[1:])]
    artifact = Artifact.load(made.blobs, made.store(), check=False)
    with pytest.raises(DigestMismatch, match="directory"):
        disk_of(artifact).read_at(0, 1)


def test_a_frame_that_changed_is_refused_however_small_the_read_is() -> None:
    artifact, blobs = hand_made([two_chunks()], [(0, 10 * BLOCK, 0, 0, 2)])
    pack = artifact.manifest.packs[0].digest
    data = bytearray(blobs.contents[pack])
    data[8 + 5 * BLOCK - 1] ^= 1
    blobs.contents[pack] = bytes(data)
    with pytest.raises(DigestMismatch):
        disk_of(artifact).read_at(0, 1)


def test_a_delta_without_its_base_is_refused() -> None:
    base = chunk(1)
    pack = pack_bytes([made_by_hand(DELTA, base + b"x", base=base), made_by_hand(RAW, chunk(2))])
    artifact, _ = hand_made([pack], [(0, 5 * BLOCK + 1, 0, 0, 1), (0, 5 * BLOCK, 0, 1, 1)])
    with pytest.raises(CorruptContent, match="in none of the snapshot's packs, in a full frame"):
        disk_of(artifact).read_at(0, 1)
    assert disk_of(artifact).read_at(5 * BLOCK + 1, 3) == chunk(2)[:3]


def test_a_base_is_told_from_chunks_that_begin_the_same() -> None:
    base = chunk(1)
    wanted = blake3(base).digest()
    others = [made_by_hand(RAW, chunk(n)) for n in range(2, 6)]
    others = [replace(each, chunks=[(wanted[:8] + bytes(24), 5 * BLOCK)]) for each in others]
    delta = made_by_hand(DELTA, base, base=chunk(9))  # the same bytes, but in a delta
    pack = read_directory(pack_bytes([*others, delta, made_by_hand(RAW, base), made_by_hand(RAW, base)]))
    assert Table(pack).find_full(ChunkId(wanted)) == 5
    for other in (bytes(32), wanted[:8] + bytes(23) + b"x"):
        assert Table(pack).find_full(ChunkId(other)) == -1


def test_a_disk_of_the_largest_size_takes_no_memory() -> None:
    made = HandMade([two_chunks()], [Disk(2**63 - 1, [], [(2**63 - 1 - 10 * BLOCK, 10 * BLOCK, 0, 0, 2)])])
    artifact = Artifact.load(made.blobs, made.store(), check=False)
    disk = disk_of(artifact)
    assert disk.read_at(2**63 - 2, 1) == chunk(2)[-1:]
    assert disk.read_at(2**62, 10) == bytes(10)
    assert disk.size == 2**63 - 1
