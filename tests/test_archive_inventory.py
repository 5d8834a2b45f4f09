"""archive.json as microsandbox writes it is read without its schema, and only what passes that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.archive import inventory, usual
from casstore.archive.inventory import Entry, Inventory
from casstore.digest import Digest
from casstore.errors import DocumentError
from casstore.manifest import Dialect
from tests.support.canonical import require_schema_agrees

DIALECTS = (Dialect.V06, Dialect.V07)
ROOT = {"algorithm": "msb-file-merkle-blake3-v1", "root": "blake3:00", "logical_size": 8192, "leaf_size": 65536}
BLAKE3 = "blake3:" + "a" * 64


def listed(dialect: Dialect, *, count: int = 2, ranges: Sequence[tuple[int, int]] = ((0, 512), (4096, 0))) -> Inventory:
    """An inventory with something of everything."""
    digests = [Digest.of(bytes([n])) for n in range(count)]
    names = [str(each) if dialect is Dialect.V06 else f"snap_{each.hex[:32]}" for each in digests]
    integrities: list[Mapping[str, Any] | None] = [None, ROOT, inventory.sha256_object(b"")]
    entries = [
        Entry(f"files/{n}", names[0] if n else None, "file-payload", 512, 8192, tuple(ranges), integrity, BLAKE3)
        for n, integrity in enumerate(integrities)
    ]
    return Inventory(
        dialect=dialect,
        head=names[-1],
        suggested_name="größer",
        snapshots=list(zip(names, digests, strict=True)),
        entries=entries,
        with_parents=True,
        member_names={} if dialect is Dialect.V06 else dict.fromkeys(names, "s"),
    )


@pytest.mark.parametrize("dialect", DIALECTS)
@given(data=st.data())
@settings(max_examples=300)
def test_what_looks_usual_passes_the_schema(dialect: Dialect, data: st.DataObject) -> None:
    document = listed(dialect).to_bytes()
    require_schema_agrees(data, document, usual.pattern(dialect), f"microsandbox-archive-{dialect.value}")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_usual_needs_no_schema(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take seconds for this one."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked the schema")

    monkeypatch.setattr(inventory, "validate", refuse)
    sound = listed(dialect, ranges=[(n * 8192, 4096) for n in range(50_000)])
    found = Inventory.parse(sound.to_bytes())
    ranges = sound.entries[0].ranges if dialect is Dialect.V07 else ()
    assert found.snapshots == sorted(sound.snapshots)
    assert (found.head, found.member_names) == (sound.head, sound.member_names)
    assert [entry.ranges for entry in found.entries] == [ranges] * 3
    with pytest.raises(AssertionError, match="asked the schema"):
        Inventory.parse(sound.to_bytes().replace(b",", b", "))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_too_many_snapshots_are_not_usual(dialect: Dialect) -> None:
    document = listed(dialect, count=3).to_bytes()
    key = b'"snapshots":[' if dialect is Dialect.V06 else b'"members":['
    head, _, rest = document.partition(key)
    one = rest[: rest.index(b"}") + 1]
    assert usual.pattern(dialect).fullmatch(head + key + b",".join([one] * 1021) + b"," + rest)
    with pytest.raises(DocumentError, match="too long"):
        Inventory.parse(head + key + b",".join([one] * 1022) + b"," + rest)
