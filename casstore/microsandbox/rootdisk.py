"""The disk of a sandbox as 0.7 keeps it: `runtime/root-disk.json`, a chain of files, each a qcow2 over the one before.

    {"schema":"microsandbox.runtime-root-disk/1","volume_id":...,"device_id":"vdb","layout":"managed-upper",
     "published_generation":0,"layers":[{"layer_id":...,"path":"/.../upper.ext4","format":"raw","integrity_root":null},
     {"layer_id":...,"path":"/.../upper-restore-5baeced2bf41f106.qcow2","format":"qcow2","integrity_root":null}]}

A qcow2 file names the file below it. In a snapshot the files have other names, so that name is another one there, and
nothing else of them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from casstore import spec
from casstore.dialects.v07 import MAX_LAYERS
from casstore.disk import DiskSource, is_qcow2
from casstore.errors import DocumentError, SourceError, UnsupportedVersion
from casstore.jsondoc import load_object
from casstore.manifest import SnapshotFormat

STATE_FILE: Final = os.path.join("runtime", "root-disk.json")
SCHEMA: Final = "microsandbox.runtime-root-disk/1"

_MAX_BYTES = spec.MIB
_HEADER: Final = struct.Struct(">4sIQIIQI")  # magic, version, backing offset and length, cluster bits, size, encryption
_LENGTH_AT: Final = 16  # where the header has the length of the backing file's name
_FEATURES: Final = struct.Struct(">Q")
_FEATURES_AT: Final = 72
_EXTERNAL_DATA: Final = 1 << 2
_MAX_NAME: Final = 1023


class LayerFile(NamedTuple):
    """A file of the chain: its path, as it is recorded, and its format."""

    path: str
    format: SnapshotFormat


def parse_root_disk(data: bytes, *, subject: str) -> Sequence[LayerFile]:
    """The layers that a `root-disk.json` tells, oldest first.

    Raises:
        UnsupportedVersion: of another schema.
        DocumentError: it is malformed, or what it tells is no chain.
    """
    document = load_object(data, subject=subject, limit=_MAX_BYTES)
    if document.get("schema") != SCHEMA:
        problem = f"unsupported schema {ascii(document.get('schema'))[:60]} (expected {SCHEMA})"
        raise UnsupportedVersion(subject, problem, at="schema")
    layers = document.get("layers")
    if not isinstance(layers, list) or not 1 <= len(layers) <= MAX_LAYERS:
        raise DocumentError(subject, f"expected 1 to {MAX_LAYERS} layers", at="layers")
    return [_parse_layer(layer, n, subject) for n, layer in enumerate(layers)]


def _parse_layer(layer: object, n: int, subject: str) -> LayerFile:
    path, kind = (layer.get("path"), layer.get("format")) if isinstance(layer, dict) else (None, None)
    if not isinstance(path, str) or not path or "\0" in path or kind not in list(SnapshotFormat):
        raise DocumentError(subject, "expected a path, and raw or qcow2 as format", at=f"layers[{n}]")
    if n and kind != SnapshotFormat.QCOW2:
        raise DocumentError(subject, f"expected qcow2, got {kind} over another layer", at=f"layers[{n}].format")
    return LayerFile(path, SnapshotFormat(kind))


@dataclass(frozen=True, slots=True)
class Overlay:
    """What the header of a qcow2 file says."""

    virtual_size: int
    """Bytes of the disk."""
    backing: str | None
    """The file below, as it is named."""
    offset: int
    """Where that name stands."""
    room: int
    """Bytes that it may have there: its own, and zeros up to the end of the first cluster."""

    @classmethod
    def read(cls, source: DiskSource) -> Overlay:
        """The header of an open file.

        Raises:
            SourceError: it is no qcow2 file, or one that is more than this one file.
        """
        subject, head = source.subject, source.head(spec.MIB)
        if not is_qcow2(head) or len(head) < _FEATURES_AT + _FEATURES.size:
            raise SourceError(f"{subject}: expected a qcow2 file, got something else")
        _, version, offset, length, cluster_bits, size, encryption = _HEADER.unpack_from(head)
        if version not in {2, 3} or not 9 <= cluster_bits <= 21 or encryption:
            raise SourceError(f"{subject}: expected a plain qcow2 file of version 2 or 3, got another kind")
        if version == 3 and _FEATURES.unpack_from(head, _FEATURES_AT)[0] & _EXTERNAL_DATA:
            raise SourceError(f"{subject}: expected all data in the file, got a qcow2 with its data in another one")
        if length > _MAX_NAME or (offset and not 72 <= offset <= len(head) - length):
            raise SourceError(f"{subject}: expected the name of the file below in the header, got one out of range")
        backing = os.fsdecode(head[offset : offset + length]) if offset and length else None
        rest = head[offset + length : 1 << cluster_bits]
        return cls(size, backing, offset, length + len(rest) - len(rest.lstrip(b"\0")))


class RenamedBase(DiskSource):
    """A qcow2 file whose backing file has another name: those bytes read as if they stood there."""

    _patches: Sequence[tuple[int, bytes]] = ()

    def rename_base(self, name: str, *, instead_of: str) -> None:
        """Name the file below `name`; now it must be named like the file `instead_of`.

        Raises:
            SourceError: the file is over another one, or has no room for the name.
        """
        overlay = Overlay.read(self)
        if overlay.backing is None or os.path.basename(overlay.backing) != os.path.basename(instead_of):
            expected = os.path.basename(instead_of)
            raise SourceError(f"{self.subject}: expected a qcow2 over {expected!r}, got one over {overlay.backing!r}")
        text, before = os.fsencode(name), os.fsencode(overlay.backing)
        if len(text) > overlay.room:
            raise SourceError(f"{self.subject}: expected room for the name {name!r} in its header, got none")
        length = struct.pack(">I", len(text))
        self._patches = ((_LENGTH_AT, length), (overlay.offset, text.ljust(len(before), b"\0")))

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer`; see DiskSource."""
        filled = super().read_into(buffer, offset)
        for at, data in self._patches:
            start, end = max(at, offset), min(at + len(data), offset + filled)
            if start < end:
                buffer[start - offset : end - offset] = data[start - at : end - at]
        return filled
