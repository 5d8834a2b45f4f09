"""The small files beside a snapshot manifest of microsandbox 0.7.

metadata.json       {"schema":"microsandbox.snapshot-metadata/1","labels":{...}}; absent where there are no labels
group-member.json   {"schema":"microsandbox.snapshot-group-member/1","name":...}
group.json          {"schema":"microsandbox.snapshot-group/1","head":"snap_..."}; one folder above
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from casstore import spec
from casstore.dialects import rules
from casstore.errors import DocumentError, UnsupportedVersion
from casstore.jsondoc import load_object
from casstore.manifest import Labels

METADATA_FILENAME: Final = "metadata.json"
MEMBER_FILENAME: Final = "group-member.json"
GROUP_FILENAME: Final = "group.json"
MAX_METADATA: Final = spec.MIB
_MAX_SMALL = 4096
_MAX_NAME = 128  # bytes


@dataclass(frozen=True, slots=True)
class Group:
    """What a group's name stands for: the `snapshot_id` of one of its members, or nothing."""

    head: str | None

    @classmethod
    def parse(cls, data: bytes, *, subject: str) -> Self:
        """Parse a `group.json`.

        Raises:
            UnsupportedVersion: of another schema.
            DocumentError: breaks its rules.
        """
        head = _document(data, "group", "head", subject=subject, limit=_MAX_SMALL)
        if head is not None:
            if not isinstance(head, str):
                raise DocumentError(subject, f"expected a snapshot_id, got {type(head).__name__}", at="head")
            for at, problem in rules.hexadecimal("head", head, "snap_", 32):
                raise DocumentError(subject, problem, at=at)
        return cls(head)

    def to_bytes(self) -> bytes:
        """The `group.json`."""
        return _bytes("group", "head", self.head)


@dataclass(frozen=True, slots=True)
class GroupMember:
    """What a snapshot is called in its group."""

    name: str

    @classmethod
    def parse(cls, data: bytes, *, subject: str) -> Self:
        """Parse a `group-member.json`.

        Raises:
            UnsupportedVersion: of another schema.
            DocumentError: breaks its rules.
        """
        name = _document(data, "group-member", "name", subject=subject, limit=_MAX_SMALL)
        if not isinstance(name, str) or not 1 <= len(name.encode()) <= _MAX_NAME:
            raise DocumentError(subject, f"expected a name of 1 to {_MAX_NAME} bytes", at="name")
        return cls(name)

    def to_bytes(self) -> bytes:
        """The `group-member.json`."""
        return _bytes("group-member", "name", self.name)


def parse_labels(data: bytes, *, subject: str) -> Mapping[str, str]:
    """The labels in a `metadata.json`.

    Raises:
        UnsupportedVersion: of another schema.
        DocumentError: breaks its rules.
    """
    labels = _document(data, "metadata", "labels", subject=subject, limit=MAX_METADATA)
    if not rules.are_texts(labels):
        raise DocumentError(subject, "expected an object of texts", at="labels")
    return Labels(labels)


def labels_to_bytes(labels: Mapping[str, str]) -> bytes:
    """The `metadata.json` that says these labels.

    Raises:
        DocumentError: they do not fit into one.
    """
    data = _bytes("metadata", "labels", dict(Labels(labels)))
    if len(data) > MAX_METADATA:
        raise DocumentError("labels", f"expected at most {MAX_METADATA} bytes of JSON, got {len(data)}")
    return data


def _document(data: bytes, kind: str, key: str, *, subject: str, limit: int) -> Any:
    """The one value in a document of a kind."""
    document = load_object(data, subject=subject, limit=limit)
    schema = document.get("schema")
    if schema != _schema(kind):
        raise UnsupportedVersion(subject, f"expected {_schema(kind)}, got {ascii(schema)[:60]}", at="schema")
    if set(document) != {"schema", key}:
        raise DocumentError(subject, f"expected schema and {key}, got {ascii(sorted(document))[:100]}")
    return document[key]


def _bytes(kind: str, key: str, value: Any) -> bytes:
    return rules.compact({"schema": _schema(kind), key: value}).encode()


def _schema(kind: str) -> str:
    return f"microsandbox.snapshot-{kind}/1"
