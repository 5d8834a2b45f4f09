"""File systems of the ext family to look into: made of a tree by e2fsprogs, without mounting them."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

from casstore.filesystem.bounds import Bounds
from casstore.filesystem.ext import ExtFilesystem
from casstore.filesystem.inode import Kind
from tests.support.disks import KIB, MIB, PROGRAM_PATH

_ENV = {"PATH": PROGRAM_PATH, "LC_ALL": "C", "MKE2FS_CONFIG": os.devnull}
PLAIN = ("-t", "ext4", "-O", "extent,64bit,flex_bg,dir_nlink,extra_isize,metadata_csum,has_journal,sparse_super")
Content = dict[str, bytes | None]
"""Per path without "/" in front: a file's content, a symlink's target, None for a directory."""


def tool(*command: object) -> str:
    """Run one of e2fsprogs."""
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, env=_ENV)
    return done.stdout


def make_image(path: Path, tree: Path, *options: str, size: int = 32 * MIB) -> Path:
    """A file system in the new file `path` that holds `tree`, with options of mke2fs."""
    with path.open("wb") as image:
        image.truncate(size)
    tool("mke2fs", "-q", "-F", *(options or PLAIN), "-d", tree, path)
    return path


def write_files(root: Path, files: dict[str, bytes]) -> Path:
    """A tree with these files."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_varied_tree(root: Path) -> Path:
    """Files small and large, with holes and without; a directory large enough for an index; links."""
    rng = random.Random(1)
    files = {
        "empty": b"",
        "tiny": b"x" * 40,
        "inline": rng.randbytes(100),
        "deep/a/b/c": b"c",
        "mid": rng.randbytes(70_000),
    }
    files |= {f"many/{number:05}{'n' * 40}": b"%d" % number for number in range(700)}
    write_files(root, files | {"large": rng.randbytes(3 * MIB)})
    with (root / "sparse").open("wb") as file:
        for piece in range(200):
            file.seek(piece * 100_000)
            file.write(rng.randbytes(3000))
        file.seek(70 * MIB)  # in blocks of 1 KiB, beyond what two levels of lists can name
        file.write(b"end")
        file.truncate(71 * MIB)
    (root / "short").symlink_to("tiny")
    (root / "long").symlink_to("/" + "l" * 200)
    return root


class BytesReader:
    """A DiskReader over bytes, which counts what is read."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data, self.size, self.read = data, len(data), 0

    def read_at(self, offset: int, length: int, /) -> bytes:
        assert 0 <= offset <= offset + length <= self.size
        self.read += length
        return bytes(self.data[offset : offset + length])


def opened(path: Path, **bounds: float) -> ExtFilesystem:
    """The file system in an image."""
    return of_bytes(path.read_bytes(), **bounds)


def of_bytes(data: bytes | bytearray, **bounds: float) -> ExtFilesystem:
    """The file system in the bytes of an image."""
    return ExtFilesystem(BytesReader(data), subject="disk", bounds=Bounds(**bounds))  # type: ignore[arg-type]


def content_of(files: ExtFilesystem, *, piece: int = 256 * KIB) -> Content:
    """All that a file system holds, but for lost+found."""
    found: Content = {}
    for path, entry in files.walk():
        node = files.node(entry.inode)
        if node.kind is Kind.FILE:
            found[os.fsdecode(path[1:])] = b"".join(
                files.read(node, offset, piece) for offset in range(0, node.size, piece)
            )
        elif node.kind is Kind.SYMLINK:
            found[os.fsdecode(path[1:])] = files.readlink(node)
        elif path != b"/lost+found":
            found[os.fsdecode(path[1:])] = None
    return found


def content_of_tree(root: Path) -> Content:
    """The same of a directory of this machine."""
    found: Content = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = os.fsencode(path.readlink())
        elif name != "lost+found":
            found[name] = None if path.is_dir() else path.read_bytes()
    return found
