"""The members of an archive being written, and what its inventory will say of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from casstore.archive import inventory
from casstore.archive.image import ImageFile
from casstore.archive.inventory import Entry
from casstore.archive.pieces import ranges_of, stored_bytes
from casstore.archive.transport import Transport
from casstore.artifact import Artifact
from casstore.diskmap import DiskMap
from casstore.errors import SourceError
from casstore.frame import Buffer
from casstore.integrity import SHA256, ContentHasher, hasher
from casstore.progress import Meter
from casstore.spec import MIB
from casstore.tar.sparse import Ranges
from casstore.tar.writer import TarWriter


@dataclass(slots=True)
class Members:
    """What is written through this is remembered in `entries`."""

    tar: TarWriter
    workers: int
    meter: Meter
    entries: dict[str, Entry] = field(default_factory=dict)

    def document(self, path: str, data: bytes, *, kind: str = inventory.DESCRIPTOR, owner: str | None = None) -> None:
        """Write a small file.

        Raises:
            UsageError: the name does not fit into a tar header.
        """
        self.tar.add(path, data)
        transport = Transport.of(kind, path, data)
        integrity = inventory.sha256_object(data)
        self.entries[path] = Entry(path, owner, kind, len(data), len(data), (), integrity, transport)

    def disk(
        self,
        path: str,
        artifact: Artifact,
        disk: DiskMap,
        *,
        owner: str | None = None,
        integrity: Mapping[str, object] | None = None,
        digester: ContentHasher | None = None,
        within_header: bool = False,
    ) -> None:
        """Write a stored disk; `digester` is fed with it. `within_header`: with its largest holes only, see sparse.

        Raises:
            UsageError: the name does not fit into a tar header.
            CorruptContent: a frame is damaged.
        """
        ranges = ranges_of(disk, within_header=within_header)
        pieces = stored_bytes(artifact, disk, ranges, workers=self.workers, hasher=digester)
        counted = _told(pieces, _up_to(disk.allocated, self.meter))
        self._stream(path, disk.size, ranges, counted, inventory.PAYLOAD, owner, integrity)

    def image(self, path: str, file: ImageFile) -> None:
        """Write a file of the image.

        Raises:
            SourceError: it cannot be read.
        """
        kind = inventory.IMAGE_METADATA if file.is_metadata else inventory.IMAGE_OBJECT
        try:
            with open(file.path, "rb") as opened:
                size = os.fstat(opened.fileno()).st_size
                hashed = hasher("sha256", size)
                if size:
                    hashed.begin_extent(0, size)
                pieces = _told(_read(opened.read, size, file.path), hashed.update)
                self._stream(path, size, None, pieces, kind, None, None)
        except OSError as error:
            raise SourceError(f"image file {file.path!r}: {error.strerror}") from error
        integrity = {"algorithm": SHA256, "digest": hashed.finish()}
        self.entries[path] = replace(self.entries[path], integrity=integrity)

    def _stream(
        self,
        path: str,
        size: int,
        ranges: Ranges | None,
        pieces: Iterable[Buffer],
        kind: str,
        owner: str | None,
        integrity: Mapping[str, object] | None,
    ) -> None:
        stored = size if ranges is None else int(ranges[:, 1].sum())
        transport = Transport(kind, path, stored, size, ranges)
        self.tar.stream(path, size, ranges, _told(pieces, transport.update))
        rows = () if ranges is None else tuple((offset, length) for offset, length in ranges.tolist())
        self.entries[path] = Entry(path, owner, kind, stored, size, rows, integrity, transport.finish())


def _told(pieces: Iterable[Buffer], tell: Callable[[Buffer], object]) -> Iterator[Buffer]:
    for piece in pieces:
        tell(piece)
        yield piece


def _up_to(most: int, meter: Meter) -> Callable[[Buffer], None]:
    """Tells the meter of so many bytes: what more there is are zeros in the place of holes."""
    left = most

    def tell(piece: Buffer) -> None:
        nonlocal left
        count = min(len(piece), left)
        left -= count
        meter.add(count)

    return tell


def _read(read: Callable[[int], bytes], size: int, path: str) -> Iterator[bytes]:
    """Just as many bytes as the file had when it was opened."""
    while size:
        part = read(min(size, MIB))
        if not part:
            raise SourceError(f"{path!r}: it became shorter while it was read")
        size -= len(part)
        yield part
