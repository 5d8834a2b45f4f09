"""Verifying a snapshot: its stored bytes, its chunks, and the integrity that was recorded for its content.

blobs     sha256 and size of every blob, as OCI wants it
chunks    every frame decoded, every chunk's BLAKE3; nothing but zeros outside of the extents
content   the recorded integrity of the whole disk (`upper.integrity` of the snapshot manifest)
"""

from __future__ import annotations

from dataclasses import dataclass

from casstore.artifact import Artifact
from casstore.content import Fetcher
from casstore.contents import hash_disk
from casstore.errors import DigestMismatch
from casstore.intake import verify_chunks
from casstore.integrity import candidates, hasher
from casstore.oci import Descriptor
from casstore.progress import Meter
from casstore.streams import COPY_CHUNK


@dataclass(frozen=True, slots=True)
class UpperStatus:
    """What the recorded integrity says. `kind` is "not_recorded" or "verified"; `meaning` is the algorithm that held,
    in the command line's spelling: msb-sparse-sha256-v1 has two meanings.
    """

    kind: str
    algorithm: str | None = None
    digest: str | None = None
    meaning: str | None = None


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
        _read_through(blobs, blob, meter)
    count = verify_chunks(artifact, known=lambda _: (), workers=workers)
    upper = verify_integrity(artifact, workers=workers, meter=meter)
    return VerifyReport(len(names) + 1, sum(blob.size for blob in names) + len(artifact.manifest.raw), count, upper)


def _read_through(blobs: Fetcher, blob: Descriptor, meter: Meter) -> None:
    with blobs.fetch(blob) as reader:
        while part := reader.read(COPY_CHUNK):
            meter.add(len(part))


def verify_integrity(artifact: Artifact, *, workers: int, meter: Meter) -> UpperStatus:
    """Compare the first disk's content with the recorded integrity.

    Raises:
        DigestMismatch: none of the meanings of the recorded algorithm gives the recorded digest.
        UnsupportedVersion: the algorithm is unknown.
    """
    recorded = artifact.config.upper.integrity
    if recorded is None:
        return UpperStatus("not_recorded")
    disk = artifact.map.disks[0]
    spellings = candidates(recorded.algorithm, subject=f"snapshot {artifact.digest}")
    hashers = [hasher(spelling, disk.size) for spelling in spellings]
    hash_disk(artifact, disk, hashers, workers=workers, meter=meter)
    digests = [each.finish() for each in hashers]
    if recorded.digest not in digests:
        subject = f"snapshot {artifact.digest}: upper digest mismatch ({recorded.algorithm})"
        raise DigestMismatch(subject, expected=recorded.digest, got=" or ".join(digests))
    return UpperStatus("verified", recorded.algorithm, recorded.digest, spellings[digests.index(recorded.digest)])
