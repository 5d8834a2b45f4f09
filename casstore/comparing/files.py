"""Which files of two file systems differ.

Both trees are gone through side by side, each directory in the order of its names, so memory holds only what differs. A
directory has changed when its mode or owner has; what is in it stands for itself. Extended attributes are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from casstore.comparing.content import Contents
from casstore.comparing.disks import DiskDifference
from casstore.errors import NotFound, UnreadableFilesystem
from casstore.filesystem.ext import ExtFilesystem
from casstore.filesystem.inode import Kind, Node
from casstore.filesystem.paths import clean_path, quoted
from casstore.spec import MIB

_MOST_UNREADABLE: Final = 1000
_MOST_PATHS: Final = 512 * MIB
"""Bytes of the paths of all that differs: a disk may have millions, each of 64 KiB."""
_DEVICE: Final = 8  # bytes of an inode's mapping that hold the number of a device
_DEVICES: Final = (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE)


class FileChange(StrEnum):
    """What can change about a file."""

    TYPE = "type"
    """It is of another kind, as a symlink that was a directory; nothing more is said then."""
    CONTENT = "content"
    TARGET = "target"
    """Where a symlink leads to."""
    DEVICE = "device"
    """The number of a device."""
    MODE = "mode"
    OWNER = "owner"
    """User or group."""
    TIME = "mtime"
    """When its content was written last, where nothing else has changed."""


@dataclass(frozen=True, slots=True)
class OneFile:
    """A file that only one of the two has; `path` begins with "/"."""

    path: bytes
    kind: Kind
    size: int
    """Of its content, in bytes."""


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """A file that both have. `kinds` and `sizes` (bytes) are those in A and in B."""

    path: bytes
    what: tuple[FileChange, ...]
    kinds: tuple[Kind, Kind]
    sizes: tuple[int, int]


@dataclass(frozen=True, slots=True)
class FileDifference:
    """How the files of B differ from those of A, each list in the order of the paths' bytes."""

    added: tuple[OneFile, ...]
    removed: tuple[OneFile, ...]
    changed: tuple[ChangedFile, ...]
    """Without those whose time alone has changed."""
    touched: tuple[ChangedFile, ...]
    """Those: TIME is all that is said of them. Directories are not among them."""
    unreadable: tuple[tuple[bytes, str], ...]
    """(path, why) of what cannot be compared, as it is encrypted or damaged."""

    @property
    def count(self) -> int:
        """How many files differ, but for those whose time alone does."""
        return len(self.added) + len(self.removed) + len(self.changed)


@dataclass(frozen=True, slots=True)
class _Met:
    path: bytes
    key: bytes
    """Orders paths as a walk does: "/" before all other bytes."""
    inode: int


def compare_files(
    a: ExtFilesystem, b: ExtFilesystem, changed: DiskDifference | None = None, *, paths: Sequence[bytes] = ()
) -> FileDifference:
    """Compare all files, or those at and below `paths`, of which "/" in front may be left out. With the difference of
    the disks that the file systems are on, hardly any content is read.

    Raises:
        NotFound: one of the paths is in neither.
        UnreadableFilesystem: very much of a file system cannot be read, or the paths of all that differs are of 512 MiB
            or more.
    """
    return _Comparison(a, b, changed, [clean_path(path) for path in paths]).run()


class _Comparison:
    def __init__(
        self, a: ExtFilesystem, b: ExtFilesystem, changed: DiskDifference | None, paths: Sequence[bytes]
    ) -> None:
        self._a, self._b, self._paths = a, b, [] if b"/" in paths else paths
        self._missing = set(self._paths)
        self._path_bytes = 0
        self._contents = Contents(a, b, changed)
        self._only_a: dict[bytes, int] = {}
        self._only_b: dict[bytes, int] = {}
        self._changed: list[ChangedFile] = []
        self._touched: list[ChangedFile] = []
        self._unreadable: dict[bytes, str] = {}

    def run(self) -> FileDifference:
        if not self._paths:
            self._both(b"/", self._a.root.inode, self._b.root.inode)
        for one, other in _merged(self._walk(self._a), self._walk(self._b)):
            if one is not None and other is not None:
                self._both(one.path, one.inode, other.inode)
            elif one is not None:
                self._only_a[self._kept(one.path)] = one.inode
            elif other is not None:
                self._only_b[self._kept(other.path)] = other.inode
        # The names of a very large directory come in order in parts only.
        for path in self._only_a.keys() & self._only_b.keys():
            self._both(path, self._only_a.pop(path), self._only_b.pop(path))
        if self._missing:
            raise NotFound(f"expected a file at {quoted(min(self._missing))} in one of the two, got none")
        return FileDifference(
            added=self._single(self._b, self._only_b),
            removed=self._single(self._a, self._only_a),
            changed=tuple(sorted(self._changed, key=_path_of)),
            touched=tuple(sorted(self._touched, key=_path_of)),
            unreadable=tuple(sorted(self._unreadable.items())),
        )

    def _walk(self, files: ExtFilesystem) -> Iterator[_Met]:
        # A directory that cannot be read is told without its path: the one whose names were asked for last.
        inside = b"/"

        def enter(path: bytes) -> bool:
            nonlocal inside
            inside = path
            return self._leads(path)

        def unreadable(error: UnreadableFilesystem) -> None:
            self._note(inside, error)

        for path, entry in files.walk(enter=enter, unreadable=unreadable, ordered=True):
            self._missing.discard(path)
            if self._wanted(path):
                yield _Met(path, path.replace(b"/", b"\0"), entry.inode)

    def _wanted(self, path: bytes) -> bool:
        return not self._paths or any(path == top or path.startswith(top + b"/") for top in self._paths)

    def _leads(self, path: bytes) -> bool:
        """Whether there may be something wanted in a directory."""
        return self._wanted(path) or any(top.startswith(path + b"/") for top in self._paths)

    def _both(self, path: bytes, inode_a: int, inode_b: int) -> None:
        try:
            a, b = self._a.node(inode_a), self._b.node(inode_b)
            what = tuple(self._what(a, b))
            if Kind.DIRECTORY in (a.kind, b.kind) and (a.is_encrypted or b.is_encrypted):
                self._unreadable[path] = "it is encrypted by the file system, with all that is in it"
        except UnreadableFilesystem as error:
            self._note(path, error)
            return
        if what:
            self._changed.append(ChangedFile(self._kept(path), what, (a.kind, b.kind), (a.size, b.size)))
        elif a.mtime_ns != b.mtime_ns and a.kind is not Kind.DIRECTORY:
            self._touched.append(ChangedFile(self._kept(path), (FileChange.TIME,), (a.kind, b.kind), (a.size, b.size)))

    def _what(self, a: Node, b: Node) -> Iterator[FileChange]:
        if a.kind is not b.kind:
            yield FileChange.TYPE
            return
        if a.kind is Kind.FILE and not self._contents.same(a, b):
            yield FileChange.CONTENT
        if a.kind is Kind.SYMLINK and not self._contents.same(a, b):
            yield FileChange.TARGET
        if a.kind in _DEVICES and a.mapping[:_DEVICE] != b.mapping[:_DEVICE]:
            yield FileChange.DEVICE
        if a.mode != b.mode:
            yield FileChange.MODE
        if (a.uid, a.gid) != (b.uid, b.gid):
            yield FileChange.OWNER

    def _single(self, files: ExtFilesystem, found: dict[bytes, int]) -> tuple[OneFile, ...]:
        listed = []
        for path in sorted(found):
            try:
                node = files.node(found[path])
            except UnreadableFilesystem as error:
                self._note(path, error)
                continue
            listed.append(OneFile(path, node.kind, node.size))
        return tuple(listed)

    def _kept(self, path: bytes) -> bytes:
        self._path_bytes += len(path)
        if self._path_bytes > _MOST_PATHS:
            raise UnreadableFilesystem(
                f"expected at most {_MOST_PATHS} bytes of paths that differ, got more; compare some paths only"
            )
        return path

    def _note(self, path: bytes, error: UnreadableFilesystem) -> None:
        if len(self._unreadable) >= _MOST_UNREADABLE:
            raise error
        self._unreadable.setdefault(path, str(error))


def _path_of(file: ChangedFile) -> bytes:
    return file.path


def _merged(some: Iterator[_Met], others: Iterator[_Met]) -> Iterator[tuple[_Met | None, _Met | None]]:
    """What two walks meet: pairs of the same path, and what only one of them has."""
    a, b = next(some, None), next(others, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a.key < b.key):
            yield a, None
            a = next(some, None)
        elif a is None or b.key < a.key:
            yield None, b
            b = next(others, None)
        else:
            yield a, b
            a, b = next(some, None), next(others, None)
