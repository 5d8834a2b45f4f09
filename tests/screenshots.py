"""Makes the pictures of the report in docs/images: `python -m tests.screenshots`. Needs e2fsprogs and Chromium.

The store is that of a team that prepares a disk for agents: real ext4 file systems, with a branch for each idea.
Times are invented, and equal in every run.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

from casstore import Snapshot, Store, create
from casstore.digest import Digest
from casstore.report import render_report
from tests.support import disks
from tests.support.browser import Look, look
from tests.support.stores import FAST

IMAGES = Path(__file__).parents[1] / "docs" / "images"
NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
_SIZE, _DATA = 256 << 20, 20 << 20
_IMAGE = ("docker.io/library/debian:12", str(Digest.of(b"an image")))

HISTORY = (
    # name, parent, when, how much is edited (None: a disk of its own), labels
    ("base", None, "2026-11-02T08:10:00", None, {"team": "agents"}),
    ("python", "base", "2026-11-02T16:40:00", (200, 4000, 60), {"team": "agents", "step": "pip install"}),
    ("tools", "python", "2026-11-04T10:05:00", (60, 500, 120), {"team": "agents", "step": "apt-get install"}),
    ("try-sqlite", "tools", "2026-11-05T09:30:00", (20, 9000, 5), {"idea": "sqlite"}),
    ("try-sqlite-2", "try-sqlite", "2026-11-06T13:00:00", (20, 6000, 5), {"idea": "sqlite"}),
    ("try-index", "tools", "2026-11-09T11:20:00", (90, 0, 200), {"idea": "index"}),
    ("nightly-09", "tools", "2026-11-10T02:00:00", (40, 300, 30), {"nightly": "yes"}),
    ("nightly-10", "nightly-09", "2026-11-11T02:00:00", (40, 300, 30), {"nightly": "yes"}),
    ("nightly-11", "nightly-10", "2026-11-12T02:00:00", (40, 300, 30), {"nightly": "yes"}),
    ("bench", None, "2026-11-14T15:45:00", None, {"team": "speed"}),
    ("nightly-16", "nightly-11", "2026-11-17T02:00:00", (120, 900, 90), {"nightly": "yes"}),
    ("release", "nightly-16", "2026-11-20T12:00:00", (30, 200, 12), {"team": "agents", "reviewed": "ann"}),
)


def make_store(folder: Path) -> Store:
    """A store with HISTORY in it."""
    store = Store.init(folder / "store", options=FAST)
    for seed, (name, parent, when, edit, labels) in enumerate(HISTORY, 1):
        disk = folder / f"{name}.ext4"
        if edit is None:
            tree = folder / f"{name}.tree"
            tree.mkdir()
            disks.write_tree(tree, seed=seed, data=_DATA if seed == 1 else _DATA // 3)
            disks.make_ext4(disk, _SIZE, tree, seed=seed)
        else:
            store.restore(parent or "", disk)
            changed, rows, added = edit
            disks.edit_with_debugfs(disk, seed=seed, changed=changed, rows=rows, added=added)
        time = datetime.fromisoformat(when).replace(tzinfo=UTC)
        builder = Snapshot.builder(disk).name(name).image(*_IMAGE).labels(labels)
        if parent is not None:
            builder.parent(parent)
        with mock.patch.dict(create.build.__kwdefaults__, clock=lambda time=time: int(time.timestamp()) * 10**9):
            builder.create(store)
        disk.unlink()
    return store


def main(images: Path = IMAGES) -> None:
    """Make all of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page = folder / "report.html"
        with make_store(folder) as store:
            page.write_text(render_report(store, now=NOW, title="Disks of the agents"))
        images.mkdir(exist_ok=True)
        looks = [
            Look(
                page=str(page),
                width=width,
                height=height,
                scheme=scheme,
                shot=str(images / f"report-{kind}-{scheme}.png"),
                check=False,
            )
            for kind, width, height in (("desktop", 1280, 900), ("phone", 375, 1240))
            for scheme in ("light", "dark")
        ]
        parts = [
            Look(
                page=str(page),
                width=1000,
                height=900,
                scheme="light",
                part=f"section[aria-labelledby={part}]",
                shot=str(images / f"report-{part}.png"),
                check=False,
            )
            for part in ("growth", "space", "lineage", "blocks")
        ]
        look(*looks, *parts)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
