"""Stores that earlier releases made: today's code must still open, verify and restore them (fixtures/releases)."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from casstore import Store

RELEASES = sorted(path for path in (Path(__file__).parents[1] / "fixtures/releases").iterdir() if path.is_dir())


def test_there_are_frozen_stores() -> None:
    assert RELEASES


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_frozen_store_still_opens(release: Path, tmp_path: Path) -> None:
    expected = json.loads((release / "expected.json").read_bytes())
    (tmp_path / "store").mkdir()
    for part in ("refs", "blobs"):
        shutil.copytree(release / part, tmp_path / "store" / part, symlinks=True)
    for marker in ("oci-layout", "casstore.json", "index.json"):
        shutil.copy(release / marker, tmp_path / "store")
    with Store.open(tmp_path / "store") as store:
        assert {handle.name: str(handle.digest) for handle in store.list()} == {
            name: each["digest"] for name, each in expected.items()
        }
        for name, each in expected.items():
            handle = store.get(name)
            assert (str(handle.id), handle.size_bytes) == (each["id"], each["size_bytes"])
            assert store.verify(name).upper.kind == "verified"
            restored = tmp_path / name
            store.restore(name, restored)
            assert hashlib.sha256(restored.read_bytes()).hexdigest() == each["disk_sha256"]
