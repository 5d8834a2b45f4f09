"""casstore tree: the drawing, and the document."""

from __future__ import annotations

import pytest

from casstore import Snapshot, Store
from tests.support.command import Casstore
from tests.support.stores import FAST, write_disk


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Casstore:
    """A store with branches, and two whose parent is not here; nothing in this module changes it."""
    folder = tmp_path_factory.mktemp("grown")
    casstore = Casstore(folder)
    with Store.init(casstore.store, options=FAST) as store:
        for number, (name, parent) in enumerate(
            [
                ("base", None),
                ("try", "base"),
                ("try-2", "try"),
                ("main-1", "base"),
                ("main-2", "main-1"),
                ("idea", "main-2"),
                ("main-3", "main-2"),
                ("gone", None),
                ("orphan", "gone"),
                ("orphan-2", "gone"),
            ],
            1,
        ):
            builder = Snapshot.builder(write_disk(folder / "disk", 1, number)).name(name)
            if parent is not None:
                builder.parent(parent)
            if name == "idea":
                builder.label("team", "search")
            builder.create(store)
        store.tag("try", "again")
        store.remove("gone", force=True)
    return casstore


def drawn(lines: list[str]) -> list[str]:
    """The first column."""
    return [line.split("   ")[0] for line in lines]


def test_a_straight_line_stays_in_its_column_and_branches_have_their_own(grown: Casstore) -> None:
    head, *lines = grown("tree").lines
    assert " ".join(head.split()) == "NAME DIGEST CREATED (UTC) ADDED SIZE"
    with Store.open(grown.store, options=FAST) as store:
        missing = store.get("orphan").manifest.parent or ""
        base = store.tree().nodes[store.get("base").digest]
    assert drawn(lines) == [
        "● base",
        "├─● again, try",
        "│ ● try-2",
        "● main-1",
        "● main-2",
        "├─● idea",
        "● main-3",
        "",
        f"○ {missing[:19]} (not here)",
        "├─● orphan",
        "● orphan-2",
    ]
    assert lines[0].split() == [
        *("●", "base", base.digest.short, *f"{base.created:%Y-%m-%d %H:%M:%S}".split()),
        *(f"+{base.added / 1024:.1f}", "KiB", "128.0", "KiB"),
    ]
    assert drawn(grown("tree", "--ascii").lines[1:4]) == ["* base", "|-* again, try", "| * try-2"]


def test_where_stdout_is_not_unicode_the_drawing_is_ascii(grown: Casstore) -> None:
    plain = Casstore(grown.folder)
    plain.env |= {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    assert plain.process("tree").out.isascii()


def test_one_snapshot_is_shown_with_what_it_comes_from_and_what_comes_from_it(grown: Casstore) -> None:
    assert drawn(grown("tree", "main-1").lines[1:]) == ["● base", "● main-1", "● main-2", "├─● idea", "● main-3"]
    assert drawn(grown("tree", "try-2").lines[1:]) == ["● base", "● again, try", "● try-2"]
    grown("tree", "nothing", code=10)


def test_labels_choose_and_what_they_come_from_is_shown(grown: Casstore) -> None:
    found = ["● base", "● main-1", "● main-2", "● idea"]
    assert drawn(grown("tree", "--label", "team=search").lines[1:]) == found
    assert drawn(grown("tree", "--label", "team", "main-2").lines[1:]) == found
    assert grown("tree", "--label", "team=other").stderr == "No snapshots.\n"


def test_the_document_has_each_snapshot_after_its_parent(grown: Casstore) -> None:
    found = grown.json("tree")["snapshots"]
    by_digest = {each["digest"]: each for each in found}
    assert len(found) == len(by_digest) == 9
    seen: set[str] = set()
    for each in found:
        assert each["parent_digest"] is None or each["parent_digest"] in seen
        seen.add(each["digest"])
        for child in each["children"]:
            assert by_digest[child]["parent_digest"] == each["digest"]
            assert by_digest[child]["parent"] == each["id"]
    orphan = next(each for each in found if each["names"] == ["orphan"])
    assert orphan["parent"] is not None
    assert orphan["parent_digest"] is None
    assert sum(each["new_bytes"] for each in found) == grown.json("stats")["total"]["stored_bytes"]
    listed = {each["digest"]: each["unique_bytes"] for each in grown.json("list")["snapshots"]}
    assert {digest: each["unique_bytes"] for digest, each in by_digest.items()} == listed


def test_an_empty_store_has_no_tree(casstore: Casstore) -> None:
    Store.init(casstore.store, options=FAST).close()
    assert casstore("tree").stderr == "No snapshots.\n"
    assert casstore("tree", "-q").stderr == ""
    assert casstore.json("tree")["snapshots"] == []


def test_a_template_makes_a_line_of_each_snapshot(grown: Casstore) -> None:
    found = grown.json("tree")["snapshots"]
    assert grown("tree", "--format", "{digest} {added_bytes}").lines == [
        f"{each['digest']} {each['added_bytes']}" for each in found
    ]
