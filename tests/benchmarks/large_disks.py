"""Looking into large disks: whether each file is what the kernel says, and what it costs.

    python -m tests.benchmarks.large_disks WORK DISK... [--remote N]

Each DISK (of `series`, as an example) is captured into a store in the folder WORK, restored, and mounted. Then all of
its files are listed with their digests, without mounting anything, and compared with those of the mount; and `cp` of
all of them with the mount as well. With --remote the snapshots are pushed to a docker-registry, and N random files of
each are read from there. Needs root and loop mounts.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from casstore import Snapshot
from casstore.diskfiles import FileEntry, Kind, copy_out, digest_file, list_files, read_file
from casstore.opened import open_remote
from casstore.registry import RegistryOptions, RegistryTarget
from casstore.store import Store
from casstore.transfer import TransferOptions
from tests.support.disks import MIB, loop_mounted
from tests.support.servers import registry

_PART = MIB


@dataclass(slots=True)
class Compared:
    """What was compared, and which paths differ."""

    files: int = 0
    hashed: int = 0
    differing: list[bytes] | None = None

    def differs(self, path: bytes) -> None:
        """Remember a difference."""
        self.differing = [*(self.differing or []), path]

    def __str__(self) -> str:
        differing = self.differing or []
        names = "".join(f"\n    {path!r}" for path in differing[:10])
        return f"{self.files} files, {self.hashed} bytes hashed, {len(differing)} differ{names}"


def compare(entries: list[tuple[FileEntry, str | None]], root: Path) -> Compared:
    """Compare a listing of a whole disk with a mount of it."""
    compared, base = Compared(), os.fsencode(root)
    listed = {entry.path: (entry, digest) for entry, digest in entries}
    there = set(_below(base))
    for path in sorted(there ^ set(listed)):
        compared.differs(path)
    for path in sorted(there & set(listed)):
        entry, digest = listed[path]
        info = os.lstat(base + path)
        compared.files += 1
        target = os.readlink(base + path) if stat.S_ISLNK(info.st_mode) else None
        same = (entry.kind.value, entry.mode, entry.uid, entry.gid, entry.links, entry.mtime_ns, entry.target) == (
            *(stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid),
            *(info.st_nlink, info.st_mtime_ns, target),
        )
        if entry.kind is Kind.FILE:
            same = same and entry.size == info.st_size and digest == _digest(base + path)
            compared.hashed += info.st_size
        if not same or entry.inode != info.st_ino:
            compared.differs(path)
    return compared


def compare_trees(copy: Path, root: Path) -> Compared:
    """Compare what `cp` has made with a mount; both by the kernel."""
    compared, ours, theirs = Compared(), os.fsencode(copy), os.fsencode(root)
    mine, there = set(_below(ours)), set(_below(theirs))
    for path in sorted(mine ^ there):
        info = os.lstat(theirs + path) if path in there else None
        if info is None or stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode) or stat.S_ISLNK(info.st_mode):
            compared.differs(path)
    for path in sorted(mine & there):
        one, other = os.lstat(ours + path), os.lstat(theirs + path)
        compared.files += 1
        same = (one.st_mode, one.st_uid, one.st_gid, one.st_mtime_ns) == (
            *(other.st_mode, other.st_uid, other.st_gid, other.st_mtime_ns),
        )
        if stat.S_ISLNK(one.st_mode):
            same = same and os.readlink(ours + path) == os.readlink(theirs + path)
        if stat.S_ISREG(one.st_mode):
            same = same and one.st_nlink == other.st_nlink and _digest(ours + path) == _digest(theirs + path)
            compared.hashed += one.st_size
        if not same:
            compared.differs(path)
    return compared


def _below(base: bytes) -> Iterator[bytes]:
    for folder, directories, names in os.walk(base):
        for name in (*directories, *names):
            yield os.path.join(folder, name)[len(base) :]


def _digest(path: bytes) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _timed(what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    print(f"  {what}: {time.monotonic() - start:.2f} s", flush=True)


def look(store: Store, name: str, disk: Path, work: Path) -> list[FileEntry]:
    """Check one disk; returns its regular files."""
    print(name)
    with _timed("create"):
        Snapshot.builder(disk).name(name).create(store)
    restored, copy = work / "restored", work / "copy"
    store.restore(name, str(restored))
    with store.look_into(name) as opened:
        files = opened.filesystem()
        with _timed("list all"):
            plain = list(list_files(files, recursive=True))
        files = opened.filesystem()
        with _timed("list all, with digests"):
            entries = [
                (entry, digest_file(files, entry) if entry.kind is Kind.FILE else None)
                for entry in list_files(files, recursive=True)
            ]
        files = opened.filesystem()
        with _timed("cp of all"):
            copied = copy_out(files, b"/", str(copy), owners=True)
    print(f"  {copied.files} files copied, {copied.content_bytes} bytes, {copied.skipped} left out")
    with loop_mounted(restored, "ro") as root:
        print(f"  listing: {compare(entries, root)}")
        print(f"  copy: {compare_trees(copy, root)}", flush=True)
    shutil.rmtree(copy)
    restored.unlink()
    return [entry for entry in plain if entry.kind is Kind.FILE]


def look_from_afar(store: Store, name: str, place: str, expected: list[FileEntry], count: int) -> None:
    """Read random files from a registry, and compare them with the same read from the store."""
    options = TransferOptions(lambda reference: RegistryTarget(reference, RegistryOptions(plain_http=True)))
    store.push(name, f"{place}:{name}", options=options)
    chosen = random.Random(name).sample(expected, min(count, len(expected)))
    compared = Compared()
    with store.look_into(name) as here, open_remote(f"{place}:{name}", options) as there:
        near, far = here.filesystem(), there.filesystem()
        with _timed(f"{len(chosen)} random files from the registry"):
            for entry in chosen:
                compared.files += 1
                compared.hashed += entry.size
                if _hash_parts(read_file(far, entry.path)) != _hash_parts(read_file(near, entry.path)):
                    compared.differs(entry.path)
        traffic = there.traffic
        print(f"  from the registry: {compared}")
        print(f"  fetched {traffic.bytes} bytes in {traffic.requests} requests, of {there.stored_bytes}", flush=True)


def _hash_parts(parts: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("disks", type=Path, nargs="+", metavar="DISK")
    parser.add_argument("--remote", type=int, default=0, metavar="N", help="random files to read from a registry")
    args = parser.parse_args()
    args.work.mkdir(parents=True)
    with Store.open(args.work / "store", create=True) as store:
        found = {disk.stem: look(store, disk.stem, disk, args.work) for disk in args.disks}
        if args.remote:
            (args.work / "registry").mkdir()
            with registry(args.work / "registry") as running:
                for name, files in found.items():
                    look_from_afar(store, name, f"{running.host}/disks", files, args.remote)
    shutil.rmtree(args.work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
