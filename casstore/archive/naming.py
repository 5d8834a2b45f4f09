"""What the snapshots of an archive are called in a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from casstore.digest import Digest
from casstore.errors import UsageError
from casstore.names import MAX_NAME, SnapshotName, as_name, parse_name


def head_name(wanted: str | None, hints: Sequence[str | None], subject: str) -> SnapshotName:
    """What the snapshot that an archive is about is called: as wanted, else the first hint that gives a name.

    Raises:
        InvalidName: what is wanted is no name.
        UsageError: no hint gives one.
    """
    if wanted is not None:
        return parse_name(wanted)
    for hint in hints:
        name = None if hint is None else as_name(hint)
        if name is not None:
            return name
    raise UsageError(f"{subject}: nothing in it gives a name; give one with --name")


def parent_names(
    head: SnapshotName,
    parents: Sequence[tuple[Digest, str | None]],
    *,
    stored: Callable[[Digest], Sequence[SnapshotName]],
    is_free: Callable[[SnapshotName], bool],
) -> Mapping[Digest, tuple[SnapshotName, bool]]:
    """What the others are called, nearest first: by the name that the very same artifact has here already, else by
    their hint, else HEAD-parent, HEAD-parent-2 and so on; and whether that name is new. None is taken from another.
    """
    found: dict[Digest, tuple[SnapshotName, bool]] = {}
    given = {head}
    number = 1
    for digest, hint in parents:
        if digest in found:
            continue
        here = stored(digest)
        if here:
            found[digest] = here[0], False
            continue
        name = None if hint is None else as_name(hint)
        while name is None or name in given or not is_free(name):
            suffix = "-parent" if number == 1 else f"-parent-{number}"
            name = parse_name(head[: MAX_NAME - len(suffix)].rstrip("._-") + suffix)
            number += 1
        given.add(name)
        found[digest] = name, True
    return found
