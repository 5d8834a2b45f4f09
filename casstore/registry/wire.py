"""The bytes of HTTP connections: all of them pass here, so nothing can stall, drip or outlive a stop.

By themselves requests and urllib3 time out only when nothing at all arrives. Here a whole header has to arrive within
`read_timeout`, a body at `min_rate`, and nothing later than the deadline; bodies keep to the host's rate limit, and
`Line.stop` shuts every socket, whoever is blocked in it. What is wrong is raised as an OSError inside the libraries,
which clean up and pass it on.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from casstore.content import Traffic
from casstore.registry.failures import Ended, TooSlow
from casstore.registry.options import RegistryOptions
from casstore.registry.pace import Pace, Patience
from casstore.registry.urls import Origin, is_local

BLOCK = 256 * 1024
"""Bytes sent or received at a time."""
_TLS_BLOCK = 64 * 1024
"""What OpenSSL is given at a time: it takes all of it or, after `read_timeout`, nothing."""
_POOL = 16
"""Connections kept per host; more may be open at once."""
_CHUNK_LINE = 1024
"""The longest line before a chunk: its size, and extensions that mean nothing here."""
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,16}")
_MAX_TRAILERS = 100
"""Lines after the last chunk; as many as http.client takes in a header."""


class Line:
    """All connections of one client: what they have to keep to, and how to end them. Thread-safe."""

    def __init__(self, home: Origin, options: RegistryOptions, pace: Pace, patience: Patience) -> None:
        self.pace: Pace = pace
        self.patience: Patience = patience
        self.silence: float = options.read_timeout
        self.min_rate: int = options.min_rate
        self._home = home.host
        self.home_is_local: bool = is_local(home.host)
        """Whether the registry is on this machine or link; if not, nothing it points to may be."""
        self._sockets: list[Any] = []
        self._lock = threading.Lock()
        self._received = self._asked = 0

    @property
    def traffic(self) -> Traffic:
        """What came and was asked for so far, whoever answered."""
        with self._lock:
            return Traffic(self._received, self._asked)

    def asks(self) -> None:
        """A request is about to be sent."""
        with self._lock:
            self._asked += 1

    def received(self, count: int) -> None:
        """So many bytes came."""
        with self._lock:
            self._received += count

    def adapter(self) -> HTTPAdapter:
        """What gives requests connections of this line."""
        return _Adapter(self)

    def opened(self, host: str, connection: Any, *, direct: bool) -> None:
        """A socket is connected to `host`, or (not `direct`) to a proxy on the way there.

        Raises:
            OSError: the registry is elsewhere, and `host` turned out to be this machine or something on its link.
        """
        with self._lock:
            self._sockets = [each for each in self._sockets if each.fileno() >= 0]  # -1: closed
            self._sockets.append(connection)
        if not self.patience.left:  # a stop may have come before the socket was known
            raise Ended(self.patience.verdict)
        if direct and is_local(connection.getpeername()[0]):
            if host.strip("[]").lower() == self._home:
                self.home_is_local = True
            elif not self.home_is_local:
                raise OSError(f"{host} is an address of this machine or its link, where this registry has no business")

    def stop(self) -> None:
        """End all that goes on, and all that is still to come. Connecting alone takes its time-out to notice."""
        self.patience.stop()
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            with suppress(OSError, TypeError, AttributeError):
                # Not SSLSocket.shutdown, which would take the TLS state from under whoever reads or writes.
                socket.socket.shutdown(getattr(each, "socket", each), socket.SHUT_RDWR)

    def timeout(self, until: float | None = None) -> float:
        """For the next operation on a socket, at most `until` (monotonic).

        Raises:
            Ended: stopped, or past the deadline.
            TimeoutError: past `until`.
        """
        left = self.patience.left
        if not left:
            raise Ended(self.patience.verdict)
        if until is not None:
            left = min(left, until - time.monotonic())
            if left <= 0:
                raise TimeoutError
        return min(left, self.silence)


class _Flow:
    """Bytes in one direction. Only the time that was spent waiting for them counts, not what we took ourselves."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._count, self._seconds = 0, 0.0

    def moved(self, count: int, seconds: float) -> None:
        """So many bytes in so much time.

        Raises:
            TooSlow: less than the minimum rate, over the longest silence.
            Ended: as Pace.moved.
        """
        self._count += count
        self._seconds += seconds
        if self._seconds >= self._line.silence:
            if self._count < self._line.min_rate * self._seconds:
                rate = self._count / self._seconds
                raise TooSlow(f"{rate:.0f} bytes/s, and less than {self._line.min_rate} bytes/s are not waited for")
            self._count, self._seconds = 0, 0.0
        self._line.pace.moved(count, self._line.patience)


class _Incoming(io.RawIOBase):
    """What arrives on a socket: a header, as a whole in time, then a body."""

    def __init__(self, raw: io.RawIOBase, connection: Any, line: Line) -> None:
        self._raw, self._socket, self._line = raw, connection, line
        self._flow = _Flow(line)
        self._until: float | None = time.monotonic() + line.silence

    def header_ends(self) -> None:
        """From here on it is a body."""
        self._until = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        view = memoryview(buffer)[: self._line.pace.piece]
        self._socket.settimeout(self._line.timeout(self._until))
        start = time.monotonic()
        count = self._raw.readinto(view)
        self._line.received(count or 0)
        if count and self._until is None:
            self._flow.moved(count, time.monotonic() - start)
        elif count:  # a header, maybe with the beginning of the body
            self._line.pace.moved(count, self._line.patience)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    line: ClassVar[Line]

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._incoming = _Incoming(self.fp.detach(), sock, self.line)
        self.fp = io.BufferedReader(self._incoming, BLOCK)

    def begin(self) -> None:
        super().begin()
        self._incoming.header_ends()

    def _read_next_chunk_size(self) -> int:
        # http.client takes "-1" for a size, then gives out all that comes at once, and reads lines of 64 KiB for it.
        line = self.fp.readline(_CHUNK_LINE)
        size = line.partition(b";")[0].strip()
        if not line.endswith(b"\n") or not _CHUNK_SIZE.fullmatch(size):
            raise ValueError
        return int(size, 16)

    def _read_and_discard_trailer(self) -> None:
        # http.client reads them for as long as they come.
        for _ in range(_MAX_TRAILERS):
            line = self.fp.readline(BLOCK)
            if line in {b"\r\n", b"\n", b""}:
                return
        raise http.client.HTTPException(f"got more than {_MAX_TRAILERS} trailers")


class _Connection(HTTPConnection):
    line: ClassVar[Line]

    def connect(self) -> None:
        self.timeout = self.line.timeout() if self.timeout is None else min(self.timeout, self.line.timeout())
        super().connect()
        host = getattr(self, "_tunnel_host", None) or self.host
        try:
            self.line.opened(host, self.sock, direct=self.proxy is None)
        except OSError:
            self.close()
            raise

    def send(self, data: Any) -> None:
        """All of `data`; urllib3 gives blocks of bytes."""
        if self.sock is None:
            self.connect()
        if not hasattr(self, "_flow"):
            self._flow = _Flow(self.line)
        view = memoryview(data)
        block = min(self.line.pace.piece, BLOCK if type(self.sock) is socket.socket else _TLS_BLOCK)
        while view:
            self.sock.settimeout(self.line.timeout())
            start = time.monotonic()
            count = self.sock.send(view[:block])
            self._flow.moved(count, time.monotonic() - start)
            view = view[count:]


class _SecureConnection(_Connection, HTTPSConnection):
    pass


def _pools(line: Line) -> dict[str, Callable[..., urllib3.HTTPConnectionPool]]:
    """urllib3's connection pools, whose connections know their line."""
    known = {"line": line, "response_class": type("Response", (_Response,), {"line": line})}
    plain = type("Connection", (_Connection,), known)
    secure = type("SecureConnection", (_SecureConnection,), known)
    return {
        "http": type("Pool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("SecurePool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": secure}),
    }


class _Adapter(HTTPAdapter):
    def __init__(self, line: Line) -> None:
        self._line = line
        super().__init__(pool_maxsize=_POOL)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, blocksize=BLOCK, **options)
        self.poolmanager.pool_classes_by_scheme = _pools(self._line)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, blocksize=BLOCK, **options)
        manager.pool_classes_by_scheme = _pools(self._line)
        return manager
