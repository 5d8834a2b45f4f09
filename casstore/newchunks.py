"""The chunks that a capture has stored so far, to be found again when the disk repeats them.

A disk of 1 TiB may have 45 million. The first ones are kept in memory, the rest in an SQLite file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from casstore.digest import ChunkId
from casstore.errors import StorageError

IN_MEMORY = 1 << 18
"""Chunks; about 180 bytes each."""
_BATCH = 4096


class NewChunk(NamedTuple):
    """A chunk that this capture stores: its number and the plain bytes before it, among those of its `stream`."""

    stream: int
    number: int
    position: int


class NewChunks:
    """Digest -> NewChunk. When there are too many for memory, the file `path` is made, until `close`."""

    def __init__(self, path: str, *, in_memory: int = IN_MEMORY) -> None:
        self._path, self._in_memory = path, in_memory
        self._found: dict[ChunkId, int] = {}  # packed: half as large as tuples
        self._recent: dict[ChunkId, NewChunk] = {}
        self._db: sqlite3.Connection | None = None
        self._count = 0

    def get(self, chunk_id: ChunkId) -> NewChunk | None:
        """The chunk with this digest."""
        packed = self._found.get(chunk_id)
        if packed is not None:
            return _unpack(packed)
        found = self._recent.get(chunk_id)
        if found is None and self._db is not None:
            with _errors():
                row = self._db.execute(
                    "SELECT stream, number, position FROM chunks WHERE id = ?", (chunk_id,)
                ).fetchone()
            found = None if row is None else NewChunk(*row)
        return found

    def add(self, chunk_id: ChunkId, chunk: NewChunk) -> None:
        """Remember a chunk that is not there yet."""
        self._count += 1
        if len(self._found) < self._in_memory:
            self._found[chunk_id] = _pack(chunk)
            return
        self._recent[chunk_id] = chunk
        if len(self._recent) >= _BATCH:
            self._spill(self._recent.items())
            self._recent = {}

    def __len__(self) -> int:
        return self._count

    def close(self) -> None:
        """Forget all."""
        if self._db is not None:
            self._db.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            self._db = None

    def _spill(self, chunks: Iterable[tuple[ChunkId, NewChunk]]) -> None:
        with _errors():
            if self._db is None:
                self._db = sqlite3.connect(self._path, isolation_level=None)
                for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -16384"):
                    self._db.execute(f"PRAGMA {pragma}")
                columns = "id BLOB PRIMARY KEY, stream INTEGER, number INTEGER, position INTEGER"
                self._db.execute(f"CREATE TABLE chunks ({columns}) WITHOUT ROWID")
            self._db.execute("BEGIN")
            self._db.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?)", ((id_, *chunk) for id_, chunk in chunks))
            self._db.execute("COMMIT")


def _pack(chunk: NewChunk) -> int:
    return (chunk.number << 64 | chunk.position) << 2 | -chunk.stream


def _unpack(packed: int) -> NewChunk:
    rest = packed >> 2
    return NewChunk(-(packed & 3), rest >> 64, rest & (1 << 64) - 1)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(f"keeping the list of new chunks: {error}") from error
