"""Writes a snapshot's disk back: the same bytes, and the same extents.

Into a file, in the order that costs least; into a pipe, all chunks in the order of the disk, with every zero written
out.
"""

from __future__ import annotations

from collections.abc import Callable

from casstore import durable
from casstore.artifact import Artifact
from casstore.contents import plain_bytes
from casstore.diskmap import DiskMap
from casstore.frame import Buffer
from casstore.progress import Meter
from casstore.seeds import Seeds
from casstore.writing import DiskWriter, decode_all


def write_disk(
    artifact: Artifact, disk: DiskMap, fd: int, *, workers: int, meter: Meter, seeds: Seeds | None = None
) -> None:
    """Write `disk` into the empty regular file `fd`. `seeds` have learned where the disk's chunks are.

    Raises:
        CorruptContent: a frame is damaged; what the file holds then is worthless.
        StorageError: the file cannot be written.
    """
    DiskWriter(artifact, disk, fd, decode=decode_all(artifact), seeds=seeds).write(disk, workers=workers, meter=meter)


def restore_file(
    artifact: Artifact,
    disk: DiskMap,
    path: str,
    *,
    force: bool,
    workers: int,
    meter: Meter,
    durability: durable.Durability,
    seeds: Seeds | None = None,
) -> None:
    """Write `disk` to the new file `path`; it appears under its name when it is complete and durable. `seeds` have
    learned where the disk's chunks are; `path` itself may be one of them.

    Raises:
        AlreadyExists: `path` exists, and `force` is not set.
        CorruptContent, NotFound, StorageError: nothing is at `path` then, or what was there before.
    """
    with durable.new_file(path, replace=force, durability=durability) as fd:
        write_disk(artifact, disk, fd, workers=workers, meter=meter, seeds=seeds)


def restore_stream(
    artifact: Artifact, disk: DiskMap, write: Callable[[Buffer], object], *, workers: int, meter: Meter
) -> None:
    """Write all bytes of `disk`, holes as zeros, in order.

    Raises:
        CorruptContent: a frame is damaged; what was written before is right, and the rest is missing.
    """
    for data in plain_bytes(artifact, disk, workers=workers):
        write(data)
        meter.add(len(data))
