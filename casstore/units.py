"""Sizes, durations and rates as people write them: `10MiB`, `1h30m`, `500k/s`.

    size        NUMBER[k|M|G|T][B] in steps of 1000, or with an i (KiB, Mi, ...) in steps of 1024; bytes without a unit
    duration    NUMBER[s|min|h|d|w|mo|y], several added up: 1h30min; seconds without a unit. m is min; mo is 30 days,
                and y is 365
    age         the same, without m, which other tools take for months
    rate        a size, then /s, which may be left out
    frequency   NUMBER[/s|/m|/h]: so many in each second, minute or hour

NUMBER may have a fraction, and the case of a unit does not matter. Everything is more than nothing: to set no limit is
to leave the option out.
"""

from __future__ import annotations

import re
from typing import TypeVar

N = TypeVar("N", int, float)

_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,9})?)"
_SIZE = re.compile(rf"{_NUMBER} ?(?:([kmgt])(i?))?b?\Z", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(rf"{_NUMBER}(min|mo|[smhdwy]?)", re.ASCII | re.IGNORECASE)
_FREQUENCY = re.compile(rf"{_NUMBER}(?:/([smh]))?\Z", re.ASCII | re.IGNORECASE)
_DAY = 86400
_SECONDS = {
    "": 1,
    "s": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "d": _DAY,
    "w": 7 * _DAY,
    "mo": 30 * _DAY,
    "y": 365 * _DAY,
}
_LONGEST = 10 * 365 * _DAY
"""Seconds; what is longer is a slip, and the clocks of some systems cannot count it."""


def parse_size(text: str) -> int:
    """Bytes, at least 1.

    Raises:
        ValueError: it is no size.
    """
    match = _SIZE.match(text)
    if match is None:
        raise ValueError(f"expected a size such as 500k or 10MiB, got {text!r}")
    power = " kmgt".index((match[2] or " ").lower())
    step = 1024.0 if match[3] else 1000.0
    return _positive(round(float(match[1]) * step**power), text)


def size_text(count: int) -> str:
    """Bytes for people: `N B`, else KiB, MiB or GiB with one digit."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.1f} {unit}"
    return f"{count} B"


def parse_rate(text: str) -> int:
    """Bytes per second, at least 1.

    Raises:
        ValueError: it is no rate.
    """
    try:
        return parse_size(re.sub(r"/s\Z", "", text, flags=re.IGNORECASE))
    except ValueError:
        raise ValueError(f"expected a rate above 0, such as 500k/s or 10MiB/s, got {text!r}") from None


def parse_duration(text: str) -> float:
    """Seconds, more than 0.

    Raises:
        ValueError: it is no duration, or one of more than ten years.
    """
    parts = _DURATION.findall(text)
    units = [unit.lower() for _, unit in parts]
    whole = "".join(number + unit for number, unit in parts) == text and (len(parts) == 1 or "" not in units)
    if not whole or len(set(units)) != len(units):
        raise ValueError(f"expected a duration such as 90s or 1h30m, got {text!r}")
    seconds = sum(float(number) * _SECONDS[unit] for (number, _), unit in zip(parts, units, strict=True))
    if seconds > _LONGEST:
        raise ValueError(f"expected a duration of at most ten years, got {text!r}")
    return _positive(seconds, text)


def parse_age(text: str) -> float:
    """As `parse_duration`, for how old something may be: nobody shall lose months who meant minutes, or the other way.

    Raises:
        ValueError: it is none, or says `m`.
    """
    if any(unit.lower() == "m" for _, unit in _DURATION.findall(text)):
        raise ValueError(f"expected min for minutes or mo for months (of 30 days), got {text!r}, which may mean either")
    return parse_duration(text)


def parse_wait(text: str) -> float:
    """Seconds; 0 is not to wait.

    Raises:
        ValueError: as `parse_duration`.
    """
    return 0.0 if re.fullmatch(r"0+(\.0+)?s?", text, re.ASCII) else parse_duration(text)


def parse_frequency(text: str) -> float:
    """How often in a second, more than 0.

    Raises:
        ValueError: it is no frequency.
    """
    match = _FREQUENCY.match(text)
    if match is None:
        raise ValueError(f"expected a frequency such as 5/s or 100/m, got {text!r}")
    return _positive(float(match[1]) / _SECONDS[(match[2] or "s").lower()], text)


def _positive(number: N, text: str) -> N:
    if not number > 0:
        raise ValueError(f"expected more than 0, got {text!r}")
    return number
