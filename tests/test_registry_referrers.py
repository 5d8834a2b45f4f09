"""Referrers, in registries that list them and in those where clients do. Numbers are rows of the fault list."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from casstore import spec
from casstore.errors import DocumentError, MissingBlobs, NotFound, RegistryError, Unauthorized, UnsupportedVersion
from casstore.names import referrer_name
from casstore.oci import Descriptor
from casstore.registry import RegistryTarget, pages, referrers
from casstore.streams import BytesSource
from tests.support.registry_simulator import RegistrySimulator, Seen
from tests.support.servers import registry as real_registry

REPOSITORY = "some/repository"
CONFIG = Descriptor.of(b"{}", "application/vnd.oci.empty.v1+json")
KIND = "application/vnd.example.signature"


def document(note: str, subject: Descriptor | None = None, kind: str | None = KIND) -> tuple[Descriptor, bytes]:
    """An artifact manifest, maybe one that refers to another."""
    fields = {
        "schemaVersion": 2,
        "mediaType": spec.MEDIA_MANIFEST,
        "artifactType": kind,
        "config": CONFIG.to_dict(),
        "layers": [CONFIG.to_dict()],
        "subject": None if subject is None else subject.to_dict(),
        "annotations": {"note": note},
    }
    raw = json.dumps({name: value for name, value in fields.items() if value is not None}).encode()
    return Descriptor.of(raw, spec.MEDIA_MANIFEST), raw


SUBJECT, SUBJECT_RAW = document("subject", kind="application/vnd.example")
LIST = f"sha256-{SUBJECT.digest.hex}"


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator() as server:
        server.put_blob(REPOSITORY, b"{}")
        server.put_manifest(REPOSITORY, SUBJECT_RAW, tag="v1")
        yield server


@pytest.fixture
def target(registry: RegistrySimulator) -> Iterator[RegistryTarget]:
    with RegistryTarget(registry.reference(REPOSITORY), registry.options) as made:
        yield made


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referrers, "SECOND_LOOK", (0.0, 0.01))


def attach(target: RegistryTarget, note: str, kind: str | None = KIND) -> Descriptor:
    descriptor, raw = document(note, SUBJECT, kind)
    target.attach(descriptor, SUBJECT, BytesSource(raw))
    return descriptor


def put_list(registry: RegistrySimulator, *entries: dict[str, object], media_type: str = spec.MEDIA_INDEX) -> None:
    """What other clients made of the list."""
    index = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
    raw = json.dumps(index, separators=(",", ":")).encode()
    digest = registry.put_manifest(REPOSITORY, raw, tag=LIST)
    registry.contents.manifests[REPOSITORY, digest] = (media_type, raw)


# --- a registry that lists them


def test_the_registry_s_own_list(registry: RegistrySimulator, target: RegistryTarget) -> None:
    """No tag is made where OCI-Subject says that none is needed."""
    registry.faults.referrers_api = True
    made = {attach(target, str(number)).digest for number in range(5)}
    assert {found.digest for found in target.referrers(SUBJECT)} == made
    assert target.tags() == ("v1",)


@pytest.mark.parametrize("page", [1, 2, 5, 6])
def test_101_all_pages_are_read(registry: RegistrySimulator, target: RegistryTarget, page: int) -> None:
    registry.faults.referrers_api = True
    for number in range(5):
        attach(target, str(number))
    registry.faults.page = page
    assert len(target.referrers(SUBJECT)) == 5


def test_101_pages_without_end(
    registry: RegistrySimulator, target: RegistryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_PAGES", 10)
    registry.faults.referrers_api, registry.faults.link = True, "<{path}>; rel=next"
    with pytest.raises(RegistryError, match="expected at most 10 pages"):
        target.referrers(SUBJECT)


def test_101_more_entries_than_anybody_has(
    registry: RegistrySimulator, target: RegistryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referrers, "MAX_REFERRERS", 3)
    registry.faults.referrers_api, registry.faults.page = True, 1
    for number in range(6):
        attach(target, str(number))
    begun = len(registry.seen("GET", "/referrers/"))
    assert len(target.referrers(SUBJECT)) == 4  # one more than that, so that it is known that there are more
    assert len(registry.seen("GET", "/referrers/")) == begun + 4


def test_101_a_page_on_another_host(registry: RegistrySimulator, target: RegistryTarget) -> None:
    with RegistrySimulator() as other:
        registry.faults.referrers_api, registry.faults.link = True, f"<{other.url}{{path}}>; rel=next"
        with pytest.raises(RegistryError, match="next page: expected a Link on"):
            target.referrers(SUBJECT)
        assert other.requests == []


@pytest.mark.parametrize("status", [400, 404, 405])
def test_101_no_such_api_is_the_tag(registry: RegistrySimulator, target: RegistryTarget, status: int) -> None:
    registry.faults.referrers_status = status
    made = attach(target, "a")
    assert target.referrers(SUBJECT) == (made,)


@pytest.mark.parametrize("media_type", ["text/html", "application/json", spec.MEDIA_MANIFEST, ""])
def test_101_an_answer_of_another_type_is_the_tag(
    registry: RegistrySimulator, target: RegistryTarget, media_type: str
) -> None:
    """A web page that answers everything, say."""
    made = attach(target, "a")
    registry.faults.referrers_api, registry.faults.referrers_type = True, media_type
    assert target.referrers(SUBJECT) == (made,)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"schemaVersion": 2}', b'{"schemaVersion":2,"manifests":[7]}']
)
def test_101_a_list_that_is_none(registry: RegistrySimulator, target: RegistryTarget, body: bytes) -> None:
    registry.faults.referrers_api, registry.faults.referrers_body = True, body
    with pytest.raises(DocumentError):
        target.referrers(SUBJECT)


def test_a_refusal_is_no_empty_list(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.status = 403
    with pytest.raises(Unauthorized):
        target.referrers(SUBJECT)


def test_entries_that_cannot_be_checked_are_left_out(registry: RegistrySimulator, target: RegistryTarget) -> None:
    good = document("good", SUBJECT)[0].to_dict()
    put_list(
        registry,
        good,
        good | {"digest": "sha512:" + "0" * 128},
        good | {"digest": "../../etc/passwd"},
        good | {"mediaType": "application/vnd.example.blob", "digest": f"sha256:{1:064}"},
        good,
    )
    assert [found.digest for found in target.referrers(SUBJECT)] == [document("good", SUBJECT)[0].digest]


# --- a registry where clients list them


def test_the_tags_that_are_made(registry: RegistrySimulator, target: RegistryTarget) -> None:
    """One is the list, and one for each referrer, which keeps it from a registry's garbage collection."""
    made = [attach(target, note) for note in ("a", "b")]
    own = {referrer_name(SUBJECT.digest, referrer): referrer for referrer in made}
    assert set(target.tags()) == {"v1", LIST, *own}
    assert all(target.resolve(tag) == referrer for tag, referrer in own.items())
    assert target.resolve(LIST).media_type == spec.MEDIA_INDEX


def test_the_entry_tells_type_and_annotations(registry: RegistrySimulator, target: RegistryTarget) -> None:
    """Without an artifactType, the type of the config stands for it."""
    attach(target, "a", kind=None)
    (found,) = target.referrers(SUBJECT)
    assert found.artifact_type == CONFIG.media_type
    assert dict(found.annotations) == {"note": "a"}


def test_what_others_listed_stays(registry: RegistrySimulator, target: RegistryTarget) -> None:
    foreign = {"mediaType": spec.MEDIA_MANIFEST, "digest": "sha512:" + "a" * 128, "size": 7, "x-own": {"kept": True}}
    put_list(registry, foreign)
    attach(target, "a")
    _, raw = registry.contents.manifests[REPOSITORY, registry.contents.tags[REPOSITORY, LIST]]
    assert foreign in json.loads(raw)["manifests"]
    assert len(json.loads(raw)["manifests"]) == 2


@pytest.mark.parametrize(
    "media_type", [spec.MEDIA_MANIFEST, "application/vnd.docker.distribution.manifest.list.v2+json"]
)
def test_101_a_tag_that_is_no_list_is_not_overwritten(
    registry: RegistrySimulator, target: RegistryTarget, media_type: str
) -> None:
    put_list(registry, media_type=media_type)
    before = registry.contents.tags[REPOSITORY, LIST]
    with pytest.raises(DocumentError, match="expected an image index"):
        attach(target, "a")
    assert registry.contents.tags[REPOSITORY, LIST] == before


def test_a_list_that_grew_too_long(registry: RegistrySimulator, target: RegistryTarget) -> None:
    entry = document("a", SUBJECT)[0].to_dict() | {"annotations": {"long": "x" * 300}}
    entry |= {"digest": "sha512:" + "0" * 128}
    put_list(registry, *[entry] * (4 * spec.MIB // (len(json.dumps(entry, separators=(",", ":"))) + 1)))
    with pytest.raises(RegistryError, match="expected a list of referrers of at most 4194304 bytes"):
        attach(target, "b")


def test_entries_whose_manifests_are_gone_are_dropped_when_the_registry_minds(
    registry: RegistrySimulator, target: RegistryTarget
) -> None:
    gone = attach(target, "gone")
    kept = attach(target, "kept")
    del registry.contents.manifests[REPOSITORY, str(gone.digest)]
    added = attach(target, "added")
    assert set(target.referrers(SUBJECT)) == {kept, added}


def test_missing_blobs_are_told(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.contents.blobs.clear()
    with pytest.raises(MissingBlobs):
        attach(target, "a")
    assert target.referrers(SUBJECT) == ()


def test_what_is_no_manifest_is_not_attached(registry: RegistrySimulator, target: RegistryTarget) -> None:
    blob = Descriptor.of(b"{}", "application/vnd.example.blob")
    with pytest.raises(UnsupportedVersion):
        target.attach(blob, SUBJECT, BytesSource(b"{}"))
    with pytest.raises(NotFound):
        target.attach(document("nowhere", SUBJECT)[0], SUBJECT, BytesSource())


# --- two at a time


def interfere(registry: RegistrySimulator, method: str, *numbers: int) -> list[dict[str, object]]:
    """Let another client put its own list when the request of these numbers to the list comes in; its entries."""
    rival, raw = document("rival", SUBJECT)
    registry.put_manifest(REPOSITORY, raw)
    seen_so_far: list[Seen] = []

    def meanwhile(seen: Seen) -> None:
        if seen.method == method and seen.path.endswith(LIST):
            seen_so_far.append(seen)
            if len(seen_so_far) in numbers:
                put_list(registry, rival.to_dict())

    registry.watcher = meanwhile
    return [rival.to_dict()]


@pytest.mark.parametrize("number", [2, 3])
def test_102_a_lost_entry_is_put_there_again(registry: RegistrySimulator, target: RegistryTarget, number: int) -> None:
    """The rival read the list before our PUT and wrote it after: seen at the first look, or at the second."""
    interfere(registry, "GET", number)
    own = attach(target, "own")
    assert {found.digest for found in target.referrers(SUBJECT)} == {own.digest, document("rival", SUBJECT)[0].digest}


def test_102_a_rival_between_reading_and_writing_is_noticed_by_if_match(
    registry: RegistrySimulator, target: RegistryTarget
) -> None:
    registry.faults.heeds_match = True
    first = attach(target, "first")
    interfere(registry, "PUT", 1)
    own = attach(target, "own")
    found = {referrer.digest for referrer in target.referrers(SUBJECT)}
    assert {own.digest, document("rival", SUBJECT)[0].digest} <= found
    assert first.digest not in found  # the rival heeded nothing; that was not our doing


def test_102_an_entry_that_is_lost_again_and_again_is_reported(
    registry: RegistrySimulator, target: RegistryTarget
) -> None:
    interfere(registry, "GET", *range(1, 100))
    with pytest.raises(RegistryError, match=r"is stored, but 5 times other clients took it from this list"):
        attach(target, "own")
    own = document("own", SUBJECT)[0]
    assert target.exists(own)
    assert target.resolve(referrer_name(SUBJECT.digest, own)) == own


def test_102_clients_at_the_same_time_lose_nothing(
    registry: RegistrySimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three clients that know nothing of each other; who is last to read again puts it right."""
    monkeypatch.setattr(referrers, "SECOND_LOOK", (0.1, 0.3))
    monkeypatch.setattr(referrers, "_TRIES", 20)
    start = threading.Barrier(3)

    def client(note: str) -> Descriptor:
        with RegistryTarget(registry.reference(REPOSITORY), registry.options) as target:
            start.wait()
            return attach(target, note)

    with ThreadPoolExecutor(3) as pool:
        made = {descriptor.digest for descriptor in pool.map(client, "abc")}
    with RegistryTarget(registry.reference(REPOSITORY), registry.options) as target:
        assert {found.digest for found in target.referrers(SUBJECT)} == made


def test_stop_ends_the_wait(registry: RegistrySimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referrers, "SECOND_LOOK", (600.0, 600.0))
    with RegistryTarget(registry.reference(REPOSITORY), registry.options) as target:
        registry.watcher = lambda seen: timer.start() if len(registry.seen("PUT", LIST)) == 1 and not timer.ident else 0
        timer = threading.Timer(0.2, target.stop)
        with pytest.raises(RegistryError, match="stopped"):
            attach(target, "a")
        timer.join()


# --- the real thing


@pytest.mark.needs("docker-registry")
def test_docker_registry_has_no_list_of_its_own(tmp_path: Path) -> None:
    with real_registry(tmp_path) as server, RegistryTarget(server.reference(REPOSITORY), server.options) as target:
        target.push(CONFIG, BytesSource(b"{}"))
        target.push(SUBJECT, BytesSource(SUBJECT_RAW))
        target.tag(SUBJECT, "v1")
        made = [attach(target, note) for note in ("a", "b")]
        assert target.referrers(SUBJECT) == tuple(made)
        tags = {referrer_name(SUBJECT.digest, referrer) for referrer in made}
        assert set(target.tags()) == {"v1", LIST, *tags}
        target.untag(min(tags))
        assert target.referrers(SUBJECT) == tuple(made)
