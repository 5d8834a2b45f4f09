"""Tags: listed in pages by registries that lie, and taken away one at a time. Numbers are rows of the fault list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from casstore import spec
from casstore.digest import Digest
from casstore.errors import (
    Conflict,
    DigestMismatch,
    DocumentError,
    NotFound,
    NotOffered,
    RegistryError,
    SizeMismatch,
    Unauthorized,
)
from casstore.oci import Descriptor
from casstore.registry import RegistryTarget, pages, tags
from casstore.registry.pages import next_page
from casstore.streams import BytesSource
from tests.support.registry_simulator import RegistrySimulator, Seen
from tests.support.servers import registry as real_registry
from tests.support.tools import run

REPOSITORY = "some/repository"


def manifest(note: str) -> tuple[Descriptor, bytes]:
    config = Descriptor.of(b"{}", "application/vnd.oci.empty.v1+json").to_dict()
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": spec.MEDIA_MANIFEST,
            "artifactType": "application/vnd.example",
            "config": config,
            "layers": [config],
            "annotations": {"note": note},
        }
    ).encode()
    return Descriptor.of(raw, spec.MEDIA_MANIFEST), raw


def push(target: RegistryTarget, note: str, *names: str) -> Descriptor:
    config = Descriptor.of(b"{}", "application/vnd.oci.empty.v1+json")
    target.push(config, BytesSource(b"{}"))
    descriptor, raw = manifest(note)
    target.push(descriptor, BytesSource(raw))
    for name in names:
        target.tag(descriptor, name)
    return descriptor


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator() as server:
        yield server


@pytest.fixture
def target(registry: RegistrySimulator) -> Iterator[RegistryTarget]:
    with RegistryTarget(registry.reference(REPOSITORY), registry.options) as made:
        yield made


# --- the list


@pytest.mark.parametrize("page", [1, 2, 3, 7, 8, None])
def test_all_pages_are_read(registry: RegistrySimulator, target: RegistryTarget, page: int | None) -> None:
    names = [f"v{number}" for number in range(7)]
    push(target, "a", *names)
    registry.faults.page = page
    assert sorted(target.tags()) == names


@pytest.mark.parametrize(
    ("header", "following"),
    [
        ('</a?last=x>; rel="next"', "/a?last=x"),
        ("</a>; rel=next", "/a"),
        ("</a>;rel='next'", "/a"),
        ('</a>; title="b"; rel="next"', "/a"),
        ('</b>; rel="prev", </a>; rel="next"', "/a"),
        ('</b>; rel="prev"', None),
        ('</b>; rel="nextish"', None),
        ("", None),
        ("nonsense", None),
        ("<>; rel=next", None),
        ("<" * 10_000, None),
        ("<a>;" * 10_000, None),
    ],
)
def test_the_next_page_is_in_link(header: str, following: str | None) -> None:
    assert next_page(header) == following


def test_101_pages_without_end(
    registry: RegistrySimulator, target: RegistryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_PAGES", 20)
    push(target, "a", "v1")
    registry.faults.link = '<{path}>; rel="next"'
    with pytest.raises(RegistryError, match="expected at most 20 pages, got more"):
        target.tags()


@pytest.mark.parametrize("link", ["http://127.0.0.1:1/next", "//127.0.0.1:1/next", "file:///etc/passwd", "http://u@h/"])
def test_101_a_page_elsewhere(registry: RegistrySimulator, target: RegistryTarget, link: str) -> None:
    push(target, "a", "v1")
    registry.faults.link = f'<{link}>; rel="next"'
    with pytest.raises(RegistryError, match="next page: expected"):
        target.tags()


def test_101_more_tags_than_anybody_has(
    registry: RegistrySimulator, target: RegistryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tags, "MAX_TAGS", 3)
    push(target, "a", "a", "b", "c")
    assert len(target.tags()) == 3
    push(target, "a", "d")
    with pytest.raises(DocumentError, match="expected at most 3"):
        target.tags()


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"tags": null}', ()),
        (b"{}", ()),
        (b'{"tags": ["a", "a", "b"]}', ("a", "b")),
        (b'{"tags": ["ok", "../x", "", "a b", "\\u001b[2J", "x\\n", 7, null, ["y"]]}', ("ok",)),
    ],
)
def test_what_is_no_tag_is_left_out(
    registry: RegistrySimulator, target: RegistryTarget, body: bytes, names: tuple[str, ...]
) -> None:
    push(target, "a", "v1")
    registry.faults.tags_body = body
    assert target.tags() == names


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"tags": {}}', b'{"tags": "v1"}', b'{"tags": [], "tags": []}']
)
def test_what_is_no_list_is_refused(registry: RegistrySimulator, target: RegistryTarget, body: bytes) -> None:
    push(target, "a", "v1")
    registry.faults.tags_body = body
    with pytest.raises(DocumentError):
        target.tags()


def test_a_page_has_a_limit(
    registry: RegistrySimulator, target: RegistryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tags, "_PAGE_BYTES", 1000)
    push(target, "a", "v1")
    registry.faults.tags_body = b" " * 1001
    with pytest.raises(SizeMismatch):
        target.tags()


def test_a_repository_that_is_not_there_has_no_tags(registry: RegistrySimulator, target: RegistryTarget) -> None:
    assert target.tags() == ()
    registry.faults.status, registry.faults.error = 404, b"<html>no registry here</html>"
    with pytest.raises(NotFound):
        target.tags()


# --- taking one away


def digests(registry: RegistrySimulator) -> set[str]:
    return {digest for _, digest in registry.contents.manifests}


@pytest.mark.parametrize("offered", [True, False])
def test_a_tag_goes_alone(registry: RegistrySimulator, target: RegistryTarget, *, offered: bool) -> None:
    registry.faults.tag_deletes = offered
    shared = push(target, "shared", "gone", "sibling")
    push(target, "other", "unrelated")
    before = digests(registry)
    target.untag("gone")
    assert set(target.tags()) == {"sibling", "unrelated"}
    assert digests(registry) == before
    assert target.resolve("sibling") == shared
    assert not [seen for seen in registry.seen("DELETE") if seen.path.endswith(str(shared.digest))]


def test_a_manifest_that_went_with_its_last_tag_is_put_back(
    registry: RegistrySimulator, target: RegistryTarget
) -> None:
    registry.faults.tag_deletes = registry.faults.deletes_all = True
    descriptor = push(target, "a", "only")
    target.untag("only")
    assert target.tags() == ()
    assert target.exists(descriptor)


def test_siblings_that_went_with_the_manifest_are_put_back(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.tag_deletes = registry.faults.deletes_all = True
    descriptor = push(target, "a", "gone", "sibling", "other")
    unrelated = push(target, "b", "unrelated")
    target.untag("gone")
    assert set(target.tags()) == {"sibling", "other", "unrelated"}
    assert target.resolve("sibling") == target.resolve("other") == descriptor
    assert target.resolve("unrelated") == unrelated


@pytest.mark.parametrize("method", ["PUT", "HEAD"])
def test_a_tag_that_moved_although_the_registry_failed_is_put_back(
    registry: RegistrySimulator, target: RegistryTarget, method: str
) -> None:
    """The placeholder has the tag, but the answer says no, or the proof cannot be had."""
    registry.faults.tag_deletes = False
    descriptor = push(target, "a", "v1", "v2")
    moves = 0

    def fail(seen: Seen) -> None:
        nonlocal moves
        moves += seen.method == "PUT" and seen.path.endswith("/v1")
        now = moves == 1 and seen.method == method and seen.path.endswith("/v1")
        registry.faults.commit = 403 if now and method == "PUT" else 201
        registry.faults.status, registry.faults.times = (403, 1) if now and method == "HEAD" else (None, None)
        moves += now and method == "HEAD"

    registry.watcher = fail
    with pytest.raises(Unauthorized):
        target.untag("v1")
    assert target.resolve("v1") == target.resolve("v2") == descriptor


def test_a_registry_that_deletes_nothing_is_left_as_it_was(registry: RegistrySimulator, target: RegistryTarget) -> None:
    """It is tried out on a manifest that has no tag, so the tag is not even touched."""
    descriptor = push(target, "a", "v1", "v2")
    registry.faults.deletes = False
    moved: list[str] = []
    registry.watcher = lambda seen: moved.append(seen.path) if seen.method == "PUT" else None
    with pytest.raises(NotOffered, match=r":v1: .* deletes neither tags nor manifests; the tag is as it was"):
        target.untag("v1")
    assert not [path for path in moved if path.endswith("/v1")]
    assert target.resolve("v1") == descriptor
    with pytest.raises(NotOffered, match="this registry does not delete"):
        target.delete(descriptor)


@pytest.mark.parametrize("status", [403, 405, 503])
def test_when_the_placeholder_cannot_be_deleted_the_tag_is_put_back(
    registry: RegistrySimulator, target: RegistryTarget, status: int
) -> None:
    descriptor = push(target, "a", "v1", "v2")

    def refuse(seen: Seen) -> None:
        if seen.method == "DELETE" and len(registry.seen("DELETE")) > 2:
            registry.faults.status = status
        else:
            registry.faults.status = None

    registry.watcher = refuse
    with pytest.raises({403: Unauthorized, 405: NotOffered}.get(status, RegistryError)):
        target.untag("v1")
    registry.watcher = lambda seen: None
    registry.faults.status = None
    assert target.resolve("v1") == descriptor


def move(registry: RegistrySimulator, when: str, number: int) -> Descriptor:
    """Let somebody else move v1 when the `number`-th request of a method comes in."""
    descriptor, raw = manifest("moved")

    def meanwhile(seen: Seen) -> None:
        if seen.method == when and len(registry.seen(when)) == number:
            registry.put_manifest(REPOSITORY, raw, tag="v1")

    registry.requests.clear()
    registry.watcher = meanwhile
    return descriptor


@pytest.mark.parametrize(
    ("when", "number"), [("DELETE", 2), ("HEAD", 3), ("PUT", 2), ("HEAD", 4), ("DELETE", 3), ("HEAD", 5)]
)
def test_a_tag_that_somebody_moves_meanwhile_is_told_and_kept(
    registry: RegistrySimulator, target: RegistryTarget, when: str, number: int
) -> None:
    """Before the placeholder takes it, between, and after the deletion: the other's tag survives."""
    registry.faults.heeds_match = True
    push(target, "a", "v1", "v2")
    moved = move(registry, when, number)
    with pytest.raises((Conflict, DigestMismatch)):
        target.untag("v1")
    registry.watcher = lambda seen: None
    assert target.resolve("v1") == moved
    assert target.resolve("v2") == manifest("a")[0]


def test_a_tag_that_somebody_gives_again_after_a_plain_delete(
    registry: RegistrySimulator, target: RegistryTarget
) -> None:
    registry.faults.tag_deletes = True
    push(target, "a", "v1")
    moved = move(registry, "HEAD", 1)
    with pytest.raises(Conflict, match="somebody else used it meanwhile"):
        target.untag("v1")
    assert target.resolve("v1") == moved


def test_placeholders_are_all_different(registry: RegistrySimulator, target: RegistryTarget) -> None:
    push(target, "a", "v1", "v2")
    target.untag("v1")
    target.untag("v2")
    deleted = [seen.path for seen in registry.seen("DELETE") if "sha256:" in seen.path]
    assert len(set(deleted)) == 4


# --- the real thing


@pytest.mark.needs("docker-registry")
def test_docker_registry_keeps_siblings(tmp_path: Path) -> None:
    with real_registry(tmp_path) as server, RegistryTarget(server.reference(REPOSITORY), server.options) as target:
        shared = push(target, "shared", *(f"v{number}" for number in range(5)))
        for number in range(4):
            target.untag(f"v{number}")
        assert target.tags() == ("v4",)
        assert target.resolve("v4") == shared
        target.untag("v4")
        assert target.tags() == ()
        assert target.exists(shared)


@pytest.mark.needs("docker-registry", "skopeo")
def test_skopeo_sees_the_same_tags(tmp_path: Path) -> None:
    with real_registry(tmp_path) as server, RegistryTarget(server.reference(REPOSITORY), server.options) as target:
        push(target, "shared", "one", "two", "three")
        target.untag("two")
        told = run("skopeo", "list-tags", "--tls-verify=false", f"docker://{server.host}/{REPOSITORY}")
        listed: dict[str, Any] = json.loads(told)
        assert sorted(listed["Tags"]) == ["one", "three"]


@pytest.mark.needs("docker-registry")
def test_docker_registry_that_may_not_delete(tmp_path: Path) -> None:
    with (
        real_registry(tmp_path, deletes=False) as server,
        RegistryTarget(server.reference(REPOSITORY), server.options) as target,
    ):
        descriptor = push(target, "a", "v1")
        with pytest.raises(NotOffered):
            target.untag("v1")
        assert target.resolve("v1") == descriptor
        with pytest.raises(NotFound):
            target.untag("v2")
        assert str(Digest.of(manifest("a")[1])) == str(descriptor.digest)
