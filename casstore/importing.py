"""Artifact directories of microsandbox, taken into a store: one, or a whole tree of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from casstore.derived import Derived
from casstore.digest import Digest
from casstore.errors import CasstoreError, NotFound, StorageError, StoreLocked
from casstore.names import SnapshotName, as_name, parse_name
from casstore.progress import Progress
from casstore.storedir import StoreDirectory
from casstore.trust.gate import gate_at, gate_stored
from casstore.trust.scopes import ARCHIVE

if TYPE_CHECKING:
    from casstore.artifact import Artifact
    from casstore.binding import Created
    from casstore.capture import CaptureOptions
    from casstore.manifest import Manifest
    from casstore.microsandbox.directory import ArtifactDirectory
    from casstore.transaction import Transaction
    from casstore.trust.decision import Verdict
    from casstore.trust.trust import Trust


@dataclass(frozen=True, slots=True)
class Imported:
    """An artifact that was taken in."""

    path: str
    """Where it came from."""
    names: Sequence[SnapshotName]
    """Those that it has now; the best one first."""
    created: Created
    is_new: bool
    """Whether one of the names stands for something else than before."""
    warnings: Sequence[str]
    verdicts: tuple[Verdict, ...] = ()
    """What was decided about its signatures, one for each requirement."""

    @property
    def digest(self) -> Digest:
        """The artifact digest."""
        return self.created.root.digest


@dataclass(frozen=True, slots=True)
class TreeReport:
    """What became of a tree: what was taken in, parents first; and what was not, by path, and why."""

    imported: Sequence[Imported]
    malformed: Sequence[tuple[str, CasstoreError]]
    """These are no artifacts."""
    refused: Sequence[tuple[str, CasstoreError]]
    """These are, but a name is taken, or a disk is missing or damaged."""

    @property
    def skipped(self) -> Sequence[tuple[str, CasstoreError]]:
        """All that was not taken in."""
        return [*self.malformed, *self.refused]


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to take an artifact in: `force` takes over names that are in use; `strict` takes no warning for an answer."""

    force: bool = False
    strict: bool = False
    capture: CaptureOptions | None = None
    naming: Callable[[Manifest], str] | None = None
    """What to call the snapshots of an archive, where no name is given; else the archive says it."""
    trust: Trust | None = None
    """Whose signatures what comes in must have, ancestors included; None: nothing is asked. An
    artifact directory of microsandbox has none; a snapshot that is in the store already has those that it has there.
    """


def import_directory(
    directory: StoreDirectory,
    derived: Derived,
    path: str,
    *,
    name: str | None,
    options: ImportOptions,
    progress: Progress,
) -> Imported:
    """Take the artifact directory `path` in, under `name` or one like its own.

    Raises:
        As Store.import_directory.
    """
    from casstore.microsandbox.directory import member_name, read_directory

    directory.require_writable()
    found = read_directory(path)
    own = parse_name(name) if name is not None else _own_name(member_name(path) or _last_part(path))
    return _take_in(directory, derived, found, [own], {}, options, progress)


def import_tree(
    directory: StoreDirectory, derived: Derived, path: str, *, options: ImportOptions, progress: Progress
) -> TreeReport:
    """Take in every artifact in the subdirectories of `path`, each for itself.

    Raises:
        As Store.import_tree.
    """
    from casstore.microsandbox.directory import read_tree

    directory.require_writable()
    if not os.path.isdir(path):
        raise NotFound(f"artifact directories in {path!r}: expected a directory, got none")
    tree = read_tree(path)
    imported: list[Imported] = []
    refused: list[tuple[str, CasstoreError]] = []
    known: dict[str, Digest] = {}
    given: set[SnapshotName] = set()
    for found in tree.found:
        names = [_own_name(name) for name in found.names]
        # One of the tree takes no name from another one, whatever it may take from the store.
        own = replace(options, force=options.force and given.isdisjoint(names))
        try:
            one = _take_in(directory, derived, found.artifact, names, known, own, progress)
        except (StoreLocked, StorageError):
            raise  # the next one would fare no better
        except CasstoreError as error:
            refused.append((found.artifact.path, error))
        else:
            known[found.artifact.manifest.known_as] = one.digest
            given.update(names)
            imported.append(one)
    return TreeReport(imported, tree.malformed, refused)


def _take_in(
    directory: StoreDirectory,
    derived: Derived,
    found: ArtifactDirectory,
    names: Sequence[SnapshotName],
    known: Mapping[str, Digest],
    options: ImportOptions,
    progress: Progress,
) -> Imported:
    from casstore.artifact import Artifact
    from casstore.contents import same_content
    from casstore.microsandbox.intake import Importer
    from casstore.transaction import Transaction

    derived.catch_up()
    manifest = found.manifest
    here = {name: directory.refs.get(name) for name in names}
    workers = 0 if options.capture is None else options.capture.workers
    gate = gate_at(ARCHIVE, options.trust)
    with Transaction(directory, derived.catalog, force=options.force, workers=workers) as change:
        same = _taken_in_before(change, derived, manifest.id, here.values())
        if not options.force:
            for name in names:
                directory.refs.require_free(name, unless=None if same is None else same.digest)
        parent = known.get(manifest.parent or "")
        base = same or (None if parent is None else change.reuse(parent))
        importer = Importer(change, derived.catalog, options=options.capture, strict=options.strict, progress=progress)
        for file in manifest.disks:
            with found.open_disk(file) as source:
                source.clone_into(change.scratch)
                importer.disk(file.name, source, of=manifest, file=file.name, base=base)
        created = importer.snapshot(manifest, [file.name for file in manifest.disks], found.sidecars)
        unchanged = False
        if same is not None and same_content(Artifact.load(change, created.root), same):
            created = replace(created, root=same.manifest.descriptor, added=0)
            unchanged = all(digest == same.digest for digest in here.values())
        verdicts = () if gate is None else gate_stored(gate, change, created.root).verdicts
        if not unchanged:
            change.commit_all(dict.fromkeys(names, created.root))
    return Imported(found.path, names, created, not unchanged, importer.warnings, verdicts)


def _taken_in_before(
    change: Transaction, derived: Derived, snapshot_id: Digest, here: Iterable[Digest | None]
) -> Artifact | None:
    """What a name stands for already, if it is a snapshot of this id."""
    entries = derived.catalog.entries([digest for digest in here if digest is not None])
    same = next((entry.digest for entry in entries if entry.id == snapshot_id), None)
    return None if same is None else change.reuse(same)


def _last_part(path: str) -> str:
    return os.path.basename(os.path.abspath(path))


def _own_name(text: str) -> SnapshotName:
    """The name that is most like what something is called elsewhere."""
    return as_name(text) or SnapshotName("snapshot")
