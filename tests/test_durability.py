"""What is reported as done survives a power cut, and whatever breaks in between, every name is old or new.

Rows 1, 2, 3, 6, 10, 12, 15. strace shows the order of the system calls, and breaks the real ones; support/sweep.py
breaks Python's calls one by one, which is faster.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from casstore import Snapshot, Store, durable
from casstore.durable import Durability
from casstore.errors import StorageError
from casstore.storedir import StoreOptions
from tests.support import sweep
from tests.support.stores import (
    FAST,
    all_files,
    capture,
    content,
    disk_bytes,
    index_refs,
    link_refs,
    names,
    require_sound,
    write_disk,
)
from tests.support.syscalls import whole_paths

REPOSITORY = Path(__file__).parents[1]

# --- the order of the system calls ------------------------------------------------------------------------------------

DONE = "this is done"
TRACED = "fsync,fdatasync,rename,renameat,renameat2,link,linkat,symlink,symlinkat,write"


@dataclass(frozen=True)
class Call:
    """A system call that succeeded: its name, and the paths in its arguments, those of descriptors included."""

    name: str
    paths: tuple[str, ...]
    text: str


_LINE = re.compile(r"^(\d+) +(?:<\.\.\. (\w+) resumed>)?(.*)$")
_PATHS = re.compile(r'"((?:[^"\\]|\\.)*)"|<(/[^>]*)>')


_SAME = {"renameat": "rename", "symlinkat": "symlink"}
"""What a call is called here that takes directories as well."""


class Order:
    """The calls of a process and its threads, in the order in which they ended."""

    def __init__(self, trace: str) -> None:
        self.calls: list[Call] = []
        begun: dict[str, str] = {}
        for line in trace.splitlines():
            match = _LINE.match(line)
            assert match is not None, line
            thread, resumed, text = match.groups()
            if text.endswith("<unfinished ...>"):
                begun[thread] = text.removesuffix("<unfinished ...>")
                continue
            if resumed:
                text = begun.pop(thread) + text
            if re.search(r"\) += \d", text):
                name = text.partition("(")[0]
                if name.endswith("at"):
                    text = whole_paths(text)
                paths = tuple(a or b for a, b in _PATHS.findall(text.rpartition(") ")[0]))
                self.calls.append(Call(_SAME.get(name, name), paths, text))

    def first(self, name: str, *paths: str, after: int = -1) -> int:
        """The place of the first such call after place `after`; a path is given by its end."""
        for n, call in enumerate(self.calls):
            if n <= after or call.name != name or len(call.paths) < len(paths):
                continue
            if all(got.endswith(wanted) for got, wanted in zip(call.paths, paths, strict=False)):
                return n
        raise AssertionError(f"no {name}{paths} after call {after}")

    def named(self, call: str = "linkat") -> int:
        """The place where the ref `new` got its name."""
        return next(n for n, each in enumerate(self.calls) if each.name == call and each.text.count('/refs/new"') == 1)

    def done(self) -> int:
        """The place where the process said that it is done."""
        return next(n for n, call in enumerate(self.calls) if call.name == "write" and DONE in call.text)


def trace(tmp_path: Path, act: str, *arguments: str | Path) -> Order:
    """Run Python code under strace: sys.argv[1:] are the arguments, and success is reported after it."""
    code = f"import os, sys\nfrom casstore import Snapshot, Store\n{act}\nos.write(1, b'{DONE}')"
    out = tmp_path / "trace"
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-s", "200", "-o", str(out), "-e", f"trace={TRACED}"]
    command = [*strace, sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Order(out.read_text(errors="replace"))


CREATE = """
store = Store.open(sys.argv[1])
Snapshot.builder(sys.argv[2]).name("new").create(store)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with Store.init(tmp_path / "store", options=FAST) as store:
        capture(store, tmp_path, "old", 1, 2)
    return tmp_path / "store"


def require_durable_ref(order: Order, moved: int) -> None:
    """From the blobs in their places on: blobs/ synced, the ref made, refs/ synced, then index.json, then success."""
    blobs = order.first("fsync", "/blobs/sha256", after=moved)
    ref = order.named()
    refs = order.first("fsync", "/refs", after=ref)
    index = order.first("rename", "", "/store/index.json", after=ref)
    assert blobs < ref < refs < order.done()
    assert index < order.done()


@pytest.mark.needs("strace")
def test_a_creation_is_durable_before_it_is_reported(root: Path, tmp_path: Path) -> None:
    """Invariant 3: each blob synced before its rename, then blobs/, then the ref, then refs/, then success."""
    order = trace(tmp_path, CREATE, root, write_disk(tmp_path / "disk", 2, 3, 4))
    with Store.open(root, options=FAST) as store:
        fresh = store.open_snapshot("new").needs.keys() - store.open_snapshot("old").needs.keys()
    assert len(fresh) == 4
    last = -1
    for digest in fresh:
        staged = order.first("rename", "", f"/{digest.hex}")
        new = order.calls[staged].paths[0]
        assert "/tmp/op-" in new
        synced = order.first("fsync", new)
        moved = order.first("rename", f"/{digest.hex}", f"/blobs/sha256/{digest.hex}")
        writes = [n for n, call in enumerate(order.calls) if call.name == "write" and call.paths[0] == new]
        assert max(writes) < synced < staged < moved
        last = max(last, moved)
    require_durable_ref(order, last)


@pytest.mark.needs("strace")
def test_a_creation_of_hits_only_makes_the_directory_durable(root: Path, tmp_path: Path) -> None:
    """What was found may have been renamed by a process that has not synced it yet."""
    order = trace(tmp_path, CREATE, root, write_disk(tmp_path / "disk", 1, 2))
    require_durable_ref(order, -1)


@pytest.mark.needs("strace")
@pytest.mark.parametrize("act", [CREATE, 'Store.open(sys.argv[1]).tag("old", "new")'])
def test_what_was_found_is_durable_though_who_wrote_it_went_without(root: Path, tmp_path: Path, act: str) -> None:
    with Store.open(root, options=FAST) as store:
        packs = store.open_snapshot("old").artifact_manifest.packs
    order = trace(tmp_path, act, root, write_disk(tmp_path / "disk", 1, 2))
    assert packs
    for pack in packs:
        assert order.first("fsync", f"/blobs/sha256/{pack.digest.hex}") < order.named()


@pytest.mark.needs("strace")
@pytest.mark.parametrize(
    ("act", "ref"),
    [
        ("tag('old', 'new')", "linkat"),
        ("tag('old', 'new', force=True)", "rename"),
        ("tag('old', 'old')", None),
        ("remove('old')", "removal"),
        ("undo()", "symlink"),
        ("pull(f'oci:{sys.argv[2]}:new')", "linkat"),
    ],
)
def test_every_change_of_a_ref_is_durable_before_it_is_reported(
    root: Path, tmp_path: Path, act: str, ref: str | None
) -> None:
    with Store.init(tmp_path / "other", options=FAST) as other:
        capture(other, tmp_path, "new", 7)
        other.push("new", f"oci:{tmp_path}/layout")
    if act == "undo()":
        with Store.open(root, options=FAST) as store:
            capture(store, tmp_path, "new", 7)
            store.remove("new")
    order = trace(tmp_path, f"Store.open(sys.argv[1]).{act}", root, tmp_path / "layout")
    match ref:
        case None:
            changed = -1
        case "removal":
            changed = order.first("rename", "/refs/old")
            assert order.first("fsync", "/trash", after=changed) < order.done()
        case _:
            changed = order.named(ref)
    assert order.first("fsync", "/refs", after=changed) < order.done()
    if "pull" in act:
        moved = [n for n, call in enumerate(order.calls) if call.name == "rename" and "/blobs/sha256/" in call.paths[1]]
        assert len(moved) == 4
        assert max(moved) < order.first("fsync", "/blobs/sha256", after=max(moved)) < changed


@pytest.mark.needs("strace")
def test_a_restored_disk_is_durable_before_it_is_reported(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    order = trace(tmp_path, 'Store.open(sys.argv[1]).restore("old", sys.argv[2])', root, place)
    assert place.read_bytes() == disk_bytes(1, 2)
    linked = next(n for n, call in enumerate(order.calls) if call.name == "linkat" and str(place) in call.text)
    temporary = next(path for path in order.calls[linked].paths if ".tmp" in path)
    synced = order.first("fsync", temporary)
    assert synced < linked < order.first("fsync", str(place.parent), after=linked) < order.done()


@pytest.mark.needs("strace")
def test_a_restored_directory_is_durable_before_it_has_its_name(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    order = trace(tmp_path, 'Store.open(sys.argv[1]).restore("old", sys.argv[2])', root, f"{place}/")
    assert (place / "disk.raw").read_bytes() == disk_bytes(1, 2)
    renames = [n for n, call in enumerate(order.calls) if call.name == "rename"]
    published = next(n for n in renames if order.calls[n].paths[1] == str(place))
    stage = order.calls[published].paths[0]
    for name in ("disk.raw", "manifest.json"):
        named = next(n for n in range(published) if order.calls[n].paths[-1:] == (f"{stage}/{name}",))
        written = next(path for path in order.calls[named].paths if path.startswith(stage))
        assert order.first("fsync", written) < named < order.first("fsync", stage, after=named) < published
    assert published < order.first("fsync", str(tmp_path), after=published) < order.done()


@pytest.mark.needs("strace")
def test_without_durability_nothing_is_synced(root: Path, tmp_path: Path) -> None:
    act = """
from casstore.durable import Durability
from casstore.storedir import StoreOptions
store = Store.open(sys.argv[1], options=StoreOptions(durability=Durability.NONE))
Snapshot.builder(sys.argv[2]).name("new").create(store)
store.restore("new", sys.argv[3])
"""
    order = trace(tmp_path, act, root, write_disk(tmp_path / "disk", 5), tmp_path / "out")
    assert order.named() < order.done()
    assert [call for call in order.calls if call.name in {"fsync", "fdatasync"}] == []


# --- breaking the calls one by one ------------------------------------------------------------------------------------

ACTIONS = ("create", "force", "pull", "tag", "sign", "remove", "prune", "undo", "gc")
KINDS = ("kill", "late", "EIO", "ENOSPC")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep") / "base"
    sweep.make_base(root)
    return root


def run_sweep(base: Path, action: str, step: int, *kinds: str) -> None:
    command = [sys.executable, "-m", "tests.support.sweep", str(base), action, str(step), *kinds]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["problems"] == [], done.stderr
    assert report["calls"] > 10
    assert report["cases"] >= len(kinds) * (report["calls"] // step)


@pytest.mark.parametrize("action", ACTIONS)
def test_whatever_call_breaks_every_name_is_old_or_new(base: Path, action: str) -> None:
    """Rows 1, 2, 6, 12, 38: a part of all cases; --long runs them all."""
    run_sweep(base, action, 20 if action in {"tag", "sign", "remove", "undo", "gc"} else 40, *KINDS)


@pytest.mark.long
@pytest.mark.parametrize("kind", [*KINDS, "EDQUOT", "EACCES", "EROFS", "EMFILE"])
@pytest.mark.parametrize("action", ACTIONS)
def test_whatever_call_breaks_every_name_is_old_or_new_in_full(base: Path, action: str, kind: str) -> None:
    run_sweep(base, action, 1, kind)


INJECTIONS = [
    ("fsync", "signal=KILL", 5),  # counted per thread: one of them packs
    ("renameat", "signal=KILL", 3),
    ("linkat", "signal=KILL", 1),
    ("pwrite64", "signal=KILL", 9),  # SQLite's, after the ref was made
    ("fsync", "error=EIO", 2),
    ("renameat", "error=ENOSPC", 3),
    ("pwrite64", "error=ENOSPC", 1),
    ("pwrite64", "error=EIO", 5),
    ("flock", "error=ENOLCK", 4),
]


@pytest.mark.needs("strace")
@pytest.mark.parametrize(("call", "fault", "n"), INJECTIONS)
def test_real_system_calls_that_break(base: Path, tmp_path: Path, call: str, fault: str, n: int) -> None:
    """Row 12, with the real calls: SQLite's as well, and with a process or an error that is the kernel's doing."""
    root = tmp_path / "store"
    shutil.copytree(base, root, symlinks=True)
    before = link_refs(root)
    code = """
import os, sys
from pathlib import Path
from casstore import Store
from casstore.errors import CasstoreError
from tests.support import sweep
try:
    with Store.open(sys.argv[1]) as store:
        sweep.act(store, "create", Path(sys.argv[2]))
except CasstoreError:
    os._exit(sweep.FAILED)
os._exit(sweep.DONE)
"""
    strace = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={n}"]
    command = [*strace, sys.executable, "-c", code, str(root), str(tmp_path / "disk")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=REPOSITORY)
    killed = done.returncode in {-9, 137}
    assert killed == ("KILL" in fault), done.stderr or "no such call was made"
    # What the catalog cannot write it keeps in memory: that is no reason to fail.
    assert killed or done.returncode == (sweep.DONE if call == "pwrite64" else sweep.FAILED), done.stderr
    sweep.look(root, "create", before, 9 if killed else done.returncode << 8)


# --- the pieces -------------------------------------------------------------------------------------------------------


def test_a_sync_that_failed_is_final(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 6: the kernel drops what it could not write, so a second fsync would say yes to lost data."""
    calls: list[str] = []
    real = os.fsync

    def fail_once(fd: int) -> None:
        calls.append(os.readlink(f"/proc/self/fd/{fd}"))
        if len(calls) == 1:
            raise OSError(5, "Input/output error")
        real(fd)

    before = all_files(root)
    with Store.open(root) as store:
        monkeypatch.setattr(os, "fsync", fail_once)
        with pytest.raises(StorageError, match="Input/output error"):
            capture(store, tmp_path, "new", 5)
        assert len(calls) == len(set(calls))
        assert names(store) == ["old"]
    assert all_files(root) == before


def test_short_writes_are_completed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 10."""
    real_write, real_pwrite = os.write, os.pwrite
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, memoryview(data)[:1009]))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real_pwrite(fd, memoryview(data)[:1009], offset))
    with Store.open(root, options=FAST) as store:
        capture(store, tmp_path, "new", 3, 4)
        store.restore("new", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == disk_bytes(3, 4)
    monkeypatch.undo()
    require_sound(root, contents={"new": disk_bytes(3, 4)})


def test_a_file_size_limit_is_an_error_like_a_full_disk(root: Path, tmp_path: Path) -> None:
    """Row 3."""
    code = """
import os, resource, signal, sys
from casstore import Snapshot, Store
from casstore.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    Snapshot.builder(sys.argv[2]).name("new").create(store)
except StorageError as error:
    assert "File too large" in str(error), error
    os._exit(3)
"""
    disk = write_disk(tmp_path / "disk", *range(10, 20))
    done = subprocess.run([sys.executable, "-c", code, root, disk], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (3, "")
    require_sound(root, contents={"old": disk_bytes(1, 2)})
    assert os.listdir(root / "tmp") == []


def test_replacing_a_file_leaves_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    durable.replace_file(str(path), b"old", mode=0o644)
    for name in ("write", "fsync", "rename", "fchmod"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, _fail)
            with pytest.raises(StorageError, match="No space left"):
                durable.replace_file(str(path), b"new", mode=0o644)
        assert os.listdir(tmp_path) == ["file"]
        assert path.read_bytes() == b"old"
    durable.replace_file(str(path), b"new", mode=0o600)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)


def _fail(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_durability_is_for_those_who_do_not_ask(tmp_path: Path) -> None:
    assert StoreOptions().durability is Durability.FULL
    with Store.init(tmp_path / "store") as store:
        made = Snapshot.builder(write_disk(tmp_path / "disk", 1)).name("one").create(store)
        assert content(store, "one") == disk_bytes(1)
        assert index_refs(tmp_path / "store") == {"one": str(made.digest)}
