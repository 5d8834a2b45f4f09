"""The catalog: what a walk of the refs tells, kept in SQLite so that nobody needs to walk again.

It is a pure function of that walk: delete it at any time and nothing is lost. Opening a store compares the refs with
what the catalog saw last, parses what is new (each manifest, map and pack directory once: content never changes) and
forgets what no ref reaches any more.

A chunk is listed when its bytes were verified for one of the artifacts here: it lies in a full frame, or in a delta
frame whose base lies in a full frame of a pack of the same artifact. Nothing else may ever be a dedup hit.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from casstore import spec
from casstore.artifact import Artifact, verified_chunks
from casstore.capture import Place, StoredPack
from casstore.digest import ChunkId, Digest
from casstore.errors import CasstoreError, StoreLocked
from casstore.manifest import Manifest
from casstore.names import SnapshotName
from casstore.oci import Descriptor

_VERSION = 1
_BUSY = 60.0  # seconds that a writer waits for another
_BATCH = 500  # SQL variables in a query

_SCHEMA = """
CREATE TABLE artifacts (
    key INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, id TEXT NOT NULL, parent TEXT, created_at TEXT NOT NULL,
    config BLOB NOT NULL, size INTEGER NOT NULL, allocated INTEGER NOT NULL
);
CREATE INDEX artifacts_id ON artifacts (id);
CREATE INDEX artifacts_parent ON artifacts (parent);
CREATE TABLE refs (name TEXT PRIMARY KEY, artifact INTEGER NOT NULL REFERENCES artifacts (key)) WITHOUT ROWID;
CREATE INDEX refs_artifact ON refs (artifact);
CREATE TABLE blobs (key INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, media_type TEXT NOT NULL,
    size INTEGER NOT NULL, directory BLOB);
CREATE TABLE uses (artifact INTEGER NOT NULL REFERENCES artifacts (key), blob INTEGER NOT NULL REFERENCES blobs (key),
    PRIMARY KEY (artifact, blob)) WITHOUT ROWID;
CREATE INDEX uses_blob ON uses (blob);
CREATE TABLE chunks (id BLOB NOT NULL, pack INTEGER NOT NULL REFERENCES blobs (key), chunk INTEGER NOT NULL,
    PRIMARY KEY (id, pack, chunk)) WITHOUT ROWID;
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
    """The catalog in the file `path`; in memory for None."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        try:
            self._db = self._connect()
        except sqlite3.DatabaseError as error:
            if path is None or isinstance(error, sqlite3.OperationalError):
                raise StoreLocked(f"catalog {path!r}: {error}") from error
            os.unlink(path)  # damaged, and derived: made anew by the next sync
            self._db = self._connect()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path or ":memory:", timeout=_BUSY, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = DELETE")
            db.execute("PRAGMA synchronous = OFF")  # derived: a torn catalog is detected or made anew, never trusted
            if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                _create(db)
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def clear(self) -> None:
        """Forget everything."""
        _create(self._db)

    def refs(self) -> dict[SnapshotName, Digest]:
        """The refs that it saw last."""
        rows = self._db.execute("SELECT name, digest FROM refs JOIN artifacts ON artifact = key")
        return {SnapshotName(name): Digest(hex_) for name, hex_ in rows}

    def sync(
        self, read_refs: Callable[[], Mapping[SnapshotName, Digest]], load: Callable[[Digest], Artifact]
    ) -> dict[SnapshotName, CasstoreError]:
        """Catch up with the refs; returns the names whose artifacts cannot be loaded, and why."""
        refs = read_refs()
        if refs == self.refs():
            return {}
        failed: dict[Digest, CasstoreError] = {}
        with self._writing() as db:
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
        where, wanted = "", []
        if digests is not None:
            wanted = [digest.hex for digest in digests]
            where = f"WHERE digest IN ({','.join('?' * len(wanted))})"
        rows = self._db.execute(
            f"SELECT key, digest, config, allocated, size FROM artifacts {where} ORDER BY created_at DESC, digest",
            wanted,
        ).fetchall()
        names: dict[int, list[str]] = {}
        for name, key in self._db.execute("SELECT name, artifact FROM refs ORDER BY name"):
            names.setdefault(key, []).append(name)
        stored = dict(
            self._db.execute("SELECT artifact, SUM(size) FROM uses JOIN blobs ON key = blob GROUP BY artifact")
        )
        unique = dict(
            self._db.execute(
                "SELECT MIN(artifact), SUM(size) FROM (SELECT blob, MIN(artifact) AS artifact FROM uses GROUP BY blob"
                " HAVING COUNT(*) = 1) JOIN blobs ON key = blob GROUP BY artifact"
            )
        )
        children = dict(self._db.execute("SELECT parent, COUNT(*) FROM artifacts WHERE parent NOTNULL GROUP BY parent"))
        result = []
        for key, hex_, config, allocated, size in rows:
            manifest = Manifest.from_dict(json.loads(config), subject=f"catalog entry {hex_}")
            result.append(
                Entry(
                    digest=Digest(hex_),
                    names=tuple(names.get(key, ())),
                    manifest=manifest,
                    allocated=allocated,
                    stored=stored.get(key, 0) + size,
                    unique=unique.get(key, 0) + size,
                    children=children.get(str(manifest.id), 0),
                )
            )
        return result

    def find(self, prefix: str) -> list[Digest]:
        """The artifacts whose digest or id starts with these hexadecimal digits."""
        rows = self._db.execute(
            "SELECT digest FROM artifacts WHERE substr(digest, 1, ?1) = ?2 OR substr(id, 1, ?1) = ?2 ORDER BY digest",
            (len(prefix), prefix),
        )
        return [Digest(row[0]) for row in rows]

    def lookup(self, ids: Sequence[ChunkId]) -> dict[ChunkId, list[Place]]:
        """Where these chunks are stored; several places in a fixed order. Missing ones are left out."""
        found: dict[ChunkId, list[Place]] = {}
        for at in range(0, len(ids), _BATCH):
            batch = ids[at : at + _BATCH]
            rows = self._db.execute(
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
        rows = self._db.execute("SELECT chunk FROM chunks JOIN blobs ON key = pack WHERE digest = ?", (pack.hex,))
        return [row[0] for row in rows]

    def blobs(self) -> set[Digest]:
        """Every blob that some ref reaches, the manifests included."""
        rows = self._db.execute("SELECT digest FROM blobs UNION SELECT digest FROM artifacts")
        return {Digest(row[0]) for row in rows}

    def dump(self) -> dict[str, Any]:
        """The whole content without its internal keys: equal for equal walks. For tests and `check`."""
        query = self._db.execute
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
            "chunks": sorted(query("SELECT id, digest, chunk FROM chunks JOIN blobs ON key = pack")),
        }


def _create(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            db.execute(f'DROP TABLE "{name}"')
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _insert(db: sqlite3.Connection, artifact: Artifact) -> None:
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
            (blob.digest.hex, blob.media_type, blob.size, None if directory is None else directory.digest),
        )
        blob_key = db.execute("SELECT key FROM blobs WHERE digest = ?", (blob.digest.hex,)).fetchone()[0]
        db.execute("INSERT INTO uses VALUES (?, ?)", (key, blob_key))
        if directory is not None:
            usable = np.flatnonzero(verified_chunks(artifact, directory)).tolist()
            rows = ((directory.chunk_id(chunk), blob_key, chunk) for chunk in usable)
            db.executemany("INSERT OR IGNORE INTO chunks VALUES (?, ?, ?)", rows)


def _replace_refs(db: sqlite3.Connection, refs: Mapping[SnapshotName, Digest]) -> None:
    db.execute("DELETE FROM refs")
    keys = {Digest(hex_): key for key, hex_ in db.execute("SELECT key, digest FROM artifacts")}
    db.executemany("INSERT INTO refs VALUES (?, ?)", [(name, keys[digest]) for name, digest in refs.items()])


def _forget_unreachable(db: sqlite3.Connection) -> None:
    gone = "SELECT key FROM artifacts WHERE key NOT IN (SELECT artifact FROM refs)"
    lost = db.execute(gone).fetchall()
    if not lost:
        return
    db.execute(f"DELETE FROM uses WHERE artifact IN ({gone})")
    db.execute("DELETE FROM artifacts WHERE key NOT IN (SELECT artifact FROM refs)")
    unused = "SELECT key FROM blobs WHERE key NOT IN (SELECT blob FROM uses)"
    db.execute(f"DELETE FROM chunks WHERE pack IN ({unused})")
    db.execute("DELETE FROM blobs WHERE key NOT IN (SELECT blob FROM uses)")
