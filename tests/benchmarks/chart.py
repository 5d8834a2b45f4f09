"""Draws bars as SVG: one panel per figure, one bar per tool. Readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _COLUMNS, _ROW, _HEAD, _MARGIN = 780, 3, 22, 30, 14
_LABEL, _VALUE = 62, 62
"""Room for the words before a bar, and for its value behind it."""

_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #57606a }
.title { font-weight: 600; fill: #24292f }
.peer { fill: #afb8c1 }
.ours { fill: #1f6feb }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1 }
  .title { fill: #f0f6fc }
  .peer { fill: #59636e }
  .ours { fill: #4493f8 }
}"""


@dataclass(frozen=True)
class Bar:
    """One tool's figure, and how it is written."""

    label: str
    value: float
    text: str


@dataclass(frozen=True)
class Panel:
    """The bars of one figure; each panel has a scale of its own."""

    title: str
    bars: Sequence[Bar]


def draw(title: str, panels: Sequence[Panel], *, highlight: str) -> str:
    """The SVG document; bars with the label `highlight` stand out."""
    width = (_WIDTH - _MARGIN * (_COLUMNS + 1)) / _COLUMNS
    height = _HEAD + _ROW * max(len(panel.bars) for panel in panels) + _MARGIN
    lines = []
    told = []
    for number, panel in enumerate(panels):
        left = _MARGIN + (width + _MARGIN) * (number % _COLUMNS)
        top = _MARGIN + height * (number // _COLUMNS)
        lines.append(f'<text class="title" x="{left:.1f}" y="{top + 14:.1f}">{escape(panel.title)}</text>')
        scale = (width - _LABEL - _VALUE) / max([1e-9, *(bar.value for bar in panel.bars)])
        for row, bar in enumerate(panel.bars):
            y = top + _HEAD + _ROW * row
            kind = "ours" if bar.label == highlight else "peer"
            length = max(1.0, bar.value * scale)
            lines.append(f'<text x="{left:.1f}" y="{y + 11:.1f}">{escape(bar.label)}</text>')
            lines.append(
                f'<rect class="{kind}" x="{left + _LABEL:.1f}" y="{y:.1f}" width="{length:.1f}" height="14" rx="2"/>'
            )
            lines.append(f'<text x="{left + _LABEL + length + 5:.1f}" y="{y + 11:.1f}">{escape(bar.text)}</text>')
        told.append(f"{panel.title}: " + ", ".join(f"{bar.label} {bar.text}" for bar in panel.bars))
    rows = -(-len(panels) // _COLUMNS)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {rows * height + _MARGIN}" role="img"'
    named = f'<title id="title">{escape(title)}</title>\n<desc id="desc">{escape(". ".join(told))}.</desc>'
    body = "\n".join(lines)
    return f'{head} aria-labelledby="title desc">\n{named}\n<style>{_STYLE}\n</style>\n{body}\n</svg>\n'
