"""A store that gives snapshots to microsandbox and takes them from it: artifact directories, archives, and documents in
another form.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from casstore.importing import Imported, ImportOptions, TreeReport
from casstore.manifest import Dialect, Manifest
from casstore.moving import MovingStore
from casstore.names import parse_name
from casstore.progress import Meter, Progress, silent
from casstore.snapshot import Snapshot

if TYPE_CHECKING:
    from casstore.archive.importing import ArchiveReport
    from casstore.archiving import Exported, ExportOptions


class ExchangingStore(MovingStore):
    """A store, and its imports and exports."""

    def import_directory(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        options: ImportOptions | None = None,
        progress: Progress = silent,
    ) -> Imported:
        """Take in the artifact directory of microsandbox at `path`, of whatever version: its document and its id stay
        what they are. Without a `name` it gets its own, or its directory's.

        Raises:
            NotFound, DocumentError, SourceError: there is none, or it is malformed.
            SizeMismatch, DigestMismatch: a disk is not what the document says.
            UnsupportedVersion: this version of casstore does not know it.
            AlreadyExists: the name stands for something else, and the options do not force.
            UntrustedContent: the options want signatures, and it has none.
            StorageError: the file system refused; the store is unchanged.
        """
        from casstore.importing import import_directory

        return import_directory(
            self._directory,
            self._derived,
            os.fspath(path),
            name=name,
            options=options or ImportOptions(),
            progress=progress,
        )

    def import_tree(
        self,
        path: str | os.PathLike[str],
        *,
        options: ImportOptions | None = None,
        progress: Progress = silent,
    ) -> TreeReport:
        """Take in every artifact in the subdirectories of `path`, as microsandbox keeps its snapshots: each for itself
        and under its directory's name, GROUP.MEMBER for a member of a group, and GROUP for the group's head. What is
        malformed, or whose name is taken, is skipped, and told.

        Raises:
            NotFound: there is no such directory.
            StorageError: the file system refused; what was taken in before stays.
        """
        from casstore.importing import import_tree

        options = options or ImportOptions()
        return import_tree(self._directory, self._derived, os.fspath(path), options=options, progress=progress)

    def import_(
        self,
        archive: str | os.PathLike[str] | int,
        *,
        name: str | None = None,
        options: ImportOptions | None = None,
        progress: Progress = silent,
    ) -> ArchiveReport:
        """Take in all snapshots of an archive, a file or a descriptor: one of microsandbox 0.4, 0.6 or 0.7, or the tar
        of an OCI layout, compressed with zstd or not. All of them get their names at once, or none does.

        The snapshot that the archive is about is called `name`, or as the archive says, or like its file; its ancestors
        as the archive says, or NAME-parent, NAME-parent-2 and so on, unless they have a name here.

        Raises:
            SourceError: it cannot be read.
            CorruptContent: it is damaged or hostile; UnsupportedVersion: of a form that this version does not know.
            AlreadyExists: the name stands for something else, and the options do not force.
            UntrustedContent: a snapshot in it is not signed as the options want it.
            UsageError: nothing in it gives a name.
            StorageError: the file system refused; the store is unchanged.
        """
        from casstore.archiving import import_archive

        self._catch_up()
        source = archive if isinstance(archive, int) else os.fspath(archive)
        options = options or ImportOptions()
        return import_archive(self._directory, self._catalog, source, name=name, options=options, progress=progress)

    def export(
        self,
        selector: str,
        out: str | os.PathLike[str] | int,
        *,
        options: ExportOptions | None = None,
        force: bool = False,
        progress: Progress = silent,
    ) -> Exported:
        """Write a snapshot, or it and its ancestors, into an archive: a new file, or a descriptor to write to. The form
        is one that every microsandbox reads, unless the options say another.

        Raises:
            AlreadyExists: the file exists, and `force` is not set.
            NotFound: there is no such snapshot; or an ancestor or the image is not here.
            UnsupportedVersion: the form cannot say what the snapshot is.
            CorruptContent, StorageError: nothing is at the file's name then, or what was there before.
        """
        from casstore.archiving import ExportOptions, export, line_of, new_archive

        options = options or ExportOptions()
        digest, names = self._resolve(selector)
        line = line_of(selector, self.lineage(selector)) if options.with_parents else []
        line.append((digest, next(iter(names), None)))
        without = {} if options.since is None else self.open_snapshot(options.since).needs
        parent = None
        if not options.with_parents and options.form in tuple(Dialect):
            snapshot = self.open_snapshot(selector)
            parent = self._parent_in(snapshot, Dialect(options.form), options.workers, progress)
        with ExitStack() as stack:
            fd = out
            if not isinstance(fd, int):
                path = os.fspath(fd)
                fd = stack.enter_context(new_archive(path, force=force, durability=self._directory.durability))
            return export(self._directory, line, fd, options, parent=parent, without=without.keys(), progress=progress)

    def document(self, selector: str, dialect: Dialect, *, workers: int = 0, progress: Progress = silent) -> Manifest:
        """A snapshot's manifest in this form: its own if it has that form, else converted, as are those of its
        ancestors here. A recorded integrity that the microsandbox of the form cannot verify becomes a sha256.

        Raises:
            UnsupportedVersion: the form cannot say it.
            NotFound, CorruptContent: as `get`; or a blob is missing or damaged, where content has to be read.
        """
        from casstore.microsandbox.output import in_dialect

        snapshot = self.open_snapshot(selector)
        if snapshot.manifest.dialect is dialect:
            return snapshot.manifest
        parent = self._parent_in(snapshot, dialect, workers, progress)
        meter = Meter(progress, "hashing", None)
        with self._directory.relying_on(snapshot.needs):
            return in_dialect(snapshot.artifact(), dialect, parent=parent, workers=workers, meter=meter)

    def _parent_in(self, snapshot: Snapshot, dialect: Dialect, workers: int, progress: Progress) -> Manifest | None:
        """The document of a snapshot's parent in a form that the snapshot is converted to; None where there is none."""
        from casstore.microsandbox.output import lineage_in_dialect

        if snapshot.manifest.dialect is dialect:
            return None
        line = [
            self._read(entry.digest, [parse_name(name) for name in entry.names])
            for entry in self._catalog.lineage(snapshot.digest)
        ]
        needs = {digest: size for each in line for digest, size in each.needs.items()}
        meter = Meter(progress, "hashing", None)
        with self._directory.relying_on(needs):
            ancestors = [each.artifact() for each in line]
            return lineage_in_dialect(ancestors, dialect, workers=workers, meter=meter)
