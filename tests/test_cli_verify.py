"""casstore verify: damage is found, said, and does not hide what is sound."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from casstore.store import Store
from tests.support import disks
from tests.support.command import Casstore


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.ext4"
    disks.unpack_fixture("base", path)
    return path


def _damage_pack(casstore: Casstore, name: str) -> None:
    with Store.open(casstore.store) as store:
        packs = store.open_snapshot(name).artifact_manifest.packs
    blob = casstore.store / "blobs" / "sha256" / packs[-1].digest.hex
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))


def test_verify_says_what_it_verified(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk, "--integrity")
    digest, path, verdict = casstore("verify", "base").lines
    assert digest.startswith("Digest:          sha256:")
    assert path.endswith("/refs/base")
    assert re.search(r"\d+ blobs, \d+ chunks verified; integrity verified \(sha256 sha256:[0-9a-f]{64}\)", verdict)


def test_a_damaged_snapshot_does_not_keep_others_from_being_verified(
    casstore: Casstore, disk: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    disks.random_sparse_file(other, seed=1)
    casstore("create", "bad", "--disk", disk)
    casstore("create", "good", "--disk", other)
    _damage_pack(casstore, "bad")
    result = casstore("verify", "bad", "nothing", "good", code=12)
    assert "refs/good" in result.stdout
    assert result.stderr.count("error: ") == 2
    document = casstore.json("verify", "--all", code=12)
    assert {each["snapshot"]: each["ok"] for each in document["snapshots"]} == {"good": True, "bad": False}
    assert not document["ok"]
    casstore("inspect", "bad", "--verify", code=12)


def test_a_missing_blob_is_damage_and_a_missing_name_is_not(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    with Store.open(casstore.store) as store:
        pack = store.open_snapshot("base").artifact_manifest.packs[0]
    (casstore.store / "blobs" / "sha256" / pack.digest.hex).unlink()
    casstore("verify", "base", code=12)
    casstore("verify", "nothing", code=10)


def test_verify_all_includes_names_that_lead_nowhere(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    os.symlink("../blobs/sha256/" + "0" * 64, casstore.store / "refs" / "lost")
    document = casstore.json("verify", "--all", code=12)
    assert [(each["snapshot"], each["ok"]) for each in document["snapshots"]] == [("base", True), ("lost", False)]
