"""A damaged snapshot, as far as its documents can be read: a pack without a readable directory counts as empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from casstore.artifact import Artifact
from casstore.byteranges import Rows
from casstore.content import RangeReader
from casstore.directories import Directories, Table
from casstore.diskmap import DiskMap, PackEntry, Runs
from casstore.errors import CasstoreError
from casstore.oci import Descriptor
from casstore.pack import PackDirectory

_EMPTY = Table(PackDirectory.build(kinds=b"", counts=[], stored=[], ids=b"", lengths=[], base_ids=b"")[0])


class _Readable(Directories):
    """Directories, of which some are empty because they cannot be read."""

    def __init__(self, blobs: RangeReader, packs: Sequence[Descriptor], entries: Sequence[PackEntry]) -> None:
        super().__init__(blobs, packs, entries)
        self.lost: dict[int, CasstoreError] = {}
        for pack in range(len(packs)):
            try:
                self.table(pack)
            except CasstoreError as error:
                self.lost[pack] = error

    def table(self, pack: int) -> Table:
        return _EMPTY if pack in self.lost else super().table(pack)


@dataclass(frozen=True, slots=True, eq=False)
class Remains:
    """What can be known of a snapshot. Its chunks may still turn out to be damaged, or without their base."""

    artifact: Artifact
    """Its map names the chunks of readable packs only; the rest of it is as it was."""
    disks: tuple[DiskMap, ...]
    """As the map has them."""
    lost: Mapping[int, CasstoreError]
    """The packs whose directory cannot be read, by their number in the map, and why not."""

    @classmethod
    def load(cls, blobs: RangeReader, root: Descriptor) -> Self:
        """Read what can be read.

        Raises:
            NotFound, CorruptContent, StorageError: the manifest, the config or the map cannot be read; without these
                nothing is known.
        """
        whole = Artifact.load(blobs, root, check=False)
        directories = _Readable(blobs, whole.manifest.packs, whole.map.packs)
        disks = tuple(replace(disk, runs=_without(disk.runs, directories.lost)) for disk in whole.map.disks)
        artifact = Artifact(blobs, whole.manifest, whole.config, replace(whole.map, disks=disks), directories)
        artifact.check_runs()
        return cls(artifact, whole.map.disks, directories.lost)

    def missing(self, disk: int) -> Rows:
        """What of a disk lies in the packs that are lost, in order."""
        runs = self.disks[disk].runs
        gone = np.isin(runs.pack, list(self.lost))
        length = runs.length.astype(np.int64)
        return np.stack([_ends(runs)[gone] - length[gone], length[gone]], axis=1)


def _without(runs: Runs, lost: Mapping[int, CasstoreError]) -> Runs:
    """The runs that are in other packs, at the same places."""
    if not lost:
        return runs
    kept = ~np.isin(runs.pack, list(lost))
    ends, length = _ends(runs)[kept], runs.length[kept]
    gap = (ends - length.astype(np.int64)) - np.concatenate([[0], ends[:-1]])
    return Runs(gap.astype("<u8"), length, runs.pack[kept], runs.first[kept], runs.count[kept])


def _ends(runs: Runs) -> npt.NDArray[np.int64]:
    return np.cumsum(runs.gap.astype(np.int64) + runs.length.astype(np.int64), dtype=np.int64)
