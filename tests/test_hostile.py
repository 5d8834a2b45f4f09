"""What a hostile snapshot, or a careless -f, cannot do. Each case was reproduced before it was closed."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from casstore import Digest, ImageRef, Snapshot, Store
from casstore.binding import Created
from casstore.cli import render
from casstore.diskmap import DiskMap, PackEntry, Runs, SnapshotMap
from casstore.durable import Durability, make_directories
from casstore.errors import AlreadyExists, CorruptContent, DocumentError
from casstore.manifest import created_time
from casstore.names import parse_name
from casstore.oci import ArtifactManifest
from casstore.spec import MEDIA_CONFIG
from casstore.streams import BytesSource
from tests.support.stores import FAST, blob_path, capture, disk_bytes, flip_byte, write_disk


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store", options=FAST)


def rename(store: Store, of: str, name: str, **changes: object) -> None:
    """A snapshot that differs from another one in its snapshot manifest only."""
    original = store.open_snapshot(of)
    config = replace(original.manifest, **changes).to_bytes()  # type: ignore[arg-type]
    with store.transaction() as change:
        manifest = ArtifactManifest.build(
            config=change.add(config, MEDIA_CONFIG), layers=original.artifact_manifest.layers, annotations={}
        )
        change.push(manifest.descriptor, BytesSource(manifest.raw))
        change.commit(parse_name(name), manifest.descriptor)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "", "soon"])
def test_a_time_outside_of_the_calendar_hurts_no_list(store: Store, tmp_path: Path, text: str) -> None:
    capture(store, tmp_path, "one", 1)
    rename(store, "one", "odd", created_at=text)
    assert created_time(text) is None
    assert [handle.created_at for handle in store.list() if handle.name == "odd"] == [None]
    assert render.created(store.get("odd").manifest) == text


def test_a_long_text_does_not_widen_the_table(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    rename(store, "one", "long", image=ImageRef(ref="x" * 1_000_000, manifest_digest="a:b"))
    cells = [store.get(name).image_ref for name in ("one", "long")]
    assert max(map(len, render.table(["IMAGE"], [[cell] for cell in cells]))) <= 128


def small_map(extents: list[list[int]], runs: list[tuple[int, int, int, int, int]], size: int) -> bytes:
    disk = DiskMap("disk.raw", size, np.array(extents, np.int64).reshape(-1, 2), Runs.build(runs))
    return SnapshotMap((PackEntry(Digest.of(b""), bytes(36)),), (disk,)).to_bytes()


def test_more_extents_than_sectors_are_refused() -> None:
    extents = [[n * 2, 1] for n in range(100)]
    with pytest.raises(DocumentError, match="one extent per 512 bytes"):
        SnapshotMap.parse(small_map(extents, [], 4096), subject="map")
    SnapshotMap.parse(small_map(extents[:9], [], 4096), subject="map")


@pytest.mark.parametrize("kind", ["store", "file", "disk itself", "layout with more", "link to a snapshot"])
def test_force_at_a_path_replaces_nothing_but_such_a_snapshot(tmp_path: Path, kind: str) -> None:
    disk, place = write_disk(tmp_path / "disk", 1, 2), tmp_path / "place"

    def create(path: Path, *, force: bool = False) -> Created | None:
        builder = Snapshot.builder(disk).path(path)
        return Store.create_directory((builder.force() if force else builder).build()).cost

    if kind == "store":
        capture(Store.init(place, options=FAST), tmp_path, "precious", 3)
    elif kind == "file":
        place.write_text("precious")
    elif kind == "disk itself":
        place = disk
    else:
        create(tmp_path / "other")
        if kind == "link to a snapshot":
            place.symlink_to("other")
        else:
            (tmp_path / "other").rename(place)
            (place / "thesis.tex").touch()
    before = sorted(os.walk(tmp_path))
    with pytest.raises(AlreadyExists, match="got something else"):
        create(place, force=True)
    assert sorted(os.walk(tmp_path)) == before
    create(tmp_path / "mine")
    create(tmp_path / "mine", force=True)  # that is what it is for
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


def test_a_forced_pull_mends_a_damaged_pack(store: Store, tmp_path: Path) -> None:
    """Row 16: without force a blob that is there with its size is trusted."""
    made = capture(store, tmp_path, "one", 1, 2)
    store.push("one", f"oci:{tmp_path}/layout:one")
    pack = blob_path(Path(store.path), made.artifact_manifest.packs[0].digest)
    pack.chmod(0o644)
    flip_byte(pack, 5000)
    with pytest.raises(CorruptContent):
        store.verify("one")
    report = store.pull(f"oci:{tmp_path}/layout:one", force=True)
    assert report.copy.copied == 1
    store.verify("one")
    assert stat.S_IMODE(pack.stat().st_mode) == 0o444
    store.restore("one", tmp_path / "restored")
    assert (tmp_path / "restored").read_bytes() == disk_bytes(1, 2)


def test_directories_are_made_from_a_place_that_cannot_be_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to look for the parent of "" for ever."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "isdir", lambda _: False)
    make_directories("out/deep", Durability.NONE)
    assert os.listdir(tmp_path / "out") == ["deep"]
