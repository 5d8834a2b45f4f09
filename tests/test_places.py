"""Where a store lies: on several file systems (row 11), and moved away or replaced while it is in use (row 35)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from casstore import Snapshot, Store, durable
from casstore.errors import CasstoreError, NotFound, StorageError
from tests.support.stores import (
    FAST,
    all_files,
    blobs,
    capture,
    content,
    disk_bytes,
    leftovers,
    link_refs,
    names,
    reachable,
    require_sound,
    write_disk,
)

# --- several file systems ---------------------------------------------------------------------------------------------


@contextmanager
def mounted(place: Path, kind: str) -> Iterator[None]:
    """Something mounted at `place`: another file system, or a directory of the same one, across which no rename works
    either.
    """
    folder = place.with_name("bound")
    folder.mkdir()
    source = ["--bind", folder] if kind == "the same" else ["-t", "tmpfs", "none"]
    subprocess.run(["mount", *source, place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)
        folder.rmdir()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    with Store.init(root, options=FAST) as store:
        capture(store, tmp_path, "one", 1, 2)
        capture(store, tmp_path, "gone", 3)
        store.remove("gone")
    return root


def require_as_before(root: Path, before: dict[str, str]) -> None:
    assert link_refs(root) == before
    require_sound(root, contents={"one": disk_bytes(1, 2)})
    with Store.open(root, options=FAST) as store:
        store.gc()
    assert blobs(root) == reachable(root)
    assert leftovers(root) == []


@pytest.mark.needs("root", "loop")
@pytest.mark.parametrize("kind", ["another", "the same"])
def test_11_tmp_on_another_file_system(root: Path, tmp_path: Path, kind: str) -> None:
    """What is staged there can never be renamed to its place: told before the disk is read, where it can be known."""
    before = link_refs(root)
    with mounted(root / "tmp", kind), Store.open(root, options=FAST) as store:
        with pytest.raises(StorageError) as caught:
            capture(store, tmp_path, "new", 4)
        assert ("on the file system of the store" if kind == "another" else "cross-device") in str(caught.value)
        assert os.listdir(root / "tmp") == []
        assert names(store) == ["one"]
        store.tag("one", "two")  # stages nothing
        store.remove("two")
    require_as_before(root, before)


@pytest.mark.needs("root", "loop")
@pytest.mark.parametrize("kind", ["another", "the same"])
def test_11_a_trash_on_another_file_system(root: Path, tmp_path: Path, kind: str) -> None:
    before, held = link_refs(root), blobs(root)
    with mounted(root / "trash", kind), Store.open(root, options=FAST) as store:
        for change in (lambda: store.remove("one"), store.gc):
            with pytest.raises(StorageError, match="cross-device"):
                change()
        assert blobs(root) == held
        assert os.listdir(root / "trash") == []
        assert content(store, "one") == disk_bytes(1, 2)
    require_as_before(root, before)


@pytest.mark.needs("root", "loop")
def test_11_blobs_on_another_file_system(root: Path, tmp_path: Path) -> None:
    with mounted(root / "blobs", "another"):
        (root / "blobs/sha256").mkdir()
        with Store.open(root, options=FAST) as store:
            with pytest.raises(StorageError, match="on the file system of the store"):
                capture(store, tmp_path, "new", 4)
            assert [problem.name for problem in store.problems()] == ["one"]
    assert names(Store.open(root, options=FAST)) == ["one"]


# --- moved or replaced while in use -----------------------------------------------------------------------------------

Action = Callable[[Store, Path], object]


def create(store: Store, folder: Path) -> None:
    Snapshot.builder(write_disk(folder / "disk", 1, 7)).name("new").create(store)


ACTIONS: dict[str, Action] = {
    "create": create,
    "pull": lambda store, folder: store.pull(f"oci:{folder}/layout:new"),
    "tag": lambda store, _: store.tag("one", "new"),
    "remove": lambda store, _: store.remove("one"),
    "gc": lambda store, _: store.gc(),
    "adopt": lambda store, _: store.adopt(drop=True),
}


class Swap:
    """Before a process waits for a lock for the n-th time the store is moved away, and a rival may take its place."""

    def __init__(self, patch: pytest.MonkeyPatch, n: int, root: Path, rival: Path | None) -> None:
        self._real, self._root, self._rival, self.left = durable.lock, root, rival, n
        patch.setattr(durable, "lock", self)

    def __call__(self, path: str, **options: Any) -> durable.Lock:
        self.left -= 1
        if self.left == 0:
            os.rename(self._root, self._root.with_name("moved"))
            if self._rival is not None:
                os.rename(self._rival, self._root)
        return self._real(path, **options)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with garbage and an entry to drop, a rival with names and blobs of its own, and a layout to pull from."""
    folder = tmp_path_factory.mktemp("pair")
    with Store.init(folder / "store", options=FAST) as store, Store.init(folder / "rival", options=FAST) as rival:
        for each in (store, rival):
            capture(each, folder, "one", 1, 2)
            capture(each, folder, "gone", 3)
            each.remove("gone")
        capture(rival, folder, "theirs", 5)
        capture(rival, folder, "brought", 8)
        rival.push("brought", f"oci:{folder}/layout:new")
        rival.remove("brought")
    index = folder / "store/index.json"
    more = '{"digest":"sha256:' + "0" * 64 + '","mediaType":"application/vnd.oci.image.manifest.v1+json","size":1}]'
    index.write_text(index.read_text().replace("]", f",{more}", 1))
    return folder


@pytest.mark.parametrize("rival", [True, False], ids=["replaced", "moved"])
@pytest.mark.parametrize("action", ACTIONS)
def test_35_what_takes_the_stores_place_is_not_touched(
    pair: Path, tmp_path: Path, action: str, rival: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command fails, or was done already with the store that it began with."""
    for n in range(1, 30):
        place = tmp_path / str(n)
        shutil.copytree(pair, place, symlinks=True)
        root, moved = place / "store", place / "moved"
        theirs, ours = all_files(place / "rival"), link_refs(root)
        error: CasstoreError | None = None
        with monkeypatch.context() as patch, Store.open(root, options=FAST) as store:
            swap = Swap(patch, n, root, place / "rival" if rival else None)
            try:
                ACTIONS[action](store, place)
            except CasstoreError as caught:
                error = caught
        if swap.left > 0:
            break  # it takes no more locks
        if rival:
            assert all_files(root) == theirs, (n, "the rival was changed")
        else:
            assert not root.exists(), (n, os.listdir(root))
        assert error or link_refs(moved) != ours or action in {"gc", "adopt"}, (n, "success that is none")
        assert error is None or isinstance(error, StorageError | NotFound), error
        shutil.rmtree(place)
    assert n > 1
    assert error is None
    require_sound(root)


def test_35_a_long_lived_reader_notices(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    snapshot = store.open_snapshot("one")
    Path(store.path).rename(tmp_path / "moved")
    with Store.init(store.path, options=FAST) as rival:
        capture(rival, tmp_path, "theirs", 2)
    for look in (store.list, lambda: store.get("theirs"), lambda: store.remove("theirs")):
        with pytest.raises(StorageError, match="moved or replaced"):
            look()
    with pytest.raises(CasstoreError):
        snapshot.verify()
    with Store.open(store.path, options=FAST) as again:
        assert names(again) == ["theirs"]
