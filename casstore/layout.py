"""OCI image layouts (image-spec v1.1.1, image-layout.md): the marker, index.json, and a layout as a Target.

Other tools write layouts without any locking. This one holds flock(2) on the directory itself while it changes
index.json, writes blobs under temporary names, and never removes an entry that it did not make.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from casstore import durable, spec
from casstore.blobs import BlobDirectory, is_plain_directory
from casstore.content import Fetcher, Reader
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import DocumentError, InvalidDigest, NotFound, storage_errors
from casstore.jsondoc import dump, load_object
from casstore.names import MAX_NAME, is_attachment, nearest, referrer_name, referrer_subject
from casstore.oci import AnyManifest, Descriptor, ImageIndex
from casstore.operation import Operation, live_leases
from casstore.schema import validate
from casstore.streams import COPY_CHUNK, BytesSource, fetch_all

_MARKER = {"imageLayoutVersion": spec.LAYOUT_VERSION}
_STAGING = ".casstore"


def read_file(path: str, *, limit: int) -> bytes | None:
    """A small file's bytes, at most `limit + 1`; None when there is no such file.

    Raises:
        DocumentError: something else has its place, as a symlink.
    """
    with storage_errors(f"reading {path!r}"):
        try:
            with open(path, "rb", opener=_open_file) as file:
                parts: list[bytes] = []  # to ask for all that may be there takes as much memory as there may be
                while limit >= 0 and (part := file.read(min(limit + 1, COPY_CHUNK))):
                    parts.append(part)
                    limit -= len(part)
                return b"".join(parts)
        except FileNotFoundError:
            return None


def _open_file(path: str, flags: int) -> int:
    """Open a regular file to read it, whatever has its place: no symlink is followed, and no FIFO waited for."""
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            raise DocumentError(path, "expected a regular file, got a symlink or special file") from None
        raise
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # to read the latter fails
        return fd
    os.close(fd)
    raise DocumentError(path, "expected a regular file, got a symlink or special file")


def check_marker(root: str) -> bool:
    """Whether `root` has an oci-layout file; raises DocumentError when that is of another version or damaged."""
    path = os.path.join(root, "oci-layout")
    raw = read_file(path, limit=spec.MAX_MANIFEST)
    if raw is not None and raw != dump(_MARKER):  # jsonschema is slow to import: not for what we wrote ourselves
        validate(load_object(raw, subject=path, limit=spec.MAX_MANIFEST), "oci-layout", subject=path)
    return raw is not None


def write_marker(root: str, durability: Durability) -> None:
    """Write the oci-layout file."""
    durable.replace_file(os.path.join(root, "oci-layout"), dump(_MARKER), mode=0o644, durability=durability)


def read_index(root: str) -> ImageIndex | None:
    """The index.json of `root`; None when there is none. Raises DocumentError when it is damaged."""
    path = os.path.join(root, "index.json")
    raw = read_file(path, limit=spec.MAX_INDEX)
    return None if raw is None else ImageIndex.parse(raw, subject=path)


def write_index(root: str, index: ImageIndex, durability: Durability) -> None:
    """Replace the index.json of `root`, atomically."""
    durable.replace_file(os.path.join(root, "index.json"), index.to_bytes(), mode=0o644, durability=durability)


class LayoutTarget:
    """The OCI layout in directory `root` as a Target; made when `create` is set and there is none.

    Raises:
        NotFound: no layout there, and `create` is not set.
        DocumentError: there is something else, or a layout of another version.
        CorruptContent: a symlink or file has the place of a directory in it.
    """

    def __init__(
        self, root: str, *, create: bool = False, durability: Durability = Durability.FULL, wait: float = 60.0
    ) -> None:
        if os.path.lexists(root) and not os.path.isdir(root):
            raise DocumentError(f"oci:{root}", "expected an OCI layout, got no directory")
        root = os.path.realpath(root)  # the caller may name it by a symlink; inside of it none is followed
        self.root: str = root
        self._durability, self._wait = durability, wait
        self._known: tuple[bytes | None, ImageIndex] = None, ImageIndex()
        self.blobs: BlobDirectory = BlobDirectory(os.path.join(root, "blobs", "sha256"))
        self._require_plain()
        if check_marker(root):
            return
        if not create:
            raise NotFound(f"oci:{root}: expected an OCI layout, got no oci-layout file there")
        with storage_errors(f"making oci:{root}"):
            durable.make_directories(root, durability)
            with self._locked():
                self._make()

    def _require_plain(self) -> None:
        """Raise CorruptContent where a symlink would lead writes and removals out of the layout."""
        for part in ("blobs", "blobs/sha256", _STAGING):
            is_plain_directory(os.path.join(self.root, part))

    def _make(self) -> None:
        """Make an empty layout, or finish one whose making was interrupted; the marker comes last."""
        if check_marker(self.root):
            return  # another process was faster
        strangers = set(os.listdir(self.root)) - {"blobs", "index.json", _STAGING}
        if not all(map(durable.is_temporary, strangers)):
            raise DocumentError(f"oci:{self.root}", "expected an OCI layout or an empty directory, got other files")
        durable.make_directories(self.blobs.path, self._durability)
        if read_index(self.root) is None:
            write_index(self.root, ImageIndex(), self._durability)
        write_marker(self.root, self._durability)

    def fetch(self, descriptor: Descriptor) -> Reader:
        """Open content; see Fetcher."""
        return self.blobs.fetch(descriptor)

    def read_range(self, descriptor: Descriptor, offset: int, length: int) -> bytes:
        """A part of content; see RangeReader."""
        return self.blobs.read_range(descriptor, offset, length)

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether content is there; see Prober."""
        return self.blobs.exists(descriptor)

    def push(self, descriptor: Descriptor, source: Fetcher) -> None:
        """Store content; see Pusher. Durable when this returns."""
        with self._locked():
            durable.make_directories(self.blobs.path, self._durability)
            operation = Operation(os.path.join(self.root, _STAGING), self._durability)
        with operation:
            operation.receive(descriptor, source)
            operation.move_to(self.blobs)

    def referrers(self, subject: Descriptor) -> Sequence[Descriptor]:
        """What `attach` has put here; see ReferrerLister."""
        named = self.tags().items()
        found = [
            descriptor
            for name, descriptor in named
            if referrer_subject(name) == subject.digest and not is_attachment(name)
        ]
        return [_without_name(descriptor) for descriptor in dict.fromkeys(found)]

    def attach(self, descriptor: Descriptor, subject: Descriptor, source: Fetcher) -> None:
        """Store a manifest that refers to `subject`, under a reserved name; see Attacher."""
        raw = fetch_all(source, descriptor, limit=spec.MAX_MANIFEST)
        manifest = AnyManifest.parse_referrer(raw, descriptor.media_type, of=subject)
        self.push(descriptor, BytesSource(raw))
        self.tag(manifest.descriptor, referrer_name(subject.digest, manifest.descriptor))

    def resolve(self, reference: str) -> Descriptor:
        """Look up a tag, or the digest of a manifest that is there; see Resolver."""
        index = self._index()
        try:
            digest = Digest.parse(reference)
        except InvalidDigest:
            found = set(index.find(reference))
            if len(found) > 1:
                problem = f"the tag {reference} stands for {len(found)} manifests"
                raise DocumentError(f"oci:{self.root}", problem) from None
            if not found:
                raise NotFound(f"oci:{self.root}:{reference}: there is no such tag{self._meant(reference)}") from None
            return found.pop()
        size = self.blobs.size(digest)
        if size is None:
            raise NotFound(f"oci:{self.root}@{digest}: there is no such manifest")
        kinds = [entry["mediaType"] for entry in index.entries if entry["digest"] == reference]
        return Descriptor(media_type=(kinds or [spec.MEDIA_MANIFEST])[0], digest=digest, size=size)

    def tags(self) -> dict[str, Descriptor]:
        """All tags, and what they stand for; see TagLister."""
        found = {}
        for entry in self._index().entries:
            name = entry.get("annotations", {}).get(spec.ANNOTATION_REF_NAME)
            if name is not None:
                with contextlib.suppress(InvalidDigest):  # of another algorithm: not one of ours
                    found[name] = Descriptor.from_dict(entry)
        return found

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """Name a manifest; see Tagger."""
        if not self.exists(descriptor):
            raise NotFound(f"oci:{self.root}: {descriptor.digest} is not there to be tagged {name}")
        entry = descriptor.to_dict()
        entry["annotations"] = {**descriptor.annotations, spec.ANNOTATION_REF_NAME: name}
        with self._changed_entries() as entries:
            entries[:] = [old for old in entries if old.get("annotations", {}).get(spec.ANNOTATION_REF_NAME) != name]
            entries.append(entry)

    def untag(self, name: str) -> None:
        """Remove one tag; what it stood for stays in blobs/; see Untagger."""
        with self._changed_entries() as entries:
            left = [entry for entry in entries if entry.get("annotations", {}).get(spec.ANNOTATION_REF_NAME) != name]
            if len(left) == len(entries):
                raise NotFound(f"oci:{self.root}:{name}: there is no such tag{self._meant(name)}")
            entries[:] = left

    def _meant(self, tag: str) -> str:
        """Which tag was meant, maybe."""
        close = nearest(tag, sorted(name for name in self.tags() if len(name) <= MAX_NAME and name.isprintable()))
        return "" if close is None else f"; did you mean {close}?"

    def delete(self, descriptor: Descriptor) -> None:
        """Remove content and its names; see Deleter."""
        with self._changed_entries() as entries:
            if self.blobs.size(descriptor.digest) is None:
                raise NotFound(f"oci:{self.root}: {descriptor.digest} is not there")
            entries[:] = [old for old in entries if old["digest"] != str(descriptor.digest)]
        with storage_errors(f"removing {descriptor.digest}"):
            self.blobs.remove(descriptor.digest)

    @contextlib.contextmanager
    def _changed_entries(self) -> Iterator[list[dict[str, Any]]]:
        """The entries of index.json, to be changed in place; written back when the block ends without an error."""
        with self._locked():
            entries = list(self._index().entries)
            yield entries
            index = ImageIndex(tuple(entries))
            write_index(self.root, index, self._durability)
            self._known = index.to_bytes(), index

    def _index(self) -> ImageIndex:
        """What index.json says; parsed only if it is another one than the last time: many entries take long."""
        path = os.path.join(self.root, "index.json")
        raw = read_file(path, limit=spec.MAX_INDEX)
        if raw is None:
            return ImageIndex()
        if raw != self._known[0]:
            self._known = raw, ImageIndex.parse(raw, subject=path)
        return self._known[1]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The layout's lock; its first holder clears away what dead processes left."""
        self._require_plain()
        with durable.lock(self.root, wait=self._wait):
            self._require_plain()  # as it is now, after the wait
            for path in live_leases(os.path.join(self.root, _STAGING))[1]:
                shutil.rmtree(path, ignore_errors=True)
            yield


def _without_name(entry: Descriptor) -> Descriptor:
    """An entry of index.json without what says its name."""
    kept = {key: text for key, text in entry.annotations.items() if key != spec.ANNOTATION_REF_NAME}
    return replace(entry, annotations=kept)
