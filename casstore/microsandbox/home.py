"""microsandbox's home, strictly read-only: which sandboxes there are, and where each one has its disk.

    Home("/home/ann/.microsandbox").sandbox("box")       # a stopped one, with all that a snapshot of it says

    home    config.json                     `home` and `paths.sandboxes`, `paths.cache`: where else things are
            db/msb.db                       a row for each sandbox: name, status, configuration as JSON
            sandboxes/NAME/upper.ext4       what it wrote, over its image; rootfs.raw: a whole root, with no image below
                     /runtime/root-disk.json        from 0.7 on: the chain of files that its disk is
                     /snapshot-lineage.json         from 0.7 on: of which snapshot it is the continuation
            cache/                          the images

A configuration has `manifest_digest`, the digest that the image had, and `image`: `{"Oci": "REF"}` in 0.4, `{"Oci":
{"reference": "REF", "root_disk": {"kind": "managed" | "flat" | "tmpfs" | "disk-image"}}}` from 0.5 on, or a directory
(`Bind`) or disk image (`DiskImage`), of which no snapshots are made.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from casstore import spec
from casstore.errors import (
    CorruptContent,
    DocumentError,
    InvalidName,
    NotFound,
    SandboxNotFound,
    SandboxNotStopped,
    SourceError,
    UnsuitableSandbox,
)
from casstore.manifest import UPPER_FILENAME, ImageRef, SnapshotFormat
from casstore.microsandbox.database import open_file, read_database
from casstore.microsandbox.rootdisk import STATE_FILE, LayerFile, parse_root_disk
from casstore.names import is_file_name

FLAT_FILE: Final = "rootfs.raw"
CAPTURED: Final = frozenset({"Stopped", "Crashed", "Created"})
"""States in which nothing writes to the disk; Created: it never ran."""

_IS_TABLE: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'sandbox' AND rootpage > 0"
_ROWS: Final = (
    "SELECT id, name, status, iif(?1 IS NULL, '', config), coalesce(updated_at, '') FROM sandbox"
    " WHERE ?1 IS NULL OR name = ?1 LIMIT ?2"
)
_LINEAGE_FILE = "snapshot-lineage.json"
_MAX_DOCUMENT = spec.MAX_MANIFEST
_MAX_SANDBOXES = 100_000
_NAMED = 8
"""Sandboxes that are named where one is not found."""
_SMALL = 64 * spec.KIB
_ELSEWHERE = "capture the file of its disk itself"


@dataclass(frozen=True, slots=True)
class SandboxDisk:
    """A file of a sandbox's disk, and what tells whether it is still the same. Bytes, and ns since 1970."""

    path: str
    format: SnapshotFormat
    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox that can be captured, as it was when it was looked at."""

    name: str
    status: str
    image: ImageRef
    is_flat: bool
    """The disk is a whole root file system, and not what was written over an image."""
    disks: Sequence[SandboxDisk]
    """Oldest first; more than one from 0.7 on, each a qcow2 file over the one before."""
    parent: str | None
    """The `snapshot_id` that it is the continuation of, from 0.7 on."""
    updated_at: str
    """Of its row: as microsandbox wrote it."""

    @property
    def is_plain(self) -> bool:
        """Whether the disk is one file with the bytes that it has, to be read over the image: all that 0.4 knows."""
        return not self.is_flat and len(self.disks) == 1 and self.disks[0].format is SnapshotFormat.RAW


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    name: str
    status: str
    config: str
    updated_at: str


@dataclass(frozen=True, slots=True)
class _Places:
    root: str
    sandboxes: str
    cache: str


class Home:
    """The home in directory `path`. Nothing is read before it is asked for, and everything is read anew each time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: str = os.fspath(path)

    def statuses(self) -> Mapping[str, str]:
        """The status of every sandbox, by name, in the order of the names.

        Raises:
            NotFound: there is no home, or microsandbox has never been used there.
            SourceError, CorruptContent: the database cannot be read.
        """
        rows = self._rows(self._places())
        return {row.name: row.status for row in sorted(rows, key=lambda row: row.name)}

    def sandbox(self, name: str) -> Sandbox:
        """A stopped sandbox.

        Raises:
            SandboxNotFound: there is none.
            SandboxNotStopped: it is running, or about to.
            UnsuitableSandbox: its root is no disk over a pinned OCI image.
            SourceError: its disk is not there, or its database cannot be read.
            CorruptContent: the database or a document is malformed.
        """
        places = self._places()
        try:
            row = next(iter(self._rows(places, name)), None)
        except NotFound as error:
            raise SandboxNotFound(f"sandbox not found: {name}; {error}") from None
        if row is None:
            there = sorted(each.name for each in self._rows(places))
            more = f" and {len(there) - _NAMED} more" if len(there) > _NAMED else ""
            has = f"has {', '.join(there[:_NAMED])}{more}" if there else "has no sandboxes"
            raise SandboxNotFound(f"sandbox not found: {name}; the home {self.path!r} {has}")
        if row.status not in CAPTURED:
            raise SandboxNotStopped(name, row.status)
        if not is_file_name(name):
            raise InvalidName(f"sandbox name {ascii(name[:140])}: expected a name, got a path")
        config = _object(row.config, f"configuration of sandbox {name!r}")
        image, is_flat = _image(name, config)
        folder = os.path.join(places.sandboxes, name)
        allowed = (places.root, places.sandboxes, folder)
        disks = [_stamped(name, layer, allowed) for layer in _layers(name, folder, is_flat=is_flat)]
        return Sandbox(name, row.status, image, is_flat, tuple(disks), _parent(folder, row.id, config), row.updated_at)

    def require_unchanged(self, sandbox: Sandbox) -> None:
        """Check that nothing has happened to a sandbox since.

        Raises:
            SandboxNotStopped: it was started.
            SourceError: it is another one now, or its disk was written to.
        """
        if self.sandbox(sandbox.name) != sandbox:
            raise SourceError(
                f"sandbox {sandbox.name!r}: expected that it stays as it is while it is captured, got a change of it;"
                " capture it again while nothing uses it"
            )

    def cache(self) -> str:
        """The directory of the images.

        Raises:
            SourceError, CorruptContent: the home's config.json cannot be read.
        """
        return self._places().cache

    def _places(self) -> _Places:
        """Where things are: config.json may say that it is elsewhere. As in microsandbox, `~` has no meaning there."""
        path = os.path.join(self.path, "config.json")
        data = _read(path, _MAX_DOCUMENT)
        config = {} if data is None else _object(data, repr(path))
        root = _text(config.get("home")) or self.path
        paths = config.get("paths")
        told = paths if isinstance(paths, dict) else {}

        def folder(kind: str) -> str:
            return _text(told.get(kind)) or os.path.join(root, kind)

        return _Places(root, folder("sandboxes"), folder("cache"))

    def _rows(self, places: _Places, name: str | None = None) -> list[_Row]:
        # 0.4 keeps its database where it is, when `home` says that the rest is elsewhere.
        files = [os.path.join(root, "db", "msb.db") for root in (places.root, self.path)]
        with contextlib.closing(read_database(next(filter(os.path.exists, files), files[-1]))) as database:
            try:
                # A view or virtual table, which has no page of its own, might have no end.
                if not database.execute(_IS_TABLE).fetchone():
                    raise CorruptContent(f"microsandbox's database in {self.path!r}: expected a table of sandboxes")
                rows = database.execute(_ROWS, (name, _MAX_SANDBOXES))
                return [_Row(int(row[0]), *map(str, row[1:])) for row in rows]
            except (sqlite3.Error, TypeError, ValueError) as error:
                raise CorruptContent(f"microsandbox's database in {self.path!r}: {error}") from error


def _stamped(name: str, layer: LayerFile, allowed: Sequence[str]) -> SandboxDisk:
    """A file of the disk, which must lie in one of these directories: its path stands in a document."""
    real = os.path.realpath(layer.path)
    if not any(_is_below(real, os.path.realpath(folder)) for folder in allowed):
        raise SourceError(f"sandbox {name!r}: expected its disk in microsandbox's home, got {real!r}")
    try:
        info = os.stat(real)
    except FileNotFoundError:
        what = os.path.basename(layer.path)
        raise SourceError(f"source sandbox '{name}' has no {what} at {layer.path}") from None
    except OSError as error:
        raise SourceError(f"disk {layer.path!r}: {error.strerror}") from error
    return SandboxDisk(layer.path, layer.format, info.st_ino, info.st_size, info.st_mtime_ns)


def _image(name: str, config: Mapping[str, Any]) -> tuple[ImageRef, bool]:
    """The image that the disk is over, and whether the disk does without. Told in the words of 0.4.4 or 0.6.18."""
    digest, image = config.get("manifest_digest"), config.get("image")
    if not isinstance(digest, str) or not digest:
        problem = f"sandbox '{name}' has no OCI image pinned; only OCI-rooted sandboxes can be snapshotted"
        raise UnsuitableSandbox(problem, _ELSEWHERE)
    oci = image.get("Oci") if isinstance(image, dict) else None
    reference, disk = (oci.get("reference"), oci.get("root_disk")) if isinstance(oci, dict) else (oci, None)
    if not isinstance(reference, str) or not reference:
        raise UnsuitableSandbox(
            "snapshot requires an OCI-rooted sandbox", f"sandbox '{name}' has another root; {_ELSEWHERE}"
        )
    kind = disk.get("kind") if isinstance(disk, dict) else "managed"
    if kind == "tmpfs":
        problem = f"sandbox '{name}' uses a tmpfs root disk, whose writable state exists only while it runs"
        raise UnsuitableSandbox(problem, "there is nothing to capture")
    if kind == "disk-image":
        problem = f"sandbox '{name}' uses a user-owned disk-image root disk, which microsandbox does not snapshot"
        raise UnsuitableSandbox(problem, _ELSEWHERE)
    if kind not in {"managed", "flat"}:
        problem = f"sandbox '{name}' has a root disk of a kind that is not known: {ascii(kind)[:40]}"
        raise UnsuitableSandbox(problem, _ELSEWHERE)
    return ImageRef(ref=reference, manifest_digest=digest), kind == "flat"


def _layers(name: str, folder: str, *, is_flat: bool) -> Sequence[LayerFile]:
    state = os.path.join(folder, STATE_FILE)
    data = _read(state, spec.MIB)
    if data is None:  # up to 0.6, or it never ran
        return [LayerFile(os.path.join(folder, FLAT_FILE if is_flat else UPPER_FILENAME), SnapshotFormat.RAW)]
    return parse_root_disk(data, subject=f"root disk of sandbox {name!r} ({state})")


def _parent(folder: str, row_id: int, config: Mapping[str, Any]) -> str | None:
    """What the sandbox is the continuation of: the last snapshot of it, else the one that it was made from. A lineage
    that cannot be read, or is another sandbox's, says nothing: it is of no use to the content.
    """
    told: object = config.get("snapshot_parent")
    with contextlib.suppress(DocumentError, SourceError):
        path = os.path.join(folder, _LINEAGE_FILE)
        data = _read(path, _SMALL)
        if data is not None:
            lineage = _object(data, repr(path))
            told = lineage.get("snapshot_id") if lineage.get("sandbox_id") == row_id else None
    return told if isinstance(told, str) and told else None


def _object(data: str | bytes, subject: str) -> Mapping[str, Any]:
    """A JSON object. These documents are microsandbox's own: most of what they say, and may say next year, is of no
    concern here, so it may have any form.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DocumentError(subject, f"expected JSON: {error}") from None
    if not isinstance(value, dict):
        raise DocumentError(subject, f"expected a JSON object, got {type(value).__name__}")
    return value


def _read(path: str, limit: int) -> bytes | None:
    """A file of at most `limit` bytes, None where there is none."""
    try:
        with open(path, "rb", opener=open_file) as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path!r}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > limit:
        raise SourceError(f"{path!r}: expected at most {limit} bytes, got more")
    return data


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def _text(value: object) -> str:
    """A text; nothing for anything else."""
    return value if isinstance(value, str) else ""
