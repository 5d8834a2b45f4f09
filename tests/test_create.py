"""Creating a snapshot as a whole: what it takes of the machine, and that it gives all of it back."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from casstore import Snapshot, Store, spec
from casstore.disk import DiskSource
from casstore.errors import SourceError, StorageError
from casstore.operation import StagedBlob
from casstore.progress import Meter
from casstore.spec import BLOCK, KIB, MIB
from tests.support.disks import tmpfs
from tests.support.held import held
from tests.support.stores import FAST, all_files, content, leftovers, python, require_sound

SIZE = 24 * MIB


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with a snapshot, of a disk that has changed since: half of it is deltas, half is new."""
    monkeypatch.setattr(spec, "PACK_TARGET", MIB)
    with Store.init(tmp_path / "store", options=FAST) as store:
        disk(tmp_path)
        Snapshot.builder(tmp_path / "disk").name("base").create(store)
        with (tmp_path / "disk").open("r+b") as file:
            for offset in range(0, SIZE // 2, 64 * KIB):
                file.seek(offset)
                file.write(b"edited")
            file.seek(SIZE // 2)
            file.write(random.Random(2).randbytes(SIZE // 2))
        yield store


def disk(folder: Path) -> Path:
    (folder / "disk").write_bytes(random.Random(1).randbytes(SIZE))
    return folder / "disk"


def after(calls: int, error: BaseException, real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, which from some call on raises `error`."""
    lock, count = threading.Lock(), 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        with lock:
            count += 1
        if count > calls:
            raise error
        return real(*arguments, **options)

    return call


FAILURES: dict[str, tuple[type, str, BaseException]] = {
    "reading": (DiskSource, "read_into", SourceError("the disk is gone")),
    "writing": (StagedBlob, "write", StorageError("the device is full")),
    "syncing": (StagedBlob, "finish", StorageError("the device is on fire")),
    "interrupted": (Meter, "add", KeyboardInterrupt()),
}


@pytest.mark.parametrize("calls", [0, 2, 4])
@pytest.mark.parametrize("failing", FAILURES)
def test_a_failure_leaves_nothing_behind(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, calls: int
) -> None:
    before, files = held(), all_files(Path(store.path))
    where, name, error = FAILURES[failing]
    builder = Snapshot.builder(tmp_path / "disk").name("new")
    with monkeypatch.context() as patch:
        patch.setattr(where, name, after(calls, error, getattr(where, name)))
        with pytest.raises(type(error)) as caught:
            builder.create(store)
    assert caught.value is error
    assert held() == before
    assert all_files(Path(store.path)) == files
    assert leftovers(Path(store.path)) == []
    made = Snapshot.builder(tmp_path / "disk").name("new").create(store)
    assert made.cost is not None
    assert made.cost.stats.deltas > 100
    assert held() == before
    assert content(store, "new") == (tmp_path / "disk").read_bytes()


@pytest.mark.needs("loop")
def test_a_full_file_system_leaves_nothing_behind(tmp_path: Path) -> None:
    disk(tmp_path)
    with tmpfs(tmp_path, "size=8m") as root, Store.init(root / "store", options=FAST) as store:
        before = held()
        with pytest.raises(StorageError):
            Snapshot.builder(tmp_path / "disk").name("new").create(store)
        assert held() == before
        os.truncate(tmp_path / "disk", 4 * MIB)
        Snapshot.builder(tmp_path / "disk").name("new").create(store)
        require_sound(Path(store.path), contents={"new": (tmp_path / "disk").read_bytes()})


SCATTERED = """
import resource, sys
from casstore import Snapshot, Store
from casstore.capture import CaptureOptions
from tests.support.stores import FAST

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

with Store.init(sys.argv[1], options=FAST) as store:
    Snapshot.builder(sys.argv[2]).name("small").create(store)
    before = peak()
    store.create(Snapshot.builder(sys.argv[3]).name("large").build(), options=CaptureOptions(workers=2))
print(peak() - before)
"""


def test_few_new_chunks_do_not_keep_much_in_memory(tmp_path: Path) -> None:
    """A block here and there, and allocated zeros between: a frame is made of chunks from hundreds of windows. The
    number is kilobytes.
    """
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(random.Random(0).randbytes(8 * MIB))
    with large.open("wb") as file:
        for n in range(200):
            file.write(random.Random(n).randbytes(BLOCK).ljust(2 * MIB, b"\0"))
    assert int(python(SCATTERED, tmp_path / "store", small, large).stdout) < 60 * KIB
