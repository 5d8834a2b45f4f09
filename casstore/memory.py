"""The reference implementation of a Target: content in a dict. Small enough to be obviously right; used by tests."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Sequence

from casstore import spec
from casstore.content import Fetcher, Reader
from casstore.digest import Digest
from casstore.errors import InvalidDigest, NotFound, SizeMismatch
from casstore.names import referrer_name
from casstore.oci import AnyManifest, Descriptor
from casstore.streams import BytesSource, VerifiedReader, fetch_all


class MemoryTarget:
    """Content and names in memory."""

    def __init__(self) -> None:
        self._contents: dict[Digest, tuple[Descriptor, bytes]] = {}
        self._names: dict[str, Descriptor] = {}
        self._referrers: dict[Digest, dict[Digest, Descriptor]] = {}
        self._lock = threading.Lock()

    def fetch(self, descriptor: Descriptor) -> Reader:
        """Open content; see Fetcher."""
        if descriptor.digest not in self._contents:
            raise NotFound(f"{descriptor.digest}: no such content")
        body = io.BytesIO(self._contents[descriptor.digest][1])
        return VerifiedReader(body, descriptor, subject=str(descriptor.digest))

    def read_range(self, descriptor: Descriptor, offset: int, length: int) -> bytes:
        """A part of content; see RangeReader."""
        if descriptor.digest not in self._contents:
            raise NotFound(f"{descriptor.digest}: no such content")
        data = self._contents[descriptor.digest][1]
        if len(data) != descriptor.size:
            raise SizeMismatch(str(descriptor.digest), expected=descriptor.size, got=len(data))
        if not 0 <= offset <= offset + length <= len(data):
            raise SizeMismatch(str(descriptor.digest), expected=offset + length, got=len(data))
        return data[offset : offset + length]

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether content is there; see Prober."""
        found = self._contents.get(descriptor.digest)
        return found is not None and len(found[1]) == descriptor.size

    def push(self, descriptor: Descriptor, source: Fetcher) -> None:
        """Store content; see Pusher."""
        with source.fetch(descriptor) as reader:
            parts = []
            while part := reader.read(1 << 20):
                parts.append(part)
        with self._lock:
            self._contents[descriptor.digest] = (descriptor, b"".join(parts))

    def resolve(self, reference: str) -> Descriptor:
        """Look up a tag or digest; see Resolver."""
        try:
            found = self._contents.get(Digest.parse(reference))
            descriptor = None if found is None else found[0]
        except InvalidDigest:
            descriptor = self._names.get(reference)
        if descriptor is None:
            raise NotFound(f"{reference}: no such tag or manifest")
        return descriptor

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """Name a manifest; see Tagger."""
        if not self.exists(descriptor):
            raise NotFound(f"{descriptor.digest}: no such content to tag as {name}")
        with self._lock:
            self._names[name] = descriptor

    def tags(self) -> Iterable[str]:
        """All names; see TagLister."""
        return list(self._names)

    def untag(self, name: str) -> None:
        """Remove one name; see Untagger."""
        with self._lock:
            if self._names.pop(name, None) is None:
                raise NotFound(f"{name}: no such tag")

    def referrers(self, subject: Descriptor) -> Sequence[Descriptor]:
        """What was attached to a manifest; see ReferrerLister."""
        return list(self._referrers.get(subject.digest, {}).values())

    def attach(self, descriptor: Descriptor, subject: Descriptor, source: Fetcher) -> None:
        """Store a manifest that refers to another; see Attacher."""
        raw = fetch_all(source, descriptor, limit=spec.MAX_MANIFEST)
        manifest = AnyManifest.parse_referrer(raw, descriptor.media_type, of=subject)
        self.push(descriptor, BytesSource(raw))
        with self._lock:
            self._referrers.setdefault(subject.digest, {})[descriptor.digest] = manifest.descriptor
            self._names[referrer_name(subject.digest, manifest.descriptor)] = manifest.descriptor

    def delete(self, descriptor: Descriptor) -> None:
        """Remove content and its names; see Deleter."""
        with self._lock:
            if self._contents.pop(descriptor.digest, None) is None:
                raise NotFound(f"{descriptor.digest}: no such content")
            self._names = {name: named for name, named in self._names.items() if named.digest != descriptor.digest}
            for attached in self._referrers.values():
                attached.pop(descriptor.digest, None)
