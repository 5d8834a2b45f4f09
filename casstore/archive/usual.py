"""How the real tools write archive.json. What is written so passes its schema, which takes jsonschema 0.1 s to load and
seconds for a disk in many pieces.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from casstore.archive.transport import ALGORITHM
from casstore.manifest import Dialect

_TEXT: Final = r'"[^"\\]{0,1024}"'
_BYTES: Final = r"(?:0|[1-9][0-9]{0,14})"
MEMBER_NAMES: Final = "msb-snapshot-member-names"
_SHA256, _BLAKE3, _SNAPSHOT = '"sha256:[0-9a-f]{64}"', '"blake3:[0-9a-f]{64}"', '"snap_[0-9a-f]{32}"'


def _object(**fields: str) -> str:
    return r"\{" + ",".join(f'"{name}":{pattern}' for name, pattern in fields.items()) + r"\}"


def _several(pattern: str, most: str, *, least: str = "?+") -> str:
    """Possessive, or each one would take memory until the last is seen."""
    return rf"(?:{pattern}(?:,{pattern}){{0,{most}}}+){least}"


def _list(pattern: str, most: str, *, least: str = "?+") -> str:
    return rf"\[{_several(pattern, most, least=least)}\]"


def _entry(**ranges: str) -> str:
    digest = _object(algorithm=_TEXT, digest=_TEXT)
    transport = _object(algorithm=f'"{ALGORITHM}"', digest=_BLAKE3)
    root = _object(algorithm=_TEXT, root=_TEXT, logical_size=_BYTES, leaf_size=_BYTES)
    return _object(
        path=_TEXT,
        owner_snapshot=f"(?:null|{_TEXT})",
        kind=_TEXT,
        included="(?:true|false)",
        encoded_size=_BYTES,
        apparent_size=_BYTES,
        **ranges,
        integrity=f"(?:null|{digest}|{root})",
        transport_integrity=f"(?:null|{transport})",
    )


@cache
def pattern(dialect: Dialect) -> re.Pattern[bytes]:
    """What the whole inventory of an archive of this form matches, usually."""
    names = _several(f"{_TEXT}:{_TEXT}", "1023")
    tail = {
        "extensions": rf'\{{(?:"{MEMBER_NAMES}":\{{{names}\}})?\}}',
        "requires": _list(_TEXT, "63"),
    }
    head = {"suggested_name": f"(?:null|{_TEXT})", "completeness": _TEXT}
    if dialect is Dialect.V06:
        snapshot = _object(snapshot_id=_SHA256, descriptor=_TEXT)
        document = _object(
            schema="1",
            artifact='"snapshot-archive"',
            head=_SHA256,
            **head,
            with_parents="(?:true|false)",
            with_image="(?:true|false)",
            snapshots=_list(snapshot, "1023", least=""),
            entries=_list(_entry(), "19999"),
            protection_requirements=r"\[\]",
            **tail,
        )
    else:
        snapshot = _object(snapshot_id=_SNAPSHOT, descriptor_path=_TEXT, descriptor_digest=_SHA256)
        ranges = _list(rf"\[{_BYTES},{_BYTES}\]", "")
        document = _object(
            schema=r'"microsandbox\.snapshot-archive/1"',
            head=_SNAPSHOT,
            **head,
            members=_list(snapshot, "1023", least=""),
            entries=_list(_entry(sparse_ranges=ranges), "19999"),
            limits=_object(entry_count=_BYTES, encoded_bytes=_BYTES, apparent_bytes=_BYTES),
            **tail,
        )
    return re.compile(document.encode())
