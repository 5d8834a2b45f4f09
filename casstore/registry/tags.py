"""The tags of one repository: listed, and taken away one at a time.

The specification lets a tag be deleted, docker-registry 2.8.2 and others do not; and to delete the manifest would take
all other tags of it as well. There, as regctl does, the tag is first moved to a manifest made for the purpose, which no
other tag has, and this one is deleted. That the registry deletes at all is tried out before, on another such manifest.
Whoever moves the tag meanwhile keeps it, and is told of, but for the moment between the last look and the move, which
only a registry that heeds If-Match closes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Any

from casstore import spec
from casstore.content import Fetcher
from casstore.digest import Digest
from casstore.errors import Conflict, DocumentError, InvalidReference, NotOffered, RegistryError
from casstore.jsondoc import dump, load_object
from casstore.oci import Descriptor
from casstore.reference import parse_tag
from casstore.registry.http import RegistryClient
from casstore.registry.manifests import Manifest, Manifests
from casstore.registry.pages import pages
from casstore.streams import BytesSource

MAX_TAGS = 100_000
_PAGE = 1000
"""Tags asked for at a time."""
_PAGE_BYTES = 16 * spec.MIB
_DELETED = (200, 202, 204)
_UNSUPPORTED = (400, 404, 405)
"""What registries that cannot delete answer."""
_EMPTY = Descriptor.of(b"{}", spec.MEDIA_EMPTY)
_PLACEHOLDER = "application/vnd.casstore.placeholder.v1"


class Tags:
    """The tags of the repository `name` at the URL `base`. `push` stores a blob."""

    def __init__(
        self,
        client: RegistryClient,
        manifests: Manifests,
        *,
        base: str,
        name: str,
        scope: str,
        push: Callable[[Descriptor, Fetcher], None],
    ) -> None:
        self._client, self._manifests, self._base, self._name, self._scope = client, manifests, base, name, scope
        self._push = push

    def all(self) -> tuple[str, ...]:
        """All tags; none where there is no such repository yet. What is no tag by its form is left out.

        Raises:
            DocumentError: no list of tags, or one of more than MAX_TAGS.
            RegistryError: the list does not end, or goes on elsewhere.
        """
        told, found = f"{self._name}: tags", dict[str, None]()
        for response in pages(
            self._client,
            f"{self._base}/tags/list?n={_PAGE}",
            subject=told,
            expect=(200, 404),
            scope=self._scope + "pull",
            headers={"Accept": "application/json"},
        ):
            if response.status_code == 404:
                error = self._client.refusal(response, told, expected="200")
                if "NAME_UNKNOWN" in str(error):
                    return ()
                raise error
            raw = self._client.read(response, told, limit=_PAGE_BYTES)
            found |= dict.fromkeys(_parse_tags(raw, told))
            if len(found) > MAX_TAGS:
                raise DocumentError(told, f"expected at most {MAX_TAGS}, got more")
        return tuple(found)

    def remove(self, tag: str) -> None:
        """Take one tag away; the manifest and its other tags stay.

        Raises:
            NotFound: there is no such tag.
            NotOffered: the registry does not delete. The tag is as it was.
            Conflict: somebody else moved the tag meanwhile.
        """
        was, etag = self._manifests.get_tagged(tag)
        before = set(self.all())
        if self._delete(tag):
            self._expect(tag, None)
            if self._manifests.head(str(was.descriptor.digest)) is None:
                self._bring_back(was, before - {tag})
            return
        self._push(_EMPTY, BytesSource(b"{}"))
        probe, placeholder = _placeholder(), _placeholder()
        self._manifests.put(probe, str(probe.descriptor.digest))
        if not self._delete(str(probe.descriptor.digest)):
            raise self._not_offered(tag)
        self._expect(tag, was.descriptor.digest)
        self._replace(tag, was, etag, placeholder)
        self._expect(tag, None)
        if self._manifests.head(str(was.descriptor.digest)) is None:
            raise RegistryError(
                f"{self._manifests.subject(tag)}: the tag is gone, and unasked {was.descriptor.digest} with it;"
                " push it again"
            )

    def delete(self, url: str, subject: str) -> None:
        """DELETE what has no other names.

        Raises:
            NotFound: there is no such content.
            NotOffered: the registry does not delete.
        """
        response = self._client.request(
            "DELETE", url, subject=subject, expect=(*_DELETED, 405), scope=self._scope + "delete"
        )
        if response.status_code == 405:
            error = self._client.refusal(response, subject, expected="202")
            raise NotOffered(f"{error}; this registry does not delete: its owner can allow it")
        self._client.finish(response, subject)

    def _replace(self, tag: str, was: Manifest, etag: str | None, placeholder: Manifest) -> None:
        """Let a placeholder take the tag, and delete it."""
        digest = str(placeholder.descriptor.digest)
        try:
            self._manifests.put(placeholder, tag, match=etag)  # what fails here may have moved the tag all the same
            deleted = self._delete(digest)
        except BaseException:
            self._put_back(tag, placeholder, was)
            raise
        if not deleted:
            self._put_back(tag, placeholder, was)
            raise self._not_offered(tag)

    def _bring_back(self, was: Manifest, others: Iterable[str]) -> None:
        """The manifest is gone: with its last tag, or it was deleted for the tag, and took its other tags along."""
        self._manifests.put(was, str(was.descriptor.digest))
        for name in sorted(set(others) - set(self.all())):
            self._manifests.put(was, name)

    def _put_back(self, tag: str, placeholder: Manifest, was: Manifest) -> None:
        if self._manifests.digest_of(tag) in {placeholder.descriptor.digest, None}:
            self._manifests.put(was, tag)

    def _delete(self, reference: str) -> bool:
        """Whether the registry took a DELETE of a tag or digest that is there."""
        subject = self._manifests.subject(reference)
        response = self._client.request(
            "DELETE",
            self._manifests.url(reference),
            subject=subject,
            expect=(*_DELETED, *_UNSUPPORTED),
            scope=self._scope + "delete",
        )
        self._client.finish(response, subject)
        return response.status_code in _DELETED

    def _expect(self, tag: str, digest: Digest | None) -> None:
        """Raises:
        Conflict: the tag stands for something else.
        """
        got = self._manifests.digest_of(tag)
        if got != digest:
            raise Conflict(
                f"{self._manifests.subject(tag)}: expected {digest or 'no such tag any more'}, got {got or 'none'};"
                " somebody else used it meanwhile: look, and try again"
            )

    def _not_offered(self, tag: str) -> NotOffered:
        return NotOffered(
            f"{self._manifests.subject(tag)}: this registry deletes neither tags nor manifests; the tag is as it was."
            " The registry's owner can allow it (docker-registry: storage.delete.enabled)"
        )


def _placeholder() -> Manifest:
    """A manifest that nobody else has; its one blob is the empty one of the image specification."""
    raw = dump(
        {
            "schemaVersion": 2,
            "mediaType": spec.MEDIA_MANIFEST,
            "artifactType": _PLACEHOLDER,
            "config": _EMPTY.to_dict(),
            "layers": [_EMPTY.to_dict()],
            "annotations": {"io.casstore.unique": secrets.token_hex(16)},
        }
    )
    return Manifest(Descriptor.of(raw, spec.MEDIA_MANIFEST), raw)


def _parse_tags(raw: bytes, told: str) -> list[str]:
    document: dict[str, Any] = load_object(raw, subject=told, limit=_PAGE_BYTES)
    tags = document.get("tags")
    if tags is None:  # docker-registry, of a repository whose last tag is gone
        return []
    if not isinstance(tags, list):
        raise DocumentError(told, f"expected a list, got {type(tags).__name__}", at="tags")
    return [tag for tag in tags if isinstance(tag, str) and _is_tag(tag)]


def _is_tag(text: str) -> bool:
    try:
        parse_tag(text)
    except InvalidReference:
        return False
    return True
