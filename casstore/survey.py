"""What an artifact is made of, found at its source before anything is copied: blobs, manifests, and what refers to it.

What comes from a registry may be hostile: the number of manifests and how deep they lie are bounded, and each is read
as a document of at most 4 MiB whose digest is known.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from casstore import spec
from casstore.content import Fetcher, ReferrerLister
from casstore.digest import Digest
from casstore.errors import NotOffered, UnsupportedVersion
from casstore.oci import AnyManifest, ArtifactManifest, Descriptor
from casstore.streams import fetch_all

MAX_MANIFESTS = 1000
"""Manifests in one index with all that it leads to."""
MAX_REFERRERS = 1000
"""Manifests that refer to one artifact, to those, and so on."""
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
    """What it refers to, where it is here for that."""


@dataclass(frozen=True, slots=True)
class Graph:
    """What has to be at the destination before the name, surveyed at the source."""

    root: Descriptor
    raw: bytes
    """The root's bytes."""
    nodes: tuple[Node, ...]
    """In the order in which they can be stored: each after what it names or refers to."""

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


def survey(source: Fetcher, root: Descriptor, raw: bytes | None = None, *, referrers: bool = False) -> Graph:
    """What the manifest `root` is made of; with `referrers`, also what refers to it, and to that. `raw` are its bytes,
    if they were read already.

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
    return Graph(root, raw, tuple(survey_.nodes.values()))


class _Survey:
    """Collects manifests in the order in which they can be stored."""

    def __init__(self, source: Fetcher) -> None:
        self._source = source
        self.nodes: dict[Digest, Node] = {}
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
        self._blobs += len(manifest.blobs)
        if self._blobs > MAX_BLOBS:
            problem = f"expected at most {MAX_BLOBS} blobs in all manifests together, got more"
            raise UnsupportedVersion(f"manifest {root.digest}", problem)
        self.nodes[root.digest] = Node(root, manifest.blobs, subject)

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

    def _read(self, descriptor: Descriptor) -> bytes:
        if descriptor.media_type not in {spec.MEDIA_MANIFEST, spec.MEDIA_INDEX}:  # it may not even lie where those do
            problem = f"expected an OCI image manifest or index, got {ascii(descriptor.media_type)[:100]}"
            raise UnsupportedVersion(f"manifest {descriptor.digest}", problem, at="mediaType")
        return fetch_all(self._source, descriptor, limit=spec.MAX_MANIFEST)
