"""What RegistryTarget makes of registries that lie, break or wander. Numbers are rows of the project's fault list."""

from __future__ import annotations

import gzip
import json
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from casstore import spec
from casstore.digest import Digest
from casstore.errors import (
    CorruptContent,
    DigestMismatch,
    DocumentError,
    InvalidDigest,
    InvalidReference,
    NotFound,
    RegistryError,
    SizeMismatch,
    Unauthorized,
    Unavailable,
    UnsupportedVersion,
    UsageError,
)
from casstore.oci import Descriptor
from casstore.reference import RegistryReference
from casstore.registry import RegistryOptions, RegistryTarget
from casstore.registry.urls import follow
from casstore.streams import BytesSource, fetch_all
from tests.support.certificates import Authority
from tests.support.registry_simulator import RegistrySimulator
from tests.support.servers import free_port

REPOSITORY = "some/repository"
DATA = bytes(range(256)) * 400  # 102,400 bytes
BLOB = Descriptor.of(DATA, "application/vnd.example.blob")
RAW = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": spec.MEDIA_MANIFEST,
        "artifactType": "application/vnd.example",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(Digest.of(b"{}")), "size": 2},
        "layers": [BLOB.to_dict()],
    },
    indent=1,
).encode()
MANIFEST = Descriptor.of(RAW, spec.MEDIA_MANIFEST)
LIMIT = spec.MIB


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator() as server:
        server.put_blob(REPOSITORY, DATA)
        server.put_blob(REPOSITORY, b"{}")
        server.put_manifest(REPOSITORY, RAW, tag="v1")
        yield server


@pytest.fixture
def other() -> Iterator[RegistrySimulator]:
    """Another origin: the same address, another port."""
    with RegistrySimulator() as server:
        yield server


@pytest.fixture
def target(registry: RegistrySimulator) -> Iterator[RegistryTarget]:
    with RegistryTarget(registry.reference(REPOSITORY), registry.options) as made:
        yield made


def fetch_blob(target: RegistryTarget) -> bytes:
    return fetch_all(target, BLOB, limit=LIMIT)


# --- bodies


def test_80_another_body_of_the_same_length_is_refused(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.body = DATA[::-1]
    registry.faults.digest = ""
    with pytest.raises(DigestMismatch, match="expected digest sha256:"):
        fetch_blob(target)


def test_80_bytes_given_out_before_the_last_are_never_all_of_them(
    registry: RegistrySimulator, target: RegistryTarget
) -> None:
    """A reader of a wrong body fails before it has given as many bytes as were promised."""
    registry.faults.body, registry.faults.digest = DATA[::-1], ""
    with target.fetch(BLOB) as reader:
        given = len(reader.read(len(DATA) - 1))
        with pytest.raises(DigestMismatch):
            reader.read(1)
    assert given == len(DATA) - 1


@pytest.mark.parametrize("chunked", [True, False])
def test_81_a_body_that_breaks_goes_on_where_it_broke(
    registry: RegistrySimulator, target: RegistryTarget, *, chunked: bool
) -> None:
    """No byte is sent twice: what arrived before a connection ended is kept."""
    registry.faults.cut, registry.faults.chunked = 45_000, chunked
    assert fetch_blob(target) == DATA
    starts = [int(request.headers["range"][6:-1]) for request in registry.requests[1:]]
    lost = 10 if chunked else 0  # the size of the chunk
    assert starts == pytest.approx([45_000, 90_000], abs=2 * lost)


@pytest.mark.parametrize("ending", ["cut", "chunked", "no length"])
def test_81_a_body_that_never_gets_on_is_given_up(
    registry: RegistrySimulator, target: RegistryTarget, ending: str
) -> None:
    registry.faults.cut, registry.faults.ranges = 50_000, False
    registry.faults.chunked = ending == "chunked"
    registry.faults.length = "" if ending == "no length" else None
    problem = "expected 102400 bytes, got 50000" if ending == "no length" else "after 6 attempts, none of which"
    with pytest.raises(SizeMismatch if ending == "no length" else Unavailable, match=problem):
        fetch_blob(target)
    assert len(registry.requests) == 6


def test_81_a_manifest_cut_short(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.cut = 10
    with pytest.raises(Unavailable):
        target.resolve("v1")
    registry.faults.length = ""
    with pytest.raises(DigestMismatch):
        target.fetch(MANIFEST)


def test_a_chunked_body_is_fine(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.chunked = True
    assert fetch_blob(target) == DATA


def test_82_extra_bytes_after_an_unknown_length(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.extra, registry.faults.length = b"x", ""
    with pytest.raises(SizeMismatch, match="got more"):
        fetch_blob(target)


def test_82_bytes_after_the_content_length_reach_nobody(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.extra = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    assert fetch_blob(target) == DATA
    time.sleep(0.1)  # until the extra bytes are there: before that nobody can tell that the connection is spoilt
    registry.faults.extra = b""
    assert fetch_blob(target) == DATA


@pytest.mark.parametrize("length", ["102401", "102399", "0", "9999999999999999999"])
def test_82_a_content_length_that_lies(registry: RegistrySimulator, target: RegistryTarget, length: str) -> None:
    registry.faults.length = length
    with pytest.raises(SizeMismatch, match="expected 102400 bytes"):
        fetch_blob(target)


@pytest.mark.parametrize("length", ["-1", "102400, 102400", "+102400", "0x19000", "1e9", "٣", "9" * 30])
def test_82_a_content_length_that_is_no_number(
    registry: RegistrySimulator, target: RegistryTarget, length: str
) -> None:
    registry.faults.length = length.encode().decode("latin-1")
    with pytest.raises(RegistryError, match="expected Content-Length 102400, got"):
        fetch_blob(target)


def test_83_ranges_are_asked_for_only_to_go_on(registry: RegistrySimulator, target: RegistryTarget) -> None:
    """Artifactory breaks on others."""
    fetch_blob(target)
    assert all("range" not in request.headers for request in registry.requests)
    registry.faults.status, registry.faults.error = 206, DATA
    with pytest.raises(RegistryError, match="expected 200, got 206"):
        target.fetch(BLOB)


@pytest.mark.parametrize("claim", [f"sha256:{'0' * 64}", "sha256:", "md5:00", "\x1b[31m"])
def test_84_a_wrong_docker_content_digest(registry: RegistrySimulator, target: RegistryTarget, claim: str) -> None:
    registry.faults.digest = claim
    for read in (lambda: target.fetch(BLOB), lambda: target.fetch(MANIFEST), lambda: target.resolve("v1")):
        with pytest.raises(DigestMismatch, match="Docker-Content-Digest") as caught:
            read()
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("claim", ["", f"sha512:{'0' * 128}"])
def test_84_a_missing_docker_content_digest_or_one_of_another_kind(
    registry: RegistrySimulator, target: RegistryTarget, claim: str
) -> None:
    registry.faults.digest = claim
    assert fetch_blob(target) == DATA
    assert target.resolve("v1") == MANIFEST
    # and it vouches for nothing
    registry.faults.body = DATA[::-1]
    with pytest.raises(DigestMismatch):
        fetch_blob(target)


# --- manifests


def test_85_a_tag_that_moves_is_pinned_by_the_first_read(registry: RegistrySimulator, target: RegistryTarget) -> None:
    moved = RAW.replace(b"vnd.example", b"vnd.another")
    registry.faults.retag = registry.put_manifest(REPOSITORY, moved)
    first = target.resolve("v1")
    assert fetch_all(target, first, limit=LIMIT) == RAW
    target.tag(first, "mine")
    assert target.resolve("mine") == MANIFEST
    assert target.resolve("v1") == Descriptor.of(moved, spec.MEDIA_MANIFEST)


def test_resolve_fetch_and_tag_read_a_manifest_once(registry: RegistrySimulator, target: RegistryTarget) -> None:
    descriptor = target.resolve("v1")
    assert fetch_all(target, descriptor, limit=LIMIT) == RAW
    target.tag(descriptor, "v2")
    assert target.resolve(str(descriptor.digest)) == descriptor
    assert len(registry.seen("GET", "/manifests/")) == 1


def test_the_manifest_cache_is_bounded(registry: RegistrySimulator, target: RegistryTarget) -> None:
    documents = [json.dumps({**json.loads(RAW), "x": f"{n}{'x' * 3_900_000}"}).encode() for n in range(6)]
    digests = [registry.put_manifest(REPOSITORY, document) for document in documents]
    for digest in digests:
        target.resolve(digest)
    target.resolve(digests[-1])
    assert len(registry.requests) == 6
    target.resolve(digests[0])
    assert len(registry.requests) == 7


def test_86_a_manifest_by_digest_with_other_bytes(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.body, registry.faults.digest = RAW + b" ", ""
    for read in (lambda: target.resolve(str(MANIFEST.digest)), lambda: target.fetch(MANIFEST)):
        with pytest.raises(DigestMismatch, match=r"expected digest sha256:.*, got sha256:"):
            read()


def test_86_an_index_where_a_manifest_was_promised(registry: RegistrySimulator, target: RegistryTarget) -> None:
    raw = json.dumps({"schemaVersion": 2, "mediaType": spec.MEDIA_INDEX, "manifests": []}).encode()
    digest = registry.put_manifest(REPOSITORY, raw)
    registry.contents.manifests[REPOSITORY, digest] = (spec.MEDIA_INDEX, raw)
    assert target.resolve(digest).media_type == spec.MEDIA_INDEX
    with pytest.raises(DocumentError, match=r"expected a .*manifest.*, got a .*index"):
        target.fetch(Descriptor.of(raw, spec.MEDIA_MANIFEST))


@pytest.mark.parametrize(
    ("change", "media_type", "problem"),
    [
        ({}, spec.MEDIA_INDEX, "expected Content-Type"),
        ({}, "", "expected Content-Type"),
        ({}, "application/json", "expected Content-Type"),
        ({"mediaType": "application/json"}, "application/json", "expected a manifest, got 'application/json'"),
        ({"mediaType": 5}, spec.MEDIA_MANIFEST, "expected Content-Type 5"),
        ({"manifests": []}, spec.MEDIA_MANIFEST, "got both in one"),
    ],
)
def test_86_manifests_that_could_be_taken_for_something_else(
    registry: RegistrySimulator, target: RegistryTarget, change: dict[str, Any], media_type: str, problem: str
) -> None:
    digest = registry.put_manifest(REPOSITORY, json.dumps({**json.loads(RAW), **change}).encode(), tag="bad")
    registry.faults.media_type = media_type
    for reference in ("bad", digest):
        with pytest.raises(CorruptContent, match=problem):
            target.resolve(reference)


def test_a_manifest_without_media_type_takes_the_headers(registry: RegistrySimulator, target: RegistryTarget) -> None:
    """Legal OCI; and a Content-Type may have parameters."""
    document = json.loads(RAW)
    del document["mediaType"]
    digest = registry.put_manifest(REPOSITORY, json.dumps(document).encode())
    registry.faults.media_type = f"{spec.MEDIA_MANIFEST}; charset=utf-8"
    assert target.resolve(digest).media_type == spec.MEDIA_MANIFEST


@pytest.mark.parametrize("raw", [b"", b"[]", b"<html>", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff\xfe", b"[" * 100_000])
def test_86_what_is_no_json_object_is_no_manifest(
    registry: RegistrySimulator, target: RegistryTarget, raw: bytes
) -> None:
    registry.put_manifest(REPOSITORY, raw, tag="bad")
    with pytest.raises(DocumentError):
        target.resolve("bad")


@pytest.mark.parametrize("length", [None, ""])
def test_87_a_manifest_past_four_mebibytes_is_not_read(
    registry: RegistrySimulator, target: RegistryTarget, length: str | None
) -> None:
    registry.put_manifest(REPOSITORY, b" " * (spec.MAX_MANIFEST + 1), tag="big")
    registry.faults.length = length
    with pytest.raises(SizeMismatch, match=r"at most.*expected 4194304 bytes, got more"):
        target.resolve("big")
    with pytest.raises(UnsupportedVersion, match="at most 4194304"):
        target.fetch(replace(MANIFEST, size=spec.MAX_MANIFEST + 1))
    with pytest.raises(UnsupportedVersion, match="at most 4194304"):
        target.push(replace(MANIFEST, size=spec.MAX_MANIFEST + 1), BytesSource(RAW))


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "deflate", "br", "identity, gzip"])
def test_87_encoded_bodies_are_refused(registry: RegistrySimulator, target: RegistryTarget, encoding: str) -> None:
    registry.faults.encoding, registry.faults.digest = encoding, ""
    registry.faults.body = gzip.compress(bytes(50_000_000))
    with pytest.raises(RegistryError, match=f"got Content-Encoding '{encoding}'"):
        target.resolve("v1")
    registry.faults.body = gzip.compress(DATA)
    registry.faults.length = str(len(DATA))
    with pytest.raises(RegistryError, match=f"got Content-Encoding '{encoding}'"):
        fetch_blob(target)


def test_87_identity_is_asked_for_and_stored_gzip_stays_gzip(
    registry: RegistrySimulator, target: RegistryTarget
) -> None:
    packed = gzip.compress(DATA)
    registry.put_blob(REPOSITORY, packed)
    assert fetch_all(target, Descriptor.of(packed, "application/gzip"), limit=LIMIT) == packed
    registry.faults.encoding = "identity"
    assert fetch_blob(target) == DATA
    assert {request.headers["accept-encoding"] for request in registry.requests} == {"identity"}


# --- redirects and upload locations


def test_a_redirect_is_followed(registry: RegistrySimulator, other: RegistrySimulator, target: RegistryTarget) -> None:
    other.contents.blobs = registry.contents.blobs
    registry.faults.redirect = f"{other.url}{{path}}?signature=x"
    assert fetch_blob(target) == DATA
    assert target.exists(BLOB)
    assert [request.path.endswith("?signature=x") for request in other.requests] == [True, True]


def test_89_a_redirect_loop_ends(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.redirect = "{path}"
    with pytest.raises(RegistryError, match="at most 5 redirects"):
        target.fetch(BLOB)
    assert len(registry.requests) == 6


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://user:canary-pass@127.0.0.1/x",
        "http://",
        "http://127.0.0.1:99999/",
        "http://[::1/",
        "http://a b/",
        "http://a\tb/",
        "http://a\x0bb/",
        "http://a\\@b/",
        "http://ä.example/",
        "",
    ],
)
def test_89_redirects_to_what_is_no_plain_url(
    registry: RegistrySimulator, target: RegistryTarget, location: str
) -> None:
    registry.faults.redirect = location
    with pytest.raises(RegistryError, match="expected") as caught:
        target.fetch(BLOB)
    assert "canary" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_89_redirects_of_writes_are_refused(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.status, registry.faults.error_headers = 307, {"Location": "/elsewhere"}
    with pytest.raises(RegistryError, match=r"expected an answer to DELETE, got a redirect to http://.*/elsewhere"):
        target.delete(BLOB)
    registry.faults.error_headers = {}
    with pytest.raises(RegistryError, match="expected a Location"):
        target.delete(BLOB)


def test_89_the_body_of_a_redirect_is_not_decoded(registry: RegistrySimulator, target: RegistryTarget) -> None:
    """What requests does even then: it reads and decodes all of it with allow_redirects=False."""
    registry.faults.status, registry.faults.error = 302, gzip.compress(bytes(50_000_000))
    registry.faults.error_headers = {"Location": "/v2/", "Content-Encoding": "gzip"}
    tracemalloc.start()
    try:
        with pytest.raises(RegistryError, match="at most 5 redirects"):
            target.fetch(BLOB)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("location", ["http://127.0.0.1:{port}{{path}}", "//127.0.0.1:{port}{{path}}"])
def test_92_an_upload_location_elsewhere_is_refused(
    registry: RegistrySimulator, other: RegistrySimulator, target: RegistryTarget, location: str
) -> None:
    registry.faults.location = location.format(port=other.host.rpartition(":")[2])
    new = Descriptor.of(b"new", "application/x")
    with pytest.raises(RegistryError, match=r"expected a Location on http://127\.0\.0\.1:"):
        target.push(new, BytesSource(b"new"))
    assert other.requests == []


@pytest.mark.parametrize("location", ["", "file:///x", "http://a\x01b/x", "mailto:me"])
def test_92_an_upload_location_that_is_none(registry: RegistrySimulator, target: RegistryTarget, location: str) -> None:
    registry.faults.location = location
    with pytest.raises(RegistryError, match="upload: expected"):
        target.push(Descriptor.of(b"new", "application/x"), BytesSource(b"new"))


@pytest.mark.parametrize("location", [None, "{path}", "{path}#fragment"])
def test_92_upload_locations_are_used_as_given(
    registry: RegistrySimulator, target: RegistryTarget, location: str | None
) -> None:
    """Absolute, relative, with a query whose escapes must survive."""
    registry.faults.location = location
    new = Descriptor.of(b"new", "application/x")
    target.push(new, BytesSource(b"new"))
    assert fetch_all(target, new, limit=LIMIT) == b"new"
    assert registry.seen("PUT")[0].path.endswith(f"?_state=canary%2Fstate%3D&digest={new.digest}")


# --- answers to questions and writes


@pytest.mark.parametrize("status", [400, 404, 401, 403, 405, 429, 500, 503])
def test_95_error_bodies_are_typed_short_and_harmless(
    registry: RegistrySimulator, target: RegistryTarget, status: int
) -> None:
    kinds = {401: Unauthorized, 403: Unauthorized, 404: NotFound}
    kinds |= dict.fromkeys([429, 500, 503], Unavailable)
    wicked = "\x1b]0;owned\x07 \u202egpj.exe \r\n\x00" + "A" * 10_000
    bodies = [
        json.dumps({"errors": [{"code": "WICKED", "message": wicked}]}).encode(),
        f"<html>WICKED {wicked}".encode(),
        b"WICKED " + b"\xff\xfe" * 200,
        b"WICKED" + b"A" * 5_000_000,
        b'{"errors": "WICKED"}',
        b'{"errors": [["WICKED"]]}',
        b'{"errors": [{"message": {"WICKED": ' + b"[" * 10_000,
    ]
    registry.faults.status = status
    for body in bodies:
        registry.faults.error = body
        with pytest.raises(kinds.get(status, RegistryError), match=str(status)) as caught:
            target.fetch(BLOB)
        text = str(caught.value)
        assert type(caught.value) is kinds.get(status, RegistryError)
        assert "WICKED" in text
        assert text.isascii()
        assert text.isprintable()
        assert len(text) < 500


def test_95_error_bodies_are_read_to_64_kib_and_not_decoded(
    registry: RegistrySimulator, target: RegistryTarget
) -> None:
    registry.faults.status, registry.faults.error = 500, b"WICKED" + b"A" * 100_000
    registry.faults.error_headers = {"Content-Length": "1000000000"}  # whoever wants it all waits for a time-out
    with pytest.raises(Unavailable, match="WICKED"):
        target.fetch(BLOB)
    registry.faults.error = gzip.compress(b"WICKED", compresslevel=9)
    registry.faults.error_headers = {"Content-Encoding": "gzip"}
    with pytest.raises(Unavailable) as caught:
        target.fetch(BLOB)
    assert "try again later" in str(caught.value)
    assert r"\ufffd" in str(caught.value)


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_95_an_error_is_not_an_absence(registry: RegistrySimulator, target: RegistryTarget, status: int) -> None:
    registry.faults.status = status
    with pytest.raises(RegistryError):
        target.exists(BLOB)


@pytest.mark.parametrize("length", ["1", "", "102401", "nonsense"])
def test_96_a_head_of_another_size_does_not_spare_the_upload(
    registry: RegistrySimulator, target: RegistryTarget, length: str
) -> None:
    registry.faults.head_length = length
    assert not target.exists(BLOB)
    target.push(BLOB, BytesSource(DATA))
    assert len(registry.seen("PUT")) == 1


def test_96_a_head_that_finds_what_a_get_does_not(registry: RegistrySimulator, target: RegistryTarget) -> None:
    missing = Descriptor.of(b"missing", "application/x")
    registry.faults.phantoms, registry.faults.head_length = True, "7"
    assert target.exists(missing)
    with pytest.raises(NotFound):
        target.fetch(missing)


def test_a_blob_that_is_there_is_not_sent(registry: RegistrySimulator, target: RegistryTarget) -> None:
    target.push(BLOB, BytesSource(DATA))
    assert [request.method for request in registry.requests] == ["HEAD"]


def test_97_a_manifest_whose_blob_is_missing_is_explained(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.contents.blobs.clear()
    with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN"):
        target.push(MANIFEST, BytesSource(RAW))


@pytest.mark.parametrize("new", [b"new", b""])
def test_98_a_put_that_stored_something_else(registry: RegistrySimulator, target: RegistryTarget, new: bytes) -> None:
    registry.faults.digest = str(Digest.of(b"something else"))
    with pytest.raises(DigestMismatch, match="Docker-Content-Digest"):
        target.push(Descriptor.of(new, "application/x"), BytesSource(new))
    with pytest.raises(DigestMismatch, match="Docker-Content-Digest"):
        target.push(MANIFEST, BytesSource(RAW))


def test_98_a_registry_that_finds_a_manifest_too_large_is_quoted(
    registry: RegistrySimulator, target: RegistryTarget
) -> None:
    registry.faults.status = 400
    registry.faults.error = b'{"errors":[{"code":"MANIFEST_INVALID","message":"http: request body too large"}]}'
    with pytest.raises(RegistryError, match="MANIFEST_INVALID: http: request body too large"):
        target.push(MANIFEST, BytesSource(RAW))


def test_a_registry_without_deletion_says_so(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.status = 405
    registry.faults.error = b'{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}'
    with pytest.raises(RegistryError, match=r"got 405.*UNSUPPORTED"):
        target.delete(BLOB)


# --- the way there


@pytest.mark.parametrize("plain_http", [True, False])
def test_109_a_refused_connection_is_unavailable_at_once(*, plain_http: bool) -> None:
    host = f"127.0.0.1:{free_port()}"
    with RegistryTarget(RegistryReference(host, "a"), RegistryOptions(plain_http=plain_http)) as target:
        with pytest.raises(Unavailable, match=rf"{host}/a.*Connection refused") as caught:
            target.exists(BLOB)
        assert caught.value.__cause__ is None


def test_109_an_unknown_host_is_unavailable() -> None:
    with RegistryTarget(RegistryReference("registry.invalid", "a")) as target, pytest.raises(Unavailable):
        target.exists(BLOB)


def test_the_caller_s_own_trouble_is_not_quoted() -> None:
    """The innermost cause is looked for inside the HTTP libraries only."""
    host = f"127.0.0.1:{free_port()}"
    with RegistryTarget(RegistryReference(host, "a"), RegistryOptions(plain_http=True)) as target:
        try:
            raise KeyError("canary")
        except KeyError:
            with pytest.raises(Unavailable) as caught:
                target.exists(BLOB)
    assert "canary" not in str(caught.value)


@pytest.fixture
def authority() -> Authority:
    return Authority()


def tls_target(server: RegistrySimulator, **changes: Any) -> RegistryTarget:
    return RegistryTarget(server.reference(REPOSITORY), replace(server.options, **changes))


def test_105_a_private_ca_is_trusted_when_given(authority: Authority, tmp_path: Path) -> None:
    bundle = str(authority.write_bundle(tmp_path / "ca.crt"))
    with (
        RegistrySimulator(tls=authority.server_context("127.0.0.1", folder=tmp_path)) as server,
        tls_target(server, ca_bundle=bundle) as target,
    ):
        server.put_blob(REPOSITORY, DATA)
        assert fetch_blob(target) == DATA


@pytest.mark.parametrize("case", ["self-signed", "expired", "wrong host", "other ca"])
def test_105_certificates_that_prove_nothing(authority: Authority, tmp_path: Path, case: str) -> None:
    host, days = ("localhost" if case == "wrong host" else "127.0.0.1"), (-2.0 if case == "expired" else 1.0)
    trusted = {"self-signed": None, "other ca": Authority()}.get(case, authority)
    bundle = None if trusted is None else str(trusted.write_bundle(tmp_path / "ca.crt"))
    with (
        RegistrySimulator(tls=authority.server_context(host, folder=tmp_path, days=days)) as server,
        tls_target(server, ca_bundle=bundle) as target,
    ):
        with pytest.raises(Unavailable, match="certificate"):
            target.exists(BLOB)
        assert server.requests == []


def test_105_insecure_is_for_the_registry_alone(authority: Authority, tmp_path: Path) -> None:
    """The registry's certificate is not checked, that of the host it redirects to is."""
    context = authority.server_context("127.0.0.1", folder=tmp_path)
    with (
        RegistrySimulator(tls=context) as server,
        RegistrySimulator(tls=context, contents=server.contents) as storage,
        tls_target(server, insecure=True) as target,
    ):
        server.put_blob(REPOSITORY, DATA)
        assert fetch_blob(target) == DATA
        server.faults.redirect = f"{storage.url}{{path}}"
        with pytest.raises(Unavailable, match="certificate"):
            fetch_blob(target)
        assert storage.requests == []


def test_105_https_never_becomes_http(authority: Authority, other: RegistrySimulator, tmp_path: Path) -> None:
    context = authority.server_context("127.0.0.1", folder=tmp_path)
    with RegistrySimulator(tls=context) as server, tls_target(server, insecure=True) as target:
        server.faults.redirect = f"{other.url}{{path}}"
        with pytest.raises(RegistryError, match="expected https as before"):
            target.fetch(BLOB)
        server.faults.redirect, server.faults.location = None, f"http://{server.host}{{path}}"
        with pytest.raises(RegistryError, match="expected https as before"):
            target.push(BLOB, BytesSource(DATA))
        # a scheme in capitals is no way around it
        with pytest.raises(RegistryError, match="expected https as before"):
            follow(f"HTTPS://{server.host}/", f"http://{server.host}/", subject="x")
    assert other.requests == []


def test_105_plain_http_where_tls_was_meant(registry: RegistrySimulator) -> None:
    with RegistryTarget(registry.reference(REPOSITORY)) as target, pytest.raises(Unavailable, match=r"(?i)ssl"):
        target.exists(BLOB)
    assert registry.requests == []


def test_a_ca_bundle_that_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="/no/such/file"):
        RegistryTarget(RegistryReference("localhost", "a"), RegistryOptions(ca_bundle="/no/such/file"))


def test_a_ca_bundle_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("nothing")
    with pytest.raises(UsageError, match=r"CA bundle .*ca.crt: expected a PEM file of certificates, got another"):
        RegistryOptions(ca_bundle=str(tmp_path / "ca.crt"))


def test_the_wrong_scheme_is_told_with_what_to_do(authority: Authority, tmp_path: Path) -> None:
    def told(server: RegistrySimulator, **changes: Any) -> str:
        with tls_target(server, **changes) as target, pytest.raises(RegistryError) as caught:
            target.resolve("tag")
        return str(caught.value)

    with RegistrySimulator() as plain:
        assert "it seems to speak http: try --plain-http" in told(plain, plain_http=False)
        plain.faults.status, plain.faults.error = 400, b"Client sent an HTTP request to an HTTPS server.\n"
        assert "it speaks https: leave out --plain-http" in told(plain)
    with RegistrySimulator(tls=authority.server_context("127.0.0.1", folder=tmp_path)) as secure:
        assert "the CA to trust with --ca-bundle" in told(secure)


# --- memory and threads


def test_a_large_blob_passes_in_small_pieces(registry: RegistrySimulator) -> None:
    """Neither way is the body ever asked for, or sent, in one piece."""
    size = 8 * spec.MIB
    data = bytes(size)
    descriptor = Descriptor.of(data, "application/x")
    asked: list[int] = []

    class Watching:
        def __init__(self) -> None:
            self._left = size

        def read(self, count: int) -> bytes:
            asked.append(count)
            count = min(count, self._left)
            self._left -= count
            return bytes(count)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    class Source:
        def fetch(self, descriptor: Descriptor) -> Watching:
            return Watching()

    with RegistryTarget(registry.reference(REPOSITORY), registry.options) as target:
        target.push(descriptor, Source())
        assert max(asked) <= spec.MIB
        with target.fetch(descriptor) as reader:
            assert len(reader.read(1000)) == 1000


def test_a_source_that_ends_early_is_noticed_before_the_server_waits(
    registry: RegistrySimulator, target: RegistryTarget
) -> None:
    """Even a source that breaks its contract; else the request would hang until a time-out."""

    class Short(BytesSource):
        def fetch(self, descriptor: Descriptor) -> Any:
            return super().fetch(Descriptor.of(b"short", "application/x"))

    with pytest.raises(SizeMismatch):
        target.push(Descriptor.of(b"longer than short", "application/x"), Short(b"short"))


def test_threads_share_one_target(registry: RegistrySimulator, target: RegistryTarget) -> None:
    def work(number: int) -> bool:
        data = b"%d" % number * 50_000
        descriptor = Descriptor.of(data, "application/x")
        target.push(descriptor, BytesSource(data))
        return fetch_all(target, descriptor, limit=LIMIT) == data and target.resolve("v1") == MANIFEST

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(16)))


def test_connections_are_used_again(registry: RegistrySimulator, target: RegistryTarget) -> None:
    for _ in range(5):
        assert fetch_blob(target) == DATA
        assert target.exists(BLOB)
        with pytest.raises(NotFound):
            target.resolve("nothing")
        target.push(MANIFEST, BytesSource(RAW))
    adapter: Any = target._client.session.get_adapter("http://x")
    pools = adapter.poolmanager.pools
    (pool,) = [pools[key] for key in pools.keys()]  # noqa: SIM118  (not a dict)
    assert pool.num_connections == 1


def test_closing_ends_the_threads_of_the_server(registry: RegistrySimulator) -> None:
    before = threading.active_count()
    with RegistryTarget(registry.reference(REPOSITORY), registry.options) as target:
        target.exists(BLOB)
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


# --- words


@pytest.mark.parametrize("reference", ["sha512:00", "sha256:00", "a:b", "sha256:" + "A" * 64])
def test_resolve_takes_no_other_digests(target: RegistryTarget, reference: str) -> None:
    with pytest.raises(InvalidDigest):
        target.resolve(reference)


@pytest.mark.parametrize("reference", ["", "../x", "a/b", "a\n", "?x", "x" * 129])
def test_resolve_and_tag_take_no_other_tags(
    registry: RegistrySimulator, target: RegistryTarget, reference: str
) -> None:
    with pytest.raises(InvalidReference):
        target.resolve(reference)
    with pytest.raises(InvalidReference):
        target.tag(MANIFEST, reference)
    assert registry.requests == []


def test_docker_io_is_an_alias() -> None:
    with RegistryTarget(RegistryReference("docker.io", "library/x")) as target:
        assert target._url(BLOB) == f"https://registry-1.docker.io/v2/library/x/blobs/{BLOB.digest}"
        assert str(target._client.origin) == "https://registry-1.docker.io"


def test_the_user_agent_names_the_program(registry: RegistrySimulator, target: RegistryTarget) -> None:
    target.exists(BLOB)
    assert registry.requests[0].headers["user-agent"].startswith("casstore/")


def test_messages_name_the_subject(registry: RegistrySimulator, target: RegistryTarget) -> None:
    with pytest.raises(NotFound, match=rf"^{registry.host}/{REPOSITORY}:nothing: not found: .*got 404 \(MANIFEST_UN"):
        target.resolve("nothing")
