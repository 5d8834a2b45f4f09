"""Evidence and a requirement -> a verdict. Pure: nothing is fetched here but by drawing the next piece of evidence.

Evidence may be endless, and may be lies. So at most MAX_TRIED signatures are looked at, and no more than are needed;
what good ones there are counts, whatever lies beside them; and a key counts once, however often it has signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from casstore.digest import Digest
from casstore.lastseen import AHEAD, Sighting
from casstore.signatures.claims import Claim, Evidence, check
from casstore.signatures.reasons import Reason, Rejected
from casstore.trust.baseimage import BaseImage
from casstore.trust.requirement import Requirement, names
from casstore.trust.scopes import STORE, Parts, is_registry, place_parts, repository_parts
from casstore.trust.scopes import told as place_told

MAX_TRIED = 100
"""Signatures that are looked at."""
_SHOWN = 300
"""Characters of what is told of one signature."""

Why = tuple[Reason, str]
"""A reason, for machines and in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A signature that was looked at."""

    evidence: Evidence
    claim: Claim | None = None
    """What it says; None where no trusted key says it about this."""
    reason: Reason | None = None
    """Why it does not count; None where it does."""
    text: str = ""
    """The reason in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was decided about a requirement."""

    requirement: Requirement
    reasons: tuple[Why, ...] = ()
    """Why it does not hold, each reason once; none where it holds."""
    judged: tuple[Judged, ...] = ()
    """The signatures that were looked at, in their order."""
    accepted: tuple[Evidence, ...] = ()
    """Of each key that was counted, the newest good signature."""
    signed_at: datetime | None = None
    """The newest time of the accepted ones; None where none tells one."""

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return not self.reasons


def decide(
    subject: Digest,
    place: str,
    evidence: Iterable[Evidence],
    requirement: Requirement,
    *,
    now: datetime,
    base: BaseImage = BaseImage(),  # noqa: B008  (it is frozen)
    created: datetime | None = None,
    seen: Sighting | None = None,
    thorough: bool = False,
) -> Verdict:
    """Whether what is asked holds for the manifest `subject` from `place`. It says of itself that it comes from `base`
    and was `created` then. `seen` is what its name led to when it was last pulled; None where it has no name, or this
    is the first time. With `thorough` signatures are looked at also after there are enough, for who shows them.

    Raises:
        InvalidReference: `place` is none.
    """
    if requirement.refuse:
        advice = '; a rule with scope = "store" says what is asked of it' if place == STORE else ""
        told = f"nothing from {place_told(place)} is let in{advice}"
        return Verdict(requirement=requirement, reasons=((Reason.REFUSED, told),))
    watched = seen if requirement.no_rollback else None
    parts = place_parts(place)
    judged: list[Judged] = []
    good: dict[Digest, Judged] = {}
    back = None if watched is None else watched.why_older(subject, signed=None, created=created)
    enough = not requirement.signed
    for each in islice(evidence, MAX_TRIED) if requirement.signed else ():
        judged.append(_judge(each, subject, parts, requirement, now))
        _count(good, judged[-1])
        enough = len(good) >= requirement.threshold
        if watched is not None:
            back = watched.why_older(subject, signed=_newest(good), created=created)
        if enough and back is None and not thorough:
            break
    reasons: list[Why] = [] if enough else _too_few(judged, good, requirement)
    if requirement.base_images and not any(wanted.covers(base) for wanted in requirement.base_images):
        wanted = ", ".join(map(str, requirement.base_images[:5]))
        reasons.append((Reason.BASE_IMAGE, f"expected a base image of {wanted}, got {base}"))
    if watched is not None and back is not None and (enough or subject in watched.earlier):
        reasons.append((Reason.ROLLED_BACK, back))
    return Verdict(
        requirement=requirement,
        reasons=tuple(reasons),
        judged=tuple(judged),
        accepted=tuple(each.evidence for each in good.values()),
        signed_at=_newest(good),
    )


def _judge(evidence: Evidence, subject: Digest, place: Parts, requirement: Requirement, now: datetime) -> Judged:
    """Whether one signature counts."""
    claim: Claim | None = None
    try:
        claim = check(evidence, subject, requirement.keys)
        _require_repository(claim, place, requirement)
        _require_time(claim, requirement, now)
    except Rejected as error:
        return Judged(evidence=evidence, claim=claim, reason=error.reason, text=error.text)
    return Judged(evidence=evidence, claim=claim)


def _require_repository(claim: Claim, place: Parts, requirement: Requirement) -> None:
    """Raise Rejected for a signature that is for another repository. In a store, layout or archive, which has none, one
    for any repository will do, unless it is said which.
    """
    who, allowed = f"signed by {claim.key.name}", [scope.text for scope in requirement.signed_for]
    if claim.repository is None:
        if requirement.repository_always:
            raise Rejected(Reason.OTHER_REPOSITORY, f"{who}, but for no repository in particular, which is not enough")
        return
    told = repository_parts(claim.repository)
    if told is not None:
        if any(scope.covers(told) for scope in requirement.signed_for):
            return
        if told == place if is_registry(place) else not allowed:
            return
    expected = ", ".join(["/".join(place)] * is_registry(place) + allowed[:5])
    got = ascii(claim.repository[:_SHOWN])[1:-1]
    raise Rejected(Reason.OTHER_REPOSITORY, f"{who}, but for {got} instead of {expected}")


def _require_time(claim: Claim, requirement: Requirement, now: datetime) -> None:
    """Raise Rejected for a signature that is too old, or has no time where its age counts; and always for one from the
    future, which would make all later ones look old.
    """
    who = f"signed by {claim.key.name}"
    if claim.signed_at is not None and claim.signed_at > now + AHEAD:
        problem = f"{who} at {_told(claim.signed_at)}, and here it is {_told(now)}; is the clock right?"
        raise Rejected(Reason.FROM_THE_FUTURE, problem)
    if requirement.max_age is None:
        return
    if claim.signed_at is None:
        raise Rejected(Reason.TOO_OLD, f"{who}, but it does not say when, and its age counts")
    if now - claim.signed_at > requirement.max_age:
        oldest = _told(now - requirement.max_age)
        raise Rejected(Reason.TOO_OLD, f"{who} at {_told(claim.signed_at)}, expected not before {oldest}")


def _count(good: dict[Digest, Judged], judged: Judged) -> None:
    """Let a signature count for its key; of several by one key it is the newest."""
    if judged.reason is not None or judged.claim is None:
        return
    name, time = judged.claim.key.fingerprint, judged.claim.signed_at
    before = good.get(name)
    known = None if before is None or before.claim is None else before.claim.signed_at
    if before is None or (time is not None and (known is None or time > known)):
        good[name] = judged


def _newest(good: Mapping[Digest, Judged]) -> datetime | None:
    """The newest time of good signatures."""
    claims = [each.claim for each in good.values() if each.claim is not None]
    return max((claim.signed_at for claim in claims if claim.signed_at is not None), default=None)


def _too_few(judged: Sequence[Judged], good: Mapping[Digest, Judged], requirement: Requirement) -> list[Why]:
    """Why there are not enough good signatures: at least one reason."""
    if not judged:
        return [(Reason.NO_SIGNATURES, "it has none")]
    by_reason: dict[Reason, list[str]] = {}
    for each in judged:
        if each.reason is not None:
            by_reason.setdefault(each.reason, []).append(each.text[:_SHOWN])
    reasons = [
        (reason, texts[0] if len(texts) == 1 else f"{len(texts)} signatures, the first: {texts[0]}")
        for reason, texts in by_reason.items()
    ]
    if good:
        signers = names([each.claim.key for each in good.values() if each.claim is not None])
        problem = f"expected {requirement.threshold} different keys, got {len(good)}: {signers}"
        reasons.append((Reason.TOO_FEW_KEYS, problem))
    if len(judged) >= MAX_TRIED and Reason.TOO_MANY not in by_reason:
        reasons.append((Reason.TOO_MANY, f"{MAX_TRIED} signatures were looked at, and more never are"))
    return reasons


def _told(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
