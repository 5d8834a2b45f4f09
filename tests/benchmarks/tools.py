"""The programs that are compared: how each keeps a disk and gives it back.

All of them compress with zstd. borg cuts at fixed 1 MiB, its advice for disk images; restic and casync run with their
defaults.
"""

from __future__ import annotations

import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.measure import PATH, Command

RESTORE, RESTORE_DURABLE = "restore", "restore, durable"


def version_of(program: str, *words: str) -> str | None:
    """The first line that a program says of its version; None where it is not installed."""
    if shutil.which(program, path=PATH) is None:
        return None
    command = [program, *(words or ("--version",))]
    said = subprocess.run(command, env={"PATH": PATH}, capture_output=True, text=True, check=True)
    return said.stdout.partition("\n")[0]


class Tool(ABC):
    """One program with an empty repository in `folder`; its methods give the commands to measure."""

    name: str
    program: str
    version = ("--version",)
    slow = False
    """Whether it may be measured in fewer rounds."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "repository"
        self.env = {"PATH": PATH, "HOME": str(folder), "LC_ALL": "C.UTF-8"}

    @classmethod
    def installed(cls) -> str | None:
        """The first line that the program says of its version; None where it is not installed."""
        return version_of(cls.program, *cls.version)

    def prepare(self) -> Command | None:
        """What makes the empty repository; not measured."""
        return None

    @abstractmethod
    def create(self, name: str, disk: Path, parent: str | None) -> Command:
        """Keep `disk` as `name`; `parent` is what it was made from."""

    @abstractmethod
    def restore(self, name: str, disk: Path) -> Mapping[str, Command]:
        """The ways to write the disk to `./<its name>` of the working folder, or below it."""

    def restored(self, folder: Path, disk: Path) -> Path:
        """Where `restore` left the disk."""
        return folder / disk.name


class Casstore(Tool):
    """With every fsync, unless it says otherwise."""

    name = program = "casstore"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.env["CASSTORE_STORE"] = str(self.repository)

    def create(self, name: str, disk: Path, parent: str | None) -> Command:
        return ["casstore", "create", name, "--disk", disk, "--json", *(["--parent", parent] if parent else [])]

    def restore(self, name: str, disk: Path) -> Mapping[str, Command]:
        restore = ["restore", "--force", name, disk.name]
        return {RESTORE: ["casstore", "--durability", "none", *restore], RESTORE_DURABLE: ["casstore", *restore]}


class Borg(Tool):
    name = program = "borg"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.env |= {"BORG_BASE_DIR": str(folder / "borg"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

    def prepare(self) -> Command:
        return ["borg", "init", "--encryption", "none", self.repository]

    def create(self, name: str, disk: Path, parent: str | None) -> Command:
        chunks = ["--chunker-params", "fixed,1048576", "--sparse"]
        return ["borg", "create", *chunks, "-C", "zstd,3", f"{self.repository}::{name}", disk]

    def restore(self, name: str, disk: Path) -> Mapping[str, Command]:
        return {RESTORE: ["borg", "extract", "--sparse", f"{self.repository}::{name}"]}

    def restored(self, folder: Path, disk: Path) -> Path:
        return folder / disk.relative_to("/")


class Restic(Tool):
    name = program = "restic"
    version = ("version",)
    slow = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.env |= {"RESTIC_PASSWORD": "benchmark", "RESTIC_REPOSITORY": str(self.repository)}

    def prepare(self) -> Command:
        return ["restic", "--no-cache", "init"]

    def create(self, name: str, disk: Path, parent: str | None) -> Command:
        return ["restic", "--no-cache", "--quiet", "backup", "--tag", name, disk]

    def restore(self, name: str, disk: Path) -> Mapping[str, Command]:
        return {RESTORE: ["restic", "--no-cache", "restore", "latest", "--tag", name, "--target", "."]}

    def restored(self, folder: Path, disk: Path) -> Path:
        return folder / disk.relative_to("/")


class Casync(Tool):
    name = program = "casync"
    slow = True

    def create(self, name: str, disk: Path, parent: str | None) -> Command:
        self.repository.mkdir(exist_ok=True)
        return ["casync", "make", "--store", self.repository / "store.castr", self._index(name), disk]

    def restore(self, name: str, disk: Path) -> Mapping[str, Command]:
        store = self.repository / "store.castr"
        return {RESTORE: ["casync", "extract", "--store", store, self._index(name), disk.name]}

    def _index(self, name: str) -> Path:
        return self.repository / f"{name}.caibx"


TOOLS: tuple[type[Tool], ...] = (Casstore, Borg, Restic, Casync)
