"""What looking and small changes cost in a store of many snapshots and chunks.

    python -m tests.benchmarks.scale [--snapshots 10000] [--chunks 1000000]

One lineage, in which each snapshot brings one pack and lists the hundred newest ones, as a chain of small steps of one
disk does. The blobs are made by hand and put in their places directly: capturing as many disks would take hours.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from blake3 import blake3

from casstore import Store, spec
from casstore.digest import ChunkId, Digest
from casstore.durable import Durability
from casstore.health import check_store
from casstore.manifest import SCRATCH, Manifest, SnapshotFormat, UpperLayer, format_created_at
from casstore.oci import ArtifactManifest, Descriptor
from casstore.storedir import StoreOptions
from tests.benchmarks.report import Table, mebibytes, say
from tests.support.artifacts import CREATED_AT, RAW, Disk, Frame, map_blob, map_body, pack_bytes, pack_entry

LISTED = 100
"""Packs that a snapshot lists."""
_BLOCK, _SMALL = 4096, 64  # bytes of the one chunk of each pack that the disks show, and of the others
_OPTIONS = StoreOptions(durability=Durability.NONE)
_SETTLE = 0.05  # seconds after a change until it cannot be missed any more by who looks at times only
_COLUMNS = {
    "open": "open",
    "ls": "ls",
    "inspect": "inspect",
    "lineage": "lineage",
    "stats": "stats",
    "lookup": "1,000 look-ups",
    "match": "find a base",
    "tag": "tag",
    "catch_up": "catch up, 1 ref",
    "reindex": "reindex",
    "gc_dry": "gc --dry-run",
    "gc": "gc, a fifth is garbage",
    "gc_locked": "of it, longest with the store locked",
    "check": "check",
}


class Scale(TypedDict):
    """The result, as it goes into the JSON."""

    sizes: list[int]
    """Snapshots."""
    chunks: list[int]
    seconds: dict[str, list[float]]
    """Per measurement, one for each size."""
    catalog: list[int]
    """Bytes of the catalog's file."""


def chunk(number: int, length: int) -> bytes:
    """The plain bytes of one chunk."""
    return struct.pack("<Q", number) * (length // 8)


@dataclass
class Lineage:
    """A chain of snapshots in the store in `root`, each with `each` new chunks."""

    root: Path
    each: int
    count: int = 0
    _packs: list[tuple[Descriptor, tuple[bytes, bytes]]] = field(default_factory=list)
    _parent: str | None = None

    def grow(self, count: int) -> None:
        """Add snapshots until there are `count`."""
        while self.count < count:
            self._add_pack(range(self.count * self.each, (self.count + 1) * self.each))
            size = len(self._packs) * _BLOCK
            runs = [(0, _BLOCK, n, 0, 1) for n in range(len(self._packs))]
            disk = Disk(size, [(0, size)], runs)
            mapped = self.add(map_blob(map_body([entry for _, entry in self._packs], [disk])), spec.MEDIA_MAP)
            manifest = self._manifest(size)
            self._parent = str(manifest.id)
            artifact = ArtifactManifest.build(
                config=self.add(manifest.to_bytes(), spec.MEDIA_CONFIG),
                layers=[mapped, *(pack for pack, _ in self._packs)],
                annotations={},
            )
            root = self.add(artifact.raw, spec.MEDIA_MANIFEST)
            os.symlink(f"../blobs/sha256/{root.digest.hex}", self.root / "refs" / f"step-{self.count}")
            self.count += 1

    def _length(self, number: int) -> int:
        return _SMALL if number % self.each else _BLOCK

    def chunk_id(self, number: int) -> ChunkId:
        """What names a chunk."""
        return ChunkId(blake3(chunk(number, self._length(number))).digest())

    def _manifest(self, size: int) -> Manifest:
        return Manifest(
            format=SnapshotFormat.RAW,
            fstype="ext4",
            image=SCRATCH,
            parent=self._parent,
            created_at=format_created_at(CREATED_AT + self.count * 10**9),
            labels={"step": str(self.count)},
            upper=UpperLayer(file="disk.raw", size_bytes=size, integrity=None),
            source_sandbox=None,
        )

    def _add_pack(self, numbers: range) -> None:
        plain = [chunk(number, self._length(number)) for number in numbers]
        ids = [(blake3(data).digest(), len(data)) for data in plain]
        data = pack_bytes([Frame(RAW, b"".join(plain), ids)])
        self._packs = [*self._packs[1 - LISTED :], (self.add(data, spec.MEDIA_PACK), pack_entry(data))]

    def add(self, data: bytes, media_type: str) -> Descriptor:
        """Put a blob in its place."""
        digest = Digest(hashlib.sha256(data).hexdigest())
        (self.root / "blobs/sha256" / digest.hex).write_bytes(data)
        return Descriptor(media_type=media_type, digest=digest, size=len(data))


def scale(work: Path, *, snapshots: int, chunks: int) -> Scale:
    """Measure stores of about a tenth, a third and all of that many snapshots and chunks."""
    root = work / "scale"
    Store.init(root, options=_OPTIONS).close()
    line = Lineage(root, max(1, chunks // snapshots))
    result = Scale(sizes=[], chunks=[], seconds={name: [] for name in _COLUMNS}, catalog=[])
    for size in (snapshots // 10, snapshots * 3 // 10, snapshots):
        line.grow(size - 1)
        result["sizes"].append(size)
        result["chunks"].append(size * line.each)
        for name, took in _measure(line).items():
            result["seconds"][name].append(took)
        result["catalog"].append((root / "catalog.sqlite").stat().st_size)
    return result


def _measure(line: Lineage) -> dict[str, float]:
    root, found = line.root, dict[str, float]()

    def opened() -> None:
        Store.open(root, options=_OPTIONS).close()

    opened()
    line.grow(line.count + 1)
    found["catch_up"] = _time(opened)
    time.sleep(_SETTLE)
    opened()
    found["open"] = _best(opened)
    newest = f"step-{line.count - 1}"
    known = [line.chunk_id(n * line.count * line.each // 500) for n in range(500)]
    unknown = [ChunkId(os.urandom(32)) for _ in range(500)]
    newest_chunks = [line.chunk_id(line.count * line.each - 1 - n) for n in range(min(500, LISTED * line.each))]
    with Store.open(root, options=_OPTIONS) as store:
        found["ls"] = _best(store.list)
        found["inspect"] = _best(lambda: (store.open_snapshot(newest), store.entry(newest)))
        found["lineage"] = _best(lambda: store.lineage(newest))
        found["stats"] = _best(store.stats)
        found["lookup"] = _best(lambda: store._catalog.lookup([*known, *unknown]))
        found["match"] = _best(lambda: store._catalog.best_match(newest_chunks))
        numbers = iter(range(100))
        found["tag"] = _best(lambda: store.tag(newest, f"tag-{line.count}-{next(numbers)}"))
        assert len(store._catalog.lookup([*known, *unknown])) == len(set(known))
        found["reindex"] = _time(store.reindex)
        assert store._catalog.best_match(newest_chunks) == store.get(newest).digest
        found |= _measure_gc(line, store)
    found["check"] = _time(lambda: _check(root))
    return found


def _check(root: Path) -> None:
    for blob in (root / "blobs/sha256").iterdir():
        blob.chmod(0o444)
    report = check_store(root, options=_OPTIONS)
    assert report.findings == (), report.findings[:3]


def _measure_gc(line: Lineage, store: Store) -> dict[str, float]:
    """A gc that removes a blob for each snapshot, of which four stay; and how long nobody else can work meanwhile."""
    for number in range(line.count):
        line.add(b"garbage %d" % number, spec.MEDIA_FILE)
    directory, locked = store._directory, list[float]()
    exclusive = directory.exclusive

    @contextlib.contextmanager
    def timed() -> Iterator[None]:
        with exclusive():
            start = time.perf_counter()
            yield
            locked.append(time.perf_counter() - start)

    directory.exclusive = timed  # type: ignore[method-assign]
    dry = _time(lambda: store.gc(dry_run=True))
    locked.clear()
    real = _time(store.gc)
    assert len(os.listdir(directory.blobs.path)) == 4 * line.count
    return {"gc_dry": dry, "gc": real, "gc_locked": max(locked)}


def _time(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _best(work: Callable[[], object]) -> float:
    """Of five: what others do on the machine is not asked for."""
    return min(_time(work) for _ in range(5))


def tables(result: Scale) -> Iterator[Table]:
    """Rows of measurements, a column per size, and how much the last one is of the first."""
    rows = [
        [_COLUMNS[name], *(f"{took * 1000:.1f} ms" for took in found), f"{found[-1] / found[0]:.1f}x"]
        for name, found in result["seconds"].items()
    ]
    sizes = result["catalog"]
    rows.append(["catalog's file", *map(mebibytes, sizes), f"{sizes[-1] / sizes[0]:.1f}x"])
    heads = [f"{n:,} / {c:,}" for n, c in zip(result["sizes"], result["chunks"], strict=True)]
    growth = f"growth at {result['sizes'][-1] / result['sizes'][0]:.0f}x"
    yield Table("Stores of many snapshots / chunks", ["", *heads, growth], rows)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=int, default=10_000)
    parser.add_argument("--chunks", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="casstore-scale-") as work:
        for table in tables(scale(Path(work), snapshots=args.snapshots, chunks=args.chunks)):
            say(table.text())


if __name__ == "__main__":
    main()
