"""Taking names away, by hand or by a policy, and giving them back.

A removed ref lies in the trash until gc. What it stands for is decided while nobody else can change a ref: a snapshot
that was made meanwhile, or a name that moved, is not removed by mistake. All names of one command are one removal,
which `undo` takes back as a whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from casstore.artifact import Artifact
from casstore.derived import Derived
from casstore.digest import Digest
from casstore.errors import (
    AlreadyExists,
    CasstoreError,
    CorruptContent,
    HasChildren,
    NotFound,
    StorageError,
    UsageError,
)
from casstore.names import DigestPrefix, SnapshotName, parse_name, parse_selector
from casstore.refs import Refs
from casstore.retention import Decision, Policy, decide
from casstore.selection import entry_of, problems, resolve
from casstore.storedir import StoreDirectory
from casstore.trash import RemovedRef


@dataclass(frozen=True, slots=True)
class Removed:
    """What `remove` took away: names, and whether the snapshot is still there under another."""

    digest: Digest | None
    names: tuple[str, ...]
    remaining: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a policy says of each snapshot, and the names that were removed by it, or with `dry_run` would be."""

    dry_run: bool
    decisions: tuple[Decision, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A name that stands for its snapshot again, and what it was called when it was removed."""

    name: str
    removed: RemovedRef


def remove(
    directory: StoreDirectory, derived: Derived, selectors: Sequence[str], *, force: bool
) -> tuple[list[Removed], list[CasstoreError]]:
    """Remove names, or by digest all names of a snapshot; also the errors of those that cannot be removed. They may be
    given in any order: a parent can go once its children are gone.
    """
    removed: list[Removed] = []
    errors: dict[str, CasstoreError] = dict.fromkeys(selectors, NotFound())
    with directory.changing_refs() as refs:
        stamp = directory.trash.next_stamp()
        before = len(errors) + 1
        while 0 < len(errors) < before:
            before = len(errors)
            for selector in list(errors):
                try:
                    chosen = _choose(directory, derived, selector, force=force)
                    refs.remove(chosen.names, stamp)
                except CasstoreError as error:
                    errors[selector] = error
                else:
                    removed.append(chosen)
                    del errors[selector]
    return removed, list(errors.values())


def _choose(directory: StoreDirectory, derived: Derived, selector: str, *, force: bool) -> Removed:
    """What is to be removed for a selector.

    Raises:
        NotFound: there is no such name or digest.
        HasChildren: it is the last name of a snapshot that others name as their parent, and `force` is not set.
    """
    wanted = parse_selector(selector)
    by_name = not isinstance(wanted, DigestPrefix)
    derived.catch_up()
    if by_name and any(problem.name == wanted for problem in problems(derived)):
        return Removed(None, (str(wanted),), ())
    digest, names = resolve(directory, derived, selector)
    names, remaining = (names[:1], names[1:]) if by_name else (names, [])
    catalog, entry = derived.catalog, entry_of(derived.catalog, digest)
    twins = [other for other in catalog.find(entry.id.hex) if other != digest]
    if entry.children and not remaining and not twins and not force:
        shown = ", ".join(catalog.children(entry.id, most=5))
        shown += f" and {entry.children - 5} more" if entry.children > 5 else ""
        raise HasChildren(
            f"snapshot {selector}: {shown} in the store name it as their parent; remove them first, or force with -f"
            " (they keep their data)"
        )
    return Removed(digest, tuple(names), tuple(remaining))


def prune(
    directory: StoreDirectory,
    derived: Derived,
    policy: Policy,
    *,
    now: datetime,
    grouping: str = "source",
    labels: Mapping[str, str | None] | None = None,
    dry_run: bool = False,
) -> PruneReport:
    """Remove all names of the snapshots that `policy` does not keep; only those with all of `labels` are considered.
    One that others name as their parent goes, too: they have their data. Broken ones are left alone.

    Raises:
        UsageError: the policy would keep nothing, or the grouping is unknown.
    """

    def choose() -> tuple[list[Decision], list[SnapshotName]]:
        derived.catch_up()
        entries = [entry for entry in derived.catalog.entries() if entry.manifest.has_labels(labels or {})]
        decisions = decide(entries, policy, now=now, grouping=grouping)
        named = ((SnapshotName(name), each) for each in decisions if not each.keep for name in each.entry.names)
        return decisions, [name for name, each in named if directory.refs.get(name) == each.entry.digest]

    decisions, names = choose()  # a policy that makes no sense fails without a lock
    if names and not dry_run:
        with directory.changing_refs() as refs:
            decisions, names = choose()
            refs.remove(names, directory.trash.next_stamp())
    return PruneReport(dry_run, tuple(decisions), tuple(names))


def removed_refs(directory: StoreDirectory) -> list[RemovedRef]:
    """The removals that `undo` can be asked for, the last first: names of snapshots in the trash that do not stand for
    the same again already.
    """
    return [
        ref
        for ref in directory.trash.read()
        if ref.digest is not None and directory.refs.get(SnapshotName(ref.name)) != ref.digest
    ]


def undo(directory: StoreDirectory, name: str | None = None, *, rename: str | None = None) -> list[TakenBack]:
    """Take back the last removal, with all its names, or that of `name` alone: all of it, or nothing. `rename` is
    another name to give to it, where it is one.

    Raises:
        NotFound: nothing was removed, or gc has collected something that the snapshot needs.
        CorruptContent: the snapshot's manifest is damaged, or a blob has not its size.
        AlreadyExists: the name stands for something else meanwhile.
        UsageError: several names were removed, and there is one `rename`.
    """
    with directory.shared(), directory.changing_refs() as refs:
        chosen = _last_removal(directory, name)
        if rename is not None and len(chosen) > 1:
            raise UsageError(f"undo as {rename}: expected one name to take back, got {len(chosen)}; say which")
        taken = [TakenBack(parse_name(rename or ref.name), ref) for ref in chosen]
        for each in taken:
            _require_free(refs, each)
        for digest in {ref.digest for ref in chosen}:
            _require_whole(directory, digest, chosen)
        _give_back(directory, refs, taken)
    return taken


def _last_removal(directory: StoreDirectory, name: str | None) -> list[RemovedRef]:
    there = removed_refs(directory)
    if name is None:
        if not there:
            raise NotFound("undo: nothing removed is in the trash; gc empties it")
        return [ref for ref in there if ref.stamp == there[0].stamp]
    found = next((ref for ref in there if ref.name == parse_name(name)), None)
    if found is None:
        raise NotFound(f"undo {name}: no such name is in the trash; casstore undo --list shows all, and gc empties it")
    return [found]


def _require_free(refs: Refs, wanted: TakenBack) -> None:
    try:
        refs.require_free(SnapshotName(wanted.name), unless=wanted.removed.digest)
    except AlreadyExists:
        raise AlreadyExists(
            f"undo {wanted.removed.name}: expected {wanted.name} to be free, got a name that is in use; take it back"
            f" under another one: casstore undo {wanted.removed.name} --as OTHER"
        ) from None


def _require_whole(directory: StoreDirectory, digest: Digest | None, chosen: Sequence[RemovedRef]) -> None:
    """Raise unless everything that a snapshot needs is stored. Call with the store's lock held."""
    shown = ", ".join(ref.name for ref in chosen if ref.digest == digest)
    try:
        root = directory.resolve(str(digest))
        artifact = Artifact.load(directory.blobs, root)
        directory.require({blob.digest: blob.size for blob in (root, *artifact.manifest.children)})
    except NotFound as error:
        raise NotFound(f"undo {shown}: gc has collected what it needs: {error}") from error
    except CorruptContent as error:
        raise CorruptContent(f"undo {shown}: the snapshot is damaged: {error}") from error


def _give_back(directory: StoreDirectory, refs: Refs, taken: Sequence[TakenBack]) -> None:
    """Set the refs, and only then take them out of the trash. Where that fails, or never comes, they are not offered
    again either: their names stand for what they did.
    """
    done: list[TakenBack] = []
    try:
        for each in taken:
            if each.removed.digest is not None:
                refs.set(SnapshotName(each.name), each.removed.digest, force=False)
                done.append(each)
    except BaseException:
        with contextlib.suppress(CasstoreError):
            refs.remove([each.name for each in done], taken[0].removed.stamp)
        raise
    with contextlib.suppress(StorageError):
        directory.trash.drop(each.removed for each in taken)
        directory.trash.sync()
