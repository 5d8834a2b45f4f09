"""Which store the calls work on, and whose sandboxes they take snapshots of."""

from __future__ import annotations

import os
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from casstore.cli.env import Settings, policy_path
from casstore.integrity import recorded_name
from casstore.store import Store

if TYPE_CHECKING:
    from casstore.trust.trust import Trust

_REFS: Final = "refs"


@dataclass(frozen=True, slots=True)
class Place:
    """A store's directory, and a microsandbox home; and how snapshots record what is on their disk."""

    store: str
    home: str
    integrity: str = "sparse"
    """The algorithm of `record_integrity=True`, in the command line's spelling."""
    policy: str | None = None
    """A file that says whose signatures what comes in must have; else the store's own counts, if it has one."""

    def trust(self) -> Trust | None:
        """What is asked of what comes in; None where nothing is.

        Raises:
            InvalidPolicy: the policy cannot be followed.
        """
        path = policy_path(self.policy, self.store)
        if path is None:
            return None
        from casstore.trust.policyfile import read_policy
        from casstore.trust.trust import Trust

        return Trust(policy=read_policy(path))

    def open(self, *, create: bool = False) -> Store:
        """Open the store, for one call in one thread; a context manager.

        Raises:
            NotFound: there is none, and `create` is not set.
            As `Store.open`.
        """
        return Store.open(self.store, create=create)

    def path_of(self, name: str) -> str:
        """What `path` says of the snapshot `name`."""
        return os.path.join(self.store, _REFS, name)

    def holds(self, folder: str) -> bool:
        """Whether it is the store, or where `path_of` says that its snapshots are."""
        mine = {os.path.realpath(self.store), os.path.realpath(os.path.join(self.store, _REFS))}
        return os.path.realpath(folder) in mine

    def name_at(self, path: str) -> str | None:
        """The name whose `path_of` this is, however it is written; None for any other path."""
        folder, name = os.path.split(os.path.abspath(path))
        mine = os.path.realpath(os.path.join(self.store, _REFS))
        return name if os.path.realpath(folder) == mine else None


_CHOSEN: ContextVar[Place | None] = ContextVar("casstore.aio", default=None)


class use:  # noqa: N801  (reads as a verb: `with aio.use("store"):`)
    """Choose the store, and the microsandbox home, for what follows; in a `with`, for what is in it.

        aio.use("/srv/snapshots", home="/home/ann/.microsandbox")

    What is not given stays as it was: at first the command line's store ($CASSTORE_STORE, else ~/.casstore) and
    microsandbox's own home ($MSB_HOME, else ~/.microsandbox). `integrity` is what `record_integrity=True` records:
    sparse, as 0.4.4 does, or sha256, which every version of microsandbox verifies, sparse-zero or blake3-merkle.

    What comes in must be signed as the policy of $CASSTORE_POLICY wants it, else as that of the store does, if it has
    one.

    The choice belongs to the context: tasks that are started after it have it too, others have their own.

    Raises:
        UsageError: there is no such algorithm.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
        integrity: str | None = None,
    ) -> None:
        if integrity is not None:
            recorded_name(integrity)
        before = current()
        self._token = _CHOSEN.set(
            Place(
                store=_folder(store, before.store),
                home=_folder(home, before.home),
                integrity=integrity or before.integrity,
                policy=before.policy,
            )
        )

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        _CHOSEN.reset(self._token)


def current() -> Place:
    """What was chosen, else the default."""
    return _CHOSEN.get() or _default()


@cache
def _default() -> Place:
    """From the environment, which is read once: a documented exception for a library."""
    settings = Settings.read()
    policy = None if settings.policy is None else os.path.abspath(settings.policy)
    home = os.path.abspath(settings.microsandbox_home)
    return Place(store=os.path.abspath(settings.store), home=home, policy=policy)


def _folder(given: str | os.PathLike[str] | None, before: str) -> str:
    return before if given is None else os.path.abspath(given)
