"""Speed and size: every tool keeps the same series of disks and gives the last one back.

In every round each tool starts with an empty repository, keeps gen1 to gen6 one after the other under one path, as a
sandbox's disk lies under one, then the re-ordered disk, and restores gen6. The tools take turns inside a round, so
that a busy moment of the machine hits all of them, and what is compared is the ratio inside a round. The disks are in
the page cache, and nothing waits to be written, when a command starts.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tests.benchmarks import kernels
from tests.benchmarks.measure import CommandFailed, run, stored
from tests.benchmarks.report import Table, mebibytes, megabytes, say, seconds
from tests.benchmarks.series import GENERATIONS, REORDERED, SMALL_EDIT
from tests.benchmarks.tools import RESTORE, RESTORE_DURABLE, TOOLS, Casstore, Tool
from tests.support import disks

Round = dict[str, float]
"""What one tool took in one round: "create gen1", ... and "restore" in seconds; "added gen1", ... in bytes; and "new
gen1", ... of casstore, plain bytes."""

OURS, REFERENCE = "casstore", "borg"
_LAST = GENERATIONS[-1]


class Speed(TypedDict):
    """The result, as it goes into the JSON."""

    logical: int
    allocated: dict[str, int]
    """Bytes by disk."""
    kernels: dict[str, kernels.Speeds]
    """By round."""
    rounds: dict[str, dict[str, Round]]
    """By tool, then by round."""


def speed(images: Mapping[str, Path], work: Path, *, rounds: int, slow_rounds: int) -> Speed:
    """All rounds of all tools that are installed, on these disks."""
    kinds = [kind for kind in TOOLS if kind.installed()]
    for kind in TOOLS:
        if kind not in kinds:
            say(f"{kind.name} is not installed: left out")
    result = Speed(
        logical=images[_LAST].stat().st_size,
        allocated={name: disks.allocated(path) for name, path in images.items()},
        kernels={},
        rounds={},
    )
    for number in range(rounds):
        takes_part = [kind for kind in kinds if number < slow_rounds or not kind.slow]
        turn = number % len(takes_part)
        result["kernels"][str(number)] = kernels.measure(images[_LAST], work)
        for kind in takes_part[turn:] + takes_part[:turn]:
            try:
                with tempfile.TemporaryDirectory(dir=work) as folder:
                    measured = one_round(kind(Path(folder)), Path(folder), images)
            except CommandFailed as error:
                if kind is Casstore:
                    raise
                say(f"round {number + 1}: {error}")
                continue
            result["rounds"].setdefault(kind.name, {})[str(number)] = measured
            say(f"round {number + 1}: {kind.name} kept the series in {seconds(_series(measured, 'create'))}")
    return result


def one_round(tool: Tool, folder: Path, images: Mapping[str, Path]) -> Round:
    """One tool, starting from nothing."""
    measured: Round = {}
    if command := tool.prepare():
        run(command, cwd=folder, env=tool.env)
    parent: str | None = None
    before = stored(tool.repository)
    for name, image in images.items():
        warm(image)
        disk = folder / ("other.ext4" if name == REORDERED else "disk.ext4")
        disk.unlink(missing_ok=True)
        os.link(image, disk)
        cost = run(tool.create(name, disk, None if name == REORDERED else parent), cwd=folder, env=tool.env)
        after = stored(tool.repository)
        measured |= {f"create {name}": cost.seconds, f"added {name}": after - before}
        if isinstance(tool, Casstore):
            measured[f"new {name}"] = json.loads(cost.output)["new_bytes"]
        parent, before = name, after
    disk = folder / "disk.ext4"
    for way, command in tool.restore(_LAST, disk).items():
        with tempfile.TemporaryDirectory(dir=folder) as target:
            measured[way] = run(command, cwd=Path(target), env=tool.env).seconds
            if not disks.same_bytes(images[_LAST], tool.restored(Path(target), disk)):
                raise CommandFailed(f"{tool.name}: the restored disk differs")
    return measured


def warm(disk: Path) -> None:
    """Bring what is allocated of a disk into the page cache."""
    with disk.open("rb") as file:
        for start, length in disks.extents(disk):
            for offset in range(start, start + length, disks.MIB):
                os.pread(file.fileno(), disks.MIB, offset)


# --- what is looked at -----------------------------------------------------------------------------------------------


def _series(one: Mapping[str, float], what: str) -> float:
    return sum(one[f"{what} {name}"] for name in GENERATIONS)


@dataclass(frozen=True)
class Figure:
    """One figure of a round."""

    name: str
    of: Callable[[Mapping[str, float]], float]
    show: Callable[[float], str]


FIGURES = {
    figure.name: figure
    for figure in (
        Figure("create, series", lambda one: _series(one, "create"), seconds),
        Figure("create, small edits", lambda one: one[f"create {SMALL_EDIT}"], seconds),
        Figure("restore", lambda one: one[RESTORE], seconds),
        Figure("stored, series", lambda one: _series(one, "added"), megabytes),
        Figure("stored, small edits", lambda one: one[f"added {SMALL_EDIT}"], megabytes),
        Figure("stored, re-ordered disk", lambda one: one[f"added {REORDERED}"], megabytes),
    )
}


def median(result: Speed, tool: str, figure: Figure) -> float:
    """Over a tool's rounds."""
    return statistics.median(figure.of(one) for one in result["rounds"][tool].values())


def ratio(result: Speed, tool: str, figure: Figure) -> float:
    """Ours to another tool's, the median of those inside a round."""
    ours, theirs = result["rounds"][OURS], result["rounds"][tool]
    return statistics.median(figure.of(ours[n]) / max(figure.of(theirs[n]), 1e-9) for n in ours if n in theirs)


def peers(result: Speed) -> list[str]:
    """The other tools that were measured."""
    return [name for name in result["rounds"] if name != OURS]


def walls(result: Speed) -> Iterator[tuple[str, float, float]]:
    """(what, median seconds, median of what it takes more than the limit) of casstore's own verbs."""
    rounds = result["rounds"][OURS]
    for name in GENERATIONS:
        limits = {
            n: kernels.create_limit(
                result["kernels"][n],
                allocated=result["allocated"][name],
                new=int(one[f"new {name}"]),
                stored=int(one[f"added {name}"]),
            )
            for n, one in rounds.items()
        }
        yield _wall(f"create {name}", rounds, limits)
    limits = {
        n: kernels.restore_limit(
            result["kernels"][n], allocated=result["allocated"][_LAST], stored=int(_series(one, "added"))
        )
        for n, one in rounds.items()
    }
    yield _wall(RESTORE, rounds, limits)


def _wall(what: str, rounds: Mapping[str, Round], limits: Mapping[str, float]) -> tuple[str, float, float]:
    wall = statistics.median(one[what] for one in rounds.values())
    return what, wall, statistics.median(one[what] / limits[n] for n, one in rounds.items())


@dataclass(frozen=True)
class Goal:
    """A figure, what is aimed at, and what has to hold."""

    name: str
    got: float
    goal: float
    bound: float

    @property
    def verdict(self) -> str:
        """In one word."""
        return "reached" if self.got <= self.goal else "holds" if self.got <= self.bound else "missed"


def goals(result: Speed) -> Iterator[Goal]:
    """Those that the measured tools allow to judge."""
    others = peers(result)
    times = (("create, series", 0.30, 0.40), ("create, small edits", 0.40, 0.50), ("restore", 0.25, 0.33))
    if REFERENCE in others:
        for name, goal, bound in times:
            yield Goal(f"{name}: times {REFERENCE}'s", ratio(result, REFERENCE, FIGURES[name]), goal, bound)
    sizes = (
        ("stored, small edits", 0.10, 0.15),
        ("stored, series", 1.00, 1.03),
        ("stored, re-ordered disk", 0.50, 0.60),
    )
    for name, goal, bound in sizes if others else ():
        best = max(ratio(result, other, FIGURES[name]) for other in others)
        yield Goal(f"{name}: times the best peer's", best, goal, bound)
    for what, _, over in walls(result):
        if what in {f"create {GENERATIONS[0]}", RESTORE}:
            yield Goal(f"{what}: wall / limit", over, 1.3, 1.6)


def tables(result: Speed) -> Iterator[Table]:
    """All of it."""
    tools = list(result["rounds"])
    last = result["allocated"][_LAST]
    size = f"disks of {mebibytes(result['logical'])}, {mebibytes(last)} of the last one allocated"
    head = ["", *FIGURES]
    rows = [[tool, *(figure.show(median(result, tool, figure)) for figure in FIGURES.values())] for tool in tools]
    rounds = ", ".join(f"{tool} {len(measured)}" for tool, measured in result["rounds"].items())
    yield Table(f"Medians (rounds: {rounds}); {size}", head, rows)
    rows = [
        [f"casstore / {tool}", *(f"{ratio(result, tool, figure):.2f}" for figure in FIGURES.values())]
        for tool in peers(result)
    ]
    if rows:
        yield Table("Ratios, medians of those inside a round", head, rows)
    names = list(result["allocated"])
    for what, show in (("create", seconds), ("added", megabytes)):
        rows = [
            [tool, *(show(statistics.median(one[f"{what} {name}"] for one in measured.values())) for name in names)]
            for tool, measured in result["rounds"].items()
        ]
        yield Table("Time of each disk" if what == "create" else "Bytes that each disk added", ["", *names], rows)
    durable = statistics.median(one[RESTORE_DURABLE] for one in result["rounds"][OURS].values())
    rows = [[what, seconds(wall), f"{over:.2f}"] for what, wall, over in walls(result)]
    yield Table("casstore and the limit of the machine", ["", "wall", "wall / limit"], [
        *rows, [RESTORE_DURABLE, seconds(durable), ""],
    ])  # fmt: skip
    rows = [
        [goal.name, f"{goal.got:.2f}", f"{goal.goal:.2f}", f"{goal.bound:.2f}", goal.verdict] for goal in goals(result)
    ]
    yield Table("Goals", ["", "measured", "goal", "has to hold", ""], rows)
    speeds = {
        kernel: statistics.median(one[kernel] for one in result["kernels"].values())
        for kernel in next(iter(result["kernels"].values()))
    }
    rows = [[kernel, f"{1e-6 / each:.0f} MB/s"] for kernel, each in speeds.items()]
    yield Table("Raw speeds of this machine, all cores", ["", ""], rows)
