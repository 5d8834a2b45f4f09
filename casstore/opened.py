"""A snapshot to be looked into where it is, in a store or elsewhere: its disk is read as far as it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from casstore.artifact import Artifact
from casstore.content import Metered, RangeReader, Traffic
from casstore.digest import Digest
from casstore.errors import NotOffered, UnreadableFilesystem, UsageError
from casstore.manifest import SnapshotFormat
from casstore.pagecache import PageCache
from casstore.places import as_reference, open_judged
from casstore.reference import Reference
from casstore.storeddisk import StoredDisk
from casstore.storedir import StoreDirectory, StoreOptions
from casstore.survey import read_manifest
from casstore.transfer import TransferOptions, find, require_tag_or_digest
from casstore.trust.gate import Gate, PullGate, gate_at

if TYPE_CHECKING:
    from casstore.filesystem.bounds import Bounds
    from casstore.filesystem.ext import ExtFilesystem
    from casstore.filesystem.reader import DiskReader
    from casstore.trust.trust import Trust

__all__ = ["Opened", "Traffic", "open_remote"]


class Opened:
    """A snapshot whose manifest, config and map were read; all else is read when it is asked for.

    `subject` is what texts call it: its name, or the place with its digest. `elsewhere`: what is read of it is fetched
    from another machine. Usable until its context ends.
    """

    def __init__(
        self,
        subject: str,
        artifact: Artifact,
        *,
        elsewhere: bool = False,
        traffic: Callable[[], Traffic] = Traffic,
    ) -> None:
        self.subject: str = subject
        self.artifact: Artifact = artifact
        self.elsewhere: bool = elsewhere
        self._traffic = traffic

    @property
    def digest(self) -> Digest:
        """The artifact digest."""
        return self.artifact.digest

    @property
    def stored_bytes(self) -> int:
        """Bytes of all its blobs, the manifest included: what a pull into an empty store fetches."""
        return sum(self.artifact.manifest.needs.values())

    @property
    def traffic(self) -> Traffic:
        """What was fetched for it so far; nothing for one that is on this machine."""
        return self._traffic()

    def disk(self) -> StoredDisk:
        """Its disk.

        Raises:
            UnreadableFilesystem: it is a chain of several files, or its format is not raw.
        """
        disks, form = self.artifact.map.disks, self.artifact.config.format
        if len(disks) != 1:
            raise UnreadableFilesystem(
                f"{self.subject}: expected a disk of one file, got a chain of {len(disks)}; restore it to look into it"
            )
        if form is not SnapshotFormat.RAW:
            raise UnreadableFilesystem(
                f"{self.subject}: expected a raw disk, got one of format {form}; restore it to look into it"
            )
        return StoredDisk(self.artifact, disks[0])

    def filesystem(self, bounds: Bounds | None = None, *, reader: DiskReader | None = None) -> ExtFilesystem:
        """The files on its disk, within `bounds`; `reader` is another way to read that disk.

        Raises:
            UnreadableFilesystem: there is no ext2, ext3 or ext4 on it, or a damaged one; or as `disk`.
        """
        from casstore.filesystem.bounds import Bounds
        from casstore.filesystem.ext import ExtFilesystem

        disk = self.disk()
        if bounds is None:  # what is a hole of the disk costs nothing to store, and may be of any size
            bounds = Bounds.of_disk(min(disk.size, self.artifact.map.disks[0].allocated + Bounds().hole_bytes))
        return ExtFilesystem(reader or disk, subject=self.subject, bounds=bounds)


def _gate(place: Reference, where: str, trust: Trust | None, memory: StoreDirectory | None) -> Gate | None:
    by_tag = place.tag is not None and place.digest is None
    if not by_tag or trust is None or not trust.forbids_rollback(where):
        return gate_at(where, trust)
    if memory is None:
        raise UsageError(
            f"{place}: without a store it cannot be told whether the tag was led back, which must not be; name it by"
            " its digest, or pull it"
        )
    return PullGate(memory, place, where, trust)


@contextmanager
def open_remote(
    reference: str | Reference,
    options: TransferOptions | None = None,
    *,
    stores: StoreOptions | None = None,
    memory: StoreDirectory | None = None,
) -> Iterator[Opened]:
    """A snapshot where it is: in a registry, an OCI layout or another store. Only what is asked for is fetched.

    Where the options trust not everybody it must have the wanted signatures: else nothing but its manifest, and what
    the signatures are in, is fetched. Where they let no tag be led back, `memory` is the store that knows what it led
    to when it was pulled last; nothing is remembered there.

    Raises:
        UsageError: the reference has neither tag nor digest; or a tag must not be led back, and there is no memory.
        NotFound: there is no such tag or manifest.
        UnsupportedVersion: it is no snapshot.
        UntrustedContent: it is not signed as it must be.
        NotOffered: parts of content cannot be read there.
        CorruptContent, RegistryError: what came is damaged, or nothing came.
    """
    place, options = as_reference(reference), options or TransferOptions()
    require_tag_or_digest(place, "look into")
    with ExitStack() as stack:
        source, where = stack.enter_context(open_judged(place, options, stores or StoreOptions()))
        if not isinstance(source, RangeReader):
            raise NotOffered(f"{place}: parts of content cannot be read there; pull it to look into it")
        root = find(source, place, "look into")
        manifest = read_manifest(source, root)
        gate = _gate(place, where, options.trust, memory)
        if gate is not None:
            gate(source, root, manifest.raw)
        if isinstance(source, StoreDirectory):
            stack.enter_context(source.relying_on(manifest.needs))
        subject = f"{place.name}@{root.digest}"
        if not isinstance(source, Metered):  # a directory of this machine: nothing is to be saved there
            yield Opened(subject, Artifact.of_documents(source, manifest))
            return
        artifact = Artifact.of_documents(PageCache(source), manifest)
        yield Opened(subject, artifact, elsewhere=True, traffic=lambda: source.traffic)
