"""The two classes of the SDK, whose calls start at once and give futures."""

from __future__ import annotations

import builtins
import os
from asyncio import Future
from collections.abc import Mapping
from typing import Any, Self, TypeAlias, TypeVar

from casstore.aio import looking, making, removing
from casstore.aio.looking import Found
from casstore.aio.place import current
from casstore.aio.running import start
from casstore.archiving import ExportOptions

Kind = TypeVar("Kind")
Path: TypeAlias = str | os.PathLike[str]


class Snapshot:
    """A snapshot in the store, or in an artifact directory; what is known of it when it is opened."""

    __slots__ = ("_found",)
    _found: Found

    def __new__(cls) -> Self:
        raise TypeError("No constructor defined for Snapshot")

    @staticmethod
    def create(
        source_sandbox: str,
        *,
        name: str | None = None,
        path: Path | None = None,
        labels: Mapping[str, str] | None = None,
        force: bool = False,
        record_integrity: bool = False,
        from_sandbox: str | None = None,
        dest_dir: Path | None = None,
    ) -> Future[Snapshot]:
        """Take a snapshot of a stopped sandbox: into the store under `name`, or as an artifact directory of 0.4 at
        `path`. With `force` what has the name is kept until the new one is complete.

        In 0.6's words: `create(name, from_sandbox=...)`, and `dest_dir` for a directory DEST_DIR/NAME.

        Raises:
            ValueError: neither or both of name and path.
            SandboxNotFoundError, InvalidConfigError: no sandbox, name or image to take one of.
            MicrosandboxError: the sandbox is not stopped, its disk is missing, or the name is taken.
        """
        source = _text("source_sandbox", source_sandbox)
        name = None if name is None else _text("name", name)
        where = None if path is None else _path("path", path)
        pairs = _labels(labels)
        force, record = _flag("force", force), _flag("record_integrity", record_integrity)
        if from_sandbox is not None:
            source, name = _text("from_sandbox", from_sandbox), source
            if dest_dir is not None:
                where, name = os.path.join(_path("dest_dir", dest_dir), name), None
        if name is not None and where is not None:
            raise ValueError("Snapshot.create: pass either name= or path=, not both")
        if name is None and where is None:
            raise ValueError("Snapshot.create: name= or path= is required")
        wanted = making.Wanted(source, name, where, pairs, force=force, record_integrity=record)
        place = current()
        return start(lambda progress: _snapshot(making.create(place, wanted, progress)))

    @staticmethod
    def open(path_or_name: str) -> Future[Snapshot]:
        """Open a snapshot by name, digest or path: its documents, and that its disk is there with its size.

        Raises:
            MicrosandboxError: there is none, or it is damaged.
        """
        text, place = _text("path_or_name", path_or_name), current()
        return start(lambda _: _snapshot(looking.find(place, text)))

    @staticmethod
    def get(name_or_digest: str) -> Future[SnapshotHandle]:
        """A handle by name, digest or path.

        Raises:
            MicrosandboxError: there is none.
        """
        text, place = _text("name_or_digest", name_or_digest), current()
        return start(lambda _: _handle(looking.get(place, text)))

    @staticmethod
    def list() -> Future[builtins.list[SnapshotHandle]]:
        """Every name in the store, newest snapshot first."""
        place = current()
        return start(lambda _: [_handle(found) for found in looking.list_stored(place)])

    @staticmethod
    def list_dir(dir: Path) -> Future[builtins.list[Snapshot]]:  # noqa: A002  (the SDK's name)
        """The snapshots in the subdirectories of a directory; what is malformed is left out.

        Raises:
            IoError: it is no directory.
        """
        where, place = _path("dir", dir), current()
        return start(lambda _: [_snapshot(found) for found in looking.list_dir(place, where)])

    @staticmethod
    def remove(path_or_name: str, *, force: bool = False) -> Future[tuple[()]]:
        """Remove a name, all names of a digest, or the artifact directory at a path.

        Raises:
            MicrosandboxError: there is none, or others in the store name it as their parent and `force` is not set.
        """
        text, force, place = _text("path_or_name", path_or_name), _flag("force", force), current()
        return start(lambda _: removing.remove(place, text, force=force))

    @staticmethod
    def reindex(dir: Path | None = None) -> Future[int]:  # noqa: A002
        """Make the store's catalog again; or take the artifact directories in `dir` into the store. Says how many."""
        where, place = None if dir is None else _path("dir", dir), current()
        return start(lambda progress: making.reindex(place, where, progress))

    @staticmethod
    def export(
        name_or_path: str,
        out: Path,
        *,
        with_parents: bool = False,
        with_image: bool = False,
        plain_tar: bool = False,
    ) -> Future[tuple[()]]:
        """Write an archive in 0.4's layout, which every version of microsandbox reads; the digest stays as it is.

        Raises:
            MicrosandboxError: there is no such snapshot, or none of a parent.
            IoError: the file cannot be written.
        """
        text, file, place = _text("name_or_path", name_or_path), _path("out", out), current()
        options = ExportOptions(
            form="0.4",
            with_parents=_flag("with_parents", with_parents),
            compress=not _flag("plain_tar", plain_tar),
        )
        image = _flag("with_image", with_image)
        return start(lambda progress: making.export(place, text, file, options, progress, with_image=image))

    @staticmethod
    def import_(archive: Path, *, dest: Path | None = None) -> Future[SnapshotHandle]:
        """Take an archive of any version into the store, its snapshots under `sha256-<16 hex>`, as 0.4.4 names them; or
        with `dest` as artifact directories of these names there, and not into the store. Gives the head's handle.

        Raises:
            IoError: the archive cannot be read.
            MicrosandboxError: it is damaged.
        """
        file, place = _path("archive", archive), current()
        where = None if dest is None else _path("dest", dest)
        return start(lambda progress: _handle(making.import_(place, file, where, progress)))

    save = export
    load = import_

    @property
    def path(self) -> str:
        """STORE/refs/NAME, or the artifact directory."""
        return self._found.path

    @property
    def digest(self) -> str:
        """The snapshot's id, which microsandbox prints too; casstore's own digests are other ones."""
        return self._found.id

    @property
    def size_bytes(self) -> int:
        """Apparent bytes of the disk."""
        return self._found.manifest.upper.size_bytes

    @property
    def image_ref(self) -> str:
        """The image that the sandbox was started from."""
        return self._found.manifest.image.ref

    @property
    def image_manifest_digest(self) -> str:
        """The digest that pins the image."""
        return self._found.manifest.image.manifest_digest

    @property
    def format(self) -> str:
        """The disk's format: raw or qcow2."""
        return self._found.manifest.format.value

    @property
    def fstype(self) -> str:
        """The disk's file system."""
        return self._found.manifest.fstype

    @property
    def parent(self) -> str | None:
        """The digest of the snapshot that this one comes from."""
        return self._found.manifest.parent

    @property
    def created_at(self) -> str:
        """When it was taken, as recorded."""
        return self._found.manifest.created_at

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict(self._found.manifest.labels)

    @property
    def source_sandbox(self) -> str | None:
        """The sandbox that it was taken of."""
        return self._found.manifest.source_sandbox

    def verify(self) -> Future[dict[str, Any]]:
        """Compare the disk with the recorded integrity, and in the store also every chunk with its digest:
        `{"digest", "path", "upper": {"kind": "verified", "algorithm", "digest"}}`, or `{"kind": "not_recorded"}`.

        Raises:
            MicrosandboxError: it is damaged, or not there any more.
        """
        found, place = self._found, current()
        return start(lambda progress: looking.verify(place, found, progress))


class SnapshotHandle:
    """A name in the store, or an artifact directory, and what is known of it."""

    __slots__ = ("_found",)
    _found: Found

    def __new__(cls) -> Self:
        raise TypeError("No constructor defined for SnapshotHandle")

    @property
    def digest(self) -> str:
        """The snapshot's id, which microsandbox prints too."""
        return self._found.id

    @property
    def name(self) -> str | None:
        """The name; of an artifact directory its own."""
        return os.path.basename(self._found.path)

    @property
    def parent_digest(self) -> str | None:
        """The digest of the snapshot that this one comes from."""
        return self._found.manifest.parent

    @property
    def image_ref(self) -> str:
        """The image that the sandbox was started from."""
        return self._found.manifest.image.ref

    @property
    def format(self) -> str:
        """The disk's format: raw or qcow2."""
        return self._found.manifest.format.value

    @property
    def size_bytes(self) -> int | None:
        """Apparent bytes of the disk."""
        return self._found.manifest.upper.size_bytes

    @property
    def created_at(self) -> float:
        """When it was taken, in milliseconds since 1970; when it came here, where that is not recorded."""
        return self._found.milliseconds

    @property
    def path(self) -> str:
        """STORE/refs/NAME, or the artifact directory."""
        return self._found.path

    def open(self) -> Future[Snapshot]:
        """Open it; see Snapshot.open."""
        path, place = self._found.path, current()
        return start(lambda _: _snapshot(looking.find(place, path)))

    def remove(self, *, force: bool = False) -> Future[tuple[()]]:
        """Remove it; see Snapshot.remove."""
        found, force, place = self._found, _flag("force", force), current()
        return start(lambda _: removing.remove(place, found.path, force=force, told=found.id))


def _snapshot(found: Found) -> Snapshot:
    made = object.__new__(Snapshot)
    made._found = found
    return made


def _handle(found: Found) -> SnapshotHandle:
    made = object.__new__(SnapshotHandle)
    made._found = found
    return made


# What is no text, flag or path is a TypeError at the call, in the words of the SDK.


def _text(argument: str, value: object) -> str:
    return _typed(argument, value, str, "PyString")


def _flag(argument: str, value: object) -> bool:
    return _typed(argument, value, bool, "PyBool")


def _labels(value: object) -> Mapping[str, str]:
    pairs = {} if value is None else _typed("labels", value, dict, "PyDict")
    return {_text("labels", key): _text("labels", text) for key, text in pairs.items()}


def _path(argument: str, value: Path) -> str:
    try:
        path = os.fspath(value)
    except TypeError as error:
        raise TypeError(f"argument '{argument}': {error}") from None
    return _text(argument, path)


def _typed(argument: str, value: object, kind: type[Kind], told: str) -> Kind:
    if not isinstance(value, kind):
        raise TypeError(f"argument '{argument}': '{type(value).__name__}' object cannot be converted to '{told}'")
    return value
