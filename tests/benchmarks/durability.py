"""What durability costs: the same captures and restores with every fsync and without any.

In every round the disks of the series go into two stores, one with `--durability full` and one with `none`. Each step
is done in both, one right after the other, and which is first changes from step to step and from round to round. What
was written before is on the disk when a command starts.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from tests.benchmarks.measure import Command, run
from tests.benchmarks.report import Table, mebibytes, say, seconds
from tests.benchmarks.series import GENERATIONS
from tests.benchmarks.speed import Goal, warm
from tests.benchmarks.tools import Casstore
from tests.support import disks

FULL, NONE = "full", "none"
AGAIN = "a disk that is stored already"
RESTORE = "restore"
_BOUND = 1.3


class Durability(TypedDict):
    """The result, as it goes into the JSON."""

    allocated: dict[str, int]
    """Bytes by disk."""
    seconds: dict[str, dict[str, list[float]]]
    """By what was done, then by durability: one of each round."""


def durability(images: Mapping[str, Path], work: Path, *, rounds: int) -> Durability:
    """All rounds on these disks."""
    result = Durability(allocated={name: disks.allocated(path) for name, path in images.items()}, seconds={})
    for number in range(rounds):
        order = itertools.cycle([(FULL, NONE), (NONE, FULL)][:: -1 if number % 2 else 1])
        with tempfile.TemporaryDirectory(dir=work) as folder:
            for what, image, commands in _steps(images, Path(folder)):
                for mode in next(order):
                    warm(image)
                    tool, command = commands[mode]
                    took = run(command, cwd=tool.repository.parent, env=tool.env).seconds
                    result["seconds"].setdefault(what, {FULL: [], NONE: []})[mode].append(took)
        say(f"round {number + 1}: create, series: {ratios(result, series(result))[-1]:.2f} times as long")
    return result


def _steps(images: Mapping[str, Path], folder: Path) -> Iterator[tuple[str, Path, dict[str, tuple[Casstore, Command]]]]:
    """What is done, to what disk, and how for each durability."""
    tools = {mode: Casstore(folder / mode) for mode in (FULL, NONE)}
    for mode in tools:
        (folder / mode).mkdir()
    parent: str | None = None
    last = GENERATIONS[-1]
    for name in GENERATIONS:
        disk = images[name]
        yield f"create {name}", disk, {m: (t, _with(m, t.create(name, disk, parent))) for m, t in tools.items()}
        parent = name
    disk = images[last]
    yield f"create: {AGAIN}", disk, {m: (t, _with(m, t.create("again", disk, parent))) for m, t in tools.items()}
    restore = ["casstore", "restore", "--force", last, "restored"]
    yield RESTORE, disk, {m: (t, _with(m, restore)) for m, t in tools.items()}


def _with(mode: str, command: Command) -> Command:
    program, *words = command
    return [program, "--durability", mode, *words]


def series(result: Durability) -> list[str]:
    """The captures that belong together."""
    return [what for what in result["seconds"] if what.startswith("create ")]


def _totals(result: Durability, whats: Sequence[str], mode: str) -> list[float]:
    """Seconds of all of these together, in each round."""
    return [sum(each) for each in zip(*(result["seconds"][what][mode] for what in whats), strict=True)]


def ratios(result: Durability, whats: Sequence[str]) -> list[float]:
    """How many times longer all of these together take with every fsync, in each round."""
    pairs = zip(_totals(result, whats, FULL), _totals(result, whats, NONE), strict=True)
    return [full / none for full, none in pairs]


def tables(result: Durability) -> Iterator[Table]:
    """A row for each step, and one for the captures together."""
    rounds = len(next(iter(result["seconds"].values()))[FULL])
    allocated = mebibytes(result["allocated"][GENERATIONS[-1]])
    rows = []
    for name, whats in {**{what: [what] for what in result["seconds"]}, "create, series": series(result)}.items():
        medians = [statistics.median(_totals(result, whats, mode)) for mode in (FULL, NONE)]
        rows.append([name, *map(seconds, medians), f"{statistics.median(ratios(result, whats)):.2f}"])
    title = f"Medians of {rounds} rounds of pairs; {allocated} of the last disk allocated"
    yield Table(title, ["", "--durability full", "none", "full / none"], rows)
    goal = Goal("create, series: full / none", statistics.median(ratios(result, series(result))), _BOUND, _BOUND)
    row = [goal.name, f"{goal.got:.2f}", f"{goal.goal:.2f}", goal.verdict]
    yield Table("Durability: what has to hold", ["", "measured", "goal", ""], [row])
