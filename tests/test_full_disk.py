"""Full disks, of bytes and of inodes: each verb fails with exit code 17 and says what is left, nothing is lost, and rm
and gc make room again (rows 1, 2, 4, 38, 39, 49, 110).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from casstore import Store
from tests.support import disks
from tests.support.command import Casstore, Result
from tests.support.disks import MIB
from tests.support.stores import (
    FAST,
    blobs,
    capture,
    disk_bytes,
    leftovers,
    link_refs,
    reachable,
    require_sound,
    write_disk,
)

pytestmark = pytest.mark.needs("loop")

ONE, GONE, TOO, MORE = (1, 2), tuple(range(3, 13)), (14, 15), tuple(range(20, 40))


@dataclass(frozen=True)
class Small:
    """A small file system."""

    root: Path
    of: str
    """What there is little of: bytes or inodes."""

    def fill(self) -> None:
        """Use the rest of it."""
        if self.of == "bytes":
            with (self.root / "filler").open("ab", buffering=0) as file:
                for size in (MIB, 4096, 1):
                    with _until_full():
                        while True:
                            file.write(bytes(size))
        else:
            (self.root / "fillers").mkdir(exist_ok=True)
            number = len(os.listdir(self.root / "fillers"))
            with _until_full():
                for n in itertools.count(number):
                    (self.root / f"fillers/{n}").touch()
        free = os.statvfs(self.root)
        assert (free.f_bavail if self.of == "bytes" else free.f_favail) == 0


@contextlib.contextmanager
def _until_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


@pytest.fixture(params=["ext4 of few bytes", "ext4 of few inodes", "tmpfs of few bytes", "tmpfs of few inodes"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Small]:
    kind, _, _, of = request.param.split(" ")
    if kind == "tmpfs":
        mounted = disks.tmpfs(tmp_path, "size=12m" if of == "bytes" else "nr_inodes=700")
    else:
        size, *options = (24 * MIB, "-m", "0") if of == "bytes" else (64 * MIB, "-N", "700")
        image = disks.make_file_system(tmp_path / "image", "ext4", *disks.EXT4_FEATURES, *options, size=size)
        mounted = disks.loop_mounted(image)
    with mounted as root:
        yield Small(root, of)


@pytest.fixture
def verbs(small: Small, tmp_path: Path) -> Casstore:
    """The command line on a store of the snapshots `one`, `gone` and `too` on the small file system, which is full."""
    casstore = Casstore(tmp_path)
    casstore.store = small.root / "store"
    casstore.env["CASSTORE_STORE"] = str(casstore.store)
    casstore("create", "one", "--disk", write_disk(tmp_path / "disk", *ONE))
    casstore("create", "gone", "--disk", write_disk(tmp_path / "disk", *GONE))
    casstore("create", "too", "--disk", write_disk(tmp_path / "disk", *TOO))
    with Store.init(tmp_path / "elsewhere", options=FAST) as other:
        capture(other, tmp_path, "more", *MORE)
        other.push("more", f"oci:{tmp_path}/layout")
    small.fill()
    return casstore


def refused(small: Small, result: Result) -> None:
    """Exit code 17, and a text that says what is missing and what to do."""
    assert result.code == 17, result.stderr
    assert "No space left on device" in result.stderr
    assert f" 0 {small.of}" in result.stderr
    assert "casstore gc" in result.stderr
    assert "unexpected" not in result.stderr


def test_4_a_full_disk_refuses_cleanly_and_can_be_emptied(small: Small, verbs: Casstore, tmp_path: Path) -> None:
    """Rows 1, 2, 4, 39, 49 and 110, by the command line."""
    disk = write_disk(tmp_path / "disk", *MORE)
    before = {"one", "gone", "too"}
    refusing: list[tuple[object, ...]] = [
        ("create", "new", "--disk", disk),
        ("create", "hits", "--disk", write_disk(tmp_path / "disk2", *ONE)),
        ("pull", f"oci:{tmp_path}/layout:more"),
        ("restore", "gone", small.root / "restored"),
    ]
    for verb in refusing:
        refused(small, verbs.run(*verb))
        assert link_refs(verbs.store).keys() == before
        assert not list(small.root.glob("*restored*"))
        small.fill()
    tagged = verbs.run("tag", "one", "two")
    if tagged.code:  # a symlink may find its place in a directory
        refused(small, tagged)
    else:
        before.add("two")
    assert link_refs(verbs.store).keys() == before
    small.fill()

    # What needs no space works.
    verbs("list")
    verbs("inspect", "one")
    verbs("verify", "--all")
    verbs("restore", "gone", tmp_path / "restored")
    assert (tmp_path / "restored").read_bytes() == disk_bytes(*GONE)
    verbs("gc", "--dry-run")
    verbs("check", "--read-data")
    small.fill()

    verbs("rm", "gone", "too")
    verbs("gc")
    assert link_refs(verbs.store).keys() == before - {"gone", "too"}
    assert blobs(verbs.store) == reachable(verbs.store)
    assert leftovers(verbs.store) == []
    verbs("check", "--read-data")
    verbs("create", "fits", "--disk", write_disk(tmp_path / "disk", 50))
    require_sound(verbs.store, contents={"one": disk_bytes(*ONE), "fits": disk_bytes(50)})


@pytest.mark.parametrize("used", [False, True])
def test_39_gc_works_where_nothing_is_left(small: Small, verbs: Casstore, used: bool) -> None:
    """Rows 38 and 39: 300 names would not fit into a trash that is not there yet, nor into one that has to grow."""
    (small.root / "filler").unlink(missing_ok=True)
    for path in small.root.glob("fillers/*"):
        path.unlink()
    if used:
        verbs("rm", "gone")
    else:
        (verbs.store / "refs/gone").unlink()
        with contextlib.suppress(FileNotFoundError):
            (verbs.store / "trash").rmdir()
    for n in range(300):
        (verbs.store / "blobs/sha256" / hashlib.sha256(bytes(n)).hexdigest()).write_bytes(b"garbage")
    (verbs.store / "tmp").mkdir(exist_ok=True)
    (verbs.store / "tmp/op-0123456789abcdef").mkdir()
    (verbs.store / "tmp/op-0123456789abcdef/lease").touch()
    small.fill()
    assert len(verbs.json("gc")["removed"]) >= 300
    assert len(verbs.json("gc")["removed"]) == 0
    assert blobs(verbs.store) == reachable(verbs.store)
    assert leftovers(verbs.store) == []
    require_sound(verbs.store, contents={"one": disk_bytes(*ONE)})


def test_39_a_hundred_names_can_be_removed_where_nothing_is_left(small: Small, verbs: Casstore) -> None:
    """Rows 2 and 39: the trash would have to grow. What it has no room for is removed without a way back."""
    (small.root / "filler").unlink(missing_ok=True)
    for path in small.root.glob("fillers/*"):
        path.unlink()
    names = [f"a-name-that-takes-some-room-in-a-directory-{n}" for n in range(100)]
    with Store.open(verbs.store, options=FAST) as store:
        for name in names:
            store.tag("gone", name)
    small.fill()
    verbs("rm", "gone", *names)
    assert link_refs(verbs.store).keys() == {"one", "too"}
    verbs("gc")
    verbs("check")
    assert blobs(verbs.store) == reachable(verbs.store)
    assert leftovers(verbs.store) == []
