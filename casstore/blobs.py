"""A directory of blobs, `blobs/sha256/<64 hex>`: how it is read. Writing goes through an Operation.

A blob's file is never trusted to be one: it is opened without following links or waiting for FIFOs, must be a regular
file, and must have its descriptor's size before a byte of it is used. Nor are the directory and the one that it lies in
followed where they are links: each time they are opened one after the other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from io import FileIO

from casstore import durable
from casstore.content import Reader
from casstore.digest import Digest
from casstore.errors import CorruptContent, NotFound, SizeMismatch, StorageError, storage_errors
from casstore.oci import Descriptor
from casstore.streams import VerifiedReader


class BlobDirectory:
    """The blobs in one directory, `path`. Of that the last two names are no symlinks."""

    def __init__(self, path: str) -> None:
        self.path: str = path
        self._parts = os.path.split(os.path.abspath(path))

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor of the directory; closed when the block ends.

        Raises:
            FileNotFoundError: there is none.
            CorruptContent: a symlink or file has its place, or that of the one that it lies in.
            StorageError: it cannot be opened.
        """
        try:
            folder = durable.open_directory(*self._parts)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"{self.path!r}: {error.strerror}") from error
        try:
            yield folder
        finally:
            os.close(folder)

    def look(self, digest: Digest) -> os.stat_result:
        """What has a blob's name, whatever it is.

        Raises:
            FileNotFoundError: nothing.
            CorruptContent, StorageError: as `opened`.
        """
        try:
            with self.opened() as folder:
                return os.stat(digest.hex, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"blob {digest}: {error.strerror}") from error

    def path_of(self, digest: Digest) -> str:
        """Where a blob's file is or would be."""
        return f"{self.path}/{digest.hex}"

    def size(self, digest: Digest) -> int | None:
        """A blob's bytes, or None when there is none.

        Raises:
            CorruptContent: something else than a regular file has its name.
        """
        try:
            info = self.look(digest)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(info.st_mode):
            raise CorruptContent(f"blob {digest}: expected a regular file at {self.path_of(digest)!r}")
        return info.st_size

    def open(self, digest: Digest, *, size: int | None = None) -> int:
        """A descriptor to read a blob; the caller closes it.

        Raises:
            NotFound: no such blob.
            SizeMismatch: it has not `size` bytes.
            CorruptContent: it is no regular file.
        """
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            with self.opened() as folder:
                fd = os.open(digest.hex, flags, dir_fd=folder)
        except FileNotFoundError:
            raise NotFound(f"blob {digest}: expected it at {self.path_of(digest)!r}, got nothing there") from None
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENXIO}:
                raise CorruptContent(f"blob {digest}: expected a regular file at {self.path_of(digest)!r}") from error
            raise StorageError(f"blob {digest}: {error.strerror} ({self.path_of(digest)!r})") from error
        info = os.fstat(fd)
        problem: CorruptContent | None = None
        if not stat.S_ISREG(info.st_mode):
            problem = CorruptContent(f"blob {digest}: expected a regular file at {self.path_of(digest)!r}")
        elif size is not None and info.st_size != size:
            problem = SizeMismatch(f"blob {digest} ({self.path_of(digest)!r})", expected=size, got=info.st_size)
        if problem is not None:
            os.close(fd)
            raise problem
        return fd

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether a blob of the descriptor's digest and size is there."""
        return self.size(descriptor.digest) == descriptor.size

    def fetch(self, descriptor: Descriptor) -> Reader:
        """Open a blob; see Fetcher."""
        fd = self.open(descriptor.digest, size=descriptor.size)
        subject = f"blob {descriptor.digest}"
        return VerifiedReader(_BlobFile(fd, subject), descriptor, subject=subject)

    def read_range(self, descriptor: Descriptor, offset: int, length: int) -> bytes:
        """A part of a blob; see RangeReader."""
        fd = self.open(descriptor.digest, size=descriptor.size)
        with FileIO(fd, "rb"), storage_errors(f"blob {descriptor.digest}"):
            return pread_all(fd, offset, length, subject=f"blob {descriptor.digest}")

    def list(self) -> Iterator[tuple[str, os.stat_result]]:
        """(file name, lstat) of everything in the directory, whatever its name; nothing when there is no directory."""
        with contextlib.suppress(FileNotFoundError), self.opened() as folder, os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False)

    def names(self) -> Sequence[str]:
        """The file names of everything in the directory, blob or not; none where there is no directory."""
        with contextlib.suppress(FileNotFoundError), self.opened() as folder, storage_errors(f"reading {self.path!r}"):
            return os.listdir(folder)
        return []

    def remove(self, digest: Digest) -> None:
        """Remove a blob, or whatever has its name.

        Raises:
            FileNotFoundError: there is nothing.
        """
        with self.opened() as folder:
            os.unlink(digest.hex, dir_fd=folder)

    def taken_by(self, digest: Digest) -> int:
        """The length of what has a blob's name, whatever it is; 0 where that is gone."""
        with contextlib.suppress(FileNotFoundError):
            return self.look(digest).st_size
        return 0


class _BlobFile(FileIO):
    """A blob's open file, which says of what blob a byte cannot be read."""

    def __init__(self, fd: int, subject: str) -> None:
        super().__init__(fd, "rb")
        self._subject = subject

    def read(self, size: int | None = -1, /) -> bytes:
        with storage_errors(self._subject):
            return super().read(size)


def is_plain_directory(path: str) -> bool:
    """Whether `path` is a directory, and no symlink to one. Raises CorruptContent for anything else there."""
    with storage_errors(f"opening {path!r}"):
        try:
            mode = os.lstat(path).st_mode  # not lexists, which takes "no permission" for "not there"
        except (FileNotFoundError, NotADirectoryError):
            return False
    if not stat.S_ISDIR(mode):
        raise CorruptContent(f"{path!r}: expected a directory, got a symlink or file")
    return True


def pread_all(fd: int, offset: int, length: int, *, subject: str) -> bytes:
    """Exactly `length` bytes at `offset`.

    Raises:
        SizeMismatch: the file ends before.
    """
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            raise SizeMismatch(subject, expected=offset + length, got=offset + len(data))
        data += more
    return data
