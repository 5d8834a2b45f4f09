"""Power cuts: what was reported as done is there afterwards, and whatever has a name is whole (rows 14, 15, 16).

tests/support/powercut.py says how a power cut is made without hurting the machine, and why that is one.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from casstore import Store
from casstore.durable import Durability
from casstore.manifest import Dialect
from casstore.microsandbox.directory import read_directory
from casstore.retention import Policy
from casstore.storedir import StoreOptions
from tests.conftest import TALLY
from tests.support import disks
from tests.support.powercut import allowed, lose_power
from tests.support.seed import make_artifact
from tests.support.stores import FAST, capture, disk_bytes, link_refs, require_sound

REPOSITORY = Path(__file__).parents[1]
ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""With its last process everything that was mounted is gone."""
RIGHT = {"disks", "steps"}
"""What is counted, but is no fault."""
Record = Callable[[str, object], None]


def cut(folder: Path, record: Record, images: int, *options: str) -> dict[str, int]:
    """Run the harness; what it counted."""
    command = _command(folder, images, *options)
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print(report, done.stderr)  # noqa: T201  (shown if the test fails)
    count: dict[str, int] = report["count"]
    record(TALLY, ", ".join(f"{number} {kind}" for kind, number in count.items()))
    assert count["disks"] == images
    return count


def _command(folder: Path, images: int, *options: str) -> list[str]:
    folder.mkdir()
    module = [sys.executable, "-m", "tests.support.powercut", str(folder)]
    return [*ALONE, *module, "--images", str(images), *options]


@pytest.mark.needs("xfs", "unshare")
@pytest.mark.timeout(600)
def test_14_nothing_that_was_reported_is_lost_in_a_power_cut(tmp_path: Path, record_property: Record) -> None:
    """Rows 14 and 15: create, tag, rm, undo, prune, gc, pull and restore in parallel, cut at random moments."""
    count = cut(tmp_path / "cut", record_property, 30, "--seed", str(random.randrange(1000)))
    assert count.keys() == RIGHT
    assert count["steps"] > 30


@pytest.mark.needs("xfs", "unshare")
def test_14_without_syncs_a_power_cut_is_noticed(tmp_path: Path, record_property: Record) -> None:
    """The harness can see: what it must never find is there at once when nothing is synced. That makes row 16, too."""
    missing = {"bad blob", "broken ref", "lost ref"}
    for seed in range(5):  # on a busy machine few of the moments are such that a file is there without its bytes
        missing -= cut(tmp_path / f"{seed}", record_property, 20, "--durability", "none", "--seed", str(seed)).keys()
        if not missing:
            break
    assert not missing


@pytest.mark.long
@pytest.mark.needs("xfs", "btrfs", "unshare")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_14_nothing_that_was_reported_is_lost_in_many_power_cuts(
    tmp_path: Path, record_property: Record, kind: str, seed: int
) -> None:
    assert cut(tmp_path / "cut", record_property, 200, "--kind", kind, "--seed", str(seed)).keys() == RIGHT


@pytest.mark.needs("xfs", "unshare")
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("rounds", [3, pytest.param(40, marks=pytest.mark.long)])
def test_15_a_file_system_that_stops_anywhere_holds_nothing_torn(
    tmp_path: Path, record_property: Record, kind: str, rounds: int
) -> None:
    """Row 15: FS_IOC_SHUTDOWN in the middle of everything; names that were not reported yet may be missing."""
    count = cut(
        tmp_path / "cut",
        record_property,
        rounds,
        "--how",
        "shutdown",
        "--kind",
        kind,
        "--seed",
        str(random.randrange(1000)),
    )
    assert count.keys() == RIGHT


@pytest.mark.needs("xfs", "unshare")
def test_nothing_is_left_of_a_harness_that_was_killed(tmp_path: Path) -> None:
    def loops() -> list[str]:
        files = Path("/sys/block").glob("loop*/loop/backing_file")
        return [file.read_text() for file in files if str(tmp_path) in file.read_text()]

    command = _command(tmp_path / "cut", 1000)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=REPOSITORY) as process:
        _until(lambda: (tmp_path / "cut/log").exists() and (tmp_path / "cut/log").stat().st_size > 1000)
        assert loops()
        process.kill()
    _until(lambda: not loops())
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # pytest's own time limit ends it
        time.sleep(0.05)


# --- what was reported -----------------------------------------------------------------------------------------------

DURABLE = StoreOptions(Durability.FULL)


@pytest.mark.needs("loop", "xfs")
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_14_each_verb_is_durable_when_it_returns(tmp_path: Path, kind: disks.FileSystem) -> None:
    """Row 14: the power goes out right after success was reported, for one verb after the other."""
    with Store.init(tmp_path / "other", options=FAST) as other:
        capture(other, tmp_path, "pulled", 7, 8)
        other.push("pulled", f"oci:{tmp_path}/layout")
    features = disks.EXT4_FEATURES if kind == "ext4" else ()
    image = disks.make_file_system(tmp_path / "image", kind, *features)
    expected: dict[str, tuple[int, ...]] = {}

    def after(act: Callable[[Store, Path], object], **changes: tuple[int, ...] | None) -> Path:
        with disks.loop_mounted(image) as root:
            with Store.open(root / "store", create=True, options=DURABLE) as store:
                act(store, root)
            lose_power(root)
        expected.update({name: pieces for name, pieces in changes.items() if pieces is not None})
        for name in [name for name, pieces in changes.items() if pieces is None]:
            del expected[name]
        with disks.loop_mounted(image) as root:
            restored = {path.name: path.read_bytes() for path in root.glob("*.disk")}
            assert restored == ({"out.disk": disk_bytes(1, 2)} if "restored" in done else {})
            assert link_refs(root / "store").keys() == expected.keys()
            require_sound(root / "store", contents={name: disk_bytes(*each) for name, each in expected.items()})
        return image

    done: list[str] = []
    after(lambda store, _: capture(store, tmp_path, "one", 1, 2), one=(1, 2))
    after(lambda store, _: capture(store, tmp_path, "hits", 1, 2), hits=(1, 2))
    after(lambda store, _: capture(store, tmp_path, "one", 3, 4, force=True), one=(3, 4))
    after(lambda store, _: store.tag("hits", "tagged"), tagged=(1, 2))
    after(lambda store, _: store.tag("one", "tagged", force=True), tagged=(3, 4))
    after(lambda store, _: store.pull(f"oci:{tmp_path}/layout:pulled"), pulled=(7, 8))
    after(lambda store, _: store.remove("one"), one=None)
    after(lambda store, _: store.undo("one"), one=(3, 4))
    after(lambda store, _: store.prune(Policy(last=2), now=datetime.now(UTC)), pulled=None)
    after(lambda store, _: store.gc())
    artifact, _ = make_artifact(tmp_path, "artifact", disk_bytes(5, 6), integrity=True)
    after(lambda store, _: store.import_directory(artifact, name="taken"), taken=(5, 6))
    done.append("restored")
    after(lambda store, root: store.restore("hits", root / "out.disk"))
    after(lambda store, root: store.restore("taken", root / "artifact", dialect=Dialect.V07))
    with disks.loop_mounted(image) as root:
        found = read_directory(f"{root}/artifact")
        assert (root / "artifact" / "layers" / found.manifest.upper.file).read_bytes() == disk_bytes(5, 6)


# --- the harness's own words ------------------------------------------------------------------------------------------


def test_what_may_be_on_a_disk() -> None:
    lines = [
        b'["begun", "ref a", [1]]\n',
        b'["done", "ref a", [1]]\n',
        b'["begun", "ref a", null]\n',
        b'["begun", "ref b", [2]]\n',
        b'["done", "ref a", null]\n',
        b'["begun", "ref a", [3]]\n',
    ]
    sizes = [sum(map(len, lines[:n])) for n in range(len(lines) + 1)]
    log = b"".join(lines)
    assert allowed(log[: sizes[1]], sizes[1]) == {"ref a": {None, (1,)}}
    assert allowed(log[: sizes[2]], sizes[2]) == {"ref a": {(1,)}}
    assert allowed(log[: sizes[4]], sizes[2]) == {"ref a": {(1,), None}, "ref b": {None, (2,)}}
    assert allowed(log, sizes[2]) == {"ref a": {(1,), None, (3,)}, "ref b": {None, (2,)}}
    assert allowed(log, sizes[6]) == {"ref a": {None, (3,)}, "ref b": {None, (2,)}}
