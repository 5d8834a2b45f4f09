"""The catalog: what a walk of the refs tells, kept in SQLite so that nobody needs to walk again.

It is a pure function of that walk: delete it at any time and nothing is lost. Opening a store compares the refs with
what the catalog saw last, parses what is new (each manifest, map and pack directory once: content never changes) and
forgets what no ref reaches any more.

What needs numpy is imported where it is used: most openings find nothing new to parse, and numpy takes longer to import
than `casstore list` may take.

A chunk is listed when its bytes were verified for one of the artifacts here: it lies in a full frame, or in a delta
frame whose base lies in a full frame of a pack of the same artifact. Nothing else may ever be a dedup hit.

A catalog that is damaged, or was deleted while it was open, is made anew by the call that notices; where it cannot be
kept in its file (no room, no permission) it is kept in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from casstore import spec
from casstore.digest import ChunkId, Digest
from casstore.errors import CasstoreError, StoreLocked
from casstore.manifest import Manifest
from casstore.names import SnapshotName
from casstore.oci import Descriptor

if TYPE_CHECKING:
    from casstore.artifact import Artifact
    from casstore.capture import Place

T = TypeVar("T")

_VERSION = 2
_BATCH = 500  # SQL variables in a query
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_FAILURES = (sqlite3.Error, UnicodeDecodeError)  # the latter for text, or an error's text, that damage made no UTF-8

_SCHEMA = """
CREATE TABLE artifacts (
    key INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, id TEXT NOT NULL, parent TEXT, created_at TEXT NOT NULL,
    config BLOB NOT NULL, size INTEGER NOT NULL, allocated INTEGER NOT NULL
);
CREATE INDEX artifacts_id ON artifacts (id);
CREATE INDEX artifacts_parent ON artifacts (parent);
CREATE TABLE refs (name TEXT PRIMARY KEY, artifact INTEGER NOT NULL REFERENCES artifacts (key)) WITHOUT ROWID;
CREATE INDEX refs_artifact ON refs (artifact);
CREATE TABLE blobs (key INTEGER PRIMARY KEY, digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL,
    directory BLOB, UNIQUE (digest, media_type));
CREATE TABLE uses (artifact INTEGER NOT NULL REFERENCES artifacts (key), blob INTEGER NOT NULL REFERENCES blobs (key),
    PRIMARY KEY (artifact, blob)) WITHOUT ROWID;
CREATE INDEX uses_blob ON uses (blob);
CREATE TABLE chunks (id BLOB NOT NULL, pack INTEGER NOT NULL REFERENCES blobs (key), chunk INTEGER NOT NULL,
    base BLOB, PRIMARY KEY (id, pack, chunk)) WITHOUT ROWID;
CREATE INDEX chunks_pack ON chunks (pack);
"""


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
    children: int
    """How many snapshots in the store name it as their parent."""

    @property
    def id(self) -> Digest:
        """sha256 of the snapshot manifest's canonical bytes."""
        return self.manifest.id


class Catalog:
    """The catalog in the file `path`; in memory for None. Other processes are waited for at most `wait` seconds."""

    def __init__(self, path: str | None, *, wait: float = 60.0) -> None:
        self._path, self._wait = path, wait
        self._walk: Callable[[], object] = dict
        try:
            self._db = self._connect()
        except (*_FAILURES, OSError) as error:
            self._replace(error, in_memory=False)

    def _connect(self) -> sqlite3.Connection:
        if self._path is not None and os.path.islink(self._path):
            os.unlink(self._path)  # not made here: what it leads to is not ours to write
        path = self._path or ":memory:"
        db = sqlite3.connect(path, timeout=self._wait, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = DELETE")
            db.execute("PRAGMA synchronous = OFF")  # derived: made anew when damaged, and no hit is taken on trust
            if _version(db) != _VERSION:
                _create(db, only_if_old=True)
        except BaseException:
            db.close()
            raise
        return db

    def _replace(self, error: Exception, *, in_memory: bool) -> None:
        """Go on with an empty catalog: in the file where that can be, else in memory.

        Raises:
            StoreLocked: the file is well, but another process has it to itself for too long.
        """
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF  # the primary code of an extended one
        if code in _BUSY:
            raise StoreLocked(
                f"catalog {self._path!r}: held by another process for more than {self._wait:g} s; try again, or wait"
                " longer"
            ) from error
        if self._path is not None and code in _DAMAGED:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        try:
            if in_memory:
                self._path = None
            self._db = self._connect()
        except (*_FAILURES, OSError):
            self._path = None
            self._db = self._connect()

    def _healed(self, work: Callable[[], T]) -> T:
        """`work()`; when the database fails it, once more on a new one, and then once more on one in memory."""
        for attempt in range(3):
            try:
                if attempt:
                    self._walk()
                return work()
            except _FAILURES as error:
                if attempt == 2:
                    raise
                self._db.close()
                self._replace(error, in_memory=attempt == 1)
        raise AssertionError("not reached")

    def _all(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self._healed(lambda: self._db.execute(query, values).fetchall())

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        self._db.execute(f"BEGIN {kind}")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # some errors end it on their own
                self._db.execute("ROLLBACK")
            raise

    def clear(self) -> None:
        """Forget everything."""
        self._healed(lambda: _create(self._db))

    def refs(self) -> dict[SnapshotName, Digest]:
        """The refs that it saw last."""
        rows = self._db.execute("SELECT name, digest FROM refs JOIN artifacts ON artifact = key")
        return {SnapshotName(name): Digest(hex_) for name, hex_ in rows}

    def sync(
        self, read_refs: Callable[[], Mapping[SnapshotName, Digest]], load: Callable[[Digest], Artifact]
    ) -> dict[SnapshotName, CasstoreError]:
        """Catch up with the refs; returns the names whose artifacts cannot be loaded, and why."""
        self._walk = lambda: self._sync(read_refs, load)
        return self._healed(lambda: self._sync(read_refs, load))

    def _sync(
        self, read_refs: Callable[[], Mapping[SnapshotName, Digest]], load: Callable[[Digest], Artifact]
    ) -> dict[SnapshotName, CasstoreError]:
        refs = read_refs()
        if refs == self.refs():
            return {}
        failed: dict[Digest, CasstoreError] = {}
        with self._transaction("IMMEDIATE") as db:
            refs = read_refs()  # again, now that no other process changes the catalog
            known = {Digest(row[0]) for row in db.execute("SELECT digest FROM artifacts")}
            for digest in dict.fromkeys(refs.values()):
                if digest not in known:
                    try:
                        _insert(db, load(digest))
                    except CasstoreError as error:
                        failed[digest] = error
            _replace_refs(db, {name: digest for name, digest in refs.items() if digest not in failed})
            _forget_unreachable(db)
        return {name: failed[digest] for name, digest in refs.items() if digest in failed}

    def entries(self, digests: Iterable[Digest] | None = None) -> list[Entry]:
        """All snapshots, or those with these digests; newest first."""
        wanted = None if digests is None else [digest.hex for digest in digests]

        def read() -> list[Entry]:
            with self._transaction("DEFERRED") as db:  # several queries, one state
                return _entries(db, wanted)

        return self._healed(read)

    def find(self, prefix: str) -> list[Digest]:
        """The artifacts whose digest or id starts with these hexadecimal digits."""
        rows = self._all(
            "SELECT digest FROM artifacts WHERE substr(digest, 1, ?1) = ?2 OR substr(id, 1, ?1) = ?2 ORDER BY digest",
            (len(prefix), prefix),
        )
        return [Digest(row[0]) for row in rows]

    def lookup(self, ids: Sequence[ChunkId]) -> dict[ChunkId, list[Place]]:
        """Where these chunks are stored; several places in a fixed order. Missing ones are left out."""
        from casstore.capture import Place, StoredPack

        found: dict[ChunkId, list[Place]] = {}
        for at in range(0, len(ids), _BATCH):
            batch = ids[at : at + _BATCH]
            rows = self._all(
                "SELECT id, chunk, digest, size, directory FROM chunks JOIN blobs ON key = pack"
                f" WHERE id IN ({','.join('?' * len(batch))}) ORDER BY id, digest, chunk",
                batch,
            )
            for chunk_id, chunk, hex_, size, directory in rows:
                pack = StoredPack(Descriptor(media_type=spec.MEDIA_PACK, digest=Digest(hex_), size=size), directory)
                found.setdefault(ChunkId(chunk_id), []).append(Place(pack, chunk))
        return found

    def chunks_of(self, pack: Digest) -> list[int]:
        """The numbers of the chunks of a pack that were verified."""
        rows = self._all("SELECT chunk FROM chunks JOIN blobs ON key = pack WHERE digest = ?", (pack.hex,))
        return [row[0] for row in rows]

    def blobs(self) -> set[Digest]:
        """Every blob that some ref reaches, the manifests included."""
        rows = self._all("SELECT digest FROM blobs UNION SELECT digest FROM artifacts")
        return {Digest(row[0]) for row in rows}

    def dump(self) -> dict[str, Any]:
        """The whole content without its internal keys: equal for equal walks. For tests and `check`."""
        query = self._all
        return {
            "artifacts": sorted(query("SELECT digest, id, parent, created_at, config, size, allocated FROM artifacts")),
            "refs": sorted(query("SELECT name, digest FROM refs JOIN artifacts ON artifact = key")),
            "blobs": sorted(query("SELECT digest, media_type, size, directory FROM blobs")),
            "uses": sorted(
                query(
                    "SELECT a.digest, b.digest FROM uses JOIN artifacts a ON a.key = artifact"
                    " JOIN blobs b ON b.key = blob"
                )
            ),
            "chunks": sorted(query("SELECT id, digest, chunk, base FROM chunks JOIN blobs ON key = pack")),
        }


def _entries(db: sqlite3.Connection, wanted: Sequence[str] | None) -> list[Entry]:
    where = "" if wanted is None else f"WHERE digest IN ({','.join('?' * len(wanted))})"
    rows = db.execute(
        f"SELECT key, digest, id, config, allocated, size FROM artifacts {where} ORDER BY created_at DESC, digest",
        wanted or (),
    ).fetchall()
    names: dict[int, list[str]] = {}
    for name, key in db.execute("SELECT name, artifact FROM refs ORDER BY name"):
        names.setdefault(key, []).append(name)
    stored = dict(db.execute("SELECT artifact, SUM(size) FROM uses JOIN blobs ON key = blob GROUP BY artifact"))
    unique = dict(
        db.execute(
            "SELECT MIN(artifact), SUM(size) FROM (SELECT blob, MIN(artifact) AS artifact FROM uses GROUP BY blob"
            " HAVING COUNT(*) = 1) JOIN blobs ON key = blob GROUP BY artifact"
        )
    )
    children = dict(db.execute("SELECT parent, COUNT(*) FROM artifacts WHERE parent NOTNULL GROUP BY parent"))
    result = []
    for key, hex_, id_, config, allocated, size in rows:
        manifest = _manifest(config, id_)
        result.append(
            Entry(
                digest=Digest(hex_),
                names=tuple(names.get(key, ())),
                manifest=manifest,
                allocated=allocated,
                stored=stored.get(key, 0) + size,
                unique=unique.get(key, 0) + size,
                children=children.get(f"sha256:{id_}", 0),
            )
        )
    return result


def _manifest(config: object, id_: str) -> Manifest:
    """A snapshot manifest as it was stored."""
    if isinstance(config, bytes) and Digest.of(config).hex == id_:
        return Manifest.from_dict(json.loads(config), subject=f"catalog entry {id_}")
    error = sqlite3.DatabaseError(f"catalog entry {id_!r} is damaged")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    raise error


def _version(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def _create(db: sqlite3.Connection, *, only_if_old: bool = False) -> None:
    """Drop all tables and make them empty; `only_if_old`: unless another process was faster."""
    db.execute("BEGIN IMMEDIATE")
    try:
        if only_if_old and _version(db) == _VERSION:
            db.execute("ROLLBACK")
            return
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            db.execute(f'DROP TABLE "{name}"')
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _insert(db: sqlite3.Connection, artifact: Artifact) -> None:
    import numpy as np

    from casstore.artifact import verified_chunks

    config, manifest = artifact.config, artifact.manifest
    key = db.execute(
        "INSERT INTO artifacts (digest, id, parent, created_at, config, size, allocated) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            artifact.digest.hex,
            config.id.hex,
            config.parent,
            config.created_at,
            config.to_bytes(),
            len(manifest.raw),
            sum(disk.allocated for disk in artifact.map.disks),
        ),
    ).lastrowid
    directories = dict(zip([pack.digest for pack in manifest.packs], artifact.directories, strict=True))
    for blob in dict.fromkeys(manifest.children):
        directory = directories.get(blob.digest)
        db.execute(
            "INSERT OR IGNORE INTO blobs (digest, media_type, size, directory) VALUES (?, ?, ?, ?)",
            (blob.digest.hex, blob.media_type, blob.size, None if directory is None else directory.stamp),
        )
        query = "SELECT key FROM blobs WHERE digest = ? AND media_type = ?"
        blob_key = db.execute(query, (blob.digest.hex, blob.media_type)).fetchone()[0]
        db.execute("INSERT INTO uses VALUES (?, ?)", (key, blob_key))
        if directory is not None:
            usable = np.flatnonzero(verified_chunks(artifact, directory)).tolist()
            frames = directory.chunk_frames().tolist()
            rows = ((directory.chunk_id(n), blob_key, n, directory.base_of(frames[n])) for n in usable)
            db.executemany("INSERT OR IGNORE INTO chunks VALUES (?, ?, ?, ?)", rows)


def _replace_refs(db: sqlite3.Connection, refs: Mapping[SnapshotName, Digest]) -> None:
    db.execute("DELETE FROM refs")
    keys = {Digest(hex_): key for key, hex_ in db.execute("SELECT key, digest FROM artifacts")}
    db.executemany("INSERT INTO refs VALUES (?, ?)", [(name, keys[digest]) for name, digest in refs.items()])


def _forget_unreachable(db: sqlite3.Connection) -> None:
    gone = [row[0] for row in db.execute("SELECT key FROM artifacts WHERE key NOT IN (SELECT artifact FROM refs)")]
    if not gone:
        return
    touched = set()
    for key in gone:
        touched |= {row[0] for row in db.execute("SELECT blob FROM uses WHERE artifact = ?", (key,))}
        db.execute("DELETE FROM uses WHERE artifact = ?", (key,))
        db.execute("DELETE FROM artifacts WHERE key = ?", (key,))
    for blob in touched:
        if db.execute("SELECT 1 FROM uses WHERE blob = ? LIMIT 1", (blob,)).fetchone():
            db.execute(_FORGET_DELTAS, (blob,))
        else:
            db.execute("DELETE FROM chunks WHERE pack = ?", (blob,))
            db.execute("DELETE FROM blobs WHERE key = ?", (blob,))


# Of a pack that others still use: the deltas whose base was verified for none of those.
_FORGET_DELTAS = """
DELETE FROM chunks WHERE pack = ?1 AND base NOTNULL AND NOT EXISTS (
    SELECT 1 FROM chunks AS full JOIN uses AS with_base ON with_base.blob = full.pack
    JOIN uses AS with_delta ON with_delta.artifact = with_base.artifact
    WHERE full.id = chunks.base AND full.base ISNULL AND with_delta.blob = ?1)
"""
