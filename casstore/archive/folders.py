"""Reads archives of artifact directories: what microsandbox 0.4 exports, and tars of its snapshots folder.

Members come in any order: a directory's document may stand before its disk or after it. Which snapshot the archive is
about follows from their parents alone.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from casstore import dialects
from casstore.archive.payloads import Contents, Found, Payloads, head_of
from casstore.dialects.sidecars import GROUP_FILENAME, MEMBER_FILENAME, METADATA_FILENAME, GroupMember, parse_labels
from casstore.dialects.v06 import SNAPSHOT_FILENAME
from casstore.dialects.v07 import LAYERS_FOLDER
from casstore.errors import DocumentError
from casstore.manifest import MANIFEST_FILENAME, UPPER_FILENAME, Dialect, Manifest
from casstore.tar.names import safe_path
from casstore.tar.reader import Member

_CACHE: Final = "cache"
"""Where the image is: it belongs to no snapshot."""
_DOCUMENTS: Final = {MANIFEST_FILENAME, SNAPSHOT_FILENAME, METADATA_FILENAME, GROUP_FILENAME, MEMBER_FILENAME}
_KIND: Final = ""


class Folders:
    """An archive of artifact directories, being read; see payloads.Family."""

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads
        self._known: dict[str, Manifest] = {}
        self._unused = 0

    def take(self, member: Member) -> None:
        """See payloads.Family."""
        parts = safe_path(member.name, subject=f"{self._payloads.subject}: member")
        path = "/".join(parts)
        if parts[0] == _CACHE or parts[-1].startswith(".") or parts[-1].endswith(".lock") or ".msb-leases" in parts:
            self._unused += 1
        elif parts[-1] in _DOCUMENTS:
            data = self._payloads.document(member, path, _KIND)
            if parts[-1] == MANIFEST_FILENAME:
                manifest = self._parse(path, data)
                self._known["/".join([*parts[:-1], manifest.upper.file])] = manifest
        else:
            self._payloads.disk(member, path, _KIND, of=self._known.get(path))

    def finish(self) -> Contents:
        """See payloads.Family."""
        documents = self._payloads.documents
        wanted = [path for path in documents if path.rpartition("/")[2] in {MANIFEST_FILENAME, SNAPSHOT_FILENAME}]
        snapshots = tuple(self._found(path) for path in sorted(wanted) if not self._superseded(path))
        head = head_of(snapshots, self._payloads.subject)
        needed = {path for found in snapshots for path in found.disks}
        return Contents(snapshots, head, None, self._unused + len(self._payloads.disks - needed))

    def _superseded(self, path: str) -> bool:
        """Whether a directory has a document of a later form, too."""
        later = str(PurePosixPath(path).with_name(SNAPSHOT_FILENAME))
        return path.rpartition("/")[2] == MANIFEST_FILENAME and later in self._payloads.documents

    def _found(self, path: str) -> Found:
        told = f"{self._payloads.subject}: {path}"
        manifest = self._parse(path, self._payloads.documents[path])
        disks = tuple(self._disk(path, disk.name, told) for disk in manifest.disks)
        sidecars = {}
        if manifest.dialect is Dialect.V07 and (data := self._beside(path, METADATA_FILENAME)) is not None:
            sidecars = {METADATA_FILENAME: data}
        hint = None
        if (data := self._beside(path, MEMBER_FILENAME)) is not None:
            hint = GroupMember.parse(data, subject=told).name
        return Found(manifest, disks, sidecars, hint)

    def _disk(self, path: str, name: str, told: str) -> str:
        """The member that is a disk of the document at `path`."""
        folder = PurePosixPath(path).parent
        # 0.7 leaves the one disk of what it took over from 0.4 where it was.
        candidates = [str(folder / name), str(folder / LAYERS_FOLDER / name), str(folder / UPPER_FILENAME)]
        for candidate in candidates:
            if candidate in self._payloads.disks:
                return candidate
        raise DocumentError(told, f"expected its disk {ascii(name)[:100]} in the archive, got none")

    def _parse(self, path: str, data: bytes) -> Manifest:
        told = f"{self._payloads.subject}: {path}"
        dialect = dialects.sniff(data, subject=told)
        labels = None
        if dialect is Dialect.V07 and (metadata := self._beside(path, METADATA_FILENAME)) is not None:
            labels = parse_labels(metadata, subject=told)
        return dialects.parse_manifest(data, dialects.MEDIA_TYPES[dialect], subject=told, labels=labels)

    def _beside(self, path: str, name: str) -> bytes | None:
        return self._payloads.documents.get(str(PurePosixPath(path).with_name(name)))
