"""gc and reindex: looking after the store."""

from __future__ import annotations

import click

from casstore.cli import render
from casstore.cli.options import json_option, verb
from casstore.cli.session import Session


@verb(
    "gc",
    examples="""
    casstore gc --dry-run
    casstore gc""",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@json_option
@click.pass_obj
def gc(session: Session, dry_run: bool) -> None:
    """Free the space of what no snapshot needs any more.

    Safe at any time: what running commands rely on is kept, and so is what other tools added to index.json.
    """
    with session.open_store() as store:
        report = store.gc(dry_run=dry_run)
    if session.as_json:
        session.emit(
            render.document(
                dry_run=report.dry_run,
                removed=[str(digest) for digest in report.removed],
                freed_bytes=report.freed,
                kept=report.kept,
                foreign=report.foreign,
                unknown=list(report.unknown),
                dead_operations=report.dead_operations,
            )
        )
        return
    verbs = "would remove" if dry_run else "removed"
    what = render.count(len(report.removed), "blob")
    if report.dead_operations:
        what += f" and what {render.count(report.dead_operations, 'interrupted command')} left"
    session.emit(f"{verbs} {what}, {render.size(report.freed)}; {report.kept} kept")
    if report.foreign:
        session.warn(f"index.json: {_entries(report.foreign)} that another tool added; kept, with what they need")
    for name in report.unknown:
        session.warn(f"blobs/sha256/{name}: not a blob; left alone")


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number} entries"


@verb("reindex", examples="casstore reindex")
@click.argument("path", required=False, type=click.Path())
@click.pass_obj
def reindex(session: Session, path: str | None) -> None:
    """Make the catalog anew, from the store's names; of the store at PATH, if given.

    Never needed in normal use: the catalog follows the names by itself.
    """
    with session.open_store() as store:
        number = store.reindex(path)
        session.emit(f"indexed {render.count(number, 'snapshot')} from {render.printable(path or store.path)}")
        for problem in store.problems():
            session.warn(f"snapshot {problem.name}: {problem.problem}")
