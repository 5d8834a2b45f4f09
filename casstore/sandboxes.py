"""Snapshots of sandboxes: of a disk like any other, or of the chain of files that microsandbox 0.7 may make of one.

A disk of one file is described as 0.4 does, which every microsandbox reads. A chain, and a disk that needs no image
below, can only be told in the form of 0.7.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from casstore.catalog import Catalog, Entry
from casstore.config import DiskInput, SandboxInput, SnapshotConfig
from casstore.creation import create_at_path, create_in_store
from casstore.derived import Derived
from casstore.durable import Durability
from casstore.errors import SourceError, UnsuitableSandbox
from casstore.manifest import UPPER_FILENAME
from casstore.microsandbox.home import Home, Sandbox
from casstore.names import parse_name
from casstore.progress import Progress
from casstore.secrets import cannot_search, search
from casstore.storedir import StoreDirectory

if TYPE_CHECKING:
    from casstore.binding import Created
    from casstore.capture import CaptureOptions
    from casstore.dialects.v07 import Layer, Manifest07
    from casstore.manifest import UpperIntegrity
    from casstore.microsandbox.rootdisk import RenamedBase

_FSTYPE = "ext4"  # of every disk that microsandbox makes


def create_from_sandbox(
    directory: StoreDirectory,
    derived: Derived,
    config: SnapshotConfig,
    source: SandboxInput,
    *,
    parent: Entry | None,
    options: CaptureOptions | None,
    progress: Progress,
) -> Created:
    """Capture the disk of a stopped sandbox and give it its name; durable when this returns. Without a `parent` it is
    the snapshot in the store that the sandbox is the continuation of.

    Raises:
        SandboxNotFound, SandboxNotStopped, UnsuitableSandbox: see Home.sandbox. Also when it was started meanwhile.
        As Store.create.
    """
    home = Home(source.home)
    sandbox = home.sandbox(source.name)
    if parent is None and sandbox.parent is not None:
        derived.catch_up()
        parent = _known_as(derived.catalog, sandbox.parent)
    if not sandbox.is_plain:
        return _create_chain(directory, derived, config, home, sandbox, parent, options, progress)
    return create_in_store(
        directory,
        derived,
        _as_disk(config, sandbox),
        parent=parent,
        options=options,
        progress=progress,
        confirm=lambda: home.require_unchanged(sandbox),
    )


def create_sandbox_at_path(
    config: SnapshotConfig,
    source: SandboxInput,
    parent_id: str | None,
    *,
    durability: Durability,
    options: CaptureOptions | None,
    progress: Progress,
) -> tuple[Created, str]:
    """Capture the disk of a stopped sandbox into a directory of its own; see creation.create_at_path.

    Raises:
        As create_from_sandbox; UnsuitableSandbox also where the disk is not one raw file over an image.
    """
    home = Home(source.home)
    sandbox = home.sandbox(source.name)
    if not sandbox.is_plain:
        problem = f"sandbox '{sandbox.name}' has a disk that is not one raw file over its image"
        raise UnsuitableSandbox(problem, "give the snapshot a name in a store, and restore it from there")
    return create_at_path(
        _as_disk(config, sandbox),
        parent_id,
        durability=durability,
        options=options,
        progress=progress,
        confirm=lambda: home.require_unchanged(sandbox),
    )


def _as_disk(config: SnapshotConfig, sandbox: Sandbox) -> SnapshotConfig:
    return replace(
        config,
        source=DiskInput(path=sandbox.disks[0].path),
        image=sandbox.image,
        source_sandbox=sandbox.name,
        disk_name=UPPER_FILENAME,
        fstype=_FSTYPE,
    )


def _known_as(catalog: Catalog, snapshot_id: str) -> Entry | None:
    """The snapshot that 0.7 calls so: by its own document, or as 0.7 renames those of older forms."""
    for entry in catalog.entries():
        if snapshot_id in {*entry.called, _id_in_07(entry)}:
            return entry
    return None


def _id_in_07(entry: Entry) -> str:
    own = entry.manifest.known_as
    return own if own.startswith("snap_") else f"snap_{entry.id.hex[:32]}"


def _create_chain(
    directory: StoreDirectory,
    derived: Derived,
    config: SnapshotConfig,
    home: Home,
    sandbox: Sandbox,
    parent: Entry | None,
    options: CaptureOptions | None,
    progress: Progress,
) -> Created:
    from casstore.capture import CaptureOptions
    from casstore.dialects.sidecars import METADATA_FILENAME, labels_to_bytes
    from casstore.microsandbox.intake import Importer
    from casstore.microsandbox.rootdisk import RenamedBase
    from casstore.transaction import Transaction

    options = options or CaptureOptions()
    with ExitStack() as stack:
        sources = [stack.enter_context(RenamedBase.open(disk.path)) for disk in sandbox.disks]
        name = parse_name(config.destination.name or "")
        if not config.force:
            directory.refs.require_free(name)  # before the work, not only after it
        directory.require_writable()
        catalog, workers = derived.catalog, options.workers
        change = stack.enter_context(Transaction(directory, catalog, force=config.force, workers=workers))
        for source in sources:
            source.clone_into(change.scratch)
        if len(sources) == 1:
            found = search(sources[0], config.scan_secrets)
        else:
            found = cannot_search(sources[-1].subject, "it is a chain of several files", config.scan_secrets)
        manifest = _describe(config, sandbox, parent, _layers(sandbox, sources))
        base = None if parent is None else change.reuse(parent.digest)
        importer = Importer(change, catalog, options=options, progress=progress)
        keys = [layer.filename for layer in manifest.layers]
        for key, source in zip(keys, sources, strict=True):
            importer.disk(key, source, of=manifest, file=key, base=base, algorithm=config.record_integrity)
        if config.record_integrity is not None:
            manifest = _with_integrity(
                manifest, sources, [importer.integrity(key, config.record_integrity) for key in keys]
            )
        sidecars = {METADATA_FILENAME: labels_to_bytes(manifest.labels)} if manifest.labels else {}
        created = importer.snapshot(manifest, keys, sidecars)
        home.require_unchanged(sandbox)
        change.commit(name, created.root)
    return replace(created, secrets=found)


def _describe(config: SnapshotConfig, sandbox: Sandbox, parent: Entry | None, layers: Sequence[Layer]) -> Manifest07:
    from casstore.dialects.v07 import Manifest07
    from casstore.manifest import format_created_at

    return Manifest07(
        fstype=_FSTYPE,
        image=sandbox.image,
        parent=None if parent is None else _id_in_07(parent),
        created_at=format_created_at(time.time_ns()),
        labels=dict(config.labels),
        source_sandbox=sandbox.name,
        snapshot_id=f"snap_{secrets.token_hex(16)}",
        layers=tuple(layers),
        layout="flat" if sandbox.is_flat else "managed",
    )


def _layers(sandbox: Sandbox, sources: Sequence[RenamedBase]) -> Sequence[Layer]:
    """The files as they are kept: each under a new name, which the one over it gets to know."""
    from casstore.dialects.v07 import Layer
    from casstore.manifest import SnapshotFormat
    from casstore.microsandbox.rootdisk import Overlay

    layers: list[Layer] = []
    for n, (disk, source) in enumerate(zip(sandbox.disks, sources, strict=True)):
        overlay = Overlay.read(source) if disk.format is SnapshotFormat.QCOW2 else None
        virtual_size = (source.size or 0) if overlay is None else overlay.virtual_size
        layer = Layer(layer_id=f"layer_{secrets.token_hex(16)}", format=disk.format, virtual_size=virtual_size)
        if layers:
            source.rename_base(layers[-1].filename, instead_of=sandbox.disks[n - 1].path)
        elif overlay is not None and overlay.backing is not None:
            raise SourceError(
                f"{source.subject}: expected the oldest file of the disk, got one over {overlay.backing!r}"
            )
        layers.append(layer)
    return layers


def _with_integrity(
    manifest: Manifest07, sources: Sequence[RenamedBase], digests: Sequence[UpperIntegrity]
) -> Manifest07:
    from casstore.integrity import MERKLE_BLAKE3

    layers = []
    for layer, source, integrity in zip(manifest.layers, sources, digests, strict=True):
        size = source.size if integrity.algorithm == MERKLE_BLAKE3 else layer.size
        layers.append(replace(layer, integrity=integrity, size=size))
    return replace(manifest, layers=tuple(layers))
