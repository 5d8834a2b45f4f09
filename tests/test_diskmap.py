"""Maps: the decoded body is pinned byte by byte, and a map that does not add up is refused.

Rows 54 to 56 of the fault list. The compressed bytes are never pinned: they are zstd's.
"""

from __future__ import annotations

import struct
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from casstore.digest import Digest
from casstore.diskmap import DiskMap, PackEntry, Runs, SnapshotMap, exact_sum
from casstore.errors import CorruptContent, DocumentError, UnsupportedVersion
from casstore.spec import BLOCK, MAX_DISK, MAX_DISKS, MAX_MAP, MAX_PACKS, MIB
from tests.support.artifacts import Disk, map_blob, map_body
from tests.support.effort import at_most

PACKS = [(bytes([n]) * 32, bytes([n + 100]) * 36) for n in range(3)]
DISKS = [
    Disk(1 << 20, extents=[(0, 4096), (4096, 8192)], runs=[(0, 1, 0, 0, 1), (4096, 8192, 1, 5, 2)]),
    Disk(0, [], [], name=b"empty"),
    Disk(MAX_DISK, extents=[(MAX_DISK - 1, 1)], runs=[(MAX_DISK - 1, 1, 2, 2**32 - 1, 1)], name=b"huge"),
]
BODY = map_body(PACKS, DISKS)


def parse(body: bytes) -> SnapshotMap:
    return SnapshotMap.parse(map_blob(body), subject="map x")


def refused(*disks: Disk, match: str) -> None:
    with pytest.raises(DocumentError, match=match):
        parse(map_body(PACKS, disks))


def entries(disk_map: SnapshotMap) -> list[tuple[bytes, bytes]]:
    return [(entry.digest.raw, entry.directory) for entry in disk_map.packs]


def as_disk(disk: DiskMap) -> Disk:
    """Back to what a hand-written map says."""
    ends = [0, *disk.extents.sum(axis=1).tolist()]
    extents = [(offset - end, length) for (offset, length), end in zip(disk.extents.tolist(), ends, strict=False)]
    runs = disk.runs
    columns = (runs.gap.tolist(), runs.length.tolist(), runs.pack.tolist(), runs.first.tolist(), runs.count.tolist())
    return Disk(disk.size, extents, list(zip(*columns, strict=True)), disk.name.encode())


# --- right ones ------------------------------------------------------------------------------------------------------


def test_golden_body() -> None:
    """Every byte, from docs/reference/format.md: one pack, one disk, two extents, two runs."""
    sha, directory = bytes(range(32)), bytes(range(32, 68))
    runs = Runs.build([(0, 40960, 0, 0, 3), (65536, 5, 0, 7, 1)])
    extents = np.array([[0, 4096], [131072, 100]], np.int64)
    disk_map = SnapshotMap(
        (PackEntry(Digest.from_raw(sha), directory),), (DiskMap("disk.raw", 1 << 40, extents, runs),)
    )
    blob = disk_map.to_bytes()
    body = zstandard.ZstdDecompressor().decompress(blob[16:])
    assert blob[:8] == b"CASMAP1\n"
    assert blob[8:16] == struct.pack("<Q", len(body))
    assert body == (
        b"\x01\x00\x00\x00" b"\x01\x00\x00\x00"
        + sha + directory
        + b"\x08disk.raw"
        b"\x00\x00\x00\x00\x00\x01\x00\x00" b"\x02\x00\x00\x00" b"\x02\x00\x00\x00"
        b"\x00\x00\x00\x00\x00\x00\x00\x00" b"\x00\xf0\x01\x00\x00\x00\x00\x00"  # gaps of the extents
        b"\x00\x10\x00\x00\x00\x00\x00\x00" b"\x64\x00\x00\x00\x00\x00\x00\x00"  # lengths of the extents
        b"\x00\x00\x00\x00\x00\x00\x00\x00" b"\x00\x00\x01\x00\x00\x00\x00\x00"  # gaps of the runs
        b"\x00\xa0\x00\x00\x00\x00\x00\x00" b"\x05\x00\x00\x00\x00\x00\x00\x00"  # lengths of the runs
        b"\x00\x00\x00\x00" b"\x00\x00\x00\x00"  # packs
        b"\x00\x00\x00\x00" b"\x07\x00\x00\x00"  # first chunks
        b"\x03\x00\x00\x00" b"\x01\x00\x00\x00"  # chunks
    )  # fmt: skip
    assert parse(body).to_bytes() == blob


def test_hand_made_map_reads_as_written() -> None:
    read = parse(BODY)
    assert entries(read) == PACKS
    assert [as_disk(disk) for disk in read.disks] == DISKS
    assert read.disks[0].extents.tolist() == [[0, 4096], [8192, 8192]]
    assert read.disks[0].allocated == 12288
    assert zstandard.ZstdDecompressor().decompress(read.to_bytes()[16:]) == BODY


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=62).map(lambda text: f"d{text}")
u32 = st.integers(0, 2**32 - 1)


@st.composite
def disks(draw: st.DrawFn) -> Disk:
    extents = draw(st.lists(st.tuples(st.integers(1, 2**40), st.integers(1, 2**40)), max_size=5))
    extents = [(0, 1), *extents] if draw(st.booleans()) else extents
    runs = []
    for gap, pack, first, count, more in draw(
        st.lists(
            st.tuples(st.integers(0, 2**40), st.integers(0, 2), u32, st.integers(1, 2**32 - 1), st.integers(1, 2**40)),
            max_size=5,
        )
    ):
        runs.append((gap, (count - 1) * BLOCK + more, pack, first, count))
    least = max(sum(map(sum, extents)), sum(gap + length for gap, length, *_ in runs), 512 * len(extents))
    return Disk(least + draw(st.integers(0, 2**50)), extents, runs, draw(names).encode())


@given(st.lists(disks(), min_size=1, max_size=4, unique_by=lambda disk: disk.name))
def test_round_trip(wanted: list[Disk]) -> None:
    read = parse(map_body(PACKS, wanted))
    assert [as_disk(disk) for disk in read.disks] == wanted
    again = SnapshotMap.parse(read.to_bytes(), subject="map x")
    assert [as_disk(disk) for disk in again.disks] == wanted
    assert entries(again) == PACKS


def test_map_past_zstds_window() -> None:
    """A body of 34 MB is one zstd frame whose window is the whole of it."""
    runs = Runs.build([(0, BLOCK, 0, n % 7, 1) for n in range(1_200_000)])
    disk = DiskMap("disk.raw", 10**12, np.zeros((0, 2), np.int64), runs)
    blob = SnapshotMap((PackEntry(Digest("0" * 64), bytes(36)),), (disk,)).to_bytes()
    assert SnapshotMap.parse(blob, subject="map x").disks[0].runs.first.tolist() == runs.first.tolist()


# --- wrong ones ------------------------------------------------------------------------------------------------------


def test_every_truncation_of_the_body_is_refused() -> None:
    for cut in range(len(BODY)):
        with pytest.raises(CorruptContent):
            parse(BODY[:cut])


def test_every_truncation_of_the_blob_is_refused() -> None:
    blob = map_blob(BODY)
    for cut in range(len(blob)):
        with pytest.raises(CorruptContent):
            SnapshotMap.parse(blob[:cut], subject="map x")


def test_anything_more_is_refused() -> None:
    with pytest.raises(DocumentError, match="expected the end, got 1 more bytes"):
        parse(BODY + b"\0")
    with pytest.raises(CorruptContent):
        SnapshotMap.parse(map_blob(BODY) + b"\0", subject="map x")


def test_every_flipped_bit_gives_another_map_or_is_refused() -> None:
    """No bit is without meaning, so the digest of the map's blob is not the only thing that sees a flip."""
    taken = 0
    for bit in range(8 * len(BODY)):
        flipped = bytearray(BODY)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            read = parse(bytes(flipped))
        except CorruptContent:
            continue
        taken += 1
        assert (entries(read), [as_disk(disk) for disk in read.disks]) != (PACKS, DISKS)
        assert zstandard.ZstdDecompressor().decompress(read.to_bytes()[16:]) == bytes(flipped)
    assert taken >= 3 * 68 * 8  # the packs' digests and stamps at least


@pytest.mark.parametrize("blob", [b"", b"CASMAP1\n", b"CASMAP1\n" + bytes(7), b"CASMAP2\n" + bytes(100), bytes(100)])
def test_another_magic(blob: bytes) -> None:
    with pytest.raises(UnsupportedVersion, match="CASMAP1"):
        SnapshotMap.parse(blob, subject="map x")


@pytest.mark.parametrize("length", [0, 1, len(BODY) - 1, len(BODY) + 1, 2**32 + len(BODY), MAX_MAP])
def test_stated_length_is_another(length: int) -> None:
    with pytest.raises(CorruptContent):
        SnapshotMap.parse(map_blob(BODY, length=length), subject="map x")


@pytest.mark.parametrize("length", [MAX_MAP + 1, 2**63, 2**64 - 1])
def test_row_52_map_past_the_limit(length: int) -> None:
    with pytest.raises(DocumentError, match="at most"):
        SnapshotMap.parse(map_blob(BODY, length=length), subject="map x")


def test_body_not_compressed() -> None:
    with pytest.raises(CorruptContent):
        SnapshotMap.parse(struct.pack("<8sQ", b"CASMAP1\n", len(BODY)) + BODY, subject="map x")


@pytest.mark.parametrize("size", [MAX_DISK + 1, 2**64 - 1])
def test_row_54_size_out_of_bounds(size: int) -> None:
    refused(Disk(size), match=r"at most 9223372036854775807 bytes")


GOOD = Disk(100_000, extents=[(0, 10), (1, 10)], runs=[(5, 1, 0, 0, 1), (0, 8 * BLOCK + 1, 2, 9, 9)])
HUGE = 2**64 - 1
EXTENTS = {
    "empty": [(0, 10), (1, 0)],
    "empty, alone": [(0, 0)],
    "adjacent": [(0, 10), (0, 10)],
    "past the end by one": [(0, 10), (1, 99_990)],
    "past the end, gap": [(100_001, 1)],
    "length 2^64-1": [(0, HUGE)],
    "gap 2^64-1": [(HUGE, 1)],
    "gap and length add up to 2^64": [(HUGE, 1)],
    "two lengths add up to 2^64": [(0, 2**63), (1, 2**63 - 1)],
    "two lengths add up to 2^64 and 5": [(0, 2**63), (1, 2**63 + 4)],
    "gaps add up to 2^64": [(2**63, 1), (2**63, 1)],
    "all add up to 2^64 and a bit": [(HUGE, HUGE), (3, HUGE)],
    "length 2^63": [(0, 2**63)],
    "negative as a signed number": [(0, 10), (2**64 - 5, 10)],
    "many that wrap often": [(2**63, 2**63)] * 64,
}
BEYOND = {
    "gap past the end": [(100_001, 1, 0, 0, 1)],
    "gaps past the end": [(50_000, 1, 0, 0, 1), (50_001, 1, 0, 0, 1)],
    "gap up to the end": [(100_000, 1, 0, 0, 1)],
    "past the end by one": [(0, 100_001, 0, 0, 1)],
    "past the end by one, gap and length": [(60_000, 40_001, 0, 0, 1)],
    "past the end by one, second": [(0, 60_000, 0, 0, 1), (0, 40_001, 0, 0, 1)],
    "one before that starts past it": [(60_000, 60_000, 0, 0, 1), (0, 1, 0, 0, 1)],
}
WRAPPING = {
    "gap 2^64-1": [(HUGE, 1, 0, 0, 1)],
    "length 2^64-1": [(0, HUGE, 0, 0, 1)],
    "length 2^63": [(0, 2**63, 0, 0, 1)],
    "gaps add up to 2^64": [(2**63, 1, 0, 0, 1), (2**63, 1, 0, 0, 1)],
    "gaps add up to 2^64 and 7": [(HUGE, 1, 0, 0, 1), (8, 1, 0, 0, 1)],
    "lengths add up to 2^64": [(0, 2**63, 0, 0, 1), (0, 2**63, 0, 0, 1)],
    "lengths add up to 2^64 and 5": [(0, 2**63, 0, 0, 1), (0, 2**63 + 5, 0, 0, 1)],
    "gap and length add up to 2^64": [(HUGE, 1, 0, 0, 1)],
    "gap and length add up to 2^64 and 5": [(HUGE, 6, 0, 0, 1)],
    "length that would step back over the run before": [(0, 5000, 0, 0, 1), (0, 2**64 - 4000, 0, 0, 1)],
    "gap that would step back over the run before": [(0, 5000, 0, 0, 1), (2**64 - 4000, 5000, 0, 0, 1)],
    "many that wrap often": [(2**63, 1, 0, 0, 1)] * 64,
    "many lengths that wrap often": [(0, 2**63, 0, 0, 1)] * 64,
}
CHUNKS = {
    "no chunks": [(0, 0, 0, 0, 0)],
    "no chunks, of a length": [(0, 1, 0, 0, 0)],
    "no chunks, second": [(0, 1, 0, 0, 1), (0, 0, 0, 0, 0)],
    "chunk of no length": [(0, 0, 0, 0, 1)],
    "two chunks in a block": [(0, BLOCK, 0, 0, 2)],
    "three chunks in two blocks": [(0, 2 * BLOCK, 0, 0, 3)],
    "three chunks in two blocks, second": [(0, 1, 0, 0, 1), (0, 2 * BLOCK, 0, 0, 3)],
    "many tiny chunks": [(0, 100_000, 0, 0, 100_000)],
    "2^32-1 chunks": [(0, 100_000, 0, 0, 2**32 - 1)],
    "2^32-1 chunks of no length": [(0, 0, 0, 0, 2**32 - 1)],
}
RUNS = {
    **BEYOND,
    **WRAPPING,
    **CHUNKS,
    "pack past the list": [(0, 1, 3, 0, 1)],
    "pack 2^32-1": [(0, 1, 2**32 - 1, 0, 1)],
}


def test_good_one_is_good() -> None:
    assert [as_disk(disk) for disk in parse(map_body(PACKS, [GOOD])).disks] == [GOOD]
    length = (2**32 - 2) * BLOCK + 1  # the least for as many chunks
    for runs in [(MAX_DISK - length, length, 0, 0, 2**32 - 1)], [(0, MAX_DISK, 0, 0, 2**32 - 1)]:
        full = Disk(MAX_DISK, extents=[(0, MAX_DISK)], runs=runs)
        assert [as_disk(disk) for disk in parse(map_body(PACKS, [full])).disks] == [full]
    for runs in (
        [(0, 100_000, 0, 0, 25)],
        [(60_000, 40_000, 0, 0, 1)],
        [(0, BLOCK + 1, 0, 0, 2), (91_807, BLOCK, 0, 0, 1)],
    ):
        whole = replace(GOOD, runs=runs)  # up to the end, or as many chunks as may be
        assert [as_disk(disk) for disk in parse(map_body(PACKS, [whole])).disks] == [whole]


@pytest.mark.parametrize("case", EXTENTS)
def test_row_55_extents(case: str) -> None:
    refused(replace(GOOD, extents=EXTENTS[case]), match="separate extents")
    refused(replace(GOOD, name=b"first"), replace(GOOD, extents=EXTENTS[case]), match="separate extents")


@pytest.mark.parametrize("case", RUNS)
def test_row_55_runs(case: str) -> None:
    match = "pack [0-9]+ of 3" if case.startswith("pack") else "runs of one or more chunks .* within 100000 bytes"
    refused(replace(GOOD, runs=RUNS[case]), match=rf"{match}.*\(at disks\[0\].runs\)")
    refused(replace(GOOD, name=b"first"), replace(GOOD, runs=RUNS[case]), match=rf"{match}.*\(at disks\[1\].runs\)")


@pytest.mark.parametrize("case", WRAPPING)
def test_row_56_runs_past_the_largest_disk(case: str) -> None:
    """Sums that do not fit into 63 or 64 bits are past the end of every disk."""
    refused(replace(GOOD, size=MAX_DISK, runs=WRAPPING[case]), match=f"within {MAX_DISK} bytes")


@pytest.mark.parametrize("count", [1, 2, 3, 1000, 2**20, 2**32 - 1])
def test_run_of_so_many_chunks_is_longer_than_their_blocks_but_one(count: int) -> None:
    least = (count - 1) * BLOCK + 1
    disk = Disk(least, [], [(0, least, 1, 0, count)])
    assert as_disk(parse(map_body(PACKS, [disk])).disks[0]) == disk
    refused(replace(disk, runs=[(0, least - 1, 1, 0, count)]), match="chunks of 4096 bytes or more")
    refused(replace(disk, runs=[(0, 0, 1, 0, 1), *disk.runs]), match="chunks of 4096 bytes or more")


@pytest.mark.parametrize("count", [2**32 - 1, 10**9, 2**20])
@pytest.mark.parametrize("at", ["packs", "disks", "extents", "runs"])
def test_row_56_counts_fail_fast(at: str, count: int) -> None:
    """Nothing is allocated, and no time is spent, for items that are not there."""
    place = {"packs": 0, "disks": 4, "extents": 8 + 68 + 1 + 8 + 8, "runs": 8 + 68 + 1 + 8 + 12}[at]
    body = bytearray(map_body(PACKS[:1], [GOOD]))
    body[place : place + 4] = struct.pack("<I", count)
    blob = map_blob(bytes(body))
    tracemalloc.start()
    with at_most(10), pytest.raises(DocumentError, match="expected"):
        SnapshotMap.parse(blob, subject="map x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MIB


def test_counts_that_are_too_small() -> None:
    for place in (0, 4, 8 + 68 + 1 + 8 + 8, 8 + 68 + 1 + 8 + 12):
        body = bytearray(map_body(PACKS[:1], [GOOD]))
        body[place : place + 4] = struct.pack("<I", 0)
        with pytest.raises(DocumentError):
            parse(bytes(body))


def test_pack_listed_twice() -> None:
    with pytest.raises(DocumentError, match="listed twice"):
        parse(map_body([*PACKS, (PACKS[0][0], b"other" + bytes(31))], [GOOD]))


def test_as_many_packs_and_disks_as_may_be() -> None:
    packs = [(n.to_bytes(32, "big"), bytes(36)) for n in range(MAX_PACKS)]
    many = [Disk(n, [], [], name=b"%d" % n) for n in range(MAX_DISKS)]
    read = parse(map_body(packs, many))
    assert entries(read) == packs
    assert [as_disk(disk) for disk in read.disks] == many


@pytest.mark.parametrize(("packs", "disks"), [(MAX_PACKS + 1, 1), (1_500_000, 1), (0, MAX_DISKS + 1), (0, 5_000_000)])
def test_row_52_more_packs_or_disks_than_may_be(packs: int, disks: int) -> None:
    """All of them zeros, and all of them there: a few kilobytes would take minutes and gigabytes to parse."""
    blob = map_blob(struct.pack("<II", packs, disks) + bytes(68 * packs + 18 * disks))
    started = time.process_time()
    with pytest.raises(DocumentError, match=rf"at most 30000 packs and 1024 disks, got {packs} and {disks}"):
        SnapshotMap.parse(blob, subject="map x")
    assert time.process_time() - started < 2


def test_no_disks() -> None:
    refused(match="one or more disks")


def test_disks_of_one_name() -> None:
    refused(GOOD, replace(DISKS[0], name=GOOD.name), match="different names")


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"manifest.json",
        b"A",
        b"a/b",
        b"..",
        b".",
        b"a\0",
        b"a\n",
        b"\xc3\xa4",
        b"\xff",
        b"a" * 65,
        b"a" * 255,
        b" ",
        b"-\x1b[2J",
    ],
)
def test_row_65_disk_names(name: bytes) -> None:
    refused(replace(GOOD, name=name), match="name")


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50))
def test_exact_sum(values: list[int]) -> None:
    assert exact_sum(np.array(values, np.uint64)) == sum(values)
    assert exact_sum(np.array([value // 2 for value in values], np.int64)) == sum(value // 2 for value in values)


@given(st.binary(max_size=300))
def test_garbage_is_refused_or_adds_up(body: bytes) -> None:
    try:
        read = parse(struct.pack("<II", 0, 1) + b"\x01a" + body)
    except CorruptContent:
        return
    disk = read.disks[0]
    assert disk.extents.sum() <= disk.size * max(len(disk.extents), 1) + disk.size
    assert zstandard.ZstdDecompressor().decompress(read.to_bytes()[16:])[10:] == body
