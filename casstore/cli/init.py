"""init: making an empty store."""

from __future__ import annotations

import click

from casstore.cli.options import verb
from casstore.cli.render import printable
from casstore.cli.session import Session


@verb(
    "init",
    examples="""
    casstore init
    casstore --store /srv/snapshots init --shared""",
)
@click.option("--shared", is_flag=True, help="Let other users read it; only you can change it.")
@click.pass_obj
def init(session: Session, shared: bool) -> None:
    """Make an empty store, for you alone unless you share it.

    create and pull make the store, too, when it is missing. Of one that is there only who may read it is changed,
    and only by --shared.
    """
    with session.open_store(create=True, share=shared) as store:
        session.emit(printable(store.path))
