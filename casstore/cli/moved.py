"""What push, pull and copy moved, or would move, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from casstore.cli import render
from casstore.cli.session import Session
from casstore.cli.signatures import made_documents, relied_on, signed_by, verdicts_document

if TYPE_CHECKING:
    from casstore.graph import Plan
    from casstore.transfer import TransferReport
    from casstore.trust.trust import Trust


def tell_transfers(
    session: Session,
    done: str,
    reports: Sequence[TransferReport],
    seconds: float,
    *,
    everything: bool = False,
    trust: Trust | None = None,
) -> None:
    """Unless `everything` was asked for, the last report is that of what was, and before it come its parents. `trust`
    is what was asked of signatures.
    """
    for warning in [text for report in reports for text in report.warnings]:
        session.warn(warning)
    if session.as_json:
        documents = [_document(report) | verdicts_document(report.verdicts, trust) for report in reports]
        content = {"transfers": documents} if everything else documents[-1] | {"parents": documents[:-1]}
        session.emit_document(**content, seconds=round(seconds, 3))
        return
    if not reports:
        session.say("No snapshots.")
    for report in reports:
        session.emit(render.printable(report.reference))
        took = f"; {render.duration(seconds)}" if report is reports[-1] else ""
        session.say(f"{done} {report.name if done == 'pulled' else _place(report)}: {_moved(report)}{took}")
        for _, claim in relied_on(report.verdicts):
            session.say(f"signed {signed_by(claim)}")


def _place(report: TransferReport) -> str:
    """Where it is now, by tag."""
    return f"{report.reference.rpartition('@')[0]}:{report.name}"


def _moved(report: TransferReport) -> str:
    copy = report.copy
    words = f"{render.count(copy.copied, 'blob')} moved, {render.size(copy.copied_bytes)};"
    if copy.mounted:
        words += f" {copy.mounted} mounted, {render.size(copy.mounted_bytes)};"
    words += f" {copy.skipped} there already, {render.size(copy.skipped_bytes)}"
    return words + (f"; with {render.count(copy.referrers, 'referrer')}" if copy.referrers else "")


def _document(report: TransferReport) -> dict[str, Any]:
    copy = report.copy
    return {
        "reference": report.reference,
        "name": report.name,
        "digest": str(report.digest),
        "moved_blobs": copy.copied,
        "moved_bytes": copy.copied_bytes,
        "mounted_blobs": copy.mounted,
        "mounted_bytes": copy.mounted_bytes,
        "present_blobs": copy.skipped,
        "present_bytes": copy.skipped_bytes,
        "referrers": copy.referrers,
        "signed": made_documents(report.signed),
    }


def tell_plans(session: Session, plans: Sequence[Plan]) -> None:
    """Show every blob that would be moved, once; then all of them together."""
    missing = list({blob.digest: blob for plan in plans for blob in plan.missing}.values())
    absent = {blob.digest for blob in missing}
    present = {blob.digest: blob.size for plan in plans for blob in plan.present if blob.digest not in absent}
    total = sum(blob.size for blob in missing)
    if session.as_json:
        session.emit_document(
            dry_run=True,
            artifacts=[{"name": plan.name, "digest": str(plan.root.digest)} for plan in plans],
            blobs=[
                {
                    "digest": str(blob.digest),
                    "kind": blob.kind,
                    "media_type": blob.media_type,
                    "bytes": blob.size,
                }
                for blob in missing
            ],
            missing_blobs=len(missing),
            missing_bytes=total,
            present_blobs=len(present),
            present_bytes=sum(present.values()),
        )
        return
    for blob in missing:
        session.emit(f"{blob.digest}  {blob.kind:8}  {blob.size}")
    session.emit(
        f"would move {render.count(len(missing), 'blob')}, {render.size(total)};"
        f" {len(present)} there already, {render.size(sum(present.values()))}"
    )
