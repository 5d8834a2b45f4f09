"""Adopting what other OCI tools added to a store: `skopeo copy ... oci:STORE:name`, `umoci tag`.

They know index.json and blobs/ only. What they add is kept, as a root of gc, but it is no snapshot of the store: nobody
has verified it, and it has no ref. Adopting verifies each snapshot as a pull does, stored bytes and every chunk, lets
its blobs be changed by nobody any more, and gives it a ref. What is no snapshot, is damaged, or has no free name is
reported, and stays as it is; or, to let gc free what only it needs, is taken out of index.json.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from casstore import spec
from casstore.artifact import Artifact
from casstore.attachments import Attachment, put_attachment
from casstore.catalog import Catalog
from casstore.contents import verify_integrity
from casstore.digest import Digest
from casstore.errors import (
    AlreadyExists,
    CorruptContent,
    DocumentError,
    InvalidDigest,
    InvalidName,
    NotFound,
    UnsupportedVersion,
    storage_errors,
)
from casstore.jsondoc import load_object
from casstore.names import SnapshotName, fits, is_attachment, is_reserved, parse_name, referrer_subject
from casstore.oci import AnyManifest, Descriptor
from casstore.permissions import Owners
from casstore.progress import Meter, silent
from casstore.soundness import verify_chunks
from casstore.storedir import StoreDirectory
from casstore.storeindex import ref_name
from casstore.streams import fetch_all, read_through
from casstore.transaction import Transaction


class _NoSnapshot(CorruptContent):
    """A document of another tool."""


_OF_OTHERS = (_NoSnapshot, UnsupportedVersion)
"""What is no damage: it is as its maker wanted it."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A snapshot that has a ref now, or something about one that was adopted with it."""

    name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class NotAdopted:
    """An entry of index.json that was not adopted, and why."""

    name: str | None
    digest: str
    """As the entry says, which may be no digest that is known here."""
    reason: str
    damaged: bool
    """Whether a part of it is missing or damaged; else it is no snapshot, or its name or form is the reason."""


@dataclass(frozen=True, slots=True)
class AdoptReport:
    """What became of the entries that other tools added; with `dry_run`, what would."""

    dry_run: bool
    adopted: tuple[Adopted, ...]
    left: tuple[NotAdopted, ...]
    drop: bool
    """Whether what was not adopted was to be taken out of index.json."""


def adopt(store: StoreDirectory, catalog: Catalog, *, drop: bool = False, dry_run: bool = False) -> AdoptReport:
    """Give a ref to every snapshot that another tool added to index.json, and to what is about one by its name, as
    signatures are; with `drop` take the other entries out.

    An entry's name is its `org.opencontainers.image.ref.name`. One without, or whose name a snapshot here has, gets
    `adopted-<12 hex>`; none where what it names has a ref already.

    A dry run takes no lock and changes nothing, so a store that may only be read will do.

    Raises:
        StorageError: the store is read-only, or the file system refused.
        StoreLocked: another process does not let go of the store.
    """
    if not dry_run:
        with store.changing_refs():
            pass  # index.json follows: an entry that only says what a ref says would be another tool's without that ref
    adopted: list[Adopted] = []
    left: list[NotAdopted] = []
    done: list[dict[str, Any]] = []
    taken = store.read().named
    # Snapshots first: what is about one needs it to have a name.
    for entry in sorted(store.foreign_entries(), key=lambda entry: is_reserved(ref_name(entry) or "")):
        try:
            about = referrer_subject(ref_name(entry) or "")
            if about is None:
                adopted.append(_adopt(store, catalog, entry, taken, dry_run=dry_run))
            else:
                known = bool(catalog.entries([about])) or any(each.digest == about for each in adopted)
                adopted.append(_adopt_about(store, catalog, entry, about if known else None, dry_run=dry_run))
            done.append(entry)
        except (AlreadyExists, CorruptContent, NotFound, InvalidName, InvalidDigest) as error:
            damaged = isinstance(error, (CorruptContent, NotFound)) and not isinstance(error, _OF_OTHERS)
            left.append(NotAdopted(ref_name(entry), str(entry["digest"]), str(error), damaged))
            if drop:
                done.append(entry)
    if done and not dry_run:
        store.drop_foreign(done)
    return AdoptReport(dry_run=dry_run, adopted=tuple(adopted), left=tuple(left), drop=drop)


def _adopt(
    store: StoreDirectory, catalog: Catalog, entry: Mapping[str, Any], taken: Collection[str], *, dry_run: bool
) -> Adopted:
    """Verify what an entry names, and give it a ref; no name counts as its own that is `taken`.

    Raises:
        AlreadyExists: the name stands for something else.
        NotFound, CorruptContent: a part of it is missing or damaged, or it is no snapshot.
        InvalidName, InvalidDigest: the entry's are not ours.
    """
    root = store.resolve(str(Digest.parse(entry["digest"])))
    told = ref_name(entry)
    name = _name_for(store, root.digest, None if told in taken else told)
    store.refs.require_free(name, unless=root.digest)
    _require_snapshot(store, root)
    known = bool(catalog.entries([root.digest]))
    if dry_run:
        if not known:
            _verify(store, catalog, root)
        return Adopted(name, root.digest)
    name_stored(store, catalog, root, name, known=known)
    return Adopted(name, root.digest)


def _adopt_about(
    store: StoreDirectory, catalog: Catalog, entry: Mapping[str, Any], about: Digest | None, *, dry_run: bool
) -> Adopted:
    """As `_adopt`, of a manifest that is about a snapshot here, by its reserved name: a signature, mostly.

    Raises:
        _NoSnapshot: `about` is None: there is nothing here that it is about.
    """
    name, root = ref_name(entry) or "", store.resolve(str(Digest.parse(entry["digest"])))
    if about is None:
        raise _NoSnapshot(f"manifest {root.digest}: expected what it is about to have a name, got {name}")
    raw = fetch_all(store.blobs, root, limit=spec.MAX_MANIFEST)
    attachment = Attachment.parse(raw, subject=about) if is_attachment(name) else None
    if attachment is None and not fits(name, root.digest):
        raise _NoSnapshot(f"manifest {root.digest}: expected another name, got {name}")
    subject = store.resolve(str(about))
    manifest = attachment.manifest if attachment else AnyManifest.parse_referrer(raw, root.media_type, of=subject)
    owners = Owners(store.blobs.path)
    if not dry_run:
        with Transaction(store, catalog) as change:
            for blob in (root, *manifest.blobs):
                if change.exists(blob):
                    _take(store, change, blob, owners)
            if attachment is not None:
                put_attachment(change, attachment, store.blobs, subject=about)
            else:
                change.attach(root, subject, store.blobs)
            change.commit_all({})
    return Adopted(name, root.digest)


def name_stored(
    store: StoreDirectory,
    catalog: Catalog,
    root: Descriptor,
    name: SnapshotName,
    *,
    known: bool = False,
    force: bool = False,
) -> None:
    """Give a name to an artifact whose blobs are in the store; unless it is `known` to have been verified as a pull
    does it, it is now.

    Raises:
        AlreadyExists: the name stands for something else, and `force` is not set.
        NotFound, CorruptContent: a part of it is missing or damaged.
    """
    owners = Owners(store.blobs.path)
    with Transaction(store, catalog, force=force) as change:
        for blob in () if known else (root, *Artifact.load(change, root).manifest.children):
            if change.exists(blob):  # from now on gc keeps it
                _take(store, change, blob, owners)
        change.tag(root, name)


def _take(store: StoreDirectory, change: Transaction, blob: Descriptor, owners: Owners) -> None:
    """Verify a blob's bytes, with nobody able to change them any more: what somebody else could write to meanwhile, by
    another name or as its owner, is copied, and the copy counts. It is synced, too, which other tools do not do.
    """
    fd = store.blobs.open(blob.digest, size=blob.size)
    try:
        with storage_errors(f"adopting blob {blob.digest}"):
            info = os.fstat(fd)
            if owners.may_others_write(info):
                theirs = info.st_uid != os.geteuid() or bool(info.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
                if theirs or info.st_nlink > 1:
                    change.push(blob, store.blobs)
                    return
                os.fchmod(fd, 0o444)
            read_through(change, blob)
            store.durability.sync_file(fd)
    finally:
        os.close(fd)


def _verify(store: StoreDirectory, catalog: Catalog, root: Descriptor) -> None:
    """What `_take` and the commit verify, of the stored blobs as they are."""
    artifact = Artifact.load(store.blobs, root)
    for blob in artifact.manifest.children:
        read_through(store.blobs, blob)
    verify_chunks(artifact, known=lambda pack: catalog.chunks_of(pack.digest), workers=0)
    verify_integrity(artifact, workers=0, meter=Meter(silent, "hashing", None))


def _name_for(store: StoreDirectory, digest: Digest, told: str | None) -> SnapshotName:
    if told is not None:
        return parse_name(told)
    for name, each in store.read().refs.items():
        if each == digest:
            return name  # nothing but an entry without a name is to be tidied up
    return parse_name(f"adopted-{digest.hex[:12]}")


def _require_snapshot(store: StoreDirectory, root: Descriptor) -> None:
    """Raise CorruptContent where a blob is a document of another tool, in words that say what it is."""
    kind = "something else"
    with suppress(DocumentError):
        document = load_object(
            fetch_all(store.blobs, root, limit=spec.MAX_MANIFEST), subject="manifest", limit=spec.MAX_MANIFEST
        )
        if document.get("artifactType") == spec.ARTIFACT_TYPE:
            return
        told = document.get("artifactType") or document.get("mediaType") or "a manifest without a type"
        kind = ascii(told)[:100]
    raise _NoSnapshot(f"{root.digest}: expected a snapshot ({spec.ARTIFACT_TYPE}), got {kind}")
