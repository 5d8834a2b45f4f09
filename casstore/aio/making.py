"""The calls that make snapshots, archives and directories: all that they are asked for is there at the end, or nothing.

What goes to or comes from a path takes its way through a store of its own, which does not outlive the call.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from casstore.aio.errors import InvalidConfigError, SandboxNotFoundError
from casstore.aio.looking import Found, at_path, find, list_stored
from casstore.aio.place import Place
from casstore.aio.scratch import scratch_store
from casstore.aio.translation import in_its_words, not_found
from casstore.archiving import ExportOptions
from casstore.catalog import Entry
from casstore.config import SandboxInput, SnapshotConfig, SnapshotDestination
from casstore.errors import AlreadyExists, NotFound, SandboxNotFound
from casstore.importing import ImportOptions
from casstore.manifest import Dialect, Manifest
from casstore.microsandbox.home import Home
from casstore.progress import Progress
from casstore.reference import LayoutReference
from casstore.store import Store

if TYPE_CHECKING:
    from casstore.capture import CaptureOptions

_ON_ITS_WAY = "snapshot"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `create` is asked for."""

    sandbox: str
    name: str | None
    path: str | None
    labels: Mapping[str, str]
    force: bool
    record_integrity: bool


def create(place: Place, wanted: Wanted, progress: Progress) -> Found:
    """Take a snapshot of a stopped sandbox."""
    taken = place.path_of(wanted.name or "") if wanted.path is None else os.path.abspath(wanted.path)
    with in_its_words(taken=taken):
        _require_sandbox(place.home, wanted.sandbox)  # is asked for first, as in 0.4.4
        _require_good_name(wanted.name)
        if wanted.path == "":
            raise InvalidConfigError("invalid config: snapshot path must not be empty")
        config = SnapshotConfig(
            source=SandboxInput(place.home, wanted.sandbox),
            destination=SnapshotDestination(name=wanted.name or _ON_ITS_WAY),
            labels=tuple(wanted.labels.items()),
            force=wanted.force,
            record_integrity=place.integrity if wanted.record_integrity else None,
        )
        if wanted.path is None:
            with place.open(create=True) as store:
                made = store.create(config, progress=progress)
            return Found(taken, made.manifest, made.digest)
        if os.path.lexists(taken):
            if not wanted.force:
                raise AlreadyExists(taken)
            os.listdir(taken)
        with scratch_store(taken) as store:
            made = store.create(config, options=_quick(), progress=progress)
            document = store.document(_ON_ITS_WAY, Dialect.V04)
            made.restore(taken, document=document, force=wanted.force, progress=progress)
    return at_path(taken)


def _require_sandbox(home: str, name: str) -> None:
    try:
        Home(home).sandbox(name)
    except SandboxNotFound as error:
        raise SandboxNotFoundError(f"sandbox not found: {name}") from error


def _require_good_name(name: str | None) -> None:
    if name is not None and not name:
        raise InvalidConfigError("invalid config: snapshot name must not be empty")
    if name is not None and ("/" in name or name.startswith(".")):
        text = f"snapshot name must be a bare identifier, not a path: '{name}'"
        raise InvalidConfigError(f"invalid config: {text}")


def export(
    place: Place, text: str, out: str, options: ExportOptions, progress: Progress, *, with_image: bool
) -> tuple[()]:
    """Write an archive."""
    found = find(place, text)
    with in_its_words():
        if with_image:
            options = replace(options, image_cache=Home(place.home).cache())
        if found.stored is not None:
            with place.open() as store:
                if options.with_parents:
                    _require_parents(store.lineage(str(found.stored)))
                _write(store, str(found.stored), out, options, progress)
            return ()
        with scratch_store(out) as store:
            proven = ImportOptions(strict=True, capture=_quick())
            store.import_directory(found.path, name=_ON_ITS_WAY, options=proven, progress=progress)
            if options.with_parents and found.manifest.parent is not None:
                _bring_parents(place, store, found.manifest.parent)
            _write(store, _ON_ITS_WAY, out, options, progress)
    return ()


def _write(store: Store, selector: str, out: str, options: ExportOptions, progress: Progress) -> None:
    if os.path.isdir(out):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), out)
    store.export(selector, out, options=options, force=True, progress=progress)


def _require_parents(line: Sequence[Entry | str]) -> None:
    if line and isinstance(line[-1], str):
        text = f"parent {line[-1]} not in local index; ship it alongside or re-export with --with-parents"
        raise not_found(text)


def _bring_parents(place: Place, store: Store, parent: str) -> None:
    """Copy a snapshot, told as children tell it, and its ancestors from the store of the calls."""
    line: list[Entry | str] = [parent]
    with suppress(NotFound), place.open() as source:
        found = next((each for each in source.list() if each.manifest.known_as == parent), None)
        if found is not None:
            line = [found.entry, *source.lineage(str(found.digest))]
    _require_parents(line)
    for n, entry in enumerate(line):
        if isinstance(entry, Entry):
            store.pull(LayoutReference(place.store, digest=entry.digest), name=f"parent-{n}")


def import_(place: Place, archive: str, folder: str | None, progress: Progress) -> Found:
    """Take an archive in, or write what it holds into directories in `folder`; gives what it is about."""
    folder = None if folder is None else os.path.abspath(folder)
    with in_its_words():
        options = ImportOptions(naming=name_of, trust=place.trust())
        if folder is None:
            with place.open(create=True) as store:
                head = store.import_(archive, options=options, progress=progress).head
            return Found(place.path_of(head.name), head.snapshot.manifest, head.snapshot.root.digest)
        is_new = not os.path.lexists(folder)
        made: list[str] = []
        try:
            with scratch_store(folder) as store:
                report = store.import_(archive, options=options, progress=progress)
                for each in reversed([report.head, *report.parents]):
                    document = store.document(each.name, Dialect.V04)
                    path = os.path.join(folder, name_of(document))
                    made += [] if os.path.lexists(path) else [path]
                    store.open_snapshot(each.name).restore(path, document=document, force=True, progress=progress)
        except BaseException:
            for path in made:
                shutil.rmtree(path, ignore_errors=True)
            if is_new:
                with suppress(OSError):
                    os.rmdir(folder)
            raise
    return at_path(path)


def name_of(manifest: Manifest) -> str:
    """The name that 0.4.4 gives to what it imports."""
    return f"sha256-{manifest.id.hex[:16]}"


def reindex(place: Place, folder: str | None, progress: Progress) -> int:
    """Make the catalog again; or take the artifact directories in `folder` into the store, each under its own name, or
    one made from its digest where that stands for another snapshot. Says how many there are.
    """
    with in_its_words():
        if folder is None or place.holds(folder):
            with suppress(NotFound), place.open() as store:
                store.reindex()
            return len(list_stored(place))
        if not os.path.lexists(folder):
            return 0
        os.listdir(folder)
        options = ImportOptions(trust=place.trust())
        with place.open(create=True) as store:
            report = store.import_tree(folder, options=options, progress=progress)
            taken = [path for path, error in report.skipped if isinstance(error, AlreadyExists)]
            for path in taken:
                name = name_of(at_path(path).manifest)
                store.import_directory(path, name=name, options=options, progress=progress)
    return len(report.imported) + len(taken)


def _quick() -> CaptureOptions:
    """For what is only on its way."""
    from casstore.capture import CaptureOptions

    return CaptureOptions(level=1)
