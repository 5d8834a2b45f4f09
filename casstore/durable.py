"""The only module that syncs, renames, links and locks. What it promises is what the store promises.

    a file is written     under a temporary name, synced, and only then renamed to its own name
    a name is durable     when its directory was synced after the rename
    a name is new         when link(2) made it: of two that want it one gets EEXIST
    a lock                is flock(2): it dies with its process, whatever happens to that
    a directory           that was opened stays the one that is meant, whatever takes its place

Durability.NONE leaves out every sync: after a power cut a store may then have lost or torn what was written last.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from enum import Enum
from typing import Self

from casstore import log
from casstore.errors import AlreadyExists, CorruptContent, StoreLocked, storage_errors

DIRECTORY_MODE = 0o755
_AT_FDCWD, _EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_LOCK_MODE = 0o644
_PLAIN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_POLL_FIRST, _POLL_MOST = 0.002, 0.1  # seconds between attempts for a lock
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp\Z", re.DOTALL)


class Durability(Enum):
    """Whether what was reported as done survives a power cut."""

    FULL = "full"
    NONE = "none"

    def sync_file(self, fd: int) -> None:
        """Write a file's data and metadata to the disk. An error is final: the kernel drops what it could not write."""
        if self is Durability.FULL:
            os.fsync(fd)

    def sync_directory(self, path: str, *, folder: int | None = None) -> None:
        """Write a directory's names to the disk; `path` may be relative to the open directory `folder`."""
        if self is Durability.FULL:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def open_directory(path: str, *below: str) -> int:
    """A descriptor of the directory `path`, or of one below it, which the caller closes. Neither it nor what is below
    it may be a symlink; in the way to it there may be some.

    Raises:
        FileNotFoundError: there is none.
        CorruptContent: a symlink or file has its place.
    """
    fd = None
    for name in (path, *below):
        try:
            inner = os.open(name, _PLAIN_DIRECTORY, dir_fd=fd)
        except NotADirectoryError:
            there = os.path.join(path, *below)
            raise CorruptContent(f"{there!r}: expected a directory, got a symlink or file") from None
        finally:
            if fd is not None:
                os.close(fd)
        fd = inner
    return inner


@contextlib.contextmanager
def opened_directory(path: str, *below: str) -> Iterator[int]:
    """As `open_directory`; closed when the block ends."""
    fd = open_directory(path, *below)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _folder_of(path: str) -> Iterator[tuple[int, str]]:
    """A descriptor of the directory of `path`, wherever a symlink leads, and the name in it."""
    directory, name = os.path.split(path)
    fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd, name
    finally:
        os.close(fd)


def make_directory(path: str, mode: int = DIRECTORY_MODE) -> None:
    """Make one directory. The umask may take bits of `mode` away, but its owner can always use it.

    Raises:
        FileExistsError: there is one.
    """
    os.mkdir(path, mode)
    mode = stat.S_IMODE(os.stat(path, follow_symlinks=False).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        set_mode(path, mode | stat.S_IRWXU)


def make_part(
    path: str,
    durability: Durability = Durability.NONE,
    *,
    mode: int = DIRECTORY_MODE,
    folder: int | None = None,
) -> None:
    """Make a directory of a store, if it is missing, with this mode whatever the umask is; `path` may be relative to
    the open directory `folder`. Its parent must be there: of a store that was moved away nothing is made again.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode, dir_fd=folder)
        set_mode(path, mode, folder=folder)
        durability.sync_directory(os.path.dirname(path) or ".", folder=folder)


def set_mode(path: str, mode: int, *, folder: int | None = None) -> None:
    """Set a directory's permissions, where they are others; that it hands its group on (set-group-ID) stays. `path` may
    be relative to the open directory `folder`.
    """
    now = stat.S_IMODE(os.stat(path, dir_fd=folder, follow_symlinks=False).st_mode)
    mode |= now & stat.S_ISGID
    if now == mode:
        return
    try:
        fd = os.open(path, _PLAIN_DIRECTORY, dir_fd=folder)
    except PermissionError:  # an umask closed it to its owner: then it cannot be opened
        os.chmod(path, mode, dir_fd=folder)
        return
    try:
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def make_directories(path: str, durability: Durability = Durability.FULL) -> None:
    """Make `path` and its missing parents, each as `make_directory` does, and their names durable."""
    path = os.path.abspath(path)
    missing = []
    while not os.path.isdir(path) and path != os.path.dirname(path):
        missing.append(path)
        path = os.path.dirname(path) or "."
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):
            make_directory(directory)
        durability.sync_directory(os.path.dirname(directory) or ".")


def replace_file(path: str, data: bytes, *, mode: int, durability: Durability = Durability.FULL) -> None:
    """Let `path` hold `data`, atomically: at any moment it is the old file or the new one.

    Raises:
        StorageError: the file system refused; the old file is untouched.
    """
    with storage_errors(f"writing {path!r}", on=path), _folder_of(path) as (folder, name):
        temporary = temporary_beside(name)
        try:
            fd = os.open(temporary, os.O_WRONLY | _NEW, 0o600, dir_fd=folder)
            try:
                write_all(fd, data)
                os.fchmod(fd, mode)
                durability.sync_file(fd)
            finally:
                os.close(fd)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
        durability.sync_directory(".", folder=folder)


def sync(path: str, durability: Durability) -> None:
    """Make a file that others have written durable, as it is now."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        durability.sync_file(fd)
    finally:
        os.close(fd)


def make_empty(path: str, *, mode: int) -> None:
    """Make an empty file with this mode whatever the umask is, unless there is something of the name."""
    with contextlib.suppress(FileExistsError):
        fd = os.open(path, os.O_WRONLY | _NEW, 0o600)
        os.fchmod(fd, mode)
        os.close(fd)


def temporary_beside(path: str) -> str:
    """An unused hidden name in the directory of `path`."""
    directory, name = os.path.split(path)
    # A character takes up to 4 of the 255 bytes that a name may have.
    return os.path.join(directory, f".{name[:50]}.{secrets.token_hex(6)}.tmp")


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that `temporary_beside` gives."""
    return _TEMPORARY.match(name) is not None


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`, however often write(2) takes only a part."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(fd, view) :]


def publish(temporary: str, path: str, *, replace: bool, durability: Durability, folder: int | None = None) -> None:
    """Give a finished file or symlink its own name: durable when this returns. Both may be relative to the open
    directory `folder`.

    Raises:
        AlreadyExists: the name is taken and `replace` is not set; of several at once exactly one gets it.
    """
    try:
        if replace:
            os.rename(temporary, path, src_dir_fd=folder, dst_dir_fd=folder)
        else:
            _rename_to_new(temporary, path, folder)
    except FileExistsError:
        raise _taken(path) from None
    durability.sync_directory(os.path.dirname(path) or ".", folder=folder)


def _taken(path: str) -> AlreadyExists:
    return AlreadyExists(f"{path!r} exists already; choose another name, or force with -f")


def _rename_to_new(temporary: str, path: str, folder: int | None) -> None:
    """Rename, but raise FileExistsError where that would replace something."""
    try:
        os.link(temporary, path, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
    else:
        os.unlink(temporary, dir_fd=folder)
        return
    # A file system without links, as FAT: an empty file takes the name first.
    os.close(os.open(path, os.O_WRONLY | _NEW, 0o600, dir_fd=folder))
    try:
        os.rename(temporary, path, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(path, dir_fd=folder)
        raise


def move(source: str, destination: str) -> None:
    """Rename within one file system; an existing file is replaced. Durable only after the directory is synced."""
    os.rename(source, destination)


def move_between(here: int, name: str, there: int, new_name: str) -> None:
    """As `move`, from one open directory to another."""
    os.rename(name, new_name, src_dir_fd=here, dst_dir_fd=there)


def link_between(here: int, name: str, there: int, new_name: str) -> None:
    """Let a file in one open directory have one more name in another one, where there must be nothing of that name."""
    os.link(name, new_name, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)


def keep_aside(path: str, place: str, durability: Durability) -> None:
    """Let `place` be a second name of whatever is at `path`, durably; or its only one, where it cannot have two: a
    directory, somebody else's file, a file system without links.
    """
    try:
        os.link(path, place, follow_symlinks=False)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
        os.rename(path, place)
        durability.sync_directory(os.path.dirname(path) or ".")
    durability.sync_directory(os.path.dirname(place) or ".")


class Lock:
    """A held flock(2) on a file. Released by `release`, by leaving the `with`, or by the end of the process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def fd(self) -> int:
        """The locked file's descriptor."""
        return self._fd

    def release(self) -> None:
        """Unlock and close."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def try_lock(path: str, *, shared: bool = False, create: bool = True) -> Lock | None:
    """Lock `path` now, or return None when somebody else holds it.

    Raises:
        StoreLocked: the file system cannot lock.
        FileNotFoundError: no such file, and `create` is not set.
    """
    while True:
        fd = _open_to_lock(path, create=create)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _has_name(fd, path):
                return Lock(fd)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError as error:
            os.close(fd)
            if error.errno in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}:
                raise StoreLocked(
                    f"{path!r}: this file system cannot lock files ({error.strerror}); without locks a store is not"
                    " safe: move it to a local file system"
                ) from error
            raise
        os.close(fd)


def _has_name(fd: int, path: str) -> bool:
    """Whether the open file is still the one at `path`: a lock on a file that somebody has removed keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _open_to_lock(path: str, *, create: bool) -> int:
    access = os.O_RDONLY if os.path.isdir(path) else os.O_RDWR
    flags = access | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            if not create:
                raise
        with contextlib.suppress(FileExistsError):
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, _LOCK_MODE)
            os.fchmod(fd, _LOCK_MODE)  # whatever the umask is
            return fd


def lock(path: str, *, shared: bool = False, wait: float) -> Lock:
    """Lock file `path` (made when missing) or directory `path`, waiting at most `wait` seconds.

    Raises:
        StoreLocked: still held by another process, or the file system cannot lock.
        StorageError: it cannot be opened, or is a symlink.
    """
    deadline, pause = time.monotonic() + wait, _POLL_FIRST
    waiting = False
    while True:
        with storage_errors(f"locking {path!r}"):
            held = try_lock(path, shared=shared)
        if held is not None:
            return held
        if time.monotonic() >= deadline:
            raise StoreLocked(f"{path!r}: held by another process for more than {wait:g} s; try again, or wait longer")
        if not waiting:
            log.info("store", "%s: held by another process; waiting for at most %s s", path, f"{wait:g}")
            waiting = True
        time.sleep(min(pause, max(deadline - time.monotonic(), 0)))
        pause = min(pause * 2, _POLL_MOST)


@contextlib.contextmanager
def new_file(path: str, *, replace: bool, durability: Durability, mode: int = 0o644) -> Iterator[int]:
    """A descriptor to write a file that gets its name only when the block ends without an error. Of `mode` the umask
    takes its part.

    Raises:
        AlreadyExists: the name is taken and `replace` is not set; checked before and after the block.
        StorageError: the file system refused.
    """
    if not replace and os.path.lexists(path):
        raise _taken(path)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(there := os.lstat(path).st_mode) and not stat.S_ISLNK(there):
            raise AlreadyExists(f"{path!r}: expected a regular file to replace, got a directory or special file")
    with contextlib.ExitStack() as stack:
        with storage_errors(f"writing {path!r}", on=path):
            folder, name = stack.enter_context(_folder_of(path))
        temporary = temporary_beside(name)
        try:
            with storage_errors(f"writing {path!r}", on=path):
                fd = os.open(temporary, os.O_RDWR | _NEW, mode, dir_fd=folder)
            try:
                yield fd
                with storage_errors(f"writing {path!r}", on=fd):
                    durability.sync_file(fd)
            finally:
                os.close(fd)
            with storage_errors(f"writing {path!r}", on=path):
                try:
                    publish(temporary, name, replace=replace, durability=durability, folder=folder)
                except AlreadyExists:
                    raise _taken(path) from None
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise


def publish_directory(temporary: str, path: str, *, replace: bool, durability: Durability) -> None:
    """Give a finished directory its own name: durable when this returns. With `replace` a directory that has the name
    is exchanged for it in one step, and then removed.

    Raises:
        AlreadyExists: the name is taken, and `replace` is not set.
    """
    if replace and os.path.lexists(path):
        _exchange(temporary, path)
    else:
        try:
            os.rename(temporary, path)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise AlreadyExists(f"{path!r} exists already; choose another place, or force with -f") from None
            raise
    durability.sync_directory(os.path.dirname(path) or ".")
    if os.path.isdir(temporary) and not os.path.islink(temporary):
        shutil.rmtree(temporary, ignore_errors=True)
    elif os.path.lexists(temporary):
        os.unlink(temporary)


def _exchange(one: str, other: str) -> None:
    """Let two directories swap their names, in one step where kernel and file system can (Linux 3.15)."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None and renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return
    aside = temporary_beside(other)
    os.rename(other, aside)
    try:
        os.rename(one, other)
    except BaseException:
        os.rename(aside, other)
        raise
    os.rename(aside, one)
