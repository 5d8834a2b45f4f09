"""A disk's files as a tar archive, written as it is made."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from casstore.diskfiles.listing import base_name, encrypted, find_copyable, target_of
from casstore.diskfiles.tally import SECOND, CopiedOut, Tally
from casstore.errors import UnreadableFilesystem
from casstore.filesystem.inode import Kind, Node
from casstore.filesystem.paths import clean_path, quoted
from casstore.frame import Buffer
from casstore.progress import Meter, Progress, silent
from casstore.spec import MIB

if TYPE_CHECKING:
    from casstore.filesystem.ext import ExtFilesystem

_BLOCK: Final = 512
_NS: Final = 1_000_000_000
_MOST_NAMES: Final = 256 * MIB  # bytes of the names of files that may come again
_KINDS: Final = {Kind.FILE: tarfile.REGTYPE, Kind.DIRECTORY: tarfile.DIRTYPE, Kind.SYMLINK: tarfile.SYMTYPE}


def tar_out(
    files: ExtFilesystem, path: bytes, write: Callable[[Buffer], object], *, progress: Progress = silent
) -> CopiedOut:
    """Write the file at `path`, or the directory with all that is below it, as a tar archive (PAX). Its members begin
    with the last part of `path`; those of the root with ".". They have their owners and all permissions; holes are
    written as zeros.

    Raises:
        NotFound: there is nothing at `path`, or nothing that can be copied.
        UnreadableFilesystem: something there is damaged or encrypted, or there is too much of it to tell what came
            before; the archive has no end then.
    """
    top = find_copyable(files, path)
    archive = _Archive(files, write, tally := Tally(Meter(progress, "copying", None)))
    base = clean_path(path).rstrip(b"/")
    name = base_name(path) or b"."
    archive.add(top, base or b"/", name)
    if top.kind is Kind.DIRECTORY:
        _add_tree(archive, files, top, base, name)
    write(bytes(2 * _BLOCK))
    return tally.copied("-")


def _add_tree(archive: _Archive, files: ExtFilesystem, top: Node, base: bytes, name: bytes) -> None:
    """Write all that is below a directory, and of several files of one name the first: what unpacks a symlink, and then
    a file or directory of that name, may write to where the symlink leads.
    """
    entered: set[bytes] = set()  # the directory that comes next, if it is to be gone into
    way = [b""]  # the last name in each directory that the name is in
    for below, entry in files.walk(top, enter=entered.__contains__, ordered=True):
        entered.clear()
        del way[below.count(b"/") :]
        last, way[-1] = way[-1], entry.name
        if entry.name == last:
            archive.leave_out(base + below, SECOND)
            continue
        if entry.name < last:
            raise UnreadableFilesystem(
                f"{files.subject}: {quoted(base + below)}: expected at most a million names in a directory, got more;"
                " copy it to a directory instead"
            )
        node = files.node(entry.inode)
        archive.add(node, base + below, name + below)
        if node.kind is Kind.DIRECTORY:
            way.append(b"")
            entered.add(below)


class _Archive:
    def __init__(self, files: ExtFilesystem, write: Callable[[Buffer], object], tally: Tally) -> None:
        self._files, self._write, self._tally = files, write, tally
        self._first: dict[int, str] = {}  # per inode of several names, its member
        self._names = 0  # bytes of theirs

    def add(self, node: Node, path: bytes, name: bytes) -> None:
        """Write a member, or count what cannot be one."""
        if node.is_encrypted:
            raise encrypted(self._files, path)
        if node.kind not in _KINDS:
            self.leave_out(path, str(node.kind))
            return
        info = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
        info.type, info.mode, info.uid, info.gid = _KINDS[node.kind], node.mode, node.uid, node.gid
        info.mtime, nanoseconds = divmod(node.mtime_ns, _NS)
        if nanoseconds and info.mtime >= 0:
            info.pax_headers = {"mtime": f"{info.mtime}.{nanoseconds:09}"}
        if node.kind is Kind.SYMLINK:
            info.linkname = target_of(self._files, node, path).decode("utf-8", "surrogateescape")
            self._tally.add("symlinks")
        elif node.kind is Kind.DIRECTORY:
            self._tally.add("directories")
        elif node.inode in self._first:
            info.type, info.linkname = tarfile.LNKTYPE, self._first[node.inode]
            self._tally.add("links")
        else:
            info.size = node.size
            self._tally.add("files")
            if node.links > 1:
                self._remember(node, info.name, path)
        self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        if info.size:
            self._content(node)

    def leave_out(self, path: bytes, what: str) -> None:
        """Count what is no member."""
        self._tally.skip(path, what)

    def _remember(self, node: Node, name: str, path: bytes) -> None:
        self._names += len(name)
        if self._names > _MOST_NAMES:
            raise UnreadableFilesystem(
                f"{self._files.subject}: {quoted(path)}: expected at most {_MOST_NAMES} bytes of paths of files with"
                " several names, got more; copy it to a directory instead"
            )
        self._first[node.inode] = name

    def _content(self, node: Node) -> None:
        for part in self._files.content(node):
            self._write(part)
            self._tally.content(len(part))
        if node.size % _BLOCK:
            self._write(bytes(-node.size % _BLOCK))
