"""How things look: text for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from casstore.units import size_text
from casstore.visible import visible

if TYPE_CHECKING:
    from datetime import datetime

    from casstore.manifest import Manifest, UpperIntegrity
    from casstore.trash import RemovedRef

JSON_VERSION = 1
"""`version` of every JSON output; a field may be added within a version, none changes or goes."""
_GAP = " " * 4
_KEY = 16
_CELL = 128  # a name has at most as many characters

printable = visible
size = size_text


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def count(number: int, noun: str) -> str:
    """`1 blob`, `2 blobs`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def path_text(path: bytes) -> str:
    r"""A path on a disk, for JSON; bytes that are no UTF-8 are `\udc80` to `\udcff`, which `printable` escapes."""
    return path.decode("utf-8", "surrogateescape")


def can_show(text: str) -> bool:
    """Whether the standard output's encoding has these characters."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def them(number: int) -> str:
    """`it` for one, else `them`."""
    return "it" if number == 1 else "them"


def created(manifest: Manifest) -> str:
    """When it was captured, in UTC; as it was recorded where that cannot be read."""
    return time_text(manifest.created_at)


def time_text(recorded: str) -> str:
    """An RFC 3339 time, in UTC; anything else as it is."""
    from casstore.manifest import created_time

    time = created_time(recorded)
    return printable(recorded) if time is None else clock(time)


def clock(time: datetime) -> str:
    """A time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S")


def some(names: Sequence[str], most: int = 10) -> str:
    """Names for people; of many the first, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


def removed(ref: RemovedRef) -> dict[str, Any]:
    """A removed name, for JSON."""
    return {
        "name": ref.name,
        "digest": str(ref.digest),
        "removed_at": None if ref.time is None else ref.time.isoformat(),
    }


def manifest_document(manifest: Manifest) -> dict[str, Any]:
    """What a snapshot manifest says, for JSON."""
    return {
        "image_ref": manifest.image.ref,
        "image_manifest_digest": manifest.image.manifest_digest,
        "parent": manifest.parent,
        "dialect": manifest.dialect.value,
        "known_as": manifest.known_as,
        "format": manifest.format.value,
        "fstype": manifest.fstype,
        "size_bytes": manifest.upper.size_bytes,
        "created_at": manifest.created_at,
        "labels": dict(manifest.labels),
    }


def disk_documents(manifest: Manifest) -> list[dict[str, Any]]:
    """The files of the disk, oldest first, for JSON."""
    return [
        {"name": disk.name, "size_bytes": disk.size, "integrity": integrity_document(disk.integrity)}
        for disk in manifest.disks
    ]


def integrity_document(recorded: UpperIntegrity | None) -> dict[str, str] | None:
    """What is recorded of a disk's content, for JSON."""
    return {"algorithm": recorded.algorithm, "digest": recorded.digest} if recorded else None


def form_fields(manifest: Manifest) -> list[tuple[str, str]]:
    """What only a snapshot of another microsandbox than 0.4 has to say of its form."""
    pairs = [] if manifest.dialect == "0.4" else [("Dialect", f"microsandbox {manifest.dialect.value}")]
    if manifest.known_as != str(manifest.id):
        pairs.append(("Snapshot ID", manifest.known_as))
    if len(manifest.disks) > 1:
        pairs.append(("Layers", ", ".join(disk.name for disk in manifest.disks)))
    return pairs


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table, head first."""
    lines = [head, *([_short(printable(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        yield _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _short(cell: str) -> str:
    """Cut: one long cell would widen every line."""
    return cell if len(cell) <= _CELL else f"{cell[: _CELL - 3]}..."


def fields(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """`Key:` padded, then the value."""
    for key, value in pairs:
        yield f"{key + ':':<{_KEY}} {printable(value)}"


def document(**content: Any) -> str:
    """A JSON output: indented, with its version. All but ASCII is escaped, so it is safe to show as well."""
    return json.dumps({"version": JSON_VERSION, **content}, indent=2)


def line(**content: Any) -> str:
    """A JSON object on one line, else as `document`: for stderr, where several may come."""
    return json.dumps({"version": JSON_VERSION, **content})
