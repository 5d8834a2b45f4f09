"""The store's public face: opening, creating, selecting, naming, removing, restoring."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from casstore import Snapshot, SnapshotConfig, SnapshotDestination, Store, storedir
from casstore.blobs import is_plain_directory
from casstore.config import DiskInput, SnapshotBuilder
from casstore.errors import (
    AlreadyExists,
    CasstoreError,
    CorruptContent,
    DigestMismatch,
    DocumentError,
    HasChildren,
    InvalidDigest,
    NotFound,
    SourceError,
    StorageError,
    UnsupportedVersion,
    UsageError,
)
from casstore.layout import LayoutTarget
from casstore.manifest import SCRATCH, SnapshotFormat
from casstore.names import parse_name
from tests.support import disks
from tests.support.stores import (
    FAST,
    all_files,
    blob_path,
    blobs,
    capture,
    content,
    disk_bytes,
    flip_byte,
    index_refs,
    names,
    python,
    require_sound,
    start_python,
    write_disk,
)


def root_of(store: Store) -> Path:
    return Path(store.path)


# --- opening ----------------------------------------------------------------------------------------------------------


def test_a_missing_store_is_not_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no store"):
        Store.open(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "store").mkdir()
    with pytest.raises(NotFound):
        Store.open(tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


def test_init_makes_a_store_and_opens_the_one_that_is_there(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "store"
    with Store.init(root, options=FAST) as store:
        assert (store.path, store.read_only) == (str(root), False)
        assert store.list() == []
        capture(store, tmp_path, "one", 1)
    with Store.init(root, options=FAST) as store:
        assert names(store) == ["one"]
    assert json.loads((root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    features: dict[str, list[str]] = {"compatible": [], "readOnlyCompatible": [], "incompatible": []}
    assert json.loads((root / "casstore.json").read_bytes()) == {"version": 1, "features": features}
    for path in (root / "blobs/sha256").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_a_plain_layout_is_no_store(tmp_path: Path) -> None:
    LayoutTarget(str(tmp_path / "layout"), create=True)
    with pytest.raises(NotFound):
        Store.open(tmp_path / "layout")
    before = all_files(tmp_path)
    with pytest.raises(AlreadyExists, match="plain OCI layout"):
        Store.init(tmp_path / "layout")
    assert all_files(tmp_path) == before


def test_a_directory_of_other_files_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(AlreadyExists, match="other files"):
        Store.init(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(StorageError):
        Store.init(tmp_path / "notes.txt")


def test_a_store_whose_making_was_interrupted_is_finished(tmp_path: Path) -> None:
    (tmp_path / "store/refs").mkdir(parents=True)
    with pytest.raises(NotFound):
        Store.open(tmp_path / "store")
    with Store.init(tmp_path / "store", options=FAST) as store:
        capture(store, tmp_path, "one", 1)
    require_sound(tmp_path / "store")


def test_many_processes_can_make_one_store_at_once(tmp_path: Path) -> None:
    code = """
import os, sys, time
from casstore import Store
while time.time() < float(sys.argv[2]):
    pass
for n in range(30):
    Store.init(f"{sys.argv[1]}/{n}").close()
"""
    start = (datetime.now(UTC) + timedelta(seconds=1)).timestamp()
    processes = [start_python(code, tmp_path, str(start)) for _ in range(4)]
    for process in processes:
        assert process.communicate(timeout=60) == ("", "")
    for n in range(30):
        require_sound(tmp_path / str(n))


@pytest.mark.parametrize("asked", range(6))
def test_a_store_that_another_process_makes_meanwhile_is_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    """Whatever this one has seen before: it was made after the answer to the nth question."""
    answers: list[bool] = []

    def looked(path: str) -> bool:
        answers.append(is_plain_directory(path))
        if len(answers) == asked + 1:
            Store.init(tmp_path / "store", options=FAST).close()
        return answers[-1]

    monkeypatch.setattr(storedir, "is_plain_directory", looked)
    Store.init(tmp_path / "store", options=FAST).close()
    assert len(answers) > asked
    require_sound(tmp_path / "store")


MARKERS: dict[str, tuple[str, type[CasstoreError], str]] = {
    '{"version":2,"features":{"compatible":[],"readOnlyCompatible":[],"incompatible":[]}}': (
        "casstore.json", UnsupportedVersion, "expected store format 1, got 2"),
    '{"version":2,"shape":"of things to come"}': ("casstore.json", UnsupportedVersion, "newer casstore"),
    '{"version":1,"features":{"compatible":[],"readOnlyCompatible":[],"incompatible":["x"]}}': (
        "casstore.json", UnsupportedVersion, "'x'"),
    '{"version":1,"features":{"compatible":[]}}': ("casstore.json", DocumentError, "features"),
    '{"version":0,"features":{"compatible":[],"readOnlyCompatible":[],"incompatible":[]}}': (
        "casstore.json", DocumentError, "version"),
    '{"version":true,"features":{"compatible":[],"readOnlyCompatible":[],"incompatible":[]}}': (
        "casstore.json", DocumentError, "version"),
    "": ("casstore.json", DocumentError, "casstore.json"),
    "[]": ("casstore.json", DocumentError, "casstore.json"),
    '{"imageLayoutVersion":"1.1.0"}': ("oci-layout", DocumentError, "imageLayoutVersion"),
    '{"imageLayoutVersion":1}': ("oci-layout", DocumentError, "imageLayoutVersion"),
    '{"imageLayoutVersion":"1.0.0"': ("oci-layout", DocumentError, "oci-layout"),
}  # fmt: skip


@pytest.mark.parametrize("marker", MARKERS)
def test_a_marker_that_is_wrong_is_an_error_and_changes_nothing(store: Store, tmp_path: Path, marker: str) -> None:
    file, error, text = MARKERS[marker]
    capture(store, tmp_path, "one", 1)
    (root_of(store) / file).write_text(marker)
    before = all_files(tmp_path)
    for create in (False, True):
        with pytest.raises(error, match=text):
            Store.open(store.path, create=create)
    assert all_files(tmp_path) == before


def test_unknown_flags_that_do_not_concern_readers_let_them_read(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    marker = root_of(store) / "casstore.json"
    for flag, read_only in (("compatible", False), ("readOnlyCompatible", True)):
        features = {"compatible": [], "readOnlyCompatible": [], "incompatible": [], flag: ["sparkles"]}
        marker.write_text(json.dumps({"version": 1, "features": features}))
        with Store.open(store.path, options=FAST) as again:
            assert again.read_only == read_only
            assert content(again, "one") == disk_bytes(1)
            if read_only:
                before = all_files(tmp_path)
                with pytest.raises(StorageError, match="read-only"):
                    again.remove("one")
                with pytest.raises(StorageError, match="read-only"):
                    again.tag("one", "two")
                with pytest.raises(StorageError, match="read-only"):
                    again.gc()
                assert all_files(tmp_path) == before


@pytest.mark.parametrize("lost", ["oci-layout", "casstore.json", "index.json", "catalog.sqlite", "tmp", "trash", "all"])
def test_what_is_derived_is_made_again(store: Store, tmp_path: Path, lost: str) -> None:
    """Rows 25, 28: refs/ and blobs/ alone are a complete store."""
    capture(store, tmp_path, "one", 1)
    capture(store, tmp_path, "two", 2)
    store.remove("two")
    before = {path: data for path, data in all_files(root_of(store)).items() if not path.startswith(("trash", "cache"))}
    store.close()
    for path in root_of(store).iterdir():
        if path.name == lost or (lost == "all" and path.name not in {"refs", "blobs"}):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    require_sound(root_of(store), contents={"one": disk_bytes(1)})
    after = {path: data for path, data in all_files(root_of(store)).items() if not path.startswith(("trash", "cache"))}
    assert after == before


def test_an_oci_layout_marker_with_more_in_it_is_accepted(store: Store) -> None:
    (root_of(store) / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0","x":[1]}')
    Store.open(store.path).close()


READ_ONLY = """
import os, sys, tempfile
from casstore import Store, Snapshot
from casstore.errors import StorageError

# Whom this process becomes may not be able to read Python's modules, so all are imported first: by doing it all once.
with tempfile.TemporaryDirectory() as folder, Store.init(folder + "/store") as store:
    Snapshot.builder(sys.argv[3]).name("one").create(store)
    store.push("one", f"oci:{folder}/layout:one")
    store.pull(f"oci:{folder}/layout:one", name="two")
    store.verify("two"), store.restore("two", f"{folder}/disk"), store.gc()
if sys.argv[2] != "root":
    os.setgid(65534), os.setuid(65534)
with Store.open(sys.argv[1]) as store:
    assert store.read_only
    assert [handle.name for handle in store.list()] == ["one"]
    assert store.verify("one").chunks
    parts = []
    store.open_snapshot("one").restore_to(parts.append)
    assert sum(map(len, parts)) == 65536
    assert store.problems() == [] and store.foreign() == [] and store.lineage("one") == []
    actions = [
        lambda: store.remove("one"), lambda: store.tag("one", "two"),
        lambda: store.gc(), lambda: store.reindex(),
        lambda: Snapshot.builder(sys.argv[3]).name("two").create(store),
        lambda: store.pull(f"oci:{sys.argv[1]}:one", name="three"),
    ]
    for action in actions:
        try:
            action()
        except StorageError as error:
            assert "read-only" in str(error), error
        else:
            raise AssertionError(action)
    store.push("one", f"oci:{sys.argv[4]}:pushed")
    assert not store.gc(dry_run=True).removed
"""


@pytest.mark.needs("root")
def test_somebody_elses_store_can_be_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Rows 7 and 8."""
    top = Path("/tmp") / tmp_path_factory.mktemp("other").name  # where others may look
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir(mode=0o755)
    try:
        with Store.init(top / "store", options=FAST) as store:
            capture(store, top, "one", 1)
        assert stat.S_IMODE((top / "store").stat().st_mode) == 0o700  # private, until its owner says otherwise
        (top / "store").chmod(0o755)
        (top / "one.disk").chmod(0o644)
        (top / "out").mkdir()
        (top / "out").chmod(0o777)
        before = all_files(top / "store")
        done = python(READ_ONLY, top / "store", "nobody", top / "one.disk", top / "out/layout", check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert all_files(top / "store") == before
    finally:
        shutil.rmtree(top)


@pytest.mark.needs("root", "mount")
def test_a_store_on_a_read_only_file_system_can_be_read(store: Store, tmp_path: Path) -> None:
    """Row 7."""
    capture(store, tmp_path, "one", 1)
    for path in ("catalog.sqlite", "lock", "gate.lock", "refs.lock"):
        (root_of(store) / path).unlink()
    before = all_files(root_of(store))
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "--bind", store.path, mounted], check=True)
    try:
        remount = ["mount", "-o", "remount,bind,ro", str(mounted)]
        if subprocess.run(remount, check=False, capture_output=True).returncode:
            pytest.skip("no read-only bind mounts here")
        done = python(READ_ONLY, mounted, "root", tmp_path / "one.disk", tmp_path / "layout", check=False)
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        subprocess.run(["umount", mounted], check=True)
    assert all_files(root_of(store)) == before


# --- creating ---------------------------------------------------------------------------------------------------------


def test_everything_that_was_said_is_recorded(store: Store, tmp_path: Path) -> None:
    base = capture(store, tmp_path, "base", 1, 2)
    before = datetime.now(UTC)
    made = (
        Snapshot.builder(write_disk(tmp_path / "disk", 1, 2, 0, 3))
        .name("made")
        .label("k", "v")
        .labels({"k": "last", "a": "1"})
        .labels([("b", "2")])
        .record_integrity("sha256")
        .image("docker.io/library/alpine", f"sha256:{'1' * 64}")
        .parent("base")
        .source_sandbox("box")
        .create(store)
    )
    handle = store.get("made")
    opened = store.open_snapshot("made")
    for each in (made, handle, opened):
        assert (each.digest, each.id) == (made.digest, made.id)
        assert each.labels == {"k": "last", "a": "1", "b": "2"}
        assert each.image_ref == "docker.io/library/alpine"
        assert each.format is SnapshotFormat.RAW
        assert each.size_bytes == 4 * 65536
        assert each.stored_bytes == made.stored_bytes
        assert each.path == str(root_of(store) / "refs/made")
    assert made.names == opened.names == ("made",)
    assert (made.parent, handle.parent_digest) == (str(base.id), str(base.id))
    assert made.image_manifest_digest == f"sha256:{'1' * 64}"
    assert (made.fstype, made.source_sandbox) == ("unknown", "box")
    assert made.manifest == handle.manifest == opened.manifest
    assert handle.created_at is not None
    assert before <= handle.created_at <= datetime.now(UTC)
    assert handle.created_at == datetime.fromisoformat(made.created_at)
    assert made.manifest.upper.integrity is not None
    annotations = json.loads(blob_path(root_of(store), made.digest).read_bytes())["annotations"]
    assert annotations["org.opencontainers.image.base.digest"] == f"sha256:{'1' * 64}"
    assert handle.open().digest == made.digest
    assert handle.unique_bytes < handle.stored_bytes
    handle.remove()
    assert names(store) == ["base"]


def test_the_builder_wants_a_destination_and_only_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="destination"):
        SnapshotBuilder(tmp_path / "disk").build()
    with pytest.raises(UsageError, match="either"):
        SnapshotDestination()
    with pytest.raises(UsageError, match="either"):
        SnapshotDestination(name="a", path="b")
    built = Snapshot.builder("disk").name("a").path("b").build()
    assert (built.destination.name, built.destination.path) == (None, "b")
    assert (built.image, built.force, built.record_integrity) == (SCRATCH, False, None)


@pytest.mark.parametrize("source", [DiskInput(), DiskInput(path="x", fd=1)])
def test_a_disk_is_a_path_or_a_descriptor(store: Store, source: DiskInput) -> None:
    with pytest.raises(UsageError, match="either"):
        store.create(SnapshotConfig(source=source, destination=SnapshotDestination(name="a")))


def test_a_disk_can_come_through_a_pipe(store: Store, tmp_path: Path) -> None:
    write_disk(tmp_path / "disk", 1, 0, 2)
    with (tmp_path / "disk").open("rb") as file:
        fd = os.dup(file.fileno())
        made = Snapshot.builder(DiskInput(fd=fd)).name("piped").create(store)
    assert made.size_bytes == 3 * 65536
    assert content(store, "piped") == disk_bytes(1, 0, 2)


def nothing_staged(store: Store) -> bool:
    return not any(name.startswith("op-") for name in os.listdir(root_of(store) / "tmp"))


def test_a_taken_name_is_refused_before_the_disk_is_read(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    progress: list[Any] = []
    with pytest.raises(AlreadyExists, match="force"):
        store.create(Snapshot.builder(tmp_path / "one.disk").name("one").build(), progress=progress.append)
    assert progress == []
    assert content(store, "one") == disk_bytes(1)


def test_a_name_that_is_taken_meanwhile_is_refused_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    disk = write_disk(tmp_path / "disk", 2)
    with Store.open(store.path, options=FAST) as rival:
        capture(rival, tmp_path, "rival", 3)

        def take(_: object) -> None:
            if "one" not in names(rival):
                rival.tag("rival", "one")

        with pytest.raises(AlreadyExists):
            store.create(Snapshot.builder(disk).name("one").build(), progress=take)
    assert content(store, "one") == disk_bytes(3)
    assert nothing_staged(store)
    require_sound(root_of(store))


def test_force_replaces_a_name_and_the_old_snapshot_keeps_its_others(store: Store, tmp_path: Path) -> None:
    old = capture(store, tmp_path, "one", 1)
    store.tag("one", "kept")
    inodes = set()
    new = capture(store, tmp_path, "one", 2, force=True)
    inodes.add((root_of(store) / "refs/one").lstat().st_ino)
    assert store.get("one").digest == new.digest != old.digest
    assert store.get("kept").digest == old.digest
    require_sound(root_of(store), contents={"one": disk_bytes(2), "kept": disk_bytes(1)})


def test_the_same_disk_again_adds_documents_only(store: Store, tmp_path: Path) -> None:
    first = capture(store, tmp_path, "one", 1, 2, 0, 3)
    before = blobs(root_of(store))
    second = capture(store, tmp_path, "two", 1, 2, 0, 3)
    assert second.cost is not None
    assert second.cost.stats.new_chunks == second.cost.stats.new_stored == 0
    assert second.artifact_manifest.layers == first.artifact_manifest.layers
    added = blobs(root_of(store)) - before
    assert added == {second.digest.hex, second.id.hex}
    assert second.cost.stats.allocated == 3 * 65536
    assert first.digest != second.digest  # created at another time


def test_a_source_that_cannot_be_read_leaves_nothing(store: Store, tmp_path: Path) -> None:
    for source in (tmp_path / "missing", tmp_path):
        with pytest.raises(SourceError):
            Snapshot.builder(source).name("one").create(store)
    assert blobs(root_of(store)) == set()
    assert names(store) == []


def test_a_disk_that_changes_while_it_is_read_is_no_snapshot(store: Store, tmp_path: Path) -> None:
    disk = write_disk(tmp_path / "disk", *range(1, 40))

    def change(_: object) -> None:
        with disk.open("r+b") as file:
            file.write(b"x")

    with pytest.raises(SourceError, match="changed"):
        store.create(Snapshot.builder(disk).name("one").build(), progress=change)
    assert names(store) == []
    assert nothing_staged(store)
    assert blobs(root_of(store)) == set()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda b: b.record_integrity("md5"), UsageError),
        (lambda b: b.parent("nobody"), NotFound),
        (lambda b: b.name("no/name"), UsageError),
    ],
)
def test_wrong_wishes_are_refused_and_leave_nothing(store: Store, tmp_path: Path, change: Any, error: Any) -> None:
    disk = write_disk(tmp_path / "disk", 1)
    with pytest.raises(error):
        change(Snapshot.builder(disk).name("one")).create(store)
    assert names(store) == []
    assert blobs(root_of(store)) == set()


# --- into a directory of its own --------------------------------------------------------------------------------------


def test_a_snapshot_at_a_path_is_a_layout_of_its_own(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "base", 1, 2)
    place = tmp_path / "places" / "one"
    made = Snapshot.builder(write_disk(tmp_path / "disk", 1, 2, 3)).path(place).parent("base").create(store)
    assert (made.path, made.names) == (str(place), ("latest",))
    assert made.parent == str(store.get("base").id)
    assert names(store) == ["base"]
    files = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    assert files == {"oci-layout", "index.json", *(f"blobs/sha256/{digest.hex}" for digest in made.needs)}
    shutil.rmtree(store.path)
    assert made.verify().chunks > 0
    made.restore(tmp_path / "restored")
    assert (tmp_path / "restored").read_bytes() == disk_bytes(1, 2, 3)
    assert os.listdir(tmp_path / "places") == ["one"]
    [listed] = Store.list_dir(tmp_path / "places")
    assert (listed.path, listed.digest) == (str(place), made.digest)
    with Store.init(tmp_path / "new", options=FAST) as other:
        other.pull(f"oci:{place}:latest", name="one")
        assert content(other, "one") == disk_bytes(1, 2, 3)


def test_a_path_that_is_taken_needs_force(store: Store, tmp_path: Path) -> None:
    place = tmp_path / "one"
    first = Snapshot.builder(write_disk(tmp_path / "disk", 1)).path(place)
    first.create(store)
    before = all_files(place)
    with pytest.raises(AlreadyExists):
        first.create(store)
    assert all_files(place) == before
    write_disk(tmp_path / "disk", 2)
    made = first.force().create(store)
    assert LayoutTarget(str(place)).resolve("latest").digest == made.digest
    assert len(blobs(place)) == len(made.needs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "one", "store"]


def test_force_never_replaces_a_directory_of_other_files(store: Store, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").touch()
    builder = Snapshot.builder(write_disk(tmp_path / "disk", 1)).path(tmp_path / "home").force()
    with pytest.raises(AlreadyExists, match="got something else"):
        builder.create(store)
    assert (tmp_path / "home/thesis.tex").exists()
    (tmp_path / "home/thesis.tex").unlink()
    builder.create(store)
    assert (tmp_path / "home/oci-layout").exists()


def test_a_failure_while_creating_at_a_path_leaves_nothing(store: Store, tmp_path: Path) -> None:
    disk = write_disk(tmp_path / "disk", *range(1, 20))
    (tmp_path / "out").mkdir()

    def change(_: object) -> None:
        os.utime(disk)

    with pytest.raises(SourceError):
        store.create(Snapshot.builder(disk).path(tmp_path / "out/one").build(), progress=change)
    assert os.listdir(tmp_path / "out") == []


def test_a_kill_while_creating_at_a_path_leaves_nothing_of_its_name(store: Store, tmp_path: Path) -> None:
    write_disk(tmp_path / "disk", *range(1, 40))
    (tmp_path / "out").mkdir()
    code = """
import os, signal, sys
from casstore import Snapshot, Store
store = Store.open(sys.argv[1])
config = Snapshot.builder(sys.argv[2]).path(sys.argv[3]).build()
store.create(config, progress=lambda _: os.kill(os.getpid(), signal.SIGKILL))
"""
    assert python(code, store.path, tmp_path / "disk", tmp_path / "out/one", check=False).returncode == -9
    assert not (tmp_path / "out/one").exists()
    assert all(name.startswith(".one.") for name in os.listdir(tmp_path / "out"))
    assert Store.list_dir(tmp_path / "out") == []
    Snapshot.builder(tmp_path / "disk").path(tmp_path / "out/one").create(store).verify()


# --- selecting --------------------------------------------------------------------------------------------------------


def test_names_digests_ids_and_prefixes_select(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    capture(store, tmp_path, "two", 2)
    store.tag("one", "also")
    for selector in ("one", str(made.digest), str(made.id), str(made.digest)[:13], str(made.id)[:13], "also"):
        assert store.get(selector).digest == made.digest
        assert store.open_snapshot(selector).digest == made.digest
        assert store.entry(selector).digest == made.digest
    assert store.get("also").name == "also"
    assert store.open_snapshot("also").names == ("also", "one")
    assert store.open_snapshot(str(made.id)).names == ("also", "one")


@pytest.mark.parametrize(
    "selector", ["sha256:12345", "sha256:", "sha256:ABCDEF", "sha256:xyzxyz", "sha256:" + "0" * 65]
)
def test_what_is_no_prefix_is_refused(store: Store, selector: str) -> None:
    with pytest.raises(InvalidDigest, match="6 to 64"):
        store.get(selector)


def test_what_is_not_there_is_not_found(store: Store) -> None:
    for selector in ("nobody", "sha256:000000", f"sha256:{'0' * 64}"):
        for act in (store.get, store.open_snapshot, store.entry, store.lineage, store.remove, store.verify):
            with pytest.raises(NotFound, match=selector):
                act(selector)


def test_a_prefix_of_several_is_refused_with_their_digests(store: Store, tmp_path: Path) -> None:
    made = [capture(store, tmp_path, f"n{n}", n) for n in range(1, 5)]
    with pytest.MonkeyPatch.context() as patch:  # six equal digits need millions of snapshots
        patch.setattr(store._catalog, "find", lambda _: sorted(one.digest for one in made[:2]))
        with pytest.raises(UsageError, match="expected one, got 2") as caught:
            store.get("sha256:abcdef")
    assert all(str(one.digest) in str(caught.value) for one in made[:2])
    assert store._catalog.find("") == sorted(one.digest for one in made)


def make_twin(store: Store, tmp_path: Path, name: str, of: str, *pieces: int, check: bool = True) -> Snapshot:
    """Another artifact with the same snapshot manifest: without recorded integrity that does not cover the content."""
    other = capture(store, tmp_path, "scaffold", *pieces, force=True)
    config = store.open_snapshot(of).artifact_manifest.config
    manifest = type(other.artifact_manifest).build(
        config=config, layers=other.artifact_manifest.layers, annotations=other.artifact_manifest.annotations
    )
    from casstore.streams import BytesSource

    with store.transaction() as change:
        change.push(manifest.descriptor, BytesSource(manifest.raw))
        if check:
            change.tag(manifest.descriptor, name)
        else:
            change.commit(parse_name(name), manifest.descriptor)
    store.remove("scaffold", force=True)
    return store.open_snapshot(name)


def test_an_id_of_several_artifacts_is_ambiguous(store: Store, tmp_path: Path) -> None:
    one = capture(store, tmp_path, "one", 1)
    two = make_twin(store, tmp_path, "two", "one", 2)
    assert one.id == two.id
    assert one.digest != two.digest
    assert content(store, "two") == disk_bytes(2)
    with pytest.raises(UsageError, match="expected one, got 2") as caught:
        store.get(str(one.id))
    assert str(one.digest) in str(caught.value)
    assert str(two.digest) in str(caught.value)
    assert store.get(str(two.digest)).name == "two"
    child = capture(store, tmp_path, "child", 3, parent="two")
    assert child.parent == str(one.id)
    store.remove("one")  # its twin still stands for the id
    with pytest.raises(HasChildren):
        store.remove("two")
    store.remove("two", force=True)
    assert store.lineage("child") == [str(one.id)]


# --- listing ----------------------------------------------------------------------------------------------------------


def test_the_newest_is_first_and_labels_filter(store: Store, tmp_path: Path) -> None:
    disk = write_disk(tmp_path / "disk", 1)
    Snapshot.builder(disk).name("one").label("team", "a").label("keep", "yes").create(store)
    Snapshot.builder(disk).name("two").label("team", "b").create(store)
    Snapshot.builder(disk).name("three").create(store)
    store.tag("one", "alias")
    wanted: list[tuple[dict[str, str | None] | None, list[str]]] = [
        (None, ["three", "two", "alias", "one"]),
        ({}, ["three", "two", "alias", "one"]),
        ({"team": None}, ["two", "alias", "one"]),
        ({"team": "a"}, ["alias", "one"]),
        ({"team": "a", "keep": None}, ["alias", "one"]),
        ({"team": "b", "keep": None}, []),
        ({"nobody": None}, []),
    ]
    for labels, expected in wanted:
        assert [handle.name for handle in store.list(labels)] == expected


def test_lineage_goes_back_to_the_first_that_is_not_here(store: Store, tmp_path: Path) -> None:
    ids = []
    for n in range(1, 5):
        made = capture(store, tmp_path, f"n{n}", n, parent=f"n{n - 1}" if n > 1 else None)
        ids.append(made.id)
    line = store.lineage("n4")
    assert [entry.id for entry in line if not isinstance(entry, str)] == [ids[2], ids[1], ids[0]]
    assert store.lineage("n1") == []
    store.remove("n2", force=True)
    nearest, missing = store.lineage("n4")
    assert not isinstance(nearest, str)
    assert (nearest.id, missing) == (ids[2], str(ids[1]))


def test_list_dir_finds_stores_and_layouts_and_reports_the_rest(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    with Store.init(top / "store", options=FAST) as store:
        one = capture(store, tmp_path, "one", 1)
        capture(store, tmp_path, "two", 2)
        (top / "store/refs/bad").symlink_to("/etc/passwd")
        at = Snapshot.builder(tmp_path / "one.disk").path(top / "layout").create(store)
        gone = capture(store, tmp_path, "gone", 3)
    blob_path(top / "store", gone.id).unlink()
    (top / "other").mkdir()
    (top / "file").touch()
    (top / "broken").mkdir()
    (top / "broken/oci-layout").write_text("{")
    before = all_files(tmp_path)
    reported: dict[str, CasstoreError] = {}
    found = Store.list_dir(top, report=reported.__setitem__)
    assert [(each.path, each.names) for each in found] == [
        (str(top / "layout"), ("latest",)),
        (str(top / "store/refs/one"), ("one",)),
        (str(top / "store/refs/two"), ("two",)),
    ]
    assert found[0].digest == at.digest
    assert found[1].digest == one.digest
    assert [Path(path.partition(" ")[0]).name for path in reported] == ["broken", "bad", "gone"]
    assert all(isinstance(error, CasstoreError) for error in reported.values())
    assert all_files(tmp_path) == before
    assert len(Store.list_dir(top)) == 3
    assert Store.list_dir(tmp_path / "missing") == []
    with pytest.raises(StorageError):
        Store.list_dir(top / "file")


# --- names ------------------------------------------------------------------------------------------------------------


def test_tagging_the_same_again_is_no_error(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    capture(store, tmp_path, "two", 2)
    store.tag("one", "name")
    before = all_files(root_of(store))
    store.tag("one", "name")
    assert all_files(root_of(store)) == before
    with pytest.raises(AlreadyExists):
        store.tag("two", "name")
    assert all_files(root_of(store)) == before
    store.tag("two", "name", force=True)
    assert store.get("name").digest == store.get("two").digest
    assert index_refs(root_of(store))["name"] == str(store.get("two").digest)


def test_a_snapshot_with_a_missing_blob_gets_no_more_names(store: Store, tmp_path: Path) -> None:
    """Invariant 2: a name stands for something complete."""
    made = capture(store, tmp_path, "one", 1)
    blob_path(root_of(store), made.artifact_manifest.packs[0].digest).unlink()
    with pytest.raises(NotFound, match=made.artifact_manifest.packs[0].digest.hex):
        store.tag("one", "two")
    assert sorted(os.listdir(root_of(store) / "refs")) == ["one"]


def test_removing_tells_what_is_left(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    store.tag("one", "two")
    store.tag("one", "three")
    removed = store.remove("two")
    assert (removed.digest, removed.names, removed.remaining) == (made.digest, ("two",), ("one", "three"))
    removed = store.remove(str(made.id))
    assert (sorted(removed.names), removed.remaining) == (["one", "three"], ())
    assert names(store) == []
    assert index_refs(root_of(store)) == {}
    with pytest.raises(NotFound):
        store.remove("one")


def test_the_last_name_of_a_parent_stays_unless_forced(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "parent", 1)
    store.tag("parent", "alias")
    capture(store, tmp_path, "child", 1, 2, parent="parent")
    store.remove("alias")
    before = all_files(root_of(store))
    for selector in ("parent", str(store.get("parent").digest)):
        with pytest.raises(HasChildren, match="child in the store"):
            store.remove(selector)
    assert all_files(root_of(store)) == before
    store.remove("parent", force=True)
    store.gc()
    require_sound(root_of(store), contents={"child": disk_bytes(1, 2)})


def test_a_name_that_moved_meanwhile_is_not_removed_with_its_old_digest(store: Store, tmp_path: Path) -> None:
    """`rm sha256:...` looks its names up while nobody can change them."""
    old = capture(store, tmp_path, "one", 1)
    store.tag("one", "two")
    with Store.open(store.path, options=FAST) as rival:
        capture(rival, tmp_path, "new", 2)
        changing = store._directory.changing_refs

        with pytest.MonkeyPatch.context() as patch:

            def late(_: object) -> Any:
                patch.undo()
                rival.tag("new", "two", force=True)
                return changing()

            patch.setattr(type(store._directory), "changing_refs", late)
            assert store.remove(str(old.digest)).names == ("one",)
    assert names(store) == ["new", "two"]


def test_reindex_counts_snapshots_here_and_elsewhere(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    store.tag("one", "alias")
    with Store.init(tmp_path / "other", options=FAST) as other:
        for n in range(1, 4):
            capture(other, tmp_path, f"n{n}", n)
    assert store.reindex() == 1
    assert store.reindex(store.path) == 1
    assert store.reindex(tmp_path / "other") == 3
    with pytest.raises(NotFound):
        store.reindex(tmp_path / "missing")


# --- verifying --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["sha256", "sparse", "sparse-zero", "blake3-merkle"])
def test_verify_says_which_integrity_held(store: Store, tmp_path: Path, spelling: str) -> None:
    disk = write_disk(tmp_path / "disk", 1, 0, 0, 2)
    made = Snapshot.builder(disk).name("one").record_integrity(spelling).create(store)
    report = store.verify("one", workers=1)
    assert (report.upper.kind, report.upper.meaning) == ("verified", spelling)
    recorded = made.manifest.upper.integrity
    assert recorded is not None
    assert (report.upper.algorithm, report.upper.digest) == (recorded.algorithm, recorded.digest)
    assert (recorded.algorithm == "msb-sparse-sha256-v1") == spelling.startswith("sparse")
    assert report.blobs == len(made.needs)
    assert report.blob_bytes == made.stored_bytes
    assert report.chunks >= 2


def test_verify_without_recorded_integrity_says_so(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    assert store.verify("one").upper.kind == "not_recorded"


def test_a_recorded_integrity_that_does_not_hold_is_an_error(store: Store, tmp_path: Path) -> None:
    Snapshot.builder(write_disk(tmp_path / "disk", 1)).name("one").record_integrity("sha256").create(store)
    with pytest.raises(DigestMismatch, match="upper digest mismatch"):
        make_twin(store, tmp_path, "refused", "one", 2)
    make_twin(store, tmp_path, "forged", "one", 3, check=False)
    with pytest.raises(DigestMismatch, match="upper digest mismatch"):
        store.verify("forged")
    store.verify("one")


def test_a_digest_of_the_allocation_that_does_not_hold_is_unverifiable(store: Store, tmp_path: Path) -> None:
    """It may have been of other holes; the chunks prove the content."""
    Snapshot.builder(write_disk(tmp_path / "disk", 1)).name("one").record_integrity("sparse").create(store)
    make_twin(store, tmp_path, "two", "one", 2)
    upper = store.verify("two").upper
    assert (upper.kind, upper.algorithm, upper.meaning) == ("unverifiable", "msb-sparse-sha256-v1", None)
    assert upper.reason
    assert store.verify("one").upper.kind == "verified"


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "remove", "link"])
@pytest.mark.parametrize("part", ["manifest", "config", "map", "pack"])
def test_any_damage_is_found_and_nothing_is_restored(store: Store, tmp_path: Path, part: str, damage: str) -> None:
    """Rows 16 to 20."""
    made = capture(store, tmp_path, "one", 1, 2)
    capture(store, tmp_path, "good", 7)
    document = made.artifact_manifest
    digest = {"manifest": made.digest, "config": document.config.digest, "map": document.map.digest}
    path = blob_path(root_of(store), digest.get(part, document.layers[1].digest))
    data = path.read_bytes()
    path.chmod(0o644)
    match damage:
        case "flip":
            flip_byte(path, len(data) // 2)
        case "cut":
            path.write_bytes(data[:-1])
        case "grow":
            path.write_bytes(data + b"\0")
        case "remove":
            path.unlink()
        case "link":
            path.rename(tmp_path / "blob")
            path.symlink_to(tmp_path / "blob")
    target = tmp_path / "target"
    target.write_text("precious")
    with Store.open(store.path, options=FAST) as again:
        with pytest.raises((CorruptContent, NotFound)):
            again.verify("one")
        with pytest.raises((CorruptContent, NotFound)):
            again.restore("one", target, force=True)
        with pytest.raises((CorruptContent, NotFound)):
            again.restore("one", f"{tmp_path}/directory/")
        assert target.read_text() == "precious"
        assert not (tmp_path / "directory/disk.raw").exists()
        assert not (tmp_path / "directory/manifest.json").exists()
        again.verify("good")
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


# --- restoring --------------------------------------------------------------------------------------------------------


def test_a_restored_file_is_the_disk_with_its_holes(store: Store, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disks.random_sparse_file(disk, seed=5)
    Snapshot.builder(disk).name("one").create(store)
    assert store.restore("one", tmp_path / "out") == str(tmp_path / "out")
    assert disks.same_bytes(disk, tmp_path / "out")
    assert disks.extents(disk) == disks.extents(tmp_path / "out")


@pytest.mark.parametrize("form", ["existing", "slash"])
def test_a_restored_directory_is_what_microsandbox_keeps(store: Store, tmp_path: Path, form: str) -> None:
    made = capture(store, tmp_path, "one", 1, 2)
    place = tmp_path / "place"
    if form == "existing":
        place.mkdir()
    assert store.restore("one", f"{place}/" if form == "slash" else place) == str(place / "disk.raw")
    assert sorted(os.listdir(place)) == ["disk.raw", "manifest.json"]
    assert (place / "disk.raw").read_bytes() == disk_bytes(1, 2)
    assert (place / "manifest.json").read_bytes() == made.manifest.to_bytes()


@pytest.mark.parametrize("taken", ["disk.raw", "manifest.json"])
def test_restoring_never_overwrites_unless_forced(store: Store, tmp_path: Path, taken: str) -> None:
    """Row 49."""
    capture(store, tmp_path, "one", 1)
    place = tmp_path / "place"
    place.mkdir()
    (place / taken).write_text("precious")
    with pytest.raises(AlreadyExists, match=taken):
        store.restore("one", place)
    assert os.listdir(place) == [taken]
    with pytest.raises(AlreadyExists):
        store.restore("one", place / taken)
    assert (place / taken).read_text() == "precious"
    store.restore("one", place, force=True)
    assert (place / "disk.raw").read_bytes() == disk_bytes(1)


def test_restoring_does_not_write_through_a_symlink(store: Store, tmp_path: Path) -> None:
    """Row 49."""
    capture(store, tmp_path, "one", 1)
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "link").symlink_to("victim")
    with pytest.raises(AlreadyExists):
        store.restore("one", tmp_path / "link")
    store.restore("one", tmp_path / "link", force=True)
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_bytes() == disk_bytes(1)


def test_a_disk_cannot_have_the_name_of_the_manifest_beside_it(store: Store, tmp_path: Path) -> None:
    """Else restoring to a directory would put one over the other."""
    disk = write_disk(tmp_path / "disk", 1)
    destination = SnapshotDestination(name="one")
    with pytest.raises(UsageError, match=r"manifest\.json"):
        store.create(SnapshotConfig(source=DiskInput(str(disk)), destination=destination, disk_name="manifest.json"))


def test_python_finds_no_store_functions_that_print(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.list()
    store.gc()
    assert capsys.readouterr() == ("", "")
    assert sys.stdout is not None
