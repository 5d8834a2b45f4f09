"""verify: whether what is kept is still what it was, and signed by whom it must be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from casstore.cli import remotes, render
from casstore.cli.connection import Connection, Registries, connection_options
from casstore.cli.damage import REPAIR, is_damage
from casstore.cli.failures import UNVERIFIABLE
from casstore.cli.options import complete_names, json_option, progress_option, quiet_option, verb, workers_option
from casstore.cli.session import Session
from casstore.cli.signatures import signature_fields, signatures_document
from casstore.cli.trust import Trusted, trust_of, trust_options
from casstore.errors import CasstoreError, CorruptContent, NotFound, UntrustedContent

if TYPE_CHECKING:
    from casstore.digest import Digest
    from casstore.store import Store
    from casstore.trust.report import SignatureReport
    from casstore.trust.trust import Trust
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
    casstore verify base --key release.pub
    casstore verify --all --json
    casstore verify registry.example/team/disks:base --key release.pub""",
)
@click.argument("snapshots", metavar="[SNAPSHOT|REFERENCE]...", nargs=-1, required=False, shell_complete=complete_names)
@click.option("--all", "everything", is_flag=True, help="Verify all that is in the store.")
@click.option("--signatures-only", is_flag=True, help="Look at the signatures only, and read no content.")
@trust_options()
@workers_option
@json_option
@quiet_option
@progress_option
@connection_options
@click.pass_context
def verify(
    ctx: click.Context,
    snapshots: tuple[str, ...],
    everything: bool,
    signatures_only: bool,
    trusted: Trusted,
    workers: int | None,
    connection: Connection,
) -> None:
    """Read everything of a snapshot and compare it with its digests.

    That is: every blob, every chunk, and the integrity of the disk's content where it was recorded. A damaged one does
    not keep the others from being verified; the exit code is then 12. It is 3 where nothing is damaged, but a recorded
    integrity cannot be compared any more.

    With --key, or a policy, its signatures must be as that wants them, too; else the exit code is 13. Of a REFERENCE
    the signatures are all that is verified: its content is when it is pulled.
    """
    session: Session = ctx.obj
    if everything == bool(snapshots):
        raise click.UsageError("expected either snapshots or --all")
    trust = trust_of(session, trusted)
    places = [wanted for wanted in snapshots if remotes.is_reference(wanted)]
    if (signatures_only or places) and trust is None:
        what = "--signatures-only" if signatures_only else places[0]
        raise click.UsageError(f"{what}: expected --key or a policy with it, got none")
    outcomes: list[_Outcome] = []

    def tell(outcome: _Outcome) -> None:
        if not session.as_json:
            _show(session, outcome, trust, first=not outcomes)
        outcomes.append(outcome)

    with ExitStack() as stack:
        is_here = everything or len(places) < len(snapshots)
        store = stack.enter_context(session.open_store()) if is_here else None
        for wanted in _everything(store) if everything and store is not None else snapshots:
            if store is None or wanted in places:
                tell(_verify_remote(session, wanted, connection, trust))
            else:
                tell(_verify(session, store, wanted, workers or 0, trust, signatures_only=signatures_only))
    codes = [code for outcome in outcomes if (code := outcome.exit_code)]
    if session.as_json:
        session.emit_document(ok=not codes, snapshots=[outcome.document(trust) for outcome in outcomes])
    elif any(outcome.error is not None and is_damage(outcome.error) for outcome in outcomes):
        session.say(REPAIR)
    ctx.exit(min(codes, key=_urgency, default=0))


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of verifying one: reports, or an error."""

    wanted: str
    digest: Digest | None = None
    path: str | None = None
    """Where it is in the store."""
    report: VerifyReport | None = None
    signatures: SignatureReport | None = None
    error: CasstoreError | None = None

    @property
    def exit_code(self) -> int:
        """Of the verb, if it were the only one."""
        if self.error is not None:
            return self.error.exit_code
        if self.signatures is not None and not self.signatures.ok:
            return UntrustedContent.exit_code
        return 0 if self.report is None else exit_code(self.report)

    def document(self, trust: Trust | None) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = {"signatures": [], "trust": None}
        if self.signatures is not None:
            found = signatures_document(self.signatures, trust)
        return {
            "snapshot": self.wanted,
            "digest": str(self.digest) if self.digest else None,
            "ok": self.exit_code == 0,
            "verification": report_document(self.report) if self.report else None,
            **found,
            "error": {"error": type(self.error).__name__, "message": str(self.error)} if self.error else None,
        }


def _urgency(code: int) -> int:
    """Which of several exit codes is the one of all: damage first, then signatures; last what cannot be compared."""
    order = {CorruptContent.exit_code: 0, UntrustedContent.exit_code: 1, UNVERIFIABLE: 3}
    return order.get(code, 2)


def _everything(store: Store) -> Iterator[str]:
    """One name of each snapshot, and the names that lead to none."""
    yield from {handle.digest: handle.name for handle in store.list()}.values()
    yield from (problem.name for problem in store.problems())


def _verify(
    session: Session, store: Store, wanted: str, workers: int, trust: Trust | None, *, signatures_only: bool
) -> _Outcome:
    """A snapshot that is there, but not all of it, counts as corrupt: NotFound is for one that is not, or that was
    removed meanwhile.
    """
    outcome, failed = _Outcome(wanted), None
    try:
        while True:
            digest = store.get(wanted).digest
            try:
                snapshot = store.open_snapshot(wanted)
                outcome = replace(outcome, digest=snapshot.digest, path=snapshot.path)
                if trust is not None:
                    outcome = replace(outcome, signatures=store.signatures(str(snapshot.digest), trust))
                if signatures_only:
                    return outcome
                with session.progress(expected=snapshot.stored_bytes) as progress:
                    return replace(outcome, report=snapshot.verify(workers=workers, progress=progress))
            except NotFound as error:
                if digest == failed:
                    raise CorruptContent(str(error)) from error
                failed = digest  # once more: is it still there?
    except CasstoreError as error:
        return replace(outcome, error=error)


def _verify_remote(session: Session, wanted: str, connection: Connection, trust: Trust | None) -> _Outcome:
    from casstore.remote import find_signatures
    from casstore.transfer import TransferOptions

    options = TransferOptions(Registries(session, connection), trust=trust)
    try:
        signatures = find_signatures(wanted, options, stores=session.store_options)
    except CasstoreError as error:
        return _Outcome(wanted, error=error)
    return _Outcome(wanted, signatures.digest, signatures=signatures)


def _show(session: Session, outcome: _Outcome, trust: Trust | None, *, first: bool) -> None:
    if outcome.error is not None or outcome.digest is None:
        text = str(outcome.error)
        elsewhere = remotes.is_reference(outcome.wanted)
        known = outcome.wanted in text if elsewhere else text.startswith(f"snapshot {outcome.wanted}:")
        session.fail(text if known else f"{'' if elsewhere else 'snapshot '}{outcome.wanted}: {text}")
        return
    pairs = [("Digest", str(outcome.digest))]
    if outcome.path is not None:
        pairs.append(("Path", outcome.path))
    if outcome.report is not None:
        pairs.append(("Verification", verified(outcome.report)))
    if outcome.signatures is not None:
        pairs += signature_fields(outcome.signatures, trust)
    session.emit(("" if first else "\n") + "\n".join(render.fields(pairs)))
    if outcome.signatures is not None and not outcome.signatures.ok:
        session.fail(f"{outcome.wanted}: it is not signed as it must be")
