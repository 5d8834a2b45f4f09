"""The store, as the library's users see it: one object that binds directory, catalog and the use cases together.

    store = Store.open("snapshots", create=True)
    store.create(Snapshot.builder("disk.ext4").name("base").build())
    store.push("base", "registry.example/team/disks:base")

Names, digests and ids select snapshots: `base`, `sha256:1f00...` or a prefix of at least six digits.

What works on content needs numpy (0.1 to 0.2 s to import), and is imported by the methods that do: looking is quick.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from casstore import permissions
from casstore.catalog import Entry
from casstore.config import SnapshotConfig
from casstore.derived import Derived
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import CasstoreError
from casstore.gc import GcReport, collect
from casstore.graph import Plan
from casstore.layout import LayoutTarget
from casstore.listing import list_dir, nothing_to_keep
from casstore.moving import job_from, job_of, plan_jobs, push_jobs
from casstore.names import DigestPrefix, SnapshotName, parse_name, parse_selector
from casstore.oci import Descriptor
from casstore.places import as_reference, open_source, require_bare
from casstore.progress import Progress, silent
from casstore.reference import Reference
from casstore.refs import BrokenRef
from casstore.selection import entry_of, problems, resolve, resolve_ref
from casstore.snapshot import Snapshot, SnapshotHandle
from casstore.storedir import StoreDirectory, StoreOptions
from casstore.transfer import Job, TransferOptions, TransferReport, plan, pull_name, push, push_name

if TYPE_CHECKING:
    from datetime import datetime

    from casstore.adopt import AdoptReport
    from casstore.artifact import Artifact
    from casstore.capture import CaptureOptions
    from casstore.checking.check import CheckReport
    from casstore.checking.rereading import ReadData
    from casstore.health import RepairReport
    from casstore.removal import PruneReport, Removed, TakenBack
    from casstore.retention import Policy
    from casstore.salvage import Salvaged
    from casstore.stats import StoreStats
    from casstore.transaction import Transaction
    from casstore.trash import RemovedRef
    from casstore.verify import VerifyReport


class Store:
    """An open store; use `open` or `init`, and close it, or use it in a `with`. Not thread-safe."""

    def __init__(self, directory: StoreDirectory) -> None:
        self._directory = directory
        self._derived = Derived.open(directory)
        self._catalog = self._derived.catalog

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = False, options: StoreOptions | None = None) -> Self:
        """Open the store in directory `path`; `create` makes it when it is missing.

        Raises:
            NotFound: there is none, and `create` is not set.
            DocumentError: there is something else, or it is damaged.
            UnsupportedVersion: a newer version made it.
            StoreLocked: another process holds it for too long, or the file system cannot lock.
        """
        return cls(StoreDirectory.open(os.fspath(path), options or StoreOptions(), create=create))

    @classmethod
    def init(cls, path: str | os.PathLike[str], *, share: bool = False, options: StoreOptions | None = None) -> Self:
        """Make a store, or open the one that is there; a new one is for its owner alone. `share` lets everybody read
        it, also one that is there.

        Raises:
            As `open`.
        """
        return cls(StoreDirectory.open(os.fspath(path), options or StoreOptions(), create=True, share=share))

    def close(self) -> None:
        """Close the catalog."""
        self._catalog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> str:
        """The store's directory."""
        return self._directory.path

    @property
    def read_only(self) -> bool:
        """Whether nothing can be changed here."""
        return self._directory.read_only

    @property
    def warnings(self) -> Sequence[str]:
        """What people should know of the store itself, as that others may write to it; looked up when asked for."""
        return permissions.warnings(self.path)

    # Looking

    def list(self, labels: Mapping[str, str | None] | None = None) -> Sequence[SnapshotHandle]:
        """Every name, newest snapshot first. `labels` keeps those that have all of them; None stands for any value."""
        self._catch_up()
        wanted = labels or {}
        handles = []
        for entry in self._catalog.entries():
            if entry.manifest.has_labels(wanted):
                handles += [SnapshotHandle(name, self._ref_path(name), entry, self) for name in entry.names]
        return handles

    def problems(self) -> Sequence[BrokenRef]:
        """Refs that lead to no usable snapshot, and why. They do not hurt the others."""
        self._catch_up()
        return problems(self._derived)

    def foreign(self) -> Sequence[str]:
        """Digests in index.json that another tool added; gc keeps what they reach."""
        return self._derived.foreign()

    def get(self, selector: str) -> SnapshotHandle:
        """A handle from the catalog, by name, digest, id or prefix.

        Raises:
            NotFound: there is none.
            UsageError: the prefix or id belongs to several snapshots.
        """
        digest, names = self._resolve(selector)
        return SnapshotHandle(names[0], self._ref_path(names[0]), self._entry(digest), self)

    def open_snapshot(self, selector: str) -> Snapshot:
        """Read a snapshot's documents, by name, digest, id or prefix.

        Raises:
            As `get`, and CorruptContent: its documents are damaged.
        """
        digest, names = self._resolve(selector)
        return self._read(digest, names)

    def entry(self, selector: str) -> Entry:
        """What the catalog knows of a snapshot; raises as `get`."""
        return self._entry(self._resolve(selector)[0])

    def stats(self, selectors: Sequence[str] | None = None) -> StoreStats:
        """What all snapshots take, or those that are selected, each by itself and all together.

        Raises:
            As `get`.
        """
        from casstore.stats import stats

        self._catch_up()
        chosen = None if selectors is None else list(dict.fromkeys(self._resolve(each)[0] for each in selectors))
        return stats(self._catalog, chosen)

    def lineage(self, selector: str) -> Sequence[Entry | str]:
        """The snapshot's ancestors, nearest first; the last is an id where an ancestor is not in the store.

        Raises:
            As `get`.
        """
        entry = self.entry(selector)
        line = self._catalog.lineage(entry.digest)
        missing = (line[-1] if line else entry).manifest.parent
        return line if missing is None else [*line, missing]

    def referrers(self, selector: str) -> Sequence[Descriptor]:
        """What is in the store and refers to the snapshot, as signatures do, each with its artifact type.

        Raises:
            As `get`, and CorruptContent: one of them is damaged.
        """
        return self._directory.referrers(self._descriptor(self._resolve(selector)[0]))

    @staticmethod
    def list_dir(
        path: str | os.PathLike[str], *, report: Callable[[str, CasstoreError], object] | None = None
    ) -> Sequence[Snapshot]:
        """Every snapshot in the subdirectories of `path` that are stores or OCI layouts; no catalog is used or made.

        What is malformed is passed to `report` with its path and error, and skipped. A missing directory has none.
        """
        return list_dir(path, report=report)

    # Making and taking away

    def create(
        self, config: SnapshotConfig, *, options: CaptureOptions | None = None, progress: Progress = silent
    ) -> Snapshot:
        """Capture a disk; the snapshot is durable when this returns, and its `cost` says what was added.

        Raises:
            SourceError: the disk cannot be read, or changed while it was read.
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
        created = create_in_store(
            self._directory,
            self._derived,
            config,
            parent=parent,
            options=options,
            progress=progress,
        )
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

        created, tag = create_at_path(config, parent_id, durability=durability, options=options, progress=progress)
        path = config.destination.path or ""
        return Snapshot.read(path, LayoutTarget(path), created.root, nothing_to_keep, (tag,)).with_cost(created)

    def tag(self, selector: str, name: str, *, force: bool = False) -> None:
        """Give a snapshot one more name.

        Raises:
            AlreadyExists: the name stands for something else, and `force` is not set.
            As `get`.
        """
        wanted = parse_name(name)
        digest, names = self._resolve(selector)
        self._directory.require_writable()
        snapshot = self._read(digest, names)
        with self._directory.shared(), self._directory.changing_refs() as refs:
            self._directory.require(snapshot.needs)
            refs.set(wanted, digest, force=force)

    def remove(self, selector: str, *, force: bool = False) -> Removed:
        """Remove a name, or all names of a digest. What nothing else needs is freed by the next gc; until then `undo`
        takes the names back.

        Raises:
            NotFound: there is no such name or digest.
            HasChildren: it is the last name of a snapshot that others name as their parent, and `force` is not set.
        """
        removed, errors = self.remove_all([selector], force=force)
        if errors:
            raise errors[0]
        return removed[0]

    def remove_all(
        self, selectors: Sequence[str], *, force: bool = False
    ) -> tuple[Sequence[Removed], Sequence[CasstoreError]]:
        """Remove several as `remove` does, in any order, as one removal for `undo`; also the errors of those that
        cannot be removed.
        """
        from casstore.removal import remove

        return remove(self._directory, self._derived, selectors, force=force)

    def prune(
        self,
        policy: Policy,
        *,
        now: datetime,
        grouping: str = "source",
        labels: Mapping[str, str | None] | None = None,
        dry_run: bool = False,
    ) -> PruneReport:
        """Remove what a policy does not keep; see `removal.prune`."""
        from casstore.removal import prune

        return prune(self._directory, self._derived, policy, now=now, grouping=grouping, labels=labels, dry_run=dry_run)

    def undo(self, name: str | None = None, *, rename: str | None = None) -> Sequence[TakenBack]:
        """Take back the last removal, or that of `name` alone; see `removal.undo`."""
        from casstore.removal import undo

        return undo(self._directory, name, rename=rename)

    def removed(self) -> Sequence[RemovedRef]:
        """The removed names that `undo` can be asked for, the last removed first."""
        from casstore.removal import removed_refs

        return removed_refs(self._directory)

    def adopt(self, *, drop: bool = False, dry_run: bool = False) -> AdoptReport:
        """Give refs to the snapshots that other OCI tools added to index.json; see `adopt.adopt`."""
        from casstore.adopt import adopt

        self._catch_up()
        return adopt(self._directory, self._catalog, drop=drop, dry_run=dry_run)

    def reindex(self, path: str | os.PathLike[str] | None = None) -> int:
        """Throw the catalog away and walk the refs again; of the store at `path`, if given. Returns how many snapshots
        it found.

        Raises:
            As `open`.
        """
        if path is not None and os.path.abspath(path) != self.path:
            with Store.open(path, options=self._directory.options) as other:
                return other.reindex()
        self._catalog.clear()
        self._catch_up()
        return self._catalog.count()

    def gc(self, *, dry_run: bool = False, keep_trash: float | None = None) -> GcReport:
        """Remove what nothing needs, and the trash, but for refs that were removed less than `keep_trash` seconds ago;
        see `gc.collect`.
        """
        report = collect(self._directory, dry_run=dry_run, keep_trash=keep_trash)
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
        """Look at everything in the store at `path`, which need not open; see `health.check_store`."""
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
        """Check the store at `path`, and mend what is damaged; see `health.repair_store`."""
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
        seeds: Sequence[str | os.PathLike[str]] = (),
        workers: int = 0,
        progress: Progress = silent,
    ) -> str:
        """Write a snapshot's disk to a file or directory; see `Snapshot.restore`."""
        return self.open_snapshot(selector).restore(
            destination,
            force=force,
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

    # Moving

    def push(
        self,
        selector: str,
        reference: str | Reference,
        *,
        with_parents: bool = False,
        options: TransferOptions | None = None,
        progress: Progress = silent,
    ) -> TransferReport:
        """Copy a snapshot to a registry, an OCI layout or another store.

        With `with_parents` those of its ancestors that are here go first, each under the name that it was given first
        here; the report has them in `parents`.

        Raises:
            AlreadyExists: the name of an ancestor stands for something else there.
            RegistryError: the registry or the way to it failed.
            As `get` and `transfer.push_name`.
        """
        place, options = as_reference(reference), options or TransferOptions()
        jobs = self._jobs(selector, place, options, with_parents=with_parents)
        reports = push_jobs(self._directory, jobs, place, options, progress)
        return replace(reports[-1], parents=tuple(reports[:-1]))

    def push_all(
        self,
        reference: str | Reference,
        *,
        options: TransferOptions | None = None,
        progress: Progress = silent,
    ) -> Sequence[TransferReport]:
        """Copy every snapshot, each under all its names, the oldest first. No blob is sent twice.

        Raises:
            UsageError: the reference has a tag or digest.
            As `push`; what was pushed before stays there.
        """
        place, options = as_reference(reference), options or TransferOptions()
        return push_jobs(self._directory, self._all_jobs(place, options), place, options, progress)

    def plan_push(
        self,
        selector: str,
        reference: str | Reference,
        *,
        with_parents: bool = False,
        options: TransferOptions | None = None,
    ) -> Sequence[Plan]:
        """What `push` would move: the ancestors', then its own. The target is asked what it has; nothing is changed or
        made. A blob of several snapshots is counted as missing once. Whether a parent's tag is free is not asked.

        Raises:
            As `push`.
        """
        place, options = as_reference(reference), options or TransferOptions()
        jobs = self._jobs(selector, place, options, with_parents=with_parents)
        return plan_jobs(self._directory, jobs, place, options)

    def plan_push_all(self, reference: str | Reference, *, options: TransferOptions | None = None) -> Sequence[Plan]:
        """What `push_all` would move, one plan per name; see `plan_push`."""
        place, options = as_reference(reference), options or TransferOptions()
        return plan_jobs(self._directory, self._all_jobs(place, options), place, options)

    def plan_pull(
        self,
        reference: str | Reference,
        *,
        name: str | None = None,
        force: bool = False,
        options: TransferOptions | None = None,
    ) -> Plan:
        """What `pull` would move; nothing is changed. Where there is no store yet, `remote.plan_copy` tells it.

        Raises:
            As `pull`, but for what only the content can show.
        """
        place, options = as_reference(reference), options or TransferOptions()
        with open_source(place, options, self._directory.options) as source:
            job = job_from(self._directory, source, place, name, options, force=force)
            return plan(self._directory, [job], options)[0]

    def pull(
        self,
        reference: str | Reference,
        *,
        name: str | None = None,
        force: bool = False,
        options: TransferOptions | None = None,
        workers: int = 0,
        progress: Progress = silent,
    ) -> TransferReport:
        """Copy a snapshot here from a registry, an OCI layout or another store, and verify every chunk of it.

        Raises:
            AlreadyExists: the name stands for another snapshot, and `force` is not set.
            CorruptContent: what came is damaged or hostile; the store is unchanged.
            RegistryError: the registry or the way to it failed; what came until then is kept for the next pull, or gc.
            As `transfer.pull_job`.
        """
        place, options = as_reference(reference), options or TransferOptions()
        pull_name(place, name)  # what makes no sense fails before anybody is asked
        with ExitStack() as stack:
            source = stack.enter_context(open_source(place, options, self._directory.options))
            job = job_from(self._directory, source, place, name, options, force=force)
            change = stack.enter_context(self.transaction(force=force, workers=workers, keep=True))
            return push(source, change, [job], place, options=options, progress=progress, phase="pulling")[0]

    def _jobs(
        self, selector: str, reference: Reference, options: TransferOptions, *, with_parents: bool
    ) -> Sequence[Job]:
        """What a push of a snapshot copies: its ancestors, if they are wanted, the oldest first, and itself."""
        digest, names = self._resolve(selector)
        wanted = parse_selector(selector)
        local = (wanted,) if not isinstance(wanted, DigestPrefix) else tuple(names)
        tag = push_name(reference, digest, local)
        jobs = [job_of(self._directory, digest, tag, options)]
        for ancestor in self.lineage(selector) if with_parents else ():
            if not isinstance(ancestor, str):
                jobs.insert(0, job_of(self._directory, ancestor.digest, ancestor.names[0], options, modest=True))
        return jobs

    def _all_jobs(self, reference: Reference, options: TransferOptions) -> Sequence[Job]:
        require_bare(reference, "push of all snapshots to")
        return [job_of(self._directory, handle.digest, handle.name, options) for handle in reversed(self.list())]

    # Helpers

    def _catch_up(self) -> None:
        self._derived.catch_up()

    def _load(self, digest: Digest) -> Artifact:
        from casstore.artifact import Artifact

        return Artifact.load(self._directory.blobs, self._descriptor(digest), check=False)

    def _descriptor(self, digest: Digest) -> Descriptor:
        return self._directory.resolve(str(digest))

    def _ref_path(self, name: str) -> str:
        return os.path.join(self._directory.refs.path, name)

    def _entry(self, digest: Digest) -> Entry:
        return entry_of(self._catalog, digest)

    def _read(self, digest: Digest, names: Sequence[SnapshotName]) -> Snapshot:
        return Snapshot.read(
            self._ref_path(names[0]), self._directory.blobs, self._descriptor(digest), self._directory.relying_on, names
        )

    def _resolve(self, selector: str) -> tuple[Digest, Sequence[SnapshotName]]:
        """A selector's digest, and its names: the one that was given first."""
        return resolve(self._directory, self._derived, selector)

    def transaction(self, *, force: bool = False, workers: int = 0, keep: bool = False) -> Transaction:
        """Start a change: the store as a Target, whose `tag` verifies and commits. For copies of your own; with `keep`
        what they received when they fail is there for the next one, or for gc.
        """
        self._directory.require_writable()
        from casstore.transaction import Transaction

        return Transaction(self._directory, self._catalog, force=force, workers=workers, keep=keep)
