"""How the command line stops: signals, and readers that go away."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from casstore import spec
from casstore.cli.failures import Stopped, signals
from casstore.content import Fetcher
from casstore.gc import collect
from casstore.graph import Copier
from casstore.memory import MemoryTarget
from casstore.oci import ArtifactManifest, Descriptor
from casstore.progress import Meter, silent
from casstore.store import Store
from casstore.storedir import StoreDirectory, StoreOptions
from casstore.survey import survey
from tests.support import disks
from tests.support.command import Casstore


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    disks.random_sparse_file(path, seed=1)
    return path


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_during_create_leaves_nothing_behind(casstore: Casstore, disk: Path, number: int) -> None:
    casstore("create", "base", "--disk", disk)
    before = sorted((casstore.store / "blobs" / "sha256").iterdir())
    with casstore.start("create", "slow", "--disk", "-") as process:
        assert process.stdin is not None
        process.stdin.write(disk.read_bytes())
        process.stdin.flush()
        _wait_for(lambda: any((casstore.store / "tmp").iterdir()))
        time.sleep(0.2)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert err.decode() == f"error: stopped by {signal.Signals(number).name}\n"
    assert not list((casstore.store / "tmp").iterdir())
    assert sorted((casstore.store / "blobs" / "sha256").iterdir()) == before
    assert [each["name"] for each in casstore.json("list")["snapshots"]] == ["base"]
    casstore("verify", "--all")


def test_gc_clears_away_what_a_killed_create_left(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    with casstore.start("create", "slow", "--disk", "-") as process:
        assert process.stdin is not None
        process.stdin.write(disk.read_bytes())
        process.stdin.flush()
        _wait_for(lambda: any((casstore.store / "tmp").iterdir()))
        assert casstore.json("gc")["dead_operations"] == 0
        process.kill()
        process.communicate(timeout=30)
    told = r"would remove 0 blobs and what 1 interrupted command left, \S+ \S+; \d+ kept\n"
    assert re.fullmatch(told, casstore("gc", "--dry-run").stdout)
    assert casstore.json("gc")["dead_operations"] == 1
    assert "interrupted command" not in casstore("gc").stdout
    casstore("verify", "--all")


def test_a_reader_that_goes_away_is_no_news(casstore: Casstore, tmp_path: Path) -> None:
    disk = tmp_path / "big"
    disk.write_bytes(os.urandom(4 << 20))
    casstore("create", "base", "--disk", disk)
    with casstore.start("restore", "base", "-") as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode != 0


def test_an_ignored_signal_stays_ignored(casstore: Casstore, disk: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with casstore.start("create", "slow", "--disk", "-", preexec_fn=ignore) as process:
        assert process.stdin is not None
        process.stdin.write(disk.read_bytes())
        process.stdin.flush()
        _wait_for(lambda: (casstore.store / "tmp").exists() and any((casstore.store / "tmp").iterdir()))
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_gc_after_all_of_it_keeps_the_store_sound(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    with Store.open(casstore.store) as store:
        assert not store.problems()
    report = collect(StoreDirectory.open(str(casstore.store), StoreOptions(), create=False))
    assert (report.removed, report.dead_operations) == ((), 0)


class _SlowTarget(MemoryTarget):
    """Asks the process to stop as soon as the first blob comes in."""

    pushed = 0

    def push(self, descriptor: Descriptor, source: Fetcher) -> None:
        self.pushed += 1
        if self.pushed == 1:  # a second one would end this process at once
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)


def test_a_stopped_copy_does_not_go_on_with_what_is_queued() -> None:
    config = Descriptor.of(b"{}", spec.MEDIA_CONFIG)
    blobs = [Descriptor.of(b"%d" % number, spec.MEDIA_PACK) for number in range(50)]
    manifest = ArtifactManifest.build(
        config=config, layers=[Descriptor.of(b"", spec.MEDIA_MAP), *blobs], annotations={}
    )
    target = _SlowTarget()
    graph = survey(MemoryTarget(), manifest.descriptor, manifest.raw)
    with signals(), pytest.raises(Stopped, match="SIGINT"):
        Copier(MemoryTarget(), target, concurrency=2).copy(graph, tag="x", meter=Meter(silent, "pushing", None))
    assert target.pushed < 10
