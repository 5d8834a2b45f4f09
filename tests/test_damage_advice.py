"""Whoever meets damage is told what to do, once; and whoever may not read a store is told just that."""

from __future__ import annotations

from pathlib import Path

import pytest

from casstore import Store
from tests.support.command import Casstore
from tests.support.stores import FAST, blob_path, capture, flip_byte, manifest_of, python, write_disk

REPAIR = "casstore check --read-data --repair --from SOURCE"
SALVAGE = "casstore restore --salvage"


@pytest.fixture
def root(casstore: Casstore) -> Path:
    with Store.init(casstore.store, options=FAST) as store:
        capture(store, casstore.folder, "one", 1, 2, 3)
    return casstore.store


@pytest.mark.parametrize("part", ["pack", "map", "manifest"])
@pytest.mark.parametrize("missing", [True, False])
def test_every_verb_that_meets_damage_names_the_repair(
    casstore: Casstore, root: Path, tmp_path: Path, part: str, *, missing: bool
) -> None:
    manifest = manifest_of(root, "one")
    blob = {"pack": manifest.packs[0], "map": manifest.map, "manifest": manifest.descriptor}[part]
    if missing:
        blob_path(root, blob.digest).unlink()
    else:
        flip_byte(blob_path(root, blob.digest), 99)
    commands: list[tuple[object, ...]] = [
        ("restore", "one", tmp_path / "out"),
        ("push", "one", f"oci:{tmp_path}/layout"),
    ]
    if missing or part == "manifest":
        commands.append(("tag", "one", "other"))  # the bytes of the others it does not read
    if missing and part == "manifest":
        disk = write_disk(tmp_path / "disk", 1, 2, 4)
        commands.append(("create", "new", "--parent", "one", "--disk", disk))
    for command in commands:
        result = casstore.run(*command)
        assert result.code in {10, 12}, (command, result)
        assert result.stderr.count(REPAIR) == 1, command
        assert result.stderr.count(SALVAGE) == (command[0] == "restore"), command
    result = casstore("verify", "--all", code=12)
    assert result.stderr.count(REPAIR) == 1
    assert not casstore.json("verify", "--all", code=12)["ok"]


@pytest.mark.parametrize(
    "command",
    [("restore", "nothing", "out"), ("tag", "sha256:123456", "x"), ("push", "nothing", "oci:x"), ("verify", "nothing")],
)
def test_what_is_no_damage_asks_for_no_repair(casstore: Casstore, root: Path, command: tuple[str, ...]) -> None:
    assert root.is_dir()
    assert REPAIR not in casstore(*command, code=10).stderr


def test_a_snapshot_without_a_name_gets_one_by_its_whole_digest(casstore: Casstore, root: Path) -> None:
    digest = manifest_of(root, "one").descriptor.digest
    casstore("rm", "one")
    assert "no digest or id" in casstore("tag", f"sha256:{digest.hex[:63]}", "again", code=10).stderr
    assert "no digest or id" in casstore("tag", f"sha256:{'0' * 64}", "again", code=10).stderr
    casstore("tag", digest, "again")
    casstore("verify", "again")


@pytest.mark.needs("root")
@pytest.mark.parametrize("closed", [".", "refs", "blobs"])
def test_a_check_of_what_may_not_be_read_says_so(tmp_path_factory: pytest.TempPathFactory, closed: str) -> None:
    folder = tmp_path_factory.mktemp("outside")
    with Store.init(folder / "store", share=True, options=FAST) as store:
        capture(store, folder, "one", 1)
    (folder / "store" / closed).chmod(0o700)
    opened = [path for path in (folder, *folder.parents) if not path.stat().st_mode & 0o001]
    modes = {path: path.stat().st_mode & 0o7777 for path in opened}
    code = """
import os, sys
from casstore.health import check_store
from casstore.errors import CasstoreError
os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    check_store(sys.argv[1])
except CasstoreError as error:
    print(type(error).__name__, error.exit_code, "Permission denied" in str(error))
"""
    try:
        for path in opened:
            path.chmod(modes[path] | 0o055)
        assert python(code, folder / "store").stdout == "StorageError 17 True\n"
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
