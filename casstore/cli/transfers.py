"""push and pull: snapshots to and from registries and OCI layouts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from casstore.cli import render
from casstore.cli.options import force_option, json_option, quiet_option, selector, verb, workers_option
from casstore.cli.session import Session

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from casstore.content import Target
    from casstore.reference import RegistryReference
    from casstore.registry import RegistryOptions
    from casstore.transfer import TransferOptions, TransferReport

F = TypeVar("F", bound=Callable[..., object])


def connection_options(function: F) -> F:
    """How to reach a registry."""
    for option in (
        click.option("--ca-bundle", metavar="FILE", help="PEM file of the CAs to trust instead of the usual ones."),
        click.option("--insecure", is_flag=True, help="Do not check the registry's certificate."),
        click.option("--plain-http", is_flag=True, help="Use http instead of https."),
    ):
        function = option(function)
    return function


def transfer_options(function: F) -> F:
    """How to transfer."""
    option = click.option(
        "--concurrency",
        type=click.IntRange(1, 64),
        default=4,
        show_default=True,
        metavar="N",
        help="Blobs moved at the same time.",
    )
    return connection_options(option(function))


def registry_options(*, plain_http: bool, insecure: bool, ca_bundle: str | None) -> RegistryOptions:
    """The options as the library wants them."""
    from casstore.registry import RegistryOptions  # oras and requests: slow

    if plain_http and (insecure or ca_bundle is not None):
        raise click.UsageError("--plain-http has no certificate: leave out --insecure and --ca-bundle")
    return RegistryOptions(plain_http=plain_http, insecure=insecure, ca_bundle=ca_bundle)


def _options(
    session: Session, concurrency: int, *, plain_http: bool, insecure: bool, ca_bundle: str | None
) -> TransferOptions:
    from casstore.credentials import DockerConfig
    from casstore.transfer import TransferOptions

    credentials = DockerConfig(session.settings.docker_config)

    def open_registry(reference: RegistryReference) -> AbstractContextManager[Target]:
        from casstore.registry import RegistryTarget

        options = registry_options(plain_http=plain_http, insecure=insecure, ca_bundle=ca_bundle)
        return RegistryTarget(reference, options, credentials)

    return TransferOptions(open_registry, concurrency)


@verb(
    "push",
    examples="""
    casstore push base registry.example/team/disks:base
    casstore push base oci:/media/backup:base
    casstore push base 127.0.0.1:5000/disks --plain-http""",
)
@selector()
@click.argument("reference")
@transfer_options
@json_option
@quiet_option
@click.pass_obj
def push(
    session: Session,
    snapshot: str,
    reference: str,
    concurrency: int,
    plain_http: bool,
    insecure: bool,
    ca_bundle: str | None,
) -> None:
    """Copy a snapshot to a registry or an OCI layout.

    What is there already is not sent. Without a tag in REFERENCE the name here becomes the tag. Writes the reference
    with the digest, which stands for just this content forever.
    """
    options = _options(session, concurrency, plain_http=plain_http, insecure=insecure, ca_bundle=ca_bundle)
    start = time.monotonic()
    with session.open_store() as store, session.progress() as progress:
        report = store.push(snapshot, reference, options=options, progress=progress)
    _tell(session, f"pushed {snapshot}", report, time.monotonic() - start)


@verb(
    "pull",
    examples="""
    casstore pull registry.example/team/disks:base
    casstore pull registry.example/team/disks@sha256:1f00... --name base
    casstore pull oci:/media/backup:base""",
)
@click.argument("reference")
@click.option("--name", metavar="NAME", help="The name to give it; the tag, if there is one.")
@force_option("Let the name stand for this snapshot if it stands for another.")
@transfer_options
@workers_option
@json_option
@quiet_option
@click.pass_obj
def pull(
    session: Session,
    reference: str,
    name: str | None,
    force: bool,
    concurrency: int,
    plain_http: bool,
    insecure: bool,
    ca_bundle: str | None,
    workers: int | None,
) -> None:
    """Copy a snapshot from a registry or an OCI layout, and verify all of it.

    What is here already is not fetched. Writes the reference with the digest.
    """
    options = _options(session, concurrency, plain_http=plain_http, insecure=insecure, ca_bundle=ca_bundle)
    start = time.monotonic()
    with session.open_store(create=True) as store, session.progress() as progress:
        report = store.pull(reference, name=name, force=force, options=options, workers=workers or 0, progress=progress)
    _tell(session, f"pulled {report.name}", report, time.monotonic() - start)


def _tell(session: Session, done: str, report: TransferReport, seconds: float) -> None:
    copy = report.copy
    if session.as_json:
        session.emit(
            render.document(
                reference=report.reference,
                name=report.name,
                digest=str(report.digest),
                moved_blobs=copy.copied,
                moved_bytes=copy.copied_bytes,
                present_blobs=copy.skipped,
                present_bytes=copy.skipped_bytes,
                seconds=round(seconds, 3),
            )
        )
        return
    session.emit(render.printable(report.reference))
    session.say(
        f"{done}: {render.count(copy.copied, 'blob')} moved, {render.size(copy.copied_bytes)};"
        f" {copy.skipped} there already, {render.size(copy.skipped_bytes)}; {render.duration(seconds)}"
    )
