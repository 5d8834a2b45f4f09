"""init: making an empty store."""

from __future__ import annotations

import click

from casstore.cli.options import json_option, quiet_option, verb
from casstore.cli.render import printable
from casstore.cli.session import Session


@verb(
    "init",
    examples="""
    casstore init
    casstore --store /srv/snapshots init --shared""",
)
@click.option("--shared", is_flag=True, help="Let other users read it; only you can change it.")
@json_option
@quiet_option
@click.pass_obj
def init(session: Session, shared: bool) -> None:
    """Make an empty store, for you alone unless you share it.

    An empty directory of yours that is there is closed to others, too. create, import and pull also make it when it is
    missing, but leave the mode of a directory that is there as it is. Of a store that is there only who may read it is
    changed, and only by --shared.
    """
    from casstore.permissions import is_open

    with session.make_store(share=shared) as store:
        is_new, mode = store.is_new, store.mode
    if session.as_json:
        session.emit_document(path=store.path, made=is_new, mode=f"{mode:04o}")
        return
    session.emit(printable(store.path))
    state = "made" if is_new else "it was there already"
    who = "others can read it" if is_open(mode) else "only its owner can read it"
    session.say(f"{state}: mode {mode:04o}, {who}")
