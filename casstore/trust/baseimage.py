"""The base images that an artifact may say it comes from.

    NAME               any tag and digest of this image
    NAME:TAG           this tag
    [NAME[:TAG]@]sha256:...    this digest (of the image's manifest or index, as the artifact records it)

Names are whole ones, with their host. What an artifact says may be short, as docker means it: `alpine:3.20` is
docker.io/library/alpine:3.20.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from casstore import spec
from casstore.digest import Digest
from casstore.errors import InvalidDigest, InvalidReference
from casstore.reference import RegistryReference, parse_reference
from casstore.trust.scopes import repository_parts


@dataclass(frozen=True, slots=True)
class BaseImage:
    """An image, as far as it is told."""

    name: str | None = None
    """HOST/REPOSITORY."""
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a base image that a policy allows.

        Raises:
            InvalidReference, InvalidDigest: outside the grammar.
        """
        if text.startswith("sha256:"):
            return cls(digest=Digest.parse(text, subject="base image"))
        found = parse_reference(text)
        if not isinstance(found, RegistryReference):
            raise InvalidReference(f"base image {ascii(text[:200])}: expected an image in a registry, got a directory")
        return cls(_name(found), found.tag, found.digest)

    @classmethod
    def told_by(cls, annotations: Mapping[str, str]) -> Self:
        """What an artifact's annotations say, as far as it can be read."""
        name, digest = annotations.get(spec.ANNOTATION_BASE_NAME), annotations.get(spec.ANNOTATION_BASE_DIGEST)
        found, pinned = None, None
        with suppress(InvalidReference):
            found = None if name is None else parse_reference(_whole(name))
        with suppress(InvalidDigest):
            pinned = None if digest is None else Digest.parse(digest)
        if not isinstance(found, RegistryReference):
            return cls(digest=pinned)
        if found.digest is not None and pinned not in (None, found.digest):
            return cls()  # it says two things
        return cls(_name(found), found.tag, pinned or found.digest)

    def covers(self, base: BaseImage) -> bool:
        """Whether `base` is, as far as it is told, what this asks for."""
        pairs = ((self.name, base.name), (self.tag, base.tag), (self.digest, base.digest))
        return all(wanted is None or wanted == told for wanted, told in pairs)

    def __str__(self) -> str:
        name = (self.name or "") + (f":{self.tag}" if self.tag else "")
        return name + (("@" if name else "") + str(self.digest) if self.digest else "") or "none"


def _name(image: RegistryReference) -> str:
    return "/".join(repository_parts(image.name) or ())


def _whole(name: str) -> str:
    """An image's name with its host, as docker completes it."""
    host, slash, _ = name.partition("/")
    return name if slash and ("." in host or ":" in host or host == "localhost") else f"docker.io/{name}"
