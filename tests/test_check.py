"""What a check of a store finds, what it says of it, and that it changes nothing (rows 16 to 25, 28)."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from casstore import Snapshot, Store, directories, spec, streams
from casstore.artifact import Artifact
from casstore.checking import asis, rereading
from casstore.checking.check import CheckReport, check
from casstore.checking.findings import Finding, Kind, Severity
from casstore.checking.rereading import Position, ReadData, reread
from casstore.cli.check import parse_subset
from casstore.content import Fetcher, RangeReader
from casstore.digest import Digest
from casstore.errors import NotFound, UnsupportedVersion
from casstore.health import check_store
from casstore.oci import ArtifactManifest, Descriptor
from casstore.pack import PackDirectory
from casstore.progress import Meter, ProgressEvent, silent
from casstore.schema import validate
from tests.support.artifacts import RAW, Disk, HandMade, frame, pack_bytes
from tests.support.command import Casstore
from tests.support.manifests import sign
from tests.support.stores import FAST, all_files, blob_path, capture, flip_byte, manifest_of, write_disk

ALL = ReadData()


def found(root: Path, data: ReadData | None = None) -> list[Finding]:
    return list(check_store(root, data=data, options=FAST).findings)


def kinds(root: Path, data: ReadData | None = None) -> list[Kind]:
    return [finding.kind for finding in found(root, data)]


def put(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two snapshots that share blobs, with three names and a signature."""
    folder = tmp_path_factory.mktemp("base")
    root = folder / "store"
    with Store.init(root, options=FAST) as store:
        capture(store, folder, "one", 1, 2, 3)
        capture(store, folder, "two", 1, 2, 3, 4, parent="one")
        store.tag("one", "alias")
        manifest = manifest_of(root, "one")
        with store.transaction() as change:
            sign(change, manifest.descriptor)
            change.tag(manifest.descriptor, "one")
    return root


@pytest.fixture
def root(base: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(base, tmp_path / "store", symlinks=True))


def test_a_sound_store(root: Path) -> None:
    report = check_store(root, data=ALL, options=FAST)
    assert report.findings == ()
    assert report.ok
    needed = {path.name for path in (root / "blobs/sha256").iterdir()}
    assert (report.snapshots, report.blobs, report.read) == (3, len(needed), len(needed))
    assert report.blob_bytes == report.read_bytes == sum(blob_path(root, hex_).stat().st_size for hex_ in needed)
    assert report.finished


def test_a_check_changes_nothing(root: Path) -> None:
    (root / "refs/two").unlink()
    (root / "index.json").write_text("{}")
    flip_byte(blob_path(root, manifest_of(root, "one").packs[0].digest))
    before, catalog = all_files(root), (root / "catalog.sqlite").read_bytes()
    assert Severity.DAMAGE in {finding.severity for finding in found(root, ALL)}
    assert all_files(root) == before
    assert (root / "catalog.sqlite").read_bytes() == catalog


def test_every_finding_names_the_snapshots_that_it_hurts(root: Path) -> None:
    [shared] = set(manifest_of(root, "one").packs) & set(manifest_of(root, "two").packs)
    flip_byte(blob_path(root, shared.digest), 100)
    assert kinds(root) == []
    [finding] = found(root, ALL)
    assert (finding.kind, finding.digest, finding.blob) == (Kind.WRONG_CONTENT, shared.digest, shared)
    assert finding.subject == f"blobs/sha256/{shared.digest.hex}"
    assert finding.snapshots == ("alias", "one", "two")


def test_a_blob_that_several_snapshots_share_is_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[Digest] = Counter()

    def counting(source: Fetcher, blob: Descriptor, tell: Callable[[int], object] = lambda _: None) -> None:
        read[blob.digest] += 1
        streams.read_through(source, blob, tell)

    monkeypatch.setattr(rereading, "read_through", counting)
    check_store(root, data=ALL, options=FAST)
    assert set(read.values()) == {1}


def break_ref(root: Path) -> None:
    (root / "refs/two").unlink()
    (root / "refs/two").symlink_to("/etc/passwd")


def move_ref(root: Path) -> None:
    (root / "refs/two").unlink()
    (root / "refs/two").symlink_to(os.readlink(root / "refs/one"))


def lead_nowhere(root: Path) -> None:
    (root / "refs/new").symlink_to("../blobs/sha256/" + "0" * 64)


def unlink_signature(root: Path) -> None:
    next((root / "refs").glob("sha256-*")).unlink()


def damage_signature(root: Path) -> None:
    flip_byte(blob_path(root, Digest.of(b"signature")))


def leave_operation(root: Path) -> None:
    (root / "tmp/op-000000000000000d").mkdir()


def remove_two(root: Path) -> None:
    with Store.open(root, options=FAST) as store:
        store.remove("two")


def add_foreign(root: Path) -> None:
    index = json.loads((root / "index.json").read_bytes())
    entry = {"mediaType": spec.MEDIA_MANIFEST, "digest": str(manifest_of(root, "two").descriptor.digest), "size": 1}
    index["manifests"].append({**entry, "annotations": {spec.ANNOTATION_REF_NAME: "other"}})
    (root / "index.json").write_text(json.dumps(index))


def set_aside(root: Path) -> None:
    (root / "quarantine").mkdir()
    (root / "quarantine/x@1").touch()


def replace(part: str) -> Callable[[Path], None]:
    def act(root: Path) -> None:
        path = root / part
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to("/tmp")

    return act


HURT_ONE = ("alias", "one")


@pytest.mark.parametrize(
    ("act", "kind", "hurt"),
    [
        (break_ref, Kind.BROKEN_REF, ("two",)),
        (lambda root: (root / "refs/two").unlink(), Kind.LOST_REF, ("two",)),
        (move_ref, Kind.CHANGED_REF, ("two",)),
        (lead_nowhere, Kind.MISSING_BLOB, ("new",)),
        (unlink_signature, Kind.LOST_REF, HURT_ONE),
        (damage_signature, Kind.WRONG_CONTENT, HURT_ONE),
        (lambda root: blob_path(root, manifest_of(root, "two").map.digest).unlink(), Kind.MISSING_BLOB, ("two",)),
        (lambda root: os.truncate(blob_path(root, manifest_of(root, "one").map.digest), 9), Kind.WRONG_SIZE, HURT_ONE),
        (lambda root: (root / "oci-layout").unlink(), Kind.MISSING_MARKER, ()),
        (lambda root: (root / "oci-layout").write_text("{"), Kind.BAD_LAYOUT, ()),
        (lambda root: (root / "casstore.json").write_text("[]"), Kind.BAD_LAYOUT, ()),
        (replace("tmp"), Kind.BAD_LAYOUT, ()),
        (replace("lock"), Kind.BAD_LAYOUT, ()),
        (replace("index.json"), Kind.BAD_LAYOUT, ()),
        (lambda root: (root / "index.json").unlink(), Kind.STALE_INDEX, ()),
        (lambda root: (root / "catalog.sqlite").unlink(), Kind.STALE_CATALOG, ()),
        (lambda root: (root / "catalog.sqlite").write_text("no"), Kind.STALE_CATALOG, ()),
        (leave_operation, Kind.DEAD_OPERATION, ()),
        (lambda root: (root / "refs/.x.0123456789ab.tmp").symlink_to("x"), Kind.TEMPORARY, ()),
        (lambda root: (root / ".index.json.0123456789ab.tmp").touch(), Kind.TEMPORARY, ()),
        (lambda root: blob_path(root, "0" * 64).touch(), Kind.GARBAGE, ()),
        (remove_two, Kind.REMOVED_REF, ()),
        (add_foreign, Kind.FOREIGN_ENTRY, ()),
        (lambda root: (root / "blobs/sha256/README").touch(), Kind.UNKNOWN_FILE, ()),
        (lambda root: (root / "notes").touch(), Kind.UNKNOWN_FILE, ()),
        (lambda root: put(root / "trash/one@007"), Kind.UNKNOWN_FILE, ()),  # no stamp begins so: no undo offers it
        (lambda root: put(root / "tmp/op-1"), Kind.UNKNOWN_FILE, ()),
        (set_aside, Kind.QUARANTINED, ()),
        (lambda root: (root / "refs").chmod(0o777), Kind.LOOSE_PERMISSIONS, ()),
        (lambda root: blob_path(root, manifest_of(root, "one").map.digest).chmod(0o644), Kind.LOOSE_PERMISSIONS, ()),
    ],
)  # fmt: skip
def test_kinds(root: Path, act: Callable[[Path], object], kind: Kind, hurt: tuple[str, ...]) -> None:
    act(root)
    told = [finding for finding in found(root, ALL) if finding.kind is kind]
    assert told
    assert {finding.snapshots for finding in told} == {hurt}


def test_a_removed_name_is_not_lost(root: Path) -> None:
    index, catalog = (root / "index.json").read_bytes(), (root / "catalog.sqlite").read_bytes()
    remove_two(root)
    (root / "index.json").write_bytes(index)  # as after a crash before they could follow
    (root / "catalog.sqlite").write_bytes(catalog)
    assert Kind.LOST_REF not in kinds(root)


def test_a_name_that_was_removed_and_given_again_may_be_lost(root: Path) -> None:
    remove_two(root)
    with Store.open(root, options=FAST) as store:
        store.tag("one", "two")
    (root / "refs/two").unlink()
    assert Kind.LOST_REF in kinds(root)


def test_what_is_lost_is_told_of_each_name_once(root: Path) -> None:
    shutil.rmtree(root / "refs")
    report = found(root)
    lost = [finding for finding in report if finding.kind is Kind.LOST_REF]
    assert len(lost) == len({finding.subject for finding in lost}) == 4
    assert {finding.subject for finding in report if finding.kind is Kind.BAD_LAYOUT} == {"refs"}
    assert Kind.GARBAGE not in {finding.kind for finding in report}, "gc must not be recommended"


@pytest.mark.parametrize("part", ["blobs", "blobs/sha256"])
def test_a_symlink_in_the_place_of_the_blobs_is_not_followed(root: Path, tmp_path: Path, part: str) -> None:
    """Row 24."""
    (root / part).rename(tmp_path / "elsewhere")
    (root / part).symlink_to(tmp_path / "elsewhere")
    report = found(root, ALL)
    assert {finding.subject for finding in report if finding.kind is Kind.BAD_LAYOUT} >= {part}
    assert len([finding for finding in report if finding.kind is Kind.MISSING_BLOB]) == 3  # two manifests, a signature


def test_an_io_error_is_told_of_the_blob(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = manifest_of(root, "one").packs[0]

    def failing(source: Fetcher, blob: Descriptor, tell: Callable[[int], object] = lambda _: None) -> None:
        if blob == pack:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(rereading, "read_through", failing)
    [finding] = found(root, ALL)
    assert (finding.kind, finding.digest) == (Kind.UNREADABLE, pack.digest)


def test_a_damaged_directory_of_a_pack_is_found_without_reading_the_pack(root: Path) -> None:
    pack = manifest_of(root, "one").packs[0]
    flip_byte(blob_path(root, pack.digest), -40)
    [finding] = found(root)
    assert (finding.kind, finding.digest) == (Kind.WRONG_CONTENT, pack.digest)


def put_by_hand(root: Path, name: str, made: HandMade) -> None:
    """Give an artifact a ref that no casstore would have given it."""
    digest = made.store().digest
    for each, content in made.blobs.contents.items():
        blob_path(root, each).write_bytes(content)
        blob_path(root, each).chmod(0o444)
    (root / "refs" / name).symlink_to(f"../blobs/sha256/{digest.hex}")


def test_documents_that_contradict_each_other_are_told_although_their_digests_are_right(tmp_path: Path) -> None:
    root = tmp_path / "store"
    Store.init(root, options=FAST).close()
    pack = pack_bytes([frame(RAW, b"a" * 4096)])
    put_by_hand(root, "beyond", HandMade([pack], [Disk(8192, [(0, 8192)], [(0, 8192, 0, 0, 2)])]))
    put_by_hand(root, "length", HandMade([pack], [Disk(8192, [(0, 8192)], [(0, 4000, 0, 0, 1)])]))
    put_by_hand(
        root, "stamp", HandMade([pack], [Disk(4096)], listed=[(Digest.of(pack).raw, bytes(32) + b"\x60\0\0\0")])
    )
    told = {finding.snapshots: finding.kind for finding in found(root) if finding.severity is Severity.DAMAGE}
    assert told == {(name,): Kind.BAD_DOCUMENT for name in ("beyond", "length", "stamp")}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE chunks SET chunk = chunk + 1 WHERE chunk = (SELECT MAX(chunk) FROM chunks)",
        "DELETE FROM deltas",
        "DELETE FROM uses WHERE blob = (SELECT MAX(blob) FROM uses)",
        "UPDATE blobs SET size = size + 1",
        "UPDATE artifacts SET allocated = 0",
        "DELETE FROM refs WHERE name = 'alias'",
        "UPDATE seen SET value = substr(value, 1, length(value) - 1) || '1' WHERE what = 'index'",
    ],
)
def test_a_catalog_that_says_something_else_than_a_walk(tmp_path: Path, change: str) -> None:
    root = tmp_path / "store"
    with Store.init(root, options=FAST) as store:
        disk = write_disk(tmp_path / "disk", 1, 2, 3)
        Snapshot.builder(disk).name("one").create(store)
        with disk.open("r+b") as file:
            file.seek(70_000)
            file.write(b"some bytes")
        Snapshot.builder(disk).name("two").parent("one").create(store)
        store.tag("one", "alias")
    assert kinds(root) == []
    with sqlite3.connect(root / "catalog.sqlite") as db:
        assert db.execute(change).rowcount, "the test changes nothing"
    db.close()
    assert Kind.STALE_CATALOG in kinds(root)
    with Store.open(root, options=FAST) as store:
        store.reindex()
    assert kinds(root) == []


def test_a_newer_store_is_refused(root: Path) -> None:
    (root / "casstore.json").write_text('{"version": 99}')
    with pytest.raises(UnsupportedVersion):
        found(root)
    with pytest.raises(NotFound):
        found(root / "nowhere")


def test_what_is_looked_at_is_kept_from_gc(root: Path) -> None:
    """Row 32: names are removed, and gc runs, while a check is at work."""

    def meanwhile() -> list[Finding]:
        with Store.open(root, options=FAST) as store:
            store.remove("two", force=True)
            assert store.gc().removed == ()
        return []

    report = check(str(root), FAST, data=ALL, leftovers=meanwhile)
    assert report.findings == ()
    with Store.open(root, options=FAST) as store:
        assert store.gc().removed


def test_names_that_go_before_the_lease_holds_are_not_missed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def and_then(path: str, options: object) -> object:
        seen = asis.look(path, FAST)
        with Store.open(root, options=FAST) as store:
            store.remove("two", force=True)
            store.gc()
        return seen

    monkeypatch.setattr("casstore.checking.check.look", and_then)
    assert [each for each in check(str(root), FAST, data=ALL).findings if each.severity is Severity.DAMAGE] == []


def test_progress(root: Path) -> None:
    events: list[ProgressEvent] = []
    report = check_store(root, data=ALL, options=FAST, progress=events.append)
    last = {event.phase: event for event in events}
    assert last["reading"].done == last["reading"].total == report.read_bytes


blobs_ = st.lists(st.tuples(st.binary(min_size=1, max_size=8), st.integers(0, 1000)), unique_by=lambda blob: blob[0])


def described(blobs: list[tuple[bytes, int]]) -> list[Descriptor]:
    return [Descriptor(media_type=spec.MEDIA_PACK, digest=Digest.of(name), size=size) for name, size in blobs]


@given(blobs_, st.integers(1, 6))
def test_the_parts_of_a_store_are_all_of_it_and_share_nothing(raw: list[tuple[bytes, int]], parts: int) -> None:
    blobs = described(raw)
    chosen = [blob for n in range(1, parts + 1) for blob in ReadData(part=(n, parts)).choose(blobs, "")]
    assert sorted(blob.digest for blob in chosen) == sorted(blob.digest for blob in blobs)


@given(blobs_, st.one_of(st.builds(ReadData, size=st.integers(1, 3000)), st.builds(ReadData, share=st.floats(0.01, 1))))
@example([(b"empty", 0)], ReadData(share=1.0))
def test_to_read_a_part_again_and_again_comes_past_everything(raw: list[tuple[bytes, int]], data: ReadData) -> None:
    blobs, position, seen = described(raw), "", set()
    for _ in range(len(blobs)):
        chosen = data.choose(blobs, position)
        assert len(set(chosen)) == len(chosen) >= 1
        want = data.size if data.size is not None else (data.share or 0) * sum(blob.size for blob in blobs)
        assert len(chosen) == 1 or sum(blob.size for blob in chosen[:-1]) < want
        seen |= set(chosen)
        position = chosen[-1].digest.hex
    assert seen == set(blobs)


def test_reading_that_is_stopped_by_the_clock_goes_on_where_it_was(root: Path) -> None:
    names = {path.name for path in (root / "blobs/sha256").iterdir()}
    seen: list[str] = []
    position = Position(str(root / "cache"))
    blobs = [
        Descriptor(media_type="x", digest=Digest(hex_), size=blob_path(root, hex_).stat().st_size) for hex_ in names
    ]
    with Store.open(root, options=FAST) as store:
        while len(seen) < len(names):
            chosen = ReadData(max_duration=2).choose(blobs, position.load())
            ticks = map(float, range(100))
            meter = Meter(silent, "reading", None)
            outcomes = reread(
                store._directory.blobs, chosen, max_duration=2, workers=1, meter=meter, clock=partial(next, ticks)
            )
            read = [each.blob.digest.hex for each in outcomes]
            assert 1 <= len(read) <= 2
            seen += read
            position.save(read[-1])
    assert set(seen) == names


def test_a_position_that_is_damaged_is_none(tmp_path: Path) -> None:
    position = Position(str(tmp_path / "cache"))
    assert position.load() == ""
    position.save("a" * 64)
    assert position.load() == "a" * 64
    (tmp_path / "cache/check-position").write_bytes(b"\xff" * 64)
    assert position.load() == ""
    Position(None).save("a" * 64)
    assert Position(None).load() == ""


def test_no_time_reads_nothing_and_says_so(root: Path) -> None:
    report = check_store(root, data=ReadData(max_duration=1e-9), options=FAST)
    assert (report.read, report.finished, report.ok) == (0, False, True)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("all", {}),
        ("1/7", {"part": (1, 7)}),
        ("7/7", {"part": (7, 7)}),
        ("10%", {"share": 0.1}),
        ("0.5%", {"share": 0.005}),
        ("2G", {"size": 2 * 10**9}),
        ("64KiB", {"size": 65536}),
    ],
)
def test_subsets(text: str, field: dict[str, object]) -> None:
    assert parse_subset(text) == field


@pytest.mark.parametrize("text", ["", "0/7", "8/7", "1/0", "0%", "101%", "-1%", "x", "1/7/2", "1 /7"])
def test_what_is_no_subset(text: str) -> None:
    with pytest.raises(ValueError, match="expected all, a part as 1/7"):
        parse_subset(text)


def test_the_command(casstore: Casstore, root: Path) -> None:
    assert casstore.store == root
    assert casstore.json("check", "--read-data")["ok"]
    flip_byte(blob_path(casstore.store, manifest_of(casstore.store, "one").packs[0].digest), 50)
    casstore("check")
    result = casstore("check", "--read-data=100%", code=3)
    assert "damage: wrong-content: blobs/sha256/" in result.stdout
    assert "hurts alias, one, two" in result.stdout
    assert "read 11 of them" in result.stderr
    assert casstore("check", "--read-data", "-q", code=3).stderr == ""
    document = casstore.json("check", "--read-data", code=3)
    assert [finding["kind"] for finding in document["findings"]] == ["wrong-content"]
    assert (document["repair"], document["checked"]["read_blobs"]) == (None, 11)
    assert casstore("check", "--from", "x", code=2).stderr.startswith("error: --from: expected --repair")
    assert "expected --read-data" in casstore("check", "--max-duration", "1s", code=2).stderr
    assert "expected all, a part" in casstore("check", "--read-data=0/3", code=2).stderr


def test_every_kind_is_in_the_schema() -> None:
    for kind in Kind:
        finding = {"kind": kind.value, "severity": kind.severity.value, "subject": "x", "problem": "y"}
        document = {
            "version": 1,
            "ok": True,
            "store": "x",
            "checked": dict.fromkeys(["snapshots", "blobs", "blob_bytes", "read_blobs", "read_bytes"], 0)
            | {"finished": True},
            "findings": [finding | {"digest": None, "snapshots": []}],
            "repair": None,
        }
        validate(document, "cli-check", subject=kind.value)


def test_a_report_is_sorted_by_what_is_worst() -> None:
    order = [Severity.DAMAGE, Severity.STALE, Severity.LEFTOVER, Severity.NOTICE]
    assert list(Severity) == order
    assert not CheckReport((Finding(Kind.UNREADABLE, "x", "y"),), 0, 0, 0, 0, 0, finished=True).ok


def test_48_a_store_at_a_path_that_is_no_utf_8(root: Path) -> None:
    odd = root.with_name("odd\udcff?#%41")
    root.rename(odd)
    report = check_store(odd, data=ReadData(), options=FAST)
    assert report.findings == ()


@pytest.mark.parametrize("name", ["catalog.sqlite", "catalog.sqlite-journal"])
@pytest.mark.parametrize("kind", ["fifo", "symlink"])
def test_24_nobody_waits_for_what_has_the_catalogs_place(casstore: Casstore, root: Path, name: str, kind: str) -> None:
    """SQLite would, and for ever; nor does it write to what a symlink leads to."""
    victim = root.with_name("victim")
    victim.write_text("precious")
    for words in (("check",), ("list",)):
        (root / name).unlink(missing_ok=True)
        os.mkfifo(root / name) if kind == "fifo" else (root / name).symlink_to(victim)
        done = casstore(*words, code=3 if words == ("check",) else 0)
        assert ("bad-layout" in done.stdout) == (words == ("check",))
    assert victim.read_text() == "precious"


def test_snapshots_and_the_directories_of_their_packs_are_read_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[Digest] = Counter()
    of_documents, load_directory = Artifact.of_documents, directories.load_directory

    def documents(blobs: RangeReader, manifest: ArtifactManifest) -> Artifact:
        read[manifest.descriptor.digest] += 1
        return of_documents(blobs, manifest)

    def directory(blobs: RangeReader, pack: Descriptor, stamp: bytes) -> PackDirectory:
        read[pack.digest] += 1
        return load_directory(blobs, pack, stamp)

    monkeypatch.setattr(Artifact, "of_documents", documents)
    monkeypatch.setattr(directories, "load_directory", directory)
    assert kinds(root) == []
    manifests = [manifest_of(root, name) for name in ("one", "two")]
    looked_at = {manifest.descriptor.digest for manifest in manifests}
    looked_at |= {pack.digest for manifest in manifests for pack in manifest.packs}
    assert read == dict.fromkeys(looked_at, 1)
