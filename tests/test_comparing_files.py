"""What differs between the files of two snapshots is what differs between two trees, file by file."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.comparing.disks import compare_disks
from casstore.comparing.files import FileDifference, OneFile, compare_files
from casstore.comparing.sharing import AlikeReader
from casstore.errors import NotFound, UnreadableFilesystem
from casstore.filesystem.ext import ExtFilesystem
from casstore.storeddisk import StoredDisk
from tests.support.artifacts import MemoryBlobs
from tests.support.disks import KIB, MIB, edit_with_debugfs, loop_mounted
from tests.support.filesystems import PLAIN, BytesReader, make_image, opened, tool, write_files

Told = tuple[dict[str, int], dict[str, int], dict[str, set[str]]]
"""Added and removed files with their sizes, and what changed about the others, by paths without "/" in front."""


def told(found: FileDifference) -> Told:
    def sizes(files: Sequence[OneFile]) -> dict[str, int]:
        return {os.fsdecode(file.path[1:]): file.size if file.kind.name == "FILE" else 0 for file in files}

    changed = {os.fsdecode(file.path[1:]): {str(each) for each in file.what} for file in found.changed + found.touched}
    assert found.unreadable == ()
    for files in (found.added, found.removed, found.changed, found.touched):
        paths = [file.path for file in files]
        assert paths == sorted(set(paths))
    return sizes(found.added), sizes(found.removed), changed


def walked(a: Path, b: Path) -> Told:
    """The same of two directories of this machine, by looking at every file."""
    files = [{str(path.relative_to(root)): path for path in root.rglob("*")} for root in (a, b)]
    for each in files:
        each.pop("lost+found", None)

    def size(path: Path) -> int:
        return path.lstat().st_size if path.is_file() and not path.is_symlink() else 0

    changed: dict[str, set[str]] = {}
    for name in files[0].keys() & files[1].keys():
        what = set(_what(files[0][name], files[1][name]))
        if what:
            changed[name] = what
    return (
        {name: size(path) for name, path in files[1].items() if name not in files[0]},
        {name: size(path) for name, path in files[0].items() if name not in files[1]},
        changed,
    )


def _what(a: Path, b: Path) -> list[str]:
    one, other = a.lstat(), b.lstat()
    if one.st_mode >> 12 != other.st_mode >> 12:
        return ["type"]
    what = []
    if a.is_symlink():
        what += ["target"] * (a.readlink() != b.readlink())
    elif a.is_file():
        what += ["content"] * (a.read_bytes() != b.read_bytes())
    what += ["mode"] * (one.st_mode != other.st_mode)
    what += ["owner"] * ((one.st_uid, one.st_gid) != (other.st_uid, other.st_gid))
    touched = not what and not (a.is_dir() and not a.is_symlink()) and one.st_mtime_ns != other.st_mtime_ns
    return what + ["mtime"] * touched


def compared(a: Path, b: Path) -> FileDifference:
    """The files on two disks, which must come out the same with the disks' difference and without."""
    blobs = MemoryBlobs()
    one = blobs.capture(a)
    two = blobs.capture(b, one)
    difference = compare_disks(one, two)
    disks = StoredDisk(one, one.map.disks[0]), StoredDisk(two, two.map.disks[0])
    with_it = compare_files(
        ExtFilesystem(AlikeReader(disks[0], disks[1], difference), subject="A"),
        ExtFilesystem(disks[1], subject="B"),
        difference,
    )
    for changed in (compare_disks(one, two, exact=False), None):
        other = compare_files(opened(a), opened(b), changed)
        assert replace(other, unreadable=()) == replace(with_it, unreadable=())
        # Of what is encrypted only that it lies where it lay can be told.
        assert {path for path, _ in other.unreadable} >= {path for path, _ in with_it.unreadable}
    return with_it


def some_tree(root: Path, seed: int) -> Path:
    """Some files and links, with times that say nothing."""
    rng = random.Random(seed)
    names = ["a", "b", "b/x", "b.c", "b/x/deep", "d", "e", "f/g", "f/h", "n\udcff"]
    files: dict[str, bytes] = {}
    for name in names:
        kind = rng.random()
        if any(name.startswith(other + "/") for other in files) or kind < 0.25:
            continue
        if kind < 0.4:
            (root / name).mkdir(parents=True, exist_ok=True)
        elif not (root / name).exists():
            size = rng.choice([0, 1, 40, 5000, 5000, 70_000])
            write_files(root, {name: random.Random(rng.randrange(3)).randbytes(size)})
            files[name] = b""
            (root / name).chmod(rng.choice([0o644, 0o644, 0o755]))
    root.mkdir(exist_ok=True)
    (root / "link").symlink_to(rng.choice(["a", "b", "c" * 100]))
    if "a" in files:
        (root / "hard").hardlink_to(root / "a")
    for path in [root, *root.rglob("*")]:
        os.utime(path, (0, rng.choice([10**9, 10**9, 10**9 + 5])), follow_symlinks=False)
    return root


@pytest.mark.needs("mke2fs")
@settings(max_examples=20)
@given(seeds=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), small=st.booleans())
def test_files_that_differ_are_those_that_differ(
    tmp_path_factory: pytest.TempPathFactory, seeds: tuple[int, int], small: bool
) -> None:
    folder = tmp_path_factory.mktemp("trees")
    trees = [some_tree(folder / f"tree{n}", seed) for n, seed in enumerate(seeds)]
    form = (*PLAIN, "-b", "1024") if small else (*PLAIN, "-b", "4096")
    images = [make_image(folder / f"image{n}", tree, *form, size=8 * MIB) for n, tree in enumerate(trees)]
    assert told(compared(*images)) == walked(*trees)


@pytest.mark.needs("mke2fs", "debugfs")
def test_work_on_a_disk_is_found_again(tmp_path: Path) -> None:
    rng = random.Random(7)
    tree = write_files(
        tmp_path / "tree", {f"usr/lib/p{n % 7}/m{n}": rng.randbytes(rng.randrange(9000)) for n in range(90)}
    )
    (tree / "var/lib").mkdir(parents=True)
    write_files(tree, {"var/lib/app.db": b""})
    one = make_image(tmp_path / "one", tree)
    two = tmp_path / "two"
    shutil.copy(one, two)
    done = edit_with_debugfs(two, seed=3, changed=10, rows=0, added=4, removed=3)
    found = compared(one, two)
    added = {os.fsdecode(file.path[1:]) for file in found.added if file.kind.name == "FILE"}
    assert added == set(done.added)
    assert {os.fsdecode(file.path[1:]) for file in found.removed} == set(done.removed)
    changed = {os.fsdecode(file.path[1:]) for file in found.changed if "content" in file.what}
    assert changed == set(done.changed)


@pytest.mark.needs("loop")
def test_what_the_kernel_wrote_is_found_again(tmp_path: Path) -> None:
    """Two mounts, gone through file by file, say the same."""
    one = make_image(tmp_path / "one", some_tree(tmp_path / "tree", 5), *PLAIN, size=16 * MIB)
    two = tmp_path / "two"
    with loop_mounted(one) as root:
        write_files(root, {f"many/{n:03}": b"%d" % n * (n % 50) * 100 for n in range(300)})
        (root / "grows").write_bytes(b"g" * 9000)
        os.mknod(root / "device", 0o020644, os.makedev(1, 3))
    shutil.copy(one, two)
    with loop_mounted(two) as root:
        (root / "many/007").write_bytes(b"other")
        (root / "many/008").chmod(0o600)
        os.chown(root / "many/009", 7, 8)
        os.utime(root / "many/010", (1, 1))
        (root / "many/011").unlink()
        (root / "many/012").rename(root / "moved")
        with (root / "many/049").open("r+b") as file:
            file.seek(3000)
            file.write(b"in place")
        (root / "grows").write_bytes((root / "grows").read_bytes() + b"more")
        (root / "new/place").mkdir(parents=True)
        (root / "new/place/link").symlink_to("x" * 80)
        (root / "many").chmod(0o700)
        (root / "many/013").unlink()
        (root / "many/013").mkdir()
        copied = (root / "many/033").read_bytes()  # the same again, in another place
        (root / "many/033.tmp").write_bytes(copied)
        (root / "many/033.tmp").rename(root / "many/033")
    found = compared(one, two)
    with loop_mounted(one, "ro") as a, loop_mounted(two, "ro") as b:
        assert told(found) == walked(a, b)
    changed = {file.path: {str(each) for each in file.what} for file in found.changed}
    assert changed[b"/many/013"] == {"type"}
    assert changed[b"/many"] == {"mode"}
    assert b"/many/033" not in changed


@pytest.mark.needs("mke2fs", "debugfs")
def test_devices_owners_and_modes(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    write_files(tmp_path / "tree", {"file": b"1", "other": b"1"})
    images = []
    for name, minor, uid, mode in (("one", 3, 0, "0100644"), ("two", 4, 70000, "0104755")):
        image = make_image(tmp_path / name, tmp_path / "tree", size=8 * MIB)
        tool("debugfs", "-w", "-R", f"mknod device c 1 {minor}", image)
        tool("debugfs", "-w", "-R", f"sif file uid {uid & 0xFFFF}", image)
        tool("debugfs", "-w", "-R", f"sif file uid_high {uid >> 16}", image)
        tool("debugfs", "-w", "-R", f"sif other mode {mode}", image)
        images.append(image)
    found = compared(*images)
    told_of = {file.path: {str(each) for each in file.what} for file in found.changed}
    assert told_of == {b"/device": {"device"}, b"/file": {"owner"}, b"/other": {"mode"}}


@pytest.mark.needs("mke2fs", "debugfs")
def test_what_is_encrypted_or_damaged_is_told_and_the_rest_compared(tmp_path: Path) -> None:
    tree = write_files(tmp_path / "tree", {"secret/inside": b"1", "torn/inside": b"2", "plain": b"3" * 5000})
    write_files(tree, {"sealed": b"s" * 9000})
    one = make_image(tmp_path / "one", tree, *PLAIN, "-b", "1024", size=8 * MIB)
    two = tmp_path / "two"
    for name in ("secret", "sealed"):
        tool("debugfs", "-w", "-R", f"sif {name} flags 0x80800", one)
    shutil.copy(one, two)
    block = int(tool("debugfs", "-R", "bmap torn 0", two).split()[-1])
    with two.open("r+b") as file:
        file.seek(block * 1024 + 4)
        file.write(b"\1\0")
    tool("debugfs", "-w", "-R", "sif plain mode 0100600", two)
    found = compared(one, two)
    assert [path for path, _ in found.unreadable] == [b"/secret", b"/torn"]
    assert "encrypted" in found.unreadable[0][1]
    assert "damaged" in found.unreadable[1][1]
    assert [(file.path, [str(each) for each in file.what]) for file in found.changed] == [(b"/plain", ["mode"])]


@pytest.mark.needs("mke2fs", "debugfs")
def test_only_some_paths(tmp_path: Path) -> None:
    files = {"etc/a": b"1", "etc/b/c": b"2", "etcetera": b"3", "var/x": b"4"}
    images = [
        make_image(tmp_path / str(n), write_files(tmp_path / f"tree{n}", each), size=8 * MIB)
        for n, each in enumerate((files, {name: data + b"!" for name, data in files.items()} | {"etc/new": b""}))
    ]

    def paths(*wanted: bytes) -> list[bytes]:
        found = compare_files(opened(images[0]), opened(images[1]), paths=wanted)
        return sorted([file.path for file in found.changed] + [file.path for file in found.added])

    assert paths(b"etc/") == paths(b"/etc") == [b"/etc/a", b"/etc/b/c", b"/etc/new"]
    assert paths(b"/etc/b", b"var") == [b"/etc/b/c", b"/var/x"]
    assert paths(b"etc/new") == [b"/etc/new"]
    assert len(paths(b"/")) == len(paths()) == 5
    with pytest.raises(NotFound, match="etc/nothing"):
        paths(b"etc/nothing")


@pytest.mark.needs("mke2fs", "debugfs")
def test_files_that_share_a_block_of_the_disk_with_changed_ones(tmp_path: Path) -> None:
    """In a file system of blocks of 1 KiB, every second file has changed in its place."""
    tree = write_files(tmp_path / "tree", {f"f{n:02}": bytes([n + 1]) * 3000 for n in range(40)})
    one = make_image(tmp_path / "one", tree, *PLAIN, "-b", "1024", size=8 * MIB)
    two = tmp_path / "two"
    shutil.copy(one, two)
    script = tmp_path / "script"
    script.write_text("".join(f"bmap f{n:02} {block}\n" for n in range(0, 40, 2) for block in range(3)))
    blocks = [int(line) for line in tool("debugfs", "-f", script, two).splitlines() if line.isdecimal()]
    assert len(blocks) == 60
    with two.open("r+b") as file:
        for block in blocks:
            file.seek(block * KIB)
            file.write(b"changed")
    found = compared(one, two)
    assert [file.path for file in found.changed] == [b"/f%02d" % n for n in range(0, 40, 2)]


@pytest.mark.needs("mke2fs")
def test_holes_in_files(tmp_path: Path) -> None:
    images = []
    for name, middle in (("one", None), ("two", b"data" * KIB)):
        tree = write_files(tmp_path / name, {"zeros": b"", "filled": b"", "holes": b""})
        for file, content in (("zeros", bytes(16 * KIB)), ("filled", middle), ("holes", None)):
            with (tree / file).open("wb") as out:
                out.truncate(100 * KIB)
                if content is not None and (file != "zeros" or name == "two"):
                    out.seek(40 * KIB)
                    out.write(content)
        images.append(make_image(tmp_path / f"{name}.ext4", tree, size=8 * MIB))
    found = compared(*images)
    assert [(file.path, [str(each) for each in file.what]) for file in found.changed] == [(b"/filled", ["content"])]


@pytest.mark.needs("mke2fs")
def test_what_is_found_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty, full = (
        opened(make_image(tmp_path / str(n), write_files(tmp_path / f"tree{n}", files), size=8 * MIB))
        for n, files in enumerate(({"x": b""}, {f"{n:0100}": b"" for n in range(20)} | {"x": b""}))
    )
    assert compare_files(empty, full).count == 20
    monkeypatch.setattr("casstore.comparing.files._MOST_PATHS", 19 * 101)
    with pytest.raises(UnreadableFilesystem, match="paths that differ"):
        compare_files(empty, full)


@pytest.mark.needs("mke2fs")
def test_files_that_stay_are_not_read(tmp_path: Path) -> None:
    """Of two disks with 6 MiB of files, one of which grew and one of which was moved, hardly anything is read."""
    rng = random.Random(3)
    files = {f"f{n}": rng.randbytes(100_000) for n in range(60)}
    one = make_image(tmp_path / "one", write_files(tmp_path / "tree", files), size=16 * MIB)
    two = tmp_path / "two"
    shutil.copy(one, two)
    (tmp_path / "grown").write_bytes(files["f7"] + b"more")
    tool("debugfs", "-w", "-R", "rm f7", two)
    tool("debugfs", "-w", "-R", f"write {tmp_path / 'grown'} f7", two)
    blobs = MemoryBlobs()
    a = blobs.capture(one)
    b = blobs.capture(two, a)
    difference = compare_disks(a, b)
    readers = [BytesReader(path.read_bytes()) for path in (one, two)]
    a_files, b_files = (ExtFilesystem(each, subject="disk") for each in readers)
    found = compare_files(a_files, b_files, difference)
    assert [file.path for file in found.changed] == [b"/f7"]
    assert max(each.read for each in readers) < 200 * KIB
