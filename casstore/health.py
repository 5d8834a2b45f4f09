"""Checking a store and mending it: both look at the directory itself, for a store that is damaged may not open.

A repair goes round by round: what was unknown while a manifest was damaged, the next check tells.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from casstore import marker
from casstore.checking.census import Census, removed_names
from casstore.checking.check import CheckReport, check
from casstore.checking.findings import Finding, Kind, Severity
from casstore.checking.repair import MENDABLE, Opener, Origin, has_none, mend
from casstore.checking.rereading import ReadData
from casstore.content import Fetcher, TagLister
from casstore.derived import Derived
from casstore.digest import Digest
from casstore.disk import DiskSource
from casstore.errors import CasstoreError, InvalidDigest, InvalidReference
from casstore.gc import collect
from casstore.oci import manifest_of
from casstore.places import open_source
from casstore.progress import Meter, Progress, silent
from casstore.rebuilding.rebuild import Rebuilder
from casstore.reference import LayoutReference, Reference, parse_reference
from casstore.storedir import StoreDirectory, StoreOptions
from casstore.transfer import TransferOptions

_DERIVED = {Kind.MISSING_MARKER, Kind.STALE_INDEX, Kind.STALE_CATALOG}


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What a source gave to a repair."""

    source: str
    """As the caller named it."""
    blobs: int
    bytes: int
    problem: str | None
    """Why it gave nothing; None where it gave something."""


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair did."""

    before: CheckReport
    """What was found."""
    mended: tuple[Finding, ...]
    """Of what was found, or came to light meanwhile, what is not so any more."""
    problems: tuple[str, ...]
    """What went wrong with sources that should have given something."""
    after: CheckReport
    """What is left. What was read again was only what had been damaged."""
    sources: tuple[SourceReport, ...] = ()
    """In the order in which they were asked."""

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged any more."""
        return self.after.ok


def check_store(
    path: str | os.PathLike[str],
    *,
    data: ReadData | None = None,
    options: StoreOptions | None = None,
    workers: int = 0,
    progress: Progress = silent,
) -> CheckReport:
    """Check the store at `path`, and what gc would remove of it; see `check.check`."""
    path, options = os.fspath(path), options or StoreOptions()
    return check(
        path, options, data=data, leftovers=lambda: _leftovers(path, options), workers=workers, progress=progress
    )


def repair_store(
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
    registry or OCI layout, as a reference; the directory of a store or layout; or a disk's file, from which packs are
    made again. Only what has the right digest is taken.

    Raises:
        InvalidReference: a source is none of these.
        NotFound, SourceError: there is no such source.
        StoreLocked, StorageError: the store cannot be changed.
        As `check_store`.
    """
    path, options = os.fspath(path), options or StoreOptions()
    origins = [_origin(text, path, options, transfer or TransferOptions(), workers, progress) for text in sources]
    first = now = check_store(path, data=data, options=options, workers=workers, progress=progress)
    tried: set[tuple[Kind, str]] = set()  # since the last time that something was mended, which may help with the rest
    done: set[tuple[Kind, str]] = set()
    seen = {_key(each): each for each in first.findings}
    problems: list[str] = []
    read_again = frozenset(each.digest for each in first.findings if each.blob is not None and each.digest is not None)
    while todo := [each for each in now.findings if each.kind in MENDABLE and _key(each) not in tried]:
        wanted = {_key(each) for each in todo}
        tried |= wanted
        problems += mend(path, options, todo, origins, Meter(progress, "repairing", None))
        read_again |= {each.digest for each in todo if each.blob is not None and each.digest is not None}
        now = check_store(path, data=ReadData(only=read_again), options=options, workers=workers)
        if data is not None and not now.known <= first.known | read_again:  # named by a manifest that was mended
            read_again |= now.known - first.known
            now = check_store(path, data=ReadData(only=read_again), options=options, workers=workers)
        seen |= {_key(each): each for each in now.findings if each.severity is Severity.DAMAGE}
        mended_now = wanted - {_key(each) for each in now.findings} - done
        if mended_now:
            done |= mended_now
            tried = set(done)
    if any(each.kind in _DERIVED for each in now.findings) and not _says_more(now):
        _derive(path, options)
        now = check_store(path, data=ReadData(only=read_again), options=options, workers=workers)
    left = {_key(each) for each in now.findings}
    bad = {each.subject for each in now.findings if each.severity is Severity.DAMAGE}
    mended = [each for each in seen.values() if _key(each) not in left and each.subject not in bad]
    gave = [SourceReport(each.name, each.blobs, each.bytes, None if each.blobs else each.why) for each in origins]
    return RepairReport(first, tuple(mended), tuple(dict.fromkeys(problems)), now, tuple(gave))


def _key(finding: Finding) -> tuple[Kind, str]:
    return finding.kind, finding.subject


def _says_more(report: CheckReport) -> bool:
    """Whether what is derived knows of names what refs/ does not tell: to derive it anew would be to forget that."""
    kinds = {Kind.LOST_REF, Kind.BROKEN_REF, Kind.CHANGED_REF}
    return any(each.kind in kinds and each.digest is not None for each in report.findings)


def _derive(path: str, options: StoreOptions) -> None:
    """Make everything derived anew."""
    directory = StoreDirectory.open(path, options, create=False)
    with contextlib.closing(Derived.open(directory)) as derived:
        derived.catalog.clear()
        derived.catch_up()
        with directory.changing_refs():
            directory.derive_index(directory.read())


def _leftovers(path: str, options: StoreOptions) -> Iterator[Finding]:
    """What gc would remove."""
    directory = StoreDirectory(os.path.abspath(path), options, read_only=marker.require_readable(path))
    report = collect(directory, dry_run=True)
    if report.removed:
        problem = f"{len(report.removed)} blobs, {report.freed} bytes that nothing needs; casstore gc frees them"
        yield Finding(Kind.GARBAGE, "blobs/sha256", problem)
    if report.dead_operations:
        problem = f"what {report.dead_operations} interrupted commands had staged; casstore gc removes it"
        yield Finding(Kind.DEAD_OPERATION, "tmp", problem)


def _origin(
    text: str, store: str, options: StoreOptions, transfer: TransferOptions, workers: int, progress: Progress
) -> Origin:
    """A source that a caller named: `oci:DIR`, a path (which starts with `/` or `.`, or exists), or a reference."""
    if not text.startswith("oci:") and (text.startswith(("/", ".")) or os.path.exists(text)):
        if not os.path.isdir(text):
            return Origin(text, _from_disk(text, workers, progress), _why_not_the_disk)
        reference: Reference = LayoutReference(text)
    else:
        try:
            reference = parse_reference(text)
        except InvalidReference as error:
            raise InvalidReference(f"{error}; and there is no file or directory {text[:200]!r} either") from None
    origin = Origin(text, _from_place(reference, options, transfer), _why_not_the_place)
    with contextlib.suppress(OSError):
        if isinstance(reference, LayoutReference) and os.path.samefile(reference.path, store):
            origin.useless = origin.why = "it is the store itself"
    return origin


def _from_place(reference: Reference, options: StoreOptions, transfer: TransferOptions) -> Opener:
    def open_(store: StoreDirectory, scratch: str) -> AbstractContextManager[Fetcher]:  # noqa: ARG001
        return open_source(reference, transfer, options)

    return open_


def _why_not_the_place(place: Fetcher, wanted: int, said: str) -> str:  # noqa: ARG001
    if isinstance(place, TagLister) and not list(place.tags()):
        return f"{has_none(wanted)}; it has no tags at all, as a repository that does not exist"
    return has_none(wanted)


def _from_disk(path: str, workers: int, progress: Progress) -> Opener:
    @contextlib.contextmanager
    def open_(store: StoreDirectory, scratch: str) -> Iterator[Fetcher]:
        refs = {str(name): digest for name, digest in store.refs.read_all()[0].items()}
        census = Census(store.blobs, {**refs, **removed_names(store.trash, refs)})
        there = [*(holder.digest for holder in census.holders), *_foreign_roots(store)]
        roots = [manifest_of(digest, size) for digest in dict.fromkeys(there) if (size := _size(store, digest))]
        with (
            DiskSource.open(path) as disk,
            Rebuilder(store.blobs, roots, disk, scratch, workers=workers, progress=progress) as rebuilder,
        ):
            yield rebuilder

    return open_


def _size(store: StoreDirectory, digest: Digest) -> int | None:
    with contextlib.suppress(CasstoreError):
        return store.blobs.size(digest)
    return None


def _foreign_roots(store: StoreDirectory) -> Iterator[Digest]:
    """What the entries of index.json stand for that other tools added."""
    for entry in store.foreign_entries():
        with contextlib.suppress(InvalidDigest):
            yield Digest.parse(entry["digest"])


def _why_not_the_disk(rebuilder: Fetcher, wanted: int, said: str) -> str:
    if isinstance(rebuilder, Rebuilder) and not rebuilder.knows_disk:
        return f"{has_none(wanted)}: it is not the disk of a snapshot here that needs one"
    return f"{has_none(wanted)}: {said}"
