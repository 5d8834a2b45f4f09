"""Cuts the power under a store at random moments, and looks at what is left on the disk.

    unshare --mount --pid --fork --kill-child --mount-proc python -m tests.support.powercut FOLDER --images 60

prints a line of JSON: how many disks were looked at, how many steps had been reported as done on all of them together,
and what was wrong. In namespaces of its own, however it ends, no process, mount or loop device is left.

    FOLDER/xfs.image ──loop── an XFS that holds dev.img ──loop── the file system under test, which holds the store

Several processes change the store. Each writes to a log, which is outside, what it begins and what was reported to it
as done. Now and then dev.img is cloned (FICLONE); a clone is what the disk holds if the power goes out at that moment.
Afterwards each clone is mounted, so that its journal is replayed, and compared with the log as it was then.

Why a clone is what a power cut leaves:

- What the kernel has not written of the inner file system, its dirty pages and its journal in memory, belongs to the
  loop device, not to dev.img. It is missing from the clone, as it would be missing from a disk.
- Each write that the loop device has completed is in dev.img: in its pages, or on the outer disk. FICLONE takes
  dev.img's lock exclusively, so no write is half done; it writes the dirty pages back, then shares the extents, and
  lets writers in again when it is finished. So there is one instant: every write that was completed before it is in
  the clone, and none that began after it. (Direct I/O of the loop device could bypass that lock: it is off.)
- An fsync inside returns after its writes are completed. What was reported before the clone began is therefore in it.
- The disk that this stands for has no cache that forgets: whether fsync also flushes such caches is the kernel's part.

What a log line promises: the names of one process are changed by it alone, one step at a time. When a clone began, a
name was in the state that was reported last, or, if a step had been begun by the end of the clone, in that step's. Any
other state is a loss. "Not there" is a state, too: what was removed must not come back.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from casstore import Snapshot, Store
from casstore.checking.check import check
from casstore.checking.findings import Kind, Severity
from casstore.durable import Durability
from casstore.errors import NotFound
from casstore.retention import Policy
from casstore.storedir import StoreOptions
from tests.support import children, disks
from tests.support.stores import blobs, capture, content, disk_bytes, leftovers, reachable, write_disk

WORKERS = 4
NAMES = 3
"""Names and restored files that a worker has."""
_FICLONE = 0x40049409
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2  # XFS_IOC_GOINGDOWN, which ext4 has, too
_INNER: dict[disks.FileSystem, tuple[int, Sequence[str], str]] = {
    # How large, options of mkfs, and mount options: those of ext4 let it tear what was not synced as soon as it may.
    "ext4": (160 * disks.MIB, disks.EXT4_FEATURES, "commit=1,noauto_da_alloc"),
    "xfs": (320 * disks.MIB, (), "nouuid"),
    "btrfs": (320 * disks.MIB, (), "commit=1"),
}

Pieces = tuple[int, ...] | None
"""The content of a disk (stores.write_disk); None stands for "not there"."""


# --- what happened ----------------------------------------------------------------------------------------------------


class Log:
    """The log: each line is appended by one write, so that the lines of all processes have one order."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @property
    def size(self) -> int:
        """Bytes until now."""
        return os.fstat(self._fd).st_size

    @contextlib.contextmanager
    def step(self, subject: str, pieces: Pieces) -> Iterator[None]:
        """A change of `subject`, which is begun now, and reported as done when the block ends without an error."""
        self._append("begun", subject, pieces)
        yield
        self._append("done", subject, pieces)

    def _append(self, event: str, subject: str, pieces: Pieces) -> None:
        os.write(self._fd, json.dumps([event, subject, pieces]).encode() + b"\n")


def allowed(log: bytes, before: int) -> dict[str, set[Pieces]]:
    """The states in which each subject may be on a disk, if the log had `before` bytes when the power began to go out,
    and is `log` a moment later.
    """
    states: dict[str, set[Pieces]] = {}
    at = 0
    for line in log.splitlines(keepends=True):
        event, subject, listed = json.loads(line)
        pieces = None if listed is None else tuple(listed)
        if event == "begun":
            states.setdefault(subject, {None}).add(pieces)
        elif at < before:
            states[subject] = {pieces}
        at += len(line)
    return states


# --- the processes ----------------------------------------------------------------------------------------------------


@dataclass
class _Worker:
    """One process that changes the store."""

    root: Path
    scratch: Path
    log: Log
    number: int
    durability: Durability
    rng: random.Random
    mine: dict[str, Pieces] = field(default_factory=dict)
    """The state of each of its names."""

    def run(self) -> None:
        acts = [self.create] * 4 + [self.tag, self.remove, self.prune, self.pull, self.restore, self.collect]
        with Store.open(self.root / "store", options=StoreOptions(self.durability)) as store:
            while True:
                self.rng.choice(acts)(store)

    def create(self, store: Store) -> None:
        name = self._any()
        pieces = tuple(self.rng.randrange(1, 60) for _ in range(self.rng.randint(1, 6)))
        disk = write_disk(self.scratch / f"disk{self.number}", *pieces)
        with self._changing(name, pieces):
            Snapshot.builder(disk).name(name).label("worker", str(self.number)).force().create(store)

    def tag(self, store: Store) -> None:
        if source := self._taken():
            name = self._any()
            with self._changing(name, self.mine[source]):
                store.tag(source, name, force=True)

    def remove(self, store: Store) -> None:
        if name := self._taken():
            pieces = self.mine[name]
            with self._changing(name, None):
                store.remove(name, force=True)
            if self.rng.random() < 0.5:
                with contextlib.suppress(NotFound), self._changing(name, pieces):
                    store.undo(name)  # unless gc was quicker

    def prune(self, store: Store) -> None:
        policy, mine = Policy(last=1), {"worker": str(self.number)}
        now = datetime.now(UTC)
        names = store.prune(policy, now=now, labels=mine, dry_run=True).removed
        with contextlib.ExitStack() as stack:
            for name in names:
                stack.enter_context(self._changing(name, None))
            store.prune(policy, now=now, labels=mine)

    def pull(self, store: Store) -> None:
        name, number = self._any(), self.rng.randrange(1, 5)
        with self._changing(name, _elsewhere(number)):
            store.pull(f"oci:{self.scratch}/layout:n{number}", name=name, force=True)

    def restore(self, store: Store) -> None:
        if name := self._taken():
            number = self.rng.randrange(NAMES)
            with self.log.step(f"file w{self.number}-{number}", self.mine[name]):
                store.restore(name, self.root / f"restored/w{self.number}-{number}", force=True)

    def collect(self, store: Store) -> None:
        if self.rng.random() < 0.5:
            store.gc()

    def _any(self) -> str:
        return f"w{self.number}-{self.rng.randrange(NAMES)}"

    def _taken(self) -> str | None:
        names = sorted(name for name, pieces in self.mine.items() if pieces is not None)
        return self.rng.choice(names) if names else None

    @contextlib.contextmanager
    def _changing(self, name: str, pieces: Pieces) -> Iterator[None]:
        with self.log.step(f"ref {name}", pieces):
            yield
        self.mine[name] = pieces


def _elsewhere(number: int) -> tuple[int, ...]:
    """The snapshot `n<number>` of the layout that is pulled from."""
    return tuple(range(100 * number, 100 * number + 4))


# --- looking ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """A disk as a power cut left it, and how long the log was before and after that moment."""

    image: Path
    before: int
    after: int


@dataclass
class Findings:
    """What is wrong with the disks."""

    count: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    restored: dict[str, bytes] = field(default_factory=dict)
    """What came out of snapshots, by ref's target: where all blobs are right, the same comes out of every disk."""

    def add(self, kind: str, what: str) -> None:
        self.count[kind] += 1
        if len(self.told) < 20:
            self.told.append(f"{kind}: {what}")


def _look_at(cut: Cut, options: str, folder: Path, findings: Findings, *, log: str = "log") -> None:
    """Mount a disk, and look."""
    happened = (folder / log).read_bytes()[: cut.after]
    findings.count["disks"] += 1
    findings.count["steps"] += happened[: cut.before].count(b'["done"')
    with disks.loop_mounted(cut.image, options) as inner:
        try:
            _look(inner, allowed(happened, cut.before), findings, folder)
        except Exception as error:  # noqa: BLE001  (whatever is wrong is told)
            findings.add("failure", f"{type(error).__name__}: {error}")


def _look(root: Path, states: dict[str, set[Pieces]], findings: Findings, scratch: Path) -> None:
    """Compare a disk with what may be on it, without casstore's code as far as that goes."""
    store = root / "store"
    for path in (store / "blobs/sha256").iterdir():
        if hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
            findings.add("bad blob", f"{path.name}, {path.stat().st_size} bytes")
    refs: dict[str, str] = {}
    for path in (store / "refs").iterdir():
        if not path.name.startswith("."):
            refs[path.name] = os.readlink(path)
            if (problem := _unreachable(path)) is not None:
                findings.add("broken ref", f"{path.name}: {problem}")
    _look_with_casstore(store, refs, states, findings, scratch)
    for subject, possible in states.items():
        kind, name = subject.split(" ")
        file = root / "restored" / name
        if kind == "file" and not _is_one_of(possible, file.read_bytes() if file.exists() else None):
            findings.add("lost file", f"{name}: expected one of {possible}")


def _unreachable(ref: Path) -> str | None:
    """What is wrong with the snapshot of a ref; the bytes of the blobs were looked at."""
    try:
        document = json.loads(ref.read_bytes())
        for part in [document["config"], *document["layers"]]:
            blob = ref.parent.parent / "blobs/sha256" / part["digest"].removeprefix("sha256:")
            if not blob.is_file() or blob.stat().st_size != part["size"]:
                return f"blob {blob.name}"
    except (OSError, ValueError, LookupError) as error:
        return repr(error)
    return None


def _is_one_of(possible: set[Pieces], data: bytes | None) -> bool:
    return any(data == (None if pieces is None else disk_bytes(*pieces)) for pieces in possible)


def _look_with_casstore(
    root: Path, refs: dict[str, str], states: dict[str, set[Pieces]], findings: Findings, scratch: Path
) -> None:
    """Check the store, open it, restore every snapshot, collect garbage, and create one more."""
    for finding in check(str(root), StoreOptions(Durability.NONE, wait=0)).findings:
        # A name that was about to appear may be in the catalog, which is not synced, before it is in refs/ for good.
        in_flux = finding.kind is Kind.LOST_REF and any(len(states[f"ref {name}"]) > 1 for name in finding.snapshots)
        if finding.severity is Severity.DAMAGE and not in_flux:
            findings.add("check", str(finding))
    restored = findings.restored if not findings.told else {}
    with Store.open(root, options=StoreOptions(Durability.NONE, wait=0)) as opened:
        for problem in opened.problems():
            findings.add("problem", f"{problem.name}: {problem.problem}")
        if sorted(handle.name for handle in opened.list()) != sorted(refs):
            findings.add("problem", "the list is not what the refs say")
        for name, target in refs.items():
            if target not in restored:
                restored[target] = content(opened, name)
        for subject, possible in states.items():
            kind, name = subject.split(" ")
            data = restored[refs[name]] if name in refs else None
            if kind == "ref" and not _is_one_of(possible, data):
                findings.add("lost ref", f"{name}: expected one of {possible}, got {refs.get(name)}")
        opened.gc()
        if leftovers(root) or blobs(root) != reachable(root):
            findings.add("problem", f"gc left {leftovers(root)}, {blobs(root) ^ reachable(root)}")
        capture(opened, scratch, "after", 1, 200)
        if content(opened, "after") != disk_bytes(1, 200):
            findings.add("problem", "a snapshot that was made afterwards is wrong")


# --- all of it --------------------------------------------------------------------------------------------------------


def cut_power(folder: Path, kind: disks.FileSystem, images: int, durability: Durability, seed: int) -> Findings:
    """Clone the disk under the processes so many times, and look at all clones."""
    findings, log, rng = Findings(), Log(folder / "log"), random.Random(seed)
    size, features, options = _INNER[kind]
    with disks.file_system(folder, "xfs", size=4 * disks.GIB) as outer:
        device = disks.make_file_system(outer / "dev.img", kind, *features, size=size)
        cuts = []
        with disks.loop_mounted(device, options) as inner, _working(inner, folder, log, durability, rng) as workers:
            for number in range(images):
                time.sleep(rng.uniform(0.01, 0.3))
                target = outer / f"cut{number}.img"
                before = log.size
                _clone(device, target)
                cuts.append(Cut(target, before, log.size))
                if any(os.waitpid(worker, os.WNOHANG)[0] for worker in workers):
                    raise RuntimeError("a process failed; see above")
        device.unlink()
        for cut in cuts:
            _look_at(cut, options, folder, findings)
            cut.image.unlink()
    return findings


def _clone(source: Path, target: Path) -> None:
    with source.open("rb") as one, target.open("wb") as other:
        fcntl.ioctl(other, _FICLONE, one.fileno())


def shut_down(folder: Path, kind: disks.FileSystem, rounds: int, durability: Durability, seed: int) -> Findings:
    """Shut a file system down under the processes so many times, a new one each time, and look what it is then."""
    findings, rng = Findings(), random.Random(seed)
    size, features, options = _INNER[kind]
    for number in range(rounds):
        log = Log(folder / f"log{number}")
        device = disks.make_file_system(folder / f"dev{number}.img", kind, *features, size=size)
        with disks.loop_mounted(device, options) as inner, _working(inner, folder, log, durability, rng):
            time.sleep(rng.uniform(0.3, 1.5))
            before = log.size
            lose_power(inner)
            cut = Cut(device, before, log.size)
        _look_at(cut, options, folder, findings, log=f"log{number}")
        device.unlink()
    return findings


def lose_power(root: Path) -> None:
    """Let the ext4 or XFS at `root` write nothing more: not what is in memory, not even its journal."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
    finally:
        os.close(fd)


@contextlib.contextmanager
def _working(
    inner: Path, folder: Path, log: Log, durability: Durability, rng: random.Random
) -> Iterator[Sequence[int]]:
    """A new store in `inner`, which processes change until the end of the block; their ids."""
    if not (folder / "layout").exists():
        with Store.init(folder / "elsewhere") as other:
            for number in range(1, 5):
                capture(other, folder, f"n{number}", *_elsewhere(number))
                other.push(f"n{number}", f"oci:{folder}/layout")
    (inner / "restored").mkdir()
    Store.init(inner / "store").close()
    os.sync()
    seeds = [rng.random() for _ in range(WORKERS)]
    workers = [
        children.start(_Worker(inner, folder, log, number, durability, random.Random(seed)).run)
        for number, seed in enumerate(seeds)
    ]
    try:
        yield workers
    finally:
        children.kill(workers)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--how", choices=["clone", "shutdown"], default="clone")
    parser.add_argument("--kind", choices=list(_INNER), default="ext4")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--durability", choices=[each.value for each in Durability], default="full")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    cut = cut_power if args.how == "clone" else shut_down
    findings = cut(args.folder, args.kind, args.images, Durability(args.durability), args.seed)
    json.dump({"count": findings.count, "told": findings.told}, sys.stdout)


if __name__ == "__main__":
    main()
