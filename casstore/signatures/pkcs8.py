"""Private keys encrypted as PKCS#8 wants it (RFC 5958), with scrypt (RFC 7914) and AES-256-CBC (RFC 8018).

Written here, as `cryptography` reads this form but writes another, whose PBKDF2 of 2,048 rounds a guesser gets through
some ten thousand times faster. OpenSSL refuses scrypt that takes more than 32 MiB, so it is p that makes it slow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import prod
from typing import Final

SCRYPT_N: Final = 2**14
SCRYPT_R: Final = 8
SCRYPT_P: Final = 5
"""16 MiB and a quarter of a second: what OWASP takes for as strong as its first choice, N = 2^17 with p = 1."""

MAX_MEMORY: Final = 256 * 1024 * 1024
"""Bytes that scrypt may take, for a key that others have encrypted."""
MAX_ROUNDS: Final = 10_000_000
"""Rounds of PBKDF2, likewise, and a bound of N * r * p of scrypt: some seconds."""

_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30


def encrypt(der: bytes, passphrase: bytes) -> bytes:
    """An EncryptedPrivateKeyInfo of the PrivateKeyInfo `der`, both DER."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES256
    from cryptography.hazmat.primitives.ciphers.modes import CBC
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    from cryptography.hazmat.primitives.padding import PKCS7

    salt, start = os.urandom(16), os.urandom(16)
    key = Scrypt(salt, 32, SCRYPT_N, SCRYPT_R, SCRYPT_P).derive(passphrase)
    padder, encryptor = PKCS7(128).padder(), Cipher(AES256(key), CBC(start)).encryptor()
    secret = encryptor.update(padder.update(der) + padder.finalize()) + encryptor.finalize()
    costs = b"".join(_der(_INTEGER, _integer(cost)) for cost in (SCRYPT_N, SCRYPT_R, SCRYPT_P))
    kdf = _der(_SEQUENCE, _SCRYPT + _der(_SEQUENCE, _der(_OCTETS, salt) + costs))
    cipher = _der(_SEQUENCE, _AES_256_CBC + _der(_OCTETS, start))
    algorithm = _der(_SEQUENCE, _PBES2 + _der(_SEQUENCE, kdf + cipher))
    return _der(_SEQUENCE, algorithm + _der(_OCTETS, secret))


def is_too_costly(der: bytes) -> bool:
    """Whether to decrypt an EncryptedPrivateKeyInfo takes more than a key is worth. The file says how much that is, and
    `cryptography` would believe it.

    Raises:
        ValueError: it is no such thing.
    """
    try:
        ((_, info),) = _elements(der)
        (_, algorithm), _ = _elements(info)
        numbers = list(_integers(algorithm))
    except (IndexError, RecursionError):
        raise ValueError("expected an EncryptedPrivateKeyInfo") from None
    if _SCRYPT in algorithm:
        return len(numbers) < 3 or 128 * numbers[0] * numbers[1] > MAX_MEMORY or prod(numbers[:3]) > MAX_ROUNDS
    return any(number > MAX_ROUNDS for number in numbers)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of a DER sequence: tag and content. Raises IndexError and ValueError."""
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size & 0x80:
            more = size & 0x7F
            size = int.from_bytes(data[at : at + more], "big")
            at += more
        if at + size > len(data):
            raise ValueError("cut off")
        yield tag, data[at : at + size]
        at += size


def _integers(data: bytes) -> Iterator[int]:
    for tag, content in _elements(data):
        if tag == _SEQUENCE:
            yield from _integers(content)
        elif tag == _INTEGER:
            yield int.from_bytes(content, "big")


def _integer(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big")


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
