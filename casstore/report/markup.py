"""HTML and SVG as text. The one place where anything is escaped: what is not Markup is text.

Labels, names of images and messages may come from anywhere. Besides what HTML needs, characters that cannot be seen are
escaped as `\\u202e`: a label must not turn the direction of what is beside it.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias

from casstore.visible import visible


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Content: TypeAlias = "str | Iterable[Content]"
"""Markup goes in as it is, another str as text, and of several each by itself."""

_VOID = {"meta", "br"}
_SHAPES = {"rect", "path", "line", "circle"}


def element(tag: str, *content: Content, **attributes: object) -> Markup:
    """An element. `class_` stands for `class` and `aria_label` for `aria-label`; an attribute that is None is left out,
    and one that is True has no value.
    """
    words = [tag]
    for name, value in attributes.items():
        if value is not None:
            shown = name.rstrip("_").replace("_", "-")
            words.append(shown if value is True else f'{shown}="{_attribute(value)}"')
    start = " ".join(words)
    if tag in _VOID:
        return Markup(f"<{start}>")
    if tag in _SHAPES and not content:
        return Markup(f"<{start}/>")
    return Markup(f"<{start}>{join(*content)}</{tag}>")


def join(*content: Content) -> Markup:
    """All of it, one after the other."""
    parts: list[str] = []
    for each in content:
        if isinstance(each, Markup):
            parts.append(each)
        elif isinstance(each, str):
            parts.append(html.escape(visible(each), quote=False))
        else:
            parts.append(join(*each))
    return Markup("".join(parts))


def raw(tag: str, text: str) -> Markup:
    """A script or style of our own, whose content HTML does not unescape.

    Raises:
        ValueError: it would end before its end.
    """
    if "</" in text or "<!" in text:
        raise ValueError(f"{tag}: expected no '</' and no '<!' in it")
    return Markup(f"<{tag}>{text}</{tag}>")


def cut(text: str, most: int) -> str:
    """At most so many characters of a text."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def number(value: float) -> str:
    """A coordinate, to a hundredth."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def percent(share: float) -> str:
    """A coordinate as a share of the whole, from 0 to 1."""
    return f"{share * 100:.3f}".rstrip("0").rstrip(".") + "%"


def _attribute(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    return html.escape(visible(str(value)))
