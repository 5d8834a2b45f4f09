"""The directories of a copy: each can be opened again at any time, from the outermost in, following no symlink."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, NamedTuple, Self

from casstore.filesystem.inode import Node

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_OPEN: Final = 128


class Attributes(NamedTuple):
    """What a file is besides its content."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int

    @classmethod
    def of(cls, node: Node) -> Self:
        """Those of a file on the disk."""
        return cls(node.mode, node.uid, node.gid, node.mtime_ns)


class _Folder(NamedTuple):
    above: int
    name: bytes
    like: Attributes | None


class Folders:
    """Directories below an open one, by numbers. Not for several threads."""

    root: Final = 0

    def __init__(self, root: int) -> None:
        self._root = root
        self._all: list[_Folder] = [_Folder(0, b"", None)]
        self._open: OrderedDict[int, int] = OrderedDict()

    def add(self, above: int, name: bytes, like: Attributes | None) -> int:
        """A directory that is there now; `like` is what it becomes at the end, None if it stays as it is."""
        self._all.append(_Folder(above, name, like))
        return len(self._all) - 1

    def fd(self, folder: int) -> int:
        """A descriptor of a directory, good until the next one is asked for."""
        if folder == self.root:
            return self._root
        fd = self._open.get(folder)
        if fd is None:
            above, name, _ = self._all[folder]
            fd = self._open[folder] = os.open(name, _DIRECTORY, dir_fd=self.fd(above))
            if len(self._open) > _MOST_OPEN:
                os.close(self._open.popitem(last=False)[1])
        else:
            self._open.move_to_end(folder)
        return fd

    def finish(self, become: Callable[[int, Attributes], None]) -> None:
        """Let all become what they are to be, the inner ones first: an outer one may then be closed to its owner."""
        for folder in range(len(self._all) - 1, 0, -1):
            like = self._all[folder].like
            if like is not None:
                become(self.fd(folder), like)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


@contextlib.contextmanager
def open_directory(path: str) -> Iterator[int]:
    """A descriptor of a directory, which must not be a symlink itself."""
    fd = os.open(path, _DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def discard(path: str) -> None:
    """Remove what is left of a directory, also where its own permissions are in the way."""
    with contextlib.suppress(OSError), open_directory(path) as root:
        _open_up(root)
    shutil.rmtree(path, ignore_errors=True)


def _open_up(folder: int) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.name, 0o700, dir_fd=folder)
            inner = os.open(entry.name, _DIRECTORY, dir_fd=folder)
            try:
                _open_up(inner)
            finally:
                os.close(inner)
