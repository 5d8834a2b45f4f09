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
from tests.support.command import Casstore
from tests.support.stores import FAST, capture, content, disk_bytes, names, python, write_disk

MODES = {
    **dict.fromkeys(("refs", "blobs", "blobs/sha256", "tmp", "trash", "cache"), 0o755),
    **dict.fromkeys(("lock", "gate.lock", "refs.lock"), 0o644),
    **dict.fromkeys(("oci-layout", "casstore.json", "index.json", "catalog.sqlite"), 0o644),
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


def test_an_empty_directory_that_somebody_made_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o750)
    (tmp_path / "store").chmod(0o750)
    with Store.init(tmp_path / "store", options=FAST) as store:
        assert store.warnings == ()
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o750


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777, 0o2770])
@pytest.mark.parametrize("part", ["", "refs", "blobs", "blobs/sha256", "tmp", "trash", "cache"])
def test_37_what_others_can_write_to_is_told(store: Store, tmp_path: Path, part: str, mode: int) -> None:
    """A sticky bit keeps others from removing names, but not from adding them."""
    capture(store, tmp_path, "one", 1)
    store.tag("one", "two")
    store.remove("two")
    assert store.warnings == ()
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
