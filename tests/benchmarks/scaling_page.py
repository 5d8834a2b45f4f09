"""Fills docs/explanation/scaling.md, and draws its chart, from scaling.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from math import ceil
from pathlib import Path
from typing import Any

from casstore import spec
from tests.benchmarks import chart, computed
from tests.benchmarks.costs import Client, Cost, Link, Registry, herd, manifest_of, packs_of, pulled, pushed
from tests.benchmarks.report import grid, machine_text
from tests.support import disks

BENCHMARKS = Path(__file__).parents[2] / "docs" / "benchmarks" / "results.json"
HOSTS = (10, 100, 1_000, 10_000, 100_000)
CHARTED = (100, 10_000, 100_000)
MIRRORS = 20
FAR, NEAR = Link(125e6, 0.02), Link(1.25e9, 0.002)
"""1 Gbit/s and 10 Gbit/s."""
REGISTRY = 1.25e9
"""Bytes a second that a registry, or a mirror, sends: 10 Gbit/s."""
STEPS_A_DAY, DAYS = 24, 30
_RUN, _EXTENT = 28, 16


def write(folder: Path, document: Mapping[str, Any]) -> None:
    """scaling.json, scaling.svg, and the computed parts of scaling.md."""
    parts = ", \n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
    (folder / "scaling.json").write_text("{\n" + parts.replace(", \n", ",\n") + "\n}\n")
    (folder / "scaling.svg").write_text(draw(document))
    page = folder / "scaling.md"
    page.write_text(computed.fill(page.read_text(), blocks(document)))


def blocks(document: Mapping[str, Any]) -> dict[str, str]:
    """The computed parts, by name."""
    result = document["result"]
    clients = {what: Client(**client) for what, client in result["clients"].items()}
    return {
        "measured": _measured(result),
        "client": _client_table(clients),
        "checks": _checks(result["checks"], result),
        "documents": _documents(result["documents"]),
        "limits": _limits(result),
        "transfers": _transfers(result["documents"], result["first"], clients),
        "herd": _herd_table(result["first"], clients),
        "registry": _registry(result["first"]),
        "circumstances": _circumstances(document["measured"]),
    }


# --- the tables ------------------------------------------------------------------------------------------------------


def _measured(result: Mapping[str, Any]) -> str:
    first, later = result["first"], result["later"]
    rows = [
        ("allocated", size(first["allocated"]), size(later["allocated"])),
        ("all blobs", size(first["stored"]), size(later["stored"])),
        ("packs", f"{first['packs']}", f"{later['packs']}"),
        ("chunks", f"{first['chunks']:,}", f"{later['chunks']:,}"),
        ("mean chunk", *(size(shape["allocated"] / shape["chunks"]) for shape in (first, later))),
        ("runs", f"{first['runs']:,}", f"{later['runs']:,}"),
        ("extents", f"{first['extents']:,}", f"{later['extents']:,}"),
        ("map", size(first["map"]), size(later["map"])),
        ("packs' directories", size(first["directories"]), size(later["directories"])),
        ("manifest", size(first["manifest"]), size(later["manifest"])),
        ("catalog of a store with it", size(first["catalog"]), size(later["catalog"])),
    ]
    return grid(["", "first snapshot", f"after {result['steps']} steps"], rows)


def _client_table(clients: Mapping[str, Client]) -> str:
    rows = [
        (
            what,
            f"{client.start:.2f} s",
            f"{1e-6 / client.moving:,.0f} MB/s" if client.moving else "",
            f"{1e-6 / client.checking:,.0f} MB/s" if client.checking else "",
        )
        for what, client in clients.items()
    ]
    return grid(["", "start", "moves at most", "checks, of the disk"], rows)


def _checks(checks: Iterable[Mapping[str, Any]], result: Mapping[str, Any]) -> str:
    rows = []
    for check in checks:
        for what, show in (("bytes", size), ("requests", count), ("seconds", duration)):
            expected, got = check["predicted"][what], check["measured"][what]
            rows.append((check["what"], what, show(expected), show(got), _error(expected, got)))
    made = next(each for each in result["documents"] if each["allocated"] == disks.GIB)
    scale = result["first"]["allocated"] / disks.GIB
    expected, got = made["map"] * scale, result["first"]["map"]
    rows.append(("map of the disk, from synthetic runs", "bytes", size(expected), size(got), _error(expected, got)))
    return grid(["what", "", "predicted", "measured", "error"], rows)


def _error(expected: float, got: float) -> str:
    return f"{round(100 * (expected / got - 1), 1) + 0.0:+.1f} %"


def _documents(documents: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for made in documents:
        refused = "map" not in made
        rows.append(
            (
                size(made["allocated"]),
                f"{made['packs']:,}",
                size(made["manifest"]) if "manifest" in made else "refused",
                f"{made['runs']:,}",
                size(_decoded(made)) + (", refused" if refused else ""),
                "" if refused else size(made["map"]),
                "" if refused else duration(made["map written"]),
                "" if refused else duration(made["map read"] + made["manifest seconds"] / 2),
                "" if refused else size(made["map memory"]),
                size(made["directories"]),
                size(made["catalog"]),
            )
        )
    head = ["allocated", "packs", "manifest", "runs", "map, decoded", "map", "written in", "read in", "memory of it"]
    return grid([*head, "directories", "catalog"], rows)


def _decoded(made: Mapping[str, Any]) -> int:
    return _RUN * int(made["runs"]) + _EXTENT * int(made["extents"]) + 68 * int(made["packs"])


def _limits(result: Mapping[str, Any]) -> str:
    rows = []
    for called, shape in (("first snapshot", result["first"]), (f"after {result['steps']} steps", result["later"])):
        ratio = shape["stored"] / shape["allocated"]
        named = largest_manifest() if called == "first snapshot" else 0
        if named:
            stored = _stored_in(named)
            rows.append(
                (called, f"manifest, {spec.MAX_MANIFEST // spec.MIB} MiB", f"{named:,} packs", size(stored / ratio))
            )
            rows.append(("the same, does not compress", "manifest", f"{named:,} packs", size(stored)))
        per_byte = (_RUN * shape["runs"] + _EXTENT * shape["extents"]) / shape["allocated"]
        rows.append((called, f"map, {spec.MAX_MAP // spec.MIB} MiB decoded", "", size(spec.MAX_MAP / per_byte)))
    index = result["first"]["index"]
    names = spec.MAX_INDEX // index
    rows.append(("a store", f"index.json, {spec.MAX_INDEX // spec.MIB} MiB", f"{names:,} names of {index} bytes", ""))
    return grid(["of", "limit", "is", "met at, allocated"], rows)


def largest_manifest() -> int:
    """The most packs that the encoder puts into a manifest; each adds a line of the same length."""
    one, two = (len(manifest_of(packs)) for packs in (1, 2))
    return 1 + (spec.MAX_MANIFEST - one) // (two - one)


def _stored_in(packs: int) -> int:
    low, high = 0, 1 << 60
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if packs_of(middle) <= packs else (low, middle - 1)
    return low


def _transfers(documents: Iterable[Mapping[str, Any]], shape: Mapping[str, Any], clients: Mapping[str, Client]) -> str:
    rows = []
    for made in documents:
        if "map" not in made:
            continue
        stored = round(shape["stored"] / shape["allocated"] * made["allocated"])
        blobs = made["packs"] + 3
        push = pushed(stored, blobs, clients["push"], FAR)
        ways = [pulled(stored, blobs, clients["pull"], link, made["allocated"]) for link in (FAR, NEAR)]
        near = pushed(stored, blobs, clients["push"], NEAR)
        create = shape["seconds"] * made["allocated"] / shape["allocated"]
        rows.append(
            (
                size(made["allocated"]),
                size(stored),
                duration(create),
                count(push.requests),
                duration(push.seconds),
                duration(near.seconds),
                count(ways[0].requests),
                *(duration(way.seconds) for way in ways),
            )
        )
    head = ["allocated", "stored", "create", "push: requests", "1 Gbit/s", "10 Gbit/s", "pull: requests"]
    return grid([*head, "1 Gbit/s", "10 Gbit/s"], rows)


def _cases(shape: Mapping[str, Any], clients: Mapping[str, Client]) -> dict[str, tuple[Cost, Registry]]:
    """How hosts may come: with nothing, by mirrors, or with the parent."""
    step, blobs = _step()
    whole = pulled(shape["stored"], shape["blobs"], clients["pull"], FAR, shape["allocated"])
    return {
        "nothing": (whole, Registry(REGISTRY)),
        f"{MIRRORS} mirrors": (whole, Registry(REGISTRY, MIRRORS)),
        "the parent": (pulled(step, blobs, clients["pull"], FAR), Registry(REGISTRY)),
    }


def _step() -> tuple[int, int]:
    """Bytes and blobs that a step of the long chain adds: the mean of its 1,000, and config, map and a pack."""
    steps = json.loads(BENCHMARKS.read_text())["chain"]["result"]["steps"]
    return round(statistics.mean(steps["added"][1:])), 3


def _herd_table(shape: Mapping[str, Any], clients: Mapping[str, Client]) -> str:
    rows = []
    for hosts in HOSTS:
        row = [f"{hosts:,}"]
        for one, registry in _cases(shape, clients).values():
            cost = herd(hosts, one, registry)
            row += [size(cost.bytes), count(cost.requests), duration(cost.seconds)]
        rows.append(row)
    head = ["hosts"]
    for called in _cases(shape, clients):
        head += [f"{called}: bytes", "requests", "until the last"]
    return grid(head, rows)


def _registry(shape: Mapping[str, Any]) -> str:
    step, blobs = _step()
    rows = []
    for hosts in HOSTS:
        snapshots = hosts * STEPS_A_DAY * DAYS
        rows.append(
            (
                f"{hosts:,}",
                count(snapshots),
                size(shape["stored"] + snapshots * step),
                count(snapshots * (blobs + 1)),
                f"{snapshots / DAYS / 86400 * (3 * blobs + 5):,.1f}",
            )
        )
    head = ["hosts", "snapshots", "stored", "blobs and manifests", "requests a second"]
    return grid(head, rows)


def _circumstances(measured: Mapping[str, Any]) -> str:
    machine, versions = measured["machine"], measured["versions"]
    wanted = ("Python", "casstore", "docker-registry")
    named = ", ".join(said if name in said else f"{name} {said}" for name, said in versions.items() if name in wanted)
    return f"Measured on {measured['date']} with `{measured['command']}`: {machine_text(machine)}; {named}."


# --- the chart -------------------------------------------------------------------------------------------------------


def draw(document: Mapping[str, Any]) -> str:
    """How long many hosts take, and what the registry sends meanwhile."""
    result = document["result"]
    clients = {what: Client(**client) for what, client in result["clients"].items()}
    panels = []
    for hosts in CHARTED:
        costs = {called: herd(hosts, *case) for called, case in _cases(result["first"], clients).items()}
        taken = [chart.Bar(called, cost.seconds, duration(cost.seconds)) for called, cost in costs.items()]
        panels.append(chart.Panel(f"until the last of {hosts:,} hosts has it", taken))
    for hosts in CHARTED:
        costs = {called: herd(hosts, *case) for called, case in _cases(result["first"], clients).items()}
        sent = [chart.Bar(called, cost.bytes, size(cost.bytes)) for called, cost in costs.items()]
        panels.append(chart.Panel(f"the registry sends to {hosts:,} hosts", sent))
    return chart.draw("Many hosts pull one snapshot: time and bytes, less is better", panels, highlight="the parent")


# --- numbers ---------------------------------------------------------------------------------------------------------


def size(number: float) -> str:
    """Bytes with a binary unit, three digits or so."""
    units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while number >= 1000 and len(units) > 1:
        number /= 1024
        del units[0]
    return f"{number:.0f} {units[0]}" if number >= 100 or units[0] == "B" else f"{number:.1f} {units[0]}"


def count(number: float) -> str:
    """Whole, or in millions."""
    return f"{ceil(number):,}" if number < 1e7 else f"{number / 1e6:,.0f} million"


def duration(number: float) -> str:
    """Seconds, minutes, hours or days."""
    scales = [("s", 1), ("min", 60), ("h", 3600), ("days", 86400)]
    while number / scales[0][1] >= 120 and len(scales) > 1:
        del scales[0]
    unit, length = scales[0]
    got = number / length
    return f"{got:.2f} {unit}" if got < 10 else f"{got:.0f} {unit}"
