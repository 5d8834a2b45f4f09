"""cat and cp: what is in the files on the disk of a snapshot, without restoring it."""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from casstore.cli import render
from casstore.cli.connection import Connection, connection_options
from casstore.cli.damage import with_next_step
from casstore.cli.opening import files_of, open_any, snapshot_argument, tell_traffic
from casstore.cli.options import force_option, progress_option, quiet_option, verb
from casstore.cli.session import Session
from casstore.cli.trust import Trusted, trust_of, trust_options
from casstore.errors import NotFound, UsageError

if TYPE_CHECKING:
    from casstore.diskfiles import CopiedOut

_MOST_SAID = 10


@verb(
    "cat",
    examples="""
    casstore cat base /etc/os-release
    casstore cat base /var/log/dpkg.log | grep upgrade
    casstore cat registry.example/team/disks:base /etc/passwd /etc/group""",
)
@snapshot_argument
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@trust_options()
@quiet_option
@connection_options
@click.pass_obj
@with_next_step()
def cat(session: Session, snapshot: str, paths: tuple[str, ...], trusted: Trusted, connection: Connection) -> None:
    """Write what is in files of a snapshot's disk to standard output, one after the other.

    Symlinks are followed, on the disk. Holes are written as zeros. On a terminal everything that is no text is escaped;
    into a file or a pipe all bytes go as they are.
    """
    from casstore.diskfiles import Kind, read_file

    trust = trust_of(session, trusted)
    write = _shown if session.settings.stdout_is_terminal else _written
    with open_any(session, snapshot, connection, trust) as opened:
        found = files_of(opened, snapshot)
        for path in paths:
            if found.find(os.fsencode(path)).kind is Kind.DIRECTORY:
                raise NotFound(
                    f"{opened.subject}: {path!r}: expected a file, got a directory; casstore files {snapshot}"
                    f" {path} lists it"
                )
            write(read_file(found, os.fsencode(path)))
        tell_traffic(session, opened)


def _written(parts: Iterable[bytes]) -> None:
    """Write bytes to standard output as they are."""
    out = sys.stdout.buffer
    for part in parts:
        out.write(part)
    out.flush()


def _shown(parts: Iterable[bytes]) -> None:
    """Write them for a terminal: the disk may be anybody's, and so what they would do to it."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for part in parts:
        _show_text(decoder.decode(part))
    _show_text(decoder.decode(b"", final=True))


def _show_text(text: str) -> None:
    lines = text.split("\n")
    click.echo("\n".join("\t".join(map(render.printable, line.split("\t"))) for line in lines), nl=False)


@verb(
    "cp",
    examples="""
    casstore cp base /etc/hosts .
    casstore cp base /var/log logs
    casstore cp base / rootfs
    casstore cp base /home/agent - | tar -t
    casstore cp registry.example/team/disks:base /usr/bin/python3 python3""",
)
@snapshot_argument
@click.argument("path")
@click.argument("destination", metavar="DEST", type=click.Path())
@click.option("--owners", is_flag=True, help="As root: keep owners, and with them set-uid and set-gid.")
@force_option("Replace files that are there; fill a directory that is there.")
@trust_options()
@quiet_option
@progress_option
@connection_options
@click.pass_obj
@with_next_step()
def cp(
    session: Session,
    snapshot: str,
    path: str,
    destination: str,
    owners: bool,
    force: bool,
    trusted: Trusted,
    connection: Connection,
) -> None:
    """Copy a file, or a directory with all that is in it, from a snapshot's disk to DEST; into DEST, where that is a
    directory. Writes the path of the copy.

    Permissions, times, holes, hard links and symlinks are kept, owners with --owners only. Devices, FIFOs and sockets
    are left out, and told. No name and no symlink of the disk leads out of DEST. A copy that fails leaves nothing of a
    new DEST.

    A DEST of - is standard output: a tar archive, with owners and all permissions, and holes as zeros.
    """
    from casstore.diskfiles import copy_out, tar_out

    if owners and destination != "-" and os.geteuid() != 0:
        raise UsageError("--owners: expected to run as root, who may give files away")
    if destination == "-":
        if owners or force:
            raise click.UsageError(f"{'--owners' if owners else '--force'}: expected a path as DEST, got -")
        session.refuse_terminal(output=True, subject="copy to")
    trust, start = trust_of(session, trusted), time.monotonic()
    wanted = os.fsencode(path)
    with open_any(session, snapshot, connection, trust) as opened:
        found = files_of(opened, snapshot)
        with session.progress() as progress:
            if destination == "-":
                copied = tar_out(found, wanted, sys.stdout.buffer.write, progress=progress)
                sys.stdout.buffer.flush()
            else:
                copied = copy_out(found, wanted, destination, force=force, owners=owners, progress=progress)
                session.emit(render.printable(copied.path))
        _tell_copied(session, path, copied, time.monotonic() - start)
        tell_traffic(session, opened)


def _tell_copied(session: Session, path: str, copied: CopiedOut, seconds: float) -> None:
    for left_out, what in copied.told[:_MOST_SAID]:
        session.warn(f"{render.printable(render.path_text(left_out))}: left out: {what}")
    if copied.skipped > _MOST_SAID:
        session.warn(f"and {copied.skipped - _MOST_SAID} more left out")
    counts = (
        render.count(copied.files, "file"),
        "1 directory" if copied.directories == 1 else f"{copied.directories} directories",
        render.count(copied.symlinks, "symlink"),
    )
    session.say(
        f"copied {render.printable(path)}: {', '.join(counts)}, {render.size(copied.content_bytes)},"
        f" {render.duration(seconds)}"
    )
