"""The chunks of a capture, found again whether they are in memory or in a file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore import newchunks
from casstore.digest import ChunkId
from casstore.errors import StorageError
from casstore.newchunks import NewChunk, NewChunks
from tests.support.stores import python


def chunk_id(number: int) -> ChunkId:
    return ChunkId(number.to_bytes(4, "big") * 8)


@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=80),
    in_memory=st.sampled_from([0, 3]),
    batch=st.integers(1, 5),
)
def test_what_was_added_is_found(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]], in_memory: int, batch: int
) -> None:
    path = tmp_path_factory.mktemp("new") / "chunks"
    model: dict[ChunkId, NewChunk] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(newchunks, "_BATCH", batch)
        with closing(NewChunks(str(path), in_memory=in_memory)) as chunks:
            for adds, number in steps:
                wanted = chunk_id(number)
                if adds and wanted not in model:
                    model[wanted] = NewChunk(-1 - number % 2, len(model), 2**40 * number)
                    chunks.add(wanted, model[wanted])
                assert chunks.get(wanted) == model.get(wanted)
                assert len(chunks) == len(model)
            assert {wanted: chunks.get(wanted) for wanted in model} == model
            assert path.exists() == (len(model) >= in_memory + batch)
    assert list(path.parent.iterdir()) == []


def test_a_few_make_no_file_wherever_it_would_be() -> None:
    with closing(NewChunks("/nonexistent/chunks", in_memory=3)) as chunks:
        for n in range(3):
            chunks.add(chunk_id(n), NewChunk(-1, n, 0))
        assert chunks.get(chunk_id(2)) == NewChunk(-1, 2, 0)


def test_a_file_that_cannot_be_is_an_error_of_the_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newchunks, "_BATCH", 1)
    unable = pytest.raises(StorageError, match="keeping the list of new chunks: unable to open")
    with closing(NewChunks("/nonexistent/chunks", in_memory=0)) as chunks, unable:
        chunks.add(chunk_id(1), NewChunk(-1, 0, 0))


def test_a_file_that_was_damaged_is_an_error_of_the_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newchunks, "_BATCH", 1)
    with closing(NewChunks(str(tmp_path / "chunks"), in_memory=0)) as chunks:
        for n in range(2000):
            chunks.add(chunk_id(n), NewChunk(-1, n, 0))
        assert chunks._db is not None
        chunks._db.execute("PRAGMA cache_size = 0")
        chunks._db.execute("PRAGMA shrink_memory")
        data = bytearray((tmp_path / "chunks").read_bytes())
        data[:] = b"\xff" * len(data)
        (tmp_path / "chunks").write_bytes(data)
        with pytest.raises(StorageError, match="keeping the list of new chunks"):
            any(chunks.get(chunk_id(n)) is None for n in range(2000))
    assert list(tmp_path.iterdir()) == []


MEMORY = """
import resource, sys
from casstore.newchunks import NewChunk, NewChunks
import hashlib

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

chunks, before = NewChunks(sys.argv[1], in_memory=10_000), peak()
for n in range(200_000):
    chunks.add(hashlib.sha256(b"%d" % n).digest(), NewChunk(-1, n, n << 16))
assert chunks.get(hashlib.sha256(b"199000").digest()) == NewChunk(-1, 199_000, 199_000 << 16)
print(peak() - before)
chunks.close()
"""


def test_memory_does_not_grow_with_their_number(tmp_path: Path) -> None:
    """200,000 in a dict would be 50 MiB; the database's cache is 16. The number is kilobytes."""
    assert int(python(MEMORY, tmp_path / "chunks").stdout) < 35 * 1024
