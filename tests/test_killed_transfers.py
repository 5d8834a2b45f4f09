"""kill -9 of push and pull at random moments: what is there stays right, and the next run moves only what is missing.

A real docker-registry behind a proxy that counts and slows down; the command line in a process of its own. Blobs that
arrived are looked up in the registry's and in the store's own files.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from casstore.snapshot import Snapshot
from casstore.store import Store
from tests.support.command import Casstore
from tests.support.proxy import TcpProxy
from tests.support.servers import registry
from tests.support.stores import FAST, leftovers, link_refs, require_sound

pytestmark = pytest.mark.needs("docker-registry")

MIB = 1 << 20
STEPS = 8
"""Captures, each with a pack of its own of a MiB or two."""
RATE = 24e6
"""Bytes a second: all of it takes a second or so."""
TALK = 64 * 1024
"""Bytes of headers, tokens and manifests that any run may move besides blobs."""
CONCURRENCY = 3
ROUNDS = 3
LONG_ROUNDS = 50


@dataclass(frozen=True)
class Origin:
    """A store with a snapshot `last` of several packs, and the registry behind its proxy."""

    casstore: Casstore
    proxy: TcpProxy
    data: Path
    """The folder of the registry."""
    blobs: dict[str, int]
    """What `last` is made of: hex digest to bytes; the artifact manifest is not among them."""
    root: str

    def arrived(self, repository: str) -> set[str]:
        """The hex digests of the blobs that the registry has in a repository."""
        links = self.data / f"docker/registry/v2/repositories/{repository}/_layers/sha256"
        return {path.parent.name for path in links.glob("*/link")}

    def tagged(self, repository: str) -> str | None:
        """What the tag `last` stands for."""
        link = self.data / f"docker/registry/v2/repositories/{repository}/_manifests/tags/last/current/link"
        return link.read_text() if link.exists() else None


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    folder = tmp_path_factory.mktemp("killed")
    casstore = Casstore(folder)
    disk = folder / "disk.raw"
    rng = random.Random(4)
    with Store.open(casstore.store, create=True, options=FAST) as store:
        for step in range(STEPS):
            with disk.open("ab") as file:
                file.write(rng.randbytes((1 + step % 3) * MIB))
            store.create(Snapshot.builder(disk).name("last").force().build())
        snapshot = store.open_snapshot("last")
        blobs = {blob.digest.hex: blob.size for blob in snapshot.artifact_manifest.children}
        root = str(snapshot.digest)
    assert len(blobs) > STEPS
    (folder / "registry").mkdir()
    with registry(folder / "registry") as server, TcpProxy(server.host, rate=RATE) as proxy:
        yield Origin(casstore, proxy, folder / "registry/data", blobs, root)


def _kill_when(casstore: Casstore, reached: Callable[[], bool], *args: object) -> bool:
    """Run, kill -9 as soon as `reached` says so; whether it was still running then."""
    with casstore.start(*args, start_new_session=True) as process:
        while process.poll() is None and not reached():
            time.sleep(0.005)
        alive = process.poll() is None
        process.kill()
        process.communicate()
    return alive


def _push_round(origin: Origin, repository: str, after: int) -> bool:
    proxy = origin.proxy
    reference = f"{proxy.host}/{repository}:last"
    arguments = ("push", "last", reference, "--plain-http", "--concurrency", CONCURRENCY)
    proxy.reset()
    killed = _kill_when(origin.casstore, lambda: proxy.uploaded >= after, *arguments)
    first = proxy.uploaded
    assert origin.tagged(repository) in {None, origin.root}
    there = origin.arrived(repository)
    missing = sum(size for blob, size in origin.blobs.items() if blob not in there)
    in_flight = CONCURRENCY * max(origin.blobs.values())
    assert first <= sum(origin.blobs[blob] for blob in there & origin.blobs.keys()) + in_flight + TALK
    proxy.reset()
    origin.casstore.process(*arguments)
    assert proxy.uploaded <= missing + TALK
    assert origin.tagged(repository) == origin.root
    assert origin.blobs.keys() <= origin.arrived(repository)
    return killed


def _pull_round(origin: Origin, folder: Path, after: int) -> bool:
    proxy = origin.proxy
    casstore = Casstore(folder)
    arguments = ("pull", f"{proxy.host}/whole:last", "--plain-http", "--concurrency", CONCURRENCY)
    proxy.reset()
    killed = _kill_when(casstore, lambda: proxy.downloaded >= after, *arguments)
    first = proxy.downloaded
    kept: set[str] = set()
    if casstore.store.exists() and (casstore.store / "refs").exists():
        assert set(link_refs(casstore.store).values()) <= {origin.root}
        files = [*casstore.store.glob("tmp/op-*/*"), *casstore.store.glob("blobs/sha256/*")]
        kept = {path.name for path in files if path.name in origin.blobs}
        assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in files if len(path.name) == 64)
    assert first <= sum(origin.blobs[blob] for blob in kept) + CONCURRENCY * max(origin.blobs.values()) + TALK
    missing = sum(size for blob, size in origin.blobs.items() if blob not in kept)
    proxy.reset()
    casstore.process(*arguments)
    assert proxy.downloaded <= missing + TALK
    assert link_refs(casstore.store) == {"last": origin.root}
    require_sound(casstore.store)
    casstore("gc")
    assert leftovers(casstore.store) == []
    return killed


def _moments(origin: Origin, rounds: int, seed: int) -> list[int]:
    """Bytes moved: from before the first one until about the last one."""
    rng = random.Random(seed)
    return [rng.randrange(sum(origin.blobs.values())) for _ in range(rounds)]


def _sweep_pushes(origin: Origin, rounds: int, seed: int) -> None:
    killed = [_push_round(origin, f"push{seed}/r{n}", after) for n, after in enumerate(_moments(origin, rounds, seed))]
    assert sum(killed) > rounds // 2, "half of the pushes were over before they were killed"
    stored = (origin.data / "docker/registry/v2/blobs/sha256").glob("*/*/data")
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name for path in stored)


def _sweep_pulls(origin: Origin, folder: Path, rounds: int, seed: int) -> None:
    origin.casstore.process("push", "last", f"{origin.proxy.host}/whole:last", "--plain-http")
    killed = []
    for n, after in enumerate(_moments(origin, rounds, seed)):
        (folder / f"{n}").mkdir()
        killed.append(_pull_round(origin, folder / f"{n}", after))
    assert sum(killed) > rounds // 2, "half of the pulls were over before they were killed"


def test_killed_pushes_complete_and_move_only_what_is_missing(origin: Origin) -> None:
    _sweep_pushes(origin, ROUNDS, 1)


def test_killed_pulls_complete_and_move_only_what_is_missing(origin: Origin, tmp_path: Path) -> None:
    _sweep_pulls(origin, tmp_path, ROUNDS, 2)


@pytest.mark.long
def test_fifty_killed_pushes(origin: Origin) -> None:
    _sweep_pushes(origin, LONG_ROUNDS, 3)


@pytest.mark.long
def test_fifty_killed_pulls(origin: Origin, tmp_path: Path) -> None:
    _sweep_pulls(origin, tmp_path, LONG_ROUNDS, 4)
