"""What comes in: gathers the evidence about a manifest, decides, and refuses what is not as it is asked for.

It is asked when the manifest was read, and before anything else of the snapshot is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import tee
from typing import Self

from casstore import spec
from casstore.content import Source
from casstore.digest import Digest
from casstore.errors import DigestMismatch, UntrustedContent
from casstore.evidence import gather
from casstore.jsondoc import load_object
from casstore.lastseen import Sighting
from casstore.manifest import created_time
from casstore.oci import Descriptor
from casstore.signatures.reasons import Reason
from casstore.trust.baseimage import BaseImage
from casstore.trust.decision import Verdict, Why, decide
from casstore.trust.requirement import REQUEST, names
from casstore.trust.scopes import told as place_told
from casstore.trust.trust import Trust

_MOST_TOLD = 10
"""Reasons that an error tells in words."""
_ADVICE = {
    Reason.REFUSED: "if it shall be, the policy needs a rule for it",
    Reason.ROLLED_BACK: "if it was led back on purpose, ask for it by its digest",
    Reason.BASE_IMAGE: "if that base image is right, the policy must name it",
    Reason.OTHER_REPOSITORY: "if it is a mirror, say which repository it is signed for (--signed-for, or signed_for)",
}
_USUAL_ADVICE = "have it signed (casstore sign), or look whether the keys are the right ones"
_NOT_OF_SIGNATURES = {Reason.REFUSED, Reason.ROLLED_BACK, Reason.BASE_IMAGE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Why a manifest was let in."""

    verdicts: tuple[Verdict, ...] = ()
    """One for each requirement; all hold."""
    accepted: tuple[Descriptor, ...] = ()
    """The manifests of the signatures that were relied on."""
    signed_at: datetime | None = None
    """The newest time of these signatures."""
    created: datetime | None = None
    """The time that the manifest tells."""
    step_back: str | None = None
    """Why its name was led back, where that was not forbidden; the caller should warn."""

    def sighting(self, digest: Digest, now: datetime) -> Sighting:
        """What to remember of it."""
        return Sighting(digest=digest, seen=now, signed=self.signed_at, created=self.created)


def admit(
    source: Source, root: Descriptor, raw: bytes, *, place: str, trust: Trust, seen: Sighting | None = None
) -> Admission:
    """Let the manifest `root`, whose bytes are `raw`, in from `place`. `seen` is what its name led to when it was last
    pulled.

    Raises:
        UntrustedContent: it is not what is asked for.
        DocumentError: it is no manifest.
        RegistryError: its signatures cannot be asked for.
    """
    told = _Told.by(raw, root, place)
    verdicts = _judge(source, root, told, place=place, trust=trust, seen=seen, thorough=False)
    failed = [verdict for verdict in verdicts if not verdict.ok]
    if failed:
        raise _refusal(root, place, failed)
    relied = dict.fromkeys(each.manifest for verdict in verdicts for each in verdict.accepted)
    signed_at = max((each.signed_at for each in verdicts if each.signed_at is not None), default=None)
    back = None if seen is None else seen.why_older(root.digest, signed=signed_at, created=told.created)
    return Admission(
        verdicts=verdicts, accepted=tuple(relied), signed_at=signed_at, created=told.created, step_back=back
    )


def judge(
    source: Source,
    root: Descriptor,
    raw: bytes,
    *,
    place: str,
    trust: Trust,
    seen: Sighting | None = None,
    thorough: bool = False,
) -> tuple[Verdict, ...]:
    """The verdict about each requirement; nothing is refused. The signatures are fetched once, and only if some are
    asked for; with `thorough` also those after enough good ones.

    Raises:
        DocumentError: `raw` is no manifest.
        RegistryError: its signatures cannot be asked for.
    """
    told = _Told.by(raw, root, place)
    return _judge(source, root, told, place=place, trust=trust, seen=seen, thorough=thorough)


@dataclass(frozen=True, slots=True)
class _Told:
    """What a manifest says of itself."""

    base: BaseImage
    created: datetime | None

    @classmethod
    def by(cls, raw: bytes, root: Descriptor, place: str) -> Self:
        subject = f"manifest {root.digest} from {place}"
        if Digest.of(raw) != root.digest:
            raise DigestMismatch(subject, expected=str(root.digest), got=str(Digest.of(raw)))
        found = load_object(raw, subject=subject, limit=spec.MAX_MANIFEST).get("annotations")
        texts = found.items() if isinstance(found, dict) else ()
        annotations = {name: text for name, text in texts if isinstance(text, str)}
        return cls(BaseImage.told_by(annotations), created_time(annotations.get(spec.ANNOTATION_CREATED, "")))


def _judge(
    source: Source,
    root: Descriptor,
    told: _Told,
    *,
    place: str,
    trust: Trust,
    seen: Sighting | None,
    thorough: bool,
) -> tuple[Verdict, ...]:
    requirements = trust.requirements(place)
    now = trust.now()
    evidence = tee(gather(source, root), len(requirements))
    return tuple(
        decide(
            root.digest,
            place,
            each,
            asked,
            now=now,
            base=told.base,
            created=told.created,
            seen=seen,
            thorough=thorough,
        )
        for asked, each in zip(requirements, evidence, strict=True)
    )


def _refusal(root: Descriptor, place: str, failed: Sequence[Verdict]) -> UntrustedContent:
    whys = list(dict.fromkeys(why for verdict in failed for why in verdict.reasons))
    asked = "; and ".join(_asked(verdict) for verdict in failed)
    told = "; ".join(f"{reason}: {text}" for reason, text in whys[:_MOST_TOLD])
    more = f"; and {len(whys) - _MOST_TOLD} more" if len(whys) > _MOST_TOLD else ""
    reasons = sorted({str(reason) for reason, _ in whys})
    return UntrustedContent(
        f"{root.digest} from {place_told(place)}: expected {asked}, got {told}{more}; nothing was taken:"
        f" {_advice(whys)}",
        reasons,
    )


def _asked(verdict: Verdict) -> str:
    """What a requirement asks, and who asks it."""
    requirement, wrong = verdict.requirement, {reason for reason, _ in verdict.reasons}
    by_policy = "" if requirement.told == REQUEST else f" ({requirement.told})"
    if wrong == {Reason.ROLLED_BACK}:
        return f"a tag that was not led back{by_policy}"
    if wrong <= _NOT_OF_SIGNATURES:
        return f"what {requirement.told} lets through"
    count, total, keys = requirement.threshold, len(requirement.keys), names(requirement.keys)
    few = f"a signature by {keys}" if total == 1 else f"a signature by one of {keys}"
    wanted = few if count == 1 else f"signatures by {count} of {total} keys ({keys})"
    return wanted + by_policy


def _advice(whys: Sequence[Why]) -> str:
    found = [_ADVICE.get(reason, _USUAL_ADVICE) for reason, _ in whys]
    return "; ".join(dict.fromkeys(found))
