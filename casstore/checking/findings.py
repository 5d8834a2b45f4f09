"""What a check of a store can find, each thing with a kind of its own that programs may rely on.

damage     what snapshots, or the store as a whole, cannot do without is missing or wrong: the exit code is 3, and a
           repair is wanted
stale      something derived does not say what it is derived from: nothing is lost, and it is made anew
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
    """A ref is no symlink to a blob, leads to none while it was known to lead to another one, or has no valid name."""
    LOST_REF = "lost-ref"
    """A name that index.json or the catalog has, and neither refs/ nor the trash: nobody removed it with casstore."""
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
    """A directory of the store is missing, something else has the place of one of its files or directories, or a
    marker is wrong."""

    MISSING_MARKER = "missing-marker"
    """oci-layout or casstore.json is not there, as where only refs/ and blobs/ were copied."""
    STALE_INDEX = "stale-index"
    """index.json does not say what the refs say."""
    STALE_CATALOG = "stale-catalog"
    """The catalog does not say what a walk of the refs tells."""

    GARBAGE = "garbage"
    """Blobs that nothing needs."""
    DEAD_OPERATION = "dead-operation"
    """What an interrupted command had staged."""
    TEMPORARY = "temporary"
    REMOVED_REF = "removed-ref"
    """Names in the trash: `undo` takes them back until gc."""

    CHANGED_REF = "changed-ref"
    """A ref leads to another snapshot than index.json and the catalog saw last. Whether somebody wanted that cannot be
    known."""
    FOREIGN_ENTRY = "foreign-entry"
    """An entry of index.json that another tool added."""
    UNKNOWN_FILE = "unknown-file"
    QUARANTINED = "quarantined"
    """Damaged bytes that a repair set aside."""
    DAMAGED_RECORD = "damaged-record"
    """What names in registries led to when they were last pulled can no longer be read."""
    LOOSE_PERMISSIONS = "loose-permissions"
    """Others may write to the store, or a blob is writable."""

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return _SEVERITIES.get(self, Severity.DAMAGE)


_SEVERITIES = {
    **dict.fromkeys((Kind.MISSING_MARKER, Kind.STALE_INDEX, Kind.STALE_CATALOG), Severity.STALE),
    **dict.fromkeys((Kind.GARBAGE, Kind.DEAD_OPERATION, Kind.TEMPORARY, Kind.REMOVED_REF), Severity.LEFTOVER),
    **dict.fromkeys(
        (
            *(Kind.CHANGED_REF, Kind.FOREIGN_ENTRY, Kind.UNKNOWN_FILE, Kind.QUARANTINED),
            *(Kind.DAMAGED_RECORD, Kind.LOOSE_PERMISSIONS),
        ),
        Severity.NOTICE,
    ),
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
    """Of the blob, where it is about one; of a ref that is broken or lost, what it stood for, where that is known."""
    blob: Descriptor | None = None
    """What the manifests that need the blob say of it; None where it is a manifest that only a ref names."""
    snapshots: tuple[str, ...] = ()
    """The names that are hurt, sorted; none where it is about the store as a whole. A removed name is
    `trash/<name>@<stamp>`, what another tool added `index.json <name or digest>`.
    """

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return self.kind.severity
