"""The programs of the cookbook run, and do what they say. They are shown as they are in docs/how-to/cookbook.md."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from casstore import RegistryTarget, Signing, Snapshot, Store, TransferOptions
from tests.support import disks, filesystems, signing
from tests.support.registry_simulator import RegistrySimulator
from tests.support.sandboxes import SandboxHome
from tests.support.servers import RunningRegistry, registry
from tests.support.stores import FAST, capture, content, disk_bytes, names
from tests.support.transfers import over

ROOT = Path(__file__).parents[1]
COOKBOOK = ROOT / "docs" / "cookbook"
PAGE = ROOT / "docs" / "how-to" / "cookbook.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def options(server: RunningRegistry) -> TransferOptions:
    return TransferOptions(registries=lambda place: RegistryTarget(place, server.options))


@pytest.fixture
def ext4(tmp_path: Path) -> Path:
    tree = filesystems.write_files(tmp_path / "tree", {"etc/os-release": b"ID=test\n", "etc/motd": b"old\n"})
    return filesystems.make_image(tmp_path / "disk.ext4", tree, size=8 << 20)


def recipe(name: str) -> Callable[..., Any]:
    """The `main` of a program."""
    main: Callable[..., Any] = runpy.run_path(str(COOKBOOK / f"{name}.py"))["main"]
    return main


def test_every_program_is_shown_and_short_and_says_how_it_is_run() -> None:
    programs = sorted(path.name for path in COOKBOOK.glob("*.py"))
    assert sorted(re.findall(r'^--8<-- "(\S+)"$', PAGE.read_text(), re.MULTILINE)) == programs
    for path in COOKBOOK.glob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 40, path
        assert re.search(rf"\n\n.*\bpython (-m pytest )?{path.name}\b", text), path
        assert re.search(rf"def test_{path.stem}\b", Path(__file__).read_text()), path


def test_snapshot_and_restore(tmp_path: Path, ext4: Path) -> None:
    words = [tmp_path / "store", ext4, tmp_path / "copy"]
    subprocess.run([sys.executable, COOKBOOK / "snapshot_and_restore.py", *words], check=True, capture_output=True)
    assert disks.same_bytes(ext4, tmp_path / "copy")


def test_snapshot_each_step(tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(disk_bytes(1, 2, 3))
    write = f"printf {{}} | dd of={disk} conv=notrunc status=none"
    recipe("snapshot_each_step")(store.path, str(disk), write.format("one"), write.format("two"))
    assert names(store) == ["step-0", "step-1", "step-2"]
    assert [content(store, name)[:3] for name in ("step-1", "step-2")] == [b"one", b"two"]
    assert store.get("step-2").labels["step"] == "2"
    assert store.get("step-2").parent_digest == str(store.get("step-1").id)
    assert "step-2 sha256:" in capsys.readouterr().out


@pytest.mark.needs("docker-registry")
def test_push_with_progress(
    tmp_path: Path, store: Store, server: RunningRegistry, options: TransferOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    made = capture(store, tmp_path, "base", 1, 2, 3)
    told = recipe("push_with_progress")(store.path, "base", f"{server.host}/push:base", options=options)
    assert told == f"{server.host}/push@{made.digest}"
    assert f"pushing [{20 * '#'}] 100%\n" in capsys.readouterr().err


@pytest.mark.needs("docker-registry")
def test_pull_what_is_signed(
    tmp_path: Path, store: Store, other: Store, server: RunningRegistry, options: TransferOptions
) -> None:
    key = signing.key()
    (tmp_path / "key.pub").write_bytes(key.public.to_pem())
    capture(store, tmp_path, "base", 1, 2, 3)
    capture(store, tmp_path, "unsigned", 1, 2)
    signed = store.push("base", f"{server.host}/signed:base", signing=Signing(keys=[key]), options=options)
    unsigned = store.push("unsigned", f"{server.host}/signed:unsigned", options=options)
    pull = recipe("pull_what_is_signed")
    assert not pull(other.path, unsigned.reference, str(tmp_path / "key.pub"), options=options)
    assert not names(other)
    assert pull(other.path, signed.reference, str(tmp_path / "key.pub"), options=options)
    assert content(other, "pinned") == disk_bytes(1, 2, 3)
    with pytest.raises(SystemExit, match="pin the digest"):
        pull(other.path, f"{server.host}/signed:base", "", options=options)


def test_find_and_let_go(tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    disk = tmp_path / "disk"
    for number in range(13):
        disk.write_bytes(disk_bytes(number + 1))
        made = Snapshot.builder(disk).name(f"run-{number:02}").label("agent", "coder")
        (made.label("keep", "1") if number == 0 else made).create(store)
    capture(store, tmp_path, "foreign", 99)
    recipe("find_and_let_go")(store.path, "agent=coder")
    assert names(store) == ["foreign", "run-00", *(f"run-{number:02}" for number in range(3, 13))]
    assert "removes run-01 - " in capsys.readouterr().out


@pytest.mark.needs("docker-registry", "mke2fs")
def test_read_one_file(
    tmp_path: Path, store: Store, ext4: Path, server: RunningRegistry, options: TransferOptions
) -> None:
    Snapshot.builder(ext4).name("base").create(store)
    store.push("base", f"{server.host}/files:base", options=options)
    assert recipe("read_one_file")(f"{server.host}/files:base", "/etc/os-release", options=options) == b"ID=test\n"


@pytest.mark.needs("mke2fs", "debugfs")
def test_what_changed(tmp_path: Path, store: Store, ext4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Snapshot.builder(ext4).name("step-1").create(store)
    (tmp_path / "new").write_bytes(b"news\n")
    for request in ("rm /etc/motd", f"write {tmp_path}/new /etc/new"):
        filesystems.tool("debugfs", "-w", "-R", request, ext4)
    Snapshot.builder(ext4).name("step-2").create(store)
    recipe("what_changed")(store.path, "step-1", "step-2")
    told = capsys.readouterr().out.splitlines()
    assert "A b'/etc/new' 5 bytes" in told
    assert "D b'/etc/motd'" in told


def test_cancel_a_pull(tmp_path: Path, store: Store, other: Store) -> None:
    with RegistrySimulator() as registry:
        options = over(registry)
        made = capture(store, tmp_path, "base", *range(1, 20))
        store.push("base", f"{registry.host}/slow:base", options=options)
        registry.faults.drip = (4096, 0.1)
        pull = recipe("cancel_a_pull")
        assert not pull(other.path, f"{registry.host}/slow@{made.digest}", "0.2", options=options)
        assert not names(other)
        registry.faults.drip = None
        assert pull(other.path, f"{registry.host}/slow@{made.digest}", "60", options=options)
    assert names(other) == ["pulled"]


def test_pytest_fixture(tmp_path: Path, store: Store) -> None:
    capture(store, tmp_path, "base", 1, 2)
    shutil.copy(COOKBOOK / "pytest_fixture.py", tmp_path)  # where our own configuration is not
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "pytest_fixture.py"]
    environ = {**os.environ, "CASSTORE_STORE": store.path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.needs("docker-registry")
def test_mirror(tmp_path: Path, store: Store, server: RunningRegistry, options: TransferOptions) -> None:
    capture(store, tmp_path, "base", 1, 2, 3)
    capture(store, tmp_path, "more", 1, 2, 4)
    store.push_all(f"{server.host}/origin", signing=Signing(keys=[signing.key()]), options=options)
    mirror = f"oci:{tmp_path}/mirror"
    assert recipe("mirror")(f"{server.host}/origin", mirror, options=options) == 2
    with Store.init(tmp_path / "from-mirror", options=FAST) as copy:
        copy.pull(f"{mirror}:more", options=TransferOptions(referrers=True))
        assert content(copy, "more") == disk_bytes(1, 2, 4)
        assert len(copy.referrers("more")) == 1


def test_many_sandboxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = SandboxHome(tmp_path / "home")
    for number in range(3):
        home.add(f"box-{number}", upper=disk_bytes(number + 1))
    home.set(of="box-2", status="Running")
    main = recipe("many_sandboxes")
    done = asyncio.run(main(str(tmp_path / "store"), str(home.folder), *(f"box-{number}" for number in range(3))))
    home.close()
    assert done["box-2"] is None
    assert "box-2: snapshot source sandbox 'box-2' is not stopped" in capsys.readouterr().err
    with Store.open(tmp_path / "store") as store:
        assert names(store) == ["box-0-kept", "box-1-kept"]
        assert content(store, "box-1-kept") == disk_bytes(2)


def test_log_what_happens(
    tmp_path: Path, store: Store, other: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("casstore"), "level", logging.NOTSET)
    with RegistrySimulator() as registry:
        options = over(registry)
        capture(store, tmp_path, "base", 1, 2)
        store.push("base", f"{registry.host}/busy:base", options=options)
        registry.faults.status, registry.faults.times = 503, 2
        recipe("log_what_happens")(other.path, f"{registry.host}/busy:base", options=options)
    assert "trying again" in caplog.text
