"""The directories that microsandbox keeps snapshots in, in all three forms.

    0.4   NAME/manifest.json, NAME/upper.ext4
    0.6   NAME/snapshot.json, NAME/upper.ext4       migrated from 0.4: .manifest.json.legacy, .snapshot-migration.lock
    0.7   GROUP/group.json                          which of its members the group's name stands for
          GROUP/snap_<32 hex>/snapshot.json         and group-member.json (its name), metadata.json (its labels)
          GROUP/snap_<32 hex>/layers/<layer>        or upper.ext4 and .manifest.json.legacy, imported from 0.4

Nothing is read that a directory does not hold itself: files are opened below their folder's descriptor, a symlink in
there is refused, and so is a file name with anything but a file name in it. The directory itself may be a symlink.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from casstore import spec
from casstore.dialects import MEDIA_TYPES, parse_manifest, sniff
from casstore.dialects.sidecars import (
    GROUP_FILENAME,
    MAX_METADATA,
    MEMBER_FILENAME,
    METADATA_FILENAME,
    Group,
    GroupMember,
    parse_labels,
)
from casstore.dialects.v06 import LEGACY_FILENAME, MIGRATION_LOCK, SNAPSHOT_FILENAME
from casstore.dialects.v07 import LAYERS_FOLDER
from casstore.disk import DiskSource
from casstore.errors import CasstoreError, DocumentError, NotFound, SizeMismatch, SourceError, StorageError
from casstore.manifest import MANIFEST_FILENAME, Dialect, DiskFile, Manifest
from casstore.names import is_file_name

DOCUMENTS: Final = (SNAPSHOT_FILENAME, MANIFEST_FILENAME)
"""Of an artifact directory; where both are there the first one counts."""
BESIDE_DISKS: Final = frozenset(
    {*DOCUMENTS, METADATA_FILENAME, MEMBER_FILENAME, LEGACY_FILENAME, MIGRATION_LOCK, LAYERS_FOLDER}
)
"""What microsandbox puts into an artifact directory, besides its disks."""
_MAX_SMALL: Final = 64 * spec.KIB
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MEMBER_PREFIX: Final = "snap_"


@dataclass(frozen=True, slots=True)
class ArtifactDirectory:
    """An artifact directory whose document was read."""

    path: str
    manifest: Manifest
    sidecars: Mapping[str, bytes]
    """The files beside it that are kept: title -> bytes."""
    legacy_file: str | None = None
    """Where the only layer is, if it is not in the folder for layers."""

    def open_disk(self, file: DiskFile) -> DiskSource:
        """Open one of its disks.

        Raises:
            SourceError: it is missing, or no regular file.
            SizeMismatch: it has not the size that the document says.
            DocumentError: its name is none.
        """
        name = self.legacy_file or file.name
        in_layers = self.manifest.dialect is Dialect.V07 and self.legacy_file is None
        where = os.path.join(self.path, LAYERS_FOLDER) if in_layers else self.path
        _require_file_name(name, self.path)
        with _folder(self.path) as top, contextlib.ExitStack() as stack:
            folder = stack.enter_context(_folder(LAYERS_FOLDER, top, shown=where)) if in_layers else top
            source = DiskSource.open(os.path.join(where, name), folder=folder)
        if file.size not in {None, source.size}:
            source.close()
            raise SizeMismatch(f"{source.subject}: upper size mismatch", expected=file.size or 0, got=source.size)
        return source


def is_artifact(path: str) -> bool:
    """Whether a directory has the document of an artifact in it, good or bad."""
    return any(os.path.lexists(os.path.join(path, name)) for name in DOCUMENTS)


def read_directory(path: str) -> ArtifactDirectory:
    """Read the document of the artifact directory `path`, and look at its files.

    Raises:
        NotFound: there is none.
        DocumentError: its document breaks its rules, or names a file that cannot be one of this directory.
        UnsupportedVersion: a version of microsandbox made it that this version of casstore does not know.
        SourceError, SizeMismatch: a disk is missing, no regular file, or has not the size that the document says.
    """
    with _folder(path) as folder:
        name = next((name for name in DOCUMENTS if _is_there(name, folder)), None)
        if name is None:
            expected = " or ".join(DOCUMENTS)
            raise NotFound(f"artifact directory {path!r}: expected a {expected} in it, got none")
        subject = repr(os.path.join(path, name))
        data = _read(name, folder, path, limit=spec.MAX_MANIFEST)
        dialect = sniff(data, subject=subject)
        sidecars, legacy_file = {}, None
        labels: Mapping[str, str] = {}
        if dialect is Dialect.V07:
            if _is_there(METADATA_FILENAME, folder):
                told = _read(METADATA_FILENAME, folder, path, limit=MAX_METADATA)
                labels = parse_labels(told, subject=repr(os.path.join(path, METADATA_FILENAME)))
                sidecars[METADATA_FILENAME] = told
            if _is_there(LEGACY_FILENAME, folder) and not _is_there(LAYERS_FOLDER, folder):
                told = _read(LEGACY_FILENAME, folder, path, limit=spec.MAX_MANIFEST)
                legacy_file = Manifest.parse(told, subject=repr(os.path.join(path, LEGACY_FILENAME))).upper.file
    manifest = parse_manifest(data, MEDIA_TYPES[dialect], subject=subject, labels=labels)
    found = ArtifactDirectory(path, manifest, sidecars, legacy_file)
    for file in manifest.disks:
        found.open_disk(file).close()
    return found


@dataclass(frozen=True, slots=True)
class Found:
    """An artifact in a tree, and what it is called there: the names of its directory or group, not those of a store."""

    artifact: ArtifactDirectory
    names: Sequence[str]
    """The best one first. A member of a group is called GROUP.MEMBER, and the head of the group GROUP."""


@dataclass(frozen=True, slots=True)
class Tree:
    """What is in a directory of artifact directories and groups, parents before their children; and what is wrong with
    the others, by path.
    """

    found: Sequence[Found]
    malformed: Sequence[tuple[str, CasstoreError]]


def read_tree(path: str) -> Tree:
    """Read all documents in the directory `path`, which may be that of one group; a missing one has none. What does not
    look like an artifact or a group is passed over.

    Raises:
        StorageError: the directory cannot be read.
    """
    found: list[Found] = []
    malformed: list[tuple[str, CasstoreError]] = []
    if _is_group(path):
        _read_group(path, found, malformed)
    else:
        for folder in _readable(path, malformed):
            if is_artifact(folder):
                _try(folder, [os.path.basename(folder)], found, malformed)
            elif _is_group(folder):
                _read_group(folder, found, malformed)
    return Tree(_parents_first(found), malformed)


def _read_group(path: str, found: list[Found], malformed: list[tuple[str, CasstoreError]]) -> None:
    group = os.path.basename(os.path.abspath(path))
    head = None
    try:
        with _folder(path) as folder:
            if _is_there(GROUP_FILENAME, folder):
                at = os.path.join(path, GROUP_FILENAME)
                head = Group.parse(_read(GROUP_FILENAME, folder, path, limit=_MAX_SMALL), subject=repr(at)).head
    except CasstoreError as error:
        malformed.append((path, error))
    for member in filter(is_artifact, _readable(path, malformed)):
        snapshot_id = os.path.basename(member)
        try:
            name = member_name(member)
        except CasstoreError as error:
            malformed.append((member, error))
            continue
        names = [f"{group}.{name or snapshot_id.removeprefix(_MEMBER_PREFIX)[:12]}"]
        if snapshot_id == head:
            names = [*(names if name else []), group]
        _try(member, names, found, malformed)


def member_name(path: str) -> str | None:
    """What the artifact directory `path` is called in its group, if that is said.

    Raises:
        DocumentError: it is said in no way that can be read.
    """
    with _folder(path) as folder:
        if not _is_there(MEMBER_FILENAME, folder):
            return None
        told = _read(MEMBER_FILENAME, folder, path, limit=_MAX_SMALL)
    return GroupMember.parse(told, subject=repr(os.path.join(path, MEMBER_FILENAME))).name


def _try(path: str, names: Sequence[str], found: list[Found], malformed: list[tuple[str, CasstoreError]]) -> None:
    try:
        found.append(Found(read_directory(path), names))
    except CasstoreError as error:
        malformed.append((path, error))


def _parents_first(found: Sequence[Found]) -> Sequence[Found]:
    waiting: dict[str, list[Found]] = {each.artifact.manifest.known_as: [] for each in found}
    roots: list[Found] = []
    for each in found:
        parent = each.artifact.manifest.parent
        siblings = roots if parent is None else waiting.get(parent, roots)
        siblings.append(each)
    ordered: list[Found] = []
    done: set[str] = set()
    queue = roots
    while queue:
        ordered += queue
        known = [each.artifact.manifest.known_as for each in queue]
        queue = [child for name in dict.fromkeys(known) if name not in done for child in waiting[name]]
        done.update(known)
    placed = set(map(id, ordered))
    return [*ordered, *(each for each in found if id(each) not in placed)]  # the others are each other's ancestors


def _folders(path: str) -> Iterator[str]:
    """The directories in a directory, but for those that microsandbox itself is at work in; by name."""
    try:
        names = sorted(os.listdir(path))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{path!r}: {error.strerror}") from error
    for name in names:
        if not name.startswith(".") and os.path.isdir(os.path.join(path, name)):
            yield os.path.join(path, name)


def _readable(path: str, malformed: list[tuple[str, CasstoreError]]) -> Iterator[str]:
    """Those of the directories that can be looked into: what the others are nobody can tell, so they are told."""
    for folder in _folders(path):
        if os.access(folder, os.R_OK | os.X_OK):
            yield folder
        else:
            malformed.append((folder, SourceError(f"artifact directory {folder!r}: expected that it may be read")))


def _is_group(path: str) -> bool:
    """Whether a directory is a group of 0.7."""
    return os.path.lexists(os.path.join(path, GROUP_FILENAME)) or any(
        os.path.basename(folder).startswith(_MEMBER_PREFIX) and is_artifact(folder) for folder in _folders(path)
    )


@contextlib.contextmanager
def _folder(name: str, inside: int | None = None, *, shown: str | None = None) -> Iterator[int]:
    """A descriptor of a directory; one that is `inside` another must not be a symlink.

    Raises:
        NotFound: there is none.
        SourceError: it is something else, or cannot be read.
    """
    subject = f"artifact directory {shown or name!r}"
    try:
        fd = os.open(name, _FOLDER | (0 if inside is None else os.O_NOFOLLOW), dir_fd=inside)
    except FileNotFoundError:
        raise NotFound(f"{subject}: there is none") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{subject}: {getattr(error, 'strerror', None) or error}") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def _read(name: str, folder: int, path: str, *, limit: int) -> bytes:
    """A small file of a directory."""
    subject = repr(os.path.join(path, name))
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        raise SourceError(f"{subject}: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):  # which must be known first: Python opens no directory's descriptor
            raise SourceError(f"{subject}: expected a regular file")
        with open(fd, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise SourceError(f"{subject}: {error.strerror}") from error
    finally:
        os.close(fd)
    if len(data) > limit:
        raise DocumentError(subject, f"expected at most {limit} bytes, got more")
    return data


def _require_file_name(name: str, path: str) -> None:
    """Raise DocumentError unless a name is that of a file in the directory itself."""
    if not is_file_name(name):
        subject = f"artifact directory {path!r}"
        raise DocumentError(subject, f"expected a file name, got {ascii(name[:100])}", at="upper.file")
