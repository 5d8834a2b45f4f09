"""The unit tests of microsandbox 0.4.4's snapshots, each by its own name and with its own inputs.

manifest.rs             the snapshot manifest
verify.rs               the integrity of a sparse disk
copy.rs                 a disk's way into a snapshot and back, where microsandbox makes a copy
snapshot_artifact.rs    artifacts and archives, through the Python SDK's face
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from casstore import Snapshot as StoredSnapshot
from casstore import Store, aio
from casstore.aio import MicrosandboxError, Snapshot
from casstore.errors import DocumentError, SourceError
from casstore.manifest import Manifest
from tests.support.disks import allocated
from tests.support.seed import make_artifact
from tests.support.stores import FAST
from tests.test_manifest import sample

SUITES = {
    "manifest.rs": (
        *("round_trip_canonical", "digest_is_deterministic", "digest_changes_on_field_change"),
        *("labels_canonical_order_independent_of_insert_order", "rejects_unknown_schema"),
        *("rejects_invalid_digest_form", "parent_serializes_as_null_when_none", "empty_labels_still_present"),
        *("format_serializes_lowercase", "integrity_can_be_absent", "rejects_missing_integrity_field"),
        *("rejects_legacy_upper_sha256_field", "field_order_is_stable"),
    ),
    "verify.rs": ("sparse_integrity_is_stable_and_detects_data_changes",),
    "copy.rs": (
        *("round_trip_small", "sparse_copy_preserves_holes_and_data", "fast_copy_matches_source_size"),
        *("missing_source_errors", "sparse_copy_is_independent_after_source_and_destination_writes"),
    ),
    "snapshot_artifact.rs": (
        *("open_reads_valid_artifact_metadata", "open_rejects_tampered_upper_size"),
        *("verify_rejects_tampered_upper_contents", "open_rejects_missing_upper_file", "open_rejects_unknown_schema"),
        *("list_dir_skips_non_artifact_directories", "export_then_import_round_trips_via_zstd"),
        *("export_then_import_round_trips_via_plain_tar", "manifest_digest_is_stable_across_processes"),
    ),
}


@pytest.mark.parametrize("name", [name for names in SUITES.values() for name in names])
def test_every_test_of_the_seed_is_here(name: str) -> None:
    assert callable(globals()[f"test_{name}"])


# --- manifest.rs ------------------------------------------------------------------------------------------------------


def parse(raw: bytes) -> Manifest:
    return Manifest.parse(raw, subject="snapshot manifest")


def changed(**fields: object) -> bytes:
    """The sample with other fields, valid or not."""
    return json.dumps({**sample().to_dict(), **fields}, separators=(",", ":")).encode()


def test_round_trip_canonical() -> None:
    assert parse(sample().to_bytes()) == sample()


def test_digest_is_deterministic() -> None:
    first, second = str(sample().id), str(sample().id)
    assert first == second
    assert first.startswith("sha256:")
    assert len(first) == len("sha256:") + 64


def test_digest_changes_on_field_change() -> None:
    assert dataclasses.replace(sample(), created_at="2026-05-01T12:00:01Z").id != sample().id


def test_labels_canonical_order_independent_of_insert_order() -> None:
    one = dataclasses.replace(sample(), labels={"a": "1", "b": "2"})
    other = dataclasses.replace(sample(), labels={"b": "2", "a": "1"})
    assert one.id == other.id


def test_rejects_unknown_schema() -> None:
    with pytest.raises(DocumentError, match="unsupported schema"):
        parse(changed(schema=999))


def test_rejects_invalid_digest_form() -> None:
    with pytest.raises(DocumentError, match="manifest_digest"):
        parse(changed(image={"ref": "docker.io/library/python:3.12", "manifest_digest": "not-a-digest"}))


def test_parent_serializes_as_null_when_none() -> None:
    assert b'"parent":null' in sample().to_bytes()


def test_empty_labels_still_present() -> None:
    assert b'"labels":{}' in dataclasses.replace(sample(), labels={}).to_bytes()


def test_format_serializes_lowercase() -> None:
    assert b'"format":"raw"' in sample().to_bytes()


def test_integrity_can_be_absent() -> None:
    upper = dataclasses.replace(sample().upper, integrity=None)
    raw = dataclasses.replace(sample(), upper=upper).to_bytes()
    assert parse(raw).upper.integrity is None
    assert b'"integrity":null' in raw


def test_rejects_missing_integrity_field() -> None:
    with pytest.raises(DocumentError, match="integrity"):
        parse(changed(upper={"file": "upper.ext4", "size_bytes": 4294967296}))


def test_rejects_legacy_upper_sha256_field() -> None:
    upper = {"file": "upper.ext4", "size_bytes": 4294967296, "sha256": "sha256:" + 64 * "b"}
    with pytest.raises(DocumentError, match="at upper"):
        parse(changed(upper=upper))
    with pytest.raises(DocumentError, match="sha256"):
        parse(changed(upper={**upper, "integrity": None}))


def test_field_order_is_stable() -> None:
    raw = sample().to_bytes()
    places = [raw.index(f'"{field}"'.encode()) for field in ("schema", "format", "upper", "source_sandbox")]
    assert places == sorted(places)


# --- verify.rs and copy.rs --------------------------------------------------------------------------------------------


Copy = Callable[[Path, Path], int]
BLOCK = 64 * 1024
MIB = 1 << 20


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    """Copy a disk by way of a store; returns its size."""
    with Store.open(tmp_path / "store", create=True, options=FAST) as store:

        def by_store(source: Path, destination: Path) -> int:
            made = StoredSnapshot.builder(source).name("copy").force().create(store)
            store.restore("copy", destination, force=True)
            return made.size_bytes

        yield by_store


def make_sparse(path: Path, size: int, *offsets: int) -> None:
    """A disk of `size` bytes with 64 KiB of data at each of `offsets`."""
    with path.open("wb") as out:
        for offset in offsets:
            out.seek(offset)
            out.write(BLOCK * b"\xab")
        out.truncate(size)


def test_sparse_integrity_is_stable_and_detects_data_changes(tmp_path: Path) -> None:
    disk = tmp_path / "upper.ext4"

    def integrity(data: bytes) -> str:
        with disk.open("wb") as out:
            out.seek(8 * MIB)
            out.write(data)
            out.truncate(64 * MIB)
        with Store.open(tmp_path / "store", create=True, options=FAST) as store:
            made = StoredSnapshot.builder(disk).name("copy").force().record_integrity("sparse").create(store)
        recorded = made.manifest.upper.integrity
        assert recorded is not None
        assert recorded.algorithm == "msb-sparse-sha256-v1"
        return recorded.digest

    first = integrity(b"hello")
    assert first == "sha256:4544fdea104218d8a24ecb2aae1249d52fd580c8a1522c8cee8e1443dffc8292"
    assert integrity(b"hello") == first
    assert integrity(b"HELLO") != first


def test_round_trip_small(tmp_path: Path, copy: Copy) -> None:
    source, destination = tmp_path / "src.bin", tmp_path / "dst.bin"
    source.write_bytes(b"hello world")
    assert copy(source, destination) == 11
    assert destination.read_bytes() == b"hello world"


def test_sparse_copy_preserves_holes_and_data(tmp_path: Path, copy: Copy) -> None:
    source, destination = tmp_path / "src.bin", tmp_path / "dst.bin"
    offsets = (0, 4 * MIB, 8 * MIB, 12 * MIB)
    make_sparse(source, 16 * MIB, *offsets)
    assert copy(source, destination) == 16 * MIB
    assert destination.stat().st_size == 16 * MIB
    data = destination.read_bytes()
    assert all(data[offset : offset + BLOCK] == BLOCK * b"\xab" for offset in offsets)
    assert allocated(source) < 8 * MIB
    assert allocated(destination) <= allocated(source)


def test_fast_copy_matches_source_size(tmp_path: Path, copy: Copy) -> None:
    source, destination = tmp_path / "src.bin", tmp_path / "dst.bin"
    make_sparse(source, 4 * MIB, 0, 2 * MIB)
    assert copy(source, destination) == 4 * MIB
    assert destination.stat().st_size == 4 * MIB


def test_missing_source_errors(tmp_path: Path, copy: Copy) -> None:
    with pytest.raises(SourceError, match=r"No such file|not found|no such"):
        copy(tmp_path / "nope.bin", tmp_path / "dst.bin")
    assert not (tmp_path / "dst.bin").exists()


def test_sparse_copy_is_independent_after_source_and_destination_writes(tmp_path: Path, copy: Copy) -> None:
    source, destination = tmp_path / "src.bin", tmp_path / "dst.bin"
    make_sparse(source, 4 * MIB, 0, 2 * MIB)
    copy(source, destination)
    copied = destination.read_bytes()
    source.write_bytes(4 * MIB * b"\xcd")
    assert destination.read_bytes() == copied
    destination.write_bytes(4 * MIB * b"\xef")
    assert source.read_bytes() == 4 * MIB * b"\xcd"


# --- snapshot_artifact.rs ---------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _place(tmp_path: Path) -> Iterator[None]:
    with aio.use(tmp_path / "aio-store", home=tmp_path / "home"):
        yield


def test_open_reads_valid_artifact_metadata(tmp_path: Path) -> None:
    folder, digest = make_artifact(tmp_path, "snap-a", b"upper data goes here")
    assert digest == "sha256:c107b8d3b6c945ff6e4f25124c4d40398389ee3e706eaa9010022323e50845d2"

    async def script() -> None:
        snapshot = await Snapshot.open(str(folder))
        assert snapshot.digest == digest
        assert snapshot.path == str(folder)
        assert snapshot.size_bytes == len(b"upper data goes here")

    asyncio.run(script())


def test_open_rejects_tampered_upper_size(tmp_path: Path) -> None:
    folder, _ = make_artifact(tmp_path, "snap-tamper", b"original")
    (folder / "upper.ext4").write_bytes(b"TAMPERED-LONGER")

    async def script() -> None:
        with pytest.raises(MicrosandboxError, match=r"integrity.*size"):
            await Snapshot.open(str(folder))

    asyncio.run(script())


def test_verify_rejects_tampered_upper_contents(tmp_path: Path) -> None:
    folder, _ = make_artifact(tmp_path, "snap-tamper-content", b"original", integrity=True)
    (folder / "upper.ext4").write_bytes(b"tampered")

    async def script() -> None:
        snapshot = await Snapshot.open(str(folder))  # looks at the size only
        with pytest.raises(MicrosandboxError, match="digest mismatch"):
            await snapshot.verify()

    asyncio.run(script())


def test_open_rejects_missing_upper_file(tmp_path: Path) -> None:
    folder, _ = make_artifact(tmp_path, "snap-missing", b"x")
    (folder / "upper.ext4").unlink()

    async def script() -> None:
        with pytest.raises(MicrosandboxError, match="integrity"):
            await Snapshot.open(str(folder))

    asyncio.run(script())


def test_open_rejects_unknown_schema(tmp_path: Path) -> None:
    folder, _ = make_artifact(tmp_path, "bad", b"data", schema=42)

    async def script() -> None:
        with pytest.raises(MicrosandboxError, match="schema"):
            await Snapshot.open(str(folder))

    asyncio.run(script())


def test_list_dir_skips_non_artifact_directories(tmp_path: Path) -> None:
    make_artifact(tmp_path, "good", b"hello")
    (tmp_path / "not-a-snapshot").mkdir()

    async def script() -> None:
        found = await Snapshot.list_dir(tmp_path)
        assert [Path(snapshot.path).name for snapshot in found] == ["good"]

    asyncio.run(script())


def test_export_then_import_round_trips_via_zstd(tmp_path: Path) -> None:
    folder, digest = make_artifact(tmp_path, "src-snap", b"the upper bytes")
    archive, dest = tmp_path / "bundle.tar.zst", tmp_path / "imported"

    async def script() -> None:
        await Snapshot.export(str(folder), archive)
        assert archive.stat().st_size > 0
        handle = await Snapshot.import_(archive, dest=dest)
        assert handle.digest == digest
        imported = await Snapshot.open(handle.path)
        assert imported.digest == digest
        assert Path(handle.path).parent == dest

    asyncio.run(script())
    assert [path.read_bytes() for path in dest.glob("*/upper.ext4")] == [b"the upper bytes"]


def test_export_then_import_round_trips_via_plain_tar(tmp_path: Path) -> None:
    folder, digest = make_artifact(tmp_path, "src-plain", b"plain tar bytes")
    archive = tmp_path / "bundle.tar"

    async def script() -> None:
        await Snapshot.export(str(folder), archive, plain_tar=True)
        handle = await Snapshot.import_(archive, dest=tmp_path / "imported-plain")
        assert handle.digest == digest

    asyncio.run(script())


def test_manifest_digest_is_stable_across_processes(tmp_path: Path) -> None:
    one, digest = make_artifact(tmp_path, "a", b"same upper")
    other, _ = make_artifact(tmp_path / "elsewhere", "a", b"same upper")

    async def script() -> None:
        assert (await Snapshot.open(str(one))).digest == digest
        assert (await Snapshot.open(str(other))).digest == digest

    asyncio.run(script())
    assert digest == "sha256:f0b0789baffaf42e937e171f2c039a021827c105eabdad5afe2c44d33754e7d6"
