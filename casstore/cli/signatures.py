"""What is told of signatures: who made them, and whether they are the wanted ones.

What a signature says is shown only where a trusted key made it; of any other nothing but that, and why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from casstore.cli import render

if TYPE_CHECKING:
    from casstore.signatures.claims import Claim, Evidence, Signed
    from casstore.signatures.reasons import Reason
    from casstore.trust.decision import Verdict
    from casstore.trust.report import FoundSignature, SignatureReport
    from casstore.trust.trust import Trust

_MOST = 10
"""Signatures that are shown to people."""


def signature_fields(found: SignatureReport, trust: Trust | None) -> Iterator[tuple[str, str]]:
    """A line for each signature, and one for what was asked."""
    good_first = sorted(found.found, key=lambda each: each.status != "verified")
    for each in good_first[:_MOST]:
        yield "Signature", _line(each)
    if len(found.found) > _MOST:
        yield "Signature", f"and {len(found.found) - _MOST} more"
    if not found.found:
        yield "Signatures", "none"
    for verdict in found.verdicts:
        yield "Trust", _asked(verdict)
    if trust is None and found.found:
        yield "Trust", "nothing was asked: --key or a policy says whose signatures are wanted"
    if trust is not None and not found.verdicts:
        from casstore.trust.scopes import told as place_told

        yield "Trust", f"the policy asks nothing of what is in {place_told(found.place)}"


def _line(found: FoundSignature) -> str:
    if found.status == "verified" and found.claim is not None:
        return f"verified: {signed_by(found.claim)}"
    short = found.evidence.manifest.digest.short
    if found.status == "refused":
        return f"refused: {found.reason}: {found.text}"
    return f"not verified: {short} ({found.evidence.form})" + (f": {found.text}" if found.text else "")


def signed_by(claim: Claim) -> str:
    """Who signed, when, and for which repository."""
    when = "at no known time" if claim.signed_at is None else f"at {render.clock(claim.signed_at)} UTC"
    return f"by {claim.key.name} ({claim.key.fingerprint.short}) {when}, for {claim.repository or 'any repository'}"


def _asked(verdict: Verdict) -> str:
    from casstore.trust.requirement import REQUEST

    told = verdict.requirement.told
    wanted = "as asked" if told == REQUEST else f"as {told} wants it"
    if verdict.ok:
        return wanted
    lines = {judged.reason for judged in verdict.judged}  # each has said why in its own
    whys = [str(reason) if reason in lines else f"{reason}: {text}" for reason, text in verdict.reasons]
    return f"not {wanted}: {'; '.join(whys)}"


def relied_on(verdicts: Sequence[Verdict]) -> Iterator[tuple[Evidence, Claim]]:
    """The signatures that were relied on, each once, and what they say."""
    found = {
        (judged.evidence.manifest.digest, judged.claim.key.fingerprint): (judged.evidence, judged.claim)
        for verdict in verdicts
        for judged in verdict.judged
        if judged.claim is not None and judged.evidence in verdict.accepted
    }
    yield from found.values()


def _document(
    evidence: Evidence, status: str, claim: Claim | None = None, reason: Reason | None = None
) -> dict[str, Any]:
    """A signature, for JSON."""
    signed_at = None if claim is None else claim.signed_at
    return {
        "digest": str(evidence.manifest.digest),
        "form": evidence.form.value,
        "key": None if claim is None else claim.key.name,
        "fingerprint": None if claim is None else str(claim.key.fingerprint),
        "status": status,
        "reason": None if reason is None else reason.value,
        "signed_at": None if signed_at is None else signed_at.isoformat(),
        "repository": None if claim is None else claim.repository,
        "annotations": None if claim is None else dict(claim.annotations),
    }


def signatures_document(found: SignatureReport, trust: Trust | None) -> dict[str, Any]:
    """Signatures, and what was asked of them, for JSON."""
    return {
        "signatures": [_document(each.evidence, each.status, each.claim, each.reason) for each in found.found],
        "trust": _trust_document(found.verdicts, trust),
    }


def made_documents(signed: Sequence[Signed]) -> list[dict[str, Any]]:
    """Signatures that were made, for JSON."""
    return [
        {
            "digest": str(each.descriptor.digest),
            "form": each.form.value,
            "key": each.key.name,
            "fingerprint": str(each.key.fingerprint),
        }
        for each in signed
    ]


def verdicts_document(verdicts: Sequence[Verdict], trust: Trust | None) -> dict[str, Any]:
    """The signatures that were relied on, and what was asked of them, for JSON."""
    relied = [_document(evidence, "verified", claim) for evidence, claim in relied_on(verdicts)]
    return {"signatures": relied, "trust": _trust_document(verdicts, trust)}


def _trust_document(verdicts: Sequence[Verdict], trust: Trust | None) -> dict[str, Any] | None:
    """What was asked, and why it does not hold; None where nobody asked."""
    if trust is None:
        return None
    reasons = {why: None for verdict in verdicts for why in verdict.reasons}
    return {
        "policy": None if trust.policy is None else trust.policy.path,
        "rules": [verdict.requirement.told for verdict in verdicts],
        "ok": all(verdict.ok for verdict in verdicts),
        "reasons": [{"reason": reason.value, "message": text} for reason, text in reasons],
    }
