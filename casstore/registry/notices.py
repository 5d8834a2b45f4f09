"""What people should know of a registry: that it lets them wait, and its `Warning: 299 - "text"` headers
(distribution-spec), which are shown, never acted on.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable

from casstore.registry.failures import scrub

MAX_BYTES = 4096
"""Of all warnings together (distribution-spec); the rest is dropped."""
_WARNING = re.compile(r'299 [^ ",]{1,256} "((?:[^"\\]|\\.){1,4096})"')
_MAX_HEADER = 64 * 1024


class Notices:
    """Tells each warning once, in visible ASCII and without secrets. Thread-safe."""

    def __init__(self, tell: Callable[[str], object] | None) -> None:
        self._tell, self._told, self._left = tell, set[str](), MAX_BYTES
        self._lock = threading.Lock()

    def hear(self, headers: Iterable[str], secrets: Iterable[str]) -> None:
        """Take the Warning headers of an answer."""
        if self._tell is None or not self._left:
            return
        known = list(secrets)
        for text in _WARNING.findall(", ".join(headers)[:_MAX_HEADER]):
            plain = re.sub(r"\\(.)", r"\1", scrub(text, known))
            line = ascii(" ".join(plain.split()))[1:-1]
            with self._lock:
                line = line[: self._left]
                fresh = bool(line) and line not in self._told
                if fresh:
                    self._told.add(line)
                    self._left -= len(line)
            if fresh:
                self._tell(line)

    def say(self, text: str) -> None:
        """Tell something of our own."""
        if self._tell is not None:
            self._tell(text)
