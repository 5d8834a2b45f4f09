"""The documentation's page about the benchmarks, made from the measurements: results.json, charts, index.md.

python -m tests.benchmarks.page DIR     makes charts and page anew from DIR/results.json
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.page_charts import CHARTS
from tests.benchmarks.report import Table, machine_text
from tests.benchmarks.tools import TOOLS, version_of
from tests.support import disks

_HEAD = """# Benchmarks

<!-- Made by `make bench`: change tests/benchmarks/page.py, not this file. -->

`make bench` makes its disks itself, runs casstore beside borg, restic, casync and skopeo, and writes this page.
The numbers behind it are in [results.json](results.json). Machines differ, and so do runs on a shared one: the ratios
are taken inside a round, pair by pair. Run it on yours.

The disks are one sandbox in six generations, and its packages again on another disk: `gen1` a base system, `gen2` and
`gen3` after installing packages and a build, `gen4` after 60 small edits of source files and 500 rows of a database,
`gen5` after logs, caches and an upgrade, `gen6` after a cleanup and more edits; `reordered` is a new file system on
which the same packages were installed in another order. They are ext4, written through a mount, from the files of the
machine that ran this. borg cuts at fixed 1 MiB with zstd 3; restic and casync run with their defaults. casstore creates
with every fsync, and restores without, as the others do, unless it says "durable".

Push and pull run beside skopeo: the same artifact, the same docker-registry on the same machine, empty for each push;
both tools sync what they pull. "Transfer only" is `casstore copy` from the registry into an OCI layout, which is what
skopeo's pull is; `casstore pull` also decodes and checks every chunk. "Start-up" is the time until the snapshot's
manifest is here, nearly all of it Python's; it is in all of casstore's times.

microsandbox runs beside it on one stopped sandbox: both record the same integrity of its disk, both export that
snapshot in the same form, compressed, and both import the archive that microsandbox wrote. casstore's create and import
cut, deduplicate and compress the disk on the way; microsandbox's leave a
directory with the disk, and "with its directory" casstore writes that, too.
"""

_TITLES = {
    "speed": "Speed and size",
    "tidy": "A disk that was not written through a mount",
    "transfer": "Push and pull",
    "durability": "Durability",
    "memory": "Memory",
    "looking": "Looking into a registry",
    "startup": "Start-up",
    "chain": "A long chain of small steps",
    "scale": "Many snapshots",
    "microsandbox": "Beside microsandbox",
}


_SERVERS = ("skopeo", "docker-registry")


def circumstances() -> dict[str, object]:
    """When, how, on what machine and with which versions something was measured."""
    versions = {kind.name: kind.installed() for kind in TOOLS} | {name: version_of(name) for name in _SERVERS}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": _command(sys.argv[1:]),
        "machine": {
            "processor": _line_of("/proc/cpuinfo", "model name"),
            "cores": os.cpu_count(),
            "memory": f"{int(_line_of('/proc/meminfo', 'MemTotal').split()[0]) / disks.MIB:.0f} GiB",
            "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        },
        "versions": {"Python": platform.python_version(), **{name: said for name, said in versions.items() if said}},
    }


def _command(words: Sequence[str]) -> str:
    """What to type for the same measurement; where files went does not matter."""
    told = []
    places = iter(words)
    for word in places:
        if word in {"--out", "--work", "--disks"}:
            next(places, None)
        else:
            told.append(word)
    return "make bench" + (f' BENCH_ARGS="{shlex.join(told)}"' if told else "")


def _line_of(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return " ".join(line.partition(":")[2].split())
    return "unknown"


def update(folder: Path, name: str, result: Mapping[str, Any], tables: Iterable[Table]) -> None:
    """Write the page anew with the part `name`; the other parts stay as they were measured before."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    shown = [asdict(table) for table in tables]
    known[name] = {"measured": circumstances(), "result": result, "tables": shown}
    lines = (f"{json.dumps(part)}: {json.dumps(known[part])}" for part in known)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    draw(folder)


def draw(folder: Path) -> None:
    """The charts and the page, from results.json."""
    known: dict[str, Any] = json.loads((folder / "results.json").read_text())
    for name, charted in CHARTS.items():
        if name in known:
            (folder / f"{name}.svg").write_text(charted.draw(known[name]["result"]))
    (folder / "index.md").write_text(_page(known))


def _page(known: Mapping[str, Any]) -> str:
    parts = [_HEAD]
    for name, title in _TITLES.items():
        if name not in known:
            continue
        parts.append(f"## {title}\n")
        if name in CHARTS:
            parts.append(f"![{CHARTS[name].told}]({name}.svg)\n")
        parts += [Table(**shown).markdown() for shown in known[name]["tables"]]
        measured = known[name]["measured"]
        machine, versions = measured["machine"], measured["versions"]
        parts.append(
            f"Measured on {measured['date']} with `{measured['command']}`:"
            f" {machine_text(machine)};"
            f" {', '.join(_version(*pair) for pair in versions.items())}.\n"
        )
    return "\n".join(parts)


def _version(name: str, said: str) -> str:
    return said if name in said else f"{name} {said}"


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
