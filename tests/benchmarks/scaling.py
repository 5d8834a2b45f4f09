"""What snapshots cost when disks are large and hosts are many: measured where it can be, computed from there on.

    python -m tests.benchmarks.scaling [--out DIR]        writes DIR/scaling.json, DIR/scaling.svg; fills DIR/scaling.md
    python -m tests.benchmarks.scaling --render --out DIR         only the last two, from the first

It measures a real disk of 1 GiB and some steps on it, what a client costs by itself on small disks, and then transfers
of the large one that the model (costs.py) has not seen. Maps and manifests of larger disks are made by the encoders
that every snapshot goes through, from synthetic runs. Needs root, loop mounts and docker-registry; about 3 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from casstore import Snapshot, Store, spec
from casstore.digest import Digest
from casstore.diskmap import DiskMap, PackEntry, Runs, SnapshotMap
from casstore.durable import Durability
from casstore.errors import DocumentError
from casstore.oci import ArtifactManifest
from casstore.storedir import StoreOptions
from tests.benchmarks import chain, page, scaling_page, series, transfer
from tests.benchmarks.costs import Client, Link, herd, manifest_of, packs_of, pulled, pushed
from tests.benchmarks.costs import Registry as Served
from tests.benchmarks.measure import CommandFailed, run
from tests.benchmarks.packages import packages_of
from tests.benchmarks.report import say
from tests.support import disks, needs
from tests.support.proxy import TcpProxy
from tests.support.servers import registry

MIB, GIB = disks.MIB, disks.GIB
SMALL, LARGE = 32 * MIB, 192 * MIB
"""Disks that a client's own costs are measured with."""
SIZES = (1 * GIB, 10 * GIB, 100 * GIB, 1024 * GIB, 4 * 1024 * GIB, 10 * 1024 * GIB)
LINKS = {"50 MB/s, 10 ms": Link(50e6, 0.01), "25 MB/s, 50 ms": Link(25e6, 0.05)}
NEEDS = ("mke2fs", "loop", "docker-registry")
_HERD = 6


class Shape(TypedDict):
    """What a snapshot of the measured disk consists of; counts, and bytes."""

    allocated: int
    stored: int
    blobs: int
    packs: int
    runs: int
    extents: int
    map: int
    chunks: int
    directories: int
    manifest: int
    catalog: int
    index: int
    """Bytes of index.json for each name in it."""
    seconds: float
    """Of its capture."""


class Scaling(TypedDict):
    """The result, as it goes into the JSON."""

    first: Shape
    later: Shape
    steps: int
    clients: dict[str, dict[str, float]]
    """By what is done, the fields of Client."""
    checks: list[dict[str, Any]]
    """What was predicted, and what was measured."""
    documents: list[dict[str, Any]]
    """By size of disk, the documents that the encoders made for it."""


# --- a real disk -----------------------------------------------------------------------------------------------------


def _make_disk(work: Path, data: int) -> tuple[Path, chain.Agent]:
    disk = work / "disk.ext4"
    packages = packages_of(data, work / "spare")
    base = packages[: len(packages) * 9 // 10]
    series.make_empty(disk, 2 * GIB, number=1)
    with disks.loop_mounted(disk) as root:
        series.base_system(root, base, random.Random(2))
    return disk, chain.Agent([package for package in packages[len(base) :] if package.size < 8 * MIB])


def _capture(store: Store, disk: Path, name: str, parent: str | None) -> float:
    builder = Snapshot.builder(str(disk)).name(name)
    start = time.perf_counter()
    store.create((builder if parent is None else builder.parent(parent)).build())
    return time.perf_counter() - start


def _shape(folder: Path, name: str, disk: Path, took: float) -> Shape:
    """Read the store's blobs by the documented format."""
    raw = (folder / "refs" / name).read_bytes()
    manifest = ArtifactManifest.parse(raw, subject=name)
    disk_map = (folder / "blobs/sha256" / manifest.map.digest.hex).read_bytes()
    parsed = SnapshotMap.parse(disk_map, subject=name)
    directories = [int.from_bytes(entry.directory[32:], "little") for entry in parsed.packs]
    return Shape(
        allocated=disks.allocated(disk),
        stored=sum(child.size for child in manifest.children),
        blobs=len({child.digest for child in manifest.children}),
        packs=len(manifest.packs),
        runs=sum(len(each.runs) for each in parsed.disks),
        extents=sum(len(each.extents) for each in parsed.disks),
        map=len(disk_map),
        chunks=sum(int(each.runs.count.sum()) for each in parsed.disks),
        directories=sum(directories),
        manifest=len(raw),
        catalog=(folder / "catalog.sqlite").stat().st_size,
        index=(folder / "index.json").stat().st_size // len(os.listdir(folder / "refs")),
        seconds=took,
    )


# --- what a client costs by itself -----------------------------------------------------------------------------------


class Bench:
    """A store with some snapshots, and a registry that has them."""

    def __init__(self, work: Path, store: Path, host: str) -> None:
        self.work, self._client, self.host = work, transfer.Casstore(store), host

    def push(self, name: str, link: Link | None) -> dict[str, float]:
        """To an empty registry."""
        with tempfile.TemporaryDirectory(dir=self.work) as data, registry(Path(data)) as server:
            return self._through(server.host, link, lambda host: self._client.push(name, host))

    def pull(self, name: str, link: Link | None, what: str = transfer.PULL) -> dict[str, float]:
        """Into an empty store, or with TRANSFER into an empty layout."""
        return self._through(self.host, link, lambda host: self._client.pulls(name, host)[what])

    def start(self, name: str, host: str, home: Path) -> subprocess.Popen[bytes]:
        """Begin to copy from `host` into an empty layout."""
        command = self._client.pulls(name, host)[transfer.TRANSFER]
        return subprocess.Popen(command, cwd=home, env=self._client.env(home), stdin=subprocess.DEVNULL)

    def _through(self, server: str, link: Link | None, command: Any) -> dict[str, float]:
        rate, delay = (None, 0.0) if link is None else (link.rate, link.round_trip)
        with TcpProxy(server, rate=rate, delay=delay) as proxy, tempfile.TemporaryDirectory(dir=self.work) as home:
            took = run(command(proxy.host), cwd=Path(home), env=self._client.env(Path(home))).seconds
            moved = proxy.uploaded + proxy.downloaded
        return {"bytes": moved, "requests": proxy.requests, "seconds": took}


def _clients(bench: Bench, small: Shape, large: Shape, rounds: int) -> dict[str, Client]:
    """From the difference between a small disk and a larger one, with no limit but the machine's."""

    def median(what: str, name: str) -> float:
        push = what == transfer.PUSH
        times = [(bench.push(name, None) if push else bench.pull(name, None, what))["seconds"] for _ in range(rounds)]
        return statistics.median(times)

    took = {
        what: (median(what, "small"), median(what, "large"))
        for what in (transfer.PUSH, transfer.TRANSFER, transfer.PULL)
    }
    stored = large["stored"] - small["stored"]
    moving = {what: max(0.0, (slow - quick) / stored) for what, (quick, slow) in took.items()}
    copying = moving[transfer.TRANSFER]
    return {
        transfer.PUSH: _client(took[transfer.PUSH][0], small, moving[transfer.PUSH]),
        transfer.TRANSFER: _client(took[transfer.TRANSFER][0], small, copying),
        transfer.PULL: _client(took[transfer.PULL][0], small, copying, checking()),
    }


def checking() -> float:
    """Seconds a byte of a disk, from the benchmarks: what a pull takes longer than the transfer alone. The small disks
    here are too small to show it.
    """
    measured: transfer.Transfer = json.loads(scaling_page.BENCHMARKS.read_text())["transfer"]["result"]
    rounds = measured["rounds"][transfer.OURS]
    longer = statistics.median(took[transfer.PULL] - took[transfer.TRANSFER] for took in rounds)
    return max(0.0, longer / measured["allocated"])


def _client(took: float, small: Shape, moving: float, checking: float = 0.0) -> Client:
    start = took - small["stored"] * moving - small["allocated"] * checking
    return Client(max(0.0, start), moving, checking)


# --- the model, held against what happens ----------------------------------------------------------------------------


def _check(bench: Bench, name: str, shape: Shape, clients: Mapping[str, Client]) -> list[dict[str, Any]]:
    stored = shape["stored"] + shape["manifest"]
    found = []
    for called, link in LINKS.items():
        push = pushed(stored, shape["blobs"], clients[transfer.PUSH], link)
        pull = pulled(stored, shape["blobs"], clients[transfer.PULL], link, shape["allocated"])
        for what, expected, take in ((transfer.PUSH, push, bench.push), (transfer.PULL, pull, bench.pull)):
            found.append(_compared(f"{what}, {called}", vars(expected), take(name, link)))
            say(str(found[-1]))
    return found


def _compared(what: str, expected: Mapping[str, float], got: Mapping[str, float]) -> dict[str, Any]:
    return {"what": what, "predicted": dict(expected), "measured": dict(got)}


def _check_herd(bench: Bench, name: str, shape: Shape, client: Client) -> dict[str, Any]:
    """Some hosts at once, through one way that they share."""
    link = Link(20e6)
    one = pulled(shape["stored"] + shape["manifest"], shape["blobs"], client, link)
    expected = herd(_HERD, one, Served(link.rate))
    with TcpProxy(bench.host, rate=link.rate) as proxy, tempfile.TemporaryDirectory(dir=bench.work) as folder:
        homes = [Path(folder, str(number)) for number in range(_HERD)]
        for home in homes:
            home.mkdir()
        start = time.perf_counter()
        hosts = [bench.start(name, proxy.host, home) for home in homes]
        codes = [host.wait() for host in hosts]
        took = time.perf_counter() - start
        got = {"bytes": proxy.uploaded + proxy.downloaded, "requests": proxy.requests, "seconds": took}
    if any(codes):
        raise CommandFailed(f"hosts that pull at once: exits {codes}")
    return _compared(f"{_HERD} hosts at once copy a small disk, 20 MB/s in all", vars(expected), got)


# --- documents of disks that nobody has here -------------------------------------------------------------------------


def documents(allocated: int, shape: Shape) -> dict[str, Any]:
    """The map and the manifest of a first capture of so many bytes, as scattered as the disk of `shape`."""
    grow = allocated / shape["allocated"]
    packs = packs_of(int(shape["stored"] * grow))
    runs, extents = (max(1, round(shape[key] * grow)) for key in ("runs", "extents"))
    told: dict[str, Any] = {"allocated": allocated, "packs": packs, "runs": runs, "extents": extents}
    told["directories"] = round(shape["directories"] * grow)
    told["catalog"] = round(shape["catalog"] * grow)
    start = time.perf_counter()
    try:
        raw = manifest_of(packs)
        told["manifest"] = len(raw)
        ArtifactManifest.parse(raw, subject="synthetic")
    except DocumentError as error:
        told["refused"] = str(error)
    told["manifest seconds"] = time.perf_counter() - start
    disk_map = synthetic_map(allocated, packs, runs, extents, chunks=round(shape["chunks"] * grow))
    start = time.perf_counter()
    try:
        blob = disk_map.to_bytes()
    except DocumentError as error:
        told["refused"] = str(error)
        return told
    told["map"], told["map decoded"] = len(blob), int.from_bytes(blob[8:16], "little")
    told["map written"] = time.perf_counter() - start
    start = time.perf_counter()
    SnapshotMap.parse(blob, subject="synthetic")
    told["map read"] = time.perf_counter() - start
    del disk_map
    tracemalloc.start()
    try:
        SnapshotMap.parse(blob, subject="synthetic")
        told["map memory"] = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return told


def synthetic_map(allocated: int, packs: int, runs: int, extents: int, *, chunks: int) -> SnapshotMap:
    """A map whose runs and extents have the lengths and gaps of no real disk, but as many of them; drawn by a seed."""
    rng = np.random.default_rng(1)
    block = spec.BLOCK
    runs = min(runs, chunks, allocated // block)
    extents = min(extents, allocated // (2 * block))
    lengths = 1 + rng.multinomial(allocated // block - runs, rng.dirichlet(np.ones(runs))).astype(np.int64)
    counts = np.maximum(1, np.minimum(lengths, lengths * chunks // max(1, int(lengths.sum()))))
    rows = Runs(
        gap=np.where(rng.random(runs) < extents / runs, rng.integers(1, 2000, runs), 0).astype(np.uint64) * block,
        length=lengths.astype(np.uint64) * block,
        pack=np.sort(rng.integers(0, packs, runs)).astype(np.uint32),
        first=rng.integers(0, 1300, runs).astype(np.uint32),
        count=counts.astype(np.uint32),
    )
    size = int(rows.gap.sum() + rows.length.sum())
    starts = np.unique(rng.integers(0, size // block // 2, extents)) * 2 * block
    table = np.stack([starts, np.full(len(starts), block, np.int64)], axis=1)
    entries = tuple(PackEntry(Digest.from_raw(rng.bytes(32)), rng.bytes(32) + bytes(4)) for _ in range(packs))
    return SnapshotMap(entries, (DiskMap("disk", size + 2 * block, table, rows),))


# --- all of it -------------------------------------------------------------------------------------------------------


def scaling(work: Path, *, data: int, steps: int, rounds: int) -> Scaling:
    """Measure, and compute."""
    disk, agent = _make_disk(work, data)
    folder, first = work / "store", work / "first.ext4"
    small: dict[str, Shape] = {}
    with Store.open(folder, create=True, options=StoreOptions(durability=Durability.NONE)) as store:
        shutil.copyfile(disk, first)
        shape = _shape_of(store, folder, disk, "first", None)
        for name, size in (("small", SMALL), ("large", LARGE)):
            disks.write_mixed_file(work / name, size, seed=size)
            small[name] = _shape_of(store, folder, work / name, name, None)
        with tempfile.TemporaryDirectory(dir=work) as full, registry(Path(full)) as server:
            bench = Bench(work, folder, server.host)
            for name in ("first", "small", "large"):
                pusher = transfer.Casstore(folder)
                run(pusher.push(name, server.host), cwd=work, env=pusher.env(work))
            clients = _clients(bench, small["small"], small["large"], rounds)
            say(str(clients))
            checks = _check(bench, "first", shape, clients)
            checks.append(_check_herd(bench, "small", small["small"], clients[transfer.TRANSFER]))
            say(str(checks[-1]))
    later = shape
    history = work / "history"
    with Store.open(history, create=True, options=StoreOptions(durability=Durability.NONE)) as store:
        _capture(store, disk, "step0", None)
        for number in range(1, steps + 1):
            with disks.loop_mounted(disk, "noatime") as root:
                agent.work(root)
            later = _shape_of(store, history, disk, f"step{number}", f"step{number - 1}")
    return Scaling(
        first=shape,
        later=later,
        steps=steps,
        clients={what: vars(client) for what, client in clients.items()},
        checks=checks,
        documents=[documents(size, shape) for size in SIZES],
    )


def _shape_of(store: Store, folder: Path, disk: Path, name: str, parent: str | None) -> Shape:
    return _shape(folder, name, disk, _capture(store, disk, name, parent))


def main(words: Sequence[str] | None = None) -> int:
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(description=lines[0])
    parser.add_argument("--data", type=int, default=800, help="MiB of packages on the disk (%(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="steps of an agent on it (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times that a client's own costs are taken (%(default)s)")
    parser.add_argument("--work", type=Path, help="folder for disks and stores (a temporary one)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where scaling.json, scaling.svg and scaling.md are")
    parser.add_argument("--render", action="store_true", help="measure nothing: the page from DIR/scaling.json")
    args = parser.parse_args(words)
    if not args.render:
        if missing := [need for need in NEEDS if not needs.available(need)]:
            say(f"this machine lacks {', '.join(missing)}")
            return 1
        with tempfile.TemporaryDirectory(dir=args.work) as folder:
            result = scaling(Path(folder).resolve(), data=args.data * MIB, steps=args.steps, rounds=args.rounds)
        measured = {**page.circumstances(), "command": "python -m tests.benchmarks.scaling --out docs/explanation"}
        document = {"measured": measured, "result": result}
    else:
        document = json.loads((args.out / "scaling.json").read_text())
    for text in scaling_page.blocks(document).values():
        say(text)
    if args.out:
        scaling_page.write(args.out, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
