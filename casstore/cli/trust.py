"""Whose signatures are wanted: --key, --policy and the like, and what the library makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from casstore.cli.env import expand_home, policy_path
from casstore.cli.keyfiles import read_key_file
from casstore.cli.options import GroupedOption, gathered

if TYPE_CHECKING:
    from casstore.cli.session import Session
    from casstore.trust.trust import Trust

F = TypeVar("F", bound=Callable[..., object])

_HEADING = "Trust"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """The options of one run about trust."""

    key: tuple[str, ...]
    threshold: int | None
    policy: str | None
    signed_for: tuple[str, ...]
    no_rollback: bool = False


def _option(*names: str, **settings: Any) -> Callable[[F], F]:
    return click.option(*names, cls=GroupedOption, heading=_HEADING, **settings)


def trust_options(*, rollback: bool = False) -> Callable[[F], F]:
    """Gives the function a Trusted as `trusted`; with `rollback` also --no-rollback."""
    options: list[Callable[[F], F]] = [
        _option(
            "--key",
            multiple=True,
            metavar="FILE",
            help="A public key whose signature is wanted; may be given several times: one of them is enough.",
        ),
        _option("--threshold", type=click.IntRange(1, 100), metavar="N", help="So many of the keys must have signed."),
        _option(
            "--policy",
            metavar="FILE",
            help="What must be signed by whom, by place  [$CASSTORE_POLICY, else casstore.policy.toml in the store].",
        ),
        _option(
            "--signed-for",
            multiple=True,
            metavar="HOST/REPO",
            help="A repository that a signature may be for, besides the one that it is found in, as that of which this"
            " is a mirror; may be given several times.",
        ),
    ]
    rolling = _option(
        "--no-rollback", is_flag=True, help="Refuse a tag that was moved back to something older than was pulled last."
    )
    return gathered(Trusted, "trusted", *options, *([rolling] if rollback else []))


def trust_of(session: Session, trusted: Trusted, *stores: str) -> Trust | None:
    """What the options and the policy ask for; None where nothing is. The `stores` are those whose policy counts where
    none is given, the first that has one; without any it is that of the run.

    Raises:
        click.UsageError: options that do not go together.
        InvalidKey, InvalidPolicy: a file that is missing or cannot be followed.
    """
    for name, given in (("--threshold", trusted.threshold is not None), ("--signed-for", bool(trusted.signed_for))):
        if given and not trusted.key:
            raise click.UsageError(f"{name}: expected --key with it, got none; a policy says this by itself")
    if trusted.threshold is not None and trusted.threshold > len(trusted.key):
        raise click.UsageError(f"--threshold {trusted.threshold}: expected as many --key, got {len(trusted.key)}")
    named = session.settings.policy if trusted.policy is None else expand_home(trusted.policy)
    path = policy_path(named, *(stores or (session.settings.store,)))
    if not trusted.key and path is None and not trusted.no_rollback:
        return None
    from casstore.signatures.keys import PublicKey  # cryptography: slow
    from casstore.trust.policyfile import read_policy
    from casstore.trust.trust import Trust

    files = [expand_home(each) for each in trusted.key]
    return Trust(
        keys=tuple(PublicKey.parse(read_key_file(file), name=file) for file in files),
        policy=None if path is None else read_policy(path),
        threshold=trusted.threshold or 1,
        signed_for=trusted.signed_for,
        no_rollback=trusted.no_rollback,
    )
