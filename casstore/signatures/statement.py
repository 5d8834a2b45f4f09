"""The in-toto Statement v1 that a bundle's signature is over: whose digest is signed, and what is said about it.

casstore's statements, like those of cosign, have the predicate type `https://sigstore.dev/cosign/sign/v1`, with an
empty predicate: "this is mine". What else is said stands in the annotations of the subject, texts by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from casstore.digest import Digest
from casstore.errors import DocumentError, InvalidDigest, UnsupportedVersion, UsageError
from casstore.jsondoc import dump, load_object

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://sigstore.dev/cosign/sign/v1"

SIGNED: Final = "io.casstore.signed"
"""When it was signed: a time of RFC 3339 in UTC."""
REPOSITORY: Final = "io.casstore.repository"
"""HOST/REPO that the signature is for; absent: any."""
ID: Final = "io.casstore.id"
"""The snapshot's id."""
SOURCE: Final = "io.casstore.source"
"""The sandbox that it was taken of."""
LABEL_PREFIX: Final = "io.casstore.label."
"""Before the name of one of the snapshot's labels."""

MAX_STATEMENT: Final = 128 * 1024
"""Bytes. In base64 it fits into a bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One subject, and what is said about it."""

    subject: Digest
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def to_bytes(self) -> bytes:
        """Compact JSON, keys sorted.

        Raises:
            UsageError: an annotation is no text or has no name, or all of them are too long.
        """
        subject: dict[str, Any] = {"digest": {"sha256": self.subject.hex}}
        if self.annotations:
            subject["annotations"] = dict(self.annotations)
        return write(
            {
                "_type": STATEMENT_TYPE,
                "predicate": {},
                "predicateType": PREDICATE_TYPE,
                "subject": [subject],
            },
            self.annotations,
            limit=MAX_STATEMENT,
        )

    @classmethod
    def parse(cls, raw: bytes, *, subject: str) -> Self:
        """Read a statement. Fields that in-toto does not define are ignored, as its rules want it.

        Raises:
            UnsupportedVersion: a statement of another version or with another predicate.
            DocumentError: it breaks the strict JSON rules, has no or several subjects, none by sha256, or annotations
                that are no texts.
        """
        document = load_object(raw, subject=subject, limit=MAX_STATEMENT)
        for name, expected in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
            got = document.get(name)
            if not isinstance(got, str):
                raise DocumentError(subject, "expected a text", at=name)
            if got != expected:
                raise UnsupportedVersion(subject, f"expected {expected}, got {ascii(got[:100])}", at=name)
        if not isinstance(document.get("predicate", {}), dict):
            raise DocumentError(subject, "expected an object", at="predicate")
        listed = document.get("subject")
        if not isinstance(listed, list) or len(listed) != 1 or not isinstance(listed[0], dict):
            raise DocumentError(subject, "expected a list of one subject", at="subject")
        digests = listed[0].get("digest")
        hexadecimal = digests.get("sha256") if isinstance(digests, dict) else None
        try:
            digest = Digest.parse(f"sha256:{hexadecimal}")
        except InvalidDigest:
            got = ascii(hexadecimal)[:100]
            problem = f"expected 64 lower-case hex digits, got {got}"
            raise DocumentError(subject, problem, at="subject[0].digest.sha256") from None
        annotations = listed[0].get("annotations", {})
        if not _are_texts(annotations):
            raise DocumentError(subject, "expected texts by name", at="subject[0].annotations")
        return cls(subject=digest, annotations=annotations)


def write(document: dict[str, Any], annotations: Mapping[str, str], *, limit: int) -> bytes:
    """The bytes of a document with annotations in it that somebody has chosen.

    Raises:
        UsageError: one is no text or has no name, or there are more than `limit` bytes.
    """
    if not _are_texts(annotations):
        raise UsageError("annotations: expected texts by name, got something else")
    try:
        raw = dump(document)
    except UnicodeEncodeError:  # a word on the command line may hold any bytes
        raise UsageError("annotations: expected Unicode text, got something else") from None
    if len(raw) > limit:
        raise UsageError(f"annotations: expected a statement of at most {limit} bytes, got {len(raw)}")
    return raw


def _are_texts(annotations: object) -> bool:
    return isinstance(annotations, Mapping) and all(
        isinstance(name, str) and name and isinstance(text, str) for name, text in annotations.items()
    )
