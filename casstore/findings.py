"""What a check of a store can find, each thing with a kind of its own that programs may rely on.

damage     bytes that snapshots need are missing or wrong: the exit code is 3, and a repair is wanted
stale      something derived did not say what it is derived from; it is made anew by any opening of the store
leftover   what an interrupted or finished command left, and gc collects
notice     nothing is wrong with a snapshot, but people should know
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from casstore.digest import Digest
from casstore.oci import Descriptor


class Severity(Enum):
    """How bad a finding is."""

    DAMAGE = "damage"
    STALE = "stale"
    LEFTOVER = "leftover"
    NOTICE = "notice"


class Kind(Enum):
    """What was found. The values are what JSON output says; they never change their meaning."""

    BROKEN_REF = "broken-ref"
    """A ref is no symlink to a blob, or has no valid name."""
    LOST_REF = "lost-ref"
    """A name that index.json or the catalog has, and refs/ has not; nobody removed it with casstore."""
    MISSING_BLOB = "missing-blob"
    NOT_A_FILE = "not-a-file"
    """A blob's place is taken by a symlink, directory or special file."""
    WRONG_SIZE = "wrong-size"
    WRONG_CONTENT = "wrong-content"
    """A blob's sha256 is not its name."""
    UNREADABLE = "unreadable"
    """The file system gives an I/O error for a blob."""
    BAD_DOCUMENT = "bad-document"
    """A manifest, config, map or directory breaks its rules or contradicts another one, though its digest is right."""
    BAD_LAYOUT = "bad-layout"
    """A directory or marker of the store is missing or wrong."""

    STALE_INDEX = "stale-index"
    """index.json did not say what the refs say."""
    STALE_CATALOG = "stale-catalog"
    """The catalog did not say what a walk of the refs tells."""

    GARBAGE = "garbage"
    """Blobs that nothing needs."""
    DEAD_OPERATION = "dead-operation"
    """What an interrupted command had staged."""
    TEMPORARY = "temporary"
    REMOVED_REF = "removed-ref"
    """Names in the trash: `undo` takes them back until gc."""

    FOREIGN_ENTRY = "foreign-entry"
    """An entry of index.json that another tool added."""
    UNKNOWN_FILE = "unknown-file"
    QUARANTINED = "quarantined"
    """Damaged bytes that a repair set aside."""
    LOOSE_PERMISSIONS = "loose-permissions"
    """Others may write to the store, or a blob is writable."""

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return _SEVERITIES.get(self, Severity.DAMAGE)


_SEVERITIES = {
    **dict.fromkeys((Kind.STALE_INDEX, Kind.STALE_CATALOG), Severity.STALE),
    **dict.fromkeys((Kind.GARBAGE, Kind.DEAD_OPERATION, Kind.TEMPORARY, Kind.REMOVED_REF), Severity.LEFTOVER),
    **dict.fromkeys((Kind.FOREIGN_ENTRY, Kind.UNKNOWN_FILE, Kind.QUARANTINED, Kind.LOOSE_PERMISSIONS), Severity.NOTICE),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found."""

    kind: Kind
    subject: str
    """What it is about: a path within the store."""
    problem: str
    """`expected X, got Y`, and what to do."""
    digest: Digest | None = None
    """Of the blob, where it is about one."""
    blob: Descriptor | None = None
    """What the manifests that need the blob say of it."""
    snapshots: tuple[str, ...] = ()
    """The names that are hurt, sorted."""

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return self.kind.severity
