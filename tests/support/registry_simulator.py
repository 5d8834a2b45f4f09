"""A registry in this process, on a real socket: what casstore uses of distribution-spec v1.1.1, and faults on request.

    with RegistrySimulator(auth="bearer") as registry:
        target = RegistryTarget(registry.reference("a/b"), registry.options, registry.credentials)
        registry.faults.cut = 100                     # from now on, every body breaks after 100 bytes
        ...
        assert "authorization" not in registry.requests[-1].headers

It behaves like docker-registry 2.8.2 where the specification leaves a choice: 401 for a token of too little scope, 400
for a manifest whose blobs are missing or that is too large, and an opaque `_state` in upload locations. USER with
PASSWORD, IDENTITY_TOKEN (OAuth2) and REGISTRY_TOKEN (as it is) may do everything; others may do everything
(auth="none"), nothing ("basic"), or pull ("bearer").
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from casstore import spec
from casstore.credentials import Anonymous, Credentials, CredentialSource, HostCredentials
from casstore.digest import Digest
from casstore.reference import RegistryReference
from casstore.registry import MANIFEST_TYPES, RegistryOptions
from tests.support.simulator_lists import ListFaults, ListsMixin
from tests.support.simulator_uploads import UploadFaults, UploadsMixin

USER, PASSWORD = "alice", "canary-pass/word"
IDENTITY_TOKEN = "canary-identity/token+1"
REGISTRY_TOKEN = "canary-registry-token"


@dataclass
class Faults(UploadFaults, ListFaults):
    """What the registry does wrong; nothing by default. May be changed at any time."""

    # the body of GETs of blobs and manifests
    body: bytes | None = None
    """Sent instead of the content; the headers stay those of the content, except for Content-Length."""
    cut: int | None = None
    """The connection closes after so many bytes of it."""
    extra: bytes = b""
    """Sent after it."""
    length: str | None = None
    """Content-Length says this; "" leaves the header out, and the connection closes at the end."""
    chunked: bool = False
    """It goes in chunks; with `cut`, the last ones are missing."""
    digest: str | None = None
    """Docker-Content-Digest says this; "" leaves the header out. Also on PUT."""
    encoding: str | None = None
    """Content-Encoding says this (the bytes stay what they are; see `body`)."""
    media_type: str | None = None
    """Content-Type says this."""
    cuts: list[int] = field(default_factory=list)
    """`cut` for the next bodies, one after the other."""
    ranges: bool = True
    """Range is honoured, in GETs of blobs."""
    content_range: str | None = None
    """Content-Range says this; "" leaves the header out."""
    part: slice | None = None
    """What a 206 holds of the content, whatever was asked for."""
    etag: str | None = None
    """ETag says this; "" leaves the header out."""
    drip: tuple[int, float] | None = None
    """It goes in pieces of so many bytes, each after so many seconds."""
    redirect: str | None = None
    """GET and HEAD are redirected there; `{path}` in it stands for the path asked for."""
    blob_redirect: str | None = None
    """The same for GETs of blobs, which a registry may leave to another host."""
    retag: str | None = None
    """After the next GET by tag, that tag stands for this digest."""

    # everything else
    head_length: str | None = None
    """Content-Length of HEADs."""
    head_digest: str | None = None
    """Docker-Content-Digest of HEADs of manifests; "" leaves the header out."""
    phantoms: bool = False
    """HEAD finds every blob; its size is `head_length`."""
    status: int | None = None
    """Every request is answered so, with `error` as the body and `error_headers`."""
    times: int | None = None
    """`status` is for so many more requests only."""
    resets: int = 0
    """So many more requests are not answered, but their connection reset."""
    header_drip: float | None = None
    """Headers go byte by byte, each after so many seconds."""
    warnings: tuple[str, ...] = ()
    """Warning headers of every answer."""
    clock: float = 0.0
    """Seconds by which Date is ahead."""
    error: bytes = b""
    error_headers: dict[str, str] = field(default_factory=dict)
    refusals: int = 0
    """So many more requests with an Authorization are answered 401, as if the token had expired."""
    location: str | None = None
    """Location of an upload; `{path}` in it stands for the right one. "" leaves the header out."""
    commit: int = 201
    """The status of a PUT that stores."""
    challenge: str | None = None
    """WWW-Authenticate."""
    token: bytes | None = None
    """The body of every answer of the token server."""
    life: int = 300
    """`expires_in` of tokens, in seconds; they are good for ever."""
    uses: int | None = None
    """A token is good for so many requests."""
    oauth: int | None = None
    """The status of every POST to the token server."""
    rotate: bool = False
    """Every POST to the token server ends the identity token, and brings the next one."""
    demand: str | None = None
    """The actions that every request needs, whatever its method, and that the challenge names."""
    echo: bool = False
    """Refusals repeat what was sent: the Authorization header, what is in it, the form."""


@dataclass(frozen=True)
class Seen:
    """A request that came in; header names in lower case; `body` counts bytes."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: int


@dataclass
class Contents:
    """What a registry holds, by repository; two simulators may share it."""

    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)


class RegistrySimulator:
    """The registry; a context manager that serves between enter and exit."""

    def __init__(
        self,
        *,
        auth: Literal["none", "basic", "bearer"] = "none",
        tls: ssl.SSLContext | None = None,
        contents: Contents | None = None,
    ) -> None:
        self.auth, self.contents, self.faults = auth, contents or Contents(), Faults()
        self.requests: list[Seen] = []
        self.connections = 0
        """How many were opened."""
        self.tokens: dict[str, set[str]] = {}
        """Each token's scopes, as `repository:NAME:ACTION`."""
        self.uses: Counter[str] = Counter()
        """How often each token was shown."""
        self.identity_token = IDENTITY_TOKEN
        self.uploads: dict[str, bytearray] = {}
        """What each upload session has so far."""
        self.watcher: Callable[[Seen], object] = lambda request: None
        """Called with each request before it is handled: another client may do something meanwhile."""
        self.crashes: list[BaseException | None] = []
        self._httpd = _Server(("127.0.0.1", 0), _Handler)
        self._httpd.simulator = self
        self._scheme = "http"
        if tls is not None:
            self._scheme = "https"
            self._httpd.socket = tls.wrap_socket(self._httpd.socket, server_side=True)
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._httpd.shutdown()
        self._thread.join()
        self._httpd.server_close()
        assert not self.crashes, self.crashes

    @property
    def host(self) -> str:
        """`127.0.0.1:port`."""
        return f"127.0.0.1:{self._httpd.server_port}"

    @property
    def url(self) -> str:
        """Scheme and host."""
        return f"{self._scheme}://{self.host}"

    @property
    def options(self) -> RegistryOptions:
        """How to reach it; with TLS, add the CA."""
        return RegistryOptions(plain_http=self._scheme == "http", connect_timeout=5, read_timeout=5, backoff=0.00001)

    @property
    def credentials(self) -> CredentialSource:
        """What it wants."""
        return Anonymous() if self.auth == "none" else HostCredentials(self.host, Credentials(USER, PASSWORD))

    def reference(self, repository: str) -> RegistryReference:
        """A reference into it."""
        return RegistryReference(self.host, repository)

    def put_blob(self, repository: str, data: bytes) -> str:
        """Store a blob without HTTP; its digest."""
        digest = str(Digest.of(data))
        self.contents.blobs[repository, digest] = data
        return digest

    def put_manifest(self, repository: str, raw: bytes, *, tag: str | None = None) -> str:
        """Store an image manifest without HTTP and without checks; its digest."""
        digest = str(Digest.of(raw))
        self.contents.manifests[repository, digest] = (spec.MEDIA_MANIFEST, raw)
        if tag is not None:
            self.contents.tags[repository, tag] = digest
        return digest

    def seen(self, method: str, part: str = "") -> list[Seen]:
        """The requests of this method with `part` in their path."""
        return [request for request in self.requests if request.method == method and part in request.path]

    def sent_secrets(self) -> list[str]:
        """Every Authorization header that came in."""
        return [request.headers["authorization"] for request in self.requests if "authorization" in request.headers]


class _Server(ThreadingHTTPServer):
    simulator: RegistrySimulator

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Remember what is a mistake in here; clients that hang up are what some tests are about."""
        error = sys.exception()
        if not isinstance(error, OSError):
            self.simulator.crashes.append(error)


class _Handler(UploadsMixin, ListsMixin, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: the second would wait for a delayed ACK
    timeout = 10
    server: _Server

    def setup(self) -> None:
        """Count the connection."""
        super().setup()
        self.server.simulator.connections += 1

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + self.server.simulator.faults.clock)

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        self.body = self._take_bytes(length)
        self.registry = self.server.simulator
        self.faults, self.contents = self.registry.faults, self.registry.contents
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.command, self.path, headers, len(self.body))
        self.registry.requests.append(seen)
        self.registry.watcher(seen)
        if self.broken is not None:
            self._break_upload(urlsplit(self.path).path)
            return
        if len(self.body) < length:  # the client gave up; nobody is there to answer
            self.close_connection = True
            return
        if self.path.startswith("http://"):  # as a proxy is asked
            self.path = "/" + self.path.split("/", 3)[3]
        if self.faults.resets:
            self.faults.resets -= 1
            self._reset()
            return
        parts = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path == "/token":
            self._token()
        elif self.faults.status is not None and self.faults.times != 0:
            if self.faults.times is not None:
                self.faults.times -= 1
            error = self.faults.error + (" ".join(self._sent_secrets()).encode() if self.faults.echo else b"")
            self._reply(self.faults.status, error, **self.faults.error_headers)
        elif self._allowed(parts.path):
            self._route(parts.path)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = _handle  # noqa: N815  (http.server's names)

    def _reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        fields = {"Content-Length": str(len(body))} | {name.replace("_", "-"): text for name, text in headers.items()}
        for name, value in fields.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def end_headers(self) -> None:
        """Send the headers, as the faults will have it."""
        faults = self.server.simulator.faults
        for warning in faults.warnings:
            self.send_header("Warning", warning)
        if faults.header_drip is None:
            super().end_headers()
            return
        head = b"".join([*vars(self)["_headers_buffer"], b"\r\n"])
        vars(self)["_headers_buffer"].clear()
        self._drip(head, 1, faults.header_drip)

    def _drip(self, data: bytes, size: int, seconds: float) -> None:
        for at in range(0, len(data), size):
            time.sleep(seconds)
            self.wfile.write(data[at : at + size])

    def _refuse(self, status: int, code: str, **headers: str) -> None:
        message = code.lower().replace("_", " ")
        if self.faults.echo:
            message = f"{message}: {' '.join(self._sent_secrets())}"
        document = {"errors": [{"code": code, "message": message, "detail": None}]}
        self._reply(status, json.dumps(document).encode(), Content_Type="application/json", **headers)

    def _sent_secrets(self) -> list[str]:
        """What came with this request and is nobody's business, also decoded."""
        header = self.headers.get("Authorization", "")
        scheme, _, rest = header.partition(" ")
        pair = base64.b64decode(rest).decode() if scheme == "Basic" else ""
        form = self.body.decode("latin-1") if self.path.startswith("/token") else ""
        proxy = self.headers.get("Proxy-Authorization", "")
        known = base64.b64decode(proxy.partition(" ")[2]).decode()
        return [header, rest, pair, pair.partition(":")[2], form, proxy, known, known.partition(":")[2]]

    # --- who may

    def _allowed(self, path: str) -> bool:
        header = self.headers.get("Authorization")
        if header is not None and self.faults.refusals:
            self.faults.refusals -= 1
            header = None
        if self.registry.auth == "none" and self.faults.challenge is None:
            return True
        challenge = 'Basic realm="Registry Realm"'
        if self.registry.auth == "basic":
            allowed = self._knows(header)
        else:
            repository = _repository(path)
            known = {"GET": ("pull",), "HEAD": ("pull",), "DELETE": ("delete",)}
            actions: tuple[str, ...] = known.get(self.command, ("pull", "push"))
            if self.faults.demand is not None:
                actions = tuple(self.faults.demand.split(","))
            needed = {f"repository:{repository}:{action}" for action in actions} if repository else set()
            token = (header or "").removeprefix("Bearer ")
            scopes = self.registry.tokens.get(token)
            allowed = token == REGISTRY_TOKEN or (scopes is not None and needed <= scopes)
            self.registry.uses[token] += 1
            if allowed and self.faults.uses is not None and self.registry.uses[token] > self.faults.uses:
                allowed = False
            challenge = f'Bearer realm="{self.registry.url}/token",service="simulator"'
            if repository:
                challenge += f',scope="repository:{repository}:{",".join(actions)}"'
                if scopes is not None:
                    challenge += ',error="insufficient_scope"'
        if not allowed:
            self._refuse(401, "UNAUTHORIZED", WWW_Authenticate=self.faults.challenge or challenge)
        return allowed

    def _knows(self, header: str | None) -> bool:
        return header == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def _token(self) -> None:
        """Token specification: GET with Basic or nobody; or a POST with an identity token, as in OAuth2."""
        query = parse_qs(urlsplit(self.path).query)
        known = self.headers.get("Authorization") is not None
        if self.command == "POST":
            query, known = parse_qs(self.body.decode()), True
            allowed = query.get("refresh_token") == [self.registry.identity_token]
            allowed = allowed and query.get("grant_type") == ["refresh_token"] and "client_id" in query
        else:
            allowed = not known or self._knows(self.headers.get("Authorization"))
        if self.command == "POST" and self.faults.oauth is not None:
            self._refuse(self.faults.oauth, "UNSUPPORTED")
            return
        if not allowed:
            self._refuse(401, "UNAUTHORIZED")
            return
        scopes = set()
        for scope in " ".join(query.get("scope", [])).split():
            name, _, actions = scope.rpartition(":")
            scopes |= {f"{name}:{action}" for action in actions.split(",") if known or action == "pull"}
        token = f"canary-token-{secrets.token_hex(8)}"
        self.registry.tokens[token] = scopes
        answer: dict[str, Any] = {"expires_in": self.faults.life}
        answer["access_token" if self.command == "POST" else "token"] = token
        if self.command == "POST" and self.faults.rotate:
            self.registry.identity_token = f"canary-identity-{secrets.token_hex(8)}"
            answer["refresh_token"] = self.registry.identity_token
        self._reply(200, json.dumps(answer).encode() if self.faults.token is None else self.faults.token)

    # --- what it does

    def _route(self, path: str) -> None:
        head, _, last = path.rpartition("/")
        head, _, kind = head.rpartition("/")
        repository = _repository(path)
        if path == "/v2/":
            self._reply(200, b"{}")
        elif self.faults.redirect is not None and self.command in {"GET", "HEAD"}:
            self._reply(307, Location=self.faults.redirect.replace("{path}", self.path))
        elif self.faults.blob_redirect is not None and self.command == "GET" and kind == "blobs":
            self._reply(307, Location=self.faults.blob_redirect.replace("{path}", self.path))
        elif path.endswith("/blobs/uploads/") and self.command == "POST":
            self._start_upload(repository)
        elif kind == "uploads":
            self._upload(repository, last)
        elif path.endswith("/tags/list") and self.command == "GET":
            self._get_tags(repository)
        elif kind == "referrers" and self.command == "GET":
            self._get_referrers(repository, last)
        elif kind in {"blobs", "manifests"}:
            action = getattr(self, f"_{self.command.lower()}_{kind}", None)
            if action is None:
                self._refuse(405, "UNSUPPORTED")
            else:
                action(repository, last)
        else:
            self._refuse(404, "NAME_UNKNOWN")

    def _content(self, data: bytes, digest: str, media_type: str) -> None:
        """Answer a GET with content, as the faults will have it."""
        faults = self.faults
        body = data if faults.body is None else faults.body
        asked = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", self.headers.get("Range", ""))
        etag = f'"{digest}"' if faults.etag is None else faults.etag
        if self.headers.get("If-Range", etag) != etag or not faults.ranges or "/blobs/" not in self.path:
            asked = None
        start = int(asked[1]) if asked else 0
        stop = min(int(asked[2]) + 1, len(body)) if asked and asked[2] else len(body)
        if asked and start >= len(body):
            self._refuse(416, "RANGE_INVALID", Content_Range=f"bytes */{len(body)}")
            return
        part = body[slice(start, stop) if faults.part is None or not asked else faults.part]
        length = str(len(part)) if faults.length is None else faults.length
        self.send_response(206 if asked else 200)
        self.send_header("Content-Type", media_type if faults.media_type is None else faults.media_type)
        self._digest_header(digest)
        if etag:
            self.send_header("ETag", etag)
        if faults.encoding is not None:
            self.send_header("Content-Encoding", faults.encoding)
        span = f"bytes {start}-{stop - 1}/{len(body)}" if faults.content_range is None else faults.content_range
        if asked and span:
            self.send_header("Content-Range", span)
        if faults.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif length:
            self.send_header("Content-Length", length)
        self.end_headers()
        part += faults.extra
        cut = faults.cuts.pop(0) if faults.cuts else faults.cut
        self.close_connection = cut is not None or bool(faults.extra) or faults.length is not None
        if faults.chunked:
            part = b"%x\r\n%b\r\n0\r\n\r\n" % (len(part), part)
        if faults.drip is not None:
            self._drip(part[:cut], *faults.drip)
        else:
            self.wfile.write(part[:cut])

    def _digest_header(self, digest: str) -> None:
        claimed = digest if self.faults.digest is None else self.faults.digest
        if claimed:
            self.send_header("Docker-Content-Digest", claimed)

    def _created(self, digest: str, path: str, **headers: str) -> None:
        self.send_response(self.faults.commit)
        for name, text in headers.items():
            if text:
                self.send_header(name.replace("_", "-"), text)
        self._digest_header(digest)
        self.send_header("Location", path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _head_blobs(self, repository: str, digest: str) -> None:
        data = self.contents.blobs.get((repository, digest))
        if data is None and not self.faults.phantoms:
            self._refuse(404, "BLOB_UNKNOWN")
            return
        size = str(len(data or b""))
        self._reply(200, Content_Length=size if self.faults.head_length is None else self.faults.head_length)

    def _get_blobs(self, repository: str, digest: str) -> None:
        data = self.contents.blobs.get((repository, digest))
        if data is None:
            self._refuse(404, "BLOB_UNKNOWN")
        else:
            self._content(data, digest, "application/octet-stream")

    def _delete_blobs(self, repository: str, digest: str) -> None:
        if self.contents.blobs.pop((repository, digest), None) is None:
            self._refuse(404, "BLOB_UNKNOWN")
        else:
            self._reply(202)

    def _find(self, repository: str, reference: str) -> tuple[str, str, bytes] | None:
        """Digest, media type and bytes of a manifest."""
        digest = self.contents.tags.get((repository, reference), reference)
        found = self.contents.manifests.get((repository, digest))
        return None if found is None else (digest, *found)

    def _head_manifests(self, repository: str, reference: str) -> None:
        found = self._find(repository, reference)
        if found is None:
            self._refuse(404, "MANIFEST_UNKNOWN")
            return
        size = str(len(found[2])) if self.faults.head_length is None else self.faults.head_length
        digest = found[0] if self.faults.head_digest is None else self.faults.head_digest
        self._reply(200, Content_Length=size, Content_Type=found[1], Docker_Content_Digest=digest)

    def _get_manifests(self, repository: str, reference: str) -> None:
        found = self._find(repository, reference)
        if found is None or found[1] not in self.headers.get("Accept", ""):
            self._refuse(404, "MANIFEST_UNKNOWN")
            return
        digest, media_type, raw = found
        if self.faults.retag is not None and (repository, reference) in self.contents.tags:
            self.contents.tags[repository, reference] = self.faults.retag
        self._content(raw, digest, media_type)

    def _put_manifests(self, repository: str, reference: str) -> None:
        media_type, digest = self.headers.get("Content-Type", ""), str(Digest.of(self.body))
        if len(self.body) > spec.MAX_MANIFEST:
            self._refuse(400, "MANIFEST_INVALID")
            return
        document = json.loads(self.body)
        if media_type not in MANIFEST_TYPES or document.get("mediaType", media_type) != media_type:
            self._refuse(400, "MANIFEST_INVALID")
            return
        children = [*document.get("layers", []), *([document["config"]] if "config" in document else [])]
        named = [child["digest"] for child in document.get("manifests", []) if child["digest"].startswith("sha256:")]
        if any((repository, child["digest"]) not in self.contents.blobs for child in children) or any(
            (repository, digest) not in self.contents.manifests for digest in named
        ):
            self._refuse(400, "MANIFEST_BLOB_UNKNOWN")
            return
        if reference.startswith("sha256:") and reference != digest:
            self._refuse(400, "DIGEST_INVALID")
            return
        match, now = self.headers.get("If-Match"), self._find(repository, reference)
        if self.faults.heeds_match and match is not None and (now is None or match != f'"{now[0]}"'):
            self._refuse(412, "PRECONDITION_FAILED")
            return
        if self.faults.stores:
            self.contents.manifests[repository, digest] = (media_type, self.body)
            if reference != digest:
                self.contents.tags[repository, reference] = digest
        subject = document.get("subject", {}).get("digest", "") if self.faults.referrers_api else ""
        self._created(digest, f"/v2/{repository}/manifests/{digest}", OCI_Subject=subject)

    def _delete_manifests(self, repository: str, digest: str) -> None:
        tagged = self.contents.tags.get((repository, digest))
        if not self.faults.deletes or (tagged is not None and not self.faults.tag_deletes):
            self._refuse(405, "UNSUPPORTED")
            return
        if tagged is not None and not self.faults.deletes_all:
            del self.contents.tags[repository, digest]
            self._reply(202)
            return
        digest = tagged or digest
        if self.contents.manifests.pop((repository, digest), None) is None:
            self._refuse(404, "MANIFEST_UNKNOWN")
            return
        for key in [key for key, named in self.contents.tags.items() if named == digest and key[0] == repository]:
            del self.contents.tags[key]
        self._reply(202)


def _repository(path: str) -> str:
    """The repository in a path below /v2/; "" for /v2/ itself."""
    name = path.removeprefix("/v2/")
    for part in ("/blobs/", "/manifests/", "/tags/", "/referrers/"):
        name = name.partition(part)[0]
    return name
