"""report: the store as a page of HTML."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from casstore.cli import render
from casstore.cli.options import complete_names, force_option, progress_option, quiet_option, verb
from casstore.cli.session import Session


@verb(
    "report",
    examples="""
    casstore report snapshots.html
    casstore report snapshots.html -f --title "Build machines"
    casstore report changes.html --pair base after-pip
    casstore report - > snapshots.html""",
)
@click.argument("destination", metavar="OUT.html|-", type=click.Path())
@click.option(
    "--pair",
    nargs=2,
    metavar="A B",
    shell_complete=complete_names,
    help="The snapshots whose disks are compared [else the newest that has its parent here, and that].",
)
@click.option("--title", metavar="TEXT", default="Snapshots", show_default=True, help="What stands on top.")
@force_option("Replace a file that is there.")
@progress_option
@quiet_option
@click.pass_obj
def report(session: Session, destination: str, pair: tuple[str, str] | None, title: str, force: bool) -> None:
    """Write a page about the store: what it holds, how it grew, where the space is, and what changed.

    One file of HTML, with nothing outside it and nothing loaded: to keep, to send, to open anywhere. It has the names,
    images and labels of the snapshots, and no content. Writes the path; to - the page itself.
    """
    from casstore import durable
    from casstore.report import render_report

    if destination == "-":
        session.refuse_terminal(output=True, subject="report to")
    now = datetime.now(UTC).replace(microsecond=0)
    with session.open_store() as store, session.progress() as progress:
        text = render_report(store, pair=pair, now=now, title=title, progress=progress)
        problems = store.problems()
    for problem in problems:
        session.warn(f"snapshot {problem.name}: {problem.problem}")
    if destination == "-":
        session.emit(text.removesuffix("\n"))
        return
    with durable.new_file(destination, replace=force, durability=session.durability) as fd:
        durable.write_all(fd, text.encode())
    session.emit(render.printable(destination))
