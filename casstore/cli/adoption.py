"""adopt: making snapshots of what other OCI tools have put into the store."""

from __future__ import annotations

import click

from casstore.cli import render
from casstore.cli.options import json_option, quiet_option, verb
from casstore.cli.session import Session
from casstore.errors import CorruptContent


@verb(
    "adopt",
    examples="""
    casstore adopt --dry-run
    casstore adopt
    casstore adopt --drop""",
)
@click.option("--drop", is_flag=True, help="Take what cannot be adopted out of index.json; gc then frees it.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_option
@quiet_option
@click.pass_context
def adopt(ctx: click.Context, drop: bool, dry_run: bool) -> None:
    """Give names to the snapshots that other tools have put here, as skopeo or umoci.

    Each is verified as a pull would, and keeps the name that the other tool gave it. One without, or whose name is
    taken, gets one that starts with adopted-, unless it has a name here already. What is no snapshot, is damaged, or
    has a name that no snapshot can have stays in index.json, and gc keeps it, until --drop. Exit code 12 if something
    was damaged.

    Who may only read the store can still ask with --dry-run, which takes no lock: another command may change the answer
    meanwhile.
    """
    session: Session = ctx.obj
    with session.open_store() as store:
        report = store.adopt(drop=drop, dry_run=dry_run)
    code = CorruptContent.exit_code if any(each.damaged for each in report.left) else 0
    if session.as_json:
        session.emit_document(
            dry_run=report.dry_run,
            adopted=[{"name": each.name, "digest": str(each.digest)} for each in report.adopted],
            left=[
                {"name": each.name, "digest": each.digest, "reason": each.reason, "damaged": each.damaged}
                for each in report.left
            ],
            drop=report.drop,
        )
        ctx.exit(code)
    for snapshot in report.adopted:
        session.emit(snapshot.name)
    would = "would be " if dry_run else ""
    session.say(f"{would}adopted: {render.count(len(report.adopted), 'snapshot')}")
    fate = f"{would}taken out of index.json" if report.drop else f"{would}left in index.json, and kept"
    for entry in report.left:
        session.warn(f"{render.printable(entry.name or entry.digest)}: {fate}: {entry.reason}")
    ctx.exit(code)
