"""The snapshot manifest of microsandbox 0.6: `snapshot.json`, schema 1, fields in the order of their declaration.

    {"schema":1,"artifact":"snapshot","scope":"disk","created_at":...,"parent":null,"image":{"ref":...,
     "manifest_digest":...},"source_sandbox":null,"state":{"kind":"file","format":"raw","fstype":"ext4",
     "upper":{"file":"upper.ext4","size_bytes":...,"integrity":null}},"labels":{...},"extensions":{},"requires":[]}

It asks more of its values than 0.4: digests are sha256 in lower-case hex, sizes fit in 53 bits, the disk's name is a
safe file name, and `created_at` is a time, which the canonical bytes say in UTC with as few digits as it takes.

The other state, a checkpoint, is the memory of a running machine: it is told, and not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from casstore import spec
from casstore.dialects import rules
from casstore.dialects.rules import SIZE
from casstore.errors import DocumentError, UnsupportedVersion
from casstore.jsondoc import TEXT, dump, load_object
from casstore.manifest import MANIFEST_FILENAME, Dialect, ImageRef, Manifest, SnapshotFormat, UpperLayer
from casstore.names import is_file_name
from casstore.schema import validate

SNAPSHOT_FILENAME: Final = "snapshot.json"
LEGACY_FILENAME: Final = ".manifest.json.legacy"
MIGRATION_LOCK: Final = ".snapshot-migration.lock"
"""What is left in an artifact directory that was of 0.4."""
SCHEMA_VERSION: Final = 1

_RESERVED = {SNAPSHOT_FILENAME, MANIFEST_FILENAME, LEGACY_FILENAME, MIGRATION_LOCK}
_USUAL = re.compile(
    rf'\{{"schema":1,"artifact":"snapshot","scope":"disk","created_at":{TEXT},"parent":(?:null|{TEXT}),'
    rf'"image":\{{"ref":{TEXT},"manifest_digest":{TEXT}\}},"source_sandbox":(?:null|{TEXT}),'
    rf'"state":\{{"kind":"file","format":"(?:raw|qcow2)","fstype":{TEXT},'
    rf'"upper":\{{"file":{TEXT},"size_bytes":{SIZE},"integrity":(?:null|'
    rf'\{{"algorithm":"(?:sha256|msb-sparse-sha256-v1)","digest":{TEXT}\}}|'
    rf'\{{"algorithm":"msb-file-merkle-blake3-v1","root":{TEXT},"logical_size":{SIZE},"leaf_size":65536\}})\}}\}},'
    rf'"labels":\{{(?:{TEXT}:{TEXT}(?:,{TEXT}:{TEXT})*)?\}},"extensions":\{{\}},"requires":\[\]\}}'.encode()
)
"""Canonical bytes without extensions. JSON like this passes the schema, which takes a hundred times longer to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest06(Manifest):
    """The manifest of a disk as 0.6 writes it. `created_at` is brought into its canonical form."""

    dialect: ClassVar[Dialect] = Dialect.V06
    media_type: ClassVar[str] = spec.MEDIA_CONFIG_06
    filename: ClassVar[str] = SNAPSHOT_FILENAME

    extensions: str = "{}"
    """An object that is not looked into, as canonical JSON: keys sorted by code point."""
    requires: tuple[str, ...] = ()
    """Names of extensions that whoever boots the snapshot must know."""

    def __post_init__(self) -> None:
        time = rules.utc(self.created_at)
        if time is not None:
            fraction = time[1].rstrip("0")
            object.__setattr__(self, "created_at", f"{time[0]}.{fraction}Z" if fraction else f"{time[0]}Z")
        Manifest.__post_init__(self)

    def _problems(self) -> Iterator[tuple[str, str]]:
        if not self.image.ref:
            yield "image.ref", "empty image.ref"
        yield from rules.hexadecimal("image.manifest_digest", self.image.manifest_digest, "sha256:", 64)
        if self.parent is not None:
            yield from rules.hexadecimal("parent", self.parent, "sha256:", 64)
        if rules.utc(self.created_at) is None:
            yield "created_at", f"expected a time of RFC 3339, got {ascii(self.created_at[:100])}"
        if not self.fstype:
            yield "state.fstype", "empty state.fstype"
        file = self.upper.file
        if not is_file_name(file):
            yield "state.upper.file", f"expected a file name without folders, got {ascii(file[:100])}"
        elif file in _RESERVED:
            yield "state.upper.file", f"expected another file name than the reserved {file}"
        yield from rules.size("state.upper.size_bytes", self.upper.size_bytes)
        yield from rules.integrity("state.upper.integrity", self.upper.integrity)
        yield from rules.extensions(self.extensions, self.requires, _canonical)
        yield from self._unwritable()

    @classmethod
    def parse(cls, data: bytes, *, subject: str) -> Self:
        """Parse a manifest, canonical or not; see `Manifest.parse`.

        Raises:
            UnsupportedVersion: of another schema version, or a checkpoint of a running machine.
            DocumentError: breaks the strict JSON rules, the schema, or the rules for its values.
        """
        document = load_object(data, subject=subject, limit=spec.MAX_MANIFEST)
        for key, known in (("schema", SCHEMA_VERSION), ("artifact", "snapshot")):
            got = document.get(key, known)
            if got != known or got is True:
                problem = f"unsupported {key} {ascii(got)[:40]} (expected {known})"
                raise UnsupportedVersion(subject, problem, at=key)
        if not _USUAL.fullmatch(data):
            validate(document, "microsandbox-0.6", subject=subject)
        if document["state"]["kind"] == "checkpoint":
            raise rules.checkpoint(subject)
        return cls.from_dict(document, subject=subject)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, subject: str) -> Self:
        """From an object that has passed its schema, with a disk for its state.

        Raises:
            DocumentError: breaks the rules for its values.
        """
        state = document["state"]
        upper, recorded = state["upper"], state["upper"]["integrity"]
        if recorded is not None and recorded.get("logical_size", upper["size_bytes"]) != upper["size_bytes"]:
            problem = f"expected the disk's {upper['size_bytes']} bytes, got {recorded['logical_size']}"
            raise DocumentError(subject, problem, at="state.upper.integrity.logical_size")
        try:
            return cls(
                format=SnapshotFormat(state["format"]),
                fstype=state["fstype"],
                image=ImageRef(**document["image"]),
                parent=document["parent"],
                created_at=document["created_at"],
                labels=document["labels"],
                upper=UpperLayer(
                    file=upper["file"], size_bytes=upper["size_bytes"], integrity=rules.read_integrity(recorded)
                ),
                source_sandbox=document["source_sandbox"],
                extensions=_canonical(document["extensions"]),
                requires=tuple(document["requires"]),
            )
        except DocumentError as error:
            raise DocumentError(subject, error.problem, at=error.at) from None

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object, in canonical order."""
        upper = self.upper
        return {
            "schema": SCHEMA_VERSION,
            "artifact": "snapshot",
            "scope": "disk",
            "created_at": self.created_at,
            "parent": self.parent,
            "image": {"ref": self.image.ref, "manifest_digest": self.image.manifest_digest},
            "source_sandbox": self.source_sandbox,
            "state": {
                "kind": "file",
                "format": self.format.value,
                "fstype": self.fstype,
                "upper": {
                    "file": upper.file,
                    "size_bytes": upper.size_bytes,
                    "integrity": rules.write_integrity(upper.integrity, upper.size_bytes),
                },
            },
            "labels": dict(self.labels),
            "extensions": json.loads(self.extensions),
            "requires": list(self.requires),
        }


def _canonical(document: Any) -> str:
    return dump(document).decode()
