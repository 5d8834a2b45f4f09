"""Changes that keep what no havoc keeps by chance: the grammar of JSON, checksums, lengths, compression."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import zstandard

from casstore.tar.fields import checksum
from tests.fuzz.target import Havoc, Mutate

_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 1.5, 1e999),
    *("", "0", "a", "a:b", "..", "/", "\n", "\u202e", "\x1b]52;c;\x07", "\u2028", "\ud800", "x" * 200),
    *("sha256:" + "0" * 64, "sha256:" + "A" * 64, "sha256:" + "0" * 64 + "\n", "1970-01-01T00:00:00Z"),
    *([], {}, [[]], [{}], {"": ""}, {"a": None}),
)


def json_documents(data: bytes, havoc: Havoc, seed: int) -> bytes:
    """A document with a value replaced, removed, doubled or moved; written in one of the ways to write it."""
    rng = random.Random(seed)
    if rng.random() < 0.25:
        return havoc(data)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return havoc(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        document = _changed(document, havoc, rng)
    style: dict[str, Any] = rng.choice(({"separators": (",", ":")}, {"separators": (",", ":"), "sort_keys": True}, {}))
    try:
        text = json.dumps(document, ensure_ascii=rng.random() < 0.2, **style)
        return text.encode("utf-8", "surrogatepass")
    except (RecursionError, TypeError):  # keys of several kinds cannot be sorted
        return havoc(data)


def _changed(document: Any, havoc: Havoc, rng: random.Random) -> Any:
    places = list(_places(document))
    if not places:
        return rng.choice(_ODD)
    holder, key = rng.choice(places)
    value = holder[key]
    what = rng.randrange(6)
    if what == 0:
        del holder[key]
    elif what == 1:
        other, at = rng.choice(places)
        holder[key] = copy.deepcopy(other[at]) if at in other or isinstance(other, list) else None
    elif what == 2 and isinstance(value, str):
        holder[key] = havoc(value.encode("utf-8", "replace")).decode("utf-8", "replace")
    elif what == 3 and isinstance(value, int):
        holder[key] = value + rng.choice((-1, 1, 511, 2**32, -value))
    elif what == 4:
        if isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(value))
        else:
            holder[rng.choice((str(key) + "x", str(key).upper(), "extensions", "", "\x1b]8;;\u202e"))] = copy.deepcopy(
                value
            )
    else:
        holder[key] = copy.deepcopy(rng.choice(_ODD))
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Each value in it, as a holder and a key."""
    if isinstance(document, (dict, list)):
        for key in list(document) if isinstance(document, dict) else range(len(document)):
            yield document, key
            yield from _places(document[key])


def inside(prefix: Callable[[bytes], bytes], start: int, *, level: int = 1) -> Mutate:
    """Changes what stands in a zstd frame from byte `start` on; `prefix` makes what stands before it anew."""

    def mutate(data: bytes, havoc: Havoc, seed: int) -> bytes:
        if seed % 4 == 0:
            return havoc(data)
        try:
            plain = zstandard.ZstdDecompressor(max_window_size=1 << 24).decompressobj().decompress(data[start:])
        except (zstandard.ZstdError, MemoryError):
            return havoc(data)
        plain = havoc(plain[:65536])
        return prefix(plain) + zstandard.ZstdCompressor(level=level).compress(plain)

    return mutate


_FIELDS = ((0, 100), (124, 136), (156, 157), (157, 257), (257, 265), (345, 500), (386, 482), (482, 483), (483, 495))
"""Of a tar header: name, size, type, link, magic, prefix, sparse map, whether it goes on, real size."""
_VALUES = (
    *(b"\0", b"00000000000\0", b"00000001000\0", b"77777777777\0", b"\x80" + bytes(10) + b"\1", b"\xff" * 12),
    *(b"\x80" + b"\x7f" * 11, b"0", b"1", b"2", b"3", b"5", b"7", b"x", b"g", b"L", b"K", b"S", b"\1", b"ustar\x0000"),
    *(b"ustar  \0", b"../x", b"/x", b"a//b", b"./a", b"a/", b"blobs/sha256/" + b"0" * 64, b"-1", b" 644 \0"),
)


def tars(data: bytes, havoc: Havoc, seed: int) -> bytes:
    """An archive with fields or whole blocks changed, and all checksums right."""
    rng = random.Random(seed)
    if rng.random() < 0.1:
        return havoc(data)
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    headers = [n for n, block in enumerate(blocks) if block[257:262] == b"ustar" and len(block) == 512]
    what = rng.randrange(4)
    if what == 0 and len(blocks) > 1:
        first, last = sorted(rng.sample(range(len(blocks) + 1), 2))
        part = blocks[first:last]
        at = rng.randrange(len(blocks) + 1)
        blocks = [blocks[:first] + blocks[last:], blocks[:at] + part + blocks[at:]][rng.randrange(2)]
    elif what <= 2 and headers:
        for _ in range(rng.choice((1, 1, 2, 3))):
            n = rng.choice(headers)
            start, end = rng.choice(_FIELDS)
            value = rng.choice(_VALUES) if rng.random() < 0.7 else havoc(blocks[n][start:end])
            field = value[: end - start].ljust(end - start, b"\0")
            blocks[n] = blocks[n][:start] + field + blocks[n][end:]
    else:
        changed = havoc(data)
        blocks = [changed[at : at + 512] for at in range(0, len(changed), 512)]
    return b"".join(map(with_checksum, blocks))


def with_checksum(block: bytes) -> bytes:
    """A block of an archive; if it is a header, with its checksum right."""
    if len(block) != 512 or block[257:262] != b"ustar":
        return block
    return block[:148] + b"%06o\0 " % checksum(block) + block[156:]


def directories(data: bytes, havoc: Havoc, seed: int) -> bytes:
    """A pack's size (u64) and directory, with the counts of the footer and the size right again."""
    rng = random.Random(seed)
    changed = havoc(data)
    if rng.random() < 0.3 or len(changed) < 32:
        return changed
    body = changed[8:-24]
    frames = min(rng.randrange(5), len(body) // 12)
    bases = sum(body[12 * n] == 2 for n in range(frames))
    chunks = max(0, len(body) - 12 * frames - 32 * bases) // 36
    stored = sum(int.from_bytes(body[12 * n + 8 : 12 * n + 12], "little") for n in range(frames))
    directory = body[: 12 * frames + 36 * chunks + 32 * bases]
    directory += struct.pack("<IIII8s", frames, chunks, bases, 0, b"CASPACK1")
    return struct.pack("<Q", (8 + stored + len(directory)) % 2**64) + directory
