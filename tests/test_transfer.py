"""Push and pull between stores, layouts and memory: one digest everywhere, and nothing wrong ever gets a name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from casstore import Snapshot, Store, spec
from casstore.content import Fetcher, Reader
from casstore.digest import Digest
from casstore.errors import (
    AlreadyExists,
    CorruptContent,
    DigestMismatch,
    InvalidReference,
    NotFound,
    StorageError,
    UnsupportedVersion,
    UsageError,
)
from casstore.layout import LayoutTarget
from casstore.memory import MemoryTarget
from casstore.names import parse_name
from casstore.oci import ArtifactManifest, Descriptor
from casstore.progress import ProgressEvent
from casstore.reference import RegistryReference
from casstore.streams import BytesSource, fetch_all
from casstore.transfer import TransferOptions
from tests.support.artifacts import DELTA, RAW, ZSTD, Disk, Frame, HandMade, frame, pack_bytes
from tests.support.stores import (
    FAST,
    all_files,
    blob_path,
    blobs,
    capture,
    content,
    disk_bytes,
    flip_byte,
    index_refs,
    names,
    reachable,
    require_sound,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.init(tmp_path / "store", options=FAST) as store:
        yield store


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    with Store.init(tmp_path / "other", options=FAST) as store:
        yield store


class Memory(MemoryTarget):
    """Stands for a registry; counts what is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.pushed: list[Digest] = []
        self.fetched: list[Digest] = []

    def push(self, descriptor: Descriptor, source: Fetcher) -> None:
        super().push(descriptor, source)
        self.pushed.append(descriptor.digest)

    def fetch(self, descriptor: Descriptor) -> Reader:
        self.fetched.append(descriptor.digest)
        return super().fetch(descriptor)

    def put(self, data: bytes, media_type: str) -> Descriptor:
        descriptor = Descriptor.of(data, media_type)
        super().push(descriptor, BytesSource(data))
        return descriptor


def through(memory: MemoryTarget) -> TransferOptions:
    @contextmanager
    def registries(_: RegistryReference) -> Iterator[MemoryTarget]:
        yield memory

    return TransferOptions(registries=registries)


REGISTRY = "registry.example/team/disks"


# --- there and back ---------------------------------------------------------------------------------------------------


def test_the_digest_is_the_same_everywhere(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1, 0, 2)
    memory = Memory()
    Store.init(tmp_path / "as-store", options=FAST).close()
    stops = [f"oci:{tmp_path}/layout:a", f"{REGISTRY}:b", f"oci:{tmp_path}/as-store:c"]
    here, name = store, "one"
    for n, stop in enumerate(stops):
        sent = here.push(name, stop, options=through(memory))
        assert sent.digest == made.digest
        assert sent.name == stop[-1]
        assert sent.reference == f"{stop.rpartition(':')[0]}@{made.digest}"
        assert (sent.copy.copied, sent.copy.skipped) == (len(made.needs), 0)
        assert sent.copy.copied_bytes == made.stored_bytes
        new = Store.init(tmp_path / f"store{n}", options=FAST)
        got = new.pull(stop, options=through(memory))
        assert (got.digest, got.name) == (made.digest, stop[-1])
        assert new.get(stop[-1]).id == made.id
        assert content(new, stop[-1]) == disk_bytes(1, 0, 2)
        if here is not store:
            here.close()
        here, name = new, stop[-1]
    here.close()
    for place in ("layout", "as-store", "store0", "store1", "store2"):
        assert blobs(tmp_path / place) == {digest.hex for digest in made.needs}
    require_sound(tmp_path / "as-store", contents={"c": disk_bytes(1, 0, 2)})


@pytest.mark.parametrize("kind", ["layout", "store", "memory"])
def test_the_second_push_and_pull_move_nothing(store: Store, tmp_path: Path, kind: str) -> None:
    made = capture(store, tmp_path, "one", 1, 2)
    memory = Memory()
    if kind == "store":
        Store.init(tmp_path / "place", options=FAST).close()
    place = f"{REGISTRY}:one" if kind == "memory" else f"oci:{tmp_path}/place:one"
    store.push("one", place, options=through(memory))
    again = store.push("one", place, options=through(memory))
    assert (again.copy.copied, again.copy.copied_bytes, again.copy.skipped) == (0, 0, len(made.needs))
    assert len(memory.pushed) in {0, len(made.needs)}
    with Store.init(tmp_path / "third", options=FAST) as third:
        assert third.pull(place, options=through(memory)).copy.copied == len(made.needs)
        memory.fetched.clear()
        assert third.pull(place, options=through(memory)).copy.copied == 0
        assert memory.fetched in ([], [made.digest])
        # A snapshot that shares chunks brings only what is new.
    more = capture(store, tmp_path, "two", 1, 2, 3)
    delta = store.push("two", place.replace(":one", ":two"), options=through(memory))
    assert delta.copy.copied_bytes == more.stored_bytes - made.artifact_manifest.packs[0].size


def test_a_store_can_be_pushed_to_and_pulled_from_itself(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    assert store.push("one", f"oci:{store.path}:two").copy.copied == 0
    assert store.pull(f"oci:{store.path}:two", name="three").digest == made.digest
    assert names(store) == ["one", "three", "two"]
    require_sound(Path(store.path))


def test_a_store_is_read_by_its_refs_not_by_its_index(store: Store, other: Store, tmp_path: Path) -> None:
    """A directory that is a store is opened as one, though refs/ and blobs/ are all that was copied."""
    made = capture(store, tmp_path, "one", 1)
    for file in ("index.json", "oci-layout", "casstore.json", "catalog.sqlite"):
        Path(store.path, file).unlink()
    assert other.pull(f"oci:{store.path}:one").digest == made.digest
    with pytest.raises(NotFound):
        other.pull(f"oci:{store.path}:nobody")


def test_a_push_into_a_layout_keeps_what_is_there(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    layout = LayoutTarget(str(tmp_path / "layout"), create=True)
    data = b'{"x":1}'
    descriptor = Descriptor.of(data, "application/x")
    layout.push(descriptor, BytesSource(data))
    layout.tag(descriptor, "theirs")
    store.push("one", f"oci:{tmp_path}/layout")
    assert sorted(layout.tags()) == ["one", "theirs"]
    assert fetch_all(layout, descriptor, limit=100) == data


def test_progress_ends_at_all_bytes(store: Store, other: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1, 2)
    store.push("one", f"oci:{tmp_path}/layout")
    wanted = made.stored_bytes - made.root.size
    for n in range(3):
        seen: list[ProgressEvent] = []
        if n < 2:
            store.push("one", f"oci:{tmp_path}/layout2", progress=seen.append)
        else:
            other.pull(f"oci:{tmp_path}/layout:one", progress=seen.append)
        assert max(step.done for step in seen) == wanted
        assert {step.total for step in seen} == {wanted}


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_push_without_a_tag_takes_the_local_name(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    place = f"oci:{tmp_path}/layout"
    assert store.push("one", place).name == "one"
    assert store.push(str(made.digest), f"{place}@{made.digest}").name == "one"
    store.tag("one", "two")
    assert store.push("two", place).name == "two"
    with pytest.raises(UsageError, match="2 names"):
        store.push(str(made.digest), place)
    assert store.push(str(made.digest), f"{place}:three").name == "three"
    assert sorted(LayoutTarget(str(tmp_path / "layout")).tags()) == ["one", "three", "two"]


def test_a_push_that_cannot_be_makes_nothing(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    store.tag("one", "two")
    wrong = f"sha256:{'0' * 64}"
    with pytest.raises(DigestMismatch, match=wrong):
        store.push("one", f"oci:{tmp_path}/layout:x@{wrong}")
    with pytest.raises(UsageError):
        store.push(str(store.get("one").digest), f"oci:{tmp_path}/layout")
    with pytest.raises(InvalidReference):
        store.push("one", "oci:")
    with pytest.raises(NotFound):
        store.push("nobody", f"oci:{tmp_path}/layout:x")
    assert not (tmp_path / "layout").exists()
    (tmp_path / "file").touch()
    with pytest.raises((CorruptContent, StorageError)):
        store.push("one", f"oci:{tmp_path}/file:x")


def test_a_pull_by_digest_needs_a_name(store: Store, other: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    place = f"oci:{tmp_path}/layout"
    store.push("one", place)
    with pytest.raises(UsageError, match="--name"):
        other.pull(f"{place}@{made.digest}")
    assert other.pull(f"{place}@{made.digest}", name="pinned").name == "pinned"
    assert other.pull(f"{place}:one@{made.digest}").name == "one"
    assert other.pull(f"{place}:one", name="given").name == "given"
    for name in (None, "x"):
        with pytest.raises(UsageError, match="tag or digest"):
            other.pull(place, name=name)
    assert names(other) == ["given", "one", "pinned"]


def test_a_tag_that_cannot_be_a_name_needs_another(store: Store, other: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    place = f"oci:{tmp_path}/layout:_odd-"
    store.push("one", place)
    with pytest.raises(UsageError, match="--name"):
        other.pull(place)
    other.pull(place, name="fine")
    assert names(other) == ["fine"]


def test_a_pull_of_another_digest_than_pinned_is_refused(store: Store, other: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    place = f"oci:{tmp_path}/layout"
    store.push("one", place)
    wrong = f"sha256:{'0' * 64}"
    with pytest.raises(NotFound, match=wrong):
        other.pull(f"{place}:one@{wrong}")

    class Lying(Memory):
        def resolve(self, reference: str) -> Descriptor:
            return super().resolve("one")

    memory = Lying()
    store.push("one", f"{REGISTRY}:one", options=through(memory))
    memory.fetched.clear()
    with pytest.raises(DigestMismatch, match=wrong):
        other.pull(f"{REGISTRY}:one@{wrong}", options=through(memory))
    assert memory.fetched == []
    assert names(other) == []
    assert blobs(Path(other.path)) == set()


def test_a_name_that_stands_for_another_snapshot_is_refused_before_the_work(
    store: Store, other: Store, tmp_path: Path
) -> None:
    made = capture(store, tmp_path, "one", 1)
    memory = Memory()
    store.push("one", f"{REGISTRY}:one", options=through(memory))
    capture(other, tmp_path, "one", 2)
    (Path(other.path) / "refs/broken").symlink_to("/etc/passwd")
    before = all_files(Path(other.path))
    memory.fetched.clear()
    for reference, name in (
        (f"{REGISTRY}:one", None),
        (f"{REGISTRY}@{made.digest}", "one"),
        (f"{REGISTRY}:one", "broken"),
    ):
        with pytest.raises(AlreadyExists):
            other.pull(reference, name=name, options=through(memory))
    assert memory.fetched == []
    assert all_files(Path(other.path)) == before
    other.pull(f"{REGISTRY}:one", force=True, options=through(memory))
    assert content(other, "one") == disk_bytes(1)
    other.pull(f"{REGISTRY}:one", options=through(memory))  # the same again is no conflict


# --- what is incomplete or damaged ------------------------------------------------------------------------------------


class SourceBroke(Exception):
    """The network's error, as it were."""


class Breaking(Memory):
    """Fails in the middle of its n-th blob."""

    def __init__(self, healthy: int) -> None:
        super().__init__()
        self.healthy = healthy

    def fetch(self, descriptor: Descriptor) -> Reader:
        reader = super().fetch(descriptor)
        return reader if len(self.fetched) <= self.healthy else _Breaking(reader)


class _Breaking:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def read(self, size: int) -> bytes:
        if self._reader.read(min(size, 100)):
            raise SourceBroke
        return b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.__exit__(None, None, None)


@pytest.mark.parametrize("healthy", [0, 1, 2, 3])
def test_a_source_that_fails_midway_leaves_no_name(store: Store, other: Store, tmp_path: Path, healthy: int) -> None:
    """Row 100."""
    capture(store, tmp_path, "one", 1, 2)
    memory = Breaking(10**6)
    store.push("one", f"{REGISTRY}:one", options=through(memory))
    memory.fetched.clear()
    memory.healthy = healthy
    with pytest.raises(SourceBroke):
        other.pull(f"{REGISTRY}:one", options=through(memory))
    assert names(other) == []
    assert blobs(Path(other.path)) == set()
    assert os.listdir(Path(other.path, "tmp")) == []
    memory.healthy = 10**6
    other.pull(f"{REGISTRY}:one", options=through(memory))
    assert content(other, "one") == disk_bytes(1, 2)


def test_a_target_that_fails_midway_gets_no_tag(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1, 2)

    class Full(Memory):
        def push(self, descriptor: Descriptor, source: Fetcher) -> None:
            if descriptor.media_type == spec.MEDIA_PACK:
                raise StorageError("full")
            super().push(descriptor, source)

    memory = Full()
    with pytest.raises(StorageError, match="full"):
        store.push("one", f"{REGISTRY}:one", options=through(memory))
    assert made.digest not in memory.pushed
    with pytest.raises(NotFound):
        memory.resolve("one")


@pytest.mark.parametrize("part", ["config", "map", "pack"])
def test_a_manifest_that_is_there_does_not_vouch_for_its_blobs(
    store: Store, other: Store, tmp_path: Path, part: str
) -> None:
    """Invariant 2; for a push (to a layout) and a pull (into a store) alike."""
    made = capture(store, tmp_path, "one", 1, 2)
    document = made.artifact_manifest
    lost = {"config": document.config, "map": document.map, "pack": document.packs[0]}[part]
    place = f"oci:{tmp_path}/layout:one"
    store.push("one", place)
    blob_path(tmp_path / "layout", lost.digest).unlink()
    assert store.push("one", place).copy.copied == 1
    other.pull(place)
    blob_path(Path(other.path), lost.digest).unlink()
    assert other.pull(place).copy.copied == 1
    require_sound(Path(other.path), contents={"one": disk_bytes(1, 2)})
    blob_path(Path(other.path), lost.digest).chmod(0o644)
    blob_path(Path(other.path), lost.digest).write_bytes(b"")  # row 16: as a power cut may leave it
    assert other.pull(place).copy.copied == 1
    require_sound(Path(other.path), contents={"one": disk_bytes(1, 2)})


@pytest.mark.parametrize("part", ["manifest", "config", "map"])
def test_a_pull_mends_a_damaged_document(store: Store, other: Store, tmp_path: Path, part: str) -> None:
    """Row 16, and what the error about a damaged snapshot tells to do."""
    made = capture(store, tmp_path, "one", 1, 2)
    document = made.artifact_manifest
    digest = {"manifest": made.digest, "config": document.config.digest, "map": document.map.digest}[part]
    place = f"oci:{tmp_path}/layout:one"
    store.push("one", place)
    other.pull(place)
    flip_byte(blob_path(Path(other.path), digest))
    os.unlink(Path(other.path, "catalog.sqlite"))
    with Store.open(other.path, options=FAST) as again:
        assert [problem.name for problem in again.problems()] == ["one"]
        again.pull(place, force=True)
        assert again.problems() == []
    require_sound(Path(other.path), contents={"one": disk_bytes(1, 2)})


@pytest.mark.parametrize("part", ["manifest", "config", "map", "pack"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_source_gives_no_name(store: Store, other: Store, tmp_path: Path, part: str, damage: str) -> None:
    made = capture(store, tmp_path, "one", 1, 2)
    document = made.artifact_manifest
    digest = {"manifest": made.digest, "config": document.config.digest, "map": document.map.digest}
    place = f"oci:{tmp_path}/layout:one"
    store.push("one", place)
    path = blob_path(tmp_path / "layout", digest.get(part, document.packs[0].digest))
    match damage:
        case "flip":
            flip_byte(path, len(path.read_bytes()) // 2)
        case "cut":
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:-1])
        case "remove":
            path.unlink()
    with pytest.raises((CorruptContent, NotFound)):
        other.pull(place)
    assert names(other) == []
    assert blobs(Path(other.path)) == set()


# --- hostile artifacts ------------------------------------------------------------------------------------------------

PIECE = 40960
ONE_RUN = [(0, PIECE, 0, 0, 1)]
GOOD, OTHER, BASE = (disk_bytes(n)[:PIECE] for n in (1, 2, 3))


def lie(made: Frame, claimed: bytes) -> Frame:
    """The same stored bytes, said to be the chunk `claimed`."""
    right = frame(RAW, claimed)
    return Frame(made.kind, made.stored, right.chunks, made.base)


HOSTILE: dict[str, HandMade] = {
    "a used chunk is another": HandMade(
        [pack_bytes([lie(frame(RAW, OTHER), GOOD)])], [Disk(PIECE, [(0, PIECE)], ONE_RUN)]
    ),
    "an unused chunk is another": HandMade(
        [pack_bytes([frame(RAW, GOOD), lie(frame(RAW, OTHER), BASE)])], [Disk(PIECE, [(0, PIECE)], ONE_RUN)]
    ),
    "an unused chunk does not decode": HandMade(
        [pack_bytes([frame(ZSTD, GOOD), Frame(ZSTD, b"x" * 50, frame(ZSTD, OTHER).chunks)])],
        [Disk(PIECE, [(0, PIECE)], ONE_RUN)],
    ),
    "an unused delta is of another base": HandMade(
        [pack_bytes([frame(ZSTD, GOOD), frame(ZSTD, OTHER), lie(frame(DELTA, BASE, base=OTHER), GOOD[::-1])])],
        [Disk(PIECE, [(0, PIECE)], ONE_RUN)],
    ),
    "the base of a used delta is missing": HandMade(
        [pack_bytes([frame(DELTA, OTHER, base=BASE)])], [Disk(PIECE, [(0, PIECE)], ONE_RUN)]
    ),
    "bytes outside of the extents": HandMade(
        [pack_bytes([frame(RAW, GOOD)])], [Disk(PIECE, [(0, PIECE // 2)], ONE_RUN)]
    ),
    "a run past the end": HandMade(
        [pack_bytes([frame(RAW, GOOD)])], [Disk(2 * PIECE, [(0, 2 * PIECE)], [(0, 2 * PIECE, 0, 0, 2)])]
    ),
    "another size": HandMade(
        [pack_bytes([frame(RAW, GOOD)])], [Disk(PIECE, [(0, PIECE)], ONE_RUN)], config_size=PIECE + 1
    ),
    "a disk that would overwrite its manifest": HandMade(
        [pack_bytes([frame(RAW, GOOD)])], [Disk(PIECE, [(0, PIECE)], ONE_RUN, name=b"manifest.json")]
    ),
}  # fmt: skip


def into_memory(made: HandMade) -> tuple[Memory, Descriptor]:
    memory = Memory()
    root = made.store()
    for data in made.blobs.contents.values():
        memory.put(data, spec.MEDIA_MANIFEST if hashlib.sha256(data).hexdigest() == root.digest.hex else "x")
    memory.tag(memory.resolve(str(root.digest)), "bad")
    return memory, root


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_artifact_is_refused_and_the_store_unchanged(store: Store, tmp_path: Path, case: str) -> None:
    """Else it would poison later dedup."""
    capture(store, tmp_path, "good", 5)
    memory, _ = into_memory(HOSTILE[case])
    before, catalog = all_files(Path(store.path)), store._catalog.dump()
    with pytest.raises(CorruptContent):
        store.pull(f"{REGISTRY}:bad", options=through(memory))
    assert all_files(Path(store.path)) == before
    assert store._catalog.dump() == catalog
    assert store.gc().removed == ()
    made = capture(store, tmp_path, "later", 1, 2, 3)
    assert content(store, "later") == disk_bytes(1, 2, 3)
    assert made.cost is not None
    assert made.cost.stats.new_plain == 3 * 65536


def test_a_right_artifact_made_by_hand_is_taken(store: Store) -> None:
    """So that the cases above fail for their own reason."""
    made = HandMade(
        [pack_bytes([frame(ZSTD, BASE), frame(DELTA, OTHER, base=BASE), frame(RAW, GOOD)])],
        [Disk(4 * PIECE, [(0, 2 * PIECE), (PIECE, PIECE)], [(0, 2 * PIECE, 0, 1, 2), (PIECE, PIECE, 0, 0, 1)])],
    )
    memory, root = into_memory(made)
    assert store.pull(f"{REGISTRY}:bad", options=through(memory)).digest == root.digest
    assert content(store, "bad") == OTHER + GOOD + bytes(PIECE) + BASE
    require_sound(Path(store.path))


def test_an_image_is_no_snapshot(store: Store) -> None:
    memory = Memory()
    config = memory.put(b"{}", "application/vnd.oci.image.config.v1+json")
    image = f'{{"schemaVersion":2,"mediaType":"{spec.MEDIA_MANIFEST}","config":{{"mediaType":"{config.media_type}",'
    image += f'"digest":"{config.digest}","size":2}},"layers":[]}}'
    index = f'{{"schemaVersion":2,"mediaType":"{spec.MEDIA_INDEX}","manifests":[]}}'
    for n, data in enumerate((image, index)):
        memory.tag(memory.put(data.encode(), spec.MEDIA_MANIFEST), f"t{n}")
        with pytest.raises(UnsupportedVersion):
            store.pull(f"{REGISTRY}:t{n}", options=through(memory))
    assert blobs(Path(store.path)) == set()


# --- a transaction as a target ----------------------------------------------------------------------------------------


def prepared(store: Store, tmp_path: Path) -> tuple[Snapshot, dict[Digest, bytes]]:
    """A snapshot, and its blobs."""
    made = capture(store, tmp_path, "one", 1, 2)
    return made, {digest: blob_path(Path(store.path), digest).read_bytes() for digest in made.needs}


def test_nothing_is_there_before_the_tag(store: Store, other: Store, tmp_path: Path) -> None:
    made, data = prepared(store, tmp_path)
    with other.transaction() as change:
        for blob in (*made.artifact_manifest.children, made.root):
            assert not change.exists(blob)
            change.push(blob, BytesSource(data[blob.digest]))
            assert change.exists(blob)
            assert fetch_all(change, blob, limit=spec.GIB) == data[blob.digest]
        assert change.resolve(str(made.digest)) == made.root
        with pytest.raises(NotFound):
            change.resolve("one")
        assert blobs(Path(other.path)) == set()
        change.tag(made.root, "one")
        assert change.resolve("one") == made.root
        assert index_refs(Path(other.path)) == {"one": str(made.digest)}
    require_sound(Path(other.path), contents={"one": disk_bytes(1, 2)})


def test_what_is_not_tagged_is_dropped(store: Store, other: Store, tmp_path: Path) -> None:
    made, data = prepared(store, tmp_path)
    with other.transaction() as change:
        for blob in made.artifact_manifest.children:
            change.push(blob, BytesSource(data[blob.digest]))
    assert blobs(Path(other.path)) == set()
    assert os.listdir(Path(other.path, "tmp")) == []


def test_a_tag_wants_every_blob_that_the_manifest_names(store: Store, other: Store, tmp_path: Path) -> None:
    """Invariant 2: a plain file, too, though nothing reads it here."""
    made, data = prepared(store, tmp_path)
    note = Descriptor(
        media_type=spec.MEDIA_FILE,
        digest=Digest.of(b"note"),
        size=4,
        annotations={spec.ANNOTATION_TITLE: "note.txt"},
    )
    document = made.artifact_manifest
    manifest = ArtifactManifest.build(config=document.config, layers=[*document.layers, note], annotations={})
    with other.transaction() as change:
        for blob in document.children:
            change.push(blob, BytesSource(data[blob.digest]))
        change.push(manifest.descriptor, BytesSource(manifest.raw))
        with pytest.raises(NotFound, match=note.digest.hex):
            change.tag(manifest.descriptor, "one")
        assert names(other) == []
        change.push(note, BytesSource(b"note"))
        change.tag(manifest.descriptor, "one")
    require_sound(Path(other.path))
    other.gc()
    assert blobs(Path(other.path)) == reachable(Path(other.path))


@pytest.mark.parametrize("damage", ["gone", "shorter"])
def test_what_is_relied_on_must_still_be_there_at_the_commit(store: Store, tmp_path: Path, damage: str) -> None:
    """Another tool's gc knows no leases."""
    made, _ = prepared(store, tmp_path)
    pack = blob_path(Path(store.path), made.artifact_manifest.packs[0].digest)
    with store.transaction() as change:
        assert change.exists(made.artifact_manifest.packs[0])
        root = change.add(made.artifact_manifest.raw + b" ", spec.MEDIA_MANIFEST)
        if damage == "gone":
            pack.unlink()
        else:
            pack.chmod(0o644)
            os.truncate(pack, 10)
        with pytest.raises((NotFound, CorruptContent), match=pack.name):
            change.commit(parse_name("two"), root)
    assert names(store) == ["one"]


def test_a_push_of_wrong_bytes_stages_nothing(other: Store) -> None:
    descriptor = Descriptor.of(b"right", "x")

    class Lying:
        def fetch(self, _: Descriptor) -> Reader:
            return BytesSource(b"wrong").fetch(Descriptor.of(b"wrong", "x"))

    with other.transaction() as change:
        with pytest.raises(DigestMismatch):
            change.push(descriptor, Lying())
        assert not change.exists(descriptor)
