"""Make fixtures/signatures/cosign-keys, without casstore and without any Python package:

    python3 tests/programs/cosign_keys.py

scrypt and secretbox are libsodium's, called through ctypes; the keys inside are made by openssl. Each run makes other
keys.
"""

from __future__ import annotations

import base64
import ctypes
import ctypes.util
import json
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).parents[2] / "fixtures/signatures/cosign-keys"
PASSPHRASE = b"correct horse"
P256 = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
P384 = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384")

sodium = ctypes.CDLL(ctypes.util.find_library("sodium") or "libsodium.so.23")


def scrypt(passphrase: bytes, salt: bytes, n: int) -> bytes:
    """32 bytes; r = 8 and p = 1."""
    key = ctypes.create_string_buffer(32)
    words = passphrase, ctypes.c_size_t(len(passphrase)), salt, ctypes.c_size_t(len(salt))
    costs = ctypes.c_uint64(n), ctypes.c_uint32(8), ctypes.c_uint32(1)
    assert sodium.crypto_pwhash_scryptsalsa208sha256_ll(*words, *costs, key, ctypes.c_size_t(32)) == 0
    return key.raw


def secretbox(plain: bytes, nonce: bytes, key: bytes) -> bytes:
    secret = ctypes.create_string_buffer(len(plain) + 16)
    assert sodium.crypto_secretbox_easy(secret, plain, ctypes.c_ulonglong(len(plain)), nonce, key) == 0
    return secret.raw


def openssl(*words: str, data: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *words], input=data, capture_output=True, check=True).stdout


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def make(name: str, label: str, n: int, passphrase: bytes, *genpkey: str) -> None:
    made = openssl("genpkey", *genpkey, "-outform", "DER")
    (HERE / f"{name}.pub").write_bytes(openssl("pkey", "-inform", "DER", "-pubout", data=made))
    plain = openssl("pkcs8", "-topk8", "-nocrypt", "-inform", "DER", "-outform", "DER", data=made)
    salt, nonce = os.urandom(32), os.urandom(24)
    document = {
        "kdf": {"name": "scrypt", "params": {"N": n, "r": 8, "p": 1}, "salt": text(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": text(nonce)},
        "ciphertext": text(secretbox(plain, nonce, scrypt(passphrase, salt, n))),
    }
    body = text(json.dumps(document, separators=(",", ":")).encode())
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    pem = "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])
    (HERE / f"{name}.key").write_text(pem)


assert sodium.sodium_init() >= 0
make("p256", "ENCRYPTED SIGSTORE PRIVATE KEY", 2**16, PASSPHRASE, *P256)
make("p256-old", "ENCRYPTED COSIGN PRIVATE KEY", 2**15, PASSPHRASE, *P256)
make("ed25519", "ENCRYPTED SIGSTORE PRIVATE KEY", 2**17, PASSPHRASE, "-algorithm", "ED25519")
make("empty", "ENCRYPTED SIGSTORE PRIVATE KEY", 2**16, b"", *P256)
make("p384", "ENCRYPTED SIGSTORE PRIVATE KEY", 2**15, PASSPHRASE, *P384)
