"""A fresh disk for each test, restored from a snapshot that was prepared once.

CASSTORE_STORE=STORE python -m pytest pytest_fixture.py
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from casstore import Store


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """The store with the prepared disks."""
    with Store.open(os.environ["CASSTORE_STORE"]) as opened:
        yield opened


@pytest.fixture
def disk(store: Store, tmp_path: Path) -> Path:
    """A disk of its own for each test, as it was kept under the name `base`."""
    path = tmp_path / "disk.ext4"
    store.restore("base", path)
    return path


def test_may_change_its_disk(disk: Path) -> None:
    """Whatever runs on the disk."""
    disk.write_bytes(b"changed")


def test_begins_with_what_was_kept(disk: Path) -> None:
    """No test sees what another one did."""
    assert not disk.read_bytes().startswith(b"changed")
