"""The snapshot half of microsandbox 0.4.4's Python SDK, on a store: change the import, and a program goes on working.

    from casstore.aio import MicrosandboxError, Snapshot      # was: from microsandbox import ...

    async def main():
        made = await Snapshot.create("build-1", name="after-pip", labels={"step": "pip"})
        print(made.digest, await made.verify())

What is called `digest` here is the identity that microsandbox prints, `Snapshot.id` elsewhere in casstore. 0.6's names
`Snapshot.save` and `Snapshot.load` work too, and `create(name, from_sandbox=..., dest_dir=...)`.

The store is the command line's: $CASSTORE_STORE, else ~/.casstore. Sandboxes are looked for in $MSB_HOME, else
~/.microsandbox. `use` chooses others. No other module of the library asks the environment.
"""

from __future__ import annotations

from casstore.aio.errors import (
    ExecFailedError,
    ExecTimeoutError,
    FilesystemError,
    ImageNotFoundError,
    ImagePullFailedError,
    InvalidConfigError,
    IoError,
    MicrosandboxError,
    NetworkPolicyError,
    PathNotFoundError,
    SandboxAlreadyExistsError,
    SandboxNotFoundError,
    SandboxNotRunningError,
    SandboxStillRunningError,
    SecretViolationError,
    TlsError,
    VolumeNotFoundError,
)
from casstore.aio.place import use
from casstore.aio.snapshots import Snapshot, SnapshotHandle

__all__ = [
    "ExecFailedError",
    "ExecTimeoutError",
    "FilesystemError",
    "ImageNotFoundError",
    "ImagePullFailedError",
    "InvalidConfigError",
    "IoError",
    "MicrosandboxError",
    "NetworkPolicyError",
    "PathNotFoundError",
    "SandboxAlreadyExistsError",
    "SandboxNotFoundError",
    "SandboxNotRunningError",
    "SandboxStillRunningError",
    "SecretViolationError",
    "Snapshot",
    "SnapshotHandle",
    "TlsError",
    "VolumeNotFoundError",
    "use",
]
