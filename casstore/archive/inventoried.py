"""Reads archives of microsandbox 0.6 and 0.7: every member has its place, and archive.json says of each what it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from casstore import dialects
from casstore.archive import inventory
from casstore.archive.borrowing import Lender
from casstore.archive.inventory import Entry, Inventory
from casstore.archive.payloads import Contents, Found, Payloads, Seen
from casstore.dialects.rules import write_integrity
from casstore.dialects.sidecars import METADATA_FILENAME, parse_labels
from casstore.dialects.v07 import LAYERS_FOLDER, Manifest07
from casstore.digest import Digest
from casstore.errors import DigestMismatch, DocumentError, NotFound, UnsupportedVersion
from casstore.integrity import SHA256
from casstore.manifest import Dialect, Manifest
from casstore.tar.reader import Member

_IMAGES: Final = r"(?:images|cache)/"
_PLACES: Final = [
    (kind, re.compile(pattern + r"\Z"))
    for kind, pattern in (
        (inventory.DESCRIPTOR, r"snapshots/(?:[0-9a-f]{64}|snap_[0-9a-f]{32})/snapshot\.json"),
        (inventory.METADATA, r"snapshots/snap_[0-9a-f]{32}/metadata\.json"),
        (inventory.PAYLOAD, r"files/[0-9a-f]{64}/[^/]+"),
        (inventory.PAYLOAD, r"layers/layer_[0-9a-f]{32}\.(?:raw|qcow2)"),
        (inventory.IMAGE_METADATA, _IMAGES + r"manifests/[^/]+\.json"),
        (inventory.IMAGE_OBJECT, _IMAGES + r"(?:(?:layers|fsmeta)/[^/]+\.erofs|vmdk/[^/]+\.vmdk)"),
        ("archive-inventory", r"archive\.json"),
    )
]


def kind_of(path: str) -> str | None:
    """What a member of this name is; None: it has no place in such an archive."""
    return next((kind for kind, pattern in _PLACES if pattern.match(path)), None)


class Inventoried:
    """An archive with archive.json, being read; see payloads.Family."""

    def __init__(self, payloads: Payloads, lender: Lender) -> None:
        self._payloads, self._lender = payloads, lender
        self._known: dict[str, Manifest] = {}  # member of a disk -> the document that says what it is

    def take(self, member: Member) -> None:
        """See payloads.Family."""
        path = member.name.removeprefix("./")
        kind = kind_of(path)
        if kind is None:
            if path.startswith("checkpoints/"):
                problem = "it holds a checkpoint of a running machine, which cannot be kept here"
                raise UnsupportedVersion(f"{self._payloads.subject}: {path}", problem)
            raise DocumentError(f"{self._payloads.subject}: {ascii(path)[:100]}", "expected a known name of a member")
        if kind == inventory.PAYLOAD:
            self._payloads.disk(member, path, kind, of=self._known.get(path))
        elif kind in {inventory.IMAGE_METADATA, inventory.IMAGE_OBJECT}:
            self._payloads.skip(member, path, kind)
        else:
            data = self._payloads.document(member, path, kind)
            if kind == inventory.DESCRIPTOR:
                self._expect(path, data)

    def _expect(self, path: str, data: bytes) -> None:
        manifest = self._parse(path, data)
        self._known.update(dict.fromkeys(_disks(path, manifest), manifest))

    def finish(self) -> Contents:
        """See payloads.Family."""
        subject = self._payloads.subject
        data = self._payloads.documents.get(inventory.PATH)
        if data is None:
            raise DocumentError(subject, f"expected {inventory.PATH}, which says what is in it, got none")
        listed = Inventory.parse(data)
        self._compare(listed)
        snapshots = {identity: self._found(listed, identity, digest) for identity, digest in listed.snapshots}
        self._compare_recorded(listed, snapshots.values())
        needed = {path for found in snapshots.values() for path in found.disks}
        unused = len(self._payloads.disks - needed)
        unused += sum(entry.kind in {inventory.IMAGE_METADATA, inventory.IMAGE_OBJECT} for entry in listed.entries)
        return Contents(tuple(snapshots.values()), snapshots[listed.head], listed.suggested_name, unused)

    def _compare(self, listed: Inventory) -> None:
        """Raise CorruptContent unless what was read is what the inventory says."""
        seen = {path: each for path, each in self._payloads.seen.items() if path != inventory.PATH}
        told = f"{self._payloads.subject}: {inventory.PATH}"
        expected = {entry.path: entry for entry in listed.entries if entry.included}
        for path in sorted(expected.keys() ^ seen.keys()):
            problem = "is listed, and missing" if path in expected else "is not listed"
            raise DocumentError(told, f"{ascii(path)[:120]} {problem}")
        for path, entry in expected.items():
            _compare_entry(entry, seen[path], f"{self._payloads.subject}: {path}", listed.dialect)
            document = self._payloads.documents.get(path)
            if document is not None and entry.integrity is not None and entry.integrity["algorithm"] == SHA256:
                got = str(Digest.of(document))
                if got != entry.integrity.get("digest"):
                    raise DigestMismatch(path, expected=str(entry.integrity.get("digest")), got=got)

    def _compare_recorded(self, listed: Inventory, snapshots: Iterable[Found]) -> None:
        """Raise DocumentError where inventory and documents record different digests of a disk."""
        recorded: dict[str, list[object]] = {}
        for found in snapshots:
            for path, file in zip(found.disks, found.manifest.disks, strict=True):
                recorded.setdefault(path, []).append(write_integrity(file.integrity, file.size or 0))
        for entry in listed.entries:
            said = recorded.get(entry.path)
            if entry.integrity is not None and said is not None and entry.integrity not in said:
                told = f"{self._payloads.subject}: {entry.path}"
                raise DocumentError(told, "expected the integrity that a document records, got another in archive.json")

    def _found(self, listed: Inventory, identity: str, digest: Digest) -> Found:
        path = inventory.descriptor_path(listed.dialect, identity)
        told = f"{self._payloads.subject}: {path}"
        data = self._payloads.documents.get(path)
        if data is None:
            raise DocumentError(told, "expected the document of a listed snapshot, got none")
        if Digest.of(data) != digest:
            raise DigestMismatch(told, expected=str(digest), got=str(Digest.of(data)))
        manifest = self._parse(path, data)
        own = manifest.snapshot_id if isinstance(manifest, Manifest07) else str(manifest.id)
        if manifest.dialect is not listed.dialect or own != identity or manifest.id != digest:
            raise DocumentError(told, f"expected the canonical document of {identity}, got that of {own}")
        disks = _disks(path, manifest)
        for disk, file in zip(disks, manifest.disks, strict=True):
            if disk not in self._payloads.disks and not self._borrow(listed, disk, file.name, manifest):
                if disk in listed.required:
                    problem = f"{told}: the archive relies on {disk}, which neither it nor a snapshot here has"
                    raise NotFound(f"{problem}; import first what it was exported since")
                raise DocumentError(told, f"expected the disk {disk} in the archive, got none")
        sidecars = {}
        if (metadata := self._payloads.documents.get(_metadata_path(path))) is not None:
            sidecars = {METADATA_FILENAME: metadata}
        return Found(manifest, disks, sidecars, listed.member_names.get(identity))

    def _borrow(self, listed: Inventory, disk: str, name: str, manifest: Manifest) -> bool:
        """Take a layer that the archive leaves out from a stored snapshot, if there is one that has it."""
        if disk not in listed.required or not isinstance(manifest, Manifest07):
            return False
        layer = next(each for each in manifest.layers if each.filename == name)
        return self._lender.lend(disk, layer, manifest)

    def _parse(self, path: str, data: bytes) -> Manifest:
        told = f"{self._payloads.subject}: {path}"
        dialect = Dialect.V07 if path.startswith("snapshots/snap_") else Dialect.V06
        metadata = self._payloads.documents.get(_metadata_path(path))
        labels = None if metadata is None else parse_labels(metadata, subject=told)
        return dialects.parse_manifest(data, dialects.MEDIA_TYPES[dialect], subject=told, labels=labels)


def _metadata_path(path: str) -> str:
    """The labels beside a document."""
    return path.replace("/snapshot.json", f"/{METADATA_FILENAME}")


def _disks(path: str, manifest: Manifest) -> tuple[str, ...]:
    """The members that are the disks of the document at `path`."""
    own = path.replace("snapshots/", "files/").rpartition("/")[0]
    folder = LAYERS_FOLDER if manifest.dialect is Dialect.V07 else own
    return tuple(f"{folder}/{disk.name}" for disk in manifest.disks)


def _compare_entry(entry: Entry, seen: Seen, told: str, dialect: Dialect) -> None:
    ranges = () if seen.ranges is None else tuple(map(tuple, seen.ranges.tolist()))
    if (entry.kind, entry.stored, entry.size) != (seen.kind, seen.stored, seen.size):
        listed, got = f"{entry.kind} of {entry.stored}/{entry.size}", f"{seen.kind} of {seen.stored}/{seen.size}"
        raise DocumentError(told, f"expected a {listed} bytes, got a {got}")
    if dialect is Dialect.V07 and entry.ranges != ranges:
        raise DocumentError(told, "expected the sparse ranges that are listed, got others")
    if entry.transport is not None and entry.transport != seen.transport:
        raise DigestMismatch(told, expected=entry.transport, got=seen.transport)
