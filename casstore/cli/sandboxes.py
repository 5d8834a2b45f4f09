"""create --from and --all-stopped: snapshots of microsandbox's sandboxes, one or many."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from casstore.cli.created import created_document, parse_destination, say_created, tell_created
from casstore.cli.session import Session
from casstore.errors import (
    CasstoreError,
    Conflict,
    NotFound,
    SandboxNotStopped,
    StorageError,
    StoreLocked,
    UnsuitableSandbox,
)
from casstore.names import as_name

if TYPE_CHECKING:
    from casstore.capture import CaptureOptions
    from casstore.config import SnapshotConfig, SnapshotDestination
    from casstore.secrets import OnSecrets
    from casstore.snapshot import Snapshot
    from casstore.store import Store

_PLACE = "{sandbox}"
"""In a NAME: stands for the sandbox's name."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What every snapshot of this run shall be like."""

    labels: tuple[tuple[str, str], ...]
    force: bool
    integrity: str | None
    parent: str | None
    trust_mtime: bool
    scan_secrets: OnSecrets | None
    options: CaptureOptions

    def config(self, home: str, sandbox: str, destination: SnapshotDestination) -> SnapshotConfig:
        """As a store wants it."""
        from casstore.config import SandboxInput, SnapshotConfig

        return SnapshotConfig(
            source=SandboxInput(home, sandbox),
            destination=destination,
            labels=self.labels,
            force=self.force,
            record_integrity=self.integrity,
            parent=self.parent,
            trust_mtime=self.trust_mtime,
            scan_secrets=self.scan_secrets,
        )


@dataclass(slots=True)
class _Outcome:
    """What became of several sandboxes."""

    made: list[tuple[str, Snapshot, float]] = field(default_factory=list)
    """Sandbox, its snapshot, and seconds."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, CasstoreError]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "snapshots": [
                {"sandbox": sandbox, **created_document(snapshot, seconds)} for sandbox, snapshot, seconds in self.made
            ],
            "skipped": [{"sandbox": sandbox, "reason": reason} for sandbox, reason in self.skipped],
            "failed": [{"sandbox": sandbox, "error": str(error)} for sandbox, error in self.failed],
        }


def create_from_sandboxes(
    session: Session, name: str | None, sandboxes: Sequence[str], wanted: Wanted, all_stopped: bool
) -> int:
    """Capture them; returns the exit code, that of the first failure.

    Raises:
        CasstoreError: there was one sandbox only, and it cannot be captured; StorageError, StoreLocked: of any.
    """
    named = list(dict.fromkeys(sandboxes))
    if name is not None and _PLACE not in name and (len(named) > 1 or all_stopped):
        raise click.UsageError(f"expected no NAME with several sandboxes, or one with {_PLACE} in it, got {name!r}")
    if len(named) == 1 and not all_stopped:
        with _looking_elsewhere(session):
            _create_one(session, name, named[0], wanted)
        return 0
    outcome = _Outcome()
    if all_stopped:
        with _looking_elsewhere(session):
            named = _add_stopped(session, named, outcome)
    with session.open_store(create=wanted.parent is None) as store:
        _create_all(session, store, name, named, wanted, outcome, given=sandboxes)
        session.tell_taken_over(store)
    if session.as_json:
        session.emit_document(**outcome.document())
    elif not outcome.made and not outcome.failed:
        session.say(f"no sandbox to capture in {session.settings.microsandbox_home}")
    return outcome.failed[0][1].exit_code if outcome.failed else 0


@contextlib.contextmanager
def _looking_elsewhere(session: Session) -> Iterator[None]:
    """Where there is no home, say how to name another."""
    try:
        yield
    except NotFound as error:
        if not os.path.exists(os.path.join(session.settings.microsandbox_home, "db")):
            error.add_note("if microsandbox's home is elsewhere, set MSB_HOME to it")
        raise


def _create_one(session: Session, name: str | None, sandbox: str, wanted: Wanted) -> None:
    from casstore.store import Store

    config = wanted.config(session.settings.microsandbox_home, sandbox, _destination(name, sandbox))
    start = time.monotonic()
    if config.destination.path is not None and wanted.parent is None:
        make = partial(Store.create_directory, durability=session.durability)
        with session.progress() as progress:
            snapshot = make(config, options=wanted.options, progress=progress)
    else:
        with session.open_store(create=wanted.parent is None) as store:
            with session.progress() as progress:
                snapshot = store.create(config, options=wanted.options, progress=progress)
            session.tell_taken_over(store)
    tell_created(session, snapshot, time.monotonic() - start)


def _add_stopped(session: Session, named: Sequence[str], outcome: _Outcome) -> list[str]:
    from casstore.microsandbox.home import CAPTURED, Home

    statuses = Home(session.settings.microsandbox_home).statuses()
    stopped = [name for name, status in statuses.items() if status in CAPTURED]
    for name, status in statuses.items():
        if status not in CAPTURED and name not in named:
            _skip(session, outcome, name, f"is {status}")
    return list(dict.fromkeys([*named, *stopped]))


def _create_all(
    session: Session,
    store: Store,
    name: str | None,
    sandboxes: Sequence[str],
    wanted: Wanted,
    outcome: _Outcome,
    *,
    given: Sequence[str],
) -> None:
    taken: dict[object, str] = {}
    for sandbox in sandboxes:
        start = time.monotonic()
        try:
            destination = _destination(name, sandbox)
            other = taken.setdefault(destination, sandbox)
            if other != sandbox:
                raise Conflict(
                    f"sandbox {sandbox!r}: expected a name of its own for its snapshot, got that of {other!r}"
                )
            config = wanted.config(session.settings.microsandbox_home, sandbox, destination)
            with session.progress() as progress:
                snapshot = store.create(config, options=wanted.options, progress=progress)
        except (StoreLocked, StorageError):
            raise  # the next one would fare no better
        except CasstoreError as error:
            if isinstance(error, SandboxNotStopped | UnsuitableSandbox) and sandbox not in given:
                _skip(session, outcome, sandbox, str(error))
                continue
            outcome.failed.append((sandbox, error))
            session.fail(str(error))
        else:
            seconds = time.monotonic() - start
            outcome.made.append((sandbox, snapshot, seconds))
            if not session.as_json:
                say_created(session, snapshot, seconds)


def _skip(session: Session, outcome: _Outcome, sandbox: str, reason: str) -> None:
    outcome.skipped.append((sandbox, reason))
    session.say(f"skipped {sandbox}: {reason}")


def _destination(name: str | None, sandbox: str) -> SnapshotDestination:
    """Where the snapshot of a sandbox goes."""
    own = as_name(sandbox) or "sandbox"
    return parse_destination(own if name is None else name.replace(_PLACE, own))
