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
from casstore.cli.damage import REPAIR, with_next_step
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
from casstore.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from casstore.config import DiskInput, SnapshotDestination
    from casstore.create import Created
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
    casstore create ./base.snapshot --disk rootfs.ext4""",
)
@click.argument("destination", metavar="NAME|PATH")
@click.option(
    "--disk", "disks", multiple=True, required=True, metavar="[NAME=]FILE", help="The disk; - is standard input."
)
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
    destination: str,
    disks: tuple[str, ...],
    block_device: bool,
    image: str | None,
    parent: str | None,
    labels: tuple[str, ...],
    source_sandbox: str | None,
    integrity: str | None,
    trust_mtime: bool,
    level: int,
    workers: int | None,
    force: bool,
) -> None:
    """Keep a disk, and store what is new of it.

    NAME goes into the store. A PATH has a "/" in it, or starts with "." or "~": it becomes a directory with this one
    snapshot, an OCI layout with the tag `latest`, which `casstore pull oci:PATH:latest` reads. A disk FILE with "=" in
    its name is written ./FILE. Writes the digest, then the path.
    """
    from casstore.capture import CaptureOptions
    from casstore.config import SnapshotConfig
    from casstore.manifest import SCRATCH
    from casstore.store import Store

    if len(disks) > 1:
        raise click.UsageError("expected one --disk, got several")
    disk_name, source = _parse_disk(session, disks[0], block_device=block_device)
    config = SnapshotConfig(
        source=source,
        destination=_parse_destination(destination),
        labels=parse_labels(labels),
        force=force,
        record_integrity=integrity,
        parent=parent,
        source_sandbox=source_sandbox,
        disk_name=disk_name,
        trust_mtime=trust_mtime,
        image=SCRATCH if image is None else _parse_image(image),
    )
    options = CaptureOptions(level=level, workers=workers or 0)
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
    _tell_created(session, snapshot, time.monotonic() - start)


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


def _parse_destination(text: str) -> SnapshotDestination:
    from casstore.config import SnapshotDestination

    if not text:
        raise click.UsageError("destination must not be empty")
    if "/" in text or text.startswith((".", "~")):
        return SnapshotDestination(path=expand_home(text))
    return SnapshotDestination(name=text)


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


def _tell_created(session: Session, snapshot: Snapshot, seconds: float) -> None:
    cost = snapshot.cost
    if session.as_json:
        session.emit(render.document(**_created_document(snapshot, cost, seconds)))
        return
    session.emit(str(snapshot.digest))
    if not session.quiet:
        session.emit(render.printable(snapshot.path))
    if cost is not None:
        for pack in cost.damaged:
            session.say(
                f"warning: pack {pack} of the store is damaged; what this snapshot needs of it was stored again;"
                f" {REPAIR}"
            )
        stats = cost.stats
        ratio = f" ({stats.new_plain / cost.added:.1f} : 1)" if stats.new_plain > cost.added else ""
        what = os.path.basename(snapshot.path)
        if cost.unchanged_since is not None:
            session.say(
                f"kept {what}: unchanged since {cost.unchanged_since}: nothing read, {render.duration(seconds)}"
            )
            return
        session.say(
            f"kept {what}: {render.size(stats.allocated)} allocated, {render.size(stats.new_plain)} new,"
            f" {render.size(cost.added)} stored{ratio}, {render.duration(seconds)}"
        )


def _created_document(snapshot: Snapshot, cost: Created | None, seconds: float) -> dict[str, object]:
    stats = cost.stats if cost is not None else None
    return {
        "digest": str(snapshot.digest),
        "id": str(snapshot.id),
        "name": snapshot.names[0],
        "path": snapshot.path,
        "size_bytes": snapshot.size_bytes,
        "allocated_bytes": stats.allocated if stats else 0,
        "chunks": stats.chunks if stats else 0,
        "new_chunks": stats.new_chunks if stats else 0,
        "delta_chunks": stats.deltas if stats else 0,
        "new_bytes": stats.new_plain if stats else 0,
        "stored_bytes": cost.added if cost else 0,
        "copied_bytes": stats.copied if stats else 0,
        "unchanged_since": cost.unchanged_since if cost else None,
        "seconds": round(seconds, 3),
    }


@verb(
    "restore",
    examples="""
    casstore restore base disk.ext4
    casstore restore base sandbox/
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
    salvage: bool,
    workers: int | None,
    force: bool,
) -> None:
    """Write a disk back: the same bytes, and the same holes.

    A DEST that ends in "/" or is a directory gets manifest.json and the disk under its own name; any other DEST becomes
    the disk's file; - is standard output, with holes as zeros. Writes the path of the disk's file.

    What a --seed FILE holds of the disk is taken from there: shared with it on file systems with reflinks (XFS, Btrfs),
    else copied. It is read as a whole first, so it pays where it shares, or where the store is slow.

    With --salvage a damaged snapshot is no error: all chunks that are sound are written, the others are holes, and
    their byte ranges are listed; --json lists all of them. The exit code is 3 then, and 0 if nothing is missing.
    """
    session: Session = ctx.obj
    if session.as_json and not salvage:
        raise click.UsageError("--json: expected --salvage with it")
    if not destination:
        raise click.UsageError("invalid DEST '': expected a file, a directory or -")
    if destination == "-":
        if seeds or salvage:
            option = "--salvage" if salvage else "--seed"
            raise click.UsageError(f"{option}: expected a file or directory as DEST, got -")
        session.refuse_terminal(output=True)
    start = time.monotonic()
    if salvage:
        with session.open_store() as store, session.progress() as progress:
            salvaged = store.salvage(
                snapshot, destination, force=force, seeds=seeds, workers=workers or 0, progress=progress
            )
        ctx.exit(report_salvaged(session, snapshot, salvaged, time.monotonic() - start))
    with session.open_store() as store, session.progress() as progress:
        found = store.open_snapshot(snapshot)
        if destination == "-":
            found.restore_to(sys.stdout.buffer.write, workers=workers or 0, progress=progress)
            sys.stdout.buffer.flush()
        else:
            path = found.restore(
                destination,
                force=force,
                seeds=seeds,
                workers=workers or 0,
                progress=progress,
                durability=session.durability,
            )
            session.emit(render.printable(path))
    seconds = render.duration(time.monotonic() - start)
    session.say(f"restored {snapshot}: {render.size(found.size_bytes)}, {seconds}")
