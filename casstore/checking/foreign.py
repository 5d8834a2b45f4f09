"""What the entries of index.json that other tools added need. Their manifests need not follow our rules: what cannot be
read or understood in them is passed over.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from casstore import spec
from casstore.blobs import BlobDirectory
from casstore.digest import Digest
from casstore.errors import CasstoreError, InvalidDigest
from casstore.oci import ArtifactManifest, Descriptor
from casstore.storeindex import ref_name
from casstore.streams import fetch_all, read_through

_MOST = 200_000
"""Blobs of one entry that are looked at."""


@dataclass(frozen=True, slots=True)
class Reached:
    """What one entry needs."""

    label: str
    """The entry, in words."""
    manifests: frozenset[Digest]
    blobs: tuple[Descriptor, ...]
    """All of it, the manifests too, that is there."""
    missing: int
    """Blobs that it needs and that are not there."""


def reached(blobs: BlobDirectory, entries: Iterable[Mapping[str, Any]]) -> Iterator[Reached]:
    """What each entry needs. Of a blob whose digest is right the size is what it has, whatever its descriptor says."""
    for entry in entries:
        found, manifests, missing = dict[Digest, Descriptor](), set[Digest](), set[Digest]()
        todo: list[object] = [entry]
        while todo and len(found) < _MOST:
            document = todo.pop()
            blob = _descriptor(blobs, document)
            if blob is None or blob.digest in found:
                continue
            found[blob.digest] = blob
            if not _is_there(blobs, blob.digest):
                missing.add(blob.digest)
            elif blob.media_type in spec.MEDIA_MANIFESTS or document is entry:
                manifests.add(blob.digest)
                todo += _children(blobs, blob)
        there = tuple(blob for digest, blob in found.items() if digest not in missing)
        name = ref_name(entry) or str(entry["digest"])
        yield Reached(f"index.json {ascii(name)[1:-1][:200]}", frozenset(manifests), there, len(missing))


def _is_there(blobs: BlobDirectory, digest: Digest) -> bool:
    with contextlib.suppress(CasstoreError):
        return blobs.size(digest) is not None
    return True  # something else has its place


def _descriptor(blobs: BlobDirectory, document: object) -> Descriptor | None:
    """What a descriptor names; None for what is none or has another kind of digest."""
    if not isinstance(document, dict):
        return None
    try:
        digest = Digest.parse(document.get("digest"))
    except InvalidDigest:
        return None
    kind, said = document.get("mediaType"), document.get("size")
    kind = kind if isinstance(kind, str) else "application/octet-stream"
    said = said if isinstance(said, int) and 0 <= said < 1 << 63 else None
    with contextlib.suppress(CasstoreError):
        size = blobs.size(digest)
        if size is not None and size != said:
            actual = Descriptor(media_type=kind, digest=digest, size=size)
            if said is not None:
                read_through(blobs, actual)  # else it is the blob that is wrong
            return actual
    return Descriptor(media_type=kind, digest=digest, size=said or 0)


def _children(blobs: BlobDirectory, manifest: Descriptor) -> list[object]:
    try:
        raw = fetch_all(blobs, manifest, limit=spec.MAX_MANIFEST)
    except CasstoreError:
        return []
    with contextlib.suppress(CasstoreError):
        return [child.to_dict() for child in ArtifactManifest.parse(raw, subject="manifest").children]
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return []
    if not isinstance(document, dict):
        return []
    lists = [document.get(part) for part in ("layers", "manifests", "blobs")]
    return [document.get("config"), *(child for each in lists if isinstance(each, list) for child in each)]
