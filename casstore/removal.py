"""Taking names away, by hand or by a policy, and giving them back.

A removed ref lies in the trash until gc. What it stands for is decided while nobody else can change a ref: a snapshot
that was made meanwhile, or a name that moved, is not removed by mistake. All names of one command are one removal,
which `undo` takes back as a whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from casstore.artifact import load_documents
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
from casstore.refs import BrokenRef, Refs
from casstore.retention import Decision, Policy, decide, require_some, unmatched
from casstore.selection import entry_of, problems, resolve
from casstore.storedir import StoreDirectory
from casstore.trash import RemovedRef


@dataclass(frozen=True, slots=True)
class Removed:
    """What `remove` took away: names, and whether the snapshot is still there under another."""

    digest: Digest | None
    """What the names stood for; None for a broken one."""
    names: tuple[str, ...]
    remaining: tuple[str, ...]
    """The names that the snapshot still has."""
    for_good: tuple[str, ...] = ()
    """Those of `names` that `undo` cannot take back: on a full disk the trash had no room for them."""


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a policy says of each snapshot, and the names that were removed by it, or with `dry_run` would be."""

    dry_run: bool
    decisions: tuple[Decision, ...]
    removed: tuple[str, ...]
    for_good: tuple[str, ...] = ()
    """Those of `removed` that `undo` cannot take back, as of Removed."""
    broken: tuple[BrokenRef, ...] = ()
    """Names that lead to nothing usable, and were left alone."""
    unmatched: tuple[str, ...] = ()
    """Labels of the policy, as `key` or `key=value`, that no snapshot has."""


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A name that stands for its snapshot again, and what it was called when it was removed."""

    name: str
    removed: RemovedRef
    problem: str = ""
    """What is wrong with the snapshot, and what to do; empty where nothing is known to be."""
    is_back: bool = True
    """False where the problem is that not even its manifest is there: the name stays in the trash."""


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
        vanished = {ref.name: ref for ref in directory.vanished()}
        before = len(errors) + 1
        while 0 < len(errors) < before:
            before = len(errors)
            for selector in list(errors):
                try:
                    if selector in vanished and selector not in refs.names():
                        directory.trash.let_go(vanished[selector], stamp)
                        chosen = Removed(vanished.pop(selector).digest, (selector,), ())
                    else:
                        chosen = _choose(directory, derived, selector, force=force)
                        chosen = replace(chosen, for_good=tuple(refs.remove(chosen.names, stamp)))
                except CasstoreError as error:
                    errors[selector] = error
                else:
                    removed.append(chosen)
                    del errors[selector]
    if any(each.for_good for each in removed):
        directory.settle()  # nothing else tells that they are not lost
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
        shown = ", ".join(catalog.children(entry, most=5))
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
    grouping: str,
    labels: Mapping[str, str | None] | None,
    dry_run: bool,
    allow_none: bool,
) -> PruneReport:
    """See `Store.prune`. One that others name as their parent goes, too: they have their data. Broken ones are left
    alone, and so are those that miss a blob, which count for no rule: else they would be kept in place of sound ones.
    """

    def choose() -> tuple[list[Decision], list[SnapshotName]]:
        derived.catch_up()
        for problem in derived.broken:
            directory.refs.get(SnapshotName(problem.name))  # one that cannot be read may be a name of any of them
        entries = [entry for entry in derived.catalog.entries() if entry.manifest.has_labels(labels or {})]
        damaged = derived.catalog.damaged(lambda digest, size: _is_there(directory, digest, size))
        decisions = decide(entries, policy, now=now, grouping=grouping, damaged=damaged)
        if not allow_none:
            require_some(decisions)
        named = ((SnapshotName(name), each) for each in decisions if not each.keep for name in each.entry.names)
        return decisions, [name for name, each in named if directory.refs.get(name) == each.entry.digest]

    decisions, names = choose()  # a policy that makes no sense fails without a lock
    lost: list[str] = []
    if names and not dry_run:
        with directory.changing_refs() as refs:
            decisions, names = choose()
            lost = refs.remove(names, directory.trash.next_stamp())
    if lost:
        directory.settle()  # as in `remove`
    return PruneReport(
        dry_run,
        tuple(decisions),
        tuple(names),
        for_good=tuple(lost),
        broken=tuple(problems(derived)),
        unmatched=unmatched(decisions, policy),
    )


def _is_there(directory: StoreDirectory, digest: Digest, size: int) -> bool:
    try:
        return directory.blobs.size(digest) == size
    except CorruptContent:
        return False


def removed_refs(directory: StoreDirectory) -> list[RemovedRef]:
    """The removals that `undo` can be asked for, the last first: names of snapshots in the trash that do not stand for
    the same again already.
    """
    return [
        ref
        for ref in directory.trash.read()
        if ref.digest is not None and directory.refs.get(SnapshotName(ref.name)) != ref.digest
    ]


def undo(
    directory: StoreDirectory, selector: str | None = None, *, rename: str | None = None, dry_run: bool = False
) -> list[TakenBack]:
    """Take back the last removal, with all its names, or that of one name or digest: all of it, or nothing. `rename` is
    another name to give to it, where it is one. A damaged snapshot comes back as well, so that it can be mended or
    salvaged; only where its manifest is missing there is nothing to take back, and then the others come back without.

    Raises:
        NotFound: nothing was removed, or the manifest of all that was is missing.
        AlreadyExists: the name stands for something else meanwhile.
        UsageError: several names were removed, and there is one `rename`.
    """
    if dry_run:
        return _plan(directory, selector, rename)
    with directory.shared(), directory.changing_refs() as refs:
        taken = _plan(directory, selector, rename)
        back = [each for each in taken if each.is_back]
        refs.set_all({SnapshotName(each.name): each.removed.digest for each in back if each.removed.digest})
        if rename is None:
            _drop(directory, back)
    if rename is not None:
        directory.settle()  # else a catalog of before could say that the old name is lost
        _drop(directory, back)
    return taken


def _drop(directory: StoreDirectory, back: Sequence[TakenBack]) -> None:
    """Take out of the trash what is back. Where that fails, or never comes, it is not offered again either: its name
    stands for what it did.
    """
    with contextlib.suppress(StorageError):
        directory.trash.drop(each.removed for each in back)
        directory.trash.sync()


def _plan(directory: StoreDirectory, selector: str | None, rename: str | None) -> list[TakenBack]:
    """What an undo takes back, and what it cannot; raises as `undo`."""
    chosen = _last_removal(directory, selector)
    if rename is not None and len(chosen) > 1:
        raise UsageError(f"undo as {rename}: expected one name to take back, got {len(chosen)}; say which")
    looked: dict[Digest, int] = {}
    found: dict[Digest | None, tuple[str, bool]] = {}
    for ref in chosen:
        if ref.digest is not None and ref.digest not in found:
            found[ref.digest] = _look(directory, ref.digest, looked)
    taken = [TakenBack(parse_name(rename or ref.name), ref, *found[ref.digest]) for ref in chosen]
    if not any(each.is_back for each in taken):
        raise NotFound(f"undo {taken[0].removed.name}: {taken[0].problem}")
    for each in taken:
        if each.is_back:
            _require_free(directory.refs, each)
    return taken


def _last_removal(directory: StoreDirectory, selector: str | None) -> list[RemovedRef]:
    there = removed_refs(directory)
    if selector is None:
        if not there:
            raise NotFound("undo: nothing removed is in the trash; gc empties it")
        # What cannot be taken back must not keep what was removed before from it.
        last = next((ref for ref in there if ref.digest and _has(directory, ref.digest)), there[0])
        return [ref for ref in there if ref.stamp == last.stamp]
    wanted = parse_selector(selector)
    if isinstance(wanted, DigestPrefix):
        found = [ref for ref in there if ref.digest is not None and ref.digest.hex.startswith(wanted.hex)]
        different = sorted({str(ref.digest) for ref in found})
        if len(different) > 1:
            raise UsageError(f"undo {selector}: expected one snapshot, got {len(different)}: {', '.join(different)}")
        found = [ref for ref in found if ref.stamp == found[0].stamp]
    else:
        found = [ref for ref in there if ref.name == wanted]
        found = ([ref for ref in found if ref.has_vanished] or found)[:1]  # nobody has chosen to remove that
    if not found:
        what = "digest" if isinstance(wanted, DigestPrefix) else "name"
        raise NotFound(
            f"undo {selector}: no such {what} is in the trash; casstore undo --list shows all, and gc empties it"
        )
    return found


def _has(directory: StoreDirectory, digest: Digest) -> bool:
    try:
        return directory.blobs.size(digest) is not None
    except CorruptContent:
        return False


def _require_free(refs: Refs, wanted: TakenBack) -> None:
    try:
        refs.require_free(SnapshotName(wanted.name), unless=wanted.removed.digest)
    except AlreadyExists:
        raise AlreadyExists(
            f"undo {wanted.removed.name}: expected {wanted.name} to be free, got a name that is in use; take it back"
            f" under another one: casstore undo {wanted.removed.name} --as OTHER"
        ) from None


def _look(directory: StoreDirectory, digest: Digest, looked: dict[Digest, int]) -> tuple[str, bool]:
    """What is wrong with a snapshot, and whether it can be taken back all the same. Its blobs are looked for, but not
    read; those in `looked` (digest -> bytes) are known to be there, and others are added.
    """
    if not _has(directory, digest):
        return f"its manifest {digest} is missing, so there is nothing to take back; pull the snapshot again", False
    try:
        root = directory.resolve(str(digest))
        manifest, _ = load_documents(directory.blobs, root)
        for blob in manifest.children:
            if looked.get(blob.digest) != blob.size:
                directory.require({blob.digest: blob.size})
                looked[blob.digest] = blob.size
    except CasstoreError as error:
        advice = "casstore check --repair mends it, and casstore restore --salvage saves what is left"
        return f"the snapshot is damaged: {error}; {advice}", True
    return "", True
