"""The simulator's lists: tags, and the manifests that refer to another (the referrers API)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from casstore import spec


@dataclass
class ListFaults:
    """What is odd about lists and deletions; by default they are as in docker-registry with deletions allowed."""

    referrers_api: bool = False
    """GET /referrers/, and OCI-Subject."""
    referrers_status: int = 404
    """What it answers without that; text/plain."""
    referrers_body: bytes | None = None
    referrers_type: str | None = None
    tags_body: bytes | None = None
    page: int | None = None
    """Entries of a page; None is all of them."""
    link: str | None = None
    """What every Link says; `{path}` stands for the path asked for."""
    deletes: bool = True
    tag_deletes: bool = False
    """DELETE of a tag is offered."""
    deletes_all: bool = False
    """DELETE of a tag deletes its manifest, too."""
    heeds_match: bool = False
    """If-Match is heeded when a manifest is PUT."""
    stores: bool = True
    """PUT is answered as if it did."""


class ListsMixin:
    """The part of the handler that is about lists."""

    def _get_tags(self: Any, repository: str) -> None:
        names = sorted(name for where, name in self.contents.tags if where == repository)
        known = any(where == repository for where, _ in (*self.contents.blobs, *self.contents.manifests))
        if not known:
            self._refuse(404, "NAME_UNKNOWN")
            return
        part, link = self._page(names)
        body = json.dumps({"name": repository, "tags": part or None}).encode()
        if self.faults.tags_body is not None:
            body = self.faults.tags_body
        self._reply(200, body, Content_Type="application/json", Link=link)

    def _get_referrers(self: Any, repository: str, digest: str) -> None:
        faults = self.faults
        if not faults.referrers_api:
            self._reply(faults.referrers_status, b"404 page not found\n", Content_Type="text/plain; charset=utf-8")
            return
        entries = []
        for (where, own), (media_type, raw) in self.contents.manifests.items():
            document = json.loads(raw)
            if where == repository and document.get("subject", {}).get("digest") == digest:
                entry = {"mediaType": media_type, "digest": own, "size": len(raw)}
                entry["artifactType"] = document.get("artifactType") or document["config"]["mediaType"]
                entries.append(entry | {"annotations": document.get("annotations", {})})
        part, link = self._page(entries)
        body = json.dumps({"schemaVersion": 2, "mediaType": spec.MEDIA_INDEX, "manifests": part}).encode()
        media_type = spec.MEDIA_INDEX if faults.referrers_type is None else faults.referrers_type
        body = body if faults.referrers_body is None else faults.referrers_body
        self._reply(200, body, Content_Type=media_type, Link=link)

    def _page(self: Any, entries: Sequence[Any]) -> tuple[Sequence[Any], str]:
        """The entries asked for, and the Link to those after them."""
        start = int(self.query.get("start", "0"))
        path = self.path.partition("?")[0]
        if self.faults.link is not None:
            return entries[start:], self.faults.link.replace("{path}", path)
        end = len(entries) if self.faults.page is None else start + self.faults.page
        return entries[start:end], f'<{path}?start={end}>; rel="next"' if end < len(entries) else ""
