"""The directory of a store: its markers, its locks, its names, and how a change becomes durable.

    STORE/
      oci-layout, casstore.json     markers; made again when only blobs/ and refs/ were copied
      index.json                    derived from refs/ for other OCI tools; their own entries are kept
      blobs/sha256/<64 hex>         immutable content
      refs/<name>                   symlinks into blobs/: the only truth
      refs/sha256-<64 hex>.sig-<16 hex>   the same, to a manifest that refers to the one of that digest: a signature
      refs/sha256-<64 hex>.ref-<16 hex>   and any other one
      refs/sha256-<64 hex>.sig            and to one with cosign's signatures of it
      tmp/op-<id>/                  running operations, and what interrupted pulls had received
      trash/<name>@<stamp>          removed refs, until gc; and garbage until gc has unlinked it
      quarantine/<hex>@<ns>         damaged bytes that a repair has replaced; never removed here
      state/last-seen.json          what names in registries led to when they were last pulled; see `lastseen`
      cache/check-position          where the last check stopped reading
      cache/sources/                what was captured from where; may be deleted at any time
      casstore.policy.toml          whose signatures what comes in must have; people write it
      lock, gate.lock, refs.lock    see `locks`
      .*.tmp                        a file on its way to its name, here and in refs/; left by a crash, removed by gc

Only refs/ and blobs/ hold what could not be made again, or done without; state/ what could be done without.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from casstore import durable, layout, marker, permissions, spec
from casstore.blobs import BlobDirectory, is_plain_directory
from casstore.content import Reader
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import (
    AlreadyExists,
    CorruptContent,
    InvalidName,
    NotFound,
    StorageError,
    StoreLocked,
    storage_errors,
)
from casstore.locks import StoreLocks
from casstore.names import ReferrerName, SnapshotName, is_attachment, is_reserved, parse_name
from casstore.oci import AnyManifest, Descriptor, manifest_of
from casstore.operation import Operation, operation_paths
from casstore.refs import BrokenRef, Refs
from casstore.stamps import stamp
from casstore.storeindex import IndexFile, StoreIndex, foreign, without
from casstore.streams import fetch_all
from casstore.trash import RemovedRef, Trash

PARTS = ("refs", "blobs", "blobs/sha256")
"""The directories without which there is no store."""
_DERIVED = ("index.json", "catalog.sqlite")
_YOUNG = 600
"""Seconds. Linux writes dirty pages after 30 (vm.dirty_expire_centisecs), if it is not kept from it for long."""
_OWN_TEMPORARIES = tuple(f".{name}." for name in ("oci-layout", marker.NAME, "index.json"))


def is_own_temporary(name: str) -> bool:
    """Whether a file in the store's directory is on its way to one of the store's own names, or was left so."""
    return durable.is_temporary(name) and name.startswith(_OWN_TEMPORARIES)


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store is worked with: `wait` is the most seconds to wait for a lock."""

    durability: Durability = Durability.FULL
    wait: float = 60.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The refs as they were at one moment: those that lead to a blob, the bytes of the blobs, and the other refs.

    `referrers` are the refs of manifests that refer to another one. A broken one of those is not told: gc removes it.
    `remembered` is what index.json says that broken ones stood for, as far as that is there: it goes on saying so until
    they are mended or removed.
    """

    refs: dict[SnapshotName, Digest]
    sizes: dict[Digest, int]
    broken: list[BrokenRef]
    referrers: dict[ReferrerName, Digest] = field(default_factory=dict)
    remembered: dict[SnapshotName, Digest] = field(default_factory=dict)

    @property
    def named(self) -> dict[str, Digest]:
        """All refs that lead to a blob, or did: what index.json has to say."""
        refs = dict(sorted((self.refs | self.remembered).items())) if self.remembered else self.refs
        return {str(name): digest for each in (refs, self.referrers) for name, digest in each.items()}


class StoreDirectory:
    """An open store directory; use `open`."""

    def __init__(self, path: str, options: StoreOptions, *, read_only: str | None) -> None:
        self.path: str = path
        self.options: StoreOptions = options
        self.read_only: bool = read_only is not None
        self.is_new: bool = False
        """Whether it was made by this opening."""
        self.is_unasked: bool = False
        """Whether it was, and nobody said who may read it."""
        self._why_read_only = read_only
        self._locks = StoreLocks(path, wait=options.wait)
        self.durability: Durability = options.durability
        self.blobs: BlobDirectory = BlobDirectory(os.path.join(path, "blobs", "sha256"))
        self.trash: Trash = Trash(os.path.join(path, "trash"), options.durability)
        self.tmp: str = os.path.join(path, "tmp")
        self.refs: Refs = Refs(os.path.join(path, "refs"), self.trash, options.durability)
        self.index: StoreIndex = StoreIndex(path, options.durability)
        self.follow: Callable[[], object] = lambda: self.derive_index(self.read())
        """Derives, with refs.lock held, what follows from the refs; False where some of it has no file."""
        self.is_changing: bool = False
        """Whether this process holds refs.lock to change refs."""

    @classmethod
    def open(cls, path: str, options: StoreOptions, *, create: bool, share: bool | None = None) -> StoreDirectory:
        """Open the store at `path`, and bring its markers up to date where it can be written. `share` says who may read
        it: everybody, or the owner alone, which only a store that is made here becomes. Without, a new directory is for
        the owner alone, and one that is there stays as it is.

        Raises:
            NotFound: there is none, and `create` is not set.
            UnsupportedVersion: made by a newer version.
            CorruptContent: a part of it is missing, or a marker is damaged.
            AlreadyExists: there is something else.
        """
        path = os.path.abspath(path)
        parts = [os.path.join(path, part) for part in PARTS]
        present = [is_plain_directory(part) for part in parts]
        is_new = not all(present)
        if is_new:
            marker.require_readable(path)  # a later version may keep its parts elsewhere
            _require_whole(path)
            if not create:
                raise no_store(path)
            _make(path, parts, options, share=share)
        for name in ("tmp", "trash"):
            is_plain_directory(os.path.join(path, name))
        reason = marker.require_readable(path)
        if not all(os.access(part, os.W_OK) for part in (path, *parts)):
            reason = "its permissions or its file system say so"
        directory = cls(path, options, read_only=reason)
        directory.is_new, directory.is_unasked = is_new, is_new and not share
        is_layout = layout.check_marker(path)
        if not directory.read_only and (marker.is_missing(path) or not is_layout):
            directory._write_markers()
        if share:
            directory.require_writable()
            with storage_errors(f"sharing store {path!r}"):
                permissions.share(path)
        return directory

    @classmethod
    def looked_at(cls, path: str, options: StoreOptions) -> StoreDirectory:
        """The store at `path`, to be read without a lock and without bringing anything up to date.

        Raises:
            UnsupportedVersion: made by a newer version.
            CorruptContent: a part of it is missing.
        """
        path = os.path.abspath(path)
        marker.require_readable(path)
        _require_whole(path)
        return cls(path, options, read_only="it was opened to be looked at")

    def _write_markers(self) -> None:
        """Make the markers that are missing. What is derived stays as it is: it may know more than what is left."""
        with self._locks.refs():
            if marker.is_missing(self.path):
                marker.write(self.path, self.durability)
            if not layout.check_marker(self.path):
                layout.write_marker(self.path, self.durability)

    def mend_index(self, known: IndexFile | None = None) -> tuple[Reading, IndexFile] | None:
        """Derive index.json again if that can be done: a full disk, or a process that changes the refs just now and
        then does the same, is no reason not to open the store.
        """
        with contextlib.suppress(StorageError, StoreLocked), self._locks.refs(wait=0):
            reading = self.read()
            return reading, self.derive_index(reading, known)
        return None

    def clear_temporaries(self) -> None:
        """Remove what processes that died had not yet given its name; nothing that is not the store's own."""
        with self._locks.refs(), storage_errors("collecting garbage"):
            # Others' in the store's directory stay, as that of a disk that is restored there.
            places = [((), is_own_temporary), (("refs",), durable.is_temporary)]
            if is_plain_directory(os.path.join(self.path, "state")):
                places.append((("state",), durable.is_temporary))
            for below, is_ours in places:
                with durable.opened_directory(os.path.join(self.path, "."), *below) as folder:
                    for name in filter(is_ours, os.listdir(folder)):
                        with contextlib.suppress(FileNotFoundError):
                            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                            if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                                os.unlink(name, dir_fd=folder)

    def require_same(self) -> None:
        """Raise StorageError when another directory, or none, has the store's path since it was opened."""
        self._locks.require_same()

    def require_writable(self) -> None:
        """Raise StorageError on a read-only store."""
        if self.read_only:
            raise StorageError(f"store {self.path!r}: it is read-only here; {self._why_read_only}")

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Nothing is collected meanwhile. Hold it shortly."""
        self.require_writable()
        with self._locks.shared():
            yield

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody looks anything up or commits meanwhile."""
        self.require_writable()
        with self._locks.exclusive():
            yield

    @contextlib.contextmanager
    def changing_refs(self) -> Iterator[Refs]:
        """The refs, for this process alone to change; what is derived follows when the block ends, however it ends."""
        self.require_writable()
        with self.holding_refs():
            self.is_changing = True
            try:
                yield self.refs
                self.require_same()  # before it is told as done
            finally:
                # The change of the ref is done and durable by now. That index.json could not follow (a full disk) must
                # not be told as its failure; the next opening derives it.
                with contextlib.suppress(StorageError, StoreLocked):
                    self.require_same()
                    self.follow()
                self.is_changing = False

    @contextlib.contextmanager
    def holding_refs(self) -> Iterator[None]:
        """Nobody changes a ref meanwhile, and nothing is derived."""
        with self._locks.refs():
            yield

    def settle(self) -> bool:
        """Let what is derived follow the refs, and let no power cut bring back what it said before; False where that
        cannot be done, as on a full disk. Then no catalog is better than one that knows names which are removed: they
        would be taken for lost when the trash has them no more.
        """
        followed = False
        with (
            contextlib.suppress(StorageError, StoreLocked),
            self.holding_refs(),
            storage_errors("syncing what is derived"),
        ):
            followed = self.follow() is not False
            for name in _DERIVED:
                with contextlib.suppress(FileNotFoundError):
                    durable.sync(os.path.join(self.path, name), self.durability)
            self.durability.sync_directory(self.path)
        if not followed:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.path, _DERIVED[1]))
                self.durability.sync_directory(self.path)
        return followed

    def operation(self) -> Operation:
        """Start an operation.

        Raises:
            StorageError: the file system refused; or tmp/ is on another one than blobs/, so nothing could get its name.
        """
        with self.shared():
            operation = Operation(self.tmp, self.durability)
        here, there = os.stat(operation.path).st_dev, os.stat(self.blobs.path).st_dev
        if here != there:
            operation.close()
            raise StorageError(f"{self.tmp!r}: expected a directory on the file system of the store, got a mount")
        return operation

    @contextlib.contextmanager
    def relying_on(self, blobs: Mapping[Digest, int]) -> Iterator[None]:
        """Keep these blobs (digest -> bytes) from gc while they are read.

        Raises:
            NotFound, SizeMismatch: one of them is gone or damaged already.
        """
        if self.read_only:
            yield
            return
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(StorageError):  # on a full disk a reader goes without, and fails if gc does come
                operation = stack.enter_context(self.operation())
                with self.shared():
                    self.require(blobs)
                    operation.rely_on(blobs)
            yield

    def require(self, blobs: Mapping[Digest, int], *, to_last: bool = False) -> None:
        """Raise NotFound or SizeMismatch unless every blob is there with its size.

        What is to last is synced where it came of late: whoever wrote it may have gone without. Once it lies there for
        minutes the kernel has written it by itself.
        """
        for digest, size in blobs.items():
            fd = self.blobs.open(digest, size=size)
            try:
                if to_last and os.fstat(fd).st_ctime > time.time() - _YOUNG:
                    with storage_errors(f"syncing blob {digest}"):
                        self.durability.sync_file(fd)
            finally:
                os.close(fd)

    def read_refs(self) -> tuple[dict[SnapshotName, Digest], list[BrokenRef]]:
        """The refs that lead to a blob, and what is wrong with the others."""
        reading = self.read()
        return reading.refs, reading.broken

    def read(self) -> Reading:
        """Read all refs, and look whether their blobs are there."""
        self.require_same()
        refs, broken = self.refs.read_all()
        referrers = self.refs.read_referrers()
        sizes: dict[Digest, int] = {}
        for name, digest in list(refs.items()):
            problem = self._look(digest, sizes)
            if problem is not None:
                broken.append(BrokenRef(name, problem))
                del refs[name]
        referrers = {name: digest for name, digest in referrers.items() if self._look(digest, sizes) is None}
        return Reading(refs, sizes, sorted(broken), referrers, self._remembered(broken, sizes))

    def _remembered(self, broken: Sequence[BrokenRef], sizes: dict[Digest, int]) -> dict[SnapshotName, Digest]:
        """See Reading; adds to `sizes`."""
        said: Mapping[str, Digest] = {}
        found = {}
        with contextlib.suppress(StorageError):
            said = (self.index.names() or {}) if broken else {}
        for name in sorted(each.name for each in broken if each.name in said):
            with contextlib.suppress(InvalidName):
                if self._look(said[name], sizes) is None:
                    found[parse_name(name)] = said[name]
        return found

    def _look(self, digest: Digest, sizes: dict[Digest, int]) -> str | None:
        """Add a blob's bytes to `sizes`; returns what is wrong with it."""
        if digest in sizes:
            return None
        try:
            size = self.blobs.size(digest)
        except CorruptContent as error:
            return str(error)
        if size is None:
            return f"{digest} is not in the store"
        sizes[digest] = size
        return None

    def vanished(self) -> list[RemovedRef]:
        """Names that are gone though nobody removed them with casstore, as the trash has them, and are not back."""
        return [ref for ref in self.trash.vanished() if self.refs.get(SnapshotName(ref.name)) != ref.digest]

    def refs_stamp(self) -> str | None:
        """Stands for what `read` returns; None when it has to be asked."""
        return stamp(self.refs.path, self.blobs.path)

    def fetch(self, descriptor: Descriptor) -> Reader:
        """Open content; see Fetcher."""
        return self.blobs.fetch(descriptor)

    def read_range(self, descriptor: Descriptor, offset: int, length: int) -> bytes:
        """A part of content; see RangeReader."""
        return self.blobs.read_range(descriptor, offset, length)

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether a blob is stored, or kept of an interrupted transfer; see Prober. Nothing is locked or changed."""
        if self.blobs.exists(descriptor):
            return True
        return any(BlobDirectory(path).exists(descriptor) for path in operation_paths(self.tmp))

    def tags(self) -> Iterable[str]:
        """All names, those of referrers included; see TagLister."""
        reading = self.read()
        return [*reading.refs, *reading.referrers]

    def referrers(self, subject: Descriptor) -> Sequence[Descriptor]:
        """What is here and refers to `subject`; see ReferrerLister.

        Raises:
            CorruptContent: one of them is damaged.
        """
        found = []
        named = self.refs.read_referrers(subject.digest).items()
        for digest in dict.fromkeys(digest for name, digest in named if not is_attachment(name)):
            size = self.blobs.size(digest)
            if size is not None:
                raw = fetch_all(self.blobs, manifest_of(digest, size), limit=spec.MAX_MANIFEST)
                manifest = AnyManifest.parse(raw, spec.MEDIA_MANIFEST, subject=f"referrer {digest}")
                found.append(manifest.descriptor)
        return found

    def resolve(self, reference: str) -> Descriptor:
        """What a name, or the digest of a stored manifest, stands for; see Resolver."""
        if reference.startswith("sha256:"):
            digest: Digest | None = Digest.parse(reference)
        else:
            digest = self.refs.get(ReferrerName(reference) if is_reserved(reference) else parse_name(reference))
        size = None if digest is None else self.blobs.size(digest)
        if digest is None or size is None:
            raise NotFound(f"snapshot {reference}: it is not in store {self.path!r}")
        return manifest_of(digest, size)

    def foreign_entries(self) -> list[dict[str, Any]]:
        """The entries of index.json that another tool added; none when there is no index.json, or no index in it.

        Raises:
            StorageError: it cannot be read.
        """
        known = self.index.read()
        return [] if known is None or not known.others else foreign(known.others, self.read().named)

    def drop_foreign(self, entries: Sequence[dict[str, Any]]) -> None:
        """Take entries that another tool added out of index.json; gc then frees what only they needed."""
        with self.changing_refs():
            known = self.index.read()
            if known is not None:
                self.derive_index(self.read(), IndexFile(known.digest, without(known.others, entries)))

    def derive_index(self, reading: Reading, known: IndexFile | None = None) -> IndexFile:
        """Let index.json say what the refs say; see StoreIndex.derive. Call it with refs.lock held."""
        return self.index.derive(reading.named, reading.sizes, known)


def no_store(path: str) -> NotFound:
    """The error for a path where there is no store."""
    return NotFound(
        f"store {path!r}: there is no store; is the path right? casstore init makes an empty one there, and so do"
        " create, import and pull"
    )


def _require_whole(path: str) -> None:
    """Raise CorruptContent where there is what is left of a store: it must not pass for none, or for a plain layout."""
    ours = marker.is_ours(path)  # asked first: another process may make the store just now, and marks it last
    missing = next((part for part in PARTS if not is_plain_directory(os.path.join(path, part))), None)
    if ours and missing is not None:
        raise CorruptContent(
            f"store {path!r}: it is damaged: expected a directory {missing}, got nothing there; casstore check tells"
            " what is lost, and casstore check --repair mends what can be mended"
        )


def _make(path: str, parts: list[str], options: StoreOptions, *, share: bool | None) -> None:
    with storage_errors(f"making store {path!r}"):
        strangers = os.path.lexists(path) and set(os.listdir(path)) - {"blobs", "refs", spec.POLICY_FILENAME}
    if strangers and not all(map(is_plain_directory, parts)):  # else another process has made it just now
        if "oci-layout" in strangers:
            problem = "expected a casstore store, got a plain OCI layout; name it oci:DIR, or choose another place"
            raise AlreadyExists(f"store {path!r}: {problem}")
        raise AlreadyExists(f"store {path!r}: expected a store or an empty directory, got other files")
    with storage_errors(f"making store {path!r}"):
        durable.make_directories(os.path.dirname(path), options.durability)
        with contextlib.suppress(FileExistsError):
            durable.make_directory(path, permissions.PRIVATE)  # disks hold secrets
        if share is False:
            permissions.make_private(path)
        options.durability.sync_directory(os.path.dirname(path))
        for part in parts:
            durable.make_part(part, options.durability)
