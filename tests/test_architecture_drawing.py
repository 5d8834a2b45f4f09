"""The drawing of the architecture shows the layers that the imports keep to."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from tests import architecture
from tests.test_layering import LAYERS

_SVG = "{http://www.w3.org/2000/svg}"


def _texts(kind: str) -> list[str]:
    root = ET.parse(architecture.DRAWING).getroot()  # noqa: S314  # our own file
    return [each.text or "" for each in root.iter(f"{_SVG}text") if each.get("class") == kind]


def test_the_drawing_has_the_layers_in_their_order() -> None:
    assert _texts("layer") == list(reversed(LAYERS)), "run: python -m tests.architecture"


def test_the_drawing_has_every_module_in_its_layer() -> None:
    expected = [module for modules in reversed(LAYERS.values()) for module in sorted(modules)]
    assert _texts("module") == expected, "run: python -m tests.architecture"


def test_the_drawing_is_up_to_date() -> None:
    assert architecture.DRAWING.read_text() == architecture.draw(LAYERS), "run: python -m tests.architecture"


def test_what_touches_a_layer_from_outside_touches_one_that_exists() -> None:
    assert set(architecture.OUTSIDE) <= set(LAYERS)
