"""What every Target must do, whatever is behind it (casstore/content.py); conftest.py lists the implementations."""

from __future__ import annotations

import io
import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Self

import pytest

from casstore import spec
from casstore.content import Fetcher, Reader
from casstore.digest import Digest
from casstore.errors import CorruptContent, DigestMismatch, NotFound, SizeMismatch
from casstore.oci import Descriptor
from casstore.streams import BytesSource, VerifiedReader, fetch_all
from tests.contract.conftest import FullTarget

BLOB = "application/vnd.example.blob"
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
LIMIT = 64 * spec.MIB


def some_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def push_bytes(target: FullTarget, data: bytes, media_type: str = BLOB) -> Descriptor:
    descriptor = Descriptor.of(data, media_type)
    target.push(descriptor, BytesSource(data))
    return descriptor


def push_manifest(target: FullTarget, note: str = "") -> tuple[Descriptor, bytes]:
    """An artifact of one layer, its manifest in a spelling that no tool would write."""
    layer = push_bytes(target, b"layer" + note.encode())
    config = push_bytes(target, b"{}", EMPTY_CONFIG)
    document = {
        "layers": [layer.to_dict()],
        "config": config.to_dict(),
        "artifactType": "application/vnd.example.thing",
        "mediaType": spec.MEDIA_MANIFEST,
        "schemaVersion": 2,
        "annotations": {"note": note},
    }
    raw = b"\n " + json.dumps(document, indent=3, separators=(" ,", " :  ")).encode() + b"\t\n\n"
    return push_bytes(target, raw, spec.MEDIA_MANIFEST), raw


class LyingSource:
    """A Fetcher that promises any content and has other bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def fetch(self, descriptor: Descriptor) -> Reader:
        return VerifiedReader(io.BytesIO(self._data), descriptor, subject="lie")


class SourceBroke(Exception):
    """Somebody else's error."""


class BreakingSource:
    """A Fetcher whose content breaks off half-way."""

    def __init__(self, data: bytes, error: Exception) -> None:
        self._data, self._error = data, error

    def fetch(self, descriptor: Descriptor) -> Reader:
        return _BreakingReader(self._data[: len(self._data) // 2], self._error)


class _BreakingReader:
    def __init__(self, data: bytes, error: Exception) -> None:
        self._body, self._error = io.BytesIO(data), error

    def read(self, size: int) -> bytes:
        data = self._body.read(size)
        if not data:
            raise self._error
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._body.close()


@pytest.mark.parametrize("size", [0, 1, 4096, 1_000_003])
def test_pushed_content_is_fetched_unchanged(target: FullTarget, size: int) -> None:
    data = some_bytes(size)
    descriptor = push_bytes(target, data)
    assert fetch_all(target, descriptor, limit=LIMIT) == data


def test_five_mebibytes_are_fetched_in_pieces(target: FullTarget) -> None:
    data = some_bytes(5 * spec.MIB)
    descriptor = push_bytes(target, data)
    with target.fetch(descriptor) as reader:
        pieces = []
        while piece := reader.read(70_000):
            assert len(piece) <= 70_000
            pieces.append(piece)
    assert b"".join(pieces) == data


def test_a_reader_may_be_left_early(target: FullTarget) -> None:
    data = some_bytes(3 * spec.MIB)
    descriptor = push_bytes(target, data)
    with target.fetch(descriptor) as reader:
        assert reader.read(10) == data[:10]
    assert fetch_all(target, descriptor, limit=LIMIT) == data


def test_exists_only_after_push_and_only_with_the_right_size(target: FullTarget) -> None:
    data = some_bytes(1000)
    descriptor = Descriptor.of(data, BLOB)
    assert not target.exists(descriptor)
    target.push(descriptor, BytesSource(data))
    assert target.exists(descriptor)
    assert not target.exists(replace(descriptor, size=999))
    assert not target.exists(replace(descriptor, size=1001))


def test_the_empty_blob_exists_only_after_push(target: FullTarget) -> None:
    descriptor = Descriptor.of(b"", BLOB)
    assert not target.exists(descriptor)
    target.push(descriptor, BytesSource(b""))
    assert target.exists(descriptor)


def test_pushing_again_is_fine(target: FullTarget) -> None:
    data = some_bytes(1000)
    assert push_bytes(target, data) == push_bytes(target, data)
    manifest, raw = push_manifest(target)
    target.push(manifest, BytesSource(raw))
    assert fetch_all(target, manifest, limit=LIMIT) == raw


def test_any_part_is_read(target: FullTarget) -> None:
    data = some_bytes(300_001)
    descriptor = push_bytes(target, data)
    for offset, length in ((0, 1), (0, 300_001), (1, 300_000), (0, 300_000), (4096, 70_000), (300_000, 1)):
        assert target.read_range(descriptor, offset, length) == data[offset : offset + length]
    assert target.read_range(descriptor, 0, 0) == target.read_range(descriptor, 300_001, 0) == b""
    empty = push_bytes(target, b"")
    assert target.read_range(empty, 0, 0) == b""


def test_parts_of_a_manifest_are_read(target: FullTarget) -> None:
    manifest, raw = push_manifest(target)
    assert target.read_range(manifest, 0, len(raw)) == raw
    assert target.read_range(manifest, 10, 20) == raw[10:30]


def test_parts_of_unknown_content_are_not_found(target: FullTarget) -> None:
    manifest, _ = push_manifest(target)
    for length in (0, 5, 6):
        with pytest.raises(NotFound):
            target.read_range(Descriptor.of(b"nobody", BLOB), 0, length)
    with pytest.raises(NotFound):
        target.read_range(replace(manifest, digest=Digest.of(b"nobody has this")), 0, 1)


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, 1), (500, 499), (0, 999)])
def test_a_part_of_content_of_another_size_is_refused(target: FullTarget, offset: int, length: int) -> None:
    descriptor = push_bytes(target, some_bytes(1000))
    for wrong in (999, 1001):
        with pytest.raises(SizeMismatch):
            target.read_range(replace(descriptor, size=wrong), offset, length)


def test_a_part_beyond_the_end_is_refused(target: FullTarget) -> None:
    descriptor = push_bytes(target, some_bytes(1000))
    for offset, length in ((0, 1001), (999, 2), (1000, 1), (5000, 1)):
        with pytest.raises(SizeMismatch):
            target.read_range(descriptor, offset, length)


def test_eight_threads_read_parts(target: FullTarget) -> None:
    data = some_bytes(200_000)
    descriptor = push_bytes(target, data)

    def part(n: int) -> bool:
        return target.read_range(descriptor, n * 1000, 1500) == data[n * 1000 : n * 1000 + 1500]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(part, range(64)))


def test_unknown_content_is_not_found(target: FullTarget) -> None:
    push_manifest(target)
    with pytest.raises(NotFound):
        fetch_all(target, Descriptor.of(b"nobody has this", BLOB), limit=LIMIT)
    with pytest.raises(NotFound):
        fetch_all(target, Descriptor.of(b'{"nobody": "has this"}', spec.MEDIA_MANIFEST), limit=LIMIT)
    with pytest.raises(NotFound):
        target.resolve("no-such-tag")
    with pytest.raises(NotFound):
        target.resolve(str(Digest.of(b"nobody has this")))


@pytest.mark.parametrize("size", [1, 100, 3 * spec.MIB])
def test_fetching_with_a_wrong_size_fails(target: FullTarget, size: int) -> None:
    descriptor = push_bytes(target, some_bytes(size))
    for wrong in (size - 1, size + 1):
        with pytest.raises(CorruptContent):
            fetch_all(target, replace(descriptor, size=wrong), limit=LIMIT)


@pytest.mark.parametrize("size", [1, 100, 3 * spec.MIB])
def test_wrong_content_is_refused_and_nothing_is_stored(target: FullTarget, size: int) -> None:
    descriptor = Descriptor.of(some_bytes(size), BLOB)
    with pytest.raises(DigestMismatch):
        target.push(descriptor, LyingSource(some_bytes(size, seed=2)))
    assert not target.exists(descriptor)
    for other in (size - 1, size + 1):
        with pytest.raises(CorruptContent):
            target.push(descriptor, LyingSource(some_bytes(other)))
        assert not target.exists(descriptor)
    push_bytes(target, some_bytes(size))  # and the failures are not in the way of a good push
    assert target.exists(descriptor)


def test_content_under_the_empty_digest_is_refused(target: FullTarget) -> None:
    descriptor = replace(Descriptor.of(b"full", BLOB), size=0)
    with pytest.raises(CorruptContent):
        target.push(descriptor, LyingSource(b""))
    with pytest.raises(SizeMismatch):
        target.push(Descriptor.of(b"", BLOB), LyingSource(b"full"))
    assert not target.exists(Descriptor.of(b"", BLOB))


@pytest.mark.parametrize("size", [1000, 5 * spec.MIB])
@pytest.mark.parametrize(
    "error", [SourceBroke("half-way"), BrokenPipeError("half-way"), ValueError("half-way")], ids=repr
)
def test_a_source_that_breaks_half_way_leaves_nothing(target: FullTarget, size: int, error: Exception) -> None:
    data = some_bytes(size)
    descriptor = Descriptor.of(data, BLOB)
    with pytest.raises(type(error), match="half-way"):
        target.push(descriptor, BreakingSource(data, error))
    assert not target.exists(descriptor)
    target.push(descriptor, BytesSource(data))
    assert fetch_all(target, descriptor, limit=LIMIT) == data


def test_a_source_without_the_content_fails_the_push(target: FullTarget) -> None:
    descriptor = Descriptor.of(b"wanted", BLOB)
    with pytest.raises(NotFound):
        target.push(descriptor, BytesSource(b"other"))
    assert not target.exists(descriptor)


def test_eight_threads_push_the_same_blob(target: FullTarget) -> None:
    data = some_bytes(spec.MIB)
    source: Fetcher = BytesSource(data)
    descriptor = Descriptor.of(data, BLOB)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: target.push(descriptor, source), range(8)))
    assert fetch_all(target, descriptor, limit=LIMIT) == data


def test_eight_threads_push_and_fetch_different_blobs(target: FullTarget) -> None:
    contents = [some_bytes(200_000 + number, seed=number) for number in range(16)]

    def round_trip(data: bytes) -> bytes:
        return fetch_all(target, push_bytes(target, data), limit=LIMIT)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(round_trip, contents)) == contents


def test_a_manifest_keeps_its_bytes(target: FullTarget) -> None:
    manifest, raw = push_manifest(target)
    target.tag(manifest, "odd")
    assert fetch_all(target, manifest, limit=LIMIT) == raw
    assert fetch_all(target, target.resolve("odd"), limit=LIMIT) == raw


def test_a_tag_resolves_to_the_manifest_and_moves(target: FullTarget) -> None:
    first, _ = push_manifest(target, "first")
    second, _ = push_manifest(target, "second")
    target.tag(first, "name")
    assert target.resolve("name") == first
    target.tag(second, "name")
    assert target.resolve("name") == second
    target.tag(second, "v1.2_3-x")
    assert target.resolve("v1.2_3-x") == second


def test_tags_are_case_sensitive(target: FullTarget) -> None:
    first, _ = push_manifest(target, "first")
    second, _ = push_manifest(target, "second")
    target.tag(first, "Name")
    target.tag(second, "name")
    assert target.resolve("Name") == first
    assert target.resolve("name") == second


def test_a_digest_resolves_to_the_manifest(target: FullTarget) -> None:
    manifest, _ = push_manifest(target)
    assert target.resolve(str(manifest.digest)) == manifest


def test_tagging_what_is_not_there_fails(target: FullTarget) -> None:
    with pytest.raises(NotFound):
        target.tag(Descriptor.of(b'{"not": "there"}', spec.MEDIA_MANIFEST), "name")
    with pytest.raises(NotFound):
        target.resolve("name")


def test_a_deleted_manifest_is_gone_with_its_tags(target: FullTarget) -> None:
    gone, _ = push_manifest(target, "gone")
    kept, _ = push_manifest(target, "kept")
    target.tag(gone, "one")
    target.tag(gone, "two")
    target.tag(kept, "three")
    target.delete(gone)
    assert not target.exists(gone)
    for reference in ("one", "two", str(gone.digest)):
        with pytest.raises(NotFound):
            target.resolve(reference)
    assert target.resolve("three") == kept
    with pytest.raises(NotFound):
        target.delete(gone)


def test_a_deleted_blob_is_gone_and_can_come_back(target: FullTarget) -> None:
    data = some_bytes(1000)
    descriptor = push_bytes(target, data)
    target.delete(descriptor)
    assert not target.exists(descriptor)
    with pytest.raises(NotFound):
        fetch_all(target, descriptor, limit=LIMIT)
    with pytest.raises(NotFound):
        target.delete(descriptor)
    push_bytes(target, data)
    assert fetch_all(target, descriptor, limit=LIMIT) == data
