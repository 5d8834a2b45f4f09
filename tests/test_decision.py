"""Which signatures count. The names of the tests are the attacks (row 103); each is refused for its own reason."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.digest import Digest
from casstore.errors import InvalidReference, UsageError
from casstore.lastseen import Sighting
from casstore.signatures.bundle import MAX_BUNDLE
from casstore.signatures.claims import Evidence
from casstore.signatures.reasons import Reason
from casstore.signatures.simplesigning import Payload
from casstore.signatures.statement import REPOSITORY, SIGNED
from casstore.trust.baseimage import BaseImage
from casstore.trust.decision import MAX_TRIED, Verdict, decide
from casstore.trust.requirement import Requirement
from casstore.trust.scopes import Scope
from tests.support.signatures import bundle, changed, cosigned, signed
from tests.support.signing import key

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SUBJECT, OTHER = Digest.of(b"the manifest"), Digest.of(b"another")
PLACE = "registry.example/team/disks"
ONE = Requirement(told="the test", signed=True, keys=(key("ann").public, key("bob").public))
TWO = replace(ONE, threshold=2)

MATERIAL = "verificationMaterial"
PAYLOAD, SIGNATURE = "dsseEnvelope.payload", "dsseEnvelope.signatures.0.sig"


def told(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def by(
    name: str, subject: Digest = SUBJECT, *, repository: str | None = None, signed_at: datetime | None = None
) -> Evidence:
    """A bundle that says so much."""
    said = {REPOSITORY: repository, SIGNED: None if signed_at is None else f"{signed_at:%Y-%m-%dT%H:%M:%SZ}"}
    annotations = {name: text for name, text in said.items() if text is not None}
    return bundle(key(name), subject=subject, annotations=annotations)


def cosign(name: str, subject: Digest, repository: str, *, signed_at: datetime | None = None) -> Evidence:
    """The same in cosign's form."""
    timestamp = None if signed_at is None else int(signed_at.timestamp())
    return cosigned(key(name), Payload(subject=subject, repository=repository, timestamp=timestamp).to_bytes())


good = by("ann")
posing = bundle(key("eve"), subject=SUBJECT, hint=key("ann").public.hint)


def verdict(
    *evidence: Evidence, asked: Requirement = ONE, place: str = PLACE, subject: Digest = SUBJECT, **more: Any
) -> Verdict:
    return decide(subject, place, iter(evidence), asked, now=NOW, **more)


def reasons(verdict: Verdict) -> set[str]:
    assert len({reason for reason, _ in verdict.reasons}) == len(verdict.reasons), "each reason once"
    assert verdict.ok == (not verdict.reasons)
    return {str(reason) for reason, _ in verdict.reasons}


def statement(**more: Any) -> Evidence:
    """A statement by the right key that says something else than a signature."""
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicate": {},
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "subject": [{"digest": {"sha256": SUBJECT.hex}}],
    }
    return signed(key("ann"), json.dumps({**document, **more}).encode())


def readdressed(evidence: Evidence) -> Evidence:
    """A bundle about OTHER, made one about SUBJECT by who cannot sign it anew."""
    payload = base64.b64decode(json.loads(evidence.raw)["dsseEnvelope"]["payload"])
    other = payload.replace(OTHER.hex.encode(), SUBJECT.hex.encode())
    return changed(evidence, PAYLOAD, base64.b64encode(other).decode())


def flipped(evidence: Evidence) -> Evidence:
    """A bundle with one wrong bit in its signature."""
    signature = bytearray(base64.b64decode(json.loads(evidence.raw)["dsseEnvelope"]["signatures"][0]["sig"]))
    signature[9] ^= 1
    return changed(evidence, SIGNATURE, base64.b64encode(signature).decode())


ATTACKS: list[tuple[str, Evidence | None, Reason]] = [
    ("stripped signature", None, Reason.NO_SIGNATURES),
    ("wrong key", by("eve"), Reason.UNKNOWN_KEY),
    ("wrong key that says it is the right one", posing, Reason.BAD_SIGNATURE),
    ("wrong key of another kind", by("ed-eve"), Reason.UNKNOWN_KEY),
    ("wrong key, in cosign's form", cosign("eve", SUBJECT, PLACE), Reason.BAD_SIGNATURE),
    ("other digest", by("ann", OTHER), Reason.OTHER_DIGEST),
    ("other digest, in cosign's form", cosign("ann", OTHER, PLACE), Reason.OTHER_DIGEST),
    ("other digest, changed into the right one", readdressed(by("ann", OTHER)), Reason.BAD_SIGNATURE),
    ("other repository", by("ann", repository="registry.example/team/test"), Reason.OTHER_REPOSITORY),
    ("other host", by("ann", repository="other.example/team/disks"), Reason.OTHER_REPOSITORY),
    ("other port", by("ann", repository="registry.example:5000/team/disks"), Reason.OTHER_REPOSITORY),
    ("repository above", by("ann", repository="registry.example/team"), Reason.OTHER_REPOSITORY),
    ("repository below", by("ann", repository=f"{PLACE}/more"), Reason.OTHER_REPOSITORY),
    ("other repository, in cosign's form", cosign("ann", SUBJECT, "registry.example/x"), Reason.OTHER_REPOSITORY),
    ("signature from the future", by("ann", signed_at=NOW + timedelta(minutes=5, seconds=1)), Reason.FROM_THE_FUTURE),
    ("signature of another type", statement(predicateType="https://slsa.dev/provenance/v1"), Reason.OTHER_TYPE),
    ("statement of another version", statement(_type="https://in-toto.io/Statement/v0.1"), Reason.OTHER_TYPE),
    ("payload of another type", signed(key("ann"), b"x", payload_type="text/plain"), Reason.OTHER_TYPE),
    ("payload type changed", changed(good, "dsseEnvelope.payloadType", "application/json"), Reason.BAD_SIGNATURE),
    ("unparsable payload by the right key", signed(key("ann"), b"{"), Reason.MALFORMED),
    ("payload with a key twice by the right key", signed(key("ann"), b'{"_type":"a","_type":"b"}'), Reason.MALFORMED),
    ("empty payload by the right key", signed(key("ann"), b""), Reason.MALFORMED),
    ("no subject", statement(subject=[]), Reason.MALFORMED),
    ("two subjects", statement(subject=[{"digest": {"sha256": d.hex}} for d in (OTHER, SUBJECT)]), Reason.MALFORMED),
    ("subject by another algorithm", statement(subject=[{"digest": {"sha512": "0" * 128}}]), Reason.MALFORMED),
    ("unparsable payload by the wrong key", flipped(signed(key("ann"), b"{")), Reason.BAD_SIGNATURE),
    ("truncated bundle", replace(good, raw=good.raw[: len(good.raw) // 2]), Reason.MALFORMED),
    ("empty bundle", replace(good, raw=b""), Reason.MALFORMED),
    ("large bundle", replace(good, raw=good.raw + b" " * MAX_BUNDLE), Reason.TOO_LARGE),
    ("zero signatures in an envelope", changed(good, "dsseEnvelope.signatures", []), Reason.MALFORMED),
    ("a bit of the signature flipped", flipped(good), Reason.BAD_SIGNATURE),
    ("keyless", changed(good, MATERIAL, {"certificate": {"rawBytes": "AA=="}}), Reason.KEYLESS),
    ("signature of a message", changed(good, "messageSignature", {}), Reason.UNKNOWN_FORM),
    ("bundle of another version", changed(good, "mediaType", "x"), Reason.UNKNOWN_FORM),
    ("cosign's form without a signature", replace(cosign("ann", SUBJECT, PLACE), signature=None), Reason.MALFORMED),
    ("signature that cannot be fetched", replace(good, raw=b"", problem=(Reason.UNREADABLE, "x")), Reason.UNREADABLE),
    ("problem beside a good bundle", replace(good, problem=(Reason.TOO_LARGE, "x")), Reason.TOO_LARGE),
]  # fmt: skip


@pytest.mark.parametrize(("evidence", "reason"), [case[1:] for case in ATTACKS], ids=[case[0] for case in ATTACKS])
def test_attack(evidence: Evidence | None, reason: Reason) -> None:
    """Row 103: refused for its reason; and it hides no good signature, wherever that is."""
    bad = [] if evidence is None else [evidence]
    refused = verdict(*bad)
    assert reasons(refused) == {reason}
    assert not refused.accepted
    assert [judged.reason for judged in refused.judged] == ([] if evidence is None else [reason])
    for among in ([*bad, good], [good, *bad], [*bad * 3, good, *bad * 3]):
        accepted = verdict(*among)
        assert accepted.ok
        assert accepted.accepted == (good,)


@pytest.mark.parametrize("asked", [ONE, TWO])
def test_no_evidence_is_never_enough(asked: Requirement) -> None:
    """Zero signatures checked is no pass, whatever is asked besides."""
    assert reasons(verdict(asked=asked)) == {"no-signatures"}
    assert reasons(verdict(good, asked=replace(asked, keys=()))) == {"unknown-key"}


def test_a_threshold_that_nothing_would_reach() -> None:
    with pytest.raises(UsageError, match="threshold of 1 or more, got 0"):
        replace(ONE, threshold=0)


@pytest.mark.parametrize(
    "evidence",
    [
        good,
        by("bob"),
        by("ann", repository=PLACE, signed_at=NOW),
        by("ann", signed_at=NOW + timedelta(minutes=5)),
        by("ann", signed_at=NOW - 3000 * DAY),
        cosign("ann", SUBJECT, PLACE),
        statement(predicate={"more": 1}),
        changed(good, f"{MATERIAL}.tlogEntries", [{}]),
        bundle(key("ann"), subject=SUBJECT, hint="mine"),
    ],
)
def test_a_good_signature_is_enough(evidence: Evidence) -> None:
    assert verdict(evidence).accepted == (evidence,)


def test_a_key_of_the_other_kind_is_as_good() -> None:
    asked = replace(ONE, keys=(key("ed-carl").public,))
    assert verdict(by("ed-carl"), asked=asked).ok


def test_two_signatures_by_one_key_for_threshold_2() -> None:
    """Row 103: a key counts once, also in two forms and under two names."""
    more = [by("ann", signed_at=NOW - n * DAY) for n in range(8)]
    refused = verdict(good, cosign("ann", SUBJECT, PLACE), *more, asked=TWO)
    assert reasons(refused) == {"too-few-keys"}
    assert "expected 2 different keys, got 1: ann" in dict(refused.reasons)[Reason.TOO_FEW_KEYS]
    assert verdict(good, *more, by("bob"), asked=TWO).ok


def test_unsigned_among_signed() -> None:
    """Row 103: one good and one bad signature are one, and both facts are told."""
    refused = verdict(
        good, by("eve"), by("eve", OTHER), changed(good, MATERIAL, {"certificate": {"rawBytes": "AA=="}}), asked=TWO
    )
    assert reasons(refused) == {"too-few-keys", "unknown-key", "keyless"}
    assert dict(refused.reasons)[Reason.UNKNOWN_KEY].startswith("2 signatures, the first: by none of the trusted keys")


def test_ten_thousand_signatures() -> None:
    """Row 103: no more are looked at than MAX_TRIED, also where there is no end."""
    drawn = 0

    def endless(last: Evidence) -> Iterator[Evidence]:
        nonlocal drawn
        bad = by("eve")
        for drawn in itertools.count(1):
            yield last if drawn == MAX_TRIED else bad

    assert reasons(decide(SUBJECT, PLACE, endless(by("eve")), ONE, now=NOW)) == {"unknown-key", "too-many"}
    assert drawn == MAX_TRIED
    assert decide(SUBJECT, PLACE, endless(good), ONE, now=NOW).ok
    refused = verdict(*[by("eve")] * MAX_TRIED, good)
    assert reasons(refused) == {"unknown-key", "too-many"}
    told_so = replace(good, raw=b"", problem=(Reason.TOO_MANY, "the list has more"))
    assert reasons(verdict(*[by("eve")] * 99, told_so)) == {"unknown-key", "too-many"}


def test_it_stops_when_there_are_enough() -> None:
    def lazy() -> Iterator[Evidence]:
        yield by("eve")
        yield good
        raise AssertionError("drawn without need")

    assert decide(SUBJECT, PLACE, lazy(), ONE, now=NOW).ok
    assert len(verdict(good, by("eve"), thorough=True).judged) == 2


def test_what_is_refused_draws_no_evidence() -> None:
    def none() -> Iterator[Evidence]:
        raise AssertionError("drawn without need")
        yield

    asked = Requirement(told="the test", refuse=True)
    assert reasons(decide(SUBJECT, PLACE, none(), asked, now=NOW)) == {"refused"}
    assert decide(SUBJECT, PLACE, none(), Requirement(told="the test", no_rollback=True), now=NOW).ok


def test_too_old() -> None:
    """Row 103."""
    asked = replace(ONE, max_age=90 * DAY)
    assert verdict(by("ann", signed_at=NOW - 90 * DAY), asked=asked).ok
    old, timeless = by("ann", signed_at=NOW - 90 * DAY - timedelta(seconds=1)), good
    assert reasons(verdict(old, asked=asked)) == {"too-old"}
    assert reasons(verdict(timeless, asked=asked)) == {"too-old"}
    oldest = f"{NOW - 90 * DAY:%Y-%m-%d %H:%M:%S} UTC"
    assert verdict(old, asked=asked).reasons[0][1].endswith(f"expected not before {oldest}")
    assert "does not say when" in verdict(timeless, asked=asked).reasons[0][1]
    assert reasons(verdict(cosign("ann", SUBJECT, PLACE), asked=asked)) == {"too-old"}
    assert verdict(cosign("ann", SUBJECT, PLACE, signed_at=NOW), asked=asked).ok
    assert reasons(verdict(by("ann", signed_at=NOW + DAY), asked=asked)) == {"from-the-future"}
    young = by("bob", signed_at=NOW)
    assert reasons(verdict(old, young, asked=replace(asked, threshold=2))) == {"too-old", "too-few-keys"}


MIRRORED = replace(ONE, signed_for=(Scope.of_repositories("origin.example/team"),))


@pytest.mark.parametrize(
    ("asked", "place", "repository", "is_enough"),
    [
        (ONE, PLACE, None, True),
        (ONE, PLACE.replace("registry", "Registry"), PLACE, True),
        (ONE, "docker.io/alpine", "index.docker.io/library/alpine", True),
        (ONE, "oci:/mirror", PLACE, True),
        (ONE, "store", PLACE, True),
        (ONE, "archive", PLACE, True),
        (MIRRORED, PLACE, "origin.example/team/disks", True),
        (MIRRORED, PLACE, PLACE, True),
        (MIRRORED, PLACE, "origin.example/team2", False),
        (MIRRORED, PLACE, "origin.example/other", False),
        (MIRRORED, "oci:/mirror", "origin.example/team/disks", True),
        (MIRRORED, "oci:/mirror", PLACE, False),
        (MIRRORED, "store", PLACE, False),
        (MIRRORED, "archive", None, True),
        (replace(ONE, repository_always=True), PLACE, PLACE, True),
        (replace(ONE, repository_always=True), PLACE, None, False),
        (replace(ONE, repository_always=True), "store", None, False),
        (replace(ONE, repository_always=True), "store", PLACE, True),
        (replace(MIRRORED, repository_always=True), PLACE, None, False),
    ],
)
def test_which_repository_a_signature_may_be_for(
    asked: Requirement, place: str, repository: str | None, is_enough: bool
) -> None:
    got = reasons(verdict(by("ann", repository=repository), asked=asked, place=place))
    assert got == (set() if is_enough else {"other-repository"})


def test_no_place_no_verdict() -> None:
    with pytest.raises(InvalidReference):
        verdict(good, place="disks")


ALPINE = replace(ONE, base_images=(BaseImage.parse("docker.io/library/alpine"),))


def test_base_image() -> None:
    """A good signature over a snapshot of another image is not enough."""
    alpine, debian = (BaseImage.parse(f"docker.io/{name}:1") for name in ("alpine", "debian"))
    assert verdict(good, asked=ALPINE, base=alpine).ok
    assert reasons(verdict(good, asked=ALPINE, base=debian)) == {"base-image"}
    assert reasons(verdict(good, asked=ALPINE)) == {"base-image"}
    assert reasons(verdict(asked=ALPINE, base=debian)) == {"base-image", "no-signatures"}
    assert verdict(asked=ALPINE, base=debian).reasons[1][1] == (
        "expected a base image of docker.io/library/alpine, got docker.io/library/debian:1"
    )


CAREFUL = replace(ONE, no_rollback=True)
SEEN = Sighting(digest=OTHER, seen=NOW - DAY, signed=NOW - 2 * DAY, created=NOW - 3 * DAY, earlier=(Digest.of(b"0"),))


def test_replayed_old_tag() -> None:
    """Row 103: a good signature of what the name led to before, or of what is older."""
    superseded = Digest.of(b"0")
    again = by("ann", superseded, signed_at=NOW)
    assert reasons(verdict(again, asked=CAREFUL, subject=superseded, seen=SEEN)) == {"rolled-back"}
    assert verdict(again, asked=ONE, subject=superseded, seen=SEEN).ok, "it was not asked for"
    older = by("ann", signed_at=NOW - 5 * DAY)
    refused = verdict(older, asked=CAREFUL, seen=SEEN, created=NOW)
    assert reasons(refused) == {"rolled-back"}
    assert told(NOW - 5 * DAY) in refused.reasons[0][1]
    assert verdict(by("ann", signed_at=NOW), asked=CAREFUL, seen=SEEN).ok
    assert verdict(older, asked=CAREFUL, seen=None).ok, "the first time"
    assert verdict(by("ann", OTHER, signed_at=NOW - 5 * DAY), asked=CAREFUL, seen=SEEN, subject=OTHER).ok


def test_replayed_old_tag_without_times() -> None:
    """Where signatures tell no time, the artifact does; where nobody does, it is not the newer one."""
    assert verdict(good, asked=CAREFUL, seen=SEEN, created=NOW).ok
    assert reasons(verdict(good, asked=CAREFUL, seen=SEEN, created=NOW - 9 * DAY)) == {"rolled-back"}
    assert reasons(verdict(good, asked=CAREFUL, seen=SEEN)) == {"rolled-back"}
    assert verdict(good, asked=CAREFUL, seen=Sighting(digest=OTHER, seen=NOW)).ok


def test_a_newer_signature_shows_that_it_was_not_rolled_back() -> None:
    """In whatever order they are listed: whoever lists them must not choose."""
    old, new = (by("ann", signed_at=NOW - n * DAY) for n in (5, 1))
    for listed in ([old, new], [new, old]):
        accepted = verdict(*listed, asked=CAREFUL, seen=SEEN)
        assert accepted.accepted == (new,)
        assert accepted.signed_at == NOW - DAY


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_of_several_signatures_by_one_key_the_newest_is_relied_on(order: Sequence[int]) -> None:
    timeless, old, new = good, by("ann", signed_at=NOW - DAY), by("ann", signed_at=NOW)
    listed = [(timeless, old, new)[n] for n in order]
    got = verdict(*listed, thorough=True)
    assert (got.accepted, got.signed_at) == ((new,), NOW)
    assert verdict(*listed).accepted == (listed[0],), "the first is enough"


def test_replayed_unsigned_tag() -> None:
    """Also where nothing has to be signed."""
    asked = Requirement(told="the test", no_rollback=True)
    assert reasons(verdict(asked=asked, seen=SEEN, created=NOW - 9 * DAY)) == {"rolled-back"}
    assert verdict(asked=asked, seen=SEEN, created=NOW).ok


def test_a_replay_is_told_besides_what_is_wrong_with_the_signatures() -> None:
    superseded = Digest.of(b"0")
    refused = verdict(by("eve", superseded), asked=CAREFUL, subject=superseded, seen=SEEN)
    assert reasons(refused) == {"unknown-key", "rolled-back"}


KINDS: dict[str, tuple[Evidence, str | None, bool]] = {
    "ann": (good, "ann", True),
    "ann again": (by("ann", signed_at=NOW), "ann", True),
    "bob": (by("bob"), "bob", True),
    "carl": (cosign("carl", SUBJECT, PLACE), "carl", True),
    "eve": (by("eve"), None, False),
    "ann of another": (by("ann", OTHER), "ann", False),
    "ann broken": (replace(good, raw=b"{"), "ann", False),
}


@given(st.lists(st.sampled_from(sorted(KINDS)), max_size=12), st.integers(1, 3), st.booleans())
def test_enough_is_as_many_different_keys_as_are_asked_for(listed: list[str], threshold: int, thorough: bool) -> None:
    """Against the definition: so many trusted keys have a good signature among them."""
    asked = replace(ONE, keys=(key("ann").public, key("bob").public, key("carl").public), threshold=threshold)
    got = verdict(*(KINDS[kind][0] for kind in listed), asked=asked, thorough=thorough)
    signers = {KINDS[kind][1] for kind in listed if KINDS[kind][2]}
    assert got.ok == (len(signers) >= threshold)
    assert bool(reasons(got)) != got.ok
    assert len(got.accepted) == (len(signers) if thorough else min(len(signers), threshold))
    assert all(evidence in {kind[0] for kind in KINDS.values() if kind[2]} for evidence in got.accepted)
