"""casstore: git for sandbox disks, on any container registry.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "CasstoreError": "errors",
    "Digest": "digest",
    "ImageRef": "manifest",
    "Manifest": "manifest",
    "Snapshot": "snapshot",
    "SnapshotBuilder": "config",
    "SnapshotConfig": "config",
    "SnapshotDestination": "config",
    "SnapshotFormat": "manifest",
    "SnapshotHandle": "snapshot",
    "Store": "store",
    "UpperIntegrity": "manifest",
    "UpperLayer": "manifest",
}

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604  (the names are strings; ruff cannot see through sorted)

if TYPE_CHECKING:
    from casstore.config import SnapshotBuilder as SnapshotBuilder
    from casstore.config import SnapshotConfig as SnapshotConfig
    from casstore.config import SnapshotDestination as SnapshotDestination
    from casstore.digest import Digest as Digest
    from casstore.errors import CasstoreError as CasstoreError
    from casstore.manifest import ImageRef as ImageRef
    from casstore.manifest import Manifest as Manifest
    from casstore.manifest import SnapshotFormat as SnapshotFormat
    from casstore.manifest import UpperIntegrity as UpperIntegrity
    from casstore.manifest import UpperLayer as UpperLayer
    from casstore.snapshot import Snapshot as Snapshot
    from casstore.snapshot import SnapshotHandle as SnapshotHandle
    from casstore.store import Store as Store


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'casstore' has no attribute {name!r}")
    return getattr(import_module(f"casstore.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
