"""The catalog's file as it is, to be compared with what a walk of the refs tells: read, and never mended here."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from casstore import tables
from casstore.catalog import Catalog
from casstore.derived import misremembers, outlived
from casstore.digest import Digest
from casstore.errors import StorageError
from casstore.names import SnapshotName
from casstore.storeindex import StoreIndex

if TYPE_CHECKING:
    from casstore.artifact import Artifact

_TRIES = 3  # to compare a catalog that others change meanwhile


class CatalogFile:
    """The catalog in the file `path`. Other processes are waited for at most `wait` seconds."""

    def __init__(self, path: str, *, wait: float) -> None:
        self._path, self._wait = path, wait

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        uri = f"file:{quote(os.fsencode(self._path))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=self._wait, isolation_level=None)) as db:
            yield db

    def problem(self) -> str | None:
        """What is wrong with it as a database, or with the refs that it saw last; None where nothing is."""
        try:
            with self._open() as db:
                if tables.version(db) != tables.VERSION:
                    return f"expected version {tables.VERSION}, got {tables.version(db)}"
                verdict = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
                if verdict != "ok":
                    return f"SQLite says: {ascii(verdict)[1:-1][:200]}"
                _parsed(tables.refs(db))
        except (sqlite3.Error, UnicodeDecodeError, ValueError, TypeError) as error:
            return f"it cannot be read: {error}"
        return None

    def refs(self) -> dict[str, Digest]:
        """The refs that it saw last. Call it where there is no `problem`.

        Raises:
            StorageError: now it cannot be read.
        """
        with _readable(), self._open() as db:
            return _parsed(tables.refs(db))

    def outlived(self) -> set[str]:
        """The files of the trash after which it saw their names; see `derived.outlived`. Raises as `refs`."""
        with _readable(), self._open() as db:
            return outlived(_seen(db))

    def misremembers(self, index: StoreIndex) -> bool:
        """Whether what it remembers of the names, or of index.json, is not so: that may hide a change or lose an entry.

        Raises:
            StorageError: index.json, or the catalog, cannot be read.
        """
        with _readable(), self._open() as db:
            seen, refs = _seen(db), tables.refs(db)
        wrong = refs and seen.get(tables.REFS) != tables.fingerprint(refs)
        return bool(wrong) or misremembers(seen, index)

    def compare(
        self,
        refs: Mapping[SnapshotName, Digest],
        load: Callable[[Digest], Artifact],
        *,
        reread: Callable[[], Mapping[SnapshotName, Digest]],
        scratch: str | None,
    ) -> str | None:
        """Walk `refs` with `load`; if nothing is wrong with them, the table in which it does not say what was found.
        Where it differs, others may have changed it meanwhile: then `reread` gives other refs. What is found is kept in
        the file `scratch`, or in memory.
        """
        with closing(Catalog(scratch)) as walked:
            for _ in range(_TRIES):
                now = refs
                if walked.sync(partial(dict, now), load):
                    break
                table = self._difference(walked)
                refs = reread()
                if table is None:
                    break
                if refs == now:
                    return table
        return None

    def _difference(self, walked: Catalog) -> str | None:
        try:
            with self._open() as db:
                db.execute("PRAGMA temp_store = FILE")  # to sort in
                return walked.difference(db)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            return f"which cannot be read: {error}"


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(f"reading the catalog: {error}") from error


def _seen(db: sqlite3.Connection) -> dict[str, str]:
    return dict(db.execute("SELECT what, value FROM seen WHERE typeof(value) = 'text'"))


def _parsed(refs: Mapping[str, str]) -> dict[str, Digest]:
    return {name: Digest.parse(f"sha256:{hex_}") for name, hex_ in refs.items()}
