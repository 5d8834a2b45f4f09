"""When the next request to a host may be made: back-off, Retry-After and rate limits, shared by all who talk to it.

`Pace` knows the host, `Patience` the one who waits. All waits are `Event.wait`, so that `Patience.stop` ends them.
"""

from __future__ import annotations

import random as chance
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import inf
from typing import Self

from casstore import log
from casstore.errors import Unavailable
from casstore.registry.failures import Ended
from casstore.registry.options import RegistryOptions

MAX_WAIT = 600.0
"""Seconds that a registry may ask to wait; one that asks for more is believed, and given up."""
_MAX_BACKOFF = 30.0
_SECONDS = re.compile(r"[0-9]{1,18}\Z", re.ASCII)


class Patience:
    """How long one target goes on: until its deadline (seconds from now), or until it is stopped. Thread-safe."""

    def __init__(
        self,
        deadline: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self.now: Callable[[], float] = clock
        self._deadline = deadline
        self._end = inf if deadline is None else clock() + deadline
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait

    @property
    def left(self) -> float:
        """Seconds until the deadline; inf without one, 0 once stopped."""
        return 0.0 if self._stopped.is_set() else max(0.0, self._end - self.now())

    def stop(self) -> None:
        """Let every wait end, now and in future."""
        self._stopped.set()

    def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            Ended: stopped; or the deadline comes first, in which case nothing is waited for.
        """
        if seconds >= self.left:
            raise Ended(
                self.verdict or f"the deadline of {self._deadline} s comes before the end of a wait of {seconds:.1f} s"
            )
        if seconds > 0:
            self._wait(seconds)
            if self._stopped.is_set():
                raise Ended(self.verdict)

    @property
    def verdict(self) -> str:
        """Why nothing goes on; "" while it does."""
        if self._stopped.is_set():
            return "stopped"
        return f"the deadline of {self._deadline:g} s has passed" if self.left == 0 else ""

    def check(self, subject: str) -> None:
        """Raises:
        Unavailable: stopped, or the deadline has passed.
        """
        if verdict := self.verdict:
            raise Unavailable(f"{subject}: {verdict}")


class _Bucket:
    """`rate` units a second on average; what was not used in the last `burst` seconds may be made up for."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst, self._free = rate, burst, -inf

    def take(self, count: float, now: float) -> float:
        """Take them; seconds to wait for it."""
        self._free = max(self._free, now - self._burst) + count / self._rate
        return max(0.0, self._free - now)


class Pace:
    """What is known of a host's strength. Thread-safe.

    A failure raises the back-off (exponential, full jitter), any success lowers it; until it ends, every request to
    the host waits. Failures of requests that were on their way when it was raised do not raise it again.
    """

    def __init__(
        self,
        *,
        backoff: float = 0.5,
        limit_rate: int | None = None,
        max_requests: float | None = None,
        random: Callable[[], float] = chance.random,
    ) -> None:
        self._backoff, self._random = backoff, random
        self._level, self._raised, self._until = 0, -inf, -inf
        self._bytes = _Bucket(limit_rate, 0) if limit_rate else None
        self._requests = _Bucket(max_requests, max(1, 1 / max_requests)) if max_requests else None
        self._lock = threading.Lock()
        self.answered: bool = False
        """Whether the host ever answered: if not, that it cannot be reached is no passing fault."""
        self.piece: int = max(4096, limit_rate // 8) if limit_rate else 2**30
        """Bytes to move at a time, so that the waits between stay short."""

    @classmethod
    def of(cls, options: RegistryOptions) -> Self:
        """As the options say."""
        return cls(backoff=options.backoff, limit_rate=options.limit_rate, max_requests=options.max_requests)

    def admit(self, patience: Patience) -> float:
        """Wait until a request may be made; the time by then.

        Raises:
            Ended: as Patience.pause; or the host asked to wait for longer than MAX_WAIT, which no request does.
        """
        patience.pause(0)
        while (wait := self._until - patience.now()) > 0:
            if wait > MAX_WAIT:
                raise Ended(f"the registry asks to wait {wait:.0f} s")
            log.debug("registry", "waiting %s s, as requests failed", f"{wait:.2f}")
            patience.pause(wait)
        if self._requests is not None:
            with self._lock:
                wait = self._requests.take(1, patience.now())
            patience.pause(wait)
        return patience.now()

    def succeeded(self) -> None:
        """The host answered a request, if only with a refusal."""
        self.answered = True
        with self._lock:
            self._level = max(0, self._level - 1)

    def failed(self, started: float, now: float, *, asked: float = 0.0) -> None:
        """A request that `started` then failed, and the host asked to wait so many seconds."""
        with self._lock:
            wait = asked
            if started >= self._raised:
                self._raised = now
                wait = max(wait, self._random() * min(_MAX_BACKOFF, self._backoff * 2**self._level))
                self._level = min(self._level + 1, 10)
            self._until = max(self._until, now + wait)

    def moved(self, count: int, patience: Patience) -> None:
        """So many bytes of a body have passed; wait as long as the rate limit wants.

        Raises:
            Ended: as Patience.pause.
        """
        if self._bytes is not None:
            with self._lock:
                wait = self._bytes.take(count, patience.now())
            patience.pause(wait)


def retry_after(value: str | None, *, now: datetime | None = None) -> float:
    """Seconds that a Retry-After asks to wait (RFC 9110: seconds, or a date); 0 for none, garbage and the past."""
    text = (value or "").strip()
    if _SECONDS.match(text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
