"""Signatures, keys, policies and the record of what was seen last.

Payloads are signed here by a trusted key after the fuzzer has changed them: what a key's owner may say is as bounded as
what anybody may, and nothing but the golden payload is accepted where the fuzzer changes what is signed already.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple, cast

from casstore import spec
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import DocumentError, InvalidKey, InvalidPolicy
from casstore.evidence import gather
from casstore.lastseen import LastSeen, Sighting
from casstore.memory import MemoryTarget
from casstore.names import attachment_name
from casstore.oci import Descriptor
from casstore.schema import validate
from casstore.signatures import encoding
from casstore.signatures.bundle import MEDIA_TYPE, Bundle
from casstore.signatures.claims import Claim, Evidence, Form, check
from casstore.signatures.dsse import Envelope, pae
from casstore.signatures.keys import PrivateKey, PublicKey, is_encrypted, is_private
from casstore.signatures.reasons import Rejected
from casstore.signatures.simplesigning import Payload
from casstore.signatures.statement import PAYLOAD_TYPE, Statement
from casstore.storedir import StoreDirectory
from casstore.trust.baseimage import BaseImage
from casstore.trust.decision import decide
from casstore.trust.policy import Policy
from casstore.trust.requirement import Requirement
from tests.fuzz.mutators import json_documents
from tests.fuzz.scratch import scratch, write
from tests.fuzz.target import Target
from tests.support.manifests import put

_KEY = """\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
-----END PRIVATE KEY-----
"""
_SUBJECT = Digest.of(b"subject")
_MANIFEST = Descriptor.of(b"{}", spec.MEDIA_MANIFEST)
_GOLDEN = Statement(
    subject=_SUBJECT,
    annotations={"io.casstore.signed": "2026-01-01T00:00:00Z", "io.casstore.repository": "registry.example/team/disk"},
)


@cache
def _key() -> PrivateKey:
    return PrivateKey.parse(_KEY.encode(), name="test key", passphrase=_no_passphrase)


def _no_passphrase() -> bytes:
    raise InvalidKey("a passphrase is asked for")


@cache
def golden_bundle() -> bytes:
    """A right one; Ed25519 gives the same bytes each time."""
    return Bundle.sign(_GOLDEN, _key()).to_bytes()


@cache
def forged_bundle() -> bytes:
    """The same statement under somebody else's key, who says that it is the trusted one."""
    forged = Bundle.sign(_GOLDEN, PrivateKey.generate("ed25519"))
    return Bundle(envelope=forged.envelope, hint=_key().public.hint).to_bytes()


def _bundle(data: bytes) -> Claim:
    return check(Evidence(form=Form.BUNDLE, manifest=_MANIFEST, raw=data), _SUBJECT, [_key().public])


def _check_golden(claim: Claim) -> None:
    assert claim.subject == _SUBJECT
    assert dict(claim.annotations) == dict(_GOLDEN.annotations)


class _Said(NamedTuple):
    payload: bytes
    claim: Claim


def _statement(data: bytes) -> _Said:
    signature = _key().sign(pae(PAYLOAD_TYPE, data))
    envelope = Envelope(payload_type=PAYLOAD_TYPE, payload=data, signature=signature)
    return _Said(data, _bundle(Bundle(envelope=envelope, hint=_key().public.hint).to_bytes()))


def _check_statement(said: _Said) -> None:
    document = json.loads(said.payload)
    (subject,) = document["subject"]
    assert subject["digest"]["sha256"] == said.claim.subject.hex == _SUBJECT.hex
    assert subject.get("annotations", {}) == dict(said.claim.annotations)
    again = Statement(subject=said.claim.subject, annotations=said.claim.annotations).to_bytes()
    assert _statement(again).claim == said.claim


def _cosign(data: bytes) -> _Said:
    signature = encoding.encode(_key().sign(data))
    evidence = Evidence(form=Form.COSIGN, manifest=_MANIFEST, raw=data, signature=signature)
    return _Said(data, check(evidence, _SUBJECT, [_key().public]))


def _check_cosign(said: _Said) -> None:
    critical = json.loads(said.payload)["critical"]
    assert critical["image"]["docker-manifest-digest"] == str(said.claim.subject) == str(_SUBJECT)
    assert said.claim.repository
    assert (
        critical["identity"]["docker-reference"].lower().startswith(("index.", said.claim.repository.partition("/")[0]))
    )


def _pem(data: bytes) -> PublicKey:
    looks_private = is_private(data)
    assert looks_private or not is_encrypted(data)
    if looks_private:
        key = PrivateKey.parse(data, name="key", passphrase=_no_passphrase)
        signature = key.sign(b"data")
        assert key.public.verify(signature, b"data")
        return key.public
    return PublicKey.parse(data, name="key")


def _check_key(key: PublicKey) -> None:
    assert PublicKey.parse(key.to_pem(), name="again") == key
    assert key.kind in {"ecdsa-p256", "ed25519"}
    assert not key.verify(b"x" * 64, b"data")


_PLACES = (
    *("registry.example/team/disk", "docker.io/library/alpine", "localhost:5000/a", "oci:/var/lib/disks"),
    *("store", "archive"),
)


def _read_key(name: str) -> bytes:
    if name == "release.pub":
        return _key().public.to_pem()
    raise FileNotFoundError(2, "No such file or directory", name)


def _policy(data: bytes) -> Policy:
    return Policy.parse(data, subject="policy", read_key=_read_key)


_NOW = datetime(2026, 1, 2, tzinfo=UTC)
_BASE = BaseImage.parse("docker.io/library/alpine:3")


def _is_accepted(requirement: Requirement, place: str, *evidence: bytes) -> bool:
    found = [Evidence(form=Form.BUNDLE, manifest=_MANIFEST, raw=raw) for raw in evidence]
    return decide(_SUBJECT, place, found, requirement, now=_NOW, base=_BASE).ok


def _check_policy(policy: Policy) -> None:
    """Whatever the policy, what must be signed is refused without a signature by a key of the policy."""
    for place in _PLACES:
        requirement = policy.rule_for(place).requirement
        if requirement is None:
            continue
        accepted = _is_accepted(requirement, place, forged_bundle(), golden_bundle())
        if requirement.refuse:
            assert not accepted
        if requirement.signed:
            assert 1 <= requirement.threshold <= len(requirement.keys)
            assert not _is_accepted(requirement, place)
            assert not _is_accepted(requirement, place, forged_bundle(), b"", golden_bundle()[:-1])
            assert not accepted or _key().public in requirement.keys
    assert len({rule.scope.parts for rule in policy.rules}) == len(policy.rules)


class _Store:
    """As much of a store as the record of what was seen needs."""

    read_only, durability = False, Durability.NONE

    def __init__(self) -> None:
        self.path = str(scratch())

    @contextmanager
    def holding_refs(self) -> Iterator[None]:
        yield


_NAME = "registry.example/a:v1"
_NEW = Sighting(digest=_SUBJECT, seen=datetime(2026, 1, 1, tzinfo=UTC))


class _Seen(NamedTuple):
    data: bytes
    record: LastSeen
    sightings: list[Sighting]


def _last_seen(data: bytes) -> _Seen:
    record = LastSeen(cast("StoreDirectory", _Store()))
    write(record.path, data)
    record.require_sound()
    record.find(_NAME)
    names = list(json.loads(data)["refs"])
    return _Seen(data, record, [seen for seen in map(record.find, names) if seen is not None])


def _check_last_seen(seen: _Seen) -> None:
    document = json.loads(seen.data)
    validate(document, "last-seen", subject="last-seen.json")
    assert [str(each.digest) for each in seen.sightings] == [entry["digest"] for entry in document["refs"].values()]
    known = seen.record.find(_NAME)
    seen.record.record(_NAME, _NEW)
    now = seen.record.find(_NAME)
    assert now is not None
    assert len(now.earlier) <= 64
    if known is None:
        assert now == _NEW
    elif now.digest != known.digest:
        assert now.digest == _SUBJECT
        assert known.why_older(_SUBJECT, signed=None, created=None) is None
        assert known.digest in now.earlier


_COSIGN_PAYLOAD = Payload(subject=_SUBJECT, repository="registry.example/team/disk").to_bytes()


class _Place(MemoryTarget):
    """Has a manifest both as what refers to the subject and as cosign's attachment; it may be anything."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        for blob in (golden_bundle(), _COSIGN_PAYLOAD, b"{}"):
            put(self, blob, "application/octet-stream")
        self._manifest = Descriptor.of(raw, spec.MEDIA_MANIFEST)
        put(self, raw, spec.MEDIA_MANIFEST)
        self.tag(self._manifest, attachment_name(_SUBJECT))

    def referrers(self, subject: Descriptor) -> Sequence[Descriptor]:
        return [self._manifest, replace(self._manifest, artifact_type=MEDIA_TYPE)]


def _gather(data: bytes) -> list[Evidence]:
    subject = Descriptor(media_type=spec.MEDIA_MANIFEST, digest=_SUBJECT, size=2)
    return list(gather(_Place(data), subject))


def _check_gathered(found: list[Evidence]) -> None:
    """What is wrong with a signature is told, never raised; what counts is a golden one."""
    for each in found:
        assert (each.problem is None) == bool(each.raw)
        assert each.problem is None or each.problem[1].isprintable()
        with suppress(Rejected):
            claim = check(each, _SUBJECT, [_key().public])
            assert each.raw in {golden_bundle(), _COSIGN_PAYLOAD}
            assert claim.subject == _SUBJECT


_STATEMENT_WORDS = (
    *(
        b'"_type"',
        b'"predicateType"',
        b'"subject"',
        b'"digest"',
        b'"sha256"',
        b'"annotations"',
        b'"io.casstore.signed"',
    ),
    *(b'"io.casstore.repository"', b"2026-01-01T00:00:00Z", b"9999-12-31T23:59:59-23:59", b"0001-01-01T00:00:00+23:59"),
    *(
        b'"critical"',
        b'"optional"',
        b'"timestamp"',
        b'"creator"',
        b"253402300800",
        b"-62135596801",
        b"index.docker.io/",
    ),
)
_TOML_WORDS = (
    *(b"version = 1\n", b'default = "refuse"\n', b"[keys]\n", b"[[rules]]\n", b'scope = "', b'require = "signed"\n'),
    *(b'keys = ["release"]\n', b"threshold = ", b"max_age = ", b'"90d"', b"no_rollback = true\n", b"signed_for = ["),
    *(
        b"base_images = [",
        b'repository = "always"\n',
        b'release = "release.pub"\n',
        b"oci:",
        b"store",
        b"archive",
        b'"*"',
    ),
    *(
        b"0x" + b"f" * 4000,
        b"2026-01-01T00:00:00Z",
        b"1.5",
        b"inf",
        b"'''",
        b'"""',
        b"[[[[",
        b"{a={",
        b"../",
        b"\\u202e",
    ),
)

TARGETS = (
    Target(
        name="bundle",
        read=_bundle,
        refuses=(Rejected,),
        check=_check_golden,
        modules=("signatures.bundle", "signatures.claims", "signatures.encoding", "signatures.dsse"),
        mutate=json_documents,
    ),
    Target(
        name="evidence",
        read=_gather,
        check=_check_gathered,
        modules=("evidence", "attachments"),
        mutate=json_documents,
    ),
    Target(
        name="statement",
        read=_statement,
        refuses=(Rejected,),
        check=_check_statement,
        modules=("signatures.statement", "signatures.claims"),
        mutate=json_documents,
        words=_STATEMENT_WORDS,
    ),
    Target(
        name="cosign",
        read=_cosign,
        refuses=(Rejected,),
        check=_check_cosign,
        modules=("signatures.simplesigning", "signatures.claims"),
        mutate=json_documents,
        words=_STATEMENT_WORDS,
    ),
    Target(
        name="key",
        read=_pem,
        refuses=(InvalidKey,),
        check=_check_key,
        modules=("signatures.keys", "signatures.cosignkey"),
        words=(
            b"-----BEGIN PUBLIC KEY-----\n",
            b"\n-----END PUBLIC KEY-----",
            b"PRIVATE KEY",
            b"ENCRYPTED ",
            b"SIGSTORE ",
        ),
    ),
    Target(
        name="policy",
        read=_policy,
        refuses=(InvalidPolicy,),
        check=_check_policy,
        modules=("trust.policy", "trust.scopes", "trust.baseimage", "trust.decision", "trust.requirement"),
        words=_TOML_WORDS,
    ),
    Target(
        name="last-seen",
        read=_last_seen,
        refuses=(DocumentError,),
        check=_check_last_seen,
        modules=("lastseen",),
        mutate=json_documents,
    ),
)
