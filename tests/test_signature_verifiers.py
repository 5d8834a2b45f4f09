"""What others say of casstore's signatures, and casstore of theirs.

No code of casstore is in the verifiers: @sigstore/verify (tests/programs/sigstore/verify.cjs), securesystemslib, and
openssl. Each accepts the good ones and refuses each that was tampered with; casstore is asked the same questions.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.dsse import Envelope as Dsse
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import SSlibKey

from casstore.digest import Digest
from casstore.signatures import encoding
from casstore.signatures.claims import Claim, Evidence, Form, check
from casstore.signatures.keys import PrivateKey, PublicKey
from casstore.signatures.reasons import Reason, Rejected
from casstore.signatures.simplesigning import MEDIA_TYPE, SIGNATURE_ANNOTATION
from casstore.signatures.statement import Statement
from tests.support import disks, needs
from tests.support.command import Casstore
from tests.support.signatures import (
    ED25519,
    FIXTURES,
    KEYS,
    MANIFEST,
    OTHER,
    P256,
    REPOSITORY,
    SUBJECT,
    bundle,
    changed,
    cosign,
    cosigned,
)

ANNOTATIONS = {"io.casstore.repository": REPOSITORY, "io.casstore.signed": "2026-01-02T03:04:05Z", "note": "Grüße\x1b"}
NAMES = ["p256", "ed25519"]
PROGRAM = Path(__file__).parent / "programs" / "sigstore" / "verify.cjs"


# --- bundles


@cache
def tampered(key: PrivateKey) -> Mapping[str, tuple[Evidence, PublicKey]]:
    """Bundles that must not be accepted, each with the only trusted key."""
    good = bundle(key, annotations=ANNOTATIONS)
    envelope = json.loads(good.raw)["dsseEnvelope"]
    payload, signature = base64.b64decode(envelope["payload"]), base64.b64decode(envelope["signatures"][0]["sig"])
    other_payload = Statement(subject=OTHER, annotations=ANNOTATIONS).to_bytes()
    other = next(each for each in KEYS if each != key)
    same_kind = PrivateKey.generate(key.public.kind)
    resigned = json.loads(bundle(same_kind, annotations=ANNOTATIONS).raw)["dsseEnvelope"]["signatures"][0]["sig"]

    def with_signature(data: bytes) -> Evidence:
        return changed(good, "dsseEnvelope.signatures.0.sig", encoding.encode(data))

    def with_payload(data: bytes) -> Evidence:
        return changed(good, "dsseEnvelope.payload", encoding.encode(data))

    cases = {
        "payload of another subject": with_payload(other_payload),
        "payload with a blank more": with_payload(payload + b" "),
        "payload with a bit changed": with_payload(payload[:-9] + bytes([payload[-9] ^ 1]) + payload[-8:]),
        "payload cut off": with_payload(payload[:-1]),
        "no payload": with_payload(b""),
        "first bit of the signature": with_signature(bytes([signature[0] ^ 0x80]) + signature[1:]),
        "last bit of the signature": with_signature(signature[:-1] + bytes([signature[-1] ^ 1])),
        "middle bit of the signature": with_signature(signature[:40] + bytes([signature[40] ^ 8]) + signature[41:]),
        "signature cut off": with_signature(signature[:-1]),
        "signature of zeros": with_signature(bytes(len(signature))),
        "signature of the payload alone": with_signature(key.sign(payload)),
        "signature of another key": changed(good, "dsseEnvelope.signatures.0.sig", resigned),
        "another type": changed(good, "dsseEnvelope.payloadType", "application/json"),
        "a type with a blank more": changed(good, "dsseEnvelope.payloadType", envelope["payloadType"] + " "),
        "no signature": changed(good, "dsseEnvelope.signatures", []),
    }
    others = {"another key of the same kind": same_kind.public, "a key of another kind": other.public}
    return {
        **{name: (case, key.public) for name, case in cases.items()},
        **{name: (good, k) for name, k in others.items()},
    }


CASES = sorted(tampered(P256))


@cache
def told_by_sigstore() -> Mapping[tuple[str, str], str]:
    """What @sigstore/verify says of each case: of all in one run, as Node takes its time to start."""
    asked: dict[tuple[str, str], tuple[Evidence, PublicKey]] = {}
    for key, name in zip(KEYS, NAMES, strict=True):
        asked[name, "good"] = bundle(key, annotations=ANNOTATIONS), key.public
        asked[name, "hint of another"] = bundle(key, hint="somebody"), key.public
        asked |= {(name, case): found for case, found in tampered(key).items()}
    questions = [{"bundle": found.raw.decode(), "key": key.to_pem().decode()} for found, key in asked.values()]
    return dict(zip(asked, ask_sigstore(questions), strict=True))


def ask_sigstore(questions: Sequence[Mapping[str, str]]) -> list[str]:
    """What @sigstore/verify says of each bundle with each key; "ok" if it is good."""
    command = ["node", str(PROGRAM), str(needs.VERIFIERS)]
    told = subprocess.run(command, input=json.dumps(questions).encode(), capture_output=True, check=True).stdout
    outcomes: list[str] = json.loads(told)
    return outcomes


@pytest.mark.needs("sigstore")
@pytest.mark.parametrize("name", NAMES)
def test_sigstores_own_library_accepts_what_casstore_signs(name: str) -> None:
    assert told_by_sigstore()[name, "good"] == "ok"
    assert told_by_sigstore()[name, "hint of another"] == "ok"


@pytest.mark.needs("sigstore")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_sigstores_own_library_refuses_what_was_tampered_with(name: str, case: str) -> None:
    told = told_by_sigstore()[name, case]
    assert told != "ok"
    assert any(word in told.lower() for word in ("signature", "bundle")), told


def dsse_of(found: Evidence) -> Dsse:
    """The envelope, as securesystemslib reads it from DSSE's own form, in which a signature has a `keyid`."""
    document = json.loads(found.raw)["dsseEnvelope"]
    document["signatures"] = [{"keyid": "", **each} for each in document["signatures"]]
    return Dsse.from_dict(document)


def for_securesystemslib(key: PublicKey) -> SSlibKey:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    read = SSlibKey.from_crypto(load_pem_public_key(key.to_pem()))
    read.keyid = ""
    return read


@pytest.mark.parametrize("key", KEYS, ids=NAMES)
def test_securesystemslib_accepts_what_casstore_signs(key: PrivateKey) -> None:
    envelope = dsse_of(bundle(key, annotations=ANNOTATIONS))
    accepted = envelope.verify([for_securesystemslib(key.public)], 1)
    assert len(accepted) == 1
    assert json.loads(envelope.payload)["subject"][0]["digest"] == {"sha256": SUBJECT.hex}


@pytest.mark.parametrize("key", KEYS, ids=NAMES)
@pytest.mark.parametrize("case", CASES)
def test_securesystemslib_refuses_what_was_tampered_with(key: PrivateKey, case: str) -> None:
    found, trusted = tampered(key)[case]
    with pytest.raises(VerificationError):
        dsse_of(found).verify([for_securesystemslib(trusted)], 1)


@pytest.mark.parametrize("key", KEYS, ids=NAMES)
@pytest.mark.parametrize("case", CASES)
def test_casstore_refuses_it_too(key: PrivateKey, case: str) -> None:
    found, trusted = tampered(key)[case]
    with pytest.raises(Rejected) as caught:
        check(found, SUBJECT, [trusted])
    expected = {"no signature": Reason.MALFORMED} | dict.fromkeys(
        ("another key of the same kind", "a key of another kind"), Reason.UNKNOWN_KEY
    )
    assert caught.value.reason is expected.get(case, Reason.BAD_SIGNATURE)


def test_casstore_accepts_what_securesystemslib_signs() -> None:
    """Its own keys, its own encoding of what is signed."""
    signer = CryptoSigner.generate_ecdsa()
    envelope = Dsse(Statement(subject=SUBJECT).to_bytes(), "application/vnd.in-toto+json", {})
    made = envelope.sign(signer)
    trusted = PublicKey.parse(signer.public_key.keyval["public"].encode(), name="theirs")
    signature = encoding.encode(bytes.fromhex(made.signature))
    found = changed(bundle(P256, hint=""), "dsseEnvelope.signatures.0.sig", signature)
    assert check(found, SUBJECT, [P256.public, trusted]).key == trusted


# --- cosign's form


@pytest.mark.needs("openssl")
def test_openssl_accepts_what_casstore_signs_in_cosigns_form(tmp_path: Path) -> None:
    found = cosign(P256, annotations={"note": "x"})
    (tmp_path / "key.pub").write_bytes(P256.public.to_pem())
    (tmp_path / "signature").write_bytes(base64.b64decode(found.signature or ""))

    def verify(payload: bytes) -> str:
        (tmp_path / "payload").write_bytes(payload)
        words = ["dgst", "-sha256", "-verify", "key.pub", "-signature", "signature", "payload"]
        return (
            subprocess.run(["openssl", *words], cwd=tmp_path, capture_output=True, check=False).stdout.decode().strip()
        )

    assert verify(found.raw) == "Verified OK"
    assert verify(found.raw + b"\n") != "Verified OK"
    assert verify(found.raw.replace(SUBJECT.hex[:6].encode(), b"000000")) != "Verified OK"


@pytest.mark.needs("openssl")
def test_casstore_accepts_what_openssl_signs_in_cosigns_form(tmp_path: Path) -> None:
    made = cosign(ED25519).raw
    (tmp_path / "key").write_bytes(P256.to_pem(None))
    signature = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", tmp_path / "key"], input=made, capture_output=True, check=True
    ).stdout
    found = replace(cosigned(P256, made), signature=encoding.encode(signature))
    assert check(found, SUBJECT, [P256.public]).repository == REPOSITORY


# --- what the command line signs


@pytest.mark.needs("sigstore", "openssl")
def test_others_verify_what_the_command_line_signs(casstore: Casstore, tmp_path: Path) -> None:
    """With keys that it made, and blobs that are looked up in the store with nothing but a JSON parser."""
    disks.random_sparse_file(tmp_path / "disk", seed=1)
    casstore("create", "base", "--disk", tmp_path / "disk", "-q")
    words: list[object] = ["sign", "base", "--cosign-tag", "--repository", REPOSITORY, "-a", "note=Grüße"]
    for name in NAMES:
        kind = "ecdsa-p256" if name == "p256" else name
        casstore("key", "generate", tmp_path / name, "--type", kind, "--no-passphrase", "-q")
        words += ["--key", tmp_path / f"{name}.key"]
    casstore(*words)

    def blob(layer: dict[str, Any]) -> bytes:
        return Path(casstore.store, "blobs", *layer["digest"].split(":")).read_bytes()

    subject = (casstore.store / "refs" / "base").resolve().name
    refs = casstore.store / "refs"
    found = [json.loads(path.read_bytes())["layers"] for path in refs.glob(f"sha256-{subject}.sig-*")]
    keys = {name: (tmp_path / f"{name}.pub").read_text() for name in NAMES}
    questions = [{"bundle": blob(layer).decode(), "key": key} for (layer,) in found for key in keys.values()]
    assert sorted(ask_sigstore(questions)) == ["SIGNATURE_ERROR: signature verification failed"] * 2 + ["ok"] * 2
    for question in questions:
        statement = json.loads(base64.b64decode(json.loads(question["bundle"])["dsseEnvelope"]["payload"]))
        assert statement["subject"][0]["digest"] == {"sha256": subject}

    layers = json.loads((refs / f"sha256-{subject}.sig").read_bytes())["layers"]
    assert len(layers) == 2
    (tmp_path / "payload").write_bytes(blob(layers[0]))
    (tmp_path / "signature").write_bytes(base64.b64decode(layers[0]["annotations"][SIGNATURE_ANNOTATION]))
    command = ["openssl", "dgst", "-sha256", "-verify", "p256.pub", "-signature", "signature", "payload"]
    assert subprocess.check_output(command, cwd=tmp_path) == b"Verified OK\n"
    assert json.loads(blob(layers[0]))["critical"]["image"]["docker-manifest-digest"] == f"sha256:{subject}"


# --- what the documentation says


@pytest.mark.needs("openssl", "jq")
@pytest.mark.parametrize("good", [True, False])
def test_the_commands_of_the_documentation_verify(tmp_path: Path, good: bool) -> None:
    """Those of "Verifying without casstore", as they stand there."""
    page = (FIXTURES.parents[1] / "docs" / "reference" / "signatures.md").read_text()
    older, found = cosign(P256), bundle(P256, annotations=ANNOTATIONS)
    (tmp_path / "casstore.pub").write_bytes((P256 if good else PrivateKey.generate("ecdsa-p256")).public.to_pem())
    (tmp_path / "payload.json").write_bytes(older.raw)
    (tmp_path / "signature.base64").write_text(older.signature or "")
    (tmp_path / "bundle.json").write_bytes(found.raw)
    blocks = re.findall(r"```console\n(.*?)```", page.partition("## Verifying without casstore")[2], re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        commands = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
        done = subprocess.run(["bash", "-c", "\n".join(commands)], cwd=tmp_path, capture_output=True, check=False)
        assert (done.stdout == b"Verified OK\n") is good, done.stderr
    assert json.loads((tmp_path / "statement.json").read_bytes())["subject"][0]["digest"]["sha256"] == SUBJECT.hex


@pytest.mark.needs("openssl")
def test_the_commands_of_the_documentation_name_a_key(tmp_path: Path) -> None:
    page = (FIXTURES.parents[1] / "docs" / "reference" / "signatures.md").read_text()
    (tmp_path / "casstore.pub").write_bytes(P256.public.to_pem())
    told = [
        subprocess.check_output(["bash", "-c", command], cwd=tmp_path).decode().split()[0]
        for command in re.findall(r"\$ (openssl pkey .*)", page)
    ]
    assert told == [P256.public.fingerprint.hex, P256.public.hint]


# --- signatures that cosign and skopeo made

IMAGES = FIXTURES / "containers-image"
COSIGN = PublicKey.parse((IMAGES / "cosign.pub").read_bytes(), name="cosign.pub")
SINGLE = "192.168.64.2:5000/cosign-signed-single-sample"


def read_signature(path: Path) -> Evidence:
    """A signature as containers/image keeps it in a directory. What has another media type than a signature has is not
    one, and would not get as far as here.
    """
    head, _, body = path.read_bytes().partition(b"\n")
    assert head == b"\0sigstore-json"
    document = json.loads(body)
    problem = None if document["mimeType"] == MEDIA_TYPE else (Reason.UNKNOWN_FORM, document["mimeType"])
    return Evidence(
        form=Form.COSIGN,
        manifest=MANIFEST,
        raw=base64.b64decode(document["payload"]),
        signature=document["annotations"][SIGNATURE_ANNOTATION],
        problem=problem,
    )


def outcomes(folder: str) -> Iterator[Claim | Reason]:
    """What casstore says of each signature of an image."""
    subject = Digest.of((IMAGES / folder / "manifest.json").read_bytes())
    for path in sorted((IMAGES / folder).glob("signature-*")):
        try:
            yield check(read_signature(path), subject, [COSIGN])
        except Rejected as error:
            yield error.reason


@pytest.mark.parametrize(
    ("folder", "repositories"),
    [
        ("valid", [SINGLE]),
        ("valid-2", [SINGLE, SINGLE]),
        ("mixed", [None, SINGLE]),
        ("valid-with-tag", ["192.168.64.2:5000/skopeo-signed"]),
    ],
)
def test_signatures_that_cosign_made_are_accepted(folder: str, repositories: list[str | None]) -> None:
    found = list(outcomes(folder))
    assert [each.repository if isinstance(each, Claim) else None for each in found] == repositories
    assert all(each is Reason.BAD_SIGNATURE for each in found if not isinstance(each, Claim))


def test_what_skopeo_says_besides_is_read() -> None:
    (claim,) = outcomes("valid-with-tag")
    assert isinstance(claim, Claim)
    assert claim.annotations == {"creator": "containers/image 5.21.2-dev"}
    assert str(claim.signed_at) == "2022-07-08 16:10:09+00:00"


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("modified-manifest", Reason.OTHER_DIGEST),
        ("manifest-digest-error", Reason.OTHER_DIGEST),
        ("other-attachment", Reason.UNKNOWN_FORM),
    ],
)
def test_signatures_of_something_else_are_refused(folder: str, reason: Reason) -> None:
    assert list(outcomes(folder)) == [reason]


def test_an_attachment_with_the_signature_of_another_is_refused_by_its_bytes_too() -> None:
    attachment = replace(read_signature(IMAGES / "other-attachment" / "signature-1"), problem=None)
    with pytest.raises(Rejected) as caught:
        check(attachment, SUBJECT, [COSIGN])
    assert caught.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("keys", [[COSIGN], [P256.public], []], ids=["cosign", "p256", "none"])
def test_a_signature_by_an_unknown_key_is_refused(keys: list[PublicKey]) -> None:
    subject = Digest.of((IMAGES / "valid" / "manifest.json").read_bytes())
    with pytest.raises(Rejected) as caught:
        check(read_signature(IMAGES / "unknown-cosign-key.signature"), subject, keys)
    assert caught.value.reason is (Reason.BAD_SIGNATURE if keys else Reason.UNKNOWN_KEY)
