"""What is where: the calls that change nothing. Each opens the store for itself, in a thread of its own, so any number
may run at the same time. Everything that is raised is the SDK's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from casstore.aio.artifacts import list_artifacts, look_at, verify_artifact
from casstore.aio.errors import InvalidConfigError, MicrosandboxError
from casstore.aio.place import Place
from casstore.aio.translation import in_its_words, not_found
from casstore.digest import Digest
from casstore.errors import NotFound
from casstore.manifest import Manifest, created_time
from casstore.microsandbox.directory import ArtifactDirectory
from casstore.names import is_path
from casstore.progress import Progress
from casstore.snapshot import SnapshotHandle

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Found:
    """A snapshot, in the store or in an artifact directory."""

    path: str
    manifest: Manifest
    stored: Digest | None = None
    """Its artifact digest in the store."""
    directory: ArtifactDirectory | None = None

    @property
    def id(self) -> str:
        """What microsandbox calls its digest."""
        return str(self.manifest.id)

    @property
    def milliseconds(self) -> float:
        """When it was taken, since 1970; when it came here, where its manifest does not say so."""
        time = created_time(self.manifest.created_at)
        if time is not None:
            return float((time - _EPOCH) // timedelta(milliseconds=1))
        try:
            return float(os.lstat(self.path).st_mtime_ns // 1_000_000)
        except OSError:
            return 0.0


def find(place: Place, text: str) -> Found:
    """Open a snapshot by name, digest or path."""
    if not text:
        raise InvalidConfigError("invalid config: snapshot path or name must not be empty")
    selector = selector_of(place, text)
    if selector is None:
        return at_path(text)
    with in_its_words(missing=place.path_of(text) if selector == text else text), place.open() as store:
        snapshot = store.open_snapshot(selector)
        return Found(place.path_of(snapshot.names[0]), snapshot.manifest, snapshot.digest)


def get(place: Place, text: str) -> Found:
    """As `find`, but what is in the store is not read."""
    selector = selector_of(place, text)
    if selector is None:
        try:
            return at_path(text)
        except MicrosandboxError as error:
            raise not_found(text) from error
    with in_its_words(missing=text), place.open() as store:
        return _named(place, store.get(selector))


def list_stored(place: Place) -> Sequence[Found]:
    """Every name, newest snapshot first; none where there is no store."""
    with in_its_words():
        try:
            with place.open() as store:
                return [_named(place, handle) for handle in store.list()]
        except NotFound:
            return []


def list_dir(place: Place, folder: str) -> Sequence[Found]:
    """The snapshots in the subdirectories of a directory; in that of `path`s of the store, those of the store."""
    with in_its_words():
        if place.holds(folder):
            return list_stored(place)
        return [_outside(artifact) for artifact in list_artifacts(folder)]


def verify(place: Place, found: Found, progress: Progress) -> dict[str, Any]:
    """Compare a snapshot's content with what was recorded."""
    if found.directory is not None:
        upper = verify_artifact(found.directory, progress)
    else:
        with in_its_words(missing=found.path), place.open() as store:
            status = store.verify(str(found.stored), progress=progress).upper
        upper = {"kind": status.kind}
        if status.algorithm is not None:
            upper |= {"algorithm": status.algorithm, "digest": status.digest}
    return {"digest": found.id, "path": found.path, "upper": upper}


def selector_of(place: Place, text: str) -> str | None:
    """What the store calls the snapshot; None for one that is not in there."""
    with in_its_words():
        return place.name_at(text) if is_path(text) else text


def at_path(path: str) -> Found:
    """The artifact directory at a path."""
    return _outside(look_at(path))


def _outside(artifact: ArtifactDirectory) -> Found:
    return Found(artifact.path, artifact.manifest, directory=artifact)


def _named(place: Place, handle: SnapshotHandle) -> Found:
    return Found(place.path_of(handle.name), handle.manifest, handle.digest)
