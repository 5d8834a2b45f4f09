"""gc and reindex: looking after the store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from casstore import units
from casstore.cli import render
from casstore.cli.options import json_option, quiet_option, read_as, verb
from casstore.cli.session import Session
from casstore.errors import NotFound

if TYPE_CHECKING:
    from casstore.trash import RemovedRef

_DROPPED = {
    False: "removed for good: {names}; casstore undo does not take {them} back any more",
    True: "removed already: {names}; casstore undo could not take {them} back any more",
}
_KEPT = "removed, and kept for now: {names}; casstore undo takes {them} back"
_UNTIL = "; a gc with the same --keep-trash lets the first go after {until} UTC"


@verb(
    "gc",
    examples="""
    casstore gc --dry-run
    casstore gc
    casstore gc --keep-trash 7d""",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option(
    "--keep-trash",
    metavar="DURATION",
    callback=read_as(units.parse_age),
    help="Keep what was removed in this time, as 7d, 36h or 1mo: casstore undo can still take it back.",
)
@json_option
@quiet_option
@click.pass_obj
def gc(session: Session, dry_run: bool, keep_trash: float | None) -> None:
    """Free the space of what no snapshot needs any more.

    Safe at any time: what running commands rely on is kept, and so is what other tools added to index.json. What was
    removed cannot be taken back afterwards, but for what --keep-trash keeps.

    Who may only read the store can still ask with --dry-run. No lock is taken then: what changes meanwhile, and what
    interrupted commands left, is not counted. With -q: warnings only.
    """
    with session.open_store() as store:
        report = store.gc(dry_run=dry_run, keep_trash=keep_trash)
    if session.as_json:
        session.emit_document(
            dry_run=report.dry_run,
            removed=[str(digest) for digest in report.removed],
            freed_bytes=report.freed,
            kept=report.kept,
            foreign=report.foreign,
            unknown=list(report.unknown),
            dead_operations=report.dead_operations,
            dropped=[render.removed(ref) for ref in report.dropped],
            kept_removed=[render.removed(ref) for ref in report.kept_removed],
        )
        return
    verbs = "would remove" if dry_run else "removed"
    what = render.count(len(report.removed), "blob")
    if report.dead_operations:
        what += f" and what {render.count(report.dead_operations, 'interrupted command')} left"
    if not session.quiet:
        session.emit(f"{verbs} {what}, {render.size(report.freed)}; {report.kept} kept")
    for refs, text in ((report.dropped, _DROPPED[dry_run]), (report.kept_removed, _KEPT)):
        if refs:
            told = text.format(names=render.some([ref.name for ref in refs]), them=render.them(len(refs)))
            session.say(told + (_until(refs, keep_trash) if text is _KEPT else ""))
    if report.foreign:
        session.warn(f"index.json: {_entries(report.foreign)} that another tool added; kept: see casstore adopt")
    for name in report.unknown:
        session.warn(f"blobs/sha256/{name}: not a blob; left alone")


def _until(kept: Sequence[RemovedRef], keep_trash: float | None) -> str:
    """How long what was removed is kept."""
    times = [ref.time for ref in kept if ref.time is not None]
    if not times or keep_trash is None:
        return ""
    with contextlib.suppress(OverflowError):
        return _UNTIL.format(until=render.clock(min(times) + timedelta(seconds=keep_trash)))
    return ""


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number} entries"


@verb("reindex", examples="casstore reindex")
@click.argument("path", required=False, type=click.Path())
@click.pass_obj
def reindex(session: Session, path: str | None) -> None:
    """Make the catalog anew, from the store's names; of the store at PATH, if given.

    Never needed in normal use: the catalog follows the names by itself. Artifact directories of microsandbox come in
    with casstore import DIR.
    """
    with session.open_store() as store:
        try:
            number = store.reindex(path)
        except NotFound as error:
            if path is not None and os.path.isdir(path):
                error.add_note(f"artifacts of microsandbox come in with casstore import {path}")
            raise
        session.emit(f"indexed {render.count(number, 'snapshot')} from {render.printable(path or store.path)}")
        for problem in store.problems():
            session.warn(f"snapshot {problem.name}: {problem.problem}")
