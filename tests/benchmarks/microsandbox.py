"""Create, export and import beside microsandbox: the same stopped sandbox, the same archives.

The disk of the sandbox is 4 GiB of holes with some data in it. Both tools take a snapshot of it and record its
integrity, casstore as the same Merkle root that they compute; casstore also cuts, deduplicates and compresses it.
Both export that snapshot, compressed, in the form of that version. Both import the archive that microsandbox wrote,
which leaves a directory with the disk there, and a snapshot in the store here: "import, with its directory" is both.

Inside a round the two take turns, and who is first changes; each starts with an empty home, or store.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tests.benchmarks.measure import Command, CommandFailed, Cost, run
from tests.benchmarks.report import Table, mebibytes, megabytes, say, seconds
from tests.benchmarks.speed import Goal, warm
from tests.benchmarks.tools import Casstore
from tests.support import disks
from tests.support.microsandbox import DIALECTS, PACKAGES, RealTool, Version

OURS, THEIRS = "casstore", "microsandbox"
PEERS: tuple[Version, ...] = ("0.6.18", "0.7.11")
CREATE, EXPORT, IMPORT, IMPORT_TO = "create", "export", "import", "import, with its directory"
START = "start-up"
"""Python's, mostly: `casstore list` of that one snapshot."""
COMPARED = {CREATE: CREATE, EXPORT: EXPORT, IMPORT: IMPORT, IMPORT_TO: IMPORT}
"""What casstore did -> what microsandbox's part of it is."""
MOST_MEMORY = 200 * disks.MIB
_PIECES = 16
"""Stretches of data on a disk."""
_BOX, _NAME = "box", "first"

Took = dict[str, dict[str, list[float]]]
"""By what was done, then by tool: seconds, one of each round."""


class Microsandbox(TypedDict):
    """The result, as it goes into the JSON. Sizes are bytes of data, as texts."""

    logical: int
    seconds: dict[str, dict[str, Took]]
    """By version, then by size."""
    peak: dict[str, dict[str, dict[str, dict[str, int]]]]
    """The same, bytes: the largest of all rounds."""
    archive: dict[str, dict[str, dict[str, int]]]
    """Bytes of the export by version, size and tool."""


def microsandbox(work: Path, *, logical: int, sizes: Sequence[int], rounds: int) -> Microsandbox:
    """All rounds, with disks of `logical` bytes that have `sizes` bytes of data."""
    images = {str(size): _make_disk(work / f"{size}.disk", logical, size) for size in sizes}
    result = Microsandbox(logical=logical, seconds={}, peak={}, archive={})
    for number in range(rounds):
        for version, (size, image) in itertools.product(PEERS, images.items()):
            with tempfile.TemporaryDirectory(dir=work) as folder:
                turn = _Turn(version, Path(folder), image)
                took = result["seconds"].setdefault(version, {}).setdefault(size, {})
                peak = result["peak"].setdefault(version, {}).setdefault(size, {})
                for what, tool, cost in turn.measure(backwards=bool(number % 2)):
                    took.setdefault(what, {}).setdefault(tool, []).append(cost.seconds)
                    peaks = peak.setdefault(what, {})
                    peaks[tool] = max(peaks.get(tool, 0), cost.peak)
                result["archive"].setdefault(version, {})[size] = turn.archives()
                turn.check()
            told = ", ".join(f"{what} {ratios(took, what)[-1]:.2f}" for what in COMPARED)
            say(f"round {number + 1}: {version}, {mebibytes(int(size))}: times {THEIRS}'s: {told}")
    return result


def _make_disk(path: Path, logical: int, data: int) -> Path:
    """A sparse disk; its data, half of it text, lies in stretches over all of it."""
    filled = path.with_suffix(".data")
    disks.write_mixed_file(filled, data, seed=1)
    piece = data // _PIECES
    with filled.open("rb") as source, path.open("wb") as out:
        out.truncate(logical)
        for number in range(_PIECES):
            out.seek(number * (logical // _PIECES))
            out.write(source.read(piece))
    filled.unlink()
    return path


@dataclass
class _Turn:
    """One version and one disk, in an empty folder."""

    version: Version
    folder: Path
    image: Path

    def __post_init__(self) -> None:
        self._here = RealTool(self.version, self.folder / "here")
        self._there = RealTool(self.version, self.folder / "there")
        self._upper = self._here.add_sandbox(_BOX, upper=self.image)
        self._stores = {name: Casstore(self.folder / name) for name in ("store", "imported", "restored")}
        self._archive = {tool: self.folder / f"{tool}.tar.zst" for tool in (OURS, THEIRS)}
        self._directory = self.folder / "directory"
        [self._msb] = (PACKAGES / self.version).glob("lib/python*/site-packages/microsandbox/_bundled/bin/msb")

    def measure(self, *, backwards: bool) -> Iterator[tuple[str, str, Cost]]:
        """What was done, by which tool, and what it took."""
        for what, commands in self._steps():
            order = list(commands.items())
            for tool, (command, env) in reversed(order) if backwards else order:
                warm(self._upper)
                yield what, tool, run(command, cwd=self.folder, env=env)

    def _steps(self) -> Iterator[tuple[str, Mapping[str, tuple[Command, Mapping[str, str]]]]]:
        here, there = self._here.env, self._there.env
        store, imported, restored = (tool.env for tool in self._stores.values())
        ours, theirs = self._archive[OURS], self._archive[THEIRS]
        snapshot, source = (_NAME, "--from") if self.version == "0.6.18" else (f"{_BOX}:{_NAME}", "--sandbox")
        at_home = {**store, "MSB_HOME": str(self._here.home)}
        create: Command = ["casstore", "create", _NAME, "--from", _BOX, "--integrity=blake3-merkle", "-q"]
        export: Command = ["casstore", "export", _NAME, ours, "--as", DIALECTS[self.version], "-q"]
        load: Command = ["casstore", "import", theirs]
        msb: Command = [self._msb, "snapshot"]
        yield (
            CREATE,
            {
                OURS: (create, at_home),
                THEIRS: ([*msb, "create", _NAME, source, _BOX, "--integrity", "-q"], here),
            },
        )
        yield EXPORT, {OURS: (export, store), THEIRS: ([*msb, "save", snapshot, theirs], here)}
        yield IMPORT, {OURS: ([*load, "--name", _NAME, "-q"], imported), THEIRS: ([*msb, "load", theirs], there)}
        yield IMPORT_TO, {OURS: ([*load, self._directory, "--name", _NAME, "-q"], restored)}
        yield START, {OURS: (["casstore", "list", "-q"], store)}

    def archives(self) -> dict[str, int]:
        """Bytes of what each exported."""
        return {tool: path.stat().st_size for tool, path in self._archive.items()}

    def check(self) -> None:
        """What was imported must be the disk, and they must be able to read what casstore exported."""
        [restored] = [path for path in self._directory.rglob("*") if path.suffix in {".ext4", ".raw"}]
        if not disks.same_bytes(self.image, restored):
            raise CommandFailed("casstore: the disk that was imported differs")
        told = RealTool(self.version, self.folder / "reader").load(self._archive[OURS])
        if told.upper != "verified":
            raise CommandFailed(f"casstore: microsandbox {self.version} does not verify the export: {told.error}")


# --- what is looked at -----------------------------------------------------------------------------------------------


def ratios(took: Took, what: str) -> list[float]:
    """Ours to theirs, in each round."""
    return [ours / theirs for ours, theirs in zip(took[what][OURS], took[COMPARED[what]][THEIRS], strict=True)]


def goals(result: Microsandbox) -> Iterator[Goal]:
    """What has to hold."""
    peaks = [peak[what][OURS] for sizes in result["peak"].values() for peak in sizes.values() for what in COMPARED]
    yield Goal(f"memory: largest peak / {mebibytes(MOST_MEMORY)}", max(peaks) / MOST_MEMORY, 1.0, 1.0)


def tables(result: Microsandbox) -> Iterator[Table]:
    """One of each version: a row for each thing and size."""
    head = ["", OURS, THEIRS, f"{OURS} / {THEIRS}", f"peak, {OURS}", f"peak, {THEIRS}"]
    for version, sizes in result["seconds"].items():
        rows = [
            _row(f"{what}, {mebibytes(int(size))}", what, took, result["peak"][version][size])
            for size, took in sizes.items()
            for what in took
        ]
        rounds = len(next(iter(sizes.values()))[START][OURS])
        archives = "; ".join(
            f"of {mebibytes(int(size))}, {OURS}'s {megabytes(each[OURS])} and theirs {megabytes(each[THEIRS])}"
            for size, each in result["archive"][version].items()
        )
        title = f"{THEIRS} {version}, medians of {rounds} rounds of pairs; disks of {mebibytes(result['logical'])}"
        yield Table(f"{title}; exports: {archives}", head, rows)
    judged = [[goal.name, f"{goal.got:.2f}", f"{goal.bound:.2f}", goal.verdict] for goal in goals(result)]
    yield Table(f"Beside {THEIRS}: what has to hold", ["", "measured", "at most", ""], judged)


def _row(name: str, what: str, took: Took, peak: Mapping[str, Mapping[str, int]]) -> list[str]:
    tools = (OURS, THEIRS)
    medians = [seconds(statistics.median(took[what][tool])) if tool in took[what] else "" for tool in tools]
    peaks = [mebibytes(peak[what][tool]) if tool in peak[what] else "" for tool in tools]
    return [name, *medians, f"{statistics.median(ratios(took, what)):.2f}" if what in COMPARED else "", *peaks]
