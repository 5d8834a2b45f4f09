"""What is on a disk: the names in its directories, what they stand for, and the bytes of one file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from casstore.errors import NotFound, UnreadableFilesystem
from casstore.filesystem.inode import Kind, Node
from casstore.filesystem.paths import clean_path, quoted

if TYPE_CHECKING:
    from casstore.filesystem.ext import ExtFilesystem


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A file of any kind, under one of its names."""

    path: bytes
    """From the root of the disk, with "/" in front; of a directory without one at the end."""
    kind: Kind
    mode: int
    """Permissions, with set-uid, set-gid and sticky: 12 bits."""
    uid: int
    gid: int
    links: int
    """How many names it has, as the disk says."""
    inode: int
    size: int
    """Bytes of its content."""
    mtime_ns: int
    """Since 1970, UTC."""
    target: bytes | None
    """Of a symlink: where it leads. None for all else, and where the file system has encrypted it."""

    @property
    def name(self) -> bytes:
        """The last part of its path; empty for the root."""
        return self.path.rpartition(b"/")[2]

    @property
    def is_directory(self) -> bool:
        """Whether there may be names in it."""
        return self.kind is Kind.DIRECTORY


def list_files(
    files: ExtFilesystem,
    path: bytes = b"/",
    *,
    recursive: bool = False,
    unreadable: Callable[[UnreadableFilesystem], None] | None = None,
) -> Iterator[FileEntry]:
    """What is in the directory at `path`, or in one that a symlink there leads to; of all else, that itself. The names
    of each directory come in the order of their bytes; `recursive`, each is followed by what is in it. With
    `unreadable` what is damaged is told to it, and passed over; so is a directory that is encrypted.

    Raises:
        NotFound: there is nothing at `path`.
        UnreadableFilesystem: what is to be listed is damaged or encrypted, or costs more than the bounds allow.
    """
    top = find_file(files, path)
    base = clean_path(path)
    if top.kind is not Kind.DIRECTORY:
        yield entry_of(files, base, top)
        return
    base = b"" if base == b"/" else base
    tell = _raise if unreadable is None else unreadable
    entered: set[bytes] = set()  # the directory that comes next, if it is to be gone into
    if top.is_encrypted:
        tell(encrypted(files, base or b"/"))
    for below, entry in files.walk(top, enter=entered.__contains__, unreadable=unreadable, ordered=True):
        entered.clear()
        try:
            found = entry_of(files, base + below, node := files.node(entry.inode))
        except UnreadableFilesystem as error:
            tell(error)
            continue
        yield found
        if recursive and found.is_directory:
            if node.is_encrypted:
                tell(encrypted(files, found.path))
            else:
                entered.add(below)


def read_file(files: ExtFilesystem, path: bytes) -> Iterator[bytes]:
    """The content of the regular file at `path`, or of the one that symlinks there lead to, in parts of at most 1 MiB.
    Holes come as zeros, and are not read.

    Raises:
        NotFound: there is no regular file.
        UnreadableFilesystem: it is damaged or encrypted.
    """
    node = files.find(path)
    if node.kind is not Kind.FILE:
        raise NotFound(f"{files.subject}: {quoted(path)}: expected a regular file, got a {node.kind}")
    if node.is_encrypted:
        raise encrypted(files, path)
    return files.content(node)


def digest_file(files: ExtFilesystem, entry: FileEntry) -> str:
    """The sha256 of a regular file's content, in hex.

    Raises:
        UnreadableFilesystem: it is damaged or encrypted.
    """
    digest = hashlib.sha256()
    for part in files.content(files.node(entry.inode)):
        digest.update(part)
    return digest.hexdigest()


def find_file(files: ExtFilesystem, path: bytes) -> Node:
    """What is at `path`: the directory that a symlink leads to, but of every other symlink itself.

    Raises:
        NotFound: there is nothing.
    """
    node = files.find(path, follow=False)
    if node.kind is Kind.SYMLINK:
        try:
            led_to = files.find(path)
        except NotFound:
            return node
        return led_to if led_to.kind is Kind.DIRECTORY else node
    return node


def find_copyable(files: ExtFilesystem, path: bytes) -> Node:
    """The file or directory at `path`, or the one that symlinks there lead to.

    Raises:
        NotFound: there is neither.
    """
    node = files.find(path)
    if node.kind not in {Kind.FILE, Kind.DIRECTORY}:
        raise NotFound(f"{files.subject}: {quoted(path)}: expected a regular file or directory, got a {node.kind}")
    return node


def target_of(files: ExtFilesystem, node: Node, path: bytes) -> bytes:
    """The target of a symlink, which can be that of one on this machine."""
    target = files.readlink(node)
    if b"\0" in target:
        raise UnreadableFilesystem(
            f"{files.subject}: {quoted(path)}: expected the target of a symlink, got one with NUL; the file system is"
            " damaged"
        )
    return target


def entry_of(files: ExtFilesystem, path: bytes, node: Node) -> FileEntry:
    """What a node is, under a path."""
    readable = node.kind is Kind.SYMLINK and not node.is_encrypted
    return FileEntry(
        path=path,
        kind=node.kind,
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        links=node.links,
        inode=node.inode,
        size=node.size,
        mtime_ns=node.mtime_ns,
        target=files.readlink(node) if readable else None,
    )


def base_name(path: bytes) -> bytes | None:
    """The last part of a path, where it names something; None for the root, and where it leads back."""
    name = clean_path(path).rpartition(b"/")[2]
    return None if name in {b"", b".."} else name


def encrypted(files: ExtFilesystem, path: bytes) -> UnreadableFilesystem:
    """The error for what the file system has encrypted (fscrypt)."""
    return UnreadableFilesystem(
        f"{files.subject}: {quoted(path)}: expected what can be read, got what the file system has encrypted; restore"
        " the disk, mount it, and unlock it there"
    )


def _raise(error: UnreadableFilesystem) -> None:
    raise error
