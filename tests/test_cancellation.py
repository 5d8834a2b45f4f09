"""Work that is cancelled by its progress: at whatever step, nothing is half there, and nothing stays held."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from casstore import Cancellation, Cancelled, ProgressEvent, Snapshot, Store, TransferOptions, remote
from casstore.checking import ReadData
from casstore.progress import Progress, silent
from casstore.storedir import StoreOptions
from tests.support import disks
from tests.support.registry_simulator import RegistrySimulator, Seen
from tests.support.stores import FAST, capture, content, disk_bytes, index_entries, names
from tests.support.transfers import over

AT_ONCE = StoreOptions(durability=FAST.durability, wait=0)
PIECES = tuple(range(1, 20))


@dataclass
class Bench:
    """Two stores, of which the first has a snapshot, a registry with it, and what a verb does with them."""

    folder: Path
    store: Store
    other: Store
    registry: RegistrySimulator

    @property
    def options(self) -> TransferOptions:
        return over(self.registry)

    def create(self, progress: Progress) -> object:
        return self.store.create(Snapshot.builder(self.folder / "new.disk").name("new").build(), progress=progress)

    def push(self, progress: Progress) -> object:
        return self.store.push("base", f"{self.registry.host}/pushed:base", options=self.options, progress=progress)

    def pull(self, progress: Progress) -> object:
        return self.other.pull(f"{self.registry.host}/there:base", options=self.options, progress=progress)

    def copy(self, progress: Progress) -> object:
        source, target = f"{self.registry.host}/there:base", f"oci:{self.folder}/copied:base"
        return remote.copy(source, target, self.options, progress=progress)

    def restore(self, progress: Progress) -> object:
        return self.store.restore("base", self.folder / "restored", progress=progress)

    def verify(self, progress: Progress) -> object:
        return self.store.verify("base", progress=progress)

    def check(self, progress: Progress) -> object:
        return Store.check(self.store.path, data=ReadData(), progress=progress)

    def gc(self, progress: Progress) -> object:
        return self.store.gc(progress=progress)

    def state(self) -> object:
        """What must be as it was: names, what they hold, and what lies around."""
        tags = sorted(self.registry.contents.tags)
        files = sorted(path.name for path in self.folder.iterdir() if path.name != "copied")
        copied = index_entries(self.folder / "copied") if (self.folder / "copied").exists() else []
        return names(self.store), names(self.other), tags, files, copied

    def require_idle(self) -> None:
        """No thread goes on, and nothing is staged."""
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("copy", "ThreadPool"))]
        assert not list(Path(self.store.path, "tmp").iterdir())

    def require_free(self) -> None:
        """Nothing of a store is held, and nothing but what is there for the next pull was left."""
        self.require_idle()
        for store in (self.store, self.other):
            with Store.open(store.path, options=AT_ONCE) as again:
                again.gc()
            assert Store.check(store.path, data=ReadData(), options=AT_ONCE).ok


@pytest.fixture
def bench(tmp_path: Path, store: Store, other: Store) -> Iterator[Bench]:
    with RegistrySimulator() as registry:
        bench = Bench(tmp_path, store, other, registry)
        capture(store, tmp_path, "base", *PIECES)
        capture(store, tmp_path, "gone", *range(100, 103))
        store.push("base", f"{registry.host}/there:base", options=bench.options)
        (tmp_path / "new.disk").write_bytes(disk_bytes(*range(50, 70)))
        store.remove("gone")
        yield bench


VERBS = {
    "create": Bench.create,
    "push": Bench.push,
    "pull": Bench.pull,
    "copy": Bench.copy,
    "restore": Bench.restore,
    "verify": Bench.verify,
    "check": Bench.check,
    "gc": Bench.gc,
}


class AtStep(Cancellation):
    """Cancels itself at a step."""

    def __init__(self, step: int) -> None:
        super().__init__(silent)
        self._left = step

    def __call__(self, event: ProgressEvent) -> None:
        self._left -= 1
        if self._left < 0:
            self.cancel()
        super().__call__(event)


@pytest.mark.parametrize("verb", VERBS)
def test_cancelled_work_leaves_nothing_half_there(bench: Bench, verb: str) -> None:
    before, work = bench.state(), VERBS[verb]
    for step in (0, 1, 4):
        try:
            work(bench, AtStep(step))
        except Cancelled:
            assert bench.state() == before
        else:
            assert step == 4, "there was no such step"
            break
        bench.require_idle()
    else:
        work(bench, silent)
    if verb in {"create", "push", "pull", "copy", "restore"}:
        assert bench.state() != before
    bench.require_free()
    assert content(bench.store, "base") == disk_bytes(*PIECES)
    if verb == "restore":
        assert disks.same_bytes(bench.folder / "base.disk", bench.folder / "restored")


def test_another_thread_cancels_what_waits_for_a_silent_registry(bench: Bench) -> None:
    silence, moved, lock = threading.Event(), threading.Event(), threading.Lock()

    def answer_only_the_first(request: Seen) -> None:
        if "/blobs/" in request.path and not lock.acquire(blocking=False):
            silence.wait(60)

    def show(event: ProgressEvent) -> None:
        if event.part is not None and event.part.done == event.part.total:
            moved.set()

    bench.registry.watcher = answer_only_the_first
    cancellation = Cancellation(show)
    ended: list[BaseException] = []

    def pull() -> None:
        try:
            with Store.open(bench.other.path, options=FAST) as store:
                store.pull(f"{bench.registry.host}/there:base", options=bench.options, progress=cancellation)
        except Cancelled as error:
            ended.append(error)

    thread = threading.Thread(target=pull)
    thread.start()
    try:
        assert moved.wait(30)
        assert not cancellation.cancelled
        cancellation.cancel()
        thread.join(25)
        assert not thread.is_alive(), "it waits for the registry"
    finally:
        silence.set()
        thread.join()
    assert [str(error) for error in ended] == ["pulling"]
    assert not names(bench.other)


def test_what_begins_after_the_cancel_ends_at_its_first_step(bench: Bench) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled, match="verifying"):
        bench.verify(cancellation)


def test_cancelled_is_no_failure() -> None:
    assert not issubclass(Cancelled, Exception)


@pytest.mark.parametrize("verb", ["pull", "check", "restore"])
def test_any_other_exception_of_a_progress_ends_the_work_too(bench: Bench, verb: str) -> None:
    before = bench.state()

    def broken(_: ProgressEvent) -> None:
        raise ZeroDivisionError("progress")

    work: Callable[[Bench, Progress], object] = VERBS[verb]
    with pytest.raises(ZeroDivisionError, match="progress"):
        work(bench, broken)
    assert bench.state() == before
    bench.require_free()
