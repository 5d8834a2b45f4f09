"""Registries under names that do not exist: `registry.example` and the like, over TLS, behind a proxy on this machine.

    with named_registries(folder, {"registry.example", "mirror.example"}) as environment:
        ...   # what runs with these variables reaches them as it would reach real ones

Each name has a docker-registry of its own, which starts with the first connection to it. A client needs no option: the
variables name the proxy, and the authority that has signed the certificates.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.servers import registry


class _Hosts(ThreadingHTTPServer):
    """The proxy. `daemon_threads`: a connection that a client left open does not keep the test."""

    daemon_threads = True

    def __init__(self, folder: Path, names: Collection[str], authority: Authority, stack: ExitStack) -> None:
        super().__init__(("127.0.0.1", 0), _Connect)
        self._folder, self._names, self._authority, self._stack = folder, names, authority, stack
        self._running: dict[str, int] = {}
        self._lock = threading.Lock()

    def port_of(self, name: str) -> int | None:
        """Where a name's registry listens; None for an unknown name."""
        with self._lock:
            if name in self._names and name not in self._running:
                folder = self._folder / name
                folder.mkdir(parents=True)
                server = self._stack.enter_context(registry(folder, tls=self._authority, names=[name]))
                self._running[name] = int(server.host.rpartition(":")[2])
            return self._running.get(name)


class _Connect(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        assert isinstance(self.server, _Hosts)
        port = self.server.port_of(self.path.rpartition(":")[0])
        if port is None:
            self.send_error(502, "no such host")
            return
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            self.send_response(200)
            self.end_headers()
            _pump(self.connection, upstream)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def _pump(client: socket.socket, upstream: socket.socket) -> None:
    """Pass on what comes, until one of the two has no more."""
    with selectors.DefaultSelector() as ready:
        for source, sink in ((client, upstream), (upstream, client)):
            ready.register(source, selectors.EVENT_READ, sink)
        while True:
            for key, _ in ready.select():
                try:
                    data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    key.data.sendall(data)
                except OSError:
                    return
                if not data:
                    return


@contextmanager
def named_registries(folder: Path, names: Collection[str]) -> Iterator[dict[str, str]]:
    """The variables with which `names` are reached until the end of the block; the registries' data lie in `folder`."""
    folder.mkdir()
    authority = Authority()
    bundle = authority.write_bundle(folder / "ca.crt")
    with ExitStack() as stack, _Hosts(folder, names, authority, stack) as hosts:
        thread = threading.Thread(target=hosts.serve_forever, args=(0.02,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(hosts.shutdown)
        yield {"https_proxy": f"http://127.0.0.1:{hosts.server_port}", "SSL_CERT_FILE": str(bundle)}
