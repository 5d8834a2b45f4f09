"""What is installed on the benchmarks' disks: directories of this machine, as packages."""

from __future__ import annotations

import os
import random
import re
import site
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import disks

_SAFE = re.compile(r"[\w.+@%,:=~/-]+\Z", re.ASCII)  # no names that would need quotes in a script of debugfs


@dataclass(frozen=True)
class Package:
    """Files that are installed together."""

    name: str
    root: Path
    """Files are installed at their path below it."""
    files: tuple[Path, ...]
    size: int
    """Bytes of all files."""

    def contents(self) -> Iterator[tuple[Path, bytes]]:
        """Each file's path on the disk, and its bytes."""
        for path in self.files:
            yield path.relative_to(self.root), path.read_bytes()


def packages_of(data: int, spare: Path, *, seed: int = 1) -> list[Package]:
    """About `data` bytes of packages in the order of their installation: a fifth of this machine's Python, the rest
    directories of /usr, drawn. What the machine lacks is made up, in the folder `spare`.
    """
    python = [Path(sysconfig.get_path("stdlib")), *map(Path, site.getsitepackages())]
    libraries = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH") or "none")
    system = [Path("/usr/lib"), libraries, Path("/usr/share"), Path("/usr/bin"), Path("/usr/include")]
    most = data // 20
    ours = [group for folder in python for group in _groups(Path("/"), folder, most)]
    theirs = [group for folder in system for group in _groups(Path("/"), folder, most)]
    rng = random.Random(seed)
    rng.shuffle(ours)
    rng.shuffle(theirs)
    chosen = _upto(data // 5, ours)
    chosen += _upto(data - total(chosen), theirs)
    if (lacking := data - total(chosen)) > data // 50:
        disks.write_tree(spare, seed=seed, data=lacking)
        chosen += _groups(spare, spare / "usr/lib", most)
    rng.shuffle(chosen)
    return chosen


def _groups(root: Path, folder: Path, most: int) -> list[Package]:
    """The subfolders of a folder, and its own files in lots; `most` bytes of each at most."""
    if not folder.is_dir():
        return []
    entries = sorted(folder.iterdir())
    loose = [path for path in entries if path.is_file()]
    lots = [(f"lot{start // 40}", loose[start : start + 40]) for start in range(0, len(loose), 40)]
    trees = [(path.name, files_below(path)) for path in entries if path.is_dir() and not path.is_symlink()]
    found = []
    for name, files in [*trees, *lots]:
        kept, size = [], 0
        for path in files:
            status = path.lstat()
            usable = path.is_file() and not path.is_symlink() and os.access(path, os.R_OK) and _SAFE.match(str(path))
            if usable and size + status.st_size <= most:
                kept.append(path)
                size += status.st_size
        if size:
            found.append(Package(f"{folder.name}-{name}", root, tuple(kept), size))
    return found


def files_below(folder: Path) -> list[Path]:
    """All files of a tree, sorted."""
    return sorted(Path(where, name) for where, _, names in os.walk(folder) for name in names)


def _upto(budget: int, packages: Iterable[Package]) -> list[Package]:
    """The first packages that fit into `budget` bytes together."""
    taken: set[Path] = set()
    chosen = []
    for package in packages:
        # One root may lie below another: no file twice.
        if package.size <= budget and taken.isdisjoint(package.files):
            chosen.append(package)
            taken.update(package.files)
            budget -= package.size
    return chosen


def total(packages: Iterable[Package]) -> int:
    """Bytes of all files of the packages."""
    return sum(package.size for package in packages)
