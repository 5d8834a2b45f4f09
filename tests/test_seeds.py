"""Restoring with seeds: whatever they are and become, the disk is right; and what they hold is not decoded."""

from __future__ import annotations

import fcntl
import os
import random
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore import Snapshot, Store, seeds
from casstore.artifact import Artifact
from casstore.durable import Durability
from casstore.errors import SourceError
from casstore.progress import Meter, silent
from casstore.restore import restore_file
from casstore.seeds import Seeds
from casstore.spec import BLOCK, KIB, MIB
from tests.support.artifacts import MemoryBlobs
from tests.support.command import Casstore
from tests.support.disks import (
    FileSystem,
    Segment,
    extents,
    file_system,
    random_sparse_file,
    segments,
    write_mixed_file,
    write_segments,
)
from tests.support.stores import FAST, capture, disk_bytes, write_disk

METER = Meter(silent, "test", None)


def snapshot_of(path: Path) -> Artifact:
    """Capture a disk into memory."""
    blobs = MemoryBlobs()
    return Artifact.load(blobs, blobs.create(path)[0].root)


def restored(
    artifact: Artifact, path: Path, *seeds: Path, then: Callable[[], object] = lambda: None, force: bool = False
) -> Path:
    """Restore with these seeds; `then` happens when they have been read. The holes are looked at before anything is
    read of the file: on XFS, space that was allocated ahead is data for SEEK_DATA from then on.
    """
    disk = artifact.map.disks[0]
    with Seeds.open(seeds) as found:
        found.learn(artifact, disk, workers=2, meter=METER)
        then()
        none = Durability.NONE
        restore_file(artifact, disk, str(path), force=force, workers=2, meter=METER, durability=none, seeds=found)
    assert extents(path) == [tuple(extent) for extent in disk.extents.tolist()]
    return path


def check(disk: Path, back: Path) -> None:
    """The same bytes."""
    assert back.stat().st_size == disk.stat().st_size
    assert back.read_bytes() == disk.read_bytes()


def overwrite(path: Path, rng: random.Random, edits: int) -> None:
    """Overwrite a few bytes in some places."""
    size = path.stat().st_size
    with path.open("r+b") as disk:
        for _ in range(edits if size else 0):
            disk.seek(rng.randrange(size))
            disk.write(rng.randbytes(rng.randint(1, 9000)))


def edit(path: Path, seed: int) -> None:
    """Overwrite a few bytes, move a part of it, and maybe change the size of a disk."""
    rng = random.Random(seed)
    overwrite(path, rng, 5)
    size = path.stat().st_size
    with path.open("r+b") as disk:
        if rng.random() < 0.5:
            disk.seek(rng.randrange(size + 1) // BLOCK * BLOCK)
            part = disk.read(300 * KIB)
            disk.seek(rng.randrange(size + MIB) // BLOCK * BLOCK)
            disk.write(part)
        if rng.random() < 0.3:
            disk.truncate(rng.randrange(size + 1))


@settings(max_examples=40)
@given(
    parts=segments(),
    others=segments(),
    seed=st.integers(0, 2**32),
    late=st.booleans(),
    most=st.sampled_from([1, 4_000_000]),
)
def test_any_seeds(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[Segment],
    others: list[Segment],
    seed: int,
    late: bool,
    most: int,
) -> None:
    """An older or newer disk, one that has nothing to do with it, one that changes again once it was read."""
    folder = tmp_path_factory.mktemp("seeds")
    disk, near, far = folder / "disk", folder / "near", folder / "far"
    write_segments(disk, parts)
    write_segments(near, parts)
    write_segments(far, others)
    edit(near, seed)
    artifact = snapshot_of(disk)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seeds, "_MOST_CHUNKS", most)
        patch.setattr(seeds, "_STRETCH", 1 + seed % MIB)
        then = (lambda: edit(near, seed + 1)) if late else (lambda: None)
        check(disk, restored(artifact, folder / "back", far, near, then=then))


def test_nothing_is_decoded_that_a_seed_holds(tmp_path: Path, decodes: Counter[str]) -> None:
    disk, seed = tmp_path / "disk", tmp_path / "seed"
    write_mixed_file(disk, 6 * MIB, seed=1)
    artifact = snapshot_of(disk)
    seed.write_bytes(random.Random(1).randbytes(BLOCK * 7) + disk.read_bytes()[: 3 * MIB])
    check(disk, restored(artifact, tmp_path / "all", disk))
    assert not decodes
    check(disk, restored(artifact, tmp_path / "half", seed))
    half = len(decodes)
    decodes.clear()
    check(disk, restored(artifact, tmp_path / "none", tmp_path / "all", tmp_path / "half"))
    assert not decodes
    check(disk, restored(artifact, tmp_path / "back"))
    assert 0 < half < len(decodes)


CHANGES: dict[str, Callable[[Path], object]] = {
    "gone": os.unlink,
    "empty": lambda path: os.truncate(path, 0),
    "shorter": lambda path: os.truncate(path, 1_000_001),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "one bit": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_seed_that_changes_after_it_was_read(tmp_path: Path, change: str) -> None:
    disk, seed = tmp_path / "disk", tmp_path / "seed"
    write_mixed_file(disk, 3 * MIB, seed=2)
    seed.write_bytes(disk.read_bytes())
    check(disk, restored(snapshot_of(disk), tmp_path / "back", seed, then=lambda: CHANGES[change](seed)))


def test_a_seed_that_changes_while_it_is_read(tmp_path: Path) -> None:
    """It is used as far as it was read."""
    disk, seed = tmp_path / "disk", tmp_path / "seed"
    write_mixed_file(disk, 12 * MIB, seed=3)
    seed.write_bytes(disk.read_bytes())
    artifact = snapshot_of(disk)
    truncating = Meter(lambda event: os.truncate(seed, 5 * MIB) if event.done else None, "test", None)
    with Seeds.open([seed]) as found:
        found.learn(artifact, artifact.map.disks[0], workers=1, meter=truncating)
        restore_file(
            artifact,
            artifact.map.disks[0],
            str(tmp_path / "back"),
            force=False,
            workers=1,
            meter=METER,
            durability=Durability.NONE,
            seeds=found,
        )
    check(disk, tmp_path / "back")


def test_a_seed_must_be_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    good = write_disk(tmp_path / "good", 1)
    before = set(os.listdir("/proc/self/fd"))
    for name, problem in {"fifo": "got a FIFO", "missing": "No such file", ".": "got a directory"}.items():
        with pytest.raises(SourceError, match=problem):
            Seeds.open([good, tmp_path / name])
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_target_may_be_a_seed(tmp_path: Path, decodes: Counter[str]) -> None:
    with Store.open(tmp_path / "store", create=True, options=FAST) as store:
        capture(store, tmp_path, "one", 1, 2, 0, 3, 4)
        target = write_disk(tmp_path / "target", 7, 1, 2, 3)
        store.restore("one", target, seeds=[target], force=True)
        assert target.read_bytes() == disk_bytes(1, 2, 0, 3, 4)
        decodes.clear()
        store.restore("one", target, seeds=[target], force=True)
        assert not decodes
        assert target.read_bytes() == disk_bytes(1, 2, 0, 3, 4)
        with pytest.raises(SourceError):
            store.restore("one", tmp_path / "other", seeds=[tmp_path / "missing"])
        assert not (tmp_path / "other").exists()


def test_restore_takes_seeds(tmp_path: Path) -> None:
    casstore = Casstore(tmp_path)
    disk, seed = write_disk(tmp_path / "disk", 1, 2, 3), write_disk(tmp_path / "seed", 3, 1)
    casstore("create", "one", "--disk", disk)
    casstore("restore", "one", tmp_path / "back", "--seed", seed, "--seed", disk)
    assert (tmp_path / "back").read_bytes() == disk_bytes(1, 2, 3)
    casstore("restore", "one", seed, "--seed", seed, "-f")
    assert seed.read_bytes() == disk_bytes(1, 2, 3)
    assert "'missing'" in casstore("restore", "one", "new", "--seed", "missing", code=16).stderr
    assert "--seed" in casstore("restore", "one", "-", "--seed", seed, code=2).stderr


# --- reflinks --------------------------------------------------------------------------------------------------------


def shared(path: Path) -> int:
    """Bytes of a file whose blocks are shared with others (FIEMAP)."""
    os.sync()
    total = at = 0
    with path.open("rb") as file:
        while True:
            batch = bytearray(struct.pack("=QQIIII", at, 2**64 - 1 - at, 0, 0, 100, 0) + bytes(56 * 100))
            fcntl.ioctl(file, 0xC020660B, batch)
            count = struct.unpack_from("=I", batch, 20)[0]
            if not count:
                return total
            for n in range(count):
                start, _, length, _, _, flags = struct.unpack_from("=QQQQQI", batch, 32 + 56 * n)
                total += length if flags & 0x2000 else 0
                at = start + length


def with_holes(path: Path, holes: Sequence[int]) -> None:
    """Make these blocks holes."""
    data = path.read_bytes()
    with path.open("wb") as out:
        for n in range(0, len(data), BLOCK):
            if n // BLOCK not in holes:
                os.pwrite(out.fileno(), data[n : n + BLOCK], n)
        out.truncate(len(data))


@pytest.mark.parametrize(
    "kind",
    [pytest.param("xfs", marks=pytest.mark.needs("xfs")), pytest.param("btrfs", marks=pytest.mark.needs("btrfs"))],
)
def test_reflinks(tmp_path: Path, kind: FileSystem, decodes: Counter[str]) -> None:
    with file_system(tmp_path, kind) as root:
        disk = root / "disk"
        write_mixed_file(disk, 24 * MIB, seed=4)
        artifact = snapshot_of(disk)
        check(disk, restored(artifact, root / "whole", disk))
        assert not decodes
        assert shared(root / "whole") >= 23 * MIB

        # A changed seed: what it still holds is shared, the rest is decoded; shared blocks are never written to.
        seed = root / "seed"
        seed.write_bytes(disk.read_bytes())
        overwrite(seed, random.Random(5), 3)
        before = seed.read_bytes()
        check(disk, restored(artifact, root / "most", seed))
        assert shared(root / "most") >= 12 * MIB
        assert seed.read_bytes() == before

        # It changes after it was read: cloned bytes are checked too.
        then = partial(overwrite, seed, random.Random(6), 40)
        check(disk, restored(artifact, root / "some", seed, then=then))
        check(disk, restored(artifact, root / "whole", root / "whole", force=True))
        assert shared(root / "whole") >= 23 * MIB
        assert disk.read_bytes() == (root / "most").read_bytes()

        # The same bytes with other holes: the target has the disk's.
        random_sparse_file(root / "sparse", seed=7)
        with_holes(root / "sparse", range(0, 1024, 9))
        flat = root / "flat"
        flat.write_bytes((root / "sparse").read_bytes())
        check(root / "sparse", restored(snapshot_of(root / "sparse"), root / "holes", flat))
        check(flat, restored(snapshot_of(flat), root / "none", root / "sparse"))


@pytest.mark.needs("xfs")
def test_a_seed_of_another_file_system_is_copied(tmp_path: Path, decodes: Counter[str]) -> None:
    with file_system(tmp_path, "xfs") as root:
        disk = tmp_path / "disk"
        write_mixed_file(disk, 3 * MIB, seed=8)
        artifact = snapshot_of(disk)
        back = restored(artifact, root / "back", disk)
        assert back.read_bytes() == disk.read_bytes()
        assert not decodes
        assert shared(back) == 0


def test_snapshots_restore_with_seeds(tmp_path: Path) -> None:
    """The library's face, into a directory."""
    with Store.open(tmp_path / "store", create=True, options=FAST) as store:
        made: Snapshot = capture(store, tmp_path, "one", 1, 2)
        path = made.restore(f"{tmp_path}/out/", seeds=[write_disk(tmp_path / "seed", 2)])
        assert Path(path).read_bytes() == disk_bytes(1, 2)
