"""What is derived from the refs, the catalog and index.json, is kept in step with them.

How the files looked when that was so last is remembered in the catalog, as facts that stay true whatever happens:
"when refs/ and blobs/ looked like this, the refs were those", "an index.json with these bytes says the same as those
refs". So a store in which nothing is new is opened without reading refs or index.json. After a change of a ref the refs
are read once, index.json is written once, and the catalog gets the difference, all before refs.lock is let go.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Self

from casstore.catalog import Catalog
from casstore.digest import Digest
from casstore.errors import CasstoreError, CorruptContent, StorageError, StoreLocked, UsageError
from casstore.names import SnapshotName, parse_name
from casstore.refs import BrokenRef
from casstore.stamps import stamp
from casstore.storedir import Reading, StoreDirectory
from casstore.storeindex import IndexFile, StoreIndex
from casstore.tables import REFS, fingerprint

if TYPE_CHECKING:
    from casstore.artifact import Artifact

_CATALOG = "catalog.sqlite"
# Facts that are remembered, besides REFS. Each starts with what it is about.
_REFS_STAMP = "refs stamp"  # stamp of refs/ and blobs/, fingerprint of the refs
_INDEX = "index"  # sha256 of an index.json, fingerprint of the refs that it says, how many entries are not ours
_NAMED = "named"  # fingerprint of all refs, those of referrers included
_INDEX_STAMP = "index stamp"  # stamp of index.json, then as above
_OUTLIVED = "outlived"  # files of the trash whose names were there again, or still, after they lay in it


class Derived:
    """The catalog and index.json of an open store; `load` reads an artifact."""

    def __init__(self, directory: StoreDirectory, catalog: Catalog, load: Callable[[Digest], Artifact]) -> None:
        self.catalog: Catalog = catalog
        self._directory, self._load = directory, load
        self.failed: Mapping[SnapshotName, CasstoreError] = {}
        """Refs to artifacts that cannot be loaded, when they were read last."""
        self.broken: Sequence[BrokenRef] = ()
        """Refs that lead to no blob."""
        directory.follow = self._follow
        catalog.walk_with(lambda: directory.read().refs, load)
        self.catch_up()
        if not directory.read_only:
            self._mend_index()

    @classmethod
    def open(cls, directory: StoreDirectory) -> Self:
        """With the catalog in the store's file; in memory for a store that cannot be written."""
        path = None if directory.read_only else os.path.join(directory.path, _CATALOG)
        catalog = Catalog(path, wait=directory.options.wait)

        def load(digest: Digest) -> Artifact:
            from casstore.artifact import Artifact

            return Artifact.load(directory.blobs, directory.resolve(str(digest)), check=False)

        try:
            return cls(directory, catalog, load)
        except BaseException:
            catalog.close()
            raise

    def close(self) -> None:
        """Close the catalog."""
        self.catalog.close()

    def catch_up(self) -> None:
        """Let the catalog follow the refs."""
        now, seen = self._directory.refs_stamp(), self.catalog.recall()
        if now is not None and seen.get(_REFS_STAMP) == f"{now} {seen.get(REFS)}":
            self.failed, self.broken = {}, ()
            return
        if not self._directory.is_changing:  # else what is derived follows soon, and looks then
            self._note_vanished(self._directory.holding_refs())
        reading, looked = Reading({}, {}, []), None
        removed: Mapping[str, str] = {}

        def read() -> Mapping[SnapshotName, Digest]:
            nonlocal reading, looked, removed
            looked, removed = self._directory.refs_stamp(), self._removed()  # before they are read
            reading = self._directory.read()
            return reading.refs

        def facts() -> Mapping[str, str]:
            known = {_NAMED: _named(reading), _OUTLIVED: _outlived(reading, removed)}
            if looked is None or reading.broken:
                return known  # what is wrong with a ref is told each time
            return {**known, _REFS_STAMP: f"{looked} {_fingerprint(reading)}"}

        self.failed = self.catalog.sync(read, self._load, facts=facts)
        self.broken = reading.broken

    def _note_vanished(self, lock: AbstractContextManager[object]) -> None:
        """Let the trash tell of names that are gone, though nobody removed them with casstore, before the catalog, and
        with it everybody, forgets them. Where that cannot be done, as on a full disk, it just goes on.
        """
        if self._directory.read_only:
            return
        with contextlib.suppress(StorageError, StoreLocked, CorruptContent):
            if self._vanished():
                with lock:
                    self.catalog.remember({_REFS_STAMP: ""})  # so that one is noticed that was deleted meanwhile
                    gone = self._vanished()
                    if gone:
                        self._directory.trash.note_vanished(gone)

    def _vanished(self) -> dict[str, Digest]:
        """The names that the catalog saw last, that are not there, and of which the trash has no later removal.

        The catalog is not synced: after a power cut it may be from before a name moved on and was removed. So what it
        says the name stood for does not count, but which removals it had outlived by then.
        """
        if self.catalog.in_memory:
            return {}  # it is this process's, and nobody has told it of what others removed
        seen, refs = self.catalog.refs(), self._directory.refs
        there = refs.names() | refs.gone_for_good
        gone = {str(name): digest for name, digest in seen.items() if name not in there and _is_sound(name, digest)}
        if not gone:
            return {}
        past = outlived(self.catalog.recall())
        removed = {name for file, name in self._directory.trash.files().items() if file not in past}
        return {name: digest for name, digest in gone.items() if name not in removed}

    def _removed(self) -> Mapping[str, str]:
        """The files of the trash; none where it cannot be read."""
        with contextlib.suppress(StorageError, CorruptContent):
            return self._directory.trash.files()
        return {}

    def foreign(self) -> Sequence[str]:
        """Digests in index.json that another tool added.

        Raises:
            StorageError: it cannot be read.
        """
        now, seen = stamp(self._directory.index.path), self.catalog.recall()
        if now is not None and _without_others(seen) and seen.get(_INDEX_STAMP) == f"{now} {seen[_INDEX]}":
            return []
        return [str(entry["digest"]) for entry in self._directory.foreign_entries()]

    def _follow(self) -> bool:
        """After a change of the refs, with refs.lock held; False where the catalog has no file that says the same."""
        self._note_vanished(contextlib.nullcontext())
        seen, removed, reading = self.catalog.recall(), self._removed(), self._directory.read()
        facts = {_NAMED: _named(reading), _OUTLIVED: _outlived(reading, removed)}
        try:
            index = self._directory.derive_index(reading, known=_without_others(seen))
            facts |= _facts(reading, index)
        finally:  # on a full disk, too
            self.failed = self.catalog.sync(lambda: reading.refs, self._load, facts=lambda: facts)
            self.broken = reading.broken
        return not self.catalog.in_memory

    def _mend_index(self) -> None:
        """Derive index.json again if it does not say what the refs say."""
        index, seen = self._directory.index, self.catalog.recall()
        now, known, refs = stamp(index.path), seen.get(_INDEX, ""), seen.get(_NAMED, seen.get(REFS))
        about = known.split(" ")
        if now is not None and seen.get(_INDEX_STAMP) == f"{now} {known}" and about[1:2] == [refs]:
            return
        with contextlib.suppress(StorageError):
            facts = {}
            digest = index.digest()
            if about[:2] != [digest, refs]:
                reading = self._directory.read()
                right = None if about[0] == digest else index.read(reading.named)  # known to say what other refs said
                if right is None:
                    now = None
                    mended = self._directory.mend_index(_without_others(seen))
                    if mended is None:
                        return
                    reading, right = mended
                facts = _facts(reading, right)
            if now is not None:
                facts[_INDEX_STAMP] = f"{now} {facts.get(_INDEX, known)}"
            self.catalog.remember(facts)


def _is_sound(name: str, digest: Digest) -> bool:
    """Whether a catalog that may be damaged says a name and a digest."""
    try:
        return parse_name(name) == name and Digest.parse(str(digest)) == digest
    except UsageError:
        return False


def _fingerprint(reading: Reading) -> str:
    return fingerprint({name: digest.hex for name, digest in reading.refs.items()})


def _named(reading: Reading) -> str:
    """Stands for all that index.json has to say; without referrers, the same as `_fingerprint`."""
    return fingerprint({name: digest.hex for name, digest in reading.named.items()})


def _facts(reading: Reading, index: IndexFile) -> dict[str, str]:
    """That this index.json says what these refs say."""
    named = _named(reading)
    return {_INDEX: f"{index.digest} {named} {len(index.others)}", _NAMED: named}


def _outlived(reading: Reading, removed: Mapping[str, str]) -> str:
    """What is remembered of the files that the trash had when these refs were read, or before."""
    return " ".join(file for file, name in removed.items() if name in reading.refs)


def outlived(seen: Mapping[str, str]) -> set[str]:
    """The files of the trash that are no news to a catalog: it saw their names stand after they lay there."""
    return set(seen.get(_OUTLIVED, "").split())


def _without_others(seen: Mapping[str, str]) -> IndexFile | None:
    """The index.json that was seen last, if all entries in it were ours.

    Others are not remembered: gc would take away what a catalog that a power cut tore has forgotten.
    """
    digest, _, rest = seen.get(_INDEX, "").partition(" ")
    return IndexFile(digest, ()) if rest.endswith(" 0") else None


def misremembers(seen: Mapping[str, str], index: StoreIndex) -> bool:
    """Whether a catalog remembers of the index.json that is there what that does not say.

    Raises:
        StorageError: it cannot be read.
    """
    digest, _, rest = seen.get(_INDEX, "").partition(" ")
    known = index.read() if digest == index.digest() else None
    if known is None:
        return False
    names = {name: named.hex for name, named in (index.names() or {}).items()}
    return rest != f"{fingerprint(names)} {len(known.others)}"
