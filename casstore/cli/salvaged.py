"""What `restore --salvage` tells: what could be had of a damaged disk, and which bytes are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from casstore.cli import render
from casstore.cli.failures import DAMAGED
from casstore.cli.session import Session

if TYPE_CHECKING:
    from casstore.salvage import Salvaged

_MOST = 20
"""Lines of missing ranges, and of reasons, for people."""


def report_salvaged(session: Session, wanted: str, salvaged: Salvaged, seconds: float) -> int:
    """Show what became of the disk; returns the exit code."""
    missing = salvaged.missing
    if session.as_json:
        session.emit_document(
            digest=str(salvaged.digest),
            path=salvaged.path,
            size_bytes=salvaged.size,
            missing_bytes=salvaged.missing_bytes,
            missing=[{"offset": offset, "length": length} for offset, length in missing],
            problems=list(salvaged.problems),
            seconds=round(seconds, 3),
        )
        return DAMAGED if missing else 0
    session.emit(render.printable(salvaged.path))
    for problem in salvaged.problems[:_MOST]:
        session.warn(problem)
    if len(salvaged.problems) > _MOST:
        session.warn(f"and {len(salvaged.problems) - _MOST} more problems; --json lists all")
    took = f"{render.size(salvaged.size)}, {render.duration(seconds)}"
    if not missing:
        session.say(f"restored {wanted}: {took}; nothing is missing")
        return 0
    for offset, length in missing[:_MOST]:
        session.warn(f"missing: {length} bytes at {offset}")
    if len(missing) > _MOST:
        session.warn(f"missing: {len(missing) - _MOST} more ranges; --json lists all")
    what = f"{render.size(salvaged.missing_bytes)} missing in {render.count(len(missing), 'range')}"
    session.warn(f"salvaged {wanted}: {took}; {what}, which are holes in the file")
    return DAMAGED
