"""What is asked of content from one place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from casstore.digest import Digest
from casstore.errors import UsageError
from casstore.signatures.keys import PublicKey
from casstore.trust.baseimage import BaseImage
from casstore.trust.scopes import Scope

REQUEST = "the request"
"""Who asks where it is no policy."""
_SHOWN = 5
"""Keys that a message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What must hold before content is taken. Without `signed` and `refuse` only `no_rollback` asks for something.

    Raises:
        UsageError: a threshold below 1, which nothing at all would reach.
    """

    told: str
    """Who asks, for messages: `policy '...', rule for registry.example/team`."""
    refuse: bool = False
    """Nothing is taken from there."""
    signed: bool = False
    """Signatures by `threshold` of the `keys` must be there."""
    keys: tuple[PublicKey, ...] = ()
    """Distinct ones."""
    threshold: int = 1
    signed_for: tuple[Scope, ...] = ()
    """The repositories that a signature may be for, besides the place itself."""
    repository_always: bool = False
    """A signature has to name a repository."""
    max_age: timedelta | None = None
    """Since a signature's own time."""
    base_images: tuple[BaseImage, ...] = ()
    """One of them must be the artifact's; none: any will do."""
    no_rollback: bool = False
    """Names must not go back to what was superseded, or is older."""

    def __post_init__(self) -> None:
        if self.threshold < 1:
            raise UsageError(f"{self.told}: expected a threshold of 1 or more, got {self.threshold}")


def distinct(keys: Iterable[PublicKey]) -> tuple[PublicKey, ...]:
    """The keys without those that are there under another name before."""
    found: dict[Digest, PublicKey] = {}
    for key in keys:
        found.setdefault(key.fingerprint, key)
    return tuple(found.values())


def names(keys: Sequence[PublicKey]) -> str:
    """The names of some keys, for messages, and how many more there are."""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(ascii(key.name)[1:-1] for key in keys[:_SHOWN]) + more
