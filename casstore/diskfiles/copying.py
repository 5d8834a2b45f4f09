"""Copies of a disk's files on this machine.

The disk may come from anybody, so nothing on it decides where something is written. Every name is one part of a path,
which the reader has checked. Every directory that is written into is open, was made or opened without following a
symlink, and stays the one that is meant. What symlinks say is copied and never looked at.

A file gets its name when it is complete. A new directory is built under a hidden name beside its own and gets that when
all of it is there; with `force` a directory that was there before gets the files one by one. In a hidden one files are
filled in the order of the disk: a file next to another is then in what was just decoded, or fetched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from casstore import durable
from casstore.diskfiles.folders import Attributes, Folders, discard, open_directory
from casstore.diskfiles.listing import base_name, encrypted, find_copyable, target_of
from casstore.diskfiles.tally import SECOND, CopiedOut, Tally
from casstore.durable import Durability
from casstore.errors import AlreadyExists, NotFound, UsageError, storage_errors
from casstore.filesystem.inode import Kind, Node
from casstore.filesystem.paths import clean_path
from casstore.progress import Meter, Progress, silent
from casstore.spec import MIB
from casstore.writing import pwrite_all

if TYPE_CHECKING:
    from casstore.filesystem.ext import ExtFilesystem

_PLAIN: Final = 0o1777  # all of a mode but set-uid and set-gid
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_AGAIN: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_MORE_LINKS: Final = {errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}
_ZEROS: Final = bytes(MIB)
_MOST_EMPTY, _MOST_PATHS = 50_000, 16 * MIB  # files that are made and not yet filled; bytes of their paths


def copy_out(
    files: ExtFilesystem,
    path: bytes,
    destination: str,
    *,
    force: bool = False,
    owners: bool = False,
    progress: Progress = silent,
) -> CopiedOut:
    """Copy the file at `path`, or the directory with all that is below it, to `destination`; into it, where that is a
    directory or ends in "/". Symlinks to `path` are followed, those below it are copied. Permissions, times, holes and
    hard links are kept; with `owners` (for root) also owners, set-uid and set-gid. Nothing is synced.

    With `force` a file that is there is replaced, and a directory is filled: what is in it stays, but for files that
    the disk has as well.

    Raises:
        NotFound: there is nothing at `path`, or nothing that can be copied.
        AlreadyExists: something is at the destination, and `force` is not set; or it is of another kind.
        UnreadableFilesystem: something there is damaged or encrypted. A new directory is not made then.
        StorageError: the copy cannot be written.
    """
    top = find_copyable(files, path)
    target = _target(path, top, destination)
    tally = Tally(Meter(progress, "copying", None))
    copying = _Copying(files, tally, target, owners=owners, force=force)
    with storage_errors(f"copying to {target!r}", on=target):
        if top.kind is Kind.FILE:
            copying.file(top, path)
        elif force and os.path.isdir(target):
            # What the caller has named may be a symlink; what the disk has named must not be one.
            copying.into(top, path, os.path.join(target, ".") if target == destination else target)
        else:
            copying.directory(top, path)
    return tally.copied(target)


def _target(path: bytes, top: Node, destination: str) -> str:
    """Where the copy goes."""
    if not destination:
        raise UsageError("destination '': expected a path")
    name = base_name(path)
    if os.path.isdir(destination):
        return destination if name is None else os.path.join(destination, os.fsdecode(name))
    if destination.endswith("/"):
        if top.kind is Kind.FILE:
            raise NotFound(f"{destination!r}: expected a directory, got none; make it first")
        return destination.rstrip("/")
    return destination


class _Empty(NamedTuple):
    """A file that was made and is to be filled."""

    place: int
    """Where on the disk its content begins."""
    folder: int
    name: bytes
    node: Node
    path: bytes


class _Copying:
    """One copy being made."""

    def __init__(self, files: ExtFilesystem, tally: Tally, target: str, *, owners: bool, force: bool) -> None:
        self._files, self._tally, self._target, self._owners, self._force = files, tally, target, owners, force
        self._merge = False  # into a directory that was there before
        self._first: dict[int, tuple[int, bytes]] = {}  # per inode of several names, where it was copied to
        self._empty: list[_Empty] = []
        self._paths = 0  # bytes of theirs

    # --- the three ways to begin -------------------------------------------------------------------------------------

    def file(self, node: Node, path: bytes) -> None:
        """Copy one file."""
        target = self._target
        if os.path.isdir(target) and not os.path.islink(target):
            raise AlreadyExists(f"{target!r}: expected a file to replace, got a directory")
        with durable.new_file(target, replace=self._force, durability=Durability.NONE, mode=0o600) as fd:
            self._fill(fd, node, path)
        self._tally.add("files")

    def directory(self, node: Node, path: bytes) -> None:
        """Copy a directory to a place where there is nothing."""
        self._require_nothing()
        temporary = durable.temporary_beside(self._target)
        os.mkdir(temporary, 0o700)
        try:
            with open_directory(temporary) as root:
                self._tree(node, path, root)
                self._become(root, Attributes.of(node))
            self._require_nothing()
            durable.publish_directory(temporary, self._target, replace=False, durability=Durability.NONE)
        except BaseException:
            discard(temporary)
            raise
        self._tally.add("directories")

    def _require_nothing(self) -> None:
        if os.path.lexists(self._target):
            raise AlreadyExists(f"{self._target!r} exists already; choose another place, or force with -f")

    def into(self, node: Node, path: bytes, target: str) -> None:
        """Copy what is in a directory into one that is there."""
        self._merge = True
        with open_directory(target) as root:
            self._tree(node, path, root)

    # --- a tree ------------------------------------------------------------------------------------------------------

    def _tree(self, top: Node, path: bytes, root: int) -> None:
        base = clean_path(path).rstrip(b"/")
        if top.is_encrypted:
            raise encrypted(self._files, path)
        entered: set[bytes] = set()  # the directory that comes next, if it is to be gone into
        with Folders(root) as folders:
            way = [(folders.root, b"")]  # the directories that the name is in, and the last name in each
            for below, entry in self._files.walk(top, enter=entered.__contains__, ordered=True):
                entered.clear()
                del way[below.count(b"/") :]
                folder, last = way[-1]
                way[-1] = (folder, entry.name)
                if entry.name == last:
                    self._tally.skip(base + below, SECOND)
                    continue
                node = self._files.node(entry.inode)
                if node.is_encrypted:
                    raise encrypted(self._files, base + below)
                try:
                    inner = self._place(node, base + below, entry.name, folders, folder)
                except FileExistsError:  # the other is far away in a large directory, or differs in case only
                    self._tally.skip(base + below, SECOND)
                    continue
                if inner is not None:
                    way.append((inner, b""))
                    entered.add(below)
            self._fill_all(folders)
            folders.finish(self._become)

    def _place(self, node: Node, path: bytes, name: bytes, folders: Folders, folder: int) -> int | None:
        """Copy what a name stands for; if that is a directory, which one it is."""
        fd = folders.fd(folder)
        if node.kind is Kind.DIRECTORY:
            made = self._make_directory(name, fd)
            self._tally.add("directories", made)
            return folders.add(folder, name, Attributes.of(node) if made else None)
        if node.kind is Kind.SYMLINK:
            self._symlink(node, path, name, fd)
        elif node.kind is not Kind.FILE:
            self._tally.skip(path, str(node.kind))
        elif not self._link(node, name, folders, folder):
            self._new_file(node, path, name, folders, folder)
        return None

    def _new_file(self, node: Node, path: bytes, name: bytes, folders: Folders, folder: int) -> None:
        fd = folders.fd(folder)
        with self._new_name(name, fd) as new:
            out = os.open(new, _NEW, 0o600, dir_fd=fd)
            try:
                extent = None if self._merge else next(self._files.extents(node), None)
                if extent is None or extent.disk is None:
                    self._fill(out, node, path)
                else:
                    self._empty.append(_Empty(extent.disk, folder, name, node, path))
                    self._paths += len(path)
            finally:
                os.close(out)
        self._tally.add("files")
        if node.links > 1:
            self._first[node.inode] = (folder, name)
        if len(self._empty) >= _MOST_EMPTY or self._paths >= _MOST_PATHS:
            self._fill_all(folders)

    def _fill_all(self, folders: Folders) -> None:
        """Fill the files that are empty yet, in the order of the disk."""
        self._empty.sort(key=lambda empty: empty.place)
        for empty in self._empty:
            fd = os.open(empty.name, _AGAIN, dir_fd=folders.fd(empty.folder))
            try:
                self._fill(fd, empty.node, empty.path)
            finally:
                os.close(fd)
        self._empty.clear()
        self._paths = 0

    def _make_directory(self, name: bytes, folder: int) -> bool:
        """Make a directory; False if it is there, and may be."""
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            if not self._merge:
                raise
            if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise self._in_the_way(name, "directory") from None
            return False
        return True

    def _symlink(self, node: Node, path: bytes, name: bytes, folder: int) -> None:
        target = target_of(self._files, node, path)
        with self._new_name(name, folder) as new:
            os.symlink(target, os.fsencode(new), dir_fd=folder)
            if self._owners:
                os.chown(new, node.uid, node.gid, dir_fd=folder, follow_symlinks=False)
            os.utime(new, ns=(node.mtime_ns, node.mtime_ns), dir_fd=folder, follow_symlinks=False)
        self._tally.add("symlinks")

    def _link(self, node: Node, name: bytes, folders: Folders, number: int) -> bool:
        """Make a further name of a file that was copied; False if there is none, or it cannot have one more."""
        first = self._first.get(node.inode)
        if first is None:
            return False
        there = os.dup(folders.fd(first[0]))
        try:
            folder = folders.fd(number)
            with self._new_name(name, folder) as new:
                durable.link_between(there, os.fsdecode(first[1]), folder, new)
        except OSError as error:
            if error.errno in _NO_MORE_LINKS:
                return False
            raise
        finally:
            os.close(there)
        self._tally.add("links")
        return True

    @contextlib.contextmanager
    def _new_name(self, name: bytes, folder: int) -> Iterator[str]:
        """What to call a new file until it is complete: its own name, where nobody sees it there."""
        own = os.fsdecode(name)
        if not self._merge:
            yield own
            return
        temporary = durable.temporary_beside(own)
        try:
            yield temporary
            try:
                durable.publish(temporary, own, replace=True, durability=Durability.NONE, folder=folder)
            except IsADirectoryError:
                raise self._in_the_way(name, "file") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)

    def _in_the_way(self, name: bytes, expected: str) -> AlreadyExists:
        got = "something else" if expected == "directory" else "a directory"
        where = os.path.join(self._target, "...", os.fsdecode(name))
        return AlreadyExists(f"{where!r}: expected a {expected} there, got {got}; move it away")

    # --- a file ------------------------------------------------------------------------------------------------------

    def _fill(self, fd: int, node: Node, path: bytes) -> None:
        """Write a file's content, holes as holes, and all that it is besides."""
        if node.is_encrypted:
            raise encrypted(self._files, path)
        for offset, _, length in self._files.extents(node):
            for start in range(offset, offset + length, MIB):
                content = self._files.read(node, start, min(MIB, offset + length - start))
                if content == _ZEROS[: len(content)]:  # as of space that is a hole of the disk itself, without end
                    continue
                pwrite_all(fd, memoryview(content), start)
                self._tally.content(len(content))
        os.ftruncate(fd, node.size)
        self._become(fd, Attributes.of(node))

    def _become(self, fd: int, like: Attributes) -> None:
        """Give a file or directory its owner, permissions and time: in this order, as each changes the next."""
        if self._owners:
            os.fchown(fd, like.uid, like.gid)
        os.fchmod(fd, like.mode if self._owners else like.mode & _PLAIN)
        os.utime(fd, ns=(like.mtime_ns, like.mtime_ns))
