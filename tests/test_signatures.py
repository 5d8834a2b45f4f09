"""Signatures: their bytes, and the attack list: each is refused, with a reason of its own.

Numbers are rows of docs/explanation/faults.md.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.digest import Digest
from casstore.errors import DocumentError, UnsupportedVersion, UsageError
from casstore.jsondoc import dump
from casstore.signatures import encoding
from casstore.signatures.bundle import MAX_BUNDLE, Bundle
from casstore.signatures.claims import Claim, Evidence, Form, check
from casstore.signatures.dsse import pae
from casstore.signatures.keys import PrivateKey, PublicKey
from casstore.signatures.reasons import Reason, Rejected
from casstore.signatures.simplesigning import MAX_PAYLOAD, Payload
from casstore.signatures.statement import MAX_STATEMENT, PAYLOAD_TYPE, Statement
from tests.support.signatures import (
    ABSENT,
    ED25519,
    KEYS,
    MANIFEST,
    OTHER,
    P256,
    REPOSITORY,
    SUBJECT,
    VECTORS,
    bundle,
    changed,
    cosign,
    cosigned,
    evidence_of,
    signed,
)

TRUSTED = [key.public for key in KEYS]
SIGNED = "2026-01-02T03:04:05Z"
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ANNOTATIONS = {"io.casstore.repository": REPOSITORY, "io.casstore.signed": SIGNED, "note": "Grüße"}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
notes = st.dictionaries(texts.filter(bool), texts, max_size=5)
digests = st.binary(min_size=32, max_size=32).map(Digest.from_raw)


def refused(found: Evidence, reason: Reason, *, keys: list[PublicKey] | None = None, subject: Digest = SUBJECT) -> str:
    """What is said about a signature that does not count."""
    with pytest.raises(Rejected) as caught:
        check(found, subject, TRUSTED if keys is None else keys)
    assert caught.value.reason is reason, caught.value.text
    assert caught.value.text
    return caught.value.text


def statement(**fields: Any) -> bytes:
    """A statement with other fields than a good one."""
    document = json.loads(Statement(subject=SUBJECT).to_bytes())
    document |= fields
    return dump({name: value for name, value in document.items() if value is not ABSENT})


# --- the bytes


def test_the_bytes_are_those_that_openssl_signed() -> None:
    made = Statement(subject=SUBJECT, annotations=ANNOTATIONS)
    assert made.to_bytes() == (VECTORS / "statement.json").read_bytes()
    assert pae(PAYLOAD_TYPE, made.to_bytes()) == (VECTORS / "statement.pae").read_bytes()
    assert Bundle.sign(made, ED25519).to_bytes() == (VECTORS / "bundle.json").read_bytes()
    assert Statement.parse(made.to_bytes(), subject="statement") == made


def test_the_payload_of_cosigns_form_is_that_of_the_vectors() -> None:
    made = Payload(subject=SUBJECT, repository=REPOSITORY, annotations={"io.casstore.signed": SIGNED})
    assert made.to_bytes() == (VECTORS / "payload.json").read_bytes()
    plain = Payload(subject=SUBJECT, repository=REPOSITORY)
    assert plain.to_bytes() == (VECTORS / "payload-plain.json").read_bytes()
    assert ED25519.sign(made.to_bytes()) == (VECTORS / "payload.sig").read_bytes()
    assert Payload.parse(made.to_bytes(), subject="payload") == made


def test_what_the_vectors_say() -> None:
    found = Evidence(form=Form.BUNDLE, manifest=MANIFEST, raw=(VECTORS / "bundle.json").read_bytes())
    claim = check(found, SUBJECT, TRUSTED)
    assert claim == Claim(
        key=ED25519.public, subject=SUBJECT, repository=REPOSITORY, signed_at=TIME, annotations=ANNOTATIONS
    )
    signature = encoding.encode((VECTORS / "payload.sig").read_bytes())
    raw = (VECTORS / "payload.json").read_bytes()
    older = check(replace(found, form=Form.COSIGN, raw=raw, signature=signature), SUBJECT, TRUSTED)
    assert (older.key, older.repository, older.signed_at) == (ED25519.public, REPOSITORY, TIME)


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        ("http://example.com/HelloWorld", b"hello world", b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"),
        ("", b"", b"DSSEv1 0  0 "),
        ("a b", b" 1 ", b"DSSEv1 3 a b 3  1 "),
        ("é", b"\0\xff", b"DSSEv1 2 \xc3\xa9 2 \0\xff"),
    ],
)
def test_what_is_signed_says_where_each_part_ends(kind: str, payload: bytes, expected: bytes) -> None:
    """The first is the vector of DSSE's protocol.md; lengths count bytes."""
    assert pae(kind, payload) == expected


@given(digests, notes)
def test_a_statement_is_read_as_it_was_written(subject: Digest, known: dict[str, str]) -> None:
    made = Statement(subject=subject, annotations=known)
    assert Statement.parse(made.to_bytes(), subject="statement") == made


@given(digests, notes, st.sampled_from(KEYS))
def test_a_bundle_is_read_as_it_was_written(subject: Digest, known: dict[str, str], key: PrivateKey) -> None:
    made = Bundle.sign(Statement(subject=subject, annotations=known), key)
    assert Bundle.parse(made.to_bytes()) == made
    known = {name: text for name, text in known.items() if not name.startswith("io.casstore.")}
    claim = check(bundle(key, subject=subject, annotations=known), subject, TRUSTED)
    assert (claim.key, claim.subject, claim.annotations) == (key.public, subject, known)


@given(digests, notes, st.none() | st.integers(-(2**40), 2**40))
def test_a_payload_is_read_as_it_was_written(subject: Digest, known: dict[str, str], timestamp: int | None) -> None:
    known = {name: text for name, text in known.items() if name not in {"creator", "timestamp"}}
    made = Payload(subject=subject, repository=REPOSITORY, annotations=known, timestamp=timestamp)
    assert Payload.parse(made.to_bytes(), subject="payload") == made


@given(st.binary(max_size=40), st.data())
def test_base64_has_one_text_for_each_run_of_bytes(data: bytes, change: st.DataObject) -> None:
    text = encoding.encode(data)
    assert encoding.decode(text, what="data") == data
    at = change.draw(st.integers(0, len(text)))
    char = change.draw(st.sampled_from("A=\n -_é/"))
    for other in (text[:at] + char + text[at:], text[:at] + text[at + 1 :], text[:at] + char + text[at + 1 :]):
        with contextlib.suppress(ValueError):
            assert encoding.decode(other, what="data") != data or other == text


def test_claims_and_evidence_do_not_change() -> None:
    claim = check(bundle(P256, annotations={"a": "b"}), SUBJECT, TRUSTED)
    with pytest.raises(FrozenInstanceError):
        claim.repository = "elsewhere"  # type: ignore[misc]
    with pytest.raises(TypeError):
        claim.annotations["a"] = "c"  # type: ignore[index]
    assert len({claim, claim}) == 1


# --- what is written


@pytest.mark.parametrize("known", [{"": "x"}, {"x": 5}, {"x": None}, {"x": "\ud800"}, {"\udcff": "x"}], ids=ascii)
def test_63_what_is_no_text_is_not_signed(known: dict[str, str]) -> None:
    for make in (
        Statement(subject=SUBJECT, annotations=known),
        Payload(subject=SUBJECT, repository=REPOSITORY, annotations=known),
    ):
        with pytest.raises(UsageError, match="annotations: expected"):
            make.to_bytes()


def test_63_annotations_have_an_end() -> None:
    long = {"x": "y" * MAX_STATEMENT}
    with pytest.raises(UsageError, match=f"at most {MAX_STATEMENT} bytes"):
        Statement(subject=SUBJECT, annotations=long).to_bytes()
    with pytest.raises(UsageError, match=f"at most {MAX_PAYLOAD} bytes"):
        Payload(subject=SUBJECT, repository=REPOSITORY, annotations=long).to_bytes()
    room = MAX_STATEMENT - len(Statement(subject=SUBJECT, annotations={"x": ""}).to_bytes())
    largest = bundle(P256, annotations={"x": "y" * room})
    assert len(largest.raw) <= MAX_BUNDLE
    assert len(check(largest, SUBJECT, TRUSTED).annotations["x"]) == room


@pytest.mark.parametrize("name", ["creator", "timestamp"])
def test_names_that_mean_something_in_cosigns_form_are_not_taken(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        Payload(subject=SUBJECT, repository=REPOSITORY, annotations={name: "x"}).to_bytes()


# --- the attacks


@pytest.mark.parametrize("key", KEYS, ids=["p256", "ed25519"])
@given(change=st.data())
def test_103_any_bit_that_changes_is_noticed(key: PrivateKey, change: st.DataObject) -> None:
    made = Bundle.sign(Statement(subject=SUBJECT, annotations=ANNOTATIONS), key)
    bit = change.draw(st.integers(0, 2**16))

    def flipped(data: bytes) -> bytes:
        at = bit % (8 * len(data))
        return data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]

    envelope = made.envelope
    for other in (
        replace(envelope, payload=flipped(envelope.payload)),
        replace(envelope, signature=flipped(envelope.signature)),
        replace(envelope, payload_type=PAYLOAD_TYPE + " "),
    ):
        refused(evidence_of(replace(made, envelope=other)), Reason.BAD_SIGNATURE)
    older = cosign(key)
    signature = encoding.encode(flipped(encoding.decode(older.signature, what="")))
    refused(replace(older, raw=flipped(older.raw)), Reason.BAD_SIGNATURE)
    refused(replace(older, signature=signature), Reason.BAD_SIGNATURE)


def test_103_a_signature_by_another_key() -> None:
    told = refused(bundle(P256), Reason.UNKNOWN_KEY, keys=[ED25519.public])
    assert f"it names {P256.public.fingerprint.short}" in told  # as `key show` tells it
    assert "it names 'release key 1'" in refused(bundle(P256, hint="release key 1"), Reason.UNKNOWN_KEY, keys=[])
    refused(bundle(P256), Reason.UNKNOWN_KEY, keys=[])
    refused(cosign(P256), Reason.BAD_SIGNATURE, keys=[ED25519.public])
    refused(cosign(P256), Reason.UNKNOWN_KEY, keys=[])


def test_103_a_signature_that_names_a_key_that_did_not_make_it() -> None:
    """The named key is asked, and no other: who says that a signature is by X has lied, whoever made it."""
    refused(bundle(P256, hint=ED25519.public.hint), Reason.BAD_SIGNATURE)


@pytest.mark.parametrize("hint", ["", "release key 1", "QUJD", P256.public.fingerprint.hex])
def test_a_hint_of_another_tool_keeps_no_key_from_being_tried(hint: str) -> None:
    """It is not signed, and each tool has its own."""
    assert check(bundle(P256, hint=hint), SUBJECT, TRUSTED).key == P256.public


def test_103_a_signature_about_another_digest() -> None:
    told = refused(bundle(P256, subject=OTHER), Reason.OTHER_DIGEST)
    assert str(OTHER) in told
    assert str(OTHER) in refused(cosign(P256, subject=OTHER), Reason.OTHER_DIGEST)


def test_103_one_form_is_not_taken_for_the_other() -> None:
    """Each signs bytes of its own, so the bytes of one are never a signature of the other."""
    made = Bundle.sign(Statement(subject=SUBJECT), P256)
    signature = encoding.encode(made.envelope.signature)
    as_cosign = Evidence(form=Form.COSIGN, manifest=MANIFEST, raw=made.envelope.payload, signature=signature)
    refused(as_cosign, Reason.BAD_SIGNATURE)
    refused(cosigned(P256, made.envelope.signed), Reason.MALFORMED)
    refused(cosigned(P256, made.envelope.payload), Reason.MALFORMED)
    refused(signed(P256, Payload(subject=SUBJECT, repository=REPOSITORY).to_bytes()), Reason.MALFORMED)
    refused(replace(cosign(P256), form=Form.BUNDLE), Reason.UNKNOWN_FORM)


def test_what_could_not_be_read_is_refused_with_what_was_told() -> None:
    problem = (Reason.UNREADABLE, "the registry answered 500")
    found = replace(bundle(P256), problem=problem)
    assert refused(found, Reason.UNREADABLE) == problem[1]


BOMB = b'{"_type":' + b"[" * 50_000
"""A payload that the parser has trouble with."""


def test_103_a_payload_is_not_parsed_before_its_signature_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def watched(name: str, original: Any) -> Any:
        def parse(raw: bytes, *, subject: str) -> Any:
            parsed.append(raw)
            return original(raw, subject=subject)

        return parse

    monkeypatch.setattr(Statement, "parse", watched("statement", Statement.parse))
    monkeypatch.setattr(Payload, "parse", watched("payload", Payload.parse))
    stranger = PrivateKey.generate("ed25519")
    by_stranger = replace(Bundle.parse(signed(stranger, BOMB).raw), hint=P256.public.hint)
    refused(evidence_of(by_stranger), Reason.BAD_SIGNATURE)
    refused(evidence_of(replace(by_stranger, hint="")), Reason.BAD_SIGNATURE)
    refused(cosigned(stranger, BOMB), Reason.BAD_SIGNATURE)
    refused(signed(stranger, BOMB), Reason.UNKNOWN_KEY)
    assert not parsed
    refused(signed(P256, BOMB), Reason.MALFORMED)
    refused(cosigned(P256, BOMB), Reason.MALFORMED)
    assert parsed == [BOMB, BOMB]


@given(st.binary(max_size=200))
def test_103_a_payload_that_cannot_be_parsed_never_passes(payload: bytes) -> None:
    """Also when a trusted key has signed it."""
    for found in (signed(P256, payload), cosigned(P256, payload)):
        refused(found, Reason.MALFORMED)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_bundle(raw: bytes) -> None:
    found = Evidence(form=Form.BUNDLE, manifest=MANIFEST, raw=raw)
    with pytest.raises(Rejected) as caught:
        check(found, SUBJECT, TRUSTED)
    assert caught.value.reason in {Reason.MALFORMED, Reason.UNKNOWN_FORM}


@pytest.mark.parametrize("size", range(0, len(bundle(ED25519).raw), 7))
def test_103_a_bundle_that_was_cut_off(size: int) -> None:
    found = bundle(ED25519)
    refused(replace(found, raw=found.raw[:size]), Reason.MALFORMED)


@given(change=st.data())
def test_103_no_change_of_a_bundle_changes_what_it_says(change: st.DataObject) -> None:
    """What is not signed (the hint, a time stamp) may say what it likes: that adds nothing to the claim."""
    found = bundle(ED25519, annotations=ANNOTATIONS)
    claim = check(found, SUBJECT, TRUSTED)
    at = change.draw(st.integers(0, len(found.raw) - 1))
    new = change.draw(st.binary(max_size=3))
    other = replace(found, raw=found.raw[:at] + new + found.raw[at + change.draw(st.integers(0, 3)) :])
    with contextlib.suppress(Rejected):
        assert check(other, SUBJECT, TRUSTED) == claim


# --- what a bundle may be

PATH = "verificationMaterial"


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("mediaType", "application/vnd.dev.sigstore.bundle+json;version=0.3", Reason.UNKNOWN_FORM),
        ("mediaType", "application/vnd.dev.sigstore.bundle.v0.4+json", Reason.UNKNOWN_FORM),
        ("mediaType", 5, Reason.UNKNOWN_FORM),
        ("mediaType", ABSENT, Reason.UNKNOWN_FORM),
        ("messageSignature", {"signature": "AAAA"}, Reason.UNKNOWN_FORM),
        (PATH, {"certificate": {"rawBytes": "AAAA"}}, Reason.KEYLESS),
        (PATH, {"certificate": {}, "publicKey": {"hint": P256.public.hint}}, Reason.KEYLESS),
        (PATH, {"x509CertificateChain": {"certificates": []}}, Reason.KEYLESS),
        (PATH, {}, Reason.MALFORMED),
        (PATH, [], Reason.MALFORMED),
        (PATH, ABSENT, Reason.MALFORMED),
        (f"{PATH}.publicKey", "x", Reason.MALFORMED),
        (f"{PATH}.publicKey.hint", 5, Reason.MALFORMED),
        (f"{PATH}.publicKey.hint", None, Reason.MALFORMED),
        (f"{PATH}.publicKey.rawBytes", "AAAA", Reason.MALFORMED),
        (f"{PATH}.other", {}, Reason.MALFORMED),
        ("other", 1, Reason.MALFORMED),
        ("dsseEnvelope", ABSENT, Reason.MALFORMED),
        ("dsseEnvelope", None, Reason.MALFORMED),
        ("dsseEnvelope.payload", ABSENT, Reason.MALFORMED),
        ("dsseEnvelope.payload", "e30", Reason.MALFORMED),
        ("dsseEnvelope.payload", "e30=\n", Reason.MALFORMED),
        ("dsseEnvelope.payload", "e31=", Reason.MALFORMED),
        ("dsseEnvelope.payload", "_-8=", Reason.MALFORMED),
        ("dsseEnvelope.payload", 5, Reason.MALFORMED),
        ("dsseEnvelope.payloadType", None, Reason.MALFORMED),
        ("dsseEnvelope.payloadType", "application/json", Reason.BAD_SIGNATURE),
        ("dsseEnvelope.other", 1, Reason.MALFORMED),
        ("dsseEnvelope.signatures", [], Reason.MALFORMED),
        ("dsseEnvelope.signatures", {}, Reason.MALFORMED),
        ("dsseEnvelope.signatures", [{"sig": "AAAA"}] * 2, Reason.MALFORMED),
        ("dsseEnvelope.signatures", [{"sig": "AAAA"}] * 10_000, Reason.MALFORMED),
        ("dsseEnvelope.signatures.0", "AAAA", Reason.MALFORMED),
        ("dsseEnvelope.signatures.0", {}, Reason.MALFORMED),
        ("dsseEnvelope.signatures.0.sig", "", Reason.MALFORMED),
        ("dsseEnvelope.signatures.0.sig", "AAAA" * 1000, Reason.MALFORMED),
        ("dsseEnvelope.signatures.0.sig", "AAAA", Reason.BAD_SIGNATURE),
        ("dsseEnvelope.signatures.0.other", 1, Reason.MALFORMED),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_103_a_bundle_of_another_shape(path: str, value: object, reason: Reason) -> None:
    refused(changed(bundle(P256), path, value), reason)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{PATH}.tlogEntries", [{"logIndex": "1", "inclusionProof": {"hashes": ["AAAA"] * 100}}]),
        (f"{PATH}.tlogEntries", []),
        (f"{PATH}.timestampVerificationData", {"rfc3161Timestamps": []}),
        (f"{PATH}.publicKey.hint", ABSENT),
        ("dsseEnvelope.signatures.0.keyid", ""),
    ],
    ids=str,
)
def test_what_other_tools_write_besides_is_let_through(path: str, value: object) -> None:
    assert check(changed(bundle(P256), path, value), SUBJECT, TRUSTED).key == P256.public


def test_51_a_field_that_is_there_twice() -> None:
    raw = bundle(P256).raw
    for double in (b'"mediaType":"x","mediaType"', b'"mediaType":"application/json","mediaType"'):
        refused(replace(bundle(P256), raw=raw.replace(b'"mediaType"', double)), Reason.MALFORMED)
    twice = statement().replace(b'"predicate":', b'"predicate":{},"predicate":')
    refused(signed(P256, twice), Reason.MALFORMED)


def test_103_a_bundle_that_is_too_large() -> None:
    found = bundle(P256)
    padded = found.raw + b" " * (MAX_BUNDLE - len(found.raw))
    assert check(replace(found, raw=padded), SUBJECT, TRUSTED).key == P256.public
    refused(replace(found, raw=padded + b" "), Reason.TOO_LARGE)
    older = cosign(P256)
    refused(replace(older, raw=older.raw + b" " * MAX_PAYLOAD), Reason.TOO_LARGE)


@pytest.mark.parametrize(
    "raw", [b"\xef\xbb\xbf", b"\xff\xfe", b"{", b"[" * 100_000, b'{"a":1e9}', b'{"a":NaN}', b"{}{}"]
)
def test_52_53_62_a_bundle_that_is_no_json(raw: bytes) -> None:
    refused(replace(bundle(P256), raw=raw), Reason.MALFORMED)


# --- what a statement may say


def test_103_a_signature_of_another_type() -> None:
    """By a trusted key, but it says something else: a build's provenance does not say that a disk may be booted."""
    for payload in (
        statement(predicateType="https://slsa.dev/provenance/v1"),
        statement(predicateType="https://sigstore.dev/cosign/sign/v2"),
        statement(_type="https://in-toto.io/Statement/v0.1"),
    ):
        assert "expected https://" in refused(signed(P256, payload), Reason.OTHER_TYPE)
    told = refused(signed(P256, statement(), payload_type="application/json"), Reason.OTHER_TYPE)
    assert "application/json" in told


GOOD = {"digest": {"sha256": SUBJECT.hex}}


@pytest.mark.parametrize(
    "fields",
    [
        {"_type": ABSENT},
        {"_type": 5},
        {"predicateType": ABSENT},
        {"predicateType": None},
        {"predicate": []},
        {"predicate": "x"},
        {"subject": ABSENT},
        {"subject": []},
        {"subject": GOOD},
        {"subject": [GOOD, GOOD]},
        {"subject": [GOOD, {"digest": {"sha256": OTHER.hex}}]},
        {"subject": [str(SUBJECT)]},
        {"subject": [{}]},
        {"subject": [{"digest": str(SUBJECT)}]},
        {"subject": [{"digest": {}}]},
        {"subject": [{"digest": {"sha512": SUBJECT.hex}}]},
        {"subject": [{"digest": {"sha256": str(SUBJECT)}}]},
        {"subject": [{"digest": {"sha256": SUBJECT.hex.upper()}}]},
        {"subject": [{"digest": {"sha256": SUBJECT.hex + "\n"}}]},
        {"subject": [{"digest": {"sha256": SUBJECT.hex[:-1]}}]},
        {"subject": [{"digest": {"sha256": None}}]},
        {"subject": [GOOD | {"annotations": []}]},
        {"subject": [GOOD | {"annotations": None}]},
        {"subject": [GOOD | {"annotations": {"a": 5}}]},
        {"subject": [GOOD | {"annotations": {"": "a"}}]},
        {"subject": [GOOD | {"annotations": {"io.casstore.signed": "yesterday"}}]},
        {"subject": [GOOD | {"annotations": {"io.casstore.signed": "2026-02-30T00:00:00Z"}}]},
        {"subject": [GOOD | {"annotations": {"io.casstore.signed": "0001-01-01T00:00:00+23:00"}}]},
        {"subject": [GOOD | {"annotations": {"io.casstore.repository": ""}}]},
        {"subject": [GOOD | {"annotations": {"io.casstore.repository": "team/disks"}}]},
        {"subject": [GOOD | {"annotations": {"io.casstore.repository": "oci:/dir"}}]},
        {"subject": [GOOD | {"annotations": {"io.casstore.repository": f"{REPOSITORY}:v1"}}]},
        {"subject": [GOOD | {"annotations": {"io.casstore.repository": f"{REPOSITORY}@{SUBJECT}"}}]},
        {"subject": [GOOD | {"annotations": {"io.casstore.repository": "r.example/../x"}}]},
    ],
    ids=lambda fields: ascii(fields)[:80],
)
def test_103_a_statement_of_another_shape(fields: dict[str, Any]) -> None:
    assert "signed by p256" in refused(signed(P256, statement(**fields)), Reason.MALFORMED)


@pytest.mark.parametrize(
    "fields",
    [
        {"predicate": ABSENT},
        {"predicate": {"more": [1, 2, {}]}},
        {"another": "field"},
        {"subject": [GOOD | {"name": "disk", "mediaType": "x"}]},
        {"subject": [{"digest": {"sha256": SUBJECT.hex, "sha512": "00"}}]},
    ],
    ids=ascii,
)
def test_what_other_tools_state_besides_is_let_through(fields: dict[str, Any]) -> None:
    assert check(signed(P256, statement(**fields)), SUBJECT, TRUSTED).annotations == {}


@pytest.mark.parametrize(
    ("text", "time"),
    [
        (SIGNED, TIME),
        ("2026-01-02T04:04:05.123456789+01:00", TIME.replace(microsecond=123456)),
        (None, None),
    ],
)
def test_when_it_was_signed(text: str | None, time: datetime | None) -> None:
    known = {} if text is None else {"io.casstore.signed": text}
    assert check(bundle(P256, annotations=known), SUBJECT, TRUSTED).signed_at == time
    assert check(cosign(P256, annotations=known), SUBJECT, TRUSTED).signed_at == time
    assert check(cosign(P256, annotations=known, timestamp=1), SUBJECT, TRUSTED).signed_at == (
        time or datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    ("named", "repository"),
    [
        (REPOSITORY, REPOSITORY),
        ("docker.io/alpine", "docker.io/library/alpine"),
        ("LOCALHOST:5000/x", "localhost:5000/x"),
    ],
)
def test_which_repository_it_is_for(named: str, repository: str) -> None:
    found = bundle(P256, annotations={"io.casstore.repository": named})
    assert check(found, SUBJECT, TRUSTED).repository == repository
    assert check(bundle(P256), SUBJECT, TRUSTED).repository is None


# --- what a payload of cosign's form may say


def payload(path: str = "", value: object = None) -> bytes:
    """A payload with something else at a path."""
    document = json.loads(Payload(subject=SUBJECT, repository=REPOSITORY).to_bytes())
    if path:
        place = document
        *folders, last = path.split("/")
        for step in folders:
            place = place[step]
        place[last] = value
        if value is ABSENT:
            del place[last]
    return dump(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("other", 1),
        ("optional", ABSENT),
        ("optional", []),
        ("optional", ""),
        ("optional", 0),
        ("optional", False),
        ("critical", ABSENT),
        ("critical", None),
        ("critical/other", 1),
        ("critical/type", ABSENT),
        ("critical/type", 5),
        ("critical/image", ABSENT),
        ("critical/image", []),
        ("critical/image/other", 1),
        ("critical/image/docker-manifest-digest", SUBJECT.hex),
        ("critical/image/docker-manifest-digest", f"{SUBJECT}\n"),
        ("critical/image/docker-manifest-digest", None),
        ("critical/identity", ABSENT),
        ("critical/identity/other", 1),
        ("critical/identity/docker-reference", ""),
        ("critical/identity/docker-reference", "disks"),
        ("critical/identity/docker-reference", "oci:/dir"),
        ("critical/identity/docker-reference", 5),
        ("optional", {"timestamp": "5"}),
        ("optional", {"timestamp": True}),
        ("optional", {"timestamp": None}),
        ("optional", {"timestamp": 2**62}),
        ("optional", {"creator": 5}),
        ("optional", {"creator": None}),
        ("optional", {"io.casstore.signed": "yesterday"}),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_103_a_payload_of_another_shape(path: str, value: object) -> None:
    assert "signed by p256" in refused(cosigned(P256, payload(path, value)), Reason.MALFORMED)


def test_103_a_payload_of_another_type() -> None:
    refused(cosigned(P256, payload("critical/type", "atomic container signature")), Reason.OTHER_TYPE)


def test_51_a_payload_with_a_field_twice() -> None:
    digest = f'"docker-manifest-digest":"{OTHER}",'.encode()
    twice = payload().replace(b'"docker-manifest-digest"', digest + b'"docker-manifest-digest"')
    refused(cosigned(P256, twice), Reason.MALFORMED)


@pytest.mark.parametrize(
    ("reference", "repository"),
    [
        (f"{REPOSITORY}:v1", REPOSITORY),
        (f"{REPOSITORY}@{SUBJECT}", REPOSITORY),
        ("index.docker.io/library/alpine", "docker.io/library/alpine"),
    ],
)
def test_references_as_other_tools_write_them(reference: str, repository: str) -> None:
    found = cosigned(P256, payload("critical/identity/docker-reference", reference))
    assert check(found, SUBJECT, TRUSTED).repository == repository


def test_what_is_optional_is_what_one_likes() -> None:
    optional = {"creator": "skopeo", "timestamp": 5, "note": "x", "count": 5, "list": [1], "none": None}
    claim = check(cosigned(P256, payload("optional", optional)), SUBJECT, TRUSTED)
    assert claim.annotations == {"creator": "skopeo", "note": "x"}
    assert check(cosigned(P256, payload("optional", {})), SUBJECT, TRUSTED).annotations == {}


@pytest.mark.parametrize(
    "signature", [None, "", "AAA", "AAAA\n", "é", "AAAA" * 1000], ids=lambda text: ascii(text)[:20]
)
def test_103_a_signature_that_is_no_base64(signature: str | None) -> None:
    refused(replace(cosign(P256), signature=signature), Reason.MALFORMED)


def test_errors_of_documents_say_which_rule_was_broken() -> None:
    with pytest.raises(UnsupportedVersion, match="predicateType"):
        Statement.parse(statement(predicateType="x"), subject="statement")
    with pytest.raises(DocumentError, match=r"subject\[0\]\.annotations"):
        Statement.parse(statement(subject=[GOOD | {"annotations": 5}]), subject="statement")
    with pytest.raises(DocumentError, match=r"critical\.image"):
        Payload.parse(payload("critical/image/other", 1), subject="payload")


def test_64_nothing_of_a_signature_reaches_a_terminal_as_it_is() -> None:
    """What messages quote is escaped already."""
    evil = "\x1b]8;;x\x07\u202e"
    for found in (
        changed(bundle(P256), "mediaType", evil),
        changed(bundle(P256), evil, 1),
        bundle(PrivateKey.generate("ed25519"), hint=evil),
        signed(P256, statement(predicateType=evil)),
        signed(P256, statement(), payload_type=evil),
        cosigned(P256, payload("critical/type", evil)),
        cosigned(P256, payload(evil, 1)),
        cosigned(P256, payload("critical/identity/docker-reference", evil)),
        replace(cosign(P256), signature=evil),
    ):
        with pytest.raises(Rejected) as caught:
            check(found, SUBJECT, TRUSTED)
        assert caught.value.text.isprintable()
