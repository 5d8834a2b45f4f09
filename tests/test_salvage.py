"""What is written of a damaged snapshot, and what is said to be missing (rows 5, 17, 18, 19)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore import Store
from casstore.artifact import Artifact
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import CasstoreError, CorruptContent, StorageError
from casstore.oci import Descriptor
from casstore.progress import Meter, silent
from casstore.restore import restore_file
from casstore.salvage import Salvaged, load_remains, salvage_file
from tests.support.artifacts import (
    DELTA,
    RAW,
    ZSTD,
    Disk,
    HandMade,
    MemoryBlobs,
    directory_length,
    frame,
    pack_bytes,
    read_directory,
)
from tests.support.command import Casstore
from tests.support.deltas import Mixed, mixed
from tests.support.disks import extents
from tests.support.stores import FAST, PIECE, blob_path, capture, disk_bytes, flip_byte

LENGTH = 20_000


def salvage(blobs: MemoryBlobs, root: Descriptor, path: Path, *, force: bool = True) -> Salvaged:
    return salvage_file(
        load_remains(blobs, root),
        str(path),
        force=force,
        workers=2,
        meter=Meter(silent, "test", None),
        durability=Durability.NONE,
    )


def blanked(content: bytes, missing: tuple[tuple[int, int], ...]) -> bytes:
    """The content, with zeros where bytes are missing."""
    left = bytearray(content)
    for offset, length in missing:
        left[offset : offset + length] = bytes(length)
    return bytes(left)


def chunk_places(artifact: Artifact) -> Iterator[tuple[int, int, int, int]]:
    """(offset, length, pack, chunk) of each chunk of the disk."""
    for placed in artifact.chunks(artifact.map.disks[0]):
        located = placed.located
        columns = (placed.offset, located.length, located.pack, located.chunk)
        yield from zip(*(column.tolist() for column in columns), strict=True)


class Damage:
    """Random damage to the packs of an artifact, and which frames it spares."""

    def __init__(self, made: Mixed, rng: random.Random) -> None:
        self.blobs = MemoryBlobs()
        self.blobs.contents = dict(made.made.blobs.contents)
        packs = made.artifact.manifest.packs
        self.directories = [read_directory(self.blobs.contents[pack.digest]) for pack in packs]
        self.lost: set[int] = set()
        self.hit: set[tuple[int, int]] = set()
        self._rng = rng
        for n, pack in enumerate(packs):
            how = rng.choice(["not", "lose", "hit", "hit"])
            if how == "lose":
                self._lose(n, pack)
            elif how == "hit":
                self._hit(n, pack)

    def _lose(self, n: int, pack: Descriptor) -> None:
        data = self.blobs.contents.pop(pack.digest)
        self.lost.add(n)
        way = self._rng.randrange(3)
        if way == 1:
            self.blobs.contents[pack.digest] = data[: self._rng.randrange(len(data))]
        elif way == 2:
            at = len(data) - 1 - self._rng.randrange(directory_length(data))
            self.blobs.contents[pack.digest] = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]

    def _hit(self, n: int, pack: Descriptor) -> None:
        data = bytearray(self.blobs.contents[pack.digest])
        directory = self.directories[n]
        for _ in range(self._rng.randint(1, 4)):
            at = self._rng.randrange(8, len(data) - directory_length(bytes(data)))
            data[at] ^= 1 << self._rng.randrange(8)
            self.hit.add((n, int(np.searchsorted(directory.frame_offsets(), at, side="right")) - 1))
        self.blobs.contents[pack.digest] = bytes(data)

    def spares(self, pack: int, chunk: int) -> bool:
        """Whether a chunk's frame and, of a delta, every frame that has its base are whole."""
        directory = self.directories[pack]
        frame_ = directory.frame_of(chunk)
        if pack in self.lost or (pack, frame_) in self.hit:
            return False
        base = directory.base_of(frame_)
        if base is None:
            return True
        homes = [
            (n, each.frame_of(at))
            for n, each in enumerate(self.directories)
            for at in range(len(each))
            if each.chunk_id(at) == base and each.base_of(each.frame_of(at)) is None
        ]
        return not any(n in self.lost or (n, frame_) in self.hit for n, frame_ in homes)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), data=st.integers(0, 10**6))
def test_whatever_is_damaged_the_rest_is_written_and_nothing_wrong(
    tmp_path_factory: pytest.TempPathFactory, seed: int, data: int
) -> None:
    """Every byte that is not said to be missing is right, and what lies in whole frames is not missing."""
    made = mixed(seed)
    damage = Damage(made, random.Random(data))
    path = tmp_path_factory.mktemp("salvage") / "disk"
    salvaged = salvage(damage.blobs, made.artifact.manifest.descriptor, path)
    assert path.read_bytes() == blanked(made.content, salvaged.missing)
    ends = [offset + length for offset, length in salvaged.missing]
    assert all(end < offset for end, (offset, _) in zip(ends, salvaged.missing[1:], strict=False)), "not merged"
    gone = np.zeros(len(made.content), np.bool_)
    for offset, length in salvaged.missing:
        gone[offset : offset + length] = True
    allocated = np.zeros(len(made.content), np.bool_)
    for offset, length in made.artifact.map.disks[0].extents.tolist():
        allocated[offset : offset + length] = True
    assert not (gone & ~allocated).any(), "what is not allocated is known to be zero"
    for offset, length, pack, chunk in chunk_places(made.artifact):
        part = gone[offset : offset + length]
        if damage.spares(pack, chunk):
            assert not part.any()
        elif pack in damage.lost:
            assert (part == allocated[offset : offset + length]).all()
    assert bool(salvaged.missing) <= bool(salvaged.problems)


@pytest.mark.parametrize("seed", range(4))
def test_a_sound_snapshot_comes_out_as_restore_writes_it(tmp_path: Path, seed: int) -> None:
    """The same bytes and the same extents."""
    made = mixed(seed)
    artifact = made.artifact
    restore_file(
        artifact,
        artifact.map.disks[0],
        str(tmp_path / "restored"),
        force=False,
        workers=2,
        meter=Meter(silent, "test", None),
        durability=Durability.NONE,
    )
    salvaged = salvage(made.made.blobs, artifact.manifest.descriptor, tmp_path / "salvaged")
    assert (salvaged.missing, salvaged.problems, salvaged.missing_bytes) == ((), (), 0)
    assert (tmp_path / "salvaged").read_bytes() == made.content
    assert extents(tmp_path / "salvaged") == extents(tmp_path / "restored")


def hand_made(*frames: tuple[int, list[bytes]]) -> tuple[HandMade, Descriptor, bytes]:
    """One pack of these frames, and a disk of all its chunks, side by side."""
    chunks = [chunk for _, group in frames for chunk in group]
    content = b"".join(chunks)
    pack = pack_bytes([frame(kind, *group) for kind, group in frames])
    made = HandMade([pack], [Disk(len(content), [(0, len(content))], [(0, len(content), 0, 0, len(chunks))])])
    return made, made.store(), content


def corrupt(made: HandMade, at: int) -> None:
    """Invert a byte of the pack."""
    (digest,) = (digest for digest, data in made.blobs.contents.items() if data == made.packs[0])
    data = bytearray(made.packs[0])
    data[at] ^= 0xFF
    made.blobs.contents[digest] = bytes(data)


def test_what_comes_before_the_damage_in_a_frame_is_had(tmp_path: Path) -> None:
    """A zstd frame is decoded in blocks of at most 128 KiB: those before the damaged one."""
    rng = random.Random(1)
    chunks = [rng.randbytes(LENGTH // 2) + bytes([n]) * (LENGTH // 2) for n in range(1, 50)]
    made, root, content = hand_made((ZSTD, chunks))
    corrupt(made, 8 + len(frame(ZSTD, *chunks).stored) * 3 // 4)
    salvaged = salvage(made.blobs, root, tmp_path / "disk")
    assert (tmp_path / "disk").read_bytes() == blanked(content, salvaged.missing)
    assert 0 < salvaged.missing_bytes <= len(content) // 2


def test_in_a_raw_frame_only_the_damaged_chunk_is_lost(tmp_path: Path) -> None:
    chunks = [random.Random(n).randbytes(LENGTH) for n in range(5)]
    made, root, content = hand_made((RAW, chunks))
    corrupt(made, 8 + 2 * LENGTH + 7)
    salvaged = salvage(made.blobs, root, tmp_path / "disk")
    assert salvaged.missing == ((2 * LENGTH, LENGTH),)
    assert (tmp_path / "disk").read_bytes() == blanked(content, salvaged.missing)
    assert len(salvaged.problems) == 1
    assert "frame 0" in salvaged.problems[0]


def test_a_delta_without_its_base_is_all_that_is_lost(tmp_path: Path) -> None:
    base, other = random.Random(1).randbytes(LENGTH), random.Random(2).randbytes(LENGTH)
    changed = base[:100] + b"changed" + base[107:]
    packs = [pack_bytes([frame(RAW, base)]), pack_bytes([frame(RAW, other), frame(DELTA, changed, base=base)])]
    made = HandMade(packs, [Disk(2 * LENGTH, [(0, 2 * LENGTH)], [(0, 2 * LENGTH, 1, 0, 2)])])
    root = made.store()
    del made.blobs.contents[Digest.of(packs[0])]
    salvaged = salvage(made.blobs, root, tmp_path / "disk")
    assert salvaged.missing == ((LENGTH, LENGTH),)
    assert (tmp_path / "disk").read_bytes() == other + bytes(LENGTH)
    assert any("base" in problem for problem in salvaged.problems)


def test_row_5_a_frame_that_cannot_be_read(tmp_path: Path) -> None:
    """EIO on the second frame, and all reads that touch it."""
    first, second, third = (random.Random(n).randbytes(LENGTH) for n in range(3))
    made, root, _ = hand_made((RAW, [first]), (RAW, [second]), (RAW, [third]))
    right: Callable[[Descriptor, int, int], bytes] = made.blobs.read_range

    def read_range(descriptor: Descriptor, offset: int, length: int) -> bytes:
        if made.blobs.contents[descriptor.digest] == made.packs[0] and offset <= 9 + LENGTH < offset + length:
            raise StorageError("blob: Input/output error")
        return right(descriptor, offset, length)

    made.blobs.read_range = read_range  # type: ignore[method-assign]
    salvaged = salvage(made.blobs, root, tmp_path / "disk")
    assert salvaged.missing == ((LENGTH, LENGTH),)
    assert (tmp_path / "disk").read_bytes() == first + bytes(LENGTH) + third
    assert salvaged.problems == ("blob: Input/output error",)


@pytest.mark.parametrize("what", ["map", "config"])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_without_a_map_nothing_is_written(tmp_path: Path, what: str, how: str) -> None:
    made = mixed(1)
    manifest = made.artifact.manifest
    digest = getattr(manifest, what).digest
    data = made.made.blobs.contents.pop(digest)
    if how == "damaged":
        made.made.blobs.contents[digest] = data[:-1] + bytes([data[-1] ^ 1])
    (tmp_path / "disk").write_bytes(b"before")
    with pytest.raises(CorruptContent, match=r"documents cannot be read.*casstore check --repair --from"):
        salvage(made.made.blobs, manifest.descriptor, tmp_path / "disk")
    assert (tmp_path / "disk").read_bytes() == b"before"


def test_an_error_of_the_target_is_none_of_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    made = mixed(1)
    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(StorageError, match="No space left"):
        salvage(made.made.blobs, made.artifact.manifest.descriptor, tmp_path / "disk")
    assert not list(tmp_path.iterdir())


# --- in a store, and on the command line ------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path, casstore: Casstore) -> bytes:
    """The snapshot `one`, of which one frame is damaged: its content."""
    pieces = [1, 2, 0, 3, *range(4, 40)]
    with Store.open(casstore.store, create=True, options=FAST) as store:
        pack = capture(store, tmp_path, "one", *pieces).artifact_manifest.packs[0]
    flip_byte(blob_path(casstore.store, pack.digest), 5 * PIECE)
    return disk_bytes(*pieces)


def test_the_store_salvages_what_it_cannot_list(tmp_path: Path, casstore: Casstore, damaged: bytes) -> None:
    """Row 19. With a pack missing and the catalog gone, the snapshot is broken for everything else."""
    with Store.open(casstore.store, options=FAST) as store:
        digest = store.open_snapshot("one").digest
        pack = store.open_snapshot("one").artifact_manifest.packs[0]
    blob_path(casstore.store, pack.digest).unlink()
    (casstore.store / "catalog.sqlite").unlink()
    with Store.open(casstore.store, options=FAST) as store:
        with pytest.raises(CasstoreError):
            store.open_snapshot("one")
        for selector in ("one", str(digest)[:20]):
            salvaged = store.salvage(selector, tmp_path / "left", force=True)
            assert salvaged.digest == digest
            assert salvaged.missing == ((0, 2 * PIECE), (3 * PIECE, len(damaged) - 3 * PIECE))
    assert (tmp_path / "left").read_bytes() == bytes(len(damaged))


def test_a_seed_has_what_the_store_lost(tmp_path: Path, casstore: Casstore, damaged: bytes) -> None:
    assert (
        casstore.json(
            *("restore", "one", tmp_path / "left", "--salvage", "--seed", tmp_path / "one.disk"), schema="cli-salvage"
        )["missing"]
        == []
    )
    assert (tmp_path / "left").read_bytes() == damaged


def test_what_the_command_says(tmp_path: Path, casstore: Casstore, damaged: bytes) -> None:
    """Row 17. The ranges on stderr, and exit code 3; the file is there."""
    left = tmp_path / "left"
    assert casstore("restore", "one", left, code=12).stdout == ""
    assert not left.exists()
    run = casstore("restore", "one", left, "--salvage", code=3)
    assert run.lines == [str(left)]
    document = casstore.json("restore", "one", left, "--salvage", "-f", code=3, schema="cli-salvage")
    (missing,) = document["missing"]
    assert document["path"] == str(left)
    assert document["missing_bytes"] == missing["length"] > 0
    assert f"missing: {missing['length']} bytes at {missing['offset']}" in run.stderr
    assert left.read_bytes() == blanked(damaged, ((missing["offset"], missing["length"]),))
    casstore("restore", "one", left, "--salvage", code=15)
    casstore("restore", "one", f"{tmp_path}/whole/", "--salvage", code=3)
    assert (tmp_path / "whole" / "manifest.json").is_file()


def test_many_ranges_take_few_lines(tmp_path: Path, casstore: Casstore) -> None:
    pieces = list(range(1, 60))
    with Store.open(casstore.store, create=True, options=FAST) as store:
        pack = capture(store, tmp_path, "one", *pieces).artifact_manifest.packs[0]
    path = blob_path(casstore.store, pack.digest)
    for n in range(1, 59):
        flip_byte(path, n * PIECE)
    run = casstore("restore", "one", tmp_path / "left", "--salvage", code=3)
    assert len(run.stderr.splitlines()) <= 45
    document = casstore.json("restore", "one", tmp_path / "left", "--salvage", "-f", code=3, schema="cli-salvage")
    assert len(document["missing"]) > 20
    ranges = tuple((each["offset"], each["length"]) for each in document["missing"])
    assert (tmp_path / "left").read_bytes() == blanked(disk_bytes(*pieces), ranges)


def test_nothing_missing_is_success(tmp_path: Path, casstore: Casstore) -> None:
    with Store.open(casstore.store, create=True, options=FAST) as store:
        capture(store, tmp_path, "one", 1, 0, 2)
    assert "nothing is missing" in casstore("restore", "one", tmp_path / "left", "--salvage").stderr
    assert (tmp_path / "left").read_bytes() == disk_bytes(1, 0, 2)


def test_what_the_command_refuses(tmp_path: Path, casstore: Casstore, damaged: bytes) -> None:
    """A pipe cannot have holes that are told from zeros."""
    assert "expected a file" in casstore("restore", "one", "-", "--salvage", code=2).stderr
    assert "expected --salvage" in casstore("restore", "one", tmp_path / "left", "--json", code=2).stderr
    assert "no such name" in casstore("restore", "two", tmp_path / "left", "--salvage", code=10).stderr
    with Store.open(casstore.store, options=FAST) as store:
        manifest = store.open_snapshot("one").artifact_manifest
    flip_byte(blob_path(casstore.store, manifest.config.digest))
    text = casstore("restore", "one", tmp_path / "left", "--salvage", code=12).stderr
    assert "casstore check --repair" in text
