"""Removing names, by hand and by a policy: what goes, what stays, and what others do meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from casstore import Snapshot, Store, create, trash
from casstore.durable import lock
from casstore.errors import HasChildren, NotFound, StorageError, StoreLocked, UsageError
from casstore.manifest import format_created_at
from casstore.removal import PruneReport
from casstore.retention import Policy
from casstore.storedir import StoreOptions
from casstore.trash import Trash
from tests.support.stores import (
    FAST,
    all_files,
    blob_path,
    capture,
    content,
    disk_bytes,
    flip_byte,
    link_refs,
    names,
    require_sound,
    write_disk,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def days_old(store: Store, folder: Path, days: int, *, source: str | None = None, **labels: str) -> Snapshot:
    """A snapshot `day-N` that says it was made so many days ago."""
    made = format_created_at(int((NOW - timedelta(days=days)).timestamp()) * 10**9)
    builder = Snapshot.builder(write_disk(folder / "disk", 1, 100 + days)).name(f"day-{days}")
    if source is not None:
        builder.source_sandbox(source)
    for key, value in labels.items():
        builder.label(key, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(create, "format_created_at", lambda _: made)
        return builder.create(store)


def prune(store: Store, policy: Policy, **options: Any) -> PruneReport:
    return store.prune(policy, now=NOW, **options)


def test_prune_removes_all_names_of_what_no_rule_keeps(store: Store, tmp_path: Path) -> None:
    for days in range(4):
        days_old(store, tmp_path, days)
    store.tag("day-3", "alias")
    before = link_refs(Path(store.path))
    foretold = prune(store, Policy(last=2), dry_run=True)
    assert link_refs(Path(store.path)) == before
    report = prune(store, Policy(last=2))
    assert report.removed == foretold.removed == ("day-2", "alias", "day-3")
    assert report.decisions == foretold.decisions
    assert (foretold.dry_run, report.dry_run) == (True, False)
    assert names(store) == ["day-0", "day-1"]
    assert prune(store, Policy(last=2)).removed == ()
    assert {ref.name for ref in store.removed()} == {"alias", "day-2", "day-3"}
    assert len({ref.stamp for ref in store.removed()}) == 1
    require_sound(Path(store.path), contents={f"day-{n}": disk_bytes(1, 100 + n) for n in (0, 1)})


def test_an_empty_policy_removes_nothing(store: Store, tmp_path: Path) -> None:
    days_old(store, tmp_path, 1)
    with pytest.raises(UsageError, match="expected a rule"):
        prune(store, Policy())
    assert names(store) == ["day-1"]


def test_only_those_with_the_labels_are_looked_at(store: Store, tmp_path: Path) -> None:
    days_old(store, tmp_path, 0, ci="1")
    days_old(store, tmp_path, 1, ci="2")
    days_old(store, tmp_path, 2, ci="2")
    days_old(store, tmp_path, 3)
    report = prune(store, Policy(last=1), labels={"ci": "2"})
    assert report.removed == ("day-2",)
    assert len(report.decisions) == 2
    assert prune(store, Policy(last=1), labels={"ci": None}).removed == ("day-1",)


def test_a_parent_goes_and_its_children_keep_their_data(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "parent", 1, 2, 3)
    capture(store, tmp_path, "child", 1, 2, 4, parent="parent")
    with pytest.raises(HasChildren):
        store.remove("parent")
    assert prune(store, Policy(last=1)).removed == ("parent",)
    store.gc()
    require_sound(Path(store.path), contents={"child": disk_bytes(1, 2, 4)})


def test_broken_snapshots_are_never_touched(store: Store, tmp_path: Path) -> None:
    root = Path(store.path)
    for days in range(3):
        days_old(store, tmp_path, days)
    (root / "refs/day-2").unlink()
    (root / "refs/day-2").symlink_to(f"../blobs/sha256/{'0' * 64}")
    (root / "refs/file").touch()
    bad = days_old(store, tmp_path, 9)
    flip_byte(blob_path(root, bad.digest))
    (root / "catalog.sqlite").unlink()
    with Store.open(root, options=FAST) as fresh:
        assert prune(fresh, Policy(last=1)).removed == ("day-1",)
        assert sorted(os.listdir(root / "refs")) == ["day-0", "day-2", "day-9", "file"]
        assert len(fresh.problems()) == 3


def meanwhile(monkeypatch: pytest.MonkeyPatch, store: Store, act: Callable[[], object]) -> None:
    """Let `act` happen right before the refs are locked."""
    real = type(store._directory).changing_refs

    def late(directory: Any) -> Any:
        monkeypatch.undo()
        act()
        return real(directory)

    monkeypatch.setattr(type(store._directory), "changing_refs", late)


@pytest.mark.parametrize("removal", [False, True])
def test_what_happens_meanwhile_is_decided_about(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removal: bool
) -> None:
    """An outdated decision would remove day-4 alone."""
    for days in (4, 3, 2):
        days_old(store, tmp_path, days)
    with Store.open(store.path, options=FAST) as rival:
        act = (lambda: rival.remove("day-2")) if removal else (lambda: days_old(rival, tmp_path, 1))
        meanwhile(monkeypatch, store, act)
        assert prune(store, Policy(last=2)).removed == (() if removal else ("day-3", "day-4"))
        assert names(rival) == (["day-3", "day-4"] if removal else ["day-1", "day-2"])


def test_a_name_that_moved_meanwhile_is_left_alone(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for days in (3, 2, 1):
        days_old(store, tmp_path, days)
    with Store.open(store.path, options=FAST) as rival:
        meanwhile(monkeypatch, store, lambda: rival.tag("day-1", "day-3", force=True))
        assert prune(store, Policy(last=1)).removed == ("day-2",)
    assert names(store) == ["day-1", "day-3"]


def test_a_name_that_is_replaced_by_hand_while_it_is_decided_is_left_alone(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever changes refs/ without the lock: what the name stands for is asked last."""
    for days in (3, 2):
        days_old(store, tmp_path, days)
    path = Path(store.path) / "refs/day-3"
    kept = os.readlink(Path(store.path) / "refs/day-2")
    real = type(store._catalog).entries

    def replace(*arguments: Any) -> Any:
        found = real(*arguments)
        path.unlink()
        path.symlink_to(kept)
        return found

    monkeypatch.setattr(type(store._catalog), "entries", replace)
    assert prune(store, Policy(last=1)).removed == ()


def test_prune_waits_for_no_lock_to_find_that_there_is_nothing_to_do(store: Store, tmp_path: Path) -> None:
    days_old(store, tmp_path, 1)
    days_old(store, tmp_path, 2)
    with (
        Store.open(store.path, options=StoreOptions(wait=0.05)) as rival,
        lock(f"{store.path}/refs.lock", wait=5),
    ):
        assert prune(rival, Policy(last=2)).removed == ()
        assert prune(rival, Policy(last=1), dry_run=True).removed == ("day-2",)
        with pytest.raises(StoreLocked):
            prune(rival, Policy(last=1))
    assert names(store) == ["day-1", "day-2"]


def test_prunes_at_the_same_time_keep_what_their_policy_says(store: Store, tmp_path: Path) -> None:
    for days in range(6):
        days_old(store, tmp_path, days)
    reports: list[PruneReport] = []

    def run() -> None:
        with Store.open(store.path, options=FAST) as mine:
            reports.append(prune(mine, Policy(last=2)))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for report in reports for name in report.removed) == [f"day-{n}" for n in range(2, 6)]
    assert names(store) == ["day-0", "day-1"]


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_several_are_removed_in_whatever_order_they_are_given(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "parent", 1)
    capture(store, tmp_path, "child", 2, parent="parent")
    capture(store, tmp_path, "other", 3)
    removed, errors = store.remove_all(["parent", "nothing", "child"])
    assert [each.names for each in removed] == [("child",), ("parent",)]
    assert [type(error) for error in errors] == [NotFound]
    assert names(store) == ["other"]
    assert len({ref.stamp for ref in store.removed()}) == 1


def test_what_has_children_is_refused_before_any_of_its_names_goes(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "parent", 1)
    store.tag("parent", "alias")
    capture(store, tmp_path, "child", 2, parent="parent")
    removed, (error,) = store.remove_all([str(made.digest)])
    assert removed == []
    assert isinstance(error, HasChildren)
    assert names(store) == ["alias", "child", "parent"]


def test_36_stamps_only_grow_whatever_the_clock_says(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n, now in enumerate([10**18, 2 * 10**18, 5, 5, 0]):
        capture(store, tmp_path, f"n{n}", n)
        monkeypatch.setattr(trash, "time", SimpleNamespace(time_ns=lambda now=now: now))
        store.remove(f"n{n}")
    assert [ref.name for ref in store.removed()] == ["n4", "n3", "n2", "n1", "n0"]
    assert [ref.stamp for ref in store.removed()] == [*(2 * 10**18 + n for n in (3, 2, 1, 0)), 10**18]


def test_an_error_in_the_middle_leaves_every_name_old_or_removed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 2."""
    for days in range(4):
        days_old(store, tmp_path, days)
    real, left = Trash.take, [2]

    def fail(self: Trash, *arguments: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(5, "Input/output error")
        real(self, *arguments)

    monkeypatch.setattr(Trash, "take", fail)
    with pytest.raises(StorageError, match="removing ref day-2: Input/output error"):
        prune(store, Policy(last=1))
    monkeypatch.undo()
    assert names(store) == ["day-0", "day-2", "day-3"]
    assert content(store, "day-2") == disk_bytes(1, 102)
    assert [back.name for back in store.undo()] == ["day-1"]


def test_a_read_only_store_is_only_asked(store: Store, tmp_path: Path) -> None:
    """Row 7."""
    for days in range(2):
        days_old(store, tmp_path, days)
    store._directory.read_only = True
    before = all_files(Path(store.path))
    assert prune(store, Policy(last=1), dry_run=True).removed == ("day-1",)
    for act in (lambda: prune(store, Policy(last=1)), lambda: store.remove("day-1"), store.undo):
        with pytest.raises(StorageError, match="read-only"):
            act()
    assert all_files(Path(store.path)) == before


def test_a_stamp_that_no_clock_gives_does_not_keep_later_removals_from_being_undone(tmp_path: Path) -> None:
    with Store.init(tmp_path / "store", options=FAST) as store:
        made = capture(store, tmp_path, "one", 1)
        (tmp_path / "store/trash").mkdir(exist_ok=True)
        (tmp_path / f"store/trash/odd@{'9' * 30}").symlink_to(f"../blobs/sha256/{'0' * 64}")
        store.remove("one")
        (taken,) = store.undo("one")
        assert (taken.name, taken.removed.digest) == ("one", made.digest)
