"""A long chain: one real disk, a thousand small steps of an agent, a snapshot after each.

Deduplication alone would let such a history scatter: each snapshot would list hundreds of small packs, or a pull would
fetch big packs for one chunk each. This part says what every step adds, lists and would make a pull fetch, and holds it
against three limits. It reads the store's blobs itself, by the documented format, and asks no index.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from casstore import Snapshot, Store, spec
from casstore.diskmap import DiskMap, SnapshotMap
from casstore.durable import Durability
from casstore.frame import FrameKind
from casstore.pack import PackDirectory
from casstore.storedir import StoreOptions
from tests.benchmarks import series
from tests.benchmarks.measure import CommandFailed, run, stored
from tests.benchmarks.packages import Package, packages_of
from tests.benchmarks.report import Table, megabytes, say, seconds
from tests.benchmarks.tools import RESTORE, Casstore
from tests.support import disks

MIB = disks.MIB
FETCHED, WRITTEN = 1.6, 1.5
"""Bytes that a pull may fetch, to the bytes of the frames used; bytes written in all, to those of new frames."""


def most_packs(used: int) -> int:
    """How many packs a manifest may list whose frames have `used` bytes."""
    return 2 * -(-used // (32 * MIB)) + 96


# --- the steps -------------------------------------------------------------------------------------------------------


class Agent:
    """Works on a disk in small steps: mostly a few edits and rows, now and then a package comes or goes. It stays with
    the same forty files for some steps.
    """

    def __init__(self, packages: Sequence[Package], *, seed: int = 3) -> None:
        self._rng = random.Random(seed)
        self._text = disks.Text(self._rng)
        self._absent = list(packages)
        self._present: list[Package] = []
        self._files: list[Path] = []

    def work(self, root: Path) -> None:
        """One step, on the root of the disk's files."""
        rng = self._rng
        if not self._files or rng.random() < 0.04:
            self._files = [path.relative_to(root) for path in rng.sample(series.sources(root), 40)]
        chosen = rng.sample(self._files, rng.randint(1, 20))
        series.edit([root / name for name in chosen if (root / name).exists()], rng)
        if rng.random() < 0.5:
            series.change_rows(root, rng, rng.randint(1, 100))
        series.append_log(root, "agent.log", self._text.take(rng.randint(200, 20_000)))
        if self._absent and rng.random() < 0.02:
            package = self._absent.pop(rng.randrange(len(self._absent)))
            series.install(root, [package])
            self._present.append(package)
        if self._present and rng.random() < 0.015:
            package = self._present.pop(rng.randrange(len(self._present)))
            for name, _ in package.contents():
                (root / name).unlink()
            self._absent.append(package)


# --- what the store holds --------------------------------------------------------------------------------------------


class _Pack:
    """A pack's directory, in the columns that are asked for again and again."""

    def __init__(self, directory: PackDirectory) -> None:
        self._directory = directory
        self.stored = directory.stored.astype(np.int64)
        self.frames = directory.chunk_frames()
        self.ids: npt.NDArray[np.void] = np.frombuffer(directory.ids, "V32")
        self.deltas = directory.kinds == FrameKind.DELTA

    @cached_property
    def base_ids(self) -> npt.NDArray[np.void]:
        """One per delta frame."""
        return np.frombuffer(self._directory.base_ids, "V32")

    def keys(self) -> Iterator[tuple[bytes, int]]:
        """What each frame is, wherever it lies, and its stored bytes."""
        ids, bases = self._directory.ids, iter(self.base_ids.tolist())
        first = self._directory.first_chunk.tolist()
        for frame, delta in enumerate(self.deltas.tolist()):
            base = next(bases) if delta else b""
            yield ids[first[frame] * 32 : first[frame + 1] * 32] + base, int(self.stored[frame])


@dataclass(frozen=True)
class Step:
    """What a snapshot added to the store, and what it needs; bytes but for the count."""

    added: int
    """Of all its new blobs."""
    new_frames: int
    """Of frames that no step had before."""
    packs: int
    listed: int
    """Of everything that a pull into an empty store fetches."""
    used: int
    """Of the frames that its disk needs, bases included."""
    seconds: float


class Ledger:
    """Follows a store from snapshot to snapshot."""

    def __init__(self, store: Path) -> None:
        self._store, self._blobs = store, store / "blobs/sha256"
        self._seen: set[str] = set()
        self._frames: set[bytes] = set()
        self._packs: dict[str, _Pack] = {}

    def look(self, name: str, took: float) -> Step:
        """Account for the newest snapshot."""
        added = 0
        for blob in os.scandir(self._blobs):
            if blob.name not in self._seen:
                self._seen.add(blob.name)
                added += blob.stat().st_size
        manifest = json.loads((self._store / "refs" / name).read_bytes())
        layers = manifest["layers"]
        disk_map = next(layer for layer in layers if layer["mediaType"] == spec.MEDIA_MAP)
        parsed = SnapshotMap.parse(self._blob(disk_map).read_bytes(), subject=name)
        listed = [layer for layer in layers if layer["mediaType"] == spec.MEDIA_PACK]
        new_frames = 0
        for layer, entry in zip(listed, parsed.packs, strict=True):
            if layer["digest"] not in self._packs:
                self._packs[layer["digest"]] = pack = self._read(layer, entry.directory)
                for key, length in pack.keys():  # noqa: SIM118  # not a mapping
                    new_frames += 0 if key in self._frames else length
                    self._frames.add(key)
        packs = [self._packs[layer["digest"]] for layer in listed]
        size = (self._store / "refs" / name).stat().st_size + manifest["config"]["size"]
        return Step(
            added=added,
            new_frames=new_frames,
            packs=len(packs),
            listed=size + sum(layer["size"] for layer in layers),
            used=sum(
                int(pack.stored[used].sum()) for pack, used in zip(packs, _used(parsed.disks, packs), strict=True)
            ),
            seconds=took,
        )

    def _read(self, layer: dict[str, object], stamp: bytes) -> _Pack:
        size = int(str(layer["size"]))
        length = int.from_bytes(stamp[32:], "little")
        with self._blob(layer).open("rb") as blob:
            encoded = os.pread(blob.fileno(), length, size - length)
        return _Pack(PackDirectory.parse(encoded, size, subject=str(layer["digest"])))

    def _blob(self, layer: dict[str, object]) -> Path:
        return self._blobs / str(layer["digest"]).removeprefix("sha256:")


def _used(snapshot_disks: Sequence[DiskMap], packs: Sequence[_Pack]) -> list[npt.NDArray[np.bool_]]:
    """Per pack, which of its frames are needed."""
    steps = [np.zeros(len(pack.ids) + 1, np.int64) for pack in packs]
    for disk in snapshot_disks:
        runs = disk.runs
        for pack, first, count in zip(runs.pack.tolist(), runs.first.tolist(), runs.count.tolist(), strict=True):
            steps[pack][first] += 1
            steps[pack][first + count] -= 1
    used = []
    bases = []
    for pack, changes in zip(packs, steps, strict=True):
        mask = np.zeros(len(pack.stored), np.bool_)
        mask[pack.frames[np.cumsum(changes[:-1]) > 0]] = True
        used.append(mask)
        bases.append(pack.base_ids[mask[pack.deltas]])
    missing = np.unique(np.concatenate([np.empty(0, "V32"), *bases]))
    for pack, mask in zip(packs, used, strict=True):
        found = np.isin(pack.ids, missing) & ~pack.deltas[pack.frames]
        mask[pack.frames[found]] = True
        missing = np.setdiff1d(missing, pack.ids[found])
    if len(missing):
        raise CommandFailed(f"{len(missing)} bases are in none of the listed packs")
    return used


# --- the measurement -------------------------------------------------------------------------------------------------


class Chain(TypedDict):
    """The result, as it goes into the JSON; bytes and seconds."""

    steps: dict[str, list[float]]
    """The fields of Step, a list each."""
    pull: float
    pulled: int
    restore_first: float
    restore_last: float
    store_before: int
    store_after: int
    kept: int


def chain(work: Path, *, steps: int, data: int, kept: int = 10) -> Chain:
    """`steps` steps on a disk with about `data` bytes of packages; in the end all but `kept` snapshots are removed."""
    disk, first = work / "disk.ext4", work / "first.ext4"
    packages = packages_of(data, work / "spare")
    base = packages[: len(packages) * 9 // 10]
    series.make_empty(disk, max(1024 * MIB, 4 * data), number=1)
    with disks.loop_mounted(disk) as root:
        series.base_system(root, base, random.Random(2))
    agent = Agent([package for package in packages[len(base) :] if package.size < 8 * MIB])
    tool = Casstore(work)
    done: list[Step] = []
    ledger = Ledger(tool.repository)
    # How fast the disk below answers to fsync is no part of the question.
    options = StoreOptions(durability=Durability.NONE)
    with Store.open(tool.repository, create=True, options=options) as store:
        for number in range(1, steps + 1):
            if number > 1:
                with disks.loop_mounted(disk, "noatime") as root:
                    agent.work(root)
            else:
                series.copy_disk(disk, first)
            builder = Snapshot.builder(str(disk)).name(_name(number))
            start = time.perf_counter()
            store.create((builder.parent(_name(number - 1)) if number > 1 else builder).build())
            done.append(ledger.look(_name(number), time.perf_counter() - start))
            if number % 100 == 0:
                say(f"step {number}: {megabytes(statistics.mean(step.added for step in done[1:]))} each")
    restored = [_restore(tool, work, name, image) for name, image in ((_name(1), first), (_name(steps), disk))]
    pull, pulled = _pull(tool, work, _name(steps), disk)
    before = stored(tool.repository / "blobs")
    with Store.open(tool.repository, options=options) as store:
        for number in range(1, steps + 1 - kept):
            store.remove(_name(number), force=True)
        store.gc()
    return Chain(
        steps={field.name: [getattr(step, field.name) for step in done] for field in fields(Step)},
        pull=pull,
        pulled=pulled,
        restore_first=restored[0],
        restore_last=restored[1],
        store_before=before,
        store_after=stored(tool.repository / "blobs"),
        kept=kept,
    )


def _name(number: int) -> str:
    return f"step{number:05}"


def _restore(tool: Casstore, work: Path, name: str, expected: Path) -> float:
    with tempfile.TemporaryDirectory(dir=work) as folder:
        took = run(tool.restore(name, Path(folder, "restored"))[RESTORE], cwd=Path(folder), env=tool.env).seconds
        if not disks.same_bytes(expected, Path(folder, "restored")):
            raise CommandFailed(f"{name}: the restored disk differs")
    return took


def _pull(tool: Casstore, work: Path, name: str, expected: Path) -> tuple[float, int]:
    """Pull into an empty store; seconds, and bytes of the blobs that came."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        other = Casstore(Path(folder))
        command = ["casstore", "--durability", "none", "pull", f"oci:{tool.repository}:{name}", "--name", name]
        took = run(command, cwd=work, env=other.env).seconds
        _restore(other, Path(folder), name, expected)
        return took, sum(blob.stat().st_size for blob in (other.repository / "blobs/sha256").iterdir())


def tables(result: Chain) -> Iterator[Table]:
    """What the steps cost, and the three limits."""
    columns = result["steps"]
    steps = [Step(*row) for row in zip(*(columns[field.name] for field in fields(Step)), strict=True)]
    first, last, later = steps[0], steps[-1], steps[1:] or steps
    added = [step.added for step in later]
    rows = [
        ["first snapshot", megabytes(first.added)],
        ["bytes added per step, mean", megabytes(statistics.mean(added))],
        ["bytes added per step, median", megabytes(statistics.median(added))],
        ["bytes added by a step, most", megabytes(max(added))],
        ["time of a step, median", seconds(statistics.median(step.seconds for step in later))],
        ["packs listed, most", str(max(step.packs for step in steps))],
        ["packs listed, last step", str(last.packs)],
        ["bytes of the frames that the last step needs", megabytes(last.used)],
        ["bytes of a pull of the last step", megabytes(result["pulled"])],
        ["time of that pull, from a store on the same machine", seconds(result["pull"])],
        ["restore of the first step", seconds(result["restore_first"])],
        ["restore of the last step", seconds(result["restore_last"])],
        ["all bytes written", megabytes(sum(step.added for step in steps))],
        ["store with all steps", megabytes(result["store_before"])],
        [f"store with the last {result['kept']}, after gc", megabytes(result["store_after"])],
    ]
    yield Table(f"{len(steps)} steps", ["", ""], rows)
    rows = [
        [name, f"{worst:.2f}", f"{bound:.2f}", "holds" if worst <= bound else f"missed at {missed} steps"]
        for name, bound, per_step in _limits(steps)
        for worst, missed in [(max(per_step), sum(each > bound for each in per_step))]
    ]
    yield Table("Limits, at every step", ["", "worst", "has to hold", ""], rows)


def _limits(steps: Sequence[Step]) -> Iterator[tuple[str, float, list[float]]]:
    """(what, the most that it may be, what it was at each step)."""
    yield "bytes that a pull fetches / bytes of frames used", FETCHED, [step.listed / step.used for step in steps]
    packs = [step.packs / most_packs(step.used) for step in steps]
    yield "packs listed / (2 x frames used / 32 MiB + 96)", 1.0, packs
    written = np.cumsum([step.added for step in steps])
    new = np.cumsum([step.new_frames for step in steps])
    yield "bytes written so far / bytes of new frames", WRITTEN, (written / new).tolist()
