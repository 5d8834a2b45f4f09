"""Documents with something changed; of those that pass a pattern no schema is asked, so they must pass the schema."""

from __future__ import annotations

import copy
import re
from typing import Any

from hypothesis import strategies as st

from casstore import spec
from casstore.errors import DocumentError
from casstore.jsondoc import load_object
from casstore.schema import validate

_PIECES = st.binary(max_size=2) | st.sampled_from([b'"', b"\\", b",", b"0", b"}", b'","', b"null", b"{}"])


def changed(document: Any, path: str, value: Any) -> Any:
    """A copy with another value (or none, for `...`) at a dotted path."""
    document = copy.deepcopy(document)
    place = document
    *parents, last = (int(step) if step.isdecimal() else step for step in path.split("."))
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


def require_schema_agrees(data: st.DataObject, document: bytes, usual: re.Pattern[bytes], schema: str) -> None:
    """Whatever becomes of a document by a change or two, if it passes the pattern it passes the schema, too."""
    raw = bytearray(document)
    assert usual.fullmatch(raw)
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(_PIECES)
    if usual.fullmatch(raw):
        try:
            changed = load_object(bytes(raw), subject="m", limit=spec.MAX_MANIFEST)
        except DocumentError:
            return
        validate(changed, schema, subject="m")
