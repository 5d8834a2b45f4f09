"""The manifests of one repository: read, written and proved to be there, always as raw bytes.

A tag is pinned to the digest of the bytes that one GET returned. What a PUT answers is not believed: a HEAD, or a GET
where the HEAD names no digest, shows that the manifest, or the tag, is what was sent.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import oras.defaults
import requests

from casstore import spec
from casstore.digest import Digest
from casstore.errors import (
    Conflict,
    DigestMismatch,
    DocumentError,
    InvalidDigest,
    MissingBlobs,
    NotFound,
    RegistryError,
    UnsupportedVersion,
)
from casstore.jsondoc import load_object
from casstore.oci import Descriptor
from casstore.registry.failures import quoted
from casstore.registry.http import RegistryClient

MANIFEST_TYPES: frozenset[str] = frozenset(oras.defaults.default_manifest_accepted_media_types)
"""What lives under /manifests/: OCI's and Docker's image manifests and indexes. All else is a blob."""
ACCEPT = ", ".join(sorted(MANIFEST_TYPES))
_CACHE_BYTES = 4 * spec.MAX_MANIFEST
_STORED = (200, 201, 202, 204)
"""Only 201 is right after a PUT, but what counts is what is there then."""
_STRONG = re.compile(r'"[\x21\x23-\x7e]{1,200}"\Z')


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index: what it is, and its exact bytes."""

    descriptor: Descriptor
    raw: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """What a registry says of a name: the digest that it gave (None: it gave none, or one of no use) and the length."""

    digest: Digest | None
    size: str | None


class Manifests:
    """The manifests of the repository `name` at the URL `base`. Thread-safe."""

    def __init__(self, client: RegistryClient, *, base: str, name: str, scope: str) -> None:
        self._client, self._base, self._name, self._scope = client, base, name, scope
        self._cache = _Cache()

    def subject(self, reference: str) -> str:
        """`host/repository:tag`, or with `@` and a digest."""
        return f"{self._name}{'@' if ':' in reference else ':'}{reference}"

    def url(self, reference: str) -> str:
        """Where the manifest of this tag or digest is."""
        return f"{self._base}/manifests/{reference}"

    def by_digest(self, digest: Digest) -> Manifest:
        """The manifest of this digest, from the cache if it was seen lately.

        Raises: as `get`.
        """
        return self._cache.get(digest) or self.get(str(digest))

    def get(self, reference: str) -> Manifest:
        """The manifest that a tag or digest stands for now.

        Raises:
            NotFound: there is none.
            SizeMismatch, DigestMismatch, DocumentError, UnsupportedVersion: what is there is no sound manifest.
        """
        return self.get_tagged(reference)[0]

    def get_tagged(self, reference: str) -> tuple[Manifest, str | None]:
        """As `get`, with the ETag that came with it, if that can be used in If-Match (RFC 9110: no weak one)."""
        subject = self.subject(reference)
        response = self._client.request(
            "GET",
            self.url(reference),
            subject=subject,
            expect=(200,),
            scope=self._scope + "pull",
            headers={"Accept": ACCEPT},
        )
        raw = self._client.read(response, subject, limit=spec.MAX_MANIFEST)
        got = Digest.of(raw)
        if ":" in reference and str(got) != reference:
            raise DigestMismatch(subject, expected=reference, got=str(got))
        check_digest_header(response, got, subject)
        media_type = _media_type(raw, response.headers, subject, self._client.auth.secrets)
        manifest = Manifest(Descriptor(media_type=media_type, digest=got, size=len(raw)), raw)
        self._cache.add(manifest)
        etag = response.headers.get("ETag", "")
        return manifest, etag if _STRONG.match(etag) else None

    def head(self, reference: str) -> Seen | None:
        """What a tag or digest stands for, as the registry says; None if it knows none."""
        subject = self.subject(reference)
        response = self._client.request(
            "HEAD",
            self.url(reference),
            subject=subject,
            expect=(200, 404),
            scope=self._scope + "pull",
            headers={"Accept": ACCEPT},
        )
        self._client.finish(response, subject)
        if response.status_code == 404:
            return None
        try:
            digest = Digest.parse(response.headers.get("Docker-Content-Digest", ""))
        except InvalidDigest:
            digest = None
        return Seen(digest, response.headers.get("Content-Length"))

    def digest_of(self, reference: str) -> Digest | None:
        """What a tag or digest stands for now: by a HEAD, or by a GET where that names no digest. None: nothing."""
        seen = self.head(reference)
        if seen is None:
            return None
        if seen.digest is not None:
            return seen.digest
        try:
            return self.get(reference).descriptor.digest
        except NotFound:
            return None

    def put(
        self, manifest: Manifest, reference: str, *, match: str | None = None, prove: bool = True
    ) -> Mapping[str, str]:
        """Store a manifest under its own digest or a tag, and see that it is there; the headers of the answer.

        `match` is the ETag of what may be replaced. Without `prove`, the caller looks himself.

        Raises:
            MissingBlobs: the registry lacks something that the manifest names.
            Conflict: the tag stands for something other than `match`.
            DigestMismatch: the registry stored something else, or somebody else moved the tag.
            RegistryError: it stored nothing, or takes none of this size.
        """
        subject, digest = self.subject(reference), manifest.descriptor.digest
        response = self._client.request(
            "PUT",
            self.url(reference),
            subject=subject,
            expect=(*_STORED, 400, 404, 412, 413),
            scope=self._scope + "pull,push",
            headers={"Content-Type": manifest.descriptor.media_type} | ({"If-Match": match} if match else {}),
            data=manifest.raw,
        )
        if response.status_code not in _STORED:
            raise self._refused(response, subject, manifest)
        self._client.finish(response, subject)
        check_digest_header(response, digest, subject)
        if prove:
            self._prove(manifest, reference, response.status_code)
        self._cache.add(manifest)
        return response.headers

    def forget(self, digest: Digest) -> None:
        """Drop a manifest from the cache."""
        self._cache.remove(digest)

    def _refused(self, response: requests.Response, subject: str, manifest: Manifest) -> Exception:
        error = self._client.refusal(response, subject, expected="201")
        text, size = str(error), manifest.descriptor.size
        if response.status_code == 412:
            return Conflict(f"{text}; it changed meanwhile: try again")
        if "MANIFEST_BLOB_UNKNOWN" in text:
            return MissingBlobs(f"{text}; push its blobs again")
        if response.status_code == 413 or "too large" in text.lower():
            return RegistryError(
                f"{text}; its {size} bytes are too many for this registry, where at least {spec.MAX_MANIFEST} (4 MiB)"
                " should be taken: use another one, or ask for its limit to be raised"
            )
        return error

    def _prove(self, manifest: Manifest, reference: str, status: int) -> None:
        subject, want = self.subject(reference), manifest.descriptor
        seen = self.head(reference)
        if seen is not None and seen.digest == want.digest and seen.size in {str(want.size), None}:
            return
        try:
            got = self.get(reference).descriptor.digest
        except NotFound as error:
            raise RegistryError(f"{subject}: PUT was answered {status}, but afterwards: {error}") from None
        if got != want.digest:
            raise DigestMismatch(f"{subject} (after it was pushed)", expected=str(want.digest), got=str(got))


class _Cache:
    """The manifests last seen, by digest, so that resolve, fetch and tag share one GET. Bounded; thread-safe."""

    def __init__(self) -> None:
        self._manifests: OrderedDict[Digest, Manifest] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: Digest) -> Manifest | None:
        return self._manifests.get(digest)

    def add(self, manifest: Manifest) -> None:
        with self._lock:
            self._manifests[manifest.descriptor.digest] = manifest
            while sum(len(kept.raw) for kept in self._manifests.values()) > _CACHE_BYTES:
                self._manifests.popitem(last=False)

    def remove(self, digest: Digest) -> None:
        with self._lock:
            self._manifests.pop(digest, None)


def check_digest_header(response: requests.Response, digest: Digest, subject: str) -> None:
    """Docker-Content-Digest, where there is one, agrees; another algorithm's (the spec allows it) says nothing here.

    Raises:
        DigestMismatch: it does not.
    """
    claimed = response.headers.get("Docker-Content-Digest", "")
    if claimed and not claimed.startswith("sha512:") and claimed != str(digest):
        try:
            got = str(Digest.parse(claimed))
        except InvalidDigest:
            got = "not a digest"  # not its words: the registry may echo a secret
        raise DigestMismatch(f"{subject}: Docker-Content-Digest", expected=str(digest), got=got)


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
