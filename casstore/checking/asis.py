"""A store as it is, before anything in it is brought up to date: which names there are, and what is wrong with what
holds it together.

An opening of the store makes derived files anew, and with them goes what they could have told: that index.json or the
catalog knew a name that refs/ has no more. So a check looks here first. It looks without opening: a store whose marker
is garbage, or whose refs/ is gone, can be looked at.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from casstore import durable, layout, locks, marker, spec
from casstore.blobs import BlobDirectory
from casstore.checking.catalogfile import CatalogFile
from casstore.checking.census import read_root
from casstore.checking.findings import Finding, Kind
from casstore.digest import Digest
from casstore.errors import CasstoreError, InvalidName, NotFound, StorageError, UnsupportedVersion, storage_errors
from casstore.links import NotARef, read_link
from casstore.names import fits, is_reserved, parse_name, referrer_subject
from casstore.storedir import PARTS, StoreDirectory, StoreOptions, is_own_temporary, no_store
from casstore.storeindex import Entry, foreign

_DIRECTORIES = (*PARTS, "tmp", "trash", "quarantine", "state", "cache")
_MARKERS = ("oci-layout", marker.NAME)
_INDEX, _CATALOG, _JOURNAL = "index.json", "catalog.sqlite", "catalog.sqlite-journal"
_DATABASE = (_CATALOG, _JOURNAL)
_KNOWN = {
    *(name for name in _DIRECTORIES if "/" not in name),
    *(*_MARKERS, *locks.NAMES, _INDEX, _CATALOG, _JOURNAL, spec.POLICY_FILENAME),
}


@dataclass(frozen=True, slots=True)
class AsIs:
    """What was seen at one moment."""

    directory: StoreDirectory
    """The store, without anything in it having been made or opened; to be locked only where `is_whole`."""
    refs: Mapping[str, Digest]
    """All well-formed refs, those of referrers included, whether their blob is there or not."""
    findings: tuple[Finding, ...]
    blobs: BlobDirectory
    """Its blobs; none where something else has the place of the directory."""
    is_whole: bool
    """Whether no file or directory of the store has its place taken by something else."""
    catalog: CatalogFile | None
    """None where there is no catalog that could be compared."""
    foreign: Sequence[Entry] = ()
    """The entries of index.json that other tools added."""


def look(path: str, options: StoreOptions) -> AsIs:
    """Look at the store at `path`; nothing is changed, but the file of a lock may be made.

    Raises:
        NotFound: there is no store.
        UnsupportedVersion: made by a newer version.
        StorageError: its directory cannot be read.
    """
    path = os.path.abspath(path)
    if not any(_is_there(os.path.join(path, part)) for part in ("refs", marker.NAME)):
        raise no_store(path)
    looker = _Looker(path, options)
    looker.look_at_layout()
    with _refs_lock(path, options):
        looker.look_at_refs()
        looker.look_at_index()
        looker.look_at_catalog()
    looker.compare_names()
    return AsIs(
        directory=looker.directory,
        refs=looker.refs,
        findings=tuple(looker.findings),
        blobs=looker.blobs,
        is_whole=not looker.bad,
        catalog=looker.catalog,
        foreign=looker.foreign,
    )


def _is_there(path: str) -> bool:
    with storage_errors(f"opening {path!r}"):
        try:
            os.lstat(path)  # not lexists, which takes "no permission" for "not there"
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


@contextlib.contextmanager
def _refs_lock(path: str, options: StoreOptions) -> Iterator[None]:
    """Nobody changes a ref meanwhile, where that can be had: not on a read-only store, or a damaged one."""
    held: durable.Lock | None = None
    if os.access(path, os.W_OK):
        with contextlib.suppress(CasstoreError):
            held = durable.lock(os.path.join(path, "refs.lock"), wait=options.wait)
    with held or contextlib.nullcontext():
        yield


@dataclass(slots=True)
class _Looker:
    path: str
    options: StoreOptions
    findings: list[Finding] = field(default_factory=list)
    bad: set[str] = field(default_factory=set)
    """Paths whose place is taken by something else, or needed and missing."""
    refs: dict[str, Digest] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    """Name -> what is wrong with the ref."""
    said: list[tuple[str, Mapping[str, Digest]]] = field(default_factory=list)
    """(file, name -> digest): what derived files say of the refs."""
    outlived: set[str] = field(default_factory=set)
    """The files of the trash after which the catalog saw their names."""
    catalog: CatalogFile | None = None
    foreign: list[Entry] = field(default_factory=list)
    directory: StoreDirectory = field(init=False)
    blobs: BlobDirectory = field(init=False)

    def __post_init__(self) -> None:
        reason = None if os.access(self.path, os.W_OK) else "its permissions or its file system say so"
        with contextlib.suppress(CasstoreError):
            reason = marker.require_readable(self.path) or reason
        self.directory = StoreDirectory(self.path, self.options, read_only=reason)
        self.blobs = self.directory.blobs

    def tell(self, kind: Kind, subject: str, problem: str, **more: object) -> None:
        self.findings.append(Finding(kind, subject, problem, **more))  # type: ignore[arg-type]

    def at(self, name: str) -> str:
        return os.path.join(self.path, name)

    def look_at_layout(self) -> None:
        """Directories, markers, the kinds of all files, and what does not belong here."""
        for name in _DIRECTORIES:
            if not self._is(name, stat.S_IFDIR, "a directory") and name in PARTS and name not in self.bad:
                self.bad.add(name)
                self.tell(Kind.BAD_LAYOUT, name, "expected a directory, got nothing there")
        if self.bad & set(PARTS[1:]):
            self.blobs = _NoBlobs(self.directory.blobs.path)
        files = {
            name: self._is(name, stat.S_IFREG, "a regular file")
            for name in (*_MARKERS, *locks.NAMES, _INDEX, *_DATABASE)
        }
        for name in _MARKERS:
            if files[name]:
                self._look_at_marker(name)
            elif name not in self.bad:
                self.tell(Kind.MISSING_MARKER, name, "it is missing; any command makes it again")
        with storage_errors(f"store {self.path!r}"):
            strangers = sorted(set(os.listdir(self.path)) - _KNOWN)
        for name in strangers:
            kind = Kind.TEMPORARY if is_own_temporary(name) else Kind.UNKNOWN_FILE
            self.tell(kind, name, "unfinished; gc removes it" if kind is Kind.TEMPORARY else "it is not the store's")

    def _is(self, name: str, kind: int, expected: str) -> bool:
        """Whether something of this kind is there; what is of another kind is told."""
        with storage_errors(f"store {self.path!r}"):
            try:
                mode = os.lstat(self.at(name)).st_mode
            except (FileNotFoundError, NotADirectoryError):
                return False
        if stat.S_IFMT(mode) == kind and not any(name.startswith(f"{bad}/") for bad in self.bad):
            return True
        if stat.S_IFMT(mode) != kind:
            self.bad.add(name)
            self.tell(Kind.BAD_LAYOUT, name, f"expected {expected}, got {kind_of(mode)}")
        return False

    def _look_at_marker(self, name: str) -> None:
        try:
            marker.require_readable(self.path) if name == marker.NAME else layout.check_marker(self.path)
        except UnsupportedVersion:
            raise
        except CasstoreError as error:
            self.bad.add(name)
            self.tell(Kind.BAD_LAYOUT, name, str(error))

    def look_at_refs(self) -> None:
        """Every name, and what else is in refs/."""
        if "refs" in self.bad:
            return
        with storage_errors("reading the refs"):
            names = sorted(os.listdir(self.at("refs")))
        for name in names:
            subject = f"refs/{ascii(name)[1:-1]}"
            if name.startswith("."):
                kind = Kind.TEMPORARY if durable.is_temporary(name) else Kind.UNKNOWN_FILE
                self.tell(kind, subject, "unfinished; gc removes it" if kind is Kind.TEMPORARY else "it is no ref")
            elif is_reserved(name) and referrer_subject(name) is None:
                self.tell(Kind.UNKNOWN_FILE, subject, "names of this form are reserved, and this is none of casstore's")
            else:
                self._look_at_ref(name)

    def _look_at_ref(self, name: str) -> None:
        about = referrer_subject(name)
        try:
            if about is None:
                parse_name(name)
            digest = read_link(os.path.join(self.at("refs"), name))
        except InvalidName:
            self.broken[name] = "this is not a snapshot's name; remove it by hand"
        except (NotARef, StorageError) as error:
            self.broken[name] = str(error)
        except FileNotFoundError:
            pass  # removed since the directory was read
        else:
            self.refs[name] = digest
            if about is not None and not fits(name, digest):
                del self.refs[name]
                self.broken[name] = f"expected it to lead to a manifest sha256:{name[-16:]}..., got {digest}"

    def look_at_index(self) -> None:
        """What index.json says of the refs."""
        if _INDEX in self.bad:
            return
        try:
            names = self.directory.index.names()
        except CasstoreError as error:
            self.tell(Kind.STALE_INDEX, _INDEX, f"{error}; any command derives it again")
            return
        if names is None:
            there = os.path.lexists(self.at(_INDEX))
            problem = "it is no image index" if there else "it is missing"
            self.tell(Kind.STALE_INDEX, _INDEX, f"{problem}; any command derives it again")
            return
        self.said.append((_INDEX, names))
        remembered = {name: digest for name, digest in names.items() if self._is_remembered(name, digest)}
        refs = dict(sorted((self.refs | remembered).items(), key=lambda ref: (is_reserved(ref[0]), ref[0])))
        index, present = self.directory.index, set(filter(self._has, refs.values()))
        sizes = {digest: os.lstat(self.blobs.path_of(digest)).st_size for digest in present}
        # The size of a damaged manifest says nothing against index.json.
        if not index.is_right(refs, sizes) and not index.is_right(refs, self._sound(sizes)):
            self.tell(Kind.STALE_INDEX, _INDEX, "it does not say what the refs say; check --repair derives it again")
        known = index.read()
        self.foreign = foreign(() if known is None else known.others, refs)
        for entry in self.foreign:
            digest = ascii(entry["digest"])[1:100].rstrip("'")
            problem = f"another tool added {digest}; gc keeps what it needs, until casstore adopt"
            self.tell(Kind.FOREIGN_ENTRY, _INDEX, problem)

    def _has(self, digest: Digest) -> bool:
        """Whether something that may be a manifest is there: what an opening lets index.json name."""
        with contextlib.suppress(CasstoreError):
            return self.blobs.size(digest) is not None
        return False

    def _is_remembered(self, name: str, digest: Digest) -> bool:
        """Whether index.json goes on saying that a name, which is broken, stands for this."""
        now = self.refs.get(name)
        is_broken = name in self.broken if now is None else not self._has(now)
        return is_broken and not is_reserved(name) and self._has(digest)

    def _sound(self, sizes: Mapping[Digest, int]) -> dict[Digest, int]:
        """Those of the manifests that can be read."""
        sound = {}
        for digest, size in sizes.items():
            with contextlib.suppress(CasstoreError, OSError):
                read_root(self.blobs, digest)
                sound[digest] = size
        return sound

    def look_at_catalog(self) -> None:
        """What the catalog saw last."""
        if self.bad.intersection(_DATABASE):
            return
        if not os.path.lexists(self.at(_CATALOG)):
            self.tell(Kind.STALE_CATALOG, _CATALOG, "it is missing; any command makes it anew")
            return
        catalog = CatalogFile(self.at(_CATALOG), wait=self.options.wait)
        problem = catalog.problem()
        if problem is not None:
            self.tell(Kind.STALE_CATALOG, _CATALOG, f"{problem}; casstore reindex makes it anew")
            return
        self.catalog = catalog
        with contextlib.suppress(CasstoreError):
            self.said.append((_CATALOG, catalog.refs()))
            self.outlived = catalog.outlived()
            if catalog.misremembers(self.directory.index):
                problem = "it remembers what is not so; casstore reindex makes it anew"
                self.tell(Kind.STALE_CATALOG, _CATALOG, problem)
                self.catalog = None

    def compare_names(self) -> None:
        """Names that got lost, or lead elsewhere than they did."""
        removed: set[str] = set()
        told: set[str] = set()
        if "trash" not in self.bad:
            found = [ref for ref in self.directory.trash.read() if not ref.has_vanished]
            # What is said may be from before the name moved on, and was removed: the later removal counts.
            removed = {ref.name for ref in found if ref.file not in self.outlived}
            for ref in self.directory.vanished():  # somebody noticed it before
                if ref.digest is not None and ref.name not in self.refs:
                    problem = f"it is gone, and nobody removed it; the trash says it was {ref.digest}"
                    self._tell_ref(Kind.LOST_REF, ref.name, ref.digest, problem)
                    told.add(ref.name)
        for file, names in self.said:  # index.json first: it is derived before the catalog
            for name, digest in names.items():
                if name in told:
                    continue
                now = self.refs.get(name)
                if name in self.broken or (now is not None and now != digest and not self._has(now)):
                    told.add(name)
                    problem = self.broken.pop(name, f"it leads to {now}, which is not in the store")
                    self.refs.pop(name, None)
                    self._tell_ref(Kind.BROKEN_REF, name, digest, f"{problem}; {file} says it was {digest}")
                elif now is None and name not in removed:
                    told.add(name)
                    problem = f"it is gone, and nobody removed it; {file} says it was {digest}"
                    self._tell_ref(Kind.LOST_REF, name, digest, problem)
                elif now is not None and now != digest:
                    told.add(name)
                    problem = f"it leads to {now}; {file} says it was {digest}"
                    if self._has(digest) and not is_reserved(name):
                        problem += f": if nobody wanted that, before gc: casstore tag {digest} {name} -f"
                    self._tell_ref(Kind.CHANGED_REF, name, digest, problem)
        for name, problem in self.broken.items():
            self._tell_ref(Kind.BROKEN_REF, name, None, problem)

    def _tell_ref(self, kind: Kind, name: str, was: Digest | None, problem: str) -> None:
        about = referrer_subject(name)
        hurt = (name,) if about is None else tuple(sorted(own for own, to in self.refs.items() if to == about))
        self.tell(kind, f"refs/{ascii(name)[1:-1]}", problem, digest=was, snapshots=hurt)


class _NoBlobs(BlobDirectory):
    """What there is where the directory is not: what a symlink in its place leads to is not the store's."""

    def size(self, digest: Digest) -> int | None:  # noqa: ARG002
        return None

    def open(self, digest: Digest, *, size: int | None = None) -> int:  # noqa: ARG002
        raise NotFound(f"blob {digest}: the store has no directory of blobs")

    def names(self) -> Sequence[str]:
        return ()


def kind_of(mode: int) -> str:
    """What a file is that is not what it should be."""
    names = {
        stat.S_IFLNK: "a symlink",
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFREG: "a regular file",
    }
    return names.get(stat.S_IFMT(mode), "a device")
