"""Disks that can be read once only: from pipes and out of archives; and digests that are computed on the way."""

from __future__ import annotations

import io
import os
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore import Snapshot, Store
from casstore.artifact import Artifact
from casstore.base import Base
from casstore.binding import Bound, combine
from casstore.capture import Capture, CaptureOptions, capture
from casstore.config import DiskInput
from casstore.contents import hash_disk, plain_bytes, written_extents
from casstore.disk import DiskSource
from casstore.errors import SourceError
from casstore.integrity import ALGORITHMS, hasher
from casstore.manifest import Manifest
from casstore.progress import Meter, silent
from casstore.sequential import SequentialDisk
from tests.support import disks
from tests.support.artifacts import MemoryBlobs, config_bytes
from tests.support.stores import FAST, content, write_disk

BLOCK, MIB = 4096, 1 << 20
METER = Meter(silent, "test", None)


class Trickle:
    """Gives a few bytes at a time."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file, self._most = io.BytesIO(data), most

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._most))


def stored(data: bytes, extents: list[tuple[int, int]]) -> bytes:
    return b"".join(data[at : at + length] for at, length in extents)


def zero_outside(data: bytes, extents: list[tuple[int, int]]) -> bytes:
    result = bytearray(len(data))
    for at, length in extents:
        result[at : at + length] = data[at : at + length]
    return bytes(result)


def captured(
    source: DiskSource, blobs: MemoryBlobs, *, base: Artifact | None = None, algorithms: tuple[str, ...] = ()
) -> Capture:
    of = None if base is None else Base(base, base.map.disks[0])
    options = CaptureOptions(workers=2)
    return capture(source, "disk", storage=blobs, base=of, options=options, meter=METER, algorithms=algorithms)


def artifact_of(made: Capture, blobs: MemoryBlobs) -> Artifact:
    disk = made.map.disks[0]
    manifest = Manifest.parse(config_bytes(disk.size, disk.name), subject="made")
    return Bound.unseen(made).artifact(manifest, blobs)


def bytes_of(made: Capture, blobs: MemoryBlobs) -> bytes:
    return b"".join(plain_bytes(artifact_of(made, blobs), made.map.disks[0], workers=2))


layouts = st.lists(st.integers(1, 1500), min_size=0, max_size=12)
"""Lengths of extents and of the gaps between them, in sectors."""


@settings(max_examples=20)
@given(layouts, st.integers(0, 4000), st.integers(0, 9), st.sampled_from([1000, 70_000, 10 * MIB]))
def test_a_sparse_stream_keeps_its_bytes_and_extents(lengths: list[int], tail: int, seed: int, most: int) -> None:
    """GNU tar rounds extents to 512 bytes, not to blocks."""
    edges = [512 * sum(lengths[:n]) for n in range(len(lengths) + 1)]
    extents = [(start, end - start) for start, end in list(pairwise(edges))[::2]]
    size = edges[-1] + tail
    data = zero_outside(random.Random(seed).randbytes(size), extents)
    blobs = MemoryBlobs()
    source = SequentialDisk(Trickle(stored(data, extents), most), "member", size, extents)
    made = captured(source, blobs, algorithms=tuple(ALGORITHMS))
    assert bytes_of(made, blobs) == data
    assert [tuple(row) for row in made.map.disks[0].extents.tolist()] == extents
    assert made.digests.keys() == ALGORITHMS.keys()
    for name, digest in made.digests.items():
        expected = hasher(name, size)
        for at, length in extents:
            expected.begin_extent(at, length)
            expected.update(data[at : at + length])
        assert digest == expected.finish(), name


@settings(max_examples=20)
@given(disks.segments(most=6), st.booleans())
def test_the_zero_blocks_of_a_dense_stream_are_its_holes(segments: list[disks.Segment], again: bool) -> None:
    data = b"".join(segment.content() for segment in segments)
    blobs = MemoryBlobs()
    made = captured(SequentialDisk(io.BytesIO(data), "member", len(data)), blobs, algorithms=tuple(ALGORITHMS))
    if again:
        base = artifact_of(made, blobs)
        made = captured(SequentialDisk(io.BytesIO(data), "member", len(data)), blobs, base=base)
    assert bytes_of(made, blobs) == data
    disk = made.map.disks[0]
    blocks = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
    assert disk.allocated == sum(len(block) for block in blocks if any(block))
    assert "sparse" not in made.digests
    artifact = artifact_of(made, blobs)
    whole = captured(SequentialDisk(io.BytesIO(data), "member", len(data), [(0, len(data))] if data else []), blobs)
    artifact = artifact_of(whole, blobs)
    assert written_extents(artifact, whole.map.disks[0], workers=1).tolist() == disk.extents.tolist()


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_a_digest_on_the_way_is_that_of_what_was_stored(tmp_path: Path, name: str) -> None:
    path = tmp_path / "disk"
    disks.random_sparse_file(path, seed=3, size=9 * MIB)
    blobs = MemoryBlobs()
    with DiskSource.open(path) as source:
        base = artifact_of(captured(source, blobs), blobs)
    with path.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"edited")
    with DiskSource.open(path) as source:
        made = captured(source, blobs, base=base, algorithms=(name,))
    digester = hasher(name, made.map.disks[0].size)
    hash_disk(artifact_of(made, blobs), made.map.disks[0], [digester], workers=2, meter=METER)
    assert made.digests == {name: digester.finish()}


@pytest.mark.parametrize("extents", [None, [(0, 3 * MIB)], [(MIB, MIB), (3 * MIB, MIB)]])
def test_a_stream_that_ends_early_is_an_error(extents: list[tuple[int, int]] | None) -> None:
    source = SequentialDisk(io.BytesIO(b"x" * (MIB + 9)), "member 'm'", 4 * MIB, extents)
    with pytest.raises(SourceError, match=r"member .m..*ended"):
        captured(source, MemoryBlobs())


def test_several_disks_in_one_map(tmp_path: Path) -> None:
    """Packs that all share, that one needs for bases only, disks that are empty, or equal."""
    blobs = MemoryBlobs()
    contents = [random.Random(1).randbytes(3 * MIB), b"", random.Random(2).randbytes(2 * MIB)]
    contents.append(contents[0][:MIB] + b"edited" + contents[0][MIB + 6 :] + contents[2])
    contents.append(contents[2])
    made: list[Capture] = []
    for data in contents:
        base = artifact_of(made[0], blobs) if made else None
        made.append(captured(SequentialDisk(io.BytesIO(data), "member", len(data)), blobs, base=base))
    together = combine([(f"disk{n}", each) for n, each in enumerate(made)])
    read = type(together.map).parse(together.map.to_bytes(), subject="map")
    assert [disk.name for disk in read.disks] == [f"disk{n}" for n in range(5)]
    assert len(set(together.packs)) == len(together.packs)
    named = {int(pack) for disk in read.disks for pack in disk.runs.pack}
    assert named == set(range(len(named)))  # those for bases only come last
    for disk, data in zip(read.disks, contents, strict=True):
        alone = Capture(type(read)(read.packs, (disk,)), together.packs, together.stats, together.made)
        assert bytes_of(alone, blobs) == data


@pytest.mark.parametrize("more", [b"", b"more"])
def test_a_pipe_with_a_parent_is_read_to_its_end(tmp_path: Path, more: bytes) -> None:
    """What is as the parent has it is passed over, and is not the end."""
    path = tmp_path / "disk"
    path.write_bytes(random.Random(4).randbytes(13 * MIB))
    with Store.init(tmp_path / "store", options=FAST) as store:
        Snapshot.builder(path).name("base").create(store)
        data = path.read_bytes()[:-100] + b"!" * 100 + more
        end, start = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(end)
            with os.fdopen(start, "wb") as out:
                out.write(data)
            os._exit(0)
        os.close(start)
        Snapshot.builder(DiskInput(fd=end)).name("piped").parent("base").create(store)
        os.waitpid(child, 0)
        assert content(store, "piped") == data


def test_an_integrity_is_computed_from_pipes_too(tmp_path: Path) -> None:
    data = write_disk(tmp_path / "disk", 1, 0, 2).read_bytes()
    with Store.init(tmp_path / "store", options=FAST) as store:
        digests = []
        for name in ("file", "pipe"):
            source = DiskInput(path=str(tmp_path / "disk"))
            if name == "pipe":
                end, start = os.pipe()
                with os.fdopen(start, "wb") as out:
                    out.write(data[: 1 << 16])
                source = DiskInput(fd=end)
                os.truncate(tmp_path / "disk", 1 << 16)
            made = Snapshot.builder(source).name(name).record_integrity("sha256").create(store)
            digests.append(made.manifest.upper.integrity)
            assert store.verify(name).upper.kind == "verified"
        assert all(digests)
