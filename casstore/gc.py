"""Garbage collection: mark from the roots, rename what is not reached into trash/, unlink it there.

Roots are the refs, the entries of index.json that other tools added, and the leases of running operations. What takes
time (walking the manifests) happens before the store's lock is taken; under the lock the roots are read again, the
little that is new is walked, and garbage is renamed. Unlinking happens after. An interrupted gc is
finished by the next one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from casstore import spec
from casstore.digest import Digest
from casstore.durable import Durability, make_directories, move
from casstore.errors import CorruptContent, DocumentError, InvalidDigest, NotFound, storage_errors
from casstore.jsondoc import load_object
from casstore.oci import Descriptor
from casstore.operation import live_leases
from casstore.storedir import StoreDirectory
from casstore.streams import fetch_all

_HEAD = 256  # bytes to look for the "{" of a manifest in
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
        CorruptContent: a manifest that a root names is damaged: what it needs cannot be known.
        StoreLocked: another process does not let go of the store.
        StorageError: the file system refused.
    """
    marker = _Marker(store)
    marker.mark_roots()
    with store.exclusive():
        reached = marker.mark_roots()
        leased, dead = live_leases(store.tmp)
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
            _set_aside(store, [digest for digest, _ in garbage], dead)
    if not dry_run:
        _empty_trash(store)
        store.clear_temporaries()
    return GcReport(
        dry_run=dry_run,
        removed=tuple(sorted(digest for digest, _ in garbage)),
        freed=sum(size for _, size in garbage),
        kept=kept,
        foreign=len(store.foreign_entries()),
        unknown=tuple(sorted(unknown)),
        dead_operations=len(dead),
    )


class _Blob(NamedTuple):
    """A blob that something names, and whether it must be a manifest; else a look at it decides."""

    digest: Digest
    manifest: bool


class _Marker:
    """Finds what is reached, and remembers the children of manifests it has read: content never changes."""

    def __init__(self, store: StoreDirectory) -> None:
        self._store = store
        self._children: dict[_Blob, list[_Blob]] = {}

    def mark_roots(self) -> set[Digest]:
        """Everything that refs and foreign entries reach."""
        refs, _ = self._store.read_refs()
        todo = [_Blob(digest, manifest=True) for digest in refs.values()]
        todo += _named(self._store.foreign_entries())
        reached: set[_Blob] = set()
        while todo:
            blob = todo.pop()
            if blob not in reached:
                reached.add(blob)
                todo += self._of(blob)
        return {blob.digest for blob in reached}

    def _of(self, named: _Blob) -> list[_Blob]:
        """What a blob names, if it is a manifest. What is not there is looked for again the next time."""
        if named not in self._children:
            size = self._store.blobs.size(named.digest)
            if size is None:
                return []
            blob = Descriptor(media_type=spec.MEDIA_MANIFEST, digest=named.digest, size=size)
            try:
                self._children[named] = self._read(blob) if named.manifest or self._may_be_manifest(blob) else []
            except NotFound:
                return []
        return self._children[named]

    def _may_be_manifest(self, blob: Descriptor) -> bool:
        if blob.size > spec.MAX_MANIFEST:
            return False
        return self._store.blobs.read_range(blob, 0, min(blob.size, _HEAD)).lstrip().startswith(b"{")

    def _read(self, blob: Descriptor) -> list[_Blob]:
        try:
            raw = fetch_all(self._store.blobs, blob, limit=spec.MAX_MANIFEST)
        except CorruptContent as error:
            raise CorruptContent(
                f"{error}; gc cannot know what it needs: remove its names, or pull the snapshot again"
            ) from error
        try:
            document = load_object(raw, subject=str(blob.digest), limit=spec.MAX_MANIFEST)
        except DocumentError:
            return []
        return _named(
            [
                document.get("config"),
                document.get("subject"),
                *_list(document.get("layers")),
                *_list(document.get("manifests")),
                *_list(document.get("blobs")),
            ]
        )


def _named(descriptors: Iterable[object]) -> list[_Blob]:
    """What descriptors name; nothing for what is none, or has a digest of another algorithm."""
    found = []
    for descriptor in descriptors:
        if isinstance(descriptor, dict):
            with contextlib.suppress(InvalidDigest):
                digest = Digest.parse(descriptor.get("digest"))
                found.append(_Blob(digest, descriptor.get("mediaType") in _MANIFESTS))
    return found


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _set_aside(store: StoreDirectory, garbage: list[Digest], dead: list[str]) -> None:
    """Under the lock: take the names away. A rename needs no space, so a full disk does not stop it."""
    with storage_errors("collecting garbage"):
        make_directories(store.trash, Durability.NONE)
        paths = [*(store.blobs.path_of(digest) for digest in garbage), *dead]
        for path in paths:
            with contextlib.suppress(FileNotFoundError):  # an operation that just ended removes its directory itself
                move(path, os.path.join(store.trash, os.path.basename(path)))


def _empty_trash(store: StoreDirectory) -> None:
    with storage_errors("emptying the trash"):
        for name in os.listdir(store.trash):
            path = os.path.join(store.trash, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
