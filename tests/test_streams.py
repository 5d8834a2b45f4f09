"""The verifying reader: exactly the content of a descriptor, or an error, and never a full length of wrong bytes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.digest import Digest
from casstore.errors import CorruptContent, DigestMismatch, NotFound, SizeMismatch, Unavailable, UnsupportedVersion
from casstore.oci import Descriptor
from casstore.streams import COPY_CHUNK, BytesSource, VerifiedReader, Vouching, fetch_all

TYPE = "application/octet-stream"


class Body(io.BytesIO):
    """A body that counts what is taken from it, and gives it out in pieces of its own choice."""

    def __init__(self, content: bytes, most: int = 1 << 30) -> None:
        super().__init__(content)
        self.most = most
        self.largest_wish = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size > 0
        self.largest_wish = max(self.largest_wish, size)
        return super().read(min(size, self.most))


def reader(body: Body, of: bytes, size: int | None = None) -> VerifiedReader:
    descriptor = Descriptor(media_type=TYPE, digest=Digest.of(of), size=len(of) if size is None else size)
    return VerifiedReader(body, descriptor, subject="blob x")


def drain(reading: VerifiedReader, sizes: Sequence[int]) -> bytes:
    """Read with these sizes, over and over, to the end."""
    got: list[bytes] = []
    while True:
        for size in sizes:
            part = reading.read(size)
            if not part:
                return b"".join(got)
            got.append(part)


SIZES = st.lists(st.sampled_from([-1, 1, 2, 3, 7, 100]), min_size=1, max_size=4)


@given(st.binary(max_size=60), SIZES, st.integers(1, 9))
def test_right_content(content: bytes, sizes: list[int], most: int) -> None:
    body = Body(content, most)
    reading = reader(body, content)
    if content:
        assert reading.verified is None
    assert drain(reading, sizes) == content
    assert reading.read() == b""
    assert reading.verified == Descriptor.of(content, TYPE)
    assert isinstance(reading, Vouching)
    assert reading.read(5) == b""


@given(st.binary(max_size=60), st.binary(max_size=60), SIZES, st.integers(1, 9))
def test_wrong_content(content: bytes, other: bytes, sizes: list[int], most: int) -> None:
    """No wrong byte is read as the last one: whoever holds `size` bytes, or saw the end, holds the right ones."""
    body = Body(other, most)
    reading = reader(body, content)
    got = b""
    try:
        for size in sizes * 100:
            got += reading.read(size)
    except CorruptContent:
        assert other != content
        assert len(got) < max(len(content), 1)
    else:
        assert other == content == got
    assert body.tell() <= len(content) + 1


@pytest.mark.parametrize("size", [-1, 1, 3, 100])
def test_one_wrong_byte(size: int) -> None:
    reading = reader(Body(b"012345678X"), b"0123456789")
    got = b""
    with pytest.raises(DigestMismatch) as caught:  # noqa: PT012  (how far it comes is what is tested)
        while True:
            got += reading.read(size)
    assert len(got) < 10
    assert caught.value.expected == str(Digest.of(b"0123456789"))
    assert caught.value.got == f"sha256:{hashlib.sha256(b'012345678X').hexdigest()}"
    assert str(caught.value).startswith("blob x: expected digest sha256:")


@pytest.mark.parametrize("content", [b"", b"0123", b"012345678"])
def test_too_short(content: bytes) -> None:
    with pytest.raises(SizeMismatch, match=rf"^blob x: expected 10 bytes, got {len(content)}$"):
        reader(Body(content), b"0123456789").read()


def test_too_short_by_pieces() -> None:
    reading = reader(Body(b"01234"), b"0123456789")
    assert reading.read(5) == b"01234"
    with pytest.raises(SizeMismatch, match="expected 10 bytes, got 5"):
        reading.read(5)


@pytest.mark.parametrize("more", [1, 1000])
def test_too_long(more: int) -> None:
    body = Body(b"0123456789" + b"x" * more)
    reading = reader(body, b"0123456789")
    assert reading.read(9) == b"012345678"
    with pytest.raises(SizeMismatch, match="expected 10 bytes, got more"):
        reading.read(1)
    assert body.tell() == 11


def test_right_digest_with_wrong_size() -> None:
    for size, error in [(9, DigestMismatch), (11, SizeMismatch), (0, DigestMismatch)]:
        with pytest.raises(error):
            reader(Body(b"0123456789"), b"0123456789", size).read()


@pytest.mark.parametrize("size", [-1, 0, 1, 10])
def test_no_bytes(size: int) -> None:
    assert reader(Body(b""), b"").read(size) == b""
    with pytest.raises(SizeMismatch, match="expected 0 bytes, got more"):
        reader(Body(b"x"), b"").read(size)
    with pytest.raises(DigestMismatch):
        reader(Body(b""), b"other", size=0).read(size)


def test_reading_nothing_is_not_the_end() -> None:
    reading = reader(Body(b"wrong"), b"right")
    assert reading.read(0) == b""
    with pytest.raises(DigestMismatch):
        reading.read()


def test_no_second_chance() -> None:
    """What the failed read had taken is lost, so the reads after it must not look like the content."""
    for content in (b"0123456789x", b"012345678x", b"0123"):
        reading = reader(Body(content), b"0123456789")
        with pytest.raises(CorruptContent):
            reading.read()
        for _ in range(3):
            with pytest.raises(ValueError, match="blob x: read after an error"):
                reading.read()


def test_no_second_chance_after_the_bodys_error() -> None:
    class Broken(Body):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() == 3:
                self.read = super().read  # type: ignore[method-assign]
                raise Unavailable("connection reset")
            return super().read(size)

    reading = reader(Broken(b"012345", most=3), b"012345")
    with pytest.raises(Unavailable):
        reading.read()
    with pytest.raises(ValueError, match="read after an error"):
        reading.read()


def test_claimed_sizes_are_not_allocated() -> None:
    body = Body(b"x" * 100)
    with pytest.raises(SizeMismatch, match=f"expected {2**62} bytes, got 100"):
        reader(body, b"x", size=2**62).read()
    assert body.largest_wish == COPY_CHUNK


def test_long_content_is_taken_in_pieces() -> None:
    content = bytes(range(256)) * (COPY_CHUNK // 64) + b"tail"
    body = Body(content)
    assert reader(body, content).read() == content
    assert body.largest_wish == COPY_CHUNK


def test_closes_its_body() -> None:
    body = Body(b"x")
    with reader(body, b"x") as reading:
        assert reading.read(1) == b"x"
    assert body.closed


def test_bytes_source() -> None:
    source = BytesSource(b"one", b"two")
    for content in (b"one", b"two"):
        with source.fetch(Descriptor.of(content, TYPE)) as reading:
            assert reading.read(100) == content
    with pytest.raises(NotFound):
        source.fetch(Descriptor.of(b"three", TYPE))
    wrong = Descriptor(media_type=TYPE, digest=Digest.of(b"one"), size=2)
    with source.fetch(wrong) as reading, pytest.raises(DigestMismatch):
        reading.read(100)


def test_fetch_all() -> None:
    content = b"x" * (2 * COPY_CHUNK + 1)
    source = BytesSource(content, b"")
    assert fetch_all(source, Descriptor.of(content, TYPE), limit=len(content)) == content
    assert fetch_all(source, Descriptor.of(b"", TYPE), limit=0) == b""
    with pytest.raises(UnsupportedVersion, match=f"of at most {len(content) - 1} bytes, got {len(content)}"):
        fetch_all(source, Descriptor.of(content, TYPE), limit=len(content) - 1)
    with pytest.raises(SizeMismatch):
        fetch_all(source, Descriptor(media_type=TYPE, digest=Digest.of(b""), size=1), limit=10)
