"""Which snapshot came from which, and what each step added."""

from __future__ import annotations

import math
from itertools import accumulate
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from casstore import Store
from casstore.digest import Digest
from casstore.growth import Forest, grow
from casstore.queries import Step
from tests.support.forests import digest_of, entry, forest_of
from tests.support.stores import capture


def names(forest: Forest) -> list[str]:
    return [node.names[0] for node in forest.nodes.values()]


@st.composite
def parents(draw: st.DrawFn) -> list[int | None]:
    """Histories of any shape."""
    count = draw(st.integers(1, 60))
    return [draw(st.none() | st.integers(0, number - 1)) if number else None for number in range(count)]


def test_what_a_step_adds_is_what_its_parent_has_not(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "base", 1, 2, 0, 3)
    capture(store, tmp_path, "edited", 1, 2, 0, 3, 4, parent="base")
    capture(store, tmp_path, "other", 1, 2, 0, 3, 4, parent="base")
    capture(store, tmp_path, "alone", 9, 3)
    capture(store, tmp_path, "gone", 7)
    capture(store, tmp_path, "orphan", 7, 8, parent="gone")
    store.tag("edited", "again")
    called = store.get("gone").id
    store.remove("gone", force=True)
    forest = store.tree()
    assert names(forest) == ["base", "again", "other", "alone", "orphan"]
    needs = {name: store.open_snapshot(name).needs for name in names(forest)}
    seen: set[Digest] = set()
    for name, node in zip(names(forest), forest.nodes.values(), strict=True):
        mine = needs[name]
        theirs = {} if node.parent is None else needs[forest.nodes[node.parent].names[0]]
        assert node.added == sum(mine[digest] for digest in mine.keys() - theirs.keys()), name
        assert node.new == sum(mine[digest] for digest in mine.keys() - seen), name
        seen |= mine.keys()
    base, edited, other, alone, orphan = forest.nodes.values()
    assert edited.parent == other.parent == base.digest
    assert forest.children(base.digest) == [edited.digest, other.digest]
    assert (alone.parent, alone.missing) == (None, None)
    assert (orphan.parent, orphan.missing) == (None, str(called))
    assert forest.roots == (base.digest, alone.digest, str(called))
    assert (other.added, base.added) == (edited.added, base.stored)
    assert 0 < other.new < edited.new == edited.added
    assert sum(node.new for node in forest.nodes.values()) == store.stats().total.stored


def test_one_snapshot_with_all_around_it(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "base", 1)
    for name, parent in (("left", "base"), ("right", "base"), ("below", "left"), ("lowest", "below")):
        capture(store, tmp_path, name, 1, parent=parent)
    capture(store, tmp_path, "alone", 2)
    assert names(store.tree("left")) == ["base", "left", "below", "lowest"]
    assert names(store.tree("lowest")) == ["base", "left", "below", "lowest"]
    assert names(store.tree("base")) == ["base", "left", "right", "below", "lowest"]
    assert names(store.tree("alone")) == ["alone"]


@given(parents())
def test_a_drawing_shows_each_once_below_its_parent_and_no_line_crosses_another(shape: list[int | None]) -> None:
    forest = forest_of(shape)
    rows = list(forest.rows())
    assert {row.node.digest for row in rows if row.node is not None} == set(forest.nodes)
    assert len(rows) == len(shape)
    assert max(row.lane for row in rows) <= math.log2(len(rows))
    for at, row in enumerate(rows):
        assert row.node is not None
        if row.above is None:
            assert (row.node.parent, row.lane, row.branches) == (None, 0, False)
            continue
        above = rows[row.above]
        assert above.node is not None
        assert above.node.digest == row.node.parent
        assert row.lane == above.lane + row.branches
        assert all(between.lane > above.lane for between in rows[row.above + 1 : at])


@given(parents())
def test_siblings_are_in_the_order_of_time_but_for_the_main_line_which_is_last(shape: list[int | None]) -> None:
    forest = forest_of(shape)
    order = {row.node.digest: at for at, row in enumerate(forest.rows()) if row.node is not None}
    main = {row.node.digest for row in forest.rows() if row.node is not None and not row.branches}
    for digest in forest.nodes:
        children = forest.children(digest)
        assert [forest.nodes[child].created for child in children] == sorted(
            time for child in children if (time := forest.nodes[child].created) is not None
        )
        last = [child for child in children if child in main]
        assert sorted(children, key=order.__getitem__) == [child for child in children if child not in main] + last
        assert len(last) == bool(children)


def test_a_history_of_ten_thousand_steps_is_a_straight_line() -> None:
    forest = forest_of([None, *range(9_999)])
    rows = list(forest.rows())
    assert [row.lane for row in rows] == [0] * 10_000
    assert [row.above for row in rows] == [None, *range(9_999)]
    assert len(forest.ancestors(digest_of(9_999))) == 9_999
    assert len(forest.around(digest_of(5_000))) == 10_000


def test_a_long_line_with_a_branch_at_each_step_stays_narrow() -> None:
    shape = [None, *(parent for step in range(500) for parent in (2 * step, 2 * step))]
    lanes = [row.lane for row in forest_of(shape).rows()]
    assert max(lanes) == 1


def test_a_circle_is_cut_at_its_oldest() -> None:
    entries = [entry(number, parent=str(Digest.of(b"a name"))) for number in range(5)]
    above = (2, 0, 1, 2, 4)  # 0 -> 2 -> 1 -> 0; 3 comes from 2, and 4 from itself
    steps = {each.digest: Step(digest_of(parent), added=1, new=1) for each, parent in zip(entries, above, strict=True)}
    forest = grow(entries, steps)
    assert [node.parent for node in forest.nodes.values()] == [None, digest_of(0), digest_of(1), digest_of(2), None]
    cut = forest.nodes[digest_of(0)]
    assert (cut.missing, cut.added) == (str(Digest.of(b"a name")), cut.stored)
    assert len(list(forest.rows())) == 6  # and one for what both call their parent
    assert len(forest.around(digest_of(3))) == 4


def test_times_that_cannot_be_read_come_first() -> None:
    entries = [entry(0), entry(1, created="yesterday"), entry(2, created="0001-01-01T00:00:00+23:59")]
    forest = grow(entries, {each.digest: Step(None, added=1, new=1) for each in entries})
    assert names(forest) == ["n2", "n1", "n0"]
    assert [node.created is None for node in forest.nodes.values()] == [True, True, False]


def test_the_newest_alone_have_parents_that_are_not_here() -> None:
    forest = forest_of([None, 0, 1, 2, None]).newest(3)
    assert names(forest) == ["n2", "n3", "n4"]
    assert forest.nodes[digest_of(2)].missing == str(digest_of(1))
    assert [node.parent for node in forest.nodes.values()] == [None, digest_of(2), None]
    assert list(accumulate(len(forest.children(digest)) for digest in forest.nodes)) == [1, 1, 1]
