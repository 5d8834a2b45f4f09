"""The environment and the home directory, turned into values: nothing else in casstore reads them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from casstore.spec import POLICY_FILENAME

_CREDENTIALS = frozenset(
    {"CASSTORE_REGISTRY", "CASSTORE_USERNAME", "CASSTORE_PASSWORD", "CASSTORE_TOKEN", "CASSTORE_PASSPHRASE"}
)
"""What no other program gets to see."""


def prepare() -> None:
    """What has to be set before anything else is imported."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's algebra is not used; its threads take 40 ms to start
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what a locale cannot say is escaped, as stderr does anyway


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are, and what may be shown how."""

    store: str
    """The store's directory: --store, else $CASSTORE_STORE, else ~/.casstore."""
    microsandbox_home: str
    """Where microsandbox keeps its sandboxes and snapshots: $MSB_HOME, else ~/.microsandbox."""
    auth_files: tuple[str, ...]
    """The files of passwords, in the order in which they are asked: $REGISTRY_AUTH_FILE or else Podman's
    $XDG_RUNTIME_DIR/containers/auth.json, then Docker's: $DOCKER_CONFIG/config.json or ~/.docker/config.json."""
    login_file: str
    """Where login keeps passwords: $REGISTRY_AUTH_FILE, else Docker's file."""
    netrc: str | None
    """$CASSTORE_NETRC: a netrc file to ask last."""
    ci_registry: str
    """$CASSTORE_REGISTRY: HOST[/PATH], the only place that gets the three that follow."""
    ci_username: str
    """$CASSTORE_USERNAME."""
    ci_password: str = field(repr=False)
    """$CASSTORE_PASSWORD."""
    ci_token: str = field(repr=False)
    """$CASSTORE_TOKEN: a bearer token for the registry itself."""
    policy: str | None
    """$CASSTORE_POLICY: a file that says whose signatures what must have."""
    passphrase: str | None = field(repr=False)
    """$CASSTORE_PASSPHRASE: of private keys."""
    search_path: str = field(repr=False)
    """$PATH, where credential helpers are found."""
    helper_environment: Mapping[str, str] = field(repr=False)
    """The environment of credential helpers: all but casstore's own credentials."""
    http_proxy: str | None = field(repr=False)
    """For registries over http: $http_proxy, else $HTTP_PROXY, $all_proxy or $ALL_PROXY; may hold a password."""
    https_proxy: str | None = field(repr=False)
    """For registries over https: $https_proxy, else $HTTPS_PROXY, $all_proxy or $ALL_PROXY; may hold a password."""
    no_proxy: tuple[str, ...]
    """Hosts that are reached without a proxy: $no_proxy, else $NO_PROXY."""
    ca_bundle: str | None
    """The CAs to trust: $SSL_CERT_FILE, else $REQUESTS_CA_BUNDLE."""
    color: bool
    """Whether colours are welcome where there is a terminal: $NO_COLOR is not set."""
    dumb_terminal: bool
    """$TERM says that the cursor stays where it is."""
    stdin_is_terminal: bool
    stdout_is_terminal: bool
    stderr_is_terminal: bool

    @classmethod
    def read(cls, *, store: str | None = None, environ: Mapping[str, str] | None = None) -> Self:
        """From the environment (or `environ`) and the standard streams; an empty variable counts as one not set."""
        known = os.environ if environ is None else environ

        def first(*names: str) -> str:
            return next(filter(None, map(known.get, names)), "")

        docker = os.path.join(expand_home(known.get("DOCKER_CONFIG") or "~/.docker"), "config.json")
        own = expand_home(first("REGISTRY_AUTH_FILE"))
        runtime = first("XDG_RUNTIME_DIR")
        podman = os.path.join(runtime, "containers", "auth.json") if runtime else ""
        dumb = known.get("TERM", "").lower() in {"dumb", "unknown"}
        # A web server hands the request header "Proxy:" to its CGI programs as HTTP_PROXY: anybody could set it.
        http_names = ("http_proxy",) if "REQUEST_METHOD" in known else ("http_proxy", "HTTP_PROXY")
        return cls(
            store=expand_home(store or known.get("CASSTORE_STORE") or "~/.casstore"),
            microsandbox_home=expand_home(known.get("MSB_HOME") or "~/.microsandbox"),
            auth_files=tuple(filter(None, (own or podman, docker))),
            login_file=own or docker,
            netrc=expand_home(first("CASSTORE_NETRC")) or None,
            ci_registry=first("CASSTORE_REGISTRY"),
            ci_username=first("CASSTORE_USERNAME"),
            ci_password=first("CASSTORE_PASSWORD"),
            ci_token=first("CASSTORE_TOKEN"),
            policy=expand_home(first("CASSTORE_POLICY")) or None,
            passphrase=first("CASSTORE_PASSPHRASE") or None,
            search_path=first("PATH"),
            helper_environment={name: text for name, text in known.items() if name not in _CREDENTIALS},
            http_proxy=_proxy(first(*http_names, "all_proxy", "ALL_PROXY")),
            https_proxy=_proxy(first("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")),
            no_proxy=tuple(filter(None, map(str.strip, first("no_proxy", "NO_PROXY").split(",")))),
            ca_bundle=first("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") or None,
            color=not known.get("NO_COLOR") and not dumb,
            dumb_terminal=dumb,
            stdin_is_terminal=_is_terminal(sys.stdin),
            stdout_is_terminal=_is_terminal(sys.stdout),
            stderr_is_terminal=_is_terminal(sys.stderr),
        )


def policy_path(named: str | None, *stores: str) -> str | None:
    """The trust policy that counts: the one that is `named`, else that of the first store which has one.

    One that is named and not there still is the one that counts: to go without it would be to trust everybody.
    """
    if named is not None:
        return named
    paths = (os.path.join(store, POLICY_FILENAME) for store in stores)
    return next((path for path in paths if os.path.lexists(path)), None)


def expand_home(path: str) -> str:
    """`path` with a leading `~` or `~user` replaced, for where no shell has done so."""
    return os.path.expanduser(path)


def _proxy(text: str) -> str | None:
    """A proxy's URL; the scheme may be left out, as curl lets one do."""
    return (text if "://" in text else f"http://{text}") if text else None


def _is_terminal(stream: object) -> bool:
    # A stream is None when its descriptor was closed before the start.
    isatty = getattr(stream, "isatty", None)
    return isatty is not None and bool(isatty())
