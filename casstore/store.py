"""The store, as the library's users see it: one object that binds directory, catalog and the use cases together.

    store = Store.open("snapshots", create=True)
    store.create(Snapshot.builder("disk.ext4").name("base").build())
    store.push("base", "registry.example/team/disks:base")

Names, digests and ids select snapshots: `base`, `sha256:1f00...` or a prefix of at least six digits.

What is about names is in openstore, what pushes and pulls in moving, what imports and exports in exchanging; here is
the rest.

What works on content needs numpy (0.1 to 0.2 s to import), and is imported by the methods that do: looking is quick.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from casstore.config import SandboxInput, SnapshotConfig
from casstore.derived import Derived
from casstore.durable import Durability
from casstore.exchanging import ExchangingStore
from casstore.gc import GcReport, collect
from casstore.layout import LayoutTarget
from casstore.listing import nothing_to_keep
from casstore.manifest import Dialect
from casstore.names import parse_name
from casstore.progress import Progress, silent
from casstore.selection import resolve_ref
from casstore.snapshot import Snapshot
from casstore.storedir import StoreDirectory, StoreOptions

if TYPE_CHECKING:
    from datetime import datetime

    from casstore.adopt import AdoptReport
    from casstore.capture import CaptureOptions
    from casstore.checking import CheckReport, ReadData
    from casstore.health import RepairReport
    from casstore.salvage import Salvaged
    from casstore.sign import Signing
    from casstore.signatures.claims import Signed
    from casstore.transfer import TransferOptions
    from casstore.trust.report import SignatureReport
    from casstore.trust.trust import Trust
    from casstore.verify import VerifyReport


class Store(ExchangingStore):
    """An open store; use `open` or `init`, and close it, or use it in a `with`. Not thread-safe.

    `check` and `repair` take a path: a store that is damaged may not open.
    """

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = False, options: StoreOptions | None = None) -> Self:
        """Open the store in directory `path`; `create` makes it when it is missing.

        Raises:
            NotFound: there is none, and `create` is not set.
            AlreadyExists: there is something else.
            CorruptContent: it is damaged: a directory of it is missing, or a marker is not right.
            UnsupportedVersion: a newer version made it.
            StoreLocked: another process holds it for too long, or the file system cannot lock.
        """
        return cls(StoreDirectory.open(os.fspath(path), options or StoreOptions(), create=create))

    @classmethod
    def init(cls, path: str | os.PathLike[str], *, share: bool = False, options: StoreOptions | None = None) -> Self:
        """Make a store, also in an empty directory that is there, or open the one that is there. A new one is for its
        owner alone; `share` lets everybody read it, also one that is there.

        Raises:
            As `open`.
        """
        return cls(StoreDirectory.open(os.fspath(path), options or StoreOptions(), create=True, share=share))

    def create(
        self, config: SnapshotConfig, *, options: CaptureOptions | None = None, progress: Progress = silent
    ) -> Snapshot:
        """Capture a disk; the snapshot is durable when this returns, and its `cost` says what was added.

        Raises:
            SourceError: the disk cannot be read, or changed while it was read.
            SandboxNotFound, SandboxNotStopped, UnsuitableSandbox: the source is a sandbox that cannot be captured.
            AlreadyExists: the name or path is taken, and the config does not force.
            NotFound: the parent is not in the store.
            StorageError: the file system refused; the store is unchanged.
        """
        from casstore.creation import create_in_store

        parent = None if config.parent is None else self.entry(config.parent)
        if config.destination.path is not None:
            return self.create_directory(
                config,
                parent_id=None if parent is None else str(parent.id),
                durability=self._directory.durability,
                options=options,
                progress=progress,
            )
        directory, derived, source = self._directory, self._derived, config.source
        if isinstance(source, SandboxInput):
            from casstore.sandboxes import create_from_sandbox

            created = create_from_sandbox(
                directory, derived, config, source, parent=parent, options=options, progress=progress
            )
        else:
            created = create_in_store(directory, derived, config, parent=parent, options=options, progress=progress)
        return self._read(created.root.digest, [parse_name(config.destination.name or "")]).with_cost(created)

    @staticmethod
    def create_directory(
        config: SnapshotConfig,
        *,
        parent_id: str | None = None,
        durability: Durability = Durability.FULL,
        options: CaptureOptions | None = None,
        progress: Progress = silent,
    ) -> Snapshot:
        """Capture a disk into a directory of its own, the config's path: an OCI layout. No store is needed.

        Raises:
            As `create`.
        """
        from casstore.creation import create_at_path
        from casstore.sandboxes import create_sandbox_at_path

        source = config.source
        if isinstance(source, SandboxInput):
            created, tag = create_sandbox_at_path(
                config, source, parent_id, durability=durability, options=options, progress=progress
            )
        else:
            created, tag = create_at_path(config, parent_id, durability=durability, options=options, progress=progress)
        path = config.destination.path or ""
        return Snapshot.read(path, LayoutTarget(path), created.root, nothing_to_keep, (tag,)).with_cost(created)

    # Signatures

    def sign(self, selector: str, signing: Signing, *, now: datetime | None = None) -> Sequence[Signed]:
        """Sign a snapshot with each key. The signatures live as long as it does, and `push` takes them along if its
        options say so. They are for any repository, unless `signing` names one.

        Raises:
            UsageError: there is nothing to sign with, or what is to be said cannot be signed.
            StorageError: the store is read-only, or the file system refused; no signature is there then.
            As `get`.
        """
        from casstore.sign import sign_stored

        digest, _ = self._resolve(selector)
        return sign_stored(self._directory, self._catalog, digest, signing, place=None, now=now)

    def signatures(self, selector: str, trust: Trust | None = None) -> SignatureReport:
        """The signatures that a snapshot has in the store, and whether they are what `trust` asks for.

        Raises:
            CorruptContent: its manifest is damaged.
            As `get`.
        """
        from casstore.trust.report import look
        from casstore.trust.scopes import STORE

        return look(self._directory, self._descriptor(self._resolve(selector)[0]), place=STORE, trust=trust)

    # Upkeep

    def adopt(self, *, drop: bool = False, dry_run: bool = False) -> AdoptReport:
        """Verify the snapshots that other OCI tools added to index.json, and give each a ref: by its name there, or
        `adopted-<12 hex>`. What cannot be adopted is left and told, or with `drop` taken out of index.json.
        """
        from casstore.adopt import adopt

        self._catch_up()
        return adopt(self._directory, self._catalog, drop=drop, dry_run=dry_run)

    def reindex(self, path: str | os.PathLike[str] | None = None) -> int:
        """Throw the catalog away and walk the refs again; of the store at `path`, if given. Returns how many snapshots
        it found.

        Raises:
            StorageError: the store is read-only.
            As `open`.
        """
        if path is not None and os.path.abspath(path) != self.path:
            with Store.open(path, options=self._directory.options) as other:
                return other.reindex()
        self._directory.require_writable()
        self._catch_up()  # so that a name that is gone is told before it is forgotten
        self._catalog.clear()
        self._catch_up()
        return self._catalog.count()

    def gc(self, *, dry_run: bool = False, keep_trash: float | None = None, progress: Progress = silent) -> GcReport:
        """Remove what nothing needs, and the trash, but for refs that were removed less than `keep_trash` seconds ago.

        Raises:
            CorruptContent: a manifest is damaged, so what it needs cannot be known.
            StoreLocked: another process does not let go of the store.
        """
        report = collect(self._directory, dry_run=dry_run, keep_trash=keep_trash, progress=progress)
        if self._catalog.in_memory and not self.read_only:  # for want of space; there may be some now
            self._catalog.close()
            self._derived = Derived.open(self._directory)
            self._catalog = self._derived.catalog
        self._catch_up()
        return report

    @staticmethod
    def check(
        path: str | os.PathLike[str],
        *,
        data: ReadData | None = None,
        options: StoreOptions | None = None,
        workers: int = 0,
        progress: Progress = silent,
    ) -> CheckReport:
        """Look at everything in the store at `path`, which need not open, and read the blobs that `data` chooses.

        Raises:
            NotFound: there is no store.
            UnsupportedVersion: a newer version made it.
            StorageError: its directory cannot be read.
        """
        from casstore.health import check_store

        return check_store(path, data=data, options=options, workers=workers, progress=progress)

    @staticmethod
    def repair(
        path: str | os.PathLike[str],
        *,
        sources: Sequence[str] = (),
        data: ReadData | None = None,
        options: StoreOptions | None = None,
        transfer: TransferOptions | None = None,
        workers: int = 0,
        progress: Progress = silent,
    ) -> RepairReport:
        """Check the store at `path`, and mend what is damaged. Good bytes come from `sources`, asked in their order: a
        registry or OCI layout, as a reference; the directory of a store or layout; or the file of a captured disk.

        Raises:
            InvalidReference: a source is none of these.
            NotFound, SourceError: there is no such source.
            StoreLocked, StorageError: the store cannot be changed.
            As `check`.
        """
        from casstore.health import repair_store

        return repair_store(
            path,
            sources=sources,
            data=data,
            options=options,
            transfer=transfer,
            workers=workers,
            progress=progress,
        )

    # Reading content

    def verify(self, selector: str, *, workers: int = 0, progress: Progress = silent) -> VerifyReport:
        """Verify a snapshot; see `Snapshot.verify`."""
        return self.open_snapshot(selector).verify(workers=workers, progress=progress)

    def restore(
        self,
        selector: str,
        destination: str | os.PathLike[str],
        *,
        force: bool = False,
        dialect: Dialect | None = None,
        seeds: Sequence[str | os.PathLike[str]] = (),
        workers: int = 0,
        progress: Progress = silent,
    ) -> str:
        """Write a snapshot's disk to a file or directory; see `Snapshot.restore`. With a `dialect` it is an artifact
        directory of that form; see `document`.
        """
        document = None if dialect is None else self.document(selector, dialect, workers=workers, progress=progress)
        return self.open_snapshot(selector).restore(
            destination,
            force=force,
            document=document,
            seeds=seeds,
            workers=workers,
            progress=progress,
            durability=self._directory.durability,
        )

    def salvage(
        self,
        selector: str,
        destination: str | os.PathLike[str],
        *,
        force: bool = False,
        seeds: Sequence[str | os.PathLike[str]] = (),
        workers: int = 0,
        progress: Progress = silent,
    ) -> Salvaged:
        """Write what can be read of a damaged snapshot's disk; see `Snapshot.salvage`. A prefix is one of a digest."""
        from casstore.salvage import needing_documents

        digest, names = resolve_ref(self._directory, selector)
        with needing_documents(digest):
            snapshot = self._read(digest, names)
        return snapshot.salvage(
            destination,
            force=force,
            seeds=seeds,
            workers=workers,
            progress=progress,
            durability=self._directory.durability,
        )
