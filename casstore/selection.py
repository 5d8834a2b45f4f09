"""What a selector, a name, digest, id or prefix, stands for in a store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

from casstore.catalog import Catalog, Entry
from casstore.derived import Derived
from casstore.digest import Digest
from casstore.errors import CasstoreError, CorruptContent, NotFound, UsageError
from casstore.names import DigestPrefix, SnapshotName, is_reserved, nearest, parse_selector
from casstore.refs import BrokenRef
from casstore.storedir import StoreDirectory


def resolve(directory: StoreDirectory, derived: Derived, selector: str) -> tuple[Digest, Sequence[SnapshotName]]:
    """A selector's digest, and its names: the one that was given first.

    Raises:
        NotFound: there is none.
        UsageError: the prefix or id belongs to several snapshots, or the selector is none.
        CorruptContent: the name is broken.
    """
    wanted = parse_selector(selector)
    derived.catch_up()
    if not isinstance(wanted, DigestPrefix):
        digest = directory.refs.get(wanted)
        if digest is None or not derived.catalog.has(digest):
            problem = next((each.problem for each in problems(derived) if each.name == wanted), None)
            if problem is not None:
                raise CorruptContent(f"snapshot {wanted}: {problem}; remove the name, or pull it again with -f")
            hint = f"; a digest is written sha256:{wanted}" if re.fullmatch("[0-9a-f]{6,64}", wanted) else ""
            place = repr(directory.path)
            hint += _meant(directory, wanted)
            raise NotFound(f"snapshot {wanted}: there is no such name in {place}{hint}; casstore list shows all")
        return digest, [wanted, *(name for name in names_of(directory, derived.catalog, digest) if name != wanted)]
    found = derived.catalog.find(wanted.hex)
    if not found:
        raise NotFound(f"snapshot {wanted}: no digest or id in {directory.path!r} starts so; casstore list shows all")
    if len(found) > 1:
        raise UsageError(f"snapshot {wanted}: expected one, got {len(found)}: {', '.join(map(str, found))}")
    return found[0], names_of(directory, derived.catalog, found[0])


def resolve_ref(directory: StoreDirectory, selector: str) -> tuple[Digest, Sequence[SnapshotName]]:
    """As `resolve`, by the refs alone: for snapshots that the catalog cannot read. A prefix is that of a digest."""
    wanted = parse_selector(selector)
    refs, broken = directory.read_refs()
    if isinstance(wanted, DigestPrefix):
        names = [name for name, digest in refs.items() if digest.hex.startswith(wanted.hex)]
    else:
        names = [wanted] if wanted in refs else []
    found = {refs[name] for name in names}
    if len(found) > 1:
        raise UsageError(f"snapshot {wanted}: expected one, got {len(found)}: {', '.join(sorted(map(str, found)))}")
    if not found:
        problem = next((f"{each.problem}; pull it again with -f" for each in broken if each.name == wanted), None)
        if problem is not None:
            raise CorruptContent(f"snapshot {wanted}: {problem}")
        hint = "" if isinstance(wanted, DigestPrefix) else _meant(directory, wanted)
        raise NotFound(f"snapshot {wanted}: there is no such name or digest in {directory.path!r}{hint}")
    return found.pop(), sorted(names)


def _meant(directory: StoreDirectory, wanted: SnapshotName) -> str:
    """Where a name may have gone: it was removed, or another one was meant."""
    with suppress(CasstoreError):
        if any(ref.name == wanted and ref.digest is not None for ref in directory.trash.read()):
            return f"; it was removed, and casstore undo {wanted} takes it back"
    with suppress(CasstoreError):
        names = sorted(directory.refs.names())
        close = nearest(wanted, (name for name in names if name[:1].isalnum() and not is_reserved(name)))
        if close is not None:
            return f"; did you mean {close}?"
    return ""


def names_of(directory: StoreDirectory, catalog: Catalog, digest: Digest) -> Sequence[SnapshotName]:
    """What stands for it: the catalog says where to look, and the refs are asked."""
    return [name for name in catalog.names(digest) if directory.refs.get(name) == digest]


def entry_of(catalog: Catalog, digest: Digest) -> Entry:
    """What the catalog knows of a snapshot.

    Raises:
        NotFound: it is not there any more.
    """
    entries = catalog.entries([digest])
    if not entries:
        raise NotFound(f"snapshot {digest}: it is not in the store")
    return entries[0]


def problems(derived: Derived) -> Sequence[BrokenRef]:
    """Refs that lead to no usable snapshot, and why, as they were when the refs were read last."""
    failed = (BrokenRef(name, str(error)) for name, error in derived.failed.items())
    return sorted([*derived.broken, *failed])
