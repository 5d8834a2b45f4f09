"""The reasons for two decisions, measured: packs, and names that are symlinks.

    python -m tests.benchmarks.why [--out DIR]     writes DIR/why.json, and the computed parts of DIR/why-*.md
    python -m tests.benchmarks.why --render --out DIR      only the last, from the first

Needs mke2fs, debugfs and skopeo; less than a minute.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from casstore import Snapshot, Store
from casstore.diskmap import SnapshotMap
from casstore.durable import Durability
from casstore.oci import ArtifactManifest
from casstore.pack import PackDirectory
from casstore.storedir import StoreOptions
from tests.benchmarks import computed, page
from tests.benchmarks.contestants import FIRST, SECOND, make_disks
from tests.benchmarks.costs import Client, Link, pushed
from tests.benchmarks.measure import PATH, CommandFailed
from tests.benchmarks.report import grid, machine_text, say
from tests.benchmarks.scaling_page import count, duration, size
from tests.support import disks, needs

NEEDS = ("mke2fs", "debugfs", "skopeo")
LINK = Link(125e6, 0.02)
WRITERS = 8
REFS = (1, 100, 500)
_NAMES = ("why-packs.md", "why-refs-are-symlinks.md")


def packs(work: Path) -> list[dict[str, Any]]:
    """What a push of two similar disks costs with a blob for each chunk, one for each snapshot, and as it is."""
    images = make_disks(work, size=256 * disks.MIB, data=48 * disks.MIB)
    with Store.open(work / "store", create=True) as store:
        for name, parent in ((FIRST, None), (SECOND, FIRST)):
            builder = Snapshot.builder(str(images[name])).name(name)
            store.create((builder if parent is None else builder.parent(parent)).build())
    manifests = {name: _manifest(work / "store", name) for name in images}
    blobs = {name: {child.digest: child.size for child in each.children} for name, each in manifests.items()}
    chunks = {name: _chunks(work / "store", each) for name, each in manifests.items()}
    whole = sum(blobs[FIRST].values())
    new = {digest: length for digest, length in blobs[SECOND].items() if digest not in blobs[FIRST]}
    some = chunks[SECOND] - chunks[FIRST]
    found = []
    for what, first, second in (
        ("a blob for each chunk", (whole, len(chunks[FIRST])), (sum(new.values()), len(some))),
        ("one blob for each snapshot", (whole, 3), (sum(blobs[SECOND].values()), 3)),
        ("packs", (whole, len(blobs[FIRST])), (sum(new.values()), len(new))),
    ):
        costs = [pushed(stored, number, Client(0, 0), LINK) for stored, number in (first, second)]
        found.append({"what": what, "blobs": first[1] + second[1], "costs": [vars(cost) for cost in costs]})
    return found


def _manifest(store: Path, name: str) -> ArtifactManifest:
    return ArtifactManifest.parse((store / "refs" / name).read_bytes(), subject=name)


def _chunks(store: Path, manifest: ArtifactManifest) -> set[bytes]:
    """The digests of the chunks that a snapshot's disk consists of."""
    blobs = store / "blobs/sha256"
    disk_map = SnapshotMap.parse((blobs / manifest.map.digest.hex).read_bytes(), subject="map")
    ids = []
    for entry in disk_map.packs:
        raw = (blobs / entry.digest.hex).read_bytes()
        encoded = raw[len(raw) - int.from_bytes(entry.directory[32:], "little") :]
        listed = PackDirectory.parse(encoded, len(raw), subject="pack").ids
        ids.append([listed[at : at + 32] for at in range(0, len(listed), 32)])
    runs = disk_map.disks[0].runs
    rows = zip(runs.pack.tolist(), runs.first.tolist(), runs.count.tolist(), strict=True)
    return {each for pack, first, number in rows for each in ids[pack][first : first + number]}


def writers(work: Path) -> dict[str, Any]:
    """Several programs add a name to one layout, and to one store, at the same time; how many names are there."""
    source = work / "store"
    env = {"PATH": PATH, "HOME": str(work), "LC_ALL": "C.UTF-8"}
    skopeo = ["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{source}:{FIRST}"]
    _at_once([[*skopeo, f"oci:{work / 'layout'}:tag{n}"] for n in range(WRITERS)], env)
    index = json.loads((work / "layout/index.json").read_text())
    store = work / "other"
    Store.open(store, create=True).close()
    pull = ["casstore", "--store", str(store), "pull", f"oci:{source}:{FIRST}", "-q"]
    _at_once([[*pull, "--name", f"tag{n}"] for n in range(WRITERS)], env)
    mirrored = json.loads((store / "index.json").read_text())
    return {
        "writers": WRITERS,
        "layout": len(index["manifests"]),
        "refs": len(list((store / "refs").iterdir())),
        "index": len(mirrored["manifests"]),
    }


def _at_once(commands: Sequence[Sequence[str]], env: Mapping[str, str]) -> None:
    running = [subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) for command in commands]
    if any(codes := [each.wait() for each in running]):
        raise CommandFailed(f"{commands[0][0]}: exits {codes}")


def names(work: Path) -> list[dict[str, Any]]:
    """What one more name costs in a store of some, and what making everything else again from the names costs."""
    found = []
    tiny = work / "tiny"
    tiny.write_bytes(b"a disk" * 1000)
    options = StoreOptions(durability=Durability.NONE)
    with Store.open(work / "many", create=True, options=options) as store:
        store.create(Snapshot.builder(str(tiny)).name("n0").build())
        have = 1
        for wanted in REFS:
            for number in range(have, wanted):
                store.tag("n0", f"n{number}")
            have = wanted
            times = []
            for number in range(9):
                start = time.perf_counter()
                store.tag("n0", f"more{number}")
                times.append(time.perf_counter() - start)
                store.remove(f"more{number}", force=True)
            found.append({"names": wanted, "seconds": statistics.median(times)})
    before = sorted(path.name for path in (work / "many/refs").iterdir())
    for derived in ("catalog.sqlite", "index.json"):
        (work / "many" / derived).unlink()
    start = time.perf_counter()
    with Store.open(work / "many", options=options) as store:
        again = [snapshot.name for snapshot in store.list()]
    found.append({"names": len(again), "lost": len(set(before) - set(again)), "again": time.perf_counter() - start})
    return found


# --- the pages -------------------------------------------------------------------------------------------------------


def blocks(document: Mapping[str, Any]) -> dict[str, str]:
    """The computed parts of both pages."""
    result, machine = document["result"], document["measured"]["machine"]
    rows = [
        [
            each["what"],
            count(each["blobs"]),
            *(text for cost in each["costs"] for text in (count(cost["requests"]), size(cost["bytes"]))),
            duration(sum(cost["seconds"] for cost in each["costs"])),
        ]
        for each in result["packs"]
    ]
    head = ["layers", "blobs", "first push: requests", "bytes", "second push: requests", "bytes", "both take"]
    at_once = result["writers"]
    names_rows = [
        [
            f"names left of {at_once['writers']} that `skopeo copy` adds to a layout at once",
            f"{at_once['layout']}",
        ],
        [f"names left of {at_once['writers']} that `casstore pull` adds to a store at once", f"{at_once['refs']}"],
        ["of those, in its index.json", f"{at_once['index']}"],
        *(
            [f"one more name in a store of {each['names']:,}", f"{1000 * each['seconds']:.1f} ms"]
            for each in result["names"]
            if "seconds" in each
        ),
        *(
            [
                f"catalog and index.json deleted: made again from {each['names']:,} names, {each['lost']} lost",
                f"{1000 * each['again']:.0f} ms",
            ]
            for each in result["names"]
            if "again" in each
        ),
    ]
    told = (
        f"Measured on {document['measured']['date']} with `{document['measured']['command']}`: {machine_text(machine)}."
    )
    return {"packs": grid(head, rows), "names": grid(["", ""], names_rows), "circumstances": told}


def main(words: Sequence[str] | None = None) -> int:
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(description=lines[0])
    parser.add_argument("--out", type=Path, metavar="DIR", help="where why.json and the pages are")
    parser.add_argument("--render", action="store_true", help="measure nothing: the pages from DIR/why.json")
    args = parser.parse_args(words)
    if args.render:
        document = json.loads((args.out / "why.json").read_text())
    else:
        if missing := [need for need in NEEDS if not needs.available(need)]:
            say(f"this machine lacks {', '.join(missing)}")
            return 1
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder).resolve()
            result = {"packs": packs(work), "writers": writers(work), "names": names(work)}
        measured = {**page.circumstances(), "command": "python -m tests.benchmarks.why --out docs/explanation"}
        document = {"measured": measured, "result": result}
    for text in blocks(document).values():
        say(text)
    if args.out:
        (args.out / "why.json").write_text(json.dumps(document, indent=1) + "\n")
        for name in _NAMES:
            path = args.out / name
            path.write_text(computed.fill(path.read_text(), blocks(document)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
