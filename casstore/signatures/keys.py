"""Keys: ECDSA on P-256 with SHA-256 (signatures in DER), and Ed25519. Other curves and RSA are refused.

A public key is a PEM file with one SubjectPublicKeyInfo. A private key is one of PKCS#8, plain or encrypted, or what
cosign writes (`cosignkey`). What is private is in no repr and in no error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self

from casstore.digest import Digest
from casstore.errors import InvalidKey
from casstore.signatures import encoding

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Kind = Literal["ecdsa-p256", "ed25519"]
KINDS: Final[tuple[Kind, ...]] = ("ecdsa-p256", "ed25519")

MAX_KEY_FILE: Final = 64 * 1024
"""Bytes of a file that may be a key."""
MAX_PASSPHRASE: Final = 1023
"""Bytes: more, and OpenSSL could not open what was written."""

# The one DER form of a key on P-256 (uncompressed point) and of an Ed25519 key: a prefix, then the key's bytes.
_SPKI: Final[tuple[tuple[Kind, bytes, int], ...]] = (
    ("ecdsa-p256", bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"), 64),
    ("ed25519", bytes.fromhex("302a300506032b6570032100"), 32),
)
_FIELD = 2**255 - 19
_WEAK = frozenset(
    {
        0,
        1,
        _FIELD - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    }
)
"""Of the points of small order on Ed25519's curve: with one of them as the key everybody can sign."""
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----([A-Za-z0-9+/=\s]*)-----END \1-----", re.ASCII)
_COSIGN = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
_SUPPORTED = "expected a key of ECDSA P-256 or Ed25519"
_MAKE = "casstore key generate makes one"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key. Two are equal if the keys are, whatever they are called. Use `parse`, which checks."""

    name: str = field(compare=False)
    """What messages call it: its file, or its name in a policy."""
    spki: bytes = field(repr=False)
    """The SubjectPublicKeyInfo in DER, in its one form."""

    @classmethod
    def parse(cls, raw: bytes, *, name: str) -> Self:
        """Read a PEM file with one public key.

        Raises:
            InvalidKey: no PEM, several keys, a private key, a certificate, or a kind that is not supported.
        """
        label, body = _pem(raw, name=name, expected="a public key")
        if label.endswith("PRIVATE KEY"):
            raise InvalidKey(
                f"key {name!r}: expected a public key, got a private one; casstore key public writes the public part"
            )
        if label != "PUBLIC KEY":
            raise InvalidKey(f"key {name!r}: expected a public key (BEGIN PUBLIC KEY), got BEGIN {label}")
        from cryptography.exceptions import InternalError, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        try:
            loaded = load_der_public_key(_der(body, name=name))
        except (ValueError, UnsupportedAlgorithm, InternalError):
            raise InvalidKey(f"key {name!r}: {_SUPPORTED}, got one that cannot be read") from None
        return cls(name, _canonical(loaded, name=name))

    @property
    def kind(self) -> Kind:
        """The algorithm."""
        return next(kind for kind, prefix, size in _SPKI if _has_form(self.spki, prefix, size))

    @property
    def fingerprint(self) -> Digest:
        """The sha256 of `spki`, which names the key."""
        return Digest.of(self.spki)

    @property
    def hint(self) -> str:
        """What bundles call the key: the fingerprint in base64."""
        return encoding.encode(self.fingerprint.raw)

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Whether this key made `signature` over `data`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.hashes import SHA256

        key = _loaded(self.spki)
        try:
            if isinstance(key, Ed25519PublicKey):
                key.verify(signature, data)
            else:
                key.verify(signature, data, ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True

    def to_pem(self) -> bytes:
        """As a PEM file, which `parse` and every other tool reads."""
        return _to_pem("PUBLIC KEY", self.spki)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key. Use `generate` or `parse`."""

    public: PublicKey
    _key: EllipticCurvePrivateKey | Ed25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def generate(cls, kind: Kind, *, name: str = "new key") -> Self:
        """A new key."""
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls._of(
            generate_private_key(SECP256R1()) if kind == "ecdsa-p256" else Ed25519PrivateKey.generate(), name
        )

    @classmethod
    def parse(cls, raw: bytes, *, name: str, passphrase: Callable[[], bytes]) -> Self:
        """Read a PEM file with one private key; `passphrase` is called once if it is encrypted, else not at all.

        Raises:
            InvalidKey: no PEM, several keys, a public key, a wrong passphrase, a kind that is not supported, or one of
                cosign's keys while PyNaCl is not installed.
        """
        label, body = _pem(raw, name=name, expected="a private key")
        if label == "PUBLIC KEY":
            raise InvalidKey(f"key {name!r}: expected a private key, got a public one, which only verifies")
        if label in {"EC PRIVATE KEY", "RSA PRIVATE KEY", "DSA PRIVATE KEY", "OPENSSH PRIVATE KEY"}:
            advice = "openssl pkcs8 -topk8 converts keys of ECDSA P-256" if label.startswith("EC") else _MAKE
            raise InvalidKey(f"key {name!r}: expected a key in PKCS#8 (BEGIN PRIVATE KEY), got BEGIN {label}; {advice}")
        if label not in {"PRIVATE KEY", "ENCRYPTED PRIVATE KEY", *_COSIGN}:
            raise InvalidKey(f"key {name!r}: expected a private key, got BEGIN {label}")
        der = _der(body, name=name)
        word: bytes | None = None
        if label in _COSIGN:
            from casstore.signatures import cosignkey

            der = cosignkey.decrypt(der, passphrase, name=name)
        elif label == "ENCRYPTED PRIVATE KEY":
            _refuse_costs(der, name=name)
            word = passphrase()
        return cls._of(_load(der, word, name=name), name)

    @classmethod
    def _of(cls, loaded: Any, name: str) -> Self:
        return cls(PublicKey(name, _canonical(loaded.public_key(), name=name)), loaded)

    def sign(self, data: bytes) -> bytes:
        """Sign `data`: DER of 70 to 72 bytes for ECDSA, 64 bytes for Ed25519."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.hashes import SHA256

        if isinstance(self._key, Ed25519PrivateKey):
            return self._key.sign(data)
        return self._key.sign(data, ECDSA(SHA256()))

    def to_pem(self, passphrase: bytes | None) -> bytes:
        """As a PEM file of PKCS#8, encrypted unless `passphrase` is None.

        Raises:
            InvalidKey: the passphrase is empty or longer than 1,023 bytes.
        """
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        der = self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        if passphrase is None:
            return _to_pem("PRIVATE KEY", der)
        if not 1 <= len(passphrase) <= MAX_PASSPHRASE:
            raise InvalidKey(
                f"key {self.public.name!r}: expected a passphrase of 1 to {MAX_PASSPHRASE} bytes, got {len(passphrase)}"
            )
        from casstore.signatures import pkcs8

        return _to_pem("ENCRYPTED PRIVATE KEY", pkcs8.encrypt(der, passphrase))

    def __reduce__(self) -> NoReturn:
        raise TypeError("private keys are not pickled")


def is_private(raw: bytes) -> bool:
    """Whether a file looks like a private key of any kind."""
    return re.search(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----", raw[:MAX_KEY_FILE]) is not None


def is_encrypted(raw: bytes) -> bool:
    """Whether a file looks like an encrypted private key."""
    return re.search(rb"-----BEGIN ENCRYPTED [A-Z0-9 ]*PRIVATE KEY-----", raw[:MAX_KEY_FILE]) is not None


def _pem(raw: bytes, *, name: str, expected: str) -> tuple[str, bytes]:
    """The label and the base64 of the only PEM block in a file."""
    if len(raw) > MAX_KEY_FILE:
        raise InvalidKey(f"key {name!r}: expected {expected}, got more than {MAX_KEY_FILE} bytes")
    blocks = _PEM.findall(raw)
    if raw.count(b"-----BEGIN") != len(blocks) or not blocks:
        raise InvalidKey(f"key {name!r}: expected {expected} as PEM (-----BEGIN ...), got something else")
    keys = [block for block in blocks if block[0] != b"EC PARAMETERS"]  # openssl ecparam writes them before a key
    if len(keys) != 1:
        raise InvalidKey(f"key {name!r}: expected {expected}, got {len(keys)} keys in one file; keep one per file")
    label, body = keys[0]
    return label.decode("ascii"), body


def _der(body: bytes, *, name: str) -> bytes:
    try:
        return encoding.decode(b"".join(body.split()).decode("ascii"), what="")
    except ValueError:
        raise InvalidKey(f"key {name!r}: expected base64 between BEGIN and END, got something else") from None


def _refuse_costs(der: bytes, *, name: str) -> None:
    """Raise InvalidKey for an encrypted key that would take very long to open, or very much memory."""
    from casstore.signatures.pkcs8 import is_too_costly

    try:
        costly = is_too_costly(der)
    except ValueError:
        raise InvalidKey(f"key {name!r}: {_SUPPORTED}, got one that cannot be read") from None
    if costly:
        raise InvalidKey(f"key {name!r}: to open this key would take too long, or too much memory; encrypt it anew")


def _load(der: bytes, passphrase: bytes | None, *, name: str) -> Any:
    from cryptography.exceptions import InternalError, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    try:
        return load_der_private_key(der, passphrase)
    # The texts of these may say what was inside. InternalError: OpenSSL's, of a key of X448 that is too short.
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        if passphrase is None:
            raise InvalidKey(f"key {name!r}: {_SUPPORTED}, got one that cannot be read") from None
        raise InvalidKey(f"key {name!r}: wrong passphrase, or a damaged key") from None


@lru_cache(256)
def _loaded(spki: bytes) -> EllipticCurvePublicKey | Ed25519PublicKey:
    """A key as `cryptography` has it; to make that takes longer than to verify with it."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(spki)
    assert isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey)  # noqa: S101  (`_canonical` lets no other through)
    return key


def _canonical(loaded: Any, *, name: str) -> bytes:
    """The DER of a public key as `cryptography` holds it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    spki: bytes = loaded.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if not any(_has_form(spki, prefix, size) for _, prefix, size in _SPKI):
        curve = getattr(loaded, "curve", None)
        got = type(loaded).__name__.removeprefix("_").removesuffix("PublicKey") if curve is None else curve.name
        raise InvalidKey(f"key {name!r}: {_SUPPORTED}, got {got}")
    if _is_weak(spki):
        raise InvalidKey(f"key {name!r}: {_SUPPORTED}, got one that is nobody's: everybody could sign for it")
    return spki


def _is_weak(spki: bytes) -> bool:
    """Whether a key of Ed25519 is a point that nobody needs a private key for, or a number that no point has; OpenSSL
    takes both.
    """
    _, prefix, size = _SPKI[1]
    y = int.from_bytes(spki[len(prefix) :], "little") % 2**255
    return _has_form(spki, prefix, size) and (y >= _FIELD or y in _WEAK)


def _has_form(spki: bytes, prefix: bytes, size: int) -> bool:
    return spki.startswith(prefix) and len(spki) == len(prefix) + size


def _to_pem(label: str, der: bytes) -> bytes:
    text = encoding.encode(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()
