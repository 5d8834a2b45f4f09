"""Where content comes from, as a text, and the scopes that cover such places.

    place    HOST[:PORT]/REPOSITORY      oci:/DIR      store    archive
    scope    HOST[:PORT][/REPOSITORY]    oci[:/DIR]    store    archive    *

A scope covers a place by whole components: `registry.example/team` covers `registry.example/team/disks`, and not
`registry.example/team2` or `registry.example:5000/team`. Hosts are compared in lower case; docker.io has two more names
by which tools call it. `.` and `..` in a DIR are resolved; links only by `place_of`, and by who reads a policy's file.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Self

from casstore.errors import InvalidReference
from casstore.reference import LayoutReference, Reference, parse_host, parse_repository

STORE, ARCHIVE = "store", "archive"
"""The places of snapshots that are in a store, and of those in an archive that is imported."""

_DOCKER = {"index.docker.io", "registry-1.docker.io"}
_FORM = "expected HOST[:PORT][/REPOSITORY], oci, oci:/DIRECTORY, store, archive or *"
_REPOSITORY_FORM = "expected HOST[:PORT][/REPOSITORY]"

Parts = tuple[str, ...]
"""A place or scope, taken apart: its kind or host, then its components. No host is a kind: a host has a '.' or ':', or
is localhost.
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """Places that have their first components in common."""

    text: str
    parts: Parts

    @classmethod
    def parse(cls, text: str, *, real_path: Callable[[str], str] = posixpath.normpath) -> Self:
        """Parse a scope; `real_path` makes a directory one of its own.

        Raises:
            InvalidReference: outside the grammar.
        """
        if text == "*":
            return cls(text, ())
        if text in {STORE, ARCHIVE, "oci"}:
            return cls(text, (text,))
        if text.startswith("oci:"):
            return cls(text, _layout_parts(text, real_path))
        return cls.of_repositories(text, form=_FORM, what="scope")

    @classmethod
    def of_repositories(cls, text: str, *, form: str = _REPOSITORY_FORM, what: str = "repository") -> Self:
        """Parse a scope that can only be for repositories of registries.

        Raises:
            InvalidReference: outside the grammar.
        """
        host, slash, path = text.partition("/")
        if not ("." in host or ":" in host or host == "localhost"):
            raise InvalidReference(f"{what} {_shown(text)}: {form}")
        host = _host(parse_host(host))
        if not slash:
            return cls(text, (host,))
        try:
            parse_repository(f"{host}/{path}")
        except InvalidReference:
            raise InvalidReference(f"{what} {_shown(text)}: {form}, without tag or digest") from None
        return cls(text, (host, *path.split("/")))  # as it stands: a word under docker.io is a folder here, no image

    def covers(self, place: Parts) -> bool:
        """Whether a place is in it."""
        return place[: len(self.parts)] == self.parts


def place_of(reference: Reference) -> str:
    """The place that a reference is in, in one spelling. A layout's directory is looked up, so that a link to it is no
    other place.
    """
    if isinstance(reference, LayoutReference):
        return f"oci:{os.path.realpath(reference.path)}"
    return "/".join(repository_parts(reference.name) or (reference.name,))


def place_parts(place: str) -> Parts:
    """A place, taken apart.

    Raises:
        InvalidReference: it is none.
    """
    if place in {STORE, ARCHIVE}:
        return (place,)
    if place.startswith("oci:"):
        return _layout_parts(place, posixpath.normpath)
    parts = repository_parts(place)
    if parts is None:
        raise InvalidReference(
            f"place {_shown(place)}: expected HOST[:PORT]/REPOSITORY, oci:/DIRECTORY, store or archive"
        )
    return parts


def repository_parts(text: str) -> Parts | None:
    """A repository of a registry, taken apart; None where a text is none."""
    try:
        found = parse_repository(text)
    except InvalidReference:
        return None
    host, repository = _host(found.host), found.repository
    if host == "docker.io" and "/" not in repository:  # by another name
        repository = f"library/{repository}"
    return (host, *repository.split("/"))


def told(place: str) -> str:
    """A place, for messages."""
    return {STORE: "the store", ARCHIVE: "an archive"}.get(place, place)


def is_registry(place: Parts) -> bool:
    """Whether a place is a repository of a registry."""
    return place[0] not in {STORE, ARCHIVE, "oci"}


def _host(host: str) -> str:
    """A host that `parse_host` let through, in the one spelling that is compared."""
    if host.startswith("["):
        address, bracket, port = host[1:].partition("]")
        return f"[{IPv6Address(address)}{bracket}{port}"
    return "docker.io" if host in _DOCKER else host


def _layout_parts(text: str, real_path: Callable[[str], str]) -> Parts:
    path = text.removeprefix("oci:")
    if not path.startswith("/") or "\0" in path:
        raise InvalidReference(f"scope {_shown(text)}: expected oci: and an absolute directory")
    return ("oci", *(part for part in real_path(path).split("/") if part))


def _shown(text: str) -> str:
    return ascii(text[:200])
