"""Signing: what is stored where, in which order, and that nothing half done has a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore import Store, spec
from casstore.attachments import build_attachment, put_attachment, read_attachment
from casstore.errors import Conflict, NotFound, UnsupportedVersion, UsageError
from casstore.health import check_store
from casstore.layout import LayoutTarget
from casstore.memory import MemoryTarget
from casstore.names import attachment_name, referrer_name
from casstore.oci import Descriptor
from casstore.registry import RegistryTarget, referrers
from casstore.signatures import simplesigning
from casstore.signatures.bundle import MEDIA_TYPE
from casstore.signatures.claims import Form
from casstore.streams import fetch_all
from tests.support.manifests import image_manifest, put
from tests.support.registry_simulator import RegistrySimulator
from tests.support.signing import good, sign_by, verdicts
from tests.support.stores import all_files, capture, leftovers, link_refs, require_sound


@pytest.fixture(autouse=True)
def _no_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referrers, "SECOND_LOOK", (0.0, 0.0))


def manifest_in(target: MemoryTarget | LayoutTarget | RegistryTarget, note: str = "subject") -> Descriptor:
    put(target, b"{}", spec.MEDIA_EMPTY)
    return put(target, image_manifest([], note=note), spec.MEDIA_MANIFEST)


def test_what_a_signature_is() -> None:
    """The form that cosign and sigstore's tools read, to the byte but for what is random."""
    target = MemoryTarget()
    subject = manifest_in(target)
    (signed,) = sign_by(target, subject, "alice", annotations={"who": "me"})
    assert (signed.key.name, signed.form) == ("alice", Form.BUNDLE)
    manifest = json.loads(fetch_all(target, signed.descriptor, limit=spec.MIB))
    (layer,) = manifest.pop("layers")
    assert manifest == {
        "schemaVersion": 2,
        "mediaType": spec.MEDIA_MANIFEST,
        "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
        },
        "subject": subject.to_dict(),
        "annotations": {
            "org.opencontainers.image.created": "2026-01-02T03:04:05Z",
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
        },
    }
    assert layer["mediaType"] == MEDIA_TYPE
    (found,) = target.referrers(subject)
    assert (found, found.artifact_type) == (signed.descriptor, MEDIA_TYPE)
    assert target.resolve(referrer_name(subject.digest, found)) == found
    assert verdicts(target, subject, "alice") == ["bundle:alice"]
    assert verdicts(target, subject, "bob") == ["bundle:unknown-key"]


def test_several_keys_and_both_forms() -> None:
    target = MemoryTarget()
    subject = manifest_in(target)
    signed = sign_by(target, subject, "alice", "ed-bob", cosign_tag=True)
    assert [(each.key.name, each.form) for each in signed] == [
        ("alice", Form.BUNDLE),
        ("ed-bob", Form.BUNDLE),
        ("alice", Form.COSIGN),
        ("ed-bob", Form.COSIGN),
    ]
    assert len({each.descriptor for each in signed}) == 3
    names = ("alice", "ed-bob")
    assert good(target, subject, *names) == dict.fromkeys([f"{form}:{name}" for form in Form for name in names], 1)
    assert target.resolve(attachment_name(subject.digest)) == signed[-1].descriptor


def test_who_signs_in_cosigns_form_takes_no_signature_away() -> None:
    """One payload, signed by two keys, makes two layers of one digest; each key signs once."""
    target = MemoryTarget()
    subject = manifest_in(target)
    sign_by(target, subject, "ed-bob", cosign_tag=True)
    first = target.resolve(attachment_name(subject.digest))
    sign_by(target, subject, "alice", cosign_tag=True)
    sign_by(target, subject, "ed-bob", cosign_tag=True)  # Ed25519 gives the same signature again
    layers = json.loads(fetch_all(target, target.resolve(attachment_name(subject.digest)), limit=spec.MIB))["layers"]
    assert [layer["digest"] for layer in layers] == [layers[0]["digest"]] * 2
    assert target.resolve(attachment_name(subject.digest)) != first
    found = good(target, subject, "alice", "ed-bob")
    assert found == dict.fromkeys(["bundle:alice", "bundle:ed-bob", "cosign:alice", "cosign:ed-bob"], 1)


def test_a_signature_for_cosign_is_for_a_repository() -> None:
    target = MemoryTarget()
    subject = manifest_in(target)
    with pytest.raises(UsageError, match="expected a repository"):
        sign_by(target, subject, "alice", cosign_tag=True, repository=None)
    with pytest.raises(UsageError, match="expected a key, got none"):
        sign_by(target, subject)
    with pytest.raises(UsageError, match="annotations"):
        sign_by(target, subject, "alice", annotations={"": "nameless"})
    with pytest.raises(NotFound, match="no such manifest"):
        sign_by(target, Descriptor.of(b"elsewhere", spec.MEDIA_MANIFEST), "alice")
    assert target.referrers(subject) == []
    sign_by(target, subject, "alice", repository=None)
    assert good(target, subject, "alice") == {"bundle:alice": 1}


# --- in registries ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", [True, False], ids=["api", "tag"])
def test_104_a_signature_has_a_tag_before_a_list_tells_of_it(api: bool) -> None:
    with RegistrySimulator() as server, RegistryTarget(server.reference("some/disks"), server.options) as target:
        server.faults.referrers_api = api
        subject = manifest_in(target)
        (signed,) = sign_by(target, subject, "alice")
        name = f"sha256-{subject.digest.hex}.sig-{signed.descriptor.digest.hex[:16]}"
        puts = [each.path.rpartition("/")[2] for each in server.seen("PUT", "/manifests/")]
        assert puts[1:] == [name] if api else [name, f"sha256-{subject.digest.hex}"]
        assert target.resolve(name) == signed.descriptor
        assert verdicts(target, subject, "alice") == ["bundle:alice"]


# --- cosign's form, where somebody else writes, too -------------------------------------------------------------------


def layer(text: bytes, signature: str = "MEUC") -> Descriptor:
    blob = Descriptor.of(text, simplesigning.MEDIA_TYPE)
    return Descriptor(
        media_type=blob.media_type,
        digest=blob.digest,
        size=blob.size,
        annotations={simplesigning.SIGNATURE_ANNOTATION: signature},
    )


def texts(target: MemoryTarget, subject: Descriptor) -> list[tuple[bytes, str]]:
    found = read_attachment(target, subject.digest)
    assert found is not None
    return [
        (fetch_all(target, each, limit=spec.MIB), each.annotations[simplesigning.SIGNATURE_ANNOTATION])
        for each in found.layers
    ]


def attach(target: MemoryTarget, subject: Descriptor, *contents: tuple[bytes, str]) -> Descriptor:
    made, source = build_attachment([layer(*each) for each in contents], subject=subject.digest)
    for text, _ in contents:
        put(target, text, simplesigning.MEDIA_TYPE)
    target.push(made.manifest.blobs[0], source)
    return put_attachment(target, made, source, subject=subject.digest)


A, B, C = (b"a", "1"), (b"b", "1"), (b"a", "2")


def test_what_is_there_is_merged_and_no_signature_lost() -> None:
    target = MemoryTarget()
    subject = manifest_in(target)
    one = attach(target, subject, A)
    assert attach(target, subject, A) == one
    assert texts(target, subject) == [A]
    both = attach(target, subject, A, B)  # has all that is there
    assert texts(target, subject) == [A, B]
    assert attach(target, subject, B) == both  # what is there has all of it
    attach(target, subject, C)
    assert texts(target, subject) == [A, B, C]


SIGNATURES = st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.sampled_from("123")), min_size=1, max_size=4)


@given(st.lists(SIGNATURES, min_size=1, max_size=5))
def test_whoever_puts_what_no_signature_is_lost_and_none_is_there_twice_by_that(
    puts: list[list[tuple[bytes, str]]],
) -> None:
    target = MemoryTarget()
    subject = manifest_in(target)
    there: list[tuple[bytes, str]] = []
    for contents in puts:
        attach(target, subject, *contents)
        now = texts(target, subject)
        assert set(now) == {*there, *contents}
        assert len(now) <= len(there) + len(contents)
        if set(contents) <= set(there):
            assert now == there
        there = now


def test_more_signatures_than_anybody_reads_are_refused_and_none_is_lost() -> None:
    target = MemoryTarget()
    subject = manifest_in(target)
    attach(target, subject, *[(b"a", f"{n:0100}") for n in range(150)])
    before = texts(target, subject)
    with pytest.raises(UnsupportedVersion, match="expected at most 65536 bytes"):
        attach(target, subject, *[(b"b", f"{n:0100}") for n in range(150)])
    assert texts(target, subject) == before


def test_what_is_no_attachment_is_not_replaced() -> None:
    target = MemoryTarget()
    subject = manifest_in(target)
    index = put(target, b'{"schemaVersion":2,"manifests":[]}', spec.MEDIA_INDEX)
    target.tag(index, attachment_name(subject.digest))
    with pytest.raises(UnsupportedVersion, match="expected an OCI image manifest"):
        sign_by(target, subject, "alice", cosign_tag=True)
    assert target.resolve(attachment_name(subject.digest)) == index


class Rival(MemoryTarget):
    """Somebody else moves the tag right after us, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def tag(self, descriptor: Descriptor, name: str) -> None:
        super().tag(descriptor, name)
        if self.times and name.endswith(".sig"):
            self.times -= 1
            rival, source = build_attachment([layer(*B)], subject=Descriptor.of(b"", "").digest)
            put(self, b"b", simplesigning.MEDIA_TYPE)
            super().push(rival.manifest.blobs[0], source)
            super().push(rival.descriptor, source)
            super().tag(rival.descriptor, name)


def test_102_a_signature_that_another_client_took_away_is_put_there_again() -> None:
    target = Rival(1)
    subject = manifest_in(target)
    attach(target, subject, A)
    assert texts(target, subject) == [B, A]
    target = Rival(100)
    subject = manifest_in(target)
    with pytest.raises(Conflict, match="changed by others"):
        attach(target, subject, A)


# --- in a store -------------------------------------------------------------------------------------------------------


def test_a_signature_gets_its_name_with_the_commit(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    root = Path(store.path)
    with store.transaction() as change:
        signed = sign_by(change, made.root, "alice", cosign_tag=True)
        assert list(link_refs(root)) == ["one"]
        assert good(change, made.root, "alice") == {"bundle:alice": 1, "cosign:alice": 1}
        assert verdicts(store._directory, made.root, "alice") == []
        change.commit_all({})
    sig = f"sha256-{made.digest.hex}.sig"
    assert link_refs(root) == {
        "one": str(made.digest),
        f"{sig}-{signed[0].descriptor.digest.hex[:16]}": str(signed[0].descriptor.digest),
        sig: str(signed[1].descriptor.digest),
    }
    assert good(store._directory, made.root, "alice") == {"bundle:alice": 1, "cosign:alice": 1}
    assert check_store(store.path).findings == ()
    require_sound(root)
    with store.transaction() as change:
        sign_by(change, made.root, "ed-bob", cosign_tag=True)
        change.commit_all({})
    assert len(link_refs(root)) == 4
    assert good(store._directory, made.root, "alice", "ed-bob") == {
        f"{form}:{name}": 1 for form in Form for name in ("alice", "ed-bob")
    }
    store.gc()
    require_sound(root)


def test_two_who_sign_at_once_in_cosigns_form_lose_nothing(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    with store.transaction() as mine, store.transaction() as theirs:
        sign_by(mine, made.root, "alice", cosign_tag=True)
        sign_by(theirs, made.root, "ed-bob", cosign_tag=True)
        theirs.commit_all({})
        with pytest.raises(Conflict, match="others were added meanwhile; try again"):
            mine.commit_all({})
    assert good(store._directory, made.root, "alice", "ed-bob")["cosign:ed-bob"] == 1
    with store.transaction() as again:
        sign_by(again, made.root, "alice", cosign_tag=True)
        again.commit_all({})
    found = good(store._directory, made.root, "alice", "ed-bob")
    assert (found["cosign:alice"], found["cosign:ed-bob"]) == (1, 1)


def test_what_was_never_committed_leaves_nothing(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    before = all_files(Path(store.path))
    with store.transaction() as change:
        sign_by(change, made.root, "alice", cosign_tag=True)
    store.gc()
    assert leftovers(Path(store.path)) == []
    assert {name: each for name, each in all_files(Path(store.path)).items() if name in before} == before
    assert list(link_refs(Path(store.path))) == ["one"]
