"""Where a snapshot lives elsewhere: in a registry, or in an OCI layout directory.

    host[:port]/repository[:tag][@sha256:...]      a registry (distribution-spec v1.1.1, "Pulling manifests")
    oci:DIR[:tag][@sha256:...]                     an OCI image layout (or a casstore store) in directory DIR

The first component is a host when it has a '.' or ':' or is `localhost`; there is no default registry, so a reference
means the same on every machine. docker.io is the one alias: its API lives on registry-1.docker.io, and a one-word
repository there is under `library/`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address

from casstore.digest import Digest
from casstore.errors import InvalidDigest, InvalidReference

_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\Z", re.ASCII
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z", re.ASCII)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[([0-9A-Fa-f:.]{{2,45}})\])(?::([1-9][0-9]{{0,4}}))?\Z", re.ASCII)
_MAX_NAME = 255
_FORM = "expected host[:port]/repository[:tag][@sha256:...] or oci:DIR[:tag][@sha256:...]"


@dataclass(frozen=True, slots=True)
class RegistryReference:
    """A repository in a registry, and what in it: a tag, a digest, both (the digest decides) or neither."""

    host: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """`host/repository`, without tag and digest."""
        return f"{self.host}/{self.repository}"

    def __str__(self) -> str:
        return self.name + _suffix(self.tag, self.digest)


@dataclass(frozen=True, slots=True)
class LayoutReference:
    """An OCI layout directory, and what in it: a tag, a digest, both (the digest decides) or neither."""

    path: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """`oci:DIR`, without tag and digest."""
        return f"oci:{self.path}"

    def __str__(self) -> str:
        return self.name + _suffix(self.tag, self.digest)


Reference = RegistryReference | LayoutReference


def _suffix(tag: str | None, digest: Digest | None) -> str:
    return (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def _shown(text: str) -> str:
    """A reference as a literal, for an error text; what may be `user:password@` is left out."""
    plain = text if text.startswith("oci:") else re.sub(r".*@(?!sha256:)", "...@", text, flags=re.DOTALL)
    return ascii(plain[:200])


def _refuse_scheme(text: str, problem: str) -> None:
    """Raise InvalidReference for a URL; the rest of it, which may hold a password, is not shown."""
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://", text, re.ASCII)
    if scheme is not None and scheme[0] != "oci://":
        raise InvalidReference(f"{problem}, got a URL; leave out {scheme[0]}")


def parse_host(text: str) -> str:
    """Check `host[:port]`; the host is a DNS name or a bracketed IPv6 or plain IPv4 address.

    Raises:
        InvalidReference: anything else, or a port outside 1 to 65535.
    """
    match = _HOST.match(text)
    if match is not None and 1 <= int(match[2] or 1) <= 65535:
        with suppress(AddressValueError):
            IPv6Address(match[1] or "::1")
            return text.lower()
    _refuse_scheme(text, "registry: expected host or host:port")
    raise InvalidReference(f"registry {_shown(text)}: expected host or host:port")


def parse_reference(text: str) -> Reference:
    """Parse a registry or layout reference.

    Raises:
        InvalidReference: outside the grammar; the text says which part.
    """
    if re.match(r"(?!oci:).*@.*/", text, re.DOTALL):  # user:password@host/...
        raise InvalidReference(f"reference: expected no user name or password in it; use casstore login. {_FORM}")
    _refuse_scheme(text, f"reference: {_FORM}")
    rest, digest = text, None
    if "@" in text:
        rest, _, tail = text.rpartition("@")
        if tail.startswith("sha256:") or not text.startswith("oci:"):
            try:
                digest = Digest.parse(tail, subject=f"reference {_shown(text)}")
            except InvalidDigest as error:
                raise InvalidReference(str(error)) from None
        else:
            rest = text
    if rest.startswith("oci:"):
        return _parse_layout(text, rest.removeprefix("oci:"), digest)
    return _parse_registry(text, rest, digest)


def parse_repository(text: str) -> RegistryReference:
    """Parse `host[:port]/repository`: a reference to nothing in it.

    Raises:
        InvalidReference: anything else.
    """
    try:
        found = parse_reference(text)
    except InvalidReference:
        found = None
    if not isinstance(found, RegistryReference) or found.tag is not None or found.digest is not None:
        raise InvalidReference(f"repository {_shown(text)}: expected HOST[:PORT]/REPOSITORY, without tag or digest")
    return found


def _parse_layout(text: str, rest: str, digest: Digest | None) -> LayoutReference:
    head, colon, tail = rest.rpartition(":")
    path, tag = (head, tail) if colon and "/" not in tail else (rest, None)
    if not path or "\0" in path:
        raise InvalidReference(f"reference {_shown(text)}: the directory is empty or has a NUL; {_FORM}")
    return LayoutReference(path, None if tag is None else parse_tag(tag), digest)


def _parse_registry(text: str, rest: str, digest: Digest | None) -> RegistryReference:
    host, slash, repository = rest.partition("/")
    if not slash and ("." in host or ":" in host or host == "localhost"):
        raise InvalidReference(f"reference {_shown(text)}: no repository in it; {_FORM}")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        raise InvalidReference(f"reference {_shown(text)}: no registry host in it; {_FORM}")
    host = parse_host(host)
    repository, colon, tag = repository.partition(":")
    if host == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    if not _REPOSITORY.match(repository) or len(host) + 1 + len(repository) > _MAX_NAME:
        raise InvalidReference(
            f"reference {_shown(text)}: expected a repository of lower-case letters, digits and single"
            f" separators, at most {_MAX_NAME} characters with the host, got {ascii(repository[:200])}"
        )
    return RegistryReference(host, repository, parse_tag(tag) if colon else None, digest)


def parse_tag(text: str) -> str:
    """Check a registry tag.

    Raises:
        InvalidReference: outside `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`.
    """
    if not _TAG.match(text):
        raise InvalidReference(f"tag {ascii(text[:140])}: expected 1 to 128 letters, digits, '.', '_', '-'")
    return text
