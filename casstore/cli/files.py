"""files: what is on the disk of a snapshot, without restoring it."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from casstore.cli import render
from casstore.cli.connection import Connection, connection_options
from casstore.cli.damage import with_next_step
from casstore.cli.opening import files_of, open_any, snapshot_argument, tell_traffic
from casstore.cli.options import gathered, json_option, quiet_option, verb
from casstore.cli.session import Session
from casstore.cli.trust import Trusted, trust_of, trust_options
from casstore.errors import UnreadableFilesystem

if TYPE_CHECKING:
    from casstore.diskfiles import FileEntry
    from casstore.filesystem.ext import ExtFilesystem
    from casstore.opened import Opened

_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HEAD = ("MODE", "UID", "GID", "SIZE", "MODIFIED (UTC)", "NAME")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """How names are to be shown."""

    long: bool
    recursive: bool
    sha256: bool
    null: bool


_listing_options = gathered(
    _Listed,
    "listed",
    click.option("-l", "--long", is_flag=True, help="Show mode, owner, size and time as well."),
    click.option("-R", "--recursive", is_flag=True, help="Go into all directories; names are paths from PATH on then."),
    click.option(
        "--sha256",
        is_flag=True,
        help="Show the digest of what is in each regular file; and without --long, of nothing else than these.",
    ),
    click.option("-0", "--null", is_flag=True, help="End each name with NUL, and write it as it is: for xargs -0."),
)


@verb(
    "files",
    examples="""
    casstore files base
    casstore files base /etc -l
    casstore files base /var/log -R --json
    casstore files base -R --sha256 | sha256sum --check --quiet     # in another copy of the disk's files
    casstore files registry.example/team/disks:base /etc --key release.pub""",
)
@snapshot_argument
@click.argument("path", required=False, default="/")
@_listing_options
@trust_options()
@json_option
@quiet_option
@connection_options
@click.pass_context
@with_next_step()
def files(
    ctx: click.Context, snapshot: str, path: str, listed: _Listed, trusted: Trusted, connection: Connection
) -> None:
    """List the files of a snapshot's disk: what is in the directory PATH, / if none is given, or one file.

    Directories have a "/" behind them. PATH may be a symlink to a directory. What no terminal should show is escaped,
    as \\u001b; --null writes every byte, and --json too, where bytes that are no UTF-8 are \\udc80 to \\udcff.

    With --sha256 the lines are those of sha256sum. With --json all is shown of every file, and the digest if asked for.

    The file system must be ext2, ext3 or ext4. Of a snapshot that is elsewhere only what is looked at is fetched. What
    is damaged or encrypted on the disk is told and passed over, and the exit code is 16 then.
    """
    session: Session = ctx.obj
    if listed.null and (listed.long or session.as_json):
        raise click.UsageError("--null: expected neither --long nor --json with it")
    if listed.long and session.as_json:
        raise click.UsageError("--long: expected no --json with it, which shows all of it")
    trust = trust_of(session, trusted)
    with open_any(session, snapshot, connection, trust) as opened:
        told = _show_files(session, opened, files_of(opened, snapshot), path, listed)
        tell_traffic(session, opened)
    ctx.exit(UnreadableFilesystem.exit_code if told else 0)


def _show_files(session: Session, opened: Opened, found: ExtFilesystem, path: str, listed: _Listed) -> bool:
    """Whether there was something that cannot be read."""
    from casstore.diskfiles import list_files

    problems: list[str] = []

    def tell(error: UnreadableFilesystem) -> None:
        problems.append(str(error))
        session.fail(str(error))

    entries = list_files(found, os.fsencode(path), recursive=listed.recursive, unreadable=tell)
    rows = _with_digests(found, entries, listed, tell)
    if session.as_json:
        _write_json(session, opened, path, rows, problems)
    elif listed.long:
        _write_long(session, rows, path, listed)
    else:
        _write_names(session, rows, path, listed)
    return bool(problems)


def _with_digests(
    found: ExtFilesystem,
    entries: Iterable[FileEntry],
    listed: _Listed,
    tell: Callable[[UnreadableFilesystem], None],
) -> Iterator[tuple[FileEntry, str | None]]:
    """Each entry with the digest of its content, where that is wanted and there is one."""
    from casstore.diskfiles import Kind, digest_file

    for entry in entries:
        digest = None
        if listed.sha256 and entry.kind is Kind.FILE:
            try:
                digest = digest_file(found, entry)
            except UnreadableFilesystem as error:
                tell(error)
        yield entry, digest


def _write_names(session: Session, rows: Iterable[tuple[FileEntry, str | None]], path: str, listed: _Listed) -> None:
    out = sys.stdout.buffer
    for entry, digest in rows:
        name = _name(entry, path, listed)
        if digest is None and listed.sha256:
            continue
        if listed.null:
            out.write((b"" if digest is None else f"{digest}  ".encode()) + name + b"\0")
        else:
            text = render.path_text(name)
            session.emit(render.printable(text) if digest is None else _sum_line(digest, text))
    out.flush()


def _name(entry: FileEntry, path: str, listed: _Listed) -> bytes:
    """What to call a file: its name, or the way to it from the directory that was asked for."""
    from casstore.diskfiles import clean_path

    top = clean_path(os.fsencode(path))
    if entry.path == top and not entry.is_directory:
        return os.fsencode(path)
    name = entry.path[len(top.rstrip(b"/")) + 1 :] if listed.recursive else entry.name
    return name + b"/" if entry.is_directory else name


def _sum_line(digest: str, name: str) -> str:
    """A line as sha256sum writes it: a name with a backslash or line break is escaped, which a backslash tells."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{digest}  {render.printable(escaped)}"


def _write_long(session: Session, rows: Iterable[tuple[FileEntry, str | None]], path: str, listed: _Listed) -> None:
    head = _long_line(_HEAD, "SHA256" if listed.sha256 else None)
    session.emit(click.style(head, bold=True))
    for entry, digest in rows:
        name = render.path_text(_name(entry, path, listed))
        target = "" if entry.target is None else f" -> {render.path_text(entry.target)}"
        cells = (
            stat.filemode(entry.kind.value | entry.mode),
            str(entry.uid),
            str(entry.gid),
            render.size(entry.size),
            render.clock(_EPOCH + timedelta(seconds=entry.mtime_ns // _NS)),
            name + target,
        )
        session.emit(_long_line(cells, (digest or "-") if listed.sha256 else None))


def _long_line(cells: tuple[str, ...], digest: str | None) -> str:
    mode, uid, gid, size, time_, name = map(render.printable, cells)
    between = "" if digest is None else f"{digest:<64}    "
    return f"{mode:<10}  {uid:>6}  {gid:>6}  {size:>10}    {time_:<19}    {between}{name}"


def _write_json(
    session: Session,
    opened: Opened,
    path: str,
    rows: Iterable[tuple[FileEntry, str | None]],
    problems: list[str],
) -> None:
    """One document; it is written as it is made, as there may be a million files."""
    documents = (_document(entry, digest) for entry, digest in rows)
    head = {"subject": opened.subject, "digest": str(opened.digest), "path": path}
    if session.template is not None:
        session.emit_document(**head, files=documents, problems=problems)
        return
    opening = render.document(**head).removesuffix("\n}")
    click.echo(f'{opening},\n  "files": [', nl=False)
    between = "\n    "
    for document in documents:
        click.echo(between + json.dumps(document), nl=False)
        between = ",\n    "
    session.emit(f'\n  ],\n  "problems": {json.dumps(problems)}\n}}')


def _document(entry: FileEntry, digest: str | None) -> dict[str, Any]:
    return {
        "path": render.path_text(entry.path),
        "type": str(entry.kind),
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size_bytes": entry.size,
        "mtime": _time(entry.mtime_ns),
        "target": None if entry.target is None else render.path_text(entry.target),
        "inode": entry.inode,
        "links": entry.links,
        "sha256": digest,
    }


def _time(mtime_ns: int) -> str:
    """RFC 3339, to the nanosecond."""
    seconds, nanoseconds = divmod(mtime_ns, _NS)
    return f"{(_EPOCH + timedelta(seconds=seconds)).strftime('%Y-%m-%dT%H:%M:%S')}.{nanoseconds:09}Z"
