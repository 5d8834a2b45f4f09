"""undo: having back what was removed."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

import click

from casstore.cli import render
from casstore.cli.options import json_option, quiet_option, verb
from casstore.cli.session import Session
from casstore.errors import NotFound

if TYPE_CHECKING:
    from casstore.trash import RemovedRef


@verb(
    "undo",
    examples="""
    casstore undo
    casstore undo --list
    casstore undo --dry-run
    casstore undo after-pip --as saved""",
)
@click.argument("selector", required=False, metavar="[NAME|DIGEST]")
@click.option("--as", "rename", metavar="NAME", help="Give it this name, where the old one is in use again.")
@click.option("--list", "only_list", is_flag=True, help="Only show what can be taken back, the last removal first.")
@click.option("--dry-run", is_flag=True, help="Only say what would be taken back.")
@json_option
@quiet_option
@click.pass_context
def undo(ctx: click.Context, selector: str | None, rename: str | None, only_list: bool, dry_run: bool) -> None:
    """Take back the last rm or prune, with all the names that it removed; or the last removal of NAME.

    Done again, it takes back the one before. It works until the next casstore gc. What a name stood for that was taken
    over with -f can be had under another one: casstore undo NAME --as OTHER. So can a name that got lost.

    A damaged snapshot comes back as it is, to be repaired or salvaged. Where a manifest is missing, nothing can be
    taken back: the others are, and the exit code is 10.
    """
    session: Session = ctx.obj
    if only_list and (selector is not None or rename is not None or dry_run):
        raise click.UsageError("--list: expected no name and no other option with it, got one")
    with session.open_store() as store:
        found = [] if only_list else store.undo(selector, rename=rename, dry_run=dry_run)
        left = store.removed()
        used = {snapshot.name for snapshot in store.list()} if only_list else set()
    taken = [each for each in found if each.is_back]
    if session.as_json:
        taken_back = [{**render.removed(each.removed), "name": each.name} for each in taken]
        problems = [{"name": each.removed.name, "problem": each.problem} for each in found if each.problem]
        content = {"taken_back": taken_back, "removed": [render.removed(ref) for ref in left], "problems": problems}
        session.emit_document(dry_run=dry_run, **content)
    elif only_list:
        _show_removed(session, left, used)
    else:
        verb = "would stand" if dry_run else "stands"
        for each in taken:
            session.emit(each.name if session.quiet else f"{each.name} {verb} for {each.removed.digest}")
    for each in taken:
        if each.problem:
            session.warn(f"snapshot {each.name}: {each.problem}")
    lost = [each for each in found if not each.is_back]
    for each in lost:
        session.fail(f"undo {each.removed.name}: {each.problem}")
    ctx.exit(NotFound.exit_code if lost else 0)


def _show_removed(session: Session, removed: Sequence[RemovedRef], used: Container[str]) -> None:
    """One heading for each removal, with its names below."""
    if session.quiet:
        for ref in removed:
            session.emit(ref.name)
    elif not removed:
        session.say("Nothing was removed since the last casstore gc.")
    else:
        rows = [
            (ref.name, "" if ref.digest is None else ref.digest.short, "in use again" if ref.name in used else "")
            for ref in removed
        ]
        _, *lines = render.table(("", "", ""), rows)
        last = None
        for ref, line in zip(removed, lines, strict=True):
            if ref.stamp != last:
                session.emit(click.style(_heading(ref), bold=True))
            session.emit(f"  {line}")
            last = ref.stamp


def _heading(ref: RemovedRef) -> str:
    if ref.has_vanished:
        return "gone, though casstore did not remove it"
    return "removed" if ref.time is None else f"removed {render.clock(ref.time)} UTC"
