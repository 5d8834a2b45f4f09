"""Base64 with one text for each run of bytes, so that no document can be changed and still mean the same."""

from __future__ import annotations

import base64
import binascii


def encode(data: bytes) -> str:
    """Standard base64 with padding, on one line."""
    return base64.b64encode(data).decode("ascii")


def decode(text: object, *, what: str) -> bytes:
    """The bytes of a text that `encode` wrote.

    Raises:
        ValueError: anything else: other types, white space, the URL alphabet, no padding, bits set past the end.
    """
    if isinstance(text, str):
        try:
            data = base64.b64decode(text.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            data = None
        if data is not None and encode(data) == text:
            return data
    raise ValueError(f"{what}: expected base64, got {ascii(text)[:60]}")
