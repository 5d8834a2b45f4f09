"""A disk through capture, the artifact and back: the same bytes and extents, and only what is new is stored."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore import packer, spec
from casstore.artifact import Artifact
from casstore.capture import CaptureStats
from casstore.content import Reader
from casstore.contents import hash_disk, plain_bytes
from casstore.diskmap import SnapshotMap
from casstore.durable import Durability
from casstore.errors import AlreadyExists, DocumentError
from casstore.integrity import ALGORITHMS, hasher
from casstore.oci import Descriptor
from casstore.progress import Meter, silent
from casstore.restore import restore_file, restore_stream
from casstore.soundness import verify_chunks
from casstore.spec import BLOCK, CHUNK_MIN, KIB, MIB
from casstore.streams import BytesSource
from casstore.verify import verify
from tests.support.artifacts import (
    DELTA,
    RAW,
    ZSTD,
    Disk,
    HandMade,
    MemoryBlobs,
    frame,
    map_blob,
    map_body,
    pack_bytes,
    pack_entry,
)
from tests.support.disks import (
    Segment,
    allocated,
    edit_with_debugfs,
    extents,
    random_sparse_file,
    same_bytes,
    segments,
    unpack_fixture,
    write_mixed_file,
    write_segments,
)

METER = Meter(silent, "test", None)


class BytesFetcher:
    """Whole blobs out of a MemoryBlobs, verified."""

    def __init__(self, blobs: MemoryBlobs) -> None:
        self._blobs = blobs

    def fetch(self, descriptor: Descriptor) -> Reader:
        return BytesSource(self._blobs.contents[descriptor.digest]).fetch(descriptor)


def restore(artifact: Artifact, path: Path, *, workers: int = 2, force: bool = False) -> Path:
    restore_file(
        artifact,
        artifact.map.disks[0],
        str(path),
        force=force,
        workers=workers,
        meter=METER,
        durability=Durability.NONE,
    )
    return path


def streamed(artifact: Artifact, *, workers: int = 2) -> bytes:
    out = bytearray()
    restore_stream(artifact, artifact.map.disks[0], out.extend, workers=workers, meter=METER)
    return bytes(out)


def hashed(artifact: Artifact, *, workers: int = 2) -> dict[str, str]:
    this = artifact.map.disks[0]
    hashers = {spelling: hasher(spelling, this.size) for spelling in ALGORITHMS}
    hash_disk(artifact, this, list(hashers.values()), workers=workers, meter=METER)
    return {spelling: each.finish() for spelling, each in hashers.items()}


def plain_hashes(path: Path) -> dict[str, str]:
    """The digests of a file, straight from its bytes and extents."""
    data = path.read_bytes()
    result = {}
    for spelling in ALGORITHMS:
        each = hasher(spelling, len(data))
        for offset, length in extents(path):
            each.begin_extent(offset, length)
            each.update(data[offset : offset + length])
        result[spelling] = each.finish()
    assert result["sha256"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
    return result


def check_round_trip(blobs: MemoryBlobs, path: Path, workers: int) -> Artifact:
    """Capture `path` and compare everything that can be read from the snapshot with it."""
    made, manifest = blobs.create(path, workers=workers)
    artifact = Artifact.load(blobs, made.root)
    disk = artifact.map.disks[0]
    assert disk.size == path.stat().st_size
    assert [tuple(extent) for extent in disk.extents.tolist()] == extents(path)
    back = restore(artifact, path.with_suffix(".back"), workers=workers)
    assert back.stat().st_size == path.stat().st_size
    assert back.read_bytes() == path.read_bytes()
    assert extents(back) == extents(path)
    assert abs(allocated(back) - allocated(path)) <= allocated(path) // 100 + 64 * KIB
    assert streamed(artifact, workers=workers) == path.read_bytes()
    assert hashed(artifact, workers=workers) == plain_hashes(path)
    report = verify(artifact, BytesFetcher(blobs), workers=workers, meter=METER)
    assert report.blobs == len(manifest.children) + 1
    assert report.blob_bytes == sum(len(blobs.contents[blob.digest]) for blob in (*manifest.children, made.root))
    chunks = sum(len(directory) for directory in artifact.directories)
    assert report.chunks == chunks == made.stats.new_chunks
    back.unlink()
    return artifact


@given(parts=segments(), workers=st.sampled_from([1, 2, 5]))
def test_any_sparse_disk(tmp_path_factory: pytest.TempPathFactory, parts: list[Segment], workers: int) -> None:
    path = tmp_path_factory.mktemp("disk") / "disk"
    write_segments(path, parts)
    check_round_trip(MemoryBlobs(), path, workers)


@given(
    places=st.lists(st.tuples(st.integers(0, 3 * MIB), st.integers(1, 100_000), st.booleans()), max_size=8),
    size=st.integers(0, 3 * MIB),
)
@settings(max_examples=30)
def test_any_disk_of_unaligned_pieces(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, int, bool]], size: int
) -> None:
    path = tmp_path_factory.mktemp("disk") / "disk"
    rng = random.Random(len(places))
    with path.open("wb") as out:
        for offset, length, zeros in places:
            out.seek(offset)
            out.write(bytes(length) if zeros else rng.randbytes(length))
        out.truncate(size)
    check_round_trip(MemoryBlobs(), path, 2)


@pytest.mark.parametrize("size", [0, 1, 511, BLOCK - 1, BLOCK, BLOCK + 1, CHUNK_MIN, MIB + 1])
@pytest.mark.parametrize("kind", ["hole", "zeros", "random"])
def test_row_47_sizes(tmp_path: Path, size: int, kind: str) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as out:
        if kind != "hole":
            out.write(bytes(size) if kind == "zeros" else random.Random(1).randbytes(size))
        out.truncate(size)
    artifact = check_round_trip(MemoryBlobs(), path, 2)
    assert len(artifact.directories) == (1 if kind == "random" and size else 0)


def test_extents_within_a_block(tmp_path: Path) -> None:
    """Some file systems have blocks of 1 KiB: an extent may begin and end inside one of ours."""
    data = b"a" * 1024 + bytes(1024) + b"b" * 1024 + bytes(1024) + b"c" * 3000 + bytes(2 * MIB)
    pack = pack_bytes([frame(ZSTD, data[:7096])])
    disk = Disk(len(data), extents=[(0, 1024), (1024, 1024), (1024, 3000), (MIB, 5000)], runs=[(0, 7096, 0, 0, 1)])
    made = HandMade([pack], [disk])
    artifact = Artifact.load(made.blobs, made.store())
    assert streamed(artifact) == data
    assert restore(artifact, tmp_path / "back").read_bytes() == data
    assert hashed(artifact)["sha256"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
    sparse = hasher("sparse", len(data))
    for offset, length in ((0, 1024), (2048, 1024), (4096, 3000), (7096 + MIB, 5000)):
        sparse.begin_extent(offset, length)
        sparse.update(data[offset : offset + length])
    assert hashed(artifact)["sparse"] == sparse.finish()
    assert verify_chunks(artifact, known=lambda _: (), workers=1) == 1


def test_digest_does_not_depend_on_workers(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    random_sparse_file(path, seed=5, size=24 * MIB)
    roots = {MemoryBlobs().create(path, workers=workers)[0].root for workers in (1, 2, 5, 1)}
    assert len(roots) == 1


def test_digest_depends_on_what_it_must(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    random_sparse_file(path, seed=5)
    one = MemoryBlobs().create(path)[0].root
    with path.open("r+b") as out:
        out.seek(extents(path)[0][0] + 5)
        out.write(b"!")
    assert MemoryBlobs().create(path)[0].root != one


def test_recorded_integrity_verifies(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    random_sparse_file(path, seed=6)
    for spelling in ALGORITHMS:
        blobs = MemoryBlobs()
        made, _ = blobs.create(path, integrity=spelling)
        report = verify(Artifact.load(blobs, made.root), BytesFetcher(blobs), workers=2, meter=METER)
        assert (report.upper.kind, report.upper.digest) == ("verified", plain_hashes(path)[spelling])


# --- dedup -----------------------------------------------------------------------------------------------------------


def capture_again(blobs: MemoryBlobs, manifest_of: Artifact, path: Path) -> tuple[Artifact, CaptureStats]:
    """Capture `path` where the packs of an artifact are known."""
    blobs.remember(manifest_of.manifest.packs)
    made, _ = blobs.create(path)
    artifact = Artifact.load(blobs, made.root)
    assert streamed(artifact) == path.read_bytes()
    return artifact, made.stats


def first_capture(blobs: MemoryBlobs, path: Path) -> Artifact:
    return Artifact.load(blobs, blobs.create(path)[0].root)


def test_same_disk_again_adds_no_pack(tmp_path: Path) -> None:
    path, blobs = tmp_path / "disk", MemoryBlobs()
    random_sparse_file(path, seed=7, size=12 * MIB)
    first = first_capture(blobs, path)
    again, stats = capture_again(blobs, first, path)
    assert (stats.new_chunks, stats.new_plain, stats.new_stored) == (0, 0, 0)
    assert again.manifest.packs == first.manifest.packs
    assert again.digest == first.digest


def test_moved_content_is_found(tmp_path: Path) -> None:
    """A file that the file system placed elsewhere, at a block boundary, is the same chunks."""
    path, moved, blobs = tmp_path / "disk", tmp_path / "moved", MemoryBlobs()
    content = random.Random(8).randbytes(4 * MIB)
    path.write_bytes(content)
    first = first_capture(blobs, path)
    moved.write_bytes(random.Random(9).randbytes(37 * BLOCK) + content[MIB:] + content[:MIB])
    _, stats = capture_again(blobs, first, moved)
    assert stats.new_plain < 37 * BLOCK + 6 * spec.CHUNK_MAX


def test_edit_stores_little_more_than_its_chunks(tmp_path: Path) -> None:
    path, blobs = tmp_path / "disk", MemoryBlobs()
    write_mixed_file(path, 12 * MIB, seed=3)
    first = first_capture(blobs, path)
    with path.open("r+b") as out:
        for offset in (5 * MIB, 9 * MIB):
            out.seek(offset)
            out.write(b"edited")
    _, stats = capture_again(blobs, first, path)
    assert 2 <= stats.new_chunks <= 4
    assert stats.new_plain <= 4 * spec.CHUNK_MAX


def test_content_that_repeats_is_stored_once(tmp_path: Path) -> None:
    path, blobs = tmp_path / "disk", MemoryBlobs()
    content = random.Random(10).randbytes(2 * MIB)
    path.write_bytes(content * 4)
    made, _ = blobs.create(path)
    assert made.stats.new_plain < 2 * MIB + 4 * spec.CHUNK_MAX
    assert made.stats.chunks > 3 * made.stats.new_chunks
    assert streamed(Artifact.load(blobs, made.root)) == content * 4


@pytest.mark.needs("debugfs")
def test_edited_ext4(tmp_path: Path) -> None:
    path, blobs = tmp_path / "disk", MemoryBlobs()
    unpack_fixture("base", path)
    first = check_round_trip(blobs, path, 2)
    edit_with_debugfs(path, seed=4, changed=5, rows=20, added=2, removed=1)
    blobs.remember(first.manifest.packs)
    made, _ = blobs.create(path)
    assert made.stats.new_chunks < made.stats.chunks
    artifact = Artifact.load(blobs, made.root)
    assert same_bytes(restore(artifact, tmp_path / "back"), path)


# --- packs -----------------------------------------------------------------------------------------------------------


def test_runs_over_many_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of new chunks is cut where one pack ends and the next begins."""
    monkeypatch.setattr(spec, "PACK_TARGET", 512 * KIB)
    path, blobs = tmp_path / "disk", MemoryBlobs()
    random_sparse_file(path, seed=11, size=16 * MIB)
    artifact = check_round_trip(blobs, path, 2)
    packs = artifact.manifest.packs
    assert len(packs) > 3
    assert all(512 * KIB <= pack.size < 512 * KIB + MIB + 64 * KIB for pack in packs[:-1])
    runs = artifact.map.disks[0].runs
    for length, pack, first, count in zip(
        runs.length.tolist(), runs.pack.tolist(), runs.first.tolist(), runs.count.tolist(), strict=True
    ):
        assert length == artifact.directories[pack].lengths[first : first + count].sum()
    merged = [
        (after_pack, after_first)
        for gap, pack, end, after_pack, after_first in zip(
            runs.gap[1:].tolist(),
            runs.pack[:-1].tolist(),
            (runs.first + runs.count)[:-1].tolist(),
            runs.pack[1:].tolist(),
            runs.first[1:].tolist(),
            strict=True,
        )
        if gap == 0 and (after_pack, after_first) == (pack, end)
    ]
    assert merged == [], "runs that could be one are one"
    again, stats = capture_again(blobs, artifact, path)
    assert stats.new_chunks == 0
    assert again.manifest.packs == packs
    assert again.digest == artifact.digest


def test_packs_grow_with_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest of 4 MiB names 28,000 packs: of 32 MiB each they would hold 0.9 TiB."""
    monkeypatch.setattr(spec, "PACK_TARGET", 64 * KIB)
    monkeypatch.setattr(spec, "FRAME_PLAIN", 1)
    monkeypatch.setattr(packer, "PACKS_OF_A_SIZE", 4)
    path, blobs = tmp_path / "disk", MemoryBlobs()
    path.write_bytes(random.Random(12).randbytes(8 * MIB))
    sizes = [pack.size for pack in check_round_trip(blobs, path, 2).manifest.packs]
    assert all(size >= 64 * KIB for size in sizes[:4])
    assert all(size >= 128 * KIB for size in sizes[4:8])
    assert all(size >= 192 * KIB for size in sizes[8:12])
    assert len(sizes) < 8 * MIB / (64 * KIB) / 2


def test_frames_hold_consecutive_chunks_up_to_a_mebibyte(tmp_path: Path) -> None:
    path, blobs = tmp_path / "disk", MemoryBlobs()
    path.write_bytes(random.Random(13).randbytes(8 * MIB))
    artifact = first_capture(blobs, path)
    plain = artifact.directories[0].plain_lengths().tolist()
    assert all(MIB - spec.CHUNK_MAX < length <= MIB for length in plain[:-1])
    assert sum(plain) == 8 * MIB


# --- what only other writers make ------------------------------------------------------------------------------------


def test_several_disks(tmp_path: Path) -> None:
    """One map, three disks that share chunks, one of them empty; with config v1 each is a snapshot of its own."""
    a, b, c = (random.Random(n).randbytes(40_000) for n in range(3))
    packs = [pack_bytes([frame(RAW, a), frame(ZSTD, b, b"x" * 5000)]), pack_bytes([frame(ZSTD, c)])]
    disks = [
        Disk(
            200_000,
            extents=[(0, 80_000), (40_000, 45_000)],
            runs=[(0, 80_000, 0, 0, 2), (40_000, 45_000, 0, 1, 2)],
        ),
        Disk(0, name=b"empty.raw"),
        Disk(
            90_000,
            extents=[(0, 90_000)],
            runs=[(1000, 40_000, 1, 0, 1), (0, 40_000, 0, 0, 1)],
            name=b"third.raw",
        ),
    ]
    contents = [a + b + bytes(40_000) + b + b"x" * 5000 + bytes(35_000), b"", bytes(1000) + c + a + bytes(9000)]
    blob = map_blob(map_body([pack_entry(pack) for pack in packs], disks))
    read = SnapshotMap.parse(blob, subject="map")
    assert [(disk.name, disk.size) for disk in read.disks] == [
        ("disk.raw", 200_000),
        ("empty.raw", 0),
        ("third.raw", 90_000),
    ]
    together = HandMade(packs, disks, map=blob)
    with pytest.raises(DocumentError, match=r"expected one disk 'disk\.raw'"):
        Artifact.load(together.blobs, together.store())
    for n, (disk, content) in enumerate(zip(disks, contents, strict=True)):
        alone = HandMade(packs, [disk])
        artifact = Artifact.load(alone.blobs, alone.store())
        assert [column.tolist() for column in astuple(artifact.map.disks[0].runs)] == [
            column.tolist() for column in astuple(read.disks[n].runs)
        ]
        assert streamed(artifact) == content
        assert restore(artifact, tmp_path / f"disk{n}").read_bytes() == content
        assert hashed(artifact)["sha256"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert verify_chunks(artifact, known=lambda _: (), workers=2) == 4


@pytest.mark.parametrize("base_kind", [RAW, ZSTD])
@pytest.mark.parametrize("same_pack", [True, False])
def test_delta_frames(tmp_path: Path, base_kind: int, *, same_pack: bool) -> None:
    """A delta against a chunk in the middle of a frame, in its own pack or in one that no run names."""
    before, base, after = (random.Random(n).randbytes(20_000) for n in range(3))
    changed = base[:9000] + b"changed" + base[9007:]
    full = frame(base_kind, before, base, after)
    delta = frame(DELTA, changed, base=base)
    assert len(delta.stored) < 200
    packs = [pack_bytes([delta, full])] if same_pack else [pack_bytes([delta]), pack_bytes([full])]
    made = HandMade(packs, [Disk(30_000, extents=[(0, 30_000)], runs=[(5000, len(changed), 0, 0, 1)])])
    artifact = Artifact.load(made.blobs, made.store())
    content = bytes(5000) + changed + bytes(5000)
    assert streamed(artifact) == content
    assert restore(artifact, tmp_path / "back").read_bytes() == content
    assert hashed(artifact)["sha256"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert verify_chunks(artifact, known=lambda _: (), workers=2) == 4


def test_every_plan_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks used in any order, often, from several packs, planned in windows of any size."""
    rng = random.Random(14)
    chunks = [rng.randbytes(rng.randint(1, 14_000)) for _ in range(40)]
    packs = [pack_bytes([frame(ZSTD, *chunks[n : n + 5]) for n in range(start, start + 20, 5)]) for start in (0, 20)]
    runs, content = [], b""
    for _ in range(60):
        gap, pack, first = rng.choice([0, 0, 1, 7777]), rng.randrange(2), rng.randrange(20)
        count = rng.randint(1, 20 - first)
        at = pack * 20 + first
        while len(plain := b"".join(chunks[at : at + count])) <= (count - 1) * BLOCK:
            count -= 1
        runs.append((gap, len(plain), pack, first, count))
        content += bytes(gap) + plain
    made = HandMade(packs, [Disk(len(content), extents=[(0, len(content))], runs=runs)])
    artifact = Artifact.load(made.blobs, made.store())
    for window in (1, 3, 50, 16384):
        monkeypatch.setattr("casstore.artifact._WINDOW", window)
        assert streamed(artifact) == content
        assert restore(artifact, tmp_path / "back", force=True).read_bytes() == content


# --- the target ------------------------------------------------------------------------------------------------------


def test_row_49_target_is_not_overwritten(tmp_path: Path) -> None:
    path, blobs = tmp_path / "disk", MemoryBlobs()
    path.write_bytes(b"content" * 1000)
    artifact = first_capture(blobs, path)
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    with pytest.raises(AlreadyExists):
        restore(artifact, target)
    assert target.read_bytes() == b"precious"
    restore(artifact, target, force=True)
    assert target.read_bytes() == path.read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["disk", "target"]


@pytest.mark.parametrize("kind", ["link", "dangling"])
def test_row_49_symlink_is_replaced_not_followed(tmp_path: Path, kind: str) -> None:
    path, blobs = tmp_path / "disk", MemoryBlobs()
    path.write_bytes(b"content" * 1000)
    artifact = first_capture(blobs, path)
    victim, target = tmp_path / "victim", tmp_path / "target"
    if kind == "link":
        victim.write_bytes(b"precious")
    target.symlink_to(victim)
    with pytest.raises(AlreadyExists):
        restore(artifact, target)
    assert target.is_symlink()
    restore(artifact, target, force=True)
    assert not target.is_symlink()
    assert target.read_bytes() == path.read_bytes()
    assert not victim.exists() if kind == "dangling" else victim.read_bytes() == b"precious"


def test_plain_bytes_come_in_bounded_pieces(tmp_path: Path) -> None:
    path, blobs = tmp_path / "disk", MemoryBlobs()
    with path.open("wb") as out:
        out.truncate(100 * MIB)
    artifact = first_capture(blobs, path)
    pieces = [len(piece) for piece in plain_bytes(artifact, artifact.map.disks[0], workers=1)]
    assert max(pieces) == MIB
    assert sum(pieces) == 100 * MIB


RSS_SCRIPT = """
import json, os, resource, sys
from pathlib import Path
from casstore.artifact import Artifact
from casstore.durable import Durability
from casstore.blobs import BlobDirectory
from casstore.capture import CaptureOptions
from casstore.create import Description, FreshLayout, build
from casstore.disk import DiskSource
from casstore.operation import Operation
from casstore.progress import Meter, silent
from casstore.restore import restore_file
from casstore.soundness import verify_chunks

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

folder, meter, peaks = Path(sys.argv[1]), Meter(silent, "", None), {"start": peak()}
with Operation(str(folder / "tmp"), Durability.NONE) as operation:
    with DiskSource.open(folder / "disk") as source:
        made = build(source, FreshLayout(operation), Description(), options=CaptureOptions())
    peaks["capture"] = peak()
    artifact = Artifact.load(operation.staged, made.root)
    restore_file(artifact, artifact.map.disks[0], str(folder / "back"), force=False, workers=0, meter=meter,
                 durability=Durability.NONE)
    peaks["restore"] = peak()
    verify_chunks(artifact, known=lambda _: (), workers=0)
    peaks["verify"] = peak()
json.dump(peaks, sys.stdout)
"""


@pytest.mark.long
def test_memory_is_bounded(tmp_path: Path) -> None:
    """Below 200 MiB for a disk of 1 GiB, all of it new; the numbers are kilobytes of resident memory."""
    write_mixed_file(tmp_path / "disk", 1024 * MIB, seed=15)
    done = subprocess.run([sys.executable, "-c", RSS_SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, check=True)
    peaks = json.loads(done.stdout)
    assert max(peaks.values()) < 200 * KIB, peaks
    assert same_bytes(tmp_path / "disk", tmp_path / "back")
