"""Snapshots of a store in archives, out and in: which ones, from where, and to where."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from casstore import durable
from casstore.catalog import Entry
from casstore.dialects.sidecars import MAX_METADATA, METADATA_FILENAME
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import NotFound, SourceError, UsageError, storage_errors
from casstore.manifest import SCRATCH
from casstore.places import as_reference, open_source
from casstore.progress import Meter, Progress
from casstore.storedir import StoreDirectory, StoreOptions
from casstore.streams import fetch_all
from casstore.survey import survey
from casstore.transfer import TransferOptions, find
from casstore.trust.gate import gate_at
from casstore.trust.scopes import ARCHIVE

if TYPE_CHECKING:
    from casstore.archive.image import ImageFile
    from casstore.archive.importing import ArchiveReport, Source
    from casstore.archive.layoutwriting import Part
    from casstore.archive.writing import Outgoing
    from casstore.catalog import Catalog
    from casstore.frame import Buffer
    from casstore.importing import ImportOptions
    from casstore.manifest import Manifest
    from casstore.tar.writer import TarWriter

_ENDINGS: Final = (".tar.zst", ".tzst", ".tar", ".zst", ".msb")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What an archive holds, and how it is written."""

    form: str = "common"
    """One of archive.writing.Form: common, 0.4, 0.6, 0.7 or oci."""
    with_parents: bool = False
    """Those of its ancestors that are here, too; all of them must be."""
    image_cache: str | None = None
    """A microsandbox's cache, whose files of the snapshot's image are written, too. Not for `oci`."""
    with_image: bool = False
    """The image from its registry, too; for `oci` only."""
    compress: bool = True
    """With zstd; `oci` is never compressed once more."""
    since: str | None = None
    """A snapshot that the receiver has, whose blobs are left out; for `oci` only."""
    transfer: TransferOptions | None = None
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    digest: Digest
    """The artifact digest of the snapshot."""
    id: Digest
    """Of its document in the archive; another than here where the form or the recorded integrity is another."""
    names: Sequence[str | None]
    """What its ancestors and itself are called here, the oldest first."""
    form: str
    written: int
    """Bytes of the archive."""


class Counted:
    """Writes to a descriptor, and counts the bytes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.written: int = 0

    def __call__(self, data: Buffer) -> None:
        durable.write_all(self._fd, data)
        self.written += len(data)


def export(
    directory: StoreDirectory,
    snapshots: Sequence[tuple[Digest, str | None]],
    fd: int,
    options: ExportOptions,
    *,
    parent: Manifest | None,
    without: Collection[Digest],
    progress: Progress,
) -> Exported:
    """Write an archive of `snapshots` (digest, name), ancestors first, to `fd`, leaving out the blobs in `without`.
    `parent` is the document of the first one's, in the form of the archive. See Store.export.
    """
    from casstore.archive.writing import Form
    from casstore.pool import default_workers
    from casstore.tar.compression import Output
    from casstore.tar.writer import TarWriter

    form = Form(options.form)
    _check(form, options)
    counted = Counted(fd)
    workers = options.workers or default_workers()
    output = Output(counted, compress=options.compress and form is not Form.OCI, workers=workers)
    with ExitStack() as stack:
        needs: dict[Digest, int] = {}
        for digest, _ in snapshots:
            needs |= survey(directory, directory.resolve(str(digest)), referrers=options.form == Form.OCI).needs
        stack.enter_context(directory.relying_on(needs))
        outgoing = [_outgoing(directory, digest, name) for digest, name in snapshots]
        outgoing[0] = replace(outgoing[0], parent=parent)
        if form is Form.OCI:
            parts = [_part(directory, each) for each in outgoing]
            if options.with_image:
                parts.append(stack.enter_context(_image_part(outgoing[-1], options, directory.options)))
            document = outgoing[-1].artifact.config
            _write_layout(TarWriter(output.write), parts, without, progress)
        else:
            document = _write(form, TarWriter(output.write), outgoing, options, workers, progress)
        output.close()
    names = [name for _, name in snapshots]
    return Exported(snapshots[-1][0], document.id, names, options.form, counted.written)


def line_of(selector: str, lineage: Sequence[Entry | str]) -> list[tuple[Digest, str | None]]:
    """(digest, name) of all ancestors of a snapshot, the oldest first.

    Raises:
        NotFound: one of them is not in the store.
    """
    line: list[tuple[Digest, str | None]] = []
    for ancestor in lineage:
        if isinstance(ancestor, str):
            raise NotFound(
                f"export of {selector} with its parents: {ancestor}, which it comes from, is not in the store; bring it"
                " here first, or export without the parents"
            )
        line.insert(0, (ancestor.digest, next(iter(ancestor.names), None)))
    return line


def _check(form: str, options: ExportOptions) -> None:
    if form == "oci":
        if options.image_cache is not None:
            raise UsageError("export as oci: its image comes from the registry, not from a microsandbox's cache")
        return
    if options.since is not None or options.with_image:
        what = "leaving out what another snapshot has" if options.since is not None else "an image from its registry"
        raise UsageError(f"export: {what} is for the form oci only, got {form}")


def _outgoing(directory: StoreDirectory, digest: Digest, name: str | None) -> Outgoing:
    from casstore.archive.writing import Outgoing
    from casstore.artifact import Artifact

    artifact = Artifact.load(directory.blobs, directory.resolve(str(digest)))
    file = artifact.manifest.file(METADATA_FILENAME)
    sidecars = {} if file is None else {METADATA_FILENAME: fetch_all(directory, file, limit=MAX_METADATA)}
    return Outgoing(artifact, name, sidecars)


def _write(
    form: str,
    tar: TarWriter,
    outgoing: Sequence[Outgoing],
    options: ExportOptions,
    workers: int,
    progress: Progress,
) -> Manifest:
    from casstore.archive.image import image_files
    from casstore.archive.members import Members
    from casstore.archive.writing import Form, write

    image: Sequence[ImageFile] = ()
    if options.image_cache is not None:
        image = image_files(
            options.image_cache, outgoing[-1].artifact.config.image, with_manifest=Form(form) is not Form.V04
        )
    total = sum(disk.allocated for each in outgoing for disk in each.artifact.map.disks)
    return write(Form(form), Members(tar, workers, Meter(progress, "exporting", total)), outgoing, image)


def _part(directory: StoreDirectory, outgoing: Outgoing) -> Part:
    from casstore.archive.layoutwriting import Part

    root = outgoing.artifact.manifest.descriptor
    return Part(survey(directory, root, referrers=True), directory, outgoing.name or root.digest.hex)


@contextmanager
def _image_part(outgoing: Outgoing, options: ExportOptions, stores: StoreOptions) -> Iterator[Part]:
    """The image of a snapshot, by its digest, whatever its tag stands for now."""
    from casstore.archive.layoutwriting import Part

    image = outgoing.artifact.config.image
    if image == SCRATCH:
        raise UsageError(f"export of snapshot {outgoing.artifact.digest} with its image: it was made from none")
    reference = as_reference(f"{image.ref}@{image.manifest_digest}")
    with open_source(reference, options.transfer or TransferOptions(), stores) as source:
        root = find(source, reference, "export of the image")
        yield Part(survey(source, root), source, image.ref)


def _write_layout(tar: TarWriter, parts: Sequence[Part], without: Collection[Digest], progress: Progress) -> None:
    from casstore.archive.layoutwriting import size_of, write_layout

    meter = Meter(progress, "exporting", size_of(parts, without))
    write_layout(tar, parts, without=without, meter=meter)


@contextmanager
def new_archive(path: str, *, force: bool, durability: Durability) -> Iterator[int]:
    """A descriptor for the archive at `path`, which gets its name when it is complete and durable; as do the
    directories above it.
    """
    parent = os.path.dirname(path)
    if parent:
        with storage_errors(f"making {parent!r}"):
            durable.make_directories(parent, durability)
    with durable.new_file(path, replace=force, durability=durability) as fd, storage_errors(f"writing {path!r}", on=fd):
        yield fd


@contextmanager
def opened_archive(archive: str | int) -> Iterator[Source]:
    """An archive to read: a file or FIFO by its path, or a descriptor, which stays open.

    Raises:
        SourceError: it cannot be opened, or is something else.
    """
    from casstore.archive.importing import Source
    from casstore.tar.stream import reading

    if isinstance(archive, int):
        yield Source(reading(archive, "archive from standard input"), "archive from standard input", "")
        return
    subject = f"archive {archive!r}"
    try:
        fd = os.open(archive, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise SourceError(f"{subject}: {getattr(error, 'strerror', None) or error}") from error
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) and not stat.S_ISFIFO(info.st_mode):
            raise SourceError(f"{subject}: expected a file or pipe, got a directory or special file")
        os.set_blocking(fd, True)
        size = info.st_size if stat.S_ISREG(info.st_mode) else None
        yield Source(reading(fd, subject), subject, _stem(archive), size)
    finally:
        os.close(fd)


def _stem(path: str) -> str:
    """What an archive is called, without what says that it is one."""
    name = os.path.basename(path)
    ending = next((each for each in _ENDINGS if name.lower().endswith(each)), "")
    return name[: len(name) - len(ending)]


def import_archive(
    directory: StoreDirectory,
    catalog: Catalog,
    archive: str | int,
    *,
    name: str | None,
    options: ImportOptions,
    progress: Progress,
) -> ArchiveReport:
    """Take an archive in. See Store.import_."""
    from casstore.archive.importing import import_archive as take_in

    with opened_archive(archive) as source:
        return take_in(
            directory,
            catalog,
            source,
            name=name,
            force=options.force,
            strict=options.strict,
            naming=options.naming,
            options=options.capture,
            gate=gate_at(ARCHIVE, options.trust),
            progress=progress,
        )
