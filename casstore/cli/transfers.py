"""push, pull and copy: snapshots to and from registries and OCI layouts, and between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import click

from casstore.cli import render
from casstore.cli.connection import Connection, Registries, connection_options, refuse_for_http
from casstore.cli.damage import with_next_step
from casstore.cli.failures import stopping
from casstore.cli.moved import tell_plans, tell_transfers
from casstore.cli.options import (
    complete_names,
    complete_places,
    force_option,
    gathered,
    json_option,
    progress_option,
    quiet_option,
    verb,
    workers_option,
)
from casstore.cli.session import Session
from casstore.cli.signing import Signer, signer_options, tell_signed
from casstore.cli.trust import Trusted, trust_of, trust_options
from casstore.errors import NotFound

if TYPE_CHECKING:
    from casstore.graph import Plan
    from casstore.reference import Reference
    from casstore.store import Store
    from casstore.transfer import TransferOptions
    from casstore.trust.trust import Trust

F = TypeVar("F", bound=Callable[..., object])

DEFAULT_CONCURRENCY = 4
"""As graph.DEFAULT_CONCURRENCY."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What push, pull and copy have in common."""

    concurrency: int
    referrers: bool
    dry_run: bool


def transfer_options(function: F) -> F:
    """How to transfer, and how to reach registries: gives the function a Transfer and a Connection."""
    transfer = gathered(
        Transfer,
        "transfer",
        click.option("--dry-run", is_flag=True, help="Only show which blobs would be moved, and how many bytes."),
        click.option("--referrers", is_flag=True, help="Also copy what refers to it, as signatures, and to that."),
        click.option(
            "--concurrency",
            type=click.IntRange(1, 64),
            default=DEFAULT_CONCURRENCY,
            show_default=True,
            metavar="N",
            help="Blobs moved at the same time.",
        ),
    )
    return transfer(connection_options(function))


def _library_options(registries: Registries, transfer: Transfer, trust: Trust | None = None) -> TransferOptions:
    from casstore.transfer import TransferOptions

    return TransferOptions(registries, transfer.concurrency, transfer.referrers, trust)


@verb(
    "push",
    examples="""
    casstore push base registry.example/team/disks:base
    casstore push base oci:/media/backup:base
    casstore push base 127.0.0.1:5000/disks --plain-http
    casstore push after-pip registry.example/team/disks --with-parents
    casstore push base registry.example/team/disks --sign release.key
    casstore push --all registry.example/team/disks --dry-run""",
)
@click.argument("snapshot", required=False, shell_complete=complete_names)
@click.argument("reference", required=False, shell_complete=complete_places)
@click.option("--all", "everything", is_flag=True, help="Push all that is in the store, each under all its names.")
@click.option("--with-parents", is_flag=True, help="Push first what it comes from, as far as that is in the store.")
@click.option(
    "--mount-from",
    multiple=True,
    metavar="REPO",
    help="A repository of the same registry that may have some of it, to be taken from there; may be given several"
    " times.",
)
@signer_options("--sign", required=False, heading="Signing")
@transfer_options
@progress_option
@json_option
@quiet_option
@click.pass_obj
@with_next_step()
def push(
    session: Session,
    snapshot: str | None,
    reference: str | None,
    everything: bool,
    with_parents: bool,
    mount_from: tuple[str, ...],
    signer: Signer,
    transfer: Transfer,
    connection: Connection,
) -> None:
    """Copy a snapshot to a registry or an OCI layout.

    What is there already is not sent. Without a tag in REFERENCE the name here becomes the tag. Writes the reference
    with the digest, which stands for just this content forever.

    With --sign all that is pushed is signed before, for the repository that it goes to. The signatures are there before
    the tag is, and are kept in the store, too. A --dry-run signs nothing.
    """
    if everything:
        if with_parents:
            raise click.UsageError("--all: pushes all parents anyway; leave out --with-parents")
        if reference is not None:
            raise click.UsageError("--all: expected only a REFERENCE with it, got a SNAPSHOT too")
        snapshot, reference = "", snapshot
    if snapshot is None or reference is None:
        raise click.UsageError("expected SNAPSHOT and REFERENCE, or --all and REFERENCE")
    signer.require_key("--sign")
    options = _library_options(Registries(session, connection, mount_from=mount_from), transfer)
    signing = signer.signing(session) if signer.key and not transfer.dry_run else None
    start = time.monotonic()
    with session.open_store() as store:
        if transfer.dry_run:
            if everything:
                plans = store.plan_push_all(reference, options=options)
            else:
                plans = store.plan_push(snapshot, reference, with_parents=with_parents, options=options)
            tell_plans(session, plans)
            return
        with session.progress() as progress, stopping("finished blobs are not sent again by the next push"):
            if everything:
                reports = store.push_all(reference, signing=signing, options=options, progress=progress)
            else:
                report = store.push(
                    snapshot,
                    reference,
                    with_parents=with_parents,
                    signing=signing,
                    options=options,
                    progress=progress,
                )
                reports = [*report.parents, report]
        staying = 0 if everything or transfer.referrers or signing else _signatures(store, snapshot)
    tell_transfers(session, "pushed", reports, time.monotonic() - start, everything=everything)
    if signing is not None:
        from casstore.reference import parse_reference

        names = [report.name for report in reports]
        keys = [key.public.name for key in signing.keys]
        tell_signed(session, render.some(names), keys, signing.repository_at(parse_reference(reference)))
    if staying:
        session.say(f"{render.count(staying, 'signature')} of {snapshot} stayed here; push --referrers takes all along")


def _signatures(store: Store, snapshot: str) -> int:
    """How many signatures a snapshot of the store has."""
    from casstore.oci import is_bundle

    return sum(is_bundle(each.artifact_type) for each in store.referrers(snapshot))


@verb(
    "pull",
    examples="""
    casstore pull registry.example/team/disks:base
    casstore pull registry.example/team/disks@sha256:1f00... --name base
    casstore pull oci:/media/backup:base
    casstore pull registry.example/team/disks:base --key release.pub --no-rollback
    casstore pull registry.example/team/disks:base --limit-rate 10MiB/s --deadline 2h""",
)
@click.argument("reference", shell_complete=complete_places)
@click.option("--name", metavar="NAME", help="The name to give it; the tag, if there is one.")
@force_option("Let the name stand for this snapshot if it stands for another.")
@trust_options(rollback=True)
@transfer_options
@workers_option
@progress_option
@json_option
@quiet_option
@click.pass_obj
def pull(
    session: Session,
    reference: str,
    name: str | None,
    force: bool,
    trusted: Trusted,
    transfer: Transfer,
    connection: Connection,
    workers: int | None,
) -> None:
    """Copy a snapshot from a registry or an OCI layout, and verify all of it.

    What is here already is not fetched; that includes the finished blobs of a pull that was interrupted. Writes the
    reference with the digest.

    With --key, or a policy, nothing is fetched but the manifest and its signatures until they are the wanted ones; else
    it is refused, with exit code 13. These signatures come along. A tag that stands for something older than at the
    last pull is told, or with --no-rollback refused.
    """
    trust = trust_of(session, trusted)
    options = _library_options(Registries(session, connection), transfer, trust)
    start = time.monotonic()
    if transfer.dry_run:
        tell_plans(session, [_plan_pull(session, reference, name, options, force=force)])
        return
    advice = "the blobs that were finished are kept for the next pull"
    with session.open_store(create=True) as store, session.progress() as progress, stopping(advice):
        report = store.pull(reference, name=name, force=force, options=options, workers=workers or 0, progress=progress)
    session.tell_taken_over(store)
    tell_transfers(session, "pulled", [report], time.monotonic() - start, trust=trust)


def _plan_pull(session: Session, text: str, name: str | None, options: TransferOptions, *, force: bool) -> Plan:
    """What a pull would move; where there is no store yet, none is made."""
    from casstore.reference import LayoutReference, parse_reference
    from casstore.remote import plan_copy
    from casstore.transfer import pull_name

    try:
        store = session.open_store()
    except NotFound:
        reference = parse_reference(text)
        there = LayoutReference(session.settings.store, pull_name(reference, name))
        return plan_copy(reference, there, options)
    with store:
        return store.plan_pull(text, name=name, force=force, options=options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """What holds for one of the two places of a copy only."""

    src_plain_http: bool
    dst_plain_http: bool
    src_insecure: bool
    dst_insecure: bool


side_options: Callable[[F], F] = gathered(
    Sides,
    "sides",
    click.option("--src-plain-http", is_flag=True, help="Use http instead of https, for SRC only."),
    click.option("--dst-plain-http", is_flag=True, help="Likewise for DST."),
    click.option("--src-insecure", is_flag=True, help="Do not check the registry's certificate, of SRC only."),
    click.option("--dst-insecure", is_flag=True, help="Likewise of DST."),
)


@verb(
    "copy",
    examples="""
    casstore copy registry.example/team/disks:base mirror.example/disks:base --referrers
    casstore copy registry.example/team/disks:base oci:/media/usb:base
    casstore copy oci:/media/usb:base 127.0.0.1:5000/disks --dst-plain-http --dry-run""",
)
@click.argument("source", metavar="SRC", shell_complete=complete_places)
@click.argument("destination", metavar="DST", shell_complete=complete_places)
@side_options
@trust_options()
@transfer_options
@progress_option
@json_option
@quiet_option
@click.pass_obj
def copy(
    session: Session,
    source: str,
    destination: str,
    sides: Sides,
    trusted: Trusted,
    transfer: Transfer,
    connection: Connection,
) -> None:
    """Copy between any two of registry and OCI layout, with no store here.

    Every byte passes through, none is kept, and the digest stays. Besides snapshots, any other image or artifact of
    OCI's can be copied. Without a tag in DST that of SRC is taken. Writes the new reference with the digest.

    With --key, or a policy, SRC must be signed as that wants it, and these signatures are copied along.
    """
    from casstore.places import names_store
    from casstore.reference import LayoutReference, parse_reference
    from casstore.remote import copy as copy_between
    from casstore.remote import plan_copy

    src, dst = parse_reference(source), parse_reference(destination)
    _refuse_for_http(connection, sides, src, dst)
    registries = Registries(
        session,
        connection,
        plain_http=_hosts((src, sides.src_plain_http), (dst, sides.dst_plain_http)),
        insecure=_hosts((src, sides.src_insecure), (dst, sides.dst_insecure)),
    )
    # A layout may have come on a medium that somebody else wrote: a policy there is nobody's.
    into = (dst.path,) if isinstance(dst, LayoutReference) and names_store(dst) else ()
    trust = trust_of(session, trusted, *into, session.settings.store)
    options, stores = _library_options(registries, transfer, trust), session.store_options
    start = time.monotonic()
    if transfer.dry_run:
        tell_plans(session, [plan_copy(src, dst, options, stores=stores)])
        return
    with session.progress() as progress, stopping("finished blobs are not sent again by the next copy"):
        report = copy_between(src, dst, options, progress=progress, stores=stores)
    tell_transfers(session, "copied to", [report], time.monotonic() - start, trust=trust)


def _hosts(*sides: tuple[Reference, bool]) -> set[str]:
    """The hosts of the references that are marked."""
    from casstore.reference import RegistryReference

    return {side.host for side, marked in sides if marked and isinstance(side, RegistryReference)}


def _refuse_for_http(connection: Connection, sides: Sides, src: Reference, dst: Reference) -> None:
    """Raise UsageError for options about certificates of which no registry that is spoken to over https has a use."""
    given = {
        "--plain-http": connection.plain_http,
        "--src-plain-http": sides.src_plain_http,
        "--dst-plain-http": sides.dst_plain_http,
    }
    places = _hosts((src, True), (dst, True))
    plain = places if connection.plain_http else _hosts((src, sides.src_plain_http), (dst, sides.dst_plain_http))
    useless = list(connection.for_https) if places <= plain else []
    useless += ["--src-insecure"] if _hosts((src, sides.src_insecure)) & plain else []
    useless += ["--dst-insecure"] if _hosts((dst, sides.dst_insecure)) & plain else []
    if plain:
        refuse_for_http(" and ".join(name for name, value in given.items() if value), useless)
