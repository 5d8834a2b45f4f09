"""What is written to casstore's loggers: what operators want to know, and nothing that they must not."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from casstore import Store, TransferOptions, log, open_remote
from casstore.durable import lock
from casstore.errors import StoreLocked
from casstore.storedir import StoreOptions
from tests.support.command import Casstore
from tests.support.registry_simulator import PASSWORD, USER, RegistrySimulator
from tests.support.stores import FAST, PIECE, capture, flip_byte
from tests.support.transfers import over


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything that is written."""
    caplog.set_level(logging.DEBUG, "casstore")
    yield caplog
    mine = [record for record in caplog.records if record.name.startswith("casstore.")]
    assert {record.levelno for record in mine} <= {logging.INFO, logging.DEBUG}
    assert all(record.getMessage().isprintable() for record in mine)


def texts(told: pytest.LogCaptureFixture, area: str, *, level: int = logging.INFO) -> str:
    """The messages of an area, a line each."""
    wanted = [record for record in told.records if (record.name, record.levelno) == (f"casstore.{area}", level)]
    return "\n".join(record.getMessage() for record in wanted)


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator(auth="basic") as registry:
        yield registry


@pytest.fixture
def options(registry: RegistrySimulator, store: Store, tmp_path: Path) -> TransferOptions:
    """What reaches the registry, which has the snapshot `base` of `store`."""
    options = over(registry)
    capture(store, tmp_path, "base", 1, 2, 3)
    store.push("base", f"{registry.host}/disks:base", options=options)
    return options


def test_a_registry_that_is_busy(
    registry: RegistrySimulator, options: TransferOptions, other: Store, told: pytest.LogCaptureFixture
) -> None:
    registry.faults.status, registry.faults.times = 503, 1
    registry.faults.error = b'{"errors": [{"code": "UNAVAILABLE", "message": "\x1b[31mbusy"}]}'
    other.pull(f"{registry.host}/disks:base", options=options)
    assert re.search(r"disks\S*: attempt 1 of 6 failed: got 503; trying again", texts(told, "registry"))


def test_whose_credentials_are_used_but_not_which(
    registry: RegistrySimulator, options: TransferOptions, other: Store, told: pytest.LogCaptureFixture
) -> None:
    other.pull(f"{registry.host}/disks:base", options=options)
    assert f"{registry.host}: using the credentials from the program" in texts(told, "registry")
    everything = "\n".join(record.getMessage() for record in told.records)
    assert USER not in everything
    assert PASSWORD not in everything


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks(
    registry: RegistrySimulator, options: TransferOptions, other: Store, told: pytest.LogCaptureFixture, *, ranges: bool
) -> None:
    registry.faults.ranges = ranges
    registry.faults.cuts = [10_000, 1000, 1000, 10_000]
    other.pull(f"{registry.host}/disks:base", options=options)
    assert re.search(r"broke after \d+ of \d+ bytes: .*; resuming", texts(told, "registry"))
    assert ("no range was sent" in texts(told, "registry")) is not ranges


def test_a_part_of_a_blob_from_a_registry_without_ranges(
    registry: RegistrySimulator, options: TransferOptions, told: pytest.LogCaptureFixture
) -> None:
    registry.faults.ranges = False
    with open_remote(f"{registry.host}/disks:base", options) as opened:
        assert len(opened.disk().read_at(PIECE, 100)) == 100
    assert re.search(r"pack \S+: no range was sent; \d+ bytes come in vain", texts(told, "registry"))


def test_an_upload_that_breaks(
    registry: RegistrySimulator, options: TransferOptions, store: Store, tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    capture(store, tmp_path, "large", *range(1, 40))
    registry.faults.breaks = [300_000]
    store.push("large", f"{registry.host}/disks:large", options=options)
    assert re.search(r"; the upload (goes on at byte \d+|begins anew), in parts of \d+ bytes", texts(told, "registry"))


def test_blobs_that_are_there_or_come_from_a_neighbour(
    registry: RegistrySimulator, options: TransferOptions, store: Store, told: pytest.LogCaptureFixture
) -> None:
    store.push("base", f"{registry.host}/disks:again", options=options)
    assert re.search(r"sha256:\w{64}: [1-9] blobs present", texts(told, "transfer", level=logging.DEBUG))


def test_stores(store: Store, tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    capture(store, tmp_path, "base", 1, 2, 3)
    store.remove("base")
    store.gc()
    assert re.search(r"gc: 4 blobs removed, \d+ bytes; 0 kept; 1 names dropped; 0 operations", texts(told, "store"))
    capture(store, tmp_path, "more", 1)
    store.close()
    flip_byte(tmp_path / "store/catalog.sqlite", 0)
    with Store.open(store.path, options=FAST) as again:
        assert [handle.name for handle in again.list()] == ["more"]
    assert re.search(r"catalog \S+: made anew: file is not a database", texts(told, "store"))
    assert f"{store.path}: opened" in texts(told, "store", level=logging.DEBUG)
    assert "1 names new, 0 gone" in texts(told, "store", level=logging.DEBUG)
    assert re.search("no reflink", texts(told, "capture", level=logging.DEBUG) + texts(told, "capture"))


def test_a_lock_that_another_process_holds(store: Store, tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    capture(store, tmp_path, "base", 1)
    options = StoreOptions(durability=FAST.durability, wait=0.05)
    with (
        Store.open(store.path, options=options) as impatient,
        lock(f"{store.path}/gate.lock", wait=0),
        pytest.raises(StoreLocked),
    ):
        impatient.gc()
    assert re.findall("gate.lock: held by another process; waiting for at most .* s", texts(told, "store")) == [
        "gate.lock: held by another process; waiting for at most 0.05 s"
    ]


def test_what_is_no_visible_character_is_escaped(told: pytest.LogCaptureFixture) -> None:
    log.info("registry", "it says %s", "a\x1b[31m\n\u202eb" + 10_000 * "x")
    assert texts(told, "registry").startswith(r"it says a\u001b[31m\u000a\u202ebxxx")
    assert len(texts(told, "registry")) < 1100


def test_a_message_says_who_wrote_it(told: pytest.LogCaptureFixture) -> None:
    log.debug("store", "here")
    assert told.records[-1].funcName == test_a_message_says_who_wrote_it.__name__


def test_who_configures_nothing_sees_nothing_and_who_never_imports_logging_pays_nothing(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom casstore import log\nlog.info('store', 'one')\nassert 'logging' not in sys.modules\n"
        "import logging\nlog.info('store', 'two')\nroot = logging.getLogger('casstore')\n"
        "assert [type(each) for each in root.handlers] == [logging.NullHandler] and not root.level\n"
        "root.setLevel(10)\nlog.info('store', 'three')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("", "")


def test_debug_shows_them(casstore: Casstore, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"disk")
    assert "debug:" not in casstore("create", "base", "--disk", tmp_path / "disk").stderr
    assert "debug: store: gc: 0 blobs removed" in casstore("--debug", "gc").stderr
    lines = casstore("--debug", "gc", "--json").stderr.splitlines()
    assert '"event": "debug"' in lines[0]
    assert "debug:" not in casstore("gc").stderr
    assert not [each for each in logging.getLogger("casstore").handlers if not isinstance(each, logging.NullHandler)]
