"""Mending a store: only right bytes get in, the bad ones are kept, nothing else changes, whenever it is killed."""

from __future__ import annotations

import io
import os
import shutil
import stat
from functools import partial
from pathlib import Path

import pytest

from casstore import Snapshot, Store
from casstore.checking.findings import Kind, Severity
from casstore.checking.rereading import ReadData
from casstore.content import Reader
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import CorruptContent, InvalidReference, NotFound, Unavailable
from casstore.health import check_store, repair_store
from casstore.memory import MemoryTarget
from casstore.oci import Descriptor
from casstore.storedir import StoreOptions
from casstore.transfer import TransferOptions
from tests.support import sweep
from tests.support.command import Casstore
from tests.support.manifests import sign
from tests.support.servers import registry
from tests.support.stores import (
    FAST,
    all_files,
    blob_path,
    capture,
    content,
    disk_bytes,
    flip_byte,
    index_refs,
    link_refs,
    manifest_of,
    write_disk,
)
from tests.support.transfers import REGISTRY, through

ALL = ReadData()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two snapshots, one of which has deltas to the other, and a signature."""
    folder = tmp_path_factory.mktemp("base")
    root = folder / "store"
    with Store.init(root, options=FAST) as store:
        capture(store, folder, "one", 1, 2, 3)
        disk = bytearray(disk_bytes(1, 2, 3))
        disk[70_000:70_010] = b"some bytes"
        (folder / "two.disk").write_bytes(disk)
        Snapshot.builder(folder / "two.disk").name("two").parent("one").create(store)
        manifest = manifest_of(root, "one")
        with store.transaction() as change:
            sign(change, manifest.descriptor)
            change.tag(manifest.descriptor, "one")
        store.push_all(f"oci:{folder / 'layout'}")
    return root


@pytest.fixture
def root(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "store", symlinks=True))


def left(root: Path) -> list[Kind]:
    findings = check_store(root, data=ALL, options=FAST).findings
    return [finding.kind for finding in findings if finding.kind is not Kind.QUARANTINED]


def snapshot_blobs(root: Path, name: str) -> list[Descriptor]:
    manifest = manifest_of(root, name)
    return [manifest.descriptor, *manifest.children]


@pytest.mark.parametrize("source", ["{base}", "oci:{base}", "oci:{layout}", "{layout}"])
def test_a_store_or_layout_as_the_source(base: Path, root: Path, source: str) -> None:
    before = all_files(root)
    for blob in snapshot_blobs(root, "two"):
        flip_byte(blob_path(root, blob.digest))
    report = repair_store(
        root, sources=[source.format(base=base, layout=base.parent / "layout")], data=ALL, options=FAST
    )
    assert report.ok
    assert not report.before.ok
    assert len(report.mended) == 5
    assert report.problems == ()
    assert {name: data for name, data in all_files(root).items() if not name.startswith("quarantine/")} == before
    assert left(root) == []


def test_the_bad_bytes_are_kept_and_gc_leaves_them(base: Path, root: Path) -> None:
    pack = manifest_of(root, "one").packs[0]
    flip_byte(blob_path(root, pack.digest), 99)
    bad = blob_path(root, pack.digest).read_bytes()
    repair_store(root, sources=[str(base)], data=ALL, options=FAST)
    [kept] = (root / "quarantine").iterdir()
    assert kept.name.startswith(f"{pack.digest.hex}@")
    assert kept.read_bytes() == bad
    with Store.open(root, options=FAST) as store:
        store.gc()
    assert kept.read_bytes() == bad
    info = blob_path(root, pack.digest).stat()
    assert (stat.S_IMODE(info.st_mode), info.st_nlink) == (0o444, 1)


def test_without_a_source_what_is_damaged_stays_as_it_is(root: Path) -> None:
    flip_byte(blob_path(root, manifest_of(root, "one").packs[0].digest), 99)
    before = all_files(root)
    report = repair_store(root, data=ALL, options=FAST)
    assert not report.ok
    assert all_files(root) == before


def test_whoever_kept_a_hard_link_to_a_bad_blob_cannot_change_the_good_one(
    base: Path, root: Path, tmp_path: Path
) -> None:
    path = blob_path(root, manifest_of(root, "one").packs[0].digest)
    flip_byte(path, 99)
    os.link(path, tmp_path / "mine")
    repair_store(root, sources=[str(base)], data=ALL, options=FAST)
    (tmp_path / "mine").chmod(0o644)
    (tmp_path / "mine").write_text("changed later")
    assert left(root) == []


def test_a_reader_has_the_file_that_it_opened(base: Path, root: Path) -> None:
    pack = manifest_of(root, "one").packs[0]
    flip_byte(blob_path(root, pack.digest), 99)
    bad = blob_path(root, pack.digest).read_bytes()
    with blob_path(root, pack.digest).open("rb") as reader:
        repair_store(root, sources=[str(base)], data=ALL, options=FAST)
        assert reader.read() == bad
    assert Digest.of(blob_path(root, pack.digest).read_bytes()) == pack.digest


def test_blobs_that_others_may_write_to_are_replaced(root: Path) -> None:
    path = blob_path(root, manifest_of(root, "one").map.digest)
    path.chmod(0o666)
    before = path.read_bytes()
    with path.open("r+b") as writer:
        report = repair_store(root, data=ALL, options=FAST)
        writer.write(b"evil")
    assert [finding.kind for finding in report.mended] == [Kind.LOOSE_PERMISSIONS]
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (before, 0o444)


class Liar(MemoryTarget):
    """Has everything, with one bit changed; `size` too many bytes, and no reader of it checks anything."""

    def __init__(self, base: Path, size: int) -> None:
        super().__init__()
        self._base, self._size = base, size

    def resolve(self, reference: str) -> Descriptor:
        digest = Digest.parse(reference)
        return Descriptor(media_type="x", digest=digest, size=blob_path(self._base, digest).stat().st_size)

    def fetch(self, descriptor: Descriptor) -> Reader:
        data = bytearray(blob_path(self._base, descriptor.digest).read_bytes())
        data[0] ^= 1
        return io.BytesIO(bytes(data) + bytes(self._size))


@pytest.mark.parametrize("more", [0, 1])
def test_a_source_that_lies_brings_nothing_in(base: Path, root: Path, more: int) -> None:
    """Also not the manifest of a lost name, whose size only the source can tell."""
    for blob in snapshot_blobs(root, "one"):
        flip_byte(blob_path(root, blob.digest))
    (root / "refs/two").unlink()
    blob_path(root, manifest_of(base, "two").descriptor.digest).unlink()
    before = all_files(root)
    liar = through(Liar(base, more))
    report = repair_store(root, sources=[REGISTRY], data=ALL, options=FAST, transfer=liar)
    assert not report.ok
    assert any("expected digest" in problem for problem in report.problems)
    assert all_files(root) == before


def test_sources_are_asked_in_their_order_and_one_that_is_down_only_once(base: Path, root: Path) -> None:
    class Down(MemoryTarget):
        asked = 0

        def fetch(self, descriptor: Descriptor) -> Reader:
            Down.asked += 1
            raise Unavailable("no answer")

    for blob in manifest_of(root, "one").children:
        flip_byte(blob_path(root, blob.digest))
    sources = [REGISTRY, str(base)]
    report = repair_store(root, sources=sources, data=ALL, options=FAST, transfer=through(Down()))
    assert report.ok
    assert Down.asked == 1
    assert report.problems == (f"{REGISTRY}: no answer",)


def test_sources_that_are_none(root: Path) -> None:
    for source, error in (("nowhere", InvalidReference), ("./nowhere", CorruptContent), ("oci:/nowhere", NotFound)):
        flip_byte(blob_path(root, manifest_of(root, "two").map.digest))
        with pytest.raises(Exception) as caught:
            repair_store(root, sources=[source], data=ALL, options=FAST)
        assert caught.type is error or source == "./nowhere"
        flip_byte(blob_path(root, manifest_of(root, "two").map.digest))


def test_a_lost_name_comes_back_with_all_that_it_needs(base: Path, root: Path) -> None:
    before, refs = all_files(root), link_refs(root)
    for blob in snapshot_blobs(root, "two"):
        if blob not in snapshot_blobs(root, "one"):
            blob_path(root, blob.digest).unlink()
    (root / "refs/two").unlink()
    report = repair_store(root, data=ALL, options=FAST)
    assert [finding.kind for finding in report.after.findings if finding.severity is Severity.DAMAGE] == [Kind.LOST_REF]
    report = repair_store(root, sources=[str(base)], data=ALL, options=FAST)
    assert Kind.LOST_REF in {finding.kind for finding in report.mended}
    assert link_refs(root) == refs
    assert all_files(root) == before
    assert left(root) == []


def test_a_store_of_which_only_derived_files_are_left(base: Path, root: Path) -> None:
    """index.json and the catalog still know the names, and the source has the rest."""
    before = all_files(root)
    shutil.rmtree(root / "refs")
    shutil.rmtree(root / "blobs")
    (root / "casstore.json").write_text("garbage")
    report = repair_store(root, sources=[str(base)], data=ALL, options=FAST)
    assert report.ok, report.after.findings
    assert {name: data for name, data in all_files(root).items() if not name.startswith("quarantine/")} == before
    with Store.open(root, options=FAST) as store:
        assert content(store, "one") == disk_bytes(1, 2, 3)


def test_a_sound_store_is_left_alone(base: Path, root: Path) -> None:
    before = all_files(root)
    report = repair_store(root, sources=[str(base)], data=ALL, options=FAST)
    assert (report.ok, report.mended, report.problems) == (True, (), ())
    assert all_files(root) == before


def test_the_disk_itself_as_the_source(root: Path, tmp_path: Path) -> None:
    pack = manifest_of(root, "one").packs[0]
    flip_byte(blob_path(root, pack.digest), 99)
    report = repair_store(root, sources=[str(write_disk(tmp_path / "d", 1, 2, 3))], data=ALL, options=FAST)
    assert report.ok, report.problems
    assert Digest.of(blob_path(root, pack.digest).read_bytes()) == pack.digest


KINDS = ("kill", "late", "ENOSPC", "EIO")


@pytest.mark.parametrize("kind", KINDS)
def test_12_a_repair_that_breaks_anywhere_leaves_a_store_that_can_be_repaired(
    base: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    step = 1 if request.config.getoption("--long") else 64
    root = tmp_path / "store"

    def damaged() -> dict[str, str]:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(base, root, symlinks=True)
        for blob in (manifest_of(root, "two").descriptor, manifest_of(root, "one").packs[0]):
            flip_byte(blob_path(root, blob.digest))
        refs = link_refs(root)
        (root / "refs/one").unlink()
        return refs

    def repair_in_child(n: int) -> tuple[int, int]:
        options = StoreOptions(durability=Durability.FULL, wait=5)
        act = partial(repair_store, root, sources=[str(base)], data=ReadData(), options=options, workers=1)
        return sweep.run_broken(root, act, kind if n else "kill", n)

    damaged()
    status, total = repair_in_child(0)
    assert status == 0
    for n in range(1 + KINDS.index(kind) * step // len(KINDS), total + 1, step):
        refs = damaged()
        good = {path.name for path in (base / "blobs/sha256").iterdir()}
        status, _ = repair_in_child(n)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in {sweep.DONE, sweep.FAILED}
        assert {path.name for path in (root / "blobs/sha256").iterdir()} <= good, n
        assert link_refs(root).items() <= refs.items(), n
        assert repair_store(root, sources=[str(base)], data=ALL, options=FAST).ok, n
        assert link_refs(root) == refs, n
        assert set(left(root)) <= {Kind.DEAD_OPERATION, Kind.TEMPORARY}, n
        with Store.open(root, options=FAST) as store:
            store.gc()
        assert left(root) == [], n


@pytest.mark.needs("docker-registry")
def test_a_real_registry_as_the_source(root: Path, tmp_path: Path) -> None:
    from casstore.registry import RegistryTarget

    before = all_files(root)
    folder = tmp_path / "registry"
    folder.mkdir()
    with registry(folder) as server:
        options = TransferOptions(
            registries=lambda reference: RegistryTarget(reference, server.options, server.credentials), referrers=True
        )
        source = str(server.reference("team/disks"))
        with Store.open(root, options=FAST) as store:
            store.push_all(source, options=options)
        for path in sorted((root / "blobs/sha256").iterdir())[::2]:
            flip_byte(path)
        for path in sorted((root / "blobs/sha256").iterdir())[1::2]:
            path.unlink()
        report = repair_store(root, sources=[source], data=ALL, options=FAST, transfer=options)
    assert report.ok, (report.after.findings, report.problems)
    assert {name: data for name, data in all_files(root).items() if not name.startswith("quarantine/")} == before


def test_the_command(casstore: Casstore, base: Path, root: Path) -> None:
    assert casstore.store == root
    flip_byte(blob_path(root, manifest_of(root, "one").packs[0].digest), 50)
    assert "still damaged" in casstore("check", "--read-data", "--repair", code=3).stderr
    document = casstore.json("check", "--read-data", "--repair", "--from", base)
    assert [finding["kind"] for finding in document["repair"]["mended"]] == ["wrong-content"]
    assert casstore.json("check", "--read-data")["ok"]


def test_a_symlink_in_the_place_of_the_quarantine_leads_nowhere(base: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (root / "quarantine").symlink_to(tmp_path / "elsewhere")
    (root / "casstore.json").write_text("garbage")
    flip_byte(blob_path(root, manifest_of(root, "one").packs[0].digest), 99)
    report = repair_store(root, sources=[str(base)], data=ALL, options=FAST)
    assert report.ok
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert len(list((root / "quarantine").iterdir())) == 2


def test_22_what_a_broken_ref_stood_for_is_known_until_it_is_mended(root: Path) -> None:
    """Whoever works with the store meanwhile; and no longer than that."""
    stood_for = link_refs(root)
    two = root / "refs/two"
    two.unlink()
    two.write_text("junk")
    with Store.open(root, options=FAST) as store:
        assert [problem.name for problem in store.problems()] == ["two"]
        store.tag("one", "three")
        store.remove("three")
    shutil.rmtree(root / "trash")
    (root / "catalog.sqlite").unlink()
    assert Kind.STALE_INDEX not in left(root)
    assert repair_store(root, options=FAST).ok
    assert link_refs(root) == stood_for
    two.unlink()
    two.write_text("junk")
    with Store.open(root, options=FAST) as store:
        store.remove("two")
        assert "two" not in index_refs(root)


def test_a_name_that_is_lost_for_good_is_not_called_mended(root: Path) -> None:
    """What is derived may be all that knows of it: a missing marker is no reason to derive it anew."""
    blob_path(root, manifest_of(root, "two").descriptor.digest).unlink()
    for part in ("refs/two", "casstore.json", "oci-layout", "catalog.sqlite"):
        (root / part).unlink()
    done = repair_store(root, options=FAST)
    assert not done.ok
    assert Kind.LOST_REF in {finding.kind for finding in done.after.findings}
    assert Kind.LOST_REF not in {finding.kind for finding in done.mended}
