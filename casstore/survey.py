"""What an artifact is made of, found at its source before anything is copied: blobs, manifests, and what is about it:
what refers to it, and cosign's attachments.

What comes from a registry may be hostile: the number of manifests and how deep they lie are bounded, and each is read
as a document of at most 4 MiB whose digest is known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from casstore import spec
from casstore.attachments import Attachment, read_attachment
from casstore.content import Fetcher, ReferrerLister, Resolver
from casstore.digest import Digest
from casstore.errors import NotOffered, UnsupportedVersion
from casstore.oci import AnyManifest, ArtifactManifest, Descriptor, is_bundle
from casstore.streams import fetch_all

MAX_MANIFESTS = 1000
"""Manifests in one index with all that it leads to."""
MAX_REFERRERS = 1000
"""Manifests that are about one artifact, about those, and so on."""
MAX_BLOBS = 200_000
"""Blobs that all manifests together name; a manifest of 4 MiB can name 35,000, and each takes memory here."""
MAX_DEPTH = 8
"""Indexes in indexes, and referrers of referrers."""


@dataclass(frozen=True, slots=True)
class Node:
    """A manifest of a graph, and the blobs that have to be there before it."""

    descriptor: Descriptor
    blobs: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    """What it is about, where it is here for that."""
    attachment: Attachment | None = None
    """The manifest itself, where only its name says what it is about."""


@dataclass(frozen=True, slots=True)
class Graph:
    """What has to be at the destination before the name, surveyed at the source."""

    root: Descriptor
    raw: bytes
    """The root's bytes."""
    nodes: tuple[Node, ...]
    """In the order in which they can be stored: each after what it names or is about."""

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """All blobs, each once; no manifests."""
        return tuple(dict.fromkeys(blob for node in self.nodes for blob in node.blobs))

    @property
    def needs(self) -> dict[Digest, int]:
        """Digest -> bytes of everything, manifests included."""
        parts = (*self.blobs, *(node.descriptor for node in self.nodes))
        return {part.digest: part.size for part in parts}


def read_manifest(source: Fetcher, root: Descriptor) -> ArtifactManifest:
    """The artifact manifest `root`, verified.

    Raises:
        UnsupportedVersion, DocumentError: it is no snapshot of casstore.
    """
    raw = fetch_all(source, root, limit=spec.MAX_MANIFEST)
    return ArtifactManifest.parse(raw, subject=f"snapshot {root.digest}")


def survey(
    source: Fetcher,
    root: Descriptor,
    raw: bytes | None = None,
    *,
    referrers: bool = False,
    also: Collection[Descriptor] = (),
) -> Graph:
    """What the manifest `root` is made of; with `referrers`, also what is about it, and about that. Without, only those
    manifests about it that `also` names. `raw` are its bytes, if they were read already.

    Raises:
        NotFound: a manifest of an index, or a referrer, is not there.
        UnsupportedVersion: one of a kind that is not copied, or more of them than is sane.
        NotOffered: the source cannot tell referrers.
        DocumentError: a manifest is malformed, or a referrer does not refer to what it was listed for.
    """
    raw = fetch_all(source, root, limit=spec.MAX_MANIFEST) if raw is None else raw
    survey_ = _Survey(source)
    survey_.add(AnyManifest.parse(raw, root.media_type, subject=f"manifest {root.digest}"), subject=None)
    if referrers:
        survey_.add_referrers()
    for each in also:
        survey_.add_one(each, root)
    return Graph(root, raw, (*survey_.nodes.values(), *survey_.attachments.values()))


class _Survey:
    """Collects manifests in the order in which they can be stored."""

    def __init__(self, source: Fetcher) -> None:
        self._source = source
        self.nodes: dict[Digest, Node] = {}
        self.attachments: dict[Digest, Node] = {}
        """By subject."""
        self._blobs = 0

    def add(self, manifest: AnyManifest, *, subject: Descriptor | None, depth: int = 0) -> None:
        """A manifest, after those that it names."""
        root = manifest.descriptor
        for child in manifest.manifests:
            if child.digest in self.nodes:
                continue
            if depth >= MAX_DEPTH or len(self.nodes) >= MAX_MANIFESTS + MAX_REFERRERS:
                problem = f"expected at most {MAX_MANIFESTS} manifests, {MAX_DEPTH} deep, got more"
                raise UnsupportedVersion(f"index {root.digest}", problem)
            manifest_ = AnyManifest.parse(self._read(child), child.media_type, subject=f"manifest {child.digest}")
            self.add(manifest_, subject=None, depth=depth + 1)
        self._count(manifest)
        self.nodes[root.digest] = Node(root, manifest.blobs, subject)

    def _count(self, manifest: AnyManifest) -> None:
        self._blobs += len(manifest.blobs)
        if self._blobs > MAX_BLOBS:
            problem = f"expected at most {MAX_BLOBS} blobs in all manifests together, got more"
            raise UnsupportedVersion(f"manifest {manifest.descriptor.digest}", problem)

    def add_referrers(self) -> None:
        """What refers to what is here, level by level; a cycle, which no digests can form, would end, too."""
        if not isinstance(self._source, ReferrerLister):
            raise NotOffered(f"{self._source!r}: it cannot tell what refers to a snapshot; leave the referrers out")
        todo = deque((node.descriptor, 0) for node in self.nodes.values())
        count = 0
        while todo:
            subject, depth = todo.popleft()
            for listed in self._source.referrers(subject):
                if listed.digest in self.nodes:
                    continue
                count += 1
                if count > MAX_REFERRERS or depth >= MAX_DEPTH:
                    problem = f"expected at most {MAX_REFERRERS} referrers, {MAX_DEPTH} deep, got more"
                    raise UnsupportedVersion(f"referrers of {subject.digest}", problem)
                manifest = AnyManifest.parse_referrer(self._read(listed), listed.media_type, of=subject)
                self.add(manifest, subject=subject)
                todo.append((manifest.descriptor, depth + 1))
            attached = read_attachment(self._source, subject.digest) if isinstance(self._source, Resolver) else None
            if attached is not None:
                self._attach(attached, subject)

    def add_one(self, listed: Descriptor, subject: Descriptor) -> None:
        """A manifest with signatures of `subject`, in either form."""
        if listed.digest in self.nodes:
            return
        raw = self._read(listed)
        manifest = AnyManifest.parse(raw, listed.media_type, subject=f"signature {listed.digest}")
        if is_bundle(manifest.descriptor.artifact_type):
            self.add(AnyManifest.parse_referrer(raw, listed.media_type, of=subject), subject=subject)
        else:
            self._attach(Attachment.parse(raw, subject=subject.digest), subject)

    def _attach(self, attachment: Attachment, subject: Descriptor) -> None:
        self._count(attachment.manifest)
        blobs = attachment.manifest.blobs
        self.attachments[subject.digest] = Node(attachment.descriptor, blobs, subject, attachment)

    def _read(self, descriptor: Descriptor) -> bytes:
        if descriptor.media_type not in {spec.MEDIA_MANIFEST, spec.MEDIA_INDEX}:  # it may not even lie where those do
            problem = f"expected an OCI image manifest or index, got {ascii(descriptor.media_type)[:100]}"
            raise UnsupportedVersion(f"manifest {descriptor.digest}", problem, at="mediaType")
        return fetch_all(self._source, descriptor, limit=spec.MAX_MANIFEST)
