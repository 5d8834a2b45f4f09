"""export and import: snapshots out into archives and in from them, those of microsandbox and those of OCI layouts."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from casstore.cli import render
from casstore.cli.connection import Connection, Registries, connection_options
from casstore.cli.damage import with_next_step
from casstore.cli.env import expand_home
from casstore.cli.failures import stopping
from casstore.cli.imported import Arrival, tell_arrivals, tell_tree
from casstore.cli.options import (
    complete_names,
    force_option,
    json_option,
    progress_option,
    quiet_option,
    selector,
    verb,
    workers_option,
)
from casstore.cli.session import Session
from casstore.cli.trust import Trusted, trust_of, trust_options
from casstore.errors import AlreadyExists, CasstoreError, StorageError
from casstore.microsandbox.directory import is_artifact

if TYPE_CHECKING:
    from casstore.archiving import Exported, ExportOptions
    from casstore.importing import ImportOptions
    from casstore.store import Store

_STDIN, _STDOUT = 0, 1


@verb(
    "export",
    examples="""
    casstore export base base.tar.zst
    casstore export after-pip after-pip.msb --as 0.7 --with-parents
    casstore export base base.tar.zst --with-image
    casstore export after-pip step.tar --as oci --since base
    casstore export base - | ssh host casstore import -""",
)
@selector()
@click.argument("out", type=click.Path())
@click.option(
    "--as",
    "form",
    type=click.Choice(["0.4", "0.6", "0.7", "oci"]),
    help="The form of the archive: of this microsandbox, or the tar of an OCI layout.",
)
@click.option("--with-parents", is_flag=True, help="Export what it comes from, too.")
@click.option(
    "--with-image",
    is_flag=True,
    help="Export its image, too: from microsandbox's cache, or for oci from the image's registry.",
)
@click.option("--plain-tar", is_flag=True, help="Do not compress the archive.")
@click.option(
    "--since",
    metavar="SNAPSHOT",
    shell_complete=complete_names,
    help="With --as oci: leave out what this snapshot has, for a receiver that has it.",
)
@force_option("Replace OUT.")
@workers_option
@connection_options
@json_option
@quiet_option
@progress_option
@click.pass_obj
@with_next_step()
def export(
    session: Session,
    snapshot: str,
    out: str,
    form: str | None,
    with_parents: bool,
    with_image: bool,
    plain_tar: bool,
    since: str | None,
    force: bool,
    workers: int | None,
    connection: Connection,
) -> None:
    """Write a snapshot into an archive, which casstore import or microsandbox reads. Also spelled save.

    Without --as every microsandbox reads it: it has the form of 0.4, leaves the holes out, and records the sha256 of
    the disk, so its id there may be another than here. --as 0.4, 0.6 or 0.7 keeps the id of a snapshot of that form.
    --as oci keeps everything, also what only casstore knows; its blobs are compressed already.

    OUT is a file, or - for standard output. Writes OUT.
    """
    from casstore.archiving import ExportOptions
    from casstore.transfer import TransferOptions

    if since is not None and form != "oci":
        raise click.UsageError("--since: expected --as oci with it")
    if out == "-":
        if session.as_json:
            raise click.UsageError("--json: expected a file as OUT, got -")
        session.refuse_terminal(output=True, subject="export to")
    options = ExportOptions(
        form=form or "common",
        with_parents=with_parents,
        image_cache=_image_cache(session) if with_image and form != "oci" else None,
        with_image=with_image and form == "oci",
        compress=not plain_tar,
        since=since,
        transfer=TransferOptions(Registries(session, connection)),
        workers=workers or 0,
    )
    start = time.monotonic()
    with session.open_store() as store:
        exported = _export(session, store, snapshot, out, options, force=force)
        known = store.entry(snapshot).id
    if exported is None:
        click.get_current_context().exit(StorageError.exit_code)
    _tell_exported(session, snapshot, out, exported, start)
    if form in {None, "0.4"} and not plain_tar and out != "-" and not out.endswith(".zst"):
        session.say("it is compressed with zstd: microsandbox 0.4 reads that only if its name ends in .zst")
    if exported.id != known:
        session.say(f"{snapshot} is {known} here, and {exported.id} in the archive")


def _export(
    session: Session, store: Store, snapshot: str, out: str, options: ExportOptions, *, force: bool
) -> Exported | None:
    """None: who read standard output has gone, and wants to hear nothing of it."""
    target = _STDOUT if out == "-" else expand_home(out)
    try:
        with session.progress() as progress:
            return store.export(snapshot, target, options=options, force=force, progress=progress)
    except OSError as error:
        if target == _STDOUT and error.errno == errno.EPIPE:
            return None
        raise


def _image_cache(session: Session) -> str:
    from casstore.microsandbox.home import Home

    return Home(session.settings.microsandbox_home).cache()


def _tell_exported(session: Session, snapshot: str, out: str, exported: Exported, start: float) -> None:
    seconds = time.monotonic() - start
    if session.as_json:
        session.emit_document(
            digest=str(exported.digest),
            id=str(exported.id),
            path=out,
            form=exported.form,
            parents=list(exported.names[:-1]),
            written_bytes=exported.written,
            seconds=round(seconds, 3),
        )
    elif out != "-":
        session.emit(render.printable(out))
    parents = len(exported.names) - 1
    more = f" with {render.count(parents, 'parent')}" if parents else ""
    session.say(f"exported {snapshot}{more}: {render.size(exported.written)}, {render.duration(seconds)}")


@verb(
    "import",
    examples="""
    casstore import base.tar.zst
    casstore import after-pip.msb --name after-pip
    casstore import base.tar.zst ~/restored/base
    casstore import ~/.microsandbox/snapshots/base
    casstore import ~/.microsandbox/snapshots
    zstd -dc base.tar.zst | casstore import - --name base""",
)
@click.argument("archive", metavar="ARCHIVE|DIR", type=click.Path())
@click.argument("destination", metavar="[DEST]", required=False, type=click.Path())
@click.option("--name", metavar="NAME", help="The name to give it; else one like that in the archive, or of its file.")
@click.option("--strict", is_flag=True, help="Refuse what has a recorded integrity that cannot be verified any more.")
@click.option("--level", type=click.IntRange(1, 19), default=2, show_default=True, metavar="N", help="zstd level.")
@force_option("Let the name stand for this snapshot if it stands for another; replace DEST.")
@trust_options()
@workers_option
@json_option
@quiet_option
@progress_option
@click.pass_context
def import_(
    ctx: click.Context,
    archive: str,
    destination: str | None,
    name: str | None,
    strict: bool,
    level: int,
    force: bool,
    trusted: Trusted,
    workers: int | None,
) -> None:
    """Take in the snapshots of an archive or directory. Also spelled load.

    ARCHIVE is what microsandbox 0.4, 0.6 or 0.7 exports, or the tar of an OCI layout; compressed with zstd or not; - is
    standard input. All of its snapshots come in, or none. DIR is an artifact directory of microsandbox, or one with
    many of them: of these each is taken in for itself under its own name, and what is malformed is named and skipped.
    So is what cannot be taken in, because its name stands for another snapshot or its disk is damaged; the exit code is
    that of the first of these.

    Every document keeps its id, and its recorded integrity is verified. With DEST the snapshot is also written there,
    as an artifact directory. Writes the digest, then the path.

    With --key, or a policy, all that comes in must be signed as that wants it; only the tar of an OCI layout has
    signatures.
    """
    from casstore.capture import CaptureOptions
    from casstore.importing import ImportOptions

    session: Session = ctx.obj
    if archive == "-":
        session.refuse_terminal(output=False, subject="archive")
    path = expand_home(archive)
    capture = CaptureOptions(level=level, workers=workers or 0)
    trust = trust_of(session, trusted)
    options = ImportOptions(force=force, strict=strict, capture=capture, trust=trust)
    start = time.monotonic()
    is_tree = archive != "-" and os.path.isdir(path) and not is_artifact(path)
    if is_tree and (name is not None or destination is not None):
        raise click.UsageError(f"{archive!r} holds several snapshots: expected neither --name nor DEST")
    if destination is not None and not force:
        _require_free(expand_home(destination))
    with session.open_store(create=True) as store:
        if is_tree:
            with stopping("what was taken in by then stays"), session.progress() as progress:
                report = store.import_tree(path, options=options, progress=progress)
            session.tell_taken_over(store)
            ctx.exit(tell_tree(session, store, path, report, time.monotonic() - start, trust=trust))
        with stopping("nothing was imported"), _naming(name):
            if archive != "-" and is_artifact(path):
                arrivals = [_from_directory(session, store, path, name, options)]
            else:
                arrivals = _from_archive(session, store, _STDIN if archive == "-" else path, name, options)
        if destination is not None:
            arrivals[0] = _restored(session, store, arrivals[0], expand_home(destination), force=force)
        session.tell_taken_over(store)
    tell_arrivals(session, arrivals, time.monotonic() - start, trust=trust)


@contextlib.contextmanager
def _naming(name: str | None) -> Iterator[None]:
    """Where a name is taken that nobody gave, say how to give another."""
    try:
        yield
    except AlreadyExists as error:
        if name is None:
            error.add_note("--name NAME gives it another one")
        raise


def _require_free(destination: str) -> None:
    """Before the import and not only after it, as far as can be told by then."""
    if is_artifact(destination) or (os.path.lexists(destination) and not os.path.isdir(destination)):
        raise AlreadyExists(f"{destination!r} exists already; choose another place, or force with -f")


def _from_archive(
    session: Session, store: Store, archive: str | int, name: str | None, options: ImportOptions
) -> list[Arrival]:
    """The snapshot that the archive is about, and its ancestors."""
    with session.progress() as progress:
        report = store.import_(archive, name=name, options=options, progress=progress)
    for warning in report.warnings:
        session.warn(warning)
    if report.unused:
        session.say(f"left out {render.count(report.unused, 'file')} that belong to no snapshot")
    everything = (report.head, *report.parents)
    return [
        Arrival.of(store, each.name, each.snapshot, is_new=each.is_new, verdicts=each.snapshot.verdicts)
        for each in everything
    ]


def _from_directory(session: Session, store: Store, path: str, name: str | None, options: ImportOptions) -> Arrival:
    with session.progress() as progress:
        imported = store.import_directory(path, name=name, options=options, progress=progress)
    for warning in imported.warnings:
        session.warn(warning)
    name, verdicts = imported.names[0], imported.verdicts
    return Arrival.of(store, name, imported.created, is_new=imported.is_new, verdicts=verdicts)


def _restored(session: Session, store: Store, arrival: Arrival, destination: str, *, force: bool) -> Arrival:
    """The same, and written to an artifact directory."""
    place, there = os.path.join(destination, ""), f"{arrival.name} is in the store"
    try:
        with stopping(there), session.progress() as progress:
            snapshot = store.open_snapshot(str(arrival.digest))  # whatever the name stands for by now
            snapshot.restore(place, force=force, progress=progress, durability=session.durability)
    except CasstoreError as error:
        error.add_note(there)
        raise
    return arrival.at(destination)
