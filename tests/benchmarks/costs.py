"""A model of what a push and a pull cost: their bytes, requests and seconds, for one host and for many at once.

    seconds = start + requests one after the other x round trip + the slower one of the way and the machine

What a client costs by itself (`Client`) is measured on small disks by tests/benchmarks/scaling.py, which also holds the
model against transfers that it did not see. Bytes and seconds everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from casstore import spec
from casstore.digest import Digest
from casstore.graph import DEFAULT_CONCURRENCY
from casstore.oci import ArtifactManifest, Descriptor
from casstore.packer import PACKS_OF_A_SIZE

PER_BLOB_PUSHED, PER_PUSH = 3, 5
"""Requests: is it there, begin an upload, finish it; and for the manifest and its name."""
PER_BLOB_PULLED, PER_PULL = 1, 1
HEADERS = 450
"""Bytes of a request's and its answer's headers, about."""


@dataclass(frozen=True)
class Link:
    """The way to a registry."""

    rate: float
    """Bytes a second."""
    round_trip: float = 0.0


@dataclass(frozen=True)
class Client:
    """What one kind of transfer costs where the way to the registry costs nothing."""

    start: float
    """Seconds until the first request, and after the last one."""
    moving: float
    """Seconds a byte while it moves: reading, hashing, writing."""
    checking: float = 0.0
    """Seconds a byte of the disk, to decode it and check it."""


@dataclass(frozen=True)
class Cost:
    """What a transfer costs."""

    bytes: float
    requests: float
    seconds: float


def pushed(stored: int, blobs: int, client: Client, link: Link) -> Cost:
    """Push `blobs` blobs of `stored` bytes in all to a registry that has none of them."""
    return _moved(stored, blobs, client, link, (PER_BLOB_PUSHED, PER_PUSH))


def pulled(stored: int, blobs: int, client: Client, link: Link, plain: int = 0) -> Cost:
    """Pull them to a place that has none of them, and check what decodes to `plain` bytes of a disk."""
    return _moved(stored, blobs, client, link, (PER_BLOB_PULLED, PER_PULL), plain)


def _moved(stored: int, blobs: int, client: Client, link: Link, asked: tuple[int, int], plain: int = 0) -> Cost:
    per_blob, fixed = asked
    requests = fixed + per_blob * blobs
    waited = (fixed + per_blob * ceil(blobs / DEFAULT_CONCURRENCY)) * link.round_trip
    moved = stored + HEADERS * requests
    # What has come is checked while more comes.
    busy = max(moved / link.rate, moved * client.moving + plain * client.checking)
    return Cost(moved, requests, client.start + waited + busy)


@dataclass(frozen=True)
class Registry:
    """What serves many hosts; each mirror is as strong as the registry itself."""

    rate: float
    """Bytes a second that it sends."""
    mirrors: int = 0


def herd(hosts: int, one: Cost, registry: Registry) -> Cost:
    """`hosts` hosts pull at once what costs one of them `one`. `bytes` and `requests` are what the registry itself is
    asked for. With mirrors it serves only these, before the hosts come; no more of them than hosts.
    """
    mirrors = registry.mirrors if registry.mirrors < hosts else 0
    served = ceil(hosts / max(1, mirrors))
    alone = max(one.seconds, served * one.bytes / registry.rate)
    if not mirrors:
        return Cost(hosts * one.bytes, hosts * one.requests, alone)
    filled = max(one.seconds, mirrors * one.bytes / registry.rate)
    return Cost(mirrors * one.bytes, mirrors * one.requests, filled + alone)


# --- what a snapshot consists of -------------------------------------------------------------------------------------


def packs_of(stored: int) -> int:
    """Packs of a first capture into an empty store, for so many stored bytes of frames."""
    packs = whole = 0
    # Each PACKS_OF_A_SIZE are PACK_TARGET larger than those before.
    while (lot := PACKS_OF_A_SIZE * (size := spec.PACK_TARGET * (1 + packs // PACKS_OF_A_SIZE))) <= stored - whole:
        packs, whole = packs + PACKS_OF_A_SIZE, whole + lot
    return packs + ceil((stored - whole) / size)


def manifest_of(packs: int) -> bytes:
    """A manifest as casstore writes it, with so many packs.

    Raises:
        DocumentError: it would be larger than registries accept.
    """
    config = Descriptor(media_type=spec.MEDIA_CONFIG, digest=Digest("f" * 64), size=1000)
    disk_map = Descriptor(media_type=spec.MEDIA_MAP, digest=Digest("e" * 64), size=spec.MIB)
    layers = [
        Descriptor(media_type=spec.MEDIA_PACK, digest=Digest(f"{n:064x}"), size=spec.PACK_TARGET + n)
        for n in range(packs)
    ]
    annotations = {spec.ANNOTATION_CREATED: "2026-11-23T12:00:00.000000000Z", spec.ANNOTATION_BASE_NAME: "scratch"}
    return ArtifactManifest.build(config=config, layers=[disk_map, *layers], annotations=annotations).raw
