"""What snapshots lie around: stores and OCI layouts, read without a catalog and without changing anything."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping

from casstore import marker
from casstore.digest import Digest
from casstore.errors import CasstoreError, CorruptContent, StorageError
from casstore.layout import LayoutTarget, check_marker
from casstore.oci import Descriptor, manifest_of
from casstore.snapshot import Snapshot
from casstore.storedir import StoreDirectory, StoreOptions

Report = Callable[[str, CasstoreError], object]
"""Takes the path of what was skipped, and why."""


def list_dir(path: str | os.PathLike[str], *, report: Report | None = None) -> list[Snapshot]:
    """Every snapshot in the subdirectories of `path` that are stores or OCI layouts; none for a missing directory.

    What is malformed is passed to `report`, and skipped.
    """
    found: list[Snapshot] = []
    with contextlib.suppress(FileNotFoundError):
        try:
            names = sorted(os.listdir(path))
        except (NotADirectoryError, PermissionError) as error:
            raise StorageError(f"{os.fspath(path)!r}: {error.strerror}") from error
        for name in names:
            place = os.path.join(os.fspath(path), name)
            if os.path.isdir(place):
                found += _snapshots_in(place, report or (lambda _path, _error: None))
    return found


def is_store(path: str) -> bool:
    """Whether `path` looks like a store: refs/ and blobs/ make one, and so do the marks of one that is damaged."""
    both = os.path.isdir(os.path.join(path, "refs")) and os.path.isdir(os.path.join(path, "blobs"))
    return both or marker.is_ours(path)


@contextlib.contextmanager
def nothing_to_keep(_: Mapping[Digest, int]) -> Iterator[None]:
    """For content that no gc touches."""
    yield


def _snapshots_in(place: str, tell: Report) -> Iterator[Snapshot]:
    """The snapshots of one store or layout; nothing for another directory."""
    named: dict[str, Descriptor] = {}
    try:
        if is_store(place):
            directory = StoreDirectory.looked_at(place, StoreOptions())
            blobs, paths = directory.blobs, directory.refs.path
            refs, broken = directory.read_refs()
            for problem in broken:
                tell(os.path.join(paths, problem.name), CorruptContent(problem.problem))
            for name, digest in refs.items():
                size = blobs.size(digest) or 0
                named[name] = manifest_of(digest, size)
        elif check_marker(place):
            marker.require_readable(place)
            layout = LayoutTarget(place)
            blobs, paths, named = layout.blobs, None, layout.tags()
        else:
            return
    except CasstoreError as error:
        tell(place, error)
        return
    for tag, root in sorted(named.items()):
        path = place if paths is None else os.path.join(paths, tag)
        try:
            yield Snapshot.read(path, blobs, root, nothing_to_keep, [tag])
        except CasstoreError as error:
            tell(f"{path} ({tag})", error)
