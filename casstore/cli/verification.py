"""verify: whether what is kept is still what it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from casstore.cli import render
from casstore.cli.damage import REPAIR, is_damage
from casstore.cli.failures import UNVERIFIABLE
from casstore.cli.options import json_option, progress_option, selector, verb, workers_option
from casstore.cli.session import Session
from casstore.errors import CasstoreError, CorruptContent, NotFound

if TYPE_CHECKING:
    from casstore.snapshot import Snapshot
    from casstore.store import Store
    from casstore.verify import VerifyReport


def verified(report: VerifyReport) -> str:
    """What was verified, in words."""
    upper = report.upper
    if upper.kind == "not_recorded":
        content = "not recorded"
    else:
        reason = "" if upper.reason is None else f": {upper.reason}"
        content = f"{upper.kind} ({upper.algorithm} {upper.digest}){reason}"
    return f"{report.blobs} blobs, {report.chunks} chunks verified; integrity {content}"


def report_document(report: VerifyReport) -> dict[str, Any]:
    """What was verified, for JSON."""
    upper = report.upper
    return {
        "blobs": report.blobs,
        "blob_bytes": report.blob_bytes,
        "chunks": report.chunks,
        "integrity": {
            "status": upper.kind,
            "algorithm": upper.algorithm,
            "digest": upper.digest,
            "meaning": upper.meaning,
            "reason": upper.reason,
        },
    }


def exit_code(report: VerifyReport) -> int:
    """Of a snapshot in which no damage was found: not 0 where its recorded integrity cannot be compared."""
    return UNVERIFIABLE if report.upper.kind == "unverifiable" else 0


@verb(
    "verify",
    examples="""
    casstore verify base
    casstore verify --all --json""",
)
@selector("snapshots", nargs=-1, required=False)
@click.option("--all", "everything", is_flag=True, help="Verify all that is in the store.")
@workers_option
@json_option
@progress_option
@click.pass_context
def verify(ctx: click.Context, snapshots: tuple[str, ...], everything: bool, workers: int | None) -> None:
    """Read everything of a snapshot and compare it with its digests.

    That is: every blob, every chunk, and the integrity of the disk's content where it was recorded. A damaged one does
    not keep the others from being verified; the exit code is then 12. It is 3 where nothing is damaged, but a recorded
    integrity cannot be compared any more.
    """
    session: Session = ctx.obj
    if everything == bool(snapshots):
        raise click.UsageError("expected either snapshots or --all")
    outcomes: list[_Outcome] = []
    with session.open_store() as store:
        for wanted in _everything(store) if everything else snapshots:
            outcome = _verify(session, store, wanted, workers or 0)
            if not session.as_json:
                _show(session, outcome, first=not outcomes)
            outcomes.append(outcome)
    codes = sorted((code for outcome in outcomes if (code := outcome.exit_code)), key=_is_unverifiable)
    if session.as_json:
        session.emit(render.document(ok=not codes, snapshots=[outcome.document() for outcome in outcomes]))
    elif any(outcome.error is not None and is_damage(outcome.error) for outcome in outcomes):
        session.say(REPAIR)
    ctx.exit(CorruptContent.exit_code if CorruptContent.exit_code in codes else (codes or [0])[0])


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of verifying one: a report or an error."""

    wanted: str
    snapshot: Snapshot | None
    report: VerifyReport | None
    error: CasstoreError | None

    @property
    def exit_code(self) -> int:
        """Of the verb, if it were the only one."""
        if self.error is not None:
            return self.error.exit_code
        return 0 if self.report is None else exit_code(self.report)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "snapshot": self.wanted,
            "digest": str(self.snapshot.digest) if self.snapshot else None,
            "ok": self.exit_code == 0,
            "verification": report_document(self.report) if self.report else None,
            "error": {"error": type(self.error).__name__, "message": str(self.error)} if self.error else None,
        }


def _is_unverifiable(code: int) -> bool:
    return code == UNVERIFIABLE


def _everything(store: Store) -> Iterator[str]:
    """One name of each snapshot, and the names that lead to none."""
    yield from {handle.digest: handle.name for handle in store.list()}.values()
    yield from (problem.name for problem in store.problems())


def _verify(session: Session, store: Store, wanted: str, workers: int) -> _Outcome:
    """A snapshot that is there, but not all of it, counts as corrupt: NotFound is for one that is not, or that was
    removed meanwhile.
    """
    snapshot, failed = None, None
    try:
        while True:
            digest = store.get(wanted).digest
            try:
                snapshot = store.open_snapshot(wanted)
                with session.progress(expected=snapshot.stored_bytes) as progress:
                    return _Outcome(wanted, snapshot, snapshot.verify(workers=workers, progress=progress), None)
            except NotFound as error:
                if digest == failed:
                    raise CorruptContent(str(error)) from error
                failed = digest  # once more: is it still there?
    except CasstoreError as error:
        return _Outcome(wanted, snapshot, None, error)


def _show(session: Session, outcome: _Outcome, *, first: bool) -> None:
    if outcome.snapshot is None or outcome.report is None:
        text = str(outcome.error)
        known = text.startswith(f"snapshot {outcome.wanted}:")
        session.fail(text if known else f"snapshot {outcome.wanted}: {text}")
        return
    pairs = [
        ("Digest", str(outcome.snapshot.digest)),
        ("Path", outcome.snapshot.path),
        ("Verification", verified(outcome.report)),
    ]
    session.emit(("" if first else "\n") + "\n".join(render.fields(pairs)))
