"""OCI image layouts (image-spec v1.1.1, image-layout.md): the marker, index.json, and a layout as a Target.

Other tools write layouts without any locking. This one holds flock(2) on the directory itself while it changes
index.json, writes blobs under temporary names, and never removes an entry that it did not make.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

from casstore import durable, spec
from casstore.blobs import BlobDirectory, is_plain_directory
from casstore.content import Fetcher, Reader
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import DocumentError, InvalidDigest, NotFound, storage_errors
from casstore.jsondoc import dump, load_object
from casstore.oci import Descriptor, ImageIndex
from casstore.operation import Operation, live_leases
from casstore.schema import validate

_MARKER = {"imageLayoutVersion": spec.LAYOUT_VERSION}
_STAGING = ".casstore"


def read_file(path: str, *, limit: int) -> bytes | None:
    """A small file's bytes, at most `limit + 1`; None when there is no such file."""
    with storage_errors(f"reading {path!r}"):
        try:
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
                return file.read(limit + 1)
        except FileNotFoundError:
            return None


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
        self.root, self._durability, self._wait = root, durability, wait
        self.blobs = BlobDirectory(os.path.join(root, "blobs", "sha256"))
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

    def resolve(self, reference: str) -> Descriptor:
        """Look up a tag, or the digest of a manifest that is there; see Resolver."""
        index = read_index(self.root) or ImageIndex()
        try:
            digest = Digest.parse(reference)
        except InvalidDigest:
            found = set(index.find(reference))
            if len(found) > 1:
                problem = f"the tag {reference} stands for {len(found)} manifests"
                raise DocumentError(f"oci:{self.root}", problem) from None
            if not found:
                raise NotFound(f"oci:{self.root}:{reference}: there is no such tag") from None
            return found.pop()
        size = self.blobs.size(digest)
        if size is None:
            raise NotFound(f"oci:{self.root}@{digest}: there is no such manifest")
        return Descriptor(media_type=spec.MEDIA_MANIFEST, digest=digest, size=size)

    def tags(self) -> dict[str, Descriptor]:
        """All tags, and what they stand for."""
        found = {}
        for entry in (read_index(self.root) or ImageIndex()).entries:
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

    def delete(self, descriptor: Descriptor) -> None:
        """Remove content and its names; see Deleter."""
        with self._changed_entries() as entries:
            if self.blobs.size(descriptor.digest) is None:
                raise NotFound(f"oci:{self.root}: {descriptor.digest} is not there")
            entries[:] = [old for old in entries if old["digest"] != str(descriptor.digest)]
        with storage_errors(f"removing {descriptor.digest}"):
            os.unlink(self.blobs.path_of(descriptor.digest))

    @contextlib.contextmanager
    def _changed_entries(self) -> Iterator[list[dict[str, Any]]]:
        """The entries of index.json, to be changed in place; written back when the block ends without an error."""
        with self._locked():
            entries = list((read_index(self.root) or ImageIndex()).entries)
            yield entries
            write_index(self.root, ImageIndex(tuple(entries)), self._durability)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The layout's lock; its first holder clears away what dead processes left."""
        self._require_plain()
        with durable.lock(self.root, wait=self._wait):
            self._require_plain()  # as it is now, after the wait
            for path in live_leases(os.path.join(self.root, _STAGING))[1]:
                shutil.rmtree(path, ignore_errors=True)
            yield
