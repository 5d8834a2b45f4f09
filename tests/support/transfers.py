"""Stand-ins for a registry in tests of pushes and pulls: in memory, counting, and breaking on request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from casstore import Snapshot, Store
from casstore.content import Fetcher, Reader
from casstore.digest import Digest
from casstore.memory import MemoryTarget
from casstore.oci import Descriptor
from casstore.reference import RegistryReference
from casstore.registry import RegistryTarget
from casstore.streams import BytesSource
from casstore.transfer import TransferOptions
from tests.support.registry_simulator import RegistrySimulator
from tests.support.stores import capture


class Memory(MemoryTarget):
    """Stands for a registry; counts what is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.pushed: list[Digest] = []
        self.fetched: list[Digest] = []

    def push(self, descriptor: Descriptor, source: Fetcher) -> None:
        super().push(descriptor, source)
        self.pushed.append(descriptor.digest)

    def fetch(self, descriptor: Descriptor) -> Reader:
        self.fetched.append(descriptor.digest)
        return super().fetch(descriptor)

    def put(self, data: bytes, media_type: str) -> Descriptor:
        descriptor = Descriptor.of(data, media_type)
        super().push(descriptor, BytesSource(data))
        return descriptor


def through(memory: MemoryTarget, **options: Any) -> TransferOptions:
    """Options that reach `memory` as if it were a registry."""

    @contextmanager
    def registries(_: RegistryReference) -> Iterator[MemoryTarget]:
        yield memory

    return TransferOptions(registries=registries, **options)


REGISTRY = "registry.example/team/disks"


def over(registry: RegistrySimulator, **options: Any) -> TransferOptions:
    """Options to reach the simulator; each repository is opened by itself, as the command line does."""
    return TransferOptions(
        registries=lambda reference: RegistryTarget(reference, registry.options, registry.credentials), **options
    )


def many_packs(store: Store, folder: Path, name: str, count: int) -> Snapshot:
    """A snapshot of `count` packs, `name`, and those that it grew from, `name`1 and so on."""
    for pieces in range(1, count):
        capture(store, folder, f"{name}{pieces}", *range(1, pieces + 1))
    made = capture(store, folder, name, *range(1, count + 1))
    assert len(made.artifact_manifest.packs) == count
    return made


class SourceBroke(Exception):
    """The network's error, as it were."""


class Breaking(Memory):
    """Fails in the middle of its n-th blob."""

    def __init__(self, healthy: int) -> None:
        super().__init__()
        self.healthy = healthy

    def fetch(self, descriptor: Descriptor) -> Reader:
        reader = super().fetch(descriptor)
        return reader if len(self.fetched) <= self.healthy else _Breaking(reader)


class _Breaking:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def read(self, size: int) -> bytes:
        if self._reader.read(min(size, 100)):
            raise SourceBroke
        return b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.__exit__(None, None, None)
