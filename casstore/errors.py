"""All errors that casstore raises on purpose, by whose fault they are.

    CasstoreError                 1   something failed
    ├── UsageError                2   the caller's words
    │   ├── InvalidName
    │   ├── InvalidDigest
    │   ├── InvalidReference
    │   ├── InvalidKey                a key file, or the passphrase for it
    │   └── InvalidPolicy             a trust policy that cannot be followed
    ├── NotFound                 10   no such name, digest, blob or tag
    │   └── SandboxNotFound
    ├── StoreLocked              11   another process holds what is needed, or locks do not work here
    ├── CorruptContent           12   bytes are not what their digest or document says
    │   ├── SizeMismatch
    │   ├── DigestMismatch
    │   ├── DamagedPacks              packs of the store, met while something new was to rely on them
    │   └── DocumentError             a document breaks its own rules
    │       └── UnsupportedVersion    a document of a form that this version does not know
    ├── UntrustedContent         13   not signed by whom it must be
    ├── RegistryError            14   the registry or the way to it
    │   ├── Unauthorized
    │   ├── Unavailable
    │   ├── MissingBlobs              it does not hold what a manifest names
    │   ├── NotOffered                it cannot do what is asked
    │   └── HelperFailed              a credential helper gave no usable answer
    ├── Conflict                 15   the wish clashes with what is there
    │   ├── AlreadyExists
    │   ├── HasChildren
    │   └── SandboxNotStopped         its disk would change while it is captured
    ├── SourceError              16   the disk to capture
    │   ├── UnsuitableSandbox         its disk alone is no snapshot
    │   ├── UnreadableFilesystem      the files of the disk cannot be looked at
    │   └── SecretsFound              it holds what looks like credentials, and that was not wanted
    └── StorageError             17   the file system refused (full, read-only, I/O error)

Every text says the subject, then `expected X, got Y`, then where, then what to do. `exit_code` is what the command
line exits with; the table in docs/reference/exit-codes.md is checked against this module.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar


class CasstoreError(Exception):
    """Base of every error that casstore raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(CasstoreError):
    """What the caller asked for makes no sense."""

    exit_code = 2


class InvalidName(UsageError):
    """A snapshot name, disk name or label outside its grammar."""


class InvalidDigest(UsageError):
    """A digest outside its grammar."""


class InvalidReference(UsageError):
    """A registry or layout reference outside its grammar."""


class InvalidKey(UsageError):
    """A file that is no key of a supported kind, or a passphrase that does not open it."""


class InvalidPolicy(UsageError):
    """A trust policy that cannot be followed to the letter."""


class NotFound(CasstoreError):
    """No such store, name, digest, blob or tag."""

    exit_code = 10


class SandboxNotFound(NotFound):
    """microsandbox has no sandbox of this name."""


class StoreLocked(CasstoreError):
    """Another process holds what is needed, or the file system cannot lock."""

    exit_code = 11


class CorruptContent(CasstoreError):
    """Bytes are not what their digest, size or document says."""

    exit_code = 12


class SizeMismatch(CorruptContent):
    """More or fewer bytes than declared. Sizes in bytes."""

    def __init__(self, subject: str, *, expected: int, got: int | None) -> None:
        more = "more" if got is None else str(got)
        super().__init__(f"{subject}: expected {expected} bytes, got {more}")
        self.subject: str = subject
        self.expected: int = expected
        self.got: int | None = got


class DigestMismatch(CorruptContent):
    """The right number of bytes, but other ones."""

    def __init__(self, subject: str, *, expected: str, got: str) -> None:
        super().__init__(f"{subject}: expected digest {expected}, got {got}")
        self.subject: str = subject
        self.expected: str = expected
        self.got: str = got


class DocumentError(CorruptContent):
    """A document breaks its own rules; `at` says where in it, e.g. `layers[3].size`."""

    def __init__(self, subject: str, problem: str, *, at: str = "") -> None:
        super().__init__(f"{subject}: {problem}" + (f" (at {at})" if at else ""))
        self.subject: str = subject
        self.problem: str = problem
        self.at: str = at


class UnsupportedVersion(DocumentError):
    """A document of a kind or version that this version of casstore does not know."""


class DamagedPacks(CorruptContent):
    """Stored packs are not what their digests say; `packs` are these."""

    def __init__(self, problem: str, packs: Iterable[str]) -> None:
        super().__init__(problem)
        self.packs: tuple[str, ...] = tuple(packs)


class UntrustedContent(CasstoreError):
    """Content without the signatures that it must have. `reasons` says why, in the machine names of
    `casstore.signatures.reasons.Reason`.
    """

    exit_code = 13

    def __init__(self, problem: str, reasons: Iterable[str] = ()) -> None:
        super().__init__(problem)
        self.reasons: tuple[str, ...] = tuple(reasons)


class RegistryError(CasstoreError):
    """The registry, or the way to it, failed."""

    exit_code = 14


class Unauthorized(RegistryError):
    """The registry refused these credentials, or wants some."""


class Unavailable(RegistryError):
    """No usable answer: connection, time-out, TLS, a 5xx or a broken body."""


class MissingBlobs(RegistryError):
    """A manifest was refused because the registry does not hold all that it names."""


class NotOffered(RegistryError):
    """The registry does not offer this, as deleting a tag or listing tags."""


class HelperFailed(RegistryError):
    """A credential helper is missing, failed, hung, or wrote what is no answer."""


class Conflict(CasstoreError):
    """The wish clashes with what is there."""

    exit_code = 15


class AlreadyExists(Conflict):
    """A name, file or directory is taken."""


class HasChildren(Conflict):
    """A snapshot cannot be removed because others name it as their parent."""


class SandboxNotStopped(Conflict):
    """A sandbox whose disk may change at any time. `problem` says it in microsandbox's words."""

    def __init__(self, name: str, status: str) -> None:
        self.problem: str = f"snapshot source sandbox '{name}' is not stopped"
        super().__init__(f"{self.problem}: expected Stopped or Crashed, got {status}; stop it first")


class SourceError(CasstoreError):
    """The disk to capture, or a seed, cannot be read; or the disk changed while it was read."""

    exit_code = 16


class UnsuitableSandbox(SourceError):
    """A sandbox that no snapshot can be made of, as its root is something else than a disk over a pinned image.
    `problem` says it in microsandbox's words.
    """

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem}; {advice}")
        self.problem: str = problem


class UnreadableFilesystem(SourceError):
    """The file system on a disk is damaged, of an unknown kind, or more than what may be looked at."""


class SecretsFound(SourceError):
    """A disk has files that look like credentials, or could not be looked at, and was to be refused then. `findings`
    are pairs of a path on the disk, printable, and the id of a pattern.
    """

    def __init__(self, problem: str, findings: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(problem)
        self.findings: tuple[tuple[str, str], ...] = tuple(findings)


class StorageError(CasstoreError):
    """The file system refused: full, read-only, no permission, I/O error."""

    exit_code = 17


@contextmanager
def storage_errors(subject: str, *, on: str | int | None = None) -> Iterator[None]:
    """Turn an OSError inside the block into a StorageError that names `subject`. Of a full file system it is told what
    is left there; `on` is a file or descriptor on it, for errors that name none.
    """
    try:
        yield
    except OSError as error:
        name = error.filename2 or error.filename  # of a rename, link or symlink what was to be made
        temporary = str(name).endswith(".tmp")  # nobody has seen that name
        where = f" ({name})" if name and not temporary else ""
        left = _left(name if on is None else on) if error.errno == errno.ENOSPC else ""
        raise StorageError(f"{subject}: {error.strerror or error}{where}{left}") from error


def _left(place: str | bytes | int | None) -> str:
    """What a full file system has left around `place`, and what to do."""
    advice = "; make room there: in a store, casstore rm and then casstore gc do"
    with suppress(OSError):
        if not isinstance(place, int):
            place = os.path.dirname(os.path.abspath(os.fsdecode(place or ".")))
        free = os.statvfs(place)
        inodes = f" and {free.f_favail} inodes" if free.f_files else ""  # btrfs does not count them
        return f": {free.f_bavail * free.f_frsize} bytes{inodes} are left{advice}"
    return advice
