"""Verifying a snapshot: its stored bytes, its chunks, and the integrity that was recorded for its content.

blobs     sha256 and size of every blob, as OCI wants it
chunks    every frame decoded, every chunk's BLAKE3; nothing but zeros outside of the extents
content   the recorded integrity of the whole disk (`upper.integrity` of the snapshot manifest)
"""

from __future__ import annotations

from dataclasses import dataclass

from casstore.artifact import Artifact
from casstore.content import Fetcher
from casstore.contents import UpperStatus, verify_integrity
from casstore.progress import Meter
from casstore.soundness import verify_chunks
from casstore.streams import read_through


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was verified, in numbers; a snapshot that does not verify raises instead."""

    blobs: int
    blob_bytes: int
    chunks: int
    upper: UpperStatus


def verify(artifact: Artifact, blobs: Fetcher, *, workers: int, meter: Meter) -> VerifyReport:
    """Verify everything that `artifact` is made of.

    Raises:
        NotFound, SizeMismatch, DigestMismatch: a blob is missing or damaged.
        CorruptContent: a frame or chunk is, or the content is not what was recorded.
        UnsupportedVersion: the recorded integrity is of an unknown algorithm.
    """
    names = artifact.manifest.children
    for blob in names:
        read_through(blobs, blob, meter.add)
    count = verify_chunks(artifact, known=lambda _: (), workers=workers)
    upper = verify_integrity(artifact, workers=workers, meter=meter)
    return VerifyReport(len(names) + 1, sum(blob.size for blob in names) + len(artifact.manifest.raw), count, upper)
