"""Artifact directories outside of the store, as `path=` and `dest=` make them: looked at, verified, listed and removed,
in the words of 0.4.4.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from typing import Any

from casstore import durable
from casstore.aio.errors import MicrosandboxError
from casstore.aio.translation import in_its_words, integrity_failed, not_found, system_text
from casstore.disk import DiskSource
from casstore.errors import DocumentError, NotFound, SizeMismatch, SourceError
from casstore.integrity import candidates, hasher
from casstore.manifest import MANIFEST_FILENAME, UpperIntegrity
from casstore.microsandbox.directory import BESIDE_DISKS, ArtifactDirectory, is_artifact, read_directory
from casstore.progress import Meter, Progress
from casstore.spec import MIB


def look_at(path: str) -> ArtifactDirectory:
    """Read an artifact directory's document, and look at its files.

    Raises:
        MicrosandboxError: there is none, or it is damaged.
    """
    if not os.path.lexists(path):
        raise not_found(path)
    try:
        return read_directory(path)
    except NotFound as error:
        raise not_found(f"{os.path.join(path, MANIFEST_FILENAME)}: {system_text(errno.ENOENT)}") from error
    except SizeMismatch as error:
        text = f"upper size mismatch: manifest says {error.expected}, file is {error.got}"
        raise integrity_failed(text) from error
    except DocumentError as error:
        raise integrity_failed(f"manifest parse error: snapshot manifest: {error.problem}") from error
    except SourceError as error:
        raise _unusable(path, error) from error


def _unusable(path: str, error: SourceError) -> MicrosandboxError:
    """What is wrong with a file, or with the directory itself."""
    cause = error.__cause__
    if not isinstance(cause, OSError):
        return integrity_failed(f"upper is not a regular file: {error}")
    if cause.errno == errno.ENOTDIR:
        return not_found(f"{os.path.join(path, MANIFEST_FILENAME)}: {system_text(errno.ENOTDIR)}")
    file = os.path.join(path, os.fsdecode(cause.filename or ""))
    if cause.errno == errno.ENOENT:
        return integrity_failed(f"missing upper file: {file}: {system_text(errno.ENOENT)}")
    return integrity_failed(f"upper is not a regular file: {file}")


def list_artifacts(folder: str) -> Sequence[ArtifactDirectory]:
    """Those in the subdirectories of a directory; what is malformed is left out. None for a missing directory.

    Raises:
        NotADirectoryError: it is none.
    """
    found = []
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    for name in names:
        path = os.path.join(folder, name)
        if is_artifact(path):
            try:
                found.append(look_at(path))
            except MicrosandboxError:
                continue
    return found


def verify_artifact(artifact: ArtifactDirectory, progress: Progress) -> dict[str, Any]:
    """Compare each disk with its recorded integrity; says of the last one what was found.

    Raises:
        MicrosandboxError: one is damaged.
    """
    upper: dict[str, Any] = {"kind": "not_recorded"}
    for file in artifact.manifest.disks:
        if file.integrity is not None:
            with in_its_words(), artifact.open_disk(file) as source:
                _compare(source, file.integrity, progress)
            upper = {"kind": "verified", "algorithm": file.integrity.algorithm, "digest": file.integrity.digest}
    return upper


def _compare(source: DiskSource, recorded: UpperIntegrity, progress: Progress) -> None:
    """Raise MicrosandboxError unless a disk is what was recorded."""
    size = source.size or 0
    hashers = [hasher(each, size) for each in candidates(recorded.algorithm, subject=source.subject)]
    meter = Meter(progress, "verifying", size)
    buffer = memoryview(bytearray(MIB))
    whole = [(0, size)] if size else []
    for start, length in source.extents() if source.holes_are_known() else whole:
        for each in hashers:
            each.begin_extent(start, length)
        for offset in range(start, start + length, MIB):
            part = buffer[: min(MIB, start + length - offset)]
            source.read_into(part, offset)
            for each in hashers:
                each.update(part)
            meter.add(len(part))
    source.check_unchanged()
    digests = [each.finish() for each in hashers]
    if recorded.digest not in digests:
        raise integrity_failed(f"upper digest mismatch: manifest={recorded.digest}, file={digests[0]}")


def remove_artifact(artifact: ArtifactDirectory) -> None:
    """Remove the directory; of a link to one, the link.

    Raises:
        MicrosandboxError: there is something else in it.
        OSError: it cannot be removed.
    """
    if os.path.islink(artifact.path):
        os.unlink(artifact.path)
        return
    mine = BESIDE_DISKS | {file.name for file in artifact.manifest.disks}
    mine |= {artifact.legacy_file} if artifact.legacy_file else set()
    others = sorted(set(os.listdir(artifact.path)) - mine)
    if others:
        raise MicrosandboxError(f"snapshot directory {artifact.path}: there is something else in it: {others[0]!r}")
    aside = durable.temporary_beside(os.path.abspath(artifact.path))
    durable.move(artifact.path, aside)
    shutil.rmtree(aside)
