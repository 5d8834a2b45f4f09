"""What must hold before an artifact gets a name in a store: every chunk that its packs claim to have is right.

The claims of a pack's directory enter dedup with the name, so a wrong one would spoil later snapshots too:
the chunks that this artifact does not use are checked as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from casstore.artifact import Artifact, verified_chunks
from casstore.content import RangeReader
from casstore.decoding import Job, check_full_frames, jobs
from casstore.digest import Digest
from casstore.directories import own_directory
from casstore.diskmap import DiskMap, Runs
from casstore.errors import CorruptContent
from casstore.extents import Extents
from casstore.oci import Descriptor
from casstore.pool import default_workers, ordered_map

_WINDOW = 65_536
"""Chunks planned at a time (about 1.5 GiB of plain bytes)."""


def verify_pack(blobs: RangeReader, pack: Descriptor) -> None:
    """Verify one pack for itself, as soon as it is there: all of its chunks but the deltas, which need other packs.

    Raises:
        DocumentError: its directory breaks its rules.
        NotFound, SizeMismatch: it is missing or damaged.
        CorruptContent: a frame or chunk is.
    """
    check_full_frames(blobs, pack, own_directory(blobs, pack))


def verify_chunks(
    artifact: Artifact,
    *,
    known: Callable[[Descriptor], Collection[int]],
    proven: Collection[Digest] = frozenset(),
    workers: int,
) -> int:
    """Decode and check every chunk that the catalog may later offer for dedup, but not those of each pack that are
    `known` to be right, nor what `verify_pack` has looked at in those that are `proven`; and check what the map says of
    them. Returns how many chunks were decoded.

    Raises:
        CorruptContent: a frame or chunk is damaged, a delta's base is missing, or bytes outside of extents are not 0.
    """
    count = verify_claims(artifact, known=known, proven=proven, workers=workers)
    workers = workers or default_workers()
    with ThreadPoolExecutor(workers, "verify") as pool:
        for disk in artifact.map.disks:
            extents = Extents(disk)

            def check(job: Job, extents: Extents = extents) -> None:
                for offset, data, _ in job.run():
                    extents.parts(offset, data)

            for _ in ordered_map(pool, check, _sticking_out(artifact, disk, extents), ahead=2 * workers):
                pass
    return count


def verify_claims(
    artifact: Artifact,
    *,
    known: Callable[[Descriptor], Collection[int]],
    proven: Collection[Digest] = frozenset(),
    workers: int,
) -> int:
    """The first half of `verify_chunks`: what the packs' directories say, and nothing of what the map says.

    Raises:
        CorruptContent: a frame or chunk is damaged, or a delta's base is missing.
    """
    workers = workers or default_workers()
    with ThreadPoolExecutor(workers, "verify") as pool:
        return sum(ordered_map(pool, _decode, _unknown(artifact, known, proven), ahead=2 * workers))


def _decode(job: Job) -> int:
    for _ in job.run():
        pass
    return len(job)


def _unknown(
    artifact: Artifact, known: Callable[[Descriptor], Collection[int]], proven: Collection[Digest]
) -> Iterator[Job]:
    """The chunks to decode; those of many packs together, so that a frame is decoded once for the deltas of all."""
    used = zip(*(artifact.used(disk) for disk in artifact.map.disks), strict=True)
    packs: list[npt.NDArray[np.int64]] = []
    chunks: list[npt.NDArray[np.int64]] = []
    waiting = 0
    for n, (pack, masks) in enumerate(zip(artifact.manifest.packs, used, strict=True)):
        usable = verified_chunks(artifact, artifact.directories[n])
        if any((mask & ~usable).any() for mask in masks):
            subject = f"snapshot {artifact.digest}: pack {pack.digest}"
            raise CorruptContent(f"{subject}: a delta's base is in none of the snapshot's packs")
        if pack.digest in proven:
            usable &= artifact.directories.table(n).deltas()
        right = np.fromiter(known(pack), np.int64)
        usable[right[right < len(usable)]] = False  # a torn catalog may say anything
        wanted = np.flatnonzero(usable)
        packs.append(np.full(len(wanted), n, np.int64))
        chunks.append(wanted)
        waiting += len(wanted)
        if waiting >= _WINDOW or n + 1 == len(artifact.manifest.packs):
            pack_column, chunk_column = np.concatenate(packs), np.concatenate(chunks)
            for at in range(0, waiting, _WINDOW):
                rows = slice(at, at + _WINDOW)
                yield from jobs(artifact.frames, artifact.directories.locate(pack_column[rows], chunk_column[rows]))
            packs, chunks, waiting = [], [], 0


def _sticking_out(artifact: Artifact, disk: DiskMap, extents: Extents) -> Iterator[Job]:
    """The chunks of a disk that reach out of its extents."""
    for placed in artifact.chunks(_runs_that_stick_out(disk, extents)):
        out = np.flatnonzero(extents.stick_out(placed.offset, placed.located.length))
        yield from jobs(artifact.frames, placed.located.take(out), placed.offset[out])


def _runs_that_stick_out(disk: DiskMap, extents: Extents) -> DiskMap:
    """The disk with those runs only that are not wholly allocated: few, and no others need to be taken apart."""
    runs = disk.runs
    lengths = runs.length.astype(np.int64)
    offsets = np.cumsum(runs.gap.astype(np.int64) + lengths) - lengths
    if (extents.allocated(offsets, lengths) == 0).any():
        raise CorruptContent(f"disk {disk.name}: a run lies wholly outside of the extents, where all bytes are zero")
    keep = extents.stick_out(offsets, lengths)
    starts, ends = offsets[keep], (offsets + lengths)[keep]
    gaps = (starts - np.concatenate([[0], ends[:-1]])[: len(starts)]).astype(np.uint64)
    return replace(disk, runs=Runs(gaps, runs.length[keep], runs.pack[keep], runs.first[keep], runs.count[keep]))
