"""Which signatures a snapshot has where it is, and whether they are the wanted ones: for those who look, and refuse
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from casstore import evidence, spec
from casstore.content import Source
from casstore.digest import Digest
from casstore.oci import Descriptor
from casstore.signatures.reasons import Reason
from casstore.streams import fetch_all
from casstore.trust.admission import judge
from casstore.trust.decision import MAX_TRIED, Judged, Verdict
from casstore.trust.trust import Trust

if TYPE_CHECKING:
    from casstore.signatures.claims import Claim, Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSignature:
    """A signature, as far as it was looked at."""

    evidence: Evidence
    status: str
    """`verified` where it is good and what was asked for; `refused`, then `reason` and `text` say why; `unverified`
    where no signature was asked for.
    """
    claim: Claim | None = None
    """What it says, where a trusted key made it: what others wrote is shown to nobody."""
    reason: Reason | None = None
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureReport:
    """The signatures of one manifest, and what was decided about them."""

    digest: Digest
    place: str
    found: Sequence[FoundSignature]
    verdicts: Sequence[Verdict]
    """One for each requirement; none where nothing was asked."""

    @property
    def ok(self) -> bool:
        """Whether all that was asked for is there."""
        return all(verdict.ok for verdict in self.verdicts)


def look(
    source: Source, root: Descriptor, raw: bytes | None = None, *, place: str, trust: Trust | None
) -> SignatureReport:
    """Look at all signatures of the manifest `root`, of which MAX_TRIED are enough. `raw` are its bytes, if they were
    read already.

    Raises:
        CorruptContent: the manifest is damaged, or none.
        RegistryError, StorageError: the place, or the way to it, failed.
    """
    raw = fetch_all(source, root, limit=spec.MAX_MANIFEST) if raw is None else raw
    verdicts = () if trust is None else judge(source, root, raw, place=place, trust=trust, thorough=True)
    judged = [verdict.judged for verdict in verdicts if verdict.requirement.signed and not verdict.requirement.refuse]
    if judged:  # all of them looked at the same ones
        found = [_seen(same) for same in zip(*judged, strict=True)]
    else:
        everything = evidence.gather(source, root, by_name=trust is not None)
        found = [_unseen(each) for each in islice(everything, MAX_TRIED)]
    return SignatureReport(digest=root.digest, place=place, found=found, verdicts=verdicts)


def _seen(judged: Sequence[Judged]) -> FoundSignature:
    """A signature that several requirements have looked at: one for which it is good says the most about it."""
    best = min(judged, key=lambda each: (each.reason is not None, each.claim is None))
    status = "verified" if best.reason is None else "refused"
    return FoundSignature(evidence=best.evidence, status=status, claim=best.claim, reason=best.reason, text=best.text)


def _unseen(found: Evidence) -> FoundSignature:
    reason, text = found.problem or (None, "")
    return FoundSignature(evidence=found, status="unverified", reason=reason, text=text)
