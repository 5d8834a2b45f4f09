"""Answers that come in pages: the `Link: <...>; rel="next"` of tags and referrers (distribution-spec, RFC 8288)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import requests

from casstore.errors import RegistryError
from casstore.registry.http import RegistryClient
from casstore.registry.urls import Origin, follow, shown

MAX_PAGES = 1000
_NEXT = re.compile(r"""<([^<>]{1,4096})>\s{0,9};[^,<]{0,200}?\brel\s{0,9}=\s{0,9}["']?next\b""", re.IGNORECASE)


def pages(
    client: RegistryClient, url: str, *, subject: str, expect: tuple[int, ...], scope: str, headers: dict[str, str]
) -> Iterator[requests.Response]:
    """The answers for `url` and the pages after it; the caller reads each before it takes the next.

    Only the first may be other than 200.

    Raises:
        RegistryError: a page on another origin, or more than MAX_PAGES.
    """
    for _ in range(MAX_PAGES):
        response = client.request("GET", url, subject=subject, expect=expect, scope=scope, headers=headers)
        yield response
        link = next_page(response.headers.get("Link", ""))
        if link is None or response.status_code != 200:
            return
        following = follow(url, link, subject=f"{subject}: next page", secrets=client.secrets)
        if Origin.of(following) != client.origin:
            raise RegistryError(
                f"{subject}: next page: expected a Link on {client.origin}, got {shown(following, client.secrets)};"
                " do not trust this registry"
            )
        url, expect = following, (200,)
    raise RegistryError(f"{subject}: expected at most {MAX_PAGES} pages, got more")


def next_page(link: str) -> str | None:
    """Where a Link header says that the next page is; None for nowhere."""
    match = _NEXT.search(link)
    return None if match is None else match[1]
