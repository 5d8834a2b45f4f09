"""A running operation: `op-<id>/` with its lease and what it has staged.

    op-<id>/lease      flocked while the operation runs; lists the blobs that it relies on, one `sha256:<hex>` a line
    op-<id>/<64 hex>   a finished blob, synced, waiting for the commit
    op-<id>/new-<n>    a blob being written

Whoever finds an op- directory whose lease is not locked may remove it: its process is dead, or has left it behind. The
finished blobs in it are kept until then, and an operation that needs one of them may take it over.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Self

from casstore import durable, log
from casstore.blobs import BlobDirectory, is_plain_directory
from casstore.content import Fetcher
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import CorruptContent, DigestMismatch, InvalidDigest, storage_errors
from casstore.oci import Descriptor
from casstore.streams import COPY_CHUNK, Vouching, read_through

if TYPE_CHECKING:
    from casstore.frame import Buffer  # with zstandard, which listing a store does not need

_LEASE = "lease"
_LINE = 200  # characters; those of a lease are shorter
_PREFIX = "op-"
_PARTIAL = re.compile(r"new-[0-9]+\Z")
_NAME = re.compile(_PREFIX + r"[0-9a-f]{16}\Z")


class StagedBlob:
    """A blob being written; see capture.BlobWriter. Dropped unless finished."""

    def __init__(self, operation: Operation, path: str) -> None:
        self._operation, self._path = operation, path
        self._hash = hashlib.sha256()
        self._vouched: Digest | None = None
        self._size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with storage_errors("staging a blob"):
            self._fd = os.open(path, flags, 0o600)

    def vouched_for(self, digest: Digest) -> None:
        """Whoever writes checks against this digest, and finishes only what is right: nothing is hashed here."""
        self._vouched = digest

    def write(self, data: Buffer) -> None:
        """Append all of `data`."""
        if self._vouched is None:
            self._hash.update(data)
        self._size += len(data)
        with storage_errors("staging a blob", on=self._fd):
            durable.write_all(self._fd, data)

    def finish(self, media_type: str) -> Descriptor:
        """Sync the blob and stage it under its digest."""
        digest = self._vouched or Digest(self._hash.hexdigest())
        with storage_errors(f"staging blob {digest}", on=self._path):
            os.fchmod(self._fd, 0o444)
            self._operation.durability.sync_file(self._fd)
            self.close()
            durable.move(self._path, self._operation.staged.path_of(digest))
        return Descriptor(media_type=media_type, digest=digest, size=self._size)

    def close(self) -> None:
        """Close the file; what was written of an unfinished blob goes with the operation."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._operation.forget(self)


class Operation:
    """An op- directory in `parent`, held by this process until `close`."""

    def __init__(self, parent: str, durability: Durability) -> None:
        self.durability: Durability = durability
        with storage_errors("starting an operation", on=parent):
            durable.make_part(parent)
            name = _PREFIX + secrets.token_hex(8)
            self.path: str = os.path.join(parent, name)
            with durable.opened_directory(parent) as folder:
                durable.make_part(name, folder=folder)
            try:
                lease = durable.try_lock(os.path.join(self.path, _LEASE))
            except BaseException:
                shutil.rmtree(self.path, ignore_errors=True)
                raise
        if lease is None:
            raise AssertionError("a lease that was just made is locked")
        self._lease = lease
        self.staged: BlobDirectory = BlobDirectory(self.path)
        self._count = 0
        self._mutex = threading.Lock()
        self._leased: set[Digest] = set()
        self._open: set[StagedBlob] = set()

    def rely_on(self, digests: Iterable[Digest]) -> None:
        """Add blobs to the lease: gc keeps them while the operation runs. Call with the store's lock held."""
        with self._mutex:
            fresh = [digest for digest in dict.fromkeys(digests) if digest not in self._leased]
            if fresh:
                with storage_errors("writing a lease", on=self.path):
                    durable.write_all(self._lease.fd, "".join(f"{digest}\n" for digest in fresh).encode())
                self._leased.update(fresh)

    @property
    def leased(self) -> frozenset[Digest]:
        """The blobs in the lease."""
        return frozenset(self._leased)

    def new_blob(self) -> StagedBlob:
        """Start a blob."""
        with self._mutex:
            self._count += 1
            blob = StagedBlob(self, os.path.join(self.path, f"new-{self._count}"))
            self._open.add(blob)
        return blob

    def forget(self, blob: StagedBlob) -> None:
        """A blob was closed."""
        self._open.discard(blob)

    def add(self, data: bytes, media_type: str) -> Descriptor:
        """Stage a small blob."""
        blob = self.new_blob()
        blob.write(data)
        return blob.finish(media_type)

    def receive(self, descriptor: Descriptor, source: Fetcher, tell: Callable[[int], object] = lambda _: None) -> None:
        """Stage the content that `source` has for `descriptor`; what its reader does not vouch for is verified here.
        `tell` gets the bytes of each step.

        Raises:
            NotFound, SizeMismatch, DigestMismatch, RegistryError: as the source; nothing stays staged then.
            StorageError: the blob cannot be written.
        """
        blob = self.new_blob()
        try:
            with source.fetch(descriptor) as reader:
                if isinstance(reader, Vouching):
                    blob.vouched_for(descriptor.digest)
                while part := reader.read(COPY_CHUNK):
                    blob.write(part)
                    tell(len(part))
                if isinstance(reader, Vouching) and reader.verified != descriptor:
                    raise DigestMismatch("content", expected=str(descriptor.digest), got="an end before it was checked")
            staged = blob.finish(descriptor.media_type)
        finally:
            blob.close()
        if staged.digest != descriptor.digest:
            raise DigestMismatch("content", expected=str(descriptor.digest), got=str(staged.digest))

    def move_to(self, blobs: BlobDirectory) -> list[Digest]:
        """Rename everything staged to its place, and make that durable. A file of the wrong size there is replaced."""
        moved = []
        with storage_errors("storing blobs", on=self.path), self.staged.opened() as here, blobs.opened() as there:
            for digest in self.digests():
                durable.move_between(here, digest.hex, there, digest.hex)
                moved.append(digest)
            self.durability.sync_directory(".", folder=there)
        return moved

    def digests(self) -> list[Digest]:
        """What is staged and finished."""
        return sorted(_blob_names(self.staged.names()))

    def take_over(self, descriptor: Descriptor) -> bool:
        """Stage a finished blob that a dead operation left, if there is one; it must pass `check` before it counts.
        Call with the store's lock held, so that gc is not at it.
        """
        for path in operation_paths(os.path.dirname(self.path)):
            left = BlobDirectory(path)
            # The mutex is for threads of this process: one would take another's lock for that of a living operation.
            with self._mutex, contextlib.suppress(FileNotFoundError, NotADirectoryError, CorruptContent):
                if path == self.path or not is_plain_directory(path) or not left.exists(descriptor):
                    continue
                lease = durable.try_lock(os.path.join(path, _LEASE), create=False)
                if lease is None:
                    continue  # it is alive, and needs its blob itself
                with lease, storage_errors(f"taking over blob {descriptor.digest}"):
                    if left.exists(descriptor):  # still
                        durable.move(left.path_of(descriptor.digest), self.staged.path_of(descriptor.digest))
                        log.info("store", "taking over %s of an interrupted operation", descriptor.digest)
                        if not any(_blob_names(os.listdir(path))):
                            shutil.rmtree(path, ignore_errors=True)
                        return True
        return False

    def check(self, descriptor: Descriptor) -> bool:
        """Whether a blob that was taken over is what its name says, and will stay so; else it is dropped. It is synced,
        too: whoever wrote it may have gone without.
        """
        try:
            read_through(self.staged, descriptor)
        except CorruptContent:
            return self._drop(descriptor.digest)
        with storage_errors(f"taking over blob {descriptor.digest}"):
            fd = self.staged.open(descriptor.digest)
            try:
                info = os.fstat(fd)
                # Through another name, or as its owner, somebody else could change it after it was checked.
                if info.st_nlink > 1 or info.st_uid != os.geteuid():
                    return self._drop(descriptor.digest)
                os.fchmod(fd, 0o444)
                self.durability.sync_file(fd)
            finally:
                os.close(fd)
        return True

    def _drop(self, digest: Digest) -> bool:
        """Remove a staged blob; False."""
        with contextlib.suppress(FileNotFoundError):
            self.staged.remove(digest)
        return False

    def drop_staged(self, *, but: Collection[Digest] = ()) -> None:
        """Remove everything that is staged, `but` for some."""
        with storage_errors("dropping blobs"):
            for digest in set(self.digests()).difference(but):
                self.staged.remove(digest)

    def close(self, *, keep: bool = False) -> None:
        """End the operation: whatever is still staged is dropped, or with `keep` left to be taken over, if finished."""
        for blob in list(self._open):
            blob.close()
        with self._lease, contextlib.suppress(OSError):  # what cannot be removed now is gc's
            if keep and self.digests():
                for name in filter(_PARTIAL.match, os.listdir(self.path)):
                    os.unlink(os.path.join(self.path, name))
            else:
                shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _blob_names(names: Iterable[str]) -> Iterator[Digest]:
    for name in names:
        with contextlib.suppress(InvalidDigest):
            yield Digest.parse(f"sha256:{name}")


def is_operation(name: str) -> bool:
    """Whether a file in tmp/ has the name of an operation."""
    return bool(_NAME.match(name))


def operation_paths(parent: str) -> list[str]:
    """The paths of the op- directories in `parent`; none where that is missing."""
    with contextlib.suppress(FileNotFoundError):
        return [os.path.join(parent, name) for name in sorted(os.listdir(parent)) if is_operation(name)]
    return []


def all_leases(parent: str) -> set[Digest]:
    """The blobs in the leases of all operations, for who cannot lock the store: to ask whether one is running would be
    to take its lease away for a moment.
    """
    return {digest for path in operation_paths(parent) for digest in _read_lease(os.path.join(path, _LEASE))}


def _read_lease(path: str) -> set[Digest]:
    """The blobs in a lease; none where it is gone."""
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        open(path, encoding="utf-8", errors="replace") as file,
    ):
        lines = iter(partial(file.readline, _LINE), "")
        return set(_blob_names(line.removeprefix("sha256:").removesuffix("\n") for line in lines))
    return set()


def live_leases(parent: str) -> tuple[set[Digest], list[str]]:
    """The blobs in the leases of running operations, and the paths of the op- directories of dead ones.

    Call with the store's lock held exclusively, so that nobody is starting an operation or adding to a lease.
    """
    held: set[Digest] = set()
    dead: list[str] = []
    for path in operation_paths(parent):
        lease = os.path.join(path, _LEASE)
        try:
            probe = durable.try_lock(lease, create=False)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise
            dead.append(path)  # without a lease, or with a symlink for one: nobody runs it
            continue
        if probe is None:
            held |= _read_lease(lease)
        else:
            probe.release()
            dead.append(path)
    return held, dead
