"""Disks to test with: trees of files that look like a sandbox's, ext4 images of them, edits, sparse files.

Everything is a function of a seed, so a failure can be repeated. Images are made without mounting anything and come
out byte for byte equal on every run with the same e2fsprogs: `mke2fs` makes the empty file system and one `debugfs`
script fills it (`mke2fs -d` would copy the ctimes and the directory order of the machine it runs on).

`python -m tests.support.disks` re-makes fixtures/disk/.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import sqlite3
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import zstandard
from hypothesis import strategies as st

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
BLOCK = 4096
PROGRAM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
FIXTURES = Path(__file__).parents[2] / "fixtures" / "disk"
DATABASE = "var/lib/app.db"

_EPOCH = 1735689600  # 2025-01-01, the time of everything in a generated image
EXT4_FEATURES = ("-O", "has_journal,extent,huge_file,flex_bg,uninit_bg,64bit,dir_nlink,extra_isize,metadata_csum")
"""Options of mkfs.ext4 for what it does by itself; here no configuration file tells it to."""
_TOOLS_ENV = {"PATH": PROGRAM_PATH, "E2FSPROGS_FAKE_TIME": str(_EPOCH), "LC_ALL": "C", "MKE2FS_CONFIG": os.devnull}


# --- content ---------------------------------------------------------------------------------------------------------


@cache
def _vocabulary() -> tuple[list[str], list[float]]:
    rng = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgkjqxz_"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 11))) for _ in range(4000)]
    return words, list(itertools.accumulate(1 / (rank + 5) for rank in range(4000)))


class Text:
    """Endless seeded text that zstd makes about four times smaller, as it does with source code."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._ahead = bytearray()

    def take(self, size: int) -> bytes:
        words, weights = _vocabulary()
        while len(self._ahead) < size:
            drawn = self._rng.choices(words, cum_weights=weights, k=1600)
            for start in range(0, len(drawn), 8):
                a, b, c, d, e, f, g, h = drawn[start : start + 8]
                self._ahead += f"    {a}.{b} {c} {d}({e}, {f}, {g}, {h})\n".encode()
        taken = bytes(self._ahead[:size])
        del self._ahead[:size]
        return taken


def write_tree(root: Path, *, seed: int, data: int) -> None:
    """Fill `root` with about `data` bytes of files: text (most), incompressible files (about a sixth of the files, and
    larger), copies of earlier files, and an SQLite database of about a tenth of it all.
    """
    rng = random.Random(seed)
    text = Text(rng)
    written: list[Path] = []
    for number in itertools.count():
        path = root / f"usr/lib/package{number // 40:04}/module{number % 40:02}"
        size = max(1, int(min(rng.lognormvariate(8.5, 1.6), data / 16)))
        kind = rng.random()
        if kind < 0.75 or not written:
            content = text.take(size)
        elif kind < 0.92:
            content = rng.randbytes(min(4 * size, 4 * MIB))
        else:
            content = rng.choice(written).read_bytes()
        _write(path, content)
        written.append(path)
        data -= len(content)
        if data <= 0:
            break
    total = sum(path.stat().st_size for path in written)
    (root / DATABASE).parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(root / DATABASE)) as database, database:
        database.execute("create table event (id integer primary key, at integer, who text, what text)")
        database.execute("create index event_who on event (who)")
        _insert_rows(database, rng, max(20, total // 10 // 180))
    (root / DATABASE).chmod(0o644)


def write_mixed_file(path: Path, size: int, *, seed: int, compressible: float = 0.5) -> None:
    """Write a file without holes: stretches of text and of random bytes, `compressible` of it text."""
    rng = random.Random(seed)
    pool = Text(rng).take(8 * MIB)
    with path.open("wb") as out:
        while size:
            length = min(size, MIB)
            if rng.random() < compressible:
                start = rng.randrange(len(pool) - length)
                # A stretch of its own: numbered lines, so that equal text is not equal bytes.
                number = rng.getrandbits(32)
                lines = pool[start : start + length].split(b"\n")
                out.write(b"\n".join(b"%08x %b" % (number + i, line) for i, line in enumerate(lines))[:length])
            else:
                out.write(rng.randbytes(length))
            size -= length


@dataclass(frozen=True, kw_only=True)
class Edits:
    """What `edit_tree` did, as paths relative to the tree."""

    changed: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]


def edit_tree(root: Path, *, seed: int, changed: int = 60, rows: int = 500, added: int = 10, removed: int = 5) -> Edits:
    """Work on a tree as an agent does: change small files, add rows to the database, add and remove files."""
    rng = random.Random(seed)
    text = Text(rng)
    files = sorted(path for path in root.glob("usr/**/*") if path.is_file())
    chosen = rng.sample(files, min(len(files), changed + removed))
    victims, rewritten = chosen[:removed], chosen[removed:]
    for path in rewritten:
        content = bytearray(path.read_bytes())
        place = rng.randrange(len(content) + 1)
        if rng.random() < 0.5:
            content[place:place] = text.take(rng.randint(1, 400))
        else:
            new = text.take(rng.randint(1, 400))
            content[place : place + len(new)] = new
        path.write_bytes(content)
    for path in victims:
        path.unlink()
    new_files = [root / f"home/work{seed}/new{number:03}" for number in range(added)]
    for path in new_files:
        _write(path, text.take(rng.randint(100, 40_000)))
    if rows:
        with contextlib.closing(sqlite3.connect(root / DATABASE)) as database, database:
            _insert_rows(database, rng, rows)
        rewritten.append(root / DATABASE)
    return Edits(
        changed=tuple(str(path.relative_to(root)) for path in rewritten),
        added=tuple(str(path.relative_to(root)) for path in new_files),
        removed=tuple(str(path.relative_to(root)) for path in victims),
    )


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o644)  # whatever the umask is: it goes into the image


def _insert_rows(database: sqlite3.Connection, rng: random.Random, count: int) -> None:
    text = Text(rng).take(64 * KIB).decode()
    starts = [rng.randrange(len(text) - 150) for _ in range(count)]
    database.executemany(
        "insert into event (at, who, what) values (?, ?, ?)",
        ((_EPOCH + start, f"user{start % 97}", text[start : start + 120]) for start in starts),
    )


# --- ext4 images -----------------------------------------------------------------------------------------------------


def make_ext4(path: Path, size: int, tree: Path, *, seed: int = 0) -> None:
    """Make a sparse raw ext4 image of `size` bytes that holds the files of the folder `tree`. Needs e2fsprogs."""
    rng = random.Random(seed)
    identity, hash_seed = (uuid.UUID(int=rng.getrandbits(128), version=4) for _ in range(2))
    with path.open("wb") as image:
        image.truncate(size)
    extended = f"hash_seed={hash_seed},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    mke2fs = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-I", "256", "-i", "16384"]
    _run([*mke2fs, *EXT4_FEATURES, "-U", str(identity), "-E", extended, str(path)])
    script = []
    for entry in sorted(tree.rglob("*")):
        name = entry.relative_to(tree)
        script.append(f"mkdir {name}" if entry.is_dir() else f"write {entry} {name}")
    _debugfs(path, script)


def edit_with_debugfs(
    path: Path, *, seed: int, changed: int = 60, rows: int = 500, added: int = 10, removed: int = 5
) -> Edits:
    """`edit_tree` on the files inside an image, without root: changed files are written anew."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _debugfs(path, [f"rdump / {root}"], write=False)
        before = {str(entry.relative_to(root)) for entry in root.rglob("*")}
        edits = edit_tree(root, seed=seed, changed=changed, rows=rows, added=added, removed=removed)
        written = (*edits.changed, *edits.added)
        folders = {str(parent) for name in written for parent in list(Path(name).parents)[:-1]}
        script = [f"rm {name}" for name in (*edits.removed, *written) if name in before]
        script += [f"mkdir {name}" for name in sorted(folders - before)]
        script += [f"write {root / name} {name}" for name in written]
        _debugfs(path, script)
    return edits


def edit_through_mount(
    path: Path, *, seed: int, changed: int = 60, rows: int = 500, added: int = 10, removed: int = 5
) -> Edits:
    """`edit_tree` on the files inside an image, by the kernel. Needs loop mounts."""
    with loop_mounted(path) as root:
        return edit_tree(root, seed=seed, changed=changed, rows=rows, added=added, removed=removed)


@contextlib.contextmanager
def loop_mounted(path: Path, *options: str) -> Iterator[Path]:
    """Mount an image for the duration of a block; its changes are in the file afterwards. Needs root."""
    with tempfile.TemporaryDirectory() as folder:
        _run(["mount", "-o", ",".join(["loop", *options]), str(path), folder])
        try:
            yield Path(folder)
        finally:
            _run(["umount", folder])
            with path.open("rb") as image:
                os.fsync(image.fileno())


FileSystem = Literal["ext4", "xfs", "btrfs"]


@contextlib.contextmanager
def file_system(folder: Path, kind: FileSystem, *options: str, size: int = 400 * MIB) -> Iterator[Path]:
    """Make an empty file system in the folder `folder`, with more options of mkfs, and mount it for the duration of a
    block. Needs the power of its name ("loop" for ext4).
    """
    image = make_file_system(folder / f"{kind}.image", kind, *options, size=size)
    with loop_mounted(image) as root:
        yield root


def make_file_system(image: Path, kind: FileSystem, *options: str, size: int = 400 * MIB) -> Path:
    """Make an empty file system in the new file `image`, with more options of mkfs; returns the file."""
    with image.open("wb") as out:
        out.truncate(size)  # the least that mkfs.xfs makes is 300 MiB
    _run([f"mkfs.{kind}", "-q", *(["-F"] if kind == "ext4" else []), *options, str(image)])
    return image


@contextlib.contextmanager
def tmpfs(folder: Path, *options: str, kind: Literal["tmpfs", "ramfs"] = "tmpfs") -> Iterator[Path]:
    """Mount a tmpfs, or a ramfs, which knows of no holes and no limits, in the folder `folder` for the duration of a
    block. Needs root, and that mounts work ("loop").
    """
    root = folder / kind
    root.mkdir()
    _run(["mount", "-t", kind, *(["-o", ",".join(options)] if options else []), "none", str(root)])
    try:
        yield root
    finally:
        _run(["umount", str(root)])


@contextlib.contextmanager
def overlay(folder: Path) -> Iterator[Path]:
    """Mount an overlay of `folder`/lower and `folder`/upper for the duration of a block. Needs root, and that mounts
    work ("loop").
    """
    layers = {name: folder / name for name in ("lower", "upper", "work")}
    for path in (*layers.values(), root := folder / "merged"):
        path.mkdir(exist_ok=True)
    options = ",".join(f"{name}dir={path}" for name, path in layers.items())
    _run(["mount", "-t", "overlay", "-o", options, "none", str(root)])
    try:
        yield root
    finally:
        _run(["umount", str(root)])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, env=_TOOLS_ENV, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)


def _debugfs(image: Path, script: Sequence[str], *, write: bool = True) -> None:
    command = ["debugfs", *(["-w"] if write else []), "-f", "-", str(image)]
    lines = "".join(f"{line}\n" for line in script)
    done = subprocess.run(command, env=_TOOLS_ENV, input=lines, text=True, capture_output=True, check=False)
    # It exits with 0 whatever happened; only its words tell. An ordinary user cannot give dumped files their owner.
    harmless = re.compile(r"debugfs 1\.|.*changing own")
    said = [line for line in done.stderr.splitlines() if not harmless.match(line)]
    if done.returncode or said:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, "\n".join(said))


# --- the prebuilt disk -----------------------------------------------------------------------------------------------


def unpack_fixture(name: Literal["base", "edited"], path: Path) -> None:
    """Write one of the two prebuilt disks (fixtures/disk/README.md): the second is the first after some work."""
    unpack_sparse(FIXTURES / f"{name}.ext4.zst", path)


def unpack_sparse(packed: Path, path: Path) -> None:
    """Decompress a zstd file; all-zero blocks become holes."""
    zeros = bytes(BLOCK)
    with packed.open("rb") as source, path.open("wb") as out:
        plain = zstandard.ZstdDecompressor().stream_reader(source)
        while piece := plain.read(256 * BLOCK):
            for start in range(0, len(piece), BLOCK):
                block = piece[start : start + BLOCK]
                if block == zeros[: len(block)]:
                    out.seek(len(block), os.SEEK_CUR)
                else:
                    out.write(block)
        out.truncate(out.tell())


# --- sparse files ----------------------------------------------------------------------------------------------------

Kind = Literal["hole", "zeros", "text", "random", "repeat"]


@dataclass(frozen=True)
class Segment:
    """`length` bytes of one kind of content; equal kind, length and seed give equal bytes."""

    kind: Kind
    length: int
    seed: int = 0

    def content(self) -> bytes:
        rng = random.Random(f"{self.kind}{self.seed}")
        if self.kind == "text":
            return Text(rng).take(self.length)
        if self.kind == "random":
            return rng.randbytes(self.length)
        if self.kind == "repeat":
            block = rng.randbytes(BLOCK)
            return (block * (self.length // BLOCK + 1))[: self.length]
        return bytes(self.length)


def write_segments(path: Path, segments: Sequence[Segment]) -> None:
    """Write the segments one after the other; holes are not written."""
    with path.open("wb") as out:
        for segment in segments:
            if segment.kind == "hole":
                out.seek(segment.length, os.SEEK_CUR)
            else:
                out.write(segment.content())
        out.truncate(out.tell())


def segments(*, most: int = 12, blocks: int = 80) -> st.SearchStrategy[list[Segment]]:
    """Hypothesis: layouts of at most `most` segments of at most `blocks` blocks; the last may end inside a block."""
    kinds: st.SearchStrategy[Kind] = st.sampled_from(("hole", "zeros", "text", "random", "repeat"))
    whole = st.builds(Segment, kinds, st.integers(1, blocks).map(lambda count: count * BLOCK), st.integers(0, 5))
    tail = st.builds(Segment, kinds, st.integers(0, 2 * BLOCK), st.integers(0, 5))
    return st.tuples(st.lists(whole, max_size=most - 1), tail).map(lambda parts: [*parts[0], parts[1]])


def random_sparse_file(path: Path, *, seed: int, size: int = 4 * MIB) -> None:
    """Write a sparse file of `size` bytes: a seeded mixture of holes, zeros, text, random and repeated blocks."""
    rng = random.Random(seed)
    kinds: tuple[Kind, ...] = ("hole", "hole", "zeros", "text", "random", "repeat")
    layout = []
    while size:
        length = min(size, rng.randint(1, 128) * BLOCK)
        layout.append(Segment(rng.choice(kinds), length, rng.randrange(50)))
        size -= length
    write_segments(path, layout)


# --- looking at files ------------------------------------------------------------------------------------------------


def extents(path: Path) -> list[tuple[int, int]]:
    """The allocated ranges (offset, length) of a file, as SEEK_DATA and SEEK_HOLE tell them."""
    found = []
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < size:
            try:
                start = os.lseek(file.fileno(), offset, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole follows
                break
            offset = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found.append((start, offset - start))
    return found


def allocated(path: Path) -> int:
    """The bytes that a file takes on its file system."""
    return path.stat().st_blocks * 512


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two files have the same size and bytes; what is a hole in both is not read."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as a, other.open("rb") as b:
        for start, length in sorted({*extents(one), *extents(other)}):
            for offset in range(start, start + length, MIB):
                count = min(MIB, start + length - offset)
                if os.pread(a.fileno(), count, offset) != os.pread(b.fileno(), count, offset):
                    return False
    return True


def _make_fixtures() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree, image = Path(folder, "tree"), Path(folder, "disk")
        tree.mkdir()
        write_tree(tree, seed=1, data=700 * KIB)
        make_ext4(image, 64 * MIB, tree, seed=1)
        compressor = zstandard.ZstdCompressor(level=19)
        for name in ("base", "edited"):
            if name == "edited":
                edit_with_debugfs(image, seed=2, changed=8, rows=50, added=3, removed=2)
            (FIXTURES / f"{name}.ext4.zst").write_bytes(compressor.compress(image.read_bytes()))


if __name__ == "__main__":
    _make_fixtures()
