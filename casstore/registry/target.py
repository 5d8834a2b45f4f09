"""A repository in a registry as a Target (distribution-spec v1.1.1): blobs, manifests and tags over HTTP.

What a registry says is checked, never believed: content is read through VerifiedReader; a tag is pinned to the digest
of the bytes that one GET returned; a HEAD only ever saves an upload. Manifests pass as raw bytes, both ways.

An upload is one POST and one PUT. Not here yet: retries with back-off and resuming by Range, which belong into
http.py; mounts and chunked uploads, which belong into `RegistryTarget._push_blob`.
"""

from __future__ import annotations

import io
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import oras.defaults
import requests

from casstore import spec
from casstore.content import Fetcher, Reader
from casstore.credentials import Anonymous, Credentials, CredentialSource, HostCredentials
from casstore.digest import Digest
from casstore.errors import (
    DigestMismatch,
    DocumentError,
    InvalidDigest,
    RegistryError,
    SizeMismatch,
    Unauthorized,
    UnsupportedVersion,
)
from casstore.jsondoc import load_object
from casstore.oci import Descriptor
from casstore.reference import RegistryReference, parse_host, parse_tag
from casstore.registry.failures import quoted
from casstore.registry.http import RegistryClient, RegistryOptions, SendBody, SourceFailed
from casstore.registry.urls import Origin, follow, shown
from casstore.streams import VerifiedReader, fetch_all

__all__ = ["MANIFEST_TYPES", "RegistryOptions", "RegistryTarget", "login"]

MANIFEST_TYPES: frozenset[str] = frozenset(oras.defaults.default_manifest_accepted_media_types)
"""What lives under /manifests/: OCI's and Docker's image manifests and indexes. All else is a blob."""
_ACCEPT = ", ".join(sorted(MANIFEST_TYPES))
_LENGTH = re.compile(r"[0-9]{1,19}\Z", re.ASCII)
_CACHE_BYTES = 4 * spec.MAX_MANIFEST


class RegistryTarget:
    """One repository of one registry; implements Target and Deleter. Thread-safe.

    `reference` says host and repository; its tag and digest are ignored. Close it, or use it in a `with`.

    Every method raises Unauthorized, Unavailable or RegistryError where the registry or the way to it fails.
    """

    def __init__(
        self,
        reference: RegistryReference,
        options: RegistryOptions | None = None,
        credentials: CredentialSource | None = None,
    ) -> None:
        self._name = reference.name
        self._client = RegistryClient(reference.host, options or RegistryOptions(), credentials or Anonymous())
        self._base = f"{self._client.base}{reference.repository}"
        self._scope = f"repository:{reference.repository}:"
        self._cache = _ManifestCache()

    def __repr__(self) -> str:
        return f"RegistryTarget({self._name!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; open readers may break."""
        self._client.close()

    def fetch(self, descriptor: Descriptor) -> Reader:
        """Open content; see Fetcher. Manifests are read whole, and checked, before this returns.

        Raises:
            UnsupportedVersion: a manifest larger than spec.MAX_MANIFEST.
            SizeMismatch, DigestMismatch, DocumentError: the answer is already known not to be the content.
        """
        subject = self._subject(descriptor)
        if descriptor.media_type not in MANIFEST_TYPES:
            return VerifiedReader(self._open_blob(descriptor, subject), descriptor, subject=subject)
        if descriptor.size > spec.MAX_MANIFEST:
            problem = f"expected a manifest of at most {spec.MAX_MANIFEST} bytes, got {descriptor.size}"
            raise UnsupportedVersion(subject, problem)
        manifest = self._manifest(descriptor.digest)
        if manifest.descriptor.media_type != descriptor.media_type:
            problem = f"expected a {descriptor.media_type}, got a {manifest.descriptor.media_type}"
            raise DocumentError(subject, problem, at="mediaType")
        return VerifiedReader(io.BytesIO(manifest.raw), descriptor, subject=subject)

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether the registry says that it has content of this digest and size; see Prober."""
        subject = self._subject(descriptor)
        response = self._client.request(
            "HEAD",
            self._url(descriptor),
            subject=subject,
            expect=(200, 404),
            scope=self._scope + "pull",
            headers={"Accept": _ACCEPT} if descriptor.media_type in MANIFEST_TYPES else None,
        )
        self._client.finish(response, subject)
        return response.status_code == 200 and response.headers.get("Content-Length") == str(descriptor.size)

    def push(self, descriptor: Descriptor, source: Fetcher) -> None:
        """Store content; see Pusher. A blob that is there already is not sent, a manifest always is.

        Raises:
            UnsupportedVersion: a manifest larger than spec.MAX_MANIFEST.
            DigestMismatch: the registry stored something else.
            Anything that `source` raises.
        """
        if descriptor.media_type in MANIFEST_TYPES:
            raw = fetch_all(source, descriptor, limit=spec.MAX_MANIFEST)
            self._put_manifest(_Manifest(descriptor, raw), str(descriptor.digest))
        elif not self.exists(descriptor):
            self._push_blob(descriptor, source)

    def resolve(self, reference: str) -> Descriptor:
        """What a tag or `sha256:...` digest stands for, from the bytes of the manifest itself; see Resolver.

        Raises:
            InvalidReference, InvalidDigest: neither a tag nor a digest.
            SizeMismatch, DigestMismatch, DocumentError, UnsupportedVersion: what is there is no sound manifest.
        """
        if ":" in reference:
            return self._manifest(Digest.parse(reference)).descriptor
        return self._get_manifest(parse_tag(reference), f"{self._name}:{reference}").descriptor

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """Name a manifest; see Tagger. The same bytes are PUT again under the name.

        Raises:
            NotFound: there is no such manifest.
            InvalidReference: the name is no tag.
        """
        name = parse_tag(name)
        self._put_manifest(self._manifest(descriptor.digest), name)

    def delete(self, descriptor: Descriptor) -> None:
        """Remove content and the tags that stand for it; see Deleter. Many registries do not allow it."""
        subject = self._subject(descriptor)
        self._cache.remove(descriptor.digest)
        response = self._client.request(
            "DELETE", self._url(descriptor), subject=subject, expect=(202, 200, 204), scope=self._scope + "delete"
        )
        self._client.finish(response, subject)

    def _subject(self, descriptor: Descriptor) -> str:
        return f"{self._name}@{descriptor.digest}"

    def _url(self, descriptor: Descriptor) -> str:
        kind = "manifests" if descriptor.media_type in MANIFEST_TYPES else "blobs"
        return f"{self._base}/{kind}/{descriptor.digest}"

    def _open_blob(self, descriptor: Descriptor, subject: str) -> Reader:
        response = self._client.request(
            "GET", self._url(descriptor), subject=subject, expect=(200,), scope=self._scope + "pull"
        )
        try:
            _check_digest_header(response, descriptor.digest, subject)
            _check_length_header(response, descriptor.size, subject)
        except Exception:
            response.close()
            raise
        return self._client.open_body(response, subject)

    def _push_blob(self, descriptor: Descriptor, source: Fetcher) -> None:
        subject, scope = self._subject(descriptor), self._scope + "pull,push"
        start = f"{self._base}/blobs/uploads/"
        response = self._client.request("POST", start, subject=subject, expect=(202,), scope=scope)
        self._client.finish(response, subject)
        location = follow(start, response.headers.get("Location"), subject=f"{subject}: upload")
        if Origin.of(location) != self._client.origin:
            raise RegistryError(
                f"{subject}: upload: expected a Location on {self._client.origin}, got {shown(location)};"
                " the registry's proxy may hide its public address from it"
            )
        response = self._client.request(
            "PUT",
            f"{location}{'&' if '?' in location else '?'}digest={descriptor.digest}",
            subject=subject,
            expect=(201,),
            scope=scope,
            headers={"Content-Type": "application/octet-stream"},
            data=lambda: _open_source(descriptor, source, subject),
        )
        self._client.finish(response, subject)
        _check_digest_header(response, descriptor.digest, subject)

    def _manifest(self, digest: Digest) -> _Manifest:
        manifest = self._cache.get(digest)
        return manifest or self._get_manifest(str(digest), f"{self._name}@{digest}", digest)

    def _get_manifest(self, reference: str, subject: str, digest: Digest | None = None) -> _Manifest:
        response = self._client.request(
            "GET",
            f"{self._base}/manifests/{reference}",
            subject=subject,
            expect=(200,),
            scope=self._scope + "pull",
            headers={"Accept": _ACCEPT},
        )
        raw = self._client.read(response, subject, limit=spec.MAX_MANIFEST)
        got = Digest.of(raw)
        if digest is not None and got != digest:
            raise DigestMismatch(subject, expected=str(digest), got=str(got))
        _check_digest_header(response, got, subject)
        media_type = _media_type(raw, response.headers, subject, self._client.auth.secrets)
        manifest = _Manifest(Descriptor(media_type=media_type, digest=got, size=len(raw)), raw)
        self._cache.add(manifest)
        return manifest

    def _put_manifest(self, manifest: _Manifest, reference: str) -> None:
        digest = manifest.descriptor.digest
        subject = f"{self._name}:{reference}" if reference != str(digest) else f"{self._name}@{digest}"
        response = self._client.request(
            "PUT",
            f"{self._base}/manifests/{reference}",
            subject=subject,
            expect=(201,),
            scope=self._scope + "pull,push",
            headers={"Content-Type": manifest.descriptor.media_type},
            data=manifest.raw,
        )
        self._client.finish(response, subject)
        _check_digest_header(response, digest, subject)
        self._cache.add(manifest)


def login(options: RegistryOptions, host: str, credentials: Credentials) -> None:
    """Ask the registry at `host` whether it takes these credentials. A registry that asks nobody takes everybody.

    Raises:
        Unauthorized: it does not; or its token server is on another site, where the password does not go.
        InvalidReference: no host.
        Unavailable, RegistryError, NotFound: there is no registry, or it does not work.
    """
    host = parse_host(host)
    with RegistryClient(host, options, HostCredentials(host, credentials)) as client:
        subject = f"{host}: login as {ascii(credentials.username)}"
        client.finish(client.request("GET", client.base, subject=subject, expect=(200,)), subject)
        if client.auth.challenged and not client.auth.password_sent:
            raise Unauthorized(f"{subject}: expected a check of the password, got none; {client.auth.advice}")


@dataclass(frozen=True, slots=True)
class _Manifest:
    descriptor: Descriptor
    raw: bytes


class _ManifestCache:
    """The manifests last seen, by digest, so that resolve, fetch and tag share one GET. Bounded; thread-safe."""

    def __init__(self) -> None:
        self._manifests: OrderedDict[Digest, _Manifest] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: Digest) -> _Manifest | None:
        return self._manifests.get(digest)

    def add(self, manifest: _Manifest) -> None:
        with self._lock:
            self._manifests[manifest.descriptor.digest] = manifest
            while sum(len(kept.raw) for kept in self._manifests.values()) > _CACHE_BYTES:
                self._manifests.popitem(last=False)

    def remove(self, digest: Digest) -> None:
        with self._lock:
            self._manifests.pop(digest, None)


class _SourceBody:
    """Content on its way into a request: exactly `size` bytes, or SourceFailed before the last of them is sent."""

    def __init__(self, reader: Reader, size: int, subject: str) -> None:
        self._reader, self._size, self._left, self._subject = reader, size, size, subject

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        if self._left == 0:
            return b""
        try:
            data = self._reader.read(min(size, self._left) if size > 0 else self._left)
            if not data:
                raise SizeMismatch(self._subject, expected=self._size, got=self._size - self._left)
        except Exception as error:
            raise SourceFailed(error) from error
        self._left -= len(data)
        return data


@contextmanager
def _open_source(descriptor: Descriptor, source: Fetcher, subject: str) -> Iterator[SendBody]:
    with source.fetch(descriptor) as reader:
        if descriptor.size == 0:
            reader.read(1)  # nobody reads an empty body, so let the source check itself here
        yield _SourceBody(reader, descriptor.size, subject)


def _check_digest_header(response: requests.Response, digest: Digest, subject: str) -> None:
    """Docker-Content-Digest, where there is one, agrees; another algorithm's (the spec allows it) says nothing here."""
    claimed = response.headers.get("Docker-Content-Digest", "")
    if claimed and not claimed.startswith("sha512:") and claimed != str(digest):
        try:
            got = str(Digest.parse(claimed))
        except InvalidDigest:
            got = "not a digest"  # not its words: the registry may echo a secret
        raise DigestMismatch(f"{subject}: Docker-Content-Digest", expected=str(digest), got=got)


def _check_length_header(response: requests.Response, size: int, subject: str) -> None:
    """Content-Length, where there is one, is one number, and the right one: nothing is read in vain."""
    claimed = response.headers.get("Content-Length")
    if claimed is None:
        return
    if not _LENGTH.match(claimed):
        raise RegistryError(f"{subject}: expected Content-Length {size}, got no number")
    if int(claimed) != size:
        raise SizeMismatch(subject, expected=size, got=int(claimed))


def _media_type(raw: bytes, headers: Mapping[str, str], subject: str, secrets: Iterable[str]) -> str:
    """The manifest's type, on which its body and the header must agree; one that could be read as two is refused."""
    document = load_object(raw, subject=subject, limit=spec.MAX_MANIFEST)
    header = headers.get("Content-Type", "")
    sent = header.partition(";")[0].strip()
    declared = document.get("mediaType", sent)
    if declared != sent:
        problem = f"expected Content-Type {quoted(declared, secrets)} as in the body, got {quoted(header, secrets)}"
        raise DocumentError(subject, problem, at="mediaType")
    if "manifests" in document and ("layers" in document or "config" in document):
        raise DocumentError(subject, "expected a manifest or an index, got both in one")
    if sent not in MANIFEST_TYPES:
        raise UnsupportedVersion(subject, f"expected a manifest, got {quoted(header, secrets)}", at="mediaType")
    return str(sent)
