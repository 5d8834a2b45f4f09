"""Looks on a disk for files that look like credentials, before it becomes a snapshot that others may get.

It says where something was found, and of what kind; never what. It is a help against mistakes: what is encoded, lies
in files of other names, or in blocks of deleted files, it does not find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from casstore.errors import SecretsFound, UnreadableFilesystem
from casstore.spec import KIB, MIB

if TYPE_CHECKING:
    from casstore.disk import DiskSource
    from casstore.filesystem.bounds import Bounds
    from casstore.filesystem.ext import Found
    from casstore.filesystem.inode import Node

LOOKED_INTO: Final = 256 * KIB
"""Of each file the first bytes that are looked at."""
MOST_CONTENT: Final = 512 * MIB
"""Bytes of all files together."""
MOST_FINDINGS: Final = 1000
_SECONDS: Final = 300
_TOLD: Final = 10


class OnSecrets(StrEnum):
    """What to do about what is found."""

    WARN = "warn"
    REFUSE = "refuse"
    """Also when the disk, or a part of it, could not be looked at."""


class Finding(NamedTuple):
    """A file that looks like credentials."""

    path: bytes
    """On the disk, from its root."""
    pattern: str
    """The id of a pattern."""

    @property
    def text(self) -> str:
        r"""The path; bytes that are not UTF-8 as `\xff`."""
        return self.path.decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What was found on a disk."""

    subject: str
    findings: tuple[Finding, ...] = ()
    """By path; at most MOST_FINDINGS."""
    more: int = 0
    """Findings beyond these."""
    names: int = 0
    """In all directories that were entered."""
    files: int = 0
    """That were looked into."""
    not_scanned: str | None = None
    """Why the disk, or a part of it, could not be looked at."""

    def require_none(self) -> None:
        """Raise SecretsFound unless the disk was looked at as a whole, and nothing was found."""
        if self.findings:
            told = ", ".join(f"{finding.text!r} ({finding.pattern})" for finding in self.findings[:_TOLD])
            more = len(self.findings) + self.more - _TOLD
            raise SecretsFound(
                f"{self.subject}: expected no files that look like credentials, got {told}"
                f"{f' and {more} more' if more > 0 else ''}; remove them from the disk, or only warn",
                [(finding.text, finding.pattern) for finding in self.findings],
            )
        if self.not_scanned is not None:
            why = self.not_scanned.removeprefix(f"{self.subject}: ")
            raise SecretsFound(
                f"{self.subject}: expected a disk that can be searched for credentials, got one that was not scanned:"
                f" {why}; only warn, if it is to be captured all the same"
            )


class Files(Protocol):
    """The part of a file system that a scan needs."""

    def walk(
        self, *, enter: Callable[[bytes], bool], unreadable: Callable[[UnreadableFilesystem], None]
    ) -> Iterator[Found]:
        """All names."""
        ...

    def node(self, inode: int, /) -> Node:
        """A file."""
        ...

    def read(self, node: Node, offset: int, length: int, /) -> bytes:
        """Some of its content."""
        ...


def scan(files: Files, *, subject: str) -> Scan:
    """Look for credentials in the files of a disk.

    Raises:
        CasstoreError: the disk cannot be read. A damaged file system is no error: the result says so.
    """
    return _Search(files, subject).run()


def search(source: DiskSource, action: OnSecrets | None) -> Scan | None:
    """Look for credentials on a disk that is about to be captured, if that is wanted.

    Raises:
        SecretsFound: there are some, or the disk could not be looked at, and `action` is to refuse.
        As scan_source.
    """
    return None if action is None else _require(scan_source(source), action)


def cannot_search(subject: str, problem: str, action: OnSecrets | None) -> Scan | None:
    """The same for what cannot be looked at.

    Raises:
        SecretsFound: `action` is to refuse.
    """
    return None if action is None else _require(Scan(subject=subject, not_scanned=problem), action)


def _require(found: Scan, action: OnSecrets) -> Scan:
    if action is OnSecrets.REFUSE:
        found.require_none()
    return found


def scan_source(source: DiskSource, *, bounds: Bounds | None = None) -> Scan:
    """Look for credentials on a disk that is about to be captured, without changing it.

    Raises:
        SourceError: the disk cannot be read, or changed since it was opened.
    """
    from casstore.filesystem.bounds import Bounds
    from casstore.filesystem.ext import ExtFilesystem
    from casstore.filesystem.reader import SourceReader

    if source.in_order:
        return Scan(subject=source.subject, not_scanned="it comes through a pipe, which can be read once only")
    try:
        files = ExtFilesystem(SourceReader(source), subject=source.subject, bounds=bounds or Bounds(seconds=_SECONDS))
        found = scan(files, subject=source.subject)
    except UnreadableFilesystem as error:
        found = Scan(subject=source.subject, not_scanned=str(error))
    source.check_unchanged()
    return found


class _Search:
    def __init__(self, files: Files, subject: str) -> None:
        self._files, self._subject = files, subject
        self._findings: list[Finding] = []
        self._found = self._names = self._looked_into = 0
        self._left = MOST_CONTENT
        self._problem: str | None = None

    def run(self) -> Scan:
        from casstore.filesystem.inode import Kind
        from casstore.secretpatterns import candidates, is_passed_over

        for path, entry in self._files.walk(enter=lambda path: not is_passed_over(path), unreadable=self._unreadable):
            self._names += 1
            if entry.kind in (Kind.FILE, None) and (patterns := candidates(path)):
                try:
                    content = self._content(entry.inode)
                except UnreadableFilesystem as error:
                    self._unreadable(error)
                else:
                    for pattern in patterns:
                        if pattern.found_in(content):
                            self._add(Finding(path, pattern.id))
        return Scan(
            subject=self._subject,
            findings=tuple(sorted(self._findings)),
            more=self._found - len(self._findings),
            names=self._names,
            files=self._looked_into,
            not_scanned=self._problem,
        )

    def _content(self, inode: int) -> bytes:
        """What is looked at of a file; nothing of what is none, or is encrypted on the disk."""
        from casstore.filesystem.inode import Kind

        node = self._files.node(inode)
        if node.kind is not Kind.FILE or node.is_encrypted or not node.size:
            return b""
        length = min(node.size, LOOKED_INTO)
        if length > self._left:
            raise UnreadableFilesystem(
                f"{self._subject}: expected at most {MOST_CONTENT} bytes in files that may hold credentials, got more"
            )
        self._left -= length
        self._looked_into += 1
        return self._files.read(node, 0, length)

    def _add(self, finding: Finding) -> None:
        self._found += 1
        if len(self._findings) < MOST_FINDINGS:
            self._findings.append(finding)

    def _unreadable(self, error: UnreadableFilesystem) -> None:
        self._problem = self._problem or str(error)
