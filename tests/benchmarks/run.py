"""Compare casstore with borg, restic, casync and skopeo, and measure memory, start-up and long histories: `make bench`.

    python -m tests.benchmarks.run [--only PART]... [--rounds N] [--peer-rounds N] [--data MIB] [--out DIR]

    speed       a sandbox's disk in six generations, and its packages on another disk: time, bytes, the machine's limit
    tidy        the same on small disks that debugfs wrote; they are not representative, so they stand apart
    transfer    push and pull beside skopeo, with the same docker-registry
    durability  the same captures with every fsync and without any
    memory      the peak of create, push, pull and restore at two sizes of disk
    looking     what it takes to look into a snapshot in a registry, beside a pull of all of it
    startup     how long the command line takes when there is nothing to do
    chain       1,000 small steps of one disk: what each adds, lists and fetches
    scale       what looking costs in stores of many snapshots
    microsandbox  create, export and import beside two versions of it

Without --out it only prints; `make bench` writes docs/benchmarks/.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks import (
    chain,
    durability,
    looking,
    memory,
    microsandbox,
    page,
    scale,
    series,
    speed,
    startup,
    transfer,
)
from tests.benchmarks.measure import CommandFailed
from tests.benchmarks.report import Table, say
from tests.support import needs

MIB = series.MIB

Outcome = tuple[Mapping[str, Any], Iterable[Table]]
"""A part's result, and how it is shown."""


def _speed(args: argparse.Namespace, work: Path) -> Outcome:
    measured = speed.speed(_images(args, work), work, rounds=args.rounds, slow_rounds=args.peer_rounds)
    return measured, speed.tables(measured)


def _images(args: argparse.Namespace, work: Path) -> Mapping[str, Path]:
    if args.disks is not None:
        return {name: args.disks / f"{name}.ext4" for name in (*series.GENERATIONS, series.REORDERED)}
    return series.make_series(work, size=args.size * MIB, data=args.data * MIB)


def _tidy(args: argparse.Namespace, work: Path) -> Outcome:
    # Small, once, and only with the quick peers: it is there for the difference.
    opened = series.FromTree(work)
    images = series.make_series(work, size=args.size * MIB // 4, data=args.data * MIB // 5, opened=opened)
    measured = speed.speed(images, work, rounds=1, slow_rounds=0)
    return measured, list(speed.tables(measured))[:2]


def _transfer(args: argparse.Namespace, work: Path) -> Outcome:
    measured = transfer.transfer(work, data=args.transfer_data * MIB, rounds=args.rounds)
    return measured, transfer.tables(measured)


def _durability(args: argparse.Namespace, work: Path) -> Outcome:
    measured = durability.durability(_images(args, work), work, rounds=args.rounds)
    return measured, durability.tables(measured)


def _memory(args: argparse.Namespace, work: Path) -> Outcome:
    measured = memory.memory(work, sizes=[size * MIB for size in args.memory])
    return measured, memory.tables(measured)


def _looking(args: argparse.Namespace, work: Path) -> Outcome:
    measured = looking.looking(work, size=args.size * MIB, data=args.looking_data * MIB)
    return measured, looking.tables(measured)


def _startup(args: argparse.Namespace, work: Path) -> Outcome:
    measured = startup.startup(work, snapshots=args.snapshots, rounds=args.rounds)
    return measured, startup.tables(measured)


def _chain(args: argparse.Namespace, work: Path) -> Outcome:
    measured = chain.chain(work, steps=args.steps, data=args.chain_data * MIB)
    return measured, chain.tables(measured)


def _scale(args: argparse.Namespace, work: Path) -> Outcome:
    measured = scale.scale(work, snapshots=args.scale_snapshots, chunks=args.scale_chunks)
    return measured, scale.tables(measured)


def _microsandbox(args: argparse.Namespace, work: Path) -> Outcome:
    sizes = [size * MIB for size in args.sparse]
    measured = microsandbox.microsandbox(work, logical=args.size * MIB, sizes=sizes, rounds=args.rounds)
    return measured, microsandbox.tables(measured)


PARTS: dict[str, Callable[[argparse.Namespace, Path], Outcome]] = {
    "speed": _speed,
    "tidy": _tidy,
    "transfer": _transfer,
    "durability": _durability,
    "memory": _memory,
    "looking": _looking,
    "startup": _startup,
    "chain": _chain,
    "scale": _scale,
    "microsandbox": _microsandbox,
}
_NEEDS = {
    "speed": ("mke2fs", "loop"),
    "tidy": ("mke2fs", "debugfs"),
    "transfer": ("mke2fs", "loop", "docker-registry", "skopeo"),
    "durability": ("mke2fs", "loop"),
    "looking": ("mke2fs", "debugfs", "docker-registry"),
    "chain": ("mke2fs", "loop"),
    "microsandbox": ("microsandbox",),
}


def main() -> int:
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(description=lines[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="leave out the other parts")
    parser.add_argument("--rounds", type=int, default=3, help="times that everything is measured (%(default)s)")
    parser.add_argument("--peer-rounds", type=int, default=1, help="the same for restic and casync (%(default)s)")
    parser.add_argument("--size", type=int, default=4096, help="logical MiB of the disks (%(default)s)")
    parser.add_argument("--data", type=int, default=540, help="MiB of packages on them (%(default)s)")
    parser.add_argument("--disks", type=Path, help="a folder with disks that tests.benchmarks.series made")
    parser.add_argument("--transfer-data", type=int, default=800, help="MiB of packages on its disk (%(default)s)")
    parser.add_argument("--memory", type=int, nargs="+", default=[1024, 4096], help="allocated MiB of its disks")
    parser.add_argument("--looking-data", type=int, default=700, help="MiB of files on its disk (%(default)s)")
    parser.add_argument("--snapshots", type=int, default=1000, help="snapshots of the start-up test (%(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="steps of the chain (%(default)s)")
    parser.add_argument("--chain-data", type=int, default=300, help="MiB of packages on its disk (%(default)s)")
    parser.add_argument("--scale-snapshots", type=int, default=10_000, help="snapshots of its store (%(default)s)")
    parser.add_argument("--scale-chunks", type=int, default=1_000_000, help="chunks of its store (%(default)s)")
    parser.add_argument("--sparse", type=int, nargs="+", default=[1, 512], help="MiB of data beside microsandbox")
    parser.add_argument("--work", type=Path, help="folder for disks and repositories (a temporary one)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write results.json, charts and the page to DIR")
    args = parser.parse_args()

    failed = False
    for name, part in PARTS.items():
        if args.only and name not in args.only:
            continue
        if missing := [need for need in _NEEDS.get(name, ()) if not needs.available(need)]:
            say(f"{name}: left out, this machine lacks {', '.join(missing)}")
            continue
        say(f"\n=== {name}\n")
        with tempfile.TemporaryDirectory(dir=args.work or args.disks) as folder:
            try:
                result, tables = part(args, Path(folder).resolve())
                shown = list(tables)
            except CommandFailed as error:
                say(str(error))
                failed = True
                continue
        for table in shown:
            say(table.text())
        if args.out:
            page.update(args.out, name, result, shown)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
