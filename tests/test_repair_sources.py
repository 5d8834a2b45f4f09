"""Where a repair's good bytes come from: what one source gives may let another one give more, and each is told of."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from casstore import Snapshot, Store
from casstore.checking.rereading import ReadData
from casstore.errors import InvalidReference
from casstore.health import RepairReport, repair_store
from casstore.memory import MemoryTarget
from casstore.progress import ProgressEvent
from casstore.reference import RegistryReference
from casstore.transfer import TransferOptions
from tests.support.command import Casstore
from tests.support.stores import FAST, blob_path, disk_bytes, flip_byte, manifest_of, write_disk
from tests.support.transfers import REGISTRY

ALL = ReadData()


def make(folder: Path, seed: int) -> Path:
    """A store of two snapshots; the second has a delta to a chunk of the first, which its own disk has not."""
    root = folder / f"store{seed}"
    disk = bytearray(disk_bytes(seed, 2, 3))
    with Store.init(root, options=FAST) as store:
        (folder / "one.disk").write_bytes(disk)
        Snapshot.builder(folder / "one.disk").name("one").create(store)
        disk[70_000:70_010] = b"some bytes"
        (folder / "two.disk").write_bytes(disk)
        Snapshot.builder(folder / "two.disk").name("two").parent("one").create(store)
    return root


def packs(root: Path) -> tuple[str, str]:
    """The pack of one, and the other one of two."""
    one = manifest_of(root, "one").packs
    [own] = set(manifest_of(root, "two").packs) - set(one)
    return one[0].digest.hex, own.digest.hex


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In this one, the pack with the delta comes before the one with its base."""
    folder = tmp_path_factory.mktemp("base")
    made = (make(folder, seed) for seed in itertools.count(10))
    return next(root for root in made if packs(root)[1] < packs(root)[0])


@pytest.fixture
def root(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "store", symlinks=True))


def gave(report: RepairReport) -> list[int]:
    return [source.blobs for source in report.sources]


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
@pytest.mark.parametrize("lost", [True, False])
def test_what_was_mended_lets_more_be_mended(base: Path, root: Path, order: tuple[str, str], *, lost: bool) -> None:
    for hex_ in packs(root):
        if lost:
            blob_path(root, hex_).unlink()
        else:
            flip_byte(blob_path(root, hex_), 99)
    sources = [str(base.parent / f"{name}.disk") for name in order]
    report = repair_store(root, sources=sources, data=ALL, options=FAST)
    assert report.ok, report.sources
    assert sum(gave(report)) == 2
    assert sum(source.bytes for source in report.sources) == sum(
        blob_path(root, hex_).stat().st_size for hex_ in packs(root)
    )


def test_each_source_is_accounted_for(base: Path, root: Path, tmp_path: Path) -> None:
    for hex_ in packs(root):
        flip_byte(blob_path(root, hex_), 99)

    @contextmanager
    def nowhere(_: RegistryReference) -> Iterator[MemoryTarget]:
        yield MemoryTarget()

    wrong = write_disk(tmp_path / "wrong.disk", 7, 8, 9)
    sources = [str(root), f"oci:{root}", str(wrong), REGISTRY, str(base), str(base)]
    report = repair_store(root, sources=sources, data=ALL, options=FAST, transfer=TransferOptions(registries=nowhere))
    assert report.ok
    assert gave(report) == [0, 0, 0, 0, 2, 0]
    why = [source.problem for source in report.sources]
    assert why[0] == why[1] == "it is the store itself"
    assert why[2] == "it has none of the 2 blobs that are wanted: it is not the disk of a snapshot here that needs one"
    assert (
        why[3]
        == "it has none of the 2 blobs that are wanted; it has no tags at all, as a repository that does not exist"
    )
    assert why[4:] == [None, "nothing was wanted of it"]


def test_a_source_that_has_others_than_those_that_are_wanted(root: Path, tmp_path: Path) -> None:
    with Store.init(tmp_path / "other", options=FAST) as store:
        Snapshot.builder(write_disk(tmp_path / "disk", 5)).name("five").create(store)
    blob_path(root, packs(root)[0]).unlink()
    [source] = repair_store(root, sources=[str(tmp_path / "other")], data=ALL, options=FAST).sources
    assert (source.blobs, source.problem) == (0, "it does not have the blob that is wanted")


def test_the_disk_of_a_document_says_that_it_is_none(base: Path, root: Path) -> None:
    blob_path(root, manifest_of(root, "two").map.digest).unlink()
    [source] = repair_store(root, sources=[str(base.parent / "two.disk")], data=ALL, options=FAST).sources
    assert "expected a pack of a snapshot that can be read" in str(source.problem)


def test_a_repair_tells_how_far_it_is(base: Path, root: Path) -> None:
    size = 0
    for hex_ in packs(root):
        size += blob_path(root, hex_).stat().st_size
        flip_byte(blob_path(root, hex_))
    events: list[ProgressEvent] = []
    repair_store(root, sources=[str(base)], data=ALL, options=FAST, progress=events.append)
    assert [event.done for event in events if event.phase == "repairing"][-1] == size
    blob_path(root, packs(root)[0]).unlink()
    repair_store(root, sources=[str(base.parent / "one.disk")], data=ALL, options=FAST, progress=events.append)
    assert any(event.phase == "reading the disk" and event.done for event in events)


def test_the_command_says_it_line_by_line(casstore: Casstore, base: Path, root: Path) -> None:
    assert casstore.store == root
    for hex_ in packs(root):
        flip_byte(blob_path(root, hex_))
    arguments = ("check", "--read-data", "--repair", "--from", root, "--from", base)
    lines = casstore(*arguments).stderr.splitlines()
    assert f"from {root}: nothing: it is the store itself" in lines
    assert any(line.startswith(f"from {base}: 2 blobs, ") for line in lines)
    assert lines[-1] == "sound"
    given = casstore.json(*arguments)["repair"]["sources"]
    assert [source["problem"] for source in given] == ["it is the store itself", "nothing was wanted of it"]


def test_what_is_neither_a_reference_nor_a_path(casstore: Casstore, root: Path) -> None:
    with pytest.raises(
        InvalidReference, match=r"no registry host in it.*there is no file or directory 'nothere' either"
    ):
        repair_store(root, sources=["nothere"], options=FAST)
    result = casstore("check", "--repair", "--from", code=2)
    assert result.stderr.endswith("Try: casstore check --help\n")
