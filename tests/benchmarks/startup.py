"""How long the command line takes when there is nothing to do."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from tests.benchmarks.measure import run
from tests.benchmarks.report import Table, mebibytes
from tests.benchmarks.tools import Casstore

# In one process: a thousand starts would take minutes.
_FILL = """
import sys
from casstore.cli.main import main
for number in range(int(sys.argv[1])):
    with open("disk", "wb") as disk:
        disk.write(b"%d" % number * 1024)
    main(["create", f"snapshot{number}", "--disk", "disk", "--quiet"], standalone_mode=False)
"""


class Startup(TypedDict):
    """The result, as it goes into the JSON."""

    snapshots: int
    seconds: dict[str, float]
    """Medians by command."""
    peak: dict[str, int]
    """Bytes."""


def startup(work: Path, *, snapshots: int, rounds: int) -> Startup:
    """Commands in a store of that many snapshots."""
    tool = Casstore(work)
    run([sys.executable, "-c", _FILL, str(snapshots)], cwd=work, env=tool.env)
    result = Startup(snapshots=snapshots, seconds={}, peak={})
    for name in ("--version", "ls"):
        costs = [run(["casstore", name], cwd=work, env=tool.env) for _ in range(max(5, rounds))]
        result["seconds"][name] = statistics.median(cost.seconds for cost in costs)
        result["peak"][name] = max(cost.peak for cost in costs)
    return result


def tables(result: Startup) -> Iterator[Table]:
    """A row per command."""
    rows = [[name, f"{took:.3f} s", mebibytes(result["peak"][name])] for name, took in result["seconds"].items()]
    yield Table(f"A store of {result['snapshots']} snapshots", ["casstore", "median time", "peak"], rows)
