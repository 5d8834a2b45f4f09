"""The digests of a disk's content that a snapshot manifest can record, computed in one pass over its extents.

    spelling       recorded as                 digest of
    sha256         sha256                      all bytes of the file, holes as zeros
    sparse         msb-sparse-sha256-v1        a header, then per extent `D`, its offset, its length and its bytes
    sparse-zero    msb-sparse-sha256-v1        the same header, then all bytes of the file, holes as zeros
    blake3-merkle  msb-file-merkle-blake3-v1   a binary BLAKE3 tree over leaves of 64 KiB

microsandbox 0.4.4 to 0.5.7 records `sparse`; 0.5.8 and later write `sparse-zero` under the same name, so a recorded
msb-sparse-sha256-v1 may be either. `sparse` is a digest of the allocation as much as of the content: the same bytes in
other extents have another digest. The others do not depend on extents; plain `sha256` is what every version verifies.
"""

from __future__ import annotations

import hashlib
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final, Protocol

from blake3 import blake3

from casstore import spec
from casstore.errors import UnsupportedVersion, UsageError

SHA256: Final = spec.SHA256
SPARSE_SHA256: Final = spec.SPARSE_SHA256
MERKLE_BLAKE3: Final = spec.MERKLE_BLAKE3
LEAF: Final = spec.MERKLE_LEAF

_ZEROS: Final = memoryview(bytes(spec.MIB))
_SPARSE_PREFIX: Final = SPARSE_SHA256.encode() + b"\0"
_LEAF_PREFIX: Final = MERKLE_BLAKE3.encode() + b"\0leaf\0"
_PARENT_PREFIX: Final = MERKLE_BLAKE3.encode() + b"\0parent\0"
_ROOT_PREFIX: Final = MERKLE_BLAKE3.encode() + b"\0root\0"


class ContentHasher(Protocol):
    """A digest of a file's content, fed extent by extent in ascending order; what is between and after them is zeros.

    Wrong use (an extent out of order, past the file's end or empty, more or fewer bytes than it has) is a ValueError.
    """

    def begin_extent(self, offset: int, length: int, /) -> None:
        """The next `length` bytes passed to `update` stand at `offset`."""
        ...

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """The next bytes of the extent, in pieces of any length; a memoryview must be one of bytes."""
        ...

    def finish(self) -> str:
        """The digest, as recorded: `algorithm:<lower hex>`. Call it once, at the end."""
        ...


class _Hasher(ABC):
    """Keeps account of extents and holes, and leaves what they mean to the subclass."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0
        self._end = 0

    def begin_extent(self, offset: int, length: int) -> None:
        self._require_whole_extent()
        if length < 1 or offset < self._end or offset + length > self._size:
            raise ValueError(f"extent {offset}+{length}: expected one in {self._end} to {self._size}")
        self._hole(offset - self._end)
        self._at, self._end = offset, offset + length
        self._extent(offset, length)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) > self._end - self._at:
            raise ValueError(f"expected at most {self._end - self._at} more bytes of the extent, got {len(data)}")
        self._data(memoryview(data))
        self._at += len(data)

    def finish(self) -> str:
        self._require_whole_extent()
        self._hole(self._size - self._end)
        return self._digest()

    def _require_whole_extent(self) -> None:
        if self._at != self._end:
            raise ValueError(f"expected {self._end - self._at} more bytes of the extent")

    def _extent(self, offset: int, length: int) -> None:  # noqa: B027  (most have nothing to do)
        """An extent begins."""

    @abstractmethod
    def _hole(self, length: int) -> None:
        """`length` zeros, perhaps none."""

    @abstractmethod
    def _data(self, data: memoryview) -> None:
        """The next bytes of the extent, perhaps none."""

    @abstractmethod
    def _digest(self) -> str:
        """The digest, as recorded."""


class _Flat(_Hasher):
    """SHA-256 over a header and all bytes, holes as zeros."""

    def __init__(self, size: int, header: bytes = b"") -> None:
        super().__init__(size)
        self._sha256 = hashlib.sha256(header)

    def _hole(self, length: int) -> None:
        while length:
            part = min(length, len(_ZEROS))
            self._sha256.update(_ZEROS[:part])
            length -= part

    def _data(self, data: memoryview) -> None:
        self._sha256.update(data)

    def _digest(self) -> str:
        return f"sha256:{self._sha256.hexdigest()}"


class _Sparse(_Flat):
    """SHA-256 over a header and the extents, each with its place; nothing stands for a hole."""

    def _extent(self, offset: int, length: int) -> None:
        self._sha256.update(b"D" + struct.pack("<QQ", offset, length))

    def _hole(self, length: int) -> None:
        pass


class _Merkle(_Hasher):
    """The tree's root. Memory: one leaf's hash in the making, and one finished hash per level of the tree.

    The finished subtrees to the left of the next leaf are the ones bits of that leaf's number, as in a binary counter:
    a new subtree is joined with the one before it while both are of one height. A run of zero leaves is pushed as the
    largest subtrees that fit, whose hashes are known, so a hole of any length takes at most two steps per level.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._subtrees: list[tuple[int, bytes]] = []  # (height, hash), leftmost first
        self._leaves = 0
        self._leaf, self._filled = blake3(_LEAF_PREFIX), 0

    def _hole(self, length: int) -> None:
        if self._filled:
            part = min(length, LEAF - self._filled)
            self._data(_ZEROS[:part])
            length -= part
        self._push_zeros(length // LEAF)
        self._data(_ZEROS[: length % LEAF])

    def _data(self, data: memoryview) -> None:
        while data:
            part = data[: LEAF - self._filled]
            self._leaf.update(part)
            self._filled += len(part)
            data = data[len(part) :]
            if self._filled == LEAF:
                self._push(0, self._leaf.digest())
                self._leaf, self._filled = blake3(_LEAF_PREFIX), 0

    def _digest(self) -> str:
        self._hole(-self._size % LEAF)
        height = max(self._leaves - 1, 0).bit_length()
        self._push_zeros(2**height - self._leaves)
        [(_, top)] = self._subtrees
        root = blake3(_ROOT_PREFIX + struct.pack("<QII", self._size, LEAF, height) + top)
        return f"blake3:{root.hexdigest()}"

    def _push(self, height: int, subtree: bytes) -> None:
        self._leaves += 2**height
        while self._subtrees and self._subtrees[-1][0] == height:
            subtree = _parent(self._subtrees.pop()[1], subtree)
            height += 1
        self._subtrees.append((height, subtree))

    def _push_zeros(self, leaves: int) -> None:
        while leaves:
            fits = leaves.bit_length() - 1
            aligned = (self._leaves & -self._leaves).bit_length() - 1 if self._leaves else fits
            height = min(fits, aligned)
            self._push(height, _zero_subtree(height))
            leaves -= 2**height


def _parent(left: bytes, right: bytes) -> bytes:
    return blake3(_PARENT_PREFIX + left + right).digest()


@cache
def _zero_subtree(height: int) -> bytes:
    if height == 0:
        return blake3(_LEAF_PREFIX).update(_ZEROS[:LEAF]).digest()
    return _parent(_zero_subtree(height - 1), _zero_subtree(height - 1))


@dataclass(frozen=True, slots=True)
class Algorithm:
    """The name under which manifests record an algorithm, and what makes its hasher for a file of so many bytes."""

    recorded: str
    start: Callable[[int], ContentHasher]


def _sparse_header(size: int) -> bytes:
    return _SPARSE_PREFIX + struct.pack("<Q", size)


ALGORITHMS: Final[Mapping[str, Algorithm]] = MappingProxyType(
    {
        "sha256": Algorithm(SHA256, _Flat),
        "sparse": Algorithm(SPARSE_SHA256, lambda size: _Sparse(size, _sparse_header(size))),
        "sparse-zero": Algorithm(SPARSE_SHA256, lambda size: _Flat(size, _sparse_header(size))),
        "blake3-merkle": Algorithm(MERKLE_BLAKE3, _Merkle),
    }
)
"""By the spelling that the command line takes."""


def _algorithm(spelling: str) -> Algorithm:
    if spelling not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise UsageError(f"integrity algorithm {ascii(spelling[:40])}: expected one of {known}")
    return ALGORITHMS[spelling]


def hasher(spelling: str, size: int) -> ContentHasher:
    """Start to hash a file of `size` bytes, 0 to 2^64 - 1.

    Raises:
        UsageError: no such algorithm.
    """
    return _algorithm(spelling).start(size)


def recorded_name(spelling: str) -> str:
    """The name that a manifest records for an algorithm.

    Raises:
        UsageError: no such algorithm.
    """
    return _algorithm(spelling).recorded


def candidates(recorded: str, *, subject: str = "snapshot manifest") -> tuple[str, ...]:
    """The spellings of the algorithms that a recorded name may mean; one that gives the recorded digest is enough.

    Raises:
        UnsupportedVersion: none is known under this name.
    """
    found = tuple(spelling for spelling, algorithm in ALGORITHMS.items() if algorithm.recorded == recorded)
    if not found:
        problem = f"unsupported upper integrity algorithm: {ascii(recorded[:100])[1:-1]}"
        raise UnsupportedVersion(subject, problem, at="upper.integrity.algorithm")
    return found
