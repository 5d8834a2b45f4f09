"""The snapshot manifest of microsandbox 0.7: `snapshot.json`, "microsandbox.snapshot/1", in RFC 8785's order of keys.

    {"capture":{"consistency":"crash-consistent","created_at":...,"source_checkpoint":null,"source_lineage":null},
     "extensions":{},"image":{"manifest_digest":...,"reference":...},"parent":null,"requires":[],
     "root_disk":{"layout":"managed"},"schema":"microsandbox.snapshot/1","scope":"file","snapshot_id":"snap_...",
     "state":{"disk_format":"raw","filesystem":"ext4","head":"layer_...","kind":"file","layers":[{"backing":null,
     "format":"raw","layer_id":"layer_...","payload":{"file_kind":"regular","integrity":null},"virtual_size":...}],
     "virtual_size":...}}

The disk is a chain of 1 to 256 files, each a qcow2 over the one before it; the oldest may be raw. A child names its
parent by `snapshot_id`, which is random; the digest of the canonical bytes is the snapshot's id here, as for the other
forms. `created_at` is written in UTC with nine digits of a fraction.

Labels stand beside it, in `metadata.json`, and are no part of the digest. Old ones may stand in an extension. A
snapshot's place among others is told by `group.json` and `group-member.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from casstore import spec
from casstore.dialects import rules
from casstore.dialects.rules import SIZE
from casstore.dialects.v06 import SNAPSHOT_FILENAME
from casstore.errors import DocumentError, UnsupportedVersion
from casstore.jsondoc import TEXT, load_object
from casstore.manifest import (
    Dialect,
    DiskFile,
    ImageRef,
    Manifest,
    SnapshotFormat,
    UpperIntegrity,
    UpperLayer,
)
from casstore.schema import validate

LAYERS_FOLDER: Final = "layers"
SCHEMA: Final = "microsandbox.snapshot/1"
MAX_BYTES: Final = spec.MIB
MAX_LAYERS: Final = 256

_MAX_ITEMS = 4096  # of an array or object in an extension
_OLD_LABELS = "org.microsandbox.capture-labels"
_LAYER = (
    rf'\{{"backing":(?:null|{TEXT}),"format":"(?:raw|qcow2)","layer_id":{TEXT},"payload":\{{"file_kind":"regular",'
    rf'"integrity":(?:null|\{{"algorithm":"(?:sha256|msb-sparse-sha256-v1)","digest":{TEXT}\}}|'
    rf'\{{"algorithm":"msb-file-merkle-blake3-v1","leaf_size":65536,"logical_size":{SIZE},"root":{TEXT}\}})\}},'
    rf'"virtual_size":{SIZE}\}}'
)
_USUAL = re.compile(
    rf'\{{"capture":\{{"consistency":"(?:crash|filesystem|application)-consistent","created_at":{TEXT},'
    rf'"source_checkpoint":(?:null|{TEXT}),"source_lineage":(?:null|{TEXT})\}},"extensions":\{{\}},'
    rf'"image":\{{"manifest_digest":{TEXT},"reference":{TEXT}\}},"parent":(?:null|{TEXT}),"requires":\[\],'
    rf'"root_disk":\{{"layout":"(?:managed|flat)"\}},"schema":"microsandbox\.snapshot/1","scope":"file",'
    rf'"snapshot_id":{TEXT},"state":\{{"disk_format":"(?:raw|qcow2)","filesystem":{TEXT},"head":{TEXT},'
    rf'"kind":"file","layers":\[{_LAYER}(?:,{_LAYER}){{0,255}}\],"virtual_size":{SIZE}\}}\}}'.encode()
)
"""Canonical bytes without extensions. JSON like this passes the schema, which takes a hundred times longer to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A file of the chain. Sizes in bytes."""

    layer_id: str
    """`layer_` and 32 lower-case hexadecimal digits."""
    format: SnapshotFormat
    virtual_size: int
    """Of the disk that it is with the layers below it."""
    integrity: UpperIntegrity | None = None
    size: int | None = None
    """Of the file. A raw one has the virtual size; of a qcow2 only msb-file-merkle-blake3-v1 records it."""

    def __post_init__(self) -> None:
        if self.format is SnapshotFormat.RAW and self.size is None:
            object.__setattr__(self, "size", self.virtual_size)

    @property
    def filename(self) -> str:
        """The file's name in the folder `layers`."""
        return f"{self.layer_id}.{self.format.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest07(Manifest):
    """The manifest of a chain of layers as 0.7 writes it. `created_at` is brought into its canonical form."""

    dialect: ClassVar[Dialect] = Dialect.V07
    media_type: ClassVar[str] = spec.MEDIA_CONFIG_07
    filename: ClassVar[str] = SNAPSHOT_FILENAME

    format: SnapshotFormat = field(init=False)
    """Of the last layer."""
    upper: UpperLayer = field(init=False)
    """The last layer, with the virtual size."""
    snapshot_id: str
    """`snap_` and 32 lower-case hexadecimal digits: what children call it."""
    layers: tuple[Layer, ...]
    """Oldest first."""
    consistency: str = "crash-consistent"
    source_checkpoint: str | None = None
    layout: str = "managed"
    """"managed", or "flat" for a disk that holds the whole root file system."""
    extensions: str = "{}"
    """An object that is not looked into, as canonical JSON: keys sorted by UTF-16 code unit."""
    requires: tuple[str, ...] = ()
    """Names of extensions that whoever boots the snapshot must know."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.layers) <= MAX_LAYERS:
            problem = f"expected 1 to {MAX_LAYERS} layers, got {len(self.layers)}"
            raise DocumentError("snapshot manifest", problem, at="state.layers")
        head = self.layers[-1]
        upper = UpperLayer(file=head.filename, size_bytes=head.virtual_size, integrity=head.integrity)
        object.__setattr__(self, "format", head.format)
        object.__setattr__(self, "upper", upper)
        time = rules.utc(self.created_at)
        if time is not None:
            object.__setattr__(self, "created_at", f"{time[0]}.{time[1]:0<9}Z")
        Manifest.__post_init__(self)

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from rules.hexadecimal("snapshot_id", self.snapshot_id, "snap_", 32)
        if not self.image.ref:
            yield "image.reference", "empty image.reference"
        yield from rules.hexadecimal("image.manifest_digest", self.image.manifest_digest, "sha256:", 64)
        if self.parent is not None:
            yield from rules.hexadecimal("parent", self.parent, "snap_", 32)
            if self.parent == self.snapshot_id:
                yield "parent", "expected another snapshot than itself"
        if rules.utc(self.created_at) is None:
            yield "capture.created_at", f"expected a time of RFC 3339, got {ascii(self.created_at[:100])}"
        if not self.fstype:
            yield "state.filesystem", "empty state.filesystem"
        if self.layout not in {"managed", "flat"}:
            yield "root_disk.layout", f"expected managed or flat, got {ascii(self.layout[:40])}"
        if self.consistency not in {f"{kind}-consistent" for kind in ("crash", "filesystem", "application")}:
            yield "capture.consistency", f"expected crash-consistent or another, got {ascii(self.consistency[:40])}"
        yield from self._layer_problems()
        yield from rules.extensions(self.extensions, self.requires, canonical)
        if self.extensions != "{}" and not _is_modest(json.loads(self.extensions)):
            problem = f"expected integers of at most 53 bits, and at most {_MAX_ITEMS} items in each list and object"
            yield "extensions", problem
        yield from self._unwritable(MAX_BYTES)

    def _layer_problems(self) -> Iterator[tuple[str, str]]:
        if len({layer.layer_id for layer in self.layers}) != len(self.layers):
            yield "state.layers", "expected each layer_id once"
        for n, layer in enumerate(self.layers):
            at = f"state.layers[{n}]"
            yield from rules.hexadecimal(f"{at}.layer_id", layer.layer_id, "layer_", 32)
            yield from rules.size(f"{at}.virtual_size", layer.virtual_size)
            yield from rules.integrity(f"{at}.payload.integrity", layer.integrity)
            raw = layer.format is SnapshotFormat.RAW
            if n and raw:
                yield f"{at}.format", "expected qcow2, got raw over another layer"
            if raw and layer.size != layer.virtual_size:
                problem = f"expected the {layer.virtual_size} bytes of a raw layer, got {layer.size}"
                yield f"{at}.payload.integrity.logical_size", problem
            merkle = layer.integrity is not None and layer.integrity.algorithm == spec.MERKLE_BLAKE3
            if not raw and merkle != (layer.size is not None):
                yield f"{at}.payload.integrity.logical_size", f"expected it for {spec.MERKLE_BLAKE3}, and only there"
            if layer.size is not None:
                yield from rules.size(f"{at}.payload.integrity.logical_size", layer.size)

    @classmethod
    def parse(cls, data: bytes, *, subject: str, labels: Mapping[str, str] | None = None) -> Self:
        """Parse a manifest; see `Manifest.parse`. `labels` are those of its `metadata.json`, None where it has none.

        Raises:
            UnsupportedVersion: of another schema version, or a checkpoint of a running machine.
            DocumentError: breaks the strict JSON rules, the schema, or the rules for its values.
        """
        document = load_object(data, subject=subject, limit=MAX_BYTES)
        schema = document.get("schema", SCHEMA)
        if schema != SCHEMA:
            problem = f"unsupported schema {ascii(schema)[:40]} (expected {SCHEMA})"
            raise UnsupportedVersion(subject, problem, at="schema")
        if not _USUAL.fullmatch(data):
            validate(document, "microsandbox-0.7", subject=subject)
        if document["state"]["kind"] == "checkpoint":
            raise rules.checkpoint(subject)
        _require_chain(document["state"], subject)
        return cls.from_dict(document, subject=subject, labels=labels)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, subject: str, labels: Mapping[str, str] | None = None) -> Self:
        """From an object that has passed its schema, with a chain of layers for its state.

        Raises:
            DocumentError: breaks the rules for its values.
        """
        capture, state, extensions = document["capture"], document["state"], document["extensions"]
        try:
            return cls(
                fstype=state["filesystem"],
                image=ImageRef(
                    ref=document["image"]["reference"], manifest_digest=document["image"]["manifest_digest"]
                ),
                parent=document["parent"],
                created_at=capture["created_at"],
                labels=_old_labels(extensions) if labels is None else labels,
                source_sandbox=capture["source_lineage"],
                snapshot_id=document["snapshot_id"],
                layers=tuple(map(_read_layer, state["layers"])),
                consistency=capture["consistency"],
                source_checkpoint=capture["source_checkpoint"],
                layout=document.get("root_disk", {"layout": "managed"})["layout"],
                extensions=canonical(extensions),
                requires=tuple(document["requires"]),
            )
        except DocumentError as error:
            raise DocumentError(subject, error.problem, at=error.at) from None

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object, in canonical order."""
        backings = (None, *(layer.layer_id for layer in self.layers[:-1]))
        return {
            "capture": {
                "consistency": self.consistency,
                "created_at": self.created_at,
                "source_checkpoint": self.source_checkpoint,
                "source_lineage": self.source_sandbox,
            },
            "extensions": json.loads(self.extensions),
            "image": {"manifest_digest": self.image.manifest_digest, "reference": self.image.ref},
            "parent": self.parent,
            "requires": list(self.requires),
            "root_disk": {"layout": self.layout},
            "schema": SCHEMA,
            "scope": "file",
            "snapshot_id": self.snapshot_id,
            "state": {
                "disk_format": self.format.value,
                "filesystem": self.fstype,
                "head": self.layers[-1].layer_id,
                "kind": "file",
                "layers": [_write_layer(*each) for each in zip(self.layers, backings, strict=True)],
                "virtual_size": self.upper.size_bytes,
            },
        }

    @property
    def known_as(self) -> str:
        """What the `parent` of a child says."""
        return self.snapshot_id

    @property
    def disks(self) -> tuple[DiskFile, ...]:
        """The layers' files, oldest first."""
        return tuple(DiskFile(each.filename, each.size, each.integrity) for each in self.layers)


def canonical(document: Any) -> str:
    """RFC 8785 for documents of integers, texts and null: keys sorted by UTF-16 code unit."""
    return rules.compact(_sorted(document))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=lambda key: key.encode("utf-16-be"))}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def _is_modest(value: Any) -> bool:
    """Whether a value is what microsandbox takes in an extension."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return len(value) <= _MAX_ITEMS and all(map(_is_modest, parts))
    return not isinstance(value, int) or abs(value) <= rules.MAX_SAFE


def _read_layer(document: Mapping[str, Any]) -> Layer:
    recorded = document["payload"]["integrity"]
    return Layer(
        layer_id=document["layer_id"],
        format=SnapshotFormat(document["format"]),
        virtual_size=document["virtual_size"],
        integrity=rules.read_integrity(recorded),
        size=None if recorded is None else recorded.get("logical_size"),
    )


def _write_layer(layer: Layer, backing: str | None) -> dict[str, Any]:
    integrity = rules.write_integrity(layer.integrity, layer.size or 0)
    return {
        "backing": backing,
        "format": layer.format.value,
        "layer_id": layer.layer_id,
        "payload": {"file_kind": "regular", "integrity": _sorted(integrity)},
        "virtual_size": layer.virtual_size,
    }


def _require_chain(state: Mapping[str, Any], subject: str) -> None:
    """What a Manifest07 says once, the document says twice.

    Raises:
        DocumentError: not equally.
    """
    layers, below = state["layers"], None
    for n, layer in enumerate(layers):
        if layer["backing"] != below:
            problem = f"expected {_shown(below)}, the layer before it, got {_shown(layer['backing'])}"
            raise DocumentError(subject, problem, at=f"state.layers[{n}].backing")
        below = layer["layer_id"]
    for key, expected in (
        ("head", below),
        ("disk_format", layers[-1]["format"]),
        ("virtual_size", layers[-1]["virtual_size"]),
    ):
        if state[key] != expected:
            problem = f"expected that of the last layer, {_shown(expected)}, got {_shown(state[key])}"
            raise DocumentError(subject, problem, at=f"state.{key}")


def _shown(value: object) -> str:
    return ascii(value)[:60]


def _old_labels(extensions: Mapping[str, Any]) -> Mapping[str, str]:
    """The labels that early releases of 0.7 wrote into the document."""
    found = extensions.get(_OLD_LABELS, {})
    if not rules.are_texts(found):
        raise DocumentError("snapshot manifest", "expected labels that are texts", at=f"extensions.{_OLD_LABELS}")
    return found
