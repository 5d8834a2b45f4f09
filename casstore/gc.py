"""Garbage collection: mark from the roots, rename what is not reached into trash/, unlink it there.

Roots are the refs, the entries of index.json that other tools added, and the leases of running operations. A referrer,
as a signature, is no root: it is kept, with what it needs, while its subject is, and goes with it. What takes
time (walking the manifests) happens before the store's lock is taken; under the lock the roots are read again, the
little that is new is walked, and garbage is renamed. Unlinking happens after. An interrupted gc is
finished by the next one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from casstore import spec
from casstore.blobs import BlobDirectory, is_plain_directory
from casstore.digest import Digest
from casstore.durable import Durability, make_directories, move
from casstore.errors import CorruptContent, InvalidDigest, NotFound, storage_errors
from casstore.names import ReferrerName, referrer_subject
from casstore.oci import Descriptor
from casstore.operation import live_leases
from casstore.storedir import StoreDirectory
from casstore.streams import fetch_all

_REFERRER = "referrer "
_HEAD = 256  # bytes to look for the "{" of a manifest in
_BLANK = b"\xef\xbb\xbf \t\r\n"  # a byte order mark, too
_DIGEST = re.compile(rb"sha256:([0-9a-f]{64})(?![0-9a-f])")
_TRASH = re.compile(r"(?:[0-9a-f]{64}|op-[0-9a-f]{16}|.+@[0-9]+)\Z", re.DOTALL)
_MANIFESTS = {
    spec.MEDIA_MANIFEST,
    spec.MEDIA_INDEX,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}


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


def collect(store: StoreDirectory, *, dry_run: bool = False) -> GcReport:
    """Remove every blob that nothing needs.

    Raises:
        CorruptContent: a manifest that a root names is damaged: what it needs cannot be known; or a symlink or file
            has the place of one of the store's directories.
        StoreLocked: another process does not let go of the store.
        StorageError: the file system refused.
    """
    marker = _Marker(store)
    marker.mark_roots()
    with store.exclusive():
        _require_plain(store)
        reached, orphans = marker.mark_roots()
        leased, dead = live_leases(store.tmp)
        left = sum(map(_bytes_in, dead))
        reached |= leased
        garbage: list[tuple[Digest, int]] = []
        unknown: list[str] = []
        kept = 0
        for name, info in store.blobs.list():
            try:
                digest = Digest.parse(f"sha256:{name}")
            except InvalidDigest:
                unknown.append(name)
                continue
            if digest in reached:
                kept += 1
            else:
                garbage.append((digest, info.st_size))
        if not dry_run:
            _remove_orphans(store, orphans)
            _set_aside(store, [digest for digest, _ in garbage], dead)
    if not dry_run:
        _empty_trash(store)
        store.clear_temporaries()
    return GcReport(
        dry_run=dry_run,
        removed=tuple(sorted(digest for digest, _ in garbage)),
        freed=left + sum(size for _, size in garbage),
        kept=kept,
        foreign=len(store.foreign_entries()),
        unknown=tuple(sorted(unknown)),
        dead_operations=len(dead),
    )


class _Kind(Enum):
    """What is done with a blob that something names."""

    LEAF = "of a snapshot of ours: never a manifest"
    LOOK = "a manifest if it looks like one"
    MANIFEST = "said to be a manifest"
    ROOT = "said to be one by a ref or by index.json: gc does not go on without knowing what it needs"


class _Blob(NamedTuple):
    digest: Digest
    kind: _Kind


class _Marker:
    """Finds what is reached, and remembers the children of manifests it has read: content never changes."""

    def __init__(self, store: StoreDirectory) -> None:
        self._store = store
        self._children: dict[_Blob, list[_Blob]] = {}

    def mark_roots(self) -> tuple[set[Digest], list[ReferrerName]]:
        """Everything that refs and foreign entries reach, and the referrers whose subject is not among it."""
        refs, _ = self._store.read_refs()
        referrers = self._store.refs.read_referrers()  # the broken ones, too
        todo = [(f"snapshot {name}", _Blob(digest, _Kind.ROOT)) for name, digest in refs.items()]
        foreign = _named(self._store.foreign_entries(), manifest=_Kind.ROOT)
        todo += [(f"index.json, entry {blob.digest}", blob) for blob in foreign]
        reached: set[_Blob] = set()
        digests: set[Digest] = set()
        while todo:
            while todo:
                root, blob = todo.pop()
                if blob not in reached:
                    reached.add(blob)
                    digests.add(blob.digest)
                    todo += [(root, child) for child in self._of(blob, root)]
            wanted = [name for name in referrers if referrer_subject(name) in digests]
            todo = [(f"{_REFERRER}{name}", _Blob(referrers.pop(name), _Kind.ROOT)) for name in wanted]
        return digests, list(referrers)

    def _of(self, named: _Blob, root: str) -> list[_Blob]:
        """What a blob names, if it is a manifest. What is not there is looked for again the next time."""
        if named.kind is _Kind.LEAF:
            return []
        if named not in self._children:
            try:
                size = self._store.blobs.size(named.digest)
                if size is None:
                    return []
                blob = Descriptor(media_type=spec.MEDIA_MANIFEST, digest=named.digest, size=size)
                self._children[named] = self._read(blob) if self._is_manifest(blob, named.kind) else []
            except NotFound:
                return []
            except CorruptContent as error:
                advice = "remove its names, or pull the snapshot again"
                if root.startswith(_REFERRER):
                    advice = "pull what it refers to again, with --referrers -f, or remove that"
                raise CorruptContent(f"{root}: {error}; gc cannot know what it needs: {advice}") from error
        return self._children[named]

    def _is_manifest(self, blob: Descriptor, kind: _Kind) -> bool:
        if kind is _Kind.ROOT:
            return True
        if blob.size > spec.MAX_MANIFEST:
            return False
        if kind is _Kind.MANIFEST:
            return True
        return self._store.blobs.read_range(blob, 0, min(blob.size, _HEAD)).lstrip(_BLANK).startswith(b"{")

    def _read(self, blob: Descriptor) -> list[_Blob]:
        """What a manifest names: of ours the config and the layers, of another tool's every digest that is in it.

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
            children = _named([document.get("config"), *_list(document.get("layers"))], manifest=_Kind.LEAF)
            subject = _named([document.get("subject")], manifest=_Kind.LOOK)
            return [*subject, *(_Blob(child.digest, _Kind.LEAF) for child in children)]
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
                kind = descriptor.get("mediaType")
                found.append(_Blob(digest, manifest if isinstance(kind, str) and kind in _MANIFESTS else _Kind.LOOK))
    return found


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _bytes_in(operation: str) -> int:
    """Bytes of the files in an op- directory; none where something else has its name."""
    if os.path.islink(operation) or not os.path.isdir(operation):
        return 0
    return sum(info.st_size for _, info in BlobDirectory(operation).list())


def _remove_orphans(store: StoreDirectory, orphans: list[ReferrerName]) -> None:
    """Under the lock: remove the refs of referrers that nothing needs, before their blobs."""
    if orphans:
        with store.changing_refs() as refs:
            for name in orphans:
                with contextlib.suppress(NotFound):
                    refs.remove(name)


def _set_aside(store: StoreDirectory, garbage: list[Digest], dead: list[str]) -> None:
    """Under the lock: take the names away. A rename needs no space, so a full disk does not stop it."""
    with storage_errors("collecting garbage"):
        make_directories(store.trash, Durability.NONE)
        paths = [*(store.blobs.path_of(digest) for digest in garbage), *dead]
        for path in paths:
            with contextlib.suppress(FileNotFoundError):  # an operation that just ended removes its directory itself
                move(path, os.path.join(store.trash, os.path.basename(path)))


def _require_plain(store: StoreDirectory) -> None:
    """Raise CorruptContent where a symlink, made since the store was opened, would lead gc out of it."""
    for path in (store.refs.path, os.path.dirname(store.blobs.path), store.blobs.path, store.tmp, store.trash):
        is_plain_directory(path)


def _empty_trash(store: StoreDirectory) -> None:
    """Remove what gc and removals of refs have put there, and nothing else."""
    if not is_plain_directory(store.trash):
        return
    with storage_errors("emptying the trash"):
        fd = os.open(store.trash, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for name in filter(_TRASH.match, os.listdir(fd)):
                with contextlib.suppress(FileNotFoundError):
                    if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                        shutil.rmtree(name, ignore_errors=True, dir_fd=fd)
                    else:
                        os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)
