"""Policy of the whole suite.

- `@pytest.mark.needs("skopeo", "root")`: a test is skipped where a program or power (tests/support/needs.py) is
  missing, and the end of the run lists what was missing. With CI=true in the environment any skip fails the run.
- `@pytest.mark.long`: runs only with `--long`, which also gives every property test more examples.
- No test needs a network: connecting to anything but this machine fails.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from casstore import decoding
from casstore.frame import Buffer, FrameKind, decode
from casstore.store import Store
from tests.support import needs
from tests.support.command import Casstore
from tests.support.stores import FAST

IN_CI = os.environ.get("CI") == "true"
_NEEDS = "needs "

settings.register_profile("default", deadline=None, max_examples=30)
settings.register_profile("ci", deadline=None, max_examples=30, derandomize=True, print_blob=True)
settings.register_profile("long", deadline=None, max_examples=2000)
settings.load_profile("ci" if IN_CI else "default")

WATCH = pytest.StashKey["_Watch"]()
TALLY = "tally"
"""The name of a property (`record_property`) that the end of the run tells, with what it counted."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests that are marked long, with more examples")


def pytest_configure(config: pytest.Config) -> None:
    # Shells start what they put into the background with SIGINT ignored, nohup with SIGHUP: tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.stash[WATCH] = _Watch()
    config.pluginmanager.register(config.stash[WATCH])
    if config.getoption("--long") and not config.getoption("--hypothesis-profile", default=None):
        settings.load_profile("long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    wanted = dict.fromkeys(need for mark in item.iter_markers("needs") for need in mark.args)
    absent = [need for need in wanted if not needs.available(need)]
    if absent:
        pytest.skip(_NEEDS + ", ".join(absent))


class _Watch:
    """Collects what was skipped, whatever skipped it, and what tests counted; of the tests of all processes."""

    def __init__(self) -> None:
        self.skips: list[str] = []
        self.missing = Counter[str]()
        self.tallies: list[tuple[str, object]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.tallies += [(report.nodeid, value) for name, value in report.user_properties if name == TALLY]
        if report.skipped and not hasattr(report, "wasxfail") and "long" not in report.keywords:
            self.skips.append(report.nodeid)
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.missing.update(filter(None, reason.rpartition(_NEEDS)[2].split(", ") if _NEEDS in reason else []))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skips.append(report.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if IN_CI and session.config.stash[WATCH].skips and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    watch = config.stash[WATCH]
    if watch.tallies:
        terminalreporter.section("counted")
        for nodeid, tally in sorted(watch.tallies):
            terminalreporter.line(f"{nodeid.rpartition('::')[2]}: {tally}")
    if watch.missing:
        terminalreporter.section("missing on this machine")
        for need, count in sorted(watch.missing.items()):
            terminalreporter.line(f"{need}: {count} skipped")
    if IN_CI and watch.skips:
        terminalreporter.section("CI=true, and nothing may be skipped there", red=True)
        for nodeid in watch.skips:
            terminalreporter.line(nodeid)


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            assert ipaddress.ip_address(address[0]).is_loopback, f"a test connects to {address}"
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        yield


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store.init(tmp_path / "store", options=FAST) as store:
        yield store


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    """Another one."""
    with Store.init(tmp_path / "other", options=FAST) as store:
        yield store


@pytest.fixture
def casstore(tmp_path: Path) -> Casstore:
    """The command line, with a home of its own."""
    return Casstore(tmp_path)


@pytest.fixture
def there(tmp_path: Path) -> Casstore:
    """The command line on another machine."""
    (tmp_path / "there").mkdir()
    return Casstore(tmp_path / "there")


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each frame is decoded."""
    count: Counter[str] = Counter()

    def counting(kind: FrameKind, stored: Buffer, length: int, *, base: Buffer | None, subject: str) -> Buffer:
        count[subject] += 1
        return decode(kind, stored, length, base=base, subject=subject)

    monkeypatch.setattr(decoding, "decode", counting)
    return count
