"""A store that may only be read: on a read-only mount, or of a version that knows more (rows 7 and 8).

Reading works in full; what changes the store is refused at once, with exit code 17, and leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from casstore import Store
from casstore.errors import StorageError, UnsupportedVersion
from tests.support.command import Casstore
from tests.support.stores import FAST, all_files, capture, disk_bytes, names, write_disk

READING: Sequence[Sequence[str]] = (
    ("list",),
    ("list", "--json"),
    ("inspect", "one"),
    ("inspect", "one", "--verify"),
    ("verify", "--all"),
    ("stats",),
    ("restore", "one", "OUT/disk"),
    ("push", "one", "oci:OUT/layout:pushed"),
    ("push", "--all", "oci:OUT/all"),
    ("push", "one", "oci:OUT/layout:pushed", "--dry-run"),
    ("copy", "oci:STORE:one", "oci:OUT/copied:one"),
    ("gc", "--dry-run"),
    ("adopt", "--dry-run"),
)
CHANGING: Sequence[Sequence[str]] = (
    ("init", "--shared"),
    ("create", "new", "--disk", "DISK"),
    ("create", "one", "-f", "--disk", "DISK"),
    ("pull", "oci:STORE:one", "--name", "new"),
    ("tag", "one", "new"),
    ("rm", "one"),
    ("rm", "one", "-f"),
    ("gc",),
    ("adopt",),
    ("reindex",),
    ("copy", "oci:STORE:one", "oci:STORE:new"),
    ("push", "one", "oci:STORE:new"),
)


@contextmanager
def mounted_read_only(path: Path, place: Path) -> Iterator[Path]:
    """A read-only bind mount of `path` at `place`."""
    place.mkdir()
    subprocess.run(["mount", "--bind", path, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def filled(tmp_path: Path, verb: Sequence[str], store: Path) -> list[str]:
    places = {"OUT": str(tmp_path / "out"), "STORE": str(store), "DISK": str(tmp_path / "disk")}
    words = list(verb)
    for word, place in places.items():
        words = [each.replace(word, place) for each in words]
    return words


def everything(root: Path) -> dict[str, bytes | str]:
    """All files, the locks and the catalog as well."""
    found = dict(all_files(root))
    for name in ("lock", "gate.lock", "refs.lock", "catalog.sqlite"):
        if (root / name).exists():
            found[name] = (root / name).read_bytes()
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store as it is on a medium that was made elsewhere: without what is made when it is opened."""
    root = tmp_path / "original"
    with Store.init(root, options=FAST) as store:
        capture(store, tmp_path, "one", 1, 2)
        capture(store, tmp_path, "two", 2, 3, parent="one")
    for name in ("lock", "gate.lock", "refs.lock", "catalog.sqlite"):
        (root / name).unlink()
    write_disk(tmp_path / "disk", 7)
    (tmp_path / "out").mkdir()
    return root


@pytest.mark.needs("root", "loop")
def test_07_a_read_only_mount(root: Path, tmp_path: Path, casstore: Casstore) -> None:
    before = everything(root)
    with mounted_read_only(root, tmp_path / "mounted") as store:
        casstore.env["CASSTORE_STORE"] = str(store)
        for verb in READING:
            done = casstore.run(*filled(tmp_path, verb, store))
            assert done.code == 0, (verb, done.stderr)
        assert (tmp_path / "out/disk").read_bytes() == disk_bytes(1, 2)
        for verb in CHANGING:
            done = casstore.run(*filled(tmp_path, verb, store))
            assert done.code == 17, (verb, done.code, done.stderr)
            assert "read-only" in done.stderr, verb
            assert done.stdout == "", verb
    assert everything(root) == before


@pytest.mark.needs("root", "loop")
def test_07_a_store_that_becomes_read_only_while_it_is_open(store: Store, tmp_path: Path) -> None:
    """As the kernel does after an I/O error: each change is refused, and none is half done."""
    capture(store, tmp_path, "one", 1)
    with mounted_read_only(tmp_path / "store", tmp_path / "mounted") as mounted:
        subprocess.run(["mount", "-o", "remount,bind,rw", mounted], check=True)
        with Store.open(mounted, options=FAST) as again:
            again._catalog.close()  # the kernel lets nobody remount while a file is open to be written
            subprocess.run(["mount", "-o", "remount,bind,ro", mounted], check=True)
            before = all_files(tmp_path / "store")
            for change in (lambda: again.tag("one", "two"), lambda: again.remove("one"), again.gc):
                with pytest.raises(StorageError, match="Read-only file system"):
                    change()
            with pytest.raises(StorageError, match="Read-only file system"):
                capture(again, tmp_path, "two", 2)
            assert names(again) == ["one"]
            again.verify("one")
            assert all_files(tmp_path / "store") == before


# --- what a later version may do with the store -----------------------------------------------------------------------


def mark(root: Path, *, kind: str = "compatible", since: str | None = "0.9", version: int = 1) -> None:
    features: dict[str, list[str]] = {"compatible": [], "readOnlyCompatible": [], "incompatible": []}
    features[kind] = ["sparkles"]
    marker: dict[str, object] = {"version": version, "features": features}
    (root / "casstore.json").write_text(json.dumps(marker | ({"since": {"sparkles": since}} if since else {})))


def test_a_compatible_flag_is_ignored_and_kept(root: Path, tmp_path: Path, casstore: Casstore) -> None:
    mark(root)
    before = (root / "casstore.json").read_bytes()
    casstore.env["CASSTORE_STORE"] = str(root)
    for verb in (*READING, ("tag", "one", "new"), ("gc",), ("init", "--shared")):
        casstore(*filled(tmp_path, verb, root))
    assert (root / "casstore.json").read_bytes() == before


def test_a_flag_that_only_concerns_writers_lets_everybody_read(root: Path, tmp_path: Path, casstore: Casstore) -> None:
    mark(root, kind="readOnlyCompatible")
    before = everything(root)
    casstore.env["CASSTORE_STORE"] = str(root)
    for verb in READING:
        done = casstore.run(*filled(tmp_path, verb, root))
        assert done.code == 0, (verb, done.stderr)
    for verb in CHANGING:
        done = casstore.run(*filled(tmp_path, verb, root))
        assert (done.code, done.stdout) == (17, ""), (verb, done.code, done.stderr)
        assert "'sparkles' (since casstore 0.9): use a newer casstore" in done.stderr, verb
    assert everything(root) == before


@pytest.mark.parametrize("whole", [True, False])
def test_an_incompatible_flag_stops_every_verb(root: Path, tmp_path: Path, casstore: Casstore, whole: bool) -> None:
    """Also where a later version keeps its refs elsewhere, so that what is there looks like a plain layout."""
    mark(root, kind="incompatible")
    if not whole:
        (root / "refs").rename(root / "names")
    before = everything(root)
    for verb in (*READING, *CHANGING, ("pull", "oci:STORE:one", "--dry-run")):
        words = filled(tmp_path, verb, root)
        casstore.env["CASSTORE_STORE"] = str(root)
        done = casstore.run(*words)
        assert done.code == 12, (verb, done.code, done.stderr)
        assert "'sparkles' (since casstore 0.9): use a newer casstore" in done.stderr, verb
        assert "casstore.json" in done.stderr, verb
    assert everything(root) == before


def test_an_incompatible_flag_stops_those_who_come_by_oci(root: Path, tmp_path: Path, casstore: Casstore) -> None:
    mark(root, kind="incompatible", since=None)
    before = everything(root)
    casstore("create", "mine", "--disk", tmp_path / "disk")
    place = f"oci:{root}"
    for verb in (
        ("pull", f"{place}:one"),
        ("pull", f"{place}:one", "--dry-run"),
        ("push", "mine", f"{place}:new"),
        ("push", "mine", f"{place}:new", "--dry-run"),
        ("push", "--all", place),
        ("copy", f"{place}:one", f"oci:{tmp_path}/out/new:one"),
        ("copy", f"{place}:one", f"oci:{tmp_path}/out/new:one", "--dry-run"),
        ("list", place),
        ("inspect", f"{place}:one"),
        ("rm", f"{place}:one"),
    ):
        done = casstore.run(*verb)
        assert done.code == 12, (verb, done.code, done.stderr)
        assert "'sparkles': use a newer casstore" in done.stderr, verb
    assert everything(root) == before
    assert os.listdir(tmp_path / "out") == []


def test_an_incompatible_flag_stops_the_library(root: Path, tmp_path: Path) -> None:
    mark(root, kind="incompatible")
    for create in (False, True):
        with pytest.raises(UnsupportedVersion, match="sparkles"):
            Store.open(root, create=create)
    told: list[str] = []
    assert Store.list_dir(tmp_path, report=lambda path, error: told.append(str(error))) == []
    assert [text for text in told if "sparkles" in text]


@pytest.mark.parametrize("since", ["0.9\n", "x" * 40, "\x1b[31m", ""])
def test_a_version_that_is_none_is_no_version(root: Path, since: str) -> None:
    mark(root, since="0.9")
    marker = json.loads((root / "casstore.json").read_bytes())
    marker["since"]["sparkles"] = since
    (root / "casstore.json").write_text(json.dumps(marker))
    with pytest.raises(Exception, match="since") as caught:
        Store.open(root)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("since", [["sparkles"], {"sparkles": {"a": 1}}, {"sparkles": "9\x1b[32m"}])
@pytest.mark.parametrize(("kind", "code"), [("incompatible", 12), ("readOnlyCompatible", 17)])
def test_a_later_marker_does_not_pass_for_a_damaged_one(
    root: Path, tmp_path: Path, casstore: Casstore, kind: str, code: int, since: object
) -> None:
    """A repair would put this version's in its place."""
    mark(root, kind=kind, since=None)
    marker = json.loads((root / "casstore.json").read_bytes()) | {"since": since}
    (root / "casstore.json").write_text(json.dumps(marker))
    before = (root / "casstore.json").read_bytes()
    casstore.env["CASSTORE_STORE"] = str(root)
    for verb in (("tag", "one", "new"), ("check", "--repair")):
        done = casstore.run(*filled(tmp_path, verb, root))
        assert done.code == code, (verb, done.stderr)
        assert "'sparkles': use a newer casstore" in done.stderr.replace(", but", "").replace(" does not know", ""), (
            verb
        )
        assert "\x1b" not in done.stderr
    assert (root / "casstore.json").read_bytes() == before
