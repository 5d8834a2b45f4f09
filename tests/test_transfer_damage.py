"""Pushes and pulls of what is incomplete, damaged or hostile: nothing wrong ever gets a name."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from casstore import Store, spec
from casstore.content import Fetcher
from casstore.errors import (
    CorruptContent,
    NotFound,
    StorageError,
    UnsupportedVersion,
)
from casstore.oci import Descriptor
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
    leftovers,
    names,
    require_sound,
    staged,
)
from tests.support.transfers import REGISTRY, Breaking, Memory, SourceBroke, through

# --- what is incomplete or damaged ------------------------------------------------------------------------------------


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
    assert all(len(name) == 64 or name == "lease" for name in staged(Path(other.path)))  # what is kept is whole
    memory.healthy = 10**6
    other.pull(f"{REGISTRY}:one", options=through(memory))
    assert content(other, "one") == disk_bytes(1, 2)
    other.gc()
    assert leftovers(Path(other.path)) == []


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
