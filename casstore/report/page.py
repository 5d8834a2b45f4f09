"""The page: one file of HTML with all that it needs in it. It loads nothing, and may load nothing."""

from __future__ import annotations

from datetime import datetime

from casstore import __version__
from casstore.report.blockmapchart import patterns
from casstore.report.figures import count, factor, moment, size
from casstore.report.gather import Contents
from casstore.report.markup import Markup, element, join, raw
from casstore.report.script import SCRIPT, source_of
from casstore.report.sections import Section, sections_of
from casstore.report.style import STYLE

_NAMES = 10  # of those that cannot be read


def page(contents: Contents, *, now: datetime, title: str) -> str:
    """The whole document. Equal for equal arguments."""
    sections = sections_of(contents)
    policy = (
        f"default-src 'none'; style-src {source_of(STYLE)}; script-src {source_of(SCRIPT)};"
        " base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        raw("style", STYLE),
    )
    body = element(
        "body",
        element("header", element("h1", title), element("p", _summary(contents), class_="quiet"), _broken(contents)),
        element("nav", element("ul", [_link(section) for section in sections]), aria_label="On this page")
        if sections
        else "",
        element("main", _tiles(contents), patterns(), [_section(section) for section in sections]),
        element(
            "footer", element("p", f"Made {moment(now)} UTC with casstore {__version__}. This page loads nothing.")
        ),
        raw("script", SCRIPT),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _link(section: Section) -> Markup:
    name, title, _ = section
    return element("li", element("a", title, href=f"#{name}"))


def _section(section: Section) -> Markup:
    name, title, content = section
    return element("section", element("h2", title, id=name), content, aria_labelledby=name)


def _summary(contents: Contents) -> str:
    total, many = contents.total, len(contents.forest)
    if not many:
        return "There are no snapshots here."
    return (
        f"{count(many, 'snapshot')}: {size(total.stored)} stored of {size(total.allocated)} allocated"
        f" ({total.reduction or 0:.2f} : 1)."
    )


def _broken(contents: Contents) -> Markup:
    names = contents.broken
    if not names:
        return join()
    more = f" and {len(names) - _NAMES:,} more" if len(names) > _NAMES else ""
    return element(
        "p",
        element("strong", f"{count(len(names), 'name')} cannot be read: "),
        f"{', '.join(names[:_NAMES])}{more}. Left out here.",
    )


def _tiles(contents: Contents) -> Markup:
    total = contents.total
    tiles = (
        ("Snapshots", str(len(contents.forest)), f"{len(contents.forest):,}", "in the store"),
        ("Apparent size", str(total.logical), size(total.logical), "lengths of the disks"),
        ("Allocated", str(total.allocated), size(total.allocated), "of it in use"),
        ("Stored", str(total.stored), size(total.stored), "all blobs, each once"),
        ("Dedup", _exact(total.dedup), factor(total.dedup), "allocated to what packs hold"),
        ("Compression", _exact(total.compression), factor(total.compression), "what packs hold to packs"),
        ("In all", _exact(total.reduction), factor(total.reduction), "allocated to stored"),
        ("Shared", str(total.shared), size(total.shared), "stored for several snapshots"),
    )
    return element(
        "dl",
        [
            element(
                "div",
                element("dt", title, element("small", meaning)),
                element("dd", element("data", shown, value=exact)),
            )
            for title, exact, shown, meaning in tiles
        ],
        class_="tiles",
    )


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)
