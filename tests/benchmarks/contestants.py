"""How each of the other tools does what casstore does, and casstore itself: the commands that compared.py runs.

All work on disk images, in a folder of their own, with nothing of the user's home. `$` in a command as it is shown
stands for that folder.
"""

from __future__ import annotations

import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.measure import PATH, Cost, run
from tests.benchmarks.tools import version_of
from tests.support import disks, needs

FIRST, SECOND = "first", "second"
"""What the two snapshots are called."""
INSIDE = "usr/lib/package0000/module01"
"""A file on the disk."""


@dataclass(frozen=True)
class Done:
    """What a command said."""

    command: str
    """As a reader would type it."""
    code: int
    output: str


class Contestant(ABC):
    """A tool with a repository of its own; a method per question, and () where it has no command for it."""

    name: str
    version: tuple[str, ...] = ("--version",)

    def __init__(self, folder: Path, images: Mapping[str, Path]) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.images, self.repository = folder, images, folder / "repository"
        self.env = {"PATH": PATH, "HOME": str(folder), "LC_ALL": "C.UTF-8", "TMPDIR": str(folder), "NO_COLOR": "1"}

    @classmethod
    def installed(cls) -> str | None:
        """Its version, if it is here."""
        return version_of(cls.name, *cls.version) if needs.find_program(cls.name) else None

    def ask(self, *words: str | Path, text: bytes | None = None) -> Done:
        """Run a command, whatever it exits with."""
        done = subprocess.run(
            words, cwd=self.folder, env=self.env, input=text, capture_output=True, check=False, timeout=120
        )
        said = (done.stdout + done.stderr).decode(errors="replace").replace(f"{self.folder}/", "")
        return Done(self.shown(words), done.returncode, said)

    def time(self, *words: str | Path) -> Cost:
        """Run a command that must work, and measure it."""
        return run(words, cwd=self.folder, env=self.env)

    def shown(self, words: Sequence[str | Path]) -> str:
        """A command with the folders left out."""
        text = str(words[2]) if words[0] == "sh" else " ".join(str(word) for word in words)
        return text.replace(f"{self.folder}/", "").replace(f"{self.images[FIRST].parent}/", "")

    def stored(self) -> int:
        """Bytes of everything in the repository."""
        return sum(path.stat().st_size for path in self.repository.rglob("*") if path.is_file())

    @abstractmethod
    def prepare(self) -> Sequence[str | Path]:
        """Make the repository."""

    @abstractmethod
    def create(self, name: str) -> Sequence[str | Path]:
        """Keep the disk of this name."""

    @abstractmethod
    def restore(self, name: str) -> Sequence[str | Path]:
        """Write it to `restored()`."""

    def restored(self) -> Path:
        """Where `restore` leaves the disk."""
        return self.folder / "restored.ext4"

    def list(self) -> Sequence[str | Path]:
        """What is kept."""
        return ()

    def history(self) -> Sequence[str | Path]:
        """What came from what."""
        return ()

    def diff(self) -> Sequence[str | Path]:
        """What is different between the two."""
        return ()

    def inside(self) -> Sequence[str | Path]:
        """The bytes of the file INSIDE of the first disk, with nothing restored and nothing mounted."""
        return ()

    def pin(self) -> Sequence[str | Path]:
        """What names the first snapshot by its content."""
        return ()

    def json(self) -> Sequence[str | Path]:
        """The list, as JSON."""
        return ()

    def check(self) -> Sequence[str | Path]:
        """Read everything that is stored, and say what is damaged."""
        return ()

    def victim(self) -> Path:
        """The largest file of the repository, to be damaged."""
        files = [path for path in self.repository.rglob("*") if path.is_file() and not path.is_symlink()]
        return max(files, key=lambda path: path.stat().st_size)


class Casstore(Contestant):
    name = "casstore"

    def __init__(self, folder: Path, images: Mapping[str, Path]) -> None:
        super().__init__(folder, images)
        self.env["CASSTORE_STORE"] = str(self.repository)

    def prepare(self) -> Sequence[str | Path]:
        return ["casstore", "init"]

    def create(self, name: str) -> Sequence[str | Path]:
        parent = ["--parent", FIRST] if name == SECOND else []
        return ["casstore", "create", name, "--disk", self.images[name], *parent, "-q"]

    def restore(self, name: str) -> Sequence[str | Path]:
        return ["casstore", "restore", name, self.restored(), "--force"]

    def list(self) -> Sequence[str | Path]:
        return ["casstore", "list"]

    def history(self) -> Sequence[str | Path]:
        return ["casstore", "tree"]

    def diff(self) -> Sequence[str | Path]:
        return ["casstore", "diff", FIRST, SECOND]

    def inside(self) -> Sequence[str | Path]:
        return ["casstore", "cat", FIRST, f"/{INSIDE}"]

    def pin(self) -> Sequence[str | Path]:
        return ["casstore", "inspect", FIRST]

    def json(self) -> Sequence[str | Path]:
        return ["casstore", "list", "--json"]

    def check(self) -> Sequence[str | Path]:
        return ["casstore", "check", "--read-data"]


class Restic(Contestant):
    name = "restic"
    version = ("version",)

    def __init__(self, folder: Path, images: Mapping[str, Path]) -> None:
        super().__init__(folder, images)
        self.env |= {"RESTIC_PASSWORD": "compared", "RESTIC_REPOSITORY": str(self.repository)}
        self._cache = ["--cache-dir", str(folder / "cache")]
        self._disk = folder / "disk.ext4"

    def prepare(self) -> Sequence[str | Path]:
        return ["restic", *self._cache, "init"]

    def create(self, name: str) -> Sequence[str | Path]:
        # The same path each time, as a disk that is backed up again has.
        self._disk.unlink(missing_ok=True)
        subprocess.run(["cp", "--sparse=always", self.images[name], self._disk], check=True)
        return ["restic", *self._cache, "backup", "--quiet", "--tag", name, self._disk]

    def restore(self, name: str) -> Sequence[str | Path]:
        return ["restic", *self._cache, "restore", "latest", "--tag", name, "--target", self.folder / "out"]

    def restored(self) -> Path:
        return self.folder / "out" / self._disk.relative_to("/")

    def list(self) -> Sequence[str | Path]:
        return ["restic", *self._cache, "snapshots"]

    def diff(self) -> Sequence[str | Path]:
        ids = [line.split()[0] for line in self.ask(*self.list()).output.splitlines() if "disk.ext4" in line]
        return ["restic", *self._cache, "diff", *ids[:2]]

    def json(self) -> Sequence[str | Path]:
        return ["restic", *self._cache, "snapshots", "--json", "--quiet"]

    def check(self) -> Sequence[str | Path]:
        return ["restic", *self._cache, "check", "--read-data"]

    def victim(self) -> Path:
        return max((self.repository / "data").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())


class Borg(Contestant):
    name = "borg"

    def __init__(self, folder: Path, images: Mapping[str, Path]) -> None:
        super().__init__(folder, images)
        self.env |= {
            "BORG_BASE_DIR": str(folder / "base"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_REPO": str(self.repository),
        }
        self._disk = folder / "disk.ext4"

    def prepare(self) -> Sequence[str | Path]:
        return ["borg", "init", "--encryption", "none"]

    def create(self, name: str) -> Sequence[str | Path]:
        self._disk.unlink(missing_ok=True)
        subprocess.run(["cp", "--sparse=always", self.images[name], self._disk], check=True)
        return [
            "borg",
            "create",
            "--chunker-params",
            "fixed,1048576",
            "--sparse",
            "-C",
            "zstd,3",
            f"::{name}",
            "disk.ext4",
        ]

    def restore(self, name: str) -> Sequence[str | Path]:
        return ["sh", "-c", f"mkdir -p out && cd out && borg extract --sparse ::{name}"]

    def restored(self) -> Path:
        return self.folder / "out" / "disk.ext4"

    def list(self) -> Sequence[str | Path]:
        return ["borg", "list"]

    def diff(self) -> Sequence[str | Path]:
        return ["borg", "diff", f"::{FIRST}", SECOND]

    def pin(self) -> Sequence[str | Path]:
        return ["borg", "info", f"::{FIRST}"]

    def json(self) -> Sequence[str | Path]:
        return ["borg", "list", "--json"]

    def check(self) -> Sequence[str | Path]:
        return ["borg", "check", "--verify-data"]


class Casync(Contestant):
    name = "casync"

    def prepare(self) -> Sequence[str | Path]:
        return ["mkdir", self.repository]

    def create(self, name: str) -> Sequence[str | Path]:
        return ["casync", "make", f"repository/{name}.caibx", self.images[name]]

    def restore(self, name: str) -> Sequence[str | Path]:
        return ["casync", "extract", f"repository/{name}.caibx", self.restored()]

    def list(self) -> Sequence[str | Path]:
        return ["ls", "repository"]

    def pin(self) -> Sequence[str | Path]:
        return ["casync", "digest", f"repository/{FIRST}.caibx"]

    def victim(self) -> Path:
        chunks = (self.repository / "default.castr").rglob("*.cacnk")
        return max(chunks, key=lambda path: path.stat().st_size)

    def check(self) -> Sequence[str | Path]:
        return ["casync", "extract", f"repository/{FIRST}.caibx", "again.ext4"]


class Git(Contestant):
    name = "git"

    def __init__(self, folder: Path, images: Mapping[str, Path]) -> None:
        super().__init__(folder, images)
        who = {f"GIT_{role}_{what}": "ann" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self.env |= {**who, "GIT_CONFIG_NOSYSTEM": "1", "GIT_DIR": str(self.repository), "GIT_WORK_TREE": str(folder)}

    def prepare(self) -> Sequence[str | Path]:
        return ["git", "init", "-q", "-b", "main"]

    def create(self, name: str) -> Sequence[str | Path]:
        disk = self.folder / "disk.ext4"
        disk.unlink(missing_ok=True)
        subprocess.run(["cp", "--sparse=always", self.images[name], disk], check=True)
        return ["sh", "-c", f"git add disk.ext4 && git commit -qm {name} && git tag {name}"]

    def restore(self, name: str) -> Sequence[str | Path]:
        return ["sh", "-c", f"rm -f disk.ext4 && git checkout -q {name} -- disk.ext4"]

    def restored(self) -> Path:
        return self.folder / "disk.ext4"

    def list(self) -> Sequence[str | Path]:
        return ["git", "tag"]

    def history(self) -> Sequence[str | Path]:
        return ["git", "log", "--graph", "--oneline"]

    def diff(self) -> Sequence[str | Path]:
        return ["git", "diff", "--stat", FIRST, SECOND]

    def pin(self) -> Sequence[str | Path]:
        return ["git", "rev-parse", FIRST]

    def check(self) -> Sequence[str | Path]:
        return ["git", "fsck", "--full"]


CONTESTANTS: tuple[type[Contestant], ...] = (Casstore, Restic, Borg, Casync, Git)


def flip(path: Path) -> None:
    """Damage one byte in the middle."""
    os.chmod(path, 0o600)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0xFF]))


def make_disks(work: Path, *, size: int, data: int) -> dict[str, Path]:
    """A disk with `data` bytes of files, and the same after small edits; sparse, without root."""
    tree, dense = work / "tree", work / "dense"
    images = {name: work / f"{name}.ext4" for name in (FIRST, SECOND)}
    tree.mkdir()
    disks.write_tree(tree, seed=1, data=data)
    disks.make_ext4(dense, size, tree, seed=1)
    for name, image in images.items():
        if name == SECOND:
            disks.edit_with_debugfs(dense, seed=2)
        subprocess.run(["cp", "--sparse=always", dense, image], check=True)
    dense.unlink()
    return images
