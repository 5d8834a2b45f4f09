"""Manifests of other people's artifacts, and of what refers to them, written by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from casstore import spec
from casstore.content import Attacher, Pusher
from casstore.oci import Descriptor
from casstore.streams import BytesSource

EMPTY = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
SIGNATURE = "application/vnd.example.signature.v1"


def image_manifest(
    layers: Sequence[Descriptor] = (),
    *,
    subject: Descriptor | None = None,
    artifact_type: str | None = SIGNATURE,
    **annotations: str,
) -> bytes:
    """An image manifest with an empty config; its bytes are as no tool would write them."""
    document: dict[str, Any] = {
        "layers": [layer.to_dict() for layer in layers],
        "schemaVersion": 2,
        "mediaType": spec.MEDIA_MANIFEST,
        "config": Descriptor.of(EMPTY, EMPTY_TYPE).to_dict(),
        "annotations": annotations,
    }
    if artifact_type is not None:
        document["artifactType"] = artifact_type
    if subject is not None:
        document["subject"] = {"mediaType": subject.media_type, "digest": str(subject.digest), "size": subject.size}
    return json.dumps(document, indent=1).encode() + b"\n"


def index_manifest(manifests: Sequence[Descriptor], *, subject: Descriptor | None = None) -> bytes:
    """An image index."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": spec.MEDIA_INDEX,
        "manifests": [{**each.to_dict(), "platform": {"architecture": "amd64", "os": "linux"}} for each in manifests],
    }
    if subject is not None:
        document["subject"] = {"mediaType": subject.media_type, "digest": str(subject.digest), "size": subject.size}
    return json.dumps(document, indent=1).encode()


def put(target: Pusher, data: bytes, media_type: str) -> Descriptor:
    """Push `data`."""
    descriptor = Descriptor.of(data, media_type)
    target.push(descriptor, BytesSource(data))
    return descriptor


class Place(Pusher, Attacher, Protocol):
    """What signatures can be put into."""


def sign(target: Place, subject: Descriptor, text: bytes = b"signature", **annotations: str) -> Descriptor:
    """Attach something to `subject`; returns its manifest's descriptor."""
    layer = put(target, text, "text/plain")
    put(target, EMPTY, EMPTY_TYPE)
    raw = image_manifest([layer], subject=subject, **annotations)
    descriptor = Descriptor.of(raw, spec.MEDIA_MANIFEST)
    target.attach(descriptor, subject, BytesSource(raw))
    return descriptor
