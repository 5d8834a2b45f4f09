"""Snapshots are looked into where they are: in a store that gc works on, in a layout, in a registry that nobody trusts.

Only what is looked at is fetched, and nothing but the manifest where the signatures are not the wanted ones.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from casstore import Snapshot, Store
from casstore.cli.connection import Connection
from casstore.cli.env import Settings
from casstore.cli.opening import open_any, tell_traffic
from casstore.cli.session import Session
from casstore.diskmap import SnapshotMap
from casstore.errors import (
    CorruptContent,
    DigestMismatch,
    NotFound,
    NotOffered,
    UnreadableFilesystem,
    UntrustedContent,
    UsageError,
)
from casstore.filesystem.bounds import Bounds
from casstore.manifest import SnapshotFormat
from casstore.opened import Opened, Traffic, open_remote
from casstore.sign import Signing
from casstore.spec import KIB, MIB
from casstore.trust.policy import Policy
from casstore.trust.trust import Trust
from tests.support.command import Casstore
from tests.support.filesystems import make_image, write_files
from tests.support.registry_simulator import RegistrySimulator
from tests.support.signing import key
from tests.support.stores import FAST, capture, disk_bytes
from tests.support.transfers import Memory, over, through

FILES = {
    "etc/hostname": b"sandbox\n",
    "large": random.Random(1).randbytes(5 * MIB),
    **{f"home/{n}/notes": b"note %d\n" % n for n in range(30)},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with `files`, an ext4 disk; `again`, the same after an edit, and `plain`, which has no file system."""
    folder = tmp_path_factory.mktemp("source")
    tree = write_files(folder / "tree", FILES)
    with Store.open(folder / "store", create=True, options=FAST) as store:
        for name, size in (("files", 64 * MIB), ("again", 64 * MIB)):
            Snapshot.builder(make_image(folder / f"{name}.ext4", tree, size=size)).name(name).create(store)
            (tree / "etc/hostname").write_bytes(b"another\n")
        capture(store, folder, "plain", 1, 2, 3)
        yield store


@pytest.fixture(scope="module")
def filled(source: Store) -> Iterator[RegistrySimulator]:
    with RegistrySimulator() as simulator:
        for name in ("files", "again", "plain"):
            source.push(name, f"{simulator.host}/team/disks:{name}", options=over(simulator))
        yield simulator


@pytest.fixture
def registry(filled: RegistrySimulator) -> RegistrySimulator:
    filled.requests.clear()
    return filled


def read(opened: Opened, path: bytes) -> bytes:
    files = opened.filesystem()
    node = files.find(path)
    return files.read(node, 0, node.size)


def require_files(opened: Opened) -> None:
    assert read(opened, b"/large") == FILES["large"]
    assert read(opened, b"/home/7/notes") == b"note 7\n"


# --- in a store -------------------------------------------------------------------------------------------------------


def test_a_snapshot_of_a_store_is_looked_into_by_any_selector(source: Store) -> None:
    snapshot = source.open_snapshot("files")
    for selector in ("files", str(snapshot.digest), str(snapshot.id), f"sha256:{snapshot.digest.hex[:12]}"):
        with source.look_into(selector) as opened:
            assert (opened.subject, opened.digest) == ("files", snapshot.digest)
            assert opened.stored_bytes == snapshot.stored_bytes
            require_files(opened)
            assert (opened.elsewhere, opened.traffic) == (False, Traffic(0, 0))
    with source.look_into("plain") as opened:
        disk = opened.disk()
        assert disk.read_at(0, disk.size) == disk_bytes(1, 2, 3)
    with pytest.raises(NotFound), source.look_into("nothing"):
        pass


def test_gc_in_another_process_takes_nothing_that_is_looked_into(tmp_path: Path) -> None:
    casstore = Casstore(tmp_path)
    with Store.open(casstore.store, create=True, options=FAST) as store:
        capture(store, tmp_path, "gone", 1, 2, 3)
        with store.look_into("gone") as opened:
            casstore.process("remove", "gone")
            casstore.process("gc")
            disk = opened.disk()
            assert disk.read_at(5, disk.size - 5) == disk_bytes(1, 2, 3)[5:]
        casstore.process("gc")
        with pytest.raises(NotFound):
            opened.artifact.frames.read(0, 0, 8)


def test_keys_that_are_named_count_in_a_store_too(source: Store) -> None:
    trust = Trust(keys=(key("alice").public,))
    with (
        pytest.raises(UntrustedContent, match="from the store: expected a signature by"),
        source.look_into("plain", trust),
    ):
        pass
    source.sign("plain", Signing(keys=(key("alice"),)))
    with source.look_into("plain", trust) as opened:
        assert opened.disk().read_at(0, 10) == disk_bytes(1)[:10]


# --- what cannot be looked into ---------------------------------------------------------------------------------------


def test_a_disk_without_ext4_has_no_files(source: Store) -> None:
    with source.look_into("plain") as opened, pytest.raises(UnreadableFilesystem, match="plain: expected ext2, ext3"):
        opened.filesystem()


def test_a_chain_or_a_disk_that_is_not_raw_is_refused(source: Store) -> None:
    artifact = source.open_snapshot("files").artifact()
    disks = artifact.map.disks
    artifact.map = SnapshotMap(artifact.map.packs, (*disks, *disks))
    with pytest.raises(UnreadableFilesystem, match="x: expected a disk of one file, got a chain of 2; restore it"):
        Opened("x", artifact).disk()
    artifact = source.open_snapshot("files").artifact()
    artifact.config = replace(artifact.config, format=SnapshotFormat.QCOW2)
    with pytest.raises(UnreadableFilesystem, match="x: expected a raw disk, got one of format qcow2; restore it"):
        Opened("x", artifact).filesystem()


def test_bounds_hold_for_what_is_stored(source: Store) -> None:
    with source.look_into("files") as opened:
        files = opened.filesystem(Bounds(read_bytes=100 * KIB))
        with pytest.raises(UnreadableFilesystem, match="expected at most 102400 bytes to read"):
            files.read(files.find(b"/large"), 0, MIB)


def test_what_is_a_hole_of_the_disk_may_not_be_read_without_end(tmp_path: Path) -> None:
    """Files may claim that they have content where the disk has holes, which cost nothing to store."""
    image = make_image(tmp_path / "image", write_files(tmp_path / "tree", {"a": b"a"}), size=16 * MIB)
    os.truncate(image, 12 << 40)
    with Store.open(tmp_path / "store", create=True, options=FAST) as store:
        Snapshot.builder(image).name("large").create(store)
        with store.look_into("large") as opened:
            assert opened.filesystem()._budget.bounds.read_bytes < 9 << 40


# --- elsewhere --------------------------------------------------------------------------------------------------------


def test_of_a_snapshot_in_a_registry_only_what_is_looked_at_is_fetched(
    source: Store, registry: RegistrySimulator
) -> None:
    place = f"{registry.host}/team/disks"
    with open_remote(f"{place}:files", over(registry)) as opened:
        assert opened.subject == f"{place}@{source.open_snapshot('files').digest}"
        assert [request.path.rpartition("/")[2] for request in registry.seen("GET", "/blobs/")] == [
            str(opened.artifact.manifest.config.digest),
            str(opened.artifact.manifest.map.digest),
        ]
        assert opened.elsewhere
        documents = opened.traffic
        assert documents.requests == len(registry.requests)
        assert read(opened, b"/etc/hostname") == b"sandbox\n"
        small = opened.traffic
        assert documents.bytes < small.bytes < opened.stored_bytes / 5
        assert read(opened, b"/large") == FILES["large"]
        large = opened.traffic
        assert 5 * MIB < large.bytes < opened.stored_bytes + 20 * KIB
        assert large.requests < 30
        read(opened, b"/etc/hostname")
        read(opened, b"/large")
        assert opened.traffic == large, "what was fetched is remembered"
        assert large.requests == len(registry.requests)


def test_a_disk_in_a_registry_is_read_at_any_offset(registry: RegistrySimulator) -> None:
    with open_remote(f"{registry.host}/team/disks:plain", over(registry)) as opened:
        disk, content = opened.disk(), disk_bytes(1, 2, 3)
        rng = random.Random(1)
        for _ in range(50):
            offset = rng.randrange(len(content))
            length = rng.choice([0, 1, 5000, 100_000])
            length = min(length, len(content) - offset)
            assert disk.read_at(offset, length) == content[offset : offset + length]


def test_a_pinned_digest_is_what_is_opened(source: Store, registry: RegistrySimulator) -> None:
    digest, place = source.open_snapshot("again").digest, f"{registry.host}/team/disks"
    with open_remote(f"{place}@{digest}", over(registry)) as opened:
        assert read(opened, b"/etc/hostname") == b"another\n"
    with open_remote(f"{place}:again@{digest}", over(registry)) as opened:
        assert opened.digest == digest
    with pytest.raises(UsageError, match="expected a tag or digest"), open_remote(place, over(registry)):
        pass
    with pytest.raises(NotFound), open_remote(f"{place}:nothing", over(registry)):
        pass


def test_layouts_and_stores_are_looked_into(source: Store, tmp_path: Path) -> None:
    source.push("files", f"oci:{tmp_path}/layout:tag")
    digest = source.open_snapshot("files").digest
    for place in (f"oci:{tmp_path}/layout:tag", f"oci:{tmp_path}/layout@{digest}", f"oci:{source.path}:files"):
        with open_remote(place, stores=FAST) as opened:
            assert opened.digest == digest
            assert opened.subject.endswith(f"@{digest}")
            require_files(opened)
            assert (opened.elsewhere, opened.traffic) == (False, Traffic(0, 0))


def test_gc_takes_nothing_of_another_store_that_is_looked_into(tmp_path: Path) -> None:
    casstore = Casstore(tmp_path)
    with Store.open(casstore.store, create=True, options=FAST) as store:
        capture(store, tmp_path, "gone", 1, 2, 3)
    with open_remote(f"oci:{casstore.store}:gone", stores=FAST) as opened:
        casstore("remove", "gone")
        casstore("gc")
        assert opened.disk().read_at(5, 10) == disk_bytes(1)[5:15]


def test_a_place_without_parts_is_refused(source: Store) -> None:
    class Whole(Memory):
        read_range = None  # type: ignore[assignment]

    memory = Whole()
    source.push("plain", "registry.example/disks:plain", options=through(memory))
    with (
        pytest.raises(NotOffered, match="parts of content cannot be read there; pull it"),
        open_remote("registry.example/disks:plain", through(memory)),
    ):
        pass


def test_damage_on_the_way_is_refused(source: Store, registry: RegistrySimulator) -> None:
    place = f"{registry.host}/team/disks:plain"
    with open_remote(place, over(registry)) as opened:
        for (repository, digest), data in list(registry.contents.blobs.items()):
            if digest == str(opened.artifact.manifest.packs[0].digest):
                registry.contents.blobs[repository, digest] = data[:100] + bytes([data[100] ^ 1]) + data[101:]
                with pytest.raises(CorruptContent):
                    opened.disk().read_at(0, 10)
                registry.contents.blobs[repository, digest] = data


def test_a_manifest_that_is_not_what_was_pinned_is_refused(registry: RegistrySimulator) -> None:
    place = f"{registry.host}/team/disks@sha256:{'0' * 64}"
    with pytest.raises((NotFound, DigestMismatch)), open_remote(place, over(registry)):
        pass


# --- trust ------------------------------------------------------------------------------------------------------------


def policy(host: str, text: str) -> Trust:
    rule = f'version = 1\ndefault = "accept"\n[[rules]]\nscope = "{host}/team"\n{text}\n'
    return Trust(policy=Policy.parse(rule.encode(), subject="policy", read_key=lambda _: b""))


def refused(registry: RegistrySimulator, trust: Trust) -> None:
    with (
        pytest.raises(UntrustedContent, match="nothing was taken"),
        open_remote(f"{registry.host}/team/disks:files", over(registry, trust=trust)),
    ):
        pass
    assert registry.seen("GET", "/blobs/") == []
    assert len(registry.seen("GET", "/manifests/files")) == 1


def test_what_is_not_signed_is_refused_with_nothing_but_its_manifest_fetched(registry: RegistrySimulator) -> None:
    refused(registry, Trust(keys=(key("alice").public,)))


def test_what_the_policy_refuses_is_refused(registry: RegistrySimulator, tmp_path: Path) -> None:
    refused(registry, policy(registry.host, 'require = "refuse"'))


def test_what_is_signed_is_looked_into(source: Store, registry: RegistrySimulator) -> None:
    place = f"{registry.host}/team/signed"
    source.push("files", f"{place}:files", signing=Signing(keys=(key("alice"),)), options=over(registry))
    trust = Trust(keys=(key("alice").public,))
    with open_remote(f"{place}:files", over(registry, trust=trust)) as opened:
        require_files(opened)
    with (
        pytest.raises(UntrustedContent),
        open_remote(f"{place}:files", over(registry, trust=Trust(keys=(key("mallory").public,)))),
    ):
        pass


def test_a_tag_that_must_not_be_led_back_is_not_looked_into(
    source: Store, registry: RegistrySimulator, tmp_path: Path
) -> None:
    place = f"{registry.host}/team/led-back:now"
    options = over(registry, trust=policy(registry.host, 'require = "unsigned"\nno_rollback = true'))
    session = Session(settings=replace(Settings.read(), store=str(tmp_path / "store")))
    connection = Connection(plain_http=True)
    source.push("files", place, options=options)
    with pytest.raises(UsageError, match="without a store"), open_any(session, place, connection, options.trust):
        pass
    assert not (tmp_path / "store").exists()
    with Store.open(tmp_path / "store", create=True, options=FAST) as store:
        store.pull(place, name="files", options=options)
        source.push("again", place, options=options)
        store.pull(place, name="again", options=options)
        old = store.get("files").digest
    with open_any(session, place, connection, options.trust):
        pass
    source.push("files", place, options=options)
    with pytest.raises(UntrustedContent, match="led back"), open_any(session, place, connection, options.trust):
        pass
    with open_any(session, f"{place}@{old}", connection, options.trust):  # a digest is what it is
        pass


# --- on the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def session(source: Store, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    return Session(settings=replace(Settings.read(), store=source.path))


def test_the_store_or_a_reference_is_opened(
    session: Session, registry: RegistrySimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = Connection(plain_http=True)
    with open_any(session, "files", connection, None) as opened:
        require_files(opened)
        tell_traffic(session, opened)
    assert capsys.readouterr() == ("", "")
    with open_any(session, f"{registry.host}/team/disks:plain", connection, None) as opened:
        opened.disk().read_at(0, 10)
        tell_traffic(session, opened)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "fetched 19" in err
    assert " KiB in 5 requests, of 19" in err
    assert err.endswith(" KiB stored\n")
    session.quiet = True
    with open_any(session, f"{registry.host}/team/disks:plain", connection, None) as opened:
        tell_traffic(session, opened)
    assert capsys.readouterr() == ("", "")


def test_trust_holds_on_the_command_line(session: Session, registry: RegistrySimulator) -> None:
    trust, connection = Trust(keys=(key("bob").public,)), Connection(plain_http=True)
    for wanted in (f"{registry.host}/team/disks:files", "files"):
        with pytest.raises(UntrustedContent), open_any(session, wanted, connection, trust):
            pass
    assert registry.seen("GET", "/blobs/") == []
    with open_any(session, "files", connection, policy(registry.host, 'require = "refuse"')) as opened:
        require_files(opened)
    with (
        pytest.raises(UntrustedContent),
        open_any(session, f"{registry.host}/team/disks:files", connection, policy(registry.host, 'require = "refuse"')),
    ):
        pass
