"""A signature as it was found, and what it says once it is verified.

The order is what matters: the signature is verified over the bytes as they are, and only then is what they say parsed.
Who has no trusted key gets no payload before the parser. What stands around the payload (the bundle itself, an
annotation in a manifest) is not signed; it is parsed before, strictly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType

from casstore.digest import Digest
from casstore.errors import DocumentError, InvalidReference, UnsupportedVersion
from casstore.manifest import created_time, is_rfc3339
from casstore.oci import Descriptor
from casstore.reference import parse_repository
from casstore.signatures import encoding
from casstore.signatures.bundle import MAX_SIGNATURE, Bundle
from casstore.signatures.keys import PublicKey
from casstore.signatures.reasons import Reason, Rejected
from casstore.signatures.simplesigning import MAX_PAYLOAD, Payload
from casstore.signatures.statement import PAYLOAD_TYPE, REPOSITORY, SIGNED, Statement


class Form(StrEnum):
    """What a signature looks like."""

    BUNDLE = "bundle"
    """A sigstore bundle v0.3 that refers to its subject."""
    COSIGN = "cosign"
    """A payload under the tag `sha256-<hex>.sig`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A signature as it was found, not verified."""

    form: Form
    manifest: Descriptor
    """Of the manifest that it was found in."""
    raw: bytes = field(repr=False)
    """The bundle, or the payload of cosign's form; empty where it could not be read."""
    signature: str | None = None
    """Base64; only in cosign's form, where it is an annotation of the layer."""
    problem: tuple[Reason, str] | None = None
    """Why it could not even be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a verified signature says."""

    key: PublicKey
    """Who says it."""
    subject: Digest
    repository: str | None
    """HOST/REPO that it is for; None: any."""
    signed_at: datetime | None
    """UTC; as the signer's clock had it."""
    annotations: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature that was made."""

    key: PublicKey
    descriptor: Descriptor
    """Of the manifest that it is in."""
    form: Form


def check(evidence: Evidence, subject: Digest, keys: Sequence[PublicKey]) -> Claim:
    """Verify a signature, and read what it says about `subject`.

    A signature that names one of `keys` has to be by that one; of all others, every key is tried.

    Raises:
        Rejected: it does not count, and why.
    """
    if evidence.problem is not None:
        raise Rejected(*evidence.problem)
    claim = _check_bundle(evidence.raw, keys) if evidence.form is Form.BUNDLE else _check_cosign(evidence, keys)
    if claim.subject != subject:
        raise Rejected(Reason.OTHER_DIGEST, f"signed by {claim.key.name}, but it is about {claim.subject}")
    return claim


def _check_bundle(raw: bytes, keys: Sequence[PublicKey]) -> Claim:
    bundle = Bundle.parse(raw)
    envelope = bundle.envelope
    key = _signer(envelope.signature, envelope.signed, keys, hint=bundle.hint)
    where = f"statement signed by {key.name}"
    if envelope.payload_type != PAYLOAD_TYPE:
        got = ascii(envelope.payload_type[:100])
        raise Rejected(Reason.OTHER_TYPE, f"{where}: expected {PAYLOAD_TYPE}, got {got}")
    try:
        statement = Statement.parse(envelope.payload, subject=where)
        return Claim(
            key=key,
            subject=statement.subject,
            repository=_repository(statement.annotations.get(REPOSITORY), where),
            signed_at=_time(statement.annotations.get(SIGNED), where),
            annotations=MappingProxyType(dict(statement.annotations)),
        )
    except DocumentError as error:
        raise _rejected(error) from None


def _check_cosign(evidence: Evidence, keys: Sequence[PublicKey]) -> Claim:
    if len(evidence.raw) > MAX_PAYLOAD:
        problem = f"payload: expected at most {MAX_PAYLOAD} bytes, got {len(evidence.raw)}"
        raise Rejected(Reason.TOO_LARGE, problem)
    try:
        signature = encoding.decode(evidence.signature, what="signature")
    except ValueError as error:
        raise Rejected(Reason.MALFORMED, str(error)) from None
    if not 1 <= len(signature) <= MAX_SIGNATURE:
        problem = f"signature: expected 1 to {MAX_SIGNATURE} bytes, got {len(signature)}"
        raise Rejected(Reason.MALFORMED, problem)
    key = _signer(signature, evidence.raw, keys, hint="")
    where = f"payload signed by {key.name}"
    try:
        payload = Payload.parse(evidence.raw, subject=where)
        signed_at = _time(payload.annotations.get(SIGNED), where)
        if signed_at is None and payload.timestamp is not None:
            signed_at = _time_of(payload.timestamp, where)
        return Claim(
            key=key,
            subject=payload.subject,
            repository=payload.repository,
            signed_at=signed_at,
            annotations=MappingProxyType(dict(payload.annotations)),
        )
    except DocumentError as error:
        raise _rejected(error) from None


def _signer(signature: bytes, signed: bytes, keys: Sequence[PublicKey], *, hint: str) -> PublicKey:
    """The key that made a signature.

    A hint is not signed, so one that names no trusted key keeps none from being tried: each tool has hints of its own.
    """
    named = [key for key in keys if key.hint == hint]
    for key in named or keys:
        if key.verify(signature, signed):
            return key
    if named:
        raise Rejected(Reason.BAD_SIGNATURE, f"says that it is by {named[0].name}, which made no such signature")
    if not keys or hint:
        told = f" (it names {_named(hint)})" if hint else ""
        raise Rejected(Reason.UNKNOWN_KEY, f"by none of the trusted keys{told}")
    raise Rejected(Reason.BAD_SIGNATURE, "made by none of the trusted keys, or changed since")


def _named(hint: str) -> str:
    """The key that a hint names, for messages: as fingerprints are told, if it is one."""
    try:
        raw = encoding.decode(hint, what="")
    except ValueError:
        raw = b""
    return f"sha256:{raw.hex()[:12]}" if len(raw) == 32 else ascii(hint[:60])


def _rejected(error: DocumentError) -> Rejected:
    reason = Reason.OTHER_TYPE if isinstance(error, UnsupportedVersion) else Reason.MALFORMED
    return Rejected(reason, str(error))


def _repository(text: str | None, where: str) -> str | None:
    if text is None:
        return None
    try:
        return parse_repository(text).name
    except InvalidReference:
        raise DocumentError(where, f"expected HOST/REPO, got {ascii(text[:100])}", at=REPOSITORY) from None


def _time(text: str | None, where: str) -> datetime | None:
    if text is None:
        return None
    time = created_time(text) if is_rfc3339(text) else None
    if time is not None:
        return time
    raise DocumentError(where, f"expected a time of RFC 3339, got {ascii(text[:60])}", at=SIGNED)


def _time_of(seconds: int, where: str) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise DocumentError(where, f"expected seconds since 1970, got {seconds}", at="optional.timestamp") from None
