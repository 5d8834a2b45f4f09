"""What to do about damage, said with the error that tells of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar, cast

from casstore.errors import CasstoreError, CorruptContent, NotFound, StorageError, UnsupportedVersion

F = TypeVar("F", bound=Callable[..., object])

REPAIR = "casstore check --read-data --repair --from SOURCE mends what has a good copy there"
_SALVAGE = "casstore restore --salvage writes what is left of the disk"


def is_damage(error: CasstoreError) -> bool:
    """Whether it tells that something which is stored is missing, damaged or unreadable."""
    if isinstance(error, CorruptContent):
        return not isinstance(error, UnsupportedVersion) and "sha256:" in str(error)
    return isinstance(error, NotFound | StorageError) and str(error).startswith("blob sha256:")


def with_next_step(*, salvage: bool = False) -> Callable[[F], F]:
    """Let the errors of a verb that tell of damage name what to do; with `salvage` also how to get what is left."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: object, **options: object) -> object:
            try:
                return function(*args, **options)
            except CasstoreError as error:
                if is_damage(error):
                    salvaging = salvage and not options.get("salvage")
                    error.add_note("; ".join([REPAIR, _SALVAGE] if salvaging else [REPAIR]))
                raise

        return cast("F", call)

    return decorate
