"""The catalog: what a walk of the refs tells, kept in SQLite so that nobody needs to walk again.

It is a pure function of that walk: delete it at any time and nothing is lost. Opening a store compares the refs with
what the catalog saw last, parses what is new (each manifest, map and pack directory once: content never changes) and
forgets what no ref reaches any more.

What needs numpy is imported where it is used: most openings find nothing new to parse, and numpy takes longer to import
than `casstore list` may take.

A chunk is offered when its bytes were verified for one of the artifacts here: it lies in a full frame, or in a delta
frame whose base lies in a full frame of a pack of the same artifact. Nothing else may ever be a dedup hit.

A catalog that is damaged, or was deleted while it was open, is made anew by the call that notices; where it cannot be
kept in its file (no room, no permission) it is kept in memory.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from casstore import durable, log, queries, spec, tables
from casstore.digest import ChunkId, Digest
from casstore.errors import CasstoreError, StoreLocked
from casstore.names import SnapshotName
from casstore.queries import Entry, Step

if TYPE_CHECKING:
    from casstore.artifact import Artifact
    from casstore.pack import Place

__all__ = ["Catalog", "Entry"]

T = TypeVar("T")

_CACHE = 32 << 10  # KiB
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,  # a header that asks for a later SQLite; a table that is not there
    sqlite3.SQLITE_CONSTRAINT,  # rows that cannot be beside each other
    sqlite3.SQLITE_MISMATCH,
}
_FAILURES = (sqlite3.Error, UnicodeDecodeError)  # the latter for text, or an error's text, that damage made no UTF-8


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
        if self._path is not None:
            _clear(self._path, f"{self._path}-journal")
            durable.make_empty(self._path, mode=0o644)  # SQLite would let the umask decide; its journal's mode follows
        path = self._path or ":memory:"
        db = sqlite3.connect(path, timeout=self._wait, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = DELETE")
            db.execute("PRAGMA synchronous = OFF")  # derived: made anew when damaged, and no hit is taken on trust
            db.execute(f"PRAGMA cache_size = -{_CACHE}")
            db.execute("PRAGMA temp_store = MEMORY")
            if tables.version(db) != tables.VERSION:
                tables.create(db, only_if_old=True)
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
        log.info("store", "catalog %s: made anew%s: %s", self._path, ", in memory" if in_memory else "", error)
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

    @property
    def in_memory(self) -> bool:
        """Whether it has no file: none was wanted, or the file could not be used."""
        return self._path is None

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
        self._healed(lambda: tables.create(self._db))

    def refs(self) -> dict[SnapshotName, Digest]:
        """The refs that it saw last."""
        rows = self._healed(lambda: tables.refs(self._db))
        return {SnapshotName(name): Digest(hex_) for name, hex_ in rows.items()}

    def has(self, digest: Digest) -> bool:
        """Whether it knows this artifact."""
        return self._healed(lambda: tables.has(self._db, digest.hex))

    def names(self, digest: Digest) -> list[SnapshotName]:
        """The refs to an artifact that it saw last, in order."""
        rows = self._all(
            "SELECT name FROM refs JOIN artifacts ON artifact = key WHERE digest = ? ORDER BY name", (digest.hex,)
        )
        return [SnapshotName(row[0]) for row in rows]

    def walk_with(
        self, read_refs: Callable[[], Mapping[SnapshotName, Digest]], load: Callable[[Digest], Artifact]
    ) -> None:
        """Say how to fill a new database, if the one that is there is found to be damaged before the first `sync`."""
        self._walk = lambda: self._sync(read_refs, load, dict)

    def sync(
        self,
        read_refs: Callable[[], Mapping[SnapshotName, Digest]],
        load: Callable[[Digest], Artifact],
        *,
        facts: Callable[[], Mapping[str, str]] = dict,
    ) -> dict[SnapshotName, CasstoreError]:
        """Catch up with the refs; returns the names whose artifacts cannot be loaded, and why. What `facts` returns
        after the refs were read is remembered with them.
        """
        self._walk = lambda: self._sync(read_refs, load, facts)
        return self._healed(lambda: self._sync(read_refs, load, facts))

    def _sync(
        self,
        read_refs: Callable[[], Mapping[SnapshotName, Digest]],
        load: Callable[[Digest], Artifact],
        facts: Callable[[], Mapping[str, str]],
    ) -> dict[SnapshotName, CasstoreError]:
        refs = _hex(read_refs())
        if tables.refs(self._db) == refs:
            self._remember(facts())
            return {}
        failed: dict[str, CasstoreError] = {}
        with self._transaction("IMMEDIATE") as db:
            refs = _hex(read_refs())  # again, now that no other process changes the catalog
            known = tables.refs(db)
            for digest in {hex_: None for name, hex_ in refs.items() if known.get(name) != hex_}:
                if not tables.has(db, digest):
                    try:
                        with _savepoint(db):
                            tables.insert(db, load(Digest(digest)))
                    except CasstoreError as error:
                        failed[digest] = error
            sound = {name: digest for name, digest in refs.items() if digest not in failed}
            new = {name: digest for name, digest in sound.items() if known.get(name) != digest}
            tables.update_refs(db, new, known.keys() - sound.keys())
            told = (len(new), len(known.keys() - sound.keys()), len(failed))
            log.debug("store", "catalog %s: %s names new, %s gone, %s cannot be loaded", self._path, *told)
            self._remember({**facts(), tables.REFS: tables.fingerprint(sound)})
        return {SnapshotName(name): failed[digest] for name, digest in refs.items() if digest in failed}

    def recall(self) -> dict[str, str]:
        """What was remembered; under tables.REFS the fingerprint of the refs that it saw last."""
        return dict(self._all("SELECT what, value FROM seen WHERE typeof(value) = 'text'"))

    def remember(self, facts: Mapping[str, str]) -> None:
        """Remember facts about the store's files, by name. They are no part of the walk, and lost with the catalog."""
        self._healed(lambda: self._remember(facts))

    def _remember(self, facts: Mapping[str, str]) -> None:
        query = "INSERT OR REPLACE INTO seen VALUES (?, ?)"
        if self._db.in_transaction:
            self._db.executemany(query, list(facts.items()))
        elif facts:
            with self._transaction("IMMEDIATE") as db:
                db.executemany(query, list(facts.items()))

    def entries(self, digests: Iterable[Digest] | None = None) -> list[Entry]:
        """All snapshots, or those with these digests; newest first."""
        wanted = None if digests is None else [digest.hex for digest in digests]

        def read() -> list[Entry]:
            with self._transaction("DEFERRED") as db:  # several queries, one state
                return queries.entries(db, wanted)

        return self._healed(read)

    def stored_once(self, digests: Sequence[Digest] | None = None) -> tuple[int, int, int]:
        """Bytes of all blobs, of the packs, and plain bytes in these, that all artifacts or some need together."""
        wanted = None if digests is None else [digest.hex for digest in digests]
        return self._healed(lambda: tables.stored_once(self._db, wanted))

    def count(self) -> int:
        """How many snapshots there are."""
        count: int = self._all("SELECT COUNT(*) FROM artifacts")[0][0]
        return count

    def children(self, parent: Entry, *, most: int) -> list[str]:
        """A name of each of some snapshots that name this one as their parent, newest first."""
        rows = self._all(
            "SELECT MIN(name) FROM refs JOIN artifacts ON artifact = key WHERE parent IN (?, ?)"
            " GROUP BY key ORDER BY created_at DESC, digest LIMIT ?",
            (*parent.called, most),
        )
        return [row[0] for row in rows]

    def lineage(self, digest: Digest) -> list[Entry]:
        """An artifact's ancestors in the store, nearest first; of several that are called alike the newest counts.

        Names that are not made of the content may lead in a circle: the line ends before it closes.
        """
        query = """
            WITH RECURSIVE line (depth, key) AS (
                SELECT 0, key FROM artifacts WHERE digest = ?1
                UNION ALL
                SELECT depth + 1, (
                    SELECT up.key FROM artifacts AS up
                    WHERE up.known_as = mine.parent OR (up.id = substr(mine.parent, 8) AND mine.parent GLOB 'sha256:*')
                    ORDER BY up.created_at DESC, up.digest LIMIT 1
                ) AS above FROM line JOIN artifacts AS mine USING (key) WHERE above NOTNULL AND depth < ?2
            ) SELECT DISTINCT digest FROM line JOIN artifacts USING (key) WHERE digest <> ?1 ORDER BY depth
        """
        line = [Digest(row[0]) for row in self._all(query, (digest.hex, self.count()))]
        found = {entry.digest: entry for entry in self.entries(line)}
        return [found[ancestor] for ancestor in line if ancestor in found]

    def steps(self) -> tuple[list[Entry], dict[Digest, Step]]:
        """All snapshots, newest first, and what each of them adds."""

        def read() -> tuple[list[Entry], dict[str, Step]]:
            with self._transaction("DEFERRED") as db:
                return queries.entries(db, None), queries.steps(db)

        entries, steps = self._healed(read)
        return entries, {Digest(hex_): step for hex_, step in steps.items()}

    def find(self, prefix: str) -> list[Digest]:
        """The artifacts whose digest or id starts with these hexadecimal digits."""
        rows = self._all(
            "SELECT digest FROM artifacts WHERE digest >= ?1 AND digest < ?1 || 'g'"
            " UNION SELECT digest FROM artifacts WHERE id >= ?1 AND id < ?1 || 'g' ORDER BY digest",
            (prefix,),
        )
        return [Digest(row[0]) for row in rows]

    def lookup(self, ids: Sequence[ChunkId]) -> dict[ChunkId, list[Place]]:
        """Where these chunks are stored; several places in a fixed order. Missing ones are left out.

        Half an id is compared only: the caller compares what it gets with the pack's directory.
        """
        return self._healed(lambda: queries.lookup(self._db, ids))

    def newest_of_image(self, manifest_digest: str) -> Digest | None:
        """The newest artifact whose disk was made from the image that this digest pins."""
        rows = self._all("SELECT digest FROM artifacts WHERE image = ? ORDER BY key DESC LIMIT 1", (manifest_digest,))
        return Digest(rows[0][0]) if rows else None

    def best_match(self, ids: Sequence[ChunkId]) -> Digest | None:
        """The artifact that most likely shares most with a disk of which `ids` are a sample, some hundred chunks: the
        newest of those whose packs hold most of them. None where hardly any is known.
        """
        return self._healed(lambda: queries.best_match(self._db, set(ids)))

    def chunks_of(self, pack: Digest) -> list[int]:
        """The numbers of the chunks of a pack that were verified."""

        def read() -> list[int]:
            query = "SELECT key, chunks FROM blobs WHERE digest = ? AND media_type = ?"
            row = self._db.execute(query, (pack.hex, spec.MEDIA_PACK)).fetchone()
            if row is None:
                return []
            deltas = self._db.execute("SELECT pack, chunk, base FROM deltas WHERE pack = ?", row[:1]).fetchall()
            usable = tables.usable_deltas(self._db, deltas)
            bad = {chunk for pack_key, chunk, _ in deltas if (pack_key, chunk) not in usable}
            return [chunk for chunk in range(row[1]) if chunk not in bad]

        return self._healed(read)

    def blobs(self) -> set[Digest]:
        """Every blob that some ref reaches, the manifests included."""
        rows = self._all("SELECT digest FROM blobs UNION SELECT digest FROM artifacts")
        return {Digest(row[0]) for row in rows}

    def damaged(self, is_there: Callable[[Digest, int], bool]) -> set[Digest]:
        """The snapshots that need a blob of which `is_there`, called with its digest and bytes, says that it is not."""
        blobs = self._all("SELECT digest, size FROM blobs UNION SELECT digest, size FROM artifacts")
        bad = [hex_ for hex_, size in blobs if not is_there(Digest(hex_), size)]
        found: set[Digest] = set()
        for batch in tables.batches(bad):
            marks = tables.marks(batch)
            query = (
                "SELECT a.digest FROM artifacts AS a JOIN uses ON artifact = a.key JOIN blobs AS b ON blob = b.key"
                f" WHERE b.digest IN ({marks}) UNION SELECT digest FROM artifacts WHERE digest IN ({marks})"
            )
            found.update(Digest(row[0]) for row in self._all(query, [*batch, *batch]))
        return found

    def difference(self, other: sqlite3.Connection) -> str | None:
        """In which table another catalog does not say the same; see `tables.difference`."""
        return tables.difference(other, self._db)

    def dump(self) -> dict[str, Any]:
        """The whole content without its internal keys: equal for equal walks. For tests of small stores."""

        def read() -> dict[str, Any]:
            with self._transaction("DEFERRED") as db:
                return tables.dump(db)

        return self._healed(read)


def _hex(refs: Mapping[SnapshotName, Digest]) -> dict[str, str]:
    return {name: digest.hex for name, digest in refs.items()}


@contextlib.contextmanager
def _savepoint(db: sqlite3.Connection) -> Iterator[None]:
    """Undo what the block did when it fails."""
    db.execute("SAVEPOINT one")
    try:
        yield
    except CasstoreError:
        db.execute("ROLLBACK TO one")
        raise
    finally:
        if db.in_transaction:
            db.execute("RELEASE one")


def _clear(*paths: str) -> None:
    """Remove what is no regular file, and so was not made here: what a symlink leads to is not ours to write, and
    SQLite would wait for a FIFO. Raises OSError for a directory.
    """
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(path).st_mode):
                os.unlink(path)
