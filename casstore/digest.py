"""Digests: `sha256:<64 lower hex>` names stored bytes, 32 raw BLAKE3 bytes name plain chunks.

`Digest.parse` is the only way from outside text to a Digest, so a Digest is always safe in a path or URL.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import NewType, Self

from casstore.errors import InvalidDigest

ChunkId = NewType("ChunkId", bytes)
"""BLAKE3-256 of a chunk's plain bytes; 32 bytes."""

_SHA256 = re.compile(r"sha256:([0-9a-f]{64})\Z", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A sha256 digest; `hex` is 64 lower-case hexadecimal digits. Use `parse` or `of`, which check."""

    hex: str

    @classmethod
    def parse(cls, text: object, *, subject: str = "digest") -> Self:
        """Parse `sha256:<64 lower hex>`.

        Raises:
            InvalidDigest: any other text, type, case, length or algorithm.
        """
        match = _SHA256.match(text) if isinstance(text, str) else None
        if match is None:
            shown = ascii(text)[:100]
            raise InvalidDigest(f"{subject}: expected sha256:<64 lower-case hex digits>, got {shown}")
        return cls(match[1])

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """The digest of `data`."""
        return cls(hashlib.sha256(data).hexdigest())

    @classmethod
    def from_raw(cls, raw: bytes) -> Self:
        """The digest whose 32 raw bytes are `raw`.

        Raises:
            InvalidDigest: they are not 32.
        """
        if len(raw) != 32:
            raise InvalidDigest(f"digest: expected 32 bytes, got {len(raw)}")
        return cls(raw.hex())

    @property
    def raw(self) -> bytes:
        """The 32 raw bytes."""
        return bytes.fromhex(self.hex)

    @property
    def short(self) -> str:
        """`sha256:` and the first 12 hexadecimal digits, for people."""
        return f"sha256:{self.hex[:12]}"

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
