"""Hostile and damaged artifacts: every one is refused, a target is never touched, and nothing wrong enters dedup.

Rows 16 to 20, 54 to 56, 60, 67 and 68 of the fault list. Hostile ones have right blob digests: what lies is inside.
"""

from __future__ import annotations

import os
import random
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3

from casstore import spec
from casstore.artifact import Artifact
from casstore.blobs import BlobDirectory
from casstore.content import RangeReader
from casstore.contents import hash_disk
from casstore.diskmap import SnapshotMap
from casstore.durable import Durability
from casstore.errors import (
    CasstoreError,
    CorruptContent,
    DigestMismatch,
    DocumentError,
    NotFound,
    SizeMismatch,
    StorageError,
    UnsupportedVersion,
)
from casstore.integrity import hasher
from casstore.oci import Descriptor
from casstore.progress import Meter, silent
from casstore.restore import restore_file, restore_stream
from casstore.snapshot import Snapshot
from casstore.soundness import verify_chunks
from casstore.store import Store
from casstore.streams import BytesSource
from tests.support.artifacts import (
    DELTA,
    RAW,
    ZSTD,
    Disk,
    Frame,
    HandMade,
    MemoryBlobs,
    config_bytes,
    directory_length,
    frame,
    map_blob,
    map_body,
    pack_bytes,
    pack_entry,
    read_directory,
    stamp,
)
from tests.support.disks import allocated, loop_mounted, make_ext4, tmpfs

METER = Meter(silent, "test", None)
A, B, C = (random.Random(n).randbytes(10_000) for n in range(3))
LENGTH = len(A)
CHANGED = B[:500] + b"changed" + B[507:]
PACK = pack_bytes([frame(ZSTD, A, B), frame(RAW, C)])
OTHER = pack_bytes([frame(DELTA, CHANGED, base=B)])
DISK = Disk(50_000, extents=[(0, 50_000)], runs=[(0, 30_000, 0, 0, 3), (0, 10_000, 1, 0, 1)])
GOOD = HandMade([PACK, OTHER], [DISK])
CONTENT = A + B + C + CHANGED + bytes(10_000)


def load(made: HandMade) -> Artifact:
    made = replace(made, blobs=MemoryBlobs())
    return Artifact.load(made.blobs, made.store())


def intake(artifact: Artifact, workers: int = 2) -> int:
    return verify_chunks(artifact, known=lambda _: (), workers=workers)


def restore(artifact: Artifact, target: Path, *, force: bool = False) -> None:
    disk = artifact.map.disks[0]
    restore_file(artifact, disk, str(target), force=force, workers=2, meter=METER, durability=Durability.NONE)


def refuses_to_load(made: HandMade, match: str, error: type[CasstoreError] = CorruptContent) -> None:
    with pytest.raises(error, match=match):
        load(made)


def refuses_to_read(artifact: Artifact, folder: Path, match: str, error: type[CasstoreError] = CorruptContent) -> None:
    """It loads, but every way to read the disk fails, and no file is touched or left behind."""
    disk = artifact.map.disks[0]
    target = folder / "target"
    with pytest.raises(error, match=match):
        restore(artifact, target)
    assert list(folder.iterdir()) == []
    target.write_bytes(b"precious")
    with pytest.raises(error, match=match):
        restore(artifact, target, force=True)
    assert target.read_bytes() == b"precious"
    assert list(folder.iterdir()) == [target]
    out = bytearray()
    with pytest.raises(error, match=match):
        restore_stream(artifact, disk, out.extend, workers=2, meter=METER)
    assert len(out) < disk.size
    with pytest.raises(error, match=match):
        hash_disk(artifact, disk, [hasher("sha256", disk.size)], workers=2, meter=METER)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def test_good_one_is_good(folder: Path) -> None:
    """The attacks below change one thing of it each."""
    artifact = load(GOOD)
    assert intake(artifact) == 4
    restore(artifact, folder / "target")
    assert (folder / "target").read_bytes() == CONTENT


# --- documents that contradict each other ----------------------------------------------------------------------------


def descriptors(*packs: bytes) -> list[Descriptor]:
    return [Descriptor.of(pack, spec.MEDIA_PACK) for pack in packs]


@pytest.mark.parametrize(
    "layers",
    [descriptors(OTHER, PACK), descriptors(PACK), [], descriptors(PACK, OTHER, pack_bytes([frame(RAW, A)]))],
    ids=["swapped", "one less", "none", "one more"],
)
def test_row_60_manifest_and_map_name_other_packs(layers: Sequence[Descriptor]) -> None:
    refuses_to_load(replace(GOOD, layers=layers), "expected the packs of the map", DocumentError)


def test_row_60_map_swaps_the_packs() -> None:
    listed = [pack_entry(OTHER), pack_entry(PACK)]
    refuses_to_load(replace(GOOD, listed=listed), "expected the packs of the map", DocumentError)


def test_packs_as_files(folder: Path) -> None:
    """Layers of another media type are not packs."""
    layers = [Descriptor.of(PACK, spec.MEDIA_FILE), *descriptors(OTHER)]
    refuses_to_load(replace(GOOD, layers=layers), "expected the packs of the map", DocumentError)


def test_pack_listed_twice() -> None:
    refuses_to_load(replace(GOOD, layers=descriptors(PACK, PACK)), "twice", DocumentError)


def test_row_60_two_sizes_for_a_digest() -> None:
    [first, second] = descriptors(PACK, OTHER)
    refuses_to_load(replace(GOOD, layers=[replace(first, size=first.size + 1), second]), "expected", SizeMismatch)
    lying = replace(first, digest=second.digest)
    refuses_to_load(replace(GOOD, layers=[lying, second]), "two sizes", DocumentError)
    config = Descriptor.of(config_bytes(DISK.size), spec.MEDIA_PACK)
    refuses_to_load(replace(GOOD, layers=[first, replace(config, size=1)]), "two sizes", DocumentError)


@pytest.mark.parametrize("size", [DISK.size - 1, DISK.size + 1, 0, 2**63 - 1])
def test_row_60_config_states_another_size(size: int) -> None:
    expected = rf"expected one disk 'disk.raw' of {size} bytes, the map has disk.raw of 50000 bytes \(at upper\)"
    refuses_to_load(replace(GOOD, config_size=size), expected, DocumentError)


@pytest.mark.parametrize("file", ["other.raw", "Disk.raw", "disk.raw\n", "../disk.raw", "disk", "x" * 1_000_000])
def test_row_60_config_states_another_name(file: str) -> None:
    with pytest.raises(DocumentError, match=r"the map has disk.raw of 50000 bytes \(at upper\)") as caught:
        load(replace(GOOD, config_file=file))
    assert len(str(caught.value)) < 500


SECOND = replace(DISK, name=b"second.raw")


@pytest.mark.parametrize("disks", [[DISK, SECOND], [SECOND, DISK], [DISK, Disk(0, name=b"empty")]])
def test_two_disks_under_config_v1(disks: list[Disk]) -> None:
    """Each of them right, and the first one the config's: this config type has no place for a second one."""
    both = f"{disks[0].name.decode()} of 50000 bytes, {disks[1].name.decode()} of {disks[1].size} bytes"
    refuses_to_load(replace(GOOD, disks=disks), rf"expected one disk .* the map has {both}", DocumentError)
    for disk in disks[:2]:
        loaded = load(HandMade([PACK, OTHER], [disk]))
        assert loaded.map.disks[0].size == disk.size


def test_many_disks_under_config_v1_are_not_all_listed() -> None:
    disks = [replace(DISK, name=b"disk%d" % n) for n in range(1000)]
    with pytest.raises(DocumentError, match="expected one disk 'disk0' of 50000 bytes") as caught:
        load(replace(GOOD, disks=disks))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("n", [0, 1])
def test_map_states_another_directory(n: int) -> None:
    """A directory that is right in itself, but not the one that the snapshot was made with."""
    listed = [pack_entry(PACK), pack_entry(OTHER)]
    listed[n] = (listed[n][0], bytes(32) + listed[n][1][32:])
    refuses_to_load(replace(GOOD, listed=listed), "directory: expected digest blake3:00", DigestMismatch)


def stamped(blob: bytes, length: int, *, of: int | None = None) -> HandMade:
    """`blob` as the only pack; the map says `length` of its directory, and has the BLAKE3 of the last `of` bytes."""
    digest = blake3(blob[-(length if of is None else of) :]).digest()
    listed = [(Descriptor.of(blob, spec.MEDIA_PACK).digest.raw, digest + struct.pack("<I", length))]
    return HandMade([blob], [Disk(0)], listed=listed)


DIRECTORY = directory_length(PACK)


def test_right_stamp_is_right() -> None:
    """The wrong ones below differ in the length only."""
    assert [len(directory) for directory in load(stamped(PACK, DIRECTORY)).directories] == [3]


@pytest.mark.parametrize("length", [0, 1, 23, len(PACK) + 1, 2**31, 2**32 - 1])
def test_row_54_directory_length_that_cannot_be(length: int) -> None:
    """A claim is refused before a byte of the pack is asked for."""
    made = replace(stamped(PACK, length, of=DIRECTORY), blobs=MemoryBlobs())
    with pytest.raises(DocumentError, match=f"fits its pack of {len(PACK)} bytes, got {length} bytes"):
        Artifact.load(made.blobs, made.store())
    assert Descriptor.of(PACK, spec.MEDIA_PACK).digest not in {digest for digest, _, _ in made.blobs.reads}


def test_row_54_directory_length_past_the_limit() -> None:
    made = stamped(PACK, spec.READ_DIRECTORY + 1, of=DIRECTORY)
    layer = replace(Descriptor.of(PACK, spec.MEDIA_PACK), size=spec.READ_PACK)
    refuses_to_load(replace(made, layers=[layer]), "fits its pack of 4294967296 bytes, got 268435457", DocumentError)
    made = stamped(PACK, spec.READ_DIRECTORY, of=DIRECTORY)  # within it: so it is read, and is not there
    refuses_to_load(replace(made, layers=[layer]), "expected", SizeMismatch)


@pytest.mark.parametrize(
    "more", [-DIRECTORY + 24, -36, -12, -1, 1, 12, len(PACK) - DIRECTORY - 8, len(PACK) - DIRECTORY]
)
def test_directory_length_is_another(more: int) -> None:
    """Too small or too large, with the BLAKE3 of the right directory, and with that of the bytes that it stands for."""
    refuses_to_load(stamped(PACK, DIRECTORY + more, of=DIRECTORY), "directory: expected digest", DigestMismatch)
    match = rf"expected a directory of {DIRECTORY} bytes, got {DIRECTORY + more}"
    refuses_to_load(stamped(PACK, DIRECTORY + more), match, DocumentError)


def test_directory_that_fills_more_than_its_pack_has_for_it() -> None:
    """The footer's sums decide, also where map and footer agree: the magic in front is no part of the directory."""
    for counts in [(0, 0, 1), (1, 0, 0), (0, 1, 0), (2**20, 2**20, 2**20)]:
        blob = bytes(8) + struct.pack("<IIII8s", *counts, 0, b"CASPACK1")
        refuses_to_load(stamped(blob, len(blob)), "fits its pack of 32 bytes", DocumentError)


def test_only_the_directory_is_read_of_a_pack() -> None:
    """The map says where it begins: one request for each pack."""
    made = replace(GOOD, blobs=MemoryBlobs())
    Artifact.load(made.blobs, made.store())
    packs = {pack.digest: len(made.blobs.contents[pack.digest]) for pack in descriptors(PACK, OTHER)}
    reads = [(digest, offset, length) for digest, offset, length in made.blobs.reads if digest in packs]
    assert [digest for digest, _, _ in reads] == list(packs)
    assert all(offset + length == packs[digest] for digest, offset, length in reads)
    assert [length for _, _, length in reads] == [directory_length(PACK), directory_length(OTHER)]


@pytest.mark.parametrize("size", [2**62, spec.READ_PACK + 1, 23, 0])
def test_row_54_pack_of_a_gigantic_or_tiny_size(size: int) -> None:
    """A claim is refused before a byte of the pack is asked for."""
    [first, second] = descriptors(PACK, OTHER)
    made = replace(GOOD, layers=[replace(first, size=size), second], blobs=MemoryBlobs())
    with pytest.raises(DocumentError, match="expected a pack of 24 to 4294967296 bytes"):
        Artifact.load(made.blobs, made.store())
    assert not any(digest == first.digest for digest, _, _ in made.blobs.reads)


@pytest.mark.parametrize("media_type", [spec.MEDIA_MAP, spec.MEDIA_CONFIG])
def test_row_54_document_of_a_gigantic_size(media_type: str) -> None:
    made = replace(GOOD, blobs=MemoryBlobs())
    raw = made.blobs.contents[made.store().digest]
    at = raw.index(b'"size":', raw.index(media_type.encode())) + 7
    lying = raw[:at] + b"4611686018427387904" + raw[raw.index(b"}", at) :]
    root = made.blobs.add(lying, spec.MEDIA_MANIFEST)
    with pytest.raises(DocumentError, match=r"at most|maximum of"):
        Artifact.load(made.blobs, root)
    huge = Descriptor(media_type=spec.MEDIA_MANIFEST, digest=root.digest, size=2**62)
    with pytest.raises(UnsupportedVersion, match="at most"):
        Artifact.load(made.blobs, huge)


def test_manifest_of_another_digest() -> None:
    made = replace(GOOD, blobs=MemoryBlobs())
    root = made.store()
    made.blobs.contents[root.digest] = made.blobs.contents[root.digest].replace(b"schemaVersion", b"schemaversion")
    with pytest.raises(DigestMismatch):
        Artifact.load(made.blobs, root)


@pytest.mark.parametrize("which", ["config", "map"])
def test_document_of_another_digest(which: str) -> None:
    made = replace(GOOD, blobs=MemoryBlobs())
    root = made.store()
    manifest = Artifact.load(made.blobs, root).manifest
    blob = manifest.config if which == "config" else manifest.map
    data = bytearray(made.blobs.contents[blob.digest])
    data[-1] ^= 1
    made.blobs.contents[blob.digest] = bytes(data)
    with pytest.raises(DigestMismatch):
        Artifact.load(made.blobs, root)


def test_row_67_pack_as_map() -> None:
    refuses_to_load(replace(GOOD, map=PACK + PACK), "CASMAP1", UnsupportedVersion)


def test_row_67_map_as_pack() -> None:
    blob = map_blob(map_body([], [DISK])) + bytes(100)
    layer = Descriptor.of(blob, spec.MEDIA_PACK)
    for length in (24, 32, len(blob)):
        listed = [(layer.digest.raw, stamp(blob[-length:]))]
        made = HandMade([blob], [replace(DISK, runs=[])], listed=listed)
        refuses_to_load(made, "footer of a CASPACK1 pack", UnsupportedVersion)


# --- runs ------------------------------------------------------------------------------------------------------------

RUNS = {
    "past the end of its pack": [(0, 1, 0, 3, 1)],
    "past the end of its pack, count": [(0, 40_000, 0, 0, 4)],
    "past the end of a later pack": [(0, 30_000, 0, 0, 3), (0, 10_000, 1, 1, 1)],
    "first chunk 2^32-1": [(0, 10_000, 0, 2**32 - 1, 1)],
    "first and count 2^32-1": [(0, 2**45, 0, 2**32 - 1, 2**32 - 1)],
    "first and count add up to 2^32": [(0, 2**45, 0, 2**31, 2**31)],
    "count 2^32-1": [(0, 2**45, 1, 0, 2**32 - 1)],
}
BEYOND = {
    "past the end of the disk": [(0, 30_000, 0, 0, 3), (10_001, 10_000, 1, 0, 1)],
    "past the end of the disk, many": [(0, 30_000, 0, 0, 3), (0, 30_000, 0, 0, 3)],
    "past the end of the disk, at once": [(50_000, 10_000, 0, 0, 1)],
}
SHORTER = {
    "by one": [(0, 29_999, 0, 0, 3), (0, 10_000, 1, 0, 1)],
    "by one, last": [(0, 30_000, 0, 0, 3), (0, 9_999, 1, 0, 1)],
    "by a chunk": [(0, 20_000, 0, 0, 3)],
    "as short as may be": [(0, 2 * 4096 + 1, 0, 0, 3)],
    "one chunk, as short as may be": [(0, 1, 0, 2, 1)],
    "so that it fits a disk that it does not": [(0, 30_000, 0, 0, 3), (10_001, 9_999, 1, 0, 1)],
    "so that it would lie on the next one": [(0, 20_000, 0, 0, 3), (0, 10_000, 1, 0, 1)],
}
LONGER = {
    "by one": [(0, 30_001, 0, 0, 3), (0, 10_000, 1, 0, 1)],
    "by one, last": [(0, 30_000, 0, 0, 3), (0, 10_001, 1, 0, 1)],
    "by a chunk": [(0, 30_000, 0, 0, 2)],
    "up to the end of the disk": [(0, 50_000, 0, 0, 3)],
    "one longer, the next one shorter": [(0, 10_001, 0, 0, 1), (0, 9_999, 0, 1, 1)],
    "the length of the pack": [(0, len(PACK), 0, 0, 3)],
}


@pytest.mark.parametrize("case", RUNS)
def test_row_55_run_past_its_pack(case: str) -> None:
    wrong = replace(DISK, size=2**50, runs=RUNS[case])
    refuses_to_load(replace(GOOD, disks=[wrong]), "past the end of its pack", DocumentError)


@pytest.mark.parametrize("case", BEYOND)
def test_row_55_chunks_past_the_disk(case: str) -> None:
    refuses_to_load(replace(GOOD, disks=[replace(DISK, runs=BEYOND[case])]), "within 50000", DocumentError)


@pytest.mark.parametrize("case", SHORTER)
def test_row_55_run_shorter_than_its_chunks(case: str) -> None:
    """The map alone would lay its chunks over what follows, or past the end of the disk."""
    wrong = replace(DISK, runs=SHORTER[case])
    refuses_to_load(replace(GOOD, disks=[wrong]), r"run's length is not that of its chunks.*disk\.raw", DocumentError)


@pytest.mark.parametrize("case", LONGER)
def test_row_55_run_longer_than_its_chunks(case: str) -> None:
    wrong = replace(DISK, runs=LONGER[case])
    refuses_to_load(replace(GOOD, disks=[wrong]), r"run's length is not that of its chunks.*disk\.raw", DocumentError)


def test_row_55_run_of_a_length_past_all_chunks() -> None:
    for length in (2**32 + 30_000, 2**53 + 1, 2**63 - 1):
        wrong = Disk(2**63 - 1, [], [(0, length, 0, 0, 3)])
        refuses_to_load(replace(GOOD, disks=[wrong]), "run's length is not that of its chunks", DocumentError)


def test_row_56_sums_past_64_bits() -> None:
    """Runs that name the largest chunk so often that their sum wraps around to a small number."""
    big = spec.READ_FRAME_PLAIN
    pack = pack_bytes([Frame(ZSTD, b"x" * 8, [(b"i" * 32, big)]) for _ in range(2**12)])
    runs = [(0, big << 12, 0, 0, 2**12)] * 2**16  # 2^12 * 2^22 * 2^16 = 2^50 each 2^16 of them
    right = load(HandMade([pack], [Disk(2**50, [], runs)]))
    assert len(right.map.disks[0].runs) == 2**16
    refuses_to_load(HandMade([pack], [Disk(2**50 - 1, [], runs)]), f"within {2**50 - 1} bytes", DocumentError)
    refuses_to_load(HandMade([pack], [Disk(100, [], runs)]), "within 100 bytes", DocumentError)
    lying = [(0, 100, 0, 0, 1), *[(0, 0, 0, 0, 2**12)] * 2**16]
    refuses_to_load(HandMade([pack], [Disk(100, [], lying)]), "chunks of 4096 bytes or more", DocumentError)
    almost = [(2**63 - 2**40, big, 0, 0, 1), *runs]
    refuses_to_load(HandMade([pack], [Disk(2**63 - 1, [], [*almost, *almost[:1]])]), "runs", DocumentError)


def test_many_packs_and_runs_load_fast() -> None:
    """What a few hundred kilobytes claim must not cost packs times runs."""
    packs = [pack_bytes([frame(RAW, struct.pack("<I", n))]) for n in range(2000)]
    count = 1_000_000
    body = map_body([pack_entry(pack) for pack in packs], [replace(DISK, size=4 * count, extents=[], runs=[])])
    body = body[:-8] + struct.pack("<II", 0, count)
    body += bytes(8 * count) + struct.pack("<Q", 4) * count + struct.pack("<2000I", *range(2000)) * (count // 2000)
    body += bytes(4 * count) + struct.pack("<I", 1) * count
    made = HandMade(packs, [replace(DISK, size=4 * count)], map=map_blob(body))
    root = made.store()
    started = time.process_time()
    artifact = Artifact.load(made.blobs, root)
    loaded = time.process_time()
    next(artifact.chunks(artifact.map.disks[0]))
    uses = time.process_time()
    assert loaded - started < 4
    assert uses - loaded < 1
    assert len(artifact.map.disks[0].runs) == count


# --- chunks and frames -----------------------------------------------------------------------------------------------


def with_frame(wrong: Frame) -> HandMade:
    """GOOD, with this in the place of the frame that holds chunk C."""
    runs = [(0, 30_000, 0, 0, 2 + len(wrong.chunks)), (0, 10_000, 1, 0, 1)]
    return replace(GOOD, packs=[pack_bytes([frame(ZSTD, A, B), wrong]), OTHER], disks=[replace(DISK, runs=runs)])


FRAMES: dict[str, tuple[Frame, str]] = {
    "chunk of another digest": (replace(frame(RAW, C), chunks=[(bytes(32), LENGTH)]), "expected digest blake3:000"),
    "other bytes": (replace(frame(RAW, C), stored=A), "expected digest"),
    "two chunks in the wrong order": (
        replace(frame(RAW, C), chunks=[(blake3(C[5:]).digest(), LENGTH - 5), (blake3(C[:5]).digest(), 5)]),
        "expected digest",
    ),
    "not a frame": (Frame(ZSTD, C[:300], [(blake3(C).digest(), LENGTH)]), "expected a zstd frame"),
    "frame of another length": (
        Frame(ZSTD, frame(ZSTD, b"x" * 9999).stored, [(blake3(C).digest(), LENGTH)]),
        "the zstd header says 9999",
    ),
    "frame with something after it": (
        Frame(ZSTD, frame(ZSTD, b"x" * LENGTH).stored + b"\0", [(blake3(b"x" * LENGTH).digest(), LENGTH)]),
        "expected one zstd frame",
    ),
    "bomb": (
        Frame(ZSTD, zstandard.ZstdCompressor().compress(bytes(64 << 20)), [(blake3(C).digest(), LENGTH)]),
        "the zstd header says",
    ),
    "delta that is not against its base": (
        replace(frame(DELTA, C, base=C[:-3] + b"xyz"), base=blake3(A).digest()),
        "expected",
    ),
    "full frame called a delta": (replace(frame(ZSTD, C * 1), kind=DELTA, base=bytes(32)), "base"),
}


@pytest.mark.parametrize("case", FRAMES)
def test_row_68_wrong_inside_right_blob(case: str, folder: Path) -> None:
    wrong, match = FRAMES[case]
    artifact = load(with_frame(wrong))
    with pytest.raises(CorruptContent, match=match):
        intake(artifact)
    refuses_to_read(artifact, folder, match)


@pytest.mark.parametrize("case", FRAMES)
def test_poison_is_refused_although_no_disk_uses_it(case: str) -> None:
    """The catalog would offer the chunk to later snapshots: wrong chunks that nobody uses yet are refused as well."""
    wrong, match = FRAMES[case]
    if wrong.kind == DELTA:
        return  # without its base it is never offered: see test_unused_delta_without_base_is_harmless
    for packs, runs in (
        ([pack_bytes([frame(ZSTD, A, B), wrong]), OTHER], [(0, 20_000, 0, 0, 2)]),
        ([PACK, OTHER, pack_bytes([wrong])], DISK.runs),
        ([pack_bytes([wrong])], []),
    ):
        artifact = load(HandMade(packs, [replace(DISK, runs=runs)]))
        for workers in (1, 3):
            with pytest.raises(CorruptContent, match=match):
                intake(artifact, workers)


def test_poison_beside_right_chunks_of_its_frame() -> None:
    wrong = replace(frame(ZSTD, A, B, C), chunks=[*frame(ZSTD, A, B).chunks, (bytes(32), LENGTH)])
    artifact = load(HandMade([pack_bytes([wrong])], [replace(DISK, runs=[(0, 20_000, 0, 0, 2)])]))
    with pytest.raises(DigestMismatch):
        intake(artifact)


def test_known_chunks_are_not_decoded_again() -> None:
    artifact = load(GOOD)
    first = artifact.manifest.packs[0]
    assert verify_chunks(artifact, known=lambda pack: [0, 2] if pack == first else [], workers=1) == 2
    assert verify_chunks(artifact, known=lambda pack: [0, 1, 2] if pack == first else [0], workers=1) == 0


DELTAS = {
    "base in no pack": [PACK, pack_bytes([frame(DELTA, CHANGED, base=b"elsewhere" * 999)])],
    "base is itself a delta": [
        PACK,
        pack_bytes([frame(DELTA, CHANGED[:-1] + b"!", base=CHANGED), frame(DELTA, CHANGED, base=B)]),
    ],
    "base is the chunk itself": [PACK, pack_bytes([frame(DELTA, CHANGED, base=CHANGED)])],
    "two that need each other": [
        PACK,
        pack_bytes([frame(DELTA, CHANGED, base=b"1" * 99), frame(DELTA, b"1" * 99, base=CHANGED)]),
    ],
    "base in an unlisted pack": [pack_bytes([frame(RAW, A), frame(RAW, A), frame(RAW, C)]), OTHER],
}


@pytest.mark.parametrize("case", DELTAS)
def test_delta_whose_base_is_not_there(case: str, folder: Path) -> None:
    artifact = load(replace(GOOD, packs=DELTAS[case]))
    with pytest.raises(CorruptContent, match="base is in none of the snapshot's packs"):
        intake(artifact)
    refuses_to_read(artifact, folder, "is in none of the snapshot's packs")


@pytest.mark.parametrize("case", DELTAS)
def test_unused_delta_without_base_is_harmless(case: str) -> None:
    """It cannot be verified, so it is not counted as a chunk that dedup may offer."""
    artifact = load(replace(GOOD, packs=DELTAS[case], disks=[replace(DISK, runs=[(0, 30_000, 0, 0, 3)])]))
    assert intake(artifact) in {3, 4}


def test_base_that_only_claims_to_be_it(folder: Path) -> None:
    """The listed pack says that it holds the base, and holds other bytes."""
    lying = pack_bytes([frame(RAW, A), replace(frame(RAW, C), chunks=frame(RAW, B).chunks), frame(RAW, C)])
    artifact = load(replace(GOOD, packs=[lying, OTHER], disks=[replace(DISK, runs=[(0, 10_000, 1, 0, 1)])]))
    with pytest.raises(CorruptContent):
        intake(artifact)
    refuses_to_read(artifact, folder, "expected")


# --- extents ---------------------------------------------------------------------------------------------------------

OUTSIDE = {
    "none at all": [],
    "before": [(1, 49_999)],
    "one byte missing at the end of a chunk": [(0, 39_999)],
    "one byte missing inside": [(0, 15_000), (1, 30_000)],
    "only behind": [(40_000, 10_000)],
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_bytes_outside_of_extents(case: str, folder: Path) -> None:
    artifact = load(replace(GOOD, disks=[replace(DISK, extents=OUTSIDE[case])]))
    with pytest.raises(CorruptContent, match=r"outside of (its|the) extents"):
        intake(artifact)
    refuses_to_read(artifact, folder, "expected zeros outside of its extents")


def test_bytes_outside_of_extents_of_the_second_disk() -> None:
    """Config v1 has no second disk, but whoever checks chunks does not know that."""
    good, wrong = load(GOOD), replace(SECOND, extents=[(0, 39_999)])
    for second, right in [(SECOND, True), (wrong, False)]:
        body = map_body([pack_entry(PACK), pack_entry(OTHER)], [DISK, second])
        two = SnapshotMap.parse(map_blob(body), subject="map")
        artifact = Artifact(good._blobs, good.manifest, good.config, two, good.directories)
        if right:
            assert intake(artifact) == 4
            continue
        with pytest.raises(CorruptContent, match="expected zeros outside of its extents"):
            intake(artifact)


def test_known_chunks_are_still_checked_against_extents() -> None:
    artifact = load(replace(GOOD, disks=[replace(DISK, extents=[(0, 39_999)])]))
    first = artifact.manifest.packs[0]
    with pytest.raises(CorruptContent, match="expected zeros outside of its extents"):
        verify_chunks(artifact, known=lambda pack: range(3) if pack == first else [0], workers=1)


def test_zeros_outside_of_extents_are_fine(folder: Path) -> None:
    data = b"x" * 5000 + bytes(9000) + b"y" * 5000
    disk = Disk(30_000, extents=[(0, 5000), (9000, 5000)], runs=[(0, len(data), 0, 0, 1)])
    artifact = load(HandMade([pack_bytes([frame(ZSTD, data)])], [disk]))
    assert intake(artifact) == 1
    restore(artifact, folder / "target")
    assert (folder / "target").read_bytes() == data + bytes(30_000 - len(data))


# --- damage in a store -----------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> tuple[BlobDirectory, Descriptor]:
    """GOOD as files."""
    made = replace(GOOD, blobs=MemoryBlobs())
    root = made.store()
    (tmp_path / "blobs").mkdir()
    for digest, data in made.blobs.contents.items():
        (tmp_path / "blobs" / digest.hex).write_bytes(data)
    return BlobDirectory(str(tmp_path / "blobs")), root


def path_of(blobs: BlobDirectory, blob: Descriptor) -> Path:
    return Path(blobs.path_of(blob.digest))


def read_all(blobs: RangeReader, root: Descriptor, folder: Path) -> None:
    """Load, verify and restore; the folder must stay empty if any of that fails."""
    try:
        artifact = Artifact.load(blobs, root)
        restore(artifact, folder / "target")
        intake(artifact)
    finally:
        left = list(folder.iterdir())
    assert left == [folder / "target"]
    (folder / "target").unlink()


def links_elsewhere(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to("../elsewhere")


def becomes_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def becomes_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def becomes_link_to_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


DAMAGE: dict[str, tuple[Callable[[Path], object], type[CasstoreError]]] = {
    "row 16, empty": (lambda path: path.write_bytes(b""), SizeMismatch),
    "row 18, truncated by one": (lambda path: os.truncate(path, path.stat().st_size - 1), SizeMismatch),
    "row 18, longer by one": (lambda path: path.write_bytes(path.read_bytes() + b"\0"), SizeMismatch),
    "row 19, missing": (lambda path: path.unlink(), NotFound),
    "row 20, symlink to the right file": (links_elsewhere, CorruptContent),
    "row 20, symlink to a device": (becomes_link_to_device, CorruptContent),
    "row 20, FIFO": (becomes_fifo, CorruptContent),
    "row 20, directory": (becomes_directory, CorruptContent),
    "row 16, zeros": (lambda path: path.write_bytes(bytes(path.stat().st_size)), CorruptContent),
}


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("which", ["manifest", "config", "map", "first pack", "second pack"])
def test_damaged_blob(stored: tuple[BlobDirectory, Descriptor], folder: Path, which: str, case: str) -> None:
    blobs, root = stored
    manifest = Artifact.load(blobs, root).manifest
    blob = {
        "manifest": root,
        "config": manifest.config,
        "map": manifest.map,
        "first pack": manifest.packs[0],
        "second pack": manifest.packs[1],
    }[which]
    damage, error = DAMAGE[case]
    read_all(blobs, root, folder)
    damage(path_of(blobs, blob))
    with pytest.raises(error):
        read_all(blobs, root, folder)


@pytest.mark.parametrize("which", [0, 1])
def test_row_17_every_byte_of_a_pack(stored: tuple[BlobDirectory, Descriptor], folder: Path, which: int) -> None:
    """One flipped bit: whatever is read of it fails, and the target is not there. The pack's first 8 bytes are read
    by nobody: only sha256 covers them.
    """
    blobs, root = stored
    blob = Artifact.load(blobs, root).manifest.packs[which]
    data = path_of(blobs, blob).read_bytes()
    rng = random.Random(which)
    places = {*rng.sample(range(8, len(data)), 60), 8, *range(len(data) - 60, len(data))}
    for place in sorted(places):
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.randrange(8)
        path_of(blobs, blob).write_bytes(flipped)
        with pytest.raises(CorruptContent):
            read_all(blobs, root, folder)
    path_of(blobs, blob).write_bytes(data)
    read_all(blobs, root, folder)


@pytest.mark.parametrize("which", ["manifest", "config", "map"])
def test_row_17_every_bit_of_the_documents(stored: tuple[BlobDirectory, Descriptor], folder: Path, which: str) -> None:
    blobs, root = stored
    manifest = Artifact.load(blobs, root).manifest
    blob = {"manifest": root, "config": manifest.config, "map": manifest.map}[which]
    data = path_of(blobs, blob).read_bytes()
    for bit in range(0, 8 * len(data), 7):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path_of(blobs, blob).write_bytes(flipped)
        with pytest.raises(DigestMismatch):
            Artifact.load(blobs, root)


def test_blob_that_shrinks_while_it_is_read(stored: tuple[BlobDirectory, Descriptor], folder: Path) -> None:
    blobs, root = stored
    artifact = Artifact.load(blobs, root)
    os.truncate(path_of(blobs, artifact.manifest.packs[0]), 500)
    refuses_to_read(artifact, folder, "expected", SizeMismatch)


@pytest.mark.needs("mke2fs", "loop")
def test_row_47_disk_that_the_file_system_cannot_hold(tmp_path: Path) -> None:
    """A disk of 2^63-1 bytes is a right one; ext4 ends at 16 TiB."""
    artifact = load(HandMade([], [Disk(2**63 - 1)]))
    assert intake(artifact) == 0
    (tmp_path / "empty").mkdir()
    make_ext4(tmp_path / "image", 8 << 20, tmp_path / "empty")
    with loop_mounted(tmp_path / "image") as root:
        before = sorted(root.iterdir())
        with pytest.raises(StorageError, match="restoring"):
            restore(artifact, root / "target")
        assert sorted(root.iterdir()) == before


@pytest.mark.needs("loop")
def test_row_47_disk_of_8_eib(tmp_path: Path) -> None:
    artifact = load(
        HandMade([PACK], [Disk(2**63 - 1, [(2**63 - 20_001, 20_000)], [(2**63 - 20_001, 20_000, 0, 0, 2)])])
    )
    assert intake(artifact) == 3
    with tmpfs(tmp_path) as root:
        restore(artifact, root / "target")
        with (root / "target").open("rb") as target:
            assert os.fstat(target.fileno()).st_size == 2**63 - 1
            assert os.pread(target.fileno(), 20_000, 2**63 - 20_001) == A + B
        assert allocated(root / "target") < 100_000


def test_packs_without_chunks(folder: Path) -> None:
    """Beside others, and beside deltas, whose bases are looked up in every pack."""
    listed = [pack_bytes([]), *GOOD.packs]
    disk = replace(DISK, runs=[(0, 30_000, 1, 0, 3), (0, 10_000, 2, 0, 1)])
    artifact = load(HandMade(listed, [disk]))
    assert intake(artifact) == 4
    restore(artifact, folder / "target")
    assert (folder / "target").read_bytes() == CONTENT


def test_long_run_is_planned_in_pieces() -> None:
    """A pack may hold a million chunks of a block: a plan for all of them at once would take gigabytes."""
    count = 102_400
    pack = pack_bytes([frame(ZSTD, *([b"x" * 4096] * 1024))] * 100)
    made = HandMade([pack], [Disk(count * 4096, [(0, count * 4096)], [(0, count * 4096, 0, 0, count)])])
    artifact = Artifact.load(made.blobs, made.store())
    placed = list(artifact.chunks(artifact.map.disks[0]))
    assert max(map(len, placed)) <= 65536
    assert [offset for each in placed for offset in each.offset.tolist()] == list(range(0, count * 4096, 4096))


def test_deltas_of_others_are_no_dedup_hits(tmp_path: Path) -> None:
    """A snapshot that reused a delta, and listed its pack but not its base's, could never be restored."""
    path, blobs = tmp_path / "disk", MemoryBlobs()
    content = random.Random(3).randbytes(600_000)
    path.write_bytes(content)
    [pack] = blobs.create(path)[1].packs
    lengths = read_directory(blobs.contents[pack.digest]).lengths.tolist()
    chunks = [content[end - length : end] for end, length in zip(accumulate(lengths), lengths, strict=True)]
    bases = [chunk[:-7] + b"changed" for chunk in chunks]
    packs = [
        pack_bytes([frame(DELTA, chunk, base=base) for chunk, base in zip(chunks, bases, strict=True)]),
        pack_bytes([frame(RAW, base) for base in bases]),
    ]
    made = HandMade(packs, [Disk(len(content), [(0, len(content))], [(0, len(content), 0, 0, len(chunks))])])
    root = made.store()
    with Store.open(tmp_path / "store", create=True) as store:
        with store.transaction() as transaction:
            for data in made.blobs.contents.values():
                transaction.push(Descriptor.of(data, spec.MEDIA_MANIFEST), BytesSource(data))
            transaction.tag(root, "pulled")
        store.restore("pulled", str(tmp_path / "pulled"))
        store.create(Snapshot.builder(str(path)).name("captured").build())
        store.remove("pulled")
        store.gc()
        store.restore("captured", str(tmp_path / "captured"))
    assert (tmp_path / "pulled").read_bytes() == (tmp_path / "captured").read_bytes() == content
