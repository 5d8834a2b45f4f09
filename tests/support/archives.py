"""Archives of snapshots to test with: small ones, and those that the real tools made."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from casstore import Store
from casstore.archiving import Exported, ExportOptions
from casstore.dialects.conversion import convert
from casstore.dialects.sidecars import METADATA_FILENAME, labels_to_bytes
from casstore.manifest import Dialect, ImageRef, Manifest, SnapshotFormat, UpperIntegrity, UpperLayer
from tests.support import sandboxes

IMAGE = ImageRef(ref=sandboxes.IMAGE, manifest_digest=sandboxes.IMAGE_DIGEST)
PIECE = 8192


def disk(seed: int, *, size: int = 10 * PIECE) -> bytes:
    """A small disk: two pieces of data, the rest zeros."""
    data = bytearray(size)
    data[:PIECE] = random.Random(seed).randbytes(PIECE)
    data[4 * PIECE : 5 * PIECE] = random.Random(seed + 1000).randbytes(PIECE)
    return bytes(data)


def manifest(name: str, data: bytes, parent: Manifest | None = None, **changes: object) -> Manifest:
    """What 0.4 would write of a disk."""
    made = Manifest(
        format=SnapshotFormat.RAW,
        fstype="ext4",
        image=IMAGE,
        parent=None if parent is None else parent.known_as,
        created_at="2026-05-01T12:00:00Z",
        labels={"name": name},
        upper=UpperLayer(file="upper.ext4", size_bytes=len(data)),
        source_sandbox=None,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def with_sha256(made: Manifest, data: bytes) -> Manifest:
    """The same, with the sha256 of the disk recorded."""
    integrity = UpperIntegrity(algorithm="sha256", digest=f"sha256:{hashlib.sha256(data).hexdigest()}")
    return replace(made, upper=replace(made.upper, integrity=integrity))


def folder(prefix: str, made: Manifest, data: bytes) -> list[tuple[str, bytes]]:
    """An artifact directory as members of an archive."""
    return [(f"{prefix}/{made.filename}", made.to_bytes()), (f"{prefix}/{made.upper.file}", data)]


def line(length: int, dialect: Dialect = Dialect.V04) -> list[tuple[Manifest, bytes]]:
    """Snapshots, each the parent of the next."""
    made: list[tuple[Manifest, bytes]] = []
    for number in range(length):
        data = disk(number)
        parent = made[-1][0] if made else None
        converted = convert(manifest(f"s{number}", data), dialect, parent=None)
        made.append((replace(converted, parent=None if parent is None else parent.known_as), data))
    return made


def fill(store: Store, folder_: Path, snapshots: Sequence[tuple[Manifest, bytes]], name: str = "s") -> list[str]:
    """Take snapshots in, oldest first; they are called NAME0, NAME1 ..."""
    names = []
    for number, (made, data) in enumerate(snapshots):
        where = folder_ / f"{name}{number}"
        where.mkdir(parents=True)
        (where / made.filename).write_bytes(made.to_bytes())
        file = where / made.disks[0].name
        if made.dialect is Dialect.V07:
            file = where / "layers" / made.disks[0].name
            file.parent.mkdir()
            (where / METADATA_FILENAME).write_bytes(labels_to_bytes(made.labels))
        with file.open("wb") as out:
            out.truncate(len(data))
            for at in (0, 4 * PIECE):
                out.seek(at)
                out.write(data[at : at + PIECE])
        store.import_directory(where, name=where.name)
        names.append(where.name)
    return names


def export(store: Store, name: str, path: Path, form: str = "common", **options: object) -> Exported:
    """Export a snapshot."""
    return store.export(name, path, options=ExportOptions(form=form, **options))  # type: ignore[arg-type]


def unchanged(store: Store) -> Mapping[str, object]:
    """All of a store that may not change when something fails."""
    root = Path(store.path)
    return {
        "refs": sorted((path.name, str(path.readlink())) for path in (root / "refs").iterdir()),
        "blobs": sorted(path.name for path in (root / "blobs" / "sha256").iterdir()),
        "operations": sorted(path.name for path in (root / "tmp").iterdir()) if (root / "tmp").exists() else [],
        "index": json.loads((root / "index.json").read_bytes()),
    }
