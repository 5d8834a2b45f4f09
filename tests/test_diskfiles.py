"""Files of a disk, listed, read and copied: what the kernel says, and of a hostile disk nothing outside of the copy."""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.diskfiles import copy_out, copying, digest_file, list_files, read_file, tar_out, tarring
from casstore.errors import AlreadyExists, CasstoreError, NotFound, StorageError, UnreadableFilesystem, UsageError
from casstore.filesystem import ext
from casstore.filesystem.bounds import Bounds
from casstore.filesystem.ext import ExtFilesystem
from casstore.filesystem.inode import Kind
from casstore.filesystem.journal import Moved
from casstore.filesystem.reader import FileReader
from tests.support.command import Casstore
from tests.support.disks import GIB, KIB, MIB, allocated, loop_mounted
from tests.support.filesystems import BytesReader, make_image, of_bytes, opened, tool, write_files
from tests.support.filetrees import DEEP, FORMS, fill_with_everything, told_by_kernel, told_by_listing

SPECIAL = {"fifo", "socket", "block device", "character device"}


def names(files: ExtFilesystem, path: bytes = b"/", *, recursive: bool = False) -> list[bytes]:
    return [entry.path for entry in list_files(files, path, recursive=recursive)]


def content(files: ExtFilesystem, path: bytes) -> bytes:
    return b"".join(read_file(files, path))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An image of 1 MiB with files, directories and links, none of which leads out of it."""
    folder = tmp_path_factory.mktemp("small")
    conf = {"etc/passwd": b"ours", "etc/conf/b": b"bb", "etc/conf/a": b"aa"}
    tree = write_files(folder / "tree", {**conf, "long": b"l" * 70_000, "x1": b"1", "x2": b"2"})
    (tree / "link").symlink_to("etc")
    (tree / "tolong").symlink_to("../../long")
    (tree / "nowhere").symlink_to("none")
    os.link(tree / "long", tree / "etc" / "again")
    (tree / "etc").chmod(0o555)
    image = make_image(folder / "image", tree, "-t", "ext4", "-b", "1024", "-O", "extent,64bit", size=MIB)
    (tree / "etc").chmod(0o755)
    return image.read_bytes()


# --- what the kernel says --------------------------------------------------------------------------------------------


@pytest.mark.needs("mke2fs", "loop")
@pytest.mark.parametrize("form", FORMS)
def test_all_that_is_told_and_copied_of_a_restored_disk_is_what_the_kernel_says(
    casstore: Casstore, tmp_path: Path, form: str
) -> None:
    (tmp_path / "tree").mkdir()
    image = make_image(tmp_path / "image", tmp_path / "tree", *FORMS[form], size=48 * MIB)
    with loop_mounted(image) as root:
        fill_with_everything(root)
    casstore("create", "base", "--disk", image)
    casstore("restore", "base", tmp_path / "restored")
    with loop_mounted(tmp_path / "restored", "ro") as root:
        expected = told_by_kernel(root)
        subprocess.run(["cp", "-a", f"{root}/.", tmp_path / "by cp"], check=True)
    assert {told.type for told in expected.values()} >= {"file", "directory", "symlink", *SPECIAL}
    assert told_by_listing(casstore.json("files", "base", "/", "-R", "--sha256")) == expected
    copied = casstore("cp", "base", "/", tmp_path / "copy", "--owners")
    assert b"fifo: left out: fifo" in copied.err
    by_cp = {path: told for path, told in told_by_kernel(tmp_path / "by cp").items() if told.type not in SPECIAL}
    assert told_by_kernel(tmp_path / "copy") == by_cp
    assert (tmp_path / "copy").stat().st_mtime_ns == (tmp_path / "by cp").stat().st_mtime_ns
    written = MIB if form in {"ext2", "ext3"} else 20 * KIB  # where there is no space that was never written
    for name, most in {"sparse": 400 * KIB, "all hole": 0, "unwritten": written}.items():
        assert allocated(tmp_path / "copy" / name) <= most


@pytest.mark.needs("mke2fs", "loop")
@pytest.mark.parametrize("form", ["ext3", "ext4", "inline data"])
def test_extents_say_where_on_the_disk_content_is_and_holes_are_none(tmp_path: Path, form: str) -> None:
    (tmp_path / "tree").mkdir()
    image = make_image(tmp_path / "image", tmp_path / "tree", *FORMS[form], size=48 * MIB)
    with loop_mounted(image, *(["data=journal"] if form == "ext3" else [])) as root:
        fill_with_everything(root)
        os.sync()
        # Blocks that begin as the journal's own do are not on the disk as they are.
        (root / "escaped").write_bytes((struct.pack(">I", 0xC03B3998) + bytes(1020)) * 40)
        os.sync()
        shutil.copyfile(image, tmp_path / "crashed")
    data = (tmp_path / "crashed").read_bytes()
    files, kinds = of_bytes(data), set()
    assert bool(files._moved) == ("has_journal" in "".join(FORMS[form]))
    for path, entry in files.walk():
        node = files.node(entry.inode)
        whole, at = files.read(node, 0, node.size), 0
        assert b"".join(files.content(node)) == whole
        for offset, disk, length in files.extents(node):
            kinds |= {disk is None} if node.kind is Kind.FILE else set()
            assert offset >= at
            assert not any(whole[at:offset]), path
            at = offset + length
            if disk is not None:
                assert data[disk : disk + length] == whole[offset:at], path
        if node.kind in {Kind.FILE, Kind.DIRECTORY} and node.inline is None:
            assert at <= node.size
            assert not any(whole[at:])
    assert kinds == ({False} if form == "ext4" else {False, True})
    assert sum(extent.length for extent in files.extents(files.find(b"/sparse"))) < 400 * KIB
    assert len(list(files.extents(files.find(b"/large")))) < 10


@pytest.mark.needs("mke2fs")
@pytest.mark.parametrize("escaped", [False, True])
def test_extents_are_cut_where_the_journal_has_a_block_of_a_file(small: bytes, escaped: bool) -> None:
    files = of_bytes(small)
    node = files.find(b"/long")
    (whole,) = files.extents(node)
    (other,) = files.extents(files.find(b"/x1"))
    assert whole.disk is not None
    assert other.disk is not None
    files._moved[whole.disk // 1024 + 5] = Moved(other.disk // 1024, escaped)
    place = None if escaped else other.disk
    assert list(files.extents(node)) == [
        (0, whole.disk, 5 * 1024),
        (5 * 1024, place, 1024),
        (6 * 1024, whole.disk + 6 * 1024, 70_000 - 6 * 1024),
    ]


# --- listing and reading ---------------------------------------------------------------------------------------------


@pytest.mark.needs("mke2fs")
def test_names_come_in_order_and_paths_may_lead_through_symlinks(small: bytes) -> None:
    files = of_bytes(small)
    assert names(files) == [b"/etc", b"/link", b"/long", b"/lost+found", b"/nowhere", b"/tolong", b"/x1", b"/x2"]
    below = [b"/etc/again", b"/etc/conf", b"/etc/conf/a", b"/etc/conf/b", b"/etc/passwd"]
    assert names(files, b"etc/", recursive=True) == below
    assert names(files, b"/link") == [b"/link/again", b"/link/conf", b"/link/passwd"]
    for path in (b"/nowhere", b"/tolong", b"//etc/./passwd"):
        (only,) = list_files(files, path)
        assert only.path == path.replace(b"//", b"/").replace(b"/./", b"/")
    (link,) = list_files(files, b"/tolong")
    assert (link.kind, link.target, link.name) == (Kind.SYMLINK, b"../../long", b"tolong")
    with pytest.raises(NotFound, match="expected a file at '/none', got none"):
        names(files, b"/none")


@pytest.mark.needs("mke2fs")
def test_content_is_read_through_symlinks_on_the_disk_only(small: bytes) -> None:
    files = of_bytes(small)
    assert content(files, b"/tolong") == b"l" * 70_000
    assert content(files, b"../../link/passwd") == b"ours"
    (entry,) = list_files(files, b"/x1")
    assert digest_file(files, entry) == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    with pytest.raises(NotFound, match="'/etc': expected a regular file, got a directory"):
        read_file(files, b"/etc")


@pytest.mark.needs("mke2fs")
def test_a_directory_is_searched_once_for_many_names(tmp_path: Path) -> None:
    tree = write_files(tmp_path / "tree", {f"many/{number:05}{'n' * 40}": b"" for number in range(700)})
    image = make_image(tmp_path / "image", tree)
    reader = BytesReader(image.read_bytes())
    files = ExtFilesystem(reader, subject="disk", bounds=Bounds(entries=800))
    for number in [*range(0, 700, 3), 4, 698]:
        files.find(b"/many/%05d%s" % (number, b"n" * 40))
    with pytest.raises(NotFound):
        files.find(b"/many/none")
    assert reader.read < 2 * MIB


@pytest.mark.needs("mke2fs")
def test_a_large_file_is_read_in_large_pieces_and_its_holes_are_not(tmp_path: Path) -> None:
    tree = write_files(tmp_path / "tree", {"large": bytes(range(256)) * (64 * KIB)})
    write_files(tree, {"hole": b"begin"})
    os.truncate(tree / "hole", 64 * GIB)
    image = make_image(tmp_path / "image", tree, size=64 * MIB)
    calls: list[int] = []
    with image.open("rb") as file:
        reader = FileReader(file.fileno(), 64 * MIB, subject="disk")

        class Counting:
            size = 64 * MIB

            def read_at(self, offset: int, length: int, /) -> bytes:
                calls.append(length)
                return reader.read_at(offset, length)

        files = ExtFilesystem(Counting(), subject="disk")
        assert sum(map(len, read_file(files, b"/large"))) == 16 * MIB
        assert len(calls) < 60
        assert max(calls) == MIB
        calls.clear()
        parts = read_file(files, b"/hole")
        assert next(parts)[:5] == b"begin"
        assert sum(len(next(parts)) for _ in range(5000)) == 5000 * MIB
        assert sum(calls) < MIB
        copied = copy_out(files, b"/hole", str(tmp_path / "copy"))
    assert (copied.content_bytes, (tmp_path / "copy").stat().st_size) == (4096, 64 * GIB)
    assert allocated(tmp_path / "copy") <= 8 * KIB


@pytest.mark.needs("mke2fs")
def test_what_is_damaged_is_told_and_passed_over_where_that_is_wanted(small: bytes) -> None:
    data = bytearray(small)
    at = data.index(b"\x02\x01x1") - 6
    struct.pack_into("<I", data, at, 99)  # an inode that is not in use
    problems: list[UnreadableFilesystem] = []
    found = [entry.path for entry in list_files(of_bytes(data), recursive=True, unreadable=problems.append)]
    assert b"/x1" not in found
    assert {b"/x2", b"/etc/conf/a"} <= set(found)
    assert len(problems) == 1
    assert "inode 99" in str(problems[0])
    with pytest.raises(UnreadableFilesystem, match="inode 99"):
        names(of_bytes(data))


# --- copying ---------------------------------------------------------------------------------------------------------


@pytest.mark.needs("mke2fs")
def test_where_a_copy_goes(small: bytes, tmp_path: Path) -> None:
    files, there = of_bytes(small), tmp_path / "there"
    there.mkdir()
    for path, destination, made in [
        (b"/etc/passwd", tmp_path / "new", "new"),
        (b"/etc/passwd", there, "there/passwd"),
        (b"/etc/conf/", there, "there/conf"),
        (b"/link", there, "there/link"),
        (b"/etc", tmp_path / "other", "other"),
        (b"/", f"{tmp_path / 'all'}/", "all"),
    ]:
        copied = copy_out(files, path, str(destination))
        assert copied.path == str(tmp_path / made)
    assert (tmp_path / "new").read_bytes() == (there / "passwd").read_bytes() == b"ours"
    assert (there / "link" / "passwd").read_bytes() == b"ours"
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o555
    assert (tmp_path / "all" / "long").samefile(tmp_path / "all" / "etc" / "again")
    assert (tmp_path / "all" / "tolong").readlink() == Path("../../long")
    for path, destination, problem in [
        (b"/etc/passwd", tmp_path / "new", "exists already"),
        (b"/etc", there / "link", "exists already"),
        (b"/", there, "exists already"),
        (b"/etc/passwd", f"{tmp_path / 'none'}/", "expected a directory, got none"),
        (b"/etc/..", tmp_path / "all", "exists already"),
        (b"/x1", "", "expected a path"),
    ]:
        if path == b"/etc" and destination == there / "link":
            (there / "link" / "etc").mkdir()
        with pytest.raises((AlreadyExists, NotFound, UsageError), match=problem):
            copy_out(files, path, str(destination))
    with pytest.raises(StorageError, match="No such file"):
        copy_out(files, b"/etc", str(tmp_path / "none" / "new"))


@pytest.mark.needs("mke2fs")
def test_force_replaces_files_and_fills_directories(small: bytes, tmp_path: Path) -> None:
    files, target = of_bytes(small), tmp_path / "etc"
    write_files(target, {"passwd": b"older and longer", "mine": b"stays", "conf/b": b"old"})
    (target / "conf" / "a").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").write_bytes(b"not touched")
    copied = copy_out(files, b"/etc", str(tmp_path), force=True)
    assert (copied.files, copied.directories) == (4, 0)
    assert (target / "passwd").read_bytes() == b"ours"
    assert (target / "mine").read_bytes() == b"stays"
    assert (target / "conf" / "a").read_bytes() == b"aa"
    assert (tmp_path / "outside").read_bytes() == b"not touched"
    assert sorted(path.name for path in target.iterdir()) == ["again", "conf", "mine", "passwd"]
    copy_out(files, b"/x1", str(target / "passwd"), force=True)
    assert (target / "passwd").read_bytes() == b"1"
    (target / "again").unlink()
    (target / "again").mkdir()
    with pytest.raises(AlreadyExists, match="expected a file there, got a directory"):
        copy_out(files, b"/etc", str(tmp_path), force=True)
    with pytest.raises(AlreadyExists, match="expected a file to replace, got a directory"):
        copy_out(files, b"/etc/again", str(target), force=True)
    assert not [path for path in target.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.needs("mke2fs")
def test_links_in_a_directory_that_is_filled_are_never_gone_through(small: bytes, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "etc").symlink_to(tmp_path / "outside")
    with pytest.raises(AlreadyExists, match="expected a directory there"):
        copy_out(of_bytes(small), b"/", str(tmp_path / "all"), force=True)
    with pytest.raises(StorageError):
        copy_out(of_bytes(small), b"/etc", str(tmp_path / "all"), force=True)
    assert not list((tmp_path / "outside").iterdir())
    # But a symlink that the caller has named is meant.
    (tmp_path / "named").symlink_to(tmp_path / "outside")
    copy_out(of_bytes(small), b"/", str(tmp_path / "named"), force=True)
    assert (tmp_path / "outside" / "etc" / "passwd").read_bytes() == b"ours"


@pytest.mark.needs("mke2fs")
@pytest.mark.parametrize("force", [False, True])
def test_two_entries_of_one_name_do_not_lead_out(tmp_path: Path, force: bool) -> None:
    """A symlink, and a directory of the same name with a file in it, which must not get to where the symlink leads."""
    victim = tmp_path / "victim"
    victim.mkdir()
    tree = write_files(tmp_path / "tree", {"ab/evil": b"evil", "zz": b"z"})
    (tree / "aa").symlink_to(victim)
    data = make_image(tmp_path / "image", tree, "-t", "ext4", "-b", "1024", size=MIB).read_bytes()
    for first, second in [(b"aa", b"ab"), (b"ab", b"aa")]:
        changed = bytearray(data)
        at = changed.index(b"\x02" + (b"\x07" if second == b"aa" else b"\x02") + second) + 2
        changed[at : at + 2] = first
        target = tmp_path / f"to {first.decode()}"
        if force:
            target.mkdir()
        copied = copy_out(of_bytes(changed), b"/", str(target), force=force)
        assert copied.skipped == 1
        assert copied.told[0][0] == b"/" + first
        assert (target / "zz").read_bytes() == b"z"
        assert not list(victim.iterdir())


@pytest.mark.needs("mke2fs")
def test_no_member_of_a_tar_comes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What unpacks a symlink, and then what is below a directory of its name, may write to where the symlink leads."""
    victim = tmp_path / "victim"
    victim.mkdir()
    tree = write_files(tmp_path / "tree", {"ab/evil": b"evil", "cb": b"evil", "zz": b"z"})
    (tree / "aa").symlink_to(victim)
    (tree / "ca").symlink_to(victim / "made")
    data = bytearray(make_image(tmp_path / "image", tree, "-t", "ext4", "-b", "1024", size=MIB).read_bytes())
    for entry in (b"\x02\x02ab", b"\x02\x01cb"):
        at = data.index(entry) + 3
        data[at : at + 1] = b"a"
    out = io.BytesIO()
    copied = tar_out(of_bytes(data), b"/", out.write)
    assert [name for name, _ in copied.told] == [b"/aa", b"/ca"]
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        assert archive.getnames() == [".", "./aa", "./ca", "./lost+found", "./zz"]
        archive.extractall(tmp_path / "out", filter="fully_trusted")  # noqa: S202  (as many programs do)
    assert not list(victim.iterdir())
    # Of a very large directory the names do not come in order, and which comes twice cannot be told.
    monkeypatch.setattr(ext, "_SORTED", 2)
    with pytest.raises(UnreadableFilesystem, match="copy it to a directory instead"):
        tar_out(of_bytes(data), b"/", io.BytesIO().write)
    copy_out(of_bytes(data), b"/", str(tmp_path / "copy"))


@pytest.mark.needs("mke2fs")
def test_memory_does_not_grow_with_long_paths(small: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of 16 MiB: 3,000 names for a file, each with a path of 12 KiB."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    image = make_image(tmp_path / "image", tmp_path / "tree", "-t", "ext4", "-b", "4096", size=16 * MIB)
    deep = "".join(f"mkdir {'d' * 250}\ncd {'d' * 250}\n" for _ in range(48))
    links = "expand_dir .\n" * 12 + "".join(f"ln /file f{n}\n" for n in range(3000))
    (tmp_path / "commands").write_text(f"write {tmp_path / 'file'} /file\n{deep}{links}")
    tool("debugfs", "-w", "-f", tmp_path / "commands", image)
    files = opened(image)
    monkeypatch.setattr(copying, "_MOST_PATHS", MIB)
    tracemalloc.start()
    try:
        copied = copy_out(files, b"/", str(tmp_path / "copy"))
        assert tracemalloc.get_traced_memory()[1] < 10 * MIB
    finally:
        tracemalloc.stop()
    assert copied.files == 3001
    monkeypatch.setattr(tarring, "_MOST_NAMES", 5)
    with pytest.raises(UnreadableFilesystem, match="'/etc/again': expected at most 5 bytes of paths"):
        tar_out(of_bytes(small), b"/", io.BytesIO().write)


@pytest.mark.needs("mke2fs")
def test_a_copy_that_fails_leaves_nothing(small: bytes, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(small)
    (tmp_path / "to").mkdir()
    tool("debugfs", "-w", "-R", "sif /x2 flags 0x80800", tmp_path / "image")
    files = opened(tmp_path / "image")
    with pytest.raises(UnreadableFilesystem, match=r"'/x2': .* encrypted; restore the disk, mount it"):
        copy_out(files, b"/", str(tmp_path / "to" / "new"))
    with pytest.raises(UnreadableFilesystem, match="encrypted"):
        copy_out(files, b"/x2", str(tmp_path / "to"))
    with pytest.raises(UnreadableFilesystem, match="encrypted"):
        read_file(files, b"/x2")
    with pytest.raises(UnreadableFilesystem, match="encrypted"):
        tar_out(files, b"/", lambda _: None)
    assert not list((tmp_path / "to").iterdir())
    tool("debugfs", "-w", "-R", "sif /etc flags 0x80800", tmp_path / "image")
    with pytest.raises(UnreadableFilesystem, match=r"'/etc': .* encrypted"):
        names(opened(tmp_path / "image"), b"/etc")
    problems: list[UnreadableFilesystem] = []
    found = list(list_files(opened(tmp_path / "image"), recursive=True, unreadable=problems.append))
    assert len(problems) == 1
    assert b"/etc" in [entry.path for entry in found]


@pytest.mark.needs("mke2fs")
def test_targets_and_times_that_no_file_here_can_have(small: bytes, tmp_path: Path) -> None:
    data = bytearray(small)
    at = data.index(b"../../long")
    data[at + 3] = 0
    with pytest.raises(UnreadableFilesystem, match="got one with NUL"):
        copy_out(of_bytes(data), b"/", str(tmp_path / "copy"))
    with pytest.raises(UnreadableFilesystem, match="got one with NUL"):
        tar_out(of_bytes(data), b"/", lambda _: None)
    assert not (tmp_path / "copy").exists()


@pytest.mark.needs("mke2fs")
def test_a_new_directory_is_filled_in_the_order_of_the_disk(tmp_path: Path) -> None:
    first = make_image(tmp_path / "first", write_files(tmp_path / "tree", {f"z/{n}": b"z" * 9000 for n in range(9)}))
    for number in range(9):  # later files, whose names come first
        (tmp_path / "file").write_bytes(b"%d" % number * 9000)
        tool("debugfs", "-w", "-R", f"write {tmp_path / 'file'} a{number}", first)
    places: list[int] = []

    class Watched(BytesReader):
        def read_at(self, offset: int, length: int, /) -> bytes:
            if length == 9000 // 4096 * 4096 + 4096:
                places.append(offset)
            return super().read_at(offset, length)

    copy_out(ExtFilesystem(Watched(first.read_bytes()), subject="disk"), b"/", str(tmp_path / "copy"))
    assert len(places) == 18
    assert places == sorted(places)
    assert (tmp_path / "copy" / "a3").read_bytes() == b"3" * 9000


@pytest.mark.needs("mke2fs")
def test_zeros_take_no_space(tmp_path: Path) -> None:
    """A file may lie where the disk has a hole: a small snapshot must not fill a file system."""
    tree = write_files(tmp_path / "tree", {"a": b"x" * 5 * MIB})
    image = make_image(tmp_path / "image", tree, size=16 * MIB)
    (extent,) = opened(image).extents(opened(image).find(b"/a"))
    data = bytearray(image.read_bytes())
    assert extent.disk is not None
    data[extent.disk + MIB : extent.disk + 4 * MIB] = bytes(3 * MIB)
    copied = copy_out(of_bytes(data), b"/a", str(tmp_path / "copy"))
    assert copied.content_bytes == 2 * MIB
    assert allocated(tmp_path / "copy") == 2 * MIB
    assert (tmp_path / "copy").read_bytes() == b"x" * MIB + bytes(3 * MIB) + b"x" * MIB


@pytest.mark.needs("mke2fs")
def test_modes_are_kept_but_for_what_gives_rights(tmp_path: Path) -> None:
    tree = write_files(tmp_path / "tree", {"setuid": b"s", "shut": b"n"})
    (tree / "setuid").chmod(0o6755)
    (tree / "shut").chmod(0)
    image = make_image(tmp_path / "image", tree)
    copy_out(opened(image), b"/", str(tmp_path / "copy"))
    assert stat.S_IMODE((tmp_path / "copy" / "setuid").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "copy" / "shut").stat().st_mode) == 0
    if os.geteuid() == 0:
        copy_out(opened(image), b"/", str(tmp_path / "owned"), owners=True)
        assert stat.S_IMODE((tmp_path / "owned" / "setuid").stat().st_mode) == 0o6755


@pytest.mark.needs("mke2fs")
def test_a_directory_deeper_than_descriptors_are_kept_open(tmp_path: Path) -> None:
    deep = "/".join(f"d{number}" for number in range(180))
    tree = write_files(tmp_path / "tree", {f"{deep}/a": b"x", "z": b"z"})
    os.link(tree / deep / "a", tree / deep / "b")
    os.link(tree / deep / "a", tree / "y")
    image = make_image(tmp_path / "image", tree)
    for force in (False, True):
        copied = copy_out(opened(image), b"/", str(tmp_path / "copy"), force=force)
        assert (copied.files, copied.links) == (2, 2)
        assert (tmp_path / "copy" / deep / "b").samefile(tmp_path / "copy" / "y")
        assert len(os.listdir("/proc/self/fd")) < 60


@pytest.mark.needs("mke2fs")
def test_a_tar_has_the_same_files(small: bytes, tmp_path: Path) -> None:
    out = io.BytesIO()
    copied = tar_out(of_bytes(small), b"/", out.write)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        archive.extractall(tmp_path / "out", filter="fully_trusted")  # noqa: S202  (made above)
    copy_out(of_bytes(small), b"/", str(tmp_path / "copy"), owners=os.geteuid() == 0)
    theirs, ours = told_by_kernel(tmp_path / "out"), told_by_kernel(tmp_path / "copy")
    assert {path: told._replace(mtime_ns=0) for path, told in theirs.items()} == {
        path: told._replace(mtime_ns=0) for path, told in ours.items()
    }
    assert (copied.files, copied.links, copied.symlinks) == (6, 1, 3)
    out = io.BytesIO()
    tar_out(of_bytes(small), b"/etc/conf", out.write)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        assert archive.getnames() == ["conf", "conf/a", "conf/b"]


@pytest.mark.needs("mke2fs")
def test_any_damage_ends_in_an_error_or_in_a_copy_within_its_directory(
    small: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    used = [at for at in range(0, len(small), 4) if any(small[at : at + 4])]
    folder = tmp_path_factory.mktemp("damage")

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(used), st.binary(min_size=1, max_size=8)), min_size=1, max_size=8))
    def check(edits: list[tuple[int, bytes]]) -> None:
        data = bytearray(small)
        for at, new in edits:
            data[at : at + len(new)] = new
        try:
            files = ExtFilesystem(BytesReader(data), subject="disk", bounds=Bounds(read_bytes=8 * MIB, entries=5000))
            list(list_files(files, recursive=True, unreadable=lambda _: None))
            copy_out(files, b"/", str(folder / "copy"))
        except CasstoreError:
            assert not list(folder.iterdir())
        else:
            assert [path.name for path in folder.iterdir()] == ["copy"]
            subprocess.run(["chmod", "-R", "u+rwX", folder / "copy"], check=True)
            shutil.rmtree(folder / "copy")

    check()


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.needs("mke2fs")
@pytest.mark.parametrize(
    ("bounds", "says"),
    [({"extents": 1}, "at most 1 pieces of files"), ({"hole_bytes": 100}, "at most 100 bytes of holes")],
)
def test_bounds_end_the_reading_of_content(tmp_path: Path, bounds: dict[str, float], says: str) -> None:
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree" / "sparse").open("wb") as file:
        for piece in range(5):
            file.seek(piece * 100_000)
            file.write(b"s")
    files = opened(make_image(tmp_path / "image", tmp_path / "tree"), **bounds)
    with pytest.raises(UnreadableFilesystem, match=says):
        content(files, b"/sparse")


def test_a_disk_may_be_read_twice() -> None:
    assert Bounds.of_disk(100 * GIB).read_bytes == 204 * GIB


def test_the_tree_of_everything_is_deep_enough() -> None:
    assert DEEP.count(b"/") == 30
