"""The page of casstore report, as text: what it tells, that it loads nothing, and how its figures and boxes are made.

test_report_browser.py looks at it in a browser.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from casstore import Snapshot, Store
from casstore.errors import NotFound
from casstore.report import figures, render_report
from casstore.report.gather import gather
from casstore.report.growthchart import Point, growth_chart
from casstore.report.markup import element, join, raw
from casstore.report.page import page
from casstore.report.sections import MOST
from casstore.report.treemap import Box, Part, layout, squarify
from casstore.spec import GIB
from tests.support.command import Casstore
from tests.support.forests import contents_of, forest_of, random_parents
from tests.support.stores import FAST, all_files, capture, flip_byte, write_disk

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
HOSTILE = "</script></style></title><img src=x onerror='window.ran=1'>\"' onload=\"window.ran=2\u202e\x1b[31m"


class Seen(HTMLParser):
    """What a document has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in {"meta", "br"} and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def grown(store: Store, tmp_path: Path) -> Store:
    """Three snapshots with hostile texts, one of them a child."""
    capture(store, tmp_path, "base", 1, 2, 0, 3)
    disk = write_disk(tmp_path / "disk", 1, 2, 4, 0)
    image = (f"example.org/{HOSTILE}", "sha256:" + 64 * "0")
    Snapshot.builder(disk).name("child").parent("base").image(*image).label(HOSTILE, HOSTILE).create(store)
    capture(store, tmp_path, "alone", 9)
    return store


def tiles(text: str) -> dict[str, tuple[str, str]]:
    """The figures on top: exact, and as shown."""
    found = re.findall(r"<dt>([^<]+)<small>[^<]*</small></dt><dd><data value=\"([^\"]*)\">([^<]*)</data></dd>", text)
    return {name: (exact, shown) for name, exact, shown in found}


def test_it_tells_what_stats_tell(grown: Store, casstore: Casstore) -> None:
    found = tiles(render_report(grown, now=NOW))
    total = casstore.json("stats")["total"]
    for tile, field in {
        "Snapshots": "snapshots",
        "Apparent size": "logical_bytes",
        "Allocated": "allocated_bytes",
        "Stored": "stored_bytes",
        "Shared": "shared_bytes",
    }.items():
        assert int(found[tile][0]) == total[field]
    for tile, field in {"Dedup": "dedup", "Compression": "compression", "In all": "reduction"}.items():
        assert float(found[tile][0]) == total[f"{field}_factor"]
        assert found[tile][1] == f"{total[f'{field}_factor']:.2f}x"
    assert found["Stored"][1] == figures.size(total["stored_bytes"])


def test_equal_stores_give_equal_bytes(grown: Store) -> None:
    assert render_report(grown, now=NOW) == render_report(grown, now=NOW)
    assert render_report(grown, now=NOW) != render_report(grown, now=NOW + timedelta(seconds=1))
    with Store.open(grown.path, options=FAST) as again:
        assert render_report(again, now=NOW) == render_report(grown, now=NOW)


def test_nothing_of_the_texts_of_others_is_markup_and_nothing_is_loaded(grown: Store) -> None:
    text = render_report(grown, now=NOW, title=HOSTILE)
    seen = Seen(text)
    assert not {"img", "iframe", "object", "embed", "link", "base", "form"} & set(seen.tags)
    assert seen.tags.count("script") == seen.tags.count("style") == 1
    assert not [name for name, _ in seen.attributes if name.startswith("on") or name in {"src", "style"}]
    assert all(value.startswith("#") for name, value in seen.attributes if name == "href")
    assert not re.findall(r"(?i)url\((?!#)|https?:|@import", text)
    assert "\u202e" not in text
    assert "\x1b" not in text
    shown = HOSTILE.replace("\u202e", "\\u202e").replace("\x1b", "\\u001b")
    assert any(f"{shown}={shown}" in each for each in seen.texts)
    assert f"example.org/{shown}" in "".join(seen.texts)
    assert f"<h1>{element('p', HOSTILE)[3:-4]}</h1>" in text


def test_only_this_style_and_this_script_may_run(grown: Store) -> None:
    text = render_report(grown, now=NOW)
    [policy] = [value for name, value in Seen(text).attributes if value.startswith("default-src")]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    for tag in ("style", "script"):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        wanted = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{wanted}'" in policy
    assert "unsafe" not in policy


def test_the_pair_is_the_newest_with_a_parent_or_what_is_asked_for(grown: Store) -> None:
    pair = gather(grown, None).pair
    assert pair is not None
    assert pair.names == ("base", "child")
    kib = 1024
    assert (pair.hole, pair.same, pair.changed) == (0, 128 * kib, 0)
    assert (pair.added, pair.removed, pair.size) == (64 * kib, 64 * kib, 256 * kib)
    assert {kind: list(pair.cells).count(kind) for kind in set(pair.cells)} == {"added": 16, "removed": 16, "same": 32}
    asked = gather(grown, ("alone", "base")).pair
    assert asked is not None
    assert asked.names == ("alone", "base")
    with pytest.raises(NotFound):
        render_report(grown, now=NOW, pair=("base", "nothing"))


def test_a_pair_that_cannot_be_compared_does_not_keep_the_rest(grown: Store) -> None:
    root = Path(grown.path)
    child = grown.open_snapshot("child")
    flip_byte(root / "blobs/sha256" / child.artifact_manifest.packs[-1].digest.hex, 100)
    with Store.open(root, options=FAST) as store:
        text = "".join(Seen(render_report(store, now=NOW)).texts)
        assert "child cannot be compared with base; casstore diff base child says why." in text
        assert "Growth" in text
        assert str(root) not in text


def test_names_that_cannot_be_read_are_told(grown: Store, casstore: Casstore) -> None:
    root = Path(grown.path)
    (root / "refs" / "broken").symlink_to("../blobs/sha256/" + 64 * "0")
    with Store.open(root, options=FAST) as store:
        assert "1 name cannot be read: broken. Left out here." in "".join(Seen(render_report(store, now=NOW)).texts)
    assert "broken" in casstore("tree").stderr
    done = casstore("report", "-")
    assert "snapshot broken: " in done.stderr
    assert done.stdout.endswith("</html>\n")


def test_without_snapshots_it_says_so(store: Store) -> None:
    text = render_report(store, now=NOW)
    assert "There are no snapshots here." in text
    assert "<svg class" not in text
    assert "<section" not in text


def test_without_a_parent_nothing_is_compared(store: Store, tmp_path: Path) -> None:
    capture(store, tmp_path, "one", 1)
    assert "No snapshot here has its parent here" in render_report(store, now=NOW)


def test_a_thousand_snapshots_take_less_than_two_megabytes_and_ten_thousand_hardly_more() -> None:
    labels = {f"key{number}": "a value of some length" for number in range(20)}
    text = page(contents_of(forest_of(random_parents(MOST, 1), labels=labels)), now=NOW, title="Many")
    assert len(text.encode()) < 2 << 20
    assert text.count('<th scope="row">n') > 3 * MOST
    assert 250 <= text.count("data-bytes=") <= 301
    more = page(contents_of(forest_of([None, *range(2 * MOST)])), now=NOW, title="More")
    assert len(more.encode()) < 2 << 20
    assert f"The newest {MOST:,} of {2 * MOST + 1:,} snapshots." in more
    Seen(text)


def test_the_command_writes_one_file_and_its_path(grown: Store, casstore: Casstore, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    before = all_files(tmp_path / "store")
    assert casstore("report", out).stdout == f"{out}\n"
    first = out.read_bytes()
    assert first.startswith(b"<!DOCTYPE html>\n<html lang=")
    assert b"From base to child" in first
    assert "exists already" in casstore("report", out, code=15).stderr
    assert out.read_bytes() == first
    casstore("report", "-f", out, "--pair", "alone", "base", "--title", "A & B")
    assert b"<h1>A &amp; B</h1>" in out.read_bytes()
    assert b"From alone to base" in out.read_bytes()
    casstore("report", "-f", out, "--pair", "alone", "nothing", code=10)
    assert b"From alone to base" in out.read_bytes()
    casstore("report", tmp_path / "no" / "where.html", code=17)
    assert os.listdir(tmp_path).count("out.html") == 1
    assert not list(tmp_path.glob("*.tmp"))
    assert all_files(tmp_path / "store") == before


# --- text to markup ---------------------------------------------------------------------------------------------------


@given(st.text(), st.text())
@example("</p>", '"><p x="')
@example("&amp;", "&quot;")
def test_text_comes_out_of_a_parser_as_it_went_in(content: str, attribute: str) -> None:
    seen = Seen(element("p", content, title=attribute))

    def escaped(char: str) -> str:
        return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"

    expected = [
        "".join(char if char.isprintable() else escaped(char) for char in each) for each in (content, attribute)
    ]
    assert ["".join(seen.texts), dict(seen.attributes)["title"]] == expected
    assert seen.tags == ["p"]


def test_markup_goes_in_as_it_is_and_only_once() -> None:
    inner = element("b", "<&>")
    assert element("p", [inner, "&", join("x", inner)], class_="a b", hidden=True, id=None) == (
        '<p class="a b" hidden><b>&lt;&amp;&gt;</b>&amp;x<b>&lt;&amp;&gt;</b></p>'
    )
    for text in ("a</style>", "<!--"):
        with pytest.raises(ValueError, match="expected no"):
            raw("style", text)


# --- figures ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1 << 70))
def test_marks_of_sizes_are_round_few_and_reach_far_enough(most: int) -> None:
    marks = figures.size_marks(most)
    steps = {after - before for before, after in pairwise(marks)}
    assert marks[0] == 0
    assert 1 <= len(marks) - 1 <= 4
    assert len(steps) == 1
    assert steps.pop().bit_count() == 1
    assert marks[-1] >= most
    assert most == 0 or marks[-1] < 2 * most or marks[-1] == 1


@given(st.floats(0, 1e12))
def test_marks_of_factors_are_round_few_and_reach_far_enough(most: float) -> None:
    marks = figures.factor_marks(most)
    assert 2 <= len(marks) <= 5
    assert marks[-1] >= most * (1 - 1e-6)
    assert f"{marks[1]:e}"[0] in "125"


@given(
    st.datetimes(datetime(1, 1, 8), datetime(9990, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.integers(0, 60) | st.integers(0, 86400 * 40) | st.integers(0, 86400 * 36500),
)
def test_marks_of_times_are_few_within_and_told_apart(first: datetime, seconds: int) -> None:
    last = min(first + timedelta(seconds=seconds), datetime(9999, 12, 30, tzinfo=UTC))
    marks = figures.time_marks(first, last)
    times = [time for time, _ in marks]
    assert len(marks) <= 5
    assert all(first <= time <= last for time in times)
    assert times == sorted(set(times))
    assert len({text for _, text in marks}) == len(marks)


def test_shares_of_nothing_and_of_next_to_nothing() -> None:
    assert [figures.share(1, 0), figures.share(0, 9), figures.share(1, 10**9), figures.share(1, 3)] == [
        *("0%", "0%", "< 0.1%", "33.3%")
    ]


# --- drawings ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40), st.floats(0.2, 5))
def test_boxes_are_in_proportion_fill_the_whole_and_do_not_overlap(values: list[int], ratio: float) -> None:
    values.sort(reverse=True)
    boxes = squarify(values, Box(0, 0, 1, 1), ratio)
    for value, box in zip(values, boxes, strict=True):
        assert box.width * box.height == pytest.approx(value / sum(values), rel=1e-6, abs=1e-9)
        assert box.x >= -1e-9
        assert box.y >= -1e-9
        assert box.x + box.width <= 1 + 1e-6
        assert box.y + box.height <= 1 + 1e-6
    for at, one in enumerate(boxes):
        for other in boxes[at + 1 :]:
            over_x = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
            over_y = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
            assert over_x <= 1e-6 or over_y <= 1e-6


def test_boxes_of_like_values_are_nearly_square() -> None:
    for box in squarify([10] * 12, Box(0, 0, 1, 1), 2.0):
        assert 0.5 <= 2 * box.width / box.height <= 2


def test_the_boxes_of_a_group_stay_together() -> None:
    groups = [[Part("a", 5, "shared"), Part("b", 4, "shared")], [Part("c", 6, "unique")]]
    placed = {part.name: box for part, box in layout(groups)}
    assert placed["a"].width * placed["a"].height == pytest.approx(5 / 15)
    assert placed["c"].x == pytest.approx(9 / 15)
    assert placed["c"].height == pytest.approx(1)


def test_the_growth_of_one_snapshot_is_drawn_too() -> None:
    drawn = growth_chart([Point(NOW, 3 * GIB, 8 * GIB)])
    assert "whole copies 8.0 GiB" in drawn
    assert "nan" not in drawn
    assert Seen(drawn).tags[0] == "svg"


def test_a_snapshot_of_the_last_day_of_time_is_drawn_too() -> None:
    """Whoever makes a snapshot says when that was."""
    points = [Point(NOW, GIB, GIB), Point(datetime.max.replace(tzinfo=UTC), 2 * GIB, 2 * GIB)]
    assert ">4000<" in growth_chart(points)


def test_lines_of_growth_are_in_proportion_to_time_and_bytes() -> None:
    hours = (0, 6, 24)
    sizes = ((1 * GIB, 2 * GIB), (1 * GIB, 5 * GIB), (3 * GIB, 8 * GIB))
    points = [Point(NOW + timedelta(hours=at), *both) for at, both in zip(hours, sizes, strict=True)]
    drawn = growth_chart(points)
    marks = {text: float(y) + 4 for y, text in re.findall(r'<text x="0" y="([\d.]+)" class="mark">([^<]+)<', drawn)}
    top, zero = marks["8 GiB"], 2 * marks["4 GiB"] - marks["8 GiB"]
    for line, values in zip(("copies", "stored"), ([b for _, b in sizes], [a for a, _ in sizes]), strict=True):
        [path] = re.findall(rf'd="([^"]+)" class="line {line}"', drawn)
        steps = [(float(x), float(y)) for x, y in re.findall(r"H([\d.]+)V([\d.]+)", path)]
        assert [y for _, y in steps] == pytest.approx([zero + (top - zero) * each / (8 * GIB) for each in values])
        across = [(x - steps[0][0]) / (steps[-1][0] - steps[0][0]) for x, _ in steps]
        assert across == pytest.approx([at / 24 for at in hours], abs=1e-4)


def test_every_drawing_has_words_and_a_table(grown: Store) -> None:
    text = render_report(grown, now=NOW)
    drawings = re.findall(r'<svg class="chart[^>]*role="img" aria-label="([^"]+)"', text)
    assert len(drawings) == 5
    assert text.count("<details>") == 5
    assert all(len(each) > 40 for each in drawings)
    assert json.dumps(drawings).isascii()
