"""Snapshots where they are, in a registry, an OCI layout or another store: looked at, copied and removed without a
local store. To look, only what the question needs is fetched, and never a pack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from casstore import spec
from casstore.content import ReferrerLister, Source, Stopper, TagLister, Untagger
from casstore.dialects import read_config
from casstore.digest import Digest
from casstore.errors import CasstoreError, DigestMismatch, NotOffered, Unavailable, UsageError
from casstore.graph import Plan, in_parallel
from casstore.manifest import Manifest
from casstore.names import is_reserved, parse_name
from casstore.oci import AnyManifest, ArtifactManifest, Descriptor
from casstore.places import (
    as_reference,
    names_store,
    open_judged,
    open_prober,
    open_source,
    open_target,
    require_bare,
)
from casstore.progress import Progress, silent
from casstore.reference import LayoutReference, Reference
from casstore.storedir import StoreOptions
from casstore.streams import fetch_all
from casstore.survey import read_manifest
from casstore.transfer import (
    Job,
    TransferOptions,
    TransferReport,
    admitted_job,
    find,
    plan,
    push,
    require_tag_or_digest,
)
from casstore.trust.gate import gate_at

if TYPE_CHECKING:
    from datetime import datetime

    from casstore.diskmap import SnapshotMap  # with numpy
    from casstore.sign import Signing
    from casstore.signatures.claims import Signed
    from casstore.trust.report import SignatureReport

_MAX_UNAVAILABLE = 3
"""Tags that a registry may fail to tell of; when there are more, it is the registry that is ill."""


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """One tag somewhere, and what it stands for. Sizes in bytes; None is what could not be told."""

    reference: str
    """The place with the tag."""
    name: str
    """The tag."""
    kind: str
    """`snapshot`; `other` for an image, an index or another artifact; `unreadable`, then `problem` says why."""
    digest: Digest | None = None
    stored_bytes: int | None = None
    """All blobs, the manifest included."""
    size_bytes: int | None = None
    """The disk, with its holes; of snapshots only."""
    created_at: str | None = None
    """As recorded in the snapshot, or in the annotation of another artifact."""
    snapshot_id: Digest | None = None
    image_ref: str | None = None
    problem: CasstoreError | None = None


@dataclass(frozen=True, slots=True)
class RemoteSnapshot:
    """A snapshot elsewhere, whose manifest, config and map were read: what `inspect` shows. Sizes in bytes."""

    reference: str
    """The place with the digest: what stands for just this forever."""
    root: Descriptor
    artifact_manifest: ArtifactManifest
    manifest: Manifest
    """The snapshot manifest."""
    map: SnapshotMap
    referrers: Sequence[Descriptor]
    """What refers to it there, as signatures; none where that cannot be asked."""
    signatures: SignatureReport
    """Its signatures there, and whether they are the wanted ones."""

    @property
    def digest(self) -> Digest:
        """The artifact digest."""
        return self.root.digest

    @property
    def id(self) -> Digest:
        """sha256 of the snapshot manifest."""
        return self.manifest.id

    @property
    def stored_bytes(self) -> int:
        """All blobs, the manifest included."""
        return sum(self.artifact_manifest.needs.values())

    @property
    def size_bytes(self) -> int:
        """Apparent bytes of the disk."""
        return self.manifest.upper.size_bytes

    @property
    def allocated_bytes(self) -> int:
        """Allocated bytes of all disks."""
        return sum(disk.allocated for disk in self.map.disks)


def list_remote(
    reference: str | Reference,
    options: TransferOptions | None = None,
    *,
    referrers: bool = False,
    stores: StoreOptions | None = None,
) -> Sequence[RemoteEntry]:
    """Every tag of a repository or layout, sorted by name; what is wrong with one is told in its entry.

    `referrers` also lists the tags of the form `sha256-...`, which registries keep signatures under.

    Raises:
        UsageError: the reference has a tag or digest.
        NotFound: there is no such layout. A repository that is not there is one without tags.
        NotOffered: the registry does not list tags.
        RegistryError: the registry or the way to it failed.
    """
    place, options = as_reference(reference), options or TransferOptions()
    require_bare(place, "list of")
    with open_source(place, options, stores or StoreOptions()) as source:
        if not isinstance(source, TagLister):
            raise NotOffered(f"{place}: its tags cannot be listed")
        names = sorted(name for name in source.tags() if referrers or not is_reserved(name))
        known: dict[Digest, RemoteEntry] = {}
        failed: list[Unavailable] = []
        return in_parallel(
            names,
            lambda name: _entry(source, place, name, known, failed),
            options.concurrency,
            lambda: source.stop() if isinstance(source, Stopper) else None,
        )


def inspect_remote(
    reference: str | Reference, options: TransferOptions | None = None, *, stores: StoreOptions | None = None
) -> RemoteSnapshot:
    """Read a snapshot's manifest, config and map; no pack is fetched.

    Raises:
        UsageError: the reference has neither tag nor digest.
        NotFound: there is no such tag or manifest.
        UnsupportedVersion: it is no snapshot.
        CorruptContent, RegistryError: what came is damaged, or nothing came.
    """
    place, options = as_reference(reference), options or TransferOptions()
    require_tag_or_digest(place, "inspect of")
    from casstore.diskmap import SnapshotMap
    from casstore.trust.report import look

    with open_judged(place, options, stores or StoreOptions()) as (source, where):
        root = find(source, place, "inspect of")
        artifact_manifest = read_manifest(source, root)
        subject = f"{place.name}@{root.digest}"
        manifest = _config(source, artifact_manifest, subject)
        raw = fetch_all(source, artifact_manifest.map, limit=spec.MAX_MAP)
        disk_map = SnapshotMap.parse(raw, subject=f"{subject}: map")
        referrers = source.referrers(root) if isinstance(source, ReferrerLister) else ()
        signatures = look(source, root, artifact_manifest.raw, place=where, trust=options.trust)
    return RemoteSnapshot(subject, root, artifact_manifest, manifest, disk_map, referrers, signatures)


def find_signatures(
    reference: str | Reference, options: TransferOptions | None = None, *, stores: StoreOptions | None = None
) -> SignatureReport:
    """The signatures of a manifest elsewhere, and whether they are what the options trust: the manifest and they are
    all that is fetched. It may be that of any artifact or image.

    Raises:
        UsageError: the reference has neither tag nor digest.
        NotFound: there is no such tag or manifest.
        RegistryError: the registry or the way to it failed.
    """
    place, options = as_reference(reference), options or TransferOptions()
    require_tag_or_digest(place, "signatures of")
    from casstore.trust.report import look

    with open_judged(place, options, stores or StoreOptions()) as (source, where):
        root = find(source, place, "signatures of")
        return look(source, root, place=where, trust=options.trust)


def sign_remote(
    reference: str | Reference,
    signing: Signing,
    options: TransferOptions | None = None,
    *,
    now: datetime | None = None,
    stores: StoreOptions | None = None,
) -> tuple[Digest, Sequence[Signed]]:
    """Sign a snapshot where it is, with nothing of it fetched but its documents; returns which one, for its tag may
    stand for another by now. In a registry the signatures are for the repository, unless `signing` says otherwise.

    Raises:
        UsageError: the reference has neither tag nor digest, or there is nothing to sign with.
        NotFound: there is no such tag or manifest.
        UnsupportedVersion: it is no snapshot.
        NotOffered: signatures cannot be kept there.
        RegistryError: the registry or the way to it failed.
    """
    place, options, stores = as_reference(reference), options or TransferOptions(), stores or StoreOptions()
    require_tag_or_digest(place, "signing of")
    from casstore.sign import sign

    repository = signing.repository_at(place)
    with open_source(place, options, stores) as source:
        root = find(source, place, "signing of")
    if isinstance(place, LayoutReference) and names_store(place):
        from casstore.store import Store

        with Store.open(place.path, options=stores) as store:
            return root.digest, store.sign(str(root.digest), signing, now=now)
    with open_target(place, options, stores) as target:
        return root.digest, sign(target, root, signing, repository=repository, now=now)


def remove_remote(
    reference: str | Reference, options: TransferOptions | None = None, *, stores: StoreOptions | None = None
) -> Digest:
    """Remove one tag, never its siblings nor what they stand for; returns what the tag stood for.

    Raises:
        UsageError: the reference has no tag.
        DigestMismatch: it has a digest, too, and the tag stands for another one.
        NotFound: there is no such tag.
        NotOffered: the registry cannot remove a tag without its siblings.
    """
    place, options = as_reference(reference), options or TransferOptions()
    tag = place.tag
    if tag is None:
        raise UsageError(f"removal of {place}: expected a tag, got none; add :TAG")
    stores = stores or StoreOptions()
    with open_source(place, options, stores) as source:
        found = source.resolve(tag).digest
        if place.digest is not None and place.digest != found:
            raise DigestMismatch(f"removal of {place}", expected=str(place.digest), got=str(found))
        if isinstance(place, LayoutReference) and names_store(place):
            from casstore.store import Store

            with Store.open(place.path, options=stores) as store:
                store.remove(tag)
        elif isinstance(source, Untagger):
            source.untag(tag)
        else:
            raise NotOffered(f"{place}: tags cannot be removed there")
    return found


def copy(
    source: str | Reference,
    destination: str | Reference,
    options: TransferOptions | None = None,
    *,
    progress: Progress = silent,
    stores: StoreOptions | None = None,
) -> TransferReport:
    """Copy between any two of registry, OCI layout and store, with no store between: every byte streams through, and
    the digest stays. Within one registry blobs are mounted. Without a tag in `destination` that of `source` is taken.
    Where the options trust not everybody, what comes from `source` must have the wanted signatures, which come along.

    What can be copied: OCI image manifests (snapshots, images, any other artifact) and OCI image indexes with all that
    they name; into a casstore store, snapshots only.

    Raises:
        UsageError: there is nothing to copy in `source`, or no tag to give; or it goes into a store by a tag that must
            not be led back, which only `Store.pull` can tell.
        NotFound: there is no such tag, manifest or blob.
        UnsupportedVersion: it is of a kind that is not copied.
        DigestMismatch: `destination` pins another digest.
        UntrustedContent: it is not signed as it must be; nothing was copied.
        RegistryError: a registry or the way to it failed; the destination then has some blobs more, and no new name.
    """
    there, options, stores = as_reference(destination), options or TransferOptions(), stores or StoreOptions()
    here = as_reference(source)
    with open_judged(here, options, stores) as (opened, where):
        job = _job(opened, here, where, there, options)
        with open_target(there, options, stores) as target:
            return push(opened, target, [job], there, options=options, progress=progress, phase="copying")[0]


def plan_copy(
    source: str | Reference,
    destination: str | Reference,
    options: TransferOptions | None = None,
    *,
    stores: StoreOptions | None = None,
) -> Plan:
    """What `copy` would move. Nothing is changed or made; a destination that is not there has nothing.

    With `oci:DIR:NAME` as the destination it also tells what a pull into the store DIR would move, which need not be.

    Raises:
        As `copy`.
    """
    there, options, stores = as_reference(destination), options or TransferOptions(), stores or StoreOptions()
    here = as_reference(source)
    with open_judged(here, options, stores) as (opened, where):
        job = _job(opened, here, where, there, options)
        with open_prober(there, options, stores) as target:
            return plan(target, [job], options)[0]


def _job(source: Source, here: Reference, where: str, there: Reference, options: TransferOptions) -> Job:
    """What a copy copies; `where` is the place of `here`, for who judges by it."""
    require_tag_or_digest(here, "copy of")
    tag = there.tag or here.tag
    if tag is None:
        raise UsageError(f"copy to {there}: expected a tag, for a digest says none; add :TAG")
    if names_store(there):
        parse_name(tag)
        _require_memory(here, where, there, options)
    root = find(source, here, "copy of")
    if there.digest is not None and root.digest != there.digest:
        raise DigestMismatch(f"copy to {there}", expected=str(there.digest), got=str(root.digest))
    raw = fetch_all(source, root, limit=spec.MAX_MANIFEST)
    if names_store(there):
        ArtifactManifest.parse(raw, subject=f"copy of {here} to a store")
    gate = gate_at(where, options.trust)
    return admitted_job(source, root, raw, tag, referrers=options.referrers, gate=gate)


def _require_memory(here: Reference, where: str, there: Reference, options: TransferOptions) -> None:
    """Raise UsageError where a store must not take a tag that was led back: only a pull knows what it led to before."""
    by_tag = here.tag is not None and here.digest is None
    if by_tag and options.trust is not None and options.trust.forbids_rollback(where):
        raise UsageError(
            f"copy of {here} to the store {there.name}: a copy cannot tell whether the tag was led back, which the"
            " policy asks of it; pull it into that store, or copy it by its digest"
        )


def _config(source: Source, artifact_manifest: ArtifactManifest, subject: str, *, with_labels: bool = True) -> Manifest:
    def read(descriptor: Descriptor) -> bytes:
        return fetch_all(source, descriptor, limit=spec.MAX_MANIFEST)

    return read_config(artifact_manifest, read, subject=subject, with_labels=with_labels)


def _entry(
    source: Source, place: Reference, name: str, known: dict[Digest, RemoteEntry], failed: list[Unavailable]
) -> RemoteEntry:
    """What a tag stands for; `known` are those that were read already, `failed` what the registry failed with.

    Raises:
        Unavailable: it failed for the last time that is put down to the tag: each costs all attempts with their waits.
    """
    reference = f"{place.name}:{name}"
    digest: Digest | None = None
    try:
        root = source.resolve(name)
        digest = root.digest
        if digest not in known:
            known[digest] = _read_entry(source, root, reference, name)
        return replace(known[digest], reference=reference, name=name)
    except CasstoreError as error:
        if isinstance(error, Unavailable):
            failed.append(error)
            if len(failed) > _MAX_UNAVAILABLE:
                raise
        return RemoteEntry(reference, name, "unreadable", digest, problem=error)


def _read_entry(source: Source, root: Descriptor, reference: str, name: str) -> RemoteEntry:
    raw = fetch_all(source, root, limit=spec.MAX_MANIFEST)
    manifest = AnyManifest.parse(raw, root.media_type, subject=reference)
    created = manifest.descriptor.annotations.get(spec.ANNOTATION_CREATED)
    # An index does not say what the blobs of its manifests take together.
    stored = None if manifest.manifests else root.size + sum({b.digest: b.size for b in manifest.blobs}.values())
    if manifest.descriptor.artifact_type != spec.ARTIFACT_TYPE:
        return RemoteEntry(reference, name, "other", root.digest, stored, created_at=created)
    config = _config(source, ArtifactManifest.parse(raw, subject=reference), reference, with_labels=False)
    return RemoteEntry(
        reference,
        name,
        "snapshot",
        root.digest,
        stored,
        size_bytes=config.upper.size_bytes,
        created_at=config.created_at,
        snapshot_id=config.id,
        image_ref=config.image.ref,
    )
