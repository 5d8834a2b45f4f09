"""What is asked of the catalog's tables: what a snapshot takes, where chunks lie, which snapshot is like a disk."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from casstore import spec, tables
from casstore.dialects import parse_trusted
from casstore.digest import ChunkId, Digest
from casstore.manifest import Manifest
from casstore.oci import Descriptor

if TYPE_CHECKING:
    from casstore.pack import Place

_PACKS_TO_MATCH, _NEWEST_TO_MATCH = 32, 4  # packs that a sample is in, and artifacts of each, to choose from
_LEAST_MATCH = 50  # one in so many chunks of a sample must be known
_FEW = 200  # entries that are looked up one by one


@dataclass(frozen=True, slots=True)
class Entry:
    """A snapshot as the catalog knows it. Sizes in bytes."""

    digest: Digest
    names: tuple[str, ...]
    manifest: Manifest
    allocated: int
    """Bytes in extents of its disks."""
    stored: int
    """Bytes of all its blobs."""
    unique: int
    """Bytes of the blobs that no other snapshot in the store uses."""
    packed: int
    """Bytes of its packs."""
    plain: int
    """Plain bytes of all chunks in its packs."""
    children: int
    """How many snapshots in the store name it as their parent."""

    @property
    def id(self) -> Digest:
        """sha256 of the snapshot manifest's canonical bytes."""
        return self.manifest.id

    @property
    def called(self) -> tuple[str, str]:
        """What children call it: the id, and what its own form of the manifest says."""
        return str(self.id), self.manifest.known_as


@dataclass(frozen=True, slots=True)
class Step:
    """What a snapshot adds, in bytes of blobs."""

    parent: Digest | None
    """The snapshot here that it names as its parent; of several that are called alike the newest."""
    added: int
    """Bytes of the blobs that its parent has not; of one without a parent here, of all its blobs."""
    new: int
    """Bytes of the blobs that no snapshot from before it has. Those of all snapshots add up to what is stored."""


def lookup(db: sqlite3.Connection, ids: Sequence[ChunkId]) -> dict[ChunkId, list[Place]]:
    """See Catalog.lookup."""
    from casstore.pack import Place, StoredPack

    wanted = {chunk_id[: tables.ID]: chunk_id for chunk_id in ids}
    rows: list[tuple[bytes, int, int, bytes | None]] = []
    for batch in tables.batches(list(wanted)):
        query = (
            "SELECT id, c.pack, c.chunk, base FROM chunks AS c LEFT JOIN deltas USING (pack, chunk)"
            f" WHERE id IN ({tables.marks(batch)})"
        )
        rows += db.execute(query, batch)
    packs: dict[int, StoredPack] = {}
    for keys in tables.batches(list({row[1] for row in rows})):
        query = f"SELECT key, digest, size, directory FROM blobs WHERE key IN ({tables.marks(keys)})"
        for key, hex_, size, directory in db.execute(query, keys):
            packs[key] = StoredPack(Descriptor(media_type=spec.MEDIA_PACK, digest=Digest(hex_), size=size), directory)
    usable = tables.usable_deltas(db, [(pack, chunk, base) for _, pack, chunk, base in rows if base is not None])
    found: dict[ChunkId, list[Place]] = {}
    for half, key, chunk, base in rows:
        if key in packs and (base is None or (key, chunk) in usable):
            found.setdefault(wanted[half], []).append(Place(packs[key], chunk))
    for places in found.values():
        places.sort(key=lambda place: (place.pack.descriptor.digest, place.chunk))
    return found


def best_match(db: sqlite3.Connection, ids: Collection[ChunkId]) -> Digest | None:
    """See Catalog.best_match."""
    known: dict[int, set[bytes]] = {}  # per pack, which of them it holds
    for batch in tables.batches(list({chunk_id[: tables.ID] for chunk_id in ids})):
        query = f"SELECT pack, id FROM chunks WHERE id IN ({tables.marks(batch)})"
        for pack, half in db.execute(query, batch):
            known.setdefault(pack, set()).add(half)
    digests: dict[int, str] = {}
    for keys in tables.batches(list(known)):
        digests |= dict(db.execute(f"SELECT key, digest FROM blobs WHERE key IN ({tables.marks(keys)})", keys))
    packs = sorted(digests, key=lambda pack: (-len(known[pack]), digests[pack]))[:_PACKS_TO_MATCH]
    newest = "SELECT artifact FROM uses WHERE blob = ? ORDER BY artifact DESC LIMIT ?"
    candidates = {row[0] for pack in packs for row in db.execute(newest, (pack, _NEWEST_TO_MATCH))}
    best, most = None, max(0, len(ids) // _LEAST_MATCH)
    query = f"SELECT blob FROM uses WHERE artifact = ? AND blob IN ({tables.marks(packs)})"
    for artifact in sorted(candidates, reverse=True):
        shared = set().union(*(known[row[0]] for row in db.execute(query, (artifact, *packs))))
        if len(shared) > most:
            best, most = artifact, len(shared)
    row = db.execute("SELECT digest FROM artifacts WHERE key = ?", (best,)).fetchone()
    return None if row is None else Digest(row[0])


def entries(db: sqlite3.Connection, wanted: Sequence[str] | None) -> list[Entry]:
    """Those with these hexadecimal digests, or all; newest first.

    With several queries over all tables, or with a few short ones for each that is wanted.
    """
    columns = (
        "SELECT key, digest, id, config, allocated, stored, packed, plain, size, known_as, media_type, labels"
        " FROM artifacts"
    )
    if wanted is not None and len(wanted) <= _FEW:
        rows = [row for hex_ in wanted for row in db.execute(f"{columns} WHERE digest = ?", (hex_,))]
        names, unique, children = _one_by_one(db, rows)
    else:
        chosen = None if wanted is None else set(wanted)
        rows = [row for row in db.execute(columns) if chosen is None or row[1] in chosen]
        names, unique, children = _all_at_once(db)
        if wanted is None:
            _require_right_names(db, names, {row[0]: row[1] for row in rows})
    result = [
        Entry(
            digest=Digest(hex_),
            names=tuple(names.get(key, ())),
            manifest=_manifest(config, id_, media_type, labels),
            allocated=allocated,
            stored=stored,
            unique=unique.get(key, 0) + size,
            packed=packed,
            plain=plain,
            children=sum(children.get(called, 0) for called in {f"sha256:{id_}", known_as}),
        )
        for key, hex_, id_, config, allocated, stored, packed, plain, size, known_as, media_type, labels in rows
    ]
    result.sort(key=lambda entry: entry.digest.hex)
    result.sort(key=lambda entry: entry.manifest.created_at, reverse=True)
    return result


_PARENTS = """
SELECT key, (
    SELECT up.key FROM artifacts AS up
    WHERE (up.known_as = mine.parent OR (up.id = substr(mine.parent, 8) AND mine.parent GLOB 'sha256:*'))
        AND up.key <> mine.key
    ORDER BY up.created_at DESC, up.digest LIMIT 1
) FROM artifacts AS mine WHERE parent NOTNULL
"""


def steps(db: sqlite3.Connection) -> dict[str, Step]:
    """Of each artifact, by its hexadecimal digest."""
    digests: dict[int, str] = dict(db.execute("SELECT key, digest FROM artifacts"))
    parents = {child: parent for child, parent in db.execute(_PARENTS) if parent is not None}
    added: dict[int, int] = dict(db.execute("SELECT key, size FROM artifacts"))
    new = dict(added)
    # A digest that is listed as two kinds of blob is stored once. Keys are in the order of time.
    query = (
        "SELECT b.digest, b.size, u.artifact FROM blobs AS b JOIN uses AS u ON u.blob = b.key"
        " GROUP BY b.digest, u.artifact ORDER BY b.digest, u.artifact"
    )
    for _, rows in groupby(db.execute(query), itemgetter(0)):
        users = {artifact: size for _, size, artifact in rows}
        new[next(iter(users))] += next(iter(users.values()))
        for artifact, size in users.items():
            if parents.get(artifact) not in users:
                added[artifact] += size
    found = {}
    for key, hex_ in digests.items():
        parent = digests.get(parents.get(key, -1))
        found[hex_] = Step(None if parent is None else Digest(parent), added[key], new[key])
    return found


_Details = tuple[dict[int, list[str]], dict[int, int], dict[str, int]]
"""Names and unique bytes by key, children by what they call their parent."""

# A blob of one artifact, and of none that lists the same bytes as something else.
_UNIQUE = """
SELECT first, SUM(size) FROM (
    SELECT size, (SELECT MIN(artifact) FROM uses WHERE blob = key) AS first,
        (SELECT MAX(artifact) FROM uses WHERE blob = key) AS last
    FROM blobs AS mine WHERE NOT EXISTS
        (SELECT 1 FROM blobs AS other WHERE other.digest = mine.digest AND other.media_type <> mine.media_type) {}
) WHERE first = last {} GROUP BY first
"""
_UNIQUE_TO_ONE = _UNIQUE.format("AND key IN (SELECT blob FROM uses WHERE artifact = ?1)", "AND first = ?1")
_UNIQUE_TO_EACH = _UNIQUE.format("", "")


def _one_by_one(db: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> _Details:
    names: dict[int, list[str]] = {}
    unique: dict[int, int] = {}
    children: dict[str, int] = {}
    for key, _, id_, *_, known_as, _, _ in rows:
        query = "SELECT name FROM refs WHERE artifact = ? ORDER BY name"
        names[key] = [row[0] for row in db.execute(query, (key,))]
        unique |= dict(db.execute(_UNIQUE_TO_ONE, (key,)))
        query = "SELECT COUNT(*) FROM artifacts WHERE parent = ?"
        for called in (f"sha256:{id_}", known_as):
            children[called] = db.execute(query, (called,)).fetchone()[0]
    return names, unique, children


def _all_at_once(db: sqlite3.Connection) -> _Details:
    names: dict[int, list[str]] = {}
    for name, key in db.execute("SELECT name, artifact FROM refs ORDER BY name"):
        names.setdefault(key, []).append(name)
    children = dict(db.execute("SELECT parent, COUNT(*) FROM artifacts WHERE parent NOTNULL GROUP BY parent"))
    return names, dict(db.execute(_UNIQUE_TO_EACH)), children


def _manifest(config: object, id_: str, media_type: str, labels: str | None) -> Manifest:
    """A snapshot manifest as it was stored."""
    if isinstance(config, bytes) and Digest.of(config).hex == id_:
        beside = None if labels is None else json.loads(labels)
        return parse_trusted(config, media_type, subject=f"catalog entry {id_}", labels=beside)
    raise _damaged(f"entry {id_!r}")


def _require_right_names(db: sqlite3.Connection, names: Mapping[int, list[str]], digests: Mapping[int, str]) -> None:
    """What opening a store does not read again, listing it compares."""
    row = db.execute("SELECT value FROM seen WHERE what = ?", (tables.REFS,)).fetchone()
    refs = {name: digests.get(key, "") for key, mine in names.items() for name in mine}
    if row is not None and row[0] != tables.fingerprint(refs):
        raise _damaged("names")


def _damaged(what: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(f"catalog: {what}: damaged")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
