"""Push and pull between stores, layouts and memory: one digest everywhere, and names as they were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from casstore import Store
from casstore.errors import (
    AlreadyExists,
    CorruptContent,
    DigestMismatch,
    InvalidReference,
    NotFound,
    StorageError,
    UsageError,
)
from casstore.layout import LayoutTarget
from casstore.oci import Descriptor
from casstore.progress import ProgressEvent
from casstore.streams import BytesSource, fetch_all
from tests.support.stores import (
    FAST,
    all_files,
    blobs,
    capture,
    content,
    disk_bytes,
    names,
    require_sound,
)
from tests.support.transfers import REGISTRY, Memory, through

# --- there and back ---------------------------------------------------------------------------------------------------


def test_the_digest_is_the_same_everywhere(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1, 0, 2)
    memory = Memory()
    Store.init(tmp_path / "as-store", options=FAST).close()
    stops = [f"oci:{tmp_path}/layout:a", f"{REGISTRY}:b", f"oci:{tmp_path}/as-store:c"]
    here, name = store, "one"
    for n, stop in enumerate(stops):
        sent = here.push(name, stop, options=through(memory))
        assert sent.digest == made.digest
        assert sent.name == stop[-1]
        assert sent.reference == f"{stop.rpartition(':')[0]}@{made.digest}"
        assert (sent.copy.copied, sent.copy.skipped) == (len(made.needs), 0)
        assert sent.copy.copied_bytes == made.stored_bytes
        new = Store.init(tmp_path / f"store{n}", options=FAST)
        got = new.pull(stop, options=through(memory))
        assert (got.digest, got.name) == (made.digest, stop[-1])
        assert new.get(stop[-1]).id == made.id
        assert content(new, stop[-1]) == disk_bytes(1, 0, 2)
        if here is not store:
            here.close()
        here, name = new, stop[-1]
    here.close()
    for place in ("layout", "as-store", "store0", "store1", "store2"):
        assert blobs(tmp_path / place) == {digest.hex for digest in made.needs}
    require_sound(tmp_path / "as-store", contents={"c": disk_bytes(1, 0, 2)})


@pytest.mark.parametrize("kind", ["layout", "store", "memory"])
def test_the_second_push_and_pull_move_nothing(store: Store, tmp_path: Path, kind: str) -> None:
    made = capture(store, tmp_path, "one", 1, 2)
    memory = Memory()
    if kind == "store":
        Store.init(tmp_path / "place", options=FAST).close()
    place = f"{REGISTRY}:one" if kind == "memory" else f"oci:{tmp_path}/place:one"
    store.push("one", place, options=through(memory))
    again = store.push("one", place, options=through(memory))
    assert (again.copy.copied, again.copy.copied_bytes, again.copy.skipped) == (0, 0, len(made.needs))
    assert len(memory.pushed) in {0, len(made.needs)}
    with Store.init(tmp_path / "third", options=FAST) as third:
        assert third.pull(place, options=through(memory)).copy.copied == len(made.needs)
        memory.fetched.clear()
        assert third.pull(place, options=through(memory)).copy.copied == 0
        assert memory.fetched in ([], [made.digest])
        # A snapshot that shares chunks brings only what is new.
    more = capture(store, tmp_path, "two", 1, 2, 3)
    delta = store.push("two", place.replace(":one", ":two"), options=through(memory))
    assert delta.copy.copied_bytes == more.stored_bytes - made.artifact_manifest.packs[0].size


def test_a_store_can_be_pushed_to_and_pulled_from_itself(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    assert store.push("one", f"oci:{store.path}:two").copy.copied == 0
    assert store.pull(f"oci:{store.path}:two", name="three").digest == made.digest
    assert names(store) == ["one", "three", "two"]
    require_sound(Path(store.path))


def test_a_store_is_read_by_its_refs_not_by_its_index(store: Store, other: Store, tmp_path: Path) -> None:
    """A directory that is a store is opened as one, though refs/ and blobs/ are all that was copied."""
    made = capture(store, tmp_path, "one", 1)
    for file in ("index.json", "oci-layout", "casstore.json", "catalog.sqlite"):
        Path(store.path, file).unlink()
    assert other.pull(f"oci:{store.path}:one").digest == made.digest
    with pytest.raises(NotFound):
        other.pull(f"oci:{store.path}:nobody")


def test_a_push_into_a_layout_keeps_what_is_there(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    layout = LayoutTarget(str(tmp_path / "layout"), create=True)
    data = b'{"x":1}'
    descriptor = Descriptor.of(data, "application/x")
    layout.push(descriptor, BytesSource(data))
    layout.tag(descriptor, "theirs")
    store.push("one", f"oci:{tmp_path}/layout")
    assert sorted(layout.tags()) == ["one", "theirs"]
    assert fetch_all(layout, descriptor, limit=100) == data


def test_progress_ends_at_all_bytes(store: Store, other: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1, 2)
    store.push("one", f"oci:{tmp_path}/layout")
    wanted = made.stored_bytes - made.root.size
    for n in range(3):
        seen: list[ProgressEvent] = []
        if n < 2:
            store.push("one", f"oci:{tmp_path}/layout2", progress=seen.append)
        else:
            other.pull(f"oci:{tmp_path}/layout:one", progress=seen.append)
        assert max(step.done for step in seen) == wanted
        assert {step.total for step in seen} == {wanted}


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_push_without_a_tag_takes_the_local_name(store: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    place = f"oci:{tmp_path}/layout"
    assert store.push("one", place).name == "one"
    assert store.push(str(made.digest), f"{place}@{made.digest}").name == "one"
    store.tag("one", "two")
    assert store.push("two", place).name == "two"
    with pytest.raises(UsageError, match="2 names"):
        store.push(str(made.digest), place)
    assert store.push(str(made.digest), f"{place}:three").name == "three"
    assert sorted(LayoutTarget(str(tmp_path / "layout")).tags()) == ["one", "three", "two"]


def test_a_push_that_cannot_be_makes_nothing(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    store.tag("one", "two")
    wrong = f"sha256:{'0' * 64}"
    with pytest.raises(DigestMismatch, match=wrong):
        store.push("one", f"oci:{tmp_path}/layout:x@{wrong}")
    with pytest.raises(UsageError):
        store.push(str(store.get("one").digest), f"oci:{tmp_path}/layout")
    with pytest.raises(InvalidReference):
        store.push("one", "oci:")
    with pytest.raises(NotFound):
        store.push("nobody", f"oci:{tmp_path}/layout:x")
    assert not (tmp_path / "layout").exists()
    (tmp_path / "file").touch()
    with pytest.raises((CorruptContent, StorageError)):
        store.push("one", f"oci:{tmp_path}/file:x")


def test_a_pull_by_digest_needs_a_name(store: Store, other: Store, tmp_path: Path) -> None:
    made = capture(store, tmp_path, "one", 1)
    place = f"oci:{tmp_path}/layout"
    store.push("one", place)
    with pytest.raises(UsageError, match="--name"):
        other.pull(f"{place}@{made.digest}")
    assert other.pull(f"{place}@{made.digest}", name="pinned").name == "pinned"
    assert other.pull(f"{place}:one@{made.digest}").name == "one"
    assert other.pull(f"{place}:one", name="given").name == "given"
    for name in (None, "x"):
        with pytest.raises(UsageError, match="tag or digest"):
            other.pull(place, name=name)
    assert names(other) == ["given", "one", "pinned"]


def test_a_tag_that_cannot_be_a_name_needs_another(store: Store, other: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    place = f"oci:{tmp_path}/layout:_odd-"
    store.push("one", place)
    with pytest.raises(UsageError, match="--name"):
        other.pull(place)
    other.pull(place, name="fine")
    assert names(other) == ["fine"]


def test_a_pull_of_another_digest_than_pinned_is_refused(store: Store, other: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    place = f"oci:{tmp_path}/layout"
    store.push("one", place)
    wrong = f"sha256:{'0' * 64}"
    with pytest.raises(NotFound, match=wrong):
        other.pull(f"{place}:one@{wrong}")

    class Lying(Memory):
        def resolve(self, reference: str) -> Descriptor:
            return super().resolve("one")

    memory = Lying()
    store.push("one", f"{REGISTRY}:one", options=through(memory))
    memory.fetched.clear()
    with pytest.raises(DigestMismatch, match=wrong):
        other.pull(f"{REGISTRY}:one@{wrong}", options=through(memory))
    assert memory.fetched == []
    assert names(other) == []
    assert blobs(Path(other.path)) == set()


def test_a_name_that_stands_for_another_snapshot_is_refused_before_the_work(
    store: Store, other: Store, tmp_path: Path
) -> None:
    made = capture(store, tmp_path, "one", 1)
    memory = Memory()
    store.push("one", f"{REGISTRY}:one", options=through(memory))
    capture(other, tmp_path, "one", 2)
    (Path(other.path) / "refs/broken").symlink_to("/etc/passwd")
    before = all_files(Path(other.path))
    memory.fetched.clear()
    for reference, name in (
        (f"{REGISTRY}:one", None),
        (f"{REGISTRY}@{made.digest}", "one"),
        (f"{REGISTRY}:one", "broken"),
    ):
        with pytest.raises(AlreadyExists):
            other.pull(reference, name=name, options=through(memory))
    assert memory.fetched == []
    assert all_files(Path(other.path)) == before
    other.pull(f"{REGISTRY}:one", force=True, options=through(memory))
    assert content(other, "one") == disk_bytes(1)
    other.pull(f"{REGISTRY}:one", options=through(memory))  # the same again is no conflict
