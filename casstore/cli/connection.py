"""How to reach registries: the options for it, and the one opener of a run.

What is not given is left to RegistryOptions; the defaults in the help texts are its own, which a test compares.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from casstore import units
from casstore.cli.identity import credential_source
from casstore.cli.options import GroupedOption, gathered, read_as

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from casstore.cli.session import Session
    from casstore.content import Target
    from casstore.credentials import CredentialSource
    from casstore.reference import RegistryReference
    from casstore.registry import RegistryOptions
    from casstore.registry.pace import Pace

F = TypeVar("F", bound=Callable[..., object])

_HEADING = "Connection"
DEFAULTS: dict[str, float] = {"timeout": 60.0, "min_rate": 1024, "retries": 5}
"""As in RegistryOptions, which is slow to import; there `retries` are `attempts`, the first one included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The options of one run for every registry; None is what was not given."""

    plain_http: bool = False
    insecure: bool = False
    ca_bundle: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = None
    trust_realm: tuple[str, ...] = ()
    netrc: str | None = None
    timeout: float | None = None
    min_rate: int | None = None
    deadline: float | None = None
    retries: int | None = None
    limit_rate: int | None = None
    max_requests: float | None = None

    @property
    def for_https(self) -> tuple[str, ...]:
        """The options among those given that only make sense for https."""
        given = {
            "--insecure": self.insecure,
            "--ca-bundle": self.ca_bundle,
            "--client-cert": self.client_cert,
            "--client-key": self.client_key,
        }
        return tuple(name for name, value in given.items() if value)

    def for_http(self) -> Connection:
        """The same over http, without what only makes sense for https."""
        return replace(self, plain_http=True, insecure=False, ca_bundle=None, client_cert=None, client_key=None)


def refuse_for_http(plain: str, useless: Sequence[str]) -> None:
    """Raise UsageError where the option `plain`, for http, leaves the `useless` ones without a meaning."""
    if useless:
        raise click.UsageError(f"{plain}: http has no certificates; leave out {', '.join(useless)}")


def _option(name: str, **settings: Any) -> Callable[[F], F]:
    return click.option(name, cls=GroupedOption, heading=_HEADING, **settings)


def _rate_or_none(text: str) -> int:
    return 0 if text == "0" else units.parse_rate(text)


connection_options: Callable[[F], F] = gathered(
    Connection,
    "connection",
    _option("--plain-http", is_flag=True, help="Use http instead of https."),
    _option("--insecure", is_flag=True, help="Do not check the registry's certificate."),
    _option("--ca-bundle", metavar="FILE", help="PEM file of the CAs to trust instead of the usual ones."),
    _option("--client-cert", metavar="FILE", help="PEM file of the certificate to show to the registry."),
    _option("--client-key", metavar="FILE", help="PEM file of its key, if that is not in the same file."),
    _option("--proxy", metavar="URL|none", help="Proxy for all connections, instead of $HTTPS_PROXY and the like."),
    _option(
        "--trust-realm",
        multiple=True,
        metavar="HOST",
        help="A token server on another site that may have the registry's password; may be given several times.",
    ),
    _option("--netrc", metavar="FILE", help="Look for passwords in this netrc file as well."),
    _option(
        "--timeout",
        metavar="DURATION",
        callback=read_as(units.parse_duration),
        help=f"The longest silence of a registry, not the longest transfer.  [default: {DEFAULTS['timeout']:g}s]",
    ),
    _option(
        "--min-rate",
        metavar="SIZE/s",
        callback=read_as(_rate_or_none),
        help=f"Give up a blob that comes slower than this; 0 for never.  [default: {DEFAULTS['min_rate']}/s]",
    ),
    _option(
        "--deadline",
        metavar="DURATION",
        callback=read_as(units.parse_duration),
        help="Give up when everything together takes longer: 90s, 2h. Without it there is no end.",
    ),
    _option(
        "--retries",
        metavar="N",
        type=click.IntRange(0, 100),
        help=f"How often to repeat a request that failed for a reason that may pass.  [default: {DEFAULTS['retries']}]",
    ),
    _option(
        "--limit-rate",
        metavar="SIZE/s",
        callback=read_as(units.parse_rate),
        help="Move at most so much per second, all blobs together: 500k/s, 10MiB/s.",
    ),
    _option(
        "--max-requests",
        metavar="N/s",
        callback=read_as(units.parse_frequency),
        help="Make at most so many requests to a registry: 5/s, 100/m.",
    ),
)
"""How to reach registries: gives the function a Connection as `connection`."""


def registry_options(
    session: Session, connection: Connection, *, on_warning: Callable[[str], object] | None = None
) -> RegistryOptions:
    """The options as the library wants them; what was not given is as the environment says, else as the library does.

    Raises:
        UsageError: options that do not go together, files that are not there.
    """
    from casstore.registry import RegistryOptions  # oras and requests: slow

    settings = session.settings
    if connection.plain_http:
        refuse_for_http("--plain-http", connection.for_https)
    proxy = settings.http_proxy if connection.plain_http else settings.https_proxy
    no_proxy = settings.no_proxy
    if connection.proxy is not None:
        proxy, no_proxy = (None if connection.proxy == "none" else connection.proxy), ()
    given: dict[str, Any] = {
        "client_certificate": connection.client_cert,
        "client_key": connection.client_key,
        "read_timeout": connection.timeout,
        "min_rate": connection.min_rate,
        "deadline": connection.deadline,
        "attempts": None if connection.retries is None else connection.retries + 1,
        "limit_rate": connection.limit_rate,
        "max_requests": connection.max_requests,
        "ca_bundle": connection.ca_bundle or (None if connection.plain_http else settings.ca_bundle),
    }
    return RegistryOptions(
        plain_http=connection.plain_http,
        insecure=connection.insecure,
        trusted_realms=connection.trust_realm,
        proxy=proxy,
        no_proxy=no_proxy,
        on_warning=on_warning,
        **{name: value for name, value in given.items() if value is not None},
    )


class Registries:
    """Opens the registries of one run: all repositories of a host share its pace, and all hosts the credentials.

    `plain_http` and `insecure` are hosts for which these options hold besides; of the former, what is for https does
    not hold. `mount_from` are repositories that may have what is to be pushed. A warning that a registry sends is said
    once.
    """

    def __init__(
        self,
        session: Session,
        connection: Connection,
        *,
        plain_http: Collection[str] = (),
        insecure: Collection[str] = (),
        mount_from: Sequence[str] = (),
    ) -> None:
        self._session, self._connection = session, connection
        self._plain_http, self._insecure, self._mount_from = plain_http, insecure, tuple(mount_from)
        self._paces: dict[str, Pace] = {}
        self._credentials: CredentialSource | None = None
        self._told: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, reference: RegistryReference) -> AbstractContextManager[Target]:
        """A repository."""
        from casstore.registry import RegistryTarget
        from casstore.registry.pace import Pace

        host = reference.host
        connection = self._connection
        if host in self._plain_http:
            connection = connection.for_http()
        elif host in self._insecure:
            connection = replace(connection, insecure=True)
        options = registry_options(self._session, connection, on_warning=lambda text: self._warn(f"{host}: {text}"))
        pace = self._paces.setdefault(host, Pace.of(options))
        if self._credentials is None:
            settings = self._session.settings
            self._credentials = credential_source(replace(settings, netrc=connection.netrc or settings.netrc))
        return RegistryTarget(reference, options, self._credentials, pace=pace, mount_from=self._mount_from)

    def _warn(self, text: str) -> None:
        with self._lock:
            known = text in self._told
            self._told.add(text)
        if not known:
            self._session.warn(text)
