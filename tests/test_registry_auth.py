"""Where credentials go and where they do not. Numbers are rows of the project's fault list."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore import spec
from casstore.content import Reader
from casstore.credentials import Anonymous, Credentials, HostCredentials
from casstore.errors import (
    CasstoreError,
    DigestMismatch,
    HelperFailed,
    InvalidReference,
    NotFound,
    RegistryError,
    SizeMismatch,
    Unauthorized,
    Unavailable,
)
from casstore.oci import Descriptor
from casstore.registry import RegistryTarget, login
from casstore.registry.auth import Authenticator, Challenge, merge_scopes
from casstore.registry.failures import ERROR_BODY, explain, quoted
from casstore.registry.urls import Origin, follow, is_address, same_site
from casstore.streams import BytesSource, fetch_all
from tests.support.registry_simulator import IDENTITY_TOKEN, PASSWORD, REGISTRY_TOKEN, USER, RegistrySimulator
from tests.support.servers import registry as real_registry

REPOSITORY = "some/repository"
DATA = b"data" * 10_000
BLOB = Descriptor.of(DATA, "application/vnd.example.blob")
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
CANARIES = (PASSWORD, BASIC.partition(" ")[2], "canary-token")


@pytest.fixture
def basic() -> Iterator[RegistrySimulator]:
    with RegistrySimulator(auth="basic") as server:
        server.put_blob(REPOSITORY, DATA)
        yield server


@pytest.fixture
def bearer() -> Iterator[RegistrySimulator]:
    with RegistrySimulator(auth="bearer") as server:
        server.put_blob(REPOSITORY, DATA)
        yield server


@pytest.fixture
def other() -> Iterator[RegistrySimulator]:
    """Another origin: the same address, another port."""
    with RegistrySimulator() as server:
        yield server


def known(server: RegistrySimulator) -> RegistryTarget:
    return RegistryTarget(server.reference(REPOSITORY), server.options, server.credentials)


def anonymous(server: RegistrySimulator) -> RegistryTarget:
    return RegistryTarget(server.reference(REPOSITORY), server.options)


def push(target: RegistryTarget, data: bytes) -> Descriptor:
    descriptor = Descriptor.of(data, "application/x")
    target.push(descriptor, BytesSource(data))
    return descriptor


# --- who gets in


def test_basic_is_sent_once_it_was_asked_for_and_then_at_once(basic: RegistrySimulator) -> None:
    with known(basic) as target:
        assert fetch_all(target, BLOB, limit=spec.MIB) == DATA
        push(target, b"new")
    assert [request.headers.get("authorization") for request in basic.requests] == [None, *[BASIC] * 4]
    assert [request.body for request in basic.seen("PUT")] == [3]


def test_basic_without_credentials_says_what_to_do(basic: RegistrySimulator) -> None:
    with (
        anonymous(basic) as target,
        pytest.raises(Unauthorized, match=f"run: casstore login {basic.host} --plain-http$"),
    ):
        target.fetch(BLOB)
    assert len(basic.requests) == 1


def test_the_advice_for_https_has_no_plain_http() -> None:
    authenticator = Authenticator("r.example", Origin.of("https://r.example"), Anonymous(), lambda *_: (200, b""))
    assert authenticator.advice == "run: casstore login r.example"


def test_credentials_of_another_host_are_not_used(basic: RegistrySimulator) -> None:
    source = HostCredentials("127.0.0.1:1", Credentials(USER, PASSWORD))
    with RegistryTarget(basic.reference(REPOSITORY), basic.options, source) as target, pytest.raises(Unauthorized):
        target.fetch(BLOB)
    assert basic.sent_secrets() == []


def test_bearer_reads_with_pull_and_writes_with_push(bearer: RegistrySimulator) -> None:
    with known(bearer) as target:
        fetch_all(target, BLOB, limit=spec.MIB)
        new = push(target, b"new")
        target.delete(new)
    scopes = [request.path.partition("scope=")[2] for request in bearer.seen("GET", "/token")]
    actions = [scope.rpartition("%3A")[2] for scope in scopes]
    assert actions == ["pull", "pull%2Cpush", "delete"]
    assert all("repository%3Asome%2Frepository" in scope for scope in scopes)
    assert all("service=simulator" in request.path for request in bearer.seen("GET", "/token"))
    assert [request.headers.get("authorization") for request in bearer.seen("GET", "/token")] == [BASIC] * 3


def test_bearer_anonymously(bearer: RegistrySimulator) -> None:
    """Reading works without a password; writing is refused after one round, with advice."""
    with anonymous(bearer) as target:
        assert fetch_all(target, BLOB, limit=spec.MIB) == DATA
        with pytest.raises(Unauthorized, match=f"run: casstore login {bearer.host}"):
            push(target, b"new")
    assert len(bearer.seen("POST")) == 2
    assert not any(request.headers.get("authorization", "").startswith("Basic") for request in bearer.requests)


def test_a_token_serves_every_request_of_its_scope_and_every_thread(bearer: RegistrySimulator) -> None:
    with known(bearer) as target:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda _: fetch_all(target, BLOB, limit=spec.MIB) == DATA, range(16)))
        assert len(bearer.seen("GET", "/token")) == 1


def test_an_expired_token_is_replaced_once(bearer: RegistrySimulator) -> None:
    with known(bearer) as target:
        target.exists(BLOB)
        bearer.faults.refusals = 1
        assert fetch_all(target, BLOB, limit=spec.MIB) == DATA
        assert len(bearer.seen("GET", "/token")) == 2


def test_an_upload_survives_a_token_that_ends_between_post_and_put(bearer: RegistrySimulator) -> None:
    """The body is sent again from its first byte. (oras-py sends an empty one, and reports success.)"""
    data = bytes(range(256)) * 8192
    descriptor = Descriptor.of(data, "application/x")

    class ExpiringSource(BytesSource):
        opened = 0

        def fetch(self, descriptor: Descriptor) -> Reader:
            self.opened += 1
            if self.opened == 1:
                bearer.tokens.clear()
            return super().fetch(descriptor)

    source = ExpiringSource(data)
    with known(bearer) as target:
        target.push(descriptor, source)
        assert fetch_all(target, descriptor, limit=4 * spec.MIB) == data
    assert source.opened == 2
    assert [request.body for request in bearer.seen("PUT")] == [len(data), len(data)]


def test_an_old_token_is_renewed_before_it_is_refused(
    bearer: RegistrySimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    bearer.faults.life = 100
    now = 1000.0
    monkeypatch.setattr("casstore.registry.auth.time.monotonic", lambda: now)
    with known(bearer) as target:
        target.exists(BLOB)
        now += 89
        target.exists(BLOB)
        assert len(bearer.seen("GET", "/token")) == 1
        now += 2
        target.exists(BLOB)
        assert len(bearer.seen("GET", "/token")) == 2
    assert len(bearer.seen("HEAD")) == 4  # only the first was sent twice


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_91_a_registry_that_always_says_401_is_asked_twice(auth: str) -> None:
    with RegistrySimulator(auth=auth) as server, known(server) as target:  # type: ignore[arg-type]
        server.faults.refusals = 1000
        with pytest.raises(Unauthorized):
            target.exists(BLOB)
        assert len(server.seen("HEAD")) == 2
        with pytest.raises(Unauthorized):
            target.exists(BLOB)
        # a password that was refused is not offered again at once; a token may have expired
        assert len(server.seen("HEAD")) == (3 if auth == "basic" else 4)


@pytest.mark.parametrize("challenge", ["Negotiate", "Bearer", "Bearer realm", 'Digest realm="x"', "\x1b[31m", ","])
def test_91_a_401_without_a_usable_challenge(basic: RegistrySimulator, challenge: str) -> None:
    basic.faults.challenge = challenge
    with known(basic) as target, pytest.raises(RegistryError) as caught:
        target.exists(BLOB)
    assert len(basic.requests) == 1
    assert str(caught.value).isprintable()
    assert basic.sent_secrets() == []


@pytest.mark.parametrize("headers", [1, 2])
def test_91_a_challenge_of_more_than_8_kib_is_ignored(basic: RegistrySimulator, headers: int) -> None:
    """All headers joined."""
    basic.faults.challenge = "\r\nWWW-Authenticate: ".join([f'Basic realm="{"a" * (8192 // headers)}"'] * headers)
    with known(basic) as target, pytest.raises(Unauthorized):
        target.exists(BLOB)
    assert len(basic.requests) == 1
    assert basic.sent_secrets() == []


@pytest.mark.parametrize("piece", ["a", " ", "a ", "a=", 'a="', "a= ", ", "])
def test_91_a_challenge_is_read_in_linear_time(piece: str) -> None:
    """Eight times the text takes about eight times as long, not sixty-four times."""

    def least(length: int) -> float:
        header = 'Bearer realm="https://a/t",' + piece * (length // len(piece))
        times = []
        for _ in range(20):
            start = time.thread_time()
            challenge = Challenge.parse(header)
            times.append(time.thread_time() - start)
        assert challenge == Challenge("bearer", "https://a/t")
        return min(times)

    assert least(8000) < 30 * least(1000)


@pytest.mark.parametrize("uses", [1, 2])
def test_tokens_may_end_all_the_time(bearer: RegistrySimulator, uses: int) -> None:
    """Every request is challenged again at most once, and none fails."""
    bearer.faults.uses = uses
    with known(bearer) as target:
        for number in range(5):
            descriptor = push(target, b"%d" % number)
            assert fetch_all(target, descriptor, limit=10) == b"%d" % number
    assert len({request.path for request in bearer.seen("GET", "/token")}) == 2  # with pull, and with pull,push


# --- scopes


def test_a_wider_scope_that_the_registry_demands_is_asked_for(bearer: RegistrySimulator) -> None:
    """`insufficient_scope`; the next request of that kind asks for it at once."""
    bearer.faults.demand = "pull,metadata_read,*"
    with known(bearer) as target:
        assert target.exists(BLOB)
        assert fetch_all(target, BLOB, limit=spec.MIB) == DATA
    [first] = bearer.seen("GET", "/token")
    assert parse_qs(first.path.partition("?")[2])["scope"] == [f"repository:{REPOSITORY}:pull,metadata_read,*"]
    assert [request.method for request in bearer.requests] == ["HEAD", "GET", "HEAD", "GET"]


def test_91_a_scope_that_never_suffices_ends_after_one_round(bearer: RegistrySimulator) -> None:
    """The registry wants more each time."""
    with known(bearer) as target:
        target.exists(BLOB)
        for actions in ("pull,a", "pull,a,b"):
            bearer.faults.demand = actions
            target.exists(BLOB)
        bearer.faults.refusals = 1000
        with pytest.raises(Unauthorized, match=r"got 401.*wrong user name or password, or no permission"):
            target.fetch(BLOB)
    assert len(bearer.seen("GET", "/blobs")) == 2


MOUNT = "repository:a/b:pull,push repository:c/d:pull"


@pytest.mark.parametrize(
    ("asked", "demanded", "merged"),
    [
        ("", "registry:catalog:*", ""),
        ("repository:a/b:pull", "", "repository:a/b:pull"),
        ("repository:a/b:pull", "repository:a/b:pull", "repository:a/b:pull"),
        ("repository:a/b:pull,push", "repository:a/b:push", "repository:a/b:pull,push"),
        ("repository:a/b:pull", "repository:a/b:pull,push", "repository:a/b:pull,push"),
        ("repository:a/b:pull", "repository:other:pull,push", "repository:a/b:pull"),
        ("repository:a/b:pull", "repository:a/b:pu sh,DELETE,,x\x1b", "repository:a/b:pull,pu"),
        ("repository:r.example:5000/a:pull", "repository:r.example:5000/a:*", "repository:r.example:5000/a:pull,*"),
        (MOUNT, "repository:c/d:pull repository:a/b:push,pull", MOUNT),
        (MOUNT, "repository:c/d:push", "repository:a/b:pull,push repository:c/d:pull,push"),
        ("repository:a:pull repository:a:push", "", "repository:a:pull,push"),
    ],
)
def test_scopes_are_merged_for_the_same_repository(asked: str, demanded: str, merged: str) -> None:
    assert merge_scopes(asked, demanded) == merged


ACTIONS = st.lists(st.sampled_from(["pull", "push", "delete", "*"]), min_size=1, unique=True).map(",".join)
SCOPES = st.dictionaries(st.sampled_from(["a", "a/b", "h:1/c"]), ACTIONS).map(
    lambda scopes: " ".join(f"repository:{name}:{actions}" for name, actions in scopes.items())
)


@given(SCOPES, SCOPES | st.text())
def test_merged_scopes_stay_with_what_was_asked(asked: str, demanded: str) -> None:
    merged = merge_scopes(asked, demanded)
    before, after = (dict(scope.rpartition(":")[::2] for scope in text.split()) for text in (asked, merged))
    assert before.keys() == after.keys()
    assert all(set(before[name].split(",")) <= set(after[name].split(",")) for name in before)
    assert merge_scopes(merged, demanded) == merged
    assert merge_scopes(asked, asked) == asked


@pytest.mark.parametrize("identity", [False, True])
def test_several_scopes_go_into_one_request(bearer: RegistrySimulator, identity: bool) -> None:
    """Several parameters of a GET; one field of an OAuth2 form."""
    given = Credentials(identity_token=IDENTITY_TOKEN) if identity else Credentials(USER, PASSWORD)
    asked: list[tuple[str, bytes | None]] = []

    def fetch_token(url: str, _: str | None, form: bytes | None) -> tuple[int, bytes]:
        asked.append((url, form))
        return 200, b'{"token": "t"}'

    origin = Origin.of(bearer.url)
    authenticator = Authenticator(bearer.host, origin, HostCredentials(bearer.host, given), fetch_token)
    challenge = f'Bearer realm="{bearer.url}/token",service="s",scope="repository:c/d:pull"'
    assert authenticator.answer(challenge, MOUNT, refused=None) == "Bearer t"
    [(url, form)] = asked
    query = parse_qs(form.decode() if form else url.partition("?")[2])
    assert query["scope"] == ([MOUNT] if identity else MOUNT.split())
    assert query["service"] == ["s"]


# --- identity tokens (OAuth2) and registry tokens


def with_token(server: RegistrySimulator, **fields: str) -> RegistryTarget:
    source = HostCredentials(server.host, Credentials(**fields))
    return RegistryTarget(server.reference(REPOSITORY), server.options, source)


def test_an_identity_token_is_exchanged(bearer: RegistrySimulator) -> None:
    with with_token(bearer, identity_token=IDENTITY_TOKEN) as target:
        new = push(target, b"new")
        assert fetch_all(target, new, limit=10) == b"new"
    assert len(bearer.seen("POST", "/token")) == 2
    assert bearer.seen("GET", "/token") == []
    assert not any("Basic" in header for header in bearer.sent_secrets())
    assert not any("canary" in request.path for request in bearer.seen("POST", "/token"))


def test_an_identity_token_that_is_replaced(bearer: RegistrySimulator) -> None:
    """The next one counts from then on; the last one would be refused."""
    bearer.faults.rotate, bearer.faults.uses = True, 1
    with with_token(bearer, identity_token=IDENTITY_TOKEN) as target:
        for _ in range(3):
            assert target.exists(BLOB)
        assert IDENTITY_TOKEN in target._client.auth.secrets
        assert bearer.identity_token in target._client.auth.secrets


def test_a_refused_identity_token_is_not_repeated(bearer: RegistrySimulator) -> None:
    bearer.faults.echo = True
    with with_token(bearer, identity_token="canary-old/token") as target:
        with pytest.raises(Unauthorized, match=r"token server.*expected a token, got 401") as caught:
            target.exists(BLOB)
        assert "canary" not in str(caught.value)
    assert len(bearer.seen("POST", "/token")) == 1


@pytest.mark.parametrize("status", [404, 405])
def test_a_token_server_without_oauth_gets_the_password(bearer: RegistrySimulator, status: int) -> None:
    """As the specification wants it; without a password it is the end."""
    bearer.faults.oauth = status
    with with_token(bearer, username=USER, password=PASSWORD, identity_token=IDENTITY_TOKEN) as target:
        assert target.exists(BLOB)
    assert len(bearer.seen("GET", "/token")) == 1
    with with_token(bearer, identity_token=IDENTITY_TOKEN) as target, pytest.raises(CasstoreError, match=str(status)):
        target.exists(BLOB)


def test_91_an_identity_token_stays_on_the_site(bearer: RegistrySimulator, other: RegistrySimulator) -> None:
    bearer.faults.challenge = f'Bearer realm="{other.url}/token",service="s"'
    with with_token(bearer, identity_token=IDENTITY_TOKEN) as target, pytest.raises(Unauthorized, match="another site"):
        target.exists(BLOB)
    assert [request.method for request in other.requests] == ["GET"]
    assert "canary" not in other.requests[0].path


def test_a_registry_token_is_sent_as_it_is(bearer: RegistrySimulator) -> None:
    with with_token(bearer, registry_token=REGISTRY_TOKEN) as target:
        push(target, b"new")
        assert fetch_all(target, BLOB, limit=spec.MIB) == DATA
    assert bearer.seen("GET", "/token") == []
    assert set(bearer.sent_secrets()) == {f"Bearer {REGISTRY_TOKEN}"}


@pytest.mark.parametrize("token", ["canary-wrong", "canary\r\nX: y", "canary \u00e4"])
def test_91_a_registry_token_that_is_refused_or_none(bearer: RegistrySimulator, token: str) -> None:
    with with_token(bearer, registry_token=token) as target, pytest.raises(Unauthorized) as caught:
        target.exists(BLOB)
    assert "canary" not in str(caught.value)
    assert len(bearer.requests) <= 2


# --- where credentials are looked up


def test_the_repository_decides_which_credentials_are_used(basic: RegistrySimulator) -> None:
    source = HostCredentials(basic.host, Credentials(USER, PASSWORD), path="some")
    with RegistryTarget(basic.reference(REPOSITORY), basic.options, source) as target:
        assert target.exists(BLOB)
    with (
        RegistryTarget(basic.reference("other/repository"), basic.options, source) as target,
        pytest.raises(Unauthorized),
    ):
        target.fetch(BLOB)
    assert basic.sent_secrets() == [BASIC]


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_source_is_asked_once_and_only_when_needed(auth: str) -> None:
    """It may be a helper that takes half a minute, or a file that is broken."""

    class Broken:
        asked = 0

        def lookup(self, host: str, repository: str = "") -> Credentials | None:
            self.asked += 1
            raise HelperFailed("no")

    source = Broken()
    with RegistrySimulator() as server, RegistryTarget(server.reference("a/b"), server.options, source) as target:
        server.faults.status = 404
        with pytest.raises(NotFound):
            target.fetch(BLOB)
        assert source.asked == 0
        server.faults.status, server.auth = None, auth  # type: ignore[assignment]
        for _ in range(3):
            with pytest.raises(HelperFailed, match="no"):
                target.fetch(BLOB)
        assert source.asked == 1


# --- realms


def trusting(server: RegistrySimulator, *realms: str) -> RegistryTarget:
    options = replace(server.options, trusted_realms=realms)
    return RegistryTarget(server.reference(REPOSITORY), options, server.credentials)


def test_91_a_realm_that_is_trusted_gets_the_password(bearer: RegistrySimulator, other: RegistrySimulator) -> None:
    """The token server of a registry on loopback, on another port: it must be told."""
    bearer.faults.challenge = f'Bearer realm="{other.url}/token",service="s"'
    other.tokens = bearer.tokens
    with trusting(bearer, "elsewhere.example", other.host) as target:
        push(target, b"new")
    assert set(other.sent_secrets()) == {BASIC}


def test_91_a_trusted_realm_has_a_port(bearer: RegistrySimulator, other: RegistrySimulator) -> None:
    bearer.faults.challenge = f'Bearer realm="{other.url}/token",service="s"'
    with (
        trusting(bearer, "127.0.0.1") as target,
        pytest.raises(Unauthorized, match=f"trust it: --trust-realm {other.host}$"),
    ):
        target.exists(BLOB)
    assert other.sent_secrets() == []


@pytest.mark.parametrize(
    ("registry", "realm", "trusted", "allowed"),
    [
        ("https://r.example", "https://auth.example", "auth.example", True),
        ("https://r.example", "https://auth.example", "AUTH.example:443", True),
        ("https://r.example", "https://auth.example:444", "auth.example", False),
        ("https://r.example", "https://auth.example:444", "auth.example:444", True),
        ("https://r.example", "https://sub.auth.example", "auth.example", False),
        ("https://r.example", "http://auth.example", "auth.example", False),
        ("https://r.example", "https://10.0.0.1", "10.0.0.1", True),
        ("https://r.example", "https://[::1]:81", "[::1]:81", True),
        ("http://r.example", "http://auth.example", "auth.example", True),
    ],
)
def test_91_what_trust_covers(registry: str, realm: str, trusted: str, allowed: bool) -> None:
    """Exactly that host and port; and never http below https."""
    asked: list[str | None] = []

    def fetch_token(url: str, authorization: str | None, form: bytes | None) -> tuple[int, bytes]:
        asked.append(authorization)
        return 200, b'{"token": "t"}'

    source = HostCredentials("r.example", Credentials(USER, PASSWORD))
    authenticator = Authenticator("r.example", Origin.of(registry), source, fetch_token, trusted_realms=[trusted])
    try:
        authenticator.answer(f'Bearer realm="{realm}/token"', "", refused=None)
    except RegistryError:
        assert not allowed
    assert (BASIC in asked) is allowed


def test_a_trusted_realm_is_a_host(bearer: RegistrySimulator) -> None:
    with pytest.raises(InvalidReference):
        trusting(bearer, "https://auth.example/token")


def test_91_a_realm_on_another_port_gets_no_password(bearer: RegistrySimulator, other: RegistrySimulator) -> None:
    bearer.faults.challenge = f'Bearer realm="{other.url}/token",service="s"'
    with known(bearer) as target, pytest.raises(Unauthorized, match=f"not sent to {other.url}, which is another site"):
        target.exists(BLOB)
    assert [request.path.partition("?")[0] for request in other.requests] == ["/token"]
    assert other.sent_secrets() == []


@pytest.mark.parametrize(
    "realm",
    [
        "file:///etc/passwd",
        "/token",
        "token.example",
        "ftp://127.0.0.1/token",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/token",
        "http://[::1]/token",
        "http://2130706433/token",
        "http://0x7f000001/token",
        "http://127.1/token",
        "http://0177.0.0.1/token",
        "http://user:pass@127.0.0.1/token",
        "http://127.0.0.1:0x50/token",
        "http://",
        "",
    ],
)
def test_91_realms_that_are_not_asked(bearer: RegistrySimulator, realm: str) -> None:
    bearer.faults.challenge = f'Bearer realm="{realm}",service="s"'
    with known(bearer) as target, pytest.raises(RegistryError, match="realm of the token server: expected") as caught:
        target.exists(BLOB)
    assert len(bearer.requests) == 1
    assert not any(canary in str(caught.value) for canary in CANARIES)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("2130706433", True),
        ("0x7f000001", True),
        ("127.1", True),
        ("0177.0.0.1", True),
        ("r.example", False),
        ("localhost", False),
        ("127.example", False),
        ("1.2.3.4.5", False),
        ("", False),
    ],
)
def test_91_what_is_an_address(host: str, address: bool) -> None:
    """Whatever a resolver takes for one, in any notation."""
    assert is_address(host) is address


REALMS = [
    # registry, realm, whether the password may go there
    ("https://registry-1.docker.io", "https://auth.docker.io", True),
    ("https://ghcr.io", "https://ghcr.io", True),
    ("https://gitlab.example.com:5050", "https://gitlab.example.com", True),
    ("https://registry.example.com", "https://example.com", True),
    ("https://example.com", "https://auth.example.com", True),
    ("http://localhost:5000", "http://localhost:5000", True),
    ("https://127.0.0.1:5000", "https://127.0.0.1:5000", True),
    ("https://registry.example.com", "https://auth.example.net", False),
    ("https://registry.example.com", "https://example.com.evil.net", False),
    ("https://registry.example.com", "https://evilexample.com", False),
    ("https://registry.example.com", "http://auth.example.com", False),
    ("http://registry.example.com", "http://auth.example.com", False),
    ("https://a.co.uk", "https://b.co.uk", False),
    ("https://r.a.co.uk", "https://auth.a.co.uk", True),
    ("https://127.0.0.1:5000", "https://127.0.0.1:5001", False),
    ("https://10.0.0.1", "https://11.0.0.1", False),
    ("https://[::1]:5000", "https://[::1]:5001", False),
    ("https://localhost:5000", "https://localhost:5001", False),
    ("https://registry", "https://auth", False),
    ("https://uk", "https://co.uk", False),
]


@pytest.mark.parametrize(("registry", "realm", "allowed"), REALMS)
def test_91_what_is_one_site(registry: str, realm: str, allowed: bool) -> None:
    """The rule, and that the Authenticator keeps it."""
    assert same_site(Origin.of(realm), Origin.of(registry)) is allowed
    asked: list[str | None] = []

    def fetch_token(url: str, authorization: str | None, form: bytes | None) -> tuple[int, bytes]:
        asked.append(authorization)
        return 200, b'{"token": "t"}'

    host = registry.partition("//")[2]
    source = HostCredentials(host, Credentials(USER, PASSWORD))
    authenticator = Authenticator(host, Origin.of(registry), source, fetch_token)
    try:
        authenticator.answer(f'Bearer realm="{realm}/token"', "", refused=None)
    except RegistryError:
        assert not allowed
    assert asked in ([BASIC] if allowed else [None], [] if not allowed else [BASIC])


def test_91_https_registries_have_https_realms() -> None:
    authenticator = Authenticator("r.example", Origin.of("https://r.example"), Anonymous(), lambda *_: (200, b""))
    with pytest.raises(RegistryError, match="expected https as before"):
        authenticator.answer('Bearer realm="http://r.example/token"', "", refused=None)


@pytest.mark.parametrize(
    "token",
    [
        b'{"token": "a\\r\\nX-Evil: 1"}',
        b'{"token": "a b"}',
        b'{"token": "\\u00e4"}',
        b'{"token": ""}',
        b'{"token": 5}',
        b'{"token": null}',
        b"{}",
        b"[]",
        b"<html>",
        b'{"token": "a", "token": "b"}',
        b"[" * 100_000,
        b'{"token": "' + b"a" * 200_000 + b'"}',
    ],
)
def test_91_tokens_that_are_none(bearer: RegistrySimulator, token: bytes) -> None:
    bearer.faults.token = token
    with known(bearer) as target, pytest.raises((RegistryError, SizeMismatch), match="token server"):
        target.exists(BLOB)
    assert len(bearer.seen("HEAD")) == 1


@pytest.mark.parametrize("life", [b"0", b"-5", b'"x"', b"null", b"99999999999999999"])
def test_a_token_s_life_may_be_nonsense(bearer: RegistrySimulator, life: bytes) -> None:
    bearer.tokens["canary-token"] = {f"repository:{REPOSITORY}:pull"}
    bearer.faults.token = b'{"access_token": "canary-token", "expires_in": ' + life + b"}"
    with known(bearer) as target:
        assert target.exists(BLOB)
        assert target.exists(BLOB)
    assert len(bearer.seen("GET", "/token")) == 1


def test_a_token_server_s_errors_are_typed(bearer: RegistrySimulator, other: RegistrySimulator) -> None:
    bearer.faults.challenge = f'Bearer realm="{other.url}/v2/token"'
    for status, kind in ((500, Unavailable), (404, NotFound), (403, Unauthorized), (302, RegistryError)):
        other.faults.status, other.faults.error = status, b"canary words"
        other.faults.error_headers = {"Location": f"{bearer.url}/token"}
        with known(bearer) as target, pytest.raises(kind, match=r"token server.*canary words"):
            target.exists(BLOB)
    assert bearer.seen("GET", "/token") == []


# --- other origins


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_90_a_redirect_to_another_port_drops_the_credentials(auth: str, other: RegistrySimulator) -> None:
    with RegistrySimulator(auth=auth, contents=other.contents) as server, known(server) as target:  # type: ignore[arg-type]
        server.put_blob(REPOSITORY, DATA)
        server.faults.redirect = f"{other.url}{{path}}"
        assert target.exists(BLOB)
        assert fetch_all(target, BLOB, limit=spec.MIB) == DATA
        assert len(other.requests) == 2
        assert other.sent_secrets() == []
        assert all("cookie" not in request.headers for request in other.requests)


def test_90_a_redirect_within_the_origin_keeps_them(basic: RegistrySimulator) -> None:
    with known(basic) as target:
        target.exists(BLOB)
        basic.faults.redirect = "{path}"
        with pytest.raises(RegistryError, match="at most 5 redirects"):
            target.exists(BLOB)
    assert basic.sent_secrets() == [BASIC] * 7


def test_90_credentials_that_were_dropped_do_not_come_back(basic: RegistrySimulator, other: RegistrySimulator) -> None:
    with known(basic) as target:
        target.exists(BLOB)
        sent = len(basic.sent_secrets())
        basic.faults.redirect = f"{other.url}{{path}}"
        other.faults.redirect = f"{basic.url}/v2/{REPOSITORY}/elsewhere"
        with pytest.raises(RegistryError):
            target.exists(BLOB)
    assert other.sent_secrets() == []
    elsewhere = basic.seen("HEAD", "/elsewhere")
    assert elsewhere
    assert all("authorization" not in request.headers for request in elsewhere)
    assert len(basic.sent_secrets()) > sent  # the first request of each chain did carry them


def test_90_a_challenge_from_another_origin_is_not_answered(
    bearer: RegistrySimulator, other: RegistrySimulator
) -> None:
    with known(bearer) as target:
        target.exists(BLOB)
        bearer.faults.redirect = f"{other.url}{{path}}"
        other.faults.challenge, other.auth = f'Basic realm="x", Bearer realm="{other.url}/token"', "bearer"
        with pytest.raises(Unauthorized):
            target.exists(BLOB)
    assert [request.method for request in other.requests] == ["HEAD"]
    assert other.sent_secrets() == []


def test_92_an_upload_elsewhere_gets_neither_credentials_nor_bytes(
    bearer: RegistrySimulator, other: RegistrySimulator
) -> None:
    bearer.faults.location = f"{other.url}{{path}}"
    with known(bearer) as target, pytest.raises(RegistryError, match="expected a Location on"):
        push(target, b"new")
    assert other.requests == []


# --- secrets


def test_106_no_secret_in_any_text(
    bearer: RegistrySimulator,
    basic: RegistrySimulator,
    other: RegistrySimulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Errors, tracebacks, reprs and logs, even when the server echoes what it was sent."""
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []

    def collect(target: RegistryTarget) -> None:
        try:
            target.exists(BLOB)
            push(target, b"new")
        except CasstoreError as error:
            texts.extend([str(error), repr(error), "".join(traceback.format_exception(error))])
        texts.extend(map(repr, (target, target._client, target._client.auth, target._client.session)))

    for server in (bearer, basic):
        with known(server) as target:
            collect(target)
            for status in (400, 401, 403, 404, 500):
                server.faults.status = status
                server.faults.error = " ".join([*server.sent_secrets()[-2:], PASSWORD]).encode()
                collect(target)
                server.faults.error = json.dumps({"errors": [{"message": server.faults.error.decode()}]}).encode()
                collect(target)
            server.faults.status = None
            server.faults.location = "http://canary-pass:word@127.0.0.1/{path}?token=canary-token"
            collect(target)
            server.faults.redirect = f"{other.url}{{path}}?token=canary-token"
            other.faults.status = 500
            collect(target)
            server.faults.refusals = 1000
            collect(target)
    credentials = Credentials(USER, PASSWORD)
    texts.extend([repr(credentials), str(credentials), repr(bearer.credentials)])
    assert len(texts) > 50
    for text in texts:
        assert not any(canary in text for canary in (*CANARIES, "canary-pass"))
    records = [record.getMessage() for record in caplog.records if record.name.startswith("casstore")]
    assert not any(canary in text for text in records for canary in CANARIES)


@pytest.mark.parametrize("before", [0, 150, 790, 799, ERROR_BODY - 10])
@pytest.mark.parametrize("filler", ["x", " "])
def test_106_no_part_of_a_secret_at_a_cut(before: int, filler: str) -> None:
    secret = "canary-" + "y" * 800
    body = (filler * before + secret * 3).encode()[:ERROR_BODY]
    assert "canary" not in explain(body, [secret])
    assert "canary" not in explain(json.dumps({"errors": [{"message": body.decode()}]}).encode(), [secret])


def test_106_no_part_of_a_long_token_that_a_server_repeats() -> None:
    secret = "canary-" + "y" * 5000
    assert explain((secret * 20).encode()[:ERROR_BODY], [secret]).strip("*") == ""


def test_106_the_password_is_remembered_however_many_tokens_there_were(bearer: RegistrySimulator) -> None:
    bearer.faults.uses = 1
    with known(bearer) as target:
        for _ in range(40):
            target.exists(BLOB)
        assert {PASSWORD, BASIC.partition(" ")[2]} <= set(target._client.auth.secrets)
        assert len(target._client.auth.secrets) < 50


@pytest.mark.parametrize("form", [quote_plus, lambda secret: json.dumps(secret)[1:-1], lambda secret: secret])
def test_106_a_secret_in_the_forms_in_which_it_was_sent(form: Callable[[str], str]) -> None:
    source = HostCredentials("h", Credentials("alice", 'can"ary/ +\u00e4', "iden+ tity"))
    authenticator = Authenticator("h", Origin.of("https://h"), source, lambda *_: (500, b""))
    with pytest.raises(CasstoreError):
        authenticator.answer('Bearer realm="https://h/t"', "", refused=None)
    for secret in ('can"ary/ +\u00e4', "iden+ tity"):
        assert explain(f"<{form(secret)}>".encode(), authenticator.secrets) == "<***>"


def test_106_no_secret_from_a_realm(bearer: RegistrySimulator) -> None:
    """One that the registry makes of what it was sent."""
    with known(bearer) as target:
        target.exists(BLOB)
        for realm in (f"ftp://x/{PASSWORD}", f"http://10.0.0.1/{PASSWORD}", f"http://127.0.0.1:99999/{PASSWORD}"):
            bearer.faults.challenge = f'Bearer realm="{realm}"'
            bearer.tokens.clear()
            with pytest.raises(RegistryError, match="realm") as caught:
                target.exists(BLOB)
            assert PASSWORD not in str(caught.value)


def test_106_a_secret_within_another() -> None:
    assert explain(b"got canary-long", ["canary", "canary-long"]) == "got ***"


def test_106_secrets_too_short_to_hide() -> None:
    """Asterisks for every "a" would tell the password."""
    assert explain(b"a bad day", ["a", "", "bad"]) == "a bad day"
    assert explain(b"a good day", ["good"]) == "a *** day"


@pytest.mark.parametrize("claim", [PASSWORD, f"sha256:{PASSWORD}", BASIC, f"{'x' * 90} {PASSWORD}"])
def test_106_no_secret_from_a_header(basic: RegistrySimulator, claim: str) -> None:
    with known(basic) as target:
        target.exists(BLOB)
        basic.faults.digest = claim
        with pytest.raises(DigestMismatch, match=r"got not a digest$"):
            target.fetch(BLOB)
        basic.faults.digest, basic.faults.length = "", claim
        with pytest.raises(RegistryError, match=r"expected Content-Length 40000, got no number$"):
            target.fetch(BLOB)
        basic.faults.length, basic.faults.encoding = None, claim
        with pytest.raises(RegistryError, match="got Content-Encoding") as caught:
            target.fetch(BLOB)
        assert "canary" not in str(caught.value)
        assert BASIC.partition(" ")[2] not in str(caught.value)
        basic.faults.encoding, basic.faults.media_type = None, claim
        basic.put_manifest(REPOSITORY, b"{}", tag="v1")
        with pytest.raises(CasstoreError, match="expected a manifest, got") as refused:
            target.resolve("v1")
        assert "canary" not in str(refused.value)
        assert BASIC.partition(" ")[2] not in str(refused.value)


def test_106_a_header_echoes_utf_8_as_latin_1() -> None:
    assert quoted("pässwörd".encode().decode("latin-1"), ["pässwörd"]) == "'***'"


def test_106_the_environment_and_netrc_are_not_read(
    basic: RegistrySimulator, other: RegistrySimulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login ns password canary\n")
    netrc.chmod(0o600)
    (tmp_path / ".docker").mkdir()
    auth = base64.b64encode(b"env:canary").decode()
    (tmp_path / ".docker/config.json").write_text(json.dumps({"auths": {basic.host: {"auth": auth}}}))
    for name, value in {
        "HOME": str(tmp_path),
        "NETRC": str(netrc),
        "DOCKER_CONFIG": str(tmp_path / ".docker"),
        "ORAS_USER": "env",
        "ORAS_PASS": "canary",
        "HTTP_PROXY": other.url,
        "http_proxy": other.url,
        "ALL_PROXY": other.url,
        "REQUESTS_CA_BUNDLE": "/nonsense",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with anonymous(basic) as target, pytest.raises(Unauthorized):
        target.exists(BLOB)
    assert basic.sent_secrets() == []
    assert other.requests == []


def test_cookies_are_neither_kept_nor_sent(other: RegistrySimulator) -> None:
    """Harbor takes a client with cookies for a browser."""
    other.faults.status, other.faults.error_headers = 200, {"Set-Cookie": "sid=canary; Path=/", "Content-Length": "0"}
    with anonymous(other) as target:
        target.exists(BLOB)
        target.exists(BLOB)
    assert all("cookie" not in request.headers for request in other.requests)


# --- login


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_login_asks_the_registry(auth: str) -> None:
    with RegistrySimulator(auth=auth) as server:  # type: ignore[arg-type]
        login(server.options, server.host, Credentials(USER, PASSWORD))
        assert BASIC in server.sent_secrets()
        for wrong in (Credentials(USER, "canary-wrong"), Credentials("bob", PASSWORD)):
            with pytest.raises(Unauthorized) as caught:
                login(server.options, server.host, wrong)
            assert wrong.password not in str(caught.value)


def test_login_to_a_registry_that_asks_nobody(other: RegistrySimulator) -> None:
    login(other.options, other.host, Credentials(USER, PASSWORD))
    assert other.sent_secrets() == []


def test_login_fails_where_the_password_may_not_go(bearer: RegistrySimulator, other: RegistrySimulator) -> None:
    """An anonymous token would open /v2/, but proves nothing about the password."""
    bearer.faults.challenge = f'Bearer realm="{other.url}/token"'
    other.tokens = bearer.tokens
    with pytest.raises(Unauthorized, match="another site"):
        login(bearer.options, bearer.host, Credentials(USER, PASSWORD))
    assert other.sent_secrets() == []


def test_login_where_there_is_no_registry(other: RegistrySimulator) -> None:
    other.faults.status = 404
    with pytest.raises(NotFound):
        login(other.options, other.host, Credentials(USER, PASSWORD))


@pytest.mark.needs("docker-registry")
def test_a_real_registry_with_tokens_from_another_port(tmp_path: Path) -> None:
    """docker-registry checks our scopes; its token server, on another port of an IP address, never sees a password."""
    with (
        real_registry(tmp_path, auth="token") as server,
        RegistryTarget(server.reference("a/b"), server.options, server.credentials) as target,
    ):
        new = push(target, b"new")
        assert fetch_all(target, new, limit=10) == b"new"
        assert server.token_server is not None
        asked = server.token_server.requests
        assert [request.query["scope"] for request in asked] == [["repository:a/b:pull"], ["repository:a/b:pull,push"]]
        assert {request.authorization for request in asked} == {None}


@pytest.mark.needs("docker-registry")
def test_a_real_registry_whose_tokens_end_in_the_middle_of_a_push(tmp_path: Path) -> None:
    """docker-registry takes tokens for 60 s longer than they say, so these end 58 s before they begin.

    The client believes that they live for minutes: each one after the first of its scope is the answer to a 401.
    """
    with real_registry(tmp_path, auth="token") as server:
        assert server.token_server is not None
        server.token_server.life, server.token_server.claimed_life = -58, 300

        class Patient(BytesSource):
            def fetch(self, descriptor: Descriptor) -> Reader:
                time.sleep(0 if expired.is_set() else 3)
                expired.set()
                return super().fetch(descriptor)

        expired = threading.Event()
        data = bytes(range(256)) * 4096
        descriptor = Descriptor.of(data, "application/x")
        with RegistryTarget(server.reference("a/b"), server.options, server.credentials) as target:
            target.push(descriptor, Patient(data))
            assert fetch_all(target, descriptor, limit=2 * spec.MIB) == data
        asked = Counter(request.query["scope"][0] for request in server.token_server.requests)
    assert asked["repository:a/b:pull,push"] >= 2


# --- parsing


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Bearer realm="https://a/t",service="s",scope="x:y:z"', Challenge("bearer", "https://a/t", "s", "x:y:z")),
        ('bearer REALM="https://a/t" , Service=s', Challenge("bearer", "https://a/t", "s")),
        ('Bearer realm="https://a/t?x=1,2",service=""', Challenge("bearer", "https://a/t?x=1,2", "")),
        ('Basic realm="R", Bearer realm="https://a/t",service="s"', Challenge("bearer", "https://a/t", "s")),
        ('Bearer realm="https://a/t",service="s", Basic realm="R"', Challenge("bearer", "https://a/t", "s")),
        ('Negotiate, Basic realm="R"', Challenge("basic")),
        ("Basic", Challenge("basic")),
        ("Bearer", Challenge("bearer")),
        ("", None),
        ("Negotiate", None),
        ("BasicX realm=y", None),
    ],
)
def test_challenges(header: str, expected: Challenge | None) -> None:
    assert Challenge.parse(header) == expected


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_any_header_is_a_challenge_or_none(header: str) -> None:
    for text in (header, f"Bearer {header}", f'Bearer realm="{header}"', f"{header}, Basic {header}"):
        assert isinstance(Challenge.parse(text), Challenge | None)


@given(st.text() | st.from_regex(r"[hH]ttps?://[!-~]{0,30}", fullmatch=True))
def test_any_location_is_a_clean_url_or_an_error(location: str) -> None:
    try:
        url = follow("https://r.example/v2/x", location, subject="x")
    except RegistryError as refused:
        text = str(refused)
    else:
        text = url
        assert Origin.of(url).scheme == "https"
        assert not set(url) & set(" \\#")
        assert "@" not in url.partition("//")[2].partition("/")[0]
    assert text.isascii()
    assert text.isprintable()
