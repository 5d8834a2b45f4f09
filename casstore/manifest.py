"""The snapshot manifest: microsandbox 0.4.4's `manifest.json`, byte for byte.

    {"schema":1,"format":"raw","fstype":"ext4","image":{"ref":...,"manifest_digest":...},"parent":null,"created_at":...,
     "labels":{...},"upper":{"file":"upper.ext4","size_bytes":...,"integrity":null},"source_sandbox":null}

The canonical bytes are compact JSON with the fields in exactly this order, all of them always there, labels sorted by
code point, and nothing escaped but what JSON must escape: what Rust's serde_json writes. A snapshot's id is the sha256
of the canonical bytes of what was parsed, so white space and field order of a file do not matter. The id does not
cover the disk's content unless `upper.integrity` records it.

microsandbox takes two things that are refused here: a label that occurs twice (its last value wins there), and arrays
in the place of objects. Like it, a manifest does not judge `created_at`, nor whether `upper.file` is a safe file name:
who opens that file must.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Final, Self

from casstore import spec
from casstore.digest import Digest
from casstore.errors import DocumentError, UnsupportedVersion
from casstore.jsondoc import TEXT, load_object
from casstore.schema import validate

MANIFEST_FILENAME: Final = "manifest.json"
UPPER_FILENAME: Final = "upper.ext4"
"""What microsandbox calls a disk with the only file system that it makes."""
SCHEMA_VERSION: Final = 1
RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)\Z",
    re.ASCII,
)
"""Seconds, digits of their fraction, zone."""

_MAX_U64: Final = 2**64 - 1
_SUBJECT: Final = "snapshot manifest"
_SECOND: Final = 10**9
_USUAL = re.compile(
    rf'\{{"schema":1,"format":"(?:raw|qcow2)","fstype":{TEXT},"image":\{{"ref":{TEXT},"manifest_digest":{TEXT}\}},'
    rf'"parent":(?:null|{TEXT}),"created_at":{TEXT},"labels":\{{(?:{TEXT}:{TEXT}(?:,{TEXT}:{TEXT})*)?\}},'
    rf'"upper":\{{"file":{TEXT},"size_bytes":(?:0|[1-9][0-9]{{0,18}}),'
    rf'"integrity":(?:null|\{{"algorithm":{TEXT},"digest":{TEXT}\}})\}},"source_sandbox":(?:null|{TEXT})\}}'.encode()
)
"""Canonical bytes. JSON like this passes the schema, which takes a hundred times longer to say."""


class SnapshotFormat(StrEnum):
    """How the bytes of the disk are to be read. microsandbox 0.4.4 writes raw only, and opens both."""

    RAW = "raw"
    QCOW2 = "qcow2"


class Dialect(StrEnum):
    """A form of the snapshot manifest, named after the first microsandbox that writes it."""

    V04 = "0.4"
    V06 = "0.6"
    V07 = "0.7"


class Labels(Mapping[str, str]):
    """An immutable, hashable mapping, iterated in the order of its keys' code points (= of their UTF-8 bytes)."""

    __slots__ = ("_labels",)

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = dict(sorted(labels.items()))

    def __getitem__(self, key: str) -> str:
        return self._labels[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._labels)

    def __len__(self) -> int:
        return len(self._labels)

    def __hash__(self) -> int:
        return hash(tuple(self._labels.items()))

    def __repr__(self) -> str:
        return repr(self._labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """The image that the sandbox was started from, and the digest (any `algorithm:value`) that it had then."""

    ref: str
    manifest_digest: str


SCRATCH: Final = ImageRef(ref="scratch", manifest_digest=str(Digest.of(b"")))
"""The image of a disk that was made from none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpperIntegrity:
    """A digest of the disk's content (any `algorithm:value`), and the algorithm's recorded name; see integrity.py."""

    algorithm: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpperLayer:
    """The disk: its file's name beside the manifest, its length in bytes, and its integrity where recorded."""

    file: str
    size_bytes: int
    integrity: UpperIntegrity | None = None


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A file of the snapshot: its name in the artifact directory, without folders; its bytes, None where the manifest
    does not say; and its integrity where recorded.
    """

    name: str
    size: int | None
    integrity: UpperIntegrity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What was captured, from which image and sandbox, and when. A Manifest that exists is valid.

    This is the form of 0.4, and what all forms have in common: those of `dialects` are subclasses, which add what only
    they can say and write other bytes.

    Raises:
        DocumentError: on construction, for what `parse` would refuse.
    """

    dialect: ClassVar[Dialect] = Dialect.V04
    media_type: ClassVar[str] = spec.MEDIA_CONFIG
    """Of the canonical bytes, as the config of an artifact."""
    filename: ClassVar[str] = MANIFEST_FILENAME
    """In an artifact directory."""

    format: SnapshotFormat
    fstype: str
    image: ImageRef
    parent: str | None
    created_at: str
    labels: Mapping[str, str] = field(default_factory=dict)
    upper: UpperLayer
    source_sandbox: str | None

    def __post_init__(self) -> None:
        # A dict would make the frozen dataclass unhashable, and could still be changed by whoever passed it.
        object.__setattr__(self, "labels", Labels(self.labels))
        first = next(self._problems(), None)
        if first is not None:
            at, problem = first
            raise DocumentError(_SUBJECT, problem, at=at)

    def _problems(self) -> Iterator[tuple[str, str]]:
        """Where and what is wrong, in the order and in the words of microsandbox."""
        yield from _empty("fstype", self.fstype)
        yield from _empty("image.ref", self.image.ref)
        yield from _no_digest("image.manifest_digest", self.image.manifest_digest)
        if self.parent is not None:
            yield from _no_digest("parent", self.parent)
        yield from _empty("upper.file", self.upper.file)
        if self.upper.integrity is not None:
            yield from _empty("upper.integrity.algorithm", self.upper.integrity.algorithm)
            yield from _no_digest("upper.integrity.digest", self.upper.integrity.digest)
        # Below: what the strict JSON loader and the schema have seen already when the manifest was parsed.
        if not 0 <= self.upper.size_bytes <= _MAX_U64:
            yield "upper.size_bytes", f"expected 0 to 2^64 - 1 bytes, got {self.upper.size_bytes}"
        yield from self._unwritable()

    def _unwritable(self, limit: int = spec.MAX_MANIFEST) -> Iterator[tuple[str, str]]:
        """What keeps it from being written, in `limit` bytes."""
        try:
            length = len(self.to_bytes())
        except UnicodeEncodeError:
            yield "", "expected Unicode text, got a lone surrogate"
        else:
            if length > limit:
                yield "", f"expected at most {limit} bytes of JSON, got {length}"

    @classmethod
    def parse(cls, data: bytes, *, subject: str) -> Self:
        """Parse a manifest, canonical or not.

        Raises:
            UnsupportedVersion: of another schema version.
            DocumentError: breaks the strict JSON rules, the schema, or the rules for its texts. `subject` starts the
                text, and `at` is the field.
        """
        document = load_object(data, subject=subject, limit=spec.MAX_MANIFEST)
        version = document.get("schema", SCHEMA_VERSION)
        # Asked before the schema is: a newer manifest may well have fields that this version does not know.
        if version != SCHEMA_VERSION:
            problem = f"unsupported schema version {ascii(version)[:40]} (expected {SCHEMA_VERSION})"
            raise UnsupportedVersion(subject, problem, at="schema")
        if not _USUAL.fullmatch(data):
            validate(document, "snapshot-manifest", subject=subject)
        return cls.from_dict(document, subject=subject)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, subject: str) -> Self:
        """From an object that has passed its schema.

        Raises:
            DocumentError: breaks the rules for its texts.
        """
        upper, integrity = document["upper"], document["upper"]["integrity"]
        try:
            return cls(
                format=SnapshotFormat(document["format"]),
                fstype=document["fstype"],
                image=ImageRef(**document["image"]),
                parent=document["parent"],
                created_at=document["created_at"],
                labels=document["labels"],
                upper=UpperLayer(
                    file=upper["file"],
                    size_bytes=upper["size_bytes"],
                    integrity=None if integrity is None else UpperIntegrity(**integrity),
                ),
                source_sandbox=document["source_sandbox"],
            )
        except DocumentError as error:
            raise DocumentError(subject, error.problem, at=error.at) from None

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object, in canonical order."""
        integrity = self.upper.integrity
        return {
            "schema": SCHEMA_VERSION,
            "format": self.format.value,
            "fstype": self.fstype,
            "image": {"ref": self.image.ref, "manifest_digest": self.image.manifest_digest},
            "parent": self.parent,
            "created_at": self.created_at,
            "labels": dict(self.labels),
            "upper": {
                "file": self.upper.file,
                "size_bytes": self.upper.size_bytes,
                "integrity": (
                    None if integrity is None else {"algorithm": integrity.algorithm, "digest": integrity.digest}
                ),
            },
            "source_sandbox": self.source_sandbox,
        }

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        # With ensure_ascii=False, json escapes exactly what serde_json does, and U+007F like it does not.
        return json.dumps(self.to_dict(), separators=(",", ":"), ensure_ascii=False).encode()

    def has_labels(self, wanted: Mapping[str, str | None]) -> bool:
        """Whether it has all of these labels; None stands for any value."""
        has = self.labels
        return all(key in has and (value is None or has[key] == value) for key, value in wanted.items())

    @property
    def id(self) -> Digest:
        """The snapshot's id: the sha256 of the canonical bytes."""
        return Digest.of(self.to_bytes())

    @property
    def known_as(self) -> str:
        """What the `parent` of a child says: the id, or a name of its own where the form has one."""
        return str(self.id)

    @property
    def disks(self) -> tuple[DiskFile, ...]:
        """The files of the disk: more than one for a chain of layers, oldest first, of which `upper` is the last."""
        return (DiskFile(self.upper.file, self.upper.size_bytes, self.upper.integrity),)


def _empty(at: str, text: str) -> Iterator[tuple[str, str]]:
    if not text:
        yield at, f"empty {at}"


def _no_digest(at: str, text: str) -> Iterator[tuple[str, str]]:
    """A digest, for microsandbox, is whatever has something on both sides of its first colon."""
    algorithm, colon, value = text.partition(":")
    shown = ascii(text[:100])[1:-1]
    if not colon:
        yield at, f"{at} is not a digest (missing ':'): {shown}"
    elif not algorithm or not value:
        yield at, f"{at} has empty component: {shown}"


def format_created_at(ns: int) -> str:
    """A time as microsandbox writes it (chrono's to_rfc3339): `2026-11-22T10:12:17.346514995+00:00`.

    `ns` counts nanoseconds since 1970 in UTC. The fraction has 0, 3, 6 or 9 digits, as few as say it exactly.

    Raises:
        OverflowError: outside the years 1 to 9999.
    """
    seconds, fraction = divmod(ns, _SECOND)
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    digits = f"{fraction:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return time.replace(tzinfo=None).isoformat() + (f".{digits}" if digits else "") + "+00:00"


def created_time(text: str) -> datetime | None:
    """The time that a `created_at` says, in UTC; None where it cannot be read or has no place between the years 1 and
    9999. It is not validated anywhere: whoever made the snapshot wrote it.
    """
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def is_rfc3339(text: str) -> bool:
    """Whether `text` is a time as RFC 3339, section 5.6, wants it, in the form that every reader takes: `T` and `Z` in
    upper case, a day of the calendar, no leap second.
    """
    match = RFC3339.match(text)
    if match is None:
        return False
    try:
        datetime.fromisoformat(match[1])
    except ValueError:
        return False
    return True
