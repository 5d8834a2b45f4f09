"""casstore: git for sandbox disks, on any container registry.

These are the names that most programs need. What else is public, and what is internal, stands in the reference of the
Python API. They are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "AlreadyExists": "errors",
    "Cancellation": "progress",
    "Cancelled": "progress",
    "CaptureOptions": "capture",
    "CasstoreError": "errors",
    "Conflict": "errors",
    "CorruptContent": "errors",
    "Credentials": "credentials",
    "Digest": "digest",
    "DockerConfig": "credentials",
    "Durability": "durable",
    "HostCredentials": "credentials",
    "ImageRef": "manifest",
    "Manifest": "manifest",
    "NotFound": "errors",
    "Opened": "opened",
    "PrivateKey": "signatures.keys",
    "ProgressEvent": "progress",
    "PublicKey": "signatures.keys",
    "RegistryError": "errors",
    "RegistryOptions": "registry",
    "RegistryTarget": "registry",
    "Signing": "sign",
    "Snapshot": "snapshot",
    "SnapshotBuilder": "config",
    "SnapshotConfig": "config",
    "SnapshotDestination": "config",
    "SnapshotFormat": "manifest",
    "SnapshotHandle": "snapshot",
    "SourceError": "errors",
    "StorageError": "errors",
    "Store": "store",
    "StoreLocked": "errors",
    "StoreOptions": "storedir",
    "TransferOptions": "transfer",
    "TransferReport": "transfer",
    "Trust": "trust.trust",
    "UntrustedContent": "errors",
    "UpperIntegrity": "manifest",
    "UpperLayer": "manifest",
    "UsageError": "errors",
    "inspect_remote": "remote",
    "list_remote": "remote",
    "open_remote": "opened",
    "remove_remote": "remote",
    "sign_remote": "remote",
}

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604  (the names are strings; ruff cannot see through sorted)

if TYPE_CHECKING:
    from casstore.capture import CaptureOptions as CaptureOptions
    from casstore.config import SnapshotBuilder as SnapshotBuilder
    from casstore.config import SnapshotConfig as SnapshotConfig
    from casstore.config import SnapshotDestination as SnapshotDestination
    from casstore.credentials import Credentials as Credentials
    from casstore.credentials import DockerConfig as DockerConfig
    from casstore.credentials import HostCredentials as HostCredentials
    from casstore.digest import Digest as Digest
    from casstore.durable import Durability as Durability
    from casstore.errors import AlreadyExists as AlreadyExists
    from casstore.errors import CasstoreError as CasstoreError
    from casstore.errors import Conflict as Conflict
    from casstore.errors import CorruptContent as CorruptContent
    from casstore.errors import NotFound as NotFound
    from casstore.errors import RegistryError as RegistryError
    from casstore.errors import SourceError as SourceError
    from casstore.errors import StorageError as StorageError
    from casstore.errors import StoreLocked as StoreLocked
    from casstore.errors import UntrustedContent as UntrustedContent
    from casstore.errors import UsageError as UsageError
    from casstore.manifest import ImageRef as ImageRef
    from casstore.manifest import Manifest as Manifest
    from casstore.manifest import SnapshotFormat as SnapshotFormat
    from casstore.manifest import UpperIntegrity as UpperIntegrity
    from casstore.manifest import UpperLayer as UpperLayer
    from casstore.opened import Opened as Opened
    from casstore.opened import open_remote as open_remote
    from casstore.progress import Cancellation as Cancellation
    from casstore.progress import Cancelled as Cancelled
    from casstore.progress import ProgressEvent as ProgressEvent
    from casstore.registry import RegistryOptions as RegistryOptions
    from casstore.registry import RegistryTarget as RegistryTarget
    from casstore.remote import inspect_remote as inspect_remote
    from casstore.remote import list_remote as list_remote
    from casstore.remote import remove_remote as remove_remote
    from casstore.remote import sign_remote as sign_remote
    from casstore.sign import Signing as Signing
    from casstore.signatures.keys import PrivateKey as PrivateKey
    from casstore.signatures.keys import PublicKey as PublicKey
    from casstore.snapshot import Snapshot as Snapshot
    from casstore.snapshot import SnapshotHandle as SnapshotHandle
    from casstore.store import Store as Store
    from casstore.storedir import StoreOptions as StoreOptions
    from casstore.transfer import TransferOptions as TransferOptions
    from casstore.transfer import TransferReport as TransferReport
    from casstore.trust.trust import Trust as Trust


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'casstore' has no attribute {name!r}")
    return getattr(import_module(f"casstore.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
