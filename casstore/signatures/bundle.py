"""A sigstore bundle v0.3 with a key: a DSSE envelope, and a hint whose it is.

    {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
     "verificationMaterial": {"publicKey": {"hint": ...}},
     "dsseEnvelope": {"payload": ..., "payloadType": "application/vnd.in-toto+json", "signatures": [{"sig": ...}]}}

Nothing outside the envelope's payload and type is signed: the hint only says which key to try first. Entries of a
transparency log and time stamps are let through and not looked at. Every other field that is not known is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

from casstore.errors import DocumentError
from casstore.jsondoc import dump, load_object
from casstore.signatures import encoding
from casstore.signatures.dsse import Envelope, pae
from casstore.signatures.keys import PrivateKey
from casstore.signatures.reasons import Reason, Rejected
from casstore.signatures.statement import PAYLOAD_TYPE, Statement

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
MAX_BUNDLE: Final = 256 * 1024
"""Bytes. One with a proof of a transparency log has about 10 KiB."""
MAX_SIGNATURE: Final = 1024
"""Bytes of a signature that is tried; the longest that can be right has 72."""

_CERTIFICATES = ("certificate", "x509CertificateChain")
_BYSTANDERS = {"tlogEntries", "timestampVerificationData"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle, not verified."""

    envelope: Envelope
    hint: str
    """Which key it says it is by; empty: it does not say."""

    @classmethod
    def sign(cls, statement: Statement, key: PrivateKey) -> Self:
        """Sign a statement.

        Raises:
            UsageError: the statement cannot be written.
        """
        payload = statement.to_bytes()
        signature = key.sign(pae(PAYLOAD_TYPE, payload))
        envelope = Envelope(payload_type=PAYLOAD_TYPE, payload=payload, signature=signature)
        return cls(envelope=envelope, hint=key.public.hint)

    def to_bytes(self) -> bytes:
        """The bundle: compact JSON, keys sorted."""
        return dump(
            {
                "mediaType": MEDIA_TYPE,
                "verificationMaterial": {"publicKey": {"hint": self.hint}},
                "dsseEnvelope": {
                    "payload": encoding.encode(self.envelope.payload),
                    "payloadType": self.envelope.payload_type,
                    "signatures": [{"sig": encoding.encode(self.envelope.signature)}],
                },
            }
        )

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a bundle down to its envelope; the payload is not looked at.

        Raises:
            Rejected: too large, malformed, of another form, or by a certificate.
        """
        if len(raw) > MAX_BUNDLE:
            raise Rejected(Reason.TOO_LARGE, f"bundle: expected at most {MAX_BUNDLE} bytes, got {len(raw)}")
        try:
            document = load_object(raw, subject="bundle", limit=MAX_BUNDLE)
        except DocumentError as error:
            raise Rejected(Reason.MALFORMED, str(error)) from None
        if document.get("mediaType") != MEDIA_TYPE:
            got = ascii(document.get("mediaType"))[:100]
            raise Rejected(Reason.UNKNOWN_FORM, f"bundle: expected {MEDIA_TYPE}, got {got} (at mediaType)")
        if "messageSignature" in document:
            raise Rejected(Reason.UNKNOWN_FORM, "bundle: expected a dsseEnvelope, got a messageSignature")
        _fields(document, "", required={"mediaType", "verificationMaterial", "dsseEnvelope"})
        return cls(
            envelope=_envelope(document["dsseEnvelope"]),
            hint=_hint(document["verificationMaterial"]),
        )


def _hint(material: object) -> str:
    at = "verificationMaterial"
    if isinstance(material, dict) and any(name in material for name in _CERTIFICATES):
        raise Rejected(Reason.KEYLESS, "bundle: expected a signature by a key, got one by a certificate")
    known = _fields(material, at, required={"publicKey"}, optional=_BYSTANDERS)
    hint = _fields(known["publicKey"], f"{at}.publicKey", optional={"hint"}).get("hint", "")
    if not isinstance(hint, str):
        raise _malformed("expected a text", f"{at}.publicKey.hint")
    return hint


def _envelope(document: object) -> Envelope:
    at = "dsseEnvelope"
    known = _fields(document, at, required={"payload", "payloadType", "signatures"})
    if not isinstance(known["payloadType"], str):
        raise _malformed("expected a text", f"{at}.payloadType")
    listed = known["signatures"]
    if not isinstance(listed, list) or len(listed) != 1:
        raise _malformed("expected a list of one signature", f"{at}.signatures")
    signed = _fields(listed[0], f"{at}.signatures[0]", required={"sig"}, optional={"keyid"})
    signature = _bytes(signed["sig"], f"{at}.signatures[0].sig")
    if not 1 <= len(signature) <= MAX_SIGNATURE:
        raise _malformed(f"expected 1 to {MAX_SIGNATURE} bytes, got {len(signature)}", f"{at}.signatures[0].sig")
    payload = _bytes(known["payload"], f"{at}.payload")
    return Envelope(payload_type=known["payloadType"], payload=payload, signature=signature)


def _fields(
    document: object, at: str, *, required: frozenset[str] | set[str] = frozenset(), optional: set[str] | None = None
) -> dict[str, Any]:
    """A JSON object with these fields and no others."""
    if not isinstance(document, dict):
        raise _malformed("expected an object", at)
    missing, unknown = required - document.keys(), document.keys() - required - (optional or set())
    if missing:
        raise _malformed(f"expected the field {min(missing)}", at)
    if unknown:
        raise _malformed(f"unknown field {ascii(min(unknown)[:80])}", at)
    return document


def _bytes(text: object, at: str) -> bytes:
    try:
        return encoding.decode(text, what="bundle")
    except ValueError as error:
        raise Rejected(Reason.MALFORMED, f"{error} (at {at})") from None


def _malformed(problem: str, at: str) -> Rejected:
    return Rejected(Reason.MALFORMED, f"bundle: {problem}" + (f" (at {at})" if at else ""))
