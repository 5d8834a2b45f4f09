"""What a check found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is. The values are what JSON output says."""

    OK = "ok"
    NOTE = "note"
    """Nothing is wrong, but something is slower or takes more space than it might, or is not used."""
    WARNING = "warning"
    """It works now, and may not for long; or is less safe than it looks."""
    PROBLEM = "problem"
    """Something does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """Which check it was: `locks`, `space`, ... They never change their meaning."""
    level: Level
    subject: str
    """What it is about: a path, a host, a package."""
    text: str
    fix: str | None = None
    """A command, or a sentence; None where there is nothing to do."""


def ok(check: str, subject: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(check, Level.OK, subject, text)


def note(check: str, subject: str, text: str, fix: str | None = None) -> Finding:
    """Good to know."""
    return Finding(check, Level.NOTE, subject, text, fix)


def warning(check: str, subject: str, text: str, fix: str) -> Finding:
    """Better done something about."""
    return Finding(check, Level.WARNING, subject, text, fix)


def problem(check: str, subject: str, text: str, fix: str) -> Finding:
    """Something does not work."""
    return Finding(check, Level.PROBLEM, subject, text, fix)
