"""Absolute HTTP URLs as registries hand them out (Location, redirect, token realm), and whom they belong to.

Such a URL is input of another machine: it decides where bytes and secrets go next. `follow` is the only way in.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from casstore.errors import InvalidReference, RegistryError
from casstore.reference import parse_host
from casstore.registry.failures import quoted, scrub

_VISIBLE = re.compile(r"[\x21-\x7e]+\Z")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, lower-case host and port: what credentials are bound to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of a URL that `follow` or the caller's own code made."""
        parts = urlsplit(url)
        return cls(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme])

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


def follow(url: str, target: str | None, *, subject: str, secrets: Iterable[str] = ()) -> str:
    """Where `target`, given in the answer to `url`, leads: an absolute URL without fragment.

    `secrets` are kept out of error texts, since `target` may quote them.

    Raises:
        RegistryError: no target; other characters than visible ASCII (so no CR, LF or space), a backslash, a user or
            password in it; not http or https; https left for http; a host or port outside their grammar.
    """
    if not target:
        raise RegistryError(f"{subject}: expected a Location in the answer, got none")
    if not _VISIBLE.match(target) or "\\" in target:
        raise RegistryError(f"{subject}: expected a URL, got {quoted(target, secrets)}")
    try:
        absolute = urljoin(url, target)
        parts = urlsplit(absolute)
    except ValueError:
        raise RegistryError(f"{subject}: expected a URL, got {quoted(target, secrets)}") from None
    if parts.scheme not in _PORTS:
        raise RegistryError(f"{subject}: expected an http or https URL, got {shown(absolute, secrets)}")
    if parts.scheme == "http" and Origin.of(url).scheme == "https":
        where = shown(absolute, secrets)
        raise RegistryError(f"{subject}: expected https as before, got {where}; check the registry's proxy")
    with suppress(InvalidReference):  # and with it its text, which may quote a password
        parse_host(parts.netloc)
        return absolute.partition("#")[0]
    raise RegistryError(f"{subject}: expected a URL with a plain host, got {shown(absolute, secrets)}")


def shown(url: str, secrets: Iterable[str] = ()) -> str:
    """A URL for people: without query and user, which may hold secrets, without those that are known, and short."""
    plain = scrub(re.sub(r"//.*@", "//...@", url.partition("?")[0].partition("#")[0]), secrets)
    return ascii(plain[:120])[1:-1]


def same_site(realm: Origin, registry: Origin) -> bool:
    """Whether the registry's password may go to a token realm.

    The same origin always; otherwise both must be https and DNS names that end in the same registered domain: the last
    two labels (auth.docker.io and registry-1.docker.io), three where those look like a public suffix (co.uk). IP
    addresses and one-label hosts have no such domain, so there another port is another site.
    """
    if realm == registry:
        return True
    if realm.scheme != "https" or registry.scheme != "https":
        return False
    domain = _domain(registry.host)
    return domain is not None and domain == _domain(realm.host)


def is_address(host: str) -> bool:
    """Whether a host is an IP address, not a name: also one that only resolvers take for one (127.1, 0x7f000001)."""
    for parse in (ipaddress.ip_address, socket.inet_aton):
        with suppress(ValueError, OSError):
            parse(host)
            return True
    return False


def is_local(host: str) -> bool:
    """Whether a host is an address of this machine or of its link only (cloud metadata is there), or localhost."""
    host = host.partition("%")[0].strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host))  # 127.1, 0x7f000001
        except (OSError, ValueError):  # a NUL is a ValueError
            return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_link_local or address.is_unspecified


def _domain(host: str) -> tuple[str, ...] | None:
    labels = host.split(".")
    if is_address(host) or len(labels) < 2:
        return None
    public = len(labels[-1]) == 2 and len(labels[-2]) <= 3
    count = 3 if public else 2
    return tuple(labels[-count:]) if len(labels) >= count else None
