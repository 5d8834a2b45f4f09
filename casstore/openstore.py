"""A store that is open: its names, and what they stand for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from casstore import log, permissions
from casstore.catalog import Entry
from casstore.derived import Derived
from casstore.digest import Digest
from casstore.errors import CasstoreError, NotFound
from casstore.listing import list_dir
from casstore.names import DigestPrefix, SnapshotName, parse_name, parse_selector
from casstore.oci import Descriptor
from casstore.refs import BrokenRef
from casstore.selection import entry_of, problems, resolve
from casstore.snapshot import Snapshot, SnapshotHandle
from casstore.storedir import StoreDirectory
from casstore.trash import vanished_text

if TYPE_CHECKING:
    from datetime import datetime

    from casstore.growth import Forest
    from casstore.opened import Opened
    from casstore.removal import PruneReport, Removed, TakenBack
    from casstore.retention import Policy
    from casstore.stats import StoreStats
    from casstore.trash import RemovedRef
    from casstore.trust.trust import Trust


class OpenStore:
    """A store's names: looked up, given and taken away. A context manager that closes the store."""

    def __init__(self, directory: StoreDirectory) -> None:
        self._directory = directory
        self._derived = Derived.open(directory)
        self._catalog = self._derived.catalog
        log.debug("store", "%s: opened%s", directory.path, ", read-only" if directory.read_only else "")

    def close(self) -> None:
        """Close the catalog."""
        self._catalog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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
    def is_new(self) -> bool:
        """Whether it was made when it was opened."""
        return self._directory.is_new

    @property
    def mode(self) -> int:
        """The permissions of its directory, which say who may read it."""
        return permissions.mode_of(self.path)

    @property
    def warnings(self) -> Sequence[str]:
        """What people should know of the store itself, as that others may write to it or that names got lost; looked up
        when asked for.
        """
        vanished = self._directory.vanished()
        lost = [vanished_text(vanished)] if vanished else []
        return [*permissions.warnings(self.path, unasked=self._directory.is_unasked), *lost]

    # Looking

    def list(self, labels: Mapping[str, str | None] | None = None) -> Sequence[SnapshotHandle]:
        """Every name, newest snapshot first. `labels` keeps those that have all of them; None stands for any value."""
        self._catch_up()
        wanted = labels or {}
        handles = []
        for entry in self._catalog.entries():
            if entry.manifest.has_labels(wanted):
                handles += [SnapshotHandle(name, self.ref_path(name), entry, self) for name in entry.names]
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
        return SnapshotHandle(names[0], self.ref_path(names[0]), self._entry(digest), self)

    def open_snapshot(self, selector: str) -> Snapshot:
        """Read a snapshot's documents, by name, digest, id or prefix.

        Raises:
            As `get`, and CorruptContent: its documents are damaged.
        """
        digest, names = self._resolve(selector)
        return self._read(digest, names)

    @contextmanager
    def look_into(self, selector: str, trust: Trust | None = None) -> Iterator[Opened]:
        """A snapshot to be looked into, by name, digest, id or prefix: its disk is read as far as it is asked for.
        Until the context ends gc takes none of its blobs.

        Raises:
            UntrustedContent: its signatures here are not what `trust` asks for.
            As `open_snapshot`.
        """
        from casstore.artifact import Artifact
        from casstore.opened import Opened
        from casstore.trust.gate import gate_at, gate_stored
        from casstore.trust.scopes import STORE

        snapshot = self.open_snapshot(selector)
        with snapshot.rely(snapshot.needs):
            gate = gate_at(STORE, trust)
            if gate is not None:
                gate_stored(gate, self._directory, snapshot.root)
            artifact = Artifact.of_documents(snapshot.blobs, snapshot.artifact_manifest)
            yield Opened(snapshot.names[0], artifact)

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

    def tree(self, selector: str | None = None) -> Forest:
        """Which snapshot came from which, and what each step added: of all, or of one with all that it comes from and
        all that comes from it.

        Raises:
            As `get`.
        """
        from casstore.growth import tree

        self._catch_up()
        if selector is None:
            return tree(self._catalog)
        digest, _ = self._resolve(selector)
        return tree(self._catalog).around(digest)

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

    # Giving and taking away names

    def tag(self, selector: str, name: str, *, force: bool = False) -> None:
        """Give a snapshot one more name; or, by its whole digest, one that has none, as long as gc has not freed it.

        Raises:
            AlreadyExists: the name stands for something else, and `force` is not set.
            As `get`.
        """
        wanted = parse_name(name)
        digest, names = self._resolve_stored(selector)
        self._directory.require_writable()
        snapshot = self._read(digest, names or [wanted])
        if not names and digest not in {removed.digest for removed in self._directory.trash.read()}:
            # It may be what another tool has put here, which nobody has verified.
            from casstore.adopt import name_stored

            name_stored(self._directory, self._catalog, snapshot.root, wanted, force=force)
            return
        with self._directory.shared(), self._directory.changing_refs() as refs:
            self._directory.require(snapshot.needs, to_last=True)
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
        allow_none: bool = False,
    ) -> PruneReport:
        """Remove all names of the snapshots that `policy` does not keep, as one removal for `undo`. Only those with all
        of `labels` are considered; `grouping` is `source`, `image`, `none` or `label:KEY`.

        Raises:
            UsageError: the policy would keep nothing, as none of its rules fits what is there, and `allow_none` is not
                set; or the grouping is none of these.
        """
        from casstore.removal import prune

        return prune(
            self._directory,
            self._derived,
            policy,
            now=now,
            grouping=grouping,
            labels=labels,
            dry_run=dry_run,
            allow_none=allow_none,
        )

    def undo(
        self, selector: str | None = None, *, rename: str | None = None, dry_run: bool = False
    ) -> Sequence[TakenBack]:
        """Take back the last removal with all its names, or that of one name or digest: all of it, or nothing. `rename`
        is another name to give to it, where it is one. A damaged snapshot comes back, too, and is told; one whose
        manifest is missing does not, but the others do.

        Raises:
            NotFound: nothing was removed, or the manifests of all that was are missing.
            AlreadyExists: the name stands for something else meanwhile.
            UsageError: several names were removed, and there is one `rename`.
        """
        from casstore.removal import undo

        return undo(self._directory, selector, rename=rename, dry_run=dry_run)

    @property
    def taken_over(self) -> Mapping[str, RemovedRef]:
        """What names stood for that this object has given to another snapshot, by force, and `undo` can give back."""
        return self._directory.refs.taken_over

    def removed(self) -> Sequence[RemovedRef]:
        """The removed names that `undo` can be asked for, the last removed first."""
        from casstore.removal import removed_refs

        return removed_refs(self._directory)

    # Helpers

    def _catch_up(self) -> None:
        self._derived.catch_up()

    def _descriptor(self, digest: Digest) -> Descriptor:
        return self._directory.resolve(str(digest))

    def ref_path(self, name: str) -> str:
        """What a snapshot's `path` is: where its name stands."""
        return os.path.join(self._directory.refs.path, name)

    def _entry(self, digest: Digest) -> Entry:
        return entry_of(self._catalog, digest)

    def _read(self, digest: Digest, names: Sequence[SnapshotName]) -> Snapshot:
        return Snapshot.read(
            self.ref_path(names[0]), self._directory.blobs, self._descriptor(digest), self._directory.relying_on, names
        )

    def _resolve(self, selector: str) -> tuple[Digest, Sequence[SnapshotName]]:
        """A selector's digest, and its names: the one that was given first."""
        return resolve(self._directory, self._derived, selector)

    def _resolve_stored(self, selector: str) -> tuple[Digest, Sequence[SnapshotName]]:
        """As `_resolve`; a whole digest may also be that of a stored manifest without a name."""
        try:
            return self._resolve(selector)
        except NotFound:
            wanted = parse_selector(selector)
            if isinstance(wanted, DigestPrefix) and len(wanted.hex) == 64:
                digest = Digest(wanted.hex)
                if self._directory.blobs.size(digest) is not None:
                    return digest, []
            raise
