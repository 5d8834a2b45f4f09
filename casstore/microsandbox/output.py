"""Writes a snapshot as one of the directories that microsandbox keeps, in any of its forms; see `directory`.

An artifact is there when its document is, so that is what comes last. A directory that is new, or takes the place of an
artifact directory, is made beside its place and gets its name when it is complete.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from casstore import durable
from casstore.artifact import Artifact
from casstore.contents import content_digest, find_meaning, hashing
from casstore.dialects.conversion import KEEP, convert
from casstore.dialects.sidecars import METADATA_FILENAME, labels_to_bytes
from casstore.dialects.v07 import LAYERS_FOLDER
from casstore.durable import Durability
from casstore.errors import AlreadyExists, UnsupportedVersion, storage_errors
from casstore.integrity import MERKLE_BLAKE3, SPARSE_SHA256, recorded_name
from casstore.manifest import UPPER_FILENAME, Dialect, Manifest, UpperIntegrity
from casstore.microsandbox.directory import BESIDE_DISKS, DOCUMENTS
from casstore.progress import Meter, Progress
from casstore.restore import restore_file
from casstore.seeds import Seeds

_COMMON: Final = "sha256"
"""The spelling of the algorithm that every version of microsandbox verifies."""


def in_dialect(
    artifact: Artifact, dialect: Dialect, *, parent: Manifest | None = None, workers: int, meter: Meter
) -> Manifest:
    """The document of a snapshot in another form, or its own as it is; `parent` is its parent's in that form.

    An integrity that the microsandbox of that form cannot verify is replaced by the content's sha256.

    Raises:
        UnsupportedVersion: the form cannot say it.
        CorruptContent: a frame is damaged.
    """
    manifest = artifact.config
    if manifest.dialect is dialect:
        return manifest
    recorded = manifest.disks[-1].integrity if len(manifest.disks) == 1 else None
    if recorded is None or _is_verified_by(dialect, artifact, recorded, workers, meter):
        return convert(manifest, dialect, parent=parent, integrity=KEEP)
    disk = artifact.map.disks[0]
    digest = content_digest(artifact, disk, _COMMON, workers=workers, meter=hashing(disk, meter))
    common = UpperIntegrity(algorithm=recorded_name(_COMMON), digest=digest)
    return convert(manifest, dialect, parent=parent, integrity=common)


def _is_verified_by(dialect: Dialect, artifact: Artifact, recorded: UpperIntegrity, workers: int, meter: Meter) -> bool:
    """Whether the microsandbox of a form knows what an integrity means: 0.4 and the later ones mean different things by
    msb-sparse-sha256-v1.
    """
    if recorded.algorithm == SPARSE_SHA256:
        meaning, _ = find_meaning(artifact, artifact.map.disks[0], recorded, workers=workers, meter=meter)
        return meaning == ("sparse" if dialect is Dialect.V04 else "sparse-zero")
    return recorded.algorithm != MERKLE_BLAKE3 or dialect is not Dialect.V04


def lineage_in_dialect(line: Sequence[Artifact], dialect: Dialect, *, workers: int, meter: Meter) -> Manifest | None:
    """The document of the first of some ancestors, nearest first, in another form: what a child of it refers to. None
    where the form cannot say it.
    """
    parent: Manifest | None = None
    for artifact in reversed(line):
        try:
            parent = in_dialect(artifact, dialect, parent=parent, workers=workers, meter=meter)
        except UnsupportedVersion:
            parent = None
    return parent


@dataclass(frozen=True, slots=True)
class Plan:
    """The files of an artifact directory, by their paths in it."""

    disks: Sequence[str]
    documents: Mapping[str, bytes]
    """The last one is what makes it an artifact."""

    @classmethod
    def of(cls, artifact: Artifact, manifest: Manifest) -> Plan:
        """Of the artifact's disks, with this document."""
        documents = {}
        folder = LAYERS_FOLDER if manifest.dialect is Dialect.V07 else ""
        if manifest.dialect is Dialect.V07:
            if artifact.config.dialect is Dialect.V07:
                told = artifact.read_file(METADATA_FILENAME)
            else:
                told = labels_to_bytes(manifest.labels) if manifest.labels else None
            if told is not None:
                documents[METADATA_FILENAME] = told
        documents[manifest.filename] = manifest.to_bytes()
        return cls([os.path.join(folder, file.name) for file in manifest.disks], documents)

    @property
    def files(self) -> Sequence[str]:
        """All of them, in the order in which they are to appear."""
        return [*self.disks, *self.documents]

    def require_plain(self, place: str) -> None:
        """Raise AlreadyExists where a symlink or file in `place` has the name of a folder: it may lead anywhere."""
        for folder in {os.path.dirname(name) for name in self.files} - {""}:
            path = os.path.join(place, folder)
            if os.path.islink(path) or (os.path.lexists(path) and not os.path.isdir(path)):
                raise AlreadyExists(f"{path!r}: expected a directory, got a symlink or file; choose another place")


def write_directory(
    artifact: Artifact,
    manifest: Manifest,
    path: str,
    *,
    force: bool,
    workers: int,
    progress: Progress,
    durability: Durability,
    seeds: Seeds | None = None,
) -> str:
    """Write the artifact directory `path` with this document, the snapshot's own or a converted one; returns the path
    of the last disk's file. Into a directory that is there the files are put beside what is in it. What `seeds` hold of
    the disks is taken from there.

    Raises:
        AlreadyExists: one of its files exists, and `force` is not set.
        CorruptContent, NotFound: a blob is damaged or missing; nothing has changed then.
        StorageError: the file system refused.
    """
    plan = Plan.of(artifact, manifest)
    place = os.path.realpath(path) if os.path.isdir(path) else os.path.abspath(path)
    taken = [name for name in (*plan.files, *DOCUMENTS) if os.path.lexists(os.path.join(place, name))]
    if taken and not force:
        raise AlreadyExists(f"{os.path.join(path, taken[0])!r} exists already; choose another place, or force with -f")
    is_new = not os.path.lexists(place)
    if not is_new and not os.path.isdir(place):
        raise AlreadyExists(f"{path!r}: expected a directory to write into, got a file")
    plan.require_plain(place)
    if is_new:
        durable.make_directories(os.path.dirname(place), durability)
    whole = is_new or _may_be_exchanged(place, plan)
    with _staging(place if whole else os.path.join(place, "artifact")) as stage:
        if plan.disks and os.path.dirname(plan.disks[0]):
            with storage_errors(f"writing {path!r}"):
                durable.make_directory(os.path.join(stage, LAYERS_FOLDER))
        meter = Meter(progress, "restoring", sum(int(disk.runs.length.sum()) for disk in artifact.map.disks))
        for name, disk in zip(plan.disks, artifact.map.disks, strict=True):
            if seeds is not None and seeds:
                seeds.learn(artifact, disk, workers=workers, meter=Meter(progress, "reading seeds", None))
            restore_file(
                artifact,
                disk,
                os.path.join(stage, name),
                force=False,
                workers=workers,
                meter=meter,
                durability=durability,
                seeds=seeds,
            )
        for name, data in plan.documents.items():
            durable.replace_file(os.path.join(stage, name), data, mode=0o644, durability=durability)
        with storage_errors(f"writing {path!r}"):
            if whole:
                if not is_new:
                    shutil.copymode(place, stage)
                durable.publish_directory(stage, place, replace=not is_new, durability=durability)
            else:
                _move_into(stage, place, plan, durability)
    return os.path.join(path, plan.disks[-1])


def _move_into(stage: str, place: str, plan: Plan, durability: Durability) -> None:
    """Put finished files where they belong, and take away the document of what was there before, first."""
    for name in DOCUMENTS:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(place, name))
    durability.sync_directory(place)
    for name in plan.files:
        folder, base = os.path.split(name)
        durable.make_directories(os.path.join(place, folder), durability)
        # What is in place of the folder by now is not followed.
        with durable.opened_directory(os.path.join(place, "."), *filter(None, [folder])) as opened:
            durable.publish(os.path.join(stage, name), base, replace=True, durability=durability, folder=opened)


def _may_be_exchanged(place: str, plan: Plan) -> bool:
    """Whether a directory has nothing in it but what an artifact directory has, and nothing depends on it being the
    same one: it is nobody's working directory, as far as is known, and no mount point.
    """
    names = set(os.listdir(place))
    return (
        bool(names & set(DOCUMENTS))
        and names <= BESIDE_DISKS | {UPPER_FILENAME, *plan.disks}
        and not os.path.ismount(place)
        and not os.path.samefile(place, ".")
        and os.access(os.path.dirname(place), os.W_OK)
    )


@contextlib.contextmanager
def _staging(path: str) -> Iterator[str]:
    """A directory beside `path`, which does not outlive the block."""
    stage = durable.temporary_beside(path)
    with storage_errors(f"making {stage!r}"):
        durable.make_directory(stage)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
