"""casstore.aio: the shape of microsandbox's SDK, what its calls do at the edges, and how they run."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import sys
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from casstore import Snapshot as StoredSnapshot
from casstore import Store, aio
from casstore.aio import MicrosandboxError, Snapshot, SnapshotHandle
from casstore.aio import errors as aio_errors
from casstore.errors import StorageError, UntrustedContent, UsageError
from tests.support.microsandbox import VERSIONS, RealTool, exports
from tests.support.sdk import run
from tests.support.seed import make_artifact
from tests.support.stores import FAST, leftovers, python

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _place(tmp_path: Path) -> Iterator[None]:
    with aio.use(tmp_path / "store", home=tmp_path / "home"):
        yield


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Artifact directories: root, its child mid, its child head, and one that is no relative."""
    folder = tmp_path / "shelf"
    _, root = make_artifact(folder, "root", b"root" * MIB)
    _, mid = make_artifact(folder, "mid", b"mid" * MIB, parent=root, created_at="2026-05-02T12:00:00Z")
    make_artifact(folder, "head", b"head" * MIB, parent=mid, created_at="2026-05-03T12:00:00.123456789+00:00")
    make_artifact(folder, "sealed", b"sealed", integrity=True, labels={"b": "2", "a": "1"}, created_at="once")
    return folder


def fails(call: Callable[[], Awaitable[object]]) -> str:
    """The text of the MicrosandboxError that a call raises."""
    with pytest.raises(MicrosandboxError) as raised:
        run(call)
    return str(raised.value)


# --- the shape of the SDK ---------------------------------------------------------------------------------------------

CALLS = ("create", "open", "get", "list", "list_dir", "remove", "reindex", "export", "import_")
SHAPE = """
import microsandbox, inspect
def signature(kind, name):
    return str(inspect.signature(getattr(kind, name))).replace("self, /", "self")
def properties(kind):
    return sorted(name for name in vars(kind) if inspect.isgetsetdescriptor(getattr(kind, name)))
def error(name):
    kind = getattr(microsandbox.errors, name)
    return [name, [base.__name__ for base in kind.__mro__], getattr(kind, "code", None)]
return {
    "calls": {name: signature(Snapshot, name) for name in args},
    "handle": {name: signature(microsandbox.SnapshotHandle, name) for name in ("open", "remove")},
    "verify": signature(Snapshot, "verify"),
    "properties": [properties(Snapshot), properties(microsandbox.SnapshotHandle)],
    "errors": sorted(error(name) for name in vars(microsandbox.errors) if name.endswith("Error")),
    "public": sorted(name for name in microsandbox.__all__ if name.endswith("Error") or name.startswith("Snapshot")),
}
"""
OF_LATER_VERSIONS = {"from_sandbox", "dest_dir"}


def told_signature(kind: type, name: str) -> str:
    """As text, without annotations and what later versions brought."""
    signature = inspect.signature(getattr(kind, name))
    wanted = [each for each in signature.parameters.values() if each.name not in OF_LATER_VERSIONS]
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in wanted]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def properties(kind: type) -> list[str]:
    return sorted(name for name, value in vars(kind).items() if isinstance(value, property))


@pytest.mark.needs("microsandbox")
def test_the_sdk_has_this_shape(tmp_path: Path) -> None:
    real = RealTool("0.4.4", tmp_path / "real").sdk(SHAPE, *CALLS)
    assert real["calls"] == {name: told_signature(Snapshot, name) for name in CALLS}
    assert real["handle"] == {name: told_signature(SnapshotHandle, name) for name in ("open", "remove")}
    assert real["verify"] == told_signature(Snapshot, "verify")
    assert real["properties"] == [properties(Snapshot), properties(SnapshotHandle)]
    mine = {name: kind for name, kind in vars(aio_errors).items() if name.endswith("Error")}
    told = [[name, [base.__name__ for base in kind.__mro__], kind.code] for name, kind in sorted(mine.items())]
    assert real["errors"] == told
    assert set(real["public"]) <= set(aio.__all__)


def test_names_of_later_versions() -> None:
    assert Snapshot.save is Snapshot.export
    assert Snapshot.load is Snapshot.import_


def test_results_have_no_constructor_and_cannot_be_changed(shelf: Path) -> None:
    with pytest.raises(TypeError, match="No constructor defined for Snapshot"):
        Snapshot()
    with pytest.raises(TypeError, match="No constructor defined for SnapshotHandle"):
        SnapshotHandle()
    opened: Any = run(lambda: Snapshot.open(str(shelf / "root")))
    for name in ("path", "anything"):
        with pytest.raises(AttributeError):
            setattr(opened, name, "x")
    opened.labels["mine"] = "not its"
    assert opened.labels == {}


def test_wrong_types_fail_at_the_call() -> None:
    async def script() -> None:
        wrong: list[tuple[Callable[[], object], str]] = [
            (lambda: Snapshot.open(Path("x")), "argument 'path_or_name': 'PosixPath' object cannot be converted"),  # type: ignore[arg-type]
            (lambda: Snapshot.remove("x", force=1), "argument 'force': 'int' object cannot be converted to 'PyBool'"),  # type: ignore[arg-type]
            (lambda: Snapshot.list_dir(b"x"), "argument 'dir': 'bytes' object cannot be converted to 'PyString'"),  # type: ignore[arg-type]
            (lambda: Snapshot.import_(5), "argument 'archive': expected str, bytes or os.PathLike object, not int"),  # type: ignore[arg-type]
        ]
        for call, text in wrong:
            with pytest.raises(TypeError) as raised:
                call()
            assert str(raised.value).startswith(text)

    asyncio.run(script())


def test_calls_need_a_running_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        Snapshot.list()


# --- how calls run ----------------------------------------------------------------------------------------------------


def test_a_call_has_started_when_it_returns(tmp_path: Path, shelf: Path) -> None:
    async def script() -> None:
        call = Snapshot.reindex(shelf)
        assert isinstance(call, asyncio.Future)
        await asyncio.wait([call])  # takes futures only
        assert await call == await call == 4

    asyncio.run(script())


def test_calls_run_side_by_side(tmp_path: Path, shelf: Path) -> None:
    async def script() -> None:
        await Snapshot.reindex(shelf)
        opened = await asyncio.gather(*(Snapshot.open(name) for name in ("root", "mid", "head", "sealed") * 5))
        assert [os.path.basename(each.path) for each in opened] == ["root", "mid", "head", "sealed"] * 5
        reports = await asyncio.gather(*(each.verify() for each in opened))
        assert {report["upper"]["kind"] for report in reports} == {"not_recorded", "verified"}

    asyncio.run(script())


def staged(folder: Path) -> list[Path]:
    """The files of all operations that are under way in any store in `folder`."""
    return list(folder.rglob("op-*/*"))


@pytest.mark.parametrize("case", ["reindex", "export", "import"])
def test_a_cancelled_call_leaves_nothing(tmp_path: Path, case: str) -> None:
    folder, _ = make_artifact(tmp_path / "shelf", "big", random.Random(1).randbytes(64 * MIB))
    archive = tmp_path / "big.tar"
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(folder, "big")
    before = set(tmp_path.rglob("*"))
    calls: dict[str, Callable[[], asyncio.Future[Any]]] = {
        "reindex": lambda: Snapshot.reindex(folder.parent),
        "export": lambda: Snapshot.export(str(folder), tmp_path / "new" / "out.tar"),
        "import": lambda: Snapshot.import_(archive, dest=tmp_path / "new"),
    }

    async def script() -> None:
        call = calls[case]()
        while not staged(tmp_path):  # noqa: ASYNC110  (another thread makes it)
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not staged(tmp_path)  # the thread has ended, too
        assert await Snapshot.list() == []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(calls[case](), 0.01)

    asyncio.run(script())
    store = tmp_path / "store"
    assert {path for path in tmp_path.rglob("*") if store not in {path, *path.parents}} == before
    if store.exists():
        with Store.open(store, options=FAST) as opened:
            opened.gc()
        assert leftovers(store) == []


def test_a_call_that_is_cancelled_before_its_turn_does_nothing(tmp_path: Path, shelf: Path) -> None:
    async def script() -> None:
        call = Snapshot.reindex(shelf)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(script())
    assert not (tmp_path / "store").exists()


def test_the_process_ends_in_silence(tmp_path: Path, shelf: Path) -> None:
    program = """
import asyncio, sys
from casstore import aio
from casstore.aio import Snapshot
aio.use(sys.argv[1])
async def main():
    print(await Snapshot.reindex(sys.argv[2]))
    Snapshot.list()  # never awaited
asyncio.run(main())
"""
    done = python(program, tmp_path / "store", shelf)
    assert (done.returncode, done.stdout, done.stderr) == (0, "4\n", "")


# --- which store ------------------------------------------------------------------------------------------------------


def test_the_default_is_that_of_the_command_line(tmp_path: Path, shelf: Path) -> None:
    program = """
import asyncio, os, sys
from casstore.aio import Snapshot
async def main():
    await Snapshot.reindex(sys.argv[1])
    print((await Snapshot.get("root")).path)
asyncio.run(main())
"""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "ann")}
    for more, store in (({}, tmp_path / "ann/.casstore"), ({"CASSTORE_STORE": str(tmp_path / "s")}, tmp_path / "s")):
        done = python_with(program, {**env, **more}, shelf)
        assert done == f"{store}/refs/root\n"


def python_with(program: str, env: dict[str, str], *arguments: Path) -> str:
    import subprocess

    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=60).stdout


def test_use_is_for_its_block_and_its_tasks(tmp_path: Path, shelf: Path) -> None:
    async def fill(store: Path, folder: Path) -> list[str]:
        aio.use(store)
        await Snapshot.reindex(folder)
        await asyncio.sleep(0.01)
        return sorted(str(handle.name) for handle in await Snapshot.list())

    async def script() -> None:
        one, two = make_artifact(tmp_path / "a", "one", b"1"), make_artifact(tmp_path / "b", "two", b"2")
        assert one != two
        first, second = await asyncio.gather(
            fill(tmp_path / "s1", tmp_path / "a"), fill(tmp_path / "s2", tmp_path / "b")
        )
        assert (first, second) == (["one"], ["two"])
        assert await Snapshot.list() == []
        with aio.use(tmp_path / "s1"):
            assert [handle.name for handle in await Snapshot.list()] == ["one"]
        assert await Snapshot.list() == []

    asyncio.run(script())


# --- what calls give --------------------------------------------------------------------------------------------------


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    async def script() -> None:
        assert await Snapshot.list() == []
        assert await Snapshot.reindex() == 0
        assert await Snapshot.reindex(tmp_path / "missing") == 0
        for call in (Snapshot.open, Snapshot.get, Snapshot.remove):
            with pytest.raises(MicrosandboxError, match="snapshot not found: "):
                await call("missing")

    asyncio.run(script())
    assert not (tmp_path / "store").exists()


def test_a_snapshot_in_the_store(tmp_path: Path, shelf: Path) -> None:
    async def script() -> None:
        assert await Snapshot.reindex(shelf) == 4
        outside = await Snapshot.open(str(shelf / "sealed"))
        stored = await Snapshot.open("sealed")
        assert stored.path == str(tmp_path / "store/refs/sealed")
        for name in properties(Snapshot):
            if name != "path":
                assert getattr(stored, name) == getattr(outside, name)
        assert list(stored.labels) == ["a", "b"]
        report = await stored.verify()
        assert report == {**await outside.verify(), "path": stored.path}
        for text in (
            "sealed",
            stored.digest,
            stored.digest[:20],
            stored.path,
            f"{tmp_path}/./store/refs/../refs/sealed",
        ):
            assert (await Snapshot.open(text)).digest == stored.digest
            assert (await Snapshot.get(text)).path == stored.path

    asyncio.run(script())


def test_times_of_handles(shelf: Path, tmp_path: Path) -> None:
    async def script() -> None:
        await Snapshot.reindex(shelf)
        assert (await Snapshot.get("head")).created_at == 1777809600123.0
        told = (await Snapshot.get("sealed")).created_at  # its manifest says "once"
        assert told == float((tmp_path / "store/refs/sealed").lstat().st_mtime_ns // 10**6)

    asyncio.run(script())


def test_list_is_newest_first(shelf: Path) -> None:
    async def script() -> None:
        await Snapshot.reindex(shelf)
        found = [handle.name for handle in await Snapshot.list()]
        assert found.index("head") < found.index("mid") < found.index("root")
        again = await Snapshot.list_dir(Path((await Snapshot.get("root")).path).parent)
        assert sorted(Path(each.path).name for each in again) == ["head", "mid", "root", "sealed"]

    asyncio.run(script())


def test_what_is_outside_is_not_in_the_list(shelf: Path) -> None:
    async def script() -> None:
        handle = await Snapshot.get(str(shelf / "root"))
        assert (handle.name, handle.path) == ("root", str(shelf / "root"))
        assert (await handle.open()).digest == handle.digest
        assert await Snapshot.list() == []

    asyncio.run(script())


def test_reindex_takes_in_what_has_a_name_that_is_taken(tmp_path: Path, shelf: Path) -> None:
    make_artifact(tmp_path / "more", "root", b"another one")
    (tmp_path / "more" / "broken").mkdir()
    (tmp_path / "more" / "broken" / "manifest.json").write_text("{")

    async def script() -> None:
        await Snapshot.reindex(shelf)
        assert await Snapshot.reindex(tmp_path / "more") == 1
        assert await Snapshot.reindex(tmp_path / "more") == 1
        other = await Snapshot.open(str(tmp_path / "more" / "root"))
        handle = await Snapshot.get(other.digest)
        assert handle.name == f"sha256-{other.digest[7:23]}"
        assert (await Snapshot.get("root")).digest != other.digest
        assert await Snapshot.reindex() == 5

    asyncio.run(script())


# --- making -----------------------------------------------------------------------------------------------------------


@pytest.mark.needs("microsandbox")
def test_words_of_later_versions(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"disk" * MIB)
    RealTool("0.4.4", tmp_path / "ann").add_sandbox("box", upper=disk)

    async def script() -> None:
        made = await Snapshot.create("one", from_sandbox="box", record_integrity=True)
        assert (made.path, made.source_sandbox) == (str(tmp_path / "store/refs/one"), "box")
        other = await Snapshot.create("two", from_sandbox="box", dest_dir=tmp_path / "there")
        assert other.path == str(tmp_path / "there/two")
        await Snapshot.save("one", tmp_path / "one.tar.zst")
        await Snapshot.remove("one")
        assert (await Snapshot.load(tmp_path / "one.tar.zst")).digest == made.digest

    with aio.use(home=tmp_path / "ann/.microsandbox"):
        asyncio.run(script())


@pytest.mark.needs("microsandbox")
def test_a_directory_at_a_path_is_one_of_0_4(tmp_path: Path) -> None:
    real = RealTool("0.4.4", tmp_path / "ann")
    disk = tmp_path / "disk"
    with disk.open("wb") as out:
        out.seek(5 * MIB)
        out.write(random.Random(1).randbytes(MIB))
        out.truncate(64 * MIB)
    real.add_sandbox("box", upper=disk)

    async def script() -> tuple[Snapshot, SnapshotHandle]:
        made = await Snapshot.create("box", path=tmp_path / "made", labels={"é": "/"}, record_integrity=True)
        await Snapshot.export(made.path, tmp_path / "made.tar.zst")
        return made, await Snapshot.import_(tmp_path / "made.tar.zst", dest=tmp_path / "imported")

    with aio.use(home=tmp_path / "ann/.microsandbox"):
        made, imported = asyncio.run(script())
    for told in real.read(made.path, imported.path):
        assert (told.error, told.upper, told.digest, told.labels) == ("", "verified", made.digest, {"é": "/"})
        assert Path(told.path, "upper.ext4").read_bytes() == disk.read_bytes()
        assert Path(told.path, "upper.ext4").stat().st_blocks == disk.stat().st_blocks


def test_an_algorithm_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="md5"):
        aio.use(integrity="md5")


@pytest.mark.parametrize(
    "archive",
    [path for version in VERSIONS for path in exports(version)],
    ids=lambda path: f"{path.parts[-3]}-{path.stem}",
)
def test_archives_of_every_version(tmp_path: Path, archive: Path) -> None:
    async def script() -> None:
        handle = await Snapshot.import_(archive)
        stored = await handle.open()
        assert handle.name == f"sha256-{handle.digest[7:23]}"
        assert {name: getattr(stored, name) for name in properties(Snapshot)}["path"] == handle.path
        report = await stored.verify()
        outside = await (await Snapshot.import_(archive, dest=tmp_path / "dest")).open()
        assert (await outside.verify())["upper"]["kind"] == report["upper"]["kind"]
        for name in ("size_bytes", "labels", "image_ref", "source_sandbox"):
            assert getattr(outside, name) == getattr(stored, name)
        assert (outside.digest == stored.digest) == ("0.4.4" in archive.parts)  # in the form of 0.4

    asyncio.run(script())
    for folder in (tmp_path / "dest").iterdir():
        assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "upper.ext4"]


def test_the_policy_of_the_store_holds_for_what_comes_in(tmp_path: Path, shelf: Path) -> None:
    run(lambda: Snapshot.reindex(shelf))
    run(lambda: Snapshot.export("sealed", tmp_path / "sealed.tar"))
    store = tmp_path / "strict"
    Store.init(store, options=FAST).close()
    (store / "casstore.policy.toml").write_text('version = 1\ndefault = "refuse"')
    with aio.use(store):
        for dest in (None, tmp_path / "dest"):
            with pytest.raises(MicrosandboxError, match="nothing from an archive is let in") as raised:
                run(partial(Snapshot.import_, tmp_path / "sealed.tar", dest=dest))
            assert isinstance(raised.value.__cause__, UntrustedContent)
        assert run(lambda: Snapshot.reindex(shelf)) == 0
        assert run(Snapshot.list) == []
        (store / "casstore.policy.toml").write_text("version = 1")
        assert "policy" in fails(lambda: Snapshot.import_(tmp_path / "sealed.tar"))


def test_directories_are_all_there_or_none(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(lambda: Snapshot.reindex(shelf))
    run(lambda: Snapshot.export("head", tmp_path / "chain.tar", with_parents=True))
    restored: list[object] = []

    def restore(snapshot: StoredSnapshot, *arguments: Any, **options: Any) -> str:
        restored.append(snapshot)
        if len(restored) == 3:
            raise StorageError("the disk is full")
        return original(snapshot, *arguments, **options)

    original = StoredSnapshot.restore
    monkeypatch.setattr(StoredSnapshot, "restore", restore)
    assert "full" in fails(lambda: Snapshot.import_(tmp_path / "chain.tar", dest=tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    run(lambda: Snapshot.import_(tmp_path / "chain.tar", dest=tmp_path / "new"))
    assert len(list((tmp_path / "new").iterdir())) == 3


# --- removing ---------------------------------------------------------------------------------------------------------


def test_parents_stay(shelf: Path) -> None:
    run(lambda: Snapshot.reindex(shelf))
    root = run(lambda: Snapshot.get("root"))
    told = f"snapshot {root.digest} has 1 indexed child snapshot(s); pass --force to remove anyway"
    assert fails(lambda: Snapshot.remove("root")) == told
    assert fails(lambda: Snapshot.remove(root.digest)) == told
    assert fails(root.remove) == told
    assert fails(lambda: Snapshot.remove(str(shelf / "root"))) == told
    assert (shelf / "root").is_dir()
    assert run(lambda: root.remove(force=True)) == ()
    assert run(lambda: Snapshot.remove(str(shelf / "root"), force=True)) == ()
    assert not (shelf / "root").exists()


def test_removing_a_directory_removes_nothing_else(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(shelf / "head")
    run(lambda: Snapshot.remove(str(tmp_path / "link")))
    assert not (tmp_path / "link").is_symlink()
    (shelf / "head" / "notes.txt").write_text("mine")
    assert "'notes.txt'" in fails(lambda: Snapshot.remove(str(shelf / "head")))
    assert (shelf / "head" / "upper.ext4").exists()


# --- errors -----------------------------------------------------------------------------------------------------------


def test_errors_have_the_cause_that_casstore_raised(shelf: Path) -> None:
    run(lambda: Snapshot.reindex(shelf))
    with pytest.raises(MicrosandboxError) as raised:
        run(lambda: Snapshot.open("rot"))
    assert "there is no such name" in str(raised.value.__cause__)


@pytest.mark.parametrize("file", ["../other/upper.ext4", "/etc/hostname", "..", "layers/upper.ext4"])
def test_a_disk_is_looked_for_in_its_directory_only(tmp_path: Path, file: str) -> None:
    make_artifact(tmp_path, "other", b"other")
    folder, _ = make_artifact(tmp_path, "bad", b"other", upper={"file": file, "size_bytes": 5, "integrity": None})
    assert fails(lambda: Snapshot.open(str(folder))).startswith("snapshot integrity check failed: ")


def test_an_unknown_algorithm(tmp_path: Path) -> None:
    upper = {"file": "upper.ext4", "size_bytes": 1, "integrity": {"algorithm": "md5", "digest": "md5:0"}}
    folder, _ = make_artifact(tmp_path, "odd", b"x", upper=upper)
    opened = run(lambda: Snapshot.open(str(folder)))
    told = "snapshot integrity check failed: unsupported upper integrity algorithm: md5"
    assert fails(opened.verify) == told


def test_a_store_that_is_none(tmp_path: Path, shelf: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "file").touch()
    assert "store" in fails(lambda: Snapshot.reindex(shelf))


def test_a_path_with_a_nul() -> None:
    for call in (Snapshot.open, Snapshot.get, Snapshot.remove):
        assert fails(lambda call=call: call("a/\0")) == "snapshot not found: a/\0"  # type: ignore[misc]
    told = "io error: file name contained an unexpected NUL byte"
    for path in ("\0", "a/\0"):
        assert fails(lambda path=path: Snapshot.list_dir(path)) == told  # type: ignore[misc]


def test_looking_needs_no_numpy(tmp_path: Path, shelf: Path) -> None:
    run(lambda: Snapshot.reindex(shelf))
    program = """
import asyncio, sys
from casstore import aio
aio.use(sys.argv[1])
async def main():
    for handle in await aio.Snapshot.list():
        await aio.Snapshot.get(handle.name)
asyncio.run(main())
print([name for name in ("numpy", "zstandard", "jsonschema", "requests", "rich") if name in sys.modules])
"""
    assert python(program, tmp_path / "store").stdout == "[]\n"
