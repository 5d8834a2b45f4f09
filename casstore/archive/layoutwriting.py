"""Writes a tar of an OCI layout: the blobs as they are stored, so dedup and digests stay, and signatures with them.

Members are sorted by name, and nothing tells when or by whom they were written: the same blobs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from casstore import spec
from casstore.archive.layouts import INDEX, MARKER
from casstore.content import Fetcher
from casstore.digest import Digest
from casstore.jsondoc import dump
from casstore.names import attachment_name, referrer_name
from casstore.oci import Descriptor, ImageIndex
from casstore.progress import Meter
from casstore.streams import COPY_CHUNK
from casstore.survey import Graph, Node
from casstore.tar.writer import TarWriter

_VERSION: Final = {"imageLayoutVersion": spec.LAYOUT_VERSION}


@dataclass(frozen=True, slots=True)
class Part:
    """An artifact to write, where its blobs are, and what it is called."""

    graph: Graph
    source: Fetcher
    name: str


def size_of(parts: Iterable[Part], without: Collection[Digest]) -> int:
    """Bytes of all blobs."""
    return sum(descriptor.size for descriptor, _ in _blobs(parts, without).values())


def write_layout(tar: TarWriter, parts: Sequence[Part], *, without: Collection[Digest], meter: Meter) -> None:
    """Write artifacts, but for the blobs that the receiver has: `without`. What the index names is always written.

    Raises:
        NotFound, SizeMismatch, DigestMismatch, RegistryError: as their sources.
    """
    for digest, (descriptor, source) in sorted(_blobs(parts, without).items(), key=lambda item: item[0].hex):
        tar.stream(f"blobs/sha256/{digest.hex}", descriptor.size, None, _read(source, descriptor, meter))
    entries = [_entry(part.graph.root, part.name) for part in parts]
    # After what they are about. Their names say that, for who does not read them.
    entries += [_entry(node.descriptor, name) for part in parts for node in part.graph.nodes if (name := _name(node))]
    tar.add(INDEX, ImageIndex(tuple(entries)).to_bytes())
    tar.add(MARKER, dump(_VERSION))
    tar.close()


def _entry(descriptor: Descriptor, name: str) -> dict[str, Any]:
    return {**descriptor.to_dict(), "annotations": {**descriptor.annotations, spec.ANNOTATION_REF_NAME: name}}


def _name(node: Node) -> str | None:
    """What a manifest is called that is here for being about another one."""
    if node.subject is None:
        return None
    about = node.subject.digest
    return attachment_name(about) if node.attachment is not None else referrer_name(about, node.descriptor)


def _blobs(parts: Iterable[Part], without: Collection[Digest]) -> dict[Digest, tuple[Descriptor, Fetcher]]:
    found: dict[Digest, tuple[Descriptor, Fetcher]] = {}
    for part in parts:
        manifests = [node.descriptor for node in part.graph.nodes]
        for descriptor in (*manifests, *(blob for blob in part.graph.blobs if blob.digest not in without)):
            found.setdefault(descriptor.digest, (descriptor, part.source))
    return found


def _read(source: Fetcher, descriptor: Descriptor, meter: Meter) -> Iterator[bytes]:
    with source.fetch(descriptor) as reader:
        while part := reader.read(COPY_CHUNK):
            meter.add(len(part))
            yield part
