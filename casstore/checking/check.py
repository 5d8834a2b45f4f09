"""Whether a store is what it should be: every finding with its kind, and with the names that it hurts.

structure   its directories, markers and names; of every snapshot the manifest, config and map, the sizes of its blobs
            and the directories of its packs; referrers; index.json; the catalog against a walk; what else lies around
data        the bytes of every blob, or of a part of them

What is removed and can be taken back is looked at like the rest. Of what other tools' entries in index.json need, the
manifests and sizes are, as far as it is there. A blob that several snapshots share is looked at once. Nothing is
changed. What the names need is kept from gc while it is looked at, by a lease; a store that cannot be written, or is
too damaged to be locked, is looked at without.

Memory is held per name and per blob, not per chunk: the walk that checks the snapshots fills a catalog in a file of its
own, with which the store's is compared row by row.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from casstore import spec
from casstore.artifact import Artifact
from casstore.blobs import BlobDirectory
from casstore.checking.asis import AsIs, kind_of, look
from casstore.checking.census import Census, Holder, read_root, removed_names
from casstore.checking.findings import Finding, Kind, Severity
from casstore.checking.foreign import Reached, reached
from casstore.checking.litter import look_around, shortened
from casstore.checking.rereading import Position, ReadData, reread
from casstore.checking.shared import SharedDirectories, Tables
from casstore.digest import Digest
from casstore.directories import Directories
from casstore.errors import (
    CasstoreError,
    CorruptContent,
    DigestMismatch,
    DocumentError,
    NotFound,
    SizeMismatch,
    StorageError,
)
from casstore.oci import AnyManifest, ArtifactManifest, Descriptor, manifest_of
from casstore.operation import Operation
from casstore.permissions import Owners
from casstore.progress import Meter, Progress, silent
from casstore.storedir import StoreOptions
from casstore.streams import read_through

_SEVERITIES = list(Severity)

Leftovers = Callable[[], Iterable[Finding]]
"""Finds what gc would remove."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found. Blobs are those that the names need, removed ones in the trash, and what other tools' entries
    have here; each counted once. Sizes in bytes.
    """

    findings: tuple[Finding, ...]
    """The worst first."""
    snapshots: int
    """Names, those of referrers and in the trash left out."""
    blobs: int
    blob_bytes: int
    read: int
    """Blobs whose bytes were read."""
    read_bytes: int
    finished: bool
    """False where the time was over before all was read that was to be read."""
    kept_position: bool = True
    """False where the next check cannot know where this one, which read a part, stopped."""
    known: frozenset[Digest] = field(default=frozenset(), repr=False)
    """The blobs that are counted."""

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not any(finding.severity is Severity.DAMAGE for finding in self.findings)


def check(
    path: str,
    options: StoreOptions,
    *,
    data: ReadData | None = None,
    leftovers: Leftovers = tuple,
    workers: int = 0,
    progress: Progress = silent,
) -> CheckReport:
    """Check the store at `path`, and read the bytes that `data` chooses.

    Raises:
        NotFound: there is no store.
        UnsupportedVersion: made by a newer version.
        StorageError: its directory cannot be read.
    """
    as_is = look(path, options)
    findings = list(as_is.findings)
    refs = {**as_is.refs, **removed_names(as_is.directory.trash, as_is.refs)}
    census = Census(as_is.blobs, refs, reached(as_is.blobs, as_is.foreign))
    with _lease(as_is, census) as operation:
        census = _still_there(as_is, refs, census)
        checker = _Checker(as_is.blobs, census, Meter(progress, "checking", None))
        if as_is.catalog is not None and as_is.is_whole:
            scratch = None if operation is None else os.path.join(operation.path, "catalog")
            table = as_is.catalog.compare(
                census.snapshots, checker.load, reread=lambda: as_is.directory.refs.read_all()[0], scratch=scratch
            )
            if table is not None:
                problem = f"it does not say what a walk tells, in {table}; casstore reindex makes it anew"
                findings.append(Finding(Kind.STALE_CATALOG, "catalog.sqlite", problem))
        checker.check_rest()
        findings += look_around(as_is.directory, as_is.blobs)
        # What a lost name needs is no garbage; and on a damaged store gc cannot know, but the damage is told.
        if not any(finding.kind in {Kind.LOST_REF, Kind.BROKEN_REF} for finding in findings):
            with contextlib.suppress(CasstoreError, OSError):
                findings += leftovers()
        reading = _Reading()
        if data is not None:
            cache = None if operation is None else os.path.join(as_is.directory.path, "cache")
            reading = checker.read_data(data, Position(cache), workers=workers, progress=progress)
    findings += checker.findings
    return CheckReport(
        findings=tuple(sorted(findings, key=_order)),
        snapshots=len(census.snapshots),
        blobs=len(census.needs),
        blob_bytes=sum(blob.size for blob in census.needs.values()),
        read=reading.blobs,
        read_bytes=reading.bytes,
        finished=reading.finished,
        kept_position=reading.kept_position,
        known=frozenset(census.needs),
    )


def _order(finding: Finding) -> tuple[int, str, str]:
    return _SEVERITIES.index(finding.severity), finding.kind.value, finding.subject


@contextlib.contextmanager
def _lease(as_is: AsIs, census: Census) -> Iterator[Operation | None]:
    """Keep what is needed from gc, where that can be."""
    store = as_is.directory
    with contextlib.ExitStack() as stack:
        operation: Operation | None = None
        if as_is.is_whole and not store.read_only:
            with contextlib.suppress(CasstoreError, OSError):
                operation = stack.enter_context(store.operation())
                with store.shared():
                    operation.rely_on(census.digests)
        yield operation


def _still_there(as_is: AsIs, seen: Mapping[str, Digest], census: Census) -> Census:
    """Without the names that were removed before the lease held: gc may have taken what they needed."""
    refs = as_is.directory.refs
    with contextlib.suppress(CasstoreError):
        now = {
            str(name): digest for read in (refs.read_all()[0], refs.read_referrers()) for name, digest in read.items()
        }
        now |= removed_names(as_is.directory.trash, now)
        left = {name: digest for name, digest in seen.items() if now.get(name) == digest}
        return census if len(left) == len(seen) else Census(as_is.blobs, left, census.foreign)
    return census


@dataclass(slots=True)
class _Reading:
    """What was read of the data."""

    blobs: int = 0
    bytes: int = 0
    finished: bool = True
    kept_position: bool = True


class _Checker:
    """Looks at what names need. `findings` are about blobs; each has at most one."""

    def __init__(self, blobs: BlobDirectory, census: Census, meter: Meter) -> None:
        self._blobs, self._census, self._meter = blobs, census, meter
        self._tables = Tables()
        self.findings: list[Finding] = []
        self._bad: set[Digest] = set()
        self._looked_at: set[Digest] = set()
        self._snapshots = {holder.digest: holder for holder in census.holders if holder.subject is None}
        self._done: set[Holder] = set()
        self._loose: list[Digest] = []
        self._owners = Owners(blobs.path)

    def load(self, digest: Digest) -> Artifact:
        """Check a snapshot, but for the bytes of its packs. One that came since the census is just read.

        Raises:
            CorruptContent: something is wrong with it, which is told.
        """
        holder = self._snapshots.get(digest)
        if holder is None:
            return Artifact.load(self._blobs, manifest_of(digest, self._blobs.size(digest) or 0), check=False)
        artifact = self._check(holder)
        if artifact is None:
            raise CorruptContent(f"snapshot {digest}: it is damaged")
        return artifact

    def check_rest(self) -> None:
        """Check every snapshot that was not, and every referrer, but for the bytes of other tools' blobs."""
        for holder in self._census.holders:
            if holder not in self._done:
                self._check(holder)
        for entry in self._census.foreign:
            self._check_foreign(entry)
        if self._loose:
            shown = shortened([digest.hex for digest in self._loose])
            problem = f"expected files of mode 0444 of the store's owner, got others: {shown}; check --repair mends it"
            self.findings.append(Finding(Kind.LOOSE_PERMISSIONS, "blobs/sha256", problem))

    def _check(self, holder: Holder) -> Artifact | None:
        """The snapshot, if it is sound; None for a referrer."""
        self._done.add(holder)
        try:
            raw = read_root(self._blobs, holder.digest)
            if self._is_sound(manifest_of(holder.digest, len(raw))):
                return self._check_holder(holder, raw)
        except DocumentError as error:
            self._tell_document(holder, error)
        except (CasstoreError, OSError) as error:
            self._tell(holder.digest, None, error)
        return None

    def _check_holder(self, holder: Holder, raw: bytes) -> Artifact | None:
        self._meter.add(len(raw))
        if holder.subject is not None:
            if holder.is_attachment:
                manifest = AnyManifest.parse(raw, spec.MEDIA_MANIFEST, subject=f"signatures {holder.digest}")
            else:
                manifest = AnyManifest.parse_referrer(raw, spec.MEDIA_MANIFEST, of=manifest_of(holder.subject, 0))
            self._check_children(holder, manifest.blobs)
            return None
        artifact_manifest = ArtifactManifest.parse(raw, subject=f"snapshot {holder.digest}")
        if not self._check_children(holder, artifact_manifest.children):
            return None
        return self._check_artifact(holder, artifact_manifest)

    def _check_foreign(self, entry: Reached) -> None:
        """Check what another tool's entry needs: its manifests, and the sizes of its other blobs."""
        for blob in entry.blobs:
            known = self._census.needs[blob.digest]
            if known.digest in self._looked_at:
                continue
            self._looked_at.add(known.digest)
            try:
                os.close(self._blobs.open(known.digest, size=known.size))
                if known.digest in entry.manifests:
                    read_through(self._blobs, known, self._meter.add)
            except (CasstoreError, OSError) as error:
                self._tell(known.digest, known, error)
        if entry.missing:
            problem = f"{entry.missing} blobs that another tool's entry {entry.label[11:]} needs are not here"
            self.findings.append(Finding(Kind.FOREIGN_ENTRY, "index.json", problem))

    def _check_children(self, holder: Holder, children: Iterable[Descriptor]) -> bool:
        """Whether the documents among the children are sound."""
        readable = True
        for blob in children:
            known = self._census.needs.setdefault(blob.digest, blob)  # new where the manifest was not readable before
            if known.size != blob.size:
                problem = f"{blob.digest} has {blob.size} bytes here, and {known.size} elsewhere"
                self._tell_document(holder, DocumentError(f"snapshot {holder.digest}", problem))
                return False
            if not self._is_sound(known) and blob.media_type != spec.MEDIA_PACK:
                readable = False
        return readable

    def _is_sound(self, blob: Descriptor) -> bool:
        """Whether a blob is there with its size; of a config or map, whether it is what its digest says."""
        if blob.digest in self._looked_at:
            return blob.digest not in self._bad
        self._looked_at.add(blob.digest)
        try:
            self._look_at(blob)
            if blob.media_type in {*spec.MEDIA_CONFIGS, spec.MEDIA_MAP}:
                read_through(self._blobs, blob, self._meter.add)
        except (CasstoreError, OSError) as error:
            self._tell(blob.digest, blob, error)
            return False
        return True

    def _look_at(self, blob: Descriptor) -> None:
        subject = f"blob {blob.digest}"
        if self._blobs.size(blob.digest) is None:
            raise NotFound(f"{subject}: expected it at {self._blobs.path_of(blob.digest)!r}, got nothing there")
        info = os.lstat(self._blobs.path_of(blob.digest))
        if info.st_size != blob.size:
            raise SizeMismatch(subject, expected=blob.size, got=info.st_size)
        if self._owners.may_others_write(info):
            self._loose.append(blob.digest)

    def _check_artifact(self, holder: Holder, manifest: ArtifactManifest) -> Artifact | None:
        """Check how the documents of a snapshot, which are sound, fit together and to the packs' directories."""
        artifact = Artifact.of_documents(self._blobs, manifest)
        directories = SharedDirectories(self._blobs, manifest.packs, artifact.map.packs, self._tables)
        artifact.directories = directories
        try:
            artifact.check_runs()
        except (CasstoreError, OSError):
            packs = enumerate(manifest.packs)
            bad = [pack for n, pack in packs if not self._check_directory(holder, directories, n, pack)]
            if not bad:
                raise
            return None
        return artifact

    def _check_directory(self, holder: Holder, directories: Directories, n: int, pack: Descriptor) -> bool:
        if pack.digest in self._bad:
            return False
        try:
            directories.table(n)
        except CorruptContent as error:
            # Either the pack is damaged, or the map speaks of another one: its sha256 tells.
            try:
                read_through(self._blobs, pack)
            except (CasstoreError, OSError) as worse:
                self._tell(pack.digest, pack, worse)
            else:
                self._tell_document(holder, error)
            return False
        except (CasstoreError, OSError) as error:
            self._tell(pack.digest, pack, error)
            return False
        return True

    def read_data(self, data: ReadData, position: Position, *, workers: int, progress: Progress) -> _Reading:
        """Read what `data` chooses of the blobs that look sound."""
        sound = [blob for blob in self._census.needs.values() if blob.digest not in self._bad]
        chosen = data.choose(sound, position.load() if data.is_continued else "")
        meter = Meter(progress, "reading", sum(blob.size for blob in chosen))
        reading, last = _Reading(), ""
        try:
            for read in reread(self._blobs, chosen, max_duration=data.max_duration, workers=workers, meter=meter):
                last = read.blob.digest.hex
                reading.blobs, reading.bytes = reading.blobs + 1, reading.bytes + read.blob.size
                if read.error is not None:
                    self._tell(read.blob.digest, read.blob, read.error)
        finally:
            if last and data.is_continued:
                reading.kept_position = position.save(last)
        reading.finished = reading.blobs == len(chosen)
        return reading

    def _tell(self, digest: Digest, blob: Descriptor | None, error: Exception) -> None:
        """A blob is not what it should be."""
        if digest not in self._bad:
            self._bad.add(digest)
            kind, problem = _judge(self._blobs, digest, error)
            hurt = self._census.hurt(digest)
            self.findings.append(Finding(kind, f"blobs/sha256/{digest.hex}", problem, digest, blob, hurt))

    def _tell_document(self, holder: Holder, error: Exception) -> None:
        """The documents of a snapshot break their rules, though their digests are right."""
        if holder.digest not in self._bad:
            self._bad.add(holder.digest)
            path = f"blobs/sha256/{holder.digest.hex}"
            self.findings.append(Finding(Kind.BAD_DOCUMENT, path, str(error), holder.digest, None, holder.names))


def _judge(blobs: BlobDirectory, digest: Digest, error: Exception) -> tuple[Kind, str]:
    """What an error says of a blob."""
    if isinstance(error, NotFound):
        return Kind.MISSING_BLOB, "expected a blob, got nothing there"
    if isinstance(error, SizeMismatch):
        return Kind.WRONG_SIZE, f"expected {error.expected} bytes, got {'more' if error.got is None else error.got}"
    if isinstance(error, DigestMismatch):
        return Kind.WRONG_CONTENT, f"expected content of this digest, got {error.got}"
    if isinstance(error, StorageError | OSError):
        return Kind.UNREADABLE, str(error)
    try:
        mode = os.lstat(blobs.path_of(digest)).st_mode
    except OSError as other:
        return Kind.UNREADABLE, str(other)
    if not stat.S_ISREG(mode):
        return Kind.NOT_A_FILE, f"expected a regular file, got {kind_of(mode)}"
    return Kind.BAD_DOCUMENT, str(error)
