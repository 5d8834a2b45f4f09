"""Which blobs the names of a store need, each once, and which names need which blob."""

from __future__ import annotations

import contextlib
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from casstore import spec
from casstore.blobs import BlobDirectory
from casstore.checking.foreign import Reached
from casstore.digest import Digest
from casstore.errors import CasstoreError, NotFound
from casstore.names import ReferrerName, SnapshotName, is_attachment, is_reserved, parse_name, referrer_subject
from casstore.oci import AnyManifest, ArtifactManifest, Descriptor, manifest_of
from casstore.streams import fetch_all
from casstore.trash import Trash

_REMOVED = "trash/"


@dataclass(frozen=True, slots=True)
class Holder:
    """A manifest that names stand for: a snapshot, or what refers to one."""

    digest: Digest
    names: tuple[str, ...]
    """Sorted, those in the trash as `trash/<name>@<stamp>`; of a referrer, those of the snapshot."""
    subject: Digest | None = None
    """What it is about."""
    is_attachment: bool = False
    """Whether only its name says so."""


class Census:
    """What `refs` need of `blobs`, as far as their manifests can be read: what is wrong with them is not told here; and
    what other tools' entries in index.json need and have.

    `refs` may have what `removed_names` gives, too. Referrers whose subject nothing stands for are left out: gc removes
    them.
    """

    def __init__(self, blobs: BlobDirectory, refs: Mapping[str, Digest], foreign: Iterable[Reached] = ()) -> None:
        self._blobs = blobs
        self.holders: list[Holder] = []
        self.foreign: tuple[Reached, ...] = tuple(foreign)
        self.needs: dict[Digest, Descriptor] = {}
        """By digest; as the first manifest that names the blob describes it."""
        self._users: defaultdict[Digest, array[int]] = defaultdict(lambda: array("I"))
        names: defaultdict[Digest, list[str]] = defaultdict(list)
        for name, digest in sorted(refs.items()):
            if not is_reserved(name):
                names[digest].append(name)
        for digest in sorted(names, key=lambda digest: names[digest]):  # steps of one disk, which share much, together
            self._add(Holder(digest, tuple(names[digest])))
        self._add_referrers({ReferrerName(name): digest for name, digest in refs.items() if is_reserved(name)})
        for number, entry in enumerate(self.foreign, len(self.holders)):
            for blob in entry.blobs:
                self.needs.setdefault(blob.digest, blob)
                self._users[blob.digest].append(number)

    def _add_referrers(self, refs: dict[ReferrerName, Digest]) -> None:
        names = {holder.digest: holder.names for holder in self.holders}
        found = True
        while found:  # level by level
            found = False
            for name, digest in sorted(refs.items()):
                subject = referrer_subject(name)
                if subject in names:
                    del refs[name]
                    self._add(Holder(digest, names[subject], subject, is_attachment(name)))
                    names.setdefault(digest, names[subject])
                    found = True

    def _add(self, holder: Holder) -> None:
        number = len(self.holders)
        self.holders.append(holder)
        self._users[holder.digest].append(number)
        with contextlib.suppress(CasstoreError, OSError):
            for blob in self._children(holder):
                self.needs.setdefault(blob.digest, blob)
                self._users[blob.digest].append(number)

    def _children(self, holder: Holder) -> Iterable[Descriptor]:
        raw = read_root(self._blobs, holder.digest)
        self.needs.setdefault(holder.digest, manifest_of(holder.digest, len(raw)))
        if holder.subject is not None:
            return AnyManifest.parse(raw, spec.MEDIA_MANIFEST, subject="referrer").blobs
        return ArtifactManifest.parse(raw, subject="snapshot").children

    @property
    def digests(self) -> Iterator[Digest]:
        """Every blob that is needed, whether it is there or not."""
        return iter(self._users)

    def hurt(self, blob: Digest) -> tuple[str, ...]:
        """The names that need a blob, sorted."""
        found: set[str] = set()
        for number in self._users.get(blob, ()):
            by = number - len(self.holders)
            found.update(self.holders[number].names if by < 0 else (self.foreign[by].label,))
        return tuple(sorted(found))

    @property
    def snapshots(self) -> dict[SnapshotName, Digest]:
        """The names of snapshots, and what they stand for; none of the trash."""
        own = (holder for holder in self.holders if holder.subject is None)
        return {
            parse_name(name): holder.digest for holder in own for name in holder.names if not name.startswith(_REMOVED)
        }


def removed_names(trash: Trash, refs: Mapping[str, Digest]) -> dict[str, Digest]:
    """What the names in the trash stand for, as `trash/<name>@<stamp>`, but for those that stand for it again in
    `refs`; none where it cannot be read.
    """
    with contextlib.suppress(CasstoreError):
        removed = (ref for ref in trash.read() if refs.get(ref.name) != ref.digest)
        return {f"{_REMOVED}{ref.file}": ref.digest for ref in removed if ref.digest is not None}
    return {}


def read_root(blobs: BlobDirectory, digest: Digest) -> bytes:
    """The bytes of a manifest that a ref names, verified.

    Raises:
        NotFound, CorruptContent: it is missing or damaged; UnsupportedVersion, one of these, where it is too large.
        StorageError: it cannot be read.
    """
    size = blobs.size(digest)
    if size is None:
        raise NotFound(f"blob {digest}: expected it at {blobs.path_of(digest)!r}, got nothing there")
    return fetch_all(blobs, manifest_of(digest, size), limit=spec.MAX_MANIFEST)
