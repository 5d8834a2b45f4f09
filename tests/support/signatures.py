"""Keys that are always the same, and signatures to try.

P256, ED25519              private keys; KEYS is both
bundle(P256)               a good bundle about SUBJECT, as Evidence
cosign(P256)               the same in cosign's form
signed(P256, payload)      a bundle over any bytes at all, for the rules about payloads
changed(evidence, path, value)   a bundle with something else at a path such as "dsseEnvelope.payloadType"
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

from casstore import spec
from casstore.digest import Digest
from casstore.jsondoc import dump
from casstore.oci import Descriptor
from casstore.signatures import encoding
from casstore.signatures.bundle import Bundle
from casstore.signatures.claims import Evidence, Form
from casstore.signatures.dsse import Envelope, pae
from casstore.signatures.keys import PrivateKey
from casstore.signatures.simplesigning import Payload
from casstore.signatures.statement import PAYLOAD_TYPE, Statement

FIXTURES = Path(__file__).parents[2] / "fixtures" / "signatures"
VECTORS = FIXTURES / "vectors"
SUBJECT = Digest.of((FIXTURES.parent / "vectors" / "oci" / "artifact-manifest.json").read_bytes())
OTHER = Digest.of(b"something else")
REPOSITORY = "registry.example/team/disks"
MANIFEST = Descriptor.of(b"{}", spec.MEDIA_MANIFEST)


class Absent(Enum):
    """As a value of `changed`: take the field away."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


def no_passphrase() -> bytes:
    """For keys that have none."""
    raise AssertionError("asked for a passphrase")


def _load(name: str) -> PrivateKey:
    return PrivateKey.parse((VECTORS / f"{name}.key").read_bytes(), name=name, passphrase=no_passphrase)


P256, ED25519 = _load("p256"), _load("ed25519")
KEYS = (P256, ED25519)


def bundle(
    key: PrivateKey, *, subject: Digest = SUBJECT, annotations: Mapping[str, str] | None = None, hint: str | None = None
) -> Evidence:
    """A good bundle; with a hint other than that of the key if one is given."""
    made = Bundle.sign(Statement(subject=subject, annotations=annotations or {}), key)
    return evidence_of(made if hint is None else replace(made, hint=hint))


def signed(key: PrivateKey, payload: bytes, *, payload_type: str = PAYLOAD_TYPE) -> Evidence:
    """A bundle whose payload is whatever one likes, with a good signature."""
    envelope = Envelope(payload_type=payload_type, payload=payload, signature=key.sign(pae(payload_type, payload)))
    return evidence_of(Bundle(envelope=envelope, hint=key.public.hint))


def evidence_of(made: Bundle) -> Evidence:
    """A bundle as it would be found."""
    return Evidence(form=Form.BUNDLE, manifest=MANIFEST, raw=made.to_bytes())


def cosign(
    key: PrivateKey,
    *,
    subject: Digest = SUBJECT,
    annotations: Mapping[str, str] | None = None,
    timestamp: int | None = None,
) -> Evidence:
    """A good signature of cosign's form."""
    payload = Payload(subject=subject, repository=REPOSITORY, annotations=annotations or {}, timestamp=timestamp)
    return cosigned(key, payload.to_bytes())


def cosigned(key: PrivateKey, payload: bytes) -> Evidence:
    """Whatever one likes as a payload of cosign's form, with a good signature."""
    signature = encoding.encode(key.sign(payload))
    return Evidence(form=Form.COSIGN, manifest=MANIFEST, raw=payload, signature=signature)


def changed(evidence: Evidence, path: str, value: Any) -> Evidence:
    """A bundle with another value at a path; the signature is not made anew."""
    document = json.loads(evidence.raw)
    *folders, last = (int(step) if step.isdigit() else step for step in path.split("."))
    place = document
    for step in folders:
        place = place[step]
    if value is ABSENT:
        del place[last]
    else:
        place[last] = value
    return replace(evidence, raw=dump(document))
