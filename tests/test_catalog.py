"""The catalog is a pure function of a walk of the refs, and nothing is ever lost or wrong because of it."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from casstore import Snapshot, Store, queries, spec, tables
from casstore.artifact import Artifact
from casstore.catalog import Catalog
from casstore.digest import ChunkId, Digest
from casstore.errors import CasstoreError, CorruptContent, HasChildren, NotFound, StoreLocked
from casstore.names import SnapshotName
from casstore.oci import ArtifactManifest, Descriptor
from casstore.storedir import StoreOptions
from tests.support.artifacts import (
    DELTA,
    ZSTD,
    Disk,
    HandMade,
    MemoryBlobs,
    directory_length,
    frame,
    pack_bytes,
    read_directory,
    stamp,
)
from tests.support.stores import (
    FAST,
    blob_path,
    capture,
    content,
    disk_bytes,
    names,
    python,
    rebuilt,
    require_sound,
    write_disk,
)

SCRATCH = str(Digest.of(b""))
A, B, C = (SnapshotName(name) for name in "abc")


def catalog_file(store: Store) -> Path:
    return Path(store.path, "catalog.sqlite")


# --- a function of the walk -------------------------------------------------------------------------------------------


class Walk:
    """Refs to artifacts in memory, and what loading them cost."""

    def __init__(self) -> None:
        self.blobs = MemoryBlobs()
        self.refs: dict[SnapshotName, Digest] = {}
        self.roots: dict[Digest, Descriptor] = {}
        self.loads: list[Digest] = []

    def load(self, digest: Digest) -> Artifact:
        self.loads.append(digest)
        return Artifact.load(self.blobs, self.roots[digest], check=False)

    def sync(self, catalog: Catalog) -> dict[SnapshotName, CasstoreError]:
        return catalog.sync(lambda: self.refs, self.load)

    def rebuilt(self) -> object:
        with closing(Catalog(None)) as fresh:
            self.sync(fresh)
            return fresh.dump()

    def add(self, name: SnapshotName, manifest: ArtifactManifest) -> None:
        self.blobs.contents[manifest.descriptor.digest] = manifest.raw
        self.roots[manifest.descriptor.digest] = manifest.descriptor
        self.refs[name] = manifest.descriptor.digest

    def create(self, name: SnapshotName, path: Path, *pieces: int) -> ArtifactManifest:
        _, manifest = self.blobs.create(write_disk(path, *pieces))
        self.blobs.remember(manifest.packs)
        self.add(name, manifest)
        return manifest


def test_each_artifact_is_parsed_once_and_forgotten_with_its_last_ref(tmp_path: Path) -> None:
    walk = Walk()
    with closing(Catalog(None)) as catalog:
        one = walk.create(A, tmp_path / "disk", 1, 2)
        walk.sync(catalog)
        two = walk.create(B, tmp_path / "disk", 1, 2, 3)
        walk.refs[C] = walk.refs[A]
        walk.sync(catalog)
        walk.sync(catalog)
        assert walk.loads == [one.descriptor.digest, two.descriptor.digest]
        assert catalog.refs() == walk.refs
        assert [entry.names for entry in catalog.entries([one.descriptor.digest])] == [("a", "c")]
        assert catalog.blobs() == set(walk.blobs.contents)
        for name in (A, C):
            del walk.refs[name]
            walk.sync(catalog)
            assert catalog.dump() == walk.rebuilt()
        assert [entry.digest for entry in catalog.entries()] == [two.descriptor.digest]
        walk.refs.clear()
        walk.sync(catalog)
        assert not any(catalog.dump().values())


def test_what_cannot_be_loaded_is_told_and_tried_again(tmp_path: Path) -> None:
    walk = Walk()
    with closing(Catalog(None)) as catalog:
        walk.create(A, tmp_path / "disk", 1)
        bad = walk.create(B, tmp_path / "disk", 2)
        pack = walk.blobs.contents.pop(bad.packs[0].digest)
        assert list(walk.sync(catalog)) == [B]
        assert catalog.refs() == {A: walk.refs[A]}
        assert catalog.dump() == walk.rebuilt()
        walk.blobs.contents[bad.packs[0].digest] = pack
        assert walk.sync(catalog) == {}
        assert catalog.refs() == walk.refs


def chunk_of(piece: int) -> bytes:
    return disk_bytes(piece)[:40960]


def hand_made(walk: Walk, name: SnapshotName, packs: list[bytes], *runs: tuple[int, int, int]) -> None:
    """An artifact whose runs are (pack, first chunk, chunks), of 40 KiB each chunk, without gaps."""
    placed = [(0, 40960 * count, pack, first, count) for pack, first, count in runs]
    size = sum(length for _, length, *_ in placed)
    root = HandMade(packs, [Disk(size, [(0, size)], placed)], blobs=walk.blobs).store()
    walk.add(name, ArtifactManifest.parse(walk.blobs.contents[root.digest], subject="hand-made"))


@pytest.mark.parametrize("order", [(A, B), (B, A)])
def test_a_delta_is_forgotten_with_the_last_artifact_that_has_its_base(order: tuple[SnapshotName, ...]) -> None:
    """Else a later snapshot would find a chunk whose base is not stored any more."""
    walk = Walk()
    full, changed, base = chunk_of(1), chunk_of(2), chunk_of(3)
    shared = pack_bytes([frame(ZSTD, full), frame(DELTA, changed, base=base)])
    with_base = pack_bytes([frame(ZSTD, base)])
    makers = {
        A: lambda: hand_made(walk, A, [shared, with_base], (0, 0, 2)),
        B: lambda: hand_made(walk, B, [shared], (0, 0, 1)),
    }
    ids = [ChunkId(blake3(chunk).digest()) for chunk in (full, changed, base)]
    with closing(Catalog(None)) as catalog:
        for name in order:
            makers[name]()
            walk.sync(catalog)
            assert catalog.dump() == walk.rebuilt()
        assert set(catalog.lookup(ids)) == set(ids)
        del walk.refs[A]
        walk.sync(catalog)
        assert catalog.dump() == walk.rebuilt()
        assert set(catalog.lookup(ids)) == {ids[0]}
        makers[A]()
        del walk.refs[B]
        walk.sync(catalog)
        assert catalog.dump() == walk.rebuilt()
        assert set(catalog.lookup(ids)) == set(ids)


def test_a_pack_that_another_artifact_lists_as_a_plain_file_stays_a_pack(tmp_path: Path) -> None:
    """Else a hostile artifact could make the catalog forget what the pack is."""
    walk = Walk()
    real = walk.create(C, tmp_path / "disk", 1)
    pack = real.packs[0]
    odd = Descriptor(
        media_type=spec.MEDIA_FILE,
        digest=pack.digest,
        size=pack.size,
        annotations={spec.ANNOTATION_TITLE: "notes.txt"},
    )
    _, other = walk.blobs.create(write_disk(tmp_path / "disk", 7))
    walk.add(A, ArtifactManifest.build(config=other.config, layers=[*other.layers, odd], annotations={}))
    data = walk.blobs.contents[pack.digest]
    pack_directory = data[-directory_length(data) :]
    chunk = read_directory(data).chunk_id(0)
    with closing(Catalog(None)) as catalog:
        both = dict(walk.refs)
        del walk.refs[C]
        walk.sync(catalog)
        assert catalog.lookup([chunk]) == {}
        walk.refs = both
        walk.sync(catalog)
        assert catalog.dump() == walk.rebuilt()
        [place] = catalog.lookup([chunk])[chunk]
        assert place.pack.directory == stamp(pack_directory)
        assert 0 in catalog.chunks_of(pack.digest)
        del walk.refs[C]
        walk.sync(catalog)
        assert catalog.dump() == walk.rebuilt()


# Packs of the artifacts below. A delta's base is named by the number of its chunk, and may be in none of the packs.
_FRAMES: list[tuple[int, ...]] = [(1, 2), (3,), (4, 1), (5,), (2, 6), (7,)]
_DELTAS: dict[int, tuple[int, int]] = {1: (11, 1), 3: (12, 4), 4: (13, 9), 5: (14, 7)}
"""Pack -> (chunk, its base), a delta in it."""


@cache
def pack_of(number: int) -> bytes:
    frames = [frame(ZSTD, *map(chunk_of, _FRAMES[number]))]
    if number in _DELTAS:
        chunk, base = _DELTAS[number]
        frames.append(frame(DELTA, chunk_of(chunk), base=chunk_of(base)))
    return pack_bytes(frames)


class CatalogMachine(RuleBasedStateMachine):
    """A catalog that follows one walk, and gives the answers of one that is made anew."""

    def __init__(self) -> None:
        super().__init__()
        self.walk = Walk()
        self.catalog = Catalog(None)
        self.ids = [ChunkId(blake3(chunk_of(number)).digest()) for number in range(1, 16)]

    def teardown(self) -> None:
        self.catalog.close()

    @rule(name=st.sampled_from(["a", "b", "c", "d"]), packs=st.lists(st.integers(0, 5), min_size=1, unique=True))
    def name_an_artifact(self, name: str, packs: list[int]) -> None:
        hand_made(self.walk, SnapshotName(name), [pack_of(n) for n in packs], *((at, 0, 1) for at in range(len(packs))))

    @rule(name=st.sampled_from(["a", "b", "c", "d"]))
    def remove_a_name(self, name: str) -> None:
        self.walk.refs.pop(SnapshotName(name), None)

    @rule()
    def clean_up(self) -> None:
        self.catalog._db.execute("DELETE FROM chunks WHERE pack NOT IN (SELECT key FROM blobs)")

    @invariant()
    def equal_to_one_made_anew(self) -> None:
        assert self.walk.sync(self.catalog) == {}
        with closing(Catalog(None)) as fresh:
            self.walk.sync(fresh)
            assert self.catalog.dump() == fresh.dump()
            assert self.catalog.lookup(self.ids) == fresh.lookup(self.ids)
            assert self.catalog.entries() == fresh.entries()
            for number in range(6):
                pack = Digest.of(pack_of(number))
                assert self.catalog.chunks_of(pack) == fresh.chunks_of(pack)
            for ids in (self.ids, self.ids[:3], self.ids[3:7], self.ids[8:]):
                assert self.catalog.best_match(ids) == fresh.best_match(ids)
            assert self.catalog.newest_of_image(SCRATCH) == fresh.newest_of_image(SCRATCH)
            assert self.catalog.stored_once() == fresh.stored_once()
        digests = list(set(self.walk.refs.values()))
        with pytest.MonkeyPatch.context() as patch:
            one_by_one = self.catalog.entries(digests)
            patch.setattr(queries, "_FEW", -1)
            assert self.catalog.entries(digests) == one_by_one == self.catalog.entries()
        assert self.catalog.stored_once(digests) == self.catalog.stored_once()
        assert self.expected() == set(self.catalog.lookup(self.ids))

    def expected(self) -> set[ChunkId]:
        """Which chunks were verified, by the rule and without the catalog."""
        found = set()
        for digest in set(self.walk.refs.values()):
            manifest = ArtifactManifest.parse(self.walk.blobs.contents[digest], subject="manifest")
            packs = [n for n in range(6) if Digest.of(pack_of(n)) in {pack.digest for pack in manifest.packs}]
            full = {number for n in packs for number in _FRAMES[n]}
            found |= full | {chunk for n in packs if n in _DELTAS for chunk, base in [_DELTAS[n]] if base in full}
        return {self.ids[number - 1] for number in found}


def test_a_catalog_that_follows_is_equal_to_one_made_anew() -> None:
    run_state_machine_as_test(CatalogMachine, settings=settings(max_examples=25, stateful_step_count=12, deadline=None))


def test_one_more_artifact_costs_what_it_adds() -> None:
    walk = Walk()
    hand_made(walk, A, [pack_of(0), pack_of(1)], (0, 0, 1), (1, 0, 1))
    with closing(Catalog(None)) as follows:
        walk.sync(follows)
        hand_made(walk, B, [pack_of(0), pack_of(1), pack_of(2)], (0, 0, 1), (1, 0, 1), (2, 0, 1))
        walk.blobs.reads.clear()
        walk.sync(follows)
        read = [digest for digest, _, _ in walk.blobs.reads]
        new = ArtifactManifest.parse(walk.blobs.contents[walk.refs[B]], subject="new")
        assert sorted(read) == sorted([walk.refs[B], new.config.digest, new.map.digest, new.packs[2].digest])


def test_the_rows_of_forgotten_chunks_are_dropped_once_they_are_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_SPARE", 0)
    walk = Walk()

    def rows() -> int:
        count: int = follows._db.execute("SELECT COUNT(*) FROM chunks").fetchone()[0]
        return count

    with closing(Catalog(None)) as follows:
        hand_made(walk, A, [pack_of(0), pack_of(1)], (0, 0, 1), (1, 0, 1))  # 2 + 2 chunks
        hand_made(walk, B, [pack_of(0)], (0, 0, 1))
        walk.sync(follows)
        del walk.refs[A]
        walk.sync(follows)
        assert rows() == 4
        assert follows.dump() == walk.rebuilt()
        hand_made(walk, A, [pack_of(1)], (0, 0, 1))
        walk.sync(follows)
        assert rows() == 6
        assert follows.dump() == walk.rebuilt(), "a pack that comes back does not inherit the old rows"
        del walk.refs[A]
        walk.sync(follows)
        assert rows() == 2
        assert follows.dump() == walk.rebuilt()


def test_a_base_is_found_among_many_that_share_packs(tmp_path: Path) -> None:
    walk = Walk()
    with closing(Catalog(None)) as follows:
        for name, pieces in {"a": (1, 2, 3), "b": (1, 2, 4), "c": (1, 5)}.items():
            walk.create(SnapshotName(name), tmp_path / "disk", *pieces)
        walk.sync(follows)

        def ids(name: SnapshotName) -> list[ChunkId]:
            artifact = Artifact.load(walk.blobs, walk.roots[walk.refs[name]])
            chunks = [artifact.chunks(disk) for disk in artifact.map.disks]
            return [ChunkId(each.tobytes()) for placed in chunks for window in placed for each in window.located.ids]

        for name in (B, C):  # the packs of A are listed by both
            assert follows.best_match(ids(name)) == walk.refs[name]
        unknown = [ChunkId(blake3(n.to_bytes(4, "big")).digest()) for n in range(400)]
        assert follows.best_match(unknown) is None
        assert follows.best_match([*unknown, *ids(A)[:1]]) is None, "hardly any is known"
        assert follows.best_match([]) is None


def test_the_newest_of_an_image_and_the_lineage(store: Store, tmp_path: Path) -> None:
    image = f"sha256:{'a' * 64}"
    made = []
    for n in range(1, 5):
        disk = write_disk(tmp_path / "disk", n)
        builder = Snapshot.builder(disk).name(f"n{n}").image("registry.example/base", image)
        made.append(builder.parent(f"n{n - 1}").create(store) if n > 1 else builder.create(store))
    capture(store, tmp_path, "plain", 9)
    assert store._catalog.newest_of_image(image) == made[-1].digest
    assert store._catalog.newest_of_image(f"sha256:{'b' * 64}") is None
    line = [each if isinstance(each, str) else each.names[0] for each in store.lineage("n4")]
    assert line == ["n3", "n2", "n1"]
    store.remove("n2", force=True)
    assert store.lineage("n4")[1:] == [str(made[1].id)]
    with pytest.raises(HasChildren, match="n4"):
        store.remove("n3")
    store.remove("n4")
    assert store._catalog.newest_of_image(image) == made[2].digest


@pytest.mark.parametrize("created_at", ["", "soon", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2025-01-01"])
def test_any_time_of_creation_can_be_kept(created_at: str) -> None:
    walk = Walk()
    with closing(Catalog(None)) as follows:
        for name in (A, B):
            pack = pack_of(0 if name == A else 1)
            hand_made(walk, name, [pack], (0, 0, 1))
            made = ArtifactManifest.parse(walk.blobs.contents[walk.refs[name]], subject="made")
            config = json.loads(walk.blobs.contents[made.config.digest]) | {"created_at": created_at}
            raw = json.dumps(config, separators=(",", ":")).encode()
            new = walk.blobs.add(raw, spec.MEDIA_CONFIG)
            walk.add(name, ArtifactManifest.build(config=new, layers=made.layers, annotations={}))
        assert walk.sync(follows) == {}
        assert len(follows.entries()) == 2


def test_entries_count_sizes_and_children(store: Store, tmp_path: Path) -> None:
    one = capture(store, tmp_path, "one", 1, 2, 0, 4)
    assert one.cost is not None
    two = capture(store, tmp_path, "two", 1, 2, 0, 5, parent="one")
    entry = store.entry("one")
    assert (entry.id, entry.children, entry.allocated) == (one.id, 1, 3 * 65536)
    assert entry.stored == one.stored_bytes == one.cost.added
    assert entry.unique == entry.stored - one.artifact_manifest.packs[0].size
    assert store.entry("two").children == 0
    assert store.entry("two").unique == two.stored_bytes - one.artifact_manifest.packs[0].size
    store.remove("two")
    assert store.entry("one").unique == entry.stored


def test_many_chunks_are_looked_up_at_once(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1, 2, 3)
    directory = made.artifact().directories[0]
    ids = [directory.chunk_id(n) for n in range(len(directory))]
    unknown = [ChunkId(n.to_bytes(32, "big")) for n in range(1200)]
    assert set(store._catalog.lookup([*unknown, *ids])) == set(ids)
    assert store._catalog.lookup([]) == {}


# --- derived: it may be deleted, damaged, unwritable ------------------------------------------------------------------


def require_working(store: Store, tmp_path: Path) -> None:
    """The store can be looked at and changed, and its catalog is right."""
    before = {name: content(store, name) for name in names(store)}
    capture(store, tmp_path, "fresh", 8, 9, force=True)
    assert names(store) == sorted({*before, "fresh"})
    assert store._catalog.dump() == rebuilt(store)
    store.remove("fresh")
    store.gc()
    assert {name: content(store, name) for name in names(store)} == before
    require_sound(Path(store.path), contents=before)


def test_a_catalog_deleted_while_it_is_open_is_made_anew(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    catalog_file(store).unlink()
    assert names(store) == ["one"]
    require_working(store, tmp_path)
    assert catalog_file(store).exists()


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "first page", "format", "schema", "later pages", "zeros"])
@pytest.mark.parametrize("while_open", [False, True])
def test_a_damaged_catalog_is_made_anew(tmp_path: Path, damage: str, while_open: bool) -> None:
    root = tmp_path / "store"
    store = Store.init(root, options=FAST)
    for n in range(1, 6):
        capture(store, tmp_path, f"n{n}", n, n + 1)
    if not while_open:
        store.close()
    path = root / "catalog.sqlite"
    data = bytearray(path.read_bytes())
    match damage:
        case "empty":
            data = bytearray()
        case "text":
            data[:] = b"this is no database\n" * 300
        case "cut":
            del data[len(data) // 2 :]
        case "first page":
            data[100:4096] = b"\xff" * 3996
        case "format":
            data[44:48] = b"\xa5" * 4  # of a later SQLite
        case "schema":
            data[2900:4096] = b"\xa5" * 1196  # SQLite quotes it in its error, which is no UTF-8 then
        case "later pages":
            data[4096:] = b"\xff" * (len(data) - 4096)
        case "zeros":
            data[:] = bytes(len(data))
    with path.open("r+b") as file:  # the same file, as a disk would damage it
        file.truncate(0)
        file.write(data)
    if not while_open:
        store = Store.open(root, options=FAST)
    with store:
        assert names(store) == [f"n{n}" for n in range(1, 6)]
        require_working(store, tmp_path)
        assert store.reindex() == 5
    with Store.open(root, options=FAST) as again:
        assert not again._catalog.in_memory


@pytest.mark.parametrize(
    "change", ["config = x'00'", "config = CAST('{}' AS BLOB)", "config = config || x'20'", "id = 'x'", "id = ''"]
)
def test_a_damaged_row_is_noticed(store: Store, tmp_path: Path, change: str) -> None:
    capture(store, tmp_path, "one", 1)
    with closing(sqlite3.connect(catalog_file(store), isolation_level=None)) as db:
        db.execute(f"UPDATE artifacts SET {change}")  # noqa: S608
    assert names(store) == ["one"]
    assert store._catalog.dump() == rebuilt(store)


@pytest.mark.parametrize(
    "lie",
    [
        "UPDATE chunks SET chunk = chunk + 1",
        "UPDATE chunks SET chunk = 1000000",
        "UPDATE chunks SET id = (SELECT max(id) FROM chunks) WHERE chunk = 0",
        "UPDATE chunks SET pack = (SELECT max(pack) FROM chunks)",
        "UPDATE blobs SET directory = zeroblob(36)",
        "UPDATE blobs SET directory = zeroblob(0)",
        "UPDATE blobs SET directory = substr(directory, 1, 32)",
        "UPDATE blobs SET directory = CAST(substr(directory, 1, 32) || x'ffffffff' AS BLOB)",
        "UPDATE blobs SET size = size + 1",
    ],
)
def test_a_catalog_that_lies_spoils_no_snapshot(store: Store, tmp_path: Path, lie: str) -> None:
    """SQLite has no checksums, and the catalog is never synced: what it says of a chunk is checked before use."""
    capture(store, tmp_path, "one", 1, 2, 3)
    capture(store, tmp_path, "two", 4, 5)
    with closing(sqlite3.connect(catalog_file(store), isolation_level=None)) as db:
        db.execute(lie.replace("UPDATE", "UPDATE OR REPLACE"))
    capture(store, tmp_path, "three", 3, 1, 5, 2, 4)
    assert content(store, "three") == disk_bytes(3, 1, 5, 2, 4)
    store.verify("three")
    store.reindex()
    assert store._catalog.dump() == rebuilt(store)


@pytest.mark.parametrize(
    "lie",
    [
        "UPDATE refs SET artifact = (SELECT key FROM artifacts WHERE key <> artifact)",
        "UPDATE refs SET name = name || 'x'",
        "DELETE FROM refs",
        "UPDATE artifacts SET digest = replace(digest, substr(digest, 1, 1), 'f')",
    ],
)
def test_a_catalog_that_lies_about_names_is_not_believed(tmp_path: Path, lie: str) -> None:
    root = tmp_path / "store"
    with Store.init(root, options=FAST) as store:
        digests = {name: str(capture(store, tmp_path, name, n).digest) for n, name in enumerate(("one", "two"), 1)}
    time.sleep(0.05)
    Store.open(root, options=FAST).close()  # from now on there is nothing new
    with closing(sqlite3.connect(root / "catalog.sqlite", isolation_level=None)) as db:
        db.execute(lie)
    with Store.open(root, options=FAST) as store:
        with contextlib.suppress(NotFound):
            assert content(store, "one") == disk_bytes(1)
        assert {handle.name: str(handle.digest) for handle in store.list()} == digests
        assert content(store, "one") == disk_bytes(1)
        assert store._catalog.dump() == rebuilt(store)


def test_a_catalog_of_another_version_is_made_anew(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    store.close()
    with closing(sqlite3.connect(catalog_file(store), isolation_level=None)) as db:
        db.execute("CREATE TABLE future (a, b)")
        db.execute("PRAGMA user_version = 99")
    with Store.open(store.path, options=FAST) as again:
        assert names(again) == ["one"]
    with closing(sqlite3.connect(catalog_file(store))) as db:
        assert not db.execute("SELECT name FROM sqlite_master WHERE name = 'future'").fetchall()


def test_a_catalog_that_is_a_symlink_is_not_followed(tmp_path: Path) -> None:
    """Whoever made the store could else have casstore empty any database of the user's."""
    victim = tmp_path / "victim.sqlite"
    with closing(sqlite3.connect(victim, isolation_level=None)) as db:
        db.execute("CREATE TABLE diary (line)")
    with Store.init(tmp_path / "store", options=FAST) as store:
        capture(store, tmp_path, "one", 1)
    catalog_file(store).unlink()
    catalog_file(store).symlink_to(victim)
    before = victim.read_bytes()
    with Store.open(store.path, options=FAST) as again:
        capture(again, tmp_path, "two", 2)
        assert names(again) == ["one", "two"]
    assert victim.read_bytes() == before
    assert not catalog_file(store).is_symlink()


def test_a_catalog_that_cannot_be_kept_is_kept_in_memory(tmp_path: Path) -> None:
    with Store.init(tmp_path / "store", options=FAST) as store:
        capture(store, tmp_path, "one", 1)
    catalog_file(store).unlink()
    catalog_file(store).mkdir()
    with Store.open(store.path, options=FAST) as again:
        capture(again, tmp_path, "two", 2)
        assert names(again) == ["one", "two"]
        require_working(again, tmp_path)
    assert catalog_file(store).is_dir()


def test_reindex_throws_the_catalog_away(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    store.tag("one", "two")
    capture(store, tmp_path, "three", 3)
    with closing(sqlite3.connect(catalog_file(store), isolation_level=None)) as db:
        db.execute("DELETE FROM chunks")
        db.execute("UPDATE artifacts SET created_at = 'never'")
    assert store._catalog.dump() != rebuilt(store)
    assert store.reindex() == 2
    assert store._catalog.dump() == rebuilt(store)


def test_another_process_that_keeps_the_catalog_is_waited_for_and_then_named(tmp_path: Path) -> None:
    with Store.init(tmp_path / "store", options=FAST) as store:
        capture(store, tmp_path, "one", 1)
    with closing(sqlite3.connect(catalog_file(store), isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreLocked, match=r"catalog.*try again") as caught:
            Store.open(store.path, options=StoreOptions(wait=0.1))
        assert caught.value.exit_code == 11
        db.execute("ROLLBACK")
    with Store.open(store.path, options=StoreOptions(wait=0.1)) as again:
        assert names(again) == ["one"]


def test_two_processes_that_make_the_catalog_at_once_agree(tmp_path: Path) -> None:
    with Store.init(tmp_path / "store", options=FAST) as store:
        for n in range(1, 9):
            capture(store, tmp_path, f"n{n}", n)
    code = """
import sys
from casstore import Store
for _ in range(20):
    with Store.open(sys.argv[1]) as store:
        assert len(store.list()) == 8, store.list()
"""
    for _ in range(3):
        catalog_file(store).unlink()
        python(f"import os, sys\nif os.fork() == 0:\n    pass\n{code}", store.path)
    with Store.open(store.path, options=FAST) as again:
        assert again._catalog.dump() == rebuilt(again)


def test_a_manifest_that_is_damaged_breaks_its_names_only(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    capture(store, tmp_path, "two", 2)
    path = blob_path(Path(store.path), made.digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"schemaVersion", b"SchemaVersion"))
    os.unlink(catalog_file(store))
    with Store.open(store.path, options=FAST) as again:
        assert names(again) == ["two"]
        [problem] = again.problems()
        assert problem.name == "one"
        with pytest.raises(CorruptContent, match="one"):
            again.open_snapshot("one")
        assert again._catalog.dump() == rebuilt(again)
        again.remove("one")
        assert again.problems() == []
