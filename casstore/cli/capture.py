"""create and restore: disks in, disks out."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import click

from casstore.cli import render
from casstore.cli.created import parse_destination, tell_created
from casstore.cli.damage import with_next_step
from casstore.cli.env import expand_home
from casstore.cli.options import (
    BareOption,
    complete_names,
    force_option,
    json_option,
    parse_labels,
    progress_option,
    quiet_option,
    selector,
    verb,
    workers_option,
)
from casstore.cli.salvaged import report_salvaged
from casstore.cli.sandboxes import Wanted, create_from_sandboxes
from casstore.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from casstore.config import DiskInput
    from casstore.importing import ImportOptions
    from casstore.manifest import ImageRef
    from casstore.snapshot import Snapshot

_ALGORITHMS = ("sha256", "sparse", "sparse-zero", "blake3-merkle")


@verb(
    "create",
    examples="""
    casstore create base --disk rootfs.ext4
    casstore create after-pip --disk rootfs.ext4 --parent base --label step=pip
    casstore create hourly --disk rootfs.ext4 --trust-mtime -f
    zcat disk.gz | casstore create base --disk -
    casstore create after-pip --from box --label step=pip
    casstore create 'nightly-{sandbox}' --all-stopped -f
    casstore create base --from-artifact ~/.microsandbox/snapshots/base
    casstore create ./base.snapshot --disk rootfs.ext4""",
)
@click.argument("destination", metavar="NAME|PATH", required=False)
@click.option(
    "--from",
    "--sandbox",
    "--from-sandbox",
    "sandboxes",
    multiple=True,
    metavar="SANDBOX",
    help="A stopped sandbox of microsandbox; may be given several times.",
)
@click.option("--all-stopped", is_flag=True, help="All sandboxes that are stopped.")
@click.option("--disk", "disks", multiple=True, metavar="[NAME=]FILE", help="The disk; - is standard input.")
@click.option(
    "--from-artifact",
    metavar="DIR",
    type=click.Path(),
    help="Take the snapshot from DIR, an artifact directory of microsandbox, as it is.",
)
@click.option("--strict", is_flag=True, help="Refuse an artifact whose recorded integrity cannot be verified any more.")
@click.option("--block-device", is_flag=True, help="Allow FILE to be a block device.")
@click.option("--image", metavar="REF@DIGEST", help="The image that the disk was made from.")
@click.option("--parent", metavar="SNAPSHOT", shell_complete=complete_names, help="The snapshot that it comes from.")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="A label; may be given several times.")
@click.option("--source-sandbox", metavar="NAME", help="The sandbox whose disk it is.")
@click.option(
    "--integrity",
    cls=BareOption,
    bare="sha256",
    metavar="ALG",
    type=click.Choice(_ALGORITHMS),
    help=f"Record a digest of the disk's content: {', '.join(_ALGORITHMS)}; without ALG the first.",
)
@click.option(
    "--trust-mtime",
    is_flag=True,
    help="Do not read a FILE that has the times, size and inode of its last capture, if nobody can write to it.",
)
@click.option(
    "--scan-secrets",
    cls=BareOption,
    bare="warn",
    metavar="ACTION",
    type=click.Choice(["warn", "refuse"]),
    help="Look for files that look like credentials first: warn of them, which is what no ACTION does, too, or refuse"
    " the disk.",
)
@click.option("--level", type=click.IntRange(1, 19), default=2, show_default=True, metavar="N", help="zstd level.")
@workers_option
@force_option("Take over a name or path that is in use.")
@json_option
@quiet_option
@progress_option
@click.pass_obj
@with_next_step()
def create(
    session: Session,
    destination: str | None,
    sandboxes: tuple[str, ...],
    all_stopped: bool,
    disks: tuple[str, ...],
    from_artifact: str | None,
    strict: bool,
    block_device: bool,
    image: str | None,
    parent: str | None,
    labels: tuple[str, ...],
    source_sandbox: str | None,
    integrity: str | None,
    trust_mtime: bool,
    scan_secrets: str | None,
    level: int,
    workers: int | None,
    force: bool,
) -> None:
    """Keep a disk, and store what is new of it: of a file, or of a stopped sandbox of microsandbox.

    NAME goes into the store. A PATH has a "/" in it, or starts with "." or "~": it becomes a directory with this one
    snapshot, an OCI layout with the tag `latest`, which `casstore pull oci:PATH:latest` reads. A disk FILE with "=" in
    its name is written ./FILE. Writes the digest, then the path.

    Sandboxes are looked up in $MSB_HOME, else ~/.microsandbox, where nothing is changed. Image, parent and source are
    theirs. Without a NAME each snapshot is named like its sandbox; in a NAME, `{sandbox}` stands for that. Of several,
    one that cannot be captured does not keep the others; --all-stopped leaves out what runs, and what microsandbox
    itself takes no snapshot of.

    An artifact directory, of microsandbox 0.4, 0.6 or 0.7, keeps its document, and so its id; its recorded integrity is
    verified. The options that say what a disk is like do not go with it.

    --scan-secrets looks into the files of an ext2, ext3 or ext4 disk; a disk that it cannot look into is told, too, or
    refused. docs/how-to/secrets.md says what it looks for.
    """
    from casstore.capture import CaptureOptions
    from casstore.config import SnapshotConfig
    from casstore.importing import ImportOptions
    from casstore.manifest import SCRATCH
    from casstore.secrets import OnSecrets
    from casstore.store import Store

    options = CaptureOptions(level=level, workers=workers or 0)
    if from_artifact is not None:
        described = (disks, block_device, image, parent, labels, source_sandbox, integrity, trust_mtime, scan_secrets)
        name = None if any(described) or sandboxes or all_stopped else destination
        _take_in(session, from_artifact, name, ImportOptions(force=force, strict=strict, capture=options))
        return
    if strict:
        raise click.UsageError("--strict: expected --from-artifact with it")
    on_secrets = None if scan_secrets is None else OnSecrets(scan_secrets)
    if sandboxes or all_stopped:
        if disks or block_device or image is not None or source_sandbox is not None:
            raise click.UsageError("--from, --all-stopped: expected no option that says what a disk is like")
        wanted = Wanted(parse_labels(labels), force, integrity, parent, trust_mtime, on_secrets, options)
        click.get_current_context().exit(create_from_sandboxes(session, destination, sandboxes, wanted, all_stopped))
    if len(disks) != 1:
        raise click.UsageError(f"expected one --disk FILE, or --from SANDBOX, got {len(disks) or 'none'}")
    if destination is None:
        raise click.UsageError("missing NAME|PATH: only sandboxes have names to go by")
    disk_name, source = _parse_disk(session, disks[0], block_device=block_device)
    config = SnapshotConfig(
        source=source,
        destination=parse_destination(destination),
        labels=parse_labels(labels),
        force=force,
        record_integrity=integrity,
        parent=parent,
        source_sandbox=source_sandbox,
        disk_name=disk_name,
        trust_mtime=trust_mtime,
        scan_secrets=on_secrets,
        image=SCRATCH if image is None else _parse_image(image),
    )
    start = time.monotonic()
    with ExitStack() as stack:
        if config.destination.path is None or parent is not None:
            store = stack.enter_context(session.open_store(create=parent is None))
            make: Callable[..., Snapshot] = store.create
            stack.callback(session.tell_taken_over, store)
        else:
            make = partial(Store.create_directory, durability=session.durability)
        progress = stack.enter_context(session.progress(expected=_allocated(source)))
        snapshot = make(config, options=options, progress=progress)
    tell_created(session, snapshot, time.monotonic() - start)
    if config.destination.path is not None and not session.as_json:
        session.say(f"it is in the directory {destination} alone: names in the store have no / in them")


def _take_in(session: Session, path: str, name: str | None, options: ImportOptions) -> None:
    """Take in an artifact directory, for `create --from-artifact`; without a `name` something was wrong with the call.

    Raises:
        click.UsageError: no name, or a path.
    """
    if name is None or parse_destination(name).path is not None:
        raise click.UsageError("--from-artifact: expected a NAME, and no option that says what a disk is like")
    start = time.monotonic()
    with session.open_store(create=True) as store:
        with session.progress() as progress:
            imported = store.import_directory(expand_home(path), name=name, options=options, progress=progress)
        for warning in imported.warnings:
            session.warn(warning)
        session.tell_taken_over(store)
        snapshot = store.open_snapshot(imported.names[0]).with_cost(imported.created)
    tell_created(session, snapshot, time.monotonic() - start)


def _parse_disk(session: Session, text: str, *, block_device: bool) -> tuple[str | None, DiskInput]:
    """`[NAME=]FILE|-`: what stands before a `=` is a name if it can be one."""
    from casstore.config import DiskInput
    from casstore.errors import InvalidName
    from casstore.names import parse_disk_name

    name: str | None
    name, equals, file = text.partition("=")
    try:
        name = parse_disk_name(name) if equals else None
    except InvalidName:
        name = None
    file = file if name is not None else text
    if not file:
        raise click.UsageError(f"invalid --disk {text!r}: expected [NAME=]FILE")
    if file == "-":
        session.refuse_terminal(output=False)
        return name, DiskInput(fd=os.dup(0))  # the library closes what it is given
    return name, DiskInput(path=file, block_device=block_device)


def _parse_image(text: str) -> ImageRef:
    from casstore.digest import Digest
    from casstore.manifest import ImageRef

    ref, at, digest = text.rpartition("@")
    if not (ref and at and digest):
        raise click.UsageError(f"invalid --image {text!r}: expected REF@DIGEST")
    return ImageRef(ref=ref, manifest_digest=str(Digest.parse(digest, subject="--image")))


def _allocated(source: DiskInput) -> int | None:
    """About how many bytes will be read, for the progress bar."""
    try:
        return os.stat(source.path).st_blocks * 512 or None if source.path is not None else None
    except OSError:
        return None


@verb(
    "restore",
    examples="""
    casstore restore base disk.ext4
    casstore restore base sandbox/
    casstore restore base ~/.microsandbox/snapshots/base --as 0.6
    casstore restore base disk.ext4 --seed disk.ext4 -f
    casstore restore base rest.ext4 --salvage
    casstore restore sha256:1f00a2 - | gzip > disk.gz""",
)
@selector()
@click.argument("destination", metavar="DEST", type=click.Path())
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    metavar="FILE",
    type=click.Path(),
    help="A disk that may have much in common with this one; may be given several times, and may be DEST.",
)
@click.option(
    "--as",
    "dialect",
    type=click.Choice(["0.4", "0.6", "0.7"]),
    help="Make DEST an artifact directory as this microsandbox keeps it.",
)
@click.option("--salvage", is_flag=True, help="Of a damaged snapshot, write what can be read; say what is missing.")
@workers_option
@force_option("Replace what is at DEST.")
@json_option
@quiet_option
@progress_option
@click.pass_context
@with_next_step(salvage=True)
def restore(
    ctx: click.Context,
    snapshot: str,
    destination: str,
    seeds: tuple[str, ...],
    dialect: str | None,
    salvage: bool,
    workers: int | None,
    force: bool,
) -> None:
    """Write a disk back: the same bytes, and the same holes.

    A DEST that ends in "/" or is a directory becomes an artifact directory, as microsandbox keeps a snapshot: the
    snapshot manifest, and the disk under its own name. So does the DEST of a chain of several files. Any other DEST
    becomes the disk's file; - is standard output, with holes as zeros. Writes the path of the disk's file.

    An artifact directory has the form that the snapshot came in. --as converts it to that of another microsandbox,
    which gives it another id; a recorded integrity that it could not verify becomes a sha256.

    What a --seed FILE holds of the disk is taken from there: shared with it on file systems with reflinks (XFS, Btrfs),
    else copied. It is read as a whole first, so it pays where it shares, or where the store is slow.

    With --salvage a damaged snapshot is no error: all chunks that are sound are written, the others are holes, and
    their byte ranges are listed; --json lists all of them. The exit code is 3 then, and 0 if nothing is missing.
    """
    from casstore.manifest import Dialect

    session: Session = ctx.obj
    if session.as_json and not salvage:
        raise click.UsageError("--json: expected --salvage with it")
    if not destination:
        raise click.UsageError("invalid DEST '': expected a file, a directory or -")
    if dialect is not None and salvage:
        raise click.UsageError("--as: expected no --salvage with it")
    if destination == "-":
        if seeds or salvage or dialect is not None:
            option = "--salvage" if salvage else "--seed" if seeds else "--as"
            raise click.UsageError(f"{option}: expected a file or directory as DEST, got -")
        session.refuse_terminal(output=True)
    start = time.monotonic()
    if salvage:
        with session.open_store() as store, session.progress() as progress:
            salvaged = store.salvage(
                snapshot, destination, force=force, seeds=seeds, workers=workers or 0, progress=progress
            )
        ctx.exit(report_salvaged(session, snapshot, salvaged, time.monotonic() - start))
    document = None
    with session.open_store() as store, session.progress() as progress:
        found = store.open_snapshot(snapshot)
        if destination == "-":
            found.restore_to(sys.stdout.buffer.write, workers=workers or 0, progress=progress)
            sys.stdout.buffer.flush()
        else:
            if dialect is not None:
                document = store.document(snapshot, Dialect(dialect), progress=progress)
            path = found.restore(
                destination,
                force=force,
                document=document,
                seeds=seeds,
                workers=workers or 0,
                progress=progress,
                durability=session.durability,
            )
            session.emit(render.printable(path))
    seconds = render.duration(time.monotonic() - start)
    session.say(f"restored {snapshot}: {render.size(found.size_bytes)}, {seconds}")
    if document is not None and document.id != found.id:
        session.say(f"{snapshot} is {found.id} here, and {document.id} in {destination}")
