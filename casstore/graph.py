"""Copying a snapshot between two places: push and pull are this one function.

Children first, then the manifest, the name last: so a name at the destination never stands for something incomplete.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from casstore import spec
from casstore.content import Fetcher, Reader, Source, Target
from casstore.oci import ArtifactManifest, Descriptor
from casstore.progress import Meter
from casstore.streams import BytesSource, fetch_all

DEFAULT_CONCURRENCY = 4
_NOTICE = 0.2  # seconds


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy moved. Counts of blobs, the manifest included, and their bytes."""

    root: Descriptor
    copied: int
    copied_bytes: int
    skipped: int
    skipped_bytes: int


class _Metered:
    """A Fetcher that reports what is read through it."""

    def __init__(self, source: Fetcher, meter: Meter) -> None:
        self._source, self._meter = source, meter

    def fetch(self, descriptor: Descriptor) -> Reader:
        return _MeteredReader(self._source.fetch(descriptor), self._meter)


class _MeteredReader:
    def __init__(self, reader: Reader, meter: Meter) -> None:
        self._reader, self._meter, self._count = reader, meter, 0

    def read(self, size: int) -> bytes:
        data = self._reader.read(size)
        self._count += len(data)
        self._meter.add(len(data))
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._meter.add(-self._count)
        self._reader.__exit__(kind, error, None)


def read_manifest(source: Fetcher, root: Descriptor) -> ArtifactManifest:
    """The artifact manifest `root`, verified.

    Raises:
        UnsupportedVersion, DocumentError: it is no snapshot of casstore.
    """
    raw = fetch_all(source, root, limit=spec.MAX_MANIFEST)
    return ArtifactManifest.parse(raw, subject=f"snapshot {root.digest}")


def copy_graph(
    source: Source,
    target: Target,
    manifest: ArtifactManifest,
    *,
    tag: str | None,
    meter: Meter,
    concurrency: int = DEFAULT_CONCURRENCY,
) -> CopyReport:
    """Copy the artifact of `manifest` and let `tag` stand for it at the target.

    Every blob is asked for at the target first; a manifest that is there does not vouch for its blobs.

    Raises:
        CasstoreError: either side failed; the target then holds some blobs more, and no new name.
    """
    # Slow to import (with logging and more), and `casstore list` comes by here too.
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    root = manifest.descriptor
    metered = _Metered(source, meter)
    blobs = list(dict.fromkeys(manifest.children))

    def copy(blob: Descriptor) -> bool:
        if target.exists(blob):
            meter.add(blob.size)
            return False
        target.push(blob, metered)
        return True

    with ThreadPoolExecutor(concurrency, "copy") as pool:
        try:
            futures = [pool.submit(copy, blob) for blob in blobs]
            waiting = True
            while waiting:  # in short waits: a signal that another thread got is noticed between them only
                done, left = wait(futures, timeout=_NOTICE, return_when=FIRST_EXCEPTION)
                waiting = bool(left) and not any(future.exception() for future in done)
        finally:  # also when a signal ends it: leaving the pool would else copy all that is queued
            pool.shutdown(wait=False, cancel_futures=True)
        for future in done:
            future.result()
        moved = [blob for blob, future in zip(blobs, futures, strict=True) if future.result()]
    fresh = not target.exists(root)
    if fresh:
        target.push(root, BytesSource(manifest.raw))
    if tag is not None:
        target.tag(root, tag)
    copied = moved + [root] * fresh
    total = sum(blob.size for blob in blobs) + root.size
    copied_bytes = sum(blob.size for blob in copied)
    return CopyReport(root, len(copied), copied_bytes, len(blobs) + 1 - len(copied), total - copied_bytes)
