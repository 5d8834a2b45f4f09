"""Reads tars of OCI layouts: unpacked beside the store's own staging, each blob checked, then copied as a pull does.

Members come in any order. Blobs that the archive leaves out the store must have.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from typing import Final

from casstore import spec
from casstore.archive.payloads import MAX_DOCUMENTS, MAX_SNAPSHOTS, Staged, head_of, nearest_first
from casstore.blobs import BlobDirectory
from casstore.content import Reader
from casstore.dialects import read_config
from casstore.digest import Digest
from casstore.durable import write_all
from casstore.errors import DigestMismatch, DocumentError, NotFound, storage_errors
from casstore.graph import Copier
from casstore.jsondoc import load_object
from casstore.oci import AnyManifest, ArtifactManifest, Descriptor, ImageIndex
from casstore.progress import Meter, silent
from casstore.schema import validate
from casstore.streams import fetch_all
from casstore.survey import survey
from casstore.tar.reader import Member
from casstore.transaction import Transaction

MARKER: Final = "oci-layout"
INDEX: Final = "index.json"
_BLOB: Final = re.compile(r"blobs/sha256/([0-9a-f]{64})\Z")


def belongs(name: str) -> bool:
    """Whether a member of this name is one of a layout."""
    path = name.removeprefix("./")
    return path in {MARKER, INDEX} or _BLOB.match(path) is not None


def take_in(change: Transaction, members: Iterable[Member], subject: str) -> tuple[Staged, list[Staged], int]:
    """Stage all snapshots of a layout: the one that no other comes from, and the others, nearest first; and how many
    other artifacts there are, which are left out.

    Raises:
        DocumentError: a member has no place in a layout; the marker or index is missing, or breaks its rules.
        DigestMismatch: a blob is not what its name says.
        NotFound: a blob is neither in the archive nor in the store.
        CorruptContent: as Transaction.verify.
    """
    unpacked = _Unpacked(os.path.join(change.scratch, "archive"), subject)
    for member in members:
        unpacked.add(member)
    index = unpacked.index()
    staged: list[Staged] = []
    left_out = 0
    seen: set[Digest] = set()
    documents = 0
    for entry in index.entries:
        root = Descriptor.from_dict(entry)
        if root.digest in seen:
            continue
        seen.add(root.digest)
        documents += root.size
        if documents > MAX_DOCUMENTS:
            raise DocumentError(subject, f"expected manifests of at most {MAX_DOCUMENTS} bytes together, got more")
        raw = unpacked.document(root)
        manifest = AnyManifest.parse(raw, root.media_type, subject=f"{subject}: manifest {root.digest}")
        if manifest.descriptor.artifact_type != spec.ARTIFACT_TYPE:
            left_out += 1
            continue
        if len(staged) >= MAX_SNAPSHOTS:
            raise DocumentError(subject, f"expected at most {MAX_SNAPSHOTS} snapshots, got more")
        hint = entry.get("annotations", {}).get(spec.ANNOTATION_REF_NAME)
        staged.append(_copy(unpacked, change, root, raw, hint))
    head, *others = nearest_first(head_of(staged, subject), staged, subject)
    return head, others, left_out


def _copy(unpacked: _Unpacked, change: Transaction, root: Descriptor, raw: bytes, hint: str | None) -> Staged:
    graph = survey(unpacked, root, raw)
    report = Copier(unpacked, change).copy(graph, tag=None, meter=Meter(silent, "copying", None))
    change.verify(report.root)
    artifact = ArtifactManifest.parse(raw, subject=f"snapshot {root.digest}")
    limit = spec.MAX_MANIFEST
    manifest = read_config(
        artifact, lambda blob: fetch_all(change, blob, limit=limit), subject=f"snapshot {root.digest}"
    )
    return Staged(artifact.descriptor, manifest, report.copied_bytes, hint)


class _Unpacked:
    """A layout in a directory that nobody else knows: a Source."""

    def __init__(self, path: str, subject: str) -> None:
        self._subject = subject
        self._blobs = BlobDirectory(path)
        self._documents: dict[str, bytes] = {}
        with storage_errors("unpacking an archive"):
            os.mkdir(path, 0o700)

    def add(self, member: Member) -> None:
        """Take a member, and check it."""
        path = member.name.removeprefix("./")
        told = f"{self._subject}: {ascii(path)[:100]}"
        blob = _BLOB.match(path)
        if (blob is None and path not in {MARKER, INDEX}) or member.is_sparse:
            raise DocumentError(told, f"expected {MARKER}, {INDEX} or blobs/sha256/<64 hex>, without holes")
        if blob is not None:
            self._unpack(member, Digest(blob[1]), told)
            return
        if member.size > spec.MAX_MANIFEST:
            raise DocumentError(told, f"expected at most {spec.MAX_MANIFEST} bytes, got {member.size}")
        self._documents[path] = b"".join(iter(member.read, b""))

    def _unpack(self, member: Member, digest: Digest, told: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        hashed = hashlib.sha256()
        with storage_errors("unpacking an archive"):
            fd = os.open(self._blobs.path_of(digest), flags, 0o600)
            try:
                while part := member.read(spec.MIB):
                    hashed.update(part)
                    write_all(fd, part)
            finally:
                os.close(fd)
        if hashed.hexdigest() != digest.hex:
            raise DigestMismatch(told, expected=str(digest), got=f"sha256:{hashed.hexdigest()}")

    def index(self) -> ImageIndex:
        """The index, of a layout of the right version."""
        for name in (MARKER, INDEX):
            if name not in self._documents:
                raise DocumentError(self._subject, f"expected {name} in a tar of an OCI layout, got none")
        told = f"{self._subject}: {MARKER}"
        validate(
            load_object(self._documents[MARKER], subject=told, limit=spec.MAX_MANIFEST), "oci-layout", subject=told
        )
        return ImageIndex.parse(self._documents[INDEX], subject=f"{self._subject}: {INDEX}")

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest."""
        return fetch_all(self, descriptor, limit=spec.MAX_MANIFEST)

    def fetch(self, descriptor: Descriptor) -> Reader:
        """See Fetcher."""
        try:
            return self._blobs.fetch(descriptor)
        except NotFound:
            raise NotFound(
                f"{self._subject}: blob {descriptor.digest} is neither in the archive nor in the store; the archive may"
                " leave out what another snapshot has: import that first"
            ) from None

    def resolve(self, reference: str) -> Descriptor:
        """Names are not asked for; see Resolver."""
        raise NotFound(f"{self._subject}: {reference}: there is no such tag")
