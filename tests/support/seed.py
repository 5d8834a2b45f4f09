"""Artifact directories of microsandbox 0.4.4, written without any of casstore's code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def sha256(data: bytes) -> str:
    """A digest, as texts have it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def document(upper: bytes, /, *, recorded: tuple[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """The manifest of the disk `upper`; `recorded` are algorithm and digest of its integrity."""
    integrity = None if recorded is None else dict(zip(("algorithm", "digest"), recorded, strict=True))
    return {
        "schema": 1,
        "format": "raw",
        "fstype": "ext4",
        "image": {"ref": "docker.io/library/alpine:3.20", "manifest_digest": "sha256:" + 63 * "0" + "1"},
        "parent": None,
        "created_at": "2026-05-01T12:00:00Z",
        "labels": {},
        "upper": {"file": "upper.ext4", "size_bytes": len(upper), "integrity": integrity},
        "source_sandbox": "synthetic",
        **fields,
    }


def canonical(manifest: dict[str, Any]) -> bytes:
    """What 0.4.4 makes the digest of."""
    return json.dumps(manifest, separators=(",", ":"), ensure_ascii=False).encode()


def make_artifact(
    where: Path, name: str, upper: bytes, /, *, integrity: bool = False, **fields: Any
) -> tuple[Path, str]:
    """Write an artifact directory, with the digest of its disk or without; returns it, and the snapshot's digest."""
    folder = where / name
    folder.mkdir(parents=True)
    recorded = ("sha256", sha256(upper)) if integrity else None
    raw = canonical(document(upper, recorded=recorded, **fields))
    (folder / "manifest.json").write_bytes(raw)
    (folder / "upper.ext4").write_bytes(upper)
    return folder, sha256(raw)
