"""What stands on one line: names and references that people type, and headers that registries send."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

from casstore.digest import Digest
from casstore.errors import DocumentError, InvalidDigest, InvalidName, RegistryError, UsageError
from casstore.manifest import created_time
from casstore.names import DigestPrefix, as_name, is_reserved, parse_disk_name, parse_name, parse_selector
from casstore.reference import RegistryReference, parse_host, parse_reference, parse_tag
from casstore.registry.auth import Challenge, _parse_token, merge_scopes
from casstore.registry.failures import explain, failure, quoted
from casstore.registry.notices import MAX_BYTES, Notices
from casstore.registry.pace import retry_after
from casstore.registry.pages import next_page
from casstore.registry.urls import Origin, follow, is_local, same_site, shown
from casstore.tar.names import safe_path
from tests.fuzz.draw import Draw
from tests.fuzz.target import Target

_SECRET = "hunter2secret"
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _text(data: bytes) -> str:
    """Anything that a command line can hold, lone surrogates included."""
    return data.decode("utf-8", "surrogateescape")


def _words(data: bytes) -> None:
    """Every grammar for the same text; what one lets through has to be what it stands for."""
    text = _text(data)
    with suppress(InvalidName):
        name = parse_name(text)
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name, re.ASCII)
        assert ".." not in name
        assert not is_reserved(name)
        assert parse_selector(text) == name
        assert parse_tag(name) == name
    with suppress(InvalidName):
        disk = parse_disk_name(text)
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", disk, re.ASCII)
    with suppress(InvalidDigest):
        assert str(Digest.parse(text)) == text
        assert isinstance(parse_selector(text), DigestPrefix)
    made = as_name(text)
    assert made is None or parse_name(made) == made
    created_time(text)
    parse_reference(text)  # last, as it raises


def _reference(data: bytes) -> tuple[str, object]:
    text = _text(data)
    _words(data)
    return text, parse_reference(text)


def _check_reference(parsed: tuple[str, object]) -> None:
    text, reference = parsed
    assert parse_reference(str(reference)) == reference
    if isinstance(reference, RegistryReference):
        assert str(reference).isascii()
        assert str(reference).isprintable()
        parts = urlsplit(f"https://{reference.name}/x")
        assert parts.netloc == reference.host == parse_host(reference.host)
        assert "@" not in reference.name
        assert not {"", ".", ".."} & set(reference.repository.split("/"))
    else:
        assert text.startswith("oci:")


def _path(data: bytes) -> None:
    text = _text(data)
    parts = safe_path(text, subject="member")
    assert not {"", ".", ".."} & set(parts)
    assert not any("/" in part or "\0" in part or "\\" in part for part in parts)


def _headers(data: bytes) -> None:
    """All that is read of a registry's answer but its body, a line each; the body is what is left."""
    draw = Draw(data)
    lines = [draw.line().decode("latin-1") for _ in range(4)]
    body = draw.rest()
    for line in lines:
        _challenge(line)
        page = next_page(line)
        assert page is None or 0 < len(page) <= 4096
        assert 0 <= retry_after(line, now=_NOW) < float("inf")
        is_local(line)
        for text in (quoted(line, [_SECRET]), shown(line, [_SECRET]), explain(line.encode(), [_SECRET])):
            assert text.isascii()
            assert text.isprintable()
            assert len(text) <= 2048
            assert _SECRET not in text
    told: list[str] = []
    notices = Notices(told.append)
    for line in lines:
        notices.hear([line, lines[0]], [_SECRET])
    assert len(set(told)) == len(told)
    assert sum(map(len, told)) <= MAX_BYTES
    assert all(text.isascii() and text.isprintable() and _SECRET not in text for text in told)
    error = failure("subject", 400 + len(lines[0]) % 130, body, expected="200", advice="advice", secrets=[_SECRET])
    assert str(error).isprintable()
    assert len(str(error)) < 1000
    assert _SECRET not in str(error)
    merged = merge_scopes("repository:a:pull repository:b:pull,push", lines[1])
    assert {scope.rpartition(":")[0] for scope in merged.split()} == {"repository:a", "repository:b"}


def _challenge(line: str) -> None:
    challenge = Challenge.parse(line)
    if challenge is not None:
        assert challenge.scheme in {"bearer", "basic"}
        assert all(part in line for part in (challenge.realm, challenge.service, challenge.scope))


def _token(data: bytes) -> tuple[str, float, str | None]:
    return _parse_token(data, "token server")


def _check_token(token: tuple[str, float, str | None]) -> None:
    text, life, refresh = token
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text
    assert life > 0
    assert refresh is None or (refresh.isascii() and refresh.isprintable())


_BASES = ("https://registry.example/v2/a/blobs/uploads/", "http://localhost:5000/v2/", "https://[::1]:5000/v2/?x=1")


def _follow(data: bytes) -> tuple[str, str]:
    draw = Draw(data)
    base = draw.one_of(_BASES)
    return base, follow(base, draw.rest().decode("latin-1"), subject="upload", secrets=[_SECRET])


def _check_followed(followed: tuple[str, str]) -> None:
    base, url = followed
    origin, parts = Origin.of(url), urlsplit(url)
    assert re.fullmatch(r"[\x21-\x7e]+", url)
    assert parts.username is None
    assert parts.password is None
    assert not parts.fragment
    assert origin.scheme in {"http", "https"}
    assert not (base.startswith("https:") and origin.scheme == "http")
    assert 0 < origin.port < 65536
    assert Origin.of(f"{origin}/") == origin
    assert parse_host(parts.netloc) == parts.netloc.lower()
    same_site(origin, Origin.of(base))
    assert same_site(origin, origin)
    assert shown(url).isprintable()


_REFERENCES = (
    *(b"oci:", b"sha256:", b"@sha256:", b"localhost:5000/", b"registry.example/", b"docker.io/", b"0" * 64, b"[::1]"),
    *(b"..", b"%2e%2e", b"\x00", b"\n", b"\xc2\x85", b"\xe2\x80\xae", b"CON", b"--", b".lock", b"sha256-", b"https://"),
)
_HEADERS = (
    *(b"Bearer ", b"Basic ", b'realm="', b'service="', b'scope="', b'299 - "', b'; rel="next"', b"<", b">", b"\\"),
    *(b"repository:a:pull,push", b"Wed, 21 Oct 2026 07:28:00 GMT", b"bytes 0-1/2", b"+9999", b"127.1", b"0x7f000001"),
    *(b'{"errors":[{"code":"X","message":"', b'{"token":"', b'"expires_in":', b"https://", b"//", b"[::1]", b"%00"),
    _SECRET.encode(),
)

TARGETS = (
    Target(
        name="reference",
        read=_reference,
        refuses=(UsageError,),
        check=_check_reference,
        modules=("reference", "names", "digest"),
        words=_REFERENCES,
        max_len=512,
    ),
    Target(
        name="path",
        read=_path,
        refuses=(DocumentError,),
        modules=("tar.names",),
        words=_REFERENCES,
        max_len=256,
    ),
    Target(
        name="headers",
        read=_headers,
        modules=("registry.auth", "registry.notices", "registry.pages", "registry.pace", "registry.failures"),
        words=_HEADERS,
    ),
    Target(
        name="token",
        read=_token,
        refuses=(RegistryError,),
        check=_check_token,
        modules=("registry.auth",),
        words=_HEADERS,
        max_len=1024,
    ),
    Target(
        name="location",
        read=_follow,
        refuses=(RegistryError,),
        check=_check_followed,
        modules=("registry.urls",),
        words=_HEADERS,
        max_len=512,
    ),
)
