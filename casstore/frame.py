"""Frames: the unit of compression. A frame holds the plain bytes of one or more whole chunks, back to back.

    RAW    the plain bytes themselves, where compression does not pay
    ZSTD   one zstd frame (RFC 8878) that states its content size
    DELTA  one zstd frame of one chunk, with the plain bytes of another chunk (its base) as raw-content dictionary

Stored bytes are hostile until decoded: `decode` allocates only the length that the directory states and was checked
against `spec.READ_FRAME_PLAIN`, and takes exactly one whole zstd frame of exactly that content size.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from enum import IntEnum

import zstandard

from casstore.errors import CorruptContent
from casstore.spec import MIB, READ_FRAME_PLAIN

DEFAULT_LEVEL = 2
"""Level 3 takes half as much time again, for 3 % fewer bytes (frames of 1 MiB from an ext4 disk of program files)."""
LEVELS = range(1, 20)
"""zstd's levels that casstore offers; from 20 on decoding would need windows of more than 8 MiB."""

Buffer = bytes | bytearray | memoryview

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_WINDOW = 16 * MIB
_DELTA_LEVEL = 6  # at least: lower ones do not find all of the base again, and deltas are few
_STEP = 4096  # bytes that are decoded in one go where the next ones may be damaged
_PAYS = 0.97  # below 3 % saved, decoding costs more than it saves


class FrameKind(IntEnum):
    """How a frame's bytes are stored; the numbers are part of the format."""

    RAW = 0
    ZSTD = 1
    DELTA = 2


class _Local(threading.local):
    """zstd contexts are costly to make and not thread-safe: one of each kind per thread."""

    def __init__(self) -> None:
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)


_local = _Local()


def encode(parts: Sequence[Buffer], level: int) -> tuple[FrameKind, bytes]:
    """Compress the concatenation of `parts` (whole chunks) at zstd `level`; RAW where that saves under 3 %."""
    plain = parts[0] if len(parts) == 1 else b"".join(parts)
    compressor = _local.compressors.get(level)
    if compressor is None:
        compressor = zstandard.ZstdCompressor(level=level, write_content_size=True)
        _local.compressors[level] = compressor
    stored = compressor.compress(plain)
    if len(stored) < len(plain) * _PAYS:
        return FrameKind.ZSTD, stored
    return FrameKind.RAW, bytes(plain)


def encode_delta(plain: Buffer, base: Buffer, level: int) -> bytes:
    """Compress one chunk against the plain bytes of its base chunk, at zstd `level` or what deltas need."""
    dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    level = max(level, _DELTA_LEVEL)
    compressor = zstandard.ZstdCompressor(level=level, dict_data=dictionary, write_content_size=True)
    return compressor.compress(plain)


def decode(
    kind: FrameKind, stored: Buffer, length: int, *, base: Buffer | None, subject: str, limit: int = READ_FRAME_PLAIN
) -> Buffer:
    """The frame's `length` plain bytes. They are not yet known to be the right ones: check the chunks' digests.

    Raises:
        CorruptContent: not exactly one frame of exactly `length` plain bytes, none or more than `limit` of them, or it
            asks for a window past 16 MiB.
    """
    if not 1 <= length <= limit:  # of an empty frame, zstandard would not look at what follows
        raise CorruptContent(f"{subject}: expected 1 to {limit} plain bytes in a frame, got {length}")
    if kind is FrameKind.RAW:
        if len(stored) != length:
            raise CorruptContent(f"{subject}: expected {length} raw bytes, got {len(stored)}")
        return stored
    try:
        _check_header(stored, length, subject)
        if base is None:
            return _local.decompressor.decompress(stored, max_output_size=length, allow_extra_data=False)
        dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        decompressor = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=_MAX_WINDOW)
        return decompressor.decompress(stored, max_output_size=length, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise CorruptContent(f"{subject}: expected one zstd frame of {length} plain bytes: {error}") from None


def decode_start(stored: Buffer, length: int) -> bytes:
    """What of a damaged ZSTD frame's `length` plain bytes comes before the damage, or looks as if it did."""
    plain = bytearray()
    with contextlib.suppress(zstandard.ZstdError, MemoryError):
        reader = _local.decompressor.stream_reader(stored)
        while len(plain) < length and (part := reader.read(min(_STEP, length - len(plain)))):
            plain += part
    return bytes(plain)


def _check_header(stored: Buffer, length: int, subject: str) -> None:
    # zstandard's decompress() allocates what the header claims, before it looks at its limit.
    if bytes(stored[:4]) != _ZSTD_MAGIC:
        raise CorruptContent(f"{subject}: expected a zstd frame, got {bytes(stored[:4]).hex()}")
    header = zstandard.get_frame_parameters(stored)
    if header.content_size != length:
        raise CorruptContent(f"{subject}: expected {length} plain bytes, the zstd header says {header.content_size}")
    if header.dict_id != 0 or header.window_size > max(_MAX_WINDOW, length):
        raise CorruptContent(f"{subject}: expected no dictionary id and a window of at most {_MAX_WINDOW} bytes")
