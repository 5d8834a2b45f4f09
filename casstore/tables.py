"""The catalog's tables, and how what a walk finds gets into them and out again.

    artifacts   one per snapshot; the keys are in the order of time, so "the newest" needs no sorting; `known_as` is
                what children call it, `labels` those that are no part of the config
    refs        name -> artifact
    blobs       what artifacts name, per digest and media type; of a pack also its directory's stamp and plain bytes
    uses        artifact -> blob
    chunks      the first 16 bytes of a chunk's id -> pack, number in it; for all chunks of all packs
    deltas      which of the chunks lie in delta frames, and the first 16 bytes of their base's id
    forgotten   how many rows of `chunks` are of packs that are in `blobs` no more
    seen        what the files of the store looked like: no part of the walk

Adding an artifact costs what it brings: its own rows, one of `uses` per blob, and the chunks of packs that no other one
had. The rows of `chunks` lie in the order of the ids, so those of a forgotten pack could only be found by going
through all; that is done once they are the greater part. Until then nothing leads to them: keys of blobs never return.

Half an id is enough to find a chunk, because what is found is compared with the pack's directory. It is enough for the
bases of deltas, which are not compared again, because two chunks that share 16 bytes of a BLAKE3 cannot be made.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from functools import cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

from casstore.digest import Digest
from casstore.manifest import Dialect, created_time

if TYPE_CHECKING:
    from casstore.artifact import Artifact
    from casstore.pack import PackDirectory

T = TypeVar("T")

VERSION = 5
REFS = "refs"
"""The name of a fact in `seen`: the fingerprint of the refs."""
ID = 16
"""Bytes of a chunk's id that are kept."""
_BATCH = 500  # SQL variables in a query
_LAST = (1 << 43) - 2  # milliseconds since 1970: the year 2248
_SPARE = 10_000  # rows of forgotten packs that are always tolerated

_SCHEMA = """
CREATE TABLE artifacts (
    key INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, id TEXT NOT NULL, parent TEXT, image TEXT NOT NULL,
    created_at TEXT NOT NULL, config BLOB NOT NULL, size INTEGER NOT NULL, allocated INTEGER NOT NULL,
    stored INTEGER NOT NULL, packed INTEGER NOT NULL, plain INTEGER NOT NULL, known_as TEXT NOT NULL,
    media_type TEXT NOT NULL, labels TEXT
);
CREATE INDEX artifacts_id ON artifacts (id);
CREATE INDEX artifacts_known_as ON artifacts (known_as);
CREATE INDEX artifacts_parent ON artifacts (parent);
CREATE INDEX artifacts_image ON artifacts (image);
CREATE TABLE refs (name TEXT PRIMARY KEY, artifact INTEGER NOT NULL REFERENCES artifacts (key)) WITHOUT ROWID;
CREATE INDEX refs_artifact ON refs (artifact);
CREATE TABLE blobs (key INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL, media_type TEXT NOT NULL,
    size INTEGER NOT NULL, directory BLOB, chunks INTEGER NOT NULL, plain INTEGER NOT NULL,
    UNIQUE (digest, media_type));
CREATE TABLE uses (artifact INTEGER NOT NULL REFERENCES artifacts (key), blob INTEGER NOT NULL REFERENCES blobs (key),
    PRIMARY KEY (artifact, blob)) WITHOUT ROWID;
CREATE INDEX uses_blob ON uses (blob);
CREATE TABLE chunks (id BLOB NOT NULL, pack INTEGER NOT NULL, chunk INTEGER NOT NULL, PRIMARY KEY (id, pack, chunk))
    WITHOUT ROWID;
CREATE TABLE deltas (pack INTEGER NOT NULL REFERENCES blobs (key), chunk INTEGER NOT NULL, base BLOB NOT NULL,
    PRIMARY KEY (pack, chunk)) WITHOUT ROWID;
CREATE TABLE forgotten (chunks INTEGER NOT NULL);
INSERT INTO forgotten VALUES (0);
CREATE TABLE seen (what TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


def version(db: sqlite3.Connection) -> int:
    """Which tables are there."""
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    return found


def create(db: sqlite3.Connection, *, only_if_old: bool = False) -> None:
    """Drop all tables and make them empty; `only_if_old`: unless another process was faster."""
    db.execute("BEGIN IMMEDIATE")
    try:
        if only_if_old and version(db) == VERSION:
            db.execute("ROLLBACK")
            return
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite@_%' ESCAPE '@'"
        for (name,) in db.execute(query).fetchall():
            db.execute(f'DROP TABLE "{name}"')
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """As many of the values as a query can have."""
    for at in range(0, len(values), _BATCH):
        yield values[at : at + _BATCH]


def marks(values: Sized) -> str:
    """A `?` for each value."""
    return ",".join("?" * len(values))


def insert(db: sqlite3.Connection, artifact: Artifact) -> None:
    """Add an artifact, which is not there yet. The directories of packs that are known are not read.

    Raises:
        NotFound, CorruptContent, DocumentError: the directory of a new pack cannot be read; some rows may be there.
    """
    config, manifest = artifact.config, artifact.manifest
    key = _free_key(db, artifact.digest, config.created_at)
    children = list(dict.fromkeys(manifest.children))
    known: dict[tuple[str, str], tuple[int, int]] = {}
    for batch in batches([blob.digest.hex for blob in children]):
        query = f"SELECT digest, media_type, key, plain FROM blobs WHERE digest IN ({marks(batch)})"
        known |= {(hex_, kind): (blob, plain) for hex_, kind, blob, plain in db.execute(query, batch)}
    numbers = {(pack.digest.hex, pack.media_type): n for n, pack in enumerate(manifest.packs)}
    packed = plain = 0
    for blob in children:
        name = blob.digest.hex, blob.media_type
        number = numbers.get(name)
        if name not in known:
            directory = None if number is None else artifact.directories[number]
            stamp = None if directory is None else directory.stamp
            length = 0 if directory is None else int(directory.lengths.sum(dtype="int64"))
            row = db.execute(
                "INSERT INTO blobs (digest, media_type, size, directory, chunks, plain) VALUES (?, ?, ?, ?, ?, ?)",
                (*name, blob.size, stamp, 0 if directory is None else len(directory), length),
            )
            known[name] = row.lastrowid or 0, length
            if directory is not None:
                _insert_chunks(db, known[name][0], directory)
        if number is not None:
            packed, plain = packed + blob.size, plain + known[name][1]
    stored = len(manifest.raw) + sum({blob.digest: blob.size for blob in children}.values())
    db.execute(
        "INSERT INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            key,
            artifact.digest.hex,
            config.id.hex,
            config.parent,
            config.image.manifest_digest,
            config.created_at,
            config.to_bytes(),
            len(manifest.raw),
            sum(disk.allocated for disk in artifact.map.disks),
            stored,
            packed,
            plain,
            config.known_as,
            config.media_type,
            json.dumps(dict(config.labels)) if config.dialect is Dialect.V07 else None,
        ),
    )
    used = sorted(known[blob.digest.hex, blob.media_type][0] for blob in children)
    db.executemany("INSERT INTO uses VALUES (?, ?)", [(key, blob) for blob in used])


def _free_key(db: sqlite3.Connection, digest: Digest, created_at: str) -> int:
    """Keys are in the order of time, and do not depend on when an artifact came here: not those of equal times, too."""
    time = created_time(created_at)
    milliseconds = 0 if time is None else min(max(0, int(time.timestamp() * 1000)), _LAST)
    key = milliseconds << 20 | int(digest.hex[:5], 16)
    while db.execute("SELECT 1 FROM artifacts WHERE key = ?", (key,)).fetchone():
        key += 1
    return key


def _insert_chunks(db: sqlite3.Connection, pack: int, directory: PackDirectory) -> None:
    from casstore.frame import FrameKind

    ids = directory.ids
    rows = sorted((ids[at : at + ID], pack, at // 32) for at in range(0, len(ids), 32))
    db.executemany("INSERT INTO chunks VALUES (?, ?, ?)", rows)
    frames = (directory.kinds == FrameKind.DELTA).nonzero()[0]
    deltas = zip(directory.first_chunk[frames].tolist(), range(0, len(directory.base_ids), 32), strict=True)
    db.executemany(
        "INSERT INTO deltas VALUES (?, ?, ?)", [(pack, chunk, directory.base_ids[at : at + ID]) for chunk, at in deltas]
    )


def update_refs(db: sqlite3.Connection, new: Mapping[str, str], gone: Iterable[str]) -> None:
    """Let the names of `new` stand for these digests, whose artifacts are there, and those of `gone` for nothing.

    Artifacts that lose their last name are forgotten.
    """
    losers = set()
    for name in (*new, *gone):
        losers |= {row[0] for row in db.execute("SELECT artifact FROM refs WHERE name = ?", (name,))}
        db.execute("DELETE FROM refs WHERE name = ?", (name,))
    db.executemany("INSERT INTO refs SELECT ?, key FROM artifacts WHERE digest = ?", list(new.items()))
    for key in losers:
        if not db.execute("SELECT 1 FROM refs WHERE artifact = ? LIMIT 1", (key,)).fetchone():
            _forget(db, key)
    _drop_forgotten_chunks(db)


def refs(db: sqlite3.Connection) -> dict[str, str]:
    """Name -> hexadecimal digest."""
    return dict(db.execute("SELECT name, digest FROM refs JOIN artifacts ON artifact = key"))


def fingerprint(refs: Mapping[str, str]) -> str:
    """Equal for equal refs: name -> hexadecimal digest."""
    lines = (f"{name} {hex_}\n" for name, hex_ in sorted(refs.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def has(db: sqlite3.Connection, digest: str) -> bool:
    """Whether there is an artifact of this hexadecimal digest."""
    return db.execute("SELECT 1 FROM artifacts WHERE digest = ?", (digest,)).fetchone() is not None


def _forget(db: sqlite3.Connection, artifact: int) -> None:
    blobs = [row[0] for row in db.execute("SELECT blob FROM uses WHERE artifact = ?", (artifact,))]
    db.execute("DELETE FROM uses WHERE artifact = ?", (artifact,))
    db.execute("DELETE FROM artifacts WHERE key = ?", (artifact,))
    for blob in blobs:
        if not db.execute("SELECT 1 FROM uses WHERE blob = ? LIMIT 1", (blob,)).fetchone():
            db.execute("UPDATE forgotten SET chunks = chunks + (SELECT chunks FROM blobs WHERE key = ?)", (blob,))
            db.execute("DELETE FROM blobs WHERE key = ?", (blob,))
            db.execute("DELETE FROM deltas WHERE pack = ?", (blob,))


def _drop_forgotten_chunks(db: sqlite3.Connection) -> None:
    """Go through all chunks once those of forgotten packs are more than the others."""
    forgotten: int = db.execute("SELECT chunks FROM forgotten").fetchone()[0]
    if forgotten > _SPARE and forgotten > db.execute("SELECT TOTAL(chunks) FROM blobs").fetchone()[0]:
        db.execute("DELETE FROM chunks WHERE pack NOT IN (SELECT key FROM blobs)")
        db.execute("UPDATE forgotten SET chunks = 0")


def usable_deltas(db: sqlite3.Connection, deltas: Sequence[tuple[int, int, bytes]]) -> set[tuple[int, int]]:
    """Those of some deltas (pack, chunk, base) that were verified: an artifact uses their pack, and one that has the
    base in a full frame, and whoever brought that artifact decoded them.
    """
    holders: dict[bytes, list[int]] = {}
    for batch in batches(list({base for _, _, base in deltas})):
        query = (
            f"SELECT id, pack FROM chunks WHERE id IN ({marks(batch)}) AND NOT EXISTS"
            " (SELECT 1 FROM deltas WHERE deltas.pack = chunks.pack AND deltas.chunk = chunks.chunk)"
        )
        for base, pack in db.execute(query, batch):
            holders.setdefault(base, []).append(pack)

    @cache
    def together(one: int, other: int) -> bool:
        query = "SELECT 1 FROM uses AS a JOIN uses AS b USING (artifact) WHERE a.blob = ? AND b.blob = ? LIMIT 1"
        return db.execute(query, (one, other)).fetchone() is not None

    return {(pack, chunk) for pack, chunk, base in deltas if any(together(pack, at) for at in holders.get(base, ()))}


def stored_once(db: sqlite3.Connection, wanted: Sequence[str] | None) -> tuple[int, int, int]:
    """Bytes of all blobs, of the packs, and plain bytes in these, that all artifacts or some need together."""
    where = ""
    if wanted is not None:
        db.execute("CREATE TEMP TABLE IF NOT EXISTS wanted (digest TEXT PRIMARY KEY) WITHOUT ROWID")
        db.execute("DELETE FROM temp.wanted")
        db.executemany("INSERT OR IGNORE INTO temp.wanted VALUES (?)", [(digest,) for digest in wanted])
        where = "WHERE digest IN temp.wanted"
    used = f"key IN (SELECT blob FROM uses JOIN artifacts ON key = artifact {where})" if where else "TRUE"
    query = f"SELECT digest, size FROM blobs WHERE {used} UNION SELECT digest, size FROM artifacts {where}"
    stored: int = db.execute(f"SELECT COALESCE(SUM(size), 0) FROM ({query})").fetchone()[0]
    packs = f"SELECT COALESCE(SUM(size), 0), COALESCE(SUM(plain), 0) FROM blobs WHERE directory NOTNULL AND {used}"
    packed, plain = db.execute(packs).fetchone()
    return stored, packed, plain


_ARTIFACT = "digest, id, parent, known_as, image, created_at, media_type, config, labels, size, allocated, stored"
# CROSS JOIN goes through the first table in the order of an index: only rows that are equal so far are sorted.
_USES = "FROM artifacts a CROSS JOIN uses ON a.key = artifact CROSS JOIN blobs b ON b.key = blob"
_SAME = (
    ("refs", "SELECT name, digest FROM refs JOIN artifacts ON artifact = key ORDER BY name"),
    ("artifacts", f"SELECT {_ARTIFACT}, packed, plain FROM artifacts ORDER BY digest"),
    ("blobs", "SELECT digest, media_type, size, directory, chunks, plain FROM blobs ORDER BY digest, media_type"),
    ("uses", f"SELECT a.digest, b.digest, b.media_type {_USES} ORDER BY a.digest, b.digest, b.media_type"),
    ("chunks", "SELECT id, digest, chunk FROM chunks CROSS JOIN blobs ON key = pack ORDER BY id, digest, chunk"),
    ("deltas", "SELECT digest, chunk, base FROM blobs CROSS JOIN deltas ON key = pack ORDER BY digest, chunk"),
)


def difference(one: sqlite3.Connection, other: sqlite3.Connection) -> str | None:
    """The first table in which two catalogs do not say the same, whatever their keys are; None where there is none.
    Both are gone through row by row: nothing is held but what SQLite needs to sort.
    """
    for table, query in _SAME:
        if any(mine != theirs for mine, theirs in zip_longest(one.execute(query), other.execute(query))):
            return table
    return None


def dump(db: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All that a walk tells, without keys, sorted; of the chunks those that were verified."""

    def rows(query: str) -> list[tuple[Any, ...]]:
        return db.execute(query).fetchall()

    deltas = rows("SELECT pack, chunk, base FROM deltas")
    bad = {(pack, chunk) for pack, chunk, _ in deltas} - usable_deltas(db, deltas)
    chunks = rows("SELECT id, digest, chunk, pack FROM chunks JOIN blobs ON key = pack")
    return {
        "artifacts": sorted(rows(f"SELECT {_ARTIFACT}, packed, plain FROM artifacts")),
        "refs": sorted(refs(db).items()),
        "blobs": sorted(rows("SELECT digest, media_type, size, directory, chunks, plain FROM blobs")),
        "uses": sorted(rows(f"SELECT a.digest, b.digest {_USES}")),
        "chunks": sorted((id_, hex_, chunk) for id_, hex_, chunk, pack in chunks if (pack, chunk) not in bad),
        "deltas": sorted(rows("SELECT digest, chunk, base FROM deltas JOIN blobs ON key = pack")),
    }
