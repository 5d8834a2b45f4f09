"""Files of every kind to put on a disk, and what a kernel says of a tree of them, to compare with."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import socket
import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from casstore.filesystem.inode import Kind
from tests.support.disks import KIB, MIB

DEEP = b"deep/" + b"/".join(b"%d" % number for number in range(30))
FORMS = {
    "ext2": ("-t", "ext2", "-b", "1024", "-O", "filetype,sparse_super,dir_index"),
    "ext3": ("-t", "ext3", "-b", "1024", "-O", "has_journal,filetype,dir_index", "-I", "256"),
    "ext4": ("-t", "ext4", "-b", "4096", "-O", "extent,64bit,flex_bg,metadata_csum,has_journal,dir_index"),
    "ext4 of 1 KiB": ("-t", "ext4", "-b", "1024", "-O", "extent,dir_index,^64bit"),
    "inline data": ("-t", "ext4", "-b", "4096", "-O", "extent,inline_data,metadata_csum,dir_index", "-I", "256"),
}


class Told(NamedTuple):
    """What there is to say of a file; of a directory neither size nor links, which file systems count differently."""

    type: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: bytes | None
    sha256: str | None
    alike: frozenset[bytes]
    """All names of the same file, if it has several."""


def fill_with_everything(root: Path) -> None:
    """Files of all kinds, with all kinds of names, as root on a mounted disk. Times are not those of now."""
    rng = random.Random(7)
    base = os.fsencode(root)
    content: dict[bytes, bytes] = {
        b"empty": b"",
        b"tiny": b"t" * 50,
        b"inline": rng.randbytes(130),
        b"block": rng.randbytes(4096),
        b"large": rng.randbytes(300 * KIB),
        b"n" * 255: b"a long name",
        b"caf\xe9 \xff": b"a name that is no UTF-8",
        b"line\nbreak \x1b[31m": b"a name that no terminal should see",
        b"back\\slash": b"1",
        "größe 中".encode(): b"2",
        b"- option": b"3",
        DEEP + b"/file": b"deep",
    }
    content |= {b"many/%05d-%s" % (number, b"x" * (number % 40)): b"%d" % number for number in range(250)}
    for name, data in content.items():
        path = os.path.join(base, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
    _write_sparse(root, rng)
    for link, target in {
        b"short": b"tiny",
        b"fast": b"f" * 59,
        b"slow": b"s" * 60,
        b"long": b"/" + b"l" * 900,
        b"dangling \xfe": b"/nowhere/\xfd",
        b"to deep": b"deep",
        b"outside": b"../../../../etc/passwd",
        b"ring": b"ring",
    }.items():
        os.symlink(target, os.path.join(base, link))
    os.link(root / "large", root / "large too")
    os.link(root / "large", root / "many" / "large")
    os.link(root / "tiny", root / "deep" / "tiny")
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "loop", 0o660 | stat.S_IFBLK, os.makedev(7, 0))
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(root / "socket"))
    (root / "empty directory").mkdir()
    for text, mode in {"tiny": 0o4755, "empty": 0, "empty directory": 0o3777, "inline": 0o400}.items():
        (root / text).chmod(mode)
    os.chown(root / "block", 1000, 70_000)
    (root / "block").chmod(0o2750)  # the set-gid bit went with the old owner
    os.chown(root / "short", 12, 34, follow_symlinks=False)
    _set_times(root)


def _write_sparse(root: Path, rng: random.Random) -> None:
    with (root / "sparse").open("wb") as file:
        for piece in range(40):
            file.seek(piece * 100_000)
            file.write(rng.randbytes(3000))
        file.truncate(30 * MIB)
    with (root / "unwritten").open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, MIB)
        except OSError as error:  # ext2 and ext3 have no such thing
            assert error.errno == errno.EOPNOTSUPP  # noqa: PT017
        os.pwrite(file.fileno(), b"W" * 5000, 500 * KIB)
        os.ftruncate(file.fileno(), 2 * MIB)
    (root / "all hole").touch()
    os.truncate(root / "all hole", 5 * MIB + 1)
    (root / "zeros").write_bytes(bytes(20 * KIB))


def _set_times(root: Path) -> None:
    """One time for most, others for some; inner directories first, as what is made in a directory changes its time."""
    special = {b"tiny": -1, b"large": 4_000_000_000 * 10**9 + 123, b"block": 1_500_000_000 * 10**9 + 999_999_999}
    for folder, directories, names in os.walk(os.fsencode(root), topdown=False):
        for name in (*names, *directories):
            time = special.get(name, 1_600_000_000 * 10**9 + len(name))
            os.utime(os.path.join(folder, name), ns=(time, time), follow_symlinks=False)
    os.utime(root, ns=(1_400_000_000 * 10**9, 1_400_000_000 * 10**9))


def told_by_kernel(root: Path) -> dict[bytes, Told]:
    """All below a directory, by its path with "/" in front."""
    found: dict[bytes, os.stat_result] = {}
    base = os.fsencode(root)
    for folder, directories, names in os.walk(base):
        for name in (*directories, *names):
            path = os.path.join(folder, name)
            found[path[len(base) :]] = os.lstat(path)
    groups: dict[tuple[int, int], set[bytes]] = {}
    for name, info in found.items():
        if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
            groups.setdefault((info.st_dev, info.st_ino), set()).add(name)
    return {
        path: Told(
            type=str(Kind(stat.S_IFMT(info.st_mode))),
            mode=stat.S_IMODE(info.st_mode),
            uid=info.st_uid,
            gid=info.st_gid,
            size=0 if stat.S_ISDIR(info.st_mode) else info.st_size,
            mtime_ns=info.st_mtime_ns,
            target=os.readlink(base + path) if stat.S_ISLNK(info.st_mode) else None,
            sha256=_sha256(base + path) if stat.S_ISREG(info.st_mode) else None,
            alike=frozenset(groups.get((info.st_dev, info.st_ino), set())),
        )
        for path, info in found.items()
    }


def told_by_listing(document: dict[str, Any]) -> dict[bytes, Told]:
    """The same, of what `casstore files / -R --json --sha256` has written."""
    groups: dict[int, set[bytes]] = {}
    for file in document["files"]:
        if file["links"] > 1 and file["type"] != "directory":
            groups.setdefault(file["inode"], set()).add(as_path(file["path"]))
    found = {
        as_path(file["path"]): Told(
            type=file["type"],
            mode=int(file["mode"], 8),
            uid=file["uid"],
            gid=file["gid"],
            size=0 if file["type"] == "directory" else file["size_bytes"],
            mtime_ns=as_time(file["mtime"]),
            target=None if file["target"] is None else as_path(file["target"]),
            sha256=file["sha256"],
            alike=frozenset(groups.get(file["inode"], set())),
        )
        for file in document["files"]
    }
    assert len(found) == len(document["files"]), "a path is listed twice"
    return found


def as_path(text: str) -> bytes:
    """A path as JSON has it, in bytes."""
    return text.encode("utf-8", "surrogateescape")


def as_time(text: str) -> int:
    """Nanoseconds since 1970 of a time with nine digits after the point."""
    assert text[19] == "." and text[29:] == "Z"  # noqa: PT018
    whole = (datetime.fromisoformat(text[:19]) - datetime(1970, 1, 1)) // timedelta(seconds=1)  # noqa: DTZ001
    return whole * 10**9 + int(text[20:29])


def _sha256(path: bytes) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
