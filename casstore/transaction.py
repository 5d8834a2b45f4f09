"""A change of a store: what it stages, what it relies on, and the commit that makes both visible at once.

For a capture it finds and stages chunks; for a copy it is the Target. Either way nothing has a name, or is even at its
place in blobs/, before `commit`, and a commit is durable when it returns.

What a copy has received when it fails, or its process dies, is kept until gc: the next copy that needs one of those
blobs takes it over, and reads it before it counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Self

from casstore import spec
from casstore.artifact import Artifact
from casstore.attachments import Attachment, read_attachment
from casstore.blobs import BlobDirectory
from casstore.catalog import Catalog
from casstore.content import Fetcher, Reader
from casstore.contents import verify_integrity
from casstore.digest import ChunkId, Digest
from casstore.directories import load_directory
from casstore.errors import CasstoreError, Conflict, CorruptContent, NotFound, UnsupportedVersion
from casstore.lookup import Lookup
from casstore.names import ReferrerName, SnapshotName, is_attachment, parse_name, referrer_name, referrer_subject
from casstore.oci import AnyManifest, Descriptor, manifest_of
from casstore.operation import StagedBlob
from casstore.pack import PackDirectory, Place, StoredPack
from casstore.progress import Meter, silent
from casstore.refs import Refs
from casstore.soundness import verify_chunks, verify_pack
from casstore.staged import StagedSnapshots
from casstore.storedir import StoreDirectory
from casstore.streams import BytesSource, fetch_all, read_through


class Transaction:
    """An open change; a context manager that drops what was not committed. With `keep`, what was received until an
    error stays for the next one, unless it is the content itself that is wrong.
    """

    def __init__(
        self,
        directory: StoreDirectory,
        catalog: Catalog,
        *,
        force: bool = False,
        workers: int = 0,
        keep: bool = False,
    ) -> None:
        self._directory, self._catalog = directory, catalog
        self._force, self._workers, self._keep = force, workers, keep
        self._blobs = directory.blobs
        self._operation = directory.operation()
        self._relied: dict[Digest, int] = {}
        self._attached: dict[ReferrerName, Descriptor] = {}
        self._distrusted: set[str] = set()
        self._proven: set[Digest] = set()  # packs that were verified for themselves as soon as they had come
        self._made = StagedSnapshots(self._operation.path)
        self._kept: frozenset[Digest] = frozenset()  # staged blobs that staged snapshots need
        self._directory_of = lru_cache(64)(lambda pack: load_directory(self, pack.descriptor, pack.directory))
        self._lookup = Lookup(self._places, self._directory_of, self._may_use)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._made.close()
        self._operation.close(keep=self._keep and kind is not None)

    @property
    def scratch(self) -> str:
        """A directory on the store's file system for files without a name."""
        return self._operation.path

    def reuse(self, digest: Digest) -> Artifact | None:
        """A stored snapshot whose blobs stay stored until the commit; None when one of them is gone or damaged."""
        try:
            root = self._directory.resolve(str(digest))
            artifact = Artifact.load(self._blobs, root)
        except CasstoreError:
            return None
        with self._directory.shared():
            if not all(self._rely_on(blob) for blob in (root, *artifact.manifest.children)):
                return None
        self._lookup.bases |= artifact.bases()
        return artifact

    def remember(self, artifact: Artifact) -> None:
        """Let what is captured from now on share the chunks of a snapshot whose blobs are staged or relied on, and were
        verified. It need not be complete: only its packs count.
        """
        self._made.add(artifact)
        self._lookup.bases |= artifact.bases()
        self._kept = frozenset(self._operation.digests())

    def new_blob(self) -> StagedBlob:
        """Start to stage a blob."""
        return self._operation.new_blob()

    def add(self, data: bytes, media_type: str) -> Descriptor:
        """Stage a small blob."""
        return self._operation.add(data, media_type)

    def lookup(
        self, ids: Sequence[ChunkId], *, prefer: Collection[Digest] = (), full: bool = False
    ) -> Mapping[ChunkId, Place]:
        """Where these chunks are stored, in packs that stay until the commit, as do those of their bases; see
        capture.Storage.
        """
        candidates = self._places(ids)
        with self._directory.shared() if candidates else contextlib.nullcontext():
            return self._lookup.choose(ids, candidates, prefer=prefer, full=full)

    def _places(self, ids: Sequence[ChunkId]) -> Mapping[ChunkId, Sequence[Place]]:
        """What the catalog says, after what is staged."""
        stored, staged = self._catalog.lookup(ids), self._made.lookup(ids)
        return {**stored, **{each: [*places, *stored.get(each, ())] for each, places in staged.items()}}

    def _may_use(self, pack: Descriptor) -> bool:
        if str(pack.digest) in self._distrusted:
            return False
        return pack.digest in self._kept or self._rely_on(pack)

    def directory(self, pack: StoredPack) -> PackDirectory:
        """The directory of a pack that is relied on; see capture.Storage."""
        return self._directory_of(pack)

    def verified(self, pack: Descriptor) -> Collection[int]:
        """Which chunks of a stored pack were verified when it came, or of a staged one when it was made."""
        return self._catalog.chunks_of(pack.digest) or self._made.chunks_of(pack.digest)

    def distrust(self, packs: Collection[str]) -> None:
        """See create.Destination."""
        self._distrusted.update(packs)
        bases = self._lookup.bases.items()
        self._lookup.bases = {base: place for base, place in bases if str(place.pack.descriptor.digest) not in packs}
        self._operation.drop_staged(but=self._kept)

    def _rely_on(self, descriptor: Descriptor) -> bool:
        """Take a stored blob of the right size into the lease; call with the lock held."""
        if descriptor.digest in self._relied:
            return True
        try:
            if not self._blobs.exists(descriptor):
                return False
        except CorruptContent:
            return False
        self._operation.rely_on([descriptor.digest])
        self._relied[descriptor.digest] = descriptor.size
        return True

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether content is staged, stored, or left by an interrupted copy; see Prober. It stays until the commit.

        A document is read as well, and with `force` every blob: a damaged one counts as missing, so a pull mends it.
        """
        if self._operation.staged.exists(descriptor):
            return True
        taken = True
        while taken:
            with self._directory.shared():
                stored = self._rely_on(descriptor)
                taken = self._keep and not stored and self._operation.take_over(descriptor)
            if taken and self._operation.check(descriptor):
                return True
        trusted = descriptor.media_type in {spec.MEDIA_PACK, spec.MEDIA_FILE} and not self._force
        return stored and (trusted or self._is_sound(descriptor))

    def _is_sound(self, descriptor: Descriptor) -> bool:
        try:
            read_through(self._blobs, descriptor)
        except CorruptContent:
            return False
        return True

    def fetch(self, descriptor: Descriptor) -> Reader:
        """Open content; see Fetcher."""
        return self._side(descriptor).fetch(descriptor)

    def read_range(self, descriptor: Descriptor, offset: int, length: int) -> bytes:
        """A part of content; see RangeReader."""
        return self._side(descriptor).read_range(descriptor, offset, length)

    def _side(self, descriptor: Descriptor) -> BlobDirectory:
        staged = self._operation.staged
        return staged if staged.size(descriptor.digest) is not None else self._blobs

    def push(self, descriptor: Descriptor, source: Fetcher) -> None:
        """Stage content; see Pusher."""
        self._operation.receive(descriptor, source)
        if descriptor.media_type == spec.MEDIA_PACK:
            with contextlib.suppress(CasstoreError):  # then it is not proven, and `tag` finds what is wrong, and tells
                verify_pack(self._operation.staged, descriptor)
                self._proven.add(descriptor.digest)

    def attach(self, descriptor: Descriptor, subject: Descriptor, source: Fetcher) -> None:
        """Add a referrer, which gets its name with the next commit; see Attacher.

        Raises:
            UnsupportedVersion: it is no image manifest.
            DocumentError: its `subject` is another one.
            NotFound: a blob of it is neither stored nor staged.
        """
        told = f"referrer {descriptor.digest}"
        if descriptor.media_type != spec.MEDIA_MANIFEST:
            problem = (
                f"expected an image manifest, which is all a store takes, got {ascii(descriptor.media_type)[:100]}"
            )
            raise UnsupportedVersion(told, problem, at="mediaType")
        raw = fetch_all(source, descriptor, limit=spec.MAX_MANIFEST)
        manifest = AnyManifest.parse_referrer(raw, descriptor.media_type, of=subject)
        for blob in manifest.blobs:
            if not self.exists(blob):
                raise NotFound(f"{told}: blob {blob.digest} is neither stored nor staged")
        if not self.exists(descriptor):
            self.push(descriptor, BytesSource(raw))
        self._attached[referrer_name(subject.digest, manifest.descriptor)] = manifest.descriptor

    def _attach_by_name(self, descriptor: Descriptor, name: ReferrerName, subject: Digest) -> None:
        attachment = Attachment.parse(fetch_all(self, descriptor, limit=spec.MAX_MANIFEST), subject=subject)
        for blob in (descriptor, *attachment.manifest.blobs):
            if not self.exists(blob):
                raise NotFound(f"signatures {name}: blob {blob.digest} is neither stored nor staged")
        self._attached[name] = attachment.descriptor

    def referrers(self, subject: Descriptor) -> Sequence[Descriptor]:
        """What is stored, or was attached here, and refers to `subject`; see ReferrerLister.

        Raises:
            CorruptContent: one that is stored is damaged.
        """
        mine = [named for name, named in self._attached.items() if _refers(name, subject)]
        return list(dict.fromkeys([*mine, *self._directory.referrers(subject)]))

    def tags(self) -> Iterable[str]:
        """All names, those included that the next commit gives to what was attached; see TagLister."""
        return list(dict.fromkeys([*self._attached, *self._directory.tags()]))

    def resolve(self, reference: str) -> Descriptor:
        """What a ref, the digest of a stored or staged manifest, or the name of what was attached stands for; see
        Resolver.
        """
        if reference.startswith("sha256:"):
            digest = Digest.parse(reference)
            size = self._operation.staged.size(digest)
            if size is not None:
                return manifest_of(digest, size)
        attached = self._attached.get(ReferrerName(reference))
        return self._directory.resolve(reference) if attached is None else attached

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """Verify the artifact and commit it under `name`; see Tagger. An attachment gets its name with the next commit.

        Raises:
            NotFound: a blob is missing; the store is unchanged.
            CorruptContent: a document, frame or chunk is wrong, or the disk is not what its recorded integrity says;
                the store is unchanged.
            AlreadyExists: the name stands for something else, and the transaction was not forced.
        """
        about = referrer_subject(name)
        if about is not None and is_attachment(name):
            self._attach_by_name(descriptor, ReferrerName(name), about)
            return
        wanted = parse_name(name)
        try:
            self.verify(descriptor)
        except CorruptContent:
            self._keep = False  # all of it came as it was meant to
            raise
        self.commit(wanted, descriptor)

    def verify(self, root: Descriptor) -> None:
        """Check the artifact `root` as a whole, but for what was checked when it came.

        Raises:
            NotFound: a blob is missing.
            CorruptContent: a document, frame or chunk is wrong, or the disk is not what its recorded integrity says.
        """
        artifact = Artifact.load(self, root)
        for blob in (root, *artifact.manifest.children):
            if not self.exists(blob):
                raise NotFound(f"snapshot {root.digest}: blob {blob.digest} is neither stored nor staged")
        verify_chunks(artifact, known=self.verified, proven=self._proven, workers=self._workers)
        if not self._catalog.entries([root.digest]):
            verify_integrity(artifact, workers=self._workers, meter=Meter(silent, "hashing", None))

    def commit(self, name: SnapshotName, root: Descriptor) -> None:
        """Give everything staged its place, and `root` its name; first what was attached.

        Raises:
            AlreadyExists: the name stands for something else, and the transaction was not forced.
            NotFound, SizeMismatch: a blob that it relies on is damaged or gone.
            StorageError: the file system refused. The name is as it was; or, where only making it durable failed, it is
                new.
        """
        self.commit_all({name: root})

    def commit_all(self, names: Mapping[SnapshotName, Descriptor], *, unforced: Collection[SnapshotName] = ()) -> None:
        """As `commit`, for several names, in their order. Without `force` all are given, or none; a power cut may leave
        the first ones. Whatever `force` says, those that are `unforced` are taken from nobody.
        """
        with self._directory.shared():
            self._directory.require(self._relied, to_last=True)
            self._operation.move_to(self._blobs)
            with self._directory.changing_refs() as refs:
                for reserved, attached in self._attached.items():
                    self._require_all_signatures(refs, reserved, attached)
                    refs.set(reserved, attached.digest, force=self._force or is_attachment(reserved))
                for name in unforced:
                    refs.require_free(name, unless=names[name].digest)
                if len(names) > 1 and not self._force:
                    refs.set_all({name: root.digest for name, root in names.items()})
                    return
                for name, root in names.items():
                    refs.set(name, root.digest, force=self._force)

    def _require_all_signatures(self, refs: Refs, name: ReferrerName, attached: Descriptor) -> None:
        """Raise Conflict where an attachment would replace one that has got more signatures since it was read. One that
        is damaged has none that could be lost.
        """
        now, about = refs.get(name) if is_attachment(name) else None, referrer_subject(name)
        if now is None or now == attached.digest or about is None:
            return
        with contextlib.suppress(CorruptContent, NotFound):
            theirs = read_attachment(self._directory, about)
            ours = Attachment.parse(fetch_all(self._blobs, attached, limit=spec.MAX_MANIFEST), subject=about)
            if theirs is not None and not ours.has_all_of(theirs):
                raise Conflict(f"signatures {name}: others were added meanwhile; try again")


def _refers(name: ReferrerName, subject: Descriptor) -> bool:
    return referrer_subject(name) == subject.digest and not is_attachment(name)
