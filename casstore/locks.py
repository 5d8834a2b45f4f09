"""The locks of a store. All are flocked, and never read.

    lock        held shared for a look-up or a commit, exclusively by gc while it re-reads the roots and renames garbage
    gate.lock   passed by who wants `lock` shared; gc keeps it closed while it waits: so it waits for those inside only
    refs.lock   held around every change of a ref, until index.json is derived again

Who holds two of them took them in this order: gate.lock, lock, refs.lock.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from casstore import durable
from casstore.durable import Lock
from casstore.errors import StorageError, storage_errors

_LOCK, _GATE, _REFS = NAMES = ("lock", "gate.lock", "refs.lock")


class StoreLocks:
    """The locks of the store that is at `path` now, and not of one that takes its place. `wait` is the most seconds to
    wait for one of them.

    Every lock raises StoreLocked when another process holds it for too long, or the file system cannot lock; and
    StorageError as `require_same`.
    """

    def __init__(self, path: str, *, wait: float) -> None:
        self._path, self._wait = path, wait
        self._identity = self._look()

    def _look(self) -> tuple[int, int]:
        with storage_errors(f"store {self._path!r}"):
            info = os.stat(self._path)
        return info.st_dev, info.st_ino

    def require_same(self) -> None:
        """Raise StorageError when another directory, or none, has the store's path since it was opened. What was to be
        done to the one must not be done to the other.
        """
        with contextlib.suppress(StorageError):
            if self._look() == self._identity:
                return
        raise StorageError(
            f"store {self._path!r}: expected the directory that was opened, got another one or none: it was moved or"
            " replaced meanwhile; look where it is now, and try again"
        )

    def refs(self, *, wait: float | None = None) -> Lock:
        """Take `refs.lock`."""
        return self._take(_REFS, wait=wait)

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Hold `lock` with others."""
        with self._take(_GATE, shared=True):
            held = self._take(_LOCK, shared=True)
        with held:
            yield

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold `lock` alone, and the gate closed."""
        with self._take(_GATE), self._take(_LOCK):
            yield

    def _take(self, name: str, *, shared: bool = False, wait: float | None = None) -> Lock:
        """A lock of this store, also where something takes its path while this process waits."""
        self.require_same()
        held = durable.lock(os.path.join(self._path, name), shared=shared, wait=self._wait if wait is None else wait)
        try:
            self.require_same()
        except BaseException:
            held.release()
            raise
        return held
