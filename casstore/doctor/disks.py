"""The file system of a store, tried out: what it can do, how much room is left, and what it outlives."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Final

from casstore import durable
from casstore.doctor.findings import Finding, Level, note, ok, problem, warning
from casstore.errors import CasstoreError
from casstore.operation import Operation
from casstore.statfs import filesystem_name
from casstore.units import size_text

LOW_BYTES, NO_BYTES = 2 << 30, 64 << 20
"""Free bytes below which there is a warning, and below which hardly anything can be captured or pulled."""
LOW_INODES, NO_INODES = 10_000, 100
"""The same of inodes: a snapshot of some GiB has about a hundred blobs."""

_MIB: Final = 1 << 20
_FICLONE: Final = 0x40049409  # linux/fs.h
_GC = "casstore gc, after casstore prune or casstore remove; or give the file system more room"

_MEMORY = {"tmpfs", "ramfs"}
_ELSEWHERE = {"nfs", "cifs", "smb", "9p", "fuse", "ceph"}
_POOR = {"vfat", "exfat"}
_TRY_LOCK = """
import fcntl, os, sys
try:
    fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(7)
"""
_HELD = 7
"""What the program above ends with where the lock is held."""


@contextlib.contextmanager
def scratch(place: str, *, of_store: bool) -> Iterator[str]:
    """A directory to try things out in, in a store's tmp/ (as an operation: gc clears it away should this process die)
    or in any other directory.
    """
    if of_store:
        with Operation(os.path.join(place, "tmp"), durable.Durability.NONE) as operation:
            yield operation.path
    else:
        with tempfile.TemporaryDirectory(prefix=".casstore-doctor-", dir=place) as folder:
            yield folder


def existing(path: str) -> str:
    """`path`, or the directory that is there nearest above it."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def tried(place: str, *, of_store: bool) -> Iterator[Finding]:
    """What locks, reflinks and holes are worth at `place`."""
    if not os.access(place, os.W_OK):
        yield note("locks", place, "it cannot be written here, so locks, reflinks and holes were not tried out")
        return
    try:
        with scratch(place, of_store=of_store) as folder:
            for check, attempt in (("locks", _locks), ("reflinks", _reflinks), ("holes", _holes)):
                try:
                    yield attempt(place, folder)
                except OSError as error:
                    yield _not_tried(check, place, error)
    except CasstoreError as error:
        yield problem("locks", place, str(error), "casstore --store DIR names a store on a local file system")
    except OSError as error:
        yield _not_tried("locks", place, error)


def _not_tried(check: str, place: str, error: OSError) -> Finding:
    fix = _GC if error.errno in {errno.ENOSPC, errno.EDQUOT} else "look at the permissions, and at the kernel's log"
    return problem(check, place, f"it could not be tried out: {error.strerror}", fix)


def _locks(place: str, folder: str) -> Finding:
    """Whether a lock that this process holds keeps others out: another descriptor, and another process."""
    path = os.path.join(folder, "new-1")
    with durable.lock(path, wait=0):
        again = durable.try_lock(path)
        command = [sys.executable, "-I", "-S", "-c", _TRY_LOCK, path]
        other = (
            subprocess.run(command, check=False, capture_output=True, timeout=60).returncode
            if sys.executable
            else _HELD
        )
    if again is not None:
        again.release()
    if again is not None or other == 0:
        text = "expected a lock to keep others out, got it twice: two processes may damage the store"
        return problem("locks", place, text, "casstore --store DIR names a store on a local file system")
    if other != _HELD:
        return note("locks", place, "locks work within a process; no other process could be started to try them out")
    return ok("locks", place, "locks keep other processes out")


def _reflinks(place: str, folder: str) -> Finding:
    """Whether files can share their data."""
    with open(os.path.join(folder, "new-2"), "wb+") as one, open(os.path.join(folder, "new-3"), "wb+") as other:
        one.write(bytes(65536))
        one.flush()
        try:
            fcntl.ioctl(other.fileno(), _FICLONE, one.fileno())
        except OSError as error:
            text = f"no reflinks ({error.strerror}): a disk must rest while it is captured, and restore --seed copies"
            return note("reflinks", place, text, "XFS and btrfs have them; casstore works without")
    return ok("reflinks", place, "files can share their data: restore --seed copies nothing")


def _holes(place: str, folder: str) -> Finding:
    """Whether a file may have holes, and where these are is told."""
    with open(os.path.join(folder, "new-4"), "wb+", buffering=0) as file:
        file.truncate(_MIB)
        os.pwrite(file.fileno(), bytes(4096), _MIB // 2)
        try:
            start = os.lseek(file.fileno(), 0, os.SEEK_DATA)
        except OSError:
            start = 0
        taken = os.fstat(file.fileno()).st_blocks * 512
    if taken >= _MIB:
        text = "files have no holes: a restored disk takes its whole length"
        return warning("holes", place, text, "restore to another file system, as ext4, XFS or btrfs")
    if not 0 < start <= _MIB // 2:
        text = "files have holes, but where they are is not told: to capture a disk here reads all of it"
        return note("holes", place, text)
    return ok("holes", place, "files have holes, and where they are is told")


def room(place: str) -> Iterator[Finding]:
    """Free bytes and inodes, as this user may use them."""
    info = os.statvfs(place)
    free, total = info.f_bavail * info.f_frsize, info.f_blocks * info.f_frsize
    text = f"{size_text(free)} free of {size_text(total)}"
    yield _level("space", place, text, free, LOW_BYTES, NO_BYTES, f"less than {size_text(LOW_BYTES)}")
    if info.f_files:  # btrfs and others have no number of them
        text = f"{info.f_favail} inodes free of {info.f_files}"
        yield _level("inodes", place, text, info.f_favail, LOW_INODES, NO_INODES, f"less than {LOW_INODES}")


def _level(check: str, place: str, text: str, free: int, low: int, none: int, why: str) -> Finding:
    if free >= low:
        return ok(check, place, text)
    level = Level.PROBLEM if free < none else Level.WARNING
    return Finding(check, level, place, f"{text}, which is {why}", _GC)


def outlives(place: str) -> Iterator[Finding]:
    """What becomes of what is written here."""
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        name = filesystem_name(fd)
    finally:
        os.close(fd)
    elsewhere = "casstore --store DIR, or CASSTORE_STORE, names a store on a disk"
    if name in _MEMORY:
        text = f"a file system in memory ({name}): what is kept here is gone when the machine stops"
        yield warning("durability", place, text, elsewhere)
    elif name == "overlay":
        text = "a file system of a container (overlay): what is kept here may go with the container"
        yield warning("durability", place, text, f"mount a volume into the container; {elsewhere}")
    elif name in _ELSEWHERE:
        text = f"a file system that something else serves ({name}): what a sync promises here, that must keep"
        yield note("durability", place, text, "a local file system is faster, and locks and syncs mean what they say")
    elif name in _POOR:
        text = f"a file system without symlinks and permissions ({name}): it cannot hold a store"
        yield problem("durability", place, text, elsewhere)
    else:
        yield ok(
            "durability", place, f"a file system {name}" if name.startswith("of") else f"a local file system ({name})"
        )
