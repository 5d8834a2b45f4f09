"""Parts of blobs, read from registries that answer as they should, and from such as do not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from casstore.content import Metered, Traffic
from casstore.errors import (
    CasstoreError,
    DigestMismatch,
    NotFound,
    NotOffered,
    RegistryError,
    SizeMismatch,
    Unauthorized,
    Unavailable,
)
from casstore.oci import Descriptor
from casstore.registry import RegistryTarget, ranges
from tests.support.registry_simulator import RegistrySimulator

REPOSITORY = "some/repository"
DATA = random.Random(7).randbytes(100_000)
BLOB = Descriptor.of(DATA, "application/vnd.example.blob")


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator() as server:
        server.put_blob(REPOSITORY, DATA)
        yield server


@contextmanager
def opened(server: RegistrySimulator, **changes: Any) -> Iterator[RegistryTarget]:
    options = replace(server.options, **changes)
    with RegistryTarget(server.reference(REPOSITORY), options, server.credentials) as target:
        yield target


@pytest.fixture
def target(registry: RegistrySimulator) -> Iterator[RegistryTarget]:
    with opened(registry) as made:
        yield made


def ranges_asked(registry: RegistrySimulator) -> list[str | None]:
    return [request.headers.get("range") for request in registry.seen("GET", "/blobs/")]


# --- what is asked for, and what it costs


def test_only_the_part_is_asked_for(registry: RegistrySimulator, target: RegistryTarget) -> None:
    assert target.read_range(BLOB, 40_000, 10) == DATA[40_000:40_010]
    assert target.read_range(BLOB, 99_999, 1) == DATA[-1:]
    assert target.read_range(BLOB, 0, 100_000) == DATA
    assert ranges_asked(registry) == ["bytes=40000-40009", "bytes=99999-99999", None]


def test_traffic_is_what_was_sent_and_came(registry: RegistrySimulator, target: RegistryTarget) -> None:
    assert isinstance(target, Metered)
    assert target.traffic == Traffic(0, 0)
    target.read_range(BLOB, 10_000, 50_000)
    assert target.traffic.requests == 1
    assert 50_000 < target.traffic.bytes < 51_000
    registry.faults.status, registry.faults.times = 503, 2
    target.read_range(BLOB, 0, 1)
    assert target.traffic.requests == 4


def test_one_connection_serves_all_parts(registry: RegistrySimulator, target: RegistryTarget) -> None:
    for at in range(20):
        target.read_range(BLOB, at * 1000, 100 + at)
    assert registry.connections == 1


def test_a_token_is_used_for_parts(registry: RegistrySimulator) -> None:
    with RegistrySimulator(auth="bearer", contents=registry.contents) as home, opened(home) as target:
        assert target.read_range(BLOB, 5, 5) == DATA[5:10]
        home.faults.uses = 1
        assert target.read_range(BLOB, 6, 5) == DATA[6:11]


def test_a_redirect_to_another_host_gets_the_range_and_no_credentials(registry: RegistrySimulator) -> None:
    with RegistrySimulator(auth="basic", contents=registry.contents) as home, opened(home) as target:
        home.faults.blob_redirect = f"{registry.url}{{path}}"
        assert target.read_range(BLOB, 70_000, 20) == DATA[70_000:70_020]
    assert home.seen("GET", "/blobs/")[-1].headers["authorization"].startswith("Basic ")
    assert ranges_asked(registry) == ["bytes=70000-70019"]
    assert not registry.sent_secrets()


def test_stop_ends_it(registry: RegistrySimulator, target: RegistryTarget) -> None:
    target.stop()
    with pytest.raises(Unavailable, match="stopped"):
        target.read_range(BLOB, 1, 1)


def test_the_deadline_ends_it(registry: RegistrySimulator) -> None:
    registry.faults.drip = (10, 0.05)
    with opened(registry, deadline=0.3) as target, pytest.raises(Unavailable, match="deadline"):
        target.read_range(BLOB, 1, 90_000)


# --- answers that are none


@pytest.mark.parametrize(
    ("change", "error", "problem"),
    [
        ({"content_range": "bytes 9999-19998/100000"}, RegistryError, "expected Content-Range bytes 10000-19999/100"),
        ({"content_range": "bytes 10000-19998/100000"}, RegistryError, "expected Content-Range"),
        ({"content_range": "bytes 10000-20000/100000"}, RegistryError, "expected Content-Range"),
        ({"content_range": "bytes 10000-19999/*"}, RegistryError, "expected Content-Range"),
        ({"content_range": "bytes 10000-19999/100000\x1b[31m"}, RegistryError, "expected Content-Range"),
        ({"content_range": f"bytes {'9' * 30}-1/1"}, RegistryError, "expected Content-Range"),
        ({"content_range": ""}, RegistryError, "expected Content-Range"),
        (
            {"content_range": "", "media_type": "multipart/byteranges; boundary=x"},
            RegistryError,
            "got 'multipart/byteranges; boundary=x'",
        ),
        ({"content_range": "bytes 10000-19999/100001"}, SizeMismatch, "expected 100000 bytes, got 100001"),
        ({"part": slice(0, 9_999)}, SizeMismatch, "expected 10000 bytes, got 9999"),
        ({"part": slice(0, 10_001)}, SizeMismatch, "expected 10000 bytes, got 10001"),
        ({"length": "nonsense"}, SizeMismatch, "expected 10000 bytes, got 0"),
        ({"length": "9" * 30}, SizeMismatch, "expected 10000 bytes"),
        ({"part": slice(0, 10_001), "length": ""}, SizeMismatch, "expected 10000 bytes, got more"),
        ({"part": slice(0, 10_001), "chunked": True}, SizeMismatch, "expected 10000 bytes, got more"),
        (
            {"body": DATA[:19_000], "content_range": "bytes 10000-19999/100000", "length": ""},
            SizeMismatch,
            "expected 100000 bytes, got 19000",
        ),
        ({"encoding": "gzip"}, RegistryError, "got Content-Encoding 'gzip'"),
        ({"body": DATA[:9_000]}, SizeMismatch, "expected 100000 bytes, got 9000"),
        ({"body": DATA[:15_000]}, SizeMismatch, "expected 100000 bytes, got 15000"),
        ({"ranges": False, "body": DATA + b"x"}, SizeMismatch, "expected 100000 bytes, got 100001"),
        ({"ranges": False, "digest": f"sha256:{'0' * 64}"}, DigestMismatch, "Docker-Content-Digest"),
        ({"ranges": False, "length": "", "cut": 15_000}, SizeMismatch, "expected 10000 bytes, got"),
        ({"status": 416}, RegistryError, "got 416"),
        ({"status": 416, "error_headers": {"Content-Range": "bytes */100000"}}, RegistryError, "got 416"),
        ({"status": 403}, Unauthorized, "403"),
        ({"status": 500}, Unavailable, "500"),
        ({"status": 204}, RegistryError, "expected 206 or 200, got 204"),
    ],
)
def test_what_is_not_the_part_is_refused(
    registry: RegistrySimulator,
    target: RegistryTarget,
    change: dict[str, Any],
    error: type[CasstoreError],
    problem: str,
) -> None:
    for name, value in change.items():
        setattr(registry.faults, name, value)
    with pytest.raises(error, match=problem) as caught:
        target.read_range(BLOB, 10_000, 10_000)
    assert caught.type is error
    assert str(caught.value).isprintable()
    assert str(BLOB.digest) in str(caught.value)
    registry.faults = type(registry.faults)()
    assert target.read_range(BLOB, 10_000, 10_000) == DATA[10_000:20_000]


def test_nothing_is_read_of_a_blob_that_is_not_there(registry: RegistrySimulator, target: RegistryTarget) -> None:
    with pytest.raises(NotFound):
        target.read_range(replace(BLOB, digest=Descriptor.of(b"x", "x/y").digest), 1, 2)
    with pytest.raises(SizeMismatch):
        target.read_range(BLOB, 99_999, 2)
    assert len(registry.requests) == 1, "what lies beyond the end is not asked for"


# --- connections that break


@pytest.mark.parametrize("more", [{}, {"chunked": True}])
def test_a_part_goes_on_where_its_connection_broke(
    registry: RegistrySimulator, target: RegistryTarget, more: dict[str, Any]
) -> None:
    for name, value in more.items():
        setattr(registry.faults, name, value)
    registry.faults.cuts = [5_000, 0, 7_000]
    assert target.read_range(BLOB, 10_000, 30_000) == DATA[10_000:40_000]
    assert len(ranges_asked(registry)) == 4
    assert ranges_asked(registry)[0] == "bytes=10000-39999"
    if not more:
        assert ranges_asked(registry)[1:] == ["bytes=15000-39999", "bytes=15000-39999", "bytes=22000-39999"]


def test_a_connection_that_breaks_each_time_is_given_up(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.cut = 0
    with pytest.raises(Unavailable, match=rf"\(after {registry.options.attempts} attempts\)"):
        target.read_range(BLOB, 10_000, 30_000)
    assert len(ranges_asked(registry)) == registry.options.attempts


def test_without_retries_the_first_break_is_the_last(registry: RegistrySimulator) -> None:
    registry.faults.cuts = [100]
    with opened(registry, attempts=1) as target, pytest.raises(Unavailable):
        target.read_range(BLOB, 10_000, 30_000)
    assert len(ranges_asked(registry)) == 1


def test_another_part_after_a_break_is_refused(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.cuts = [5_000]
    registry.watcher = lambda _: (
        setattr(registry.faults, "content_range", "bytes 0-24999/100000") if not registry.faults.cuts else None
    )
    with pytest.raises(RegistryError, match="expected Content-Range bytes 15000-39999"):
        target.read_range(BLOB, 10_000, 30_000)


# --- servers that know no ranges


def test_a_server_without_ranges_is_read_up_to_the_end_of_the_part(
    registry: RegistrySimulator, target: RegistryTarget
) -> None:
    registry.faults.ranges = False
    for offset, length in ((0, 10), (10, 10), (50_000, 50_000), (99_999, 1)):
        assert target.read_range(BLOB, offset, length) == DATA[offset : offset + length]
    registry.faults.cuts = [30_000, 60_000]
    assert target.read_range(BLOB, 50_000, 20_000) == DATA[50_000:70_000]


def test_what_comes_in_vain_is_bounded(
    registry: RegistrySimulator, target: RegistryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "_MOST_IN_VAIN", 100_000)
    registry.faults.ranges = False
    target.read_range(BLOB, 60_000, 1)
    target.read_range(BLOB, 40_000, 1)
    asked = target.traffic.bytes
    with pytest.raises(NotOffered, match="knows no ranges, and 100000 bytes were read in vain already; pull"):
        target.read_range(BLOB, 1, 1)
    assert target.read_range(BLOB, 0, 1) == DATA[:1], "nothing comes before it"
    registry.faults.ranges = True
    assert target.read_range(BLOB, 1, 1) == DATA[1:2]
    assert target.traffic.bytes > asked
