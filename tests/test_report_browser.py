"""The page of casstore report, as a real browser sees it: light and dark, on a phone and on a desk.

One start of Chromium sees everything; what it saw is judged here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from casstore import Snapshot, Store
from casstore.cli import render
from casstore.report import render_report
from tests.support.browser import Look, look
from tests.support.command import Casstore
from tests.support.stores import FAST, PIECE, capture, write_disk
from tests.test_report import HOSTILE

pytestmark = pytest.mark.needs("browser")

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
PHONE, DESK = (375, 812), (1280, 900)

Seen = Mapping[str, Any]


def hostile_store(folder: Path) -> Store:
    """Snapshots with branches, one with a parent that is not here, and texts that would like to run."""
    store = Store.init(folder / "store", options=FAST)
    capture(store, folder, "base", 1, 2, 0, 3)
    image = (f"example.org/{HOSTILE}", "sha256:" + 64 * "0")
    for number, (name, parent) in enumerate(
        [
            ("try-something-with-a-very-long-name." + "x" * 80, "base"),
            ("main-1", "base"),
            ("main-2", "main-1"),
            ("gone", None),
            ("orphan", "gone"),
        ],
        10,
    ):
        pieces = (1, 0, 4, 3, *range(10, number + 1))
        builder = Snapshot.builder(write_disk(folder / "disk", *pieces)).name(name).image(*image)
        builder.label(HOSTILE, HOSTILE).label("<b>", "&amp;")
        if parent is not None:
            builder.parent(parent)
        builder.create(store)
    store.remove("gone", force=True)
    return store


@dataclass(frozen=True)
class World:
    """What `stats` says, what the browser saw at each look, and where its pictures are."""

    stats: Seen
    looks: Sequence[Seen]
    folder: Path


def see(folder: Path) -> World:
    """Make the page, and look at it."""
    page = folder / "report.html"
    with hostile_store(folder) as store:
        page.write_text(render_report(store, now=NOW, title=HOSTILE))
    stats = Casstore(folder).json("stats")
    looks = [
        Look(
            page=str(page),
            width=width,
            height=height,
            scheme=scheme,
            whole=True,
            shot=str(folder / f"{width}-{scheme}.png"),
        )
        for width, height in (PHONE, DESK)
        for scheme in ("light", "dark")
    ]
    return World(stats, look(*looks), folder)


def nothing_is_loaded_nothing_runs_and_nothing_is_wrong(world: World, at: int) -> None:
    seen = world.looks[at]
    assert seen["told"] == []
    assert seen["requests"] == [f"file://{world.folder}/report.html"]
    assert (seen["ran"], seen["strangers"], seen["scripts"]) == (None, 0, 1)
    assert any("<img src=x onerror='window.ran=1'>" in cell for cell in seen["cells"])
    assert seen["title"] == HOSTILE.replace("\u202e", "\\u202e").replace("\x1b", "\\u001b")


def it_fits_the_screen(world: World, at: int) -> None:
    seen = world.looks[at]
    for width, room in (seen["width"], seen["opened"]):
        assert width <= room
    outside = [label for label in seen["labels"] if label["right"] < -1 or label["left"] < -1]
    assert not outside


def all_can_read_it(world: World, at: int) -> None:
    seen = world.looks[at]
    assert seen["violations"] == []
    assert seen["language"] == "en"
    levels = [level for level, _ in seen["headings"]]
    assert levels == [1] + [2] * 6
    drawings = seen["drawings"]
    assert len([each for each in drawings if not each["hidden"]]) == 5
    assert all(each["hidden"] or (each["role"] == "img" and each["label"]) for each in drawings)
    assert len(seen["texts"]) > 150
    assert [text for text in seen["texts"] if text["contrast"] < 4.5] == []
    assert [text for text in seen["texts"] if text["size"] < 12] == []


def light_is_light_and_dark_is_dark(world: World) -> None:
    light, dark = "rgb(255, 255, 255)", "rgb(15, 20, 25)"
    assert [seen["paper"] for seen in world.looks] == [light, dark, light, dark]
    assert len(list(world.folder.glob("*.png"))) == 4


def the_keyboard_reaches_everything_in_order_and_the_focus_is_seen(world: World, at: int) -> None:
    seen = world.looks[at]
    assert len(seen["order"]) >= 6 + 5 + 2 + 13
    assert [name for name, _ in seen["keyboard"]] == seen["order"]
    assert all(visible for _, visible in seen["keyboard"])


def a_column_is_sorted_with_the_keyboard(world: World) -> None:
    (first, up), (second, down) = world.looks[2]["sorted"]
    assert (first, second) == ("ascending", "descending")
    assert up == sorted(up) == [size * PIECE for size in (4, 5, 6, 7, 9)]
    assert down == up[::-1]


def areas_are_in_proportion_to_bytes(world: World, at: int) -> None:
    boxes = world.looks[at]["boxes"]
    whole = sum(box["width"] * box["height"] for box in boxes)
    stored = world.stats["total"]["stored_bytes"]
    assert sum(box["bytes"] for box in boxes) == stored
    assert len(boxes) >= 5
    for box in boxes:
        assert box["width"] * box["height"] / whole == pytest.approx(box["bytes"] / stored, rel=0.01, abs=2e-4)


def the_figures_are_those_of_stats(world: World, at: int) -> None:
    total, tiles = world.stats["total"], world.looks[at]["tiles"]
    sizes = {"Apparent size": "logical_bytes", "Allocated": "allocated_bytes", "Stored": "stored_bytes"}
    for tile, field in {**sizes, "Shared": "shared_bytes"}.items():
        assert tiles[tile] == [str(total[field]), render.size(total[field])]
    for tile, field in {"Dedup": "dedup", "Compression": "compression", "In all": "reduction"}.items():
        assert [json.loads(tiles[tile][0]), tiles[tile][1]] == [
            total[f"{field}_factor"],
            f"{total[f'{field}_factor']:.2f}x",
        ]
    assert tiles["Snapshots"] == ["5", "5"]


def test_a_browser_finds_nothing_wrong(tmp_path: Path) -> None:
    """One test, so that one browser is started wherever the tests are spread."""
    world = see(tmp_path)
    for at in range(len(world.looks)):
        nothing_is_loaded_nothing_runs_and_nothing_is_wrong(world, at)
        it_fits_the_screen(world, at)
        all_can_read_it(world, at)
        the_keyboard_reaches_everything_in_order_and_the_focus_is_seen(world, at)
        areas_are_in_proportion_to_bytes(world, at)
        the_figures_are_those_of_stats(world, at)
    light_is_light_and_dark_is_dark(world)
    a_column_is_sorted_with_the_keyboard(world)
