"""Edits of a sparse file as file systems make them, and the content of packs read with none of casstore's decoding."""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import zstandard
from blake3 import blake3
from hypothesis import strategies as st

from tests.support.artifacts import DELTA, RAW, read_directory
from tests.support.disks import BLOCK

EditKind = Literal["patch", "write", "zeros", "punch", "move", "swap", "truncate", "grow"]
_PUNCH = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE


@dataclass(frozen=True)
class Edit:
    """One change of a file. Places and length are blocks; the file's end may lie before them."""

    kind: EditKind
    place: int
    other: int
    length: int
    seed: int = 0

    def apply(self, path: Path) -> None:
        rng = random.Random(self.seed)
        at, to, length = self.place * BLOCK, self.other * BLOCK, self.length * BLOCK
        with path.open("r+b") as file:
            size = os.fstat(file.fileno()).st_size

            def put(data: bytes, offset: int) -> None:
                file.seek(offset)
                file.write(data[: max(0, size - offset)])

            here, there = (os.pread(file.fileno(), length, offset) for offset in (at, to))
            if self.kind == "patch":
                put(rng.randbytes(rng.randint(1, 200)), at + rng.randrange(length))
            elif self.kind == "write":
                put(rng.randbytes(length), at)
            elif self.kind == "zeros":
                put(bytes(length), at)
            elif self.kind == "punch":
                punch(file.fileno(), at, length)
            elif self.kind == "move":
                put(here, to)
            elif self.kind == "swap":
                put(there, at)
                put(here, to)
            elif self.kind == "truncate":
                os.ftruncate(file.fileno(), max(0, size - length - self.seed))
            else:
                os.ftruncate(file.fileno(), size + length + self.seed)
                os.pwrite(file.fileno(), rng.randbytes(BLOCK), size + self.seed)


def punch(fd: int, offset: int, length: int) -> None:
    """Make a hole, if the file system can."""
    libc = ctypes.CDLL(None)
    libc.fallocate(fd, _PUNCH, ctypes.c_int64(offset), ctypes.c_int64(length))


def edits(*, most: int = 6, blocks: int = 400) -> st.SearchStrategy[list[Edit]]:
    """Hypothesis: one to `most` edits within so many blocks."""
    kinds: tuple[EditKind, ...] = ("patch", "patch", "write", "zeros", "punch", "move", "swap", "truncate", "grow")
    place = st.integers(0, blocks)
    return st.lists(
        st.builds(Edit, st.sampled_from(kinds), place, place, st.integers(1, 40), st.integers(0, 5000)),
        min_size=1,
        max_size=most,
    )


def plain_chunks(packs: Iterable[bytes]) -> dict[bytes, bytes]:
    """Digest -> plain bytes of every chunk of these packs, checked. Fails unless the base of every delta lies in one of
    their full frames.
    """
    full: dict[bytes, bytes] = {}
    deltas: list[tuple[bytes, bytes, bytes]] = []
    for kind, chunks, stored, base in (frame for pack in packs for frame in frames(pack)):
        if kind == DELTA:
            deltas.append((chunks[0][0], stored, base))
            continue
        plain = stored if kind == RAW else zstandard.decompress(stored)
        for chunk_id, length in chunks:
            full[chunk_id], plain = plain[:length], plain[length:]
        assert plain == b""
    found = dict(full)
    for chunk_id, stored, base in deltas:
        words = zstandard.ZstdCompressionDict(full[base], dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        found[chunk_id] = zstandard.ZstdDecompressor(dict_data=words).decompress(stored)
    assert all(blake3(plain).digest() == chunk_id for chunk_id, plain in found.items())
    return found


def frames(pack: bytes) -> Sequence[tuple[int, list[tuple[bytes, int]], bytes, bytes]]:
    """(kind, chunks as (digest, plain length), stored bytes, base) of each frame of a pack."""
    directory, at, found = read_directory(pack), 8, []
    for n, (kind, stored) in enumerate(zip(directory.kinds.tolist(), directory.stored.tolist(), strict=True)):
        first, end = directory.first_chunk[n : n + 2].tolist()
        chunks = [(bytes(directory.chunk_id(chunk)), int(directory.lengths[chunk])) for chunk in range(first, end)]
        found.append((kind, chunks, pack[at : at + stored], directory.base_of(n) or b""))
        at += stored
    return found
