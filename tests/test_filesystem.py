"""The files of a disk: what e2fsprogs and the kernel say is there, and of a hostile disk nothing but an error."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.disk import DiskSource
from casstore.errors import CasstoreError, NotFound, SourceError, UnreadableFilesystem, UsageError
from casstore.filesystem.bounds import Bounds, Budget
from casstore.filesystem.ext import ExtFilesystem
from casstore.filesystem.inode import Kind
from casstore.filesystem.mapping import by_extents
from casstore.filesystem.reader import FileReader, SourceReader
from tests.support.disks import KIB, MIB, loop_mounted
from tests.support.filesystems import (
    BytesReader,
    content_of,
    content_of_tree,
    make_image,
    of_bytes,
    opened,
    tool,
    write_files,
    write_varied_tree,
)

FORMS = {
    "ext2": ("-t", "ext2", "-b", "1024", "-O", "filetype,sparse_super"),
    "ext2 without kinds": ("-t", "ext2", "-b", "4096", "-O", "^filetype"),
    "revision 0": ("-t", "ext2", "-r", "0", "-b", "1024"),
    "ext3": ("-t", "ext3", "-b", "1024", "-O", "has_journal,filetype,dir_index"),
    "ext4": ("-t", "ext4", "-O", "extent,64bit,flex_bg,metadata_csum,has_journal,dir_index"),
    "blocks of 1 KiB": ("-t", "ext4", "-b", "1024", "-O", "extent,dir_index"),
    "32 bits": ("-t", "ext4", "-b", "4096", "-O", "extent,^64bit"),
    "small inodes": ("-t", "ext4", "-b", "4096", "-O", "extent,^64bit", "-I", "128"),
    "inline data": ("-t", "ext4", "-b", "4096", "-O", "extent,inline_data,metadata_csum", "-I", "256"),
    "clusters": ("-t", "ext4", "-b", "4096", "-O", "extent,bigalloc", "-C", "65536"),
    "scattered descriptors": ("-t", "ext4", "-b", "1024", "-O", "extent,64bit,meta_bg,^resize_inode,sparse_super"),
    "two backups": ("-t", "ext4", "-b", "1024", "-O", "extent,meta_bg,^resize_inode,sparse_super2"),
}


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_varied_tree(tmp_path_factory.mktemp("varied"))


@pytest.mark.needs("mke2fs", "debugfs")
@pytest.mark.parametrize("form", [form for form in FORMS if form != "inline data"])  # debugfs rounds such files up
def test_all_files_are_as_e2fsprogs_reads_them(varied: Path, tmp_path: Path, form: str) -> None:
    size = 700 * MIB if "meta_bg" in FORMS[form][-1] else 100 * MIB
    image = make_image(tmp_path / "image", varied, *FORMS[form], size=size)
    (tmp_path / "out").mkdir()
    tool("debugfs", "-R", f"rdump / {tmp_path / 'out'}", image)
    with image.open("rb") as file:
        reader = FileReader(file.fileno(), size, subject="disk")
        found = content_of(ExtFilesystem(reader, subject="disk"))
    assert found == content_of_tree(tmp_path / "out")
    assert found.keys() == content_of_tree(varied).keys()


@pytest.mark.needs("mke2fs")
def test_parts_of_a_file_are_those_of_the_whole(varied: Path, tmp_path: Path) -> None:
    files = opened(make_image(tmp_path / "image", varied, *FORMS["blocks of 1 KiB"], size=40 * MIB))
    node, whole = files.find(b"/sparse"), (varied / "sparse").read_bytes()

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, len(whole) + 10), st.integers(0, 300_000))
    def check(offset: int, length: int) -> None:
        assert files.read(node, offset, length) == whole[offset : offset + length]

    check()


@pytest.mark.needs("mke2fs")
def test_what_a_file_is_besides_its_content(tmp_path: Path) -> None:
    tree = write_files(tmp_path / "tree", {"file": b"12345"})
    (tree / "file").chmod(0o4750)
    os.utime(tree / "file", (0, 1_700_000_000))
    image = make_image(tmp_path / "image", tree)
    node = opened(image).find(b"file")
    assert (node.kind, node.mode, node.size, node.links) == (Kind.FILE, 0o4750, 5, 1)
    assert (node.uid, node.gid) == (os.getuid(), os.getgid())
    assert node.mtime_ns == 1_700_000_000 * 10**9
    for number, kind in enumerate([Kind.FIFO, Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE]):
        letter = {Kind.FIFO: "p", Kind.CHARACTER_DEVICE: "c 1 3", Kind.BLOCK_DEVICE: "b 7 0"}[kind]
        tool("debugfs", "-w", "-R", f"mknod special{number} {letter}", image)
        assert opened(image).find(b"/special%d" % number).kind is kind


@pytest.mark.needs("mke2fs")
def test_paths_and_symlinks_stay_below_the_root(tmp_path: Path) -> None:
    tree = write_files(tmp_path / "tree", {"etc/passwd": b"ours", "a/b/file": b"deep"})
    for name, target in {
        "up": "../../../../../etc/passwd",
        "a/absolute": "/etc/passwd",
        "a/relative": "b/../../etc",
        "ring": "ring",
        "nowhere": "/none",
    }.items():
        (tree / name).symlink_to(target)
    files = opened(make_image(tmp_path / "image", tree))
    for path in (b"/up", b"a/absolute", b"//a/./relative/passwd", b"../../etc/passwd", b"a/b/../../etc/passwd"):
        assert files.read(files.find(path), 0, 100) == b"ours"
    assert files.find(b"/up", follow=False).kind is Kind.SYMLINK
    assert files.find(b"/..").inode == files.root.inode
    for path in (b"/ring", b"/nowhere", b"/etc/passwd/x", b"/none"):
        with pytest.raises(NotFound):
            files.find(path)


# --- what only the kernel makes --------------------------------------------------------------------------------------


@pytest.mark.needs("mke2fs", "loop")
@pytest.mark.parametrize("form", ["ext4", "inline data"])
def test_all_files_are_as_the_kernel_reads_them(varied: Path, tmp_path: Path, form: str) -> None:
    image = make_image(tmp_path / "image", varied, *FORMS[form], size=40 * MIB)
    with loop_mounted(image, "ro") as root:
        assert content_of(opened(image)) == content_of_tree(root)


@pytest.mark.needs("mke2fs", "loop")
def test_space_without_content_is_zeros(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    image = make_image(tmp_path / "image", tmp_path / "tree", *FORMS["ext4"], size=300 * MIB)
    with loop_mounted(image) as root:
        fd = os.open(root / "file", os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(fd, MIB, MIB)
        os.pwrite(fd, b"A" * 4096, 0)
        os.pwrite(fd, b"B" * 4096, MIB + 500 * KIB)
        os.pwrite(fd, b"C", 8 * MIB)
        os.close(fd)
        fd = os.open(root / "long", os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(fd, 0, 140 * MIB)  # extents of the most blocks that one can have
        os.pwrite(fd, b"D" * (129 * MIB), 0)
        os.close(fd)
        expected = content_of_tree(root)
    with image.open("rb") as file:
        assert content_of(ExtFilesystem(FileReader(file.fileno(), 300 * MIB, subject="d"), subject="d")) == expected


@pytest.mark.needs("mke2fs", "loop")
@pytest.mark.parametrize(
    ("form", "option"),
    [
        ("ext4", "data=ordered"),
        ("ext4", "data=journal"),
        ("32 bits", "data=journal"),
        ("ext3", "data=journal"),
        ("inline data", "data=ordered"),
    ],
)
def test_a_disk_that_was_not_unmounted_is_read_as_the_next_mount_will_show_it(
    tmp_path: Path, form: str, option: str
) -> None:
    tree = write_files(tmp_path / "tree", {f"many/{number}": b"%d" % number for number in range(300)})
    options = [word.replace("^has_journal", "has_journal") for word in FORMS[form]]
    options[-1 if form != "inline data" else 5] += ",has_journal"
    image = make_image(tmp_path / "image", tree, *options, size=64 * MIB)
    with loop_mounted(image, option) as root:
        for number in range(0, 300, 2):
            (root / "many" / f"{number}").rename(root / f"moved{number}")
        shutil.rmtree(root / "many")  # its blocks are revoked, and used again
        os.sync()
        write_files(root, {f"new/{number}": b"%d" % number * 300 for number in range(300)})
        # What looks like the journal's own blocks is written there with its first bytes away.
        (root / "escaped").write_bytes((struct.pack(">I", 0xC03B3998) + bytes(1020)) * 40)
        os.sync()
        shutil.copyfile(image, tmp_path / "crashed")
    files = opened(tmp_path / "crashed")
    assert files._moved
    found = content_of(files)
    with loop_mounted(tmp_path / "crashed") as root:
        assert found == content_of_tree(root)
    assert "new/299" in found


@pytest.mark.needs("mke2fs", "loop")
def test_a_journal_in_another_form_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    image = make_image(
        tmp_path / "image", tmp_path / "tree", "-t", "ext4", "-O", "extent,has_journal,fast_commit", size=64 * MIB
    )
    with loop_mounted(image) as root:
        (root / "file").write_bytes(b"1")
        os.sync()
        shutil.copyfile(image, tmp_path / "crashed")
    with pytest.raises(UnreadableFilesystem, match=r"journal: expected .* form .*; mount and unmount"):
        opened(tmp_path / "crashed")


# --- hostile disks ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Images of 1 MiB or less, with some of everything in them."""
    folder = tmp_path_factory.mktemp("small")
    tree = write_files(folder / "tree", {"a/b/c/file": b"x" * 3000, "top": b"t" * 100, "long": b"l" * 200_000})
    (tree / "link").symlink_to("a/b")
    (tree / "longlink").symlink_to("t" * 100)
    with (tree / "sparse").open("wb") as file:
        for piece in range(100):
            file.seek(piece * 4096)
            file.write(b"s")
    forms = {
        "ext2": FORMS["ext2"],
        "ext4": ("-t", "ext4", "-b", "1024", "-O", "extent,64bit,metadata_csum"),
        "inline": ("-t", "ext4", "-b", "1024", "-O", "extent,inline_data", "-I", "256"),
    }
    return {name: make_image(folder / name, tree, *options, size=MIB).read_bytes() for name, options in forms.items()}


@pytest.mark.needs("mke2fs")
@pytest.mark.parametrize("form", ["ext2", "ext4", "inline"])
def test_a_damaged_disk_costs_bounded_work_and_a_typed_error(small: dict[str, bytes], form: str) -> None:
    image = small[form]
    used = [at for at in range(0, len(image), 4) if any(image[at : at + 4])]

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(used), st.binary(min_size=1, max_size=8)), min_size=1, max_size=12))
    def check(edits: list[tuple[int, bytes]]) -> None:
        data = bytearray(image)
        for at, new in edits:
            data[at : at + len(new)] = new
        data = data[: len(image)]
        reader = BytesReader(data)
        try:
            files = ExtFilesystem(reader, subject="disk", bounds=Bounds(read_bytes=8 * MIB, entries=5000))
            for path, entry in files.walk(unreadable=lambda _: None):
                assert path.startswith(b"/")
                assert b"/../" not in path
                node = files.node(entry.inode)
                if node.kind is Kind.SYMLINK:
                    files.readlink(node)
                files.read(node, 0, 64 * KIB)
        except UnreadableFilesystem:
            pass
        assert reader.read <= 8 * MIB + 2 * KIB  # and the superblock

    check()


def put(image: bytes, at: int, form: str, *values: int) -> bytearray:
    data = bytearray(image)
    struct.pack_into(form, data, at, *values)
    return data


def block_of(small: dict[str, bytes], tmp_path: Path, command: str, form: str = "ext4") -> int:
    (tmp_path / "image").write_bytes(small[form])
    return int(tool("debugfs", "-R", command, tmp_path / "image").split()[-1].strip("()"))


@pytest.mark.needs("mke2fs")
@pytest.mark.parametrize(
    ("at", "form", "value", "says"),
    [
        (1024 + 56, "<H", 0, "expected ext2, ext3 or ext4, got something else"),
        (1024 + 24, "<I", 0xFFFFFFFF, "expected blocks of at most 65536 bytes"),
        (1024, "<I", 0xFFFFFFFF, "expected at most .* inodes, got 4294967295"),
        (1024 + 40, "<I", 0, "expected groups of blocks and inodes"),
        (1024 + 32, "<I", 0, "expected groups of blocks and inodes"),
        (1024 + 88, "<H", 7, "expected inodes of 128 bytes or more, got 7"),
        (1024 + 254, "<H", 1, "expected descriptors of 64 bytes or more, got 1"),
        (1024 + 20, "<I", 99, "expected blocks after the first"),
        (1024 + 96, "<I", 1 << 30, "features of ext4 that are understood here, got 0x40000000"),
        (1024 + 96, "<I", 1, "got compression"),
    ],
)
def test_a_superblock_that_contradicts_itself(
    small: dict[str, bytes], at: int, form: str, value: int, says: str
) -> None:
    with pytest.raises(UnreadableFilesystem, match=says):
        of_bytes(put(small["ext4"], at, form, value))


@pytest.mark.needs("mke2fs")
def test_an_extent_tree_that_leads_to_itself_ends(small: dict[str, bytes], tmp_path: Path) -> None:
    files = of_bytes(small["ext4"])
    node = files.find(b"/sparse")
    depth, child = struct.unpack_from("<H", node.mapping, 6)[0], struct.unpack_from("<I", node.mapping, 16)[0]
    assert depth >= 1
    data = put(small["ext4"], child * 1024, "<HHHHI", 0xF30A, 1, 84, depth, 0)
    struct.pack_into("<IIHH", data, child * 1024 + 12, 0, child, 0, 0)
    damaged = of_bytes(data)
    with pytest.raises(UnreadableFilesystem, match="levels deep"):
        damaged.read(damaged.find(b"/sparse"), 0, 1 << 20)


@given(st.binary(min_size=60, max_size=60), st.integers(0, 1 << 33), st.binary(min_size=1024, max_size=1024))
def test_a_look_up_among_any_extents_ends_and_goes_on(root: bytes, block: int, node: bytes) -> None:
    head = struct.pack("<HHHH", 0xF30A, root[0] % 5, 4, root[1] % 7)
    inner = struct.pack("<HHHH", 0xF30A, node[0] % 84, 84, node[1] % 6)
    try:
        run = by_extents(head + root[8:], block, lambda _: inner + node[8:], "disk")
    except UnreadableFilesystem:
        return
    assert run.length >= 1


def entry_at(data: bytearray | bytes, name: bytes) -> int:
    """Where the record of a name is."""
    at = data.index(struct.pack("<B", len(name)) + b"\x02" + name) - 6
    assert data.count(data[at + 6 : at + 8 + len(name)]) == 1
    return at


@pytest.mark.needs("mke2fs")
def test_a_directory_within_itself_is_entered_once(small: dict[str, bytes]) -> None:
    files = of_bytes(small["ext4"])
    for target in (b"/", b"/a", b"/a/b", b"/lost+found"):
        data = put(small["ext4"], entry_at(small["ext4"], b"c"), "<I", files.find(target).inode)
        with pytest.raises(UnreadableFilesystem, match="expected one name for every directory"):
            list(of_bytes(data).walk())
        problems: list[UnreadableFilesystem] = []
        paths = [found.path for found in of_bytes(data).walk(unreadable=problems.append)]
        assert b"/top" in paths
        assert len(problems) == 1


@pytest.mark.needs("mke2fs")
@pytest.mark.parametrize("name", [b"/", b"\0"])
def test_names_that_no_file_can_have(small: dict[str, bytes], name: bytes) -> None:
    data = bytearray(small["ext4"])
    at = entry_at(data, b"c")
    data[at + 8 : at + 9] = name
    with pytest.raises(UnreadableFilesystem, match='expected names of 1 to 255 bytes without "/" and NUL'):
        list(of_bytes(data).walk())


@pytest.mark.needs("mke2fs")
def test_dots_lead_nowhere(small: dict[str, bytes]) -> None:
    data = bytearray(small["ext4"])
    at = entry_at(data, b"a")
    data[at + 8 : at + 9] = b"."
    assert not any(b"b" in found.path.split(b"/") for found in of_bytes(data).walk())


@pytest.mark.needs("mke2fs")
def test_sizes_beyond_reason(small: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(small["ext4"])
    for size in (1 << 63, (1 << 64) - 1):
        tool("debugfs", "-w", "-R", f"sif top size {size}", tmp_path / "image")
        with pytest.raises(UnreadableFilesystem, match="expected less than 2 \\*\\* 63 bytes"):
            opened(tmp_path / "image").find(b"top")
    tool("debugfs", "-w", "-R", f"sif top size {(1 << 63) - 1}", tmp_path / "image")
    files = opened(tmp_path / "image")
    node = files.find(b"top")
    assert files.read(node, 0, 200) == b"t" * 100 + bytes(100)
    with pytest.raises(UnreadableFilesystem, match="expected at most 4294967296 blocks"):
        files.read(node, (1 << 63) - 10, 9)


@pytest.mark.needs("mke2fs")
def test_a_disk_that_was_cut_off(small: dict[str, bytes]) -> None:
    with pytest.raises(UnreadableFilesystem, match="truncated"):
        content_of(of_bytes(small["ext4"][: 300 * KIB]))
    with pytest.raises(UnreadableFilesystem, match="got a disk of 1000 bytes"):
        of_bytes(small["ext4"][:1000])


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"", "zeros"),
        (b"QFI\xfb", "a qcow2 image"),
        (b"XFSB", "XFS"),
        (bytes(510) + b"\x55\xaa", "a disk with partitions"),
        (bytes(512) + b"EFI PART", "a disk with partitions"),
        (b"LUKS\xba\xbe", "an encrypted volume"),
        (b"text", "something else"),
    ],
)
def test_other_disks_are_told_apart(head: bytes, says: str) -> None:
    with pytest.raises(UnreadableFilesystem, match=f"expected ext2, ext3 or ext4, got {says}"):
        of_bytes(head.ljust(64 * KIB, b"\0"))


@pytest.mark.needs("mke2fs")
@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        ({"entries": 3}, "at most 3 names"),
        ({"directories": 2}, "at most 2 directories"),
        ({"depth": 2}, "at most 2 directories within each other"),
        ({"read_bytes": 4000}, "at most 4000 bytes to read"),
        ({"seconds": -1}, "seconds of work"),
    ],
)
def test_bounds_end_the_work(small: dict[str, bytes], bounds: dict[str, float], says: str) -> None:
    with pytest.raises(UnreadableFilesystem, match=says):
        content_of(of_bytes(small["ext4"], **bounds))


def test_time_is_bounded_by_the_clock() -> None:
    now = 0.0
    budget = Budget(Bounds(seconds=10), "disk", clock=lambda: now)
    budget.read(1)
    now = 10.5
    with pytest.raises(UnreadableFilesystem, match="10 seconds of work"):
        budget.read(1)


# --- readers ---------------------------------------------------------------------------------------------------------


@pytest.mark.needs("mke2fs")
def test_looking_changes_nothing(small: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(small["ext4"])
    (tmp_path / "disk").chmod(0o444)
    before = (tmp_path / "disk").stat()
    with DiskSource.open(tmp_path / "disk") as source:
        content_of(ExtFilesystem(SourceReader(source), subject="disk"))
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(source.fileno(), b"x")  # it cannot even be written to
    after = (tmp_path / "disk").stat()
    assert (tmp_path / "disk").read_bytes() == small["ext4"]
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)


def test_readers_say_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"12345")
    with (tmp_path / "disk").open("rb") as file:
        reader = FileReader(file.fileno(), 10, subject="disk")
        assert reader.read_at(1, 3) == b"234"
        with pytest.raises(SourceError, match="expected 9 bytes, got 5: it was truncated"):
            reader.read_at(1, 8)
    out, into = os.pipe()
    os.close(into)
    with DiskSource.stream(out) as source, pytest.raises(UsageError, match="got a pipe"):
        SourceReader(source)


def test_an_error_of_the_reader_is_passed_on(tmp_path: Path) -> None:
    class Broken:
        size = MIB

        def read_at(self, offset: int, length: int, /) -> bytes:
            raise CasstoreError(f"nothing at {offset} + {length}")

    with pytest.raises(CasstoreError, match="nothing at 0"):
        ExtFilesystem(Broken(), subject="disk")
