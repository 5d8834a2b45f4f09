"""The integrity algorithms against golden values of microsandbox and against naive implementations of their texts."""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from casstore.errors import UnsupportedVersion, UsageError
from casstore.integrity import ALGORITHMS, LEAF, ContentHasher, candidates, hasher, recorded_name
from tests.support.effort import at_most

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
BLOCK = 4096
BY_CONTENT = ("sha256", "sparse-zero", "blake3-merkle")

Extent = tuple[int, bytes]
HELLO_AT_8M: Extent = (8 * MIB, b"hello".ljust(BLOCK, b"\0"))


def digest(spelling: str, size: int, extents: Sequence[Extent], piece: int = MIB) -> str:
    hashing = hasher(spelling, size)
    for offset, data in extents:
        hashing.begin_extent(offset, len(data))
        for start in range(0, len(data), piece):
            hashing.update(data[start : start + piece])
    return hashing.finish()


# --- golden values ---------------------------------------------------------------------------------------------------

BYTES_768 = bytes(range(256)) * 768
SPARSE = [
    (0, [], "56ffc9cabb52975b3fa212d61cc53f5fa3b4ff87de8bd70b4ed4c156701e3931"),
    (5, [(0, b"hello")], "a485e2e59c100eeb2bfde5f0fd748d866bdafe8cc7bf9dfeb2fe701f13e27fa9"),
    (64 * MIB, [HELLO_AT_8M], "4544fdea104218d8a24ecb2aae1249d52fd580c8a1522c8cee8e1443dffc8292"),
    (64 * MIB, [], "0307ff9b384d9ce785f0e609f709f88f44ec34311b34113992949a063282aa14"),
    (4 * GIB, [], "ac163ce843a340c77bd569dddaf74cddc4faa4381259e84231ab11d3a416ceb9"),
    (65537, [(0, b"x" * 65537)], "cda6e7d758ca6e31bd7df22951acf65d2412c0e933c8abab89df82e667a14880"),
]
SPARSE_ZERO = [
    (0, [], "56ffc9cabb52975b3fa212d61cc53f5fa3b4ff87de8bd70b4ed4c156701e3931"),
    (5, [(0, b"hello")], "44f06831b5c16ea21c5207717ab31b9ad2044bd04b906ecf95ebdbc371d38530"),
    (64 * MIB, [HELLO_AT_8M], "e9145ae92e9a4951aea5de07a6f4d87100db2797ed85aea6907e7a92fa0b2249"),
    (64 * MIB, [], "14c633b1ee2abf2a97652ea30cca84e1e0997cf4576b52d2633e5509a9fb88d0"),
    (65537, [(0, b"x" * 65537)], "c2cdb54d8f99c5166078bd3ecf93d376c8153dab2796041868f575b443ea7afc"),
]
MERKLE = [
    (0, [], "1f44fec2aa3a7a1725f0f626b0599c99526f5a1e7f2817cd50b695597bce05fa"),
    (5, [(0, b"hello")], "733a84a145df6c2139c33096e7584c1d8f42b0b981ec7e847b1bf6db73bec941"),
    (64 * MIB, [HELLO_AT_8M], "5bcec0112888e9a09336b42e4bbedd9b3efb0c5e938831d92f9804fbf7eaa70c"),
    (64 * MIB, [], "fbae8e36ee02b82b10a4b231219005e263adba4db7fd22c57226a76c5caa02be"),
    (4 * GIB, [], "6b011fea0966edab68b820596d4662b665368228caf8d1a0945a18f44a6bdeb1"),
    (65537, [(0, b"x" * 65537)], "fb34501a14d7a153992bdae9243c84b8c9066618977d74be6d4d603c98b78b3b"),
    (len(BYTES_768), [(0, BYTES_768)], "1a5e9618b42b65818dbb11cf3c92ee03d04744281dcb4b76de1c4764f787ed93"),
]
GOLDEN = [
    *(
        (spelling, size, extents, f"sha256:{value}")
        for spelling, table in (("sparse", SPARSE), ("sparse-zero", SPARSE_ZERO))
        for size, extents, value in table
    ),
    *(("blake3-merkle", size, extents, f"blake3:{value}") for size, extents, value in MERKLE),
]


@pytest.mark.parametrize(("spelling", "size", "extents", "expected"), GOLDEN)
def test_golden(spelling: str, size: int, extents: list[Extent], expected: str) -> None:
    assert digest(spelling, size, extents) == expected


@pytest.mark.parametrize(
    ("size", "extents", "content"),
    [
        (0, [], b""),
        (5, [(0, b"hello")], b"hello"),
        (3 * MIB + 1, [(MIB, b"x")], bytes(MIB) + b"x" + bytes(2 * MIB)),
    ],
)
def test_sha256(size: int, extents: list[Extent], content: bytes) -> None:
    assert digest("sha256", size, extents) == f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.long
@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("sha256", hashlib.sha256()),
        ("sparse-zero", hashlib.sha256(b"msb-sparse-sha256-v1\0" + struct.pack("<Q", 4 * GIB))),
    ],
    ids=["sha256", "sparse-zero"],
)
def test_long_holes_are_hashed_in_full(spelling: str, expected: hashlib._Hash) -> None:
    zeros = bytes(16 * MIB)
    for _ in range(256):
        expected.update(zeros)
    assert digest(spelling, 4 * GIB, []) == f"sha256:{expected.hexdigest()}"


def test_merkle_skips_holes() -> None:
    """Exbibytes of hole in less time than one of its gibibytes takes to hash."""
    with at_most(5):
        one = digest("blake3-merkle", 2**64 - 1, [(2**63 - 5, b"0123456789")])
        other = digest("blake3-merkle", 2**64 - 1, [(2**63 - 5, b"0123456780")])
    assert one != other


# --- the texts of the algorithms, done the slow way ------------------------------------------------------------------


def content_of(size: int, extents: Sequence[Extent]) -> bytes:
    content = bytearray(size)
    for offset, data in extents:
        content[offset : offset + len(data)] = data
    return bytes(content)


def naive(spelling: str, size: int, extents: Sequence[Extent]) -> str:
    content = content_of(size, extents)
    header = b"msb-sparse-sha256-v1\0" + size.to_bytes(8, "little")
    if spelling == "sha256":
        return f"sha256:{hashlib.sha256(content).hexdigest()}"
    if spelling == "sparse-zero":
        return f"sha256:{hashlib.sha256(header + content).hexdigest()}"
    if spelling == "sparse":
        framed = (b"D" + o.to_bytes(8, "little") + len(d).to_bytes(8, "little") + d for o, d in extents)
        return f"sha256:{hashlib.sha256(header + b''.join(framed)).hexdigest()}"
    name = b"msb-file-merkle-blake3-v1\0"
    count = max(1, -(-size // 65536))
    height = 0
    while 2**height < count:
        height += 1
    padded = content.ljust(65536 * 2**height, b"\0")
    row = [blake3(name + b"leaf\0" + padded[i : i + 65536]).digest() for i in range(0, len(padded), 65536)]
    while len(row) > 1:
        pairs = zip(row[::2], row[1::2], strict=True)
        row = [blake3(name + b"parent\0" + left + right).digest() for left, right in pairs]
    tail = size.to_bytes(8, "little") + (65536).to_bytes(4, "little") + height.to_bytes(4, "little") + row[0]
    return f"blake3:{blake3(name + b'root' + bytes(1) + tail).hexdigest()}"


@st.composite
def contents(draw: st.DrawFn) -> tuple[int, list[Extent]]:
    """A file of a few leaves: gaps of any length (also none) and extents, some of zeros only."""
    lengths = st.integers(0, 2 * LEAF) | st.sampled_from([0, 1, BLOCK, LEAF - 1, LEAF, LEAF + 1, 2 * LEAF])
    extents: list[Extent] = []
    at = 0
    for _ in range(draw(st.integers(0, 4))):
        at += draw(lengths)
        data = draw(st.sampled_from([b"\0", b"x", b"\0\0y", bytes(range(256))]))
        length = draw(lengths.filter(bool))
        extents.append((at, (data * (length // len(data) + 1))[:length]))
        at += length
    return at + draw(lengths), extents


@given(contents(), st.sampled_from(sorted(ALGORITHMS)), st.randoms(use_true_random=False))
def test_pieces_do_not_matter(content: tuple[int, list[Extent]], spelling: str, rng: Random) -> None:
    size, extents = content
    hashing = hasher(spelling, size)
    for offset, data in extents:
        hashing.begin_extent(offset, len(data))
        start = 0
        while start < len(data):
            piece = data[start : start + rng.choice([0, 1, 100, BLOCK, LEAF - 1, LEAF, LEAF + 1, 3 * LEAF])]
            hashing.update(rng.choice([bytes, bytearray, memoryview])(piece))
            start += len(piece)
    assert hashing.finish() == naive(spelling, size, extents)


@given(contents(), st.lists(st.integers(0, 9 * LEAF), max_size=6))
def test_extents_do_not_matter_but_to_sparse(content: tuple[int, list[Extent]], cuts: list[int]) -> None:
    """Zeros in an extent, a hole, one extent or several: the same content."""
    size, extents = content
    whole = content_of(size, extents)
    edges = sorted({0, size, *(cut for cut in cuts if cut < size)})
    pieces = [(a, whole[a:b]) for a, b in pairwise(edges)]
    for spelling in BY_CONTENT:
        expected = digest(spelling, size, extents)
        assert digest(spelling, size, pieces) == expected
        assert digest(spelling, size, [piece for piece in pieces if any(piece[1])]) == expected


@given(st.integers(1, 10**6), st.integers(1, 100), st.integers(1, 100))
def test_sparse_takes_extents_as_given(offset: int, first: int, second: int) -> None:
    data = b"x" * (first + second)
    size = offset + len(data)
    assert digest("sparse", size, [(offset, data)]) != digest(
        "sparse", size, [(offset, data[:first]), (offset + first, data[first:])]
    )


@pytest.mark.parametrize("spelling", ALGORITHMS)
@pytest.mark.parametrize("change", ["byte", "size", "place"])
def test_every_change_changes_the_digest(spelling: str, change: str) -> None:
    data = b"x" * 100
    before = digest(spelling, 3 * LEAF, [(LEAF, data)])
    after = {
        "byte": (3 * LEAF, [(LEAF, data[:-1] + b"y")]),
        "size": (3 * LEAF + 1, [(LEAF, data)]),
        "place": (3 * LEAF, [(LEAF + 1, data)]),
    }[change]
    assert digest(spelling, *after) != before


# --- a real file -----------------------------------------------------------------------------------------------------


def scan(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Extents (offset, length) as microsandbox finds them."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            assert error.errno == errno.ENXIO  # noqa: PT017  (the end of the data is what is expected here)
            return
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, at - start


def test_a_sparse_file(tmp_path: Path) -> None:
    path = tmp_path / "upper.ext4"
    size = 5 * MIB + 17
    with path.open("wb") as file:
        for offset, data in [(0, b"superblock"), (MIB, b"x" * 70000), (4 * MIB, b"tail")]:
            file.seek(offset)
            file.write(data)
        file.truncate(size)
        os.fsync(file.fileno())
    with path.open("rb") as file:
        extents = [(offset, os.pread(file.fileno(), length, offset)) for offset, length in scan(file.fileno(), size)]
    assert digest("sha256", size, extents) == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    for spelling in ALGORITHMS:
        assert digest(spelling, size, extents, piece=1000) == naive(spelling, size, extents)


# --- use -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ALGORITHMS)
def test_wrong_use(spelling: str) -> None:
    def begun() -> ContentHasher:
        hashing = hasher(spelling, 100)
        hashing.begin_extent(10, 5)
        return hashing

    with pytest.raises(ValueError, match="expected 5 more bytes"):
        begun().finish()
    with pytest.raises(ValueError, match="expected 5 more bytes"):
        begun().begin_extent(20, 1)
    with pytest.raises(ValueError, match="at most 5 more bytes of the extent, got 6"):
        begun().update(b"123456")
    with pytest.raises(ValueError, match="at most 0 more bytes"):
        hasher(spelling, 100).update(b"x")
    for offset, length in [(14, 1), (0, 1), (-1, 1), (20, 0), (20, -1), (96, 5), (100, 1)]:
        hashing = begun()
        hashing.update(b"12345")
        with pytest.raises(ValueError, match=rf"extent {offset}\+{length}: expected one in 15 to 100"):
            hashing.begin_extent(offset, length)


def test_registry() -> None:
    assert {spelling: recorded_name(spelling) for spelling in ALGORITHMS} == {
        "sha256": "sha256",
        "sparse": "msb-sparse-sha256-v1",
        "sparse-zero": "msb-sparse-sha256-v1",
        "blake3-merkle": "msb-file-merkle-blake3-v1",
    }
    assert candidates("sha256") == ("sha256",)
    assert candidates("msb-sparse-sha256-v1") == ("sparse", "sparse-zero")
    assert candidates("msb-file-merkle-blake3-v1") == ("blake3-merkle",)


@pytest.mark.parametrize("name", ["md5", "", "SHA256", "sparse", "msb-sparse-sha256-v1\n"])
def test_unknown_recorded_name(name: str) -> None:
    with pytest.raises(UnsupportedVersion) as caught:
        candidates(name, subject="m.json")
    assert caught.value.problem == f"unsupported upper integrity algorithm: {name.strip()}" + "\\n" * name.endswith(
        "\n"
    )
    assert str(caught.value).startswith("m.json: ")


@pytest.mark.parametrize("spelling", ["md5", "", "msb-sparse-sha256-v1"])
def test_unknown_spelling(spelling: str) -> None:
    with pytest.raises(UsageError, match="expected one of sha256, sparse, sparse-zero, blake3-merkle"):
        hasher(spelling, 1)
    with pytest.raises(UsageError, match="integrity algorithm '"):
        recorded_name(spelling)
