"""Mending what a check found: each damaged blob is fetched again from where it still is, and nothing else is changed.

A blob is received into an operation, where its digest is verified, as everything that comes in. Then, with the store to
itself, the bad file gets a second name in quarantine/, durably, and the good one is renamed over it: at any moment its
place holds the one or the other, and a reader has the file that it opened. What is found to be sound by then, because
somebody else mended it, is left alone. gc never touches the quarantine.

Killed at any point, it leaves an operation for gc, and perhaps a second name of a bad file in the quarantine.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from casstore import durable, spec
from casstore.artifact import Artifact, verified_chunks
from casstore.checking.census import read_root
from casstore.checking.findings import Finding, Kind
from casstore.content import Fetcher, Resolver
from casstore.digest import Digest
from casstore.errors import CasstoreError, CorruptContent, NotFound, RegistryError, storage_errors
from casstore.names import ReferrerName, SnapshotName, fits, is_reserved, parse_name, referrer_subject
from casstore.oci import AnyManifest, Descriptor, manifest_of
from casstore.operation import Operation
from casstore.permissions import Owners
from casstore.progress import Meter
from casstore.soundness import verify_chunks
from casstore.storedir import PARTS, StoreDirectory, StoreOptions
from casstore.streams import read_through

_BLOBS = {Kind.MISSING_BLOB, Kind.NOT_A_FILE, Kind.WRONG_SIZE, Kind.WRONG_CONTENT, Kind.UNREADABLE}
_REFS = {Kind.LOST_REF, Kind.BROKEN_REF}
MENDABLE = {*_BLOBS, *_REFS, Kind.BAD_LAYOUT, Kind.LOOSE_PERMISSIONS}
"""What is mended here. What is stale is made anew by whoever opens the store."""
_QUARANTINE = "quarantine"


class Opener(Protocol):
    """Opens a source for one round of repairs."""

    def __call__(self, store: StoreDirectory, scratch: str, /) -> AbstractContextManager[Fetcher]:
        """`scratch` is a directory on the store's file system for files without a name."""
        ...


@dataclass(slots=True)
class Origin:
    """Where good bytes may come from, and what came from there in all rounds of a repair."""

    name: str
    """For texts."""
    open: Opener
    explain: Callable[[Fetcher, int, str], str] = lambda _, wanted, __: has_none(wanted)
    """Why it has none of so many blobs, asked while it is open; with what it said of the last one."""
    useless: str = ""
    """Why it is not asked, or not again."""
    asked: set[Digest] = field(default_factory=set)
    blobs: int = 0
    bytes: int = 0
    why: str = "nothing was wanted of it"
    """Why it gave nothing."""


def has_none(wanted: int) -> str:
    """What is said of a source that has none of so many blobs."""
    return (
        f"it has none of the {wanted} blobs that are wanted"
        if wanted > 1
        else "it does not have the blob that is wanted"
    )


def mend(
    path: str, options: StoreOptions, findings: Sequence[Finding], origins: Sequence[Origin], meter: Meter
) -> list[str]:
    """Mend what can be mended of some findings; the next check tells what was. Returns what went wrong, in texts.

    Raises:
        StoreLocked: another process does not let go of the store.
        StorageError: the store cannot be written, or opened again.
        NotFound, CorruptContent: an origin, or the store, cannot be opened.
    """
    layout = [finding for finding in findings if finding.kind is Kind.BAD_LAYOUT]
    if layout:
        _mend_layout(path, options, [finding.subject for finding in layout])
    store = StoreDirectory.open(path, options, create=False)
    store.require_writable()
    store.follow = lambda: None  # what is derived may know what else was lost: it follows when all is mended
    with ExitStack() as stack:
        operation = stack.enter_context(store.operation())
        sources = [
            _Source(origin, stack.enter_context(origin.open(store, operation.path)))
            for origin in origins
            if not origin.useless
        ]
        mender = _Mender(store, operation, sources, meter)
        for finding in sorted(findings, key=lambda finding: finding.blob is not None):  # manifests first
            if finding.kind in _BLOBS and finding.digest is not None:
                mender.mend_blob(finding.digest, finding.blob)
        for finding in findings:
            if finding.kind in _REFS and finding.digest is not None:
                mender.mend_ref(finding.subject.removeprefix("refs/"), finding.digest)
        if any(finding.kind is Kind.LOOSE_PERMISSIONS for finding in findings):
            mender.replace_loose()
        for source in sources:
            source.explain()
    return mender.problems


def _mend_layout(path: str, options: StoreOptions, subjects: Collection[str]) -> None:
    """Put what has the place of the store's own into the quarantine, and make the directories that are missing."""
    store = StoreDirectory(path, options, read_only=None)
    with ExitStack() as stack, storage_errors(f"repairing store {path!r}"):
        if not {"lock", "gate.lock"} & set(subjects):  # else nobody can have opened it since
            stack.enter_context(store.exclusive())
        for subject in sorted(subjects, key=lambda subject: (subject != _QUARANTINE, subject)):
            if os.path.lexists(os.path.join(path, subject)):
                _set_aside(store, subject, only=True)
        for name in PARTS:
            durable.make_part(os.path.join(path, name), store.durability)


def _set_aside(store: StoreDirectory, subject: str, *, only: bool = False) -> None:
    """Give a bad thing a name in the quarantine; with `only` it loses its own."""
    path, place = os.path.join(store.path, subject), os.path.join(store.path, _QUARANTINE)
    name = f"{os.path.basename(subject)}@{time.time_ns()}"
    if subject == _QUARANTINE:
        durable.move(path, os.path.join(store.path, name))
        return
    durable.make_part(place, store.durability)
    if only:
        durable.move(path, os.path.join(place, name))
        store.durability.sync_directory(place)
        store.durability.sync_directory(os.path.dirname(path))
    else:
        durable.keep_aside(path, os.path.join(place, name), store.durability)


@dataclass(slots=True)
class _Source:
    """An origin that is open."""

    origin: Origin
    fetcher: Fetcher
    said: str = ""
    """Why it has not what it was asked for last."""
    failed: str = ""
    """What went wrong with what it did have."""

    def explain(self) -> None:
        """Let the origin know why nothing came from it, if so."""
        origin = self.origin
        if origin.useless or self.failed:
            origin.why = origin.useless or self.failed
        elif origin.asked and not origin.blobs:
            with contextlib.suppress(CasstoreError, OSError):
                origin.why = origin.explain(self.fetcher, len(origin.asked), self.said)


def _words(origin: Origin, error: Exception) -> str:
    """An error without the name of its source, which is told in any case: a registry's errors begin with it."""
    text = str(error)
    own = text.startswith((f"{origin.name}:", f"{origin.name}@"))
    return text.removeprefix(origin.name).lstrip("@: ") if own else text


class _Mender:
    """Mends blobs and refs of one store."""

    def __init__(self, store: StoreDirectory, operation: Operation, sources: Sequence[_Source], meter: Meter) -> None:
        self._store, self._operation, self._sources, self._meter = store, operation, sources, meter
        self._owners = Owners(store.blobs.path)
        self.problems: list[str] = []
        self._verified: dict[Digest, Collection[int]] = {}
        """The chunks of packs that names have been given back to."""

    def mend_blob(self, digest: Digest, blob: Descriptor | None) -> Descriptor | None:
        """Replace a blob by a good one; what `blob` is not known of is a manifest. None where no source has it."""
        for source in self._sources:
            origin = source.origin
            if origin.useless:
                continue
            origin.asked.add(digest)
            try:
                wanted = blob or _resolve(source.fetcher, digest)
                self._operation.receive(wanted, source.fetcher, self._meter.add)
            except NotFound as error:
                source.said = str(error)
            except RegistryError as error:
                origin.useless = _words(origin, error)
                self.problems.append(f"{origin.name}: {origin.useless}")
            except (CasstoreError, OSError) as error:
                source.failed = _words(origin, error)
                self.problems.append(f"{origin.name}: {source.failed}")
            else:
                self._put_in_place(wanted)
                origin.blobs, origin.bytes = origin.blobs + 1, origin.bytes + wanted.size
                return wanted
        return None

    def _put_in_place(self, blob: Descriptor) -> None:
        """Let a staged blob take its place, unless a sound one is there by now."""
        store, staged = self._store, self._operation.staged
        with store.exclusive(), storage_errors(f"mending blob {blob.digest}"):
            self._operation.rely_on([blob.digest])
            if self._is_sound(blob):
                os.unlink(staged.path_of(blob.digest))
                return
            if os.path.lexists(store.blobs.path_of(blob.digest)):
                _set_aside(store, f"blobs/sha256/{blob.digest.hex}")
            self._operation.move_to(store.blobs)

    def _is_sound(self, blob: Descriptor) -> bool:
        """Whether what is there now is right, and will stay so."""
        try:
            info = os.lstat(self._store.blobs.path_of(blob.digest))
            if info.st_nlink > 1 or self._owners.may_others_write(info):
                return False
            read_through(self._store.blobs, blob)
        except (CasstoreError, OSError):
            return False
        return True

    def mend_ref(self, name: str, digest: Digest) -> None:
        """Let a name stand again for what it stood for, if all of that is here, or can be had."""
        try:
            wanted = ReferrerName(name) if is_reserved(name) else parse_name(name)
            needs = self._complete(digest)
            if not is_reserved(name):
                self._verify(digest)
            with self._store.shared(), self._store.changing_refs() as refs:
                self._store.require(needs, to_last=True)
                if self._leads_somewhere(wanted, refs.get(wanted)):
                    return  # somebody was faster
                if os.path.lexists(os.path.join(refs.path, name)):
                    _set_aside(self._store, f"refs/{name}", only=True)
                refs.set(wanted, digest, force=False)
                trash = self._store.trash  # where somebody may have noted that it was gone
                trash.drop([ref for ref in trash.vanished() if (ref.name, ref.digest) == (name, digest)])
        except (CasstoreError, OSError) as error:
            self.problems.append(f"refs/{name}: {error}")

    def _leads_somewhere(self, name: SnapshotName | ReferrerName, digest: Digest | None) -> bool:
        if digest is None or (referrer_subject(name) is not None and not fits(name, digest)):
            return False
        return self._store.blobs.size(digest) is not None

    def _verify(self, digest: Digest) -> None:
        """What a file that other tools write, too, says of a name is nothing that anybody has verified. Raises
        CorruptContent: a chunk is wrong.
        """
        blobs = self._store.blobs
        artifact = Artifact.load(blobs, self._store.resolve(str(digest)))
        verify_chunks(artifact, known=lambda pack: self._verified.get(pack.digest, ()), workers=0)
        for n, pack in enumerate(artifact.manifest.packs):
            mask = verified_chunks(artifact, artifact.directories[n])
            self._verified[pack.digest] = range(len(mask)) if mask.all() else mask.nonzero()[0].tolist()

    def _complete(self, digest: Digest) -> dict[Digest, int]:
        """What a manifest needs, itself included, with the bytes of each; fetched where it is missing.

        Raises:
            NotFound, CorruptContent: something is missing or damaged, and no source has it.
        """
        blobs = self._store.blobs
        with self._store.shared():  # gc takes none of it from here on
            self._operation.rely_on([digest])
        try:
            raw = read_root(blobs, digest)
        except (NotFound, CorruptContent):
            if self.mend_blob(digest, None) is None:
                raise
            raw = read_root(blobs, digest)
        manifest = AnyManifest.parse(raw, spec.MEDIA_MANIFEST, subject=f"manifest {digest}")
        with self._store.shared():
            self._operation.rely_on(blob.digest for blob in manifest.blobs)
        for blob in manifest.blobs:
            try:
                self._store.require({blob.digest: blob.size})
            except (NotFound, CorruptContent):
                if self.mend_blob(blob.digest, blob) is None:
                    raise
        return {blob.digest: blob.size for blob in (manifest_of(digest, len(raw)), *manifest.blobs)}

    def replace_loose(self) -> None:
        """Replace the blobs that others could write to by copies of their own, if they are still sound."""
        blobs = self._store.blobs
        for name, info in list(blobs.list()):
            with contextlib.suppress(CasstoreError, OSError):
                digest = Digest.parse(f"sha256:{name}")
                if self._owners.may_others_write(info):
                    blob = Descriptor(media_type="application/octet-stream", digest=digest, size=info.st_size)
                    self._operation.receive(blob, blobs)
                    with self._store.exclusive():
                        self._operation.move_to(blobs)


def _resolve(source: Fetcher, digest: Digest) -> Descriptor:
    """What a source knows of a manifest.

    Raises:
        NotFound: nothing.
    """
    found = source.resolve(str(digest)) if isinstance(source, Resolver) else None
    if found is None or found.digest != digest:
        raise NotFound(f"manifest {digest}: it is not there")
    return found
