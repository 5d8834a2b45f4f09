"""What every Target must do with names and referrers, whatever is behind it (casstore/content.py)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from casstore import names, spec
from casstore.errors import DocumentError, NotFound
from casstore.names import attachment_name
from casstore.oci import Descriptor
from casstore.signatures.bundle import MEDIA_TYPE
from casstore.streams import BytesSource, fetch_all
from tests.contract.conftest import FullTarget
from tests.contract.test_target_contract import EMPTY_CONFIG, LIMIT, push_bytes, push_manifest
from tests.support.signing import BOTH, found, sign_by

SIGNATURE = "application/vnd.example.signature"


def snapshot_tags(target: FullTarget) -> set[str]:
    """All tags but those that referrers are kept under."""
    return {tag for tag in target.tags() if not names.is_reserved(tag)}


def referrer_of(target: FullTarget, subject: Descriptor, note: str) -> tuple[Descriptor, bytes]:
    """A manifest that refers to `subject`, whose blobs are there; as the list of referrers is to tell it."""
    config, layer = push_bytes(target, b"{}", EMPTY_CONFIG), push_bytes(target, b"signature " + note.encode())
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": spec.MEDIA_MANIFEST,
            "artifactType": SIGNATURE,
            "config": config.to_dict(),
            "layers": [layer.to_dict()],
            "subject": subject.to_dict(),
            "annotations": {"note": note},
        }
    ).encode()
    return Descriptor.of(raw, spec.MEDIA_MANIFEST), raw


def test_tags_are_listed_until_they_are_taken_away(target: FullTarget) -> None:
    assert list(target.tags()) == []
    manifest, _ = push_manifest(target)
    assert list(target.tags()) == []
    for name in ("one", "Two", "v1.2_3-x"):
        target.tag(manifest, name)
    target.tag(manifest, "one")
    assert sorted(target.tags()) == ["Two", "one", "v1.2_3-x"]
    for name in ("one", "Two", "v1.2_3-x"):
        target.untag(name)
    assert list(target.tags()) == []


def test_untagging_leaves_siblings_and_the_manifest(target: FullTarget) -> None:
    manifest, raw = push_manifest(target, "shared")
    other, _ = push_manifest(target, "other")
    target.tag(manifest, "gone")
    target.tag(manifest, "sibling")
    target.tag(other, "unrelated")
    target.untag("gone")
    with pytest.raises(NotFound):
        target.resolve("gone")
    assert target.resolve("sibling") == manifest
    assert target.resolve("unrelated") == other
    assert fetch_all(target, manifest, limit=LIMIT) == raw
    target.untag("sibling")
    assert set(target.tags()) == {"unrelated"}
    target.tag(other, "gone")  # and the name can be given again
    assert target.resolve("gone") == other


def test_untagging_what_is_not_there_fails(target: FullTarget) -> None:
    manifest, _ = push_manifest(target)
    target.tag(manifest, "name")
    with pytest.raises(NotFound):
        target.untag("Name")
    target.untag("name")
    with pytest.raises(NotFound):
        target.untag("name")


def test_nothing_refers_to_what_nobody_attached_to(target: FullTarget) -> None:
    manifest, _ = push_manifest(target)
    assert list(target.referrers(manifest)) == []
    assert list(target.referrers(Descriptor.of(b"nobody has this", spec.MEDIA_MANIFEST))) == []


def test_what_is_attached_is_told_and_can_be_fetched(target: FullTarget) -> None:
    subject, _ = push_manifest(target)
    target.tag(subject, "v1")
    made = [referrer_of(target, subject, note) for note in ("a", "b", "c")]
    for referrer, raw in made:
        target.attach(referrer, subject, BytesSource(raw))
    told = {referrer.digest: referrer for referrer in target.referrers(subject)}
    assert set(told) == {referrer.digest for referrer, _ in made}
    for (referrer, raw), note in zip(made, ("a", "b", "c"), strict=True):
        assert told[referrer.digest] == referrer
        assert told[referrer.digest].artifact_type == SIGNATURE
        assert dict(told[referrer.digest].annotations) == {"note": note}
        assert fetch_all(target, told[referrer.digest], limit=LIMIT) == raw
    assert snapshot_tags(target) == {"v1"}
    assert target.resolve("v1") == subject


def test_attaching_again_changes_nothing(target: FullTarget) -> None:
    subject, _ = push_manifest(target)
    referrer, raw = referrer_of(target, subject, "once")
    for _ in range(2):
        target.attach(referrer, subject, BytesSource(raw))
    assert list(target.referrers(subject)) == [referrer]


def test_referrers_have_referrers(target: FullTarget) -> None:
    subject, _ = push_manifest(target)
    first, raw = referrer_of(target, subject, "first")
    target.attach(first, subject, BytesSource(raw))
    second, raw = referrer_of(target, first, "second")
    target.attach(second, first, BytesSource(raw))
    assert list(target.referrers(subject)) == [first]
    assert list(target.referrers(first)) == [second]


def test_a_manifest_that_refers_to_something_else_is_not_attached(target: FullTarget) -> None:
    subject, _ = push_manifest(target)
    other, _ = push_manifest(target, "other")
    referrer, raw = referrer_of(target, other, "mistaken")
    with pytest.raises(DocumentError, match="expected it to refer to"):
        target.attach(referrer, subject, BytesSource(raw))
    plain, raw = push_manifest(target, "refers to nothing")
    with pytest.raises(DocumentError, match="expected it to refer to"):
        target.attach(plain, subject, BytesSource(raw))
    assert list(target.referrers(subject)) == []


def test_four_threads_attach_to_the_same(target: FullTarget) -> None:
    subject, _ = push_manifest(target)
    made = [referrer_of(target, subject, str(number)) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda each: target.attach(each[0], subject, BytesSource(each[1])), made))
    assert {referrer.digest for referrer in target.referrers(subject)} == {referrer.digest for referrer, _ in made}


def test_a_signature_has_a_name_of_its_own(target: FullTarget) -> None:
    """In registries that keep the list by themselves, too."""
    subject, _ = push_manifest(target)
    (signed,) = sign_by(target, subject, "alice")
    name = f"sha256-{subject.digest.hex}.sig-{signed.descriptor.digest.hex[:16]}"
    assert name in target.tags()
    assert target.resolve(name) == signed.descriptor
    (listed,) = target.referrers(subject)
    assert (listed, listed.artifact_type) == (signed.descriptor, MEDIA_TYPE)


def test_signatures_in_both_forms_are_found_and_none_is_lost(target: FullTarget) -> None:
    subject, _ = push_manifest(target)
    sign_by(target, subject, "alice", cosign_tag=True)
    sign_by(target, subject, "ed-bob", cosign_tag=True)
    assert found(target, subject) == BOTH
    assert len(target.referrers(subject)) == 2
    assert attachment_name(subject.digest) in target.tags()
