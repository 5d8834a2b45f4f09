"""Garbage collection: mark from the roots, rename what is not reached into trash/, unlink it there.

Roots are the refs, the entries of index.json that other tools added, the leases of running operations and, where that
is asked for, the names that were removed not long ago. A referrer, as a signature, is no root: it is kept, with what it
needs, while its subject is, and goes with it. What takes time (walking the manifests) happens before the store's lock
is taken; under the lock the roots are read again, the little that is new is walked, removed names are dropped, and then
garbage is renamed. Unlinking happens after. Of much garbage only a part is renamed at a time, and others get in before
the next part: what they have begun to need is kept. An interrupted gc is finished by the next one.

What a root reached when gc began is kept, even if the root goes while gc runs: the next gc takes it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from casstore import durable, log, spec
from casstore.blobs import BlobDirectory, is_plain_directory
from casstore.digest import Digest
from casstore.errors import CorruptContent, InvalidDigest, InvalidName, NotFound, storage_errors
from casstore.names import ReferrerName, parse_name, referrer_subject
from casstore.oci import Descriptor, manifest_of
from casstore.operation import all_leases, live_leases
from casstore.progress import Meter, Progress, silent
from casstore.refs import BrokenRef
from casstore.storedir import StoreDirectory
from casstore.storeindex import IndexFile, foreign
from casstore.streams import fetch_all
from casstore.trash import RemovedRef, vanished_text

_PART = 4000
"""Blobs that are renamed with the store locked; tens of microseconds each, on a slow day 100."""
_REFERRER, _TRASH = "referrer ", "removed snapshot "
_HEAD = 256  # bytes to look for the "{" of a manifest in
_BLANK = b"\xef\xbb\xbf \t\r\n"  # a byte order mark, too
_DIGEST = re.compile(rb"sha256:([0-9a-f]{64})(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class GcReport:
    """What gc removed, or with `dry_run` would remove. Sizes in bytes."""

    dry_run: bool
    removed: tuple[Digest, ...]
    freed: int
    """With what dead operations had staged."""
    kept: int
    """Blobs that stay."""
    foreign: int
    """Entries of index.json that another tool added; what they reach is kept."""
    unknown: tuple[str, ...]
    """Files in blobs/ that are no blobs; never touched."""
    dead_operations: int
    dropped: tuple[RemovedRef, ...] = ()
    """Removed names that `undo` could be asked for until now; the last removed first."""
    kept_removed: tuple[RemovedRef, ...] = ()
    """Removed names that stay, with what they need."""


def collect(
    store: StoreDirectory, *, dry_run: bool = False, keep_trash: float | None = None, progress: Progress = silent
) -> GcReport:
    """Remove every blob that nothing needs, and drop the names in the trash, but for those that were removed less than
    `keep_trash` seconds ago: of these nothing is lost that is still there.

    Raises:
        CorruptContent: a manifest that a root names is damaged, a name leads nowhere, or was lost: what it needs cannot
            be known, or is not to be freed unasked; or a symlink or file has the place of one of the store's
            directories.
        StoreLocked: another process does not let go of the store.
        StorageError: the file system refused.
    """
    marker = _Marker(store)
    meter = Meter(progress, "collecting", None)
    marker.mark(keep_trash)
    meter.tick()
    settled = False
    unlocked = dry_run and store.read_only  # who may only read is told what would be, as far as that can be seen
    with contextlib.nullcontext() if unlocked else store.exclusive():
        roots, reached, dead = marker.mark_locked(keep_trash)
        freed = sum(map(_bytes_in, dead))
        garbage: list[Digest] = []
        unknown: list[str] = []
        kept = 0
        for name in store.blobs.names():
            text = f"sha256:{name}"
            if text in reached:
                kept += 1
                continue
            try:
                garbage.append(Digest.parse(text))
            except InvalidDigest:
                unknown.append(name)
        removed, rest = garbage[:_PART], garbage[_PART:]
        if not dry_run:
            _remove_orphans(store, roots.orphans)
            # First, else index.json may say that a name is there, and nothing that it was removed.
            settled = bool(roots.dropped) and store.settle()
            store.require_same()  # what was found to be garbage was so in this directory
            store.trash.drop(roots.dropped)
            freed += _set_aside(store, removed, dead)
    if dry_run:
        removed = garbage
        freed += sum(map(store.blobs.taken_by, garbage))
    else:
        store.require_same()
        store.trash.remove_garbage()
        meter.add(freed)
        while rest:
            part, rest = rest[:_PART], rest[_PART:]
            with store.exclusive():
                # A name that was removed since is one that `undo` may be asked for.
                _, reached, _ = marker.mark_locked(math.inf)
                part = [digest for digest in part if str(digest) not in reached]
                store.require_same()
                count = _set_aside(store, part, [])
                freed += count
            removed += part
            store.require_same()
            store.trash.remove_garbage()  # others get in meanwhile
            meter.add(count)
        kept += len(garbage) - len(removed)
        store.clear_temporaries()
        if not settled:  # the disk was full until now, or was when names were removed
            store.settle()
    if not dry_run:
        told = (len(removed), freed, kept, len(roots.dropped), len(dead))
        log.info("store", "gc: %s blobs removed, %s bytes; %s kept; %s names dropped; %s operations were dead", *told)
    return GcReport(
        dry_run=dry_run,
        removed=tuple(sorted(removed)),
        freed=freed,
        kept=kept,
        foreign=roots.foreign,
        unknown=tuple(sorted(unknown)),
        dead_operations=len(dead),
        dropped=tuple(ref for ref in roots.dropped if ref.digest is not None),
        kept_removed=tuple(roots.kept),
    )


class _Kind(Enum):
    """What is done with a blob that something names."""

    LOOK = "a manifest if it looks like one"
    MANIFEST = "said to be a manifest"
    ROOT = "said to be one by a ref or by index.json: gc does not go on without knowing what it needs"


class _Blob(NamedTuple):
    digest: Digest
    kind: _Kind


_Todo = tuple[str, _Blob]
"""A blob to walk, and the root that it was reached from, in words."""


@dataclass(frozen=True, slots=True)
class _Roots:
    """What `mark` found that concerns roots."""

    orphans: list[ReferrerName]
    """Referrers whose subject nothing reaches."""
    dropped: list[RemovedRef]
    kept: list[RemovedRef]
    foreign: int
    broken: list[BrokenRef]
    vanished: list[RemovedRef]


class _Marker:
    """Finds what is reached. Called again it walks only what is new: content never changes."""

    def __init__(self, store: StoreDirectory) -> None:
        self._store, self._now = store, time.time_ns()
        self.reached: set[str] = set()
        """Digests as text; what is none does no harm."""
        self._walked: set[_Blob] = set()
        self._missing: list[_Todo] = []
        self._index: IndexFile | None = None

    def mark_locked(self, keep_trash: float | None) -> tuple[_Roots, set[str], list[str]]:
        """With the store's lock held: `mark`; with everything that is needed now, and the paths of dead operations."""
        _require_plain(self._store)
        roots = self.mark(keep_trash)
        _require_names(roots)
        tmp = self._store.tmp
        leased, dead = (all_leases(tmp), []) if self._store.read_only else live_leases(tmp)
        return roots, self.reached.union(map(str, leased)), dead

    def mark(self, keep_trash: float | None) -> _Roots:
        """Add everything that the roots reach, with the names that were removed less than `keep_trash` seconds ago."""
        reading = self._store.read()
        refs = reading.refs
        referrers = self._store.refs.read_referrers()  # the broken ones, too
        removed = self._store.trash.read()  # after the refs: a name that is removed just now is seen at least once
        foreign = self._foreign()
        todo, self._missing = self._missing, []
        todo += [(f"snapshot {name}", _Blob(digest, _Kind.ROOT)) for name, digest in refs.items()]
        todo += [(f"index.json, entry {blob.digest}", blob) for blob in _named(foreign, manifest=_Kind.ROOT)]
        self._walk(todo, referrers)
        kept, dropped, todo = [], [], []
        for ref in removed:
            if ref.digest is not None and keep_trash is not None and ref.is_younger(keep_trash, now=self._now):
                kept.append(ref)
                todo.append((f"{_TRASH}{ref.name}", _Blob(ref.digest, _Kind.ROOT)))
            else:
                dropped.append(ref)
        self._walk(todo, referrers)  # last: here a damaged manifest stops nobody, as it cannot be taken back anyway
        vanished = self._store.vanished()
        return _Roots(list(referrers), dropped, kept, len(foreign), reading.broken, vanished)

    def _foreign(self) -> list[dict[str, Any]]:
        """The entries of index.json that another tool added."""
        if self._index is None or self._index.digest != self._store.index.digest():
            self._index = self._store.index.read()
        others = () if self._index is None else self._index.others
        return foreign(others, self._store.read().named) if others else []

    def _walk(self, todo: list[_Todo], referrers: dict[ReferrerName, Digest]) -> None:
        """Add what `todo` reaches; those of the `referrers` are taken out whose subject is reached."""
        while todo:
            while todo:
                root, blob = todo.pop()
                self.reached.add(str(blob.digest))
                if blob not in self._walked:
                    todo += [(root, child) for child in self._of(blob, root)]
            wanted = [name for name in referrers if str(referrer_subject(name)) in self.reached]
            todo = [(f"{_REFERRER}{name}", _Blob(referrers.pop(name), _Kind.ROOT)) for name in wanted]

    def _of(self, named: _Blob, root: str) -> list[_Blob]:
        """What a blob names, if it is a manifest. What is not there is looked for again the next time."""
        try:
            size = self._store.blobs.size(named.digest)
            if size is None:
                self._missing.append((root, named))
                return []
            blob = manifest_of(named.digest, size)
            children = self._read(blob) if self._is_manifest(blob, named.kind) else []
        except NotFound:
            self._missing.append((root, named))
            return []
        except CorruptContent as error:
            if root.startswith(_TRASH):
                return []
            advice = "remove its names, or pull the snapshot again"
            if root.startswith(_REFERRER):
                advice = "pull what it refers to again, with --referrers -f, or remove that"
            raise CorruptContent(f"{root}: {error}; gc cannot know what it needs: {advice}") from error
        self._walked.add(named)
        return children

    def _is_manifest(self, blob: Descriptor, kind: _Kind) -> bool:
        if kind is _Kind.ROOT:
            return True
        if blob.size > spec.MAX_MANIFEST:
            return False
        if kind is _Kind.MANIFEST:
            return True
        return self._store.blobs.read_range(blob, 0, min(blob.size, _HEAD)).lstrip(_BLANK).startswith(b"{")

    def _read(self, blob: Descriptor) -> list[_Blob]:
        """What a manifest names and may be another one: every digest in that of another tool, in one of ours the
        subject alone. Its config and layers are never manifests, and many: they are just reached.

        Other tools' documents need not follow our rules for JSON; rather too much is kept of what they need.
        """
        raw = fetch_all(self._store.blobs, blob, limit=spec.MAX_MANIFEST)
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            document = {}
        if document.get("artifactType") == spec.ARTIFACT_TYPE and "manifests" not in document:
            parts = [document.get("config"), *_list(document.get("layers"))]
            told = [part.get("digest") for part in parts if isinstance(part, dict)]
            self.reached.update(text for text in told if isinstance(text, str))
            return _named([document.get("subject")], manifest=_Kind.LOOK)
        told = [document.get("config"), document.get("subject")]
        for part in ("layers", "manifests", "blobs"):
            told += _list(document.get(part))
        mentioned = [_Blob(Digest(hex_.decode()), _Kind.LOOK) for hex_ in set(_DIGEST.findall(raw))]
        return _named(told, manifest=_Kind.MANIFEST) + mentioned


def _named(descriptors: Iterable[object], *, manifest: _Kind) -> list[_Blob]:
    """What descriptors name, manifests as `manifest`; nothing for what is none or has another kind of digest."""
    found = []
    for descriptor in descriptors:
        if isinstance(descriptor, dict):
            with contextlib.suppress(InvalidDigest):
                digest = Digest.parse(descriptor.get("digest"))
                is_manifest = descriptor.get("mediaType") in spec.MEDIA_MANIFESTS
                found.append(_Blob(digest, manifest if is_manifest else _Kind.LOOK))
    return found


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _bytes_in(operation: str) -> int:
    """Bytes of the files in an op- directory; none where something else has its name."""
    if os.path.islink(operation) or not os.path.isdir(operation):
        return 0
    return sum(info.st_size for _, info in BlobDirectory(operation).list())


def _set_aside(store: StoreDirectory, garbage: list[Digest], dead: list[str]) -> int:
    """Under the lock: put garbage, and what dead operations left, into the trash; returns the bytes of the garbage."""
    freed = sum(map(store.blobs.taken_by, garbage))
    with storage_errors("collecting garbage"):
        # Not every file system keeps the order of changes in different directories: after a power cut no name, nor what
        # `undo` could give back, may be there again without its blobs.
        store.durability.sync_directory(store.refs.path)
        store.trash.sync()
        if garbage:
            with store.blobs.opened() as folder:
                store.trash.set_aside(folder, [digest.hex for digest in garbage])
        if dead:
            with durable.opened_directory(store.tmp) as folder:
                store.trash.set_aside(folder, [os.path.basename(path) for path in dead])
    return freed


def _remove_orphans(store: StoreDirectory, orphans: list[ReferrerName]) -> None:
    """Under the lock: remove the refs of referrers that nothing needs, before their blobs. Nobody takes them back."""
    if orphans:
        with store.changing_refs() as refs:
            stamp = store.trash.next_stamp()
            there = [name for name in orphans if refs.get(name) is not None]
            refs.remove(there, stamp)
            store.trash.drop(RemovedRef(name, stamp, None) for name in there)


def _require_names(roots: _Roots) -> None:
    """Raise where a name of a snapshot leads nowhere, or is gone though nobody removed it: what it stood for would be
    collected. What else lies in refs/ concerns nobody.
    """
    names = []
    for broken in roots.broken:
        with contextlib.suppress(InvalidName):
            names.append((parse_name(broken.name), broken.problem))
    if names:
        name, problem = names[0]
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        raise CorruptContent(
            f"snapshot {name}: {problem}{more}; gc cannot know what it needs: casstore check --repair --from"
            f" REFERENCE|STORE|DISK mends it, or remove the name: casstore rm {name}"
        )
    if roots.vanished:
        raise CorruptContent(f"{vanished_text(roots.vanished)}; until then gc frees nothing")


def _require_plain(store: StoreDirectory) -> None:
    """Raise CorruptContent where a symlink, made since the store was opened, would lead gc out of it."""
    for path in (store.refs.path, os.path.dirname(store.blobs.path), store.blobs.path, store.tmp, store.trash.path):
        is_plain_directory(path)
