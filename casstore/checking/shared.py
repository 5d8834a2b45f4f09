"""The directories of packs, for looking at many snapshots that share them: each is read once, as far as memory goes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from casstore import spec
from casstore.content import RangeReader
from casstore.directories import Directories, Table
from casstore.diskmap import PackEntry
from casstore.oci import Descriptor

_MOST = 32 * spec.MIB
"""Bytes of packs' directories that are kept in memory."""


class Tables:
    """The directories of packs that were looked at last: snapshots share packs."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, bytes], Table] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[str, bytes], load: Callable[[], Table]) -> Table:
        """The one of this pack and stamp."""
        table = self._kept.get(key)
        if table is not None:
            self._kept.move_to_end(key)
            return table
        table = self._kept[key] = load()
        self._bytes += table.bytes
        while self._bytes > _MOST and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].bytes
        return table


class SharedDirectories(Directories):
    """Directories of one snapshot, of which others may have been needed for another one."""

    def __init__(
        self, blobs: RangeReader, packs: Sequence[Descriptor], entries: Sequence[PackEntry], tables: Tables
    ) -> None:
        super().__init__(blobs, packs, entries)
        self._keys = [(pack.digest.hex, entry.directory) for pack, entry in zip(packs, entries, strict=True)]
        self._tables = tables

    def table(self, pack: int) -> Table:
        return self._tables.get(self._keys[pack], partial(super().table, pack))
