"""Pushes of several snapshots at once, with parents or all, and plans, which change nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from casstore import Store
from casstore.errors import AlreadyExists, DigestMismatch, NotFound, UsageError
from casstore.layout import LayoutTarget
from casstore.progress import ProgressEvent
from casstore.remote import plan_copy
from tests.support.registry_simulator import RegistrySimulator
from tests.support.stores import FAST, all_files, capture, disk_bytes, names, require_sound
from tests.support.transfers import REGISTRY, Memory, over, through


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A line of three snapshots, and one by itself with two names."""
    with Store.init(tmp_path / "store", options=FAST) as store:
        capture(store, tmp_path, "base", 1)
        capture(store, tmp_path, "step", 1, 2, parent="base")
        capture(store, tmp_path, "last", 1, 2, 3, parent="step")
        capture(store, tmp_path, "alone", 4)
        store.tag("alone", "twin")
        yield store


# --- with parents -----------------------------------------------------------------------------------------------------


def test_parents_go_before_their_children_each_under_its_name(store: Store, tmp_path: Path) -> None:
    memory = Memory()
    report = store.push("last", f"{REGISTRY}:v3", with_parents=True, options=through(memory))
    assert report.name == "v3"
    assert [parent.name for parent in report.parents] == ["base", "step"]
    assert [parent.digest for parent in report.parents] == [store.get("base").digest, store.get("step").digest]
    assert memory.resolve("v3").digest == report.digest == store.get("last").digest
    assert sorted(memory.tags()) == ["base", "step", "v3"]
    assert max(Counter(memory.pushed).values()) == 1
    order = [memory.pushed.index(digest) for digest in (*(each.digest for each in report.parents), report.digest)]
    assert order == sorted(order)
    for name in ("base", "step", "v3"):
        with Store.init(tmp_path / name, options=FAST) as other:
            assert other.pull(f"{REGISTRY}:{name}", options=through(memory)).digest == memory.resolve(name).digest


def test_without_parents_only_the_snapshot_goes(store: Store) -> None:
    memory = Memory()
    assert store.push("last", f"{REGISTRY}:v3", options=through(memory)).parents == ()
    assert list(memory.tags()) == ["v3"]


def test_a_parent_that_is_not_here_is_left_out(store: Store) -> None:
    store.remove("base", force=True)
    report = store.push("last", f"{REGISTRY}:v3", with_parents=True, options=through(Memory()))
    assert [parent.name for parent in report.parents] == ["step"]


def test_the_tag_of_another_is_not_taken_for_a_parent(store: Store) -> None:
    """Nobody asked for that tag by name. A parent that has it already is fine."""
    memory = Memory()
    store.push("alone", f"{REGISTRY}:base", options=through(memory))
    before = len(memory.pushed)
    with pytest.raises(AlreadyExists, match="expected the tag base to be free"):
        store.push("last", f"{REGISTRY}:v3", with_parents=True, options=through(memory))
    assert len(memory.pushed) == before
    assert list(memory.tags()) == ["base"]
    memory.untag("base")
    for _ in range(2):
        store.push("last", f"{REGISTRY}:v3", with_parents=True, options=through(memory))
    assert sorted(memory.tags()) == ["base", "step", "v3"]


# --- all --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "layout", "store", "registry"])
def test_all_snapshots_go_under_all_their_names_and_no_blob_twice(store: Store, tmp_path: Path, kind: str) -> None:
    memory = Memory()
    with RegistrySimulator() as registry:
        place = {
            "memory": REGISTRY,
            "layout": f"oci:{tmp_path}/place",
            "store": f"oci:{tmp_path}/place",
            "registry": f"{registry.host}/a/b",
        }[kind]
        if kind == "store":
            Store.init(tmp_path / "place", options=FAST).close()
        options = over(registry) if kind == "registry" else through(memory)
        seen: list[ProgressEvent] = []
        reports = store.push_all(place, options=options, progress=seen.append)
        assert sorted(report.name for report in reports) == names(store) == ["alone", "base", "last", "step", "twin"]
        assert {report.name: report.digest for report in reports} == {each.name: each.digest for each in store.list()}
        moved = sum(report.copy.copied for report in reports)
        unique = {digest for name in names(store) for digest in store.open_snapshot(name).needs}
        assert moved == len(unique)
        assert {event.total for event in seen} == {max(event.done for event in seen)}
        assert [report.copy.copied for report in store.push_all(place, options=options)] == [0] * 5
        if kind == "memory":
            assert max(Counter(memory.pushed).values()) == 1
        if kind == "registry":
            assert len(registry.seen("POST", "/uploads/")) == len(unique) - 4
            assert len(registry.contents.tags) == 5
        if kind == "layout":
            assert sorted(LayoutTarget(str(tmp_path / "place")).tags()) == names(store)
        if kind == "store":
            require_sound(tmp_path / "place", contents={"last": disk_bytes(1, 2, 3), "twin": disk_bytes(4)})


def test_all_goes_to_a_place_not_to_a_tag(store: Store, tmp_path: Path) -> None:
    for place in (f"oci:{tmp_path}/place:tag", f"oci:{tmp_path}/place@sha256:{'0' * 64}"):
        with pytest.raises(UsageError, match="expected no tag or digest"):
            store.push_all(place)
        with pytest.raises(UsageError, match="expected no tag or digest"):
            store.plan_push_all(place)
    assert not (tmp_path / "place").exists()


def test_nothing_is_pushed_from_an_empty_store(tmp_path: Path) -> None:
    with Store.init(tmp_path / "empty", options=FAST) as store:
        assert store.push_all(f"oci:{tmp_path}/place") == []


# --- plans ------------------------------------------------------------------------------------------------------------


def test_a_plan_of_a_push_tells_what_the_push_then_moves(store: Store) -> None:
    with RegistrySimulator() as registry:
        options = over(registry)
        place = f"{registry.host}/a/b"
        store.push("base", f"{place}:base", options=options)
        registry.requests.clear()
        plans = store.plan_push("last", f"{place}:v3", with_parents=True, options=options)
        assert {seen.method for seen in registry.requests} == {"HEAD"}
        reports = store.push("last", f"{place}:v3", with_parents=True, options=options)
        every = [*reports.parents, reports]
        assert [plan.name for plan in plans] == ["base", "step", "v3"]
        assert [plan.root.digest for plan in plans] == [report.digest for report in every]
        assert [len(plan.missing) for plan in plans] == [report.copy.copied for report in every]
        assert [plan.missing_bytes for plan in plans] == [report.copy.copied_bytes for report in every]
        assert [plan.present_bytes for plan in plans] == [report.copy.skipped_bytes for report in every]
        registry.requests.clear()
        rest = store.plan_push_all(place, options=options)
        assert {seen.method for seen in registry.requests} == {"HEAD"}
        assert sum(plan.missing_bytes for plan in rest) == store.open_snapshot("alone").stored_bytes


@pytest.mark.parametrize("kind", ["nothing", "empty", "layout", "store"])
def test_plans_make_and_change_nothing(store: Store, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    match kind:
        case "empty":
            place.mkdir()
        case "layout":
            LayoutTarget(str(place), create=True)
        case "store":
            Store.init(place, options=FAST).close()
    before = all_files(place) if place.exists() else None
    here = all_files(Path(store.path))
    made = store.open_snapshot("last")
    for plan in (
        store.plan_push("last", f"oci:{place}:last")[0],
        next(plan for plan in store.plan_push_all(f"oci:{place}") if plan.name == "base"),
        plan_copy(f"oci:{store.path}:last", f"oci:{place}:new"),
    ):
        assert plan.present == ()
    assert plan.missing_bytes == made.stored_bytes
    assert (all_files(place) if place.exists() else None) == before
    assert all_files(Path(store.path)) == here


def test_a_plan_of_a_pull_tells_what_the_pull_then_moves(store: Store, tmp_path: Path) -> None:
    memory = Memory()
    store.push("last", f"{REGISTRY}:last", options=through(memory))
    store.push("step", f"{REGISTRY}:step", options=through(memory))
    with Store.init(tmp_path / "other", options=FAST) as other:
        other.pull(f"{REGISTRY}:step", options=through(memory))
        before = all_files(Path(other.path))
        plan = other.plan_pull(f"{REGISTRY}:last", options=through(memory))
        assert all_files(Path(other.path)) == before
        report = other.pull(f"{REGISTRY}:last", options=through(memory)).copy
        assert (len(plan.missing), plan.missing_bytes) == (report.copied, report.copied_bytes)
        assert (len(plan.present), plan.present_bytes) == (report.skipped, report.skipped_bytes)
        assert plan.name == "last"
    missing = plan_copy(f"{REGISTRY}:last", f"oci:{tmp_path}/nowhere:last", through(memory))
    assert missing.missing_bytes == store.open_snapshot("last").stored_bytes
    assert not (tmp_path / "nowhere").exists()


def test_a_plan_fails_as_the_copy_would(store: Store, tmp_path: Path) -> None:
    memory = Memory()
    store.push("last", f"{REGISTRY}:last", options=through(memory))
    zeros = f"sha256:{'0' * 64}"
    with pytest.raises(NotFound):
        store.plan_push("nobody", f"oci:{tmp_path}/place:x")
    with pytest.raises(DigestMismatch):
        store.plan_push("last", f"oci:{tmp_path}/place:x@{zeros}")
    with pytest.raises(UsageError):
        store.plan_pull(REGISTRY, options=through(memory))
    with pytest.raises(AlreadyExists):
        store.plan_pull(f"{REGISTRY}:last", name="base", options=through(memory))
    assert store.plan_pull(f"{REGISTRY}:last", name="base", force=True, options=through(memory)).missing == ()
    with pytest.raises(NotFound):
        store.plan_pull(f"{REGISTRY}:nobody", options=through(memory))
