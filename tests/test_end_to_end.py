"""The main job on real ext4 disks: capture, edit, capture again, push, pull by digest elsewhere, restore, compare."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from casstore import Digest, Snapshot, Store
from casstore.reference import RegistryReference
from casstore.registry import RegistryTarget
from casstore.spec import BLOCK, GIB, MIB
from casstore.transfer import TransferOptions
from tests.support import disks
from tests.support.needs import available, find_program
from tests.support.servers import Auth, RunningRegistry, registry
from tests.support.tools import skopeo


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 1 GiB ext4 disk with some files."""
    if not available("mke2fs"):
        pytest.skip("mke2fs is missing")
    folder = tmp_path_factory.mktemp("disks")
    disks.write_tree(folder / "tree", seed=11, data=48 * MIB)
    disks.make_ext4(folder / "base.ext4", GIB, folder / "tree", seed=11)
    return folder / "base.ext4"


@pytest.fixture(scope="module")
def edited(base: Path) -> Path:
    """The disk after edits: through a mount where that works, else with debugfs."""
    path = base.with_name("edited.ext4")
    subprocess.run(["cp", "--sparse=always", base, path], check=True)
    if available("loop"):
        disks.edit_through_mount(path, seed=12)
    else:
        disks.edit_with_debugfs(path, seed=12)
    return path


@pytest.fixture(scope="module")
def store(base: Path, edited: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.init(tmp_path_factory.mktemp("store") / "s") as store:
        store.create(Snapshot.builder(base).name("base").label("step", "0").build())
        store.create(Snapshot.builder(edited).name("edited").parent("base").record_integrity().build())
        yield store


def require_same_disk(restored: Path, original: Path) -> None:
    """The same extents and the same bytes in them, and as much allocated, within 1 % + 64 KiB.

    Preallocated space that was never written is no extent, and is not allocated again.
    """
    extents = settled_extents(original)
    assert settled_extents(restored) == extents
    one, other = (np.memmap(path, np.uint8, "r") for path in (restored, original))
    assert len(one) == len(other)
    for offset, length in extents:
        assert np.array_equal(one[offset : offset + length], other[offset : offset + length]), f"at {offset}"
    expected = sum(length for _, length in extents)
    assert abs(disks.allocated(restored) - expected) <= expected * 0.01 + 65536


def settled_extents(path: Path) -> list[tuple[int, int]]:
    """The extents with the file out of the page cache, in which preallocated space that was read looks like data."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    return disks.extents(path)


@contextmanager
def running(folder: Path, auth: Auth) -> Iterator[tuple[RunningRegistry, TransferOptions]]:
    folder.mkdir()
    with registry(folder, auth=auth) as server:

        def open_registry(reference: RegistryReference) -> RegistryTarget:
            return RegistryTarget(reference, server.options, server.credentials)

        yield server, TransferOptions(registries=open_registry)


@pytest.mark.needs("mke2fs", "debugfs")
@pytest.mark.parametrize("name", ["base", "edited"])
def test_local_restore(store: Store, base: Path, edited: Path, tmp_path: Path, name: str) -> None:
    original = {"base": base, "edited": edited}[name]
    store.restore(name, tmp_path / "disk")
    require_same_disk(tmp_path / "disk", original)
    subprocess.run(["cmp", tmp_path / "disk", original], check=True)
    subprocess.run([find_program("e2fsck") or "e2fsck", "-fn", tmp_path / "disk"], check=True, capture_output=True)


@pytest.mark.needs("mke2fs", "debugfs")
def test_edit_stores_little_more_than_the_changed_chunks(store: Store, base: Path, edited: Path) -> None:
    changed = _changed_runs(base, edited)
    first, second = store.get("base"), store.get("edited")
    # A changed run of blocks costs its chunks, 24 KiB on average and at most 96 KiB, before compression.
    assert second.unique_bytes < changed * 96 * 1024
    assert second.unique_bytes < first.stored_bytes / 4


def _changed_runs(base: Path, edited: Path) -> int:
    """How many runs of blocks differ."""
    blocks = np.unique([at // BLOCK for path in (base, edited) for e in disks.extents(path) for at in _block_starts(e)])
    one, other = (np.memmap(path, np.uint8, "r").reshape(-1, BLOCK) for path in (base, edited))
    changed = [n for n in blocks.tolist() if (one[n] != other[n]).any()]
    return sum(1 for before, n in pairwise([-2, *changed]) if n != before + 1)


def _block_starts(extent: tuple[int, int]) -> range:
    offset, length = extent
    return range(offset // BLOCK * BLOCK, offset + length, BLOCK)


@pytest.mark.needs("mke2fs", "debugfs")
def test_same_disk_again_adds_only_a_manifest(store: Store, base: Path) -> None:
    again = store.create(Snapshot.builder(base).name("again").build())
    assert again.cost is not None
    assert again.cost.stats.new_chunks == 0
    assert again.cost.stats.new_stored == 0
    assert {blob.digest for blob in again.artifact_manifest.layers} == {
        blob.digest for blob in store.open_snapshot("base").artifact_manifest.layers
    }
    assert store.get("again").unique_bytes < 4096  # the manifest and its config
    store.remove("again")


@pytest.mark.needs("mke2fs", "debugfs")
def test_through_a_layout_directory(store: Store, edited: Path, tmp_path: Path) -> None:
    for name in ("base", "edited"):
        store.push(name, f"oci:{tmp_path}/layout")
    digest = store.get("edited").digest
    with Store.init(tmp_path / "elsewhere") as other:
        report = other.pull(f"oci:{tmp_path}/layout@{digest}", name="mine")
        assert report.digest == digest == other.get("mine").digest
        other.restore("mine", tmp_path / "disk")
        assert other.verify("mine").upper.kind == "verified"
    require_same_disk(tmp_path / "disk", edited)


@pytest.mark.needs("mke2fs", "debugfs", "docker-registry")
@pytest.mark.parametrize("auth", ["none", "token"])
def test_through_a_registry(store: Store, base: Path, edited: Path, tmp_path: Path, auth: Auth) -> None:
    with running(tmp_path / "registry", auth) as (server, options), Store.init(tmp_path / "elsewhere") as other:
        for name in ("base", "edited"):
            report = store.push(name, server.reference("team/disks", tag=name), options=options)
            assert report.digest == store.get(name).digest
        again = store.push("edited", server.reference("team/disks"), options=options)
        assert again.copy.copied_bytes <= 4096  # the manifest at most

        by_tag = other.pull(server.reference("team/disks", tag="base"), options=options)
        assert by_tag.reference == f"{server.host}/team/disks@{store.get('base').digest}"
        pinned = RegistryReference(server.host, "team/disks", None, store.get("edited").digest)
        report = other.pull(pinned, name="edited", options=options)
        assert report.copy.copied_bytes < report.copy.skipped_bytes, "what base had already came again"
        for name, original in (("base", base), ("edited", edited)):
            other.restore(name, tmp_path / f"{name}.disk")
            require_same_disk(tmp_path / f"{name}.disk", original)


@pytest.mark.needs("mke2fs", "debugfs", "docker-registry", "skopeo")
def test_skopeo_carries_it_both_ways(store: Store, edited: Path, tmp_path: Path) -> None:
    """Skopeo reads our store, writes a registry, reads that and writes a layout: the digest stays the same."""
    digest = store.get("edited").digest
    with running(tmp_path / "registry", "none") as (server, options):
        there = f"docker://{server.host}/team/disks:edited"
        skopeo("--insecure-policy", "copy", "--dest-tls-verify=false", f"oci:{store.path}:edited", there)
        with Store.init(tmp_path / "a") as a:
            assert a.pull(server.reference("team/disks", tag="edited"), options=options).digest == digest
        store.push("edited", server.reference("team/ours", tag="v1"), options=options)
        layout = f"oci:{tmp_path}/layout:v1"
        skopeo("--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{server.host}/team/ours:v1", layout)
    with Store.init(tmp_path / "b") as b:
        assert b.pull(layout, name="x").digest == digest
        b.restore("x", tmp_path / "disk")
    require_same_disk(tmp_path / "disk", edited)


@pytest.mark.needs("mke2fs", "debugfs", "umoci")
def test_umoci_lists_the_store(store: Store) -> None:
    listed = subprocess.run(["umoci", "ls", "--layout", store.path], check=True, capture_output=True, text=True)
    assert {"base", "edited"} <= set(listed.stdout.split())


@pytest.mark.needs("mke2fs", "debugfs")
def test_refs_and_blobs_alone_are_the_store(store: Store, edited: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in ("refs", "blobs"):
        subprocess.run(["cp", "-a", f"{store.path}/{part}", copy], check=True)
    with Store.open(copy) as other:
        assert {handle.name: handle.digest for handle in other.list()} == {
            handle.name: handle.digest for handle in store.list()
        }
        other.restore("edited", tmp_path / "disk")
    require_same_disk(tmp_path / "disk", edited)
    index = json.loads((copy / "index.json").read_bytes())
    assert {entry["digest"] for entry in index["manifests"]} == {str(handle.digest) for handle in store.list()}


@pytest.mark.needs("mke2fs", "debugfs")
def test_identities(store: Store) -> None:
    """The config blob is the snapshot manifest, byte for byte, so its digest is the id."""
    snapshot = store.open_snapshot("edited")
    assert snapshot.artifact_manifest.config.digest == snapshot.id == Digest.of(snapshot.manifest.to_bytes())
    assert snapshot.parent == str(store.get("base").id)
