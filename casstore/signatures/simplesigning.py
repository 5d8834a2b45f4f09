"""What a signature of cosign's older form is over ("simple signing"): a digest, and the repository it was signed for.

    {"critical": {"identity": {"docker-reference": ...}, "image": {"docker-manifest-digest": ...},
                  "type": "cosign container image signature"},
     "optional": null or {name: value, ...}}

The rules are those of containers/image (skopeo, podman): exactly these fields, none twice; of what is optional, a
`creator` is a text and a `timestamp` a whole number of seconds since 1970, and the rest is as one likes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from casstore.digest import Digest
from casstore.errors import DocumentError, InvalidDigest, InvalidReference, UnsupportedVersion, UsageError
from casstore.jsondoc import load_object
from casstore.reference import RegistryReference, parse_reference
from casstore.signatures.statement import write

MEDIA_TYPE: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION: Final = "dev.cosignproject.cosign/signature"
"""Of the layer: the signature over the payload, in base64."""
CERTIFICATE_ANNOTATION: Final = "dev.sigstore.cosign/certificate"
"""Of the layer: the signature is by a certificate ("keyless")."""
TYPE: Final = "cosign container image signature"
MAX_PAYLOAD: Final = 128 * 1024
"""Bytes."""

_TAKEN = ("creator", "timestamp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What is signed."""

    subject: Digest
    repository: str
    """HOST/REPO."""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The texts among what is optional."""
    timestamp: int | None = None
    """When it was signed, in seconds since 1970."""

    def to_bytes(self) -> bytes:
        """Compact JSON, keys sorted.

        Raises:
            UsageError: an annotation is no text, has no name or one that has a meaning here, or all are too long.
        """
        taken = next((name for name in _TAKEN if name in self.annotations), None)
        if taken is not None:
            raise UsageError(f"annotations: {taken} means something else in this form of signature; take another name")
        optional: dict[str, Any] = dict(self.annotations)
        if self.timestamp is not None:
            optional["timestamp"] = self.timestamp
        critical = {
            "identity": {"docker-reference": self.repository},
            "image": {"docker-manifest-digest": str(self.subject)},
            "type": TYPE,
        }
        return write({"critical": critical, "optional": optional or None}, self.annotations, limit=MAX_PAYLOAD)

    @classmethod
    def parse(cls, raw: bytes, *, subject: str) -> Self:
        """Read a payload.

        Raises:
            UnsupportedVersion: of another type.
            DocumentError: it breaks the strict JSON rules, or has other fields than these.
        """
        document = load_object(raw, subject=subject, limit=MAX_PAYLOAD)
        _exactly(document, {"critical", "optional"}, "", subject)
        critical = _exactly(document["critical"], {"identity", "image", "type"}, "critical", subject)
        kind = critical["type"]
        if not isinstance(kind, str):
            raise DocumentError(subject, "expected a text", at="critical.type")
        if kind != TYPE:
            raise UnsupportedVersion(subject, f"expected {TYPE!r}, got {ascii(kind[:100])}", at="critical.type")
        image = _exactly(critical["image"], {"docker-manifest-digest"}, "critical.image", subject)
        identity = _exactly(critical["identity"], {"docker-reference"}, "critical.identity", subject)
        try:
            digest = Digest.parse(image["docker-manifest-digest"])
        except InvalidDigest as error:
            raise DocumentError(subject, str(error), at="critical.image.docker-manifest-digest") from None
        optional = {} if document["optional"] is None else document["optional"]
        if not isinstance(optional, dict):
            raise DocumentError(subject, "expected an object or null", at="optional")
        timestamp = optional.get("timestamp")
        if "timestamp" in optional and (not isinstance(timestamp, int) or isinstance(timestamp, bool)):
            raise DocumentError(subject, "expected a whole number of seconds", at="optional.timestamp")
        if not isinstance(optional.get("creator", ""), str):
            raise DocumentError(subject, "expected a text", at="optional.creator")
        return cls(
            subject=digest,
            repository=_repository(identity["docker-reference"], subject),
            annotations={name: text for name, text in optional.items() if isinstance(text, str)},
            timestamp=timestamp,
        )


def _repository(text: object, subject: str) -> str:
    """HOST/REPO of a reference; what tag or digest it may have is left out, as the form does not promise it."""
    problem = f"expected HOST/REPO, got {ascii(text)[:100]}"
    try:
        reference = parse_reference(text) if isinstance(text, str) else None
    except InvalidReference:
        reference = None
    if not isinstance(reference, RegistryReference):
        raise DocumentError(subject, problem, at="critical.identity.docker-reference")
    # docker.io is called index.docker.io by the library that cosign is built on.
    return reference.name.removeprefix("index.") if reference.host == "index.docker.io" else reference.name


def _exactly(document: object, fields: set[str], at: str, subject: str) -> dict[str, Any]:
    """A JSON object with exactly these fields."""
    if not isinstance(document, dict):
        raise DocumentError(subject, "expected an object", at=at)
    if document.keys() != fields:
        odd = min(document.keys() ^ fields)
        problem = f"unknown field {ascii(odd[:80])}" if odd in document else f"expected the field {odd}"
        raise DocumentError(subject, problem, at=at)
    return document
