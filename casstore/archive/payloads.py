"""Members on their way into a store: documents into memory, disks into chunks, and what of both was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from casstore.archive.transport import Transport
from casstore.errors import DocumentError
from casstore.manifest import Manifest
from casstore.microsandbox.intake import Importer
from casstore.oci import Descriptor
from casstore.sequential import SequentialDisk
from casstore.spec import MAX_MANIFEST, MIB
from casstore.tar.reader import Member
from casstore.tar.sparse import Ranges

if TYPE_CHECKING:
    from casstore.trust.decision import Verdict

MAX_DISKS: Final = 4096
"""Disks of an archive: the layers of 16 full chains."""
MAX_SNAPSHOTS: Final = 1024
"""Snapshots of an archive."""
MAX_DOCUMENTS: Final = 64 * MIB
"""Bytes of all documents of an archive together, which are kept until its end."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A member that was read: what its inventory must say of it."""

    kind: str
    stored: int
    size: int
    ranges: Ranges | None
    transport: str


@dataclass(frozen=True, slots=True)
class Found:
    """A snapshot in an archive: its document, what stands beside it, and the members that are its disks."""

    manifest: Manifest
    disks: tuple[str, ...]
    """As captured, in the order of the manifest's."""
    sidecars: Mapping[str, bytes] = field(default_factory=dict)
    hint: str | None = None
    """What it is called in there."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive holds: its snapshots, which of them it is about, and how many members nobody needs."""

    snapshots: tuple[Found, ...]
    head: Found
    suggested_name: str | None
    unused: int


@dataclass(frozen=True, slots=True)
class Staged:
    """A snapshot of an archive that is in the store, but for a name."""

    root: Descriptor
    manifest: Manifest
    added: int
    """Bytes of the blobs that were stored for it."""
    hint: str | None
    verdicts: tuple[Verdict, ...] = ()
    """What was decided about its signatures, one for each requirement."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What was staged of an archive."""

    head: Staged
    """The snapshot that it is about."""
    others: Sequence[Staged]
    """Those that it comes from, nearest first."""
    unused: int
    """Members that belong to no snapshot; of a layout, artifacts of other kinds."""
    suggested_name: str | None = None
    warnings: Sequence[str] = ()


class Family(Protocol):
    """A form of archives, being read."""

    def take(self, member: Member) -> None:
        """Read a member.

        Raises:
            CorruptContent: it has no place in an archive of this form.
        """
        ...

    def finish(self) -> Contents:
        """What all members together are.

        Raises:
            CorruptContent: something is missing, or not what it should be.
        """
        ...


class Payloads:
    """What was taken from an archive."""

    def __init__(self, importer: Importer, subject: str) -> None:
        self.subject: str = subject
        self._importer = importer
        self.documents: dict[str, bytes] = {}
        self.disks: set[str] = set()
        self.seen: dict[str, Seen] = {}
        self._bytes = 0

    def document(self, member: Member, path: str, kind: str) -> bytes:
        """Read a small file into memory, and keep it.

        Raises:
            DocumentError: it is too large, or sparse; the archive is truncated, or its documents are too many.
        """
        told = f"{self.subject}: {path}"
        if member.size > MAX_MANIFEST or member.is_sparse:
            raise DocumentError(told, f"expected at most {MAX_MANIFEST} bytes without holes, got {member.size}")
        self._bytes += member.size
        if self._bytes > MAX_DOCUMENTS:
            raise DocumentError(self.subject, f"expected documents of at most {MAX_DOCUMENTS} bytes together, got more")
        data = b"".join(iter(member.read, b""))
        self.documents[path] = data
        self.seen[path] = Seen(kind, len(data), len(data), None, Transport.of(kind, path, data))
        return data

    def disk(self, member: Member, path: str, kind: str, *, of: Manifest | None) -> None:
        """Capture a disk.

        Raises:
            DocumentError: one too many; the archive is truncated.
            As Importer.disk.
        """
        if len(self.disks) >= MAX_DISKS:
            raise DocumentError(self.subject, f"expected at most {MAX_DISKS} disks, got more")
        body = _Hashed(member, path, kind)
        extents = None if member.ranges is None else _extents(member.ranges)
        subject = f"{self.subject}: {path}"
        self._importer.disk(path, SequentialDisk(body, subject, member.size, extents), of=of, file=_name_in(of, path))
        self.disks.add(path)
        self.seen[path] = body.finish()

    def skip(self, member: Member, path: str, kind: str) -> None:
        """Read a member that is not kept.

        Raises:
            DocumentError: the archive is truncated.
        """
        body = _Hashed(member, path, kind)
        self.seen[path] = body.finish()


class _Hashed:
    """A member's stored bytes, hashed as they are read."""

    def __init__(self, member: Member, path: str, kind: str) -> None:
        self._member, self._kind = member, kind
        self._transport = Transport(kind, path, member.stored, member.size, member.ranges)

    def read(self, size: int) -> bytes:
        data = self._member.read(size)
        self._transport.update(data)
        return data

    def finish(self) -> Seen:
        """Read what is left; what was seen."""
        while self.read(MIB):
            pass
        member = self._member
        return Seen(self._kind, member.stored, member.size, member.ranges, self._transport.finish())


def _name_in(manifest: Manifest | None, path: str) -> str | None:
    """Which of a document's disks a member is, where it has several."""
    name = path.rpartition("/")[2]
    return name if manifest is not None and any(disk.name == name for disk in manifest.disks) else None


def _extents(ranges: Ranges) -> list[tuple[int, int]]:
    """The ranges that are not empty, joined where they touch."""
    found: list[tuple[int, int]] = []
    for offset, length in ranges.tolist():
        if found and sum(found[-1]) == offset:
            found[-1] = (found[-1][0], found[-1][1] + length)
        elif length:
            found.append((offset, length))
    return found


class _Snapshot(Protocol):
    @property
    def manifest(self) -> Manifest: ...


S = TypeVar("S", bound=_Snapshot)


def head_of(snapshots: Sequence[S], subject: str) -> S:
    """The snapshot that no other comes from, whatever their order is.

    Raises:
        DocumentError: there is none, or more than one.
    """
    parents = {found.manifest.parent for found in snapshots}
    heads = [found for found in snapshots if found.manifest.known_as not in parents]
    if len(heads) != 1:
        what = f"{len(heads)} of {len(snapshots)} snapshots" if snapshots else "no snapshot"
        raise DocumentError(subject, f"expected one snapshot that no other comes from, got {what}")
    return heads[0]


def nearest_first(head: S, snapshots: Sequence[S], subject: str) -> list[S]:
    """The head, what it comes from, and what is left.

    Raises:
        DocumentError: one comes from itself; in 0.7, ids are no digests.
    """
    known = {each.manifest.known_as: each for each in snapshots}
    line = [head]
    placed = {id(head)}
    while (parent := known.get(line[-1].manifest.parent or "")) is not None:
        if id(parent) in placed:
            name = parent.manifest.known_as
            raise DocumentError(subject, f"expected snapshots that come from one another, got {name} from itself")
        placed.add(id(parent))
        line.append(parent)
    return [*line, *(each for each in snapshots if id(each) not in placed)]
