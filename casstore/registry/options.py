"""How to reach a registry, as a value. Nothing here comes from the environment."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from casstore import __version__
from casstore.errors import InvalidReference, UsageError
from casstore.reference import parse_host


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """How to reach a registry. Times in seconds, rates in bytes per second.

    Raises:
        UsageError: files that are not there, a proxy that is no URL, numbers that make no sense.
    """

    plain_http: bool = False
    """http instead of https."""
    insecure: bool = False
    """Do not check the registry's own certificate; other hosts' (token servers, storage behind redirects) still are."""
    ca_bundle: str | None = None
    """PEM file of the CAs to trust instead of the usual ones."""
    client_certificate: str | None = None
    """PEM file of the certificate to show to the registry, and to no other host."""
    client_key: str | None = None
    """PEM file of its key; None where the certificate's file holds it."""
    trusted_realms: tuple[str, ...] = ()
    """`host[:port]` of token servers on other sites that may have the password for the registry."""
    proxy: str | None = field(default=None, repr=False)
    """URL of the proxy for every connection, maybe with a user and password for it."""
    no_proxy: tuple[str, ...] = ()
    """Hosts to reach without it: a name stands for itself and all names below it, `*` for all."""
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    """The longest silence, the longest wait for a whole answer's header, and the span of `min_rate`."""
    min_rate: int = 1024
    """A body that is slower, over `read_timeout` seconds of waiting for it, is given up."""
    deadline: float | None = None
    """For everything that is done with one target."""
    attempts: int = 6
    """How often the same request is made at most, the first time included."""
    backoff: float = 0.5
    """The longest wait before the second attempt; it doubles from one to the next."""
    limit_rate: int | None = None
    """For all bodies together, both ways."""
    max_requests: float | None = None
    """Requests per second."""
    user_agent: str = f"casstore/{__version__}"
    on_warning: Callable[[str], object] | None = field(default=None, repr=False, compare=False)
    """Called with each new warning of the registry, and before long waits for it; visible ASCII, from any thread."""

    def __post_init__(self) -> None:
        for what, path in (
            ("CA bundle", self.ca_bundle),
            ("client certificate", self.client_certificate),
            ("client key", self.client_key),
        ):
            if path is not None and not os.path.exists(path):
                raise UsageError(f"{what} {path}: expected a PEM file, found nothing there")
        if self.ca_bundle is not None and os.path.isfile(self.ca_bundle):
            _check_bundle(self.ca_bundle)
        if self.client_key is not None and self.client_certificate is None:
            raise UsageError("client key: expected a client certificate with it, got none")
        if self.proxy is not None:
            _check_proxy(self.proxy)
        positive = ("connect_timeout", "read_timeout", "deadline", "attempts", "limit_rate", "max_requests")
        for name, value in [(name, getattr(self, name)) for name in positive]:
            if value is not None and not value > 0:
                raise UsageError(f"{name}: expected more than 0, got {value}")

    def proxy_for(self, host: str) -> str | None:
        """The URL of the proxy through which a host (without port) is reached; None for none."""
        names = [name.lower().lstrip(".") for name in self.no_proxy]
        spared = any(name in {"*", host} or host.endswith(f".{name}") for name in names)
        return None if spared else self.proxy


def _check_proxy(proxy: str) -> None:
    """Says nothing of the URL: it may hold a password."""
    problem = "proxy: expected http://[USER:PASSWORD@]HOST[:PORT], got another URL"
    try:
        parts = urlsplit(proxy)
        parse_host(parts.netloc.rpartition("@")[2])
    except (ValueError, InvalidReference):
        raise UsageError(problem) from None
    if parts.scheme not in {"http", "https"} or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise UsageError(problem)


def _check_bundle(path: str) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"CA bundle {path}: expected a PEM file of certificates, got another: {error}") from None
