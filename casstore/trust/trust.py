"""What the caller and the policy ask, together: both must hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from casstore.errors import UsageError
from casstore.signatures.keys import PublicKey
from casstore.trust.policy import Policy
from casstore.trust.requirement import REQUEST, Requirement, distinct
from casstore.trust.scopes import Scope


def _clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose signatures are wanted: by `threshold` of the `keys`, if there are any; and as the `policy` says, if there
    is one. With `no_rollback` names must not go back, wherever content comes from.

    Raises:
        UsageError: more signatures are wanted than there are keys, or something is said of signatures without keys.
        InvalidReference: `signed_for` has what is no repository.
    """

    keys: tuple[PublicKey, ...] = ()
    policy: Policy | None = None
    threshold: int = 1
    signed_for: tuple[str, ...] = ()
    """HOST/REPO that signatures by `keys` may be for, besides the place itself."""
    no_rollback: bool = False
    now: Callable[[], datetime] = _clock
    """The time, in UTC."""

    def __post_init__(self) -> None:
        different = len(distinct(self.keys))
        if not self.keys and (self.threshold != 1 or self.signed_for):
            raise UsageError("trust: expected keys where it is said how many, or for which repository, got none")
        if self.keys and not 1 <= self.threshold <= different:
            raise UsageError(
                f"trust: expected a threshold of 1 to {different}, the number of different keys, got {self.threshold}"
            )
        for text in self.signed_for:
            Scope.of_repositories(text)

    def requirements(self, place: str) -> list[Requirement]:
        """What is asked of content from `place`; nothing where the list is empty.

        Raises:
            InvalidReference: it is no place.
        """
        asked = []
        if self.keys:
            asked.append(
                Requirement(
                    told=REQUEST,
                    signed=True,
                    keys=distinct(self.keys),
                    threshold=self.threshold,
                    signed_for=tuple(map(Scope.of_repositories, self.signed_for)),
                )
            )
        ruled = None if self.policy is None else self.policy.rule_for(place).requirement
        if ruled is not None:
            asked.append(ruled)
        if self.no_rollback and not asked:
            asked.append(Requirement(told=REQUEST))
        return [replace(each, no_rollback=each.no_rollback or self.no_rollback) for each in asked]

    def forbids_rollback(self, place: str) -> bool:
        """Whether names must not go back, so that what was seen before has to be known."""
        return any(each.no_rollback for each in self.requirements(place))
