"""Several snapshots that come with their documents, in one transaction."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import pytest

from casstore import Store
from casstore.binding import Created
from casstore.disk import DiskSource
from casstore.errors import AlreadyExists, CorruptContent, DigestMismatch, SizeMismatch, UsageError
from casstore.manifest import ImageRef, Manifest, SnapshotFormat, UpperIntegrity, UpperLayer
from casstore.microsandbox.intake import Importer
from casstore.names import parse_name
from casstore.sequential import SequentialDisk
from casstore.transaction import Transaction
from tests.support.seed import sha256
from tests.support.stores import blob_path, capture, content, flip_byte, leftovers, names, require_sound

MIB = 1 << 20
IMAGE = ImageRef(ref="docker.io/library/alpine:3.20", manifest_digest="sha256:" + 64 * "1")


def importer_of(store: Store, change: Transaction) -> Importer:
    return Importer(change, store._catalog)


def document(data: bytes, *, parent: Manifest | None = None, digest: str | None = None, label: str = "") -> Manifest:
    integrity = UpperIntegrity(algorithm="sha256", digest=digest or sha256(data))
    return Manifest(
        format=SnapshotFormat.RAW,
        fstype="ext4",
        image=IMAGE,
        parent=None if parent is None else str(parent.id),
        created_at="2026-05-01T12:00:00Z",
        labels={"n": label},
        upper=UpperLayer(file="upper.ext4", size_bytes=len(data), integrity=integrity),
        source_sandbox=None,
    )


def stream(data: bytes) -> DiskSource:
    return SequentialDisk(io.BytesIO(data), "member", len(data))


def generations(count: int, size: int = 3 * MIB) -> list[bytes]:
    """A disk, and what became of it."""
    data = [random.Random(0).randbytes(size)]
    for n in range(1, count):
        edited = bytearray(data[-1])
        edited[n * 300_000 : n * 300_000 + 5] = b"edit%d" % n
        data.append(bytes(edited))
    return data


@pytest.mark.parametrize("order", ["documents first", "disks first", "head first"])
def test_each_disk_is_stored_as_what_it_differs_from_those_before(store: Store, order: str) -> None:
    data = generations(4)
    manifests: list[Manifest] = []
    for each in data:
        manifests.append(document(each, parent=manifests[-1] if manifests else None))
    turn = list(range(4))[:: -1 if order == "head first" else 1]
    with store.transaction() as change:
        importer = importer_of(store, change)
        made: dict[int, Created] = {}
        for n in turn:
            importer.disk(f"{n}", stream(data[n]), of=manifests[n] if order == "documents first" else None)
            if order == "documents first":
                made[n] = importer.snapshot(manifests[n], [f"{n}"])
        if order != "documents first":
            made = {n: importer.snapshot(manifests[n], [f"{n}"]) for n in turn}
        assert names(store) == []
        assert not os.listdir(Path(store.path, "blobs/sha256"))
        change.commit_all({parse_name(f"s{n}"): made[n].root for n in turn})
    assert not importer.warnings
    costs = [made[n].stats for n in turn]
    assert all(1 <= cost.new_chunks <= 3 for cost in costs[1:])
    assert all(cost.deltas == cost.new_chunks for cost in costs[1:])
    for n in range(4):
        assert content(store, f"s{n}") == data[n]
        assert store.get(f"s{n}").id == manifests[n].id
    require_sound(Path(store.path))
    store.gc()
    assert leftovers(Path(store.path)) == []


def test_a_disk_may_belong_to_several_snapshots_and_have_files_beside_it(store: Store) -> None:
    data = b"x" * MIB
    with store.transaction() as change:
        importer = importer_of(store, change)
        importer.disk("one", stream(data))
        made = {
            parse_name(f"s{n}"): importer.snapshot(document(data, label=f"{n}"), ["one"], {"notes.txt": b"%d" % n}).root
            for n in range(2)
        }
        change.commit_all(made)
    for n in range(2):
        assert content(store, f"s{n}") == data
        assert store.open_snapshot(f"s{n}").artifact().read_file("notes.txt") == b"%d" % n
    require_sound(Path(store.path))


def test_one_wrong_disk_leaves_nothing_of_all(store: Store) -> None:
    data = generations(2)
    for wrong in (document(data[1], digest="sha256:" + 64 * "0"), document(data[1] + b"!")):
        with store.transaction() as change:
            importer = importer_of(store, change)
            for n in range(2):
                importer.disk(f"{n}", stream(data[n]))
            importer.snapshot(document(data[0]), ["0"])
            with pytest.raises((DigestMismatch, SizeMismatch), match="member"):
                importer.snapshot(wrong, ["1"])
    assert not os.listdir(Path(store.path, "blobs/sha256"))
    assert leftovers(Path(store.path)) == []


def test_a_document_with_another_number_of_disks_is_refused(store: Store) -> None:
    with store.transaction() as change:
        importer = importer_of(store, change)
        importer.disk("one", stream(b"x"))
        for keys in ([], ["two"], ["one", "one"]):
            with pytest.raises(UsageError):
                importer.snapshot(document(b"x"), keys)


def test_all_names_are_given_or_none(store: Store, tmp_path: Path) -> None:
    taken = capture(store, tmp_path, "s1", 1)
    data = b"y" * MIB
    with store.transaction() as change:
        importer = importer_of(store, change)
        importer.disk("one", stream(data))
        root = importer.snapshot(document(data), ["one"]).root
        with pytest.raises(AlreadyExists):
            change.commit_all({parse_name(f"s{n}"): root for n in range(3)})
    assert names(store) == ["s1"]
    with store.transaction(force=True) as change:
        importer = importer_of(store, change)
        importer.disk("one", stream(data))
        root = importer.snapshot(document(data), ["one"]).root
        change.commit_all({parse_name(f"s{n}"): root for n in range(3)})
    assert {handle.digest for handle in store.list()} == {root.digest}
    assert taken.digest != root.digest
    require_sound(Path(store.path))


def test_what_was_staged_stays_when_a_stored_pack_turns_out_to_be_damaged(store: Store, tmp_path: Path) -> None:
    """A file is captured again without it; a stream cannot be."""
    old = random.Random(5).randbytes(4 * MIB)
    first, disk = random.Random(6).randbytes(MIB), tmp_path / "disk"
    disk.write_bytes(old)
    with store.transaction() as change:
        importer = importer_of(store, change)
        importer.disk("old", stream(old))
        change.commit_all({parse_name("old"): importer.snapshot(document(old), ["old"]).root})
    [pack] = store.open_snapshot("old").artifact_manifest.packs
    path = blob_path(Path(store.path), pack.digest)
    flip_byte(path, path.stat().st_size // 8)
    edited = old[: MIB // 2 + 9] + b"edited" + old[MIB // 2 + 15 : MIB]  # so little of the pack that it is copied
    disk.write_bytes(edited)
    with store.transaction() as change:
        importer = importer_of(store, change)
        importer.disk("first", stream(first))
        reused = change.reuse(store.get("old").digest)
        with pytest.raises(CorruptContent):
            importer.disk("second", stream(edited), base=reused)
        with DiskSource.open(disk) as source:
            importer.disk("second", source, base=reused)
        made = [importer.snapshot(document(data), [key]) for key, data in (("first", first), ("second", edited))]
        assert made[1].damaged == (str(pack.digest),)
        change.commit_all({parse_name(f"s{n}"): each.root for n, each in enumerate(made)})
    assert [content(store, f"s{n}") for n in range(2)] == [first, edited]
    for n in range(2):
        store.verify(f"s{n}")
