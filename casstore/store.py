"""The store, as the library's users see it: one object that binds directory, catalog and the use cases together.

    store = Store.open("snapshots", create=True)
    store.create(Snapshot.builder("disk.ext4").name("base").build())
    store.push("base", "registry.example/team/disks:base")

Names, digests and ids select snapshots: `base`, `sha256:1f00...` or a prefix of at least six digits.

What works on content needs numpy (0.1 to 0.2 s to import), and is imported by the methods that do: looking is quick.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from casstore.catalog import Entry
from casstore.config import SnapshotConfig
from casstore.derived import Derived
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import CasstoreError, CorruptContent, HasChildren, NotFound, UsageError
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
from casstore.snapshot import Snapshot, SnapshotHandle
from casstore.storedir import StoreDirectory, StoreOptions
from casstore.transfer import Job, TransferOptions, TransferReport, plan, pull_name, push, push_name

if TYPE_CHECKING:
    from casstore.artifact import Artifact
    from casstore.capture import CaptureOptions
    from casstore.stats import StoreStats
    from casstore.transaction import Transaction
    from casstore.verify import VerifyReport


@dataclass(frozen=True, slots=True)
class Removed:
    """What `remove` took away: names, and whether the snapshot is still there under another."""

    digest: Digest | None
    names: tuple[str, ...]
    remaining: tuple[str, ...]


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
    def init(cls, path: str | os.PathLike[str], *, options: StoreOptions | None = None) -> Self:
        """Make a store, or open the one that is there."""
        return cls.open(path, create=True, options=options)

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

    # Looking

    def list(self, labels: Mapping[str, str | None] | None = None) -> Sequence[SnapshotHandle]:
        """Every name, newest snapshot first. `labels` keeps those that have all of them; None stands for any value."""
        self._catch_up()
        wanted = labels or {}
        handles = []
        for entry in self._catalog.entries():
            has = entry.manifest.labels
            if all(key in has and (value is None or has[key] == value) for key, value in wanted.items()):
                handles += [SnapshotHandle(name, self._ref_path(name), entry, self) for name in entry.names]
        return handles

    def problems(self) -> Sequence[BrokenRef]:
        """Refs that lead to no usable snapshot, and why. They do not hurt the others."""
        self._catch_up()
        failed = (BrokenRef(name, str(error)) for name, error in self._derived.failed.items())
        return sorted([*self._derived.broken, *failed])

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
        """Remove a name, or all names of a digest. What nothing else needs is freed by the next gc.

        Raises:
            NotFound: there is no such name or digest.
            HasChildren: it is the last name of a snapshot that others name as their parent, and `force` is not set.
        """
        wanted = parse_selector(selector)
        digest: Digest | None
        names: Sequence[SnapshotName]
        # What the selector stands for is looked up while nobody else can change it.
        with self._directory.changing_refs() as refs:
            remaining: tuple[str, ...] = ()
            if not isinstance(wanted, DigestPrefix) and self._is_broken(wanted):
                digest, names = None, (wanted,)
            else:
                digest, names = self._resolve(selector)
                if not isinstance(wanted, DigestPrefix):
                    remaining, names = tuple(names[1:]), (wanted,)
                entry = self._entry(digest)
                twins = [other for other in self._catalog.find(entry.id.hex) if other != digest]
                if entry.children and not remaining and not twins and not force:
                    shown = ", ".join(self._catalog.children(entry.id, most=5))
                    shown += f" and {entry.children - 5} more" if entry.children > 5 else ""
                    raise HasChildren(
                        f"snapshot {selector}: {shown} in the store name it as their parent; remove them first, or"
                        " force with -f (they keep their data)"
                    )
            for name in names:
                refs.remove(name)
        return Removed(digest, tuple(names), remaining)

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

    def gc(self, *, dry_run: bool = False) -> GcReport:
        """Remove what nothing needs; see `gc.collect`."""
        report = collect(self._directory, dry_run=dry_run)
        self._catch_up()
        return report

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
        entries = self._catalog.entries([digest])
        if not entries:
            raise NotFound(f"snapshot {digest}: it is not in the store")
        return entries[0]

    def _read(self, digest: Digest, names: Sequence[SnapshotName]) -> Snapshot:
        return Snapshot.read(
            self._ref_path(names[0]), self._directory.blobs, self._descriptor(digest), self._directory.relying_on, names
        )

    def _is_broken(self, name: SnapshotName) -> bool:
        return any(problem.name == name for problem in self.problems())

    def _resolve(self, selector: str) -> tuple[Digest, Sequence[SnapshotName]]:
        """A selector's digest, and its names: the one that was given first."""
        wanted = parse_selector(selector)
        self._catch_up()
        if not isinstance(wanted, DigestPrefix):
            digest = self._directory.refs.get(wanted)
            if digest is None or not self._catalog.has(digest):
                problem = next((each.problem for each in self.problems() if each.name == wanted), None)
                if problem is not None:
                    raise CorruptContent(f"snapshot {wanted}: {problem}; remove the name, or pull it again with -f")
                hint = f"; a digest is written sha256:{wanted}" if re.fullmatch("[0-9a-f]{6,64}", wanted) else ""
                raise NotFound(
                    f"snapshot {wanted}: there is no such name in {self.path!r}{hint}; casstore list shows all"
                )
            return digest, [wanted, *(name for name in self._names(digest) if name != wanted)]
        found = self._catalog.find(wanted.hex)
        if not found:
            raise NotFound(f"snapshot {wanted}: no digest or id in {self.path!r} starts so; casstore list shows all")
        if len(found) > 1:
            raise UsageError(f"snapshot {wanted}: expected one, got {len(found)}: {', '.join(map(str, found))}")
        return found[0], self._names(found[0])

    def _names(self, digest: Digest) -> Sequence[SnapshotName]:
        """What stands for it: the catalog says where to look, and the refs are asked."""
        return [name for name in self._catalog.names(digest) if self._directory.refs.get(name) == digest]

    def transaction(self, *, force: bool = False, workers: int = 0, keep: bool = False) -> Transaction:
        """Start a change: the store as a Target, whose `tag` verifies and commits. For copies of your own; with `keep`
        what they received when they fail is there for the next one, or for gc.
        """
        self._directory.require_writable()
        from casstore.transaction import Transaction

        return Transaction(self._directory, self._catalog, force=force, workers=workers, keep=keep)
