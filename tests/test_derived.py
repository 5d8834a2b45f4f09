"""Catalog and index.json follow the refs: nothing is read where nothing is new, and nothing that is new is missed."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore import Store, durable, stamps, storeindex
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.jsondoc import dump
from casstore.names import SnapshotName
from casstore.refs import Refs
from casstore.stamps import stamp
from casstore.storedir import StoreOptions
from casstore.storeindex import StoreIndex
from tests.support.stores import (
    FAST,
    blob_path,
    capture,
    index_entries,
    index_refs,
    link_refs,
    names,
    python,
    require_sound,
)

SETTLE = 0.06  # seconds, more than a tick of any clock of a file system
STRANGER = {"mediaType": "text/plain", "digest": f"sha256:{'7' * 64}", "size": 5}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store of two snapshots and three names, and the catalog knows it."""
    root = tmp_path / "store"
    with Store.init(root, options=FAST) as store:
        capture(store, tmp_path, "one", 1)
        capture(store, tmp_path, "two", 1, 2)
        store.tag("one", "again")
    settled(root)
    return root


def settled(root: Path) -> None:
    """Let what changed just now grow old, and be seen."""
    time.sleep(SETTLE)
    Store.open(root, options=FAST).close()


def add_entry(root: Path, **entry: Any) -> None:
    """What another tool does."""
    document = json.loads((root / "index.json").read_bytes())
    document["manifests"].append(entry)
    (root / "index.json").write_text(json.dumps(document))


# --- nothing new ------------------------------------------------------------------------------------------------------

_OPENED = """
import os, sys
looked, start = [], len(sys.argv[1]) + 1
def hook(event, args):
    if event in ("open", "os.listdir", "os.scandir") and str(args[0]).startswith(sys.argv[1]):
        looked.append(str(args[0])[start:])
readlink = os.readlink
def note(path, **options):
    looked.append(str(path)[start:])
    return readlink(path, **options)
os.readlink = note
from casstore import Store
sys.addaudithook(hook)
with Store.open(sys.argv[1]) as store:
    store.list(), store.foreign(), store.problems(), store.stats()
print(*looked, sep="\\n")
"""


def test_a_store_with_nothing_new_is_opened_without_reading_refs_blobs_or_index(root: Path) -> None:
    looked = set(python(_OPENED, root).stdout.split())
    assert looked <= {"casstore.json", "oci-layout", "catalog.sqlite"}, looked
    os.symlink(os.readlink(root / "refs/one"), root / "refs/new")
    looked = set(python(_OPENED, root).stdout.split())
    assert {"refs", "refs/new", "refs/one", "index.json"} <= looked
    assert index_refs(root).keys() == {"one", "two", "again", "new"}


@pytest.mark.parametrize("change", ["add", "move", "remove", "break", "lose its blob"])
@pytest.mark.parametrize("age", [0.0, SETTLE])
def test_whatever_others_do_to_refs_is_seen_at_once(root: Path, change: str, age: float) -> None:
    with Store.open(root, options=FAST) as store:
        store.tag("one", "mine")
        time.sleep(age)
        names(store)
        one, two = os.readlink(root / "refs/one"), os.readlink(root / "refs/two")
        match change:
            case "add":
                os.symlink(two, root / "refs/theirs")
            case "move":
                os.unlink(root / "refs/mine")
                os.symlink(two, root / "refs/mine")
            case "remove":
                os.unlink(root / "refs/mine")
            case "break":
                os.unlink(root / "refs/mine")
                os.symlink("/etc/passwd", root / "refs/mine")
            case "lose its blob":
                os.unlink(root / "refs" / one)
        lost = {"break": ["mine"], "lose its blob": ["again", "mine", "one"]}.get(change, [])
        expected = {name: digest for name, digest in link_refs(root).items() if name not in lost}
        assert {handle.name: str(handle.digest) for handle in store.list()} == expected
        assert [problem.name for problem in store.problems()] == lost


def test_a_problem_is_told_each_time(root: Path) -> None:
    os.symlink("/etc/passwd", root / "refs/bad")
    for _ in range(3):
        time.sleep(SETTLE)
        with Store.open(root, options=FAST) as store:
            assert [problem.name for problem in store.problems()] == ["bad"]
            assert names(store) == ["again", "one", "two"]


# --- index.json -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["nothing", "empty", "cut", "zeros", "older", "entry gone"])
def test_what_a_power_cut_leaves_of_index_json_is_mended(root: Path, left: str) -> None:
    path = root / "index.json"
    data = path.read_bytes()
    match left:
        case "nothing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "zeros":
            path.write_bytes(bytes(len(data)))
        case "older":
            path.write_bytes(
                b'{"manifests":[],"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2}'
            )
        case "entry gone":
            document = json.loads(data)
            document["manifests"].pop()
            path.write_text(json.dumps(document))
    Store.open(root, options=FAST).close()
    assert path.read_bytes() == data


def test_after_a_boot_index_json_is_compared_by_its_bytes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system may bring back a file with the times of the new content and the bytes of none."""
    path = root / "index.json"
    data = path.read_bytes()
    path.write_bytes(bytes(len(data)))
    time.sleep(SETTLE)
    with closing(sqlite3.connect(root / "catalog.sqlite", isolation_level=None)) as db:
        [[known]] = db.execute("SELECT value FROM seen WHERE what = 'index'")
        db.execute("UPDATE seen SET value = ? WHERE what = 'index stamp'", (f"{stamp(str(path))} {known}",))
    Store.open(root, options=FAST).close()
    assert path.read_bytes() == bytes(len(data)), "this test shows nothing: the stamp was not believed"
    monkeypatch.setattr(stamps, "boot_id", lambda: "another boot")
    Store.open(root, options=FAST).close()
    assert path.read_bytes() == data


def test_entries_of_others_are_told_and_outlive_changes(root: Path) -> None:
    add_entry(root, **STRANGER)
    for step in range(3):
        settled(root)
        with Store.open(root, options=FAST) as store:
            assert store.foreign() == [STRANGER["digest"]]
            store.tag("one", f"tag-{step}")
            assert store.foreign() == [STRANGER["digest"]]
        assert STRANGER in index_entries(root)
        require_sound(root)


def test_a_change_of_a_ref_reads_the_refs_once_and_writes_index_json_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, Durability]] = []
    read: list[str] = []
    replace_file, read_all = durable.replace_file, Refs.read_all

    def note_write(path: str, data: bytes, *, mode: int, durability: Durability = Durability.FULL) -> None:
        written.append((os.path.basename(path), durability))
        replace_file(path, data, mode=mode, durability=durability)

    def note_read(refs: Refs) -> Any:
        read.append(refs.path)
        return read_all(refs)

    monkeypatch.setattr(durable, "replace_file", note_write)
    monkeypatch.setattr(Refs, "read_all", note_read)
    with Store.open(root, options=StoreOptions(durability=Durability.FULL)) as store:
        store.tag("one", "third")
        assert (written, len(read)) == ([("index.json", Durability.NONE)], 1)
    time.sleep(SETTLE)
    with Store.open(root, options=StoreOptions(durability=Durability.FULL)) as store:
        written.clear()
        read.clear()
        store.remove("third")
        assert (written, len(read)) == ([("index.json", Durability.NONE)], 1)
    add_entry(root, **STRANGER)
    with Store.open(root, options=StoreOptions(durability=Durability.FULL)) as store:
        written.clear()
        store.tag("one", "third")
        assert written == [("index.json", Durability.FULL)], "what another tool added cannot be derived again"


def test_index_json_is_not_parsed_again_when_it_is_known(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: bytes) -> list[dict[str, Any]]:
        raise AssertionError("index.json was parsed")

    monkeypatch.setattr(storeindex, "_load_entries", fail)
    for step in range(3):
        with Store.open(root, options=FAST) as store:
            store.tag("one", f"tag-{step}")
    assert index_refs(root).keys() == link_refs(root).keys()


def test_a_read_only_store_is_left_alone(root: Path) -> None:
    (root / "index.json").unlink()
    (root / "casstore.json").write_text(
        '{"features":{"compatible":[],"incompatible":[],"readOnlyCompatible":["new"]},"version":1}'
    )
    with Store.open(root, options=FAST) as store:
        assert store.read_only
        assert names(store) == ["again", "one", "two"]
        assert store.foreign() == []
    assert not (root / "index.json").exists()


NAMES = st.from_regex(r"[A-Za-z0-9]{1,8}([._-][A-Za-z0-9]{1,8}){0,2}", fullmatch=True).map(SnapshotName)
HEX = st.integers(1, 2**256 - 1).map(lambda number: Digest(f"{number:064x}"))


@settings(max_examples=30)
@given(st.dictionaries(NAMES, HEX, max_size=5), st.lists(st.sampled_from([STRANGER, {**STRANGER, "x": "é%s%(hex)s"}])))
def test_index_json_is_what_dump_writes(tmp_path_factory: pytest.TempPathFactory, refs: Any, others: Any) -> None:
    root = tmp_path_factory.mktemp("index")
    (root / "index.json").write_bytes(dump({"manifests": others}))
    index = StoreIndex(str(root), Durability.NONE)
    index.derive(refs, dict.fromkeys(refs.values(), 7), None)
    raw = (root / "index.json").read_bytes()
    document = json.loads(raw)
    assert raw == dump(document)
    assert document["manifests"][len(refs) :] == others
    assert index_refs(root) == {name: str(digest) for name, digest in refs.items()}
    assert (known := index.read(refs)) is not None
    assert list(known.others) == others
    if refs:
        assert index.read({**refs, next(iter(refs)): Digest("0" * 64)}) is None


# --- stamps -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old"
    path.write_text("a")
    time.sleep(SETTLE)
    return path


def test_a_stamp_stands_for_a_state_that_has_lasted(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stamp(str(old))
    assert before is not None
    assert stamp(str(old)) == before
    assert stamp(str(old), str(tmp_path)) != before
    old.write_text("b")
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: old.stat().st_ctime_ns)
        assert stamp(str(old)) is None, "changed just now: it may change once more within the same tick"
    time.sleep(SETTLE)
    assert stamp(str(old)) not in {None, before}
    assert stamp(str(tmp_path / "missing")) is None
    monkeypatch.setattr(stamps, "boot_id", lambda: "another boot")
    assert stamp(str(old)) not in {None, before}
    monkeypatch.setattr(stamps, "boot_id", lambda: None)
    assert stamp(str(old)) is None


def test_whole_seconds_are_a_coarse_clock(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Far enough ahead that setting it cannot make the time of the last change (ctime) the newer one.
    second = old.stat().st_ctime_ns // 10**9 * 10**9 + 60 * 10**9
    os.utime(old, ns=(second, second))
    monkeypatch.setattr(time, "time_ns", lambda: second + 2 * 10**9)
    assert stamp(str(old)) is None
    monkeypatch.setattr(time, "time_ns", lambda: second + 3 * 10**9)
    assert stamp(str(old)) is not None


def test_a_clock_that_was_set_back_is_no_clock(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3600 * 10**9)
    assert stamp(str(old)) is None


def test_a_blob_that_others_remove_is_missed_after_the_refs_were_seen(root: Path) -> None:
    digest = link_refs(root)["two"]
    blob_path(root, digest).unlink()
    with Store.open(root, options=FAST) as store:
        assert names(store) == ["again", "one"]
