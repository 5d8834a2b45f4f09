"""Homes of microsandbox with sandboxes in them, made without microsandbox: the tables are those of 0.4.4 and 0.7.11.

    home = SandboxHome(tmp_path / "home", "0.7")
    home.add("box", upper=b"...")                   # stopped, on a pinned image
    home.set(status="Running", of="box")
    home.add_layer("box", "upper-restore-1.qcow2")  # what 0.7 does with a sandbox that starts from a snapshot

The database is in WAL mode, and a connection stays open: what was written last is in the WAL alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

IMAGE = "docker.io/library/alpine:3.20"
IMAGE_DIGEST = "sha256:" + 64 * "a"

_COLUMNS = {
    "0.4": "created_at datetime_text, updated_at datetime_text",
    "0.7": "created_at datetime_text, updated_at datetime_text, ephemeral boolean NOT NULL DEFAULT FALSE,"
    " active_config text, network_slot INTEGER, caller_config_overrides text",
}
_CLUSTER = 1 << 16


def config(dialect: str, *, digest: str | None = IMAGE_DIGEST, **disk: Any) -> dict[str, Any]:
    """A sandbox's configuration as that version writes it, as far as it matters; `disk` is its root_disk."""
    oci: object = IMAGE
    if dialect != "0.4":
        oci = {"reference": IMAGE, **({"root_disk": disk} if disk else {})}
    return {"name": "box", "image": {"Oci": oci}, "manifest_digest": digest}


class SandboxHome:
    """A home in `folder`, which is made."""

    def __init__(self, folder: Path, dialect: str = "0.4") -> None:
        self.folder, self.dialect = folder, dialect
        (folder / "db").mkdir(parents=True)
        self.database = sqlite3.connect(folder / "db" / "msb.db", isolation_level=None, check_same_thread=False)
        self.database.execute("PRAGMA journal_mode = WAL")
        columns = _COLUMNS["0.4" if dialect == "0.4" else "0.7"]
        self.database.execute(
            "CREATE TABLE sandbox (id integer NOT NULL PRIMARY KEY AUTOINCREMENT, name text NOT NULL UNIQUE,"
            f" config text NOT NULL, status text NOT NULL, {columns})"
        )

    def close(self) -> None:
        """Close the database, which takes the WAL with it."""
        self.database.close()

    def add(
        self,
        name: str,
        *,
        upper: bytes | Path | None = b"",
        status: str = "Stopped",
        config_text: str | Mapping[str, Any] | None = None,
        file: str = "upper.ext4",
    ) -> Path:
        """A sandbox; returns where its disk is, or would be. A `Path` is copied with its holes."""
        text = config(self.dialect) if config_text is None else config_text
        row = (name, text if isinstance(text, str) else json.dumps(text), status, "2026-05-01 12:00:00")
        self.database.execute("INSERT INTO sandbox (name, config, status, updated_at) VALUES (?, ?, ?, ?)", row)
        disk = self.folder / "sandboxes" / name / file
        disk.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(upper, bytes):
            disk.write_bytes(upper)
        elif upper is not None:
            subprocess.run(["cp", "--sparse=auto", upper, disk], check=True)
        return disk

    def set(self, *, of: str, **columns: str) -> None:
        """Change a sandbox's row."""
        for column, value in columns.items():
            self.database.execute(f"UPDATE sandbox SET {column} = ? WHERE name = ?", (value, of))  # noqa: S608

    def add_layer(self, name: str, file: str, data: bytes = b"") -> Path:
        """Put a qcow2 file over the sandbox's disk, as the file that the sandbox writes to from now on."""
        folder = self.folder / "sandboxes" / name
        state = folder / "runtime" / "root-disk.json"
        if state.exists():
            document = json.loads(state.read_text())
        else:
            (folder / "runtime").mkdir()
            first = {"layer_id": "layer_" + 32 * "1", "path": str(folder / "upper.ext4"), "format": "raw"}
            document = {
                "schema": "microsandbox.runtime-root-disk/1",
                "volume_id": "vol_" + 32 * "2",
                "device_id": "vdb",
                "layout": "managed-upper",
                "published_generation": 0,
                "layers": [{**first, "integrity_root": None}],
            }
        below = document["layers"][-1]
        size = (folder / "upper.ext4").stat().st_size
        path = folder / file
        path.write_bytes(overlay(os.path.basename(below["path"]), below["format"], size, data))
        number = len(document["layers"])
        layer = {"layer_id": f"layer_{number:032x}", "path": str(path), "format": "qcow2", "integrity_root": None}
        document["layers"].append(layer)
        state.write_text(json.dumps(document, separators=(",", ":")))
        return path

    def set_lineage(self, name: str, snapshot_id: str, *, sandbox_id: int | None = None) -> None:
        """Say of which snapshot a sandbox is the continuation."""
        [(own,)] = self.database.execute("SELECT id FROM sandbox WHERE name = ?", (name,))
        told = {"sandbox_id": own if sandbox_id is None else sandbox_id, "snapshot_id": snapshot_id}
        (self.folder / "sandboxes" / name / "snapshot-lineage.json").write_text(json.dumps(told))

    def listing(self) -> dict[str, tuple[int, int, int, int]]:
        """Every file and directory in it: inode, mode, size and mtime. A file that is read keeps all four."""
        found = {}
        for path in [self.folder, *sorted(self.folder.rglob("*"))]:
            info = path.lstat()
            found[str(path)] = (info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns)
        return found


def write_cache(home: Path, *, digest: str = IMAGE_DIGEST, manifest: bool = True) -> dict[str, bytes]:
    """The image that sandboxes run as `home` caches it, among other files; returns its own, by their paths in there.
    Without the `manifest` it is the cache of 0.4.
    """
    stem = digest.replace(":", "_")
    layers = [{"diff_id": f"sha256:{digit * 64}"} for digit in "ab"]
    document = {"manifest_digest": digest, "layers": [*layers, layers[0]]}
    if manifest:
        document["raw_manifest_json"] = "{}"
    files = {
        f"manifests/{hashlib.sha256(IMAGE.encode()).hexdigest()}.json": json.dumps(document).encode(),
        f"fsmeta/{stem}.erofs": b"fsmeta" * 100,
        f"vmdk/{stem}.vmdk": b"# Disk DescriptorFile",
        f"layers/sha256_{'a' * 64}.erofs": b"layer a" * 1000,
        f"layers/sha256_{'b' * 64}.erofs": b"",
    }
    others = {
        f"fsmeta/{stem}.erofs.lock": b"",
        f"layers/sha256_{'a' * 64}.erofs.lock": b"",
        "layers/foreign.erofs": b"x",
    }
    for name, data in {**files, **others}.items():
        path = home / "cache" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return files


def overlay(backing: str, backing_format: str, virtual_size: int, data: bytes = b"") -> bytes:
    """A qcow2 file over another one, laid out as 0.7.11 does; `data` is what its first cluster of the disk has."""
    cover = -(-virtual_size // (_CLUSTER * (_CLUSTER // 8)))  # entries of the first-level table
    tables = 5 if data else 4
    extension = struct.pack(">II8s", 0xE2792ACA, len(backing_format), backing_format.encode().ljust(8, b"\0"))
    name_at = 104 + len(extension) + 8
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        *(b"QFI\xfb", 3, name_at, len(backing), 16, virtual_size, 0),
        *(cover, 3 * _CLUSTER, _CLUSTER, 1, 0, 0),
    )
    header += struct.pack(">QQQII", 0, 0, 0, 4, 104) + extension + bytes(8) + backing.encode()
    blocks = struct.pack(">Q", 2 * _CLUSTER)
    used = tables + (1 if data else 0)
    counts = struct.pack(f">{used}H", *(1 for _ in range(used)))
    first = struct.pack(">Q", (4 * _CLUSTER) | 1 << 63) if data else b""
    second = [struct.pack(">Q", (5 * _CLUSTER) | 1 << 63), data] if data else []
    return b"".join(part.ljust(_CLUSTER, b"\0") for part in (header, blocks, counts, first, *second))
