"""One strict way from bytes to JSON and back.

Python's json takes what documents that are hashed and signed must not have: duplicate keys, NaN, 1e999, BOMs, lone
surrogates, any depth, any length. `load` refuses all of it before a schema is asked (I-JSON, RFC 7493).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from casstore.errors import DocumentError

Json = Any
"""What `load` returns: dict, list, str, int, bool or None; never float."""

MAX_DEPTH = 64
TEXT = r'"[^"\\]*(?:\\.[^"\\]*)*"'
"""A regular expression for a text in JSON that has been loaded."""

_INT_DIGITS = 20  # 2^64 has 20; CPython itself refuses past 4300, slowly before that
_INT_RANGE = range(-(2**63), 2**64)
_SURROGATE = re.compile("[\ud800-\udfff]")


def load(data: bytes, *, subject: str, limit: int) -> Json:
    """Parse one JSON document of at most `limit` bytes, strictly.

    Raises:
        DocumentError: too long, not UTF-8, a BOM, duplicate keys, floats, NaN, integers past 64 bits, nesting past
            64 levels, lone surrogates, anything after the document.
    """
    if len(data) > limit:
        raise DocumentError(subject, f"expected at most {limit} bytes of JSON, got {len(data)}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(
            subject, f"expected UTF-8, got byte {data[error.start]:#04x}", at=f"byte {error.start}"
        ) from None
    if text.startswith("\ufeff"):
        raise DocumentError(subject, "expected JSON, got a byte order mark", at="byte 0")

    def fail(what: str) -> Callable[[str], Any]:
        def refuse(value: str) -> Any:
            raise DocumentError(subject, f"expected {what}, got {value[:40]}")

        return refuse

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    raise DocumentError(subject, f"duplicate key {ascii(key[:80])}")
                seen.add(key)
        return document

    def integer(digits: str) -> int:
        if len(digits.lstrip("-")) > _INT_DIGITS:
            raise DocumentError(subject, f"expected a 64-bit integer, got {len(digits)} digits")
        value = int(digits)
        if value not in _INT_RANGE or digits == "-0":
            raise DocumentError(subject, f"expected a 64-bit integer, got {digits}")
        return value

    try:
        value = json.loads(
            text,
            object_pairs_hook=unique,
            parse_float=fail("an integer"),
            parse_constant=fail("a JSON number"),
            parse_int=integer,
        )
    except json.JSONDecodeError as error:
        raise DocumentError(
            subject, f"expected JSON: {error.msg}", at=f"line {error.lineno} column {error.colno}"
        ) from None
    except RecursionError:
        raise DocumentError(subject, f"expected at most {MAX_DEPTH} levels of nesting") from None
    _check(value, subject, escaped=b"\\u" in data)
    return value


def load_object(data: bytes, *, subject: str, limit: int) -> dict[str, Any]:
    """`load`, and the document must be an object.

    Raises:
        DocumentError: as `load`, or not an object.
    """
    value = load(data, subject=subject, limit=limit)
    if not isinstance(value, dict):
        raise DocumentError(subject, f"expected a JSON object, got {type(value).__name__}")
    return value


def dump(value: Json) -> bytes:
    """Compact JSON, keys sorted, UTF-8: the one form in which casstore writes documents that are hashed."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def _check(root: Json, subject: str, *, escaped: bool) -> None:
    """Refuse what the parser lets through: depth and lone surrogates (`"\\ud800"` is valid JSON, but no UTF-8).

    A document without escapes was UTF-8, so its strings need not be looked at.
    """
    level = [root]
    for _ in range(MAX_DEPTH):
        containers = [value for value in level if isinstance(value, (dict, list))]
        if escaped and any(isinstance(value, str) and _SURROGATE.search(value) for value in level):
            raise DocumentError(subject, "expected Unicode text, got a lone surrogate")
        if not containers:
            return
        level = [child for value in containers for child in (value.values() if isinstance(value, dict) else value)]
        if escaped:
            level += [key for value in containers if isinstance(value, dict) for key in value]
    if any(isinstance(value, (dict, list)) for value in level):
        raise DocumentError(subject, f"expected at most {MAX_DEPTH} levels of nesting")
    if escaped and any(isinstance(value, str) and _SURROGATE.search(value) for value in level):
        raise DocumentError(subject, "expected Unicode text, got a lone surrogate")
