"""doctor: why something does not work here, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from casstore.cli import render
from casstore.cli.connection import Connection, connection_options, registry_options
from casstore.cli.failures import DAMAGED
from casstore.cli.identity import auth_file, credential_source
from casstore.cli.options import json_option, quiet_option, verb
from casstore.cli.session import Session
from casstore.errors import CasstoreError

if TYPE_CHECKING:
    from casstore.doctor.diagnosis import Surroundings
    from casstore.doctor.findings import Finding
    from casstore.doctor.registries import Asked

_TIMEOUT = 10.0
"""Seconds to wait for a registry, unless --timeout says it."""
_COLORS = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "red"}
_LEVEL = max(map(len, _COLORS))
_CHECK = 12


@verb(
    "doctor",
    examples="""
    casstore doctor
    casstore doctor registry.example/team/disks
    casstore --store /srv/snapshots doctor -q
    casstore doctor --format '{level:<8} {check:<12} {text}'""",
)
@click.argument("reference", required=False, metavar="[HOST[/REPO]]")
@connection_options
@json_option
@quiet_option
@click.pass_context
def doctor(ctx: click.Context, reference: str | None, connection: Connection) -> None:
    """Look for what does not work here: the store, its file system, this Python, the registries.

    Locks, reflinks and holes are tried out in the file system of the store. Asked is the registry that is named, or all
    that the files of passwords know, with the credentials that are there for it. Nothing is changed. With -q only
    warnings and problems are shown. The exit code is 3 when there is a problem.
    """
    session: Session = ctx.obj
    wanted = [] if reference is None else [_asked(reference)]
    found: list[Finding] = []
    for finding in _findings(session, wanted, connection):
        found.append(finding)
        if not session.as_json and not (session.quiet and finding.level.value in {"ok", "note"}):
            _show(session, finding)
    counts = Counter(finding.level.value for finding in found)
    if session.as_json:
        session.emit_document(
            ok=not counts["problem"],
            store=session.settings.store,
            findings=[
                {
                    "check": each.check,
                    "level": each.level.value,
                    "subject": each.subject,
                    "text": each.text,
                    "fix": each.fix,
                }
                for each in found
            ],
        )
    else:
        bad = [render.count(counts[level], level) for level in ("problem", "warning") if counts[level]]
        session.say(", ".join(bad) if bad else "nothing to mend")
    ctx.exit(DAMAGED if counts["problem"] else 0)


def _show(session: Session, finding: Finding) -> None:
    level = finding.level.value
    head = click.style(f"{level:<{_LEVEL}}", fg=_COLORS[level], bold=level == "problem")
    subject = f"{finding.subject}: " if finding.subject else ""
    session.emit(f"{head}  {finding.check:<{_CHECK}}  {render.printable(subject + finding.text)}")
    if finding.fix is not None:
        session.emit(f"{'':<{_LEVEL + _CHECK + 4}}-> {render.printable(finding.fix)}")


def _asked(text: str) -> Asked:
    """A registry to ask: a host, or a repository."""
    from casstore.doctor.registries import Asked
    from casstore.reference import RegistryReference, parse_host, parse_reference

    if "/" not in text and not text.startswith("oci:"):
        return Asked(parse_host(text))
    found = parse_reference(text)
    if not isinstance(found, RegistryReference):
        raise click.UsageError(
            f"doctor {text}: expected HOST[/REPO] of a registry; casstore list {text} reads a layout"
        )
    return Asked(found.host, found.repository)


def _findings(session: Session, wanted: list[Asked], connection: Connection) -> Iterator[Finding]:
    from casstore.doctor.diagnosis import Surroundings, diagnose

    settings = session.settings
    surroundings = Surroundings(settings.microsandbox_home, settings.search_path)
    yield from diagnose(settings.store, surroundings)
    yield from _of_registries(session, wanted, connection, surroundings)


def _of_registries(
    session: Session, wanted: list[Asked], connection: Connection, surroundings: Surroundings
) -> Iterator[Finding]:
    from casstore.doctor.diagnosis import diagnose_registries, guarded
    from casstore.doctor.findings import problem

    def body() -> Iterator[Finding]:
        settings = session.settings
        options = registry_options(session, connection)
        if connection.timeout is None:
            options = replace(options, read_timeout=_TIMEOUT)
        options = replace(options, attempts=1 if connection.retries is None else connection.retries + 1)
        files = [auth_file(settings, path) for path in settings.auth_files]
        try:
            credentials = credential_source(replace(settings, netrc=connection.netrc or settings.netrc))
        except CasstoreError as error:
            yield problem("credentials", "", str(error), "correct the variables CASSTORE_REGISTRY and the like")
            return
        yield from diagnose_registries(wanted, options, credentials, files, surroundings)

    yield from guarded("registry", body)
