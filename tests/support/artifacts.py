"""Artifacts to attack readers with: packs, maps and manifests put together by hand, and a store of blobs in memory.

Everything here is written from the layouts in docs/reference/format.md with `struct` alone, and shares no code with
what it tests: it can write down what casstore's own writers cannot.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zstandard
from blake3 import blake3

from casstore import spec
from casstore.artifact import Artifact
from casstore.binding import Created
from casstore.capture import CaptureOptions
from casstore.create import Description, build
from casstore.digest import ChunkId, Digest
from casstore.disk import DiskSource
from casstore.errors import NotFound, SizeMismatch
from casstore.manifest import ImageRef, Manifest, SnapshotFormat, UpperLayer
from casstore.oci import ArtifactManifest, Descriptor
from casstore.pack import FOOTER_SIZE, PackDirectory, Place, StoredPack

RAW, ZSTD, DELTA = 0, 1, 2
CREATED_AT = 1_735_689_600 * 10**9


class MemoryBlobs:
    """Blobs in memory: a RangeReader, and a Destination whose look-ups know every pack that was `remember`ed."""

    def __init__(self) -> None:
        self.contents: dict[Digest, bytes] = {}
        self.places: dict[ChunkId, list[Place]] = {}
        self.reads: list[tuple[Digest, int, int]] = []

    def add(self, data: bytes, media_type: str) -> Descriptor:
        descriptor = Descriptor.of(data, media_type)
        self.contents[descriptor.digest] = data
        return descriptor

    def new_blob(self) -> MemoryBlob:
        return MemoryBlob(self)

    scratch = "/nonexistent"

    def lookup(
        self, ids: Sequence[ChunkId], *, prefer: Collection[Digest] = (), full: bool = False
    ) -> Mapping[ChunkId, Place]:
        assert len(set(ids)) == len(ids)
        found: dict[ChunkId, Place] = {}
        for chunk_id in ids:
            places = sorted(self.places.get(chunk_id, ()), key=lambda place: place.pack.descriptor.digest not in prefer)
            for place in places:
                directory = self.directory(place.pack)
                if not full or directory.base_of(directory.frame_of(place.chunk)) is None:
                    found.setdefault(chunk_id, place)
        return found

    def directory(self, pack: StoredPack) -> PackDirectory:
        return read_directory(self.contents[pack.descriptor.digest])

    def verified(self, pack: Descriptor) -> Collection[int]:
        return range(len(read_directory(self.contents[pack.digest])))

    def distrust(self, packs: Collection[str]) -> None:
        for chunk_id, places in self.places.items():
            self.places[chunk_id] = [place for place in places if str(place.pack.descriptor.digest) not in packs]

    def read_range(self, descriptor: Descriptor, offset: int, length: int) -> bytes:
        self.reads.append((descriptor.digest, offset, length))
        data = self.contents.get(descriptor.digest)
        if data is None:
            raise NotFound(f"blob {descriptor.digest}")
        if len(data) != descriptor.size:
            raise SizeMismatch(f"blob {descriptor.digest}", expected=descriptor.size, got=len(data))
        assert 0 <= offset <= offset + length <= len(data)
        return data[offset : offset + length]

    def remember(self, packs: Iterable[Descriptor]) -> None:
        """Let look-ups find the chunks of these packs."""
        for pack in packs:
            directory = read_directory(self.contents[pack.digest])
            for n in range(len(directory)):
                place = Place(StoredPack(pack, directory.stamp), n)
                places = self.places.setdefault(directory.chunk_id(n), [])
                if place not in places:
                    places.append(place)

    def create(
        self,
        path: Path,
        *,
        workers: int = 2,
        level: int = 3,
        integrity: str | None = None,
        base: Descriptor | None = None,
    ) -> tuple[Created, ArtifactManifest]:
        """Capture a disk."""
        with DiskSource.open(path) as source:
            made = build(
                source,
                self,
                Description(integrity=integrity),
                options=CaptureOptions(level=level, workers=workers),
                base=None if base is None else Artifact.load(self, base),
                clock=lambda: CREATED_AT,
            )
        return made, ArtifactManifest.parse(self.contents[made.root.digest], subject="made")

    def capture(self, path: Path, base: Artifact | None = None) -> Artifact:
        """Capture a disk, and let look-ups find its chunks."""
        made, manifest = self.create(path, base=None if base is None else base.manifest.descriptor)
        self.remember(manifest.packs)
        return Artifact.load(self, made.root)


class MemoryBlob:
    """A blob being written into a MemoryBlobs."""

    def __init__(self, blobs: MemoryBlobs) -> None:
        self._blobs, self._data = blobs, bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._data += data

    def finish(self, media_type: str) -> Descriptor:
        return self._blobs.add(bytes(self._data), media_type)


def read_directory(pack: bytes) -> PackDirectory:
    """The directory of a whole pack."""
    return PackDirectory.parse(pack[-directory_length(pack) :], len(pack), subject="pack")


def directory_length(pack: bytes) -> int:
    """Bytes of directory and footer of a whole pack."""
    frames, chunks, bases = struct.unpack("<III", pack[-FOOTER_SIZE : -FOOTER_SIZE + 12])
    length: int = frames * 12 + chunks * 36 + bases * 32 + FOOTER_SIZE
    return length


@dataclass(frozen=True)
class Frame:
    """A frame as a pack's directory describes it. `plain` lengths may lie."""

    kind: int
    stored: bytes
    chunks: Sequence[tuple[bytes, int]]
    """(BLAKE3-256, plain length) of each."""
    base: bytes = b""
    reserved: bytes = b"\0\0\0"


def frame(kind: int, *chunks: bytes, base: bytes = b"") -> Frame:
    """A right frame of these chunks' plain bytes."""
    plain = b"".join(chunks)
    if kind == RAW:
        stored = plain
    elif kind == ZSTD:
        stored = zstandard.ZstdCompressor(level=3).compress(plain)
    else:
        words = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        stored = zstandard.ZstdCompressor(level=3, dict_data=words).compress(plain)
    ids = [(blake3(chunk).digest(), len(chunk)) for chunk in chunks]
    return Frame(kind, stored, ids, blake3(base).digest() if kind == DELTA else b"")


def directory_bytes(
    frames: Sequence[Frame], *, counts: tuple[int, int, int] | None = None, zero: int = 0, magic: bytes = b"CASPACK1"
) -> bytes:
    """The directory and footer of a pack."""
    chunks = [chunk for each in frames for chunk in each.chunks]
    bases = b"".join(each.base for each in frames)
    out = b"".join(
        struct.pack("<B3sII", each.kind, each.reserved, len(each.chunks), len(each.stored)) for each in frames
    )
    out += b"".join(chunk_id for chunk_id, _ in chunks)
    out += b"".join(struct.pack("<I", length) for _, length in chunks)
    out += bases
    counts = counts or (len(frames), len(chunks), len(bases) // 32)
    return out + struct.pack("<IIII8s", *counts, zero, magic)


def pack_bytes(frames: Sequence[Frame], directory: bytes | None = None) -> bytes:
    """A whole pack."""
    directory = directory_bytes(frames) if directory is None else directory
    return b"CASPACK1" + b"".join(each.stored for each in frames) + directory


@dataclass(frozen=True)
class Disk:
    """A disk of a map: extents as (gap, length), runs as (gap, length, pack, first chunk, chunks)."""

    size: int
    extents: Sequence[tuple[int, int]] = ()
    runs: Sequence[tuple[int, int, int, int, int]] = ()
    name: bytes = b"disk.raw"

    def encode(self) -> bytes:
        out = struct.pack("<B", len(self.name)) + self.name
        out += struct.pack("<QII", self.size, len(self.extents), len(self.runs))
        for column in range(2):
            out += b"".join(struct.pack("<Q", extent[column]) for extent in self.extents)
        for column, form in enumerate(("<Q", "<Q", "<I", "<I", "<I")):
            out += b"".join(struct.pack(form, run[column]) for run in self.runs)
        return out


def map_body(packs: Sequence[tuple[bytes, bytes]], disks: Sequence[Disk]) -> bytes:
    """A map's body; `packs` are (sha256 of the pack, stamp of its directory)."""
    out = struct.pack("<II", len(packs), len(disks))
    return out + b"".join(sha + directory for sha, directory in packs) + b"".join(disk.encode() for disk in disks)


def map_blob(body: bytes, *, length: int | None = None, magic: bytes = b"CASMAP1\n") -> bytes:
    """A map around a body."""
    header = struct.pack("<8sQ", magic, len(body) if length is None else length)
    return header + zstandard.ZstdCompressor(level=3).compress(body)


@dataclass
class HandMade:
    """An artifact put together from packs and disks; each part can be replaced by a wrong one."""

    packs: Sequence[bytes]
    disks: Sequence[Disk]
    listed: Sequence[tuple[bytes, bytes]] | None = None
    """What the map says of the packs, if not the truth."""
    layers: Sequence[Descriptor] | None = None
    """The manifest's packs, if not the truth."""
    config_size: int | None = None
    config_file: str | None = None
    """What the config says of the first disk, if not the truth."""
    map: bytes | None = None
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)

    def store(self) -> Descriptor:
        """Put every blob into `blobs`; the artifact manifest's descriptor."""
        layers = [self.blobs.add(pack, spec.MEDIA_PACK) for pack in self.packs]
        listed = [pack_entry(pack) for pack in self.packs] if self.listed is None else self.listed
        mapped = map_blob(map_body(listed, self.disks)) if self.map is None else self.map
        size = self.disks[0].size if self.config_size is None else self.config_size
        file = self.disks[0].name.decode() if self.config_file is None else self.config_file
        config = self.blobs.add(config_bytes(size, file), spec.MEDIA_CONFIG)
        manifest = ArtifactManifest.build(
            config=config,
            layers=[self.blobs.add(mapped, spec.MEDIA_MAP), *(layers if self.layers is None else self.layers)],
            annotations={},
        )
        return self.blobs.add(manifest.raw, spec.MEDIA_MANIFEST)


def pack_entry(pack: bytes) -> tuple[bytes, bytes]:
    """What a map says of a pack."""
    return hashlib.sha256(pack).digest(), stamp(pack[-directory_length(pack) :])


def stamp(directory: bytes) -> bytes:
    """What a map says of a pack's directory."""
    return blake3(directory).digest() + struct.pack("<I", len(directory))


def config_bytes(size: int, disk: str = "disk.raw") -> bytes:
    """A snapshot manifest of one raw disk."""
    return Manifest(
        format=SnapshotFormat.RAW,
        fstype="unknown",
        image=ImageRef(ref="scratch", manifest_digest=str(Digest.of(b""))),
        parent=None,
        created_at="2025-01-01T00:00:00Z",
        labels={},
        upper=UpperLayer(file=disk, size_bytes=size, integrity=None),
        source_sandbox=None,
    ).to_bytes()
