"""Key files: what is read, what is refused, and that what is private stays so."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.errors import InvalidKey
from casstore.signatures import encoding
from casstore.signatures.keys import KINDS, MAX_KEY_FILE, Kind, PrivateKey, PublicKey, is_encrypted, is_private
from tests.support.signatures import ED25519, FIXTURES, KEYS, P256, VECTORS, no_passphrase

COSIGN = FIXTURES / "cosign-keys"
PASSPHRASE = b"correct horse"
NAMES = ("p256", "ed25519")


def openssl(*words: str, data: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *words], input=data, capture_output=True, check=True).stdout


def parse(raw: bytes) -> PrivateKey:
    return PrivateKey.parse(raw, name="k.key", passphrase=no_passphrase)


def opened(raw: bytes, passphrase: bytes = PASSPHRASE) -> PrivateKey:
    return PrivateKey.parse(raw, name="k.key", passphrase=lambda: passphrase)


def pem(label: str, body: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{encoding.encode(body)}\n-----END {label}-----\n".encode()


# --- what is read


def test_a_key_that_verifies_much_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    key = PrivateKey.generate("ecdsa-p256")
    assert key.public.verify(key.sign(b"x"), b"x")
    monkeypatch.setattr("cryptography.hazmat.primitives.serialization.load_der_public_key", None)
    assert not key.public.verify(key.sign(b"y"), b"x")


@pytest.mark.parametrize(("key", "name"), list(zip(KEYS, NAMES, strict=True)), ids=NAMES)
def test_a_key_is_what_openssl_says_it_is(key: PrivateKey, name: str) -> None:
    raw = (VECTORS / f"{name}.pub").read_bytes()
    public = PublicKey.parse(raw, name="given")
    assert public == key.public
    assert hash(public) == hash(key.public), "the name is no part of the key"
    assert public.name == "given"
    assert public.kind in KINDS
    assert public.spki == openssl("pkey", "-pubin", "-outform", "DER", data=raw)
    assert public.fingerprint.hex == openssl("dgst", "-sha256", "-r", data=public.spki).split()[0].decode()
    assert encoding.decode(public.hint, what="hint") == public.fingerprint.raw
    assert public.to_pem() == raw
    assert not is_private(raw)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("passphrase", [None, "Grüße \u0661".encode(), b"x" * 1023], ids=["none", "text", "long"])
def test_what_is_written_is_read_again_and_by_openssl(tmp_path: Path, kind: Kind, passphrase: bytes | None) -> None:
    made = PrivateKey.generate(kind)
    raw = made.to_pem(passphrase)
    assert is_private(raw)
    assert is_encrypted(raw) is (passphrase is not None)
    again = parse(raw) if passphrase is None else opened(raw, passphrase)
    assert again.public == made.public
    assert made.public.kind == kind
    assert made.public.verify(again.sign(b"data"), b"data")
    (tmp_path / "key").write_bytes(raw)
    (tmp_path / "word").write_bytes(passphrase or b"no matter")
    words = ["pkey", "-in", str(tmp_path / "key"), "-passin", f"file:{tmp_path / 'word'}", "-pubout"]
    assert openssl(*words) == made.public.to_pem()


def test_what_is_encrypted_twice_looks_different() -> None:
    assert P256.to_pem(PASSPHRASE) != P256.to_pem(PASSPHRASE)
    assert P256.to_pem(None) == P256.to_pem(None)


@pytest.mark.parametrize("scheme", [["-v2", "aes-256-cbc"], ["-scrypt"], ["-v2", "aes128", "-v2prf", "hmacWithSHA512"]])
@pytest.mark.parametrize("name", NAMES)
def test_what_openssl_encrypts_is_read(name: str, scheme: list[str]) -> None:
    words = ["pkcs8", "-topk8", *scheme, "-in", str(VECTORS / f"{name}.key"), "-passout", "pass:correct horse"]
    raw = openssl(*words)
    assert opened(raw).public == dict(zip(NAMES, KEYS, strict=True))[name].public
    with pytest.raises(InvalidKey, match="wrong passphrase"):
        opened(raw, b"wrong horse")


def test_text_around_the_block_and_other_line_ends_are_read() -> None:
    raw = (VECTORS / "p256.pub").read_bytes()
    around = b"Our key, since 2026\n" + raw.replace(b"\n", b"\r\n") + b"\nuntil further notice\n"
    assert PublicKey.parse(around, name="k").spki == P256.public.spki


def test_a_compressed_point_is_the_same_key() -> None:
    """Its fingerprint, too: each tool takes that of the form which everybody writes."""
    words = ["ec", "-pubin", "-in", str(VECTORS / "p256.pub"), "-conv_form", "compressed"]
    raw = openssl(*words)
    assert raw != (VECTORS / "p256.pub").read_bytes()
    assert PublicKey.parse(raw, name="k") == P256.public


@pytest.mark.parametrize("name", ["p256", "p256-old", "ed25519", "empty"])
def test_keys_that_cosign_encrypts_are_read(name: str) -> None:
    raw = (COSIGN / f"{name}.key").read_bytes()
    assert is_private(raw)
    assert is_encrypted(raw)
    key = opened(raw, b"" if name == "empty" else PASSPHRASE)
    assert key.public == PublicKey.parse((COSIGN / f"{name}.pub").read_bytes(), name=name)
    with pytest.raises(InvalidKey, match=r"key 'k\.key': wrong passphrase"):
        opened(raw, b"wrong horse")


# --- what is refused


def rsa() -> bytes:
    return openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024")


def curve(name: str) -> bytes:
    return openssl("genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{name}")


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (rsa, "RSA"),
        (lambda: curve("P-384"), "secp384r1"),
        (lambda: curve("P-521"), "secp521r1"),
        (lambda: curve("secp256k1"), "secp256k1"),
        (lambda: openssl("genpkey", "-algorithm", "ED448"), "Ed448"),
        (lambda: openssl("genpkey", "-algorithm", "X25519"), "X25519"),
    ],
    ids=["rsa", "p384", "p521", "secp256k1", "ed448", "x25519"],
)
def test_other_kinds_are_refused_by_name(make: Any, got: str) -> None:
    raw = make()
    for read, words in (
        (parse, raw),
        (lambda raw: PublicKey.parse(raw, name="k"), openssl("pkey", "-pubout", data=raw)),
    ):
        with pytest.raises(InvalidKey, match=f"expected a key of ECDSA P-256 or Ed25519, got {got}"):
            read(words)


def test_a_cosign_key_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidKey, match="got secp384r1"):
        opened((COSIGN / "p384.key").read_bytes())


@pytest.mark.parametrize(
    "name", ["vectors/p256.key", "cosign-keys/p256.key", "cosign-keys/p256-old.key", "vectors/ed25519.key"]
)
def test_a_private_key_is_no_public_one(name: str) -> None:
    with pytest.raises(InvalidKey, match="key 'k': expected a public key, got a private one; casstore key public"):
        PublicKey.parse((FIXTURES / name).read_bytes(), name="k")


def test_a_public_key_is_no_private_one() -> None:
    with pytest.raises(InvalidKey, match="expected a private key, got a public one"):
        parse((VECTORS / "p256.pub").read_bytes())


@pytest.mark.parametrize("read", [lambda raw: PublicKey.parse(raw, name="k"), parse], ids=["public", "private"])
@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "as PEM"),
        (b"\0" * 100, "as PEM"),
        (b"-----BEGIN PUBLIC KEY-----\n", "as PEM"),
        (P256.public.to_pem() + b"-----BEGIN PUBLIC KEY-----\nAAAA", "as PEM"),
        (P256.public.to_pem().replace(b"END PUBLIC", b"END PRIVATE"), "as PEM"),
        (P256.public.to_pem() + ED25519.public.to_pem(), "2 keys in one file"),
        (P256.to_pem(None) + P256.public.to_pem(), "2 keys in one file"),
        (P256.public.to_pem() + b" " * MAX_KEY_FILE, "more than 65536 bytes"),
        (pem("CERTIFICATE", b"x"), "got BEGIN CERTIFICATE"),
        (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me@example", "as PEM"),
    ],
)
def test_what_is_no_key_file_is_refused(read: Any, raw: bytes, problem: str) -> None:
    with pytest.raises(InvalidKey, match=problem):
        read(raw)


@pytest.mark.parametrize("label", ["PUBLIC KEY", "PRIVATE KEY"])
def test_what_is_no_key_inside_is_refused(label: str) -> None:
    def read(raw: bytes) -> object:
        return PublicKey.parse(raw, name="k") if label == "PUBLIC KEY" else parse(raw)

    with pytest.raises(InvalidKey, match="got one that cannot be read"):
        read(pem(label, b"\x30\x03\x02\x01\x00"))
    with pytest.raises(InvalidKey, match="base64"):
        read(pem(label, b"abc").replace(b"YWJj", b"YW=J"))
    good = P256.public.to_pem() if label == "PUBLIC KEY" else P256.to_pem(None)
    body = encoding.decode("".join(good.decode().splitlines()[1:-1]), what="")
    with pytest.raises(InvalidKey):
        read(pem(label, body + b"\0"))


def test_a_point_that_is_not_on_the_curve_is_refused() -> None:
    with pytest.raises(InvalidKey):
        PublicKey.parse(pem("PUBLIC KEY", P256.public.spki[:-1] + bytes([P256.public.spki[-1] ^ 1])), name="k")


def test_older_forms_of_private_keys_are_told_how_to_be_converted() -> None:
    raw = openssl("ec", "-in", str(VECTORS / "p256.key"))
    with_parameters = openssl("ecparam", "-name", "prime256v1") + raw
    assert with_parameters.startswith(b"-----BEGIN EC PARAMETERS")
    for each in (raw, with_parameters):
        with pytest.raises(InvalidKey, match="got BEGIN EC PRIVATE KEY; openssl pkcs8 -topk8 converts"):
            parse(each)
    assert parse(openssl("pkcs8", "-topk8", "-nocrypt", data=raw)).public == P256.public


@pytest.mark.parametrize("passphrase", [b"", b"x" * 1024])
def test_a_passphrase_must_be_one(passphrase: bytes) -> None:
    with pytest.raises(InvalidKey, match="expected a passphrase of 1 to 1023 bytes"):
        P256.to_pem(passphrase)


def test_a_wrong_passphrase_is_told_without_it() -> None:
    raw, wrong = P256.to_pem(PASSPHRASE), PASSPHRASE[::-1]
    with pytest.raises(InvalidKey, match=r"key 'k\.key': wrong passphrase, or a damaged key") as caught:
        opened(raw, wrong)
    assert wrong.decode() not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(InvalidKey, match="wrong passphrase"):
        opened(raw, b"")


# --- what is hostile


def cosign_key(**changes: object) -> bytes:
    """The key `p256`, with other values at paths such as `kdf.params.N`."""
    body = "".join((COSIGN / "p256.key").read_text().splitlines()[1:-1])
    document = json.loads(encoding.decode(body, what=""))
    for path, value in changes.items():
        place = document
        *folders, last = path.split("__")
        for step in folders:
            place = place[step]
        place[last] = value
    return pem("ENCRYPTED SIGSTORE PRIVATE KEY", json.dumps(document).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"kdf__params__N": 2**14},
        {"kdf__params__N": 2**18},
        {"kdf__params__N": 2**30},
        {"kdf__params__N": 0},
        {"kdf__params__N": -(2**16)},
        {"kdf__params__N": 65537},
        {"kdf__params__N": "65536"},
        {"kdf__params__N": [65536]},
        {"kdf__params__r": 2**20},
        {"kdf__params__p": 2**20},
        {"kdf__params": None},
        {"kdf__params": {}},
        {"kdf__name": "pbkdf2"},
        {"kdf__salt": ""},
        {"kdf__salt": "AAAA" * 100},
        {"kdf__salt": 5},
        {"cipher__name": "none"},
        {"cipher__nonce": "AAAA"},
        {"cipher": []},
        {"ciphertext": ""},
        {"ciphertext": "AAAA\n"},
        {"ciphertext": None},
        {"kdf": "scrypt"},
    ],
    ids=str,
)
def test_hostile_parameters_are_refused_before_anything_is_computed(changes: dict[str, object]) -> None:
    """Not even the passphrase is asked for."""
    assert is_encrypted(cosign_key())
    with pytest.raises(InvalidKey):
        parse(cosign_key(**changes))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"kdf":{},"kdf":{}}', b"[" * 20_000])
def test_what_is_no_document_of_cosign_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidKey):
        parse(pem("ENCRYPTED SIGSTORE PRIVATE KEY", body))


def encrypted(kdf: bytes, *costs: int) -> bytes:
    """A key whose file names these costs; no passphrase opens it."""
    numbers = b"".join(der(0x02, cost.to_bytes(cost.bit_length() // 8 + 1, "big")) for cost in costs)
    scheme = der(0x30, kdf + der(0x30, der(0x04, bytes(16)) + numbers))
    cipher = der(0x30, bytes.fromhex("060960864801650304012a") + der(0x04, bytes(16)))
    algorithm = der(0x30, bytes.fromhex("06092a864886f70d01050d") + der(0x30, scheme + cipher))
    return pem("ENCRYPTED PRIVATE KEY", der(0x30, algorithm + der(0x04, bytes(64))))


def der(tag: int, content: bytes) -> bytes:
    length = bytes([len(content)]) if len(content) < 128 else bytes([0x81, len(content)])
    return bytes([tag]) + length + content


SCRYPT, PBKDF2 = bytes.fromhex("06092b06010401da47040b"), bytes.fromhex("06092a864886f70d01050c")


@pytest.mark.parametrize(
    ("kdf", "costs"),
    [
        (SCRYPT, (2**30, 8, 1)),
        (SCRYPT, (2**19, 8, 1)),
        (SCRYPT, (2**14, 2**20, 1)),
        (SCRYPT, (2**14, 8, 2**20)),
        (SCRYPT, (2**200, 8, 1)),
        (SCRYPT, (2**14, 8)),
        (PBKDF2, (2**31,)),
        (PBKDF2, (10_000_001, 32)),
    ],
    ids=str,
)
def test_a_file_that_asks_for_hours_is_refused_at_once(kdf: bytes, costs: tuple[int, ...]) -> None:
    with pytest.raises(InvalidKey, match="would take too long"):
        parse(encrypted(kdf, *costs))


@pytest.mark.parametrize(
    ("kdf", "costs"), [(SCRYPT, (2**14, 8, 1)), (PBKDF2, (2048,)), (PBKDF2, (600_000, 32))], ids=str
)
def test_usual_costs_are_let_through(kdf: bytes, costs: tuple[int, ...]) -> None:
    with pytest.raises(InvalidKey, match="wrong passphrase"):
        opened(encrypted(kdf, *costs))


@pytest.mark.parametrize(
    "body", [b"", b"0", b"\x30\x80" * 1000, b"\x30\x03\x30\x01\x00", b"\x30\x84\xff\xff\xff\xff", b"\x05\x00"]
)
def test_what_is_no_encrypted_key_inside_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidKey, match="cannot be read"):
        parse(pem("ENCRYPTED PRIVATE KEY", body))


def nested(depth: int) -> bytes:
    """Sequences in each other, from the outside to the inside."""
    layers = [b"\x30\x83" + (5 * level).to_bytes(3, "big") for level in range(depth, -1, -1)]
    return b"".join(layers)


def test_sequences_in_sequences_have_an_end() -> None:
    inner = nested(9_000)
    algorithm = b"\x30\x83" + len(inner).to_bytes(3, "big") + inner
    body = algorithm + b"\x04\x00"
    with pytest.raises(InvalidKey, match="cannot be read"):
        parse(pem("ENCRYPTED PRIVATE KEY", b"\x30\x83" + len(body).to_bytes(3, "big") + body))


def test_without_the_extra_a_key_of_cosign_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nacl.secret", None)
    with pytest.raises(InvalidKey, match=r"pip install 'casstore\[cosign\]'"):
        parse((COSIGN / "p256.key").read_bytes())


@given(st.binary(max_size=300), st.sampled_from(["PUBLIC KEY", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY"]))
def test_any_bytes_in_a_block_are_a_key_or_refused(body: bytes, label: str) -> None:
    with pytest.raises(InvalidKey):
        opened(pem(label, body))
    with pytest.raises(InvalidKey):
        PublicKey.parse(pem(label, body), name="k")


@given(st.binary(max_size=300))
def test_any_file_is_a_key_or_refused(raw: bytes) -> None:
    for read in (parse, lambda raw: PublicKey.parse(raw, name="k")):
        with pytest.raises(InvalidKey):
            read(raw)


# --- what stays private


@pytest.mark.parametrize("key", KEYS, ids=NAMES)
def test_a_private_key_does_not_show_itself(key: PrivateKey) -> None:
    shown = f"{key!r} {key} {key.public!r}"
    assert shown.count("PrivateKey(public=PublicKey(name=") == 2
    secret = "".join(key.to_pem(None).decode().splitlines()[1:-1])
    assert all(part not in shown for part in (secret[20:40], encoding.decode(secret, what="").hex()[40:60]))
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        copy.deepcopy(key)


# --- signatures


@given(data=st.binary(max_size=200), change=st.data())
def test_any_bit_that_changes_is_noticed(data: bytes, change: st.DataObject) -> None:
    key = change.draw(st.sampled_from(KEYS))
    signature = key.sign(data)
    assert key.public.verify(signature, data)
    for other in (data, signature):
        if other:
            bit = change.draw(st.integers(0, 2**16)) % (8 * len(other))  # ECDSA's have no constant length
            flipped = bytearray(other)
            flipped[bit // 8] ^= 1 << bit % 8
            assert not key.public.verify(*((signature, bytes(flipped)) if other is data else (bytes(flipped), data)))


@given(st.binary(max_size=200), st.binary(max_size=100))
def test_any_bytes_are_no_signature(data: bytes, signature: bytes) -> None:
    assert not any(key.public.verify(signature, data) for key in KEYS)


@pytest.mark.parametrize("form", ["long length", "trailing", "leading zero", "raw"])
def test_a_signature_of_ecdsa_has_one_form(form: str) -> None:
    """DER, not BER, and not the 64 bytes that other tools write: else one signature would be many."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    signature = P256.sign(b"data")
    body = signature[2:]
    r, s = decode_dss_signature(signature)
    forms = {
        "long length": b"\x30\x81" + bytes([len(body)]) + body,
        "trailing": signature + b"\0",
        "leading zero": b"\x30" + bytes([len(body) + 1]) + b"\x02" + bytes([body[1] + 1]) + b"\0" + body[2:],
        "raw": r.to_bytes(32, "big") + s.to_bytes(32, "big"),
    }
    assert not P256.public.verify(forms[form], b"data")


def test_the_signature_of_ed25519_is_that_of_openssl() -> None:
    """RFC 8032: it is the same each time."""
    data = (VECTORS / "statement.pae").read_bytes()
    assert ED25519.sign(data) == (VECTORS / "statement.sig").read_bytes()
    assert ED25519.public.verify((VECTORS / "statement.sig").read_bytes(), data)
