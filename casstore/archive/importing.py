"""An archive comes into a store: all of it in one commit, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from casstore.archive import layouts
from casstore.archive.borrowing import Lender
from casstore.archive.folders import Folders
from casstore.archive.inventoried import Inventoried, kind_of
from casstore.archive.naming import head_name, parent_names
from casstore.archive.payloads import MAX_SNAPSHOTS, Contents, Family, Payloads, Staged, Taken, nearest_first
from casstore.artifact import Artifact
from casstore.capture import CaptureOptions
from casstore.catalog import Catalog
from casstore.contents import is_same_with_fewer_holes, same_content
from casstore.digest import Digest
from casstore.errors import DocumentError
from casstore.manifest import Manifest
from casstore.microsandbox.intake import Importer
from casstore.names import SnapshotName, parse_name
from casstore.progress import Meter, Progress, silent
from casstore.storedir import StoreDirectory
from casstore.tar import compression
from casstore.tar.reader import Member, TarReader
from casstore.tar.stream import Read
from casstore.transaction import Transaction
from casstore.trust.gate import Gate, gate_stored


@dataclass(frozen=True, slots=True)
class Source:
    """An archive to import."""

    read: Read
    """Gives its next bytes, compressed or not."""
    subject: str
    stem: str
    """What the archive itself is called."""
    size: int | None = None
    """Its bytes, where they are known."""


@dataclass(frozen=True, slots=True)
class Named:
    """A snapshot of an archive, as it is in the store now."""

    name: SnapshotName
    is_new: bool
    """Whether it got the name now."""
    snapshot: Staged


@dataclass(frozen=True, slots=True)
class ArchiveReport:
    """What an import did."""

    head: Named
    parents: Sequence[Named]
    """The other snapshots of the archive: what it comes from, nearest first."""
    unused: int
    """Members that belong to no snapshot, such as those of an image."""
    warnings: Sequence[str]


def import_archive(
    directory: StoreDirectory,
    catalog: Catalog,
    source: Source,
    *,
    name: str | None = None,
    force: bool = False,
    strict: bool = False,
    naming: Callable[[Manifest], str] | None = None,
    options: CaptureOptions | None = None,
    gate: Gate | None = None,
    progress: Progress = silent,
) -> ArchiveReport:
    """Take in all snapshots of an archive, whatever its form is. The catalog must have caught up. `name` is that of the
    snapshot that the archive is about; else `naming` gives each a name, or the archive does. What is here already stays
    what it is.

    With `strict` a recorded integrity that cannot be compared any more is refused, and not only warned of. `gate` may
    refuse each snapshot, for its signatures: those that are stored, and those that the archive has.

    Raises:
        AlreadyExists: the name stands for another snapshot, and `force` is not set.
        CorruptContent: the archive, or something in it, is not what it should be.
        UnsupportedVersion: a form, version or compression that is not known.
        UntrustedContent: by the gate.
        UsageError: no name can be made of what the archive says.
        SourceError, StorageError: it cannot be read, or its content not written.
        The store is unchanged then.
    """
    options = options or CaptureOptions()
    directory.require_writable()
    if name is not None:
        parse_name(name)  # before the work, not only after it
    archive = _Metered(source.read, Meter(progress, "importing", source.size))
    with Transaction(directory, catalog, force=force, workers=options.workers) as change:
        taken = _take_in(change, directory, catalog, archive, source.subject, options, strict=strict, gate=gate)
        suggested, head, others = taken.suggested_name, taken.head, taken.others
        if naming is not None:
            suggested = None
            head, *others = [replace(each, hint=naming(each.manifest)) for each in (head, *others)]
        own = head_name(name, (suggested, head.hint, source.stem), source.subject)
        names = parent_names(
            own,
            [(each.root.digest, each.hint) for each in others],
            stored=lambda digest: _names(catalog, digest),
            is_free=lambda each: directory.refs.get(each) is None,
        )
        fresh = {names[each.root.digest][0]: each.root for each in others if names[each.root.digest][1]}
        change.commit_all({**fresh, own: head.root}, unforced=fresh)
    parents = [Named(*names[each.root.digest], each) for each in others]
    return ArchiveReport(Named(own, True, head), parents, taken.unused, tuple(taken.warnings))


def _take_in(
    change: Transaction,
    directory: StoreDirectory,
    catalog: Catalog,
    archive: _Metered,
    subject: str,
    options: CaptureOptions,
    *,
    strict: bool,
    gate: Gate | None,
) -> Taken:
    members = _files(TarReader(compression.plain(archive.read, subject=subject), subject=subject))
    first = next(members, None)
    if first is None:
        raise DocumentError(subject, "expected an archive of snapshots, got one without files")
    members = chain([first], members)
    if layouts.belongs(first.name):
        is_stored = _Stored(directory, catalog)
        return layouts.take_in(change, members, subject, read=lambda: archive.count, is_stored=is_stored, gate=gate)
    importer = Importer(change, catalog, options=options, strict=strict)
    lender = Lender(change, catalog, importer, workers=options.workers)
    contents = _read(first, members, importer, lender, subject)
    staged = []
    for found in nearest_first(contents.head, contents.snapshots, subject):
        created = importer.snapshot(found.manifest, found.disks, found.sidecars)
        fresh = Staged(created.root, created.manifest, created.added, found.hint)
        staged.append(_as_stored(change, catalog, fresh, options.workers))
    if gate is not None:
        staged = [replace(each, verdicts=gate_stored(gate, change, each.root).verdicts) for each in staged]
    return Taken(staged[0], staged[1:], contents.unused, contents.suggested_name, importer.warnings)


def _read(first: Member, members: Iterable[Member], importer: Importer, lender: Lender, subject: str) -> Contents:
    """What the members are. The `first` tells the form: it is none of an image's, which have a place in both."""
    payloads = Payloads(importer, subject)
    has_place = kind_of(first.name.removeprefix("./")) is not None
    family: Family = Inventoried(payloads, lender) if has_place else Folders(payloads)
    for member in members:
        family.take(member)
    contents = family.finish()
    if len(contents.snapshots) > MAX_SNAPSHOTS:
        problem = f"expected at most {MAX_SNAPSHOTS} snapshots, got {len(contents.snapshots)}"
        raise DocumentError(subject, problem)
    return contents


def _as_stored(change: Transaction, catalog: Catalog, staged: Staged, workers: int) -> Staged:
    """The snapshot of the same content that is here already, if there is one: its packs may be others. Or, as archives
    may come without some of the holes, one of the same bytes that has more.
    """
    known = [here for digest in catalog.find(staged.manifest.id.hex) if (here := change.reuse(digest)) is not None]
    if not known:
        return staged
    found = Artifact.load(change, staged.root)
    same = next((here for here in known if same_content(found, here)), None)
    same = same or next((here for here in known if is_same_with_fewer_holes(found, here, workers=workers)), None)
    return staged if same is None else replace(staged, root=same.manifest.descriptor, added=0)


class _Stored:
    """Knows what a name in the store stands for, or is about that."""

    def __init__(self, directory: StoreDirectory, catalog: Catalog) -> None:
        self._directory, self._catalog = directory, catalog
        self._referrers: frozenset[Digest] | None = None

    def __call__(self, digest: Digest) -> bool:
        if self._catalog.entries([digest]):
            return True
        if self._referrers is None:
            self._referrers = frozenset(self._directory.refs.read_referrers().values())
        return digest in self._referrers


def _names(catalog: Catalog, digest: Digest) -> Sequence[SnapshotName]:
    return [SnapshotName(name) for entry in catalog.entries([digest]) for name in entry.names]


def _files(members: Iterable[Member]) -> Iterator[Member]:
    """Without the directories, which say nothing that the files' names do not."""
    return (member for member in members if not member.is_directory)


class _Metered:
    """Reads, and counts what was read."""

    def __init__(self, read: Read, meter: Meter) -> None:
        self._read, self._meter = read, meter
        self.count = 0

    def read(self, size: int) -> bytes:
        """See Read."""
        data = self._read(size)
        self.count += len(data)
        self._meter.add(len(data))
        return data
