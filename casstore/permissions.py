"""Who may read and who may write a store.

The mode of its directory alone says who may read it: 0700, or 0755 for a shared one. What is inside has fixed modes,
whatever the umask was: directories 0755, blobs 0444, other files 0644; so a store can be shared, or made private again,
by changing that one mode. Only the owner ever writes: who can write to one of these directories can replace blobs and
change what names stand for, and a sticky bit does not keep him from adding names.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from casstore import durable
from casstore.blobs import is_plain_directory

PRIVATE, SHARED = 0o700, 0o755
_PARTS = ("", "refs", "blobs", "blobs/sha256", "tmp", "trash", "quarantine", "cache")
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def share(root: str) -> None:
    """Let everybody read the store, also one whose parts an odd umask has closed."""
    for part in _PARTS:
        path = os.path.join(root, part)
        if is_plain_directory(path):
            durable.set_mode(path, SHARED)


def writable_by_others(root: str) -> Iterator[tuple[str, int]]:
    """The directories of a store, relative to it, that more users than the owner may write to, and their modes."""
    for part in _PARTS:
        try:
            info = os.stat(os.path.join(root, part), follow_symlinks=False)
        except OSError:
            continue  # not made yet; or its parent is closed to this user, and then to others as well
        if stat.S_ISDIR(info.st_mode) and info.st_mode & _OTHERS:
            yield part or ".", stat.S_IMODE(info.st_mode)


def warnings(root: str) -> Sequence[str]:
    """What the owner of a store should know about its permissions."""
    loose = [f"{part} ({mode:04o})" for part, mode in writable_by_others(root)]
    if not loose:
        return ()
    problem = f"others than its owner may write to {', '.join(loose)}, and so can replace what is kept here"
    return (f"store {root!r}: {problem}; chmod -R go-w {root!r} ends that",)
