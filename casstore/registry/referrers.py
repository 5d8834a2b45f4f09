"""The manifests that refer to another one by their `subject`, as signatures do (distribution-spec v1.1.1).

A registry with the referrers API keeps the list by itself, and says so by `OCI-Subject` in its answer to the PUT.
Without it, the list is an image index under the tag `sha256-<hex of the subject>`, which its clients keep, each for
itself: two at a time can undo each other. So what was written is read again, at once and a moment later, and an entry
that got lost is put there again; after a few times that is an error.

A registry's garbage collection takes manifests without a tag, the index notwithstanding. So there, a referrer also gets
a tag of its own (names.referrer_name). Signatures get theirs in every registry, and before a list tells of them: tools
that copy tags copy them, too. Where a registry with the API refuses the tag, that is told.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from casstore import spec
from casstore.digest import Digest
from casstore.errors import (
    Conflict,
    DocumentError,
    InvalidDigest,
    MissingBlobs,
    NotFound,
    RegistryError,
    Unavailable,
)
from casstore.jsondoc import dump
from casstore.names import referrer_name
from casstore.oci import AnyManifest, Descriptor, ImageIndex, is_bundle
from casstore.registry.failures import Ended
from casstore.registry.http import RegistryClient
from casstore.registry.manifests import MANIFEST_TYPES, Manifest, Manifests
from casstore.registry.pages import pages

MAX_REFERRERS = 10_000
"""Entries of one list that are read; whoever gets one more knows that there are too many."""
_TRIES = 5
SECOND_LOOK = (0.1, 0.3)
"""Seconds after which the list is looked at again, at random between: longer than another client takes from its GET of
the list to its PUT."""


class Referrers:
    """The referrers in the repository at the URL `base`. Thread-safe."""

    def __init__(self, client: RegistryClient, manifests: Manifests, *, base: str, scope: str) -> None:
        self._client, self._manifests, self._base, self._scope = client, manifests, base, scope
        self._lock = threading.Lock()

    def of(self, subject: Digest) -> tuple[Descriptor, ...]:
        """What refers to `subject`, as the registry's or the tag's list says: nobody has looked at the manifests yet.
        Not more than MAX_REFERRERS + 1 of them.

        Raises:
            DocumentError: the list is no sound image index.
            RegistryError: it does not end, or goes on elsewhere.
        """
        entries = self._by_api(subject)
        return _descriptors(self._by_tag(subject)[0] if entries is None else entries)[: MAX_REFERRERS + 1]

    def attach(self, manifest: Manifest, subject: Descriptor) -> None:
        """Store a manifest that refers to `subject`, and see that the list tells of it.

        Raises:
            DocumentError: it refers to something else.
            RegistryError: other clients took it from the list again and again.
            MissingBlobs, and what else Manifests.put raises.
        """
        parsed = AnyManifest.parse_referrer(manifest.raw, manifest.descriptor.media_type, of=subject).descriptor
        name = referrer_name(subject.digest, parsed)
        if is_bundle(parsed.artifact_type):
            is_listed = self._put_named(manifest, name, subject)
        else:
            is_listed = self._put(manifest, str(parsed.digest), subject) or self._put(manifest, name, subject)
        if not is_listed:
            with self._lock:  # at least our own threads do not undo each other
                self._keep_listed(parsed, subject.digest)

    def _put(self, manifest: Manifest, reference: str, subject: Descriptor) -> bool:
        """Whether the registry keeps the list."""
        return self._manifests.put(manifest, reference).get("OCI-Subject") == str(subject.digest)

    def _put_named(self, manifest: Manifest, name: str, subject: Descriptor) -> bool:
        """As `_put`, under a name; without one only where the registry keeps the list and takes no such name."""
        try:
            return self._put(manifest, name, subject)
        except (MissingBlobs, Unavailable):
            raise
        except RegistryError as error:
            refused = error
        if not self._put(manifest, str(manifest.descriptor.digest), subject):
            raise refused
        self._client.say(
            f"{refused}; the signature is listed, but has no tag: tools that copy tags leave it behind, and the"
            " registry's garbage collection may take it"
        )
        return True

    def _by_api(self, subject: Digest) -> list[Mapping[str, Any]] | None:
        """The registry's own list; None if it keeps none: any other answer than an index is some proxy's or web page's.

        No filter is asked for, so OCI-Filters-Applied has no meaning here.
        """
        told = f"referrers of {self._manifests.subject(str(subject))}"
        entries: list[Mapping[str, Any]] = []
        for response in pages(
            self._client,
            f"{self._base}/referrers/{subject}",
            subject=told,
            expect=(200, 400, 404, 405),
            scope=self._scope + "pull",
            headers={"Accept": spec.MEDIA_INDEX},
        ):
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
            if response.status_code != 200 or media_type != spec.MEDIA_INDEX:
                self._client.finish(response, told)
                if entries:
                    raise DocumentError(told, "expected an image index, got another document", at="mediaType")
                return None
            raw = self._client.read(response, told, limit=spec.MAX_MANIFEST)
            entries += ImageIndex.parse(raw, subject=told).entries
            if len(entries) > MAX_REFERRERS:
                break
        return entries

    def _by_tag(self, subject: Digest) -> tuple[list[Mapping[str, Any]], str | None]:
        """The list that clients keep, and its ETag; no list is an empty one."""
        tag = _list_tag(subject)
        try:
            manifest, etag = self._manifests.get_tagged(tag)
        except NotFound:
            return [], None
        told = self._manifests.subject(tag)
        if manifest.descriptor.media_type != spec.MEDIA_INDEX:
            raise DocumentError(told, f"expected an image index, got {manifest.descriptor.media_type}", at="mediaType")
        return [*ImageIndex.parse(manifest.raw, subject=told).entries], etag

    def _keep_listed(self, referrer: Descriptor, subject: Digest) -> None:
        told = self._manifests.subject(_list_tag(subject))
        for _ in range(_TRIES):
            entries, etag = self._by_tag(subject)
            if _has(entries, referrer):
                return
            try:
                self._add(referrer, entries, subject, etag)
            except Conflict:
                continue
            if self._is_listed(referrer, subject):
                self._wait(told)
                if self._is_listed(referrer, subject):
                    return
        raise RegistryError(
            f"{told}: {referrer.digest} is stored, but {_TRIES} times other clients took it from this list of"
            " referrers; attach it again when they are done"
        )

    def _add(self, referrer: Descriptor, entries: list[Mapping[str, Any]], subject: Digest, etag: str | None) -> None:
        try:
            self._write([*entries, referrer.to_dict()], subject, etag)
        except MissingBlobs:  # some that are listed are no longer there
            self._write([*filter(self._is_there, entries), referrer.to_dict()], subject, etag)

    def _is_listed(self, referrer: Descriptor, subject: Digest) -> bool:
        return _has(self._by_tag(subject)[0], referrer)

    def _wait(self, told: str) -> None:
        try:
            self._client.patience.pause(random.uniform(*SECOND_LOOK))  # noqa: S311  (no secret)
        except Ended as ended:
            raise Unavailable(f"{told}: {ended}") from None

    def _write(self, entries: list[Mapping[str, Any]], subject: Digest, etag: str | None) -> None:
        tag = _list_tag(subject)
        raw = dump({"schemaVersion": 2, "mediaType": spec.MEDIA_INDEX, "manifests": entries})
        if len(raw) > spec.MAX_MANIFEST:
            told = self._manifests.subject(tag)
            raise RegistryError(
                f"{told}: expected a list of referrers of at most {spec.MAX_MANIFEST} bytes, got {len(raw)};"
                " remove some that are not needed"
            )
        self._manifests.put(Manifest(Descriptor.of(raw, spec.MEDIA_INDEX), raw), tag, match=etag, prove=False)

    def _is_there(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry's manifest may still be there; what has no digest that can be asked for may."""
        try:
            digest = Digest.parse(entry["digest"])
        except InvalidDigest:
            return True
        return self._manifests.head(str(digest)) is not None


def _list_tag(subject: Digest) -> str:
    return f"sha256-{subject.hex}"


def _has(entries: Iterable[Mapping[str, Any]], referrer: Descriptor) -> bool:
    return any(entry["digest"] == str(referrer.digest) for entry in entries)


def _descriptors(entries: Iterable[Mapping[str, Any]]) -> tuple[Descriptor, ...]:
    """Those that can be fetched and checked: manifests, by sha256. Each once."""
    found: dict[Digest, Descriptor] = {}
    for entry in entries:
        try:
            descriptor = Descriptor.from_dict(entry)
        except InvalidDigest:
            continue
        if descriptor.media_type in MANIFEST_TYPES:
            found.setdefault(descriptor.digest, descriptor)
    return tuple(found.values())
