"""Who may read and who may write a store.

The mode of its directory alone says who may read it: 0700, or 0755 for a shared one. What is inside has fixed modes,
whatever the umask was: directories 0755, blobs 0444, other files 0644; so a store can be shared, or made private again,
by changing that one mode. Only the owner ever writes: who can write to one of these directories can replace blobs and
change what names stand for, and a sticky bit does not keep him from adding names.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence

from casstore import durable
from casstore.blobs import is_plain_directory

PRIVATE, SHARED = 0o700, 0o755
_PARTS = ("", "refs", "blobs", "blobs/sha256", "tmp", "trash", "quarantine", "state", "cache")
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_ANY_WRITE = stat.S_IWUSR | _OTHERS


class Owners:
    """Whose blobs in a directory may be trusted to stay as they are: those of its owner, and of whoever looks."""

    def __init__(self, directory: str) -> None:
        self._known = {0, os.geteuid()}
        with contextlib.suppress(OSError):
            self._known.add(os.lstat(directory).st_uid)

    def may_others_write(self, info: os.stat_result) -> bool:
        """Whether a blob's file is writable, or belongs to somebody who can make it so."""
        return bool(info.st_mode & _ANY_WRITE) or info.st_uid not in self._known


def share(root: str) -> None:
    """Let everybody read the store, also one whose parts an odd umask has closed."""
    for part in _PARTS:
        path = os.path.join(root, part)
        if is_plain_directory(path):
            durable.set_mode(path, SHARED)


def make_private(root: str) -> None:
    """Close a directory to all but its owner, if this user is that."""
    if os.stat(root).st_uid == os.geteuid():
        durable.set_mode(os.path.join(root, "."), PRIVATE)  # it may be named by a symlink


def is_open(mode: int) -> bool:
    """Whether others than its owner may do anything with a directory of this mode."""
    return bool(mode & (stat.S_IRWXG | stat.S_IRWXO))


def mode_of(root: str) -> int:
    """The mode that says who may read a store."""
    return stat.S_IMODE(os.stat(root).st_mode)


def writable_by_others(root: str) -> Iterator[tuple[str, int]]:
    """The directories of a store, relative to it, that more users than the owner may write to, and their modes."""
    for part in _PARTS:
        try:
            info = os.stat(os.path.join(root, part), follow_symlinks=False)
        except OSError:
            continue  # not made yet; or its parent is closed to this user, and then to others as well
        if stat.S_ISDIR(info.st_mode) and info.st_mode & _OTHERS:
            yield part or ".", stat.S_IMODE(info.st_mode)


def warnings(root: str, *, unasked: bool = False) -> Sequence[str]:
    """What the owner of a store should know about its permissions; `unasked` of one that was made just now, and nobody
    said who may read it.
    """
    loose = [f"{part} ({mode:04o})" for part, mode in writable_by_others(root)]
    if not loose:
        if unasked and is_open(mode := mode_of(root)):
            problem = f"it was made in a directory that others than its owner may use ({mode:04o})"
            return (f"store {root!r}: {problem}, so they can read what is kept here; chmod 0700 {root!r} ends that",)
        return ()
    problem = f"others than its owner may write to {', '.join(loose)}, and so can replace what is kept here"
    return (f"store {root!r}: {problem}; chmod -R go-w {root!r} ends that",)
