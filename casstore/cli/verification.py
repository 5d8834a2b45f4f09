"""verify: whether what is kept is still what it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from casstore.cli import render
from casstore.cli.options import json_option, selector, verb, workers_option
from casstore.cli.session import Session
from casstore.errors import CasstoreError, CorruptContent, NotFound

if TYPE_CHECKING:
    from casstore.snapshot import Snapshot
    from casstore.store import Store
    from casstore.verify import VerifyReport


def verified(report: VerifyReport) -> str:
    """What was verified, in words."""
    upper = report.upper
    content = f"verified ({upper.algorithm} {upper.digest})" if upper.kind == "verified" else "not recorded"
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
        },
    }


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
@click.pass_context
def verify(ctx: click.Context, snapshots: tuple[str, ...], everything: bool, workers: int | None) -> None:
    """Read everything of a snapshot and compare it with its digests.

    That is: every blob, every chunk, and the integrity of the disk's content where it was recorded. A damaged one does
    not keep the others from being verified; the exit code is then 12.
    """
    session: Session = ctx.obj
    if everything == bool(snapshots):
        raise click.UsageError("expected either snapshots or --all")
    documents: list[dict[str, Any]] = []
    codes: list[int] = []
    with session.open_store() as store:
        if everything:
            snapshots = tuple({handle.digest: handle.name for handle in reversed(store.list())}.values())
            snapshots += tuple(problem.name for problem in store.problems())
        for wanted in snapshots:
            snapshot, report, error = _verify(session, store, wanted, workers or 0)
            if error is not None:
                codes.append(error.exit_code)
            if session.as_json:
                documents.append(_verify_document(wanted, snapshot, report, error))
            else:
                _tell_verified(session, wanted, snapshot, report, error)
    if session.as_json:
        session.emit(render.document(ok=not codes, snapshots=documents))
    ctx.exit(CorruptContent.exit_code if CorruptContent.exit_code in codes else (codes or [0])[0])


def _verify(
    session: Session, store: Store, wanted: str, workers: int
) -> tuple[Snapshot | None, VerifyReport | None, CasstoreError | None]:
    """One of the three is missing. A snapshot that is there, but not all of it, counts as corrupt."""
    snapshot = None
    try:
        store.get(wanted)
        try:
            snapshot = store.open_snapshot(wanted)
            with session.progress(expected=snapshot.stored_bytes) as progress:
                return snapshot, snapshot.verify(workers=workers, progress=progress), None
        except NotFound as error:
            raise CorruptContent(str(error)) from error
    except CasstoreError as error:
        return snapshot, None, error


def _tell_verified(
    session: Session, wanted: str, snapshot: Snapshot | None, report: VerifyReport | None, error: CasstoreError | None
) -> None:
    if snapshot is None or report is None:
        session.fail(f"{wanted}: {error}")
        return
    pairs = [("Digest", str(snapshot.digest)), ("Path", snapshot.path), ("Verification", verified(report))]
    session.emit("\n".join(render.fields(pairs)))


def _verify_document(
    wanted: str, snapshot: Snapshot | None, report: VerifyReport | None, error: CasstoreError | None
) -> dict[str, Any]:
    return {
        "snapshot": wanted,
        "digest": str(snapshot.digest) if snapshot else None,
        "ok": report is not None,
        "verification": report_document(report) if report else None,
        "error": {"error": type(error).__name__, "message": str(error)} if error else None,
    }
