"""One exchange on the wire: a request as it is meant, and an answer of any status, or `Broken`.

requests is kept from adding anything of its own: no environment, cookies, decoding or redirects.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Protocol

import requests
import urllib3

from casstore.errors import Unavailable
from casstore.registry.failures import PROXY_REFUSAL, Trouble, broken
from casstore.registry.options import RegistryOptions
from casstore.registry.urls import Origin
from casstore.registry.wire import Line

_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})


class SendBody(Protocol):
    """What requests sends with a Content-Length: it has a length and is read."""

    def __len__(self) -> int: ...

    def read(self, size: int = -1, /) -> bytes: ...


OpenBody = Callable[[], AbstractContextManager[SendBody]]


class SourceFailed(Exception):
    """The body to send could not be read; `error` says why. Not an OSError, which urllib3 would take for its own."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error: Exception = error


class Broken(Exception):
    """An exchange brought no whole answer. Ends within this module."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(str(trouble.error))
        self.trouble: Trouble = trouble


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, wherever it may be sent to. `expect`: statuses that are an answer, and no error of the registry."""

    method: str
    subject: str
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes | OpenBody | None = None
    expect: Collection[int] = ()
    retry: bool = True

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent twice: what has the same effect then (RFC 9110), and a POST without a body, which
        opens an upload; one that was opened in vain is forgotten by the registry.
        """
        return self.retry and (self.method in _REPEATABLE or (self.method == "POST" and not self.data))

    @property
    def expected(self) -> str:
        """The successes among them; refusals are expected only by whoever can go on after them."""
        return " or ".join(str(status) for status in self.expect if status < 400) or "an answer"


class _Session(requests.Session):
    """A session that adds nothing of its own."""

    def __init__(self, user_agent: str, line: Line) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers: MutableMapping[str, str | bytes] = requests.structures.CaseInsensitiveDict(
            {"User-Agent": user_agent, "Accept-Encoding": "identity", "Accept": "*/*"}
        )
        for scheme in ("https://", "http://"):
            self.mount(scheme, line.adapter())

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: even with allow_redirects=False, requests reads and decodes all of a redirect's body to look ahead."""


class Exchange:
    """Makes exchanges for one client. Thread-safe."""

    def __init__(self, home: Origin, options: RegistryOptions, line: Line) -> None:
        self._home, self._options, self._patience = home, options, line.patience
        self.session: requests.Session = _Session(options.user_agent, line)
        if options.insecure:
            # urllib3 would warn at every request of what was asked for; other hosts keep their warning.
            warnings.filterwarnings(
                "ignore", f".*host '{re.escape(home.host)}'", category=urllib3.exceptions.InsecureRequestWarning
            )

    def once(self, ask: Ask, url: str, authorization: str | None) -> requests.Response:
        """One exchange on the wire.

        Raises:
            Broken: no answer.
            Anything that the body to send raises.
        """
        options, origin = self._options, Origin.of(url)
        own = origin == self._home
        proxy = options.proxy_for(origin.host)
        certificate: str | tuple[str, str] | None = options.client_certificate
        if options.client_certificate and options.client_key:
            certificate = (options.client_certificate, options.client_key)
        with ask.data() if callable(ask.data) else nullcontext(ask.data) as body:
            try:
                response = self.session.request(
                    ask.method,
                    url,
                    data=body,
                    headers={**ask.headers, **({"Authorization": authorization} if authorization else {})},
                    stream=True,
                    allow_redirects=False,
                    timeout=(options.connect_timeout, options.read_timeout),
                    verify=False if options.insecure and own else options.ca_bundle or True,
                    cert=certificate if own else None,
                    proxies={"http": proxy, "https": proxy} if proxy else None,
                )
            except SourceFailed as failed:
                raise failed.error from None
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                self._patience.check(ask.subject)
                raise Broken(broken(ask.subject, error)) from None
        if proxy and response.status_code == 407:
            response.close()
            raise Broken(Trouble(Unavailable(f"{ask.subject}: {PROXY_REFUSAL}"), passing=False, unreachable=False))
        return response
