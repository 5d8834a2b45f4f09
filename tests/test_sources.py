"""What is remembered of sources, and when a capture may do without reading: every condition that forbids it."""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore import Snapshot, Store, durable, sources, stamps
from casstore.artifact import Artifact
from casstore.config import DiskInput
from casstore.content import RangeReader
from casstore.digest import Digest
from casstore.disk import DiskSource, Stamp
from casstore.errors import StorageError
from casstore.names import SnapshotName
from casstore.oci import Descriptor
from casstore.sources import SETTLED_NS, Sighting, SourceRecord, Sources
from casstore.spec import BLOCK, MIB
from casstore.transaction import Transaction
from tests.support.command import Casstore
from tests.support.disks import extents, file_system, tmpfs
from tests.support.stores import FAST, blob_path, content, python, require_sound

STAMP = Stamp(device=1, inode=2, size=3, mtime_ns=4 * SETTLED_NS, ctime_ns=5 * SETTLED_NS)
SEEN = Sighting("/disk", STAMP, started_ns=6 * SETTLED_NS, at_rest=True, boot="a boot")
ARTIFACT = Digest("1f" * 32)

_integers = st.integers(-(2**63), 2**64 - 1)
_texts = st.text(st.characters(codec="utf-8"), max_size=60)
_stamps = st.builds(Stamp, *[_integers] * 5)
_digests = st.binary(min_size=32, max_size=32).map(lambda raw: Digest(raw.hex()))
records = st.builds(SourceRecord, st.builds(Sighting, _texts, _stamps, _integers, st.booleans(), _texts), _digests)


# --- the records -----------------------------------------------------------------------------------------------------


@given(records)
def test_record_is_read_as_it_was_written(record: SourceRecord) -> None:
    assert sources._parse(sources._to_bytes(record)) == record


def test_the_last_record_of_a_path_counts(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    known = Sources(str(tmp_path / "store/cache"))
    path = tmp_path / "disk"
    assert known.last(path) is None
    record = SourceRecord(replace(SEEN, path=str(path)), ARTIFACT)
    known.remember(SourceRecord(record.seen, Digest("ff" * 32)))
    known.remember(record)
    known.remember(SourceRecord(replace(SEEN, path=f"{path}2"), Digest("ff" * 32)))
    assert known.last(path) == record
    os.symlink(path, tmp_path / "link")
    assert known.last(tmp_path / "link") == record
    assert len(list((tmp_path / "store/cache/sources").iterdir())) == 2


def only_record(folder: Path) -> Path:
    (path,) = (folder / "cache/sources").iterdir()
    return path


@contextmanager
def remembered() -> Iterator[tuple[Path, Sources, SourceRecord]]:
    with tempfile.TemporaryDirectory() as folder:
        known = Sources(os.path.join(folder, "cache"))
        record = SourceRecord(replace(SEEN, path=os.path.join(os.path.realpath(folder), "disk")), ARTIFACT)
        known.remember(record)
        assert known.last(record.seen.path) == record
        yield Path(folder), known, record


@given(st.data())
def test_damaged_record_is_none_or_another_record(data: st.DataObject) -> None:
    """Never an error. What a flipped bit may turn it into is a number or a digest that fits nothing."""
    with remembered() as (folder, known, record):
        path = only_record(folder)
        raw = bytearray(path.read_bytes())
        match data.draw(st.sampled_from(["flip", "cut", "other", "more"])):
            case "flip":
                raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del raw[data.draw(st.integers(0, len(raw) - 1)) :]
            case "other":
                raw = bytearray(data.draw(st.binary(max_size=400)))
            case "more":
                raw += data.draw(st.binary(min_size=1, max_size=3).filter(lambda more: more.strip(b" \t\r\n")))
        path.write_bytes(raw)
        found = known.last(record.seen.path)
        assert found is None or (found != record and found.seen.path == record.seen.path)


@pytest.mark.parametrize("value", [None, "1", 1.5, [], {}, True, 2**64, -1])
@pytest.mark.parametrize("field", sorted(sources._FIELDS))
def test_field_of_another_kind(field: str, value: object) -> None:
    with remembered() as (folder, known, record):
        path = only_record(folder)
        document = json.loads(path.read_bytes())
        if type(document[field]) is type(value) and field != "version" and value != 2**64:
            return
        path.write_text(json.dumps({**document, field: value}))
        assert known.last(record.seen.path) is None
        del document[field]
        path.write_text(json.dumps(document))
        assert known.last(record.seen.path) is None


def test_record_of_another_path_under_this_name(tmp_path: Path) -> None:
    with remembered() as (folder, known, record):
        other = replace(record.seen, path=f"{record.seen.path}2")
        os.rename(only_record(folder), known._file(other.path))
        assert known.last(other.path) is None


def replace_by_symlink(path: Path) -> None:
    os.rename(path, path.with_name("elsewhere"))
    os.symlink("elsewhere", path)


def replace_by_file(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.write_bytes(b"")


def replace_by_fifo(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    os.mkfifo(path)


def replace_by_directory(path: Path) -> None:
    replace_by_file(path)
    path.unlink()
    path.mkdir()


ODD = [replace_by_symlink, replace_by_file, replace_by_fifo]


@pytest.mark.parametrize("change", [*ODD, replace_by_directory])
def test_odd_record(change: Callable[[Path], None]) -> None:
    with remembered() as (folder, known, record):
        change(only_record(folder))
        assert known.last(record.seen.path) is None


@pytest.mark.parametrize("change", ODD)
@pytest.mark.parametrize("place", ["cache", "cache/sources"])
def test_odd_directory(place: str, change: Callable[[Path], None]) -> None:
    """A symlink may lead anywhere: nothing is read from there, nothing written to it."""
    with remembered() as (folder, known, record):
        change(folder / place)
        before = sorted(folder.rglob("*"))
        assert known.last(record.seen.path) is None
        known.remember(SourceRecord(replace(record.seen, path="/other"), ARTIFACT))
        assert sorted(folder.rglob("*")) == before


@pytest.mark.needs("root")
def test_record_of_another_user() -> None:
    with remembered() as (folder, known, record):
        os.chown(only_record(folder), 12345, 12345)
        assert known.last(record.seen.path) is None


def test_too_large_a_record() -> None:
    with remembered() as (folder, known, record):
        path = only_record(folder)
        path.write_bytes(path.read_bytes() + b" " * sources._MAX_RECORD)
        assert known.last(record.seen.path) is None


def test_the_newest_records_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_RECORDS", 20)
    known = Sources(str(tmp_path / "cache"))
    for n in range(50):
        known.remember(SourceRecord(replace(SEEN, path=f"/disk{n}"), ARTIFACT))
        os.utime(known._file(f"/disk{n}"), ns=(n, n))
        assert len(os.listdir(tmp_path / "cache/sources")) <= 20
    found = [n for n in range(50) if known.last(f"/disk{n}")]
    assert found == list(range(50))[-len(found) :]
    assert len(found) >= 18


# --- a store's records -----------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Half a MiB, of which a part is a hole."""
    path = tmp_path / "disk"
    with path.open("wb") as out:
        for offset in (0, MIB // 4):
            out.seek(offset)
            out.write(random.Random(offset).randbytes(MIB // 8))
        out.truncate(MIB // 2 + 512)
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is too young."""
    monkeypatch.setattr(sources, "SETTLED_NS", -(10**15))


def create(store: Store, path: Path, name: str = "two", *, trust: bool = True) -> Snapshot:
    builder = Snapshot.builder(path).name(name).force()
    if trust:
        builder.trust_mtime()
    made = builder.create(store)
    assert content(store, name) == path.read_bytes()
    return made


def unread(made: Snapshot) -> bool:
    assert made.cost is not None
    return made.cost.unchanged_since is not None


def test_create_remembers_its_source(store: Store, disk: Path) -> None:
    made = create(store, disk, "one", trust=False)
    record = Sources(os.path.join(store.path, "cache")).last(disk)
    assert record is not None
    assert record.artifact == made.digest
    assert record.seen.path == os.path.realpath(disk)
    assert record.seen.stamp.size == disk.stat().st_size
    again = create(store, disk, "two", trust=False)
    newer = Sources(os.path.join(store.path, "cache")).last(disk)
    assert newer is not None
    assert newer.artifact == again.digest
    assert newer.seen.started_ns > record.seen.started_ns


@pytest.mark.parametrize("problem", ["full", "cache is a file", "path is not UTF-8", "removed cache"])
def test_create_goes_on_without_a_record(
    store: Store, disk: Path, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    cache = Path(store.path, "cache")
    match problem:
        case "full":
            real = durable.replace_file

            def replace_file(path: str, data: bytes, **options: object) -> None:
                if "/cache/" in path:
                    raise StorageError("no space left on device")
                real(path, data, **options)  # type: ignore[arg-type]

            monkeypatch.setattr(durable, "replace_file", replace_file)
        case "cache is a file":
            cache.write_bytes(b"")
        case "path is not UTF-8":
            disk = disk.rename(os.fsdecode(os.fsencode(disk) + b"\xff"))
        case "removed cache":
            create(store, disk, "one")
            shutil.rmtree(cache)
    assert not unread(create(store, disk))
    require_sound(Path(store.path), contents={"two": disk.read_bytes()})


def test_a_pipe_has_no_record(store: Store) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"x" * BLOCK)
    os.close(theirs)
    made = Snapshot.builder(DiskInput(fd=ours)).name("one").trust_mtime().create(store)
    assert not unread(made)
    assert not Path(store.path, "cache").exists()


# --- nothing read ----------------------------------------------------------------------------------------------------


def test_unchanged_disk_is_not_read(store: Store, disk: Path, settled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    one = create(store, disk, "one")
    for method in ("read_into", "head", "extents", "unwritten", "clone_into"):
        monkeypatch.delattr(DiskSource, method)
    two = create(store, disk)
    assert two.cost is not None
    assert two.cost.unchanged_since == "one"
    assert (two.cost.stats.allocated, two.cost.stats.new_plain) == (one.artifact().map.disks[0].allocated, 0)
    assert two.artifact_manifest.map == one.artifact_manifest.map
    assert two.artifact_manifest.packs == one.artifact_manifest.packs
    assert two.manifest.upper == one.manifest.upper
    assert (two.manifest.fstype, two.manifest.format) == (one.manifest.fstype, one.manifest.format)
    assert unread(create(store, disk, "three"))
    require_sound(Path(store.path))


def test_without_the_option_it_is_read(store: Store, disk: Path, settled: None) -> None:
    create(store, disk, "one")
    assert not unread(create(store, disk, trust=False))
    assert unread(create(store, disk))


def test_description_may_differ(store: Store, disk: Path, settled: None) -> None:
    """The disk's name is in the map, which is then another one; labels, parent, image and integrity are not."""
    one = create(store, disk, "one")
    config = replace(
        Snapshot.builder(disk).name("two").label("a", "b").parent("one").record_integrity().trust_mtime().build(),
        disk_name="other.img",
    )
    two = store.create(config)
    assert unread(two)
    assert two.manifest.upper.file == "other.img"
    assert two.manifest.parent == str(one.id)
    assert two.manifest.upper.integrity is not None
    assert store.verify("two").upper.kind == "verified"
    assert two.artifact_manifest.packs == one.artifact_manifest.packs
    assert content(store, "two") == disk.read_bytes()


def test_taking_over_the_name_of_the_only_one(store: Store, disk: Path, settled: None) -> None:
    create(store, disk, "one")
    made = create(store, disk, "one")
    assert made.cost is not None
    assert made.cost.unchanged_since == "one"
    store.gc()
    require_sound(Path(store.path), contents={"one": disk.read_bytes()})


def test_qcow2_stays_one(store: Store, tmp_path: Path, settled: None) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"QFI\xfb" + bytes(BLOCK))
    create(store, path, "one")
    made = create(store, path)
    assert unread(made)
    assert (made.manifest.format, made.manifest.upper.file) == ("qcow2", "disk.qcow2")


# --- where that is not safe ------------------------------------------------------------------------------------------


@contextmanager
def open_for_writing(path: Path) -> Iterator[None]:
    with path.open("r+b"):
        yield


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR)
    mapping = mmap.mmap(fd, 0)
    os.close(fd)
    with mapping:
        yield


@contextmanager
def loop_device(path: Path, *options: str) -> Iterator[None]:
    done = subprocess.run(["losetup", "--show", *options, "-f", path], capture_output=True, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run(["losetup", "-d", done.stdout.strip()], check=True)


@contextmanager
def read_only_loop_device(path: Path) -> Iterator[None]:
    with loop_device(path, "-r"):
        yield


losetup = pytest.mark.needs("loop", "losetup")
BUSY = [
    open_for_writing,
    mapped,
    pytest.param(loop_device, marks=losetup),
    pytest.param(read_only_loop_device, marks=losetup),
]


@pytest.mark.parametrize("busy", BUSY)
@pytest.mark.parametrize("when", ["first capture", "second capture"])
def test_busy_disk_is_read(
    store: Store, disk: Path, settled: None, busy: Callable[[Path], AbstractContextManager[None]], when: str
) -> None:
    """Whoever could write during the first capture may have done so after it, without ctime telling."""
    if when == "first capture":
        with busy(disk):
            create(store, disk, "one")
        assert not unread(create(store, disk))
    else:
        create(store, disk, "one")
        with busy(disk):
            assert not unread(create(store, disk))
    assert unread(create(store, disk, "three")) == (when == "first capture")
    assert unread(create(store, disk, "four"))


def test_store_into_a_mapped_page_that_was_dirty(store: Store, disk: Path, settled: None) -> None:
    """Ctime does not tell of it: this is what a look at the times alone would get wrong."""
    start = extents(disk)[0][0]
    with disk.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[start] ^= 1
        create(store, disk, "one")
        before = disk.stat()
        mapping[start] ^= 2
    after = disk.stat()
    assert (after.st_ctime_ns, after.st_mtime_ns) == (before.st_ctime_ns, before.st_mtime_ns)
    assert not unread(create(store, disk))


@pytest.mark.needs("loop")
def test_file_system_whose_times_tell_nothing_of_mappings(tmp_path: Path, settled: None) -> None:
    with tmpfs(tmp_path) as root, Store.init(root / "store", options=FAST) as store:
        path = root / "disk"
        path.write_bytes(b"x" * BLOCK)
        create(store, path, "one")
        before = path.stat()
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
            assert mapping[0] == ord("x")
            mapping[0] = ord("y")
        after = path.stat()
        assert (after.st_ctime_ns, after.st_mtime_ns) == (before.st_ctime_ns, before.st_mtime_ns)
        assert not unread(create(store, path))


def overwrite(path: Path) -> None:
    with path.open("r+b") as out:
        out.write(b"changed")


def overwrite_and_forge(path: Path) -> None:
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def copy_over(path: Path) -> None:
    shutil.copy2(path, path.with_name("copy"))
    os.rename(path.with_name("copy"), path)


CHANGED: dict[str, Callable[[Path], object]] = {
    "content": overwrite,
    "content, mtime set back": overwrite_and_forge,
    "ctime": lambda path: path.chmod(0o600),
    "mtime": lambda path: os.utime(path, ns=(1, 1)),
    "inode": copy_over,
    "size": lambda path: os.truncate(path, path.stat().st_size + BLOCK),
    "size, smaller": lambda path: os.truncate(path, path.stat().st_size - BLOCK),
}


@pytest.mark.parametrize("change", CHANGED)
def test_changed_disk_is_read(store: Store, disk: Path, settled: None, change: str) -> None:
    create(store, disk, "one")
    CHANGED[change](disk)
    assert not unread(create(store, disk))
    assert unread(create(store, disk, "three"))


def test_disk_that_changed_just_before_the_first_capture_is_read(store: Store, disk: Path) -> None:
    """A second change within the clock's tick, or in a file system's whole second, would not show."""
    create(store, disk, "one")
    assert not unread(create(store, disk))


def edit_record(store: Store, **fields: object) -> None:
    path = only_record(Path(store.path))
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))


@pytest.mark.parametrize(("margin", "trusted"), [(SETTLED_NS - 1, False), (SETTLED_NS, True)])
def test_how_old_ctime_must_be(store: Store, disk: Path, margin: int, *, trusted: bool) -> None:
    create(store, disk, "one")
    edit_record(store, started_ns=disk.stat().st_ctime_ns + margin)
    assert unread(create(store, disk)) == trusted


@pytest.mark.parametrize(
    "fields",
    [
        {"boot": "another"},
        {"at_rest": False},
        {"inode": 1},
        {"device": 1},
        {"size": 1},
        {"mtime_ns": 1},
        {"ctime_ns": 1},
        {"path": "/another"},
        {"artifact": "sha256:" + "ab" * 32},
        {"artifact": "nonsense"},
        {"version": 2},
    ],
    ids=", ".join,
)
def test_record_that_does_not_fit(store: Store, disk: Path, settled: None, fields: dict[str, object]) -> None:
    """Another boot: a power cut may have taken back what the first capture read."""
    create(store, disk, "one")
    edit_record(store, **fields)
    assert not unread(create(store, disk))


def test_record_that_names_a_snapshot_of_another_size(store: Store, disk: Path, tmp_path: Path, settled: None) -> None:
    (tmp_path / "other").write_bytes(b"x" * BLOCK)
    other = create(store, tmp_path / "other", "other")
    shutil.rmtree(Path(store.path, "cache"))
    create(store, disk, "one")
    edit_record(store, artifact=str(other.digest))
    assert not unread(create(store, disk))


@pytest.mark.parametrize("collected", [False, True])
def test_removed_snapshot_is_not_reused(store: Store, disk: Path, settled: None, *, collected: bool) -> None:
    create(store, disk, "one")
    store.remove("one")
    if collected:
        store.gc()
    assert not unread(create(store, disk))
    store.gc()
    require_sound(Path(store.path), contents={"two": disk.read_bytes()})


@pytest.mark.parametrize("which", ["pack", "map", "config"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_snapshot_is_not_reused(store: Store, disk: Path, settled: None, which: str, damage: str) -> None:
    made = create(store, disk, "one")
    documents = made.artifact_manifest
    victim = {"pack": documents.packs[0], "map": documents.map, "config": documents.config}[which]
    path = blob_path(Path(store.path), victim.digest)
    path.chmod(0o644)
    path.unlink() if damage == "missing" else os.truncate(path, victim.size - 1)
    assert not unread(create(store, disk))


def test_snapshot_that_goes_while_it_is_looked_at(
    store: Store, disk: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real = create(store, disk, "one"), Artifact.load

    def load(blobs: RangeReader, descriptor: Descriptor) -> Artifact:
        artifact = real(blobs, descriptor)
        blob_path(Path(store.path), made.artifact_manifest.packs[0].digest).unlink(missing_ok=True)
        return artifact

    with monkeypatch.context() as patch, store.transaction() as change:
        patch.setattr(Artifact, "load", load)
        assert change.reuse(made.digest) is None


def test_what_is_reused_is_not_collected_meanwhile(
    store: Store, disk: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(store, disk, "one")
    real = Transaction.commit

    def commit(self: Transaction, name: SnapshotName, root: Descriptor) -> None:
        with Store.open(store.path, options=FAST) as other:
            other.remove("one")
            other.gc()
        real(self, name, root)

    monkeypatch.setattr(Transaction, "commit", commit)
    assert unread(create(store, disk))
    require_sound(Path(store.path), contents={"two": disk.read_bytes()})


def test_record_of_another_store(store: Store, disk: Path, tmp_path: Path, settled: None) -> None:
    with Store.init(tmp_path / "other", options=FAST) as other:
        create(other, disk, "one")
        shutil.copytree(Path(other.path, "cache"), Path(store.path, "cache"))
    assert not unread(create(store, disk))


@pytest.mark.needs("xfs")
def test_disk_that_changed_while_its_clone_was_read(
    tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is of the disk as it was cloned, not as it was when the capture was done."""
    real = DiskSource.read_into

    def read_into(self: DiskSource, buffer: memoryview, offset: int) -> int:
        overwrite(path)
        return real(self, buffer, offset)

    with file_system(tmp_path, "xfs") as root, Store.init(root / "store", options=FAST) as store:
        path = root / "disk"
        path.write_bytes(b"x" * MIB)
        with monkeypatch.context() as patch:
            patch.setattr(DiskSource, "read_into", read_into)
            Snapshot.builder(path).name("one").create(store)
        assert content(store, "one") == b"x" * MIB
        assert not unread(create(store, path))
        assert unread(create(store, path, "three"))


# --- at rest ---------------------------------------------------------------------------------------------------------


def at_rest(path: Path) -> bool:
    with DiskSource.open(path, block_device=True) as source:
        seen = Sighting.of(source, path)
    assert seen is not None
    return seen.at_rest


def test_nobody_waits_once_it_was_looked_at(disk: Path) -> None:
    with DiskSource.open(disk) as source:
        seen = Sighting.of(source, disk)
        assert seen is not None
        assert seen.at_rest
        os.close(os.open(disk, os.O_RDWR | os.O_NONBLOCK))


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EACCES, errno.EINVAL, errno.ENOLCK])
def test_no_lease(disk: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(fd: int, command: int, *args: object) -> int:
        if command == fcntl.F_SETLEASE:
            raise OSError(code, os.strerror(code))
        return 0

    assert at_rest(disk)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert not at_rest(disk)


@pytest.mark.parametrize(("module", "what"), [(sources, "_BLOCK_DEVICES"), (stamps, "_BOOT_ID")])
def test_what_the_kernel_does_not_tell(
    store: Store,
    disk: Path,
    settled: None,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    module: ModuleType,
    what: str,
) -> None:
    monkeypatch.setattr(module, what, "/nowhere")
    stamps.boot_id.cache_clear()
    request.addfinalizer(stamps.boot_id.cache_clear)
    create(store, disk, "one")
    assert not unread(create(store, disk))


def test_a_program_that_opens_the_disk_meanwhile_does_not_end_this_one(disk: Path) -> None:
    """A lease is broken by a signal, and the one that comes by default kills."""
    code = """
import fcntl, os, sys, threading, time
from casstore import sources
real, taken = fcntl.fcntl, []
def slow(fd, command, argument):
    real(fd, command, argument)
    if (command, argument) == (fcntl.F_SETLEASE, fcntl.F_RDLCK):
        taken.append(argument)
        threading.Thread(target=os.open, args=(sys.argv[1], os.O_RDWR)).start()
        time.sleep(0.1)  # it asks for the lease, and waits
fcntl.fcntl = slow
fd = os.open(sys.argv[1], os.O_RDONLY)
assert sources._has_no_writer(fd)
assert len(taken) == 1
while threading.active_count() > 1:
    time.sleep(0.01)
assert not sources._has_no_writer(fd)
"""
    python(code, disk)


# --- the command line ------------------------------------------------------------------------------------------------


def test_create_says_that_nothing_was_read(tmp_path: Path, disk: Path, settled: None) -> None:
    casstore = Casstore(tmp_path)
    assert casstore.json("create", "one", "--disk", disk, "--trust-mtime")["unchanged_since"] is None
    said = casstore("create", "two", "--disk", disk, "--trust-mtime").stderr
    assert said.startswith("kept two: unchanged since one: nothing read, ")
    assert casstore.json("create", "three", "--disk", disk, "--trust-mtime")["unchanged_since"] == "two"
    casstore("create", tmp_path / "path", "--disk", disk, "--trust-mtime")
