"""What must hold before an artifact gets a name in a store: every chunk that its packs claim to have is right.

The claims of a pack's directory enter dedup with the name, so a wrong one would spoil later snapshots too:
the chunks that this artifact does not use are checked as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from casstore.artifact import Artifact, FrameUse, verified_chunks
from casstore.diskmap import DiskMap, Runs
from casstore.errors import CorruptContent
from casstore.extents import Extents
from casstore.oci import Descriptor
from casstore.pool import default_workers, ordered_map


def verify_chunks(artifact: Artifact, *, known: Callable[[Descriptor], Collection[int]], workers: int) -> int:
    """Decode and check every chunk that the catalog may later offer for dedup, but not those of each pack that are
    `known` to be right, and check what the map says of them. Returns how many chunks were decoded.

    Raises:
        CorruptContent: a frame or chunk is damaged, a delta's base is missing, or bytes outside of extents are not 0.
    """
    usable = [verified_chunks(artifact, directory) for directory in artifact.directories]
    for disk in artifact.map.disks:
        for pack, used, verifiable in zip(artifact.manifest.packs, artifact.used(disk), usable, strict=True):
            if (used & ~verifiable).any():
                subject = f"snapshot {artifact.digest}: pack {pack.digest}"
                raise CorruptContent(f"{subject}: a delta's base is in none of the snapshot's packs")

    def unknown() -> Iterator[FrameUse]:
        for n, pack in enumerate(artifact.manifest.packs):
            mask = usable[n].copy()
            mask[list(known(pack))] = False
            yield from artifact.frames_of(n, np.flatnonzero(mask))

    workers = workers or default_workers()
    count = 0
    with ThreadPoolExecutor(workers, "verify") as pool:
        for pieces in ordered_map(pool, artifact.read, unknown(), ahead=4 * workers):
            count += len(pieces)
        for disk in artifact.map.disks:
            extents = Extents(disk)
            for pieces in ordered_map(pool, artifact.read, _sticking_out(artifact, disk, extents), ahead=4 * workers):
                for offset, data in pieces:
                    extents.parts(offset, data)
    return count


def _sticking_out(artifact: Artifact, disk: DiskMap, extents: Extents) -> Iterator[FrameUse]:
    """The pieces of a disk that reach out of its extents."""
    for use in artifact.uses(_runs_that_stick_out(disk, extents), by_frame=True):
        offset = np.array([piece.offset for piece in use.pieces], np.int64)
        length = np.array([piece.length for piece in use.pieces], np.int64)
        out = extents.stick_out(offset, length).tolist()
        if any(out):
            yield use._replace(pieces=[piece for piece, sticks in zip(use.pieces, out, strict=True) if sticks])


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
