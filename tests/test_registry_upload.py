"""Blobs on their way into registries that break, forget and refuse. Numbers are rows of the project's fault list."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore import spec
from casstore.content import Reader
from casstore.digest import Digest
from casstore.errors import DigestMismatch, MissingBlobs, RegistryError, Unauthorized, Unavailable
from casstore.oci import Descriptor
from casstore.registry import RegistryTarget, upload
from casstore.streams import BytesSource, fetch_all
from tests.support.proxy import TcpProxy
from tests.support.registry_simulator import RegistrySimulator, Seen
from tests.support.servers import registry as real_registry

REPOSITORY = "some/repository"
DATA = hashlib.shake_256(b"casstore").digest(3 * spec.MIB + 12_345)
BLOB = Descriptor.of(DATA, "application/vnd.example.blob")
CONFIG = Descriptor.of(b"{}", "application/vnd.oci.empty.v1+json")
RAW = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": spec.MEDIA_MANIFEST,
        "artifactType": "application/vnd.example",
        "config": CONFIG.to_dict(),
        "layers": [BLOB.to_dict()],
    }
).encode()
MANIFEST = Descriptor.of(RAW, spec.MEDIA_MANIFEST)
PART = 1_000_000


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a size that lets three MiB be several."""
    monkeypatch.setattr(upload, "PART", PART)


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator() as server:
        yield server


@pytest.fixture
def target(registry: RegistrySimulator) -> Iterator[RegistryTarget]:
    with RegistryTarget(registry.reference(REPOSITORY), registry.options) as made:
        yield made


class CountingSource:
    """A Fetcher that tells how often it was opened, and what was read and taken back."""

    def __init__(self, data: bytes) -> None:
        self._source = BytesSource(data)
        self.opened = self.counted = 0

    def fetch(self, descriptor: Descriptor) -> Reader:
        self.opened += 1
        return _CountingReader(self._source.fetch(descriptor), self)


class _CountingReader:
    def __init__(self, reader: Reader, source: CountingSource) -> None:
        self._reader, self._source, self._count = reader, source, 0

    def read(self, size: int) -> bytes:
        data = self._reader.read(size)
        self._count += len(data)
        self._source.counted += len(data)
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._source.counted -= self._count
        self._reader.__exit__(kind, error, trace)


def push(target: RegistryTarget, data: bytes = DATA) -> None:
    target.push(Descriptor.of(data, BLOB.media_type), BytesSource(data))


def sent(registry: RegistrySimulator) -> list[tuple[str, int]]:
    """The requests that brought bytes."""
    return [(seen.method, seen.body) for seen in registry.requests if seen.method in {"PATCH", "PUT"}]


def stored(registry: RegistrySimulator) -> bytes | None:
    return registry.contents.blobs.get((REPOSITORY, str(BLOB.digest)))


def test_a_whole_blob_is_one_put(registry: RegistrySimulator, target: RegistryTarget) -> None:
    push(target)
    assert [seen.method for seen in registry.requests] == ["HEAD", "POST", "PUT"]
    assert "content-range" not in registry.requests[-1].headers
    assert stored(registry) == DATA


def test_what_is_there_can_be_sent_all_the_same(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.put_blob(REPOSITORY, DATA)
    target.upload(BLOB, BytesSource(DATA))
    assert [seen.method for seen in registry.requests] == ["POST", "PUT"]


# --- going on after a break


def test_100_a_push_that_broke_goes_on_where_it_ended(registry: RegistrySimulator, target: RegistryTarget) -> None:
    """Every byte is sent once: the session is asked what arrived, and the rest comes in parts."""
    registry.faults.breaks = [1_500_000]
    source = CountingSource(DATA)
    target.push(BLOB, source)
    assert stored(registry) == DATA
    assert sent(registry) == [("PUT", 1_500_000), ("PATCH", PART), ("PUT", len(DATA) - 2_500_000)]
    ranges = [seen.headers.get("content-range") for seen in registry.requests if seen.body]
    assert ranges == [None, "1500000-2499999", f"2500000-{len(DATA) - 1}"]
    assert source.counted == len(DATA)
    assert source.opened == 2
    assert not registry.uploads


def test_100_a_line_that_breaks_often_is_passed(registry: RegistrySimulator) -> None:
    """Progress gives new tries, so there may be more breaks than tries."""
    data = DATA * 5
    options = replace(registry.options, attempts=3)
    registry.faults.breaks = [1_500_000, *[None, 400_000] * 12]
    with RegistryTarget(registry.reference(REPOSITORY), options) as target:
        push(target, data)
    assert registry.contents.blobs[REPOSITORY, str(Digest.of(data))] == data
    assert sum(count for _, count in sent(registry)) < len(data) + 14 * 400_000


def test_94_a_line_that_never_gets_on_is_given_up(registry: RegistrySimulator) -> None:
    registry.faults.breaks = [1000] * 100
    with (
        RegistryTarget(registry.reference(REPOSITORY), replace(registry.options, attempts=4)) as target,
        pytest.raises(Unavailable),
    ):
        push(target)
    assert len(sent(registry)) == 4
    assert stored(registry) is None
    assert not registry.uploads  # deleted


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_94_a_busy_registry_is_asked_again(registry: RegistrySimulator, target: RegistryTarget, status: int) -> None:
    registry.faults.answers = [status, status]
    push(target)
    assert stored(registry) == DATA


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_not_tried_again(registry: RegistrySimulator, target: RegistryTarget, status: int) -> None:
    registry.faults.answers = [status] * 10
    with pytest.raises(Unauthorized):
        push(target)
    assert len(sent(registry)) == 1
    assert not registry.uploads


@pytest.mark.parametrize("status", [400, 405, 409])
def test_a_put_that_is_wrong_is_not_tried_again(
    registry: RegistrySimulator, target: RegistryTarget, status: int
) -> None:
    registry.faults.answers = [status] * 10
    with pytest.raises(RegistryError, match=f"got {status}"):
        push(target)
    assert len(sent(registry)) == 1


def test_100_what_arrived_is_not_sent_again(registry: RegistrySimulator, target: RegistryTarget) -> None:
    """The answer got lost, not the blob."""
    registry.faults.unanswered = [True]
    push(target)
    assert sent(registry) == [("PUT", len(DATA))]
    assert stored(registry) == DATA


def test_100_a_part_that_arrived_is_not_sent_again(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.breaks, registry.faults.unanswered = [500_000], [True]
    push(target)
    assert sent(registry) == [("PUT", 500_000), ("PATCH", PART), ("PATCH", PART), ("PUT", len(DATA) - 2_500_000)]
    assert stored(registry) == DATA


@pytest.mark.parametrize("fault", ["forgets", "no_status"])
def test_99_a_session_that_is_gone_or_mute_is_begun_anew(
    registry: RegistrySimulator, target: RegistryTarget, fault: str
) -> None:
    registry.faults.breaks = [1_500_000]
    setattr(registry.faults, fault, True)
    push(target)
    assert stored(registry) == DATA
    assert len(registry.seen("POST")) == 2
    assert not registry.uploads


def test_99_a_session_with_one_byte_or_none_is_begun_anew(registry: RegistrySimulator, target: RegistryTarget) -> None:
    """Both are `0-0`."""
    registry.faults.breaks = [1, 0]
    push(target)
    assert len(registry.seen("POST")) == 3
    assert stored(registry) == DATA


def test_99_all_bytes_there_and_only_the_end_missing(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.breaks = [len(DATA)]
    push(target)
    assert sent(registry) == [("PUT", len(DATA)), ("PUT", 0)]
    assert stored(registry) == DATA


def test_99_ecr_fails_on_an_empty_end(registry: RegistrySimulator, target: RegistryTarget) -> None:
    """Where that was all that was missing, it starts anew; and the last part goes with the PUT."""
    registry.faults.breaks, registry.faults.no_empty_put, registry.faults.patched = [len(DATA)], True, 201
    push(target)
    assert sent(registry)[1] == ("PUT", 0)
    assert sent(registry)[-1] == ("PUT", len(DATA) - 3 * PART)
    assert stored(registry) == DATA


# --- parts


def chunked(registry: RegistrySimulator) -> None:
    """Let the next upload go in parts from its first byte on."""
    registry.faults.max_body = PART


def test_413_in_front_of_the_registry_means_parts(registry: RegistrySimulator, target: RegistryTarget) -> None:
    chunked(registry)
    push(target)
    assert sent(registry) == [("PUT", len(DATA)), *[("PATCH", PART)] * 3, ("PUT", len(DATA) - 3 * PART)]
    assert stored(registry) == DATA


def test_413_for_a_part_means_smaller_ones(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.max_body = 300_000
    push(target)
    assert [size for _, size in sent(registry)][:4] == [len(DATA), PART, PART // 2, PART // 4]
    assert stored(registry) == DATA


def test_413_for_anything_is_given_up(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.max_body = 10
    with pytest.raises(RegistryError, match="got 413"):
        push(target)
    with pytest.raises(RegistryError, match="got 413"):
        push(target, b"a small one")
    assert not registry.uploads


def test_a_registry_that_takes_no_parts_gets_the_whole(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.breaks, registry.faults.patch = [1_500_000], 405
    push(target)
    assert sent(registry) == [("PUT", 1_500_000), ("PATCH", PART), ("PUT", len(DATA))]
    assert stored(registry) == DATA


def test_neither_whole_nor_in_parts(registry: RegistrySimulator, target: RegistryTarget) -> None:
    chunked(registry)
    registry.faults.patch = 400
    with pytest.raises(RegistryError, match="got 400"):
        push(target)


@pytest.mark.parametrize("status", [201, 202, 204])
def test_any_success_of_a_part_is_one(registry: RegistrySimulator, target: RegistryTarget, status: int) -> None:
    chunked(registry)
    registry.faults.patched = status
    push(target)
    assert stored(registry) == DATA


def test_99_a_part_kept_only_in_part_is_believed(registry: RegistrySimulator, target: RegistryTarget) -> None:
    chunked(registry)
    registry.faults.keep = [400_000, None, 10]
    push(target)
    assert stored(registry) == DATA
    starts = [int(seen.headers["content-range"].split("-")[0]) for seen in registry.seen("PATCH")]
    assert starts == [0, 400_000, 1_400_000, 1_400_010, 2_400_010][: len(starts)]


def test_99_a_registry_that_keeps_nothing_is_given_up(registry: RegistrySimulator, target: RegistryTarget) -> None:
    chunked(registry)
    registry.faults.keep = [2] * 1000
    with pytest.raises(RegistryError, match="kept"):
        push(target)
    assert len(sent(registry)) < 20


@pytest.mark.parametrize("said", ["", "0-0", "nonsense", "0-999999999999", "5-10", "0-\u0663"])
def test_99_a_range_of_no_use_is_none(registry: RegistrySimulator, target: RegistryTarget, said: str) -> None:
    chunked(registry)
    registry.faults.claims = [said.encode().decode("latin-1")] * 3
    push(target)
    assert stored(registry) == DATA


def test_99_416_says_where_to_go_on(registry: RegistrySimulator, target: RegistryTarget) -> None:
    """The registry kept less than it said, and has no other way to tell."""
    chunked(registry)
    registry.faults.keep, registry.faults.claims = [600_000], [f"0-{PART - 1}"]
    registry.faults.no_status = True
    push(target)
    assert stored(registry) == DATA
    starts = [seen.headers["content-range"].partition("-")[0] for seen in registry.seen("PATCH")]
    assert starts == ["0", str(PART), "600000", str(600_000 + PART)]


def test_99_parts_that_end_as_another_blob_are_sent_whole(registry: RegistrySimulator, target: RegistryTarget) -> None:
    """As docker-registry does, which ignores Content-Range: the digest in the final PUT is what counts."""
    registry.faults.breaks = [1_500_000]
    spoilt: list[bool] = []

    def spoil(seen: Seen) -> None:
        if registry.uploads and registry.seen("PATCH") and not spoilt:
            next(iter(registry.uploads.values()))[0] ^= 1
            spoilt.append(True)

    registry.watcher = spoil
    push(target)
    assert stored(registry) == DATA
    assert [method for method, _ in sent(registry)] == ["PUT", "PATCH", "PUT", "PUT"]


@pytest.mark.parametrize(("asked", "part"), [("2000000", 2_000_000), ("10", PART), ("-5", PART), ("x", PART)])
def test_a_registry_may_want_larger_parts(
    registry: RegistrySimulator, target: RegistryTarget, asked: str, part: int
) -> None:
    registry.faults.least_part, registry.faults.breaks = asked, [1]
    push(target)
    assert ("PATCH", part) in sent(registry)
    assert stored(registry) == DATA


def test_no_part_is_past_a_gibibyte(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.least_part, registry.faults.breaks = "999999999999999999", [1]
    push(target)
    assert stored(registry) == DATA


@pytest.mark.parametrize(
    ("host", "part"),
    [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", upload.ECR_PART),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", upload.ECR_PART),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", upload.ECR_PART),
        ("public.ecr.aws", upload.ECR_PART),
        ("public.ecr.aws.example", PART),
        ("xdkr.ecr.eu.amazonaws.com.example", PART),
        ("ghcr.io", PART),
    ],
)
def test_ecr_wants_larger_parts(host: str, part: int) -> None:
    assert upload.part_of(host) == part


# --- where it goes


@pytest.mark.parametrize("when", ["POST", "PATCH"])
def test_92_another_origin_gets_nothing(registry: RegistrySimulator, when: str) -> None:
    with (
        RegistrySimulator() as other,
        RegistryTarget(registry.reference(REPOSITORY), registry.options) as target,
    ):
        if when == "PATCH":
            chunked(registry)

        def lead_away(seen: Seen) -> None:
            if registry.seen(when):
                registry.faults.elsewhere = other.url

        registry.watcher = lead_away
        with pytest.raises(RegistryError, match="expected a Location on"):
            push(target)
        assert other.requests == []


# --- mounts


@pytest.fixture
def neighbour(registry: RegistrySimulator) -> Iterator[RegistryTarget]:
    registry.put_blob("another/repository", DATA)
    with RegistryTarget(registry.reference("another/repository"), registry.options) as made:
        yield made


def test_a_blob_of_a_neighbour_is_mounted(
    registry: RegistrySimulator, target: RegistryTarget, neighbour: RegistryTarget
) -> None:
    assert target.mount(BLOB, neighbour)
    assert stored(registry) == DATA
    assert sent(registry) == []
    assert registry.seen("POST")[0].path.endswith(f"?mount={BLOB.digest}&from=another/repository")


def test_a_blob_is_mounted_from_repositories_that_were_named(
    registry: RegistrySimulator, neighbour: RegistryTarget
) -> None:
    names = ("no/such", "another/repository")
    with RegistryTarget(registry.reference(REPOSITORY), registry.options, mount_from=names) as target:
        assert target.mount(BLOB, BytesSource())
        assert not registry.uploads


def test_97_a_mount_that_was_none_leaves_a_session(
    registry: RegistrySimulator, target: RegistryTarget, neighbour: RegistryTarget
) -> None:
    registry.faults.mounts = "no"
    assert not target.mount(BLOB, neighbour)
    target.upload(BLOB, neighbour)
    assert len(registry.seen("POST")) == 1
    assert stored(registry) == DATA


def test_97_a_mount_of_what_is_not_there_is_found_out(
    registry: RegistrySimulator, target: RegistryTarget, neighbour: RegistryTarget
) -> None:
    registry.faults.mounts = "lies"
    assert not target.mount(BLOB, neighbour)
    target.push(BLOB, neighbour)
    assert stored(registry) == DATA


def test_97_sessions_that_nobody_used_are_deleted_in_the_end(
    registry: RegistrySimulator, target: RegistryTarget, neighbour: RegistryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "_MAX_SESSIONS", 3)
    for number in range(10):
        assert not target.mount(Descriptor.of(b"%d" % number, BLOB.media_type), neighbour)
    assert len(registry.uploads) == 3


def test_nothing_is_mounted_from_elsewhere(registry: RegistrySimulator, target: RegistryTarget) -> None:
    with (
        RegistrySimulator(contents=registry.contents) as other,
        RegistryTarget(other.reference(REPOSITORY), other.options) as foreign,
    ):
        assert not target.mount(BLOB, foreign)
        assert not target.mount(BLOB, BytesSource(DATA))
        assert not target.mount(MANIFEST, foreign)
    assert registry.requests == []


def test_a_mount_needs_both_repositories_scopes() -> None:
    with RegistrySimulator(auth="bearer") as registry:
        registry.put_blob("another/repository", DATA)
        with (
            RegistryTarget(registry.reference("another/repository"), registry.options, registry.credentials) as source,
            RegistryTarget(registry.reference(REPOSITORY), registry.options, registry.credentials) as target,
        ):
            assert target.mount(BLOB, source)
        scopes = [seen.path for seen in registry.seen("GET", "/token")]
        assert any("another" in path and "some" in path for path in scopes)


def test_a_repository_that_refuses_mounts_is_asked_once(
    registry: RegistrySimulator, target: RegistryTarget, neighbour: RegistryTarget
) -> None:
    registry.faults.status = 405
    assert not target.mount(BLOB, neighbour)
    assert not target.mount(CONFIG, neighbour)
    assert len(registry.seen("POST")) == 1


# --- what is stored in the end


def test_84_a_put_that_stored_something_else(registry: RegistrySimulator, target: RegistryTarget) -> None:
    chunked(registry)
    registry.faults.digest = str(Digest.of(b"something else"))
    with pytest.raises(DigestMismatch, match="Docker-Content-Digest"):
        push(target)


@pytest.mark.parametrize("status", [200, 202, 204])
def test_98_another_success_counts_only_if_the_blob_is_there(
    registry: RegistrySimulator, target: RegistryTarget, status: int
) -> None:
    registry.faults.commit = status
    push(target)
    assert stored(registry) == DATA
    registry.contents.blobs.clear()
    registry.faults.stores = False
    with pytest.raises(RegistryError, match=f"expected 201, got {status}, and afterwards it is not there"):
        push(target)


def push_manifest(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.put_blob(REPOSITORY, DATA)
    registry.put_blob(REPOSITORY, b"{}")
    target.push(MANIFEST, BytesSource(RAW))


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_98_a_manifest_that_is_not_there_afterwards(
    registry: RegistrySimulator, target: RegistryTarget, status: int
) -> None:
    registry.faults.commit, registry.faults.stores = status, False
    with pytest.raises(RegistryError, match=f"PUT was answered {status}, but afterwards: .*not found"):
        push_manifest(registry, target)


def test_98_a_tag_that_stands_for_something_else_afterwards(
    registry: RegistrySimulator, target: RegistryTarget
) -> None:
    push_manifest(registry, target)
    registry.put_manifest(REPOSITORY, b"{}", tag="v1")
    registry.faults.stores = False
    with pytest.raises(DigestMismatch, match=r":v1 \(after it was pushed\)"):
        target.tag(MANIFEST, "v1")


def test_98_a_head_without_a_digest_is_followed_by_a_get(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.head_digest = ""
    push_manifest(registry, target)
    assert [seen.method for seen in registry.requests] == ["PUT", "HEAD", "GET"]


@pytest.mark.parametrize(
    ("status", "message"), [(400, "http: request body too large"), (413, "Payload Too Large"), (413, "")]
)
def test_98_a_manifest_that_is_too_large_for_the_registry(
    registry: RegistrySimulator, target: RegistryTarget, status: int, message: str
) -> None:
    registry.faults.status = status
    registry.faults.error = json.dumps({"errors": [{"code": "MANIFEST_INVALID", "message": message}]}).encode()
    with pytest.raises(RegistryError, match=rf"its {len(RAW)} bytes are too many for this registry.*4 MiB"):
        target.push(MANIFEST, BytesSource(RAW))


def test_97_a_manifest_whose_blobs_are_missing(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.put_blob(REPOSITORY, b"{}")
    with pytest.raises(MissingBlobs, match=r"MANIFEST_BLOB_UNKNOWN.*push its blobs again"):
        target.push(MANIFEST, BytesSource(RAW))


def test_96_a_blob_that_head_invents_can_be_sent(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.phantoms, registry.faults.head_length = True, str(len(DATA))
    push(target)
    assert stored(registry) is None
    target.upload(BLOB, BytesSource(DATA))
    assert stored(registry) == DATA


# --- sources


class Broken(Exception):
    """Somebody else's error."""


@pytest.mark.parametrize("error", [Broken("source"), Unavailable("source"), ConnectionResetError("source")], ids=repr)
def test_trouble_of_the_source_is_not_the_registry_s(
    registry: RegistrySimulator, target: RegistryTarget, error: Exception
) -> None:
    """Also where the source is a registry, which fails in the same words."""

    class Source(CountingSource):
        def fetch(self, descriptor: Descriptor) -> Reader:
            reader = super().fetch(descriptor)
            if self.opened == 2:
                raise error
            return reader

    source = Source(DATA)
    registry.faults.breaks = [1_500_000]
    with pytest.raises(type(error), match="source"):
        target.push(BLOB, source)
    assert source.opened == 2
    assert not registry.uploads


def test_401_in_the_middle_sends_the_body_again() -> None:
    with RegistrySimulator(auth="bearer") as registry:
        with RegistryTarget(registry.reference(REPOSITORY), registry.options, registry.credentials) as target:
            target.exists(BLOB)

            def expire(seen: Seen) -> None:
                registry.faults.refusals = int(seen.method == "PUT" and len(registry.seen("PUT")) == 1)

            registry.watcher = expire
            source = CountingSource(DATA)
            target.push(BLOB, source)
        assert stored(registry) == DATA
        assert [size for _, size in sent(registry)] == [len(DATA)] * 2
        assert source.counted == len(DATA)


# --- any faults at all


@settings(max_examples=40)
@given(
    breaks=st.lists(st.none() | st.integers(0, 250_000), max_size=6),
    unanswered=st.lists(st.none() | st.just(True), max_size=6),
    answers=st.lists(st.none() | st.sampled_from([404, 408, 416, 429, 500, 503]), max_size=6),
    keep=st.lists(st.none() | st.integers(0, 70_000), max_size=6),
    forgets=st.booleans(),
    size=st.sampled_from([0, 1, 2, 65_536, 65_537, 250_000]),
)
def test_whatever_happens_the_right_bytes_are_stored_or_none(
    breaks: list[int | None],
    unanswered: list[bool | None],
    answers: list[int | None],
    keep: list[int | None],
    *,
    forgets: bool,
    size: int,
) -> None:
    data = DATA[:size]
    descriptor = Descriptor.of(data, BLOB.media_type)
    with RegistrySimulator() as registry:
        faults = registry.faults
        faults.breaks, faults.unanswered, faults.answers, faults.keep = breaks, unanswered, answers, keep
        faults.forgets = forgets
        with (
            pytest.MonkeyPatch.context() as patch,
            RegistryTarget(registry.reference(REPOSITORY), registry.options) as target,
        ):
            patch.setattr(upload, "PART", 65_536)
            source = CountingSource(data)
            try:
                target.push(descriptor, source)
            except RegistryError:
                assert registry.contents.blobs.get((REPOSITORY, str(descriptor.digest))) in {None, data}
            else:
                assert registry.contents.blobs[REPOSITORY, str(descriptor.digest)] == data
                assert source.counted == size
        assert not registry.uploads


# --- the real thing


@pytest.mark.needs("docker-registry")
def test_docker_registry_after_a_cut_and_in_parts(tmp_path: Path) -> None:
    with real_registry(tmp_path) as server, TcpProxy(server.host) as proxy:
        reference = replace(server.reference(REPOSITORY), host=proxy.host)
        with RegistryTarget(reference, replace(server.options, backoff=0.01)) as target:
            proxy.cut_upload_after(1_500_000)
            push(target)
            assert fetch_all(target, BLOB, limit=len(DATA)) == DATA
            assert proxy.uploaded < 2 * len(DATA)
            big = DATA[::-1]
            proxy.cut_upload_after(1_500_000)
            push(target, big)
            assert fetch_all(target, Descriptor.of(big, BLOB.media_type), limit=len(DATA)) == big


@pytest.mark.needs("docker-registry")
def test_docker_registry_mounts(tmp_path: Path) -> None:
    with (
        real_registry(tmp_path) as server,
        RegistryTarget(server.reference("first"), server.options) as source,
        RegistryTarget(server.reference("second"), server.options) as target,
    ):
        push(source)
        assert not target.exists(BLOB)
        assert target.mount(BLOB, source)
        assert fetch_all(target, BLOB, limit=len(DATA)) == DATA
        other = Descriptor.of(b"other", BLOB.media_type)
        assert not target.mount(other, source)
        target.upload(other, BytesSource(b"other"))
        assert target.exists(other)
