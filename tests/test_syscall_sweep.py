"""Every verb, broken at each of its system calls, and where the machine gives it too little.

Rows 1, 2, 3, 5, 6, 9, 10, 12, 13 and 38, with what the kernel really does. A part of all cases; --long tries every one.
How many there were is told at the end of the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from casstore import Store
from tests.conftest import TALLY
from tests.support.command import Casstore
from tests.support.disks import file_system
from tests.support.stores import blob_path, disk_bytes, link_refs, require_sound, write_disk
from tests.support.verbs import VERBS

REPOSITORY = Path(__file__).parents[1]
STEP = {1: 53, 3: 97}
"""Of the points x faults one in so many is tried, by the number of faults, of which it must be no multiple."""
SOME = ("create-deltas", "pull", "prune", "gc", "restore-force")
MEMORY = "/dev/shm"  # syncing is free there, and the order of a directory's names always the same

pytestmark = [pytest.mark.needs("strace"), pytest.mark.timeout(1800)]


class Sweeper:
    """A process that sweeps in the directory `place`."""

    def __init__(self, place: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.syscall_sweep", str(place)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, verb: str, **wanted: Any) -> dict[str, Any]:
        """Sweep one verb; see `Sweep` for what can be wanted."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"verb": verb, **wanted}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def sweep(self, verb: str, calls: str, faults: list[str], *, every: bool = False) -> dict[str, Any]:
        """Break its calls: every one, or a part that is another one for each verb."""
        step = 1 if every else STEP[len(faults)]
        start = 7 * list(VERBS).index(verb) % step
        return self.ask(verb, calls=calls, faults=faults, step=step, start=start)

    def close(self) -> None:
        """Let the process end."""
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def sweeper() -> Iterator[Sweeper]:
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        sweeper = Sweeper(Path(folder))
        try:
            yield sweeper
        finally:
            sweeper.close()


Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def every(pytestconfig: pytest.Config) -> bool:
    """Whether to try all cases."""
    return bool(pytestconfig.getoption("--long"))


def judge(told: dict[str, Any], record: Record) -> None:
    record(TALLY, f"{told['points']} system calls, {told['cases']} of {told['all']} ways to break one of them")
    assert told["problems"] == []
    assert told["points"] > 30
    assert told["cases"] > 0


@pytest.mark.timeout(7200)  # --long has up to 2,800 cases of a verb
@pytest.mark.parametrize("verb", VERBS)
def test_12_whatever_call_breaks_every_name_is_old_or_new(
    sweeper: Sweeper, verb: str, every: bool, record_property: Record
) -> None:
    judge(sweeper.sweep(verb, "changes", ["KILL", "EIO", "ENOSPC"], every=every), record_property)


@pytest.mark.parametrize("verb", SOME)
def test_5_what_cannot_be_read_is_told_by_its_digest(
    sweeper: Sweeper, verb: str, every: bool, record_property: Record
) -> None:
    judge(sweeper.sweep(verb, "reads", ["EIO"], every=every), record_property)


def test_5_a_blob_that_cannot_be_read_hurts_nothing_else(casstore: Casstore, tmp_path: Path) -> None:
    """However often it is tried; and it is not tried for ever."""
    for number, name in enumerate(("bad", "good"), start=1):
        casstore("create", name, "--disk", write_disk(tmp_path / name, number, 10 + number))
    with Store.open(casstore.store) as store:
        pack = store.open_snapshot("bad").artifact().manifest.packs[0].digest
    trace = tmp_path / "trace"
    reads = "read,readv,pread64,preadv,preadv2"
    env = {name: value for name, value in {**os.environ, **casstore.env}.items() if value is not None}
    strace = ["strace", "-f", "-qq", "-o", str(trace), "-P", str(blob_path(casstore.store, pack))]

    def run(*words: str) -> tuple[int, str]:
        broken = [*strace, "-e", f"trace={reads}", "-e", f"inject={reads}:error=EIO"]
        command = [*broken, sys.executable, "-m", "casstore", *words]
        done = subprocess.run(command, check=False, env=env, capture_output=True)
        return done.returncode, (done.stdout + done.stderr).decode()

    code, told = run("restore", "bad", str(tmp_path / "out"))
    assert (code, str(pack) in told, (tmp_path / "out").exists()) == (17, True, False), told
    assert 0 < trace.read_text().count("(INJECTED)") < 10
    assert run("restore", "good", str(tmp_path / "out"))[0] == 0
    assert (tmp_path / "out").read_bytes() == disk_bytes(2, 12)
    code, told = run("check", "--read-data")
    assert (code, f"unreadable: blobs/sha256/{pack.hex}" in told) == (3, True), told
    casstore("verify", "--all")


@pytest.mark.parametrize("verb", SOME)
def test_10_what_is_interrupted_is_done_again(
    sweeper: Sweeper, verb: str, every: bool, record_property: Record
) -> None:
    judge(sweeper.sweep(verb, "interruptible", ["EINTR"], every=every), record_property)


@pytest.mark.parametrize("verb", SOME)
def test_13_a_signal_at_any_time_is_a_clean_stop(
    sweeper: Sweeper, verb: str, every: bool, record_property: Record
) -> None:
    judge(sweeper.sweep(verb, "changes", ["HUP", "INT", "TERM"], every=every), record_property)


@pytest.mark.parametrize(
    ("verb", "limit", "values"),
    [
        ("create-deltas", "NOFILE", [0, 1, 2, 3, 4, 5, 6, 20]),
        ("pull", "NOFILE", [1, 3, 4, 20]),
        ("gc", "NOFILE", [1, 2, 3, 20]),
        ("create-deltas", "FSIZE", [600, 5000, 66000, 1 << 20]),
        ("restore-force", "FSIZE", [600, 66000, 1 << 20]),
    ],
)
def test_9_too_few_files_too_small_files(sweeper: Sweeper, verb: str, limit: str, values: list[int]) -> None:
    """Rows 9 and 3: at several places, because of each limit another call is the first that fails."""
    told = sweeper.ask(verb, limit=limit, values=values)
    assert told["problems"] == []
    assert (told["codes"][0], told["codes"][-1]) == (17, 0)  # too little, and enough


def test_9_too_little_memory(casstore: Casstore, tmp_path: Path) -> None:
    """Of address space, in a process that has imported all it needs and not yet begun."""
    code = """
import resource, sys
from casstore.cli.main import main
from casstore import capture, create, creation, transaction
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv.pop(1)), -1))
main()
"""
    casstore("create", "old", "--disk", write_disk(tmp_path / "old", 1, 2))
    disk = write_disk(tmp_path / "disk", *range(20, 148))
    env = {name: value for name, value in {**os.environ, **casstore.env}.items() if value is not None}
    words = ["create", "new", "--disk", str(disk), "-q", "--workers", "1"]
    command = [sys.executable, "-c", code, str(1 << 20), *words]
    done = subprocess.run(command, check=False, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    require_sound(casstore.store, contents={"old": disk_bytes(1, 2)})
    assert list(link_refs(casstore.store)) == ["old"]
    casstore(*words)


@pytest.mark.long
@pytest.mark.needs("xfs")
@pytest.mark.parametrize("verb", ["create-deltas", "create-force", "restore-seed"])
def test_12_where_files_share_their_blocks(verb: str, tmp_path: Path, record_property: Record) -> None:
    """FICLONE works there, and so it can fail."""
    with file_system(tmp_path, "xfs") as place:
        sweeper = Sweeper(place)
        try:
            judge(sweeper.sweep(verb, "changes", ["KILL", "EIO", "ENOSPC"], every=True), record_property)
        finally:
            sweeper.close()
