"""Digests (fault 57): what is no digest never becomes one, so it never reaches a path or a URL."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.digest import Digest
from casstore.errors import InvalidDigest

HEX = "0123456789abcdef" * 4


def test_parse() -> None:
    digest = Digest.parse(f"sha256:{HEX}")
    assert digest == Digest(HEX)
    assert str(digest) == f"sha256:{HEX}"
    assert digest.short == "sha256:0123456789ab"
    assert digest.raw == bytes.fromhex(HEX)


@pytest.mark.parametrize(
    "text",
    [
        *("", "sha256", "sha256:", HEX, f":{HEX}", f"sha256{HEX}", f"SHA256:{HEX}", f"sha256-{HEX}"),
        *(f"sha256:{HEX.upper()}", f"sha256:{HEX[:-1]}", f"sha256:{HEX}0", f"sha256:{HEX[:-1]}g"),
        *(f"sha256:{HEX}\n", f"\nsha256:{HEX}", f" sha256:{HEX}", f"sha256:{HEX}\0", f"sha256:{HEX} "),
        *(f"sha512:{HEX}", f"sha512:{HEX}{HEX}", f"md5:{HEX[:32]}", f"sha256+b64:{HEX}"),
        *("sha256:../../../../etc/passwd", "sha256:" + "../" * 21 + "x", f"sha256:{HEX[:-2]}%2"),
        *("sha256:" + "\u0660" * 64, "sha256:" + "\uff10" * 64, f"\u0455ha256:{HEX}", f"sha256\uff1a{HEX}"),
        *(None, 5, True, b"sha256:" + HEX.encode(), [f"sha256:{HEX}"]),
    ],
    ids=ascii,
)
def test_refused(text: object) -> None:
    with pytest.raises(InvalidDigest, match=r"^layer: expected sha256:<64 lower-case hex digits>, got ") as caught:
        Digest.parse(text, subject="layer")
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


@given(st.text(max_size=80) | st.text("sha256:0f\n", min_size=60, max_size=80))
def test_only_digests_parse(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except InvalidDigest:
        return
    assert str(digest) == text
    assert len(text) == 71
    assert set(digest.hex) <= set("0123456789abcdef")


@given(st.binary(max_size=100))
def test_of(data: bytes) -> None:
    expected = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert str(Digest.of(data)) == str(Digest.of(bytearray(data))) == str(Digest.of(memoryview(data))) == expected
    assert Digest.parse(expected) == Digest.of(data)


@given(st.binary(min_size=32, max_size=32))
def test_raw(raw: bytes) -> None:
    assert Digest.from_raw(raw).raw == raw
    assert Digest.parse(str(Digest.from_raw(raw))).raw == raw


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_raw_has_32_bytes(length: int) -> None:
    with pytest.raises(InvalidDigest, match=f"expected 32 bytes, got {length}"):
        Digest.from_raw(bytes(length))


def test_digests_sort_and_hash() -> None:
    one, two = Digest("0" * 64), Digest("1" * 64)
    assert sorted([two, one]) == [one, two]
    assert len({one, Digest("0" * 64)}) == 1
