"""The way in: what is gathered, what is refused and how that is told, and that nothing else is fetched (row 103)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from casstore import spec
from casstore.content import Fetcher, Reader
from casstore.digest import Digest
from casstore.errors import DigestMismatch, DocumentError, Unavailable, UntrustedContent
from casstore.lastseen import Sighting
from casstore.memory import MemoryTarget
from casstore.names import attachment_name
from casstore.oci import Descriptor
from casstore.signatures import simplesigning
from casstore.signatures.bundle import MEDIA_TYPE
from casstore.streams import BytesSource
from casstore.trust.admission import Admission, admit, judge
from casstore.trust.decision import MAX_TRIED
from casstore.trust.policy import Policy
from casstore.trust.trust import Trust
from tests.support.manifests import EMPTY, EMPTY_TYPE, image_manifest, put
from tests.support.signatures import REPOSITORY, bundle, signed
from tests.support.signing import NOW, key, sign_by

DAY = timedelta(days=1)
BASE = {spec.ANNOTATION_BASE_NAME: "docker.io/library/alpine:3.20", spec.ANNOTATION_CREATED: "2026-01-01T00:00:00Z"}


class Watched(MemoryTarget):
    """Knows what was fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[Descriptor] = []
        self.listed = 0

    def fetch(self, descriptor: Descriptor) -> Reader:
        self.fetched.append(descriptor)
        return super().fetch(descriptor)

    def referrers(self, subject: Descriptor) -> Sequence[Descriptor]:
        self.listed += 1
        return super().referrers(subject)


class Scene:
    """A place with one manifest, which names a layer that nobody may fetch."""

    def __init__(self, **annotations: str) -> None:
        self.target = Watched()
        put(self.target, EMPTY, EMPTY_TYPE)
        layer = put(self.target, b"the disk", "application/octet-stream")
        self.raw = image_manifest([layer], subject=None, artifact_type=spec.ARTIFACT_TYPE, **annotations)
        self.root = put(self.target, self.raw, spec.MEDIA_MANIFEST)

    def admit(self, trust: Trust, *, seen: Sighting | None = None, place: str = REPOSITORY) -> Admission:
        self.target.fetched.clear()
        return admit(self.target, self.root, self.raw, place=place, trust=trust, seen=seen)

    def refused(self, trust: Trust, *, seen: Sighting | None = None, place: str = REPOSITORY) -> UntrustedContent:
        with pytest.raises(UntrustedContent) as caught:
            self.admit(trust, seen=seen, place=place)
        return caught.value


@pytest.fixture
def scene() -> Scene:
    return Scene(**BASE)


def trusting(*names: str, threshold: int = 1, policy: str | None = None, no_rollback: bool = False) -> Trust:
    keys = tuple(key(name).public for name in names)
    return Trust(
        keys=keys,
        threshold=threshold,
        no_rollback=no_rollback,
        now=lambda: NOW + DAY,
        policy=None if policy is None else following(policy),
    )


def following(rules: str) -> Policy:
    names = ("alice", "bob", "carol")
    keys = "".join(f'{name} = """\n{key(name).public.to_pem().decode()}"""\n' for name in names)
    text = f'version = 1\ndefault = "refuse"\n[keys]\n{keys}{rules}'
    return Policy.parse(text.encode(), subject="policy 'p.toml'", read_key=lambda name: b"")


RULE = f'[[rules]]\nscope = "{REPOSITORY}"\nrequire = "signed"\nkeys = ["bob"]\n'


def test_what_is_signed_is_let_in(scene: Scene) -> None:
    """And only the manifests of signatures that were relied on are told, each once."""
    sign_by(scene.target, scene.root, "eve")
    (good,) = sign_by(scene.target, scene.root, "alice")
    sign_by(scene.target, scene.root, "carol")
    admission = scene.admit(trusting("alice", "bob"))
    assert admission.accepted == (good.descriptor,)
    assert [verdict.ok for verdict in admission.verdicts] == [True]
    assert admission.signed_at == NOW
    assert admission.created == datetime(2026, 1, 1, tzinfo=UTC)
    assert admission.step_back is None
    seen = admission.sighting(scene.root.digest, NOW)
    assert seen == Sighting(digest=scene.root.digest, seen=NOW, signed=NOW, created=admission.created)


def test_nothing_but_signatures_is_fetched(scene: Scene) -> None:
    sign_by(scene.target, scene.root, "alice", "bob", cosign_tag=True)
    scene.admit(trusting("alice", "bob", threshold=2))
    kinds = {each.media_type for each in scene.target.fetched}
    assert kinds <= {spec.MEDIA_MANIFEST, MEDIA_TYPE, simplesigning.MEDIA_TYPE}
    assert scene.root not in scene.target.fetched


def test_both_forms_of_one_signature_are_one_key(scene: Scene) -> None:
    sign_by(scene.target, scene.root, "alice", cosign_tag=True)
    refused = scene.refused(trusting("alice", "bob", threshold=2))
    assert refused.reasons == ("too-few-keys",)


def test_signatures_in_cosigns_form_are_relied_on_as_one_manifest(scene: Scene) -> None:
    *_, attached = sign_by(scene.target, scene.root, "alice", "bob", cosign_tag=True)
    for descriptor in scene.target.referrers(scene.root):  # as a tool that knows no referrers copies it
        scene.target.delete(descriptor)
    only = Watched()
    for digest, content in scene.target._contents.items():
        only._contents[digest] = content
    only.tag(attached.descriptor, attachment_name(scene.root.digest))
    admission = admit(only, scene.root, scene.raw, place=REPOSITORY, trust=trusting("alice", "bob", threshold=2))
    assert admission.accepted == (attached.descriptor,)


def test_nothing_asked_fetches_nothing(scene: Scene) -> None:
    admission = scene.admit(Trust())
    assert (admission.verdicts, admission.accepted, scene.target.fetched) == ((), (), [])
    assert scene.target.listed == 0


def test_what_is_refused_fetches_nothing(scene: Scene) -> None:
    sign_by(scene.target, scene.root, "bob")
    scene.target.listed = 0
    refused = scene.refused(trusting(policy=RULE), place="elsewhere.example/x")
    assert refused.reasons == ("refused",)
    assert "policy 'p.toml', default" in str(refused)
    assert (scene.target.fetched, scene.target.listed) == ([], 0)


def test_the_error_says_all_of_it(scene: Scene) -> None:
    """The subject, what was expected and why it is not so, where, and what to do; for machines sorted."""
    sign_by(scene.target, scene.root, "eve")
    sign_by(scene.target, scene.root, "mallory", cosign_tag=True)
    sign_by(scene.target, scene.root, "alice", repository="registry.example/team/test")
    refused = scene.refused(trusting("alice", "bob"))
    assert refused.exit_code == 13
    assert refused.reasons == ("bad-signature", "other-repository", "unknown-key")
    text = str(refused)
    assert text.startswith(f"{scene.root.digest} from {REPOSITORY}: expected a signature by one of alice, bob, got ")
    assert "unknown-key: 2 signatures, the first: by none of the trusted keys" in text
    assert "signed by alice, but for registry.example/team/test instead of registry.example/team/disks" in text
    assert "nothing was taken" in text
    assert "signed_for" in text
    assert len(text) < 2500
    assert text.isprintable()


def test_the_error_does_not_grow_without_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_by(scene.target, scene.root, "eve", cosign_tag=True)
    assert "; and 1 more" not in str(scene.refused(trusting("alice")))
    monkeypatch.setattr("casstore.trust.admission._MOST_TOLD", 1)
    refused = scene.refused(trusting("alice"))
    assert "; and 1 more; nothing was taken" in str(refused)
    assert refused.reasons == ("bad-signature", "unknown-key"), "for machines they are all there"


def test_no_more_is_looked_at_than_is_needed(scene: Scene) -> None:
    sign_by(scene.target, scene.root, "alice")
    sign_by(scene.target, scene.root, "bob")
    admission = scene.admit(trusting("alice", "bob"))
    assert [len(verdict.judged) for verdict in admission.verdicts] == [1]
    (verdict,) = judge(scene.target, scene.root, scene.raw, place=REPOSITORY, trust=trusting("alice", "bob"))
    assert len(verdict.judged) == 1


def test_what_strangers_write_is_told_without_controls(scene: Scene) -> None:
    """Row 64: in names of keys, of repositories and in payloads."""
    evil = "\x1b]52;c;x\x07\u202e"
    about = scene.root.digest
    for evidence in (
        bundle(key("eve"), subject=about, annotations={"io.casstore.repository": evil}),
        bundle(key("eve"), subject=about, hint=evil),
        signed(key("eve"), f'{{"_type":"{evil}"}}'.encode(), payload_type=evil),
    ):
        blob = put(scene.target, evidence.raw, MEDIA_TYPE)
        raw = image_manifest([blob], subject=scene.root, artifact_type=MEDIA_TYPE)
        scene.target.attach(Descriptor.of(raw, spec.MEDIA_MANIFEST), scene.root, BytesSource(raw))
    assert str(scene.refused(trusting("eve", "bob", threshold=2))).isprintable()
    assert str(scene.refused(trusting("alice"))).isprintable()


def test_keys_and_policy_must_both_hold(scene: Scene) -> None:
    sign_by(scene.target, scene.root, "alice")
    trust = trusting("alice", policy=RULE)
    refused = scene.refused(trust)
    assert refused.reasons == ("unknown-key",)
    assert "expected a signature by bob (policy 'p.toml', rule for registry.example/team/disks), got " in str(refused)
    assert "alice" not in str(refused), "what holds is not told"
    (by_bob,) = sign_by(scene.target, scene.root, "bob")
    scene.target.listed = 0
    admission = scene.admit(trust)
    assert len(admission.accepted) == 2
    assert by_bob.descriptor in admission.accepted
    assert scene.target.listed == 1, "gathered once"
    assert len(scene.target.fetched) == len(set(scene.target.fetched))


def test_base_image_of_the_signed_manifest() -> None:
    rule = RULE + 'base_images = ["docker.io/library/alpine"]\n'
    for name, reasons in (("alpine:3.20", ()), ("docker.io/library/debian", ("base-image",))):
        scene = Scene(**{spec.ANNOTATION_BASE_NAME: name})
        sign_by(scene.target, scene.root, "bob")
        if reasons:
            assert scene.refused(trusting(policy=rule)).reasons == reasons
        else:
            scene.admit(trusting(policy=rule))


def test_a_name_that_was_led_back(scene: Scene) -> None:
    """Refused where it is asked for, and else told to the caller."""
    sign_by(scene.target, scene.root, "alice")
    other = Digest.of(b"newer")
    for seen in (
        Sighting(digest=other, seen=NOW, signed=NOW + DAY),
        Sighting(digest=other, seen=NOW, earlier=(scene.root.digest,)),
    ):
        refused = scene.refused(trusting("alice", no_rollback=True), seen=seen)
        assert refused.reasons == ("rolled-back",)
        assert "ask for it by its digest" in str(refused)
        assert scene.admit(trusting("alice"), seen=seen).step_back is not None
        assert scene.admit(Trust(), seen=seen).step_back is not None
    newer = Sighting(digest=other, seen=NOW, signed=NOW - DAY)
    assert scene.admit(trusting("alice", no_rollback=True), seen=newer).step_back is None


def test_an_unsigned_name_that_was_led_back(scene: Scene) -> None:
    seen = Sighting(digest=Digest.of(b"newer"), seen=NOW, created=NOW)
    refused = scene.refused(trusting(no_rollback=True), seen=seen)
    assert refused.reasons == ("rolled-back",)
    assert "expected a tag that was not led back, got rolled-back: " in str(refused)
    assert scene.target.listed == 0


def test_ten_thousand_signatures(scene: Scene) -> None:
    """Row 103: bounded work; the good one is found among the first hundred, or not at all."""
    sign_by(scene.target, scene.root, "eve")
    (first,) = scene.target.referrers(scene.root)
    lists = {
        first.digest: first,
        **{(d := Digest.of(b"%d" % n)): replace(first, digest=d) for n in range(10_000)},
    }
    scene.target._referrers[scene.root.digest] = lists
    refused = scene.refused(trusting("alice"))
    assert refused.reasons == ("too-many", "unknown-key", "unreadable")
    assert len(scene.target.fetched) <= 2 * MAX_TRIED


def test_a_registry_that_fails_is_no_registry_without_signatures(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(subject: Descriptor) -> Sequence[Descriptor]:
        raise Unavailable("503")

    monkeypatch.setattr(scene.target, "referrers", failing)
    with pytest.raises(Unavailable):
        scene.admit(trusting("alice"))


@pytest.mark.parametrize("raw", [b"{}", b"", b"x" * 9])
def test_other_bytes_than_those_of_the_digest(scene: Scene, raw: bytes) -> None:
    """What is judged is what was read."""
    with pytest.raises(DigestMismatch):
        admit(scene.target, scene.root, raw, place=REPOSITORY, trust=Trust())


@pytest.mark.parametrize("raw", [b"[]", b"{", b'{"annotations":{"a":1,"a":2}}'])
def test_what_is_no_manifest(scene: Scene, raw: bytes) -> None:
    with pytest.raises(DocumentError):
        admit(scene.target, Descriptor.of(raw, spec.MEDIA_MANIFEST), raw, place=REPOSITORY, trust=trusting("alice"))


@pytest.mark.parametrize("annotations", ["{}", "null", "[]", '{"org.opencontainers.image.created":1}', '"x"'])
def test_annotations_that_say_nothing(scene: Scene, annotations: str) -> None:
    raw = f'{{"annotations":{annotations}}}'.encode()
    root = Descriptor.of(raw, spec.MEDIA_MANIFEST)
    assert admit(scene.target, root, raw, place=REPOSITORY, trust=Trust()).created is None


def test_judging_refuses_nothing_and_looks_at_all(scene: Scene) -> None:
    sign_by(scene.target, scene.root, "alice")
    sign_by(scene.target, scene.root, "eve")
    sign_by(scene.target, scene.root, "bob")
    trust = trusting("alice", policy=RULE)
    verdicts = judge(scene.target, scene.root, scene.raw, place=REPOSITORY, trust=trust, thorough=True)
    assert [verdict.ok for verdict in verdicts] == [True, True]
    assert [len(verdict.judged) for verdict in verdicts] == [3, 3]
    (refused,) = judge(scene.target, scene.root, scene.raw, place=REPOSITORY, trust=trusting("carol"))
    assert not refused.ok


def test_a_source_may_be_anything_that_is_one(scene: Scene) -> None:
    """Without lists of referrers or tags there are no signatures, and so no trust."""

    class Bare:
        def fetch(self, descriptor: Descriptor) -> Reader:
            return scene.target.fetch(descriptor)

        def resolve(self, reference: str) -> Descriptor:
            return scene.target.resolve(reference)

    bare: Bare = Bare()
    assert isinstance(bare, Fetcher)
    sign_by(scene.target, scene.root, "alice")
    with pytest.raises(UntrustedContent) as caught:
        admit(bare, scene.root, scene.raw, place=REPOSITORY, trust=trusting("alice"))
    assert caught.value.reasons == ("no-signatures",)
