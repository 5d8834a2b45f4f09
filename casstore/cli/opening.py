"""Opens the snapshot that a verb is to look into: one of the store, or one that is elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import click

from casstore.cli import render
from casstore.cli.connection import Connection, Registries
from casstore.cli.options import complete_names
from casstore.cli.remotes import is_reference
from casstore.cli.session import Session
from casstore.errors import UnreadableFilesystem

if TYPE_CHECKING:
    from casstore.filesystem.ext import ExtFilesystem
    from casstore.opened import Opened
    from casstore.trust.trust import Trust

F = TypeVar("F", bound=Callable[..., object])


def snapshot_argument(function: F) -> F:
    """The snapshot to look into, as `snapshot`."""
    return click.argument("snapshot", metavar="SNAPSHOT|REFERENCE", shell_complete=complete_names)(function)


@contextmanager
def open_any(session: Session, wanted: str, connection: Connection, trust: Trust | None) -> Iterator[Opened]:
    """The snapshot that `wanted` selects in the store of the run, or where it is as a REFERENCE; of that only what is
    looked at is fetched, after it was found to be signed as `trust` wants it. What is in the store already was judged
    when it came in: only keys that this run names count for it.

    Raises:
        NotFound: there is none.
        UntrustedContent: it is not signed as it must be.
    """
    if not is_reference(wanted):
        named = replace(trust, policy=None) if trust is not None and trust.keys else None
        with session.open_store() as store, store.look_into(wanted, named) as opened:
            yield opened
        return
    from casstore.opened import open_remote
    from casstore.storedir import StoreDirectory
    from casstore.transfer import TransferOptions

    options = TransferOptions(Registries(session, connection), trust=trust)
    memory = None
    if trust is not None and trust.policy is not None and os.path.isdir(session.settings.store):
        memory = StoreDirectory.looked_at(session.settings.store, session.store_options)
    with open_remote(wanted, options, stores=session.store_options, memory=memory) as opened:
        yield opened


def files_of(opened: Opened, wanted: str) -> ExtFilesystem:
    """The file system of a snapshot that a command has named.

    Raises:
        UnreadableFilesystem: there is none that can be read here; with what to do.
    """
    try:
        return opened.filesystem()
    except UnreadableFilesystem as error:
        first = "casstore pull, then " if is_reference(wanted) else ""
        if "restore it" not in str(error):
            error.add_note(f"{first}casstore restore writes the disk to a file, which can be mounted")
        raise


def tell_traffic(session: Session, opened: Opened, prefix: str = "") -> None:
    """Say what was fetched of a snapshot that is elsewhere; `prefix` says of which, where there are several."""
    if opened.elsewhere:
        traffic = opened.traffic
        session.say(
            f"{prefix}fetched {render.size(traffic.bytes)} in {render.count(traffic.requests, 'request')},"
            f" of {render.size(opened.stored_bytes)} stored"
        )
