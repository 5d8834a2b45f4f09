"""The trash: where removed refs are kept until gc, and where gc puts garbage for the moment that it takes to unlink it.

    trash/<name>@<stamp>   a removed ref, as it was in refs/; the stamp is when, in nanoseconds since 1970 UTC
    trash/<64 hex>, op-*   garbage

All names that one command removes have one stamp, and it is later than any other in the trash, whatever the clock says.
Stamp 0 is for names that nobody removed with casstore: they were found to be gone from refs/. What a name stood for
that was taken over lies here as well.
Anything else in the directory is not ours, and is neither read nor removed. A name is put here and taken back with
refs.lock held, and dropped with the store's lock held exclusively.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from casstore import durable
from casstore.blobs import is_plain_directory
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import InvalidName, storage_errors
from casstore.links import NotARef, read_link, target_of
from casstore.names import parse_name

_REMOVED = re.compile(r"(.+)@(0|[1-9][0-9]{0,29})\Z", re.DOTALL | re.ASCII)
_GARBAGE = re.compile(r"(?:[0-9a-f]{64}|op-[0-9a-f]{16})\Z")
_SECOND = 10**9  # nanoseconds
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_SHOWN = 5
_VANISHED = 0  # the stamp of a name that nobody removed
_NEVER = 10**29  # ns; a stamp that no clock has given, and that leaves no room for a later one


def is_ours(name: str) -> bool:
    """Whether a file in the trash has a name that only casstore gives."""
    return bool(_REMOVED.match(name) or _GARBAGE.match(name))


@dataclass(frozen=True, slots=True)
class RemovedRef:
    """A ref in the trash."""

    name: str
    stamp: int
    """When it was removed, in nanoseconds since 1970 UTC: equal for all that one command removed. 0: nobody did."""
    digest: Digest | None
    """What it stands for; None where that is no snapshot: a broken ref, or that of a referrer."""

    @property
    def file(self) -> str:
        """Its file's name in the trash."""
        return _file(self.name, self.stamp)

    @property
    def has_vanished(self) -> bool:
        """Whether nobody removed it with casstore: it was gone."""
        return self.stamp == _VANISHED

    @property
    def time(self) -> datetime | None:
        """When it was removed; None where no clock can have said so."""
        if self.has_vanished:
            return None
        try:
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.stamp // 1000)
        except OverflowError:
            return None

    def is_younger(self, seconds: float, *, now: int) -> bool:
        """Whether it was removed less than that long ago; one from the future, as after the clock was set back, is."""
        return now - self.stamp < seconds * _SECOND


def vanished_text(refs: Sequence[RemovedRef]) -> str:
    """What people are to know of names that are gone though nobody removed them."""
    first = refs[0].name
    if len(refs) == 1:
        return (
            f"snapshot {first}: its name is gone from refs/, and casstore did not remove it; casstore undo {first}"
            f" takes it back, casstore rm {first} lets it go"
        )
    shown = ", ".join(ref.name for ref in refs[:_SHOWN]) + (f" and {len(refs) - _SHOWN} more" if refs[_SHOWN:] else "")
    return (
        f"snapshots {shown}: their names are gone from refs/, and casstore did not remove them; casstore undo NAME"
        " takes one back, casstore rm NAME lets one go, and casstore undo --list shows all"
    )


class Trash:
    """The trash in the directory `path`."""

    def __init__(self, path: str, durability: Durability) -> None:
        self.path: str = path
        self._durability = durability

    def read(self) -> list[RemovedRef]:
        """Every removed ref, the last removed first, then by name.

        Raises:
            CorruptContent: something else has the directory's place.
        """
        with storage_errors("reading the trash"):
            found = [self._look(name, stamp) for name, stamp in self._removed()]
        return sorted(found, key=lambda ref: (-ref.stamp, ref.name))

    def vanished(self) -> list[RemovedRef]:
        """The names of snapshots that were gone from refs/, sorted; raises as `read`."""
        with storage_errors("reading the trash"):
            found = [self._look(name, stamp) for name, stamp in self._removed() if stamp == _VANISHED]
        return sorted((ref for ref in found if ref.digest is not None), key=lambda ref: ref.name)

    def files(self) -> dict[str, str]:
        """The file of each removed ref, and the ref's name. No file's name is ever used again; raises as `read`."""
        with storage_errors("reading the trash"):
            return {_file(name, stamp): name for name, stamp in self._removed()}

    def _removed(self) -> list[tuple[str, int]]:
        if not is_plain_directory(self.path):
            return []
        return [(match[1], int(match[2])) for match in map(_REMOVED.match, os.listdir(self.path)) if match]

    def _look(self, name: str, stamp: int) -> RemovedRef:
        try:
            return RemovedRef(parse_name(name), stamp, read_link(self._place(name, stamp)))
        except (InvalidName, NotARef, FileNotFoundError):
            return RemovedRef(name, stamp, None)

    def _place(self, name: str, stamp: int) -> str:
        return os.path.join(self.path, _file(name, stamp))

    def next_stamp(self) -> int:
        """A stamp for what is removed now. Call with refs.lock held."""
        with storage_errors("reading the trash"):
            later = [stamp + 1 for _, stamp in self._removed()]
        return max([time.time_ns(), *(stamp for stamp in later if stamp < _NEVER)])

    def take(self, folder: int, name: str, stamp: int) -> bool:
        """Move the ref `name` of an open directory here; durable after `sync`. On a full disk, where there is no room
        for it here, it is removed for good, and False is returned: else nothing could ever be removed.

        Raises:
            FileNotFoundError: there is none.
        """
        there = []
        with _or_without_space(lambda: os.unlink(name, dir_fd=folder)):
            durable.make_part(self.path, self._durability)
            with durable.opened_directory(self.path) as here:
                durable.move_between(folder, name, here, _file(name, stamp))
            there.append(name)
        return bool(there)

    def keep(self, name: str, digest: Digest) -> RemovedRef | None:
        """Note what a name stood for that is about to be taken over, durably; None where a full disk has no room for
        that. Call with refs.lock held.
        """
        ref = RemovedRef(name, self.next_stamp(), digest)
        return self._note([ref])

    def note_vanished(self, gone: Mapping[str, Digest]) -> bool:
        """Note names that are gone from refs/, though nobody removed them, durably; False where a full disk has no room
        for that. Call with refs.lock held.
        """
        for ref in self.vanished():
            if ref.name in gone and ref.digest != gone[ref.name]:
                self.let_go(ref, self.next_stamp())  # it was lost before, and made again since
        return self._note([RemovedRef(name, _VANISHED, digest) for name, digest in gone.items()]) is not None

    def _note(self, refs: Sequence[RemovedRef]) -> RemovedRef | None:
        with storage_errors("writing to the trash"):
            try:
                durable.make_part(self.path, self._durability)
                with durable.opened_directory(self.path) as folder:
                    for ref in refs:
                        if ref.digest is not None:
                            with contextlib.suppress(FileExistsError):
                                os.symlink(target_of(ref.digest), ref.file, dir_fd=folder)
            except OSError as error:
                if error.errno not in _NO_SPACE:
                    raise
                return None
        self.sync()
        return refs[-1]

    def let_go(self, ref: RemovedRef, stamp: int) -> None:
        """Let a name that nobody removed count as removed at `stamp`, durably. Call with refs.lock held."""
        with storage_errors(f"removing {ref.name}", on=self.path), durable.opened_directory(self.path) as folder:
            durable.move_between(folder, ref.file, folder, _file(ref.name, stamp))
        self.sync()

    def sync(self) -> None:
        """Make what was taken, or dropped, durable."""
        if is_plain_directory(self.path):
            with storage_errors("syncing the trash"):
                self._durability.sync_directory(self.path)

    def drop(self, refs: Iterable[RemovedRef]) -> None:
        """Remove refs from the trash, whatever lies there in their place."""
        self._unlink(lambda _: [ref.file for ref in refs])

    def set_aside(self, folder: int, names: Iterable[str]) -> None:
        """Move garbage in an open directory here, under its own names. Where a full disk has no room for it here, it is
        removed at once.
        """
        for name in names:
            # An operation that just ended removes its directory itself.
            with contextlib.suppress(FileNotFoundError), _or_without_space(partial(_remove, folder, name)):
                durable.make_part(self.path)
                with durable.opened_directory(self.path) as here:
                    durable.move_between(folder, name, here, name)

    def remove_garbage(self) -> None:
        """Remove what `set_aside` has put here, now or before an interruption."""
        self._unlink(lambda names: filter(_GARBAGE.match, names))

    def _unlink(self, choose: Callable[[Sequence[str]], Iterable[str]]) -> None:
        """Remove some of the files; through the directory's descriptor, so that a symlink made meanwhile leads nowhere
        else.
        """
        if not is_plain_directory(self.path):
            return
        with storage_errors("emptying the trash"), durable.opened_directory(self.path) as folder:
            for name in choose(os.listdir(folder)):
                with contextlib.suppress(FileNotFoundError):
                    _remove(folder, name)


def _file(name: str, stamp: int) -> str:
    return f"{name}@{stamp}"


@contextlib.contextmanager
def _or_without_space(instead: Callable[[], object]) -> Iterator[None]:
    """Do something else where the block finds no space: a directory may need a block more for a new name."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        instead()


def _remove(folder: int, name: str) -> None:
    """Remove what has a name in an open directory, whatever it is."""
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        shutil.rmtree(name, ignore_errors=True, dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)
