"""Figures with their units, and the round ones that an axis is marked with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from casstore.units import size_text

size = size_text

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STEPS = (
    *(1, 2, 5, 10, 15, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY),
)
"""Seconds between two marks of a time axis; longer ones are whole months."""
_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200, 2400, 6000)


def factor(value: float | None) -> str:
    """How many times; `-` where there is none."""
    return "-" if value is None else f"{value:.2f}x"


def count(many: int, noun: str) -> str:
    """`1 snapshot`, `2 snapshots`."""
    return f"{many:,} {noun}" + ("" if many == 1 else "s")


def moment(time: datetime) -> str:
    """A time in UTC, to the second."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def share(part: int, whole: int) -> str:
    """A part in percent; small ones are not called none."""
    if not whole or not part:
        return "0%"
    percent = 100 * part / whole
    return "< 0.1%" if percent < 0.1 else f"{percent:.1f}%"


def size_marks(most: int, marks: int = 4) -> list[int]:
    """Round sizes from 0 up to `most` or just above it: at most so many, besides 0."""
    step = 1
    while step * marks < most:
        step *= 2
    return list(range(0, max(most, 1) + step, step))[: marks + 1]


def mark_text(count: int) -> str:
    """A round size, without a needless digit: `8 MiB`."""
    return size(count).replace(".0 ", " ")


def factor_marks(most: float) -> list[float]:
    """Round factors from 0 up to `most` or just above it, at most five."""
    step = next(
        mantissa * 10.0**power
        for power in range(-1, 300)
        for mantissa in (1, 2, 5)
        if mantissa * 10.0**power * 4 >= most
    )
    return [step * each for each in range(max(1, math.ceil(most / step - 1e-9)) + 1)]


def time_marks(first: datetime, last: datetime, marks: int = 4) -> Sequence[tuple[datetime, str]]:
    """Round times between two, at most so many, and how each is written: as short as tells them apart."""
    span = (last - first).total_seconds()
    for step in _STEPS:
        if span < step * marks:
            pattern = "%H:%M:%S" if step < _MINUTE else "%H:%M"
            if step >= _DAY or (step >= _HOUR and first.date() != last.date()):
                pattern = "%Y-%m-%d" if step >= _DAY else "%m-%d %H:%M"
            return [(time, time.strftime(pattern)) for time in _every(step, first, last)]
    found: list[tuple[datetime, str]] = []
    for months in _MONTHS:
        found = [(time, time.strftime("%Y" if months >= 12 else "%Y-%m")) for time in _monthly(months, first, last)]
        if len(found) <= marks:
            break
    return found


def _every(step: int, first: datetime, last: datetime) -> Iterator[datetime]:
    """The multiples of `step` seconds since the start of a Monday, so that weeks start with their first day."""
    start, apart = datetime(1, 1, 1, tzinfo=UTC), timedelta(seconds=step)
    steps = -((start - first) // apart)
    while steps * apart <= last - start:
        yield start + steps * apart
        steps += 1


def _monthly(months: int, first: datetime, last: datetime) -> Iterator[datetime]:
    at = (first.year * 12 + first.month - 1) // months * months
    while at // 12 <= last.year:
        if at >= 12:
            time = datetime(at // 12, at % 12 + 1, 1, tzinfo=UTC)
            if first <= time <= last:
                yield time
        at += months
