"""A disk captured against a base: only what differs is stored, as deltas where that pays, and never wrong bytes."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore import Snapshot, Store, frame, scan, spec
from casstore.artifact import Artifact
from casstore.binding import Created
from casstore.config import DiskInput
from casstore.contents import plain_bytes
from casstore.deltas import resembles
from casstore.errors import CorruptContent
from casstore.oci import Descriptor
from casstore.soundness import verify_chunks
from casstore.spec import BLOCK, CHUNK_MIN, KIB, MIB
from casstore.streams import BytesSource
from tests.support.artifacts import DELTA, ZSTD, Disk, HandMade, MemoryBlobs, pack_bytes
from tests.support.artifacts import frame as made_by_hand
from tests.support.deltas import mixed
from tests.support.disks import Segment, extents, random_sparse_file, segments, write_segments
from tests.support.edits import Edit, edits, frames, plain_chunks
from tests.support.stores import FAST, blob_path, content, flip_byte, leftovers, names, require_sound

LEVEL = 3


def captured(blobs: MemoryBlobs, path: Path, based_on: Descriptor | None = None, **options: Any) -> Created:
    """Capture a disk where everything that was captured before is known."""
    made, manifest = blobs.create(path, base=based_on, level=LEVEL, **options)
    blobs.remember(manifest.packs)
    return made


def require_right(blobs: MemoryBlobs, root: Descriptor, path: Path) -> Artifact:
    """Whatever is read from a snapshot is the disk; whatever its packs claim is right."""
    artifact = Artifact.load(blobs, root)
    disk = artifact.map.disks[0]
    assert b"".join(map(bytes, plain_bytes(artifact, disk, workers=2))) == path.read_bytes()
    assert [tuple(extent) for extent in disk.extents.tolist()] == extents(path)
    chunks = plain_chunks(blobs.contents[pack.digest] for pack in artifact.manifest.packs)
    assert verify_chunks(artifact, known=lambda _: (), workers=2) == sum(map(len, artifact.directories))
    for pack in artifact.manifest.packs:
        for kind, ((chunk_id, length), *_), stored, _ in frames(blobs.contents[pack.digest]):
            if kind == DELTA:
                full = len(frame.encode([chunks[chunk_id]], LEVEL)[1])
                assert len(stored) < 0.5 * min(length, full), "kept only where it pays"
    return artifact


# --- any disk, any edits ----------------------------------------------------------------------------------------------


@given(parts=segments(blocks=60), changes=edits())
@settings(max_examples=25)
def test_any_edit_comes_back(
    tmp_path_factory: pytest.TempPathFactory, parts: list[Segment], changes: list[Edit]
) -> None:
    path, blobs = tmp_path_factory.mktemp("disk") / "disk", MemoryBlobs()
    write_segments(path, parts)
    root = captured(blobs, path).root
    for edit in changes:
        edit.apply(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "WINDOW", 40 * BLOCK)
        roots = {blobs.create(path, base=root, level=LEVEL, workers=workers)[0].root for workers in (1, 2, 5)}
    assert len(roots) == 1
    require_right(blobs, roots.pop(), path)


@given(parts=segments(blocks=60), generations=st.lists(edits(most=3), min_size=1, max_size=4))
@settings(max_examples=15)
def test_any_edits_come_back_from_a_store(
    tmp_path_factory: pytest.TempPathFactory, parts: list[Segment], generations: list[list[Edit]]
) -> None:
    folder = tmp_path_factory.mktemp("disk")
    path = folder / "disk"
    write_segments(path, parts)
    with Store.init(folder / "store", options=FAST) as store:
        for n, changes in enumerate([[], *generations]):
            for edit in changes:
                edit.apply(path)
            Snapshot.builder(path).name(f"s{n}").create(store)
            back = store.restore(f"s{n}", folder / f"back{n}")
            assert Path(back).read_bytes() == path.read_bytes()
            assert extents(Path(back)) == extents(path)
            store.verify(f"s{n}")


@given(seed=st.integers(0, 10_000), changes=edits(blocks=150), window=st.sampled_from([1, 7, 16384]))
@settings(max_examples=10)
def test_any_edit_of_what_others_made_comes_back(
    tmp_path_factory: pytest.TempPathFactory, seed: int, changes: list[Edit], window: int
) -> None:
    """Its chunks begin and end anywhere, its runs name packs in any order, and anything may be a delta."""
    path, foreign = tmp_path_factory.mktemp("disk") / "disk", mixed(seed)
    blobs, root = foreign.made.blobs, foreign.made.store()
    blobs.remember(foreign.artifact.manifest.packs)
    path.write_bytes(foreign.content)
    for some in ([], changes):
        for edit in some:
            edit.apply(path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("casstore.artifact._WINDOW", window)
            roots = {blobs.create(path, base=root, level=LEVEL, workers=workers)[0].root for workers in (1, 4)}
        assert len(roots) == 1
        artifact = Artifact.load(blobs, roots.pop())
        assert b"".join(map(bytes, plain_bytes(artifact, artifact.map.disks[0], workers=2))) == path.read_bytes()
        verify_chunks(artifact, known=lambda _: (), workers=2)


# --- what is stored ---------------------------------------------------------------------------------------------------


def patched(path: Path, *offsets: int, data: bytes = b"edited") -> None:
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            file.write(data)


def test_small_edits_are_small_deltas_however_often(tmp_path: Path) -> None:
    """Each generation's deltas are made of the first one's full frames, so nothing is more than two decodes away."""
    path, blobs = tmp_path / "disk", MemoryBlobs()
    path.write_bytes(random.Random(1).randbytes(4 * MIB))
    root = captured(blobs, path).root
    first = Artifact.load(blobs, root)
    (full,) = first.manifest.packs
    placed = next(first.chunks(first.map.disks[0]))
    middles = (placed.offset + placed.located.length // 2)[[5, 20]].tolist()
    for n in range(4):
        patched(path, *middles, data=b"%d" % n)
        made = captured(blobs, path, root)
        root = made.root
        assert (made.stats.new_chunks, made.stats.deltas) == (2, 2)
        assert made.stats.new_stored < 1000
        artifact = require_right(blobs, root, path)
        assert artifact.manifest.packs[0] == full
        assert len(artifact.manifest.packs) == 2, "deltas that nothing uses any more are not listed"


PERIOD = 256 * KIB
PIECE = CHUNK_MIN
"""Too short for boundaries inside."""


def write_pieces(path: Path, pieces: Sequence[bytes], *, shift: int = 0) -> None:
    """A disk with a piece every PERIOD bytes, from `shift` on, and holes between them."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        for n, piece in enumerate(pieces):
            file.seek(n * PERIOD + shift)
            file.write(piece)
        file.truncate(len(pieces) * PERIOD)


@pytest.mark.parametrize(
    ("kind", "tried", "deltas"),
    [
        ("other content at the same place", 3, 0),
        ("other content that took the place", 0, 0),
        ("shorter", 3, 3),
        ("longer", 3, 3),
    ],
)
def test_deltas_are_tried_where_they_are_likely_to_pay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, tried: int, deltas: int
) -> None:
    rng = random.Random(2)
    path, blobs = tmp_path / "disk", MemoryBlobs()
    content = [rng.randbytes(PIECE) for _ in range(3)]
    short = [each[BLOCK:-BLOCK] for each in content]
    (before, shift_before), (after, shift_after) = {
        "other content at the same place": ((content, 0), ([rng.randbytes(PIECE) for _ in content], 0)),
        "other content that took the place": ((content, 0), ([rng.randbytes(len(each)) for each in short], BLOCK)),
        "shorter": ((content, 0), (short, BLOCK)),
        "longer": ((short, BLOCK), ([b"x" * BLOCK + each + b"y" * BLOCK for each in short], 0)),
    }[kind]
    last = rng.randbytes(PIECE)
    write_pieces(path, before, shift=shift_before)
    patched(path, 3 * PERIOD, data=last)
    root = captured(blobs, path).root
    write_pieces(path, after, shift=shift_after)
    patched(path, 3 * PERIOD, data=last)
    attempts = []
    real = frame.encode_delta

    def encode_delta(plain: frame.Buffer, of: frame.Buffer, level: int) -> bytes:
        attempts.append(len(plain))
        return real(plain, of, level)

    monkeypatch.setattr(frame, "encode_delta", encode_delta)
    made = captured(blobs, path, root)
    assert (len(attempts), made.stats.deltas, made.stats.new_chunks) == (tried, deltas, 3)
    require_right(blobs, made.root, path)


@given(
    mine=st.lists(st.integers(0, 2), min_size=1, max_size=20),
    theirs=st.lists(st.integers(0, 2), min_size=1, max_size=20),
    shift=st.integers(-25, 25),
)
@settings(max_examples=300)
def test_resemblance_is_a_quarter_of_the_words_that_both_places_have(
    mine: list[int], theirs: list[int], shift: int
) -> None:
    both = [(word, theirs[n - shift]) for n, word in enumerate(mine) if 0 <= n - shift < len(theirs)]
    expected = bool(both) and 4 * sum(a == b != 0 for a, b in both) >= sum(a != 0 for a, _ in both)
    data, of = (np.array(words, np.uint64).data.cast("B") for words in (mine, theirs))
    assert resembles(data, of, 8 * shift) is expected


def test_packs_for_bases_only_come_last_by_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec, "FRAME_PLAIN", 1)
    monkeypatch.setattr(spec, "PACK_TARGET", 1)
    path, blobs = tmp_path / "disk", MemoryBlobs()
    pieces = [random.Random(n).randbytes(PIECE) for n in range(8)]
    write_pieces(path, pieces)
    root = captured(blobs, path).root
    before = Artifact.load(blobs, root).manifest.packs
    monkeypatch.undo()
    write_pieces(path, [*(b"edit" + piece[4:] for piece in pieces[:6]), *pieces[6:]])
    made = captured(blobs, path, root)
    assert made.stats.deltas == 6
    packs = require_right(blobs, made.root, path).manifest.packs
    assert packs[:2] == before[6:]
    assert packs[2] not in before
    assert packs[3:] == tuple(sorted(before[:6], key=lambda pack: str(pack.digest)))


def test_a_chunk_that_repeats_is_stored_once_whatever_lies_below(tmp_path: Path) -> None:
    """The second one has another base, or none; the first one counts."""
    rng = random.Random(3)
    path, blobs = tmp_path / "disk", MemoryBlobs()
    content = [rng.randbytes(PIECE) for _ in range(3)]
    write_pieces(path, [*content, b""])
    root = captured(blobs, path).root
    changed = b"changed" + content[0][7:]
    write_pieces(path, [changed, changed, content[2], changed])
    made = captured(blobs, path, root)
    assert (made.stats.new_chunks, made.stats.deltas) == (1, 1)
    require_right(blobs, made.root, path)


@pytest.mark.parametrize("window", [1, 4, 6, 16384])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_what_lies_behind_a_hole_is_found_however_far_ahead_the_base_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, window: int
) -> None:
    """Each chunk starts where the base has a hole and reaches into what it has next, in any windows of the base."""
    monkeypatch.setattr("casstore.artifact._WINDOW", window)
    path, blobs = tmp_path / "disk", MemoryBlobs()
    pieces = [random.Random(n).randbytes(PIECE - BLOCK) for n in range(18)]
    write_pieces(path, pieces, shift=BLOCK)
    root = captured(blobs, path).root
    write_pieces(path, [b"x" * BLOCK + piece for piece in pieces])
    made = captured(blobs, path, root, workers=workers)
    assert (made.stats.new_chunks, made.stats.deltas) == (18, 18)
    require_right(blobs, made.root, path)


def test_what_a_repeated_chunk_would_be_a_delta_of_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else more workers, which come to it before the first one is stored, would notice more damage."""
    monkeypatch.setattr(spec, "FRAME_PLAIN", 1)
    monkeypatch.setattr(spec, "PACK_TARGET", 1)
    path, roots = tmp_path / "disk", set()
    pieces = [random.Random(n).randbytes(PIECE) for n in range(9)]
    changed = b"changed" + pieces[0][7:]
    for workers in (1, 2, 8):
        blobs = MemoryBlobs()
        write_pieces(path, pieces)
        root = captured(blobs, path).root
        write_pieces(path, [changed, *pieces[1:6], changed, changed, pieces[8]])
        for pack in Artifact.load(blobs, root).manifest.packs[6:8]:
            magic, rest = blobs.contents[pack.digest][:8], blobs.contents[pack.digest][8:]
            blobs.contents[pack.digest] = magic + bytes([rest[0] ^ 1]) + rest[1:]
        made = captured(blobs, path, root, workers=workers)
        assert (made.damaged, made.stats.new_chunks, made.stats.deltas) == ((), 1, 1)
        roots.add(made.root)
    assert len(roots) == 1


@pytest.mark.parametrize("window", [1, 2, 5, 16384])
def test_a_base_is_asked_for_places_it_has_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    """Everything that is the same at the same place is found in any windows of the base, without a look-up."""
    path, blobs = tmp_path / "disk", MemoryBlobs()
    random_sparse_file(path, seed=4, size=8 * MIB)
    first = captured(blobs, path)
    monkeypatch.setattr("casstore.artifact._WINDOW", window)
    monkeypatch.setattr(blobs, "lookup", lambda ids, **_: pytest.fail("everything is known"))
    again = blobs.create(path, base=first.root, level=LEVEL)[0]
    assert again.root == first.root


@pytest.mark.parametrize("window", [1, 3, 16384])
def test_deltas_do_not_depend_on_how_far_ahead_the_disk_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    """The base is asked what to expect long before it is asked what to make deltas of."""
    path, blobs = tmp_path / "disk", MemoryBlobs()
    pieces = [random.Random(n).randbytes(PIECE) for n in range(40)]
    write_pieces(path, pieces)
    root = captured(blobs, path).root
    write_pieces(path, [b"edit" + piece[4:] for piece in pieces])
    monkeypatch.setattr("casstore.artifact._WINDOW", window)
    made = [blobs.create(path, base=root, workers=workers)[0] for workers in (1, 2, 5)]
    assert {each.stats.deltas for each in made} == {40}
    assert len({each.root for each in made}) == 1


def test_the_result_does_not_depend_on_how_far_ahead_threads_are(tmp_path: Path) -> None:
    """Of the packs that have a chunk, one that the disk has shown before is taken."""
    path, blobs = tmp_path / "disk", MemoryBlobs()
    pieces = [random.Random(n).randbytes(PIECE) for n in range(12)]
    packs: list[Descriptor] = []
    for chosen in ([11], [11, 0], [10]):
        write_pieces(path, [pieces[n] for n in chosen])
        made, manifest = blobs.create(path)
        packs += manifest.packs
    blobs.remember(packs)
    write_pieces(path, [pieces[n] for n in (0, 1, 2, 3, 11, 10)])
    roots = {blobs.create(path, base=made.root, workers=workers)[0].root for workers in (1, 2, 3, 5, 8)}
    assert len(roots) == 1
    artifact = require_right(blobs, roots.pop(), path)
    assert artifact.manifest.packs[0] == packs[1]
    assert packs[0] not in artifact.manifest.packs


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_base_that_is_in_no_known_pack_is_an_error(tmp_path: Path) -> None:
    path, blobs = tmp_path / "disk", MemoryBlobs()
    path.write_bytes(random.Random(5).randbytes(MIB))
    root = blobs.create(path)[0].root
    patched(path, 1000)
    root = blobs.create(path, base=root)[0].root
    with pytest.raises(CorruptContent, match="the base of a delta: expected it in a pack of the store"):
        blobs.create(path, base=root)  # has the delta as it is, and does not know where the base's base is


def full_frame_of(store: Store, name: str, offset: int) -> tuple[Path, int]:
    """The pack's file, and the place in it of a byte of the frame that holds the disk's chunk at `offset`."""
    artifact = store.open_snapshot(name).artifact()
    for placed in artifact.chunks(artifact.map.disks[0]):
        row = int(np.searchsorted(placed.offset, offset, side="right")) - 1
        full = artifact.frames.with_bases(placed.located.take(np.array([row])))
        pack = artifact.manifest.packs[int(full.pack[0])]
        return blob_path(Path(store.path), pack.digest), int(full.at[0]) + int(full.stored[0]) // 2
    raise AssertionError("an empty disk")


def create(store: Store, path: Path, name: str) -> Snapshot:
    return Snapshot.builder(path).name(name).create(store)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk is a frame of its own."""
    monkeypatch.setattr(spec, "FRAME_PLAIN", 1)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("generation", [1, 2])
def test_nothing_is_built_on_a_pack_with_a_rotten_base(store: Store, tmp_path: Path, generation: int) -> None:
    """Also where the chunk below is a delta already, whose base it would be."""
    path = tmp_path / "disk"
    write_pieces(path, [random.Random(n).randbytes(PIECE) for n in range(3)])
    create(store, path, "s0")
    if generation == 2:
        patched(path, PERIOD + 10)
        create(store, path, "s1")
    file, at = full_frame_of(store, f"s{generation - 1}", PERIOD)
    flip_byte(file, at)
    patched(path, PERIOD + 1000, 2 * PERIOD + 1000)
    cost = create(store, path, "new").cost
    assert cost is not None
    assert cost.damaged == (f"sha256:{file.name}",)
    assert (cost.stats.new_chunks, cost.stats.deltas) == (3, 0)
    assert content(store, "new") == path.read_bytes()
    store.verify("new")
    with pytest.raises(CorruptContent):
        store.verify("s0")


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("rotten", [True, False])
def test_what_is_copied_is_checked(store: Store, tmp_path: Path, *, rotten: bool) -> None:
    """Of a pack of which little is used the rest is not listed: a rotten frame must not get into a new pack. Where one
    was found the chunks are stored again.
    """
    path = tmp_path / "disk"
    pieces = [random.Random(n).randbytes(PIECE) for n in range(8)]
    write_pieces(path, pieces)
    create(store, path, "s0")
    file, at = full_frame_of(store, "s0", 5 * PERIOD)
    if rotten:
        flip_byte(file, at)
    write_pieces(path, [b"", b"", b"", b"", b"", pieces[5], b"", b"new"])
    cost = create(store, path, "s1").cost
    assert cost is not None
    assert cost.damaged == ((f"sha256:{file.name}",) if rotten else ())
    assert (cost.stats.copied > PIECE - 100) == (not rotten)
    assert file.name not in {pack.digest.hex for pack in store.open_snapshot("s1").artifact().manifest.packs}
    assert content(store, "s1") == path.read_bytes()
    store.verify("s1")
    store.gc()
    assert leftovers(Path(store.path)) == []


@pytest.mark.usefixtures("alone")
def test_a_pipe_cannot_be_read_again_without_a_damaged_pack(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(random.Random(7).randbytes(MIB))
    create(store, path, "s0")
    offset = next(store.open_snapshot("s0").artifact().chunks(store.open_snapshot("s0").artifact().map.disks[0])).offset
    flip_byte(*full_frame_of(store, "s0", int(offset[5])))
    patched(path, int(offset[5]) + 10)
    with path.open("rb") as file:
        builder = Snapshot.builder(DiskInput(fd=os.dup(file.fileno()))).name("s1").parent("s0")
        with pytest.raises(CorruptContent):
            builder.create(store)
    assert names(store) == ["s0"]


@pytest.mark.parametrize("lie", ["no chunk is a delta", "other bases", "all chunks are deltas", "other numbers"])
def test_a_catalog_that_lies_gives_no_wrong_bytes(store: Store, tmp_path: Path, lie: str) -> None:
    path = tmp_path / "disk"
    path.write_bytes(random.Random(6).randbytes(2 * MIB))
    create(store, path, "s0")
    patched(path, 200_000, 900_000)
    assert create(store, path, "s1").cost.stats.deltas  # type: ignore[union-attr]
    with contextlib.closing(sqlite3.connect(Path(store.path, "catalog.sqlite"))) as db, db:
        db.execute(
            {
                "no chunk is a delta": "DELETE FROM deltas",
                "other bases": "UPDATE deltas SET base = (SELECT id FROM chunks ORDER BY id LIMIT 1)",
                "all chunks are deltas": "INSERT OR IGNORE INTO deltas SELECT pack, chunk, id FROM chunks",
                "other numbers": "UPDATE OR IGNORE chunks SET chunk = chunk + 1",
            }[lie]
        )
    patched(path, 200_100, 1_500_000)
    moved = tmp_path / "moved"
    moved.write_bytes(path.read_bytes()[MIB:] + path.read_bytes()[:MIB])
    for name, disk in (("same", path), ("moved", moved)):
        with contextlib.suppress(CorruptContent):
            create(store, disk, name)
            assert content(store, name) == disk.read_bytes()
            store.verify(name)
    store.reindex()
    for name, disk in (("right", path), ("right2", moved)):
        create(store, disk, name)
        assert content(store, name) == disk.read_bytes()
    require_sound(Path(store.path))


@pytest.mark.parametrize("honest", [True, False])
def test_a_delta_is_decoded_when_its_base_comes(store: Store, tmp_path: Path, *, honest: bool) -> None:
    """It was pulled in a pack, unused and without its base, so nobody could check it."""
    path = tmp_path / "disk"
    one, two, target = (random.Random(n).randbytes(PIECE) for n in range(3))
    claimed = b"changed" + two[7:] if honest else target
    delta = replace(made_by_hand(DELTA, b"changed" + two[7:], base=two), chunks=[(blake3(claimed).digest(), PIECE)])
    foreign = HandMade(
        [pack_bytes([made_by_hand(ZSTD, one), delta])], [Disk(PIECE, [(0, PIECE)], [(0, PIECE, 0, 0, 1)])]
    )
    root = foreign.store()
    with store.transaction() as change:
        for data in foreign.blobs.contents.values():
            change.push(Descriptor.of(data, spec.MEDIA_PACK), BytesSource(data))
        change.tag(root, "foreign")
    write_pieces(path, [one, two])
    cost = create(store, path, "both").cost
    assert cost is not None
    (pack,) = Artifact.load(foreign.blobs, root).manifest.packs
    assert cost.damaged == (() if honest else (str(pack.digest),)), "who lied is not relied on"
    assert content(store, "both") == path.read_bytes()
    write_pieces(path, [claimed])
    cost = create(store, path, "use").cost
    assert cost is not None
    assert cost.stats.new_chunks == (not honest)
    assert content(store, "use") == path.read_bytes()
    require_sound(Path(store.path))
