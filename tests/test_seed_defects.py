"""What microsandbox 0.4.4 does wrong with snapshots, and that casstore does not; where it is quick to show, both.

Each test is named after the defect, and asks casstore.aio, the face that programs for 0.4.4 see.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard

from casstore import Store, aio
from casstore.aio import InvalidConfigError, MicrosandboxError, Snapshot
from tests.support.disks import allocated
from tests.support.microsandbox import FIXTURES, VERSIONS, RealTool, RealToolFailed
from tests.support.sandboxes import IMAGE_DIGEST, write_cache
from tests.support.sdk import run
from tests.support.seed import canonical, document, make_artifact, sha256
from tests.support.stores import FAST, leftovers, names

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PLAIN = 200 * MIB
"""The memory that casstore promises to do with."""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path) -> Iterator[None]:
    with aio.use(tmp_path / "store", home=tmp_path / "home" / ".microsandbox"):
        yield


@pytest.fixture
def real(tmp_path: Path) -> RealTool:
    """Microsandbox 0.4.4, in the home that casstore takes sandboxes from, too."""
    return RealTool("0.4.4", tmp_path / "home")


def verified(path: str | Path) -> str:
    """What verification says of a snapshot."""

    async def script() -> str:
        report = await (await Snapshot.open(str(path))).verify()
        return str(report["upper"]["kind"])

    return asyncio.run(script())


def write_sparse(path: Path, size: int = 64 * MIB) -> Path:
    """A disk with some data, and many holes."""
    with path.open("wb") as out:
        for at in range(0, size, size // 8):
            out.seek(at + 8 * KIB)
            out.write(random.Random(at).randbytes(20 * KIB))
        out.truncate(size)
    return path


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **header: Any) -> None:
    """Add a member; `header` has what tarfile would not write by itself."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in header.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


def archive(path: Path, *members: tuple[str, bytes] | tuple[str, bytes, dict[str, Any]]) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data, *more in members:
            add(tar, name, data, **(more[0] if more else {}))
    return path


def snapshot_members(upper: bytes, **fields: Any) -> Sequence[tuple[str, bytes]]:
    """Document and disk, as 0.4.4 puts them into an archive."""
    raw = canonical(document(upper, **fields))
    folder = f"sha256-{hashlib.sha256(raw).hexdigest()[:16]}"
    return [(f"{folder}/manifest.json", raw), (f"{folder}/upper.ext4", upper)]


# --- 1 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.needs("microsandbox")
def test_1_integrity_holds_on_the_way_through_an_archive(real: RealTool, tmp_path: Path) -> None:
    real.add_sandbox("box", upper=write_sparse(tmp_path / "disk"))
    theirs = real.create("box", "theirs", integrity=True)
    real.save("theirs", tmp_path / "theirs.tar.zst")
    with pytest.raises(RealToolFailed, match="upper digest mismatch"):
        real.load(tmp_path / "theirs.tar.zst", tmp_path / "there")

    imported = run(lambda: Snapshot.import_(tmp_path / "theirs.tar.zst"))
    assert imported.digest == theirs.digest
    assert verified(imported.path) == "verified"

    mine = run(lambda: Snapshot.create("box", name="mine", record_integrity=True))
    run(lambda: Snapshot.export("mine", tmp_path / "mine.tar.zst"))
    back = run(lambda: Snapshot.import_(tmp_path / "mine.tar.zst", dest=tmp_path / "back"))
    assert (back.digest, verified(back.path)) == (mine.digest, "verified")
    told = real.load(tmp_path / "mine.tar.zst", tmp_path / "there-too")  # holes are holes in it: 0.4.4 can read it, too
    assert (told.digest, told.upper) == (mine.digest, "verified")


def test_1_an_export_that_its_maker_cannot_import() -> None:
    handle = run(lambda: Snapshot.import_(FIXTURES / "0.4.4" / "exports" / "after-pip.tar.zst"))
    assert handle.digest == sha256(_fixture_manifest("after-pip"))
    assert verified(handle.path) == "verified"


def _fixture_manifest(name: str) -> bytes:
    with tarfile.open(FIXTURES / "0.4.4" / "snapshots" / f"{name}.tar") as tar:
        member = next(each for each in tar.getmembers() if each.name.endswith("manifest.json"))
        extracted = tar.extractfile(member)
        assert extracted is not None
        return extracted.read()


# --- 2 ----------------------------------------------------------------------------------------------------------------

IMPORT = r"""
import asyncio, re, sys
from casstore import aio
aio.use(sys.argv[1])
async def main():
    await aio.Snapshot.import_(sys.argv[2])
asyncio.run(main())
print(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1])
"""


def memory_of_import(store: Path, file: Path) -> int:
    """Bytes that a process took, at the most, to import an archive."""
    command = [sys.executable, "-c", IMPORT, str(store), str(file)]
    return KIB * int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)


def test_2_import_needs_no_memory_for_the_archive(tmp_path: Path) -> None:
    size = 3 * PLAIN // 2
    raw = canonical(document(b"", upper={"file": "upper.ext4", "size_bytes": size, "integrity": None}))
    block = random.Random(1).randbytes(MIB)
    dense = tmp_path / "dense.tar"
    with tarfile.open(dense, "w", format=tarfile.GNU_FORMAT) as tar:
        add(tar, "sha256-0/manifest.json", raw)
        info = tarfile.TarInfo("sha256-0/upper.ext4")
        info.size = size
        tar.addfile(info, _Repeated(block))
    assert dense.stat().st_size > size
    assert memory_of_import(tmp_path / "store", dense) < PLAIN


class _Repeated(io.RawIOBase):
    """The same block again and again."""

    def __init__(self, block: bytes) -> None:
        super().__init__()
        self._block, self._at = block, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        at = self._at % len(self._block)
        part = self._block[at : at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


@pytest.mark.needs("microsandbox")
def test_2_sparse_stays_sparse(real: RealTool, tmp_path: Path) -> None:
    disk = write_sparse(tmp_path / "disk", 4 * GIB)
    real.add_sandbox("box", upper=disk)
    made = run(lambda: Snapshot.create("box", name="mine"))
    run(lambda: Snapshot.export("mine", tmp_path / "mine.tar.zst"))
    assert memory_of_import(tmp_path / "other", tmp_path / "mine.tar.zst") < PLAIN
    back = run(lambda: Snapshot.import_(tmp_path / "mine.tar.zst", dest=tmp_path / "back"))
    assert (back.digest, back.size_bytes) == (made.digest, 4 * GIB)
    assert allocated(Path(back.path, "upper.ext4")) <= allocated(disk) + 64 * KIB

    small = write_sparse(tmp_path / "small")
    real.add_sandbox("small", upper=small)
    real.create("small", "theirs")
    real.save("theirs", tmp_path / "theirs.tar.zst")
    theirs = real.load(tmp_path / "theirs.tar.zst", tmp_path / "there")
    assert allocated(Path(theirs.path, "upper.ext4")) >= 64 * MIB  # what 0.4.4 makes of it
    mine = run(lambda: Snapshot.import_(tmp_path / "theirs.tar.zst", dest=tmp_path / "here"))
    assert allocated(Path(mine.path, "upper.ext4")) <= allocated(small) + 64 * KIB


# --- 3 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.needs("microsandbox")
def test_3_a_copy_without_holes_is_the_same_disk(real: RealTool, tmp_path: Path) -> None:
    real.add_sandbox("box", upper=write_sparse(tmp_path / "disk"))
    made = real.create("box", "theirs", integrity=True)
    copy = tmp_path / "copies" / "copy"
    copy.mkdir(parents=True)
    for file in ("manifest.json", "upper.ext4"):
        subprocess.run(["cp", "--sparse=never", f"{made.path}/{file}", copy / file], check=True)
    assert "upper digest mismatch" in real.read(copy)[0].error
    run(lambda: Snapshot.reindex(tmp_path / "copies"))
    assert run(lambda: Snapshot.get("copy")).digest == made.digest
    assert verified("copy") == "verified"


@pytest.mark.long
@pytest.mark.needs("microsandbox")
def test_3_a_digest_that_every_version_verifies(tmp_path: Path) -> None:
    home = RealTool("0.4.4", tmp_path / "home")
    home.add_sandbox("box", upper=write_sparse(tmp_path / "disk"))
    with aio.use(integrity="sha256"):
        made = run(lambda: Snapshot.create("box", name="mine", record_integrity=True))
    run(lambda: Snapshot.export("mine", tmp_path / "mine.tar.zst"))
    for version in VERSIONS:
        told = RealTool(version, tmp_path / version).load(tmp_path / "mine.tar.zst", tmp_path / version / "there")
        assert (told.error, told.upper, told.algorithm) == ("", "verified", "sha256")
    assert run(lambda: Snapshot.get("mine")).digest == made.digest


# --- 4 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.needs("microsandbox")
def test_4_an_archive_with_parents_is_about_the_child(real: RealTool, tmp_path: Path) -> None:
    folder = FIXTURES / "0.4.4" / "exports"
    theirs = folder / "chain-with-parents.tar.zst"
    head, root = sha256(_fixture_manifest("chain-head")), sha256(_fixture_manifest("chain-root"))
    assert real.load(theirs, tmp_path / "there").digest == root  # what 0.4.4 takes it to be about
    assert run(lambda: Snapshot.import_(theirs)).digest == head
    mine = tmp_path / "mine.tar.zst"
    run(lambda: Snapshot.export(head, mine, with_parents=True))
    assert real.load(mine, tmp_path / "there-too").digest == head  # even 0.4.4 finds it in here
    back = run(lambda: Snapshot.import_(mine, dest=tmp_path / "back"))
    assert back.digest == head
    assert len(list((tmp_path / "back").iterdir())) == 3


# --- 5 ----------------------------------------------------------------------------------------------------------------

OUTSIDE = "/outside"  # stands for a directory that is there
LINK = {"type": tarfile.SYMTYPE}
UPPER = b"the upper bytes"
ESCAPES: dict[str, Sequence[Any]] = {
    "a link for a folder": [("x", b"", {**LINK, "linkname": OUTSIDE}), ("x/poison", b"!"), *snapshot_members(UPPER)],
    "a link out": [("sha256-0", b"", {**LINK, "linkname": ".."}), *snapshot_members(UPPER)],
    "a link for a disk": [
        ("sha256-0/manifest.json", canonical(document(UPPER))),
        ("sha256-0/upper.ext4", b"", {**LINK, "linkname": "/etc/hostname"}),
    ],
    "a hard link": [
        *snapshot_members(UPPER),
        ("sha256-0/other", b"", {"type": tarfile.LNKTYPE, "linkname": "../../poison"}),
    ],
    "a parent folder": [*snapshot_members(UPPER), ("../poison", b"!")],
    "an absolute name": [*snapshot_members(UPPER), (f"{OUTSIDE}/poison", b"!")],
    "a disk elsewhere": [
        (
            "s/manifest.json",
            canonical(document(UPPER, upper={"file": "/etc/hostname", "size_bytes": 15, "integrity": None})),
        ),
        ("s/upper.ext4", UPPER),
    ],
    "a disk above": [
        (
            "s/manifest.json",
            canonical(document(UPPER, upper={"file": "../../poison", "size_bytes": 15, "integrity": None})),
        ),
        ("s/upper.ext4", UPPER),
    ],
    "a device": [*snapshot_members(UPPER), ("s/null", b"", {"type": tarfile.CHRTYPE})],
}


@pytest.mark.parametrize("case", ESCAPES)
def test_5_nothing_is_written_elsewhere(tmp_path: Path, case: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    members = []
    for name, data, *header in ESCAPES[case]:
        told = [{key: str(outside) if value == OUTSIDE else value for key, value in each.items()} for each in header]
        members.append((name.replace(OUTSIDE, str(outside)), data, *told))
    file = archive(tmp_path / "bad.tar", *members)
    before = {path for path in tmp_path.rglob("*") if "store" not in path.parts}
    for dest in (None, tmp_path / "dest"):
        with pytest.raises(MicrosandboxError):
            run(lambda dest=dest: Snapshot.import_(file, dest=dest))  # type: ignore[misc]
    assert {path for path in tmp_path.rglob("*") if "store" not in path.parts} == before
    with Store.open(tmp_path / "store", options=FAST) as store:
        assert names(store) == []


def test_5_the_image_cache_cannot_be_poisoned(tmp_path: Path) -> None:
    file = archive(tmp_path / "bad.tar", *snapshot_members(UPPER), ("cache/layers/sha256_0.erofs", b"evil"))
    run(lambda: Snapshot.import_(file))
    assert not (tmp_path / "home").exists()


def test_5_export_takes_nothing_else_along(tmp_path: Path) -> None:
    folder, _ = make_artifact(tmp_path, "shelf/mine", UPPER)
    (folder / "passwords").symlink_to("/etc/passwd")
    (folder / ".hidden").write_text("mine")
    run(lambda: Snapshot.export(str(folder), tmp_path / "out.tar", plain_tar=True))
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert sorted(Path(name).name for name in tar.getnames()) == ["manifest.json", "upper.ext4"]


# --- 6 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.needs("microsandbox")
def test_6_a_name_elsewhere_takes_none_away(real: RealTool, tmp_path: Path) -> None:
    _, first = make_artifact(real.home / "snapshots", "plain", b"first")
    make_artifact(tmp_path, "shelf/plain", b"second!")
    script = """
    await Snapshot.reindex()
    await Snapshot.reindex(args[0])
    return [(await Snapshot.get("plain")).path, len(await Snapshot.list())]
    """
    assert real.sdk(script, tmp_path / "shelf") == [str(tmp_path / "shelf/plain"), 1]  # 0.4.4 has lost the first

    run(lambda: Snapshot.reindex(real.home / "snapshots"))
    run(lambda: Snapshot.reindex(tmp_path / "shelf"))
    assert run(lambda: Snapshot.get("plain")).digest == first
    assert len(run(Snapshot.list)) == 2


@pytest.mark.needs("microsandbox")
def test_6_a_digest_is_an_address_everywhere(real: RealTool, tmp_path: Path) -> None:
    folder, digest = make_artifact(tmp_path, "shelf/one", UPPER, integrity=True)
    script = """
    await Snapshot.reindex(args[0])
    try:
        await Snapshot.open(args[1])
    except Exception as error:
        return str(error)
    """
    assert "snapshot not found" in real.sdk(script, folder.parent, digest)

    run(lambda: Snapshot.reindex(folder.parent))
    assert run(lambda: Snapshot.open(digest)).digest == digest
    assert verified(digest) == "verified"
    run(lambda: Snapshot.export(digest, tmp_path / "one.tar.zst"))
    assert run(lambda: Snapshot.import_(tmp_path / "one.tar.zst", dest=tmp_path / "back")).digest == digest
    assert run(lambda: Snapshot.remove(digest)) == ()
    assert run(Snapshot.list) == []


@pytest.mark.needs("microsandbox")
def test_6_what_is_gone_is_not_listed_and_children_are_counted_once(real: RealTool, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    _, root = make_artifact(shelf, "root", b"root")
    make_artifact(shelf, "child", b"child", parent=root)
    run(lambda: Snapshot.reindex(shelf))
    for _ in range(3):
        run(lambda: Snapshot.reindex(shelf))
    with pytest.raises(MicrosandboxError, match="has 1 indexed child snapshot"):
        run(lambda: Snapshot.remove("root"))
    run(lambda: Snapshot.remove("child"))
    run(lambda: Snapshot.remove("root"))
    assert run(Snapshot.list) == []

    script = """
    import shutil
    await Snapshot.reindex(args[0])
    shutil.rmtree(args[0] + "/child")
    await Snapshot.reindex(args[0])
    return sorted(handle.name for handle in await Snapshot.list())
    """
    assert real.sdk(script, shelf) == ["child", "root"]  # there is no child any more


# --- 7 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.needs("microsandbox")
def test_7_a_failed_import_leaves_nothing(real: RealTool, tmp_path: Path) -> None:
    good, bad = document(b"good"), document(b"bad", recorded=("sha256", sha256(b"other")))
    file = archive(
        tmp_path / "bad.tar",
        ("good/manifest.json", canonical(good)),
        ("good/upper.ext4", b"good"),
        ("bad/manifest.json", canonical(bad)),
        ("bad/upper.ext4", b"bad"),
    )
    with pytest.raises(RealToolFailed, match="upper digest mismatch"):
        real.load(file, tmp_path / "there")
    assert sorted(os.listdir(tmp_path / "there")) == ["bad", "good"]

    for dest in (None, tmp_path / "here"):
        with pytest.raises(MicrosandboxError):
            run(lambda dest=dest: Snapshot.import_(file, dest=dest))  # type: ignore[misc]
    assert not (tmp_path / "here").exists()
    assert run(Snapshot.list) == []
    with Store.open(tmp_path / "store", options=FAST) as store:
        store.gc()
    assert leftovers(tmp_path / "store") == []


@pytest.mark.needs("microsandbox")
def test_7_force_keeps_the_old_one_until_the_new_one_is_there(real: RealTool, tmp_path: Path) -> None:
    disk = real.add_sandbox("box", upper=write_sparse(tmp_path / "disk"))
    old = run(lambda: Snapshot.create("box", name="one"))
    at = run(lambda: Snapshot.create("box", path=tmp_path / "shelf" / "one"))
    real.create("box", "one")
    disk.chmod(0)
    disk.rename(disk.with_name("away"))
    disk.mkdir()  # what cannot be captured
    for call in (
        lambda: Snapshot.create("box", name="one", force=True),
        lambda: Snapshot.create("box", path=tmp_path / "shelf" / "one", force=True),
    ):
        with pytest.raises(MicrosandboxError):
            run(call)
    assert run(lambda: Snapshot.open("one")).digest == old.digest
    assert run(lambda: Snapshot.open(at.path)).digest == at.digest
    assert sorted(os.listdir(tmp_path / "shelf")) == ["one"]

    with pytest.raises(RealToolFailed):
        real.sdk("await Snapshot.create('box', name='one', force=True)")
    with pytest.raises(RealToolFailed, match="snapshot not found"):
        real.sdk("await Snapshot.open('one')")  # 0.4.4 has lost it


def test_7_a_killed_import_leaves_no_name(tmp_path: Path) -> None:
    members = snapshot_members(random.Random(3).randbytes(16 * MIB))
    file = archive(tmp_path / "big.tar", *members)
    store = tmp_path / "store"
    process = subprocess.Popen([sys.executable, "-c", IMPORT, str(store), str(file)], stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(store.glob("tmp/op-*/*")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run(Snapshot.list) == []
    handle = run(lambda: Snapshot.import_(file))
    assert verified(handle.path) == "not_recorded"
    with Store.open(store, options=FAST) as opened:
        opened.gc()
    assert leftovers(store) == []


@pytest.mark.needs("microsandbox")
def test_7_an_archive_is_what_it_is_and_not_what_it_is_called(real: RealTool, tmp_path: Path) -> None:
    plain = archive(tmp_path / "plain.tar", *snapshot_members(UPPER))
    shutil.copy(plain, tmp_path / "plain.zst")
    (tmp_path / "packed.tar").write_bytes(zstandard.compress(plain.read_bytes()))
    digests = {run(lambda: Snapshot.import_(plain)).digest}
    for name in ("plain.zst", "packed.tar"):
        with pytest.raises(RealToolFailed):
            real.load(tmp_path / name, tmp_path / "there")
        digests.add(run(lambda name=name: Snapshot.import_(tmp_path / name)).digest)  # type: ignore[misc]
    assert len(digests) == 1


# --- 8 and 10 ---------------------------------------------------------------------------------------------------------


@pytest.mark.needs("microsandbox")
def test_8_an_image_is_whole_and_nothing_else_goes_along(real: RealTool, tmp_path: Path) -> None:
    real.add_sandbox("box", upper=write_sparse(tmp_path / "disk"))
    write_cache(real.home)
    real.create("box", "theirs")
    real.sdk("await Snapshot.export('theirs', args[0], with_image=True, plain_tar=True)", tmp_path / "theirs.tar")
    run(lambda: Snapshot.create("box", name="mine"))
    run(lambda: Snapshot.export("mine", tmp_path / "mine.tar", with_image=True, plain_tar=True))

    def shipped(file: Path) -> set[str]:
        with tarfile.open(file) as tar:
            return {name.removeprefix("cache/") for name in tar.getnames() if name.startswith("cache/")}

    foreign = {name for name in shipped(tmp_path / "theirs.tar") if "foreign" in name or name.endswith(".lock")}
    assert len(foreign) == 3
    assert not any(name.startswith("manifests/") for name in shipped(tmp_path / "theirs.tar"))
    assert sorted(name.partition("/")[0] for name in shipped(tmp_path / "mine.tar")) == [
        *("fsmeta", "layers", "layers", "manifests", "vmdk")
    ]
    assert not foreign & shipped(tmp_path / "mine.tar")


@pytest.mark.needs("microsandbox")
def test_10_the_image_is_the_one_that_is_pinned(real: RealTool, tmp_path: Path) -> None:
    real.add_sandbox("box", upper=write_sparse(tmp_path / "disk"))
    write_cache(real.home, digest="sha256:" + 64 * "b")  # the tag stands for another image now
    made = run(lambda: Snapshot.create("box", name="mine"))
    assert made.image_manifest_digest == IMAGE_DIGEST
    with pytest.raises(MicrosandboxError, match="expected the digest"):
        run(lambda: Snapshot.export("mine", tmp_path / "mine.tar", with_image=True))
    assert not (tmp_path / "mine.tar").exists()


# --- 9 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.needs("microsandbox")
def test_9_every_snapshot_can_be_addressed(real: RealTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real.add_sandbox("box", upper=write_sparse(tmp_path / "disk", MIB))
    script = """
    await Snapshot.create("box", name=args[0])
    try:
        await Snapshot.get(args[0])
        await Snapshot.open(args[0])
    except Exception as error:
        return str(error)
    """
    for name in ("~x", "sha256:abc"):
        assert "snapshot not found" in real.sdk(script, name)
        with pytest.raises(InvalidConfigError, match="snapshot name"):
            run(lambda name=name: Snapshot.create("box", name=name))  # type: ignore[misc]
    with pytest.raises(InvalidConfigError, match="must not be empty"):
        run(lambda: Snapshot.create("box", path=""))
    monkeypatch.chdir(tmp_path)
    made = run(lambda: Snapshot.create("box", path="relative"))
    assert made.path == str(tmp_path / "relative")
    assert run(lambda: Snapshot.get(made.path)).digest == made.digest


# --- 11 ---------------------------------------------------------------------------------------------------------------


def test_11_a_process_ends_in_silence(tmp_path: Path) -> None:
    program = """
import asyncio
from casstore.aio import Snapshot
async def main():
    print(await Snapshot.list())
asyncio.run(main())
"""
    env = {**os.environ, "CASSTORE_STORE": str(tmp_path / "store")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")  # 0.4.4 says that it panics, if not always
