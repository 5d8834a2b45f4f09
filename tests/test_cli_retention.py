"""The verbs prune, undo and rm, and gc of what they removed, as people and programs see them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from casstore import Store
from casstore.trash import Trash
from tests.support.command import Casstore
from tests.support.stores import FAST, names, write_disk


@pytest.fixture
def five(casstore: Casstore, tmp_path: Path) -> Casstore:
    """A store with s0 to s4, the oldest first; s0 has two names."""
    for n in range(5):
        disk = write_disk(tmp_path / "disk", n + 1)
        casstore("create", f"s{n}", "--disk", disk, "--label", f"n={n % 2}", "-q")
    casstore("tag", "s0", "alias", "-q")
    return casstore


def kept(casstore: Casstore) -> list[str]:
    with Store.open(casstore.store, options=FAST) as store:
        return names(store)


def test_prune_shows_each_snapshot_and_why(five: Casstore) -> None:
    dry = five("prune", "--keep-last", 2, "--keep-label", "n=0", "--dry-run")
    head, *lines = dry.lines
    assert head.split() == ["NAME", "CREATED", "(UTC)", "WHY"]
    assert [re.sub(r"  +[-\d]+ [:\d]+  +", " ", line).split(None, 1) for line in lines] == [
        ["keep", "s4 last; label n=0"],
        ["keep", "s3 last"],
        ["keep", "s2 label n=0"],
        ["remove", "s1 no rule keeps it"],
        ["keep", "alias, s0 label n=0"],
    ]
    assert dry.stderr.splitlines() == [
        "would remove 1 snapshot, 4 kept",
        (
            "1 snapshot without a source sandbox would go: all of these count as one group, whatever disks they are of;"
            " --group-by label:KEY or --group-by image tells them apart"
        ),
    ]
    assert len(kept(five)) == 6
    done = five("prune", "--keep-last", 2, "--keep-label", "n=0")
    assert done.stdout == dry.stdout
    assert done.stderr.splitlines()[:2] == [
        "removed 1 snapshot, 4 kept",
        "casstore gc frees what nothing else needs; casstore undo takes it back until then",
    ]
    assert kept(five) == ["alias", "s0", "s2", "s3", "s4"]


def test_prune_quietly_writes_the_names_that_are_gone(five: Casstore) -> None:
    foretold = five("prune", "--keep-last", 3, "-q", "--dry-run")
    done = five("prune", "--keep-last", 3, "-q")
    assert (foretold.lines, foretold.stderr) == (done.lines, done.stderr) == (["s1", "alias", "s0"], "")
    assert five("prune", "--keep-last", 3, "-q").lines == []


def test_prune_in_groups(five: Casstore) -> None:
    document = five.json("prune", "--keep-yearly", 1, "--group-by", "label:n", "--dry-run")
    assert [(each["group"], each["names"], each["keep"]) for each in document["snapshots"]] == [
        ("0", ["s4"], True),
        ("0", ["s2"], False),
        ("0", ["alias", "s0"], False),
        ("1", ["s3"], True),
        ("1", ["s1"], False),
    ]
    assert (document["dry_run"], document["group_by"]) == (True, "label:n")
    assert document["removed"] == ["s2", "alias", "s0", "s1"]
    head = five("prune", "--keep-last", 9, "--group-by", "label:n").lines[0]
    assert head.split() == ["NAME", "CREATED", "(UTC)", "GROUP", "WHY"]
    assert five.json("prune", "--keep-last", 1, "--label", "n=1")["removed"] == ["s1"]
    assert five.json("prune", "--keep-within", "2w")["removed"] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "expected at least one --keep-... rule"),
        (["--dry-run"], "expected at least one --keep-... rule"),
        (["--keep-last", "0"], "0 is not in the range"),
        (["--keep-daily", "-1"], "-1 is not in the range"),
        (["--keep-within", "soon"], "expected a duration"),
        (["--keep-label", "=x"], "expected K or K=V"),
        (["--keep-last", "1", "--group-by", "name"], "expected source, image, none or label:KEY"),
    ],
)
def test_a_prune_that_makes_no_sense_removes_nothing(five: Casstore, options: list[str], said: str) -> None:
    assert said in five("prune", *options, code=2).stderr
    assert len(kept(five)) == 6


def test_rules_that_keep_nothing_need_a_word_more(five: Casstore) -> None:
    for more in ([], ["--dry-run"]):
        refused = five("prune", "--keep-label", "relaese", *more, code=2).stderr
        assert "none of 5 snapshots" in refused
        assert "--allow-none" in refused
    assert len(kept(five)) == 6
    done = five("prune", "--keep-label", "relaese", "--keep-last", 4)
    assert "warning: --keep-label relaese: no snapshot that was looked at has it\n" in done.stderr
    assert five("prune", "--keep-label", "relaese", "--allow-none", "-q").lines == ["s4", "s3", "s2", "s1"]


@pytest.mark.parametrize("age", ["6m", "1h30m", "1y6M"])
def test_minutes_and_months_are_not_confused(five: Casstore, age: str) -> None:
    for words in (["prune", "--keep-within", age], ["gc", "--keep-trash", age]):
        assert "expected min for minutes or mo for months" in five(*words, code=2).stderr
    for right in ("6mo", "90min", "1y"):
        assert five.json("prune", "--keep-within", right)["removed"] == []


def test_what_has_no_room_in_the_trash_is_told(five: Casstore, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_room(_trash: Trash, folder: int, name: str, _stamp: int) -> bool:
        os.unlink(name, dir_fd=folder)
        return False

    monkeypatch.setattr(Trash, "take", without_room)
    said = five("rm", "s1").stderr
    assert "warning: removed for good: s1; on the full disk the trash had no room" in said
    assert "casstore undo" not in said
    document = five.json("prune", "--keep-last", 3)
    assert document["removed"] == document["removed_for_good"] == ["alias", "s0"]


def test_damaged_and_broken_ones_are_left_alone_and_count_for_no_rule(five: Casstore) -> None:
    with Store.open(five.store, options=FAST) as store:
        (pack,) = store.open_snapshot("s4").artifact_manifest.packs[-1:]
        hurt = {each.name for each in store.list() if pack.digest in store.open_snapshot(each.name).needs}
    (five.store / "blobs/sha256" / pack.digest.hex).unlink()
    (five.store / "refs/bad").symlink_to("../blobs/sha256/" + "0" * 64)
    document = five.json("prune", "--keep-last", 1)
    damaged = {name for each in document["snapshots"] if each["reasons"] == ["it is damaged"] for name in each["names"]}
    assert damaged == hurt
    assert [each["name"] for each in document["broken"]] == ["bad"]
    (last,) = [each["names"] for each in document["snapshots"] if each["reasons"] == ["last"]]
    assert set(kept(five)) == {*hurt, *last}


def test_taking_a_name_over_says_what_it_was(five: Casstore, tmp_path: Path) -> None:
    for words in (["tag", "s1", "s0", "-f"], ["create", "s0", "--disk", write_disk(tmp_path / "disk", 9), "-f"]):
        assert re.search(r"s0 was sha256:[0-9a-f]{64}; casstore undo s0 --as OTHER gives it", five(*words).stderr)
    five("undo", "s0", "--as", "s0-before")
    assert "s0-before" in kept(five)


def test_undo_of_what_is_damaged_or_lost(five: Casstore) -> None:
    with Store.open(five.store, options=FAST) as store:
        gone = store.get("s1").digest
    five("rm", "s1", "s2")
    (five.store / "blobs/sha256" / gone.hex).unlink()
    done = five("undo", code=10)
    assert [line.split()[0] for line in done.lines] == ["s2"]
    assert f"error: undo s1: its manifest {gone} is missing" in done.stderr
    (five.store / "refs/s3").unlink()
    assert "warning: snapshot s3: its name is gone from refs/" in five("list").stderr
    assert "casstore undo s3 takes it back" in five("gc", code=12).stderr
    assert "gone, though casstore did not remove it" in five("undo", "--list").lines
    five("undo", "s3")


def test_prune_of_an_empty_store(casstore: Casstore) -> None:
    Store.init(casstore.store, options=FAST).close()
    assert casstore("prune", "--keep-last", 1).stderr == "No snapshots.\n"
    assert casstore.json("prune", "--keep-last", 1)["snapshots"] == []


def test_what_was_pruned_is_taken_back(five: Casstore) -> None:
    before = kept(five)
    five("prune", "--keep-last", 1)
    listed = five("undo", "--list")
    assert [line.split()[0] for line in listed.lines] == ["removed", "alias", "s0", "s1", "s2", "s3"]
    assert re.fullmatch(r"removed [-\d]+ [:\d]+ UTC", listed.lines[0])
    foretold = five("undo", "--dry-run")
    assert [line.split()[0] for line in foretold.lines] == ["alias", "s0", "s1", "s2", "s3"]
    assert kept(five) == ["s4"]
    assert five("undo", "--list", "-q").lines == ["alias", "s0", "s1", "s2", "s3"]
    done = five("undo")
    assert [line.split()[0] for line in done.lines] == ["alias", "s0", "s1", "s2", "s3"]
    assert all(re.fullmatch(r"\w+ stands for sha256:[0-9a-f]{64}", line) for line in done.lines)
    assert kept(five) == before
    assert five("undo", "--list").stderr == "Nothing was removed since the last casstore gc.\n"
    assert "nothing removed is in the trash" in five("undo", code=10).stderr


def test_rm_says_how_to_take_it_back(five: Casstore) -> None:
    said = five("rm", "s0", "s1", "nothing", code=10).stderr.splitlines()
    assert said[:3] == [
        "removed s0; it is still there as alias",
        "removed s1",
        "casstore undo takes them back, until casstore gc",
    ]
    assert five("rm", "s2", "-q").stderr == ""
    assert five("undo", "-q").lines == ["s2"]
    assert five.json("undo")["taken_back"][0].keys() == {"name", "digest", "removed_at"}
    assert len(kept(five)) == 6


def test_a_name_in_use_is_taken_back_as_another(five: Casstore, tmp_path: Path) -> None:
    five("rm", "s1")
    five("create", "s1", "--disk", write_disk(tmp_path / "disk", 9), "-q")
    assert "casstore undo s1 --as OTHER" in five("undo", code=15).stderr
    assert five("undo", "s1", "--as", "saved").stdout.startswith("saved stands for sha256:")
    assert {"s1", "saved"} < set(kept(five))
    assert "no such name is in the trash" in five("undo", "s1", code=10).stderr
    assert "expected no name and no other option with it" in five("undo", "s1", "--list", code=2).stderr


def test_gc_tells_what_cannot_be_taken_back_any_more(five: Casstore) -> None:
    five("rm", "s1", "s2")
    foretold = five.json("gc", "--dry-run")
    kept_all = five.json("gc", "--keep-trash", "7d")
    assert ([each["name"] for each in foretold["dropped"]], foretold["kept_removed"]) == (["s1", "s2"], [])
    assert ([each["name"] for each in kept_all["kept_removed"]], kept_all["dropped"]) == (["s1", "s2"], [])
    assert (kept_all["removed"], kept_all["freed_bytes"]) == ([], 0)
    told = "removed, and kept for now: s1, s2; casstore undo takes them back\n"
    shown = five("gc", "--keep-trash", "1h").stderr
    assert shown.startswith(told[:-1] + "; a gc with the same --keep-trash lets the first go after 20")
    assert shown.endswith(" UTC\n")
    told = "removed already: s1, s2; casstore undo could not take them back any more\n"
    assert five("gc", "--dry-run").stderr == told
    done = five("gc")
    assert done.stdout.startswith("removed 8 blobs, ")
    assert done.stderr == "removed for good: s1, s2; casstore undo does not take them back any more\n"
    assert five("gc").stderr == ""
    assert "expected more than 0" in five("gc", "--keep-trash", "0", code=2).stderr
