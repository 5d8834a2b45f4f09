"""The body of an answer, byte by byte as it came."""

from __future__ import annotations

from typing import Self

import requests
import urllib3

from casstore.registry.failures import broken
from casstore.registry.pace import Patience

_BLOCK = 1024 * 1024
_TLS_BLOCK = 16 * 1024


class Body:
    """A Reader of an answer's body; what goes wrong on the way is Unavailable.

    Time limits, rates and stop come from wire.py, which all bytes passed already.
    """

    def __init__(self, response: requests.Response, subject: str, patience: Patience) -> None:
        self._response, self._subject, self._patience = response, subject, patience
        # A read allocates what it asks for, and TLS gives 16 KiB (a record) at a time.
        self._most = _TLS_BLOCK if str(response.url).startswith("https:") else _BLOCK

    def read(self, size: int, /) -> bytes:
        """What is there, at most `size` bytes; b"" at the end.

        Less than `size` is normal: whatever arrived before a connection broke has been given out.
        """
        try:
            data: bytes = self._response.raw.read1(min(size, self._most), decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self._patience.check(self._subject)
            raise broken(self._subject, error).error from None
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()


def read_up_to(body: Body, limit: int) -> bytes:
    """All of a body, or its first `limit` bytes."""
    parts, left = [], limit
    while left and (part := body.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
