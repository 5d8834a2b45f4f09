"""cosign's encrypted private keys: PKCS#8 in a NaCl secretbox, under a key that scrypt makes of the passphrase.

    {"kdf": {"name": "scrypt", "params": {"N": 65536, "r": 8, "p": 1}, "salt": base64},
     "cipher": {"name": "nacl/secretbox", "nonce": base64}, "ciphertext": base64}

The file says how much memory and time scrypt takes, so nothing but what cosign's own versions have written is run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from casstore.errors import DocumentError, InvalidKey
from casstore.jsondoc import load_object
from casstore.signatures import encoding

COSTS: Final = (2**15, 2**16, 2**17)
"""scrypt's N; 32, 64 and 128 MiB."""

_R, _P = 8, 1
_NONCE, _TAG = 24, 16
_MEMORY = 256 * 1024 * 1024


def decrypt(raw: bytes, passphrase: Callable[[], bytes], *, name: str) -> bytes:
    """The PKCS#8 DER inside; `raw` is the JSON document.

    Raises:
        InvalidKey: another document, other costs of scrypt, a wrong passphrase, or PyNaCl is not installed.
    """
    cost, salt, nonce, secret = _read(raw, name=name)
    try:
        from nacl.exceptions import CryptoError
        from nacl.secret import SecretBox
    except ImportError:
        raise InvalidKey(
            f"key {name!r}: PyNaCl is needed to open keys that cosign has encrypted: pip install 'casstore[cosign]'"
        ) from None
    key = hashlib.scrypt(passphrase(), salt=salt, n=cost, r=_R, p=_P, maxmem=_MEMORY, dklen=SecretBox.KEY_SIZE)
    try:
        return bytes(SecretBox(key).decrypt(secret, nonce))
    except CryptoError:
        raise InvalidKey(f"key {name!r}: wrong passphrase, or a damaged key") from None


def _read(raw: bytes, *, name: str) -> tuple[int, bytes, bytes, bytes]:
    """N of scrypt, the salt, the nonce and the ciphertext."""
    try:
        document = load_object(raw, subject=name, limit=len(raw))
        kdf, cipher, params = document["kdf"], document["cipher"], document["kdf"]["params"]
        names = kdf["name"], cipher["name"]
        salt = encoding.decode(kdf["salt"], what="salt")
        nonce = encoding.decode(cipher["nonce"], what="nonce")
        secret = encoding.decode(document["ciphertext"], what="ciphertext")
        costs = params["N"], params["r"], params["p"]
    except (DocumentError, ValueError, KeyError, TypeError):
        raise InvalidKey(f"key {name!r}: expected a key as cosign encrypts it, got something else") from None
    if names != ("scrypt", "nacl/secretbox"):
        raise InvalidKey(f"key {name!r}: expected scrypt and nacl/secretbox, got {ascii(names)[:100]}")
    if costs not in [(n, _R, _P) for n in COSTS]:
        raise InvalidKey(
            f"key {name!r}: expected scrypt with N of 32768, 65536 or 131072, r of 8 and p of 1,"
            f" got {ascii(costs)[:100]}"
        )
    if len(salt) not in range(16, 65) or len(nonce) != _NONCE or len(secret) <= _TAG:
        raise InvalidKey(f"key {name!r}: expected a salt of 16 to 64 bytes, a nonce of {_NONCE} and a ciphertext")
    return costs[0], salt, nonce, secret
