"""Damaged and missing packs, made again from the disk: the exact bytes, or NotFound (rows 16, 17, 18, 19)."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casstore import Snapshot, Store, locality, spec
from casstore.blobs import BlobDirectory
from casstore.capture import CaptureOptions
from casstore.digest import Digest
from casstore.disk import DiskSource
from casstore.errors import NotFound
from casstore.frame import FrameKind
from casstore.oci import Descriptor
from casstore.operation import Operation
from casstore.rebuilding.rebuild import Rebuilder
from casstore.spec import KIB, MIB
from tests.support.artifacts import directory_length, read_directory
from tests.support.disks import Text
from tests.support.stores import FAST, blob_path


@dataclass
class Chain:
    """A store of snapshots of one disk, each after some changes; and the disk as each of them has it."""

    folder: Path
    disks: list[Path] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def roots(self) -> list[Descriptor]:
        return [snapshot.root for snapshot in self.snapshots]

    def made(self) -> dict[Descriptor, int]:
        """Every pack, and the number of the snapshot that it was made for."""
        found: dict[Descriptor, int] = {}
        for n, snapshot in enumerate(self.snapshots):
            for pack in snapshot.artifact_manifest.packs:
                found.setdefault(pack, n)
        return found

    def made_for(self, n: int) -> list[Descriptor]:
        return [pack for pack, maker in self.made().items() if maker == n]

    def read(self, pack: Descriptor) -> bytes:
        return blob_path(self.store, pack.digest).read_bytes()

    def write(self, pack: Descriptor, data: bytes | None) -> None:
        """Let a pack's file be this, or missing."""
        path = blob_path(self.store, pack.digest)
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)

    def rebuild(self, disk: int | Path, *packs: Descriptor, keep: bool = True) -> list[str]:
        """Make these packs again; the texts of those that cannot be. With `keep` what is made is stored."""
        path = self.disks[disk] if isinstance(disk, int) else disk
        failed = []
        with (
            Operation(str(self.store / "tmp"), FAST.durability) as operation,
            DiskSource.open(path) as source,
            Rebuilder(BlobDirectory(str(self.store / "blobs/sha256")), self.roots, source, operation.path) as rebuilder,
        ):
            for pack in packs:
                try:
                    operation.receive(pack, rebuilder)  # verifies
                except NotFound as error:
                    failed.append(str(error))
                    continue
                if keep:
                    self.write(pack, Path(operation.staged.path_of(pack.digest)).read_bytes())
            rebuilder.close()
            left = {path.name for path in Path(operation.path).iterdir()} - {"lease"}
            assert all(len(name) == 64 or name.startswith("new-") for name in left), left
        return failed


def make_chain(
    folder: Path, *, snapshots: int = 3, level: int = 2, parents: bool = True, size: int = 1200 * KIB
) -> Chain:
    """Text, noise and a hole; then edits all over, of which deltas are made, and new text."""
    chain = Chain(folder)
    rng = random.Random(snapshots * level)
    text = Text(rng)
    content = bytearray(text.take(size) + rng.randbytes(300 * KIB) + bytes(200 * KIB) + text.take(200 * KIB))
    with Store.open(chain.store, create=True, options=FAST) as store:
        for n in range(snapshots):
            for _ in range(20 if n else 0):
                at = rng.randrange(len(content) - 50)
                content[at : at + 50] = rng.randbytes(50)
            if n:
                at = rng.randrange(size // 4096 - 30) * 4096
                content[at : at + 100 * KIB] = text.take(100 * KIB)
            chain.disks.append(folder / f"disk{n}")
            chain.disks[n].write_bytes(content)
            builder = Snapshot.builder(chain.disks[n]).name(f"s{n}")
            if n and parents:
                builder.parent(f"s{n - 1}")
            chain.snapshots.append(store.create(builder.build(), options=CaptureOptions(level=level)))
    return chain


@pytest.fixture(scope="module", autouse=True)
def small_packs() -> Iterator[None]:
    """So that a small disk has several, of several frames each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spec, "PACK_TARGET", 200 * KIB)
        patch.setattr(spec, "FRAME_PLAIN", 128 * KIB)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return make_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture
def chain(whole: Chain) -> Iterator[Chain]:
    """The chain, whose packs may be damaged: they are mended afterwards."""
    contents = {pack: whole.read(pack) for pack in whole.made()}
    yield whole
    for pack, data in contents.items():
        whole.write(pack, data)


def flipped(data: bytes, *bits: int) -> bytes:
    out = bytearray(data)
    for bit in bits:
        out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def frames_end(data: bytes) -> int:
    return len(data) - directory_length(data)


def test_the_chain_has_all_kinds_of_frames(whole: Chain) -> None:
    """What follows would prove little without."""
    assert len(whole.made_for(0)) >= 3
    kinds = {int(kind) for pack in whole.made() for kind in read_directory(whole.read(pack)).kinds}
    assert kinds == set(FrameKind)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_row_17_any_flipped_bits_in_frames_are_healed(chain: Chain, data: st.DataObject) -> None:
    """By the disk that the pack was made of, every one of them."""
    pack, maker = data.draw(st.sampled_from(sorted(chain.made().items(), key=str)))
    good = chain.read(pack)
    bits = data.draw(st.sets(st.integers(0, 8 * frames_end(good) - 1), min_size=1, max_size=6))
    chain.write(pack, flipped(good, *bits))
    assert chain.rebuild(maker, pack) == []
    assert chain.read(pack) == good


def test_bits_that_do_not_matter_for_decoding_are_healed(chain: Chain) -> None:
    """A reader of zstd ignores one bit of a frame's header, so all chunks are right; the pack's sha256 is not."""
    pack = chain.made_for(1)[0]
    good = chain.read(pack)
    directory = read_directory(good)
    for frame in (0, len(directory.kinds) - 1):
        at = int(directory.frame_offsets()[frame])
        assert good[at : at + 4] == b"\x28\xb5\x2f\xfd"
        chain.write(pack, flipped(good, 8 * (at + 4) + 4))
        assert chain.rebuild(1, pack) == []
        assert chain.read(pack) == good


@pytest.mark.parametrize("way", ["zeros", "noise", "longer", "magic"])
def test_all_frames_of_all_packs_are_healed(chain: Chain, way: str) -> None:
    """Row 16. As long as the directories are there; a file that became longer, too."""
    for pack in chain.made():
        good = chain.read(pack)
        end = frames_end(good)
        bad = {
            "zeros": bytes(end) + good[end:],
            "noise": random.Random(1).randbytes(end) + good[end:],
            "longer": good + b"\0",
            "magic": b"somebody" + good[8:],
        }[way]
        chain.write(pack, bad)
    for n in range(len(chain.disks)):
        assert chain.rebuild(n, *chain.made_for(n)) == []
    require_sound(chain)


def require_sound(chain: Chain) -> None:
    for pack in chain.made():
        assert Digest.of(chain.read(pack)) == pack.digest


LOST: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda _: None,
    "empty": lambda _: b"",
    "short": lambda good: good[: len(good) // 2],
    "directory": lambda good: flipped(good, 8 * (frames_end(good) + 20)),
    "zeros": lambda good: bytes(len(good)),
}


@pytest.mark.parametrize("way", LOST)
def test_a_pack_without_directory_is_captured_again(chain: Chain, way: str) -> None:
    """Rows 18 and 19. Each by itself, from the disk that it was made of."""
    for pack, maker in chain.made().items():
        good = chain.read(pack)
        chain.write(pack, LOST[way](good))
        assert chain.rebuild(maker, pack) == []
        assert chain.read(pack) == good


def test_all_packs_at_once(chain: Chain) -> None:
    """Nothing is left but documents; the oldest disk first, for the deltas of the next ones need it."""
    for pack in chain.made():
        chain.write(pack, None)
    assert chain.rebuild(2, *chain.made_for(2))
    for n in range(len(chain.disks)):
        assert chain.rebuild(n, *chain.made_for(n)) == []
    require_sound(chain)


def test_bases_in_damaged_packs(chain: Chain) -> None:
    """A delta cannot be made again while its base is damaged, too; when that is mended it can."""
    damaged = [*chain.made_for(0), *chain.made_for(1)]
    for pack in damaged:
        good = chain.read(pack)
        chain.write(pack, bytes(frames_end(good)) + good[frames_end(good) :])
    assert chain.rebuild(1, *chain.made_for(1))
    assert chain.rebuild(0, *damaged), "the first disk has not what is new on the second"
    assert chain.rebuild(1, *chain.made_for(1)) == []
    require_sound(chain)


def test_a_shared_pack_is_mended_by_any_disk_that_has_the_chunks(chain: Chain) -> None:
    """The last disk shares most with the first; what moved is found by cutting it."""
    pack = next(
        pack for pack in chain.made_for(0) if all(pack in each.artifact_manifest.packs for each in chain.snapshots)
    )
    good = chain.read(pack)
    directory = read_directory(good)
    moved = chain.folder / "moved"
    content = chain.disks[0].read_bytes()
    moved.write_bytes(bytes(MIB) + content[4096 * 30 :] + bytes(MIB) + content[: 4096 * 130])
    healed = 0
    for frame in range(len(directory.kinds)):
        chain.write(pack, flipped(good, 8 * int(directory.frame_offsets()[frame]) + 90))
        healed += chain.rebuild(len(chain.disks) - 1, pack) == []
        chain.write(pack, flipped(good, 8 * int(directory.frame_offsets()[frame]) + 90))
        assert chain.rebuild(moved, pack) == []
    assert healed < len(directory.kinds), "nothing was changed there"


@pytest.mark.parametrize("way", ["flip", *LOST])
def test_the_wrong_disk_gives_nothing(chain: Chain, way: str) -> None:
    """Another one, or the right one with a byte changed: NotFound says so, and no wrong bytes come."""
    pack = chain.made_for(0)[0]
    good = chain.read(pack)
    chain.write(pack, flipped(good, 8 * 5000) if way == "flip" else LOST[way](good))
    other, changed, longer = (chain.folder / name for name in ("other", "changed", "longer"))
    other.write_bytes(random.Random(5).randbytes(MIB))
    shutil.copyfile(chain.disks[0], changed)
    # The frame with the flipped bit is the first one.
    changed.write_bytes(b"X" + changed.read_bytes()[1:])
    longer.write_bytes(b"Y" + chain.disks[0].read_bytes()[1:] + bytes(4096))
    for disk in (other, changed, longer):
        (text,) = chain.rebuild(disk, pack)
        assert str(pack.digest) in text
        assert "disk" in text


def test_what_is_no_pack_of_a_snapshot(chain: Chain) -> None:
    snapshot = chain.snapshots[0].artifact_manifest
    unknown = Descriptor.of(b"no such pack", spec.MEDIA_PACK)
    for blob in (snapshot.map, snapshot.config, unknown):
        (text,) = chain.rebuild(0, blob)
        assert "expected a pack of a snapshot" in text


def test_a_disk_that_changes_meanwhile(chain: Chain, tmp_path: Path) -> None:
    pack = chain.made_for(0)[0]
    chain.write(pack, None)
    disk = shutil.copyfile(chain.disks[0], tmp_path / "disk")
    blobs = BlobDirectory(str(chain.store / "blobs/sha256"))
    with DiskSource.open(disk) as source, Rebuilder(blobs, chain.roots, source, str(tmp_path)) as rebuilder:
        disk.write_bytes(disk.read_bytes())
        with pytest.raises(NotFound, match="changed while it was read"):
            rebuilder.fetch(pack)


def test_what_one_capture_brings_back_is_kept_for_the_next_question(chain: Chain, tmp_path: Path) -> None:
    """A disk is read once for all packs of its snapshot."""
    packs = chain.made_for(0)
    for pack in packs:
        chain.write(pack, None)
    read: list[int] = []
    blobs = BlobDirectory(str(chain.store / "blobs/sha256"))
    with (
        DiskSource.open(chain.disks[0]) as source,
        Rebuilder(
            blobs, chain.roots, source, str(tmp_path), progress=lambda event: read.append(event.done)
        ) as rebuilder,
    ):
        for pack in packs:
            with rebuilder.fetch(pack) as reader:
                assert reader.read(pack.size) is not None
    assert max(read) <= chain.disks[0].stat().st_size


def damage_all(chain: Chain, packs: Iterable[Descriptor]) -> None:
    rng = np.random.default_rng(1)
    for pack in packs:
        good = chain.read(pack)
        chain.write(pack, flipped(good, *(8 * int(at) for at in rng.integers(8, frames_end(good), 3))))


@pytest.mark.parametrize("options", [{"level": 9}, {"parents": False}, {"small": 2, "snapshots": 5}], ids=str)
def test_other_ways_to_capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, int]) -> None:
    """Another level; a base that casstore chose itself; small packs that were merged, whose frames are copies."""
    monkeypatch.setattr(locality, "MOST_SMALL", options.pop("small", locality.MOST_SMALL))
    chain = make_chain(tmp_path, **options)  # type: ignore[arg-type]
    if "snapshots" in options:
        assert any(snapshot.cost and snapshot.cost.stats.copied for snapshot in chain.snapshots)
    made = chain.made()
    damage_all(chain, made)
    for n in range(len(chain.disks)):
        assert chain.rebuild(n, *chain.made_for(n)) == []
    require_sound(chain)
    for n in range(len(chain.disks)):
        for pack in chain.made_for(n):
            good = chain.read(pack)
            chain.write(pack, None)
            assert chain.rebuild(n, pack) == []
            assert chain.read(pack) == good


def test_a_snapshot_that_is_gone(tmp_path: Path) -> None:
    """The first snapshot is removed: its packs are still used, and its disk still gives them."""
    chain = make_chain(tmp_path, snapshots=2)
    packs = [pack for pack in chain.made_for(0) if pack in chain.snapshots[1].artifact_manifest.packs]
    del chain.snapshots[0]
    damage_all(chain, packs)
    assert chain.rebuild(0, *packs) == []
    for pack in packs:
        chain.write(pack, None)
    assert chain.rebuild(0, *packs) == []
    require_sound(chain)
