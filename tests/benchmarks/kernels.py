"""What this machine can do at best: raw speeds, measured on a disk's own bytes, and the times that follow for a verb.

Each kernel runs on all cores at once, a thread each on its share, so that cores which share caches, memory and
hyper-threads count for what they give together. `wall / limit` says how far casstore is from a program without any
bookkeeping.

    create    read, scan and hash what is allocated; compress what is new; sha256 and write what is stored;
              and wait until the last pack is durable, which nothing is left to hide behind
    restore   read what is stored; decompress, hash and write what is allocated. Writes to one file take its lock:
              they are a floor of their own
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import blake3
import numpy as np
import zstandard

from casstore.frame import DEFAULT_LEVEL
from tests.support import disks

MIB = disks.MIB
_PIECE = MIB
_CHUNK = 24 * disks.KIB
_PACK = 32 * MIB
_REPEAT = 3

Item = TypeVar("Item")

Speeds = dict[str, float]
"""Seconds per byte, of what each kernel works on."""


def measure(disk: Path, work: Path, *, sample: int = 256 * MIB) -> Speeds:
    """The speeds on pieces from all over the disk, `sample` bytes of them."""
    places = [
        offset for start, length in disks.extents(disk) for offset in range(start, start + length - _PIECE + 1, _PIECE)
    ]
    step = max(1, len(places) * _PIECE // sample)
    places = places[::step]
    with disk.open("rb") as file:
        plain = [os.pread(file.fileno(), _PIECE, place) for place in places]
    packed = [zstandard.ZstdCompressor(level=DEFAULT_LEVEL).compress(piece) for piece in plain]
    speeds = {
        "read": _timed(lambda share: _read(disk, share), places) / _PIECE,
        "scan": _timed(_scan, plain) / _PIECE,
        "blake3": _timed(_blake3, plain) / _PIECE,
        "compress": _timed(_compress, plain) / _PIECE,
        "decompress": _timed(_decompress, packed) / _PIECE,
        "sha256": _timed(_sha256, plain) / _PIECE,
    }
    with tempfile.TemporaryDirectory(dir=work) as folder:
        target = Path(folder, "written")
        speeds["write"] = min(_write(target, plain) for _ in range(_REPEAT)) / (len(plain) * _PIECE)
        speeds["last pack"] = min(_durable(target, plain[: _PACK // _PIECE]) for _ in range(_REPEAT)) / _PACK
    return speeds


def create_limit(speeds: Speeds, *, allocated: int, new: int, stored: int) -> float:
    """Seconds; the arguments are bytes."""
    cores = os.cpu_count() or 1
    work = allocated * (speeds["read"] + speeds["scan"] + speeds["blake3"]) + new * speeds["compress"]
    work += stored * (speeds["sha256"] + speeds["write"] / cores)
    return work + min(stored, _PACK) * speeds["last pack"]


def restore_limit(speeds: Speeds, *, allocated: int, stored: int) -> float:
    """Seconds, without waiting for the disk."""
    cores = os.cpu_count() or 1
    work = stored * speeds["read"] + allocated * (speeds["decompress"] + speeds["blake3"] + speeds["write"] / cores)
    return max(work, allocated * speeds["write"])


def _timed(kernel: Callable[[Sequence[Item]], None], items: Sequence[Item]) -> float:
    """Seconds per item, with every core at it; the best of some runs."""
    cores = os.cpu_count() or 1
    shares = [items[core::cores] for core in range(cores)]
    best = float("inf")
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(_REPEAT):
            start = time.perf_counter()
            list(pool.map(kernel, shares))
            best = min(best, time.perf_counter() - start)
    return best / len(items)


def _read(disk: Path, places: Sequence[int]) -> None:
    buffer = [bytearray(_PIECE)]
    with disk.open("rb") as file:
        for place in places:
            os.preadv(file.fileno(), buffer, place)


def _scan(pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        np.bitwise_xor.reduce(np.frombuffer(piece, np.uint64).reshape(-1, 512), axis=1)


def _blake3(pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(piece), _CHUNK):
            blake3.blake3(view[start : start + _CHUNK]).digest()


def _compress(pieces: Sequence[bytes]) -> None:
    compressor = zstandard.ZstdCompressor(level=3)
    for piece in pieces:
        compressor.compress(piece)


def _decompress(packed: Sequence[bytes]) -> None:
    decompressor = zstandard.ZstdDecompressor()
    for frame in packed:
        decompressor.decompress(frame)


def _sha256(pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        hashlib.sha256(piece).digest()


def _write(target: Path, pieces: Sequence[bytes]) -> float:
    target.unlink(missing_ok=True)
    os.sync()
    start = time.perf_counter()
    with target.open("wb", buffering=0) as out:
        for piece in pieces:
            out.write(piece)
    return time.perf_counter() - start


def _durable(target: Path, pieces: Sequence[bytes]) -> float:
    """Only the waiting: the bytes are written before the clock starts."""
    _write(target, pieces)
    start = time.perf_counter()
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return time.perf_counter() - start
