"""What is elsewhere, without a local store: listed, inspected, removed, copied. Requests and bytes are counted."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from casstore import Snapshot, Store, spec
from casstore.content import Reader
from casstore.errors import (
    DigestMismatch,
    HasChildren,
    InvalidName,
    NotFound,
    NotOffered,
    Unavailable,
    UnsupportedVersion,
    UsageError,
)
from casstore.layout import LayoutTarget
from casstore.memory import MemoryTarget
from casstore.oci import Descriptor
from casstore.remote import copy, inspect_remote, list_remote, plan_copy, remove_remote
from tests.support.manifests import EMPTY, EMPTY_TYPE, image_manifest, index_manifest, put, sign
from tests.support.registry_simulator import RegistrySimulator, Seen
from tests.support.stores import FAST, capture, disk_bytes, names, require_sound
from tests.support.transfers import REGISTRY, Memory, over, through

IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator() as simulator:
        yield simulator


def fetched(registry: RegistrySimulator) -> set[str]:
    """The digests and tags that were got."""
    return {seen.path.rpartition("/")[2].partition("?")[0] for seen in registry.seen("GET")}


# --- list -------------------------------------------------------------------------------------------------------------


def test_tags_are_listed_with_what_they_stand_for_and_no_pack_is_fetched(
    store: Store, registry: RegistrySimulator, tmp_path: Path
) -> None:
    place, options = f"{registry.host}/a/b", over(registry)
    one, two = capture(store, tmp_path, "one", 1, 0, 2), capture(store, tmp_path, "two", 3)
    store.push("one", f"{place}:one", options=options)
    store.push("one", f"{place}:again", options=options)
    store.push("two", f"{place}:two", options=options)
    registry.requests.clear()
    entries = list_remote(place, options)
    assert [entry.name for entry in entries] == ["again", "one", "two"]
    for entry, made in zip(entries, [one, one, two], strict=True):
        assert entry.kind == "snapshot"
        assert entry.reference == f"{place}:{entry.name}"
        assert (entry.digest, entry.snapshot_id) == (made.digest, made.id)
        assert (entry.stored_bytes, entry.size_bytes) == (made.stored_bytes, made.size_bytes)
        assert (entry.created_at, entry.image_ref, entry.problem) == (made.created_at, "scratch", None)
    configs = {str(made.artifact_manifest.config.digest) for made in (one, two)}
    assert fetched(registry) == {"list", "again", "one", "two"} | configs
    assert {seen.method for seen in registry.requests} == {"GET"}


def test_others_artifacts_are_listed_as_such(registry: RegistrySimulator) -> None:
    options = over(registry)
    assert options.registries is not None
    with options.registries(registry.reference("a/b")) as target:
        config = put(target, EMPTY, EMPTY_TYPE)
        layer = put(target, b"layer", "application/x")
        image = put(target, image_manifest([layer], created="x"), spec.MEDIA_MANIFEST)
        index = put(target, index_manifest([image]), spec.MEDIA_INDEX)
        target.tag(image, "image")
        target.tag(index, "index")
    entries = {entry.name: entry for entry in list_remote(f"{registry.host}/a/b", options)}
    assert {name: entry.kind for name, entry in entries.items()} == {"image": "other", "index": "other"}
    assert entries["image"].stored_bytes == image.size + config.size + layer.size
    assert entries["index"].stored_bytes is None
    assert entries["index"].digest == index.digest


def test_what_is_wrong_with_one_tag_is_told_and_the_others_are_listed(
    store: Store, registry: RegistrySimulator, tmp_path: Path
) -> None:
    place, options = f"{registry.host}/a/b", over(registry)
    made = capture(store, tmp_path, "fine", 1)
    store.push("fine", place, options=options)
    registry.put_manifest("a/b", b"no json", tag="bad")
    registry.put_manifest("a/b", made.artifact_manifest.raw.replace(b"config.v1", b"config.v9"), tag="newer")
    entries = {entry.name: entry for entry in list_remote(place, options)}
    assert {name: entry.kind for name, entry in entries.items()} == {
        "fine": "snapshot",
        "bad": "unreadable",
        "newer": "unreadable",
    }
    assert "JSON" in str(entries["bad"].problem)
    assert isinstance(entries["newer"].problem, UnsupportedVersion)
    assert entries["newer"].digest is not None


@pytest.mark.parametrize("kind", ["registry", "layout", "store"])
def test_the_tags_of_referrers_are_listed_only_when_asked_for(
    store: Store, registry: RegistrySimulator, tmp_path: Path, kind: str
) -> None:
    made = capture(store, tmp_path, "one", 1)
    memory = Memory()
    store.push("one", f"{REGISTRY}:one", options=through(memory))
    sign(memory, made.root)
    places = {"registry": f"{registry.host}/a/b", "layout": f"oci:{tmp_path}/there", "store": f"oci:{tmp_path}/there"}
    if kind == "store":
        Store.init(tmp_path / "there", options=FAST).close()
    mirror = f"oci:{tmp_path}/mirror:one"
    copy(f"{REGISTRY}:one", mirror, through(memory, referrers=True))
    copy_options = over(registry, referrers=True)
    copy(mirror, f"{places[kind]}:one", copy_options)
    assert [entry.name for entry in list_remote(places[kind], copy_options)] == ["one"]
    every = list_remote(places[kind], copy_options, referrers=True)
    assert [entry.kind for entry in every if entry.name == "one"] == ["snapshot"]
    assert len(every) == (3 if kind == "registry" else 2)
    assert {entry.kind for entry in every} == {"snapshot", "other"}


def test_a_list_is_of_a_place(store: Store, registry: RegistrySimulator, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected no tag"):
        list_remote(f"{registry.host}/a/b:one", over(registry))
    with pytest.raises(NotFound):
        list_remote(f"oci:{tmp_path}/nowhere")
    assert list_remote(f"{registry.host}/nobody/here", over(registry)) == []

    class Poor:
        fetch = resolve = exists = push = None

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None: ...

    with pytest.raises(NotOffered):
        list_remote(f"{registry.host}/a/b", replace(over(registry), registries=lambda _: Poor()))


def test_a_registry_that_is_ill_is_not_asked_for_every_tag(
    store: Store, registry: RegistrySimulator, tmp_path: Path
) -> None:
    """One tag that it cannot tell of is a line; but each costs all attempts, so many are an error."""
    place, options = f"{registry.host}/a/b", over(registry, concurrency=1)
    capture(store, tmp_path, "one", 1)
    for n in range(20):
        store.push("one", f"{place}:t{n}", options=options)

    def fail(seen: Seen) -> None:
        registry.faults.status = 501 if seen.path.endswith(failing) else None

    registry.watcher = fail
    failing: tuple[str, ...] = ("/t3",)
    assert [entry.name for entry in list_remote(place, options) if entry.kind == "unreadable"] == ["t3"]
    failing = tuple(f"/t{n}" for n in range(20))
    registry.requests.clear()
    with pytest.raises(Unavailable, match="got 501"):
        list_remote(place, options)
    assert len(registry.requests) < 10


# --- inspect ----------------------------------------------------------------------------------------------------------


def test_inspecting_fetches_manifest_config_and_map_only(
    store: Store, registry: RegistrySimulator, tmp_path: Path
) -> None:
    place, options = f"{registry.host}/a/b", over(registry)
    made = capture(store, tmp_path, "one", 1, 0, 2)
    store.push("one", place, options=options)
    registry.requests.clear()
    found = inspect_remote(f"{place}:one", options)
    document = made.artifact_manifest
    assert {name for name in fetched(registry) if not name.startswith("sha256-")} == {
        "one",
        str(made.digest),
        str(document.config.digest),
        str(document.map.digest),
    }
    assert found.reference == f"{place}@{made.digest}"
    assert (found.digest, found.id, found.root) == (made.digest, made.id, made.root)
    assert (found.stored_bytes, found.size_bytes) == (made.stored_bytes, made.size_bytes)
    assert found.allocated_bytes == 2 * 65536
    assert found.manifest == made.manifest
    assert found.artifact_manifest == document
    assert list(found.referrers) == []
    assert inspect_remote(found.reference, options).root == found.root


def test_inspecting_tells_referrers(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    memory = Memory()
    store.push("one", f"{REGISTRY}:one", options=through(memory))
    referrer = sign(memory, made.root)
    assert list(inspect_remote(f"{REGISTRY}:one", through(memory)).referrers) == [referrer]
    for place in (f"oci:{store.path}:one", f"oci:{store.path}@{made.digest}"):
        assert inspect_remote(place).digest == made.digest


def test_what_is_no_snapshot_is_not_inspected(store: Store, tmp_path: Path) -> None:
    memory = Memory()
    memory.tag(put(memory, image_manifest([]), spec.MEDIA_MANIFEST), "image")
    with pytest.raises(UnsupportedVersion, match="artifactType"):
        inspect_remote(f"{REGISTRY}:image", through(memory))
    with pytest.raises(UsageError, match="tag or digest"):
        inspect_remote(REGISTRY, through(memory))
    with pytest.raises(NotFound):
        inspect_remote(f"{REGISTRY}:nobody", through(memory))
    with pytest.raises(NotFound):
        inspect_remote(f"oci:{tmp_path}/nowhere:x")


# --- remove -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["registry", "layout", "store"])
def test_one_tag_goes_and_its_siblings_stay(
    store: Store, registry: RegistrySimulator, tmp_path: Path, kind: str
) -> None:
    made = capture(store, tmp_path, "one", 1)
    place = f"{registry.host}/a/b" if kind == "registry" else f"oci:{tmp_path}/there"
    if kind == "store":
        Store.init(tmp_path / "there", options=FAST).close()
    options = over(registry)
    for tag in ("one", "two"):
        store.push("one", f"{place}:{tag}", options=options)
    with pytest.raises(DigestMismatch):
        remove_remote(f"{place}:one@sha256:{'0' * 64}", options)
    assert remove_remote(f"{place}:one@{made.digest}", options) == made.digest
    assert [entry.name for entry in list_remote(place, options)] == ["two"]
    with Store.init(tmp_path / "other", options=FAST) as other:
        assert other.pull(f"{place}:two", options=options).digest == made.digest
    with pytest.raises(NotFound):
        remove_remote(f"{place}:one", options)
    with pytest.raises(UsageError, match="expected a tag"):
        remove_remote(f"{place}@{made.digest}", options)


def test_a_registry_that_removes_no_tags_says_so(store: Store, registry: RegistrySimulator, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    place, options = f"{registry.host}/a/b", over(registry)
    store.push("one", place, options=options)
    registry.faults.deletes = False
    with pytest.raises(NotOffered):
        remove_remote(f"{place}:one", options)
    assert [entry.name for entry in list_remote(place, options)] == ["one"]


def test_the_parent_of_others_in_a_store_stays(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "base", 1)
    capture(store, tmp_path, "child", 1, 2, parent="base")
    with pytest.raises(HasChildren):
        remove_remote(f"oci:{store.path}:base", stores=FAST)
    remove_remote(f"oci:{store.path}:child", stores=FAST)
    assert names(store) == ["base"]


# --- copy -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(store: Store, tmp_path: Path) -> Snapshot:
    capture(store, tmp_path, "base", 1)
    return capture(store, tmp_path, "one", 1, 0, 2)


@pytest.mark.parametrize("there", ["registry", "layout", "store"])
@pytest.mark.parametrize("here", ["registry", "layout", "store"])
def test_a_copy_between_any_two_places_keeps_the_digest(
    store: Store, made: Snapshot, registry: RegistrySimulator, tmp_path: Path, here: str, there: str
) -> None:
    with RegistrySimulator() as second:
        options = replace(
            over(registry),
            registries=lambda ref: over(registry if ref.host == registry.host else second).registries(ref),  # type: ignore[misc]
        )

        def place(kind: str, server: RegistrySimulator, folder: str) -> str:
            if kind == "registry":
                return f"{server.host}/a/b"
            if kind == "store":
                Store.init(tmp_path / folder, options=FAST).close()
            return f"oci:{tmp_path}/{folder}"

        source, target = place(here, registry, "from"), place(there, second, "to")
        store.push("one", f"{source}:one", options=options)
        plan = plan_copy(f"{source}:one", f"{target}:copied", options, stores=FAST)
        report = copy(f"{source}:one", f"{target}:copied", options, stores=FAST)
        assert (report.digest, report.name, report.reference) == (made.digest, "copied", f"{target}@{made.digest}")
        assert (len(plan.missing), plan.missing_bytes) == (report.copy.copied, report.copy.copied_bytes)
        assert report.copy.copied_bytes == made.stored_bytes
        assert copy(f"{source}@{made.digest}", f"{target}:copied", options, stores=FAST).copy.copied == 0
        with Store.init(tmp_path / "back", options=FAST) as back:
            back.pull(f"{target}:copied", options=options)
        require_sound(tmp_path / "back", contents={"copied": disk_bytes(1, 0, 2)})
        if there == "store":
            require_sound(tmp_path / "to", contents={"copied": disk_bytes(1, 0, 2)})


def test_within_a_registry_no_byte_of_a_blob_moves(
    store: Store, made: Snapshot, registry: RegistrySimulator, tmp_path: Path
) -> None:
    options = over(registry)
    store.push("one", f"{registry.host}/a/b", options=options)
    registry.requests.clear()
    report = copy(f"{registry.host}/a/b:one", f"{registry.host}/c/d", options).copy
    assert (report.mounted, report.copied) == (len(made.needs) - 1, 1)
    assert not registry.seen("GET", "/blobs/")
    assert sum(seen.body for seen in registry.requests if "/manifests/" not in seen.path) == 0
    assert registry.contents.tags["c/d", "one"] == str(made.digest)


def test_images_and_indexes_of_others_are_copied_with_all_that_they_name(
    registry: RegistrySimulator, tmp_path: Path
) -> None:
    options = replace(over(registry), referrers=True)
    layout = LayoutTarget(str(tmp_path / "layout"), create=True)
    config = put(layout, b'{"architecture":"amd64"}', IMAGE_CONFIG)
    layers = [put(layout, b"layer %d" % n, "application/vnd.oci.image.layer.v1.tar") for n in range(3)]
    put(layout, EMPTY, EMPTY_TYPE)
    images = [put(layout, image_manifest([config, *layers[:n]]), spec.MEDIA_MANIFEST) for n in (1, 2, 3)]
    index = put(layout, index_manifest(images), spec.MEDIA_INDEX)
    layout.tag(index, "all")
    signature = sign(layout, images[0])
    place = f"{registry.host}/a/b"
    report = copy(f"oci:{layout.root}:all", place, options)
    assert (report.digest, report.copy.referrers) == (index.digest, 1)
    back = copy(f"{place}:all", f"oci:{tmp_path}/back:all", options)
    assert back.digest == index.digest
    there = LayoutTarget(str(tmp_path / "back"))
    for blob in (index, *images, *layers, config, signature):
        assert there.exists(blob)
    assert list(there.referrers(images[0])) == [signature]
    assert there.resolve("all").media_type == spec.MEDIA_INDEX
    assert copy(f"oci:{there.root}@{index.digest}", f"{place}:by-digest", options).copy.copied == 0


def test_what_is_not_copied_is_refused_before_anything_moves(store: Store, made: Snapshot, tmp_path: Path) -> None:
    memory = Memory()
    options = through(memory)
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    image = put(memory, image_manifest([]), spec.MEDIA_MANIFEST)
    memory.tag(image, "image")
    memory.tag(put(memory, image_manifest([]).replace(spec.MEDIA_MANIFEST.encode(), docker.encode()), docker), "docker")
    memory.tag(put(memory, index_manifest([]), spec.MEDIA_INDEX), "index")
    with pytest.raises(UnsupportedVersion, match="docker"):
        copy(f"{REGISTRY}:docker", f"oci:{tmp_path}/layout", options)
    for tag in ("image", "index"):
        with pytest.raises(UnsupportedVersion, match="copy of"):
            copy(f"{REGISTRY}:{tag}", f"oci:{store.path}", options)
    assert not (tmp_path / "layout").exists()
    assert names(store) == ["base", "one"]


def test_a_copy_says_from_what_to_which_name(store: Store, made: Snapshot, tmp_path: Path) -> None:
    here, there = f"oci:{store.path}", f"oci:{tmp_path}/there"
    zeros = f"sha256:{'0' * 64}"
    for function in (copy, plan_copy):
        with pytest.raises(UsageError, match="expected a tag or digest"):
            function(here, f"{there}:x")
        with pytest.raises(UsageError, match="expected a tag, for a digest says none"):
            function(f"{here}@{made.digest}", there)
        with pytest.raises(DigestMismatch):
            function(f"{here}:one", f"{there}:x@{zeros}")
        with pytest.raises(NotFound):
            function(f"{here}:nobody", there)
        with pytest.raises(InvalidName):
            function(f"{here}:one", f"oci:{store.path}:_odd-")
    assert not (tmp_path / "there").exists()
    assert copy(f"{here}:one", f"{there}@{made.digest}").name == "one"


def test_memory_does_not_grow_with_the_blobs(tmp_path: Path) -> None:
    """Every byte streams through."""

    class Big(MemoryTarget):
        def fetch(self, descriptor: Descriptor) -> Reader:
            return Zeros(descriptor.size) if descriptor.media_type == "application/x" else super().fetch(descriptor)

    class Zeros:
        def __init__(self, size: int) -> None:
            self.left = size

        def read(self, size: int) -> bytes:
            size = min(size, self.left)
            self.left -= size
            return bytes(size)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None: ...

    memory, size = Big(), 64 * spec.MIB
    blob = Descriptor.of(bytes(size), "application/x")
    put(memory, EMPTY, EMPTY_TYPE)
    memory.tag(put(memory, image_manifest([blob]), spec.MEDIA_MANIFEST), "big")
    tracemalloc.start()
    try:
        copy(f"{REGISTRY}:big", f"oci:{tmp_path}/layout", through(memory), stores=FAST)
        assert tracemalloc.get_traced_memory()[1] < 16 * spec.MIB
    finally:
        tracemalloc.stop()
    assert LayoutTarget(str(tmp_path / "layout")).exists(blob)
