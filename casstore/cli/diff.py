"""diff: what differs between two snapshots."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from casstore.cli import differences
from casstore.cli.blockmap import draw, marks_for_output
from casstore.cli.connection import Connection, connection_options
from casstore.cli.damage import with_next_step
from casstore.cli.differences import Found
from casstore.cli.opening import open_any, tell_traffic
from casstore.cli.options import Verb, complete_names, gathered, json_option, progress_option, quiet_option
from casstore.cli.render import fields, path_text, printable
from casstore.cli.session import Session
from casstore.cli.trust import Trusted, trust_of, trust_options
from casstore.errors import NotFound, UnreadableFilesystem, UsageError

if TYPE_CHECKING:
    from casstore.artifact import Artifact
    from casstore.comparing.disks import DiskDifference
    from casstore.comparing.files import FileDifference
    from casstore.filesystem.reader import DiskReader
    from casstore.opened import Opened

DIFFERENT = 3
"""What --exit-code exits with where something differs."""
_LINES = 16
_PATHS = "casstore.cli.diff.paths"


class _WithPaths(Verb):
    """What stands after `--` are paths on the disks, and no snapshots."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        ctx.meta[_PATHS] = tuple(args[end + 1 :])
        return super().parse_args(ctx, args[:end])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- PATH...]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """What is to be shown."""

    stat: bool
    name_only: bool
    name_status: bool
    null: bool
    no_files: bool
    with_map: bool | None
    times: bool
    ranges: bool


_shown = gathered(
    _Shown,
    "shown",
    click.option("--stat", is_flag=True, help="Show the summary alone."),
    click.option("--name-only", is_flag=True, help="Show the paths of the files that differ, and nothing else."),
    click.option("--name-status", is_flag=True, help="Show A, D, M or T, a tab and the path of each, as git does."),
    click.option("-0", "--null", is_flag=True, help="End each of these with NUL, and write it as it is: for xargs -0."),
    click.option("--no-files", is_flag=True, help="Compare the disks only, and not the files on them."),
    click.option(
        "--map/--no-map",
        "with_map",
        default=None,
        help="Show a map of the disk, each character a part of it; shown where the output is a terminal.",
    ),
    click.option("--times", is_flag=True, help="Show also files of which nothing but the time has changed."),
    click.option("--ranges", is_flag=True, help="With --json: list the bytes that differ, as offset and length."),
)


@click.command(
    "diff",
    cls=_WithPaths,
    examples="""
    casstore diff base after-pip
    casstore diff after-pip
    casstore diff base after-pip --name-status -- /etc /usr/lib
    casstore diff base registry.example/team/disks:nightly --stat
    casstore diff base after-pip --json --ranges
    diff <(casstore cat base /etc/passwd) <(casstore cat after-pip /etc/passwd)""",
)
@click.argument("snapshots", metavar="[A] B", nargs=-1, required=True, shell_complete=complete_names)
@_shown
@click.option("--exit-code", is_flag=True, help=f"Exit with {DIFFERENT} where something differs, and with 0 else.")
@trust_options()
@json_option
@quiet_option
@progress_option
@connection_options
@click.pass_context
@with_next_step()
def diff(
    ctx: click.Context,
    snapshots: tuple[str, ...],
    shown: _Shown,
    exit_code: bool,
    trusted: Trusted,
    connection: Connection,
) -> None:
    """Show what differs between two snapshots, of the store or elsewhere; B alone is compared with its parent.

    The disks are compared byte by byte, where they do not have the same chunks. A block of 4 KiB that differs has been
    changed, added where A has a hole, or removed where B has one. Of the files on ext2, ext3 and ext4 it is told which
    were added (+), removed (-) and changed (~), and what about them: content, mode, owner, target or type. PATHs
    are those on the disks that are of interest, with all below them.

    Of what is elsewhere only what differs is fetched, and what tells so.
    """
    session: Session = ctx.obj
    paths: tuple[str, ...] = ctx.meta[_PATHS]
    _check(session, snapshots, shown, paths)
    trust = trust_of(session, trusted)
    with ExitStack() as stack:
        b = stack.enter_context(open_any(session, snapshots[-1], connection, trust))
        wanted = snapshots[0] if len(snapshots) > 1 else _parent(session, b)
        a = stack.enter_context(open_any(session, wanted, connection, trust))
        found = _compare(session, a, b, shown, paths)
        _show(session, found, shown)
        for name, opened in (("A: ", a), ("B: ", b)):
            tell_traffic(session, opened, name if a.elsewhere and b.elsewhere else "")
    differs = bool(found.files.count) if paths and found.files is not None else not found.same
    ctx.exit(DIFFERENT if exit_code and differs else 0)


def _check(session: Session, snapshots: tuple[str, ...], shown: _Shown, paths: tuple[str, ...]) -> None:
    """Refuse words that do not go together."""
    if len(snapshots) > 2:
        raise click.UsageError(f"expected one snapshot or two, got {len(snapshots)}; paths come after --")
    listing = [name for name in ("stat", "name_only", "name_status") if getattr(shown, name)]
    if len(listing) > 1:
        first, second = (f"--{name.replace('_', '-')}" for name in listing[:2])
        raise click.UsageError(f"{second}: does not go together with {first}")
    if shown.null and (session.as_json or not (shown.name_only or shown.name_status)):
        raise click.UsageError("--null: expected --name-only or --name-status with it, and no --json")
    if shown.ranges and not session.as_json:
        raise click.UsageError("--ranges: expected --json with it, got none")
    needs_files = [name for name in ("name_only", "name_status", "times") if getattr(shown, name)]
    if shown.no_files and (needs_files or paths):
        option = f"--{needs_files[0].replace('_', '-')}" if needs_files else "PATH"
        raise click.UsageError(f"{option}: does not go together with --no-files")


def _parent(session: Session, snapshot: Opened) -> str:
    """What selects the parent of a snapshot in the store of the run.

    Raises:
        UsageError: it has none.
        NotFound: it is not in the store.
    """
    parent = snapshot.artifact.config.parent
    advice = "name two to compare: casstore diff A B"
    if parent is None:
        raise UsageError(f"diff {snapshot.subject}: expected a snapshot with a parent, got one without; {advice}")
    with session.open_store() as store:
        try:
            if not snapshot.elsewhere:
                nearest = store.lineage(str(snapshot.digest))[0]
                return str(store.get(parent).digest if isinstance(nearest, str) else nearest.digest)
            return str(store.get(parent).digest)
        except NotFound:
            raise NotFound(
                f"diff {snapshot.subject}: expected its parent {parent} in the store, got none; pull it, or {advice}"
            ) from None


def _compare(session: Session, a: Opened, b: Opened, shown: _Shown, paths: tuple[str, ...]) -> Found:
    from casstore.comparing.disks import compare_disks
    from casstore.comparing.pairing import paired

    if len(a.artifact.map.disks) + len(b.artifact.map.disks) > 2:
        session.say("of a chain of several files the newest is compared")
    # What both have is read of one of them, and then rather not of one that has to be fetched.
    nearer = b if a.elsewhere else a
    artifacts = paired(a.artifact, b.artifact, nearer=nearer.artifact)
    with session.progress() as progress:
        disk = compare_disks(*artifacts, progress=progress)
    if shown.no_files:
        return Found(a, b, disk, None, None)
    try:
        return Found(a, b, disk, _compare_files((a, b), artifacts, disk, paths), None)
    except UnreadableFilesystem as error:
        if paths or shown.name_only or shown.name_status:
            raise
        return Found(a, b, disk, None, str(error))


def _compare_files(
    opened: tuple[Opened, Opened], artifacts: tuple[Artifact, Artifact], disk: DiskDifference, paths: tuple[str, ...]
) -> FileDifference:
    from casstore.comparing.files import compare_files
    from casstore.comparing.sharing import AlikeReader
    from casstore.storeddisk import StoredDisk

    a, b = (StoredDisk(artifact, artifact.map.newest) for artifact in artifacts)
    readers: tuple[DiskReader, DiskReader] = (a, AlikeReader(b, a, disk))
    if opened[0].elsewhere:
        readers = (AlikeReader(a, b, disk), b)
    files = [each.filesystem(reader=reader) for reader, each in zip(readers, opened, strict=True)]
    return compare_files(files[0], files[1], disk, paths=[os.fsencode(path) for path in paths])


def _show(session: Session, found: Found, shown: _Shown) -> None:
    if session.as_json:
        session.emit_document(**differences.document(found, ranges=shown.ranges))
        return
    if shown.name_only or shown.name_status:
        if found.files is not None:
            _write_names(session, differences.statuses(found.files, times=shown.times), shown)
        return
    session.emit("\n".join(fields(differences.fields(found))))
    if shown.stat:
        return
    if shown.with_map or (shown.with_map is None and session.settings.stdout_is_terminal):
        session.emit("")
        for line in _map(found):
            session.emit(line)
    if found.files is not None:
        for n, line in enumerate(differences.file_lines(found.files, times=shown.times)):
            session.emit(line if n else f"\n{line}")


def _write_names(session: Session, found: Sequence[tuple[bytes, str]], shown: _Shown) -> None:
    """Paths, each alone or after what happened to it; with --null as git does it with -z."""
    if not shown.null:
        for path, status in found:
            text = printable(path_text(path))
            session.emit(text if shown.name_only else f"{status}\t{text}")
        return
    out = sys.stdout.buffer
    for path, status in found:
        out.write((b"" if shown.name_only else status.encode() + b"\0") + path + b"\0")
    out.flush()


def _map(found: Found) -> list[str]:
    from casstore.comparing.blockmap import block_map

    width = max(8, shutil.get_terminal_size().columns)
    a, b = (opened.artifact.map.newest.extents for opened in (found.a, found.b))
    cells = block_map(found.disk, a, b, width * _LINES)
    return list(draw(cells, width=width, marks=marks_for_output()))
