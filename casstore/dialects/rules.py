"""What the forms of 0.6 and 0.7 ask of values alike: each check yields (where, what is wrong), as Manifest does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

from casstore import spec
from casstore.errors import DocumentError, UnsupportedVersion
from casstore.jsondoc import load_object
from casstore.manifest import RFC3339, UpperIntegrity

MAX_SAFE: Final = 2**53 - 1
"""The largest integer that every reader of JSON takes for what it is."""
MAX_EXTENSIONS: Final = 1 << 20
"""Characters of extensions."""
SIZE: Final = r"(?:0|[1-9][0-9]{0,15})"
"""A regular expression for bytes in canonical JSON."""

Problems = Iterator[tuple[str, str]]

_HEX = re.compile(r"[0-9a-f]*\Z", re.ASCII)


def utc(text: str) -> tuple[str, str] | None:
    """A time of RFC 3339 in UTC, and the digits of its fraction, at most nine; None for any other text.

    microsandbox also takes lower-case letters, a blank for the `T`, and leap seconds; it writes none of them.
    """
    match = RFC3339.match(text)
    if match is None:
        return None
    try:
        time = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00")).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return time.replace(tzinfo=None).isoformat(), (match[2] or "")[:9]


def hexadecimal(at: str, text: str, prefix: str, digits: int) -> Problems:
    """`prefix` and so many lower-case hexadecimal digits."""
    encoded = text.removeprefix(prefix)
    if not text.startswith(prefix) or len(encoded) != digits or not _HEX.match(encoded):
        yield at, f"expected {prefix} and {digits} lower-case hex digits, got {ascii(text[:100])}"


def integrity(at: str, recorded: UpperIntegrity | None) -> Problems:
    """One of the three algorithms that these forms know, and its value."""
    if recorded is None:
        return
    if recorded.algorithm == spec.MERKLE_BLAKE3:
        yield from hexadecimal(f"{at}.root", recorded.digest, "blake3:", 64)
    elif recorded.algorithm in {spec.SHA256, spec.SPARSE_SHA256}:
        yield from hexadecimal(f"{at}.digest", recorded.digest, "sha256:", 64)
    else:
        known = f"{spec.SHA256}, {spec.SPARSE_SHA256} or {spec.MERKLE_BLAKE3}"
        yield f"{at}.algorithm", f"expected {known}, got {ascii(recorded.algorithm[:100])}"


def size(at: str, value: int) -> Problems:
    """Bytes that JSON can say."""
    if not 0 <= value <= MAX_SAFE:
        yield at, f"expected 0 to 2^53 - 1 bytes, got {value}"


def extensions(text: str, requires: Sequence[str], canonical: Callable[[Any], str]) -> Problems:
    """Extensions in canonical form, and a sorted list of those of their keys that a reader must know."""
    keys: set[str] = set()
    if text != "{}":
        try:
            document = load_object(text.encode(), subject="extensions", limit=MAX_EXTENSIONS)
        except (DocumentError, UnicodeEncodeError) as error:
            yield "extensions", f"expected an object in JSON: {error}"
            return
        if canonical(document) != text:
            yield "extensions", "expected canonical JSON"
        keys = set(document)
    if list(requires) != sorted(set(requires)):
        yield "requires", "expected it sorted, and each name once"
    missing = [name for name in requires if not name or name not in keys]
    if missing:
        yield "requires", f"{ascii(missing[0][:100])} is none of the extensions"


def are_texts(value: object) -> TypeGuard[dict[str, str]]:
    """Whether a value is an object of texts."""
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def read_integrity(document: dict[str, Any] | None) -> UpperIntegrity | None:
    """From an object that has passed its schema."""
    if document is None:
        return None
    digest = document["root"] if "root" in document else document["digest"]
    return UpperIntegrity(algorithm=document["algorithm"], digest=digest)


def write_integrity(recorded: UpperIntegrity | None, logical_size: int) -> dict[str, Any] | None:
    """As a JSON object, in the order of 0.6; `logical_size` are the file's bytes."""
    if recorded is None:
        return None
    if recorded.algorithm != spec.MERKLE_BLAKE3:
        return {"algorithm": recorded.algorithm, "digest": recorded.digest}
    return {
        "algorithm": recorded.algorithm,
        "root": recorded.digest,
        "logical_size": logical_size,
        "leaf_size": spec.MERKLE_LEAF,
    }


def compact(document: Any) -> str:
    """JSON without blanks, in the order of the document, with nothing escaped but what must be."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def checkpoint(subject: str) -> UnsupportedVersion:
    """What is said of a snapshot whose state is no disk."""
    problem = (
        "expected the snapshot of a disk, got a checkpoint, which needs a running VM's memory; take a snapshot of the"
        " stopped sandbox"
    )
    return UnsupportedVersion(subject, problem, at="state.kind")
