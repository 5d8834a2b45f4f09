"""A pull that ended half-way: what came whole is kept and taken over, is read before it counts, and else gc's.

The unit is the blob. Everything here runs against a registry on a real socket that counts requests.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from casstore import Snapshot, Store, spec
from casstore.content import Fetcher, Reader
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import CasstoreError, CorruptContent, DigestMismatch, StorageError
from casstore.oci import Descriptor
from casstore.operation import Operation
from casstore.registry import RegistryTarget
from casstore.storedir import StoreOptions
from casstore.streams import BytesSource
from tests.support.registry_simulator import RegistrySimulator
from tests.support.stores import (
    FAST,
    blobs,
    capture,
    disk_bytes,
    flip_byte,
    leftovers,
    names,
    require_sound,
    staged,
    start_python,
)
from tests.support.transfers import REGISTRY, Breaking, Memory, SourceBroke, many_packs, over, through

PACKS = 6


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator() as simulator:
        yield simulator


def whole_blobs(root: Path) -> set[str]:
    """What the interrupted left, finished; each is what its name says."""
    found = set()
    for path in root.glob("tmp/op-*/*"):
        if len(path.name) == 64:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
            found.add(path.name)
    return found


def interrupted(other: Store, memory: Breaking, healthy: int) -> None:
    """A pull that fails after so many contents: the manifest is the first."""
    memory.fetched.clear()
    memory.healthy = healthy
    with pytest.raises(SourceBroke):
        other.pull(f"{REGISTRY}:one", options=through(memory, concurrency=1))
    memory.healthy = 10**6
    memory.fetched.clear()


def served(store: Store, tmp_path: Path) -> tuple[Snapshot, Breaking]:
    made = many_packs(store, tmp_path, "one", PACKS)
    memory = Breaking(10**6)
    store.push("one", f"{REGISTRY}:one", options=through(memory))
    return made, memory


@pytest.mark.parametrize("healthy", [1, 2, 4, PACKS + 2])
def test_the_next_pull_fetches_only_the_rest(store: Store, other: Store, tmp_path: Path, healthy: int) -> None:
    made, memory = served(store, tmp_path)
    interrupted(other, memory, healthy)
    kept = whole_blobs(Path(other.path))
    assert len(kept) == healthy - 1
    assert names(other) == []
    assert blobs(Path(other.path)) == set()
    report = other.pull(f"{REGISTRY}:one", options=through(memory)).copy
    assert {digest.hex for digest in memory.fetched} == {digest.hex for digest in made.needs} - kept
    assert len(memory.fetched) == len(set(memory.fetched))
    assert (report.skipped, report.copied) == (len(kept), len(made.needs) - len(kept))
    require_sound(Path(other.path), contents={"one": disk_bytes(*range(1, PACKS + 1))})
    other.gc()
    assert leftovers(Path(other.path)) == []


def test_a_plan_counts_what_is_kept(store: Store, other: Store, tmp_path: Path) -> None:
    made, memory = served(store, tmp_path)
    interrupted(other, memory, 4)
    kept = whole_blobs(Path(other.path))
    plan = other.plan_pull(f"{REGISTRY}:one", options=through(memory))
    assert {blob.digest.hex for blob in plan.present} == kept
    assert len(plan.missing) == len(made.needs) - len(kept)


def test_gc_removes_what_nobody_took_over(store: Store, other: Store, tmp_path: Path) -> None:
    _, memory = served(store, tmp_path)
    interrupted(other, memory, 4)
    kept = sum(path.stat().st_size for path in Path(other.path).glob("tmp/op-*/*"))
    assert kept
    assert other.gc(dry_run=True).freed == kept
    report = other.gc()
    assert (report.dead_operations, report.freed) == (1, kept)
    assert leftovers(Path(other.path)) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "symlink", "directory"])
def test_a_kept_blob_that_was_damaged_is_fetched_again(store: Store, other: Store, tmp_path: Path, damage: str) -> None:
    made, memory = served(store, tmp_path)
    interrupted(other, memory, 4)
    for path in Path(other.path).glob("tmp/op-*/*"):
        if len(path.name) == 64:
            match damage:
                case "flip":
                    flip_byte(path)
                case "cut":
                    os.truncate(path, 10)
                case "symlink":
                    path.rename(tmp_path / path.name)
                    path.symlink_to(tmp_path / path.name)
                case "directory":
                    path.unlink()
                    path.mkdir()
    report = other.pull(f"{REGISTRY}:one", options=through(memory)).copy
    assert report.copied == len(made.needs)
    require_sound(Path(other.path), contents={"one": disk_bytes(*range(1, PACKS + 1))})
    other.gc()
    assert leftovers(Path(other.path)) == []


@pytest.mark.parametrize("how", ["another name", "another owner", "writable"])
def test_what_others_can_change_is_not_taken_over(store: Store, other: Store, tmp_path: Path, how: str) -> None:
    _, memory = served(store, tmp_path)
    interrupted(other, memory, 4)
    kept = [path for path in Path(other.path).glob("tmp/op-*/*") if len(path.name) == 64]
    for path in kept:
        if how == "another name":
            os.link(path, tmp_path / path.name)
        elif how == "writable":
            path.chmod(0o666)
        elif os.geteuid() == 0:
            os.chown(path, 12345, -1)
        else:
            pytest.skip("needs root")
    other.pull(f"{REGISTRY}:one", options=through(memory))
    again = {path.name for path in kept} & {digest.hex for digest in memory.fetched}
    assert again == (set() if how == "writable" else {path.name for path in kept})
    for path in kept:
        info = (Path(other.path) / "blobs" / "sha256" / path.name).stat()
        assert (info.st_mode & 0o777, info.st_nlink, info.st_uid) == (0o444, 1, os.geteuid())


def test_a_blob_that_came_damaged_is_not_kept_but_the_others_are(store: Store, other: Store, tmp_path: Path) -> None:
    """Row 80."""
    made, memory = served(store, tmp_path)
    bad = made.artifact_manifest.packs[-1]

    class Lying(Memory):
        def fetch(self, descriptor: Descriptor) -> Reader:
            if descriptor.digest == bad.digest:
                data = bytes(bad.size)
                return BytesSource(data).fetch(Descriptor.of(data, bad.media_type))
            return memory.fetch(descriptor)

        resolve = memory.resolve

    with pytest.raises(DigestMismatch):
        other.pull(f"{REGISTRY}:one", options=through(Lying()))
    kept = whole_blobs(Path(other.path))
    assert kept
    assert bad.digest.hex not in kept
    assert set(staged(Path(other.path))) == kept | {"lease"}


def test_an_artifact_that_is_wrong_as_a_whole_is_not_kept(store: Store, other: Store, tmp_path: Path) -> None:
    """All of it came as it was meant to: to keep it would help nobody."""
    made = capture(store, tmp_path, "one", 1)
    memory = Memory()
    store.push("one", f"{REGISTRY}:one", options=through(memory))
    raw = made.artifact_manifest.raw.replace(made.artifact_manifest.config.digest.hex.encode(), b"0" * 64)
    config = Descriptor(media_type=spec.MEDIA_CONFIG, digest=Digest("0" * 64), size=made.artifact_manifest.config.size)
    memory._contents[config.digest] = (config, b"")
    memory.tag(memory.put(raw, spec.MEDIA_MANIFEST), "bad")
    with pytest.raises(CorruptContent):
        other.pull(f"{REGISTRY}:bad", options=through(memory))
    document = made.artifact_manifest
    other_config = memory.put(b"{}", spec.MEDIA_CONFIG)
    raw = document.raw.replace(document.config.digest.hex.encode(), other_config.digest.hex.encode())
    raw = raw.replace(f'"size":{document.config.size}'.encode(), b'"size":2')
    memory.tag(memory.put(raw, spec.MEDIA_MANIFEST), "bad")
    other.gc()
    with pytest.raises(CorruptContent):
        other.pull(f"{REGISTRY}:bad", options=through(memory))
    assert leftovers(Path(other.path)) == []


def test_a_capture_that_fails_keeps_nothing(store: Store, tmp_path: Path) -> None:
    def fail() -> None:
        with store.transaction() as change:
            change.add(b"data", "x")
            raise StorageError("full")

    with pytest.raises(StorageError, match="full"):
        fail()
    assert leftovers(Path(store.path)) == []


def test_what_a_living_operation_has_is_not_taken(store: Store, other: Store, tmp_path: Path) -> None:
    made, memory = served(store, tmp_path)
    pack = made.artifact_manifest.packs[0]
    with other.transaction(keep=True) as alive, other.transaction(keep=True) as change:
        alive.push(pack, memory)
        assert not change.exists(pack)
        assert alive.exists(pack)
    assert leftovers(Path(other.path)) == []


def test_several_pulls_at_once_share_what_was_kept(store: Store, tmp_path: Path) -> None:
    made, memory = served(store, tmp_path)
    root = tmp_path / "other"
    with Store.init(root, options=FAST) as other:
        interrupted(other, memory, 5)

    def pull(name: str) -> Digest:
        with Store.open(root, options=FAST) as mine:
            return mine.pull(f"{REGISTRY}:one", name=name, options=through(memory)).digest

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(pull, ["a", "b", "c", "d"])) == {made.digest}
    require_sound(root, contents={name: disk_bytes(*range(1, PACKS + 1)) for name in "abcd"})
    with Store.open(root, options=FAST) as other:
        other.gc()
    assert leftovers(root) == []


@pytest.mark.parametrize("durability", Durability)
def test_what_is_taken_over_is_synced(tmp_path: Path, durability: Durability, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote it may have gone without, or have died before."""
    data = Descriptor.of(b"content", "x")
    dead = Operation(str(tmp_path), Durability.NONE)
    dead.add(b"content", "x")
    dead.close(keep=True)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with Operation(str(tmp_path), durability) as operation:
        assert operation.take_over(data)
        assert not os.path.exists(dead.path)
        assert operation.check(data)
        assert bool(synced) is (durability is Durability.FULL)
        assert operation.digests() == [data.digest]


# --- over a registry --------------------------------------------------------------------------------------------------

PULL = """
import sys
from casstore import Store
from casstore.reference import parse_reference
from casstore.registry import RegistryOptions, RegistryTarget
from casstore.transfer import TransferOptions
def open_registry(reference):
    return RegistryTarget(reference, RegistryOptions(plain_http=True))
with Store.open(sys.argv[1], create=True) as store:
    store.pull(sys.argv[2], options=TransferOptions(open_registry, 2))
"""


def test_a_killed_pull_is_resumed_at_the_blob(store: Store, registry: RegistrySimulator, tmp_path: Path) -> None:
    """Kill -9; the requests are counted at the registry."""
    made = many_packs(store, tmp_path, "one", PACKS)
    place, root = f"{registry.host}/a/b:one", tmp_path / "other"
    store.push("one", place, options=over(registry))
    registry.faults.drip = (20_000, 0.02)
    process = start_python(PULL, root, place)
    try:
        while len(whole_blobs(root)) < 3:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    registry.faults.drip = None
    kept = whole_blobs(root)
    assert 3 <= len(kept) < len(made.needs) - 1
    registry.requests.clear()
    with Store.open(root, options=FAST) as other:
        other.pull(place, options=over(registry))
        fetched = [seen.path.rpartition(":")[2] for seen in registry.seen("GET", "/blobs/")]
        assert sorted(fetched) == sorted({blob.digest.hex for blob in made.artifact_manifest.children} - kept)
        other.gc()
    require_sound(root, contents={"one": disk_bytes(*range(1, PACKS + 1))})
    assert leftovers(root) == []


def test_an_interrupted_pull_ends_soon_and_is_resumed(
    store: Store, registry: RegistrySimulator, tmp_path: Path
) -> None:
    """Ctrl-C while the registry sends so slowly that a whole pull takes half a minute."""
    many_packs(store, tmp_path, "one", PACKS)
    place, root = f"{registry.host}/a/b:one", tmp_path / "other"
    store.push("one", place, options=over(registry))
    registry.faults.drip = (10_000, 1)
    registry.requests.clear()
    process = start_python(PULL, root, place)
    while not registry.seen("GET", "/blobs/"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(0.2)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert time.monotonic() - start < 10
    assert "KeyboardInterrupt" in told
    registry.faults.drip = None
    with Store.open(root, options=FAST) as other:
        assert names(other) == []
        other.pull(place, options=over(registry))
        other.gc()
    require_sound(root, contents={"one": disk_bytes(*range(1, PACKS + 1))})
    assert leftovers(root) == []


def test_a_registry_that_fails_for_good_leaves_what_came(
    store: Store, other: Store, registry: RegistrySimulator, tmp_path: Path
) -> None:
    """Rows 81 and 94: the retries are used up, the last error is told, and the next run goes on."""
    made = many_packs(store, tmp_path, "one", PACKS)
    place = f"{registry.host}/a/b:one"
    store.push("one", place, options=over(registry))
    lost = str(made.artifact_manifest.packs[3].digest)
    data = registry.contents.blobs.pop(("a/b", lost))
    with pytest.raises(CasstoreError, match=lost):
        other.pull(place, options=over(registry, concurrency=1))
    kept = whole_blobs(Path(other.path))
    registry.contents.blobs["a/b", lost] = data
    registry.requests.clear()
    other.pull(place, options=over(registry))
    # A request that the first run gave up may be noted as late as now, for a blob that did not come then.
    asked = {seen.path.rpartition(":")[2] for seen in registry.seen("GET", "/blobs/")}
    assert asked == {digest.hex for digest in made.needs} - {made.digest.hex} - set(kept)
    require_sound(Path(other.path), contents={"one": disk_bytes(*range(1, PACKS + 1))})


def test_a_tag_that_moves_between_two_requests_does_not_mix_snapshots(
    store: Store, other: Store, registry: RegistrySimulator, tmp_path: Path
) -> None:
    """Row 85: what the first answer said is pulled."""
    first = capture(store, tmp_path, "one", 1, 2)
    second = capture(store, tmp_path, "two", 3, 4)
    options = over(registry)
    store.push("two", f"{registry.host}/a/b:moving", options=options)
    store.push("one", f"{registry.host}/a/b:moving", options=options)
    registry.requests.clear()
    registry.faults.retag = str(second.digest)
    assert other.pull(f"{registry.host}/a/b:moving", options=options).digest == first.digest
    require_sound(Path(other.path), contents={"moving": disk_bytes(1, 2)})
    assert [seen.path.rpartition("/")[2] for seen in registry.seen("GET", "/manifests/")] == ["moving"]


def test_a_child_that_the_registry_has_collected_is_named(
    store: Store, other: Store, registry: RegistrySimulator, tmp_path: Path
) -> None:
    """Row 104."""
    made = capture(store, tmp_path, "one", 1, 2)
    place = f"{registry.host}/a/b:one"
    store.push("one", place, options=over(registry))
    lost = str(made.artifact_manifest.packs[0].digest)
    del registry.contents.blobs["a/b", lost]
    with pytest.raises(CasstoreError, match=lost):
        other.pull(place, options=over(registry))
    assert names(other) == []


def test_a_push_that_was_killed_goes_on(store: Store, registry: RegistrySimulator, tmp_path: Path) -> None:
    """Row 100: blobs first, the manifest after them, the tag last; the second run sends no blob again."""
    made = many_packs(store, tmp_path, "one", PACKS)
    place = f"{registry.host}/a/b:one"
    manifests = registry.contents.manifests
    uploads = 0

    class Dying(Exception):
        pass

    class Source:
        """The third blob kills the push."""

        def fetch(self, descriptor: Descriptor) -> Reader:
            nonlocal uploads
            uploads += 1
            if uploads > 3:
                raise Dying
            return store._directory.fetch(descriptor)

    source: Fetcher = Source()
    with RegistryTarget(registry.reference("a/b"), registry.options) as target:
        for blob in made.artifact_manifest.children[:3]:
            target.push(blob, source)
        with pytest.raises(Dying):
            target.push(made.artifact_manifest.children[3], source)
    assert not manifests
    assert not registry.contents.tags
    there = len(registry.contents.blobs)
    assert there == 3
    registry.requests.clear()
    report = store.push("one", place, options=over(registry)).copy
    assert (report.skipped, report.copied) == (there, len(made.needs) - there)
    assert len(registry.seen("POST", "/uploads/")) == len(made.needs) - 1 - there
    order = [seen.path.rpartition("/")[2] for seen in registry.seen("PUT", "/manifests/")]
    assert order == [str(made.digest), "one"]


@pytest.mark.needs("root", "mount", "umount")
def test_a_full_disk_leaves_whole_blobs_only(store: Store, tmp_path: Path) -> None:
    """Row 110, on a small tmpfs."""
    made = many_packs(store, tmp_path, "one", PACKS)
    store.push("one", f"oci:{tmp_path}/layout:one")
    small = tmp_path / "small"
    small.mkdir()
    size = made.stored_bytes // 2 + 200_000
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)], check=True)
    try:
        with Store.open(small / "store", create=True, options=StoreOptions()) as other:
            with pytest.raises(StorageError, match=r"(?i)no space"):
                other.pull(f"oci:{tmp_path}/layout:one")
            assert names(other) == []
            assert blobs(small / "store") == set()
            kept = whole_blobs(small / "store")
            assert kept
            assert set(staged(small / "store")) == kept | {"lease"}
            subprocess.run(["mount", "-o", f"remount,size={4 * made.stored_bytes}", str(small)], check=True)
            report = other.pull(f"oci:{tmp_path}/layout:one").copy
            assert report.skipped == len(kept)
            other.gc()
        require_sound(small / "store", contents={"one": disk_bytes(*range(1, PACKS + 1))})
        assert leftovers(small / "store") == []
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
