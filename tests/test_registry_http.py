"""Requests, bodies and waits on a bad day. Numbers are rows of the project's fault list."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore import spec
from casstore.credentials import Credentials, HostCredentials
from casstore.errors import (
    CasstoreError,
    DigestMismatch,
    NotFound,
    RegistryError,
    SizeMismatch,
    Unauthorized,
    Unavailable,
    UsageError,
)
from casstore.oci import Descriptor
from casstore.reference import RegistryReference
from casstore.registry import Pace, RegistryOptions, RegistryTarget
from casstore.registry.failures import Ended
from casstore.registry.notices import MAX_BYTES, Notices
from casstore.registry.pace import MAX_WAIT, Patience, retry_after
from casstore.registry.urls import is_local
from casstore.streams import BytesSource, fetch_all
from tests.support.certificates import Authority
from tests.support.registry_simulator import PASSWORD, USER, RegistrySimulator, Seen
from tests.support.servers import free_port

REPOSITORY = "some/repository"
DATA = bytes(range(256)) * 400  # 102,400 bytes
BLOB = Descriptor.of(DATA, "application/vnd.example.blob")
NEW = Descriptor.of(b"new", "application/vnd.example.blob")


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator() as server:
        server.put_blob(REPOSITORY, DATA)
        yield server


@contextmanager
def opened(server: RegistrySimulator, pace: Pace | None = None, **changes: Any) -> Iterator[RegistryTarget]:
    options = replace(server.options, **changes)
    with RegistryTarget(server.reference(REPOSITORY), options, server.credentials, pace=pace) as target:
        yield target


@pytest.fixture
def target(registry: RegistrySimulator) -> Iterator[RegistryTarget]:
    with opened(registry) as made:
        yield made


def fetch_blob(target: RegistryTarget) -> bytes:
    return fetch_all(target, BLOB, limit=spec.MIB)


class FakeTime:
    """A clock that waits move on at once."""

    def __init__(self) -> None:
        self.now, self.waits = 1000.0, list[float]()

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def patience(self, deadline: float | None = None) -> Patience:
        return Patience(deadline, clock=lambda: self.now, wait=self.wait)


# --- pace


def test_93_back_off_doubles_with_full_jitter_and_success_lowers_it() -> None:
    fake, pace = FakeTime(), Pace(backoff=0.5, random=lambda: 1.0)
    patience = fake.patience()
    for _ in range(9):
        started = pace.admit(patience)
        pace.failed(started, fake.now)
    pace.admit(patience)
    assert fake.waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    for _ in range(20):
        pace.succeeded()
    pace.failed(fake.now, fake.now)
    pace.admit(patience)
    assert fake.waits[-1] == 0.5


@given(st.floats(0, 1), st.integers(1, 30))
def test_93_a_wait_is_between_nothing_and_the_cap(share: float, failures: int) -> None:
    fake, pace = FakeTime(), Pace(backoff=0.5, random=lambda: share)
    patience = fake.patience()
    for _ in range(failures):
        pace.failed(pace.admit(patience), fake.now)
    pace.admit(patience)
    assert all(0 < wait <= 30 for wait in fake.waits)


def test_93_failures_at_the_same_time_raise_the_back_off_once() -> None:
    fake, pace = FakeTime(), Pace(backoff=1, random=lambda: 1.0)
    patience = fake.patience()
    started = [pace.admit(patience) for _ in range(8)]
    fake.now += 0.1
    for start in started:
        pace.failed(start, fake.now)
    pace.admit(patience)
    assert fake.waits == [pytest.approx(1)]


def test_93_a_host_that_asks_to_wait_is_left_alone_by_all() -> None:
    fake, pace = FakeTime(), Pace(random=lambda: 0.0)
    pace.failed(fake.now, fake.now, asked=42)
    pace.succeeded()  # another request that was on its way
    assert pace.admit(fake.patience()) == 1042
    assert fake.waits == [42]


def test_93_waiting_past_the_deadline_is_not_begun() -> None:
    fake, pace = FakeTime(), Pace(random=lambda: 1.0)
    patience = fake.patience(deadline=10)
    pace.failed(fake.now, fake.now, asked=11)
    with pytest.raises(Ended, match=r"the deadline of 10 s comes before the end of a wait of 11\.0 s"):
        pace.admit(patience)
    assert fake.waits == []
    fake.now += 10
    with pytest.raises(Ended, match="the deadline of 10 s has passed"):
        pace.admit(patience)


def test_requests_are_spread_over_the_seconds() -> None:
    fake = FakeTime()
    pace, patience = Pace(max_requests=4), fake.patience()
    times = [pace.admit(patience) for _ in range(20)]
    assert fake.waits
    for first, later in zip(times, times[8:], strict=False):
        assert later - first >= 1  # never more than a burst of one second and the second itself
    fake.now += 100
    fake.waits.clear()
    for _ in range(4):
        pace.admit(patience)
    assert fake.waits == []


@given(st.lists(st.integers(1, 500_000), min_size=1, max_size=50))
def test_bytes_keep_to_the_rate(sizes: list[int]) -> None:
    fake = FakeTime()
    pace, patience = Pace(limit_rate=100_000), fake.patience()
    for size in sizes:
        pace.moved(size, patience)
    assert fake.now - 1000 == pytest.approx(sum(sizes) / 100_000)
    assert pace.piece <= 100_000 / 8


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("1000000000", 1e9),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 7),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 7),
        ("Sun Nov  6 08:49:37 1994", 7),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0),
        *(
            (value, 0)
            for value in (None, "", "-5", "1.5", "soon", "٣", "1e3", "9" * 30, "Sun, 99 Nov 9999 08:49:37 GMT")
        ),
    ],
)
def test_93_retry_after_is_seconds_or_a_date(value: str | None, seconds: float) -> None:
    assert retry_after(value, now=datetime(1994, 11, 6, 8, 49, 30, tzinfo=UTC)) == seconds


@given(st.text())
def test_93_no_retry_after_is_an_error(value: str) -> None:
    assert retry_after(value) >= 0


# --- retries


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_94_what_passes_is_tried_again(registry: RegistrySimulator, target: RegistryTarget, status: int) -> None:
    registry.faults.status, registry.faults.times = status, 2
    assert target.exists(BLOB)
    assert len(registry.requests) == 3
    registry.faults.times = 2
    assert fetch_blob(target) == DATA


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 416, 501])
def test_94_what_does_not_is_not(registry: RegistrySimulator, target: RegistryTarget, status: int) -> None:
    registry.faults.status = status
    with pytest.raises(CasstoreError):
        target.fetch(BLOB)
    assert len(registry.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_94_attempts_are_bounded_and_the_last_error_tells(registry: RegistrySimulator, status: int) -> None:
    registry.faults.status, registry.faults.error = status, b"overloaded"
    with opened(registry, attempts=3) as target, pytest.raises(Unavailable) as caught:
        target.exists(BLOB)
    assert "after 3 attempts in 0 s" in str(caught.value)
    assert str(status) in str(caught.value)
    assert len(registry.requests) == 3


def test_94_connections_that_are_reset_are_made_again(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.resets = 3
    assert target.exists(BLOB)
    assert len(registry.requests) == 4
    registry.faults.resets = 100
    with pytest.raises(Unavailable, match="after 6 attempts"):
        target.exists(BLOB)


def test_94_a_request_that_must_not_be_repeated_is_not(registry: RegistrySimulator, target: RegistryTarget) -> None:
    client = target._client
    for method, data, retry in (("PATCH", b"x", True), ("POST", b"x", True), ("GET", None, False)):
        registry.faults.status, registry.faults.times = 503, 1
        registry.requests.clear()
        with pytest.raises(Unavailable):
            client.request(method, client.base, subject="x", expect=(200,), data=data, retry=retry)
        assert len(registry.requests) == 1
    registry.faults.times = 1
    with pytest.raises(NotFound):  # POST /v2/ is nothing, but an answer
        client.request("POST", f"{client.base}x", subject="x", expect=(200,))


def test_94_a_body_to_send_is_opened_anew(registry: RegistrySimulator, target: RegistryTarget) -> None:
    client, times = target._client, 0

    class Body:
        def __init__(self) -> None:
            self.data = b"some body"

        def __len__(self) -> int:
            return 9

        def read(self, size: int = -1) -> bytes:
            data, self.data = self.data, b""
            return data

    @contextmanager
    def open_body() -> Iterator[Body]:
        nonlocal times
        times += 1
        yield Body()

    registry.faults.status, registry.faults.times = 503, 2
    with pytest.raises(NotFound):
        client.request("PUT", f"{client.base}x", subject="x", expect=(200,), data=open_body)
    assert times == 3
    assert [request.body for request in registry.requests] == [9, 9, 9]


def test_93_retry_after_is_kept_to(registry: RegistrySimulator) -> None:
    fake, pace = FakeTime(), Pace(random=lambda: 0.5)
    told: list[str] = []
    dated = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    with opened(registry, pace, on_warning=told.append) as target:
        target._client.patience = target._client._line.patience = fake.patience()
        for value, least, most in (("42", 42, 42), (dated, 90, 100), ("0", 0, 0.5), ("soon", 0, 1)):
            registry.faults.status, registry.faults.times = 429, 1
            registry.faults.error_headers = {"Retry_After": value}
            fake.waits.clear()
            assert target.exists(BLOB)
            assert least <= sum(fake.waits) <= most
    assert len(told) == 2
    assert told[0] == "it is busy (got 429) and asks to wait 42 s: waiting"


@pytest.mark.parametrize(("value", "deadline"), [("1000000000", None), (str(int(MAX_WAIT) + 1), None), ("30", 20)])
def test_93_a_registry_that_asks_for_too_much_is_given_up_at_once(
    registry: RegistrySimulator, value: str, deadline: float | None
) -> None:
    registry.faults.status, registry.faults.error_headers = 429, {"Retry_After": value}
    with (
        opened(registry, deadline=deadline) as target,
        pytest.raises(Unavailable, match=rf"429.*the registry asks to wait {value} s"),
    ):
        target.exists(BLOB)
    assert len(registry.requests) == 1


def test_93_what_may_not_be_repeated_does_not_wait_for_ever_either(registry: RegistrySimulator) -> None:
    """Nor does what follows it: the blob is looked for, the upload given up."""

    def refuse(seen: Seen) -> None:
        registry.faults.status = 429 if seen.method == "PUT" else None

    registry.faults.error_headers = {"Retry_After": "1000000000"}
    registry.watcher = refuse
    with opened(registry) as target:
        with pytest.raises(Unavailable, match="the registry asks to wait 1000000000 s"):
            target.push(NEW, BytesSource(b"new"))
        with pytest.raises(Unavailable, match="the registry asks to wait"):
            target.exists(NEW)
    assert [seen.method for seen in registry.requests] == ["HEAD", "POST", "PUT"]


def test_94_the_deadline_ends_the_attempts(registry: RegistrySimulator) -> None:
    registry.faults.status = 503
    with opened(registry, deadline=0.2, backoff=0.1, attempts=10_000) as target:
        with pytest.raises(Unavailable, match=r"deadline of 0.2 s"):
            target.exists(BLOB)
        time.sleep(0.2)
        with pytest.raises(Unavailable, match=r"the deadline of 0.2 s has passed"):
            target.exists(BLOB)
    assert len(registry.requests) < 1000


# --- bodies that go on


def test_83_a_part_that_is_the_rest_is_taken(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.cuts = [50_000]
    assert fetch_blob(target) == DATA
    first, second = registry.requests
    assert "range" not in first.headers
    assert second.headers["range"] == "bytes=50000-"
    assert second.headers["if-range"] == f'"{BLOB.digest}"'


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_83_without_a_strong_etag_there_is_no_if_range(
    registry: RegistrySimulator, target: RegistryTarget, etag: str
) -> None:
    registry.faults.cuts, registry.faults.etag = [50_000], etag
    assert fetch_blob(target) == DATA
    assert "if-range" not in registry.requests[-1].headers


def test_83_a_full_answer_is_read_again_from_its_start(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.cuts, registry.faults.ranges = [50_000], False
    assert fetch_blob(target) == DATA
    registry.faults.cuts = [50_000, 20_000, 70_000]  # also while it is read again
    assert fetch_blob(target) == DATA


def broken_reader(registry: RegistrySimulator, target: RegistryTarget) -> Any:
    """A reader whose connection is about to break at byte 50,000, with 40,000 read."""
    registry.faults.cuts = [50_000]
    reader = target.fetch(BLOB)
    assert len(reader.read(40_000)) == 40_000
    return reader


def test_83_another_blob_is_noticed_before_any_of_it_is_given_out(
    registry: RegistrySimulator, target: RegistryTarget
) -> None:
    """The full answer of an ETag that changed, as If-Range wants it; the first bytes differ, the rest is right."""
    with broken_reader(registry, target) as reader:
        registry.faults.etag, registry.faults.digest = '"another"', ""
        registry.faults.body = b"X" + DATA[1:]
        with pytest.raises(DigestMismatch, match="its first 50000 bytes, read again"):
            reader.read(62_400)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"content_range": "bytes 49999-102399/102400"}, "expected Content-Range bytes 50000-102399/102400, got"),
        ({"content_range": "bytes 50000-102398/102400"}, "expected Content-Range"),
        ({"content_range": "bytes 50000-102399/102401"}, "expected Content-Range"),
        ({"content_range": "bytes 50000-102399/*"}, "expected Content-Range"),
        ({"content_range": "bytes=50000-102399/102400"}, "expected Content-Range"),
        ({"content_range": "bytes 50000-102399/102400\x1b[31m"}, "expected Content-Range"),
        ({"content_range": ""}, "expected Content-Range"),
        ({"part": slice(49_999, None)}, "expected 52400 bytes, got 52401"),
        ({"part": slice(50_001, None)}, "expected 52400 bytes, got 52399"),
        ({"length": "nonsense"}, "expected 52400 bytes"),
        ({"digest": f"sha256:{'0' * 64}"}, "expected Docker-Content-Digest"),
        ({"part": slice(0, 52_400)}, "expected digest"),
    ],
)
def test_83_a_part_that_is_not_the_rest_is_refused(
    registry: RegistrySimulator, target: RegistryTarget, change: dict[str, Any], problem: str
) -> None:
    with broken_reader(registry, target) as reader:
        for name, value in change.items():
            setattr(registry.faults, name, value)
        with pytest.raises((RegistryError, SizeMismatch, DigestMismatch), match=problem) as caught:
            reader.read(62_400)
    assert str(caught.value).isprintable()


def test_83_a_changed_etag_on_a_part_is_refused(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.etag = 'W/"one"'
    with broken_reader(registry, target) as reader:
        registry.faults.etag = 'W/"two"'
        with pytest.raises(RegistryError, match=r"expected ETag .*one.* as before, got .*two"):
            reader.read(62_400)


def test_83_a_range_that_cannot_be_is_an_error(registry: RegistrySimulator, target: RegistryTarget) -> None:
    with broken_reader(registry, target) as reader:
        registry.faults.status = 416
        with pytest.raises(RegistryError, match="expected 206 or 200, got 416"):
            reader.read(62_400)


def test_81_each_mebibyte_brings_the_attempts_back(registry: RegistrySimulator) -> None:
    data = bytes(range(256)) * 4096 * 4  # 4 MiB
    registry.put_blob(REPOSITORY, data)
    registry.faults.cut = 600_000
    with opened(registry, attempts=3) as target:
        assert fetch_all(target, Descriptor.of(data, "x/y"), limit=2**30) == data
    assert len(registry.requests) == 7
    registry.requests.clear()
    registry.faults.cut = 300_000
    with opened(registry, attempts=3) as target, pytest.raises(Unavailable, match="after 3 attempts"):
        fetch_all(target, Descriptor.of(data, "x/y"), limit=2**30)
    assert len(registry.requests) == 3


@given(
    breaks=st.lists(st.integers(0, 110_000), max_size=5),
    sizes=st.lists(st.integers(1, 60_000), min_size=1),
    ranges=st.booleans(),
    chunked=st.booleans(),
)
def test_81_wherever_it_breaks_it_is_the_blob(
    breaks: list[int], sizes: list[int], *, ranges: bool, chunked: bool
) -> None:
    server, target = _shared()
    server.faults.cuts, server.faults.ranges, server.faults.chunked = breaks, ranges, chunked
    with target.fetch(BLOB) as reader:
        parts = [reader.read(size) for size in sizes]
        while part := reader.read(spec.MIB):
            parts.append(part)
    assert b"".join(parts) == DATA


_SHARED: list[Any] = []


def _shared() -> tuple[RegistrySimulator, RegistryTarget]:
    """One server for all examples of a property."""
    return _SHARED[0], _SHARED[1]


@pytest.fixture(autouse=True, scope="module")
def shared() -> Iterator[None]:
    with RegistrySimulator() as server, opened(server, attempts=10) as target:
        server.put_blob(REPOSITORY, DATA)
        _SHARED[:] = [server, target]
        yield
        _SHARED.clear()


# --- time


class Silent:
    """Accepts connections and never answers."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()


def quick(**changes: Any) -> RegistryOptions:
    return RegistryOptions(plain_http=True, connect_timeout=1, read_timeout=0.1, attempts=2, backoff=0.001, **changes)


def test_88_a_server_that_says_nothing_times_out() -> None:
    with (
        Silent() as server,
        RegistryTarget(RegistryReference(server.host, "a"), quick()) as target,
        pytest.raises(Unavailable, match=r"no answer in time.*after 2 attempts"),
    ):
        target.exists(BLOB)


def test_88_a_server_that_reads_nothing_times_out() -> None:
    with Silent() as server, RegistryTarget(RegistryReference(server.host, "a"), quick()) as target:
        client = target._client
        with pytest.raises(Unavailable, match="no answer in time"):
            client.request("PUT", client.base, subject="x", expect=(201,), data=bytes(50_000_000))


def test_88_a_header_that_drips_is_not_waited_for(registry: RegistrySimulator) -> None:
    registry.faults.header_drip = 0.02  # never a silence; all of it would take seconds
    with (
        opened(registry, read_timeout=0.2, attempts=1) as target,
        pytest.raises(Unavailable, match="no answer in time"),
    ):
        target.exists(BLOB)


def test_88_a_body_that_drips_is_not_waited_for(registry: RegistrySimulator) -> None:
    registry.faults.drip = (10, 0.02)
    with (
        opened(registry, read_timeout=0.2, attempts=1) as target,
        pytest.raises(Unavailable, match="bytes/s, and less than 1024 bytes/s are not waited for"),
    ):
        fetch_blob(target)


def test_88_a_slow_body_is_fine(registry: RegistrySimulator) -> None:
    registry.faults.drip = (2_000, 0.03)
    with opened(registry, read_timeout=1) as target:
        assert fetch_blob(target) == DATA
    assert len(registry.requests) == 1


def test_88_a_slow_reader_of_ours_is_no_slow_registry(registry: RegistrySimulator) -> None:
    with opened(registry, read_timeout=0.5, min_rate=10_000_000) as target, target.fetch(BLOB) as reader:
        parts = []
        while part := reader.read(20_000):
            parts.append(part)
            time.sleep(0.15)
    assert b"".join(parts) == DATA
    assert len(registry.requests) == 1


def test_88_a_registry_that_takes_hardly_anything_is_given_up() -> None:
    class Sipping(Silent):
        def __enter__(self) -> Self:
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._sip)
            self._thread.start()
            return self

        def _sip(self) -> None:
            connection, _ = self._socket.accept()
            with connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                while not self._stop.wait(0.01):
                    connection.recv(1000)

        def __exit__(self, *error: object) -> None:
            self._stop.set()
            self._thread.join()
            super().__exit__()

    options = replace(quick(min_rate=10_000_000_000), attempts=1, read_timeout=0.3)
    with Sipping() as server, RegistryTarget(RegistryReference(server.host, "a"), options) as target:
        client = target._client
        with pytest.raises(Unavailable, match=r"no answer in time|are not waited for"):
            client.request("PUT", client.base, subject="x", expect=(201,), data=bytes(50_000_000))


@pytest.mark.parametrize("fault", [{"header_drip": 0.02}, {"drip": (10_000, 0.05)}])
def test_88_nothing_outlives_the_deadline(registry: RegistrySimulator, fault: dict[str, Any]) -> None:
    for name, value in fault.items():
        setattr(registry.faults, name, value)
    with opened(registry, deadline=0.15) as target, pytest.raises(Unavailable, match=r"the deadline of 0.15 s"):
        fetch_blob(target)


def test_bodies_keep_to_the_limit_rate(registry: RegistrySimulator) -> None:
    fake = FakeTime()
    with opened(registry, limit_rate=20_000) as target:
        target._client.patience = target._client._line.patience = fake.patience()
        assert fetch_blob(target) == DATA
        assert fake.now - 1000 == pytest.approx(len(DATA) / 20_000, rel=0.02)
        target.push(NEW, BytesSource(b"new"))
        other = Descriptor.of(DATA[1:], "x/y")
        before = fake.now
        target.push(other, BytesSource(DATA[1:]))
        assert fake.now - before >= len(DATA) / 20_000 - 0.1


# --- stop


@pytest.mark.parametrize("where", ["header", "body", "sending", "back-off", "rate"])
def test_stop_ends_whatever_goes_on(registry: RegistrySimulator, where: str) -> None:
    changes: dict[str, Any] = {"read_timeout": 30}
    if where == "back-off":
        registry.faults.status, registry.faults.error_headers = 429, {"Retry_After": "300"}
    elif where == "rate":
        changes["limit_rate"] = 1000
    silent = Silent()
    host = silent.host if where in {"header", "sending"} else registry.host
    options = replace(registry.options, **changes)
    started, caught = threading.Event(), list[BaseException]()
    if where == "body":
        registry.faults.drip = (100, 0.05)

    def work(made: RegistryTarget) -> None:
        try:
            started.set()
            if where == "sending":
                client = made._client
                client.request("PUT", client.base, subject="x", expect=(201,), data=bytes(50_000_000))
            else:
                fetch_blob(made)
        except CasstoreError as error:
            caught.append(error)

    with silent, RegistryTarget(RegistryReference(host, REPOSITORY), options) as made:
        thread = threading.Thread(target=work, args=(made,))
        thread.start()
        started.wait()
        time.sleep(0.15)
        assert thread.is_alive()
        made.stop()
        thread.join(5)
        assert not thread.is_alive()
        (error,) = caught
        assert isinstance(error, Unavailable)
        assert "stopped" in str(error)
        seen = len(registry.requests)
        with pytest.raises(Unavailable, match="stopped"):
            made.exists(BLOB)
        assert len(registry.requests) == seen


def test_stop_ends_a_read_inside_tls(tmp_path: Path) -> None:
    authority = Authority()
    bundle = str(authority.write_bundle(tmp_path / "ca.crt"))
    with RegistrySimulator(tls=authority.server_context("127.0.0.1", folder=tmp_path)) as server:
        server.put_blob(REPOSITORY, DATA)
        server.faults.drip = (100, 0.05)
        with opened(server, ca_bundle=bundle, read_timeout=30) as target:
            timer = threading.Timer(0.15, target.stop)
            timer.start()
            with pytest.raises(Unavailable, match="stopped"):
                fetch_blob(target)
            timer.join()


def test_stop_ends_one_target_and_not_its_neighbour(registry: RegistrySimulator) -> None:
    pace = Pace()
    with opened(registry, pace) as one, opened(registry, pace) as two:
        one.stop()
        assert two.exists(BLOB)


# --- redirects


def test_89_a_registry_elsewhere_leads_to_nothing_here(registry: RegistrySimulator) -> None:
    """It is reached through a proxy, so that it can have a public name; no request leaves for the address."""
    with RegistrySimulator() as here:
        here.contents.blobs = registry.contents.blobs
        options = replace(registry.options, proxy=registry.url)
        with RegistryTarget(RegistryReference("registry.example", REPOSITORY), options) as target:
            assert fetch_blob(target) == DATA
            for host in (
                here.host,
                "169.254.169.254",
                "localhost:1",
                "[::1]:2",
                "0x7f.1:3",
                "[::ffff:169.254.169.254]",
            ):
                registry.faults.redirect = f"http://{host}{{path}}"
                with pytest.raises(RegistryError, match="expected a redirect to a public host"):
                    target.fetch(BLOB)
        assert here.requests == []


def test_89_a_name_that_turns_out_to_be_here_is_not_asked(
    registry: RegistrySimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def rebound(host: str, *rest: Any, **more: Any) -> Any:
        return resolve("127.0.0.1" if host == "harmless.example" else host, *rest, **more)

    with RegistrySimulator() as here:
        here.contents.blobs = registry.contents.blobs
        options = replace(registry.options, proxy=registry.url, no_proxy=("harmless.example",))
        port = here.host.partition(":")[2]
        registry.faults.redirect = f"http://harmless.example:{port}{{path}}"
        monkeypatch.setattr(socket, "getaddrinfo", rebound)
        with (
            RegistryTarget(RegistryReference("registry.example", REPOSITORY), options) as target,
            pytest.raises(Unavailable, match="an address of this machine"),
        ):
            target.fetch(BLOB)
        assert here.requests == []


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("127.1", True),
        ("2130706433", True),
        ("0.0.0.0", True),
        ("169.254.169.254", True),
        ("::1", True),
        ("[::1]", True),
        ("fe80::1%eth0", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("192.168.1.1", False),
        ("8.8.8.8", False),
        ("2001:db8::1", False),
        ("example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_89_what_is_local(host: str, *, local: bool) -> None:
    assert is_local(host) is local


def test_90_another_origin_gets_no_credentials(registry: RegistrySimulator) -> None:
    with RegistrySimulator(auth="basic", contents=registry.contents) as home, opened(home) as target:
        home.faults.error_headers = {"Set_Cookie": "a=b"}
        assert fetch_blob(target) == DATA
        home.faults.redirect = f"{registry.url}{{path}}"
        assert fetch_blob(target) == DATA
    (request,) = registry.requests
    assert not {"authorization", "cookie", "proxy-authorization"} & set(request.headers)


# --- TLS and proxies


@pytest.fixture
def authority() -> Authority:
    return Authority()


def test_90_the_client_certificate_goes_to_the_registry_alone(authority: Authority, tmp_path: Path) -> None:
    """Both servers want one; the second is where the first redirects to."""
    bundle = str(authority.write_bundle(tmp_path / "ca.crt"))
    context = authority.server_context("127.0.0.1", folder=tmp_path)
    context.verify_mode = __import__("ssl").CERT_REQUIRED
    context.load_verify_locations(bundle)
    (tmp_path / "client").mkdir()
    certificate, key = map(str, authority.issue("client", folder=tmp_path / "client", usage="client"))
    both = tmp_path / "both.pem"
    both.write_text(Path(certificate).read_text() + Path(key).read_text())
    with RegistrySimulator(tls=context) as home, RegistrySimulator(tls=context) as storage:
        home.put_blob(REPOSITORY, DATA)
        storage.put_blob(REPOSITORY, DATA)
        shown: tuple[dict[str, Any], ...] = (
            {"client_certificate": certificate, "client_key": key},
            {"client_certificate": str(both)},
        )
        for options in shown:
            with opened(home, ca_bundle=bundle, attempts=1, **options) as target:
                assert fetch_blob(target) == DATA
                home.faults.redirect = f"{storage.url}{{path}}"
                with pytest.raises(Unavailable):
                    fetch_blob(target)
                home.faults.redirect = None
        with opened(home, ca_bundle=bundle, attempts=1) as target, pytest.raises(Unavailable):
            fetch_blob(target)
        assert storage.requests == []


def test_105_a_certificate_that_proves_nothing_is_not_tried_again(authority: Authority, tmp_path: Path) -> None:
    context = authority.server_context("127.0.0.1", folder=tmp_path)
    with RegistrySimulator(tls=context) as server, opened(server, backoff=30) as target:  # noqa: SIM117
        with pytest.raises(Unavailable, match=r"(?i)certificate") as caught:
            target.exists(BLOB)
    assert "attempts" not in str(caught.value)


def test_109_a_proxy_is_used_and_spared(registry: RegistrySimulator) -> None:
    options = replace(registry.options, proxy=f"http://{USER}:{PASSWORD.replace('/', '%2F')}@{registry.host}")
    with RegistryTarget(RegistryReference("registry.example", REPOSITORY), options) as target:
        assert fetch_blob(target) == DATA
    assert registry.requests[0].headers["proxy-authorization"].startswith("Basic ")
    spared = replace(options, proxy=f"http://127.0.0.1:{free_port()}", no_proxy=("127.0.0.1",))
    with RegistryTarget(registry.reference(REPOSITORY), spared) as target:
        assert fetch_blob(target) == DATA
    assert "proxy-authorization" not in registry.requests[-1].headers


@pytest.mark.parametrize("plain_http", [True, False])
def test_109_a_proxy_that_wants_another_password(registry: RegistrySimulator, *, plain_http: bool) -> None:
    registry.faults.status, registry.faults.error = 407, PASSWORD.encode()
    proxy = f"http://{USER}:{PASSWORD.replace('/', '%2F')}@{registry.host}"
    options = replace(registry.options, proxy=proxy, plain_http=plain_http)
    with RegistryTarget(RegistryReference("registry.example", REPOSITORY), options) as target:
        with pytest.raises(Unavailable, match="the proxy answers 407") as caught:
            target.exists(BLOB)
        assert caught.value.exit_code == 14
        for text in (str(caught.value), repr(options), repr(target)):
            assert PASSWORD not in text
            assert "%2F" not in text
    assert len(registry.requests) == 1


def test_109_a_proxy_that_is_not_there(registry: RegistrySimulator) -> None:
    options = replace(registry.options, proxy=f"http://{USER}:canary@127.0.0.1:{free_port()}")
    with (
        RegistryTarget(RegistryReference("registry.example", REPOSITORY), options) as target,
        pytest.raises(Unavailable, match="Connection refused") as caught,
    ):
        target.exists(BLOB)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"proxy": "canary"},
        {"proxy": "socks5://canary@127.0.0.1:1"},
        {"proxy": "http://canary@/"},
        {"proxy": "http://127.0.0.1:1/canary"},
        {"client_key": __file__},
        {"client_certificate": "/no/such/file"},
        {"attempts": 0},
        {"deadline": 0},
        {"limit_rate": -1},
    ],
)
def test_options_that_make_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        RegistryOptions(**changes)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "spared"),
    [("a.example", True), ("x.a.example", True), ("xa.example", False), ("b.example", True), ("x.c", False)],
)
def test_no_proxy_is_for_hosts_and_what_is_below_them(host: str, *, spared: bool) -> None:
    options = RegistryOptions(proxy="http://p:1", no_proxy=("a.example", ".B.example"))
    assert (options.proxy_for(host) is None) is spared
    assert RegistryOptions(proxy="http://p:1", no_proxy=("*",)).proxy_for(host) is None


def test_109_nothing_that_cannot_be_reached_is_tried_again_before_it_ever_answered(
    registry: RegistrySimulator,
) -> None:
    host = f"127.0.0.1:{free_port()}"
    for name in (host, "registry.invalid"):
        options = RegistryOptions(plain_http=True, backoff=30)
        with RegistryTarget(RegistryReference(name, "a"), options) as target, pytest.raises(Unavailable) as caught:
            target.exists(BLOB)
        assert "attempts" not in str(caught.value)
        assert caught.value.exit_code == 14
    pace = Pace(backoff=0.001)
    pace.answered = True
    with (
        RegistryTarget(RegistryReference(host, "a"), quick(), pace=pace) as target,
        pytest.raises(Unavailable, match="after 2 attempts"),
    ):
        target.exists(BLOB)


def test_109_a_registry_on_ipv6_alone() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        host = f"[::1]:{server.getsockname()[1]}"

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 102400\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with RegistryTarget(RegistryReference(host, "a"), RegistryOptions(plain_http=True)) as target:
            assert target.exists(BLOB)
        thread.join()


# --- warnings


def test_108_warnings_are_told_once_short_and_harmless(registry: RegistrySimulator) -> None:
    told: list[str] = []
    registry.faults.warnings = ('299 - "deprecated \\"soon\\""', '299 host "\x1b]0;owned\x07 b\xfcr"', '199 - "other"')
    with opened(registry, on_warning=told.append) as target:
        assert fetch_blob(target) == DATA
        assert target.exists(BLOB)
        assert told == ['deprecated "soon"', r"\x1b]0;owned\x07 b\xfcr"]
        told.clear()
        registry.faults.warnings = tuple(f'299 - "{number}{"A" * 60_000}"' for number in range(15))
        target.exists(BLOB)
        registry.faults.warnings = tuple(f'299 - "{number} {"A" * 1000}"' for number in range(15))
        target.exists(BLOB)
    assert sum(map(len, told)) <= MAX_BYTES
    assert len(told) >= 3


def test_108_a_megabyte_in_one_header_is_refused_at_once(registry: RegistrySimulator, target: RegistryTarget) -> None:
    registry.faults.warnings = (f'299 - "{"A" * 1_000_000}"',)
    with pytest.raises(Unavailable) as caught:
        target.exists(BLOB)
    assert len(str(caught.value)) < 500
    assert len(registry.requests) == 1


@given(st.lists(st.text(), max_size=8))
def test_108_no_warning_is_more_than_it_may_be(headers: list[str]) -> None:
    told: list[str] = []
    notices = Notices(told.append)
    for text in headers:
        notices.hear([text, f'299 - "{text}"'], ["secret"])
    assert all(text.isascii() and text.isprintable() for text in told)
    assert sum(map(len, told)) <= MAX_BYTES
    assert len(set(told)) == len(told)


def test_108_a_warning_tells_no_secret() -> None:
    told: list[str] = []
    Notices(told.append).hear(['299 - "you sent canary-pass"'], ["canary-pass"])
    assert told == ["you sent ***"]


def test_a_refused_password_is_not_tried_again(registry: RegistrySimulator) -> None:
    with RegistrySimulator(auth="basic") as server:
        wrong = HostCredentials(server.host, Credentials(USER, "wrong"))
        with RegistryTarget(server.reference(REPOSITORY), server.options, wrong) as target, pytest.raises(Unauthorized):
            target.exists(BLOB)
        assert len(server.requests) == 2


# --- chunks


@contextmanager
def answering(head: bytes, more: bytes) -> Iterator[RegistryReference]:
    """A registry that answers the first request so, and goes on with `more` for as long as somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection = server.accept()[0]
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + head)
                while True:
                    connection.sendall(more)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield RegistryReference(f"127.0.0.1:{server.getsockname()[1]}", REPOSITORY)
        finally:
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize("size", [b"-1", b"+10", b"0x10", b"1_0", b"", b"f" * 17, b"1;" + b"x" * 2000])
def test_82_a_chunk_has_a_size(size: bytes) -> None:
    """Of `-1` http.client would give out all that comes, in memory."""
    with (
        answering(size + b"\r\n", b"x" * spec.MIB) as reference,
        RegistryTarget(reference, RegistryOptions(plain_http=True, attempts=1, deadline=3)) as target,
    ):
        tracemalloc.start()
        try:
            with pytest.raises(Unavailable):
                fetch_blob(target)
            assert tracemalloc.get_traced_memory()[1] < 8 * spec.MIB
        finally:
            tracemalloc.stop()


def test_88_lines_after_the_last_chunk_end() -> None:
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(DATA), DATA)
    with (
        answering(chunk, b"Name: value\r\n" * 100_000) as reference,
        RegistryTarget(reference, RegistryOptions(plain_http=True, attempts=1, deadline=60)) as target,
    ):
        started = time.monotonic()
        assert fetch_blob(target) == DATA
        assert time.monotonic() - started < 20
