"""diff on the command line: what it shows to people, to programs and to terminals, and what it fetches for that."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from casstore.cli.blockmap import ASCII, UNICODE, draw, marks_for_output
from casstore.comparing.blockmap import Cell
from tests.support import disks
from tests.support.command import Casstore
from tests.support.disks import MIB
from tests.support.filesystems import PLAIN, make_image, write_files
from tests.support.servers import RunningRegistry, registry
from tests.support.terminal import terminal

needs_registry = pytest.mark.needs("docker-registry")

SUMMARY = """\
A:               base, {a}: 64.0 MiB, 996.0 KiB allocated in 6 extents
B:               edited, {b}: 64.0 MiB, 1.0 MiB allocated in 6 extents
Differs:         372.0 KiB in 17 ranges: 296.0 KiB changed, 76.0 KiB added, 0 B removed
Chunks:          26 in both, 29 in A only, 32 in B only
New Stored:      {new} that B needs and A has not
Files:           5 added, 2 removed, 9 changed
"""
FILES = """\
+ /home/
+ /home/work2/
+ /home/work2/new000  32.9 KiB
+ /home/work2/new001  29.1 KiB
+ /home/work2/new002  21.0 KiB
~ /usr/lib/package0000/module03  content
~ /usr/lib/package0000/module05  content (4.7 KiB -> 5.0 KiB)
~ /usr/lib/package0000/module10  content
~ /usr/lib/package0000/module19  content (371 B -> 481 B)
~ /usr/lib/package0000/module23  content (14.5 KiB -> 14.7 KiB)
~ /usr/lib/package0001/module02  content (10.6 KiB -> 10.8 KiB)
~ /usr/lib/package0001/module07  content
- /usr/lib/package0001/module14  14.5 KiB
- /usr/lib/package0001/module15  10.0 KiB
~ /usr/lib/package0001/module18  content
~ /var/lib/app.db  content (80.0 KiB -> 84.0 KiB)
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Casstore:
    """A store with `base` and its child `edited`; and `noise`, on which there is no file system."""
    folder = tmp_path_factory.mktemp("kept")
    casstore = Casstore(folder)
    for name, more in (("base", []), ("edited", ["--parent", "base"])):
        disks.unpack_fixture(name, folder / name)  # type: ignore[arg-type]
        casstore("create", name, "--disk", folder / name, "-q", *more)
    (folder / "noise").write_bytes(bytes(range(256)) * 64)
    casstore("create", "noise", "--disk", folder / "noise", "-q")
    return casstore


def digests(casstore: Casstore, *names: str) -> list[str]:
    return [str(casstore.json("inspect", name)["digest"]) for name in names]


# --- what it shows ---------------------------------------------------------------------------------------------------


def test_a_summary_and_the_files(kept: Casstore) -> None:
    a, b = (digest[:19] for digest in digests(kept, "base", "edited"))
    shown = kept("diff", "base", "edited")
    new = re.search(r"New Stored: +(.*?) that", shown.stdout)
    assert new is not None
    summary = SUMMARY.format(a=a, b=b, new=new[1])
    assert shown.stdout == f"{summary}\n{FILES}"
    assert shown.stderr == ""
    assert kept("diff", "edited").stdout == shown.stdout  # base is its parent
    assert kept("diff", "base", "edited", "--stat").stdout == summary
    assert kept("diff", "base", "edited", "--no-files", "--stat").stdout == summary[: summary.index("Files:")]


def test_the_other_way_round_what_was_added_is_removed(kept: Casstore) -> None:
    forth = kept("diff", "base", "edited", "--name-status").lines
    back = kept("diff", "edited", "base", "--name-status").lines
    assert [{"A": "D", "D": "A", "M": "M"}[line[0]] + line[1:] for line in back] == forth
    assert forth[:2] == ["A\t/home", "A\t/home/work2"]
    assert kept("diff", "base", "edited", "--name-only").lines == [line[2:] for line in forth]
    raw = kept("diff", "base", "edited", "--name-status", "--null").out
    assert raw == b"".join(line.replace("\t", "\0").encode() + b"\0" for line in forth)


def test_only_what_is_below_some_paths(kept: Casstore) -> None:
    assert kept("diff", "base", "edited", "--name-only", "--", "home", "/var").lines == [
        *("/home", "/home/work2", "/home/work2/new000", "/home/work2/new001", "/home/work2/new002"),
        "/var/lib/app.db",
    ]
    assert kept("diff", "base", "edited", "--exit-code", "-q", "--", "/home", code=3).stderr == ""
    kept("diff", "base", "edited", "--exit-code", "--", "/usr/lib/package0000/module00")
    assert "expected a file at '/nothing'" in kept("diff", "base", "edited", "--", "/nothing", code=10).stderr


def test_all_of_it_for_programs(kept: Casstore) -> None:
    document = kept.json("diff", "base", "edited", "--ranges")
    a, b = digests(kept, "base", "edited")
    assert [document[side]["digest"] for side in "ab"] == [a, b]
    assert [document[side]["fetched_bytes"] for side in "ab"] == [None, None]
    ranges = document["ranges"]
    assert len(ranges) == document["range_count"] == 17
    for kind in ("changed", "added", "removed"):
        assert document[f"{kind}_bytes"] == sum(each["length"] for each in ranges if each["kind"] == kind)
    assert [len(document["files"][kind]) for kind in ("added", "removed", "changed", "touched")] == [5, 2, 9, 0]
    assert document["files"]["added"][2] == {"path": "/home/work2/new000", "type": "file", "size_bytes": 33688}
    assert document["files"]["changed"][-1] == {
        "path": "/var/lib/app.db",
        "what": ["content"],
        "types": ["file", "file"],
        "sizes_bytes": [81920, 86016],
    }
    assert not document["same"]
    stored = kept.json("inspect", "edited")["stored_bytes"]
    assert 0 < document["new_stored_bytes"] < stored
    without = kept.json("diff", "base", "edited", "--no-files")
    assert (without["ranges"], without["files"], without["files_problem"]) == (None, None, None)
    assert kept("diff", "base", "edited", "--format", "{changed_bytes} {chunks.only_b}").stdout.split()[1] == "32"


def test_exit_codes(kept: Casstore) -> None:
    kept("diff", "base", "edited", "--stat")
    kept("diff", "base", "edited", "--stat", "--exit-code", code=3)
    same = kept("diff", "base", "base", "--exit-code")
    assert "Differs:         nothing\n" in same.stdout
    assert kept.json("diff", "base", "base")["same"]
    kept("diff", "base", "nobody", code=10)


def test_two_disks_of_which_one_has_no_file_system(kept: Casstore) -> None:
    shown = kept("diff", "noise", "base")
    assert "Files:           not compared: noise: expected ext2, ext3 or ext4" in shown.stdout
    document = kept.json("diff", "base", "noise", "--exit-code", code=3)
    assert document["files"] is None
    assert "expected ext2, ext3 or ext4" in document["files_problem"]
    assert (document["a"]["size_bytes"], document["b"]["size_bytes"]) == (64 * MIB, 16384)
    for words in (["--name-only"], ["--", "/etc"]):
        assert "expected ext2" in kept("diff", "base", "noise", *words, code=16).stderr


def test_without_a_parent_there_is_something_to_do(kept: Casstore, there: Casstore, tmp_path: Path) -> None:
    assert "name two to compare: casstore diff A B" in kept("diff", "base", code=2).stderr
    kept("push", "edited", f"oci:{tmp_path}/layout:edited")
    there("pull", f"oci:{tmp_path}/layout:edited", "-q")
    alone = there("diff", "edited", code=10).stderr
    assert "expected its parent sha256:" in alone
    assert "pull it, or name two to compare" in alone


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["a", "b", "c"], "paths come after --"),
        (["a", "b", "--stat", "--name-only"], "--name-only: does not go together with --stat"),
        (["a", "b", "--name-only", "--name-status"], "--name-status: does not go together with --name-only"),
        (["a", "b", "--no-files", "--times"], "--times: does not go together with --no-files"),
        (["a", "b", "--no-files", "--", "/etc"], "PATH: does not go together with --no-files"),
        (["a", "b", "--ranges"], "--ranges: expected --json"),
        (["a", "b", "--null"], "--null: expected --name-only"),
    ],
)
def test_words_that_do_not_go_together(kept: Casstore, words: list[str], problem: str) -> None:
    assert problem in kept("diff", *words, code=2).stderr


@pytest.mark.needs("mke2fs")
def test_what_a_disk_calls_its_files_reaches_no_terminal(casstore: Casstore, tmp_path: Path) -> None:
    for name, files in (("one", {"x": b""}), ("two", {"x": b"", "\x1b[31m\u202e": b"", "\udcff": b"1"})):
        image = make_image(tmp_path / f"{name}.ext4", write_files(tmp_path / name, files), *PLAIN, size=8 * MIB)
        os.utime(tmp_path / name / "x", (0, 10**9))
        casstore("create", name, "--disk", image, "-q")
    shown = casstore("diff", "one", "two").stdout
    assert "+ /\\u001b[31m\\u202e  0 B" in shown
    assert "+ /\\udcff  1 B" in shown
    assert casstore("diff", "one", "two", "--name-only", "-0").out == b"/\x1b[31m\xe2\x80\xae\0/\xff\0"
    paths = [file["path"] for file in casstore.json("diff", "one", "two")["files"]["added"]]
    assert paths == ["/\x1b[31m\u202e", "/\udcff"]


# --- the map ---------------------------------------------------------------------------------------------------------


def cell(n: int, **parts: int) -> Cell:
    kinds = {"hole": 0, "same": 0, "changed": 0, "added": 0, "removed": 0, **parts}
    return Cell(n * MIB, MIB, **kinds)


HALF, SOME = MIB // 2, 4096
CELLS = [
    cell(0, hole=MIB),
    cell(1, same=SOME, hole=MIB - SOME),
    cell(2, changed=SOME, same=MIB - SOME),
    cell(3, changed=HALF, same=HALF),
    cell(4, added=SOME, hole=MIB - SOME),
    cell(5, added=MIB),
    cell(6, removed=SOME, same=MIB - SOME),
    cell(7, removed=MIB),
    cell(8, changed=SOME, added=2 * SOME, same=MIB - 3 * SOME),
    cell(9, changed=HALF, removed=SOME, same=HALF - SOME),
]
MEANING = "of two characters the first is for less than half of a cell"


def test_a_map_in_characters_of_all_encodings() -> None:
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in draw(CELLS, width=6, marks=ASCII)]
    assert lines == [
        ".:cCaA",
        "rRaC",
        "each cell is 1.0 MiB; . hole, : the same, cC changed, aA added, rR removed",
        MEANING,
    ]
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in draw(CELLS, width=10, marks=UNICODE)]
    assert lines == [
        "·░▒█△▲▽▼△█",
        "each cell is 1.0 MiB; · hole, ░ the same, ▒█ changed, △▲ added, ▽▼ removed",
        MEANING,
    ]
    for marks in (ASCII, UNICODE):
        assert len(set(marks.all())) == len(marks.all()) == 8  # told apart without colours


def test_a_map_in_colours() -> None:
    yellow, green, red, end = "\x1b[33m", "\x1b[32m", "\x1b[31m", "\x1b[0m"
    lines = list(draw(CELLS, width=10, marks=ASCII))
    assert lines[0] == f".:{yellow}cC{end}{green}aA{end}{red}rR{end}{green}a{end}{yellow}C{end}"
    assert lines[1].startswith(f"each cell is 1.0 MiB; . hole, : the same, {yellow}cC{end} changed")
    assert list(draw([], width=10, marks=ASCII)) == []


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "no such thing", None])
def test_characters_that_the_output_can_show(monkeypatch: pytest.MonkeyPatch, encoding: str | None) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", SimpleNamespace(encoding=encoding))
        assert marks_for_output() is (UNICODE if encoding == "utf-8" else ASCII)


def on_terminal(casstore: Casstore, *words: object, **env: str) -> str:
    """What a terminal of 40 columns gets."""
    casstore.env |= {"COLUMNS": None, "TERM": "xterm", **env}
    try:
        with terminal(columns=40) as (screen, shown), casstore.start(*words, stdout=screen) as process:
            assert process.wait(30) == 0
    finally:
        casstore.env = {**casstore.env, "COLUMNS": "100"}
        for name in env:
            del casstore.env[name]
    return shown[0].replace("\r\n", "\n")


def test_a_terminal_gets_a_map_as_wide_as_it_is(kept: Casstore) -> None:
    plain = on_terminal(kept, "diff", "base", "edited", "-q", NO_COLOR="1", PYTHONUTF8="1")
    assert "\x1b" not in plain
    lines = plain.split("\n\n")[1].splitlines()
    assert {len(line) for line in lines[:-3]} == {40}
    assert set("".join(lines[:-2])) == set("·░▒█△")
    assert lines[-2].startswith("each cell is 128.0 KiB; · hole")
    colored = on_terminal(kept, "diff", "base", "edited", "-q", PYTHONUTF8="1")
    assert re.sub(r"\x1b\[\d*m", "", colored) == plain
    assert "\x1b[33m▒" in colored
    assert "\x1b[32m+ /home/" in colored
    old = on_terminal(kept, "diff", "base", "edited", "-q", PYTHONIOENCODING="ascii")
    assert "\x1b[33mc" in old
    assert old.isascii()
    assert "each cell is" not in on_terminal(kept, "diff", "base", "edited", "--no-map")
    assert "each cell is" in kept("diff", "base", "edited", "--map").stdout


# --- elsewhere -------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningRegistry]:
    (tmp_path / "registry").mkdir()
    with registry(tmp_path / "registry") as running:
        yield running


@needs_registry
def test_snapshots_in_a_registry(kept: Casstore, there: Casstore, server: RunningRegistry) -> None:
    place = f"{server.host}/team/disks"
    for name in ("base", "edited"):
        kept("push", name, f"{place}:{name}", "--plain-http", "-q")
    here = kept("diff", "base", "edited").stdout
    both = there("diff", f"{place}:base", f"{place}:edited", "--plain-http")
    assert both.stdout.splitlines()[2:] == here.splitlines()[2:]
    told = both.stderr.splitlines()
    what = "fetched N in N requests, of N stored"
    assert [re.sub(r"[\d.]+ [KM]?i?B|\d+", "N", line) for line in told] == [f"A: {what}", f"B: {what}"]
    assert not there.store.exists()
    assert there("diff", f"{place}:base", f"{place}:edited", "--plain-http", "-q").stderr == ""
    mixed = kept.json("diff", "base", f"{place}:edited", "--plain-http")
    alone = there.json("diff", f"{place}:base", f"{place}:edited", "--plain-http")
    assert (mixed["ranges"], mixed["files"]) == (alone["ranges"], alone["files"])
    assert mixed["a"]["fetched_bytes"] is None
    # What `base` has is read of the store.
    assert mixed["b"]["fetched_bytes"] < alone["a"]["fetched_bytes"] + alone["b"]["fetched_bytes"]
    assert mixed["b"]["fetched_bytes"] < mixed["new_stored_bytes"] + 20_000
    parent = kept("diff", f"{place}:edited", "--plain-http", "--name-only")
    assert parent.stdout == kept("diff", "edited", "--name-only").stdout


def test_what_must_be_signed_is_not_compared_unsigned(kept: Casstore, tmp_path: Path) -> None:
    kept("key", "generate", tmp_path / "release", "--no-passphrase", "-q")
    kept("push", "edited", f"oci:{tmp_path}/layout:edited", "-q")
    words = ("diff", "base", f"oci:{tmp_path}/layout:edited", "--stat", "--key", tmp_path / "release.pub")
    assert kept(*words, code=13).stdout == ""
    kept(*words[:-2])
    assert kept("diff", "base", "edited", *words[-2:], code=13).stdout == ""


@pytest.mark.needs("mke2fs")
def test_other_times_are_counted_and_shown_if_wanted(casstore: Casstore, tmp_path: Path) -> None:
    tree = write_files(tmp_path / "tree", {"same": b"1", "other/touched": b"2"})
    for name, second in (("one", 10**9), ("two", 10**9 + 1)):
        os.utime(tree / "other/touched", (0, second))
        casstore("create", name, "--disk", make_image(tmp_path / name, tree, *PLAIN, size=8 * MIB), "-q")
    shown = casstore("diff", "one", "two").stdout
    assert "0 added, 0 removed, 0 changed, 1 with another time only" in shown
    assert "touched" not in shown
    assert casstore("diff", "one", "two", "--times").lines[-1] == "~ /other/touched  mtime"
    assert casstore("diff", "one", "two", "--times", "--name-status").lines == ["M\t/other/touched"]
