"""Files that are written whole or not at all, names that one of several gets, and locks."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from casstore import durable
from casstore.durable import Durability, Lock
from casstore.errors import AlreadyExists, StorageError, StoreLocked
from casstore.spec import MIB
from tests.support.disks import tmpfs
from tests.support.held import held


def write(path: Path, data: bytes = b"new", *, replace: bool = False) -> None:
    with durable.new_file(str(path), replace=replace, durability=Durability.FULL) as fd:
        durable.write_all(fd, data)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


class Calls:
    """Records the calls that make things durable, in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        for name in ("fsync", "rename", "link", "fchmod", "unlink"):
            monkeypatch.setattr(os, name, self._recorded(name, getattr(os, name)))

    def _recorded(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            what = name
            if name == "fsync":
                assert isinstance(args[0], int)
                what = "sync directory" if stat.S_ISDIR(os.fstat(args[0]).st_mode) else "sync file"
            self.made.append(what)
            return real(*args, **options)

        return call


# --- replace_file ----------------------------------------------------------------------------------------------------


def test_replace_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.replace_file(str(path), b"one", mode=0o644)
    assert path.read_bytes() == b"one"
    with path.open("rb") as old:
        durable.replace_file(str(path), b"two", mode=0o600)
        assert old.read() == b"one"
    assert path.read_bytes() == b"two"
    assert mode(path) == 0o600
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("mask", [0, 0o022, 0o077, 0o777])
def test_row_37_replaced_file_has_its_mode_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        durable.replace_file(str(tmp_path / "file"), b"x", mode=0o644)
    assert mode(tmp_path / "file") == 0o644


def test_replace_file_syncs_before_it_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    durable.replace_file(str(tmp_path / "file"), b"x", mode=0o644)
    assert calls.made == ["fchmod", "sync file", "rename", "sync directory"]


def test_replace_file_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "file").symlink_to("victim")
    durable.replace_file(str(tmp_path / "file"), b"x", mode=0o644)
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize("call", ["write", "fsync", "fchmod", "rename"])
def test_failed_replace_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageError, match=r"writing .*file.*Input/output error"):
        durable.replace_file(str(path), b"new", mode=0o644)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_interrupted_replace_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(fd: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        durable.replace_file(str(tmp_path / "file"), b"new", mode=0o644)
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["x" * 255, "\U0001f600" * 63, "ä" * 127, "\udcff" * 255], ids=ascii)
def test_names_as_long_as_a_file_system_takes(tmp_path: Path, name: str) -> None:
    """The temporary name must not be longer than a name may be."""
    durable.replace_file(str(tmp_path / name), b"x", mode=0o644)
    write(tmp_path / name, b"y", replace=True)
    assert names(tmp_path) == [name]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        durable.replace_file(str(tmp_path / "no" / "file"), b"x", mode=0o644)
    with pytest.raises(StorageError, match="No such file"):
        write(tmp_path / "no" / "file")


# --- new_file --------------------------------------------------------------------------------------------------------


def test_new_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with durable.new_file(str(path), replace=False, durability=Durability.FULL) as fd:
        durable.write_all(fd, b"content")
        assert not path.exists()
        [temporary] = names(tmp_path)
        assert durable.is_temporary(temporary)
    assert path.read_bytes() == b"content"
    assert names(tmp_path) == ["file"]


def test_new_file_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("file"))
    durable.replace_file("other", b"x", mode=0o644)
    assert names(tmp_path) == ["file", "other"]


@pytest.mark.parametrize(
    ("durability", "calls"),
    [(Durability.FULL, ["sync file", "link", "unlink", "sync directory"]), (Durability.NONE, ["link", "unlink"])],
)
def test_new_file_is_synced_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Durability, calls: list[str]
) -> None:
    recorded = Calls(monkeypatch)
    with durable.new_file(str(tmp_path / "file"), replace=False, durability=durability):
        pass
    assert recorded.made == calls


def test_new_file_may_replace_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(AlreadyExists):
        write(path)
    assert path.read_bytes() == b"old"
    write(path, replace=True)
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", ["directory", "dangling link", "fifo"])
def test_name_that_is_taken_by_something_else(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")
    with pytest.raises(AlreadyExists):
        write(path)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt(), ValueError()], ids=repr
)
def test_error_in_the_block_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "old").write_bytes(b"old")
    for name, replace in (("new", False), ("old", True)):
        with (
            pytest.raises(type(error)),
            durable.new_file(str(tmp_path / name), replace=replace, durability=Durability.FULL),
        ):
            raise error
    assert names(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


@pytest.mark.parametrize("call", ["fsync", "link", "rename"])
def test_failed_publish_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageError, match="Input/output error"):
        write(tmp_path / "file", replace=call == "rename")
    assert names(tmp_path) == []


@pytest.mark.parametrize(("mask", "expected"), [(0, 0o644), (0o022, 0o644), (0o077, 0o600)])
def test_row_37_new_files_are_never_open_to_others_for_writing(tmp_path: Path, mask: int, expected: int) -> None:
    """A restored disk is the user's own file: the umask may take away more."""
    with umask(mask):
        write(tmp_path / "file")
    assert mode(tmp_path / "file") == expected


def race(work: Callable[[int], None], count: int = 8) -> list[BaseException | None]:
    """Run `work` in threads that start at once; what each raised."""
    barrier = threading.Barrier(count)

    def run(number: int) -> BaseException | None:
        barrier.wait()
        try:
            work(number)
        except AlreadyExists as error:
            return error
        return None

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@pytest.mark.parametrize("links", [True, False])
def test_row_30_one_of_many_gets_a_new_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool) -> None:
    """Also on a file system without hard links, as FAT."""
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os.path, "lexists", lambda path: False)  # nobody sees the others coming
    for attempt in range(20):
        path = tmp_path / f"file{attempt}"
        outcomes = race(lambda number, path=path: write(path, b"%d" % number * 1000))  # type: ignore[misc]
        [winner] = [number for number, outcome in enumerate(outcomes) if outcome is None]
        assert path.read_bytes() == b"%d" % winner * 1000
    assert len(names(tmp_path)) == 20


def test_of_many_that_replace_the_last_wins(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert race(lambda number: write(path, b"%d" % number * 1000, replace=True)) == [None] * 8
    assert len(set(path.read_bytes())) == 1
    assert names(tmp_path) == ["file"]


def no_links(*args: object, **options: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_row_50_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"

    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(StorageError):
        write(tmp_path / "other")
    assert names(tmp_path) == ["file"]


def test_publish_a_symlink(tmp_path: Path) -> None:
    """The link itself gets the name, not what it leads to."""
    (tmp_path / "target").write_bytes(b"x")
    (tmp_path / "tmp").symlink_to("target")
    durable.publish(str(tmp_path / "tmp"), str(tmp_path / "ref"), replace=False, durability=Durability.FULL)
    assert os.readlink(tmp_path / "ref") == "target"
    (tmp_path / "tmp").symlink_to("other")
    with pytest.raises(AlreadyExists):
        durable.publish(str(tmp_path / "tmp"), str(tmp_path / "ref"), replace=False, durability=Durability.FULL)
    durable.publish(str(tmp_path / "tmp"), str(tmp_path / "ref"), replace=True, durability=Durability.FULL)
    assert os.readlink(tmp_path / "ref") == "other"
    assert names(tmp_path) == ["ref", "target"]


# --- directories -----------------------------------------------------------------------------------------------------


def make(path: Path, name: str) -> Path:
    path.mkdir()
    (path / name).write_bytes(b"x")
    return path


def publish_directory(source: Path, target: Path, *, replace: bool = False) -> None:
    durable.publish_directory(str(source), str(target), replace=replace, durability=Durability.FULL)


def test_publish_directory(tmp_path: Path) -> None:
    publish_directory(make(tmp_path / "tmp", "one"), tmp_path / "dir")
    assert names(tmp_path / "dir") == ["one"]
    with pytest.raises(AlreadyExists):
        publish_directory(make(tmp_path / "tmp", "two"), tmp_path / "dir")
    assert names(tmp_path / "dir") == ["one"]
    publish_directory(tmp_path / "tmp", tmp_path / "dir", replace=True)
    assert names(tmp_path / "dir") == ["two"]
    assert names(tmp_path) == ["dir"]


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_publish_directory_over_something_else(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "dir"
    victim = make(tmp_path / "victim", "precious")
    if kind == "file":
        target.write_bytes(b"x")
    else:
        target.symlink_to("victim" if kind == "link" else "nowhere")
    source = make(tmp_path / "tmp", "new")
    with pytest.raises(AlreadyExists):
        publish_directory(source, target)
    assert names(tmp_path) == ["dir", "tmp", "victim"]
    publish_directory(source, target, replace=True)
    assert names(target) == ["new"]
    assert not target.is_symlink()
    assert names(victim) == ["precious"]
    assert names(tmp_path) == ["dir", "victim"]


def test_failed_publish_of_a_directory_brings_the_old_one_back(tmp_path: Path) -> None:
    make(tmp_path / "dir", "old")
    with pytest.raises(OSError, match="No such file"):
        publish_directory(tmp_path / "missing", tmp_path / "dir", replace=True)
    assert names(tmp_path / "dir") == ["old"]
    assert names(tmp_path) == ["dir"]


def test_make_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    durable.make_directories(str(tmp_path / "a" / "b" / "c"))
    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert calls.made == ["sync directory"] * 3
    durable.make_directories(str(tmp_path / "a" / "b" / "c"))
    assert calls.made == ["sync directory"] * 3
    monkeypatch.chdir(tmp_path)
    durable.make_directories("d/e", Durability.NONE)
    assert (tmp_path / "d" / "e").is_dir()
    assert calls.made == ["sync directory"] * 3


@pytest.mark.parametrize(
    ("mask", "expected"),
    [(0, 0o755), (0o022, 0o755), (0o027, 0o750), (0o077, 0o700), (0o777, 0o700), (0o700, 0o755), (0o205, 0o750)],
)
def test_row_37_umask_of_directories(tmp_path: Path, mask: int, expected: int) -> None:
    """Who wants a private store gets one, and its owner can always use it, also where the umask says no."""
    with umask(mask):
        durable.make_directory(str(tmp_path / "one"))
        durable.make_directories(str(tmp_path / "a" / "b" / "c"), Durability.NONE)
        durable.make_directory(str(tmp_path / "private"), 0o700)
        assert os.umask(mask) == mask
    assert [mode(tmp_path / name) for name in ("one", "a", "a/b", "a/b/c")] == [expected] * 4
    assert mode(tmp_path / "private") == 0o700


def test_directory_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o500)
    with umask(0o077):
        durable.make_directories(str(tmp_path / "a"))
        with pytest.raises(FileExistsError):
            durable.make_directory(str(tmp_path / "a"))
    assert mode(tmp_path / "a") == 0o500


@pytest.mark.parametrize("mask", [0o022, 0o777])
def test_directory_keeps_the_group_of_its_parent(tmp_path: Path, mask: int) -> None:
    """A folder with the set-group-ID bit is how people share one; chmod(2) with a plain mode would clear it."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o2775)
    with umask(mask):
        durable.make_directory(str(tmp_path / "shared" / "one"))
    assert mode(tmp_path / "shared" / "one") == (0o2755 if mask == 0o022 else 0o2700)


# --- writing ---------------------------------------------------------------------------------------------------------


def test_row_10_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    write(tmp_path / "file", b"0123456789" * 100)
    assert (tmp_path / "file").read_bytes() == b"0123456789" * 100


@pytest.mark.needs("loop")
def test_row_1_full_file_system(tmp_path: Path) -> None:
    with tmpfs(tmp_path, "size=1m") as root:
        (root / "old").write_bytes(b"old")
        with pytest.raises(StorageError, match=r"writing .*old.*No space left"):
            durable.replace_file(str(root / "old"), bytes(2 * MIB), mode=0o644)
        with pytest.raises(OSError, match="No space left"):  # the caller's own write: it says what it wrote
            write(root / "new", bytes(2 * MIB))
        assert (root / "old").read_bytes() == b"old"
        assert names(root) == ["old"]


@pytest.mark.needs("loop")
def test_row_4_no_inodes_left(tmp_path: Path) -> None:
    with tmpfs(tmp_path, "nr_inodes=2") as root:
        (root / "old").write_bytes(b"old")
        with pytest.raises(StorageError, match=r"writing .*No space left"):
            durable.replace_file(str(root / "old"), b"new", mode=0o644)
        with pytest.raises(StorageError, match=r"writing .*No space left"):
            write(root / "new")
        assert (root / "old").read_bytes() == b"old"
        assert names(root) == ["old"]


# --- locks -----------------------------------------------------------------------------------------------------------


def lock(path: Path, *, shared: bool = False, wait: float = 0) -> Lock:
    return durable.lock(str(path), shared=shared, wait=wait)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_exclusive_and_shared(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "lock"
    if kind == "directory":
        path.mkdir()
    with lock(path, shared=True), lock(path, shared=True):
        with pytest.raises(StoreLocked, match="held by another process"):
            lock(path)
        assert durable.try_lock(str(path)) is None
    with lock(path):
        for shared in (True, False):
            with pytest.raises(StoreLocked):
                lock(path, shared=shared)
    lock(path).release()


def test_release_twice(tmp_path: Path) -> None:
    held = lock(tmp_path / "lock")
    held.release()
    with lock(tmp_path / "lock"):
        held.release()
        assert durable.try_lock(str(tmp_path / "lock")) is None


@pytest.mark.parametrize("wait", [0.0, 0.2])
def test_waiting_is_bounded(tmp_path: Path, wait: float) -> None:
    with lock(tmp_path / "lock"):
        started = time.monotonic()
        with pytest.raises(StoreLocked, match=f"more than {wait:g} s"):
            lock(tmp_path / "lock", wait=wait)
        assert wait <= time.monotonic() - started < wait + 20


def test_lock_is_got_while_waiting(tmp_path: Path) -> None:
    held = lock(tmp_path / "lock")
    threading.Timer(0.1, held.release).start()
    started = time.monotonic()
    lock(tmp_path / "lock", wait=60).release()
    assert 0.05 < time.monotonic() - started < 20


def test_only_one_at_a_time(tmp_path: Path) -> None:
    inside, most = [], []

    def work(number: int) -> None:
        for _ in range(20):
            with lock(tmp_path / "lock", wait=30):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    race(work, 4)
    assert set(most) == {1}
    assert len(most) == 80


def test_row_33_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    script = (
        "import sys, time; from casstore import durable;"
        "held = durable.lock(sys.argv[1], wait=0); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(StoreLocked):
            lock(path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        lock(path, wait=5).release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_row_34_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    before = held()
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreLocked, match="this file system cannot lock files"):
        lock(tmp_path / "lock", wait=30)
    assert held() == before


def test_other_errors_of_flock_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    before = held()
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError, match="Input/output error"):
        lock(tmp_path / "lock")
    assert held() == before


def test_lock_files_are_not_made_through_links(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("elsewhere")
    with pytest.raises(StorageError):
        lock(tmp_path / "lock")
    assert names(tmp_path) == ["lock"]


def test_try_lock_without_making_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        durable.try_lock(str(tmp_path / "lock"), create=False)
    assert names(tmp_path) == []
