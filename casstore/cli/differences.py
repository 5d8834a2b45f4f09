"""What differs between two snapshots: text for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from casstore.cli import render

if TYPE_CHECKING:
    from casstore.comparing.disks import DiskDifference
    from casstore.comparing.files import ChangedFile, FileDifference, OneFile
    from casstore.filesystem.inode import Kind
    from casstore.opened import Opened

_KINDS = {1: "changed", 2: "added", 3: "removed"}
"""ChangeKind, in words."""
_COLORS = {"+": "green", "-": "red", "~": "yellow", "?": "magenta"}


@dataclass(frozen=True, slots=True)
class Found:
    """What a run of diff found."""

    a: Opened
    b: Opened
    disk: DiskDifference
    files: FileDifference | None
    """None where the files were not asked for, or cannot be compared."""
    problem: str | None
    """Why the files cannot be compared."""

    @property
    def same(self) -> bool:
        """Whether nothing differs: neither the disks' sizes nor a byte."""
        return self.disk.same_bytes


# --- for people ------------------------------------------------------------------------------------------------------


def fields(found: Found) -> list[tuple[str, str]]:
    """The summary."""
    disk = found.disk
    differing = disk.changed_bytes + disk.added_bytes + disk.removed_bytes
    told = "nothing"
    if differing:
        amounts = (f"{render.size(getattr(disk, f'{kind}_bytes'))} {kind}" for kind in _KINDS.values())
        told = f"{render.size(differing)} in {render.count(len(disk.ranges), 'range')}: {', '.join(amounts)}"
    shared, only_a, only_b = disk.chunks
    pairs = [
        ("A", _side(found.a, disk.extents[0])),
        ("B", _side(found.b, disk.extents[1])),
        ("Differs", told),
        ("Chunks", f"{shared} in both, {only_a} in A only, {only_b} in B only"),
        ("New Stored", f"{render.size(disk.new_stored_bytes)} that B needs and A has not"),
    ]
    if found.files is not None:
        pairs.append(("Files", _files_told(found.files)))
    elif found.problem is not None:
        pairs.append(("Files", f"not compared: {found.problem}"))
    return pairs


def _side(opened: Opened, extents: int) -> str:
    disk = opened.artifact.map.newest
    allocated = f"{render.size(disk.allocated)} allocated in {render.count(extents, 'extent')}"
    # A subject that is a place has the whole digest in it.
    digest = "" if str(opened.digest) in opened.subject else f", {opened.digest.short}"
    return f"{opened.subject}{digest}: {render.size(disk.size)}, {allocated}"


def _files_told(files: FileDifference) -> str:
    told = f"{len(files.added)} added, {len(files.removed)} removed, {len(files.changed)} changed"
    if files.touched:
        told += f", {len(files.touched)} with another time only"
    if files.unreadable:
        told += f", {len(files.unreadable)} not compared"
    return told


def file_lines(files: FileDifference, *, times: bool) -> Iterator[str]:
    """A line per file, sorted by path: what was added, removed and changed, and with `times` what was touched."""
    lines = [(file.path, "+", f"{_shown(file.path, file.kind)}{_size(file)}") for file in files.added]
    lines += [(file.path, "-", f"{_shown(file.path, file.kind)}{_size(file)}") for file in files.removed]
    lines += [(file.path, "~", f"{_shown(file.path, file.kinds[1])}  {_what(file)}") for file in _changed(files, times)]
    lines += [(path, "?", render.printable(f"{render.path_text(path)}  {why}")) for path, why in files.unreadable]
    for _, sign, line in sorted(lines):
        yield click.style(f"{sign} {line}", fg=_COLORS[sign])


def statuses(files: FileDifference, *, times: bool) -> list[tuple[bytes, str]]:
    """The path of each file, and what git calls that: `A`, `D`, `M` or `T` for another type. Sorted."""
    found = [(file.path, "A") for file in files.added] + [(file.path, "D") for file in files.removed]
    found += [(file.path, "M" if file.kinds[0] is file.kinds[1] else "T") for file in _changed(files, times)]
    return sorted(found)


def _changed(files: FileDifference, times: bool) -> Sequence[ChangedFile]:
    return (*files.changed, *files.touched) if times else files.changed


def _shown(path: bytes, kind: Kind) -> str:
    text = render.printable(render.path_text(path))
    return f"{text}/" if kind.name == "DIRECTORY" and path != b"/" else text


def _size(file: OneFile) -> str:
    return f"  {render.size(file.size)}" if file.kind.name == "FILE" else ""


def _what(file: ChangedFile) -> str:
    told = []
    for change in file.what:
        text = change.value
        if change.value == "content" and file.sizes[0] != file.sizes[1]:
            text += f" ({render.size(file.sizes[0])} -> {render.size(file.sizes[1])})"
        if change.value == "type":
            text += f" ({' -> '.join(str(kind) for kind in file.kinds)})"
        told.append(text)
    return ", ".join(told)


# --- for programs ----------------------------------------------------------------------------------------------------


def document(found: Found, *, ranges: bool) -> dict[str, Any]:
    """All that was found, for JSON."""
    disk = found.disk
    shared, only_a, only_b = disk.chunks
    return {
        "a": _side_document(found.a),
        "b": _side_document(found.b),
        "same": found.same,
        "changed_bytes": disk.changed_bytes,
        "added_bytes": disk.added_bytes,
        "removed_bytes": disk.removed_bytes,
        "new_stored_bytes": disk.new_stored_bytes,
        "chunks": {"shared": shared, "only_a": only_a, "only_b": only_b},
        "range_count": len(disk.ranges),
        "ranges": [
            {"offset": offset, "length": length, "kind": _KINDS[kind]}
            for (offset, length), kind in zip(disk.ranges.tolist(), disk.kinds.tolist(), strict=True)
        ]
        if ranges
        else None,
        "files": None if found.files is None else _files_document(found.files),
        "files_problem": found.problem,
    }


def _side_document(opened: Opened) -> dict[str, Any]:
    disk, traffic = opened.artifact.map.newest, opened.traffic
    return {
        "subject": opened.subject,
        "digest": str(opened.digest),
        "size_bytes": disk.size,
        "allocated_bytes": disk.allocated,
        "extents": len(disk.extents),
        "stored_bytes": opened.stored_bytes,
        "fetched_bytes": traffic.bytes if opened.elsewhere else None,
    }


def _files_document(files: FileDifference) -> dict[str, Any]:
    return {
        "added": [_one_document(file) for file in files.added],
        "removed": [_one_document(file) for file in files.removed],
        "changed": [_changed_document(file) for file in files.changed],
        "touched": [_changed_document(file) for file in files.touched],
        "not_compared": [{"path": render.path_text(path), "problem": why} for path, why in files.unreadable],
    }


def _one_document(file: OneFile) -> dict[str, Any]:
    return {"path": render.path_text(file.path), "type": str(file.kind), "size_bytes": file.size}


def _changed_document(file: ChangedFile) -> dict[str, Any]:
    return {
        "path": render.path_text(file.path),
        "what": [change.value for change in file.what],
        "types": [str(kind) for kind in file.kinds],
        "sizes_bytes": list(file.sizes),
    }
