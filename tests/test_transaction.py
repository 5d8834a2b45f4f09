"""A change of a store as the target of a copy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from casstore import Snapshot, Store, spec
from casstore.content import Reader
from casstore.digest import Digest
from casstore.errors import (
    CorruptContent,
    DigestMismatch,
    NotFound,
)
from casstore.names import parse_name
from casstore.oci import ArtifactManifest, Descriptor
from casstore.streams import BytesSource, fetch_all
from tests.support.stores import (
    blob_path,
    blobs,
    capture,
    disk_bytes,
    index_refs,
    names,
    reachable,
    require_sound,
)


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


@pytest.mark.parametrize("size", [0, -1, 1])
def test_16_a_hit_must_have_its_size(store: Store, tmp_path: Path, size: int) -> None:
    """What a crash left empty, short or long under its final name is stored again, not relied on."""
    first = capture(store, tmp_path, "first", 1, 2)
    pack = first.artifact_manifest.packs[0]
    path = blob_path(Path(store.path), pack.digest)
    path.chmod(0o644)
    os.truncate(path, pack.size + size if size else 0)
    capture(store, tmp_path, "second", 1, 2)
    require_sound(Path(store.path), contents={"first": disk_bytes(1, 2), "second": disk_bytes(1, 2)})
