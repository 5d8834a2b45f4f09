"""What lies around in a store besides what its names need, and who else may write there."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence

from casstore import lastseen
from casstore.blobs import BlobDirectory
from casstore.checking.findings import Finding, Kind
from casstore.digest import Digest
from casstore.durable import is_temporary
from casstore.errors import CasstoreError, InvalidDigest
from casstore.lastseen import LastSeen
from casstore.operation import is_operation
from casstore.permissions import writable_by_others
from casstore.storedir import StoreDirectory
from casstore.trash import is_ours

_SHOWN = 5


def look_around(store: StoreDirectory, blobs: BlobDirectory) -> Iterator[Finding]:
    """Everything of that kind; what cannot be read is left out."""
    path = store.path
    strangers = [f"blobs/{name}" for name in _names(os.path.dirname(store.blobs.path)) if name != "sha256"]
    strangers += [f"blobs/sha256/{name}" for name in blobs.names() if not _is_blob(name)]
    strangers += [f"tmp/{name}" for name in _names(store.tmp) if not is_operation(name)]
    strangers += [f"trash/{name}" for name in _names(store.trash.path) if not is_ours(name)]
    for stranger in sorted(strangers):
        yield Finding(Kind.UNKNOWN_FILE, ascii(stranger)[1:-1], "it is not the store's")
    with contextlib.suppress(CasstoreError):
        removed = [ref.name for ref in store.trash.read() if ref.digest is not None and not ref.has_vanished]
        if removed:
            problem = f"{shortened(removed)}: casstore undo takes back what was removed, until casstore gc"
            yield Finding(Kind.REMOVED_REF, "trash", problem)
    yield from _quarantined(os.path.join(path, "quarantine"))
    yield from _look_at_state(store)
    for name, mode in writable_by_others(path):
        problem = f"expected a directory that only its owner may write to, got mode {mode:04o}; chmod go-w ends that"
        yield Finding(Kind.LOOSE_PERMISSIONS, name, problem)


def _quarantined(path: str) -> Iterator[Finding]:
    count = total = 0
    for name in _names(path):
        with contextlib.suppress(OSError):
            total += os.lstat(os.path.join(path, name)).st_size
        count += 1
    if count:
        problem = f"{count} damaged, {total} bytes, that repairs set aside; remove them when nobody needs them any more"
        yield Finding(Kind.QUARANTINED, "quarantine", problem)


def _look_at_state(store: StoreDirectory) -> Iterator[Finding]:
    record = LastSeen(store)
    folder, own = os.path.split(record.path)
    for name in sorted(set(_names(folder)) - {own}):
        kind = Kind.TEMPORARY if is_temporary(name) else Kind.UNKNOWN_FILE
        problem = "unfinished; gc removes it" if kind is Kind.TEMPORARY else "it is not the store's"
        yield Finding(kind, f"state/{ascii(name)[1:-1]}", problem)
    try:
        record.require_sound()
    except CasstoreError as error:
        yield Finding(Kind.DAMAGED_RECORD, lastseen.NAME, str(error))


def _names(path: str) -> Iterable[str]:
    """The names in a directory; none where there is none."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            return os.listdir(path)
    return ()


def _is_blob(name: str) -> bool:
    try:
        Digest.parse(f"sha256:{name}")
    except InvalidDigest:
        return False
    return True


def shortened(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
