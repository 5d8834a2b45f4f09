"""Every row of docs/explanation/faults.md has a test that names it, and no test names a row that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAST = 110
"""Larger numbers in test names are no rows."""


def _rows() -> set[int]:
    page = (ROOT / "docs/explanation/faults.md").read_text()
    return {int(row) for row in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}


def _tested() -> set[int]:
    found: set[int] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text()
        found |= {int(row) for row in re.findall(r"def test_(\d+)_", text)}
        for rows in re.findall(r"\b[Rr]ows? ((?:\d+(?:, | and | to |-)?)+)", text):
            for first, last in re.findall(r"(\d+)(?:(?:-| to )(\d+))?", rows):
                found |= set(range(int(first), int(last or first) + 1))
    return {row for row in found if row <= LAST}


def test_every_row_has_a_test() -> None:
    assert _rows() - _tested() == set()


def test_every_row_that_a_test_names_is_there() -> None:
    assert _tested() - _rows() == set()


def test_every_promise_names_tests_that_are_there() -> None:
    page = (ROOT / "docs/explanation/promises.md").read_text()
    rows = re.findall(r"^\| \d+ \|.*$", page, re.MULTILINE)
    assert len(rows) >= 10
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)`", row)
        assert named, row
        assert all((ROOT / "tests" / name).is_file() for name in named), row


def test_the_threat_model_names_tests_that_are_there() -> None:
    page = (ROOT / "docs/explanation/threat-model.md").read_text()
    named = set(re.findall(r"`(test_\w+\.py)`", page))
    assert len(named) > 15
    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []
    spans = [(int(first), int(last or first)) for first, last in re.findall(r"\brows? (\d+)(?: to (\d+))?", page)]
    assert len(spans) > 10
    assert {row for span in spans for row in span} <= _rows()
