"""JSON: the loader, and the parser of each document.

What parses has passed the schema (many documents are let past it by a pattern), and is written and parsed again alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from itertools import pairwise
from typing import Any

from casstore import spec
from casstore.archive.inventory import Inventory
from casstore.dialects import sniff
from casstore.dialects.sidecars import Group, GroupMember, labels_to_bytes, parse_labels
from casstore.dialects.v06 import Manifest06
from casstore.dialects.v07 import Manifest07
from casstore.errors import DocumentError, UnsupportedVersion
from casstore.jsondoc import MAX_DEPTH, dump, load
from casstore.manifest import Dialect, Manifest, created_time, is_rfc3339
from casstore.microsandbox.rootdisk import parse_root_disk
from casstore.oci import AnyManifest, ArtifactManifest, ImageIndex
from casstore.registry.tags import _parse_tags
from casstore.schema import validate
from casstore.storeindex import _load_entries
from tests.fuzz.mutators import json_documents
from tests.fuzz.target import Target

_WORDS = (
    *(
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"true",
        b"false",
        b"NaN",
        b"Infinity",
        b"1e999",
        b"1.0",
        b"-0",
    ),
    *(b"18446744073709551616", b"\\u0000", b"\\ud800", b"\\udc00", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"{}", b"[]"),
    *(b'"sha256:', b"0" * 64, b'"mediaType":', b'"digest":', b'"size":', b'"annotations":', b'"manifests":', b"\\n"),
)


def _document(
    name: str,
    read: Callable[[bytes], Any],
    check: Callable[[Any], None],
    *modules: str,
    vectors: Collection[str] = (),
) -> Target:
    return Target(
        name=name,
        read=read,
        refuses=(DocumentError,),
        check=check,
        modules=modules,
        mutate=json_documents,
        vectors=vectors,
        words=_WORDS,
    )


def _load(data: bytes) -> tuple[bytes, Any]:
    return data, load(data, subject="document", limit=1 << 16)


def _check_loaded(loaded: tuple[bytes, Any]) -> None:
    data, value = loaded
    assert json.loads(data) == value
    assert load(dump(value), subject="document", limit=1 << 20) == value
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [c for v in level if isinstance(v, (dict, list)) for c in (v.values() if isinstance(v, dict) else v)]
        assert not any(isinstance(each, float) for each in level)
    assert not level


def _with_bytes(read: Callable[[bytes], Any]) -> Callable[[bytes], tuple[bytes, Any]]:
    """What is read, and what from."""
    return lambda data: (data, read(data))


def _snapshot(data: bytes) -> Manifest:
    dialect = sniff(data, subject="snapshot")
    kinds: dict[Dialect, type[Manifest]] = {Dialect.V04: Manifest, Dialect.V06: Manifest06, Dialect.V07: Manifest07}
    return kinds[dialect].parse(data, subject="snapshot")


_SCHEMAS = {
    Dialect.V04: "snapshot-manifest",
    Dialect.V06: "microsandbox-0.6",
    Dialect.V07: "microsandbox-0.7",
}


def _check_snapshot(parsed: tuple[bytes, Manifest]) -> None:
    data, manifest = parsed
    validate(json.loads(data), _SCHEMAS[manifest.dialect], subject="snapshot")
    raw = manifest.to_bytes()
    again = type(manifest).parse(raw, subject="snapshot")
    assert again.to_bytes() == raw
    assert again == manifest
    assert again.id == manifest.id
    for disk in manifest.disks:
        assert disk.size is None or disk.size >= 0
    if is_rfc3339(manifest.created_at) and not manifest.created_at.startswith("0001"):
        time = created_time(manifest.created_at)
        assert time is not None or manifest.created_at.startswith("9999")


def _artifact(data: bytes) -> ArtifactManifest:
    return ArtifactManifest.parse(data, subject="artifact")


def _check_artifact(manifest: ArtifactManifest) -> None:
    document = json.loads(manifest.raw)
    validate(document, "artifact-manifest", subject="artifact")
    assert all(0 <= each.size < 2**63 for each in manifest.children)
    assert manifest.map == manifest.layers[0]
    made = ArtifactManifest.build(config=manifest.config, layers=manifest.layers, annotations=manifest.annotations)
    again = ArtifactManifest.parse(made.raw, subject="artifact")
    assert (again.config, again.layers, again.annotations) == (manifest.config, manifest.layers, manifest.annotations)
    assert AnyManifest.parse(manifest.raw, spec.MEDIA_MANIFEST, subject="any").blobs


def _any(data: bytes) -> AnyManifest:
    try:
        return AnyManifest.parse(data, spec.MEDIA_MANIFEST, subject="any")
    except UnsupportedVersion:
        return AnyManifest.parse(data, spec.MEDIA_INDEX, subject="any")


def _check_any(manifest: AnyManifest) -> None:
    named = (*manifest.blobs, *manifest.manifests)
    assert all(each.size >= 0 and len(each.digest.hex) == 64 for each in named)
    assert len(set(named)) == len(named)
    assert not (manifest.blobs and manifest.manifests)
    dump(manifest.descriptor.to_dict())


def _index(data: bytes) -> ImageIndex:
    return ImageIndex.parse(data, subject="index")


def _check_index(index: ImageIndex) -> None:
    assert ImageIndex.parse(index.to_bytes(), subject="index") == index
    for entry in index.entries:
        tag = entry.get("annotations", {}).get(spec.ANNOTATION_REF_NAME)
        if tag is not None:
            try:
                assert index.find(tag)
            except UnsupportedVersion:
                assert any(not re.fullmatch("sha256:[0-9a-f]{64}", each["digest"]) for each in index.entries)


def _check_store_index(entries: list[dict[str, Any]]) -> None:
    assert _load_entries(dump({"manifests": entries})) == entries


def _check_inventory(parsed: tuple[bytes, Inventory]) -> None:
    data, inventory = parsed
    validate(json.loads(data), f"microsandbox-archive-{inventory.dialect.value}", subject="archive.json")
    if not all(entry.included and entry.transport for entry in inventory.entries):
        return  # casstore writes no such archive
    again = Inventory.parse(inventory.to_bytes())
    assert (again.head, dict(again.snapshots)) == (inventory.head, dict(inventory.snapshots))
    assert [entry.path for entry in again.entries] == sorted(
        (entry.path for entry in inventory.entries), key=lambda path: path.encode()
    )


def _sidecar(data: bytes) -> bytes:
    if b"root-disk" in data:
        layers = parse_root_disk(data, subject="root disk")
        assert all(layer.path and "\0" not in layer.path for layer in layers)
        assert all(after.format == "qcow2" for _, after in pairwise(layers))
        return b""
    if b"group-member" in data:
        return GroupMember.parse(data, subject="member").to_bytes()
    if b"metadata" in data:
        return labels_to_bytes(parse_labels(data, subject="labels"))
    return Group.parse(data, subject="group").to_bytes()


def _check_sidecar(data: bytes) -> None:
    assert not data or _sidecar(data) == data


def _check_tags(tags: list[str]) -> None:
    assert all(0 < len(tag) <= 128 and tag.isascii() and "/" not in tag for tag in tags)


TARGETS = (
    _document("json", _load, _check_loaded, "jsondoc"),
    _document(
        "snapshot",
        _with_bytes(_snapshot),
        _check_snapshot,
        *("manifest", "dialects", "dialects.v06", "dialects.v07", "dialects.rules", "schema"),
        vectors=("manifest/*.json", "dialects/*.json"),
    ),
    _document("artifact", _artifact, _check_artifact, "oci", vectors=("oci/artifact-manifest.json",)),
    _document("manifest", _any, _check_any, "oci", vectors=("oci/*.json",)),
    _document("index", _index, _check_index, "oci", vectors=("oci/index.json",)),
    _document("store-index", _load_entries, _check_store_index, "storeindex", vectors=("oci/index.json",)),
    _document("inventory", _with_bytes(Inventory.parse), _check_inventory, "archive.inventory", "archive.usual"),
    _document("sidecar", _sidecar, _check_sidecar, "dialects.sidecars", "microsandbox.rootdisk"),
    _document("tags", lambda data: _parse_tags(data, "tags"), _check_tags, "registry.tags"),
)
