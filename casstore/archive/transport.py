"""The digest of a member in archive.json: BLAKE3 over what it is, its name, sizes and ranges, and its stored bytes."""

from __future__ import annotations

import struct
from typing import Final

from blake3 import blake3

from casstore.frame import Buffer
from casstore.tar.sparse import Ranges

ALGORITHM: Final = "msb-archive-member-blake3-v1"


class Transport:
    """The digest of a member whose stored bytes are passed to `update`."""

    def __init__(self, kind: str, path: str, stored: int, size: int, ranges: Ranges | None) -> None:
        self._hash = blake3(ALGORITHM.encode() + b"\0")
        for text in (kind.encode(), path.encode()):
            self._hash.update(struct.pack("<Q", len(text)) + text)
        count = 0 if ranges is None else len(ranges)
        self._hash.update(struct.pack("<QQQ", stored, size, count))
        if ranges is not None:
            self._hash.update(ranges.astype("<u8").tobytes())

    def update(self, data: Buffer) -> None:
        """The next stored bytes."""
        self._hash.update(data)

    def finish(self) -> str:
        """The digest: `blake3:<hex>`."""
        return f"blake3:{self._hash.hexdigest()}"

    @classmethod
    def of(cls, kind: str, path: str, data: bytes) -> str:
        """The digest of a file without holes."""
        transport = cls(kind, path, len(data), len(data), None)
        transport.update(data)
        return transport.finish()
