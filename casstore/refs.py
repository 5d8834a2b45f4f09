"""Refs: `refs/<name>` is a symlink `../blobs/sha256/<64 hex>`, and the only truth about what a store holds.

Reserved names stand for manifests that are about another one, as signatures, and are no roots.

A target is read as text and must match that form; it is never followed. So a ref that somebody pointed at /etc/passwd,
or replaced by a file, is reported as broken and hurts nothing else. The callers hold refs.lock around every change.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from casstore import durable
from casstore.digest import Digest
from casstore.durable import Durability
from casstore.errors import AlreadyExists, InvalidName, NotFound, StorageError, storage_errors
from casstore.links import NotARef, read_link, target_of
from casstore.names import ReferrerName, SnapshotName, is_reserved, parse_name, referrer_subject
from casstore.trash import RemovedRef, Trash


@dataclass(frozen=True, slots=True, order=True)
class BrokenRef:
    """Something in refs/ that is no ref, or a ref that leads to nothing usable, and why."""

    name: str
    problem: str


class Refs:
    """The refs in directory `path`; removed ones go to `trash`."""

    def __init__(self, path: str, trash: Trash, durability: Durability) -> None:
        self.path: str = path
        self._trash, self._durability = trash, durability
        self.taken_over: dict[str, RemovedRef] = {}
        """What names stood for that this object's forced changes gave to something else: as it lies in the trash."""
        self.gone_for_good: set[str] = set()
        """Names that this object removed, and that the trash had no room for."""

    def read_all(self) -> tuple[dict[SnapshotName, Digest], list[BrokenRef]]:
        """Every ref, sorted by name, and what is wrong with the others."""
        refs: dict[SnapshotName, Digest] = {}
        broken: list[BrokenRef] = []
        for name in sorted(self.names()):
            if name.startswith("."):
                continue  # a symlink on its way to its name, or left by a crash
            try:
                parsed = parse_name(name)  # first: what is wrong with a reserved one is not told here
                refs[parsed] = self._read(name)
            except InvalidName:
                if not is_reserved(name):
                    broken.append(BrokenRef(name, "this is not a snapshot's name"))
            except (NotARef, StorageError) as error:
                broken.append(BrokenRef(name, str(error)))
            except FileNotFoundError:
                pass  # removed since the directory was read
        return refs, broken

    def read_referrers(self, subject: Digest | None = None) -> dict[ReferrerName, Digest]:
        """The refs to manifests that are about `subject`, or anything; sorted by name, without the broken ones."""
        referrers: dict[ReferrerName, Digest] = {}
        for name in sorted(name for name in self.names() if name.startswith("sha256-")):
            refers_to = referrer_subject(name)
            if refers_to is not None and subject in {None, refers_to}:
                with contextlib.suppress(FileNotFoundError, NotARef):
                    referrers[ReferrerName(name)] = self._read(name)
        return referrers

    def _read(self, name: str) -> Digest:
        return read_link(f"{self.path}/{name}")

    def get(self, name: SnapshotName | ReferrerName) -> Digest | None:
        """What `name` stands for; None when there is no such ref, or it is broken.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            return self._read(name)
        except (FileNotFoundError, NotARef):
            return None

    def names(self) -> set[str]:
        """The names of all that is there, ref or not."""
        with storage_errors("reading the refs"), durable.opened_directory(self.path) as folder:
            return set(os.listdir(folder))

    def require_free(self, name: SnapshotName | ReferrerName, *, unless: Digest | None = None) -> None:
        """Raise AlreadyExists if there is something of this name, a ref or not, but for a ref to `unless`."""
        current = self.get(name)
        if current is None and not os.path.lexists(os.path.join(self.path, name)):
            return
        if current is None or current != unless:
            raise AlreadyExists(
                f"snapshot {name}: expected a free name, got one that stands for {current or 'a broken ref'};"
                " choose another name, or force with -f"
            )

    def set(self, name: SnapshotName | ReferrerName, digest: Digest, *, force: bool) -> None:
        """Let `name` stand for `digest`, durably. What a name of a snapshot stood for goes to the trash first, so that
        `undo` has it.

        Raises:
            AlreadyExists: it stands for another digest, and `force` is not set.
        """
        if not force:
            self.require_free(name, unless=digest)
        temporary = durable.temporary_beside(name)
        with storage_errors(f"writing ref {name}", on=self.path), durable.opened_directory(self.path) as folder:
            current = self.get(name)
            if current == digest:
                self._durability.sync_directory(".", folder=folder)
                return
            kept = None if current is None or is_reserved(name) else self._trash.keep(name, current)
            try:
                os.symlink(target_of(digest), temporary, dir_fd=folder)
                durable.publish(temporary, name, replace=force, durability=self._durability, folder=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)
                if kept is not None and self.get(name) == current:
                    self._trash.drop([kept])
                raise
            self.gone_for_good.discard(name)
            if kept is not None:
                self.taken_over[name] = kept

    def set_all(self, refs: Mapping[SnapshotName, Digest]) -> None:
        """Let names that are free stand for digests: all of them, durably, or none.

        Raises:
            AlreadyExists: one of them is taken.
        """
        done: list[SnapshotName] = []
        with storage_errors("writing refs", on=self.path), durable.opened_directory(self.path) as folder:
            try:
                for name, digest in refs.items():
                    self.require_free(name, unless=digest)
                    if self.get(name) is None:
                        with storage_errors(f"writing ref {name}", on=self.path):
                            os.symlink(target_of(digest), name, dir_fd=folder)
                        done.append(name)
                self._durability.sync_directory(".", folder=folder)
            except BaseException:
                for each in done:
                    with contextlib.suppress(OSError):
                        os.unlink(each, dir_fd=folder)
                raise

    def remove(self, names: Sequence[str], stamp: int) -> list[str]:
        """Move refs, broken or not, to the trash; durable when this returns. `stamp` is the
        trash's next one, which the removals of one command share. Returns those that are gone for good, as on a full
        disk there was no room for them in the trash.

        Raises:
            NotFound: there is no ref of one of the names; those before it are removed.
        """
        lost: list[str] = []
        if not names:
            return lost
        with storage_errors("removing refs"), durable.opened_directory(self.path) as folder:
            for name in names:
                with storage_errors(f"removing ref {name}"):
                    try:
                        if not self._trash.take(folder, name, stamp):
                            lost.append(name)
                            self.gone_for_good.add(name)
                    except FileNotFoundError:
                        raise NotFound(f"snapshot {name}: there is no such name") from None
            self._trash.sync()  # first: a power cut must not leave the removal without what undoes it
            self._durability.sync_directory(".", folder=folder)
        return lost
