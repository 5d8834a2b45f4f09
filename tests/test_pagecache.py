"""What is far away is read in few requests, kept in bounded memory, and never another part than the one asked for."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore import pagecache
from casstore.content import RangeReader
from casstore.errors import NotFound, SizeMismatch
from casstore.oci import Descriptor
from casstore.pagecache import PAGE, PageCache
from casstore.spec import MEDIA_PACK, MIB
from tests.support.artifacts import MemoryBlobs

DATA = random.Random(3).randbytes(4 * MIB + 12_345)


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def blob(blobs: MemoryBlobs) -> Descriptor:
    return blobs.add(DATA, MEDIA_PACK)


@pytest.fixture
def cache(blobs: MemoryBlobs) -> Iterator[PageCache]:
    made = PageCache(blobs)
    assert isinstance(made, RangeReader)
    yield made
    assert len(made._pages) * PAGE <= pagecache._KEPT


def asked(blobs: MemoryBlobs) -> list[tuple[int, int]]:
    """The requests, as (first page, bytes)."""
    assert all(offset % PAGE == 0 for _, offset, _ in blobs.reads)
    return [(offset // PAGE, length) for _, offset, length in blobs.reads]


READS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 300), st.integers(0, 120)), max_size=40)


@given(reads=READS, page=st.sampled_from([1, 7, 64]), kept=st.sampled_from([1, 200, 10_000]))
@settings(max_examples=80)
def test_any_reads_are_those_of_the_source(reads: list[tuple[int, int, int]], page: int, kept: int) -> None:
    blobs = MemoryBlobs()
    contents = [DATA[:301], DATA[1000:1130]]
    added = [blobs.add(data, MEDIA_PACK) for data in contents]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("PAGE", page), ("_KEPT", kept), ("_AHEAD", 4 * page), ("_LARGE", 100)):
            patch.setattr(pagecache, name, value)
        cache = PageCache(blobs)
        for which, offset, most in reads:
            length = min(most, len(contents[which]) - offset)
            if length >= 0:
                assert cache.read_range(added[which], offset, length) == contents[which][offset : offset + length]
            assert len(cache._pages) * page <= kept


def test_pages_are_fetched_once(blobs: MemoryBlobs, cache: PageCache, blob: Descriptor) -> None:
    cache.read_range(blob, 5 * PAGE + 10, 20)
    cache.read_range(blob, 5 * PAGE, PAGE)
    cache.read_range(blob, 20 * PAGE - 1, 2)
    cache.read_range(blob, 19 * PAGE, 2 * PAGE)
    assert asked(blobs) == [(5, PAGE), (19, 2 * PAGE)]


def test_only_the_missing_pages_are_fetched(blobs: MemoryBlobs, cache: PageCache, blob: Descriptor) -> None:
    cache.read_range(blob, 10 * PAGE, 2 * PAGE)
    blobs.reads.clear()
    cache.read_range(blob, 8 * PAGE, 6 * PAGE)
    assert asked(blobs) == [(8, 2 * PAGE), (12, 2 * PAGE)]


def test_the_last_page_is_as_long_as_it_is(blobs: MemoryBlobs, cache: PageCache, blob: Descriptor) -> None:
    assert cache.read_range(blob, len(DATA) - 5, 5) == DATA[-5:]
    assert asked(blobs) == [(64, 12_345)]


def test_who_reads_on_gets_more_at_once(blobs: MemoryBlobs, cache: PageCache, blob: Descriptor) -> None:
    for page in range(64):
        cache.read_range(blob, page * PAGE, PAGE)
    assert [length // PAGE for _, length in asked(blobs)] == [1, 1, 3, 6, 12, 24, 17]


def test_what_is_ahead_is_bounded(
    blobs: MemoryBlobs, cache: PageCache, blob: Descriptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagecache, "_AHEAD", 4 * PAGE)
    for page in range(40):
        cache.read_range(blob, page * PAGE, PAGE)
    assert max(length for _, length in asked(blobs)) == 5 * PAGE


def test_who_jumps_gets_what_was_asked_for(blobs: MemoryBlobs, cache: PageCache, blob: Descriptor) -> None:
    for page in (3, 9, 1, 30, 12, 60):
        cache.read_range(blob, page * PAGE, 10)
    assert [length for _, length in asked(blobs)] == [PAGE] * 6


def test_what_was_not_read_for_long_is_forgotten(
    blobs: MemoryBlobs, cache: PageCache, blob: Descriptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagecache, "_KEPT", 3 * PAGE)
    for page in (2, 10, 20, 2, 30, 2, 10):
        cache.read_range(blob, page * PAGE, 10)
    assert [page for page, _ in asked(blobs)] == [2, 10, 20, 30, 10]


@pytest.mark.parametrize(("offset", "length"), [(0, len(DATA)), (5, 0), (5, 3 * MIB)])
def test_what_is_whole_large_or_empty_passes_by(
    blobs: MemoryBlobs, cache: PageCache, blob: Descriptor, monkeypatch: pytest.MonkeyPatch, offset: int, length: int
) -> None:
    monkeypatch.setattr(pagecache, "_LARGE", 3 * MIB)
    assert cache.read_range(blob, offset, length) == DATA[offset : offset + length]
    assert blobs.reads == [(blob.digest, offset, length)]
    assert not cache._pages


def test_errors_are_those_of_the_source(blobs: MemoryBlobs, cache: PageCache, blob: Descriptor) -> None:
    with pytest.raises(NotFound):
        cache.read_range(Descriptor.of(b"x" * 100, MEDIA_PACK), 1, 1)
    short = replace(blob, size=blob.size + 1)
    with pytest.raises(SizeMismatch):
        cache.read_range(short, 1, 1)
    assert cache.read_range(blob, 1, 1) == DATA[1:2], "a failure leaves nothing behind"


def test_threads_may_share_it(cache: PageCache, blob: Descriptor) -> None:
    rng = random.Random(1)
    reads = [(rng.randrange(len(DATA) - 200_000), rng.choice([10, 70_000, 200_000])) for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda read: cache.read_range(blob, *read), reads))
    assert found == [DATA[offset : offset + length] for offset, length in reads]
