"""A store in one page of HTML, which needs nothing else: what it holds, how it grew, and what changed.

markup      text to HTML; the only place that escapes
figures     sizes, factors and times with their units, and round marks for axes
gather      what is told, read from the store; the rest works on that alone
*chart, treemap     drawings, from plain data to SVG
sections, tables     what stands around them
page, style, script  and the page
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from casstore.progress import Progress, silent
from casstore.report.gather import gather
from casstore.report.page import page

if TYPE_CHECKING:
    from casstore.store import Store

__all__ = ["render_report"]


def render_report(
    store: Store,
    *,
    pair: tuple[str, str] | None = None,
    now: datetime,
    title: str = "Snapshots",
    progress: Progress = silent,
) -> str:
    """The page, as HTML: self-contained, and equal for equal contents, `now` and title.

    `pair` are two snapshots, by name, digest, id or prefix, whose disks are compared; without it the newest snapshot
    that has its parent here, and that. Nothing of the store's place is told.

    Raises:
        NotFound, UsageError: the pair is not in the store.
        UnreadableFilesystem, CorruptContent: the pair cannot be compared.
    """
    return page(gather(store, pair, progress), now=now, title=title)
