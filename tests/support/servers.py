"""Real servers for tests: docker-registry on a free loopback port, its data in a folder of its own.

    with registry(tmp_path) as server:                         # anyone may read, write and delete
    with registry(tmp_path, auth="htpasswd", tls=Authority()) as server:
    with registry(tmp_path, auth="token") as server:           # tokens from a TokenServer in this process
        RegistryTarget(server.reference("some/repository"), server.options, server.credentials)

`server.credentials` knows the one user, USER with PASSWORD. A registry that does not come up fails with its log.
"""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from casstore.credentials import Anonymous, Credentials, CredentialSource, HostCredentials
from casstore.reference import RegistryReference
from casstore.registry import RegistryOptions
from tests.support.certificates import Authority
from tests.support.needs import find_program

USER, PASSWORD = "alice", "correct horse"
# bcrypt (cost 5) of PASSWORD: the one form that docker-registry takes, and Python's standard library cannot make
_HTPASSWD = f"{USER}:$2b$05$gjNMG.GMEgxxHg6PkXACUe6AvMXGm5qV6PAnlSBp.4XLz3/sqxqui\n"
_STARTUP = 20.0
"""Seconds that a registry may take to answer."""

Auth = Literal["none", "htpasswd", "token"]


@dataclass(frozen=True)
class RunningRegistry:
    """A registry that answers."""

    host: str
    options: RegistryOptions
    credentials: CredentialSource
    token_server: TokenServer | None = None

    def reference(self, repository: str, *, tag: str | None = None) -> RegistryReference:
        """A reference into it."""
        return RegistryReference(self.host, repository, tag)


@contextmanager
def registry(
    folder: Path, *, auth: Auth = "none", tls: Authority | None = None, deletes: bool = True, names: Sequence[str] = ()
) -> Iterator[RunningRegistry]:
    """A docker-registry that runs until the end of the block; `folder` holds its data, configuration and log. Its
    certificate is also good for `names`.
    """
    with ExitStack() as stack:
        token_server = stack.enter_context(TokenServer.running()) if auth == "token" else None
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": deletes}},
            "http": {"secret": secrets.token_hex()},
        }
        options = RegistryOptions(plain_http=tls is None)
        if tls is not None:
            certificate, key = tls.issue("127.0.0.1", "localhost", *names, folder=folder)
            config["http"]["tls"] = {"certificate": str(certificate), "key": str(key)}
            options = RegistryOptions(ca_bundle=str(tls.write_bundle(folder / "ca.crt")))
        if auth == "htpasswd":
            (folder / "htpasswd").write_text(_HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "Registry Realm", "path": str(folder / "htpasswd")}}
        if token_server is not None:
            config["auth"] = {"token": token_server.registry_config(folder)}
        port = stack.enter_context(_serving(config, folder))
        host = f"127.0.0.1:{port}"
        known = HostCredentials(host, Credentials(USER, PASSWORD))
        yield RunningRegistry(host, options, Anonymous() if auth == "none" else known, token_server)


@contextmanager
def _serving(config: dict[str, Any], folder: Path) -> Iterator[int]:
    program = find_program("docker-registry")
    assert program is not None, "docker-registry is not installed; mark the test with needs('docker-registry')"
    log = folder / "log"
    for _ in range(3):  # a free port may be taken by somebody else before the registry has it
        port = free_port()
        config["http"]["addr"] = f"127.0.0.1:{port}"
        (folder / "config.json").write_text(json.dumps(config))  # JSON is YAML
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [program, "serve", str(folder / "config.json")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
            ) as process,
        ):
            try:
                if _answers(process, port, tls="tls" in config["http"]):
                    yield port
                    return
            finally:
                process.send_signal(signal.SIGKILL)
    raise RuntimeError(f"docker-registry did not start:\n{log.read_text(errors='replace')[-4000:]}")


def _answers(process: subprocess.Popen[bytes], port: int, *, tls: bool) -> bool:
    """Wait for any HTTP answer; False once the process has ended or `_STARTUP` has passed."""
    deadline = time.monotonic() + _STARTUP
    while process.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
        try:
            connection.request("GET", "/v2/")
            connection.getresponse().read()
            return True
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
        finally:
            connection.close()
    return False


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class TokenRequest:
    """What a client asked a TokenServer."""

    query: dict[str, list[str]]
    authorization: str | None


@dataclass
class TokenServer:
    """A token server (distribution's token specification): signs what is asked for, with ES256 and an x5c header.

    It asks nobody for a password. `requests` tells what clients sent; `life` is the seconds that a token is good for,
    `claimed_life` what clients are told instead.
    """

    url: str
    authority: Authority = field(default_factory=lambda: Authority("casstore test tokens"))
    requests: list[TokenRequest] = field(default_factory=list)
    life: int = 300
    claimed_life: int | None = None

    ISSUER = "casstore tests"
    SERVICE = "docker-registry"

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[TokenServer]:
        """A token server on a free loopback port."""
        with ThreadingHTTPServer(("127.0.0.1", 0), _TokenHandler) as httpd:
            server = cls(f"http://127.0.0.1:{httpd.server_port}/token")
            httpd.daemon_threads = True
            setattr(httpd, "token_server", server)  # noqa: B010  (a handler sees nothing else)
            thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield server
            finally:
                httpd.shutdown()
                thread.join()

    def registry_config(self, folder: Path) -> dict[str, Any]:
        """The `auth.token` section of a docker-registry that trusts this server."""
        bundle = self.authority.write_bundle(folder / "tokens.crt")
        return {"realm": self.url, "service": self.SERVICE, "issuer": self.ISSUER, "rootcertbundle": str(bundle)}

    def answer(self, query: dict[str, list[str]]) -> dict[str, Any]:
        """The JSON for a token request."""
        access = []
        for scope in query.get("scope", []):
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        claims = {
            "iss": self.ISSUER,
            "sub": "",
            "aud": self.SERVICE,
            "iat": now,
            "nbf": now - 10,
            "exp": now + self.life,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        told = self.life if self.claimed_life is None else self.claimed_life
        return {"token": self._sign(claims), "expires_in": told}

    def _sign(self, claims: dict[str, Any]) -> str:
        certificate = self.authority.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(certificate).decode()]}
        text = f"{_base64url(json.dumps(header).encode())}.{_base64url(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self.authority.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_base64url(r.to_bytes(32) + s.to_bytes(32))}"


class _TokenHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: TokenServer = self.server.token_server  # type: ignore[attr-defined]  # set in `running`
        query = parse_qs(urlsplit(self.path).query)
        server.requests.append(TokenRequest(query, self.headers.get("Authorization")))
        body = json.dumps(server.answer(query)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
