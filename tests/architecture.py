"""Draws docs/images/architecture.svg from LAYERS of tests/test_layering.py: `python -m tests.architecture`.

tests/test_architecture_drawing.py fails until that was done after a change of LAYERS.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from tests.test_layering import LAYERS

DRAWING = Path(__file__).parents[1] / "docs" / "images" / "architecture.svg"

OUTSIDE = {
    "SDK": "programs for the SDK",
    "command line": "people, scripts",
    "face": "Python programs",
    "bridge": "microsandbox's home",
    "adapters": "registries, file systems",
    "bytes": "disks",
}
"""What touches a layer from outside casstore."""

_WIDTH, _LEFT, _RIGHT, _LINE, _PAD, _GAP = 880, 164, 168, 19, 9, 6
_CHARACTER = 7.3
"""Width of a letter of 12 px in a fixed pitch."""

_STYLE = """
text { font: 12px ui-monospace, monospace; fill: #24292f }
.layer { font: 600 13px system-ui, sans-serif }
.outside { font: italic 12px system-ui, sans-serif; fill: #57606a }
.band { fill: #f6f8fa; stroke: #d0d7de }
.edge { fill: #ddf4ff; stroke: #54aeff }
.arrow { stroke: #57606a; fill: none; stroke-width: 1.5 }
.head { fill: #57606a }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .outside { fill: #9198a1 }
  .band { fill: #151b23; stroke: #3d444d }
  .edge { fill: #121d2f; stroke: #1f6feb }
  .arrow { stroke: #9198a1 }
  .head { fill: #9198a1 }
}"""


def _wrapped(modules: list[str]) -> Iterator[list[str]]:
    """The modules of a layer in lines."""
    room = (_WIDTH - _LEFT - _RIGHT - 3 * _PAD) / _CHARACTER
    line: list[str] = []
    for module in modules:
        if line and sum(len(each) + 2 for each in line) + len(module) > room:
            yield line
            line = []
        line.append(module)
    yield line


def draw(layers: Mapping[str, set[str]]) -> str:
    """The drawing: a band for each layer, the top one first, with the modules that are in it."""
    parts, top = [], float(_GAP)
    for layer, modules in reversed(list(layers.items())):
        lines = list(_wrapped(sorted(modules)))
        height = 2 * _PAD + _LINE * len(lines) - 4
        kind = "edge" if layer in OUTSIDE else "band"
        parts.append(
            f'<rect class="{kind}" x="24" y="{top:g}" width="{_WIDTH - _RIGHT - 24}" height="{height}" rx="5"/>'
        )
        parts.append(f'<text class="layer" x="36" y="{top + _PAD + 11:g}">{escape(layer)}</text>')
        for number, line in enumerate(lines):
            at = float(_LEFT + _PAD)
            for module in line:
                y = top + _PAD + 11 + number * _LINE
                parts.append(f'<text class="module" x="{at:g}" y="{y:g}">{escape(module)}</text>')
                at += (len(module) + 2) * _CHARACTER
        if layer in OUTSIDE:
            parts += _from_outside(OUTSIDE[layer], top + height / 2)
        top += height + _GAP
    parts.append(f'<path class="arrow" d="M12 {2 * _GAP} V{top - 16:g}"/>')
    parts.append(f'<path class="head" d="M7 {top - 18:g} h10 l-5 9 z"/>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top:g}" role="img"'
    named = '<title id="title">The layers of casstore, and their modules</title>'
    told = "; ".join(f"{layer}: {', '.join(sorted(modules))}" for layer, modules in layers.items())
    described = f'<desc id="desc">From the bottom to the top; imports point downwards. {escape(told)}.</desc>'
    body = "\n".join(parts)
    return f'{head} aria-labelledby="title desc">\n{named}\n{described}\n<style>{_STYLE}\n</style>\n{body}\n</svg>\n'


def _from_outside(who: str, y: float) -> list[str]:
    edge = _WIDTH - _RIGHT
    return [
        f'<path class="arrow" d="M{edge + 2} {y:g} h18"/>',
        f'<text class="outside" x="{edge + 24}" y="{y + 4:g}">{escape(who)}</text>',
    ]


def main() -> int:
    DRAWING.parent.mkdir(exist_ok=True)
    DRAWING.write_text(draw(LAYERS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
