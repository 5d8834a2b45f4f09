"""The disks of the benchmarks: one sandbox in six generations, and its packages again on another disk.

    python -m tests.benchmarks.series DIR [--size MIB] [--data MIB] [--from-tree]

    gen1       a base system: most of the packages, and a database
    gen2       more packages installed                      gen3   still more, and a build
    gen4       60 small edits of source files, 500 new or changed rows in the database
    gen5       logs, caches, the upgrade of a package       gen6   a cleanup, and edits as in gen4
    reordered  a new file system with the packages of gen3, installed in another order

A package is a directory of this machine (`packages_of`): the choice, the order and every edit are functions of a seed,
so the content is the same on every run on one machine. The disks are ext4, worked on through a loop mount: the kernel
places the files, keeps a journal, and leaves stale data where files were deleted. Where that is not permitted, or with
--from-tree, the same work is done on a folder and carried to the disks by debugfs; such disks are tidier than real
ones.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import zstandard

from tests.benchmarks.packages import Package, files_below, packages_of, total
from tests.support import disks, needs

MIB = disks.MIB
GENERATIONS = tuple(f"gen{number}" for number in range(1, 7))
REORDERED = "reordered"
SMALL_EDIT = "gen4"

_ARCHIVES = Path("var/cache/apt/archives")
_CACHES = Path("root/.cache")
_BUILD = Path("home/agent/build")
_SOURCES = (".py", ".c", ".h", ".txt", ".json", ".js", ".pm", ".pl", ".sh", ".cmake", ".vim")


# --- work on a mounted disk ------------------------------------------------------------------------------------------


def install(root: Path, packages: Sequence[Package], *, together: int = 6) -> None:
    """Install packages as a package manager does: fetch the archives of some, unpack each under temporary names,
    note it in a list that is written anew, make it durable; delete the archives at the end, which leaves stale data.
    """
    compressor = zstandard.ZstdCompressor(level=1)
    for start in range(0, len(packages), together):
        batch = packages[start : start + together]
        for package in batch:
            # The others come from elsewhere. The choice is the package's own, so no order makes other archives.
            if zlib.crc32(package.name.encode()) % 4 == 0:
                archive = b"".join(content for _, content in package.contents())
                _write(root / _ARCHIVES / f"{package.name}.deb", compressor.compress(archive))
        for package in batch:
            _unpack(root, package)
            _sync(root)
    shutil.rmtree(root / _ARCHIVES, ignore_errors=True)


def _unpack(root: Path, package: Package, change: Callable[[bytes], bytes] = bytes) -> None:
    names = []
    for name, content in package.contents():
        new = root / name.with_name(f"{name.name}.dpkg-new")
        _write(new, change(content))
        new.rename(root / name)
        names.append(f"/{name}\n")
    _write(root / f"var/lib/dpkg/info/{package.name}.list", "".join(names).encode())
    status = root / "var/lib/dpkg/status"
    known = status.read_bytes() if status.exists() else b""
    new = status.with_name("status-new")
    _write(
        new,
        known + f"Package: {package.name}\nStatus: install ok installed\nInstalled-Size: {package.size}\n\n".encode(),
    )
    new.rename(status)
    append_log(root, "dpkg.log", f"install {package.name}\nconfigure {package.name}\n".encode())


def upgrade(root: Path, package: Package, rng: random.Random) -> None:
    """Install another version of a package: text files differ in a few places, others in one byte of a thousand."""

    def newer(content: bytes) -> bytes:
        changed = bytearray(content)
        places = sorted((rng.randrange(len(content) + 1) for _ in range(1 + len(content) // 20_000)), reverse=True)
        if b"\0" in content[:4096]:
            for place in places:
                changed[place : place + 8] = rng.randbytes(8)[: len(content) - place]
        else:
            for place in places:
                changed[place:place] = b"version 2"
        return bytes(changed)

    _unpack(root, package, newer)
    _sync(root)


def sources(root: Path) -> list[Path]:
    """The files that somebody might edit: those of the packages that look like source code."""
    return [path for path in files_below(root) if path.suffix in _SOURCES and 500 < path.stat().st_size < 60_000]


def edit(files: Iterable[Path], rng: random.Random) -> None:
    """Replace or insert a few lines in each file, and write it anew as an editor does."""
    text = disks.Text(rng)
    for path in files:
        content = bytearray(path.read_bytes())
        place = rng.randrange(len(content) + 1)
        lines = text.take(rng.randint(1, 400))
        content[place : place + (len(lines) if rng.random() < 0.5 else 0)] = lines
        path.write_bytes(content)


def insert_rows(root: Path, rng: random.Random, count: int) -> None:
    """Add rows to the sandbox's database, which is created if missing."""
    with _database(root) as database:
        database.executemany("insert into event (at, who, what) values (?, ?, ?)", _rows(rng, count))


def change_rows(root: Path, rng: random.Random, count: int) -> None:
    """Work with the database: half of the rows are new, half are changed where they are."""
    insert_rows(root, rng, count - count // 2)
    with _database(root) as database:
        (last,) = database.execute("select max(id) from event").fetchone()
        changed = [(at, what, rng.randint(1, last)) for at, _, what in _rows(rng, count // 2)]
        database.executemany("update event set at = ?, what = ? where id = ?", changed)


@contextlib.contextmanager
def _database(root: Path) -> Iterator[sqlite3.Connection]:
    path = root / disks.DATABASE
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("create table if not exists event (id integer primary key, at integer, who text, what text)")
        database.execute("create index if not exists event_who on event (who)")
        yield database


def _rows(rng: random.Random, count: int) -> list[tuple[int, str, str]]:
    text = disks.Text(rng).take(128 * disks.KIB).decode()
    starts = [rng.randrange(len(text) - 150) for _ in range(count)]
    return [(start, f"user{start % 97}", text[start : start + 120]) for start in starts]


def append_log(root: Path, name: str, lines: bytes) -> None:
    """Append to a file of /var/log."""
    path = root / "var/log" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as log:
        log.write(lines)


def _build(root: Path, rng: random.Random, data: int) -> None:
    """Write what a compiler leaves: objects, then a library of them; the dependency files are deleted again."""
    text = disks.Text(rng)
    objects = []
    for number in range(60):
        content = text.take(data // 120) + rng.randbytes(data // 480)
        _write(root / _BUILD / f"unit{number}.d", text.take(2000))
        _write(root / _BUILD / f"unit{number}.o", content)
        objects.append(content)
    _write(root / _BUILD / "libproject.a", b"".join(objects))
    for path in (root / _BUILD).glob("*.d"):
        path.unlink()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _sync(root: Path) -> None:
    subprocess.run(["sync", "--file-system", root], check=True)


# --- the generations -------------------------------------------------------------------------------------------------

Opened = Callable[[Path], AbstractContextManager[Path]]
"""Gives the root of an image's files for the duration of a block; what was done to them is in the image afterwards."""


def _mounted(image: Path) -> AbstractContextManager[Path]:
    """By the kernel. Without access times: to choose files this program looks at all of them, as no sandbox does."""
    return disks.loop_mounted(image, "noatime")


def make_series(folder: Path, *, size: int, data: int, opened: Opened | None = None) -> dict[str, Path]:
    """Make all disks, `size` bytes each with about `data` bytes of packages, and name them."""
    opened = opened or _mounted
    images = {name: folder / f"{name}.ext4" for name in (*GENERATIONS, REORDERED)}
    with tempfile.TemporaryDirectory() as spare:
        packages = packages_of(data, Path(spare))
        base, added, more = _split(packages, data * 84 // 100, data * 9 // 100)
        rng = random.Random(2)

        def generation1(root: Path) -> None:
            base_system(root, base, rng)

        def generation2(root: Path) -> None:
            install(root, added)
            append_log(root, "syslog", disks.Text(rng).take(data // 1000))

        def generation3(root: Path) -> None:
            install(root, more)
            _build(root, rng, data // 60)

        def generation4(root: Path) -> None:
            edit(rng.sample(sources(root), 60), rng)
            change_rows(root, rng, 500)

        def generation5(root: Path) -> None:
            append_log(root, "syslog", disks.Text(rng).take(data // 200))
            for number in range(20):
                _write(root / _CACHES / f"pip/{number:02x}/wheel", rng.randbytes(data // 1000))
            upgrade(root, max(added, key=lambda package: package.size), rng)

        def generation6(root: Path) -> None:
            shutil.rmtree(root / _CACHES)
            shutil.rmtree(root / _BUILD)
            for path in sorted(root.rglob("__pycache__"))[::3]:
                shutil.rmtree(path)
            generation4(root)

        work = (generation1, generation2, generation3, generation4, generation5, generation6)
        before: Path | None = None
        for name, job in zip(GENERATIONS, work, strict=True):
            if before is None:
                make_empty(images[name], size, number=1)
            else:
                copy_disk(before, images[name])
            with opened(images[name]) as root:
                job(root)
            before = images[name]

        order = [package for package in packages if package in {*base, *added, *more}]
        rng.shuffle(order)
        make_empty(images[REORDERED], size, number=2)
        with opened(images[REORDERED]) as root:
            install(root, order, together=4)
    return images


def base_system(root: Path, packages: Sequence[Package], rng: random.Random) -> None:
    """Packages, and a database of about a twentieth of their bytes."""
    install(root, packages)
    insert_rows(root, rng, total(packages) // 20 // 180)


def _split(packages: Sequence[Package], *budgets: int) -> list[list[Package]]:
    """Runs of packages that reach the budgets one after the other, and the rest."""
    rest = iter(packages)
    parts = []
    for budget in budgets:
        part: list[Package] = []
        while total(part) < budget and (package := next(rest, None)):
            part.append(package)
        parts.append(part)
    return [*parts, list(rest)]


def make_empty(path: Path, size: int, *, number: int) -> None:
    """An ext4 image without files; `number` makes its identity."""
    with path.open("wb") as image:
        image.truncate(size)
    # The kernel would write the rest of the inode tables some seconds after the mount, or not, as it comes.
    identity = str(uuid.UUID(int=number))
    now = ["-E", f"lazy_itable_init=0,lazy_journal_init=0,hash_seed={identity}"]
    program = needs.find_program("mke2fs") or "mke2fs"
    subprocess.run([program, "-q", "-F", "-t", "ext4", "-b", str(disks.BLOCK), "-U", identity, *now, path], check=True)


def copy_disk(disk: Path, other: Path) -> None:
    """Copy an image, holes included."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", disk, other], check=True)


class FromTree:
    """Opens images without a mount: the files are those of a folder, and what changed there is carried to the image by
    debugfs. One object per chain of images that are copies of each other.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tree = folder / "none"
        self._known: dict[Path, tuple[int, int, int]] = {}

    @contextlib.contextmanager
    def __call__(self, image: Path) -> Iterator[Path]:
        if _is_empty(image):
            self._tree, self._known = Path(tempfile.mkdtemp(dir=self._folder)), {}
        yield self._tree
        found = {path: _stamp(path) for path in self._tree.rglob("*")}
        changed = {path for path, stamp in found.items() if not path.is_dir() and self._known.get(path) != stamp}
        gone = self._known.keys() - found.keys()
        files = [path for path in gone | (changed & self._known.keys()) if self._known[path] != _FOLDER]
        folders = [path for path in gone if self._known[path] == _FOLDER]
        script = [f"rm /{path.relative_to(self._tree)}" for path in sorted(files)]
        script += [f"rmdir /{path.relative_to(self._tree)}" for path in sorted(folders, reverse=True)]
        new = sorted(path for path in found if found[path] == _FOLDER and path not in self._known)
        script += [f"mkdir /{path.relative_to(self._tree)}" for path in new]
        script += [f"write {path} /{path.relative_to(self._tree)}" for path in sorted(changed)]
        program = needs.find_program("debugfs") or "debugfs"
        command = [program, "-w", "-f", "-", str(image)]
        subprocess.run(command, input="\n".join(script).encode(), check=True, capture_output=True)
        self._known = found


_FOLDER = (0, 0, 0)


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return _FOLDER if path.is_dir() else (status.st_ino, status.st_mtime_ns, status.st_size)


def _is_empty(image: Path) -> bool:
    program = needs.find_program("debugfs") or "debugfs"
    listed = subprocess.run([program, "-R", "ls -p /", image], check=True, capture_output=True, text=True).stdout
    return "/usr/" not in listed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--size", type=int, default=4096, help="logical MiB of each disk (%(default)s)")
    parser.add_argument("--data", type=int, default=540, help="MiB of packages (%(default)s)")
    parser.add_argument("--from-tree", action="store_true", help="no mount: debugfs writes the files")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as tree:
        opened = FromTree(Path(tree)) if args.from_tree or not needs.available("loop") else None
        made = make_series(args.folder, size=args.size * MIB, data=args.data * MIB, opened=opened)
    for name, path in made.items():
        print(f"{name:10}{disks.allocated(path) // MIB:6} MiB  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
