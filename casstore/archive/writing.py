"""What the archives of each microsandbox consist of, and in which order.

Ancestors go first. So the last snapshot is the one that the archive is about, which is what 0.4 goes by.

0.4.4 reads one sparse map that goes on after its header, and fails at the next one of the archive. So in what it shall
read, the last snapshot has all its holes, and each ancestor only as many as its header has room for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from casstore.archive import inventory
from casstore.archive.aside import Aside
from casstore.archive.image import ImageFile
from casstore.archive.inventory import Inventory
from casstore.archive.members import Members
from casstore.artifact import Artifact
from casstore.dialects.conversion import convert
from casstore.dialects.rules import write_integrity
from casstore.dialects.sidecars import METADATA_FILENAME, labels_to_bytes
from casstore.dialects.v07 import LAYERS_FOLDER, Manifest07
from casstore.digest import Digest
from casstore.diskmap import DiskMap
from casstore.errors import UnsupportedVersion
from casstore.integrity import SHA256, hasher
from casstore.manifest import UPPER_FILENAME, Dialect, Manifest, UpperIntegrity
from casstore.microsandbox.output import in_dialect
from casstore.spec import MAX_MANIFEST, SPARSE_SHA256


class Form(StrEnum):
    """A form of archives, as the command line calls it."""

    COMMON = "common"
    """What every microsandbox reads: that of 0.4, with holes left out and the sha256 of each disk recorded."""
    V04 = "0.4"
    V06 = "0.6"
    V07 = "0.7"
    OCI = "oci"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A stored snapshot to write, and what it is called."""

    artifact: Artifact
    name: str | None
    sidecars: Mapping[str, bytes] = field(default_factory=dict)
    parent: Manifest | None = None
    """The document of its parent in the form of the archive, if that is not written into it."""


def write(form: Form, members: Members, snapshots: Sequence[Outgoing], image: Sequence[ImageFile]) -> Manifest:
    """Write an archive of snapshots, ancestors first, up to its end. Returns the document of the last one, as it is in
    there.

    Raises:
        UnsupportedVersion: the form cannot say what the snapshots are.
        CorruptContent: a frame is damaged.
    """
    writers = {Form.COMMON: _write_common, Form.V04: _write_04, Form.V06: _write_06, Form.V07: _write_07}
    last = writers[form](members, snapshots, image)
    members.tar.close()
    return last


def _write_common(members: Members, snapshots: Sequence[Outgoing], image: Sequence[ImageFile]) -> Manifest:
    """The sha256 is computed as a disk is written, so its document comes after it, and the folder has no name of it."""
    parent: Manifest | None = None
    for each in snapshots:
        is_ancestor = each is not snapshots[-1]
        recorded = each.artifact.config.upper.integrity
        known = recorded if recorded is not None and recorded.algorithm == SHA256 else None
        manifest = convert(each.artifact.config, Dialect.V04, parent=parent, integrity=known)
        # A parent that is not in the archive, or a disk of another name, would keep 0.6 and later from reading it.
        known_as = None if parent is None else parent.known_as
        manifest = replace(manifest, parent=known_as, upper=replace(manifest.upper, file=UPPER_FILENAME))
        folder, disk = f"sha256-{each.artifact.digest.hex[:16]}", _only_disk(each.artifact)
        path = f"{folder}/{manifest.upper.file}"
        if known is None:
            with Aside(hasher("sha256", disk.size)) as digester:
                members.disk(path, each.artifact, disk, digester=digester, within_header=is_ancestor)
                integrity = UpperIntegrity(algorithm=SHA256, digest=digester.finish())
            manifest = replace(manifest, upper=replace(manifest.upper, integrity=integrity))
        else:
            members.disk(path, each.artifact, disk, within_header=is_ancestor)
        members.document(f"{folder}/{manifest.filename}", manifest.to_bytes())
        parent = manifest
    _write_image(members, "cache", image)
    return _last(parent)


def _write_04(members: Members, snapshots: Sequence[Outgoing], image: Sequence[ImageFile]) -> Manifest:
    parent: Manifest | None = None
    for each in snapshots:
        manifest = parent = _converted(each, Dialect.V04, parent, members)
        folder, recorded = f"sha256-{manifest.id.hex[:16]}", manifest.upper.integrity
        depends_on_holes = recorded is not None and recorded.algorithm == SPARSE_SHA256
        few = each is not snapshots[-1] and not depends_on_holes
        members.document(f"{folder}/{manifest.filename}", manifest.to_bytes())
        members.disk(f"{folder}/{manifest.upper.file}", each.artifact, _only_disk(each.artifact), within_header=few)
    _write_image(members, "cache", image)
    return _last(parent)


def _write_06(members: Members, snapshots: Sequence[Outgoing], image: Sequence[ImageFile]) -> Manifest:
    parent: Manifest | None = None
    identities = []
    for each in snapshots:
        manifest = parent = _converted(each, Dialect.V06, parent, members)
        identity, upper = manifest.id, manifest.upper
        identities.append((str(identity), identity))
        path = inventory.descriptor_path(Dialect.V06, str(identity))
        members.document(path, manifest.to_bytes(), owner=str(identity))
        members.disk(
            f"files/{identity.hex}/{upper.file}",
            each.artifact,
            _only_disk(each.artifact),
            owner=str(identity),
            integrity=write_integrity(upper.integrity, upper.size_bytes),
        )
    _write_image(members, "images", image)
    last = _last(parent)
    _write_inventory(members, Dialect.V06, last, identities, snapshots, with_image=bool(image))
    return last


def _write_07(members: Members, snapshots: Sequence[Outgoing], image: Sequence[ImageFile]) -> Manifest:
    parent: Manifest | None = None
    identities = []
    for each in snapshots:
        manifest = parent = _converted(each, Dialect.V07, parent, members)
        if not isinstance(manifest, Manifest07):
            raise TypeError("converted to another form than 0.7")
        identity = manifest.snapshot_id
        identities.append((identity, manifest.id))
        members.document(inventory.descriptor_path(Dialect.V07, identity), manifest.to_bytes(), owner=identity)
        if manifest.labels:
            data = each.sidecars.get(METADATA_FILENAME) or labels_to_bytes(manifest.labels)
            path = f"snapshots/{identity}/{METADATA_FILENAME}"
            members.document(path, data, kind=inventory.METADATA, owner=identity)
        for layer, disk in zip(manifest.layers, each.artifact.map.disks, strict=True):
            path = f"{LAYERS_FOLDER}/{layer.filename}"
            if path not in members.entries:  # of one of its ancestors, too
                integrity = write_integrity(layer.integrity, disk.size)
                members.disk(path, each.artifact, disk, owner=identity, integrity=integrity)
    _write_image(members, "images", image)
    last = _last(parent)
    _write_inventory(members, Dialect.V07, last, identities, snapshots, with_image=bool(image))
    return last


def _write_inventory(
    members: Members,
    dialect: Dialect,
    head: Manifest,
    identities: Sequence[tuple[str, Digest]],
    snapshots: Sequence[Outgoing],
    *,
    with_image: bool,
) -> None:
    named = zip(identities, snapshots, strict=True)
    listed = Inventory(
        dialect=dialect,
        head=head.known_as,
        suggested_name=snapshots[-1].name,
        snapshots=identities,
        entries=list(members.entries.values()),
        with_parents=len(snapshots) > 1,
        with_image=with_image,
        member_names={identity: each.name for (identity, _), each in named if each.name is not None},
    )
    data = listed.to_bytes()
    if len(data) > MAX_MANIFEST:
        problem = f"expected an {inventory.PATH} of at most {MAX_MANIFEST} bytes, got {len(data)}"
        advice = "its disk lies in too many pieces; export it in the form that all versions read"
        raise UnsupportedVersion(f"snapshot {head.id}", f"{problem}: {advice}")
    members.tar.add(inventory.PATH, data)


def _write_image(members: Members, folder: str, image: Sequence[ImageFile]) -> None:
    for file in image:
        members.image(f"{folder}/{file.folder}/{file.name}", file)


def _converted(each: Outgoing, dialect: Dialect, parent: Manifest | None, members: Members) -> Manifest:
    parent = each.parent if parent is None else parent
    return in_dialect(each.artifact, dialect, parent=parent, workers=members.workers, meter=members.meter)


def _only_disk(artifact: Artifact) -> DiskMap:
    if len(artifact.map.disks) != 1:
        problem = f"expected one disk, got a chain of {len(artifact.map.disks)} files; export it in the form of 0.7"
        raise UnsupportedVersion(f"snapshot {artifact.digest}", problem)
    return artifact.map.disks[0]


def _last(manifest: Manifest | None) -> Manifest:
    if manifest is None:
        raise ValueError("an archive of no snapshots")
    return manifest
