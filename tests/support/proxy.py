"""A TCP proxy in front of a server: counts what passes, slows it down, and cuts connections on request.

with TcpProxy(server.host, rate=20e6, delay=0.02) as proxy:        # bytes a second, both directions together
... use proxy.host instead of server.host ...
proxy.cut_upload_after(1_000_000)                  # closes the connection that sends this byte; once
assert proxy.uploaded < 2_000_000
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self

_BLOCK = 16 * 1024
_CREDIT = 0.01
"""Seconds."""
_METHODS = (b"GET /", b"HEAD /", b"POST /", b"PUT /", b"PATCH /", b"DELETE /")


class TcpProxy:
    """Forwards connections to `host:port`; a context manager that serves between enter and exit. Each plain HTTP
    request waits for `delay` seconds before it goes on, as a round trip to a place far away does.
    """

    def __init__(self, upstream: str, *, rate: float | None = None, delay: float = 0) -> None:
        name, _, port = upstream.rpartition(":")
        self._upstream = name, int(port)
        self._rate, self._delay = rate, delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._idle = threading.Condition()
        self._pumping = 0
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._cut: int | None = None
        self._free_at = 0.0
        self._closed = False
        self.uploaded = 0
        """Bytes from clients to the server, headers included."""
        self.downloaded = 0
        self.connections = 0
        self.requests = 0
        """Of plain HTTP."""

    @property
    def host(self) -> str:
        """`127.0.0.1:port`, for clients."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def cut_upload_after(self, count: int) -> None:
        """Once: close the connection over which the `count`-th byte from now on would be uploaded."""
        with self._lock:
            self._cut = self.uploaded + count

    def reset(self) -> None:
        """Count from zero again, once all that was sent over connections that ended has passed."""
        with self._idle:
            assert self._idle.wait_for(lambda: not self._pumping, timeout=30), "connections are still open"
        with self._lock:
            self.uploaded = self.downloaded = self.connections = self.requests = 0

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in list(self._sockets):
            _shut(each)
        for thread in self._threads:
            thread.join()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._upstream)
            except OSError:
                client.close()
                continue
            self.connections += 1
            self._sockets |= {client, server}
            with self._idle:
                self._pumping += 2
            self._start(self._pump, client, server, True)
            self._start(self._pump, server, client, False)

    def _pump(self, source: socket.socket, sink: socket.socket, upload: bool) -> None:
        try:
            while data := source.recv(_BLOCK):
                # A client waits for the answer before its next request, so each one is the beginning of what comes.
                if upload and data.startswith(_METHODS):
                    with self._lock:
                        self.requests += 1
                    time.sleep(self._delay)
                self._pace(len(data))
                with self._lock:
                    if upload and self._cut is not None and self.uploaded + len(data) > self._cut:
                        self._cut = None
                        return
                sink.sendall(data)
                with self._lock:
                    if upload:
                        self.uploaded += len(data)
                    else:
                        self.downloaded += len(data)
        except OSError:
            pass
        finally:
            _shut(source)
            _shut(sink)
            with self._idle:
                self._pumping -= 1
                self._idle.notify_all()

    def _pace(self, count: int) -> None:
        if self._rate is None:
            return
        with self._lock:
            # What a sleep was too long is made up for, so that the rate is the one that was asked for.
            self._free_at = max(self._free_at, time.monotonic() - _CREDIT) + count / self._rate
            wait = self._free_at - time.monotonic()
        if wait > 0:
            time.sleep(wait)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
