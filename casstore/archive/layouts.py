"""Reads tars of OCI layouts: unpacked beside the store's own staging, each blob checked, then copied as a pull does.

Members come in any order. Blobs that the archive leaves out the store must have. What is about a snapshot, as its
signatures, comes with it; the rest of the archive is left out.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from casstore import spec
from casstore.archive.payloads import MAX_DOCUMENTS, MAX_SNAPSHOTS, Staged, Taken, head_of, nearest_first
from casstore.archive.referrers import Referrers
from casstore.blobs import BlobDirectory
from casstore.content import Reader
from casstore.dialects import read_config
from casstore.digest import Digest
from casstore.durable import write_all
from casstore.errors import DigestMismatch, DocumentError, NotFound, storage_errors
from casstore.graph import Copier
from casstore.jsondoc import load_object
from casstore.names import referrer_subject
from casstore.oci import AnyManifest, ArtifactManifest, Descriptor, ImageIndex
from casstore.progress import Meter, silent
from casstore.schema import validate
from casstore.streams import fetch_all
from casstore.survey import Graph, survey
from casstore.tar.limits import FREE_OF_RATIO, MAX_RATIO
from casstore.tar.reader import Member
from casstore.transaction import Transaction
from casstore.trust.gate import Gate

MARKER: Final = "oci-layout"
INDEX: Final = "index.json"
_BLOB: Final = re.compile(r"blobs/sha256/([0-9a-f]{64})\Z")


def belongs(name: str) -> bool:
    """Whether a member of this name is one of a layout."""
    path = name.removeprefix("./")
    return path in {MARKER, INDEX} or _BLOB.match(path) is not None


def take_in(
    change: Transaction,
    members: Iterable[Member],
    subject: str,
    *,
    read: Callable[[], int],
    is_stored: Callable[[Digest], bool],
    gate: Gate | None,
) -> Taken:
    """Stage all snapshots of a layout, and what is about them, or about what the store has. The layout is about the
    snapshot that no other comes from.

    Raises:
        DocumentError: a member has no place in a layout; the marker or index is missing, or breaks its rules.
        DigestMismatch: a blob is not what its name says.
        NotFound: a blob is neither in the archive nor in the store.
        CorruptContent: as Transaction.verify.
        UntrustedContent: by the gate.
    """
    unpacked = _Unpacked(os.path.join(change.scratch, "archive"), subject, read)
    for member in members:
        unpacked.add(member)
    listed = _read(unpacked, subject)
    copier = Copier(unpacked, change)
    meter = Meter(silent, "copying", None)
    added = {}
    for root, (raw, _) in listed.snapshots.items():
        added[root] = copier.copy(survey(unpacked, root, raw), tag=None, meter=meter).copied_bytes
    here = {root.digest for root in listed.snapshots}
    for node, raw in listed.referrers.those_of(lambda digest: digest in here or is_stored(digest), subject):
        copier.copy(Graph(node.descriptor, raw, (node,)), tag=None, meter=meter)
    staged = []
    for root, (raw, hint) in listed.snapshots.items():
        verdicts = () if gate is None else gate(change, root, raw).verdicts
        staged.append(replace(_verified(change, root, raw, added[root], hint), verdicts=verdicts))
    head, *others = nearest_first(head_of(staged, subject), staged, subject)
    return Taken(head, others, listed.left_out, warnings=listed.referrers.warnings(subject))


@dataclass(slots=True)
class _Listed:
    """What the index of a layout lists."""

    snapshots: dict[Descriptor, tuple[bytes, str | None]]
    """With their bytes, and what they are called."""
    referrers: Referrers
    left_out: int = 0


def _read(unpacked: _Unpacked, subject: str) -> _Listed:
    listed = _Listed({}, Referrers())
    seen: set[tuple[Digest, str]] = set()
    documents = 0
    for entry in unpacked.index().entries:
        root = Descriptor.from_dict(entry)
        name = entry.get("annotations", {}).get(spec.ANNOTATION_REF_NAME)
        key = root.digest, name if name is not None and referrer_subject(name) is not None else ""
        if key in seen:
            continue
        seen.add(key)
        documents += root.size
        if documents > MAX_DOCUMENTS:
            raise DocumentError(subject, f"expected manifests of at most {MAX_DOCUMENTS} bytes together, got more")
        raw = unpacked.document(root)
        manifest = AnyManifest.parse(raw, root.media_type, subject=f"{subject}: manifest {root.digest}")
        if listed.referrers.add(manifest, raw, name, subject):
            continue
        if manifest.descriptor.artifact_type != spec.ARTIFACT_TYPE:
            listed.left_out += 1
            continue
        if len(listed.snapshots) >= MAX_SNAPSHOTS:
            raise DocumentError(subject, f"expected at most {MAX_SNAPSHOTS} snapshots, got more")
        listed.snapshots[root] = raw, name
    return listed


def _verified(change: Transaction, root: Descriptor, raw: bytes, added: int, hint: str | None) -> Staged:
    change.verify(root)
    artifact = ArtifactManifest.parse(raw, subject=f"snapshot {root.digest}")
    limit = spec.MAX_MANIFEST
    manifest = read_config(
        artifact, lambda blob: fetch_all(change, blob, limit=limit), subject=f"snapshot {root.digest}"
    )
    return Staged(artifact.descriptor, manifest, added, hint)


class _Unpacked:
    """A layout in a directory that nobody else knows: a Source. `read` tells how many bytes of the archive, as it is,
    were read so far.
    """

    def __init__(self, path: str, subject: str, read: Callable[[], int]) -> None:
        self._subject, self._read = subject, read
        self._bytes = 0
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
                    self._bytes += len(part)
                    if self._bytes > FREE_OF_RATIO + MAX_RATIO * self._read():
                        problem = f"expected at most {MAX_RATIO} times the bytes of the archive, got more"
                        raise DocumentError(told, f"{problem}; if that is right, decompress the archive with zstd -d")
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
