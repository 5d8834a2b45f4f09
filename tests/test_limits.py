"""How large a snapshot can be: what does not fit is refused when it is made, and the documentation's figures hold."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from casstore import spec
from casstore.digest import Digest
from casstore.diskmap import DiskMap, PackEntry, Runs, SnapshotMap
from casstore.errors import DocumentError, SourceError
from casstore.snapshot import Snapshot
from casstore.store import Store
from tests.support.stores import blobs, link_refs, write_disk

ROOT = Path(__file__).parents[1]
LIMITS = runpy.run_path(str(ROOT / "docs/limits.py"))


def test_figures_in_the_documentation_are_up_to_date() -> None:
    page = LIMITS["PAGE"].read_text()
    assert LIMITS["render"](page) == page, "run: python docs/limits.py"


def test_a_map_of_more_runs_than_fit_is_not_written() -> None:
    count = spec.MAX_MAP // 28 + 1
    ones = np.ones(count, np.uint64)
    runs = Runs(
        gap=ones, length=ones, pack=ones.astype(np.uint32), first=ones.astype(np.uint32), count=ones.astype(np.uint32)
    )
    disk = DiskMap("disk.raw", 1 << 40, np.zeros((0, 2), np.int64), runs)
    with pytest.raises(DocumentError, match=r"expected at most 134217728 bytes, got \d+ for 4793491 runs and extents"):
        SnapshotMap((), (disk,)).to_bytes()


def test_a_map_of_too_many_packs_is_not_written() -> None:
    packs = tuple(PackEntry(Digest(f"{n:064x}"), bytes(36)) for n in range(spec.MAX_PACKS + 1))
    with pytest.raises(DocumentError, match="expected at most 30000 packs, got 30001"):
        SnapshotMap(packs, ()).to_bytes()


def test_a_snapshot_whose_manifest_would_not_fit_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = write_disk(tmp_path / "disk.raw", 1, 2, 3)
    monkeypatch.setattr(spec, "MAX_MANIFEST", 400)  # as if registries took no more
    told = (
        r"would not fit: artifact manifest: expected at most 400 bytes, got \d+; .*a store of its own \(--store DIR\)"
    )
    with Store.open(tmp_path / "store", create=True) as store, pytest.raises(SourceError, match=told):
        store.create(Snapshot.builder(disk).name("base").build())
    assert not blobs(tmp_path / "store")
    assert not link_refs(tmp_path / "store")
