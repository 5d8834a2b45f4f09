"""Who may read and write a store: modes whatever the umask was, and the warning about what others can write to."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from casstore import Store, permissions
from casstore.errors import StorageError
from casstore.storedir import StoreDirectory
from tests.support.command import Casstore
from tests.support.stores import FAST, capture, content, disk_bytes, names, python, write_disk
from tests.test_adopt import add_entry, bring

MODES = {
    **dict.fromkeys(("refs", "blobs", "blobs/sha256", "tmp", "trash", "state", "cache"), 0o755),
    **dict.fromkeys(("lock", "gate.lock", "refs.lock"), 0o644),
    **dict.fromkeys(("oci-layout", "casstore.json", "index.json", "catalog.sqlite"), 0o644),
    "state/last-seen.json": 0o644,
    "cache/sources": 0o700,  # where somebody's disks lie is not for readers
}
EVERYTHING = """
import os, sys
os.umask(int(sys.argv[2], 8))
from casstore import Snapshot, Store
root = sys.argv[1]
with Store.init(root + "/store", share=sys.argv[3] == "share") as store:
    Snapshot.builder(root + "/disk").name("one").create(store)
    Snapshot.builder(root + "/disk").name("two").create(store)
    store.push("one", f"oci:{root}/layout:one")
    store.pull(f"oci:{root}/layout:one", name="pulled")
    store.tag("one", "kept")
    store.remove("one")
    store.gc()
    store.remove("two")
    with store.transaction() as change:
        change.add(b"staged", "x")
        for path, _, _ in os.walk(root + "/store/tmp"):
            print(oct(os.stat(path).st_mode & 0o7777))
"""


def modes(root: Path) -> dict[str, int]:
    """Path -> mode of all that is in a store, but of symlinks."""
    found = {str(path.relative_to(root)): path.lstat().st_mode for path in root.rglob("*")}
    return {path: stat.S_IMODE(mode) for path, mode in found.items() if not stat.S_ISLNK(mode)}


@pytest.mark.parametrize("share", ["", "share"])
@pytest.mark.parametrize("umask", ["000", "022", "077", "777"])
def test_37_the_umask_has_no_say(tmp_path: Path, umask: str, share: str) -> None:
    """The root's mode says who may read, and it alone; with 0777 nobody but root could use what mkdir(2) makes."""
    write_disk(tmp_path / "disk", 1)
    (tmp_path / "layout").mkdir()
    staged = python(EVERYTHING, tmp_path, umask, share).stdout.split()
    root = tmp_path / "store"
    assert stat.S_IMODE(root.stat().st_mode) == (0o755 if share else 0o700)
    found = modes(root)
    blobs = {path for path in found if path.startswith("blobs/sha256/")}
    records = {path for path in found if path.startswith("cache/sources/")}
    assert {found[path] for path in blobs} == {0o444}
    assert {found[path] for path in records} == {0o600}
    assert {path: mode for path, mode in found.items() if path not in blobs | records} == MODES
    assert staged == ["0o755", "0o755"]


def test_37_a_store_that_is_there_can_be_shared(tmp_path: Path) -> None:
    """Also one that was copied under an umask that closed everything; a set-group-ID bit stays."""
    root = tmp_path / "store"
    with Store.init(root, options=FAST) as store:
        capture(store, tmp_path, "one", 1)
    for path in (root, *root.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o2700)
    with Store.init(root, options=FAST) as store:
        assert names(store) == ["one"]
    assert {mode for path, mode in modes(root).items() if (root / path).is_dir()} == {0o2700}
    with Store.init(root, share=True, options=FAST) as store:
        assert content(store, "one") == disk_bytes(1)
    shared = {path: mode for path, mode in modes(root).items() if (root / path).is_dir()}
    assert shared.pop("cache/sources") == 0o2700
    assert set(shared.values()) == {0o2755}
    assert stat.S_IMODE(root.stat().st_mode) == 0o2755


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """An empty directory where a store is to be, as `mkdir` makes one."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o755)
    return tmp_path / "store"


def test_a_store_that_is_made_unasked_leaves_a_directory_s_mode_and_says_so(empty: Path) -> None:
    """Whoever made the directory may have meant its mode; but disks hold secrets."""
    with Store.open(empty, create=True, options=FAST) as store:
        (warning,) = store.warnings
        assert store.is_new
    assert "(0755)" in warning
    assert "chmod 0700" in warning
    assert stat.S_IMODE(empty.stat().st_mode) == 0o755
    with Store.open(empty, create=True, options=FAST) as store:
        assert not store.warnings
        assert not store.is_new


def test_one_that_is_private_or_new_is_not_warned_about(empty: Path) -> None:
    empty.chmod(0o700)
    for place in (empty, empty.parent / "new"):
        with Store.open(place, create=True, options=FAST) as store:
            assert not store.warnings
            assert store.mode == 0o700


@pytest.mark.parametrize(("share", "mode"), [(False, 0o700), (True, 0o755)])
def test_init_makes_an_empty_directory_what_is_asked(empty: Path, share: bool, mode: int) -> None:
    empty.chmod(0o2711)
    with Store.init(empty, share=share, options=FAST) as store:
        assert not store.warnings
        assert store.mode == mode | 0o2000
    empty.chmod(0o750)
    with Store.init(empty, options=FAST) as store:
        assert store.mode == 0o750


@pytest.mark.needs("root")
def test_init_leaves_a_directory_of_somebody_else_as_it_is(empty: Path) -> None:
    os.chown(empty, 65534, 65534)
    with Store.init(empty, options=FAST) as store:
        assert store.mode == 0o755
        assert "chmod 0700" in "".join(store.warnings)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777, 0o2770])
@pytest.mark.parametrize("part", ["", "refs", "blobs", "blobs/sha256", "tmp", "trash", "cache"])
def test_37_what_others_can_write_to_is_told(store: Store, tmp_path: Path, part: str, mode: int) -> None:
    """A sticky bit keeps others from removing names, but not from adding them."""
    capture(store, tmp_path, "one", 1)
    store.tag("one", "two")
    store.remove("two")
    assert not store.warnings
    Path(store.path, part).chmod(mode)
    warning = "".join(store.warnings)
    assert f"may write to {part or '.'} ({mode:04o})" in warning
    assert dict(permissions.writable_by_others(store.path)) == {part or ".": mode}


def test_37_the_command_line_tells_it_once_and_on_stderr(casstore: Casstore, tmp_path: Path) -> None:
    disk = write_disk(tmp_path / "disk", 1)
    assert "warning" not in casstore("create", "one", "--disk", disk).stderr
    (casstore.store / "refs").chmod(0o777)
    told = casstore("rm", "-q", "one")
    assert told.stderr.count("warning: store") == 1
    assert "may write to refs (0777)" in told.stderr
    assert "chmod -R go-w" in told.stderr
    assert "warning" not in casstore("list", "--json").stdout
    # pull, which opens the store twice
    with Store.init(tmp_path / "other", options=FAST) as other:
        capture(other, tmp_path, "new", 2)
    assert casstore("pull", f"oci:{other.path}:new").stderr.count("warning: store") == 1


def test_init(casstore: Casstore) -> None:
    assert casstore("init").lines == [str(casstore.store)]
    assert stat.S_IMODE(casstore.store.stat().st_mode) == 0o700
    assert casstore("list", "-q").stdout == ""
    casstore("init", "--shared")
    assert stat.S_IMODE(casstore.store.stat().st_mode) == 0o755
    casstore("init")  # does not make a shared one private again: nobody said so
    assert stat.S_IMODE(casstore.store.stat().st_mode) == 0o755
    assert "there already: mode 0755, others can read it" in casstore("init").stderr
    assert casstore("init", "-q").stderr == ""
    assert casstore.json("init") == {"version": 1, "path": str(casstore.store), "made": False, "mode": "0755"}
    (casstore.folder / "empty").mkdir(mode=0o755)
    told = casstore("--store", casstore.folder / "empty", "init")
    assert "made: mode 0700, only its owner can read it" in told.stderr
    (casstore.folder / "plain").mkdir(mode=0o755)
    write_disk(casstore.folder / "disk", 1)
    told = casstore("--store", casstore.folder / "plain", "create", "one", "--disk", casstore.folder / "disk")
    assert "chmod 0700" in told.stderr
    (casstore.folder / "files").mkdir()
    (casstore.folder / "files/notes.txt").touch()
    assert "other files" in casstore("--store", casstore.folder / "files", "init", code=15).stderr


# --- a store that may only be read ------------------------------------------------------------------------------------

BECOME_NOBODY = "import os\nos.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\n"


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that every user can reach."""
    folder = tmp_path_factory.mktemp("outside")
    closed = [path for path in (folder, *folder.parents) if not path.stat().st_mode & stat.S_IXOTH]
    before = {path: stat.S_IMODE(path.stat().st_mode) for path in closed}
    for path in closed:
        path.chmod(before[path] | 0o055)
    yield folder
    for path, mode in before.items():
        path.chmod(mode)


@pytest.mark.needs("root")
def test_a_private_store_is_closed_to_other_users(outside: Path) -> None:
    """Row 8."""
    with Store.init(outside / "store", options=FAST) as store:
        capture(store, outside, "one", 1)
    code = f"""
import sys
from casstore import Store
from casstore.errors import StorageError
{BECOME_NOBODY}
try:
    Store.open(sys.argv[1])
except StorageError as error:
    assert "Permission denied" in str(error), error
    print(error.exit_code)
"""
    done = python(code, outside / "store", check=False)
    assert (done.stdout, done.stderr) == ("17\n", "")


@pytest.mark.needs("root")
def test_a_reader_sees_what_its_owner_does_meanwhile(outside: Path) -> None:
    """A shared store: another user lists and restores while it grows, and a removed snapshot is gone for him, too."""
    with Store.init(outside / "store", share=True, options=FAST) as store:
        capture(store, outside, "one", 1)
        code = f"""
import sys
from casstore import Store
with Store.open(sys.argv[1]) as store:
    store.verify("one")  # imports what nobody may not be able to read
{BECOME_NOBODY}
with Store.open(sys.argv[1]) as store:
    assert store.read_only
    for _ in sys.stdin:
        seen = [handle.name for handle in store.list()]
        assert all(store.verify(name).chunks for name in seen)
        print(*seen, flush=True)
"""
        command = [sys.executable, "-u", "-c", code, str(outside / "store")]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None

            def seen() -> set[str]:
                print(file=reader.stdin, flush=True)
                return set(reader.stdout.readline().split()) if reader.stdout else set()

            assert seen() == {"one"}
            capture(store, outside, "two", 2, 3)
            assert seen() == {"one", "two"}
            store.remove("one")
            store.gc()
            assert seen() == {"two"}
            assert reader.communicate(timeout=30) == ("", "")


ASK = f"""
import sys
from casstore import Store
from casstore.errors import StorageError
with Store.open(sys.argv[1]) as store:
    store.adopt(dry_run=True)  # imports what nobody may not be able to read
{BECOME_NOBODY}
with Store.open(sys.argv[1]) as store:
    report = store.gc(dry_run=True)
    print(*report.removed)
    print(report.kept, report.dead_operations, *[ref.name for ref in report.dropped])
    print(*[each.name for each in store.adopt(dry_run=True).adopted])
    for change in (store.gc, store.adopt, store.reindex):
        try:
            change()
        except StorageError as error:
            print(error.exit_code)
"""


@pytest.mark.needs("root")
def test_a_reader_may_ask_what_gc_and_adopt_would_do(outside: Path) -> None:
    """Without a lock: it is held here meanwhile, and so are the leases, of which none may be taken away."""
    with Store.init(outside / "other", options=FAST) as other:
        theirs = capture(other, outside, "theirs", 9)
    with Store.init(outside / "store", share=True, options=FAST) as store:
        for n in range(4):
            capture(store, outside, f"s{n}", n)
        needs = [store.open_snapshot(f"s{n}").needs for n in range(4)]
        for n in range(3):
            store.remove(f"s{n}")
        bring(store, other, "theirs")
        add_entry(outside / "store", theirs.digest, "theirs")
        directory = StoreDirectory.open(store.path, FAST, create=False)
        with directory.operation() as running:
            running.rely_on(needs[0])
            dead = directory.operation()
            dead.rely_on(needs[1])
            dead._lease.release()
            with directory.exclusive():
                told = python(ASK, outside / "store").stdout.splitlines()
    garbage = {str(digest) for digest in set(needs[2]) - {digest for n in (0, 1, 3) for digest in needs[n]}}
    assert garbage
    assert set(told[0].split()) == garbage
    assert told[1].split()[1:] == ["0", "s2", "s1", "s0"]
    assert told[2:] == ["theirs", "17", "17", "17"]


@pytest.mark.needs("root")
def test_a_parent_that_is_closed_is_told_with_its_path(outside: Path) -> None:
    (outside / "closed").mkdir(mode=0o700)
    code = f"""
import sys
from casstore import Store
from casstore.errors import StorageError
{BECOME_NOBODY}
try:
    Store.init(sys.argv[1] + "/closed/store")
except StorageError as error:
    print(error)
"""
    done = python(code, outside, check=False)
    assert done.stderr == ""
    assert f"{outside}/closed" in done.stdout


def test_a_store_that_cannot_be_changed_is_not_shared(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError, match="read-only"):
        Store.init(store.path, share=True)
