"""What `import` tells of the snapshots that came in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from casstore.cli import render
from casstore.cli.session import Session
from casstore.cli.signatures import relied_on, signed_by, verdicts_document
from casstore.errors import AlreadyExists

if TYPE_CHECKING:
    from casstore.archive.payloads import Staged
    from casstore.binding import Created
    from casstore.digest import Digest
    from casstore.importing import TreeReport
    from casstore.store import Store
    from casstore.trust.decision import Verdict
    from casstore.trust.trust import Trust


@dataclass(frozen=True, slots=True)
class Arrival:
    """A snapshot that came in, under its best name. `path` is where it is: that name in the store, or elsewhere."""

    digest: Digest
    id: Digest
    name: str
    path: str
    stored: int
    is_new: bool
    verdicts: Sequence[Verdict] = ()

    @classmethod
    def of(
        cls, store: Store, name: str, made: Created | Staged, *, is_new: bool, verdicts: Sequence[Verdict]
    ) -> Arrival:
        """One that has this name in the store now; `is_new` says whether it had not before."""
        return cls(made.root.digest, made.manifest.id, name, store.ref_path(name), made.added, is_new, verdicts)

    def at(self, path: str) -> Arrival:
        """The same, which is now at `path`, too."""
        return replace(self, path=path)

    def document(self, trust: Trust | None) -> dict[str, Any]:
        """As JSON; `trust` is what was asked of signatures."""
        return {
            "digest": str(self.digest),
            "id": str(self.id),
            "name": self.name,
            "path": self.path,
            "stored_bytes": self.stored,
            "is_new": self.is_new,
        } | verdicts_document(self.verdicts, trust)


def tell_arrivals(session: Session, arrivals: Sequence[Arrival], seconds: float, *, trust: Trust | None) -> None:
    """Digest and path of the first on stdout, and of the others on stderr what they are called. `trust` is what was
    asked of signatures.
    """
    if session.as_json:
        _emit(session, arrivals, [], seconds, trust)
        return
    head, *parents = arrivals
    _tell(session, head)
    for parent in parents:
        there = "" if parent.is_new else ", as before"
        session.say(f"its parent {parent.id} is {parent.name}{there}")
    stored = sum(each.stored for each in arrivals)
    session.say(f"imported {head.name}: {render.size(stored)} stored, {render.duration(seconds)}")
    for arrival in arrivals:
        for _, claim in relied_on(arrival.verdicts):
            session.say(f"{arrival.name} is signed {signed_by(claim)}")


def tell_tree(
    session: Session, store: Store, path: str, report: TreeReport, seconds: float, *, trust: Trust | None
) -> int:
    """Digest and path of each on stdout; what was skipped on stderr. Returns the exit code: what is malformed is no
    failure, but what could not be taken in is.
    """
    arrivals = [
        Arrival.of(store, each.names[0], each.created, is_new=each.is_new, verdicts=each.verdicts)
        for each in report.imported
    ]
    for each in report.imported:
        for warning in each.warnings:
            session.warn(warning)
    for skipped, error in report.skipped:
        session.warn(f"skipped {skipped!r}: {error}")
    if any(isinstance(error, AlreadyExists) for _, error in report.refused):
        session.say("casstore import DIR --name NAME takes one of them in under another name")
    if session.as_json:
        _emit(session, arrivals, report.skipped, seconds, trust)
    else:
        for arrival in arrivals:
            _tell(session, arrival)
        for each in report.imported:
            if each.names[1:]:
                session.say(f"{each.names[0]} is {' and '.join(each.names[1:])}, too")
    if report.imported or report.skipped:
        session.say(f"imported {render.count(len(arrivals), 'snapshot')}, {render.duration(seconds)}")
    else:
        below = os.path.join(path, "snapshots")
        hint = f"; casstore import {below} takes in what is there" if os.path.isdir(below) else ""
        session.say(f"there are no artifact directories in {path!r}{hint}")
    return report.refused[0][1].exit_code if report.refused else 0


def _tell(session: Session, arrival: Arrival) -> None:
    session.emit(str(arrival.digest))
    if not session.quiet:
        session.emit(render.printable(arrival.path))


def _emit(
    session: Session,
    arrivals: Sequence[Arrival],
    skipped: Sequence[tuple[str, Exception]],
    seconds: float,
    trust: Trust | None,
) -> None:
    session.emit_document(
        snapshots=[arrival.document(trust) for arrival in arrivals],
        skipped=[{"path": path, "error": type(error).__name__, "message": str(error)} for path, error in skipped],
        seconds=round(seconds, 3),
    )
