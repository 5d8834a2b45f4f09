"""What is binary: maps, directories of packs, frames, whole snapshots of them, and tar archives."""

from __future__ import annotations

import io
import os
import struct
import tarfile
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import zstandard
from blake3 import blake3

from casstore import spec
from casstore.artifact import Artifact
from casstore.decoding import jobs
from casstore.disk import DiskSource
from casstore.diskmap import MAGIC, SnapshotMap
from casstore.errors import CorruptContent, DocumentError, SourceError
from casstore.frame import Buffer, FrameKind, decode, decode_start, encode
from casstore.microsandbox.rootdisk import Overlay
from casstore.pack import PackDirectory
from casstore.tar import compression
from casstore.tar.reader import TarReader
from tests.fuzz import mutators
from tests.fuzz.draw import Draw
from tests.fuzz.target import Havoc, Target
from tests.support.artifacts import DELTA, RAW, ZSTD, Disk, Frame, HandMade, frame, pack_bytes


def _map(data: bytes) -> SnapshotMap:
    return SnapshotMap.parse(data, subject="map")


def _check_map(parsed: SnapshotMap) -> None:
    raw = parsed.to_bytes()
    again = SnapshotMap.parse(raw, subject="map")
    assert again.to_bytes() == raw
    assert again.packs == parsed.packs
    assert [disk.name for disk in again.disks] == [disk.name for disk in parsed.disks]
    for disk in parsed.disks:
        assert 0 <= disk.allocated <= disk.size <= spec.MAX_DISK
        starts, ends = disk.extents[:, 0], disk.extents.sum(axis=1)
        assert (starts >= 0).all()
        assert (ends <= disk.size).all()
        assert (starts[1:] > ends[:-1]).all()
        assert sum(disk.runs.gap.tolist()) + sum(disk.runs.length.tolist()) <= disk.size
        assert all(pack < len(parsed.packs) for pack in disk.runs.pack.tolist())
        # What a reader plans from it stays in proportion to the disk.
        assert sum(disk.runs.count.tolist()) <= disk.size // spec.BLOCK + len(disk.runs)


def _map_head(body: bytes) -> bytes:
    return struct.pack("<8sQ", MAGIC, len(body))


def _directory(data: bytes) -> tuple[bytes, PackDirectory]:
    """8 bytes: the size of the pack; then its directory."""
    size = int.from_bytes(data[:8], "little")
    return data[8:], PackDirectory.parse(data[8:], size, subject="pack")


def _check_directory(parsed: tuple[bytes, PackDirectory]) -> None:
    encoded, directory = parsed
    made, again = PackDirectory.build(
        kinds=directory.kinds.tobytes(),
        counts=np.diff(directory.first_chunk).tolist(),
        stored=directory.stored.tolist(),
        ids=directory.ids,
        lengths=directory.lengths.tolist(),
        base_ids=directory.base_ids,
    )
    assert again == encoded
    assert (made.size, made.stamp) == (directory.size, directory.stamp)
    plain, offsets = directory.plain_lengths(), directory.frame_offsets()
    assert all(0 < length <= spec.READ_FRAME_PLAIN for length in plain.tolist())
    assert all(
        at + stored <= directory.size for at, stored in zip(offsets.tolist(), directory.stored.tolist(), strict=True)
    )
    for chunk in range(len(directory)):
        of = directory.frame_of(chunk)
        assert directory.first_chunk[of] <= chunk < directory.first_chunk[of + 1]
        assert len(directory.chunk_id(chunk)) == 32
    assert sum(directory.base_of(n) is not None for n in range(len(directory.kinds))) * 32 == len(directory.base_ids)


class Stored(NamedTuple):
    """A frame as it comes, with what is said of it."""

    kind: FrameKind
    length: int
    base: bytes | None
    data: bytes


def _frame_parts(data: bytes) -> Stored:
    """A byte: the kind; u32: the plain bytes that are told; a byte: how long the base is; the base; the frame."""
    draw = Draw(data)
    kind, length = FrameKind(draw.number(2)), draw.number(2**32 - 1)
    base = draw.some()
    return Stored(kind, length, base if kind is FrameKind.DELTA and base else None, draw.rest())


def _frame(data: bytes) -> tuple[Stored, Buffer]:
    stored = _frame_parts(data)
    start = decode_start(stored.data, min(stored.length, 1 << 16))
    assert len(start) <= stored.length
    return stored, decode(stored.kind, stored.data, stored.length, base=stored.base, subject="frame")


def _check_frame(decoded: tuple[Stored, Buffer]) -> None:
    stored, plain = decoded
    assert 1 <= len(plain) == stored.length <= spec.READ_FRAME_PLAIN
    if stored.kind is FrameKind.RAW:
        assert plain == stored.data
    elif stored.base is None:
        whole = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        assert whole.decompress(stored.data) == plain
        assert whole.eof
        assert not whole.unused_data
    if len(plain) <= 1 << 16:
        kind, data = encode([plain], 1)
        assert decode(kind, data, len(plain), base=None, subject="frame") == plain


def _frames(data: bytes, havoc: Havoc, seed: int) -> bytes:
    """Changes, after which the length is mostly what the frame's header claims."""
    changed = havoc(data)
    if seed % 3 == 0:
        return changed
    parts = _frame_parts(changed)
    length = len(parts.data)
    if parts.kind is not FrameKind.RAW:
        try:
            length = zstandard.get_frame_parameters(parts.data).content_size
        except zstandard.ZstdError:
            return changed
    return changed[:1] + (length % 2**32).to_bytes(4, "little") + changed[5:]


_BLOCK = spec.BLOCK


def _made(draw: Draw) -> HandMade:
    """An artifact that is mostly right: some frames in some packs, and a disk of runs of their chunks."""
    packs: list[Sequence[Frame]] = []
    plain: list[bytes] = []
    for _ in range(1 + draw.number(2)):
        frames: list[Frame] = []
        for _ in range(draw.number(3)):
            chunks = [bytes([draw.number(255)]) * (_BLOCK * (1 + draw.number(2))) for _ in range(1 + draw.number(2))]
            kind = draw.one_of((RAW, ZSTD, DELTA))
            base = draw.one_of(plain) if kind == DELTA and plain else b""
            if kind == DELTA:
                chunks = chunks[:1]
            each = frame(kind, *chunks, base=base)
            frames.append(_wrong(each, draw) if draw.rarely() else each)
            plain += chunks
        packs.append(frames)
    rows: list[tuple[int, int, int, int, int]] = []
    at = 0
    for _ in range(draw.number(5)):
        pack = draw.number(len(packs) - 1) if not draw.rarely() else draw.number(2**32 - 1)
        lengths = [length for each in packs[pack % len(packs)] for _, length in each.chunks]
        first = draw.number(max(len(lengths) - 1, 0)) if not draw.rarely() else draw.number(2**32 - 1)
        count = 1 + draw.number(2) if not draw.rarely() else draw.number(2**32 - 1)
        length = sum(lengths[first : first + count])
        if draw.rarely():
            length = draw.number(2**64 - 1)
        gap = _BLOCK * draw.number(3) if not draw.rarely() else draw.number(2**64 - 1)
        rows.append((gap, length, pack, first, count))
        at += gap + length
    size = (at + _BLOCK * draw.number(2) if not draw.rarely() else draw.number(2**64 - 1)) % 2**64
    extents = [(0, size)] if not draw.rarely() else [(draw.number(2**64 - 1), draw.number(2**64 - 1))]
    disk = Disk(size, extents if size else [], rows)
    made = HandMade([pack_bytes(frames) for frames in packs], [disk])
    if draw.rarely():
        made.config_size = draw.number(2**63 - 1)
    return made


def _wrong(each: Frame, draw: Draw) -> Frame:
    """A frame that lies."""
    kind = draw.one_of((each.kind, RAW, ZSTD, DELTA, 3))
    stored = draw.one_of((each.stored, each.stored[:-1], each.stored + b"\0", draw.some(), each.stored * 2))
    lengths = [(chunk_id, draw.one_of((length, length + 1, 0, 1, 2**32 - 1))) for chunk_id, length in each.chunks]
    ids = [(draw.one_of((chunk_id, bytes(32))), length) for chunk_id, length in lengths]
    base = draw.one_of((each.base, b"", blake3(b"").digest()))
    return Frame(kind, stored, ids, base, draw.one_of((each.reserved, b"\1\0\0")))


def _whole(data: bytes) -> list[bytes]:
    """The disk of a hand-made artifact, by way of the map, directories and frames."""
    made = _made(Draw(data))
    artifact = Artifact.load(made.blobs, made.store())
    disks = []
    for disk in artifact.map.disks:
        pieces = {}
        for placed in artifact.chunks(disk):
            for job in jobs(artifact.frames, placed.located, placed.offset):
                pieces.update({piece.offset: bytes(piece.data) for piece in job.run()})
        listed = [bytes(each) for placed in artifact.chunks(disk) for each in artifact.frames.chunks(placed.located)]
        assert b"".join(pieces[at] for at in sorted(pieces)) == b"".join(listed)
        for at, piece in pieces.items():
            assert 0 <= at <= at + len(piece) <= disk.size
        disks.append(b"".join(listed))
    return disks


class _File(NamedTuple):
    """As much of a DiskSource as a header needs."""

    data: bytes
    subject: str = "disk"

    def head(self, length: int) -> bytes:
        return self.data[:length]


def _qcow2(data: bytes) -> tuple[bytes, Overlay]:
    return data, Overlay.read(cast("DiskSource", _File(data)))


def _check_qcow2(parsed: tuple[bytes, Overlay]) -> None:
    data, overlay = parsed
    assert 0 <= overlay.virtual_size < 2**64
    if overlay.backing is not None:
        name = os.fsencode(overlay.backing)
        assert data[overlay.offset : overlay.offset + len(name)] == name
        assert 1 <= len(name) <= 1023
        assert len(name) <= overlay.room <= len(data) - overlay.offset


_MAX_READ = 1 << 20


def _tar(data: bytes) -> tuple[bytes, list[tuple[str, int, bytes]]]:
    """The members of an archive: names, sizes, and stored bytes."""
    source = io.BytesIO(data)
    plain = bytearray()

    def read(size: int) -> bytes:
        part = through(size)
        plain.extend(part)
        if len(plain) > 64 * _MAX_READ:
            raise DocumentError("archive", "too long for this test")
        return part

    through = compression.plain(source.read, subject="archive")
    members = []
    for member in TarReader(read, subject="archive"):
        stored = b"".join(iter(member.read, b""))
        assert len(stored) == member.stored
        if member.ranges is not None:
            assert int(member.ranges[:, 1].sum()) == member.stored <= max(member.size, 0)
        else:
            assert member.size == member.stored
        members.append((member.name, member.size, stored))
    return bytes(plain), members


def _without_the_rest(block: bytes) -> bytes:
    """A header without what casstore does not look at, and Python stumbles over: owners, times, devices; and the times
    that stand in old GNU headers where others have the start of the name.
    """
    if block[257:262] != b"ustar":
        return block
    block = block[:100] + b"0000000\0" * 3 + block[124:136] + bytes(12) + block[148:329] + bytes(16) + block[345:]
    if block[257:263] == b"ustar ":
        block = block[:345] + bytes(386 - 345) + (block[386:] if block[156:157] == b"S" else bytes(512 - 386))
    return mutators.with_checksum(block)


class _Info(tarfile.TarInfo):
    """A member whose long name has as many bytes as its header states, as for GNU tar; for Python it goes on up to the
    first NUL of its blocks.
    """

    def _proc_gnulong(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        assert archive.fileobj is not None
        at = archive.fileobj.tell()
        name = archive.fileobj.read(self.size).partition(b"\0")[0]
        archive.fileobj.seek(at)
        found: tarfile.TarInfo = super()._proc_gnulong(archive)  # type: ignore[misc]
        found.name = name.decode()
        return found


def _check_tar(found: tuple[bytes, list[tuple[str, int, bytes]]]) -> None:
    """Python's own reader sees the same archive."""
    plain, members = found
    blocks = [_without_the_rest(plain[at : at + 512]) for at in range(0, len(plain), 512)]
    others: list[tuple[str, int]] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(b"".join(blocks)), mode="r:", tarinfo=_Info) as opened:
            for each in opened:
                others.append((each.name, each.size))  # noqa: PERF401  (kept when the next one cannot be read)
    except tarfile.ReadError:  # Python wants a member behind global records, which `git archive` has alone
        if not any(block[156:157] == b"g" for block in blocks):
            raise
    assert [(name.rstrip("/"), size) for name, size, _ in members] == [
        (name.rstrip("/"), size) for name, size in others
    ]


TARGETS = (
    Target(
        name="map",
        read=_map,
        refuses=(CorruptContent,),
        check=_check_map,
        modules=("diskmap",),
        mutate=mutators.inside(_map_head, 16),
    ),
    Target(
        name="pack",
        read=_directory,
        refuses=(DocumentError,),
        check=_check_directory,
        modules=("pack",),
        mutate=mutators.directories,
    ),
    Target(
        name="frame",
        read=_frame,
        refuses=(CorruptContent,),
        check=_check_frame,
        modules=("frame",),
        mutate=_frames,
        words=(b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\xff\xff\xff\xff", b"\x01\0\0"),
    ),
    Target(
        name="disk",
        read=_whole,
        refuses=(CorruptContent,),
        modules=("artifact", "decoding", "directories", "diskmap", "pack"),
    ),
    Target(
        name="qcow2",
        read=_qcow2,
        refuses=(SourceError,),
        check=_check_qcow2,
        modules=("microsandbox.rootdisk",),
        max_len=1024,
    ),
    Target(
        name="tar",
        read=_tar,
        refuses=(DocumentError,),
        check=_check_tar,
        modules=("tar.reader", "tar.pax", "tar.sparse", "tar.fields", "tar.compression", "tar.stream"),
        mutate=mutators.tars,
        words=(b"ustar\x0000", b"ustar  \0", b"GNU.sparse.", b" path=", b" size=", b"\x28\xb5\x2f\xfd", b"major=1\n"),
        max_len=16384,
    ),
)
