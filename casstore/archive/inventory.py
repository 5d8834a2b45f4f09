"""archive.json, the last member of an archive of microsandbox 0.6 and 0.7: what it holds, and each member's digest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from casstore.archive import usual
from casstore.archive.transport import ALGORITHM
from casstore.archive.usual import MEMBER_NAMES
from casstore.dialects.rules import are_texts
from casstore.digest import Digest
from casstore.errors import DocumentError, UnsupportedVersion
from casstore.jsondoc import load_object
from casstore.manifest import Dialect
from casstore.schema import validate
from casstore.spec import MAX_MANIFEST

PATH: Final = "archive.json"
DESCRIPTOR: Final = "snapshot-descriptor"
METADATA: Final = "snapshot-metadata"
PAYLOAD: Final = "file-payload"
IMAGE_METADATA: Final = "image-metadata"
IMAGE_OBJECT: Final = "image-object"
DEPENDENCIES: Final = "msb-snapshot-dependencies-v1"
_SCHEMA_06: Final = 1
_SCHEMA_07: Final = "microsandbox.snapshot-archive/1"
_COMPLETE, _DEPENDENT = "boot-complete", "dependent"
_SUBJECT: Final = "archive.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """A member. `ranges` are those of a sparse one, as (offset, length); 0.6 does not record them."""

    path: str
    owner: str | None
    kind: str
    stored: int
    size: int
    ranges: tuple[tuple[int, int], ...]
    integrity: Mapping[str, Any] | None
    transport: str | None
    included: bool = True


@dataclass(frozen=True, slots=True)
class Inventory:
    """What an archive holds. `snapshots` are (identity, digest of its document), the identity being a digest in 0.6."""

    dialect: Dialect
    head: str
    suggested_name: str | None
    snapshots: Sequence[tuple[str, Digest]]
    entries: Sequence[Entry]
    with_parents: bool = False
    with_image: bool = False
    member_names: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    """The paths of layers that are to be had elsewhere."""

    def to_bytes(self) -> bytes:
        """The canonical bytes: compact, in the order of declaration."""
        document = self._to_dict_06() if self.dialect is Dialect.V06 else self._to_dict_07()
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()

    def _to_dict_06(self) -> dict[str, Any]:
        return {
            "schema": _SCHEMA_06,
            "artifact": "snapshot-archive",
            "head": self.head,
            "suggested_name": self.suggested_name,
            "completeness": _COMPLETE,
            "with_parents": self.with_parents,
            "with_image": self.with_image,
            "snapshots": [
                {"snapshot_id": each, "descriptor": descriptor_path(self.dialect, each)}
                for each, _ in sorted(self.snapshots)
            ],
            "entries": self._entries(),
            "protection_requirements": [],
            "extensions": {},
            "requires": [ALGORITHM],
        }

    def _to_dict_07(self) -> dict[str, Any]:
        names = dict(sorted(self.member_names.items()))
        return {
            "schema": _SCHEMA_07,
            "head": self.head,
            "suggested_name": self.suggested_name,
            "completeness": _COMPLETE,
            "members": [
                {
                    "snapshot_id": each,
                    "descriptor_path": descriptor_path(self.dialect, each),
                    "descriptor_digest": str(digest),
                }
                for each, digest in sorted(self.snapshots)
            ],
            "entries": self._entries(),
            "limits": {
                "entry_count": len(self.entries),
                "encoded_bytes": sum(entry.stored for entry in self.entries),
                "apparent_bytes": sum(entry.size for entry in self.entries),
            },
            "extensions": {MEMBER_NAMES: names} if names else {},
            "requires": [ALGORITHM],
        }

    def _entries(self) -> list[dict[str, Any]]:
        documents = []
        for entry in sorted(self.entries, key=lambda entry: entry.path.encode()):
            document: dict[str, Any] = {
                "path": entry.path,
                "owner_snapshot": entry.owner,
                "kind": entry.kind,
                "included": entry.included,
                "encoded_size": entry.stored,
                "apparent_size": entry.size,
            }
            if self.dialect is Dialect.V07:
                document["sparse_ranges"] = [list(each) for each in entry.ranges]
            document["integrity"] = entry.integrity
            document["transport_integrity"] = {"algorithm": ALGORITHM, "digest": entry.transport}
            documents.append(document)
        return documents

    @classmethod
    def parse(cls, data: bytes) -> Inventory:
        """Parse an inventory of either form.

        Raises:
            UnsupportedVersion: of another version, or it requires what this version does not know.
            DocumentError: it breaks its rules.
        """
        document = load_object(data, subject=_SUBJECT, limit=MAX_MANIFEST)
        schema = document.get("schema")
        if schema not in (_SCHEMA_06, _SCHEMA_07):
            problem = f"expected the schema {_SCHEMA_06} or {_SCHEMA_07}, got {ascii(schema)[:60]}"
            raise UnsupportedVersion(_SUBJECT, problem, at="schema")
        dialect = Dialect.V07 if schema == _SCHEMA_07 else Dialect.V06
        if not usual.pattern(dialect).fullmatch(data):
            validate(document, f"microsandbox-archive-{dialect.value}", subject=_SUBJECT)
        unknown = set(document["requires"]) - {ALGORITHM, DEPENDENCIES}
        if unknown or document["completeness"] not in {_COMPLETE, _DEPENDENT}:
            required = ", ".join(map(ascii, sorted(unknown))) or "no extensions"
            problem = f"{ascii(document['completeness'])[:60]} with {required}"
            raise UnsupportedVersion(_SUBJECT, f"unsupported archive: {problem}"[:200], at="requires")
        if dialect is Dialect.V06:
            snapshots = [(each["snapshot_id"], Digest.parse(each["snapshot_id"])) for each in document["snapshots"]]
        else:
            snapshots = [(each["snapshot_id"], Digest.parse(each["descriptor_digest"])) for each in document["members"]]
        found = cls(
            dialect=dialect,
            head=document["head"],
            suggested_name=document["suggested_name"],
            snapshots=snapshots,
            entries=[_entry(each) for each in document["entries"]],
            with_parents=document.get("with_parents", False),
            with_image=document.get("with_image", False),
            member_names=_member_names(document["extensions"]),
            required=_required(document),
        )
        if found.head not in dict(snapshots) or len(dict(snapshots)) < len(snapshots):
            raise DocumentError(_SUBJECT, "expected a head that is one of its snapshots, each listed once", at="head")
        if len({entry.path for entry in found.entries}) < len(found.entries):
            raise DocumentError(_SUBJECT, "expected each path once", at="entries")
        if ALGORITHM in document["requires"] and any(e.transport is None for e in found.entries if e.included):
            raise DocumentError(_SUBJECT, "expected a transport integrity for every member", at="entries")
        return found


def descriptor_path(dialect: Dialect, identity: str) -> str:
    """Where the document of a snapshot stands in an archive."""
    folder = identity.removeprefix("sha256:") if dialect is Dialect.V06 else identity
    return f"snapshots/{folder}/snapshot.json"


def sha256_object(data: bytes) -> dict[str, Any]:
    """The integrity of a document or small file."""
    return {"algorithm": "sha256", "digest": str(Digest.of(data))}


def _entry(document: Mapping[str, Any]) -> Entry:
    transport = document.get("transport_integrity")
    return Entry(
        path=document["path"],
        owner=document["owner_snapshot"],
        kind=document["kind"],
        stored=document["encoded_size"],
        size=document["apparent_size"],
        ranges=tuple((offset, length) for offset, length in document.get("sparse_ranges", ())),
        integrity=document["integrity"],
        transport=None if transport is None else transport["digest"],
        included=document["included"],
    )


def _member_names(extensions: Mapping[str, Any]) -> dict[str, str]:
    names = extensions.get(MEMBER_NAMES, {})
    if not are_texts(names):
        raise DocumentError(_SUBJECT, "expected an object of names", at=f"extensions.{MEMBER_NAMES}")
    return names


def _required(document: Mapping[str, Any]) -> tuple[str, ...]:
    """The layers that a dependent archive relies on."""
    if DEPENDENCIES not in document["requires"]:
        return ()
    at = f"extensions.{DEPENDENCIES}"
    said = document["extensions"].get(DEPENDENCIES)
    disks = said.get("disks") if isinstance(said, dict) else None
    if not isinstance(disks, list) or not all(isinstance(disk, dict) for disk in disks):
        raise DocumentError(_SUBJECT, "expected an object with a list of disks", at=at)
    if said.get("memory") or said.get("owned"):
        raise UnsupportedVersion(_SUBJECT, "the archive relies on the memory or volumes of a machine", at=at)
    return tuple(str(disk.get("path")) for disk in disks)
