"""A repository in a registry as a Target (distribution-spec v1.1.1): the facade over the modules beside it.

What a registry says is checked, never believed: content is read through VerifiedReader; a tag is pinned to the digest
of the bytes that one GET returned; a HEAD only ever saves an upload. Manifests pass as raw bytes, both ways.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Self

import requests

from casstore import spec
from casstore.content import Fetcher, Reader, Traffic
from casstore.credentials import Anonymous, CredentialSource
from casstore.digest import Digest
from casstore.errors import DocumentError, RegistryError, SizeMismatch, UnsupportedVersion
from casstore.oci import Descriptor
from casstore.reference import RegistryReference, parse_tag
from casstore.registry.http import RegistryClient
from casstore.registry.manifests import MANIFEST_TYPES, Manifest, Manifests, check_digest_header
from casstore.registry.options import RegistryOptions
from casstore.registry.pace import Pace
from casstore.registry.ranges import Ranges
from casstore.registry.referrers import Referrers
from casstore.registry.resume import open_blob
from casstore.registry.tags import Tags
from casstore.registry.upload import Uploads
from casstore.registry.urls import Origin
from casstore.streams import VerifiedReader, fetch_all

_LENGTH = re.compile(r"[0-9]{1,19}\Z", re.ASCII)


class RegistryTarget:
    """One repository of one registry; implements Target and every further power of content.py. Thread-safe.

    `reference` says host and repository; its tag and digest are ignored. `pace` is shared by all that talk to the same
    host. Blobs are mounted from the repositories `mount_from` of the registry where they can be. Close it, or use it in
    a `with`.

    Every method raises Unauthorized, Unavailable or RegistryError where the registry or the way to it fails.
    """

    def __init__(
        self,
        reference: RegistryReference,
        options: RegistryOptions | None = None,
        credentials: CredentialSource | None = None,
        *,
        pace: Pace | None = None,
        mount_from: Sequence[str] = (),
    ) -> None:
        options = options or RegistryOptions()
        self.repository: str = reference.repository
        self._name = reference.name
        self._client = client = RegistryClient(
            reference.host, options, credentials or Anonymous(), repository=reference.repository, pace=pace
        )
        self._base = base = f"{client.base}{reference.repository}"
        self._scope = scope = f"repository:{reference.repository}:"
        self._manifests = Manifests(client, base=base, name=self._name, scope=scope)
        self._uploads = Uploads(
            client,
            base=base,
            name=self._name,
            scope=scope,
            exists=self.exists,
            mount_from=mount_from,
            tries=options.attempts,
        )
        self._tags = Tags(client, self._manifests, base=base, name=self._name, scope=scope, push=self.push)
        self._ranges = Ranges(client, scope=scope + "pull")
        self._referrers = Referrers(client, self._manifests, base=base, scope=scope)

    def __repr__(self) -> str:
        return f"RegistryTarget({self._name!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def origin(self) -> Origin:
        """Scheme, host and port of the registry."""
        return self._client.origin

    def close(self) -> None:
        """Close all connections; open readers may break."""
        self._client.close()

    def stop(self) -> None:
        """Let all that goes on fail soon, and all that comes later at once; see Stopper."""
        self._client.stop()

    def fetch(self, descriptor: Descriptor) -> Reader:
        """Open content; see Fetcher. Manifests are read whole, and checked, before this returns.

        Raises:
            UnsupportedVersion: a manifest larger than spec.MAX_MANIFEST.
            SizeMismatch, DigestMismatch, DocumentError: the answer is already known not to be the content.
        """
        subject = self._subject(descriptor)
        if descriptor.media_type not in MANIFEST_TYPES:
            return self._open_blob(descriptor, subject)
        if descriptor.size > spec.MAX_MANIFEST:
            problem = f"expected a manifest of at most {spec.MAX_MANIFEST} bytes, got {descriptor.size}"
            raise UnsupportedVersion(subject, problem)
        manifest = self._manifests.by_digest(descriptor.digest)
        if manifest.descriptor.media_type != descriptor.media_type:
            problem = f"expected a {descriptor.media_type}, got a {manifest.descriptor.media_type}"
            raise DocumentError(subject, problem, at="mediaType")
        return VerifiedReader(io.BytesIO(manifest.raw), descriptor, subject=subject)

    def read_range(self, descriptor: Descriptor, offset: int, length: int) -> bytes:
        """A part of content; see RangeReader. Only that part of a blob is fetched where the registry knows ranges; what
        is asked for as a whole is verified, and so are manifests.

        Raises:
            NotOffered: it knows no ranges, and too much came in vain.
            SizeMismatch, RegistryError: what came is another part, or one of a blob of another size.
        """
        subject = self._subject(descriptor)
        end = offset + length
        if not 0 <= offset <= end <= descriptor.size:
            raise SizeMismatch(subject, expected=max(end, offset), got=descriptor.size)
        if descriptor.media_type in MANIFEST_TYPES or length == descriptor.size > 0:
            return fetch_all(self, descriptor, limit=descriptor.size)[offset:end]
        if not length:
            self._require(descriptor, subject)
            return b""
        return self._ranges.read(
            self._url(descriptor), descriptor, offset, length, subject=subject, check=self._check(descriptor, subject)
        )

    @property
    def traffic(self) -> Traffic:
        """What was fetched so far; see Metered."""
        return self._client.traffic

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether the registry says that it has content of this digest and size; see Prober."""
        if descriptor.media_type in MANIFEST_TYPES:
            seen = self._manifests.head(str(descriptor.digest))
            return seen is not None and seen.size == str(descriptor.size)
        subject = self._subject(descriptor)
        response = self._client.request(
            "HEAD", self._url(descriptor), subject=subject, expect=(200, 404), scope=self._scope + "pull"
        )
        self._client.finish(response, subject)
        return response.status_code == 200 and response.headers.get("Content-Length") == str(descriptor.size)

    def push(self, descriptor: Descriptor, source: Fetcher) -> None:
        """Store content; see Pusher. A blob that is there already is not sent, a manifest always is.

        Raises: as `upload`.
        """
        if descriptor.media_type in MANIFEST_TYPES or not self.exists(descriptor):
            self.upload(descriptor, source)

    def upload(self, descriptor: Descriptor, source: Fetcher) -> None:
        """Store content without asking first; see Uploader.

        Raises:
            UnsupportedVersion: a manifest larger than spec.MAX_MANIFEST.
            MissingBlobs: the registry lacks something that the manifest names.
            DigestMismatch: the registry stored something else.
            Anything that `source` raises.
        """
        if descriptor.media_type in MANIFEST_TYPES:
            self._manifests.put(_read(descriptor, source), str(descriptor.digest))
        else:
            self._uploads.upload(descriptor, source)

    def mount(self, descriptor: Descriptor, source: Fetcher) -> bool:
        """Have a blob from another repository of this registry; see Mounter."""
        if descriptor.media_type in MANIFEST_TYPES:
            return False
        if isinstance(source, RegistryTarget) and source.origin == self.origin:
            return self._uploads.mount(descriptor, source.repository)
        return self._uploads.mount(descriptor, None)

    def resolve(self, reference: str) -> Descriptor:
        """What a tag or `sha256:...` digest stands for, from the bytes of the manifest itself; see Resolver.

        Raises:
            InvalidReference, InvalidDigest: neither a tag nor a digest.
            SizeMismatch, DigestMismatch, DocumentError, UnsupportedVersion: what is there is no sound manifest.
        """
        if ":" in reference:
            return self._manifests.by_digest(Digest.parse(reference)).descriptor
        return self._manifests.get(parse_tag(reference)).descriptor

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """Name a manifest; see Tagger. The same bytes are PUT again under the name.

        Raises:
            NotFound: there is no such manifest.
            InvalidReference: the name is no tag.
            DigestMismatch: afterwards the name stands for something else.
        """
        name = parse_tag(name)
        self._manifests.put(self._manifests.by_digest(descriptor.digest), name)

    def tags(self) -> tuple[str, ...]:
        """All tags, those of referrers included; see TagLister.

        Raises:
            DocumentError: what came is no list of tags, or a very long one.
        """
        return self._tags.all()

    def untag(self, name: str) -> None:
        """Remove one tag; see Untagger.

        Raises:
            Conflict: somebody else moved the tag meanwhile.
        """
        self._tags.remove(parse_tag(name))

    def referrers(self, subject: Descriptor) -> tuple[Descriptor, ...]:
        """What the registry lists as referring to `subject`; see ReferrerLister. Read a manifest to know that it does.

        Raises:
            DocumentError: the list is no sound index, or a very long one.
        """
        return self._referrers.of(subject.digest)

    def attach(self, descriptor: Descriptor, subject: Descriptor, source: Fetcher) -> None:
        """Store a manifest that refers to `subject`, and have it listed; see Attacher.

        Raises:
            DocumentError: it refers to something else.
            MissingBlobs: the registry lacks something that it names.
            RegistryError: other clients kept taking it from the list.
        """
        self._referrers.attach(_read(descriptor, source), subject)

    def delete(self, descriptor: Descriptor) -> None:
        """Remove content and the tags that stand for it; see Deleter.

        Raises:
            NotOffered: the registry does not delete.
        """
        self._manifests.forget(descriptor.digest)
        self._tags.delete(self._url(descriptor), self._subject(descriptor))

    def _subject(self, descriptor: Descriptor) -> str:
        if descriptor.media_type in MANIFEST_TYPES:
            return f"{self._name}@{descriptor.digest}"
        return f"{self._name}: {descriptor.kind} {descriptor.digest}"

    def _url(self, descriptor: Descriptor) -> str:
        kind = "manifests" if descriptor.media_type in MANIFEST_TYPES else "blobs"
        return f"{self._base}/{kind}/{descriptor.digest}"

    def _open_blob(self, descriptor: Descriptor, subject: str) -> Reader:
        scope, check = self._scope + "pull", self._check(descriptor, subject)
        return open_blob(self._client, self._url(descriptor), descriptor, subject=subject, scope=scope, check=check)

    def _check(self, descriptor: Descriptor, subject: str) -> Callable[[requests.Response], None]:
        """What looks at the header of an answer that is to hold all of a blob."""

        def check(response: requests.Response) -> None:
            check_digest_header(response, descriptor.digest, subject)
            _check_length_header(response, descriptor.size, subject)

        return check

    def _require(self, descriptor: Descriptor, subject: str) -> None:
        """Raise NotFound or SizeMismatch unless there is such a blob."""
        response = self._client.request(
            "HEAD", self._url(descriptor), subject=subject, expect=(200,), scope=self._scope + "pull"
        )
        try:
            _check_length_header(response, descriptor.size, subject)
        finally:
            self._client.finish(response, subject)


def _read(descriptor: Descriptor, source: Fetcher) -> Manifest:
    return Manifest(descriptor, fetch_all(source, descriptor, limit=spec.MAX_MANIFEST))


def _check_length_header(response: requests.Response, size: int, subject: str) -> None:
    """Content-Length, where there is one, is one number, and the right one: nothing is read in vain."""
    claimed = response.headers.get("Content-Length")
    if claimed is None:
        return
    if not _LENGTH.match(claimed):
        raise RegistryError(f"{subject}: expected Content-Length {size}, got no number")
    if int(claimed) != size:
        raise SizeMismatch(subject, expected=size, got=int(claimed))
