"""Which stored snapshot a disk is likely to have come from: what it is compared with, and deltas are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from casstore.catalog import Catalog
from casstore.digest import ChunkId, Digest
from casstore.manifest import SCRATCH, ImageRef


def choose_base(
    catalog: Catalog,
    *,
    parent: Digest | None,
    same_source: Digest | None,
    image: ImageRef,
    sample: Callable[[], Sequence[ChunkId]],
) -> Digest | None:
    """The first that the store has of: the parent, the newest snapshot of the same source, the newest of the same base
    image, and the one that shares most with a `sample` of the disk's chunks.
    """
    for digest in (parent, same_source):
        if digest is not None and catalog.entries([digest]):
            return digest
    if image != SCRATCH and (digest := catalog.newest_of_image(image.manifest_digest)) is not None:
        return digest
    return catalog.best_match(sample()) if catalog.count() else None
