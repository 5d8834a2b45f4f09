"""A store of which a directory is missing is a damaged store to every verb: neither none, nor a plain OCI layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from casstore import Store
from casstore.errors import CorruptContent, NotFound
from casstore.listing import list_dir
from tests.support.command import Casstore
from tests.support.stores import FAST, all_files, capture, names, write_disk

VERBS = (
    *("list", "stats", "gc", "gc --dry-run", "adopt", "undo", "undo --list", "prune --keep-last 1", "reindex"),
    *("init", "init --shared", "create new --disk DISK", "rm one", "tag one new", "inspect one", "verify --all"),
    *("files one", "cat one /file", "cp one / OUT"),
    *("files one", "cat one /file", "cp one / OUT"),
    *("restore one OUT", "push one oci:LAYOUT", "push --all oci:LAYOUT", "pull oci:OTHER:two", "pull oci:OTHER:two -f"),
    *("pull oci:OTHER:two --dry-run", "list oci:STORE", "inspect oci:STORE:one", "rm oci:STORE:one"),
    *("copy oci:STORE:one oci:LAYOUT", "copy oci:OTHER:two oci:STORE", "copy oci:OTHER:two oci:STORE --dry-run"),
)
PARTS = [("refs", True), ("blobs", True), ("blobs/sha256", True), ("blobs", False), ("blobs/sha256", False)]
"""What is missing, and whether the store's marker is there."""


@pytest.fixture
def root(casstore: Casstore, tmp_path: Path) -> Path:
    with Store.init(tmp_path / "other", options=FAST) as other, Store.init(casstore.store, options=FAST) as store:
        capture(other, tmp_path, "two", 2)
        capture(store, tmp_path, "one", 1)
    write_disk(tmp_path / "disk", 3)
    return casstore.store


def damage(root: Path, part: str, *, marked: bool) -> None:
    shutil.rmtree(root / part)
    if not marked:
        (root / "casstore.json").unlink()


@pytest.mark.parametrize(("part", "marked"), PARTS)
def test_every_verb_says_what_is_missing_and_what_to_do(
    casstore: Casstore, root: Path, tmp_path: Path, part: str, marked: bool
) -> None:
    damage(root, part, marked=marked)
    before = all_files(root)
    places = {"DISK": "disk", "OUT": "out", "LAYOUT": "layout", "OTHER": "other", "STORE": "store"}
    texts = set()
    for verb in VERBS:
        words = verb.split()
        for word, place in places.items():
            words = [each.replace(word, str(tmp_path / place)) for each in words]
        done = casstore.run(*words)
        assert done.code == 12, (verb, done.code, done.stderr)
        assert done.stdout == "", verb
        texts.add(next(line for line in done.stderr.splitlines() if line.startswith("error: ")))
    (text,) = texts
    assert f"expected a directory {part}, got nothing there" in text
    assert str(root) in text
    assert "casstore check --repair" in text
    assert all_files(root) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("part", "marked"), PARTS)
def test_what_the_advice_comes_to(casstore: Casstore, root: Path, part: str, marked: bool) -> None:
    """A check finds the damage, and after a repair the store opens."""
    shutil.copytree(root, root.parent / "copy", symlinks=True)
    damage(root, part, marked=marked)
    assert part in casstore("check", code=3).stdout
    casstore("check", "--repair", "--from", root.parent / "copy")
    with Store.open(root, options=FAST) as store:
        assert names(store) == ["one"]
        store.verify("one")


def test_the_library_and_a_list_of_a_folder_tell_it_too(casstore: Casstore, root: Path, tmp_path: Path) -> None:
    damage(root, "refs", marked=True)
    for create in (False, True):
        with pytest.raises(CorruptContent, match="it is damaged: expected a directory refs"):
            Store.open(root, create=create)
    told: list[str] = []
    found = list_dir(tmp_path, report=lambda path, error: told.append(f"{path}: {error}"))
    assert [snapshot.names[0] for snapshot in found] == ["two"]
    assert [text.split(":")[0] for text in told] == [str(root)]
    assert "it is damaged" in told[0]
    assert "it is damaged" in casstore("list", "--dir", tmp_path).stderr


def test_what_only_looks_a_bit_like_one_is_none(casstore: Casstore, tmp_path: Path) -> None:
    """A Git repository has refs/, and so has a store whose making was interrupted: that is gone on with."""
    git, begun = tmp_path / "repository.git", tmp_path / "begun"
    (git / "refs/heads").mkdir(parents=True)
    (git / "refs/stash").symlink_to("heads")
    (git / "HEAD").touch()
    (begun / "refs").mkdir(parents=True)
    for place in (git, begun):
        with pytest.raises(NotFound, match="there is no store; is the path right"):
            Store.open(place)
    casstore("--store", git, "init", code=15)
    casstore("--store", begun, "init")


def test_where_there_is_none_the_path_and_init_are_named(casstore: Casstore) -> None:
    for verb in ("list", "check"):
        text = casstore(verb, code=10).stderr
        assert f"store '{casstore.store}': there is no store" in text
        assert "casstore init" in text
        assert "is the path right?" in text
