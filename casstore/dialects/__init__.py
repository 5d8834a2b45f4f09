"""The forms that microsandbox gave its snapshot manifest: 0.4 (`casstore.manifest`), 0.6 and 0.7.

    form   file            media type as an artifact's config                   what a child's `parent` says
    0.4    manifest.json   application/vnd.casstore.snapshot.config.v1+json     the id
    0.6    snapshot.json   application/vnd.casstore.microsandbox.v0.6+json      the id
    0.7    snapshot.json   application/vnd.casstore.microsandbox.v0.7+json      the `snapshot_id`

The id is the sha256 of the canonical bytes in all of them, and what the microsandbox of that form prints.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from casstore import spec
from casstore.dialects.sidecars import METADATA_FILENAME, parse_labels
from casstore.dialects.v06 import Manifest06
from casstore.dialects.v07 import SCHEMA, Manifest07
from casstore.errors import UnsupportedVersion
from casstore.jsondoc import load_object
from casstore.manifest import Dialect, Manifest
from casstore.oci import ArtifactManifest, Descriptor


def parse_manifest(data: bytes, media_type: str, *, subject: str, labels: Mapping[str, str] | None = None) -> Manifest:
    """The snapshot manifest in a config of this media type. `labels` are those that stand beside it, in 0.7.

    Raises:
        UnsupportedVersion: no such media type; a newer version; a checkpoint of a running machine.
        DocumentError: it breaks its rules.
    """
    if media_type == spec.MEDIA_CONFIG:
        return Manifest.parse(data, subject=subject)
    if media_type == spec.MEDIA_CONFIG_06:
        return Manifest06.parse(data, subject=subject)
    if media_type == spec.MEDIA_CONFIG_07:
        return Manifest07.parse(data, subject=subject, labels=labels)
    raise UnsupportedVersion(subject, f"config of type {media_type}", at="config.mediaType")


def read_config(
    artifact: ArtifactManifest, read: Callable[[Descriptor], bytes], *, subject: str, with_labels: bool = True
) -> Manifest:
    """The snapshot manifest of an artifact whose blobs `read` reads whole. Labels that stand beside it are read, too,
    unless nobody wants to know them.

    Raises:
        UnsupportedVersion, DocumentError: as `parse_manifest`. `subject` is the artifact.
    """
    config, labels = artifact.config, None
    if config.media_type not in spec.MEDIA_CONFIGS:
        raise UnsupportedVersion(subject, f"config of type {config.media_type}", at="config.mediaType")
    beside = artifact.file(METADATA_FILENAME) if config.media_type == spec.MEDIA_CONFIG_07 and with_labels else None
    if beside is not None:
        labels = parse_labels(read(beside), subject=f"{subject}: {METADATA_FILENAME}")
    return parse_manifest(read(config), config.media_type, subject=f"{subject}: config", labels=labels)


def parse_trusted(data: bytes, media_type: str, *, subject: str, labels: Mapping[str, str] | None = None) -> Manifest:
    """`parse_manifest` of canonical bytes that a manifest was written to: no schema is asked."""
    document: dict[str, Any] = json.loads(data)
    if media_type == spec.MEDIA_CONFIG_06:
        return Manifest06.from_dict(document, subject=subject)
    if media_type == spec.MEDIA_CONFIG_07:
        return Manifest07.from_dict(document, subject=subject, labels=labels)
    return Manifest.from_dict(document, subject=subject)


def sniff(data: bytes, *, subject: str) -> Dialect:
    """Which form a document has, by what it says itself, whatever its file is called. It may break the form's rules.

    Raises:
        UnsupportedVersion: none of those that this version knows.
        DocumentError: no JSON object.
    """
    document = load_object(data, subject=subject, limit=spec.MAX_MANIFEST)
    schema = document.get("schema")
    if schema == SCHEMA:
        return Dialect.V07
    if isinstance(schema, str):
        raise UnsupportedVersion(subject, f"unsupported schema {ascii(schema)[:40]} (expected {SCHEMA})", at="schema")
    return Dialect.V06 if "artifact" in document else Dialect.V04


MEDIA_TYPES: Mapping[Dialect, str] = {each.dialect: each.media_type for each in (Manifest, Manifest06, Manifest07)}
"""Of the configs of each form."""
