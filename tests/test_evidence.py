"""Finding signatures: wherever they are, whatever lies beside them. Numbers are rows of the fault list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from casstore import Store, spec
from casstore.attachments import MAX_SIGNATURE_MANIFEST
from casstore.content import Fetcher, Reader
from casstore.digest import Digest
from casstore.errors import DocumentError, NotFound, RegistryError, Unauthorized, Unavailable
from casstore.evidence import MAX_BLOB, MAX_READ, gather
from casstore.layout import LayoutTarget
from casstore.memory import MemoryTarget
from casstore.names import attachment_name, referrer_name
from casstore.oci import Descriptor
from casstore.registry import RegistryTarget
from casstore.signatures import simplesigning
from casstore.signatures.bundle import MEDIA_TYPE
from casstore.signatures.claims import Form
from casstore.signatures.reasons import Reason
from casstore.streams import BytesSource
from tests.support.manifests import EMPTY, EMPTY_TYPE, image_manifest, put, sign
from tests.support.registry_simulator import RegistrySimulator
from tests.support.signing import sign_by, verdicts
from tests.support.stores import blob_path, capture, link_refs


@pytest.fixture
def target() -> MemoryTarget:
    return MemoryTarget()


@pytest.fixture
def subject(target: MemoryTarget) -> Descriptor:
    return put(target, image_manifest([], note="subject"), spec.MEDIA_MANIFEST)


def add(target: MemoryTarget, subject: Descriptor, *layers: Descriptor, **changed: Any) -> Descriptor:
    """Attach a manifest as of a signature, with some of its fields changed."""
    put(target, EMPTY, EMPTY_TYPE)
    document = json.loads(image_manifest(layers, subject=subject, artifact_type=MEDIA_TYPE)) | changed
    raw = json.dumps(document).encode()
    target.attach(Descriptor.of(raw, spec.MEDIA_MANIFEST), subject, BytesSource(raw))
    return Descriptor.of(raw, spec.MEDIA_MANIFEST)


def reasons(target: MemoryTarget, subject: Descriptor) -> list[tuple[Form, Reason | None]]:
    return [(each.form, None if each.problem is None else each.problem[0]) for each in gather(target, subject)]


BAD = [(Form.BUNDLE, Reason.MALFORMED)]


# --- what is found ----------------------------------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_is(target: MemoryTarget, subject: Descriptor) -> None:
    assert verdicts(target, subject) == []
    sign(target, subject)  # something else refers to it
    assert verdicts(target, subject) == []
    assert list(gather(target, Descriptor.of(b"nowhere", spec.MEDIA_MANIFEST))) == []


def test_bundles_come_in_the_order_of_the_list_and_cosigns_after_them(
    target: MemoryTarget, subject: Descriptor
) -> None:
    sign_by(target, subject, "bob", cosign_tag=True)
    sign_by(target, subject, "alice")
    assert verdicts(target, subject, "alice", "bob") == ["bundle:bob", "bundle:alice", "cosign:bob"]


class Counting(MemoryTarget):
    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[Digest] = []

    def fetch(self, descriptor: Descriptor) -> Reader:
        self.fetched.append(descriptor.digest)
        return super().fetch(descriptor)


def test_a_signature_is_fetched_when_it_is_asked_for() -> None:
    target = Counting()
    subject = put(target, image_manifest([]), spec.MEDIA_MANIFEST)
    sign_by(target, subject, "alice", "bob", cosign_tag=True)
    target.fetched.clear()
    (first,) = islice(gather(target, subject), 1)
    assert len(target.fetched) == 2
    assert target.fetched[0] == first.manifest.digest
    assert first.manifest.artifact_type == MEDIA_TYPE


@pytest.mark.parametrize("kind", ["sig", "ref"])
def test_104_names_lead_to_what_no_list_tells_of(target: MemoryTarget, subject: Descriptor, kind: str) -> None:
    """As after a copy tag by tag; and the names that signatures had first."""
    (signed,) = sign_by(target, subject, "alice")
    sign(target, subject, b"something else")
    copy = MemoryTarget()
    copy._contents = target._contents
    copy.tag(signed.descriptor, f"sha256-{subject.digest.hex}.{kind}-{signed.descriptor.digest.hex[:16]}")
    other = put(copy, image_manifest([], subject=subject, note="another"), spec.MEDIA_MANIFEST)
    copy.tag(other, referrer_name(subject.digest, other))
    assert copy.referrers(subject) == []
    assert verdicts(copy, subject, "alice") == ["bundle:alice"]


def test_the_same_signature_is_told_once(target: MemoryTarget, subject: Descriptor) -> None:
    (signed,) = sign_by(target, subject, "alice")
    target.tag(signed.descriptor, f"sha256-{subject.digest.hex}.ref-{signed.descriptor.digest.hex[:16]}")
    assert verdicts(target, subject, "alice") == ["bundle:alice"]


def test_a_list_that_does_not_say_what_each_is_is_read(tmp_path: Path) -> None:
    """Skopeo's index.json tells no artifact types."""
    layout = LayoutTarget(str(tmp_path / "layout"), create=True)
    subject = put(layout, image_manifest([]), spec.MEDIA_MANIFEST)
    sign(layout, subject)
    sign_by(layout, subject, "alice", cosign_tag=True)
    path = tmp_path / "layout/index.json"
    index = json.loads(path.read_bytes())
    for entry in index["manifests"]:
        entry.pop("artifactType", None)
    path.write_text(json.dumps(index))
    assert verdicts(layout, subject, "alice") == ["bundle:alice", "cosign:alice"]


# --- what is wrong with one, beside good ones -------------------------------------------------------------------------


def test_103_good_ones_are_found_whatever_lies_beside_them(target: MemoryTarget, subject: Descriptor) -> None:
    bundle = put(target, b"{}", MEDIA_TYPE)
    add(target, subject)  # no layer
    add(target, subject, bundle, bundle, annotations={"two": "layers"})
    add(target, subject, put(target, b"text", "text/plain"))
    add(target, subject, Descriptor.of(b"missing", MEDIA_TYPE))
    add(target, subject, Descriptor(media_type=MEDIA_TYPE, digest=Digest.of(b"large"), size=MAX_BLOB + 1))
    add(target, subject, bundle, annotations={"note": "x" * MAX_SIGNATURE_MANIFEST})
    add(target, subject, bundle, annotations={"an empty bundle": "is read"})
    huge = Descriptor(media_type=EMPTY_TYPE, digest=Digest.of(b"huge"), size=1 << 40)
    add(target, subject, bundle, config=huge.to_dict())
    sign_by(target, subject, "alice")
    assert reasons(target, subject) == [
        *BAD * 3,
        (Form.BUNDLE, Reason.UNREADABLE),
        *[(Form.BUNDLE, Reason.TOO_LARGE)] * 2,
        (Form.BUNDLE, None),
        (Form.BUNDLE, Reason.TOO_LARGE),
        (Form.BUNDLE, None),
    ]
    assert verdicts(target, subject, "alice")[-1] == "bundle:alice"


class Lying(MemoryTarget):
    """A registry whose list says what it likes."""

    listed: Sequence[Descriptor] = ()

    def referrers(self, subject: Descriptor) -> Sequence[Descriptor]:
        return self.listed


def typed(descriptor: Descriptor, artifact_type: str | None = MEDIA_TYPE) -> Descriptor:
    return replace(descriptor, artifact_type=artifact_type)


def test_61_103_a_list_that_lies_is_seen_through() -> None:
    target = Lying()
    subject = put(target, image_manifest([]), spec.MEDIA_MANIFEST)
    other = put(target, image_manifest([], note="other"), spec.MEDIA_MANIFEST)
    bundle = put(target, b"{}", MEDIA_TYPE)

    def made(about: Descriptor | None, artifact_type: str = MEDIA_TYPE) -> Descriptor:
        raw = image_manifest([bundle], subject=about, artifact_type=artifact_type)
        return put(target, raw, spec.MEDIA_MANIFEST)

    for listed, found in [
        (typed(made(other)), BAD),  # another's signature
        (typed(made(None)), BAD),
        (typed(subject), BAD),  # itself
        (typed(made(subject, "text/plain")), BAD),
        (typed(made(subject, "text/plain"), None), []),  # it did not say that it was one
        (typed(Descriptor.of(b"missing", spec.MEDIA_MANIFEST)), [(Form.BUNDLE, Reason.UNREADABLE)]),
        (typed(put(target, b"{}", spec.MEDIA_MANIFEST)), BAD),
        (typed(put(target, b"[]", spec.MEDIA_MANIFEST)), BAD),
        (typed(Descriptor.of(b"{}", spec.MEDIA_INDEX)), BAD),
        (replace(typed(made(subject)), size=7), [(Form.BUNDLE, Reason.UNREADABLE)]),
        (replace(typed(made(subject)), size=1 << 60), [(Form.BUNDLE, Reason.TOO_LARGE)]),
        (typed(made(subject), "application/vnd.dev.sigstore.bundle.v0.9+json"), [(Form.BUNDLE, None)]),
    ]:
        target.listed = [listed]
        assert reasons(target, subject) == found, listed


def test_61_what_a_layer_says_of_urls_and_data_is_ignored(target: MemoryTarget, subject: Descriptor) -> None:
    """Content is what has the digest, and comes from where the manifest does."""
    (signed,) = sign_by(target, subject, "alice")
    document = json.loads(target._contents[signed.descriptor.digest][1])
    document["layers"][0] |= {"urls": ["https://elsewhere.example/"], "data": "e30="}
    raw = json.dumps(document).encode()
    target._referrers.clear()
    target._names.clear()
    target.attach(Descriptor.of(raw, spec.MEDIA_MANIFEST), subject, BytesSource(raw))
    assert verdicts(target, subject, "alice") == ["bundle:alice"]


def test_103_ten_thousand_signatures_are_not_read(subject: Descriptor) -> None:
    target = Lying()
    target.listed = [typed(Descriptor.of(b"%d" % n, spec.MEDIA_MANIFEST)) for n in range(10_000)]
    found = reasons(target, subject)
    assert found == [*[(Form.BUNDLE, Reason.UNREADABLE)] * MAX_READ, (Form.BUNDLE, Reason.TOO_MANY)]
    target.listed = [typed(each, "text/plain") for each in target.listed]  # of what they are not they cost nothing
    assert reasons(target, subject) == []
    target.listed = [*target.listed, target.listed[0]]
    assert reasons(target, subject) == [(Form.BUNDLE, Reason.TOO_MANY)]
    target.listed = target.listed[1:]
    target.listed = [typed(each, None) for each in target.listed]
    assert reasons(target, subject)[-1] == (Form.BUNDLE, Reason.TOO_MANY)


class Many(MemoryTarget):
    """A registry that has more to tell than anybody reads."""

    error: Exception = DocumentError("referrers", "expected at most 10000 referrers, got more")

    def referrers(self, subject: Descriptor) -> Sequence[Descriptor]:
        raise self.error


def test_103_a_list_that_cannot_be_used_hides_nothing_that_has_a_name() -> None:
    target = Many()
    subject = put(target, image_manifest([]), spec.MEDIA_MANIFEST)
    sign_by(target, subject, "alice", cosign_tag=True)
    assert verdicts(target, subject, "alice") == ["bundle:malformed", "cosign:alice", "bundle:alice"]
    target.error = RegistryError("the list does not end")
    assert verdicts(target, subject, "alice") == ["bundle:unreadable", "cosign:alice", "bundle:alice"]
    target.error = Unavailable("the network is down")
    with pytest.raises(Unavailable):
        verdicts(target, subject, "alice")
    target.error = Many.error
    for n in range(MAX_READ):
        target.tag(subject, f"sha256-{subject.digest.hex}.sig-0{n:015x}")
    assert verdicts(target, subject, "alice")[-1] == "bundle:too-many"


# --- cosign's ---------------------------------------------------------------------------------------------------------


def attach(target: MemoryTarget, subject: Descriptor, *layers: Descriptor, **annotations: str) -> None:
    put(target, EMPTY, EMPTY_TYPE)
    raw = image_manifest(layers, subject=None, artifact_type=None, **annotations)
    target.tag(put(target, raw, spec.MEDIA_MANIFEST), attachment_name(subject.digest))


def payload(text: bytes, **annotations: str) -> Descriptor:
    return replace(Descriptor.of(text, simplesigning.MEDIA_TYPE), annotations=annotations)


SIGNED = {simplesigning.SIGNATURE_ANNOTATION: "MEUC"}


def test_103_what_is_wrong_with_one_layer_is_told_of_that(target: MemoryTarget, subject: Descriptor) -> None:
    put(target, b"there", simplesigning.MEDIA_TYPE)
    keyless = {simplesigning.CERTIFICATE_ANNOTATION: "-----BEGIN CERTIFICATE-----"}
    attach(
        target,
        subject,
        Descriptor.of(b"there", "text/plain"),
        payload(b"there"),
        payload(b"there", **SIGNED, **keyless),
        payload(b"missing", **SIGNED),
        payload(b"there", **SIGNED),
    )
    wrong = (Reason.UNKNOWN_FORM, Reason.MALFORMED, Reason.KEYLESS, Reason.UNREADABLE, None)
    assert reasons(target, subject) == [(Form.COSIGN, reason) for reason in wrong]
    assert [(each.raw, each.signature) for each in gather(target, subject)][-1] == (b"there", "MEUC")


def test_103_an_attachment_is_taken_as_a_whole(target: MemoryTarget, subject: Descriptor) -> None:
    """Who relies on one of its signatures copies all of it."""
    put(target, b"there", simplesigning.MEDIA_TYPE)
    huge = Descriptor(media_type=simplesigning.MEDIA_TYPE, digest=Digest.of(b"huge"), size=1 << 40)
    attach(target, subject, payload(b"there", **SIGNED), huge)
    assert reasons(target, subject) == [(Form.COSIGN, Reason.TOO_LARGE)]
    attach(target, subject, payload(b"there", **SIGNED), note="x" * MAX_SIGNATURE_MANIFEST)
    assert reasons(target, subject) == [(Form.COSIGN, Reason.TOO_LARGE)]
    attach(target, subject)
    assert reasons(target, subject) == []


@pytest.mark.parametrize("media_type", [spec.MEDIA_INDEX, spec.MEDIA_MANIFEST, "text/plain"])
def test_what_is_no_attachment_is_told(target: MemoryTarget, subject: Descriptor, media_type: str) -> None:
    target.tag(put(target, b'{"schemaVersion":2}', media_type), attachment_name(subject.digest))
    assert reasons(target, subject) == [(Form.COSIGN, Reason.MALFORMED)]


# --- where the place fails --------------------------------------------------------------------------------------------


class Failing(MemoryTarget):
    """Fails when one kind of content is fetched."""

    error: Exception = NotFound("gone")
    kind = MEDIA_TYPE

    def fetch(self, descriptor: Descriptor) -> Reader:
        if descriptor.media_type == self.kind:
            raise self.error
        return super().fetch(descriptor)


@pytest.mark.parametrize("kind", [MEDIA_TYPE, spec.MEDIA_MANIFEST])
def test_a_signature_that_cannot_be_fetched_is_told_and_a_place_that_fails_is_an_error(kind: str) -> None:
    target = Failing()
    subject = put(target, image_manifest([]), spec.MEDIA_MANIFEST)
    sign_by(target, subject, "alice")
    target.kind = kind
    target.error = RegistryError("refused")
    assert reasons(target, subject) == [(Form.BUNDLE, Reason.UNREADABLE)]
    for error in (Unavailable("the network is down"), Unauthorized("who are you?")):
        target.error = error
        with pytest.raises(type(error)):
            list(gather(target, subject))


def test_a_registry_that_is_down_is_no_registry_without_signatures() -> None:
    with RegistrySimulator() as server, RegistryTarget(server.reference("some/disks"), server.options) as target:
        put(target, EMPTY, EMPTY_TYPE)
        subject = put(target, image_manifest([]), spec.MEDIA_MANIFEST)
        sign_by(target, subject, "alice")
        assert verdicts(target, subject, "alice") == ["bundle:alice"]
        server.faults.status = 503
        with pytest.raises(Unavailable):
            list(gather(target, subject))


def test_a_damaged_signature_in_a_store_keeps_the_others_from_nothing(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    with store.transaction() as change:
        bad, _ = sign_by(change, made.root, "alice", "bob")
        change.commit_all({})
    path = blob_path(Path(store.path), bad.descriptor.digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"simple", b"sample").replace(b"2026", b"2027"))
    found = verdicts(store._directory, made.root, "alice", "bob")
    assert sorted(found) == ["bundle:bob", "bundle:unreadable", "bundle:unreadable"]  # the list, and this one
    assert len(link_refs(Path(store.path))) == 3


class Source(Fetcher):
    """Cannot tell what refers to something, nor names."""

    def __init__(self, target: MemoryTarget) -> None:
        self._target = target

    def fetch(self, descriptor: Descriptor) -> Reader:
        return self._target.fetch(descriptor)

    def resolve(self, reference: str) -> Descriptor:
        return self._target.resolve(reference)


def test_a_place_that_cannot_list_still_has_attachments(target: MemoryTarget, subject: Descriptor) -> None:
    sign_by(target, subject, "alice", cosign_tag=True)
    assert verdicts(Source(target), subject, "alice") == ["cosign:alice"]
